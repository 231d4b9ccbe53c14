"""Numbers of the campaign table: cells of text, units, what is missing, times.

Nothing is mended in silence: a cell that is no number is refused with column, row and value.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax._core.instants import LONGEST_H
from perfusio_jax._core.text import in_line

from ..tables.cells import find_decimal, parse_number, plain, qualified, to_tell, understood
from ..tables.row_times import no_sample
from ..tables.vocabulary import OURS, TIMES, Vocabulary
from .frame_columns import ID_COLUMNS, Where, number_columns

_BEYOND: Final = {
    "below": "below the limit of the assay, shown as half of it,",
    "above": "above what the assay reads,",
    "under": "below a limit of the assay that is not stated, and missing,",
}

_DEFAULT_IDS: Final = {"reactor_id": "R00", "clone_id": "unknown"}

_MAY_BE_NEGATIVE: Final = frozenset({"TMP", "capacitance", "pH"})


def with_points(
    table: pd.DataFrame, decimal: str | None, where: Where, words: Vocabulary = OURS
) -> pd.DataFrame:
    """The table with a decimal point in those of its numbers that are text."""
    if decimal == ".":
        return table  # as all that is read from CSV
    known = frozenset(number_columns(words))
    columns = {
        name: table[name].tolist()
        for name in table.columns
        if name in known and not pd.api.types.is_numeric_dtype(table[name])
    }
    rows = range(len(table)) if where.lines is None else where.lines
    texts = (
        (to_tell(cell), row)
        for cells in columns.values()
        for row, cell in zip(rows, cells, strict=True)
        if isinstance(cell, str)
    )
    mark = decimal or find_decimal(texts, None, where.word)
    if mark == ".":
        return table
    changed = {
        name: [with_point(cell, mark) if isinstance(cell, str) else cell for cell in cells]
        for name, cells in columns.items()
    }
    return table.assign(**changed)


class NoNumber(str):
    """A cell that would be a number with another decimal mark than its table has."""


def with_point(cell: str, decimal: str) -> Any:
    """A number where the cell is one; else the cell, with a decimal point."""
    number = parse_number(cell, decimal)
    if not isinstance(number, str):
        return number
    found = qualified(number)
    try:
        pointed = plain(number if found is None else found.number, decimal)
    except ValueError:
        return NoNumber(cell)
    if found is None:
        return cell
    return cell if pointed == found.number else f"{found.sign}{pointed} {found.unit}"


def since_start(table: pd.DataFrame, where: Where, odd: list[str]) -> tuple[pd.DataFrame, Where]:
    """The rows from the inoculation on; those before are left out by name."""
    name = "time_h" if "time_h" in table else "day"
    times = parse_column(pd.Series(table[name]), name, where)
    early = np.flatnonzero(times < 0.0)
    if early.size == 0 or early.size == len(table):
        return table, where
    places = ", ".join(where(int(row)) for row in early[:3])
    odd.append(f"{early.size} row(s) from before the inoculation are left out ({places}).")
    rows = np.flatnonzero(~(times < 0.0))
    return table.iloc[rows].reset_index(drop=True), where.of(rows)


def read_ids(table: pd.DataFrame, assumed: dict[str, str], where: Where) -> dict[str, list[str]]:
    """Run, vessel and clone of every row; what had to be assumed goes into `assumed`.

    Raises:
        DataError: If a row has no `run_id`.
    """
    ids = {}
    for name in ID_COLUMNS:
        if name not in table:
            assumed[name] = _DEFAULT_IDS[name]
            ids[name] = [_DEFAULT_IDS[name]] * len(table)
            continue
        cells = table[name].tolist()
        keys = cells if {*map(type, cells)} == {str} else [(type(v), v) for v in cells]
        once = {
            key: "" if pd.isna(cell) else str(cell).strip()
            for key, cell in {key: cell for key, cell in zip(keys, cells, strict=True)}.items()
        }
        values = [*map(once.__getitem__, keys)]
        if "" in values and name == "run_id":
            hint = " Cells that are merged? Fill them down." if any(values) else ""
            raise DataError(f"run_id is empty in {where(values.index(''))}.{hint}")
        if "" in values:
            assumed[name] = f"{_DEFAULT_IDS[name]} where the cell is empty"
        ids[name] = [v or _DEFAULT_IDS[name] for v in values]
    return ids


def read_numbers(
    table: pd.DataFrame,
    stated: Mapping[str, str],
    assumed: dict[str, str],
    where: Where,
    odd: list[str],
    words: Vocabulary = OURS,
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, np.ndarray]]:
    """Numeric columns in the units they have here, and those whose numbers changed on the way.

    Limits of assays, below and above `(N,2)`, come third, by name where there are some.

    Raises:
        DataError: If a cell is no number.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    numbers, converted, unstated, limits = {}, {}, [], {}
    known = frozenset(number_columns(words))
    for name in (n for n in table.columns if n in known):
        unit = str(stated.get(name, "")).strip()
        stated_here: dict[int, tuple[float, float]] = {}
        raw = parse_column(
            pd.Series(table[name]),
            name,
            where,
            unit=unit,
            odd=odd,
            words=words,
            limits=stated_here,
        )
        if stated_here:
            both = np.full((len(raw), 2), np.nan)
            both[list(stated_here)] = list(stated_here.values())
            limits[name] = words.conversion(unit, name)(both) if unit else both
        if not unit:
            unstated.append(name)
            numbers[name] = raw
            continue
        numbers[name] = words.conversion(unit, name)(raw)
        if not np.allclose(numbers[name], raw, rtol=1e-12, atol=0, equal_nan=True):
            converted[name] = f"{unit} -> {words.unit(name)}"
    if unstated:
        assumed["units"] = ", ".join(f"{n} {words.unit(n)}" for n in unstated)
    return numbers, converted, limits


