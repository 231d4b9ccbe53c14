"""One database: how it is reached, what is switched on, and how its errors are named.

SQLite: write-ahead log, every commit on the disk before it returns, foreign keys on, and write
transactions that take the lock when they begin, so that two writers wait for each other rather
than fail half-way. PostgreSQL: psycopg 3, UTC, time limits on the server's side.

Passwords: libpq takes them from `PGPASSWORD` or the file `~/.pgpass`; none ever passes through
this library, so none can show in its errors and logs.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc, pool
from sqlalchemy.engine import URL, make_url

from perfusio_jax._core import ConfigError

from .errors import DatabaseDownError, SchemaError, is_transient, named
from .schema import HEAD, VERSION_TABLE

_Result = TypeVar("_Result")

PASSWORD_HELP: Final = (
    "take the password out of the URL and put it into the environment (PGPASSWORD) or into "
    "~/.pgpass (host:port:database:user:password, mode 600)"
)
_POSTGRES: Final = frozenset({"postgresql", "postgres"})
_SECRET: Final = re.compile(r"(?i)pass|secret|token|^pwd?$|key$")
_FILES: Final = frozenset({"passfile", "sslkey"})
"""Names of files that hold a secret, which is where it belongs."""
_RETRIES: Final = 5
_TROUBLES: Final = (
    exc.SQLAlchemyError,
    sqlite3.Error,
    OverflowError,
    UnicodeError,
    json.JSONDecodeError,
)
"""What a driver, SQLAlchemy or damaged content raises; other errors are those of the work."""


def read_url(url: str) -> URL:
    """A database URL this library can use.

    Args:
        url: `sqlite:///file.db` or `postgresql://user@host:port/database`; drivers such as
            `postgresql+psycopg2` are rewritten to psycopg 3.

    Returns:
        The URL with its driver.

    Raises:
        ConfigError: If it is no such URL, would be in memory only, or holds a password; the
            message never repeats the URL's password.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError, TypeError, AttributeError):
        raise ConfigError(
            "the database URL cannot be read; it looks like sqlite:///file.db or "
            "postgresql://user@host:5432/database."
        ) from None
    if parsed.password is not None:
        raise ConfigError(f"the database URL holds a password, which it may not; {PASSWORD_HELP}.")
    secret = [name for name in parsed.query if _SECRET.search(name) and name not in _FILES]
    if secret:
        raise ConfigError(
            f"the database URL holds {', '.join(secret)}, which it may not; {PASSWORD_HELP}."
        )
    backend = parsed.drivername.partition("+")[0]
    if backend in _POSTGRES:
        if not parsed.database:
            raise ConfigError("the database URL names no database, as in postgresql://host/name.")
        if "@" in (parsed.host or "") or "@" in (parsed.database or ""):
            raise ConfigError(
                f"the database URL has more than one '@'; if it holds a password, {PASSWORD_HELP}."
            )
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigError(
            f"a database of kind '{backend}' is not supported; allowed are sqlite and postgresql."
        )
    if not parsed.database or parsed.database.startswith((":memory:", "file:")) or parsed.query:
        raise ConfigError(
            "an SQLite database must be a plain file, as in sqlite:///run.db: one in memory would "
            "be lost at the end."
        )
    return parsed.set(drivername="sqlite+pysqlite")


class _StaleError(exc.SQLAlchemyError):
    """A pooled connection turned out to be dead before anything was asked of it."""


