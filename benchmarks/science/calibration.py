"""Calibration: `python -m benchmarks.science.calibration`.

`cho`: the 21 constants of the CHO plant from 12 simulated runs of 14 days with 5 % of the readings
missing, starts unknown, sampled; whether chains agree, effective draws, time, and how many of the
true constants lie inside the intervals. `sbc`: constants drawn from their priors, runs of a small
chemostat simulated with them, and the ranks of the true ones among the draws, which have to be
uniform. `data`: tables of real cultures with a mechanism each (`--data` names the folder), and how
many of the readings the posterior's intervals hold.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from perfusio_jax._core.progress import telling
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.connectors import read_culture
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid.calibration import CALIBRATED
from perfusio_jax.mechanistic import Reactor
from perfusio_jax.process import MONOD_CHEMOSTAT, Process
from perfusio_jax.service.identifying import plant_of
from perfusio_jax.simulator import plain_monod, virtual_plant
from perfusio_jax.study import (
    Plan,
    Posterior,
    Records,
    calibrate,
    calibration_problem,
    cho_experiment,
    described_experiment,
)
from perfusio_jax.study.calibration.sampling import sample
from perfusio_jax.study.calibration.start import begin
from perfusio_jax.study.identifiability.fitting import columns_of, values_at
from perfusio_jax.study.identifiability.records import assay_sd

YEAST = """
name = "yeast_batch"
volume_L = 1.0
biomass = "X"
[[quantities]]
name = "X"
unit = "g/L"
hi = 60.0
cv = 0.07
floor = 0.1
[[quantities]]
name = "Glc"
unit = "g/L"
hi = 150.0
cv = 0.07
floor = 0.1
[[quantities]]
name = "EtOH"
unit = "g/L"
hi = 60.0
cv = 0.07
floor = 0.1
"""


def cpu_seconds() -> float:
    """CPU time of this process, all threads [s]."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def simulated(experiment: Any, starts: Any, controls: Any, rng: Any, missing: float) -> Records:
    """Runs of a plant as their assays would have read them."""
    n, t = controls.shape[:2]

    def built(start: Any, u: Any) -> Any:
        return experiment.of_run(start, u, experiment.lengths_h, experiment.volume_L)

    many = jax.vmap(built)(jnp.asarray(starts), jnp.asarray(controls))
    values = np.asarray(jax.jit(lambda m: m.side_by_side().values)(many))
    values = values[..., columns_of(experiment)]
    sd = np.asarray(assay_sd(experiment.assays, jnp.asarray(values)))
    read = np.maximum(values + sd * rng.standard_normal(values.shape), 0.0)
    read[rng.random(read.shape) < missing] = np.nan
    return Records(
        start=jnp.asarray(starts),
        controls=jnp.asarray(controls),
        lengths_h=jnp.tile(experiment.lengths_h, (n, 1)),
        volume_L=jnp.full(n, float(experiment.volume_L)),
        readings=jnp.asarray(read),
        limits=jnp.full((n, t + 1, values.shape[-1], 2), jnp.nan),
    )


def told(found: Posterior) -> str:
    """What the sampler says of itself, on one line."""
    said = found.diagnostics
    if said is None:
        return "a normal law"
    return (
        f"r_hat={np.nanmax(said.constants.r_hat):.3f} "
        f"r_hat_beside={np.nanmax(said.beside.r_hat):.3f} "
        f"ess_bulk={np.nanmin(said.constants.ess_bulk):.0f} "
        f"ess_tail={np.nanmin(said.constants.ess_tail):.0f} divergent={said.n_divergent} "
        f"deep={said.n_deep} e_bfmi={said.e_bfmi.min():.2f} depth={said.depth:.2f} "
        f"gradients={said.n_gradients}"
    )


