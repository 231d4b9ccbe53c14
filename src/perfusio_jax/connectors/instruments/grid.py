"""A file as rows of cells with their lines, whatever kind of file it is."""

import codecs
import csv
import datetime as dt
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from perfusio_jax._core import DataError

from ..tables.packed import bounded_rows, check_text, survey_workbook
from ..tables.raw import SEPARATORS, first_line
from .xls import is_xls, read_xls

TEXT: Final = frozenset({".csv", ".tsv", ".txt"})
ZIPPED: Final = frozenset({".xlsx", ".xlsm"})
BINARY: Final = ".xls"
_GLANCE: Final = 16_384
"""Bytes of a text that are looked at to recognise it."""
_GLANCE_ROWS: Final = 12
_SWALLOWED: Final = 5
"""So many separators within one cell of several lines are a quote that was never closed."""
_STYLES: Final = "xl/styles.xml"
_NO_STYLES: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"></styleSheet>'
)


@dataclass(slots=True)
class Grid:
    """Cells of a file; rows without any are left out."""

    rows: list[list[Any]] = field(default_factory=list)
    """Text, or from a spreadsheet also numbers, times and `None`."""
    lines: list[int] = field(default_factory=list)
    """Line (or row) of the file each row begins on, from 1."""
    separator: str | None = None
    """Between the cells of a text."""
    is_open: bool = False
    """Whether the last line has no line end, so that its last cell may be cut off."""
    notes: list[str] = field(default_factory=list)
    """What was found out about the file."""

    @property
    def word(self) -> str:
        """What a row is called in messages."""
        return "row" if self.separator is None else "line"


def grid_of(content: bytes, suffix: str, n_hits: Callable[[list[str]], int]) -> Grid:
    """Cells of a whole file.

    Args:
        content: The file.
        suffix: Its suffix.
        n_hits: How many cells of a row are labels of the instrument; decides between separators.

    Raises:
        DataError: If the file is not of its kind, or larger than what is read.
    """
    suffix = suffix.lower()
    if suffix in ZIPPED:
        return _sheet(content, None)
    if suffix == BINARY:
        rows = list(bounded_rows(read_xls(content)))
        return Grid([cells for _, cells in rows], [line for line, _ in rows])
    grid = Grid()
    text = decoded(content, grid.notes)
    check_text(text, SEPARATORS)
    grid.is_open = bool(text) and not text.endswith(("\n", "\r"))
    grid.separator = _separator(text[:_GLANCE], n_hits)
    for line, cells in _split(text, grid.separator):
        grid.rows.append(cells)
        grid.lines.append(line)
    return grid


def first_rows(content: bytes, suffix: str) -> Iterator[list[list[Any]]]:
    """The first rows of a file, in each way they may be read; nothing if it cannot be."""
    suffix = suffix.lower()
    try:
        if suffix in ZIPPED:
            yield _sheet(content, _GLANCE_ROWS).rows
        elif suffix == BINARY and is_xls(content):
            yield [cells for _, cells in bounded_rows(islice(read_xls(content), _GLANCE_ROWS))]
        elif suffix in TEXT:
            text = decoded(content[:_GLANCE], [], is_whole=False)
            for separator in SEPARATORS:
                yield _as_far_as_it_goes(text, separator)
    except DataError:
        return  # whoever reads the file next says what is wrong with it


def _as_far_as_it_goes(text: str, separator: str) -> list[list[Any]]:
    """The first rows of a text, up to one that cannot be split."""
    rows: list[list[Any]] = []
    try:
        for _, cells in islice(_split(text, separator), _GLANCE_ROWS):
            rows.append(cells)
    except DataError:
        return rows
    return rows


def decoded(content: bytes, notes: list[str], *, is_whole: bool = True) -> str:
    """Text of a file: UTF-8, UTF-16 with its mark, else Windows-1252.

    Args:
        content: The file, or its beginning.
        notes: Gets a sentence for anything but UTF-8.
        is_whole: Whether it is all; a last character may then not be cut.

    Raises:
        DataError: If it is no text.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        notes.append("the text is UTF-16")
        try:
            return codecs.getincrementaldecoder("utf-16")().decode(content, is_whole)
        except UnicodeDecodeError:
            raise DataError("begins like UTF-16 text and is not; save it as UTF-8.") from None
    if b"\x00" in content:
        raise DataError("holds zero bytes, so it is not a text file; check what wrote it.")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(content, is_whole)
    except UnicodeDecodeError:
        notes.append("the text is not UTF-8 and was read as Windows-1252")
        return content.decode("cp1252", "replace")


def _separator(text: str, n_hits: Callable[[list[str]], int]) -> str:
    def most(separator: str) -> int:
        return max((n_hits(cells) for _, cells in islice(_split(text, separator), 12)), default=0)

    return max(SEPARATORS, key=most)


def _split(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    last = 0
    try:
        for row in reader:
            start, last = last + 1, reader.line_num
            if last > start:
                _refuse_swallowed(row, start, separator)
            if any(cell.strip() for cell in row):
                yield start, row
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} cannot be split into fields: {error}") from None


def _refuse_swallowed(row: list[str], line: int, separator: str) -> None:
    """A quote that is never closed makes the rows that follow part of one cell."""
    if any("\n" in cell and cell.count(separator) >= _SWALLOWED for cell in row):
        raise DataError(
            f"line {line} opens a quoted cell that swallows the rows below it; a quotation mark is "
            "missing or too many."
        )


def _sheet(content: bytes, n_rows: int | None) -> Grid:
    """Rows of the first sheet of a workbook."""
    survey_workbook(content)
    grid = Grid()
    book = None
    with warnings.catch_warnings():  # openpyxl warns of headers of pages it cannot parse
        warnings.simplefilter("ignore")
        try:
            book = _book(content, grid.notes)
            sheet: Any = book.worksheets[0]
            sheet.reset_dimensions()
            for line, cells in bounded_rows(islice(sheet.iter_rows(values_only=True), n_rows)):
                grid.rows.append(cells)
                grid.lines.append(line)
            first, *others = book.sheetnames
        except DataError:
            raise
        except Exception as error:  # openpyxl lets through whatever zip and XML raise
            raise DataError(f"cannot be read as Excel ({first_line(error)})") from None
        finally:
            if book is not None:
                book.close()
    if others:
        grid.notes.append(f"sheet '{first}' was read; there are others: {', '.join(others)}")
    return grid


def _book(content: bytes, notes: list[str]) -> Any:
    """An open workbook, if its styles are damaged without them."""
    from openpyxl import load_workbook

    try:
        return load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except TypeError:  # a style that is none; of styles only the formats of dates matter here
        notes.append("the styles of the workbook are damaged and were not used")
        bare = io.BytesIO(_without_styles(content))
        return load_workbook(bare, read_only=True, data_only=True)


def _without_styles(content: bytes) -> bytes:
    """A workbook with plain styles: its dates become numbers, which are refused as times."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for part in old.infolist():
            new.writestr(part, _NO_STYLES if part.filename == _STYLES else old.read(part))
    return out.getvalue()


def is_blank(cell: Any) -> bool:
    """Whether nothing stands in a cell."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def as_text(cell: Any) -> str:
    """What stands in a cell as a person reads it.

    Example:
        >>> as_text(12.0), as_text("  A1 "), as_text(None)
        ('12', 'A1', '')
    """
    if isinstance(cell, str):
        return cell.strip()
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, dt.datetime | dt.date):
        return cell.isoformat()
    return str(cell).strip()
