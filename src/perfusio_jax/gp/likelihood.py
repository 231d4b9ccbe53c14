"""Noise of the rates that is learned: one variance per task."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import Positive, positive, unwrap


class GaussianLikelihood(eqx.Module):
    """Independent Gaussian noise with one learned variance per task."""

    noise: Positive
    """Variance per task (T,) or one for all () [scaled target squared]."""

    def __init__(self, noise: float | Float[ArrayLike, "..."] = 0.1):
        """Start value of the variance.

        Args:
            noise: Above zero, scaled target squared; scalar or one per task.
        """
        self.noise = positive(jnp.asarray(noise, float))

    def variance(self, n_tasks: int) -> Float[Array, " T"]:
        """Variance per task, scaled target squared."""
        return jnp.broadcast_to(unwrap(self.noise), (n_tasks,))
