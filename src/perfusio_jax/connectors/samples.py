"""Cells to samples: which column is what, in which unit, and what to make of odd values.

Coping rules, each of them reported and none of them silent:

- An unknown column is listed with a suggestion; an unknown unit is refused by name.
- A value that is negative, infinite or no number counts as missing, its quality as "bad".
- The same value twice for one time is tolerated; a value that fills a gap is taken; two
  different values are a conflict, which is refused when that day is read (or the later row
  wins, if the caller said so).
- Rows may come in any order.
"""

import datetime as dt
import math
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from perfusio_jax._core import (
    HOURS_PER_DAY,
    DataError,
)
from perfusio_jax._core.instants import ImplausibleTime, culture_hours, hours_between
from perfusio_jax._core.text import in_line, plain_number
from perfusio_jax._core.units import canonical_unit, convert

from .columns import (
    FOLDED,
    NUMBERS,
    TIMES,
    ColumnMap,
    Header,
    bare_label,
    is_numeric,
    role_of,
    suggest,
)
from .report import ColumnReport, ReadReport
from .spreadsheet import unguard
from .stamps import is_ambiguous, read_stamp
from .tables import SEPARATORS, RawTable

Conflicts = Literal["error", "last"]

MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "."})
QUALITIES: Final = ("good", "uncertain", "bad")

_SIGNED: Final = frozenset({"TMP", "capacitance", "temperature"})


