"""Runs with long intervals between samples cut into steps of about one length."""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import HOURS_PER_DAY, DataError

from .trajectory import Trajectory

_LONG = 1.5
"""An interval this many steps long is cut [-]."""


def usual_step_h(runs: Sequence[Trajectory]) -> float:
    """Median interval between the samples of a campaign [h].

    Args:
        runs: The campaign; every interval counts once, so long runs weigh more. Runs with a
            single sample have none.

    Raises:
        DataError: If no run has two samples.
    """
    apart = [np.diff(np.asarray(run.times_h, float)) for run in runs if run.n_days > 1]
    if not apart:
        raise DataError("no run has two samples, so nothing says how far apart samples lie.")
    return float(np.median(np.concatenate(apart)))


def on_grid(run: Trajectory, step_h: float, *, once: Collection[str] = ()) -> Trajectory:
    """A run with rows without a reading where samples lie far apart.

    Whoever learns rates from a run takes them as means over its intervals. A weekend is then cut
    into days, so that all intervals are of about one length; the set-points stay as they were.

    Args:
        run: The run.
        step_h: Length of a step [h].
        once: Controls that act at their own sample only, such as boluses; 0 in rows that are
            put in.

    Returns:
        The run itself where no interval is longer than one and a half steps.
    """
    times = np.asarray(run.times_h, float)
    parts = cuts(np.diff(times), step_h)
    if parts.size == 0 or parts.max() == 1:
        return run
    rows = np.append(np.repeat(np.arange(parts.size), parts), parts.size)
    share = np.append(np.concatenate([np.arange(n) / n for n in parts]), 0.0)
    is_new = share > 0.0
    hours = times[rows] + share * np.append(np.diff(times), 0.0)[rows]

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.array(values, float)[rows]
        out[is_new] = np.nan
        return out

    controls = np.array(run.controls, float)[rows]
    for name in once:
        if name in run.control_names:
            controls[is_new, run.control_names.index(name)] = 0.0
    totals = spread(np.asarray(run.stream_totals))
    # a total is of the whole interval since the sample before, which is cut now
    follows_cut = np.append(False, is_new[:-1])
    totals[follows_cut] = np.nan
    return dataclasses.replace(
        run,
        species=spread(np.asarray(run.species)),
        controls=controls,
        volume_L=np.interp(hours, times, np.asarray(run.volume_L, float)),
        days=np.floor(hours / HOURS_PER_DAY + 1e-9).astype(int),
        times_h=hours,
        stream_totals=totals,
        auxiliary=spread(np.asarray(run.auxiliary)),
        limits=None if run.limits is None else spread(np.asarray(run.limits)),
    )


def cuts(intervals_h: Float[np.ndarray, " N"], step_h: float) -> np.ndarray:
    """In how many steps each interval is taken.

    Args:
        intervals_h: Lengths [h].
        step_h: Length of a step [h].

    Returns:
        Whole numbers from 1 on (N,).
    """
    return np.where(intervals_h > _LONG * step_h, np.ceil(intervals_h / step_h - 1e-9), 1).astype(
        int
    )
