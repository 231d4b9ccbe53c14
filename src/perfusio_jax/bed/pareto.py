"""Non-dominated points and the volume they dominate; all objectives maximised."""

import jax.numpy as jnp

from perfusio_jax._core import Array, Bool, DataError, Float
from perfusio_jax.metrics import hypervolume as hypervolume


def compute_pareto_front(Y: Float[Array, "N m"]) -> Bool[Array, "N"]:
    """Mask of the points no other point dominates.

    A point dominates another if it is nowhere worse and somewhere better; equal points do not
    dominate each other, so copies of a front point are all kept. A row with a NaN is never on
    the front and dominates nothing.

    Args:
        Y: Objectives, one point per row, higher is better.

    Returns:
        True for non-dominated points.

    Raises:
        DataError: If `Y` is not a matrix.

    Example:
        >>> Y = jnp.asarray([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [0.5, 0.5]])
        >>> compute_pareto_front(Y).tolist()
        [True, True, True, False]
    """
    Y = jnp.asarray(Y)
    if Y.ndim != 2:
        raise DataError(f"Y has shape {Y.shape}; it must be (N, n_objectives).")
    valid = ~jnp.any(jnp.isnan(Y), axis=1)
    nowhere_worse = jnp.all(Y[None, :, :] >= Y[:, None, :], axis=-1)
    somewhere_better = jnp.any(Y[None, :, :] > Y[:, None, :], axis=-1)
    dominated = jnp.any(nowhere_worse & somewhere_better & valid[None, :], axis=1)
    return valid & ~dominated
