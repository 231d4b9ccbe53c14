"""State estimation: an ensemble Kalman filter and smoother on the hybrid model.

The ensemble lives in `z = log(c + offset)`, beside the residual rate of the last interval.
Analysis is deterministic: mean and covariance move as in the Kalman filter with the
ensemble's moments, and the members follow by the map that turns one covariance into the
other, so no perturbed observations add noise. Missing readings have no weight.

The residual rate follows `r' = phi r + g(c, u, day) + s e`. With `phi = 0` it is the hybrid
model itself (g the learned residual, s process noise and model uncertainty); with phi near
one and g = 0 the mechanistic model is corrected by a slowly drifting disturbance, which is
how a campaign is read before there is a GP. The smoother is the ensemble form of
Rauch-Tung-Striebel.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from perfusio_jax._core import (
    CONTROL_NAMES,
    HOURS_PER_DAY,
    STATE_ORDER,
    STREAM_TOTALS,
    DataError,
    Key,
    Scalar,
)
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone, gp_inputs, step_batch
from perfusio_jax.hybrid.observation import predict_reading, reading_sd, transform_reading
from perfusio_jax.states import Trajectory

_N = len(STATE_ORDER)
_FEED = STREAM_TOTALS.index("V_glucose_L")
_FEED_UNIT = 0.002
"""Offset of the feed's logarithm as a fraction of the working volume [-]."""


class OpenInterval(eqx.Module):
    """The interval since the last sample, of which online readings know a part.

    A step of the model has one residual rate for all its length. What is not known of it is
    therefore drawn once and kept: drawn at every reading it would average out, and the belief
    would be the surer the more often a probe reads.
    """

    particles: Float[Array, "N 9"]
    """Balanced states at its start."""
    day: Scalar
    """Culture day of its start [d]."""
    controls: Float[Array, " 6"]
    """Set-points that acted all along."""
    function: Float[Array, "N 9"]
    """What the learned function is off by, the same all along [residual units]."""
    process: Float[Array, "N 9"]
    """Mean so far of what neither part explains, white in time [residual units]."""


class Belief(eqx.Module):
    """What is known of one reactor now."""

    particles: Float[Array, "N 9"]
    """Equally likely balanced states."""
    day: Scalar
    """Culture day of the state [d]."""
    interval: OpenInterval | None = None
    """How they came here since the last sample; None right after one."""

    @property
    def mean(self) -> Float[Array, " 9"]:
        """Mean balanced state."""
        return jnp.mean(self.particles, axis=0)

    @property
    def sd(self) -> Float[Array, " 9"]:
        """Standard deviation per balanced species."""
        return jnp.std(self.particles, axis=0)

    def sample(self, n: int, *, key: Key) -> Float[Array, "S 9"]:
        """States for a roll-out: particles, each as often as the numbers allow.

        Args:
            n: Number wanted.
            key: Random key.

        Returns:
            Balanced states.
        """
        size = self.particles.shape[0]
        turns = -(-n // size)
        order = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, turns))
        return self.particles[order.reshape(-1)[:n]]


class FilterInfo(NamedTuple):
    """Diagnostics of one update; readings are on the filter's scale, feed last."""

    innovation: Array
    """Reading minus forecast (10,), NaN where missing."""
    innovation_sd: Array
    """Expected standard deviation of the innovation (10,)."""
    nis: Array
    """Normalised innovation squared: about `n_observed` when model and noise are right."""
    n_observed: Array
    """Number of readings used."""
    log_likelihood: Array
    """Log density of the readings given the past."""
    limited: Array
    """Fraction of particle steps in which a physical limit acted [-]."""


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
        return Belief(source[row], self.days[row])


def _moments(members: Array) -> tuple[Array, Array]:
    mean = jnp.mean(members, axis=0)
    return mean, members - mean[None, :]


def _regular(covariance: Array) -> Array:
    """A covariance with a floor far below its own scale, so that factors exist."""
    scale = jnp.diagonal(covariance)
    return covariance + jnp.diag(1e-8 * scale + 1e-10)


