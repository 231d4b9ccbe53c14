"""Batched integration of many runs at once, every lane at its own day, time and step.

A `vmap` of an adaptive solver makes all lanes wait for the slowest at every sample. Here one
loop advances all lanes; a lane that reaches a sample stores it and goes on with the next
interval's set-points in the same pass. What is left to wait for is the longest run.

The result is differentiable in forward and reverse mode: see `tangents`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from perfusio_jax._core import Result
from perfusio_jax.mechanistic.plan import (
    DEFAULT_METHOD,
    FLOOR,
    N_STATE,
    N_TOTALS,
    LaneSolution,
    Method,
    Plan,
    Tolerances,
    apply_events,
    at_day,
    select,
    to_amounts,
    to_concentrations,
)
from perfusio_jax.mechanistic.plant_step import plant_step
from perfusio_jax.mechanistic.reactor import Reactor
from perfusio_jax.mechanistic.tangents import Record, tangents
from perfusio_jax.mechanistic.vector_field import N_PLANT, Parts


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
    record: Record | None


def _is_legal(reactor: Reactor, plan: Plan) -> Bool[Array, " lanes"]:
    """Whether a lane's numbers mean anything; a state may be below zero by a solver's error."""
    floor = jnp.asarray(FLOOR, plan.initial.dtype)[:, None]
    legal = jnp.all(jnp.isfinite(plan.initial) & (plan.initial >= -0.01 * floor), axis=0)
    legal &= plan.initial[N_PLANT] > 0
    legal &= jnp.all(jnp.isfinite(plan.lengths) & (plan.lengths > 0), axis=0)
    for value in plan.inputs:
        legal &= jnp.all(jnp.isfinite(value), axis=0)
    for _, value in reactor.kinetics.items():
        legal &= jnp.isfinite(value)
    legal &= jnp.all((plan.inputs.perfusion >= 0) & (plan.inputs.bleed >= 0), axis=0)
    if reactor.mode == "perfusion" and reactor.perfusion_mode == "vvd":
        legal &= jnp.all(plan.inputs.perfusion >= plan.inputs.bleed, axis=0)
    if plan.removed is not None:
        legal &= jnp.all(jnp.isfinite(plan.removed) & (plan.removed >= 0), axis=0)
    if plan.bolus is not None:
        legal &= jnp.all(jnp.isfinite(plan.bolus) & (plan.bolus >= 0), axis=(0, 1))
    return legal


def _error_norm(error: Parts, y: Parts, y_new: Parts, tol: Tolerances) -> Array:
    """Largest error over its tolerance; NaN stays NaN."""
    norm = jnp.zeros_like(y[0])
    for k in range(N_STATE):
        unit = (FLOOR[k] * tol.atol) * (y[N_PLANT] if k < N_PLANT else 1.0)
        allowed = tol.rtol * (unit + jnp.maximum(jnp.abs(y[k]), jnp.abs(y_new[k])))
        ratio = jnp.abs(error[k]) / allowed
        norm = jnp.where(ratio <= norm, norm, ratio)
    return norm


def _integrate(
    reactor: Reactor, plan: Plan, tol: Tolerances, method: Method, keep_record: bool
) -> tuple[LaneSolution, Record | None]:
    """Run all lanes to their end."""
    dtype = plan.initial.dtype
    n, lanes = plan.lengths.shape[0], plan.initial.shape[1]
    every = jnp.arange(lanes)
    y = to_amounts(plan.initial)
    z = tuple(jnp.zeros(lanes, dtype) for _ in range(N_TOTALS[method.totals]))
    # Samples are stored lane by lane, so that storing one is one short copy.
    states = jnp.full((lanes, n + 1, N_STATE), jnp.nan, dtype).at[:, 0].set(plan.initial.T)
    totals = jnp.full((lanes, n + 1, len(z)), jnp.nan, dtype).at[:, 0].set(0.0)
    code = jnp.where(_is_legal(reactor, plan), Result.SUCCESS.value, Result.BAD_INPUT.value)
    if plan.has_events:
        y = apply_events(plan, jnp.zeros(lanes, int), y)
        code = jnp.where(y[N_PLANT] > 0, code, Result.BAD_INPUT.value)
    smallest = jnp.asarray(1e-9 if dtype == jnp.float64 else 1e-5, dtype)
    exponent = -1.0 / method.tableau.order
    floor = 10.0 * jnp.finfo(dtype).eps
    size = method.record_size(n)

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
        record=Record.empty(size, lanes, dtype) if keep_record else None,
    )

    def is_running(s: _Loop) -> Array:
        return (s.day < n) & (s.code == Result.SUCCESS.value)

    def body(s: _Loop) -> _Loop:
        running = is_running(s)
        inputs = at_day(plan.inputs, s.day)
        length = plan.lengths[jnp.minimum(s.day, n - 1), every]
        left = length - s.time
        ends = s.h >= left * (1.0 - 1e-6)
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
        y_next = select(accepted, out.y, s.y)
        z_next = tuple(
            jnp.where(accepted, v + d, v) for v, d in zip(s.z, out.quadrature, strict=True)
        )
        code, record = s.code, s.record
        if record is not None:
            overflow = accepted & (record.count >= size)
            code = jnp.where(overflow, Result.MAX_STEPS.value, code)
            record = record.add(accepted, s.y, jnp.where(ends, -h, h))
        day = s.day + done
        row = jnp.where(done, day, n + 1)
        states = s.states.at[every, row].set(to_concentrations(y_next).T, mode="drop")
        totals = s.totals
        if z_next:
            totals = totals.at[every, row].set(jnp.stack(z_next, axis=-1), mode="drop")
        if plan.has_events:
            begins = done & (day < n)
            y_next = select(begins, apply_events(plan, jnp.minimum(day, n - 1), y_next), y_next)
            code = jnp.where(begins & ~(y_next[N_PLANT] > 0), Result.BAD_INPUT.value, code)
        tries = jnp.where(done, 0, s.tries + running)
        stuck = running & ~accepted & (h <= jnp.maximum(smallest, floor * s.time))
        code = jnp.where(stuck & finite, Result.STEP_TOO_SMALL.value, code)
        code = jnp.where(stuck & ~finite, Result.NONFINITE.value, code)
        spent = running & (code == Result.SUCCESS.value) & (tries >= method.max_steps)
        code = jnp.where(spent, Result.MAX_STEPS.value, code)
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
            record=record,
        )

    end = jax.lax.while_loop(lambda s: jnp.any(is_running(s)), body, start)
    ok = (end.code == Result.SUCCESS.value)[:, None, None]
    states = end.states.at[:, 1:].set(jnp.where(ok, end.states[:, 1:], jnp.nan))
    totals = end.totals.at[:, 1:].set(jnp.where(ok, end.totals[:, 1:], jnp.nan))
    solution = LaneSolution(
        jnp.moveaxis(states, 0, -1), jnp.moveaxis(totals, 0, -1), end.code, end.n_steps
    )
    return solution, end.record


def integrate_lanes(
    reactor: Reactor, plan: Plan, tolerances: Tolerances, method: Method = DEFAULT_METHOD
) -> LaneSolution:
    """Integrate a batch of runs.

    Pure; works under `jit`, differentiates in forward and reverse mode with respect to every
    constant of the reactor and every entry of the plan but the interval lengths. Where a derivative
    is taken the run is integrated as `Tolerances.for_slopes` says, its values too. A lane that
    fails carries a result code and NaN, and touches no other lane, nor its derivatives.

    Everything is computed in the precision of `plan.initial`.

    Args:
        reactor: Cells and vessel; kinetic constants scalar or one per lane.
        plan: Initial states, interval constants, events.
        tolerances: Accuracy, traced.
        method: Static choices.

    Returns:
        States at every sample, totals if asked for, result codes and step counts.
    """
    dtype = plan.initial.dtype
    reactor, plan, tolerances = jax.tree.map(
        lambda v: jnp.asarray(v, dtype), (reactor, plan, tolerances)
    )

    @jax.custom_jvp
    def run(reactor: Reactor, plan: Plan, tol: Tolerances) -> LaneSolution:
        return _integrate(reactor, plan, tol, method, keep_record=False)[0]

    @run.defjvp
    def run_jvp(primals: tuple, directions: tuple) -> tuple:
        reactor, plan, tol = primals
        fine = tol.for_slopes(dtype)
        solution, record = _integrate(reactor, plan, fine, method, keep_record=True)
        if record is None:
            raise RuntimeError("the forward loop kept no record to differentiate.")
        states, totals = tangents((reactor, plan), directions[:2], solution, record, method)
        zeros = jax.tree.map(
            lambda v: jnp.zeros(v.shape, jax.dtypes.float0), (solution.result, solution.n_steps)
        )
        return solution, LaneSolution(states, totals, *zeros)

    return run(reactor, plan, tolerances)
