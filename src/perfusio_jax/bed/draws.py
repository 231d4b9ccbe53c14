"""How an acquisition draws: joint samples at candidates and pending points, with their weights.

Shared by every Monte Carlo acquisition. Base samples are made once and stored, so that the
acquisition is a deterministic, differentiable function of the candidates.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ConfigError, Float
from perfusio_jax.bed.sampling import normal_base_samples

Constraint = Callable[[Array], Array]
"""`c(X (n,d)) -> (n,)` or `(S,n)`; a candidate is feasible where it is at most zero."""


class Draws(eqx.Module):
    """Everything that turns candidates into weighted samples."""

    model: Any
    """Surrogate; more is better."""
    base: Float[Array, "S n"] | None
    """Standard normal base samples, or None for surrogates that hold their own paths."""
    constraints: tuple[Constraint, ...] = ()
    """Feasible where at most zero; callables of the candidates."""
    pending: Float[Array, "p d"] | None = None
    """Candidates already under way, whose results are not known yet."""
    eta: Float[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1e-3)
    """Width of the smooth step of a constraint, unit of the constraint."""
    seed: int = eqx.field(static=True, default=0)
    """Seed for surrogates that only know `sample(key, X, n)`."""
    n_samples: int = eqx.field(static=True, default=512)
    """Number of samples asked of such surrogates."""

    def joint(self, X: Float[Array, "q d"]) -> Float[Array, "n d"]:
        """Candidates followed by pending points."""
        if self.pending is None:
            return X
        return jnp.concatenate([X, self.pending], axis=0)

    def __call__(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Joint samples at the given points, and their log weights.

        Args:
            X: All points, pending ones included.

        Returns:
            Samples `(S,n)` or `(S,n,m)`, and log feasibilities `(S,n)` or `(1,n)`.
        """
        if hasattr(self.model, "sample_and_feasibility"):
            samples, log_weight = self.model.sample_and_feasibility(X)
            log_weight = log_weight[None, :]
        else:
            samples = self._sample(X)
            log_weight = jnp.zeros((1, X.shape[0]), samples.dtype)
        return samples, log_weight + log_feasibility(self.constraints, X, self.eta)

    def _sample(self, X: Array) -> Array:
        if self.base is None or not hasattr(self.model, "sample_from"):
            return self.model.sample(jax.random.key(self.seed), X, self.n_samples)
        n = X.shape[0]
        if n > self.base.shape[1]:
            raise ConfigError(
                f"the acquisition was built with base samples for {self.base.shape[1]} points and "
                f"was called with {n} (pending and baseline points included); build it with a "
                "larger `q`."
            )
        return self.model.sample_from(self.base[:, :n], X)


def log_feasibility(
    constraints: tuple[Constraint, ...], X: Float[Array, "n d"], eta: Array
) -> Float[Array, "s n"]:
    """Sum over the constraints of the log of a smooth step.

    Args:
        constraints: Callables, feasible where at most zero.
        X: Points.
        eta: Width of the step.

    Returns:
        Log feasibility `(1,n)`, or `(S,n)` if a constraint gives one value per sample.
    """
    total = jnp.zeros((1, X.shape[0]), X.dtype)
    for constraint in constraints:
        value = constraint(X)
        value = value[None, :] if value.ndim == 1 else value
        total = total + jax.nn.log_sigmoid(-value / eta)
    return total


def make_base(
    model: Any, sampler: Any, n_points: int, n_objectives: int | None, *, seed: int
) -> tuple[Float[Array, "S n"] | None, int]:
    """Base samples for a surrogate, and how many samples there are.

    Args:
        model: Surrogate.
        sampler: Number of samples, or an array of base samples `(S,n)` or `(S,n,m)`, or None
            for 512 samples.
        n_points: Points sampled jointly, pending and baseline points included.
        n_objectives: Number of objectives, or None for one objective without a last axis.
        seed: Sobol scrambling seed.

    Returns:
        Base samples or None, and the number of samples.

    Raises:
        ConfigError: If given base samples have the wrong shape.
    """
    if getattr(model, "is_gaussian", True) is False:
        return None, 0
    tail = () if n_objectives is None else (n_objectives,)
    if sampler is None or isinstance(sampler, int):
        n_samples = 512 if sampler is None else sampler
        if n_samples < 1:
            raise ConfigError(f"sampler={sampler} was given; ask for at least one sample.")
        if not hasattr(model, "sample_from"):
            return None, n_samples
        return normal_base_samples(n_samples, (n_points, *tail), seed=seed), n_samples
    base = jnp.asarray(sampler, float)
    if base.ndim != 2 + len(tail) or base.shape[1] < n_points or base.shape[2:] != tail:
        raise ConfigError(
            f"base samples of shape {base.shape} were given; this acquisition needs "
            f"(S, {n_points}{''.join(f', {m}' for m in tail)})."
        )
    return base, base.shape[0]
