"""How files of a laboratory are read: one value that every command and the library take.

It may stand in the column map file, so that a laboratory says it once: names under `[columns]`,
the rest under `[reading]`, set-points that were the same throughout under `[set]`.
"""

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax._core.limits import read_toml
from perfusio_jax._core.text import in_line

from .blocks import BLOCKS, Blocks
from .column_map import ColumnMap
from .date_formats import check_date_format
from .joining import DEFAULT_JOIN_H
from .raw import SEPARATORS
from .sample_ids import SamplePattern
from .settling import Conflicts
from .sidecar import DECIMALS
from .stamps import DATE_ORDERS, DateOrder, zone_of
from .starts import Starts, parse_starts, starts_of
from .totals import TOTALS, Totals
from .vocabulary import OURS, Vocabulary

Unknown = Literal["ignore", "refuse"]
NegativeTime = Literal["drop", "keep", "refuse"]
Feeds = Literal["rows", "bolus"]
SetPoints = Literal["from", "until"]

ALL_SHEETS: Final = "*"
"""Every sheet of a workbook, each with a run or several of its own."""

_LONGEST_JOIN_H: Final = HOURS_PER_DAY / 2.0
_MARKS: Final = {name: mark for mark, name in SEPARATORS.items()} | {m: m for m in SEPARATORS}
_TABLES: Final = ("columns", "reading", "set")


