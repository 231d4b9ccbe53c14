"""The campaign table: pandas frames to trajectories and back.

One row per sample: `run_id, reactor_id, clone_id, time_h`, species, controls, stream totals
and auxiliary tags by canonical name. Row d of a run holds the sample of day d and the
set-points applied from that sample until the next.

Nothing is mended in silence: what cannot be understood is refused with column, row and value;
what can be coped with (another unit, another order of rows, a column left out on request)
is listed in the `FrameReport` that comes back with the runs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    HOURS_PER_DAY,
    REGISTRY,
    STREAM_TOTALS,
    DataError,
)
from perfusio_jax._core.instants import LONGEST_H
from perfusio_jax._core.plausible import doubt
from perfusio_jax._core.text import LONGEST_NAME, cut, in_line
from perfusio_jax._core.units import canonical_unit, to_canonical
from perfusio_jax.connectors.tables.cells import find_decimal, plain, qualified, to_tell, understood
from perfusio_jax.connectors.tables.columns import nearest, other_meaning
from perfusio_jax.connectors.tables.doubts import feeds, hours_called_days, too_fast
from perfusio_jax.connectors.tables.joining import DEFAULT_JOIN_H
from perfusio_jax.connectors.tables.samples import parse_number
from perfusio_jax.connectors.tables.totals import RATE_OF, Totals, judge, settle
from perfusio_jax.states import Trajectory

ID_COLUMNS: Final = ("run_id", "reactor_id", "clone_id")
"""Text columns; they have no unit."""

NUMBER_COLUMNS: Final = (
    "time_h",
    "day",
    "volume_L",
    *REGISTRY,
    *CONTROL_NAMES,
    *STREAM_TOTALS,
    *AUXILIARY_TAGS,
)
"""Numeric columns a campaign table may have, in the order they are written."""

MISSING_MARKS: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--"})
"""Cell texts that mean "not measured", in lower case."""

_BEYOND: Final = {
    "below": "below the limit of the assay, of which half is taken,",
    "above": "above what the assay reads, and missing,",
}
_DEFAULT_IDS: Final = {"reactor_id": "R00", "clone_id": "unknown"}
_MAY_BE_NEGATIVE: Final = frozenset({"TMP", "capacitance", "pH"})
_WITH_UNIT: Final = re.compile(r"^(?P<name>[^\[(]+?)\s*[\[(](?P<unit>[^\])]*)[\])]$")


@dataclass(frozen=True)
class FrameReport:
    """What was understood of a table and what had to be done to it."""

    n_rows: int
    """Samples read."""
    run_ids: tuple[str, ...]
    """Runs, in order of first appearance."""
    columns: tuple[str, ...]
    """Columns used."""
    ignored: tuple[str, ...] = ()
    """Unknown columns left out because the caller said so."""
    converted: Mapping[str, str] = field(default_factory=dict)
    """Columns whose numbers changed on conversion, with both units."""
    assumed: Mapping[str, str] = field(default_factory=dict)
    """What the table did not say, with the value taken instead."""
    reordered: tuple[str, ...] = ()
    """Runs whose rows were not contiguous and in order of time."""
    empty: tuple[str, ...] = ()
    """Columns without a single value."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """Number of missing values per column that has some and is not empty."""
    warnings: tuple[str, ...] = ()
    """Values that are legal but strange."""
    notes: tuple[str, ...] = ()
    """How the file was read (separator, decimal mark)."""

    def __str__(self) -> str:
        lines = [f"{self.n_rows} samples of {len(self.run_ids)} run(s)."]
        lines += self.notes
        if self.ignored:
            lines.append(f"left out unknown columns: {', '.join(self.ignored)}.")
        lines += [f"converted {name}: {how}." for name, how in self.converted.items()]
        lines += [f"assumed {name}: {value}." for name, value in self.assumed.items()]
        if self.reordered:
            lines.append(f"put rows in order of time: {', '.join(self.reordered)}.")
        if self.empty:
            lines.append(f"columns without any value: {', '.join(self.empty)}.")
        if self.missing:
            counts = ", ".join(f"{name} {count}" for name, count in self.missing.items())
            lines.append(f"missing values: {counts}.")
        return "\n".join([*lines, *self.warnings])


class Campaign(NamedTuple):
    """Runs and the report on the table they came from."""

    trajectories: list[Trajectory]
    """One per run, in order of first appearance."""
    report: FrameReport
    """What was understood, converted, assumed, reordered and left out."""


def campaign_to_frame(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """Write runs as one campaign table, in canonical units.

    Species or controls that some runs lack become NaN there. Metadata is not part of the table.

    Args:
        trajectories: Runs with distinct `run_id`.

    Returns:
        The table; `frame.attrs["units"]` holds the unit of each numeric column.

    Raises:
        DataError: If two runs share an id or a column has a name outside the contract.
    """
    runs = list(trajectories)
    ids = [run.run_id for run in runs]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise DataError(f"run_id {', '.join(twice)} is used by more than one run.")
    tables = [_run_table(run) for run in runs]
    used = {name for table in tables for name in table}
    columns = [n for n in (*ID_COLUMNS, *NUMBER_COLUMNS) if n in used]
    rows: dict[str, Any] = {}
    for name in columns:
        blank: Any = "" if name in ID_COLUMNS else np.nan
        parts = [t.get(name, np.full(len(t["time_h"]), blank)) for t in tables]
        rows[name] = np.concatenate(parts)
    frame = pd.DataFrame(rows, columns=pd.Index(columns))
    frame.attrs["totals"] = dict.fromkeys(STREAM_TOTALS, "increments")
    frame.attrs["units"] = {n: canonical_unit(n) for n in columns if n not in ID_COLUMNS}
    return frame


def _run_table(run: Trajectory) -> dict[str, np.ndarray]:
    n = run.n_days
    table = {name: np.full(n, getattr(run, name), dtype=object) for name in ID_COLUMNS}
    table["time_h"] = np.asarray(run.times_h, np.float64)
    days = np.asarray(run.days)
    if not np.array_equal(days, _day_of(table["time_h"])):
        table["day"] = days.astype(np.float64)
    table["volume_L"] = np.asarray(run.volume_L, np.float64)
    for names, array in (
        (run.species_names, run.species),
        (run.control_names, run.controls),
        (STREAM_TOTALS, run.stream_totals),
        (run.auxiliary_names, run.auxiliary),
    ):
        values = np.asarray(array, np.float64)
        for column, name in enumerate(names):
            if name not in NUMBER_COLUMNS:
                raise DataError(_unknown_column(name))
            table[name] = values[:, column]
    return table


def campaign_from_frame(
    frame: pd.DataFrame,
    *,
    units: Mapping[str, str] | None = None,
    unknown: Literal["error", "ignore"] = "error",
    volume_L: float = 0.25,
    lines: Sequence[int] | None = None,
    totals: Totals | Mapping[str, str] | None = None,
    decimal: str | None = None,
) -> Campaign:
    """Read the runs of a campaign table.

    Args:
        frame: The table; a header may carry its unit, as in `"Glc [mmol/L]"`.
        units: Unit per column; without it `frame.attrs["units"]`, then the canonical unit.
        unknown: What to do with a column outside the contract: refuse it, or leave it out
            and say so in the report.
        volume_L: Working volume [L] where the table has no such column.
        lines: Line of the file each row came from, for messages.
        totals: What stream totals are, all of them or by name: "cumulative" for counters, which
            are differenced, "increments" for volumes since the sample before. By default
            `frame.attrs["totals"]`, else told apart: what looks like a counter is not used.
        decimal: "." or ",", of numbers that are text; found out if not given.

    Returns:
        Runs and report.

    Raises:
        DataError: If a column is unknown, duplicate or missing, a value is not a number,
            infinite or negative where it cannot be, or two rows of a run have one time.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    if len(frame) == 0:
        raise DataError(
            f"the table holds a header ({', '.join(map(str, frame.columns)) or 'empty'}) and no "
            "rows; a campaign needs at least one sample."
        )
    where = _Where(list(lines) if lines is not None else None)
    names, header_units = _read_header(frame)
    stated = {**frame.attrs.get("units", {}), **header_units, **(units or {})}
    odd: list[str] = []
    names = _without_homonyms(names, stated, unknown, odd)
    ignored = _check_columns(names, unknown)
    strangers = sorted(set(stated) - set(names) - set(ID_COLUMNS))
    if strangers and units is not None:
        raise DataError(f"units are given for {', '.join(strangers)}, which the table lacks.")
    table = _with_points(frame.set_axis(names, axis=1), decimal, where)
    assumed: dict[str, str] = {}
    table, where = _since_start(table, where, odd)
    ids = _read_ids(table, assumed, where)
    numbers, converted = _read_numbers(table, stated, assumed, where, odd)
    _check_values(numbers, where)
    times = _read_times(numbers, assumed, where)
    groups, reordered = _group(ids["run_id"], times, where)
    kinds = frame.attrs.get("totals", {}) if totals is None else totals
    spans = {n: (np.nanmin(v), np.nanmax(v)) for n, v in numbers.items() if not np.isnan(v).all()}
    for run, rows in groups.items():
        odd += _settle_totals(f"run '{run}': ", rows, numbers, times, kinds, where)
        odd += _look_at(f"run '{run}': ", rows, numbers, times, where)
        odd += _two_times(f"run '{run}': ", rows, numbers, where)
    if "volume_L" not in numbers:
        assumed["volume_L"] = f"{volume_L:g} L"
        numbers["volume_L"] = np.full(len(table), float(volume_L))
    columns = [n for n in NUMBER_COLUMNS if n in numbers]
    runs = [_build(rows, ids, numbers, times, where) for rows in groups.values()]
    strange = _strange(numbers)
    report = FrameReport(
        n_rows=len(table),
        run_ids=tuple(groups),
        columns=tuple([n for n in ID_COLUMNS if n in names] + columns),
        ignored=ignored,
        converted=converted,
        assumed=assumed,
        reordered=reordered,
        empty=tuple(n for n in columns if np.all(np.isnan(numbers[n]))),
        missing=_count_missing(numbers, columns),
        warnings=(*odd, *_implausible(spans, strange), *strange),
    )
    return Campaign(runs, report)


