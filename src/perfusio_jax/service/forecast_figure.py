"""A forecast as a picture: what was measured, and the fan from there on at its true hours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, HOURS_PER_DAY
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.hybrid import Ahead
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import Band, RunView, run_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cho_figure(rows: Sequence[Mapping[str, Any]], outlook: Any, changes: Any) -> "Figure":
    """A forecast of CHO perfusion: intervals of the state, and of readings around them.

    Args:
        rows: Samples with the set-points that acted from each on.
        outlook: The forecast, from `twin.forecast`.
        changes: Set-points in force from the last sample on, by name.
    """
    hours = np.array([float(row["time_h"]) for row in rows])
    readings = {n: _column(rows, "values", n) for n in FORECAST_SPECIES}
    acting = [*rows[:-1], {"controls": {**rows[-1]["controls"], **changes}}]
    ahead = HOURS_PER_DAY * np.asarray(outlook.days, float)
    least, most = np.quantile(np.asarray(outlook.samples), (0.025, 0.975), axis=0)
    bands = {
        name: Band(
            ahead,
            outlook.q10[:, k],
            outlook.q90[:, k],
            outlook.q50[:, k],
            least[:, k],
            most[:, k],
            outlook.reading_q10[:, k],
            outlook.reading_q90[:, k],
        )
        for k, name in enumerate(FORECAST_SPECIES)
    }
    set_to = {n: _column(acting, "controls", n) for n in CONTROL_NAMES}
    view = RunView("", hours, readings, set_to, bands)
    units = {n: canonical_unit(n) for n in (*FORECAST_SPECIES, *CONTROL_NAMES)}
    title = f"Forecast from {hours[-1]:g} h on"
    return run_figure(view, units, title=title, bands_are="state")


def draw_cho(rows: Sequence[Mapping[str, Any]], outlook: Any, changes: Any, path: Path) -> None:
    """Write `cho_figure` as a picture."""
    save_figure(cho_figure(rows, outlook, changes), path)


def described_figure(
    run: Trajectory, process: Process, found: Ahead, changes: Mapping[str, float]
) -> "Figure":
    """A forecast of a described culture: intervals of readings.

    Args:
        run: The run so far, with what acted.
        process: Its culture.
        found: The forecast.
        changes: Set-points that are another from the last sample on.
    """
    names = [n for n in found.names]
    readings = {
        n: np.asarray(run.get_species(n)) if n in run.species_names else np.full(run.n_days, np.nan)
        for n in names
    }
    table = np.array(run.controls, float)
    for name, value in changes.items():
        table[-1, run.control_names.index(name)] = value
    set_to = {n: table[:, k] for k, n in enumerate(run.control_names)}
    bands = {
        n: Band(
            found.hours,
            found.q10[:, k],
            found.q90[:, k],
            found.q50[:, k],
            found.q025[:, k],
            found.q975[:, k],
        )
        for k, n in enumerate(names)
    }
    hours = np.asarray(run.times_h, float)
    units = {p.name: p.unit for p in (*process.quantities, *process.controls)}
    title = f"{process.name}, run {run.run_id}: forecast from {hours[-1]:g} h on"
    view = RunView("", hours, readings, set_to, bands)
    return run_figure(view, units, title=title, bands_are="readings")


def draw_described(
    run: Trajectory, process: Process, found: Ahead, changes: Mapping[str, float], path: Path
) -> None:
    """Write `described_figure` as a picture."""
    save_figure(described_figure(run, process, found, changes), path)


def _column(rows: Sequence[Mapping[str, Any]], part: str, name: str) -> np.ndarray:
    values = [row[part].get(name) for row in rows]
    return np.array([np.nan if v is None else float(v) for v in values])
