"""Online tags between daily assays: capacitance, a Raman probe, an off-gas signal.

A probe reads a known linear map of the reported species, with its own noise, as often as it
likes. Between two samples each reading is forecast from the last sample, and updates what is
believed of that sample and of the interval's rates. Gains are fitted to readings taken at the
time of assays.
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
from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid.belief import Belief, OpenInterval
from perfusio_jax.hybrid.disturbance import mean_residual, process_sd_over
from perfusio_jax.hybrid.ensemble import FilterInfo, centred_noise, ensemble_update
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.observation import forecast_report
from perfusio_jax.hybrid.step import step_batch
from perfusio_jax.hybrid.transition import StepInfo

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


@compiled
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
        Belief after the readings, and diagnostics per sensor. In an interval that readings carried
        it into, they also tell of its start and its rates.
    """
    interval = belief.interval
    parts = [model.latent.forward(belief.particles)]
    if interval is not None:
        parts += _members(model, interval)
    species = forecast_report(belief.particles, model.diam_base, model.diam_death_coeff)
    updated, info = ensemble_update(
        jnp.concatenate(parts, axis=1), sensors.predict(species), readings, sensors.sd
    )
    if interval is not None:
        interval = _with_members(model, interval, updated[:, _N:])
    return Belief(model.latent.inverse(updated[:, :_N]), belief.day, interval), info


def _members(model: HybridStateSpaceModel, interval: OpenInterval) -> list[Array]:
    """What is uncertain of an interval, in the filter's space: start, function, process."""
    return [model.latent.forward(interval.particles), interval.function, interval.process]


def _with_members(
    model: HybridStateSpaceModel, interval: OpenInterval, members: Array
) -> OpenInterval:
    start, function, process = jnp.split(members, 3, axis=1)
    return eqx.tree_at(
        lambda i: (i.particles, i.function, i.process),
        interval,
        (model.latent.inverse(start), function, process),
    )


def _at(
    model: HybridStateSpaceModel, interval: OpenInterval, hours: Array
) -> tuple[Array, StepInfo]:
    """States some hours into an interval: one step from its start, whatever lies between."""
    size = interval.particles.shape[0]
    many = jnp.broadcast_to(interval.controls[None, :], (size, interval.controls.shape[0]))

    def residual(inputs: Array) -> Array:
        return mean_residual(model, inputs) + interval.function + interval.process

    states, _, step = step_batch(model, interval.particles, many, interval.day, residual, hours)
    return states, step


@compiled
def _read(
    model: HybridStateSpaceModel,
    interval: OpenInterval,
    span: tuple[Array, Array],
    sensors: OnlineSensors,
    readings: Array,
    key: Key,
) -> tuple[OpenInterval, FilterInfo]:
    """One time of readings: the process goes on to it, and all that is uncertain is updated."""
    before, now = span
    more = centred_noise(key, interval.process.shape) * process_sd_over(model, now - before)[None]
    process = (before * interval.process + (now - before) * more) / now
    interval = eqx.tree_at(lambda i: i.process, interval, process)
    states, step = _at(model, interval, now)
    species = forecast_report(states, model.diam_base, model.diam_death_coeff)
    members = jnp.concatenate(_members(model, interval), axis=1)
    updated, info = ensemble_update(members, sensors.predict(species), readings, sensors.sd)
    limited = jnp.mean((step.residual | step.floor | step.cells[:, None]).astype(float))
    return _with_members(model, interval, updated), info._replace(limited=limited)


@compiled
def _arrived(model: HybridStateSpaceModel, interval: OpenInterval, hours: Array) -> Belief:
    states, _ = _at(model, interval, hours)
    return Belief(states, interval.day + hours / HOURS_PER_DAY, interval)


def _opened(
    model: HybridStateSpaceModel, belief: Belief, control: Array, key: Key
) -> tuple[OpenInterval, float]:
    """The interval a belief is in, and how far [h]; a new one after a sample or new set-points."""
    old = belief.interval
    if old is not None and np.array_equal(np.asarray(old.controls), np.asarray(control)):
        return old, float((belief.day - old.day) * HOURS_PER_DAY)
    shape = belief.particles.shape
    # new set-points do not change what is not known of the function
    function = centred_noise(key, shape) * model.function_sd[None] if old is None else old.function
    fresh = OpenInterval(belief.particles, belief.day, control, function, jnp.zeros(shape))
    return fresh, 0.0


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

    The state at each reading is one step of the model from the last sample, so that silent
    readings change nothing, however many there are. What is not known of the residual function
    is the same all along and drawn once; unexplained variation is white in the rates, so that
    its mean over a part of a step is the more uncertain, the shorter the part. Readings tell of
    both, and of the state at the sample.

    Args:
        model: Hybrid model.
        belief: Belief at the last sample, or what an earlier call returned.
        u: Set-points in force.
        hours: Times of the readings since that belief, increasing [h].
        readings: One row per time; NaN where a probe is silent.
        sensors: What the probes show.
        key: Random key; the same one draws the same for the first readings when more have come.

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
    if not np.all(np.diff(np.concatenate([[0.0], times])) > 0.0):
        raise DataError(f"times of online readings must increase from above 0; given {times}.")
    control = jnp.asarray(u, float)
    if control.shape != (len(CONTROL_NAMES),):
        raise DataError(f"set-points of shape {control.shape}; needed are {CONTROL_NAMES}.")
    if times.size == 0:
        return belief, []
    for_function, for_process = jax.random.split(key)
    interval, gone = _opened(model, belief, control, for_function)
    spans = np.concatenate([[gone], gone + times])
    infos = []
    for k, row in enumerate(table):
        span = (jnp.asarray(spans[k]), jnp.asarray(spans[k + 1]))
        fresh = jax.random.fold_in(for_process, k)
        interval, info = _read(model, interval, span, sensors, jnp.asarray(row), fresh)
        infos.append(info)
    return _arrived(model, interval, jnp.asarray(spans[-1])), infos
