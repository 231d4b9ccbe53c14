"""Non-dominated points, the volume they dominate, and indicators; all objectives maximised."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
        return _gradient(Y, ref_point)
    counts = np.asarray(compute_pareto_front(Y) & jnp.all(Y > ref_point[None, :], axis=1))
    points, corner = np.asarray(Y), np.asarray(ref_point)
    slopes = np.zeros_like(points)
    for i in np.flatnonzero(counts):
        for k in range(points.shape[1]):
            slopes[i, k] = _face(points[counts], points[i], corner, k)
    return jnp.asarray(slopes)


@jax.jit
def _gradient(Y: Array, ref_point: Array) -> Array:
    return jax.grad(lambda points: hypervolume(points, ref_point))(Y)


def _face(front: np.ndarray, point: np.ndarray, ref_point: np.ndarray, k: int) -> float:
    """Area of the face of a point's box across objective k that nobody else covers."""
    from moocore import hypervolume as volume

    rest = np.delete(np.arange(front.shape[1]), k)
    own, corner = point[rest], ref_point[rest]
    covered = np.minimum(front[front[:, k] > point[k]][:, rest], own[None, :])
    whole = float(np.prod(own - corner))
    return whole - (float(volume(covered, ref=corner, maximise=True)) if len(covered) else 0.0)
