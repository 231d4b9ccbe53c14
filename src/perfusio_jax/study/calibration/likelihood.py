"""How likely recorded runs are, with the derivative taken whichever way is cheaper.

A reading is normal around what the plant would show, with the deviation of its assay there: the
spread grows with the value, and is part of what is asked. A limit is the probability of a reading
beyond it.

Each run has its own start and depends on nothing of the others, so a derivative is taken run by
run. It is written out as one function of many rows, so that chains laid side by side become more
rows of one batch.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Int

from perfusio_jax.study.calibration.problem import Problem
from perfusio_jax.study.experiment import Experiment
from perfusio_jax.study.identifiability.fitting import columns_of, recorded_run
from perfusio_jax.study.identifiability.records import Records, assay_sd
from perfusio_jax.study.sensitivity.local import Way, way_costs

_HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))


def way_of(problem: Problem) -> tuple[Way, dict[Way, float]]:
    """Which way derivatives are taken, and what either costs [runs]."""
    p, n = len(problem.levers), problem.records.start.shape[1]
    directions = p if problem.starts_known else p + n
    costs = way_costs(directions, 1, is_in_lanes=problem.experiment.is_in_lanes)
    return min(costs, key=lambda w: costs[w]), costs


def log_likelihoods(
    problem: Problem,
    theta: Float[Array, "R D"],
    log_factor: Float[Array, " A"],
    way: Way | None = None,
) -> Float[Array, " R"]:
    """Logarithm of the probability of each run.

    Differentiates in reverse mode by `theta` and `log_factor`; a batch of either becomes more rows.

    Args:
        problem: What is asked.
        theta: Constants [prior standard deviations] and start [logarithms] of each run.
        log_factor: Logarithm of a factor on each assay's deviation [-].
        way: `forward` or `adjoint`; the cheaper if None.

    Returns:
        By run; minus infinity where the plant cannot be run.
    """
    chosen = way_of(problem)[0] if way is None else way
    arrays, rest = eqx.partition(problem, eqx.is_array)
    runs = problem.records.start.shape[0]
    index = np.arange(runs)
    look = _looking(rest, chosen)

    # everything goes in as an argument: a derivative may be taken where this was traced before
    @jax.custom_vjp
    def found(arrays: Any, theta: Array, factor: Array, index: Array) -> Array:
        return look(arrays, theta, factor, index)[0]

    def forwards(*given: Any) -> tuple[Array, tuple[Array, Array]]:
        value, by_theta, by_factor = look(*given)
        return value, (by_theta, by_factor)

    def backwards(kept: tuple[Array, Array], weight: Array) -> tuple:
        # a row that cannot be run has no slope, and its infinite value would make one of it
        weight = jnp.where(jnp.isfinite(weight), weight, 0.0)[:, None]
        return None, weight * kept[0], weight * kept[1], None

    found.defvjp(forwards, backwards)
    return found(arrays, theta, jnp.broadcast_to(log_factor, (runs, log_factor.size)), index)


def _looking(rest: Any, way: Way) -> Any:
    """Values and slopes of rows, each of a recorded run; a batch of rows is more rows."""

    @custom_vmap
    def look(
        arrays: Any, theta: Float[Array, "N D"], factor: Float[Array, "N A"], index: Int[Array, "N"]
    ) -> tuple[Array, Array, Array]:
        problem = eqx.combine(arrays, rest)
        return _rows(problem, theta, factor, index, way)

    @look.def_vmap
    def _(size: int, is_batched: Any, arrays: Any, theta: Any, factor: Any, index: Any) -> Any:
        if any(jax.tree.leaves(is_batched[0])):
            raise ValueError("runs of several problems side by side are not laid out; map over u.")
        given = []
        for value, batched in zip((theta, factor, index), is_batched[1:], strict=True):
            whole = value if batched else jnp.broadcast_to(value, (size, *value.shape))
            given.append(whole.reshape(-1, *whole.shape[2:]))
        found = look(arrays, *given)
        return tuple(v.reshape(size, -1, *v.shape[1:]) for v in found), (True, True, True)

    return look


def _rows(
    problem: Problem, theta: Array, factor: Array, index: Array, way: Way
) -> tuple[Array, Array, Array]:
    experiment, records = problem.experiment, problem.records
    experiment = experiment.forward_only() if way == "forward" else experiment
    own = jax.tree.map(lambda v: v[index], records)
    columns = columns_of(experiment)
    p = len(problem.levers)
    # where starts are known nothing moves them
    free = p if problem.starts_known else theta.shape[1]

    def built(one: Records, row: Array) -> Experiment:
        return recorded_run(experiment, one, problem.levers, problem.laws, (row[:p], row[p:]))

    density = jax.value_and_grad(
        lambda v, f, one: log_density(experiment, v, one, f), argnums=(0, 1)
    )
    units = jnp.eye(free, theta.shape[1], dtype=theta.dtype)
    rest = jnp.zeros((theta.shape[1] - free,), theta.dtype)

    if not experiment.is_in_lanes:

        def one_run(given: tuple) -> tuple[Array, Array, Array]:
            row, spread, one = given

            def shown(row: Array) -> Array:
                return built(one, row).course().values[:, columns]

            if way == "adjoint":
                values, pull = jax.vjp(shown, row)
                value, (by_values, by_factor) = density(values, spread, one)
                return value, jnp.where(jnp.isfinite(value), pull(by_values)[0], 0.0), by_factor

            def along(unit: Array) -> tuple[Array, Array]:
                return jax.jvp(shown, (row,), (unit,))

            values, slopes = jax.vmap(along, out_axes=(None, 0))(units)
            value, (by_values, by_factor) = density(values, spread, one)
            part = jnp.einsum("dta,ta->d", jnp.where(by_values == 0.0, 0.0, slopes), by_values)
            return value, jnp.concatenate([part, rest]), by_factor

        if way == "forward":
            return jax.vmap(one_run)((theta, factor, own))
        # one after the other: side by side, each would replay as many steps as there may be
        return jax.lax.map(one_run, (theta, factor, own))

    def together(rows: Array, own: Records) -> Array:
        return jax.vmap(built)(own, rows).side_by_side().values[..., columns]

    if way == "adjoint":
        values, pull = jax.vjp(lambda rows: together(rows, own), theta)
        value, (by_values, by_factor) = jax.vmap(density)(values, factor, own)
        slopes = jnp.where(jnp.isfinite(value)[:, None], pull(by_values)[0], 0.0)
        return value, slopes, by_factor
    # a lane for each run and direction
    n, wide = theta.shape[0], jax.tree.map(lambda v: jnp.repeat(v, free, axis=0), (theta, own))
    values, moves = jax.jvp(
        lambda rows: together(rows, wide[1]), (wide[0],), (jnp.tile(units, (n, 1)),)
    )
    values = values.reshape(n, free, *values.shape[1:])
    value, (by_values, by_factor) = jax.vmap(density)(values[:, 0], factor, own)
    moves = jnp.where(by_values[:, None] == 0.0, 0.0, moves.reshape(values.shape))
    part = jnp.einsum("ndta,nta->nd", moves, by_values)
    return value, jnp.concatenate([part, jnp.broadcast_to(rest, (n, rest.size))], 1), by_factor


def log_density(
    experiment: Experiment,
    values: Float[Array, "T+1 A"],
    one: Records,
    log_factor: Float[Array, " A"],
) -> Float[Array, ""]:
    """Logarithm of the probability of one run's readings and limits.

    Args:
        experiment: The plant, for its assays.
        values: What would be read without noise.
        one: What was.
        log_factor: Logarithm of a factor on each assay's deviation [-].

    Returns:
        The logarithm; minus infinity where a value that is asked for is no number.
    """
    is_read = jnp.isfinite(one.readings)
    is_limit = jnp.isfinite(one.limits)
    is_asked = is_read | jnp.any(is_limit, axis=-1)
    is_there = jnp.all(jnp.isfinite(values) | ~is_asked)
    # numbers in all places first: a derivative looks at both sides of a choice
    known = jnp.where(is_asked & jnp.isfinite(values), values, 1.0)
    sd = assay_sd(experiment.assays, jnp.maximum(known, 0.0)) * jnp.exp(log_factor)[None, :]
    away = (jnp.where(is_read, one.readings, known) - known) / sd
    found = jnp.where(is_read, -0.5 * away**2 - jnp.log(sd) - _HALF_LOG_2PI, 0.0)
    limits = jnp.where(is_limit, one.limits, known[..., None])
    below = jnp.where(is_limit[..., 0], log_ndtr((limits[..., 0] - known) / sd), 0.0)
    above = jnp.where(is_limit[..., 1], log_ndtr((known - limits[..., 1]) / sd), 0.0)
    return jnp.where(is_there, jnp.sum(found + below + above), -jnp.inf)
