"""The grid of a device's set-points: what it can hold, and what a read-back from it means. Pure.

Arithmetic is exact: each float is read as the decimal a person would write.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from numbers import Real
from typing import Any, Final, NamedTuple, TypeGuard

FLOAT32: Final = Fraction(1, 10**6)
"""Relative difference that is a device's way of keeping numbers, not another number: 32 bits hold
seven digits, and an offset between units (kelvin) costs one of them."""


class Grid(NamedTuple):
    """Values a device can hold: `origin` and whole steps away from it, in the canonical unit."""

    step: float
    """Distance of two neighbours, above 0."""
    origin: float = 0.0
    """One of the values."""


def exact(value: float) -> Fraction:
    """The decimal number a person reads when the float is printed, exactly."""
    return _exact(float(value))


@lru_cache(maxsize=1024)
def _exact(value: float) -> Fraction:
    # limits and steps of a device are asked for at every look at it
    return Fraction(repr(value))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def nearest(value: Fraction, window: tuple[Fraction, Fraction], grid: Grid | None) -> float | None:
    """Nearest value inside a window, on the grid if there is one; the upper one of two.

    Args:
        value: What is wanted.
        window: Lowest and highest value allowed.
        grid: Of the device; `None`: it holds any number.

    Returns:
        The float, inside the window also after rounding; `None` if there is none.
    """
    low, high = window
    value = min(max(value, low), high)
    if grid is not None:
        pitch, origin = exact(grid.step), exact(grid.origin)
        count = math.floor((value - origin) / pitch + Fraction(1, 2))
        count = min(
            max(count, math.ceil((low - origin) / pitch)), math.floor((high - origin) / pitch)
        )
        value = origin + count * pitch
        if not low <= value <= high:
            return None
    result = float(value)
    if exact(result) > high:
        result = math.nextafter(result, -math.inf)
    elif exact(result) < low:
        result = math.nextafter(result, math.inf)
    return result if low <= exact(result) <= high else None


def as_held(actual: float, limits: tuple[Fraction, Fraction], grid: Grid | None) -> Fraction:
    """The number a read-back stands for: 0.30000001192 of a 32-bit device is 0.3.

    Args:
        actual: Read-back.
        limits: Hard limits; a device may hold one that is not on its grid.
        grid: Of the device.

    Returns:
        The value of the grid, or the limit, that it is up to `FLOAT32`; else itself.
    """
    value = exact(actual)
    known = [*limits]
    if grid is not None:
        count = math.floor((value - exact(grid.origin)) / exact(grid.step) + Fraction(1, 2))
        known.insert(0, exact(grid.origin) + count * exact(grid.step))
    return next((k for k in known if abs(value - k) <= FLOAT32 * max(abs(value), abs(k))), value)


def rounded(
    setpoints: Mapping[str, Any],
    grids: Mapping[str, Grid],
    bounds: Mapping[str, tuple[float, float]],
    balance: tuple[str, str] | None = None,
    *,
    fixed: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Set-points as a device can hold them, so that what is asked for is what can be written.

    A value inside its bounds stays inside, and rounding lets no more flow out than in. A value
    outside, or one that is no number, is left for the gate to judge; the former on the grid.

    Args:
        setpoints: What is wanted, by control.
        grids: Grid by control; a control without one keeps its value.
        bounds: Hard limits by control.
        balance: (outflow, inflow); `None`: nothing is balanced.
        fixed: Controls somebody holds; they stay as they are.

    Returns:
        The same controls.
    """
    found = dict(setpoints)
    for name, value in setpoints.items():
        if is_number(value) and name not in fixed:
            found[name] = _on(value, grids.get(name), bounds.get(name))
    if balance is not None:
        out, into = balance
        is_known = is_number(setpoints.get(out)) and is_number(setpoints.get(into))
        is_known = is_known and out not in fixed
        if is_known and setpoints[out] <= setpoints[into] and found[out] > found[into]:
            grid, high = grids.get(out), exact(found[into])
            step = Fraction(0) if grid is None else exact(grid.step)
            low = exact(bounds[out][0]) if out in bounds else high - step
            lowered = nearest(high, (low, high), grid)
            found[out] = found[out] if lowered is None else lowered
    return found


def _on(value: float, grid: Grid | None, bounds: tuple[float, float] | None) -> float:
    if grid is None:
        return float(value)
    wanted = exact(value)
    step = exact(grid.step)
    low, high = (wanted - step, wanted + step)
    if bounds is not None and bounds[0] <= value <= bounds[1]:
        low, high = max(low, exact(bounds[0])), min(high, exact(bounds[1]))
    found = nearest(wanted, (low, high), grid)
    return float(value) if found is None else found


def no_finer(grid: Grid, least: float) -> Grid:
    """Those values of a device that lie at least some distance apart.

    Args:
        grid: Of the device.
        least: Distance that is fine enough, as a default step.

    Returns:
        The smallest multiple of its step that is not below `least`.

    Example:
        >>> [no_finer(Grid(step), 5.0).step for step in (1.0, 2.0, 10.0)]
        [5.0, 6.0, 10.0]
    """
    step = exact(grid.step)
    return Grid(float(step * max(math.ceil(exact(least) / step), 1)), grid.origin)
