"""From a campaign to a fitted hybrid model.

1. The mechanistic model, corrected by a drifting disturbance, is run as a filter and
   smoother over every run. That gives the latent states (noise reduced, gaps filled) and the
   residual rate of every interval with its variance. The mechanism's constants are moved
   towards these rates (`calibrate`), and the pass is repeated.
2. The Gaussian process is fitted to the residual rates.
3. The hybrid model is run as filter and smoother in turn; its states and residuals train the
   final process. This may be repeated.
4. Spreads are read off: what the process does not explain becomes process noise. A clone with few
   runs is granted more (`few_runs`).
"""

import dataclasses
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Key, on_device, require_x64
from perfusio_jax.embedding import PRIOR_CLONE
from perfusio_jax.gp import DataWarning, FitReport, fit, with_data
from perfusio_jax.hybrid.calibration import CalibrationInfo, calibrate
from perfusio_jax.hybrid.campaign import (
    check_campaign,
    clones_of,
    stack_runs,
    unmeasured,
    with_lanes,
)
from perfusio_jax.hybrid.diameter import fit_diameters
from perfusio_jax.hybrid.disturbance import Disturbance, step_law
from perfusio_jax.hybrid.family import calibrate_family
from perfusio_jax.hybrid.few_runs import widened
from perfusio_jax.hybrid.layout import CHO, Layout
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone
from perfusio_jax.hybrid.open_fit import fit_open
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
from perfusio_jax.hybrid.with_process import with_gp, without_gp
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory

_NEEDED = ("VCD",)
"""Readings without which the mechanism of CHO perfusion means nothing: cells."""


def fit_hybrid(
    trajectories: list[Trajectory],
    *,
    key: Key,
    config: HybridConfig | None = None,
    mech_model: Any = None,
    process: Process | None = None,
) -> tuple[HybridStateSpaceModel, FitReport]:
    """Campaign to fitted model.

    With a mechanism, species that nobody measured stay latent: the mechanism moves them, the
    process learns nothing of them and does not read them. A culture that is described and has no
    mechanism is learned from its data alone, on the exact balance of what flows.

    Args:
        trajectories: Historic runs; NaN where missing.
        key: Random key.
        config: Settings.
        mech_model: Mechanistic prior; `CHOPerfusionModel()` by default. Beside a process a
            `Mechanism`, or "monod", "cho" or "none"; the plain Monod by default.
        process: A culture that is described, in place of CHO perfusion.

    Returns:
        The model and the report of its last fit; `report.details` holds the filter's mean
        normalised innovation per pass and the number of rows.

    Raises:
        ConfigError: If the mechanism is of a process the balance does not know, or does not fit
            the one that is described.
        DataError: If the campaign cannot train a model.
        PrecisionError: In 32-bit mode.
    """
    require_x64("Fitting a hybrid model")
    config = HybridConfig() if config is None else config
    if process is not None:
        return fit_open(trajectories, process, key=key, config=config, kinetics=mech_model)
    mech = CHOPerfusionModel() if mech_model is None else mech_model
    check_mechanism(mech)
    layout = _layout(trajectories, config)
    check_campaign(trajectories, layout)
    n = layout.n
    is_movable = config.calibrate and config.use_mechanism and isinstance(mech, CHOPerfusionModel)
    registry = clones_of(trajectories, config)
    runs = with_lanes(
        stack_runs(trajectories, length=config.length, registry=registry, layout=layout),
        config.lanes,
    )
    keys = jax.random.split(key, 8)
    lanes = runs.mask.shape[0]

    law = Disturbance(config.persistence, on_device(np.full(n, 0.3)))
    # a process that knows nothing yet: same structure as the fitted one, so one compile
    data = blank_rows(runs, registry, layout)
    with warnings.catch_warnings():
        # its targets are all zero on purpose
        warnings.simplefilter("ignore", DataWarning)
        blank, _ = gp_on(data, None, config, registry, layout)
        blank = with_data(blank, blank.data)
    family = None
    if registry is not None:
        widths = jnp.asarray(fit_diameters(trajectories, mech, registry))
        family = dataclasses.replace(
            new_family(registry, mech, is_movable, layout.n), diameters=widths
        )
    model = base_model(trajectories, runs, config, (mech, blank, family), layout)
    model = with_gp(model, blank, Spreads(np.zeros(n), np.zeros(n), None), np.ones(n))
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
    gp, reference = gp_on(data, None, config, registry, layout)
    if not config.use_gp:
        return without_gp(model, data, config, details)
    gp, report = fit(gp, key=keys[3], config=config.fit)
    model = with_gp(model, gp, spreads_of(gp, data, registry), reference)
    for turn in range(config.rounds):
        law = step_law(model)
        data, info = smooth(
            model, runs, law, jax.random.split(keys[4 + turn], lanes), config.n_particles
        )
        passes.append(mean_nis(info, runs))
        gp, reference = gp_on(data, gp, config, registry, layout)
        gp, report = fit(gp, key=keys[3], config=config.fit)
        model = with_gp(model, gp, spreads_of(gp, data, registry), reference)
    details["rows"] = int(np.asarray(data.steps).sum())
    if model.embedding is not None:
        ids = [t.clone_id for t in trajectories if t.n_days >= 2]
        n_runs = np.asarray([ids.count(name) for name in model.embedding.registry.names])
        family = widened(model.embedding, n_runs)
        model = eqx.tree_at(lambda m: m.embedding, model, family)
    return model, report._replace(details=details)


def _layout(trajectories: list[Trajectory], config: HybridConfig) -> Layout:
    """Columns of CHO perfusion, with those latent that nobody measured."""
    if not config.use_mechanism:
        return CHO  # nothing would move what nobody measured
    never = [name for name in unmeasured(trajectories) if name not in _NEEDED]
    return CHO.without(never) if never else CHO


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
    family = dataclasses.replace(family, diameters=model.embedding.diameters)
    model = eqx.tree_at(lambda m: m.embedding, model, family)
    return at_clone(model, jnp.asarray(PRIOR_CLONE, float)), infos
