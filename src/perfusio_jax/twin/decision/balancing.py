"""Set-points brought back to the balance of volumes, exactly and on the device's grid. Pure.

A balance is one inequality: the weighted sum of the controls that set streams is at most a number.
"""

from collections.abc import Mapping
from fractions import Fraction

from perfusio_jax.process import VolumeBalance

from .grid import Grid, exact, nearest, rounded

Window = tuple[Fraction, Fraction]


def row_of(
    balance: VolumeBalance, volume_L: float | None
) -> tuple[dict[str, Fraction], Fraction] | None:
    """The balance in exact numbers; `None` where the volume moves and nobody knows it.

    Args:
        balance: Of the culture.
        volume_L: Volume in the vessel [L].
    """
    if balance.moves and (volume_L is None or not volume_L > 0.0):
        return None
    weights, spare = balance.row(volume_L)
    return {name: exact(weight) for name, weight in weights.items()}, exact(spare)


def excess(
    values: Mapping[str, Fraction], weights: Mapping[str, Fraction], spare: Fraction
) -> Fraction:
    """By how much set-points break a balance, in units of its largest weight; 0 if they keep it."""
    total = sum((weights[name] * values[name] for name in weights), Fraction(0))
    return max(total - spare, Fraction(0))


def lowered(
    values: Mapping[str, Fraction],
    windows: Mapping[str, Window],
    grids: Mapping[str, Grid],
    row: tuple[Mapping[str, Fraction], Fraction],
) -> dict[str, float] | None:
    """Less of what leaves, until the balance is kept.

    Args:
        values: Every control of the balance.
        windows: Where those that may be moved may lie; the others stay.
        grids: What the device holds, by control.
        row: Of `row_of`.

    Returns:
        New values of the controls that were lowered, the largest first and as little as will do;
        `None` where that is not enough.
    """
    weights, spare = row
    now, changed = dict(values), {}
    movable = [name for name in weights if name in windows and weights[name] > 0]
    for name in sorted(movable, key=lambda n: weights[n] * now[n], reverse=True):
        over = excess(now, weights, spare)
        if over == 0:
            break
        low, high = windows[name]
        most = min(high, now[name] - over / weights[name])
        if most < low:
            found = nearest(low, (low, high), grids.get(name))
        else:
            found = nearest(most, (low, most), grids.get(name))
            if found is None:
                found = nearest(low, (low, high), grids.get(name))
        if found is not None and exact(found) < now[name]:
            now[name], changed[name] = exact(found), found
    return changed if excess(now, weights, spare) == 0 else None


def on_device(
    wanted: Mapping[str, float],
    now: Mapping[str, float],
    grids: Mapping[str, Grid],
    bounds: Mapping[str, tuple[float, float]],
    row: tuple[Mapping[str, Fraction], Fraction] | None,
    *,
    fixed: frozenset[str] = frozenset(),
) -> dict[str, float]:
    """Set-points as a device can hold them; rounding lets no more move than a balance allows.

    Args:
        wanted: What is wanted, by control.
        now: What is in force of the others.
        grids: Grid by control; a control without one keeps its value.
        bounds: Hard limits by control.
        row: Of `row_of`; `None`: nothing is balanced.
        fixed: Controls somebody holds; they stay as they are.

    Returns:
        The same controls. What breaks the balance already is left for the gate to judge.
    """
    found = rounded(wanted, grids, bounds, fixed=fixed)
    if row is None:
        return found
    values = {name: exact(found.get(name, now.get(name, 0.0))) for name in row[0]}
    windows = {
        name: (exact(bounds[name][0]), values[name])
        for name in found
        if name in values and name in bounds and name not in fixed
    }
    return {**found, **(lowered(values, windows, grids, row) or {})}


def too_much(balance: VolumeBalance, values: Mapping[str, Fraction]) -> str:
    """The sentence about set-points that break a balance.

    Args:
        balance: What leaves, what enters.
        values: Set-points, exact.
    """
    sides = {
        sign: ", ".join(
            f"{f.control} {float(values[f.control]):g} {f.unit}"
            for f in balance.flows
            if f.sign == sign
        )
        for sign in (1, -1)
    }
    cover = sides[-1] or "nothing"
    there = " and what is in the vessel" if balance.moves else ""
    return f"{sides[1]} would exceed {cover}{there}"
