"""What no culture does: growth in the wrong unit of time, days that are hours, sudden feeds.

Pure functions of the samples of one run; sample files and campaign tables ask the same.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

Column = Sequence[float | None]

_FASTEST_H: Final = 5.0
"""No animal cell doubles faster [h]."""
_FOLD: Final = 4.0
"""Growth below this is within what two counts may differ by."""
_SUBSTRATES: Final = ("Glc", "Gln", "Pyr")
_FEED_WITHIN_H: Final = 6.0
_FEED_RISE: Final = 1.25
"""A substrate that rises by this factor was fed; an assay errs by less."""
_SAME_CELLS: Final = 0.05


def too_fast(times_h: Sequence[float], cells: Column) -> str:
    """Growth that says that hours are days; empty if there is none.

    Args:
        times_h: Time of each sample [h], ascending.
        cells: Viable cell density [1e6 cells/mL], None or NaN where it was not counted.
    """
    known = [(t, v) for t, v in zip(times_h, cells, strict=True) if v is not None and v > 0.0]
    pairs = [*((known[0], later) for later in known[1:]), *itertools.pairwise(known)]
    worst, text = _FOLD, ""
    for (start, before), (end, after) in pairs:
        fold, hours = after / before, end - start
        if fold >= worst and hours > 0.0 and hours / math.log2(fold) < _FASTEST_H:
            worst = fold
            text = (
                f"VCD grows from {before:g} to {after:g} in {hours:.3g} h, which no culture "
                "does: are these days, not hours?"
            )
    return text


def hours_called_days(days: Sequence[float]) -> str:
    """Days that count in steps of 24; empty if they do not.

    Args:
        days: Column `day` of one run, ascending.
    """
    steps = [b - a for a, b in itertools.pairwise(days)]
    if len(steps) >= 2 and all(step > 0.0 and step % 24.0 == 0.0 for step in steps):
        return f"day goes from {days[0]:g} to {days[-1]:g} in steps of 24: are these hours?"
    return ""


def feeds(times_h: Sequence[float], species: Mapping[str, Column]) -> list[tuple[int, str]]:
    """Substrates that rise at the same cells within hours: what was fed, with the later sample.

    Args:
        times_h: Time of each sample [h], ascending.
        species: Readings by canonical name, one per sample.

    Returns:
        Number of the later sample and a sentence, per feed.
    """
    cells = species.get("VCD")
    found = []
    for k in range(1, len(times_h)):
        hours = times_h[k] - times_h[k - 1]
        if not 0.0 < hours <= _FEED_WITHIN_H or cells is None:
            continue
        before, after = cells[k - 1], cells[k]
        if before is None or after is None:
            continue
        if not abs(after - before) <= _SAME_CELLS * before * (1.0 + 1e-9):
            continue
        for name in _SUBSTRATES:
            column = species.get(name)
            low, high = (None, None) if column is None else (column[k - 1], column[k])
            if low is not None and high is not None and high > max(_FEED_RISE * low, 0.1):
                text = f"{name} rises from {low:g} to {high:g} in {hours:.3g} h at the same cells"
                found.append((k, f"{text}: a feed?"))
    return found
