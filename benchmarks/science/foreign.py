"""A culture the library has never seen, held by its twin: `python -m benchmarks.science.foreign`.

A perfusion of cells with kinetics of their own: glucose and lactate in g/L, growth that glucose,
lactate and crowding limit, a temperature below which cells grow slower and make more, death by
lactate, the bleed as the lever. The twin is told a process (names, units, streams, the medium) and
given twelve past runs of 14 days with noisy daily samples; what it fits is the better of a plain
Monod mechanism and none, neither of which is the truth. It then holds a viable cell density through
files for 14 days after 4 days of start-up, against

  pi     bleed control on the measured density, velocity form, gains tuned on the true plant over
         four seeds of noise
  fixed  the start-up recipe throughout

In every seed the past runs, the noise and the vessel are others: constants of the driven vessel
differ from those of the past runs by a tenth or so. The PI controller is tuned on the driven vessel
itself. Errors are of the noise-free truth, from the day after the first decision on.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import asyncio
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.demo.described_run import (
    STARTUP_DAYS,
    DescribedResult,
    Held,
    Setting,
    drive,
    past_runs,
    run_fixed,
    tuned_pi,
)
from perfusio_jax.hybrid import fitted_best, save
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.twin import Objective, verify_audit

PROCESS = Process(
    name="foreign_perfusion",
    description="Perfusion of cells with kinetics of their own",
    volume_L=0.3,
    biomass="VCD",
    quantities=(
        Quantity(name="VCD", unit="1e6 cells/mL", hi=100.0, cv=0.06, floor=0.02),
        Quantity(name="DCD", unit="1e6 cells/mL", hi=100.0, is_measured=False),
        Quantity(
            name="Via",
            unit="%",
            kind="derived",
            hi=100.0,
            cv=0.01,
            formula="viability",
            of=("VCD", "DCD"),
        ),
        Quantity(name="Glc", unit="g/L", hi=12.0, cv=0.04, floor=0.05),
        Quantity(name="Lac", unit="g/L", hi=8.0, cv=0.05, floor=0.03),
        Quantity(name="Titer", unit="g/L", hi=4.0, cv=0.06, floor=0.01),
    ),
    controls=(
        Control(name="perfusion_rate", unit="vvd", role="flow", lo=0.6, hi=1.8, default=1.2),
        Control(name="bleed_rate", unit="vvd", role="flow", lo=0.03, hi=0.6, default=0.2),
        Control(
            name="temperature", unit="degC", role="environment", lo=33.0, hi=37.0, default=36.5
        ),
    ),
    streams=(
        Stream(name="medium", direction="in", flow="perfusion_rate", carries={"Glc": 6.0}),
        Stream(name="bleed", direction="out", flow="bleed_rate"),
        Stream(name="harvest", direction="out", flow="rest", passes={"VCD": 0.0, "DCD": 0.0}),
    ),
)


class ForeignCells(Mechanism):
    """The truth, which no controller knows."""

    mu_max: jax.Array = constant(0.024, unit="1/h")
    K_glc: jax.Array = constant(0.4, unit="g/L")
    K_lac: jax.Array = constant(6.0, unit="g/L")
    crowding: jax.Array = constant(60.0, unit="1e6 cells/mL")
    death: jax.Array = constant(0.002, unit="1/h")
    q_glc: jax.Array = constant(0.0016, unit="g/1e9 cells/h")
    q_p: jax.Array = constant(0.0008, unit="g/1e9 cells/h")

    def rates(self, state, environment):
        """Rates per volume [unit of the quantity / h]."""
        x, glc, lac = state["VCD"], state["Glc"], state["Lac"]
        warm = jax.nn.sigmoid((environment["temperature"] - 34.5) / 0.5)
        eats = glc / (glc + self.K_glc)
        mu = self.mu_max * (0.4 + 0.6 * warm) * eats
        mu = mu / (1.0 + (lac / self.K_lac) ** 2) / (1.0 + x / self.crowding)
        dies = self.death + 0.004 * (lac / 5.0) ** 2
        takes = (mu / 0.35 * 0.02 + self.q_glc * (0.7 + 0.3 * warm)) * eats
        return {
            "VCD": (mu - dies) * x,
            "DCD": dies * x,
            "Glc": -takes * x,
            "Lac": (0.75 * takes - 0.0012 * lac / (1.0 + lac) * (1.0 - eats)) * x,
            "Titer": self.q_p * (2.2 - 1.2 * warm) * x,
        }


TARGET = 20.0
"""Viable cell density to hold [1e6 cells/mL]."""
START = {"VCD": 5.0, "DCD": 0.1, "Glc": 6.0, "Lac": 0.2, "Titer": 0.0}
DAYS = 14
SPREAD = 0.1
"""Standard deviation of a vessel's constants around those of the past runs, on the log scale."""


