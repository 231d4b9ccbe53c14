"""Ctrl-C between two chunks of work, where everything is saved.

Python raises KeyboardInterrupt wherever it is, in a destructor as well, where it is lost. Here the
first Ctrl-C is noted and ends the work at the next safe place; a second one is not held back, but
no signal is seen before a compiled call returns: what calls it keeps the calls short.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ASKED = threading.Event()


@contextmanager
def between_chunks() -> Iterator[None]:
    """Hold the first Ctrl-C back until `end_if_asked`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return

    def note(_number: int, _frame: Any) -> None:
        if _ASKED.is_set():
            raise KeyboardInterrupt
        _ASKED.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _ASKED.clear()


def end_if_asked() -> None:
    """Raise the KeyboardInterrupt that was held back, if there was one."""
    if _ASKED.is_set():
        raise KeyboardInterrupt
