"""Rows of a table taken in: what is plain at once, by column; what is odd, one by one.

What a row says is put into samples, and everything odd about it is remembered as it is met; what
the coping rules are stands in `samples.py`.
"""

import datetime as dt
import math
import zoneinfo
from collections.abc import Mapping
from typing import Any, Final

from perfusio_jax._core import STREAM_TOTALS, DataError

from .cell_doubts import late_start
from .column_units import ColumnUnits, is_units_row
from .columns import Header
from .labels import TIMES, bare_label, role_of
from .long_rows import LongReader
from .plain_rows import PlainReader, PlainRows
from .raw import RawTable
from .report import ColumnReport
from .row_times import BeforeStart, OddTimeError, RowTimes
from .run_rows import Key, Row, SampleRows, as_compared, as_said
from .settling import Conflicts, Settling, some, when
from .spreadsheet import unguard
from .stamps import DateOrder, is_ambiguous
from .starts import Starts
from .suggestions import suggest
from .tally import Tally
from .totals import Totals
from .values import ValueReader

QUALITIES: Final = ("good", "uncertain", "bad")

_REPEATS: Final = 20
"""Rows that repeat others and are named; the others are counted."""
_REMEMBERED: Final = 50_000
"""Cells whose reading is kept: most of a long table were there before."""