def cho(plan: Plan, seed: int) -> None:
    """The 21 constants of the CHO plant from 12 runs."""
    rng, runs, days = np.random.default_rng(seed), 12, 14
    hours = 24.0 * np.arange(days + 1)
    plant = cho_experiment(Reactor(), hours)
    lo, hi = (np.asarray(v) for v in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
    recipes = lo + (hi - lo) * stats.qmc.Sobol(lo.size, seed=seed).random(16)[:runs]
    controls = np.tile(recipes[:, None], (1, days, 1))
    begins = np.tile(plant.start, (runs, 1))
    # the truth is a draw from the priors, of the mechanism that is calibrated
    empty = simulated(plant, begins, controls, rng, 0.05)
    asked = calibration_problem(plant, empty, CALIBRATED)
    true = np.asarray(values_at(asked.laws, jnp.asarray(rng.standard_normal(len(asked.levers)))))
    records = simulated(plant.pulled(asked.levers, true), begins, controls, rng, 0.05)
    # where a run starts is known by its first sample only
    names = [a.column for a in plant.assays]
    first = np.asarray(records.readings)[:, 0]
    starts = [plant.start_of(dict(zip(names, row.tolist(), strict=True))) for row in first]
    records = records._replace(start=jnp.asarray(np.stack(starts)))
    problem = calibration_problem(plant, records, CALIBRATED)
    print("; ".join(problem.lines()), f"unknown={problem.n_unknown}", flush=True)
    found, seconds, used = timed(problem, plan, seed)
    low, high = np.quantile(found.pooled, (0.025, 0.975), axis=0)
    inside = int(np.sum((low <= true) & (true <= high)))
    for line in found.problems:
        print(f"speaks against it: {line}")
    print(
        f"\ncho: inside_95={inside} of={true.size} {told(found)} seconds={seconds:.0f} "
        f"cpu_seconds={used:.0f}",
        flush=True,
    )


def timed(problem: Any, plan: Plan, seed: int, method: Any = "nuts") -> tuple[Any, float, float]:
    """A posterior, and what it cost."""
    begun, used = time.perf_counter(), cpu_seconds()

    def said(text: str) -> None:
        clock = f"{time.perf_counter() - begun:6.0f} s {cpu_seconds() - used:6.0f} CPU s"
        print(f"{clock}  {text}", flush=True)

    def part(done: int, left: int) -> None:
        if done % 50 == 0:
            said(f"{done} of {done + left} draws")

    with telling(said):
        found = calibrate(problem, plan=plan, seed=seed, method=method, on_part=part)
    return found, time.perf_counter() - begun, cpu_seconds() - used


def sbc(replicates: int, seed: int) -> None:
    """Ranks of true constants of a small chemostat among draws of their posterior."""
    mechanism = plain_monod(MONOD_CHEMOSTAT)
    made = virtual_plant(MONOD_CHEMOSTAT, mechanism, rtol=1e-4, atol=1e-7, max_steps=64)
    hours = np.array([0.0, 6.0, 12.0, 24.0])
    plant = described_experiment(made, hours, start={"X": 1.0, "S": 5.0, "P": 0.0})
    controls = np.tile([0.1, 10.0], (1, 3, 1))
    rng, plan = np.random.default_rng(seed), Plan(n_warmup=60, n_draws=120, n_chains=2)
    names, ranks, worst, n_divergent = ["mu_max", "a_S"], [], 0.0, 0
    begun = cpu_seconds()
    for k in range(replicates):
        z = rng.standard_normal(2)
        base = simulated(plant, np.asarray(plant.start)[None], controls, rng, 0.0)
        problem = calibration_problem(plant, base, names, starts_known=True)
        x = values_at(problem.laws, jnp.asarray(z))
        moved = plant.pulled(problem.levers, x)
        own = simulated(moved, np.asarray(plant.start)[None], controls, rng, 0.05)
        problem = calibration_problem(plant, own, names, starts_known=True)
        start = begin(problem, plan.n_chains)
        found = sample(problem, start.white, plan, key=jax.random.fold_in(jax.random.key(seed), k))
        n_divergent += int(found.is_divergent.sum())
        draws = found.u[:, 5::6].reshape(-1, 2)
        ranks.append(np.sum(draws < z, axis=0))
        if (k + 1) % 25 == 0:
            print(f"{k + 1} replicates, {cpu_seconds() - begun:.0f} CPU s", flush=True)
    table, bins, n_ranks = np.array(ranks), 10, 41
    share = np.bincount(np.arange(n_ranks) * bins // n_ranks) / n_ranks
    values = []
    for i in range(2):
        counts = np.bincount(table[:, i] * bins // n_ranks, minlength=bins)
        values.append(stats.chisquare(counts, replicates * share).pvalue)
        worst = max(worst, float(np.max(np.abs(counts - replicates * share))))
    p_values = " ".join(f"p_{n}={v:.3f}" for n, v in zip(names, values, strict=True))
    print(
        f"\nsbc: replicates={replicates} {p_values} largest_gap={worst:.1f} "
        f"divergent={n_divergent} cpu_seconds={cpu_seconds() - begun:.0f}"
    )


def data(folder: Path, work: Path, plan: Plan, seed: int, method: Any) -> None:
    """Real cultures, with Monod's mechanism each."""
    file, columns = work / "yeast.toml", work / "columns.toml"
    file.write_text(YEAST)
    from benchmarks.science.real_data import COLUMNS

    columns.write_text(COLUMNS)
    rules = FileRules.of(columns)
    for name, table in (
        ("yeast", read_culture(folder / "real_yeast_batches.csv", str(file), None)),
        ("cho_two_clones", read_culture(folder / "real_cho_two_clones.csv", None, rules)),
    ):
        process: Process | None = table.process
        plant = plant_of(process, "monod", rtol=1e-4, atol=1e-7)
        runs = [run for run in table.trajectories if run.n_days >= 2]
        problem = calibration_problem(plant, runs, learn_noise=True)
        print("; ".join(problem.lines()), f"unknown={problem.n_unknown}", flush=True)
        found, seconds, used = timed(problem, plan, seed, method)
        for line in found.problems:
            print(f"speaks against it: {line}")
        noise = found.noise.reshape(-1, len(found.columns)).mean(axis=0)
        shares = " ".join(
            f"{c}={100 * found.check.inside[0.8][k]:.0f}/{100 * found.check.inside[0.95][k]:.0f}"
            f"(x{noise[k]:.1f})"
            for k, c in enumerate(found.columns)
            if found.check.n_read[k]
        )
        print(
            f"\n{name}: {shares} {told(found)} seconds={seconds:.0f} cpu_seconds={used:.0f}",
            flush=True,
        )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cho", "sbc", "data"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("."))
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=180)
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--method", choices=("nuts", "svi", "map"), default="nuts")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    plan = Plan(n_warmup=asked.warmup, n_draws=asked.draws, n_chains=asked.chains)
    if asked.what == "cho":
        cho(plan, asked.seed)
    elif asked.what == "sbc":
        sbc(asked.replicates, asked.seed)
    elif asked.data is None:
        parser.error("data needs --data, the folder of the tables.")
    else:
        data(asked.data, asked.work, plan, asked.seed, asked.method)


if __name__ == "__main__":
    main()