class _Where:
    """Names a row in a message: the line of the file if there is one."""

    def __init__(self, lines: list[int] | None, word: str | None = None) -> None:
        self.lines = lines
        self.word = word or ("row" if lines is None else "line")

    def of(self, rows: np.ndarray) -> "_Where":
        """The same for some of the rows."""
        lines = rows.tolist() if self.lines is None else [self.lines[row] for row in rows]
        return _Where(lines, self.word)

    def __call__(self, row: int) -> str:
        return f"{self.word} {row if self.lines is None else self.lines[row]}"


def _day_of(times_h: np.ndarray) -> np.ndarray:
    """Nearest process day [d] of a time [h]."""
    return np.floor(times_h / HOURS_PER_DAY + 0.5).astype(int)


def _with_points(table: pd.DataFrame, decimal: str | None, where: _Where) -> pd.DataFrame:
    """The table with a decimal point in those of its numbers that are text."""
    if decimal == ".":
        return table  # as all that is read from CSV
    columns = {
        name: table[name].tolist()
        for name in table.columns
        if name in NUMBER_COLUMNS and not pd.api.types.is_numeric_dtype(table[name])
    }
    rows = range(len(table)) if where.lines is None else where.lines
    texts = (
        (to_tell(cell), row)
        for cells in columns.values()
        for row, cell in zip(rows, cells, strict=True)
        if isinstance(cell, str)
    )
    mark = decimal or find_decimal(texts, None, where.word)
    if mark == ".":
        return table
    changed = {
        name: [with_point(cell, mark) if isinstance(cell, str) else cell for cell in cells]
        for name, cells in columns.items()
    }
    return table.assign(**changed)


