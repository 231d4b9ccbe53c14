"""Exports with one row per sample, read by the description of their instrument."""

import math
import re
from itertools import pairwise
from typing import Any, Final

from perfusio_jax._core import DataError

from ..tables.cells import find_decimal, parse_number, to_tell
from ..tables.raw import RawTable
from .assembly import Assembly, few, listed
from .grid import Grid, as_text, is_blank
from .instrument import Instrument, bracketed, folded
from .layout import Layout, is_units_row, layout_notes, layout_of, take_units
from .readings import dilution_of, read_number, read_times
from .unit_checks import check_units

_FIRST_ROWS: Final = 20
"""Rows a header is looked for in."""


def n_hits(instrument: Instrument, cells: list[Any]) -> int:
    """How many cells of a row are labels of an instrument."""
    return sum(folded(as_text(c)) in instrument.all_labels for c in cells if not is_blank(c))


def read_samples(grid: Grid, instrument: Instrument) -> RawTable:
    """One row per sample.

    Args:
        grid: The file.
        instrument: What wrote it.

    Raises:
        DataError: If a label the samples need is missing, a unit is another than the instrument
            writes, or a cell is no value; with line and label.
    """
    at, labels, first = _header(grid, instrument)
    layout = layout_of(labels, instrument, f"{grid.word} {grid.lines[at]}")
    rows, lines, notes = _rows(grid, layout, at, first)
    held = _hold_back(rows, lines, layout, grid, notes)
    if rows and instrument.has_units_row and is_units_row(rows[0], layout):
        take_units(rows.pop(0), layout, f"{grid.word} {lines.pop(0)}")
    cells = [(c, line) for row, line in zip(rows, lines, strict=True) for c in layout.numbers(row)]
    decimal = find_decimal(
        ((to_tell(cell), line) for cell, line in cells if isinstance(cell, str)),
        grid.separator,
        grid.word,
    )
    check_units(rows, lines, layout, instrument, decimal, grid.word)
    found = Assembly(_source(grid, instrument), grid.word)
    found.notes += [*grid.notes, *notes]
    _fill(found, rows, lines, layout, decimal, grid)
    table = found.table(grid.separator, decimal)
    table.held_back = held
    table.notes += layout_notes(layout, instrument)
    return table


def _source(grid: Grid, instrument: Instrument) -> str:
    title = version_of(grid, instrument)
    return f"{instrument.name}{f' (version {title})' if title else ''}"


def version_of(grid: Grid, instrument: Instrument) -> str:
    """The version an instrument writes into its first cell; empty for none."""
    if not instrument.title or not grid.rows:
        return ""
    found = re.match(instrument.title, as_text(grid.rows[0][0]), re.IGNORECASE)
    return found["version"] if found else ""


def _header(grid: Grid, instrument: Instrument) -> tuple[int, list[str], int]:
    """Row of the header, its labels, and the first row below it."""
    hits = [n_hits(instrument, cells) for cells in grid.rows[:_FIRST_ROWS]]
    if max(hits, default=0) < 2:
        raise DataError(
            f"looks like an export of {instrument.name} and has no header with "
            f"{listed((*instrument.samples[:1], *instrument.time_labels[:1]))} in its first "
            f"{_FIRST_ROWS} {grid.word}s; export it again."
        )
    at = hits.index(max(hits))
    labels = [as_text(cell) for cell in grid.rows[at]]
    first = at + 1
    while first < len(grid.rows) and first - at < instrument.header_rows:
        below = [as_text(cell) for cell in grid.rows[first]]
        if below and below[0]:
            break
        below += [""] * (len(labels) - len(below))
        labels += [""] * (len(below) - len(labels))
        labels = [f"{a} {b}".strip() for a, b in zip(labels, below, strict=True)]
        first += 1
    while labels and not labels[-1]:
        labels.pop()
    return at, labels, first


def _rows(
    grid: Grid, layout: Layout, at: int, first: int
) -> tuple[list[list[Any]], list[int], list[str]]:
    """Rows of samples, of equal width, and what was left out."""
    width = len(layout.labels)
    header = [folded(label) for label in layout.labels]
    rows: list[list[Any]] = []
    lines: list[int] = []
    notes: list[str] = []
    if at:
        notes.append(f"{at} {grid.word}s above the table are left out")
    for n in range(first, len(grid.rows)):
        cells, line = grid.rows[n], grid.lines[n]
        is_last = n == len(grid.rows) - 1
        if any(not is_blank(cell) for cell in cells[width:]):
            raise DataError(
                f"{grid.word} {line} has {len(cells)} cells where the header has {width}; is there "
                "a decimal comma between commas?"
            )
        if len(cells) < width and grid.separator is not None and not (grid.is_open and is_last):
            raise DataError(
                f"{grid.word} {line} has {len(cells)} cells where the header has {width}; is it "
                "cut off?"
            )
        row = [*cells[:width], *[None] * (width - len(cells))]
        at_sample = folded(as_text(row[layout.sample]))
        if at_sample == header[layout.sample] and [folded(as_text(c)) for c in row] == header:
            notes.append(f"{grid.word} {line} repeats the header and is left out")
        elif _is_numbering(row):
            notes.append(f"{grid.word} {line} only numbers the columns and is left out")
        else:
            rows.append(cells if len(cells) < width and grid.separator is not None else row)
            lines.append(line)
    return rows, lines, notes


