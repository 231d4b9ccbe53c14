"""Several reactors at once, each in a loop of its own that no other can harm.

A loop that fails is started again, later each time, and given up after a few tries; the others
neither wait for it nor hear of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from perfusio_jax._core import AccessRefused, ConfigError, RunLockedError

from ..alarms.desk import event
from ..records.runtime import Runtime
from ..records.secrets import in_short
from .loop import ReactorLoop
from .reader import NotReady

PAUSES_S: Final = (1.0, 15.0, 60.0, 300.0)
"""Waits [s] before a loop that failed is started again."""

LOOK_S: Final = 0.5
"""How often [s] a pause looks whether a stop was asked for."""


@dataclass(frozen=True)
class Fate:
    """What became of one reactor's loop."""

    reactor_id: str
    ending: str
    """"completed", "stopped", "missed", "refused", "locked" or "failed"."""
    reason: str = ""
    n_restarts: int = 0


class Fleet:
    """Drives several reactors in one process.

    Args:
        loops: One per reactor, by its name.
        runtime: Clocks.
        say: Called with one line about what is going on.

    Raises:
        ConfigError: If there is no loop, or two share a folder.
    """

    def __init__(
        self,
        loops: Mapping[str, ReactorLoop],
        *,
        runtime: Runtime,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if not loops:
            raise ConfigError("a fleet was given no reactors; give at least one.")
        journals = {str(loop.records.path) for loop in loops.values()}
        if len(journals) != len(loops):
            raise ConfigError("two reactors share a journal; each needs a folder of its own.")
        self.loops = dict(loops)
        self._rt = runtime
        self._say = say or (lambda _: None)
        self._is_stopping = False

    async def run(
        self,
        n_days: float | Callable[[str], float],
        *,
        first_day: float | Callable[[str], Awaitable[float]] = 0,
        interval_seconds: float = 0.0,
    ) -> dict[str, Fate]:
        """Run all of them until each has come to an end.

        Args:
            n_days: Culture days in all; or what says it of a reactor.
            first_day: Culture day of the first cycle [d]; or what says it of a reactor, asked at
                each start.
            interval_seconds: Least real time between two cycles [s].

        Returns:
            What became of each.
        """
        fates = await asyncio.gather(
            *(
                self._guard(
                    name,
                    loop,
                    (n_days(name) if callable(n_days) else n_days, first_day, interval_seconds),
                )
                for name, loop in self.loops.items()
            )
        )
        return {fate.reactor_id: fate for fate in fates}

    def stop(self) -> None:
        """Ask all of them to end; nothing is written from now on."""
        self._is_stopping = True
        for loop in self.loops.values():
            loop.stop()

    async def _pause(self, seconds: float) -> None:
        end = self._rt.monotonic() + seconds
        while not self._is_stopping and (left := end - self._rt.monotonic()) > 0.0:
            await self._rt.sleep(min(left, LOOK_S))

    async def _guard(
        self,
        name: str,
        loop: ReactorLoop,
        work: tuple[float, float | Callable[[str], Awaitable[float]], float],
    ) -> Fate:
        n_days, first, interval = work
        for tries in range(len(PAUSES_S) + 1):
            try:
                first_day = await first(name) if callable(first) else first
                if self._is_stopping:
                    return Fate(name, "stopped", "before it began", tries)
                await loop.run(n_days, first_day=first_day, interval_seconds=interval)
            except NotReady as error:
                return Fate(name, "missed", in_short(error), tries)
            except AccessRefused as error:
                return Fate(name, "refused", in_short(error), tries)
            except RunLockedError as error:
                return Fate(name, "locked", in_short(error), tries)
            except Exception as error:  # one reactor's trouble stays with that reactor
                trouble = f"{type(error).__name__}: {in_short(error)}"
                self._say(f"{name}: {trouble}")
                day = loop.attendant.day
                note = f"the loop of {name} failed: {trouble}"
                loop.desk.tell([event("session", "loop", note, day, severity="critical")], day)
                if self._is_stopping or tries == len(PAUSES_S):
                    return Fate(name, "failed", trouble, tries)
                await self._pause(PAUSES_S[tries])
            else:
                is_stopped = self._is_stopping or loop.attendant.was_stopped
                return Fate(name, "stopped" if is_stopped else "completed", "", tries)
        return Fate(name, "failed", "", len(PAUSES_S))
