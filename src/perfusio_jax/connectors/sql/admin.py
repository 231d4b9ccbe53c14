"""`perfusio-jax db`: making a database, bringing it up to date, and what it holds."""

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from . import schema
from .engine import Database
from .migrate import downgrade, upgrade

if TYPE_CHECKING:
    from rich.console import Console


class Holding(NamedTuple):
    """What a database holds of one reactor."""

    experiment: str
    reactor: str
    n_samples: int
    first_day: int
    last_day: int


def holdings(database: Database) -> list[Holding]:
    """What a database holds, reactor by reactor.

    Raises:
        DatabaseError: If the database cannot be used.
    """
    s, r, e = schema.sample, schema.reactor, schema.experiment
    days = sa.func.min(s.c.day), sa.func.max(s.c.day)
    query = (
        sa.select(e.c.name, r.c.name, sa.func.count(sa.distinct(s.c.time_h)), *days)
        .select_from(e.join(r).join(s))
        .where(s.c.kind == "daily")
        .group_by(e.c.name, r.c.name)
        .order_by(e.c.name, r.c.name)
    )
    return database.call(lambda c: [Holding(*row) for row in c.execute(query)])


def upgrade_here(url: str, to: str = "head") -> str:
    """Make or update the tables of a URL; what was done, as a line."""
    with closing(Database(url)) as database:
        upgrade(database, to)
        return f"{database.where}: tables at {database.revision()}"


def downgrade_here(url: str, to: str, *, drop_history: bool = False) -> str:
    """Bring the tables of a URL back; what was done, as a line."""
    with closing(Database(url)) as database:
        downgrade(database, to, drop_history=drop_history)
        found = database.revision()
    return f"{database.where}: " + (f"tables at {found}" if found else "no tables")


def show_status(url: str, console: "Console") -> None:
    """Print the migration of a database and what it holds.

    Raises:
        DatabaseError: If the database cannot be used, or its tables are of another version.
    """
    from rich.table import Table

    table = Table("experiment", "reactor", "samples", "first day", "last day", box=None)
    with closing(Database(url)) as database:
        found = database.revision()
        console.print(f"{database.where}: tables at {found or 'no version'}", soft_wrap=True)
        for row in holdings(database):
            table.add_row(*(str(cell) for cell in row))
    console.print(table if table.row_count else "no samples")
