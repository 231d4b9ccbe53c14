"""Acquisition functions in closed form, for surrogates whose posterior is Gaussian.

Each takes one candidate `(1, d)` and returns a number; more is better. The outcomes that
constrain it are independent of the objective, so that an improvement is multiplied by the
probability that all constraints are kept: the mean over their samples.

Reference:
    Jones, Schonlau, Welch (1998), Efficient global optimization of expensive black-box
    functions (expected improvement); Ament et al. (2023) for its logarithm.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ConfigError, Float, Scalar
from perfusio_jax.bed.acquisition.draws import Draws
from perfusio_jax.bed.acquisition.smooth import log_expected_improvement, log_mean_exp


def _scalar(value: Array | float) -> Array:
    return jnp.asarray(value, float)


def _moments(draws: Draws, X: Array, name: str) -> tuple[Array, Array, Array]:
    """Mean, deviation and log probability of feasibility of the only candidate."""
    if X.shape[0] != 1:
        raise ConfigError(
            f"{name} in closed form takes one candidate at a time and was given {X.shape[0]}; "
            f"use q{name} for a batch."
        )
    mean, variance = draws.model.posterior(X)
    # the root has no derivative at zero; the floor is far below any variance that matters
    floor = jnp.finfo(mean.dtype).tiny ** 0.5
    deviation = jnp.sqrt(jnp.maximum(variance, floor))
    # the mean of probabilities, not of their logarithms
    feasibility = log_mean_exp(draws.log_feasibility(X)[:, 0])
    return mean[0], deviation[0], feasibility


class ProbabilityOfImprovement(eqx.Module):
    """Probability that a candidate beats the incumbent [-]."""

    draws: Draws
    """Surrogate and constraints."""
    best_f: Scalar = eqx.field(converter=_scalar)
    """Incumbent, unit of the objective."""

    def __call__(self, X: Float[Array, "1 d"]) -> Scalar:
        """Value at one candidate."""
        mean, deviation, feasibility = _moments(self.draws, X, "PI")
        return jax.scipy.special.ndtr((mean - self.best_f) / deviation) * jnp.exp(feasibility)


class ExpectedImprovement(eqx.Module):
    """Expected improvement over the incumbent, unit of the objective."""

    draws: Draws
    """Surrogate and constraints."""
    best_f: Scalar = eqx.field(converter=_scalar)
    """Incumbent, unit of the objective."""

    def __call__(self, X: Float[Array, "1 d"]) -> Scalar:
        """Value at one candidate."""
        mean, deviation, feasibility = _moments(self.draws, X, "EI")
        z = (mean - self.best_f) / deviation
        return deviation * jnp.exp(log_expected_improvement(z) + feasibility)


class LogExpectedImprovement(eqx.Module):
    """Logarithm of the expected improvement, finite where that underflows."""

    draws: Draws
    """Surrogate and constraints."""
    best_f: Scalar = eqx.field(converter=_scalar)
    """Incumbent, unit of the objective."""

    def __call__(self, X: Float[Array, "1 d"]) -> Scalar:
        """Value at one candidate."""
        mean, deviation, feasibility = _moments(self.draws, X, "LogEI")
        z = (mean - self.best_f) / deviation
        return log_expected_improvement(z) + jnp.log(deviation) + feasibility


class UpperConfidenceBound(eqx.Module):
    """Mean plus `sqrt(beta)` deviations; constraints enter as a penalty.

    Reference:
        Srinivas et al. (2010), Gaussian process optimization in the bandit setting.
    """

    draws: Draws
    """Surrogate and constraints."""
    beta: Scalar = eqx.field(converter=_scalar)
    """Weight of exploration [-], not negative."""
    penalty: Scalar = eqx.field(converter=_scalar, default=1.0)
    """Cost of one unit of log infeasibility, unit of the objective."""

    def __call__(self, X: Float[Array, "1 d"]) -> Scalar:
        """Value at one candidate."""
        mean, deviation, feasibility = _moments(self.draws, X, "UCB")
        return mean + jnp.sqrt(self.beta) * deviation + self.penalty * feasibility
