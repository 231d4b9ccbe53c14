"""How good forecasts are: every unseen run forecast from many of its days.

A run is filtered up to a sample, then rolled out day by day, or in steps of some hours, from that
belief under the set-points that were really applied. What comes back is compared with what was
measured at that time (`pairing`), with its assay noise, or in simulation with what was true.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError, Key, on_device
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.hybrid.assimilate import assimilate_arrays
from perfusio_jax.hybrid.belief import Belief
from perfusio_jax.hybrid.disturbance import step_law
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone
from perfusio_jax.hybrid.observation import reported
from perfusio_jax.hybrid.pairing import pair_by_time
from perfusio_jax.hybrid.paths import Paths, draw_paths
from perfusio_jax.hybrid.rollouts import rollout_states
from perfusio_jax.hybrid.runs import RunArrays
from perfusio_jax.hybrid.step import parts_of

LEVELS = (0.8, 0.95)
"""Nominal probabilities of the central intervals."""
_TAILS = (0.025, 0.1, 0.5, 0.9, 0.975)


class Forecasts(NamedTuple):
    """Forecasts of R runs from D samples each, H steps ahead, in `layout.forecast`.

    A step is a day unless another length was asked for. Entries beyond the end of a run, and at
    steps without a sample, hold forecasts without a counterpart; mask them.
    """

    mean: Float[Array, "R D H 12"]
    """Mean of the noise-free species."""
    state_quantiles: Float[Array, "R D H 12 5"]
    """2.5, 10, 50, 90 and 97.5 % of the noise-free species."""
    quantiles: Float[Array, "R D H 12 5"]
    """The same of readings, assay noise included."""
    position: Float[Array, "R D H 12"]
    """Place of the reading in its forecast, in (0, 1) (PIT); NaN where nothing was read."""
    crps: Float[Array, "R D H 12"]
    """Continuous ranked probability score of the reading [unit of the species]."""
    target: Int[np.ndarray, "R D H"]
    """Row of the run that each forecast is for; T where no sample lies near that step."""
    is_inside: Bool[np.ndarray, "R D H"]
    """Whether there is such a sample and the run still goes on there."""
    hours: Float[np.ndarray, "R D H"]
    """Time from the sample the forecast starts from to that row, or to the step's end [h]."""
    start: Int[np.ndarray, "R D"]
    """Row of the sample each forecast starts from."""


@compiled
def _forecast_all(
    model: HybridStateSpaceModel,
    runs: RunArrays,
    readings: Array,
    starts: Array,
    steps: tuple[Array, ...],
    keys: tuple[Array, Array, Array],
    sizes: tuple[int, int, int],
) -> tuple[Array, Array, Array, Array, Array]:
    compiling("the forecasts of runs left out")
    n_particles, n_paths, parts = sizes
    for_filter, for_paths, for_start = keys
    paths = draw_paths(model, n_paths, key=for_paths, max_steps=steps[0].shape[2])

    def one(args: Any) -> tuple[Array, ...]:
        run, measured, ahead, key = args
        mine = at_clone(model, jnp.asarray(run.clone))
        beliefs = assimilate_arrays(
            mine, run, step_law(mine), key=key, n_particles=n_particles, smooth=False
        )

        def from_sample(xs: Any) -> tuple[Array, ...]:
            row, (hours, plan, target, inside) = xs
            belief = Belief(beliefs.filtered[row], beliefs.days[row])
            start = belief.sample(n_paths, key=jax.random.fold_in(for_start, row))
            clean, noisy = _roll(mine, paths, start, plan, belief.day, hours, parts)
            there = jnp.minimum(target, run.mask.shape[0] - 1)
            seen = jnp.where(inside[:, None], measured[there], jnp.nan)
            position, score = _place(seen, noisy)
            levels = jnp.asarray(_TAILS)
            low = jnp.moveaxis(jnp.quantile(clean, levels, axis=0), 0, -1)
            high = jnp.moveaxis(jnp.quantile(noisy, levels, axis=0), 0, -1)
            return jnp.mean(clean, axis=0), low, high, position, score

        return jax.lax.map(from_sample, (starts, ahead))

    each = jax.random.split(for_filter, readings.shape[0])
    return jax.lax.map(one, (runs, readings, steps, each))


def _roll(
    model: HybridStateSpaceModel,
    paths: Paths,
    start: Array,
    plan: Array,
    day: Array,
    hours: Array,
    parts: int,
) -> tuple[Array, Array]:
    """Paths of the species at the end of each day, without and with assay noise."""
    states, _ = rollout_states(model, paths, start, plan, day, dt_h=hours)
    states = states[:, parts - 1 :: parts]
    draws = paths.assay[:, : states.shape[1]]
    return reported(model, states), reported(model, states, draws)


