"""Whole runs on all cores, with a fallback for those that fail, and the seed's face."""

import os
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import (
    STATE_ORDER,
    ConfigError,
    Result,
    SimulationError,
    expect_last,
    summarise,
)
from perfusio_jax._core.programs import compiled
from perfusio_jax.chemistry import from_balanced, to_balanced
from perfusio_jax.mechanistic.kinetics import CHOKinetics
from perfusio_jax.mechanistic.plan import (
    DEFAULT_METHOD,
    Method,
    Plan,
    Tolerances,
)
from perfusio_jax.mechanistic.reactor import Reactor
from perfusio_jax.mechanistic.runs import (
    CHUNK,
    RunSolution,
    check_kinetics,
    integrate,
    make_plan,
    take_runs,
)
from perfusio_jax.mechanistic.set_points import controls_from_dict, medium_from_dict
from perfusio_jax.mechanistic.vector_field import BALANCED_COLUMNS, N_PLANT

_integrate_jit = compiled(integrate)


def simulate(
    reactor: Reactor,
    plan: Plan,
    tolerances: Tolerances | None = None,
    method: Method = DEFAULT_METHOD,
    *,
    throw: bool = True,
) -> RunSolution:
    """Integrate runs, compiled, on all cores, with a fallback for the runs that fail.

    On CPU a large batch is cut into chunks of `CHUNK` runs, so that there is one compile for
    all large batches, and the chunks are spread over the cores. A failed run is tried again
    with diffrax's Kvaerno5, unless its input is not legal. This is the outermost call, which
    looks at the numbers. Where it is traced there are none to look at: it is `integrate` then,
    without a fallback, and a run that fails is NaN with its code instead of an error.

    Args:
        reactor: Cells and vessel.
        plan: From `make_plan`.
        tolerances: Accuracy.
        method: Static choices.
        throw: Whether to raise if a run fails for good.

    Returns:
        Solution; with `throw=False` failed runs are NaN with their code.

    Raises:
        SimulationError: If a run fails for good, saying how many, why, and what to do.
    """
    check_kinetics(reactor.kinetics, plan.initial.shape[1])
    tolerances = Tolerances() if tolerances is None else tolerances
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((reactor, plan, tolerances))):
        return integrate(reactor, plan, tolerances, method)
    out = _on_all_cores(reactor, plan, tolerances, method)
    codes = np.asarray(out.result)
    again = np.flatnonzero((codes != 0) & (codes != Result.BAD_INPUT.value))
    if again.size:
        part, piece = take_runs(reactor, plan, again)
        from perfusio_jax.mechanistic.with_diffrax import integrate_diffrax_jit  # rarely needed

        second = integrate_diffrax_jit(part, piece, totals=method.totals)
        out = RunSolution(*(old.at[again].set(new) for old, new in zip(out, second, strict=True)))
    if throw and bool(jnp.any(out.result != 0)):
        raise SimulationError(f"simulation failed for some runs.\n{summarise(out.result)}")
    return out


_COMPILED: set[Hashable] = set()
"""Sizes whose program exists; only speed depends on it."""


def _on_all_cores(
    reactor: Reactor, plan: Plan, tolerances: Tolerances, method: Method
) -> RunSolution:
    runs = plan.initial.shape[1]
    if runs <= CHUNK or jax.default_backend() != "cpu":
        return _integrate_jit(reactor, plan, tolerances, method, chunk=max(runs, CHUNK))
    reactor, plan = jax.tree.map(np.asarray, (reactor, plan))  # slicing on the host is free
    starts = range(0, runs, CHUNK)

    def one(start: int) -> RunSolution:
        index = np.minimum(np.arange(start, start + CHUNK), runs - 1)
        piece = _integrate_jit(*take_runs(reactor, plan, index), tolerances, method)
        return jax.tree.map(np.asarray, piece)

    shapes = [(v.shape[:-1], str(v.dtype)) for v in jax.tree.leaves((reactor, plan))]
    size = (jax.tree.structure((reactor, plan)), tuple(shapes), method)
    # A size that is new compiles here, once, and not in every thread at the same time.
    done = [] if size in _COMPILED else [one(0)]
    _COMPILED.add(size)
    is_x64 = jax.config.read("jax_enable_x64")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Settings made by a context manager end at the thread's border.
        same = pool.submit(jax.config.read, "jax_enable_x64").result() == is_x64
        done += list((pool.map if same else map)(one, starts[len(done) :]))
    return jax.tree.map(lambda *v: jnp.asarray(np.concatenate(v)[:runs]), *done)


# -------------------------------------------------------------------- the seed's face


def balanced_to_plant(c: Float[Array, "*b 9"]) -> Float[Array, "*b 10"]:
    """`BALANCED` concentrations as a plant state without lysed cells.

    Args:
        c: Cells [1e6 cells/mL], glucose [g/L], the other metabolites [mmol/L], product [mg/L].

    Returns:
        The same in `PLANT_SPECIES` order, lysed cells zero.
    """
    out = jnp.zeros((*c.shape[:-1], N_PLANT), c.dtype)
    return out.at[..., jnp.asarray(BALANCED_COLUMNS)].set(c)


def plant_to_balanced(c: Float[Array, "*b 10"]) -> Float[Array, "*b 9"]:
    """Plant state in `BALANCED` layout; lysed cells are left out.

    Args:
        c: Concentrations in `PLANT_SPECIES` order, not amounts and without the volume: cells
            [1e6 cells/mL], glucose [g/L], the other metabolites [mmol/L], product [mg/L].
    """
    return c[..., jnp.asarray(BALANCED_COLUMNS)]


def integrate_run(
    kinetics: CHOKinetics,
    y0: Sequence[float] | Float[Array, " 9"],
    controls: Mapping[str, float],
    n_days: int,
    dt_hours: float = 24.0,
) -> Float[np.ndarray | Array, "samples 9"]:
    """Integrate one run under constant set-points; numbers may be traced, as in `simulate`.

    Args:
        kinetics: Constants of the clone.
        y0: VCD, Via, Glc, Gln, Glu, Lac, Amm, Pyr, Titer at the start.
        controls: Set-points by name; missing ones take the centre recipe. Optionally
            `glucose_feed_conc` [g/L] and `gln_feed_conc` [mmol/L] of the perfusion medium and
            `volume_L` [L].
        n_days: Number of intervals.
        dt_hours: Length of an interval [h].

    Returns:
        Measured face at the start and after each interval. States are not clipped: they stay
        above -atol because the rate laws push them back.

    Raises:
        ConfigError: If a control is unknown or the state has the wrong length.
        SimulationError: If no solver reaches the end.
    """
    face = jnp.asarray(y0, float)
    expect_last(face, STATE_ORDER, "y0", rank=1)
    if n_days < 1:
        raise ConfigError(f"n_days is {n_days}; it must be at least 1.")
    reactor = Reactor(kinetics=kinetics, medium=medium_from_dict(controls))
    plan = make_plan(
        reactor,
        balanced_to_plant(to_balanced(face))[None],
        controls_from_dict(controls)[None],
        jnp.full(n_days, jnp.asarray(dt_hours, float)),
        volume_L=controls.get("volume_L", 0.25),
    )
    return measured_face(simulate(reactor, plan))


def measured_face(out: RunSolution) -> Float[np.ndarray | Array, "samples 9"]:
    """Measured face of the only run; an array of NumPy unless traced."""
    face = from_balanced(plant_to_balanced(out.concentrations[0]))
    return face if isinstance(face, Tracer) else np.asarray(face)
