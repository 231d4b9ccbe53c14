"""Campaign tables as files: CSV with a row of units, or Parquet with a sidecar.

CSV: names in the first row, units in the second. Parquet (and CSV without that row) takes
units from `<name>.units.toml` beside it. Metadata of the runs goes into the same sidecar.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd
import tomli_w

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import SETTINGS_BYTES, TABLE_BYTES, parse_toml, read_file
from perfusio_jax._core.text import plain_number
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors.frames import (
    ID_COLUMNS,
    MISSING_MARKS,
    NUMBER_COLUMNS,
    Campaign,
    FrameReport,
    campaign_from_frame,
    campaign_to_frame,
)
from perfusio_jax.connectors.packed import check_parquet, check_text
from perfusio_jax.connectors.spreadsheet import guard, unguard
from perfusio_jax.states import Trajectory

_TEXT: Final = frozenset({".csv", ".tsv", ".txt"})
_PARQUET: Final = frozenset({".parquet", ".pq"})
_SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_DECIMAL_COMMA: Final = re.compile(r"^\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*$", re.ASCII)
_DECIMAL_POINT: Final = re.compile(r"^\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*$", re.ASCII)


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
) -> Campaign:
    """Read a campaign table.

    Separator (comma, semicolon, tab, bar), decimal comma and a byte-order mark are recognised
    and named in the report.

    Args:
        path: `.csv`, `.tsv`, `.txt` or `.parquet`.
        unknown: What to do with a column outside the contract.
        volume_L: Working volume [L] where the table has no such column.

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
            cells = _Cells(_read_parquet(path), {}, None, ())
        else:
            cells = _read_csv(path)
        units = _merge_units(sidecar.get("units", {}), cells.units)
        runs, report = campaign_from_frame(
            cells.frame, units=units or None, unknown=unknown, volume_L=volume_L, lines=cells.lines
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ValueError as error:  # UnitError and its kin keep their type
        raise type(error)(f"{path}: {error}") from None
    metadata = sidecar.get("metadata", {})
    runs = [_with_metadata(run, metadata.get(run.run_id, {})) for run in runs]
    return Campaign(runs, _with_notes(report, cells.notes))


class _Cells(NamedTuple):
    frame: pd.DataFrame
    units: Mapping[str, str]
    lines: list[int] | None
    notes: tuple[str, ...]


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _TEXT:
        return "text"
    if suffix in _PARQUET:
        return "parquet"
    allowed = ", ".join(sorted(_TEXT | _PARQUET))
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


def _read_sidecar(path: Path) -> dict[str, Any]:
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return {}
    raw = read_file(sidecar, most=SETTINGS_BYTES)
    content = parse_toml(raw, f"sidecar {sidecar.name}", error=DataError)
    strangers = sorted(set(content) - {"units", "metadata"})
    flat = [n for n, table in content.items() if not isinstance(table, dict)]
    if flat and not strangers:
        raise DataError(f"sidecar {sidecar.name}: {flat[0]} is no table, [{flat[0]}].")
    if strangers:
        raise DataError(
            f"sidecar {sidecar.name} has tables {', '.join(strangers)}; it may have 'units' and "
            "'metadata'."
        )
    return content


def _merge_units(sidecar: Mapping[str, str], row: Mapping[str, str]) -> dict[str, str]:
    for name in sidecar.keys() & row.keys():
        if sidecar[name].strip() != row[name].strip():
            raise DataError(
                f"column '{name}' is in '{row[name]}' by the units row and in '{sidecar[name]}' "
                "by the sidecar; correct one of them."
            )
    return {**sidecar, **row}


def _read_csv(path: Path) -> _Cells:
    try:
        text = read_file(path, most=TABLE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("is not UTF-8 text; save it as 'CSV UTF-8'.") from None
    check_text(text, _SEPARATORS)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise DataError("is empty; a campaign table starts with a row of column names.")
    separator = _guess_separator(text.lstrip().splitlines()[0])
    rows, lines = _split(text, separator)
    header, body, lines = rows[0], rows[1:], lines[1:]
    names = [_bare(label) for label in header]
    numeric = [i for i, name in enumerate(names) if name in NUMBER_COLUMNS]
    units: dict[str, str] = {}
    if body and _is_units_row([body[0][i] for i in numeric]):
        units = {names[i]: body[0][i].strip() for i in numeric if body[0][i].strip()}
        body, lines = body[1:], lines[1:]
    body = [[c if i in numeric else unguard(c) for i, c in enumerate(row)] for row in body]
    body, decimal = _settle_decimals(body, numeric, separator)
    notes = (f"read as {_SEPARATORS[separator]}-separated text with a decimal {decimal}.",)
    frame = pd.DataFrame(body, columns=pd.Index(header), dtype=object)
    return _Cells(frame, units, lines, notes)


def _bare(label: str) -> str:
    return re.split(r"[\[(]", label.strip(), maxsplit=1)[0].strip()


def _guess_separator(header: str) -> str:
    known = {*ID_COLUMNS, *NUMBER_COLUMNS}

    def hits(separator: str) -> int:
        fields = next(csv.reader([header], delimiter=separator), [])
        return sum(_bare(name) in known for name in fields)

    best = max(_SEPARATORS, key=hits)
    if hits(best) == 0:
        raise DataError(
            f"none of the columns in its first line is known: '{header[:120]}'. A campaign table "
            "has run_id, reactor_id, clone_id, time_h and species and controls by name."
        )
    return best


def _split(text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Rows of equal width with the line each starts on; blank lines are skipped."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    rows, lines, last = [], [], 0
    for row in _told(reader):
        start, last = last + 1, reader.line_num
        if not any(cell.strip() for cell in row):
            continue
        if rows and len(row) != len(rows[0]):
            many = len(row) > len(rows[0])
            hint = "a decimal comma?" if many and separator == "," else "a half-written row?"
            raise DataError(
                f"line {start} has {len(row)} fields where the header has {len(rows[0])} ({hint})."
            )
        rows.append(row)
        lines.append(start)
    return rows, lines


def _told(reader: Any) -> Iterator[list[str]]:
    """Rows of a CSV reader; what it cannot take apart is trouble with the data."""
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} cannot be split into fields: {error}.") from None


def _is_number(cell: str) -> bool:
    try:
        plain_number(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _is_units_row(cells: Sequence[str]) -> bool:
    """Whether a row holds units: some text, and nothing that reads as a value."""
    values = [c.strip() for c in cells]
    stated = [v for v in values if v and v.lower() not in MISSING_MARKS]
    return bool(stated) and not any(_is_number(v) for v in stated)


def _settle_decimals(
    body: list[list[str]], numeric: Sequence[int], separator: str
) -> tuple[list[list[str]], str]:
    """Turn decimal commas into points, unless that would be a guess."""
    cells = [row[i] for row in body for i in numeric]
    commas = [c for c in cells if _DECIMAL_COMMA.match(c)]
    if not commas or separator == ",":
        return body, "point"
    points = [c for c in cells if _DECIMAL_POINT.match(c)]
    if points:
        raise DataError(
            f"holds both '{commas[0].strip()}' and '{points[0].strip()}'; use one decimal mark."
        )
    wanted = set(numeric)
    return [
        [c.replace(",", ".") if i in wanted else c for i, c in enumerate(row)] for row in body
    ], "comma"


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
