"""Acquisition functions of several objectives, all maximised.

Each takes a batch of candidates `(q, d)` and returns one number; more is better.

Reference:
    Daulton, Balandat, Bakshy (2020), Differentiable expected hypervolume improvement;
    (2021), Parallel Bayesian optimization of multiple noisy objectives; Knowles (2006), ParEGO;
    Ament et al. (2023) for the logarithm.
"""

import math
from itertools import combinations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ConfigError, Float, Scalar
from perfusio_jax.bed.acquisition.boxes import BoxDecomposition, nondominated_boxes
from perfusio_jax.bed.acquisition.draws import Draws, PinnedDraws, never
from perfusio_jax.bed.acquisition.montecarlo import best_known
from perfusio_jax.bed.acquisition.smooth import fatmin, log_fatplus, log_mean_exp

MAX_BATCH = 8
"""Largest number of points whose joint hypervolume improvement is summed over subsets."""

_LONGEST = 1e10
"""Upper edge that stands in for the open side of a box, unit of the objective."""


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
    given = None if weights is None else jnp.asarray(weights)[:, None]
    lower, upper = boxes.lower[:, :, None], boxes.upper[:, :, None]
    return jnp.squeeze(_improvement_per_sample(points[:, :, None], lower, upper, given), 0)


def _improvement_per_sample(points: Array, lower: Array, upper: Array, weights: Any) -> Array:
    """Volumes `(S,)` of points `(q,m,S)` over boxes `(C,m,S)` or `(C,m,1)`.

    Samples come last: the inner loops then run over many equal things.
    """
    q = points.shape[0]
    _check_batch(q)
    total = jnp.zeros(points.shape[2:], points.dtype)
    for size in range(1, q + 1):
        for subset in combinations(range(q), size):
            corner = points[subset[0]]
            for k in subset[1:]:
                corner = jnp.minimum(corner, points[k])
            volume = _volume_above(corner, lower, upper)
            if weights is not None:
                volume = volume * math.prod(weights[k] for k in subset)
            total = total + (-1.0) ** (size + 1) * volume
    return total


@jax.custom_jvp
def _volume_above(corner: Array, lower: Array, upper: Array) -> Array:
    """Volume `(S,)` of the boxes below a corner `(m,S)`; a derivative by the corner only."""
    return jnp.sum(math.prod(_edges(corner, lower, upper)), axis=0)


@_volume_above.defjvp
def _volume_above_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """The areas of the faces, summed at once: reverse mode then has no sums to go back through."""
    corner, lower, upper = primals
    edges = _edges(corner, lower, upper)
    value = jnp.sum(math.prod(edges), axis=0)
    slope = jnp.zeros_like(value)
    for k in range(len(edges)):
        face = math.prod(edges[:k] + edges[k + 1 :])
        moves = (corner[k][None, :] > lower[:, k, :]) & (corner[k][None, :] <= upper[:, k, :])
        slope = slope + jnp.sum(jnp.where(moves, face, 0.0), axis=0) * tangents[0][k]
    return value, slope


def _edges(corner: Array, lower: Array, upper: Array) -> list[Array]:
    """Sides of the boxes below a corner, one `(C,S)` per objective."""
    return [
        jnp.maximum(jnp.minimum(corner[k][None, :], upper[:, k, :]) - lower[:, k, :], 0.0)
        for k in range(corner.shape[0])
    ]


