"""Evidence and conditioning: what the data say at given parameters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp.masked import (
    MaskedPosterior,
    masked_log_density,
    masked_posterior,
    missing_entries,
)
from perfusio_jax.gp.posterior import (
    DensePosterior,
    KroneckerPosterior,
    dense_posterior,
    joint_covariance,
    kronecker_log_density,
    kronecker_posterior,
)

_LOG_2PI = float(np.log(2.0 * np.pi))


class Conditioned(eqx.Module):
    """What the data left behind: inputs, solved covariance, weights."""

    inputs: Float[Array, "N D"]
    """Features of the training inputs."""
    row_present: Float[Array, " N"]
    """One in rows with data, zero in padding rows."""
    solved: KroneckerPosterior | MaskedPosterior | DensePosterior
    """Decomposed covariance plus noise."""
    weights: Float[Array, "N T"]
    """Weights of the posterior mean, scaled targets."""
    mean_offset: Float[Array, "N T"]
    """Mean function at the training inputs, scaled targets."""


def require_state(model: Any) -> Conditioned:
    """The conditioning state of a model.

    Args:
        model: Model.

    Returns:
        Its state.

    Raises:
        ConfigError: If it has none.
    """
    if model.state is None:
        raise ConfigError("the model holds no conditioning state; call `condition()` or `fit`.")
    return model.state


def _centred(model: Any) -> tuple[Array, Array, Array]:
    """Features, centred scaled targets, scaled mean; zero where nothing was observed."""
    data = model.data
    present = data.present.astype(data.targets.dtype)
    offset = model.mean_at(data.inputs) / model.target_scale[None, :]
    targets = (data.targets / model.target_scale[None, :] - offset) * present
    return model.scaling(data.inputs), targets, offset * present


def _gram(model: Any, scaled: Array) -> tuple[Array, Array]:
    rows = model.data.row_present.astype(scaled.dtype)
    return model.kernel.input_matrix(scaled, scaled) * rows[:, None] * rows[None, :], rows


@compiled
def condition_state(
    model: Any, solved: KroneckerPosterior | MaskedPosterior | DensePosterior | None = None
) -> Conditioned:
    """Solve for the data and parameters of a model.

    Args:
        model: Model; its present state is not used.
        solved: Decomposed covariance, if it is known already.

    Returns:
        The conditioning state.
    """
    scaled, targets, offset = _centred(model)
    if solved is not None:
        rows = model.data.row_present.astype(scaled.dtype)
        return Conditioned(scaled, rows, solved, solved.solve(targets), offset)
    gram, rows = _gram(model, scaled)
    tasks, noise = model.kernel.task_covariance(), model.likelihood.variance(model.n_tasks)
    if model.is_complete:
        shared = None if model.data.shared is None else model.data.noise_matrix()
        solved = kronecker_posterior(gram, tasks, noise, model.data.row_noise, shared)
    elif model.n_missing:
        whole = kronecker_posterior(gram, tasks, noise, model.data.row_noise)
        solved = masked_posterior(whole, missing_entries(model.data.present, model.n_missing))
    else:
        present = model.data.present.astype(scaled.dtype)
        joint = joint_covariance(gram, tasks, noise, model.data.noise_matrix(), present)
        solved = dense_posterior(joint, tasks, present)
    return Conditioned(scaled, rows, solved, solved.solve(targets), offset)


@compiled
def log_evidence(model: Any) -> Scalar:
    """Log marginal likelihood of the observed targets, in their scaled unit.

    Args:
        model: Model with data; its conditioning state is not used.

    Returns:
        Log density. Padding rows and missing targets contribute nothing.
    """
    data = model.data
    scaled, targets, _ = _centred(model)
    gram, _ = _gram(model, scaled)
    tasks, noise = model.kernel.task_covariance(), model.likelihood.variance(model.n_tasks)
    present = data.present.astype(scaled.dtype)
    count = jnp.sum(present)
    if model.is_complete or model.n_missing:
        density = _structured_evidence(model, gram, tasks, noise, targets)
        return density - 0.5 * count * _LOG_2PI
    joint = joint_covariance(gram, tasks, noise, data.noise_matrix(), present)
    factor = jnp.linalg.cholesky(joint)
    white = jax.scipy.linalg.solve_triangular(factor, targets.reshape(-1), lower=True)
    log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
    return -0.5 * jnp.sum(white**2) - log_det - 0.5 * count * _LOG_2PI


def _structured_evidence(
    model: Any, gram: Array, tasks: Array, noise: Array, targets: Array
) -> Array:
    data, task_sd = model.data, jnp.sqrt(noise)
    tasks = tasks / task_sd[:, None] / task_sd[None, :]
    targets = targets / task_sd[None, :]
    present = data.present.astype(gram.dtype)
    if data.shared is None:
        row_sd = jnp.sqrt(data.row_noise)
        white = gram / row_sd[:, None] / row_sd[None, :]
        targets = targets / row_sd[:, None]
        rows = jnp.log(data.row_noise)[:, None]
    else:
        factor = jnp.linalg.cholesky(data.noise_matrix())
        half = jax.scipy.linalg.solve_triangular(factor, gram, lower=True)
        white = jax.scipy.linalg.solve_triangular(factor, half.T, lower=True)
        targets = jax.scipy.linalg.solve_triangular(factor, targets, lower=True)
        rows = 2.0 * jnp.log(jnp.diagonal(factor))[:, None]
    if model.is_complete:
        density = kronecker_log_density(white, tasks, targets)
    else:
        missing = missing_entries(data.present, model.n_missing)
        density = masked_log_density(white, tasks, targets, missing)
    return density - 0.5 * jnp.sum(present * (rows + jnp.log(noise)[None, :]))


@compiled
def log_posterior(model: Any) -> Scalar:
    """Log evidence plus log hyper-prior: what `fit` maximises.

    Args:
        model: Model with data.

    Returns:
        Log density up to a constant.
    """
    prior = model.priors.log_density(model.kernel, model.likelihood.variance(model.n_tasks))
    if hasattr(model.scaling, "log_prior"):
        prior = prior + model.scaling.log_prior()
    return log_evidence(model) + prior
