"""Jackknife ensemble: one model per subsample, all trained in one vectorised call."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, DataError, require_x64
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp.exact_gp import MultiTaskRateGP, with_form
from perfusio_jax.gp.fitting import trainable_filter
from perfusio_jax.gp.inference import log_posterior
from perfusio_jax.gp.layout import widened
from perfusio_jax.gp.levels import level_keys
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


class Calibration(eqx.Module):
    """Errors of the training rows under the members that did not see them."""

    inputs: Float[Array, "N D"]
    """Raw training inputs."""
    error: Float[Array, "N T"]
    """Absolute error of the mean of those members; NaN where none is left or none was measured
    [target unit]."""
    weights: Float[Array, "N K"]
    """Average over the members that did not see a row."""


class JackknifeEnsemble(eqx.Module):
    """Mixture of GPs, each fitted to a random part of the rows, or of the runs.

    Example:
        >>> JackknifeEnsemble(K=5).n_rows(10)
        8
    """

    members: tuple[EnsembleMember, ...]
    """Fitted members; empty before `fit`."""
    calibration: Calibration | None
    """Out-of-member errors; None before `calibrate`."""
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
        calibration: Calibration | None = None,
    ):
        """Set up an ensemble.

        Args:
            K: Number of members.
            subsample_fraction: Part of the rows each member sees, above 0 and at most 1.
            seed: Seed of the subsamples.
            members: Fitted members.
            calibration: Out-of-member errors.

        Raises:
            ConfigError: If a number is out of range.
        """
        if K < 1 or not 0.0 < subsample_fraction <= 1.0:
            raise ConfigError(
                f"K={K}, subsample_fraction={subsample_fraction}; allowed are K >= 1 and a "
                "fraction above 0 and at most 1."
            )
        self.K, self.subsample_fraction, self.seed = int(K), float(subsample_fraction), int(seed)
        self.members, self.calibration = tuple(members), calibration

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
        *,
        run_ids: ArrayLike | None = None,
    ) -> "JackknifeEnsemble":
        """Train all members in one call.

        Args:
            train_x: Inputs, one row per sample (or indexed rows).
            train_y: Targets, (N, T) or (N,).
            model_factory: Callable (x, y) -> (model, likelihood) that builds a fresh GP.
            n_iter: Adam steps per member.
            lr: Adam's rate.
            run_ids: Run of each row; members then leave out whole runs, whose rows resemble
                each other.

        Returns:
            A fitted ensemble.

        Raises:
            DataError: If there are too few rows or runs, or the factory's models differ in
                shape.
            PrecisionError: In 32-bit mode.
        """
        require_x64("Fitting an ensemble of Gaussian processes")
        x, y = np.asarray(train_x, float), np.asarray(train_y, float)
        if x.shape[0] != y.shape[0] or x.shape[0] < 2:
            raise DataError(f"{x.shape[0]} inputs and {y.shape[0]} targets; two or more of each.")
        chosen = self._subsamples(x.shape[0], run_ids)
        models: list[MultiTaskRateGP] = []
        for rows in chosen:
            model, likelihood = model_factory(x[rows], y[rows])
            noise = GaussianLikelihood(likelihood.variance(model.n_tasks))
            models.append(eqx.tree_at(lambda m: m.likelihood, model, noise))
        models = _alike(models)
        shapes = {tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(m)) for m in models}
        if len(shapes) != 1:
            raise DataError(
                "the factory's models differ in more than their number of rows; it must build the "
                "same kernel, mean and scaling for every subsample."
            )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
        fitted = _train(stacked, n_iter, jnp.asarray(lr, float))
        members = []
        for k, rows in enumerate(chosen):
            model = jax.tree.map(lambda leaf, k=k: leaf[k], fitted)
            members.append(EnsembleMember(model, model.likelihood, jnp.asarray(rows)))
        return JackknifeEnsemble(self.K, self.subsample_fraction, self.seed, members=tuple(members))

    def _subsamples(self, count: int, run_ids: ArrayLike | None) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        if run_ids is None:
            size = self.n_rows(count)
            return [np.sort(rng.choice(count, size, replace=False)) for _ in range(self.K)]
        runs = np.asarray(run_ids)
        names = np.unique(runs)
        if runs.shape != (count,) or names.size < 2:
            raise DataError(
                f"run_ids of shape {runs.shape} with {names.size} runs; allowed are one per row "
                f"({count}), and two runs or more."
            )
        size = self.n_rows(names.size)
        return [
            np.flatnonzero(np.isin(runs, rng.choice(names, size, replace=False)))
            for _ in range(self.K)
        ]

    def calibrate(
        self, train_x: Float[ArrayLike, "N D"], train_y: Float[ArrayLike, "N T"]
    ) -> "JackknifeEnsemble":
        """Errors of the training rows under the members that did not see them.

        Args:
            train_x: The inputs the ensemble was fitted to, one row per sample.
            train_y: The targets, (N, T), NaN where missing.

        Returns:
            The ensemble with a calibration, for `predict_interval`.

        Raises:
            RuntimeError: Before `fit`.
            DataError: If the table is not the one of the fit, or every member saw every row.
        """
        stacked = self._stacked()
        x, y = jnp.asarray(train_x, float), jnp.asarray(train_y, float)
        last = max(int(jnp.max(member.train_idx)) for member in self.members)
        if y.ndim != 2 or x.shape[0] != y.shape[0] or last >= x.shape[0]:
            raise DataError(
                f"inputs {x.shape} and targets {y.shape} are not the table the members were drawn "
                "from; hand in the one of the fit, (N, D) and (N, T)."
            )
        outside = np.ones((x.shape[0], self.K))
        for k, member in enumerate(self.members):
            outside[np.asarray(member.train_idx), k] = 0.0
        count = outside.sum(axis=1, keepdims=True)
        if not np.any(count):
            raise DataError("every member saw every row; lower subsample_fraction.")
        weights = jnp.asarray(outside / np.maximum(count, 1.0))
        mean, _ = _member_moments(stacked, x)
        error = jnp.abs(y - jnp.einsum("nk,knt->nt", weights, mean))
        error = jnp.where(jnp.asarray(count) > 0, error, jnp.nan)
        return JackknifeEnsemble(
            self.K,
            self.subsample_fraction,
            self.seed,
            members=self.members,
            calibration=Calibration(x, error, weights),
        )

    def predict_interval(
        self, x_new: Float[ArrayLike, "M D"], level: float = 0.8
    ) -> tuple[Float[Array, "M T"], Float[Array, "M T"]]:
        """Interval for a new measurement, whatever the model got wrong (jackknife+).

        For exchangeable rows the interval covers with probability of at least `2 level - 1`, and
        in practice close to `level`. That takes `level / (1 - level)` rows with an error: 4 for
        80 %, 9 for 90 %, 19 for 95 %. With fewer there is no finite end that keeps the promise,
        and the interval is the whole line.

        Args:
            x_new: Raw inputs.
            level: Wanted coverage, between 0 and 1.

        Returns:
            Lower and upper end [target unit]; infinite where too few rows were measured.

        Raises:
            RuntimeError: Before `calibrate`.
            DataError: If the level is not a probability.

        Reference:
            Barber et al. (2021), Ann. Stat. 49, 486; for ensembles of subsamples, Kim, Xu and
            Barber (2020), jackknife+-after-bootstrap.
        """
        if self.calibration is None:
            raise RuntimeError("the ensemble is not calibrated; call calibrate first.")
        if not 0.0 < level < 1.0:
            raise DataError(f"level {level}; allowed are numbers between 0 and 1.")
        mean, _ = _member_moments(self._stacked(), jnp.asarray(x_new, float))
        return _jackknife_plus(self.calibration, mean, jnp.asarray(level, float))

    def _stacked(self) -> MultiTaskRateGP:
        if not self.members:
            raise RuntimeError("the ensemble has no members yet; call fit first.")
        return jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[member.model for member in self.members]
        )

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
            "mean" and "q10", "q50", "q2.5", ... (percent): (M, T), or (M,) for indexed rows.

        Raises:
            RuntimeError: Before `fit`.
            DataError: If a quantile is not a probability.
        """
        stacked = self._stacked()
        levels = level_keys(quantiles)
        inputs = jnp.asarray(x_new, float)
        width = self.members[0].model.n_state_dims + 1
        plain = inputs[:, :width]
        mean, sd = _member_moments(stacked, plain)
        if inputs.shape[1] == width + 1:
            rows, tasks = jnp.arange(inputs.shape[0]), inputs[:, width].astype(int)
            mean, sd = mean[:, rows, tasks], sd[:, rows, tasks]
        result = {"mean": jnp.mean(mean, axis=0)}
        for name, level in levels.items():
            result[name] = mixture_quantile(mean, sd, level)
        return result


