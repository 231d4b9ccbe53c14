"""Our solvers behind diffrax's interface, and whole runs with solvers of diffrax.

This is the only file that imports diffrax; it is loaded when one of these is asked for.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import Result
from perfusio_jax._core.programs import compiled
from perfusio_jax.mechanistic.kinetics import CHOKinetics
from perfusio_jax.mechanistic.plan import N_STATE, N_TOTALS, Plan, Totals
from perfusio_jax.mechanistic.plant_step import quadrature
from perfusio_jax.mechanistic.reactor import Reactor
from perfusio_jax.mechanistic.rosenbrock import RODAS3, RODAS4, Tableau, rosenbrock_step
from perfusio_jax.mechanistic.runs import RunSolution
from perfusio_jax.mechanistic.vector_field import N_PLANT, vector_field


def _ravel(tree: Any) -> tuple[Array, Callable[[Array], Any]]:
    """One real vector from a state; complex numbers count as two."""

    def split(v: Array) -> Array:
        return jnp.stack([v.real, v.imag]) if jnp.iscomplexobj(v) else v

    def join(v: Array, like: Array) -> Array:
        return jax.lax.complex(v[0], v[1]) if jnp.iscomplexobj(like) else v

    flat, unravel = ravel_pytree(jax.tree.map(split, tree))
    return flat, lambda vector: jax.tree.map(join, unravel(vector), tree)


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
        flat, unravel = _ravel(y0)
        h = (t1 - t0).astype(flat.dtype)

        def field(alpha: Any, y: tuple[Array, ...]) -> tuple[Array, ...]:
            value = terms.vf(t0 + alpha * h.astype(t0.dtype), unravel(y[0]), args)
            return (_ravel(value)[0],)

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


def plant_term(reactor: Reactor, totals: Totals = "none") -> diffrax.ODETerm:
    """The plant as a diffrax term; `args` are the interval's `DayInputs`.

    The state has eleven entries, ten amounts [conc L] and the volume [L]; totals, if any, follow.

    Args:
        reactor: Cells and vessel.
        totals: What is integrated beside the state: "none", "streams" (four volumes [L]) or
            "balance" (inflow, outflow and reaction of every species before these).

    Returns:
        The term; time is in hours.
    """

    def field(t: Any, y: Float[Array, " n"], inputs: Any) -> Float[Array, " n"]:
        state = tuple(y[k] for k in range(N_STATE))
        rates = vector_field(reactor, inputs, state)
        more = () if totals == "none" else quadrature(reactor, inputs, state, totals)
        return jnp.stack([*rates, *more])

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
    totals: Totals = "none",
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
        totals: What to integrate beside the state.

    Returns:
        Solution; the steps are those taken over the run.
    """
    solver = diffrax.Kvaerno5() if solver is None else solver
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    controller = diffrax.PIDController(rtol=jnp.asarray(rtol, float), atol=jnp.asarray(atol, float))
    n, runs = plan.lengths.shape
    inputs = jax.tree.map(lambda v: jnp.broadcast_to(v, (n, v.shape[1])), plan.inputs)
    removed = jnp.zeros((n, runs)) if plan.removed is None else plan.removed
    bolus = jnp.zeros((n, N_STATE, runs)) if plan.bolus is None else plan.bolus
    axes = jax.tree.map(lambda v: 0 if v.ndim == 1 else None, reactor.kinetics)

    def one(
        kinetics: CHOKinetics, c0: Array, inputs: Any, lengths: Array, removed: Array, bolus: Array
    ) -> tuple:
        local = eqx.tree_at(lambda r: r.kinetics, reactor, kinetics)
        term = plant_term(local, totals)

        def interval(carry: tuple, x: tuple) -> tuple:
            y, code, count = carry
            constants, length, taken, added = x
            keep = 1.0 - taken / y[N_PLANT]
            y = y.at[:N_STATE].set(y[:N_STATE] * keep + added)
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
            y1 = jax.tree.leaves(sol.ys)[0][0]
            good = (sol.result == diffrax.RESULTS.successful) & jnp.all(jnp.isfinite(y1))
            failed = jnp.where(
                sol.result == diffrax.RESULTS.max_steps_reached,
                Result.MAX_STEPS.value,
                Result.NOT_CONVERGED.value,
            )
            code = jnp.where(code == Result.SUCCESS.value, jnp.where(good, code, failed), code)
            y1 = jnp.where(code == Result.SUCCESS.value, y1, y)
            return (y1, code, count + sol.stats["num_steps"]), y1

        nothing = jnp.zeros(N_TOTALS[totals], c0.dtype)
        y0 = jnp.concatenate([c0[:N_PLANT] * c0[N_PLANT], c0[N_PLANT:], nothing])
        start = (y0, jnp.asarray(Result.SUCCESS.value), jnp.asarray(0))
        (_, code, count), ys = jax.lax.scan(interval, start, (inputs, lengths, removed, bolus))
        volume = ys[:, N_PLANT:N_STATE]
        c = jnp.concatenate([ys[:, :N_PLANT] / volume, volume, ys[:, N_STATE:]], axis=1)
        c = jnp.where(code == Result.SUCCESS.value, c, jnp.nan)
        return jnp.concatenate([jnp.concatenate([c0, nothing])[None], c]), code, count

    moved = (
        plan.initial.T,
        jax.tree.map(lambda v: v.T, inputs),
        plan.lengths.T,
        removed.T,
        jnp.moveaxis(bolus, -1, 0),
    )
    rows, code, count = jax.vmap(one, in_axes=(axes, 0, 0, 0, 0, 0))(reactor.kinetics, *moved)
    return RunSolution(rows[..., :N_PLANT], rows[..., N_PLANT], rows[..., N_STATE:], code, count)


integrate_diffrax_jit = compiled(integrate_diffrax)
"""The same, compiled."""
