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
import math
import re
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from perfusio_jax._core import (
    HOURS_PER_DAY,
    STREAM_TOTALS,
    DataError,
    UnitError,
)
from perfusio_jax._core.instants import ImplausibleTime, culture_hours, hours_between
from perfusio_jax._core.plausible import doubt
from perfusio_jax._core.text import in_line, plain_number
from perfusio_jax._core.units import canonical_unit, conversion

from .cells import plain, qualified, understood
from .columns import (
    NUMBERS,
    TIMES,
    UNITS,
    ColumnMap,
    Header,
    bare_label,
    is_numeric,
    other_meaning,
    refuse_second_header,
    role_of,
    suggest,
)
from .joining import DEFAULT_JOIN_H
from .raw import SEPARATORS, RawTable, leave_out_footer
from .report import ColumnReport, ReadReport
from .settling import Conflicts, Row, Settling, some, when
from .spreadsheet import unguard
from .stamps import DateOrder, find_order, is_ambiguous, read_stamp
from .starts import Starts, starts_of
from .totals import Totals

MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "."})
QUALITIES: Final = ("good", "uncertain", "bad")

_LOOKS_LIKE_A_DATE: Final = re.compile(r"\d[-/.]\d{1,2}[-/.]\d")
_SIGNED: Final = frozenset({"TMP", "capacitance", "temperature"})


class Samples(NamedTuple):
    """Rows by (run, reactor, time) and the report on how they were read."""

    rows: dict[tuple[str, str, float], Row]
    report: ReadReport
    columns: tuple[str, ...]
    """Canonical names the table has, whether or not a row holds a value."""


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

    Returns:
        Samples by time with the report.

    Raises:
        DataError: If a column occurs twice, there is no column of times, a time is not a
            number, or nothing in a column can be read.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    if not table.header:
        note = "there is no header yet" if table.held_back else "the file is empty"
        return Samples({}, _report(table, [], [*table.notes, note]), ())
    column_map = column_map or ColumnMap({}, {})
    header = Header(table, column_map, wide, has_start=inoculated_at is not None)
    times = ("sampled_at", *TIMES)
    leave_out_footer(table, [n for n, name in enumerate(header.names) if name in times])
    starts = starts_of(inoculated_at, zone)
    body = _Body(table, header, units or {}, on_conflict, (starts, zone))
    body.date_order = date_order or body.find_date_order()
    for index in body.row_numbers:
        body.read(index)
    body.finish(join_within_h, totals)
    if not body.row_numbers:
        body.notes.append("there is a header and no row yet")
    report = _report(table, body.columns(), [*table.notes, *body.notes], body.counts)
    report = replace(
        report,
        species=tuple(body.species()),
        doubts=tuple(body.doubts),
        n_usable=sum(not row.conflicts for row in body.rows.values()),
    )
    names = [name for name in header.names if name in NUMBERS]
    return Samples(body.rows, report, tuple(names) if wide else tuple(body.seen))


class _OddTimeError(DataError):
    """A row whose time is none: it is left out, with a remark."""


