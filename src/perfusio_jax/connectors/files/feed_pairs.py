"""A sample before a feed and one after it: one sample with what was fed as a bolus.

A laboratory that feeds a culture by hand often samples it twice, the second time only for the
substrates. To a model the second row is no sample of what the culture did; what was fed is.
"""

import math
from typing import Any, Final

import numpy as np

from perfusio_jax._core import DataError

from ..tables.cells import parse_number
from ..tables.doubts import feeds
from ..tables.settling import some
from .campaign_work import Work, hours_of

_CELLS: Final = "VCD"
_SUBSTRATES: Final = ("Glc", "Gln", "Pyr")
_AMOUNTS: Final = {"g/L": "g", "mmol/L": "mmol", "mg/L": "mg", "mM": "mmol", "mg/mL": "g"}
"""Unit of an amount by that of its concentration, the volume being in litres."""
_LITRE: Final = 1.0
"""Of a vessel nobody tells the volume of [L], as a culture that is read off a table has it."""


def feed_pairs_to_boluses(work: Work, *, is_open: bool) -> None:
    """Take the rows after feeds out of a table, and put what was fed into those before.

    A pair is two rows within hours with the same cells and more of a substrate. The amount is its
    rise times the volume: a column `<substrate>_bolus`, zero where nothing was fed.

    Args:
        work: The table, with hours and runs; changed in place.
        is_open: Whether the culture is yet to be read off the table, so that it may have boluses.

    Raises:
        DataError: If there are no cells to tell a feed by, a column of boluses is there already, or
            the unit of a substrate gives no amount.
    """
    table = work.table
    hours = hours_of(work)
    names = [n for n in _SUBSTRATES if n in table.header]
    if hours is None or _CELLS not in table.header or not names:
        raise DataError(
            "feeds = 'bolus' needs a column of times, VCD, which tells that nothing grew between "
            f"two rows, and one of {', '.join(_SUBSTRATES)}."
        )
    units = {name: work.table.units.get(name, "") or work.words.unit(name) for name in names}
    for name in names:
        if f"{name}_bolus" in table.header:
            raise DataError(f"has a column {name}_bolus already; feeds = 'bolus' would make it.")
        if units[name].strip() not in _AMOUNTS:
            raise DataError(
                f"{name} is in '{units[name]}', which gives no amount; feeds = 'bolus' takes "
                f"{', '.join(_AMOUNTS)}."
            )
    columns = {n: table.header.index(n) for n in (_CELLS, *names)}
    values = {n: [_number(row[k], table.decimal) for row in table.rows] for n, k in columns.items()}
    volume = _volumes(work)
    fed: dict[str, dict[int, float]] = {name: {} for name in names}
    gone: list[int] = []
    for members in work.runs():
        order = sorted(members.tolist(), key=lambda k: hours[k])
        own = {name: [values[name][k] for k in order] for name in values}
        for k in sorted({k for k, _ in feeds(hours[order], own)}):
            before, after = order[k - 1], order[k]
            if before in gone:
                continue
            gone.append(after)
            for name in names:
                low, high = values[name][before], values[name][after]
                if low is not None and high is not None and high > low:
                    fed[name][before] = (high - low) * volume[before]
    used = [name for name in names if fed[name]]
    unheard = [f"{name}_bolus" for name in used if f"{name}_bolus" not in work.words.numbers]
    if unheard and not is_open:
        of = f"process '{work.words.process}'" if work.words.process else "CHO perfusion"
        raise DataError(
            f"feeds = 'bolus' makes {', '.join(unheard)}, which {of} does not have: read the "
            "culture off the table (--process table), or say feeds = 'rows'."
        )
    for name in used:
        table.header.append(f"{name}_bolus")
        table.units[f"{name}_bolus"] = _AMOUNTS[units[name].strip()]
        for k, row in enumerate(table.rows):
            row.append(float(np.format_float_positional(fed[name].get(k, 0.0), 9)))
    places = [f"line {table.lines[k]}" for k in sorted(gone)]
    what = ", ".join(f"{name}_bolus" for name in used)
    work.told.extend(some(f"rows after a feed, made {what} of the row before", places))
    kept = [k for k in range(len(table.rows)) if k not in set(gone)]
    table.rows[:] = [table.rows[k] for k in kept]
    table.lines[:] = [table.lines[k] for k in kept]


def _number(cell: Any, decimal: str) -> float | None:
    found = parse_number(cell, decimal)
    return found if isinstance(found, float) and math.isfinite(found) else None


def _volumes(work: Work) -> list[float]:
    """Volume of the vessel at every row [L]."""
    table = work.table
    column = work.at("volume_L")
    if column is None:
        work.told.append(f"volume_L: no such column; boluses are of {_LITRE:g} L")
        return [_LITRE] * len(table.rows)
    convert = work.words.conversion(table.units.get("volume_L", ""), "volume_L")
    found = [_number(row[column], table.decimal) for row in table.rows]
    return [_LITRE if v is None else float(convert([v])[0]) for v in found]
