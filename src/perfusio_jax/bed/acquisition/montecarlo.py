"""Monte Carlo acquisition functions of one objective: batches, pending points, any surrogate.

Each takes a batch of candidates `(q, d)` and returns one number, the value of the batch as a
whole; more is better. Samples come from fixed base samples or stored paths, so values are
deterministic and differentiable.

`best_f` is a number, or one number per sample: the incumbent's value *on the same paths*.
Improvement is then paired, and what all candidates share (an uncertain state, a disturbance)
cancels.

Reference:
    Wilson, Hutter, Deisenroth (2018); Balandat et al. (2020), BoTorch; Ament et al. (2023).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ConfigError, Float, Scalar
from perfusio_jax.bed.acquisition.draws import Draws, PinnedDraws, never
from perfusio_jax.bed.acquisition.smooth import fatmax, log_fatplus, log_mean_exp


def _array(value: Array | float) -> Array:
    return jnp.asarray(value, float)


def _improvement(samples: Array, best_f: Array) -> Array:
    """Improvement `(S,n)` over one incumbent, or over the incumbent on each path."""
    if samples.ndim != 2:
        raise ConfigError(
            f"the surrogate gives samples of shape {samples.shape}, that is several objectives; "
            "use qEHVI, qNEHVI or qNParEGO."
        )
    return samples - (best_f if best_f.ndim == 0 else best_f[:, None])


class MCProbabilityOfImprovement(eqx.Module):
    """Probability that the best of a batch beats the incumbent [-], smoothed."""

    draws: Draws
    """Surrogate, base samples, constraints, pending points."""
    best_f: Float[Array, "*S"] = eqx.field(converter=_array)
    """Incumbent, unit of the objective."""
    tau: Scalar = eqx.field(converter=_array, default=1e-3)
    """Width of the smooth step, unit of the objective."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(self.draws.joint(X))
        step = jax.nn.sigmoid(_improvement(samples, self.best_f) / self.tau)
        return jnp.mean(jnp.max(step * jnp.exp(log_weight), axis=1))


class MCExpectedImprovement(eqx.Module):
    """Expected improvement of the best of a batch, unit of the objective."""

    draws: Draws
    """Surrogate, base samples, constraints, pending points."""
    best_f: Float[Array, "*S"] = eqx.field(converter=_array)
    """Incumbent, unit of the objective."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(self.draws.joint(X))
        gain = jnp.maximum(_improvement(samples, self.best_f), 0.0)
        return jnp.mean(jnp.max(gain * jnp.exp(log_weight), axis=1))


class MCLogExpectedImprovement(eqx.Module):
    """Logarithm of a fat-tailed smooth expected improvement of a batch.

    Finite, with a gradient, however far every sample is from improving.
    """

    draws: Draws
    """Surrogate, base samples, constraints, pending points."""
    best_f: Float[Array, "*S"] = eqx.field(converter=_array)
    """Incumbent, unit of the objective."""
    tau_relu: Scalar = eqx.field(converter=_array, default=1e-6)
    """Width of the smooth positive part, unit of the objective."""
    tau_max: float = eqx.field(static=True, default=1e-2)
    """Width of the smooth maximum over the batch, in log improvement [-]."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(self.draws.joint(X))
        gain = log_fatplus(_improvement(samples, self.best_f), self.tau_relu) + log_weight
        return log_mean_exp(fatmax(gain, self.tau_max, axis=1))


class MCLogNoisyExpectedImprovement(eqx.Module):
    """qLogNEI: log improvement over what the points already run are worth on each sample.

    No incumbent is named: the baseline's own values are uncertain. Pending points belong to
    the baseline.

    Reference:
        Letham et al. (2019), Constrained Bayesian optimization with noisy experiments; Ament
        et al. (2023) for its logarithm.
    """

    draws: PinnedDraws
    """Surrogate, base samples and constraints, joint with the baseline."""
    best_f: Float[Array, "S"]
    """Best feasible baseline value on every sample, unit of the objective."""
    tau_relu: Scalar = eqx.field(converter=_array, default=1e-6)
    """Width of the smooth positive part, unit of the objective."""
    tau_max: float = eqx.field(static=True, default=1e-2)
    """Width of the smooth maximum over the batch, in log improvement [-]."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(X)
        gain = log_fatplus(_improvement(samples, self.best_f), self.tau_relu) + log_weight
        return log_mean_exp(fatmax(gain, self.tau_max, axis=1))


def noisy_log_improvement(
    draws: Draws, baseline: Float[Array, "P d"], is_there: Array, **options: Any
) -> MCLogNoisyExpectedImprovement:
    """Build qLogNEI: sample the baseline once and keep its best value on every sample.

    Args:
        draws: Surrogate, base samples and constraints.
        baseline: Points already run, and pending ones.
        is_there: Which rows hold a point.
        **options: `tau_relu`, `tau_max`.

    Returns:
        The acquisition; on a sample without a feasible baseline point the worst one seen
        stands in for the incumbent.
    """
    known, legal, rest = draws.pin(baseline)
    _improvement(known, jnp.zeros(()))
    return MCLogNoisyExpectedImprovement(
        rest, best_known(known, legal & is_there[None, :]), **options
    )


def best_known(values: Float[Array, "S P"], legal: Array) -> Float[Array, "S"]:
    """Best legal value on every sample; the worst value where none is legal.

    Args:
        values: Baseline values.
        legal: Which count, `(S,P)` or `(1,P)`.

    Returns:
        Incumbent on every sample.
    """
    return jnp.max(jnp.where(legal, values, jnp.min(values, axis=1, keepdims=True)), axis=1)


class MCUpperConfidenceBound(eqx.Module):
    """Upper confidence bound of the best of a batch; constraints enter as a penalty.

    Reference:
        Wilson, Moriconi, Hutter, Deisenroth (2017), The reparameterization trick for
        acquisition functions.
    """

    draws: Draws
    """Surrogate, base samples, constraints, pending points."""
    beta: Scalar = eqx.field(converter=_array)
    """Weight of exploration [-], not negative."""
    penalty: Scalar = eqx.field(converter=_array, default=1.0)
    """Cost of one unit of log infeasibility, unit of the objective."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        joint = self.draws.joint(X)
        samples, log_weight = self.draws(joint)
        mean = jnp.mean(samples, axis=0, keepdims=True)
        spread = jnp.sqrt(self.beta * (0.5 * math.pi)) * jnp.abs(samples - mean)
        # as in closed form: the logarithm of the probability, not the mean of logarithms
        bound = mean + spread + self.penalty * log_mean_exp(log_weight)[None, :]
        there = self.draws.is_there(joint.shape[0])
        if there is not None:
            # not by the penalty: it may be zero
            bound = jnp.where(there[None, :], bound, never(bound))
        return jnp.mean(jnp.max(bound, axis=1))
