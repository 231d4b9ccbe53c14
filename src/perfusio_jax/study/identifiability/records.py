"""Recorded runs as arrays: what was set, when was sampled, what was read and how well."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import DataError
from perfusio_jax.simulator import viability_sd
from perfusio_jax.states import Trajectory
from perfusio_jax.study.experiment import Assay, Experiment

_MOST_VIABLE = 99.5
"""Viability above which its error does not fall further [%]."""


_PADDING_H = 1.0
"""Length of intervals behind the end of a run [h]; nobody reads what happens in them."""


class Records(NamedTuple):
    """Runs padded to one length; what is not there is NaN among the readings."""

    start: Float[Array, "R n"]
    """Where each run starts by its first sample."""
    controls: Float[Array, "R T M"]
    """Set-points by interval."""
    lengths_h: Float[Array, "R T"]
    """Lengths of the intervals [h]."""
    volume_L: Float[Array, " R"]
    """Volume at the start [L]."""
    readings: Float[Array, "R T+1 A"]
    """What was read, in the order of the experiment's assays."""
    limits: Float[Array, "R T+1 A 2"]
    """Limits of assays in the place of readings: the value is below the first or above the second;
    NaN where there is none."""

    @property
    def n_readings(self) -> int:
        """How many readings there are."""
        return int(np.sum(np.isfinite(np.asarray(self.readings))))


def planned_runs(experiment: Experiment, controls: Float[np.ndarray, "R T M"]) -> Records:
    """Runs that nobody made: what would be read is compared with nothing.

    Args:
        experiment: A run of the plant: its start, its intervals, its volume.
        controls: Set-points of each run, by interval.
    """
    n, t = controls.shape[:2]
    assays = len(experiment.assays)
    volume = getattr(experiment, "volume_L", jnp.asarray(1.0))
    volume = volume - getattr(experiment, "sample_L", 0.0)
    return Records(
        start=jnp.tile(experiment.start, (n, 1)),
        controls=jnp.asarray(controls),
        lengths_h=jnp.tile(experiment.lengths_h, (n, 1)),
        volume_L=jnp.full(n, volume),
        readings=jnp.zeros((n, t + 1, assays)),
        limits=jnp.full((n, t + 1, assays, 2), jnp.nan),
    )


def records_of(experiment: Experiment, runs: Sequence[Trajectory]) -> Records:
    """Runs as arrays.

    Args:
        experiment: The plant they are runs of, any run of it.
        runs: With the plant's controls among their columns. Limits of assays are kept apart and
            are no readings.

    Raises:
        DataError: If there is no run of two samples, a control is absent or a set-point that acted
            is not finite, or nothing was read that is modelled.
    """
    usable = [run for run in runs if run.n_days >= 2]
    if not usable:
        raise DataError(
            f"{len(runs)} run(s), and none has two samples; what moves between samples is what "
            "tells of constants."
        )
    assays = [a.column for a in experiment.assays]
    n = max(run.n_days for run in usable)
    rows = [_one(experiment, run, assays, n) for run in usable]
    found = Records(*(jnp.asarray(np.stack(v)) for v in zip(*rows, strict=True)))
    if not found.n_readings:
        raise DataError(
            f"nothing was read in {len(usable)} run(s) that the mechanism speaks of: "
            f"{', '.join(assays)}."
        )
    return found


def _one(
    experiment: Experiment, run: Trajectory, assays: list[str], n: int
) -> tuple[np.ndarray, ...]:
    names = tuple(lever.name for lever in experiment.levers if lever.group == "set-points")
    names = tuple(name for name in names if "@" not in name)
    absent = [name for name in names if name not in run.control_names]
    if absent:
        raise DataError(
            f"run '{run.run_id}' lacks the controls {', '.join(absent)}; {', '.join(names)} are "
            "needed."
        )
    columns = [run.control_names.index(name) for name in names]
    acting = np.asarray(run.controls)[:-1][:, columns]
    if not np.all(np.isfinite(acting)):
        raise DataError(
            f"run '{run.run_id}' has a set-point that is not finite; fill in the value that acted "
            "(the commands fill blanks down with --fill-down)."
        )
    readings = np.asarray(run.host_readings(assays), float)
    limits = np.asarray(run.host_limits(assays), float)
    lengths = np.diff(np.asarray(run.times_h, float))
    if not np.all(lengths > 0.0):
        raise DataError(f"run '{run.run_id}' has two samples at one time, or out of order.")
    volume = float(np.asarray(run.volume_L)[0])
    pad = n - run.n_days
    own = float(np.asarray(getattr(experiment, "volume_L", 1.0)))
    return (
        experiment.start_of(dict(zip(assays, readings[0].tolist(), strict=True))),
        np.pad(acting, ((0, pad), (0, 0)), mode="edge"),
        np.pad(lengths, (0, pad), constant_values=_PADDING_H),
        np.asarray(volume if np.isfinite(volume) else own),
        np.pad(readings, ((0, pad), (0, 0)), constant_values=np.nan),
        np.pad(limits, ((0, pad), (0, 0), (0, 0)), constant_values=np.nan),
    )


def assay_sd(assays: tuple[Assay, ...], values: Float[Array, "*b A"]) -> Float[Array, "*b A"]:
    """Standard deviation of readings of these values.

    Args:
        assays: How well each column is measured.
        values: What would be read without noise.
    """
    wide = (1,) * (values.ndim - 1) + (-1,)
    cv, floor = (
        jnp.asarray([getattr(a, k) for a in assays], values.dtype).reshape(wide)
        for k in ("cv", "floor")
    )
    found = jnp.hypot(cv * values, floor)
    for k, assay in enumerate(assays):
        if assay.is_viability:
            shown = jnp.clip(values[..., k], 100.0 - _MOST_VIABLE, _MOST_VIABLE)
            found = found.at[..., k].set(viability_sd(shown, assay.cv))
    return found
