"""The value of one cell: what of it counts, in which quality, and what is odd about it."""

import math
from typing import Any, Final

from perfusio_jax._core.text import in_line

from .cells import parse_number, understood
from .column_units import ColumnUnits

_SIGNED: Final = frozenset({"TMP", "capacitance", "temperature"})


class ValueReader:
    """Reads the cells of a table.

    Args:
        units: Conversions to canonical units.
        decimal: Decimal mark of text.
    """

    def __init__(self, units: ColumnUnits, decimal: str) -> None:
        self._units, self._decimal, self._words = units, decimal, units.words

    def read(self, name: str, cell: Any, unit: str) -> tuple[float | None, str, str]:
        """One cell.

        Args:
            name: Canonical name of its column.
            cell: What is in it.
            unit: Its unit; empty for the canonical one.

        Returns:
            Value [canonical unit], quality, and what is odd; "good" and nothing odd at best, no
            value where it counts as missing.
        """
        number = parse_number(cell, self._decimal)
        if number is None:
            return None, "missing", ""
        if isinstance(number, str):
            return self._odd(name, number, unit)
        if math.isinf(number):
            return None, "bad", "is infinite"
        value = self._units.converter(name, unit)(number)
        said = self._words.may_be_negative(name)
        if value < 0.0 and not (name in _SIGNED if said is None else said):
            return None, "bad", f"is negative ({number:g} {unit or self._words.unit(name)})"
        if name == "Via" and value > 100.0:
            return None, "bad", f"is {value:g} %, above 100 %"
        return value, "good", ""

    def limit(self, name: str, cell: Any, unit: str) -> tuple[float, float] | None:
        """The limit of the assay that a cell states, below and above [canonical unit].

        Args:
            name: Canonical name of its column.
            cell: What is in it.
            unit: Its unit; empty for the canonical one.

        Returns:
            One of the two is NaN; None where a cell is no limit, or none that is stated.
        """
        number = parse_number(cell, self._decimal)
        if not isinstance(number, str):
            return None
        value, kind = understood(
            number, name, unit, lambda part: parse_number(part, self._decimal), self._words
        )
        if value is None or kind not in ("below", "above") or not self._words.has_limits(name):
            return None
        if not value > 0.0:
            return None
        stated = 2.0 * value if kind == "below" else value
        stated = self._units.converter(name, unit)(stated)
        return (stated, math.nan) if kind == "below" else (math.nan, stated)

    def _odd(self, name: str, text: str, unit: str) -> tuple[float | None, str, str]:
        """The same of a cell that is more than a number."""
        number, kind = understood(
            text, name, unit, lambda part: parse_number(part, self._decimal), self._words
        )
        if kind in ("above", "below") and not self._words.has_limits(name):
            return None, "bad", f"is {in_line(text)}, a limit, and {name} is no reading of an assay"
        if kind == "above":
            return None, "bad", f"is {in_line(text)}, above what the assay reads"
        if kind == "below" and number is not None and not number > 0.0:
            return None, "bad", f"is {in_line(text)}, a limit that is not above zero"
        if kind == "under":
            return None, "bad", f"is {in_line(text)}, below a limit that is not stated"
        if number is None:
            return None, "bad", f"is {in_line(text)}, not a number"
        value = self._units.converter(name, unit)(number)
        if kind == "below":
            return value, "uncertain", f"is {text!r}: a limit of the assay, shown as half of it"
        return self.read(name, value, "")
