"""Which forecast each reading is judged by: by time, never by row.

A forecast from a sample goes on day by day, as a forecast of a running reactor does, or in steps
of some hours where samples are hours apart. Where a sample lies near a whole number of steps later,
the step ends at that sample's own time, so that the forecast is for the hour of the reading; a day
without a sample (a weekend) is a step without a counterpart. A model that learned from samples
closer than these steps takes each of them in equal parts of about its own interval, for which its
process was learned.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from perfusio_jax._core import HOURS_PER_DAY, ConfigError

TOLERANCE_H = 6.0
"""How far [h] a sample may lie from a whole number of days ahead and count for that day."""


def tolerance_of(step_h: float) -> float:
    """How far a sample may lie from a whole number of steps ahead and count for that step [h].

    Args:
        step_h: Length of the steps [h].
    """
    return step_h * (TOLERANCE_H / HOURS_PER_DAY)


class Pairs(NamedTuple):
    """Steps of the forecasts of R runs from D samples each, and what each step is judged by."""

    dt_h: Float[np.ndarray, "R D HP"]
    """Length of each step of the roll-out [h]; P of them make one of the H."""
    controls: Float[np.ndarray, "R D HP 6"]
    """Set-points over each step: those that acted, weighted with the hours they did."""
    target: Int[np.ndarray, "R D H"]
    """Row of the sample at the end of each step; T, one beyond the last, where there is none."""
    is_inside: Bool[np.ndarray, "R D H"]
    """Whether that sample is part of the run."""

    @property
    def hours(self) -> Float[np.ndarray, "R D H"]:
        """Time ahead at the end of each step [h]."""
        parts = self.dt_h.shape[-1] // self.target.shape[-1]
        return np.cumsum(self.dt_h, axis=-1)[..., parts - 1 :: parts]


def pair_by_time(
    times_h: Float[np.ndarray, "R T"],
    controls: Float[np.ndarray, "R T 6"],
    mask: Bool[np.ndarray, "R T"],
    *,
    starts: tuple[int, ...],
    horizon: int,
    tolerance_h: float | None = None,
    parts: int = 1,
    step_h: float = HOURS_PER_DAY,
) -> Pairs:
    """Steps of a day, or of some hours, from each start, ended at samples where there are any.

    Args:
        times_h: Sample times [h].
        controls: Set-points from each sample on.
        mask: Rows that are part of the run.
        starts: Rows after whose sample a forecast starts.
        horizon: Steps ahead; days where a step is one.
        tolerance_h: How far a sample may lie from the step it counts for [h]; a quarter of a step
            by default.
        parts: Equal steps of the roll-out that make each of these steps; see `parts_of`.
        step_h: Length of a step [h].

    Returns:
        Steps and their counterparts.

    Raises:
        ConfigError: If a step has no length, or the tolerance is not 0 to below half of it: steps
            would share samples.
    """
    if not 0.0 < step_h < float("inf"):
        raise ConfigError(f"step_h={step_h!r}; a step is some hours long, above 0.")
    tolerance_h = tolerance_of(step_h) if tolerance_h is None else tolerance_h
    if not 0.0 <= tolerance_h < 0.5 * step_h:
        raise ConfigError(
            f"tolerance_h={tolerance_h!r}; allowed are 0 to below {0.5 * step_h:g} h, half a step."
        )
    rows, ahead = np.asarray(starts), step_h * np.arange(1, horizon + 1)
    found = [
        _pair(t, u, m, rows, ahead, tolerance_h, parts)
        for t, u, m in zip(times_h, controls, mask, strict=True)
    ]
    return Pairs(*(np.stack(column) for column in zip(*found, strict=True)))


def _pair(
    times: np.ndarray,
    controls: np.ndarray,
    mask: np.ndarray,
    rows: np.ndarray,
    ahead: np.ndarray,
    tolerance: float,
    parts: int,
) -> Pairs:
    begin = times[rows][:, None]
    due = begin + ahead
    apart = np.abs(times - due[:, :, None])
    nearest = np.argmin(apart, axis=-1)
    is_near = np.take_along_axis(apart, nearest[..., None], -1)[..., 0] <= tolerance
    is_inside = is_near & mask[nearest]
    ends = np.where(is_inside, times[nearest], due)
    edges = np.concatenate([begin, ends], axis=1)
    if parts > 1:
        share = np.arange(1, parts + 1) / parts
        inner = edges[:, :-1, None] + np.diff(edges, axis=1)[:, :, None] * share
        edges = np.concatenate([begin, inner.reshape(rows.size, -1)], axis=1)
    # what acted in a step: the set-points of each interval, by the hours it shares with it
    until = np.append(times[1:], np.inf)
    low, high = edges[:, :-1, None], edges[:, 1:, None]
    shared = np.maximum(np.minimum(high, until) - np.maximum(low, times), 0.0)
    weight = shared / shared.sum(axis=-1, keepdims=True)
    target = np.where(is_near, nearest, times.size)
    return Pairs(np.diff(edges, axis=1), weight @ controls, target, is_inside)
