"""Samples from a file that grows, set-points into a file that is obeyed.

What is read: CSV (comma, semicolon, tab, bar; decimal point or comma; UTF-8 with or without
byte-order mark, UTF-16, Windows-1252; a second row of units), Parquet and Excel, wide or
long. How odd content is coped with is written at the top of `tables/samples.py`, and `report` says
what was done to the file at hand.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from perfusio_jax._core import (
    CONTROL_NAMES,
    HOURS_PER_DAY,
    STREAM_TOTALS,
    ConfigError,
    ConnectorError,
    DataError,
)
from perfusio_jax._core.instants import hours_between
from perfusio_jax.process import Process
from perfusio_jax.twin.decision.cadence import DAILY, Cadence

from ..base import BioreactorConnectorBase, Reading, SampleNotReady, SampleRecord
from ..tables.content import signature
from ..tables.file_rules import FileRules
from ..tables.report import ReadReport
from ..tables.run_rows import Row, RunRows, as_compared
from ..tables.settling import Conflicts
from ..tables.stamps import DateOrder
from ..tables.totals import Totals
from ..tables.vocabulary import Vocabulary
from .setpoint_log import SetpointLog
from .source_file import SourceFile

_LONGEST_JOIN_H = 6.0
"""No sample takes longer [h] to be read."""
_Result = TypeVar("_Result")


class FilesystemStore(BioreactorConnectorBase):
    """Reads samples from CSV, Parquet or Excel; appends set-points to a CSV log.

    The source is read again whenever its size or modification time changes. A last line
    without a line end is taken for half written and waits until it is complete.

    Args:
        source_path: File with the samples; `day` [d] or `time_h` [h] and species by name.
        setpoint_log: CSV file for set-points; `setpoints.csv` beside the source by default.
        wide_format: One column per species; if False, rows of `day, species, value`.
        reactor_id: Vessel whose rows count; needed if the file holds several.
        run_id: Run whose rows count; needed if the file holds several.
        column_map: Label to canonical name (or to `{name, unit}`, or "ignore"), as a mapping
            or a TOML file with a table `[columns]`; its tables `[reading]` and `[set]` say
            the rest (see `tables.file_rules.FileRules`). What is given here beats the file.
        units: Unit by canonical name, where the file does not state it; by default from the
            sidecar `<name>.units.toml`.
        separator: Field separator of a text file; found out by default.
        decimal: "." or ","; found out by default.
        sheet: Sheet of an Excel file; the first by default.
        on_conflict: Two different values for one time: "error" refuses that day; "last" takes
            the later row for a correction. Both are reported.
        day_tolerance_h: How far from 24 h x day [h] a sample may lie and still count for it;
            the nearest one does. At other intervals it is as large a share of the interval.
        allow_unterminated: Read a last line that has no line end; only for files that no
            longer grow.
        controls: Names of the controls; those of the process if there is one.
        timeout_s: How long [s] the file system may take.
        time_zone: Zone of time stamps without an offset, e.g. "Europe/Berlin"; Excel has none.
        inoculated_at: When the run began, with a zone, or when each run (or reactor) did, by
            name; then a column `sampled_at` will do where the file has neither `day` nor
            `time_h`. One time for several runs is refused.
        clock: Source of time stamps; UTC now by default.
        date_order: "dmy" or "mdy" where time stamps have the year last; found out if a day above
            12 tells.
        join_within_h: Rows of one reactor this close [h] to the first of a sample belong to it,
            unless they contradict it; 0 for none, a quarter of the sampling interval at most. A
            column `sample_id` says more.
        totals: "cumulative" where stream totals are counters, which are then differenced, or
            "increments" where they are the volumes since the sample before. What looks like a
            counter is not used until it is told.
        rules: How the file is read, all of it in one; then none of the arguments that say parts
            of it may be given.
        process: The culture, where it is another than CHO perfusion: samples hold what is
            measured of it and set-points are of its controls, by its names and in its units. A
            column of the source in another unit that fits is converted.

    Raises:
        ConfigError: For settings that make no sense, or a process beside other controls.

    Examples:
        >>> from pathlib import Path
        >>> store = FilesystemStore(Path("data/run01.csv"))
    """

    keeps_setpoints = True

    def __init__(
        self,
        source_path: Path | str,
        setpoint_log: Path | str | None = None,
        wide_format: bool = True,
        *,
        reactor_id: str | None = None,
        run_id: str | None = None,
        column_map: Mapping[str, Any] | Path | str | None = None,
        units: Mapping[str, str] | None = None,
        separator: str | None = None,
        decimal: str | None = None,
        sheet: str | None = None,
        on_conflict: Conflicts = "error",
        day_tolerance_h: float = 6.0,
        allow_unterminated: bool = False,
        controls: Sequence[str] | None = None,
        timeout_s: float = 10.0,
        time_zone: str | None = None,
        inoculated_at: dt.datetime | Mapping[str, dt.datetime] | None = None,
        clock: Callable[[], dt.datetime] | None = None,
        date_order: DateOrder | None = None,
        join_within_h: float | None = None,
        totals: Totals | None = None,
        rules: FileRules | None = None,
        process: Process | None = None,
    ) -> None:
        names = CONTROL_NAMES if process is None else process.control_names
        if controls is not None and process is not None and tuple(controls) != names:
            raise ConfigError(
                f"controls {list(controls)} were given beside process {process.name}, whose "
                f"controls are {list(names)}; leave them out."
            )
        parts: dict[str, Any] = dict(
            is_long=not wide_format,
            separator=separator,
            decimal=decimal,
            sheet=sheet,
            on_conflict=None if on_conflict == "error" else on_conflict,
            time_zone=time_zone,
            inoculated_at=inoculated_at,
            date_order=date_order,
            join_within_h=join_within_h,
            totals=totals,
        )
        given = [name for name, value in parts.items() if value not in (None, False)]
        if rules is not None and (given or column_map is not None):
            raise ConfigError(
                f"{', '.join(given) or 'column_map'} is given beside rules, which says it all; "
                "give one of the two."
            )
        rules = FileRules.of(column_map, **parts) if rules is None else rules
        if not 0.0 <= day_tolerance_h <= HOURS_PER_DAY / 2.0:
            raise ConfigError(f"day_tolerance_h is {day_tolerance_h!r}; allowed is 0 to 12 h.")
        if not timeout_s > 0.0:
            raise ConfigError(f"timeout_s is {timeout_s!r}; it must be above 0 s.")
        if not Path(source_path).name:
            raise ConfigError(f"source_path is {str(source_path)!r}, which names no file.")
        self.source_path = Path(source_path)
        self.wide_format = not rules.is_long
        self.reactor_id = reactor_id
        self.run_id = run_id
        log = self.source_path.with_name("setpoints.csv") if setpoint_log is None else setpoint_log
        if Path(log) == self.source_path:
            raise ConfigError(f"{log} cannot be both the source and the set-point log.")
        self.process = process
        self._words = Vocabulary.of(process)
        self._log = SetpointLog(
            log,
            names if controls is None else controls,
            reactor_id,
            patience_s=0.5 * timeout_s,
        )
        self._source = SourceFile(
            self.source_path,
            rules,
            units=units,
            starts=rules.starts(run_id, reactor_id),
            process=process,
            allow_unterminated=allow_unterminated,
        )
        self._day_tolerance_h = day_tolerance_h
        self._cadence = DAILY
        self._join_within_h = rules.joins_within_h
        self._timeout_s = timeout_s
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._served: dict[tuple[str, str, float], dict[str, float | None]] = {}

    @property
    def rules(self) -> FileRules:
        """How the file is read."""
        return self._source.rules

    @property
    def setpoint_log(self) -> Path:
        """The file set-points are appended to."""
        return self._log.path

    def sample_every(self, interval_h: float) -> None:
        """Count in steps of an interval: days may then be fractions of one.

        Args:
            interval_h: Time between two samples [h].

        Raises:
            ConfigError: If nobody samples at this interval.
        """
        self._cadence = Cadence(interval_h)
        # what is due soon after one another is not one sample
        self._source.join_within(min(self._join_within_h, 0.25 * interval_h))

    async def is_alive(self) -> bool:
        """Whether the source is there and can be opened."""

        def look() -> bool:
            signature(self.source_path)  # a pipe would be waited for when it is opened
            with self.source_path.open("rb"):
                return True

        try:
            return await self._offload(look)
        except (ConnectorError, DataError, OSError):
            return False

    async def read_sample(self, day: float) -> dict[str, float | None]:
        """The sample recorded for one culture day.

        Args:
            day: Culture day [d].

        Returns:
            Value per species column of the file; `None` where nothing usable was measured.

        Raises:
            SampleNotReady: If the file has no complete row for that day yet.
            ConnectorError: If the file is not there or does not answer in time.
            DataError: If it cannot be understood, or contradicts itself for that day.
            UnitError: If a unit cannot be read or does not fit its column.
        """
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: float) -> SampleRecord:
        """The sample of one culture day with quality, age, totals, set-points and tags.

        The age comes from a column `sampled_at` (ISO 8601); without one, for the newest row,
        from the time the file was last changed.

        Args:
            day: Culture day [d].

        Returns:
            The record.

        Raises:
            SampleNotReady: If the file has no complete row for that day yet.
            ConnectorError: If the file is not there or does not answer in time.
            DataError: If it cannot be understood, or contradicts itself for that day.
        """
        return await self._offload(lambda: self._record(day))

    async def read_history(self) -> list[SampleRecord]:
        """All samples there are that are due, by day.

        Raises:
            ConnectorError: If the file is not there or does not answer in time.
            DataError: If it cannot be understood or contradicts itself.
        """

        def collect() -> list[SampleRecord]:
            return [self._record(day) for day in self._days()]

        return await self._offload(collect)

    async def read_rows(self) -> list[SampleRecord]:
        """Every sample of this run and reactor by time, those between the days included.

        Raises:
            ConnectorError: If the file is not there or does not answer in time.
            DataError: If it cannot be understood or contradicts itself.
        """

        def collect() -> list[SampleRecord]:
            rows = self._rows() or ()
            for row in rows:
                self._refuse_conflict(row)
            return [
                self._as_record(
                    row,
                    round(row.time_h / HOURS_PER_DAY),
                    list(row.notes),
                    is_newest=k == len(rows) - 1,
                )
                for k, row in enumerate(rows)
            ]

        return await self._offload(collect)

    async def days_available(self) -> list[float]:
        """Culture days [d] the file has a complete row for, ascending.

        Raises:
            ConnectorError: If the file is not there or does not answer in time.
            DataError: If it cannot be understood.
        """
        return await self._offload(self._days)

    async def write_setpoints(
        self,
        setpoints: dict[str, float],
        *,
        day: float | None = None,
        time_h: float | None = None,
    ) -> None:
        """Append set-points to the log; they are on the disk on return.

        Args:
            setpoints: Value per control, in canonical units.
            day: Culture day [d] they are for.
            time_h: Time since inoculation [h] they are for.

        Raises:
            DataError: If a name is not a control or a value is not finite.
            ConnectorError: If the log cannot be written in time.
        """
        now = self._clock()
        await self._offload(lambda: self._log.append(setpoints, now, day=day, time_h=time_h))

    async def read_setpoints(self) -> dict[str, float]:
        """The last value of each control in the log; empty before the first write.

        Raises:
            DataError: If the log cannot be understood.
            ConnectorError: If it cannot be read in time.
        """
        return await self._offload(self._log.last)

    async def read_back(self) -> dict[str, Reading]:
        """The last value of each control in the log, with the time it was written.

        Raises:
            DataError: If the log cannot be understood.
            ConnectorError: If it cannot be read in time.
        """
        found = await self._offload(self._log.last_with_times)
        now = self._clock()
        return {n: Reading(value, "good", at, now) for n, (value, at) in found.items()}

    def report(self) -> ReadReport:
        """What was understood of the file when it was last read, column by column."""
        return self._source.samples(afresh=False).report

    def reactors(self) -> list[str]:
        """Reactors the file names, in order of the alphabet.

        Raises:
            ConnectorError: If it is not there.
            DataError: If it cannot be understood.
        """
        return sorted({reactor_id for _, reactor_id in self._source.samples().rows.runs} - {""})

    def runs(self) -> list[tuple[str, str, list[float]]]:
        """Run, reactor and the times [h] of its samples, for each there is.

        Raises:
            ConnectorError: If it is not there.
            DataError: If it cannot be understood.
        """
        runs = self._source.samples().rows.runs
        return [(*whose, run.times_h.tolist()) for whose, run in sorted(runs.items())]

    def clone(self) -> str | None:
        """Clone of this run and reactor; None if the file does not say one.

        Raises:
            ConnectorError: If it is not there.
            DataError: If it cannot be understood, or says several.
        """
        found = self._source.samples().clones
        mine = dict.fromkeys(
            name
            for (run_id, reactor_id), names in found.items()
            if self.run_id in (None, run_id)
            and self.reactor_id in (None, reactor_id or self.reactor_id)
            for name in names
        )
        if len(mine) > 1:
            raise DataError(
                f"{self.source_path} has the clones {', '.join(mine)} in what is one run here; "
                "say which with run_id and reactor_id (--run-id, --reactor)."
            )
        return next(iter(mine), None)

    def inspect(self) -> ReadReport:
        """Read the file afresh and say what was understood; it may still be empty.

        Raises:
            ConnectorError: If it is not there.
            DataError: If it cannot be understood.
        """
        self._source.forget()
        return self._source.samples().report

    async def _offload(self, work: Callable[[], _Result]) -> _Result:
        """Run blocking work in a thread, with a time-out."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(work), self._timeout_s)
        except TimeoutError:
            raise ConnectorError(
                f"{self.source_path.parent} did not answer within {self._timeout_s:g} s; is the "
                "drive reachable?"
            ) from None

    def _rows(self) -> RunRows | None:
        """Rows of this run and reactor, by time; None if there are none."""
        runs = list(self._source.samples().rows.runs.values())
        names = ("run_id", "reactor_id")
        for name in names:
            wanted = getattr(self, name)
            if wanted is not None and any(getattr(run, name) for run in runs):
                runs = [run for run in runs if getattr(run, name) == wanted]
        for name in names:
            present = sorted({getattr(run, name) for run in runs})
            if len(present) > 1:
                shown = ", ".join(value or "none" for value in present[:8])
                more = f" and {len(present) - 8} more" if len(present) > 8 else ""
                raise DataError(
                    f"{self.source_path} holds several values of {name} ({shown}{more}); say "
                    f"which one counts with {name} (a key of [twin] in twin.toml; of a command "
                    f"--{name.replace('_', '-')})."
                )
        return runs[0] if runs else None

    @property
    def _tolerance_h(self) -> float:
        return self._day_tolerance_h * self._cadence.interval_h / HOURS_PER_DAY

    def _days(self) -> list[float]:
        cadence, numbers = self._cadence, set()
        run = self._rows()
        for time_h in [] if run is None else run.times_h.tolist():
            number = cadence.number(time_h / HOURS_PER_DAY)
            if abs(time_h - cadence.hours(number)) <= self._tolerance_h:
                numbers.add(number)
        return [cadence.day(number) for number in sorted(numbers)]

    def _record(self, day: float) -> SampleRecord:
        run = self._rows()
        due = day * HOURS_PER_DAY if self._cadence.is_daily else self._cadence.due(day)
        near = [] if run is None else run.near(due, self._tolerance_h)
        if run is None or not near:
            raise SampleNotReady(self._why_not(day, run))
        nearest = min(near, key=lambda k: abs(run.times_h[k] - due))
        row = run[nearest]
        self._refuse_conflict(row)
        notes = list(row.notes)
        if len(near) > 1:
            others = ", ".join(f"{run.times_h[k]:g}" for k in near if k != nearest)
            notes.append(f"day {day:g} is the sample at {row.time_h:g} h; there is also {others} h")
        return self._as_record(row, day, notes, is_newest=nearest == len(run) - 1)

    def _as_record(
        self, row: Row, day: float, notes: list[str], *, is_newest: bool
    ) -> SampleRecord:
        key = (row.run_id, row.reactor_id, row.time_h)
        said = {n: as_compared(v, row.limit(n)) for n, v in row.values.items()}
        earlier = self._served.get(key)
        if earlier is not None and earlier != said:
            notes.append(f"the row of day {day:g} changed since it was first read")
        self._served.setdefault(key, said)
        columns = self._source.samples().columns

        def pick(names: Sequence[str]) -> dict[str, float | None]:
            return {name: row.values.get(name) for name in names if name in columns}

        species, totals = pick(self._words.species), pick(STREAM_TOTALS)
        controls, tags = pick(self._log.controls), pick(self._words.tags)
        names = (*species, *totals, *controls, *tags)
        now = self._clock()
        return SampleRecord(
            day=day,
            time_h=row.time_h,
            values=species,
            quality={name: row.quality(name) for name in names},
            reactor_id=row.reactor_id or self.reactor_id,
            age_h=self._age(row, now, is_newest=is_newest),
            stream_totals=totals,
            controls=controls,
            tags=tags,
            volume_L=row.values.get("volume_L"),
            notes=tuple(notes),
            source_times={} if row.sampled_at is None else dict.fromkeys(names, row.sampled_at),
            read_at=now,
            limits=row.limits or {},
        )

    def _refuse_conflict(self, row: Row) -> None:
        if row.conflicts:
            raise DataError(f"{self.source_path}: {'; '.join(row.conflicts)}. Keep one of them.")

    def _why_not(self, day: float, rows: RunRows | None) -> str:
        text = f"{self.source_path} has no row for day {day:g} yet"
        report = self.report()
        if report.held_back is not None:
            text += f" (line {report.held_back} has no line end and is not read until it has)"
        elif not rows and report.n_rows:
            wanted = " and ".join(
                f"{name} {value!r}"
                for name, value in (("run_id", self.run_id), ("reactor_id", self.reactor_id))
                if value is not None
            )
            text += f" (none of its {report.n_rows} rows is of {wanted}"
            text += f"; it has {', '.join(self.reactors())})" if self.reactors() else ")"
        elif not rows:
            text += f" ({report.notes[-1]})" if report.notes else ""
        else:
            text += f" (its last is at {rows.times_h[-1] / HOURS_PER_DAY:g} d)"
        left_out = [note for note in report.notes if note.endswith("the row is left out")]
        if left_out:
            text += f"; {left_out[-1]}"
        return text

    def _age(self, row: Row, now: dt.datetime, *, is_newest: bool) -> float | None:
        if row.sampled_at is not None:
            return hours_between(now, row.sampled_at)
        changed = self._source.changed_at
        if not is_newest or changed is None or row.has_odd_stamp:
            return None
        return hours_between(now, changed)
