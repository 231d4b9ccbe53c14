"""Tables as files: names, a row of units, rows; what is written here is read by every command."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from .spreadsheet import guard


def as_csv(
    names: Sequence[str], units: Sequence[str], rows: Iterable[Sequence[Any]], separator: str = ","
) -> str:
    """A table as text. Text a spreadsheet would run as a formula is made harmless.

    Args:
        names: Of the columns.
        units: Of the columns; empty for none.
        rows: Numbers, texts, None or NaN for nothing.
        separator: Between fields.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(names)
    writer.writerow(units)
    for row in rows:
        writer.writerow([_as_text(cell) for cell in row])
    return out.getvalue()


def as_workbook(names: Sequence[str], units: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as a workbook of one sheet; the arguments are those of `as_csv`."""
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("samples")
    sheet.append(list(names))
    sheet.append(list(units))
    for row in rows:
        sheet.append([_as_cell(cell) for cell in row])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _is_nothing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _as_text(cell: Any) -> str:
    if _is_nothing(cell):
        return ""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return repr(cell)  # of a number no spreadsheet makes a formula, minus sign or not
    return guard(str(cell))


def _as_cell(cell: Any) -> Any:
    if _is_nothing(cell):
        return None
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    return cell if is_number else guard(str(cell))
