"""Proposals that change within a run: what runs so far did, and the answer as schedules."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax._core.text import shown_unit, shown_units
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.steps import step_hours
from perfusio_jax.connectors.files.schedule import (
    Schedule,
    is_schedule,
    read_schedules,
    schedule_of,
    write_schedules,
)
from perfusio_jax.report.answer import proposal_card
from perfusio_jax.report.costing import costs_in_words
from perfusio_jax.report.proposal_words import best_guess, best_measured, goals_in_words
from perfusio_jax.report.recipes import new_ids, still_pending
from perfusio_jax.report.setpoints import moved_unseen, never_varied
from perfusio_jax.states import Trajectory
from perfusio_jax.states.setpoints import setpoint_table
from perfusio_jax.viz import Card

_SAME = 1e-9
"""Change of a set-point that is none, relative to its width [-]."""


class Grid(NamedTuple):
    """When set-points may change, and what they are."""

    names: tuple[str, ...]
    """Controls, in array order."""
    lengths_h: np.ndarray
    """Length of every step [h]."""
    once: tuple[int, ...] = ()
    """Columns of what is given once a day, as boluses."""
    unit_of: Callable[[str], str] = canonical_unit
    """Unit of a control."""

    @property
    def edges_h(self) -> np.ndarray:
        """Times between which the steps lie [h]."""
        return np.concatenate([[0.0], np.cumsum(self.lengths_h)])

    def plan(self, schedule: Schedule) -> np.ndarray:
        """A schedule on the grid, `(H, M)`; what is given within a day stands in all its steps."""
        found = schedule.during(self.edges_h, self.once)
        if not self.once:
            return found
        days = np.floor(self.edges_h[:-1] / HOURS_PER_DAY + 1e-6).astype(int)
        for column in self.once:
            found[:, column] = np.bincount(days, weights=found[:, column])[days]
        return found

    def given(self, plan: np.ndarray) -> np.ndarray:
        """A plan as it is carried out: what is given once a day, at the start of the day only."""
        shown = np.array(plan)
        begins = self.edges_h[:-1] / HOURS_PER_DAY
        starts_day = np.abs(begins - np.round(begins)) < 1e-6
        for column in self.once:
            shown[:, column] = np.where(starts_day, shown[:, column], 0.0)
        return shown


def grid_of(
    ofv: ProcessOFV,
    names: Sequence[str],
    once: Sequence[int] = (),
    unit_of: Callable[[str], str] = canonical_unit,
) -> Grid:
    """The grid of an objective's roll-outs.

    Args:
        ofv: What a run is worth; its step is known.
        names: Controls.
        once: Columns of what is given once a day.
        unit_of: Unit of a control.
    """
    step_h = HOURS_PER_DAY if ofv.step_h is None else ofv.step_h
    return Grid(tuple(names), step_hours(ofv.horizon, step_h), tuple(once), unit_of)


def plan_of_run(run: Trajectory, grid: Grid) -> np.ndarray:
    """What was set in a run, on the grid.

    Args:
        run: A run with every set-point; beyond its end the last ones are taken to go on.
        grid: The grid.
    """
    table = setpoint_table(run, grid.names)
    times = np.asarray(run.times_h, float)
    if len(times) < 2:
        times, table = np.append(times, times[-1] + HOURS_PER_DAY), np.repeat(table, 2, axis=0)
    return grid.plan(Schedule(run.run_id, run.clone_id, times - times[0], table))


def pending_plans(
    path: Path | None, grid: Grid, run_ids: list[str]
) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """Runs that are under way, as plans, and what is to be said of them.

    Args:
        path: Table of recipes or of schedules, as `propose` writes them; or None.
        grid: The grid.
        run_ids: Runs with results.

    Raises:
        DataError: If the table cannot be read.
    """
    if path is None or not path.is_file() or not is_schedule(path):
        waiting, lines = still_pending(path, list(grid.names), run_ids, grid.unit_of)
        n = len(grid.lengths_h)
        return [(name, np.tile(recipe, (n, 1))) for name, recipe in waiting], lines
    found = read_schedules(path, grid.names, grid.unit_of)
    waiting = [(one.run_id, grid.plan(one)) for one in found if one.run_id not in run_ids]
    done = [one.run_id for one in found if one.run_id in run_ids]
    lines = [
        f"no longer pending, because their results are in the table: {', '.join(done)}"
        for _ in done[:1]
    ]
    called = ", ".join(name or "one without a run_id" for name, _ in waiting)
    lines.append(f"{len(waiting)} pending run(s) counted as under way: {called or 'none'}")
    return waiting, lines


def answer_profiles(
    found: dict[str, Any],
    plans: np.ndarray,
    runs: list[Trajectory],
    so_far: np.ndarray,
    *,
    ofv: ProcessOFV,
    span: np.ndarray,
    grid: Grid,
    held: Sequence[str],
    taken: Iterable[str],
    clone: str,
    out: Path,
    console: Any,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Complete an explanation, write the schedules, and say what is done when and why.

    Args:
        found: From `explain_campaign`; what the runs so far say is put into it.
        plans: Proposed plans `(q,H,M)`.
        runs: The runs so far.
        so_far: Their plans `(n,H,M)`.
        ofv: What a run is worth.
        span: Width of the design space, by control.
        grid: When set-points may change.
        held: Controls that were held.
        taken: Names that runs have already.
        clone: Clone the runs are for.
        out: CSV file to write; what is expected goes beside it.
        console: Where to print.
        on_card: Is given what was concluded.
    """
    names = list(grid.names)
    found["best_measured"] = best_measured(runs, ofv)
    found["remarks"] += _repeated(plans, so_far, [t.run_id for t in runs], span)
    rows = plans.reshape(-1, len(names))
    found["remarks"] += moved_unseen(never_varied(runs, names), rows, names, held, grid.unit_of)
    ids = new_ids(len(plans), len(runs), set(taken))
    shown = [grid.given(plan) for plan in plans]
    schedules = [
        schedule_of(name, clone, plan, grid.lengths_h)
        for name, plan in zip(ids, shown, strict=True)
    ]
    once = [names[column] for column in grid.once]
    write_schedules(out, schedules, names, grid.unit_of, once=once)
    beside = out.with_name(f"{out.stem}_expected.csv")
    _write_expected(beside, ids, found)
    told: list[str] = []

    def say(line: str) -> None:
        told.append(shown_units(line))
        console.print(told[-1], soft_wrap=True)

    for line in goals_in_words(found):
        say(line)
    for label, value in found["profile"]["best_held"].items():
        say(
            f"{label}: best expected of the recipes looked at that change nothing {value:.4g}"
            if np.isfinite(value)
            else f"{label}: no recipe that changes nothing and keeps the limits was looked at"
        )
    guess = best_guess(found)
    for k, (name, plan, run) in enumerate(zip(ids, plans, found["runs"], strict=True), start=1):
        for line in _run_in_words(found, k, k == guess, name, run):
            say(line)
        still, table = schedule_table(plan, grid, span)
        if still:
            say(f"   throughout: {still}")
        if table is not None:
            console.print(table)
    for line in (*found["remarks"], *costs_in_words(found)):
        say(line)
    if on_card is not None:  # the schedules themselves are in the table
        on_card(proposal_card(told, out))
    console.print(
        f"schedules: {out} (forecast --schedule and simulate --schedule take it)", soft_wrap=True
    )
    console.print(f"what is expected of them: {beside}", soft_wrap=True)


