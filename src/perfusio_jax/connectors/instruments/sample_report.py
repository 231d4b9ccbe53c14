"""Reports of one sample: labels with their value beside them, as text or on a sheet."""

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from ..tables.cells import find_decimal, parse_number
from ..tables.raw import RawTable
from .assembly import Assembly, listed
from .grid import Grid, as_text, is_blank
from .instrument import Instrument, folded
from .readings import Reading, dilution_of, read_number, read_times
from .sample_table import version_of

_DOUBTED: Final = re.compile(r"(?a:[0-9][0-9.,eE+-]{0,30})\s*\((?P<doubt>[^()\r\n]{1,60})\)?")
"""A value with the instrument's doubt behind it."""
_UTC_HOURS: Final = 15.0
"""No time zone is further from UTC [h]."""
_AROUND: Final = " \t;,"
"""What a value is not part of."""
_REACH: Final = 3
"""Cells to the right of a label in which its value may stand, on a sheet."""
_LISTS: Final = ("sizedata", "sizedistributionplotdata")
"""Where the data of each image begin, which are left out."""


def read_report(grid: Grid, instrument: Instrument) -> RawTable:
    """The one sample of a report.

    Args:
        grid: The file.
        instrument: What wrote it.

    Raises:
        DataError: If a label the sample needs is missing or stands twice, or a value is none.
    """
    entries: dict[str, tuple[str, Any, int]] = {}
    for label, value, line in _entries(grid, instrument.between):
        key = folded(label)
        if key in _LISTS:
            break
        if key in entries and key in instrument.all_labels:
            raise DataError(
                f"{grid.word} {line}: '{label}' stands a second time; a report of "
                f"{instrument.name} has one sample."
            )
        entries[key] = (label, value, line)
    name, _, line = _one(entries, instrument.samples, instrument, grid)
    label, when, when_line = _one(entries, instrument.time_labels, instrument, grid)
    known = [(instrument.known[k], *e) for k, e in entries.items() if k in instrument.known]
    twins = [label for n, (c, label, *_) in enumerate(known) if c in [k[0] for k in known[:n]]]
    if twins:
        raise DataError(f"'{twins[0]}' stands beside another label of the same; keep one of them.")
    texts = [
        (value, at)
        for column, _, value, at in known
        if column.kind == "number" and isinstance(value, str) and not _doubt(value, instrument)
    ]
    decimal = find_decimal(texts, None, grid.word)
    version = version_of(grid, instrument)
    found = Assembly(f"{instrument.name}{f' (version {version})' if version else ''}", grid.word)
    found.notes += grid.notes
    times, left = read_times([when], label, [f"{grid.word} {when_line}"])
    if left:
        found.notes.append(f"'{label}' is left as it is: nothing tells which date is meant")
    time = times[0]
    if instrument.offset and time and not left:
        time += _offset(entries.get(folded(instrument.offset)), instrument, grid)
    row = found.add(line, as_text(entries[folded(name)][1]), time)
    for column, label_of, value, at in known:
        if column.kind == "number":
            doubt = _doubt(value, instrument)
            read = (
                Reading(None, f"'{doubt}'")
                if doubt
                else read_number(value, decimal, label_of, f"{grid.word} {at}")
            )
            found.put(row, column.name, label_of, read.cell, column.unit, read.why)
        elif column.kind == "dilution":
            found.dilute(row, dilution_of(value, decimal))
        elif not is_blank(value):
            found.put(row, "", label_of, as_text(value), "")
    if not any(column.name and not is_blank(value) for column, _, value, _ in known):
        wanted = [c.labels[0] for c in instrument.columns if c.name]
        raise DataError(f"a report of {instrument.name} without {listed(wanted)} holds no sample.")
    table = found.table(grid.separator, decimal)
    if grid.is_open:
        table.held_back = grid.lines[-1]
        table.notes.append(
            f"line {grid.lines[-1]} has no line end yet and is not read: it may be half written"
        )
    table.notes.append(f"sampled_at is '{label}'; settings and the data of images are left out")
    return table


def _one(
    entries: dict[str, tuple[str, Any, int]],
    labels: tuple[str, ...],
    instrument: Instrument,
    grid: Grid,
) -> tuple[str, Any, int]:
    """The first of some labels that has a value."""
    for label in labels:
        entry = entries.get(folded(label))
        if entry is not None and not is_blank(entry[1]):
            return entry
    raise DataError(
        f"a report of {instrument.name} needs {listed(labels[:1])} with a value; it ends after "
        f"{grid.word} {grid.lines[-1] if grid.lines else 0}. Is it complete?"
    )


def _doubt(value: Any, instrument: Instrument) -> str:
    """What the instrument doubts of a value; empty for nothing."""
    if not instrument.has_doubts or not isinstance(value, str):
        return ""
    found = _DOUBTED.fullmatch(value.strip())
    return "" if found is None else found["doubt"].strip()


def _offset(entry: tuple[str, Any, int] | None, instrument: Instrument, grid: Grid) -> str:
    """How far a time is ahead of UTC, as ISO 8601 has it; empty where the file does not say."""
    if entry is None or is_blank(entry[1]):
        return ""
    label, value, line = entry
    number = parse_number(value)
    if not isinstance(number, float) or not abs(number) < _UTC_HOURS:
        raise DataError(
            f"{grid.word} {line}: '{label}' is {in_line(value)}; hours by which {instrument.name} "
            "is ahead of UTC are meant."
        )
    zone = dt.timezone(dt.timedelta(hours=number))
    return dt.datetime(2000, 1, 1, tzinfo=zone).isoformat()[19:]


def _entries(grid: Grid, mark: str) -> Iterator[tuple[str, Any, int]]:
    """Labels with their values and lines."""
    last = len(grid.rows) - 1
    for n, (cells, line) in enumerate(zip(grid.rows, grid.lines, strict=True)):
        if grid.separator is not None:
            label, between, value = grid.separator.join(cells).partition(mark)
            if between and not (grid.is_open and n == last):  # which may be half written
                yield label.strip(), value.strip(_AROUND), line
            elif folded(label) in _LISTS:
                return
            continue
        for k, cell in enumerate(cells):
            if isinstance(cell, str) and cell.strip():
                beside = cells[k + 1 : k + 1 + _REACH]
                value = next((c for c in beside if not is_blank(c)), None)
                yield cell.strip(), value, line