class _Body:
    """Reads rows one by one and remembers what was odd."""

    def __init__(
        self,
        table: RawTable,
        header: Header,
        units: Mapping[str, str],
        on_conflict: Conflicts,
        clock: tuple[Starts | None, zoneinfo.ZoneInfo | None],
    ) -> None:
        self.table, self.header = table, header
        self.on_conflict: Conflicts = on_conflict
        self.starts, self.zone = clock
        self.inoculated_at: dt.datetime | None = None
        self.groups: set[tuple[str, str]] = set()
        self.rows: dict[tuple[str, str, float], Row] = {}
        self.notes: list[str] = []
        self.seen: dict[str, None] = {}
        self.counts = {"duplicate": 0, "corrected": 0, "conflict": 0, "unordered": 0}
        self.tallies = [_Tally() for _ in header.names]
        self.by_species: dict[str, _Tally] = {}
        self.doubts: list[str] = []
        self.left_out: list[str] = []
        self.clones: dict[tuple[str, str], dict[str, None]] = {}
        self.date_order: DateOrder | None = None
        self.sidecar = units
        self.strangers: dict[str, int] = {}
        self.converters: dict[tuple[str, str], Callable[[float], float]] = {}
        numbers = [n for n, name in enumerate(header.names) if is_numeric(name)]
        self.row_numbers = list(range(len(table.rows)))
        self.units = list(header.units)
        first = [table.rows[0][n] for n in numbers] if self.row_numbers else []
        if is_units_row(first, table.decimal):
            self._take_units_row(table.rows[0])
            self.row_numbers.pop(0)
        self.other_meanings: dict[int, str] = {}
        self._settle_units(units)
        self.at = {name: n for n, name in enumerate(header.names) if name}
        self.latest: dict[tuple[str, str], float] = {}
        self.odd_times: list[str] = []
        self.bad_stamps: list[str] = []

    def read(self, index: int) -> None:
        cells, line = self.table.rows[index], self.table.lines[index]
        run_id, reactor_id = (unguard(self._text(cells, n)) for n in ("run_id", "reactor_id"))
        if self.starts is not None and not set(TIMES) & set(self.at):
            self.inoculated_at = self.starts.find(run_id, reactor_id, self.groups)
            if self.inoculated_at is None:  # a run nobody asked for has no start to count from
                return
        stamp, odd = self._stamp(cells, line)
        try:
            time_h = self._time(cells, line, stamp, odd)
        except _OddTimeError as error:  # one row is left out, the others are what they were
            self.odd_times.append(str(error))
            return
        except _BeforeStart as why:
            self.left_out.append(str(why))
            return
        key = (run_id, reactor_id, time_h)
        row = self.rows.setdefault(key, Row(time_h, key[0], key[1]))
        if time_h < self.latest.get(key[:2], -math.inf):
            self.counts["unordered"] += 1
        self.latest[key[:2]] = max(time_h, self.latest.get(key[:2], -math.inf))
        is_repeat = row.last_line > 0
        row.last_line = line
        row.sample_id = row.sample_id or self._text(cells, "sample_id")
        if clone := self._text(cells, "clone_id"):
            self.clones.setdefault(key[:2], {})[clone] = None
        changed = False
        for name, cell, unit, column in self._cells(cells):
            changed |= self._take(row, name, cell, unit, column=column, line=line)
            self._qualify(row, name, cells)
        row.sampled_at = row.sampled_at if stamp is None else stamp.astimezone(dt.UTC)
        if odd:
            row.has_odd_stamp = True
            row.notes.append(odd)
            self.notes.append(f"{odd} The row counts, and nothing tells its age")
        if stamp is not None and is_ambiguous(stamp):
            note = f"sampled_at of {when(time_h)} (line {line}) occurs twice; the first is meant"
            self.notes.append(note)
            row.notes.append(note)
        if self.header.is_wide and is_repeat and not changed:
            self.counts["duplicate"] += 1
            self.notes.append(f"line {line} repeats the row of {when(time_h)}")

    def finish(self, join_within_h: float, totals: Totals | Mapping[str, str] | None) -> None:
        """Do and note what only the whole table shows; see `settling.py`.

        Args:
            join_within_h: How long a sample takes further rows [h].
            totals: What stream totals are.

        Raises:
            DataError: If every row is from before the inoculation.
        """
        if self.odd_times and not self.rows:
            raise DataError(self.odd_times[0])
        if self.bad_stamps and self.tallies[self.at["sampled_at"]].n_values == 0:
            raise DataError(self.bad_stamps[0])
        if self.left_out and not self.rows:
            raise DataError(f"{self.left_out[0]}; so is every other row.")
        notes = self.notes
        if self.starts is not None and (stated := [n for n in TIMES if n in self.at]):
            notes.append(
                f"the start that was given is not used: the times are those of {stated[0]}"
            )
        notes += [f"{text.rstrip('.')}: the row is left out" for text in self.odd_times]
        notes += some("rows from before the inoculation, left out", self.left_out)
        if self.counts["unordered"]:
            notes.append(f"{self.counts['unordered']} rows are not in order of time")
        for name, count in self.strangers.items():
            self.doubts.append(f"{count} rows are of unknown species '{name}'. {suggest(name)}")
        said = dict.fromkeys(STREAM_TOTALS, totals) if isinstance(totals, str) else (totals or {})
        settling = Settling(
            self.rows,
            on_conflict=self.on_conflict,
            join_within_h=join_within_h,
            totals={**said, **self.header.totals},
            in_days="day" in self.at and "time_h" not in self.at,
        )
        settling.settle()
        for kind, count in settling.counts.items():
            self.counts[kind] += count
        notes += settling.notes
        self.doubts += [*_shared(self.clones), *settling.doubts]
        unused = [f"'{label}'" for label in self.header.unused]
        notes += some("entries of the column map that are not in the table", unused)
        lost = [f"'{name}' in '{unit}'" for name, unit in self._unused_units()]
        self.doubts += some(
            "units that are given and not used, since no column has that name here", lost
        )

    def _unused_units(self) -> list[tuple[str, str]]:
        """Units of the sidecar for names that mean nothing in this table."""
        strange = {
            bare_label(label)[0]
            for label, name in zip(self.header.labels, self.header.names, strict=True)
            if name in ("", "ignore")
        }
        used = {*self.header.names, *self.seen, *strange}
        if not self.header.is_wide:
            used |= UNITS  # of a species whose first row is to come
        return [(name, unit) for name, unit in self.sidecar.items() if name not in used]

    def find_date_order(self) -> DateOrder | None:
        """Day or month first, as the time stamps of the table prove it."""
        if "sampled_at" not in self.at:
            return None
        column = self.at["sampled_at"]
        return find_order(str(row[column] or "") for row in self.table.rows)

    def species(self) -> list[ColumnReport]:
        """In long format, each species as if it were a column."""
        return [
            ColumnReport(
                name,
                name,
                role_of(name),
                tally.unit,
                canonical_unit(name),
                tally.n_values,
                tally.n_missing,
                tally.n_unusable,
                tally.remark,
                tally.span,
                doubt(name, *tally.span) if tally.span else "",
                tally.n_limits,
            )
            for name, tally in self.by_species.items()
        ]

    def columns(self) -> list[ColumnReport]:
        reports = []
        present = [name for name in self.header.names if name]
        for n, (label, name) in enumerate(zip(self.header.labels, self.header.names, strict=True)):
            tally = self.tallies[n]
            remark = tally.remark
            role = role_of(name)
            if role == "unknown":
                remark = self.other_meanings.get(n) or suggest(bare_label(label)[0], present)
            elif is_numeric(name) and self.row_numbers and not tally.n_values and name not in TIMES:
                if tally.n_unusable:
                    raise DataError(f"nothing in column '{label}' can be read: {remark}.")
                remark = "no value in any row"
            unit = canonical_unit(name) if name in NUMBERS or name in TIMES else ""
            span = tally.span if name in NUMBERS else None
            reports.append(
                ColumnReport(
                    label,
                    name,
                    role,
                    self.units[n],
                    unit,
                    tally.n_values,
                    tally.n_missing,
                    tally.n_unusable,
                    remark,
                    span,
                    doubt(name, *span) if span else "",
                    tally.n_limits,
                )
            )
        return reports

    def _cells(self, cells: list[Any]) -> list[tuple[str, Any, str, int]]:
        """(name, cell, unit, column) of every measurement in a row of the file."""
        if self.header.is_wide:
            return [
                (name, cells[n], self.units[n], n)
                for n, name in enumerate(self.header.names)
                if name in NUMBERS
            ]
        label = self._text(cells, "species")
        name, unit = self.header.meaning(label)
        if name == "ignore":
            return []
        if name not in NUMBERS:
            self.strangers[label] = self.strangers.get(label, 0) + 1
            return []
        self.seen[name] = None
        column = self.units[self.at["value"]]
        unit = self._text(cells, "unit") or unit or self.sidecar.get(name, "") or column
        return [(name, cells[self.at["value"]], unit, self.at["value"])]

    def _take(self, row: Row, name: str, cell: Any, unit: str, *, column: int, line: int) -> bool:
        """Put one cell into a sample; say whether that changed it."""
        value, quality, problem = self._value(name, cell, unit)
        is_limit = value is not None and bool(problem)
        text = f"{name} of {when(row.time_h)} (line {line}) {problem}" if problem else ""
        tallies = [self.tallies[column]]
        if not self.header.is_wide:
            tallies.append(self.by_species.setdefault(name, _Tally(unit=unit)))
        for tally in tallies:
            tally.take(value, is_bad=bool(problem), is_limit=is_limit, text=text)
        if problem:
            text += "" if is_limit else ": counted as missing"
            self.notes.append(text)
            row.notes.append(text.removesuffix(": counted as missing"))
        before = row.values.get(name)
        if name in row.values and (value is None or value == before):
            if not self.header.is_wide:
                self.counts["duplicate"] += 1
                self.notes.append(f"line {line} repeats {name} of {when(row.time_h)}")
            return False
        if before is None:
            row.values[name], row.quality[name], row.lines[name] = value, quality, line
            return True
        text = (
            f"{name} of {when(row.time_h)} is {before:g} in line {row.lines[name]} and "
            f"{value:g} in line {line}"
        )
        if self.on_conflict == "error":
            self.counts["conflict"] += 1
            row.conflicts.append(text)
            self.notes.append(f"{text}: that day is refused")
            return True
        self.counts["corrected"] += 1
        row.notes.append(text)
        self.notes.append(f"{text}: the later row counts")
        row.values[name], row.quality[name], row.lines[name] = value, quality, line
        return True

    def _value(self, name: str, cell: Any, unit: str) -> tuple[float | None, str, str]:
        """(value, quality, what is odd) of one cell."""
        number = parse_number(cell, self.table.decimal)
        if number is None:
            return None, "missing", ""
        if isinstance(number, str):
            return self._odd_value(name, number, unit)
        if math.isinf(number):
            return None, "bad", "is infinite"
        value = self._converter(name, unit)(number)
        if value < 0.0 and name not in _SIGNED:
            return None, "bad", f"is negative ({number:g} {unit or canonical_unit(name)})"
        if name == "Via" and value > 100.0:
            return None, "bad", f"is {value:g} %, above 100 %"
        return value, "good", ""

    def _odd_value(self, name: str, text: str, unit: str) -> tuple[float | None, str, str]:
        """(value, quality, what is odd) of a cell that is more than a number."""
        number, kind = understood(
            text, name, unit, lambda part: parse_number(part, self.table.decimal)
        )
        if kind == "above":
            return None, "bad", f"is {in_line(text)}, above what the assay reads"
        if number is None:
            return None, "bad", f"is {in_line(text)}, not a number"
        value = self._converter(name, unit)(number)
        if kind == "below":
            return value, "uncertain", f"is {text!r}: half the limit of the assay is taken"
        return self._value(name, value, "")

    def _converter(self, name: str, unit: str) -> Callable[[float], float]:
        """Conversion to the canonical unit, worked out once per column and unit."""
        key = (name, unit)
        if key not in self.converters:
            line = conversion(unit or canonical_unit(name), name)
            is_same = line.slope == 1 and not line.offset
            self.converters[key] = float if is_same else lambda number: float(line(number))
        return self.converters[key]

    def _qualify(self, row: Row, name: str, cells: list[Any]) -> None:
        for column in (f"{name}_quality", "quality"):
            text = self._text(cells, column).casefold()
            if not text:
                continue
            if text not in QUALITIES:
                raise DataError(f"{column} is '{text}'; allowed are {', '.join(QUALITIES)}.")
            if row.values.get(name) is None:
                if text == "bad" and column != "quality":
                    row.quality[name] = "bad"  # there was a value and it was left out
                continue
            row.quality[name] = text
            if text == "bad":
                row.notes.append(f"{name} of {when(row.time_h)} is marked bad")
                row.values[name] = None
            return

    def _stamp(self, cells: list[Any], line: int) -> tuple[dt.datetime | None, str]:
        """The time stamp of a row, and what is odd where there is one that is none."""
        text = self._text(cells, "sampled_at")
        if text.casefold() in MISSING:
            return None, ""
        tally = self.tallies[self.at["sampled_at"]]
        try:
            stamp = read_stamp(text, f"sampled_at in line {line}", self.zone, self.date_order)
        except DataError as error:
            tally.n_unusable += 1
            if not isinstance(error, ImplausibleTime):
                self.bad_stamps.append(str(error))
            return None, str(error)
        tally.n_values += 1
        return stamp, ""

    def _time(self, cells: list[Any], line: int, stamp: dt.datetime | None, odd: str) -> float:
        if self.inoculated_at is not None and not set(TIMES) & set(self.at):
            if odd:
                raise _OddTimeError(odd)
            if stamp is None:
                raise DataError(f"sampled_at is missing in line {line}; the time comes from it.")
            hours = hours_between(stamp, self.inoculated_at)
            if hours < 0.0:
                raise _BeforeStart(
                    f"sampled_at in line {line} is {-hours:.4g} h before the inoculation at "
                    f"{self.inoculated_at.isoformat()}"
                )
            return hours
        found: dict[str, float] = {}
        for name in TIMES:
            if name not in self.at:
                continue
            column = self.at[name]
            number = parse_number(cells[column], self.table.decimal)
            if not isinstance(number, float) or not math.isfinite(number):
                text = (
                    f"{name} is {in_line(cells[column])} in line {line}; a number of at least 0 is "
                    "needed. A line below the table that is no sample has to be taken out."
                )
                if _LOOKS_LIKE_A_DATE.search(str(cells[column])):
                    text += " A column of dates is sampled_at; a column map can say so."
                if not isinstance(number, float):
                    raise DataError(text)
                self.tallies[column].n_unusable += 1
                raise _OddTimeError(text)
            if number < 0.0:
                raise _BeforeStart(
                    f"{name} is {in_line(cells[column])} in line {line}, before the inoculation"
                )
            hours = self._converter(name, self.units[column])(number)
            try:
                found[name] = culture_hours(
                    hours * HOURS_PER_DAY if name == "day" else hours, f"{name} in line {line}"
                )
            except ImplausibleTime as error:
                self.tallies[column].n_unusable += 1
                raise _OddTimeError(str(error)) from None
            self.tallies[column].n_values += 1
        if len(found) == 2 and abs(found["day"] - found["time_h"]) > 0.5 * HOURS_PER_DAY:
            raise DataError(
                f"line {line} is day {found['day'] / HOURS_PER_DAY:g} and {found['time_h']:g} h, "
                "which are not the same day."
            )
        return found.get("time_h", found.get("day", math.nan))

    def _text(self, cells: list[Any], name: str) -> str:
        column = self.at.get(name)
        if column is None or cells[column] is None:
            return ""
        return str(cells[column]).strip()

    def _take_units_row(self, cells: list[Any]) -> None:
        texts = ["" if cell is None else str(cell).strip().strip("[]()").strip() for cell in cells]
        names = self.header.names
        stated = [(names[n], text) for n, text in enumerate(texts) if text and names[n] in UNITS]
        refuse_second_header(self.table.lines[0], stated)
        for n, text in enumerate(texts):
            name = names[n]
            if not text or not (is_numeric(name) or name == "value"):
                continue
            if self.units[n] and self.units[n] != text:
                raise DataError(
                    f"column '{self.header.labels[n]}' is in '{self.units[n]}' by its header and "
                    f"in '{text}' by the units row; correct one of them."
                )
            self.units[n] = text
        self.notes.append(f"line {self.table.lines[0]} was read as a row of units")

    def _settle_units(self, sidecar: Mapping[str, str]) -> None:
        for n, name in enumerate(self.header.names):
            if name not in NUMBERS and name not in TIMES:
                continue
            stated = sidecar.get(name, "").strip()
            if stated and self.units[n] and stated != self.units[n]:
                raise DataError(
                    f"column '{name}' is in '{self.units[n]}' by the table and in '{stated}' by "
                    "the sidecar; correct one of them."
                )
            self.units[n] = self.units[n] or stated
            label = self.header.labels[n]
            if is_other := other_meaning(name, self.units[n], self.header.labels):
                self.header.names[n] = ""
                self.other_meanings[n] = is_other
                continue
            try:
                self._converter(name, self.units[n])  # refuses a unit that does not fit, at once
            except UnitError as error:
                raise UnitError(
                    f"{error} A column map can state another unit, or leave the column out: "
                    f"'{label}' = 'ignore' (--map)."
                ) from None


