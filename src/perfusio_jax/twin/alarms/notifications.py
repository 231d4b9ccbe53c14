"""Predictive alarms: what the forecast says will go wrong, said to people in time.

`AlarmNotifier` decides what is an alarm and how often it may be repeated; `channels.py`
delivers it. Nothing here blocks the event loop, and a channel that fails is reported, never
raised into the control loop.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from perfusio_jax._core import ConfigError, DataError, PerfusioError

from ..records.secrets import in_short
from .channels import (
    CHANNELS,
    PICTURED,
    Channel,
    Message,
    Picture,
    build_channel,
    describe_failure,
)

_T = TypeVar("_T")

_Z90: Final = 1.2815515655446004
"""90 % point of the standard normal distribution."""


@dataclass(frozen=True)
class AlarmEvent:
    """A single alarm."""

    day: float
    """Culture day [d] on which it is raised; a fraction between two whole ones."""
    species: str
    """What it is about."""
    predicted_value: float
    """Mean forecast (or measurement, if `lead_days` is 0), in the species' unit; NaN if
    there is none."""
    threshold: float
    """Limit that is crossed; NaN if it cannot be judged."""
    direction: str
    """"below", "above" or "unknown": the forecast cannot tell, which is an alarm too."""
    lead_days: float
    """How many days [d] ahead; 0 for a measurement."""
    probability: float | None = None
    """Probability of being beyond the limit on that day, if the forecast has a spread."""
    probability_within_lead: float | None = None
    """Probability of crossing it on any day of the lead window (a lower bound if only
    quantiles are known)."""
    severity: str = "warning"
    """"warning" or "critical"."""
    kind: str = "forecast"
    """"forecast", "sample", "quality", "drift", "session" or "online"."""
    note: str = ""
    """The sentence itself, where it is not about a limit."""
    reactor_id: str = ""
    """Vessel, set where people are told; a rack of them tells through one channel."""

    @property
    def name(self) -> str:
        """What the alarm is about; one of a name stands at a time."""
        return f"{self.kind}/{self.species}/{self.direction}"

    @property
    def violation_day(self) -> float:
        """Culture day [d] on which the limit is crossed."""
        return self.day + self.lead_days

    @property
    def message(self) -> str:
        """One sentence for people."""
        whose = f"{self.reactor_id}: " if self.reactor_id else ""
        return f"{whose}{self._sentence()}"

    def _sentence(self) -> str:
        if self.note:
            return f"{self.severity}: {self.note}"
        if self.direction == "unknown":
            return f"{self.species}: no usable value for day {self.violation_day:g}"
        what = "is" if self.lead_days == 0 else "is forecast to be"
        odds = "" if self.probability is None else f" (probability {self.probability:.0%})"
        return (
            f"{self.severity}: {self.species} {what} {self.predicted_value:.3g} on day "
            f"{self.violation_day:g}, limit {self.threshold:.3g} from {self.direction}{odds}"
        )


class Foreseen(NamedTuple):
    """The forecast that alarms were raised on."""

    day: float
    """Culture day [d] it starts from."""
    species: Sequence[str]
    """Names of its columns."""
    forecast: Mapping[str, Any]
    """As `AlarmNotifier.check_forecast` takes it."""


Draws = Callable[[Sequence[AlarmEvent], Foreseen | None], Picture]
"""Draws what alarms are about. Blocks; raises if it cannot."""


@dataclass(frozen=True)
class DispatchReport:
    """What became of a batch of alarms."""

    sent: tuple[str, ...] = ()
    """Channels that took them."""
    failed: tuple[tuple[str, str], ...] = ()
    """Channels that did not, with the reason; no secret is in it."""
    n_suppressed: int = 0
    """Alarms held back by the rate limit, counted per channel."""
    no_picture: str = ""
    """Why a channel that takes a picture told without one."""

    @property
    def ok(self) -> bool:
        """Whether no channel failed."""
        return not self.failed


class AlarmNotifier:
    """Finds limits the forecast crosses, and tells people.

    A forecast raises an alarm for every species and day within the lead window whose mean
    lies beyond a limit or, where it has a spread, whose probability of lying beyond it
    reaches `min_probability`.

    Args:
        thresholds: Lower and upper limit per species, in its unit; `None` or an infinity for
            no limit on that side.
        lead_days: How many days [d] ahead to look.
        channels: Names from `CHANNELS`; the log is always among them. E-mail, Slack and
            webhook take their addresses and secrets from the environment (`channels.py`).
        critical: Limits beyond which an alarm is "critical" rather than "warning".
        min_probability: Probability of violation from which on an alarm is raised although
            the mean is still within limits.
        repeat_after_s: How long [s] the same alarm stays quiet on a channel.
        timeout_s: How long [s] one channel may take.
        alarm_file: File of the "file" channel.
        draws: Draws what an alarm is about, for channels that take a picture; it is asked when one
            is told, in a thread. `None`: there are no pictures.
        draw_timeout_s: How long [s] drawing may take before it is told without.
        clock: Monotonic clock [s].

    Raises:
        ConfigError: For limits the wrong way round, an unknown channel, or a channel whose
            settings are not in the environment.

    Examples:
        >>> from perfusio_jax.twin.alarms.notifications import AlarmNotifier
        >>> notifier = AlarmNotifier({"Glc": (2.0, 8.0), "Amm": (0.0, 5.0)})
        >>> events = notifier.check_forecast({"mean": [[3.0, 4.0], [1.5, 4.0]]}, ["Glc", "Amm"], 7)
        >>> [(e.species, e.direction, e.violation_day) for e in events]
        [('Glc', 'below', 9)]
    """

    def __init__(
        self,
        thresholds: Mapping[str, tuple[float | None, float | None]],
        lead_days: int = 3,
        channels: Sequence[str] | None = None,
        *,
        critical: Mapping[str, tuple[float | None, float | None]] | None = None,
        min_probability: float = 0.25,
        repeat_after_s: float = 6 * 3600.0,
        timeout_s: float = 10.0,
        alarm_file: Path | str | None = None,
        draws: Draws | None = None,
        draw_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if lead_days < 1:
            raise ConfigError(f"lead_days is {lead_days!r}; at least 1 day is needed.")
        if not 0.0 < min_probability <= 1.0:
            raise ConfigError(f"min_probability is {min_probability!r}; allowed is 0 to 1.")
        if not min(timeout_s, draw_timeout_s) > 0.0 or not repeat_after_s >= 0.0:
            raise ConfigError(
                "timeout_s and draw_timeout_s must be above 0 s and repeat_after_s at least 0 s."
            )
        self.thresholds = {name: _limits(name, pair) for name, pair in thresholds.items()}
        self.critical = {name: _limits(name, pair) for name, pair in (critical or {}).items()}
        self.lead_days = lead_days
        self.min_probability = min_probability
        self.repeat_after_s = repeat_after_s
        self.timeout_s = timeout_s
        self.draw_timeout_s = draw_timeout_s
        self._draws = draws
        self._is_drawing = threading.Lock()
        self._clock = clock
        wanted = ["log", *(channels or [])]
        unknown = [name for name in wanted if name not in CHANNELS]
        if unknown:
            raise ConfigError(
                f"Unknown alarm channel '{unknown[0]}'; allowed are {', '.join(CHANNELS)}."
            )
        self._channels: dict[str, Channel] = {
            name: build_channel(name, timeout_s=timeout_s, alarm_file=alarm_file)
            for name in dict.fromkeys(wanted)
        }
        self._quiet_until: dict[tuple[str, str, str, str], float] = {}

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> "AlarmNotifier":
        """A notifier for the limits of an `AlarmConfig`.

        Args:
            config: Its warning and critical limits of viability, ammonium and glucose, its
                channels and its file.
            **settings: Further arguments of the constructor.

        Returns:
            The notifier.
        """
        return cls(
            {
                "Via": (config.viability_warning, None),
                "Amm": (None, config.ammonium_warning),
                "Glc": (config.glucose_warning, None),
            },
            critical={
                "Via": (config.viability_critical, None),
                "Amm": (None, config.ammonium_critical),
                "Glc": (config.glucose_critical, None),
            },
            channels=config.channels,
            alarm_file=config.alarm_file,
            **settings,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels in use."""
        return tuple(self._channels)

    def check_forecast(
        self, forecast: Mapping[str, Any], species_names: Sequence[str], current_day: float
    ) -> list[AlarmEvent]:
        """Scan a forecast for violations within the lead window.

        Args:
            forecast: "mean" (horizon, n_species); optionally "samples" (n_samples, horizon,
                n_species), or the quantiles "q10" and "q90" shaped like the mean; "lead_days"
                (horizon,), how far ahead [d] each row is, where they are no days apart.
            species_names: Names of the columns.
            current_day: Culture day [d] the forecast starts from; its first row is the next
                day, unless "lead_days" says otherwise.

        Returns:
            All violations, by day and species. A watched species whose forecast is missing
            or not finite gives an event of direction "unknown".

        Raises:
            DataError: If the shapes do not fit one another.
        """
        names = list(species_names)
        mean = np.asarray(forecast["mean"], float)
        if mean.ndim != 2 or mean.shape[1] != len(names):
            raise DataError(
                f"The forecast's mean has shape {mean.shape}; (horizon, {len(names)}) is needed "
                f"for the species {', '.join(names)}."
            )
        spread = _Spread.of(forecast, mean.shape)
        leads = _leads(forecast, len(mean))
        n = sum(lead <= self.lead_days + 1e-9 for lead in leads)
        leads = leads[: max(n, 1)]  # a row beyond the window is still the next there is
        events: list[AlarmEvent] = []
        for name, limits in self.thresholds.items():
            if name not in names:
                events.append(_unknown(name, current_day, leads[0] if leads else 1))
                continue
            column = names.index(name)
            path = mean[: len(leads), column]
            for step in np.flatnonzero(~np.isfinite(path)):
                events.append(_unknown(name, current_day, leads[int(step)]))
            for side, limit in zip(("below", "above"), limits, strict=True):
                if math.isfinite(limit):
                    odds = spread.beyond(column, side, limit, len(leads))
                    events += self._crossings(name, path, side, limit, (current_day, leads), odds)
        order = {name: n for n, name in enumerate(self.thresholds)}
        return sorted(events, key=lambda event: (event.lead_days, order[event.species]))

    def check_sample(
        self, values: Mapping[str, float | None], current_day: float
    ) -> list[AlarmEvent]:
        """Compare a measurement with the limits as they stand.

        Args:
            values: Value per species; missing ones are not judged.
            current_day: Culture day [d] of the sample.

        Returns:
            Violations, with `lead_days` 0.
        """
        events = []
        for name, limits in self.thresholds.items():
            value = values.get(name)
            if value is None or not math.isfinite(value):
                continue
            for side, limit in zip(("below", "above"), limits, strict=True):
                if _is_beyond(value, side, limit):
                    severity = self._severity(name, side, value)
                    events.append(
                        AlarmEvent(
                            current_day,
                            name,
                            value,
                            limit,
                            side,
                            0,
                            severity=severity,
                            kind="sample",
                        )
                    )
        return events

    async def dispatch(
        self, events: Sequence[AlarmEvent], foreseen: Foreseen | None = None
    ) -> DispatchReport:
        """Tell people, on all channels at once, within the time-out.

        Each channel gets one message for all events that are not quiet there. A failure does
        not silence the alarm: it is tried again with the next batch.

        Args:
            events: Alarms of one cycle.
            foreseen: The forecast they were raised on, for the picture.

        Returns:
            What became of them. Never raises for a channel that fails.
        """
        now = self._clock()
        jobs: dict[str, list[AlarmEvent]] = {}
        n_suppressed = 0
        for channel in self._channels:
            loud = [e for e in events if self._quiet_until.get(_key(channel, e), now) <= now]
            n_suppressed += len(events) - len(loud)
            if loud:
                jobs[channel] = loud
        outcomes = await asyncio.gather(
            *(self._deliver(name, batch, foreseen) for name, batch in jobs.items())
        )
        sent, failed = [], []
        no_picture = next((missing for _, missing in outcomes if missing), "")
        for (name, batch), (problem, _) in zip(jobs.items(), outcomes, strict=True):
            if problem is not None:
                failed.append((name, problem))
                continue
            sent.append(name)
            for event in batch:
                self._quiet_until[_key(name, event)] = now + self.repeat_after_s
        return DispatchReport(tuple(sent), tuple(failed), n_suppressed, no_picture)

    async def _deliver(
        self, name: str, events: Sequence[AlarmEvent], foreseen: Foreseen | None
    ) -> tuple[str | None, str]:
        """Tell one channel; what failed, and why there was no picture."""
        lines = [event.message for event in events]
        records = [{**asdict(event), "message": event.message} for event in events]
        channel, picture, missing = self._channels[name], None, ""
        if name in PICTURED and self._draws is not None:
            picture, missing = await self._drawn(self._draws, events, foreseen)
        told = Message(lines, records, picture, missing)
        _, problem = await _in_thread(lambda: channel(told), self.timeout_s)
        return problem, missing

    async def _drawn(
        self, draws: Draws, events: Sequence[AlarmEvent], foreseen: Foreseen | None
    ) -> tuple[Picture | None, str]:
        """The picture, or why there is none; one is drawn at a time, so that none pile up."""

        def draw() -> Picture:
            if not self._is_drawing.acquire(blocking=False):
                raise DataError("the one before it is still being drawn")
            try:
                return draws(events, foreseen)
            finally:
                self._is_drawing.release()

        picture, problem = await _in_thread(draw, self.draw_timeout_s)
        return picture, problem or ""

    def _crossings(
        self,
        name: str,
        path: np.ndarray,
        side: str,
        limit: float,
        when: tuple[float, Sequence[float]],
        beyond: tuple[np.ndarray, float] | None,
    ) -> list[AlarmEvent]:
        events, (day, leads) = [], when
        for step, value in enumerate(path):
            odds = None if beyond is None else float(beyond[0][step])
            is_likely = odds is not None and odds >= self.min_probability
            if not np.isfinite(value) or not (_is_beyond(value, side, limit) or is_likely):
                continue
            events.append(
                AlarmEvent(
                    day=day,
                    species=name,
                    predicted_value=float(value),
                    threshold=limit,
                    direction=side,
                    lead_days=leads[step],
                    probability=odds,
                    probability_within_lead=None if beyond is None else beyond[1],
                    severity=self._severity(name, side, float(value)),
                )
            )
        return events

    def _severity(self, name: str, side: str, value: float) -> str:
        low, high = self.critical.get(name, (-math.inf, math.inf))
        limit = low if side == "below" else high
        return "critical" if _is_beyond(value, side, limit) else "warning"


