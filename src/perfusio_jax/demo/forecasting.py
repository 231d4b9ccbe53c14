"""`perfusio-jax forecast`: samples and a model in, a table out."""

import asyncio
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, ConfigError, DataError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.hybrid import load
from perfusio_jax.mechanistic import DEFAULT_CONTROLS
from perfusio_jax.twin import estimate, forecast, history_from_records
from perfusio_jax.twin.samples import as_plain


def read_rows(samples: Path, reactor_id: str | None) -> list[dict[str, Any]]:
    """Samples of one run as the decision core reads them.

    Args:
        samples: CSV, Parquet or Excel file.
        reactor_id: Vessel, if the file holds several.

    Returns:
        One row per sample; a control column acts from the sample *before* it was reported on.

    Raises:
        DataError: If there is no sample.
    """
    store = FilesystemStore(samples, reactor_id=reactor_id, allow_unterminated=True)
    records = asyncio.run(store.read_history())
    if not records:
        raise DataError(f"{samples} holds no sample yet.")
    rows = [as_plain(record, record.day) for record in records]
    in_force = dict(DEFAULT_CONTROLS)
    for k, row in enumerate(rows):
        reported = rows[k + 1]["controls"] if k + 1 < len(rows) else row["controls"]
        in_force.update({n: v for n, v in reported.items() if v is not None})
        row["controls"] = dict(in_force)
    return rows


def forecast_file(
    model: Path,
    samples: Path,
    *,
    days: int,
    changes: Mapping[str, float],
    reactor_id: str | None,
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
        seed: Seed of the paths.
        out: CSV file to write as well.
        console: Where to print.
    """
    from rich.table import Table

    unknown = [n for n in changes if n not in CONTROL_NAMES]
    if unknown:
        raise ConfigError(f"unknown controls {unknown}; allowed are {list(CONTROL_NAMES)}.")
    hybrid = load(model)
    rows = read_rows(samples, reactor_id)
    history = history_from_records(rows, volume_L=float(hybrid.mech_model.volume_L))
    with console.status("estimating the state and forecasting (compiles first)"):
        belief, _ = estimate(history, hybrid, seed=seed)
        held = {**rows[-1]["controls"], **changes}
        outlook = forecast(hybrid, belief, held, horizon=days, seed=seed)
    names = ("VCD", "VCV", "Via", "Glc", "Gln", "Lac", "Amm", "Titer")
    table = Table(title=f"forecast from day {int(history.days[-1])}: median (10 % .. 90 %)")
    table.add_column("day")
    for name in names:
        table.add_column(f"{name} [{canonical_unit(name)}]", justify="right")
    for h, day in enumerate(outlook.days):
        cells = []
        for name in names:
            k = FORECAST_SPECIES.index(name)
            low, mid, high = (t[h, k] for t in (outlook.q10, outlook.q50, outlook.q90))
            cells.append(f"{mid:.3g} ({low:.3g} .. {high:.3g})")
        table.add_row(f"{day:g}", *cells)
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
