"""Rows of one reactor of one experiment: found, made and stored once."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import sqlalchemy as sa

from perfusio_jax._core import DataError
from perfusio_jax.process import Process

from ..tables.vocabulary import Vocabulary
from . import schema
from .cultures import check_process, settle_process, stored_process
from .engine import Database
from .records import check_name
from .schema import CHUNK


class Rows:
    """What the store and its archive share: whose rows they are, and how each is stored once.

    Args:
        db_url: See `SQLStore`.
        experiment_name: Name of the experiment; made on the first write.
        reactor_name: Name of the vessel; made on the first write.
        echo: Print every SQL statement to standard output.
        timeout_s: How long one call may take [s].
        clock: Source of time stamps; UTC now by default.
        process: The culture, where it is another than CHO perfusion.
    """

    def __init__(
        self,
        db_url: str,
        experiment_name: str,
        reactor_name: str,
        echo: bool = False,
        *,
        timeout_s: float = 10.0,
        clock: Callable[[], dt.datetime] | None = None,
        process: Process | None = None,
    ) -> None:
        self.experiment_name = check_name(experiment_name, "experiment_name")
        self.reactor_name = check_name(reactor_name, "reactor_name")
        self.process = process
        self.words = Vocabulary.of(process)
        self.database = Database(db_url, timeout_s=timeout_s, echo=echo)
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))

    def __repr__(self) -> str:
        """Without anything secret."""
        where = self.database.where
        return f"{type(self).__name__}({where!r}, {self.experiment_name!r}, {self.reactor_name!r})"

    def for_reactor(self, reactor_name: str) -> Self:
        """The same experiment's other reactor, over the same connections."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, reactor_name=check_name(reactor_name, "reactor_name"))
        return other

    def of_experiment(self, experiment_name: str) -> Self:
        """The same reactor of another experiment, over the same connections."""
        other = object.__new__(type(self))
        name = check_name(experiment_name, "experiment_name")
        other.__dict__.update(self.__dict__, experiment_name=name)
        return other

    def create_tables(self) -> None:
        """Create all tables, or bring those there are to this version; else do nothing.

        Raises:
            SchemaError: If tables of the same names are in the way.
            DatabaseError: If the database cannot be used.
        """
        from .migrate import upgrade

        upgrade(self.database)

    def _now(self) -> dt.datetime:
        return self._clock().astimezone(dt.UTC)

    def _reactor_query(self) -> sa.Select[Any]:
        return (
            sa.select(schema.reactor.c.id)
            .join(schema.experiment)
            .where(
                schema.experiment.c.name == self.experiment_name,
                schema.reactor.c.name == self.reactor_name,
            )
        )

    def _of_this(self, query: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        """Narrow a query to this reactor, or to this experiment where there is no reactor."""
        if "reactor_id" in table.c:
            return query.where(table.c.reactor_id == self._reactor_query().scalar_subquery())
        parent = sa.select(schema.experiment.c.id).where(
            schema.experiment.c.name == self.experiment_name
        )
        return query.where(table.c.experiment_id == parent.scalar_subquery())

    def _rows(self, table: sa.Table) -> list[dict[str, Any]]:
        def work(connection: sa.Connection) -> list[dict[str, Any]]:
            query = self._of_this(sa.select(table), table).order_by(table.c.id)
            return [dict(row) for row in connection.execute(query).mappings()]

        return self.database.call(work)

    def _experiment(self, connection: sa.Connection) -> int:
        """Number of the experiment, made if it is not there."""
        table = schema.experiment
        query = sa.select(table.c.id).where(table.c.name == self.experiment_name)
        found = connection.execute(query).scalar()
        if found is not None:
            return found
        values = {"name": self.experiment_name, "created_at": self._now()}
        new = table.insert().values(values).returning(table.c.id)
        return connection.execute(new).scalar_one()

    def _reactor(self, connection: sa.Connection) -> int:
        """Number of the reactor, made if it is not there."""
        found = connection.execute(self._reactor_query()).scalar()
        if found is not None:
            return found
        values = {
            "experiment_id": self._experiment(connection),
            "name": self.reactor_name,
            "created_at": self._now(),
        }
        new = schema.reactor.insert().values(values).returning(schema.reactor.c.id)
        return connection.execute(new).scalar_one()

    def _vessel(self, connection: sa.Connection) -> int:
        """Number of the reactor for what is of its culture, which is stored, or compared."""
        reactor = self._reactor(connection)
        settle_process(connection, reactor, self.process, {"stored_at": self._now()})
        return reactor

    def _check_culture(self, connection: sa.Connection) -> None:
        """Refuse to read another culture's samples as this one's."""
        reactor = connection.execute(self._reactor_query()).scalar()
        if reactor is not None:
            check_process(connection, reactor, self.process, stored_process(connection, reactor))

    def check_culture(self) -> None:
        """Refuse a reactor that holds another culture; one that is not there yet is none.

        Raises:
            ConfigError: Naming both cultures and in what they differ.
            DatabaseError: If the database cannot be used.
        """
        self.database.call(self._check_culture)

    def _store_once(
        self,
        table: sa.Table,
        key: Sequence[str],
        rows: list[dict[str, Any]],
        stamps: Mapping[str, Any] | None = None,
        *,
        model_sha256: str | None = None,
    ) -> int:
        """Insert rows whose key is new; leave equal ones alone; refuse differing ones.

        `stamps` are not compared: the first time something was stored is when it was.
        """

        def work(connection: sa.Connection) -> int:
            owner = {"reactor_id": self._reactor(connection)}
            if "reactor_id" not in table.c:
                owner = {"experiment_id": self._experiment(connection)}
            if model_sha256 is not None:
                owner["model_run_id"] = self._model_run(connection, model_sha256)
            n_new = 0
            for start in range(0, len(rows), CHUNK):
                part = rows[start : start + CHUNK]
                known = self._known(connection, table, key, owner, part)
                new: list[dict[str, Any]] = []
                for row in part:
                    name = tuple(row[n] for n in key)
                    if name not in known:
                        known[name] = row
                        new.append({**row, **owner, **(stamps or {})})
                        continue
                    differing = [n for n, v in row.items() if known[name][n] != v]
                    if differing:
                        raise DataError(
                            f"{table.name} holds another entry of "
                            f"{', '.join(f'{n} {row[n]}' for n in key)}; it differs in "
                            f"{', '.join(differing)}."
                        )
                if new:
                    connection.execute(table.insert(), new)
                n_new += len(new)
            return n_new

        return self.database.call(work, is_write=True)

    def _known(
        self,
        connection: sa.Connection,
        table: sa.Table,
        key: Sequence[str],
        owner: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
    ) -> dict[tuple[Any, ...], Mapping[str, Any]]:
        """Rows that are there already, by their key."""
        hashed = next(n for n in ("key", "model_sha256") if n in key)
        whose = [table.c[n] == v for n, v in owner.items() if n != "model_run_id"]
        query = sa.select(table).where(*whose, table.c[hashed].in_([row[hashed] for row in rows]))
        found = connection.execute(query).mappings()
        return {tuple(row[n] for n in key): {str(n): v for n, v in row.items()} for row in found}

    def _model_run(self, connection: sa.Connection, model_sha256: str) -> int:
        table = schema.model_run
        query = self._of_this(sa.select(table.c.id), table).where(
            table.c.model_sha256 == model_sha256
        )
        found = connection.execute(query.order_by(table.c.id)).scalars().first()
        if found is None:
            raise DataError(f"no model {model_sha256} is stored; log_model_run stores it.")
        return found
