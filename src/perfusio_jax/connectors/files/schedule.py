"""Tables of set-points that change within runs: written by a proposal, run by people and models.

One row per sample, in the columns of a campaign table: `run_id`, `clone_id`, `time_h`, and a column
per control with its unit in the second row. A row holds until the next; what is given once, as a
bolus, is given at its row. The last row of a run says when it ends.
"""

import csv
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import DataError
from perfusio_jax._core.text import plain_number
from perfusio_jax._core.units import canonical_unit

from ..tables.delimited import text_rows

TIME = "time_h"
_SAME_H = 1e-6


class Schedule(NamedTuple):
    """Set-points of one run over time."""

    run_id: str
    """Name of the run; empty if it has none."""
    clone_id: str
    """Clone it is for; empty if nobody says."""
    times_h: Float[np.ndarray, " T"]
    """Time of each row since the run began, rising [h]; the last is its end."""
    rows: Float[np.ndarray, "T M"]
    """What holds from each row on."""

    def during(self, edges_h: Float[np.ndarray, " T"], once: Sequence[int] = ()) -> np.ndarray:
        """Set-points of intervals.

        Args:
            edges_h: Times between which the intervals lie [h].
            once: Columns of what is given once: it counts in the interval that holds its row.

        Returns:
            Mean over each interval, and the sum of what is given in it, `(T - 1, M)`; the last
            row goes on where an interval ends later.
        """
        edges = np.asarray(edges_h, float)
        begins, ends = self.times_h[:-1], np.append(self.times_h[1:-1], np.inf)
        overlap = np.minimum(edges[1:, None], ends[None, :])
        overlap = np.maximum(overlap - np.maximum(edges[:-1, None], begins[None, :]), 0.0)
        held = self.rows[:-1]
        found = overlap @ held / np.maximum(overlap.sum(axis=1), _SAME_H)[:, None]
        for column in once:
            low, high = edges[:-1, None] - _SAME_H, edges[1:, None] - _SAME_H
            falls = (begins[None, :] >= low) & (begins[None, :] < high)
            found[:, column] = falls @ held[:, column]
        return found


def schedule_of(
    run_id: str, clone_id: str, plan: Float[np.ndarray, "H M"], lengths_h: Float[np.ndarray, " H"]
) -> Schedule:
    """A plan of steps as a schedule.

    Args:
        run_id: Name of the run.
        clone_id: Clone it is for.
        plan: Set-points of every step.
        lengths_h: Length of every step [h].
    """
    ends = np.concatenate([[0.0], np.cumsum(np.asarray(lengths_h, float))])
    table = np.asarray(plan, float)
    return Schedule(run_id, clone_id, ends, np.concatenate([table, table[-1:]]))


