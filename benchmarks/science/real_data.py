"""Two real data sets, leave one out: `python -m benchmarks.science.real_data --data FOLDER`.

The data are public and not part of this repository; FOLDER holds them as CSV:

  real_yeast_batches.csv   four batches of Xanthophyllomyces dendrorhous on 25 to 100 g/L glucose,
                           irregular samples over 120 h (Liu and Wu 2008, Biotechnol Bioeng 101,
                           996-1004; tabulated in github carlosmvond/hybrid-modelling-of-batch-
                           bioreactors)
  real_cho_two_clones.csv  CHO clones B and C, three replicates each, days 0 to 7, before and after
                           feeding, as the laboratory keeps it (github ebalderasr/clonalyzer,
                           data/2024-05-18_Clones_B_C_Kinetics.csv)

`yeast`: a model of three batches forecasts the fourth from its first sample alone, 120 h; R2 over
all later samples, as the published neural hybrid is scored (trained on batches 1 to 3; mean of ten
seeds). The culture is one page of TOML. Of a plain Monod and no mechanism the one is taken that
forecasts the three batches better, each by a process that has not seen it.

`cho`: read with the column map below and nothing else; a run is left out at a time and forecast 1,
2 and 4 days from each of its samples, beside the calibrated Monod alone, the exponential trend of
the last two readings, and nothing changing. Weighted absolute percentage error: the sum of the
absolute errors over that of the readings.
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

import jax
import numpy as np

from perfusio_jax.connectors import read_campaign, read_culture
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import HybridConfig, cross_validate, fitted_best, forecast_ahead
from perfusio_jax.hybrid.evaluate import pick
from perfusio_jax.hybrid.yardsticks import nothing_changes, trend, weighted_percentage
from perfusio_jax.process import Process

YEAST = """
name = "xanthophyllomyces_batch"
description = "Red yeast on glucose, ethanol by overflow, a pigment that follows growth"
volume_L = 1.0
biomass = "X"
controls = []
streams = []

[[quantities]]
name = "X"
unit = "g/L"
hi = 60.0
cv = 0.04
floor = 0.1

[[quantities]]
name = "Glc"
unit = "g/L"
hi = 150.0
cv = 0.03
floor = 0.3

[[quantities]]
name = "EtOH"
unit = "g/L"
hi = 15.0
cv = 0.06
floor = 0.1

[[quantities]]
name = "Astaxanthin"
unit = "mg/L"
hi = 60.0
cv = 0.05
floor = 0.1
"""

COLUMNS = """
[columns]
Clona = "clone_id"
"Tiempo en horas" = "day"
Vivas = {name = "VCD", unit = "cells/mL"}
Viabilidad = "Via"
"Glucosa (g/L)" = "Glc"
"Lactato (g/L)" = "Lac"
"Glutamina (mmol/L)" = "Gln"
"Glutamato (mmol/L)" = "Glu"
"Anticuerpo Monoclonal (mg/mL)" = "Titer"

[reading]
skip_lines = [2]
run_from = ["Clona", "repeticion"]
feeds = "bolus"
"""
"""Two header rows, a column of "hours" that holds days, after-feed rows with the cells copied."""

PUBLISHED = {"X": 0.43, "Glc": 0.92, "EtOH": 0.74, "Astaxanthin": 0.86}
"""R2 of the neural hybrid on batch 4."""
HOURS = (24.0, 48.0, 96.0)


def determination(forecast: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Coefficient of determination of each column [-]."""
    return 1.0 - ((forecast - seen) ** 2).sum(0) / ((seen - seen.mean(0)) ** 2).sum(0)


