"""Making the tables and bringing them from one version to another, whole or not at all."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import exc

from perfusio_jax._core import ConfigError, ConnectorError

from .engine import Database, open_sqlite, revision_in
from .errors import SchemaError, named
from .schema import metadata

MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"

_LOCK: Final = 7_083_731_955_124
"""Number of the lock PostgreSQL holds while migrating, so that two do not at once."""


def upgrade(database: Database, to: str = "head") -> None:
    """Make the tables, or bring them to a later version.

    Args:
        database: The database; an SQLite file is made if it is not there.
        to: Migration to stop at.

    Raises:
        SchemaError: If tables of the same names, made by something else, are in the way.
        DatabaseError: If the database cannot be used; it is then as it was.
        ConfigError: If there is no such migration.
    """
    _migrate(database, lambda config: command.upgrade(config, to), makes=True)


def downgrade(database: Database, to: str, *, drop_history: bool = False) -> None:
    """Bring the tables back to an earlier version.

    Args:
        database: The database.
        to: Migration to go back to; "base" drops all tables.
        drop_history: Allow what only the later version can hold to be lost.

    Raises:
        ConfigError: If something would be lost and that is not allowed, or there is no such
            migration.
        DatabaseError: If the database cannot be used; it is then as it was.
    """
    _migrate(database, lambda config: command.downgrade(config, to), {"drop_history": drop_history})


def run_in(url: str, work: Callable[[sa.Connection], None]) -> None:
    """Run migrations from the `alembic` program: on a URL, locked and named as from here."""
    database = Database(url)
    try:
        _make_file(database)
        _locked(database, work)
    finally:
        database.close()


def _migrate(
    database: Database,
    run: Callable[[Config], None],
    attributes: dict[str, Any] | None = None,
    *,
    makes: bool = False,
) -> None:
    if makes:
        _make_file(database)

    def work(connection: sa.Connection) -> None:
        _check_strangers(database, connection)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes.update({**(attributes or {}), "connection": connection})
        try:
            run(config)
        except CommandError as error:
            raise ConfigError(f"The database {database.where}: {error}.") from None

    _locked(database, work)
    database.close()  # what was prepared for the old tables is forgotten


def _locked(database: Database, work: Callable[[sa.Connection], None]) -> None:
    try:
        with database.connection(is_write=True) as connection:
            if not database.is_sqlite:
                # Copying a large table may take longer than any daily statement should.
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            work(connection)
    except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise named(error, database.where) from None


def _make_file(database: Database) -> None:
    if database.file is None or database.file.exists():
        return
    if not database.file.absolute().parent.is_dir():
        raise ConnectorError(
            f"{database.file} cannot be made: there is no folder {database.file.parent}."
        )
    try:
        open_sqlite(database.file.absolute(), database.timeout_s).close()
    except sqlite3.Error as error:
        raise named(error, database.where) from None
    except OSError as error:
        raise ConnectorError(f"{database.file} cannot be made: {error}") from None


def _check_strangers(database: Database, connection: sa.Connection) -> None:
    """Refuse tables of ours that no migration made."""
    if revision_in(connection) is not None:
        return
    found = sorted(set(sa.inspect(connection).get_table_names()) & set(metadata.tables))
    if found:
        raise SchemaError(
            f"The database {database.where} has tables {', '.join(found)} that no migration of "
            "this library made; choose another database."
        )
