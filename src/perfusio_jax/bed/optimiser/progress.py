"""How long a search will take: counts of roll-outs times what one was measured to take."""

from typing import Any

from perfusio_jax._core.progress import Say as Say
from perfusio_jax._core.progress import compiling as compiling
from perfusio_jax._core.progress import tell as tell
from perfusio_jax._core.progress import telling as telling

SECONDS_PER_PATH_DAY = 1.7e-5
"""One path over one day with 448 rows in the process, one core [s]; scans on few paths cost
more per path."""

ROWS_MEASURED = 448
"""Rows of that measurement [-]; a quarter of the time does not depend on them."""

COMPILE_SECONDS = 40.0
"""Longest first call of a new set of sizes beyond its warm time [s]."""


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
