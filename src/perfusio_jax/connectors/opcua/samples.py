"""Daily samples from the nodes of a server: one day's values, told apart from another's."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from asyncua import ua

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    HOURS_PER_DAY,
    REGISTRY,
    STREAM_TOTALS,
    ConfigError,
    ConnectorError,
    DataError,
)
from perfusio_jax._core.instants import hours_between, is_culture_time
from perfusio_jax._core.text import in_line
from perfusio_jax.connectors.base import Reading, SampleNotReady, SampleRecord
from perfusio_jax.connectors.opcua.directory import CLOCK, Directory, Nodes
from perfusio_jax.connectors.opcua.names import EXTRA, GROUPED, SAMPLE_DAY, SAMPLE_TIME, SPECIAL
from perfusio_jax.connectors.opcua.session import Session
from perfusio_jax.connectors.opcua.stamps import MEANINGS, Stamps
from perfusio_jax.connectors.opcua.values import aware, day_in, plain, time_of

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_log = logging.getLogger(__name__)
_SETTLES_S: Final = 0.25
"""How long [s] is waited before a look at a sample that seems to be coming just now."""
_EARLIEST: Final = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
_NO_HISTORY: Final = "the server keeps no history"


class Sampling:
    """Puts samples together.

    Args:
        directory: Nodes.
        reactor_id: Vessel, for records and messages.
        acceleration: Culture time over real time.
        slack_s: How far [s] a value's source time may lie from the sample's.
        stamp_means: One of `MEANINGS`.
        now: Source of time stamps.

    Raises:
        ConfigError: If `stamp_means` is none of them.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        reactor_id: str | None,
        acceleration: float,
        slack_s: float,
        stamp_means: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._directory, self._reactor_id = directory, reactor_id
        self._acceleration, self._slack_s, self._now = acceleration, slack_s, now
        self._vessel = reactor_id or directory.url
        if stamp_means not in MEANINGS:
            raise ConfigError(f"stamp_means is {stamp_means!r}; allowed are {', '.join(MEANINGS)}.")
        self._stamps = Stamps(stamp_means, slack_s)

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
            seen = await self._directory.read(session, [*names, *special], CLOCK)
            values, nodes, clock = seen.values, seen.nodes, plain(seen.beside[0])
            at = self._now()
            shown = values.get(SAMPLE_DAY)
            if SAMPLE_DAY in node_map and shown is None:
                raise ConnectorError(
                    f"{self._directory.url}: sample_day: {self._directory.absent(SAMPLE_DAY)}; "
                    "without it nobody knows which day the values are of."
                )
            if shown is None:
                return self._as_record(day, values, nodes, None, clock, at, [])
            current = self._day(shown)
            if current is None:
                raise SampleNotReady(f"{self._vessel}: there is no sample yet.")
            if day > current:
                raise SampleNotReady(
                    f"{self._vessel}: the sample of day {day} is not there yet; the last is of "
                    f"day {current}."
                )
            if day < current:
                return await self._past(session, day, clock, at)
            due = time_of(shown)
            if attempt == 1 and due is not None and self._is_mixed(values, due):
                # Read in the middle of the next sample's coming, if it is no way of stamping.
                await asyncio.sleep(min(_SETTLES_S, 0.1 * self._slack_s))
                continue
            status = shown.StatusCode
            notes = [] if status is None or status.is_good() else [f"sample_day: {status.name}"]
            return self._as_record(day, values, nodes, due, clock, at, notes)
        raise ConnectorError(f"{self._vessel}: day {day} could not be read.")

    def _day(self, shown: ua.DataValue) -> int | None:
        where = self._directory.node_map[SAMPLE_DAY].text
        return day_in(shown, f"{self._vessel}: sample_day ({where})")

    async def days_available(self, session: Session) -> list[int]:
        """Days the server shows or has in its history.

        Raises:
            DataError: If what it shows is no day.
            ConnectorError: If nothing says which day it is.
        """
        try:
            days = {day for day, _ in await self.days(session)}
        except DataError:
            days = set()
        seen = await self._directory.read(session, [SAMPLE_DAY])
        current = self._day(seen.values[SAMPLE_DAY]) if SAMPLE_DAY in seen.values else None
        return sorted(days if current is None else days | {current})

    def _is_mixed(self, values: Mapping[str, ua.DataValue], due: dt.datetime) -> bool:
        late = dt.timedelta(seconds=self._slack_s)
        times = [time_of(values[n]) for n in GROUPED if n in values]
        return any(t is not None and t - due > late for t in times)

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
        if self._stamps.means == "changed":
            values |= await self._unchanged(session, nodes, due + slack, names, values)
        notes = [f"day {day} was read from the server's history"]
        for name, value in list(values.items()):
            since, when = nodes.found[name].unit_since, time_of(value) or due
            if since is not None and when < since:
                del values[name]
                notes.append(f"{name}: its unit has changed since, so the value was left out")
        return self._as_record(day, values, nodes, due, clock, at, notes)

    async def _unchanged(
        self,
        session: Session,
        nodes: Nodes,
        until: dt.datetime,
        names: Sequence[str],
        values: Mapping[str, ua.DataValue],
    ) -> dict[str, ua.DataValue]:
        """The last change before a time of what did not change with the sample."""
        rest = [n for n in names if n not in values and n in GROUPED]
        if not rest:
            return {}
        found = await session.history([nodes.found[n].id for n in rest], _EARLIEST, until)
        return {
            name: max(past, key=lambda v: time_of(v) or _EARLIEST)
            for name, past in zip(rest, found, strict=True)
            if isinstance(past, list) and past
        }

    async def days(self, session: Session) -> list[tuple[int, dt.datetime]]:
        """Days in the history of `sample_day` and when each was sampled."""
        nodes = await self._directory.resolved(session)
        if SAMPLE_DAY not in nodes.found:
            raise ConnectorError(
                f"{self._vessel}: without a node for sample_day nobody knows which days there are."
            )
        end = self._now() + dt.timedelta(days=1)
        (past,) = await session.history([nodes.found[SAMPLE_DAY].id], _EARLIEST, end)
        if not isinstance(past, list):
            raise DataError(f"{self._vessel}: {_NO_HISTORY} of sample_day ({past.name}).")
        days = {}
        for value in past:
            try:
                day, when = self._day(value), time_of(value)
            except (ConnectorError, DataError) as error:
                _log.warning("left out of the history: %s", error)
                continue
            if day is not None and when is not None:
                days[day] = when
        return sorted(days.items())

    def _as_record(
        self,
        day: int,
        values: Mapping[str, ua.DataValue],
        nodes: Nodes,
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
            reading = nodes.reading(name, values[name], at)
            if reading.quality in ("bad", "uncertain"):
                remarks.append(f"{name}: {reading.status}")
            if nodes.found[name].remark is not None:
                remarks.append(f"{name}: {nodes.found[name].remark}")
            readings[name] = reading
        server_now = aware(clock) if isinstance(clock, dt.datetime) else at
        if SAMPLE_DAY in self._directory.node_map:
            grouped = {n: r for n, r in readings.items() if n in GROUPED and n in values}
            judged = self._stamps.judge(grouped, due, server_now)
            readings |= judged.readings
            remarks += judged.remarks
            sampled = judged.sampled
        else:
            times = [readings[n].source_time for n in REGISTRY if n in readings]
            sampled = max((t for t in times if t is not None), default=None)

        def pick(names: Iterable[str]) -> dict[str, float | None]:
            return {n: readings[n].value for n in names if n in readings}

        hours = plain(values[SAMPLE_TIME]) if SAMPLE_TIME in values else None
        is_time = is_culture_time(hours)
        if hours is not None and not is_time:
            remarks.append(
                f"{SAMPLE_TIME} is {in_line(hours)}, no time of a culture; day {day} x 24 h counts"
            )
        age_h = None
        if sampled is not None:
            age_h = hours_between(server_now, sampled) * self._acceleration
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
