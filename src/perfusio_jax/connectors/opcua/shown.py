"""What a vessel of a rack shows and takes over OPC UA: names, units and ranges, by its culture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, ConfigError
from perfusio_jax._core.units import CANONICAL_UNITS
from perfusio_jax.connectors.opcua.names import (
    CONTROL_RANGES,
    ONLINE,
    SAMPLED,
    SENSOR_RANGES,
    SPECIAL,
    rack_path,
)
from perfusio_jax.process import Process, VolumeBalance, volume_balance

_MOST_L: Final = 10.0
"""Range of a total, in volumes at the start."""


@dataclass(frozen=True)
class Shown:
    """Nodes of one vessel."""

    sampled: tuple[str, ...] = SAMPLED
    """What comes with a sample."""
    online: tuple[str, ...] = ONLINE
    """What is refreshed all the time; some of it may come with a sample, too."""
    controls: tuple[str, ...] = CONTROL_NAMES
    """What can be set."""
    units: Mapping[str, str] | None = None
    """Unit by name; None for the canonical ones."""
    sensor_ranges: Mapping[str, tuple[float, float]] | None = None
    """Lowest and highest reading by name; None for those of the reference culture."""
    control_ranges: Mapping[str, tuple[float, float]] | None = None
    """Lowest and highest set-point by name; None for those of the reference culture."""
    process: Process | None = None
    """The culture, where it is a described one."""
    interval_h: float = HOURS_PER_DAY
    """Time between two samples [h]."""
    balance: VolumeBalance | None = None
    """What set-points have to keep; None for what the reference culture has: no more bleed than
    perfusion."""

    @property
    def culture(self) -> str:
        """The culture as the device says it: JSON; empty for the reference culture."""
        return "" if self.process is None else self.process.model_dump_json()

    def unit(self, name: str) -> str:
        """Unit of a value."""
        return (CANONICAL_UNITS if self.units is None else self.units)[name]

    def sensor_range(self, name: str) -> tuple[float, float]:
        """Range of a reading."""
        ranges = SENSOR_RANGES if self.sensor_ranges is None else self.sensor_ranges
        return ranges.get(name, (0.0, 2.0**32))

    def control_range(self, name: str) -> tuple[float, float]:
        """Range of a set-point."""
        return (CONTROL_RANGES if self.control_ranges is None else self.control_ranges)[name]

    def refused(self, wanted: Mapping[str, float], now: Mapping[str, float], volume: float) -> bool:
        """Whether set-points together let more flow out than there is.

        Args:
            wanted: What is to be set.
            now: What is in force.
            volume: Volume in the vessel [L].
        """
        after = {**now, **wanted}
        if self.process is None:
            return after["bleed_rate"] > after["perfusion_rate"]
        if self.balance is None:
            return False
        weights, spare = self.balance.row(volume)
        return sum(weights[name] * after[name] for name in weights) > spare + 1e-12

    @property
    def balanced(self) -> tuple[str, ...]:
        """Controls that a balance is about."""
        if self.process is None:
            return ("perfusion_rate", "bleed_rate")
        return () if self.balance is None else self.balance.controls


REFERENCE: Final = Shown()
"""A vessel of the reference culture, CHO cells in perfusion."""


def shown_of(process: Process, interval_h: float = HOURS_PER_DAY) -> Shown:
    """Nodes of a vessel of a described culture.

    Boluses have none: they are given, not held.

    Args:
        process: The culture.
        interval_h: Time between two samples [h].

    Raises:
        ConfigError: If something of it has the name of a node that says something else.
    """
    totals = tuple(s.total for s in process.streams if s.total)
    volume = ("volume_L",)
    moves = not process.is_constant_volume
    controls = tuple(c for c in process.controls if c.role != "bolus")
    sampled = (*process.readings, *totals, *(volume if moves else ()))
    names = [*sampled, *(c.name for c in controls), *SPECIAL, *(() if moves else volume)]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(
            f"{process.name}: {', '.join(twice)} is the name of a node that says something else; "
            "give it another name."
        )
    most = (0.0, _MOST_L * process.volume_L)
    ranges = {q.name: (q.lo, q.hi) for q in process.quantities if q.is_measured}
    return Shown(
        sampled=sampled,
        online=(*process.online, *(() if moves else volume)),
        controls=tuple(c.name for c in controls),
        units={
            **{n: process.quantity(n).unit for n in process.readings},
            **{c.name: c.unit for c in controls},
            **dict.fromkeys((*totals, *volume), "L"),
        },
        sensor_ranges=ranges | dict.fromkeys((*totals, *volume), most),
        control_ranges={c.name: (c.lo, c.hi) for c in controls},
        process=process,
        interval_h=interval_h,
        balance=volume_balance(process, interval_h),
    )


def node_map_of(reactor_id: str, shown: Shown = REFERENCE) -> dict[str, str]:
    """Node map of one vessel of a served rack, for `OPCUAConnector`.

    Args:
        reactor_id: Vessel, e.g. `"R01"`.
        shown: What it shows.
    """
    names = dict.fromkeys((*shown.sampled, *shown.online, *shown.controls, *_TOLD))
    is_set = frozenset(shown.controls)
    return {name: str(rack_path(reactor_id, name, is_control=name in is_set)) for name in names}


def rack_node_map(reactor_id: str) -> dict[str, str]:
    """Node map of one vessel of the emulated rack, for `OPCUAConnector`.

    Args:
        reactor_id: Vessel, e.g. `"R01"`.
    """
    return node_map_of(reactor_id)


_TOLD: Final = tuple(name for name in SPECIAL if name != "configuration_version")
"""Special keys that a served rack has."""
