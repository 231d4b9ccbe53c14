"""Samples, set-points and records of a run in a database: SQLite or PostgreSQL.

Everything is stored once. A row that is there already with the same content is left alone; one
with other content is refused by name, or, for samples, kept as a further revision beside the
first. Nothing is changed in place and nothing is deleted.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax.process import Process
from perfusio_jax.twin.decision.cadence import DAILY, Cadence

from ..base import (
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
)
from . import schema
from .archive import SQLArchive
from .records import whole_day
from .sample_writing import SampleWriting
from .setpoint_history import SetpointHistory


class SQLStore(SampleWriting, SetpointHistory, SQLArchive, BioreactorConnectorBase):
    """One reactor of one experiment in a database, as a connector and as an archive.

    Set-points go into the table `setpoint_history`, for whatever drives the reactor to obey;
    an operator's row there is read back like the twin's own.

    Args:
        db_url: `sqlite:///perfusio.db` or `postgresql://user@host/database`. A password comes
            from `PGPASSWORD` or `~/.pgpass`, never from here.
        experiment_name: Name of the experiment; made on the first write.
        reactor_name: Name of the vessel; made on the first write.
        echo: Print every SQL statement to standard output.
        timeout_s: How long one call may take [s].
        controls: Names of the controls; those of the process if there is one.
        clock: Source of time stamps; UTC now by default.
        process: The culture, where it is another than CHO perfusion: samples and set-points have
            its names and units, and it is stored with the reactor. A reactor that holds another
            culture is refused with the differences, whatever is asked of its samples.

    Raises:
        ConfigError: If the URL cannot be used or holds a password, or a process is given beside
            other controls.
        DataError: If a name is empty or holds control characters.

    Examples:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp(), "test.db")
        >>> store = SQLStore(f"sqlite:///{file}", "Exp1", "R1")
        >>> store.create_tables()
        >>> store.write_sample(1, {"VCD": 2.3, "Glc": 4.8}).value
        'new'
        >>> store.write_sample(1, {"VCD": 2.3, "Glc": 4.8}).value
        'duplicate'
    """

    keeps_setpoints = True

    def __init__(
        self,
        db_url: str,
        experiment_name: str,
        reactor_name: str,
        echo: bool = False,
        *,
        timeout_s: float = 10.0,
        controls: Sequence[str] | None = None,
        clock: Callable[[], dt.datetime] | None = None,
        process: Process | None = None,
    ) -> None:
        super().__init__(
            db_url,
            experiment_name,
            reactor_name,
            echo,
            timeout_s=timeout_s,
            clock=clock,
            process=process,
        )
        names = self.words.controls
        if controls is not None and process is not None and tuple(controls) != names:
            raise ConfigError(
                f"controls {list(controls)} were given beside process {process.name}, whose "
                f"controls are {list(names)}; leave them out."
            )
        self.controls = names if controls is None else tuple(controls)
        self._cadence = DAILY

    async def is_alive(self) -> bool:
        """Whether the database answers and has the tables of this version. Never raises."""
        try:
            return await self.database.acall(lambda connection: True)
        except Exception:
            return False

    def sample_every(self, interval_h: float) -> None:
        """Count in steps of an interval: days may then be fractions of one.

        A sample between two days is one whose `time_h` says so, whatever its column `day`; it may
        lie up to a quarter of the interval from when it is due.

        Args:
            interval_h: Time between two samples [h].

        Raises:
            ConfigError: If nobody samples at this interval.
        """
        self._cadence = Cadence(interval_h)

    async def read_sample(self, day: float) -> dict[str, float | None]:
        """The species of one culture day, newest revision.

        Args:
            day: Culture day [d].

        Returns:
            Value by species; `None` where nothing usable was measured.

        Raises:
            SampleNotReady: If there is none for that day yet.
            DatabaseError: If the database cannot be used.
        """
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: float) -> SampleRecord:
        """The sample of one culture day with quality, times, totals, set-points and tags.

        Of several samples of one day the one nearest to 24 h x day counts.

        Raises:
            SampleNotReady: If there is none for that day yet.
            DatabaseError: If the database cannot be used.
        """
        if self._counts_days:
            wanted: float = whole_day(day)
            found = await self.database.acall(lambda c: self._records(c, day=int(wanted)))
        else:
            number = self._cadence.number(day)
            wanted = self._cadence.day(number)
            found = [r for r in await self.read_history() if r.day == wanted]
        if not found:
            raise SampleNotReady(await self.database.acall(lambda c: self._why_not(c, wanted)))
        record = min(found, key=lambda r: abs(r.time_h - 24.0 * r.day))
        if len(found) == 1:
            return record
        others = ", ".join(f"{r.time_h:g}" for r in found if r is not record)
        note = f"day {day:g} is the sample at {record.time_h:g} h; there is also {others} h"
        return replace(record, notes=(*record.notes, note))

    async def read_history(self) -> list[SampleRecord]:
        """All samples, newest revision of each, by time.

        Raises:
            DatabaseError: If the database cannot be used.
        """
        found = await self.database.acall(self._records)
        return found if self._counts_days else [r for r in map(self._placed, found) if r]

    @property
    def _counts_days(self) -> bool:
        """Whether every sample asked for is that of a day; else times say which it is."""
        return self._cadence.interval_h % HOURS_PER_DAY == 0.0

    def _placed(self, record: SampleRecord) -> SampleRecord | None:
        """A sample with the day it is due on; `None` if it is due on none."""
        cadence = self._cadence
        number = cadence.number(record.time_h / HOURS_PER_DAY)
        if abs(record.time_h - cadence.hours(number)) > 0.25 * cadence.interval_h:
            return None
        return replace(record, day=cadence.day(number))

    async def days_available(self) -> list[float]:
        """Culture days [d] that have a sample, ascending."""
        if not self._counts_days:
            return sorted({record.day for record in await self.read_history()})

        def work(connection: sa.Connection) -> list[float]:
            self._check_culture(connection)
            day = schema.sample.c.day
            query = self._of_this(sa.select(day).distinct(), schema.sample)
            return sorted(
                connection.execute(query.where(schema.sample.c.kind == "daily")).scalars()
            )

        return await self.database.acall(work)

    async def read_tags(self) -> dict[str, Reading]:
        """The newest reading of each online tag."""

        def work(connection: sa.Connection) -> dict[str, Reading]:
            table = schema.sample
            query = self._of_this(sa.select(table), table).where(table.c.kind == "online")
            newest = query.order_by(table.c.time_h.desc(), table.c.revision.desc()).limit(1)
            row = connection.execute(newest).mappings().first()
            if row is None:
                return {}
            (record,) = self._as_records(connection, [row])
            probed = [n for n in self.words.online if n in record.values]
            return {name: record.reading(name) for name in (*record.tags, *probed)}

        return await self.database.acall(work)

    async def read_clock(self) -> dt.datetime | None:
        """Time of the server; `None` for SQLite, whose clock is this host's."""
        if self.database.is_sqlite:
            return None
        return await self.database.acall(
            lambda c: c.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        )

    def read_revisions(self, day: int) -> list[dict[str, Any]]:
        """Every revision of the samples of a day, oldest first, with who stored it and why."""
        wanted = whole_day(day)

        def work(connection: sa.Connection) -> list[dict[str, Any]]:
            table = schema.sample
            query = self._of_this(sa.select(table), table).where(
                table.c.day == wanted, table.c.kind == "daily"
            )
            self._check_culture(connection)
            ordered = query.order_by(table.c.time_h, table.c.revision)
            rows = connection.execute(ordered).mappings().all()
            names = ("revision", "stored_at", "stored_by", "reason")
            return [
                {**{name: row[name] for name in names}, "record": record}
                for row, record in zip(rows, self._as_records(connection, rows), strict=True)
            ]

        return self.database.call(work)

    def _records(self, connection: sa.Connection, day: int | None = None) -> list[SampleRecord]:
        """Newest revision of each sample, by time."""
        self._check_culture(connection)
        table = schema.sample
        query = self._of_this(sa.select(table), table).where(table.c.kind == "daily")
        if day is not None:
            query = query.where(table.c.day == day)
        rows = connection.execute(query.order_by(table.c.time_h, table.c.revision)).mappings()
        newest = {row["time_h"]: row for row in rows}
        return self._as_records(connection, [*newest.values()])

    def _why_not(self, connection: sa.Connection, day: float) -> str:
        text = f"{self.database.where} has no sample of {self.reactor_name} for day {day:g} yet"
        if connection.execute(self._reactor_query()).scalar() is not None:
            return text + "."
        names = connection.execute(
            sa.select(schema.reactor.c.name)
            .join(schema.experiment)
            .where(schema.experiment.c.name == self.experiment_name)
            .order_by(schema.reactor.c.name)
        ).scalars()
        known = ", ".join(names)
        return f"{text}; experiment {self.experiment_name} has reactors {known or 'none'}."

    async def close(self) -> None:
        """Close the connections; the next call opens them again."""
        self.database.close()
