"""Second derivatives of the structured evidence, free of the eigenvectors' own derivatives.

Those of a repeated eigenvalue do not exist, and padding rows repeat the eigenvalue zero. The
slopes of the evidence, however, are smooth functions of the two covariances. With
`S = K~ x B~ + I`, its inverse P, and Q = P without what missing targets take away,

    d(Q y) = Q (dy - dS Q y),    dQ = -Q dS Q,

and in the eigenbasis, held fixed, both are products of `1 / (lambda_i b_j + 1)`: no difference of
eigenvalues is ever divided by.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Solved(NamedTuple):
    """The structured covariance, solved at a point."""

    values: Float[Array, " N"]
    """Eigenvalues of the whitened input covariance [-]."""
    vectors: Float[Array, "N N"]
    """Its eigenvectors."""
    task_values: Float[Array, " T"]
    """Eigenvalues of the whitened task covariance [-]."""
    task_vectors: Float[Array, "T T"]
    """Its eigenvectors."""
    weights: Float[Array, "N T"]
    """`Q y` in the eigenbasis."""
    low: Float[Array, "T N m"]
    """Factor of what missing targets take from P, in the eigenbasis; no columns if none miss."""


class Slopes(NamedTuple):
    """Derivative of the log density, or a tangent of it."""

    gram: Float[Array, "N N"]
    """By the whitened input covariance."""
    tasks: Float[Array, "T T"]
    """By the whitened task covariance."""
    targets: Float[Array, "N T"]
    """By the whitened targets."""


def slopes_tangent(solved: Solved, tangent: Slopes) -> Slopes:
    """How the slopes of the evidence change with its arguments.

    Args:
        solved: The covariance at the point.
        tangent: Direction in which the arguments move.

    Returns:
        Derivative of the slopes in that direction; linear in it.
    """
    values, vectors, task_values, turn, weights, low = solved
    full = values[:, None] * task_values[None, :] + 1.0
    gram_dot = _symmetric(vectors.T @ tangent.gram @ vectors)
    tasks_dot = _symmetric(turn.T @ tangent.tasks @ turn)
    targets_dot = vectors.T @ tangent.targets @ turn

    def moved(flat: Array) -> Array:
        """DS times columns: (T, N, c)."""
        by_gram = jnp.einsum("ab,jbq,j->jaq", gram_dot, flat, task_values)
        return by_gram + jnp.einsum("a,jk,kaq->jaq", values, tasks_dot, flat)

    # d(Q y)
    right = targets_dot - moved(weights.T[:, :, None])[:, :, 0].T
    seen = jnp.einsum("jnq,nj->q", low, right)
    change = right / full - jnp.einsum("jnq,q->nj", low, seen)

    # Q dS Q = P dS P - H L' - L H' + L Z L', traced over tasks or over rows
    ahead = moved(low)
    half = ahead / full.T[:, :, None]
    inner = low @ jnp.einsum("jaq,jap->qp", low, ahead)
    both = half - 0.5 * inner
    share, part = task_values[None, :] / full, values[:, None] / full
    own, rows = jnp.diagonal(tasks_dot), jnp.diagonal(gram_dot)

    crossed = jnp.einsum("j,jaq,jbq->ab", task_values, both, low)
    taken = (share @ share.T) * gram_dot + jnp.diag((share * part) @ own) - crossed - crossed.T
    less = jnp.diag((1.0 / full) @ own) - jnp.einsum("jaq,jk,kbq->ab", low, tasks_dot, low)
    outer = (change * task_values[None, :]) @ weights.T
    by_gram = outer + outer.T + weights @ tasks_dot @ weights.T + taken - less

    crossed = jnp.einsum("a,jaq,kaq->jk", values, both, low)
    taken = (part.T @ part) * tasks_dot + jnp.diag(rows @ (share * part)) - crossed - crossed.T
    less = jnp.diag(rows @ (1.0 / full)) - jnp.einsum("jaq,ab,kbq->jk", low, gram_dot, low)
    outer = change.T @ (values[:, None] * weights)
    by_tasks = outer + outer.T + weights.T @ gram_dot @ weights + taken - less
    return Slopes(
        gram=0.5 * vectors @ by_gram @ vectors.T,
        tasks=0.5 * turn @ by_tasks @ turn.T,
        targets=-vectors @ change @ turn.T,
    )


def along(slopes: Slopes, tangent: Slopes) -> Array:
    """Change of the log density in a direction."""
    parts = [jnp.sum(slope * move) for slope, move in zip(slopes, tangent, strict=True)]
    return parts[0] + parts[1] + parts[2]


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + matrix.T)