@dataclass(frozen=True)
class _Spread:
    """What a forecast knows about its own uncertainty."""

    samples: np.ndarray | None = None
    quantiles: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, forecast: Mapping[str, Any], shape: tuple[int, ...]) -> "_Spread":
        found = {
            name: np.asarray(forecast[name], float)
            for name in ("samples", "q10", "q50", "q90")
            if forecast.get(name) is not None
        }
        for name, array in found.items():
            if array.shape[-2:] != shape or array.ndim != (3 if name == "samples" else 2):
                raise DataError(
                    f"The forecast's {name} have shape {array.shape}, which does not fit the "
                    f"mean's {shape}."
                )
        if "samples" in found:
            return cls(samples=found["samples"])
        if "q10" in found and "q90" in found:
            centre = found.get("q50", np.asarray(forecast["mean"], float))
            return cls(quantiles=(found["q10"], centre, found["q90"]))
        return cls()

    def beyond(
        self, column: int, side: str, limit: float, n_rows: int
    ) -> tuple[np.ndarray, float] | None:
        """Probability of lying beyond a limit by row, and in any row of the window."""
        if self.samples is not None:
            paths = self.samples[:, :n_rows, column]
            paths = paths[np.all(np.isfinite(paths), axis=1)]
            if len(paths) == 0:
                return None
            out = paths < limit if side == "below" else paths > limit
            return out.mean(axis=0), float(out.any(axis=1).mean())
        if self.quantiles is None:
            return None
        low, centre, high = (q[:n_rows, column] for q in self.quantiles)
        # Two half normals with the forecast's own 10 % and 90 % points.
        width = np.where(limit < centre, centre - low, high - centre) / _Z90
        score = (limit - centre) / np.maximum(width, 1e-12 * (1.0 + np.abs(centre)))
        under = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in score])
        by_day = under if side == "below" else 1.0 - under
        return by_day, float(np.max(by_day))


