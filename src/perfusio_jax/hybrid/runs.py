"""One run as the filter reads it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import HOURS_PER_DAY, STREAM_TOTALS, DataError, Scalar, on_device
from perfusio_jax.hybrid.layout import CHO, VOLUME, Layout
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone
from perfusio_jax.process import bolus_volumes, stream_flows
from perfusio_jax.process.laws import answering
from perfusio_jax.states import Trajectory

_FEED = STREAM_TOTALS.index("V_glucose_L")


class RunArrays(NamedTuple):
    """One run as the filter reads it; pad with NaN samples."""

    face: Float[Array, "T K"]
    """Samples in the order of the layout's face; NaN where missing."""
    controls: Float[Array, "T M"]
    """Set-points from each sample on."""
    feed_L: Float[Array, " T"]
    """Concentrated glucose since the sample before [L]; NaN if unknown."""
    times_h: Float[Array, " T"]
    """Sample times [h]."""
    mask: Bool[Array, " T"]
    """Rows that are part of the run."""
    clone: Scalar | np.float64 = np.float64(-1.0)
    """Clone index; unused by a model without an embedding."""
    limits: Float[Array, "T K 2"] | None = None
    """Limits of assays that stand in the place of readings, below and above; NaN elsewhere."""


def run_arrays(
    trajectory: Trajectory,
    *,
    length: int | None = None,
    clone: int = -1,
    layout: Layout = CHO,
) -> RunArrays:
    """Take from a trajectory what the filter needs.

    Args:
        trajectory: Run with the layout's controls among its columns; what of its face has no
            column counts as never measured.
        length: Rows to pad to.
        clone: Index of its clone in the model's family.
        layout: Columns; those of CHO perfusion by default.

    Returns:
        Arrays.

    Raises:
        DataError: If a control column is absent or a set-point is not finite.
    """
    wanted = tuple(n for n in layout.controls if n != VOLUME)
    absent = [n for n in wanted if n not in trajectory.control_names]
    if absent:
        raise DataError(
            f"run '{trajectory.run_id}' lacks the controls {absent}; all of {wanted} are needed."
        )
    # on the host: one eager operation each would cost a compile, and arrays that came out of
    # a simulation may be pinned to a device, which would cost another
    face = trajectory.host_species(layout.face, missing_ok=True)
    columns = [trajectory.control_names.index(name) for name in wanted]
    controls = np.array(trajectory.controls)[:, columns]
    n = trajectory.n_days
    acting = controls[:-1] if n > 1 else controls
    if not np.all(np.isfinite(acting)):
        raise DataError(
            f"run '{trajectory.run_id}' has a set-point that is not finite; fill in the value "
            "that acted (the commands fill blanks down with --fill-down)."
        )
    controls[-1] = np.where(np.isfinite(controls[-1]), controls[-1], acting[-1])
    times = np.asarray(trajectory.times_h)
    if VOLUME in layout.controls:
        volume = volumes(layout, controls, np.asarray(trajectory.volume_L), times)
        controls = np.concatenate([controls, volume[:, None]], axis=1)
    feed = np.asarray(trajectory.stream_totals)[:, _FEED]
    if not layout.is_cho:  # no pump of ours, so nothing a total could tell of it
        feed = np.full_like(feed, np.nan)
    pad = 0 if length is None else length - n
    if pad < 0:
        raise DataError(f"run '{trajectory.run_id}' has {n} rows, more than {length}.")
    later = times[-1] + HOURS_PER_DAY * (1.0 + np.arange(pad))
    return RunArrays(
        face=on_device(np.pad(face, ((0, pad), (0, 0)), constant_values=np.nan)),
        controls=on_device(np.pad(controls, ((0, pad), (0, 0)), mode="edge")),
        feed_L=on_device(np.pad(feed, (0, pad), constant_values=np.nan)),
        times_h=on_device(np.concatenate([times, later])),
        mask=on_device(np.arange(n + pad) < n),
        clone=jnp.asarray(clone, float),
        limits=_limits(trajectory, layout, pad),
    )


def _limits(trajectory: Trajectory, layout: Layout, pad: int) -> Array | None:
    """Limits of what is modelled; None if there is none, so that one program serves both."""
    if trajectory.limits is None:
        return None
    limits = trajectory.host_limits(layout.face)
    if not np.isfinite(limits).any():
        return None
    return on_device(np.pad(limits, ((0, pad), (0, 0), (0, 0)), constant_values=np.nan))


def volumes(
    layout: Layout, controls: np.ndarray, recorded: np.ndarray, times_h: np.ndarray
) -> np.ndarray:
    """Volume at each sample of a run whose volume moves [L].

    Args:
        layout: Layout of the culture.
        controls: Set-points (T, M) without the volume.
        recorded: Volumes as recorded (T,); where they never move, only the first one counts, and
            what flows and what is given says the rest.
        times_h: Sample times (T,) [h].

    Returns:
        Volumes (T,), each before what is given there.

    Raises:
        DataError: If nobody recorded them and pumps answer to what is in the vessel.
    """
    process = layout.process
    known = np.isfinite(recorded)
    if process is None:
        return np.interp(times_h, times_h[known], recorded[known])
    each = bolus_volumes(process)
    given = np.nan_to_num(controls[:, : each.size]) @ each
    if np.ptp(recorded[known]) > 0.0:
        if not given.any():
            return np.interp(times_h, times_h[known], recorded[known])
        return _between(times_h, recorded, given)
    pumps = answering(process)
    if pumps and times_h.size > 1:
        raise DataError(
            f"how much {pumps[0]} of {process.name} lets flow answers to what is in the vessel, so "
            "its volume follows from no set-points; a column volume_L with what was there at each "
            "sample is needed."
        )
    out = np.empty(times_h.size)
    out[0] = recorded[0] if np.isfinite(recorded[0]) else process.volume_L
    for t in range(1, times_h.size):
        rate = 0.0
        if process.streams:
            now = stream_flows(
                process, jnp.asarray(controls[t - 1]), float(out[t - 1] + given[t - 1])
            )
            rate = float(now.volume_rate())
        moved = rate * (times_h[t] - times_h[t - 1])
        out[t] = max(out[t - 1] + given[t - 1] + moved, 1e-9)
    return out


def _between(times_h: np.ndarray, recorded: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Recorded volumes, and between two samples those from after the first one's boluses on [L]."""
    k = np.flatnonzero(np.isfinite(recorded))
    first = np.clip(np.searchsorted(times_h[k], times_h, "right") - 1, 0, k.size - 1)
    last = np.minimum(first + 1, k.size - 1)
    start, length = times_h[k[first]], times_h[k[last]] - times_h[k[first]]
    share = np.where(length > 0.0, (times_h - start) / np.where(length > 0.0, length, 1.0), 0.0)
    after = recorded[k[first]] + given[k[first]]
    end = np.where(length > 0.0, recorded[k[last]], after)
    return np.where(np.isfinite(recorded), recorded, after + share * (end - after))


def clone_of(
    model: HybridStateSpaceModel, trajectory: Trajectory
) -> tuple[HybridStateSpaceModel, int]:
    """The model set to a run's clone, and the clone's index; -1 without an embedding.

    Raises:
        ConfigError: If the model holds clones, but not the run's.
    """
    if model.embedding is None:
        return model, -1
    index = model.embedding.index(trajectory.clone_id)
    return at_clone(model, jnp.asarray(index, float)), index
