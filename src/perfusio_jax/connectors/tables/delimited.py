"""Delimited text to cells: separators, preambles, quotes, lines that are half written."""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import TABLE_BYTES, read_file

from .blocks import of_vessels
from .cells import find_decimal
from .layout import Layout, told_above
from .packed import check_text
from .plain_text import split_plain
from .raw import SEPARATORS, RawTable, marked
from .shape import shape

_SEPARATOR_LINE: Final = re.compile(r'[ ]*"?sep=(?P<mark>.)"?[ ]*')
"""First line by which spreadsheets tell each other the separator."""
_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_PREAMBLE: Final = 40
"""Lines that may stand above a table."""


def read_text(
    content: bytes,
    is_known: Callable[[str], bool],
    separator: str | None,
    decimal: str | None,
    allow_unterminated: bool,
    is_number: Callable[[str], bool] | None,
    layout: Layout,
    resembles: Callable[[str], bool],
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
    text = _without_lines(text, layout)
    table.notes += [f"line {number} is left out, as was said" for number in layout.skip_lines]
    if not layout.has_blocks:
        text = _without_preamble(text, (is_known, resembles), table, layout)
    if not text.strip():
        return table
    table.separator = separator or stated or _find_separator(text, resembles, layout)
    if not allow_unterminated:
        text = _without_open_quote(text, table, table.separator)
    if not text.strip():
        return table
    has_more = layout.has_blocks or layout.skip_footer
    if has_more or not split_plain(text, table.separator, table):
        rows, lines = _split(text, table.separator)
        rows, lines = layout.without_footer(rows, lines, table)
        if layout.has_blocks:
            rows, lines = of_vessels(rows, lines, lambda row: _n_names(row, resembles) >= 2, table)
            rows = [["" if cell is None else cell for cell in row] for row in rows]
        shape(rows, lines, table)
    del text  # which may be most of what there is
    table.decimal = decimal or find_decimal(marked(table, is_number), table.separator)
    return table


def text_rows(path: Path, what: str) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of a table of text between commas, by column, and its header.

    Args:
        path: The file.
        what: What it is, for messages.

    Raises:
        DataError: If it is no file, too large, or no such table.
    """
    if not path.is_file():
        raise DataError(f"{what} {path} is not a file.")
    try:
        text = read_file(path, most=TABLE_BYTES).decode("utf-8-sig")
        check_text(text, ",")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        return list(reader), list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{what} {path}: no table of text: {error}.") from None


def _without_separator_line(text: str, table: RawTable) -> tuple[str, str | None]:
    """Read a line such as `sep=;`, which then counts as blank: lines keep their numbers."""
    first, line = _first_filled(text)
    found = _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n"))
    if found is None or found["mark"] not in SEPARATORS:
        return text, None
    table.notes.append(f"line {first + 1} states the separator")
    return _below(text, first + 1), found["mark"]


def _head(text: str, n_lines: int) -> list[str]:
    """The first lines with their ends, so many at least as far as there are so many.

    A long table is not cut up for the sake of what stands above it.
    """
    size = 1 << 14
    while True:
        lines = text[:size].splitlines(keepends=True)
        if size >= len(text):
            return lines
        if len(lines) > n_lines + 1:
            return lines[:-2]  # the last may be cut off, and a line end before it in two
        size *= 4


def _first_filled(text: str) -> tuple[int, str]:
    """Number, from 0, and text of the first line with something on it."""
    n_lines = _PREAMBLE
    while True:
        lines = _head(text, n_lines)
        for n, line in enumerate(lines):
            if line.strip():
                return n, line
        n_lines = 4 * len(lines)


def _below(text: str, n: int) -> str:
    """A text whose first lines are blank: the others keep their numbers."""
    return "\n" * n + text[sum(map(len, _head(text, n)[:n])) :]


def _without_lines(text: str, layout: Layout) -> str:
    """Blank the lines somebody wants left out: the others keep their numbers."""
    if not layout.skip_lines:
        return text
    lines = text.splitlines(keepends=True)
    layout.check_skipped(len(lines))
    for number in layout.skip_lines:
        lines[number - 1] = "\n"
    return "".join(lines)


def _without_preamble(
    text: str,
    judges: tuple[Callable[[str], bool], Callable[[str], bool]],
    table: RawTable,
    layout: Layout,
) -> str:
    """Blank the lines above a table: those before the first with two known labels."""
    lines = _head(text, max(_PREAMBLE, layout.header_row or 0))
    if layout.header_row is not None:
        layout.check_header_row(len(lines))
        return _below(text, layout.header_row - 1)
    for n, line in enumerate(lines[:_PREAMBLE]):
        known, like = (max(_hits(line, s, judge) for s in SEPARATORS) for judge in judges)
        if like >= 2 or (known and not any(earlier.strip() for earlier in lines[:n])):
            table.notes += told_above([k + 1 for k in range(n) if lines[k].strip()])
            return _below(text, n)
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


def _n_names(row: Sequence[str], is_known: Callable[[str], bool]) -> int:
    return sum(is_known(cell.strip()) for cell in row)


def _find_separator(text: str, is_known: Callable[[str], bool], layout: Layout) -> str:
    _, header = _first_filled(text)
    if layout.has_blocks:  # a name stands above the first header
        lines = _head(text, _PREAMBLE)[:_PREAMBLE]
        header = max(lines, key=lambda line: max(_hits(line, s, is_known) for s in SEPARATORS))

    def score(separator: str) -> tuple[int, int]:
        return _hits(header, separator, is_known), header.count(separator)

    return max(SEPARATORS, key=score)


def _split(text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Rows with the line each begins on; blank lines are skipped."""
    lines_of = (found.group() for found in _LINE.finditer(text))
    reader = csv.reader(lines_of, delimiter=separator)
    rows: list[list[str]] = []
    lines: list[int] = []
    last = 0
    # a long table says the same many times over; each text is kept once
    once: dict[str, str] = {}
    keep = once.setdefault
    try:
        for row in reader:
            start, last = last + 1, reader.line_num
            if (row and row[0].strip()) or any(cell.strip() for cell in row):
                rows.append(list(tuple(map(keep, row, row))))  # as long as it is and no longer
                lines.append(start)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} cannot be split into fields: {error}") from None
    return rows, lines
