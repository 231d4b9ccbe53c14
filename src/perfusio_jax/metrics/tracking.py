"""How well a controlled quantity follows its reference."""

import jax.numpy as jnp
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
