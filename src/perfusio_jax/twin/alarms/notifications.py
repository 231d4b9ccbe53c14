"""Predictive alarms: what the forecast says will go wrong, said to people in time.

`alarm_limits.py` decides what is an alarm, `AlarmNotifier` how often it may be repeated, and
`channels.py` delivers it. Nothing here blocks the event loop, and a channel that fails is
reported, never raised into the control loop.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from perfusio_jax._core import ConfigError, DataError, PerfusioError

from ..records.secrets import in_short
from .alarm_limits import AlarmLimits
from .channels import (
    CHANNELS,
    PICTURED,
    Channel,
    Message,
    Picture,
    build_channel,
    describe_failure,
)
from .events import AlarmEvent, DispatchReport, Draws, Foreseen

_T = TypeVar("_T")


class AlarmNotifier(AlarmLimits):
    """Finds limits that are crossed, and tells people.

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
        super().__init__(
            thresholds, lead_days, critical=critical or {}, min_probability=min_probability
        )
        if not min(timeout_s, draw_timeout_s) > 0.0 or not repeat_after_s >= 0.0:
            raise ConfigError(
                "timeout_s and draw_timeout_s must be above 0 s and repeat_after_s at least 0 s."
            )
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


def _key(channel: str, event: AlarmEvent) -> tuple[str, str, str, str]:
    return channel, event.species, event.direction, event.severity
