"""Whether more would leave a vessel than enters it and is in it."""

from typing import NamedTuple

from perfusio_jax._core import ConfigError

from .description import Process
from .parts import REST, is_per_cell, litres_per_hour


class Flow(NamedTuple):
    """A control that sets a stream."""

    control: str
    """Its name."""
    sign: int
    """1 if what it sets must be covered by the others, -1 if it is what covers."""
    unit: str
    """Its unit."""


class VolumeBalance(NamedTuple):
    """What set-points of a culture have to keep, so that its vessel neither runs dry nor over.

    Where a stream keeps the volume, it cannot flow backwards: what the other streams take is no
    more than what they bring, or the reverse if the stream that keeps the volume enters. Where the
    volume moves, what leaves until the next decision is no more than what enters and what is there.
    """

    flows: tuple[Flow, ...]
    """Controls that set streams; of both signs, or the volume moves."""
    volume_L: float | None
    """Volume that is kept [L]; None where it moves."""
    hours: float
    """Time to the next decision [h]."""

    @property
    def moves(self) -> bool:
        """Whether the volume moves."""
        return self.volume_L is None

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls it is about."""
        return tuple(flow.control for flow in self.flows)

    def row(self, volume_L: float | None = None) -> tuple[dict[str, float], float]:
        """The balance as one inequality: the weighted sum of the controls is at most a number.

        Args:
            volume_L: Volume in the vessel now [L]; needed where it moves.

        Returns:
            Weight of each control and the number, in units of the largest weight: controls of one
            unit have the weights 1 and -1.

        Raises:
            ConfigError: If the volume moves and is not given.
        """
        volume = volume_L if self.volume_L is None else self.volume_L
        if volume is None:
            raise ConfigError(
                "the volume moves: what may leave depends on volume_L, the volume now."
            )
        weights = {
            flow.control: flow.sign * litres_per_hour(1.0, volume, flow.unit, flow.control)
            for flow in self.flows
        }
        largest = max(abs(weight) for weight in weights.values())
        spare = volume / self.hours if self.moves else 0.0
        return {name: weight / largest for name, weight in weights.items()}, spare / largest


def volume_balance(process: Process, hours: float) -> VolumeBalance | None:
    """The balance a culture's set-points have to keep; None where none of them can break it.

    None, too, where a flow is per cell: set-points alone do not tell what it brings.

    Args:
        process: The culture.
        hours: Time between two decisions [h].

    Example:
        >>> from perfusio_jax.process import CHO_PERFUSION, MONOD_CHEMOSTAT
        >>> volume_balance(CHO_PERFUSION, 24.0).row()
        ({'perfusion_rate': -1.0, 'bleed_rate': 1.0}, 0.0)
        >>> volume_balance(MONOD_CHEMOSTAT, 24.0) is None
        True
    """
    closing = process.closing
    covered = "out" if closing is None else closing.direction
    flows = []
    for stream in process.streams:
        if stream.flow == REST or process.control(stream.flow).role != "flow":
            continue
        if is_per_cell(process.control(stream.flow).unit):
            return None  # what it brings or takes depends on the cells, not on set-points alone
        sign = 1 if stream.direction == covered else -1
        flows.append(Flow(stream.flow, sign, process.control(stream.flow).unit))
    signs = {flow.sign for flow in flows}
    if 1 not in signs or (closing is not None and -1 not in signs):
        return None
    return VolumeBalance(tuple(flows), None if closing is None else process.volume_L, float(hours))
