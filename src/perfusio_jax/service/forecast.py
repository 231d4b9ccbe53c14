"""`perfusio-jax forecast`: samples and a model in, a table out."""

import asyncio
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    STATE_ORDER,
    ConfigError,
    DataError,
)
from perfusio_jax._core.text import shown_unit
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.connectors.files.run_part import part_of_run
from perfusio_jax.connectors.files.schedule import ahead_of, one_schedule, read_schedules
from perfusio_jax.connectors.tables.acting import TOLD, acting_from_rows, since_when
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.connectors.tables.off_days import off_days_text
from perfusio_jax.connectors.tables.report import ReadReport
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.mechanistic import DEFAULT_CONTROLS
from perfusio_jax.states import intervals_text
from perfusio_jax.twin import estimate, forecast, history_from_records
from perfusio_jax.twin.records.samples import as_plain
from perfusio_jax.viz import Card, show_card

from .described_forecast import forecast_described
from .forecast_figure import cho_figure, draw_cho
from .forecast_table import forecast_card, verdict_line
from .saved_model import load_model
from .settings import check_setpoints


class RunSoFar(NamedTuple):
    """Samples of one run as the decision core reads them, and what is not known of it."""

    rows: list[dict[str, Any]]
    """One per sample, with the set-points that acted from it on."""
    report: ReadReport
    """What was understood of the file."""
    assumed: Mapping[str, float | None]
    """Controls the file does not tell, with the time [h] until which; None: it never does."""
    never: tuple[str, ...]
    """Of `FORECAST_SPECIES`, those without a value in any sample."""
    volumes_L: tuple[float, ...]
    """Working volumes the file states [L]."""
    moved: tuple[str, ...] = ()
    """Controls of which the file states more than one value."""
    is_until: bool = False
    """Whether the rows of the file say what acted until their samples."""


def read_run(
    samples: Path,
    reactor_id: str | None,
    run_id: str | None = None,
    rules: FileRules | None = None,
    defaults: Mapping[str, float] | None = None,
) -> RunSoFar:
    """Every sample of one run, those between the days included.

    Args:
        samples: CSV, Parquet or Excel file.
        reactor_id: Vessel, if the file holds several.
        run_id: Run, if the file holds several.
        rules: How the file is read.
        defaults: What acts of controls the file does not tell; the library's where it says nothing.

    Returns:
        Rows by time, with the set-points that act from each sample on, and what was understood of
        the file.

    Raises:
        DataError: If there is no sample, or none of the species of the state was measured.
    """
    store = FilesystemStore(
        samples,
        reactor_id=reactor_id,
        run_id=run_id,
        allow_unterminated=True,
        rules=rules,
    )
    records = asyncio.run(store.read_rows())
    report = store.report()
    if not records:
        if report.n_rows:
            wanted = [f"reactor {reactor_id!r}"] if reactor_id is not None else []
            wanted += [f"run {run_id!r}"] if run_id is not None else []
            raise DataError(
                f"{samples} holds {report.n_rows} sample(s), but none of {' in '.join(wanted)}; "
                f"its reactors are {', '.join(store.reactors()) or 'not named'}."
            )
        raise DataError(f"{samples} holds no sample yet: {'; '.join(report.notes)}.")
    if not any(record.values.get(n) is not None for record in records for n in STATE_ORDER):
        raise DataError(
            f"{samples} holds {len(records)} sample(s) without a usable value of any of "
            f"{', '.join(STATE_ORDER)}: there is nothing to forecast from."
            + "".join(f" {line}." for line in report.oddities[:3])
        )
    rows = [as_plain(record, record.day) for record in records]
    in_force, told = {**DEFAULT_CONTROLS, **(defaults or {})}, set()
    assumed: dict[str, float | None] = {}
    stated = {n: {row["controls"].get(n) for row in rows} - {None} for n in CONTROL_NAMES}
    moved = tuple(n for n, values in stated.items() if len(values) > 1)
    acting = [row["controls"] for row in rows]
    is_until = rules is not None and rules.set_points == "until"
    if is_until:
        acting = acting_from_rows(acting, ())
        report = replace(report, notes=(*report.notes, TOLD))
    ends = [*(row["time_h"] for row in rows[1:]), None]
    for row, reported, until in zip(rows, acting, ends, strict=True):
        fresh = {n: v for n, v in reported.items() if v is not None}
        told |= set(fresh)
        in_force.update(fresh)
        row["controls"] = dict(in_force)
        assumed.update({n: until for n in CONTROL_NAMES if n not in told})
    never = [n for n in FORECAST_SPECIES if all(row["values"].get(n) is None for row in rows)]
    volumes = sorted({r.volume_L for r in records if r.volume_L is not None})
    return RunSoFar(rows, report, assumed, tuple(never), tuple(volumes), moved, is_until)