@dataclass(frozen=True)
class FileRules:
    """How a file is read; what is not said is found out, or is as the field says."""

    columns: Mapping[str, Any] = field(default_factory=dict)
    """Label to our name, to "ignore", or to a table of `name`, `unit` and `totals`."""
    is_long: bool = False
    """Rows of `day, species, value` instead of a column per species."""
    sheet: str | None = None
    """Sheet of a workbook, the first if not said; "*" for all of them."""
    separator: str | None = None
    """Between the fields of a text file."""
    decimal: str | None = None
    """Decimal mark, "." ("point") or "," ("comma")."""
    thousands: str | None = None
    """Mark between thousands, likewise; the other one is then the decimal mark."""
    header_row: int | None = None
    """Line the names of the columns stand on, from 1."""
    skip_lines: tuple[int, ...] = ()
    """Lines that are left out, from 1: a second header row, say."""
    skip_footer: int = 0
    """Filled lines at the end that are left out."""
    blocks: Blocks | None = None
    """Whether a file holds several tables: "vessels", one below the other with the name of a vessel
    above each, or "times", a column of times before each quantity."""
    date_order: DateOrder | None = None
    """Day ("dmy") or month ("mdy") first in dates with the year last."""
    date_format: str | None = None
    """How time stamps are written, as `%d.%m.%y %H:%M`; "excel" for days since 1899-12-30."""
    time_zone: str | None = None
    """Zone of time stamps without an offset."""
    inoculated_at: dt.datetime | Mapping[str, dt.datetime] | None = None
    """Start of the only run, or of each by name."""
    join_within_h: float | None = None
    """How long after its first row [h] a sample takes further ones; 1 h if not said."""
    totals: Totals | None = None
    """What stream totals are."""
    on_conflict: Conflicts = "error"
    """What two values for one time mean."""
    unknown: Unknown | None = None
    """Whether columns nobody knows are left out or refuse the file."""
    negative_time: NegativeTime = "drop"
    """Whether rows from before the inoculation are left out, kept with their negative time, or
    refuse the file."""
    feeds: Feeds = "rows"
    """What a sample before and one after a feed are: two rows, or one with a bolus."""
    set_points: SetPoints = "from"
    """What the set-points of a row are: those that act from its sample on, or those that acted
    until it, as a file that grows has them."""
    missing: tuple[str, ...] = ()
    """Further texts that mean that nothing was measured."""
    sample_id: str | None = None
    """How sample ids are made, as `{run}-D{day}`: gives run, day, reactor and clone."""
    run: str | None = None
    """What the run is called, where the table does not say; with several vessels, its beginning."""
    run_from: tuple[str, ...] = ()
    """Labels of columns that name a run together, as those of clone and replicate."""
    names_are_free: bool = False
    """Whether a column map may give any name, because a culture is yet to be read off the table."""
    constants: Mapping[str, float] = field(default_factory=dict)
    """Columns the file does not have, with the value they have throughout."""

    def __post_init__(self) -> None:
        for name, marks in (
            ("decimal", DECIMALS),
            ("thousands", DECIMALS),
            ("separator", _MARKS),
        ):
            said = getattr(self, name)
            object.__setattr__(self, name, marks.get(said, said))
        if self.thousands is not None and self.thousands == self.decimal:
            raise ConfigError(
                f"thousands and decimal are both {self.thousands!r}; a number cannot have one mark "
                "for both."
            )
        if self.decimal is None and self.thousands in (".", ","):
            object.__setattr__(self, "decimal", "," if self.thousands == "." else ".")
        for name, allowed in (
            ("decimal", (None, ".", ",")),
            ("separator", (None, *SEPARATORS)),
            ("date_order", (None, *DATE_ORDERS)),
            ("totals", (None, *TOTALS)),
            ("on_conflict", ("error", "last")),
            ("unknown", (None, "ignore", "refuse")),
            ("negative_time", ("drop", "keep", "refuse")),
            ("thousands", (None, ".", ",")),
            ("feeds", ("rows", "bolus")),
            ("set_points", ("from", "until")),
            ("blocks", (None, *BLOCKS)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                *first, last = [str(a) for a in allowed if a is not None]
                said = f"{', '.join(first)} and {last}"
                raise ConfigError(f"{name} is {value!r}; allowed are {said}.")
        hours = self.join_within_h
        if hours is not None and not 0.0 <= hours <= _LONGEST_JOIN_H:
            raise ConfigError(f"join_within_h is {hours!r}; allowed is 0 to {_LONGEST_JOIN_H:g} h.")
        if self.header_row is not None and self.header_row < 1:
            raise ConfigError(f"header_row is {self.header_row}; lines count from 1.")
        if any(line < 1 for line in self.skip_lines):
            raise ConfigError(f"skip_lines holds {min(self.skip_lines)}; lines count from 1.")
        if self.skip_footer < 0:
            raise ConfigError(f"skip_footer is {self.skip_footer}; a number of lines is meant.")
        if self.date_format is not None:
            check_date_format(self.date_format)
        for name, value in self.constants.items():
            if not math.isfinite(value):
                raise ConfigError(f"{name} is said to be {value}; a finite number is meant.")
        if self.run is not None and self.run_from:
            raise ConfigError("run and run_from both name the run; say one of them.")
        if self.sample_id is not None:
            SamplePattern.of(self.sample_id)
        zone_of(self.time_zone)

    @classmethod
    def of(cls, source: Mapping[str, Any] | Path | str | None = None, **said: Any) -> "FileRules":
        """From a column map and what is said beside it.

        Args:
            source: A mapping of labels as under `[columns]`, or a TOML file with the tables
                `[columns]`, `[reading]` and `[set]`, each of which may be missing.
            **said: Fields of this class; they beat the file. None says nothing, nor does an empty
                list.

        Raises:
            ConfigError: If the file cannot be read, or says what is not known or not allowed.
        """
        told: dict[str, Any] = {}
        if isinstance(source, Mapping):
            told["columns"] = dict(source)
        elif source is not None:
            told = _of_file(Path(source))
        for name, value in said.items():
            if value is None or value is False or value == () or value == {}:
                continue  # 0.0 says something
            told[name] = {**told.get(name, {}), **value} if name == "constants" else value
        return cls(**told)

    def column_map(self, words: Vocabulary = OURS, *, is_open: bool = False) -> ColumnMap:
        """What is said of columns.

        Args:
            words: Names and units of columns.
            is_open: Whether names may be any, because the culture is yet to be read off the table.

        Raises:
            ConfigError: If an entry means nothing.
        """
        return ColumnMap.of(self.columns or None, words, is_open=is_open or self.names_are_free)

    def starts(self, run_id: str | None = None, reactor_id: str | None = None) -> Starts | None:
        """When the runs began, in UTC.

        Raises:
            ConfigError: If a time has no zone.
        """
        zone = zone_of(self.time_zone)
        return starts_of(self.inoculated_at, zone, run_id=run_id, reactor_id=reactor_id)

    @property
    def joins_within_h(self) -> float:
        """How long a sample takes further rows [h]."""
        return DEFAULT_JOIN_H if self.join_within_h is None else self.join_within_h

    def but(self, **changes: Any) -> "FileRules":
        """The same with some fields changed."""
        return replace(self, **changes)


def decimal_mark(said: str | None) -> str | None:
    """A decimal mark by what people call it.

    Raises:
        ConfigError: If it is none.
    """
    if said is not None and said not in DECIMALS:
        raise ConfigError(f"--decimal is {said!r}; allowed are comma and point.")
    return None if said is None else DECIMALS[said]


def _of_file(path: Path) -> dict[str, Any]:
    try:
        content = read_toml(path)
    except (OSError, ConfigError) as error:
        raise ConfigError(f"The column map {path} cannot be read: {error}") from error
    strangers = sorted(set(content) - set(_TABLES))
    if strangers or not content:
        has = f"has {', '.join(strangers)}" if strangers else "is empty"
        raise ConfigError(
            f"The column map {path} {has}; it may have the tables [columns], [reading] and [set]."
        )
    for name, table in content.items():
        if not isinstance(table, dict):
            raise ConfigError(f"The column map {path}: {name} is {table!r}; it is a table.")
    try:
        told = {_FIELDS[key][0]: _FIELDS[key][1](key, value) for key, value in _known(content)}
    except ConfigError as error:
        raise ConfigError(f"The column map {path}: {error}") from None
    if "columns" in content:
        told["columns"] = content["columns"]
    if "set" in content:
        told["constants"] = {
            name: _number(f"[set] {name}", value) for name, value in content["set"].items()
        }
    return told


def _known(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    table = content.get("reading", {})
    strangers = sorted(set(table) - set(_FIELDS))
    if strangers:
        raise ConfigError(
            f"[reading] has {', '.join(strangers)}; it may have {', '.join(_FIELDS)}."
        )
    return list(table.items())


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{key} is {in_line(value)}; a text is meant.")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is {in_line(value)}; true or false is meant.")
    return value


def _whole(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{key} is {in_line(value)}; a whole number is meant.")
    return value


def _number(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{key} is {in_line(value)}; a number is meant.")
    return float(value)


def _list_of(kind: Callable[[str, Any], Any]) -> Callable[[str, Any], tuple[Any, ...]]:
    def read(key: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ConfigError(f"{key} is {in_line(value)}; a list is meant.")
        return tuple(kind(key, item) for item in value)

    return read


def _separator(key: str, value: Any) -> str:
    text = _text(key, value)
    if text not in _MARKS:
        raise ConfigError(f"{key} is {text!r}; allowed are {', '.join(SEPARATORS.values())}.")
    return _MARKS[text]


def _decimal(key: str, value: Any) -> str:
    text = _text(key, value)
    if text not in DECIMALS:
        raise ConfigError(f"{key} is {text!r}; allowed are comma and point.")
    return DECIMALS[text]


def _begun(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(run): _moment(f"{key} of {run}", at) for run, at in value.items()}
    return _moment(key, value)


def _moment(key: str, value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    found = parse_starts(_text(key, value))
    if not isinstance(found, dt.datetime):
        raise ConfigError(f"{key} is {value!r}; a time such as 2026-05-06T08:00 is meant.")
    return found


_FIELDS: Final[Mapping[str, tuple[str, Callable[[str, Any], Any]]]] = {
    "long": ("is_long", _flag),
    "sheet": ("sheet", _text),
    "separator": ("separator", _separator),
    "decimal": ("decimal", _decimal),
    "thousands": ("thousands", _decimal),
    "header_row": ("header_row", _whole),
    "skip_lines": ("skip_lines", _list_of(_whole)),
    "skip_footer": ("skip_footer", _whole),
    "blocks": ("blocks", _text),
    "date_order": ("date_order", _text),
    "date_format": ("date_format", _text),
    "time_zone": ("time_zone", _text),
    "inoculated_at": ("inoculated_at", _begun),
    "join_within": ("join_within_h", _number),
    "totals": ("totals", _text),
    "on_conflict": ("on_conflict", _text),
    "unknown": ("unknown", _text),
    "negative_time": ("negative_time", _text),
    "feeds": ("feeds", _text),
    "set_points": ("set_points", _text),
    "missing": ("missing", _list_of(_text)),
    "sample_id": ("sample_id", _text),
    "run": ("run", _text),
    "run_from": ("run_from", _list_of(_text)),
}
"""Keys of `[reading]`: the field, and how its value is checked."""
