"""Cells of any table made those of a campaign table: a row per sample, a column per quantity.

Names become ours, rows of `species, value` become columns, time stamps become hours, rows of one
sample become one. What is done is told; what cannot be done is refused with its line.
"""

from collections.abc import Sequence
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from ..tables.body import QUALITIES
from ..tables.cells import parse_number, qualified
from ..tables.column_units import is_units_row
from ..tables.columns import (
    IS_LONG,
    TIMES,
    ColumnMap,
    lacks_long,
    meaning_of,
    refuse_second_header,
)
from ..tables.file_rules import FileRules
from ..tables.raw import RawTable, leave_out_footer
from ..tables.settling import some
from ..tables.vocabulary import Vocabulary
from .campaign_joins import join_samples
from .campaign_times import count_hours, name_runs
from .campaign_work import Work
from .feed_pairs import feed_pairs_to_boluses
from .opening import Opened

_KEYS: Final = ("run_id", "reactor_id", "clone_id", "sample_id", "sampled_at", *TIMES)
"""What tells the row of a long table that a value belongs to."""
_HELPERS: Final = ("sample_id", "sampled_at", "time_of_day", "inoculated_at")
"""Columns that have done their work once rows have a run and a time."""


def as_campaign(
    opened: Opened, rules: FileRules, words: Vocabulary, run_name: str, *, is_open: bool = False
) -> tuple[RawTable, list[str]]:
    """Bring cells into the form of a campaign table.

    Args:
        opened: The cells; changed in place.
        rules: How they are read.
        words: Names and units of columns.
        run_name: What a run is called where the table holds one and does not say.
        is_open: Whether the culture is yet to be read off the table.

    Returns:
        The table under canonical names, and a sentence for everything that was done.

    Raises:
        DataError: If a row has no time, a value is there twice, or a column is a problem.
    """
    work = Work(opened.table, words, [])
    used = _rename(work, opened)
    times = [n for n, name in enumerate(work.table.header) if name in ("sampled_at", *TIMES)]
    leave_out_footer(work.table, times)
    _take_units_row(work)
    if not work.table.rows:
        return work.table, work.told
    _apply_quality(work)
    header = set(work.table.header)
    if not rules.is_long and {"species", "value"} <= header and not header & {*words.numbers}:
        raise DataError(IS_LONG)
    if rules.is_long:
        work = _widened(work, opened.column_map, used)
    count_hours(work, opened, rules)
    name_runs(work, run_name)
    if rules.feeds == "bolus":
        feed_pairs_to_boluses(work, is_open=is_open)
    join_samples(work, rules)
    _drop(work, _HELPERS)
    return work.table, work.told


def _rename(work: Work, opened: Opened) -> set[str | None]:
    """Give columns our names, leave out those to be ignored; entries of the map that meant one."""
    table = work.table
    used: set[str | None] = set()
    ignored = []
    for n, label in enumerate(table.header):
        name, unit, entry = meaning_of(label, opened.column_map, work.words)
        used.add(entry)
        if told := opened.column_map.overruled(label):
            work.told.append(told)
        if name == "ignore":
            ignored.append(n)
            table.units.pop(label, None)
        elif name and (entry is not None or name not in work.words.latent):
            table.header[n] = name
            in_file = table.units.pop(label, "")
            if unit or in_file:
                table.units[name] = unit or in_file
    known = [name for name in table.header if name in (*_KEYS, *work.words.numbers)]
    for name in known:
        if known.count(name) > 1:
            raise DataError(f"column {name} occurs more than once; keep one of them.")
    _drop_at(work, ignored)
    unused = [f"'{label}'" for label in opened.column_map.names if label not in used]
    if not work.table.header or "species" not in work.table.header:
        work.told.extend(some("entries of the column map that are not in the table", unused))
    return used


def _take_units_row(work: Work) -> None:
    """Units of a row below the header."""
    table = work.table
    numeric = [n for n, name in enumerate(table.header) if work.words.is_numeric(name)]
    if not table.rows or not is_units_row([table.rows[0][n] for n in numeric], table.decimal):
        return
    cells, line = table.rows.pop(0), table.lines.pop(0)
    texts = {n: str(cells[n] or "").strip().strip("[]()").strip() for n in numeric}
    stated = [(table.header[n], text) for n, text in texts.items() if text]
    refuse_second_header(line, [s for s in stated if s[0] != "value"], work.words)
    for name, text in stated:
        if table.units.get(name, text) != text:
            raise DataError(
                f"column '{name}' is in '{table.units[name]}' by its header and in '{text}' by "
                "the units row; correct one of them."
            )
        table.units[name] = text


