"""One number for each of many batches, some at a time: memory against speed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Float
from perfusio_jax._core.programs import compiled


@compiled
def score(acqf: Any, batches: Float[Array, "N q d"], batch_size: int) -> Float[Array, "N"]:
    """Acquisition of many batches.

    Args:
        acqf: Acquisition.
        batches: Batches in their own units.
        batch_size: Batches evaluated at once.

    Returns:
        Values.
    """
    return jax.lax.map(acqf, batches, batch_size=divisor(batches.shape[0], batch_size))


def finite_or_worst(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Values of many batches; infinite where one is not finite.

    Args:
        function: Batch of candidates `(q,d)` in, one number out, less is better.

    Returns:
        A function of batches `(N,q,d)`.
    """

    def values(batches: Array) -> Array:
        size = divisor(batches.shape[0], 64)
        found = jax.lax.map(function, batches, batch_size=size)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    return values


def divisor(n: int, limit: int) -> int:
    """Largest batch that divides `n` evenly: a remainder would be compiled a second time.

    Args:
        n: Points.
        limit: Points in a batch, at most.
    """
    return next(size for size in range(min(limit, n), 0, -1) if n % size == 0)
