"""Batched integration of many runs at once, every lane at its own day, time and step.

A `vmap` of an adaptive solver makes all lanes wait for the slowest at every sample. Here one
loop advances all lanes; a lane that reaches a sample stores it and goes on with the next
interval's set-points in the same pass. What is left to wait for is the longest run.

The result is differentiable in forward and reverse mode: the derivative replays the accepted
steps with their sizes held fixed, which is the derivative of the numbers returned.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perfusio_jax._core import Result
from perfusio_jax.mechanistic.reactor import (
    N_PLANT,
    DayInputs,
    Parts,
    Reactor,
    fluxes,
    vector_field,
)
from perfusio_jax.mechanistic.rosenbrock import (
    RODAS3,
    BlockPattern,
    Stages,
    Tableau,
    block_pattern,
    factorise,
    rosenbrock_step,
)

N_STATE = N_PLANT + 1
N_STREAMS = 4

Totals = Literal["none", "streams", "balance"]
"""What is integrated beside the state: nothing; the volumes of perfusion, bleed, glucose and
harvest [L]; or these after the inflow, outflow and reaction of every species [amount]."""

N_TOTALS: Final[Mapping[Totals, int]] = MappingProxyType(
    {"none": 0, "streams": N_STREAMS, "balance": 3 * N_PLANT + N_STREAMS}
)
"""Columns of the totals by kind."""

_ATOL = (1e-3, 1e-3, 1e-2, 1e-3, 1e-3, 1e-3, 1e-2, 1e-3, 1e-3, 1e-1, 1e-6)


class Tolerances(eqx.Module):
    """Accuracy of the adaptive integrator; all traced, so that a change does not recompile."""

    rtol: Array = eqx.field(converter=lambda v: jnp.asarray(v, float), default=3e-4)
    """Relative tolerance per step [-]."""
    atol: Array = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1.0)
    """Factor on the absolute tolerances, which are about 1e-4 of each species' range [-]."""
    first_step: Array = eqx.field(converter=lambda v: jnp.asarray(v, float), default=0.1)
    """First step tried [h]."""


class Plan(NamedTuple):
    """Runs to integrate; the last axis is always the lane."""

    initial: Float[Array, "11 lanes"]
    """Ten concentrations and the volume at the start."""
    inputs: DayInputs
    """Constants per interval; entries (n_intervals, lanes), or (1, lanes) if they never change."""
    lengths: Float[Array, "n_intervals lanes"]
    """Length of each interval [h]."""
    removed: Float[Array, "n_intervals lanes"]
    """Volume taken as sample at the start of each interval [L]."""
    bolus: Float[Array, "n_intervals 11 lanes"]
    """Amounts and volume added at the start of each interval, after the sample."""


class LaneSolution(NamedTuple):
    """What the integrator returns per lane; a failed lane holds NaN from the failure on."""

    states: Float[Array, "n_samples 11 lanes"]
    """Ten concentrations and the volume [L] at every sample, the start included."""
    totals: Float[Array, "n_samples n_totals lanes"]
    """Cumulative totals since the start, as many rows as the method asks for."""
    result: Int[Array, " lanes"]
    """Result codes."""
    n_steps: Int[Array, " lanes"]
    """Steps tried."""


class Method(NamedTuple):
    """Static choices; one compile for each."""

    tableau: Tableau = RODAS3
    max_steps: int = 96
    """Steps a lane may try per interval."""
    totals: Totals = "none"
    """What to integrate beside the state."""
    events: bool = False
    """Whether samples and boluses change the state at interval starts."""


DEFAULT_METHOD = Method()


@functools.cache
def jacobian_pattern(reactor_type: tuple[str, str]) -> BlockPattern:
    """Structural zeros of the plant's Jacobian for a mode and a perfusion mode."""
    mode, perfusion_mode = reactor_type
    # Rows: Xv Xd Xl Glc Gln Glu Lac Amm Pyr Titer V; what each derivative can depend on.
    depends = {
        0: (0, 3, 4, 6, 7),
        1: (0, 1),
        2: (1, 2),
        3: (0, 3, 4, 6, 7),
        4: (0, 3, 4, 6, 7),
        5: (0, 3, 4, 5, 6, 7),
        6: (0, 3, 4, 6, 7),
        7: (0, 3, 4, 6, 7, 8),
        8: (3, 7, 8),
        9: (0, 3, 4, 6, 7, 9),
        10: (),
    }
    matrix = [[j in depends[i] for j in range(N_STATE)] for i in range(N_STATE)]
    if mode == "chemostat":  # the glucose pump's volume takes cells along
        for i in (1, 2):
            matrix[i][3] = True
    if perfusion_mode == "cspr":
        for i in range(N_PLANT):
            matrix[i][0] = True
    if mode == "fed_batch":
        for i in range(N_STATE):
            matrix[i][10] = True
        matrix[10][3] = True
        if perfusion_mode == "cspr":
            matrix[10][0] = True
    return block_pattern(matrix)