def _widened(work: Work, column_map: ColumnMap, used: set[str | None]) -> Work:
    """Rows of `species, value` as columns of species."""
    table, header = work.table, work.table.header
    lacking = [name for name in ("species", "value") if name not in header]
    if lacking:
        raise DataError(lacks_long(", ".join(in_line(label) for label in header[:20])))
    keys = [name for name in header if name in _KEYS]
    at = [header.index(name) for name in keys]
    species, value = header.index("species"), header.index("value")
    unit = work.at("unit")
    found: dict[tuple[str, ...], dict[str, tuple[Any, int]]] = {}
    names: dict[str, None] = {}
    units: dict[str, str] = {}
    first: dict[tuple[str, ...], tuple[list[Any], int]] = {}
    repeats = []
    for row, line in zip(table.rows, table.lines, strict=True):
        key = tuple("" if row[k] is None else str(row[k]).strip() for k in at)
        label = "" if row[species] is None else str(row[species]).strip()
        name, in_label, entry = meaning_of(label, column_map, work.words)
        used.add(entry)
        if name == "ignore":
            continue
        name = name or label
        own = "" if unit is None or row[unit] is None else str(row[unit]).strip()
        own = own or in_label or table.units.get(name, "") or table.units.get("value", "")
        cell = _in_unit(work, name, row[value], own, units.setdefault(name, own))
        first.setdefault(key, ([row[k] for k in at], line))
        cells = found.setdefault(key, {})
        if name in cells and cells[name][0] != cell:
            raise DataError(
                f"{name} of one sample is {in_line(cells[name][0])} in line {cells[name][1]} and "
                f"{in_line(cell)} in line {line}; keep one of the two."
            )
        if name in cells:
            repeats.append(f"line {line} repeats {name}")
        names[name] = None
        cells[name] = (cell, line)
    unused = [f"'{label}'" for label in column_map.names if label not in used]
    work.told.extend(some("entries of the column map that are not in the table", unused))
    work.told.extend(some("rows that repeat another", repeats))
    work.told.append(f"{len(table.rows)} rows of one value each made {len(found)} samples")
    wide = RawTable(
        header=[*keys, *names],
        rows=[
            [*first[key][0], *(cells.get(n, (None,))[0] for n in names)]
            for key, cells in found.items()
        ],
        lines=[first[key][1] for key in found],
        units={**table.units, **{name: unit for name, unit in units.items() if unit}},
        notes=table.notes,
        separator=table.separator,
        decimal=table.decimal,
    )
    return Work(wide, work.words, work.told)


def _in_unit(work: Work, name: str, cell: Any, unit: str, wanted: str) -> Any:
    """A value in the unit the first of its kind has."""
    if unit == wanted:
        return cell
    found = qualified(cell) if isinstance(cell, str) else None
    number = parse_number(cell if found is None else found.number, work.table.decimal)
    if not isinstance(number, float) or (found is not None and found.unit):
        return cell  # nothing was measured, or the cell states its own unit
    words = work.words
    convert = words.between(unit or words.unit(name), wanted or words.unit(name), name)
    converted = float(convert([number])[0])
    if found is None:
        return converted
    return f"{found.sign}{converted!r}".replace(".", work.table.decimal)


def _apply_quality(work: Work) -> None:
    """Empty what is marked bad; the marks have then done their work."""
    header = work.table.header
    marks = {name: n for n, name in enumerate(header) if name.endswith("_quality")}
    whole = work.at("quality")
    if not marks and whole is None:
        return
    measured = (*work.words.numbers, "value")
    bad: dict[str, int] = {}
    for row, line in zip(work.table.rows, work.table.lines, strict=True):
        for label, n in [*marks.items(), *([("quality", whole)] if whole is not None else [])]:
            text = "" if row[n] is None else str(row[n]).strip().casefold()
            if not text:
                continue
            if text not in QUALITIES:
                raise DataError(
                    f"{label} is {in_line(text)} in line {line}; allowed are "
                    f"{', '.join(QUALITIES)}."
                )
            if text != "bad":
                continue
            names = [label.removesuffix("_quality")] if label != "quality" else measured
            for k in (header.index(name) for name in names if name in header):
                if row[k] is not None and str(row[k]).strip():
                    row[k] = None
                    bad[header[k]] = bad.get(header[k], 0) + 1
    work.told.extend(
        [f"{n} value(s) of {name} are marked bad and left out" for name, n in bad.items()]
    )
    _drop(work, [*marks, "quality"])


def _drop(work: Work, names: Sequence[str]) -> None:
    _drop_at(work, [n for n, name in enumerate(work.table.header) if name in names])


def _drop_at(work: Work, columns: Sequence[int]) -> None:
    if not columns:
        return
    gone = set(columns)
    table = work.table
    kept = [n for n in range(len(table.header)) if n not in gone]
    table.header[:] = [table.header[n] for n in kept]
    table.rows[:] = [[row[n] for n in kept] for row in table.rows]
