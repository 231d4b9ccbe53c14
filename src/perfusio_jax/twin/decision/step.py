"""The decision core: what has been seen and a model in, a recommendation out. Pure.

The same history, model, policy and seed give the same bytes. Nothing here reads a clock, a
file or a network; the shell passes the time stamp and the read-back in.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    STATE_ORDER,
    STREAM_TOTALS,
    DataError,
)
from perfusio_jax._core.instants import as_day, day_number
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.bed.goal.steps import step_hours
from perfusio_jax.hybrid import (
    Belief,
    HybridStateSpaceModel,
    RunBeliefs,
    assimilate_run,
    draw_paths,
    forecast_report,
    parts_of,
    rollout_states,
)
from perfusio_jax.states import Trajectory

from .grid import Grid, rounded
from .limit_rows import limits_of

if TYPE_CHECKING:
    from datetime import datetime

    from perfusio_jax.bed import BEDDecision, BEDPolicy

COVERAGE_ROWS = 5
"""Samples over which the coverage of one-day forecasts is watched."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

PADDED_ROWS = 64
"""Rows a history is padded to, so that a growing run does not recompile; doubled when full."""


@dataclass(frozen=True)
class Outlook:
    """Forecast under set-points that are held, per species of `FORECAST_SPECIES`."""

    days: tuple[float, ...]
    """Culture day of each row [d], from the true time of the sample on."""
    mean: Float[np.ndarray, "H 12"]
    """Mean of the reading-free state."""
    q10: Float[np.ndarray, "H 12"]
    """10 % quantile."""
    q50: Float[np.ndarray, "H 12"]
    """Median."""
    q90: Float[np.ndarray, "H 12"]
    """90 % quantile."""
    samples: Float[np.ndarray, "S H 12"]
    """Paths, for probabilities of violation."""
    reading_q10: Float[np.ndarray, "H 12"]
    """10 % quantile of readings, assay noise included."""
    reading_q90: Float[np.ndarray, "H 12"]
    """90 % quantile of readings."""
    is_daily: bool = True
    """Whether the rows are a day apart."""

    def as_dict(self) -> dict[str, Any]:
        """In the form of `forecast_run`, which alarms and tables read."""
        return {
            "days": np.asarray(self.days),
            "mean": self.mean,
            "q10": self.q10,
            "q50": self.q50,
            "q90": self.q90,
            "samples": self.samples,
        }

    def from_day(self, day: float) -> dict[str, Any]:
        """The same for a decision made on a day [d], with what alarms need to count ahead."""
        made = self.as_dict()
        if not self.is_daily:
            made["lead_days"] = [ahead - day for ahead in self.days]
        return made


@dataclass(frozen=True)
class Decision:
    """Everything one cycle decided, before the gate."""

    day: float
    """Culture day [d]; an `int` where it is a whole one."""
    setpoints: dict[str, float]
    """Recommended set-points by control name, on the device's grid."""
    outlook: Outlook
    """Forecast if they are held over the horizon."""
    unchanged: Outlook
    """Forecast if the set-points in force stay."""
    state_mean: dict[str, float]
    """Mean of the estimated state in `FORECAST_SPECIES`."""
    state_sd: dict[str, float]
    """Its standard deviation."""
    innovation: float
    """Normalised innovation of the last sample; about one if the model fits."""
    policy: "BEDDecision"
    """The policy's own record, with its explanation."""
    belief: Belief
    """Estimate of the state the forecasts start from."""
    digest: str
    """SHA-256 of the inputs: history, model and seed."""
    coverage: tuple[int, int] = (0, 0)
    """Readings of the last days inside their 80 % band, and how many there were."""
    volume_L: float | None = None
    """Volume in the vessel as it is reckoned [L], of a described culture."""


def padded_length(n: int) -> int:
    """Rows to pad a history of `n` samples to."""
    length = PADDED_ROWS
    while length < n + 1:
        length *= 2
    return length


