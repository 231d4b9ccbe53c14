"""Moments of an ensemble, its Kalman update and the gain of its smoother.

Analysis is deterministic: mean and covariance move as in the Kalman filter with the
ensemble's moments, and the members follow by the map that turns one covariance into the
other, so no perturbed observations add noise. Missing readings have no weight.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from perfusio_jax._core import Key, Scalar


class FilterInfo(NamedTuple):
    """Diagnostics of one update; readings are on the filter's scale, feed last."""

    innovation: Array
    """Reading minus forecast (10,), NaN where missing."""
    innovation_sd: Array
    """Expected standard deviation of the innovation (10,)."""
    nis: Array
    """Normalised innovation squared: about `n_observed` when model and noise are right."""
    n_observed: Array
    """Number of readings used."""
    log_likelihood: Array
    """Log density of the readings given the past."""
    limited: Array
    """Fraction of particle steps in which a physical limit acted [-]."""


def centred_noise(key: Key, shape: tuple[int, ...]) -> Array:
    """Noise with exact mean zero over the ensemble: less sampling error for the same size."""
    draws = jax.random.normal(key, shape)
    return draws - jnp.mean(draws, axis=0, keepdims=True)


def _moments(members: Array) -> tuple[Array, Array]:
    mean = jnp.mean(members, axis=0)
    return mean, members - mean[None, :]


def _regular(covariance: Array) -> Array:
    """A covariance with a floor far below its own scale, so that factors exist."""
    scale = jnp.diagonal(covariance)
    return covariance + jnp.diag(1e-8 * scale + 1e-10)


def ensemble_update(
    members: Float[Array, "N d"],
    predicted: Float[Array, "N m"],
    reading: Float[Array, " m"],
    sd: Float[Array, " m"],
) -> tuple[Float[Array, "N d"], FilterInfo]:
    """Kalman update of an ensemble with given moments.

    Args:
        members: Ensemble in the filter's space.
        predicted: Reading expected by each member.
        reading: Readings; NaN where missing.
        sd: Noise of each reading.

    Returns:
        Ensemble whose mean and covariance are those of the Kalman update, and diagnostics.
    """
    size = members.shape[0]
    seen = ~jnp.isnan(reading)
    weight = seen.astype(members.dtype)
    mean, apart = _moments(members)
    expected, spread = _moments(predicted)
    spread = spread * weight[None, :]
    cross = apart.T @ spread / (size - 1)
    noise = jnp.where(seen, sd**2, 1.0)
    total = spread.T @ spread / (size - 1) + jnp.diag(noise)
    innovation = jnp.where(seen, jnp.nan_to_num(reading) - expected, 0.0)
    factor = jnp.linalg.cholesky(total)
    white = jax.scipy.linalg.solve_triangular(factor, innovation, lower=True)
    half = jax.scipy.linalg.solve_triangular(factor, cross.T, lower=True)
    before = _regular(apart.T @ apart / (size - 1))
    after = before - half.T @ half
    after = _regular(0.5 * (after + after.T))
    # move members by the map that takes one Cholesky factor into the other
    root_before = jnp.linalg.cholesky(before)
    root_after = jnp.linalg.cholesky(after + 1e-9 * jnp.diag(jnp.diagonal(before)))
    moved = jax.scipy.linalg.solve_triangular(root_before, apart.T, lower=True)
    shifted = mean + half.T @ white
    log_det = jnp.sum(jnp.log(jnp.diagonal(factor)) * weight)
    count = jnp.sum(weight)
    nis = jnp.sum(white**2)
    info = FilterInfo(
        innovation=jnp.where(seen, innovation, jnp.nan),
        innovation_sd=jnp.sqrt(jnp.diagonal(total)),
        nis=nis,
        n_observed=count,
        log_likelihood=-0.5 * nis - log_det - 0.5 * count * jnp.log(2.0 * jnp.pi),
        limited=jnp.zeros(()),
    )
    return shifted[None, :] + (root_after @ moved).T, info


