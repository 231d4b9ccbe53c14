"""Rows with nothing odd about them, taken in column by column: nearly all of a long table.

Each text of a column is read once, by what reads single cells, and the rest is arithmetic with
arrays. A row with something odd in it (its time, a limit of an assay, a time that occurs twice)
is left to whoever reads row by row, so that what is odd is treated in one place only.
"""

import datetime as dt
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax._core.instants import hours_between

from .cells import MISSING
from .labels import TIMES
from .raw import Coded, RawTable
from .row_times import RowTimes
from .run_rows import Key, Row, RunRows, SampleRows, or_nan
from .spreadsheet import unguard
from .stamps import is_ambiguous
from .tally import Tally

Reader = Callable[[str, Any, str], tuple[float | None, str, str]]
"""Name, cell and unit to value, quality and what is odd."""


class PlainRows(NamedTuple):
    """Rows that were taken in, and those that were not."""

    whose: list[tuple[str, str]]
    """Run and reactor, by number."""
    run: np.ndarray
    """Number of the run of each row."""
    times_h: np.ndarray
    """Time of each [h]."""
    lines: np.ndarray
    """Line of each."""
    last_lines: np.ndarray
    """Line of the last row that repeats it; its own where none does."""
    values: dict[str, np.ndarray]
    """Numbers by canonical name; NaN if missing."""
    stamps: list[dt.datetime | None] | None
    """When each was taken, where the table tells."""
    odd: dict[int, list[Any]]
    """Cells by number of the rows that are left to be read one by one."""
    repeats: dict[int, float]
    """Numbers and times [h] of rows that say nothing but what a plain one of their time says."""
    n_unordered: int
    """Rows earlier than one above them, the odd ones among them."""
    clones: dict[tuple[str, str], dict[str, None]]
    """Names of clones by run and reactor."""
    name_lines: dict[str, np.ndarray] | None = None
    """Line by canonical name, 0 where none says anything of it; None: that of the row."""
    names_of: Mapping[tuple[str, str], Iterable[str]] | None = None
    """Names that a run has, in their order; None: all of them."""

    def with_odd(self, odd: Mapping[Key, Row]) -> SampleRows:
        """All samples, with those that were read one by one."""
        extra = list(odd.values())
        number = {whose: n for n, whose in enumerate(self.whose)}
        whose = [*self.whose]
        for row in extra:
            if number.setdefault((row.run_id, row.reactor_id), len(whose)) == len(whose):
                whose.append((row.run_id, row.reactor_id))
        more = [number[row.run_id, row.reactor_id] for row in extra]
        run = np.concatenate([self.run, np.asarray(more, np.int64)])
        times = np.concatenate([self.times_h, [row.time_h for row in extra]])
        lines = np.concatenate([self.lines, np.asarray([row.line for row in extra], np.int64)])
        last_lines = np.concatenate([self.last_lines, lines[len(self.lines) :]])
        order = np.lexsort((times, run))
        bounds = np.flatnonzero(np.diff(run[order])) + 1
        n_plain = len(self.run)
        values = {
            name: np.concatenate([column, [or_nan(row.values.get(name)) for row in extra]])
            for name, column in self.values.items()
        }
        said = {  # what a row that is made already says of itself is not asked here
            name: np.concatenate([column, np.zeros(len(extra), np.int64)])
            for name, column in (self.name_lines or {}).items()
        }
        if not np.array_equal(order, np.arange(len(order))):
            values = {name: column[order] for name, column in values.items()}
            said = {name: column[order] for name, column in said.items()}
        stamps = self.stamps
        if stamps is not None:
            stamps = [*stamps, *(row.sampled_at for row in extra)]
        runs = []
        for begin, end in itertools.pairwise([0, *bounds.tolist(), len(order)]):
            if begin == end:  # there is no row at all
                continue
            part = order[begin:end]
            made = {int(k): extra[part[k] - n_plain] for k in np.flatnonzero(part >= n_plain)}
            vessel = whose[run[part[0]]]
            names = values if self.names_of is None else self.names_of[vessel]
            runs.append(
                RunRows(
                    *vessel,
                    times[part],
                    lines[part],
                    {name: values[name][begin:end] for name in names},
                    None if stamps is None else [stamps[k] for k in part.tolist()],
                    made,
                    last_lines[part],
                    {n: said[n][begin:end] for n in names} if self.name_lines else None,
                )
            )
        runs.sort(key=lambda found: int(found.lines.min()))  # as the file has them
        return SampleRows({(found.run_id, found.reactor_id): found for found in runs})


