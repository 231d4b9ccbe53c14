"""A table on its way into the form of a campaign, and the time of its rows."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY

from ..tables.cells import parse_number
from ..tables.raw import RawTable, coded
from ..tables.vocabulary import Vocabulary


class Work(NamedTuple):
    """A table on its way, and what was done to it."""

    table: RawTable
    words: Vocabulary
    told: list[str]

    def at(self, name: str) -> int | None:
        """Where a column stands; None if there is none."""
        return self.table.header.index(name) if name in self.table.header else None

    def text(self, row: Sequence[Any], name: str) -> str:
        """A cell as text; empty if there is no such column or nothing in it."""
        column = self.at(name)
        return "" if column is None or row[column] is None else str(row[column]).strip()

    def runs(self) -> list[list[int]]:
        """Rows of each run of each vessel, in the order of the table."""
        found: dict[tuple[str, str], list[int]] = {}
        columns = [self.texts(name) for name in ("run_id", "reactor_id")]
        for k, whose in enumerate(zip(*columns, strict=True)):
            found.setdefault(whose, []).append(k)
        return [*found.values()]

    def texts(self, name: str) -> list[str]:
        """A column as text; empty ones if there is no such column or nothing in it."""
        column = self.at(name)
        if column is None:
            return [""] * len(self.table.rows)
        return ["" if row[column] is None else str(row[column]).strip() for row in self.table.rows]


def hours_of(work: Work) -> list[float] | None:
    """Time of every row [h], as far as it can be read; None if there is no column of it."""
    name = next((name for name in ("time_h", "day") if name in work.table.header), None)
    if name is None:
        return None
    column = work.table.header.index(name)
    factor = 1.0 if name == "time_h" else HOURS_PER_DAY
    try:
        factor *= float(work.words.conversion(work.table.units.get(name, ""), name)([1.0])[0])
    except ValueError:  # whoever reads the column says what is wrong with its unit
        return None
    found = coded(work.table.rows, column)
    once = [parse_number(cell, work.table.decimal) for cell in found.cells]
    hours = [cell for cell in once if isinstance(cell, float) and math.isfinite(cell)]
    if len(hours) < len(once):
        return None  # the same of its cells
    return np.asarray([factor * cell for cell in hours])[found.codes].tolist()