def one_sided(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Limits as one: whether there is any, the side on which readings lie, and the limit.

    Args:
        low: The reading is below it; NaN where no such limit is known.
        high: The reading is above it; NaN likewise.

    Returns:
        Whether there is one, -1 or 1, and the limit (0 where there is none).
    """
    used = ~(jnp.isnan(low) & jnp.isnan(high))
    is_low = jnp.isnan(high)
    limit = jnp.where(used, jnp.where(is_low, low, high), 0.0)
    return used, jnp.where(is_low, -1.0, 1.0), limit


def censored_update(
    members: Float[Array, "N d"],
    predicted: Float[Array, "N m"],
    low: Float[Array, " m"],
    high: Float[Array, " m"],
    sd: Float[Array, " m"],
) -> tuple[Float[Array, "N d"], Scalar]:
    """Update of an ensemble by readings of which a limit is known only, one after the other.

    A reading that lies below a limit is a normal variable cut off there. Mean and covariance of
    state and reading move to the moments of the cut one, and the members follow as in a serial
    square root filter, so that a limit far above what is expected changes nothing.

    Args:
        members: Ensemble in the filter's space.
        predicted: Reading expected by each member.
        low: The reading is below it; NaN where no such limit is known.
        high: The reading is above it; NaN likewise.
        sd: Noise of each reading.

    Returns:
        Ensemble, and log probability of the limits given the past.

    Reference:
        Moments of the truncated normal distribution as in expectation propagation (Minka 2001);
        gain of the anomalies as in Whitaker and Hamill (2002), for a variance that is given.
    """
    size, d = members.shape
    mean, apart = _moments(jnp.concatenate([members, predicted], axis=1))

    def one(carry: tuple[Array, Array], xs: Any) -> tuple[tuple[Array, Array], Array]:
        mean, apart = carry
        column, below, above, noise = xs
        used, sign, limit = one_sided(below, above)
        own = jnp.take(apart, d + column, axis=1)
        cross = apart.T @ own / (size - 1)
        variance = jnp.maximum(own @ own / (size - 1), 1e-12)
        total = variance + noise**2
        root = jnp.sqrt(total)
        gap = jnp.where(used, sign * (limit - mean[d + column]) / root, 0.0)
        log_tail = norm.logcdf(-gap)
        hazard = jnp.exp(norm.logpdf(gap) - log_tail)
        left = jnp.clip(1.0 + gap * hazard - hazard**2, 1e-3, 1.0)
        mean = mean + jnp.where(used, sign * hazard / root, 0.0) * cross
        shrink = 1.0 - jnp.sqrt(jnp.maximum(1.0 - (1.0 - left) * variance / total, 0.0))
        move = jnp.where(used, shrink / variance, 0.0)
        return (mean, apart - move * own[:, None] * cross[None, :]), jnp.where(used, log_tail, 0.0)

    readings = (jnp.arange(predicted.shape[1]), low, high, sd)
    (mean, apart), log_tails = jax.lax.scan(one, (mean, apart), readings)
    return (mean[None, :] + apart)[:, :d], jnp.sum(log_tails)


def smoother_gain(members: Float[Array, "N d"], forecast: Float[Array, "N e"]) -> Array:
    """Gain of the ensemble Rauch-Tung-Striebel step (d, e)."""
    size = members.shape[0]
    _, apart = _moments(members)
    _, ahead = _moments(forecast)
    covariance = ahead.T @ ahead / (size - 1)
    scale = jnp.sqrt(jnp.diagonal(covariance)) + 1e-12
    correlation = covariance / scale[:, None] / scale[None, :]
    correlation = correlation + 1e-4 * jnp.eye(correlation.shape[0])
    cross = apart.T @ ahead / (size - 1) / scale[None, :]
    return jnp.linalg.solve(correlation, cross.T).T / scale[None, :]
