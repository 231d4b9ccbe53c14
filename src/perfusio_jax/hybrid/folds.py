"""Cross-validation: whole runs left out, the others fitted to, and the former forecast.

Every run is left out once, but for the only run of a clone: without it nobody would know the clone,
so that there is nothing to judge. Two runs of a clone are never left out together where that can be
helped.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from perfusio_jax._core import (
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    ConfigError,
    DataError,
    Key,
    on_device,
)
from perfusio_jax.hybrid.campaign import (
    clones_of,
    in_steps,
    stack_runs,
    too_short,
    unmeasured,
)
from perfusio_jax.hybrid.evaluate import Forecasts, forecast_unseen
from perfusio_jax.hybrid.fit import fit_hybrid
from perfusio_jax.hybrid.layout import Layout
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.vessel import Vessel
from perfusio_jax.mechanistic.mechanism import Mechanism
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory, usual_step_h

_FEWEST = 3
"""Runs: one is left out, and two train."""


class Validation(NamedTuple):
    """Forecasts of every run by a model that has not seen it, H steps of `step_h` ahead."""

    forecasts: Forecasts
    """One entry per run, in the campaign's order."""
    readings: Float[np.ndarray, "R T F"]
    """What was measured; NaN where missing or beyond a run's end."""
    fold_of_run: Int[np.ndarray, " R"]
    """The fold in which a run was left out; -1 where none leaves it out."""
    nis: Float[np.ndarray, " F"]
    """Last normalised innovation per reading in training, per fold [-]."""
    times_h: Float[np.ndarray, "R T"]
    """When it was measured [h]; NaN beyond a run's end."""
    names: tuple[str, ...] = FORECAST_SPECIES
    """What is forecast."""
    ahead_h: tuple[float, ...] = ()
    """How far ahead each of the H steps is meant to lie [h]."""


def readings_of(
    trajectories: Sequence[Trajectory], length: int, names: tuple[str, ...] = FORECAST_SPECIES
) -> Float[np.ndarray, "R T F"]:
    """Measured values of runs, padded with NaN; the limit of an assay is none.

    Args:
        trajectories: R runs.
        length: Rows T of the table, at least the samples of the longest run.
        names: Species wanted; one that a run does not have is NaN.

    Returns:
        Readings in the units of the species.
    """
    table = np.full((len(trajectories), length, len(names)), np.nan)
    for row, run in zip(table, trajectories, strict=True):
        row[: run.n_days] = run.host_readings(names)
    return table


def at_steps(found: Validation, steps: Sequence[int]) -> Validation:
    """The same with some of its steps only.

    Args:
        found: From `cross_validate`.
        steps: Which, counted from 1.
    """
    pick = np.asarray(steps, int) - 1
    kept = found.forecasts._replace(
        **{
            name: np.asarray(getattr(found.forecasts, name))[:, :, pick]
            for name in Forecasts._fields
            if name != "start"
        }
    )
    return found._replace(forecasts=kept, ahead_h=tuple(found.ahead_h[k] for k in pick))


