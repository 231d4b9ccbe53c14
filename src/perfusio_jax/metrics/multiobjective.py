"""Indicators of Pareto-set quality. All objectives are maximised."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import DataError

from .rrmse import as_number

_SLICES_AT_ONCE = 256
"""Sweeps evaluated together; bounds the memory of the three-objective hypervolume."""


def _points(name: str, values: Array) -> Array:
    array = jnp.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{name} must have shape (points, objectives); given {array.shape}.")
    return array


def hypervolume(Y: Float[Array, "N M"], ref_point: Float[Array, " M"]) -> Float[Array, ""]:
    """Exact volume dominated by `Y` above `ref_point`, as a scalar array.

    Up to three objectives it is computed in JAX, jits and differentiates; beyond three it
    is handed to `moocore`, which needs known values. Dominated points and points not above
    the reference add nothing; a point with a missing objective (NaN) is left out.

    Args:
        Y: Objective values, maximised.
        ref_point: Corner of the volume.

    Raises:
        DataError: (a ValueError) if shapes disagree, or if there are more than three
            objectives inside a transformation.
    """
    Y, ref_point = _points("Y", Y), jnp.asarray(ref_point)
    n_objectives = Y.shape[1]
    if ref_point.shape != (n_objectives,):
        raise DataError(f"ref_point must have shape ({n_objectives},), given {ref_point.shape}.")
    if Y.shape[0] == 0:
        return jnp.zeros((), ref_point.dtype)
    is_complete = ~jnp.any(jnp.isnan(Y), axis=1, keepdims=True)
    excess = jnp.where(is_complete, jnp.maximum(Y - ref_point[None, :], 0.0), 0.0)
    if n_objectives == 1:
        return jnp.max(excess)
    if n_objectives == 2:
        return _staircase_area(excess)
    if n_objectives == 3:
        return _stacked_volume(excess)
    return _volume_by_moocore(excess)


def _staircase_area(excess: Array) -> Array:
    """Area of the union of boxes [0, x_i] x [0, y_i]: a sweep from right to left."""
    order = jnp.argsort(-excess[:, 0])
    return _sweep(excess[order, 0], excess[order, 1])


def _sweep(x: Array, y: Array) -> Array:
    """The same for points sorted by falling x: each adds a strip above the highest so far."""
    top = jax.lax.cummax(y)
    before = jnp.concatenate([jnp.zeros(1, top.dtype), top[:-1]])
    return jnp.sum(x * (top - before))


def _stacked_volume(excess: Array) -> Array:
    """Union of boxes in three dimensions, sliced at every level of the last objective.

    Between two neighbouring levels the cross-section is the staircase of all points at or
    above the upper one. One sort by the first objective serves all slices.
    """
    by_x = excess[jnp.argsort(-excess[:, 0])]
    x, y, z = by_x[:, 0], by_x[:, 1], by_x[:, 2]
    descending = jnp.argsort(-z)
    rank = jnp.argsort(descending)
    levels = z[descending]
    heights = levels - jnp.concatenate([levels[1:], jnp.zeros(1, z.dtype)])

    def section(last: Array) -> Array:
        return _sweep(x, jnp.where(rank <= last, y, 0.0))

    areas = jax.lax.map(section, jnp.arange(z.shape[0]), batch_size=_SLICES_AT_ONCE)
    return jnp.sum(areas * heights)


def _volume_by_moocore(excess: Array) -> Array:
    if isinstance(excess, Tracer):
        raise DataError(
            f"the hypervolume of {excess.shape[1]} objectives is computed outside JAX; call it on "
            "known values, or use at most three objectives inside jit, vmap and grad."
        )
    import moocore

    points = np.asarray(excess, np.float64)
    return jnp.asarray(moocore.hypervolume(points, ref=np.zeros(points.shape[1]), maximise=True))


def hypervolume_indicator(Y: Float[Array, "N M"], ref_point: Float[Array, " M"]) -> float:
    """`hypervolume` as a float (inside a transformation: the scalar array).

    Args:
        Y: Objective values, maximised, each in a unit of its own; points with NaN are left out.
        ref_point: Corner of the volume, in the same units.

    Returns:
        Not negative [product of the objectives' units].

    Raises:
        DataError: (a ValueError) if shapes disagree, or if there are more than three
            objectives inside a transformation.
    """
    return as_number(hypervolume(Y, ref_point))


def _check_pair(approx: Array, reference: Array) -> tuple[Array, Array]:
    approx, reference = _points("approx", approx), _points("reference", reference)
    if approx.shape[1] != reference.shape[1]:
        raise DataError(
            f"approx has {approx.shape[1]} objectives and reference {reference.shape[1]}; they "
            "must agree."
        )
    if approx.shape[0] == 0 or reference.shape[0] == 0:
        raise DataError("approx and reference need at least one point each.")
    return approx, reference


def igd_plus(approx: Float[Array, "M O"], reference: Float[Array, "K O"]) -> float:
    """Inverted generational distance plus: mean shortfall from the reference set.

    `mean_r min_a || max(r - a, 0) ||`, zero if `approx` weakly dominates `reference`.

    Args:
        approx: M points that were found, maximised.
        reference: K points they are judged by, in the same objectives and units.

    Returns:
        A distance over all objectives at once: give them one scale. NaN if a point has one.

    Raises:
        DataError: (a ValueError) if a set is empty or the objectives disagree.

    Reference:
        Ishibuchi et al. (2015).
    """
    approx, reference = _check_pair(approx, reference)
    short = jnp.maximum(reference[:, None, :] - approx[None, :, :], 0.0)
    nearest = jnp.min(jnp.sum(short**2, axis=-1), axis=1)
    is_met = nearest == 0.0  # not `> 0`, which would make no shortfall of a missing one
    distance = jnp.where(is_met, 0.0, jnp.sqrt(jnp.where(is_met, 1.0, nearest)))
    return as_number(jnp.mean(distance))


def epsilon_indicator(approx: Float[Array, "M O"], reference: Float[Array, "K O"]) -> float:
    """Additive epsilon: the least shift of `approx` that makes it dominate `reference`.

    `max_r min_a max_k (r_k - a_k)`; negative if it dominates with room to spare.

    Args:
        approx: M points that were found, maximised.
        reference: K points they are judged by, in the same objectives and units.

    Returns:
        One shift for all objectives: give them one scale. NaN if a point has one.

    Raises:
        DataError: (a ValueError) if a set is empty or the objectives disagree.

    Reference:
        Zitzler et al. (2003).
    """
    approx, reference = _check_pair(approx, reference)
    worst = jnp.max(reference[:, None, :] - approx[None, :, :], axis=-1)
    return as_number(jnp.max(jnp.min(worst, axis=1)))
