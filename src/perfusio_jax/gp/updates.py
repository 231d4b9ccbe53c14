"""New rows without a new search: swap the table, or append a block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp.exact_gp import MultiTaskRateGP, with_form
from perfusio_jax.gp.inference import condition_state, require_state
from perfusio_jax.gp.layout import RateData, rate_data
from perfusio_jax.gp.noise import SharedSamples, joined, selected
from perfusio_jax.gp.posterior import DensePosterior, safe_cholesky


def with_data(model: MultiTaskRateGP, data: RateData) -> MultiTaskRateGP:
    """Swap the training table and solve again; parameters stay.

    Args:
        model: Fitted model.
        data: New table; the same shape means no new compile.

    Returns:
        Conditioned model.

    Raises:
        DataError: If the table has gaps and the model was built for complete targets.
    """
    if model.is_complete:
        rows = np.asarray(data.present)
        if not np.all(rows.all(axis=1) | ~rows.any(axis=1)):
            raise DataError(
                "the new rows miss some targets, and this model holds complete rows only; "
                "estimate the states first, or build the model with the gaps in it."
            )
    if model.n_missing:
        model = _with_room(model, np.asarray(data.present))
    # the old table and state stay outside: their size would be part of the compile
    return _recondition(eqx.tree_at(lambda m: (m.data, m.state), model, (data, None)))


def _with_room(model: MultiTaskRateGP, present: np.ndarray) -> MultiTaskRateGP:
    """Raise the room for missing targets if a table has more of them."""
    missing = int(np.sum(~present & present.any(axis=1, keepdims=True)))
    if missing <= model.n_missing:
        return model
    return with_form(model, is_complete=False, n_missing=-(-missing // 64) * 64)


@compiled
def _recondition(model: MultiTaskRateGP) -> MultiTaskRateGP:
    return model.condition()


def append_rows(
    model: MultiTaskRateGP,
    inputs: Float[ArrayLike, "M D"],
    targets: Float[ArrayLike, "M T"],
    *,
    row_noise: Float[ArrayLike, " M"] | SharedSamples | None = None,
    growth: int = 128,
) -> MultiTaskRateGP:
    """Add rows and solve again without touching the parameters.

    With gaps in the targets (dense form) the Cholesky factor is extended by the new block,
    which costs the square of the table instead of its cube. In Kronecker form the two small
    eigendecompositions are made again: an eigendecomposition cannot be extended, and at 756
    rows it costs a fraction of a second.

    Args:
        model: Model with data.
        inputs: New raw inputs.
        targets: New targets.
        row_noise: Relative noise variance of the new rows [-]; for a model whose rows share
            samples, their `finite_difference_noise`, whose runs continue the model's unless
            `is_continued` is false for their first row.
        growth: Capacity is raised to the next multiple of this when it runs out.

    Returns:
        Conditioned model; a new compile only when the capacity had to grow.

    Raises:
        DataError: If the form of the noise is not the model's, or targets are missing and the
            model holds complete rows only.
    """
    old = model.data
    if (old.shared is not None) != isinstance(row_noise, SharedSamples):
        raise DataError(
            "the model's rows and the new ones must have the same form of noise: both with shared "
            "samples (finite_difference_noise), or both independent."
        )
    keep = np.asarray(old.row_present)
    count, added = int(keep.sum()), np.shape(np.asarray(inputs))[0]
    capacity = old.inputs.shape[0]
    is_block = (
        model.state is not None
        and isinstance(model.state.solved, DensePosterior)
        and count + added <= capacity
        and bool(np.all(keep[:count]))
        and bool(np.all(np.any(np.isfinite(np.asarray(targets, float)), axis=1)))
    )
    missing = np.where(np.asarray(old.present), np.asarray(old.targets), np.nan)[keep]
    x = np.vstack([np.asarray(old.inputs)[keep], np.asarray(inputs, float)])
    y = np.vstack([missing, np.asarray(targets, float)])
    noise: Any
    if isinstance(row_noise, SharedSamples) and old.shared is not None:
        noise = joined(selected(old.shared, np.flatnonzero(keep)), row_noise)
    else:
        fresh = np.ones(added) if row_noise is None else np.asarray(row_noise, float)
        noise = np.concatenate([np.asarray(old.row_noise)[keep], fresh])
    if x.shape[0] > capacity:
        capacity = int(np.ceil(x.shape[0] / growth) * growth)
    table = rate_data(x, y, row_noise=noise, capacity=capacity)
    if not is_block:
        return with_data(model, table)
    return _extend(model, table, jnp.asarray(count), added)


@compiled
def _extend(model: MultiTaskRateGP, table: RateData, start: Array, added: int) -> MultiTaskRateGP:
    """Block update of the Cholesky factor: rows `start` to `start + added` are new."""
    state = require_state(model)
    if not isinstance(state.solved, DensePosterior):
        raise ConfigError("only the dense form has a factor that can be extended.")
    bare = eqx.tree_at(lambda m: (m.data, m.state), model, (table, None))
    tasks, noise = model.kernel.task_covariance(), model.likelihood.variance(model.n_tasks)
    width = model.n_tasks
    scaled = model.scaling(table.inputs)
    rows = table.row_present.astype(scaled.dtype)
    present = table.present.astype(scaled.dtype)

    def fresh(array: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, start, added, axis=0)

    cross = model.kernel.input_matrix(fresh(scaled), scaled) * fresh(rows)[:, None] * rows[None, :]
    joint = jnp.einsum("nm,st->nsmt", cross, tasks)
    known = fresh(table.noise_matrix())
    joint = joint + jnp.einsum("nm,st->nsmt", known, jnp.diag(noise))
    joint = joint * fresh(present)[:, :, None, None] * present[None, None, :, :]
    joint = joint.reshape(added * width, -1)
    inner = jax.lax.dynamic_slice_in_dim(joint, start * width, added * width, axis=1)
    inner = inner + jnp.diag(1.0 - fresh(present).reshape(-1))
    is_old = jnp.arange(joint.shape[1]) < start * width
    outer = jnp.where(is_old[None, :], joint, 0.0)
    # L = [[L11, 0], [L21, L22]] with L21 = (L11^-1 K12)' and L22 L22' = K22 - L21 L21'
    below = jax.scipy.linalg.solve_triangular(state.solved.factor, outer.T, lower=True).T
    corner, jitter = safe_cholesky(inner - below @ below.T)
    block = jax.lax.dynamic_update_slice(below, corner, (jnp.zeros_like(start), start * width))
    factor = jax.lax.dynamic_update_slice(
        state.solved.factor, block, (start * width, jnp.zeros_like(start))
    )
    solved = DensePosterior(factor, present, tasks, jnp.maximum(jitter, state.solved.jitter))
    return eqx.tree_at(
        lambda m: m.state, bare, condition_state(bare, solved), is_leaf=lambda node: node is None
    )
