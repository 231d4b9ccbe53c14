"""Whose a vessel in a database is: the culture its samples and set-points are of."""

import hashlib
from typing import Any

import sqlalchemy as sa

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.process import Process

from . import schema
from .engine import Database


def process_sha256(process: Process) -> str:
    """Digest of everything a process says."""
    return hashlib.sha256(process.model_dump_json().encode()).hexdigest()


def stored_process(connection: sa.Connection, reactor: int) -> Process | None:
    """The described culture of a vessel; None for CHO perfusion as the reference API has it.

    Args:
        connection: To the database.
        reactor: Number of the vessel.

    Raises:
        DataError: If what is stored is no process.
    """
    table = schema.culture
    row = connection.execute(sa.select(table).where(table.c.reactor_id == reactor)).mappings()
    found = row.first()
    return None if found is None else _as_process(found)


def settle_process(
    connection: sa.Connection, reactor: int, process: Process | None, stamp: dict[str, Any]
) -> None:
    """Store whose a vessel is, where nothing says so yet and nothing of another is there.

    Args:
        connection: To the database, in a transaction that writes.
        reactor: Number of the vessel.
        process: The culture; None for CHO perfusion as the reference API has it.
        stamp: When, as `stored_at`.

    Raises:
        ConfigError: If the vessel is another culture's, naming the differences.
    """
    found = stored_process(connection, reactor)
    if process is None or found is not None or _holds_samples(connection, reactor):
        check_process(connection, reactor, process, found)
        return
    row = {
        "reactor_id": reactor,
        "name": process.name,
        "process_sha256": process_sha256(process),
        "process": process.model_dump(mode="json"),
        **stamp,
    }
    connection.execute(schema.culture.insert(), row)


def check_process(
    connection: sa.Connection, reactor: int, process: Process | None, found: Process | None
) -> None:
    """Refuse a vessel that is another culture's than the one asked for.

    Args:
        connection: To the database.
        reactor: Number of the vessel.
        process: The culture asked for.
        found: The culture that is stored.

    Raises:
        ConfigError: Naming both, and in what they differ.
    """
    if process is None and found is None:
        return
    if process is None or found is None:
        if found is None and not _holds_samples(connection, reactor):
            return
        holds = "CHO perfusion as the reference API has it" if found is None else found.name
        asked = "process is not given" if process is None else f"process is {process.name}"
        remedy = "leave process out" if found is None else "name its process (--process, process)"
        raise ConfigError(
            f"the database holds {_named(connection, reactor)} as {holds}, and {asked}; {remedy}, "
            "or name another experiment."
        )
    differs = found.differences(process)
    if differs:
        listed = "; ".join(differs[:6])
        more = f"; and {len(differs) - 6} more" if differs[6:] else ""
        raise ConfigError(
            f"the database holds {_named(connection, reactor)} as {found.name}, and the process "
            f"given is {process.name}: {listed}{more} (the database's first). Undo the change, or "
            "name another experiment."
        )


def processes_of(database: Database, experiment: str) -> dict[str, Process | None]:
    """Culture of each vessel of an experiment, by its name.

    Raises:
        DatabaseError: If the database cannot be used.
        DataError: If what is stored is no process.
    """
    e, r, c = schema.experiment, schema.reactor, schema.culture
    query = (
        sa.select(r.c.name.label("reactor"), c.c.name, c.c.process)
        .select_from(e.join(r).outerjoin(c, c.c.reactor_id == r.c.id))
        .where(e.c.name == experiment)
    )

    def work(connection: sa.Connection) -> dict[str, Process | None]:
        rows = connection.execute(query).mappings()
        return {
            row["reactor"]: None if row["process"] is None else _as_process(row) for row in rows
        }

    return database.call(work)


def _as_process(row: Any) -> Process:
    try:
        return Process(**row["process"])
    except (ConfigError, TypeError) as error:
        raise DataError(
            f"the database holds a process {row['name']!r} that cannot be read: {error}"
        ) from None


def _holds_samples(connection: sa.Connection, reactor: int) -> bool:
    """Whether samples or set-points are there, which are of somebody's culture."""
    return any(
        connection.execute(
            sa.select(table.c.id).where(table.c.reactor_id == reactor).limit(1)
        ).first()
        is not None
        for table in (schema.sample, schema.setpoint_history)
    )


def _named(connection: sa.Connection, reactor: int) -> str:
    r, e = schema.reactor, schema.experiment
    row = connection.execute(
        sa.select(r.c.name, e.c.name.label("experiment"))
        .select_from(e.join(r))
        .where(r.c.id == reactor)
    ).one()
    return f"{row.name} of experiment {row.experiment}"