def vessel(seed: int) -> Mechanism:
    """The truth of one driven vessel: constants a tenth or so from those of the past runs."""
    rng = np.random.default_rng(500 + seed)
    usual = ForeignCells()
    changed = {
        f.name: jnp.asarray(getattr(usual, f.name) * np.exp(SPREAD * rng.standard_normal()))
        for f in dataclasses.fields(usual)
    }
    return ForeignCells(**changed)


def one_seed(folder: Path, seed: int, *, mode: str, say) -> dict[str, float]:
    """Past runs, fit, closed loop and rivals."""
    plant = virtual_plant(PROCESS, vessel(seed))
    recipe = {c.name: c.default for c in PROCESS.controls}
    start = np.asarray([START[name] for name in plant.states])
    setting = Setting(plant, start, recipe, 24.0, DAYS)
    runs = past_runs(
        virtual_plant(PROCESS, ForeignCells()), n_runs=12, n_days=14, interval_h=24.0, seed=seed
    )
    begun = time.perf_counter()
    fitted, told = fitted_best(runs, PROCESS, seed=seed)
    for line in told:
        say(line)
    save(fitted.model, folder / "model")
    objective = Objective(goals=(f"VCD = {TARGET:g}",), limits=("Via >= 80",))
    say(f"fitted after {time.perf_counter() - begun:.0f} s")
    run, _ = asyncio.run(
        drive(folder, setting, fitted.model, objective, seed=seed, mode=mode, say=say)
    )
    held = Held("VCD", TARGET, "bleed_rate")
    result = DescribedResult(seed, folder, np.stack(run.true), run.applied)
    result.rivals["fixed"] = run_fixed(setting, seed=seed)
    result.tuned, result.rivals["pi"] = tuned_pi(setting, held, seed=seed)
    via = PROCESS.readings.index("Via")
    found = result.errors(setting, held)
    found["lowest_via"] = float(result.truth[STARTUP_DAYS:, via].min())
    found["lowest_via_pi"] = float(result.rivals["pi"][STARTUP_DAYS:, via].min())
    found["audit"] = float(verify_audit(folder).ok)
    say(f"seed {seed}: {found} {result.tuned}")
    return found


def main() -> None:
    """Run the seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--mode", default="adaptive", choices=("adaptive", "frozen"))
    parser.add_argument("--quiet", action="store_true")
    asked = parser.parse_args()
    begun, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as place:
        for seed in range(asked.first, asked.first + asked.seeds):
            say = (lambda _: None) if asked.quiet else (lambda text: print(text, flush=True))
            found = one_seed(Path(place) / f"seed{seed}", seed, mode=asked.mode, say=say)
            rows.append(found)
    print("\nmean |VCD - target| after start-up [1e6 cells/mL], noise-free\n")
    print("| seed | twin | PI on bleed, tuned on the plant | fixed | lowest viability twin, PI |")
    print("| --- | --- | --- | --- | --- |")
    for seed, r in enumerate(rows, start=asked.first):
        low = f"{r['lowest_via']:.1f}, {r['lowest_via_pi']:.1f} %"
        print(f"| {seed} | {r['twin']:.2f} | {r['pi']:.2f} | {r['fixed']:.2f} | {low} |")
    mean = {name: float(np.mean([r[name] for r in rows])) for name in ("twin", "pi", "fixed")}
    print(f"| mean | {mean['twin']:.2f} | {mean['pi']:.2f} | {mean['fixed']:.2f} | |")
    wins = sum(r["twin"] < r["pi"] for r in rows)
    seconds = time.perf_counter() - begun
    print(
        f"\nforeign: seeds={len(rows)} wins={wins} twin={mean['twin']:.3f} pi={mean['pi']:.3f} "
        f"fixed={mean['fixed']:.3f} audit={int(all(r['audit'] for r in rows))} "
        f"seconds={seconds:.0f}"
    )


if __name__ == "__main__":
    main()