def ensemble_update(
    members: Float[Array, "N d"],
    predicted: Float[Array, "N m"],
    reading: Float[Array, " m"],
    sd: Float[Array, " m"],
) -> tuple[Float[Array, "N d"], FilterInfo]:
    """Kalman update of an ensemble with given moments.

    Args:
        members: Ensemble in the filter's space.
        predicted: Reading expected by each member.
        reading: Readings; NaN where missing.
        sd: Noise of each reading.

    Returns:
        Ensemble whose mean and covariance are those of the Kalman update, and diagnostics.
    """
    size = members.shape[0]
    seen = ~jnp.isnan(reading)
    weight = seen.astype(members.dtype)
    mean, apart = _moments(members)
    expected, spread = _moments(predicted)
    spread = spread * weight[None, :]
    cross = apart.T @ spread / (size - 1)
    noise = jnp.where(seen, sd**2, 1.0)
    total = spread.T @ spread / (size - 1) + jnp.diag(noise)
    innovation = jnp.where(seen, jnp.nan_to_num(reading) - expected, 0.0)
    factor = jnp.linalg.cholesky(total)
    white = jax.scipy.linalg.solve_triangular(factor, innovation, lower=True)
    half = jax.scipy.linalg.solve_triangular(factor, cross.T, lower=True)
    before = _regular(apart.T @ apart / (size - 1))
    after = before - half.T @ half
    after = _regular(0.5 * (after + after.T))
    # move members by the map that takes one Cholesky factor into the other
    root_before = jnp.linalg.cholesky(before)
    root_after = jnp.linalg.cholesky(after + 1e-9 * jnp.diag(jnp.diagonal(before)))
    moved = jax.scipy.linalg.solve_triangular(root_before, apart.T, lower=True)
    shifted = mean + half.T @ white
    log_det = jnp.sum(jnp.log(jnp.diagonal(factor)) * weight)
    count = jnp.sum(weight)
    nis = jnp.sum(white**2)
    info = FilterInfo(
        innovation=jnp.where(seen, innovation, jnp.nan),
        innovation_sd=jnp.sqrt(jnp.diagonal(total)),
        nis=nis,
        n_observed=count,
        log_likelihood=-0.5 * nis - log_det - 0.5 * count * jnp.log(2.0 * jnp.pi),
        limited=jnp.zeros(()),
    )
    return shifted[None, :] + (root_after @ moved).T, info


def smoother_gain(members: Float[Array, "N d"], forecast: Float[Array, "N e"]) -> Array:
    """Gain of the ensemble Rauch-Tung-Striebel step (d, e)."""
    size = members.shape[0]
    _, apart = _moments(members)
    _, ahead = _moments(forecast)
    covariance = ahead.T @ ahead / (size - 1)
    scale = jnp.sqrt(jnp.diagonal(covariance)) + 1e-12
    correlation = covariance / scale[:, None] / scale[None, :]
    correlation = correlation + 1e-4 * jnp.eye(correlation.shape[0])
    cross = apart.T @ ahead / (size - 1) / scale[None, :]
    return jnp.linalg.solve(correlation, cross.T).T / scale[None, :]


def _update_states(
    model: HybridStateSpaceModel,
    members: Array,
    feed: Array,
    face: Array,
    glucose_L: Array,
) -> tuple[Array, FilterInfo]:
    """Update of members whose first nine columns are the latent state."""
    unit = _FEED_UNIT * jnp.asarray(model.mech_model.volume_L)
    states = model.latent.inverse(members[:, :_N])
    predicted = predict_reading(model.latent, states, feed, unit)
    reading = transform_reading(model.latent, face, glucose_L, unit)
    sd = reading_sd(model.assay, model.latent, jnp.mean(states, axis=0), jnp.mean(feed), unit)
    return ensemble_update(members, predicted, reading, sd)


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
    draws = jax.random.normal(key, (n_particles, _N))
    draws = draws - jnp.mean(draws, axis=0, keepdims=True)
    return model.initial.mean[None, :] + model.initial.sd[None, :] * draws


@eqx.filter_jit
def _first_update(model: HybridStateSpaceModel, members: Array, face: Array) -> Array:
    nothing = jnp.zeros(members.shape[0])
    updated, _ = _update_states(model, members, nothing, face, jnp.full((), jnp.nan))
    return model.latent.inverse(updated)


def mean_residual(model: HybridStateSpaceModel, inputs: Float[Array, "S 16"]) -> Array:
    """Posterior mean of the residual [residual units]; zero without a GP."""
    gp = model.gp
    if gp is None or gp.state is None:
        return jnp.zeros((inputs.shape[0], _N))
    scaled = gp.scaling(inputs)
    cross = gp.kernel.input_matrix(scaled, gp.state.inputs) * gp.state.row_present[None, :]
    return gp.mean_at(inputs) + (cross @ gp.state.weights) * gp.target_scale[None, :]


def centred_noise(key: Key, shape: tuple[int, ...]) -> Array:
    """Noise with exact mean zero over the ensemble: less sampling error for the same size."""
    draws = jax.random.normal(key, shape)
    return draws - jnp.mean(draws, axis=0, keepdims=True)


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


