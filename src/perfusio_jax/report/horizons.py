"""How far ahead forecasts are judged: days, or hours where samples are hours apart."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax.hybrid import tolerance_of
from perfusio_jax.states import Trajectory, usual_step_h

DAYS: Final = 7
"""Days ahead by default."""

_INTERVALS: Final = (1, 2, 4, 8)
"""Sampling intervals ahead where samples are hours apart."""
_SHORT_H: Final = 11.5
"""Samples closer than this are judged by hours: two a day, with some jitter, are not [h]."""
_MOST_STEPS: Final = 96


class Horizons(NamedTuple):
    """Steps of one length, and those of them that are told."""

    step_h: float
    """Length of a step [h]."""
    steps: tuple[int, ...]
    """Which steps, from 1 on, in rising order."""

    @property
    def hours(self) -> tuple[float, ...]:
        """How far ahead they lie [h]."""
        return tuple(self.step_h * n for n in self.steps)

    @property
    def days(self) -> tuple[float, ...]:
        """How far ahead they lie [d]; whole numbers where they are."""
        return tuple(_whole(h / HOURS_PER_DAY) for h in self.hours)

    @property
    def in_days(self) -> bool:
        """Whether they are told in days."""
        return self.step_h == HOURS_PER_DAY

    @property
    def unit(self) -> str:
        """In what they are told."""
        return "d" if self.in_days else "h"

    @property
    def texts(self) -> tuple[str, ...]:
        """Each, without its unit."""
        return tuple(f"{v:g}" for v in (self.days if self.in_days else self.hours))

    @property
    def tolerance_h(self) -> float:
        """How far from it a reading may lie and count [h]."""
        return tolerance_of(self.step_h)

    def text(self) -> str:
        """From where to where, for people."""
        return f"{self.texts[0]} to {self.texts[-1]} {self.unit} ahead"


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def horizons_of(
    runs: Sequence[Trajectory],
    *,
    days: int | None = None,
    hours: Sequence[float] | None = None,
) -> Horizons:
    """How far ahead the forecasts of a campaign are judged.

    Args:
        runs: The campaign.
        days: Every day up to this one.
        hours: These hours; steps are the longest that all of them are whole numbers of.

    Returns:
        By default a week, day by day; where samples are hours apart 1, 2, 4 and 8 intervals. Of
        those only what the longest run has a reading for: the first at least.

    Raises:
        ConfigError: If both are given, or hours are not above zero and whole numbers of steps.
    """
    if days is not None and hours is not None:
        raise ConfigError("--horizon and --hours were both given; they say the same thing, one.")
    if hours is not None:
        return _of_hours(hours)
    if days is not None:
        return Horizons(HOURS_PER_DAY, tuple(range(1, days + 1)))
    apart = usual_step_h(runs)
    if apart >= _SHORT_H:
        return _within(runs, Horizons(HOURS_PER_DAY, tuple(range(1, DAYS + 1))))
    return _within(runs, Horizons(_rounded(apart), _INTERVALS))


def _within(runs: Sequence[Trajectory], asked: Horizons) -> Horizons:
    """Steps no run is long enough for, left out."""
    spans = [np.asarray(run.times_h, float) for run in runs if run.n_days > 1]
    longest = max(float(hours[-1] - hours[0]) for hours in spans) + asked.tolerance_h
    steps = tuple(n for n in asked.steps if asked.step_h * n <= longest)
    return asked._replace(steps=steps or asked.steps[:1])


def _rounded(hours: float) -> float:
    """An interval as people say it, where that hardly differs."""
    two = float(f"{hours:.2g}")
    return two if abs(two / hours - 1.0) < 0.01 else float(f"{hours:.3g}")


def _of_hours(hours: Sequence[float]) -> Horizons:
    asked = ", ".join(f"{h:g}" for h in hours)
    minutes = sorted({round(60.0 * h) for h in hours if math.isfinite(h)})
    if not minutes or len(minutes) != len(hours) or minutes[0] < 1:
        raise ConfigError(f"--hours {asked}: needed are hours above 0, each once, as in 6,12,24.")
    step = math.gcd(*minutes)
    day = round(60.0 * HOURS_PER_DAY)
    step = day if step % day == 0 else step  # days are days, however many are asked for
    if minutes[-1] // step > _MOST_STEPS:
        raise ConfigError(
            f"--hours {asked}: they are whole numbers of {step / 60.0:g} h only, which makes "
            f"{minutes[-1] // step} steps; allowed are {_MOST_STEPS}. Round them to the sampling "
            "interval."
        )
    return Horizons(step / 60.0, tuple(m // step for m in minutes))
