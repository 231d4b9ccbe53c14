"""`perfusio-jax simulate --process`: a campaign table of any described culture."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax.connectors import plant_mechanism, write_described
from perfusio_jax.connectors.files.schedule import on_samples, read_schedules
from perfusio_jax.process import read_process
from perfusio_jax.simulator import (
    by_interval,
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
    schedule: Path | None = None,
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
        schedule: Table of set-points that change within runs; it then says how many runs there
            are, and how long.

    Raises:
        ConfigError: If there is no such culture or mechanism, or they do not fit.
        DataError: If the schedule cannot be read, or does not fit the samples.
        SimulationError: If a run fails.
    """
    process = read_process(which)
    ids, controls = None, None
    if schedule is None:
        hours = np.arange(whole_intervals(days, every_h) + 1) * every_h
    else:
        once = [process.control_names.index(name) for name in process.boluses]
        asked = read_schedules(schedule, process.control_names, lambda n: process.control(n).unit)
        hours, controls = on_samples(schedule, asked, every_h, once)
        n_runs, days = len(asked), hours[-1] / HOURS_PER_DAY
        ids = [one.run_id or f"RUN{k:03d}" for k, one in enumerate(asked, start=1)]
    plant = virtual_plant(process, plant_mechanism(process, mechanism))
    usual = usual_start(process)
    starts = np.tile([usual[name] for name in plant.states], (n_runs, 1))
    rng = np.random.default_rng(seed)
    if process.biomass is not None:
        starts[:, plant.states.index(process.biomass)] *= rng.uniform(0.5, 1.5, n_runs)
    if controls is None:
        spread = spread_controls(process, n_runs, seed=seed)
        controls = by_interval(process, spread, len(hours) - 1)
    with console.status(f"simulating {n_runs} runs of {days:g} d"):
        runs = simulate_runs(
            plant,
            starts,
            controls,
            hours,
            key=jax.random.key(seed),
            noise=noise,
            run_ids=ids,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        write_described(runs, out, process)
    begun = ", ".join(f"{name} {usual[name]:g}" for name in plant.states)
    console.print(f"start: {begun}; biomass within half of that.", soft_wrap=True)
    name = type(plant.mechanism).__name__
    console.print(
        f"{n_runs} runs of {days:g} d, sampled every {every_h:g} h, {process.name}, mechanism "
        f"{name}: {out}",
        soft_wrap=True,
    )
