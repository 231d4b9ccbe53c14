"""Campaign tables as files: CSV with a row of units, or Parquet with a sidecar.

CSV: names in the first row, units in the second. Parquet (and CSV without that row) takes
units from `<name>.units.toml` beside it. Metadata of the runs goes into the same sidecar.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import tomli_w

from perfusio_jax._core import DataError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors.files.campaign_cells import (
    check_place,
    kind_of,
    read_cells,
    sidecar_path,
)
from perfusio_jax.connectors.files.frame_doubts import rising_totals
from perfusio_jax.connectors.files.frame_report import FrameReport
from perfusio_jax.connectors.files.frames import Campaign, campaign_from_frame, campaign_to_frame
from perfusio_jax.connectors.tables.spreadsheet import guard
from perfusio_jax.connectors.tables.totals import Totals
from perfusio_jax.connectors.tables.vocabulary import Vocabulary
from perfusio_jax.states import Trajectory

if TYPE_CHECKING:
    from perfusio_jax.process import Process


def write_campaign(trajectories: Sequence[Trajectory], path: Path | str) -> None:
    """Write runs as a campaign table.

    Args:
        trajectories: Runs with distinct `run_id`.
        path: `.csv` (units in the second row) or `.parquet` (units in a sidecar).

    Raises:
        DataError: If the suffix is neither, or the runs cannot be one table.
    """
    path = Path(path)
    kind = kind_of(path)
    frame = campaign_to_frame(trajectories)
    units = frame.attrs["units"]
    metadata = {run.run_id: dict(run.metadata) for run in trajectories if run.metadata}
    sidecar: dict[str, Any] = {"metadata": metadata} if metadata else {}
    if like_counters := rising_totals(trajectories):  # they are none, and would be taken for some
        sidecar["totals"] = dict.fromkeys(like_counters, "increments")
    if kind == "parquet":
        sidecar["units"] = units
        frame.attrs = {}
        frame.to_parquet(path, index=False)
    else:
        path.write_text(as_csv(frame, units, path.suffix), encoding="utf-8", newline="")
    if sidecar:
        sidecar_path(path).write_text(tomli_w.dumps(sidecar), encoding="utf-8")
    else:
        sidecar_path(path).unlink(missing_ok=True)


def read_campaign(
    path: Path | str,
    *,
    unknown: Literal["error", "ignore"] = "error",
    volume_L: float | None = None,
    decimal: str | None = None,
    totals: Totals | None = None,
    process: "Process | None" = None,
) -> Campaign:
    """Read a campaign table.

    Separator (comma, semicolon, tab, bar), decimal comma and a byte-order mark are recognised
    and named in the report, as are what stands above, below and beside the table.

    Args:
        path: `.csv`, `.tsv`, `.txt` or `.parquet`.
        unknown: What to do with a column outside the contract.
        volume_L: Working volume [L] where the table has no such column; by default the process's,
            0.25 without one.
        decimal: "." or ","; by default from the sidecar, else found out.
        totals: "cumulative" where stream totals are counters, "increments" where they are the
            volumes since the sample before; by default from the sidecar, else told apart.
        process: The culture, where it is not the one our names are of. Columns named like what it
            measures and sets are read too, in its units; runs then have its measured quantities
            and its controls that the table has, in its order. Totals of its streams that are none
            of `STREAM_TOTALS` are auxiliary tags.

    Returns:
        Runs and report.

    Raises:
        DataError: If the file is missing, empty, malformed or breaks the contract, or has a control
            the process does not know.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    path = Path(path)
    check_place(path)
    try:
        cells, sidecar = read_cells(path, decimal, Vocabulary.of(process))
        runs, report = campaign_from_frame(
            cells.frame,
            units=cells.units or None,
            unknown=unknown,
            volume_L=volume_L,
            lines=cells.lines,
            totals=totals or sidecar.totals,
            decimal=cells.decimal,
            process=process,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ValueError as error:  # UnitError and its kin keep their type
        raise type(error)(f"{path}: {error}") from None
    metadata = sidecar.metadata
    runs = [_with_metadata(run, metadata.get(run.run_id, {})) for run in runs]
    return Campaign(runs, _with_notes(report, cells.notes))


def _with_metadata(run: Trajectory, metadata: Mapping[str, str]) -> Trajectory:
    if not metadata:
        return run
    return run.with_ids(run.run_id, run.clone_id, run.reactor_id, metadata)


def _with_notes(report: FrameReport, notes: tuple[str, ...]) -> FrameReport:
    return replace(report, notes=notes)


def as_csv(frame: pd.DataFrame, units: Mapping[str, str], suffix: str) -> str:
    """A table as text: names, units, rows."""
    out = io.StringIO()
    writer = csv.writer(
        out, delimiter="\t" if suffix.lower() == ".tsv" else ",", lineterminator="\n"
    )
    names = [str(name) for name in frame.columns]
    writer.writerow(names)
    writer.writerow([units.get(name, "") for name in names])
    columns = [frame[name].tolist() for name in names]
    for row in zip(*columns, strict=True):
        writer.writerow([_cell_text(value) for value in row])
    return out.getvalue()


def _cell_text(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else repr(value)
    return guard(str(value))


def units_template(names: Sequence[str]) -> str:
    """A sidecar with the canonical unit of each column, to be edited.

    Args:
        names: Numeric columns of the table.

    Returns:
        TOML text.

    Raises:
        UnitError: If a column is not part of the contract.
    """
    return tomli_w.dumps({"units": {name: canonical_unit(name) for name in names}})
