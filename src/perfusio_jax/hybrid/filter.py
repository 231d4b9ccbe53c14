"""The filter, sample by sample: an ensemble Kalman filter on the hybrid model.

The ensemble lives in `z = log(c + offset)`; its analysis is that of `ensemble.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, Key, Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid.belief import Belief
from perfusio_jax.hybrid.disturbance import mean_residual, process_sd_over, step_sd
from perfusio_jax.hybrid.ensemble import (
    FilterInfo,
    censored_update,
    centred_noise,
    ensemble_update,
)
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.observation import (
    predict_reading,
    reading_sd,
    transform_limits,
    transform_reading,
)
from perfusio_jax.hybrid.step import step_batch

_FEED_UNIT = 0.002
"""Offset of the feed's logarithm as a fraction of the working volume [-]."""


def update_states(
    model: HybridStateSpaceModel,
    members: Array,
    feed: Array,
    face: Array,
    glucose_L: Array,
    limits: Array | None = None,
) -> tuple[Array, FilterInfo]:
    """Update of members whose first columns are the latent state.

    Args:
        model: Hybrid model.
        members: Ensemble.
        feed: Concentrated glucose fed to each member [L].
        face: Sample; NaN where missing.
        glucose_L: Totalised concentrated glucose [L].
        limits: Limits of assays in the place of readings, below and above; None if there is none
            in the run.
    """
    unit = _FEED_UNIT * jnp.asarray(model.mech_model.volume_L)
    if limits is not None:
        face = jnp.where(jnp.isnan(limits).all(axis=-1), face, jnp.nan)

    def expected(members: Array) -> tuple[Array, Array]:
        states = model.latent.inverse(members[:, : model.layout.n])
        sd = reading_sd(model.assay, model.latent, jnp.mean(states, axis=0), jnp.mean(feed), unit)
        return predict_reading(model.latent, states, feed, unit), sd

    predicted, sd = expected(members)
    reading = transform_reading(model.latent, face, glucose_L, unit)
    members, info = ensemble_update(members, predicted, reading, sd)
    if limits is None:
        return members, info
    predicted, sd = expected(members)
    low, high = transform_limits(model.latent, limits, unit)
    members, log_likelihood = censored_update(members, predicted, low, high, sd)
    return members, info._replace(log_likelihood=info.log_likelihood + log_likelihood)


def initial_belief(
    model: HybridStateSpaceModel,
    measurement: Float[ArrayLike, " 9"] | None = None,
    *,
    key: Key,
    n_particles: int = 128,
    day: float | Scalar = 0.0,
) -> Belief:
    """Belief at the start of a run.

    Args:
        model: Hybrid model; its `initial` is the prior.
        measurement: First sample in `STATE_ORDER`, NaN where missing; None for no sample.
        key: Random key.
        n_particles: Size of the ensemble.
        day: Culture day [d].

    Returns:
        Belief after the first sample.
    """
    members = _start(model, key, n_particles)
    at = jnp.asarray(day, float)
    if measurement is None:
        return Belief(model.latent.inverse(members), at)
    face = jnp.asarray(measurement, float)
    return Belief(_first_update(model, members, face), at)


def _start(model: HybridStateSpaceModel, key: Key, n_particles: int) -> Array:
    draws = jax.random.normal(key, (n_particles, model.layout.n))
    draws = draws - jnp.mean(draws, axis=0, keepdims=True)
    return model.initial.mean[None, :] + model.initial.sd[None, :] * draws


@compiled
def _first_update(model: HybridStateSpaceModel, members: Array, face: Array) -> Array:
    nothing = jnp.zeros(members.shape[0])
    updated, _ = update_states(model, members, nothing, face, jnp.full((), jnp.nan))
    return model.latent.inverse(updated)


def filter_step(
    model: HybridStateSpaceModel,
    belief: Belief,
    u: Float[Array, " 6"],
    glucose_L: Float[ArrayLike, ""] | None,
    measurement: Float[Array, " 9"],
    dt_h: Float[ArrayLike, ""],
    *,
    key: Key,
) -> tuple[Belief, FilterInfo]:
    """One interval forward, then the sample at its end.

    Args:
        model: Hybrid model.
        belief: Belief at the start of the interval.
        u: Set-points that acted, in `CONTROL_NAMES` order.
        glucose_L: Totalised concentrated glucose of the interval [L]; None or NaN if unknown.
        measurement: Sample in `STATE_ORDER`; NaN where missing, all NaN for no sample.
        dt_h: Length of the interval [h].
        key: Random key.

    Returns:
        Belief at the end and diagnostics. A belief that online readings carried into the interval
        keeps what they know of it; `dt_h` is then what is left of it, from the belief's own time.
    """
    fed = jnp.nan if glucose_L is None else glucose_L
    return _filter_step(
        model,
        belief,
        jnp.asarray(u, float),
        jnp.asarray(fed, float),
        jnp.asarray(measurement, float),
        jnp.asarray(dt_h, float),
        key,
    )


@compiled
def _filter_step(
    model: HybridStateSpaceModel,
    belief: Belief,
    u: Array,
    glucose_L: Array,
    face: Array,
    dt_h: Array,
    key: Key,
) -> tuple[Belief, FilterInfo]:
    size = belief.particles.shape[0]
    draws = centred_noise(key, (size, model.layout.n))
    start, began, whole = belief.particles, belief.day, dt_h
    if belief.interval is None:
        # white in the rates, of the model's own interval
        noise = draws * (step_sd(model) * jnp.sqrt(model.dt_hours / dt_h))[None, :]
    else:
        open_one = belief.interval
        # one step from the interval's start, if the set-points stayed; else from here
        is_same = jnp.all(u == open_one.controls)
        gone = jnp.where(is_same, (belief.day - open_one.day) * HOURS_PER_DAY, 0.0)
        start = jnp.where(is_same, open_one.particles, start)
        began, whole = jnp.where(is_same, open_one.day, began), gone + dt_h
        fresh = draws * process_sd_over(model, dt_h)[None, :]
        noise = open_one.function + (gone * open_one.process + dt_h * fresh) / whole

    def residual(inputs: Array) -> Array:
        return mean_residual(model, inputs) + noise

    many = jnp.broadcast_to(u[None, :], (size, u.shape[0]))
    states, feed, step = step_batch(model, start, many, began, residual, whole)
    members, info = update_states(model, model.latent.forward(states), feed, face, glucose_L)
    limited = jnp.mean((step.residual | step.floor | step.cells[:, None]).astype(float))
    day = belief.day + dt_h / HOURS_PER_DAY
    return Belief(model.latent.inverse(members), day), info._replace(limited=limited)