def _place(seen: Array, draws: Array) -> tuple[Array, Array]:
    """PIT and fair CRPS of readings (H, K) among draws (S, H, K); NaN where missing."""
    n = draws.shape[0]
    below = jnp.sum(draws < seen[None], axis=0) + 0.5 * jnp.sum(draws == seen[None], axis=0)
    weight = (2.0 * jnp.arange(1, n + 1) - n - 1.0)[:, None, None]
    pairs = 2.0 * jnp.sum(weight * jnp.sort(draws, axis=0), axis=0) / (n * (n - 1))
    score = jnp.mean(jnp.abs(draws - seen[None]), axis=0) - 0.5 * pairs
    return jnp.where(jnp.isnan(seen), jnp.nan, (below + 0.5) / (n + 1)), score


def forecast_unseen(
    model: HybridStateSpaceModel,
    runs: RunArrays,
    readings: Float[Array, "R T 12"],
    *,
    key: Key,
    starts: tuple[int, ...],
    horizon: int = 7,
    n_paths: int = 128,
    n_particles: int = 96,
    tolerance_h: float | None = None,
    step_h: float = HOURS_PER_DAY,
) -> Forecasts:
    """Forecast every run from several of its samples.

    Args:
        model: Fitted model.
        runs: Stacked runs (`stack_runs`), R runs of T rows.
        readings: Measured `model.layout.forecast`; NaN where missing.
        key: Random key.
        starts: Rows after whose sample a forecast starts.
        horizon: Steps ahead; days where a step is one.
        n_paths: Paths per forecast; the same functions serve all runs.
        n_particles: Ensemble of the filter.
        tolerance_h: How far a sample may lie from a whole number of steps after the start and
            count for that step [h]; a quarter of a step by default.
        step_h: Length of a step [h].

    Returns:
        Forecasts, each for the hour of the sample it is judged by.

    Raises:
        ConfigError: If shapes do not fit, a start is not a row or the tolerance is no part of
            a step.
    """
    shape = (*runs.mask.shape, len(model.layout.forecast))
    if readings.shape != shape:
        raise ConfigError(f"readings of shape {readings.shape}; these runs need {shape}.")
    if not starts or min(starts) < 0 or max(starts) >= shape[1]:
        raise ConfigError(f"starts {starts}; allowed are rows 0 to {shape[1] - 1}.")
    keys = jax.random.split(key, 3)
    parts = parts_of(model, step_h)
    pairs = pair_by_time(
        *(np.asarray(v) for v in (runs.times_h, runs.controls, runs.mask)),
        starts=starts,
        horizon=horizon,
        tolerance_h=tolerance_h,
        parts=parts,
        step_h=step_h,
    )
    made = _forecast_all(
        model,
        runs,
        readings,
        on_device(np.asarray(starts)),
        tuple(on_device(v) for v in pairs),
        (keys[0], keys[1], keys[2]),
        (n_particles, n_paths, parts),
    )
    rows = np.broadcast_to(np.asarray(starts), pairs.target.shape[:2])
    return Forecasts(*made, pairs.target, pairs.is_inside, pairs.hours, rows)


class Skill(NamedTuple):
    """Forecast skill per step ahead and species."""

    rrmse: Float[np.ndarray, "H 12"]
    """Root mean square error over the spread of the observations [-]."""
    coverage: Float[np.ndarray, "2 H 12"]
    """Share of readings inside the 80 and 95 % intervals [-]."""
    sharpness: Float[np.ndarray, "2 H 12"]
    """Mean width of those intervals over the spread of the observations [-]."""
    crps: Float[np.ndarray, "H 12"]
    """Mean continuous ranked probability score over that spread [-]."""
    n_readings: Int[np.ndarray, "H 12"]
    """Readings behind each figure."""
    pooled_coverage: Float[np.ndarray, "2 H"]
    """Coverage over all species."""


