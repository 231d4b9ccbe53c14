"""Exact multi-task Gaussian process for rates.

One kernel matrix over the inputs is shared by all species; an index kernel couples them.
Noise is separable: a learned variance per species times a known relative weight per row
(from the assay CVs of the two samples a rate is made of). With complete targets, which is
what state estimation delivers, evidence and posterior cost two small eigendecompositions;
with a few gaps the same decompositions are conditioned on them, and with many the joint
Cholesky factor is used: both are the same as leaving the missing targets out.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import DataError
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp.checks import warn_about
from perfusio_jax.gp.inference import Conditioned, condition_state
from perfusio_jax.gp.kernels import PerfusionKernel, with_fixed_columns
from perfusio_jax.gp.layout import RateData, from_indexed, rate_data
from perfusio_jax.gp.levels import level_keys
from perfusio_jax.gp.likelihood import GaussianLikelihood
from perfusio_jax.gp.masked import room_for
from perfusio_jax.gp.means import ZeroMeanMultiTask
from perfusio_jax.gp.noise import SharedSamples
from perfusio_jax.gp.priors import HyperPriors
from perfusio_jax.gp.scaling import feature_count, fit_scaling


class Gaussian(NamedTuple):
    """Mean and covariance of a joint normal."""

    mean: Array
    """Mean, target unit."""
    covariance: Array
    """Covariance, target unit squared."""


class MultiTaskRateGP(eqx.Module):
    """Multi-output exact GP for metabolite rates."""

    kernel: PerfusionKernel
    """Covariance over scaled inputs and tasks."""
    likelihood: GaussianLikelihood
    """Noise."""
    mean_module: Any
    """Mean function on raw inputs, target unit; (N,) or (N, T)."""
    scaling: Any
    """Feature map: raw inputs (N, D_raw) to kernel features (N, D), day last in both."""
    target_scale: Float[Array, " T"]
    """Unit of the scaled targets [target unit]."""
    data: RateData
    """Padded training table, raw units."""
    priors: HyperPriors
    """Hyper-priors."""
    state: Conditioned | None
    """Conditioning state; None until `condition`."""
    n_tasks: int = eqx.field(static=True)
    """Number of tasks."""
    n_state_dims: int = eqx.field(static=True)
    """Number of raw columns besides the day."""
    is_complete: bool = eqx.field(static=True)
    """Whether every row has all targets (Kronecker form)."""
    n_missing: int = eqx.field(static=True)
    """Missing targets there is room for (Kronecker form conditioned on the gaps); zero for
    complete targets, and for the dense form."""

    def __init__(
        self,
        train_x: Float[ArrayLike, "..."],
        train_y: Float[ArrayLike, "..."],
        likelihood: GaussianLikelihood | None = None,
        mean_module: Any = None,
        kernel: PerfusionKernel | None = None,
        n_tasks: int = 9,
        n_state_dims: int | None = None,
        *,
        row_noise: Float[ArrayLike, " N"] | SharedSamples | None = None,
        scaling: Any = None,
        target_scale: Float[ArrayLike, " T"] | None = None,
        capacity: int | None = None,
        priors: HyperPriors | None = None,
    ):
        """Build an unconditioned model from data.

        Args:
            train_x: (N, D) inputs `[c, u, embedding, day]` when `train_y` is a table;
                (M, D + 1) indexed rows, task last, when `train_y` is a vector.
            train_y: (N, T) with NaN where missing, or (M,).
            likelihood: Noise; 0.1 of the scaled target squared by default.
            mean_module: Mean function; zero by default.
            kernel: Default is a `PerfusionKernel` with one lengthscale per column.
            n_tasks: Number of tasks.
            n_state_dims: Columns of state and controls; D - 1 by default.
            row_noise: Known relative noise variance per row [-], or the exact noise of finite
                differences (`finite_difference_noise`), whose neighbouring rows share a sample
                (table form only).
            scaling: Feature map, an `eqx.Module` from raw inputs (N, D_raw) to features
                (N, D) with the day last; an `InputScaling` fitted to the inputs by default. If
                it has `trainable()`, the leaves that names are trained; if it has
                `fixed_columns`, the lengthscales of those features stay at one; if it has
                `log_prior()`, that is added to the hyper-prior.
            target_scale: Unit of the scaled targets; the targets' spread by default.
            capacity: Rows to reserve for later days.
            priors: Hyper-priors.

        Raises:
            DataError: If data and sizes do not belong together.
        """
        x, y = np.asarray(train_x, float), np.asarray(train_y, float)
        if y.ndim == 1:
            x, y = (np.asarray(a) for a in from_indexed(x, y, n_tasks))
        if y.ndim != 2 or y.shape[1] != n_tasks:
            raise DataError(
                f"targets of shape {y.shape} do not fit n_tasks={n_tasks}; allowed are (M,) "
                f"with indexed rows, and (N, {n_tasks})."
            )
        size = x.shape[1] - 1 if n_state_dims is None else int(n_state_dims)
        if size != x.shape[1] - 1:
            raise DataError(
                f"n_state_dims={size} but the inputs have {x.shape[1]} columns besides the task; "
                "they must be the state and control columns and one day column."
            )
        warn_about(x, y)
        self.data = rate_data(x, y, row_noise=row_noise, capacity=capacity)
        self.scaling = fit_scaling(x, day_column=size) if scaling is None else scaling
        features = feature_count(self.scaling, x.shape[1]) - 1
        if kernel is None:
            start = max(1.0, float(np.sqrt(features)))
            kernel = PerfusionKernel(n_tasks, features, 1, features, lengthscale=start)
        if kernel.n_tasks != n_tasks or kernel.n_state_dims != features:
            raise DataError(
                f"kernel for {kernel.n_tasks} tasks and {kernel.n_state_dims} columns; the data "
                f"have {n_tasks} tasks and {features} features besides the day."
            )
        fixed = tuple(getattr(self.scaling, "fixed_columns", ()))
        self.kernel = with_fixed_columns(kernel, fixed) if fixed else kernel
        noise = GaussianLikelihood() if likelihood is None else likelihood
        self.likelihood = GaussianLikelihood(noise.variance(n_tasks))
        self.mean_module = ZeroMeanMultiTask() if mean_module is None else mean_module
        if target_scale is None:
            with np.errstate(all="ignore"):
                spread = np.sqrt(np.nanmean((y - np.nanmean(y, axis=0)[None, :]) ** 2, axis=0))
            target_scale = np.where(spread > 1e-12, spread, 1.0)
        self.target_scale = jnp.asarray(target_scale, float)
        self.priors = HyperPriors() if priors is None else priors
        self.state = None
        self.n_tasks, self.n_state_dims = n_tasks, size
        rows = np.asarray(self.data.present)
        self.is_complete = bool(np.all(rows.all(axis=1) | ~rows.any(axis=1)))
        is_dense = self.is_complete or self.data.shared is not None
        self.n_missing = 0 if is_dense else room_for(rows)

    def mean_at(self, inputs: Float[Array, "N D"]) -> Float[Array, "N T"]:
        """Mean function for every task, target unit."""
        value = self.mean_module(inputs)
        if value.ndim == 1:
            value = value[:, None]
        return jnp.broadcast_to(value, (inputs.shape[0], self.n_tasks))

    def __call__(self, x: Float[Array, "N D"]) -> Gaussian:
        """Prior at a set of inputs.

        Args:
            x: Raw inputs `[c, u, embedding, day]`, or indexed rows with the task last.

        Returns:
            Mean and covariance; indexed rows give (M,) and (M, M), plain ones (N, T) and
            (N, T, N, T).

        Raises:
            DataError: If the number of columns fits neither form.
        """
        inputs, tasks = self._split(x)
        scaled = self.scaling(inputs)
        gram = self.kernel.input_matrix(scaled, scaled)
        mean, mixing = self.mean_at(inputs), self.kernel.task_covariance()
        unit = self.target_scale
        mixing = mixing * unit[:, None] * unit[None, :]
        if tasks is None:
            return Gaussian(mean, jnp.einsum("nm,st->nsmt", gram, mixing))
        rows = jnp.arange(inputs.shape[0])
        return Gaussian(mean[rows, tasks], gram * mixing[tasks][:, tasks])

    def condition(self) -> "MultiTaskRateGP":
        """Solve for the current data and parameters.

        Returns:
            The same model with its conditioning state.
        """
        return eqx.tree_at(
            lambda m: m.state, self, condition_state(self), is_leaf=lambda node: node is None
        )

    def mean(self, inputs: Float[Array, "M D"]) -> Float[Array, "M T"]:
        """Mean of the latent posterior at raw inputs, without its covariance.

        Args:
            inputs: Raw inputs `[c, u, embedding, day]`.

        Returns:
            Mean [target unit].
        """
        state = condition_state(self) if self.state is None else self.state
        cross = self.kernel.input_matrix(self.scaling(inputs), state.inputs)
        cross = cross * state.row_present[None, :]
        return self.mean_at(inputs) + (cross @ state.weights) * self.target_scale[None, :]

    def posterior(
        self, inputs: Float[Array, "M D"]
    ) -> tuple[Float[Array, "M T"], Float[Array, "M T T"]]:
        """Latent posterior at raw inputs, per input jointly over the tasks.

        Args:
            inputs: Raw inputs `[c, u, embedding, day]`.

        Returns:
            Mean [target unit] and covariance between tasks [target unit squared].
        """
        return _posterior(self, inputs)

    def predict_with_ci(
        self,
        x_new: Float[ArrayLike, "M D"],
        ci_levels: tuple[float, ...] = (0.1, 0.5, 0.9),
        *,
        include_noise: bool = False,
    ) -> dict[str, Float[Array, "..."]]:
        """Posterior mean and quantiles.

        Args:
            x_new: Raw inputs, or indexed rows with the task last.
            ci_levels: Probabilities between 0 and 1.
            include_noise: Quantiles of a noisy target instead of the latent function.

        Returns:
            "mean" and "q10", "q50", "q2.5", ... (percent): (M,) for indexed rows, (M, T) for
            plain inputs.

        Raises:
            DataError: If the columns fit neither form or a level is not a probability.
        """
        levels = level_keys(ci_levels)
        inputs, tasks = self._split(jnp.asarray(x_new, float))
        mean, covariance = _posterior(self, inputs)
        variance = jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0.0)
        if include_noise:
            noise = self.likelihood.variance(self.n_tasks) * self.target_scale**2
            variance = variance + noise[None, :]
        sd = jnp.sqrt(variance)
        if tasks is not None:
            rows = jnp.arange(inputs.shape[0])
            mean, sd = mean[rows, tasks], sd[rows, tasks]
        result = {"mean": mean}
        for name, level in levels.items():
            result[name] = mean + ndtri(jnp.asarray(level, float)) * sd
        return result

    def _split(self, x: Float[Array, "N D"]) -> tuple[Array, Array | None]:
        width = self.n_state_dims + 1
        if x.ndim != 2 or x.shape[1] not in (width, width + 1):
            raise DataError(
                f"inputs of shape {x.shape}; allowed are {width} columns [state, controls, "
                f"embedding, day], or {width + 1} with the task index last."
            )
        if x.shape[1] == width:
            return x, None
        return x[:, :width], x[:, width].astype(int)


@compiled
def _posterior(model: MultiTaskRateGP, inputs: Array) -> tuple[Array, Array]:
    state = condition_state(model) if model.state is None else model.state
    scaled = model.scaling(inputs)
    cross = model.kernel.input_matrix(scaled, state.inputs) * state.row_present[None, :]
    mean = model.mean_at(inputs) + (cross @ state.weights) * model.target_scale[None, :]
    prior = model.kernel.input_diagonal(scaled)[:, None, None]
    covariance = prior * model.kernel.task_covariance()[None, :, :]
    covariance = covariance - state.solved.covariance_reduction(cross)
    unit = model.target_scale
    return mean, covariance * unit[None, :, None] * unit[None, None, :]


def with_form(model: MultiTaskRateGP, *, is_complete: bool, n_missing: int) -> MultiTaskRateGP:
    """The same model, solved in another form; the numbers stay.

    Args:
        model: Model.
        is_complete: Whether all rows have all targets.
        n_missing: Room for missing targets; zero for the dense form.

    Returns:
        Unconditioned model.
    """
    copy = object.__new__(type(model))
    for field in dataclasses.fields(model):
        object.__setattr__(copy, field.name, getattr(model, field.name))
    for name, value in (("is_complete", is_complete), ("n_missing", n_missing), ("state", None)):
        object.__setattr__(copy, name, value)
    return copy
