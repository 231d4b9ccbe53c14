"""All columns of numbers a table has, whether or not anyone knows them: what a process is read off.

Our own columns are in our units, others in the unit the table states for them.
"""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    REGISTRY,
    STREAM_TOTALS,
    DataError,
    UnitError,
)
from perfusio_jax._core.text import in_line
from perfusio_jax._core.unit_text import parse_unit

from ..tables.cells import parse_number, qualified
from ..tables.file_rules import FileRules
from ..tables.labels import NAME
from ..tables.suggestions import fits
from ..tables.vocabulary import OURS, UNITLESS, Vocabulary
from .campaign_cells import Cells, NoTableError, read_cells
from .campaign_table import runs_of
from .frame_columns import ID_COLUMNS, number_columns, read_header
from .frame_run import RunFields
from .parts import Part, Tables, parts_of, title_of

_BRACKET: Final = re.compile(r"[\[(]")


class Survey(NamedTuple):
    """Columns of numbers of a table, run by run in order of time."""

    columns: dict[str, list[np.ndarray]]
    """Values of every run by name, in the order of the table; NaN where nothing was read. None is
    empty throughout."""
    units: dict[str, str]
    """Unit that the table states for columns that are not ours, or not in our unit; empty where it
    states none."""
    left_out: tuple[str, ...]
    """What is no column of numbers, a sentence each."""
    lengths: tuple[int, ...]
    """Samples of every run."""

    def known(self, name: str) -> np.ndarray:
        """All readings of a column, of all runs."""
        values = np.concatenate(self.columns[name])
        return values[~np.isnan(values)]

    def firsts(self, name: str) -> np.ndarray:
        """The first reading of each run that has one."""
        runs = (values[~np.isnan(values)] for values in self.columns[name])
        return np.array([values[0] for values in runs if values.size])


def survey(tables: Tables, rules: FileRules | None = None) -> Survey:
    """Read every column of numbers of a campaign table.

    Args:
        tables: A table of any kind that is read, several, or a folder of them.
        rules: How they are read.

    Raises:
        DataError: If one cannot be read as a campaign table, or two state one quantity in two
            units.
        UnitError: If a unit of one of our columns cannot be read or does not fit.
    """
    found: list[tuple[str, Survey]] = []
    for part in parts_of(tables, rules or FileRules()):
        try:
            found.append((part.title, _survey(part)))
        except NoTableError as error:
            if not part.may_be_none:
                raise DataError(f"{part.path}: {error}") from None
        except DataError as error:
            raise DataError(f"{part.title or part.path}: {error}") from None
        except ValueError as error:  # UnitError and its kin keep their type
            raise type(error)(f"{part.title or part.path}: {error}") from None
    if not found:
        raise DataError(f"{title_of(tables)}: none of its sheets holds a table.")
    return found[0][1] if len(found) == 1 else _together(found)


def _together(parts: list[tuple[str, Survey]]) -> Survey:
    """Several tables as one; what one of them lacks is missing there."""
    names = dict.fromkeys(name for _, one in parts for name in one.columns)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    units: dict[str, str] = {}
    whose: dict[str, str] = {}
    for title, one in parts:
        for name, unit in one.units.items():
            if unit and units.get(name, unit) != unit:
                raise DataError(
                    f"{name} is in '{units[name]}' in {whose[name]} and in '{unit}' in {title}; "
                    "state one unit for both."
                )
            if unit or name not in units:
                units[name], whose[name] = unit, title
        for name in names:
            blank = [np.full(n, np.nan) for n in one.lengths]
            columns[name] += one.columns.get(name, blank)
    told = dict.fromkeys(text for _, one in parts for text in one.left_out)
    lengths = tuple(n for _, one in parts for n in one.lengths)
    return Survey(columns, units, tuple(told), lengths)


