"""Acquisition functions of several objectives, all maximised.

Each takes a batch of candidates `(q, d)` and returns one number; more is better.

Reference:
    Daulton, Balandat, Bakshy (2020), Differentiable expected hypervolume improvement;
    (2021), Parallel Bayesian optimization of multiple noisy objectives; Knowles (2006), ParEGO.
"""

from itertools import combinations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ConfigError, Float, Scalar
from perfusio_jax.bed.boxes import BoxDecomposition, nondominated_boxes
from perfusio_jax.bed.draws import Draws

MAX_BATCH = 8
"""Largest number of points whose joint hypervolume improvement is summed over subsets."""


def hypervolume_improvement(
    points: Float[Array, "q m"],
    boxes: BoxDecomposition,
    weights: Float[Array, "q"] | None = None,
) -> Scalar:
    """Volume a set of points adds to what is already dominated.

    Sums the boxes by inclusion and exclusion over the non-empty subsets of the points.

    Args:
        points: New points, higher is better.
        boxes: Decomposition of the non-dominated region.
        weights: Feasibility of each point, 0 to 1 [-]; a subset counts with the product.

    Returns:
        Volume, product of the objectives' units, not negative for weights of one.

    Raises:
        ConfigError: If there are more than `MAX_BATCH` points.
    """
    q = points.shape[0]
    if q > MAX_BATCH:
        raise ConfigError(
            f"a joint hypervolume improvement of {q} points was asked for; at most {MAX_BATCH} "
            "(pending points included) are summed exactly. Choose the batch in parts."
        )
    total = jnp.zeros((), points.dtype)
    for size in range(1, q + 1):
        subsets = np.array(list(combinations(range(q), size)))
        corner = jnp.min(points[subsets], axis=1)
        edge = jnp.minimum(corner[:, None, :], boxes.upper[None, :, :]) - boxes.lower[None, :, :]
        volume = jnp.sum(jnp.prod(jnp.maximum(edge, 0.0), axis=-1), axis=-1)
        if weights is not None:
            volume = volume * jnp.prod(weights[subsets], axis=1)
        total = total + (-1.0) ** (size + 1) * jnp.sum(volume)
    return total


def _check_objectives(samples: Array, m: int) -> None:
    if samples.ndim != 3 or samples.shape[-1] != m:
        raise ConfigError(
            f"the surrogate gives samples of shape {samples.shape}; this acquisition needs "
            f"(S, q, {m}), one entry per objective of the reference point."
        )


def _mean_improvement(samples: Array, log_weight: Array, boxes: BoxDecomposition) -> Scalar:
    weights = jnp.broadcast_to(jnp.exp(log_weight), samples.shape[:2])
    axis = 0 if boxes.lower.ndim == 3 else None
    return jnp.mean(jax.vmap(hypervolume_improvement, (0, axis, 0))(samples, boxes, weights))


class ExpectedHypervolumeImprovement(eqx.Module):
    """qEHVI: expected hypervolume improvement over known, noise-free points."""

    draws: Draws
    """Surrogate, base samples, constraints, pending points."""
    boxes: BoxDecomposition
    """Decomposition of the region the known points leave."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(self.draws.joint(X))
        _check_objectives(samples, self.boxes.lower.shape[-1])
        return _mean_improvement(samples, log_weight, self.boxes)


class NoisyExpectedHypervolumeImprovement(eqx.Module):
    """qNEHVI: improvement over what the baseline points are worth on each sample.

    The baseline's values are uncertain; every sample has its own front, paired with the same
    sample of the candidates. Pending points join the baseline.
    """

    draws: Draws
    """Surrogate, base samples and constraints."""
    baseline: Float[Array, "P d"]
    """Points already run, and pending ones."""
    boxes: BoxDecomposition
    """One decomposition per sample, `(S, C, m)`."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        P = self.baseline.shape[0]
        samples, log_weight = self.draws(jnp.concatenate([self.baseline, X], axis=0))
        _check_objectives(samples, self.boxes.lower.shape[-1])
        return _mean_improvement(samples[:, P:], log_weight[:, P:], self.boxes)