def pick(
    forecasts: Forecasts, values: Float[np.ndarray, "R T 12"]
) -> Float[np.ndarray, "R D H 12"]:
    """What each forecast is about; NaN beyond a run's end and at steps without a sample.

    Args:
        forecasts: From `forecast_unseen`, of R runs, D starts and H steps.
        values: What was read, or true in simulation, row by row of the runs, in the columns of
            the forecasts and in their units.

    Returns:
        The value of the row that each forecast is for.
    """
    target = np.asarray(forecasts.target)
    last = values.shape[1] - 1
    rows = np.arange(values.shape[0])[:, None, None]
    found = np.asarray(values)[rows, np.minimum(target, last)]
    return np.where(np.asarray(forecasts.is_inside)[..., None], found, np.nan)


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mean of what is there; NaN, without a warning, where nothing is."""
    seen = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(seen, values, 0.0).sum(axis=axes) / seen.sum(axis=axes)


def spread_of(values: Float[np.ndarray, "R T K"]) -> Float[np.ndarray, " K"]:
    """Standard deviation per species over runs and samples; NaN where nothing was read.

    Args:
        values: R runs of T rows; NaN where missing.

    Returns:
        Population standard deviation [unit of the species], never zero: 1e-12 is added, so that
        an error can be divided by it.
    """
    centre = _mean(values, (0, 1))
    return np.sqrt(_mean((values - centre[None, None, :]) ** 2, (0, 1))) + 1e-12


def skill(
    forecasts: Forecasts,
    readings: Float[np.ndarray, "R T 12"],
    truth: Float[np.ndarray, "R T 12"] | None = None,
) -> Skill:
    """Score forecasts.

    Args:
        forecasts: From `forecast_unseen`.
        readings: Measured values; NaN where missing.
        truth: Noise-free values for the error, in simulation; the readings by default.

    Returns:
        Skill, NaN where nothing was read. Coverage and CRPS are always those of readings.
    """
    about = pick(forecasts, np.asarray(readings))
    real = about if truth is None else pick(forecasts, np.asarray(truth))
    source = np.asarray(readings if truth is None else truth)
    spread = spread_of(source)
    error = np.asarray(forecasts.mean) - real
    seen = np.isfinite(about)
    count = seen.sum(axis=(0, 1))
    quantiles = np.asarray(forecasts.quantiles)
    cover, width, pooled = [], [], []
    for low, high in ((1, 3), (0, 4)):
        inside = (about >= quantiles[..., low]) & (about <= quantiles[..., high]) & seen
        span = np.where(seen, quantiles[..., high] - quantiles[..., low], 0.0)
        with np.errstate(invalid="ignore"):  # no reading, no figure
            cover.append(inside.sum(axis=(0, 1)) / count)
            pooled.append(inside.sum(axis=(0, 1, 3)) / count.sum(axis=1))
            width.append(span.sum(axis=(0, 1)) / count / spread)
    rrmse = np.sqrt(_mean(error**2, (0, 1))) / spread
    score = _mean(np.asarray(forecasts.crps), (0, 1)) / spread
    return Skill(rrmse, np.stack(cover), np.stack(width), score, count, np.stack(pooled))


_SINGLE = 1.96
"""Half-width of the band of one cell alone, in standard deviations [-]."""


class CoverageBand(NamedTuple):
    """How far the coverage of single cells may lie from nominal by chance."""

    half_width: Float[np.ndarray, "2 H 12"]
    """Half the simultaneous band per cell, 80 and 95 % intervals [-]; NaN without readings."""
    is_outside: Bool[np.ndarray, "2 H 12"]
    """Cells further from nominal than their band."""


def coverage_band(
    forecasts: Forecasts,
    readings: Float[np.ndarray, "R T 12"],
    *,
    level: float = 0.95,
    n_draws: int = 1000,
    seed: int = 0,
) -> CoverageBand:
    """Simultaneous bootstrap band of the coverage over all cells (step ahead x species).

    Readings of one run resemble each other, so whole runs are drawn with replacement. Each
    cell's coverage is compared in units of the spread it would have if it were nominal; the
    band takes the largest such distance over all cells of both intervals, so that all cells
    together stay inside with probability `level` if every one of them is calibrated.

    Args:
        forecasts: From `forecast_unseen`, R runs.
        readings: Measured values; NaN where missing.
        level: Probability that no cell leaves its band by chance.
        n_draws: Bootstrap draws.
        seed: Random seed.

    Returns:
        The band and the cells outside.

    Raises:
        DataError: If there are fewer than two runs.
    """
    about = pick(forecasts, np.asarray(readings))
    if about.shape[0] < 2:
        raise DataError("a bootstrap over runs needs at least two of them.")
    seen = np.isfinite(about)
    quantiles = np.asarray(forecasts.quantiles)
    hits = np.stack(
        [
            ((about >= quantiles[..., a]) & (about <= quantiles[..., b]) & seen).sum(axis=1)
            for a, b in ((1, 3), (0, 4))
        ],
        axis=1,
    )  # (R, 2, H, 12)
    nominal = np.asarray([0.8, 0.95])[:, None, None]
    count = np.broadcast_to(seen.sum(axis=1)[:, None], hits.shape)
    draws = np.random.default_rng(seed).integers(0, about.shape[0], (n_draws, about.shape[0]))
    times = np.stack([np.bincount(d, minlength=about.shape[0]) for d in draws])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits.sum(axis=0) / count.sum(axis=0)
        drawn = np.tensordot(times, hits, 1) / np.tensordot(times, count, 1)
        # what the intervals would give if they were right, times how much less runs tell than
        # as many independent readings; the ratio is taken over all cells, since one alone
        # knows its own spread badly where few readings miss
        binomial = nominal * (1.0 - nominal) / count.sum(axis=0)
        found = np.nansum(_mean((drawn - share[None]) ** 2, (0,)), axis=(1, 2))
        expected = np.nansum(share * (1.0 - share) / count.sum(axis=0), axis=(1, 2))
        # runs never tell more than independent readings, whatever a few of them look like
        dilution = np.maximum(found / np.maximum(expected, 1e-12), 1.0)
        spread = np.sqrt(binomial * dilution[:, None, None])
        apart = np.abs(drawn - share) / spread
    reach = np.quantile(np.where(np.isfinite(apart), apart, 0.0).max(axis=(1, 2, 3)), level)
    # where every reading is inside, the bootstrap sees no spread at all
    half = np.where(np.isfinite(share), max(reach, _SINGLE) * spread, np.nan)
    return CoverageBand(half, np.abs(share - nominal) > half)
