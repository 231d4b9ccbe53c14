"""Integration of whole runs: the batched default, diffrax's solvers, and the fallback.

This is the only file that imports diffrax.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, Result, SimulationError, summarise
from perfusio_jax.chemistry import from_balanced, to_balanced
from perfusio_jax.mechanistic.kinetics import CHOKinetics
from perfusio_jax.mechanistic.lanes import integrate_lanes
from perfusio_jax.mechanistic.plan import (
    DEFAULT_METHOD,
    N_STATE,
    LaneSolution,
    Method,
    Plan,
    Tolerances,
)
from perfusio_jax.mechanistic.plant_step import plant_step
from perfusio_jax.mechanistic.reactor import (
    BALANCED_COLUMNS,
    N_PLANT,
    Reactor,
    controls_from_dict,
    day_inputs,
    vector_field,
)
from perfusio_jax.mechanistic.rosenbrock import RODAS3, RODAS4, Tableau, rosenbrock_step

CHUNK: Final[int] = 512
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


def _lanes_last(kinetics: CHOKinetics, runs: int) -> CHOKinetics:
    for name, value in kinetics.items():
        if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != runs):
            raise ConfigError(
                f"kinetic constant {name} has shape {value.shape}; with {runs} runs it must be a "
                f"scalar or have shape ({runs},)."
            )
    return kinetics


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
    initial, controls = jnp.asarray(initial), jnp.asarray(controls)
    lengths_h = jnp.asarray(lengths_h, initial.dtype)
    runs, n = initial.shape[0], lengths_h.shape[-1]
    if initial.shape != (runs, N_PLANT):
        raise ConfigError(f"initial has shape {initial.shape}; expected (runs, {N_PLANT}).")
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
    rate = reactor.fouling_rate
    return not isinstance(rate, jax.core.Tracer) and not bool(jnp.any(rate != 0))


def _chunked(reactor: Reactor, plan: Plan, tol: Tolerances, method: Method, size: int) -> Any:
    lanes = plan.initial.shape[1]
    if lanes <= size:
        return integrate_lanes(reactor, plan, tol, method)
    n_chunks = -(-lanes // size)
    pad = n_chunks * size - lanes

    def cut(value: Array) -> Array:
        widened = jnp.concatenate([value, value[..., -1:].repeat(pad, -1)], -1) if pad else value
        return jnp.moveaxis(widened.reshape(*value.shape[:-1], n_chunks, size), -2, 0)

    lane_constants, shared = eqx.partition(
        reactor.kinetics, lambda v: eqx.is_array(v) and v.ndim == 1
    )
    pieces = (
        cut(plan.initial),
        jax.tree.map(cut, plan.inputs),
        cut(plan.lengths),
        None if plan.removed is None else cut(plan.removed),
        None if plan.bolus is None else cut(plan.bolus),
        jax.tree.map(cut, lane_constants),
    )

    def one(piece: tuple) -> LaneSolution:
        initial, inputs, lengths, removed, bolus, constants = piece
        kinetics = eqx.combine(constants, shared)
        local = eqx.tree_at(lambda r: r.kinetics, reactor, kinetics)
        return integrate_lanes(local, Plan(initial, inputs, lengths, removed, bolus), tol, method)

    out = jax.lax.map(one, pieces)

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
    _lanes_last(reactor.kinetics, plan.initial.shape[1])
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


# -------------------------------------------------------------------- diffrax


class _Rosenbrock(diffrax.AbstractAdaptiveSolver):
    """Shared stepping of the Rosenbrock methods for any diffrax ODE term."""

    tableau: eqx.AbstractClassVar[Tableau]
    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., Any]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms: Any) -> int:
        """Order of the solution."""
        return self.tableau.order

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        """No state is carried between steps."""

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """Right-hand side."""
        return terms.vf(t0, y0, args)

    def step(
        self,
        terms: Any,
        t0: Any,
        t1: Any,
        y0: Any,
        args: Any,
        solver_state: None,
        made_jump: Any,
    ) -> tuple[Any, Any, dict, None, Any]:
        """One step with a dense factorisation, in diffrax's terms."""
        flat, unravel = jax.flatten_util.ravel_pytree(y0)
        h = (t1 - t0).astype(flat.dtype)

        def field(alpha: Any, y: tuple[Array]) -> tuple[Array]:
            value = terms.vf(t0 + alpha * h.astype(t0.dtype), unravel(y[0]), args)
            return (jax.flatten_util.ravel_pytree(value)[0],)

        jacobian = jax.jacfwd(lambda y: field(0.0, (y,))[0])(flat)
        eye = jnp.eye(flat.size, dtype=flat.dtype)
        factors = jax.scipy.linalg.lu_factor(eye / (h * self.tableau.gamma) - jacobian)
        rate = jax.jvp(lambda a: field(a, (flat,))[0], (jnp.zeros((), h.dtype),), (1.0 / h,))[1]
        out = rosenbrock_step(
            self.tableau,
            field,
            lambda rhs: (jax.scipy.linalg.lu_solve(factors, rhs[0]),),
            (flat,),
            h,
            time_derivative=(rate,),
        )
        y1 = unravel(out.y[0])
        k0 = jax.tree.map(lambda v: h * v, terms.vf(t0, y0, args))
        k1 = jax.tree.map(lambda v: h * v, terms.vf(t1, y1, args))
        stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), k0, k1)
        dense = {"y0": y0, "y1": y1, "k": stacked}
        return y1, unravel(out.error[0]), dense, None, diffrax.RESULTS.successful