def cross_validate(
    trajectories: list[Trajectory],
    *,
    key: Key,
    config: HybridConfig | None = None,
    n_folds: int = 5,
    horizon: int = 7,
    n_paths: int = 128,
    mech_model: Any = None,
    on_fold: Callable[[int, int], None] | None = None,
    process: Process | None = None,
    step_h: float = HOURS_PER_DAY,
) -> Validation:
    """Leave whole runs out, fit on the others, forecast them from each of their samples.

    Args:
        trajectories: Runs of a campaign.
        key: Random key; shuffles the runs over the folds, too.
        config: Settings of the fits.
        n_folds: Number of folds; as many as runs leaves out one at a time.
        horizon: Steps ahead; days where a step is one.
        n_paths: Paths per forecast.
        mech_model: Mechanistic prior; `CHOPerfusionModel()` by default.
        on_fold: Called with the fold's number and their count before each fit.
        process: A culture that is described, in place of CHO perfusion.
        step_h: Length of a step [h]; see `pair_by_time`.

    Returns:
        Forecasts of all runs.

    Raises:
        DataError: If a fold would leave fewer than two runs to train on, or a quantity without a
            reading.
        ConfigError: If the number of folds does not fit.
    """
    config = HybridConfig() if config is None else config
    if process is not None:
        cut_h = usual_step_h(trajectories) if config.cut_h is None else config.cut_h
        config = dataclasses.replace(config, cut_h=cut_h)  # for the fits, too: folds differ
        trajectories = in_steps(trajectories, process, cut_h)
    n = len(trajectories)
    if n < _FEWEST:
        raise DataError(
            f"{n} run(s): with one left out, fewer than two runs are left to train on; at least "
            f"{_FEWEST} are needed."
        )
    for_order, for_fit, for_forecast = jax.random.split(key, 3)
    fold = _folds(trajectories, config, n_folds, for_order)
    _check_lengths(trajectories, fold)
    if process is not None:
        _check_folds(trajectories, fold, _layout(process, mech_model))
    length = max(t.n_days for t in trajectories)
    longest = length if config.length is None else config.length
    counts = np.bincount(fold[fold >= 0], minlength=n_folds)
    # every fold has the same shapes, those of a fit to all runs: one compile for all
    config = dataclasses.replace(config, length=longest, lanes=n)
    names = FORECAST_SPECIES if process is None else _layout(process, mech_model).forecast
    readings = readings_of(trajectories, longest, names)
    size = int(counts.max())
    parts: dict[int, Forecasts] = {}
    nis = []
    for k in range(n_folds):
        if on_fold is not None:
            on_fold(k, n_folds)
        out = np.flatnonzero(fold == k)
        model, report = fit_hybrid(
            [trajectories[i] for i in np.flatnonzero(fold != k)],
            key=jax.random.fold_in(for_fit, k),
            config=config,
            mech_model=mech_model,
            process=process,
        )
        nis.append(report.details["nis_per_reading"][-1])
        registry = None if model.embedding is None else model.embedding.registry
        padded = np.resize(out, size)
        runs = stack_runs(
            [trajectories[i] for i in padded],
            length=longest,
            registry=registry,
            layout=model.layout,
        )
        found = forecast_unseen(
            model,
            runs,
            on_device(readings[padded]),
            key=jax.random.fold_in(for_forecast, k),
            starts=tuple(range(length - 1)),
            horizon=horizon,
            n_paths=n_paths,
            step_h=step_h,
        )
        found = jax.tree.map(np.asarray, found)
        for lane, i in enumerate(out):
            parts[int(i)] = jax.tree.map(lambda v, lane=lane: v[lane], found)
    unseen = _blank(next(iter(parts.values())))
    whole = jax.tree.map(lambda *v: np.stack(v), *(parts.get(i, unseen) for i in range(n)))
    if process is not None:
        whole = _from_samples(whole, readings)
    times = np.full((n, longest), np.nan)
    for row, run in zip(times, trajectories, strict=True):
        row[: run.n_days] = np.asarray(run.times_h, float)
    ahead = tuple(float(step_h * (h + 1)) for h in range(horizon))
    return Validation(whole, readings, fold, np.asarray(nis), times, names, ahead)


def never_left_out(
    trajectories: Sequence[Trajectory], config: HybridConfig | None = None
) -> list[int]:
    """Runs that are the only one of their clone, in a campaign of several clones.

    Args:
        trajectories: Runs of a campaign.
        config: Settings of the fits; they say whether clones are told apart.
    """
    if clones_of(list(trajectories), HybridConfig() if config is None else config) is None:
        return []
    clones = [t.clone_id for t in trajectories]
    return [i for i, clone in enumerate(clones) if clones.count(clone) == 1]


def _layout(process: Process, mech_model: Any) -> Layout:
    kinetics = mech_model if isinstance(mech_model, Mechanism) else None
    return Vessel(process, kinetics).layout


