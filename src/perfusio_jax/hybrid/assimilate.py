"""State estimation along a run: ensemble Kalman filter and smoother on the hybrid model.

The ensemble lives in `z = log(c + offset)`, beside the residual rate of the last interval
(`disturbance.py`). The smoother is the ensemble form of Rauch-Tung-Striebel.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.hybrid.belief import Belief
from perfusio_jax.hybrid.disturbance import Disturbance, mean_residual, step_law
from perfusio_jax.hybrid.ensemble import FilterInfo, smoother_gain
from perfusio_jax.hybrid.filter import update_states
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.runs import RunArrays, clone_of, run_arrays
from perfusio_jax.hybrid.step import gp_inputs, step_batch
from perfusio_jax.states import Trajectory


class RunBeliefs(NamedTuple):
    """Beliefs along a run."""

    filtered: Float[Array, "T N 9"]
    """Given the samples so far."""
    smoothed: Float[Array, "T N 9"]
    """Given the whole run."""
    residuals: Float[Array, "T1 N 9"]
    """Smoothed residual of each interval [residual units]."""
    days: Float[Array, " T"]
    """Culture days [d]."""
    info: FilterInfo
    """Diagnostics per sample."""

    def belief(self, row: int, *, smoothed: bool = False) -> Belief:
        """Belief after one sample."""
        source = self.smoothed if smoothed else self.filtered
        return _belief_at(source, self.days, np.asarray(row))


@compiled
def _belief_at(source: Array, days: Array, row: ArrayLike) -> Belief:
    return Belief(source[row], days[row])


def assimilate_arrays(
    model: HybridStateSpaceModel,
    run: RunArrays,
    disturbance: Disturbance,
    *,
    key: Key,
    n_particles: int,
    smooth: bool = True,
) -> RunBeliefs:
    """Filter and smooth one run; pure, vmap it over runs of one length.

    Args:
        model: Hybrid model; its GP's mean is part of the transition.
        run: Samples and set-points.
        disturbance: Law of the residual.
        key: Random key.
        n_particles: Size of the ensemble.
        smooth: False leaves the way back out; `smoothed` is then `filtered`.

    Returns:
        Filtered and smoothed ensembles.
    """
    steps, size = run.times_h.shape[0] - 1, model.layout.n
    # one call for all normal numbers: each further one costs compile time; means are taken
    # out over the ensemble, which lowers sampling error for the same size
    draws = jax.random.normal(key, (steps + 2, n_particles, size))
    draws = draws - jnp.mean(draws, axis=1, keepdims=True)
    first = model.initial.mean[None, :] + model.initial.sd[None, :] * draws[0]
    stationary = disturbance.sd / jnp.sqrt(jnp.maximum(1.0 - disturbance.persistence**2, 1e-2))
    carried = jnp.where(disturbance.persistence > 0.0, stationary, 0.0)
    slow = draws[1] * carried[None, :]
    members, info0 = update_states(
        model,
        jnp.concatenate([first, slow], axis=1),
        jnp.zeros(n_particles),
        run.face[0],
        jnp.full((), jnp.nan),
        None if run.limits is None else run.limits[0],
    )
    dt = jnp.diff(run.times_h)
    days = run.times_h / HOURS_PER_DAY
    stays, share = disturbance.over(dt, model.dt_hours)

    def body(members: Array, xs: Any) -> Any:
        control, face, limits, feed_L, length, day, fresh, (stays, share) = xs
        states, carried = model.latent.inverse(members[:, :size]), members[:, size:]
        new = stays * carried + fresh * (share * disturbance.sd)[None, :]

        def residual(inputs: Array) -> Array:
            return mean_residual(model, inputs) + new

        many = jnp.broadcast_to(control[None, :], (n_particles, control.shape[0]))
        after, feed, step = step_batch(model, states, many, day, residual, length)
        forecast = jnp.concatenate([model.latent.forward(after), new], axis=1)
        updated, info = update_states(model, forecast, feed, face, feed_L, limits)
        limited = jnp.mean((step.residual | step.floor | step.cells[:, None]).astype(float))
        return updated, (updated, forecast, info._replace(limited=limited))

    law = (stays, share)
    limits = None if run.limits is None else run.limits[1:]
    xs = (run.controls[:-1], run.face[1:], limits, run.feed_L[1:], dt, days[:-1], draws[2:], law)
    _, (updated, forecast, infos) = jax.lax.scan(body, members, xs)
    analysis = jnp.concatenate([members[None, :, :], updated], axis=0)

    def back(later: Array, xs: Any) -> Any:
        now, ahead = xs
        smooth = now + (later - ahead) @ smoother_gain(now, ahead).T
        return smooth, smooth

    smoothed = analysis
    if smooth:
        _, earlier = jax.lax.scan(back, analysis[-1], (analysis[:-1], forecast), reverse=True)
        smoothed = jnp.concatenate([earlier, analysis[-1:]], axis=0)
    info = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), info0, infos)
    states = model.latent.inverse(smoothed[:, :, :size])

    def learned(args: Any) -> Array:
        particles, control, day = args
        many = jnp.broadcast_to(control[None, :], (n_particles, control.shape[0]))
        return mean_residual(model, gp_inputs(model, particles, many, day))

    known = jax.lax.map(learned, (states[:-1], run.controls[:-1], days[:-1]))
    return RunBeliefs(
        filtered=model.latent.inverse(analysis[:, :, :size]),
        smoothed=states,
        residuals=known + smoothed[1:, :, size:],
        days=days,
        info=info,
    )


@compiled
def _assimilate_jit(
    model: HybridStateSpaceModel,
    run: RunArrays,
    disturbance: Disturbance,
    key: Key,
    n_particles: int,
) -> RunBeliefs:
    compiling("the state estimate")
    return assimilate_arrays(model, run, disturbance, key=key, n_particles=n_particles)


def assimilate_run(
    model: HybridStateSpaceModel,
    trajectory: Trajectory,
    *,
    key: Key,
    n_particles: int = 128,
    length: int | None = None,
) -> RunBeliefs:
    """Beliefs after every sample of a run, filtered and smoothed.

    Args:
        model: Hybrid model.
        trajectory: The run.
        key: Random key.
        n_particles: Size of the ensemble.
        length: Rows to pad to, so that a growing run does not recompile; rows beyond the
            run are forecasts.

    Returns:
        Beliefs, `trajectory.n_days` rows (or `length`).
    """
    model, index = clone_of(model, trajectory)
    run = run_arrays(trajectory, length=length, clone=index, layout=model.layout)
    law = step_law(model)
    return _assimilate_jit(model, run, law, key, n_particles)
