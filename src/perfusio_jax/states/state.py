"""One reactor at one moment, as a plain record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from perfusio_jax._core import DataError
from perfusio_jax._core.devices import Device, resolve_device
from perfusio_jax.states.checks import REACTOR, UNKNOWN


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=True)
class State:
    """One reactor at one sample, as plain Python numbers.

    As a pytree its leaves are the day, the values and the volume; the ids are static.

    Example:
        >>> state = State(
        ...     day=5,
        ...     species={"VCD": 18.3, "Amm": None},
        ...     controls={"bleed_rate": 0.15},
        ...     volume_L=0.25,
        ... )
        >>> state.species
        {'VCD': 18.3, 'Amm': nan}
    """

    day: int
    """Process day [d]; 0 is inoculation."""
    species: dict[str, float]
    """Value per species in its canonical unit; NaN (or None, on the way in) if missing."""
    controls: dict[str, float]
    """Set-point per control in its canonical unit."""
    volume_L: float
    """Working volume [L]."""
    reactor_id: str = REACTOR
    """Vessel."""
    clone_id: str = UNKNOWN
    """Cell line."""
    run_id: str = UNKNOWN
    """Experiment."""

    def __post_init__(self) -> None:
        if int(self.day) != self.day or self.day < 0:
            raise DataError(f"day is {self.day}; it must be a whole number from 0 on.")
        if not (math.isfinite(self.volume_L) and self.volume_L > 0):
            raise DataError(f"volume_L is {self.volume_L} L; a working volume is above zero.")
        put = object.__setattr__
        put(self, "day", int(self.day))
        put(self, "volume_L", float(self.volume_L))
        put(self, "species", _plain(self.species, "species"))
        put(self, "controls", _plain(self.controls, "controls"))

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """Leaves with their names, and the ids; called by JAX."""
        names = ("day", "species", "controls", "volume_L")
        children = [(jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names]
        return children, (self.reactor_id, self.clone_id, self.run_id)

    @classmethod
    def tree_unflatten(cls, ids: tuple[str, str, str], children: Any) -> Self:
        """Rebuild without checks, because leaves may be tracers; called by JAX."""
        state = object.__new__(cls)
        values = (*children, *ids)
        for field, value in zip(fields(cls), values, strict=True):
            object.__setattr__(state, field.name, value)
        return state

    def strip_ids(self) -> Self:
        """The same numbers without ids, so that every run is the same type to `jit`."""
        return replace(self, reactor_id=REACTOR, clone_id=UNKNOWN, run_id=UNKNOWN)

    def to_array(
        self,
        species_names: Sequence[str],
        control_names: Sequence[str],
        *,
        dtype: DTypeLike = float,
        device: str | Device = "cpu",
    ) -> Float[Array, " n"]:
        """Lay the state out flat: species, controls, day.

        Args:
            species_names: Species wanted, in order; one that is not here becomes NaN.
            control_names: Controls wanted, in order; one that is not here becomes NaN.
            dtype: Floating type.
            device: Where to put the array.

        Returns:
            Array of length `len(species_names) + len(control_names) + 1`; the day [d] is last.
        """
        values = [self.species.get(name, math.nan) for name in species_names]
        values += [self.controls.get(name, math.nan) for name in control_names]
        values.append(float(self.day))
        return jax.device_put(jnp.asarray(np.asarray(values), dtype), resolve_device(device))

    @classmethod
    def from_array(
        cls,
        t: Float[Array, " n"],
        species_names: Sequence[str],
        control_names: Sequence[str],
        *,
        day: int,
        volume_L: float = 0.25,
        reactor_id: str = REACTOR,
        clone_id: str = UNKNOWN,
        run_id: str = UNKNOWN,
    ) -> Self:
        """Read a state back from its flat layout.

        Args:
            t: Array as made by `to_array`.
            species_names: Order of the species in it.
            control_names: Order of the controls in it.
            day: Process day [d].
            volume_L: Working volume [L].
            reactor_id: Vessel.
            clone_id: Cell line.
            run_id: Experiment.

        Returns:
            The state.

        Raises:
            DataError: If the length does not fit the names, or the array carries another day.
        """
        values = np.asarray(t, np.float64)
        n_species, n_controls = len(species_names), len(control_names)
        expected = n_species + n_controls + 1
        if values.shape != (expected,):
            raise DataError(
                f"the array has shape {values.shape}; {n_species} species, {n_controls} controls "
                f"and the day make ({expected},)."
            )
        if values[-1] != day:
            raise DataError(f"the array was made on day {values[-1]:g}, and day={day} was given.")
        numbers = [float(v) for v in values]
        return cls(
            day=day,
            species=dict(zip(species_names, numbers[:n_species], strict=True)),
            controls=dict(zip(control_names, numbers[n_species:-1], strict=True)),
            volume_L=volume_L,
            reactor_id=reactor_id,
            clone_id=clone_id,
            run_id=run_id,
        )


def _plain(values: Mapping[str, Any], what: str) -> dict[str, float]:
    """Python floats by name; None becomes NaN."""
    plain = {}
    for name, value in values.items():
        try:
            plain[name] = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"{what}['{name}'] is {value!r}; it must be a number or None."
            ) from None
    return plain
