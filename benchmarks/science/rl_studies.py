"""What learned policies are worth: `python -m benchmarks.science.rl_studies compare`.

compare      Policies (both returns, PPO, gradient through the plant), PID and model-predictive
             control on one scenario of each case: on the plant of the case, with 1, 3 and 7 % of
             uncertainty, and on a plant nobody was trained on or told of (lights must be
             half as strong again, amino acids decay twice as fast).
sensitivity  The saturation return on the set-points (3.5, 3.5) with other values of what the
             publication does not print: decay, half-saturation of glucose, bounds of the lights
             and length of a step; beside each the optimum of that plant.
tune         The budget of tuning that either return gets: twelve pairs of rate and floor on three
             scenarios, on seeds that no table uses.
epochs       With the pair that won: half as many epochs, or all, on the same scenarios.

One line per result goes to `runs/science_rl_<study>.csv`; started again, it goes on with what is
missing. `--report` prints the table.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.rl import (
    SCENARIOS,
    Consortium,
    Problem,
    Scenario,
    TrainSettings,
    best_epoch_again,
    build,
    returns_of,
    train,
    train_settings,
)
from perfusio_jax.rl.baselines import (
    closed_loops,
    find_optimum,
    light_then_hold,
    make_mpc,
    score,
    tune_pid,
)
from perfusio_jax.rl.controllers import PolicyController

COMPARED = (3, 4, 6, 7)
"""One scenario per case."""
LEVELS = (0.0, 0.01, 0.03, 0.07)
N_EPISODES = 32
TEST_KEY = 4711
RETURNS = ("saturation", "quadratic")
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "RL, saturation": ("saturation", {}),
    "RL, quadratic": ("quadratic", {}),
    "PPO, saturation": ("saturation", {"method": "ppo", "n_epochs": 3200}),
    "pathwise, saturation": (
        "saturation",
        {"method": "pathwise", "n_episodes": 32, "n_epochs": 2600},
    ),
}
"""Return, and what differs from its settings, so that trainings take about as long."""
HEADS = {
    "compare": (
        "scenario", "controller", "seed", "condition", "naae", "naae_sd", "last", "effort",
        "above", "ms_per_decision", "training_s",
    ),
    "sensitivity": ("changed", "value", "seed", "naae", "last", "optimum", "epochs", "seconds"),
    "tune": ("scenario", "return", "rate", "floor", "seed", "naae", "last", "epochs", "seconds"),
    "epochs": ("scenario", "return", "most", "seed", "naae", "last", "epochs", "seconds"),
}  # fmt: skip

learn = eqx.filter_jit(train)


def judged(problem: Problem, settings: TrainSettings, seed: int) -> list[Any]:
    """Train once: error of the best epoch, that of the last 6 steps, epochs, seconds."""
    begun = time.perf_counter()
    state = learn(problem, settings, key=jax.random.key(seed))
    seen = best_epoch_again(problem, settings, state)
    reference = np.asarray(problem.params.reference)[None]
    gap = np.abs(np.asarray(seen.episodes.tracked) - reference) / reference
    return [
        f"{float(seen.error.mean()):.4f}", f"{gap[:, -6:].mean():.4f}", int(state.epoch),
        f"{time.perf_counter() - begun:.1f}",
    ]  # fmt: skip


def trained(scenario: Scenario, name: str, seed: int) -> tuple[PolicyController, float]:
    """A policy for a scenario, and how long its training took [s]."""
    begun = time.perf_counter()
    returns, changes = TRAINED[name]
    problem = Problem(*build(scenario), returns_of(scenario)[returns])
    settings = train_settings(scenario, returns, **changes)
    state = learn(problem, settings, key=jax.random.key(seed))
    policy = jax.block_until_ready(state.best)
    return PolicyController(policy), time.perf_counter() - begun


def conditions(scenario: Scenario) -> Iterator[tuple[str, Any]]:
    """Names of the test conditions, and the parameters that then hold."""
    for level in LEVELS:
        yield f"{100 * level:g} %", build(scenario, uncertainty=level)[1]
    plant = Consortium()
    plant = eqx.tree_at(
        lambda p: (p.light_half_saturation, p.degradation),
        plant,
        (1.5 * plant.light_half_saturation, 2.0 * plant.degradation),
    )
    known = build(scenario, uncertainty=0.0)[1]
    yield "changed plant", eqx.tree_at(lambda p: p.plant, known, plant)


CLASSICAL = ("PID", "MPC", "MPC, 8 scenarios")
"""These have no luck of their own: one seed is enough."""


def controllers(
    scenario: Scenario, seed: int, wanted: set[str]
) -> Iterator[tuple[str, Any, float]]:
    """Name, controller, and time of training or tuning [s]."""
    for name in TRAINED:
        if name in wanted:
            yield (name, *trained(scenario, name, seed))
    env, params = build(scenario)
    begun = time.perf_counter()
    if "PID" in wanted:
        pid, _ = jax.block_until_ready(tune_pid(env, params, key=jax.random.key(1)))
        yield "PID", pid, time.perf_counter() - begun
    if not wanted & {"MPC", "MPC, 8 scenarios"}:
        return
    begun = time.perf_counter()
    best = jax.block_until_ready(find_optimum(env, params, starts(scenario, env.n_steps)))
    spent = time.perf_counter() - begun
    if "MPC" in wanted:
        yield "MPC", make_mpc(env, best.z), spent
    if "MPC, 8 scenarios" in wanted:
        yield "MPC, 8 scenarios", make_mpc(env, best.z, n_scenarios=8), spent


def starts(scenario: Scenario, n_steps: int) -> Any:
    """Where the search for an optimum begins."""
    return light_then_hold(
        n_steps, (0.0, 2.0, 3.0, 4.0) if scenario.start == "setpoint" else (0.0,)
    )


def compare(seed: int, done: set[tuple[str, ...]]) -> Iterator[list[Any]]:
    """Every controller under every condition."""
    for scenario in (SCENARIOS[i] for i in COMPARED):
        env, params = build(scenario)
        names = (*TRAINED, *(() if seed else CLASSICAL))
        last = "changed plant"
        wanted = {n for n in names if (scenario.name, n, str(seed), last) not in done}
        told = build(scenario, uncertainty=max(scenario.uncertainty, 0.07))[1]
        for name, controller, spent in controllers(scenario, seed, wanted):
            known = told if name == "MPC, 8 scenarios" else params
            for condition, truth in conditions(scenario):
                if (scenario.name, name, str(seed), condition) in done:
                    continue
                is_spread = bool(truth.uncertainty.initial > 0.0)
                keys = jax.random.split(jax.random.key(TEST_KEY), N_EPISODES if is_spread else 1)
                run = jax.block_until_ready(closed_loops(env, known, controller, keys, truth))
                each = ""
                if not is_spread:  # one episode: what a decision takes, plant included
                    begun = time.perf_counter()
                    jax.block_until_ready(closed_loops(env, known, controller, keys, truth))
                    each = f"{1e3 * (time.perf_counter() - begun) / env.n_steps:.3f}"
                out = score(known, run)
                yield [
                    scenario.name, name, seed, condition, f"{float(out.error.mean()):.4f}",
                    f"{float(out.error.std()):.4f}", f"{float(out.last.mean()):.4f}",
                    f"{float(out.effort.mean()):.4f}", f"{float(out.violations.mean()):.4f}",
                    each, f"{spent:.1f}",
                ]  # fmt: skip


def changes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What is changed, to what, and how a problem is built with it."""
    yield "nothing", "", {}
    for value in (0.0, 0.1, 0.5, 1.0):
        plant = eqx.tree_at(lambda p: p.degradation, Consortium(), jnp.full(2, value))
        yield "decay [1/h]", f"{value:g}", {"plant": plant}
    for value in (2.9e-5, 2.9e-3, 2.9e-2):
        plant = eqx.tree_at(lambda p: p.half_saturation, Consortium(), jnp.asarray(value))
        yield "k_s [mmol/L]", f"{value:g}", {"plant": plant}
    for value in (1.5, 6.0, 10.0):
        yield "most light [W/m2]", f"{value:g}", {"max_light": value}
    for value in (0.75, 1.25):
        yield "step [h]", f"{value:g}", {"step_h": value}


