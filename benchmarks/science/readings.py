"""What more readings and levers are worth, and fewer cost: `python -m benchmarks.science.readings`.

`less`: CHO perfusion of which VCD, viability, glucose, lactate and titre are read and three
set-points move, beside the same runs with all species read; both models forecast runs they have
not seen, the one from the five readings alone. Plants are those of `benchmarks.science.hybrid`.

`more`: a perfusion in which pH and dissolved oxygen act, osmolality slows growth and asparagine
runs short. One model is given all of them, the other the same runs without them. Sixteen runs in
four folds: each is forecast by a model of twelve others.

Errors are root mean squares over the spread of the values, the mean over the species named.
"""

import argparse
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.science.hybrid import DAYS, FAMILY_KEY, N_UNSEEN, STARTS, designs
from perfusio_jax._core import FORECAST_SPECIES, REGISTRY
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import (
    HybridConfig,
    cross_validate,
    fit_hybrid,
    forecast_unseen,
    skill,
    stack_runs,
)
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import (
    NoiseModel,
    initial_state,
    sample_clones,
    simulate_runs,
    spread_controls,
    virtual_plant,
    virtual_reactor,
)
from perfusio_jax.simulator.plant import Readings, simulate_campaign, to_trajectories
from perfusio_jax.states import Trajectory

READ = ("VCD", "Via", "Glc", "Lac", "Titer")
"""What is read where little is."""
MOVED = ("perfusion_rate", "bleed_rate", "temperature")
"""What is set where little is."""
AHEAD = (1, 3, 7)


def campaign(kinetics, n: int, seed: int, n_phases: int) -> Readings:
    """Runs of one plant of which three set-points move."""
    names = DEFAULT_AMBR250_DESIGN_SPACE.control_names
    middle = np.mean([np.asarray(b) for b in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array], axis=0)
    controls = designs(n, seed, n_phases)
    held = [k for k, name in enumerate(names) if name not in MOVED]
    controls[..., held] = middle[held]
    start = np.tile(np.asarray(initial_state()), (n, 1))
    start = start * np.exp(0.1 * np.random.default_rng(seed).standard_normal((n, 1)))
    reactor, key = virtual_reactor(kinetics), jax.random.key(seed)
    return simulate_campaign(
        reactor, jnp.asarray(start), jnp.asarray(controls), NoiseModel(), key=key
    )


def of_five(found: Readings) -> Readings:
    """The same of which five quantities were read."""
    unread = np.asarray([name not in READ for name in REGISTRY])[: found.measured.shape[-1]]
    measured = jnp.where(jnp.asarray(unread), jnp.nan, found.measured)
    return eqx.tree_at(lambda r: r.measured, found, measured)


def less(plants: int, n_runs: int = 12) -> list[tuple[np.ndarray, np.ndarray]]:
    """Errors (3 horizons) with all read and with five read, a pair per plant."""
    family = sample_clones(jax.random.key(FAMILY_KEY), 20)
    index = [FORECAST_SPECIES.index(name) for name in READ]
    config = HybridConfig(length=DAYS + 1, lanes=n_runs)
    rows = []
    for plant in range(plants):
        kinetics = jax.tree.map(lambda v, k=plant: v[k], family)
        whole = campaign(kinetics, n_runs, plant, 1)
        unseen = campaign(kinetics, N_UNSEEN, 1000 + plant, 2)
        truth = np.asarray(unseen.truth[..., :12])
        errors = []
        for cut in (lambda r: r, of_five):
            training = to_trajectories(cut(whole), clone_ids=["plant"] * n_runs)
            model, _ = fit_hybrid(training, key=jax.random.key(plant), config=config)
            seen = cut(unseen)
            runs = to_trajectories(seen, clone_ids=["plant"] * N_UNSEEN)
            found = forecast_unseen(
                model,
                stack_runs(runs, length=DAYS + 1),
                seen.measured,
                key=jax.random.key(1),
                starts=STARTS,
                horizon=max(AHEAD),
                n_paths=64,
            )
            score = skill(found, np.asarray(seen.measured), truth).rrmse
            errors.append(np.asarray([score[h - 1, index].mean() for h in AHEAD]))
        rows.append((errors[0], errors[1]))
        print(f"less, plant {plant}: {np.round(errors[1] / errors[0], 3)}", flush=True)
    return rows


