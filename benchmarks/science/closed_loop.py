"""Tracking a rack for four weeks: `python -m benchmarks.science.closed_loop`.

Five vessels for 28 days, three with virtual clone X and two with Y, each vessel a little
different from its clone. Day 4 is the first decision; before it all run on the centre of the
design space. Targets are a cell volume and a titre per clone that some recipe holds with the
viability above 95 %: the recipe is unknown to every controller. P(viability >= 95 % on every
day of the horizon) >= 0.9 is asked of the controllers that can forecast. Daily samples with
noise and gaps. Controllers:

  twin   hybrid model per clone, fitted to 27 runs of it and updated every four days with what
         its own vessels have shown, joint decisions on the rack (`BEDPolicy.decide_rack`)
  mpc    the same decisions and the same filter, with the vessel's own true mechanism: the limit
  p, pi  bleed control on the cell volume, gains tuned on the true plant over several noise seeds
  fixed  the centre recipe

Errors are of noise-free truth, as a share of the target. The settling day is the first from
which the error stays within 15 % to the end; the mean error counts from day 14. Violations are
vessel-days from day 7 on with true viability below 95 %.
"""

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, STATE_ORDER
from perfusio_jax.bed import ROLLOUT_SETTINGS, BEDPolicy, TargetSpec
from perfusio_jax.bed.policy.policies import ReactorNow
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.demo.baselines import Loop, run_baselines
from perfusio_jax.hybrid import (
    HybridConfig,
    HybridStateSpaceModel,
    condition_on,
    filter_step,
    fit_hybrid,
    initial_belief,
)
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.simulator import (
    NoiseModel,
    campaign_design,
    initial_state,
    rack,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)

CLONES = ("CloneX", "CloneX", "CloneX", "CloneY", "CloneY")
DAYS, FIRST, LEARN_EVERY = 28, 4, 4
SETTLED_FROM, JUDGED_FROM, LIMIT = 14, 7, 95.0
BAND = 0.15
VESSEL_SPREAD = 0.2
SPACE = DEFAULT_AMBR250_DESIGN_SPACE.replace(viability_min=LIMIT)
LOWER, UPPER = (np.asarray(b) for b in SPACE.bounds_array)
CENTRE = 0.5 * (LOWER + UPPER)
VCV, VIA, TITRE = (FORECAST_SPECIES.index(s) for s in ("VCV", "Via", "Titer"))
FACE = [FORECAST_SPECIES.index(s) for s in STATE_ORDER]
QUIET = NoiseModel(cv_by_species={}, default_cv=0.0, missing_prob=0.0, jitter_hours=0.0)
NOISE = NoiseModel(jitter_hours=0.0)
SETTINGS = ROLLOUT_SETTINGS._replace(n_restarts=2, n_raw_samples=32, max_rounds=10)


class Goal(NamedTuple):
    """Targets of a clone."""

    vcv: float
    titre: float


def run_plant(reactor: Any, controls: np.ndarray, noise: NoiseModel, seed: int) -> Any:
    """Readings of vessels under set-points (vessels, days, 6), from inoculation."""
    n, days = controls.shape[:2]
    padded = np.concatenate([controls, np.repeat(controls[:, -1:], DAYS - days, axis=1)], axis=1)
    return simulate_campaign(
        reactor,
        jnp.broadcast_to(initial_state(), (n, 10)),
        jnp.asarray(padded),
        noise,
        key=jax.random.key(seed),
    )


