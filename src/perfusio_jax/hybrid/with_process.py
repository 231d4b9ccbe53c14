"""A hybrid model with what was learned put in, or without it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from perfusio_jax._core import HOURS_PER_DAY, Result
from perfusio_jax.gp import FitReport, MultiTaskRateGP
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.smoothing import Smoothed
from perfusio_jax.hybrid.spread import Spreads


def _with_noise(model: HybridStateSpaceModel, by_clone: Array) -> HybridStateSpaceModel:
    return eqx.tree_at(lambda m: m.embedding.process_sd, model, by_clone)


def with_gp(
    model: HybridStateSpaceModel,
    gp: MultiTaskRateGP,
    spreads: Spreads,
    reference: ArrayLike,
) -> HybridStateSpaceModel:
    """The model with a fitted process, what it leaves open, and the variance of its targets."""
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


def without_gp(
    model: HybridStateSpaceModel, data: Smoothed, config: HybridConfig, details: dict[str, Any]
) -> tuple[HybridStateSpaceModel, FitReport]:
    """The mechanism alone, and the report of a fit in which no process was searched for."""
    return _alone(model, data, config), _no_fit(details, data)


def _alone(
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
        (None, sd, jnp.zeros(model.layout.n), jnp.zeros((), int)),
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
