"""The process on smoothed residuals, before its hyper-parameters are searched."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from perfusio_jax._core import on_device
from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding import CloneRegistry, EntityEmbedding, fit_embedded
from perfusio_jax.gp import (
    GaussianLikelihood,
    HyperPriors,
    MultiTaskRateGP,
    PerfusionKernel,
    fit_scaling,
)
from perfusio_jax.hybrid.layout import CHO, Layout
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.smoothing import Smoothed

_NOT_READ = 1e12
"""Divisor of a column that the process is not to read."""


def row_noise(variance: Array, reference: Array) -> Array:
    """Relative noise per row: geometric mean over the species, tamed."""
    logs = jnp.log(jnp.maximum(variance, 1e-12)) - jnp.log(reference)[None, :]
    return jnp.exp(jnp.clip(jnp.mean(logs, axis=1), np.log(0.2), np.log(10.0)))


_row_noise = compiled(row_noise)


def gp_on(
    data: Smoothed,
    previous: MultiTaskRateGP | None,
    config: HybridConfig,
    registry: CloneRegistry | None,
    layout: Layout = CHO,
) -> tuple[MultiTaskRateGP, np.ndarray]:
    """A process on smoothed residuals, and the typical variance of its targets."""
    keep = np.asarray(data.steps).reshape(-1)
    inputs = np.asarray(data.inputs).reshape(keep.size, -1)[keep]
    targets = np.asarray(data.targets).reshape(keep.size, -1)[keep]
    every = np.asarray(data.variance).reshape(keep.size, -1)
    variance = every[keep]
    n = targets.shape[1]
    reference = np.maximum(np.median(variance, axis=0), 1e-12)
    rows = inputs.shape[0] if config.lanes is None else keep.size
    capacity = -(-(rows + config.growth) // config.growth) * config.growth
    size = inputs.shape[1] - 1
    scales = {}
    if not layout.is_cho:
        # a batch of two days and a culture of two months have each their own pace
        days = max(float(inputs[:, -1].max()), 1e-3)
        scales = {"day_scale": 0.5 * days, "offset_share": 0.02}
    if previous is not None:
        kernel, likelihood, scaling = previous.kernel, previous.likelihood, previous.scaling
    elif registry is None:
        kernel = PerfusionKernel(n, size, config.rank, size, lengthscale=4.0)
        likelihood = GaussianLikelihood(0.2)
        scaling = fit_scaling(inputs, log_columns=tuple(range(n)), day_column=size, **scales)
    else:
        # the clone's column makes room for its vector
        width = size - 1 + config.embedding_dim
        kernel = PerfusionKernel(n, width, config.rank, width, lengthscale=4.0)
        likelihood = GaussianLikelihood(0.2)
        table = EntityEmbedding(registry.n_clones, config.embedding_dim)
        scaling = fit_embedded(inputs, table, log_columns=tuple(range(n)), **scales)
    if layout.latent and previous is None:
        # what nobody measures is no input: its column is pressed to nothing
        columns = jnp.asarray(layout.latent)
        where = (lambda s: s.scale) if registry is None else (lambda s: s.base.scale)
        scaling = eqx.tree_at(where, scaling, where(scaling).at[columns].set(_NOT_READ))
    if layout.latent:
        # nothing is to be learned of them: noise without a meaning, where zeros would have none and
        # leave the process as good as singular
        nothing = np.random.default_rng(0).standard_normal((targets.shape[0], len(layout.latent)))
        targets[:, list(layout.latent)] = nothing
    model = MultiTaskRateGP(
        inputs,
        targets,
        likelihood,
        None,
        kernel,
        n,
        size,
        row_noise=np.asarray(_row_noise(on_device(every), on_device(reference)))[keep],
        scaling=scaling,
        target_scale=np.sqrt(np.mean(targets**2, axis=0)) + 1e-6,
        capacity=capacity,
        priors=HyperPriors(),
    )
    return model, reference