class PlainReader:
    """Takes in what is plain of a table.

    Args:
        table: Its cells.
        rows: Which of its rows.
        at: Column by canonical name.
        wide: Canonical name, unit and column of everything measured.
        tallies: Of every column.
        times: Reads times.
        read: Reads cells.
    """

    def __init__(
        self,
        table: RawTable,
        rows: Sequence[int],
        at: Mapping[str, int],
        wide: Sequence[tuple[str, str, int]],
        tallies: Sequence[Tally],
        times: RowTimes,
        read: Reader,
    ) -> None:
        self._table = table
        table.columns()  # so that a cell that is there more than once is looked at once
        self._numbers = np.asarray(rows, np.int64)
        self.lines = np.asarray([table.lines[k] for k in rows], np.int64)
        self._at, self._wide, self._tallies = at, wide, tallies
        self._times, self._read = times, read

    def column(self, n: int) -> Coded:
        """A column, of the rows that are read."""
        column = self._table.column(n)
        is_all = len(self._numbers) == len(column.codes)
        return column if is_all else column.of(self._numbers)

    def take(self) -> PlainRows:
        """Take them in; cells that are plain are counted, others are not. The table is let go.

        Raises:
            DataError: If the run of a row has no start to count from.
        """
        whose, run = self.runs()
        times_h, is_plain, is_dropped, stamps = self.hours(whose, run)
        clones = self.clones(whose, run, np.isfinite(times_h) & ~is_dropped)
        unordered = n_unordered(run[np.isfinite(times_h)], times_h[np.isfinite(times_h)])
        names, codes = self.texts("sample_id")
        is_plain &= np.asarray([not name for name in names])[codes]  # a name is for one row
        read = []
        for name, unit, n in self._wide:
            found = self.column(n)
            said = [self._read(name, cell, unit) for cell in found.cells]
            values = np.asarray([or_nan(value) for value, _, _ in said])
            is_odd = np.asarray([bool(problem) for _, _, problem in said])
            is_plain &= ~is_odd[found.codes]
            read.append((name, n, values, found.codes))
        first = first_of_time(run, times_h)
        is_plain &= ~self._is_more(first, is_plain, [(v, codes) for *_, v, codes in read], stamps)
        is_first = first == np.arange(len(first))
        kept, again = np.flatnonzero(is_plain & is_first), is_plain & ~is_first
        last_lines = self.lines.copy()
        last_lines[first] = self.lines
        values = {}
        while read:
            name, n, once, codes = read.pop(0)
            self.count(n, once[codes[is_plain]])
            values[name] = once[codes[kept]]
        rows = PlainRows(
            whose,
            run[kept],
            times_h[kept],
            self.lines[kept],
            last_lines[kept],
            values,
            None if stamps is None else [stamps[k] for k in kept.tolist()],
            {},
            dict(zip(self._numbers[again].tolist(), times_h[again].tolist(), strict=True)),
            unordered,
            clones,
        )
        return self.let_go(rows, is_plain, is_dropped)

    def let_go(self, rows: PlainRows, is_plain: np.ndarray, is_dropped: np.ndarray) -> PlainRows:
        """Count what was taken in, and hold of the table no more than what is odd."""
        self._count_times(is_plain)
        odd = np.flatnonzero(~is_plain & ~is_dropped)
        cells = {int(self._numbers[k]): self._table.row(int(self._numbers[k])) for k in odd}
        self._table.clear()
        return rows._replace(odd=cells)

    def _is_more(
        self,
        first: np.ndarray,
        is_plain: np.ndarray,
        read: Sequence[tuple[np.ndarray, np.ndarray]],
        stamps: Sequence[dt.datetime | None] | None,
    ) -> np.ndarray:
        """Rows of a time of which one says something the first of them does not, or is odd."""
        later = np.flatnonzero(first != np.arange(len(first)))
        before = first[later]
        is_more = ~is_plain[later] | ~is_plain[before]
        for once, codes in read:
            values = once[codes[later]]
            is_more |= ~(np.isnan(values) | (values == once[codes[before]]))
        if stamps is not None:
            pairs = zip(later.tolist(), before.tolist(), strict=True)
            is_more |= np.asarray([stamps[k] != stamps[n] for k, n in pairs], bool)
        found = np.zeros(len(first), bool)
        found[before[is_more]] = True  # all rows of that time are left to be read one by one
        return found[first]

    def texts(self, name: str) -> tuple[list[str], np.ndarray]:
        """Texts of a column, and which of them every row has; empty ones if there is none."""
        column = self._at.get(name)
        if column is None:
            return [""], np.zeros(len(self._numbers), np.int32)
        found = self.column(column)
        return found.texts(), found.codes

    def runs(self) -> tuple[list[tuple[str, str]], np.ndarray]:
        """Run and reactor by number, and the number of every row."""
        (runs, run_codes), (vessels, vessel_codes) = map(self.texts, ("run_id", "reactor_id"))
        pair = run_codes.astype(np.int64) * len(vessels) + vessel_codes
        number: dict[tuple[str, str], int] = {}
        found, codes = np.unique(pair, return_inverse=True)
        renamed = [
            number.setdefault(
                (unguard(runs[p // len(vessels)]), unguard(vessels[p % len(vessels)])), len(number)
            )
            for p in found.tolist()
        ]
        return list(number), np.asarray(renamed, np.int64)[codes]

    def hours(
        self, whose: Sequence[tuple[str, str]], run: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dt.datetime | None] | None]:
        """Time of every row [h], NaN where it is odd; plain rows, rows nobody asked for, stamps."""
        n = len(self._numbers)
        is_plain, is_dropped = np.ones(n, bool), np.zeros(n, bool)
        stamps = self._stamps(is_plain) if "sampled_at" in self._at else None
        times_h = np.full(n, np.nan)
        if self._times.are_counted:
            starts = {int(r): self._times.start_of(*whose[r]) for r in dict.fromkeys(run.tolist())}
            for k, r in enumerate(run.tolist()):
                start, stamp = starts[r], stamps[k] if stamps else None
                if start is None:
                    is_dropped[k] = True
                elif stamp is not None:
                    times_h[k] = _hours_since(start, stamp)
        else:
            found = {}
            for name in (name for name in TIMES if name in self._at):
                column = self.column(self._at[name])
                once = self._times.plain_hours(name, column.cells)
                found[name] = np.asarray(once, float)[column.codes]
            times_h = found.get("time_h", found.get("day", times_h))
            if len(found) == 2:
                is_one = np.abs(found["day"] - found["time_h"]) <= 0.5 * HOURS_PER_DAY
                times_h = np.where(is_one, times_h, np.nan)
        is_plain &= np.isfinite(times_h) & ~is_dropped
        return times_h, is_plain, is_dropped, stamps

    def _stamps(self, is_plain: np.ndarray) -> list[dt.datetime | None]:
        """Time stamps; rows where one is odd are plain no more."""
        texts, codes = self.texts("sampled_at")
        once: list[dt.datetime | None] = []
        is_odd = np.zeros(len(texts), bool)
        for k, text in enumerate(texts):
            stamp = None
            if text.casefold() not in MISSING:
                try:
                    stamp = self._times.read_stamp(text)
                    is_odd[k] = is_ambiguous(stamp)
                    stamp = stamp.astimezone(dt.UTC)
                except DataError:  # whoever reads the row says what is wrong with it
                    is_odd[k] = True
            once.append(stamp)
        is_plain &= ~is_odd[codes]
        return [once[k] for k in codes.tolist()]

    def clones(
        self, whose: Sequence[tuple[str, str]], run: np.ndarray, counts: np.ndarray
    ) -> dict[tuple[str, str], dict[str, None]]:
        """Clones of every run, in the order of the rows."""
        names, codes = self.texts("clone_id")
        found: dict[tuple[str, str], dict[str, None]] = {}
        pairs = run * len(names) + codes
        for pair in dict.fromkeys(pairs[counts].tolist()):
            if name := names[pair % len(names)]:
                found.setdefault(whose[pair // len(names)], {})[name] = None
        return found

    def count(self, column: int, values: np.ndarray, *more: Tally) -> None:
        """Count values that were read of a column.

        Args:
            column: Its number.
            values: All of them, NaN if missing.
            *more: What else they are counted in.
        """
        known = values[~np.isnan(values)]
        for tally in (self._tallies[column], *more):
            tally.n_missing += len(values) - len(known)
            if len(known):
                tally.take_plain(float(known.min()))
                tally.take_plain(float(known.max()))
                tally.n_values += len(known) - 2

    def _count_times(self, is_plain: np.ndarray) -> None:
        n = int(is_plain.sum())
        if not self._times.are_counted:
            for name in (name for name in TIMES if name in self._at):
                self._tallies[self._at[name]].n_values += n
        if "sampled_at" in self._at:
            texts, codes = self.texts("sampled_at")
            is_told = np.asarray([text.casefold() not in MISSING for text in texts])
            self._tallies[self._at["sampled_at"]].n_values += int(is_told[codes[is_plain]].sum())


def _hours_since(start: dt.datetime, stamp: dt.datetime) -> float:
    """Hours from one to the other [h]; NaN before it."""
    hours = hours_between(stamp, start)
    return hours if hours >= 0.0 else math.nan


def first_of_time(run: np.ndarray, times_h: np.ndarray) -> np.ndarray:
    """The first row of the run and time of each row; a row without a time is its own."""
    order = np.lexsort((times_h, run))  # rows of one time stay in their order
    same = (np.diff(run[order]) == 0) & (np.diff(times_h[order]) == 0.0)
    start = np.r_[0, 1 + np.flatnonzero(~same)] if len(order) else order
    first = np.empty(len(run), np.int64)
    first[order] = np.repeat(order[start], np.diff(np.r_[start, len(order)]))
    return first


def n_unordered(run: np.ndarray, times_h: np.ndarray) -> int:
    """Rows earlier than one of their run above them."""
    order = np.argsort(run, kind="stable")
    bounds = np.flatnonzero(np.diff(run[order])) + 1
    return sum(
        int(np.sum(part < np.maximum.accumulate(part)))
        for part in np.split(times_h[order], bounds)
        if part.size
    )
