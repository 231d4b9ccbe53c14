"""Rows of one sample of a campaign table made one: repeats, gaps that are filled, rows close by."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, REGISTRY, STREAM_TOTALS, DataError
from perfusio_jax._core.text import in_line

from ..tables.cells import parse_number, qualified
from ..tables.columns import TIMES
from ..tables.file_rules import FileRules
from ..tables.joining import join, stay_apart
from ..tables.raw import RawTable, coded
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
    for members in work.runs():
        order = sorted(members, key=lambda k: hours[k])
        ids = [work.text(table.rows[k], "sample_id") for k in order]
        times = np.asarray([hours[k] for k in order])
        if not any(ids) and not np.any(np.diff(times) <= within_h):
            continue  # nearly all runs
        told_apart = told_apart or {name: _kinds_of(table, n) for n, name in columns}
        values = {name: kinds[order] for name, kinds in told_apart.items()}
        if not any(ids) and stay_apart(times, values, within_h) is not None:
            continue
        values = [{n: _plain(table.rows[k][c], table.decimal) for c, n in columns} for k in order]
        for group in join([hours[k] for k in order], ids, values, within_h).groups:
            first = order[group[0]]
            for k in (order[other] for other in group[1:]):
                _merge(work, first, k, columns, rules.on_conflict == "last")
                gone.add(k)
                joined.append(
                    f"line {table.lines[k]} to line {table.lines[first]}, "
                    f"{hours[k] - hours[first]:.3g} h later"
                )
    if gone:
        has_ids = "sample_id" in table.header
        ids_too = " or of one sample_id" if has_ids else ""
        work.told.extend(some(f"rows within {within_h:g} h{ids_too}, joined to one sample", joined))
        _leave_out(table, gone)


def _merge_repeats(
    work: Work, rules: FileRules, columns: Sequence[tuple[int, str]]
) -> list[float] | None:
    """Make one row of those of one run and time; times of the rows that stay [h]."""
    table, hours = work.table, hours_of(work)
    if hours is None:
        return None
    gone: set[int] = set()
    repeats, filled = [], []
    for members in work.runs():
        times = np.asarray([hours[k] for k in members])
        order = np.argsort(times, kind="stable")
        if np.all(np.diff(times[order]) > 0.0):
            continue  # nearly all runs
        first = members[int(order[0])]
        for k in (members[n] for n in order[1:].tolist()):
            if hours[k] != hours[first]:
                first = k
                continue
            before = list(table.rows[first])
            _merge(work, first, k, columns, rules.on_conflict == "last")
            text = f"line {table.lines[k]} and line {table.lines[first]}"
            (repeats if before == table.rows[first] else filled).append(text)
            gone.add(k)
    work.told.extend(some("rows that repeat another", repeats))
    work.told.extend(some("rows of one time, made one", filled))
    _leave_out(table, gone)
    return [time for k, time in enumerate(hours) if k not in gone]


def _leave_out(table: RawTable, gone: set[int]) -> None:
    if not gone:
        return
    kept = [k for k in range(len(table.rows)) if k not in gone]
    table.rows[:] = [table.rows[k] for k in kept]
    table.lines[:] = [table.lines[k] for k in kept]


def _kinds_of(table: RawTable, column: int) -> np.ndarray:
    """Which of the different values of a column each row has; NaN for none."""
    found = coded(table.rows, column)
    number: dict[Any, float] = {None: np.nan}
    once = [
        number.setdefault(_plain(cell, table.decimal), float(len(number))) for cell in found.cells
    ]
    return np.asarray(once)[found.codes]


def _plain(cell: Any, decimal: str) -> Any:
    found = parse_number(cell, decimal)
    if not isinstance(found, str):
        return found
    said = qualified(found)
    number = None if said is None else parse_number(said.number, decimal)
    if said is None or not isinstance(number, float):
        return found
    return f"{said.sign}{number!r} {said.unit}"  # `<5` is `< 5,0`


def _merge(
    work: Work, first: int, other: int, columns: Sequence[tuple[int, str]], is_last: bool
) -> None:
    """Put the values of a row into an earlier one of the same sample."""
    table = work.table
    row, more = table.rows[first], table.rows[other]
    decisive = {n for n, _ in columns}
    for n, name in enumerate(table.header):
        old, new = _plain(row[n], table.decimal), _plain(more[n], table.decimal)
        if name in TIMES or new is None or new == old:
            continue
        if old is None:
            row[n] = more[n]
        elif n in decisive:
            text = (
                f"{name} of one sample is {in_line(row[n])} in line {table.lines[first]} and "
                f"{in_line(more[n])} in line {table.lines[other]}"
            )
            if not is_last:
                raise DataError(
                    f"{text}; keep one of the two, or say that the later row counts "
                    "(--on-conflict last). A row after a feed is a bolus with --feeds bolus."
                )
            work.told.append(f"{text}: the later row counts")
            row[n] = more[n]
