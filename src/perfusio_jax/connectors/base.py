"""What every connector offers the twin, and what a sample looks like on its way in.

One protocol for files, databases, control systems and virtual vessels:

| call | says |
| --- | --- |
| `is_alive` | whether the source answers now; never raises |
| `sample_every` | is told how far samples lie apart, where they are not daily |
| `read_sample` | values of one culture day, by species |
| `read_record` | the same with quality, source time and age per tag |
| `read_history`, `days_available` | what is there |
| `read_tags` | online tags now, between the daily samples |
| `read_clock` | what time the source says it is |
| `read_start` | when the device started, to tell a restart from an operator |
| `write_setpoints` | hands set-points over; checked before anything leaves |
| `read_setpoints`, `read_back` | set-points in force, bare or with quality and time |
| `close`, `async with` | lets go |
"""

import datetime as dt
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Final, Literal, Self, get_args

from perfusio_jax._core import (
    CONTROL_NAMES,
    HOURS_PER_DAY,
    ConfigError,
    ConnectorError,
    DataError,
)
from perfusio_jax._core import SampleNotReady as SampleNotReady
from perfusio_jax._core.instants import hours_between

Quality = Literal["good", "uncertain", "bad", "missing"]
"""Whether a value can be used; "bad": there is one and it cannot; "missing": there is none."""

QUALITIES: Final[tuple[Quality, ...]] = get_args(Quality)


@dataclass(frozen=True, slots=True)
class Reading:
    """One value with everything that says how far to believe it.

    A value that is bad or missing is `None`: it cannot be used by accident.
    """

    value: float | None
    """In the canonical unit of its name."""
    quality: Quality = "good"
    """See `Quality`."""
    source_time: dt.datetime | None = None
    """When the source says it measured the value; with a zone. `None` if it does not say."""
    read_at: dt.datetime | None = None
    """When it was read here; with a zone."""
    status: str = ""
    """What the source called its state, in its own words, e.g. "BadSensorFailure"."""

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise DataError(f"quality is {self.quality!r}; allowed are {', '.join(QUALITIES)}.")
        usable = self.quality in ("good", "uncertain")
        if usable != (self.value is not None and math.isfinite(self.value)):
            raise DataError(
                f"a reading of quality {self.quality!r} has the value {self.value!r}; good and "
                "uncertain ones are finite numbers, bad and missing ones None."
            )
        for what in (self.source_time, self.read_at):
            if what is not None and what.tzinfo is None:
                raise DataError(f"the time {what.isoformat()} of a reading has no time zone.")

    @property
    def age_h(self) -> float | None:
        """Time [h] between measuring and reading, negative for clocks ahead of ours."""
        return _age_h(self.source_time, self.read_at)


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sample with everything that came with it.

    All values are in canonical units; `None` means that nothing usable was measured.
    """

    day: float
    """Culture day [d] the sample counts for; a fraction between two whole ones."""
    time_h: float
    """Time since inoculation [h]."""
    values: Mapping[str, float | None]
    """Species by canonical name."""
    quality: Mapping[str, str] = field(default_factory=dict)
    """One of "good", "uncertain", "bad" (there is a value and it cannot be used), "missing"."""
    reactor_id: str | None = None
    """Vessel the sample was taken from, if the source says."""
    age_h: float | None = None
    """Time [h] between sampling and reading; `None` if nothing tells."""
    stream_totals: Mapping[str, float | None] = field(default_factory=dict)
    """Totalised volume of each stream since the last sample [L]."""
    controls: Mapping[str, float | None] = field(default_factory=dict)
    """Set-points that were in force, as the source reports them."""
    tags: Mapping[str, float | None] = field(default_factory=dict)
    """Auxiliary online tags."""
    volume_L: float | None = None
    """Working volume [L], if the source says."""
    notes: tuple[str, ...] = ()
    """What was odd about it, one sentence each."""
    source_times: Mapping[str, dt.datetime] = field(default_factory=dict)
    """When each value was measured, by name of species, tag, total or control; with zones."""
    read_at: dt.datetime | None = None
    """When the record was read here; with a zone."""
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Limits of assays that stand in the place of readings, by species: what the value is below
    and what it is above, one of them NaN. `values` then holds half the first, or None."""

    @property
    def worst_quality(self) -> str:
        """The worst of the species: "good", "uncertain" or "bad"; missing is not bad.

        A limit of an assay counts as uncertain, on either side: it says less than a reading, and
        nothing that is wrong.
        """
        return self.worst_quality_for(None)

    def worst_quality_for(self, needed: Collection[str] | None) -> str:
        """The same for somebody who needs readings of some species only.

        That another one is below the limit of its assay is then as good as a reading: the sugar is
        gone, as it should be. That one is above its limit never is.

        Args:
            needed: Names of what has to be read; all if None.
        """
        beside = {*self.tags, *self.controls, *self.stream_totals} - set(self.values)
        found = {
            self._quality_of(name, quality, needed)
            for name, quality in self.quality.items()
            if name not in beside
        }
        return next((q for q in ("bad", "uncertain") if q in found), "good")

    def _quality_of(self, name: str, quality: str, needed: Collection[str] | None) -> str:
        if name not in self.limits:
            return quality
        is_enough = needed is not None and name not in needed and math.isnan(self.limits[name][1])
        return "good" if is_enough else "uncertain"

    @property
    def ages_h(self) -> dict[str, float | None]:
        """Age [h] of every value in the record, by name; `None` where nothing tells.

        Where a value has no time of its own, the age of the sample as a whole stands in.
        """
        names = {*self.values, *self.tags, *self.controls, *self.stream_totals}
        own = {n: _age_h(self.source_times.get(n), self.read_at) for n in names}
        return {n: self.age_h if age is None else age for n, age in sorted(own.items())}

    def reading(self, name: str) -> Reading:
        """One value of the record with its quality and time.

        Args:
            name: Species, tag, stream total or control.

        Raises:
            DataError: If the record has no such value.
        """
        for group in (self.values, self.tags, self.stream_totals, self.controls):
            if name in group:
                value = group[name]
                quality: Any = self.quality.get(name, "missing" if value is None else "good")
                return Reading(
                    value if quality in ("good", "uncertain") else None,
                    quality,
                    self.source_times.get(name),
                    self.read_at,
                )
        held = ", ".join([*self.values, *self.tags, *self.stream_totals, *self.controls])
        raise DataError(
            f"the sample of day {self.day:g} has no '{name}'; it has {held or 'nothing'}."
        )


