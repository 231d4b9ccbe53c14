"""Campaign tables as files: CSV with a row of units, or Parquet with a sidecar.

CSV: names in the first row, units in the second. Parquet (and CSV without that row) takes
units from `<name>.units.toml` beside it. Metadata of the runs goes into the same sidecar.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd
import tomli_w

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import SETTINGS_BYTES, TABLE_BYTES, read_file
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors.files.frame_columns import ID_COLUMNS, NUMBER_COLUMNS
from perfusio_jax.connectors.files.frame_doubts import rising_totals
from perfusio_jax.connectors.files.frame_numbers import with_point
from perfusio_jax.connectors.files.frame_report import FrameReport
from perfusio_jax.connectors.files.frames import Campaign, campaign_from_frame, campaign_to_frame
from perfusio_jax.connectors.tables.column_units import is_units_row
from perfusio_jax.connectors.tables.columns import refuse_second_header
from perfusio_jax.connectors.tables.formats import PARQUET_SUFFIXES, TEXT_SUFFIXES, read_table
from perfusio_jax.connectors.tables.packed import check_parquet, check_text
from perfusio_jax.connectors.tables.raw import SEPARATORS, leave_out_footer
from perfusio_jax.connectors.tables.sidecar import Sidecar, read_sidecar
from perfusio_jax.connectors.tables.spreadsheet import guard, unguard
from perfusio_jax.connectors.tables.totals import Totals
from perfusio_jax.states import Trajectory

_KNOWN: Final = frozenset((*ID_COLUMNS, *NUMBER_COLUMNS))


def sidecar_path(path: Path | str) -> Path:
    """Where the units and metadata of a table lie: `a.parquet` has `a.units.toml`."""
    return Path(path).with_suffix(".units.toml")


def write_campaign(trajectories: Sequence[Trajectory], path: Path | str) -> None:
    """Write runs as a campaign table.

    Args:
        trajectories: Runs with distinct `run_id`.
        path: `.csv` (units in the second row) or `.parquet` (units in a sidecar).

    Raises:
        DataError: If the suffix is neither, or the runs cannot be one table.
    """
    path = Path(path)
    kind = _kind(path)
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
        path.write_text(_as_csv(frame, units, path.suffix), encoding="utf-8", newline="")
    if sidecar:
        sidecar_path(path).write_text(tomli_w.dumps(sidecar), encoding="utf-8")
    else:
        sidecar_path(path).unlink(missing_ok=True)


def read_campaign(
    path: Path | str,
    *,
    unknown: Literal["error", "ignore"] = "error",
    volume_L: float = 0.25,
    decimal: str | None = None,
    totals: Totals | None = None,
) -> Campaign:
    """Read a campaign table.

    Separator (comma, semicolon, tab, bar), decimal comma and a byte-order mark are recognised
    and named in the report, as are what stands above, below and beside the table.

    Args:
        path: `.csv`, `.tsv`, `.txt` or `.parquet`.
        unknown: What to do with a column outside the contract.
        volume_L: Working volume [L] where the table has no such column.
        decimal: "." or ","; by default from the sidecar, else found out.
        totals: "cumulative" where stream totals are counters, "increments" where they are the
            volumes since the sample before; by default from the sidecar, else told apart.

    Returns:
        Runs and report.

    Raises:
        DataError: If the file is missing, empty, malformed or breaks the contract.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    path = Path(path)
    kind = _kind(path)
    if path.is_dir():
        raise DataError(f"campaign table {path} is a folder; name a file.")
    if not path.exists():
        raise DataError(f"campaign table {path} does not exist.")
    try:
        sidecar = _read_sidecar(path)
        if kind == "parquet":
            cells = _Cells(_read_parquet(path), {}, None, (), decimal or sidecar.decimal)
        else:
            cells = _read_csv(path, decimal or sidecar.decimal)
        units = _merge_units(sidecar.units, cells.units)
        runs, report = campaign_from_frame(
            cells.frame,
            units=units or None,
            unknown=unknown,
            volume_L=volume_L,
            lines=cells.lines,
            totals=totals or sidecar.totals,
            decimal=cells.decimal,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ValueError as error:  # UnitError and its kin keep their type
        raise type(error)(f"{path}: {error}") from None
    metadata = sidecar.metadata
    runs = [_with_metadata(run, metadata.get(run.run_id, {})) for run in runs]
    return Campaign(runs, _with_notes(report, cells.notes))


class _Cells(NamedTuple):
    frame: pd.DataFrame
    units: Mapping[str, str]
    lines: list[int] | None
    notes: tuple[str, ...]
    decimal: str | None
    """Of numbers that are text; `None` if it is to be found out."""


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return "text"
    if suffix in PARQUET_SUFFIXES:
        return "parquet"
    allowed = ", ".join(sorted(TEXT_SUFFIXES | PARQUET_SUFFIXES))
    raise DataError(f"{path} has suffix '{path.suffix}'; a campaign table is one of {allowed}.")


def _with_metadata(run: Trajectory, metadata: Mapping[str, str]) -> Trajectory:
    if not metadata:
        return run
    return run.with_ids(run.run_id, run.clone_id, run.reactor_id, metadata)


def _with_notes(report: FrameReport, notes: tuple[str, ...]) -> FrameReport:
    return replace(report, notes=notes)


def _as_csv(frame: pd.DataFrame, units: Mapping[str, str], suffix: str) -> str:
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


def _read_parquet(path: Path) -> pd.DataFrame:
    content = read_file(path, most=TABLE_BYTES)
    check_parquet(content)
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as Parquet ({error}).") from None
    frame.attrs = {}
    return frame


def _read_sidecar(path: Path) -> Sidecar:
    sidecar = sidecar_path(path)
    try:
        if not sidecar.is_file():
            return read_sidecar(b"")
        return read_sidecar(read_file(sidecar, most=SETTINGS_BYTES))
    except DataError as error:
        raise DataError(f"sidecar {sidecar.name} {error}") from None


def _merge_units(sidecar: Mapping[str, str], row: Mapping[str, str]) -> dict[str, str]:
    for name in sidecar.keys() & row.keys():
        if sidecar[name].strip() != row[name].strip():
            raise DataError(
                f"column '{name}' is in '{row[name]}' by the units row and in '{sidecar[name]}' "
                "by the sidecar; correct one of them."
            )
    return {**sidecar, **row}


def _read_csv(path: Path, decimal: str | None) -> _Cells:
    content = read_file(path, most=TABLE_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("is not UTF-8 text; save it as 'CSV UTF-8'.") from None
    check_text(text, SEPARATORS)
    table = read_table(
        content,
        ".csv",
        is_known=_is_known,
        is_number=lambda label: _bare(label) in NUMBER_COLUMNS,
        decimal=decimal,
        allow_unterminated=True,
    )
    if not table.header:
        raise DataError("is empty; a campaign table starts with a row of column names.")
    names = [_bare(label) for label in table.header]
    if not any(name in _KNOWN for name in names):
        raise DataError(
            f"none of the columns in its first line is known: '{', '.join(names)[:120]}'. A "
            "campaign table has run_id, reactor_id, clone_id, time_h and species and controls by "
            "name."
        )
    leave_out_footer(table, [i for i, name in enumerate(names) if name in ("time_h", "day")])
    numeric = [i for i, name in enumerate(names) if name in NUMBER_COLUMNS]
    units: dict[str, str] = {}
    if table.rows and is_units_row([table.rows[0][i] for i in numeric], table.decimal):
        first, line = table.rows.pop(0), table.lines.pop(0)
        units = {names[i]: first[i].strip() for i in numeric if first[i].strip()}
        refuse_second_header(line, list(units.items()))
    wanted = set(numeric)
    body = [
        [with_point(c, table.decimal) if i in wanted else unguard(c) for i, c in enumerate(row)]
        for row in table.rows
    ]
    mark = {".": "point", ",": "comma"}[table.decimal]
    separator = SEPARATORS[table.separator or ","]
    notes = (
        f"read as {separator}-separated text with a decimal {mark}.",
        *(f"{note}." for note in table.notes),
    )
    frame = pd.DataFrame(body, columns=pd.Index(table.header), dtype=object)
    return _Cells(frame, units, table.lines, notes, ".")


def _bare(label: str) -> str:
    return re.split(r"[\[(]", label.strip(), maxsplit=1)[0].strip()


def _is_known(label: str) -> bool:
    return _bare(label) in _KNOWN


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
