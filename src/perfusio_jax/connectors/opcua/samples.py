"""Daily samples from the nodes of a server: one day's values, told apart from another's."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from asyncua import ua

from perfusio_jax._core import (
    HOURS_PER_DAY,
    STREAM_TOTALS,
    ConfigError,
    ConnectorError,
    DataError,
)
from perfusio_jax._core.instants import hours_between, is_culture_time
from perfusio_jax._core.text import in_line
from perfusio_jax.connectors.base import Reading, SampleNotReady, SampleRecord
from perfusio_jax.connectors.opcua.directory import CLOCK, Directory, Nodes
from perfusio_jax.connectors.opcua.names import EXTRA, SAMPLE_DAY, SAMPLE_TIME, SPECIAL
from perfusio_jax.connectors.opcua.session import Session
from perfusio_jax.connectors.opcua.stamps import MEANINGS, Stamps
from perfusio_jax.connectors.opcua.values import aware, day_in, plain, time_of
from perfusio_jax.twin.decision.cadence import DAILY, Cadence

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_log = logging.getLogger(__name__)
_SETTLES_S: Final = 0.25
"""How long [s] is waited before a look at a sample that seems to be coming just now."""
_MOMENT_S: Final = 1.0
"""How far [s] from the sample a probe's stamp is still the sample's."""
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
        self._cadence = DAILY

    def every(self, cadence: Cadence, slack_s: float) -> None:
        """Count samples in steps of an interval.

        Where a day is no whole number of them, or one of several, `sample_time_h` says which
        sample is shown, and days may be fractions.

        Args:
            cadence: When samples are due.
            slack_s: How far [s] a value's source time may lie from the sample's.

        Raises:
            ConfigError: If nothing maps `sample_time_h` and it is needed.
        """
        if cadence.interval_h % HOURS_PER_DAY and SAMPLE_TIME not in self._directory.node_map:
            raise ConfigError(
                f"samples every {cadence.interval_h:g} h are told apart by the node "
                f"{SAMPLE_TIME} of the node map, hours since inoculation; map it, or set "
                "sampling_interval_hours to 24 or a whole multiple of it."
            )
        self._cadence, self._slack_s = cadence, slack_s
        self._stamps = Stamps(self._stamps.means, slack_s)

    def asked(self, day: Any) -> float:
        """The culture day [d] somebody asks for, as it is counted here.

        Raises:
            DataError: If it is none.
        """
        if self._anchor == SAMPLE_DAY:
            if day < 0 or day != int(day):
                raise DataError(f"day {day} is not a culture day; days are whole numbers from 0.")
            return int(day)
        if not (day >= 0 and self._cadence.is_cycle(day)):
            raise DataError(
                f"no sample is due on day {day}; they come every {self._cadence.interval_h:g} h."
            )
        return self._cadence.day(self._cadence.number(day))

    @property
    def _anchor(self) -> str:
        """Key of the node that says which sample is shown."""
        return SAMPLE_TIME if self._cadence.interval_h % HOURS_PER_DAY else SAMPLE_DAY

    async def record(self, session: Session, day: float) -> SampleRecord:
        """The sample of a day.

        Raises:
            ConfigError: If the device is of another culture, or sampled at other times.
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
            anchor = self._anchor
            shown = values.get(anchor)
            if anchor in node_map and shown is None:
                raise ConnectorError(
                    f"{self._directory.url}: {anchor}: {self._directory.absent(anchor)}; "
                    "without it nobody knows which day the values are of."
                )
            if shown is None:
                return self._as_record(day, values, nodes, None, clock, at, [])
            current = self._shown_day(shown, values.get(SAMPLE_DAY))
            if current is None:
                raise SampleNotReady(f"{self._vessel}: there is no sample yet.")
            if day > current:
                raise SampleNotReady(
                    f"{self._vessel}: the sample of day {day:g} is not there yet; the last is of "
                    f"day {current:g}."
                )
            if day < current:
                return await self._past(session, day, clock, at)
            due = time_of(shown)
            if attempt == 1 and due is not None and self._is_mixed(values, due):
                # Read in the middle of the next sample's coming, if it is no way of stamping.
                await asyncio.sleep(min(_SETTLES_S, 0.1 * self._slack_s))
                continue
            status = shown.StatusCode
            notes = [] if status is None or status.is_good() else [f"{anchor}: {status.name}"]
            if due is not None:
                values = {**values, **await self._of_probes(session, nodes, values, due)}
            return self._as_record(day, values, nodes, due, clock, at, notes)
        raise ConnectorError(f"{self._vessel}: day {day:g} could not be read.")

    def _shown_day(self, shown: ua.DataValue, beside: ua.DataValue | None) -> float | None:
        """The culture day [d] of the sample that is shown; None if there is none yet.

        Args:
            shown: The node that says which sample it is.
            beside: `sample_day`, where there is one; below 0 there is none yet.
        """
        if self._anchor == SAMPLE_DAY:
            return self._day(shown)
        if beside is not None and self._day(beside) is None:
            return None
        hours = plain(shown)
        if not is_culture_time(hours):
            raise DataError(
                f"{self._vessel}: {SAMPLE_TIME} is {in_line(hours)}, no time of a culture."
            )
        cadence = self._cadence
        number = cadence.number(float(hours) / HOURS_PER_DAY)
        if abs(hours - cadence.hours(number)) > 0.25 * cadence.interval_h:
            return float(hours) / HOURS_PER_DAY  # of no cycle; it is before one and after another
        return cadence.day(number)

    def _day(self, shown: ua.DataValue) -> int | None:
        where = self._directory.node_map[SAMPLE_DAY].text
        return day_in(shown, f"{self._vessel}: sample_day ({where})")

    async def days_available(self, session: Session) -> list[float]:
        """Days the server shows or has in its history.

        Raises:
            DataError: If what it shows is no day.
            ConnectorError: If nothing says which day it is.
        """
        try:
            days = {day for day, _ in await self.days(session)}
        except DataError:
            days = set()
        node_map = self._directory.node_map
        wanted = [n for n in dict.fromkeys((self._anchor, SAMPLE_DAY)) if n in node_map]
        values = (await self._directory.read(session, wanted)).values
        shown = values.get(self._anchor)
        current = None if shown is None else self._shown_day(shown, values.get(SAMPLE_DAY))
        if current is None or not self._cadence.is_cycle(current):
            return sorted(days)
        return sorted(days | {current})

    def _is_mixed(self, values: Mapping[str, ua.DataValue], due: dt.datetime) -> bool:
        late = dt.timedelta(seconds=self._slack_s)
        node_map = self._directory.node_map
        names = [n for n in node_map.grouped if n in values and n not in node_map.words.online]
        times = [time_of(values[n]) for n in names]
        return any(t is not None and t - due > late for t in times)

    async def _of_probes(
        self,
        session: Session,
        nodes: Nodes,
        values: Mapping[str, ua.DataValue],
        due: dt.datetime,
    ) -> dict[str, ua.DataValue]:
        """What probes showed when the sample was taken, where the server keeps a history.

        A probe goes on after the sample. Without a history, what it shows now stands for the
        sample as long as it is no further from it than any other value may be.
        """
        moment = dt.timedelta(seconds=min(_MOMENT_S, 0.01 * self._slack_s))
        moved = [
            name
            for name in self._directory.node_map.words.online
            if name in values and abs((time_of(values[name]) or due) - due) > moment
        ]
        if not moved:
            return {}
        slack = dt.timedelta(seconds=self._slack_s)
        found = await session.history([nodes.found[n].id for n in moved], due - slack, due + slack)
        seen = {}
        for name, past in zip(moved, found, strict=True):
            since = nodes.found[name].unit_since
            if isinstance(past, list):
                past = [v for v in past if since is None or (time_of(v) or due) >= since]
            if isinstance(past, list) and past:
                seen[name] = min(past, key=lambda v: abs((time_of(v) or due) - due))
        return seen

    async def _past(
        self, session: Session, day: float, clock: Any, at: dt.datetime
    ) -> SampleRecord:
        """A day that is no longer shown, from the history of its nodes."""
        due = dict(await self.days(session)).get(day)
        if due is None:
            raise DataError(
                f"{self._vessel}: the sample of day {day:g} is no longer shown and not in the "
                "server's history."
            )
        nodes = await self._directory.resolved(session)
        grouped = self._directory.node_map.grouped
        names = [n for n in (*grouped, SAMPLE_TIME) if n in nodes.found]
        slack = dt.timedelta(seconds=self._slack_s)
        ids = [nodes.found[n].id for n in names]
        found = await session.history(ids, due - slack, due + slack)
        values = {}
        for name, past in zip(names, found, strict=True):
            if isinstance(past, list) and past:
                values[name] = min(past, key=lambda v: abs((time_of(v) or due) - due))
        if self._stamps.means == "changed":
            values |= await self._unchanged(session, nodes, due + slack, names, values)
        notes = [f"day {day:g} was read from the server's history"]
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
        rest = [n for n in names if n not in values and n != SAMPLE_TIME]
        if not rest:
            return {}
        found = await session.history([nodes.found[n].id for n in rest], _EARLIEST, until)
        return {
            name: max(past, key=lambda v: time_of(v) or _EARLIEST)
            for name, past in zip(rest, found, strict=True)
            if isinstance(past, list) and past
        }

    async def days(self, session: Session) -> list[tuple[float, dt.datetime]]:
        """Days in the history of what says which sample is shown, and when each was sampled."""
        nodes, anchor = await self._directory.resolved(session), self._anchor
        if anchor not in nodes.found:
            raise ConnectorError(
                f"{self._vessel}: without a node for {anchor} nobody knows which days there are."
            )
        end = self._now() + dt.timedelta(days=1)
        (past,) = await session.history([nodes.found[anchor].id], _EARLIEST, end)
        if not isinstance(past, list):
            raise DataError(f"{self._vessel}: {_NO_HISTORY} of {anchor} ({past.name}).")
        days = {}
        for value in past:
            try:
                day, when = self._shown_day(value, None), time_of(value)
            except (ConnectorError, DataError) as error:
                _log.warning("left out of the history: %s", error)
                continue
            if day is not None and when is not None and self._cadence.is_cycle(day):
                days[day] = when
        return sorted(days.items())

    def _as_record(
        self,
        day: float,
        values: Mapping[str, ua.DataValue],
        nodes: Nodes,
        due: dt.datetime | None,
        clock: Any,
        at: dt.datetime,
        notes: Sequence[str],
    ) -> SampleRecord:
        remarks, words = list(notes), self._directory.node_map.words
        readings: dict[str, Reading] = {}
        for name in self._directory.node_map:
            if name in SPECIAL or name.startswith(EXTRA):
                continue
            if name not in values:
                if name in words.species:
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
        if self._anchor in self._directory.node_map:
            mine = frozenset(self._directory.node_map.grouped)
            grouped = {n: r for n, r in readings.items() if n in mine and n in values}
            judged = self._stamps.judge(grouped, due, server_now)
            readings |= judged.readings
            remarks += judged.remarks
            sampled = judged.sampled
        else:
            times = [readings[n].source_time for n in words.species if n in readings]
            sampled = max((t for t in times if t is not None), default=None)

        def pick(names: Iterable[str]) -> dict[str, float | None]:
            return {n: readings[n].value for n in names if n in readings}

        hours = plain(values[SAMPLE_TIME]) if SAMPLE_TIME in values else None
        is_time = is_culture_time(hours)
        if hours is not None and not is_time:
            remarks.append(
                f"{SAMPLE_TIME} is {in_line(hours)}, no time of a culture; day {day:g} x 24 h "
                "counts"
            )
        age_h = None
        if sampled is not None:
            age_h = hours_between(server_now, sampled) * self._acceleration
        shown = {n: r for n, r in readings.items() if n != "volume_L"}
        volume = readings.get("volume_L")
        return SampleRecord(
            day=day,
            time_h=float(hours) if is_time else HOURS_PER_DAY * day,  # pyright: ignore
            values=pick(words.species),
            quality={n: r.quality for n, r in shown.items()},
            reactor_id=self._reactor_id,
            age_h=age_h,
            stream_totals=pick(STREAM_TOTALS),
            controls=pick(self._directory.node_map.controls),
            tags=pick(words.tags),
            volume_L=None if volume is None else volume.value,
            notes=tuple(remarks),
            source_times={n: r.source_time for n, r in shown.items() if r.source_time is not None},
            read_at=at,
        )
