"""Constants of a mechanism from recorded runs: draws, and how far to believe them.

A few runs of a chemostat are recorded with the noise of assays. Which constants of the mechanism
fit them, how well are they known, and which of them only together? The answer is not one value each
but a thousand draws, and a verdict on the draws. Without Python:

    perfusio-jax identify runs.csv --process monod_chemostat
    perfusio-jax calibrate runs.csv --process monod_chemostat --out posterior --figure posterior.png
"""

# %%
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import numpy as np

from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.simulator import plain_monod, simulate_runs, virtual_plant
from perfusio_jax.states import Trajectory
from perfusio_jax.study import (
    Plan,
    Posterior,
    calibrate,
    calibration_problem,
    described_experiment,
    identify,
    save_posterior,
    uniform,
)
from perfusio_jax.study.calibration.posterior import Method
from perfusio_jax.viz import posterior_figure, save_figure

RANGES = {"mu_max": (0.3, 2.5), "a_S": (0.3, 4.0)}
"""What is thought of the constants before a run is made: from, to."""


# %% [markdown]
# ## The runs
#
# Three runs of two days, a sample every six hours, with dilution and feed of their own. They come
# from a simulated vessel, so that its constants are known; in earnest they come from
# `read_campaign`.


# %%
def recorded(n_runs: int, n_samples: int) -> list[Trajectory]:
    """Runs of a chemostat as assays see them."""
    plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT), rtol=1e-5, atol=1e-8)
    rng = np.random.default_rng(4)
    starts = np.stack(
        [rng.uniform(0.5, 2.0, n_runs), rng.uniform(3.0, 6.0, n_runs), np.zeros(n_runs)], axis=1
    )
    set_to = np.stack([rng.uniform(0.05, 0.2, n_runs), rng.uniform(8.0, 14.0, n_runs)], axis=1)
    controls = np.repeat(set_to[:, None, :], n_samples - 1, axis=1)
    return simulate_runs(plant, starts, controls, 6.0 * np.arange(n_samples), key=jax.random.key(0))


# %% [markdown]
# ## Is it worth asking?
#
# `identify` looks at the runs before any draw is made: how well could readings of this kind know
# each constant, and which directions do they leave open? What they leave open, no sampler finds.
#
# ## Draws
#
# `calibration_problem` lays out what is unknown: the constants, and the state each run really
# began with, since the first sample has an error as every other. `calibrate` draws from what the
# readings leave possible: by a normal law (`svi`, `map`), which is quick and says by itself where
# it does not fit; or by the no-U-turn sampler (`nuts`), which is right where that is not, and takes
# minutes. `problems` is empty where nothing speaks against the draws.


# %%
def main(
    folder: Path,
    n_runs: int = 3,
    n_samples: int = 9,
    method: Method = "map",
    plan: Plan | None = None,
) -> Posterior:
    """Calibrate two constants, and say how far they are known.

    Args:
        folder: Where the posterior and `constants.png` go.
        n_runs: Runs that are recorded.
        n_samples: Samples of each.
        method: How the draws are made.
        plan: How many.

    Returns:
        The posterior.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = recorded(n_runs, n_samples)
    truth = plain_monod(MONOD_CHEMOSTAT)
    plant = described_experiment(
        virtual_plant(MONOD_CHEMOSTAT, truth, rtol=1e-5, atol=1e-8), 6.0 * np.arange(n_samples)
    )
    known = identify(plant, runs, list(RANGES))
    for lever, sd in zip(known.levers, known.data_sd, strict=True):
        print(f"{lever.name}: these runs could know it to {100.0 * float(sd):.1f} %")

    problem = calibration_problem(
        plant, runs, list(RANGES), priors={n: uniform(*ends) for n, ends in RANGES.items()}
    )
    found = calibrate(problem, method=method, plan=plan or Plan(), seed=0)
    for name, draws in zip(found.names, found.pooled.T, strict=True):
        low, middle, high = np.quantile(draws, (0.025, 0.5, 0.975))
        real = float(getattr(truth, name))
        print(f"{name}: {middle:.3g}, 95 % from {low:.3g} to {high:.3g}; it was {real:.3g}")
    n_read, inside = found.check.n_read.sum(), found.check.inside[0.8]
    print(f"{n_read} readings; of each assay in 80 %: {', '.join(f'{v:.0%}' for v in inside)}")
    for line in (*found.problems, *found.notes):
        print(f"note: {line}")

    save_posterior(found, folder / "posterior", culture={"process": MONOD_CHEMOSTAT.name})
    figure = posterior_figure(
        dict(zip(found.names, found.pooled.T, strict=True)),
        {n: tuple(found.prior[:, i]) for i, n in enumerate(found.names)},
        dict(zip(found.names, found.units, strict=True)),
        n_chains=found.draws.shape[0],
    )
    save_figure(figure, folder / "constants.png")
    return found


# %% [markdown]
# ## What to do with it
#
# `forecast --posterior FOLDER` forecasts over the draws, so that what is not known of the constants
# stands in the band. `design --for constants` says which run would narrow them most.


# %%
if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/calibration"))
