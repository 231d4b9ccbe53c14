"""Samples, set-points and records of a run in a database: SQLite or PostgreSQL.

Everything is stored once. A row that is there already with the same content is left alone; one
with other content is refused by name, or, for samples, kept as a further revision beside the
first. Nothing is changed in place and nothing is deleted.
"""

import datetime as dt
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError
from perfusio_jax.process import Process
from perfusio_jax.twin.decision.cadence import DAILY, Cadence
from perfusio_jax.twin.records.entries import Stored

from ..base import (
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
    check_setpoints,
)
from . import schema
from .archive import SQLArchive
from .clones import settle_clone
from .cultures import check_process, stored_process
from .readings import insert_samples, rows_apart, with_readings
from .records import check_name, clean, from_row, merge, record_of, to_row, whole_day
from .schema import CHUNK


class SQLStore(SQLArchive, BioreactorConnectorBase):
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

    # ------------------------------------------------------------ samples in

    def write_sample(
        self,
        day: int,
        sample: Mapping[str, Any],
        *,
        time_h: float | None = None,
        quality: Mapping[str, str] | None = None,
        sampled_at: dt.datetime | None = None,
        volume_L: float | None = None,
        is_correction: bool = False,
        user: str = "system",
        reason: str | None = None,
    ) -> Stored:
        """Store the sample of one day, exactly once; it is on the disk on return.

        Blocks for as long as the database takes; from a coroutine use `asyncio.to_thread`.

        A name that had no value yet is filled in. Other values than those stored are refused
        unless `is_correction` says so; the earlier ones stay as an older revision.

        Args:
            day: Culture day [d].
            sample: Value by name of species, stream total, control or tag, in canonical units;
                NaN and `None` are missing.
            time_h: Time since inoculation [h]; 24 h x day by default. What matches two rows.
            quality: Quality by name, "good" by default.
            sampled_at: When it was taken, with a zone.
            volume_L: Working volume [L].
            is_correction: Whether other values replace those stored.
            user: Who stores it.
            reason: Why it is corrected.

        Returns:
            Whether it was new, known already, or changed what was stored.

        Raises:
            DataError: If a name is unknown, a value is not a number, or it contradicts what is
                stored and is no correction.
            DatabaseError: If the database cannot be used; nothing is stored then.
        """
        record = record_of(
            day,
            sample,
            time_h=time_h,
            quality=quality,
            sampled_at=sampled_at,
            volume_L=volume_L,
            words=self.words,
        )
        return self.write_records([record], is_correction=is_correction, user=user, reason=reason)[
            0
        ]

    def write_records(
        self,
        records: Iterable[SampleRecord],
        *,
        kind: str = "daily",
        clone_id: str | None = None,
        is_correction: bool = False,
        user: str = "system",
        reason: str | None = None,
    ) -> list[Stored]:
        """Store many samples in one transaction: all of them, or none.

        Args:
            records: Samples.
            kind: "daily", or "online" for tags between the daily samples.
            clone_id: Clone they are of, if that is known; it is kept with the vessel.
            is_correction: Whether other values replace those stored.
            user: Who stores them.
            reason: Why they are corrected.

        Returns:
            For each, whether it was new, known already, or changed what was stored.

        Raises:
            DataError: If one cannot be stored, naming it; see `write_sample`. If the vessel holds
                another clone.
            DatabaseError: If the database cannot be used.
        """
        if kind not in ("daily", "online"):
            raise DataError(f"kind is {kind!r}; allowed are 'daily' and 'online'.")
        ready = [clean(record, self.words) for record in records]
        stamps = {"kind": kind, "stored_by": check_name(user, "user"), "stored_at": self._now()}

        def work(connection: sa.Connection) -> list[Stored]:
            reactor = self._vessel(connection)
            if clone_id is not None:
                settle_clone(connection, reactor, clone_id)
            fates: list[Stored] = []
            for start in range(0, len(ready), CHUNK):
                part = ready[start : start + CHUNK]
                known = self._newest(connection, reactor, kind, [r.time_h for r in part])
                rows: list[dict[str, Any]] = []
                apart: list[list[dict[str, Any]]] = []
                for record in part:
                    fate, row = self._fate(record, known, is_correction, reason)
                    fates.append(fate)
                    if row is not None:
                        rows.append({**row, **stamps, "reactor_id": reactor})
                        apart.append(rows_apart(known[record.time_h][1], self.words))
                if rows:
                    insert_samples(connection, rows, apart)
            return fates

        return self.database.call(work, is_write=True)

    def write_tags(
        self, tags: Mapping[str, Reading | float | None], time_h: float, *, user: str = "system"
    ) -> Stored:
        """Store online tags of one instant.

        Args:
            tags: Value or reading by name of tag.
            time_h: Time since inoculation [h].
            user: Who stores them.

        Raises:
            DataError: If a name is no tag, or other values are stored for that time.
            DatabaseError: If the database cannot be used.
        """
        rich = {n: t if isinstance(t, Reading) else None for n, t in tags.items()}
        record = SampleRecord(
            day=int(time_h // 24.0),
            time_h=time_h,
            values={},
            tags={n: t.value if isinstance(t, Reading) else t for n, t in tags.items()},
            quality={n: t.quality for n, t in rich.items() if t is not None},
            source_times={
                n: t.source_time for n, t in rich.items() if t is not None and t.source_time
            },
        )
        return self.write_records([record], kind="online", user=user)[0]

    def _newest(
        self, connection: sa.Connection, reactor: int, kind: str, times: list[float]
    ) -> dict[float, tuple[int, SampleRecord]]:
        """Newest revision by time."""
        table = schema.sample
        query = (
            sa.select(table)
            .where(table.c.reactor_id == reactor, table.c.kind == kind, table.c.time_h.in_(times))
            .order_by(table.c.revision)
        )
        found = connection.execute(query).mappings().all()
        newest = {row["time_h"]: row for row in found}
        records = self._as_records(connection, [*newest.values()])
        return {
            time_h: (row["revision"], record)
            for (time_h, row), record in zip(newest.items(), records, strict=True)
        }

    def _as_records(
        self, connection: sa.Connection, rows: Sequence[Mapping[Any, Any]]
    ) -> list[SampleRecord]:
        """Records of rows of the table `sample`."""
        now = self._now()
        return [
            from_row(row, reactor_id=self.reactor_name, read_at=now, words=self.words)
            for row in with_readings(connection, rows, self.words)
        ]

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

    def _fate(
        self,
        record: SampleRecord,
        known: dict[float, tuple[int, SampleRecord]],
        is_correction: bool,
        reason: str | None,
    ) -> tuple[Stored, dict[str, Any] | None]:
        """What becomes of a record, and the row to insert if there is one."""
        if record.time_h not in known:
            known[record.time_h] = (1, record)
            return Stored.NEW, {**to_row(record, self.words), "revision": 1, "reason": reason}
        revision, old = known[record.time_h]
        merged = merge(old, record)
        if merged.differing and not is_correction:
            raise DataError(
                f"another sample of {self.reactor_name} is stored for {record.time_h:g} h (day "
                f"{old.day}): {'; '.join(merged.differing)}. If the new one is right, store it as "
                "a correction (--correct); if it is of another run, it needs an experiment of its "
                "own (--experiment)."
            )
        if not merged.differing and not merged.filled:
            return Stored.DUPLICATE, None
        known[record.time_h] = (revision + 1, merged.record)
        why = reason or (
            f"filled in: {', '.join(merged.filled)}"
            if merged.filled and not merged.differing
            else "; ".join(merged.differing)
        )
        return Stored.CORRECTED, {
            **to_row(merged.record, self.words),
            "revision": revision + 1,
            "reason": why,
        }

    # ------------------------------------------------------------ samples out

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
            return {name: record.reading(name) for name in record.tags}

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

    # ------------------------------------------------------------ set-points

    async def write_setpoints(
        self,
        setpoints: dict[str, float],
        *,
        day: float | None = None,
        time_h: float | None = None,
        write_id: str | None = None,
        user: str = "system",
        reason: str | None = None,
    ) -> None:
        """Append set-points to the history, all of them or none; on the disk on return.

        Args:
            setpoints: Value per control, in canonical units.
            day: Culture day [d] they are for.
            time_h: Time since inoculation [h] they are for.
            write_id: Name of this write, to make trying it again harmless.
            user: Who writes.
            reason: Why.

        Raises:
            DataError: If a name is not a control, a value is not finite, or that `write_id`
                wrote other values.
            DatabaseError: If the database cannot be used.
        """
        checked = check_setpoints(setpoints, self.controls)
        key = check_name(write_id or secrets.token_hex(16), "write_id")
        stamps = {"day": day, "time_h": time_h, "written_at": self._now(), "reason": reason}
        stamps["written_by"] = check_name(user, "user")

        def work(connection: sa.Connection) -> None:
            reactor = self._vessel(connection)
            table = schema.setpoint_history
            known = {
                row.name: row.value
                for row in connection.execute(
                    sa.select(table.c.name, table.c.value).where(
                        table.c.reactor_id == reactor, table.c.write_id == key
                    )
                )
            }
            if known:
                if known != checked:
                    raise DataError(f"the write {key} put {known} before, not {checked}.")
                return
            rows = [
                {"reactor_id": reactor, "write_id": key, "name": n, "value": v, **stamps}
                for n, v in checked.items()
            ]
            connection.execute(table.insert(), rows)

        await self.database.acall(work, is_write=True)

    async def read_setpoints(self) -> dict[str, float]:
        """The last value of each control in the history; empty before the first write.

        Raises:
            DatabaseError: If the database cannot be used.
        """
        return {n: r.value for n, r in (await self.read_back()).items() if r.value is not None}

    async def read_back(self) -> dict[str, Reading]:
        """The last value of each control with the time it was written.

        Raises:
            DatabaseError: If the database cannot be used.
        """

        def work(connection: sa.Connection) -> dict[str, Reading]:
            self._check_culture(connection)
            table = schema.setpoint_history
            last = self._of_this(sa.select(sa.func.max(table.c.id)), table).group_by(table.c.name)
            query = sa.select(table).where(table.c.id.in_(last))
            now = self._now()
            found = {row.name: row for row in connection.execute(query)}
            return {
                name: Reading(found[name].value, "good", found[name].written_at, now)
                for name in self.controls
                if name in found
            }

        return await self.database.acall(work)

    def setpoint_history(self) -> list[dict[str, Any]]:
        """Every set-point ever written, oldest first."""
        return self._rows(schema.setpoint_history)

    async def close(self) -> None:
        """Close the connections; the next call opens them again."""
        self.database.close()