def _alike(models: list[MultiTaskRateGP]) -> list[MultiTaskRateGP]:
    """Models of one shape and one form, whatever rows each subsample happened to hold."""
    size = max(model.data.inputs.shape[0] for model in models)
    is_complete = all(model.is_complete for model in models)
    room = max(model.n_missing for model in models)
    # the structured form needs every member in it; a dense one brings all to the dense form
    is_dense = any(not model.is_complete and not model.n_missing for model in models)
    room = 0 if is_complete or is_dense else room
    return [
        with_form(
            eqx.tree_at(lambda m: m.data, model, widened(model.data, size)),
            is_complete=is_complete,
            n_missing=room,
        )
        for model in models
    ]


@compiled
def _jackknife_plus(calibration: Calibration, mean: Array, level: Array) -> tuple[Array, Array]:
    """Order statistics of the left-out predictions plus and minus the left-out errors."""
    centre = jnp.einsum("nk,kmt->mnt", calibration.weights, mean)
    error = calibration.error[None, :, :]
    # NaN sorts last, so the valid ones come first
    count = jnp.sum(jnp.isfinite(calibration.error), axis=0)
    upper = jnp.sort(centre + error, axis=1)
    lower = jnp.sort(-(centre - error), axis=1)
    # a product that rounding put above a whole number is that number
    rank = jnp.ceil(level * (count + 1) - 1e-9).astype(int)
    place = jnp.clip(rank - 1, 0, upper.shape[1] - 1)[None, None, :]
    place = jnp.broadcast_to(place, (upper.shape[0], 1, upper.shape[2]))
    # the statistic of a rank above the number of errors is infinite, not the largest
    is_finite = (rank <= count)[None, :]
    low = -jnp.take_along_axis(lower, place, axis=1)[:, 0]
    high = jnp.take_along_axis(upper, place, axis=1)[:, 0]
    return jnp.where(is_finite, low, -jnp.inf), jnp.where(is_finite, high, jnp.inf)


