"""Roll-outs over devices: `python -m benchmarks.scale`.

Virtual devices of this CPU, one to eight, each count in a process of its own. Strong scaling: one
job over more devices. Weak scaling: as many lanes for each device. More devices than cores gain
nothing, and should lose nothing; the numbers must be the same to the last bit, which is checked.
CPU time is told beside wall time, for on a machine that does something else it says more.

Idle: share of the devices' time in which one waits for the slowest, if all end a step together,
against each going on with its next block; from the passes of the integrator that blocks need.

Memory: peak of a process that streams paths of a hybrid model, 28 days and 12 quantities.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from perfusio_jax._core.compiler_flags import threads_for
from perfusio_jax.mechanistic import Tolerances, integrate
from perfusio_jax.simulator import virtual_reactor
from perfusio_jax.study import cho_experiment, hybrid_paths, random_runs
from perfusio_jax.study.scale.cost import foresee
from perfusio_jax.study.scale.job import prepare
from perfusio_jax.study.scale.stream import run_job

LEVERS = ("perfusion_rate", "bleed_rate", "temperature", "mu_max", "K_d")
ROWS = 256


def cpu() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(kind: str, n: int, n_devices: int) -> dict:
    """One measurement, in a process that was started with these devices."""
    if kind == "paths":
        from benchmarks.gpu import FACE, hybrid_model

        controls = np.tile([1.0, 0.15, 4.0, 36.5, 850.0, 1.0], (28, 1))
        lanes = hybrid_paths(hybrid_model(), FACE, controls)
    else:
        run = cho_experiment(virtual_reactor(), 24.0 * np.arange(29))
        lanes = random_runs(run, ["last Titer", "min Via", "max VCD"], LEVERS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    begun, used = time.perf_counter(), cpu()
    job = prepare(lanes, n, devices=n_devices, rows=ROWS)
    compiled = cpu() - used
    cost = foresee(job, clock=time.perf_counter)
    begun, used = time.perf_counter(), cpu()
    found = run_job(job, 1, (0.05, 0.5, 0.95))
    wall, used = time.perf_counter() - begun, cpu() - used
    bits = b"".join(
        v.tobytes() for v in (found.mean, found.sd, found.least, found.most, found.quantiles)
    )
    return {
        "n": n,
        "devices": n_devices,
        "wall": wall,
        "cpu": used,
        "compile_cpu": compiled,
        "foreseen": cost.seconds,
        "foreseen_MiB": cost.bytes / 2**20,
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
        "MiB_before": before,
        "digest": hashlib.sha256(bits).hexdigest()[:12],
        "failed": found.n_failed,
    }


def measured(kind: str, n: int, n_devices: int) -> dict:
    """`child` in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", "--child", kind, str(n), str(n_devices)],
        env={**os.environ, "XLA_FLAGS": flags, "NPROC": threads_for(n_devices)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def idle(n_devices: int, n_steps: int = 16) -> tuple[float, float]:
    """Share of time that devices wait: at every step, and over the whole job."""
    from benchmarks.gpu import plant_arguments

    reactor, plan = plant_arguments(n_devices * n_steps * ROWS, jax.numpy.float64)
    # a block makes as many passes as its longest lane
    passes = np.asarray(integrate(reactor, plan, Tolerances()).n_steps)
    work = passes.reshape(n_devices, n_steps, ROWS).max(axis=2)
    each = 1.0 - work.mean(axis=0) / work.max(axis=0)
    whole = work.sum(axis=1)
    return float(each.mean()), float(1.0 - whole.mean() / whole.max())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=16384, help="runs of the strong scaling")
    parser.add_argument("--paths", type=int, default=20_000, help="paths of the hybrid model")
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        kind, n, n_devices = options.child
        print(json.dumps(child(kind, int(n), int(n_devices))))
        return
    console = Console(highlight=False, width=118)
    console.print(
        f"{os.cpu_count()} cores, jax {jax.__version__}, load {os.getloadavg()[0]:.1f}; "
        f"{ROWS} lanes at once"
    )
    table = Table(title="28-day runs of the CHO plant, and paths of a hybrid model")
    for name in ("job", "devices", "lanes", "wall [s]", "foreseen [s]", "CPU [s]", "lanes/CPU s",
                 "peak [MiB]", "of them the job", "foreseen", "bits"):  # fmt: skip
        table.add_column(name, justify="right")
    rows: dict[tuple[str, int], dict] = {}

    def add(job: str, kind: str, n: int, count: int) -> None:
        found = rows[job, count] = measured(kind, n, count)
        own = found["MiB"] - found["MiB_before"]
        table.add_row(
            job, str(count), str(n), f"{found['wall']:.1f}", f"{found['foreseen']:.1f}",
            f"{found['cpu']:.1f}", f"{n / found['cpu']:.0f}", f"{found['MiB']:.0f}", f"{own:.0f}",
            f"{found['foreseen_MiB']:.0f}", found["digest"],
        )  # fmt: skip

    for count in options.devices:
        add("strong", "plant", options.n, count)
    for count in options.devices:
        add("weak", "plant", options.n // 8 * count, count)
    for count in options.devices[:2]:
        add("paths", "paths", options.paths, count)
    add("few paths", "paths", options.paths // 10, options.devices[0])
    console.print(table)
    strong = {found["digest"] for (job, _), found in rows.items() if job == "strong"}
    first, last = rows["strong", options.devices[0]], rows["strong", options.devices[-1]]
    paths, few = rows["paths", options.devices[0]], rows["few paths", options.devices[0]]
    at_step, whole = idle(max(options.devices))
    keys = {
        "same_bits": str(len(strong) == 1).lower(),
        "cpu_of_most_devices": f"{last['cpu'] / first['cpu']:.2f}",
        "idle_by_step": f"{at_step:.3f}",
        "idle": f"{whole:.3f}",
        "paths_per_cpu_s": f"{paths['n'] / paths['cpu']:.0f}",
        "paths_MiB": f"{paths['MiB']:.0f}",
        "MiB_per_tenfold": f"{paths['MiB'] - few['MiB']:.0f}",
    }
    print("scale: " + " ".join(f"{k}={v}" for k, v in keys.items()))


if __name__ == "__main__":
    main()
