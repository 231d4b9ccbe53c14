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

_ACKNOWLEDGED: Final = "audit_acknowledged"
_BEGUN: Final = "audit_begun"
_KEY: Final = "audit_key"

_KEEP: Final = (
    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_KEPT: Final = "SELECT name, value FROM meta"
_HISTORY: Final = "SELECT EXISTS (SELECT 1 FROM samples) OR EXISTS (SELECT 1 FROM decisions)"


class AuditMemory(JournalFile):
    """The audit trail's entries in a journal file; see `JournalFile`."""

    def remember_audit(self, known: Known) -> None:
        """Keep how far the log has come.

        Raises:
            JournalError: If it cannot be written.
        """
        entries = (
            (_ACKNOWLEDGED, known.acknowledged.decode()),
            (_BEGUN, known.begun.decode()),
            (_KEY, known.public_key or ""),
        )
        with self._transaction() as db:
            db.executemany(_KEEP, entries)

    def recall_audit(self) -> Known | None:
        """What is kept of the log; `None` if the journal has never heard of one.

        Raises:
            JournalError: If the journal cannot be read.
        """
        return _known(self._query(_KEPT, ()))

    def has_history(self) -> bool:
        """Whether the journal holds samples or decisions: then there was a log of them.

        Raises:
            JournalError: If the journal cannot be read.
        """
        return bool(self._query(_HISTORY, ())[0][0])


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
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            return _known(db.execute(_KEPT).fetchall())
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise JournalError(f"The journal {path} cannot be read: {error}") from error


def _known(rows: list[tuple[str, str]]) -> Known | None:
    found = dict(rows)
    acknowledged, begun, key = (found.get(name) for name in (_ACKNOWLEDGED, _BEGUN, _KEY))
    if acknowledged is None and begun is None and key is None:
        return None
    return Known(str(acknowledged).encode(), str(begun).encode(), str(key) if key else None)
