"""One interval of any vector field, by a Rosenbrock method with steps that adapt.

The Jacobian is taken in forward mode and factorised densely: a described culture has a dozen states
and no pattern that is known beforehand. The field does not depend on time; what it depends on is
handed to it, so that derivatives go through it in both directions. They replay the accepted steps
with their sizes held, as those of the CHO plant do.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from perfusio_jax._core import Result, Scalar
from perfusio_jax.mechanistic.rosenbrock import RODAS4, Tableau

Field = Callable[[Array, Any], Array]
"""Right-hand side `f(y, inputs)`, shape `(n,)` like `y`."""

_SMALLEST_RISE = 1e-6
"""Error over its tolerance below which a step does not grow more [-]."""
_BLOCK = 16
"""Steps that a derivative replays or passes over at once: most intervals take few of those there
may be."""


class Accuracy(NamedTuple):
    """What a step may be wrong by, and what it may not fall below."""

    rtol: Scalar
    """Local error in parts of a state's value [-]."""
    atol: Float[Array, " n"]
    """Local error of a state at zero [its unit]."""
    lowest: Float[Array, " n"]
    """A step that ends below is taken again, shorter [unit of the state]; -inf for no bound."""


class Ended(NamedTuple):
    """Where an interval ended."""

    y: Float[Array, " n"]
    """State at the end; where it stopped if it did not get there."""
    result: Int[Array, ""]
    """Result code."""
    n_steps: Int[Array, ""]
    """Steps tried."""


class _Loop(NamedTuple):
    y: Array
    time: Array
    h: Array
    code: Array
    tries: Array
    n: Array
    starts: Array
    steps: Array


