"""Projected L-BFGS on a polytope, written so that many starts run as one batch.

Every start runs in a *lane*, a small state machine. One round evaluates value and gradient once
at the trial point of every lane; a lane whose trial is accepted stores the curvature pair and
plans its next step, a lane whose trial is refused shortens it. No lane waits for another's
line search, and nothing is evaluated twice. A lane that has stopped takes the next start from
the queue, so that few lanes serve many starts and none idles while there is work.

Reference:
    Bertsekas (1982), Projected Newton methods for optimization problems with simple
    constraints (two-metric projection); Nocedal, Wright (2006), algorithms 7.4 and 3.1;
    Calamai, Moré (1987) for the projected gradient test on general linear constraints.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Bool, Float, Int, Result, Scalar
from perfusio_jax.bed.optimiser.polytope import Polytope, along_face, face_basis

ARMIJO = 1e-4
"""Share of the predicted decrease that a step must achieve [-]."""
_SHORTEST = 1e-10
"""Largest coordinate change below which a line search is given up [-]."""


class Lane(eqx.Module):
    """State of one start; `z` are normalised coordinates of all candidates of a batch."""

    z: Float[Array, "n"]
    """Current point."""
    f: Scalar
    """Value there, to be minimised."""
    g: Float[Array, "n"]
    """Gradient there."""
    direction: Float[Array, "n"]
    """Search direction from the current point."""
    step: Scalar
    """Length of the trial step along it [-]."""
    trial: Float[Array, "n"]
    """Point to be evaluated next."""
    S: Float[Array, "k n"]
    """Last steps, newest first; zeros where there is none."""
    Y: Float[Array, "k n"]
    """Matching changes of the gradient."""
    first_length: Scalar
    """Largest coordinate change of a step taken without curvature information."""
    quiet: Int[Array, ""]
    """Accepted steps in a row without a decrease that counts."""
    n_steps: Int[Array, ""]
    """Accepted steps."""
    n_evals: Int[Array, ""]
    """Evaluations made."""
    is_done: Bool[Array, ""]
    """Whether the lane has stopped."""
    code: Int[Array, ""]
    """Result code, `Result`."""


class Tolerances(eqx.Module):
    """When a lane stops; traced, so that they can be tuned without a new compile."""

    gradient: Scalar
    """Largest entry of the projected gradient, per unit of value."""
    value: Scalar
    """Relative decrease that counts [-]."""
    scale: Scalar
    """Unit of value: the spread of the values seen before the search."""


Objective = Callable[[Array, Array], tuple[Array, Array]]
"""`(z (q,d), ceiling) -> (value, gradient)`, to be minimised. Where the value is above the
ceiling the trial will be refused, and the gradient is not looked at."""


class Ends(eqx.Module):
    """Where every start ended."""

    z: Float[Array, "R q d"]
    """Points."""
    f: Float[Array, "R"]
    """Values there; infinite where the start was lost."""
    g: Float[Array, "R q d"]
    """Gradients there."""
    code: Int[Array, "R"]
    """Result codes, `Result`."""
    n_steps: Int[Array, "R"]
    """Accepted steps."""
    n_evals: Int[Array, "R"]
    """Evaluations made."""
    n_rounds: Int[Array, ""]
    """Rounds until the last one had stopped."""


def minimise_lanes(
    objective: Objective,
    polytope: Polytope,
    starts: Float[Array, "R q d"],
    *,
    tolerances: Tolerances,
    memory: int = 10,
    max_rounds: int = 200,
    n_lanes: int = 8,
    n_starts: Array | int | None = None,
) -> Ends:
    """Run all starts to the end.

    Args:
        objective: Value and gradient at one batch of candidates `(q,d)`.
        polytope: Limits each candidate keeps; its arrays may have a first axis of length q if
            the candidates' limits differ.
        starts: Feasible starting batches; those in front run first.
        tolerances: When to stop.
        memory: Curvature pairs kept.
        max_rounds: Evaluations of every start at most, the first included.
        n_lanes: Starts evaluated at once. One lane: for objectives that fill the processor by
            themselves.
        n_starts: Only this many starts, from the first, are run; traced. The others' ends hold
            zeros and an infinite value.

    Returns:
        The ends, in the order of the starts.
    """
    R, q, d = starts.shape
    last_start = jnp.asarray(R if n_starts is None else n_starts)
    n, W = q * d, min(n_lanes, R)
    geometry = _Geometry(polytope, q, d)
    flat = starts.reshape(R, n)
    k = min(memory, n + 2)

    def fresh(z: Array) -> Lane:
        zero = jnp.zeros((), z.dtype)
        none = jnp.zeros((), int)
        return Lane(
            z=z,
            f=zero + jnp.inf,
            g=jnp.zeros_like(z),
            direction=jnp.zeros_like(z),
            step=zero,
            trial=z,
            S=jnp.zeros((k, n), z.dtype),
            Y=jnp.zeros((k, n), z.dtype),
            first_length=zero + 0.1,
            quiet=none,
            n_steps=none,
            n_evals=none,
            is_done=jnp.zeros((), bool),
            code=none + Result.MAX_STEPS.value,
        )

    def unfinished(carry: _Carry) -> Array:
        return jnp.any(carry.start < R)

    def one_round(carry: _Carry) -> _Carry:
        lanes = carry.lanes
        points = lanes.trial.reshape(W, q, d)
        value, gradient = _map(objective, (points, jax.vmap(_ceiling)(lanes)), W)
        lanes = _map(
            lambda lane, f, g: _advance(lane, f, g.reshape(n), geometry, tolerances, max_rounds),
            (lanes, value, gradient),
            W,
        )
        is_new = lanes.is_done & (carry.start < R)
        # row R takes what nobody wants
        row = jnp.where(is_new, carry.start, R)
        numbers = [lanes.f, *(jnp.asarray(v, flat.dtype) for v in (lanes.code, lanes.n_steps))]
        numbers.append(jnp.asarray(lanes.n_evals, flat.dtype))
        packed = jnp.concatenate([lanes.z, lanes.g, jnp.stack(numbers, axis=1)], axis=1)
        order = carry.next + jnp.cumsum(jnp.asarray(is_new, int)) - 1
        order = jnp.where(order < last_start, order, R)
        start = jnp.where(is_new, order, carry.start)
        renewed = jax.vmap(fresh)(flat[jnp.minimum(start, R - 1)])
        return _Carry(
            lanes=jax.tree.map(lambda a, b: _where(is_new, a, b), renewed, lanes),
            start=start,
            next=carry.next + jnp.sum(jnp.asarray(is_new, int)),
            ends=carry.ends.at[row].set(packed),
            n_rounds=carry.n_rounds + 1,
        )

    first = _Carry(
        lanes=jax.vmap(fresh)(flat[:W]),
        start=jnp.where(jnp.arange(W) < last_start, jnp.arange(W), R),
        next=jnp.asarray(W),
        ends=jnp.zeros((R + 1, 2 * n + 4), flat.dtype).at[:, 2 * n].set(jnp.inf),
        n_rounds=jnp.zeros((), int),
    )
    final = jax.lax.while_loop(unfinished, one_round, first)
    ends = final.ends[:R]
    counts = jnp.asarray(ends[:, 2 * n + 1 :], int)
    return Ends(
        z=ends[:, :n].reshape(R, q, d),
        f=ends[:, 2 * n],
        g=ends[:, n : 2 * n].reshape(R, q, d),
        code=counts[:, 0],
        n_steps=counts[:, 1],
        n_evals=counts[:, 2],
        n_rounds=final.n_rounds,
    )


class _Carry(eqx.Module):
    lanes: Lane
    """Leading axis the lanes."""
    start: Int[Array, "W"]
    """Which start a lane runs; R if none is left."""
    next: Int[Array, ""]
    """First start of the queue."""
    ends: Float[Array, "R+1 k"]
    """Point, gradient, value, code, steps, evaluations of the starts that have stopped."""
    n_rounds: Int[Array, ""]
    """Rounds so far."""


def _map(function: Callable[..., Any], args: tuple[Any, ...], n: int) -> Any:
    """`vmap`, or a plain call for one lane: batch rules can be slower than none."""
    if n > 1:
        return jax.vmap(function)(*args)
    result = function(*jax.tree.map(lambda leaf: leaf[0], args))
    return jax.tree.map(lambda leaf: leaf[None], result)


def _where(mask: Array, one: Array, other: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (one.ndim - 1)), one, other)


class _Geometry:
    """The polytope, repeated for every candidate of a batch and flattened."""

    def __init__(self, polytope: Polytope, q: int, d: int):
        self.polytope, self.shape = polytope, (q, d)

    def project(self, flat: Array) -> Array:
        found = self._each(lambda box, z: box.project(z), flat.reshape(self.shape))
        return found.reshape(-1)

    def tangent(self, flat: Array, g: Array) -> tuple[Array, tuple[Array, Array]]:
        """Projected steepest descent, and the face one stays on along it."""

        def one(box: Polytope, z: Array, gradient: Array) -> tuple[Array, Array, Array]:
            p, held, rows = box.tangent(z, gradient)
            return p, held, face_basis(held, jnp.where(rows[:, None], box.A, 0.0))

        p, held, basis = self._each(one, flat.reshape(self.shape), g.reshape(self.shape))
        return p.reshape(-1), (held, basis)

    def _each(self, function: Callable[..., Any], *args: Array) -> Any:
        axis = 0 if self.polytope.lower.ndim == 2 else None
        return jax.vmap(function, in_axes=(axis, *(0 for _ in args)))(self.polytope, *args)

    def along(self, flat: Array, face: tuple[Array, Array]) -> Array:
        return jax.vmap(along_face)(flat.reshape(self.shape), *face).reshape(-1)


def _ceiling(lane: Lane) -> Array:
    """Largest value at the trial point that is accepted: Armijo's condition."""
    # rounding of the value must not refuse a step at the bottom of a flat valley
    slack = 4.0 * jnp.finfo(lane.f.dtype).eps * jnp.abs(lane.f)
    # a step bent by the limits can have a rising slope: it must then at least not go up
    slope = jnp.minimum(jnp.dot(lane.g, lane.trial - lane.z), 0.0)
    return jnp.where(jnp.isinf(lane.f), jnp.inf, lane.f + ARMIJO * slope + slack)


