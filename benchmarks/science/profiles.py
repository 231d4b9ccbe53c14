"""What changes within a run are worth: `python -m benchmarks.science.profiles`.

Twenty virtual clones of perfusion, drawn and read as in `campaign`: 8 Sobol runs of 14 days with
held set-points, then 4 runs by `perfusio_jax.bed.propose_runs(profile=k)` in one batch, with up to
k changes of each of the six set-points. The goal is the titre on day 14 with the viability above
the plant's limit on every day. All scores are noise-free truth at the nominal inoculum:

  share    titre of the best run that keeps the limit, over that of the best held recipe there is
  equal    titre of the best profiled run over that of the best held recipe that uses no more
           medium than it (perfused volume of the whole run)
  held     the share that 4 held runs (profile=0) reach instead, by the same model; with `--held`

The best held recipes are found on the plant itself, by Sobol points and evolution from many starts.
"""

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from benchmarks.science.campaign import (
    DAYS,
    FAMILY_KEY,
    FEASIBLE_SHARE,
    LOWER,
    N_PATHS,
    N_PLANTS,
    PROBABILITY,
    QUIET,
    START,
    UPPER,
    Problem,
    is_balanced,
    outcomes,
    simulate,
)
from perfusio_jax.bed import ChanceConstraint, control_limits
from perfusio_jax.bed.goal.criteria import FinalValue, ProcessOFV
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.recipes import start_state
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridConfig, draw_paths, fit_hybrid
from perfusio_jax.simulator import NoiseModel, sample_clones
from perfusio_jax.simulator.plant import to_trajectories

PROFILED, CHANGES = 4, 1
"""Runs that change, and changes of each set-point within one."""
GOAL = 0.95


