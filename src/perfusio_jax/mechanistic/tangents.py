"""Derivatives of a batched integration, in both directions.

The forward loop records where each accepted step began and how long it was. The derivative of
the numbers returned, step sizes held fixed, is then a linear recursion along these steps:

    dy' = (d step / d y) dy + (d step / d p) dp

It is written as a scan over the record, linear in the tangents, so that JAX runs it forwards
or transposes it. A step's inner derivatives are computed again when they are needed and not
stored; no step has to be repeated just to know where the next one begins. A record has room for
many more steps than a run takes: they are gone through in blocks, and empty blocks passed over.
"""

from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perfusio_jax._core import Result
from perfusio_jax.mechanistic.plan import (
    N_STATE,
    N_TOTALS,
    LaneSolution,
    Method,
    Plan,
    apply_events,
    at_day,
    select,
    to_amounts,
)
from perfusio_jax.mechanistic.plant_step import plant_step
from perfusio_jax.mechanistic.reactor import Reactor
from perfusio_jax.mechanistic.vector_field import N_PLANT, DayInputs, Parts


class Record(NamedTuple):
    """Accepted steps of every lane, in order."""

    starts: Float[Array, "lanes size 11"]
    """Amounts and volume where each step began."""
    steps: Float[Array, "lanes size"]
    """Step [h]; negative for one that ends an interval, zero behind the last."""
    count: Int[Array, " lanes"]
    """Accepted steps."""

    @classmethod
    def empty(cls, size: int, lanes: int, dtype: jnp.dtype) -> Self:
        """A record with room for `size` steps per lane."""
        return cls(
            jnp.zeros((lanes, size, N_STATE), dtype),
            jnp.zeros((lanes, size), dtype),
            jnp.zeros(lanes, int),
        )

    def add(self, accepted: Array, y: Parts, signed_step: Array) -> Self:
        """Note a step of the lanes that accepted one; what does not fit is dropped."""
        lanes, size = self.steps.shape
        every, place = jnp.arange(lanes), jnp.where(accepted, self.count, size)
        return type(self)(
            self.starts.at[every, place].set(jnp.stack(y, axis=-1), mode="drop"),
            self.steps.at[every, place].set(signed_step, mode="drop"),
            self.count + accepted,
        )


_BLOCK = 32
"""Steps of a record that are taken, or passed over, together."""


def _in_blocks(value: Array, n: int) -> Array:
    """A leading axis of steps cut into `n` blocks, the last filled up with zeros."""
    filled = jnp.pad(value, [(0, n * _BLOCK - value.shape[0])] + [(0, 0)] * (value.ndim - 1))
    return filled.reshape(n, _BLOCK, *value.shape[1:])


def _neutral(ok: Array, tree: Any) -> Any:
    """Ones in place of what belongs to failed lanes: NaN times zero would spread in reverse."""
    return jax.tree.map(lambda v: jnp.where(ok, v, 1.0) if v.shape[-1:] == ok.shape else v, tree)


def _unknown(ok: Array, d_reactor: Reactor, d_plan: Plan) -> Float[Array, " lanes"]:
    """Zero where a lane is well; else what it depends on, made infinite unless it is zero.

    The division is linear, and its transpose is itself: a cotangent of zero stays zero, any
    other becomes infinite. Twice, because one division by the smallest number is not enough.
    """
    by_lane = [v.reshape(-1, ok.size).sum(axis=0) for v in jax.tree.leaves(d_plan)]
    constants = [v if v.shape == ok.shape else v.sum() for v in jax.tree.leaves(d_reactor)]
    moved = sum([*by_lane, *constants], jnp.zeros(ok.shape, by_lane[0].dtype))
    tiny = jnp.where(ok, 1.0, jnp.finfo(moved.dtype).tiny).astype(moved.dtype)
    return jnp.where(ok, 0.0, moved) / tiny / tiny