def _step(tableau: Tableau, field: Field, y: Array, h: Array, inputs: Any) -> tuple[Array, Array]:
    """State after a step and its error; the stages of `rosenbrock_step` in a loop.

    Written out, they repeat the field six times; with nine states that takes half as long again to
    compile and to run.
    """
    n = tableau.n_stages
    jacobian = jax.jacfwd(field)(y, inputs)
    eye = jnp.eye(y.size, dtype=y.dtype)
    matrix = eye / (h * tableau.gamma) - jacobian
    factors = jax.scipy.linalg.lu_factor(jax.lax.stop_gradient(matrix))

    def solved(rhs: Array) -> Array:
        # a derivative solves once more with the factors it has, and does not go through them
        return jax.lax.custom_linear_solve(
            lambda x: matrix @ x,
            rhs,
            lambda _, b: jax.scipy.linalg.lu_solve(factors, b),
            lambda _, b: jax.scipy.linalg.lu_solve(factors, b, trans=1),
        )

    def stage(known: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
        a, c, place = row
        argument = y + a @ known
        rhs = field(argument, inputs) + (c @ known) / h
        return known.at[place].set(solved(rhs)), None

    a, c = (jnp.asarray(_square(rows), y.dtype) for rows in (tableau.a, tableau.c))
    found, _ = jax.lax.scan(stage, jnp.zeros((n, y.size), y.dtype), (a, c, jnp.arange(n)))
    # stiffly accurate: the last argument is the embedded solution, the last stage its error
    return y + a[-1] @ found + found[-1], found[-1]


@jax.custom_batching.custom_vmap
def _in_any_lane(wanted: Array) -> Array:
    """Whether it is wanted; of a batch, by any lane, so that what none wants is passed over.

    A condition that differs by lane would have both its branches computed for all of them.
    """
    return wanted


@_in_any_lane.def_vmap
def _over_lanes(axis_size: int, in_batched: Sequence[bool], wanted: Array) -> tuple[Array, bool]:
    return jnp.any(wanted, axis=0) if in_batched[0] else wanted, False


def _square(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Coefficients of all stages, zero where a stage does not know a later one."""
    return np.array([[*row, *([0.0] * (len(rows) - len(row)))] for row in rows])


def _run(
    field: Field,
    y: Array,
    length: Array,
    inputs: Any,
    accuracy: Accuracy,
    *,
    max_steps: int,
    tableau: Tableau,
) -> _Loop:
    eps = jnp.finfo(y.dtype).eps
    smallest = jnp.maximum(1e-12, 16.0 * eps) * length  # time still moves on
    is_legal = jnp.all(jnp.isfinite(y)) & jnp.isfinite(length) & (length > 0.0)
    start = _Loop(
        y=y,
        time=jnp.zeros((), y.dtype),
        h=1e-3 * length,
        code=jnp.where(is_legal, Result.SUCCESS.value, Result.BAD_INPUT.value),
        tries=jnp.zeros((), int),
        n=jnp.zeros((), int),
        starts=jnp.zeros((max_steps, y.size), y.dtype),
        steps=jnp.zeros(max_steps, y.dtype),
    )

    def is_running(s: _Loop) -> Array:
        return (s.time < length) & (s.code == Result.SUCCESS.value)

    def body(s: _Loop) -> _Loop:
        # of a batch, a lane that has ended is left as it is here: a loop that asks each lane
        # copies all that it carries at every turn
        running = is_running(s)
        left = length - s.time
        ends = s.h >= left * (1.0 - 1e-6)
        # the last two steps share what is left, so that no sliver remains
        h = jnp.where(ends, left, jnp.where(s.h > 0.6 * left, 0.5 * left, s.h))
        new, error = _step(tableau, field, s.y, h, inputs)
        allowed = accuracy.atol + accuracy.rtol * jnp.maximum(jnp.abs(s.y), jnp.abs(new))
        norm = jnp.max(jnp.abs(error) / allowed)
        finite = jnp.isfinite(norm)
        above = jnp.all(new >= accuracy.lowest)
        accepted = running & finite & (norm <= 1.0) & above
        growth = 0.9 * jnp.maximum(norm, _SMALLEST_RISE) ** (-1.0 / tableau.order)
        growth = jnp.where(finite, jnp.clip(growth, 0.2, 6.0), 0.1)
        growth = jnp.where(above, growth, jnp.minimum(growth, 0.3))
        stuck = running & ~accepted & (h <= smallest)
        code = jnp.where(stuck & finite, Result.STEP_TOO_SMALL.value, s.code)
        code = jnp.where(stuck & ~finite, Result.NONFINITE.value, code)
        n = s.n + accepted
        time = jnp.where(accepted, jnp.where(ends, length, s.time + h), s.time)
        spent = (code == Result.SUCCESS.value) & (time < length)
        tries = s.tries + running
        spent &= (n >= max_steps) | (tries >= 4 * max_steps)
        place = jnp.where(accepted, s.n, max_steps)
        return _Loop(
            y=jnp.where(accepted, new, s.y),
            time=time,
            h=jnp.where(running, jnp.maximum(h * growth, smallest), s.h),
            code=jnp.where(spent, Result.MAX_STEPS.value, code),
            tries=tries,
            n=n,
            starts=s.starts.at[place].set(s.y, mode="drop"),
            steps=s.steps.at[place].set(h, mode="drop"),
        )

    return jax.lax.while_loop(lambda s: _in_any_lane(is_running(s)), body, start)


def advance_field(
    field: Field,
    y: Float[Array, " n"],
    length: Scalar,
    inputs: Any,
    accuracy: Accuracy,
    *,
    max_steps: int = 512,
    tableau: Tableau = RODAS4,
    forward_only: bool = False,
) -> Ended:
    """Take a state over one interval.

    Pure; for `jit`, `vmap` and derivatives in both directions by `y`, `length` and `inputs`.

    Args:
        field: Right-hand side [unit/h]; closes over nothing that is traced.
        y: State at the start.
        length: Length of the interval [h], above zero.
        inputs: Arrays the field depends on, any tree.
        accuracy: What a step may be wrong by.
        max_steps: Most accepted steps.
        tableau: The method.
        forward_only: Whether derivatives are taken in forward mode alone. Of a batch they then
            replay as many steps as its longest took, instead of all there may be.

    Returns:
        Where it ended. The result code is STEP_TOO_SMALL where the step size collapsed, which it
        does at a rate that takes what is not there any more; MAX_STEPS, NONFINITE or BAD_INPUT.
    """

    @jax.custom_jvp
    def run(y: Array, length: Array, inputs: Any, accuracy: Accuracy) -> Ended:
        end = _run(field, y, length, inputs, accuracy, max_steps=max_steps, tableau=tableau)
        return Ended(end.y, end.code, end.tries)

    @run.defjvp
    def run_jvp(primals: tuple, tangents: tuple) -> tuple[Ended, Ended]:
        y, length, inputs, accuracy = primals
        d_y, d_length, d_inputs, _ = tangents
        end = _run(field, y, length, inputs, accuracy, max_steps=max_steps, tableau=tableau)

        def replay(d: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
            start, h, is_taken = step

            def moved(d: Array) -> Array:
                def one(y: Array, inputs: Any) -> Array:
                    return _step(tableau, field, y, h, inputs)[0]

                return jax.jvp(one, (start, inputs), (d, d_inputs))[1]

            return jax.lax.cond(is_taken, moved, lambda d: d, d), None

        # steps that were not taken repeat the last state with a harmless size
        size = -(-max_steps // _BLOCK) * _BLOCK
        spare = size - max_steps
        is_taken = jnp.arange(size) < end.n
        starts = jnp.where(is_taken[:, None], jnp.pad(end.starts, ((0, spare), (0, 0))), y[None])
        steps = jnp.where(is_taken, jnp.pad(end.steps, (0, spare)), 1e-3 * length)

        if forward_only:

            def next_step(k: Array, d: Array) -> Array:
                return replay(d, (starts[k], steps[k], is_taken[k]))[0]

            d_end = jax.lax.fori_loop(0, end.n, next_step, d_y)
            return ended(end, d_end + field(end.y, inputs) * d_length)

        def replay_block(d: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
            def moved(d: Array) -> Array:
                return jax.lax.scan(replay, d, block)[0]

            return jax.lax.cond(_in_any_lane(block[2][0]), moved, lambda d: d, d), None

        starts, steps, is_taken = (
            v.reshape(-1, _BLOCK, *v.shape[1:]) for v in (starts, steps, is_taken)
        )
        d_end, _ = jax.lax.scan(replay_block, d_y, (starts, steps, is_taken))
        return ended(end, d_end + field(end.y, inputs) * d_length)

    def ended(end: _Loop, d_y: Array) -> tuple[Ended, Ended]:
        nothing = (
            jnp.zeros(end.code.shape, jax.dtypes.float0),
            jnp.zeros(end.tries.shape, jax.dtypes.float0),
        )
        return Ended(end.y, end.code, end.tries), Ended(d_y, *nothing)

    def in_precision(value: Any) -> Array:
        value = jnp.asarray(value)
        is_real = jnp.issubdtype(value.dtype, jnp.floating)
        return jnp.asarray(value, y.dtype) if is_real else value

    return run(y, *jax.tree.map(in_precision, (length, inputs, accuracy)))
