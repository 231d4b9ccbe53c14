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

SCHEMA_VERSION = 3

JOURNAL_NAME = "journal.sqlite"
"""The journal of a run folder."""

_DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""What a file raises that is locked, full, gone or damaged."""

_VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE samples (
    id INTEGER PRIMARY KEY,
    reactor_id TEXT NOT NULL,
    day REAL NOT NULL,
    revision INTEGER NOT NULL,
    stored_at TEXT NOT NULL,
    payload TEXT NOT NULL,
    UNIQUE (reactor_id, day, revision)
) STRICT;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    reactor_id TEXT NOT NULL,
    day REAL NOT NULL,
    decided_at TEXT NOT NULL,
    payload TEXT NOT NULL,
    superseded_by_reason TEXT
) STRICT;
CREATE UNIQUE INDEX one_standing_decision ON decisions (reactor_id, day)
    WHERE superseded_by_reason IS NULL;
CREATE TABLE intents (
    id INTEGER PRIMARY KEY,
    decision_id INTEGER NOT NULL REFERENCES decisions (id),
    reactor_id TEXT NOT NULL,
    day REAL NOT NULL,
    opened_at TEXT NOT NULL,
    setpoints TEXT NOT NULL,
    outcome TEXT,
    closed_at TEXT,
    result TEXT,
    CHECK ((outcome IS NULL) = (closed_at IS NULL))
) STRICT;
CREATE UNIQUE INDEX one_open_intent ON intents (reactor_id) WHERE outcome IS NULL;
CREATE UNIQUE INDEX one_intent_per_decision ON intents (decision_id);
"""

_VERSION_2 = """
CREATE TABLE cycles (
    reactor_id TEXT NOT NULL,
    day REAL NOT NULL,
    closed_at TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (reactor_id, day)
) STRICT;
INSERT INTO cycles SELECT d.reactor_id, d.day, i.closed_at, 'done' FROM decisions AS d
    JOIN intents AS i ON i.decision_id = d.id
    WHERE d.superseded_by_reason IS NULL AND i.outcome IS NOT NULL;
CREATE TABLE leases (
    reactor_id TEXT PRIMARY KEY,
    token INTEGER NOT NULL,
    holder TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;
CREATE TABLE readings (
    reactor_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    measured_at TEXT NOT NULL,
    time_h REAL NOT NULL,
    value REAL,
    quality TEXT NOT NULL,
    PRIMARY KEY (reactor_id, tag, measured_at)
) STRICT;
CREATE TABLE commands (
    id INTEGER PRIMARY KEY,
    reactor_id TEXT NOT NULL,
    sent_at TEXT NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    role TEXT,
    payload TEXT NOT NULL,
    handled_at TEXT,
    outcome TEXT
) STRICT;
CREATE TABLE alarms (
    id INTEGER PRIMARY KEY,
    reactor_id TEXT NOT NULL,
    name TEXT NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL,
    raised_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    times INTEGER NOT NULL,
    acknowledged_at TEXT,
    acknowledged_by TEXT,
    suppressed_until TEXT,
    cleared_at TEXT
) STRICT;
CREATE UNIQUE INDEX one_standing_alarm ON alarms (reactor_id, name) WHERE cleared_at IS NULL;
"""

_VERSION_3 = """
ALTER TABLE commands ADD COLUMN account TEXT;
ALTER TABLE commands ADD COLUMN ticket TEXT;
CREATE UNIQUE INDEX one_command_of_a_ticket ON commands (account, ticket);
"""


class JournalFile:
    """One journal file, open.

    Calls block for as long as the disk takes; from a coroutine hand them to a thread. One
    object may be shared between threads, and one file between processes.

    Args:
        path: The SQLite file; made if it is not there.
        clock: Source of time stamps; UTC now by default.
        timeout_s: How long [s] to wait for another process that holds the file.
        is_read_only: Whether it is only looked at, as by somebody who may not change it; it must
            be there then, and of this version.

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
            raise JournalError(f"The journal {self.path} is damaged: {answer[0][0]}")

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
        """Refuse what is no journal of this version, without changing it."""
        names = {row[0] for row in self._query("SELECT name FROM sqlite_master", ())}
        if "meta" not in names:
            raise JournalError(f"{self.path} is a database, but not a journal of this program.")
        found = self._query("SELECT value FROM meta WHERE name = 'schema_version'", ())
        if found != [(str(SCHEMA_VERSION),)]:
            raise JournalError(
                f"The journal {self.path} is of another version; the program that runs it brings "
                "it up to date."
            )

    def _prepare(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            names = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        except _DAMAGE as error:
            raise JournalError(f"{self.path} cannot be used as a journal: {error}") from error
        if names and "meta" not in names:
            raise JournalError(f"{self.path} is a database, but not a journal of this program.")
        with self._transaction() as db:
            # Another process may have been faster; then there is nothing left to do.
            if not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                _run(db, _VERSION_1)
                db.execute("INSERT INTO meta VALUES ('schema_version', 1)")
            found = db.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
            if found == ("1",):
                _run(db, _VERSION_2)
            if found in (("1",), ("2",)):
                _run(db, _VERSION_3)
                db.execute("UPDATE meta SET value = '3' WHERE name = 'schema_version'")
            elif found != (str(SCHEMA_VERSION),):
                raise JournalError(
                    f"The journal {self.path} has schema version {found[0] if found else '?'}; "
                    f"this program reads versions 1 to {SCHEMA_VERSION}."
                )

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
                raise JournalError(f"The journal {self.path} failed: {error}") from error

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._mutex:
            try:
                return self._db.execute(sql, values).fetchall()
            except _DAMAGE as error:
                raise JournalError(f"The journal {self.path} failed: {error}") from error

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
        return json.loads(text)
    except ValueError as error:
        raise JournalError(f"The journal holds an entry that cannot be read: {error}") from None


def _run(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        db.execute(statement)
