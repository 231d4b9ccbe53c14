"""Particle filter and smoother: the slow, exact companion of the ensemble filter.

The bootstrap filter needs no Gaussian assumption: particles move by the model, are weighted
by the likelihood of the sample and redrawn. It converges to the exact posterior as their
number grows, which makes it the referee for the ensemble filter, and the choice where a
posterior has two humps. With a hundred particles and ten precise readings it would starve;
use thousands, and watch the effective number.

The smoother traces every particle's ancestors back through the run.

Reference:
    Gordon, Salmond and Smith (1993); Kitagawa (1996) for stratified redrawing and the
    genealogy.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from perfusio_jax._core import HOURS_PER_DAY, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid.disturbance import mean_residual, step_law
from perfusio_jax.hybrid.ensemble import one_sided
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone
from perfusio_jax.hybrid.observation import (
    predict_reading,
    reading_sd,
    transform_limits,
    transform_reading,
)
from perfusio_jax.hybrid.runs import RunArrays
from perfusio_jax.hybrid.step import step_batch

_FEED_UNIT = 0.002


class ParticleBeliefs(NamedTuple):
    """Equally weighted particles along a run."""

    filtered: Float[Array, "T N 9"]
    """Given the samples so far."""
    smoothed: Float[Array, "T N 9"]
    """Given the whole run: each last particle's ancestors."""
    effective: Float[Array, " T"]
    """Effective number of particles at each sample; below a tenth of N, use more."""
    log_likelihood: Float[Array, " T"]
    """Log density of each sample given the past."""


def log_density(
    predicted: Float[Array, "N m"], reading: Float[Array, " m"], sd: Float[Array, "N m"]
) -> Float[Array, " N"]:
    """Gaussian log density of readings per particle; missing ones do not count."""
    seen = ~jnp.isnan(reading)
    gap = (jnp.nan_to_num(reading)[None, :] - predicted) / sd
    each = -0.5 * gap**2 - jnp.log(sd) - 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.sum(jnp.where(seen[None, :], each, 0.0), axis=1)


def log_beyond(
    predicted: Float[Array, "N m"],
    low: Float[Array, " m"],
    high: Float[Array, " m"],
    sd: Float[Array, "N m"],
) -> Float[Array, " N"]:
    """Log probability per particle that readings lie beyond their limits.

    Args:
        predicted: Readings expected.
        low: What they lie below; NaN where nothing is known.
        high: What they lie above; NaN likewise.
        sd: Noise of each.
    """
    used, sign, limit = one_sided(low, high)
    each = norm.logcdf(sign[None, :] * (predicted - limit[None, :]) / sd)
    return jnp.sum(jnp.where(used, each, 0.0), axis=1)


def redraw(log_weight: Float[Array, " N"], *, key: Key) -> tuple[Array, Array, Array]:
    """Systematic redrawing.

    Args:
        log_weight: Log weights, any constant added.
        key: Random key.

    Returns:
        Index of each survivor's parent, effective number, and log of the mean weight.
    """
    n = log_weight.shape[0]
    top = jnp.max(log_weight)
    weight = jnp.exp(log_weight - top)
    total = jnp.sum(weight)
    share = jnp.cumsum(weight / total)
    marks = (jnp.arange(n) + jax.random.uniform(key)) / n
    parent = jnp.clip(jnp.searchsorted(share, marks), 0, n - 1)
    effective = total**2 / jnp.sum(weight**2)
    return parent, effective, jnp.log(total / n) + top


def trace_back(particles: Float[Array, "T N d"], parents: Array) -> Float[Array, "T N d"]:
    """Ancestors of the last particles.

    Args:
        particles: Particles after redrawing, per sample.
        parents: Index of each particle's predecessor among those of the sample before (T, N);
            the first row is unused.

    Returns:
        One row of ancestors per sample.
    """
    n = particles.shape[1]

    def back(index: Array, xs: Any) -> tuple[Array, Array]:
        now, parent = xs
        return parent[index], now[index]

    last = jnp.arange(n, dtype=parents.dtype)
    _, paths = jax.lax.scan(back, last, (particles, parents), reverse=True)
    return paths


@compiled
def particle_filter(
    model: HybridStateSpaceModel, run: RunArrays, *, key: Key, n_particles: int = 4096
) -> ParticleBeliefs:
    """Filter and smooth one run with the hybrid model as transition.

    Args:
        model: Fitted hybrid model.
        run: Samples and set-points (`run_arrays`).
        key: Random key.
        n_particles: Number of particles.

    Returns:
        Particles per sample.
    """
    model = at_clone(model, jnp.asarray(run.clone))
    law = step_law(model)
    unit = _FEED_UNIT * jnp.asarray(model.mech_model.volume_L)
    for_start, for_steps, for_draws = jax.random.split(key, 3)
    steps = run.times_h.shape[0] - 1
    z = jax.random.normal(for_start, (n_particles, model.layout.n))
    first = model.latent.inverse(model.initial.mean[None, :] + model.initial.sd[None, :] * z)
    draw_keys = jax.random.split(for_draws, steps + 1)

    def weigh(states: Array, feed: Array, sample: Any, fed: Array, k: Array) -> Any:
        face, limits = sample
        predicted = predict_reading(model.latent, states, feed, unit)
        sd = jax.vmap(lambda s, f: reading_sd(model.assay, model.latent, s, f, unit))(states, feed)
        known: Array | float = 0.0
        if limits is not None:
            face = jnp.where(jnp.isnan(limits).all(axis=-1), face, jnp.nan)
            known = log_beyond(predicted, *transform_limits(model.latent, limits, unit), sd)
        reading = transform_reading(model.latent, face, fed, unit)
        return redraw(log_density(predicted, reading, sd) + known, key=k)

    def sample(rows: slice | int) -> Any:
        return run.face[rows], None if run.limits is None else run.limits[rows]

    nothing = jnp.zeros(n_particles)
    parent0, effective0, like0 = weigh(
        first, nothing, sample(0), jnp.full((), jnp.nan), draw_keys[0]
    )

    def body(states: Array, xs: Any) -> Any:
        control, face, fed, dt, day, k_noise, k_draw = xs
        _, share = law.over(dt, model.dt_hours)
        noise = (
            jax.random.normal(k_noise, (n_particles, model.layout.n)) * (share * law.sd)[None, :]
        )
        many = jnp.broadcast_to(control[None, :], (n_particles, control.shape[0]))
        after, feed, _ = step_batch(
            model, states, many, day, lambda inputs: mean_residual(model, inputs) + noise, dt
        )
        parent, effective, like = weigh(after, feed, face, fed, k_draw)
        survivors = after[parent]
        return survivors, (survivors, parent, effective, like)

    xs = (
        run.controls[:-1],
        sample(slice(1, None)),
        run.feed_L[1:],
        jnp.diff(run.times_h),
        run.times_h[:-1] / HOURS_PER_DAY,
        jax.random.split(for_steps, steps),
        draw_keys[1:],
    )
    start = first[parent0]
    _, (later, parents, effective, like) = jax.lax.scan(body, start, xs)
    filtered = jnp.concatenate([start[None], later])
    parents = jnp.concatenate([parent0[None], parents])
    return ParticleBeliefs(
        filtered=filtered,
        smoothed=trace_back(filtered, parents),
        effective=jnp.concatenate([effective0[None], effective]),
        log_likelihood=jnp.concatenate([like0[None], like]),
    )