def _advance(
    lane: Lane,
    f: Array,
    g: Array,
    geometry: _Geometry,
    tolerances: Tolerances,
    max_evals: int,
) -> Lane:
    """What one lane does with the value and gradient at its trial point.

    Accepted: move, remember the curvature, plan anew. Refused: shorten the step; if that is
    hopeless forget the curvature and start again along the projected gradient; if there was
    none, stop.
    """
    is_first = jnp.isinf(lane.f)
    is_finite = jnp.isfinite(f) & jnp.all(jnp.isfinite(g))
    moved = lane.trial - lane.z
    slope = jnp.dot(lane.g, moved)
    accepted = is_finite & (f <= _ceiling(lane))

    rise = f - lane.f - slope
    parabola = -0.5 * slope / jnp.where(rise > 0, rise, 1.0)
    factor = jnp.where((rise > 0) & jnp.isfinite(rise), jnp.clip(parabola, 0.1, 0.5), 0.1)
    is_hopeless = ~accepted & (jnp.max(jnp.abs(moved)) * factor <= _SHORTEST)
    had_memory = jnp.any(lane.S != 0)
    is_lost = is_first & ~is_finite
    restart = is_hopeless & had_memory & ~is_lost
    gives_up = is_lost | (is_hopeless & ~had_memory)

    z = jnp.where(accepted, lane.trial, lane.z)
    value = jnp.where(accepted, f, lane.f)
    gradient = jnp.where(accepted, g, lane.g)
    S, Y, is_useful = _remember(lane, moved, g, accepted & ~is_first, restart)
    # without curvature plain steps grow while they succeed; after a restart they are small
    grown = jnp.where(accepted & ~is_first & ~is_useful, 2.0, 1.0) * lane.first_length
    first_length = jnp.where(restart, 1e-3, jnp.minimum(grown, 1.0))

    steepest, face = geometry.tangent(z, gradient)
    planned, has_curvature = _direction(steepest, S, Y, face, geometry)
    size = jnp.max(jnp.abs(planned))
    full_step = jnp.where(has_curvature, 1.0, first_length / jnp.where(size > 0, size, 1.0))
    is_new = accepted | restart
    direction = jnp.where(is_new, planned, lane.direction)
    step = jnp.where(is_new, full_step, lane.step * factor)

    drop = jnp.where(is_first, jnp.inf, lane.f - f)
    counts = drop > tolerances.value * jnp.maximum(jnp.abs(f), 1e-3 * tolerances.scale)
    quiet = jnp.where(accepted, jnp.where(counts, 0, lane.quiet + 1), lane.quiet)
    is_flat = jnp.max(jnp.abs(steepest)) <= tolerances.gradient * tolerances.scale
    has_converged = accepted & (is_flat | (quiet >= 2))
    failure = jnp.where(is_lost, Result.NONFINITE.value, Result.STEP_TOO_SMALL.value)
    code = jnp.where(has_converged, Result.SUCCESS.value, jnp.where(gives_up, failure, lane.code))
    new = Lane(
        z=z,
        f=value,
        g=gradient,
        direction=direction,
        step=step,
        trial=geometry.project(z + step * direction),
        S=S,
        Y=Y,
        first_length=first_length,
        quiet=quiet,
        n_steps=lane.n_steps + jnp.where(accepted & ~is_first, 1, 0),
        n_evals=lane.n_evals + 1,
        is_done=has_converged | gives_up | (lane.n_evals + 1 >= max_evals),
        code=code,
    )
    return jax.tree.map(lambda a, b: jnp.where(lane.is_done, a, b), lane, new)


