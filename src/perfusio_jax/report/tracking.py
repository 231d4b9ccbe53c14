"""The `rl` commands: train, screen, compare, and write tables and figures of it."""

import csv
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError, DataError, Result, describe
from perfusio_jax._core.checkpoint import holds_checkpoint
from perfusio_jax._core.programs import compiled
from perfusio_jax.metrics import nauc
from perfusio_jax.report.stopping import end_if_asked
from perfusio_jax.rl import (
    Problem,
    Scenario,
    TrackingReturn,
    TrainSettings,
    TrainState,
    best_epoch_again,
    build,
    load_training,
    returns_of,
    save_training,
    scenarios_of,
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
from perfusio_jax.rl.consortium import growth
from perfusio_jax.rl.controllers import PolicyController
from perfusio_jax.rl.reinforce import RUNNING, Evaluation, begin, continue_training
from perfusio_jax.viz.theme import save_figure
from perfusio_jax.viz.tracking import Course, case_figure, comparison_figure

CHUNK = 100
"""Epochs between two signs of progress."""
BATCH = 4
"""Closed-loop episodes between two looks for Ctrl-C."""
HOLD_STARTS = (0.0, 2.0, 3.0, 4.0)
"""Hours of full light from which the search for the optimum starts."""


@compiled
def _go_on(
    problem: Problem, settings: TrainSettings, state: TrainState, until: jax.Array
) -> TrainState:
    return continue_training(problem, settings, state, until)


def go_on(problem: Problem, settings: TrainSettings, state: TrainState) -> TrainState:
    """A chunk of epochs, to its end."""
    return jax.block_until_ready(_go_on(problem, settings, state, state.epoch + CHUNK))


def make_folder(folder: Path) -> None:
    """Make a folder before the work that ends in it.

    Raises:
        ConfigError: If a file is in its place.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError(f"{place} is a file; a folder is needed there. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)


def train_with_progress(
    problem: Problem,
    settings: TrainSettings,
    *,
    seed: int,
    console: Any,
    name: str,
    folder: Path | None = None,
) -> TrainState:
    """Train in chunks of epochs; with a folder, save after each and go on from what is there.

    Args:
        problem: What to learn.
        settings: How.
        seed: Seed of the key.
        console: A rich console.
        name: What to call it.
        folder: Of the checkpoint.

    Returns:
        The finished training, the same bytes however often it was interrupted.

    Raises:
        DataError: If what is in the folder is another training.
    """
    key = jax.random.key(seed)
    if folder is not None and holds_checkpoint(folder):
        state = load_training(folder, problem, settings)
        if not bool(jnp.all(jax.random.key_data(state.key) == jax.random.key_data(key))):
            raise DataError(
                f"the training in {folder} was begun with another seed than {seed}; choose another "
                "folder."
            )
    else:
        state = begin(problem, settings, key=key)
    if folder is not None:
        make_folder(folder)
    with console.status(f"{name}") as status:
        while int(state.status) == RUNNING:
            state = go_on(problem, settings, state)
            k = int(state.epoch)
            error = float(state.history.error[int(state.best_epoch)])
            text = (
                f"{name}: epoch {k}, best return {float(state.best_return):.3f}, error {error:.3f}"
            )
            status.update(text)
            if folder is not None:
                save_training(folder, problem, settings, state)
            end_if_asked()
    if int(state.status) != Result.SUCCESS:
        console.print(
            f"{name}: stopped in epoch {int(state.epoch)}: {describe(int(state.status))} "
            "The best policy until then is kept.",
            soft_wrap=True,
        )
    return state


def _course(problem: Problem, state: TrainState, seen: Evaluation) -> Course:
    episodes = seen.episodes
    plant = problem.params.plant
    mu = jax.vmap(jax.vmap(lambda x: growth(plant, x)))(episodes.states)
    curve = np.asarray(state.history.mean_return)
    low, high = curve[0], np.nanmax(curve)
    return Course(
        hours=float(problem.params.step_h) * np.arange(problem.env.n_steps + 1),
        tracked=np.asarray(episodes.tracked),
        reference=np.asarray(problem.params.reference),
        growth=np.asarray(mu),
        inputs=np.asarray(episodes.inputs),
        curve=(curve - low) / max(high - low, 1e-12),
    )


def write_table(
    path: Path, heads: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str
) -> None:
    """Write a table as CSV and, beside it, as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def cell(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return "" if np.isnan(value) else f"{value:.4f}"  # no area under one epoch

    cells = [[cell(v) for v in row] for row in rows]
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([heads, *cells])
    lines = [f"# {title}", "", "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def slug(text: str) -> str:
    """Name of a file from a text."""
    return "".join(c if c.isalnum() else "_" for c in text).strip("_").replace("__", "_")


class Sizes(NamedTuple):
    """How large a training is."""

    seed: int = 0
    epochs: int | None = None
    """The case's own if not given."""
    episodes: int = 100
    devices: int = 1
    """Cores, or GPUs, that share the episodes."""
    is_single: bool = True
    """Whether in single precision."""

    def settings(self, scenario: Scenario, name: str) -> TrainSettings:
        """Of a training with a return."""
        return train_settings(
            scenario,
            name,
            n_episodes=self.episodes,
            n_epochs=self.epochs or scenario.epochs,
            n_devices=self.devices,
            is_single=self.is_single,
        )

    @property
    def suffix(self) -> str:
        """What names of tables and figures end with, so that seeds lie side by side."""
        return f"_seed{self.seed}" if self.seed else ""

    @property
    def said(self) -> list[Any]:
        """Seed, episodes and precision, for a table."""
        return [self.seed, self.episodes, "single" if self.is_single else "double"]


def _trained(
    scenario: Scenario, name: str, returns: TrackingReturn, out: Path, sizes: Sizes, console: Any
) -> tuple[Problem, TrainSettings, TrainState, float]:
    """A training of a scenario in its own folder, gone on with if it is there.

    Returns:
        Problem, settings, the finished training, and its seconds: NaN if not all of it is new.
    """
    problem = Problem(*build(scenario), returns)
    settings = sizes.settings(scenario, name)
    label = f"{scenario.name}, {name}"
    folder = out / "trainings" / f"{slug(label)}_seed{sizes.seed}"
    is_new, begun = not holds_checkpoint(folder), time.perf_counter()
    state = train_with_progress(
        problem, settings, seed=sizes.seed, console=console, name=label, folder=folder
    )
    return problem, settings, state, time.perf_counter() - begun if is_new else np.nan


def run_case(case: int, out: Path, sizes: Sizes, *, console: Any) -> None:
    """Train both returns on every scenario of a case; write tables and figures.

    Args:
        case: 1 to 4.
        out: Folder; trainings in it are resumed.
        sizes: Of the trainings.
        console: A rich console.
    """
    rows = []
    for scenario in scenarios_of(case):
        _, params = build(scenario)
        courses = {}
        for name, returns in returns_of(scenario).items():
            label = f"{scenario.name}, {name}"
            problem, settings, state, spent = _trained(scenario, name, returns, out, sizes, console)
            seen = best_epoch_again(problem, settings, state)
            courses[name] = _course(problem, state, seen)
            error, whole = float(jnp.mean(seen.error)), float(jnp.mean(seen.error_from_start))
            area = float(nauc(state.history.mean_return))
            published = scenario.published[0 if name == "saturation" else 1]
            rows.append(
                [scenario.name, name, error, float(jnp.std(seen.error)), whole, area,
                 int(state.epoch), *sizes.said, published]
            )  # fmt: skip
            console.print(
                f"{label}: NAAE {error:.3f} (published {published:.3f}), "
                f"{int(state.epoch)} epochs, "
                + ("found in the folder" if np.isnan(spent) else f"{spent:.0f} s"),
                soft_wrap=True,
            )
        figure = case_figure(
            courses, title=f"Case {case}: {scenario.name}", dilution=float(params.plant.dilution)
        )
        save_figure(figure, out / f"case{case}_{slug(scenario.name)}{sizes.suffix}.png")
    heads = [
        "scenario",
        "return",
        "NAAE",
        "sd",
        "NAAE with k=0",
        "NAUC",
        "epochs",
        "seed",
        "episodes",
        "precision",
        "published NAAE",
    ]
    title = f"Control case {case}: relative errors over the episodes of the best epoch"
    write_table(out / f"case{case}{sizes.suffix}", heads, rows, title=title)
    console.print(f"tables and figures: {out}", soft_wrap=True)


def run_comparison(case: int, out: Path, sizes: Sizes, *, console: Any) -> None:
    """Policies beside PID and model-predictive control on the last scenario of a case.

    Args:
        case: 1 to 4.
        out: Folder; trainings in it are resumed.
        sizes: Of the trainings.
        console: A rich console.
    """
    scenario = scenarios_of(case)[-1]
    env, params = build(scenario)
    tune_key, test_key = jax.random.split(jax.random.key(sizes.seed + 1))
    is_uncertain = scenario.uncertainty > 0.0
    keys = jax.random.split(test_key, 32 if is_uncertain else 1)
    controllers: dict[str, Any] = {}
    costs: dict[str, float] = {}
    trained: dict[str, list[Any]] = {}
    for name, returns in returns_of(scenario).items():
        label = f"RL, {name}"
        _, _, state, costs[label] = _trained(scenario, name, returns, out, sizes, console)
        controllers[label] = PolicyController(state.best)
        trained[label] = [int(state.epoch), *sizes.said]
    begun = time.perf_counter()
    with console.status("PID: tuning"):
        pid, _ = tune_pid(env, params, key=tune_key)
    end_if_asked()
    controllers["PID"], costs["PID"] = pid, time.perf_counter() - begun
    begun = time.perf_counter()
    held = HOLD_STARTS if scenario.start == "setpoint" else HOLD_STARTS[:1]
    with console.status("optimum by gradient through the plant"):
        optimum = find_optimum(env, params, light_then_hold(env.n_steps, held))
    spent = time.perf_counter() - begun
    end_if_asked()
    controllers["MPC"], costs["MPC"] = make_mpc(env, optimum.z), spent
    if is_uncertain:
        controllers["MPC, 8 scenarios"] = make_mpc(env, optimum.z, n_scenarios=8)
        costs["MPC, 8 scenarios"] = spent
    rows, courses = [["optimum, nominal plant", float(optimum.error), *[""] * 11]], {}
    heads = ["controller", "NAAE", "sd", "error, last third", "effort", "above +10 %",
             "ms per decision", "training or tuning [s]", "test episodes", "epochs", "seed",
             "episodes per epoch", "precision"]  # fmt: skip
    title = f"Controllers, case {case}: {scenario.name}"
    for name, controller in controllers.items():
        with console.status(f"{name}") as status:
            parts = []
            for first in range(0, len(keys), BATCH):  # model-predictive control takes its time
                some = keys[first : first + BATCH]
                parts.append(jax.block_until_ready(closed_loops(env, params, controller, some)))
                status.update(f"{name}: closed loop, {first + len(some)} of {len(keys)} episodes")
                end_if_asked()
            episodes_run = jax.tree.map(lambda *v: jnp.concatenate(v), *parts)
            # a decision is timed on one episode, as a reactor would ask for it
            jax.block_until_ready(closed_loops(env, params, controller, keys[:1]))
            begun = time.perf_counter()
            jax.block_until_ready(closed_loops(env, params, controller, keys[:1]))
            each = (time.perf_counter() - begun) / env.n_steps
        out_score = score(params, episodes_run)
        courses[name] = np.asarray(episodes_run.tracked)
        rows.append(
            [name, float(out_score.error.mean()), float(out_score.error.std()),
             float(out_score.last.mean()), float(out_score.effort.mean()),
             float(out_score.violations.mean()), f"{1e3 * each:.3g}",
             "" if np.isnan(costs[name]) else f"{costs[name]:.0f}", len(keys),
             *trained.get(name, [""] * 4)]
        )  # fmt: skip
        write_table(out / f"compare_case{case}{sizes.suffix}", heads, rows, title=title)
        end_if_asked()
        console.print(f"{name}: NAAE {rows[-1][1]:.3f}, {1e3 * each:.3g} ms per decision")
    hours = float(params.step_h) * np.arange(env.n_steps + 1)
    figure = comparison_figure(courses, hours, np.asarray(params.reference), title=title)
    save_figure(figure, out / f"compare_case{case}{sizes.suffix}.png")
    console.print(f"optimum, nominal plant: NAAE {float(optimum.error):.3f}")
    console.print(f"table and figure: {out}", soft_wrap=True)
