"""Moments of an ensemble, its Kalman update and the gain of its smoother.

Analysis is deterministic: mean and covariance move as in the Kalman filter with the
ensemble's moments, and the members follow by the map that turns one covariance into the
other, so no perturbed observations add noise. Missing readings have no weight.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import Key


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