def learned_controls(hybrid: HybridStateSpaceModel) -> dict[str, float]:
    """Controls that were the same in all a model of CHO perfusion learned from, with that value.

    Where the runs of a campaign had no column of a control, this is what was assumed for them: a
    forecast that assumed anything else would be of another process.

    Args:
        hybrid: The model.

    Returns:
        Value by name; empty for a model that learned from no run.
    """
    if hybrid.gp is None:
        return {}
    rows = np.asarray(hybrid.gp.data.row_present) > 0
    at = hybrid.layout.n
    names = hybrid.layout.controls
    table = np.asarray(hybrid.gp.data.inputs)[rows, at : at + len(names)]
    if not len(table):
        return {}
    same = np.ptp(table, axis=0) == 0.0
    return {name: float(table[0, k]) for k, name in enumerate(names) if same[k]}


def forecast_file(
    model: Path,
    samples: Path,
    *,
    days: int,
    changes: Mapping[str, float],
    reactor_id: str | None,
    run_id: str | None,
    seed: int,
    out: Path | None,
    console: Any,
    every_h: float = HOURS_PER_DAY,
    figure: Path | None = None,
    schedule: Path | None = None,
    posterior: Path | None = None,
    rules: FileRules | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Print a forecast from the last sample's own time on, and write it if asked.

    Args:
        model: Folder of a saved model.
        samples: Samples of one run so far.
        days: Days ahead [d].
        changes: Set-points that change now, by name.
        reactor_id: Vessel, if the file holds several.
        run_id: Run, if the file holds several.
        seed: Seed of the paths.
        out: CSV file to write as well.
        console: Where to print.
        every_h: Hours between the rows of the forecast, of a culture that is described [h].
        figure: Picture to write as well.
        schedule: Table of set-points that change from now on, as `propose --profile` writes it.
        posterior: Folder of a posterior of constants, of a culture that is described.
        rules: How the samples are read.
        on_card: Is given what the forecast says.
    """
    if schedule is not None and changes:
        raise ConfigError("--schedule says what is set from now on, and --set too; give one.")
    if not samples.exists():
        raise DataError(f"samples {samples} does not exist.")
    unknown = [n for n in changes if n not in CONTROL_NAMES]
    if unknown and not model.exists():
        raise ConfigError(f"unknown controls {unknown}; allowed are {list(CONTROL_NAMES)}.")
    hybrid = load_model(model)
    part = part_of_run(
        samples,
        rules or FileRules(),
        run_id=run_id,
        reactor_id=reactor_id,
        process=hybrid.layout.process,
    )
    samples, rules = part.path, part.rules
    if hybrid.layout.process is not None:
        whose = {"run_id": run_id, "reactor_id": reactor_id}
        hours = np.arange(every_h, HOURS_PER_DAY * days + 1e-9, every_h)
        forecast_described(
            hybrid,
            hybrid.layout.process,
            model,
            samples,
            hours,
            changes,
            whose=whose,
            seed=seed,
            out=out,
            console=console,
            figure=figure,
            schedule=schedule,
            posterior=posterior,
            rules=rules,
            on_card=on_card,
        )
        return
    if posterior is not None:
        raise ConfigError(
            "--posterior is of described cultures; a model of CHO perfusion finds its constants "
            "when it is fitted."
        )
    if every_h != HOURS_PER_DAY:
        raise ConfigError(f"--every {every_h:g} was given; CHO perfusion is forecast day by day.")
    if unknown:
        raise ConfigError(f"unknown controls {unknown}; allowed are {list(CONTROL_NAMES)}.")
    learned = learned_controls(hybrid)
    run = read_run(samples, reactor_id, run_id, rules, learned)
    for line in run.report.oddities:
        console.print(f"{samples.name}: {line}", soft_wrap=True)
    held = {**run.rows[-1]["controls"], **changes}
    if changes:
        check_setpoints(held, "--set")
    volume = float(hybrid.mech_model.volume_L)
    told = _told(run, held, changes, volume, float(hybrid.dt_hours))
    if same := [n for n in run.assumed if n in learned]:
        told.append(f"of these {', '.join(same)} as in every run the model learned from")
    for line in (*told, *_far_out(held)):
        console.print(line, soft_wrap=True)
    history = history_from_records(run.rows, volume_L=volume)
    asked: dict[str, Any] = {"controls": held, "horizon": days}
    if schedule is not None:
        found = read_schedules(schedule, CONTROL_NAMES)
        one = one_schedule(schedule, found, run_id)
        ends = HOURS_PER_DAY * np.arange(1, days + 1)
        ends, table = ahead_of(one, float(history.times_h[-1]), ends.tolist())
        asked = {"controls": table, "horizon": len(ends), "hours": ends.tolist()}
        console.print(f"set-points from now on: {schedule.name}, run {one.run_id or '(no name)'}")
    with console.status("estimating the state and forecasting"):
        belief, _ = estimate(history, hybrid, seed=seed)
        outlook = forecast(hybrid, belief, seed=seed, **asked)
    values = (outlook.q50, outlook.q10, outlook.q90)
    title = f"forecast from {_when(float(history.times_h[-1]))}: median (10 % to 90 %)"
    columns = [f"{n} [{_short(n)}]" + "*" * (n in run.never) for n in FORECAST_SPECIES]
    labels = ["day", *(f"{round(float(day), 2):g}" for day in outlook.days)]
    card = forecast_card(
        title, labels, columns, values, never=run.never, model=verdict_line(hybrid, model),
        source=f"model {model.name}, samples {samples.name}",
        figure=lambda: cho_figure(run.rows, outlook, changes),
    )  # fmt: skip
    show_card(card, console)
    if on_card is not None:
        on_card(card)
    if out is not None:
        _write(outlook, out, run.never)
        console.print(f"table: {out}", soft_wrap=True)
    if figure is not None:
        draw_cho(run.rows, outlook, changes, figure)
        console.print(f"figure: {figure}", soft_wrap=True)


def _write(outlook: Any, out: Path, never: Sequence[str]) -> None:
    """The forecast as CSV, with true hours and whether a species was ever measured."""
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("day", "species", "unit", "mean", "q10", "q50", "q90", "time_h", "measured")
        )
        for h, day in enumerate(outlook.days):
            for k, name in enumerate(FORECAST_SPECIES):
                tables = (outlook.mean, outlook.q10, outlook.q50, outlook.q90)
                cells = [f"{t[h, k]:.6g}" for t in tables]
                ends = (f"{HOURS_PER_DAY * day:.6g}", "no" if name in never else "yes")
                writer.writerow((f"{day:.6g}", name, canonical_unit(name), *cells, *ends))


def _when(time_h: float) -> str:
    """A time as a day, and in hours where it is not a whole one."""
    day = round(time_h / HOURS_PER_DAY, 2)
    return f"day {day:g}" if day == round(day) else f"{time_h:g} h (day {day:g})"


def _told(
    run: RunSoFar,
    held: Mapping[str, float],
    changes: Mapping[str, float],
    volume_L: float,
    learned_h: float,
) -> list[str]:
    """What is assumed, and how the samples lie in time, one sentence each."""
    times = [float(row["time_h"]) for row in run.rows]
    many = "sample" if len(times) == 1 else "samples"
    apart = "" if len(times) == 1 else f" {intervals_text(np.diff(times))}"
    lines = [f"{len(times)} {many}{apart}, the last: {_when(times[-1])}"]
    lost = off_days_text(times)
    if lost:
        lines.append(f"{lost}; they are used at their own hours")
    by_time: dict[float | None, list[str]] = {}
    for name, until in run.assumed.items():
        value = run.rows[0]["controls"][name]  # a default stays until something is told
        by_time.setdefault(until, []).append(f"{name} {value:g} {shown_unit(canonical_unit(name))}")
    for until, names in by_time.items():
        if until is None:
            change = [n for n in run.assumed if run.assumed[n] is None and n in changes]
            but = (
                f" (from now on {', '.join(f'{n} {held[n]:g}' for n in change)})" if change else ""
            )
            lines.append(
                f"assumed, for the file does not tell: {', '.join(names)}{but}; --set name=value "
                "says what acts from now on"
            )
        else:
            lines.append(f"assumed until {_when(until)}, before the file tells: {', '.join(names)}")
    if run.moved and not run.is_until:
        lines.append(since_when(run.moved))
    if learned_h > 1.5 * HOURS_PER_DAY:
        lines.append(
            f"the model learned from samples {learned_h:g} h apart: what it says of single days "
            "rests on the mechanism more than on what was learned"
        )
    odd = [v for v in run.volumes_L if abs(v - volume_L) > 0.01 * volume_L]
    if odd:
        stated = ", ".join(f"{v:g}" for v in odd)
        lines.append(
            f"assumed: a working volume of {volume_L:g} L, the model's; the file states {stated} L"
        )
    return lines


def _short(name: str) -> str:
    return shown_unit(canonical_unit(name)).replace(" cells/mL", "/mL")


def _far_out(setpoints: Mapping[str, float]) -> list[str]:
    """Set-points far from what the library's own design space spans, one sentence each."""
    lines = []
    for name, bound in DEFAULT_AMBR250_DESIGN_SPACE.control_bounds.items():
        margin = 0.5 * (bound.hi - bound.lo)
        if not bound.lo - margin <= setpoints[name] <= bound.hi + margin:
            lines.append(
                f"{name}={setpoints[name]:g} {shown_unit(bound.unit)} is far from the usual "
                f"{bound.lo:g} to {bound.hi:g}; the forecast extrapolates"
            )
    return lines
