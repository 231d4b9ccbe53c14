"""Projected L-BFGS on a polytope, written so that many starts run as one batch.

Every start is a *lane*, a small state machine. One round evaluates value and gradient once at
the trial point of every lane; a lane whose trial is accepted stores the curvature pair and
plans its next step, a lane whose trial is refused shortens it. No lane waits for another's
line search, and nothing is evaluated twice.

Reference:
    Bertsekas (1982), Projected Newton methods for optimization problems with simple
    constraints (two-metric projection); Nocedal, Wright (2006), algorithms 7.4 and 3.1;
    Calamai, Moré (1987) for the projected gradient test on general linear constraints.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Bool, Float, Int, Result, Scalar
from perfusio_jax.bed.polytope import Polytope, along_face, face_basis

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


def minimise_lanes(
    objective: Objective,
    polytope: Polytope,
    starts: Float[Array, "R q d"],
    *,
    tolerances: Tolerances,
    memory: int = 10,
    max_rounds: int = 200,
    is_sequential: bool = False,
) -> tuple[Lane, Int[Array, ""], Int[Array, ""]]:
    """Run all starts to the end.

    Args:
        objective: Value and gradient at one batch of candidates `(q,d)`.
        polytope: Limits each candidate keeps.
        starts: Feasible starting batches.
        tolerances: When to stop.
        memory: Curvature pairs kept.
        max_rounds: Evaluations of every lane, the first included.
        is_sequential: Evaluate lanes one after the other and skip those that have stopped,
            instead of all at once: for objectives that fill the processor by themselves.

    Returns:
        Final lanes (leading axis R), the number of rounds, and of evaluations made.
    """
    R, q, d = starts.shape
    geometry = _Geometry(polytope, q, d)

    def evaluate(lanes: Lane) -> tuple[Array, Array]:
        points = lanes.trial.reshape(R, q, d)
        ceilings = jax.vmap(_ceiling)(lanes)
        if is_sequential:
            old = (lanes.f, lanes.g.reshape(R, q, d))
            value, gradient = jax.lax.map(
                lambda x: jax.lax.cond(x[0], lambda: x[3], lambda: objective(x[1], x[2])),
                (lanes.is_done, points, ceilings, old),
            )
        else:
            value, gradient = jax.vmap(objective)(points, ceilings)
        return value, gradient.reshape(R, q * d)

    flat = starts.reshape(R, q * d)
    k = min(memory, q * d + 2)
    zero = jnp.zeros((R,), flat.dtype)
    empty = Lane(
        z=flat,
        f=zero + jnp.inf,
        g=jnp.zeros_like(flat),
        direction=jnp.zeros_like(flat),
        step=zero,
        trial=flat,
        S=jnp.zeros((R, k, q * d), flat.dtype),
        Y=jnp.zeros((R, k, q * d), flat.dtype),
        first_length=zero + 0.1,
        quiet=jnp.zeros((R,), int),
        n_steps=jnp.zeros((R,), int),
        is_done=jnp.zeros((R,), bool),
        code=jnp.full((R,), Result.MAX_STEPS.value),
    )

    def unfinished(carry: tuple[Lane, Array, Array]) -> Array:
        lanes, n_rounds, _ = carry
        return (n_rounds < max_rounds) & ~jnp.all(lanes.is_done)

    def one_round(carry: tuple[Lane, Array, Array]) -> tuple[Lane, Array, Array]:
        lanes, n_rounds, n_evals = carry
        value, gradient = evaluate(lanes)
        n_new = jnp.sum(jnp.asarray(~lanes.is_done, int)) if is_sequential else R
        moved = jax.vmap(lambda lane, f, g: _advance(lane, f, g, geometry, tolerances))(
            lanes, value, gradient
        )
        return moved, n_rounds + 1, n_evals + n_new

    zero_count = jnp.zeros((), int)
    return jax.lax.while_loop(unfinished, one_round, (empty, zero_count, zero_count))


class _Geometry:
    """The polytope, repeated for every candidate of a batch and flattened."""

    def __init__(self, polytope: Polytope, q: int, d: int):
        self.polytope, self.shape = polytope, (q, d)

    def project(self, flat: Array) -> Array:
        return jax.vmap(self.polytope.project)(flat.reshape(self.shape)).reshape(-1)

    def tangent(self, flat: Array, g: Array) -> tuple[Array, tuple[Array, Array]]:
        """Projected steepest descent, and the face one stays on along it."""

        def one(z: Array, gradient: Array) -> tuple[Array, Array, Array]:
            p, held, rows = self.polytope.tangent(z, gradient)
            return p, held, face_basis(held, jnp.where(rows[:, None], self.polytope.A, 0.0))

        p, held, basis = jax.vmap(one)(flat.reshape(self.shape), g.reshape(self.shape))
        return p.reshape(-1), (held, basis)

    def along(self, flat: Array, face: tuple[Array, Array]) -> Array:
        return jax.vmap(along_face)(flat.reshape(self.shape), *face).reshape(-1)


def _ceiling(lane: Lane) -> Array:
    """Largest value at the trial point that is accepted: Armijo's condition."""
    # rounding of the value must not refuse a step at the bottom of a flat valley
    slack = 4.0 * jnp.finfo(lane.f.dtype).eps * jnp.abs(lane.f)
    # a step bent by the limits can have a rising slope: it must then at least not go up
    slope = jnp.minimum(jnp.dot(lane.g, lane.trial - lane.z), 0.0)
    return jnp.where(jnp.isinf(lane.f), jnp.inf, lane.f + ARMIJO * slope + slack)


def _advance(lane: Lane, f: Array, g: Array, geometry: _Geometry, tolerances: Tolerances) -> Lane:
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
        is_done=has_converged | gives_up,
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
