"""A smoothed campaign: states, residual rates and their variances, run by run.

What the filter and smoother leave of a campaign is what everything is learned from: the
constants of the mechanism, the process on its residuals, and the rows of later days.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import HOURS_PER_DAY, on_device
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.embedding import CloneRegistry
from perfusio_jax.hybrid.assimilate import RunBeliefs, assimilate_arrays
from perfusio_jax.hybrid.calibration import Intervals
from perfusio_jax.hybrid.campaign import filled
from perfusio_jax.hybrid.disturbance import Disturbance
from perfusio_jax.hybrid.layout import CHO, Layout
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone
from perfusio_jax.hybrid.observation import to_states
from perfusio_jax.hybrid.runs import RunArrays
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.transition import Prior, flat_prior, prior_step


class Smoothed(NamedTuple):
    """Training rows of T1 intervals, of one run or with an axis of runs in front."""

    inputs: Float[Array, "... T1 D"]
    """Smoothed state, set-points, clone if there are several, and culture day."""
    targets: Float[Array, "... T1 9"]
    """Residual rates [residual units]."""
    variance: Float[Array, "... T1 9"]
    """Their variances [residual units squared]."""
    steps: Bool[Array, "... T1"]
    """Intervals between two samples; the others are padding."""


def rows_of(model: HybridStateSpaceModel, run: RunArrays, beliefs: RunBeliefs) -> Smoothed:
    """Training rows of one run: smoothed states, set-points, day; residuals and variances."""
    states = jnp.mean(beliefs.smoothed[:-1], axis=1)
    ends = [beliefs.days[:-1]]
    if model.embedding is not None:
        ends.insert(0, jnp.broadcast_to(jnp.asarray(run.clone), ends[0].shape))
    targets = jnp.mean(beliefs.residuals, axis=1)
    if model.layout.latent:
        targets = jnp.where(model.layout.is_seen[None, :], targets, 0.0)
    return Smoothed(
        inputs=jnp.concatenate([states, run.controls[:-1], jnp.stack(ends, axis=1)], axis=1),
        targets=targets,
        variance=jnp.var(beliefs.residuals, axis=1),
        steps=run.mask[1:] & run.mask[:-1],
    )


@compiled
def smooth(
    model: HybridStateSpaceModel, runs: RunArrays, law: Disturbance, keys: Array, n: int
) -> tuple[Smoothed, Any]:
    """Rows of every run by an ensemble of n, and the filter's diagnostics."""
    compiling("the smoothing of runs")

    def one(run: RunArrays, key: Array) -> tuple[Smoothed, Any]:
        mine = at_clone(model, jnp.asarray(run.clone))
        beliefs = assimilate_arrays(mine, run, law, key=key, n_particles=n)
        return rows_of(mine, run, beliefs), beliefs.info

    return jax.vmap(one)(runs, keys)


def fresh_sd(data: Smoothed, config: HybridConfig) -> np.ndarray:
    """What is new of a drifting residual each interval, from its spread."""
    steps = np.asarray(data.steps)
    square = (np.asarray(data.targets) ** 2 + np.asarray(data.variance))[steps]
    fresh = np.sqrt(1.0 - float(config.persistence) ** 2) * np.sqrt(np.mean(square, axis=0))
    return np.maximum(fresh, 1e-3)


def _priors(model: HybridStateSpaceModel, data: Smoothed, dt_h: Array, clones: Array) -> Prior:
    """The mechanism's interval at every smoothed state (runs, intervals)."""
    inputs, cells = data.inputs, model.layout.cells
    n, end = model.layout.n, model.layout.n + model.layout.m
    if not model.use_mechanism:
        return jax.vmap(jax.vmap(lambda c: flat_prior(c, cells)))(inputs[..., :n])

    def run(rows: Array, dts: Array, clone: Array) -> Prior:
        mech = at_clone(model, clone).mech_model
        return jax.vmap(lambda r, dt: prior_step(mech, r[:n], r[n:end], dt))(rows, dts)

    return jax.vmap(run)(inputs, dt_h, clones)


@compiled
def _flat(model: HybridStateSpaceModel, data: Smoothed, times_h: Array, clones: Array) -> Intervals:
    """Smoothed rates of every interval, flat."""
    compiling("the rates of intervals")
    dt = jnp.diff(times_h, axis=1)
    prior = _priors(model, data, dt, clones)
    rates = prior.rates + data.targets * model.basis.unit(prior)
    n, end = model.layout.n, model.layout.n + model.layout.m
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]),
        (data.inputs[..., :n], data.inputs[..., n:end], rates, dt, data.steps),
    )
    return Intervals(*flat)


def intervals_of(model: HybridStateSpaceModel, data: Smoothed, runs: RunArrays) -> Intervals:
    """Smoothed rates of every interval, flat."""
    return _flat(model, data, jnp.asarray(runs.times_h, float), jnp.asarray(runs.clone, float))


@compiled
def _retargeted(
    before: HybridStateSpaceModel,
    after: HybridStateSpaceModel,
    data: Smoothed,
    times_h: Array,
    clones: Array,
) -> Smoothed:
    compiling("residuals of another mechanism")
    dt = jnp.diff(times_h, axis=1)
    old, new = _priors(before, data, dt, clones), _priors(after, data, dt, clones)
    unit_old, unit_new = before.basis.unit(old), after.basis.unit(new)
    rates = old.rates + data.targets * unit_old
    return data._replace(
        targets=(rates - new.rates) / unit_new,
        variance=data.variance * (unit_old / unit_new) ** 2,
    )


def retarget(
    before: HybridStateSpaceModel, after: HybridStateSpaceModel, data: Smoothed, runs: RunArrays
) -> Smoothed:
    """The same rates as residuals of another mechanism."""
    times, clones = jnp.asarray(runs.times_h, float), jnp.asarray(runs.clone, float)
    return _retargeted(before, after, data, times, clones)


def blank_rows(runs: RunArrays, registry: CloneRegistry | None, layout: Layout = CHO) -> Smoothed:
    """Rows of the raw samples that claim no residual: shapes as after smoothing."""
    face = filled(np.asarray(runs.face), np.asarray(runs.times_h), np.ones(layout.n))
    return _blank(runs, on_device(face), registry is not None, layout)


@compiled
def _blank(runs: RunArrays, face: Array, has_clones: bool, layout: Layout) -> Smoothed:
    states = jnp.maximum(to_states(layout, face), 0.0)[:, :-1]
    ends = [runs.times_h[:, :-1] / HOURS_PER_DAY]
    if has_clones:
        ends.insert(0, jnp.broadcast_to(jnp.asarray(runs.clone)[:, None], ends[0].shape))
    inputs = jnp.concatenate([states, runs.controls[:, :-1], jnp.stack(ends, axis=2)], axis=2)
    nothing = jnp.zeros_like(states)
    return Smoothed(inputs, nothing, nothing + 1.0, runs.mask[:, 1:] & runs.mask[:, :-1])


def mean_nis(info: Any, runs: RunArrays) -> float:
    """Normalised innovation squared per reading [-]: about one if model and noise are right."""
    mask = np.asarray(runs.mask)[:, 1:]
    nis, count = np.asarray(info.nis)[:, 1:][mask], np.asarray(info.n_observed)[:, 1:][mask]
    return float(nis.sum() / max(count.sum(), 1.0))
