"""A mechanism of one's own: what thirty lines of knowledge are worth on runs left out.

The culture has things the built-in one lacks: a pH that is set, an osmolality that rises with
the lactate, and both act on the cells. `MyCells` says how, with constants that are guesses. A
virtual plant with other constants makes a small campaign; a model with the mechanism (its
constants moved by the data) and one without it are fitted to six runs and forecast the same
three others, at a pH and an osmolality beyond those six, from their first three samples.
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

from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import Ahead, HybridConfig, fit_hybrid, forecast_ahead
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity
from perfusio_jax.simulator import simulate_runs, virtual_plant
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import band, legend_entry
from perfusio_jax.viz.theme import DASHES, describe, new_figure, themed

QUICK = HybridConfig(n_particles=48, growth=32, fit=FitConfig(n_restarts=1, max_iterations=25))
HOURS = np.arange(9) * 16.0
KNOWN = 3
"""Samples that a forecast starts from."""


# %% [markdown]
# ## Thirty lines of knowledge
#
# A mechanism says what changes per hour, by the names of the process. Its constants carry a unit
# and how far they may be off (`log_sd`, or `sd` where a value may be of either sign); the fit
# moves them.


# %%
class MyCells(Mechanism):
    """Cells on glucose that make lactate; pH and osmolality slow them down."""

    mu_max: jax.Array = constant(0.030, unit="1/h", log_sd=0.5, source="a guess")
    K: jax.Array = constant(0.5, unit="g/L", log_sd=0.5)
    best_pH: jax.Array = constant(7.0, unit="pH", sd=0.1)
    width_pH: jax.Array = constant(0.30, unit="pH", log_sd=0.3)
    salt: jax.Array = constant(400.0, unit="mmol/kg", log_sd=0.1)
    y: jax.Array = constant(0.25, unit="g/1e9 cells", log_sd=0.5)
    maintenance: jax.Array = constant(0.002, unit="g/1e9 cells/h", log_sd=0.7)
    lactate: jax.Array = constant(6.0, unit="mmol/g", log_sd=0.5)
    death: jax.Array = constant(0.003, unit="1/h", log_sd=0.7)
    base: jax.Array = constant(2.0, unit="kg/L", log_sd=0.3)
    q: jax.Array = constant(1.0, unit="mg/1e9 cells/h", log_sd=0.5)

    def rates(self, state, environment):
        """What changes, per hour; state and environment by the names of the process."""
        x, glucose, salt = state["VCD"], state["Glc"], state["osmolality"]
        fed = glucose / (self.K + glucose)
        acid = jnp.exp(-(((environment["pH"] - self.best_pH) / self.width_pH) ** 2))
        salty = jax.nn.sigmoid((self.salt - salt) / 25.0)
        growth = self.mu_max * fed * acid * salty
        eaten = (self.y * growth + self.maintenance * fed) * x
        acidified = self.lactate * eaten
        return {
            "VCD": (growth - self.death * (2.0 - salty)) * x,
            "Glc": -eaten,
            "Lac": acidified,
            "osmolality": self.base * acidified,  # the base that holds the pH
            "Titer": self.q * (1.0 + 0.5 * (1.0 - salty)) * x,
        }


# %% [markdown]
# ## The truth, and the culture
#
# The plant that makes the data has other constants. The process says what is measured and set.


# %%
TRUTH = MyCells(
    mu_max=0.042, best_pH=7.08, width_pH=0.24, salt=365.0, y=0.32, lactate=7.5, death=0.004, q=0.7
)
CULTURE = Process(
    name="my_cells",
    volume_L=0.2,
    biomass="VCD",
    quantities=(
        Quantity(name="VCD", unit="1e6 cells/mL", hi=60.0, cv=0.04, floor=0.02),
        Quantity(name="Glc", unit="g/L", hi=40.0, cv=0.03, floor=0.05),
        Quantity(name="Lac", unit="mmol/L", hi=150.0, cv=0.03, floor=0.2),
        Quantity(name="Titer", unit="mg/L", hi=5000.0, cv=0.05, floor=1.0),
        Quantity(
            name="osmolality", unit="mmol/kg", kind="level", lo=200.0, hi=700.0, cv=0.01, floor=1.0
        ),
    ),
    controls=(Control(name="pH", unit="pH", role="environment", lo=6.6, hi=7.4, default=7.0),),
)


def simulated(n_runs: int) -> list[Trajectory]:
    """Runs at several pH and salt contents; the last three lie beyond the others."""
    rng = np.random.default_rng(2)
    n = n_runs - 3
    pH = np.append(rng.permutation(np.linspace(6.85, 7.15, n)), [6.72, 7.3, 7.1])
    salt = np.append(rng.permutation(np.linspace(280.0, 340.0, n)), [300.0, 300.0, 375.0])
    starts = np.stack(
        [
            rng.uniform(0.3, 0.6, n_runs),
            rng.uniform(6.0, 12.0, n_runs),
            np.zeros(n_runs),
            np.zeros(n_runs),
            salt,
        ],
        axis=1,
    )
    controls = np.broadcast_to(pH[:, None, None], (n_runs, HOURS.size - 1, 1))
    plant = virtual_plant(CULTURE, TRUTH)
    return simulate_runs(plant, starts, controls, HOURS, key=jax.random.key(3))


def forecast(model, run: Trajectory) -> Ahead:
    """A run from its first samples."""
    start = jax.tree.map(lambda leaf: leaf[:KNOWN], run)
    return forecast_ahead(model, start, (HOURS[KNOWN:] - HOURS[KNOWN - 1]).tolist())


@themed
def draw(run: Trajectory, two: dict[str, Ahead], path: Path) -> None:
    """One run left out, by both models."""
    figure = new_figure(12.0, 3.4, "A run left out, saltier than those that were known")
    values = np.asarray(run.species)
    names = list(two["with"].names)
    for k, axes in enumerate(figure.subplots(1, len(names))):
        axes.plot(HOURS[:KNOWN], values[:KNOWN, k], "o", color=PALETTE["target"], ms=5)
        axes.plot(HOURS[KNOWN:], values[KNOWN:, k], "o", color=PALETTE["muted"], ms=5)
        band(axes, HOURS[KNOWN:], two["with"].q10[:, k], two["with"].q90[:, k])
        axes.plot(HOURS[KNOWN:], two["with"].q50[:, k], color=PALETTE["twin"])
        axes.plot(HOURS[KNOWN:], two["without"].q50[:, k], color=PALETTE["muted"], ls=DASHES[1])
        axes.set_title(f"{names[k]} [{CULTURE.quantity(names[k]).unit}]", fontsize=9)
        axes.set_xlabel("time [h]")
    handles = [
        legend_entry("line", "with the mechanism, and its 10-90 %", PALETTE["twin"]),
        legend_entry("dashes", "without it", PALETTE["muted"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    text = "Forecasts of a run left out with a mechanism and without, beside its samples."
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## With and without
#
# Both models see the same six runs. What the mechanism is worth shows on the three that lie
# beyond them.


# %%
def main(folder: Path, n_runs: int = 9, config: HybridConfig = QUICK) -> dict[str, float]:
    """Simulate, fit twice, forecast what was left out.

    Args:
        folder: Where the figure goes.
        n_runs: Runs; the last three are left out.
        config: Settings of the fits.

    Returns:
        Error with the mechanism and without, over that if nothing changed [-].
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = simulated(n_runs)
    known, new = runs[:-3], runs[-3:]
    seen = [np.asarray(run.species) for run in new]
    scale = np.max([s.max(axis=0) for s in seen], axis=0)
    still = np.mean([np.abs(s[KNOWN - 1] - s[KNOWN:]) / scale for s in seen])
    found: dict[str, list[Ahead]] = {}
    errors: dict[str, float] = {}
    for name, mechanism in (("with", MyCells()), ("without", "none")):
        model, _ = fit_hybrid(
            known, key=jax.random.key(0), process=CULTURE, mech_model=mechanism, config=config
        )
        found[name] = [forecast(model, run) for run in new]
        wrong = [np.abs(f.q50 - s[KNOWN:]) / scale for f, s in zip(found[name], seen, strict=True)]
        errors[name] = float(np.mean(wrong) / still)
        each = ", ".join(
            f"{f} {e:.3f}"
            for f, e in zip(found[name][0].names, np.mean(wrong, axis=(0, 1)), strict=True)
        )
        print(f"{name} the mechanism: {each}; over that if nothing changed {errors[name]:.2f}")
        if name == "with":
            kept = model.mech_model.kinetics
            moved = ", ".join(
                f"{c} {float(getattr(kept, c)):.3g} (guess {float(getattr(MyCells(), c)):.3g},"
                f" truth {float(getattr(TRUTH, c)):.3g})"
                for c in ("mu_max", "best_pH", "salt", "y")
            )
            print(f"constants: {moved}")
    print(
        f"on {len(new)} runs left out the mechanism makes the error "
        f"{errors['without'] / errors['with']:.1f} times smaller"
    )
    draw(new[-1], {name: f[-1] for name, f in found.items()}, folder / "left_out.png")
    print(f"figure: {folder / 'left_out.png'}")
    return errors


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/bring_your_mechanism"))
