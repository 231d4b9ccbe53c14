"""Sheets of an Excel file to cells."""

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import COLUMNS
from perfusio_jax._core.text import in_line

from .blocks import of_vessels
from .layout import Layout, told_above
from .packed import bounded_rows, survey_workbook
from .raw import RawTable, first_line, not_complete
from .shape import Repeats

_ZIP_MARK, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
"""First bytes of a zip archive, which an Excel file is, and those its last part begins with."""


_PERCENT: Final = re.compile(rb'formatCode="[^"]*%|numFmtId="(?:9|10)"')
"""A format of percentages, one's own or one of the two that every spreadsheet has."""
_LITERAL: Final = re.compile(r'"[^"]*"|[\\_*].')
"""What of a format is shown as it stands: another percent sign only makes hundredths of numbers."""
_COLUMN: Final = re.compile(rb"<(?:\w+:)?col\b([^>]*)>")
_ROW: Final = re.compile(rb"<(?:\w+:)?row\b([^>]*)>")
_ATTRIBUTE: Final = re.compile(rb'\b(min|max|hidden|r)="([^"]*)"')
_TRUE: Final = (b"1", b"true")
_PREAMBLE: Final = 40
"""Rows that may stand above a table."""


def sheet_names(content: bytes) -> list[str]:
    """Sheets of a workbook, in its order.

    Raises:
        DataError: If it is none.
    """
    survey_workbook(content)
    with _workbook(content, data_only=True) as book:
        return list(book.sheetnames)


def read_excel(
    content: bytes,
    sheet: str | None,
    is_known: Callable[[str], bool] = lambda _: False,
    layout: Layout | None = None,
) -> RawTable:
    """Cells of one sheet, by default the first.

    Args:
        content: The workbook.
        sheet: Name of the sheet.
        is_known: Whether a label is understood; tells the header from what stands above it.
        layout: Where the table stands, as far as that is said.

    Raises:
        DataError: If it is no workbook, lacks the sheet, or its rows have no common shape.
    """
    layout = layout or Layout()
    if not content or (content.startswith(_ZIP_MARK) and _ZIP_END not in content[-65_557:]):
        return not_complete(content)
    has_formulas = survey_workbook(content)
    has_percent = _has_percent(content)
    with _workbook(content, data_only=True) as book:
        if sheet is not None and sheet not in book.sheetnames:
            names = ", ".join(n if n == n.strip() else repr(n) for n in book.sheetnames)
            raise DataError(f"has no sheet {sheet!r}; it has {names}.")
        states = {n: getattr(book[n], "sheet_state", "visible") for n in book.sheetnames}
        hidden = [n for n, state in states.items() if state != "visible"]
        shown = [n for n in book.sheetnames if n not in hidden] or book.sheetnames
        name = sheet if sheet is not None else shown[0]
        rows = _rows_of_percent(book[name]) if has_percent else _rows(book[name])
        filled = list(bounded_rows(rows))
        unseen = _hidden(book[name])
        others = ", ".join(
            f"{n} (hidden)" if n in hidden else n for n in book.sheetnames if n != name
        )
    table = RawTable()
    if has_formulas:
        _note_formulas(content, name, dict(filled), table)
    if sheet is None and others:
        table.notes.append(f"sheet '{name}' was read; there are others: {others}")
    if name in hidden and sheet is not None:
        table.notes.append(f"sheet '{name}' is hidden in the workbook, and read")
    if layout.has_blocks and filled:
        below, lines = of_vessels(
            [row for _, row in filled],
            [line for line, _ in filled],
            lambda row: sum(is_known(str(c).strip()) for c in row if c is not None) >= 2,
            table,
        )
        filled = list(zip(lines, below, strict=True))
    else:
        filled = _from_header(filled, is_known, layout, table)
    if not filled:
        return table
    kept_rows, kept_lines = layout.without_footer(
        [row for _, row in filled], [line for line, _ in filled], table
    )
    filled = list(zip(kept_lines, kept_rows, strict=True))
    width = max(n + 1 for n, cell in enumerate(filled[0][1]) if cell is not None)
    labels = ["" if cell is None else str(cell).strip() for cell in filled[0][1][:width]]
    repeats = Repeats(labels, table)
    for line, row in filled[1:]:
        if any(cell is not None for cell in row[width:]):
            raise DataError(
                f"row {line} is wider than the header in row {filled[0][0]}. Does the header stand "
                "on another row (--header-row), or is that row none of the table (--skip-line)?"
            )
        cells = (row + [None] * (width - len(row)))[:width]
        if not repeats.has(cells, line):
            table.rows.append(cells)
            table.lines.append(line)
    kept = [n for n in range(width) if labels[n] or any(row[n] is not None for row in table.rows)]
    table.header = [labels[n] or f"column {n + 1} without a name" for n in kept]
    table.notes += _told_hidden(
        table,
        [table.header[k] for k, n in enumerate(kept) if n + 1 in unseen.columns],
        unseen.lines,
    )
    if len(kept) < width:
        table.rows = [[row[n] for n in kept] for row in table.rows]
    return table


class _Hidden(NamedTuple):
    """What a person does not see of a sheet: by formatting, or behind a filter."""

    columns: set[int]
    """Numbers of columns, from 1."""
    lines: set[int]
    """Numbers of rows, from 1."""


