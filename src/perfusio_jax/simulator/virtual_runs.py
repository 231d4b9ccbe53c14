"""Runs of a virtual plant, as somebody would have measured them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import (
    HOURS_PER_DAY,
    STREAM_TOTALS,
    ConfigError,
    Key,
    Result,
    SimulationError,
    summarise,
)
from perfusio_jax._core.programs import compiled
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory

from .noise import apply_noise
from .pumping import check_pumps
from .virtual_plant import Course, VirtualPlant, run_plant

COLLAPSED = (
    "A step size that collapses is most often a mechanism that takes up what is gone: let each "
    "uptake go to zero with its quantity, as S / (K + S) does. Or the vessel ran empty."
)
"""What is told beside STEP_TOO_SMALL of a described culture."""


def readings_of_states(
    process: Process, states: Sequence[str], values: Float[Array, "*b n"]
) -> Float[Array, "*b R"]:
    """What assays without noise read.

    Args:
        process: The culture.
        states: Names of the columns.
        values: Concentrations and levels.

    Returns:
        Columns in the order of `process.readings`; NaN for what nobody says how to derive.
    """
    place = {name: i for i, name in enumerate(states)}
    columns = []
    for q in process.quantities:
        if not q.is_measured:
            continue
        if q.formula == "viability":
            alive, dead = (values[..., place[name]] for name in q.of)
            total = alive + dead
            is_there = total > 0.0
            share = 100.0 * alive / jnp.where(is_there, total, 1.0)
            columns.append(jnp.where(is_there, share, jnp.nan))
        elif q.name in place:
            columns.append(values[..., place[q.name]])
        else:
            columns.append(jnp.full(values.shape[:-1], jnp.nan))
    return jnp.stack(columns, axis=-1)


def with_noise(
    process: Process, readings: Float[Array, "*b R"], *, key: Key
) -> Float[Array, "*b R"]:
    """Noisy readings, by `cv` and `floor` of every quantity.

    A concentration has a lognormal factor of mean one, and the floor on top; it is never read below
    zero. A level is normal. A viability is a beta draw, as if cells had been counted; see `noise`.

    Args:
        process: The culture.
        readings: True values, in the order of `process.readings`.
        key: Random key.
    """
    factor, added, counted = jax.random.split(key, 3)
    measured = [q for q in process.quantities if q.is_measured]
    cv = jnp.asarray([q.cv for q in measured], readings.dtype)
    floor = jnp.asarray([q.floor for q in measured], readings.dtype)
    z = jax.random.normal(added, readings.shape, readings.dtype)
    noisy = jnp.maximum(apply_noise(readings, cv, key=factor) + _along(floor, readings) * z, 0.0)
    for k, q in enumerate(measured):
        value = readings[..., k]
        if q.kind == "level":
            noisy = noisy.at[..., k].set(value + jnp.hypot(cv[k] * value, floor[k]) * z[..., k])
        elif q.formula == "viability":
            own = jax.random.fold_in(counted, k)
            drawn = apply_noise(value[..., None], cv[k : k + 1], key=own, via_index=0)
            noisy = noisy.at[..., k].set(drawn[..., 0])
    return noisy


def _along(values: Array, like: Array) -> Array:
    """One value per column."""
    return values.reshape((1,) * (like.ndim - 1) + (-1,))


def _courses(
    plant: VirtualPlant,
    starts: Float[Array, "runs n"],
    controls: Float[Array, "runs T M"],
    lengths_h: Float[Array, "runs T"],
    volume_L: Float[Array, " runs"],
    sample_L: Float[Array, " runs"],
) -> Course:
    def one(start: Array, u: Array, lengths: Array, volume: Array, taken: Array) -> Course:
        return run_plant(plant, start, u, lengths, volume_L=volume, sample_L=taken)

    return jax.vmap(one)(starts, controls, lengths_h, volume_L, sample_L)


def _seen(process: Process, readings: Array, key: Key) -> Array:
    return with_noise(process, readings, key=key)


run_courses = compiled(_courses)
"""Many runs side by side, compiled."""
_seen_compiled = compiled(_seen)


def simulate_runs(
    plant: VirtualPlant,
    starts: ArrayLike,
    controls: ArrayLike,
    hours: ArrayLike,
    *,
    key: Key,
    noise: bool = True,
    volume_L: ArrayLike | None = None,
    sample_L: ArrayLike = 0.0,
    run_ids: Sequence[str] | None = None,
) -> list[Trajectory]:
    """Simulate runs and read their samples.

    Args:
        plant: The plant.
        starts: Concentrations and levels at the start `(runs,n)`, in the order of `plant.states`.
        controls: Set-points of each interval `(runs,T,M)`, in the order of the process; a bolus
            comes at the start of its interval.
        hours: Times of the samples [h], rising; the first is the start. The same for all `(T+1,)`
            or a row each `(runs,T+1)`.
        key: Random key of the noise.
        noise: Whether readings have the noise of their assays.
        volume_L: Volume at the start [L], one or one per run; the plant's own if None.
        sample_L: Volume that every sample takes [L], one or one per run.
        run_ids: Id per run; `RUN001` and so on by default.

    Returns:
        One trajectory per run with the process's readings and controls. A row's volume is what its
        sample left. What flowed by streams with a `total` is among the stream totals if it has one
        of their names, else an auxiliary column. The last row repeats the set-points before it,
        without boluses.

    Raises:
        ConfigError: If shapes do not fit, times do not rise, or numbers are none.
        SimulationError: If a run fails, saying how many, why, and what to do.

    Example:
        >>> import jax, numpy as np
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> from perfusio_jax.simulator import plain_monod, virtual_plant
        >>> plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
        >>> u = np.tile([0.1, 10.0], (1, 4, 1))
        >>> (run,) = simulate_runs(
        ...     plant, np.array([[0.5, 5.0, 0.0]]), u, np.arange(5) * 6.0, key=jax.random.key(0)
        ... )
        >>> run.species_names, run.n_days
        (('X', 'S', 'P'), 5)
    """
    process = plant.process
    check_pumps(process)
    start, u, times = (np.asarray(v, float) for v in (starts, controls, hours))
    runs = start.shape[0] if start.ndim == 2 else 0
    times = np.broadcast_to(times, (runs, times.shape[-1])) if times.ndim == 1 else times
    _check_shapes(plant, start, u, times)
    _check_numbers(plant, start, u, times)
    if run_ids is not None and len(run_ids) != runs:
        raise ConfigError(f"{len(run_ids)} run ids were given for {runs} runs.")
    volume = plant.volume_L if volume_L is None else volume_L
    out = run_courses(
        plant,
        jnp.asarray(start),
        jnp.asarray(u),
        jnp.asarray(np.diff(times, axis=1)),
        jnp.broadcast_to(jnp.asarray(volume, float), (runs,)),
        jnp.broadcast_to(jnp.asarray(sample_L, float), (runs,)),
    )
    codes = np.asarray(out.result)
    if codes.any():
        more = COLLAPSED if (codes == Result.STEP_TOO_SMALL.value).any() else ""
        which = ", ".join(str(i + 1) for i in np.flatnonzero(codes)[:8])
        raise SimulationError(
            f"simulation failed for run {which}.\n{summarise(out.result)}\n{more}".rstrip()
        )
    readings = readings_of_states(process, plant.states, out.states)
    if noise:
        readings = _seen_compiled(process, readings, key)
    return _trajectories(process, np.asarray(readings), u, times, out, run_ids)


def _check_shapes(plant: VirtualPlant, start: np.ndarray, u: np.ndarray, times: np.ndarray) -> None:
    process = plant.process
    if start.ndim != 2 or start.shape[1] != len(plant.states):
        raise ConfigError(
            f"starts have the shape {start.shape}; one row per run is needed, with "
            f"{', '.join(plant.states)}."
        )
    runs, n = start.shape[0], times.shape[-1] - 1
    if n < 1 or times.shape != (runs, n + 1):
        raise ConfigError(
            f"hours have the shape {times.shape}; one row for all or for each of {runs} runs is "
            "needed, two samples at least."
        )
    if u.shape != (runs, n, len(process.controls)):
        raise ConfigError(
            f"controls have the shape {u.shape}; ({runs}, {n}, {len(process.controls)}) is needed: "
            f"runs, intervals, and {', '.join(process.control_names) or 'no control'}."
        )


def _check_numbers(
    plant: VirtualPlant, start: np.ndarray, u: np.ndarray, times: np.ndarray
) -> None:
    process = plant.process
    if not np.all(np.isfinite(times)) or np.any(np.diff(times, axis=1) <= 0.0):
        raise ConfigError("hours have to rise from sample to sample.")
    for k, name in enumerate(plant.states):
        column = start[:, k]
        if not np.all(np.isfinite(column)) or (name in process.carried and np.any(column < 0.0)):
            wrong = column[~np.isfinite(column) | (column < 0.0)][0]
            raise ConfigError(
                f"starts: {name} is {wrong:g}; a known number is needed, not below 0."
            )
    for k, control in enumerate(process.controls):
        column = u[..., k]
        is_signed = control.role == "environment"
        if not np.all(np.isfinite(column)) or (not is_signed and np.any(column < 0.0)):
            wrong = column[~np.isfinite(column) | (column < 0.0)][0]
            raise ConfigError(
                f"controls: {control.name} is {wrong:g}; a known number is needed"
                f"{'' if is_signed else ', not below 0'}."
            )


def _trajectories(
    process: Process,
    readings: np.ndarray,
    u: np.ndarray,
    times: np.ndarray,
    out: Course,
    run_ids: Sequence[str] | None,
) -> list[Trajectory]:
    last = u[:, -1:].copy()
    last[..., [c.role == "bolus" for c in process.controls]] = 0.0
    rows = np.concatenate([u, last], axis=1)
    flowed, volumes = np.asarray(out.flowed_L), np.asarray(out.volume_L)
    runs = len(readings)
    since = np.concatenate([np.full((runs, 1, flowed.shape[-1]), np.nan), flowed], axis=1)
    told = {s.total: k for k, s in enumerate(process.streams) if s.total}
    totals = np.full((*times.shape, len(STREAM_TOTALS)), np.nan)
    for j, name in enumerate(STREAM_TOTALS):
        if name in told:
            totals[..., j] = since[..., told[name]]
    tags = [name for name in told if name not in STREAM_TOTALS]
    auxiliary = since[..., [told[name] for name in tags]]
    return [
        Trajectory(
            readings[i],
            rows[i],
            volumes[i],
            np.floor(times[i] / HOURS_PER_DAY + 0.5).astype(int),
            process.readings,
            process.control_names,
            run_id=f"RUN{i + 1:03d}" if run_ids is None else run_ids[i],
            reactor_id=f"R{i + 1:02d}",
            times_h=times[i],
            stream_totals=totals[i],
            auxiliary=auxiliary[i],
            auxiliary_names=tags,
        )
        for i in range(runs)
    ]
