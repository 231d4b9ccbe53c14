"""Cells of a campaign table on the disk: CSV with a row of units, or Parquet with a sidecar.

Nothing here knows runs: what the cells mean is `campaign_table.py`.
"""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import SETTINGS_BYTES, TABLE_BYTES, read_file

from ..tables.cells import parse_numbers
from ..tables.file_rules import FileRules
from ..tables.formats import PARQUET_SUFFIXES, TEXT_SUFFIXES, WORKBOOK_SUFFIXES
from ..tables.raw import SEPARATORS, RawTable
from ..tables.sidecar import Sidecar, read_sidecar
from ..tables.spreadsheet import unguard
from ..tables.totals import Totals
from ..tables.vocabulary import OURS, Vocabulary
from .campaign_form import as_campaign
from .frame_columns import number_columns
from .frame_numbers import with_point
from .opening import open_table


class NoTableError(DataError):
    """A file or a sheet of which no column is known."""


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
    totals: Totals | Mapping[str, str]
    """What stream totals are, as far as that is said."""


def read_cells(
    path: Path,
    rules: FileRules,
    words: Vocabulary = OURS,
    *,
    is_open: bool = False,
    run_name: str | None = None,
) -> tuple[Cells, Sidecar]:
    """Cells of a table in the form of a campaign, and what its sidecar says.

    Args:
        path: A file of any kind that is read.
        rules: How it is read.
        words: Names and units of columns.
        is_open: Whether the culture is yet to be read off the table, so that names are free.
        run_name: What a run is called where the table does not say; the file's name by default.

    Raises:
        DataError: If it is no table of runs, or its sidecar cannot be read.
        ConfigError: If what is said of it makes no sense.
    """
    sidecar = sidecar_of(path)
    content = read_file(path, most=TABLE_BYTES)
    opened = open_table(content, path.suffix, rules, sidecar, words, is_open=is_open)
    del content
    table = opened.table
    if not table.header:
        raise NoTableError(
            "is empty; a campaign table starts with a row of column names."
            + "".join(f" ({note})" for note in table.notes)
        )
    if not opened.n_known:
        raise NoTableError(
            f"none of the columns in its first line is known: '{', '.join(table.header)[:120]}'. A "
            "campaign table has run_id, reactor_id, clone_id, time_h and species and controls by "
            "name. Is the separator right, or does the header stand on another line (--header-row)?"
        )
    if not table.n_rows:
        raise NoTableError(
            f"the table holds a header ({', '.join(map(str, table.header))}) and no rows; a "
            "campaign needs at least one sample."
        )
    above = list(table.notes)
    table, told = as_campaign(opened, rules, words, run_name or path.stem, is_open=is_open)
    notes = [*above, *(note for note in table.notes if note not in above), *told]
    if table.separator is not None:
        mark = {".": "point", ",": "comma"}[table.decimal]
        notes.insert(
            0, f"read as {SEPARATORS[table.separator]}-separated text with a decimal {mark}"
        )
    numbers = number_columns(words)
    frame = pd.DataFrame(
        dict(enumerate(_cells_of(table, n, numbers) for n in range(len(table.header)))), copy=False
    )
    table.clear()
    frame.columns = pd.Index(table.header)
    units = _merge_units(sidecar.units, table.units)
    has_lines = path.suffix.lower() not in PARQUET_SUFFIXES
    cells = Cells(frame, units, table.lines if has_lines else None,
                  tuple(f"{note}." for note in notes), ".", opened.totals)  # fmt: skip
    return cells, sidecar


def _cells_of(table: RawTable, n: int, numbers: Container[str]) -> pd.Series:
    """A column with a decimal point in its numbers; floats where it holds nothing else."""
    found = table.column(n)
    once: list[Any]
    if table.header[n] not in numbers:
        once = [unguard(cell) if isinstance(cell, str) else cell for cell in found.cells]
    else:
        read = parse_numbers(found.cells, table.decimal)
        once = [
            value
            if not isinstance(value, str)
            else with_point(cell, table.decimal)
            if isinstance(cell, str)
            else cell
            for cell, value in zip(found.cells, read, strict=True)
        ]
        if {*map(type, once)} <= {float, type(None)}:
            return pd.Series(np.asarray(once, float)[found.codes])
    cells = np.empty(len(once), object)
    cells[:] = once
    return pd.Series(cells[found.codes], dtype=object)


def kind_of(path: Path) -> str:
    """Kind of a table that is written, by its name: "text", "parquet" or "excel".

    Raises:
        DataError: If the suffix is of none of them.
    """
    suffix = path.suffix.lower()
    kinds = {"text": TEXT_SUFFIXES, "parquet": PARQUET_SUFFIXES, "excel": WORKBOOK_SUFFIXES}
    for kind, suffixes in kinds.items():
        if suffix in suffixes:
            return kind
    allowed = ", ".join(sorted(frozenset().union(*kinds.values())))
    raise DataError(
        f"{path} has suffix '{path.suffix}'; a campaign table is written as one of {allowed}."
    )


def sidecar_of(path: Path) -> Sidecar:
    """What lies beside a table; nothing where there is no such file.

    Raises:
        DataError: If it cannot be read, or says something nobody knows.
    """
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
