"""Non-dominated points, the volume they dominate, and indicators; all objectives maximised."""

from typing import Any

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Bool, DataError, Float
from perfusio_jax.metrics import epsilon_indicator as epsilon_indicator
from perfusio_jax.metrics import hypervolume as hypervolume
from perfusio_jax.metrics import igd_plus as igd_plus


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


def hypervolume_gradient(Y: Any, ref_point: Any) -> Float[Array, "N m"]:
    """How the dominated volume changes with every objective of every point.

    Up to three objectives by differentiating the exact volume; beyond, by the volume of the
    slab that a point alone dominates below itself, from exact volumes of fewer objectives. At
    ties the volume has no derivative; the value is then that of one side.

    Args:
        Y: Objectives, one point per row, higher is better.
        ref_point: Reference point.

    Returns:
        Gradient, volume per unit of the objective; zero for dominated points.

    Raises:
        DataError: If shapes disagree.

    Reference:
        Emmerich, Deutz (2014), Time complexity and zeros of the hypervolume indicator gradient
        field.
    """
    Y, ref_point = jnp.asarray(Y, float), jnp.asarray(ref_point, float)
    if Y.ndim != 2 or ref_point.shape != Y.shape[1:]:
        raise DataError(
            f"Y has shape {Y.shape} and ref_point {ref_point.shape}; they must be (N, m) and (m,)."
        )
    if Y.shape[1] <= 3:
        return jax.grad(lambda points: hypervolume(points, ref_point))(Y)
    counts = compute_pareto_front(Y) & jnp.all(Y > ref_point[None, :], axis=1)
    slopes = jnp.zeros_like(Y)
    for i in jnp.flatnonzero(counts).tolist():
        for k in range(Y.shape[1]):
            slopes = slopes.at[i, k].set(_face(Y[counts], Y[i], ref_point, k))
    return slopes


def _face(front: Array, point: Array, ref_point: Array, k: int) -> Array:
    """Area of the face of a point's box across objective k that nobody else covers."""
    keep = [j for j in range(front.shape[1]) if j != k]
    columns = jnp.asarray(keep)
    above = front[front[:, k] > point[k]][:, columns]
    own = point[columns]
    covered = jnp.minimum(above, own[None, :])
    whole = jnp.prod(own - ref_point[columns])
    return whole - (hypervolume(covered, ref_point[columns]) if above.shape[0] else 0.0)