def truth(problem: Problem, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Titre and lowest viability of held or profiled recipes, without noise."""
    found = simulate(problem.kinetics, U, 0, QUIET, 0.0)
    seen = outcomes(np.asarray(found.truth[..., :12]), 0.0)
    return seen.titre, seen.viability


def pose(kinetics: Any, seed: int, n_first: int = 2048) -> Problem:
    """The viability limit of a plant, which a quarter of the space keeps, as in `campaign`."""
    points = _first(n_first)
    blank = Problem(kinetics, seed, 0.0, 0.0, 0.0, np.zeros((0, 2)), np.zeros(2), 0.0)
    _, viability = truth(blank, points)
    limit = float(np.floor(2.0 * np.quantile(viability, 1.0 - FEASIBLE_SHARE)) / 2.0)
    return blank._replace(limit=limit)


def _first(n: int) -> np.ndarray:
    points = LOWER + (UPPER - LOWER) * qmc.Sobol(6, seed=12345).random(n)
    return points[is_balanced(points)]


def best_held(
    problem: Problem, most: float = np.inf, *, n_first: int = 2048, rounds: int = 12
) -> float:
    """Largest true titre of held recipes with at most so much perfusion [mg/L]."""
    rng = np.random.default_rng(problem.seed)
    upper = UPPER.copy()
    upper[0] = min(UPPER[0], max(most, LOWER[0]))
    fresh = _first(n_first)
    fresh[:, 0] = LOWER[0] + (fresh[:, 0] - LOWER[0]) * (upper[0] - LOWER[0]) / (
        UPPER[0] - LOWER[0]
    )
    fresh[:, 1] = np.minimum(fresh[:, 1], fresh[:, 0])
    best, values = np.zeros((0, 6)), np.zeros(0)
    for step in range(rounds + 1):
        titre, viability = truth(problem, fresh)
        titre = np.where(viability >= problem.limit, titre, -np.inf)
        best, values = np.concatenate([best, fresh]), np.concatenate([values, titre])
        order = np.argsort(-values)[:32]
        best, values = best[order], values[order]
        parents = best[rng.integers(len(best), size=256)]
        width = 0.2 * 0.7**step * (upper - LOWER)
        moved = rng.random(parents.shape) < 0.5
        fresh = parents + np.where(moved, width * rng.standard_normal(parents.shape), 0.0)
        fresh = np.clip(fresh, LOWER, upper)
        fresh[:, 1] = np.minimum(fresh[:, 1], fresh[:, 0])
    return float(values[0])


def campaign(
    problem: Problem, changes: int, *, n_first: int = 2048, with_held: bool = False
) -> dict[str, Any]:
    """One clone: start runs, a fit, four more runs, and what they are in truth."""
    begun = time.process_time()
    first = LOWER + (UPPER - LOWER) * qmc.Sobol(6, seed=problem.seed).random_base2(3)
    first[:, 1] = np.minimum(first[:, 1], first[:, 0])
    read = simulate(problem.kinetics, first, 1000 * (problem.seed + 1), NoiseModel(), 0.1)
    runs = to_trajectories(
        read, clone_ids=["plant"] * START, run_ids=[f"RUN{i:03d}" for i in range(START)]
    )
    config = HybridConfig(length=DAYS + 1, lanes=START)
    model, _ = fit_hybrid(runs, key=jax.random.key(problem.seed), config=config)
    key = jax.random.fold_in(jax.random.key(problem.seed), 1)
    paths = draw_paths(model, N_PATHS, key=key, max_steps=DAYS)

    def ask(k: int) -> tuple[np.ndarray, Any]:
        U, info = propose_runs(
            model,
            paths,
            jnp.asarray(start_state(runs)),
            jnp.asarray(first),
            ofv=ProcessOFV([FinalValue("Titer")], horizon=DAYS),
            limits=control_limits(DEFAULT_AMBR250_DESIGN_SPACE),
            q=PROFILED,
            chance=ChanceConstraint(problem.limit, PROBABILITY),
            seed=1,
            profile=k,
        )
        return np.asarray(U), info

    optimum = best_held(problem, n_first=n_first)
    started = _best(problem, first)[0]
    plans, info = ask(changes)
    titre, chosen = _best(problem, plans)
    medium = float(plans[chosen][:, 0].mean())
    equal = best_held(problem, medium, n_first=n_first)
    held = _best(problem, ask(0)[0])[0] if with_held else np.nan
    return {
        "seed": problem.seed,
        "changes": changes,
        "limit": problem.limit,
        "best_held": round(optimum, 1),
        "start": round(started / optimum, 4),
        "share": round(max(titre, started) / optimum, 4),
        "held": round(max(held, started) / optimum, 4) if with_held else np.nan,
        "perfusion": round(medium, 3),
        "equal": round(titre / equal, 4) if titre > 0.0 else 0.0,
        "settled": int(np.sum(np.asarray(info.profile.is_settled))),
        "seconds": round(time.process_time() - begun, 1),
    }


def _best(problem: Problem, U: np.ndarray) -> tuple[float, int]:
    """Best true titre of runs that keep the limit, 0 if none does, and which run it is."""
    titre, viability = truth(problem, U)
    titre = np.where(viability >= problem.limit, titre, 0.0)
    return float(titre.max()), int(np.argmax(titre))


def _shown(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def tables(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Markdown, and the line that sums it up."""
    with_held = not all(np.isnan(r["held"]) for r in rows)
    held = " | + 4 held" if with_held else ""
    lines = [
        f"| clone | viability limit [%] | best held [mg/L] | 8 start runs{held} | + 4 profiled "
        "| over best held with as much medium | perfusion [vvd] |",
        "|---:|---:|---:|---:|---:|---:|---:|" + ("---:|" if with_held else ""),
    ]
    for r in sorted(rows, key=lambda r: r["seed"]):
        lines.append(
            f"| {r['seed']} | {r['limit']:g} | {r['best_held']:.0f} | {r['start']:.3f} | "
            f"{_shown(r['held']) + ' | ' if with_held else ''}{r['share']:.3f} | "
            f"{r['equal']:.3f} | {r['perfusion']:.2f} |"
        )
    share, equal = (np.array([r[k] for r in rows]) for k in ("share", "equal"))
    hits = int(np.sum(share >= GOAL))
    lines += [
        "",
        f"{100 * GOAL:.0f} % of the best held recipe: {hits} of {len(rows)} clones. Best "
        "profiled run over the best held "
        f"recipe with as much medium: median {np.median(equal):.3f} (10 % to 90 % of clones "
        f"{np.quantile(equal, 0.1):.3f} to {np.quantile(equal, 0.9):.3f}).",
    ]
    return "\n".join(lines), (
        f"profiles: clones={len(rows)} reached={hits} "
        f"share={np.median(share):.3f} equal={np.median(equal):.3f}"
    )


def main() -> None:
    """Measure what is missing, keep every row, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(N_PLANTS)))
    parser.add_argument("--key", type=int, default=FAMILY_KEY, help="key of the family")
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--held", action="store_true", help="also 4 runs with held set-points")
    parser.add_argument("--out", type=Path, default=Path("runs/science_profiles.csv"))
    options = parser.parse_args()
    family = sample_clones(jax.random.key(options.key), N_PLANTS)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            rows = [
                {
                    k: int(v) if k in ("seed", "changes", "settled") else float(v)
                    for k, v in r.items()
                }
                for r in csv.DictReader(file)
            ]
    done = {(r["seed"], r["changes"]) for r in rows}
    for seed in options.seeds:
        if (seed, options.changes) in done:
            continue
        problem = pose(jax.tree.map(lambda v, s=seed: v[s], family), seed)
        rows.append(campaign(problem, options.changes, with_held=options.held))
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(rows[-1], flush=True)
    text, summary = tables([r for r in rows if r["changes"] == options.changes])
    print(text)
    print(summary)


if __name__ == "__main__":
    main()