def with_point(cell: str, decimal: str) -> Any:
    """A number where the cell is one; else the cell, with a decimal point."""
    number = parse_number(cell, decimal)
    if not isinstance(number, str):
        return number
    found = qualified(number)
    if found is None:
        return cell
    return f"{found.sign}{plain(found.number, decimal)} {found.unit}"


def _without_homonyms(
    names: list[str], stated: dict[str, Any], unknown: str, odd: list[str]
) -> list[str]:
    """Names without those that mean something else in this table."""
    kept = []
    for name in names:
        text = other_meaning(name, str(stated.get(name, "")).strip(), names)
        if text and unknown != "ignore":
            raise DataError(
                f"{text.split(' and is left out')[0]}. Take the column out, or give it another "
                "name and read the table with unknown='ignore'."
            )
        if text:
            stated.pop(name, None)
            odd.append(f"{text.split('. ')[0]}.")
        kept.append(f"{name} (another)" if text else name)
    return kept


def _unknown_column(name: str) -> str:
    known = (*ID_COLUMNS, *NUMBER_COLUMNS)
    near = nearest(name)
    hint = f" Did you mean '{near}'?" if near in known else ""
    return f"column '{cut(name)}' is not known.{hint} Known columns: {', '.join(known)}."


def _read_header(frame: pd.DataFrame) -> tuple[list[str], dict[str, str]]:
    """Bare column names, and the units some headers carry in brackets."""
    names, units = [], {}
    for label in map(str, frame.columns):
        name = label.strip()
        found = _WITH_UNIT.match(name) if len(name) <= LONGEST_NAME else None
        if found and found["name"].strip() in NUMBER_COLUMNS:
            name = found["name"].strip()
            units[name] = found["unit"].strip()
        names.append(name)
    return names, units


