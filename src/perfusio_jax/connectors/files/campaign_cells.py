"""Cells of a campaign table on the disk: CSV with a row of units, or Parquet with a sidecar.

Nothing here knows runs: what the cells mean is `campaign_table.py`.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import SETTINGS_BYTES, TABLE_BYTES, read_file

from ..tables.column_units import is_units_row
from ..tables.columns import refuse_second_header
from ..tables.formats import PARQUET_SUFFIXES, TEXT_SUFFIXES, read_table
from ..tables.packed import check_parquet, check_text
from ..tables.raw import SEPARATORS, leave_out_footer
from ..tables.sidecar import Sidecar, read_sidecar
from ..tables.spreadsheet import unguard
from ..tables.vocabulary import OURS, Vocabulary
from .frame_columns import ID_COLUMNS, number_columns
from .frame_numbers import with_point


def sidecar_path(path: Path | str) -> Path:
    """Where the units and metadata of a table lie: `a.parquet` has `a.units.toml`."""
    return Path(path).with_suffix(".units.toml")


class Cells(NamedTuple):
    """Cells of a table, and what is known of them before anyone asks what they mean."""

    frame: pd.DataFrame
    """One row per sample, under the labels of the table."""
    units: Mapping[str, str]
    """Unit by name, from a row of units and the sidecar."""
    lines: list[int] | None
    """Line of the file each row begins on; None where it has none."""
    notes: tuple[str, ...]
    """How the file was read."""
    decimal: str | None
    """Of numbers that are text; `None` if it is to be found out."""


def read_cells(path: Path, decimal: str | None, words: Vocabulary = OURS) -> tuple[Cells, Sidecar]:
    """Cells of a table, and what its sidecar says.

    Args:
        path: `.csv`, `.tsv`, `.txt` or `.parquet`.
        decimal: Decimal mark; by default from the sidecar, else found out.
        words: Names and units of columns.

    Raises:
        DataError: If it is no table of runs, or its sidecar cannot be read.
    """
    sidecar = _read_sidecar(path)
    if kind_of(path) == "parquet":
        cells = Cells(_read_parquet(path), {}, None, (), decimal or sidecar.decimal)
    else:
        cells = _read_csv(path, decimal or sidecar.decimal, words)
    return cells._replace(units=_merge_units(sidecar.units, cells.units)), sidecar


def check_place(path: Path) -> None:
    """Refuse what is no campaign table by its name, is a folder, or is not there.

    Raises:
        DataError: If it is one of these.
    """
    kind_of(path)
    if path.is_dir():
        raise DataError(f"campaign table {path} is a folder; name a file.")
    if not path.exists():
        raise DataError(f"campaign table {path} does not exist.")


def kind_of(path: Path) -> str:
    """Kind of a table by its name: "text" or "parquet".

    Raises:
        DataError: If the suffix is of neither.
    """
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return "text"
    if suffix in PARQUET_SUFFIXES:
        return "parquet"
    allowed = ", ".join(sorted(TEXT_SUFFIXES | PARQUET_SUFFIXES))
    raise DataError(f"{path} has suffix '{path.suffix}'; a campaign table is one of {allowed}.")


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


def _read_csv(path: Path, decimal: str | None, words: Vocabulary) -> Cells:
    numbers = number_columns(words)
    known = frozenset((*ID_COLUMNS, *numbers, *words.latent))
    content = read_file(path, most=TABLE_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("is not UTF-8 text; save it as 'CSV UTF-8'.") from None
    check_text(text, SEPARATORS)
    table = read_table(
        content,
        ".csv",
        is_known=lambda label: _bare(label) in known,
        is_number=lambda label: _bare(label) in numbers,
        decimal=decimal,
        allow_unterminated=True,
    )
    if not table.header:
        raise DataError("is empty; a campaign table starts with a row of column names.")
    names = [_bare(label) for label in table.header]
    if not any(name in known for name in names):
        raise DataError(
            f"none of the columns in its first line is known: '{', '.join(names)[:120]}'. A "
            "campaign table has run_id, reactor_id, clone_id, time_h and species and controls by "
            "name."
        )
    leave_out_footer(table, [i for i, name in enumerate(names) if name in ("time_h", "day")])
    numeric = [i for i, name in enumerate(names) if name in numbers]
    units: dict[str, str] = {}
    if table.rows and is_units_row([table.rows[0][i] for i in numeric], table.decimal):
        first, line = table.rows.pop(0), table.lines.pop(0)
        units = {names[i]: first[i].strip() for i in numeric if first[i].strip()}
        refuse_second_header(line, list(units.items()), words)
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
    return Cells(frame, units, table.lines, notes, ".")


def _bare(label: str) -> str:
    return re.split(r"[\[(]", label.strip(), maxsplit=1)[0].strip()
