"""Online tags between daily assays: capacitance, a Raman probe, an off-gas signal.

A probe reads a known linear map of the reported species, with its own noise, as often as it
likes. Between two samples the belief is carried forward to the time of the reading, updated,
and goes on from there; the assay does the same when it comes. Gains are fitted to readings
taken at the time of assays.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    STATE_ORDER,
    ConfigError,
    DataError,
    Key,
)
from perfusio_jax.hybrid.assimilate import Belief, FilterInfo, ensemble_update, filter_step
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.observation import forecast_report

_N = len(STATE_ORDER)


def _leaf(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class OnlineSensors(eqx.Module):
    """What probes show of the reported species: `reading = species @ gain.T + offset`."""

    gain: Float[Array, "m 12"] = eqx.field(converter=_leaf)
    """Reading per unit of each of `FORECAST_SPECIES` [tag unit / species unit]."""
    offset: Float[Array, " m"] = eqx.field(converter=_leaf)
    """Reading when nothing is there [tag unit]."""
    sd: Float[Array, " m"] = eqx.field(converter=_leaf)
    """Standard deviation of a reading [tag unit]."""
    names: tuple[str, ...] = eqx.field(static=True)
    """Tags, in the order of the rows."""

    def __check_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        m = len(self.names)
        shapes = (self.gain.shape, self.offset.shape, self.sd.shape)
        if shapes != ((m, len(FORECAST_SPECIES)), (m,), (m,)):
            raise ConfigError(
                f"{m} sensors {self.names} with gain, offset and sd of shapes {shapes}; needed "
                f"are ({m}, {len(FORECAST_SPECIES)}), ({m},) and ({m},)."
            )

    def predict(self, species: Float[Array, "... 12"]) -> Float[Array, "... m"]:
        """Readings expected of species."""
        return species @ self.gain.T + self.offset.reshape((1,) * (species.ndim - 1) + (-1,))


class SensorFit(NamedTuple):
    """How well a probe follows its species."""

    r_squared: Float[np.ndarray, " m"]
    """Explained share of the variance [-]."""
    n_pairs: np.ndarray
    """Pairs of reading and assay per tag."""


def fit_sensors(
    species: Float[ArrayLike, "N 12"],
    readings: Float[ArrayLike, "N m"],
    names: tuple[str, ...],
    *,
    follows: tuple[str, ...],
) -> tuple[OnlineSensors, SensorFit]:
    """Gain, offset and noise of probes that each follow one species.

    Args:
        species: Assays in `FORECAST_SPECIES`; NaN where missing.
        readings: Probe readings at the same times; NaN where missing.
        names: Tags, one per column of the readings.
        follows: Species each probe follows.

    Returns:
        Sensors, and how well they fit. The noise includes the assay's own, so it errs wide.

    Raises:
        ConfigError: If a species is unknown.
        DataError: If a tag has fewer than three pairs, or its species never varied.
    """
    unknown = [s for s in follows if s not in FORECAST_SPECIES]
    if unknown or len(follows) != len(names):
        raise ConfigError(
            f"sensors {names} follow {follows}; each needs one of {FORECAST_SPECIES}."
        )
    table, values = np.asarray(species, float), np.asarray(readings, float)
    if values.shape != (table.shape[0], len(names)):
        raise DataError(
            f"readings of shape {values.shape} for {len(names)} tags and {table.shape[0]} samples."
        )
    gain = np.zeros((len(names), len(FORECAST_SPECIES)))
    offset, sd, share, pairs = (np.zeros(len(names)) for _ in range(4))
    for i, (tag, name) in enumerate(zip(names, follows, strict=True)):
        column = FORECAST_SPECIES.index(name)
        x, y = table[:, column], values[:, i]
        seen = np.isfinite(x) & np.isfinite(y)
        x, y = x[seen], y[seen]
        if x.size < 3 or np.ptp(x) <= 0.0:
            raise DataError(
                f"tag '{tag}' and species '{name}' were seen together {x.size} times; at least "
                "three different pairs are needed."
            )
        slope, level = np.polyfit(x, y, 1)
        rest = y - slope * x - level
        gain[i, column], offset[i], pairs[i] = slope, level, x.size
        sd[i] = max(np.sqrt(np.sum(rest**2) / max(x.size - 2, 1)), 1e-9 * np.abs(y).max())
        share[i] = 1.0 - np.sum(rest**2) / max(np.sum((y - y.mean()) ** 2), 1e-300)
    return OnlineSensors(gain, offset, sd, tuple(names)), SensorFit(share, pairs.astype(int))


@eqx.filter_jit
def observe_online(
    model: HybridStateSpaceModel,
    belief: Belief,
    sensors: OnlineSensors,
    readings: Float[Array, " m"],
) -> tuple[Belief, FilterInfo]:
    """Update a belief with probe readings taken now.

    Args:
        model: Hybrid model.
        belief: Belief at the time of the readings.
        sensors: What the probes show.
        readings: One per sensor; NaN where there is none.

    Returns:
        Belief after the readings, and diagnostics per sensor.
    """
    members = model.latent.forward(belief.particles)
    species = forecast_report(belief.particles, model.diam_base, model.diam_death_coeff)
    updated, info = ensemble_update(members, sensors.predict(species), readings, sensors.sd)
    return Belief(model.latent.inverse(updated), belief.day), info


def advance_online(
    model: HybridStateSpaceModel,
    belief: Belief,
    u: Float[ArrayLike, " 6"],
    hours: Float[ArrayLike, " K"],
    readings: Float[ArrayLike, "K m"],
    *,
    sensors: OnlineSensors,
    key: Key,
) -> tuple[Belief, list[FilterInfo]]:
    """Carry a belief through the readings of a day.

    Unexplained variation is white in the rates, so over a part of a day its standard
    deviation is larger by the square root of the parts; what the process does not know of
    the function stays the same all day.

    Args:
        model: Hybrid model.
        belief: Belief at the last sample.
        u: Set-points in force.
        hours: Times of the readings since that sample, increasing [h].
        readings: One row per time; NaN where a probe is silent.
        sensors: What the probes show.
        key: Random key.

    Returns:
        Belief at the last reading, and diagnostics per time.

    Raises:
        DataError: If times do not increase or shapes do not fit.
    """
    times, table = np.asarray(hours, float), np.asarray(readings, float)
    if times.ndim != 1 or table.shape != (times.size, len(sensors.names)):
        raise DataError(
            f"{times.size} times and readings of shape {table.shape}; needed is one row per time "
            f"and {len(sensors.names)} columns {sensors.names}."
        )
    gaps = np.diff(np.concatenate([[0.0], times]))
    if np.any(gaps <= 0.0):
        raise DataError(f"times of online readings must increase from above 0; given {times}.")
    control = jnp.asarray(u, float)
    if control.shape != (len(CONTROL_NAMES),):
        raise DataError(f"set-points of shape {control.shape}; needed are {CONTROL_NAMES}.")
    nothing = jnp.full(_N, jnp.nan)
    infos = []
    for gap, row, k in zip(gaps, table, jax.random.split(key, gaps.size), strict=True):
        share = jnp.sqrt(HOURS_PER_DAY / jnp.asarray(gap))
        finer = eqx.tree_at(lambda m: m.process_sd, model, model.process_sd * share)
        belief, _ = filter_step(finer, belief, control, None, nothing, gap, key=k)
        belief, info = observe_online(model, belief, sensors, jnp.asarray(row))
        infos.append(info)
    return belief, infos
