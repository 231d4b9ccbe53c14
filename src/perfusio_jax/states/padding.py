"""Runs of unequal length side by side, padded to one shape."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax.states.checks import is_concrete, take_rows
from perfusio_jax.states.trajectory import Trajectory


class TrajectoryBatch(eqx.Module):
    """Runs of unequal length side by side, padded, with a mask of what is real.

    Padding is harmless by construction: measurements, totals and tags are NaN, while time,
    day, volume and set-points go on as in the last real row, so that no derivative is NaN.
    """

    species: Float[Array, "R T n_species"]
    """Values; NaN if missing or padding."""
    controls: Float[Array, "R T n_controls"]
    """Set-points; the last real ones in padding."""
    volume_L: Float[Array, "R T"]
    """Working volume [L]; the last real one in padding."""
    days: Int[Array, "R T"]
    """Process day [d]; counted on in padding."""
    times_h: Float[Array, "R T"]
    """Time [h]; counted on by 24 h in padding."""
    stream_totals: Float[Array, "R T n_streams"]
    """Stream volumes [L]; NaN if unknown or padding."""
    auxiliary: Float[Array, "R T n_auxiliary"]
    """Online tags; NaN if missing or padding."""
    mask: Bool[Array, "R T"]
    """True where a row is a real sample."""
    species_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `species`."""
    control_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `controls`."""
    auxiliary_names: tuple[str, ...] = eqx.field(static=True)
    """Columns of `auxiliary`."""
    limits: Float[Array, "R T n_species 2"] | None = None
    """Limits of assays in the place of readings, NaN elsewhere; None if no run has one."""

    @property
    def n_runs(self) -> int:
        """Number of lanes, padding included."""
        return self.species.shape[0]

    @property
    def n_steps(self) -> int:
        """Number of rows of each lane, padding included."""
        return self.species.shape[1]

    @property
    def lengths(self) -> Int[Array, " R"]:
        """Number of real samples of each run."""
        return jnp.sum(self.mask, axis=1)

    def valid_mask(self) -> Bool[Array, "R T n_species"]:
        """True where a row is real and the measurement is present."""
        return self.mask[:, :, None] & ~jnp.isnan(self.species)

    def unstack(self) -> list[Trajectory]:
        """The real rows of every run that has any, without ids.

        Raises:
            DataError: If the mask is traced (unstack outside jit).
        """
        if not is_concrete(self.mask):
            raise DataError("unstack needs a concrete mask; call it outside jit.")
        runs = []
        for lane, length in enumerate(np.asarray(self.lengths).tolist()):
            if length:
                runs.append(self._lane(lane, length))
        return runs

    def _lane(self, lane: int, length: int) -> Trajectory:
        def real(array: Array) -> Array:
            return take_rows(take_rows(array, np.asarray(lane)), np.arange(length))

        return Trajectory(
            real(self.species),
            real(self.controls),
            real(self.volume_L),
            real(self.days),
            self.species_names,
            self.control_names,
            times_h=real(self.times_h),
            stream_totals=real(self.stream_totals),
            auxiliary=real(self.auxiliary),
            auxiliary_names=self.auxiliary_names,
            limits=None if self.limits is None else real(self.limits),
        )


def stack_trajectories(
    trajectories: Sequence[Trajectory], *, n_steps: int | None = None, n_runs: int | None = None
) -> TrajectoryBatch:
    """Pad runs to one length and put them side by side.

    A batch carries no ids: keep the list it was made from. Give `n_steps` and `n_runs` a
    little above what is needed and a growing campaign keeps one shape, hence one compile.

    Args:
        trajectories: At least one run with at least one row; same names in the same order.
        n_steps: Rows per lane; the longest run if omitted.
        n_runs: Lanes; as many as runs if omitted. Surplus lanes are all padding.

    Returns:
        The padded batch.

    Raises:
        DataError: If there is no run, one is empty, names differ, or the sizes are too small.
    """
    runs = list(trajectories)
    if not runs:
        raise DataError("there are no trajectories to stack; give at least one.")
    _check_stackable(runs)
    longest = max(run.n_days for run in runs)
    n_steps = longest if n_steps is None else n_steps
    n_runs = len(runs) if n_runs is None else n_runs
    if n_steps < longest or n_runs < len(runs):
        raise DataError(
            f"{len(runs)} runs of up to {longest} rows do not fit into n_runs={n_runs}, "
            f"n_steps={n_steps}."
        )
    has_limits = any(run.limits is not None for run in runs)
    lanes = [_pad(run, n_steps, has_limits=has_limits) for run in runs]
    ghost = dict(lanes[-1])
    for name in ("species", "stream_totals", "auxiliary", *["limits"] * has_limits):
        ghost[name] = np.full_like(ghost[name], np.nan)
    ghost["mask"] = np.zeros(n_steps, bool)
    lanes += [ghost] * (n_runs - len(runs))
    dtype = runs[0].species.dtype
    columns = {name: np.stack([lane[name] for lane in lanes]) for name in lanes[0]}
    days, mask = columns.pop("days"), columns.pop("mask")
    return TrajectoryBatch(
        **{name: jnp.asarray(column, dtype) for name, column in columns.items()},
        days=jnp.asarray(days, int),
        mask=jnp.asarray(mask, bool),
        species_names=runs[0].species_names,
        control_names=runs[0].control_names,
        auxiliary_names=runs[0].auxiliary_names,
    )


def _check_stackable(runs: list[Trajectory]) -> None:
    for run in runs:
        if run.n_days == 0:
            raise DataError(f"run '{run.run_id}' has no rows, so there is nothing to pad.")
        for what in ("species_names", "control_names", "auxiliary_names"):
            if getattr(run, what) != getattr(runs[0], what):
                raise DataError(
                    f"{what} of run '{run.run_id}' is {list(getattr(run, what))}, of run "
                    f"'{runs[0].run_id}' {list(getattr(runs[0], what))}; stacked runs need the "
                    "same names in the same order."
                )


def _pad(run: Trajectory, n_steps: int, *, has_limits: bool) -> dict[str, np.ndarray]:
    """One lane on the host, grown to `n_steps` rows."""
    extra = n_steps - run.n_days
    count = np.arange(1, extra + 1)

    def blank(array: Array) -> np.ndarray:
        return np.pad(np.asarray(array), ((0, extra), (0, 0)), constant_values=np.nan)

    def hold(array: Array) -> np.ndarray:
        values = np.asarray(array)
        return np.concatenate([values, np.repeat(values[-1:], extra, axis=0)])

    days, times = np.asarray(run.days), np.asarray(run.times_h)
    limits = {}
    if has_limits:
        padding = ((0, extra), (0, 0), (0, 0))
        known = run.host_limits(run.species_names)
        limits["limits"] = np.pad(known, padding, constant_values=np.nan)
    return {
        "species": blank(run.species),
        "controls": hold(run.controls),
        "volume_L": hold(run.volume_L),
        "days": np.concatenate([days, days[-1] + count]),
        "times_h": np.concatenate([times, times[-1] + HOURS_PER_DAY * count]),
        "stream_totals": blank(run.stream_totals),
        "auxiliary": blank(run.auxiliary),
        "mask": np.arange(n_steps) < run.n_days,
        **limits,
    }
