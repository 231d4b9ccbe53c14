"""Constants where recorded runs and prior agree best, and how sharply they do.

Constants z are counted in prior standard deviations from where they stand, the start of every run
w in logarithms from its first sample. With residuals r, the readings' distance in standard
deviations of their assays,

    min  |r(z, w)|^2 + |z|^2 + |w|^2 / s^2

by Levenberg and Marquardt. Runs share constants and not starts, so the normal equations are an
arrow: starts are eliminated run by run, and what is left is the information on the constants with
the starts unknown. Derivatives are taken for each run by the constants and its own start only,
which libraries of least squares do not know to do, and in one place, for the plant compiled in
several takes several times as long.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.experiment import Experiment, Lever
from perfusio_jax.study.identifiability.records import Records, assay_sd
from perfusio_jax.study.sensitivity.laws import Laws

START_WIDTH = 1.0
"""Prior standard deviation of the logarithm of what a run starts with [-]: nearly none, for its
first sample is among the readings."""
_STEPS = 80
_IDLE = 12
"""Refused steps in a row, or thrice as many as ones that gained nothing, that end a search."""
_SMALLEST = 1e-8
"""Step that is none [prior standard deviations]."""
_TOLERANCE = 1e-8
"""Gain of a step, in parts of the loss, below which a search has come to its end [-]."""


class Point(NamedTuple):
    """Constants and starts, and what they give."""

    z: Float[Array, " P"]
    """Constants [prior standard deviations]."""
    w: Float[Array, "R n"]
    """Starts [logarithms]."""
    loss: Float[Array, ""]
    """Squares of all residuals, prior included where it is asked for."""
    misfit: Float[Array, ""]
    """Those of the readings alone."""
    information: Float[Array, "P P"]
    """What the readings say of the constants, with the starts unknown [per squared prior
    standard deviation]."""
    by_run: Float[Array, "R D D"]
    """What the readings of each run say of the constants and of its own start [same, and per
    squared logarithm]."""
    is_converged: Bool[Array, ""]
    """Whether the search came to its end."""


class Look(NamedTuple):
    """Readings beside what would be read, run by run."""

    residual: Float[Array, "R N"]
    """Distances in standard deviations; 0 where nobody read."""
    by_constants: Float[Array, "R N P"]
    """Their derivatives by the constants [per prior standard deviation]."""
    by_start: Float[Array, "R N n"]
    """Their derivatives by the start [per logarithm]."""


def values_at(laws: Laws, z: Float[Array, " P"]) -> Float[Array, " P"]:
    """Constants from prior standard deviations; a uniform law counts as a normal of its width."""
    middle = jnp.where(laws.is_normal, laws.a, laws.a + 0.5 * laws.b)
    width = jnp.where(laws.is_normal, laws.b, laws.b / jnp.sqrt(12.0))
    y = middle + width * z
    return jnp.where(laws.is_log, jnp.exp(y), y)


@compiled
def readings_at(
    experiment: Experiment,
    records: Records,
    levers: tuple[Lever, ...],
    laws: Laws,
    at: tuple[Float[Array, " P"], Float[Array, "R n"]],
) -> Float[Array, "R T+1 A"]:
    """What would be read without noise."""
    many = jax.vmap(lambda one, w: recorded_run(experiment, one, levers, laws, (at[0], w)))(
        records, at[1]
    )
    return many.side_by_side().values[..., columns_of(experiment)]


@compiled
def searched(
    experiment: Experiment,
    records: Records,
    levers: tuple[Lever, ...],
    laws: Laws,
    asked: "Asked",
) -> Point:
    """The best constants and starts from a point on.

    Args:
        experiment: The plant.
        records: Its runs.
        levers: The constants.
        laws: Their priors.
        asked: Where to begin, and what is held.

    Returns:
        Where the search ended.
    """
    compiling("the search for constants")
    p = asked.z.size
    prior = asked.prior

    def look(z: Array, w: Array) -> Look:
        return looked(experiment, records, levers, laws, (z, w, asked.sd))

    def loss(seen: Look, z: Array, w: Array) -> Array:
        start = jnp.sum((w / START_WIDTH) ** 2) * asked.is_start_free
        return jnp.sum(seen.residual**2) + jnp.sum(prior * z**2) + start

    def bend(seen: Look) -> tuple[Array, Array, Array]:
        constants = seen.by_constants * asked.is_free[None, None]
        starts = seen.by_start * asked.is_start_free
        own = jnp.einsum("rnp,rnq->pq", constants, constants)
        cross = jnp.einsum("rnp,rns->rps", constants, starts)
        inner = jnp.einsum("rns,rnt->rst", starts, starts)
        return own, cross, inner + jnp.eye(inner.shape[-1])[None] / START_WIDTH**2

    def step(seen: Look, z: Array, w: Array, damping: Array) -> tuple[Array, Array]:
        own, cross, inner = bend(seen)
        held = jnp.diag(1.0 - asked.is_free)
        own = own + jnp.diag(prior * asked.is_free) + held
        own = own + damping * jnp.diag(jnp.diagonal(own) + 1e-9)
        grown = jnp.diagonal(inner, axis1=1, axis2=2)
        inner = inner + damping * jax.vmap(jnp.diag)(grown)
        pull = jnp.einsum("rnp,rn->p", seen.by_constants, seen.residual) + prior * z
        pull = pull * asked.is_free
        back = jnp.einsum("rns,rn->rs", seen.by_start, seen.residual) + w / START_WIDTH**2
        back = back * asked.is_start_free
        sides = jnp.concatenate([jnp.swapaxes(cross, 1, 2), back[..., None]], axis=-1)
        solved = jnp.linalg.solve(inner, sides)
        own = own - jnp.einsum("rps,rsq->pq", cross, solved[..., :p])
        dz = -jnp.linalg.solve(own, pull - jnp.einsum("rps,rs->p", cross, solved[..., p]))
        dw = -(solved[..., p] + jnp.einsum("rsp,p->rs", solved[..., :p], dz))
        return dz * asked.is_free, dw * asked.is_start_free

    def turn(state: Any) -> Any:
        z, w, best, seen, trial, damping, count, idle = state
        found = look(*trial)
        fine = jnp.all(jnp.isfinite(found.residual)) & jnp.all(jnp.isfinite(found.by_constants))
        fine &= jnp.all(jnp.isfinite(found.by_start))
        new = jnp.where(fine, loss(found, *trial), jnp.inf)
        is_better = new < best
        gain = jnp.where(is_better, (best - new) / jnp.maximum(new, 1e-12), 0.0)
        gain = jnp.where(count == 0, jnp.inf, gain)
        z, w = (jnp.where(is_better, a, b) for a, b in zip(trial, (z, w), strict=True))
        seen = jax.tree.map(lambda a, b: jnp.where(is_better, a, b), found, seen)
        best = jnp.where(is_better, new, best)
        damping = jnp.clip(jnp.where(is_better, damping / 5.0, damping * 4.0), 1e-9, 1e8)
        dz, dw = step(seen, z, w, damping)
        # an end: steps that gain nothing, or are refused however much they are damped, or are none
        wasted = jnp.where(is_better, _IDLE // 3, 1)
        idle = jnp.where(gain < _TOLERANCE, idle + wasted, 0)
        moves = jnp.maximum(jnp.max(jnp.abs(dz)), jnp.max(jnp.abs(dw)))
        idle = jnp.where(moves < _SMALLEST, _IDLE, idle)
        return z, w, best, seen, (z + dz, w + dw), damping, count + 1, idle

    def goes_on(state: Any) -> Array:
        return (state[6] < _STEPS) & (state[7] < _IDLE)

    r, t, a = records.readings.shape
    n = records.start.shape[1]
    none = Look(jnp.zeros((r, t * a)), jnp.zeros((r, t * a, p)), jnp.zeros((r, t * a, n)))
    begin = (asked.z, asked.w)
    start = (*begin, jnp.asarray(jnp.inf), none, begin, jnp.asarray(1e-3), 0, 0)
    z, w, best, seen, _, _, count, _ = jax.lax.while_loop(goes_on, turn, start)
    own, cross, inner = bend(seen)
    known = jnp.linalg.solve(inner, jnp.swapaxes(cross, 1, 2))
    information = own - jnp.einsum("rps,rsq->pq", cross, known)
    slopes = jnp.concatenate([seen.by_constants, seen.by_start], axis=-1)
    by_run = jnp.einsum("rna,rnb->rab", slopes, slopes)
    return Point(z, w, best, jnp.sum(seen.residual**2), information, by_run, count < _STEPS)


class Asked(NamedTuple):
    """Where a search begins, and what it may move."""

    z: Float[Array, " P"]
    """Constants [prior standard deviations]."""
    w: Float[Array, "R n"]
    """Starts [logarithms]."""
    sd: Float[Array, "R T+1 A"]
    """Deviations of the readings [their units]."""
    is_free: Float[Array, " P"]
    """1 for constants that are moved, 0 for those that are held."""
    prior: Float[Array, ""]
    """1 to count the constants' priors, 0 not to."""
    is_start_free: Float[Array, ""]
    """1 where starts are unknown, 0 where the first samples are taken for true."""


