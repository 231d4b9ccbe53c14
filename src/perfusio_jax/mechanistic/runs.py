"""Whole runs: laying them out, and integrating them in pieces that fit the cache."""

from typing import Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, expect_last, float_array
from perfusio_jax.mechanistic.kinetics import CHOKinetics
from perfusio_jax.mechanistic.lanes import integrate_lanes
from perfusio_jax.mechanistic.plan import (
    DEFAULT_METHOD,
    LaneSolution,
    Method,
    Plan,
    Tolerances,
)
from perfusio_jax.mechanistic.reactor import Reactor
from perfusio_jax.mechanistic.vector_field import N_PLANT, PLANT_SPECIES, day_inputs

CHUNK: Final[int] = 256
"""Lanes advanced together: enough to amortise a loop pass, few enough to stay in cache."""


class RunSolution(NamedTuple):
    """Integrated runs, the run axis first."""

    concentrations: Float[Array, "runs samples 10"]
    """In `PLANT_SPECIES` order and units; NaN in a failed run."""
    volume_L: Float[Array, "runs samples"]
    """Working volume [L]."""
    totals: Float[Array, "runs samples n_totals"]
    """Cumulative amounts in, out and made per species, then L of perfusion, bleed, glucose and
    harvest; no columns unless the method asks for totals."""
    result: Int[Array, " runs"]
    """Result codes."""
    n_steps: Int[Array, " runs"]
    """Steps tried."""


def check_kinetics(kinetics: CHOKinetics, runs: int) -> None:
    """Refuse constants that are neither one for all runs nor one per run."""
    for name, value in kinetics.items():
        if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != runs):
            raise ConfigError(
                f"kinetic constant {name} has shape {value.shape}; with {runs} runs it must be a "
                f"scalar or have shape ({runs},)."
            )


def make_plan(
    reactor: Reactor,
    initial: Float[Array, "runs 10"],
    controls: Float[Array, "runs 6"] | Float[Array, "runs intervals 6"],
    lengths_h: Float[Array, " intervals"] | Float[Array, "runs intervals"],
    *,
    volume_L: ArrayLike = 0.25,
    start_h: ArrayLike = 0.0,
    removed_L: Float[Array, "runs intervals"] | None = None,
    bolus: Float[Array, "runs intervals 11"] | None = None,
) -> Plan:
    """Lay out runs for `integrate_lanes`.

    Args:
        reactor: Cells and vessel.
        initial: Concentrations at the start, `PLANT_SPECIES` order.
        controls: Set-points, constant or one row per interval.
        lengths_h: Length of each interval [h], the same for all runs or one row per run.
        volume_L: Working volume at the start [L], scalar or one per run.
        start_h: Process time at the start [h], for filter fouling.
        removed_L: Sample volume taken at the start of each interval [L].
        bolus: Amounts of ten species and the volume added at the start of each interval.

    Returns:
        The plan.

    Raises:
        ConfigError: If shapes do not fit.
    """
    initial, controls = float_array(initial), float_array(controls)
    lengths_h = jnp.asarray(lengths_h, initial.dtype)
    expect_last(initial, PLANT_SPECIES, "initial", rank=2)
    if lengths_h.ndim not in (1, 2):
        raise ConfigError(f"lengths_h has shape {lengths_h.shape}; expected (n,) or (runs, n).")
    runs, n = initial.shape[0], lengths_h.shape[-1]
    if controls.shape not in ((runs, 6), (runs, n, 6)):
        raise ConfigError(
            f"controls has shape {controls.shape}; expected ({runs}, 6) or ({runs}, {n}, 6)."
        )
    if lengths_h.shape not in ((n,), (runs, n)) or n == 0:
        raise ConfigError(f"lengths_h has shape {lengths_h.shape}; expected (n,) or ({runs}, n).")
    lengths = jnp.broadcast_to(
        lengths_h.T if lengths_h.ndim == 2 else lengths_h[:, None], (n, runs)
    )
    volume = jnp.broadcast_to(jnp.asarray(volume_L, initial.dtype), (runs,))
    by_interval = controls[:, None, :] if controls.ndim == 2 else controls
    by_interval = jnp.swapaxes(by_interval, 0, 1)
    if by_interval.shape[0] == 1 and not _never_fouls(reactor):
        by_interval = jnp.broadcast_to(by_interval, (n, runs, 6))  # sieving changes day by day
    start = jnp.broadcast_to(jnp.asarray(start_h, initial.dtype), (runs,))
    middle = start[None, :] + jnp.cumsum(lengths, axis=0) - 0.5 * lengths
    by_lane = jax.tree.map(lambda v: v[None, :] if v.ndim == 1 else v, reactor.kinetics)
    inputs = day_inputs(
        eqx.tree_at(lambda r: r.kinetics, reactor, by_lane),
        by_interval,
        jnp.broadcast_to(volume[None, :], by_interval.shape[:2]),
        middle[: by_interval.shape[0]],
    )
    return Plan(
        initial=jnp.concatenate([initial.T, volume[None, :]]),
        inputs=inputs,
        lengths=lengths,
        removed=None if removed_L is None else jnp.asarray(removed_L, initial.dtype).T,
        bolus=None
        if bolus is None
        else jnp.transpose(jnp.asarray(bolus, initial.dtype), (1, 2, 0)),
    )


