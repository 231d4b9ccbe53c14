"""Ctrl-C and a request to end, heard by an event loop on any system."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOPS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def heard(call: Callable[[str], None]) -> Iterator[None]:
    """Call a function in the running loop whenever the process is asked to stop.

    Where a loop takes no signal handlers (Windows), Python's own hand the call over to it.

    Args:
        call: Is told the name of the signal, `SIGINT` or `SIGTERM`.

    Raises:
        RuntimeError: If no loop is running.
        ValueError: If this is not the main thread, the only one that signals reach.
    """
    loop = asyncio.get_running_loop()

    def hand_over(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call, signal.Signals(number).name)

    before = {}
    added = []
    try:
        for stop in STOPS:
            try:
                loop.add_signal_handler(stop, call, stop.name)
                added.append(stop)
            except RuntimeError:  # of which "not implemented" is a kind
                before[stop] = signal.signal(stop, hand_over)
        yield
    finally:
        for stop in added:
            loop.remove_signal_handler(stop)
        for stop, handler in before.items():
            signal.signal(stop, handler)
