"""How well a controlled quantity follows its reference."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import DataError


def tracking_error(
    values: Float[Array, "... T"],
    reference: Float[Array, "... T"] | float,
    *,
    start: int = 0,
) -> Float[Array, "..."]:
    """Root-mean-square deviation from the reference over time, in the quantity's unit.

    Args:
        values: Trajectory; NaN where missing.
        reference: Target, constant or of the same shape.
        start: First time index that counts (end of the start-up phase).

    Returns:
        One number per trajectory; NaN if nothing was observed.

    Raises:
        DataError: (a ValueError) if shapes disagree or `start` leaves nothing.
    """
    values, target = jnp.asarray(values), jnp.asarray(reference)
    if target.ndim != 0 and target.shape != values.shape:
        raise DataError(f"reference has shape {target.shape}; it must be () or {values.shape}.")
    if values.ndim == 0 or not 0 <= start < values.shape[-1]:
        raise DataError(f"start={start} must leave part of a series of shape {values.shape}.")
    deviation = (values - target)[..., start:]
    is_seen = ~jnp.isnan(deviation)
    total = jnp.sum(jnp.where(is_seen, deviation, 0.0) ** 2, axis=-1)
    mean = total / jnp.sum(is_seen, axis=-1, dtype=total.dtype)
    is_off = mean > 0.0
    return jnp.where(is_off, jnp.sqrt(jnp.where(is_off, mean, 1.0)), mean)


def naae(
    values: Float[Array, "*batch T n"], reference: Float[Array, "T n"], *, start: int = 1
) -> Float[Array, "*batch n"]:
    """Normalised average absolute error of each tracked quantity [-].

    The mean over sampling times of |x - ref| / ref. The publication's formula is stripped; the
    initial state most likely does not count, hence `start=1`; `start=0` counts it.

    Args:
        values: Tracked quantities at k = 0 ... N.
        reference: References at the same times, none zero.
        start: First sampling time that counts.

    Returns:
        One number per quantity; the total is their mean.

    Raises:
        DataError: (a ValueError) if shapes disagree, a reference is zero or `start` leaves nothing.

    Reference:
        Espinel-Rios et al. (2025), equations (20) and (21).
    """
    values, reference = jnp.asarray(values), jnp.asarray(reference)
    if values.shape[-2:] != reference.shape or reference.ndim != 2:
        raise DataError(f"values {values.shape} and reference {reference.shape} do not fit.")
    if not 0 <= start < reference.shape[0]:
        raise DataError(f"start={start} must leave part of {reference.shape[0]} sampling times.")
    if not isinstance(reference, Tracer) and np.any(np.asarray(reference) == 0.0):
        raise DataError("a reference is zero: the error cannot be taken relative to it.")
    target = jnp.broadcast_to(reference, values.shape)
    return jnp.mean((jnp.abs(values - target) / jnp.abs(target))[..., start:, :], axis=-2)


def total_naae(
    values: Float[Array, "*batch T n"], reference: Float[Array, "T n"], *, start: int = 1
) -> Float[Array, "*batch"]:
    """Mean of `naae` over the tracked quantities [-].

    Args:
        values: Tracked quantities at k = 0 ... N.
        reference: References at the same times, in the same units, none zero.
        start: First sampling time that counts.

    Returns:
        One number per episode, not negative; 0.01 is a mean deviation of 1 %.

    Raises:
        DataError: (a ValueError) if shapes disagree, a reference is zero or `start` leaves nothing.

    Reference:
        Espinel-Rios et al. (2025), equations (20) and (21).
    """
    return jnp.mean(naae(values, reference, start=start), axis=-1)


def nauc(mean_returns: Float[Array, " epochs"]) -> Float[Array, ""]:
    """Normalised area under a curve of mean returns over epochs [-].

    Returns are scaled so that the first epoch is zero and the best one is one: one rule for
    returns of either sign. The area is by trapezia, over the number of intervals.

    Args:
        mean_returns: Per epoch; NaN beyond the last one run.

    Returns:
        At most one; NaN for fewer than two epochs or where nothing was gained.

    Raises:
        DataError: (a ValueError) if it is not one series.

    Reference:
        Espinel-Rios et al. (2025), equation (22); the scaling is ours.
    """
    curve = jnp.asarray(mean_returns)
    if curve.ndim != 1:
        raise DataError(f"one series of returns is needed; the shape is {curve.shape}.")
    is_run = jnp.isfinite(curve)
    best = jnp.max(jnp.where(is_run, curve, -jnp.inf), initial=-jnp.inf)
    gain = best - curve[0]
    scaled = (curve - curve[0]) / jnp.where(gain > 0.0, gain, jnp.nan)
    both = is_run[1:] & is_run[:-1]
    area = jnp.sum(jnp.where(both, 0.5 * (scaled[1:] + scaled[:-1]), 0.0))
    return area / jnp.where(jnp.any(both), jnp.sum(both), jnp.nan)


def rank_sum(errors: Float[Array, " n"], areas: Float[Array, " n"]) -> Float[Array, " n"]:
    """Rank by total NAAE (rising) plus rank by NAUC (falling); ties share their mean rank.

    Args:
        errors: Total NAAE of each candidate.
        areas: NAUC of each candidate.

    Returns:
        Sum of both ranks, each from 1; the smallest is the best.

    Raises:
        DataError: (a ValueError) if lengths differ or a value is not finite.
    """
    errors, areas = jnp.asarray(errors, float), jnp.asarray(areas, float)
    if errors.ndim != 1 or errors.shape != areas.shape:
        raise DataError(f"errors {errors.shape} and areas {areas.shape} must be one pair each.")
    if not bool(jnp.all(jnp.isfinite(errors) & jnp.isfinite(areas))):
        raise DataError("a candidate without a finite error and area cannot be ranked.")
    return jax.scipy.stats.rankdata(errors) + jax.scipy.stats.rankdata(-areas)
