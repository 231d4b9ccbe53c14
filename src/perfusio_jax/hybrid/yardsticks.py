"""Forecasts that cost nothing, which a model has to beat, and errors in per cent."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax.hybrid.evaluate import pick, spread_of
from perfusio_jax.hybrid.folds import Validation

LARGEST_FACTOR = 10.0
"""By which an exponential trend may change what was read last [-]."""


class Yardsticks(NamedTuple):
    """Errors beside which those of a model are held, over the same readings."""

    nothing_changes: Float[np.ndarray, "H F"]
    """If nothing changed since the last reading, over the spread of the readings [-]."""
    trend: Float[np.ndarray, "H F"]
    """By the trend of the last two readings, over the same spread [-]."""
    wape: Float[np.ndarray, "H F"]
    """Weighted absolute percentage error of the model itself: the sum of its absolute errors over
    that of the readings [-]."""


def yardsticks_of(found: Validation) -> Yardsticks:
    """Errors of the simple forecasts, and the model's in per cent.

    Args:
        found: Forecasts of runs left out.

    Returns:
        NaN where nothing was read.
    """
    about = pick(found.forecasts, found.readings)
    spread = spread_of(found.readings)
    guesses = (nothing_changes(found), trend(found))
    naive, simple = (np.sqrt(_mean((g - about) ** 2)) / spread for g in guesses)
    return Yardsticks(naive, simple, absolute_percentage(found))


def nothing_changes(found: Validation) -> Float[np.ndarray, "R D 1 F"]:
    """What was read last when each forecast started; NaN where nothing was."""
    rows = np.arange(found.readings.shape[0])[:, None]
    last = _last_seen(found.readings)[rows, np.asarray(found.forecasts.start)]
    return last[:, :, None, :]


def trend(found: Validation) -> Float[np.ndarray, "R D H F"]:
    """The trend of the last two readings, taken on to the hour of each forecast.

    It is exponential where both are above zero, and then changes nothing by more than
    `LARGEST_FACTOR`; else linear. It does not fall below zero where neither reading does. With one
    reading so far nothing changes.

    Args:
        found: Forecasts of runs left out.

    Returns:
        NaN where nothing was read.
    """
    value, time = _last_two(found.readings, found.times_h)
    start = np.asarray(found.forecasts.start)
    rows = np.arange(start.shape[0])[:, None]
    new, old = (value[k][rows, start][:, :, None, :] for k in (0, 1))
    at, before = (time[k][rows, start][:, :, None, :] for k in (0, 1))
    # times run on from the sample that a forecast starts from, readings may be older
    due = found.times_h[rows, start][:, :, None] + np.asarray(found.forecasts.hours)
    share = (due[..., None] - at) / (at - before)
    is_positive = (new > 0.0) & (old > 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(is_positive, new / np.where(is_positive, old, 1.0), 1.0)
        bound = np.log(LARGEST_FACTOR)
        grown = new * np.exp(np.clip(np.log(ratio) * share, -bound, bound))
        straight = new + (new - old) * share
    straight = np.where((new >= 0.0) & (old >= 0.0), np.maximum(straight, 0.0), straight)
    moved = np.where(is_positive, grown, straight)
    return np.where(np.isfinite(old), moved, new)


def absolute_percentage(found: Validation) -> Float[np.ndarray, "H F"]:
    """Weighted absolute percentage error of the model itself [-]."""
    about = pick(found.forecasts, found.readings)
    return weighted_percentage(np.asarray(found.forecasts.mean), about)


def weighted_percentage(
    forecast: Float[np.ndarray, "R D H F"], about: Float[np.ndarray, "R D H F"]
) -> Float[np.ndarray, "H F"]:
    """Sum of the absolute errors over that of the absolute readings [-].

    Args:
        forecast: Of the readings; NaN where there is none.
        about: Readings; NaN where nothing was read.

    Returns:
        NaN where nothing was read.
    """
    seen = np.isfinite(about) & np.isfinite(forecast)
    error = np.where(seen, np.abs(forecast - about), 0.0)
    size = np.where(seen, np.abs(about), 0.0)
    total = size.sum(axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0.0, error.sum(axis=(0, 1)) / total, np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over runs and starts of what is there."""
    seen = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(seen, values, 0.0).sum(axis=(0, 1)) / seen.sum(axis=(0, 1))


def _last_seen(readings: np.ndarray) -> np.ndarray:
    out = readings.copy()
    for t in range(1, out.shape[1]):
        out[:, t] = np.where(np.isnan(out[:, t]), out[:, t - 1], out[:, t])
    return out


def _last_two(
    readings: np.ndarray, times_h: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Last reading and the one before it at every row, with their times; NaN where none is."""
    shape = readings.shape
    new, old, at, before = (np.full(shape, np.nan) for _ in range(4))
    now = [np.full((shape[0], shape[2]), np.nan) for _ in range(4)]
    for t in range(shape[1]):
        seen = np.isfinite(readings[:, t])
        hour = np.broadcast_to(times_h[:, t, None], seen.shape)
        now = [
            np.where(seen, readings[:, t], now[0]),
            np.where(seen, now[0], now[1]),
            np.where(seen, hour, now[2]),
            np.where(seen, now[2], now[3]),
        ]
        new[:, t], old[:, t], at[:, t], before[:, t] = now
    return (new, old), (at, before)
