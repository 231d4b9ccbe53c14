"""The SQLite file under the journal: schema, transactions, and nothing about their meaning."""

import datetime as dt
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import rfc8785

from .chain import plain
from .entries import JournalError
from .layout import REMEDY, bring_up_to_date, failed, is_old, no_journal, version_of

JOURNAL_NAME = "journal.sqlite"
"""The journal of a run folder."""

_DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""What a file raises that is locked, full, gone or damaged."""

_SPOILED = f"{JOURNAL_NAME} holds an entry that cannot be read:"


class JournalFile:
    """One journal file, open.

    Calls block for as long as the disk takes; from a coroutine hand them to a thread. One
    object may be shared between threads, and one file between processes.

    Args:
        path: The SQLite file; made if it is not there.
        clock: Source of time stamps; UTC now by default.
        timeout_s: How long [s] to wait for another process that holds the file.
        is_read_only: Whether it is only looked at, as by somebody who may not change it; it must
            be there then. One of an earlier version is read from a copy in memory.

    Raises:
        JournalError: If the file is not a journal, is of a newer version or cannot be opened.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Callable[[], dt.datetime] | None = None,
        timeout_s: float = 5.0,
        is_read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._mutex = threading.Lock()
        try:
            if not is_read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                _address(self.path) if is_read_only else self.path,
                timeout=timeout_s,
                isolation_level=None,
                check_same_thread=False,
                uri=is_read_only,
            )
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"The journal {self.path} cannot be opened: {error}") from error
        try:
            if is_read_only:
                self._look()
            else:
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def check(self) -> None:
        """Have SQLite verify the whole file.

        Raises:
            JournalError: If it is damaged.
        """
        answer = self._query("PRAGMA integrity_check", ())
        if answer != [("ok",)]:
            raise JournalError(f"The journal {self.path} is damaged: {answer[0][0]}. {REMEDY}")

    def close(self) -> None:
        """Close the file; everything recorded is on the disk already."""
        with self._mutex:
            self._db.close()

    def __enter__(self) -> Self:
        """Use as a context manager; closes at the end."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def _look(self) -> None:
        """Refuse what is no journal, without changing it; one of before is read from a copy."""
        names = {row[0] for row in self._query("SELECT name FROM sqlite_master", ())}
        if "meta" not in names:
            raise no_journal(self.path)
        if not is_old(version_of(self._db, self.path)):
            return
        memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            self._db.backup(memory)
            bring_up_to_date(memory, self.path)
        except _DAMAGE as error:
            memory.close()
            what = "is of another version and cannot be brought to this one"
            raise failed(self.path, error, what) from error
        self._db.close()
        self._db = memory

    def _prepare(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            names = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        except _DAMAGE as error:
            raise failed(self.path, error, "cannot be used as a journal") from error
        if names and "meta" not in names:
            raise no_journal(self.path)
        with self._transaction() as db:
            bring_up_to_date(db, self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it on the disk at the end, or none of it."""
        with self._mutex:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except _DAMAGE as error:
                raise failed(self.path, error) from error

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._mutex:
            try:
                return self._db.execute(sql, values).fetchall()
            except _DAMAGE as error:
                raise failed(self.path, error) from error

    def _now(self) -> str:
        return stamp(self._clock())


def _address(path: Path) -> str:
    """The address under which SQLite only looks at a file.

    Beside a file nobody has open it puts two of its own, which it cannot on a disk that takes none,
    as that of an archive: then it is told that the file does not change.
    """
    closed = not path.with_name(f"{path.name}-wal").exists()
    is_fixed = closed and not os.access(path.parent, os.W_OK)
    more = "&immutable=1" if is_fixed else ""
    return f"file:{quote(str(path.resolve()))}?mode=ro{more}"


def stamp(moment: dt.datetime) -> str:
    """A moment as text that sorts like time: ISO 8601, UTC, microseconds."""
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds")


def dump(values: Mapping[str, Any]) -> str:
    """Canonical JSON of a payload; numbers that are not finite become `null`."""
    return rfc8785.dumps(plain(values)[0]).decode()


def load(text: str) -> Any:
    """A payload as it was stored.

    Raises:
        JournalError: If it is not what was stored: the file is damaged.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"{_SPOILED} {error}. {REMEDY}") from None
    if not isinstance(found, dict):
        raise JournalError(
            f"{_SPOILED} {type(found).__name__} where names and values belong. {REMEDY}"
        )
    return found
