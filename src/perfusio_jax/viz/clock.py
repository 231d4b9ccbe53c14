"""Time axes: days where a culture takes days, hours where it takes hours."""

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DAYS_FROM_H: Final = 72.0
"""A span of this and more is told in days [h]."""
_MOST_TICKS: Final = 8


class Clock(NamedTuple):
    """In what a figure tells time, and from when to when it goes."""

    unit: str
    """"d" or "h"."""
    first: float
    """Start [unit]."""
    last: float
    """End [unit]."""

    def of(self, hours: object) -> np.ndarray:
        """Times in the unit, from hours."""
        return np.asarray(hours, float) / self.scale

    @property
    def scale(self) -> float:
        """Hours in one unit [h]."""
        return HOURS_PER_DAY if self.unit == "d" else 1.0

    def apply(self, axes: "Axes", *, show_label: bool = True) -> None:
        """Ticks at round numbers, and the label if it is wanted."""
        span = max(self.last - self.first, 1e-9)
        steps = (1, 2, 4, 7, 14, 28) if self.unit == "d" else (1, 2, 3, 6, 12, 24, 48)
        step = next((s for s in steps if span / s <= _MOST_TICKS), 10.0 ** math.ceil(
            math.log10(span / _MOST_TICKS)))  # fmt: skip
        begin = math.ceil(self.first / step - 1e-9) * step
        ticks = np.arange(begin, self.last + 1e-9 * step, step)
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        pad = 0.03 * span
        axes.set_xlim(self.first - pad, self.last + pad)
        if show_label:
            axes.set_xlabel(f"Culture time [{self.unit}]")


def clock_of(*hours: object) -> Clock:
    """The time axis that holds all of these times [h]; NaN is left out."""
    flat = [np.ravel(np.asarray(h, float)) for h in hours]
    every = np.concatenate([*flat, np.zeros(0)])
    every = every[np.isfinite(every)]
    first, last = (float(every.min()), float(every.max())) if every.size else (0.0, 24.0)
    if last - first < 1e-9:  # one sample: room on both sides
        last = first + HOURS_PER_DAY
    unit = "d" if last - first >= _DAYS_FROM_H else "h"
    scale = HOURS_PER_DAY if unit == "d" else 1.0
    return Clock(unit, first / scale, last / scale)
