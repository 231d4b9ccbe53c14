"""A fed-batch: a feed, boluses, a volume that moves; what if the feed were doubled from here on?

A virtual plant makes ten fed-batches with other feeds and boluses, each sample taking 5 mL. A
model is fitted to nine of them and forecasts the tenth from its third day on, once as it was run
and once with the feed doubled; the plant, asked the same, says how right that is.
"""

# %%
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

import jax
import numpy as np

from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import Ahead, HybridConfig, fit_hybrid, forecast_ahead
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import simulate_runs, spread_controls, virtual_plant
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import band, legend_entry
from perfusio_jax.viz.theme import DASHES, describe, new_figure, themed

QUICK = HybridConfig(n_particles=48, growth=32, fit=FitConfig(n_restarts=1, max_iterations=25))
HOURS = np.arange(8) * 12.0
KNOWN = 4
"""Samples that are known when the question is asked."""

# %% [markdown]
# ## A culture whose volume moves
#
# One stream feeds, none leaves, and a bolus may be given at a sample. Since no stream closes the
# balance, the volume follows from what is fed and drawn.


# %%
FED = Process(
    name="fed_batch",
    volume_L=0.5,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", label="biomass", hi=60.0, cv=0.03, floor=0.05),
        Quantity(name="S", unit="g/L", label="substrate", hi=60.0, cv=0.03, floor=0.1),
        Quantity(name="P", unit="g/L", label="product", hi=20.0, cv=0.04, floor=0.02),
    ),
    controls=(
        Control(name="feed_rate", unit="mL/h", role="flow", lo=0.2, hi=1.5, default=0.8),
        Control(name="S_bolus", unit="g", role="bolus", lo=0.0, hi=2.0, default=0.0, quantity="S"),
    ),
    streams=(Stream(name="feed", direction="in", flow="feed_rate", carries={"S": 400.0}),),
)
"""No stream closes the balance, so the volume moves."""


# %% [markdown]
# ## The plant


# %%
class Organism(Mechanism):
    """The truth: substrate in excess inhibits, product comes with growth and from resting cells."""

    mu_max: jax.Array = constant(0.11, unit="1/h")
    K: jax.Array = constant(0.3, unit="g/L")
    inhibition: jax.Array = constant(60.0, unit="g/L")

    def rates(self, state, environment):
        """Volumetric rates [g/L/h]."""
        x, s = state["X"], state["S"]
        growth = self.mu_max * s / (self.K + s + s * s / self.inhibition)
        keep = 0.01 * s / (self.K + s)
        return {"X": growth * x, "S": -(growth / 0.5 + keep) * x, "P": (0.1 * growth + 0.002) * x}


def recipes(n_runs: int) -> np.ndarray:
    """Feeds that fill their range, and a bolus on the second day."""
    spread = spread_controls(FED, n_runs, seed=4)
    controls = np.zeros((n_runs, HOURS.size - 1, 2))
    controls[..., 0] = spread[:, None, 0]
    controls[:, 2, 1] = spread[:, 1]
    return controls


def simulated(controls: np.ndarray, *, noise: bool) -> list[Trajectory]:
    """Runs of the plant."""
    n = len(controls)
    rng = np.random.default_rng(5)
    starts = np.stack([rng.uniform(0.4, 0.8, n), rng.uniform(8.0, 20.0, n), np.zeros(n)], axis=1)
    plant = virtual_plant(FED, Organism())
    return simulate_runs(
        plant, starts, controls, HOURS, key=jax.random.key(6), noise=noise, sample_L=0.005
    )


