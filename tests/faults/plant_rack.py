"""The simulated plant with a note of every set-point that reached it."""

from collections.abc import Mapping
from typing import Any, Self

from perfusio_jax.simulator import VirtualRack


class NotingRack(VirtualRack):
    """A `VirtualRack` that remembers what it was told, over restarts too."""

    written: list[tuple[int, dict[str, float]]]

    def set_controls(self, vessel: int, setpoints: Mapping[str, float]) -> None:
        super().set_controls(vessel, setpoints)
        self.__dict__.setdefault("written", []).append((vessel, dict(setpoints)))

    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), "written": self.__dict__.get("written", [])}

    def restore(self, saved: Mapping[str, Any]) -> Self:
        super().restore({k: v for k, v in saved.items() if k != "written"})
        self.written = [(vessel, dict(given)) for vessel, given in saved.get("written", [])]
        return self
