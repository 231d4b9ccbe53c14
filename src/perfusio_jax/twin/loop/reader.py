"""From the source to the journal: wait for a sample, judge it, store it once."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from perfusio_jax._core import (
    AccessRefused,
    ConnectorError,
    DataError,
    PerfusioError,
    SampleNotReady,
)
from perfusio_jax._core.instants import hours_before, hours_between, known_instant

from ..decision.brain import OnlineReading, Row
from ..decision.cadence import DAILY, Cadence
from ..decision.checks import Expectation, implausible, is_about
from ..records.audit import AuditLogger
from ..records.entries import Stored
from ..records.records_file import RunRecords
from ..records.runtime import Runtime
from ..records.samples import as_plain, volume_of
from ..records.secrets import in_short
from .line import SourceLine
from .session import Session
from .settings import LoopSettings
from .writer import has_own

_COMPARED = ("values", "limits", "quality", "time_h", "stream_totals")
"""What makes a sample another one; a source may add set-points and tags as they are now."""


class NotReady(ConnectorError):
    """A sample did not come within the time given."""


class SampleReader:
    """Reads one reactor's samples.

    Args:
        connector: Where they come from.
        records: Journal.
        audit: Audit trail.
        session: State of the session; told of each sample.
        settings: Of the loop.
        runtime: Clocks and threads.
        pause: Waits [s], or less if a stop is asked for; says whether it is.
        line: Told whether the source can be read.
    """

    def __init__(
        self,
        connector: Any,
        records: RunRecords,
        audit: AuditLogger,
        session: Session,
        *,
        settings: LoopSettings,
        runtime: Runtime,
        pause: Callable[[float], Awaitable[bool]],
        line: SourceLine,
    ) -> None:
        self._connector = connector
        self._records = records
        self._audit = audit
        self._session = session
        self._settings = settings
        self._cadence = settings.cadence
        self._rt = runtime
        self._pause = pause
        self._line = line
        self._origin: dt.datetime | None = None  # wall clock at culture time 0

    async def wait(
        self, day: float, beside: Callable[[], Awaitable[None]] | None = None
    ) -> dict[str, Any] | None:
        """The sample of a cycle as plain data, polled for until it is there.

        Args:
            day: Culture day [d].
            beside: Done after each look at a source that answers and has no sample yet.

        Returns:
            The sample; `None` if a stop was asked for meanwhile.

        Raises:
            NotReady: If it does not come within the patience given.
            DataError: If what the source holds cannot be understood, and the run is to end
                with that.
            AccessRefused: If it never let us in; once it has, it is waited for.
        """
        deadline = self._rt.monotonic() + self._settings.patience_seconds
        trouble = ""
        while True:
            try:
                record = await self._read(day)
            except DataError as error:
                if self._settings.on_missed == "end":
                    raise
                found = in_short(error)
                await self._line.lost(day, found)
            except SampleNotReady as error:
                found = in_short(error)
                await self._line.back(day)
                if beside is not None:
                    await beside()
            except (PerfusioError, TimeoutError, OSError) as error:
                if isinstance(error, AccessRefused) and not self._line.has_answered:
                    await self._log("SAMPLE_MISSED", {}, day=day, reason=in_short(error))
                    raise
                self._session.was_away = True
                found = in_short(error)
                await self._line.lost(day, found)
            else:
                await self._line.back(day)
                return record
            if found != trouble:
                trouble = found
                await self._log("SAMPLE_AWAITED", {}, day=day, reason=trouble)
            left = deadline - self._rt.monotonic()
            if await self._pause(0.0):
                return None
            if left <= 0.0:
                await self._log("SAMPLE_MISSED", {}, day=day, reason=trouble)
                raise NotReady(
                    f"the sample of day {day:g} did not come within "
                    f"{self._settings.patience_seconds:g} s: {trouble}"
                )
            if await self._pause(min(self._settings.poll_seconds, left)):
                return None

    async def store(
        self,
        day: float,
        record: dict[str, Any],
        *,
        read_back: Mapping[str, float | None],
        expected: Mapping[str, Expectation] | None = None,
    ) -> dict[str, Any]:
        """Judge, journal and audit one sample; the sample as the journal holds it.

        One that differs from what is stored for its day corrects it, unless it acted already.
        """
        record = {k: v for k, v in record.items() if k != "age_h"}
        reactor = self._settings.reactor_id
        samples = await self._rt.offload(lambda: self._records.samples(reactor))
        known = next((s.values for s in samples if s.day == day), None)
        if known is not None and _same(known, record):
            self._session.sampled(known)
            await self._log("SAMPLE_READ", {"stored": Stored.DUPLICATE.value}, day=day)
            return dict(known)
        earlier = [s.values for s in samples if s.day < day]
        record["implausible"] = [
            *self._misplaced(day, record, earlier),
            *implausible(
                record["values"],
                bounds=self._settings.species_bounds,
                earlier=[row["values"] for row in earlier],
                expected=expected,
                measured=self._settings.measured,
            ),
        ]
        then = read_back
        if known is not None:
            then, record["controls"] = known["read_back"], known["controls"]
        record["read_back"] = {n: then.get(n) for n in self._settings.controls}
        stored = await self._rt.offload(
            lambda: self._records.record_sample(
                reactor, day, record, is_correction=known is not None
            )
        )
        self._session.sampled(record)
        await self._log(
            "SAMPLE_READ",
            {
                "stored": stored.value,
                "values": record["values"],
                "quality": record["quality"],
                "implausible": record["implausible"],
                "notes": record["notes"],
            },
            day=day,
            old=None if known is None else known["values"],
            new=None if known is None else record["values"],
            reason=None if known is None else "the source gives other values for this day",
        )
        return record

    async def look_back(self, day: float) -> list[float]:
        """Look at earlier cycles again for samples that came late or were corrected.

        Returns:
            Days [d] whose sample is new or changed.
        """
        if not has_own(self._connector, "days_available"):
            return []
        changed: list[float] = []
        cadence = self._cadence
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                there = cadence.numbers(await self._connector.days_available())
        except (PerfusioError, TimeoutError, OSError):
            return []
        reactor = self._settings.reactor_id
        samples = await self._rt.offload(lambda: self._records.samples(reactor))
        known = {s.day: s.values for s in samples}
        if not known:
            return []
        oldest = cadence.number(day) - cadence.count(self._settings.look_back_days)
        for number in range(max(cadence.number(min(known)), oldest), cadence.number(day)):
            if number not in there:
                continue
            past = cadence.day(number)
            try:
                record = await self._read(past)
            except (PerfusioError, TimeoutError, OSError):
                continue
            if past in known and _same(known[past], record):
                continue
            await self.store(past, record, read_back={})
            changed.append(past)
        return changed

    async def rows(self) -> list[Row]:
        """Samples so far, with the set-points that acted after each."""
        reactor = self._settings.reactor_id
        samples = await self._rt.offload(lambda: self._records.samples(reactor))
        settings = self._settings
        return rows_of(
            [s.values for s in samples],
            settings.initial_controls,
            self._cadence,
            given=settings.given,
        )

    async def read_online(self, day: float) -> list[OnlineReading]:
        """Read online tags now and store them; those that were new."""
        if not has_own(self._connector, "read_tags"):
            return []
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                found = await self._connector.read_tags()
        except (PerfusioError, TimeoutError, OSError):
            return []
        now = self._rt.now()
        rows = []
        for tag, reading in found.items():
            at = known_instant(reading.source_time) or now
            time_h = self.culture_hours(at)
            if time_h is not None:
                rows.append((tag, at, time_h, reading.value, reading.quality))
        if rows:
            reactor = self._settings.reactor_id
            await self._rt.offload(lambda: self._records.record_readings(reactor, rows))
        return [OnlineReading(tag, t, v, q) for tag, _, t, v, q in rows]

    def culture_hours(self, at: dt.datetime) -> float | None:
        """Culture time [h] of a moment; `None` before the first sample."""
        if self._origin is None:
            return None
        return hours_between(at, self._origin)

    async def _read(self, day: float) -> dict[str, Any]:
        reader = getattr(self._connector, "read_record", self._connector.read_sample)
        async with asyncio.timeout(self._settings.call_timeout_s):
            found = await reader(day)
        needed = self._settings.must_be_read
        record = as_plain(found, day, self._cadence.due(day), must_be_read=needed)
        if self._settings.keeps_volume:
            record["volume_L"] = volume_of(found)
        age = record["age_h"] or 0.0
        self._origin = hours_before(self._rt.now(), record["time_h"] + age)
        return record

    def _misplaced(
        self, day: float, record: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        """What says that this is not the sample that was asked for."""
        wrong = []
        vessel = record.get("reactor_id")
        if vessel not in (None, "", self._settings.reactor_id) and self._checks_vessel:
            wrong.append(f"the sample is of reactor {vessel}")
        time_h = record["time_h"]
        cadence = self._cadence
        if not abs(time_h - cadence.due(day)) <= cadence.slack_h:
            wrong.append(f"the sample is dated {time_h:g} h, which is not day {day:g}")
        if earlier and not time_h > _time_of(earlier[-1], cadence):
            before = "the day before" if cadence.is_daily else f"day {earlier[-1]['day']:g}"
            wrong.append(f"the sample is dated {time_h:g} h, before the one of {before}")
        return wrong

    @property
    def _checks_vessel(self) -> bool:
        """Whether connector and loop call vessels by the same names."""
        return getattr(self._connector, "reactor_id", None) == self._settings.reactor_id

    async def _log(self, kind: str, payload: Mapping[str, Any], **more: Any) -> None:
        await self._rt.offload(lambda: self._audit.log(kind, payload, **more))


def rows_of(
    samples: Sequence[Mapping[str, Any]],
    initial: Mapping[str, float],
    cadence: Cadence = DAILY,
    *,
    given: Sequence[str] = (),
) -> list[Row]:
    """Rows of a history from stored samples.

    Set-points that acted after a sample are those read back with the next one; what a sample
    cannot be believed in is left out.

    Args:
        samples: As the journal holds them, by day.
        initial: Set-points where nobody can say.
        cadence: When samples are due.
        given: Controls that act at their own sample only: as its row says, else not at all.
    """
    rows = []
    for k, sample in enumerate(samples):
        following = samples[k + 1] if k + 1 < len(samples) else {}
        acting = dict(sample["read_back"])
        for source in (following.get("read_back"), following.get("controls")):
            acting.update({n: v for n, v in (source or {}).items() if v is not None})
        acting = {n: initial[n] if v is None else v for n, v in acting.items()}
        own = sample.get("controls") or {}
        acting.update({n: 0.0 if own.get(n) is None else own[n] for n in given})
        values = {
            n: v
            for n, v in sample["values"].items()
            if not any(is_about(note, n) for note in sample["implausible"])
        }
        time_h = _time_of(sample, cadence)
        rows.append({**sample, "time_h": time_h, "values": values, "controls": acting})
    return rows


def _time_of(sample: Mapping[str, Any], cadence: Cadence) -> float:
    """Time of a stored sample [h]; when it was due where its date was not believed.

    Else one wrong date would put every later sample before it.
    """
    time_h, due = float(sample["time_h"]), cadence.due(sample["day"])
    return time_h if abs(time_h - due) <= cadence.slack_h else due


def _same(stored: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    return all(stored.get(k) == record.get(k) for k in _COMPARED)
