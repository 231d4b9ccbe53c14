"""`perfusio-jax forecast` for a culture that is described."""

import csv
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import shown_unit
from perfusio_jax.connectors.files.one_run import read_one_run
from perfusio_jax.connectors.files.schedule import ahead_of, one_schedule, read_schedules
from perfusio_jax.connectors.tables.acting import since_when
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import Ahead, HybridStateSpaceModel, forecast_over
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory, complete_setpoints, intervals_text
from perfusio_jax.viz import Card, show_card

from .forecast_figure import described_figure, draw_described
from .forecast_table import forecast_card, verdict_line
from .posterior_draws import with_draws

_MOST_ROWS = 500
_PATHS = 256
"""Paths of a forecast, over all draws of a posterior together."""


def forecast_described(
    hybrid: HybridStateSpaceModel,
    process: Process,
    folder: Path,
    samples: Path,
    hours: np.ndarray,
    changes: Mapping[str, float],
    *,
    whose: Mapping[str, str | None],
    seed: int,
    out: Path | None,
    console: Any,
    figure: Path | None = None,
    schedule: Path | None = None,
    posterior: Path | None = None,
    rules: FileRules | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Print a forecast from the last sample on, and write it if asked.

    Args:
        hybrid: The model.
        process: Its culture.
        folder: Its folder.
        samples: Samples of one run so far.
        hours: Hours ahead.
        changes: Set-points that change at the last sample.
        whose: `run_id` and `reactor_id`, if the file holds several.
        seed: Seed of the paths.
        out: CSV file to write as well.
        console: Where to print.
        figure: Picture to write as well.
        schedule: Table of set-points that change from now on.
        posterior: Folder of a posterior, whose draws stand in for the model's constants.
        rules: How the samples are read.
        on_card: Is given what the forecast says.
    """
    if not 0 < hours.size <= _MOST_ROWS:
        raise ConfigError(
            f"{hours.size} rows of a forecast were asked for; allowed are 1 to {_MOST_ROWS}. "
            "--every is hours between rows, --days how far."
        )
    run, report = read_one_run(samples, process, rules, **whose)
    for line in report.oddities:
        console.print(f"{samples.name}: {line}", soft_wrap=True)
    times = np.asarray(run.times_h, float)
    apart = f" {intervals_text(np.diff(times))}" if times.size > 1 else ""
    many = "samples" if times.size > 1 else "sample"
    console.print(f"{times.size} {many}{apart}, the last at {times[-1]:g} h", soft_wrap=True)
    moved = () if rules is not None and rules.set_points == "until" else _moved(run, process)
    run, told = _with_setpoints(run, process)
    told += [since_when(moved)] if moved else []
    for line in (*told, *_beyond(process, changes)):
        console.print(line, soft_wrap=True)
    set_points: Any = changes
    if schedule is not None:
        known = read_schedules(schedule, process.control_names, lambda n: process.control(n).unit)
        one = one_schedule(schedule, known, whose["run_id"] if len(known) == 1 else run.run_id)
        once = [process.control_names.index(name) for name in process.boluses]
        hours, set_points = ahead_of(one, float(times[-1]), hours.tolist(), once)
        console.print(f"set-points from now on: {schedule.name}, run {one.run_id or '(no name)'}")
    models = [hybrid]
    if posterior is not None:
        models, told = with_draws(hybrid, process, posterior, run.clone_id, seed=seed)
        for line in told:
            console.print(line, soft_wrap=True)
    paths = _PATHS // len(models)
    with console.status("estimating the state and forecasting"):
        found = forecast_over(models, run, hours.tolist(), set_points, n_samples=paths, seed=seed)
    seen = {n for n in run.species_names if np.isfinite(np.asarray(run.get_species(n))).any()}
    never = [n for n in found.names if n not in seen]
    units = {q.name: q.unit for q in process.quantities}
    columns = [f"{n} [{shown_unit(units[n])}]" + "*" * (n in never) for n in found.names]
    labels = ["hour", *(f"{hour:g}" for hour in found.hours)]
    title = f"forecast of {process.name} from {times[-1]:g} h: median (10 % to 90 % of readings)"
    values = (found.q50, found.q10, found.q90)
    card = forecast_card(
        title, labels, columns, values, never=never, model=verdict_line(hybrid, folder),
        source=f"model {folder.name}, samples {samples.name}",
        figure=lambda: described_figure(run, process, found, changes),
    )  # fmt: skip
    show_card(card, console)
    if on_card is not None:
        on_card(card)
    if out is not None:
        _write(found, out, units, never)
        console.print(f"table: {out}", soft_wrap=True)
    if figure is not None:
        draw_described(run, process, found, changes, figure)
        console.print(f"figure: {figure}", soft_wrap=True)


def _moved(run: Trajectory, process: Process) -> list[str]:
    """Controls that are held and of which the file states more than one value."""
    table = np.asarray(run.controls, float)
    values = [set(column[~np.isnan(column)].tolist()) for column in table.T]
    pairs = zip(process.control_names, values, strict=True)
    return [n for n, stated in pairs if len(stated) > 1 and n not in process.boluses]


def _with_setpoints(run: Trajectory, process: Process) -> tuple[Trajectory, list[str]]:
    """The run with what acted, and a sentence for everything that had to be assumed.

    A blank means that the value above it stayed; of what the file never tells, or not from the
    start, the process's default acted. No bolus was given where the file has no column of it.
    """
    table = np.array(run.controls, float)
    lines = []
    for column, control in enumerate(process.controls):
        values = table[:, column]
        if control.role == "bolus":
            if np.isnan(values).all():
                table[:, column] = 0.0
                lines.append(f"assumed, for the file does not tell: no {control.name}")
            continue
        if np.isnan(values[0]):
            rows = np.cumsum(~np.isnan(values)) == 0
            values[rows] = control.default
            until = "" if rows.all() else f" until {float(run.times_h[rows.sum()]):g} h"
            lines.append(
                f"assumed{until}, for the file does not tell: {control.name} {control.default:g} "
                f"{shown_unit(control.unit)}; --set name=value says what acts from now on"
            )
    filled = dataclasses.replace(run, controls=table)
    (complete,), more = complete_setpoints(
        [filled], fill_down=True, names=process.control_names, once=process.boluses
    )
    return complete, [*lines, *more]


def _beyond(process: Process, changes: Mapping[str, float]) -> list[str]:
    """Set-points outside what the process says may be set, one sentence each."""
    lines = []
    for name, value in changes.items():
        control = process.control(name)
        if not control.lo <= value <= control.hi:
            lines.append(
                f"{name}={value:g} {shown_unit(control.unit)} lies outside {control.lo:g} to "
                f"{control.hi:g}, which the process allows; the forecast extrapolates"
            )
    return lines


def _write(found: Ahead, out: Path, units: Mapping[str, str], never: list[str]) -> None:
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("time_h", "quantity", "unit", "mean", "q10", "q50", "q90", "measured"))
        for h, hour in enumerate(found.hours):
            for k, name in enumerate(found.names):
                cells = [f"{t[h, k]:.6g}" for t in (found.mean, found.q10, found.q50, found.q90)]
                seen = "no" if name in never else "yes"
                writer.writerow((f"{hour:.6g}", name, units[name], *cells, seen))
