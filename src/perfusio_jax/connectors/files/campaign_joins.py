"""Rows of one sample of a campaign table made one: repeats, gaps that are filled, rows close by."""

from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, REGISTRY, STREAM_TOTALS, DataError
from perfusio_jax._core.text import in_line

from ..tables.cells import parse_number, parse_numbers, qualified
from ..tables.file_rules import FileRules
from ..tables.joining import join, stay_apart
from ..tables.labels import TIMES
from ..tables.raw import Coded, Numbering, RawTable
from ..tables.settling import some
from .campaign_work import Work, hours_of


def join_samples(work: Work, rules: FileRules) -> None:
    """Make one row of those of one sample that lie minutes apart and do not differ."""
    table, within_h = work.table, rules.joins_within_h
    decisive = {*REGISTRY, *CONTROL_NAMES, *STREAM_TOTALS, *work.words.species}
    decisive |= set(work.words.controls)
    columns = [(n, name) for n, name in enumerate(table.header) if name in decisive]
    hours = _merge_repeats(work, rules, columns)
    if within_h <= 0.0 or hours is None:
        return
    gone: set[int] = set()
    joined: list[str] = []
    told_apart: dict[str, np.ndarray] = {}
    ids, of_id = work.named("sample_id")
    is_named = np.asarray([bool(text) for text in ids])[of_id]
    if not is_named.any() and work.closest(hours) > within_h:
        return  # as in nearly all tables
    rows = Rows(work, columns, rules.on_conflict == "last")
    for members in work.runs():
        order = members[np.argsort(hours[members], kind="stable")]
        times, has_ids = hours[order], bool(is_named[order].any())
        if not has_ids and not np.any(np.diff(times) <= within_h):
            continue  # nearly all runs
        told_apart = told_apart or {name: _kinds_of(table, n) for n, name in columns}
        values = {name: kinds[order] for name, kinds in told_apart.items()}
        if not has_ids and stay_apart(times, values, within_h) is not None:
            continue
        names = [ids[k] for k in of_id[order].tolist()]
        each = [rows.said(k, columns) for k in order.tolist()]
        for group in join(times.tolist(), names, each, within_h).groups:
            first = int(order[group[0]])
            for k in (int(order[other]) for other in group[1:]):
                rows.merge(first, k)
                gone.add(k)
                joined.append(
                    f"line {table.lines[k]} to line {table.lines[first]}, "
                    f"{hours[k] - hours[first]:.3g} h later"
                )
    if gone:
        has_ids = "sample_id" in table.header
        ids_too = " or of one sample_id" if has_ids else ""
        work.told.extend(some(f"rows within {within_h:g} h{ids_too}, joined to one sample", joined))
        rows.put()
        table.take(_others(gone, table.n_rows))


def _merge_repeats(
    work: Work, rules: FileRules, columns: Sequence[tuple[int, str]]
) -> np.ndarray | None:
    """Make one row of those of one run and time; times of the rows that stay [h]."""
    table, hours = work.table, hours_of(work)
    if hours is None or work.closest(hours) > 0.0:
        return hours
    repeats: list[np.ndarray] = []
    first_of = np.arange(table.n_rows)
    for members in work.runs():
        order = members[np.argsort(hours[members], kind="stable")]
        is_again = np.diff(hours[order]) == 0.0
        if is_again.any():  # few runs
            start = np.flatnonzero(np.r_[True, ~is_again])
            first_of[order] = np.repeat(order[start], np.diff(np.r_[start, len(order)]))
            repeats.append(order[1:][is_again])
    if not repeats:
        return hours
    again = np.concatenate(repeats)
    is_more = _say_more(table, again, first_of[again], {name for _, name in columns})
    rows = Rows(work, columns, rules.on_conflict == "last")
    filled: list[int] = []
    for k in again[is_more].tolist():
        before = rows.of(int(first_of[k])).copy()
        rows.merge(int(first_of[k]), k)
        if before != rows.of(int(first_of[k])):
            filled.append(k)
    rows.put()
    others = np.setdiff1d(again, filled)
    for what, gone in (
        ("rows that repeat another", again[np.isin(again, others)]),
        ("rows of one time, made one", np.asarray(filled, int)),
    ):
        shown = [
            f"line {table.lines[k]} and line {table.lines[first_of[k]]}" for k in gone[:3].tolist()
        ]
        work.told.extend(some(what, shown, gone.size))
    kept = _others(again, table.n_rows)
    table.take(kept)
    return hours[kept]


