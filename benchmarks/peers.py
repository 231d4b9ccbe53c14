"""The same runs through SciPy and CasADi's CVODES."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import perfusio_jax
from benchmarks.translate import N_INPUTS, N_STATE, to_casadi, to_python
from perfusio_jax.mechanistic import Reactor, day_inputs, vector_field
from perfusio_jax.mechanistic.vector_field import DayInputs

VOLUME = 0.25
DAYS = 28
GRID = np.arange(0.0, 24.0 * DAYS + 1.0, 24.0)

Runs = tuple[list[Reactor], np.ndarray, np.ndarray, np.ndarray]
"""(reactor per clone, clone of each run, initial concentrations, set-points)"""


def interval_constants(reactor: Reactor, controls: np.ndarray) -> np.ndarray:
    """Constants of the vector field for each run (runs, 9)."""
    inputs = day_inputs(reactor, jnp.asarray(controls), jnp.full(len(controls), VOLUME))
    return np.stack([np.asarray(v) for v in inputs], axis=1)


def _by_scipy(runs: Runs, chosen: np.ndarray, solve: Callable) -> np.ndarray:
    reactors, clone, initial, controls = runs
    constants = [interval_constants(r, controls[chosen]) for r in reactors]
    fields = [to_python(r) for r in reactors]
    jacobians = [jacobian(r) for r in reactors]
    out = []
    for k, i in enumerate(chosen):
        c = clone[i]
        p = constants[c][k].tolist()
        y0 = np.append(initial[i] * VOLUME, VOLUME)
        out.append(solve(fields[c], jacobians[c], p, y0)[:, :-1] / VOLUME)
    return np.stack(out)


def jacobian(reactor: Reactor) -> Callable:
    """Exact Jacobian of the field, compiled."""

    @jax.jit
    def evaluate(y: jax.Array, p: jax.Array) -> jax.Array:
        inputs = DayInputs(*(p[i] for i in range(N_INPUTS)))

        def field(state: jax.Array) -> jax.Array:
            parts = tuple(state[i] for i in range(N_STATE))
            return jnp.stack(vector_field(reactor, inputs, parts))

        return jax.jacfwd(field)(y)

    return evaluate


def radau(runs: Runs, chosen: np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
    """Reference: SciPy's Radau in one process per core. Concentrations (runs, samples, 10)."""
    cores = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, context, initializer=perfusio_jax.enable_x64) as pool:
        parts = np.array_split(chosen, cores)
        return np.concatenate(list(pool.map(partial(_radau, runs, tolerance=tolerance), parts)))


def _radau(runs: Runs, chosen: np.ndarray, tolerance: float) -> np.ndarray:
    from scipy.integrate import solve_ivp

    def solve(field: Callable, jac: Callable, p: list[float], y0: np.ndarray) -> np.ndarray:
        sol = solve_ivp(
            lambda t, y: field(t, y.tolist(), p),
            (0.0, GRID[-1]),
            y0,
            "Radau",
            GRID,
            rtol=tolerance,
            atol=tolerance,
            jac=lambda t, y: np.asarray(jac(y, np.asarray(p))),
        )
        if not sol.success:
            raise RuntimeError(f"Radau did not reach the end: {sol.message}")
        return sol.y.T

    return _by_scipy(runs, chosen, solve)


def rk45(runs: Runs, chosen: np.ndarray, rtol: float) -> np.ndarray:
    """The reference implementation's way: SciPy's RK45 with steps of at most 1 h."""
    from scipy.integrate import solve_ivp

    def solve(field: Callable, _: Callable, p: list[float], y0: np.ndarray) -> np.ndarray:
        sol = solve_ivp(
            lambda t, y: field(t, y.tolist(), p),
            (0.0, GRID[-1]),
            y0,
            "RK45",
            GRID,
            rtol=rtol,
            atol=rtol * 1e-2,
            max_step=1.0,
        )
        return sol.y.T if sol.success else np.full((len(GRID), N_STATE), np.nan)

    return _by_scipy(runs, chosen, solve)


class Cvodes:
    """CasADi's CVODES with exact derivatives, one call per run, all cores.

    Args:
        runs: What to solve; both clones share one symbolic function.
        rtol: Relative tolerance.
        atol: Absolute tolerance on concentrations.
        compiled: Whether CasADi translates the equations to C and compiles them.
    """

    def __init__(self, runs: Runs, rtol: float, atol: float, *, compiled: bool) -> None:
        import casadi as ca

        reactors, self.clone, self.initial, controls = runs
        constants = np.stack([interval_constants(r, controls) for r in reactors])
        self.constants = constants[self.clone, np.arange(len(controls))]
        self.cores = os.cpu_count() or 1
        options = {
            "reltol": rtol,
            "abstol": atol,
            "max_num_steps": 100000,
            "newton_scheme": "direct",
        }
        if compiled:
            options |= {
                "jit": True,
                "compiler": "shell",
                "jit_options": {"flags": ["-O3", "-march=native"], "verbose": False},
            }
        self.mapped = []
        counts = [int((self.clone == c).sum()) for c in range(len(reactors))]
        for c, reactor in enumerate(reactors):
            x, p = ca.SX.sym("x", N_STATE - 1), ca.SX.sym("p", N_INPUTS)
            amounts = [x[i] * VOLUME for i in range(N_STATE - 1)] + [ca.SX(VOLUME)]
            rates = to_casadi(reactor, p, amounts)[:-1]
            dae = {"x": x, "p": p, "ode": ca.vertcat(*rates) / VOLUME}
            solver = ca.integrator(f"f{c}", "cvodes", dae, 0.0, GRID[1:].tolist(), options)
            self.mapped.append(solver.map(counts[c], "thread", self.cores))

    def solve(self) -> np.ndarray:
        """Concentrations (runs, samples, 10)."""
        out = np.empty((len(self.clone), len(GRID), N_STATE - 1))
        out[:, 0] = self.initial
        for c, function in enumerate(self.mapped):
            mine = self.clone == c
            x = function(x0=self.initial[mine].T, p=self.constants[mine].T)["xf"]
            values = np.asarray(x).T.reshape(int(mine.sum()), len(GRID) - 1, N_STATE - 1)
            out[mine, 1:] = values
        return out


def has_compiler() -> bool:
    """Whether CasADi can compile C here."""
    return shutil.which("gcc") is not None


def timed(function: Callable, *args: object) -> tuple[np.ndarray, float]:
    """Result and seconds of one call."""
    begun = time.perf_counter()
    value = function(*args)
    return value, time.perf_counter() - begun
