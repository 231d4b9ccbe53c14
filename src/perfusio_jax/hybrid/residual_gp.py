"""The process on smoothed residuals, before its hyper-parameters are searched."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from perfusio_jax._core import STATE_ORDER
from perfusio_jax.embedding import CloneRegistry, EntityEmbedding, fit_embedded
from perfusio_jax.gp import (
    GaussianLikelihood,
    HyperPriors,
    MultiTaskRateGP,
    PerfusionKernel,
    fit_scaling,
)
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.smoothing import Smoothed

_N = len(STATE_ORDER)


def row_noise(variance: Array, reference: Array) -> Array:
    """Relative noise per row: geometric mean over the species, tamed."""
    logs = jnp.log(jnp.maximum(variance, 1e-12)) - jnp.log(reference)[None, :]
    return jnp.exp(jnp.clip(jnp.mean(logs, axis=1), np.log(0.2), np.log(10.0)))


def gp_on(
    data: Smoothed,
    previous: MultiTaskRateGP | None,
    config: HybridConfig,
    registry: CloneRegistry | None,
) -> tuple[MultiTaskRateGP, np.ndarray]:
    """A process on smoothed residuals, and the typical variance of its targets."""
    keep = np.asarray(data.steps).reshape(-1)
    inputs = np.asarray(data.inputs).reshape(keep.size, -1)[keep]
    targets = np.asarray(data.targets).reshape(keep.size, -1)[keep]
    variance = np.asarray(data.variance).reshape(keep.size, -1)[keep]
    reference = np.maximum(np.median(variance, axis=0), 1e-12)
    rows = inputs.shape[0] if config.lanes is None else keep.size
    capacity = -(-(rows + config.growth) // config.growth) * config.growth
    size = inputs.shape[1] - 1
    if previous is not None:
        kernel, likelihood, scaling = previous.kernel, previous.likelihood, previous.scaling
    elif registry is None:
        kernel = PerfusionKernel(_N, size, config.rank, size, lengthscale=4.0)
        likelihood = GaussianLikelihood(0.2)
        scaling = fit_scaling(inputs, log_columns=tuple(range(_N)), day_column=size)
    else:
        # the clone's column makes room for its vector
        width = size - 1 + config.embedding_dim
        kernel = PerfusionKernel(_N, width, config.rank, width, lengthscale=4.0)
        likelihood = GaussianLikelihood(0.2)
        table = EntityEmbedding(registry.n_clones, config.embedding_dim)
        scaling = fit_embedded(inputs, table, log_columns=tuple(range(_N)))
    model = MultiTaskRateGP(
        inputs,
        targets,
        likelihood,
        None,
        kernel,
        _N,
        size,
        row_noise=np.asarray(row_noise(jnp.asarray(variance), jnp.asarray(reference))),
        scaling=scaling,
        target_scale=np.sqrt(np.mean(targets**2, axis=0)) + 1e-6,
        capacity=capacity,
        priors=HyperPriors(),
    )
    return model, reference
