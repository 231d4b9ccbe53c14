"""Cells to samples: which column is what, in which unit, and what to make of odd values.

Coping rules, each of them reported and none of them silent:

- An unknown column is listed with a suggestion; an unknown unit is refused by name.
- A value that is negative, infinite or no number counts as missing, its quality as "bad".
- `< 0.05` is read as half the limit, its quality as "uncertain"; `> 20` counts as missing. A cell
  may carry its unit (`98 %`).
- A row from before the inoculation is left out.
- Rows of one sample that lie minutes apart are joined (`joining.py`); a total that looks like a
  counter is not used until somebody says what it is (`totals.py`).
- The same value twice for one time is tolerated; a value that fills a gap is taken; two
  different values are a conflict, which is refused when that day is read (or the later row
  wins, if the caller said so).
- Rows may come in any order.
"""

import datetime as dt
import zoneinfo
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from .body import Body
from .column_map import ColumnMap
from .columns import Header
from .file_rules import NegativeTime, Unknown
from .joining import DEFAULT_JOIN_H
from .labels import TIMES
from .raw import SEPARATORS, RawTable, leave_out_footer
from .report import ColumnReport, ReadReport
from .run_rows import SampleRows
from .settling import Conflicts
from .stamps import DateOrder
from .starts import Starts, starts_of
from .totals import Totals
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from perfusio_jax.process import Process


class Samples(NamedTuple):
    """Rows by (run, reactor, time) and the report on how they were read."""

    rows: SampleRows
    report: ReadReport
    columns: tuple[str, ...]
    """Canonical names the table has, whether or not a row holds a value."""
    clones: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType({})
    """Clones by run and reactor, of those that say one."""


def interpret(
    table: RawTable,
    *,
    wide: bool = True,
    column_map: ColumnMap | None = None,
    units: Mapping[str, str] | None = None,
    on_conflict: Conflicts = "error",
    inoculated_at: dt.datetime | Mapping[str, dt.datetime] | Starts | None = None,
    zone: zoneinfo.ZoneInfo | None = None,
    date_order: DateOrder | None = None,
    join_within_h: float = DEFAULT_JOIN_H,
    totals: Totals | Mapping[str, str] | None = None,
    process: "Process | None" = None,
    unknown: Unknown | None = None,
    negative_time: NegativeTime = "drop",
) -> Samples:
    """Make samples of cells.

    Args:
        table: Cells of a file.
        wide: One column per species; else one row per value with `species` and `value`.
        column_map: What the user says about the columns.
        units: Unit by canonical name, as a sidecar file states them.
        on_conflict: What two different values for one time mean: an error when that day is
            read, or a correction in which the later row wins.
        inoculated_at: When the run, or each run by name, began; then `sampled_at` can stand in
            for a column of times.
        zone: Zone of time stamps without an offset.
        date_order: Day or month first in dates with the year last; found out if a number tells.
        join_within_h: How long after its first row [h] a sample takes further ones.
        totals: What stream totals are, all of them or by canonical name: "cumulative" for
            counters, "increments" for volumes since the sample before; told apart if not given.
        process: The culture whose quantities and controls are read beside our names, in its units;
            a column map may give its names, too.
        unknown: "refuse" if a column nobody knows makes the file unusable.
        negative_time: "refuse" if a row from before the inoculation makes the file unusable, "keep"
            if it stays, with its negative time.

    Returns:
        Samples by time with the report.

    Raises:
        DataError: If a column occurs twice, there is no column of times, a time is not a
            number, nothing in a column can be read, or a control is none of the process.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    if not table.header:
        note = "there is no header yet" if table.held_back else "the file is empty"
        return Samples(SampleRows({}), _report(table, [], [*table.notes, note]), ())
    column_map = column_map or ColumnMap({}, {})
    words = Vocabulary.of(process)
    header = Header(table, column_map, wide, has_start=inoculated_at is not None, words=words)
    times = ("sampled_at", *TIMES)
    leave_out_footer(table, [n for n, name in enumerate(header.names) if name in times])
    starts = starts_of(inoculated_at, zone)
    body = Body(table, header, units or {}, on_conflict, (starts, zone), date_order)
    body.times.keeps_early = negative_time == "keep"
    body.read_all()
    if negative_time == "refuse" and body.left_out:
        raise DataError(f"{body.left_out[0]}; such rows are refused (negative_time).")
    body.finish(join_within_h, totals)
    if not body.row_numbers:
        body.notes.append("there is a header and no row yet")
    report = _report(table, body.columns(), [*table.notes, *body.notes], body.counts)
    if unknown == "refuse" and report.unknown:
        hint = next(c.remark for c in report.columns if c.role == "unknown")
        raise DataError(
            f"column {in_line(report.unknown[0])} is not known and unknown columns are refused. "
            f"{hint}"
        )
    report = replace(
        report,
        species=tuple(body.species()),
        doubts=tuple(body.doubts),
        n_usable=len(body.samples) - body.samples.n_contradicted,
    )
    names = [name for name in header.names if name in words.numbers]
    clones = {whose: tuple(found) for whose, found in body.clones.items()}
    return Samples(body.samples, report, tuple(names) if wide else tuple(body.seen), clones)


def _report(
    table: RawTable,
    columns: list[ColumnReport],
    notes: list[str],
    counts: Mapping[str, int] | None = None,
) -> ReadReport:
    counts = counts or {}
    return ReadReport(
        columns=tuple(columns),
        n_rows=max((c.n_values for c in columns if c.role in ("time", "time stamp")), default=0),
        separator=SEPARATORS.get(table.separator or ""),
        decimal={".": "point", ",": "comma"}[table.decimal],
        held_back=table.held_back,
        n_duplicates=counts.get("duplicate", 0),
        n_corrected=counts.get("corrected", 0),
        n_conflicts=counts.get("conflict", 0),
        notes=tuple(notes),
    )
