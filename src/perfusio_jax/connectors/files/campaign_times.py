"""When the rows of a campaign table were taken, and which run they are of."""

import math
import zoneinfo

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.instants import hours_between

from ..tables.cell_doubts import late_start
from ..tables.columns import TIMES
from ..tables.doubts import clocks_apart
from ..tables.file_rules import FileRules
from ..tables.settling import some
from ..tables.stamps import find_order, is_ambiguous, read_stamp, zone_of
from .campaign_work import Work, hours_of
from .opening import Opened


def count_hours(work: Work, opened: Opened, rules: FileRules) -> None:
    """Hours since the start of the run from time stamps, where the table has no other time."""
    table, stamps = work.table, work.at("sampled_at")
    stated = [name for name in TIMES if name in table.header]
    if stated and rules.negative_time == "refuse":
        early = [k for k, hours in enumerate(hours_of(work) or ()) if hours < 0.0]
        if early:
            raise DataError(
                f"{stated[0]} in line {table.lines[early[0]]} is from before the inoculation; such "
                "rows are refused (negative_time)."
            )
    if stated or stamps is None:
        if stated and rules.inoculated_at is not None:
            work.told.append(
                f"the start that was given is not used: the times are those of {stated[0]}"
            )
        if stated and stamps is not None:
            _compare_clocks(work, opened, rules)
        return
    if opened.starts is None:
        raise DataError(
            "has time stamps (sampled_at) and neither day nor time_h; say when the run began "
            "(--inoculated-at, or RUN=TIME once for each run)."
        )
    zone = zone_of(rules.time_zone)
    order = opened.date_order or find_order(str(row[stamps] or "") for row in table.rows)
    so_far: set[tuple[str, str]] = set()
    early, kept, twice = [], [], []
    for k, (row, line) in enumerate(zip(table.rows, table.lines, strict=True)):
        start = opened.starts.find(work.text(row, "run_id"), work.text(row, "reactor_id"), so_far)
        text = work.text(row, "sampled_at")
        if not text:
            raise DataError(f"sampled_at is missing in line {line}; the time comes from it.")
        stamp = read_stamp(text, f"sampled_at in line {line}", zone, order)
        if start is None:
            continue
        if is_ambiguous(stamp):
            twice.append(f"{text} in line {line}")
        hours = hours_between(stamp, start)
        row.append(hours)
        if hours < 0.0 and rules.negative_time != "keep":
            early.append(
                f"sampled_at in line {line} is {-hours:.4g} h before the inoculation at "
                f"{start.isoformat()}"
            )
        else:
            kept.append(k)
    if early and rules.negative_time == "refuse":
        raise DataError(f"{early[0]}; such rows are refused (negative_time).")
    if early and not kept:
        raise DataError(f"{early[0]}; so is every other row.")
    work.told.extend(some("rows from before the inoculation, left out", early))
    work.told.extend(some("stamps of the hour that occurs twice, the first of them meant", twice))
    first: dict[str, float] = {}
    for k in kept:
        whose = work.text(table.rows[k], "run_id") or work.text(table.rows[k], "reactor_id")
        first[whose] = min(table.rows[k][-1], first.get(whose, math.inf))
    for whose, hours in first.items():
        if odd := late_start(hours):
            work.told.append(f"run {whose}: {odd}" if whose else odd)
    table.header.append("time_h")
    table.rows[:] = [table.rows[k] for k in kept]
    table.lines[:] = [table.lines[k] for k in kept]


def _compare_clocks(work: Work, opened: Opened, rules: FileRules) -> None:
    """Tell of time stamps that do not go with the times of their rows."""
    table, hours = work.table, hours_of(work)
    if hours is None:
        return
    texts = work.texts("sampled_at")
    # only how far they are apart counts, so any zone will do where none is known
    zone = zone_of(rules.time_zone) or zoneinfo.ZoneInfo("UTC")
    try:
        order = opened.date_order or find_order(texts)
    except DataError:  # nor is the order of stamps nobody needs
        return
    read: dict[str, float] = {}
    for text in dict.fromkeys(texts):
        try:
            read[text] = read_stamp(text, "sampled_at", zone, order).timestamp() / 3600.0
        except DataError:  # neither is the stamp itself
            read[text] = np.nan
    stamps = np.asarray([read[text] for text in texts])
    name = next(n for n in ("time_h", "day") if n in table.header)
    for members in work.runs():
        lines = [table.lines[k] for k in members]
        whose = work.text(table.rows[members[0]], "run_id")
        times = np.asarray([hours[k] for k in members])
        odd = clocks_apart(times, stamps[members], lambda k, at=lines: f"line {at[k]}", name)
        if odd:
            work.told.append(f"run '{whose}': {odd}" if whose else odd)


def name_runs(work: Work, run_name: str) -> None:
    """A run for every row, where the table has no column of runs."""
    table = work.table
    if "run_id" in table.header or not any(name in table.header for name in TIMES):
        return
    vessel = work.at("reactor_id")
    if vessel is not None and all(work.text(row, "reactor_id") for row in table.rows):
        names = [work.text(row, "reactor_id") for row in table.rows]
        many = len(set(names))
        work.told.append(f"there is no column run_id; each of {many} reactor(s) is taken for a run")
    else:
        names = [run_name] * len(table.rows)
        work.told.append(f"there is no column run_id; it is taken for one run, '{run_name}'")
    table.header.append("run_id")
    for row, name in zip(table.rows, names, strict=True):
        row.append(name)