def _others(gone: Iterable[int], n: int) -> np.ndarray:
    is_kept = np.ones(n, bool)
    is_kept[[*gone]] = False
    return np.flatnonzero(is_kept)


def _say_more(
    table: RawTable, rows: np.ndarray, first: np.ndarray, decisive: Container[str]
) -> np.ndarray:
    """Rows that may say something the first of their time does not, or of which another may."""
    is_more = np.zeros(len(rows), bool)
    for n, name in enumerate(table.header):
        if name in TIMES:
            continue
        kinds = _kinds_of(table, n)
        one, other = kinds[first], kinds[rows]
        is_more |= ~np.isnan(other) & ((one != other) if name in decisive else np.isnan(one))
    return np.isin(first, first[is_more])


def _kinds_of(table: RawTable, column: int) -> np.ndarray:
    """Which of the different values of a column each row has; NaN for none."""
    found = table.column(column)
    number: dict[Any, float] = {None: np.nan}
    read = parse_numbers(found.cells, table.decimal)
    said = [
        _plain(cell, table.decimal) if isinstance(value, str) else value
        for cell, value in zip(found.cells, read, strict=True)
    ]
    return np.asarray([number.setdefault(one, float(len(number))) for one in said])[found.codes]


def _plain(cell: Any, decimal: str) -> Any:
    found = parse_number(cell, decimal)
    if not isinstance(found, str):
        return found
    said = qualified(found)
    number = None if said is None else parse_number(said.number, decimal)
    if said is None or not isinstance(number, float):
        return found
    return f"{said.sign}{number!r} {said.unit}"  # `<5` is `< 5,0`


class Rows:
    """Rows of a table that others of their sample are put into.

    Args:
        work: The table.
        columns: Number and name of those in which two values are a contradiction.
        is_last: Whether the later of two values counts.
    """

    def __init__(self, work: Work, columns: Sequence[tuple[int, str]], is_last: bool) -> None:
        self._work, self._is_last = work, is_last
        self._decisive = {n for n, _ in columns}
        self._read: dict[tuple[type, Any], Any] = {}
        self._changed: dict[int, list[Any]] = {}

    def of(self, k: int) -> list[Any]:
        """Cells of a row, with what was put into it."""
        return self._changed.get(k) or self._work.table.row(k)

    def said(self, k: int, columns: Sequence[tuple[int, str]]) -> dict[str, Any]:
        """What a row says in some columns, however it is written."""
        cells = self.of(k)
        return {name: self._plain(cells[n]) for n, name in columns}

    def _plain(self, cell: Any) -> Any:
        key = (type(cell), cell)
        if key not in self._read:
            self._read[key] = _plain(cell, self._work.table.decimal)
        return self._read[key]

    def merge(self, first: int, other: int) -> None:
        """Put the values of a row into an earlier one of the same sample.

        Raises:
            DataError: If they contradict each other, and the later does not count.
        """
        table = self._work.table
        row, more = list(self.of(first)), self.of(other)
        for n, name in enumerate(table.header):
            old, new = self._plain(row[n]), self._plain(more[n])
            if name in TIMES or new is None or new == old:
                continue
            if old is None:
                row[n] = more[n]
            elif n in self._decisive:
                text = (
                    f"{name} of one sample is {in_line(row[n])} in line {table.lines[first]} and "
                    f"{in_line(more[n])} in line {table.lines[other]}"
                )
                if not self._is_last:
                    raise DataError(
                        f"{text}; keep one of the two, or say that the later row counts "
                        "(--on-conflict last). A row after a feed is a bolus with --feeds bolus."
                    )
                self._work.told.append(f"{text}: the later row counts")
                row[n] = more[n]
        self._changed[first] = row

    def put(self) -> None:
        """Put the rows that changed into the table."""
        if not self._changed:
            return
        at = np.asarray([*self._changed])
        columns = []
        for n, column in enumerate(self._work.table.columns()):
            number = Numbering()
            for cell in column.cells:
                number[type(cell), cell]
            codes = column.codes.copy()
            codes[at] = [number[type(row[n]), row[n]] for row in self._changed.values()]
            columns.append(Coded([cell for _, cell in number], codes).of(np.arange(len(codes))))
        self._work.table.put_columns(columns)
