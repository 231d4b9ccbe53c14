"""What the twin needs from whatever stands before a reactor."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class BioreactorConnector(Protocol):
    """What the twin needs from a reactor, whatever stands behind it."""

    async def is_alive(self) -> bool:
        """Whether the source of samples can be reached now."""
        ...

    async def read_sample(self, day: int) -> dict[str, float | None]:
        """The sample of one culture day.

        Args:
            day: Culture day [d], 0 at inoculation.

        Returns:
            Value per canonical species name; `None` where a measurement is missing.
        """
        ...

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        """Hand new set-points to the reactor.

        Args:
            setpoints: Value per control name, in the canonical unit of each control.
        """
        ...
