"""`perfusio-jax simulate --process`: a campaign table of any described culture."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from perfusio_jax.connectors import plant_mechanism, write_described
from perfusio_jax.process import read_process
from perfusio_jax.simulator import (
    simulate_runs,
    spread_controls,
    usual_start,
    virtual_plant,
    whole_intervals,
)


def simulate_table(
    out: Path,
    which: str,
    *,
    mechanism: str | None,
    n_runs: int,
    days: int,
    every_h: float,
    noise: bool,
    seed: int,
    console: Any,
) -> None:
    """Simulate runs of a described culture and write them.

    Set-points fill their ranges, one set per run. A control of role bolus is what is given over a
    whole run, in equal parts from the second sample on. Runs start as `usual_start` says, the
    biomass between half of that and one and a half times as much.

    Args:
        out: Table to write.
        which: A built-in name, or a file that ends in .toml.
        mechanism: `monod` or `module:Class`; `monod` if None.
        n_runs: Number of runs.
        days: Length of each [d].
        every_h: Hours between samples [h].
        noise: Whether assays are noisy.
        seed: Random seed.
        console: Where to print.

    Raises:
        ConfigError: If there is no such culture or mechanism, or they do not fit.
        SimulationError: If a run fails.
    """
    process = read_process(which)
    intervals = whole_intervals(days, every_h)
    plant = virtual_plant(process, plant_mechanism(process, mechanism))
    usual = usual_start(process)
    starts = np.tile([usual[name] for name in plant.states], (n_runs, 1))
    rng = np.random.default_rng(seed)
    if process.biomass is not None:
        starts[:, plant.states.index(process.biomass)] *= rng.uniform(0.5, 1.5, n_runs)
    set_points = spread_controls(process, n_runs, seed=seed)
    controls = np.repeat(set_points[:, None], intervals, axis=1)
    for k, control in enumerate(process.controls):
        if control.role == "bolus":
            controls[:, 0, k] = 0.0
            controls[:, 1:, k] /= max(intervals - 1, 1)
    with console.status(f"simulating {n_runs} runs of {days} d"):
        runs = simulate_runs(
            plant,
            starts,
            controls,
            np.arange(intervals + 1) * every_h,
            key=jax.random.key(seed),
            noise=noise,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        write_described(runs, out, process)
    begun = ", ".join(f"{name} {usual[name]:g}" for name in plant.states)
    console.print(f"start: {begun}; biomass within half of that.", soft_wrap=True)
    name = type(plant.mechanism).__name__
    console.print(
        f"{n_runs} runs of {days} d, sampled every {every_h:g} h, {process.name}, mechanism "
        f"{name}: {out}"
    )