def _check_columns(names: list[str], unknown: str) -> tuple[str, ...]:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"column {', '.join(twice)} occurs more than once.")
    strangers = [n for n in names if n not in ID_COLUMNS and n not in NUMBER_COLUMNS]
    if strangers and unknown != "ignore":
        raise DataError(_unknown_column(strangers[0]))
    if "run_id" not in names or not {"time_h", "day"} & set(names):
        raise DataError(
            "a campaign table needs the columns run_id and time_h (or day); it has "
            f"{cut(', '.join(names), 1000)}."
        )
    return tuple(strangers)


def _read_ids(table: pd.DataFrame, assumed: dict[str, str], where: _Where) -> dict[str, list[str]]:
    ids = {}
    for name in ID_COLUMNS:
        if name not in table:
            assumed[name] = _DEFAULT_IDS[name]
            ids[name] = [_DEFAULT_IDS[name]] * len(table)
            continue
        values = ["" if pd.isna(v) else str(v).strip() for v in table[name]]
        if "" in values and name == "run_id":
            raise DataError(f"run_id is empty in {where(values.index(''))}.")
        if "" in values:
            assumed[name] = f"{_DEFAULT_IDS[name]} where the cell is empty"
        ids[name] = [v or _DEFAULT_IDS[name] for v in values]
    return ids