@eqx.filter_jit
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
    draws = centred_noise(key, (size, _N))
    start, began, whole = belief.particles, belief.day, dt_h
    if belief.interval is None:
        # white in the rates, of the model's own interval
        noise = draws * (_step_sd(model) * jnp.sqrt(model.dt_hours / dt_h))[None, :]
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
    members, info = _update_states(model, model.latent.forward(states), feed, face, glucose_L)
    limited = jnp.mean((step.residual | step.floor | step.cells[:, None]).astype(float))
    day = belief.day + dt_h / HOURS_PER_DAY
    return Belief(model.latent.inverse(members), day), info._replace(limited=limited)


def _step_sd(model: HybridStateSpaceModel) -> Array:
    return jnp.sqrt(model.process_sd**2 + model.function_sd**2)


def process_sd_over(model: HybridStateSpaceModel, hours: Scalar) -> Float[Array, " 9"]:
    """Spread of what neither part explains, as a mean over some hours [residual units].

    Args:
        model: Hybrid model; its `process_sd` is the mean's over one of its steps.
        hours: Length [h]; the variance of a mean of white noise falls with it.

    Returns:
        Standard deviation per species.
    """
    return model.process_sd * jnp.sqrt(model.dt_hours / hours)


class RunArrays(NamedTuple):
    """One run as the filter reads it; pad with NaN samples."""

    face: Float[Array, "T 9"]
    """Samples in `STATE_ORDER`; NaN where missing."""
    controls: Float[Array, "T 6"]
    """Set-points from each sample on."""
    feed_L: Float[Array, " T"]
    """Concentrated glucose since the sample before [L]; NaN if unknown."""
    times_h: Float[Array, " T"]
    """Sample times [h]."""
    mask: Bool[Array, " T"]
    """Rows that are part of the run."""
    clone: Scalar | np.float64 = np.float64(-1.0)
    """Clone index; unused by a model without an embedding."""


def run_arrays(trajectory: Trajectory, *, length: int | None = None, clone: int = -1) -> RunArrays:
    """Take from a trajectory what the filter needs.

    Args:
        trajectory: Run with all nine state species and six controls among its columns.
        length: Rows to pad to.
        clone: Index of its clone in the model's family.

    Returns:
        Arrays.

    Raises:
        DataError: If a species or control column is absent or a set-point is not finite.
    """
    absent = [n for n in CONTROL_NAMES if n not in trajectory.control_names]
    if absent:
        raise DataError(
            f"run '{trajectory.run_id}' lacks the controls {absent}; all of {CONTROL_NAMES} are "
            "needed."
        )
    # on the host: one eager operation each would cost a compile, and arrays that came out of
    # a simulation may be pinned to a device, which would cost another
    face = np.asarray(trajectory.select_species(STATE_ORDER, missing_ok=True))
    columns = [trajectory.control_names.index(name) for name in CONTROL_NAMES]
    controls = np.array(trajectory.controls)[:, columns]
    n = trajectory.n_days
    acting = controls[:-1] if n > 1 else controls
    if not np.all(np.isfinite(acting)):
        raise DataError(
            f"run '{trajectory.run_id}' has a set-point that is not finite; fill in the value "
            "that acted (the commands fill blanks down with --fill-down)."
        )
    controls[-1] = np.where(np.isfinite(controls[-1]), controls[-1], acting[-1])
    times = np.asarray(trajectory.times_h)
    feed = np.asarray(trajectory.stream_totals)[:, _FEED]
    pad = 0 if length is None else length - n
    if pad < 0:
        raise DataError(f"run '{trajectory.run_id}' has {n} rows, more than {length}.")
    later = times[-1] + HOURS_PER_DAY * (1.0 + np.arange(pad))
    return RunArrays(
        face=jnp.asarray(np.pad(face, ((0, pad), (0, 0)), constant_values=np.nan)),
        controls=jnp.asarray(np.pad(controls, ((0, pad), (0, 0)), mode="edge")),
        feed_L=jnp.asarray(np.pad(feed, (0, pad), constant_values=np.nan)),
        times_h=jnp.asarray(np.concatenate([times, later])),
        mask=jnp.asarray(np.arange(n + pad) < n),
        clone=jnp.asarray(clone, float),
    )


