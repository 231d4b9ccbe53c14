"""When a row was taken: by its culture day or hours, or by a time stamp and the run's start."""

import datetime as dt
import math
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any, Final

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax._core.instants import LONGEST_H, ImplausibleTime, culture_hours, hours_between
from perfusio_jax._core.text import in_line

from .cells import MISSING, parse_number, parse_numbers, understood
from .column_units import ColumnUnits
from .labels import TIMES
from .raw import RawTable
from .stamps import DateOrder, find_order, read_stamp
from .starts import Starts
from .tally import Tally

_LOOKS_LIKE_A_DATE: Final = re.compile(r"\d[-/.]\d{1,2}[-/.]\d")


_USUAL: Final = LONGEST_H / HOURS_PER_DAY
"""No time of a culture is longer, in hours or in days."""


def no_sample(*, is_first: bool) -> str:
    """What may be the matter with a row whose time is no number, and which option says so.

    Args:
        is_first: Whether it stands right below the header.
    """
    if is_first:
        return (
            "Does the header stand on another line (--header-row), or over several of which one is "
            "to be left out (--skip-line)?"
        )
    return (
        "What is no sample is left out with --skip-line or --skip-footer; tables below each other, "
        "one for each vessel, are read with --blocks vessels."
    )


class OddTimeError(DataError):
    """A row whose time is none: it is left out, with a remark."""


class BeforeStart(Exception):
    """A row from before the inoculation."""


