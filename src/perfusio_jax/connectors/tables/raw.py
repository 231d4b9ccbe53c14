"""Files to cells: CSV in all its dialects, Parquet and Excel, as they lie on the disk.

Nothing here knows what a column means; that is `samples.py`. What this file promises is
that a file which another program is writing to is never read half.
"""

import codecs
import contextlib
import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perfusio_jax._core import ConnectorError, DataError
from perfusio_jax._core.limits import TABLE_BYTES, check_regular, read_file
from perfusio_jax._core.text import cut, in_line

from .cells import find_decimal, to_tell
from .packed import bounded_rows, check_parquet, check_text, survey_workbook

SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
TEXT_SUFFIXES: Final = frozenset({".csv", ".tsv", ".txt"})
PARQUET_SUFFIXES: Final = frozenset({".parquet", ".pq"})
EXCEL_SUFFIXES: Final = frozenset({".xlsx", ".xlsm"})

_SEPARATOR_LINE: Final = re.compile(r'[ ]*"?sep=(?P<mark>.)"?[ ]*')
"""First line by which spreadsheets tell each other the separator."""
_SUMMARIES: Final = frozenset(
    "mean average avg median sum total count n min minimum max maximum sd std stdev stddev sem cv "
    "rsd mittel mittelwert durchschnitt summe anzahl stabw".split()
)
"""First words of lines below a table that sum it up."""
_PREAMBLE: Final = 40
"""Lines that may stand above a table."""

_PARQUET_MARK: Final = b"PAR1"
"""First and last bytes of a Parquet file."""
_ZIP_MARK, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
"""First bytes of a zip archive, which an Excel file is, and those its last part begins with."""

Signature = tuple[int, int, int]
"""Modification time [ns], size [bytes] and inode: changes whenever the file does."""


@dataclass(slots=True)
class RawTable:
    """Cells of a file, before anyone asks what they mean."""

    header: list[str] = field(default_factory=list)
    """Column labels; empty if the file has none yet."""
    rows: list[list[Any]] = field(default_factory=list)
    """Cells by row: text from CSV, numbers, text or `None` from Parquet and Excel."""
    lines: list[int] = field(default_factory=list)
    """Line (or row) of the file each row begins on, from 1."""
    units: dict[str, str] = field(default_factory=dict)
    """Unit per label where the file itself carries it (Parquet field metadata)."""
    notes: list[str] = field(default_factory=list)
    """What was found out about the file, one sentence each."""
    held_back: int | None = None
    """Line that has no line end yet and was therefore not read."""
    separator: str | None = None
    """Field separator, for text."""
    decimal: str = "."
    """Decimal mark."""