def parse_number(cell: Any, decimal: str = ".") -> float | str | None:
    """One cell as a number.

    Args:
        cell: Text, number or `None`.
        decimal: Decimal mark of text.

    Returns:
        The number; `None` where nothing was measured; the text itself if it is no number.
    """
    if cell is None or isinstance(cell, bool):
        return None if cell is None else str(cell)
    if isinstance(cell, str):
        text = cell.strip()
        if text.casefold() in MISSING:
            return None
        try:
            number = plain_number(plain(text, decimal))
        except ValueError:
            return text
    else:
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            return in_line(cell)
    return None if math.isnan(number) else number


class _BeforeStart(Exception):
    """A row from before the inoculation."""


@dataclass(slots=True)
class _Tally:
    """What was found in one column."""

    unit: str = ""
    n_values: int = 0
    n_missing: int = 0
    n_unusable: int = 0
    n_limits: int = 0
    span: tuple[float, float] | None = None
    remark: str = ""

    def take(self, value: float | None, *, is_bad: bool, is_limit: bool, text: str) -> None:
        if value is None:
            self.n_unusable += is_bad
            self.n_missing += not is_bad
            self.remark = self.remark or text
            return
        self.n_values += 1
        self.n_limits += is_limit
        low, high = self.span or (value, value)
        self.span = (min(low, value), max(high, value))


def _shared(clones: Mapping[tuple[str, str], Mapping[str, None]]) -> list[str]:
    """Runs, or vessels without one, that have more than one clone."""
    found = []
    for (run_id, reactor_id), names in clones.items():
        if len(names) > 1:
            whose = f"run '{run_id}'" if run_id else f"reactor '{reactor_id}'"
            found.append(
                f"{whose} has the clones {', '.join(names)}: two cultures in one? A column run_id "
                "tells them apart"
            )
    return found


def is_units_row(cells: Sequence[Any], decimal: str) -> bool:
    """Whether a first row holds text, and nothing that reads as a value, in number columns.

    Args:
        cells: Of the columns of numbers.
        decimal: Decimal mark of text.
    """
    parsed = [parse_number(cell, decimal) for cell in cells]
    texts = [text for text in parsed if isinstance(text, str)]
    readings = [q for q in map(qualified, texts) if q and (q.sign or q.unit.startswith("%"))]
    return bool(texts) and not readings and not any(isinstance(p, float) for p in parsed)


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
