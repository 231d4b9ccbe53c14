"""A rack of reactors at one moment, as arrays."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from perfusio_jax._core import DataError, float_array
from perfusio_jax._core.devices import Device, resolve_device
from perfusio_jax.states.checks import REACTOR, UNKNOWN, expect_shape, unique_names
from perfusio_jax.states.state import State


class StateBatch(eqx.Module):
    """A rack of B reactors at one sample."""

    day: Int[Array, ""]
    """Shared process day [d]."""
    species: Float[Array, "B n_species"]
    """Values in canonical units; NaN if missing."""
    controls: Float[Array, "B n_controls"]
    """Set-points in canonical units."""
    volume_L: Float[Array, " B"]
    """Working volumes [L]."""
    reactor_ids: tuple[str, ...] = eqx.field(static=True)
    """Vessel of each row."""
    clone_ids: tuple[str, ...] = eqx.field(static=True)
    """Cell line of each row."""
    run_ids: tuple[str, ...] = eqx.field(static=True)
    """Experiment of each row."""
    species_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `species`."""
    control_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `controls`."""

    def __init__(
        self,
        day: int | Array,
        species: ArrayLike,
        controls: ArrayLike,
        volume_L: ArrayLike,
        reactor_ids: Sequence[str],
        clone_ids: Sequence[str],
        run_ids: Sequence[str],
        species_names: Sequence[str],
        control_names: Sequence[str],
    ) -> None:
        self.day = jnp.asarray(day, int)
        self.species = float_array(species)
        self.controls = float_array(controls)
        self.volume_L = float_array(volume_L)
        self.reactor_ids = tuple(reactor_ids)
        self.clone_ids = tuple(clone_ids)
        self.run_ids = tuple(run_ids)
        self.species_names = unique_names(species_names, "species_names")
        self.control_names = unique_names(control_names, "control_names")

    def __check_init__(self) -> None:
        n = len(self.reactor_ids)
        shape = (n, len(self.species_names))
        expect_shape(self.species, shape, "species", "one row per reactor, one column per name")
        shape = (n, len(self.control_names))
        expect_shape(self.controls, shape, "controls", "one row per reactor, one column per name")
        expect_shape(self.volume_L, (n,), "volume_L", "one volume per reactor")
        expect_shape(self.day, (), "day", "one day for the whole rack")
        for what, ids in (("clone_ids", self.clone_ids), ("run_ids", self.run_ids)):
            if len(ids) != n:
                raise DataError(f"{what} has {len(ids)} entries for {n} reactors.")

    @property
    def batch_size(self) -> int:
        """Number of reactors."""
        return self.species.shape[0]

    def to_input_array(self) -> Float[Array, "B d"]:
        """Species, controls and day [d] side by side, one row per reactor."""
        day = jnp.full((self.species.shape[0], 1), self.day, self.species.dtype)
        return jnp.concatenate([self.species, self.controls, day], axis=1)

    def valid_mask(self) -> Bool[Array, "B n_species"]:
        """True where a measurement is present."""
        return ~jnp.isnan(self.species)

    def to(self, device: str | Device) -> "StateBatch":
        """A copy on another device."""
        return jax.device_put(self, resolve_device(device))

    def strip_ids(self) -> "StateBatch":
        """The same numbers without ids, so that every rack of a size is one type to `jit`."""
        n = len(self.reactor_ids)
        return StateBatch(
            self.day,
            self.species,
            self.controls,
            self.volume_L,
            reactor_ids=(REACTOR,) * n,
            clone_ids=(UNKNOWN,) * n,
            run_ids=(UNKNOWN,) * n,
            species_names=self.species_names,
            control_names=self.control_names,
        )

    @classmethod
    def from_states(
        cls, states: Sequence[State], species_names: Sequence[str], control_names: Sequence[str]
    ) -> "StateBatch":
        """Put records of one day side by side.

        Args:
            states: One record per reactor.
            species_names: Species wanted, in order; missing ones become NaN.
            control_names: Controls wanted, in order; missing ones become NaN.

        Returns:
            The rack.

        Raises:
            DataError: If there are no records, or they are of different days.
        """
        days = {state.day for state in states}
        if len(days) != 1:
            raise DataError(
                f"a rack is of one day; the {len(states)} records are of {sorted(days)}."
            )
        rows = np.stack(
            [np.asarray(s.to_array(species_names, control_names), np.float64) for s in states]
        )
        n_species = len(species_names)
        return cls(
            day=days.pop(),
            species=rows[:, :n_species],
            controls=rows[:, n_species:-1],
            volume_L=np.array([s.volume_L for s in states]),
            reactor_ids=[s.reactor_id for s in states],
            clone_ids=[s.clone_id for s in states],
            run_ids=[s.run_id for s in states],
            species_names=species_names,
            control_names=control_names,
        )