class BioreactorConnectorBase(ABC):
    """Base of the connectors: three methods each must have, the rest with honest defaults.

    Implementations must not block the event loop and must put a time-out around everything
    that leaves the process. The permission to write is checked before a connector is asked
    to; a connector to hardware should check again. Calls may come concurrently. After `close`,
    `is_alive` is False or the next call opens anew; closing twice does nothing.
    """

    keeps_setpoints: ClassVar[bool] = False
    """Whether set-points outlive everything and only people change them, as in a database."""

    @abstractmethod
    async def is_alive(self) -> bool:
        """Whether the source of samples can be reached now. Never raises."""

    def sample_every(self, interval_h: float) -> None:
        """Be told how far samples lie apart: from now on days are counted in such steps.

        One that serves samples between the days overrides this, and takes and gives fractions
        of days wherever a day is spoken of. By default days are whole, and so is every interval
        that is a multiple of one.

        Args:
            interval_h: Time between two samples [h].

        Raises:
            ConfigError: If this connector does not serve samples that lie so far apart.
        """
        if interval_h % HOURS_PER_DAY:
            raise ConfigError(
                f"{type(self).__name__} gives whole days; sampling_interval_hours is "
                f"{interval_h:g}. Set it to 24 or a whole multiple of it, or take the samples from "
                "a file or a database, which serve any interval."
            )

    @abstractmethod
    async def read_sample(self, day: int) -> dict[str, float | None]:
        """The sample of one culture day.

        Args:
            day: Culture day [d].

        Returns:
            Value per canonical species name; `None` where a measurement is missing.

        Raises:
            SampleNotReady: If it is not there yet.
            ConnectorError: If the source cannot be reached.
            DataError: If what it says cannot be understood.
        """

    @abstractmethod
    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        """Hand new set-points to the reactor: all of them, or none where that can be had.

        A connector that can keep them takes `day` [d] and `time_h` [h] the set-points are for
        as keyword-only arguments with a default; the twin passes what the signature has.

        Args:
            setpoints: Value per control name, in canonical units.

        Raises:
            ConnectorError: If they could not be delivered; whether some were is unknown and
                to be settled by reading back.
            DataError: If a name is not a control or a value is not finite; nothing was sent.
            PermissionError: If this connector was told never to write.
        """

    async def read_record(self, day: int) -> SampleRecord:
        """The sample of one culture day with quality and whatever else the source knows.

        Args:
            day: Culture day [d].

        Returns:
            The record; by default what `read_sample` gives, of good quality.

        Raises:
            SampleNotReady: If it is not there yet.
        """
        values = await self.read_sample(day)
        return SampleRecord(
            day=day,
            time_h=day * HOURS_PER_DAY,
            values=values,
            quality={name: "missing" if v is None else "good" for name, v in values.items()},
        )

    async def days_available(self) -> Sequence[float]:
        """Culture days [d] whose samples are there, ascending; `int`s where they are whole.

        Raises:
            ConnectorError: If this kind of connector cannot tell.
        """
        raise ConnectorError(f"{type(self).__name__} cannot list the days it holds.")

    async def read_history(self) -> list[SampleRecord]:
        """Records of all days there are, ascending.

        Raises:
            ConnectorError: If this kind of connector cannot tell which there are.
        """
        return [await self.read_record(int(day)) for day in await self.days_available()]

    async def read_tags(self) -> dict[str, Reading]:
        """Online tags as they are now, by name; empty where there are none.

        Raises:
            ConnectorError: If the source cannot be reached.
        """
        return {}

    async def read_clock(self) -> dt.datetime | None:
        """What time it is for the source, with a zone; `None` where it has no clock.

        Raises:
            ConnectorError: If the source cannot be reached.
        """
        return None

    async def read_start(self) -> dt.datetime | None:
        """When the device started last, with a zone; `None` where it does not say.

        A device that restarts may come back with set-points of its own.

        Raises:
            ConnectorError: If the source cannot be reached.
        """
        return None

    async def read_grids(self) -> dict[str, tuple[float, float]]:
        """What set-points the device can hold, by control, as far as it says: step and origin.

        Returns:
            Distance of neighbouring values, and one of them, in canonical units.

        Raises:
            ConnectorError: If the source cannot be reached.
        """
        return {}

    async def read_setpoints(self) -> dict[str, float]:
        """Set-points in force, by control name: the read-back. What is unknown is left out.

        Raises:
            ConnectorError: If this kind of connector cannot read them.
        """
        raise ConnectorError(f"{type(self).__name__} cannot read set-points back.")

    async def read_back(self) -> dict[str, Reading]:
        """Set-points in force with quality and time, by control name.

        Returns:
            By default what `read_setpoints` gives, of good quality and without a time.

        Raises:
            ConnectorError: If this kind of connector cannot read them.
        """
        return {name: Reading(value) for name, value in (await self.read_setpoints()).items()}

    async def close(self) -> None:  # noqa: B027
        """Let go of what is open; closing twice does nothing."""

    async def __aenter__(self) -> Self:
        """Use as an asynchronous context manager; closes at the end."""
        return self

    async def __aexit__(self, *exc: Any) -> None:
        """Close."""
        await self.close()


def check_setpoints(
    setpoints: Mapping[str, Any], controls: Sequence[str] = CONTROL_NAMES
) -> dict[str, float]:
    """Set-points as plain numbers, or a refusal: for the first line of `write_setpoints`.

    Args:
        setpoints: Value per control.
        controls: Names that are allowed.

    Returns:
        The same as Python floats.

    Raises:
        DataError: If there are none, a name is not a control or a value is not finite.
    """
    if not setpoints:
        raise DataError("There is no set-point to write.")
    for name, value in setpoints.items():
        if name not in controls:
            raise DataError(f"'{name}' is not a control; allowed are {', '.join(controls)}.")
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise DataError(f"{name} is {value!r}; only finite numbers are written.")
    return {name: float(value) for name, value in setpoints.items()}


def _age_h(measured: dt.datetime | None, read: dt.datetime | None) -> float | None:
    if measured is None or read is None:
        return None
    return hours_between(read, measured)
