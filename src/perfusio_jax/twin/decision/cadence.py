"""The cadence of a run: when samples are due, and what culture day that is. Pure.

Cycle k = 0, 1, 2, ... is due `k` intervals after inoculation. Its culture day is a whole number
where the interval makes it one, and a fraction of days else; it is always worked out from k, so
that day 1/3 is one and the same number in the journal, in the records and after a restart.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax._core.instants import LONGEST_H, as_day

_ROUNDING = 1e-6
"""Share of an interval that is rounding of a day, not another time."""

SHORTEST_H = 0.25
"""No interval is shorter [h]: a decision takes time, and a sample a hand."""


@dataclass(frozen=True)
class Cadence:
    """Evenly spaced cycles from inoculation on.

    Raises:
        ConfigError: If the interval is none a culture is sampled at.
    """

    interval_h: float = HOURS_PER_DAY
    """Time between two samples [h]."""

    def __post_init__(self) -> None:
        if not SHORTEST_H <= self.interval_h <= LONGEST_H:
            raise ConfigError(
                f"sampling_interval_hours is {self.interval_h:g}; the twin takes {SHORTEST_H:g} h "
                f"to {LONGEST_H:g} h between two samples."
            )

    @property
    def is_daily(self) -> bool:
        """Whether cycles are days."""
        return self.interval_h == HOURS_PER_DAY

    @property
    def slack_h(self) -> float:
        """How far [h] the time of a sample may lie from when it is due."""
        return 0.5 * self.interval_h

    def hours(self, number: int) -> float:
        """When a cycle is due, since inoculation [h]."""
        return number * self.interval_h

    def day(self, number: int) -> int | float:
        """Culture day [d] of a cycle."""
        return as_day(self.hours(number) / HOURS_PER_DAY)

    def number(self, day: float) -> int:
        """The cycle nearest to a culture day [d]."""
        return round(HOURS_PER_DAY * day / self.interval_h)

    def due(self, day: float) -> float:
        """When the cycle of a culture day is due [h]."""
        return self.hours(self.number(day))

    def numbers(self, days: Iterable[float]) -> set[int]:
        """Cycles among some culture days; days between two cycles are none."""
        found = ((self.number(day), day) for day in days)
        slack = _ROUNDING * self.interval_h / HOURS_PER_DAY
        return {n for n, day in found if abs(self.day(n) - day) <= slack}

    def is_cycle(self, day: float) -> bool:
        """Whether a culture day is one of a cycle."""
        return bool(self.numbers([day]))

    def count(self, days: float) -> int:
        """Cycles that are due within a number of days, the first of them at their beginning."""
        return max(math.ceil(HOURS_PER_DAY * days / self.interval_h - _ROUNDING), 0)

    def words(self, n: int = 2) -> str:
        """One word or a few for what is counted: "days", or "cycles of 12 h"; of one "day"."""
        one, of = ("day", "") if self.is_daily else ("cycle", f" of {self.interval_h:g} h")
        return f"{one}{'' if n == 1 else 's'}{of}"


DAILY = Cadence()
"""A cycle a day."""

KEY = "sampling_interval_hours"
"""Name of the interval where a session is kept; left out where it is a day."""


def kept(cadence: Cadence) -> dict[str, float]:
    """What a session keeps of its cadence."""
    return {} if cadence.is_daily else {KEY: cadence.interval_h}


def cadence_of(sessions: Iterable[Mapping[str, Any]]) -> Cadence:
    """The cadence of a run, from what its sessions kept, oldest first."""
    last = list(sessions)[-1:]
    return Cadence(float(last[0].get(KEY, HOURS_PER_DAY))) if last else DAILY
