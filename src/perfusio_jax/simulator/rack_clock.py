"""The clock of a rack: vessels that move through time together and are sampled together."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError

RACK_SIZE: Final[int] = 24
"""Most vessels of a rack."""


@dataclass(frozen=True, slots=True)
class RackSample:
    """The sample of one vessel."""

    day: int
    """Culture day [d]."""
    time_h: float
    """Time since inoculation [h]."""
    values: Mapping[str, float | None]
    """Readings by name; None where one was lost."""
    stream_totals: Mapping[str, float | None]
    """Volume of each stream since the previous sample [L]; None at the first."""
    controls: Mapping[str, float]
    """Set-points in force when the sample was taken."""


class RackClock(ABC):
    """Time of a rack, and its samples as they come due.

    Args:
        n: Number of vessels.
        ids: Names of the vessels; R01, R02 and so on by default.
        interval_h: Hours between samples [h].

    Raises:
        ConfigError: For no vessels or more than 24, names that do not fit, or an interval that is
            none.
    """

    def __init__(
        self, n: int, ids: Sequence[str] | None, interval_h: float = HOURS_PER_DAY
    ) -> None:
        if not 1 <= n <= RACK_SIZE:
            raise ConfigError(f"a rack has 1 to {RACK_SIZE} reactors; {n} were asked for.")
        if not (math.isfinite(interval_h) and interval_h > 0.0):
            raise ConfigError(f"interval_h is {interval_h}; a time above 0 h is needed.")
        self.ids = tuple(f"R{i + 1:02d}" for i in range(n)) if ids is None else tuple(ids)
        if len(self.ids) != n or len(set(self.ids)) != n:
            raise ConfigError(f"{n} reactors need {n} different names; given {self.ids}.")
        self.interval_h = float(interval_h)
        self.is_failed = np.zeros(n, bool)
        """Vessels whose plant failed."""
        self._time_h = 0.0
        self._samples: list[list[RackSample]] = []

    @property
    def n(self) -> int:
        """Number of vessels."""
        return len(self.ids)

    @property
    def time_h(self) -> float:
        """Time since inoculation [h]."""
        return self._time_h

    @property
    def day(self) -> int:
        """Number of the last samples that are there, from 0; with one a day, their day."""
        return len(self._samples) - 1

    def advance(self, to_h: float) -> list[list[RackSample]]:
        """Move on to a time and take the samples that come due on the way.

        Args:
            to_h: Time since inoculation [h]; one that has passed already changes nothing.

        Returns:
            For each time that came due, the samples of all vessels.
        """
        due = []
        while self._time_h < to_h:
            next_h = self.interval_h * (self.day + 1)
            self._move(min(to_h, next_h))
            if self._time_h >= next_h:
                due.append(self._take_sample())
        return due

    def sample(self, vessel: int, day: int) -> RackSample:
        """Sample of a number that has been reached.

        Raises:
            DataError: If it has not.
        """
        if not 0 <= day <= self.day:
            raise DataError(f"there is no sample {day} yet; there are 0 to {self.day}.")
        return self._samples[day][vessel]

    @abstractmethod
    def _move(self, to_h: float) -> None:
        """Move on to a time, within an interval."""

    @abstractmethod
    def _take_sample(self) -> list[RackSample]:
        """Take and keep the samples of now."""
