"""Whether a sample can be believed, and whether clocks agree. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from perfusio_jax._core import STATE_ORDER

STUCK_AFTER: Final = 4
"""Equal readings in a row that make a value stuck, if it has at least four digits."""

JUMP_SD: Final = 6.0
"""How many standard deviations from its forecast a value may lie."""

JUMP_FLOOR: Final = 0.1
"""Share of the forecast that always counts as one standard deviation: assay and model."""

FLOAT32: Final = 1e-6
"""Relative difference that is a device's way of keeping numbers."""

SAME_DAY: Final = 1e-9
"""Difference of two culture days [d] that is rounding: 1/3 twice is not always 2/3."""

CONFIRMS: Final = 0.3
"""A second sample within this share of a jump confirms it: the culture did change."""


@dataclass(frozen=True)
class Expectation:
    """What the last forecast says of one species today."""

    centre: float
    """Median."""
    spread: float
    """Standard deviation."""
    floor: float = 0.0
    """What is never a jump, in the species' unit, whatever the forecast says."""


def expectations(
    forecast: Mapping[str, Any] | None,
    species: Sequence[str],
    day: float,
    bounds: Mapping[str, tuple[float, float]],
) -> dict[str, Expectation]:
    """What a forecast made earlier says of a day, by species.

    Args:
        forecast: `days`, `q10`, `q50` and `q90` of a proposal; `None`: nothing is expected.
        species: Its columns.
        day: Culture day [d].
        bounds: Physical limits by species; a hundredth of the range is never a jump.
    """
    if forecast is None or any(forecast.get(k) is None for k in ("days", "q10", "q50", "q90")):
        return {}
    apart = [abs(float(d) - day) for d in forecast["days"]]
    row = min(range(len(apart)), key=apart.__getitem__, default=0)
    if not apart or apart[row] > SAME_DAY:
        return {}
    found = {}
    for column, name in enumerate(species):
        low, centre, high = (float(forecast[k][row][column]) for k in ("q10", "q50", "q90"))
        if all(math.isfinite(v) for v in (low, centre, high)):
            lower, upper = bounds.get(name, (0.0, 0.0))
            floor = 0.01 * (upper - lower) if math.isfinite(upper - lower) else 0.0
            found[name] = Expectation(centre, max(high - low, 0.0) / 2.563, floor)
    return found


def implausible(
    values: Mapping[str, float | None],
    *,
    bounds: Mapping[str, tuple[float, float]],
    earlier: Sequence[Mapping[str, float | None]] = (),
    expected: Mapping[str, Expectation] | None = None,
    measured: Sequence[str] = STATE_ORDER,
) -> list[str]:
    """What of a sample cannot be believed.

    Args:
        values: Value by species; `None` where missing.
        bounds: Physical limits by species.
        earlier: Values of the samples before, oldest first, as they were read.
        expected: What was forecast for today.
        measured: What a sample is of.

    Returns:
        One sentence each; those about one species begin with "NAME=".
    """
    seen = {n: v for n, v in values.items() if v is not None}
    wrong = []
    if not any(n in seen for n in measured):
        wrong.append("no measurement at all")
    for name, value in seen.items():
        low, high = bounds.get(name, (-math.inf, math.inf))
        slack = FLOAT32 * abs(value)  # a limit that a 32-bit sensor reports is not beyond it
        if not math.isfinite(value) or not low - slack <= value <= high + slack:
            wrong.append(f"{name}={value:g} outside {low:g} to {high:g}")
        elif _is_stuck(name, value, earlier):
            wrong.append(f"{name}={value:g} stuck: the same {STUCK_AFTER} times in a row")
    if (
        len(seen) >= 3
        and earlier
        and seen == {n: v for n, v in earlier[-1].items() if v is not None}
    ):
        wrong.append("the sample repeats the one before, value for value")
    jumped = [n for n in seen if _has_jumped(n, seen[n], earlier, expected or {})]
    for name in jumped:
        twin = _swapped_with(name, jumped, seen, expected or {})
        hint = f"; looks swapped with {twin}" if twin else ""
        centre = (expected or {})[name].centre
        wrong.append(f"{name}={seen[name]:g} jumped: {centre:.3g} was expected{hint}")
    return wrong


def is_about(note: str, name: str) -> bool:
    """Whether a sentence of `implausible` says that one value is not to be used."""
    return note.startswith(f"{name}=")


def clock_jump(
    wall_s: tuple[float, float], steady_s: tuple[float, float], *, tolerance_s: float
) -> float | None:
    """How far [s] the wall clock jumped between two looks, or `None` if it did not.

    Args:
        wall_s: Wall clock at both looks [s since an epoch, UTC].
        steady_s: Monotonic clock at both.
        tolerance_s: Difference that is drift.
    """
    jump = (wall_s[1] - wall_s[0]) - (steady_s[1] - steady_s[0])
    return jump if abs(jump) > tolerance_s else None


def _is_stuck(name: str, value: float, earlier: Sequence[Mapping[str, float | None]]) -> bool:
    if len(earlier) < STUCK_AFTER - 1 or f"{value:.3g}" == f"{value:.12g}":
        return False
    return all(row.get(name) == value for row in earlier[-(STUCK_AFTER - 1) :])


def _deviation(value: float, what: Expectation) -> float:
    scale = what.spread + JUMP_FLOOR * abs(what.centre) + what.floor
    return abs(value - what.centre) / max(scale, 1e-9)


def _has_jumped(
    name: str,
    value: float,
    earlier: Sequence[Mapping[str, float | None]],
    expected: Mapping[str, Expectation],
) -> bool:
    what = expected.get(name)
    if what is None or not math.isfinite(value) or _deviation(value, what) <= JUMP_SD:
        return False
    before = earlier[-1].get(name) if earlier else None
    is_confirmed = before is not None and abs(value - before) <= CONFIRMS * max(
        abs(value), abs(before)
    )
    return not is_confirmed


def _swapped_with(
    name: str,
    jumped: Sequence[str],
    seen: Mapping[str, float],
    expected: Mapping[str, Expectation],
) -> str | None:
    for other in jumped:
        if other == name:
            continue
        fits = _deviation(seen[other], expected[name]) <= JUMP_SD
        if fits and _deviation(seen[name], expected[other]) <= JUMP_SD:
            return other
    return None