def sensitivity(seed: int, done: set[tuple[str, ...]]) -> Iterator[list[Any]]:
    """One training and one optimum per changed value."""
    scenario = SCENARIOS[3]
    for what, value, change in changes():
        if (what, value, str(seed)) in done:
            continue
        env, params = build(scenario, **change)
        problem = Problem(env, params, returns_of(scenario)["saturation"])
        error, last, *rest = judged(problem, train_settings(scenario, "saturation"), seed)
        best = find_optimum(env, params, starts(scenario, env.n_steps))
        yield [what, value, seed, error, last, f"{float(best.error):.4f}", *rest]


TUNED_ON = (0, 3, 5)
"""Scenarios: the widest and the closest set-points, and the faster trajectory."""
FIRST_TUNING_SEED = 1000
RATES, FLOORS = (0.001, 0.003, 0.006, 0.012), (0.03, 0.1, 0.3)


def tune(seed: int, done: set[tuple[str, ...]]) -> Iterator[list[Any]]:
    """Every pair of rate and floor, for both returns alike."""
    seed += FIRST_TUNING_SEED
    for scenario, name, rate, floor in itertools.product(
        (SCENARIOS[i] for i in TUNED_ON), RETURNS, RATES, FLOORS
    ):
        if (scenario.name, name, str(rate), str(floor), str(seed)) in done:
            continue
        problem = Problem(*build(scenario), returns_of(scenario)[name])
        settings = TrainSettings(learning_rate=rate, floor=floor, is_single=True)
        yield [scenario.name, name, rate, floor, seed, *judged(problem, settings, seed)]


