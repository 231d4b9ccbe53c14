"""Exports of instruments: which one wrote a file, and what stands in it."""

import io
import re
import zipfile
from functools import partial
from typing import Any, Final

from perfusio_jax._core import DataError

from ..tables.raw import RawTable
from .allotrope import is_allotrope, read_allotrope
from .archive import ARCHIVE_MARK, read_archive
from .catalogue import ALLOTROPE, INSTRUMENTS
from .grid import ZIPPED, Grid, as_text, first_rows, grid_of
from .instrument import Instrument, folded
from .sample_report import read_report
from .sample_table import n_hits, read_samples

JSON_SUFFIXES: Final = frozenset({".json", ".asm"})
_GLANCE: Final = 1 << 16
"""Bytes of each part of a workbook that are looked at."""
_PARTS: Final = re.compile(r"xl/(sharedStrings|worksheets/sheet\d{1,3})\.xml")
_TITLE_ROWS: Final = 3
_HEADER_HITS: Final = 3
"""Labels beside each other that make a header; those of a report stand below each other."""


def recognise(content: bytes, suffix: str) -> Instrument | None:
    """Which instrument wrote a file, by what stands in its first lines.

    Args:
        content: The file.
        suffix: Its suffix, such as ".csv".

    Returns:
        The instrument; `None` if it is none of those that are known.
    """
    suffix = suffix.lower()
    if suffix in JSON_SUFFIXES:
        return ALLOTROPE if is_allotrope(content) else None
    if suffix in ZIPPED and not _may_hold(content):
        return None
    ways = [*first_rows(content, suffix)]
    for instrument in INSTRUMENTS:
        if any(_is_from(rows, instrument) for rows in ways):
            return instrument
    return None


def read_instrument(content: bytes, suffix: str, instrument: Instrument) -> RawTable:
    """Samples of an export under our names, in the units the file states.

    Args:
        content: The file.
        suffix: Its suffix.
        instrument: What wrote it, from `recognise`.

    Returns:
        One row per sample and measurement: `sample_id`, `sampled_at` in ISO 8601 (with an offset
        only where the file has one; as it was where day and month cannot be told apart), our
        names with their unit in the label, the instrument's labels for the rest. `notes` tell
        everything that was done; what is missing is `None` (of a text file an empty text), a limit
        is text such as "< 0.1".

    Raises:
        DataError: If the file is damaged or its layout is not one that is known; with line and
            label.
    """
    if instrument.layout == "allotrope":
        return read_allotrope(content, instrument)
    if instrument.layout == "archive":
        grid = grid_of(content, suffix, _archive_hits)
        if not grid.rows:
            raise DataError(f"an export of {instrument.name} without a line holds no sample.")
        return read_archive(grid, instrument)
    grid = grid_of(content, suffix, partial(n_hits, instrument))
    return _read(grid, instrument)


def _read(grid: Grid, instrument: Instrument) -> RawTable:
    if instrument.layout == "report":
        return read_report(grid, instrument)
    return read_samples(grid, instrument)


def _archive_hits(cells: list[Any]) -> int:
    return len(cells) if any(as_text(cell) == ARCHIVE_MARK for cell in cells) else 0


def _is_from(rows: list[list[Any]], instrument: Instrument) -> bool:
    if instrument.layout == "archive":
        return bool(rows) and _archive_hits(rows[0][:6]) > 0
    if instrument.title:
        titled = any(
            re.match(instrument.title, as_text(row[0]), re.IGNORECASE)
            for row in rows[:_TITLE_ROWS]
            if row
        )
        is_table = any(n_hits(instrument, row) >= _HEADER_HITS for row in rows)
        return titled and (instrument.layout == "report" or is_table)
    marks = {folded(mark) for mark in instrument.marks}
    return any(
        len({folded(as_text(cell)) for cell in row} & marks) >= instrument.n_marks for row in rows
    ) and bool(marks)


def _may_hold(content: bytes) -> bool:
    """Whether the texts at the beginning of a workbook may be those of an instrument.

    Opening a workbook is much work; nearly all are of no instrument.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                if _PARTS.fullmatch(name):
                    with archive.open(name) as part:
                        if _TELLING.search(part.read(_GLANCE)):
                            return True
    except Exception:  # a damaged archive fails in many ways; whoever reads it says so
        return False
    return False


_TELLING: Final = re.compile(
    rb"vi-cell xr \d|Date &amp; Time|\(x10\^6\) cells/mL|Cedex ID|#ARC-FILE#", re.IGNORECASE
)
"""One text of every instrument that writes workbooks."""
