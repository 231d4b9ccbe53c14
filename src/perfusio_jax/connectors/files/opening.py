"""A file with what is said of it, as cells: the first half of reading, the same for every command.

What follows makes samples of one vessel (`samples.py`) or runs of a campaign of the cells.
"""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.text import in_line

from ..instruments.reading import read_instrument, recognise
from ..tables.blocks import of_times
from ..tables.cell_doubts import bare_dates, look_alikes
from ..tables.column_map import (
    ColumnMap,
    is_known_label,
    is_number_label,
    looks_like_label,
    meaning_of,
)
from ..tables.column_units import is_units_row
from ..tables.date_formats import by_format
from ..tables.file_rules import FileRules
from ..tables.formats import read_table
from ..tables.labels import TIMES
from ..tables.layout import Layout
from ..tables.raw import Coded, RawTable
from ..tables.sample_ids import SamplePattern
from ..tables.sidecar import Sidecar
from ..tables.stamps import DateOrder, find_order, read_stamp, zone_of
from ..tables.starts import Starts
from ..tables.totals import Totals
from ..tables.vocabulary import OURS, Vocabulary

_CLOCK: Final = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?: ?[AaPp][Mm])?")
_ELAPSED: Final = re.compile(r"([0-9]{1,4}):([0-5][0-9])(?::([0-5][0-9]))?")

_DAY_NAME: Final = re.compile(
    r"\s*(?:d|day|tag|t|dag|jour|j|d[ií]a|giorno|g)\s*\.?\s*(?P<number>[0-9]{1,4}(?:[.,][0-9]{1,3})?)\s*",
    re.IGNORECASE,
)
"""`D0`, `Day 3`, `Tag 3,5`; a sign could be a dash or a day before the start."""


class Opened(NamedTuple):
    """Cells, and what is known of them."""

    table: RawTable
    """The cells."""
    column_map: ColumnMap
    """What is said of the columns."""
    units: Mapping[str, str]
    """Unit by canonical name, from the sidecar."""
    totals: Totals | Mapping[str, str]
    """What stream totals are, as far as that is said."""
    date_order: DateOrder | None
    """Day or month first, as far as that is said."""
    starts: Starts | None
    """When the runs began, if it is said."""
    metadata: Mapping[str, Any]
    """Of runs, from the sidecar."""
    n_known: int = 0
    """Columns of the file that anybody knows."""

    def name(self, label: str, words: Vocabulary = OURS) -> str:
        """Canonical name of a label; empty if it has none."""
        return meaning_of(label, self.column_map, words).name


def open_table(
    content: bytes,
    suffix: str,
    rules: FileRules,
    sidecar: Sidecar,
    words: Vocabulary = OURS,
    *,
    is_open: bool = False,
    allow_unterminated: bool = True,
    starts: Starts | None = None,
) -> Opened:
    """Cells of a file, as it is to be read.

    Args:
        content: The file.
        suffix: Its suffix.
        rules: How it is to be read.
        sidecar: What lies beside it.
        words: Names and units of columns.
        is_open: Whether the culture is yet to be read off the table, so that names are free.
        allow_unterminated: Read a last line that has no line end.
        starts: When the runs began, where that is settled elsewhere.

    Raises:
        DataError: If it cannot be understood.
        ConfigError: If what is said of it makes no sense.
    """
    column_map = rules.column_map(words, is_open=is_open)
    table = _of_instrument(content, suffix, rules) or read_table(
        content,
        suffix,
        is_known=lambda label: is_known_label(label, column_map, words),
        resembles=lambda label: looks_like_label(label, column_map, words),
        is_number=lambda label: is_number_label(label, column_map, words),
        separator=rules.separator,
        decimal=rules.decimal or sidecar.decimal,
        sheet=rules.sheet,
        allow_unterminated=allow_unterminated,
        layout=Layout(
            rules.header_row, rules.skip_lines, rules.skip_footer, rules.blocks == "vessels"
        ),
    )
    if rules.blocks == "times" and table.header:
        times = (*TIMES, "sampled_at")
        of_times(table, lambda label: meaning_of(label, column_map, words).name in times)
    order = rules.date_order or sidecar.date_order
    opened = Opened(
        table,
        column_map,
        sidecar.units,
        rules.totals or sidecar.totals,
        order,
        starts or rules.starts(),
        sidecar.metadata,
    )
    names = [opened.name(label, words) for label in table.header]
    if rules.sample_id is not None:
        table = _by_sample_id(table, names, SamplePattern.of(rules.sample_id), words)
        opened = opened._replace(table=table)
        names = [opened.name(label, words) for label in table.header]
    opened = opened._replace(n_known=sum(bool(name) for name in names))
    _blank_missing(table, names, rules.missing, words)
    _join_clock(table, names, rules)
    _read_elapsed(table, names)
    _read_day_names(table, names)
    if rules.date_format is not None:
        _restate_dates(table, names, rules.date_format)
    _tell_doubts(table, names)
    if rules.sample_id is not None:
        _part_vessels(table, names)
    if rules.run_from:
        _add_run_of(table, names, rules.run_from)
    _add_run(table, names, rules.run)
    _add_constants(table, names, rules.constants, words)
    if opened.starts is None and "inoculated_at" in names:
        opened = opened._replace(starts=_starts_of(table, names, rules, order))
    return opened