def _remember(
    lane: Lane, moved: Array, g: Array, accepted: Array, restart: Array
) -> tuple[Array, Array, Array]:
    """Curvature pairs after an accepted step, and whether the newest one is of use."""
    change = g - lane.g
    size = jnp.linalg.norm(moved) * jnp.linalg.norm(change)
    is_useful = accepted & (jnp.dot(moved, change) > 1e-10 * size)
    S = jnp.where(is_useful, jnp.roll(lane.S, 1, axis=0).at[0].set(moved), lane.S)
    Y = jnp.where(is_useful, jnp.roll(lane.Y, 1, axis=0).at[0].set(change), lane.Y)
    return jnp.where(restart, 0.0, S), jnp.where(restart, 0.0, Y), is_useful


def _direction(
    steepest: Array, S: Array, Y: Array, face: tuple[Array, Array], geometry: _Geometry
) -> tuple[Array, Array]:
    """L-BFGS direction within the current face, or the projected steepest descent."""
    # pairs are seen along the face only; one that has no curvature there is left out
    s = jax.vmap(lambda v: geometry.along(v, face))(S)
    y = jax.vmap(lambda v: geometry.along(v, face))(Y)
    sy, ss, yy = jnp.sum(s * y, axis=1), jnp.sum(s * s, axis=1), jnp.sum(y * y, axis=1)
    usable = sy > 1e-10 * jnp.sqrt(ss * yy)
    rho = jnp.where(usable, 1.0 / jnp.where(usable, sy, 1.0), 0.0)
    has_curvature = jnp.any(usable)
    newest = jnp.argmax(usable)
    gamma = jnp.where(has_curvature, sy[newest] / jnp.where(has_curvature, yy[newest], 1.0), 1.0)

    def newest_first(r: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        s_i, y_i, rho_i = pair
        alpha = rho_i * jnp.dot(s_i, r)
        return r - alpha * y_i, alpha

    def oldest_first(r: Array, pair: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        s_i, y_i, rho_i, alpha = pair
        return r + (alpha - rho_i * jnp.dot(y_i, r)) * s_i, None

    r, alphas = jax.lax.scan(newest_first, geometry.along(steepest, face), (s, y, rho))
    r, _ = jax.lax.scan(oldest_first, gamma * r, (s, y, rho, alphas), reverse=True)
    r = geometry.along(r, face)
    descends = jnp.dot(r, steepest) > 1e-12 * jnp.linalg.norm(r) * jnp.linalg.norm(steepest)
    is_good = has_curvature & descends & jnp.all(jnp.isfinite(r))
    return jnp.where(is_good, r, steepest), is_good