def ahead_of(
    schedule: Schedule, now_h: float, hours: Sequence[float], once: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Hours of a forecast from now on with the changes of a schedule among them.

    Args:
        schedule: Set-points since the run began.
        now_h: Time of the last sample [h].
        hours: Hours ahead that were asked for, rising [h].
        once: Columns of what is given once.

    Returns:
        Hours ahead, and set-points of the interval that ends at each.

    Raises:
        DataError: If the schedule has ended by now.
    """
    if now_h >= schedule.times_h[-1] - _SAME_H:
        raise DataError(
            f"the schedule of run {schedule.run_id or '(no name)'} ends at "
            f"{schedule.times_h[-1]:g} h, and the last sample is of {now_h:g} h: it says nothing "
            "of what is to come."
        )
    asked = np.asarray(hours, float)
    within = schedule.times_h[1:-1] - now_h
    moves = np.any(np.diff(schedule.rows[:-1], axis=0) != 0.0, axis=1)
    gives = np.any(schedule.rows[1:-1][:, list(once)] != 0.0, axis=1)
    inside = (within > _SAME_H) & (within < asked[-1]) & (moves | gives)
    both = np.sort(np.concatenate([asked, within[inside]]))
    ends = both[np.diff(both, prepend=-np.inf) > _SAME_H]
    return ends, schedule.during(now_h + np.append(0.0, ends), once)


def on_samples(
    path: Path, schedules: Sequence[Schedule], every_h: float, once: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Sampling times of runs, and their set-points between them.

    Args:
        path: The table, for messages.
        schedules: Set-points of each run.
        every_h: Hours between samples [h].
        once: Columns of what is given once.

    Returns:
        Times `(T + 1,)` [h], and set-points `(runs, T, M)`.

    Raises:
        DataError: If runs end at different times, or something is set between two samples.
    """
    ends = sorted({float(one.times_h[-1]) for one in schedules})
    if len(ends) > 1:
        raise DataError(
            f"schedule {path}: its runs end at {', '.join(f'{end:g}' for end in ends)} h; "
            "runs that are simulated together end together. Take them apart."
        )
    n = round(ends[0] / every_h)
    edges = every_h * np.arange(n + 1)
    for one in schedules:
        off = [hour for hour in one.times_h if np.min(np.abs(edges - hour)) > _SAME_H]
        if off:
            raise DataError(
                f"schedule {path}, run {one.run_id or '(no name)'}: something is set at "
                f"{off[0]:g} h, between samples {every_h:g} h apart; --every says how often "
                "samples are taken."
            )
    return edges, np.stack([one.during(edges, once) for one in schedules])


def is_schedule(path: Path) -> bool:
    """Whether a file has a column of times, so that it holds set-points that change."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    return TIME in header


def write_schedules(
    path: Path,
    schedules: Sequence[Schedule],
    names: Sequence[str],
    unit_of: Callable[[str], str] = canonical_unit,
    *,
    once: Collection[str] = (),
) -> None:
    """Write schedules as a table, one row per sample.

    Args:
        path: CSV file.
        schedules: Set-points of each run, columns in the order of the names.
        names: Controls.
        unit_of: Unit of a control.
        once: Controls that are given once: the last row, at which a run ends, gives none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run_id", "clone_id", TIME, *names])
        writer.writerow(["", "", "h", *(unit_of(name) for name in names)])
        for one in schedules:
            for t, (hour, row) in enumerate(zip(one.times_h, one.rows, strict=True)):
                ends = t + 1 == len(one.rows)
                cells = [
                    "0" if ends and name in once else f"{value:.6g}"
                    for name, value in zip(names, row, strict=True)
                ]
                writer.writerow([one.run_id, one.clone_id, f"{hour:.10g}", *cells])


def read_schedules(
    path: Path, names: Sequence[str], unit_of: Callable[[str], str] = canonical_unit
) -> list[Schedule]:
    """Schedules from a table, as `write_schedules` writes it.

    Args:
        path: CSV file with `time_h` and a column per control; other columns are not read. A second
            row may state units, which are those of the controls. A blank set-point stays as it
            was.
        names: Controls, in the order wanted.
        unit_of: Unit of a control.

    Returns:
        One per run, in the order of the file.

    Raises:
        DataError: If the file is none, lacks a column, states another unit, holds a cell that is
            no finite number, or a run has no two times that rise.
    """
    rows, header = text_rows(path, "schedule")
    lost = [name for name in (TIME, *names) if name not in header]
    if lost:
        raise DataError(
            f"schedule {path} lacks the columns {', '.join(lost)}; it has one row per change, with "
            f"{TIME} and a column per control."
        )
    found: dict[str, list[tuple[float, list[float]]]] = {}
    clones: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if number == 2 and (row.get(TIME) or "").strip() == "h":
            _check_units(path, row, names, unit_of)
            continue
        run_id = (row.get("run_id") or "").strip()
        clones.setdefault(run_id, (row.get("clone_id") or "").strip())
        before = found.setdefault(run_id, [])
        hour = _cell(path, number, row, TIME, None)
        last = before[-1][1] if before else [None] * len(names)
        values = [
            _cell(path, number, row, name, old) for name, old in zip(names, last, strict=True)
        ]
        if before and not hour > before[-1][0]:
            raise DataError(
                f"{path}, line {number}: {TIME} {hour:g} of run {run_id or '(no name)'} does not "
                f"come after {before[-1][0]:g}; rows of a run stand in the order of time."
            )
        before.append((hour, values))
    short = [name or "(no name)" for name, lines in found.items() if len(lines) < 2]
    if short or not found:
        raise DataError(
            f"schedule {path}: {'runs ' + ', '.join(short) if short else 'no run'} with fewer than "
            "two rows; the last row of a run says when it ends."
        )
    return [
        Schedule(
            name,
            clones[name],
            np.asarray([hour for hour, _ in lines], float) - lines[0][0],
            np.asarray([values for _, values in lines], float).reshape(len(lines), len(names)),
        )
        for name, lines in found.items()
    ]


def one_schedule(path: Path, schedules: Sequence[Schedule], run_id: str | None) -> Schedule:
    """One run out of a table of schedules.

    Args:
        path: The table, for messages.
        schedules: What it holds.
        run_id: Which; it may be left out of a table of one run.

    Raises:
        DataError: If it is not among them, or several are there and none is named.
    """
    names = [one.run_id for one in schedules]
    if run_id is None and len(names) == 1:
        return schedules[0]
    if run_id not in names:
        what = "name one of its runs" if run_id is None else f"it has no run {run_id!r}"
        raise DataError(f"schedule {path}: {what}; there are {', '.join(names)}.")
    return schedules[names.index(run_id)]


def _check_units(
    path: Path, row: dict[str, str], names: Sequence[str], unit_of: Callable[[str], str]
) -> None:
    for name in names:
        stated = (row.get(name) or "").strip()
        if stated and stated != unit_of(name):
            raise DataError(
                f"schedule {path}: {name} is in {stated!r}; a schedule has the units of the "
                f"controls, {unit_of(name)!r} here."
            )


def _cell(path: Path, number: int, row: dict[str, str], name: str, old: float | None) -> float:
    text = (row.get(name) or "").strip()
    if not text and old is not None:
        return old
    try:
        value = plain_number(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f"{path}, line {number}: {name} is {text!r}, no finite number.")
    return value