def _quadrature(reactor: Reactor, inputs: DayInputs, y: Parts, kind: Totals) -> Parts:
    flow = fluxes(reactor, inputs, y)
    streams = (flow.perfusion, flow.bleed, flow.glucose, flow.harvest)
    if kind == "streams":
        return streams
    return (*flow.inflow, *flow.outflow, *flow.reaction, *streams)


def plant_step(reactor: Reactor, inputs: DayInputs, y: Parts, h: Array, method: Method) -> Stages:
    """One Rosenbrock step of the plant from amounts `y` over `h` hours."""

    def field(state: Parts) -> Parts:
        return vector_field(reactor, inputs, state)

    pattern = jacobian_pattern((reactor.mode, reactor.perfusion_mode))
    solve = factorise(field, y, 1.0 / (method.tableau.gamma * h), pattern)
    return rosenbrock_step(
        method.tableau,
        lambda _, state: field(state),
        solve,
        y,
        h,
        quadrature=None
        if method.totals == "none"
        else lambda state: _quadrature(reactor, inputs, state, method.totals),
    )


def _to_amounts(c: Float[Array, "11 lanes"]) -> Parts:
    return (*(c[k] * c[N_PLANT] for k in range(N_PLANT)), c[N_PLANT])


def _to_concentrations(y: Parts) -> Float[Array, "11 lanes"]:
    return jnp.stack([*(y[k] / y[N_PLANT] for k in range(N_PLANT)), y[N_PLANT]])


def _at(inputs: DayInputs, day: Array) -> DayInputs:
    """Constants of each lane's own interval."""
    if inputs.perfusion.shape[0] == 1:
        return DayInputs(*(v[0] for v in inputs))
    index = jnp.minimum(day, inputs.perfusion.shape[0] - 1)[None, :]
    return DayInputs(*(jnp.take_along_axis(v, index, axis=0)[0] for v in inputs))


def _apply_events(y: Parts, removed: Array, bolus: Array) -> Parts:
    """Take a well-mixed sample, then add a bolus."""
    keep = 1.0 - removed / y[N_PLANT]
    return tuple(v * keep + bolus[k] for k, v in enumerate(y))


def _select(mask: Array, new: Parts, old: Parts) -> Parts:
    return tuple(jnp.where(mask, a, b) for a, b in zip(new, old, strict=True))


class _Loop(NamedTuple):
    y: Parts
    z: Parts
    day: Array
    time: Array
    h: Array
    tries: Array
    code: Array
    states: Array
    totals: Array
    n_steps: Array
    steps: Array


def _error_norm(error: Parts, y: Parts, y_new: Parts, tol: Tolerances) -> Array:
    """Largest error over its tolerance; NaN stays NaN."""
    dtype = y[0].dtype
    rtol, scale = tol.rtol.astype(dtype), tol.atol.astype(dtype)
    norm = jnp.zeros_like(y[0])
    for k in range(N_STATE):
        unit = _ATOL[k] * (y[N_PLANT] if k < N_PLANT else 1.0)
        allowed = rtol * scale * unit * 10.0 + rtol * jnp.maximum(jnp.abs(y[k]), jnp.abs(y_new[k]))
        ratio = jnp.abs(error[k]) / allowed
        norm = jnp.where(ratio <= norm, norm, ratio)
    return norm


