"""Rates of fed-batch runs as rows that a process learns from.

    y_t = (M_{t+1} V'_{t+1} - S_t V_t - F_{t+1}) / (V_t dt),      S_t = M_t + B_t / V_t

V is the volume after sample t, V' that of the next before it is taken, F what was fed in between,
and B what was given at once after sample t; M are readings and S what the cells then start from.

Reference:
    Hutter et al. (2021), doi:10.1002/bit.27907.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from perfusio_jax._core import DataError, Key
from perfusio_jax.simulator import FedBatchRuns


class RateRows(NamedTuple):
    """Rows to learn from; arrays of one length."""

    features: Float[np.ndarray, "N F"]
    """What an interval starts from and its set-points, raw units."""
    rates: Float[np.ndarray, "N T"]
    """Mean volumetric rates of an interval [unit/d]."""
    product: Int[np.ndarray, " N"]
    """Index of the product."""


def rate_rows(runs: FedBatchRuns) -> RateRows:
    """Rates of runs by interval, rows with a missing number left out.

    Args:
        runs: Runs.

    Returns:
        The rows, run by run.

    Raises:
        DataError: If no row is complete.
    """
    M = np.asarray(runs.measured, float)
    before, after = np.asarray(runs.volume_before), np.asarray(runs.volume_after)[..., None]
    start = (M + np.asarray(runs.given) / after)[:, :-1]
    days = np.diff(np.asarray(runs.days), axis=1)[..., None]
    change = M[:, 1:] * before[:, 1:, None] - start * after[:, :-1]
    rates = (change - np.asarray(runs.fed)[:, 1:]) / (after[:, :-1] * days)
    features = np.concatenate([start, np.asarray(runs.controls)[:, :-1]], axis=-1)
    n, steps = rates.shape[:2]
    product = np.repeat(np.asarray(runs.product), steps)
    features, rates = features.reshape(n * steps, -1), rates.reshape(n * steps, -1)
    whole = np.isfinite(features).all(axis=1) & np.isfinite(rates).all(axis=1)
    if not whole.any():
        raise DataError(
            f"none of the {n * steps} intervals of {n} runs has all readings at both ends, so no "
            "rate can be formed; check for a species that was never measured."
        )
    return RateRows(features[whole], rates[whole], product[whole])


def join_rows(*parts: RateRows) -> RateRows:
    """Rows of several tables in one."""
    return RateRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def thin(rows: RateRows, max_rows: int, *, key: Key) -> RateRows:
    """A random subset of the rows, for the search of parameters; all of them if few."""
    size = len(rows.product)
    if size <= max_rows:
        return rows
    order = np.asarray(jax.random.permutation(key, size))
    kept = np.sort(order[:max_rows])
    return RateRows(*(values[kept] for values in rows))
