"""Readings of one sample: rows minutes apart made one, unless they contradict each other.

A laboratory counts cells at once and gets its metabolites twenty minutes later. Rows with one
`sample_id` are one sample; else rows within a tolerance are. Two different readings of one
quantity stay two samples: a repeat, or a feed between them, and nobody here knows which.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

DEFAULT_JOIN_H = 1.0
"""Rows this close [h] to the first of a sample belong to it."""

_LOOK_BACK = 5
"""Samples a row is compared with; more than that within the tolerance are a log, not readings."""

Values = Mapping[str, float | None]


class Joined(NamedTuple):
    """Which rows are one sample."""

    groups: list[list[int]]
    """Rows of each sample in order of time, samples in order of their first row."""
    apart: list[tuple[int, int, str]]
    """Earlier row, later row and name of what differs, where rows close by stay two samples."""


def join(
    times_h: Sequence[float],
    ids: Sequence[str],
    values: Sequence[Values],
    tolerance_h: float = DEFAULT_JOIN_H,
) -> Joined:
    """Group the rows of one run.

    Args:
        times_h: Time of each row [h].
        ids: Sample id of each row; empty where there is none.
        values: What was read in each row; only these can contradict each other.
        tolerance_h: How long after its first row [h] a sample takes further ones; 0 for none.

    Returns:
        Groups, and the rows that were close enough and differed.

    Example:
        >>> join([72.0, 72.3], ["", ""], [{"Glc": 5.0}, {"VCD": 8.4}]).groups
        [[0, 1]]
    """
    groups: list[list[int]] = []
    named: dict[str, int] = {}
    apart = []
    for row in sorted(range(len(times_h)), key=lambda k: times_h[k]):
        mine = ids[row]
        if mine and mine in named:
            groups[named[mine]].append(row)
            continue
        found, contradicted = None, None
        for number in range(len(groups) - 1, max(len(groups) - 1 - _LOOK_BACK, -1), -1):
            group = groups[number]
            if times_h[row] - times_h[group[0]] > tolerance_h:
                break
            if tolerance_h <= 0.0 or (mine and any(ids[k] for k in group)):
                continue
            differs = _difference(values[row], [values[k] for k in group])
            if differs is None:
                found = number
                break
            if contradicted is None:
                contradicted = (group[differs[0]], row, differs[1])
        if found is None:
            if contradicted is not None:
                apart.append(contradicted)
            groups.append([row])
            found = len(groups) - 1
        else:
            groups[found].append(row)
        if mine:
            named[mine] = found
    return Joined(groups, apart)


def stay_apart(
    times_h: np.ndarray, values: Mapping[str, np.ndarray], tolerance_h: float = DEFAULT_JOIN_H
) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """Whether no two rows of a run are one sample, found without a look at each: most are none.

    Args:
        times_h: Time of each row `(T,)` [h], ascending; none has a sample id.
        values: What was read `(T,)` by name, NaN if missing.
        tolerance_h: How long after its first row [h] a sample takes further ones; 0 for none.

    Returns:
        Earlier row, later row and name of what differs, where rows close by stay two samples; None
        where rows may be one sample, and `join` has to tell.
    """
    none = np.zeros(0, int)
    if tolerance_h <= 0.0 or not np.any(np.diff(times_h) <= tolerance_h):
        return none, none, []
    for back in range(1, _LOOK_BACK + 1):
        is_near = times_h[back:] - times_h[:-back] <= tolerance_h
        differs = np.zeros(is_near.shape, bool)
        for column in values.values():
            differs |= _differ(column[:-back], column[back:])
        if np.any(is_near & ~differs):
            return None
    later = np.flatnonzero(np.diff(times_h) <= tolerance_h) + 1
    first = np.full(later.size, -1)
    names = list(values)
    for n, column in enumerate(values.values()):
        is_new = (first < 0) & _differ(column[later - 1], column[later])
        first[is_new] = n
    return later - 1, later, [names[n] for n in first.tolist()]


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether two values are there that are not the same."""
    return (one != other) & ~np.isnan(one) & ~np.isnan(other)


def _difference(values: Values, earlier: Sequence[Values]) -> tuple[int, str] | None:
    """Which earlier row has another value of something, and of what."""
    for name, value in values.items():
        for k, other in enumerate(earlier):
            if value is not None and other.get(name) not in (None, value):
                return k, name
    return None
