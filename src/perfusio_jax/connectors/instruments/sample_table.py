"""Exports with one row per sample, read by the description of their instrument."""

import math
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line
from perfusio_jax._core.units import conversion

from ..tables.cells import find_decimal, parse_number, to_tell
from ..tables.raw import RawTable
from .assembly import Assembly, few, listed
from .grid import Grid, as_text, is_blank
from .instrument import Column, Instrument, bracketed, folded, stem
from .readings import dilution_of, read_number, read_times

_FIRST_ROWS: Final = 20
"""Rows a header is looked for in."""
_TELLING: Final = 0.02
"""Share of living cells from which a viability of no more than 1 is a share and no percentage."""


@dataclass(slots=True)
class Layout:
    """Which column of a file is what."""

    labels: list[str]
    sample: int = -1
    times: list[int] = field(default_factory=list)
    """Best first."""
    kept: dict[int, tuple[Column, str, str]] = field(default_factory=dict)
    """Column, label and unit by position."""
    assumed: set[int] = field(default_factory=set)
    """Positions whose unit the file does not state."""
    left_out: list[str] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)


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
    layout = _layout(labels, instrument, f"{grid.word} {grid.lines[at]}")
    rows, lines, notes = _rows(grid, layout, at, first)
    held = _hold_back(rows, lines, layout, grid, notes)
    if rows and instrument.has_units_row and _is_units_row(rows[0], layout):
        _take_units(rows.pop(0), layout, f"{grid.word} {lines.pop(0)}")
    cells = [
        (c, line) for row, line in zip(rows, lines, strict=True) for c in _numbers(row, layout)
    ]
    decimal = find_decimal(
        ((to_tell(cell), line) for cell, line in cells if isinstance(cell, str)),
        grid.separator,
        grid.word,
    )
    _check_units(rows, lines, layout, instrument, decimal, grid.word)
    found = Assembly(_source(grid, instrument), grid.word)
    found.notes += [*grid.notes, *notes]
    _fill(found, rows, lines, layout, decimal, grid)
    table = found.table(grid.separator, decimal)
    table.held_back = held
    table.notes += _told(layout, instrument)
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


def _layout(labels: list[str], instrument: Instrument, where: str) -> Layout:
    layout = Layout(labels)
    samples = [folded(label) for label in instrument.samples]
    times = {folded(label): n for n, group in enumerate(instrument.times) for label in group}
    ranked: list[tuple[int, int]] = []
    seen: dict[str, int] = {}
    for n, label in enumerate(labels):
        key = folded(label)
        if key in seen:
            raise DataError(
                f"{where}: '{label}' stands above columns {seen[key] + 1} and {n + 1}; which of "
                "them is meant? Keep one."
            )
        if key:
            seen[key] = n
        column = instrument.known.get(key)
        if key in samples and layout.sample < 0:
            layout.sample = n
        elif key in times:
            ranked.append((times[key], n))
        elif column is not None:
            _keep(layout, n, column, column.unit)
        elif key in instrument.left_out:
            layout.left_out.append(label)
        else:
            _other(layout, n, instrument, where)
    layout.times = [n for _, n in sorted(ranked)]
    _check_complete(layout, instrument, where)
    return layout


def _keep(layout: Layout, n: int, column: Column, unit: str) -> None:
    twin = [layout.labels[k] for k, (c, *_) in layout.kept.items() if c is column]
    if twin:
        raise DataError(f"'{twin[0]}' and '{layout.labels[n]}' are the same; keep one of them.")
    layout.kept[n] = (column, layout.labels[n], unit)
    if unit and not column.is_stated:
        layout.assumed.add(n)


def _other(layout: Layout, n: int, instrument: Instrument, where: str) -> None:
    """A label that is not in the description: the same with another unit, or something new."""
    label = layout.labels[n]
    column = instrument.stems.get(stem(label))
    unit = bracketed(label)
    if column is None or not unit or (column.name and column.is_stated):
        if column is not None and column.name:
            raise DataError(
                f"{where}: '{label}' is not how {instrument.name} writes '{column.labels[0]}', and "
                "the unit may be another; it is not read. Is it another version, or was it edited?"
            )
        layout.unknown.append(n)
        return
    layout.kept[n] = (column, label, unit)


def _check_complete(layout: Layout, instrument: Instrument, where: str) -> None:
    for found, labels in (
        (layout.sample >= 0, instrument.samples),
        (bool(layout.times), instrument.time_labels),
        (
            any(column.name for column, *_ in layout.kept.values()),
            [c.labels[0] for c in instrument.columns if c.name],
        ),
    ):
        if not found:
            raise DataError(
                f"{where}: an export of {instrument.name} without {listed(labels[:1])} cannot be "
                f"read; there are {listed(layout.labels[:20])}. Choose the column in the export."
            )


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
        if [folded(as_text(cell)) for cell in row] == header:
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


