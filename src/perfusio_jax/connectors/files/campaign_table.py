"""The campaign table: rows of a pandas frame to the fields of runs, and back.

One row per sample: `run_id, reactor_id, clone_id, time_h`, species, controls, stream totals
and auxiliary tags by canonical name. Row d of a run holds the sample of day d and the
set-points applied from that sample until the next.

Nothing is mended in silence: what cannot be understood is refused with column, row and value;
what can be coped with (another unit, another order of rows, a column left out on request)
is listed in the `FrameReport` that comes back with the runs.

Nothing here knows `states.Trajectory`, which turns itself into a table through this file.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from perfusio_jax._core import HOURS_PER_DAY, STREAM_TOTALS, DataError
from perfusio_jax._core.units import canonical_unit

from ..tables.raw import Numbering
from ..tables.totals import Totals
from ..tables.vocabulary import OURS, TIMES, Vocabulary
from .frame_columns import (
    ID_COLUMNS,
    NUMBER_COLUMNS,
    Where,
    cells_of_process,
    check_columns,
    number_columns,
    read_header,
    unknown_column,
    without_homonyms,
    without_misfits,
)
from .frame_doubts import count_missing, implausible, look_at, settle_totals, strange, two_times
from .frame_numbers import (
    check_values,
    read_ids,
    read_numbers,
    read_times,
    since_start,
    with_points,
)
from .frame_report import FrameReport
from .frame_run import Run, RunFields
from .limit_cells import with_limits


def table_of(runs: Sequence[Run]) -> pd.DataFrame:
    """Write runs as one campaign table, in canonical units.

    Species or controls that some runs lack become NaN there. Metadata is not part of the table.

    Args:
        runs: Runs with distinct `run_id`.

    Returns:
        The table; `frame.attrs["units"]` holds the unit of each numeric column.

    Raises:
        DataError: If two runs share an id or a column has a name outside the contract.
    """
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


def runs_of(
    frame: pd.DataFrame,
    *,
    units: Mapping[str, str] | None = None,
    unknown: Literal["error", "ignore"] = "error",
    volume_L: float = 0.25,
    lines: Sequence[int] | None = None,
    totals: Totals | Mapping[str, str] | None = None,
    decimal: str | None = None,
    words: Vocabulary = OURS,
    keeps_early: bool = False,
) -> tuple[list[RunFields], FrameReport]:
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
        words: Names and units of columns, where they are those of a process.
        keeps_early: Keep rows from before the inoculation, with their negative time.

    Returns:
        The runs in order of first appearance, and the report.

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
    where = Where(list(lines) if lines is not None else None)
    names, header_units = read_header(frame, words)
    stated = {**frame.attrs.get("units", {}), **header_units, **(units or {})}
    odd: list[str] = []
    names = without_homonyms(names, stated, unknown, odd, words)
    if words.process:
        names = cells_of_process(names, stated, words, odd)
        if unknown == "ignore":
            names = without_misfits(names, stated, words, odd)
    ignored = check_columns(names, unknown, words)
    if words.process and (unused := [n for n in names if n in words.strange_species]):
        verb = "is" if len(unused) == 1 else "are"
        odd.append(
            f"{', '.join(unused)} {verb} not read in process '{words.process}' and left out."
        )
    strangers = sorted(set(stated) - set(names) - set(ID_COLUMNS))
    if strangers and units is not None:
        raise DataError(f"units are given for {', '.join(strangers)}, which the table lacks.")
    table = with_points(frame.set_axis(names, axis=1), decimal, where, words)
    assumed: dict[str, str] = {}
    if not keeps_early:
        table, where = since_start(table, where, odd)
    ids = read_ids(table, assumed, where)
    numbers, converted, limits = read_numbers(table, stated, assumed, where, odd, words)
    kept = {n: v for n, v in numbers.items() if not (keeps_early and n in TIMES)}
    check_values(kept, where, words)
    times = read_times(numbers, assumed, where)
    groups, reordered = _group(ids["run_id"], times, where)
    kinds = frame.attrs.get("totals", {}) if totals is None else totals
    spans = {n: (np.nanmin(v), np.nanmax(v)) for n, v in numbers.items() if not np.isnan(v).all()}
    for run, rows in groups.items():
        odd += settle_totals(f"run '{run}': ", rows, numbers, times, kinds, where)
        odd += look_at(f"run '{run}': ", rows, numbers, times, where, words)
        odd += two_times(f"run '{run}': ", rows, numbers, where)
    if "volume_L" not in numbers:
        assumed["volume_L"] = f"{volume_L:g} L"
        numbers["volume_L"] = np.full(len(table), float(volume_L))
    columns = [n for n in number_columns(words) if n in numbers]
    runs = _build(groups, ids, numbers, limits, times, where, words)
    noted = strange(numbers)
    report = FrameReport(
        n_rows=len(table),
        run_ids=tuple(groups),
        columns=tuple([n for n in ID_COLUMNS if n in names] + columns),
        ignored=ignored,
        converted=converted,
        assumed=assumed,
        reordered=reordered,
        empty=tuple(n for n in columns if np.all(np.isnan(numbers[n]))),
        missing=count_missing(numbers, columns),
        warnings=(*odd, *implausible(spans, noted, words), *noted),
    )
    return runs, report


def _run_table(run: Run) -> dict[str, np.ndarray]:
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
                raise DataError(unknown_column(name))
            table[name] = values[:, column]
    if run.limits is not None:
        limits = np.asarray(run.limits, np.float64)
        for column, name in enumerate(run.species_names):
            table[name] = with_limits(table[name], limits[:, column])
    return table


def _day_of(times_h: np.ndarray) -> np.ndarray:
    """Nearest process day [d] of a time [h]."""
    return np.floor(times_h / HOURS_PER_DAY + 0.5).astype(int)


def _group(
    run_ids: Sequence[str], times: np.ndarray, where: Where
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Rows of each run in order of time, and the runs for which that changed something."""
    number = Numbering()
    codes = np.fromiter(map(number.__getitem__, run_ids), np.int64, len(run_ids))
    by_time = np.lexsort((times, codes))  # rows of one time stay in their order
    bounds = np.searchsorted(codes[by_time], np.arange(len(number) + 1))
    repeat = (np.diff(times[by_time]) == 0) & (np.diff(codes[by_time]) == 0)
    if repeat.any():
        at = int(np.argmax(repeat))
        first, second = sorted(by_time[at : at + 2].tolist())
        raise DataError(
            f"run '{run_ids[first]}' has two rows at {times[first]:g} h: {where(first)} and "
            f"{where(second)}. Keep one of them."
        )
    groups, reordered = {}, []
    for k, run in enumerate(number):
        ordered = by_time[bounds[k] : bounds[k + 1]]
        low, n = int(ordered.min()), ordered.size
        if n > 1 and not (ordered[-1] == low + n - 1 and np.all(np.diff(ordered) == 1)):
            reordered.append(run)
        groups[run] = ordered
    return groups, tuple(reordered)


