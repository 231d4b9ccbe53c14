"""Cells of a file, before anyone asks what they mean; that is `samples.py`."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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


class Coded(NamedTuple):
    """A column whose cells were counted: what there is, and where. Never changed in place."""

    cells: list[Any]
    """Each once, in the order in which they first occur."""
    codes: np.ndarray
    """Which of them every row has."""

    @classmethod
    def of_cells(cls, cells: Iterable[Any]) -> "Coded":
        """The same of cells by row; 1, 1.0 and True are three."""
        cells = list(cells)
        kinds = {*map(type, cells)}
        keys = cells if kinds <= {str} else [(type(cell), cell) for cell in cells]
        number = Numbering()
        codes = np.fromiter(map(number.__getitem__, keys), np.int32, len(cells))
        return cls([*number] if kinds <= {str} else [key[1] for key in number], codes)

    def of(self, rows: np.ndarray) -> "Coded":
        """The same of some of the rows, by number, or those that are marked."""
        codes = self.codes[rows]
        first = _first(codes, len(self.cells))
        kept = np.flatnonzero(first < len(codes))
        kept = kept[np.argsort(first[kept])]
        if np.array_equal(kept, np.arange(len(self.cells))):
            return Coded(self.cells, codes)
        number = np.zeros(len(self.cells), np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        return Coded([self.cells[k] for k in kept.tolist()], number[codes])

    def first_rows(self) -> np.ndarray:
        """The first row that has each of the cells."""
        return _first(self.codes, len(self.cells))

    def texts(self) -> list[str]:
        """Each of the cells as text without blanks around it; empty for nothing."""
        return ["" if cell is None else str(cell).strip() for cell in self.cells]

    def named(self) -> tuple[list[str], np.ndarray]:
        """Different texts in the order in which they first occur, and which every row has."""
        number: dict[str, int] = {}
        renamed = [number.setdefault(text, len(number)) for text in self.texts()]
        return list(number), np.asarray(renamed, np.int32)[self.codes]


def _first(codes: np.ndarray, n: int) -> np.ndarray:
    found = np.full(n, len(codes))
    found[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return found


class Numbering(dict[Any, int]):
    """Gives each different cell the next number."""

    def __missing__(self, cell: Any) -> int:
        """The number of a cell that was not there before."""
        number = self[cell] = len(self)
        return number


class RawTable:
    """Cells of a file, before anyone asks what they mean.

    Held by row, or by column with each different cell once, which takes a tenth of the room: who
    asks for `rows` has them by row from then on, to read and to change.

    Args:
        header: Column labels; empty if the file has none yet.
        rows: Cells by row: text from CSV, numbers, text or `None` from Parquet and Excel.
        lines: Line (or row) of the file each row begins on, from 1.
        units: Unit per label where the file itself carries it (Parquet field metadata).
        notes: What was found out about the file, one sentence each.
        held_back: Line that has no line end yet and was therefore not read.
        separator: Field separator, for text.
        decimal: Decimal mark.
    """

    __slots__ = (
        "_columns", "_rows", "decimal", "header", "held_back", "lines", "notes", "separator",
        "units",
    )  # fmt: skip

    def __init__(
        self,
        header: list[str] | None = None,
        rows: list[list[Any]] | None = None,
        lines: list[int] | None = None,
        units: dict[str, str] | None = None,
        notes: list[str] | None = None,
        held_back: int | None = None,
        separator: str | None = None,
        decimal: str = ".",
    ) -> None:
        self.header = [] if header is None else header
        self.lines = [] if lines is None else lines
        self.units = {} if units is None else units
        self.notes = [] if notes is None else notes
        self.held_back, self.separator, self.decimal = held_back, separator, decimal
        self._rows: list[list[Any]] = [] if rows is None else rows
        self._columns: list[Coded] | None = None

    @property
    def rows(self) -> list[list[Any]]:
        """Cells by row, held so from now on."""
        if self._columns is not None:
            spread = [map(column.cells.__getitem__, column.codes) for column in self._columns]
            self._rows = [list(cells) for cells in zip(*spread, strict=True)]
            self._columns = None
        return self._rows

    @rows.setter
    def rows(self, rows: list[list[Any]]) -> None:
        self._rows, self._columns = rows, None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        if self._columns is None:
            return len(self._rows)
        return len(self._columns[0].codes) if self._columns else 0

    def row(self, k: int) -> list[Any]:
        """Cells of one row, which is not to be changed."""
        if self._columns is None:
            return self._rows[k]
        return [column.cells[column.codes[k]] for column in self._columns]

    def column(self, n: int) -> Coded:
        """One column."""
        if self._columns is not None:
            return self._columns[n]
        return Coded.of_cells(row[n] for row in self._rows)

    def columns(self) -> list[Coded]:
        """All columns; the table is held by them from now on."""
        if self._columns is None:
            self._columns = [self.column(n) for n in range(len(self.header))]
            self._rows = []
        return self._columns

    def put_columns(self, columns: list[Coded]) -> None:
        """Hold other columns, as many as there are labels in the header.

        Args:
            columns: Of one length.
        """
        self._columns, self._rows = columns, []

    def add_column(self, label: str, column: Coded) -> None:
        """Put a column beside the others.

        Args:
            label: What it is called.
            column: As long as the table.
        """
        self.put_columns([*self.columns(), column])
        self.header.append(label)

    def take(self, rows: np.ndarray) -> None:
        """Keep some of the rows, by number.

        Args:
            rows: In the order they are to have.
        """
        if self._columns is None:
            self._rows[:] = [self._rows[k] for k in rows.tolist()]
        else:
            self._columns = [column.of(rows) for column in self._columns]
        self.lines[:] = [self.lines[k] for k in rows.tolist()]

    def take_columns(self, kept: Sequence[int]) -> None:
        """Keep some of the columns, by number.

        Args:
            kept: In the order they are to have.
        """
        self.header[:] = [self.header[n] for n in kept]
        if self._columns is None:
            self._rows[:] = [[row[n] for n in kept] for row in self._rows]
        else:
            self._columns = [self._columns[n] for n in kept]

    def clear(self) -> None:
        """Let the cells go: what was taken in need not be held twice."""
        self._columns, self._rows = None, []


_NOT_PLAIN: Final = re.compile(r"(?m)^(?![+-]?[0-9]*\.?[0-9]+$)")
"""Where a line is no number that has a point at most."""
_GROUP_OR_DECIMAL: Final = (
    re.compile(r"(?m)^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"),
    re.compile(r"(?m)^(?![+-]?[1-9][0-9]{0,2}\.[0-9]{3}$).*\."),
)
"""Lines that could be thousands, and those that prove a decimal point; of numbers as above."""


def marked(
    table: RawTable, is_number: Callable[[str], bool] | None, *, all_columns: bool = True
) -> Iterator[tuple[str, int]]:
    """Texts that hold a mark, each once a column, with their first line, in the order of lines.

    Of columns of numbers what tells the mark.
    """
    columns = {n for n, label in enumerate(table.header) if is_number and is_number(label)}
    found: list[tuple[int, int, str]] = []
    for n in (n for n in range(len(table.header)) if all_columns or n in columns):
        column = table.column(n)
        first = column.first_rows()
        for k in _telling(column.cells):
            cell = column.cells[k]
            found.append((int(first[k]), n, to_tell(cell) if n in columns else cell))
    for row, _, cell in sorted(found):
        yield cell, table.lines[row]


def _telling(cells: list[Any]) -> list[int]:
    """Which cells tell the mark, by number: most are whole numbers or words, which tell nothing.

    Of plain numbers with a point the first that proves it a decimal mark and the first that may be
    thousands say what all of them do.
    """
    joined = "\n".join(cells) if {*map(type, cells)} <= {str} else "\n\n"
    if joined.count("\n") != len(cells) - 1 or _NOT_PLAIN.search(joined):
        return [
            k
            for k, cell in enumerate(cells)
            if isinstance(cell, str) and ("." in cell or "," in cell)
        ]
    firsts = (kind.search(joined) for kind in _GROUP_OR_DECIMAL)
    return sorted(joined.count("\n", 0, found.start()) for found in firsts if found)


def _has_digit(cells: list[Any]) -> bool:
    return any(character.isdigit() for cell in cells for character in str(cell))


def leave_out_footer(table: RawTable, time_columns: Sequence[int]) -> None:
    """Take lines such as "Mean; 1.6; 4.7" off the end of a table, and say so.

    Args:
        table: Changed in place.
        time_columns: Where the times are; a line with a digit there is a sample.
    """
    while table.n_rows and time_columns:
        cells = table.row(table.n_rows - 1)
        words = [str(cell).strip() for cell in cells if cell is not None and str(cell).strip()]
        first = words[0].casefold().strip(".:") if words else ""
        if first not in _SUMMARIES or _has_digit([cells[n] for n in time_columns]):
            return
        line = table.lines[-1]
        table.take(np.arange(table.n_rows - 1))
        table.notes.append(f"line {line} ('{words[0]}') sums the table up and is left out")


def not_complete(content: bytes) -> RawTable:
    """No cells, of a file another program has only begun to write."""
    if not content:
        return RawTable()
    return RawTable(notes=[f"the file breaks off after {len(content)} bytes: still being written?"])


def first_line(error: Exception) -> str:
    """What another library says first, short enough for a line."""
    return cut((str(error).splitlines() or [type(error).__name__])[0])