async def _in_thread(work: Callable[[], _T], timeout_s: float) -> tuple[_T | None, str | None]:
    """Run blocking work beside the loop; what it gives, or the problem in words.

    The thread is a daemon of its own: one that hangs neither delays the loop nor the end of
    the program, as a thread of the loop's pool would.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[_T | None, str | None]] = loop.create_future()

    def settle(found: _T | None, problem: str | None) -> None:
        if not outcome.done():
            outcome.set_result((found, problem))

    def run() -> None:
        found, problem = None, None
        try:
            found = work()
        except PerfusioError as error:
            problem = in_short(error)
        except Exception as error:  # whatever a mail server can think of; it is reported
            problem = describe_failure(error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found, problem)

    threading.Thread(target=run, daemon=True, name="alarm").start()
    try:
        return await asyncio.wait_for(outcome, timeout_s)
    except TimeoutError:
        return None, f"no answer within {timeout_s:g} s"


def _limits(name: str, pair: tuple[float | None, float | None]) -> tuple[float, float]:
    try:
        low, high = pair
        low = -math.inf if low is None else float(low)
        high = math.inf if high is None else float(high)
    except (TypeError, ValueError):
        raise ConfigError(
            f"The limits of {name} are {pair!r}; a lower and an upper one are needed, or None."
        ) from None
    if not low < high:
        raise ConfigError(f"The limits of {name} are {low:g} to {high:g}; the lower goes first.")
    return low, high


def _is_beyond(value: float, side: str, limit: float) -> bool:
    return value < limit if side == "below" else value > limit


def _leads(forecast: Mapping[str, Any], n_rows: int) -> list[float]:
    """How far ahead each row of a forecast is [d].

    Raises:
        DataError: If the forecast says it of another number of rows.
    """
    told = forecast.get("lead_days")
    if told is None:
        return list(range(1, n_rows + 1))
    if len(told) != n_rows:
        raise DataError(f"The forecast has {n_rows} rows and {len(told)} lead_days.")
    return [float(lead) for lead in told]


def _unknown(name: str, day: float, lead_days: float) -> AlarmEvent:
    return AlarmEvent(day, name, math.nan, math.nan, "unknown", lead_days)


def _key(channel: str, event: AlarmEvent) -> tuple[str, str, str, str]:
    return channel, event.species, event.direction, event.severity
