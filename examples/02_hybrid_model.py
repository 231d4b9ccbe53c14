"""A hybrid model: fitted to some runs, judged on runs it has never seen.

The mechanism of the library is right in its form and wrong in its numbers, and the virtual plant
has two mechanisms that it lacks. A Gaussian process learns what is left. How much that is worth
is asked of runs left out: the hybrid, the mechanism alone, and "nothing changes" forecast them
from the same samples. The same from a table of real runs, without Python:

    perfusio-jax validate runs.csv
"""

# %%
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.hybrid import HybridConfig, assimilate_run, fit_hybrid, forecast_run
from perfusio_jax.simulator import (
    NoiseModel,
    campaign_design,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import band, legend_entry
from perfusio_jax.viz.theme import DASHES, describe, label, new_figure, themed

NAMES = ("VCD", "Glc", "Lac", "Titer")
LEFT_OUT = (1, 4)
"""Which runs are not fitted to."""

# %% [markdown]
# ## Runs
#
# Two recipes of the design are left out. Their readings are what forecasts are compared with;
# nothing is fitted to them.


# %%
def simulated_runs(n_runs: int, n_days: int) -> list[Trajectory]:
    """Runs of virtual clone X at the recipes of a design."""
    design = jnp.asarray(campaign_design(seed=0)[-n_runs:])
    readings = simulate_campaign(
        virtual_reactor("CloneX"),
        jnp.broadcast_to(initial_state(), (n_runs, 10)),
        jnp.broadcast_to(design[:, None, :], (n_runs, n_days, 6)),
        NoiseModel(),
        key=jax.random.key(0),
    )
    return to_trajectories(readings, clone_ids=["CloneX"] * n_runs)


# %% [markdown]
# ## A forecast
#
# A forecast starts from everything that is known on a day: the filter runs through the samples so
# far and hands on a belief, a cloud of states that agree with them. From there on paths are
# drawn. With `measurement_noise` the intervals are those of readings, so readings can be held
# against them.


# %%
def forecast(model, run: Trajectory, day: int, n_days: int) -> dict[str, np.ndarray]:
    """Days ahead from the sample of a day, by quantile."""
    beliefs = assimilate_run(model, run, key=jax.random.key(1), length=n_days + 1)
    ahead = forecast_run(
        model,
        beliefs.belief(day),
        np.asarray(run.controls)[day:n_days],
        horizon=n_days - day,
        n_samples=128,
        names=NAMES,
        measurement_noise=True,
    )
    return {key: np.asarray(ahead[key]) for key in ("mean", "q10", "q90")}


def seen(run: Trajectory) -> np.ndarray:
    """Readings of the species that are looked at (days, species)."""
    columns = [list(run.species_names).index(name) for name in NAMES]
    return np.asarray(run.species)[:, columns]


def error(guess: np.ndarray, real: np.ndarray, spread: np.ndarray) -> float:
    """Mean of |error| over the spread of each species; gaps do not count."""
    return float(np.nanmean(np.abs(guess - real) / spread))


@themed
def draw(
    runs: list[Trajectory], found: list[dict], plain: list[dict], day: int, path: Path
) -> None:
    """Runs left out, as they were forecast and as they came."""
    figure = new_figure(3.0 * len(NAMES), 2.5 * len(runs) + 0.8, "Runs left out, forecast")
    grid = figure.subplots(len(runs), len(NAMES), squeeze=False, sharex=True)
    for axes, name in zip(grid[0], NAMES, strict=True):
        axes.set_title(label(name))
    for row, run, hybrid, mechanism in zip(grid, runs, found, plain, strict=True):
        real = seen(run)
        ahead = np.arange(day + 1, day + 1 + len(hybrid["mean"]))
        for k, axes in enumerate(row):
            band(axes, ahead, hybrid["q10"][:, k], hybrid["q90"][:, k])
            axes.plot(ahead, hybrid["mean"][:, k], color=PALETTE["twin"])
            axes.plot(ahead, mechanism["mean"][:, k], color=PALETTE["muted"], ls=DASHES[1])
            dots = {"ms": 4, "zorder": 5}
            axes.plot(np.arange(day + 1), real[: day + 1, k], "o", color=PALETTE["target"], **dots)
            later = np.arange(day + 1, len(real))
            axes.plot(later, real[day + 1 :, k], "o", color=PALETTE["ink"], **dots)
            axes.set_ylim(bottom=0.0)
        row[0].set_ylabel(run.run_id)
    for axes in grid[-1]:
        axes.set_xlabel("Culture day")
    handles = [
        legend_entry("dot", "samples it starts from", PALETTE["target"]),
        legend_entry("dot", "samples it did not know", PALETTE["ink"]),
        legend_entry("line", "hybrid, mean", PALETTE["twin"]),
        legend_entry("band", "10-90 % of readings", PALETTE["band"]),
        legend_entry("dashes", "mechanism alone", PALETTE["muted"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=5)
    text = "Cell density, glucose, lactate and titre of runs left out, forecast and measured."
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## All of it
#
# `use_gp=False, calibrate=False` is the mechanism as it comes; everything else about the forecast
# is the same.


# %%
def main(
    folder: Path, n_runs: int = 9, n_days: int = 10, config: HybridConfig | None = None
) -> dict[str, float]:
    """Fit to all runs but two, forecast those.

    Args:
        folder: Where `left_out.png` goes.
        n_runs: Runs in all, at least five.
        n_days: Their length [d].
        config: Settings of the fit.

    Returns:
        By forecaster, mean error over the spread of each species [-].
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = simulated_runs(n_runs, n_days)
    known = [run for k, run in enumerate(runs) if k not in LEFT_OUT]
    new = [runs[k] for k in LEFT_OUT]
    hybrid, report = fit_hybrid(known, key=jax.random.key(0), config=config or HybridConfig())
    plain = HybridConfig(use_gp=False, calibrate=False, n_particles=16)
    mechanism, _ = fit_hybrid(known, key=jax.random.key(0), config=plain)
    print(f"fitted on {len(known)} runs, {report.details.get('rows', '-')} intervals")

    day = n_days // 3
    spread = np.nanstd(np.concatenate([seen(run) for run in runs]), axis=0)
    forecasts = {
        name: [forecast(model, run, day, n_days) for run in new]
        for name, model in (("hybrid", hybrid), ("mechanism", mechanism))
    }
    errors = {}
    for name, found in forecasts.items():
        pairs = zip(found, new, strict=True)
        errors[name] = float(
            np.mean([error(f["mean"], seen(run)[day + 1 :], spread) for f, run in pairs])
        )
    errors["nothing changes"] = float(
        np.mean([error(seen(run)[day], seen(run)[day + 1 :], spread) for run in new])
    )
    for name, value in errors.items():
        print(f"  {name:16s} error {value:.2f} of the spread, days {day + 1} to {n_days}")
    inside = [
        (seen(run)[day + 1 :] >= f["q10"]) & (seen(run)[day + 1 :] <= f["q90"])
        for f, run in zip(forecasts["hybrid"], new, strict=True)
    ]
    print(f"  of the readings {100 * np.mean(inside):.0f} % lie within the hybrid's 80 % intervals")
    draw(new, forecasts["hybrid"], forecasts["mechanism"], day, folder / "left_out.png")
    return errors


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/example02"))