def _folds(
    trajectories: list[Trajectory], config: HybridConfig, n_folds: int, key: Key
) -> Int[np.ndarray, " R"]:
    """Fold of each run; -1 for the only run of a clone among several."""
    n = len(trajectories)
    clones = np.asarray([t.clone_id for t in trajectories])
    several = clones_of(trajectories, config) is not None
    judged = np.setdiff1d(np.arange(n), never_left_out(trajectories, config))
    m = judged.size
    if several and m < 2:
        raise DataError(
            f"{n} runs of {n} clones: without its only run nobody knows a clone, so no run can be "
            "left out. More runs of a clone are needed, or one name for all."
        )
    if not 2 <= n_folds <= m:
        what = "the number of runs"
        if m < n:
            what += f" that are not the only one of their clone ({m} of {n})"
        raise ConfigError(f"n_folds={n_folds}; allowed are 2 to {m}, {what}.")
    if n - -(-m // n_folds) < 2:
        raise DataError(
            f"{n} runs in {n_folds} folds leave fewer than two runs to train on; more runs or "
            "more folds are needed."
        )
    fold = np.full(n, -1)
    fold[judged[np.asarray(jax.random.permutation(key, m))]] = np.arange(m) % n_folds
    return _apart(fold, clones) if several else fold


def _apart(fold: np.ndarray, clones: np.ndarray) -> np.ndarray:
    """Folds in which no clone is left out whole, by exchanging runs where one would be."""

    def together(folds: np.ndarray) -> list[Any]:
        return [c for c in dict.fromkeys(clones.tolist()) if _is_whole(folds[clones == c])]

    bad = together(fold)
    while bad:
        better = None
        i = int(np.flatnonzero(clones == bad[0])[-1])
        for j in np.flatnonzero((fold >= 0) & (fold != fold[i])):
            tried = fold.copy()
            tried[[i, j]] = fold[[j, i]]
            if len(together(tried)) < len(bad):
                better = tried
                break
        if better is None:
            raise DataError(
                f"clone {bad[0]}: all its runs would be left out together, whatever the folds; "
                "more folds or more runs are needed."
            )
        fold, bad = better, together(better)
    return fold


def _is_whole(folds: np.ndarray) -> bool:
    """Whether one fold leaves all of these runs out."""
    return bool(folds[0] >= 0 and np.all(folds == folds[0]))


def _check_lengths(trajectories: list[Trajectory], fold: np.ndarray) -> None:
    """Refuse at once folds that leave fewer than two runs from which anything can be learned."""
    is_long = np.asarray([t.n_days > 1 for t in trajectories])
    fewest = min(int(np.sum(is_long & (fold != k))) for k in range(int(fold.max()) + 1))
    if fewest < _FEWEST - 1:
        raise DataError(
            f"{int(is_long.sum())} of {len(trajectories)} runs have two samples or more"
            f"{too_short(trajectories)}: with those of a fold left out, {fewest} would be left to "
            f"train on, and {_FEWEST - 1} are needed. More runs or more folds would do."
        )


def _check_folds(trajectories: list[Trajectory], fold: np.ndarray, layout: Layout) -> None:
    """Refuse at once what a later fold would refuse: a quantity without readings in training."""
    all_of_it = set(unmeasured(trajectories, layout))
    for k in range(int(fold.max()) + 1):
        rest = [t for t, f in zip(trajectories, fold, strict=True) if f != k]
        never = set(unmeasured(rest, layout)) - {layout.face[i] for i in layout.latent}
        if never - all_of_it:
            ids = [t.run_id for t, f in zip(trajectories, fold, strict=True) if f == k]
            raise DataError(
                f"{', '.join(sorted(never - all_of_it))} was measured in run(s) {', '.join(ids)} "
                "only, which are left out together: nothing is left to learn it from. Leave the "
                "column out, or say is_measured = false of it in the process."
            )


def _blank(found: Forecasts) -> Forecasts:
    """Forecasts of a run that no fold leaves out: none."""
    blank = jax.tree.map(
        lambda v: np.full_like(v, np.nan) if np.issubdtype(v.dtype, np.floating) else v, found
    )
    return blank._replace(is_inside=np.zeros_like(found.is_inside))


def _from_samples(found: Forecasts, readings: np.ndarray) -> Forecasts:
    """Forecasts from samples only, not from rows that cut a long interval into steps.

    What lies six hours after such a row lies longer after the last sample.
    """
    is_read = np.isfinite(readings).any(axis=-1)
    begins = np.take_along_axis(is_read, found.start, axis=1)[..., None]
    keep = begins & found.is_inside
    return found._replace(
        is_inside=keep,
        position=np.where(keep[..., None], found.position, np.nan),
        crps=np.where(keep[..., None], found.crps, np.nan),
    )
