"""An event loop whose time passes only when everybody waits, and a wall clock that may jump."""

import asyncio
import datetime as dt
import selectors

from perfusio_jax.twin import Runtime

EPOCH = dt.datetime(2026, 3, 27, 6, 0, tzinfo=dt.UTC)
"""Two days before European clocks change."""


class _Impatient(selectors.BaseSelector):
    """Never waits: moves the loop's time on instead."""

    def __init__(self) -> None:
        self.real = selectors.DefaultSelector()
        self.skip = lambda seconds: None

    def select(self, timeout=None):
        ready = self.real.select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("everybody waits and nothing is due: the program hangs")
        if timeout > 0:
            self.skip(timeout)
        return []

    def register(self, *args, **kwargs):
        return self.real.register(*args, **kwargs)

    def unregister(self, *args):
        return self.real.unregister(*args)

    def modify(self, *args):
        return self.real.modify(*args)

    def close(self):
        self.real.close()

    def get_map(self):
        return self.real.get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: time is a number."""

    def __init__(self) -> None:
        selector = _Impatient()
        super().__init__(selector)
        self._seconds = 0.0
        selector.skip = self._skip

    def _skip(self, seconds: float) -> None:
        self._seconds += seconds

    def time(self) -> float:
        return self._seconds


class WallClock:
    """The loop's time as a date, plus whatever somebody set the clock wrong by."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.wrong_by_s = 0.0

    def __call__(self) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=self.loop.time() + self.wrong_by_s)


def virtual_runtime(loop: VirtualLoop, clock: WallClock) -> Runtime:
    async def inline(work):
        return work()

    return Runtime(clock, loop.time, asyncio.sleep, inline)