def choose_goal(clone: str) -> Goal:
    """Cell volume and titre of a recipe that holds the viability with half a per cent to spare.

    Of such recipes the one at the 70 % quantile of the cell volume: neither idle nor extreme.
    """
    points = LOWER + (UPPER - LOWER) * qmc.Sobol(6, seed=5).random_base2(9)
    points = points[points[:, 1] <= points[:, 0]]
    controls = np.repeat(points[:, None, :], DAYS, axis=1)
    truth = np.asarray(run_plant(virtual_reactor(clone), controls, QUIET, 0).truth)
    late = truth[:, SETTLED_FROM:]
    legal = np.flatnonzero(truth[:, JUDGED_FROM:, VIA].min(axis=1) >= LIMIT + 0.5)
    volume = late[legal, :, VCV].mean(axis=1)
    k = legal[np.argsort(volume)[int(0.7 * (len(legal) - 1))]]
    return Goal(float(late[k, :, VCV].mean()), float(late[k, :, TITRE].mean()))


def learn(clone: str, seed: int) -> Any:
    """Hybrid model of a clone from its campaign."""
    design = campaign_design(seed=seed)
    n = len(design)
    readings = simulate_campaign(
        virtual_reactor(clone),
        jnp.broadcast_to(initial_state(), (n, 10)),
        jnp.asarray(np.repeat(design[:, None, :], 14, axis=1)),
        NoiseModel(),
        key=jax.random.key(5000 + seed),
    )
    runs = to_trajectories(readings, clone_ids=[clone] * n)
    model, _ = fit_hybrid(runs, key=jax.random.key(seed), config=HybridConfig(growth=128))
    return model


def control(
    models: list[Any], goals: list[Goal], reactor: Any, seed: int, *, updates: bool
) -> np.ndarray:
    """Close the loop; set-points (vessels, days, 6)."""
    n = len(models)
    controls = np.repeat(np.tile(CENTRE, (n, 1))[:, None, :], DAYS, axis=1)
    policies = {
        clone: BEDPolicy(
            None,
            SPACE,
            targets=[TargetSpec(VCV, goal.vcv), TargetSpec(TITRE, goal.titre)],
            n_paths=32,
            settings=SETTINGS,
        )
        for clone, goal in zip(CLONES, goals, strict=True)
    }
    fitted = list(models)
    beliefs: list[Any] = [None] * n
    for day in range(DAYS):
        # the past does not depend on later set-points, nor does its noise
        readings = run_plant(reactor, controls, NOISE, seed)
        measured = np.asarray(readings.measured)
        for v in range(n):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), day), v)
            face = jnp.asarray(measured[v, day][FACE])
            if day == 0:
                beliefs[v] = initial_belief(fitted[v], face, key=key)
            else:
                fed = readings.stream_totals[v, day, 2]
                beliefs[v], _ = filter_step(
                    fitted[v], beliefs[v], controls[v, day - 1], fed, face, 24.0, key=key
                )
        if updates and day >= FIRST and (day - FIRST) % LEARN_EVERY == 0 and day > FIRST:
            fitted = _updated(models, readings, day, seed)
        if day < FIRST:
            continue
        for clone in dict.fromkeys(CLONES):
            mine = [v for v in range(n) if CLONES[v] == clone]
            vessels = [
                ReactorNow(
                    beliefs[v],
                    day,
                    controls[v, day - 1],
                    model=fitted[v],
                    targets=[TargetSpec(VCV, goals[v].vcv), TargetSpec(TITRE, goals[v].titre)],
                )
                for v in mine
            ]
            made = policies[clone].decide_rack(vessels, seed=1000 * seed + day)
            for v, decision in zip(mine, made, strict=True):
                u = [decision.recommended_controls[name] for name in CONTROL_NAMES]
                controls[v, day:] = np.asarray(u)[None, :]
    return controls


def _updated(models: list[Any], readings: Any, day: int, seed: int) -> list[Any]:
    """Each clone's model with the runs of its vessels so far."""
    runs = to_trajectories(
        jax.tree.map(lambda v: v[:, : day + 1] if v.ndim > 1 else v, readings),
        clone_ids=list(CLONES),
    )
    by_clone = {
        clone: condition_on(
            models[CLONES.index(clone)],
            [run for run, c in zip(runs, CLONES, strict=True) if c == clone],
            key=jax.random.key(seed + day),
        )
        for clone in dict.fromkeys(CLONES)
    }
    return [by_clone[clone] for clone in CLONES]