def _is_numbering(row: list[Any]) -> bool:
    """A row such as 0, 1, 2, 4: some versions hide one below the header."""
    filled = [cell for cell in row if not is_blank(cell)]
    numbers = [float(c) for c in filled if isinstance(c, int | float) and not isinstance(c, bool)]
    return (
        len(filled) == len(numbers) >= 5
        and numbers[0] in (0, 1)
        and all(0 < b - a <= 3 for a, b in pairwise(numbers))
    )


def _fill(
    found: Assembly,
    rows: list[list[Any]],
    lines: list[int],
    layout: Layout,
    decimal: str,
    grid: Grid,
) -> None:
    """Put the samples of the rows together."""
    places = [f"{grid.word} {line}" for line in lines]
    times: list[str | None] = [None] * len(rows)
    for n in reversed(layout.times):
        column, left = read_times([row[n] for row in rows], layout.labels[n], places)
        times = [better or worse for better, worse in zip(column, times, strict=True)]
        if left:
            found.notes.append(
                f"'{layout.labels[n]}' is left as it is in {len(left)} {grid.word}s, because "
                f"nothing tells which date is meant: {few(left)}"
            )
    telling = _telling(rows, layout, decimal)
    idle: list[int] = []
    for row, line, time, where in zip(rows, lines, times, places, strict=True):
        sample = as_text(row[layout.sample])
        if time is None and all(is_blank(cell) for cell in layout.numbers(row)):
            idle.append(line)
            continue
        made = found.add(line, sample, time)
        for n, (column, label, unit) in layout.kept.items():
            if column.kind == "number":
                value = read_number(row[n], decimal, label, where)
                found.put(made, column.name, label, value.cell, unit, value.why)
            elif column.kind == "dilution":
                found.dilute(made, dilution_of(row[n], decimal))
            elif n in telling:
                found.put(made, "", label, as_text(row[n]) or None, "")
        for n in layout.unknown:
            if n in telling:
                cell = parse_number(row[n], decimal)
                value = row[n] if isinstance(cell, float) and math.isfinite(cell) else None
                found.put(made, "", layout.labels[n], value, bracketed(layout.labels[n]))
    if idle:
        found.notes.append(f"{len(idle)} {grid.word}s without time and measurement are left out")


def _hold_back(
    rows: list[list[Any]], lines: list[int], layout: Layout, grid: Grid, notes: list[str]
) -> int | None:
    """Take back what is not certain of a last line without a line end; the line, if all of it."""
    if not grid.is_open or not rows:
        return None
    last, n = rows[-1], len(layout.labels) - 1
    if len(last) <= n or n == layout.sample or n in layout.times:
        notes.append(
            f"line {lines[-1]} has no line end yet and is not read: it may be half written"
        )
        rows.pop()
        return lines.pop()
    if (n in layout.kept or n in layout.unknown) and not is_blank(last[n]):
        last[n] = None
        notes.append(
            f"line {lines[-1]} has no line end, so its last cell, '{layout.labels[n]}', may be cut "
            "off and counts as missing"
        )
    return None


def _telling(rows: list[list[Any]], layout: Layout, decimal: str) -> set[int]:
    """Positions of columns without a description, or of texts, that say something.

    A text that repeats the time says nothing. Of unknown columns those are kept that hold numbers
    only; the others are told to be left out.
    """
    found: set[int] = set()
    for n, (column, *_) in layout.kept.items():
        cells = [as_text(row[n]) for row in rows]
        same = any(cells == [as_text(row[t]) for row in rows] for t in layout.times)
        if column.kind == "text" and any(cells) and not same:
            found.add(n)
        elif column.kind == "text":
            layout.left_out.append(layout.labels[n])
    for n in layout.unknown:
        cells = [row[n] for row in rows if not is_blank(row[n])]
        numbers = [isinstance(parse_number(cell, decimal), float) for cell in cells]
        if layout.labels[n] and numbers and all(numbers):
            found.add(n)
        elif cells:
            layout.left_out.append(layout.labels[n] or f"column {n + 1} without a label")
    return found