def _by_sample_id(
    table: RawTable, names: list[str], pattern: SamplePattern, words: Vocabulary
) -> RawTable:
    """What sample ids tell of run, vessel and time, as columns; a row of units stays the first."""
    if "sample_id" not in names:
        raise DataError(
            "has no column of sample ids, which --sample-id is to take apart; a column map can "
            'name it ("sample_id").'
        )
    label = table.header[names.index("sample_id")]
    if not _has_units_row(table, names, words):
        return pattern.apply(table, label)
    units, line = table.rows.pop(0), table.lines.pop(0)
    made = pattern.apply(table, label)
    made.rows.insert(0, [*[""] * (len(made.header) - len(units)), *units])
    made.lines.insert(0, line)
    return made


def _part_vessels(table: RawTable, names: list[str]) -> None:
    """Tell runs of one name in several vessels apart, where sample ids name both."""
    if not {"run_id", "reactor_id"} <= set(names):
        return
    run, vessel = names.index("run_id"), names.index("reactor_id")
    found: dict[str, set[str]] = {}
    for row in table.rows:
        found.setdefault(str(row[run] or ""), set()).add(str(row[vessel] or ""))
    several = {name for name, vessels in found.items() if name and len(vessels - {""}) > 1}
    for row in table.rows:
        if str(row[run] or "") in several and row[vessel]:
            row[run] = f"{row[run]} {row[vessel]}"
    if several:
        table.notes.append(
            f"run {', '.join(sorted(several)[:3])} is in several vessels; each is a run of its own"
        )


def _has_units_row(table: RawTable, names: list[str], words: Vocabulary) -> bool:
    numeric = [n for n, name in enumerate(names) if words.is_numeric(name)]
    if not table.n_rows:
        return False
    first = table.row(0)
    return is_units_row([first[n] for n in numeric], table.decimal)


def _of_instrument(content: bytes, suffix: str, rules: FileRules) -> RawTable | None:
    """The cells of an instrument's export; None if it is none, or read as somebody says."""
    if rules.header_row is not None or rules.is_long or rules.sheet is not None or rules.blocks:
        return None
    instrument = recognise(content, suffix)
    return None if instrument is None else read_instrument(content, suffix, instrument)


def _blank_missing(
    table: RawTable, names: list[str], missing: tuple[str, ...], words: Vocabulary
) -> None:
    """Empty the cells that hold a text somebody says means nothing."""
    if not missing:
        return
    texts = {text.strip().casefold() for text in missing}
    numeric = [n for n, name in enumerate(names) if words.is_numeric(name)]
    columns = [n for n in numeric if names[n] not in TIMES]
    n_blank = 0
    for row in table.rows:
        for n in columns:
            if isinstance(row[n], str) and row[n].strip().casefold() in texts:
                row[n] = None
                n_blank += 1
    if n_blank:
        table.notes.append(
            f"{n_blank} cells hold {' or '.join(missing)}, which means: not measured"
        )


