"""A campaign table of one value a row made one of a row per sample."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from ..tables.cells import parse_number, qualified
from ..tables.column_map import ColumnMap, Meaning, meaning_of
from ..tables.columns import lacks_long
from ..tables.labels import TIMES
from ..tables.raw import Coded, Numbering, RawTable
from ..tables.settling import some
from .campaign_work import Work

KEYS: Final = ("run_id", "reactor_id", "clone_id", "sample_id", "sampled_at", *TIMES)
"""What tells the row of a long table that a value belongs to."""


def widened(work: Work, column_map: ColumnMap, used: set[str | None]) -> Work:
    """Rows of `species, value` as columns of species.

    Args:
        work: The table.
        column_map: What is said of labels, those of species among them.
        used: Entries of the map that meant something; takes those of species.

    Raises:
        DataError: If there is no such column, or a sample has two values of a species.
    """
    table, header = work.table, work.table.header
    lacking = [name for name in ("species", "value") if name not in header]
    if lacking:
        raise DataError(lacks_long(", ".join(in_line(label) for label in header[:20])))
    labels, codes = work.named("species")
    meant = [meaning_of(label, column_map, work.words) for label in labels]
    used.update(meaning.entry for meaning in meant)
    rows = np.flatnonzero(np.asarray([m.name != "ignore" for m in meant])[codes])
    names = [meaning.name or label for meaning, label in zip(meant, labels, strict=True)]
    number = Numbering()
    code = np.asarray([number[name] for name in names])[codes[rows]]  # two labels may mean one
    name_of = [*number]
    values, units = _in_one_unit(work, rows, codes[rows], meant, names)
    keys = [name for name in header if name in KEYS]
    sample, first = _numbered([work.named(name)[1][rows] for name in keys], len(rows))
    cell_of, of_cell = _numbered([sample, code], len(rows))
    repeats = _repeats(work, rows, (cell_of, of_cell), values, [name_of[k] for k in code[of_cell]])
    unused = [f"'{label}'" for label in column_map.names if label not in used]
    work.told.extend(some("entries of the column map that are not in the table", unused))
    work.told.extend(repeats)
    work.told.append(f"{table.n_rows} rows of one value each made {len(first)} samples")
    columns = [table.column(header.index(name)).of(rows[first]) for name in keys]
    last = np.empty(len(of_cell), np.int64)
    last[cell_of] = np.arange(len(rows))
    for k in dict.fromkeys(code[np.sort(of_cell)].tolist()):
        mine = last[code[of_cell] == k]
        spread = np.full(len(first), len(values.cells), np.int32)
        spread[sample[mine]] = values.codes[mine]
        columns.append(Coded([*values.cells, None], spread).of(np.arange(len(first))))
    seen = [name_of[k] for k in dict.fromkeys(code[np.sort(of_cell)].tolist())]
    wide = RawTable(
        header=[*keys, *seen],
        lines=[table.lines[k] for k in rows[first].tolist()],
        units={**table.units, **{name: unit for name, unit in units.items() if unit}},
        notes=table.notes,
        separator=table.separator,
        decimal=table.decimal,
    )
    wide.put_columns(columns)
    return Work(wide, work.words, work.told)


def _in_one_unit(
    work: Work, rows: np.ndarray, labels: np.ndarray, meant: list[Meaning], names: list[str]
) -> tuple[Coded, dict[str, str]]:
    """Values of the rows, those of a species in the unit its first one has, and these units."""
    table = work.table
    texts, own = work.named("unit")
    values = table.column(table.header.index("value")).of(rows)
    units: dict[str, str] = {}
    pair, first = _numbered([labels, own[rows]], len(rows))
    others: list[tuple[int, str, str]] = []
    for k, row in enumerate(first.tolist()):
        label = int(labels[row])
        name = names[label]
        unit = texts[own[rows[row]]] or meant[label].unit
        unit = unit or table.units.get(name, "") or table.units.get("value", "")
        if unit != units.setdefault(name, unit):
            others.append((k, name, unit))
    if not others:
        return values, units
    codes, number = values.codes.copy(), Numbering()
    for cell in values.cells:
        number[type(cell), cell]
    cells = [*values.cells]
    for k, name, unit in others:
        of_pair = np.flatnonzero(pair == k)
        for code in np.unique(values.codes[of_pair]).tolist():
            cell = _in_unit(work, name, values.cells[code], unit, units[name])
            at = number[type(cell), cell]
            if at == len(cells):
                cells.append(cell)
            codes[of_pair[values.codes[of_pair] == code]] = at
    return Coded(cells, codes), units


def _numbered(parts: Iterable[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of rows that are alike in all parts, in the order of the rows; the first of each."""
    whole = np.zeros(n, np.int64)
    for part in parts:
        part = part.astype(np.int64)
        whole = whole * (int(part.max(initial=0)) + 1) + part
        _, whole = np.unique(whole, return_inverse=True)  # so that the product stays small
    _, first, number = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[number], first[order]


def _repeats(
    work: Work,
    rows: np.ndarray,
    where: tuple[np.ndarray, np.ndarray],
    values: Coded,
    names: list[str],
) -> list[str]:
    """A sentence on values that are there more than once.

    Raises:
        DataError: If two are not the same.
    """
    cell_of, first = where
    again = np.flatnonzero(first[cell_of] != np.arange(len(rows)))
    if not again.size:
        return []
    lines = work.table.lines
    order = np.argsort(cell_of, kind="stable")
    before = np.empty(len(rows), np.int64)
    before[order[1:]] = order[:-1]  # the row of the same value above; of the first there is none
    one, other = values.codes[before[again]], values.codes[again]
    for k in np.flatnonzero(one != other).tolist():
        if values.cells[one[k]] == values.cells[other[k]]:
            continue  # 1 and 1.0
        row = int(again[k])
        raise DataError(
            f"{names[cell_of[row]]} of one sample is {in_line(values.cells[one[k]])} in line "
            f"{lines[rows[before[row]]]} and {in_line(values.cells[other[k]])} in line "
            f"{lines[rows[row]]}; keep one of the two."
        )
    shown = [f"line {lines[rows[k]]} repeats {names[cell_of[k]]}" for k in again[:3].tolist()]
    return some("rows that repeat another", shown, again.size)


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