def parse_column(
    column: pd.Series,
    name: str,
    where: Any,
    *,
    unit: str = "",
    odd: list[str] | None = None,
    words: Vocabulary = OURS,
    limits: dict[int, tuple[float, float]] | None = None,
) -> np.ndarray:
    """Numbers of one column, NaN where the cell says that nothing was measured.

    A cell may carry its unit (`98 %`). `< 0.05` is read as half the limit, `> 20` as missing; the
    limits themselves go into `limits`.

    Args:
        column: Numbers or texts.
        name: Canonical column name, for messages.
        where: Function from row number to a phrase that names the row.
        unit: Unit of the column; empty for the canonical one.
        odd: Takes a sentence on readings beyond a limit of the assay.
        words: Names and units of columns.
        limits: Takes the limits of the assay that are stated, below and above, by row.

    Returns:
        64-bit floats.

    Raises:
        DataError: If a cell is neither a number nor one of `cells.MISSING`, or is infinite.
    """
    if pd.api.types.is_float_dtype(column) or pd.api.types.is_integer_dtype(column):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
        if np.any(np.isinf(numbers)):
            raise DataError(
                f"column '{name}' is infinite in {where(int(np.argmax(np.isinf(numbers))))}."
            )
        return numbers
    cells = column.tolist()
    if {*map(type, cells)} <= {float, type(None)}:  # nearly all there are
        numbers = np.asarray(cells, np.float64)
        if not np.any(np.isinf(numbers)):
            return numbers
    numbers = np.empty(len(cells))
    beyond: dict[str, list[str]] = {}
    for row, cell in enumerate(cells):
        if isinstance(cell, float) and math.isfinite(cell):
            numbers[row] = cell
            continue
        numbers[row], kind = _parse_cell(cell, name, row, where, unit, words)
        if kind in _BEYOND and not words.has_limits(name):
            raise DataError(
                f"column '{name}' holds {in_line(cell)} in {where(row)}: {name} is no reading of "
                "an assay, so a limit tells no value; leave the cell empty if it is not known."
            )
        if kind in _BEYOND:
            beyond.setdefault(kind, []).append(f"'{str(cell).strip()}' in {where(row)}")
        if kind == "below" and not numbers[row] > 0.0:
            raise DataError(
                f"column '{name}' holds {in_line(cell)} in {where(row)}; a limit is above zero."
            )
        if kind == "below" and limits is not None:
            limits[row] = (2.0 * float(numbers[row]), math.nan)
        if kind == "above":
            if limits is not None and math.isfinite(numbers[row]):
                limits[row] = (math.nan, float(numbers[row]))
            numbers[row] = math.nan
    if odd is not None:
        odd += [
            f"{name} is {_BEYOND[kind]} in {len(found)} row(s) (first {found[0]})."
            for kind, found in beyond.items()
        ]
    return numbers


