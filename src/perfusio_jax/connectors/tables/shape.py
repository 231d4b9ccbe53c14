"""Rows of fields to a table: a header, and rows as wide as it."""

from collections.abc import Sequence
from typing import Any

from perfusio_jax._core import DataError

from .raw import RawTable


def shape(rows: list[list[str]], lines: list[int], table: RawTable) -> None:
    """Header and rows of equal width: empty fields beside the table are left out, told."""
    header = [cell.strip() for cell in rows[0]]
    named = max((n + 1 for n, label in enumerate(header) if label), default=0)
    beside = named < len(header) and any(
        cell.strip() for row in rows[1:] for cell in row[named : len(header)]
    )
    width = len(header) if beside else named
    n_wide = 0 if {*map(len, rows)} == {width} else sum(len(row) > width for row in rows)
    table.header = [
        label or f"column {n + 1} without a name" for n, label in enumerate(header[:width])
    ]
    odd = [k for k in range(1, len(rows)) if len(rows[k]) != width]
    for row, line in ((rows[k], lines[k]) for k in odd):
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            many = len(row) > width
            hint = (
                "a decimal comma between commas?" if many else "a half-written row, or one cut off?"
            )
            raise DataError(
                f"line {line} has {len(row)} fields where the header has {len(header)} ({hint})"
            )
    for k in odd:
        rows[k] = rows[k][:width]
    repeats = Repeats(header[:width], table)
    if not repeats.may_be_in(rows[1:]):
        table.rows, table.lines = rows[1:], lines[1:]
    else:
        for row, line in zip(rows[1:], lines[1:], strict=True):
            if not repeats.has(row, line):
                table.rows.append(row)
                table.lines.append(line)
    if n_wide:
        table.notes.append(
            f"{n_wide} lines end with a separator; the empty field after it is left out"
        )


class Repeats:
    """Recognises a header that stands in a table again, and the row below it.

    Args:
        labels: The header.
        table: What was taken of its rows so far; takes the notes.
    """

    def __init__(self, labels: Sequence[str], table: RawTable) -> None:
        self._folded = [label.casefold() for label in labels]
        self._table = table
        self._is_again = False

    def may_be_in(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether a row of texts begins as the header does."""
        return any(cell.strip().casefold() == self._folded[0] for cell in {row[0] for row in rows})

    def has(self, cells: Sequence[Any], line: int) -> bool:
        """Whether a row is none of the table because it stood there before."""
        first = "" if not cells or cells[0] is None else str(cells[0]).strip().casefold()
        is_header = (
            first == self._folded[0]
            and ["" if cell is None else str(cell).strip().casefold() for cell in cells]
            == self._folded
        )
        if is_header:
            self._table.notes.append(f"line {line} repeats the header and is left out")
            self._is_again = True
            return True
        rows, was_again = self._table.rows, self._is_again
        self._is_again = False
        if was_again and rows and cells == rows[0] and not _has_number(cells):
            self._table.notes.append(
                f"line {line} repeats the row below the header and is left out"
            )
            return True
        return False


def _has_number(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, int | float) for cell in cells)
