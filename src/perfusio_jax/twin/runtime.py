"""What the shell takes from the world: clocks, sleep and threads, so that tests give others."""

import asyncio
import contextlib
import datetime as dt
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Offload(Protocol):
    """Runs blocking work beside the event loop and gives its result."""

    def __call__(self, work: Callable[[], _T], /) -> Awaitable[_T]:
        """Run it."""
        ...


@dataclass(frozen=True)
class Runtime:
    """Clocks, sleep and threads of one loop."""

    now: Callable[[], dt.datetime]
    """Wall clock with a zone: it may jump."""
    monotonic: Callable[[], float]
    """Clock [s] that only goes forward."""
    sleep: Callable[[float], Awaitable[Any]]
    """Waits [s]."""
    offload: Offload
    """Runs blocking work."""


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a daemon thread of its own.

    One that hangs delays neither the loop, nor other work, nor the end of the program, as a
    thread of the loop's pool would.

    Args:
        work: Function without arguments.

    Returns:
        Its result; its error is raised here.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as problem:
            error = problem
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True, name="perfusio-work").start()
    return await outcome


def system_runtime(now: Callable[[], dt.datetime] | None = None) -> Runtime:
    """The real world.

    Args:
        now: Wall clock; UTC now by default.
    """
    return Runtime(
        now or (lambda: dt.datetime.now(dt.UTC)), time.monotonic, asyncio.sleep, in_thread
    )
