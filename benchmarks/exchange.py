"""The plants in libRoadRunner beside themselves: `python -m benchmarks.exchange`.

Fifty runs each of CHO perfusion (set-points that change, 14 days) and of a fed-batch with boluses,
samples and a volume that moves go out as SBML and are run by libRoadRunner at tight tolerances;
every reading has to be equal to 1e-6. Slopes of the last sample by constants, feeds and starts are
finite differences of libRoadRunner there, and ours in forward mode here: equal to 1e-5. Times are
told beside each other, tight on both sides, CPU seconds of one thread.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
from collections.abc import Callable
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from perfusio_jax.exchange import RateModel, rate_model, sbml_text
from perfusio_jax.mechanistic import Mechanism, Method, Tolerances, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import virtual_plant, virtual_reactor
from perfusio_jax.study import (
    Experiment,
    cho_experiment,
    choose_levers,
    described_experiment,
    local_sensitivity,
)

FLOORS = 1e-6
"""Readings below count as if they were this large."""

FED = Process(
    name="fed",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=60.0),
        Quantity(name="S", unit="g/L", hi=150.0),
    ),
    controls=(
        Control(name="feed_rate", unit="mL/h", role="flow", lo=0.0, hi=50.0, default=10.0),
        Control(name="S_bolus", unit="g", role="bolus", lo=0.0, hi=20.0, default=0.0, quantity="S"),
    ),
    streams=(Stream(name="feed", direction="in", flow="feed_rate", carries={"S": 400.0}),),
)


class FedYeast(Mechanism):
    """Growth on a substrate that is fed."""

    mu_max: jax.Array = constant(0.25, unit="1/h", log_sd=0.3)
    K_S: jax.Array = constant(0.5, unit="g/L", log_sd=0.5)
    yield_XS: jax.Array = constant(0.45, unit="g/g", log_sd=0.2)

    def rates(self, state: Any, environment: Any) -> dict[str, jax.Array]:
        """Volumetric rates."""
        growth = self.mu_max * state["S"] / (self.K_S + state["S"]) * state["X"]
        return {"X": growth, "S": -growth / self.yield_XS}


def used(function: Callable[[], Any]) -> tuple[Any, float]:
    """Result and CPU seconds of a call."""
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    found = jax.block_until_ready(function())
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_utime - begun


def perfusion(rng: np.random.Generator, days: int) -> Experiment:
    """A run of CHO perfusion whose set-points change every day."""
    lo = np.array([0.7, 0.05, 2.0, 35.5, 800.0, 0.0])
    hi = np.array([1.8, 0.30, 6.0, 37.0, 950.0, 3.0])
    return cho_experiment(
        virtual_reactor(),
        24.0 * np.arange(days + 1),
        controls=rng.uniform(lo, hi, (days, 6)),
        by_interval=True,
        tolerances=Tolerances(rtol=1e-8),
        method=Method(recorded_steps=128),
    )


def fed_batch(rng: np.random.Generator, days: int) -> Experiment:
    """A fed-batch with boluses and samples."""
    plant = virtual_plant(FED, FedYeast(), rtol=1e-9, atol=1e-12, max_steps=1024)
    n = 2 * days
    controls = rng.uniform([2.0, 0.0], [15.0, 4.0], (n, 2))
    controls[0, 1] = 0.0
    return described_experiment(
        plant,
        np.linspace(0.0, 2.0 * n, n + 1),
        controls=controls,
        start={"X": 1.0, "S": 10.0},
        sample_L=0.01,
    )


class Elsewhere:
    """A model in libRoadRunner."""

    def __init__(self, model: RateModel) -> None:
        import roadrunner

        self.model = model
        self.runner = roadrunner.RoadRunner(sbml_text(model))
        self.runner.integrator.absolute_tolerance = 1e-13
        self.runner.integrator.relative_tolerance = 1e-11
        self.runner.timeCourseSelections = [s.name for s in model.shown]

    def run(self, changed: dict[str, float]) -> np.ndarray:
        """Readings at the samples with parameters at other values."""
        self.runner.resetAll()
        for name, value in changed.items():
            self.runner.setValue(name, value)
        self.runner.reset()
        for control in self.model.steered:  # a reset leaves what events have set
            if not control.is_constant:
                self.runner.setValue(control.name, changed[f"{control.name}_at_1"])
        return np.array(self.runner.simulate(times=list(self.model.hours)))


def parameters_of(model: RateModel) -> dict[str, float]:
    """What differs between two runs of one plant."""
    found = {}
    for control in model.steered:
        if control.is_constant:
            found[control.name] = float(control.values[0])
            continue
        for k, value in enumerate(control.values):
            found[f"{control.name}_at_{k + 1}"] = float(value)
    return found


def compare(name: str, make: Callable[..., Experiment], n_runs: int, days: int) -> tuple:
    """Largest differences of runs and slopes, and CPU seconds of a run and of a gradient."""
    runs = [make(np.random.default_rng(seed), days) for seed in range(n_runs)]
    courses = jax.jit(lambda run: run.course().values)
    jax.block_until_ready(courses(runs[0]))
    ours, ours_s = used(lambda: [courses(run) for run in runs])
    there = Elsewhere(rate_model(runs[0]))
    asked = [parameters_of(rate_model(run)) for run in runs]
    there.run(asked[0])
    theirs, theirs_s = used(lambda: [there.run(one) for one in asked])
    width = len(there.model.shown)
    worst = max(
        float(np.max(np.abs(b - np.asarray(a)[:, :width]) / (FLOORS + np.abs(b))))
        for a, b in zip(ours, theirs, strict=True)
    )
    slopes, ours_g, theirs_g = gradients(runs[0], there, asked[0], width)
    return (name, n_runs, worst, slopes, ours_s / n_runs, theirs_s / n_runs, ours_g, theirs_g)


def gradients(
    run: Experiment, there: Elsewhere, at: dict[str, float], width: int
) -> tuple[float, float, float]:
    """Largest difference of elasticities, in parts of its output's largest, and CPU seconds."""
    levers = choose_levers(run, ("constants", "feeds"))
    known = {c.lever: c.name for c in there.model.constants}
    values = np.asarray(run.lever_values(levers))
    names = [f"last {column}" for column in run.columns[:width]]
    own = [lever.name for lever in levers]

    def slope() -> np.ndarray:
        return np.asarray(local_sensitivity(run, names, own).gradients)

    slope()
    ours, ours_s = used(slope)
    steps = 1e-4 * np.abs(values)

    def differences() -> np.ndarray:
        columns = []
        for lever, value, step in zip(levers, values, steps, strict=True):
            if step == 0.0:
                columns.append(np.full(width, np.nan))
                continue
            name = known[lever.name]
            up = there.run({**at, name: value + step})[-1]
            down = there.run({**at, name: value - step})[-1]
            there.run({**at, name: value})
            columns.append((up - down) / (2.0 * step))
        return np.stack(columns, axis=1)

    theirs, theirs_s = used(differences)
    known_at = steps > 0.0
    a, b = np.asarray(ours)[:, known_at] * values[known_at], theirs[:, known_at] * values[known_at]
    scale = np.max(np.abs(a), axis=1, keepdims=True)
    alive = scale[:, 0] > 0.0
    return float(np.max(np.abs(a - b)[alive] / scale[alive])), ours_s, theirs_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--days", type=int, default=14)
    asked = parser.parse_args()
    table = Table(title="runs and slopes, here and in libRoadRunner; CPU seconds of one thread")
    heads = ("plant", "runs", "worst reading", "worst slope", "run here", "run there")
    for head in (*heads, "gradient here", "gradient there"):
        table.add_column(head, justify="left" if head == "plant" else "right")
    for name, make in (("fed-batch", fed_batch), ("CHO perfusion", perfusion)):
        found = compare(name, make, asked.runs, asked.days)
        print(found, flush=True)
        table.add_row(*(v if isinstance(v, str) else f"{v:.3g}" for v in found))
    Console().print(table)


if __name__ == "__main__":
    main()
