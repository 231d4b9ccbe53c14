"""Tables of recipes: what is proposed, and what is under way."""

import csv
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.text import plain_number
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors.tables.delimited import text_rows
from perfusio_jax.states import Trajectory


def read_recipes(
    path: Path, names: list[str], unit_of: Callable[[str], str] = canonical_unit
) -> np.ndarray:
    """Recipes from a table with a column per control; a row of units is passed over.

    Args:
        path: CSV file, as `write_recipes` writes it.
        names: Controls, in the order wanted.
        unit_of: Unit of a control.

    Returns:
        One recipe per row, canonical units; none if the table holds its header only.

    Raises:
        DataError: If the file cannot be read so.
    """
    rows = [recipe for _, recipe in _read_recipes(path, names, unit_of)]
    return np.asarray(rows, float).reshape(-1, len(names))


def _read_recipes(
    path: Path, names: list[str], unit_of: Callable[[str], str] = canonical_unit
) -> list[tuple[str, np.ndarray]]:
    """Name of the run, if there is one, and recipe of each row."""
    rows, header = text_rows(path, "pending runs")
    if not header:
        raise DataError(f"{path} is empty; a table of recipes has at least its header.")
    lost = [n for n in names if n not in header]
    if lost:
        raise DataError(f"{path} lacks the columns {', '.join(lost)}.")
    out = []
    for number, row in enumerate(rows, start=2):
        if number == 2 and all(row[n] == unit_of(n) for n in names):
            continue
        try:
            values = [plain_number(row[name]) for name in names]
        except (TypeError, ValueError):
            raise DataError(f"{path}, line {number}: not a number for every control.") from None
        if not np.isfinite(values).all():
            raise DataError(f"{path}, line {number}: not a finite number for every control.")
        out.append(((row.get("run_id") or "").strip(), np.asarray(values, float)))
    return out


def write_recipes(
    path: Path,
    U: np.ndarray,
    names: list[str],
    ids: list[str],
    clone: str,
    found: Mapping[str, Any],
    unit_of: Callable[[str], str] = canonical_unit,
) -> None:
    """Proposed runs as CSV: names, units, one row per run."""
    labels = list(found["best_expected"])
    header = ["run_id", "clone_id", *names]
    units = ["", "", *(unit_of(n) for n in names)]
    for label in labels:
        header += [f"{label}: {what}" for what in ("expected", "10 %", "90 %")]
        units += ["", "", ""]
    header += [f"P({c['limit']})" for c in found["constraints"]]
    units += [""] * len(found["constraints"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerow(units)
        for name, u, run in zip(ids, U, found["runs"], strict=True):
            cells = [f"{v:.6g}" for v in u]
            for label in labels:
                cells += [f"{run[what][label]:.5g}" for what in ("expected", "q10", "q90")]
            cells += [f"{p:.3f}" for p in run["probability_kept"]]
            writer.writerow([name, clone, *cells])


def still_pending(
    path: Path | None,
    names: list[str],
    run_ids: list[str],
    unit_of: Callable[[str], str] = canonical_unit,
) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """Runs that are under way, and what is to be said of them.

    Args:
        path: Table of recipes, or None.
        names: Controls, in the order wanted.
        run_ids: Runs with results: a pending run among them is no longer pending.
        unit_of: Unit of a control.

    Returns:
        Name (empty if it has none) and recipe of each, and sentences.

    Raises:
        DataError: If the table cannot be read, or names one run twice.
    """
    if path is None:
        return [], []
    rows = _read_recipes(path, names, unit_of)
    ids = [name for name, _ in rows if name]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise DataError(f"{path} names {', '.join(twice)} more than once; a run is pending once.")
    done = [name for name in ids if name in run_ids]
    waiting = [(name, recipe) for name, recipe in rows if name not in done]
    lines = []
    if done:
        lines.append(
            f"no longer pending, because their results are in the table: {', '.join(done)}"
        )
    called = [name for name, _ in waiting if name]
    unnamed = len(waiting) - len(called)
    if unnamed:
        called.append(f"{unnamed} without a run_id")
    lines.append(
        f"{len(waiting)} pending run(s) counted as under way"
        + (f": {', '.join(called)}" if called else "")
    )
    return waiting, lines


def new_ids(n: int, n_runs: int, taken: set[str]) -> list[str]:
    """Names for proposed runs that neither a run so far nor a pending one has.

    Args:
        n: Names wanted.
        n_runs: Runs so far: numbers begin after it.
        taken: Names in use.
    """
    numbers = (f"NEXT{number:03d}" for number in itertools.count(n_runs + 1))
    return list(itertools.islice((name for name in numbers if name not in taken), n))


def recipes_of(
    trajectories: Sequence[Trajectory], names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Set-points of each run, and a line per run that changed them on the way.

    Args:
        trajectories: Runs.
        names: Controls.
    """
    recipes, lines = [], []
    for run in trajectories:
        have = list(run.control_names)
        table = np.asarray(run.controls, float)
        hours = np.diff(np.asarray(run.times_h, float))
        held = table[: len(hours)]
        mean = hours @ held / hours.sum()
        recipes.append([mean[have.index(name)] for name in names])
        moved = [
            name
            for name in names
            if np.ptp(held[:, have.index(name)]) > 1e-6 * max(abs(mean[have.index(name)]), 1.0)
        ]
        if moved:
            lines.append(
                f"run {run.run_id} changed {', '.join(moved)} on the way; it counts with their "
                "mean over time"
            )
    return np.asarray(recipes), lines
