"""What a server of a rack serves."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Sample(Protocol):
    """The daily sample of one vessel; `simulator.RackSample` is one."""

    @property
    def day(self) -> int:
        """Culture day [d]."""
        ...

    @property
    def time_h(self) -> float:
        """Time since inoculation [h]."""
        ...

    @property
    def values(self) -> Mapping[str, float | None]:
        """Species."""
        ...

    @property
    def stream_totals(self) -> Mapping[str, float | None]:
        """Volumes since the previous sample [L]."""
        ...


class Rack(Protocol):
    """What is served; `simulator.VirtualRack` is one."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the vessels."""
        ...

    @property
    def volume_L(self) -> float:
        """Working volume [L]."""
        ...

    @property
    def time_h(self) -> float:
        """Time since inoculation [h]."""
        ...

    @property
    def day(self) -> int:
        """Last day whose samples are there [d]."""
        ...

    def advance(self, to_h: float) -> Sequence[Sequence[Sample]]:
        """Move on to a time [h]; samples of the days that came due, per vessel."""
        ...

    def sample(self, vessel: int, day: int) -> Sample:
        """Sample of a day that is there."""
        ...

    def tags(self) -> Sequence[Mapping[str, float | None]]:
        """Online tags now, per vessel."""
        ...

    def controls(self, vessel: int) -> dict[str, float]:
        """Set-points in force."""
        ...

    def set_controls(self, vessel: int, setpoints: Mapping[str, float]) -> None:
        """Change set-points."""
        ...

    def snapshot(self) -> Mapping[str, Any]:
        """Everything that changes, as plain data."""
        ...

    def restore(self, saved: Mapping[str, Any]) -> Any:
        """Go on from a snapshot."""
        ...
