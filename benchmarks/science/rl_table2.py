"""The publication's table 2: `python -m benchmarks.science.rl_table2`.

Every scenario, both returns, ten seeds. One line per finished training goes to
`runs/science_rl_table2.csv`, or a file that says its sizes; started again, it goes on with what
is missing. The optimum by gradient through the plant stands beside each scenario. `--report`
prints the table.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.metrics import nauc
from perfusio_jax.rl import (
    SCENARIOS,
    Problem,
    Scenario,
    TrainSettings,
    best_epoch_again,
    build,
    returns_of,
    train_settings,
)
from perfusio_jax.rl.baselines import find_optimum, ideal_growth, light_then_hold
from perfusio_jax.rl.reinforce import RUNNING, begin, continue_training

HEADS = (
    "scenario", "return", "seed", "naae", "naae_sd", "naae_from_0", "last_6h", "nauc", "epochs",
    "seconds", "naae_of_mean",
)  # fmt: skip
RETURNS = ("saturation", "quadratic")


@eqx.filter_jit
def go_on(problem: Problem, settings: TrainSettings, state: Any, until: Any) -> Any:
    """A chunk of epochs."""
    return continue_training(problem, settings, state, until)


def one(scenario: Scenario, name: str, seed: int, settings: TrainSettings) -> list[Any]:
    """Train once and judge the best epoch."""
    begun = time.perf_counter()
    env, params = build(scenario)
    problem = Problem(env, params, returns_of(scenario)[name])
    state = begin(problem, settings, key=jax.random.key(seed))
    while int(state.status) == RUNNING:
        state = go_on(problem, settings, state, state.epoch + 200)
    seen = best_epoch_again(problem, settings, state)
    reference = np.asarray(params.reference)[None]
    gap = np.abs(np.asarray(seen.episodes.tracked) - reference) / reference
    values = (
        float(seen.error.mean()),
        float(seen.error.std()),
        float(seen.error_from_start.mean()),
        float(gap[:, -6:].mean()),
        float(nauc(state.history.mean_return)),
    )
    row = [scenario.name, name, seed, *(f"{v:.5f}" for v in values), int(state.epoch)]
    of_mean = np.abs(np.asarray(seen.episodes.tracked).mean(axis=0)[None] - reference) / reference
    return [*row, f"{time.perf_counter() - begun:.1f}", f"{of_mean[:, 1:].mean():.5f}"]


OPTIMA = ("optimum", "optimum of saturation")
"""Of the nominal plant: the least error found, and the error at the largest return found."""


def optima(scenario: Scenario) -> list[list[Any]]:
    """The best inputs found for the nominal plant; each search has a last look from the other's."""
    begun = time.perf_counter()
    env, params = build(scenario)
    hours = (0.0, 2.0, 3.0, 4.0, 5.0) if scenario.start == "setpoint" else (0.0, 1.0)
    starts = light_then_hold(env.n_steps, hours)
    goals = (None, returns_of(scenario)["saturation"])
    found = [find_optimum(env, params, starts, 500, goal).z for goal in goals]
    reference = np.asarray(params.reference)
    ideal = ideal_growth(params.plant, params, reference)
    bound = np.abs(ideal - reference)[1:] / reference[1:]
    print(f"{scenario.name}: no light does better than {bound.mean():.4f}")
    lines = []
    for name, goal in zip(OPTIMA, goals, strict=True):
        best = find_optimum(env, params, jnp.stack(found), 500, goal)
        gap = np.abs(np.asarray(best.tracked) - reference) / reference
        lines.append([
            scenario.name, name, 0, f"{float(best.error):.5f}", "", f"{gap.mean():.5f}",
            f"{gap[-6:].mean():.5f}", "", "", f"{time.perf_counter() - begun:.1f}", "",
        ])  # fmt: skip
    return lines


def done(path: Path) -> dict[tuple[str, str, int], dict[str, str]]:
    """Lines of the file."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as handle:
        return {(r["scenario"], r["return"], int(r["seed"])): r for r in csv.DictReader(handle)}


def report(path: Path) -> None:
    """Print the table as Markdown."""
    rows = done(path)
    heads = (
        "scenario", "return", "seeds", "NAAE", "between seeds", "of mean", "from k=0", "last 6 h",
    )  # fmt: skip
    print("| " + " | ".join((*heads, "published")) + " |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for scenario in SCENARIOS:
        for place, name in enumerate((*RETURNS, *OPTIMA)):
            lines = [r for (s, n, _), r in rows.items() if s == scenario.name and n == name]
            if not lines or (name in OPTIMA and scenario.uncertainty > 0.0):
                continue  # the nominal plant's optimum bounds nothing where plants differ
            error, whole, last = (
                np.array([float(r[k]) for r in lines]) for k in ("naae", "naae_from_0", "last_6h")
            )
            means = [float(r["naae_of_mean"]) for r in lines if r["naae_of_mean"]]
            of_mean = f"{np.median(means):.4f}" if means else ""
            paper = f"{scenario.published[place]:.3f}" if place < 2 else ""
            print(
                f"| {scenario.name} | {name} | {len(lines)} | {np.median(error):.5f} | "
                f"{error.min():.4f} to {error.max():.4f} | {of_mean} | {np.median(whole):.4f} | "
                f"{np.median(last):.4f} | {paper} |"
            )


def main() -> None:
    """Fill the file until nothing is missing or the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--epochs", type=int, help="instead of the scenario's")
    parser.add_argument("--only", choices=("optima", "trainings", *RETURNS))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop beginning after this")
    parser.add_argument("--out", type=Path, help="other sizes have a file of their own")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    sizes: dict[str, Any] = {"n_episodes": options.episodes}
    stem = "science_rl_table2"
    if options.epochs is not None:
        sizes["n_epochs"] = options.epochs
    if options.epochs is not None or options.episodes != parser.get_default("episodes"):
        stem += f"_{options.epochs or 'most'}x{options.episodes}"
    options.out = options.out or Path(f"runs/{stem}.csv")
    if options.report:
        report(options.out)
        return
    begun, rows = time.perf_counter(), done(options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    is_new = not options.out.exists()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = []
    if options.only in (None, "optima"):
        jobs += [(s, "optimum", 0) for s in SCENARIOS if 0 in seeds and not s.uncertainty]
    names = [n for n in RETURNS if options.only in (None, "trainings", n)]
    jobs += [(s, n, seed) for seed in seeds for s in SCENARIOS for n in names]
    with open(options.out, "a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if is_new:
            writer.writerow(HEADS)
        for scenario, name, seed in jobs:
            if (scenario.name, name, seed) in rows:
                continue
            if time.perf_counter() - begun > 60.0 * options.minutes:
                return
            if name == "optimum":
                lines = optima(scenario)
            else:
                settings = train_settings(scenario, name, **sizes)
                lines = [one(scenario, name, seed, settings)]
            writer.writerows(lines)
            handle.flush()
            for line in lines:
                print(*line, flush=True)
            jax.block_until_ready(jnp.zeros(()))


if __name__ == "__main__":
    main()