def history_from_records(
    rows: Sequence[Mapping[str, Any]], *, volume_L: float, run_id: str = "run"
) -> Trajectory:
    """Trajectory of one run from what the journal holds.

    Args:
        rows: One mapping per sample in order of time: `time_h`, `values` by species,
            `controls` applied from it on, `stream_totals`; None or absent where missing. `limits`
            of assays, below and above, where one stands in the place of a reading.
        volume_L: Working volume [L].
        run_id: Name of the run.

    Returns:
        The run with twelve species, six controls and stream totals; NaN where missing.

    Raises:
        DataError: If there are no rows.
    """
    if not rows:
        raise DataError("there is no sample yet; a decision needs at least one.")

    def table(kind: str, names: Sequence[str]) -> np.ndarray:
        cells = [[(row.get(kind) or {}).get(n) for n in names] for row in rows]
        return np.array([[np.nan if c is None else float(c) for c in row] for row in cells])

    times = np.array([float(row["time_h"]) for row in rows])
    controls = table("controls", CONTROL_NAMES)
    for k in range(1, len(rows)):  # a control nobody reported stays what it was
        gap = np.isnan(controls[k])
        controls[k, gap] = controls[k - 1, gap]
    return Trajectory(
        species=table("values", FORECAST_SPECIES),
        controls=controls,
        volume_L=np.full(len(rows), volume_L),
        days=np.rint(times / HOURS_PER_DAY).astype(int),
        species_names=FORECAST_SPECIES,
        control_names=CONTROL_NAMES,
        run_id=run_id,
        times_h=times,
        stream_totals=table("stream_totals", STREAM_TOTALS),
        limits=limits_of(rows, FORECAST_SPECIES),
    )


def estimate(
    history: Trajectory, model: HybridStateSpaceModel, *, seed: int, n_particles: int = 128
) -> tuple[Belief, RunBeliefs]:
    """Belief about the state after the last sample.

    Args:
        history: Samples and set-points so far.
        model: Hybrid model.
        seed: Seed of the ensemble.
        n_particles: Size of the ensemble.

    Returns:
        The belief, and the beliefs of all days.
    """
    beliefs = assimilate_run(
        model,
        history.strip_ids(),
        key=jax.random.key(seed),
        n_particles=n_particles,
        length=padded_length(history.n_days),
    )
    return beliefs.belief(history.n_days - 1), beliefs


def forecast_paths(
    model: HybridStateSpaceModel,
    c0: Float[Array, "S 9"],
    controls: Float[Array, "H 6"],
    day0: Array,
    key: Array,
) -> Float[Array, "S H 12"]:
    """Paths of the latent readings, one per start, a day a step; the program of `forecast`.

    Args:
        model: Hybrid model.
        c0: Balanced states of the S paths at the start.
        controls: Set-points of the H days, in `CONTROL_NAMES` order.
        day0: Culture day of the start [d].
        key: Random key of the paths.

    Returns:
        `FORECAST_SPECIES` at the end of each day, without assay noise.
    """
    steps = jnp.asarray(np.full(controls.shape[0], HOURS_PER_DAY))
    return _with_readings(model, c0, controls, day0, key, steps)[0]


@compiled
def _with_readings(
    model: HybridStateSpaceModel,
    c0: Float[Array, "S 9"],
    controls: Float[Array, "H 6"],
    day0: Array,
    key: Array,
    hours: Float[Array, " H"],
    rows: tuple[int, ...] | None = None,
) -> tuple[Float[Array, "S H 12"], Float[Array, "S H 12"]]:
    """Paths of the latent readings, and the same with assay noise; of some steps, or of all."""
    compiling("the forecast")
    paths = draw_paths(model, c0.shape[0], key=key, max_steps=controls.shape[0])
    states, _ = rollout_states(model, paths, c0, controls, day0, dt_h=hours)
    if rows is not None:
        states = states[:, jnp.asarray(rows)]
    size, draws = (model.diam_base, model.diam_death_coeff), paths.assay[:, : states.shape[1]]
    return forecast_report(states, *size), forecast_report(states, *size, model.assay, draws)


@compiled
def _begun(belief: Belief, seed: ArrayLike, n_paths: int) -> tuple[Array, Float[Array, "S 9"]]:
    """Key of the paths, and where they start."""
    path_key, state_key = jax.random.split(jax.random.key(seed))
    return path_key, belief.sample(n_paths, key=state_key)


