"""What the shell takes from the world: clocks, sleep and threads, so that tests give others."""

import asyncio
import contextlib
import datetime as dt
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

_T = TypeVar("_T")
TOLD_AGAIN_S: Final = 5.0
"""How long a cancelled task may tidy up before it is told again [s]."""


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


class LoopThread:
    """An event loop in a thread of its own that lives on between blocking calls.

    What was opened in one call, such as a connection, is there in the next, and is kept alive in
    between, which a loop made anew for each call would not do. Nothing is started before the
    first call.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop and wait for its result; an interrupt cancels it."""
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=loop.run_forever, daemon=True, name="perfusio-loop"
            )
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End what still runs, and the loop; closing twice, or unused, does nothing.

        Args:
            last: What is done on the loop before it ends.
        """
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_end_all(last), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_all(last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do the last thing, then cancel every other task of the running loop and wait for it."""
    await last()
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await ended(*rest)
    await asyncio.get_running_loop().shutdown_asyncgens()


async def ended(*tasks: asyncio.Task[Any], again_s: float | None = None) -> list[Any]:
    """Cancel tasks and wait until they are over, however often that takes.

    The OPC UA library may take a cancellation for the end of something else and go on; a task
    that was told once and waited for would then be waited for for ever.

    Args:
        *tasks: Of the running loop.
        again_s: How long they may go on before they are told again; `TOLD_AGAIN_S` if None [s].

    Returns:
        What each returned, or the exception it ended with.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        wait_s = TOLD_AGAIN_S if again_s is None else again_s
        _, left = await asyncio.wait(left, timeout=wait_s)
    return await asyncio.gather(*tasks, return_exceptions=True)


def system_runtime(now: Callable[[], dt.datetime] | None = None) -> Runtime:
    """The real world.

    Args:
        now: Wall clock; UTC now by default.
    """
    return Runtime(
        now or (lambda: dt.datetime.now(dt.UTC)), time.monotonic, asyncio.sleep, in_thread
    )
