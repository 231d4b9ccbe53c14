"""Units a file does not state, held against its own numbers."""

import math
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core.units import conversion

from ..tables.cells import parse_number
from .instrument import Instrument, folded
from .layout import Layout

_MOST_CELLS: Final = 1e10
"""No culture has so many cells [1/mL]."""
_TELLING: Final = 0.02
"""Share of living cells from which a viability of no more than 1 is a share and no percentage."""


def check_units(
    rows: list[list[Any]],
    lines: list[int],
    layout: Layout,
    instrument: Instrument,
    decimal: str,
    word: str,
) -> None:
    """Refuse units the file does not state and its own numbers contradict.

    A density below the number of cells that were counted, or beyond any culture, is in another
    unit; so is a viability that is a share throughout, beside densities that say otherwise.

    Args:
        rows: Cells of the samples.
        lines: Their lines.
        layout: Which column is what.
        instrument: What wrote the file.
        decimal: Decimal mark of text.
        word: What a line is called in messages.

    Raises:
        DataError: If a unit is another; with line and label.
    """
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
        wrong = [
            (a, b, k) for a, b, k in pairs if a > 0 and (a * per_ml < b or a * per_ml > _MOST_CELLS)
        ]
        if wrong and len(wrong) * 2 > sum(a > 0 for a, *_ in pairs):
            value, counted, line = wrong[0]
            beside = "" if math.isnan(counted) else f" beside {counted:g} counted cells"
            raise DataError(
                f"{word} {line}: '{density}' is {value:g}{beside}, which "
                f"cannot be in {unit}, the unit {instrument.name} is known to write; is it another "
                "version? Export with units, or give the column its unit."
            )
    via = [n for n, (c, *_) in layout.kept.items() if c.name == "Via" and n in layout.assumed]
    if via and instrument.counts:
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