def forecast(
    model: HybridStateSpaceModel,
    belief: Belief,
    controls: Mapping[str, float] | Float[np.ndarray, "H 6"],
    *,
    horizon: int,
    seed: int,
    n_paths: int = 256,
    hours: Sequence[float] | None = None,
) -> Outlook:
    """Forecast with set-points that are held, or another for every step.

    A step that is longer than those the model learned from is taken in parts of about their
    length (`hybrid.parts_of`).

    Args:
        model: Hybrid model.
        belief: State now.
        controls: Set-points by control name, or those of every step, `CONTROL_NAMES` order.
        horizon: Steps ahead, each a day where `hours` says no other.
        seed: Seed of the paths.
        n_paths: Number of paths.
        hours: Times from the belief's own on [h], rising, one for each of the horizon; by
            default a day apart.

    Returns:
        Quantiles and paths of the latent readings, and quantiles of readings.

    Raises:
        DataError: If the hours do not rise from above 0, or hours or set-points are not as many as
            the horizon.
    """
    ends = HOURS_PER_DAY * np.arange(1, horizon + 1) if hours is None else np.asarray(hours, float)
    steps = np.diff(ends, prepend=0.0)
    if ends.shape != (horizon,) or not np.all(steps > 0.0):
        raise DataError(f"hours {ends} of a forecast; needed are {horizon} that rise from above 0.")
    parts = [parts_of(model, step) for step in steps]
    steps, rows = np.repeat(steps / parts, parts), None
    if len(steps) > horizon:
        rows = tuple((np.cumsum(parts) - 1).tolist())
    path_key, c0 = _begun(belief, np.asarray(seed), n_paths)
    if isinstance(controls, Mapping):
        u = np.array([controls[n] for n in CONTROL_NAMES], float)
        held = jnp.asarray(np.tile(u, (len(steps), 1)))
    else:
        if np.shape(controls) != (horizon, len(CONTROL_NAMES)):
            raise DataError(
                f"set-points of shape {np.shape(controls)} for a forecast of {horizon} steps; "
                f"needed are ({horizon}, {len(CONTROL_NAMES)})."
            )
        held = jnp.asarray(np.repeat(np.asarray(controls, float), parts, axis=0))
    made = _with_readings(model, c0, held, belief.day, path_key, jnp.asarray(steps), rows)
    values, readings = (np.asarray(v) for v in made)
    q10, q50, q90 = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
    low, high = np.quantile(readings, [0.1, 0.9], axis=0)
    days = tuple((float(belief.day) + ends / HOURS_PER_DAY).tolist())
    return Outlook(days, values.mean(axis=0), q10, q50, q90, values, low, high, hours is None)


def decide(
    history: Trajectory,
    model: HybridStateSpaceModel,
    policy: "BEDPolicy",
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
) -> Decision:
    """Recommend the set-points of the next interval.

    Args:
        history: Samples and set-points so far, the last row being today's.
        model: Hybrid model.
        policy: Design space, targets, acquisition and sizes.
        seed: Seed of the run; the day is folded in, so that a restart draws the same.
        u_now: Set-points read back from the device, by name.
        fixed: Set-points an operator holds, by name.
        grids: What the device can hold, by control: the recommendation, and the forecast under
            it, are for that; without one, for any number.
        timestamp: When, for the record.
        n_particles: Size of the state ensemble.
        n_paths: Paths of the reported forecasts.
        day: Culture day [d] of the decision; by default the whole day nearest to the last sample.
        sample_h: Time to the next sample [h]; a row of the reported forecasts is for it.

    Returns:
        Recommendation, forecasts, state estimate and digest of the inputs.
    """
    day = int(np.asarray(history.days)[-1]) if day is None else as_day(day)
    belief, beliefs = estimate(history, model, seed=seed, n_particles=n_particles)
    made = policy.decide(
        belief,
        day,
        model,
        seed=seed,
        u_now={name: float(u_now[name]) for name in policy.design_space.control_names},
        timestamp=timestamp,
        fixed=dict(fixed or {}),
    )
    bounds = {n: (b.lo, b.hi) for n, b in policy.design_space.control_bounds.items()}
    balance = ("bleed_rate", "perfusion_rate")
    wanted = made.recommended_controls
    setpoints = rounded(wanted, grids or {}, bounds, balance, fixed=frozenset(fixed or ()))
    made = replace(made, recommended_controls=setpoints)
    ends = hours_ahead(policy.ofv, sample_h, model)
    sizes = {"seed": seed + 1009 * day_number(day), "n_paths": n_paths}
    sizes |= {"horizon": int(policy.ofv.horizon) if ends is None else len(ends)}
    recommended = {**u_now, **setpoints}
    outlook = forecast(model, belief, recommended, hours=ends, **sizes)
    unchanged = forecast(model, belief, u_now, hours=ends, **sizes)
    state = np.asarray(_report(model, belief.particles))
    return Decision(
        day=day,
        setpoints=setpoints,
        outlook=outlook,
        unchanged=unchanged,
        state_mean=dict(zip(FORECAST_SPECIES, state.mean(axis=0).tolist(), strict=True)),
        state_sd=dict(zip(FORECAST_SPECIES, state.std(axis=0).tolist(), strict=True)),
        innovation=float(_normalised_innovation(beliefs, history.n_days - 1)),
        policy=made,
        belief=belief,
        digest=digest(history, model, seed),
        coverage=_coverage(beliefs, history.n_days),
    )