def _join_clock(table: RawTable, names: list[str], rules: FileRules) -> None:
    """Put the time of the day, where it stands in a column of its own, behind the date."""
    if "time_of_day" not in names:
        return
    if "sampled_at" not in names:
        raise DataError(
            "has a column of times of the day and none of dates; a column map can say which it is "
            '("sampled_at").'
        )
    date, clock = names.index("sampled_at"), names.index("time_of_day")
    form = rules.date_format
    for row, line in zip(table.rows, table.lines, strict=True):
        day, time = row[date], "" if row[clock] is None else str(row[clock]).strip()
        if day is None or not str(day).strip() or not time:
            continue
        if isinstance(day, dt.datetime):
            day = day.date()
        if not _CLOCK.fullmatch(time):
            raise DataError(
                f"time_of_day is {in_line(time)} in line {line}; a time such as 08:30 is meant."
            )
        hours, _, rest = time.partition(":")
        padded = f"{int(hours):02d}:{rest}"
        if form is not None and not isinstance(day, dt.date):
            day = str(by_format(day, form, f"sampled_at in line {line}")).partition("T")[0]
        row[date] = f"{str(day).strip()} {padded}"
        row[clock] = None
    table.notes.append(f"'{table.header[clock]}' is the time of the day of '{table.header[date]}'")


def _read_elapsed(table: RawTable, names: list[str]) -> None:
    """Make hours of times that have passed, written as `23:30` or kept so by a spreadsheet."""
    for n, name in enumerate(names):
        if name not in TIMES:
            continue
        per = 3600.0 if name == "time_h" else 86_400.0
        n_read = 0
        cells = table.column(n).cells
        is_text = {*map(type, cells)} <= {str}
        if is_text and ":" not in "\n".join(cells):
            continue  # as nearly all
        if not any(
            isinstance(cell, dt.timedelta | dt.time) or (isinstance(cell, str) and ":" in cell)
            for cell in cells
        ):
            continue
        for row in table.rows:
            cell = row[n]
            seconds = None
            if isinstance(cell, dt.timedelta):
                seconds = cell.total_seconds()
            elif isinstance(cell, dt.time):
                seconds = 3600.0 * cell.hour + 60.0 * cell.minute + cell.second
            elif isinstance(cell, str) and (found := _ELAPSED.fullmatch(cell.strip())):
                parts = [float(part or 0) for part in found.groups()]
                seconds = 3600.0 * parts[0] + 60.0 * parts[1] + parts[2]
            if seconds is not None:
                row[n] = seconds / per
                n_read += 1
        if n_read:
            table.notes.append(
                f"{n_read} cells of {name} are read as hours and minutes that passed"
            )


def _read_day_names(table: RawTable, names: list[str]) -> None:
    """Make numbers of days that are named, as `D0`, `Day 3` and `Tag 3`."""
    for n, name in enumerate(names):
        if name != "day":
            continue
        column = table.column(n)
        found = [
            _DAY_NAME.fullmatch(cell) if isinstance(cell, str) else None for cell in column.cells
        ]
        if not any(found):
            continue
        days = [
            cell if match is None else float(match["number"].replace(",", "."))
            for cell, match in zip(column.cells, found, strict=True)
        ]
        columns = list(table.columns())
        columns[n] = Coded.of_cells(days[k] for k in column.codes.tolist())
        table.put_columns(columns)
        n_read = sum(found[k] is not None for k in column.codes.tolist())
        first = next(match[0] for match in found if match is not None)
        table.notes.append(f"{n_read} cells of day are names of days, as {in_line(first)}")


def _restate_dates(table: RawTable, names: list[str], form: str) -> None:
    for n, name in enumerate(names):
        if name in ("sampled_at", "inoculated_at"):
            for row, line in zip(table.rows, table.lines, strict=True):
                row[n] = by_format(row[n], form, f"{name} in line {line}")


