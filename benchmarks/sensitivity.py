"""Sensitivity of the plant, local and global: `python -m benchmarks.sensitivity`.

Global: Sobol's first and total indices of 12 species x 28 days by 36 inputs (21 constants, six
set-points, nine concentrations at the start) in one streaming pass; at N = 4,096 base samples these
are 155,648 runs. The same outputs of a small part of the samples are given to SALib, whose indices
have to be equal; what it takes for all of them is told beside it.

Local: the gradient of the final titre by all constants and all set-points of 28 days, counted in
runs of the same plant without a derivative.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax.hybrid.calibration import CALIBRATED
from perfusio_jax.simulator import virtual_reactor
from perfusio_jax.study import (
    RunModel,
    cho_experiment,
    choose_levers,
    every_sample,
    local_sensitivity,
    sobol_indices,
)
from perfusio_jax.study.sensitivity.laws import from_unit, laws_of
from perfusio_jax.study.sensitivity.sobol import cross_sampled, sobol_samples

DAYS = 28
STARTS = ("Xv", "Xd", "Glc", "Gln", "Glu", "Lac", "Amm", "Pyr", "Titer")
RANGES = {"start.Titer": (0.0, 10.0), "pyruvate_feed": (0.0, 5.0)}


def cpu_seconds() -> float:
    """CPU time of this process, all threads [s]."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, seconds, and CPU seconds of a call."""
    begun, used = time.perf_counter(), cpu_seconds()
    found = jax.block_until_ready(function())
    return found, time.perf_counter() - begun, cpu_seconds() - used


def problem() -> tuple[RunModel, Any]:
    """The plant as a function of 36 inputs, and their laws."""
    run = cho_experiment(virtual_reactor(), 24.0 * np.arange(DAYS + 1))
    names = [*CALIBRATED, "set-points", *(f"start.{name}" for name in STARTS)]
    levers = choose_levers(run, names)
    model = RunModel(run, levers, every_sample(run, FORECAST_SPECIES))
    return model, laws_of(run, levers, RANGES)


def against_salib(model: RunModel, laws: Any, n: int) -> tuple[float, float]:
    """Largest difference of a total index to SALib's, and its seconds for all outputs."""
    from SALib.analyze import sobol as salib

    p = len(model.levers)
    points = jnp.asarray(next(sobol_samples(n, p, 0, n)))
    rows = from_unit(laws, cross_sampled(points, False).reshape(-1, p))
    evaluate = jax.jit(lambda part: model(part)[0])
    y = np.concatenate([np.asarray(evaluate(part)) for part in np.split(rows, 8)])
    ours = sobol_indices(model, laws, n, seed=0)
    names = [lever.name for lever in model.levers]
    asked = {"num_vars": p, "names": names, "bounds": [[0.0, 1.0]] * p}
    keep = np.flatnonzero(ours.sd > 0.0)
    begun = time.perf_counter()
    worst = 0.0
    for k in keep[:: max(len(keep) // 12, 1)]:
        theirs = salib.analyze(asked, y[:, k], calc_second_order=False, seed=1)
        worst = max(worst, float(np.max(np.abs(theirs["ST"] - ours.total[k]))))
    per_output = (time.perf_counter() - begun) / len(keep[:: max(len(keep) // 12, 1)])
    return worst, per_output * len(keep)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4096, help="base samples, a power of two")
    parser.add_argument("--second", action="store_true", help="pairs of inputs too")
    parser.add_argument("--no-local", action="store_true", help="global sensitivity only")
    parser.add_argument("--no-peers", action="store_true", help="without SALib")
    options = parser.parse_args()
    console = Console(highlight=False, width=110)
    device = jax.devices()[0]
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{device.platform}:{device.device_kind}, jax {jax.__version__}; BLAS on one thread"
    )
    table = Table(title=f"{DAYS}-day runs of the CHO plant")
    for name in ("what", "runs", "time [s]", "CPU [s]", "note"):
        table.add_column(name, justify="left" if name in ("what", "note") else "right")
    model, laws = problem()
    n_inputs, n_outputs = len(model.levers), len(model.outputs)
    n_runs = options.samples * ((2 * n_inputs if options.second else n_inputs) + 2)

    def whole() -> Any:
        return sobol_indices(model, laws, options.samples, is_second=options.second)

    with console.status("compiling and running: a first pass"):
        _, first, first_cpu = measured(whole)
    with console.status("running: a second pass"):
        found, warm, warm_cpu = measured(whole)
    what = f"Sobol, {n_outputs} outputs x {n_inputs} inputs"
    table.add_row(f"{what}, first call", str(n_runs), f"{first:.1f}", f"{first_cpu:.1f}", "")
    width = float(np.nanmax(found.total_half_width))
    note = f"widest interval +-{width:.2f}, {found.lost.n_failed} runs failed"
    table.add_row(f"{what}, warm", str(n_runs), f"{warm:.1f}", f"{warm_cpu:.1f}", note)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    keys = {
        "samples": str(options.samples),
        "runs": str(n_runs),
        "warm_s": f"{warm:.1f}",
        "warm_cpu_s": f"{warm_cpu:.1f}",
        "runs_per_cpu_s": f"{n_runs / warm_cpu:.0f}",
        "memory_MB": f"{memory:.0f}",
        "failed": str(found.lost.n_failed),
    }
    if not options.no_peers:
        n_checked = min(64, options.samples)
        with console.status("running: SALib on some of the outputs"):
            worst, theirs = against_salib(model, laws, n_checked)
        table.add_row(
            f"SALib's estimators alone, N = {n_checked}", "", f"{theirs:.1f}", "",
            f"largest difference {worst:.0e}",
        )  # fmt: skip
        keys["salib_difference"] = f"{worst:.0e}"
    if not options.no_local:
        keys |= local(console, table)
    console.print(table)
    print("sensitivity: " + " ".join(f"{k}={v}" for k, v in keys.items()))


def local(console: Console, table: Table, repeats: int = 7) -> dict[str, str]:
    """A full gradient, in runs without a derivative; medians of CPU seconds."""
    run = cho_experiment(virtual_reactor(), 24.0 * np.arange(DAYS + 1), by_interval=True)
    alone = jax.jit(lambda e: e.course().values)
    names = [*CALIBRATED, "every set-point"]

    def gradient() -> Any:
        return local_sensitivity(run, ["last Titer"], names)

    with console.status("compiling: the gradient of a run"):
        found, _, first = measured(gradient)
        jax.block_until_ready(alone(run))
    value = statistics.median(measured(lambda: alone(run))[2] for _ in range(4 * repeats))
    slope = statistics.median(measured(gradient)[2] for _ in range(repeats))
    table.add_row("one run", "1", "", f"{value:.4f}", "")
    note = f"{found.way}, {slope / value:.1f} runs; first call {first:.0f} CPU s"
    table.add_row(f"its gradient by {len(found.levers)} inputs", "1", "", f"{slope:.4f}", note)
    return {"gradient_cost": f"{slope / value:.1f}", "gradient_first_cpu_s": f"{first:.1f}"}


if __name__ == "__main__":
    main()
