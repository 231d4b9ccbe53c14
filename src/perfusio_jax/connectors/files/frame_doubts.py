"""What is odd about the runs of a campaign table: totals that count on, feeds, strange values.

Each finding is a sentence; nothing here refuses a table.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, STREAM_TOTALS

from ..tables.doubts import dead_and_alive, feeds, hours_called_days, too_fast
from ..tables.joining import DEFAULT_JOIN_H
from ..tables.totals import RATE_OF, Totals, judge, settle
from ..tables.vocabulary import OURS, Vocabulary
from .frame_columns import Where
from .frame_run import Run

_FEEDS: Final = 6
"""Feeds of one run that are named; the others are counted."""


def settle_totals(
    whose: str,
    rows: np.ndarray,
    numbers: dict[str, np.ndarray],
    times: np.ndarray,
    kinds: Totals | Mapping[str, str],
    where: Where,
) -> list[str]:
    """Difference the totals that are counters, and leave out those that look like one."""
    odd = []
    for name in (n for n in STREAM_TOTALS if n in numbers):
        settled = settle(
            name,
            numbers[name][rows],
            times[rows],
            kind=kinds if isinstance(kinds, str) else kinds.get(name),
            where=lambda k: where(int(rows[k])),
            rate=_of(numbers, RATE_OF.get(name), rows),
            volume_L=_of(numbers, "volume_L", rows),
        )
        numbers[name] = numbers[name].copy()
        numbers[name][rows] = settled.values
        odd += [f"{whose}{text}." for text in (settled.note, settled.doubt) if text]
    return odd


def _of(numbers: Mapping[str, np.ndarray], name: str | None, rows: np.ndarray) -> np.ndarray | None:
    return None if name is None or name not in numbers else numbers[name][rows]


def look_at(
    whose: str,
    rows: np.ndarray,
    numbers: Mapping[str, np.ndarray],
    times: np.ndarray,
    where: Where,
    words: Vocabulary = OURS,
) -> list[str]:
    """What no culture does, and feeds."""
    hours = times[rows]
    species = {
        name: numbers[name][rows]
        for name in ("VCD", "Glc", "Gln", "Pyr")
        if name in numbers and words.is_ours(name)
    }
    fed = feeds(hours, species)
    found = [f"{text} ({where(int(rows[k]))})" for k, text in fed[:_FEEDS]]
    if len(fed) > _FEEDS:
        found.append(f"and {len(fed) - _FEEDS} more feeds like these")
    near = np.flatnonzero(np.diff(times[rows]) <= DEFAULT_JOIN_H) + 1
    close = sorted({*near.tolist()} - {k for k, _ in fed})
    if close:
        found.append(
            f"{len(close)} row(s) follow the one before within {DEFAULT_JOIN_H:g} h and stay "
            f"samples of their own ({where(int(rows[close[0]]))}): right if they were taken apart; "
            "of one sample, make them one row."
        )
    if "time_h" not in numbers:
        odd = hours_called_days(numbers["day"][rows].tolist())
    else:
        odd = too_fast(hours, species["VCD"]) if "VCD" in species else ""
    dead = ""
    if "VCD" in species and "Via" in numbers and words.is_ours("Via"):
        dead = dead_and_alive(numbers["Via"][rows], species["VCD"])
    return [f"{whose}{text}" for text in (*found, odd, dead) if text]


def two_times(
    whose: str, rows: np.ndarray, numbers: Mapping[str, np.ndarray], where: Where
) -> list[str]:
    """Rows whose day is not that of their time."""
    if not {"time_h", "day"} <= set(numbers):
        return []
    days, times = numbers["day"][rows], numbers["time_h"][rows]
    apart = np.flatnonzero(np.abs(days * HOURS_PER_DAY - times) > 0.5 * HOURS_PER_DAY)
    if apart.size == 0:
        return []
    first = int(apart[0])
    return [
        f"{whose}day and time_h are not the same day in {apart.size} row(s) (day {days[first]:g} "
        f"and {times[first]:g} h in {where(int(rows[first]))}); time_h says when it was, day what "
        "it is called."
    ]


def rising_totals(runs: Sequence[Run]) -> list[str]:
    """Stream totals that would be taken for counters if nobody said that they are none."""
    found = []
    for column, name in enumerate(STREAM_TOTALS):
        for run in runs:
            names = run.control_names
            control = RATE_OF.get(name, "")
            verdict = judge(
                name,
                np.asarray(run.stream_totals)[:, column],
                np.asarray(run.times_h),
                rate=np.asarray(run.controls)[:, names.index(control)]
                if control in names
                else None,
                volume_L=np.asarray(run.volume_L),
            )
            if verdict.text:
                found.append(name)
                break
    return found


def strange(numbers: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Values that are legal and cannot be: above 100 %, more bleed than perfusion."""
    found = []
    for name in ("Via", "VCV"):
        above = int(np.sum(numbers.get(name, np.zeros(0)) > 100.0))
        if above:
            found.append(f"{name} is above 100 % in {above} row(s).")
    if "bleed_rate" in numbers and "perfusion_rate" in numbers:
        above = int(np.sum(numbers["bleed_rate"] > numbers["perfusion_rate"]))
        if above:
            found.append(f"bleed_rate is above perfusion_rate in {above} row(s).")
    return tuple(found)


def implausible(
    spans: Mapping[str, tuple[float, float]], told: Sequence[str], words: Vocabulary = OURS
) -> list[str]:
    """Columns with values no culture has, but for those of which that is told already."""
    found = [
        (name, words.doubt(name, float(low), float(high))) for name, (low, high) in spans.items()
    ]
    known = {text.split(" ", 1)[0] for text in told}
    return [f"{name} is {text}" for name, text in found if text and name not in known]


def count_missing(numbers: Mapping[str, np.ndarray], columns: Sequence[str]) -> dict[str, int]:
    """Missing values per column that has some and is not empty."""
    counts = {n: int(np.sum(np.isnan(numbers[n]))) for n in columns}
    return {n: count for n, count in counts.items() if 0 < count < len(numbers[n])}