MOST_EPOCHS = (4800, 9600)


def epochs(seed: int, done: set[tuple[str, ...]]) -> Iterator[list[Any]]:
    """Fewer or more epochs, for both returns alike; rate and spread fall over all of them."""
    seed += FIRST_TUNING_SEED
    for scenario, name, most in itertools.product(
        (SCENARIOS[i] for i in TUNED_ON), RETURNS, MOST_EPOCHS
    ):
        if (scenario.name, name, str(most), str(seed)) in done:
            continue
        problem = Problem(*build(scenario), returns_of(scenario)[name])
        settings = train_settings(scenario, name, n_epochs=most)
        yield [scenario.name, name, most, seed, *judged(problem, settings, seed)]


STUDIES = {"compare": compare, "sensitivity": sensitivity, "tune": tune, "epochs": epochs}


def read(path: Path) -> list[dict[str, str]]:
    """Lines of a file of results."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def report(study: str, rows: list[dict[str, str]]) -> None:
    """Print the medians over seeds as Markdown."""

    def median(members: list[dict[str, str]], name: str) -> str:
        given = [float(m[name]) for m in members if m[name]]
        return f"{np.median(given):.4g}" if given else ""

    if study != "compare":
        n_named = HEADS[study].index("seed")
        names, values = HEADS[study][:n_named], HEADS[study][n_named + 1 :]
        print("| " + " | ".join((*names, "seeds", *values)) + " |")
        print("|" + "---|" * (n_named + 1 + len(values)))
        for key in dict.fromkeys(tuple(r[n] for n in names) for r in rows):
            mine = [r for r in rows if tuple(r[n] for n in names) == key]
            cells = (*key, str(len(mine)), *(median(mine, v) for v in values))
            print("| " + " | ".join(cells) + " |")
        return
    tests = list(dict.fromkeys(r["condition"] for r in rows))
    heads = ("scenario", "controller", *tests, "effort", "above at 7 %", "ms", "training s")
    print("| " + " | ".join(heads) + " |")
    print("|---|---|" + "---:|" * (len(tests) + 4))
    for key in dict.fromkeys((r["scenario"], r["controller"]) for r in rows):
        mine = [r for r in rows if (r["scenario"], r["controller"]) == key]
        by_test = [[r for r in mine if r["condition"] == t] for t in tests]
        cells = [f"{median(m, 'naae')} / {median(m, 'last')}" for m in by_test]
        known = [r for r in mine if r["condition"] == "0 %"]
        worst = [r for r in mine if r["condition"] == "7 %"]
        cells += [median(known, "effort"), median(worst, "above")]
        cells += [median(known, "ms_per_decision"), median(mine, "training_s")]
        print("| " + " | ".join((*key, *cells)) + " |")


def main() -> None:
    """Fill the file until nothing is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=tuple(HEADS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    path = options.out or Path(f"runs/science_rl_{options.study}.csv")
    heads = HEADS[options.study]
    rows = read(path)
    if options.report:
        report(options.study, rows)
        return
    n_named = heads.index("naae")
    done = {tuple(row[h] for h in heads[:n_named]) for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if not rows:
            writer.writerow(heads)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for line in STUDIES[options.study](seed, done):
                writer.writerow(line)
                handle.flush()
                print(*line, flush=True)


if __name__ == "__main__":
    main()
