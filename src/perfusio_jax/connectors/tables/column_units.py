"""Units of the columns: by header, by a row of units, by a sidecar; and what they convert by."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from perfusio_jax._core import DataError, UnitError
from perfusio_jax._core.unit_text import parse_unit

from .cells import parse_number, qualified
from .columns import Header
from .labels import bare_label
from .suggestions import other_meaning, refuse_second_header
from .vocabulary import TIMES, UNITLESS


class ColumnUnits:
    """Unit of every column of a table, one source of them never against another.

    Args:
        header: Labels, and the units they state.
        sidecar: Unit by canonical name.
    """

    def __init__(self, header: Header, sidecar: Mapping[str, str]) -> None:
        self.header, self.sidecar, self.words = header, sidecar, header.words
        self.units = list(header.units)
        """Unit by column; empty where none is stated."""
        self.notes = [text for text in map(header.column_map.overruled, header.labels) if text]
        """What is to be told of units."""
        self.other_meanings: dict[int, str] = {}
        """What a column is, that by its unit is not what its label says."""
        self._converters: dict[tuple[str, str], Callable[[float], float]] = {}

    def take_row(self, cells: Sequence[Any], line: int) -> None:
        """Read a row of units.

        Args:
            cells: The row.
            line: Its line, for messages.

        Raises:
            DataError: If it is a second header, or a unit is not that of the header.
        """
        texts = ["" if cell is None else str(cell).strip().strip("[]()").strip() for cell in cells]
        names = self.header.names
        stated = [(names[n], text) for n, text in enumerate(texts) if text and self._has_unit(n)]
        refuse_second_header(line, stated, self.words)
        for n, text in enumerate(texts):
            name = names[n]
            if not text or not self.words.is_numeric(name):
                continue
            if self.units[n] and self.units[n] != text:
                raise DataError(
                    f"column '{self.header.labels[n]}' is in '{self.units[n]}' by its header and "
                    f"in '{text}' by the units row; correct one of them."
                )
            self.units[n] = text

    def _has_unit(self, n: int) -> bool:
        """Whether a column has a unit of its own, which one of values of anything has not."""
        name = self.header.names[n]
        return self.words.is_numeric(name) and name != "value"

    def settle(self) -> None:
        """Take the sidecar's units, and refuse what does not fit its column, at once.

        A column whose unit is another quantity's loses its name in the header.

        Raises:
            DataError: If sidecar and table disagree.
            UnitError: If a unit cannot be read or does not fit its column.
        """
        for n, name in enumerate(self.header.names):
            if not self._has_unit(n):
                continue
            stated = self.sidecar.get(name, "").strip()
            if stated and self.units[n] and stated != self.units[n]:
                raise DataError(
                    f"column '{name}' is in '{self.units[n]}' by the table and in '{stated}' by "
                    "the sidecar; correct one of them."
                )
            self.units[n] = self.units[n] or stated
            label = self.header.labels[n]
            is_ours = name not in self.words.spans
            is_other = other_meaning(name, self.units[n], self.header.labels) if is_ours else ""
            if is_other:
                self.header.names[n] = ""
                self.other_meanings[n] = is_other
                continue
            try:
                self.converter(name, self.units[n])
            except UnitError as error:
                raise UnitError(
                    f"{error} A column map can state another unit, or leave the column out: "
                    f"'{label}' = 'ignore' (--map)."
                ) from None

    def converter(self, name: str, unit: str) -> Callable[[float], float]:
        """Conversion to the canonical unit, worked out once per column and unit.

        Raises:
            UnitError: If the unit cannot be read or does not fit.
        """
        key = (name, unit)
        if key not in self._converters:
            line = self.words.conversion(unit, name)
            is_same = line.slope == 1 and not line.offset
            self._converters[key] = float if is_same else lambda number: float(line(number))
        return self._converters[key]

    def unused(self, seen: Iterable[str]) -> list[tuple[str, str]]:
        """Units of the sidecar for names that mean nothing in this table.

        Args:
            seen: Names met in rows, in long format.
        """
        strange = {
            bare_label(label)[0]
            for label, name in zip(self.header.labels, self.header.names, strict=True)
            if name in ("", "ignore")
        }
        used = {*self.header.names, *seen, *strange}
        if not self.header.is_wide:
            used |= {*TIMES, *self.words.numbers}  # of a species whose first row is to come
        return [(name, unit) for name, unit in self.sidecar.items() if name not in used]


def is_units_row(cells: Sequence[Any], decimal: str) -> bool:
    """Whether a first row holds text, and nothing that reads as a value, in number columns.

    The unit of what has no dimension is written "1"; it is one where all the rest are units.

    Args:
        cells: Of the columns of numbers.
        decimal: Decimal mark of text.
    """
    parsed = [parse_number(cell, decimal) for cell in cells]
    texts = [text for text in parsed if isinstance(text, str)]
    readings = [q for q in map(qualified, texts) if q and (q.sign or q.unit.startswith("%"))]
    if not texts or readings:
        return False
    numbers = [c for c, p in zip(cells, parsed, strict=True) if isinstance(p, float)]
    if not numbers:
        return True
    return all(str(c).strip() == "1" for c in numbers) and all(map(_is_unit, texts))


def _is_unit(text: str) -> bool:
    try:
        return text.strip() in UNITLESS or bool(parse_unit(text.strip().strip("[]()").strip()))
    except UnitError:
        return False