CONDITIONED = Process(
    name="conditioned_perfusion",
    description="Perfusion in which pH, oxygen, osmolality and asparagine matter",
    volume_L=0.3,
    biomass="VCD",
    quantities=(
        Quantity(name="VCD", unit="1e6 cells/mL", hi=100.0, cv=0.05, floor=0.02),
        Quantity(name="Glc", unit="g/L", hi=12.0, cv=0.04, floor=0.05),
        Quantity(name="Lac", unit="g/L", hi=8.0, cv=0.05, floor=0.03),
        Quantity(name="Asn", unit="mmol/L", hi=12.0, cv=0.06, floor=0.02),
        Quantity(name="Osmo", unit="mmol/L", hi=600.0, cv=0.01, floor=1.0),
        Quantity(name="Titer", unit="g/L", hi=4.0, cv=0.06, floor=0.01),
    ),
    controls=(
        Control(name="perfusion_rate", unit="vvd", role="flow", lo=0.6, hi=1.8, default=1.2),
        Control(name="bleed_rate", unit="vvd", role="flow", lo=0.03, hi=0.4, default=0.15),
        Control(name="pH", unit="pH", role="environment", lo=6.7, hi=7.3, default=7.0),
        Control(name="DO", unit="%", role="environment", lo=10.0, hi=70.0, default=40.0),
    ),
    streams=(
        Stream(
            name="medium",
            direction="in",
            flow="perfusion_rate",
            carries={"Glc": 8.0, "Asn": 4.0, "Osmo": 290.0},
        ),
        Stream(name="bleed", direction="out", flow="bleed_rate"),
        Stream(name="harvest", direction="out", flow="rest", passes={"VCD": 0.0}),
    ),
)
"""Osmolality is carried: medium brings it, lactate and base add to it, the harvest takes it."""
PLAIN = Process(
    **{
        **dict(CONDITIONED),
        "name": "plain_perfusion",
        "quantities": tuple(q for q in CONDITIONED.quantities if q.name not in ("Asn", "Osmo")),
        "controls": CONDITIONED.controls[:2],
        "streams": (
            Stream(name="medium", direction="in", flow="perfusion_rate", carries={"Glc": 8.0}),
            *CONDITIONED.streams[1:],
        ),
    }
)
"""The same culture as somebody sees it who reads and sets less."""
JUDGED = ("VCD", "Glc", "Lac", "Titer")


class ConditionedCells(Mechanism):
    """The truth."""

    mu_max: jax.Array = constant(0.03, unit="1/h")
    K_glc: jax.Array = constant(0.4, unit="g/L")
    K_asn: jax.Array = constant(0.3, unit="mmol/L")
    q_asn: jax.Array = constant(0.006, unit="mmol/1e9 cells/h")
    q_p: jax.Array = constant(0.0008, unit="g/1e9 cells/h")

    def rates(self, state, environment):
        """Rates per volume [unit of the quantity / h]."""
        x, glc, lac, asn = (state[n] for n in ("VCD", "Glc", "Lac", "Asn"))
        acid = environment["pH"] - 7.0
        oxygen = environment["DO"] / (environment["DO"] + 12.0)
        eats = glc / (glc + self.K_glc)
        feeds = asn / (asn + self.K_asn)
        salty = 1.0 / (1.0 + (jnp.maximum(state["Osmo"] - 310.0, 0.0) / 90.0) ** 2)
        mu = self.mu_max * eats * feeds * oxygen * salty * jnp.exp(-((acid / 0.25) ** 2))
        dies = 0.002 + 0.02 * (acid / 0.3) ** 2 * (1.0 - 0.5 * oxygen)
        takes = (0.045 * mu + 0.0012) * eats * (1.0 + 0.8 * acid)
        makes = takes * (1.15 - 0.8 * oxygen) - 0.0006 * lac / (0.5 + lac) * oxygen
        return {
            "VCD": (mu - dies) * x,
            "Glc": -takes * x,
            "Lac": makes * x,
            "Asn": -self.q_asn * (0.2 + mu / self.mu_max) * feeds * x,
            "Osmo": 12.0 * jnp.maximum(makes, 0.0) * x * (1.0 + acid),
            "Titer": self.q_p * (1.6 - mu / self.mu_max) * oxygen * x,
        }