def hours_ahead(ofv: Any, sample_h: float = HOURS_PER_DAY, model: Any = None) -> list[float] | None:
    """Times of a reported forecast, from the sample on [h]; `None`: a day apart.

    They are the policy's own steps where these meet the next sample, else as far apart as samples
    are; they reach the policy's horizon, and the next sample if that is later.

    Args:
        ofv: The policy's objective.
        sample_h: Time to the next sample [h].
        model: Hybrid model that forecasts, whose step is taken where the objective's is open.
    """
    step_h = getattr(ofv, "step_h", HOURS_PER_DAY)
    step_h = HOURS_PER_DAY / parts_of(model) if step_h is None else float(step_h)
    if not math.isclose(sample_h / step_h, round(sample_h / step_h), rel_tol=1e-9):
        step_h = sample_h
    if step_h == HOURS_PER_DAY and sample_h <= HOURS_PER_DAY * ofv.horizon:
        return None
    days = max(ofv.horizon, math.ceil(sample_h / HOURS_PER_DAY - 1e-9))
    return np.cumsum(step_hours(days, step_h)).tolist()


@compiled
def _report(model: HybridStateSpaceModel, particles: Array) -> Array:
    from perfusio_jax.chemistry import report

    return report(particles, model.diam_base, model.diam_death_coeff)


def _normalised_innovation(beliefs: RunBeliefs, row: int) -> float:
    """Mean squared innovation over its variance; NaN if nothing was observed."""
    n = float(np.asarray(beliefs.info.n_observed)[row])
    return float(np.asarray(beliefs.info.nis)[row]) / n if n > 0 else float("nan")


def _coverage(beliefs: RunBeliefs, n_rows: int) -> tuple[int, int]:
    """Readings of the last samples inside the filter's 80 % band, and how many there were."""
    rows = slice(max(n_rows - COVERAGE_ROWS, 1), n_rows)
    innovation = np.asarray(beliefs.info.innovation)[rows, : len(STATE_ORDER)]
    sd = np.asarray(beliefs.info.innovation_sd)[rows, : len(STATE_ORDER)]
    seen = np.isfinite(innovation) & np.isfinite(sd)
    inside = np.abs(innovation[seen]) <= 1.2815515655446004 * sd[seen]
    return int(inside.sum()), int(seen.sum())


def digest(*trees: Any) -> str:
    """SHA-256 over the arrays, names and numbers of any trees.

    Args:
        *trees: Pytrees; static parts enter through the tree's structure.

    Returns:
        Hexadecimal digest.
    """
    sha = hashlib.sha256()
    for tree in trees:
        leaves, structure = jax.tree.flatten(tree)
        # where an object lies in memory is another in every process
        sha.update(_ADDRESS.sub("", str(structure)).encode())
        for leaf in leaves:
            array = np.asarray(leaf)
            sha.update(f"{array.dtype}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
