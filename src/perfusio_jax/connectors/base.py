"""What every connector offers the twin, and what a sample looks like on its way in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perfusio_jax._core import HOURS_PER_DAY, ConnectorError


class SampleNotReady(ConnectorError):
    """The sample asked for is not there *yet*: ask again later."""


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sample with everything that came with it.

    All values are in canonical units; `None` means that nothing usable was measured.
    """

    day: int
    """Culture day [d] the sample counts for."""
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

    @property
    def worst_quality(self) -> str:
        """The worst of what was measured: "good", "uncertain" or "bad"; missing is not bad."""
        found = set(self.quality.values())
        return next((q for q in ("bad", "uncertain") if q in found), "good")


class BioreactorConnectorBase(ABC):
    """Base of the connectors: three methods each must have, the rest with sane defaults.

    Implementations must not block the event loop and must put a time-out around everything
    that leaves the process. The permission to write is checked before a connector is asked
    to; a connector to hardware should check again.
    """

    @abstractmethod
    async def is_alive(self) -> bool:
        """Whether the source of samples can be reached now. Never raises."""

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
        """Hand new set-points to the reactor.

        Args:
            setpoints: Value per control name, in canonical units.

        Raises:
            ConnectorError: If they could not be delivered.
            DataError: If a name is not a control or a value is not finite.
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

    async def days_available(self) -> list[int]:
        """Culture days [d] whose samples are there, ascending.

        Raises:
            ConnectorError: If this kind of connector cannot tell.
        """
        raise ConnectorError(f"{type(self).__name__} cannot list the days it holds.")

    async def read_setpoints(self) -> dict[str, float]:
        """Set-points in force, by control name: the read-back.

        Raises:
            ConnectorError: If this kind of connector cannot read them.
        """
        raise ConnectorError(f"{type(self).__name__} cannot read set-points back.")

    async def close(self) -> None:  # noqa: B027
        """Let go of what is open; closing twice does nothing."""

    async def __aenter__(self) -> "BioreactorConnectorBase":
        """Use as an asynchronous context manager; closes at the end."""
        return self

    async def __aexit__(self, *exc: Any) -> None:
        """Close."""
        await self.close()