class Body:
    """Reads rows one by one and remembers what was odd."""

    def __init__(
        self,
        table: RawTable,
        header: Header,
        units: Mapping[str, str],
        on_conflict: Conflicts,
        clock: tuple[Starts | None, zoneinfo.ZoneInfo | None],
        date_order: DateOrder | None,
    ) -> None:
        self.table, self.header, self.words = table, header, header.words
        self.on_conflict: Conflicts = on_conflict
        self.rows: dict[Key, Row] = {}
        self.samples = SampleRows({})
        self.notes: list[str] = []
        self.seen: dict[str, None] = {}
        self.counts = {"duplicate": 0, "corrected": 0, "conflict": 0, "unordered": 0}
        self.tallies = [Tally() for _ in header.names]
        self.by_species: dict[str, Tally] = {}
        self.doubts: list[str] = []
        self.left_out: list[str] = []
        self.clones: dict[tuple[str, str], dict[str, None]] = {}
        self.strangers: dict[str, int] = {}
        self.marked_bad: dict[str, int] = {}
        numbers = [n for n, name in enumerate(header.names) if self.words.is_numeric(name)]
        self.row_numbers = list(range(table.n_rows))
        self.units = ColumnUnits(header, units)
        cells = table.row(0) if self.row_numbers else []
        if cells and is_units_row([cells[n] for n in numbers], table.decimal):
            self.units.take_row(cells, table.lines[0])
            self.notes.append(f"line {table.lines[0]} was read as a row of units")
            self.row_numbers.pop(0)
        self.units.settle()
        self.notes += self.units.notes
        self.values = ValueReader(self.units, table.decimal)
        self.at = {name: n for n, name in enumerate(header.names) if name}
        self.latest: dict[tuple[str, str], float] = {}
        self.odd_times: list[str] = []
        known = frozenset(self.words.numbers)
        self._wide = [
            (name, self.units.units[n], n) for n, name in enumerate(header.names) if name in known
        ]
        self._has_quality = any(n == "quality" or n.endswith("_quality") for n in self.at)
        self._read_before: dict[tuple[str, Any, str], tuple[float | None, str, str]] = {}
        self.times = RowTimes(table, self.at, self.units, self.tallies, clock, date_order)

    def read_all(self) -> None:
        """Take in the rows of the table: what is plain at once, what is odd row by row."""
        plain = None
        if self.row_numbers and not self._has_quality:
            plain = self._plain_rows() if self.header.is_wide else self._plain_long()
        if plain is None:
            for index in self.row_numbers:
                self.read(index, self.table.rows[index])
                self.table.rows[index] = []  # what was taken in need not be held twice
            self.samples = SampleRows.of(self.rows)
            return
        self.clones |= plain.clones
        for index in sorted([*plain.odd, *plain.repeats]):
            if index in plain.odd:
                self.read(index, plain.odd[index])
            else:
                self._count_repeat(index, plain.repeats[index])
        self.counts["unordered"] = plain.n_unordered
        self.samples = plain.with_odd(self.rows)

    def _plain_reader(self) -> PlainReader:
        return PlainReader(
            self.table,
            self.row_numbers,
            self.at,
            self._wide if self.header.is_wide else [],
            self.tallies,
            self.times,
            self.values.read,
        )

    def _plain_rows(self) -> PlainRows:
        return self._plain_reader().take()

    def _plain_long(self) -> PlainRows | None:
        column = self.units.units[self.at["value"]]
        found = LongReader(
            self._plain_reader(),
            (self.at["species"], self.at["value"], self.at.get("unit")),
            self._meant,
            lambda name: self.units.sidecar.get(name, "") or column,
            self.values.read,
        ).take()
        if found is None:
            return None
        self.seen |= dict.fromkeys(found.units)
        self.strangers |= found.strangers
        self.by_species |= found.tallies
        return found.rows

    def read(self, index: int, cells: list[Any]) -> None:
        """Take in one row of the table.

        Args:
            index: Its number.
            cells: What stands in it.
        """
        line = self.table.lines[index]
        run_id, reactor_id = (unguard(self._text(cells, n)) for n in ("run_id", "reactor_id"))
        start = self.times.start_of(run_id, reactor_id) if self.times.are_counted else None
        if self.times.are_counted and start is None:
            return  # a run nobody asked for has no start to count from
        stamp, odd = self.times.stamp(self._text(cells, "sampled_at"), line)
        try:
            time_h = (
                self.times.stated(cells, line)
                if start is None
                else self.times.since(start, stamp, odd, line)
            )
        except OddTimeError as error:  # one row is left out, the others are what they were
            self.odd_times.append(str(error))
            return
        except BeforeStart as why:
            self.left_out.append(str(why))
            return
        key = (run_id, reactor_id, time_h)
        row = self.rows.setdefault(key, Row(time_h, key[0], key[1], line))
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
            if self._has_quality:
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
            if self.counts["duplicate"] <= _REPEATS:
                self.notes.append(f"line {line} repeats the row of {when(time_h)}")

    def _count_repeat(self, index: int, time_h: float) -> None:
        self.counts["duplicate"] += 1
        if self.counts["duplicate"] <= _REPEATS:
            self.notes.append(f"line {self.table.lines[index]} repeats the row of {when(time_h)}")

    def finish(self, join_within_h: float, totals: Totals | Mapping[str, str] | None) -> None:
        """Do and note what only the whole table shows; see `settling.py`.

        Args:
            join_within_h: How long a sample takes further rows [h].
            totals: What stream totals are.

        Raises:
            DataError: If every row is from before the inoculation.
        """
        if self.odd_times and not self.samples:
            raise DataError(self.odd_times[0])
        if self.times.bad_stamps and self.tallies[self.at["sampled_at"]].n_values == 0:
            raise DataError(self.times.bad_stamps[0])
        if self.left_out and not self.samples:
            raise DataError(f"{self.left_out[0]}; so is every other row.")
        notes = self.notes
        if self.times.starts is not None and (stated := [n for n in TIMES if n in self.at]):
            notes.append(
                f"the start that was given is not used: the times are those of {stated[0]}"
            )
        notes += [f"{text.rstrip('.')}: the row is left out" for text in self.odd_times]
        notes += some("rows from before the inoculation, left out", self.left_out)
        if self.counts["unordered"]:
            notes.append(f"{self.counts['unordered']} rows are not in order of time")
        if self.header.is_wide and self.counts["duplicate"] > _REPEATS:
            notes.append(f"and {self.counts['duplicate'] - _REPEATS} more lines repeat others")
        nameless = [run for run in self.samples.runs.values() if not run.run_id]
        n_nameless = sum(map(len, nameless))
        if 0 < n_nameless < len(self.samples):
            first = min(int(run.lines.min()) for run in nameless)
            self.doubts.append(
                f"{n_nameless} row(s) name no run (first line {first}), others do: cells that are "
                "merged? Fill them down"
            )
        notes += [
            f"{n} value(s) of {name} are marked bad and left out"
            for name, n in self.marked_bad.items()
        ]
        for run in self.samples.runs.values() if self.times.are_counted else ():
            whose = f"run {run.run_id}: " if run.run_id else ""
            odd = late_start(float(run.times_h[0])) if len(run) else ""
            self.doubts += [f"{whose}{odd}"] * bool(odd)
        for name, count in self.strangers.items():
            self.doubts.append(
                f"{count} rows are of unknown species '{name}'. {suggest(name, words=self.words)}"
            )
        said = dict.fromkeys(STREAM_TOTALS, totals) if isinstance(totals, str) else (totals or {})
        settling = Settling(
            self.samples,
            on_conflict=self.on_conflict,
            join_within_h=join_within_h,
            totals={**said, **self.header.totals},
            in_days="day" in self.at and "time_h" not in self.at,
            words=self.words,
        )
        settling.settle()
        for kind, count in settling.counts.items():
            self.counts[kind] += count
        notes += settling.notes
        self.doubts += [*_shared(self.clones), *settling.doubts]
        unused = [f"'{label}'" for label in self.header.unused]
        notes += some("entries of the column map that are not in the table", unused)
        lost = [f"'{name}' in '{unit}'" for name, unit in self.units.unused(self.seen)]
        self.doubts += some(
            "units that are given and not used, since no column has that name here", lost
        )

    def species(self) -> list[ColumnReport]:
        """In long format, each species as if it were a column."""
        return [
            tally.report(
                name,
                name,
                (tally.unit, self.words.unit(name)),
                remark=tally.remark,
                words=self.words,
            )
            for name, tally in self.by_species.items()
        ]

    def columns(self) -> list[ColumnReport]:
        """What was made of each column.

        Raises:
            DataError: If nothing in one can be read.
        """
        reports = []
        header, units, words = self.header, self.units, self.words
        present = [name for name in header.names if name]
        for n, (label, name) in enumerate(zip(header.labels, header.names, strict=True)):
            tally = self.tallies[n]
            remark = tally.remark
            is_number = words.is_numeric(name)
            if role_of(name, words) == "unknown":
                hint = suggest(bare_label(label)[0], present, words)
                remark = units.other_meanings.get(n) or hint
            elif is_number and self.row_numbers and not tally.has_any and name not in TIMES:
                if tally.n_unusable:
                    raise DataError(f"nothing in column '{label}' can be read: {remark}.")
                remark = "no value in any row"
            unit = words.unit(name) if is_number and name != "value" else ""
            both = (units.units[n], unit)
            has_span = name in words.numbers
            reports.append(
                tally.report(label, name, both, remark=remark, has_span=has_span, words=words)
            )
        return reports

    def _cells(self, cells: list[Any]) -> list[tuple[str, Any, str, int]]:
        """(name, cell, unit, column) of every measurement in a row of the file."""
        if self.header.is_wide:
            return [(name, cells[n], unit, n) for name, unit, n in self._wide]
        label = self._text(cells, "species")
        name, unit = self._meant(label)
        if name == "ignore":
            return []
        if not name:
            self.strangers[label] = self.strangers.get(label, 0) + 1
            return []
        self.seen[name] = None
        column = self.units.units[self.at["value"]]
        unit = self._text(cells, "unit") or unit or self.units.sidecar.get(name, "") or column
        return [(name, cells[self.at["value"]], unit, self.at["value"])]

    def _meant(self, label: str) -> tuple[str, str]:
        """Name and unit of a label of a long table; no name for one nobody knows."""
        name, unit = self.header.meaning(label)
        if name == "ignore":
            return name, ""
        (name,) = self.words.with_cells([name])
        if name not in self.words.numbers:
            return "", ""
        self.header.refuse_strange(name)
        return name, unit

    def _remembered(self, name: str, cell: Any, unit: str) -> tuple[float | None, str, str]:
        """What a cell says, kept for the next like it."""
        key = (name, cell, unit)
        found = self._read_before.get(key)
        if found is None:
            if len(self._read_before) > _REMEMBERED:
                self._read_before.clear()
            found = self._read_before[key] = self.values.read(name, cell, unit)
        return found

    def _take(self, row: Row, name: str, cell: Any, unit: str, *, column: int, line: int) -> bool:
        """Put one cell into a sample; say whether that changed it."""
        value, quality, problem = self._remembered(name, cell, unit)
        if not problem and self.header.is_wide and name not in row.values:
            self.tallies[column].take_plain(value)
            row.put(name, value, quality, line)
            return True
        is_limit = value is not None and bool(problem)
        text = f"{name} of {when(row.time_h)} (line {line}) {problem}" if problem else ""
        tallies = [self.tallies[column]]
        if not self.header.is_wide:
            tallies.append(self.by_species.setdefault(name, Tally(unit=unit)))
        limit = self.values.limit(name, cell, unit) if problem else None
        is_above = limit is not None and value is None
        for tally in tallies:
            tally.take(value, is_bad=bool(problem), is_limit=is_limit, text=text, is_above=is_above)
        if problem:
            text += "" if is_limit or is_above else ": counted as missing"
            self.notes.append(text)
            row.notes.append(text.removesuffix(": counted as missing"))
        now = as_compared(value, limit)
        before = as_compared(row.values.get(name), row.limit(name))
        if name in row.values and (now is None or now == before):
            if not self.header.is_wide:
                self.counts["duplicate"] += 1
                self.notes.append(f"line {line} repeats {name} of {when(row.time_h)}")
            return False
        if before is None:
            row.put(name, value, quality, line, limit)
            return True
        text = (
            f"{name} of {when(row.time_h)} is {as_said(row.values.get(name), row.limit(name))} in "
            f"line {row.line_of(name)} and {as_said(value, limit)} in line {line}"
        )
        if self.on_conflict == "error":
            self.counts["conflict"] += 1
            row.conflicts.append(text)
            self.notes.append(f"{text}: that day is refused")
            return True
        self.counts["corrected"] += 1
        row.notes.append(text)
        self.notes.append(f"{text}: the later row counts")
        row.put(name, value, quality, line, limit)
        return True

    def _qualify(self, row: Row, name: str, cells: list[Any]) -> None:
        for column in (f"{name}_quality", "quality"):
            text = self._text(cells, column).casefold()
            if not text:
                continue
            if text not in QUALITIES:
                raise DataError(f"{column} is '{text}'; allowed are {', '.join(QUALITIES)}.")
            if row.values.get(name) is None:
                if text == "bad" and column != "quality":
                    row.mark(name, "bad")  # there was a value and it was left out
                continue
            row.mark(name, text)
            if text == "bad":
                row.notes.append(f"{name} of {when(row.time_h)} is marked bad")
                self.marked_bad[name] = self.marked_bad.get(name, 0) + 1
                row.values[name] = None
                row.drop_limit(name)
            return

    def _text(self, cells: list[Any], name: str) -> str:
        column = self.at.get(name)
        if column is None or cells[column] is None:
            return ""
        return str(cells[column]).strip()


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
