"""Relative root-mean-square error per forecast step and species."""

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import DataError


def rrmse_horizon(
    true: Float[Array, "R T K"],
    pred: Float[Array, "R T K"],
    horizon: int | None = None,
    n_tail: int = 0,
    eps: float = 1e-8,
) -> Float[Array, "H K"]:
    """Root-mean-square error over runs, relative to the spread of the observations.

    Element `[h, k]` is `sqrt(mean_r (pred - true)^2) / (sigma_k + eps)`, with `sigma_k` the
    population standard deviation of `true` over all runs and time steps. Missing
    observations (NaN in `true`) take part in neither; where no run has an observation the
    result is NaN. A NaN in `pred` at an observed entry is a failed forecast and makes the
    element NaN.

    Args:
        true: Observations, one forecast step per row.
        pred: Predictions.
        horizon: Evaluate only the first steps; all if None.
        n_tail: Number of *leading* steps left out of `sigma_k` (and of nothing else), for
            species that hardly differ at inoculation. (The name is historical.)
        eps: Added to `sigma_k`.

    Returns:
        Shape (T, K), or (horizon, K).

    Raises:
        DataError: (a ValueError) if shapes disagree, `horizon` is outside 1..T or `n_tail`
            outside 0..T-1.

    Reference:
        Gadiyar et al. (2026), eqs. 5-6.
    """
    true, pred = jnp.asarray(true), jnp.asarray(pred)
    if true.ndim != 3 or true.shape != pred.shape:
        raise DataError(
            f"true and pred must share one shape (runs, steps, species); given {true.shape} and "
            f"{pred.shape}."
        )
    n_steps = true.shape[1]
    if horizon is not None and not 1 <= horizon <= n_steps:
        raise DataError(f"horizon={horizon} must lie in 1..{n_steps}, the number of steps.")
    if not 0 <= n_tail < n_steps:
        raise DataError(f"n_tail={n_tail} must lie in 0..{n_steps - 1}.")
    is_seen = ~jnp.isnan(true)
    error = jnp.where(is_seen, pred - jnp.where(is_seen, true, 0.0), 0.0)
    n_seen = jnp.sum(is_seen, axis=0, dtype=true.dtype)
    mean_square = jnp.sum(error**2, axis=0) / n_seen
    positive = mean_square > 0.0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, mean_square, 1.0)), mean_square)
    result = root / (normalisation_scale(true[:, n_tail:]) + eps)[None, :]
    return result if horizon is None else result[:horizon]


def normalisation_scale(true: Float[Array, "R T K"]) -> Float[Array, " K"]:
    """Population standard deviation per species over runs and steps, NaN left out.

    Args:
        true: Observations of R runs at T steps, in the units of their species.

    Returns:
        In the unit of each species; zero where all are the same, NaN where there is none.
    """
    is_seen = ~jnp.isnan(true)
    n_seen = jnp.sum(is_seen, axis=(0, 1), dtype=true.dtype)
    mean = jnp.sum(jnp.where(is_seen, true, 0.0), axis=(0, 1)) / n_seen
    deviation = jnp.where(is_seen, true - mean[None, None, :], 0.0)
    return jnp.sqrt(jnp.sum(deviation**2, axis=(0, 1)) / n_seen)


def as_number(value: Array) -> float:
    """A Python float, or the array itself where its value is not known (traced)."""
    return value if isinstance(value, Tracer) else float(value)  # pyright: ignore
