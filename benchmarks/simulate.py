"""Roll-out throughput of the plant beside its peers: `python -m benchmarks.simulate`.

28-day runs over random designs of the whole default space, both virtual clones. Every solver
runs at the loosest tolerance on a half-decade grid at which its largest error against SciPy's
Radau at 1e-10 stays within 1e-3 on 64 runs, where

    error = max |y - y*| / max(|y*|, 1e-3 x range of the species).
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import qmc

from benchmarks import peers
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.mechanistic import (
    Reactor,
    Tolerances,
    integrate,
    make_plan,
    simulate,
    stack,
)
from perfusio_jax.simulator import initial_state, virtual_kinetics, virtual_reactor

BAR = 1e-3
TOLERANCES = [10.0 ** (-0.5 * k) for k in range(3, 20)]
N_CHECKED = 64
CLONES = ("CloneX", "CloneY")
SIZES = (27, 1024, 10240)


def make_runs(n: int, seed: int = 0) -> peers.Runs:
    """Random designs over the default space, clones in turn."""
    lo, hi = (np.asarray(b) for b in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
    sampler = qmc.Sobol(len(lo), seed=seed)
    controls = lo + (hi - lo) * sampler.random_base2(int(np.ceil(np.log2(n))))[:n]
    initial = np.tile(np.asarray(initial_state()), (n, 1))
    return [virtual_reactor(c) for c in CLONES], np.arange(n) % 2, initial, controls


def largest_error(y: np.ndarray, truth: np.ndarray) -> float:
    """Largest error in the sense of the module's text; infinite if a run failed."""
    spread = truth.max(axis=(0, 1)) - truth.min(axis=(0, 1))
    error = np.abs(y - truth) / np.maximum(np.abs(truth), 1e-3 * spread)
    return float(error.max()) if np.isfinite(error).all() else float("inf")


class Ours:
    """The plant's own batched integrator."""

    def __init__(self, runs: peers.Runs, dtype: Any) -> None:
        _, clone, initial, controls = runs
        kinetics = stack([virtual_kinetics(CLONES[c]) for c in clone])
        cast = lambda v: jnp.asarray(v, dtype)  # noqa: E731
        self.reactor = jax.tree.map(
            lambda v: cast(v) if eqx.is_inexact_array(v) else v, Reactor(kinetics=kinetics)
        )
        self.initial, self.controls = cast(initial), cast(controls)
        self.lengths = jnp.full(peers.DAYS, 24.0, dtype)

    def solve(self, rtol: float) -> np.ndarray:
        """Concentrations (runs, samples, 10), as a user gets them: checked, on all cores."""
        plan = make_plan(self.reactor, self.initial, self.controls, self.lengths)
        out = simulate(self.reactor, plan, Tolerances(rtol=rtol))
        return np.asarray(jax.block_until_ready(out.concentrations))


