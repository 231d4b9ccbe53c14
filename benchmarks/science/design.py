"""What designed runs tell of constants: `python -m benchmarks.science.design`.

The CHO plant, 14 days, a sample each day, 21 constants with the priors they are calibrated with.
A Box-Behnken design of perfusion, bleed and temperature makes 15 runs; as many are designed by
`design_for_constants`: the same three set-points held, the same changed once within a run, and all
six changed once. Information is counted at constants that the design has not seen.

Checked by fits: campaigns are simulated with noise, each at constants drawn from the priors, and
fitted. Told is the volume that the errors of the fits fill (root of the determinant of their second
moments), their root mean square and its median over campaigns, in prior standard deviations.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time

import perfusio_jax

perfusio_jax.enable_x64()

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from perfusio_jax._core import CONTROL_NAMES
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid.calibration import CALIBRATED
from perfusio_jax.simulator import virtual_reactor
from perfusio_jax.simulator.doe import box_behnken, scale_to_bounds
from perfusio_jax.study import Wanted, cho_experiment, choose_levers, design_for_constants
from perfusio_jax.study.design.criteria import volume_ratio
from perfusio_jax.study.design.information import told_by
from perfusio_jax.study.experiment import Experiment
from perfusio_jax.study.identifiability.fitting import Asked, deviations, readings_at, searched
from perfusio_jax.study.identifiability.records import planned_runs
from perfusio_jax.study.sensitivity.laws import laws_of

DAYS = 14
FACTORS = ("perfusion_rate", "bleed_rate", "temperature")
HELD, ONE_CHANGE = "three set-points, held", "three set-points, one change"
SIX = "six set-points, one change"
_ROUNDS = 2
"""Fits of one campaign: deviations of the assays are taken anew from what the first would read."""


class Judge:
    """Runs of one plant, judged at constants that no design has seen."""

    def __init__(self, n_draws: int, seed: int):
        self.run: Experiment = cho_experiment(
            virtual_reactor(), 24.0 * np.arange(DAYS + 1), by_interval=True
        )
        self.levers = choose_levers(self.run, list(CALIBRATED))
        self.laws = laws_of(self.run, self.levers)
        rng = np.random.default_rng([seed, 1])
        self.draws = rng.standard_normal((n_draws, len(self.levers)))

    def held(self) -> dict[str, tuple[float, float]]:
        """Set-points that Box and Behnken's design leaves where they are."""
        stands = np.asarray(self.run.controls)[0]
        return {
            name: (float(v), float(v))
            for name, v in zip(CONTROL_NAMES, stands, strict=True)
            if name not in FACTORS
        }

    def behnken(self) -> np.ndarray:
        """Its set-points, by run and day."""
        lo, hi = (np.asarray(v) for v in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
        place = [CONTROL_NAMES.index(name) for name in FACTORS]
        levels = box_behnken(len(FACTORS), center_points=3)
        table = np.tile(np.asarray(self.run.controls)[:1], (len(levels), DAYS, 1))
        table[:, :, place] = scale_to_bounds(levels, lo[place], hi[place])[:, None, :]
        return table

    def information(self, table: np.ndarray) -> np.ndarray:
        """What the runs tell, priors included, at each draw."""
        told = told_by(self.run, self.levers, self.laws, self.draws, table)
        if not told.is_possible.all():
            raise SystemExit("a run of a design cannot be simulated at some constants.")
        every = np.ones(DAYS + 1, bool)
        found = sum(told.of_run(k, every) for k in range(len(table)))
        return np.eye(len(self.levers)) + found

    def errors(self, table: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, int]:
        """Errors of fits of simulated campaigns, and how many did not come to their end."""
        p = len(self.levers)
        empty = planned_runs(self.run, table)
        w = jnp.zeros(empty.start.shape)
        found, n_open = [], 0
        for k in range(n):
            rng = np.random.default_rng([seed, 2, k])
            z = jnp.asarray(rng.standard_normal(p))
            shown = readings_at(self.run, empty, self.levers, self.laws, (z, w))
            sd = deviations(self.run, empty, shown)
            noisy = shown + sd * jnp.asarray(rng.standard_normal(shown.shape))
            records = empty._replace(readings=noisy)
            asked = Asked(
                z=jnp.zeros(p),
                w=w,
                sd=deviations(self.run, records, noisy),
                is_free=jnp.ones(p),
                prior=jnp.asarray(1.0),
                is_start_free=jnp.asarray(1.0),
            )
            best = None
            for _ in range(_ROUNDS):
                best = searched(self.run, records, self.levers, self.laws, asked)
                again = readings_at(self.run, records, self.levers, self.laws, (best.z, best.w))
                sd = deviations(self.run, records, again)
                asked = asked._replace(z=best.z, w=best.w, sd=sd)
            n_open += not bool(best.is_converged)
            found.append(np.asarray(best.z - z))
        return np.stack(found), n_open


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--campaigns", type=int, default=50, help="simulated and fitted by each")
    parser.add_argument("--candidates", type=int, default=256, help="schedules looked at")
    parser.add_argument("--draws", type=int, default=4, help="constants a design is made for")
    parser.add_argument("--unseen", type=int, default=8, help="constants it is judged at")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    console = Console(highlight=False, width=110, stderr=True)
    judge = Judge(asked.unseen, asked.seed)
    behnken = judge.behnken()
    n = len(behnken)
    ways = {
        HELD: (0, judge.held()),
        ONE_CHANGE: (1, judge.held()),
        SIX: (1, {}),
    }
    tables, seconds = {"Box-Behnken": behnken}, {"Box-Behnken": 0.0}
    for name, (changes, ranges) in ways.items():
        console.print(f"designing {n} runs: {name}")
        begun = time.perf_counter()
        wanted = Wanted(
            n_runs=n, n_changes=changes, n_candidates=asked.candidates, n_draws=asked.draws
        )
        made = design_for_constants(
            judge.run, list(CALIBRATED), wanted, ranges=ranges, seed=asked.seed
        )
        tables[name], seconds[name] = made.controls, time.perf_counter() - begun
    told = {name: judge.information(table) for name, table in tables.items()}
    p = len(judge.levers)
    table = Table(title=f"{n} runs of {DAYS} days, {p} constants")
    columns = ("runs", "design [s]", "volume, theirs / ours", "by constant", "mean sd [prior sd]")
    for name in columns:
        table.add_column(name, justify="left" if name == "runs" else "right")
    ratios = {}
    for name, information in told.items():
        ratios[name] = volume_ratio(information, told["Box-Behnken"])
        sd = np.sqrt(np.diagonal(np.linalg.inv(information), axis1=1, axis2=2)).mean()
        table.add_row(
            name, f"{seconds[name]:.0f}", f"{ratios[name]:.3g}",
            f"{ratios[name] ** (1 / p):.2f}", f"{sd:.3f}",
        )  # fmt: skip
    Console(highlight=False, width=110).print(table)
    keys = {
        "volume_ratio_held": f"{ratios[HELD]:.3g}",
        "volume_ratio_one_change": f"{ratios[ONE_CHANGE]:.3g}",
        "volume_ratio_six": f"{ratios[SIX]:.3g}",
    }
    if asked.campaigns:
        keys |= refitted(judge, tables, asked.campaigns, asked.seed, console)
    print("design: " + " ".join(f"{k}={v}" for k, v in keys.items()))


def refitted(
    judge: Judge, tables: dict[str, np.ndarray], n: int, seed: int, console: Console
) -> dict[str, str]:
    """The same by fits of simulated campaigns."""
    size, keys = {}, {}
    short = {"Box-Behnken": "behnken", ONE_CHANGE: "one_change", SIX: "six"}
    for name, key in short.items():
        console.print(f"fitting {n} simulated campaigns: {name}")
        begun = time.perf_counter()
        errors, n_open = judge.errors(tables[name], n, seed)
        size[name] = 0.5 * np.linalg.slogdet(errors.T @ errors / n)[1]
        rms, used = float(np.sqrt(np.mean(errors**2))), time.perf_counter() - begun
        console.print(f"  error {rms:.3f} prior sd, {n_open} fits not at an end, {used:.0f} s")
        # a fit that was caught elsewhere counts as one, and not for all the others
        keys[f"median_{key}"] = f"{np.median(np.sqrt(np.mean(errors**2, axis=1))):.3f}"
        ratio = np.exp(size["Box-Behnken"] - size[name])
        keys |= {f"refitted_{key}": f"{ratio:.3g}", f"rms_{key}": f"{rms:.3f}"}
        keys[f"not_ended_{key}"] = str(n_open)
    return keys


if __name__ == "__main__":
    main()
