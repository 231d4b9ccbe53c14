"""How long a decision takes: `python -m benchmarks.decision`.

One reactor: 3-day horizon, six controls, 128 paths, 10 restarts (and the set-points in force),
on a hybrid model fitted to the campaign of 24 + 3 runs. Then 24 reactors jointly, each in its
own state. First call (compiles) and the median of warm ones; peak memory of the process.
Derivatives of the acquisition by one-sided differences, forward and reverse mode; a search
begun on fewer paths. The score of a decision is the mean scaled score of what it recommends, on
the full set of paths: a faster search that finds worse set-points shows.
"""

import argparse
import os
import resource
import time
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES
from perfusio_jax.bed import ROLLOUT_SETTINGS, BEDPolicy, ReactorNow, TargetSpec
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import assimilate_run, fit_hybrid
from perfusio_jax.simulator import (
    NoiseModel,
    campaign_design,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)

N_PATHS, N_RESTARTS, HORIZON, N_REACTORS, DAYS = 128, 10, 3, 24, 14


def fitted() -> tuple[Any, list[Any]]:
    """A hybrid model and the runs it was fitted to."""
    design = jnp.asarray(campaign_design(seed=0))
    runs = design.shape[0]
    readings = simulate_campaign(
        virtual_reactor("CloneX"),
        jnp.broadcast_to(initial_state(), (runs, 10)),
        jnp.broadcast_to(design[:, None, :], (runs, DAYS, 6)),
        NoiseModel(),
        key=jax.random.key(0),
    )
    trajectories = to_trajectories(readings, clone_ids=["CloneX"] * runs)
    model, _ = fit_hybrid(trajectories, key=jax.random.key(0))
    return model, trajectories


def rack(model: Any, trajectories: list[Any]) -> list[ReactorNow]:
    """Vessels on day 8 of as many runs of the campaign."""
    out = []
    for k in range(N_REACTORS):
        beliefs = assimilate_run(model, trajectories[k], key=jax.random.key(k), length=DAYS + 1)
        u = np.asarray(trajectories[k].controls)[8]
        now = dict(zip(CONTROL_NAMES, map(float, u), strict=True))
        out.append(ReactorNow(beliefs.belief(8), 8, now, reactor_id=f"R{k + 1:02d}"))
    return out


def policy(model: Any, *, derivative: str, n_scan: int | None, restarts: int) -> BEDPolicy:
    """A policy of the sizes asked for."""
    return BEDPolicy(
        model,
        DEFAULT_AMBR250_DESIGN_SPACE.replace(viability_min=90.0),
        targets=[TargetSpec(1, 16.0)],
        n_restarts=restarts,
        horizon=HORIZON,
        n_paths=N_PATHS,
        n_scan_paths=n_scan,
        settings=ROLLOUT_SETTINGS._replace(derivative=derivative),
    )


def peak_gb() -> float:
    """Peak memory of this process [GB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def timed(call: Any, repeats: int) -> tuple[float, float, Any]:
    """First and median warm time [s], and the last result."""
    times, result = [], None
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - begun)
    return times[0], float(np.median(times[1:])), result


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--modes", nargs="+", default=["difference", "forward", "reverse"])
    parser.add_argument("--scans", type=int, nargs="+", default=[0, 16], help="0: all paths")
    parser.add_argument("--no-rack", action="store_true")
    options = parser.parse_args()
    model, trajectories = fitted()
    vessels = rack(model, trajectories)
    rows = 0 if model.gp is None else model.gp.data.inputs.shape[0]
    print(f"{rows} rows in the process, {peak_gb():.2f} GB after the fit", flush=True)
    print("| what | derivative | scan paths | first [s] | warm [s] | evaluations | OFV | score |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    best: dict[str, float] = {}
    for mode in options.modes:
        for n_scan in options.scans:
            made = policy(model, derivative=mode, n_scan=n_scan or None, restarts=N_RESTARTS)

            def decide(made: BEDPolicy = made) -> list[Any]:
                return [made.decide(v.c_current, v.day, u_now=v.u_now, seed=0) for v in vessels[:4]]

            first, warm, found = timed(decide, options.repeats)
            ofv = np.mean([d.explanation["ofv"] for d in found])
            evals = np.mean([d.explanation["search"]["n_evals"] for d in found])
            gain = np.mean([d.acqf_value for d in found])
            print(
                f"| one reactor | {mode} | {n_scan or N_PATHS} | {first - 0.75 * warm:.1f} | "
                f"{warm / 4:.2f} | {evals:.0f} | {ofv:.3f} | {gain:.3f} |",
                flush=True,
            )
            best[f"{mode}_{n_scan}"] = warm / 4
    one = min(best.values())
    joint = float("nan")
    if not options.no_rack:
        chosen = min(best, key=lambda k: best[k])
        mode, scan = chosen.rsplit("_", 1)
        made = policy(model, derivative=mode, n_scan=int(scan) or None, restarts=N_RESTARTS)
        first, joint, found = timed(lambda: made.decide_rack(vessels, seed=0), 1)
        ofv = np.mean([d.explanation["ofv"] for d in found])
        evals = np.mean([d.explanation["search"]["n_evals"] for d in found])
        print(
            f"| {N_REACTORS} reactors jointly | {mode} | {int(scan) or N_PATHS} | {first:.1f} | "
            f"{joint:.1f} | {evals:.0f} | {ofv:.3f} | |",
            flush=True,
        )
    print(f"decision: one_s={one:.2f} rack_s={joint:.1f} peak_gb={peak_gb():.2f}")


if __name__ == "__main__":
    main()