class _Call:
    """One piece of work on a connection, which can be cut off from outside."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._driver: Any = None
        self.is_cut = False

    def begin(self, driver: Any) -> None:
        with self._mutex:
            if self.is_cut:
                raise DatabaseDownError("The call was given up before it began.")
            self._driver = driver

    def end(self) -> None:
        with self._mutex:
            self._driver = None

    def cut(self) -> None:
        """End a statement that hangs: interrupt SQLite, hang up on PostgreSQL."""
        with self._mutex:
            self.is_cut = True
            if self._driver is None:
                return
            if isinstance(self._driver, sqlite3.Connection):
                self._driver.interrupt()
                return
            with contextlib.suppress(Exception):  # it may have closed by itself just now
                line = socket.socket(fileno=os.dup(self._driver.pgconn.socket))
                with line:
                    line.shutdown(socket.SHUT_RDWR)


class Database:
    """A database with the tables of this library.

    Safe to share between threads and reactors. Nothing is opened before the first call.

    Args:
        url: See `read_url`.
        timeout_s: How long one call may take [s], waiting for locks included.
        echo: Print every statement to standard output.

    Raises:
        ConfigError: If the URL or the time-out makes no sense, or psycopg is not installed.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, echo: bool = False) -> None:
        if not timeout_s > 0.0:
            raise ConfigError(f"timeout_s is {timeout_s!r}; it must be above 0 s.")
        self.url = read_url(url)
        self.timeout_s = float(timeout_s)
        kind = self.url.drivername.partition("+")[0]
        self.where = self.url.set(drivername=kind).render_as_string(hide_password=True)
        self.is_sqlite = self.url.drivername.startswith("sqlite")
        self.file = Path(self.url.database or "") if self.is_sqlite else None
        self._is_checked = False
        self._echo = echo
        try:
            self.engine = self._sqlite() if self.is_sqlite else self._postgres()
        except ModuleNotFoundError:
            raise ConfigError(
                "PostgreSQL needs psycopg 3: pip install 'perfusio-jax[postgres]'."
            ) from None

    def __repr__(self) -> str:
        """Without anything secret."""
        return f"Database({self.where!r})"

    # ------------------------------------------------------------ calls

    def call(
        self,
        work: Callable[[sa.Connection], _Result],
        *,
        is_write: bool = False,
        cutter: _Call | None = None,
        needs_schema: bool = True,
    ) -> _Result:
        """Do work in one transaction; all of it happens, or none.

        Work that meets another writer's fresh row or a deadlock is done again from the start.

        Args:
            work: Function of an open connection; may be called more than once.
            is_write: Whether it writes.
            cutter: Lets another thread end it.
            needs_schema: Whether the tables must be those of this version.

        Raises:
            DatabaseError: If the database cannot be used; named after why.
            DataError: If it cannot hold a value.
        """
        cutter = cutter or _Call()
        for attempt in range(_RETRIES):
            try:
                with self.connection(cutter, is_write=is_write) as connection:
                    if needs_schema:
                        self.check(connection)
                    return work(connection)
            except _TROUBLES as error:
                if cutter.is_cut:
                    raise DatabaseDownError(self._late()) from None
                is_worth_it = isinstance(error, _StaleError) or (is_write and is_transient(error))
                if not is_worth_it or attempt + 1 == _RETRIES:
                    trouble = named(error, self.where)
                    if isinstance(trouble, SchemaError):
                        self._is_checked = False
                    raise trouble from None
            except OSError as error:  # the folder of an SQLite file went away
                raise named(error, self.where) from None
        raise DatabaseDownError(self._late())  # pragma: no cover - the loop returns or raises

    async def acall(
        self, work: Callable[[sa.Connection], _Result], *, is_write: bool = False
    ) -> _Result:
        """`call` beside the event loop, with a time-out.

        Raises:
            DatabaseDownError: If it did not answer in time; whether a write arrived is unknown.
            DatabaseError: If the database cannot be used; named after why.
        """
        cutter = _Call()
        try:
            return await asyncio.wait_for(
                asyncio.to_thread(self.call, work, is_write=is_write, cutter=cutter),
                1.2 * self.timeout_s,  # the database's own limits come first and say more
            )
        except TimeoutError:
            cutter.cut()
            raise DatabaseDownError(self._late()) from None
        except asyncio.CancelledError:
            cutter.cut()
            raise

    def close(self) -> None:
        """Close what is open; the next call opens it again."""
        self.engine.dispose()
        self._is_checked = False

    # ------------------------------------------------------------ schema

    def revision(self) -> str | None:
        """Migration the database is at; `None` if it has none of this library's tables.

        Raises:
            DatabaseError: If the database cannot be used.
        """
        return self.call(revision_in, needs_schema=False)

    def check(self, connection: sa.Connection) -> None:
        """Refuse a database whose tables are of another version.

        Raises:
            SchemaError: Saying what was found and what to do.
        """
        if self._is_checked:
            return
        found = revision_in(connection)
        if found != HEAD:
            shown = "no tables of this library" if found is None else f"its tables at {found}"
            newer = found is not None and found > HEAD
            remedy = (
                "a newer version of this library wrote it; update the library"
                if newer
                else f"create or update them: perfusio-jax db upgrade {self.where}"
            )
            raise SchemaError(f"The database {self.where} has {shown}, not at {HEAD}: {remedy}.")
        self._is_checked = True

    # ------------------------------------------------------------ connections

    @contextlib.contextmanager
    def connection(
        self, cutter: _Call | None = None, *, is_write: bool = False
    ) -> Iterator[sa.Connection]:
        """An open connection in a transaction: committed at the end, undone on an error.

        Errors are those of SQLAlchemy; `call` names them.
        """
        cutter = cutter or _Call()
        with self.engine.connect() as plain:
            connection = plain.execution_options(perfusio_write=is_write)
            try:
                cutter.begin(connection.connection.driver_connection)
                with connection.begin():
                    if not self.is_sqlite:
                        _ping(connection)
                    yield connection
            finally:
                cutter.end()
                if cutter.is_cut:  # nobody waits, and the pool may have been closed meanwhile
                    plain.invalidate()

    def _late(self) -> str:
        return f"The database {self.where} did not answer within {self.timeout_s:g} s."

    def _postgres(self) -> sa.Engine:
        import psycopg  # noqa: F401 - asked for here, to be missed here

        limit = f"{max(int(800 * self.timeout_s), 1)}ms"
        options = f"-c timezone=UTC -c statement_timeout={limit} -c lock_timeout={limit}"
        return sa.create_engine(
            self.url,
            echo=self._echo,
            hide_parameters=not self._echo,
            pool_timeout=self.timeout_s,
            json_serializer=_to_json,
            connect_args={
                "options": options,
                "connect_timeout": max(round(self.timeout_s), 2),  # psycopg takes 2 s at least
                "application_name": "perfusio-jax",
            },
        )

    def _sqlite(self) -> sa.Engine:
        file = Path(self.url.database or "").absolute()

        def connect() -> sqlite3.Connection:
            if not file.exists():  # SQLite would make an empty one, and hide a wrong path
                raise FileNotFoundError(f"no file {file}")
            return open_sqlite(file, self.timeout_s)

        engine = sa.create_engine(
            self.url,
            creator=connect,
            echo=self._echo,
            hide_parameters=not self._echo,
            pool_timeout=self.timeout_s,
            poolclass=pool.QueuePool,
            json_serializer=_to_json,
        )

        @event.listens_for(engine, "connect")
        def note_file(connection: sqlite3.Connection, record: Any) -> None:
            record.info["inode"] = _inode(file)

        @event.listens_for(engine, "checkout")
        def same_file(connection: sqlite3.Connection, record: Any, proxy: Any) -> None:
            # An open connection would go on writing to a file that was moved or replaced.
            if record.info.get("inode") != _inode(file):
                self._is_checked = False
                raise exc.DisconnectionError

        @event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            is_write = connection.get_execution_options().get("perfusio_write", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

        return engine


def open_sqlite(file: Path, timeout_s: float) -> sqlite3.Connection:
    """An SQLite connection as this library uses it: durable, with foreign keys.

    Args:
        file: The database; made if it is not there.
        timeout_s: How long to wait for another writer [s].

    Raises:
        sqlite3.Error: If it cannot be opened.
    """
    connection = sqlite3.connect(
        file, timeout=0.8 * timeout_s, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _ping(connection: sa.Connection) -> None:
    """Find a connection that died in the pool before work is trusted to it."""
    try:
        connection.exec_driver_sql("SELECT 1")
    except exc.DBAPIError as error:
        if error.connection_invalidated:
            raise _StaleError(str(error.orig)) from None
        raise


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def revision_in(connection: sa.Connection) -> str | None:
    """Migration the database of a connection is at; `None` if at none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    query = sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE))
    rows = connection.execute(query).scalars().all()
    return ", ".join(sorted(str(row) for row in rows)) or None


def _to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
