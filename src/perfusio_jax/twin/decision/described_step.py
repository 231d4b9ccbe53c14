"""The decision core for a described culture: samples so far and a model in, set-points out. Pure.

`step.py` is the same for CHO perfusion. The same samples, model, policy and seed give the same
bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax._core.instants import as_day, day_number
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.bed.policy.described import DescribedPolicy, decide_described, faces
from perfusio_jax.hybrid import (
    Belief,
    DrawnMechanisms,
    DrawnRun,
    HybridStateSpaceModel,
    RunBeliefs,
    at_draw,
    deal,
    draw_paths,
    last_belief,
    offset_paths,
    parts_of,
    rollout_states,
    run_offset,
)
from perfusio_jax.hybrid.layout import VOLUME
from perfusio_jax.hybrid.observation import reported
from perfusio_jax.hybrid.recipes import held
from perfusio_jax.hybrid.runs import run_arrays, volumes
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory, on_grid

from .balancing import on_device, row_of
from .grid import Grid
from .limit_rows import limits_of
from .over_draws import begun_with_draws, together
from .step import COVERAGE_ROWS, Decision, Outlook, digest, hours_ahead

if TYPE_CHECKING:
    from datetime import datetime


class Estimate(NamedTuple):
    """What is known of a run after its last sample."""

    model: HybridStateSpaceModel
    """The model, set to the run's clone."""
    belief: Belief
    """The state."""
    beliefs: RunBeliefs
    """Those of all rows; rows put in between samples that lie far apart have no reading."""
    volume_L: float
    """Volume in the vessel [L]."""
    offset: Float[Array, " K"]
    """What the run keeps showing beyond the model [residual units]."""
    draws: DrawnRun | None = None
    """The same for each draw of the mechanism's constants; state and offset are then those of all
    together."""


def described_history(
    rows: Sequence[Mapping[str, Any]],
    process: Process,
    *,
    run_id: str = "run",
    clone_id: str = "unknown",
) -> Trajectory:
    """Trajectory of one run of a culture from what the journal holds.

    Args:
        rows: One mapping per sample in order of time: `time_h`, `values` by quantity, `controls`
            that acted from it on, `volume_L`; None or absent where missing.
        process: The culture.
        run_id: Name of the run.
        clone_id: Clone, for a model that knows several.

    Returns:
        The run with what is measured and set of the process; NaN where missing. A volume nobody
        recorded is the process's, and where it moves what flows says the rest.

    Raises:
        DataError: If there are no rows.
    """
    if not rows:
        raise DataError("there is no sample yet; a decision needs at least one.")

    def table(kind: str, names: Sequence[str]) -> np.ndarray:
        cells = [[(row.get(kind) or {}).get(n) for n in names] for row in rows]
        cells = [[np.nan if c is None else float(c) for c in row] for row in cells]
        return np.array(cells, float).reshape(len(rows), len(names))

    times = np.array([float(row["time_h"]) for row in rows])
    controls = table("controls", process.control_names)
    for k in range(1, len(rows)):  # a control nobody reported stays what it was
        gap = np.isnan(controls[k])
        controls[k, gap] = controls[k - 1, gap]
    known = [row.get("volume_L") for row in rows]
    volume = np.array([np.nan if v is None else float(v) for v in known])
    if not np.isfinite(volume).any():
        volume = np.full(times.size, process.volume_L)
    seen = np.isfinite(volume)
    return Trajectory(
        species=table("values", process.readings),
        controls=controls,
        volume_L=np.interp(times, times[seen], volume[seen]),
        days=np.floor(times / HOURS_PER_DAY + 1e-9).astype(int),
        species_names=process.readings,
        control_names=process.control_names,
        run_id=run_id,
        clone_id=clone_id,
        times_h=times,
        limits=limits_of(rows, process.readings),
    )


