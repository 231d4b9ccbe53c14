"""The model before a process is fitted: mechanism, scales and clones."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from perfusio_jax._core import HOURS_PER_DAY, STATE_ORDER
from perfusio_jax._core.programs import compiled
from perfusio_jax.chemistry import balance_rates, perfusion_flows, to_balanced
from perfusio_jax.embedding import CloneRegistry
from perfusio_jax.gp import MultiTaskRateGP
from perfusio_jax.hybrid.calibration import N_CONSTANTS
from perfusio_jax.hybrid.campaign import filled
from perfusio_jax.hybrid.diameter import fit_diameter
from perfusio_jax.hybrid.family import CloneFamily
from perfusio_jax.hybrid.layout import CHO, Layout
from perfusio_jax.hybrid.model import HybridStateSpaceModel, InitialState
from perfusio_jax.hybrid.observation import AssayNoise, LatentMap, to_latent
from perfusio_jax.hybrid.runs import RunArrays
from perfusio_jax.hybrid.settings import ASSAY_FLOOR, HybridConfig
from perfusio_jax.hybrid.transition import Limits, ResidualBasis, prior_step
from perfusio_jax.states import Trajectory

_N = len(STATE_ORDER)
_CELLS_OFFSET = (0.5, 0.5, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)
_SMALLEST_OFFSET = (0.05, 0.02, 0.05, 0.02, 0.02, 0.05, 0.02, 0.02, 2.0)
_TYPICAL_STATE = (20.0, 0.8, 4.0, 3.0, 0.8, 8.0, 2.0, 0.8, 200.0)
_TYPICAL_CONTROLS = (1.0, 0.15, 4.0, 36.5, 850.0, 1.0)
_SUBSTRATES = ("Gln", "Pyr")
_DEFAULT_FACE = (0.8, 96.0, 5.0, 5.0, 0.7, 1.0, 0.8, 0.5, 10.0)
"""First sample of a run in what nobody measures."""
_WITHOUT_WEIGHT = 1e9
"""Unit of a residual that nothing is to be learned from."""
_UNTRAINED_ERROR = 0.25
"""Relative error of the mechanism's rates for a clone it was not made for [-]."""


_balanced = compiled(to_balanced)


def base_model(
    trajectories: list[Trajectory],
    runs: RunArrays,
    config: HybridConfig,
    parts: tuple[Any, MultiTaskRateGP, CloneFamily | None],
    layout: Layout = CHO,
) -> HybridStateSpaceModel:
    """Scales, diameter and start read off the raw data, around mechanism, process, clones."""
    mech, blank, family = parts
    face = filled(np.asarray(runs.face), np.asarray(runs.times_h), np.asarray(_DEFAULT_FACE))
    mask = np.asarray(runs.mask)
    states = np.asarray(_balanced(jnp.asarray(face, float)))
    typical = np.median(states[mask], axis=0)
    latent = LatentMap(np.maximum(0.03 * typical, np.asarray(_SMALLEST_OFFSET)), layout)
    first = np.asarray(to_latent(latent, states[:, 0]))[mask[:, 0]]
    initial = InitialState(first.mean(axis=0), np.maximum(1.5 * first.std(axis=0), 0.3))

    steps = mask[:, 1:] & mask[:, :-1]
    dt = np.diff(np.asarray(runs.times_h), axis=1)
    offset = np.asarray(_CELLS_OFFSET)
    per_cell = np.asarray(_raw_rates(jnp.asarray(states), runs, mech)) / (
        offset + np.sqrt(states[:, :-1, :1] * states[:, 1:, :1])
    )
    half = np.where(np.isin(STATE_ORDER, _SUBSTRATES), typical, 0.0) if config.use_mechanism else 0
    half = np.broadcast_to(half, (_N,))
    scale = np.sqrt(np.mean(np.clip(per_cell[steps], -1e6, 1e6) ** 2, axis=0)) + 1e-9
    # rates of what nobody measures are the mechanism's own, and say nothing about it
    scale[list(layout.latent)] = _WITHOUT_WEIGHT
    return HybridStateSpaceModel(
        mech,
        blank,
        family,
        dt_hours=float(np.median(dt[steps])),
        basis=ResidualBasis(scale, offset, np.ones(_N), half),
        limits=Limits(),
        assay=config.assay,
        latent=latent,
        initial=initial,
        diameter=fit_diameter(trajectories, mech),
        use_mechanism=config.use_mechanism,
    )


@compiled
def _raw_rates(states: Array, runs: RunArrays, mech: Any) -> Array:
    """Balance rates straight from the gap-filled samples: orders of magnitude, no more."""
    fed = jnp.nan_to_num(runs.feed_L[:, 1:])
    volume, dt = jnp.asarray(mech.volume_L), jnp.diff(runs.times_h, axis=1)
    flows = perfusion_flows(runs.controls[:, :-1], volume, fed, mech.medium, dt, mech.sieving)
    return balance_rates(states[:, :-1], states[:, 1:], volume, volume, flows, dt)


def untrained_model(mech: Any) -> HybridStateSpaceModel:
    """The mechanism before any data of the clone: its rates may be off by a quarter.

    Args:
        mech: Mechanistic model.

    Returns:
        A model without a process whose forecasts say how little is known.
    """
    state, controls = jnp.asarray(_TYPICAL_STATE), jnp.asarray(_TYPICAL_CONTROLS)
    prior = prior_step(mech, state, controls, jnp.asarray(HOURS_PER_DAY))
    offset = jnp.asarray(_CELLS_OFFSET)
    scale = jnp.maximum(jnp.abs(prior.rates), 0.02 * (state + 0.1) / HOURS_PER_DAY)
    basis = ResidualBasis(scale / (offset + prior.reference), offset, jnp.ones(_N))
    a = float(HybridConfig().persistence)
    spread = jnp.full(_N, _UNTRAINED_ERROR * np.sqrt((1.0 + a) / (1.0 - a)))
    return HybridStateSpaceModel(
        mech,
        None,
        basis=basis,
        limits=Limits(),
        process_sd=spread,
        assay=AssayNoise(floor=ASSAY_FLOOR),
    )


def new_family(registry: CloneRegistry, mech: Any, is_movable: bool, n: int = _N) -> CloneFamily:
    """Clones that all have the mechanism's own constants."""
    start = jnp.zeros(N_CONSTANTS)
    if is_movable:
        start = start.at[-1].set(4.0 if float(mech.kinetics.consumes_lactate) > 0.5 else -4.0)
    many = jnp.broadcast_to(start[None, :], (registry.n_clones, N_CONSTANTS))
    closed = jnp.zeros((registry.n_clones, N_CONSTANTS, N_CONSTANTS))
    quiet = jnp.zeros((registry.n_clones, n))
    return CloneFamily(
        registry, mech, many, start, closed, jnp.zeros(N_CONSTANTS), quiet, is_calibrated=is_movable
    )
