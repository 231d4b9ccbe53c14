"""Tables of the journal: their versions, how one becomes the next, and what is said of others."""

import sqlite3
from pathlib import Path
from typing import Final

from .entries import JournalError

SCHEMA_VERSION: Final = 3

REMEDY: Final = (
    "Put back a copy of the run folder if there is one; what its audit trail still proves, "
    "perfusio-jax verify-audit says."
)
"""What helps against a damaged journal."""

VERSION_1: Final = """
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

_VERSION_2: Final = """
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

_VERSION_3: Final = """
ALTER TABLE commands ADD COLUMN account TEXT;
ALTER TABLE commands ADD COLUMN ticket TEXT;
CREATE UNIQUE INDEX one_command_of_a_ticket ON commands (account, ticket);
"""


def version_of(db: sqlite3.Connection, path: Path) -> str:
    """Which version of the tables a journal has; "" where it does not say.

    Args:
        db: The journal, open.
        path: Its file, for messages.

    Raises:
        JournalError: If it cannot be read, or is of a version that is not known.
    """
    try:
        found = db.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise failed(path, error) from error
    version = str(found[0]) if found else ""
    if version in {str(n + 1) for n in range(SCHEMA_VERSION)}:
        return version
    is_newer = version.isascii() and version.isdigit() and int(version[:9]) > SCHEMA_VERSION
    why = "a newer perfusio-jax wrote it: use that one." if is_newer else f"it is damaged. {REMEDY}"
    raise JournalError(
        f"The journal {path} has schema version {version[:20] or 'unknown'}; this program reads "
        f"versions 1 to {SCHEMA_VERSION}: {why}"
    )


def is_old(version: str) -> bool:
    """Whether tables are of an earlier version than this program's."""
    return version != str(SCHEMA_VERSION)


def bring_up_to_date(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or make those of an earlier version into those of this one.

    Args:
        db: The journal, in a transaction. Another process may have been faster; then there is
            nothing left to do.
        path: Its file, for messages.

    Raises:
        JournalError: If it is of a version that is not known.
    """
    if not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        _run(db, VERSION_1)
        db.execute("INSERT INTO meta VALUES ('schema_version', 1)")
    version = version_of(db, path)
    if version == "1":
        _run(db, _VERSION_2)
    if version in ("1", "2"):
        _run(db, _VERSION_3)
        db.execute("UPDATE meta SET value = '3' WHERE name = 'schema_version'")


def no_journal(path: Path) -> JournalError:
    """What is said of a file that is no journal."""
    if not path.stat().st_size:
        return JournalError(f"The journal {path} is empty: it was cut off. {REMEDY}")
    return JournalError(f"{path} is a database, but not a journal of this program.")


def failed(path: Path, error: Exception, what: str = "failed") -> JournalError:
    """What is said of a file SQLite has trouble with; of one that is damaged, what helps.

    Args:
        path: The journal.
        error: What SQLite said. A file that is locked or full is an operational trouble of its
            own; one that lacks tables, or is none, is damaged.
        what: What the journal did.
    """
    what = "cannot be used as a journal" if "not a database" in str(error) else what
    text = f"The journal {path} {what}: {error}"
    is_busy = isinstance(error, sqlite3.OperationalError) and "no such" not in str(error)
    return JournalError(text if is_busy else f"{text}. {REMEDY}")


def _run(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        db.execute(statement)
