"""What a long call says while it works, to whoever listens.

A caller that wants to know passes `say`, a function of one line, or opens `telling`. Nothing is
said otherwise, and nothing here reads a clock.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Say = Callable[[str], None]
"""Is called with one line of plain text."""

_LISTENER: ContextVar[Say | None] = ContextVar("listener", default=None)
_IS_COMPILING: ContextVar[bool] = ContextVar("is_compiling", default=False)


@contextmanager
def telling(say: Say | None) -> Iterator[None]:
    """Pass what is said inside the block to a function.

    Args:
        say: The function; None leaves the listener as it is.
    """
    if say is None:
        yield
        return
    token = _LISTENER.set(say)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(text: str) -> None:
    """Say a line, if somebody listens.

    Args:
        text: The line.
    """
    say = _LISTENER.get()
    if say is not None:
        say(text)


def compiling(what: str) -> None:
    """Say that something is being compiled.

    For the bodies of compiled functions: Python runs those only while they compile.

    Args:
        what: What it is.
    """
    _IS_COMPILING.set(True)
    tell(f"compiling {what} (first use)")


def compiled_now() -> None:
    """Say that what was being compiled is, if that was said; the work itself goes on."""
    if _IS_COMPILING.get():
        _IS_COMPILING.set(False)
        tell("running")
