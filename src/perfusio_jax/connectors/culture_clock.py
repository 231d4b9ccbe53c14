"""Culture time at a multiple of real time."""

import math
import time
from collections.abc import Callable

from perfusio_jax._core import ConfigError

SECONDS_PER_DAY = 86400.0


class CultureClock:
    """Culture time that runs at a multiple of real time, and can be stopped.

    Args:
        acceleration: Culture time over real time.
        start_h: Culture time now [h].
        is_running: Whether it runs from the start.
        monotonic: Source of real time [s].

    Raises:
        ConfigError: If the acceleration is not above zero.
    """

    def __init__(
        self,
        acceleration: float = 1.0,
        *,
        start_h: float = 0.0,
        is_running: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (math.isfinite(acceleration) and acceleration > 0):
            raise ConfigError(f"acceleration is {acceleration}; it must be above zero.")
        self.acceleration = float(acceleration)
        self._monotonic = monotonic
        self._base_h = float(start_h)
        self._since = monotonic() if is_running else None

    @property
    def is_running(self) -> bool:
        """Whether time passes."""
        return self._since is not None

    @property
    def time_h(self) -> float:
        """Culture time [h]."""
        if self._since is None:
            return self._base_h
        return self._base_h + (self._monotonic() - self._since) * self.acceleration / 3600.0

    @property
    def seconds_per_day(self) -> float:
        """Real seconds one culture day lasts [s]."""
        return SECONDS_PER_DAY / self.acceleration

    def run(self) -> None:
        """Let time pass."""
        if self._since is None:
            self._since = self._monotonic()

    def pause(self) -> None:
        """Stop time."""
        self._base_h, self._since = self.time_h, None
