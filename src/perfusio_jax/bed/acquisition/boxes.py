"""The region no known point dominates, cut into boxes.

Two and three objectives, all maximised, in pure JAX with fixed shapes: `n` points give `n + 1`
boxes for two objectives and `(n + 1)^2` for three, some of them empty. One or two points may
have any number of objectives: `m^n` boxes. Dominated points and
points that do not reach the reference need no filtering; padding with the reference point
leaves the region unchanged. `compact` drops places that no sample uses.

Reference:
    Lacour, Klamroth, Fonseca (2017), A box decomposition algorithm to compute the hypervolume
    indicator; here the plain sweep, which has static shapes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from perfusio_jax._core import Array, ConfigError, Float

FEW = 2
"""Points that may have any number of objectives."""


class BoxDecomposition(eqx.Module):
    """Disjoint boxes covering everything above the reference that no point dominates."""

    lower: Float[Array, "*S C m"]
    """Lower corners, unit of the objectives."""
    upper: Float[Array, "*S C m"]
    """Upper corners; infinite on the open side."""


def nondominated_boxes(Y: Float[Array, "n m"], ref_point: Float[Array, "m"]) -> BoxDecomposition:
    """Cut the non-dominated region above a reference point into boxes.

    Args:
        Y: Known points, one per row, higher is better; `-inf` or the reference point as padding.
        ref_point: Reference point.

    Returns:
        Boxes; `n + 1` of them for two objectives, `(n + 1)^2` for three, `m^n` for more.

    Raises:
        ConfigError: If there are not two or three objectives, and more than `FEW` points.
    """
    m = ref_point.shape[0]
    if m > 3 and Y.shape[0] <= FEW and Y.shape[-1] == m:
        return few_boxes(Y, ref_point)
    if m not in (2, 3) or Y.shape[-1] != m:
        raise ConfigError(
            f"boxes of {m} objectives were asked for, with points of shape {Y.shape}; the exact "
            f"decomposition is for 2 or 3 objectives, or for {FEW} points at most. Use qNParEGO."
        )
    if m == 2:
        return _boxes2(Y, ref_point)
    Y = _undominated(Y, ref_point)
    order = jnp.argsort(Y[:, 2])
    Y = Y[order]
    # slab k lies between the k-th and the (k+1)-th level of the third objective; only points
    # from there upwards dominate anything in it
    levels = jnp.concatenate([ref_point[2:], Y[:, 2], jnp.full((1,), jnp.inf, Y.dtype)])
    n = Y.shape[0]

    def slab(k: Array) -> tuple[Array, Array]:
        alive = jnp.arange(n) >= k
        plane = jnp.where(alive[:, None], Y[:, :2], ref_point[None, :2])
        boxes = _boxes2(plane, ref_point[:2])
        size = (n + 1, 1)
        bottom = jnp.broadcast_to(levels[k], size)
        top = jnp.broadcast_to(levels[k + 1], size)
        return (
            jnp.concatenate([boxes.lower, bottom], axis=1),
            jnp.concatenate([boxes.upper, top], axis=1),
        )

    lower, upper = jax.vmap(slab)(jnp.arange(n + 1))
    return BoxDecomposition(lower.reshape(-1, 3), upper.reshape(-1, 3))


def few_boxes(Y: Float[Array, "n m"], ref_point: Float[Array, "m"]) -> BoxDecomposition:
    """The same region for one or two points and any number of objectives.

    What a point leaves is split by the first objective in which a vector is better than it. Every
    piece is a box, and so is what two of them have in common.

    Args:
        Y: Known points, higher is better; at or below the reference as padding.
        ref_point: Reference point.

    Returns:
        `m^n` disjoint boxes, some of them empty.

    Raises:
        ConfigError: If there are more than `FEW` points.
    """
    n, m = Y.shape
    if n > FEW:
        raise ConfigError(
            f"{n} points were given; the split by objectives grows like m^n and is for {FEW} at "
            "most. Use `nondominated_boxes`, or qNParEGO."
        )
    lower = ref_point.reshape(1, m)
    upper = jnp.full((1, m), jnp.inf, Y.dtype)
    below, at = np.tri(m, k=-1, dtype=bool), np.eye(m, dtype=bool)
    for point in Y:
        # a point that does not reach the reference leaves everything
        edge = jnp.maximum(point, ref_point)[None, :]
        low = jnp.where(at, edge, ref_point[None, :])
        high = jnp.where(below, edge, jnp.inf)
        lower = jnp.maximum(lower[:, None, :], low[None]).reshape(-1, m)
        upper = jnp.minimum(upper[:, None, :], high[None]).reshape(-1, m)
    return BoxDecomposition(lower, upper)


def _boxes2(Y: Array, ref_point: Array) -> BoxDecomposition:
    """Vertical strips between successive first objectives, open above the staircase."""
    Y = _undominated(Y, ref_point)
    order = jnp.argsort(Y[:, 0])
    first, second = Y[order, 0], Y[order, 1]
    # the staircase in strip i is the best second objective among points at least that far right
    stair = jax.lax.cummax(second, reverse=True)
    open_end = jnp.full((1,), jnp.inf, Y.dtype)
    left = jnp.concatenate([ref_point[:1], first])
    right = jnp.concatenate([first, open_end])
    floor = jnp.concatenate([stair, ref_point[1:]])
    ceiling = jnp.full_like(floor, jnp.inf)
    return BoxDecomposition(jnp.stack([left, floor], axis=1), jnp.stack([right, ceiling], axis=1))


def _undominated(Y: Array, ref_point: Array) -> Array:
    """The points, with those that bound nothing moved to the reference."""
    nowhere_worse = jnp.all(Y[None, :, :] >= Y[:, None, :], axis=-1)
    somewhere_better = jnp.any(Y[None, :, :] > Y[:, None, :], axis=-1)
    useless = jnp.any(nowhere_worse & somewhere_better, axis=1)
    useless = useless | ~jnp.all(Y > ref_point[None, :], axis=1)
    return jnp.where(useless[:, None], ref_point[None, :], Y)


def compact(boxes: BoxDecomposition) -> BoxDecomposition:
    """Drop boxes that are empty in every sample, on the host.

    The number kept is rounded up to a size of a short ladder, so that another front of about
    the same length has the same shape.

    Args:
        boxes: One decomposition, or one per sample `(S,C,m)`.

    Returns:
        The same region in fewer boxes; as given inside a transformation, where sizes are fixed.
    """
    if isinstance(boxes.lower, Tracer):
        return boxes
    lower, upper = np.asarray(boxes.lower), np.asarray(boxes.upper)
    is_empty = (upper <= lower).any(axis=-1)
    n_used = int((~is_empty).sum(axis=-1).max())
    total = lower.shape[-2]
    ladder = [k * 2**e for e in range(2, 30) for k in (1, 1.5)]
    kept = min(total, int(next(size for size in ladder if size >= n_used)))
    order = np.argsort(is_empty, axis=-1, kind="stable")[..., :kept, None]
    return BoxDecomposition(
        jnp.asarray(np.take_along_axis(lower, order, axis=-2)),
        jnp.asarray(np.take_along_axis(upper, order, axis=-2)),
    )