@themed
def draw(
    run: Trajectory, answers: dict[str, Ahead], truths: dict[str, np.ndarray], path: Path
) -> None:
    """Both futures, forecast and true."""
    from matplotlib.lines import Line2D

    figure = new_figure(12.0, 3.4, "What if the feed were doubled from here on?")
    axes = figure.subplots(1, 4)
    ahead = HOURS[KNOWN:]
    colours = {"as it is": PALETTE["muted"], "doubled": PALETTE["twin"]}
    for k, name in enumerate(FED.readings):
        quantity = FED.quantity(name)
        axes[k].plot(
            HOURS[:KNOWN], np.asarray(run.species)[:KNOWN, k], "o", color=PALETTE["target"]
        )
        for which, answer in answers.items():
            band(axes[k], ahead, answer.q10[:, k], answer.q90[:, k])
            axes[k].plot(ahead, answer.q50[:, k], color=colours[which])
            axes[k].plot(ahead, truths[which][KNOWN:, k], "x", color=colours[which])
        axes[k].set_title(f"{quantity.label} [{quantity.unit}]")
        axes[k].set_ylim(bottom=0.0)
        axes[k].set_xlabel("time [h]")
    for which in answers:
        axes[3].plot(HOURS, 1e3 * truths[f"{which} mL"], color=colours[which], ls=DASHES[0])
    axes[3].set_title("volume [mL]")
    axes[3].set_xlabel("time [h]")
    handles = [
        legend_entry("dot", "samples so far", PALETTE["target"]),
        legend_entry("line", "feed as it is, median", PALETTE["muted"]),
        legend_entry("line", "feed doubled, median", PALETTE["twin"]),
        legend_entry("band", "10-90 %", PALETTE["band"]),
        Line2D([], [], ls="", marker="x", color=PALETTE["ink"], label="the plant's answer"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=5)
    text = "Biomass, substrate, product and volume of a fed-batch; crosses are what the plant does."
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## Two questions
#
# The same run is forecast twice from its fourth sample, with the feed as it was and doubled. The
# plant is asked the same, which only a simulation allows.


# %%
def main(folder: Path, n_runs: int = 10, config: HybridConfig = QUICK) -> dict[str, float]:
    """Simulate, fit, ask twice.

    Args:
        folder: Where the figure goes.
        n_runs: Runs; the last is the one that is asked about.
        config: Settings of the fit.

    Returns:
        By question, error of the forecast over that if nothing changed [-].
    """
    folder.mkdir(parents=True, exist_ok=True)
    controls = recipes(n_runs)
    runs = simulated(controls, noise=True)
    model, _ = fit_hybrid(
        runs[:-1], key=jax.random.key(0), process=FED, mech_model="monod", config=config
    )
    run = runs[-1]
    start = jax.tree.map(lambda leaf: leaf[:KNOWN], run)
    ahead = (HOURS[KNOWN:] - HOURS[KNOWN - 1]).tolist()
    feed = float(controls[-1, -1, 0])
    questions = {"as it is": feed, "doubled": 2.0 * feed}
    answers, truths, errors = {}, {}, {}
    for which, rate in questions.items():
        answers[which] = forecast_ahead(model, start, ahead, {"feed_rate": rate, "S_bolus": 0.0})
        changed = controls.copy()
        changed[-1, KNOWN - 1 :, 0] = rate
        true = simulated(changed, noise=False)[-1]
        truths[which] = np.asarray(true.species)
        truths[f"{which} mL"] = np.asarray(true.volume_L)
        scale = truths[which].max(axis=0)
        wrong = np.abs(answers[which].q50 - truths[which][KNOWN:]) / scale
        still = np.abs(np.asarray(start.species)[-1] - truths[which][KNOWN:]) / scale
        errors[which] = float(wrong.mean() / still.mean())
        last = ", ".join(
            f"{name} {answers[which].q50[-1, k]:.2f} (in truth {truths[which][-1, k]:.2f})"
            for k, name in enumerate(FED.readings)
        )
        print(f"feed {which}, {rate:.2f} mL/h: at {HOURS[-1]:g} h {last} g/L")
        print(
            f"  volume {1e3 * float(true.volume_L[-1]):.0f} mL; error over that if nothing", end=""
        )
        print(f" changed {errors[which]:.2f}")
    draw(run, answers, truths, folder / "fed_batch.png")
    print(f"figure: {folder / 'fed_batch.png'}")
    return errors


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/fed_batch"))
