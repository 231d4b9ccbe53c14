"""From a campaign to a fitted hybrid model.

1. The mechanistic model, corrected by a drifting disturbance, is run as a filter and
   smoother over every run. That gives the latent states (noise reduced, gaps filled) and the
   residual rate of every interval with its variance. The mechanism's constants are moved
   towards these rates (`calibrate`), and the pass is repeated.
2. The Gaussian process is fitted to the residual rates.
3. The hybrid model is run as filter and smoother in turn; its states and residuals train the
   final process. This may be repeated.
4. Spreads are read off: what the process does not explain becomes process noise.
"""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from perfusio_jax._core import HOURS_PER_DAY, STATE_ORDER, Key, Result, require_x64
from perfusio_jax.embedding import PRIOR_CLONE
from perfusio_jax.gp import DataWarning, FitReport, MultiTaskRateGP, fit, with_data
from perfusio_jax.hybrid.calibration import CalibrationInfo, calibrate
from perfusio_jax.hybrid.campaign import check_campaign, clones_of, stack_runs, with_lanes
from perfusio_jax.hybrid.disturbance import Disturbance, step_law
from perfusio_jax.hybrid.family import calibrate_family
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone
from perfusio_jax.hybrid.prior import check_mechanism
from perfusio_jax.hybrid.residual_gp import gp_on
from perfusio_jax.hybrid.runs import RunArrays
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.smoothing import (
    Smoothed,
    blank_rows,
    fresh_sd,
    intervals_of,
    mean_nis,
    retarget,
    smooth,
)
from perfusio_jax.hybrid.spread import Spreads, spreads_of
from perfusio_jax.hybrid.untrained import base_model, new_family
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.states import Trajectory

_N = len(STATE_ORDER)


def _with_noise(model: HybridStateSpaceModel, by_clone: Array) -> HybridStateSpaceModel:
    return eqx.tree_at(lambda m: m.embedding.process_sd, model, by_clone)


def _with_gp(
    model: HybridStateSpaceModel,
    gp: MultiTaskRateGP,
    spreads: Spreads,
    reference: ArrayLike,
) -> HybridStateSpaceModel:
    if spreads.by_clone is not None:
        model = _with_noise(model, jnp.asarray(spreads.by_clone))
    return eqx.tree_at(
        lambda m: (m.gp, m.process_sd, m.function_sd, m.base_rows, m.row_reference),
        model,
        (
            gp,
            jnp.asarray(spreads.process, float),
            jnp.asarray(spreads.function, float),
            jnp.sum(gp.data.row_present),
            jnp.asarray(reference, float),
        ),
        is_leaf=lambda node: node is None,
    )