def _integrate(
    reactor: Reactor, plan: Plan, tol: Tolerances, method: Method, record: bool
) -> tuple[LaneSolution, Array]:
    """Run all lanes to their end; `record` keeps the accepted step sizes."""
    dtype = plan.initial.dtype
    n, lanes = plan.lengths.shape[0], plan.initial.shape[1]
    every = jnp.arange(lanes)
    y = _to_amounts(plan.initial)
    z = tuple(jnp.zeros(lanes, dtype) for _ in range(N_TOTALS[method.totals]))
    states = jnp.full((n + 1, N_STATE, lanes), jnp.nan, dtype).at[0].set(plan.initial)
    totals = jnp.full((n + 1, len(z), lanes), jnp.nan, dtype).at[0].set(0.0)
    legal = jnp.all(jnp.isfinite(plan.initial), axis=0) & (plan.initial[N_PLANT] > 0)
    legal &= jnp.all(plan.initial[:N_PLANT] >= 0, axis=0)
    legal &= jnp.all(plan.lengths > 0, axis=0)
    for value in plan.inputs:
        legal &= jnp.all(jnp.isfinite(value), axis=0)
    legal &= jnp.all(plan.inputs.perfusion >= 0, axis=0) & jnp.all(plan.inputs.bleed >= 0, axis=0)
    if reactor.mode == "perfusion" and reactor.perfusion_mode == "vvd":
        legal &= jnp.all(plan.inputs.perfusion >= plan.inputs.bleed, axis=0)
    code = jnp.where(legal, Result.SUCCESS.value, Result.BAD_INPUT.value)
    if method.events:
        y = _apply_events(y, plan.removed[0], plan.bolus[0])
    steps = jnp.zeros((n, method.max_steps if record else 0, lanes), dtype)
    smallest = jnp.asarray(1e-9 if dtype == jnp.float64 else 1e-5, dtype)
    exponent = -1.0 / method.tableau.order
    floor = 10.0 * jnp.finfo(dtype).eps

    start = _Loop(
        y=y,
        z=z,
        day=jnp.zeros(lanes, int),
        time=jnp.zeros(lanes, dtype),
        h=jnp.full(lanes, tol.first_step, dtype),
        tries=jnp.zeros(lanes, int),
        code=code,
        states=states,
        totals=totals,
        n_steps=jnp.zeros(lanes, int),
        steps=steps,
    )

    def is_running(s: _Loop) -> Array:
        return (s.day < n) & (s.code == Result.SUCCESS.value)

    def body(s: _Loop) -> _Loop:
        running = is_running(s)
        inputs = _at(plan.inputs, s.day)
        length = plan.lengths[jnp.minimum(s.day, n - 1), every]
        left = length - s.time
        ends = s.h >= left * (1.0 - 1e-9)
        # The last two steps of an interval share what is left, so that no sliver remains.
        h = jnp.where(ends, left, jnp.where(s.h > 0.6 * left, 0.5 * left, s.h))
        out = plant_step(reactor, inputs, s.y, h, method)
        norm = _error_norm(out.error, s.y, out.y, tol)
        finite = jnp.isfinite(norm)
        accepted = running & finite & (norm <= 1.0)
        growth = jnp.clip(0.9 * jnp.maximum(norm, 1e-6) ** exponent, 0.2, 6.0)
        growth = jnp.where(finite, growth, 0.1)
        proposal = h * growth
        proposal = jnp.where(accepted & ends, jnp.maximum(proposal, s.h), proposal)
        done = accepted & ends
        y_next = _select(accepted, out.y, s.y)
        z_next = tuple(
            jnp.where(accepted, v + d, v) for v, d in zip(s.z, out.quadrature, strict=True)
        )
        day = s.day + done
        row = jnp.where(done, day, n + 1)
        states = s.states.at[row, :, every].set(_to_concentrations(y_next).T, mode="drop")
        totals = s.totals
        if z_next:
            totals = totals.at[row, :, every].set(jnp.stack(z_next).T, mode="drop")
        if method.events:
            index = jnp.minimum(day, n - 1)
            removed = plan.removed[index, every]
            bolus = jnp.moveaxis(plan.bolus[index, :, every], 0, 1)
            begins = done & (day < n)
            y_next = _select(begins, _apply_events(y_next, removed, bolus), y_next)
        tries = jnp.where(done, 0, s.tries + running)
        code = s.code
        stuck = running & ~accepted & (h <= jnp.maximum(smallest, floor * s.time))
        code = jnp.where(stuck & finite, Result.STEP_TOO_SMALL.value, code)
        code = jnp.where(stuck & ~finite, Result.NONFINITE.value, code)
        spent = running & (code == Result.SUCCESS.value) & (tries >= method.max_steps)
        code = jnp.where(spent, Result.MAX_STEPS.value, code)
        steps = s.steps
        if record:
            place = jnp.where(accepted, s.day, n)
            steps = steps.at[place, s.tries, every].set(h, mode="drop")
        return _Loop(
            y=y_next,
            z=z_next,
            day=day,
            time=jnp.where(accepted, jnp.where(done, 0.0, s.time + h), s.time),
            h=jnp.where(running, jnp.clip(proposal, smallest, 1e4), s.h),
            tries=tries,
            code=code,
            states=states,
            totals=totals,
            n_steps=s.n_steps + running,
            steps=steps,
        )

    end = jax.lax.while_loop(lambda s: jnp.any(is_running(s)), body, start)
    ok = end.code == Result.SUCCESS.value
    states = end.states.at[1:].set(jnp.where(ok[None, None, :], end.states[1:], jnp.nan))
    totals = end.totals.at[1:].set(jnp.where(ok[None, None, :], end.totals[1:], jnp.nan))
    return LaneSolution(states, totals, end.code, end.n_steps), end.steps


