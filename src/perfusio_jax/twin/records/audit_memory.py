"""What the journal keeps of the audit trail: how far it has come, and whose key signs it."""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .entries import JournalError
from .store import JOURNAL_NAME, JournalFile
from .vouching import Known

_NAMES: Final = ("audit_acknowledged", "audit_begun", "audit_key")


class AuditMemory(JournalFile):
    """The audit trail's entries in a journal file; see `JournalFile`."""

    def remember_audit(self, known: Known) -> None:
        """Keep how far the log has come.

        Raises:
            JournalError: If it cannot be written.
        """
        values = (known.acknowledged.decode(), known.begun.decode(), known.public_key or "")
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = "
                "excluded.value",
                zip(_NAMES, values, strict=True),
            )

    def recall_audit(self) -> Known | None:
        """What is kept of the log; `None` if the journal has never heard of one.

        Raises:
            JournalError: If the journal cannot be read.
        """
        return _known(self._query("SELECT name, value FROM meta", ()))

    def has_history(self) -> bool:
        """Whether the journal holds samples or decisions: then there was a log of them.

        Raises:
            JournalError: If the journal cannot be read.
        """
        query = "SELECT EXISTS (SELECT 1 FROM samples) OR EXISTS (SELECT 1 FROM decisions)"
        return bool(self._query(query, ())[0][0])


def recall(folder: Path) -> Known | None:
    """What the journal in a run folder keeps of the log, read without changing it.

    Args:
        folder: Run folder.

    Returns:
        The entry; `None` where there is no journal, or it has never heard of a log.

    Raises:
        JournalError: If there is one and it cannot be read.
    """
    path = folder / JOURNAL_NAME
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise JournalError(f"The journal {path} is no file.")
    try:
        address = f"file:{quote(str(path.resolve()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=5.0)) as db:
            return _known(db.execute("SELECT name, value FROM meta").fetchall())
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise JournalError(f"The journal {path} cannot be read: {error}") from error


def _known(rows: list[tuple[str, str]]) -> Known | None:
    found = dict(rows)
    acknowledged, begun, key = (found.get(name) for name in _NAMES)
    if acknowledged is None and begun is None and key is None:
        return None
    return Known(str(acknowledged).encode(), str(begun).encode(), str(key) if key else None)