def _survey(part: Part) -> Survey:
    told: list[str] = []
    first, _ = read_cells(part.path, part.rules, OURS, is_open=True, run_name=part.run_name)
    ours = {*ID_COLUMNS, *number_columns(OURS)}
    others = {label: _bare(label) for label in map(str, first.frame.columns)}
    others = {label: name for label, name in others.items() if name not in ours}
    numbers = []
    for label, name in others.items():
        cells = first.frame.loc[:, first.frame.columns == label].iloc[:, 0].tolist()
        if why := _no_numbers(name, cells):
            told.append(f"{name[:60]}: {why}; left out.")
        else:
            numbers.append(name)
    numbers += _other_tags(first)
    words = _open(numbers)
    cells = first
    del first
    if numbers:  # names that nobody knew: what is done to numbers is done to them now
        cells, _ = read_cells(part.path, part.rules, words, is_open=True, run_name=part.run_name)
    names, in_header = read_header(cells.frame, words)
    units = {**cells.frame.attrs.get("units", {}), **in_header, **cells.units}
    unread = {n for n in numbers if (unit := units.get(n, "").strip()) and not _is_unit(unit)}
    told += [
        f"{n}: {in_line(units[n])} is no unit that is known; left out." for n in sorted(unread)
    ]
    keep = [n not in unread and (n in ours or n in numbers) for n in names]
    frame = cells.frame.loc[:, keep]
    frame.attrs = {}
    there = {name for name, kept in zip(names, keep, strict=True) if kept}
    runs, report = runs_of(
        frame,
        units={n: unit for n, unit in units.items() if n in there or n in ours - unread} or None,
        unknown="ignore",
        lines=cells.lines,
        totals=cells.totals,
        decimal=cells.decimal,
        words=words,
    )
    told += [f"{name}: it means something else here; left out." for name in report.ignored]
    told += [f"{name}: no value in any row; left out." for name in report.empty]
    apart = {*ID_COLUMNS, "time_h", "day", *report.empty, *report.assumed}
    used = [n for n in names if n in report.columns and n not in apart]
    columns = {name: [_column(run, name) for run in runs] for name in used}
    stated = {n: units.get(n, "").strip() for n in columns if n in numbers}
    return Survey(columns, stated, tuple(told), tuple(len(run["days"]) for run in runs))


def _other_tags(cells: Cells) -> list[str]:
    """Online tags in a unit that is not one of ours for them, as dissolved oxygen in mg/L."""
    names, units = read_header(cells.frame)
    units = {**cells.frame.attrs.get("units", {}), **units, **cells.units}
    there = [n for n in AUXILIARY_TAGS if n in names and units.get(n, "").strip()]
    return [n for n in there if not fits(n, units[n])]


def _open(names: Iterable[str]) -> Vocabulary:
    """Our names, and others whose unit is the one the table states."""
    others = tuple(dict.fromkeys(names))
    return Vocabulary(
        species=(*REGISTRY, *others),
        tags=tuple(n for n in AUXILIARY_TAGS if n not in others),
        units=dict.fromkeys(others, "1"),
        signed=frozenset(others),
        open=frozenset(others),
    )


def _bare(label: str) -> str:
    return _BRACKET.split(label.strip(), maxsplit=1)[0].strip()


def _no_numbers(name: str, cells: list[Any]) -> str:
    """Why a column cannot be a quantity or a control; empty if it can."""
    values = [cell for cell in cells if not _is_missing(cell)]
    numbers = [cell for cell in values if _is_number(cell)]
    texts = len(values) - len(numbers)
    if values and (not numbers or texts > max(1, len(numbers))):  # one text may be its unit
        return "text"
    if not values:
        return "no value in any row"
    if not NAME.fullmatch(name) or name == "rest":
        return (
            "no name that a process can have, which begins with a letter and goes on with letters, "
            "digits and _ (at most 40)"
        )
    return ""


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return parse_number(cell) is None
    return cell is None or bool(pd.isna(cell))


def _is_number(cell: Any) -> bool:
    if not isinstance(cell, str):
        return isinstance(cell, int | float | np.number) and not isinstance(cell, bool)
    for mark in (".", ","):
        number = parse_number(cell, mark)
        found = qualified(number) if isinstance(number, str) else None
        if isinstance(number, float) or (
            found is not None and isinstance(parse_number(found.number, mark), float)
        ):
            return True
    return False


def _is_unit(text: str) -> bool:
    if text in UNITLESS:
        return True
    try:
        parse_unit(text)
    except UnitError:
        return False
    return True


def _column(run: RunFields, name: str) -> np.ndarray:
    if name == "volume_L":
        return run["volume_L"]
    for names, values in (
        (run["species_names"], run["species"]),
        (run["control_names"], run["controls"]),
        (STREAM_TOTALS, run["stream_totals"]),
        (run["auxiliary_names"], run["auxiliary"]),
    ):
        if name in names:
            return values[:, list(names).index(name)]
    raise DataError(f"column '{name}' was read and is in no run.")
