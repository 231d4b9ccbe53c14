"""Delimited text to cells: separators, preambles, quotes, lines that are half written."""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Callable
from typing import Final

from perfusio_jax._core import DataError

from .cells import find_decimal
from .packed import check_text
from .raw import SEPARATORS, RawTable, marked

_SEPARATOR_LINE: Final = re.compile(r'[ ]*"?sep=(?P<mark>.)"?[ ]*')
"""First line by which spreadsheets tell each other the separator."""
_PREAMBLE: Final = 40
"""Lines that may stand above a table."""


def read_text(
    content: bytes,
    is_known: Callable[[str], bool],
    separator: str | None,
    decimal: str | None,
    allow_unterminated: bool,
    is_number: Callable[[str], bool] | None,
) -> RawTable:
    """Cells of a text file; `formats.read_table` says what the arguments are."""
    table = RawTable(separator=separator)
    text = _decode(content, table)
    check_text(text, SEPARATORS if separator is None else separator)
    if text and not text.endswith(("\n", "\r")) and not allow_unterminated:
        cut = max(text.rfind("\n"), text.rfind("\r")) + 1
        table.held_back = len(text[:cut].splitlines()) + 1
        table.notes.append(
            f"line {table.held_back} has no line end yet and is not read: it may be half written"
        )
        text = text[:cut]
    if not text.strip():
        return table
    text, stated = _without_separator_line(text, table)
    text = _without_preamble(text, is_known, table)
    if not text.strip():
        return table
    table.separator = separator or stated or _find_separator(text, is_known)
    if not allow_unterminated:
        text = _without_open_quote(text, table, table.separator)
    if not text.strip():
        return table
    _shape(*_split(text, table.separator), table)
    table.decimal = decimal or find_decimal(marked(table, is_number), table.separator)
    return table


def _without_separator_line(text: str, table: RawTable) -> tuple[str, str | None]:
    """Read a line such as `sep=;`, which then counts as blank: lines keep their numbers."""
    lines = text.splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if line.strip())
    found = _SEPARATOR_LINE.fullmatch(lines[first].rstrip("\r\n"))
    if found is None or found["mark"] not in SEPARATORS:
        return text, None
    table.notes.append(f"line {first + 1} states the separator")
    return "\n" * (first + 1) + "".join(lines[first + 1 :]), found["mark"]


def _without_preamble(text: str, is_known: Callable[[str], bool], table: RawTable) -> str:
    """Blank the lines above a table: those before the first with two known labels."""
    lines = text.splitlines(keepends=True)
    for n, line in enumerate(lines[:_PREAMBLE]):
        labels = max(_hits(line, separator, is_known) for separator in SEPARATORS)
        if labels >= 2 or (labels and not any(earlier.strip() for earlier in lines[:n])):
            above = [k + 1 for k in range(n) if lines[k].strip()]
            if above:
                span = (
                    f"lines {above[0]} to {above[-1]} stand"
                    if len(above) > 1
                    else (f"line {above[0]} stands")
                )
                table.notes.append(f"{span} above the table and say nothing of it")
            return "\n" * n + "".join(lines[n:])
    return text


def _hits(line: str, separator: str, is_known: Callable[[str], bool]) -> int:
    cells = next(csv.reader([line], delimiter=separator), [])
    return sum(is_known(cell.strip()) for cell in cells)


def _without_open_quote(text: str, table: RawTable, separator: str) -> str:
    """Leave out a last row whose quoted field has no end yet: more lines of it are to come."""
    if text.count('"') % 2 == 0:
        return text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    start = last = 0
    with contextlib.suppress(csv.Error):
        for _ in reader:
            start, last = last, reader.line_num
    lines = io.StringIO(text, newline="").readlines()
    try:
        for _ in csv.reader(lines[start:], delimiter=separator, strict=True):
            pass
        return text
    except csv.Error as error:
        if "unexpected end" not in str(error):
            return text
    table.held_back = start + 1
    table.notes.append(
        f"line {start + 1} opens a quoted field that has no end yet and is not read: it may be "
        "half written"
    )
    return "".join(lines[:start])


def _decode(content: bytes, table: RawTable) -> str:
    # Decoded incrementally: the last character of a growing file may be half written too.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        table.notes.append("the text is UTF-16")
        try:
            return codecs.getincrementaldecoder("utf-16")().decode(content)
        except UnicodeDecodeError:
            raise DataError("begins like UTF-16 text and is not; save it as UTF-8.") from None
    if b"\x00" in content:
        raise DataError("holds zero bytes, so it is not a text file; check what wrote it.")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(content)
    except UnicodeDecodeError:
        table.notes.append("the text is not UTF-8 and was read as Windows-1252")
        return content.decode("cp1252", "replace")


def _find_separator(text: str, is_known: Callable[[str], bool]) -> str:
    header = next(line for line in text.splitlines() if line.strip())

    def score(separator: str) -> tuple[int, int]:
        return _hits(header, separator, is_known), header.count(separator)

    return max(SEPARATORS, key=score)


def _split(text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Rows with the line each begins on; blank lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[list[str]] = []
    lines: list[int] = []
    last = 0
    try:
        for row in reader:
            start, last = last + 1, reader.line_num
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(start)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} cannot be split into fields: {error}") from None
    return rows, lines


def _shape(rows: list[list[str]], lines: list[int], table: RawTable) -> None:
    """Header and rows of equal width: empty fields beside the table are left out, told."""
    header = [cell.strip() for cell in rows[0]]
    named = max((n + 1 for n, label in enumerate(header) if label), default=0)
    beside = any(cell.strip() for row in rows[1:] for cell in row[named : len(header)])
    width = len(header) if beside else named
    n_wide = sum(len(row) > width for row in rows)
    table.header = [
        label or f"column {n + 1} without a name" for n, label in enumerate(header[:width])
    ]
    folded = [label.casefold() for label in header[:width]]
    is_again = False
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            many = len(row) > width
            hint = (
                "a decimal comma between commas?" if many else "a half-written row, or one cut off?"
            )
            raise DataError(
                f"line {line} has {len(row)} fields where the header has {len(header)} ({hint})"
            )
        cells = row[:width]
        if [cell.strip().casefold() for cell in cells] == folded:
            table.notes.append(f"line {line} repeats the header and is left out")
            is_again = True
            continue
        if is_again and table.rows and cells == table.rows[0]:
            table.notes.append(f"line {line} repeats the row below the header and is left out")
            continue
        is_again = False
        table.rows.append(cells)
        table.lines.append(line)
    if n_wide:
        table.notes.append(
            f"{n_wide} lines end with a separator; the empty field after it is left out"
        )