def _tell_doubts(table: RawTable, names: list[str]) -> None:
    if "sampled_at" in names and not {*TIMES} & {*names}:
        stamps = table.column(names.index("sampled_at"))
        if odd := bare_dates([stamps.cells[k] for k in stamps.codes.tolist()], table.lines):
            table.notes.append(odd)
    for name in ("run_id", "reactor_id"):
        if name in names:
            table.notes += look_alikes(name, table.column(names.index(name)).cells)


def _add_run_of(table: RawTable, names: list[str], labels: tuple[str, ...]) -> None:
    """Name runs by what several columns say."""
    if "run_id" in names:
        raise DataError(
            f"has a column run_id ('{table.header[names.index('run_id')]}'), and run_from names "
            "runs too; leave one of them out."
        )
    folded = {label.casefold().strip(): n for n, label in reversed([*enumerate(table.header)])}
    folded |= {name: n for n, name in enumerate(names) if name}
    columns = []
    for label in labels:
        if label.casefold().strip() not in folded:
            raise DataError(
                f"has no column {in_line(label)}, of which run_from makes the name of a run; it "
                f"has {', '.join(in_line(other) for other in table.header[:20])}."
            )
        columns.append(folded[label.casefold().strip()])
    table.header.append("run_id")
    names.append("run_id")
    for row in table.rows:
        row.append(" ".join(str(row[n] or "").strip() for n in columns).strip())
    for n in sorted((n for n in columns if not names[n]), reverse=True):
        table.notes.append(f"{in_line(table.header[n])} names runs and is read as nothing else")
        table.units.pop(table.header.pop(n), None)
        del names[n]
        for row in table.rows:
            del row[n]


def _add_run(table: RawTable, names: list[str], run: str | None) -> None:
    """Name the run of a table that does not, each of its vessels apart."""
    if run is None or "run_id" in names or not table.header:
        return
    column = names.index("reactor_id") if "reactor_id" in names else None
    vessels = ["" if column is None else str(row[column] or "").strip() for row in table.rows]
    several = len({*vessels} - {""}) > 1  # a row of units names none
    table.header.append("run_id")
    names.append("run_id")
    for row, vessel in zip(table.rows, vessels, strict=True):
        row.append(f"{run} {vessel}" if several and vessel else run)


def _add_constants(
    table: RawTable, names: list[str], constants: Mapping[str, float], words: Vocabulary
) -> None:
    """Add columns that the file lacks, with the value somebody says they have."""
    for name, value in constants.items():
        if name not in words.numbers:
            raise ConfigError(
                f"{name} is said to be {value:g} throughout, and no column has that name; allowed "
                f"are {', '.join((*words.controls, *words.tags, 'volume_L'))}."
            )
        if name in names:
            raise DataError(
                f"{name} is said to be {value:g} throughout, and the file has a column of it "
                f"('{table.header[names.index(name)]}'). Take out one of the two."
            )
        if not table.header:
            continue
        has_units = _has_units_row(table, names, words)
        table.header.append(name)
        for k, row in enumerate(table.rows):
            row.append(None if has_units and k == 0 else value)
        table.notes.append(f"{name} is {value:g} {words.unit(name)} throughout, as was said")


def _starts_of(
    table: RawTable, names: list[str], rules: FileRules, order: DateOrder | None
) -> Starts | None:
    """When each run began, from a column that tells it."""
    column = names.index("inoculated_at")
    at = {name: names.index(name) for name in ("run_id", "reactor_id") if name in names}
    zone = zone_of(rules.time_zone)
    order = order or find_order(str(row[column] or "") for row in table.rows)
    found: dict[str, dt.datetime] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        text = "" if row[column] is None else str(row[column]).strip()
        whose = next((str(row[k]).strip() for k in at.values() if row[k]), "")
        if not text:
            continue
        begun = read_stamp(text, f"inoculated_at in line {line}", zone, order)
        if found.setdefault(whose, begun) != begun:
            raise DataError(
                f"inoculated_at of {in_line(whose) if whose else 'the run'} is "
                f"{found[whose].isoformat()} and, in line {line}, {begun.isoformat()}; a run "
                "begins once."
            )
    if not found:
        return None
    utc = {run: at.astimezone(dt.UTC) for run, at in found.items()}
    return Starts(utc[""]) if set(utc) == {""} else Starts(of_run=utc)