class Rodas3(_Rosenbrock):
    """Rosenbrock method of order 3(2), L-stable, for diffrax; any ODE term."""

    tableau: ClassVar[Tableau] = RODAS3


class Rodas4(_Rosenbrock):
    """Rosenbrock method of order 4(3), L-stable, for diffrax; any ODE term."""

    tableau: ClassVar[Tableau] = RODAS4


def plant_term(reactor: Reactor) -> diffrax.ODETerm:
    """The plant as a diffrax term; `args` are the interval's `DayInputs`, y has 11 entries."""

    def field(t: Any, y: Float[Array, " 11"], inputs: Any) -> Float[Array, " 11"]:
        return jnp.stack(vector_field(reactor, inputs, tuple(y[k] for k in range(N_STATE))))

    return diffrax.ODETerm(field)


def integrate_diffrax(
    reactor: Reactor,
    plan: Plan,
    *,
    solver: diffrax.AbstractSolver | None = None,
    rtol: ArrayLike = 1e-6,
    atol: ArrayLike = 1e-8,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> RunSolution:
    """Integrate the same plan with a diffrax solver, run by run under `vmap`.

    Slower than `integrate`, and independent of it: for checks, for other solvers, and as the
    fallback of `simulate`.

    Args:
        reactor: Cells and vessel.
        plan: From `make_plan`.
        solver: Any diffrax solver; Kvaerno5 by default.
        rtol: Relative tolerance.
        atol: Absolute tolerance on amounts.
        max_steps: Steps per interval.
        adjoint: How diffrax differentiates; its default is reverse mode with checkpoints.

    Returns:
        Solution without totals.
    """
    solver = diffrax.Kvaerno5() if solver is None else solver
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    controller = diffrax.PIDController(rtol=jnp.asarray(rtol, float), atol=jnp.asarray(atol, float))
    (n, runs), dtype = plan.lengths.shape, plan.initial.dtype
    inputs = jax.tree.map(lambda v: jnp.broadcast_to(v, (n, v.shape[1])), plan.inputs)
    axes = jax.tree.map(lambda v: 0 if v.ndim == 1 else None, reactor.kinetics)

    def one(
        kinetics: CHOKinetics, c0: Array, inputs: Any, lengths: Array, removed: Array, bolus: Array
    ) -> tuple:
        local = eqx.tree_at(lambda r: r.kinetics, reactor, kinetics)
        term = plant_term(local)

        def interval(carry: tuple, x: tuple) -> tuple:
            y, code, count = carry
            constants, length, taken, added = x
            keep = 1.0 - taken / y[N_PLANT]
            y = y * keep + added
            sol = diffrax.diffeqsolve(
                term,
                solver,
                0.0,
                length,
                0.01,
                y,
                constants,
                stepsize_controller=controller,
                max_steps=max_steps,
                adjoint=adjoint,
                throw=False,
            )
            y1 = sol.ys[0]
            good = (sol.result == diffrax.RESULTS.successful) & jnp.all(jnp.isfinite(y1))
            failed = jnp.where(
                sol.result == diffrax.RESULTS.max_steps_reached,
                Result.MAX_STEPS.value,
                Result.NOT_CONVERGED.value,
            )
            code = jnp.where(code == Result.SUCCESS.value, jnp.where(good, code, failed), code)
            y1 = jnp.where(code == Result.SUCCESS.value, y1, y)
            return (y1, code, count + sol.stats["num_steps"]), y1

        y0 = jnp.concatenate([c0[:N_PLANT] * c0[N_PLANT], c0[N_PLANT:]])
        start = (y0, jnp.asarray(Result.SUCCESS.value), jnp.asarray(0))
        (_, code, count), ys = jax.lax.scan(interval, start, (inputs, lengths, removed, bolus))
        c = jnp.concatenate([ys[:, :N_PLANT] / ys[:, N_PLANT:], ys[:, N_PLANT:]], axis=1)
        c = jnp.where(code == Result.SUCCESS.value, c, jnp.nan)
        return jnp.concatenate([c0[None], c]), code, count

    moved = (
        plan.initial.T,
        jax.tree.map(lambda v: v.T, inputs),
        plan.lengths.T,
        jnp.zeros((runs, n), dtype) if plan.removed is None else plan.removed.T,
        jnp.zeros((runs, n, N_STATE), dtype)
        if plan.bolus is None
        else jnp.moveaxis(plan.bolus, -1, 0),
    )
    states, code, count = jax.vmap(one, in_axes=(axes, 0, 0, 0, 0, 0))(reactor.kinetics, *moved)
    empty = jnp.zeros((*states.shape[:2], 0), states.dtype)
    return RunSolution(states[..., :N_PLANT], states[..., N_PLANT], empty, code, count)


_integrate_jit = eqx.filter_jit(integrate)
_integrate_diffrax_jit = eqx.filter_jit(integrate_diffrax)


def simulate(
    reactor: Reactor,
    plan: Plan,
    tolerances: Tolerances | None = None,
    method: Method = DEFAULT_METHOD,
    *,
    throw: bool = True,
) -> RunSolution:
    """Integrate runs, compiled, with a fallback for the runs that fail.

    A failed run is tried again alone with diffrax's Kvaerno5 (no totals), unless its input is
    not legal. This is the outermost call: it looks at the numbers, so it does not trace.

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
    out = _integrate_jit(reactor, plan, tolerances, method)
    codes = np.asarray(out.result)
    if not codes.any():
        return out
    again = np.flatnonzero((codes != 0) & (codes != Result.BAD_INPUT.value))
    if again.size and method.totals == "none":
        kinetics = jax.tree.map(lambda v: v[again] if v.ndim == 1 else v, reactor.kinetics)
        part = eqx.tree_at(lambda r: r.kinetics, reactor, kinetics)
        piece = Plan(
            plan.initial[:, again],
            jax.tree.map(lambda v: v[:, again], plan.inputs),
            plan.lengths[:, again],
            None if plan.removed is None else plan.removed[:, again],
            None if plan.bolus is None else plan.bolus[..., again],
        )
        second = _integrate_diffrax_jit(part, piece)
        out = RunSolution(*(old.at[again].set(new) for old, new in zip(out, second, strict=True)))
    if throw and bool(jnp.any(out.result != 0)):
        raise SimulationError(f"simulation failed for some runs.\n{summarise(out.result)}")
    return out


# -------------------------------------------------------------------- a cheap day


def advance_fixed(
    reactor: Reactor,
    c: Float[Array, " 10"],
    controls: Float[Array, " 6"],
    dt_h: ArrayLike,
    *,
    volume_L: ArrayLike,
    fractions: Sequence[float],
) -> tuple[Float[Array, " 10"], Array]:
    """Advance one state over an interval on a fixed grid of Rodas3 steps.

    For use inside roll-outs: no loop over step sizes, so it costs the same for every path and
    differentiates to any order. L-stability keeps large steps harmless.

    Args:
        reactor: Cells and vessel, constant volume.
        c: Concentrations in `PLANT_SPECIES` order.
        controls: Set-points.
        dt_h: Length of the interval [h].
        volume_L: Working volume [L].
        fractions: Step lengths as parts of the interval; they sum to one.

    Returns:
        Concentrations at the end, and litres of concentrated glucose fed.
    """
    volume = jnp.asarray(volume_L, c.dtype)
    inputs = day_inputs(reactor, controls, volume)
    start = (*(c[k] * volume for k in range(N_PLANT)), volume)
    method = Method()
    steps = jnp.asarray(dt_h, c.dtype) * jnp.asarray(fractions, c.dtype)

    def feed(y: tuple[Array, ...]) -> Array:
        flux = reactor.pump.flux(y[3] / volume, inputs.glucose_setpoint)
        return flux * volume / reactor.medium.glucose_feed

    # A loop, not an unrolled chain: XLA fuses a chain of steps into one kernel that computes
    # every step again for each of its readers, and takes minutes to compile it.
    @jax.checkpoint  # a step costs less to take again than to store what its derivative needs
    def step(carry: tuple, h: Array) -> tuple:
        y, glucose = carry
        out = plant_step(reactor, inputs, y, h, method).y
        return (out, glucose + 0.5 * h * (feed(y) + feed(out))), None

    (y, glucose), _ = jax.lax.scan(step, (start, jnp.zeros_like(start[3])), steps)
    return jnp.stack([y[k] / volume for k in range(N_PLANT)]), glucose


# -------------------------------------------------------------------- the seed's face


def balanced_to_plant(c: Float[Array, "*b 9"]) -> Float[Array, "*b 10"]:
    """`BALANCED` concentrations as a plant state without lysed cells."""
    out = jnp.zeros((*c.shape[:-1], N_PLANT), c.dtype)
    return out.at[..., jnp.asarray(BALANCED_COLUMNS)].set(c)


def plant_to_balanced(c: Float[Array, "*b 10"]) -> Float[Array, "*b 9"]:
    """Plant state in `BALANCED` layout; lysed cells are left out."""
    return c[..., jnp.asarray(BALANCED_COLUMNS)]


def integrate_run(
    kinetics: CHOKinetics,
    y0: Sequence[float] | Float[Array, " 9"],
    controls: Mapping[str, float],
    n_days: int,
    dt_hours: float = 24.0,
) -> Float[np.ndarray, "samples 9"]:
    """Integrate one run under constant set-points.

    Args:
        kinetics: Constants of the clone.
        y0: VCD, Via, Glc, Gln, Glu, Lac, Amm, Pyr, Titer at the start.
        controls: Set-points by name; missing ones take the centre recipe. `volume_L` optional.
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
    if face.shape != (9,):
        raise ConfigError(f"y0 has shape {face.shape}; expected nine values (STATE_ORDER).")
    if n_days < 1:
        raise ConfigError(f"n_days is {n_days}; it must be at least 1.")
    reactor = Reactor(kinetics=kinetics)
    plan = make_plan(
        reactor,
        balanced_to_plant(to_balanced(face))[None],
        controls_from_dict(controls)[None],
        jnp.full(n_days, float(dt_hours)),
        volume_L=controls.get("volume_L", 0.25),
    )
    out = simulate(reactor, plan)
    return np.asarray(from_balanced(plant_to_balanced(out.concentrations[0])))
