"""The virtual rack behind the connector interface, at any multiple of real time."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import equinox as eqx
import numpy as np
from jaxtyping import Float

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    REGISTRY,
    STATE_ORDER,
    ConfigError,
    DataError,
)
from perfusio_jax.connectors.base import (
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
    check_setpoints,
)
from perfusio_jax.connectors.culture_clock import CultureClock
from perfusio_jax.simulator import Fault, NoiseModel, VirtualRack


class Ambr250Emulator(BioreactorConnectorBase):
    """Virtual ambr 250 vessel with the interface of a real one.

    Unpaced, reading a day moves the vessel on to it, however far ahead, as fast as the machine
    can. Paced, culture time passes by itself at `acceleration` times real time, a day that has
    not come is not ready, and what was not read in time can be read later. Day 0 is
    inoculation. Set-points act from the present culture time on.

    Args:
        clone: `"CloneX"` or `"CloneY"`.
        volume_L: Working volume [L].
        controls: Set-points at the start by name; missing ones take the centre recipe.
        acceleration: Culture time over real time; 1440 makes a day a minute.
        seed: Seed of the samples' noise.
        is_paced: Whether time passes by itself.
        noise: Noise of the samples; its seed is replaced by `seed`.
        faults: Faults of the samples, see `simulator.faults`.
        reactor_id: Name of the vessel.
        now: Source of time stamps.
        monotonic: Source of real time [s].

    Raises:
        ConfigError: For settings that make no sense.

    Examples:
        >>> import asyncio
        >>> emulator = Ambr250Emulator(clone="CloneX", seed=0)
        >>> sample = asyncio.run(emulator.read_sample(day=5))
        >>> "VCD" in sample
        True
    """

    def __init__(
        self,
        clone: str = "CloneX",
        volume_L: float = 0.25,
        controls: Mapping[str, float] | None = None,
        acceleration: float = 1.0,
        seed: int = 42,
        *,
        is_paced: bool = False,
        noise: NoiseModel | None = None,
        faults: Sequence[Fault] = (),
        reactor_id: str = "R01",
        now: Callable[[], dt.datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        rack = VirtualRack(
            [clone],
            controls=controls,
            volume_L=volume_L,
            noise=noise,
            seed=seed,
            faults=faults,
            ids=[reactor_id],
        )
        clock = CultureClock(acceleration, is_running=is_paced, monotonic=monotonic)
        self._take(rack, 0, clock, asyncio.Lock(), is_paced=is_paced, now=now)

    def _take(
        self,
        rack: VirtualRack,
        vessel: int,
        clock: CultureClock,
        lock: asyncio.Lock,
        *,
        is_paced: bool,
        now: Callable[[], dt.datetime] | None,
    ) -> None:
        self.rack, self.vessel, self.clock = rack, vessel, clock
        self.is_paced = is_paced
        self.reactor_id = rack.ids[vessel]
        self.clone = rack.clones[vessel]
        self.acceleration = clock.acceleration
        self._lock = lock
        self._now = now or (lambda: dt.datetime.now(dt.UTC))

    @classmethod
    def five_reactor_ensemble(
        cls, clones: Sequence[str] | None = None, seed_start: int = 0, **settings: Any
    ) -> list[Self]:
        """Five independent virtual reactors.

        Args:
            clones: Five clones; three of clone X and two of clone Y by default.
            seed_start: Seed of the first; each following one has the next.
            **settings: Any other argument of the class.

        Raises:
            ConfigError: If there are not five clones.

        Reference:
            Gadiyar et al. (2026), figure 5.
        """
        names = ["CloneX"] * 3 + ["CloneY"] * 2 if clones is None else list(clones)
        if len(names) != 5:
            raise ConfigError(f"the ensemble has five reactors; {len(names)} clones were given.")
        return [
            cls(clone=name, seed=seed_start + i, reactor_id=f"R{i + 1:02d}", **settings)
            for i, name in enumerate(names)
        ]

    @classmethod
    def of_rack(
        cls,
        rack: VirtualRack,
        acceleration: float = 1.0,
        *,
        now: Callable[[], dt.datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> list[Self]:
        """The vessels of one rack, one to 24, paced by one clock and simulated together.

        Args:
            rack: The rack.
            acceleration: Culture time over real time.
            now: Source of time stamps.
            monotonic: Source of real time [s].
        """
        clock = CultureClock(acceleration, start_h=rack.time_h, monotonic=monotonic)
        lock = asyncio.Lock()
        vessels = []
        for i in range(rack.n):
            vessel = cls.__new__(cls)
            vessel._take(rack, i, clock, lock, is_paced=True, now=now)
            vessels.append(vessel)
        return vessels

    @property
    def day(self) -> int:
        """Last culture day whose sample is there [d]."""
        return self.rack.day

    async def is_alive(self) -> bool:
        """Whether the virtual reactor runs; it does until an integration fails."""
        return not bool(self.rack.is_failed[self.vessel])

    async def read_sample(self, day: int) -> dict[str, float | None]:
        """Sample of a culture day; unpaced, moves the vessel on to that day.

        Args:
            day: Culture day [d], 0 at inoculation.

        Raises:
            SampleNotReady: If time is paced and the day has not come.
            DataError: If the day is negative or not a whole number.
        """
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: int) -> SampleRecord:
        """The sample of a culture day with the streams since the one before it.

        Args:
            day: Culture day [d].

        Raises:
            SampleNotReady: If time is paced and the day has not come.
            DataError: If the day is negative or not a whole number.
        """
        if day < 0 or day != int(day):
            raise DataError(f"day {day} is not a culture day; days are whole numbers from 0.")
        day = int(day)
        await self._catch_up(HOURS_PER_DAY * day)
        if day > self.rack.day:
            raise SampleNotReady(
                f"{self.reactor_id}: day {day} has not come; it is day "
                f"{self.rack.time_h / HOURS_PER_DAY:.2f}."
            )
        sample = self.rack.sample(self.vessel, day)
        values = {n: v for n, v in sample.values.items() if n in REGISTRY}
        quality = {n: "missing" if v is None else "good" for n, v in values.items()}
        return SampleRecord(
            day=day,
            time_h=sample.time_h,
            values=values,
            quality=quality,
            reactor_id=self.reactor_id,
            age_h=self.rack.time_h - sample.time_h,
            stream_totals=sample.stream_totals,
            controls=sample.controls,
            volume_L=self.rack.volume_L,
            read_at=self._now(),
        )

    async def days_available(self) -> list[int]:
        """Culture days [d] whose samples are there."""
        await self._catch_up(None)
        return list(range(self.rack.day + 1))

    async def read_tags(self) -> dict[str, Reading]:
        """Online tags now."""
        await self._catch_up(None)
        now = self._now()
        async with self._lock:
            tags = self.rack.tags()[self.vessel]
        return {
            name: Reading(v, "missing" if v is None else "good", now, now)
            for name, v in tags.items()
            if name in AUXILIARY_TAGS
        }

    async def read_clock(self) -> dt.datetime | None:
        """What time it is for the vessel: ours."""
        return self._now()

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        """Change set-points from now on.

        Args:
            setpoints: New values by name; controls not named keep theirs.

        Raises:
            DataError: If a name is not a set-point or a value is not finite.
            ConfigError: If bleed would exceed perfusion. Nothing is changed then.
        """
        wanted = check_setpoints(setpoints)
        await self._catch_up(None)
        async with self._lock:
            self.rack.set_controls(self.vessel, wanted)

    async def read_setpoints(self) -> dict[str, float]:
        """Set-points in force."""
        return self.rack.controls(self.vessel)

    async def read_back(self) -> dict[str, Reading]:
        """Set-points in force, of good quality, now."""
        now = self._now()
        return {n: Reading(v, "good", now, now) for n, v in (await self.read_setpoints()).items()}

    def simulate_run(self, n_days: int = 28) -> Float[np.ndarray, "samples 9"]:
        """A clean run from inoculation under the set-points now in force.

        Args:
            n_days: Number of days.

        Returns:
            Measured face without noise, row 0 at inoculation.

        Raises:
            ConfigError: If there are no days.
        """
        if n_days < 1:
            raise ConfigError(f"n_days is {n_days}; it must be at least 1.")
        rack = VirtualRack(
            [self.clone],
            controls=self.rack.controls(self.vessel),
            volume_L=self.rack.volume_L,
        )
        rack.reactor = eqx.tree_at(lambda r: r.medium, rack.reactor, self.rack.reactor.medium)
        rows = []
        for day in range(n_days + 1):
            rack.advance(HOURS_PER_DAY * day)
            truth = dict(zip(FORECAST_SPECIES, rack.truth()[0], strict=True))
            rows.append([truth[name] for name in STATE_ORDER])
        return np.array(rows)

    async def _catch_up(self, wanted_h: float | None) -> None:
        """Bring the plant up to the clock, or unpaced to the time wanted [h]."""
        target = self.clock.time_h if self.is_paced else wanted_h
        if target is None:
            return
        async with self._lock:  # one at a time; a set-point must not come in the middle
            if target > self.rack.time_h:
                await asyncio.to_thread(self.rack.advance, target)
