"""How far apart the samples of runs are, in words: intervals are told, never assumed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Float

from perfusio_jax.states.trajectory import Trajectory


def sampling_intervals(trajectories: Sequence[Trajectory]) -> Float[np.ndarray, " N"]:
    """Hours between samples that follow each other, over all runs [h].

    Args:
        trajectories: The runs, of any lengths.

    Returns:
        Run by run, in the order of time; empty if no run has two samples.
    """
    parts = [np.diff(np.asarray(run.times_h, float)) for run in trajectories]
    return np.concatenate(parts) if parts else np.zeros(0)


def intervals_text(hours: Float[ArrayLike, " N"]) -> str:
    """Sampling intervals for people.

    Args:
        hours: Time between samples that follow each other [h].

    Returns:
        "every 12 h", or the median with the shortest and the longest.

    Example:
        >>> intervals_text([24.0, 24.0, 72.0])
        '24 h apart in the median (24 to 72 h)'
    """
    found = np.asarray(hours, float)
    if found.size == 0:
        return "single"
    low, middle, high = (f"{round(v, 1):g}" for v in np.quantile(found, [0.0, 0.5, 1.0]))
    if low == high:
        return f"every {middle} h"
    return f"{middle} h apart in the median ({low} to {high} h)"
