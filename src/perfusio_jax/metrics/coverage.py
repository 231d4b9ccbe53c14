"""Calibration of probabilistic forecasts: coverage, sharpness, CRPS, PIT.

A missing observation (NaN) takes part in no score; a species without any observation
scores NaN, never zero.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import DataError


def _mean_seen(values: Array, is_seen: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sum(jnp.where(is_seen, values, 0.0), axis=axes) / jnp.sum(
        is_seen, axis=axes, dtype=values.dtype
    )


def pi_coverage(
    true: Float[Array, "... K"], q_lo: Float[Array, "... K"], q_hi: Float[Array, "... K"]
) -> Float[Array, " K"]:
    """Share of observations inside their prediction interval, ends included, per species.

    An interval with a NaN end at an observed entry is a failed forecast and counts as a miss.

    Args:
        true: Observations in the units of their species; NaN where missing.
        q_lo: Lower ends, same shape and units.
        q_hi: Upper ends, likewise.

    Returns:
        Between 0 and 1 [-], over all axes but the last; NaN for a species nobody observed.

    Raises:
        DataError: (a ValueError) if shapes disagree.

    Examples:
        >>> import jax.numpy as jnp
        >>> y = jnp.array([[1.0, 2.0], [1.5, 2.5], [0.5, 1.5]])
        >>> inside = pi_coverage(y, jnp.zeros_like(y), jnp.full_like(y, 2.0))
        >>> [round(float(v), 3) for v in inside]
        [1.0, 0.667]
    """
    true, q_lo, q_hi = jnp.asarray(true), jnp.asarray(q_lo), jnp.asarray(q_hi)
    if not true.shape == q_lo.shape == q_hi.shape or true.ndim == 0:
        raise DataError(
            f"true, q_lo and q_hi must share one shape (..., species); given {true.shape}, "
            f"{q_lo.shape}, {q_hi.shape}."
        )
    is_inside = (true >= q_lo) & (true <= q_hi)
    axes = tuple(range(true.ndim - 1))
    return _mean_seen(is_inside.astype(q_lo.dtype), ~jnp.isnan(true), axes)


def sharpness(q_lo: Float[Array, "... K"], q_hi: Float[Array, "... K"]) -> Float[Array, " K"]:
    """Mean width of the prediction intervals per species, in the species' unit.

    Args:
        q_lo: Lower ends [unit of the species], over any axes before the last.
        q_hi: Upper ends, same shape and units.

    Returns:
        The smaller the sharper; NaN for a species of which an end is NaN.

    Raises:
        DataError: (a ValueError) if shapes disagree.
    """
    q_lo, q_hi = jnp.asarray(q_lo), jnp.asarray(q_hi)
    if q_lo.shape != q_hi.shape or q_lo.ndim == 0:
        raise DataError(
            f"q_lo and q_hi must share one shape (..., species); given {q_lo.shape}, {q_hi.shape}."
        )
    return jnp.mean(q_hi - q_lo, axis=tuple(range(q_lo.ndim - 1)))


def _check_samples(true: Array, samples: Array) -> None:
    if true.ndim != 2 or samples.ndim != 3 or samples.shape[::2] != true.shape:
        raise DataError(
            "true must have shape (N, species) and samples (N, S, species); given "
            f"{true.shape} and {samples.shape}."
        )
    if samples.shape[1] == 0:
        raise DataError("samples must hold at least one draw per observation.")


def crps(
    true: Float[Array, "N K"], samples: Float[Array, "N S K"], *, fair: bool = False
) -> Float[Array, " K"]:
    """Mean continuous ranked probability score per species, `E|X - y| - E|X - X'| / 2`.

    The pair term comes from sorted samples in O(S log S): the sum of all `|x_i - x_j|` is
    `2 sum_i (2 i - S - 1) x_(i)`.

    Args:
        true: Observations; NaN where missing.
        samples: Draws from the forecast.
        fair: If True, average over distinct pairs, which removes the bias of few samples
            (needs two or more); if False, over all pairs, which makes it the exact score
            of the samples' empirical distribution.

    Raises:
        DataError: (a ValueError) if shapes disagree or `fair` is asked of one sample.

    Reference:
        Gneiting & Raftery (2007); Ferro (2014) for the fair form.
    """
    true, samples = jnp.asarray(true), jnp.asarray(samples)
    _check_samples(true, samples)
    n = samples.shape[1]
    if fair and n < 2:
        raise DataError("the fair CRPS needs at least two samples per observation, one given.")
    is_seen = ~jnp.isnan(true)
    observed = jnp.where(is_seen, true, 0.0)
    to_truth = jnp.mean(jnp.abs(samples - observed[:, None, :]), axis=1)
    weight = 2.0 * jnp.arange(1, n + 1, dtype=samples.dtype) - n - 1.0
    pairs = 2.0 * jnp.sum(weight[None, :, None] * jnp.sort(samples, axis=1), axis=1)
    score = to_truth - 0.5 * pairs / (n * (n - 1) if fair else n * n)
    return _mean_seen(score, is_seen, (0,))


def central_coverage(
    true: Float[Array, "N K"], samples: Float[Array, "N S K"], levels: Float[Array, " L"]
) -> Float[Array, "L K"]:
    """Coverage of central intervals against their nominal levels, from samples.

    Args:
        true: Observations; NaN where missing.
        samples: Draws from the forecast.
        levels: Nominal probabilities in (0, 1).

    Returns:
        Empirical coverage per level and species; equal to `levels` if calibrated.
    """
    true, samples, levels = jnp.asarray(true), jnp.asarray(samples), jnp.asarray(levels)
    _check_samples(true, samples)
    low = jnp.quantile(samples, 0.5 - 0.5 * levels, axis=1)
    high = jnp.quantile(samples, 0.5 + 0.5 * levels, axis=1)
    return jax.vmap(pi_coverage, in_axes=(None, 0, 0))(true, low, high)


def probability_integral_transform(
    true: Float[Array, "N K"], samples: Float[Array, "N S K"]
) -> Float[Array, "N K"]:
    """Position of each observation in its forecast, in (0, 1); uniform if calibrated.

    Mid-rank over S + 1 places: `(below + ties / 2 + 1/2) / (S + 1)`; NaN where missing.

    Args:
        true: Observations in the units of their species; NaN where missing.
        samples: S draws from the forecast of each, in the same units.

    Raises:
        DataError: (a ValueError) if shapes disagree or there is no draw.

    Reference:
        Dawid (1984), for the transform.
    """
    true, samples = jnp.asarray(true), jnp.asarray(samples)
    _check_samples(true, samples)
    observed = true[:, None, :]
    below = jnp.sum(samples < observed, axis=1, dtype=true.dtype)
    ties = jnp.sum(samples == observed, axis=1, dtype=true.dtype)
    position = (below + 0.5 * ties + 0.5) / (samples.shape[1] + 1)
    return jnp.where(jnp.isnan(true), jnp.nan, position)