def noisy_hypervolume(
    draws: Draws, baseline: Float[Array, "P d"], ref_point: Float[Array, "m"]
) -> NoisyExpectedHypervolumeImprovement:
    """Build qNEHVI: sample the baseline once and cut every sample's front into boxes.

    Args:
        draws: Surrogate, base samples and constraints.
        baseline: Points already run, and pending ones.
        ref_point: Reference point.

    Returns:
        The acquisition; infeasible baseline points (log weight below log 0.5) do not count
        towards the front.
    """
    samples, log_weight = draws(baseline)
    _check_objectives(samples, ref_point.shape[0])
    legal = jnp.broadcast_to(log_weight > -jnp.log(2.0), samples.shape[:2])
    samples = jnp.where(legal[:, :, None], samples, ref_point[None, None, :])
    boxes = jax.vmap(nondominated_boxes, (0, None))(samples, ref_point)
    return NoisyExpectedHypervolumeImprovement(draws, baseline, boxes)


class NoisyParEGO(eqx.Module):
    """qNParEGO: noisy expected improvement of one random augmented Chebyshev scalarisation.

    Works for any number of objectives; a batch takes one scalarisation per candidate when it
    is built point by point with new weights.
    """

    draws: Draws
    """Surrogate, base samples and constraints."""
    baseline: Float[Array, "P d"]
    """Points already run, and pending ones."""
    weights: Float[Array, "m"]
    """Weights of the objectives [-], summing to one."""
    low: Float[Array, "m"]
    """Smallest baseline value of each objective, for scaling."""
    high: Float[Array, "m"]
    """Largest baseline value of each objective, for scaling."""
    augmentation: Scalar = eqx.field(converter=lambda v: jnp.asarray(v, float), default=0.05)
    """Weight of the sum beside the worst objective [-]."""

    def scalarise(self, Y: Float[Array, "... m"]) -> Float[Array, "..."]:
        """Augmented Chebyshev value, more is better.

        Args:
            Y: Objective vectors.

        Returns:
            One number per vector [-].
        """
        shape = (1,) * (Y.ndim - 1) + (-1,)
        span = jnp.where(self.high > self.low, self.high - self.low, 1.0)
        regret = (self.high.reshape(shape) - Y) / span.reshape(shape)
        weighted = self.weights.reshape(shape) * regret
        return -(jnp.max(weighted, axis=-1) + self.augmentation * jnp.sum(weighted, axis=-1))

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        P = self.baseline.shape[0]
        samples, log_weight = self.draws(jnp.concatenate([self.baseline, X], axis=0))
        _check_objectives(samples, self.weights.shape[0])
        value = self.scalarise(samples)
        legal = jnp.broadcast_to(log_weight > -jnp.log(2.0), value.shape)
        # with no legal baseline point, the worst one seen stands in for the incumbent
        known = jnp.where(legal[:, :P], value[:, :P], jnp.min(value[:, :P], axis=1, keepdims=True))
        best = jnp.max(known, axis=1, keepdims=True)
        gain = jnp.maximum(value[:, P:] - best, 0.0) * jnp.exp(log_weight[:, P:])
        return jnp.mean(jnp.max(gain, axis=1))


def noisy_parego(
    draws: Draws,
    baseline: Float[Array, "P d"],
    weights: Float[Array, "m"],
    augmentation: float = 0.05,
) -> NoisyParEGO:
    """Build qNParEGO: scale the objectives by the range of the baseline's posterior means.

    Args:
        draws: Surrogate, base samples and constraints.
        baseline: Points already run, and pending ones.
        weights: Weights of the objectives, not negative, summing to one.
        augmentation: Weight of the sum beside the worst objective [-].

    Returns:
        The acquisition.
    """
    mean, _ = draws.model.posterior(baseline)
    _check_objectives(mean[None], weights.shape[0])
    low, high = jnp.min(mean, axis=0), jnp.max(mean, axis=0)
    return NoisyParEGO(draws, baseline, weights, low, high, augmentation)