def _read_numbers(
    table: pd.DataFrame,
    stated: Mapping[str, str],
    assumed: dict[str, str],
    where: _Where,
    odd: list[str],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    numbers, converted, unstated = {}, {}, []
    for name in (n for n in table.columns if n in NUMBER_COLUMNS):
        unit = str(stated.get(name, "")).strip()
        raw = parse_column(pd.Series(table[name]), name, where, unit=unit, odd=odd)
        if not unit:
            unstated.append(name)
            numbers[name] = raw
            continue
        numbers[name] = to_canonical(raw, unit, name)
        if not np.allclose(numbers[name], raw, rtol=1e-12, atol=0, equal_nan=True):
            converted[name] = f"{unit} -> {canonical_unit(name)}"
    if unstated:
        assumed["units"] = ", ".join(f"{n} {canonical_unit(n)}" for n in unstated)
    return numbers, converted


def parse_column(
    column: pd.Series, name: str, where: Any, *, unit: str = "", odd: list[str] | None = None
) -> np.ndarray:
    """Numbers of one column, NaN where the cell says that nothing was measured.

    A cell may carry its unit (`98 %`). `< 0.05` is read as half the limit, `> 20` as missing.

    Args:
        column: Numbers or texts.
        name: Canonical column name, for messages.
        where: Function from row number to a phrase that names the row.
        unit: Unit of the column; empty for the canonical one.
        odd: Takes a sentence on readings beyond a limit of the assay.

    Returns:
        64-bit floats.

    Raises:
        DataError: If a cell is neither a number nor one of `MISSING_MARKS`, or is infinite.
    """
    if pd.api.types.is_float_dtype(column) or pd.api.types.is_integer_dtype(column):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
        if np.any(np.isinf(numbers)):
            raise DataError(
                f"column '{name}' is infinite in {where(int(np.argmax(np.isinf(numbers))))}."
            )
        return numbers
    numbers = np.empty(len(column))
    limits: dict[str, list[str]] = {}
    for row, cell in enumerate(column.tolist()):
        numbers[row], kind = _parse_cell(cell, name, row, where, unit)
        if kind in _BEYOND:
            limits.setdefault(kind, []).append(f"'{cell.strip()}' in {where(row)}")
    if odd is not None:
        odd += [
            f"{name} is {_BEYOND[kind]} in {len(found)} row(s) (first {found[0]})."
            for kind, found in limits.items()
        ]
    return numbers


def _parse_cell(cell: Any, name: str, row: int, where: Any, unit: str) -> tuple[float, str]:
    """(number in the column's unit, what kind of number it is) of one cell."""
    if isinstance(cell, str):
        number = parse_number(cell)
        if isinstance(number, str):
            number, kind = understood(number, name, unit, parse_number)
            if kind == "above":
                return np.nan, kind
            if number is None:
                raise DataError(_no_number(cell, name, where(row)))
            return number, kind
        number = np.nan if number is None else number
    elif pd.isna(cell):
        return np.nan, ""
    else:
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            raise DataError(_no_number(cell, name, where(row))) from None
    if np.isinf(number):
        raise DataError(f"column '{name}' is infinite in {where(row)}.")
    return number, ""


def _no_number(cell: Any, name: str, where: str) -> str:
    hint = " A decimal comma needs another separator than the comma." if "," in str(cell) else ""
    return (
        f"column '{name}' holds {in_line(cell)} in {where}, which is not a number; a value that "
        f"was not measured is an empty cell or 'NaN'.{hint}"
    )


def _since_start(table: pd.DataFrame, where: _Where, odd: list[str]) -> tuple[pd.DataFrame, _Where]:
    """The rows from the inoculation on; those before are left out by name."""
    name = "time_h" if "time_h" in table else "day"
    times = parse_column(pd.Series(table[name]), name, where)
    early = np.flatnonzero(times < 0.0)
    if early.size == 0 or early.size == len(table):
        return table, where
    places = ", ".join(where(int(row)) for row in early[:3])
    odd.append(f"{early.size} row(s) from before the inoculation are left out ({places}).")
    rows = np.flatnonzero(~(times < 0.0))
    return table.iloc[rows].reset_index(drop=True), where.of(rows)


def _check_values(numbers: Mapping[str, np.ndarray], where: _Where) -> None:
    for name, values in numbers.items():
        if name not in _MAY_BE_NEGATIVE and np.any(values < 0):
            row = int(np.argmax(values < 0))
            raise DataError(
                f"column '{name}' is negative in {where(row)} ({values[row]:g} "
                f"{canonical_unit(name)}); leave the cell empty if the value is not to be trusted."
            )


def _read_times(
    numbers: Mapping[str, np.ndarray], assumed: dict[str, str], where: _Where
) -> np.ndarray:
    if "time_h" in numbers:
        times = numbers["time_h"]
    else:
        assumed["time_h"] = "24 h per day"
        times = numbers["day"] * HOURS_PER_DAY
    for name in (n for n in ("time_h", "day") if n in numbers):
        values = numbers[name]
        if np.any(np.isnan(values)):
            raise DataError(f"{name} is empty in {where(int(np.argmax(np.isnan(values))))}.")
    if np.any(times > LONGEST_H):
        row = int(np.argmax(times > LONGEST_H))
        raise DataError(
            f"time_h is {times[row]:g} in {where(row)}, which is no time of a culture: no more "
            f"than {LONGEST_H:g} h (ten years) are taken."
        )
    if "day" in numbers and np.any(numbers["day"] % 1):
        row = int(np.argmax(numbers["day"] % 1 != 0))
        raise DataError(
            f"day is {numbers['day'][row]:g} in {where(row)}; it is a whole number. Times between "
            "two days go into a column time_h [h]."
        )
    return times


def _group(
    run_ids: Sequence[str], times: np.ndarray, where: _Where
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Rows of each run in order of time, and the runs for which that changed something."""
    rows: dict[str, list[int]] = {}
    for row, run in enumerate(run_ids):
        rows.setdefault(run, []).append(row)
    groups, reordered = {}, []
    for run, members in rows.items():
        index = np.asarray(members)
        ordered = index[np.argsort(times[index], kind="stable")]
        repeat = np.flatnonzero(np.diff(times[ordered]) == 0)
        if repeat.size:
            first, second = sorted(ordered[repeat[0] : repeat[0] + 2].tolist())
            raise DataError(
                f"run '{run}' has two rows at {times[first]:g} h: {where(first)} and "
                f"{where(second)}. Keep one of them."
            )
        if not np.array_equal(ordered, np.arange(index[0], index[0] + index.size)):
            reordered.append(run)
        groups[run] = ordered
    return groups, tuple(reordered)


def _build(
    rows: np.ndarray,
    ids: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
    times: np.ndarray,
    where: _Where,
) -> Trajectory:
    run_id = ids["run_id"][rows[0]]
    for name in ("reactor_id", "clone_id"):
        first = ids[name][rows[0]]
        for row in rows.tolist():
            if ids[name][row] != first:
                raise DataError(
                    f"{name} of run '{run_id}' changes from '{first}' to '{ids[name][row]}' in "
                    f"{where(row)}; a run has one."
                )
    volume = numbers["volume_L"][rows]
    if not np.all(volume > 0):
        row = int(rows[np.argmin(volume > 0)])
        raise DataError(f"volume_L is empty or zero in {where(row)}; a volume is above zero.")

    def stack(names: Sequence[str]) -> np.ndarray:
        blank = np.full(len(rows), np.nan)
        columns = [numbers[n][rows] if n in numbers else blank for n in names]
        return np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))

    species = [n for n in REGISTRY if n in numbers]
    controls = [n for n in CONTROL_NAMES if n in numbers]
    tags = [n for n in AUXILIARY_TAGS if n in numbers]
    days = numbers["day"][rows].astype(int) if "day" in numbers else _day_of(times[rows])
    return Trajectory(
        species=stack(species),
        controls=stack(controls),
        volume_L=volume,
        days=days,
        species_names=species,
        control_names=controls,
        run_id=run_id,
        clone_id=ids["clone_id"][rows[0]],
        reactor_id=ids["reactor_id"][rows[0]],
        times_h=times[rows],
        stream_totals=stack(STREAM_TOTALS),
        auxiliary=stack(tags),
        auxiliary_names=tags,
    )


def _count_missing(numbers: Mapping[str, np.ndarray], columns: Sequence[str]) -> dict[str, int]:
    counts = {n: int(np.sum(np.isnan(numbers[n]))) for n in columns}
    return {n: count for n, count in counts.items() if 0 < count < len(numbers[n])}


def _implausible(spans: Mapping[str, tuple[float, float]], told: Sequence[str]) -> list[str]:
    """Columns with values no culture has, but for those of which that is told already."""
    found = [(name, doubt(name, float(low), float(high))) for name, (low, high) in spans.items()]
    known = {text.split(" ", 1)[0] for text in told}
    return [f"{name} is {text}" for name, text in found if text and name not in known]


def _settle_totals(
    whose: str,
    rows: np.ndarray,
    numbers: dict[str, np.ndarray],
    times: np.ndarray,
    kinds: Totals | Mapping[str, str],
    where: _Where,
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


def _look_at(
    whose: str,
    rows: np.ndarray,
    numbers: Mapping[str, np.ndarray],
    times: np.ndarray,
    where: _Where,
) -> list[str]:
    """What no culture does, and feeds."""
    hours = times[rows].tolist()
    species = {
        name: [None if np.isnan(v) else v for v in numbers[name][rows].tolist()]
        for name in ("VCD", "Glc", "Gln", "Pyr")
        if name in numbers
    }
    fed = feeds(hours, species)
    found = [f"{text} ({where(int(rows[k]))})" for k, text in fed]
    near = np.flatnonzero(np.diff(times[rows]) <= DEFAULT_JOIN_H) + 1
    close = [int(k) for k in near if k not in dict(fed)]
    if close:
        found.append(
            f"{len(close)} row(s) follow the one before within {DEFAULT_JOIN_H:g} h and stay "
            f"samples of their own ({where(int(rows[close[0]]))}): one sample? Make them one row."
        )
    if "time_h" not in numbers:
        odd = hours_called_days(numbers["day"][rows].tolist())
    else:
        odd = too_fast(hours, species["VCD"]) if "VCD" in species else ""
    return [f"{whose}{text}" for text in (*found, odd) if text]


def _two_times(
    whose: str, rows: np.ndarray, numbers: Mapping[str, np.ndarray], where: _Where
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


def rising_totals(trajectories: Sequence[Trajectory]) -> list[str]:
    """Stream totals that would be taken for counters if nobody said that they are none."""
    found = []
    for column, name in enumerate(STREAM_TOTALS):
        for run in trajectories:
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


def _strange(numbers: Mapping[str, np.ndarray]) -> tuple[str, ...]:
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
