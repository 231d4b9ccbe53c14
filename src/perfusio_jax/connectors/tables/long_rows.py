"""Rows of one value each with nothing odd about them, made samples by column.

As `plain_rows.py` does with rows of a sample each. A sample with something odd in one of its rows
is left, with all of its rows, to whoever reads row by row.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from perfusio_jax._core import DataError

from .plain_rows import PlainReader, PlainRows, Reader, first_of_time, n_unordered
from .raw import Coded
from .run_rows import or_nan
from .tally import Tally

Meant = Callable[[str], tuple[str, str]]
"""Label of a species to its name and unit; empty for one nobody knows, "ignore" for none."""


class LongRows(NamedTuple):
    """What was taken in."""

    rows: PlainRows
    """Samples, and rows that are left to be read one by one."""
    units: dict[str, str]
    """Unit of the first value of each quantity, in the order of the table."""
    strangers: dict[str, int]
    """Rows by label nobody knows; of rows that are left none is counted."""
    tallies: dict[str, Tally]
    """Of each quantity, without what is left."""


class LongReader:
    """Takes in what is plain of a long table.

    Args:
        reader: Reads what is the same in every table: runs, times, clones.
        columns: Numbers of the columns of species, value and, if there is one, unit.
        meant: What a label of a species means.
        unit_of: Unit of a quantity where neither row nor label state one.
        read: Reads cells.
    """

    def __init__(
        self,
        reader: PlainReader,
        columns: tuple[int, int, int | None],
        meant: Meant,
        unit_of: Callable[[str], str],
        read: Reader,
    ) -> None:
        self._reader, self._read = reader, read
        self._species, self._value, self._unit = columns
        self._meant, self._unit_of = meant, unit_of

    def take(self) -> LongRows | None:
        """Take it in; None, and nothing done, where a time or a label is odd.

        Raises:
            DataError: If the run of a row has no start to count from.
        """
        reader = self._reader
        whose, run = reader.runs()
        times_h, is_plain, is_dropped, stamps = reader.hours(whose, run)
        if not np.isfinite(times_h[~is_dropped]).all():
            return None
        there = np.flatnonzero(~is_dropped)
        labels, of_label = reader.column(self._species).named()
        try:
            meant = [self._meant(label) for label in labels]
        except DataError:  # whoever reads the row says what is wrong with it
            return None
        names = list(dict.fromkeys(name for name, _ in meant if name not in ("", "ignore")))
        code_of = {name: k for k, name in enumerate(names)}
        name = np.asarray([code_of.get(name, -1) for name, _ in meant], np.int64)[of_label]
        values, is_odd, units = self._values(there[name[there] >= 0], of_label, meant)
        ids, of_id = reader.texts("sample_id")
        is_plain &= ~is_odd & np.asarray([not text for text in ids])[of_id]
        first = first_of_time(run, times_h)
        is_plain &= ~_of_odd_samples(first, is_plain, name, stamps)
        order = there[np.lexsort((there, times_h[there], run[there]))]
        names_of: dict[tuple[str, str], dict[str, None]] = {pair: {} for pair in whose}
        pairs = run[order] * (len(names) + 1) + name[order]
        for pair in dict.fromkeys(pairs[name[order] >= 0].tolist()):
            names_of[whose[pair // (len(names) + 1)]][names[pair % (len(names) + 1)]] = None
        counts = np.bincount(of_label[is_plain & (name < 0)], minlength=len(labels)).tolist()
        reached = dict.fromkeys(of_label[there].tolist())
        strangers = {labels[k]: counts[k] for k in reached if not meant[k][0]}
        tallies = {n: Tally(unit=unit) for n, unit in units.items()}
        for n, tally in tallies.items():
            reader.count(self._value, values[is_plain & (name == code_of[n])], tally)
        rows = self._samples(whose, run, times_h, first, is_plain, names, name, values, stamps)
        clones = reader.clones(whose, run, ~is_dropped)
        unordered = n_unordered(run[there], times_h[there])
        rows = rows._replace(names_of=names_of, clones=clones, n_unordered=unordered)
        return LongRows(reader.let_go(rows, is_plain, is_dropped), units, strangers, tallies)

    def _values(
        self, rows: np.ndarray, of_label: np.ndarray, meant: Sequence[tuple[str, str]]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        """Values, where something is odd about one, and the unit of the first of each quantity."""
        cells = self._reader.column(self._value)
        own = Coded([""], np.zeros(len(of_label), np.int32))
        own = own if self._unit is None else self._reader.column(self._unit)
        texts, of_unit = own.named()
        values, is_odd = np.full(len(of_label), np.nan), np.zeros(len(of_label), bool)
        units: dict[str, str] = {}
        pairs = of_label[rows].astype(np.int64) * len(texts) + of_unit[rows]
        for pair in dict.fromkeys(pairs.tolist()):
            name, unit = meant[pair // len(texts)]
            unit = texts[pair % len(texts)] or unit or self._unit_of(name)
            units.setdefault(name, unit)
            mine = rows[pairs == pair]
            found = Coded(cells.cells, cells.codes).of(mine)
            said = [self._read(name, cell, unit) for cell in found.cells]
            values[mine] = np.asarray([or_nan(value) for value, _, _ in said])[found.codes]
            is_odd[mine] = np.asarray([bool(problem) for *_, problem in said])[found.codes]
        return values, is_odd, units

    def _samples(
        self,
        whose: list[tuple[str, str]],
        run: np.ndarray,
        times_h: np.ndarray,
        first: np.ndarray,
        is_plain: np.ndarray,
        names: Sequence[str],
        name: np.ndarray,
        values: np.ndarray,
        stamps: Sequence[dt.datetime | None] | None,
    ) -> PlainRows:
        lines = self._reader.lines
        kept = np.flatnonzero(is_plain & (first == np.arange(len(first))))
        sample = np.searchsorted(kept, first)
        last_lines = lines.copy()
        last_lines[first] = lines
        columns, name_lines = {}, {}
        for k, quantity in enumerate(names):
            mine = np.flatnonzero(is_plain & (name == k))
            columns[quantity] = np.full(len(kept), np.nan)
            columns[quantity][sample[mine]] = values[mine]
            name_lines[quantity] = np.zeros(len(kept), np.int64)
            name_lines[quantity][sample[mine]] = lines[mine]
        return PlainRows(
            whose,
            run[kept],
            times_h[kept],
            lines[kept],
            last_lines[kept],
            columns,
            None if stamps is None else [stamps[k] for k in kept.tolist()],
            {},
            {},
            0,
            {},
            name_lines,
        )


def _of_odd_samples(
    first: np.ndarray,
    is_plain: np.ndarray,
    name: np.ndarray,
    stamps: Sequence[dt.datetime | None] | None,
) -> np.ndarray:
    """Rows of samples of which a row is odd, or that have two values of one quantity."""
    odd = first[~is_plain]
    known = np.flatnonzero(name >= 0)
    order = known[np.lexsort((name[known], first[known]))]
    same = (np.diff(first[order]) == 0) & (np.diff(name[order]) == 0)
    odd = np.r_[odd, first[order[1:]][same]]
    if stamps is not None:
        later = np.flatnonzero(first != np.arange(len(first))).tolist()
        odd = np.r_[odd, [first[k] for k in later if stamps[k] != stamps[first[k]]]]
    is_odd = np.zeros(len(first), bool)
    is_odd[odd.astype(np.int64)] = True
    return is_odd[first]