def yeast(folder: Path, data: Path, seed: int) -> None:
    """Every batch forecast from its first sample by a model of the others."""
    file = folder / "yeast.toml"
    file.write_text(YEAST)
    process = Process.from_toml(file)
    runs = read_campaign(data / "real_yeast_batches.csv", process=process).trajectories
    names = process.readings
    begun, rows = time.perf_counter(), []
    for k, left in enumerate(runs):
        others = [run for n, run in enumerate(runs) if n != k]
        fitted, told = fitted_best(others, process, seed=seed)
        first = jax.tree.map(lambda leaf: leaf[:1], left)
        hours = np.asarray(left.times_h)
        found = forecast_ahead(fitted.model, first, (hours[1:] - hours[0]).tolist(), seed=seed)
        seen = np.asarray(left.species)[1:]
        inside = [
            np.mean((low <= seen) & (seen <= high))
            for low, high in ((found.q10, found.q90), (found.q025, found.q975))
        ]
        rows.append((left.run_id, determination(found.q50, seen), *inside, fitted.name))
        print(f"{left.run_id}: {rows[-1]} {told}", flush=True)
    print(f"\n| forecast | {' | '.join(names)} | in 80 % | in 95 % | mechanism |")
    print(f"| --- | {'--- | ' * (len(names) + 3)}")
    for run, score, low, high, name in rows:
        cells = " | ".join(f"{s:.2f}" for s in score)
        print(f"| {run} | {cells} | {100 * low:.0f} % | {100 * high:.0f} % | {name} |")
    print(f"| batch4, published | {' | '.join(f'{PUBLISHED[n]:.2f}' for n in names)} | | | |")
    last = dict(zip(names, rows[-1][1], strict=True))
    wins = sum(last[n] > PUBLISHED[n] for n in names)
    print(
        f"\nyeast: above_published={wins} of={len(names)} "
        f"seconds={time.perf_counter() - begun:.0f}",
        flush=True,
    )


def cho(folder: Path, data: Path, seed: int) -> None:
    """Every run left out, beside the mechanism alone and forecasts that cost nothing."""
    columns = folder / "columns.toml"
    columns.write_text(COLUMNS)
    rules = FileRules.of(columns)
    table = read_culture(data / "real_cho_two_clones.csv", None, rules)
    for line in (*table.report.notes, *table.report.warnings, *table.assumptions):
        print(f"told: {line}")
    runs, begun = table.trajectories, time.perf_counter()
    asked = {
        "hybrid, Monod": ("monod", HybridConfig()),
        "hybrid, no mechanism": ("none", HybridConfig()),
        "Monod, calibrated": ("monod", HybridConfig(use_gp=False)),
    }
    errors: dict[str, np.ndarray] = {}
    within: dict[str, np.ndarray] = {}
    for name, (mechanism, config) in asked.items():
        found = cross_validate(
            runs,
            key=jax.random.key(seed),
            config=config,
            n_folds=len(runs),
            horizon=int(max(HOURS) / 24.0),
            mech_model=mechanism,
            process=table.process,
        )
        about = pick(found.forecasts, found.readings)
        at = [found.ahead_h.index(h) for h in HOURS]
        errors[name] = weighted_percentage(np.asarray(found.forecasts.mean), about)[at]
        within[name] = coverage(found.forecasts, about)[at]
        errors["trend of the last two"] = weighted_percentage(trend(found), about)[at]
        still = np.broadcast_to(nothing_changes(found), about.shape)
        errors["nothing changes"] = weighted_percentage(still, about)[at]
        names = found.names
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    print(f"\n| ahead | forecast | {' | '.join(names)} |")
    print(f"| --- | --- | {'--- | ' * len(names)}")
    for h, hours in enumerate(HOURS):
        for name, wape in errors.items():
            cells = [f"{100 * v:.0f} %" for v in wape[h]]
            if name in within:
                cells = [
                    f"{c} ({100 * v:.0f})" for c, v in zip(cells, within[name][h], strict=True)
                ]
            print(f"| {hours / 24:g} d | {name} | {' | '.join(cells)} |")
    best = [min(errors, key=lambda n: errors[n][h, k]) for h, k in judged(names)]
    print(
        f"\ncho: best_of_hybrid={sum(n.startswith('hybrid') for n in best)} of={len(best)} "
        f"seconds={time.perf_counter() - begun:.0f}"
    )


def judged(names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Horizon and column of what the comparison is about: cells, glucose, lactate."""
    return [(h, names.index(n)) for h in range(len(HOURS)) for n in ("VCD", "Glc", "Lac")]


def coverage(found, about: np.ndarray) -> np.ndarray:
    """Share of the readings in the 80 % interval, by horizon and quantity `(H,F)` [-]."""
    seen = np.isfinite(about)
    low, high = (np.asarray(found.quantiles)[..., k] for k in (1, 3))
    inside = (low <= about) & (about <= high) & seen
    return inside.sum(axis=(0, 1)) / seen.sum(axis=(0, 1))


def main() -> None:
    """Run what is asked for and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=("yeast", "cho"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for name, work in (("yeast", yeast), ("cho", cho)):
            if asked.only in (None, name):
                work(Path(place), asked.data, asked.seed)


if __name__ == "__main__":
    main()
