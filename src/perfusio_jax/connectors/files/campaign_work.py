"""A table on its way into the form of a campaign, and the time of its rows."""

import math
from typing import NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY

from ..tables.cells import parse_numbers
from ..tables.raw import RawTable
from ..tables.vocabulary import Vocabulary


class Work(NamedTuple):
    """A table on its way, and what was done to it."""

    table: RawTable
    words: Vocabulary
    told: list[str]

    def at(self, name: str) -> int | None:
        """Where a column stands; None if there is none."""
        return self.table.header.index(name) if name in self.table.header else None

    def text(self, row: int, name: str) -> str:
        """A cell as text; empty if there is no such column or nothing in it."""
        column = self.at(name)
        if column is None:
            return ""
        found = self.table.column(column)
        cell = found.cells[found.codes[row]]
        return "" if cell is None else str(cell).strip()

    def runs(self) -> list[np.ndarray]:
        """Rows of each run of each vessel, in the order of the table."""
        whose = self._whose()
        order = np.argsort(whose, kind="stable")
        if not order.size:
            return []
        parts = np.split(order, np.flatnonzero(np.diff(whose[order])) + 1)
        return sorted(parts, key=lambda rows: int(rows[0]))

    def closest(self, hours: np.ndarray) -> float:
        """Time between the two rows of one run that are closest [h]; infinite if there are none.

        Args:
            hours: Time of every row [h].
        """
        whose = self._whose()
        order = np.lexsort((hours, whose))
        apart = np.diff(hours[order])[np.diff(whose[order]) == 0]
        return float(apart.min()) if apart.size else math.inf

    def _whose(self) -> np.ndarray:
        (_, runs), (vessels, codes) = map(self.named, ("run_id", "reactor_id"))
        return runs.astype(np.int64) * len(vessels) + codes

    def named(self, name: str) -> tuple[list[str], np.ndarray]:
        """Texts of a column, each once, and which every row has; empty if there is no column."""
        column = self.at(name)
        if column is None:
            return [""], np.zeros(self.table.n_rows, np.int32)
        return self.table.column(column).named()

    def texts(self, name: str) -> list[str]:
        """A column as text; empty ones if there is no such column or nothing in it."""
        texts, codes = self.named(name)
        return [texts[code] for code in codes.tolist()]


def hours_of(work: Work) -> np.ndarray | None:
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
    found = work.table.column(column)
    once = parse_numbers(found.cells, work.table.decimal)
    hours = [cell for cell in once if isinstance(cell, float) and math.isfinite(cell)]
    if len(hours) < len(once):
        return None  # the same of its cells
    return np.asarray([factor * cell for cell in hours], float)[found.codes]