def warm(function: Callable, repeats: int) -> tuple[float, float]:
    """Best and median seconds of repeated calls."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return min(times), statistics.median(times)


def loosest(solve: Callable[[float], np.ndarray], truth: np.ndarray) -> tuple[float, float]:
    """Loosest tolerance that meets the bar, and its error."""
    for rtol in TOLERANCES:
        error = largest_error(solve(rtol), truth)
        if error <= BAR:
            return rtol, error
    raise SystemExit(f"no tolerance down to {TOLERANCES[-1]:.0e} meets {BAR:g}.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="warm calls per size")
    parser.add_argument("--float32", action="store_true", help="our solver in 32-bit floats too")
    parser.add_argument("--no-peers", action="store_true", help="our solver only")
    options = parser.parse_args()
    console = Console(highlight=False, width=110)
    device = jax.devices()[0]
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{device.platform}:{device.device_kind}, jax {jax.__version__}; BLAS on one thread"
    )
    checked = np.arange(N_CHECKED)
    with console.status("running: reference solutions with SciPy Radau at 1e-10"):
        truth = peers.radau(make_runs(N_CHECKED), checked)

    table = Table(title=f"28-day runs, error at most {BAR:g} on {N_CHECKED} of them")
    for name in ("solver", "runs", "rtol", "error", "first [s]", "warm [s]", "runs/s"):
        table.add_column(name, justify="left" if name == "solver" else "right")

    def row(solver: str, n: int, rtol: float, error: float, first: float, best: float) -> None:
        cells = (f"{rtol:.0e}", f"{error:.1e}", f"{first:.2f}", f"{best:.3f}", f"{n / best:.0f}")
        table.add_row(solver, str(n), *cells)

    rates: dict[tuple[str, int], float] = {}
    kinds = [("float64", jnp.float64)] + ([("float32", jnp.float32)] if options.float32 else [])
    for label, dtype in kinds:
        small = Ours(make_runs(N_CHECKED), dtype)
        with console.status(f"compiling and running: our solver in {label}, choosing its rtol"):
            rtol, error = loosest(small.solve, truth)
        for n in SIZES:
            mine = Ours(make_runs(n), dtype)
            with console.status(f"compiling: {n} runs in {label}"):
                y, first = peers.timed(mine.solve, rtol)
            with console.status(f"running: {n} runs in {label}"):
                best, _ = warm(lambda m=mine, r=rtol: m.solve(r), options.repeats)
            if n >= N_CHECKED:
                error = largest_error(y[:N_CHECKED], truth)
            rates[label, n] = n / best
            row(f"perfusio-jax {label}", n, rtol, error, first, best)

    keys: dict[str, str] = {"runs_per_s": f"{rates['float64', 1024]:.0f}"}
    if not options.no_peers:
        runs = make_runs(N_CHECKED)
        with console.status("running: SciPy RK45, choosing its rtol"):
            rtol, error = loosest(lambda r: peers.rk45(runs, checked, r), truth)
        with console.status("running: SciPy RK45"):
            best, _ = warm(lambda: peers.rk45(runs, checked[:27], rtol), 3)
        row("SciPy RK45, step <= 1 h", 27, rtol, error, best, best)
        keys["ratio"] = f"{rates['float64', 1024] / (27 / best):.0f}"
        keys |= cvodes(console, row, truth, rates["float64", 1024])
    with console.status("compiling: gradient with respect to all set-points and constants"):
        simulated, gradient, first = gradient_cost(options.repeats)
    table.add_row("perfusio-jax, value", "256", "", "", "", f"{simulated:.3f}", "")
    table.add_row(
        "perfusio-jax, full gradient", "256", "", "", f"{first:.2f}", f"{gradient:.3f}", ""
    )
    keys["gradient_cost"] = f"{gradient / simulated:.1f}"
    console.print(table)
    order = [k for k in ("ratio", "cvodes_ratio") if k in keys]
    order += [k for k in keys if k not in order]
    print("simulate: " + " ".join(f"{k}={keys[k]}" for k in order))


def cvodes(console: Console, row: Callable, truth: np.ndarray, ours: float) -> dict[str, str]:
    """CVODES at its best: interpreted and compiled, two absolute tolerances."""
    try:
        import casadi  # noqa: F401
    except ImportError:
        console.print("CasADi is not installed: pip install 'perfusio-jax[bench-simulate]'")
        return {}
    runs, many = make_runs(N_CHECKED), make_runs(1024)
    fastest = 0.0
    for compiled in (False, True) if peers.has_compiler() else (False,):
        for share in (1.0, 0.1):
            label = f"CVODES, {'compiled' if compiled else 'interpreted'}, atol {share:g} rtol"
            with console.status(f"running: {label}, choosing its rtol"):
                rtol, error = loosest(
                    lambda r, s=share: peers.Cvodes(runs, r, s * r, compiled=False).solve(), truth
                )
            with console.status(f"compiling: {label}"):
                solver, setup = peers.timed(
                    lambda r=rtol, s=share, c=compiled: peers.Cvodes(many, r, s * r, compiled=c)
                )
            with console.status(f"running: {label}"):
                y, first = peers.timed(solver.solve)
                best, _ = warm(solver.solve, 3)
            error = largest_error(y[:N_CHECKED], truth)
            row(label, 1024, rtol, error, setup + first, best)
            if error <= BAR:
                fastest = max(fastest, 1024 / best)
    return {"cvodes_ratio": f"{ours / fastest:.1f}", "cvodes_runs_per_s": f"{fastest:.0f}"}


def gradient_cost(repeats: int, n: int = 256) -> tuple[float, float, float]:
    """Warm seconds of a value and of its gradient, and the gradient's first call."""
    mine = Ours(make_runs(n), jnp.float64)

    def total(arguments: tuple) -> Any:
        reactor, controls = arguments
        plan = make_plan(reactor, mine.initial, controls, mine.lengths)
        return jnp.sum(integrate(reactor, plan, Tolerances()).concentrations[:, -1, 9])

    value = eqx.filter_jit(total)
    slope = eqx.filter_jit(eqx.filter_grad(total))
    arguments = (mine.reactor, mine.controls)
    jax.block_until_ready(value(arguments))
    simulated, _ = warm(lambda: jax.block_until_ready(value(arguments)), repeats)
    _, first = peers.timed(lambda: jax.block_until_ready(slope(arguments)))
    gradient, _ = warm(lambda: jax.block_until_ready(slope(arguments)), repeats)
    return simulated, gradient, first


if __name__ == "__main__":
    main()