def schedule_table(plan: np.ndarray, grid: Grid, span: np.ndarray) -> tuple[str, Any]:
    """A plan as a person runs it: what stays, in words, and a table of what is set when.

    Args:
        plan: Set-points of every step.
        grid: When set-points may change.
        span: Width of the design space, by control.

    Returns:
        A sentence about controls that do not change, and a table of the others with one row for
        each time at which something is set; None if nothing changes.
    """
    from rich import box
    from rich.table import Table

    size = _SAME * np.where(span > 0, span, 1.0)[None, :]
    moves = np.abs(np.diff(plan, axis=0)) > size
    changing = np.flatnonzero(moves.any(axis=0))
    daily = {column: " a day" for column in grid.once}

    def titled(c: int) -> str:
        return f"{grid.names[c]} [{shown_unit(grid.unit_of(grid.names[c]))}{daily.get(c, '')}]"

    still = ", ".join(
        f"{name} {plan[0, c]:.4g} {shown_unit(grid.unit_of(name))}{daily.get(c, '')}"
        for c, name in enumerate(grid.names)
        if c not in changing
    )
    if changing.size == 0:
        return still, None
    table = Table(box=box.SIMPLE)
    table.add_column("from hour", justify="right", no_wrap=True)
    table.add_column("day", justify="right", no_wrap=True)
    for c in changing:
        table.add_column(titled(int(c)), justify="right")
    steps = [0, *(np.flatnonzero(moves.any(axis=1)) + 1).tolist()]
    for step in steps:
        hour = grid.edges_h[step]
        cells = [
            f"{plan[step, c]:.4g}" if step == 0 or moves[step - 1, c] else "" for c in changing
        ]
        table.add_row(f"{hour:g}", f"{hour / HOURS_PER_DAY:.4g}", *cells)
    return still, table