def _never_fouls(reactor: Reactor) -> bool:
    # NumPy's comparison: JAX's would be traced within `jit`, constant or not.
    rate = reactor.fouling_rate
    return not isinstance(rate, Tracer) and not np.any(np.asarray(rate) != 0)


def take_runs(reactor: Reactor, plan: Plan, index: Array | np.ndarray) -> tuple[Reactor, Plan]:
    """Some of the runs of a plan, with the kinetic constants that belong to them."""
    kinetics = jax.tree.map(lambda v: v[index] if v.ndim == 1 else v, reactor.kinetics)
    chosen = jax.tree.map(lambda v: v[..., index], plan)
    return eqx.tree_at(lambda r: r.kinetics, reactor, kinetics), chosen


def _chunked(
    reactor: Reactor, plan: Plan, tol: Tolerances, method: Method, size: int
) -> LaneSolution:
    lanes = plan.initial.shape[1]
    if lanes <= size:
        return integrate_lanes(reactor, plan, tol, method)
    n_chunks = -(-lanes // size)
    # The last chunk is filled up with copies of the last run.
    index = jnp.minimum(jnp.arange(n_chunks * size), lanes - 1).reshape(n_chunks, size)

    @jax.checkpoint  # a derivative then needs the memory of one chunk, not of all
    def one(chosen: Array) -> LaneSolution:
        return integrate_lanes(*take_runs(reactor, plan, chosen), tol, method)

    out = jax.lax.map(one, index)

    def join(value: Array) -> Array:
        flat = jnp.moveaxis(value, 0, -2).reshape(*value.shape[1:-1], n_chunks * size)
        return flat[..., :lanes]

    return jax.tree.map(join, out)


def integrate(
    reactor: Reactor,
    plan: Plan,
    tolerances: Tolerances | None = None,
    method: Method = DEFAULT_METHOD,
    *,
    chunk: int = CHUNK,
) -> RunSolution:
    """Integrate runs with the plant's own solver.

    Pure and differentiable; see `integrate_lanes`. Failed runs are NaN with a result code.

    Args:
        reactor: Cells and vessel; kinetic constants scalar or one per run.
        plan: From `make_plan`.
        tolerances: Accuracy; the default meets a relative error of 1e-3 over 28 days.
        method: Static choices.
        chunk: Runs advanced together; a size, not a limit.

    Returns:
        Solution with the run axis first.
    """
    check_kinetics(reactor.kinetics, plan.initial.shape[1])
    tol = Tolerances() if tolerances is None else tolerances
    out = _chunked(reactor, plan, tol, method, chunk)
    states = jnp.moveaxis(out.states, -1, 0)
    return RunSolution(
        concentrations=states[..., :N_PLANT],
        volume_L=states[..., N_PLANT],
        totals=jnp.moveaxis(out.totals, -1, 0),
        result=out.result,
        n_steps=out.n_steps,
    )