def signature(path: Path) -> Signature:
    """What changes when the file does.

    Raises:
        ConnectorError: If the file is not there or cannot be looked at.
        DataError: If it is a device or a pipe.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ConnectorError(f"{path} is not there; check the path, or create it first.") from None
    except OSError as error:
        raise ConnectorError(f"{path} cannot be reached: {error}") from error
    check_regular(status, str(path))
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_bytes(
    path: Path, attempts: int = 3, *, most: int = TABLE_BYTES
) -> tuple[bytes, Signature]:
    """Whole content of a file that did not change while it was read.

    Args:
        path: The file.
        attempts: How often to try; after that the last content read is taken, which is
            harmless for a file that only grows.
        most: Bytes it may have.

    Returns:
        Content and signature.

    Raises:
        ConnectorError: If the file cannot be read.
        DataError: If it is no file, or too large.
    """
    for _ in range(attempts):
        before = signature(path)
        try:
            content = read_file(path, most=most)
        except OSError as error:
            raise ConnectorError(f"{path} cannot be read: {error}") from error
        after = signature(path)
        if before == after and len(content) == after[1]:
            break
    return content, before


def read_table(
    content: bytes,
    suffix: str,
    *,
    is_known: Callable[[str], bool],
    separator: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
    allow_unterminated: bool = False,
    is_number: Callable[[str], bool] | None = None,
) -> RawTable:
    """Cells of a file by its kind.

    Args:
        content: The file.
        suffix: Its suffix, which says what kind it is.
        is_known: Whether a column label is understood; decides between separators.
        separator: Field separator of a text file; found out if not given.
        decimal: "." or ","; found out if not given.
        sheet: Sheet of an Excel file; the first if not given.
        allow_unterminated: Read a last line that has no line end.
        is_number: Whether a column label is of numbers; then a cell such as `98,5 %` tells the
            decimal mark, too.

    Returns:
        The cells; without header if the file holds none.

    Raises:
        DataError: If the file is not of its kind or its rows have no common shape.
    """
    suffix = suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return _read_text(content, is_known, separator, decimal, allow_unterminated, is_number)
    if suffix in PARQUET_SUFFIXES | EXCEL_SUFFIXES:
        is_excel = suffix in EXCEL_SUFFIXES
        table = _read_excel(content, sheet) if is_excel else _read_parquet(content)
        texts = _marked(table, is_number, all_columns=False)  # numbers may be there as text
        table.decimal = decimal or find_decimal(texts, None)
        return table
    allowed = ", ".join(sorted(TEXT_SUFFIXES | PARQUET_SUFFIXES | EXCEL_SUFFIXES))
    raise DataError(f"files of kind '{suffix or 'no suffix'}' cannot be read; allowed: {allowed}.")


def _read_text(
    content: bytes,
    is_known: Callable[[str], bool],
    separator: str | None,
    decimal: str | None,
    allow_unterminated: bool,
    is_number: Callable[[str], bool] | None,
) -> RawTable:
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
    table.decimal = decimal or find_decimal(_marked(table, is_number), table.separator)
    return table


def _marked(
    table: RawTable, is_number: Callable[[str], bool] | None, *, all_columns: bool = True
) -> Iterator[tuple[str, int]]:
    """Text cells with their line: of columns of numbers what tells the mark, of others all."""
    columns = {n for n, label in enumerate(table.header) if is_number and is_number(label)}
    for row, line in zip(table.rows, table.lines, strict=True):
        for n, cell in enumerate(row):
            if isinstance(cell, str) and (all_columns or n in columns):
                yield (to_tell(cell) if n in columns else cell), line


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


def _has_digit(cells: list[Any]) -> bool:
    return any(character.isdigit() for cell in cells for character in str(cell))


def leave_out_footer(table: RawTable, time_columns: Sequence[int]) -> None:
    """Take lines such as "Mean; 1.6; 4.7" off the end of a table, and say so.

    Args:
        table: Changed in place.
        time_columns: Where the times are; a line with a digit there is a sample.
    """
    while table.rows and time_columns:
        cells = table.rows[-1]
        words = [str(cell).strip() for cell in cells if cell is not None and str(cell).strip()]
        first = words[0].casefold().strip(".:") if words else ""
        if first not in _SUMMARIES or _has_digit([cells[n] for n in time_columns]):
            return
        table.rows.pop()
        line = table.lines.pop()
        table.notes.append(f"line {line} ('{words[0]}') sums the table up and is left out")


def _read_parquet(content: bytes) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    is_begun = content.startswith(_PARQUET_MARK)
    if not content or (is_begun and not (len(content) > 12 and content.endswith(_PARQUET_MARK))):
        return _not_complete(content)
    check_parquet(content)
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"cannot be read as Parquet ({_first_line(error)})") from None
    columns = [column.to_pylist() for column in table.columns]
    units = {
        item.name: item.metadata[b"unit"].decode()
        for item in table.schema
        if item.metadata and b"unit" in item.metadata
    }
    rows = [list(row) for row in zip(*columns, strict=True)]
    return RawTable(
        header=list(table.column_names), rows=rows, lines=list(range(1, len(rows) + 1)), units=units
    )


def _read_excel(content: bytes, sheet: str | None) -> RawTable:
    if not content or (content.startswith(_ZIP_MARK) and _ZIP_END not in content[-65_557:]):
        return _not_complete(content)
    has_formulas = survey_workbook(content)
    with _workbook(content, data_only=True) as book:
        if sheet is not None and sheet not in book.sheetnames:
            raise DataError(f"has no sheet '{sheet}'; it has {', '.join(book.sheetnames)}.")
        name = sheet if sheet is not None else book.sheetnames[0]
        filled = list(bounded_rows(_rows(book[name])))
        others = ", ".join(book.sheetnames[1:])
    table = RawTable()
    if has_formulas:
        _note_formulas(content, name, dict(filled), table)
    if sheet is None and others:
        table.notes.append(f"sheet '{name}' was read; there are others: {others}")
    if not filled:
        return table
    width = max(n + 1 for n, cell in enumerate(filled[0][1]) if cell is not None)
    labels = ["" if cell is None else str(cell).strip() for cell in filled[0][1][:width]]
    for line, row in filled[1:]:
        if any(cell is not None for cell in row[width:]):
            raise DataError(f"row {line} is wider than the header.")
        table.rows.append((row + [None] * (width - len(row)))[:width])
        table.lines.append(line)
    kept = [n for n in range(width) if labels[n] or any(row[n] is not None for row in table.rows)]
    table.header = [labels[n] or f"column {n + 1} without a name" for n in kept]
    if len(kept) < width:
        table.rows = [[row[n] for n in kept] for row in table.rows]
    return table


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
        raise DataError(f"cannot be read as Excel ({_first_line(error)})") from None
    finally:
        if book is not None:
            book.close()


def _rows(sheet: Any) -> Iterator[Any]:
    """Rows of a sheet by what stands in it, whatever size it declares."""
    sheet.reset_dimensions()
    return sheet.iter_rows(values_only=True)


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


def _not_complete(content: bytes) -> RawTable:
    """No cells, of a file another program has only begun to write."""
    if not content:
        return RawTable()
    return RawTable(notes=[f"the file breaks off after {len(content)} bytes: still being written?"])


def _first_line(error: Exception) -> str:
    return cut((str(error).splitlines() or [type(error).__name__])[0])
