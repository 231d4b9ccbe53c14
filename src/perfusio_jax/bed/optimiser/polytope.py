"""Boxes cut by a few linear inequalities: exact projection, tangent directions, inner points.

The sets are `{z : lower <= z <= upper, A z <= b}` with a handful of rows. With no row the
projection is a clip; with one it is exact (a piecewise linear equation in one multiplier);
with several it is Dykstra's cyclic scheme, closed by a pull towards an inner point so that the
result satisfies every row to rounding.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

from perfusio_jax._core import Array, Bool, ConfigError, Float

_DYKSTRA_SWEEPS = 120


class Polytope(eqx.Module):
    """A box cut by linear inequalities; every array is traced."""

    lower: Float[Array, "d"]
    """Lower bounds, unit of each coordinate."""
    upper: Float[Array, "d"]
    """Upper bounds, not below the lower ones."""
    A: Float[Array, "m d"]
    """Rows of `A z <= b`."""
    b: Float[Array, "m"]
    """Right-hand sides."""
    inner: Float[Array, "d"]
    """A point that keeps every limit, as far inside as possible."""

    def project(self, z: Float[Array, "d"]) -> Float[Array, "d"]:
        """Nearest point that keeps every limit (a feasible point near it for several rows).

        Args:
            z: Any finite point.

        Returns:
            Feasible point; bounds hold exactly, rows to rounding.
        """
        return _pull(self, _project(z, self.lower, self.upper, self.A, self.b))

    def fold(self, z: Float[Array, "d"]) -> Float[Array, "d"]:
        """Bring a point of the box inside the rows, spread over the set rather than its rim.

        A projection would pile up points on faces and corners; a point whose ray from the
        inner point leaves the set at the share `r < 1` of its length goes to `r^2` instead.

        Args:
            z: Point within the bounds.

        Returns:
            Feasible point; `z` itself if it is feasible.
        """
        if self.A.shape[0] == 0:
            return z
        share = 1.0 - _excess_share(self, z)
        return jnp.where(share < 1.0, self.inner + share**2 * (z - self.inner), z)

    def tangent(self, z: Float[Array, "d"], g: Float[Array, "d"]) -> tuple[Array, Array, Array]:
        """Projection of `-g` onto the directions one can go from `z` without leaving.

        Args:
            z: Feasible point.
            g: Gradient of what is minimised.

        Returns:
            The projected direction `(d,)`, zero exactly at a stationary point; which
            coordinates are held at a bound `(d,)`; which rows are held `(m,)`.
        """
        eps = 8.0 * jnp.finfo(z.dtype).eps
        span = self.upper - self.lower
        at_lower = z <= self.lower + eps * span
        at_upper = z >= self.upper - eps * span
        slack = self.b - self.A @ z
        norm = jnp.linalg.norm(self.A, axis=1)
        touching = slack <= 1e2 * eps * jnp.maximum(norm, jnp.abs(self.b))
        low = jnp.where(at_lower, 0.0, -jnp.inf)
        high = jnp.where(at_upper, 0.0, jnp.inf)
        # rows that are not touched cannot hold a short step back
        rows = jnp.where(touching[:, None], self.A, 0.0)
        p = _project(-g, low, high, rows, jnp.zeros_like(self.b))
        size = jnp.maximum(jnp.max(jnp.abs(g)), jnp.finfo(z.dtype).tiny)
        held = (at_lower & (p <= 0.0)) | (at_upper & (p >= 0.0))
        pushing = jnp.abs(rows @ p) <= 1e-9 * norm * size
        held_rows = touching & pushing & ((rows @ -g) > 0.0)
        return jnp.where(held, 0.0, p), held, held_rows

    def settle(self, z: Float[Array, "d"]) -> Float[Array, "d"]:
        """Take away what rounding left of a violation, towards the inner point.

        Args:
            z: Point that keeps every limit but for rounding errors.

        Returns:
            Point that keeps them to rounding of its own units.
        """
        return _pull(self, z)

    def violation(self, z: Float[Array, "d"]) -> Float[Array, ""]:
        """Largest amount by which any limit is exceeded; zero if all are kept."""
        outside = jnp.maximum(self.lower - z, z - self.upper)
        rows = self.A @ z - self.b
        return jnp.maximum(jnp.max(jnp.concatenate([outside, rows])), 0.0)


def face_basis(held: Bool[Array, "d"], rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
    """Orthonormal normals of the held rows within the coordinates that are free.

    Args:
        held: True for coordinates held at a bound.
        rows: Held rows; a row of zeros is no row.

    Returns:
        Unit vectors, or zeros for rows that are not held or depend on earlier ones.
    """
    basis: list[Array] = []
    for j in range(rows.shape[0]):
        row = jnp.where(held, 0.0, rows[j])
        size = jnp.linalg.norm(rows[j])
        for unit in basis:
            row = row - jnp.dot(row, unit) * unit
        norm = jnp.linalg.norm(row)
        is_new = norm > 1e-8 * size
        basis.append(jnp.where(is_new, row / jnp.where(is_new, norm, 1.0), 0.0))
    return jnp.stack(basis) if basis else jnp.zeros_like(rows)


def along_face(
    v: Float[Array, "d"], held: Bool[Array, "d"], basis: Float[Array, "m d"]
) -> Float[Array, "d"]:
    """Part of a vector that moves along held bounds and held rows, not across them.

    Args:
        v: Any vector.
        held: True for coordinates held at a bound.
        basis: Normals of the held rows, from `face_basis`.

    Returns:
        Orthogonal projection of `v` onto the face.
    """
    free = jnp.where(held, 0.0, v)
    return free if basis.shape[0] == 0 else free - (basis @ free) @ basis


def _project(z: Array, lower: Array, upper: Array, A: Array, b: Array) -> Array:
    m = A.shape[0]
    if m == 0:
        return jnp.clip(z, lower, upper)
    if m == 1:
        return _project_one_row(z, lower, upper, A[0], b[0])

    def sweep(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, corrections = carry
        for j in range(m):
            target = x + corrections[j]
            x = _project_one_row(target, lower, upper, A[j], b[j])
            corrections = corrections.at[j].set(target - x)
        return x, corrections

    return jax.lax.fori_loop(0, _DYKSTRA_SWEEPS, sweep, (z, jnp.zeros_like(A)))[0]


def _project_one_row(z: Array, lower: Array, upper: Array, a: Array, b: Array) -> Array:
    """Nearest point of a box that keeps `a z <= b`: `clip(z - t a)` for the right `t >= 0`.

    `a . clip(z - t a)` falls piecewise linearly in `t`; its kinks are known, so the root is
    found by evaluating them all and interpolating in the right piece.
    """
    inside = jnp.clip(z, lower, upper)
    safe = jnp.where(a != 0, a, 1.0)
    kinks = jnp.concatenate([(z - upper) / safe, (z - lower) / safe])
    usable = jnp.concatenate([a != 0, a != 0]) & jnp.isfinite(kinks) & (kinks > 0)
    kinks = jnp.concatenate([jnp.zeros((1,), z.dtype), jnp.where(usable, kinks, 0.0)])
    # the last piece may be unbounded: one more point beyond every kink fixes its slope
    t = jnp.concatenate([kinks, 2.0 * jnp.max(kinks, keepdims=True) + 1.0])
    value = jnp.clip(z[None, :] - t[:, None] * a[None, :], lower[None, :], upper[None, :]) @ a - b
    # between the last kink above zero and the first at or below it the fall is linear
    above = value > 0.0
    start = jnp.argmax(jnp.where(above, t, -1.0))
    end = jnp.argmin(jnp.where(above, jnp.inf, t))
    end = jnp.where(jnp.any(~above), end, t.shape[0] - 1)
    drop = value[start] - value[end]
    share = jnp.where(drop > 0, value[start] / jnp.where(drop > 0, drop, 1.0), 1.0)
    moved = jnp.clip(z - (t[start] + share * (t[end] - t[start])) * a, lower, upper)
    return jnp.where(jnp.dot(a, inside) > b, moved, inside)


def _excess_share(polytope: Polytope, z: Array) -> Array:
    """Share of the way from `z` to the inner point after which every row holds [-]."""
    over = polytope.A @ z - polytope.b
    room = polytope.b - polytope.A @ polytope.inner
    way = jnp.maximum(over + room, jnp.finfo(z.dtype).tiny)
    return jnp.clip(jnp.max(jnp.where(over > 0, over / way, 0.0)), 0.0, 1.0)


def _pull(polytope: Polytope, z: Array) -> Array:
    """Move towards the inner point just far enough that every row holds."""
    if polytope.A.shape[0] == 0:
        return z
    t = _excess_share(polytope, z)
    return jnp.clip(z + t * (polytope.inner - z), polytope.lower, polytope.upper)


def make_polytope(lower: Any, upper: Any, A: Any = None, b: Any = None) -> Polytope:
    """Check limits on the host and find an inner point.

    Args:
        lower: Lower bounds `(d,)`, finite.
        upper: Upper bounds `(d,)`, finite, not below the lower ones; equal means fixed.
        A: Rows `(m,d)` of `A z <= b`, or None.
        b: Right-hand sides `(m,)`.

    Returns:
        The set.

    Raises:
        ConfigError: If shapes disagree, a number is not finite, bounds are inverted, or no
            point keeps every limit.
    """
    low, high = np.asarray(lower, float), np.asarray(upper, float)
    if low.ndim != 1 or low.shape != high.shape or low.size == 0:
        raise ConfigError(
            f"bounds of shapes {low.shape} and {high.shape} were given; give two vectors of the "
            "same length, at least one."
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or (low > high).any():
        bad = [int(i) for i in np.flatnonzero(~(low <= high) | ~np.isfinite(high - low))]
        raise ConfigError(
            f"bounds are not usable at positions {bad}: lower {low[bad]}, upper {high[bad]}; both "
            "must be finite and the lower not above the upper."
        )
    rows = np.zeros((0, low.size)) if A is None else np.atleast_2d(np.asarray(A, float))
    sides = np.zeros(0) if b is None else np.atleast_1d(np.asarray(b, float))
    if rows.shape != (sides.size, low.size):
        raise ConfigError(
            f"linear constraints A {rows.shape} and b {sides.shape} do not fit {low.size} "
            "coordinates; A must be (m, d) and b (m,)."
        )
    if not (np.isfinite(rows).all() and np.isfinite(sides).all()):
        raise ConfigError(
            f"linear constraints A {rows.tolist()}, b {sides.tolist()} were given; every number "
            "must be finite. Leave a row out that limits nothing."
        )
    inner = _inner_point(low, high, rows, sides)
    arrays = (jnp.asarray(v) for v in (low, high, rows, sides, inner))
    return Polytope(*arrays)


def _inner_point(low: np.ndarray, high: np.ndarray, A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Centre of the largest ball in the set, with the middle of the box where it is free."""
    middle = 0.5 * (low + high)
    if A.shape[0] == 0 or (A @ middle < b).all():
        return middle
    norms = np.linalg.norm(A, axis=1)
    objective = np.append(np.zeros(low.size), -1.0)
    box = [*zip(low, high, strict=True), (0.0, None)]
    answer = linprog(objective, A_ub=np.column_stack([A, norms]), b_ub=b, bounds=box)
    if not answer.success:
        raise ConfigError(
            f"no point keeps every limit: lower {low}, upper {high}, rows {A.tolist()}, right-hand "
            f"sides {b.tolist()}. Loosen a bound, a rate limit or a fixed set-point."
        )
    return np.clip(answer.x[:-1], low, high)
