"""Cholesky factors of many small matrices."""

import jax.numpy as jnp

from perfusio_jax._core import Array, Float

_UNROLLED = 6
"""Largest matrix whose Cholesky factor is written out."""


def cholesky_small(matrix: Float[Array, "... n n"], *, unroll: bool = True) -> Array:
    """Lower Cholesky factors of many small matrices.

    Written out entry by entry for at most `_UNROLLED` rows, so that a batch runs as plain
    vector arithmetic instead of one library call per matrix.

    Args:
        matrix: Symmetric positive definite matrices.
        unroll: Whether it may be written out.

    Returns:
        Factors; NaN where a matrix is not positive definite.
    """
    n = matrix.shape[-1]
    if n > _UNROLLED or not unroll:
        return jnp.linalg.cholesky(matrix)
    L: list[list[Array]] = [[] for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[..., i, j]
            for k in range(j):
                rest = rest - L[i][k] * L[j][k]
            L[i].append(jnp.sqrt(rest) if i == j else rest / L[j][j])
    zero = jnp.zeros_like(matrix[..., 0, 0])
    rows = [jnp.stack([*row, *[zero] * (n - len(row))], axis=-1) for row in L]
    return jnp.stack(rows, axis=-2)
