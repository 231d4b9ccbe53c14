"""Exact inference with a few missing targets, at almost the price of none.

Let P be the inverse of the covariance of *all* targets, which the two small
eigendecompositions give, and m the missing ones. Leaving m out is the same as conditioning
the precision,

    Q = P - P[:, m] P[m, m]^-1 P[m, :],    log|S_oo| = log|S| + log|P[m, m]|,

so that a table with 5 % of its targets missing costs a factor of the size of the *missing*
entries instead of one of all entries. What a missing target holds does not matter: Q has a
zero there. All is in whitened targets, noise divided out.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from perfusio_jax._core import Scalar
from perfusio_jax.gp.curvature import Slopes, Solved, along, slopes_tangent
from perfusio_jax.gp.posterior import KroneckerPosterior, spectrum

_SMALLEST = 2000


class MissingEntries(eqx.Module):
    """Places of the missing targets, padded to a fixed number."""

    row: Int[Array, " m"]
    """Row of each."""
    task: Int[Array, " m"]
    """Task of each."""
    is_real: Float[Array, " m"]
    """One for a missing target, zero for padding."""


def missing_entries(present: Bool[Array, "N T"], count: int) -> MissingEntries:
    """Where targets are missing in rows that hold others.

    Args:
        present: Which targets were observed.
        count: Room; at least the number of missing targets.

    Returns:
        Their places. Rows without any target are padding, not missing.
    """
    missing = ~present & jnp.any(present, axis=1, keepdims=True)
    row, task = jnp.nonzero(missing, size=count, fill_value=0)
    is_real = jnp.arange(count) < jnp.sum(missing)
    return MissingEntries(row, task, is_real.astype(jnp.zeros(()).dtype))


def room_for(present: np.ndarray) -> int:
    """Room to reserve for missing targets; zero where the dense form serves better.

    Args:
        present: Which targets were observed.

    Returns:
        The number missing, rounded up to a multiple of 64; zero if none, more than a fifth, or
        the table is so small that the dense form is as fast.
    """
    missing = int(np.sum(~present & present.any(axis=1, keepdims=True)))
    if missing == 0 or present.size < _SMALLEST or missing > present.size // 5:
        return 0
    return -(-missing // 64) * 64


def _factors(
    vectors: Array, values: Array, turn: Array, task_values: Array, missing: MissingEntries
) -> tuple[Array, Array]:
    """Cholesky factor of P[m, m] (unit where padded) and W = P[:, m] chol^-T, (T, N, m).

    Both indices of W in front are those of the eigenbasis: there the precision P is diagonal,
    and what follows needs no products with the eigenvectors.
    """
    weight = 1.0 / (values[:, None] * task_values[None, :] + 1.0)
    at = vectors[missing.row] * missing.is_real[:, None]
    of_task = turn[missing.task]

    def per_task(total: Array, j: Array) -> tuple[Array, Array]:
        half = at * jnp.sqrt(weight[:, j])[None, :]
        inner = (half @ half.T) * of_task[:, j][:, None] * of_task[:, j][None, :]
        return total + inner, weight[:, j][:, None] * at.T * of_task[:, j][None, :]

    count = missing.row.shape[0]
    zero = jnp.zeros((count, count), vectors.dtype)
    inner, outer = jax.lax.scan(per_task, zero, jnp.arange(task_values.shape[0]))
    factor = jnp.linalg.cholesky(inner + jnp.diag(1.0 - missing.is_real))
    # the inverse of a small triangle: a product then does what a long triangular solve would,
    # on all cores; P lies between 1 / (1 + largest eigenvalue) and 1, so it is well behaved
    inverse = jax.scipy.linalg.solve_triangular(
        factor, jnp.eye(count, dtype=factor.dtype), lower=True
    )
    low = outer.reshape(-1, count) @ inverse.T
    return factor, low.reshape(outer.shape)


@jax.custom_jvp
def masked_log_density(
    gram: Float[Array, "N N"],
    tasks: Float[Array, "T T"],
    targets: Float[Array, "N T"],
    missing: MissingEntries,
) -> Scalar:
    """Gaussian log density of the observed whitened targets, without the constant.

    Args:
        gram: Whitened input covariance K~.
        tasks: Whitened task covariance B~.
        targets: Whitened targets, zero where missing.
        missing: Where.

    Returns:
        `-0.5 log|S_oo| - 0.5 y_o' S_oo^-1 y_o` with `S = K~ x B~ + I`.
    """
    return _value(gram, tasks, targets, missing)[0]


def _value(gram: Array, tasks: Array, targets: Array, missing: MissingEntries) -> Any:
    values, vectors, task_values, turn = spectrum(gram, tasks)
    full = values[:, None] * task_values[None, :] + 1.0
    factor, low = _factors(vectors, values, turn, task_values, missing)
    rotated = vectors.T @ targets @ turn
    seen = jnp.einsum("jnq,nj->q", low, rotated)
    weights = rotated / full - jnp.einsum("jnq,q->nj", low, seen)
    quadratic = jnp.sum(rotated**2 / full) - jnp.sum(seen**2)
    log_det = jnp.sum(jnp.log(full)) + 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    solved = Solved(values, vectors, task_values, turn, weights, low)
    return -0.5 * (log_det + quadratic), solved


@masked_log_density.defjvp
def _masked_jvp(primals: Any, tangents: Any) -> Any:
    value, slopes = _masked_slopes(*primals)
    return value, along(slopes, Slopes(*tangents[:3]))


@jax.custom_jvp
def _masked_slopes(
    gram: Array, tasks: Array, targets: Array, missing: MissingEntries
) -> tuple[Array, Slopes]:
    """Value and derivative of `masked_log_density`."""
    return _masked_solved(gram, tasks, targets, missing)[:2]


@_masked_slopes.defjvp
def _masked_slopes_jvp(primals: Any, tangents: Any) -> Any:
    value, slopes, solved = _masked_solved(*primals)
    tangent = Slopes(*tangents[:3])
    return (value, slopes), (along(slopes, tangent), slopes_tangent(solved, tangent))


def _masked_solved(
    gram: Array, tasks: Array, targets: Array, missing: MissingEntries
) -> tuple[Array, Slopes, Solved]:
    value, solved = _value(gram, tasks, targets, missing)
    values, vectors, task_values, turn, weights, low = solved
    full = values[:, None] * task_values[None, :] + 1.0
    by_row = jnp.sum(task_values[None, :] / full, axis=1)
    by_task = jnp.sum(values[:, None] / full, axis=0)
    size = gram.shape[0]
    # trace of Q (dK x B) and of Q (K x dB): the full precision, less the conditioned part
    side = (low * jnp.sqrt(task_values)[:, None, None]).transpose(1, 0, 2).reshape(size, -1)
    inner = (weights * task_values[None, :]) @ weights.T + side @ side.T
    gram_bar = vectors @ (inner - jnp.diag(by_row)) @ vectors.T
    of_tasks = jnp.einsum("inq,jnq,n->ij", low, low, values)
    turned = weights.T @ (values[:, None] * weights) - jnp.diag(by_task) + of_tasks
    slopes = Slopes(0.5 * gram_bar, 0.5 * turn @ turned @ turn.T, -vectors @ weights @ turn.T)
    return value, slopes, solved


class MaskedPosterior(eqx.Module):
    """Solved state for a few missing targets: the complete one, and what the gaps take away."""

    whole: KroneckerPosterior
    """Solution as if all targets were there."""
    low: Float[Array, "T N m"]
    """Factor of what conditioning removes from the precision, tasks rotated."""

    def solve(self, residual: Float[Array, "... N T"]) -> Float[Array, "... N T"]:
        """See `KroneckerPosterior.solve`; missing entries are ignored."""
        whole = self.whole
        white = residual / jnp.reshape(
            whole.row_sd[:, None] * whole.task_sd[None, :],
            (1,) * (residual.ndim - 2) + residual.shape[-2:],
        )
        seen = jnp.einsum("jnq,...nt,tj->...q", self.low, white, whole.task_vectors)
        removed = jnp.einsum("jnq,...q->...nj", self.low, seen) / jnp.reshape(
            whole.row_sd[:, None], (1,) * (residual.ndim - 2) + (-1, 1)
        )
        mixing = (whole.task_vectors * whole.task_values[None, :]).T * whole.task_sd[None, :]
        return whole.solve(residual) - jnp.einsum("...nj,jt->...nt", removed, mixing)

    def _projected(self, cross: Array) -> Array:
        """What the conditioned part sees of each input, (M, m, T)."""
        whole = self.whole
        seen = jnp.einsum("mn,jnq->mqj", cross / whole.row_sd[None, :], self.low)
        mixing = (whole.task_vectors * whole.task_values[None, :]).T * whole.task_sd[None, :]
        return jnp.einsum("mqj,jt->mqt", seen, mixing)

    def covariance_reduction(self, cross: Float[Array, "M N"]) -> Float[Array, "M T T"]:
        """See `KroneckerPosterior.covariance_reduction`."""
        part = self._projected(cross)
        return self.whole.covariance_reduction(cross) - jnp.einsum("mqs,mqt->mst", part, part)

    def expected_reduction(self, second: Float[Array, "N N"]) -> Float[Array, "T T"]:
        """See `KroneckerPosterior.expected_reduction`."""
        whole = self.whole
        rows = self.low / whole.row_sd[None, :, None]
        moved = jnp.einsum("nm,jmq->jnq", second, rows)
        mixing = (whole.task_vectors * whole.task_values[None, :]).T * whole.task_sd[None, :]
        inner = jnp.einsum("inq,jnq->ij", rows, moved)
        return whole.expected_reduction(second) - mixing.T @ inner @ mixing

    @property
    def condition_number(self) -> Scalar:
        """Of the complete covariance, an upper bound [-]."""
        return self.whole.condition_number


def masked_posterior(whole: KroneckerPosterior, missing: MissingEntries) -> MaskedPosterior:
    """Condition a complete solution on the missing targets being missing.

    Args:
        whole: Solution as if all targets were there; independent noise between rows.
        missing: Where they are not.

    Returns:
        The solved state.
    """
    _, low = _factors(whole.vectors, whole.values, whole.task_vectors, whole.task_values, missing)
    return MaskedPosterior(whole, jnp.einsum("ni,jiq->jnq", whole.vectors, low))
