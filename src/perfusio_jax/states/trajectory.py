"""One run of one reactor over time."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from perfusio_jax._core import HOURS_PER_DAY, STREAM_TOTALS, DataError, float_array
from perfusio_jax._core.devices import Device, resolve_device
from perfusio_jax._core.frozen import FrozenStrings
from perfusio_jax.states.checks import (
    REACTOR,
    UNKNOWN,
    expect_shape,
    is_concrete,
    position,
    take_rows,
    unique_names,
)
from perfusio_jax.states.state import State

if TYPE_CHECKING:
    import pandas as pd


class Trajectory(eqx.Module):
    """One run of one reactor: samples, set-points and what flowed in between.

    Example:
        >>> import numpy as np
        >>> run = Trajectory(
        ...     species=np.ones((3, 2)),
        ...     controls=np.ones((3, 1)),
        ...     volume_L=np.full(3, 0.25),
        ...     days=np.arange(3),
        ...     species_names=["VCD", "Glc"],
        ...     control_names=["perfusion_rate"],
        ...     run_id="EXP001",
        ... )
        >>> run.n_days
        3
    """

    species: Float[Array, "T n_species"]
    """Measured values in canonical units; NaN if missing."""
    controls: Float[Array, "T n_controls"]
    """Set-points applied from this sample until the next, in canonical units."""
    volume_L: Float[Array, " T"]
    """Working volume [L]."""
    days: Int[Array, " T"]
    """Process day [d]; 0 is inoculation."""
    times_h: Float[Array, " T"]
    """Time of each sample since inoculation [h]; 24 h a day unless given."""
    stream_totals: Float[Array, "T n_streams"]
    """Volume of each stream since the previous sample [L], in the order of `STREAM_TOTALS`;
    NaN where it was not totalised."""
    auxiliary: Float[Array, "T n_auxiliary"]
    """Online tags in canonical units; NaN if missing."""
    limits: Float[Array, "T n_species 2"] | None
    """Limits of assays that stand in the place of readings, in canonical units: a reading is below
    the first or above the second; NaN elsewhere, None if every reading is one. `species` then holds
    half the first, and NaN for the second."""
    species_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `species`."""
    control_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `controls`."""
    auxiliary_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `auxiliary`."""
    run_id: str = eqx.field(static=True)
    """Experiment."""
    clone_id: str = eqx.field(static=True)
    """Cell line."""
    reactor_id: str = eqx.field(static=True)
    """Vessel."""
    metadata: FrozenStrings = eqx.field(static=True)
    """Free text by key, for example the medium lot; read-only."""

    def __init__(
        self,
        species: ArrayLike,
        controls: ArrayLike,
        volume_L: ArrayLike,
        days: ArrayLike,
        species_names: Sequence[str],
        control_names: Sequence[str],
        run_id: str = UNKNOWN,
        clone_id: str = UNKNOWN,
        reactor_id: str = REACTOR,
        metadata: Mapping[str, str] | None = None,
        *,
        times_h: ArrayLike | None = None,
        stream_totals: ArrayLike | None = None,
        auxiliary: ArrayLike | None = None,
        auxiliary_names: Sequence[str] = (),
        limits: ArrayLike | None = None,
    ) -> None:
        self.species = float_array(species)
        dtype = self.species.dtype
        self.controls = jnp.asarray(controls, dtype)
        self.volume_L = jnp.asarray(volume_L, dtype)
        self.days = jnp.asarray(days, int)
        n = self.species.shape[0] if self.species.ndim else 0
        if times_h is None:  # on the host if possible: a new length must not compile anything
            host = np.asarray(self.days) if is_concrete(self.days) else self.days
            times_h = host * HOURS_PER_DAY
        self.times_h = jnp.asarray(times_h, dtype)
        unknown = np.full((n, len(STREAM_TOTALS)), np.nan)
        self.stream_totals = jnp.asarray(unknown if stream_totals is None else stream_totals, dtype)
        self.auxiliary_names = unique_names(auxiliary_names, "auxiliary_names")
        blank = np.full((n, len(self.auxiliary_names)), np.nan)
        self.auxiliary = jnp.asarray(blank if auxiliary is None else auxiliary, dtype)
        self.limits = None if limits is None else jnp.asarray(limits, dtype)
        self.species_names = unique_names(species_names, "species_names")
        self.control_names = unique_names(control_names, "control_names")
        self.run_id = str(run_id)
        self.clone_id = str(clone_id)
        self.reactor_id = str(reactor_id)
        self.metadata = FrozenStrings(metadata)

    def __check_init__(self) -> None:
        n = self.species.shape[0] if self.species.ndim else 0
        for what, array, names in (
            ("species", self.species, self.species_names),
            ("controls", self.controls, self.control_names),
            ("stream_totals", self.stream_totals, STREAM_TOTALS),
            ("auxiliary", self.auxiliary, self.auxiliary_names),
        ):
            reading = f"one row per sample, one column for each of {', '.join(names) or 'nothing'}"
            expect_shape(array, (n, len(names)), f"{what} of run '{self.run_id}'", reading)
        if self.limits is not None:
            shape, what = (n, len(self.species_names), 2), f"limits of run '{self.run_id}'"
            expect_shape(self.limits, shape, what, "below and above for every value of species")
        for what, array in (
            ("volume_L", self.volume_L),
            ("days", self.days),
            ("times_h", self.times_h),
        ):
            expect_shape(array, (n,), f"{what} of run '{self.run_id}'", "one per sample")
        if is_concrete(self.times_h, self.volume_L):
            self._check_values()

    def _check_values(self) -> None:
        times, volume = np.asarray(self.times_h), np.asarray(self.volume_L)
        if not np.all(np.isfinite(times)):
            row = int(np.argmin(np.isfinite(times)))
            raise DataError(f"times_h of run '{self.run_id}' is {times[row]:g} h in row {row}.")
        if not np.all(np.diff(times) > 0):
            row = int(np.argmin(np.diff(times) > 0)) + 1
            raise DataError(
                f"times_h of run '{self.run_id}' must rise from row to row; row {row} "
                f"({times[row]:g} h) follows {times[row - 1]:g} h."
            )
        if not np.all(volume > 0):
            row = int(np.argmin(volume > 0))
            raise DataError(
                f"volume_L of run '{self.run_id}' is {volume[row]:g} L in row {row}; a working "
                "volume is above zero."
            )

    @property
    def n_days(self) -> int:
        """Number of samples."""
        return self.species.shape[0]

    @property
    def n_species(self) -> int:
        """Number of species columns."""
        return len(self.species_names)

    @property
    def n_controls(self) -> int:
        """Number of control columns."""
        return len(self.control_names)

    def species_index(self, name: str) -> int:
        """Column of a species.

        Args:
            name: Species name.

        Returns:
            Position in `species_names`.

        Raises:
            KeyError: If the species is not here; the message lists those that are.
        """
        return position(self.species_names, name, "species")

    def get_species(self, name: str) -> Float[Array, " T"]:
        """Values of one species over time.

        Args:
            name: Species name.

        Returns:
            One value per sample, NaN if missing.

        Raises:
            KeyError: If the species is not here.
        """
        return self.species[:, self.species_index(name)]

    def get_control(self, name: str) -> Float[Array, " T"]:
        """Set-points of one control over time.

        Args:
            name: Control name.

        Returns:
            One value per sample.

        Raises:
            KeyError: If the control is not here.
        """
        return self.controls[:, position(self.control_names, name, "control")]

    def select_species(
        self, names: Sequence[str], *, missing_ok: bool = False
    ) -> Float[Array, "T n"]:
        """Values of several species in an order of the caller's choice.

        Args:
            names: Species wanted, for example `STATE_ORDER`.
            missing_ok: Whether a species that was never measured becomes a column of NaN.

        Returns:
            One row per sample, one column per name.

        Raises:
            KeyError: If a species is not here and `missing_ok` is False.
        """
        if is_concrete(self.species):  # on the host: a new length must not compile anything
            return jnp.asarray(self.host_species(names, missing_ok=missing_ok))
        absent = set(names) - set(self.species_names) if missing_ok else set()
        blank = jnp.full(self.species.shape[:-1], jnp.nan, self.species.dtype)
        columns = [blank if n in absent else self.get_species(n) for n in names]
        return jnp.stack(columns, axis=-1)

    def host_species(
        self, names: Sequence[str], *, missing_ok: bool = False
    ) -> Float[np.ndarray, "T n"]:
        """The same as `select_species` as a NumPy array, of a run that is not traced.

        Args:
            names: Species wanted.
            missing_ok: Whether a species that was never measured becomes a column of NaN.

        Returns:
            One row per sample, one column per name.

        Raises:
            KeyError: If a species is not here and `missing_ok` is False.
        """
        known = np.asarray(self.species)
        absent = set(names) - set(self.species_names) if missing_ok else set()
        table = np.full((*known.shape[:-1], len(names)), np.nan, known.dtype)
        for k, name in enumerate(names):
            if name not in absent:
                table[..., k] = known[..., self.species_index(name)]
        return table

    def host_limits(self, names: Sequence[str]) -> Float[np.ndarray, "T n 2"]:
        """Limits of assays of several species, NaN where a value is a reading or none.

        Args:
            names: Species wanted; one that was never measured has none.
        """
        out = np.full((self.n_days, len(names), 2), np.nan)
        for k, name in enumerate(names):
            if self.limits is not None and name in self.species_names:
                out[:, k] = np.asarray(self.limits)[:, self.species_index(name)]
        return out

    def host_readings(self, names: Sequence[str]) -> Float[np.ndarray, "T n"]:
        """Values of several species that were read, NaN where a limit of the assay stands.

        Args:
            names: Species wanted; one that was never measured is NaN.
        """
        known = self.host_species(names, missing_ok=True)
        is_limit = np.isfinite(self.host_limits(names)).any(axis=-1)
        return np.where(is_limit, np.nan, known)

    def select_controls(self, names: Sequence[str]) -> Float[Array, "T n"]:
        """Set-points of several controls in an order of the caller's choice.

        Args:
            names: Controls wanted, for example `CONTROL_NAMES`.

        Returns:
            One row per sample, one column per name.

        Raises:
            KeyError: If a control is not here.
        """
        return jnp.stack([self.get_control(n) for n in names], axis=-1)

    def valid_mask(self) -> Bool[Array, "T n_species"]:
        """True where a measurement is present."""
        return ~jnp.isnan(self.species)

    def to_input_array(self) -> Float[Array, "T d"]:
        """Species, controls and day [d] side by side, one row per sample."""
        day = jnp.asarray(self.days, self.species.dtype)[:, None]
        return jnp.concatenate([self.species, self.controls, day], axis=1)

    def slice_days(self, start: int, end: int) -> "Trajectory":
        """The part of the run on days `start <= day < end`.

        Args:
            start: First day [d].
            end: Day after the last [d].

        Returns:
            A shorter trajectory, possibly without rows.

        Raises:
            DataError: If the interval is inverted, or the days are traced (slice outside jit).
        """
        if start > end:
            raise DataError(f"slice_days({start}, {end}): the first day comes after the last.")
        if not is_concrete(self.days):
            raise DataError("slice_days needs concrete days; slice before the jit boundary.")
        days = np.asarray(self.days)
        rows = np.flatnonzero((days >= start) & (days < end))
        return jax.tree.map(lambda leaf: take_rows(leaf, rows), self)

    def to(self, device: str | Device) -> "Trajectory":
        """A copy with all arrays on another device.

        Args:
            device: JAX device, or text such as `"cpu"` or `"cuda:0"`.

        Returns:
            The copy.

        Raises:
            ConfigError: If this process has no such device.
        """
        return jax.device_put(self, resolve_device(device))

    def strip_ids(self) -> "Trajectory":
        """The same numbers without ids and metadata: one type to `jit` for runs of one shape."""
        return self.with_ids(UNKNOWN, UNKNOWN, REACTOR, {})

    def with_ids(
        self, run_id: str, clone_id: str, reactor_id: str, metadata: Mapping[str, str]
    ) -> "Trajectory":
        """The same numbers under other ids.

        Args:
            run_id: Experiment.
            clone_id: Cell line.
            reactor_id: Vessel.
            metadata: Free text by key.

        Returns:
            The copy.
        """
        return Trajectory(
            self.species,
            self.controls,
            self.volume_L,
            self.days,
            self.species_names,
            self.control_names,
            run_id=run_id,
            clone_id=clone_id,
            reactor_id=reactor_id,
            metadata=metadata,
            times_h=self.times_h,
            stream_totals=self.stream_totals,
            auxiliary=self.auxiliary,
            auxiliary_names=self.auxiliary_names,
            limits=self.limits,
        )

    def state_at(self, row: int) -> State:
        """One row as a plain record.

        Args:
            row: Row, counted from 0; negative counts from the end.

        Returns:
            The record.

        Raises:
            IndexError: If there is no such row.
        """
        if not -self.n_days <= row < self.n_days:
            raise IndexError(f"row {row} of a run with {self.n_days} samples.")
        species = np.asarray(self.species, np.float64)[row].tolist()
        controls = np.asarray(self.controls, np.float64)[row].tolist()
        return State(
            day=int(np.asarray(self.days)[row]),
            species=dict(zip(self.species_names, species, strict=True)),
            controls=dict(zip(self.control_names, controls, strict=True)),
            volume_L=float(np.asarray(self.volume_L)[row]),
            reactor_id=self.reactor_id,
            clone_id=self.clone_id,
            run_id=self.run_id,
        )

    def to_frame(self) -> "pd.DataFrame":
        """The run as a campaign table (pandas is imported now)."""
        from perfusio_jax.connectors.files.campaign_table import table_of

        return table_of([self])

    @classmethod
    def from_frame(
        cls, frame: "pd.DataFrame", *, units: Mapping[str, str] | None = None
    ) -> "Trajectory":
        """Read one run from a campaign table.

        Args:
            frame: Table of a single run.
            units: Unit per column, where it is not the canonical one.

        Returns:
            The run.

        Raises:
            DataError: If the table breaks the contract or holds several runs.
        """
        from perfusio_jax.connectors.files.campaign_table import runs_of

        runs, _ = runs_of(frame, units=units)
        if len(runs) != 1:
            raise DataError(
                f"the table holds {len(runs)} runs; use campaign_from_frame to read them all."
            )
        return cls(**runs[0])
