"""Jackknife ensemble: one model per subsample, all trained in one vectorised call."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, DataError, require_x64
from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.fit import trainable_filter
from perfusio_jax.gp.inference import log_posterior
from perfusio_jax.gp.likelihood import GaussianLikelihood

ModelFactory = Callable[[Any, Any], tuple[MultiTaskRateGP, GaussianLikelihood]]


class EnsembleMember(eqx.Module):
    """One member and the rows it was trained on."""

    model: MultiTaskRateGP
    """Fitted and conditioned GP."""
    likelihood: GaussianLikelihood
    """Its noise."""
    train_idx: Int[Array, " n"]
    """Rows of the training table."""


class JackknifeEnsemble(eqx.Module):
    """Mixture of GPs, each fitted to a random part of the rows.

    Example:
        >>> JackknifeEnsemble(K=5).n_rows(10)
        8
    """

    members: tuple[EnsembleMember, ...]
    """Fitted members; empty before `fit`."""
    K: int = eqx.field(static=True)
    """Number of members."""
    subsample_fraction: float = eqx.field(static=True)
    """Part of the rows each member sees [-]."""
    seed: int = eqx.field(static=True)
    """Seed of the subsamples."""

    def __init__(
        self,
        K: int = 20,
        subsample_fraction: float = 0.8,
        seed: int = 0,
        *,
        members: tuple[EnsembleMember, ...] = (),
    ):
        """Set up an ensemble.

        Args:
            K: Number of members.
            subsample_fraction: Part of the rows each member sees, above 0 and at most 1.
            seed: Seed of the subsamples.
            members: Fitted members.

        Raises:
            ConfigError: If a number is out of range.
        """
        if K < 1 or not 0.0 < subsample_fraction <= 1.0:
            raise ConfigError(
                f"K={K}, subsample_fraction={subsample_fraction}; allowed are K >= 1 and a "
                "fraction above 0 and at most 1."
            )
        self.K, self.subsample_fraction, self.seed = int(K), float(subsample_fraction), int(seed)
        self.members = tuple(members)

    def n_rows(self, total: int) -> int:
        """Rows per member out of `total`."""
        return max(1, round(self.subsample_fraction * total))

    def fit(
        self,
        train_x: Float[ArrayLike, "N D"],
        train_y: Float[ArrayLike, "..."],
        model_factory: ModelFactory,
        n_iter: int = 200,
        lr: float = 0.05,
    ) -> "JackknifeEnsemble":
        """Train all members.

        Args:
            train_x: Inputs, one row per sample (or indexed rows).
            train_y: Targets, (N, T) or (N,).
            model_factory: Callable (x, y) -> (model, likelihood) that builds a fresh GP.
            n_iter: Adam steps per member.
            lr: Adam's rate.

        Returns:
            A fitted ensemble.

        Raises:
            DataError: If there are too few rows, or the factory's models differ in shape.
            PrecisionError: In 32-bit mode.
        """
        require_x64("Fitting an ensemble of Gaussian processes")
        x, y = np.asarray(train_x, float), np.asarray(train_y, float)
        if x.shape[0] != y.shape[0] or x.shape[0] < 2:
            raise DataError(f"{x.shape[0]} inputs and {y.shape[0]} targets; two or more of each.")
        rng = np.random.default_rng(self.seed)
        size = self.n_rows(x.shape[0])
        chosen = [np.sort(rng.choice(x.shape[0], size, replace=False)) for _ in range(self.K)]
        models = []
        for rows in chosen:
            model, likelihood = model_factory(x[rows], y[rows])
            noise = GaussianLikelihood(likelihood.variance(model.n_tasks))
            models.append(eqx.tree_at(lambda m: m.likelihood, model, noise))
        shapes = {tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(m)) for m in models}
        if len(shapes) != 1:
            raise DataError(
                "the members' training tables differ in shape; give every member the same number "
                "of complete rows (table form), or reserve a capacity in the factory."
            )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
        fitted = _train(stacked, n_iter, jnp.asarray(lr, float))
        members = []
        for k, rows in enumerate(chosen):
            model = jax.tree.map(lambda leaf, k=k: leaf[k], fitted)
            members.append(EnsembleMember(model, model.likelihood, jnp.asarray(rows)))
        return JackknifeEnsemble(self.K, self.subsample_fraction, self.seed, members=tuple(members))

    def predict(
        self,
        x_new: Float[ArrayLike, "M D"],
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
    ) -> dict[str, Float[Array, "..."]]:
        """Mean and quantiles of the mixture of the members' posteriors.

        Args:
            x_new: Raw inputs, or indexed rows with the task last.
            quantiles: Probabilities between 0 and 1.

        Returns:
            "mean" and "q10", "q50", ...: (M, T), or (M,) for indexed rows.

        Raises:
            RuntimeError: Before `fit`.
            DataError: If a quantile is not a probability.
        """
        if not self.members:
            raise RuntimeError("the ensemble has no members yet; call fit first.")
        for level in quantiles:
            if not 0.0 < level < 1.0:
                raise DataError(f"quantile {level}; allowed are numbers between 0 and 1.")
        inputs = jnp.asarray(x_new, float)
        width = self.members[0].model.n_state_dims + 1
        plain = inputs[:, :width]
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[member.model for member in self.members]
        )
        mean, sd = _member_moments(stacked, plain)
        if inputs.shape[1] == width + 1:
            rows, tasks = jnp.arange(inputs.shape[0]), inputs[:, width].astype(int)
            mean, sd = mean[:, rows, tasks], sd[:, rows, tasks]
        result = {"mean": jnp.mean(mean, axis=0)}
        for level in quantiles:
            result[f"q{level * 100:.0f}"] = mixture_quantile(mean, sd, level)
        return result


@eqx.filter_jit
def _train(stacked: MultiTaskRateGP, n_iter: int, lr: Array) -> MultiTaskRateGP:
    spec = trainable_filter(stacked)
    params, fixed = eqx.partition(stacked, spec)
    solver = optax.adam(lr)
    scale = jnp.asarray(stacked.data.targets.shape[1], float)

    def loss(p: Any) -> Array:
        each = jax.vmap(log_posterior)(eqx.combine(p, fixed))
        # members share no parameters: the gradient of the sum is the members' gradients
        return -jnp.sum(jnp.where(jnp.isfinite(each), each, 0.0)) / scale

    def body(carry: Any, _: Any) -> Any:
        p, state = carry
        grad = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), jax.grad(loss)(p))
        updates, state = solver.update(grad, state, p)
        return (optax.apply_updates(p, updates), state), None

    (params, _), _ = jax.lax.scan(body, (params, solver.init(params)), None, length=n_iter)
    return jax.vmap(lambda m: m.condition())(eqx.combine(params, fixed))


@eqx.filter_jit
def _member_moments(stacked: MultiTaskRateGP, inputs: Array) -> tuple[Array, Array]:
    def one(model: MultiTaskRateGP) -> tuple[Array, Array]:
        mean, covariance = model.posterior(inputs)
        return mean, jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0.0))

    return jax.vmap(one)(stacked)


@eqx.filter_jit
def mixture_quantile(
    mean: Float[Array, "K *shape"], sd: Float[Array, "K *shape"], level: float
) -> Float[Array, "*shape"]:
    """Quantile of an equal mixture of normals, by bisection to rounding.

    Args:
        mean: Means of the components.
        sd: Their standard deviations, not negative.
        level: Probability between 0 and 1.

    Returns:
        The value below which the mixture puts `level`.
    """
    width = jnp.maximum(sd, 1e-12 * (1.0 + jnp.abs(mean)))
    low = jnp.min(mean - 10.0 * width, axis=0)
    high = jnp.max(mean + 10.0 * width, axis=0)

    def body(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        below = jnp.mean(jax.scipy.stats.norm.cdf((middle[None] - mean) / width), axis=0)
        return jnp.where(below < level, middle, low), jnp.where(below < level, high, middle)

    low, high = jax.lax.fori_loop(0, 60, body, (low, high))
    return 0.5 * (low + high)