class RowTimes:
    """Reads the times of a table.

    Args:
        table: Its cells.
        at: Column by canonical name.
        units: Conversions of the columns of times.
        tallies: Of every column; what cannot be read is counted there.
        clock: Starts of the runs, and the zone of time stamps without an offset.
        date_order: Day or month first; found out if a number tells.
    """

    def __init__(
        self,
        table: RawTable,
        at: Mapping[str, int],
        units: ColumnUnits,
        tallies: Sequence[Tally],
        clock: tuple[Starts | None, zoneinfo.ZoneInfo | None],
        date_order: DateOrder | None,
    ) -> None:
        self._table, self._at, self._units, self._tallies = table, at, units, tallies
        self.starts, self._zone = clock
        self.are_counted = self.starts is not None and not set(TIMES) & set(at)
        """Whether times are hours since the start of the run, from time stamps."""
        self.keeps_early = False
        """Whether a row from before the inoculation stays, with its negative time."""
        self._groups: set[tuple[str, str]] = set()
        self._date_order: DateOrder | None = date_order or self._find_date_order()
        self.bad_stamps: list[str] = []
        """Time stamps that cannot be read, a sentence each."""

    def start_of(self, run_id: str, reactor_id: str) -> dt.datetime | None:
        """When the run of a row began; None for a run nobody asked for.

        Raises:
            DataError: If one start would be that of two runs, or the run has none.
        """
        return None if self.starts is None else self.starts.find(run_id, reactor_id, self._groups)

    def stamp(self, text: str, line: int) -> tuple[dt.datetime | None, str]:
        """The time stamp of a row, and what is odd where there is one that is none."""
        if text.casefold() in MISSING:
            return None, ""
        tally = self._tallies[self._at["sampled_at"]]
        try:
            stamp = read_stamp(text, f"sampled_at in line {line}", self._zone, self._date_order)
        except DataError as error:
            tally.n_unusable += 1
            if not isinstance(error, ImplausibleTime):
                self.bad_stamps.append(str(error))
            return None, str(error)
        tally.n_values += 1
        return stamp, ""

    def read_stamp(self, text: str) -> dt.datetime:
        """A time stamp.

        Raises:
            DataError: If it is none.
        """
        return read_stamp(text, "sampled_at", self._zone, self._date_order)

    def plain_hours(self, name: str, cells: Sequence[Any]) -> list[float]:
        """Hours that cells of a column of times say [h]; NaN where anything is odd about one.

        Args:
            name: `time_h` or `day`.
            cells: What stands there.
        """
        convert = self._units.converter(name, self._units.units[self._at[name]])
        factor = HOURS_PER_DAY if name == "day" else 1.0
        found = []
        for number in parse_numbers(cells, self._table.decimal):
            hours = math.nan
            if isinstance(number, float) and 0.0 <= number < math.inf:
                hours = convert(number) * factor
            found.append(hours if 0.0 <= hours <= LONGEST_H else math.nan)
        return found

    def since(self, start: dt.datetime, stamp: dt.datetime | None, odd: str, line: int) -> float:
        """Hours from the start of a run to a time stamp [h].

        Args:
            start: When the run began.
            stamp: When the row was taken.
            odd: What is odd about a stamp that is none.
            line: Line of the row.

        Raises:
            OddTimeError: If there is a stamp that is none.
            BeforeStart: If it is from before the start.
            DataError: If there is no stamp.
        """
        if odd:
            raise OddTimeError(odd)
        if stamp is None:
            raise DataError(f"sampled_at is missing in line {line}; the time comes from it.")
        hours = hours_between(stamp, start)
        if hours < 0.0 and not self.keeps_early:
            raise BeforeStart(
                f"sampled_at in line {line} is {-hours:.4g} h before the inoculation at "
                f"{start.isoformat()}"
            )
        return hours

    def stated(self, cells: Sequence[Any], line: int) -> float:
        """Hours since inoculation by the columns of times [h].

        Args:
            cells: The row.
            line: Its line.

        Raises:
            OddTimeError: If the time is none.
            BeforeStart: If it is negative.
            DataError: If it is no number, or day and hours are not the same day.
        """
        found: dict[str, float] = {}
        for name in TIMES:
            if name not in self._at:
                continue
            column = self._at[name]
            number = parse_number(cells[column], self._table.decimal)
            if isinstance(number, str):  # a time may carry its unit, as other cells may
                unit = self._units.units[column]
                value, kind = understood(number, name, unit, self._parse, self._units.words)
                number = value if kind == "number" and value is not None else number
            if not isinstance(number, float) or not math.isfinite(number):
                text = (
                    f"{name} is {in_line(cells[column])} in line {line}; a number of at least 0 is "
                    f"needed. {no_sample(is_first=line <= min(self._table.lines) + 1)}"
                )
                if _LOOKS_LIKE_A_DATE.search(str(cells[column])):
                    text += " A column of dates is sampled_at; a column map can say so."
                if not isinstance(number, float):
                    raise DataError(text)
                self._tallies[column].n_unusable += 1
                raise OddTimeError(text)
            if number < 0.0 and not self.keeps_early:
                raise BeforeStart(
                    f"{name} is {in_line(cells[column])} in line {line}, before the inoculation"
                )
            hours = self._units.converter(name, self._units.units[column])(number)
            if 0.0 <= hours <= _USUAL:  # nearly all there are
                found[name] = hours * HOURS_PER_DAY if name == "day" else hours
                self._tallies[column].n_values += 1
                continue
            try:
                found[name] = culture_hours(
                    hours * HOURS_PER_DAY if name == "day" else hours, f"{name} in line {line}"
                )
            except ImplausibleTime as error:
                self._tallies[column].n_unusable += 1
                raise OddTimeError(str(error)) from None
            self._tallies[column].n_values += 1
        if len(found) == 2 and abs(found["day"] - found["time_h"]) > 0.5 * HOURS_PER_DAY:
            raise DataError(
                f"line {line} is day {found['day'] / HOURS_PER_DAY:g} and {found['time_h']:g} h, "
                "which are not the same day."
            )
        return found.get("time_h", found.get("day", math.nan))

    def _parse(self, text: str) -> float | str | None:
        return parse_number(text, self._table.decimal)

    def _find_date_order(self) -> DateOrder | None:
        """Day or month first, as the time stamps of the table prove it."""
        if "sampled_at" not in self._at:
            return None
        column = self._at["sampled_at"]
        return find_order(str(cell or "") for cell in self._table.column(column).cells)
