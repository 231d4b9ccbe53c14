"""Faults of the sensors of a served rack."""

from collections.abc import Collection, Sequence

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.opcua.space import FAULT_KINDS

Key = tuple[int, str]
"""Vessel by number, and name of a species, tag or total."""


class SensorFaults:
    """What is wrong with which sensor.

    Args:
        vessels: Names of the vessels.
    """

    def __init__(self, vessels: Sequence[str]) -> None:
        self._vessel = {name: i for i, name in enumerate(vessels)}
        self.sensors: Collection[Key] = ()
        """Every sensor there is, once the address space is built."""
        self._kinds: dict[Key, set[str]] = {}

    def of(self, key: Key) -> set[str]:
        """Faults of one sensor."""
        return self._kinds.get(key, set())

    def inject(self, kind: str, reactor_id: str, *names: str) -> None:
        """Give sensors a fault, from their next value on.

        Args:
            kind: One of `FAULT_KINDS`.
            reactor_id: Vessel.
            *names: Species, tags or totals.

        Raises:
            ConfigError: If one of these does not exist.
        """
        if kind not in FAULT_KINDS:
            raise ConfigError(f"fault {kind!r} is unknown; there are {', '.join(FAULT_KINDS)}.")
        vessel = self._vessel.get(reactor_id)
        for name in names:
            if vessel is None or (vessel, name) not in self.sensors:
                raise ConfigError(f"there is no sensor {name!r} in {reactor_id!r}.")
            self._kinds.setdefault((vessel, name), set()).add(kind)

    def clear(self, reactor_id: str | None = None) -> None:
        """Take all faults away, of one vessel or of all."""
        vessel = None if reactor_id is None else self._vessel[reactor_id]
        for key in [k for k in self._kinds if vessel is None or k[0] == vessel]:
            del self._kinds[key]

    def switch(self, vessel: int, kind: str, names: Sequence[str]) -> bool:
        """Let a kind be the fault of these sensors of a vessel, and of no others.

        Args:
            vessel: Its number.
            kind: One of `FAULT_KINDS`.
            names: Species, tags or totals.

        Returns:
            False, and nothing done, if one of them does not exist.
        """
        if any((vessel, name) not in self.sensors for name in names):
            return False
        for key, kinds in self._kinds.items():
            if key[0] == vessel:
                kinds.discard(kind)
        for name in names:
            self._kinds.setdefault((vessel, name), set()).add(kind)
        return True
