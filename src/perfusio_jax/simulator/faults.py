"""Faults of sensors and of sample handling, injected into recorded readings.

Each fault is a pure map on an array of readings, of one reactor `(T, K)` or of a rack
`(R, T, K)`; rows are samples, columns species. Faults compose in the order given.
"""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import ConfigError, Scalar


def _leaf(value: float | Array) -> Array:
    return jnp.asarray(value, float)


def _check(name: str, index: int | None, size: int) -> None:
    if index is not None and not 0 <= index < size:
        raise ConfigError(f"{name}={index} is outside 0..{size - 1}, the readings' size.")


class Fault(eqx.Module):
    """Something that goes wrong with readings."""

    @abc.abstractmethod
    def __call__(self, readings: Float[Array, "*R T K"]) -> Float[Array, "*R T K"]:
        """Readings with the fault in them; NaN stays NaN."""


def _mask(
    shape: tuple[int, ...], column: int, rows: tuple[int, int | None], reactor: int | None
) -> Bool[Array, "*R T K"]:
    """True for the readings of one column, from the first row up to but not the last."""
    if len(shape) not in (2, 3):
        raise ConfigError(f"readings must have shape (T, K) or (R, T, K), given {shape}.")
    n_rows, n_columns = shape[-2:]
    _check("column", column, n_columns)
    _check("start", rows[0], n_rows)
    if reactor is not None and len(shape) == 2:
        raise ConfigError(f"reactor={reactor} was given, but the readings are of one reactor.")
    stop = n_rows if rows[1] is None else rows[1]
    if stop <= rows[0]:
        raise ConfigError(f"stop={stop} must come after start={rows[0]}.")
    row = jnp.arange(n_rows)
    mask = ((row >= rows[0]) & (row < stop))[:, None] & (jnp.arange(n_columns) == column)[None, :]
    if len(shape) == 2:
        return mask
    _check("reactor", reactor, shape[0])
    is_hit = jnp.ones(shape[0], bool) if reactor is None else jnp.arange(shape[0]) == reactor
    return is_hit[:, None, None] & mask[None, :, :]


class Drift(Fault):
    """A sensor that slowly loses its calibration."""

    column: int = eqx.field(static=True)
    """Species column."""
    rate: Scalar = eqx.field(converter=_leaf)
    """Change per sample: relative [-], or absolute in the species' unit."""
    start: int = eqx.field(static=True, default=0)
    """First sample with the fault; the drift is one `rate` there."""
    stop: int | None = eqx.field(static=True, default=None)
    """First sample without it; None for the end."""
    is_relative: bool = eqx.field(static=True, default=True)
    """Whether `rate` is a share of the reading."""
    reactor: int | None = eqx.field(static=True, default=None)
    """Reactor of a rack; None for all."""

    def __call__(self, readings: Float[Array, "*R T K"]) -> Float[Array, "*R T K"]:
        """Readings with the drift."""
        mask = _mask(readings.shape, self.column, (self.start, self.stop), self.reactor)
        age = jnp.arange(1 - self.start, readings.shape[-2] + 1 - self.start, dtype=readings.dtype)
        error = jnp.where(mask, age[:, None] if readings.ndim == 2 else age[None, :, None], 0.0)
        error = error * self.rate.astype(readings.dtype)
        return readings * (1.0 + error) if self.is_relative else readings + error


class StuckSensor(Fault):
    """A sensor that repeats its last good reading."""

    column: int = eqx.field(static=True)
    """Species column."""
    start: int = eqx.field(static=True)
    """Sample whose reading is repeated (or the last one before it that exists)."""
    stop: int | None = eqx.field(static=True, default=None)
    """First sample without the fault; None for the end."""
    reactor: int | None = eqx.field(static=True, default=None)
    """Reactor of a rack; None for all."""

    def __call__(self, readings: Float[Array, "*R T K"]) -> Float[Array, "*R T K"]:
        """Readings with the value held, also where a reading was missing."""
        mask = _mask(readings.shape, self.column, (self.start, self.stop), self.reactor)
        series = readings[..., self.column]
        row = jnp.arange(series.shape[-1])
        usable = ~jnp.isnan(series) & _rows(row <= self.start, series.ndim)
        at = jnp.max(jnp.where(usable, _rows(row, series.ndim), 0), axis=-1, keepdims=True)
        held = jnp.take_along_axis(series, at, axis=-1)
        return jnp.where(mask, held[..., None], readings)


def _rows(row: Array, ndim: int) -> Array:
    return row.reshape((1,) * (ndim - 1) + row.shape)


class Spike(Fault):
    """One reading that is far off."""

    column: int = eqx.field(static=True)
    """Species column."""
    at: int = eqx.field(static=True)
    """Sample with the fault."""
    factor: Scalar = eqx.field(converter=_leaf, default=3.0)
    """What the reading is multiplied with [-]."""
    reactor: int | None = eqx.field(static=True, default=None)
    """Reactor of a rack; None for all."""

    def __call__(self, readings: Float[Array, "*R T K"]) -> Float[Array, "*R T K"]:
        """Readings with the spike."""
        mask = _mask(readings.shape, self.column, (self.at, self.at + 1), self.reactor)
        return jnp.where(mask, self.factor.astype(readings.dtype) * readings, readings)


class SwappedReactors(Fault):
    """Two reactors whose samples were mixed up: whole rows change places."""

    first: int = eqx.field(static=True)
    """One reactor of the rack."""
    second: int = eqx.field(static=True)
    """The other one."""
    start: int = eqx.field(static=True, default=0)
    """First sample with the fault."""
    stop: int | None = eqx.field(static=True, default=None)
    """First sample without it; None for the end."""

    def __call__(self, readings: Float[Array, "R T K"]) -> Float[Array, "R T K"]:
        """Readings of the rack with the swap."""
        if readings.ndim != 3:
            raise ConfigError(
                f"a swap needs a rack of shape (R, T, K); the readings have {readings.shape}."
            )
        _check("first", self.first, readings.shape[0])
        _check("second", self.second, readings.shape[0])
        _check("start", self.start, readings.shape[1])
        stop = readings.shape[1] if self.stop is None else self.stop
        if self.first == self.second or stop <= self.start:
            raise ConfigError(
                f"a swap needs two reactors and stop > start; given reactors {self.first}, "
                f"{self.second} and samples {self.start}..{stop}."
            )
        order = list(range(readings.shape[0]))
        order[self.first], order[self.second] = self.second, self.first
        row = jnp.arange(readings.shape[1])
        is_hit = ((row >= self.start) & (row < stop))[None, :, None]
        return jnp.where(is_hit, readings[jnp.asarray(order)], readings)


def apply_faults(
    readings: Float[Array, "*R T K"], faults: Sequence[Fault]
) -> Float[Array, "*R T K"]:
    """Readings with all faults, one after the other.

    Args:
        readings: Of one reactor (T, K) or of a rack (R, T, K), in the units of the species; NaN
            where missing.
        faults: In the order in which they happen: each meets what the ones before left.

    Raises:
        ConfigError: (a ValueError) if a fault names a column, sample or reactor that the
            readings do not have.
    """
    result = jnp.asarray(readings)
    for fault in faults:
        result = fault(result)
    return result
