"""Set-points in coordinates from 0 to 1 of their limits, and back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Float
from perfusio_jax.bed.optimiser.polytope import Polytope


def normalise(box: Polytope) -> tuple[Polytope, Callable[[Array], Array]]:
    """The same limits in coordinates from 0 to 1, and the way back.

    Args:
        box: Limits, unit of the set-points; one for all candidates of a batch, or one each.

    Returns:
        Limits of the unit cube, and what brings a batch `(q,d)` back to the unit of the set-points.
    """

    def one(box: Polytope) -> Polytope:
        width = box.upper - box.lower
        safe = jnp.where(width > 0, width, 1.0)
        A = box.A * width[None, :]
        norm = jnp.linalg.norm(A, axis=1)
        norm = jnp.where(norm > 0, norm, 1.0)
        return Polytope(
            lower=jnp.zeros_like(width),
            upper=jnp.ones_like(width),
            A=A / norm[:, None],
            b=(box.b - box.A @ box.lower) / norm,
            inner=jnp.where(width > 0, (box.inner - box.lower) / safe, 0.5),
        )

    def to_physical(z: Array) -> Array:
        low, high = (v if v.ndim == 2 else v[None, :] for v in (box.lower, box.upper))
        return jnp.clip(low + z * (high - low), low, high)

    return (jax.vmap(one)(box) if box.lower.ndim == 2 else one(box)), to_physical


def to_unit(box: Polytope, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Set-points in coordinates from 0 to 1 of the box; fixed ones in the middle.

    Args:
        box: Limits.
        x: Set-points.

    Returns:
        Normalised coordinates, not clipped.
    """
    width = box.upper - box.lower
    shape = (1,) * (x.ndim - 1) + (-1,)
    safe = jnp.where(width > 0, width, 1.0).reshape(shape)
    inside = (x - box.lower.reshape(shape)) / safe
    return jnp.where((width > 0).reshape(shape), inside, 0.5)


def raw_points(box: Polytope, raw: Float[Array, "N q d"]) -> Float[Array, "N q d"]:
    """Points of the unit cube as feasible set-points.

    Args:
        box: Limits.
        raw: Points of the unit cube.

    Returns:
        Candidates in their own units.
    """
    unit, to_physical = normalise(box)
    return jax.vmap(to_physical)(jax.vmap(jax.vmap(unit.fold))(raw))


def per_candidate(limits: Polytope) -> Callable[..., Any]:
    """Maps a function of limits and candidates over the candidates of a batch.

    Args:
        limits: One for all candidates of a batch, or one each.

    Returns:
        What takes a function of one candidate's limits and makes one of a batch of it.
    """
    axis = 0 if limits.lower.ndim == 2 else None

    def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: jax.vmap(function, in_axes=(axis, *(0 for _ in args)))(limits, *args)

    return mapped