def without(run: Trajectory, process: Process) -> Trajectory:
    """A run as it is kept by somebody who has that process."""
    names, controls = list(run.species_names), list(run.control_names)
    return Trajectory(
        np.asarray(run.species)[:, [names.index(n) for n in process.readings]],
        np.asarray(run.controls)[:, [controls.index(n) for n in process.control_names]],
        np.asarray(run.volume_L),
        np.asarray(run.days),
        process.readings,
        process.control_names,
        run_id=run.run_id,
        times_h=np.asarray(run.times_h),
    )


def more(seeds: int, n_runs: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    """Errors (3 horizons) of who may use them and who may not, a pair per seed."""
    plant = virtual_plant(CONDITIONED, ConditionedCells(), max_steps=1024)
    usual = {"VCD": 4.0, "Glc": 6.0, "Lac": 0.3, "Asn": 4.0, "Osmo": 295.0, "Titer": 0.0}
    rows = []
    for seed in range(seeds):
        held = spread_controls(CONDITIONED, n_runs, seed=seed)
        starts = np.tile([usual[n] for n in plant.states], (n_runs, 1))
        starts[:, 0] *= np.random.default_rng(seed).uniform(0.7, 1.4, n_runs)
        asked = (np.repeat(held[:, None], DAYS, axis=1), np.arange(DAYS + 1) * 24.0)
        runs = simulate_runs(plant, starts, *asked, key=jax.random.key(seed))
        true = simulate_runs(plant, starts, *asked, key=jax.random.key(seed), noise=False)
        errors = []
        for process in (CONDITIONED, PLAIN):
            told = [without(run, process) for run in runs]
            best = None
            for mechanism in ("monod", "none"):
                found = cross_validate(
                    told,
                    key=jax.random.key(seed),
                    n_folds=4,
                    horizon=max(AHEAD),
                    mech_model=mechanism,
                    process=process,
                )
                truth = np.stack([run.host_readings(found.names) for run in true])
                score = np.asarray(skill(found.forecasts, found.readings, truth).rrmse)
                index = [found.names.index(name) for name in JUDGED]
                at = [found.ahead_h.index(24.0 * h) for h in AHEAD]
                error = score[np.ix_(at, index)].mean(axis=1)
                print(
                    f"more, seed {seed}: {process.name}, {mechanism}: {error.round(3)}", flush=True
                )
                best = error if best is None or error[1] < best[1] else best
            errors.append(best)
        rows.append((errors[0], errors[1]))
    return rows


def table(rows: list[tuple[np.ndarray, np.ndarray]], who: tuple[str, str]) -> float:
    """Print the medians; the ratio of the errors at three days."""
    first, second = (np.array(part) for part in zip(*rows, strict=True))
    print(f"\n| ahead | {who[0]} | {who[1]} | ratio, median | range |")
    print("| --- | ---: | ---: | ---: | ---: |")
    ratio = second / first
    for k, days in enumerate(AHEAD):
        cells = [f"{np.median(v[:, k]):.3f}" for v in (first, second, ratio)]
        span = f"{ratio[:, k].min():.2f} to {ratio[:, k].max():.2f}"
        print(f"| {days} d | {' | '.join(cells)} | {span} |")
    return float(np.median(ratio[:, 1]))


def main() -> None:
    """Measure what is asked for and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plants", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=("less", "more"))
    asked, begun, told = parser.parse_args(), time.perf_counter(), []
    if asked.only != "more":
        ratio = table(less(asked.plants), ("all read", "five read"))
        told.append(f"less_over_all={ratio:.3f}")
    if asked.only != "less":
        ratio = table(more(asked.seeds), ("all of it", "without"))
        told.append(f"without_over_with={ratio:.3f}")
    print(f"\nreadings: {' '.join(told)} seconds={time.perf_counter() - begun:.0f}")


if __name__ == "__main__":
    main()