def _hidden(sheet: Any) -> _Hidden:
    """Columns and rows of a sheet that are hidden, which its reader of rows does not tell."""
    with sheet._get_source() as source:
        content = source.read()
    columns: set[int] = set()
    head = content.partition(b"sheetData")[0]
    for tag in _COLUMN.findall(head):
        found = {key: value for key, value in _ATTRIBUTE.findall(tag)}
        if found.get(b"hidden") in _TRUE:
            first, last = int(found.get(b"min", 0)), int(found.get(b"max", 0))
            columns |= {*range(first, min(last, COLUMNS) + 1)}
    lines: set[int] = set()
    if b'hidden="' in content[len(head) :]:
        for tag in _ROW.findall(content, len(head)):
            found = {key: value for key, value in _ATTRIBUTE.findall(tag)}
            if found.get(b"hidden") in _TRUE and found.get(b"r", b"").isdigit():
                lines.add(int(found[b"r"]))
    return _Hidden(columns, lines)


def _told_hidden(table: RawTable, labels: list[str], lines: set[int]) -> list[str]:
    """Sentences on what was read though nobody sees it."""
    told = []
    if labels:
        names = ", ".join(in_line(label) for label in labels[:5])
        more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
        told.append(f"columns that are hidden in the sheet are read: {names}{more}")
    rows = [line for line in table.lines if line in lines]
    if rows:
        told.append(f"{len(rows)} row(s) that are hidden in the sheet are read (first {rows[0]})")
    return told


def _from_header(
    filled: list[tuple[int, list[Any]]],
    is_known: Callable[[str], bool],
    layout: Layout,
    table: RawTable,
) -> list[tuple[int, list[Any]]]:
    """Filled rows from the header on: the first with two known labels, or the first of all."""
    layout.check_skipped(filled[-1][0] if filled else 0)
    filled = [item for item in filled if item[0] not in layout.skip_lines]
    table.notes += [f"row {number} is left out, as was said" for number in layout.skip_lines]
    if not filled:
        return filled
    if layout.header_row is not None:
        layout.check_header_row(filled[-1][0])
        return [item for item in filled if item[0] >= layout.header_row]
    for k, (_, cells) in enumerate(filled[:_PREAMBLE]):
        if sum(is_known(str(cell).strip()) for cell in cells if cell is not None) >= 2:
            table.notes += told_above([line for line, _ in filled[:k]], "row")
            return filled[k:]
    return filled


@contextlib.contextmanager
def _workbook(content: bytes, *, data_only: bool) -> Iterator[Any]:
    """An open workbook; whatever is wrong with it, also further down, is a `DataError`."""
    from openpyxl import load_workbook

    book = None
    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=data_only)
        yield book
    except DataError:
        raise
    except Exception as error:  # openpyxl lets through whatever zip and XML raise
        raise DataError(f"cannot be read as Excel ({first_line(error)})") from None
    finally:
        if book is not None:
            book.close()


def _rows(sheet: Any) -> Iterator[Any]:
    """Rows of a sheet by what stands in it, whatever size it declares."""
    sheet.reset_dimensions()
    return sheet.iter_rows(values_only=True)


class Percent(float):
    """A number that a spreadsheet shows as a percentage, one hundredth of what is seen."""

    def text(self, decimal: str) -> str:
        """What is seen."""
        return f"{100.0 * self:.12g}%".replace(".", decimal)


def show_percent(table: RawTable) -> None:
    """Make texts such as `97.5%` of percentages, with the table's decimal mark."""
    for row in table.rows:
        for n, cell in enumerate(row):
            if isinstance(cell, Percent):
                row[n] = cell.text(table.decimal)


def _has_percent(content: bytes) -> bool:
    """Whether a workbook has a format of percentages, by the part that holds its formats."""
    with contextlib.suppress(KeyError, zipfile.BadZipFile, OSError, zlib.error):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return bool(_PERCENT.search(archive.read("xl/styles.xml")))
    return False


def _rows_of_percent(sheet: Any) -> Iterator[Any]:
    """The same, with percentages told from other numbers, which takes longer."""
    sheet.reset_dimensions()
    for row in sheet.iter_rows():
        yield [
            Percent(cell.value)
            if isinstance(cell.value, int | float)
            and not isinstance(cell.value, bool)
            and "%" in _LITERAL.sub("", cell.number_format or "")
            else cell.value
            for cell in row
        ]


def _note_formulas(
    content: bytes, sheet: str, rows: Mapping[int, list[Any]], table: RawTable
) -> None:
    """Formulas whose value no spreadsheet has stored look like empty cells: say so."""
    with _workbook(content, data_only=False) as book:
        formulas = list(bounded_rows(_rows(book[sheet])))
    for line, cells in formulas:
        values = rows.get(line, [])
        for cell, value in zip(cells, [*values, *[None] * len(cells)], strict=False):
            if value is None and isinstance(cell, str) and cell.startswith("="):
                table.notes.append(
                    f"row {line} holds the formula {in_line(cell)[1:-1]} without a stored value, "
                    "which counts as missing; open and save the file in a spreadsheet"
                )