def classical(goals: list[Goal], reactor: Any, seed: int) -> dict[str, np.ndarray]:
    """Set-points of the fixed recipe and of tuned P and PI bleed control."""
    out = {
        name: np.repeat(np.tile(CENTRE, (len(CLONES), 1))[:, None, :], DAYS, axis=1)
        for name in ("fixed", "p", "pi")
    }
    for v, goal in enumerate(goals):
        loop = Loop(
            reactor=eqx.tree_at(
                lambda r: r.kinetics,
                reactor,
                jax.tree.map(lambda leaf, v=v: leaf[v], reactor.kinetics),
            ),
            initial=initial_state(),
            recipe=jnp.asarray(CENTRE),
            target=goal.vcv,
            startup_days=FIRST,
            n_days=DAYS,
            bleed_bounds=(float(LOWER[1]), float(UPPER[1])),
            noise=NOISE,
        )
        keys = jax.random.key(77), jax.random.fold_in(jax.random.key(seed), v)
        found = run_baselines(loop, key=keys[0], sample_key=keys[1])
        out["p"][v, :, 1] = found["bleed_trigger"]["bleed"]
        out["pi"][v, :, 1] = found["bleed_pi"]["bleed"]
    return out


def judge(
    name: str, seed: int, controls: np.ndarray, goals: list[Goal], reactor: Any
) -> list[dict[str, Any]]:
    """A row per vessel."""
    truth = np.asarray(run_plant(reactor, controls, QUIET, seed).truth)
    rows = []
    for v, goal in enumerate(goals):
        row: dict[str, Any] = {"seed": seed, "controller": name, "vessel": v, "clone": CLONES[v]}
        for label, k, target in (("vcv", VCV, goal.vcv), ("titre", TITRE, goal.titre)):
            error = np.abs(truth[v, :, k] / target - 1.0)
            outside = np.flatnonzero(error > BAND)
            row[f"{label}_error"] = round(float(error[SETTLED_FROM:].mean()), 5)
            last = outside[-1] + 1 if outside.size else 0
            row[f"{label}_settled"] = int(last) if last <= DAYS else 99
            row[f"{label}_target"] = round(target, 3)
        low = truth[v, JUDGED_FROM:, VIA]
        row["violations"] = int(np.sum(low < LIMIT))
        row["days"] = len(low)
        row["lowest_viability"] = round(float(low.min()), 3)
        rows.append(row)
    return rows


def one_seed(seed: int, goals: list[Goal]) -> list[dict[str, Any]]:
    """All controllers on one rack."""
    reactor, _ = rack(CLONES, key=jax.random.key(seed), spread=VESSEL_SPREAD)
    rows = []
    for name, controls in classical(goals, reactor, seed).items():
        rows += judge(name, seed, controls, goals, reactor)
    truths = [
        HybridStateSpaceModel(
            CHOPerfusionModel(jax.tree.map(lambda leaf, v=v: leaf[v], reactor.kinetics)), None
        )
        for v in range(len(CLONES))
    ]
    known = control(truths, goals, reactor, seed, updates=False)
    rows += judge("mpc", seed, known, goals, reactor)
    by_clone = {clone: learn(clone, seed) for clone in dict.fromkeys(CLONES)}
    found = control([by_clone[c] for c in CLONES], goals, reactor, seed, updates=True)
    return rows + judge("twin", seed, found, goals, reactor)


CONTROLLERS = ("twin", "mpc", "pi", "p", "fixed")


