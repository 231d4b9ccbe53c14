"""Step-wise GP: one-step rates chained into a forecast, with uncertainty.

Three ways to carry uncertainty from step to step:

* `mc`: each path follows one function drawn from the posterior, so that it meets the same
  rates whenever it returns to a state.
* `mc-marginal`: rates are drawn anew at every step, the common simplification; it treats
  what is not known about the function as if it averaged out over time.
* `moment_matching`: mean and covariance of the state through the step, the process in closed
  form (`moments`) and mean function and step by cubature (`propagate`). Like `mc-marginal` it
  meets a new function at every step.

A step that keeps its states legal is the step's own business: nothing is clipped here.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import ndtri
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, Key, Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.likelihood import GaussianLikelihood
from perfusio_jax.gp.moments import is_supported
from perfusio_jax.gp.propagate import MomentPath, draw_chain, moment_path
from perfusio_jax.gp.sampling import draw_gp_paths

METHODS = ("mc", "mc-marginal", "moment_matching")

_READINGS = 2**31 - 1
"""Folded in for the assay noise: no lane of a batch, and no part of a split, has this number."""


class RateStep(eqx.Module):
    """Next state from a rate, without flows: `c + dt R`. Any callable of this form serves."""

    dt_hours: Scalar = eqx.field(converter=lambda v: jnp.asarray(v, float), default=HOURS_PER_DAY)
    """Length of the step [h]."""

    def __call__(
        self, state: Float[Array, " n"], rate: Float[Array, " n"], controls: Float[Array, " m"]
    ) -> Float[Array, " n"]:
        """Next state.

        Args:
            state: State.
            rate: Net rate, flows included [state unit / h].
            controls: Not used by this step.

        Returns:
            State after `dt_hours`.
        """
        return state + self.dt_hours * rate


class StepwiseGP(eqx.Module):
    """Wraps a fitted rate GP and rolls it out."""

    model: MultiTaskRateGP
    """Conditioned rate GP."""
    likelihood: GaussianLikelihood
    """Noise of the rates; process noise of a roll-out when switched on."""
    step: Any
    """Callable (state, rate, controls) -> next state."""
    measurement_sd: Any
    """Noise of a reading: (n,) in state units, a callable of the state, or None."""
    dt_hours: Scalar
    """Length of a step [h]; the day column grows by a 24th of it."""
    n_species: int = eqx.field(static=True)
    """Number of state species."""
    control_names: tuple[str, ...] = eqx.field(static=True)
    """Order of the controls."""
    n_context: int = eqx.field(static=True)
    """Raw columns between controls and day, such as a clone index."""

    def __init__(
        self,
        model: MultiTaskRateGP,
        likelihood: GaussianLikelihood,
        n_species: int,
        control_names: list[str] | tuple[str, ...],
        *,
        step: Any = None,
        measurement_sd: Any = None,
        dt_hours: float | Scalar | None = None,
    ):
        """Wrap a model.

        Args:
            model: Rate GP on inputs `[c, u, context, day]`; conditioned here if it is not yet.
            likelihood: Its noise.
            n_species: Number of state species.
            control_names: Order of the controls.
            step: How a rate moves the state; plain integration over `dt_hours` by default.
            measurement_sd: Standard deviation of a reading: one number per species [state
                unit], or a callable that gives them for a state; used on request only.
            dt_hours: Length of a step [h]; the step's own `dt_hours` by default, and a day for a
                step that has none.

        Raises:
            ConfigError: If sizes do not fit, a step's length is not above zero, or the step has
                another one.
        """
        context = model.n_state_dims - n_species - len(control_names)
        if model.n_tasks != n_species or context < 0:
            raise ConfigError(
                f"the GP has {model.n_tasks} tasks and {model.n_state_dims} state and control "
                f"columns; {n_species} species and {len(control_names)} controls were named."
            )
        self.model = model.condition() if model.state is None else model
        self.likelihood = likelihood
        self.dt_hours = _step_length(step, dt_hours)
        self.step = RateStep(self.dt_hours) if step is None else step
        is_given = measurement_sd is not None and not callable(measurement_sd)
        self.measurement_sd = jnp.asarray(measurement_sd, float) if is_given else measurement_sd
        self.n_context = context
        self.n_species = n_species
        self.control_names = tuple(control_names)

    def predict_quantiles(
        self,
        x0: Float[ArrayLike, "..."],
        controls: Float[ArrayLike, "..."],
        horizon: int,
        n_samples: int = 200,
        seed: int | None = None,
        method: str = "mc",
        *,
        start_day: float = 0.0,
        context: Float[ArrayLike, "..."] | None = None,
        process_noise: bool = False,
        measurement_noise: bool = False,
        return_samples: bool = False,
        closed_form: bool = True,
    ) -> dict[str, Float[Array, "..."]]:
        """Forecast with quantiles.

        Args:
            x0: State (n,) or a batch (B, n).
            controls: (horizon, m) or (B, horizon, m).
            horizon: Steps, each of `dt_hours`.
            n_samples: Paths; by moment matching only for "samples".
            seed: Random seed; 0 if None.
            method: "mc", "mc-marginal" or "moment_matching".
            start_day: Culture day of x0 [d].
            context: Raw columns between controls and day (a clone index), (k,) or (B, k);
                needed when the model has such.
            process_noise: Whether the noise of the rates is added at every step.
            measurement_noise: Whether the result is of readings instead of states.
            return_samples: Adds "samples" (n_samples, horizon, n); by moment matching they are
                drawn from the Gauss-Markov chain with the propagated moments.
            closed_form: Moment matching only: False takes cubature throughout, which other
                kernels than `PerfusionKernel` need and get anyway.

        Returns:
            "mean", "q10", "q50", "q90", each (horizon, n) or (B, horizon, n), row k at
            `(k + 1) dt_hours` after x0; by moment matching also "covariance" (horizon, n, n) of
            the states.

        Raises:
            ConfigError: If the method is unknown, shapes do not fit, or measurement noise is
                asked for and none was given.
        """
        if method not in METHODS:
            raise ConfigError(f"method {method!r}; allowed are {METHODS}.")
        if measurement_noise and self.measurement_sd is None:
            raise ConfigError(
                "measurement noise was asked for; give its spread, StepwiseGP(measurement_sd=...)."
            )
        start, plan = jnp.asarray(x0, float), jnp.asarray(controls, float)
        is_single = start.ndim == 1
        start = start[None, :] if is_single else start
        if plan.ndim == 2:
            plan = jnp.broadcast_to(plan[None, :, :], (start.shape[0], *plan.shape))
        wanted = (start.shape[0], horizon, len(self.control_names))
        if start.shape[1] != self.n_species or plan.shape != wanted:
            raise ConfigError(
                f"state {start.shape} and controls {plan.shape}; allowed are (B, "
                f"{self.n_species}) and {wanted}."
            )
        rest = self._rest(plan, context, start_day)
        key = jax.random.key(0 if seed is None else seed)
        levels = {"q10": 0.1, "q50": 0.5, "q90": 0.9}
        if method == "moment_matching":
            is_closed = closed_form and is_supported(self.model)
            path = _moments(self, start, plan, rest, process_noise, is_closed)
            variance = jnp.diagonal(path.covariance, axis1=2, axis2=3)
            if measurement_noise:
                variance = variance + self._reading_sd(path.mean) ** 2
            sd = jnp.sqrt(jnp.maximum(variance, 0.0))
            result = {"mean": path.mean, "covariance": path.covariance}
            result |= {k: path.mean + ndtri(jnp.asarray(v)) * sd for k, v in levels.items()}
            samples = _draw(path, key, n_samples) if return_samples else None
        else:
            samples = _sample(self, start, plan, rest, key, n_samples, method, process_noise)
            result = {}
        if samples is not None and measurement_noise:
            draw = jax.random.normal(jax.random.fold_in(key, _READINGS), samples.shape)
            samples = samples + draw * self._reading_sd(samples)
        if samples is not None and not result:
            quantiles = jnp.quantile(samples, jnp.asarray(list(levels.values())), axis=1)
            result = {"mean": jnp.mean(samples, axis=1)}
            result |= dict(zip(levels, quantiles, strict=True))
        if samples is not None and return_samples:
            result["samples"] = samples
        return {name: value[0] for name, value in result.items()} if is_single else result

    def _rest(self, plan: Array, context: Any, start_day: float) -> Array:
        """Raw columns besides the state, (B, H, R)."""
        given = jnp.zeros((0,)) if context is None else jnp.asarray(context, float)
        if given.shape[-1:] != (self.n_context,) or given.ndim > 2:
            raise ConfigError(
                f"the model has {self.n_context} columns between controls and day; a context of "
                f"shape {given.shape} was given."
            )
        shape = plan.shape[:2]
        given = given[None, None, :] if given.ndim == 1 else given[:, None, :]
        step_days = self.dt_hours / HOURS_PER_DAY
        days = jnp.asarray(start_day, float) + step_days * jnp.arange(shape[1])
        parts = (
            plan,
            jnp.broadcast_to(given, (*shape, self.n_context)),
            jnp.broadcast_to(days[None, :, None], (*shape, 1)),
        )
        return jnp.concatenate(parts, axis=2)

    def _reading_sd(self, states: Array) -> Array:
        if not callable(self.measurement_sd):
            return jnp.broadcast_to(self.measurement_sd, states.shape)
        flat = states.reshape(-1, self.n_species)
        spread: Any = jax.vmap(self.measurement_sd)(flat)
        return jnp.reshape(spread, states.shape)


def _step_length(step: Any, dt_hours: Any) -> Scalar:
    """Hours of a step: as given, as the step says, or a day; two answers must agree."""
    own = getattr(step, "dt_hours", None)
    found = HOURS_PER_DAY if own is None else own
    length = jnp.asarray(found if dt_hours is None else dt_hours, float)
    if isinstance(length, Tracer) or isinstance(own, Tracer):
        return length
    # NumPy looks at the numbers: JAX's comparison would be traced within `jit`, constant or not
    if length.shape != () or not 0.0 < float(np.asarray(length)) < np.inf:
        raise ConfigError(f"dt_hours={dt_hours}; allowed is one number of hours above zero.")
    if own is not None and not np.allclose(np.asarray(length), np.asarray(own, float)):
        raise ConfigError(
            f"dt_hours={dt_hours} and a step of {float(own)} h; leave dt_hours out, or give the "
            "step that length."
        )
    return length


def _inputs(states: Array, rest: Array) -> Array:
    many = jnp.broadcast_to(rest[None, :], (states.shape[0], rest.shape[0]))
    return jnp.concatenate([states, many], axis=1)


@compiled
def _sample(
    gp: StepwiseGP,
    start: Array,
    plan: Array,
    rest: Array,
    key: Key,
    n_samples: int,
    method: str,
    process_noise: bool,
) -> Array:
    for_paths, for_steps, for_noise = jax.random.split(key, 3)
    model, horizon = gp.model, plan.shape[1]
    paths = draw_gp_paths(model, n_samples, key=for_paths) if method == "mc" else None
    noise_sd = jnp.sqrt(gp.likelihood.variance(gp.n_species)) * model.target_scale

    def one(args: Any) -> Array:
        x0, controls, others, lane = args
        # functions are shared by the reactors, noise is each reactor's own
        shape = (horizon, n_samples, gp.n_species)
        noise = jax.random.normal(jax.random.fold_in(for_noise, lane), shape)
        noise = noise * noise_sd[None, None, :] * (1.0 if process_noise else 0.0)
        fresh = jax.random.normal(jax.random.fold_in(for_steps, lane), shape)

        def body(states: Array, xs: Any) -> Any:
            control, other, extra, draw = xs
            inputs = _inputs(states, other)
            if paths is not None:
                rates = model.mean_at(inputs) + paths(inputs)
            else:
                mean, covariance = model.posterior(inputs)
                jitter = 1e-10 * jnp.mean(jnp.diagonal(covariance, axis1=1, axis2=2), axis=1)
                eye = jnp.eye(gp.n_species)
                factor = jnp.linalg.cholesky(covariance + jitter[:, None, None] * eye[None, :, :])
                rates = mean + jnp.einsum("sij,sj->si", factor, draw)
            after = jax.vmap(lambda c, r: gp.step(c, r, control))(states, rates + extra)
            return after, after

        first = jnp.broadcast_to(x0[None, :], (n_samples, gp.n_species))
        _, states = jax.lax.scan(body, first, (controls, others, noise, fresh))
        return states.transpose(1, 0, 2)

    return jax.vmap(lambda *lane: one(lane))(start, plan, rest, jnp.arange(start.shape[0]))


@compiled
def _moments(
    gp: StepwiseGP, start: Array, plan: Array, rest: Array, process_noise: bool, is_closed: bool
) -> MomentPath:
    size = gp.n_species
    noise = jnp.diag(gp.likelihood.variance(size) * gp.model.target_scale**2)
    noise = noise * (1.0 if process_noise else 0.0)
    known = jnp.zeros((size, size))

    def one(args: Any) -> MomentPath:
        x0, controls, others = args
        return moment_path(
            gp.model, gp.step, x0, known, controls, others, noise, is_closed=is_closed
        )

    # reactor by reactor: the products of kernels are as large as the table squared
    return jax.lax.map(one, (start, plan, rest))


@compiled
def _draw(path: MomentPath, key: Key, n_samples: int) -> Array:
    def one(part: MomentPath, lane: Array) -> Array:
        shape = (part.mean.shape[0], n_samples, part.mean.shape[1])
        return draw_chain(part, jax.random.normal(jax.random.fold_in(key, lane), shape))

    return jax.vmap(one)(path, jnp.arange(path.mean.shape[0]))
