"""A culture nobody described: from a table of one's own to a forecast, in five steps.

Writes a table of yeast batches as somebody may have it (odd hours, three assays, a temperature),
reads off the table what the culture consists of, fits a model without being told anything else,
and forecasts a batch that was left out from its first four samples. The yeast is a virtual plant
whose ethanol is eaten again when the glucose is gone; the model does not know that.
"""

# %%
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

import jax
import numpy as np

from perfusio_jax.connectors import describe_table, read_campaign, write_described
from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import Ahead, HybridConfig, fit_hybrid, forecast_ahead
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity
from perfusio_jax.simulator import simulate_runs, virtual_plant
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import band, legend_entry
from perfusio_jax.viz.theme import describe, new_figure, themed

QUICK = HybridConfig(
    n_particles=48, growth=32, fit=FitConfig(n_restarts=1, max_iterations=25, max_rows=96)
)
HOURS = np.array([0.0, 3.0, 7.0, 10.0, 14.0, 18.0, 22.0, 26.0, 31.0, 36.0, 48.0])
KNOWN = 4
"""Samples of the batch that is forecast."""


# %% [markdown]
# ## A truth nobody told
#
# The plant eats glucose first, makes ethanol, and then eats that. The model is not told so.


# %%
class Yeast(Mechanism):
    """The truth: glucose first, with ethanol as overflow, then the ethanol."""

    mu_max: jax.Array = constant(0.2, unit="1/h")
    mu_ethanol: jax.Array = constant(0.07, unit="1/h")
    optimum: jax.Array = constant(30.0, unit="degC")

    def rates(self, state, environment):
        """Volumetric rates [g/L/h]."""
        x, glucose, ethanol = state["X"], state["Glc"], state["EtOH"]
        warm = jax.numpy.exp(-(((environment["temperature"] - self.optimum) / 7.0) ** 2))
        first = self.mu_max * warm * glucose / (0.5 + glucose)
        second = self.mu_ethanol * warm * ethanol / (1.0 + ethanol) * 0.5 / (0.5 + glucose)
        return {
            "X": (first + second) * x,
            "Glc": -first / 0.25 * x,
            "EtOH": (1.2 * first - second / 0.55) * x,
        }


TRUTH = Process(
    name="yeast",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=40.0, cv=0.03, floor=0.05),
        Quantity(name="Glc", unit="g/L", hi=100.0, cv=0.03, floor=0.1),
        Quantity(name="EtOH", unit="g/L", hi=50.0, cv=0.04, floor=0.1),
    ),
    controls=(
        Control(
            name="temperature", unit="degC", role="environment", lo=24.0, hi=34.0, default=30.0
        ),
    ),
)


# %% [markdown]
# ## A table as somebody may have it
#
# One row per sample, units in the second row, odd hours. What the columns are is read off the
# table.


# %%
def write_table(path: Path, n_runs: int) -> None:
    """What somebody may have on disk: one row per sample, units in the second row."""
    rng = np.random.default_rng(0)
    starts = np.stack(
        [rng.uniform(0.3, 0.8, n_runs), rng.uniform(25.0, 50.0, n_runs), np.zeros(n_runs)], axis=1
    )
    warm = rng.permutation(np.linspace(25.0, 33.0, n_runs))
    controls = np.broadcast_to(warm[:, None, None], (n_runs, HOURS.size - 1, 1))
    plant = virtual_plant(TRUTH, Yeast())
    runs = simulate_runs(plant, starts, controls, HOURS, key=jax.random.key(1))
    write_described(runs, path, TRUTH)


@themed
def draw(run: Trajectory, found: Ahead, path: Path) -> None:
    """The forecast beside what was measured."""
    figure = new_figure(10.0, 3.4, "A batch that was left out, forecast from its first samples")
    hours, values = np.asarray(run.times_h), np.asarray(run.species)
    for k, axes in enumerate(figure.subplots(1, len(found.names))):
        band(axes, found.hours, found.q10[:, k], found.q90[:, k])
        axes.plot(found.hours, found.q50[:, k], color=PALETTE["twin"])
        axes.plot(hours[:KNOWN], values[:KNOWN, k], "o", color=PALETTE["target"], ms=5)
        axes.plot(hours[KNOWN:], values[KNOWN:, k], "o", color=PALETTE["muted"], ms=5)
        axes.set_title(f"{found.names[k]} [g/L]")
        axes.set_xlabel("time [h]")
        axes.set_ylim(bottom=0.0)
    handles = [
        legend_entry("dot", "samples the forecast starts from", PALETTE["target"]),
        legend_entry("dot", "samples it did not know", PALETTE["muted"]),
        legend_entry("line", "median", PALETTE["twin"]),
        legend_entry("band", "10-90 %", PALETTE["band"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    text = "Biomass, glucose and ethanol of a batch: forecast with an 80 % band, and samples."
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## Five steps
#
# Describe the table, look over what was assumed, read it, fit, forecast a batch that was left
# out.


# %%
def main(folder: Path, n_runs: int = 8, config: HybridConfig = QUICK) -> float:
    """Table, description, fit, forecast.

    Args:
        folder: Where table, description and figure go.
        n_runs: Batches in the table; the last is left out of the fit.
        config: Settings of the fit.

    Returns:
        Error of the forecast over that if nothing changed [-].
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, file = folder / "yeast.csv", folder / "process.toml"
    write_table(table, n_runs)

    found = describe_table(table, name="yeast")  # perfusio-jax process init yeast.csv
    for line in found.assumptions:
        print(f"assumed: {line}")
    found.process.to_toml(file)
    process = Process.from_toml(file)  # correct the file here, if something in it is wrong

    runs = read_campaign(table, process=process, unknown="ignore").trajectories
    known, new = runs[:-1], runs[-1]
    model, report = fit_hybrid(
        known, key=jax.random.key(0), process=process, mech_model="monod", config=config
    )
    print(f"fitted on {len(known)} batches, {report.details['rows']} intervals")

    rows = np.asarray(new.times_h) <= HOURS[KNOWN - 1]
    start = jax.tree.map(lambda leaf: leaf[rows], new)
    ahead = np.asarray(new.times_h)[KNOWN:] - HOURS[KNOWN - 1]
    forecast = forecast_ahead(model, start, ahead.tolist())

    seen = np.asarray(new.species)[KNOWN:]
    print(f"\nbatch {new.run_id} from {HOURS[KNOWN - 1]:g} h on: median (10-90 %), measured")
    for i, hour in enumerate(forecast.hours):
        cells = [
            f"{name} {forecast.q50[i, k]:5.1f} ({forecast.q10[i, k]:.1f}-{forecast.q90[i, k]:.1f}),"
            f" {seen[i, k]:5.1f}"
            for k, name in enumerate(forecast.names)
        ]
        print(f"{hour:5.0f} h   {'   '.join(cells)}")
    scale = np.asarray(new.species).max(axis=0)
    error = np.abs(forecast.q50 - seen) / scale
    still = np.abs(np.asarray(start.species)[-1] - seen) / scale
    ratio = float(error.mean() / still.mean())
    print(f"error over that if nothing changed: {ratio:.2f}")
    draw(new, forecast, folder / "forecast.png")
    print(f"figure: {folder / 'forecast.png'}")
    return ratio


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/bring_your_process"))