def log_hypervolume_improvement(
    points: Float[Array, "q m"],
    boxes: BoxDecomposition,
    log_weight: Float[Array, "q"],
    *,
    tau_relu: float | Array,
    tau_max: float,
) -> Float[Array, "C"]:
    """Logarithm of a smooth improvement of every box, finite however far the points are.

    Args:
        points: New points, higher is better.
        boxes: Decomposition of the non-dominated region.
        log_weight: Log feasibility of each point [-].
        tau_relu: Width of the smooth positive part, unit of the objectives.
        tau_max: Width of the smooth minima, in log improvement [-].

    Returns:
        Log volume in every box; very low for empty boxes.

    Raises:
        ConfigError: If there are more than `MAX_BATCH` points.
    """
    q = points.shape[0]
    _check_batch(q)
    is_empty = jnp.any(boxes.upper <= boxes.lower, axis=1)
    length = jnp.minimum(boxes.upper, _LONGEST) - boxes.lower
    length = jnp.maximum(length, jnp.finfo(length.dtype).tiny)
    log_length = jnp.log(jnp.where(is_empty[:, None], 1.0, length))
    gain = log_fatplus(points[None, :, :] - boxes.lower[:, None, :], tau_relu)  # (C,q,m)
    signed: list[list[Array]] = [[], []]
    for size in range(1, q + 1):
        subsets = np.array(list(combinations(range(q), size)))
        corner = gain[:, subsets, :]
        corner = corner[:, :, 0, :] if size == 1 else fatmin(corner, tau_max, axis=2)
        pair = jnp.stack([corner, jnp.broadcast_to(log_length[:, None, :], corner.shape)], -1)
        area = jnp.sum(fatmin(pair, tau_max), axis=-1)
        area = area + jnp.sum(log_weight[subsets], axis=1)[None, :]
        signed[size % 2].append(jax.nn.logsumexp(area, axis=1))
    odd = jax.nn.logsumexp(jnp.stack(signed[1]), axis=0)
    if signed[0]:
        even = jax.nn.logsumexp(jnp.stack(signed[0]), axis=0)
        # the smooth sums may cross by a rounding error; the difference is then next to nothing
        ratio = jnp.minimum(even - odd, -jnp.finfo(points.dtype).eps)
        odd = odd + jnp.log1p(-jnp.exp(ratio))
    return jnp.where(is_empty, never(odd), odd)


def _check_batch(q: int) -> None:
    if q > MAX_BATCH:
        raise ConfigError(
            f"a joint hypervolume improvement of {q} points was asked for; at most {MAX_BATCH} "
            "(pending points included) are summed exactly. Choose the batch in parts with "
            "`optimise_sequentially`, or ask for the approximation with `n_directions`."
        )


def _check_objectives(samples: Array, m: int) -> None:
    if samples.ndim != 3 or samples.shape[-1] != m:
        raise ConfigError(
            f"the surrogate gives samples of shape {samples.shape}; this acquisition needs "
            f"(S, q, {m}), one entry per objective of the reference point."
        )


def _mean_improvement(samples: Array, log_weight: Array, boxes: BoxDecomposition) -> Scalar:
    weights = jnp.broadcast_to(jnp.exp(log_weight), samples.shape[:2]).T
    lower, upper = (
        jnp.moveaxis(v, 0, -1) if v.ndim == 3 else v[:, :, None] for v in (boxes.lower, boxes.upper)
    )
    points = jnp.moveaxis(samples, 0, -1)
    return jnp.mean(_improvement_per_sample(points, lower, upper, weights))


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

    draws: PinnedDraws
    """Surrogate, base samples and constraints, joint with the baseline."""
    boxes: BoxDecomposition
    """One decomposition per sample, `(S, C, m)`."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(X)
        _check_objectives(samples, self.boxes.lower.shape[-1])
        return _mean_improvement(samples, log_weight, self.boxes)


class LogNoisyExpectedHypervolumeImprovement(eqx.Module):
    """qLogNEHVI: logarithm of a smooth qNEHVI, with a gradient however far the front is."""

    draws: PinnedDraws
    """Surrogate, base samples and constraints, joint with the baseline."""
    boxes: BoxDecomposition
    """One decomposition per sample, `(S, C, m)`."""
    tau_relu: Scalar = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1e-6)
    """Width of the smooth positive part, unit of the objectives."""
    tau_max: float = eqx.field(static=True, default=1e-3)
    """Width of the smooth minima, in log improvement [-]."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(X)
        _check_objectives(samples, self.boxes.lower.shape[-1])
        log_weight = jnp.broadcast_to(log_weight, samples.shape[:2])

        def one(points: Array, boxes: BoxDecomposition, weight: Array) -> Array:
            return log_hypervolume_improvement(
                points, boxes, weight, tau_relu=self.tau_relu, tau_max=self.tau_max
            )

        log_volume = jax.vmap(one)(samples, self.boxes, log_weight)
        return log_mean_exp(jax.nn.logsumexp(log_volume, axis=1))


