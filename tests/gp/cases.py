"""Sizes and helpers of the tests in this folder."""

import equinox as eqx
import jax.numpy as jnp

from perfusio_jax.gp import MultiTaskRateGP, rate_data

N, T, D = 24, 3, 5


def with_gaps(model, gaps):
    """The same model with some targets taken away."""
    data = model.data
    y = jnp.where(gaps, jnp.nan, data.targets)
    fresh = rate_data(data.inputs, y, row_noise=data.row_noise)
    return eqx.tree_at(lambda m: m.data, _dense(model), fresh)


def _dense(model):
    x, y = model.data.inputs, model.data.targets.at[0, 0].set(jnp.nan)
    return MultiTaskRateGP(
        x,
        y,
        model.likelihood,
        kernel=model.kernel,
        n_tasks=model.n_tasks,
        scaling=model.scaling,
        target_scale=model.target_scale,
        row_noise=model.data.row_noise,
    )