def _run_in_words(
    found: Mapping[str, Any], k: int, is_guess: bool, name: str, run: Mapping[str, Any]
) -> list[str]:
    values = ", ".join(
        f"{label} {run['expected'][label]:.4g} ({run['q10'][label]:.4g} to {run['q90'][label]:.4g})"
        for label in run["expected"]
    )
    short = "" if run["is_kept"] else ", less than was asked"
    kept = ", ".join(f"{p:.2f}" for p in run["probability_kept"])
    limits = f"; limits kept with probability {kept}{short}" if kept else ""
    how = found["profile"]["runs"][k - 1]
    lines = [f"{k}. {name}{' (best guess)' if is_guess else ''}: {values}{limits}"]
    if not how["is_settled"]:
        lines.append(
            f"   its times were still being improved after {how['n_rounds']} rounds of the search"
        )
    bounds = [f"{n} at its lower bound" for n in run["at_lower_bound"]]
    bounds += [f"{n} at its upper bound" for n in run["at_upper_bound"]]
    if bounds:
        lines.append(f"   for a part of the run: {', '.join(bounds)}")
    return lines


def _repeated(
    plans: np.ndarray, so_far: np.ndarray, run_ids: Sequence[str], span: np.ndarray
) -> list[str]:
    """Sentences about proposals that are what a run already did."""
    scale = np.where(span > 0, span, 1.0)
    lines = []
    for k, plan in enumerate(plans, start=1):
        same = np.flatnonzero((np.abs(so_far - plan) <= 1e-3 * scale).all(axis=(1, 2)))
        if same.size:
            lines.append(f"Run {k} of those proposed repeats run {run_ids[same[0]]}.")
    return lines


def _write_expected(path: Path, ids: Sequence[str], found: Mapping[str, Any]) -> None:
    """What is expected of each run, one row each."""
    labels = list(found["best_expected"])
    header = ["run_id"]
    for label in labels:
        header += [f"{label}: {what}" for what in ("expected", "10 %", "90 %")]
    header += [f"P({c['limit']})" for c in found["constraints"]]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name, run in zip(ids, found["runs"], strict=True):
            cells = [
                f"{run[what][label]:.5g}" for label in labels for what in ("expected", "q10", "q90")
            ]
            writer.writerow([name, *cells, *(f"{p:.3f}" for p in run["probability_kept"])])