@compiled
def _train(stacked: MultiTaskRateGP, n_iter: int, lr: Array) -> MultiTaskRateGP:
    import optax

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


@compiled
def _member_moments(stacked: MultiTaskRateGP, inputs: Array) -> tuple[Array, Array]:
    def one(model: MultiTaskRateGP) -> tuple[Array, Array]:
        mean, covariance = model.posterior(inputs)
        return mean, jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0.0))

    return jax.vmap(one)(stacked)


@compiled
def mixture_quantile(
    mean: Float[Array, "K *shape"], sd: Float[Array, "K *shape"], level: float
) -> Float[Array, "*shape"]:
    """Quantile of an equal mixture of normals, by bisection to rounding.

    Args:
        mean: Means of the components.
        sd: Their standard deviations, not negative.
        level: Probability between 0 and 1; another gives NaN.

    Returns:
        The value below which the mixture puts `level`; derivatives are those of the quantile.
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
    # a bisection's own derivative is that of its bracket; this one is of what it solves
    found = jax.lax.stop_gradient(0.5 * (low + high))
    z = (found[None] - mean) / width
    excess = jnp.mean(jax.scipy.stats.norm.cdf(z), axis=0) - level
    density = jnp.mean(jax.scipy.stats.norm.pdf(z) / width, axis=0)
    slope = jax.lax.stop_gradient(jnp.maximum(density, jnp.finfo(density.dtype).tiny))
    found = found - (excess - jax.lax.stop_gradient(excess)) / slope
    return jnp.where((level >= 0.0) & (level <= 1.0), found, jnp.nan)