def estimate_described(
    history: Trajectory,
    model: HybridStateSpaceModel,
    *,
    seed: int,
    n_particles: int = 128,
    mechanisms: DrawnMechanisms | None = None,
) -> Estimate:
    """What is known after the last sample, by the filter that forecasts use.

    Args:
        history: Samples and set-points so far.
        model: Model of the culture.
        seed: Seed of the ensemble.
        n_particles: Size of the ensemble.
        mechanisms: Draws of the mechanism's constants, each of which has a filter of its own.
    """
    if mechanisms is not None:
        each = [  # the same numbers for all: draws that are alike change nothing
            estimate_described(
                history,
                at_draw(model, mechanisms, np.asarray(k)),
                seed=seed,
                n_particles=n_particles,
            )
            for k in range(mechanisms.n)
        ]
        return each[0]._replace(model=model, **together(each, mechanisms))
    found, belief, beliefs = last_belief(
        model, history, key=jax.random.key(seed), n_particles=n_particles
    )
    volume = float(np.asarray(history.volume_L)[-1])
    if VOLUME in model.layout.controls:
        recorded = np.asarray(history.volume_L, float)
        table = np.asarray(history.controls, float)
        times = np.asarray(history.times_h, float)
        volume = float(volumes(model.layout, table, recorded, times)[-1])
    process = model.layout.process
    boluses = () if process is None else process.boluses
    gridded = on_grid(history, float(model.dt_hours), once=boluses)
    rows = run_arrays(gridded, length=beliefs.days.shape[0], layout=model.layout)
    offset = run_offset(found, beliefs, rows.controls, jnp.asarray(gridded.n_days))
    return Estimate(found, belief, beliefs, volume, offset)


@compiled
def _begun(belief: Belief, seed: ArrayLike, n_paths: int) -> tuple[Array, Float[Array, "S K"]]:
    """Key of the paths, and where they start."""
    path_key, state_key = jax.random.split(jax.random.key(seed))
    return path_key, belief.sample(n_paths, key=state_key)


@compiled
def _ahead(
    model: HybridStateSpaceModel,
    start: Float[Array, "S K"],
    now: Float[Array, " M"],
    offset: Float[Array, " K"] | Float[Array, "S K"],
    day: Array,
    key: Array,
    hours: Float[Array, " H"],
    rows: tuple[int, ...] | None,
    mechanisms: DrawnMechanisms | None,
) -> tuple[Float[Array, "S H F"], Float[Array, "S H F"]]:
    """Paths of what is reported, without assay noise and with it; of some steps, or of all."""
    compiling("the forecast")
    paths = draw_paths(model, start.shape[0], key=key, max_steps=hours.shape[0])
    paths = offset_paths(model, deal(paths, mechanisms), offset, hours)
    plan = held(model, jnp.broadcast_to(now[None, :], (hours.shape[0], now.shape[0])), hours)
    states, _ = rollout_states(model, paths, start, plan, day, dt_h=hours)
    if rows is not None:
        states = states[:, jnp.asarray(rows)]
    return reported(model, states), reported(model, states, paths.assay[:, : states.shape[1]])


def forecast_described(
    known: Estimate,
    controls: Mapping[str, float],
    *,
    hours: Sequence[float],
    seed: int,
    n_paths: int = 256,
    is_daily: bool = True,
) -> Outlook:
    """Forecast with set-points that are held; boluses are given at the start.

    Args:
        known: What is known now.
        controls: Every control by name.
        hours: Times from now on [h], rising from above 0.
        seed: Seed of the paths.
        n_paths: Number of paths.
        is_daily: Whether the hours are a day apart.

    Returns:
        Quantiles and paths of what is reported, and quantiles of readings.
    """
    model, process = known.model, known.model.layout.process
    names = () if process is None else process.control_names
    ends = np.asarray(hours, float)
    steps = np.diff(ends, prepend=0.0)
    parts = [parts_of(model, step) for step in steps]
    steps, rows = np.repeat(steps / parts, parts), None
    if len(steps) > len(ends):
        rows = tuple((np.cumsum(parts) - 1).tolist())
    now = [float(controls[name]) for name in names]
    now += [known.volume_L] if VOLUME in model.layout.controls else []
    draws, offset = known.draws, known.offset
    if draws is None:
        path_key, start = _begun(known.belief, np.asarray(seed), n_paths)
    else:
        path_key, start = begun_with_draws(draws, np.asarray(seed), n_paths)
        offset = draws.offset_of(n_paths)
    made = _ahead(
        model,
        start,
        jnp.asarray(now),
        offset,
        known.belief.day,
        path_key,
        jnp.asarray(steps),
        rows,
        None if draws is None else draws.mechanisms,
    )
    values, readings = (np.asarray(v) for v in made)
    q10, q50, q90 = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
    low, high = np.quantile(readings, [0.1, 0.9], axis=0)
    days = tuple((float(known.belief.day) + ends / HOURS_PER_DAY).tolist())
    return Outlook(days, values.mean(axis=0), q10, q50, q90, values, low, high, is_daily)