class Disturbance(eqx.Module):
    """How the residual moves from interval to interval in a filter pass.

    With a persistence it drifts, and the numbers are those of a day; without one it is white
    in the rates, and they are those of the model's `dt_hours`. Other intervals follow.
    """

    persistence: Scalar
    """Part of the last residual that stays for a day [-]."""
    sd: Float[Array, " 9"]
    """Standard deviation of what is new [residual units]."""

    def over(self, hours: Array, reference: Array) -> tuple[Array, Array]:
        """Part that stays, and factor on `sd`, over intervals [h].

        Args:
            hours: Lengths [h].
            reference: Interval a white residual's `sd` refers to [h].
        """
        turns = hours / HOURS_PER_DAY
        stays = jnp.where(self.persistence > 0.0, jnp.power(self.persistence, turns), 0.0)
        # a drift forgets as much as it takes in, so that its spread is the same at any interval
        drift = (1.0 - stays**2) / jnp.maximum(1.0 - self.persistence**2, 1e-9)
        return stays, jnp.sqrt(jnp.where(self.persistence > 0.0, drift, reference / hours))


def step_law(model: HybridStateSpaceModel) -> Disturbance:
    """The law of a fitted model: what process and function leave open, fresh each interval."""
    return Disturbance(jnp.zeros(()), _step_sd(model))


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
    steps = run.times_h.shape[0] - 1
    # one call for all normal numbers: each further one costs compile time; means are taken
    # out over the ensemble, which lowers sampling error for the same size
    draws = jax.random.normal(key, (steps + 2, n_particles, _N))
    draws = draws - jnp.mean(draws, axis=1, keepdims=True)
    first = model.initial.mean[None, :] + model.initial.sd[None, :] * draws[0]
    stationary = disturbance.sd / jnp.sqrt(jnp.maximum(1.0 - disturbance.persistence**2, 1e-2))
    carried = jnp.where(disturbance.persistence > 0.0, stationary, 0.0)
    slow = draws[1] * carried[None, :]
    members, info0 = _update_states(
        model,
        jnp.concatenate([first, slow], axis=1),
        jnp.zeros(n_particles),
        run.face[0],
        jnp.full((), jnp.nan),
    )
    dt = jnp.diff(run.times_h)
    days = run.times_h / HOURS_PER_DAY
    stays, share = disturbance.over(dt, model.dt_hours)

    def body(members: Array, xs: Any) -> Any:
        control, face, feed_L, length, day, fresh, (stays, share) = xs
        states, carried = model.latent.inverse(members[:, :_N]), members[:, _N:]
        new = stays * carried + fresh * (share * disturbance.sd)[None, :]

        def residual(inputs: Array) -> Array:
            return mean_residual(model, inputs) + new

        many = jnp.broadcast_to(control[None, :], (n_particles, control.shape[0]))
        after, feed, step = step_batch(model, states, many, day, residual, length)
        forecast = jnp.concatenate([model.latent.forward(after), new], axis=1)
        updated, info = _update_states(model, forecast, feed, face, feed_L)
        limited = jnp.mean((step.residual | step.floor | step.cells[:, None]).astype(float))
        return updated, (updated, forecast, info._replace(limited=limited))

    law = (stays, share)
    xs = (run.controls[:-1], run.face[1:], run.feed_L[1:], dt, days[:-1], draws[2:], law)
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
    states = model.latent.inverse(smoothed[:, :, :_N])

    def learned(args: Any) -> Array:
        particles, control, day = args
        many = jnp.broadcast_to(control[None, :], (n_particles, control.shape[0]))
        return mean_residual(model, gp_inputs(model, particles, many, day))

    known = jax.lax.map(learned, (states[:-1], run.controls[:-1], days[:-1]))
    return RunBeliefs(
        filtered=model.latent.inverse(analysis[:, :, :_N]),
        smoothed=states,
        residuals=known + smoothed[1:, :, _N:],
        days=days,
        info=info,
    )


def clone_of(
    model: HybridStateSpaceModel, trajectory: Trajectory
) -> tuple[HybridStateSpaceModel, int]:
    """The model set to a run's clone, and the clone's index; -1 without an embedding.

    Raises:
        ConfigError: If the model holds clones, but not the run's.
    """
    if model.embedding is None:
        return model, -1
    index = model.embedding.index(trajectory.clone_id)
    return at_clone(model, jnp.asarray(index, float)), index


@eqx.filter_jit
def _assimilate_jit(
    model: HybridStateSpaceModel,
    run: RunArrays,
    disturbance: Disturbance,
    key: Key,
    n_particles: int,
) -> RunBeliefs:
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
    run = run_arrays(trajectory, length=length, clone=index)
    law = step_law(model)
    return _assimilate_jit(model, run, law, key, n_particles)
