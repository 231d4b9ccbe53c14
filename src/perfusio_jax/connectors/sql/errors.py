"""What a database can say no with, by name, without its password.

Every error of the driver becomes one of these. Messages are made from error codes and from the
first line of what the driver says; statements and their parameters are never shown.
"""

import json
import sqlite3
from typing import Final

from sqlalchemy import exc

from perfusio_jax._core import ConnectorError, DataError, PerfusioError


class DatabaseError(ConnectorError):
    """The database did not do what was asked."""


class DatabaseDownError(DatabaseError):
    """It cannot be reached, or went away, or did not answer in time."""


class DatabaseLockedError(DatabaseError):
    """Another writer held it for longer than the time allowed; try again."""


class DatabaseAccessError(DatabaseError):
    """It is there and does not let this user in, or does not let it write."""


class DatabaseFullError(DatabaseError):
    """There is no room left on its disk; what was to be written was not."""


class SchemaError(DatabaseError):
    """Its tables are not those of this version of the library."""


_SQLITE: Final[dict[str, tuple[type[Exception], str]]] = {
    "SQLITE_BUSY": (DatabaseLockedError, "is locked by another writer"),
    "SQLITE_LOCKED": (DatabaseLockedError, "is locked by another writer"),
    "SQLITE_CANTOPEN": (DatabaseDownError, "cannot be opened; is the file there?"),
    "SQLITE_IOERR": (DatabaseDownError, "cannot be read or written (input/output error)"),
    "SQLITE_INTERRUPT": (DatabaseDownError, "did not answer in time"),
    "SQLITE_READONLY": (DatabaseAccessError, "is read-only for this user"),
    "SQLITE_PERM": (DatabaseAccessError, "is not open to this user"),
    "SQLITE_AUTH": (DatabaseAccessError, "is not open to this user"),
    "SQLITE_FULL": (DatabaseFullError, "has no room left on its disk"),
    "SQLITE_NOTADB": (SchemaError, "is not an SQLite database"),
    "SQLITE_CORRUPT": (SchemaError, "is damaged; restore it from a backup"),
}
"""By the first two words of SQLite's error name."""

_POSTGRES: Final[tuple[tuple[str, type[Exception], str], ...]] = (
    ("55P03", DatabaseLockedError, "is locked by another writer"),
    ("57014", DatabaseLockedError, "did not finish a statement in the time allowed"),
    ("40", DatabaseLockedError, "is busy with another writer's transaction"),
    ("28", DatabaseAccessError, "refuses this user or password"),
    ("42501", DatabaseAccessError, "does not allow this user to do that"),
    ("25006", DatabaseAccessError, "is read-only"),
    ("53100", DatabaseFullError, "has no room left on its disk"),
    ("3D000", SchemaError, "does not exist on this server; create it first"),
    ("42P01", SchemaError, "lacks a table"),
    ("42703", SchemaError, "lacks a column"),
    ("3F000", SchemaError, "lacks the schema"),
    ("22", DataError, "cannot hold such a value"),
    ("53", DatabaseDownError, "has no capacity left"),
    ("08", DatabaseDownError, "cannot be reached"),
    ("57P", DatabaseDownError, "went away"),
)
"""By the beginning of the SQLSTATE, the first that fits."""


def named(error: BaseException, where: str) -> Exception:
    """The error of this library for an error of a driver or of SQLAlchemy.

    Args:
        error: What was raised.
        where: The database, without its password.

    Returns:
        A `DatabaseError` or `DataError`, to be raised `from None`: the driver's error holds the
        statement and its parameters.
    """
    raw = _raw(error)
    if isinstance(raw, PerfusioError):  # a type of ours refused the value
        return raw
    kind, says = _classify(raw)
    hint = _first_line(raw)
    return kind(f"The database {where} {says}" + (f" ({hint})." if hint else "."))


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when tried again at once."""
    raw = _raw(error)
    state = getattr(raw, "sqlstate", None) or ""
    return state.startswith("40") or isinstance(error, exc.IntegrityError)


def _raw(error: BaseException) -> BaseException:
    """The driver's error inside SQLAlchemy's."""
    return (isinstance(error, exc.StatementError) and error.orig) or error


def _classify(raw: BaseException) -> tuple[type[Exception], str]:
    if isinstance(raw, sqlite3.Error):
        name = getattr(raw, "sqlite_errorname", "") or ""
        key = "_".join(name.split("_")[:2])
        if key in _SQLITE:
            return _SQLITE[key]
        if "no such table" in str(raw) or "has no column" in str(raw) or "no such col" in str(raw):
            return SchemaError, "lacks a table or a column"
    if isinstance(raw, OSError):
        return DatabaseDownError, "cannot be reached"
    if isinstance(raw, UnicodeDecodeError | json.JSONDecodeError):
        return SchemaError, "holds text that cannot be read; is it damaged?"
    if isinstance(raw, OverflowError | ValueError | TypeError | exc.DataError):
        return DataError, "cannot hold such a value"
    state = getattr(raw, "sqlstate", None)
    if state is not None:
        for start, kind, says in _POSTGRES:
            if state.startswith(start):
                return kind, says
        return DatabaseError, f"refused the statement (SQLSTATE {state})"
    text = str(raw)
    if "password authentication failed" in text or "no password supplied" in text:
        return DatabaseAccessError, "refuses this user or password"
    if "does not exist" in text and "database" in text:
        return SchemaError, "does not exist on this server; create it first"
    if type(raw).__module__.startswith("psycopg"):
        return DatabaseDownError, "cannot be reached or went away"
    return DatabaseError, f"gave an error ({type(raw).__name__})"


def _first_line(raw: BaseException) -> str:
    """What the driver says, one line; not where it would quote a row."""
    if isinstance(raw, sqlite3.IntegrityError) or getattr(raw, "sqlstate", "") in (
        "23505",
        "23503",
    ):
        return ""
    line = (str(raw).strip().splitlines() or [""])[0]
    return line.rstrip(".")[:200]
