"""A campaign on a virtual plant: 27 runs, the table they make, and what moves their titre.

A design that spreads six set-points over their ranges is run on a virtual clone, with the noise,
the gaps and the jitter of real assays. What comes out is a campaign table like that of a real
campaign: every command that reads tables reads this one. Since the truth is known here, the last
part asks the plant itself what moves the titre.
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

from perfusio_jax.chemistry import SpeciesRegistry
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.connectors import write_campaign
from perfusio_jax.simulator import (
    NoiseModel,
    Readings,
    campaign_design,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)
from perfusio_jax.viz import save_figure
from perfusio_jax.viz.theme import describe, label, new_figure, themed

SPACE = DEFAULT_AMBR250_DESIGN_SPACE
SPECIES = SpeciesRegistry.DEFAULT

# %% [markdown]
# ## The runs
#
# `simulate_campaign` takes a plant, the state at inoculation and the set-points of every day of
# every run, and integrates all runs in one compiled loop. `Readings` holds what the assays said
# (`measured`, with NaN for a gap) beside what was true (`truth`).


# %%
def run_campaign(n_runs: int, n_days: int) -> Readings:
    """The last runs of the 27 of a Box-Behnken design of two blocks, on clone X."""
    design = jnp.asarray(campaign_design(seed=0)[-n_runs:])
    return simulate_campaign(
        virtual_reactor("CloneX"),
        jnp.broadcast_to(initial_state(), (n_runs, 10)),
        jnp.broadcast_to(design[:, None, :], (n_runs, n_days, 6)),
        NoiseModel(),
        key=jax.random.key(0),
    )


# %% [markdown]
# ## What the recipes are worth
#
# Each run is one recipe, so the simplest look at a campaign is the last titre against each
# set-point. The slope of a plane through them says how much one range of a set-point brings, all
# else equal. A plane knows of no bends, and that is why the models of the next tutorials exist.


# %%
def effects(recipes: np.ndarray, titre: np.ndarray) -> dict[str, float]:
    """Titre gained over the whole range of each set-point, by a plane [mg/L]."""
    lower, upper = map(np.asarray, SPACE.bounds_array)
    scaled = (recipes - lower) / (upper - lower) - 0.5
    plane = np.column_stack([np.ones(len(scaled)), scaled])
    slopes, *_ = np.linalg.lstsq(plane, titre, rcond=None)
    return dict(zip(SPACE.control_names, map(float, slopes[1:]), strict=True))


@themed
def draw(readings: Readings, recipes: np.ndarray, path: Path) -> None:
    """Four quantities of all runs, coloured by the bleed."""
    from matplotlib.colors import Normalize

    names = ("VCD", "Via", "Glc", "Titer")
    bleed = recipes[:, SPACE.control_names.index("bleed_rate")]
    norm = Normalize(float(bleed.min()), float(bleed.max()) + 1e-9)
    figure = new_figure(11.0, 5.6, f"{len(recipes)} runs of a virtual clone, by their bleed")
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    grid = figure.subplots(2, 2, sharex=True)
    for axes, name in zip(grid.flat, names, strict=True):
        column = SPECIES.index(name)
        for run in range(len(recipes)):
            colour = colours(norm(float(bleed[run])))
            truth = np.asarray(readings.truth)[run, :, column]
            axes.plot(np.arange(truth.size), truth, color=colour, lw=1.0, alpha=0.8)
            seen = np.asarray(readings.measured)[run, :, column]
            axes.plot(np.arange(seen.size), seen, ".", color=colour, ms=3.0)
        axes.set_ylabel(label(name))
        axes.margins(x=0.02)
    for axes in grid[-1]:
        axes.set_xlabel("Culture day")
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, colours), ax=grid, shrink=0.7)
    bar.set_label(label("bleed_rate"))
    text = (
        f"Cell density, viability, glucose and titre of {len(recipes)} runs: lines are true, dots "
        "are what was measured."
    )
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## All of it


# %%
def main(folder: Path, n_runs: int = 27, n_days: int = 14) -> dict[str, float]:
    """Simulate, write the table, look.

    Args:
        folder: Where `campaign.csv` and `campaign.png` go.
        n_runs: Runs of the design, at most 27.
        n_days: Their length [d].

    Returns:
        Titre gained over the range of each set-point [mg/L].
    """
    folder.mkdir(parents=True, exist_ok=True)
    readings = run_campaign(n_runs, n_days)
    runs = to_trajectories(readings, clone_ids=["CloneX"] * n_runs)
    write_campaign(runs, folder / "campaign.csv")
    missing = float(np.isnan(np.asarray(readings.measured)).mean())
    print(f"{n_runs} runs of {n_days} days in campaign.csv; {100 * missing:.1f} % of cells missing")

    titre = np.asarray(readings.truth)[:, -1, SPECIES.index("Titer")]
    alive = np.asarray(readings.truth)[:, -1, SPECIES.index("Via")]
    print(f"titre of the last day {titre.min():.0f} to {titre.max():.0f} mg/L, ", end="")
    print(f"viability {alive.min():.1f} to {alive.max():.1f} %")
    recipes = np.asarray([np.asarray(run.controls)[0] for run in runs])
    found = effects(recipes, titre)
    for name, gain in sorted(found.items(), key=lambda pair: -abs(pair[1])):
        print(f"  {name:18s} {gain:+7.1f} mg/L over its range")
    draw(readings, recipes, folder / "campaign.png")
    return found


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/example01"))