def tables(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Markdown, and the line that sums it up."""
    seeds = sorted({r["seed"] for r in rows})
    cv = dict(zip(("VCD", "Titer"), np.asarray(NOISE.cv_array(("VCD", "Titer"))), strict=True))
    goals = {r["clone"]: (r["vcv_target"], r["titre_target"]) for r in rows}
    lines = [
        f"{len(seeds)} seeds, 5 vessels each. Targets: "
        + "; ".join(f"{c} VCV {a:.1f} %, titre {b:.0f} mg/L" for c, (a, b) in goals.items())
        + ". Mean over vessels and seeds (worst seed); errors in % of the target, from day 14.",
        "",
        "| controller | VCV error | settled on day | titre error | settled on day | "
        "violations [% of vessel-days] | lowest viability |",
        "|---|---|---:|---|---:|---:|---:|",
    ]

    def mean(name: str, key: str) -> np.ndarray:
        return np.array(
            [
                np.mean([r[key] for r in rows if r["controller"] == name and r["seed"] == s])
                for s in seeds
            ]
        )

    for name in CONTROLLERS:
        mine = [r for r in rows if r["controller"] == name]
        if not mine:
            continue
        cells = []
        for label in ("vcv", "titre"):
            error = 100 * mean(name, f"{label}_error")
            days = [r[f"{label}_settled"] for r in mine]
            never = sum(d == 99 for d in days)
            text = f"{np.median(days):.0f}" if 2 * never < len(days) else "not"
            cells += [f"{error.mean():.1f} ({error.max():.1f})", f"{text} ({never} never)"]
        share = 100 * sum(r["violations"] for r in mine) / sum(r["days"] for r in mine)
        low = min(r["lowest_viability"] for r in mine)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {share:.1f} | {low:.1f} |")
    lines.append("")
    parts = []
    for label, assay in (("vcv", cv["VCD"]), ("titre", cv["Titer"])):
        twin, limit = (100 * mean(c, f"{label}_error").mean() for c in ("twin", "mpc"))
        bar = max(1.5 * limit, 100 * assay)
        lines.append(
            f"{label}: twin {twin:.1f} %, limit {limit:.1f} %; bar: the larger of 1.5 times the "
            f"limit and the assay CV of {100 * assay:.0f} %, that is {bar:.1f} %: "
            f"{'met' if twin <= bar else 'missed'}."
        )
        parts.append(f"{label}_error={twin:.1f} {label}_limit={limit:.1f} {label}_bar={bar:.1f}")
    return "\n".join(lines) + "\n", f"closed_loop: seeds={len(seeds)} " + " ".join(parts)


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier call."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = {"controller", "clone"}
    whole = {"seed", "vessel", "vcv_settled", "titre_settled", "violations", "days"}
    return [
        {k: v if k in texts else int(v) if k in whole else float(v) for k, v in row.items()}
        for row in rows
    ]


def main() -> None:
    """Measure what is missing, keep every row, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 110)))
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after this")
    parser.add_argument("--out", type=Path, default=Path("runs/science_closed_loop.csv"))
    options = parser.parse_args()
    begun = time.perf_counter()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = read(options.out)
    goals: list[Goal] = []
    for seed in options.seeds:
        if seed in {r["seed"] for r in rows} or time.perf_counter() - begun > 60 * options.minutes:
            continue
        if not goals:
            by_clone = {clone: choose_goal(clone) for clone in dict.fromkeys(CLONES)}
            goals = [by_clone[clone] for clone in CLONES]
            print("targets:", by_clone, flush=True)
        start = time.perf_counter()
        rows += one_seed(seed, goals)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        mine = [r for r in rows if r["seed"] == seed]
        text = ", ".join(
            f"{c} {100 * np.mean([r['vcv_error'] for r in mine if r['controller'] == c]):.1f}/"
            f"{100 * np.mean([r['titre_error'] for r in mine if r['controller'] == c]):.1f}"
            for c in CONTROLLERS
        )
        spent = time.perf_counter() - start
        print(f"seed {seed}, error in % of VCV/titre: {text} ({spent:.0f} s)", flush=True)
    if rows:
        text, summary = tables(rows)
        print(text)
        print(summary)


if __name__ == "__main__":
    main()