def fit_hybrid(
    trajectories: list[Trajectory],
    *,
    key: Key,
    config: HybridConfig | None = None,
    mech_model: Any = None,
) -> tuple[HybridStateSpaceModel, FitReport]:
    """Campaign to fitted model.

    Args:
        trajectories: Historic runs; NaN where missing.
        key: Random key.
        config: Settings.
        mech_model: Mechanistic prior; `CHOPerfusionModel()` by default.

    Returns:
        The model and the report of its last fit; `report.details` holds the filter's mean
        normalised innovation per pass and the number of rows.

    Raises:
        ConfigError: If the mechanism is of a process the balance does not know.
        DataError: If the campaign cannot train a model.
        PrecisionError: In 32-bit mode.
    """
    require_x64("Fitting a hybrid model")
    config = HybridConfig() if config is None else config
    mech = CHOPerfusionModel() if mech_model is None else mech_model
    check_mechanism(mech)
    check_campaign(trajectories)
    is_movable = config.calibrate and config.use_mechanism and isinstance(mech, CHOPerfusionModel)
    registry = clones_of(trajectories, config)
    runs = with_lanes(
        stack_runs(trajectories, length=config.length, registry=registry), config.lanes
    )
    keys = jax.random.split(key, 8)
    lanes = runs.mask.shape[0]

    law = Disturbance(config.persistence, jnp.full(_N, 0.3, float))
    # a process that knows nothing yet: same structure as the fitted one, so one compile
    data = blank_rows(runs, registry)
    with warnings.catch_warnings():
        # its targets are all zero on purpose
        warnings.simplefilter("ignore", DataWarning)
        blank, _ = gp_on(data, None, config, registry)
        blank = with_data(blank, blank.data)
    family = None if registry is None else new_family(registry, mech, is_movable)
    model = base_model(trajectories, runs, config, (mech, blank, family))
    model = _with_gp(model, blank, Spreads(np.zeros(_N), np.zeros(_N), None), np.ones(_N))
    passes: list[float] = []
    moved: list[CalibrationInfo] = []
    for turn in range(2):
        data, info = smooth(
            model, runs, law, jax.random.split(keys[turn], lanes), config.n_particles
        )
        passes.append(mean_nis(info, runs))
        if is_movable:
            after, moved = _calibrated(model, mech, data, runs)
            data, model = retarget(model, after, data, runs), after
        law = Disturbance(config.persistence, jnp.asarray(fresh_sd(data, config)))
    details: dict[str, Any] = {"nis_per_reading": passes, "calibration": moved}
    gp, reference = gp_on(data, None, config, registry)
    if not config.use_gp:
        return _without_gp(model, data, config), _no_fit(details, data)
    gp, report = fit(gp, key=keys[3], config=config.fit)
    model = _with_gp(model, gp, spreads_of(gp, data, registry), reference)
    for turn in range(config.rounds):
        law = step_law(model)
        data, info = smooth(
            model, runs, law, jax.random.split(keys[4 + turn], lanes), config.n_particles
        )
        passes.append(mean_nis(info, runs))
        gp, reference = gp_on(data, gp, config, registry)
        gp, report = fit(gp, key=keys[3], config=config.fit)
        model = _with_gp(model, gp, spreads_of(gp, data, registry), reference)
    details["rows"] = int(np.asarray(data.steps).sum())
    return model, report._replace(details=details)


def _calibrated(
    model: HybridStateSpaceModel, mech: Any, data: Smoothed, runs: RunArrays
) -> tuple[HybridStateSpaceModel, list[CalibrationInfo]]:
    """The model with constants moved: one set, or one per clone."""
    intervals = intervals_of(model, data, runs)
    if model.embedding is None:
        moved, info = calibrate(mech, model.basis, intervals)
        return eqx.tree_at(lambda m: m.mech_model, model, moved), [info]
    clones = jnp.repeat(jnp.asarray(runs.clone), data.steps.shape[1])
    family, infos = calibrate_family(
        mech, model.basis, intervals, clones, registry=model.embedding.registry
    )
    model = eqx.tree_at(lambda m: m.embedding, model, family)
    return at_clone(model, jnp.asarray(PRIOR_CLONE, float)), infos


def _without_gp(
    model: HybridStateSpaceModel, data: Smoothed, config: HybridConfig
) -> HybridStateSpaceModel:
    """The mechanism alone; what it leaves counts as process noise.

    The error of a mechanism persists from day to day. White noise that leads to the same
    spread over many days is larger by `sqrt((1 + a) / (1 - a))`.
    """
    a = float(config.persistence)
    steps = np.asarray(data.steps)
    spread = np.sqrt(np.mean((np.asarray(data.targets) ** 2)[steps], axis=0))
    # that of a day, told for the interval the model's noise refers to
    share = np.sqrt(HOURS_PER_DAY / float(model.dt_hours))
    sd = jnp.asarray(spread * np.sqrt((1.0 + a) / (1.0 - a)) * share)
    if model.embedding is not None:
        model = _with_noise(model, jnp.broadcast_to(sd, model.embedding.process_sd.shape))
    return eqx.tree_at(
        lambda m: (m.gp, m.process_sd, m.function_sd, m.base_rows),
        model,
        (None, sd, jnp.zeros(_N), jnp.zeros((), int)),
    )


def _no_fit(details: dict[str, Any], data: Smoothed) -> FitReport:
    """Report of a fit in which no process was searched for."""
    nothing = jnp.full((), jnp.nan)
    return FitReport(
        evidence=jnp.zeros(0),
        final=nothing,
        log_evidence=nothing,
        restarts=jnp.zeros(0),
        n_iterations=jnp.zeros((), int),
        converged=True,
        result=Result.SUCCESS,
        condition_number=nothing,
        optimiser="none",
        at_bounds=(),
        details={**details, "rows": int(np.asarray(data.steps).sum())},
    )
