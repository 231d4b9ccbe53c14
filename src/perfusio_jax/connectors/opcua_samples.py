"""Daily samples from the nodes of a server: one day's values, told apart from another's."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from asyncua import ua

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    HOURS_PER_DAY,
    REGISTRY,
    STREAM_TOTALS,
    ConnectorError,
    DataError,
)
from perfusio_jax._core.instants import hours_between, is_culture_time
from perfusio_jax._core.text import in_line
from perfusio_jax.connectors.base import Reading, SampleNotReady, SampleRecord
from perfusio_jax.connectors.opcua_directory import Directory
from perfusio_jax.connectors.opcua_link import Session
from perfusio_jax.connectors.opcua_names import EXTRA, GROUPED, SAMPLE_DAY, SAMPLE_TIME, SPECIAL
from perfusio_jax.connectors.opcua_values import aware, plain, time_of

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

CLOCK: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)
"""Where every server says what time it is."""
_NO_HISTORY: Final = "the server keeps no history"


class Sampling:
    """Puts samples together.

    Args:
        directory: Nodes.
        reactor_id: Vessel, for records and messages.
        acceleration: Culture time over real time.
        slack_s: How far [s] a value's source time may lie from the sample's.
        now: Source of time stamps.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        reactor_id: str | None,
        acceleration: float,
        slack_s: float,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._directory, self._reactor_id = directory, reactor_id
        self._acceleration, self._slack_s, self._now = acceleration, slack_s, now
        self._vessel = reactor_id or directory.url

    async def record(self, session: Session, day: int) -> SampleRecord:
        """The sample of a day.

        Raises:
            SampleNotReady: If it is not there yet.
            DataError: If it has passed and the server keeps no history.
            ConnectorError: If nothing says which day it is.
        """
        node_map = self._directory.node_map
        for attempt in (1, 2):
            names = [n for n in node_map if n not in SPECIAL and not n.startswith(EXTRA)]
            special = [n for n in (SAMPLE_DAY, SAMPLE_TIME) if n in node_map]
            values, (clock,) = await self._directory.read(session, [*names, *special], CLOCK)
            at = self._now()
            shown = values.get(SAMPLE_DAY)
            if SAMPLE_DAY in node_map and shown is None:
                raise ConnectorError(
                    f"{self._directory.url}: sample_day: {self._directory.absent(SAMPLE_DAY)}; "
                    "without it nobody knows which day the values are of."
                )
            if shown is None:
                return self._as_record(day, values, None, plain(clock), at, [])
            current = plain(shown)
            if isinstance(current, bool) or not isinstance(current, int) or current < 0:
                raise SampleNotReady(f"{self._vessel}: there is no sample yet.")
            if day > current:
                raise SampleNotReady(
                    f"{self._vessel}: the sample of day {day} is not there yet; the last is of "
                    f"day {current}."
                )
            if day < current:
                return await self._past(session, day, plain(clock), at)
            due = time_of(shown)
            if attempt == 1 and due is not None and self._is_mixed(values, due):
                continue  # read in the middle of the next sample's coming
            return self._as_record(day, values, due, plain(clock), at, [])
        raise ConnectorError(f"{self._vessel}: day {day} could not be read.")

    def _is_mixed(self, values: Mapping[str, ua.DataValue], due: dt.datetime) -> bool:
        late = dt.timedelta(seconds=self._slack_s)
        times = [time_of(values[n]) for n in GROUPED if n in values]
        return any(t is not None and t > due + late for t in times)

    async def _past(self, session: Session, day: int, clock: Any, at: dt.datetime) -> SampleRecord:
        """A day that is no longer shown, from the history of its nodes."""
        due = dict(await self.days(session)).get(day)
        if due is None:
            raise DataError(
                f"{self._vessel}: the sample of day {day} is no longer shown and not in the "
                "server's history."
            )
        nodes = await self._directory.resolved(session)
        names = [n for n in (*GROUPED, SAMPLE_TIME) if n in nodes.found]
        slack = dt.timedelta(seconds=self._slack_s)
        ids = [nodes.found[n].id for n in names]
        found = await session.history(ids, due - slack, due + slack)
        values = {}
        for name, past in zip(names, found, strict=True):
            if isinstance(past, list) and past:
                values[name] = min(past, key=lambda v: abs((time_of(v) or due) - due))
        notes = [f"day {day} was read from the server's history"]
        return self._as_record(day, values, due, clock, at, notes)

    async def days(self, session: Session) -> list[tuple[int, dt.datetime]]:
        """Days in the history of `sample_day` and when each was sampled."""
        nodes = await self._directory.resolved(session)
        if SAMPLE_DAY not in nodes.found:
            raise ConnectorError(
                f"{self._vessel}: without a node for sample_day nobody knows which days there are."
            )
        start = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
        end = self._now() + dt.timedelta(days=1)
        (past,) = await session.history([nodes.found[SAMPLE_DAY].id], start, end)
        if not isinstance(past, list):
            raise DataError(f"{self._vessel}: {_NO_HISTORY} of sample_day ({past.name}).")
        days = {}
        for value in past:
            day, when = plain(value), time_of(value)
            if isinstance(day, int) and day >= 0 and when is not None:
                days[day] = when
        return sorted(days.items())

    def _as_record(
        self,
        day: int,
        values: Mapping[str, ua.DataValue],
        due: dt.datetime | None,
        clock: Any,
        at: dt.datetime,
        notes: Sequence[str],
    ) -> SampleRecord:
        remarks = list(notes)
        readings: dict[str, Reading] = {}
        for name in self._directory.node_map:
            if name in SPECIAL or name.startswith(EXTRA):
                continue
            if name not in values:
                if name in REGISTRY:
                    readings[name] = Reading(None, "missing", None, at)
                    remarks.append(f"{name}: {self._directory.absent(name)}")
                continue
            reading = self._directory.reading(name, values[name], at)
            if name in GROUPED and due is not None and reading.source_time is not None:
                off_s = (reading.source_time - due).total_seconds()
                if abs(off_s) > self._slack_s:
                    when = "older" if off_s < 0 else "newer"
                    remarks.append(f"{name} is {abs(off_s):.0f} s {when} than the sample")
                    reading = Reading(None, "missing", reading.source_time, at, "OtherSample")
            if reading.quality in ("bad", "uncertain"):
                remarks.append(f"{name}: {reading.status}")
            readings[name] = reading

        def pick(names: Iterable[str]) -> dict[str, float | None]:
            return {n: readings[n].value for n in names if n in readings}

        hours = plain(values[SAMPLE_TIME]) if SAMPLE_TIME in values else None
        is_time = is_culture_time(hours)
        if hours is not None and not is_time:
            remarks.append(
                f"{SAMPLE_TIME} is {in_line(hours)}, no time of a culture; day {day} x 24 h counts"
            )
        newest = due
        if newest is None:
            times = [readings[n].source_time for n in REGISTRY if n in readings]
            newest = max((t for t in times if t is not None), default=None)
        server_now = clock if isinstance(clock, dt.datetime) else at
        age_h = None
        if newest is not None:
            age_h = hours_between(aware(server_now), newest) * self._acceleration
        shown = {n: r for n, r in readings.items() if n != "volume_L"}
        volume = readings.get("volume_L")
        return SampleRecord(
            day=day,
            time_h=float(hours) if is_time else HOURS_PER_DAY * day,  # pyright: ignore
            values=pick(REGISTRY),
            quality={n: r.quality for n, r in shown.items()},
            reactor_id=self._reactor_id,
            age_h=age_h,
            stream_totals=pick(STREAM_TOTALS),
            controls=pick(self._directory.node_map.controls),
            tags=pick(AUXILIARY_TAGS),
            volume_L=None if volume is None else volume.value,
            notes=tuple(remarks),
            source_times={n: r.source_time for n, r in shown.items() if r.source_time is not None},
            read_at=at,
        )