def noisy_front(
    draws: Draws, baseline: Float[Array, "P d"], is_there: Array, ref_point: Float[Array, "m"]
) -> tuple[PinnedDraws, Float[Array, "S P m"]]:
    """Sample the baseline once.

    Args:
        draws: Surrogate, base samples and constraints.
        baseline: Points already run, and pending ones.
        is_there: Which rows hold a point.
        ref_point: Reference point.

    Returns:
        Draws at further points, and the baseline's samples; those of infeasible points lie at
        the reference point, where they do not count.
    """
    known, legal, rest = draws.pin(baseline)
    _check_objectives(known, ref_point.shape[0])
    legal = jnp.broadcast_to(legal & is_there[None, :], known.shape[:2])
    return rest, jnp.where(legal[:, :, None], known, ref_point[None, None, :])


def noisy_boxes(
    draws: Draws, baseline: Float[Array, "P d"], is_there: Array, ref_point: Float[Array, "m"]
) -> tuple[PinnedDraws, BoxDecomposition]:
    """As `noisy_front`, with every sample's front cut into boxes."""
    rest, known = noisy_front(draws, baseline, is_there, ref_point)
    return rest, jax.vmap(nondominated_boxes, (0, None))(known, ref_point)


class NoisyParEGO(eqx.Module):
    """qNParEGO: noisy expected improvement of one random augmented Chebyshev scalarisation.

    Works for any number of objectives; a batch takes one scalarisation per candidate when it
    is built point by point with new weights.
    """

    draws: PinnedDraws
    """Surrogate, base samples and constraints, joint with the baseline."""
    weights: Float[Array, "m"]
    """Weights of the objectives [-], summing to one."""
    low: Float[Array, "m"]
    """Smallest baseline value of each objective, for scaling."""
    high: Float[Array, "m"]
    """Largest baseline value of each objective, for scaling."""
    augmentation: Scalar
    """Weight of the sum beside the worst objective [-]."""
    best: Float[Array, "S"]
    """Best feasible scalarised baseline value on every sample [-]."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        samples, log_weight = self.draws(X)
        _check_objectives(samples, self.weights.shape[0])
        value = scalarise(samples, self.weights, (self.low, self.high), self.augmentation)
        gain = jnp.maximum(value - self.best[:, None], 0.0) * jnp.exp(log_weight)
        return jnp.mean(jnp.max(gain, axis=1))


def scalarise(
    Y: Float[Array, "... m"],
    weights: Float[Array, "m"],
    scale: tuple[Array, Array],
    augmentation: Array,
) -> Float[Array, "..."]:
    """Augmented Chebyshev value, more is better.

    Args:
        Y: Objective vectors.
        weights: Weights of the objectives.
        scale: Smallest and largest value of each objective, `(m,)` each.
        augmentation: Weight of the sum beside the worst objective [-].

    Returns:
        One number per vector [-].
    """
    shape = (1,) * (Y.ndim - 1) + (-1,)
    low, high = scale
    span = jnp.where(high > low, high - low, 1.0)
    regret = (high.reshape(shape) - Y) / span.reshape(shape)
    weighted = weights.reshape(shape) * regret
    return -(jnp.max(weighted, axis=-1) + augmentation * jnp.sum(weighted, axis=-1))


def noisy_parego(
    draws: Draws,
    baseline: Float[Array, "P d"],
    is_there: Array,
    weights: Float[Array, "m"],
    augmentation: float = 0.05,
    *,
    n_run: int,
) -> NoisyParEGO:
    """Build qNParEGO: scale the objectives by the range of the run points' posterior means.

    Args:
        draws: Surrogate, base samples and constraints.
        baseline: Points already run, and pending ones.
        is_there: Which rows hold a point.
        weights: Weights of the objectives, not negative, summing to one.
        augmentation: Weight of the sum beside the worst objective [-].
        n_run: Rows of the baseline that were run; the pending ones follow.

    Returns:
        The acquisition.
    """
    mean, _ = draws.model.posterior(baseline[:n_run])
    _check_objectives(mean[None], weights.shape[0])
    low, high = jnp.min(mean, axis=0), jnp.max(mean, axis=0)
    known, legal, rest = draws.pin(baseline)
    share = jnp.asarray(augmentation, float)
    value = scalarise(known, weights, (low, high), share)
    best = best_known(value, legal & is_there[None, :])
    return NoisyParEGO(rest, weights, low, high, share, best)