@dataclass(slots=True)
class Row:
    """Everything known about one reactor at one time."""

    time_h: float
    run_id: str
    reactor_id: str
    values: dict[str, float | None] = field(default_factory=dict)
    quality: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    sampled_at: dt.datetime | None = None
    has_odd_stamp: bool = False
    """Whether a time stamp stands there that is none: then nothing tells its age."""
    notes: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    last_line: int = 0


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
    inoculated_at: dt.datetime | None = None,
    zone: zoneinfo.ZoneInfo | None = None,
) -> Samples:
    """Make samples of cells.

    Args:
        table: Cells of a file.
        wide: One column per species; else one row per value with `species` and `value`.
        column_map: What the user says about the columns.
        units: Unit by canonical name, as a sidecar file states them.
        on_conflict: What two different values for one time mean: an error when that day is
            read, or a correction in which the later row wins.
        inoculated_at: When the run began; then `sampled_at` can stand in for a column of times.
        zone: Zone of time stamps without an offset.

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
    body = _Body(table, header, units or {}, on_conflict, (inoculated_at, zone))
    for index in body.row_numbers:
        body.read(index)
    body.finish()
    if not body.row_numbers:
        body.notes.append("there is a header and no row yet")
    report = _report(table, body.columns(), [*table.notes, *body.notes], body.counts)
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
        clock: tuple[dt.datetime | None, zoneinfo.ZoneInfo | None],
    ) -> None:
        self.table, self.header, self.on_conflict = table, header, on_conflict
        self.inoculated_at, self.zone = clock
        self.rows: dict[tuple[str, str, float], Row] = {}
        self.notes: list[str] = []
        self.seen: dict[str, None] = {}
        self.counts = {"duplicate": 0, "corrected": 0, "conflict": 0, "unordered": 0}
        self.tally = [[0, 0, 0] for _ in header.names]  # values, missing, unusable
        self.ranges: dict[int, tuple[float, float]] = {}
        self.remarks: dict[int, str] = {}
        self.sidecar = units
        self.strangers: dict[str, int] = {}
        self.converters: dict[tuple[str, str], Callable[[float], float]] = {}
        numbers = [n for n, name in enumerate(header.names) if is_numeric(name)]
        self.row_numbers = list(range(len(table.rows)))
        self.units = list(header.units)
        if self.row_numbers and _is_units_row(table.rows[0], numbers, table.decimal):
            self._take_units_row(table.rows[0])
            self.row_numbers.pop(0)
        self._settle_units(units)
        self.at = {name: n for n, name in enumerate(header.names) if name}
        self.latest: dict[tuple[str, str], float] = {}
        self.odd_times: list[str] = []
        self.bad_stamps: list[str] = []

    def read(self, index: int) -> None:
        cells, line = self.table.rows[index], self.table.lines[index]
        stamp, odd = self._stamp(cells, line)
        try:
            time_h = self._time(cells, line, stamp, odd)
        except _OddTimeError as error:  # one row is left out, the others are what they were
            self.odd_times.append(str(error))
            return
        run_id, reactor_id = (unguard(self._text(cells, n)) for n in ("run_id", "reactor_id"))
        key = (run_id, reactor_id, time_h)
        row = self.rows.setdefault(key, Row(time_h, key[0], key[1]))
        if time_h < self.latest.get(key[:2], -math.inf):
            self.counts["unordered"] += 1
        self.latest[key[:2]] = max(time_h, self.latest.get(key[:2], -math.inf))
        is_repeat = row.last_line > 0
        row.last_line = line
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
            note = f"sampled_at of {_when(time_h)} (line {line}) occurs twice; the first is meant"
            self.notes.append(note)
            row.notes.append(note)
        if self.header.is_wide and is_repeat and not changed:
            self.counts["duplicate"] += 1
            self.notes.append(f"line {line} repeats the row of {_when(time_h)}")

    def finish(self) -> None:
        """Note what only the whole table shows.

        Raises:
            DataError: If no row has a time that can be used, or no time stamp can be read.
        """
        if self.odd_times and not self.rows:
            raise DataError(self.odd_times[0])
        if self.bad_stamps and self.tally[self.at["sampled_at"]][0] == 0:
            raise DataError(self.bad_stamps[0])
        self.notes += [f"{text.rstrip('.')}: the row is left out" for text in self.odd_times]
        if self.counts["unordered"]:
            self.notes.append(f"{self.counts['unordered']} rows are not in order of time")
        for name, count in self.strangers.items():
            self.notes.append(f"{count} rows are of unknown species '{name}'. {suggest(name)}")

    def columns(self) -> list[ColumnReport]:
        reports = []
        for n, (label, name) in enumerate(zip(self.header.labels, self.header.names, strict=True)):
            values, missing, unusable = self.tally[n]
            remark = self.remarks.get(n, "")
            role = role_of(name)
            if role == "unknown":
                remark = suggest(bare_label(label)[0])
            elif is_numeric(name) and self.row_numbers and values == 0 and name not in TIMES:
                if unusable:
                    raise DataError(f"nothing in column '{label}' can be read: {remark}.")
                remark = "no value in any row"
            unit = canonical_unit(name) if name in NUMBERS or name in TIMES else ""
            reports.append(
                ColumnReport(
                    label,
                    name,
                    role,
                    self.units[n],
                    unit,
                    values,
                    missing,
                    unusable,
                    remark,
                    self.ranges.get(n) if name in NUMBERS else None,
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
        bare, unit = bare_label(label)
        name = FOLDED.get(bare.casefold(), "")
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
        self.tally[column][0 if value is not None else (2 if problem else 1)] += 1
        if value is not None:
            low, high = self.ranges.get(column, (value, value))
            self.ranges[column] = (min(low, value), max(high, value))
        if problem:
            text = f"{name} of {_when(row.time_h)} (line {line}) {problem}"
            self.remarks.setdefault(column, text)
            self.notes.append(f"{text}: counted as missing")
            row.notes.append(text)
        before = row.values.get(name)
        if name in row.values and (value is None or value == before):
            if not self.header.is_wide:
                self.counts["duplicate"] += 1
                self.notes.append(f"line {line} repeats {name} of {_when(row.time_h)}")
            return False
        if before is None:
            row.values[name], row.quality[name], row.lines[name] = value, quality, line
            return True
        text = (
            f"{name} of {_when(row.time_h)} is {before:g} in line {row.lines[name]} and "
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
        """(value, quality, problem) of one cell."""
        number = parse_number(cell, self.table.decimal)
        if number is None:
            return None, "missing", ""
        if isinstance(number, str):
            return None, "bad", f"is {in_line(number)}, not a number"
        if math.isinf(number):
            return None, "bad", "is infinite"
        value = self._converter(name, unit)(number)
        if value < 0.0 and name not in _SIGNED:
            return None, "bad", f"is negative ({number:g} {unit or canonical_unit(name)})"
        if name == "Via" and value > 100.0:
            return None, "bad", f"is {value:g} %, above 100 %"
        return value, "good", ""

    def _converter(self, name: str, unit: str) -> Callable[[float], float]:
        """Affine conversion to the canonical unit, worked out once per column and unit."""
        key = (name, unit)
        if key not in self.converters:
            wanted = canonical_unit(name)
            if not unit or unit == wanted:
                self.converters[key] = lambda number: number
            else:
                zero, one = (float(v) for v in convert([0.0, 1.0], unit, wanted, name))
                slope = one - zero
                self.converters[key] = lambda number: zero + slope * number
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
                row.notes.append(f"{name} of {_when(row.time_h)} is marked bad")
                row.values[name] = None
            return

    def _stamp(self, cells: list[Any], line: int) -> tuple[dt.datetime | None, str]:
        """The time stamp of a row, and what is odd where there is one that is none."""
        text = self._text(cells, "sampled_at")
        if text.casefold() in MISSING:
            return None, ""
        counts = self.tally[self.at["sampled_at"]]
        try:
            stamp = read_stamp(text, f"sampled_at in line {line}", self.zone)
        except DataError as error:
            counts[2] += 1
            if not isinstance(error, ImplausibleTime):
                self.bad_stamps.append(str(error))
            return None, str(error)
        counts[0] += 1
        return stamp, ""

    def _time(self, cells: list[Any], line: int, stamp: dt.datetime | None, odd: str) -> float:
        if self.inoculated_at is not None and not set(TIMES) & set(self.at):
            if odd:
                raise _OddTimeError(odd)
            if stamp is None:
                raise DataError(f"sampled_at is missing in line {line}; the time comes from it.")
            hours = hours_between(stamp, self.inoculated_at)
            if hours < 0.0:
                raise DataError(
                    f"sampled_at in line {line} is {-hours:.4g} h before the inoculation at "
                    f"{self.inoculated_at.isoformat()}."
                )
            return hours
        found: dict[str, float] = {}
        for name in TIMES:
            if name not in self.at:
                continue
            column = self.at[name]
            number = parse_number(cells[column], self.table.decimal)
            if not isinstance(number, float) or not 0.0 <= number < math.inf:
                text = (
                    f"{name} is {in_line(cells[column])} in line {line}; a number of at least 0 "
                    "is needed."
                )
                if not isinstance(number, float):
                    raise DataError(text)
                self.tally[column][2] += 1
                raise _OddTimeError(text)
            hours = self._converter(name, self.units[column])(number)
            try:
                found[name] = culture_hours(
                    hours * HOURS_PER_DAY if name == "day" else hours, f"{name} in line {line}"
                )
            except ImplausibleTime as error:
                self.tally[column][2] += 1
                raise _OddTimeError(str(error)) from None
            self.tally[column][0] += 1
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
        for n, cell in enumerate(cells):
            text = "" if cell is None else str(cell).strip().strip("[]()").strip()
            name = self.header.names[n]
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
            self._converter(name, self.units[n])  # refuses a unit that does not fit, at once


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
            number = plain_number(text.replace(",", ".") if decimal == "," else text)
        except ValueError:
            return text
    else:
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            return in_line(cell)
    return None if math.isnan(number) else number


def _is_units_row(cells: list[Any], numeric: list[int], decimal: str) -> bool:
    """Whether a first row holds text, and nothing that reads as a value, in number columns."""
    parsed = [parse_number(cells[n], decimal) for n in numeric]
    return any(isinstance(p, str) for p in parsed) and not any(isinstance(p, float) for p in parsed)


def _when(time_h: float) -> str:
    day = time_h / HOURS_PER_DAY
    return f"day {day:g}" if day == round(day) else f"{time_h:g} h"


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