def _build(
    groups: Mapping[str, np.ndarray],
    ids: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
    limits: Mapping[str, np.ndarray],
    times: np.ndarray,
    where: Where,
    words: Vocabulary,
) -> list[RunFields]:
    """Runs of rows in order of time, each a part of arrays of all of them."""
    order = np.concatenate([*groups.values()])
    number = {name: Numbering() for name in ids}
    codes = {n: np.fromiter(map(number[n].__getitem__, ids[n]), np.int32) for n in ids}

    def stack(names: Sequence[str]) -> np.ndarray:
        if not any(name in numbers for name in names):
            return np.broadcast_to(np.nan, (len(order), len(names)))
        whole = np.full((len(order), len(names)), np.nan)
        for k, name in enumerate(names):
            if name in numbers:
                whole[:, k] = numbers[name][order]
        return whole

    species = [n for n in words.species if n in numbers]
    controls = [n for n in words.controls if n in numbers]
    tags = [n for n in words.tags if n in numbers]
    blocks = [stack(names) for names in (species, controls, STREAM_TOTALS, tags)]
    stated = numbers["day"][order] if "day" in numbers else None
    day_of, hours, volumes = _day_of(times[order]), times[order], numbers["volume_L"][order]
    found, end = [], 0
    for run_id, rows in groups.items():
        part = slice(end, end := end + len(rows))
        for name in ("reactor_id", "clone_id"):
            own = codes[name][rows]
            if (own != own[0]).any():
                row = int(rows[np.argmax(own != own[0])])
                raise DataError(
                    f"{name} of run '{run_id}' changes from '{ids[name][rows[0]]}' to "
                    f"'{ids[name][row]}' in {where(row)}; a run has one."
                )
        volume = volumes[part]
        if not (volume > 0).all():
            row = int(rows[np.argmin(volume > 0)])
            raise DataError(f"volume_L is empty or zero in {where(row)}; a volume is above zero.")
        is_whole = stated is not None and not (stated[part] % 1).any()
        days = stated[part].astype(int) if stated is not None and is_whole else day_of[part]
        found.append(
            RunFields(
                species=blocks[0][part],
                controls=blocks[1][part],
                volume_L=volume,
                days=days,
                species_names=species,
                control_names=controls,
                run_id=run_id,
                clone_id=ids["clone_id"][rows[0]],
                reactor_id=ids["reactor_id"][rows[0]],
                times_h=hours[part],
                stream_totals=blocks[2][part],
                auxiliary=blocks[3][part],
                auxiliary_names=tags,
                limits=_limits(limits, species, rows) if limits else None,
            )
        )
    return found


def _limits(
    limits: Mapping[str, np.ndarray], names: Sequence[str], rows: np.ndarray
) -> np.ndarray | None:
    """Limits of assays of one run; None if it has none."""
    blank = np.full((len(rows), 2), np.nan)
    found = [limits[n][rows] if n in limits else blank for n in names]
    out = np.stack(found, axis=1) if found else np.empty((len(rows), 0, 2))
    return out if np.isfinite(out).any() else None
