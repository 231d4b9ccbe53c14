"""What moves a run: slopes at a recipe, and shares over whole ranges.

Two questions that are often taken for one. *At this recipe*, which set-point or constant would
move the titre most if it were a little different? And *over all recipes and all constants that
are plausible*, which of them is responsible for how much of the difference between runs? The
first has derivatives for an answer, the second Sobol's indices. Without Python:

    perfusio-jax sensitivity --of "Titer at 14 d" --method sobol
"""

# %%
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_x64()

import numpy as np

from perfusio_jax.simulator import virtual_reactor
from perfusio_jax.study import (
    GlobalSensitivity,
    LocalSensitivity,
    cho_experiment,
    local_sensitivity,
    sobol_of_run,
)
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import series_style
from perfusio_jax.viz.theme import describe, new_figure, themed

LEVERS = ("perfusion_rate", "bleed_rate", "glucose_setpoint", "temperature", "mu_max", "K_gln")

# %% [markdown]
# ## A run and its levers
#
# A lever is one number of a run. Six are pulled here: four set-points and two constants of the
# cells. An output is written as people say it.
#
# ## Near: elasticities
#
# `local_sensitivity` differentiates through the integrator. An elasticity is per cent for per
# cent, so that levers with other units can stand side by side.
#
# ## Far: shares
#
# `sobol_of_run` spreads all levers over their ranges at once. The first index of a lever is the
# share of the variance that goes when it alone is known; the total index also counts what it does
# together with others. Where total is much larger than first, it acts through others. Intervals
# come with them, and `remarks()` says whether they have settled.


# %%
@themed
def draw(near: LocalSensitivity, wide: GlobalSensitivity, path: Path) -> None:
    """Elasticities beside shares, in one order of levers."""
    total = np.asarray(wide.found.total)[0]  # pyright: ignore[reportAttributeAccessIssue]
    first = np.asarray(wide.found.first)[0]  # pyright: ignore[reportAttributeAccessIssue]
    order = np.argsort(total)
    names = [wide.levers[i].name for i in order]
    figure = new_figure(9.6, 3.8, f"What moves: {near.outputs[0].name}")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))
    by_name = {
        lever.name: value for lever, value in zip(near.levers, near.elasticities[0], strict=True)
    }
    slopes = np.array([by_name[name] for name in names])
    left.barh(rows, slopes, color=PALETTE["twin"], height=0.6)
    left.axvline(0.0, color=PALETTE["ink"], lw=0.8)
    left.set_yticks(rows, names)
    left.set_xlabel("Elasticity at the recipe [% per %]")
    right.barh(
        rows + 0.18, total[order], color=series_style(1)["color"], height=0.34, label="total"
    )
    right.barh(
        rows - 0.18, first[order], color=series_style(2)["color"], height=0.34, label="alone"
    )
    right.set_xlabel("Share of the variance over the ranges [-]")
    right.set_xlim(left=0.0)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2)
    text = "Elasticities and Sobol's indices of the titre by six levers; long bars move it most."
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## All of it


# %%
def main(
    folder: Path, n_days: int = 14, n: int = 256, levers: tuple[str, ...] = LEVERS
) -> tuple[LocalSensitivity, GlobalSensitivity]:
    """Ask both questions of the same run.

    Args:
        folder: Where `sensitivity.png` goes.
        n_days: Length of the run [d].
        n: Base samples, a power of two; runs are that times levers + 2.
        levers: What is moved.

    Returns:
        Both answers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = f"Titer at {n_days} d"
    recipe = {"bleed_rate": 0.2, "perfusion_rate": 1.25}
    run = cho_experiment(virtual_reactor("CloneX"), 24.0 * np.arange(n_days + 1), controls=recipe)

    near = local_sensitivity(run, [asked], levers)
    print(f"{asked} is {near.values[0]:.0f} mg/L at this recipe; one per cent more of")
    for lever, elasticity in near.ranked():
        print(f"  {lever.name:18s} moves it by {elasticity:+.2f} %")

    wide = sobol_of_run(run, [asked], levers, n=n, n_resamples=50)
    first, total = wide.found.first[0], wide.found.total[0]  # pyright: ignore
    print(f"over the ranges, by {n * (len(levers) + 2)} runs: share alone, with others")
    for i in np.argsort(-np.asarray(total)):
        low, high = wide.ranges[:, i]
        print(f"  {wide.levers[i].name:18s} {first[i]:5.2f} {total[i]:5.2f}   ", end="")
        print(f"between {low:.3g} and {high:.3g}")
    for remark in wide.remarks():
        print(f"  note: {remark}")
    draw(near, wide, folder / "sensitivity.png")
    return near, wide


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/sensitivity"))