def _replay(
    reactor: Reactor, plan: Plan, steps: Float[Array, "n max_steps lanes"], method: Method
) -> tuple[Array, Array]:
    """Take the recorded steps again, in a form that differentiates both ways."""
    n = plan.lengths.shape[0]

    @jax.checkpoint
    def one(carry: tuple[Parts, Parts], inputs: DayInputs, h: Array) -> tuple[Parts, Parts]:
        y, z = carry
        taken = h > 0
        out = plant_step(reactor, inputs, y, jnp.where(taken, h, 1.0), method)
        z_new = tuple(v + jnp.where(taken, d, 0.0) for v, d in zip(z, out.quadrature, strict=True))
        return _select(taken, out.y, y), z_new

    def interval(carry: tuple[Parts, Parts], x: tuple) -> tuple:
        inputs, h_all, removed, bolus = x
        y, z = carry
        if method.events:
            y = _apply_events(y, removed, bolus)

        def maybe(c: tuple[Parts, Parts], h: Array) -> tuple:
            return jax.lax.cond(jnp.any(h > 0), lambda: one(c, inputs, h), lambda: c), None

        (y, z), _ = jax.lax.scan(maybe, (y, z), h_all)
        z_row = jnp.stack(z) if z else jnp.zeros((0, plan.initial.shape[1]), plan.initial.dtype)
        return (y, z), (_to_concentrations(y), z_row)

    inputs = DayInputs(*(jnp.broadcast_to(v, (n, v.shape[1])) for v in plan.inputs))
    y = _to_amounts(plan.initial)
    z = tuple(jnp.zeros_like(y[0]) for _ in range(N_TOTALS[method.totals]))
    xs = (inputs, jax.lax.stop_gradient(steps), plan.removed, plan.bolus)
    _, (states, totals) = jax.lax.scan(interval, (y, z), xs)
    first = jnp.zeros((1, len(z), plan.initial.shape[1]), plan.initial.dtype)
    return (
        jnp.concatenate([plan.initial[None], states]),
        jnp.concatenate([first, totals]),
    )


def integrate_lanes(
    reactor: Reactor, plan: Plan, tolerances: Tolerances, method: Method = DEFAULT_METHOD
) -> LaneSolution:
    """Integrate a batch of runs.

    Pure; works under `jit`, differentiates in forward and reverse mode with respect to every
    constant of the reactor and every entry of the plan but the interval lengths. A lane that
    fails carries a result code and NaN, and touches no other lane.

    Args:
        reactor: Cells and vessel; kinetic constants scalar or one per lane.
        plan: Initial states, interval constants, events.
        tolerances: Accuracy, traced.
        method: Static choices.

    Returns:
        States at every sample, totals if asked for, result codes and step counts.
    """

    @jax.custom_jvp
    def run(reactor: Reactor, plan: Plan, tol: Tolerances) -> LaneSolution:
        return _integrate(reactor, plan, tol, method, record=False)[0]

    @run.defjvp
    def run_jvp(primals: tuple, tangents: tuple) -> tuple:
        reactor, plan, tol = primals
        solution, steps = _integrate(reactor, plan, tol, method, record=True)

        def again(reactor: Reactor, plan: Plan) -> tuple[Array, Array]:
            return _replay(reactor, plan, steps, method)

        _, (d_states, d_totals) = jax.jvp(again, (reactor, plan), tangents[:2])
        zeros = jax.tree.map(
            lambda v: jnp.zeros(v.shape, jax.dtypes.float0), (solution.result, solution.n_steps)
        )
        return solution, LaneSolution(d_states, d_totals, *zeros)

    return run(reactor, plan, tolerances)