def _parse_cell(
    cell: Any, name: str, row: int, where: Any, unit: str, words: Vocabulary
) -> tuple[float, str]:
    """(number in the column's unit, what kind of number it is) of one cell."""
    if isinstance(cell, NoNumber):
        raise DataError(_no_number(cell, name, where, row))
    if isinstance(cell, str):
        number = parse_number(cell)
        if isinstance(number, str):
            number, kind = understood(number, name, unit, parse_number, words)
            if kind in ("above", "under"):
                return np.nan if number is None else number, kind
            if number is None:
                raise DataError(_no_number(cell, name, where, row))
            return number, kind
        number = np.nan if number is None else number
    elif isinstance(cell, bool | np.bool_):  # TRUE of a spreadsheet is no 1
        raise DataError(_no_number(cell, name, where, row))
    elif pd.isna(cell):
        return np.nan, ""
    else:
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            raise DataError(_no_number(cell, name, where, row)) from None
    if np.isinf(number):
        raise DataError(f"column '{name}' is infinite in {where(row)}.")
    return number, ""


def _no_number(cell: Any, name: str, where: Any, row: int) -> str:
    text = f"column '{name}' holds {in_line(cell)} in {where(row)}, which is not a number"
    if name in TIMES:
        return f"{text}. {no_sample(is_first=row == 0)}"
    hint = " A decimal comma needs another separator than the comma." if "," in str(cell) else ""
    return (
        f"{text}; a value that was not measured is an empty cell, 'NaN', or a text that --missing "
        f"names.{hint}"
    )


def check_values(numbers: Mapping[str, np.ndarray], where: Where, words: Vocabulary = OURS) -> None:
    """Refuse what is negative and cannot be.

    Raises:
        DataError: With column, row and value.
    """
    for name, values in numbers.items():
        said = words.may_be_negative(name)
        if not (name in _MAY_BE_NEGATIVE if said is None else said) and np.any(values < 0):
            row = int(np.argmax(values < 0))
            if name == "temperature":
                raise DataError(
                    f"column '{name}' is {values[row]:g} degC in {where(row)}, colder than any "
                    "culture; leave the cell empty if the value is not to be trusted."
                )
            raise DataError(
                f"column '{name}' is negative in {where(row)} ({values[row]:g} "
                f"{words.unit(name)}); leave the cell empty if the value is not to be trusted."
            )


def read_times(
    numbers: Mapping[str, np.ndarray], assumed: dict[str, str], where: Where
) -> np.ndarray:
    """Time of every row since inoculation [h]; from the day where there is no time.

    Raises:
        DataError: If a time is missing or none of a culture, or a day beside it is no whole number.
    """
    if "time_h" in numbers:
        times = numbers["time_h"]
    else:
        assumed["time_h"] = "24 h per day"
        times = np.minimum(numbers["day"], LONGEST_H) * HOURS_PER_DAY  # beyond it is refused
    for name in (n for n in ("time_h", "day") if n in numbers):
        values = numbers[name]
        if np.any(np.isnan(values)):
            raise DataError(f"{name} is empty in {where(int(np.argmax(np.isnan(values))))}.")
    if np.any(times > LONGEST_H):
        row = int(np.argmax(times > LONGEST_H))
        raise DataError(
            f"time_h is {times[row]:g} in {where(row)}, which is no time of a culture: no more "
            f"than {LONGEST_H:g} h (ten years) are taken."
        )
    if {"time_h", "day"} <= set(numbers) and np.any(numbers["day"] % 1):
        row = int(np.argmax(numbers["day"] % 1 != 0))
        raise DataError(
            f"day is {numbers['day'][row]:g} in {where(row)}; beside a column time_h [h], which "
            "tells the time, it is a whole number."
        )
    return times
