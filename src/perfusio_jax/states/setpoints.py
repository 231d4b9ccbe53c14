"""Set-points of recorded runs: blanks, and columns that are lacking."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES, DataError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.states.trajectory import Trajectory

_MANY = 3
"""Places named in a message; the rest is counted."""


def complete_setpoints(
    runs: Sequence[Trajectory],
    *,
    fill_down: bool = False,
    stated: Mapping[str, float] | None = None,
    remedy: str = "",
    names: Sequence[str] = CONTROL_NAMES,
    source: str = "--set",
    unit_of: Callable[[str], str] = canonical_unit,
    once: Collection[str] = (),
) -> tuple[list[Trajectory], list[str]]:
    """Runs with a value of every control at every sample after which something acted.

    Args:
        runs: Runs as read.
        fill_down: Whether a blank set-point means that the one before it stayed.
        stated: Values of controls that the table lacks, by name: they acted in every such run.
        remedy: What else helps where a control is lacking, a sentence.
        names: Controls that are looked at, and the columns of the result.
        source: Who says what is stated; empty if it was told already.
        unit_of: Unit of a control.
        once: Controls that act at their own sample only, as boluses do: a blank of theirs is no
            repeat of the one above, and is refused.

    Returns:
        The runs, and a sentence for everything that was filled in.

    Raises:
        DataError: If a control is lacking or blank and nothing says what acted.
    """
    given = dict(stated or {})
    out, lacking, blanks = [], {}, []
    filled: dict[str, int] = {}
    for run in runs:
        table = setpoint_table(run, names)
        for column, name in enumerate(names):
            values = table[:, column].copy()
            if np.isnan(values).all():
                lacking.setdefault(name, []).append(run.run_id)
                table[:, column] = given.get(name, np.nan)
            elif fill_down and name not in once:
                table[:, column] = _filled_down(values)
                count = int(np.isnan(values).sum() - np.isnan(table[:, column]).sum())
                if count:
                    filled[name] = filled.get(name, 0) + count
            acting = table[: max(run.n_days - 1, 1), column]
            if np.isnan(acting).any() and not np.isnan(values).all():
                blanks.append((run, name, acting))
        out.append(
            dataclasses.replace(run, controls=jnp.asarray(table), control_names=tuple(names))
        )
    unknown = {name: ids for name, ids in lacking.items() if name not in given}
    if unknown:
        raise DataError(_lacking(unknown, len(runs), remedy))
    if blanks:
        raise DataError(_blank(blanks, fill_down, once))
    lines = [
        f"assumed: {name} {given[name]:g} {unit_of(name)} in {_which(ids, len(runs))}, as "
        f"{source} says; the table does not hold it."
        for name, ids in lacking.items()
        if source
    ]
    if filled:
        cells = ", ".join(f"{name} {count}" for name, count in filled.items())
        lines.append(f"filled down blank set-points, taken as unchanged: {cells} cell(s).")
    return out, lines


def setpoint_table(run: Trajectory, names: Sequence[str] = CONTROL_NAMES) -> np.ndarray:
    """Set-points `(T, M)` in the order of the names, NaN where there is none."""
    table = np.full((run.n_days, len(names)), np.nan)
    have = list(run.control_names)
    values = np.asarray(run.controls, float)
    for column, name in enumerate(names):
        if name in have:
            table[:, column] = values[:, have.index(name)]
    return table


def _filled_down(values: np.ndarray) -> np.ndarray:
    """Every blank as the last value above it; blanks above the first value stay."""
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(values.size)))
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def _which(ids: Sequence[str], n_runs: int) -> str:
    if len(ids) == n_runs:
        return "all runs"
    more = f" and {len(ids) - _MANY} more" if len(ids) > _MANY else ""
    return f"run(s) {', '.join(ids[:_MANY])}{more}"


def _lacking(unknown: Mapping[str, Sequence[str]], n_runs: int, remedy: str) -> str:
    each = "; ".join(f"{name} in {_which(ids, n_runs)}" for name, ids in unknown.items())
    return (
        f"there is no value of {each}: what was done to a run is needed to learn from it. Add the "
        f"column(s) with the values that acted.{' ' + remedy if remedy else ''}"
    )


def _blank(
    blanks: Sequence[tuple[Trajectory, str, np.ndarray]], fill_down: bool, once: Collection[str]
) -> str:
    places = []
    for run, name, acting in blanks[:_MANY]:
        empty = np.flatnonzero(np.isnan(acting))
        first = float(np.asarray(run.times_h)[empty[0]])
        places.append(
            f"run '{run.run_id}' {name} in {empty.size} of {acting.size} rows, first at {first:g} h"
        )
    more = f"; and {len(blanks) - _MANY} more" if len(blanks) > _MANY else ""
    way = (
        "There is nothing above to fill down from: give the value in the first row."
        if fill_down
        else "If a blank means that the value above it stayed, say --fill-down; otherwise fill in "
        "the value that acted."
    )
    if any(name in once for _, name, _ in blanks):
        way = "A bolus is not filled down: write 0 where none was given."
    return f"set-points are blank: {'; '.join(places)}{more}. {way}"
