"""A run of a described culture, forecast at the hours asked for."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, DataError, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.hybrid.assimilate import RunBeliefs, assimilate_run
from perfusio_jax.hybrid.belief import Belief
from perfusio_jax.hybrid.layout import VOLUME
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.observation import reported
from perfusio_jax.hybrid.paths import draw_paths
from perfusio_jax.hybrid.rollouts import rollout_states
from perfusio_jax.hybrid.runs import clone_of, volumes
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory, cuts, on_grid

_LENGTH = 32
"""Rows a run is padded to at least, so that a growing one shares its program."""


class Ahead(NamedTuple):
    """A forecast of readings, assay noise included."""

    names: tuple[str, ...]
    """What is forecast."""
    hours: Float[np.ndarray, " H"]
    """Times of the forecast since inoculation [h]."""
    mean: Float[np.ndarray, "H F"]
    """Mean."""
    q10: Float[np.ndarray, "H F"]
    """Ten per cent quantile."""
    q50: Float[np.ndarray, "H F"]
    """Median."""
    q90: Float[np.ndarray, "H F"]
    """Ninety per cent quantile."""
    q025: Float[np.ndarray, "H F"]
    """Quantile of 2.5 per cent."""
    q975: Float[np.ndarray, "H F"]
    """Quantile of 97.5 per cent."""


def forecast_ahead(
    model: HybridStateSpaceModel,
    run: Trajectory,
    hours: Sequence[float],
    set_points: Mapping[str, float] | Float[np.ndarray, "H M"] | None = None,
    *,
    n_samples: int = 256,
    n_particles: int = 128,
    seed: int = 0,
) -> Ahead:
    """Forecast a run from all its samples.

    Args:
        model: Model of a described culture.
        run: The run so far, of a clone the model knows if it knows several.
        hours: When, counted from the last sample [h]; rising.
        set_points: Controls that are another than in the last row, from the last sample on. A
            bolus is given once, at that sample. Or those of every interval between the hours, in
            the order of the process; a bolus is given at the start of its interval.
        n_samples: Paths.
        n_particles: Ensemble of the filter.
        seed: Random seed.

    Returns:
        The forecast.

    Raises:
        ConfigError: If a control or the run's clone is unknown, or the hours do not rise from
            above zero.
        DataError: If there is no sample, or a set-point is not known.
    """
    return forecast_over(
        [model], run, hours, set_points, n_samples=n_samples, n_particles=n_particles, seed=seed
    )


def forecast_over(
    models: Sequence[HybridStateSpaceModel],
    run: Trajectory,
    hours: Sequence[float],
    set_points: Mapping[str, float] | Float[np.ndarray, "H M"] | None = None,
    *,
    n_samples: int = 256,
    n_particles: int = 128,
    seed: int = 0,
) -> Ahead:
    """Forecast a run by several models, all of whose paths count alike.

    Args:
        models: Models of one described culture that differ in numbers, such as in constants drawn
            from a posterior.
        run: As in `forecast_ahead`.
        hours: As in `forecast_ahead`.
        set_points: As in `forecast_ahead`.
        n_samples: Paths of each model.
        n_particles: Ensemble of the filter.
        seed: Random seed.

    Returns:
        The forecast.

    Raises:
        ConfigError: As `forecast_ahead` does, or if there is no model.
        DataError: As `forecast_ahead` does.
    """
    if not models:
        raise ConfigError("no model was given to forecast with.")
    parts = [
        _paths(model, run, hours, set_points, (n_samples, n_particles), seed + k)
        for k, model in enumerate(models)
    ]
    readings = np.concatenate(parts)
    low, middle, high, least, most = np.quantile(readings, (0.1, 0.5, 0.9, 0.025, 0.975), axis=0)
    at = float(np.asarray(run.times_h)[-1]) + np.asarray(hours, float)
    mean = readings.mean(axis=0)
    return Ahead(models[0].layout.forecast, at, mean, low, middle, high, least, most)


def _paths(
    model: HybridStateSpaceModel,
    run: Trajectory,
    hours: Sequence[float],
    set_points: Mapping[str, float] | Float[np.ndarray, "H M"] | None,
    sizes: tuple[int, int],
    seed: int,
) -> Float[np.ndarray, "S H F"]:
    """Readings of paths at the hours asked for."""
    n_samples, n_particles = sizes
    process = model.layout.process
    if process is None:
        raise ConfigError("this model is of CHO perfusion; forecast it with forecast_run.")
    if run.n_days == 0:
        raise DataError(f"run '{run.run_id}' holds no sample: there is nothing to forecast from.")
    ahead = np.asarray(hours, float)
    if ahead.size == 0 or ahead[0] <= 0.0 or np.any(np.diff(ahead) <= 0.0):
        raise ConfigError(f"hours {list(hours)}: they rise, and the first is above zero.")
    step_h = float(model.dt_hours)
    if set_points is None or isinstance(set_points, Mapping):
        set_to = _held(process, _now(run, process, set_points or {}), ahead.size)
    else:
        set_to = _rows(np.asarray(set_points, float), process, ahead.size)
    for_filter, for_paths, for_start = jax.random.split(jax.random.key(seed), 3)
    model, belief, _ = last_belief(model, run, key=for_filter, n_particles=n_particles)
    start = belief.sample(n_samples, key=for_start)
    edges = np.diff(np.append(0.0, ahead))
    parts = cuts(edges, step_h)
    dt = np.repeat(edges / parts, parts)
    table = _given(process, set_to, parts)
    plan = _with_volume(model, table, float(np.asarray(run.volume_L)[-1]), dt)
    rows = np.cumsum(parts) - 1
    return np.asarray(
        _readings(model, start, jnp.asarray(plan), belief.day, for_paths, jnp.asarray(dt))
    )[:, rows]


def last_belief(
    model: HybridStateSpaceModel, run: Trajectory, *, key: Key, n_particles: int = 128
) -> tuple[HybridStateSpaceModel, Belief, RunBeliefs]:
    """What is known of a described culture after its last sample.

    Args:
        model: Model of a described culture.
        run: The run so far, of a clone the model knows if it knows several.
        key: Random key.
        n_particles: Ensemble of the filter.

    Returns:
        The model set to the run's clone; the belief; and those of all rows, samples and rows put in
        between samples that lie far apart, padded.

    Raises:
        ConfigError: If the run's clone is unknown.
        DataError: If a set-point is not known.
    """
    process = model.layout.process
    boluses = () if process is None else process.boluses
    gridded = on_grid(run, float(model.dt_hours), once=boluses)
    length = rows_for(gridded.n_days)
    model, _ = clone_of(model, run)
    beliefs = assimilate_run(model, gridded, key=key, n_particles=n_particles, length=length)
    return model, beliefs.belief(gridded.n_days - 1), beliefs


def rows_for(n: int) -> int:
    """Rows that a run of `n` is padded to, so that a growing one shares its program."""
    length = _LENGTH
    while length < n:
        length *= 2
    return length


@compiled
def _readings(
    model: HybridStateSpaceModel,
    start: Float[Array, "S K"],
    plan: Float[Array, "H M"],
    day: Array,
    key: Array,
    dt_h: Float[Array, " H"],
) -> Float[Array, "S H F"]:
    compiling("the forecast")
    paths = draw_paths(model, start.shape[0], key=key, max_steps=plan.shape[0])
    states, _ = rollout_states(model, paths, start, plan, day, dt_h=dt_h)
    return reported(model, states, paths.assay[:, : states.shape[1]])


def _now(run: Trajectory, process: Process, changes: Mapping[str, float]) -> dict[str, float]:
    """Set-points from the last sample on."""
    for name in changes:
        process.control(name)  # refuses a name it does not know
    last = np.asarray(run.controls, float)[-1]
    now: dict[str, float] = {}
    unknown = []
    for control in process.controls:
        column = run.control_names.index(control.name) if control.name in run.control_names else -1
        value = last[column] if column >= 0 else np.nan
        value = changes.get(control.name, value)
        if not np.isfinite(value) and control.role == "bolus":
            value = 0.0
        if not np.isfinite(value):
            unknown.append(control.name)
        now[control.name] = float(value)
    if unknown:
        raise DataError(
            f"the last sample does not tell {', '.join(unknown)}; set_points (--set name=value) "
            "says what acts from it on."
        )
    return now


def _rows(table: np.ndarray, process: Process, n: int) -> np.ndarray:
    """Set-points of every interval, checked."""
    if table.shape != (n, len(process.controls)) or not np.isfinite(table).all():
        raise ConfigError(
            f"set_points of shape {table.shape} with {int((~np.isfinite(table)).sum())} entries "
            f"that are not finite; one row for each of {n} hours is needed, with "
            f"{', '.join(process.control_names) or 'no control'}."
        )
    return table


def _held(process: Process, now: Mapping[str, float], n: int) -> np.ndarray:
    """Set-points of every interval: boluses in the first one only."""
    table = np.tile([now[c.name] for c in process.controls], (n, 1))
    for j, control in enumerate(process.controls):
        if control.role == "bolus":
            table[1:, j] = 0.0
    return table


def _given(process: Process, rows: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Control columns of every part of every interval: boluses in the first part only."""
    table = np.repeat(rows, parts, axis=0)
    begins = np.cumsum(parts) - parts
    is_first = np.isin(np.arange(len(table)), begins)
    for j, control in enumerate(process.controls):
        if control.role == "bolus":
            table[~is_first, j] = 0.0
    return table


def _with_volume(
    model: HybridStateSpaceModel,
    table: np.ndarray,
    volume_L: float,
    dt_h: np.ndarray,
) -> np.ndarray:
    """Control columns of every step with the volume behind them, where it moves."""
    if VOLUME not in model.layout.controls:
        return table
    if model.mech_model.tracks_volume:  # the roll-out knows it, path by path
        return np.concatenate([table, np.full((dt_h.size, 1), volume_L)], axis=1)
    recorded = np.full(dt_h.size, np.nan)
    recorded[0] = volume_L
    times = np.append(0.0, np.cumsum(dt_h)[:-1])
    return np.concatenate([table, volumes(model.layout, table, recorded, times)[:, None]], axis=1)
