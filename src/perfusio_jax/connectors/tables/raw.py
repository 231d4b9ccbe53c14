"""Cells of a file, before anyone asks what they mean; that is `samples.py`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core.text import cut

from .cells import to_tell

SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SUMMARIES: Final = frozenset(
    "mean average avg median sum total count n min minimum max maximum sd std stdev stddev sem cv "
    "rsd mittel mittelwert durchschnitt summe anzahl stabw".split()
)
"""First words of lines below a table that sum it up."""


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


class Coded(NamedTuple):
    """A column whose cells were counted: what there is, and where."""

    cells: list[Any]
    """Each once, in the order in which they first occur."""
    codes: np.ndarray
    """Which of them every row has."""


def coded(rows: Sequence[Sequence[Any]], column: int) -> Coded:
    """Count the cells of a column; 1, 1.0 and True are three."""
    cells = [row[column] for row in rows]
    kinds = {*map(type, cells)}
    keys = cells if kinds <= {str} else [(type(cell), cell) for cell in cells]
    once = list(dict.fromkeys(keys))
    number = {key: n for n, key in enumerate(once)}
    codes = np.fromiter(map(number.__getitem__, keys), np.int32, len(cells))
    return Coded(once if kinds <= {str} else [key[1] for key in once], codes)


def distinct(rows: Sequence[Sequence[Any]], column: int) -> dict[Any, int]:
    """What stands in a column, each text once, with the first row it stands in.

    Texts only may be asked for: of other cells those that are equal are one, as are 1 and True.
    """
    cells = [row[column] for row in rows]
    # backwards, so that the first of its kind is what stays; nothing here is a loop of Python's
    return dict(zip(reversed(cells), range(len(cells) - 1, -1, -1), strict=True))


def marked(
    table: RawTable, is_number: Callable[[str], bool] | None, *, all_columns: bool = True
) -> Iterator[tuple[str, int]]:
    """Texts that hold a mark, each once a column, with their first line, in the order of lines.

    Of columns of numbers what tells the mark.
    """
    columns = {n for n, label in enumerate(table.header) if is_number and is_number(label)}
    found: list[tuple[int, int, str]] = []
    for n in (n for n in range(len(table.header)) if all_columns or n in columns):
        found += [
            (row, n, to_tell(cell) if n in columns else cell)
            for cell, row in distinct(table.rows, n).items()
            # most cells are whole numbers or words: only a mark tells anything
            if isinstance(cell, str) and ("." in cell or "," in cell)
        ]
    for row, _, cell in sorted(found):
        yield cell, table.lines[row]


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


def not_complete(content: bytes) -> RawTable:
    """No cells, of a file another program has only begun to write."""
    if not content:
        return RawTable()
    return RawTable(notes=[f"the file breaks off after {len(content)} bytes: still being written?"])


def first_line(error: Exception) -> str:
    """What another library says first, short enough for a line."""
    return cut((str(error).splitlines() or [type(error).__name__])[0])
