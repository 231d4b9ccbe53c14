"""Step-wise GP: one-step rates chained into a forecast, with uncertainty.

Three ways to carry uncertainty from step to step:

* `mc`: each path follows one function drawn from the posterior, so that it meets the same
  rates whenever it returns to a state.
* `mc-marginal`: rates are drawn anew at every step, the common simplification; it treats
  what is not known about the function as if it averaged out over time.
* `moment_matching`: mean and covariance of the state, by cubature through the step.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, Key, Scalar
from perfusio_jax.gp.exact_gp import GaussianLikelihood, MultiTaskRateGP
from perfusio_jax.gp.sampling import draw_gp_paths

METHODS = ("mc", "mc-marginal", "moment_matching")


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
    n_species: int = eqx.field(static=True)
    """Number of state species."""
    control_names: tuple[str, ...] = eqx.field(static=True)
    """Order of the controls."""

    def __init__(
        self,
        model: MultiTaskRateGP,
        likelihood: GaussianLikelihood,
        n_species: int,
        control_names: list[str] | tuple[str, ...],
        *,
        step: Any = None,
    ):
        """Wrap a model.

        Args:
            model: Rate GP on inputs `[c, u, day]`; conditioned here if it is not yet.
            likelihood: Its noise.
            n_species: Number of state species.
            control_names: Order of the controls.
            step: How a rate moves the state; plain integration by default.

        Raises:
            ConfigError: If sizes do not fit.
        """
        if model.n_tasks != n_species or model.n_state_dims != n_species + len(control_names):
            raise ConfigError(
                f"the GP has {model.n_tasks} tasks and {model.n_state_dims} state and control "
                f"columns; {n_species} species and {len(control_names)} controls were named."
            )
        self.model = model.condition() if model.state is None else model
        self.likelihood = likelihood
        self.step = RateStep() if step is None else step
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
        process_noise: bool = False,
        return_samples: bool = False,
    ) -> dict[str, Float[Array, "..."]]:
        """Forecast with quantiles.

        Args:
            x0: State (n,) or a batch (B, n).
            controls: (horizon, m) or (B, horizon, m).
            horizon: Steps.
            n_samples: Paths; not used by moment matching.
            seed: Random seed; 0 if None.
            method: "mc", "mc-marginal" or "moment_matching".
            start_day: Culture day of x0 [d].
            process_noise: Whether the noise of the rates is added at every step.
            return_samples: Adds "samples" (S, horizon, n); Monte Carlo methods only.

        Returns:
            "mean", "q10", "q50", "q90", each (horizon, n) or (B, horizon, n).

        Raises:
            ConfigError: If the method is unknown or shapes do not fit.
        """
        if method not in METHODS:
            raise ConfigError(f"method {method!r}; allowed are {METHODS}.")
        start, plan = jnp.asarray(x0, float), jnp.asarray(controls, float)
        is_single = start.ndim == 1
        start = start[None, :] if is_single else start
        plan = (
            jnp.broadcast_to(plan[None, :, :], (start.shape[0], *plan.shape))
            if (plan.ndim == 2)
            else plan
        )
        wanted = (start.shape[0], horizon, len(self.control_names))
        if start.shape[1] != self.n_species or plan.shape != wanted:
            raise ConfigError(
                f"state {start.shape} and controls {plan.shape}; allowed are (B, "
                f"{self.n_species}) and {wanted}."
            )
        day = jnp.asarray(start_day, float)
        key = jax.random.key(0 if seed is None else seed)
        if method == "moment_matching":
            mean, sd = _moments(self, start, plan, day, process_noise)
            result = {"mean": mean}
            for name, level in (("q10", 0.1), ("q50", 0.5), ("q90", 0.9)):
                result[name] = mean + ndtri(jnp.asarray(level)) * sd
        else:
            samples = _sample(self, start, plan, day, key, n_samples, method, process_noise)
            quantiles = jnp.quantile(samples, jnp.asarray([0.1, 0.5, 0.9]), axis=1)
            result = {"mean": jnp.mean(samples, axis=1)}
            result |= dict(zip(("q10", "q50", "q90"), quantiles, strict=True))
            if return_samples:
                result["samples"] = samples
        return {name: value[0] for name, value in result.items()} if is_single else result


def _inputs(states: Array, controls: Array, day: Array) -> Array:
    size = states.shape[0]
    many = jnp.broadcast_to(controls[None, :], (size, controls.shape[0]))
    return jnp.concatenate([states, many, jnp.full((size, 1), day)], axis=1)


@eqx.filter_jit
def _sample(
    gp: StepwiseGP,
    start: Array,
    plan: Array,
    day: Array,
    key: Key,
    n_samples: int,
    method: str,
    process_noise: bool,
) -> Array:
    for_paths, for_steps, for_noise = jax.random.split(key, 3)
    model, horizon = gp.model, plan.shape[1]
    paths = draw_gp_paths(model, n_samples, key=for_paths) if method == "mc" else None
    noise_sd = jnp.sqrt(gp.likelihood.variance(gp.n_species)) * model.target_scale
    noise = jax.random.normal(for_noise, (horizon, n_samples, gp.n_species))
    noise = noise * noise_sd[None, None, :] * (1.0 if process_noise else 0.0)
    fresh = jax.random.normal(for_steps, (horizon, n_samples, gp.n_species))
    days = day + jnp.arange(horizon)

    def one(x0: Array, controls: Array) -> Array:
        def body(states: Array, xs: Any) -> Any:
            control, at, extra, draw = xs
            inputs = _inputs(states, control, at)
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
        _, states = jax.lax.scan(body, first, (controls, days, noise, fresh))
        return states.transpose(1, 0, 2)

    return jax.vmap(one)(start, plan)


@eqx.filter_jit
def _moments(
    gp: StepwiseGP, start: Array, plan: Array, day: Array, process_noise: bool
) -> tuple[Array, Array]:
    model, size = gp.model, gp.n_species
    noise = gp.likelihood.variance(size) * model.target_scale**2
    extra = jnp.diag(noise) * (1.0 if process_noise else 0.0)
    radius = jnp.sqrt(jnp.asarray(size, float))
    corners = radius * jnp.concatenate([jnp.eye(size), -jnp.eye(size)], axis=0)
    days = day + jnp.arange(plan.shape[1])

    def one(x0: Array, controls: Array) -> tuple[Array, Array]:
        def body(carry: Any, xs: Any) -> Any:
            mean, covariance = carry
            control, at = xs
            floor = 1e-12 * (jnp.max(jnp.diagonal(covariance)) + 1e-12)
            factor = jnp.linalg.cholesky(covariance + floor * jnp.eye(size))
            points = mean[None, :] + corners @ factor.T
            rates, spread = model.posterior(_inputs(points, control, at))
            moved = jax.vmap(lambda c, r: gp.step(c, r, control))(points, rates)
            gain = jax.vmap(jax.jacfwd(lambda r, c: gp.step(c, r, control)))(rates, points)
            inner = jnp.einsum("pij,pjk,plk->il", gain, spread + extra[None, :, :], gain)
            centre = jnp.mean(moved, axis=0)
            apart = moved - centre[None, :]
            after = apart.T @ apart / points.shape[0] + inner / points.shape[0]
            after = 0.5 * (after + after.T)
            return (centre, after), (centre, jnp.sqrt(jnp.maximum(jnp.diagonal(after), 0.0)))

        _, result = jax.lax.scan(body, (x0, jnp.zeros((size, size))), (controls, days))
        return result

    return jax.vmap(one)(start, plan)