def tangents(
    primals: tuple[Reactor, Plan],
    directions: tuple[Reactor, Plan],
    solution: LaneSolution,
    record: Record,
    method: Method,
) -> tuple[Float[Array, "samples 11 lanes"], Float[Array, "samples totals lanes"]]:
    """Directional derivative of states and totals; linear in `directions`.

    Args:
        primals: Reactor and plan.
        directions: Their tangents.
        solution: Result of the forward loop.
        record: Its accepted steps.
        method: Static choices.

    Returns:
        Tangents of states and totals at the samples. Those of a failed lane are infinite where
        the numbers are NaN, so that nobody takes zero for a slope; in reverse only if something
        was made of the lane's numbers, so that a lane that is masked touches no other.
    """
    ok = solution.result == Result.SUCCESS.value
    n, lanes = primals[1].lengths.shape
    every = jnp.arange(lanes)
    reactor, plan = primals
    d_reactor, d_plan = directions
    kinetics = _neutral(ok, reactor.kinetics)
    reactor = eqx.tree_at(lambda r: r.kinetics, reactor, kinetics)
    inputs = _neutral(ok, plan.inputs)
    signed = jnp.where(ok[:, None], record.steps, 0.0).T
    starts = jnp.where(ok[:, None, None], record.starts, 1.0)
    starts = jnp.moveaxis(starts, 0, -1)
    ends = signed < 0
    day_after = jnp.cumsum(ends, axis=0)
    day = day_after - ends
    where_ends = jnp.zeros((n + 1, lanes), int)
    position = jnp.broadcast_to(jnp.arange(signed.shape[0])[:, None], signed.shape)
    where_ends = where_ends.at[jnp.where(ends, day, n), every[None, :]].set(position)[:n]
    states = jnp.where(ok[None, None, :], solution.states, 1.0)

    def step(reactor: Reactor, inputs: DayInputs, y: Parts, h: Array) -> tuple[Parts, Parts]:
        out = plant_step(reactor, inputs, y, h, method)
        return out.y, out.quadrature

    @jax.checkpoint
    def move(d_reactor: Reactor, d_inputs: DayInputs, d_y: Parts, known: tuple) -> tuple:
        y, h, at = known
        point = (reactor, at, y)
        return jax.jvp(lambda r, i, s: step(r, i, s, h), point, (d_reactor, d_inputs, d_y))[1]

    def one(carry: tuple[Parts, Parts], x: tuple) -> tuple:
        start, h_signed, today, d_at = x
        taken = h_signed != 0

        def go() -> tuple[Parts, Parts]:
            d_y, d_z = carry
            h = jnp.where(taken, jnp.abs(h_signed), 1.0)
            y = tuple(jnp.where(taken, start[k], 1.0) for k in range(N_STATE))
            known = (y, h, at_day(inputs, today))
            moved, gained = move(d_reactor, d_at, d_y, known)
            d_z = tuple(v + jnp.where(taken, g, 0.0) for v, g in zip(d_z, gained, strict=True))
            return select(taken, moved, d_y), d_z

        d_y, d_z = jax.lax.cond(jnp.any(taken), go, lambda: carry)
        row = jnp.stack([*d_y, *d_z])
        if plan.has_events:
            begins = (h_signed < 0) & (today + 1 < n)
            next_day = jnp.minimum(today + 1, n - 1)
            reached = states[next_day, :, every].T
            y = to_amounts(reached)
            _, jumped = jax.jvp(
                lambda removed, bolus, y: apply_events(
                    plan._replace(removed=removed, bolus=bolus), next_day, y
                ),
                (plan.removed, plan.bolus, y),
                (d_plan.removed, d_plan.bolus, d_y),
            )
            d_y = select(begins, jumped, d_y)
        return (d_y, d_z), row

    d_y = jax.jvp(to_amounts, (_neutral(ok, plan.initial),), (d_plan.initial,))[1]
    if plan.has_events:
        _, d_y = jax.jvp(
            lambda removed, bolus, initial: apply_events(
                plan._replace(removed=removed, bolus=bolus),
                jnp.zeros(lanes, int),
                to_amounts(initial),
            ),
            (plan.removed, plan.bolus, _neutral(ok, plan.initial)),
            (d_plan.removed, d_plan.bolus, d_plan.initial),
        )
    d_y = tuple(jnp.where(ok, v, 0.0) for v in d_y)
    d_z = tuple(jnp.zeros_like(d_y[0]) for _ in range(N_TOTALS[method.totals]))
    size = signed.shape[0]
    n_blocks = -(-size // _BLOCK)
    if d_plan.inputs.perfusion.shape[0] == 1:
        d_inputs = jax.tree.map(lambda v: jnp.broadcast_to(v, signed.shape), d_plan.inputs)
    else:
        d_inputs = jax.tree.map(lambda v: v[jnp.minimum(day, n - 1), every], d_plan.inputs)
    steps = jax.tree.map(lambda v: _in_blocks(v, n_blocks), (starts, signed, day, d_inputs))

    @jax.checkpoint  # what a step needs is computed again, and not kept for all of them
    def block(carry: tuple[Parts, Parts], x: tuple) -> tuple:
        def go() -> tuple:
            return jax.lax.scan(one, carry, x)

        def idle() -> tuple:
            row = jnp.stack([*carry[0], *carry[1]])
            return carry, jnp.zeros((_BLOCK, *row.shape), row.dtype)

        return jax.lax.cond(jnp.any(x[1] != 0), go, idle)

    _, rows = jax.lax.scan(block, (d_y, d_z), steps)
    rows = rows.reshape(n_blocks * _BLOCK, *rows.shape[2:])
    at_samples = jnp.take_along_axis(rows, where_ends[:, None, :], axis=0)
    at_samples = jnp.where(ok[None, None, :], at_samples, 0.0)
    d_amounts, d_totals = at_samples[:, :N_STATE], at_samples[:, N_STATE:]
    c, volume = states[1:, :N_PLANT], states[1:, N_PLANT:]
    d_volume = d_amounts[:, N_PLANT:]
    d_c = (d_amounts[:, :N_PLANT] - c * d_volume) / volume
    d_states = jnp.concatenate([d_c, d_volume], axis=1)
    broken = _unknown(ok, d_reactor, d_plan)[None, None, :]
    d_states, d_totals = d_states + broken, d_totals + broken
    first = jnp.zeros((1, d_totals.shape[1], lanes), d_totals.dtype)
    return (
        jnp.concatenate([d_plan.initial[None], d_states]),
        jnp.concatenate([first, d_totals]),
    )
