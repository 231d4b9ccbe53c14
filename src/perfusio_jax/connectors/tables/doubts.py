"""What no culture does: growth in the wrong unit of time, days that are hours, sudden feeds.

Pure functions of the samples of one run; sample files and campaign tables ask the same.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

Column = Sequence[float | None] | np.ndarray

_FASTEST_H: Final = 5.0
"""No animal cell doubles faster [h]."""
_FOLD: Final = 4.0
"""Growth below this is within what two counts may differ by."""
_SUBSTRATES: Final = ("Glc", "Gln", "Pyr")
_FEED_WITHIN_H: Final = 6.0
_FEED_RISE: Final = 1.25
"""A substrate that rises by this factor was fed; an assay errs by less."""
_SAME_CELLS: Final = 0.05
_CALLED_DAY_H: Final = 18.0
"""What is called a day may be this far [h] from where others put it: one samples at noon, and once
at night."""
_NOMINAL_H: Final = 12.0
"""The same of hours, which people round to days."""


def too_fast(times_h: Sequence[float] | np.ndarray, cells: Column) -> str:
    """Growth that says that hours are days; empty if there is none.

    Args:
        times_h: Time of each sample [h], ascending.
        cells: Viable cell density [1e6 cells/mL], None or NaN where it was not counted.
    """
    hours_of, counts = np.asarray(times_h, float), np.asarray(cells, float)  # None is NaN
    is_known = counts > 0.0
    times, known = hours_of[is_known], counts[is_known]
    worst, text = _FOLD, ""
    if not known.size or known.max() < _FOLD * known.min():
        return text  # nearly all runs of a campaign are soon told
    n = known.size - 1
    first = np.concatenate([np.zeros(n, int), np.arange(n)])
    last = np.concatenate([np.arange(1, n + 1)] * 2)
    grown = np.flatnonzero(known[last] >= _FOLD * known[first])
    for k in grown.tolist():
        start, before = float(times[first[k]]), float(known[first[k]])
        end, after = float(times[last[k]]), float(known[last[k]])
        fold, hours = after / before, end - start
        if fold >= worst and hours > 0.0 and hours / math.log2(fold) < _FASTEST_H:
            worst = fold
            text = (
                f"VCD grows from {before:g} to {after:g} in {hours:.3g} h, which no culture "
                "does: are these days, not hours?"
            )
    return text


def dead_and_alive(viability: Column, cells: Column) -> str:
    """Viability of 0 where living cells were counted, which is no reading; empty if there is none.

    Args:
        viability: Of each sample [%], None or NaN where it was not read.
        cells: Viable cell density [1e6 cells/mL], likewise.
    """
    zero, counts = np.asarray(viability, float) == 0.0, np.asarray(cells, float)
    n = int((zero & (counts > 0.0)).sum())
    return f"Via is 0 beside living cells in {n} row(s): was it not measured?" if n else ""


def hours_called_days(days: Sequence[float]) -> str:
    """Days that count in steps of 24; empty if they do not.

    Args:
        days: Column `day` of one run, ascending.
    """
    steps = [b - a for a, b in itertools.pairwise(days)]
    if len(steps) >= 2 and all(step > 0.0 and step % 24.0 == 0.0 for step in steps):
        return f"day goes from {days[0]:g} to {days[-1]:g} in steps of 24: are these hours?"
    return ""


def clocks_apart(
    times_h: np.ndarray, stamps_h: np.ndarray, where: Callable[[int], str], name: str
) -> str:
    """Time stamps that do not go with the times of their samples; empty if they do.

    A day is what people call it and may begin at any hour; a sample a day away from the others by
    one of its two times has one of them wrong.

    Args:
        times_h: Time of each sample `(T,)` [h].
        stamps_h: The same by its time stamp, from any zero [h]; NaN if there is none.
        where: What names a sample.
        name: Column of the times.
    """
    apart = stamps_h - times_h
    known = np.flatnonzero(np.isfinite(apart))
    if known.size < 2:
        return ""
    off = apart[known] - np.median(apart[known])
    limit = _CALLED_DAY_H if name == "day" else _NOMINAL_H
    odd = np.flatnonzero(np.abs(off) > limit)
    if not odd.size:
        return ""
    first = int(odd[0])
    sign = "later" if off[first] > 0.0 else "earlier"
    return (
        f"{name} and sampled_at do not agree in {odd.size} of {known.size} rows (first "
        f"{where(int(known[first]))}: by its stamp {abs(off[first]):.3g} h {sign} than by {name}, "
        f"against most others); {name} counts"
    )


def is_fed(
    hours: np.ndarray, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Whether a substrate rose at the same cells within hours, for many pairs of samples.

    Args:
        hours: Time between the two `(n,)` [h].
        before: Readings `(n,)` by canonical name of the earlier ones, NaN if missing.
        after: The same of the later ones.
    """
    if "VCD" not in before:
        return np.zeros(len(hours), bool)
    same = np.abs(after["VCD"] - before["VCD"]) <= _SAME_CELLS * before["VCD"] * (1.0 + 1e-9)
    rises = [_rises(before[n], after[n]) for n in _SUBSTRATES if n in before]
    risen = np.any(rises, axis=0) if rises else np.zeros(len(hours), bool)
    return (hours > 0.0) & (hours <= _FEED_WITHIN_H) & same & risen


def _rises(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return high > np.maximum(_FEED_RISE * low, 0.1)


def feeds(
    times_h: Sequence[float] | np.ndarray, species: Mapping[str, Column]
) -> list[tuple[int, str]]:
    """Substrates that rise at the same cells within hours: what was fed, with the later sample.

    Args:
        times_h: Time of each sample [h], ascending.
        species: Readings by canonical name, one per sample; None or NaN if missing.

    Returns:
        Number of the later sample and a sentence, per feed.
    """
    times = np.asarray(times_h, float)
    if not ((hours := times[1:] - times[:-1]) <= _FEED_WITHIN_H).any():
        return []  # as in nearly all runs that are sampled once a day
    columns = {n: np.asarray(c, float) for n, c in species.items() if n in ("VCD", *_SUBSTRATES)}
    before, after = ({n: c[part] for n, c in columns.items()} for part in (np.s_[:-1], np.s_[1:]))
    found = []
    for k in np.flatnonzero(is_fed(hours, before, after)).tolist():
        for name in (n for n in _SUBSTRATES if n in columns):
            low, high = float(before[name][k]), float(after[name][k])
            if _rises(before[name][k], after[name][k]):
                text = f"{name} rises from {low:g} to {high:g} in {hours[k]:.3g} h at the same"
                found.append((k + 1, f"{text} cells: a feed?"))
    return found