def columns_of(experiment: Experiment) -> np.ndarray:
    """Where the assays' columns are among those of a course."""
    return np.array([experiment.columns.index(a.column) for a in experiment.assays])


def recorded_run(
    experiment: Experiment,
    one: Records,
    levers: tuple[Lever, ...],
    laws: Laws,
    at: tuple[Float[Array, " P"], Float[Array, " n"]],
) -> Experiment:
    """One recorded run with constants and start moved; traces.

    Args:
        experiment: The plant.
        one: The run.
        levers: The constants.
        laws: Their priors.
        at: Constants [prior standard deviations] and start [logarithms].
    """
    start = one.start * jnp.exp(at[1])
    run = experiment.of_run(start, one.controls, one.lengths_h, one.volume_L)
    return run.pulled(levers, values_at(laws, at[0]))


def looked(
    experiment: Experiment,
    records: Records,
    levers: tuple[Lever, ...],
    laws: Laws,
    at: tuple[Float[Array, " P"], Float[Array, "R n"], Float[Array, "R T+1 A"]],
) -> Look:
    """Residuals and their derivatives, run by run; traces.

    Args:
        experiment: The plant.
        records: Its runs.
        levers: The constants.
        laws: Their priors.
        at: Constants, starts, and deviations of the readings.
    """
    z, w, sd = at
    p, n = z.size, w.shape[1]
    runs = records.readings.shape[0]
    columns = columns_of(experiment)
    theta = jnp.concatenate([jnp.broadcast_to(z, (runs, p)), w], axis=1)
    is_read = jnp.isfinite(records.readings)
    known = jnp.where(is_read, records.readings, 0.0)

    def residual(one: Records, values: Array, mine: tuple[Array, Array, Array]) -> Array:
        seen, read, width = mine
        away = jnp.where(seen, (values[..., columns] - read) / width, 0.0)
        return away.reshape(*away.shape[:-2], -1)

    def built(one: Records, theta: Array) -> Experiment:
        return recorded_run(experiment, one, levers, laws, (theta[:p], theta[p:]))

    mine = (is_read, known, sd)
    if not experiment.is_in_lanes:
        experiment = experiment.forward_only()

        def outcome(theta: Array, one: Records, own: tuple) -> tuple[Array, Array]:
            found = residual(one, built(one, theta).course().values, own)
            return found, found

        slopes, found = jax.vmap(jax.jacfwd(outcome, has_aux=True))(theta, records, mine)
        return Look(found, slopes[..., :p], slopes[..., p:])

    # a lane for each run and direction
    def together(rows: Array) -> Array:
        many = jax.vmap(lambda one, own: jax.vmap(lambda t: built(one, t))(own))(records, rows)
        flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), many)
        values = flat.side_by_side().values
        values = values.reshape(runs, p + n, *values.shape[1:])
        wide = (is_read[:, None], known[:, None], sd[:, None])
        return residual(records, values, wide)

    rows = jnp.broadcast_to(theta[:, None], (runs, p + n, p + n))
    units = jnp.broadcast_to(jnp.eye(p + n), rows.shape)
    found, slopes = jax.jvp(together, (rows,), (units,))
    slopes = jnp.swapaxes(slopes, 1, 2)
    return Look(found[:, 0], slopes[..., :p], slopes[..., p:])


def deviations(
    experiment: Experiment, records: Records, values: Float[Array, "R T+1 A"]
) -> Float[Array, "R T+1 A"]:
    """Deviations of the readings by what would be read; by the reading where that is no number."""
    seen = jnp.where(jnp.isfinite(values), values, records.readings)
    seen = jnp.where(jnp.isfinite(seen), jnp.maximum(seen, 0.0), 0.0)
    return assay_sd(experiment.assays, seen)
