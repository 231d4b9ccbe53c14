"""Whose cells a vessel in a database holds: the clone its samples are of."""

import sqlalchemy as sa

from perfusio_jax._core import DataError

from . import schema
from .engine import Database
from .records import check_name


def settle_clone(connection: sa.Connection, reactor: int, clone_id: str) -> None:
    """Store whose cells a vessel holds, where nothing says so yet.

    Args:
        connection: To the database, in a transaction that writes.
        reactor: Number of the vessel.
        clone_id: The clone.

    Raises:
        DataError: If the name cannot be stored, or the vessel holds another clone.
    """
    name, table = check_name(clone_id, "clone_id"), schema.reactor
    mine = table.c.id == reactor
    row = connection.execute(sa.select(table.c.name, table.c.clone_id).where(mine)).one()
    if row.clone_id is None:
        connection.execute(table.update().where(mine).values(clone_id=name))
    elif row.clone_id != name:
        raise DataError(
            f"the database holds {row.name} as clone {row.clone_id}, and these samples are of "
            f"clone {name}; a run of another clone needs an experiment of its own (--experiment)."
        )


def clones_of(database: Database, experiment: str) -> dict[str, str]:
    """Clone of each vessel of an experiment that has one, by the vessel's name.

    Raises:
        DatabaseError: If the database cannot be used.
    """
    e, r = schema.experiment, schema.reactor
    query = (
        sa.select(r.c.name, r.c.clone_id)
        .select_from(e.join(r))
        .where(e.c.name == experiment, r.c.clone_id.is_not(None))
    )
    return database.call(lambda c: {row.name: row.clone_id for row in c.execute(query)})
