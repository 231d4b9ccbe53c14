"""What a long call says while it works: how much there is to do, what compiles, how far it is.

A caller that wants to know passes `say`, a function of one line. Nothing is said otherwise, and
nothing here reads a clock: estimates are counts of roll-outs times what one was measured to take.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Say = Callable[[str], None]
"""Is called with one line of plain text."""

_LISTENER: ContextVar[Say | None] = ContextVar("listener", default=None)

SECONDS_PER_PATH_DAY = 1.7e-5
"""One path over one day with 448 rows in the process, one core [s]; scans on few paths cost
more per path."""

ROWS_MEASURED = 448
"""Rows of that measurement [-]; a quarter of the time does not depend on them."""

COMPILE_SECONDS = 40.0
"""Longest first call of a new set of sizes beyond its warm time [s]."""


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
    tell(f"compiling {what}")


def rollout_seconds(model: Any, n_paths: int, horizon: int) -> float:
    """About how long one roll-out takes on one core, once compiled [s].

    Args:
        model: Hybrid model.
        n_paths: Paths.
        horizon: Steps.
    """
    process = getattr(model, "gp", None)
    rows = 0 if process is None else process.data.inputs.shape[0]
    share = 0.25 + 0.75 * rows / ROWS_MEASURED
    return SECONDS_PER_PATH_DAY * share * n_paths * horizon


def in_words(seconds: float) -> str:
    """A time estimate: two digits, seconds or minutes, and the word about compiling.

    Args:
        seconds: Estimate without compiling [s].

    Example:
        >>> in_words(0.4)
        'less than 2 s, and up to 40 s more where it has to be compiled first'
        >>> in_words(312.0)
        'about 5 min, and up to 40 s more where it has to be compiled first'
    """
    more = f", and up to {COMPILE_SECONDS:g} s more where it has to be compiled first"
    if seconds < 2.0:
        return "less than 2 s" + more
    if seconds < 100.0:
        return f"about {seconds:.0f} s" + more
    return f"about {seconds / 60.0:.0f} min" + more
