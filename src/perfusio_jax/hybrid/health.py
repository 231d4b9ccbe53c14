"""Is the filter healthy? What its innovations say about model and noise."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import STATE_ORDER
from perfusio_jax.hybrid.ensemble import FilterInfo

CHANNELS = (*STATE_ORDER, "V_glucose_L")
"""Readings of the daily filter, in order."""

_LIMIT = 3.0


class Health(NamedTuple):
    """Innovation statistics of a run; under a right model and noise all z are standard normal."""

    nis_per_reading: float
    """Mean normalised innovation squared per reading; about 1 [-]."""
    z_nis: float
    """How far that is from 1, in standard deviations: large = too confident."""
    bias: Float[np.ndarray, " 10"]
    """Mean scaled innovation per channel, in its standard errors [-]; NaN if never read."""
    persistence: Float[np.ndarray, " 10"]
    """Lag-one product of scaled innovations, in its standard errors [-]: a model that is wrong
    in the same way day after day."""
    warnings: tuple[str, ...]
    """What is out of bounds, in words; empty if healthy."""


def innovation_health(info: FilterInfo, *, skip: int = 1) -> Health:
    """Test the innovations of one run.

    Args:
        info: Diagnostics per sample, stacked (`RunBeliefs.info`).
        skip: Samples at the start that are left out; the first has no forecast.

    Returns:
        Statistics. Bounds are three standard deviations.
    """
    gap = np.asarray(info.innovation)[skip:]
    scaled = gap / np.asarray(info.innovation_sd)[skip:]
    count = float(np.asarray(info.n_observed)[skip:].sum())
    nis = float(np.asarray(info.nis)[skip:].sum())
    ratio = nis / count if count else float("nan")
    z_nis = (nis - count) / np.sqrt(2.0 * count) if count else float("nan")
    seen = np.isfinite(scaled)
    number = seen.sum(axis=0)
    filled = np.where(seen, scaled, 0.0)
    with np.errstate(all="ignore"):
        bias = np.where(number > 0, filled.sum(axis=0) / np.sqrt(number), np.nan)
        pairs = (seen[1:] & seen[:-1]).sum(axis=0)
        lagged = (filled[1:] * filled[:-1]).sum(axis=0)
        persistence = np.where(pairs > 2, lagged / np.sqrt(pairs), np.nan)
    found = []
    if z_nis > _LIMIT:
        found.append(
            f"innovations are {ratio:.1f} times as large as expected: model error or noise is "
            "larger than assumed"
        )
    if z_nis < -_LIMIT:
        found.append(f"innovations are only {ratio:.2f} of what is expected: intervals are wide")
    for name, b, p in zip(CHANNELS, bias, persistence, strict=True):
        if abs(b) > _LIMIT:
            side = "above" if b > 0 else "below"
            found.append(f"{name} reads {side} its forecast, {abs(b):.1f} standard errors")
        if p > _LIMIT:
            found.append(f"{name} is missed in the same direction on following days")
    return Health(ratio, float(z_nis), bias, persistence, tuple(found))