def decide_for_culture(
    history: Trajectory,
    model: HybridStateSpaceModel,
    policy: DescribedPolicy,
    *,
    seed: int,
    u_now: Mapping[str, float],
    fixed: Mapping[str, float] | None = None,
    grids: Mapping[str, Grid] | None = None,
    timestamp: "datetime | None" = None,
    n_particles: int = 128,
    n_paths: int = 256,
    day: float | None = None,
    sample_h: float = HOURS_PER_DAY,
    mechanisms: DrawnMechanisms | None = None,
) -> Decision:
    """Recommend the set-points of the next interval of a described culture.

    Args:
        history: Samples and set-points so far, the last row being today's.
        model: Model of the culture.
        policy: Goals, limits, ranges and sizes.
        seed: Seed of the run; the day is folded in, so that a restart draws the same.
        u_now: Set-points read back from the device, by name; boluses are those of the last row.
        fixed: Set-points an operator holds, by name.
        grids: What the device can hold, by control.
        timestamp: When, for the record.
        n_particles: Size of the state ensemble.
        n_paths: Paths of the reported forecasts.
        day: Culture day [d] of the decision; by default the whole day nearest to the last sample.
        sample_h: Time to the next sample [h].
        mechanisms: Draws of the mechanism's constants; every path of search and forecasts has one,
            with the state and the offset a filter finds with it. None for the model's own.

    Returns:
        Recommendation, forecasts, state estimate and digest of the inputs.
    """
    process = policy.process
    last = float(np.asarray(history.times_h)[-1]) / HOURS_PER_DAY
    day = as_day(round(last) if day is None else day)
    known = estimate_described(
        history, model, seed=seed, n_particles=n_particles, mechanisms=mechanisms
    )
    given = dict(zip(history.control_names, np.asarray(history.controls)[-1].tolist(), strict=True))
    now = {n: given[n] if n in process.boluses else float(u_now[n]) for n in process.control_names}
    made = decide_described(
        policy,
        known.model,
        known.belief,
        now,
        day=day,
        volume_L=known.volume_L,
        fixed=dict(fixed or {}),
        offset=known.offset,
        draws=known.draws,
        seed=seed,
        timestamp=timestamp,
    )
    row = None if policy.balance is None else row_of(policy.balance, known.volume_L)
    setpoints = on_device(
        made.recommended_controls,
        now,
        grids or {},
        policy.bounds,
        row,
        fixed=frozenset(fixed or ()),
    )
    made = replace(made, recommended_controls=setpoints)
    ends = hours_ahead(policy.ofv, sample_h, model)
    is_daily = ends is None
    hours = HOURS_PER_DAY * np.arange(1, policy.horizon + 1) if ends is None else ends
    sizes = {"seed": seed + 1009 * day_number(day), "n_paths": n_paths, "is_daily": is_daily}
    state = np.asarray(faces(known.model, known.belief.particles))
    names = model.layout.forecast
    rests_on = (history, model, seed) if mechanisms is None else (history, model, seed, mechanisms)
    return Decision(
        day=day,
        setpoints=setpoints,
        outlook=forecast_described(known, {**now, **setpoints}, hours=list(hours), **sizes),
        unchanged=forecast_described(known, now, hours=list(hours), **sizes),
        state_mean=dict(zip(names, state.mean(axis=0).tolist(), strict=True)),
        state_sd=dict(zip(names, state.std(axis=0).tolist(), strict=True)),
        innovation=_normalised_innovation(known.beliefs),
        policy=made,
        belief=known.belief,
        digest=digest(*rests_on),
        coverage=_coverage(known.beliefs, model.layout.n),
        volume_L=known.volume_L,
    )


def sampled_rows(beliefs: RunBeliefs) -> np.ndarray:
    """Rows in which something was read, in order of time."""
    return np.flatnonzero(np.asarray(beliefs.info.n_observed) > 0)


def _normalised_innovation(beliefs: RunBeliefs) -> float:
    """Mean squared innovation of the last sample over its variance; NaN if nothing was read."""
    rows = sampled_rows(beliefs)
    if rows.size == 0:
        return float("nan")
    info = beliefs.info
    return float(np.asarray(info.nis)[rows[-1]]) / float(np.asarray(info.n_observed)[rows[-1]])


def _coverage(beliefs: RunBeliefs, n_states: int) -> tuple[int, int]:
    """Readings of the last samples inside the filter's 80 % band, and how many there were."""
    rows = sampled_rows(beliefs)[1:][-COVERAGE_ROWS:]
    innovation = np.asarray(beliefs.info.innovation)[rows, :n_states]
    sd = np.asarray(beliefs.info.innovation_sd)[rows, :n_states]
    seen = np.isfinite(innovation) & np.isfinite(sd)
    inside = np.abs(innovation[seen]) <= 1.2815515655446004 * sd[seen]
    return int(inside.sum()), int(seen.sum())
