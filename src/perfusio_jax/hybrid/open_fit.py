"""From a campaign of a described culture to a fitted model.

As `fit.py` does it for CHO perfusion: smooth, move the mechanism's constants towards the rates,
smooth again, learn what is left, and read the spreads off. The rates of a culture without a
mechanism are learned whole, so they may move from sample to sample.
"""

import dataclasses
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, Key
from perfusio_jax.gp import DataWarning, FitReport, fit, with_data
from perfusio_jax.hybrid.campaign import (
    check_campaign,
    clones_of,
    in_steps,
    stack_runs,
    with_lanes,
)
from perfusio_jax.hybrid.disturbance import Disturbance, step_law
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.open_start import open_model, recalibrated
from perfusio_jax.hybrid.residual_gp import gp_on
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.smoothing import Smoothed, blank_rows, fresh_sd, mean_nis, smooth
from perfusio_jax.hybrid.spread import Spreads, spreads_of
from perfusio_jax.hybrid.untrained import new_family
from perfusio_jax.hybrid.vessel import Vessel
from perfusio_jax.hybrid.with_process import with_gp, without_gp
from perfusio_jax.mechanistic.cho_cells import cho_cells
from perfusio_jax.mechanistic.mechanism import Mechanism
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory

PASSES = 3
"""Passes of the smoother before a process is learned."""
_RATE_STAYS = 0.6
"""Part of a rate that stays from one sample to the next [-]."""
_LEAST_SPREAD = 0.1
"""Of the logarithm of a first state between runs [-]."""
_WHOLE, _REST = 0.8, 0.4
"""First guess of what is new of a rate in every interval, without a mechanism and with one [units
of the residual]."""


def fit_open(
    trajectories: list[Trajectory],
    process: Process,
    *,
    key: Key,
    config: HybridConfig,
    kinetics: Any = None,
) -> tuple[HybridStateSpaceModel, FitReport]:
    """`fit_hybrid` for a culture that is described.

    Args:
        trajectories: Runs; NaN where missing. Long intervals are taken in steps.
        process: The culture.
        key: Random key.
        config: Settings; those of the CHO mechanism and of its assays have no part in it.
        kinetics: Mechanism; "monod" or None for a plain one, "cho" for `cho_cells`, "none" for
            none.

    Returns:
        The model and the report of its last fit.

    Raises:
        ConfigError: If the mechanism does not fit the process.
        DataError: If the campaign cannot train a model.
    """
    if kinetics == "cho":
        kinetics = cho_cells(process)
    if isinstance(kinetics, str) and kinetics not in ("monod", "none"):
        raise ConfigError(
            f"mechanism {kinetics!r} is unknown; allowed are 'monod', 'none', 'cho', a Mechanism."
        )
    if not (kinetics is None or isinstance(kinetics, str | Mechanism)):
        raise ConfigError(
            f"a {type(kinetics).__name__} was given as mechanism of {process.name}; a described "
            "culture takes a Mechanism, whose `rates` go by names."
        )
    vessel = Vessel(process, kinetics if isinstance(kinetics, Mechanism) else None)
    layout = vessel.layout
    check_campaign(trajectories, layout)
    trajectories = in_steps(trajectories, process, config.cut_h)
    stays = _stays(trajectories)
    config = dataclasses.replace(config, use_mechanism=False, persistence=jnp.asarray(stays))
    registry = clones_of(trajectories, config)
    runs = with_lanes(
        stack_runs(trajectories, length=config.length, registry=registry, layout=layout),
        config.lanes,
    )
    data = blank_rows(runs, registry, layout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # its targets are all zero on purpose
        blank, _ = gp_on(data, None, config, registry, layout)
        blank = with_data(blank, blank.data)
    family = None if registry is None else new_family(registry, vessel, False, layout.n)
    model = open_model(vessel, runs, blank, family, is_plain=kinetics in (None, "monod"))
    nothing = Spreads(np.zeros(layout.n), np.zeros(layout.n), None)
    model = with_gp(model, blank, nothing, np.ones(layout.n))

    keys = jax.random.split(key, PASSES + config.rounds + 1)
    lanes, passes, moved = runs.mask.shape[0], [], []
    centre = model.mech_model.kinetics
    has_mechanism = centre is not None
    law = Disturbance(
        config.persistence, jnp.full(layout.n, _REST if has_mechanism else _WHOLE, float)
    )
    for turn in range(PASSES):
        data, info = smooth(
            model, runs, law, jax.random.split(keys[turn], lanes), config.n_particles
        )
        passes.append(mean_nis(info, runs))
        if turn < PASSES - 1 and config.calibrate:
            model, step = recalibrated(model, data, centre)
            moved += [] if step is None else [step]
        model = _restarted(model, data)
        law = Disturbance(config.persistence, jnp.asarray(_fresh(data, config)))
    details: dict[str, Any] = {"nis_per_reading": passes, "calibration": moved}
    gp, reference = gp_on(data, None, config, registry, layout)
    if not config.use_gp:
        return without_gp(model, data, config, details)
    gp, report = fit(gp, key=keys[-1], config=config.fit)
    model = with_gp(model, gp, _bounded(spreads_of(gp, data, registry)), reference)
    for turn in range(config.rounds):
        data, info = smooth(
            model,
            runs,
            step_law(model),
            jax.random.split(keys[PASSES + turn], lanes),
            config.n_particles,
        )
        passes.append(mean_nis(info, runs))
        gp, reference = gp_on(data, gp, config, registry, layout)
        gp, report = fit(gp, key=keys[-1], config=config.fit)
        model = with_gp(model, gp, _bounded(spreads_of(gp, data, registry)), reference)
    details["rows"] = int(np.asarray(data.steps).sum())
    return model, report._replace(details=details)


def _stays(trajectories: list[Trajectory]) -> float:
    """Persistence of a rate over a day, told for the campaign's own intervals."""
    apart = np.concatenate([np.diff(np.asarray(t.times_h, float)) for t in trajectories])
    return float(_RATE_STAYS ** (HOURS_PER_DAY / np.median(apart)))


def _fresh(data: Smoothed, config: HybridConfig) -> np.ndarray:
    """What is new of a rate each interval: told for a day, as `Disturbance` takes it.

    Where nothing is left to be taken up, no sample tells at which rate it would be; such rates keep
    the spread they were given, and must not widen that of the others. A unit is what rates usually
    are, so more than one of them cannot be new.
    """
    return np.clip(fresh_sd(data, config), 0.05, 1.0)


def _restarted(model: HybridStateSpaceModel, data: Smoothed) -> HybridStateSpaceModel:
    """Belief before the first sample, from how the runs began as all their samples tell it.

    First samples are thin and badly read; that inocula resemble each other is worth more.
    """
    inside = np.asarray(data.steps)[:, 0]
    first = jnp.asarray(np.asarray(data.inputs)[inside, 0, : model.layout.n])
    latent = np.asarray(model.latent.forward(first))
    wide = np.sqrt((inside.sum() + 1.0) / inside.sum()) * latent.std(axis=0, ddof=1)
    return eqx.tree_at(
        lambda m: (m.initial.mean, m.initial.sd),
        model,
        (jnp.asarray(latent.mean(axis=0)), jnp.asarray(np.maximum(wide, _LEAST_SPREAD))),
    )


def _bounded(spreads: Spreads) -> Spreads:
    """Spreads of no more than rates usually are, for the same reason."""
    by_clone = spreads.by_clone
    return Spreads(
        np.minimum(spreads.process, 1.0),
        np.minimum(spreads.function, 1.0),
        None if by_clone is None else np.minimum(by_clone, 1.0),
    )
