"""`perfusio-jax forecast`: samples and a model in, a table out."""

import asyncio
import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    STATE_ORDER,
    ConfigError,
    DataError,
)
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.connectors.report import ReadReport
from perfusio_jax.mechanistic import DEFAULT_CONTROLS
from perfusio_jax.twin import estimate, forecast, history_from_records
from perfusio_jax.twin.samples import as_plain

from .plan import load_model, oddities
from .settings import check_setpoints


def read_rows(
    samples: Path, reactor_id: str | None, run_id: str | None = None
) -> tuple[list[dict[str, Any]], ReadReport]:
    """Samples of one run as the decision core reads them.

    Args:
        samples: CSV, Parquet or Excel file.
        reactor_id: Vessel, if the file holds several.
        run_id: Run, if the file holds several.

    Returns:
        One row per sample (a control column acts from the sample *before* it was reported on)
        and what was understood of the file.

    Raises:
        DataError: If there is no sample, or none of the species of the state was measured.
    """
    store = FilesystemStore(samples, reactor_id=reactor_id, run_id=run_id, allow_unterminated=True)
    records = asyncio.run(store.read_history())
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
            + "".join(f" {line}." for line in oddities(report)[:3])
        )
    rows = [as_plain(record, record.day) for record in records]
    in_force = dict(DEFAULT_CONTROLS)
    for k, row in enumerate(rows):
        reported = rows[k + 1]["controls"] if k + 1 < len(rows) else row["controls"]
        in_force.update({n: v for n, v in reported.items() if v is not None})
        row["controls"] = dict(in_force)
    return rows, report


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
) -> None:
    """Print a forecast, and write it if asked.

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
    """
    unknown = [n for n in changes if n not in CONTROL_NAMES]
    if unknown:
        raise ConfigError(f"unknown controls {unknown}; allowed are {list(CONTROL_NAMES)}.")
    if not samples.exists():
        raise DataError(f"samples {samples} does not exist.")
    if samples.is_dir():
        raise DataError(f"samples {samples} is a folder; name the file with the samples.")
    hybrid = load_model(model)
    rows, report = read_rows(samples, reactor_id, run_id)
    for line in oddities(report):
        console.print(f"{samples.name}: {line}", soft_wrap=True)
    held = {**rows[-1]["controls"], **changes}
    if changes:
        check_setpoints(held, "--set")
    for line in _far_out(held):
        console.print(f"{line}; the forecast extrapolates", soft_wrap=True)
    history = history_from_records(rows, volume_L=float(hybrid.mech_model.volume_L))
    with console.status("estimating the state and forecasting (compiles first)"):
        belief, _ = estimate(history, hybrid, seed=seed)
        outlook = forecast(hybrid, belief, held, horizon=days, seed=seed)
    values = (outlook.q50, outlook.q10, outlook.q90)
    title = f"forecast from day {int(history.days[-1])}: median (10 % to 90 %)"
    for table in _tables(title, outlook.days, values, console.width):
        console.print(table)
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("day", "species", "unit", "mean", "q10", "q50", "q90"))
            for h, day in enumerate(outlook.days):
                for k, name in enumerate(FORECAST_SPECIES):
                    values = (outlook.mean, outlook.q10, outlook.q50, outlook.q90)
                    cells = [f"{t[h, k]:.6g}" for t in values]
                    writer.writerow((f"{day:g}", name, canonical_unit(name), *cells))
        console.print(f"table: {out}")


def _tables(title: str, days: Any, values: tuple[Any, Any, Any], width: int) -> list[Any]:
    """Tables of as many species each as a terminal of a width has room for."""
    from rich import box
    from rich.table import Table

    labels = [f"{day:g}" for day in days]
    groups: list[list[tuple[str, list[str]]]] = []
    room = 0
    for k, name in enumerate(FORECAST_SPECIES):
        header = f"{name} [{_short(name)}]"
        cells = []
        for h in range(len(labels)):
            mid, low, high = (_digits(float(t[h, k])) for t in values)
            cells.append(f"{mid} ({low}-{high})")
        needed = max(len(text) for text in (header, *cells)) + 3
        if not groups or needed > room:
            groups.append([])
            room = width - max(len(text) for text in ("day", *labels)) - 6
        groups[-1].append((header, cells))
        room -= needed
    tables = []
    for number, group in enumerate(groups):
        table = Table(title=None if number else title, box=box.SIMPLE, title_justify="left")
        for header in ("day", *(header for header, _ in group)):
            table.add_column(header, justify="right", no_wrap=True)
        for h, label in enumerate(labels):
            table.add_row(label, *(cells[h] for _, cells in group))
        tables.append(table)
    return tables


def _short(name: str) -> str:
    return canonical_unit(name).replace("1e6 cells/mL", "1e6/mL")


def _digits(value: float) -> str:
    """Three figures without an exponent, or "<0.001"."""
    if not np.isfinite(value):
        return "none"
    if value < 0.001:
        return "0" if value == 0.0 else "<0.001"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _far_out(setpoints: Mapping[str, float]) -> list[str]:
    """Set-points far from what the library's own design space spans, one sentence each."""
    lines = []
    for name, bound in DEFAULT_AMBR250_DESIGN_SPACE.control_bounds.items():
        margin = 0.5 * (bound.hi - bound.lo)
        if not bound.lo - margin <= setpoints[name] <= bound.hi + margin:
            lines.append(
                f"{name}={setpoints[name]:g} {bound.unit} is far from the usual "
                f"{bound.lo:g} to {bound.hi:g}"
            )
    return lines