def _numbers(row: list[Any], layout: Layout) -> list[Any]:
    return [row[n] for n, (c, *_) in layout.kept.items() if c.kind == "number" and n < len(row)]


def _is_units_row(row: list[Any], layout: Layout) -> bool:
    if not all(is_blank(row[n]) for n in (layout.sample, *layout.times)):
        return False
    texts = [as_text(cell) for cell in _numbers(row, layout) if not is_blank(cell)]
    return bool(texts) and not any(isinstance(parse_number(text), float) for text in texts)


def _take_units(row: list[Any], layout: Layout, where: str) -> None:
    for n, (column, label, _) in list(layout.kept.items()):
        unit = " ".join(as_text(row[n]).split())
        if unit in ("", "-") or column.kind != "number":
            continue
        if len(unit) > 40:
            raise DataError(f"{where}: '{label}' has the unit {in_line(unit)}, which is none.")
        layout.kept[n] = (column, label, unit.replace(" / ", "/"))
        layout.assumed.discard(n)


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
    telling = _telling(rows, layout)
    idle: list[int] = []
    for row, line, time, where in zip(rows, lines, times, places, strict=True):
        sample = as_text(row[layout.sample])
        if time is None and all(is_blank(cell) for cell in _numbers(row, layout)):
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


def _telling(rows: list[list[Any]], layout: Layout) -> set[int]:
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
        numbers = [isinstance(parse_number(cell), float) for cell in cells]
        if layout.labels[n] and numbers and all(numbers):
            found.add(n)
        elif cells:
            layout.left_out.append(layout.labels[n] or f"column {n + 1} without a label")
    return found


def _check_units(
    rows: list[list[Any]],
    lines: list[int],
    layout: Layout,
    instrument: Instrument,
    decimal: str,
    word: str,
) -> None:
    """Refuse units the file does not state and its own numbers contradict."""
    at = {folded(label): n for n, label in enumerate(layout.labels)}

    def numbers(label: str) -> list[float]:
        n = at.get(folded(label), -1)
        cells = [row[n] if 0 <= n < len(row) else None for row in rows]
        found = [parse_number(cell, decimal) for cell in cells]
        return [f if isinstance(f, float) and math.isfinite(f) else math.nan for f in found]

    for density, count in instrument.counts:
        n = at.get(folded(density), -1)
        if n not in layout.assumed:
            continue
        unit = layout.kept[n][2]
        per_ml = float(conversion(unit, "VCD").slope) * 1e6
        pairs = [*zip(numbers(density), numbers(count), lines, strict=True)]
        wrong = [(a, b, k) for a, b, k in pairs if a > 0 and (a * per_ml < b or a * per_ml > 1e10)]
        if wrong and len(wrong) * 2 > sum(a > 0 for a, *_ in pairs):
            value, counted, line = wrong[0]
            raise DataError(
                f"{word} {line}: '{density}' is {value:g} beside {counted:g} counted cells, which "
                f"cannot be in {unit}, the unit {instrument.name} is known to write; is it another "
                "version? Export with units, or give the column its unit."
            )
    via = [n for n, (c, *_) in layout.kept.items() if c.name == "Via" and n in layout.assumed]
    pairs = [p for p in instrument.counts if folded(p[1]) in at]
    if via and len(pairs) > 1:
        alive, total = _alive_and_all(instrument)
        shares = [
            a / b if b > 0 else 0.0 for a, b in zip(numbers(alive), numbers(total), strict=True)
        ]
        stated = numbers(layout.labels[via[0]])
        told = [v for v, s in zip(stated, shares, strict=True) if s > _TELLING and v > 0]
        if len(told) > 1 and max(told) <= 1:  # one alone may be of a dying culture
            raise DataError(
                f"'{layout.labels[via[0]]}' is {max(told):g} at the most, a share, where "
                f"{instrument.name} is known to write %; is it another version?"
            )


def _alive_and_all(instrument: Instrument) -> tuple[str, str]:
    densities = [density for density, _ in instrument.counts]
    alive = next(label for label in densities if label.startswith("Viable"))
    return alive, next(label for label in densities if label.startswith("Total"))


def _told(layout: Layout, instrument: Instrument) -> list[str]:
    told: list[str] = []
    if layout.times:
        others = "".join(f", where that is empty '{layout.labels[n]}'" for n in layout.times[1:])
        told.append(f"sampled_at is '{layout.labels[layout.times[0]]}'{others}")
    if instrument.footnote:
        told.append(instrument.footnote)
    units = [f"{layout.kept[n][1]} in {layout.kept[n][2]}" for n in sorted(layout.assumed)]
    if units:
        told.append(
            f"the file states no unit of these; the ones {instrument.name} is delivered with are "
            f"taken: {', '.join(units)}"
        )
    if layout.left_out:
        told.append(f"settings and remarks are left out: {listed(layout.left_out)}")
    return told
