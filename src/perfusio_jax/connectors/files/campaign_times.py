"""When the rows of a campaign table were taken, and which run they are of."""

import datetime as dt
import math
import zoneinfo

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.instants import hours_between

from ..tables.cell_doubts import late_start
from ..tables.doubts import clocks_apart
from ..tables.file_rules import FileRules
from ..tables.labels import TIMES
from ..tables.raw import Coded
from ..tables.settling import some
from ..tables.stamps import find_order, is_ambiguous, read_stamp, zone_of
from .campaign_work import Work, hours_of
from .opening import Opened


def count_hours(work: Work, opened: Opened, rules: FileRules) -> None:
    """Hours since the start of the run from time stamps, where the table has no other time."""
    table, stamps = work.table, work.at("sampled_at")
    stated = [name for name in TIMES if name in table.header]
    if stated and rules.negative_time == "refuse":
        hours = hours_of(work)
        early = [] if hours is None else np.flatnonzero(hours < 0.0).tolist()
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
    cells = table.column(stamps).cells
    order = opened.date_order or find_order(str(cell or "") for cell in cells)
    so_far: set[tuple[str, str]] = set()
    early, kept, times, twice = [], [], [], []
    starts: dict[tuple[str, str], dt.datetime | None] = {}
    read: dict[str, dt.datetime] = {}
    first: dict[tuple[str, str], float] = {}
    whose = zip(work.texts("run_id"), work.texts("reactor_id"), strict=True)
    rows = zip(whose, work.texts("sampled_at"), table.lines, strict=True)
    for k, (vessel, text, line) in enumerate(rows):
        if vessel not in starts:
            starts[vessel] = opened.starts.find(*vessel, so_far)
        start = starts[vessel]
        if not text:
            raise DataError(f"sampled_at is missing in line {line}; the time comes from it.")
        if text not in read:
            read[text] = read_stamp(text, f"sampled_at in line {line}", zone, order)
        if start is None:
            continue
        if is_ambiguous(read[text]):
            twice.append(f"{text} in line {line}")
        hours = hours_between(read[text], start)
        if hours < 0.0 and rules.negative_time != "keep":
            early.append(
                f"sampled_at in line {line} is {-hours:.4g} h before the inoculation at "
                f"{start.isoformat()}"
            )
        else:
            kept.append(k)
            times.append(hours)
            first[vessel] = min(hours, first.get(vessel, math.inf))
    if early and rules.negative_time == "refuse":
        raise DataError(f"{early[0]}; such rows are refused (negative_time).")
    if early and not kept:
        raise DataError(f"{early[0]}; so is every other row.")
    work.told.extend(some("rows from before the inoculation, left out", early))
    work.told.extend(some("stamps of the hour that occurs twice, the first of them meant", twice))
    for (run, reactor), begins in first.items():
        if odd := late_start(begins):
            work.told.append(f"run {run or reactor}: {odd}" if run or reactor else odd)
    table.take(np.asarray(kept, np.int64))
    table.add_column("time_h", Coded.of_cells(times))


def _compare_clocks(work: Work, opened: Opened, rules: FileRules) -> None:
    """Tell of time stamps that do not go with the times of their rows."""
    table, hours = work.table, hours_of(work)
    if hours is None:
        return
    texts, codes = work.named("sampled_at")
    # only how far they are apart counts, so any zone will do where none is known
    zone = zone_of(rules.time_zone) or zoneinfo.ZoneInfo("UTC")
    try:
        order = opened.date_order or find_order(texts)
    except DataError:  # nor is the order of stamps nobody needs
        return
    read: dict[str, float] = {}
    for text in texts:
        try:
            read[text] = read_stamp(text, "sampled_at", zone, order).timestamp() / 3600.0
        except DataError:  # neither is the stamp itself
            read[text] = np.nan
    stamps = np.asarray([read[text] for text in texts], float)[codes]
    name = next(n for n in ("time_h", "day") if n in table.header)
    for members in work.runs():
        whose = work.text(members[0], "run_id")
        line = lambda k, rows=members: f"line {table.lines[rows[k]]}"  # noqa: E731
        odd = clocks_apart(hours[members], stamps[members], line, name)
        if odd:
            work.told.append(f"run '{whose}': {odd}" if whose else odd)


def name_runs(work: Work, run_name: str) -> None:
    """A run for every row, where the table has no column of runs."""
    table = work.table
    if "run_id" in table.header or not any(name in table.header for name in TIMES):
        return
    names, codes = work.named("reactor_id")
    if work.at("reactor_id") is not None and "" not in names:
        work.told.append(
            f"there is no column run_id; each of {len(names)} reactor(s) is taken for a run"
        )
    else:
        names, codes = [run_name], np.zeros(table.n_rows, np.int32)
        work.told.append(f"there is no column run_id; it is taken for one run, '{run_name}'")
    table.add_column("run_id", Coded(list(names), codes))
