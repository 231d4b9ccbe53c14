"""A campaign between runs: the front of titre and ammonium, in batches of four.

Eight spread runs are simulated; the hybrid model is fitted to them and proposes the next four,
which are simulated in turn, and so on. After every batch the front of the runs made so far and
its hypervolume are printed, from noise-free truth, which only a simulation has. The proposed
recipes are written as CSV, and `front.png` shows what they came to. The same from a table of
real runs, without Python:

    perfusio-jax propose runs.csv --goal front --runs 4
"""

# %%
import csv
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES, REGISTRY
from perfusio_jax.bed import (
    CampaignSettings,
    ChanceConstraint,
    FinalValue,
    ProcessOFV,
    compute_pareto_front,
    control_limits,
    explain_campaign,
    hypervolume,
    propose_runs,
    sobol_points,
    start_state,
)
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridConfig, draw_paths, fit_hybrid
from perfusio_jax.simulator import (
    NoiseModel,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import series_style
from perfusio_jax.viz.theme import describe, label, new_figure, themed

SPACE = DEFAULT_AMBR250_DESIGN_SPACE
REFERENCE = jnp.asarray([200.0, -8.0])
"""Titre [mg/L] and -ammonium [mmol/L] a run must beat to count."""


# %% [markdown]
# ## Two goals that pull apart
#
# Titre is wanted, ammonium is not. There is no best run, only a front: runs that no other run
# beats in both. Its size is the hypervolume, the area beyond `REFERENCE` that the front covers; a
# batch is worth what it adds to it.


# %%
def make_runs(recipes: np.ndarray, n_days: int, seed: int, first: int):
    """Simulate recipes; trajectories as measured, and the two objectives in truth."""
    n = len(recipes)
    readings = simulate_campaign(
        virtual_reactor("CloneX"),
        jnp.broadcast_to(initial_state(), (n, 10)),
        jnp.broadcast_to(jnp.asarray(recipes)[:, None, :], (n, n_days, 6)),
        NoiseModel(),
        key=jax.random.key(seed),
    )
    last = readings.truth[:, -1]
    truth = [last[:, REGISTRY.index("Titer")], -last[:, REGISTRY.index("Amm")]]
    ids = [f"RUN{first + k:03d}" for k in range(n)]
    runs = to_trajectories(readings, clone_ids=["CloneX"] * n, run_ids=ids)
    return runs, jnp.stack(truth, axis=1)


# %% [markdown]
# ## The picture of a front


# %%
@themed
def draw(batches: list[np.ndarray], path: Path) -> None:
    """Titre against ammonium, batch by batch, and the front of all runs."""
    everything = np.concatenate(batches)
    on_front = np.asarray(compute_pareto_front(jnp.asarray(everything)))
    front = everything[on_front & np.all(everything > np.asarray(REFERENCE), axis=1)]
    front = front[np.argsort(front[:, 1])]
    figure = new_figure(5.8, 4.6, "Titer against ammonium")
    axes = figure.add_subplot()
    colours = [PALETTE["muted"], *(series_style(n)["color"] for n in range(len(batches) - 1))]
    for n, (batch, colour) in enumerate(zip(batches, colours, strict=True)):
        name = "start runs" if n == 0 else f"batch {n}"
        axes.plot(
            -batch[:, 1], batch[:, 0], "os^Dv"[n % 5], color=colour, ms=6, mec="white", mew=0.8,
            label=name, zorder=4,
        )  # fmt: skip
    if len(front):
        # dominated is what has more ammonium and less titre
        corner_x = np.concatenate([[8.0], -front[:, 1], -front[-1:, 1]])
        corner_y = np.concatenate([front[:1, 0], front[:, 0], [float(REFERENCE[0])]])
        axes.step(
            corner_x, corner_y, where="pre", color=PALETTE["twin"], lw=1.4, alpha=0.6,
            label="front", zorder=3,
        )  # fmt: skip
    axes.set_xlabel(label("Amm"))
    axes.set_ylabel(label("Titer"))
    axes.margins(0.08)
    figure.legend(loc="outside lower left", ncols=len(batches) + 1)
    text = f"Titer against ammonium of {len(everything)} runs, {len(front)} of them on the front."
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## Propose, run, fit again
#
# `propose_runs` chooses all runs of a batch together, so that they do not crowd;
# `explain_campaign` says what it expects of each. What came out is told beside it: the truth,
# which only a simulation has.


# %%
def main(
    folder: Path,
    n_days: int = 10,
    n_batches: int = 2,
    q: int = 4,
    settings: CampaignSettings | None = None,
    config: HybridConfig | None = None,
) -> list[float]:
    """Run the campaign.

    Args:
        folder: Where `proposed.csv` and `front.png` go.
        n_days: Length of a run [d].
        n_batches: Batches after the start runs.
        q: Runs of a batch.
        settings: Sizes of the search.
        config: Settings of the fit.

    Returns:
        Hypervolume after the start runs and after every batch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lower, upper = map(np.asarray, SPACE.bounds_array)
    recipes = lower + (upper - lower) * np.asarray(sobol_points(8, 6, seed=1))
    runs, truth = make_runs(recipes, n_days, 0, 1)
    goal = ProcessOFV(
        [FinalValue("Titer"), FinalValue("Amm", direction=-1)], horizon=n_days, is_pareto=True
    )
    limit = ChanceConstraint(88.0, 0.8)
    volumes, batches = [float(hypervolume(truth, REFERENCE))], [np.asarray(truth)]
    print(f"8 start runs: hypervolume {volumes[0]:.0f}")
    if config is None:
        config = HybridConfig(n_particles=48, length=n_days + 1, lanes=8 + q * n_batches)
    for batch in range(n_batches):
        model, _ = fit_hybrid(runs, key=jax.random.key(batch), config=config)
        proposed, info = propose_runs(
            model,
            draw_paths(model, 32, key=jax.random.key(batch), max_steps=n_days),
            jnp.asarray(start_state(runs)),
            jnp.asarray(recipes),
            ofv=goal,
            limits=control_limits(SPACE),
            q=q,
            chance=limit,
            settings=settings,
            seed=batch,
            say=print,
        )
        why = explain_campaign(info, goal, limit, CONTROL_NAMES)
        with (folder / "proposed.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*CONTROL_NAMES, "expected titre", "expected ammonium"])
            for u, run in zip(np.asarray(proposed), why["runs"], strict=True):
                writer.writerow([f"{v:.4g}" for v in (*u, *run["expected"].values())])
        share = why["constraints"][0]["share_of_space"]
        print(f"batch {batch + 1}: viability limit kept by {100 * share:.0f} % of the space")
        new_runs, new_truth = make_runs(np.asarray(proposed), n_days, batch + 1, len(runs) + 1)
        for run, real in zip(why["runs"], np.asarray(new_truth), strict=True):
            titre, ammonium = run["expected"].values()
            print(
                f"  expected titre {titre:5.0f} mg/L, ammonium {ammonium:.2f} mmol/L; "
                f"came out {real[0]:5.0f}, {-real[1]:.2f}; at a bound: "
                f"{', '.join(run['at_lower_bound'] + run['at_upper_bound']) or 'none'}"
            )
        runs, truth = runs + new_runs, jnp.concatenate([truth, new_truth])
        recipes = np.concatenate([recipes, np.asarray(proposed)])
        volumes.append(float(hypervolume(truth, REFERENCE)))
        batches.append(np.asarray(new_truth))
        draw(batches, folder / "front.png")
        n_front = int(jnp.sum(compute_pareto_front(truth)))
        print(f"  hypervolume {volumes[-1]:.0f}, front of {n_front} runs")
    return volumes


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/example04"))
