"""What packed tables unpack to, found out before they are: Excel workbooks and Parquet.

A few kilobytes of zip or of run lengths may stand for gigabytes. Both kinds of file declare what
they hold; what is declared is held against the limits of `_core.limits`, and no more than is
declared is ever unpacked.
"""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core import limits as bounds
from perfusio_jax._core.text import in_line

_MEMBERS: Final = 10_000
_CHUNK: Final = 1 << 20
_LAST_ROW: Final = 1_048_576
"""Where every spreadsheet ends."""
_OVERLAP: Final = 16
_DECLARED: Final = re.compile(
    rb"<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}[\"']([\w.-]{1,40})", re.A
)
_PLAIN: Final = frozenset({b"utf-8", b"us-ascii", b"ascii"})


def survey_workbook(content: bytes) -> bool:
    """Look at every part of a workbook once, before a spreadsheet library does.

    Args:
        content: The file, a zip archive of XML.

    Returns:
        Whether a sheet holds formulas.

    Raises:
        DataError: If it unpacks to too much, declares XML entities (no spreadsheet program does)
            or an encoding other than UTF-8, or cannot be unpacked.
    """
    has_formula = False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
            total = sum(part.file_size for part in parts)
            if total > bounds.UNPACKED_BYTES or len(parts) > _MEMBERS:
                raise DataError(
                    f"unpacks to {len(parts)} parts of {bounds.in_mb(total)} in all; "
                    f"{bounds.in_mb(bounds.UNPACKED_BYTES)} are the most that is read."
                )
            for part in parts:
                is_sheet = part.filename.startswith("xl/worksheets/")
                is_xml = part.filename.endswith((".xml", ".rels", ".vml"))
                if is_sheet or is_xml:
                    has_formula |= _look_through(archive, part) and is_sheet
    except DataError:
        raise
    # a damaged archive fails in many ways, an unsupported compression and a password among them
    except Exception as error:
        raise DataError(f"cannot be read as Excel ({in_line(str(error), 200)})") from None
    return has_formula


def _look_through(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    """Refuse what XML could hide; whether a formula stands in it."""
    has_formula = False
    with archive.open(part) as file:
        tail = file.read(_CHUNK)
        declared = _DECLARED.search(tail[:400])
        is_wide = b"\x00" in tail[:4] or tail.startswith((b"\xff\xfe", b"\xfe\xff"))
        if is_wide or (declared is not None and declared[1].lower() not in _PLAIN):
            raise DataError(f"its part {in_line(part.filename)} is not UTF-8, as Excel writes it.")
        while tail:
            if b"<!DOCTYPE" in tail or b"<!ENTITY" in tail:
                raise DataError(
                    f"its part {in_line(part.filename)} declares XML entities, which no "
                    "spreadsheet program does; they are not expanded."
                )
            has_formula = has_formula or b"<f" in tail
            more = file.read(_CHUNK)
            tail = tail[-_OVERLAP:] + more if more else b""
    return has_formula


def bounded_rows(rows: Iterable[Iterable[Any]]) -> Iterator[tuple[int, list[Any]]]:
    """Filled rows of a sheet with their numbers from 1, as far as a table may reach.

    A sheet may declare a million rows of thousands of columns and hold none of them, so rows that
    are passed over count as well.

    Args:
        rows: Rows as a spreadsheet library gives them.

    Raises:
        DataError: If there are too many rows, columns or cells.
    """
    filled = seen = 0
    for number, row in enumerate(rows, start=1):
        cells = list(row)
        seen += len(cells)
        while cells and cells[-1] is None:
            cells.pop()
        if seen > bounds.CELLS or number > _LAST_ROW:
            raise DataError(
                f"the sheet goes on beyond row {number:,} and {seen:,} cells, most of them empty; "
                f"{bounds.CELLS:,} cells are the most that are read."
            )
        if cells:
            filled += 1
            bounds.check_shape(filled, len(cells), "the sheet")
            yield number, cells


def check_parquet(content: bytes) -> None:
    """Hold what a Parquet file declares against the limits.

    Args:
        content: The file.

    Raises:
        DataError: If it is no Parquet file, or declares too much.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"cannot be read as Parquet ({in_line(str(error), 200)})") from None
    bounds.check_shape(about.num_rows, about.num_columns)
    total = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
    if total > bounds.UNPACKED_BYTES:
        raise DataError(
            f"unpacks to {bounds.in_mb(total)}; {bounds.in_mb(bounds.UNPACKED_BYTES)} are the "
            "most that is read."
        )


def check_text(text: str, separators: Iterable[str]) -> None:
    """Hold a text table against the limits before it is taken apart.

    Args:
        text: The table.
        separators: What may stand between its cells.

    Raises:
        DataError: If its first line, its rows or its cells are too many.
    """
    start = text.lstrip()[: bounds.HEADER_CHARS + 1]
    first = start.splitlines()[0] if start else ""
    if len(first) > bounds.HEADER_CHARS:
        raise DataError(
            f"has a first line of more than {bounds.HEADER_CHARS:,} characters, which no header "
            "has; are the line ends right?"
        )
    n_rows = max(text.count("\n"), text.count("\r"))
    bounds.check_shape(n_rows, 1)
    for separator in separators:
        bounds.check_shape(1, first.count(separator))
        if text.count(separator) > bounds.CELLS:
            raise DataError(f"has more than {bounds.CELLS:,} cells, the most that are read.")
