"""The cadence: one step a day, or a cycle, on time, stoppable at any moment and restartable.

Due times are counted from the first one, not from the end of the last step, so that slow
steps do not make the run drift.
"""

import asyncio
import datetime as dt
import inspect
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from perfusio_jax._core import ConfigError, StopRun

from ..records.files import replace_durably

Ending = Literal["not run", "completed", "stopped", "ended by step", "cancelled", "failed"]


class DailyScheduler:
    """Runs `step_fn(day)` once a day.

    What it counts are the steps. A loop whose steps are no days gives it the number of the cycle
    in place of that of the day.

    A step ends the run early by raising `StopRun` or `StopAsyncIteration`; any other error
    leaves `run` and that day counts as not done. `run` may be called again: it goes on with
    the first day not yet completed.

    Args:
        step_fn: Coroutine function of the culture day [d].
        n_days: How many days the run has in all.
        interval_seconds: Time between two steps [s]; 0 runs them one after the other.
        start_day: Number of the first day.
        sleep: Replaces `asyncio.sleep`, for tests and simulated time.
        clock: Monotonic clock [s].
        wall_clock: Clock [s] that survives a restart of the machine, such as `time.time`.
        state_file: JSON file that remembers the last completed day and the cadence, so that
            a new process goes on where this one was.

    Raises:
        ConfigError: For settings that make no sense, or an unreadable state file.

    Examples:
        >>> import asyncio
        >>> from perfusio_jax.twin.loop.scheduler import DailyScheduler
        >>> async def my_step(day: int) -> None:
        ...     print(f"Day {day}")
        >>> scheduler = DailyScheduler(my_step, n_days=3, interval_seconds=0)
        >>> asyncio.run(scheduler.run())
        Day 1
        Day 2
        Day 3
    """

    def __init__(
        self,
        step_fn: Callable[[int], Coroutine[Any, Any, Any]],
        n_days: int,
        interval_seconds: float = 86400.0,
        start_day: int = 1,
        *,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        state_file: Path | str | None = None,
    ) -> None:
        if not callable(step_fn):
            raise ConfigError(f"step_fn must be a coroutine function of the day; given {step_fn!r}")
        if isinstance(n_days, bool) or not isinstance(n_days, int) or n_days < 0:
            raise ConfigError(f"n_days is {n_days!r}; a whole number of at least 0 is needed.")
        if not 0.0 <= interval_seconds < float("inf"):
            raise ConfigError(
                f"interval_seconds is {interval_seconds!r}; a finite number of at least 0 is needed"
            )
        self.step_fn = step_fn
        self.n_days = n_days
        self.interval_seconds = float(interval_seconds)
        self.start_day = int(start_day)
        self._sleep = sleep or asyncio.sleep
        self._clock = clock
        self._wall_clock = wall_clock
        self._state_file = None if state_file is None else Path(state_file)
        self._completed_day = self.start_day - 1
        self._first_due: float | None = None  # wall clock [s] at which start_day was due
        self._ending: Ending = "not run"
        self._is_stop_requested = False
        self._is_running = False
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        if self._state_file is not None:
            self._load()

    @property
    def completed_day(self) -> int:
        """The last day whose step came to its end; `start_day - 1` before the first."""
        return self._completed_day

    @property
    def last_day(self) -> int:
        """The last day of the run."""
        return self.start_day + self.n_days - 1

    @property
    def ending(self) -> Ending:
        """How the last `run` ended."""
        return self._ending

    @property
    def is_stop_requested(self) -> bool:
        """Whether a stop was asked for that has not happened yet."""
        return self._is_stop_requested

    @property
    def is_running(self) -> bool:
        """Whether `run` is under way."""
        return self._is_running

    async def run(self) -> None:
        """Execute the days that are left.

        Raises:
            ConfigError: If a run is under way already, or `step_fn` gave no coroutine.
            asyncio.CancelledError: If the run is cancelled; completed days are kept.
            Exception: Whatever a step raised, other than the two that end a run.
        """
        if self._is_running:
            raise ConfigError("This scheduler is running already; make another one for another run")
        self._is_running = True
        event = asyncio.Event()
        self._wake = (asyncio.get_running_loop(), event)
        if self._is_stop_requested:
            event.set()
        try:
            self._ending = await self._days(event)
        except asyncio.CancelledError:
            self._ending = "cancelled"
            raise
        except BaseException:
            self._ending = "failed"
            raise
        finally:
            self._is_running = False
            self._is_stop_requested = False
            self._wake = None

    def stop(self) -> None:
        """Request a graceful stop: the current day is completed, no other begins.

        May be called from any thread or signal handler, and before `run`.
        """
        self._is_stop_requested = True
        wake = self._wake
        if wake is not None:
            loop, event = wake
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def pause(self, seconds: float) -> None:
        """Sleep within a step, no longer than until a stop is asked for.

        Args:
            seconds: How long [s].
        """
        if self._wake is None:
            await self._sleep(seconds)
        else:
            await self._wait_until(self._clock() + seconds, self._wake[1])

    async def _days(self, event: asyncio.Event) -> Ending:
        origin = self._origin()
        for day in range(self._completed_day + 1, self.last_day + 1):
            due = origin + (day - self.start_day) * self.interval_seconds
            await self._wait_until(due, event)
            if self._is_stop_requested:
                return "stopped"
            try:
                await self._step(day)
            except (StopRun, StopAsyncIteration):
                return "stopped" if self._is_stop_requested else "ended by step"
            self._completed_day = day
            self._save()
        return "completed"

    async def _step(self, day: int) -> None:
        work = self.step_fn(day)
        if not inspect.isawaitable(work):
            raise ConfigError("step_fn is not a coroutine function; define it with 'async def'.")
        try:
            await work
        except RuntimeError as error:
            # Python turns a StopIteration that leaves a coroutine into a RuntimeError.
            if isinstance(error.__cause__, StopIteration):
                raise StopRun(f"the step of day {day} ended the run") from error
            raise

    async def _wait_until(self, due: float, event: asyncio.Event) -> None:
        """Wait until the monotonic clock reads `due` [s], or until stop is requested."""
        await asyncio.sleep(0)
        while not event.is_set():
            remaining = due - self._clock()
            if remaining <= 0.0:
                return
            tasks = [
                asyncio.ensure_future(self._sleep(remaining)),
                asyncio.ensure_future(event.wait()),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _origin(self) -> float:
        """Monotonic time [s] at which `start_day` is, or was, due."""
        if self._first_due is None:
            ahead = (self._completed_day + 1 - self.start_day) * self.interval_seconds
            self._first_due = self._wall_clock() - ahead
            self._save()
        return self._clock() + (self._first_due - self._wall_clock())

    def _save(self) -> None:
        if self._state_file is None:
            return
        state = {
            "completed_day": self._completed_day,
            "start_day": self.start_day,
            "first_due": self._first_due,
            "interval_seconds": self.interval_seconds,
            "saved_at": dt.datetime.fromtimestamp(self._wall_clock(), dt.UTC).isoformat(),
        }
        replace_durably(self._state_file, json.dumps(state, indent=1).encode() + b"\n")

    def _load(self) -> None:
        if self._state_file is None or not self._state_file.exists():
            return
        try:
            state = json.loads(self._state_file.read_bytes())
            completed, start = int(state["completed_day"]), int(state["start_day"])
            interval = float(state["interval_seconds"])
            first_due = None if state["first_due"] is None else float(state["first_due"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"The scheduler's state {self._state_file} cannot be read ({error!r}); remove it "
                "to start at the first day."
            ) from error
        if start != self.start_day:
            raise ConfigError(
                f"{self._state_file} belongs to a run that starts on day {start}, not "
                f"{self.start_day}."
            )
        self._completed_day = completed
        self._first_due = first_due if interval == self.interval_seconds else None
