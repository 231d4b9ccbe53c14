"""Linear algebra of the multi-output posterior, in two forms with one interface.

Model of the scaled, centred targets Y (N, T): `Y = F + E`, `cov(vec F) = K x B`, noise
`var(E_ik) = w_i s_k` with known row weights w and learned task variances s. After dividing
by the noise the covariance is `K~ x B~ + I`.

* `KroneckerPosterior`: complete targets. Two small eigendecompositions solve everything.
* `DensePosterior`: any pattern of missing targets, by one Cholesky factor of size N T.

Padding rows and missing targets get a unit diagonal and no coupling, which is the same as
leaving them out.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import Scalar
from perfusio_jax.gp.curvature import Slopes, Solved, along, slopes_tangent


def spectrum(
    gram: Float[Array, "N N"], tasks: Float[Array, "T T"]
) -> tuple[Array, Array, Array, Array]:
    """Eigenvalues and vectors of the two factors, none below zero.

    Args:
        gram: Whitened input covariance.
        tasks: Whitened task covariance.

    Returns:
        Values and vectors of the first, values and vectors of the second.
    """
    values, vectors = jnp.linalg.eigh(gram)
    task_values, task_vectors = jnp.linalg.eigh(tasks)
    # rounding leaves eigenvalues of a singular matrix a little below zero
    return jnp.maximum(values, 0.0), vectors, jnp.maximum(task_values, 0.0), task_vectors


@jax.custom_jvp
def kronecker_log_density(
    gram: Float[Array, "N N"], tasks: Float[Array, "T T"], targets: Float[Array, "N T"]
) -> Scalar:
    """Gaussian log density of whitened targets, without the constant.

    Args:
        gram: Whitened input covariance K~.
        tasks: Whitened task covariance B~.
        targets: Whitened targets.

    Returns:
        `-0.5 log|K~ x B~ + I| - 0.5 y' (K~ x B~ + I)^-1 y`. First and second derivative are
        written out, so that repeated eigenvalues (of padding rows, say) do no harm; a third one
        would meet them.
    """
    values, vectors, task_values, task_vectors = spectrum(gram, tasks)
    full = values[:, None] * task_values[None, :] + 1.0
    rotated = vectors.T @ targets @ task_vectors
    return -0.5 * jnp.sum(jnp.log(full) + rotated**2 / full)


@kronecker_log_density.defjvp
def _kronecker_jvp(primals: Any, tangents: Any) -> Any:
    value, slopes = _kronecker_slopes(*primals)
    return value, along(slopes, Slopes(*tangents))


@jax.custom_jvp
def _kronecker_slopes(gram: Array, tasks: Array, targets: Array) -> tuple[Array, Slopes]:
    """Value and derivative of `kronecker_log_density`."""
    return _kronecker_solved(gram, tasks, targets)[:2]


@_kronecker_slopes.defjvp
def _kronecker_slopes_jvp(primals: Any, tangents: Any) -> Any:
    value, slopes, solved = _kronecker_solved(*primals)
    tangent = Slopes(*tangents)
    return (value, slopes), (along(slopes, tangent), slopes_tangent(solved, tangent))


def _kronecker_solved(gram: Array, tasks: Array, targets: Array) -> tuple[Array, Slopes, Solved]:
    values, vectors, task_values, task_vectors = spectrum(gram, tasks)
    full = values[:, None] * task_values[None, :] + 1.0
    rotated = vectors.T @ targets @ task_vectors
    weights = rotated / full
    value = -0.5 * jnp.sum(jnp.log(full) + rotated * weights)
    inverse_by_row = jnp.sum(task_values[None, :] / full, axis=1)
    inverse_by_task = jnp.sum(values[:, None] / full, axis=0)
    half = vectors @ weights
    gram_bar = 0.5 * (
        (half * task_values[None, :]) @ half.T - (vectors * inverse_by_row[None, :]) @ vectors.T
    )
    other = task_vectors @ weights.T
    tasks_bar = 0.5 * (
        (other * values[None, :]) @ other.T
        - (task_vectors * inverse_by_task[None, :]) @ task_vectors.T
    )
    targets_bar = -half @ task_vectors.T
    none = jnp.zeros((task_values.shape[0], values.shape[0], 0), gram.dtype)
    solved = Solved(values, vectors, task_values, task_vectors, weights, none)
    return value, Slopes(gram_bar, tasks_bar, targets_bar), solved


class KroneckerPosterior(eqx.Module):
    """Solved state for complete targets."""

    vectors: Float[Array, "N N"]
    """Eigenvectors of the whitened input covariance."""
    values: Float[Array, " N"]
    """Its eigenvalues [-]."""
    task_vectors: Float[Array, "T T"]
    """Eigenvectors of the whitened task covariance."""
    task_values: Float[Array, " T"]
    """Its eigenvalues [-]."""
    row_sd: Float[Array, " N"]
    """Square root of the row weights; ones where rows share samples (the vectors then hold
    the whitening of the rows too and are not orthogonal)."""
    task_sd: Float[Array, " T"]
    """Noise standard deviation per task, scaled targets."""

    def solve(self, residual: Float[Array, "... N T"]) -> Float[Array, "... N T"]:
        """Weights `a` with `posterior mean(x) = k(x, X) a`, tasks already mixed.

        Args:
            residual: Centred scaled targets, zero in padding rows; any batch in front.

        Returns:
            Weights per training row and task.
        """
        # rows last, so that a batch of right sides is one plain matrix product
        rotated = jnp.einsum("...nt,tj->...jn", residual, self.task_rotation)
        return self._back(rotated @ self._rows)

    @property
    def task_rotation(self) -> Float[Array, "T T"]:
        """What brings a row of targets to whitened, independent tasks."""
        return self.task_vectors / self.task_sd[:, None]

    def solve_noisy(
        self, rotated: Float[Array, "... T N"], normal: Float[Array, "... T N"]
    ) -> Float[Array, "... N T"]:
        """`solve` of a function drawn from the prior, plus noise drawn here.

        White noise stays white in the eigenvectors' own coordinates, so it is added there.

        Args:
            rotated: Prior draw at the training rows times `task_rotation`, rows last.
            normal: Standard normal numbers.

        Returns:
            Weights per training row and task; those of padding rows mean nothing.
        """
        return self._back(rotated @ self._rows + normal)

    @property
    def _rows(self) -> Array:
        return self.vectors / self.row_sd[:, None]

    def _back(self, white: Array) -> Array:
        """From the eigenvectors' coordinates (..., T, N) to weights (..., N, T)."""
        spectrum = self.values[None, :] * self.task_values[:, None] + 1.0
        gain = self.task_values[:, None] / spectrum
        solved = jnp.einsum("...ji,ji->...ji", white, gain) @ self._rows.T
        return jnp.einsum("...jn,jt->...nt", solved, self.task_vectors.T * self.task_sd[None, :])

    def covariance_reduction(self, cross: Float[Array, "M N"]) -> Float[Array, "M T T"]:
        """What the data take away from the prior covariance at each of M inputs.

        Args:
            cross: Input covariance to the training rows, zero towards padding rows.

        Returns:
            Reduction per input, scaled target squared.
        """
        spectrum = self.values[:, None] * self.task_values[None, :] + 1.0
        projected = (cross / self.row_sd[None, :]) @ self.vectors
        gain = (projected**2) @ (self.task_values[None, :] ** 2 / spectrum)
        mixing = self.task_vectors.T * self.task_sd[None, :]
        return jnp.einsum("mj,js,jt->mst", gain, mixing, mixing)

    def expected_reduction(self, second: Float[Array, "N N"]) -> Float[Array, "T T"]:
        """Mean of `covariance_reduction` over an uncertain input; linear in its argument.

        Args:
            second: Expected product of the input covariances to every two training rows.

        Returns:
            Expected reduction, scaled target squared.
        """
        spectrum = self.values[:, None] * self.task_values[None, :] + 1.0
        rows = self.vectors / self.row_sd[:, None]
        power = jnp.sum(rows * (second @ rows), axis=0)
        gain = power @ (self.task_values[None, :] ** 2 / spectrum)
        mixing = self.task_vectors.T * self.task_sd[None, :]
        return jnp.einsum("j,js,jt->st", gain, mixing, mixing)

    @property
    def condition_number(self) -> Scalar:
        """Ratio of extreme eigenvalues of the whitened covariance [-]."""
        return 1.0 + jnp.max(self.values) * jnp.max(self.task_values)


class DensePosterior(eqx.Module):
    """Solved state for targets with gaps; exact, cost (N T)^3."""

    factor: Float[Array, "NT NT"]
    """Lower Cholesky factor of covariance plus noise, rows ordered (row, task)."""
    present: Float[Array, "N T"]
    """One where a target was observed, zero elsewhere."""
    tasks: Float[Array, "T T"]
    """Covariance between tasks, scaled target squared."""
    jitter: Scalar
    """What was added to the diagonal to make the matrix positive definite; mostly zero."""

    def solve(self, residual: Float[Array, "... N T"]) -> Float[Array, "... N T"]:
        """See `KroneckerPosterior.solve`."""
        size = self.factor.shape[0]
        shape = residual.shape
        flat = jnp.einsum("...nt,nt->...nt", residual, self.present).reshape((-1, size))
        solved = jax.scipy.linalg.cho_solve((self.factor, True), flat.T).T.reshape(shape)
        return jnp.einsum("...nt,nt,ts->...ns", solved, self.present, self.tasks)

    def covariance_reduction(self, cross: Float[Array, "M N"]) -> Float[Array, "M T T"]:
        """See `KroneckerPosterior.covariance_reduction`."""
        size = self.factor.shape[0]
        joint = jnp.einsum("mn,ns,st->mnst", cross, self.present, self.tasks)
        flat = joint.transpose(1, 2, 0, 3).reshape(size, -1)
        solved = jax.scipy.linalg.solve_triangular(self.factor, flat, lower=True)
        solved = solved.reshape(size, cross.shape[0], self.tasks.shape[0])
        return jnp.einsum("zms,zmt->mst", solved, solved)

    def expected_reduction(self, second: Float[Array, "N N"]) -> Float[Array, "T T"]:
        """See `KroneckerPosterior.expected_reduction`."""
        size = self.factor.shape[0]
        inverse = jax.scipy.linalg.cho_solve((self.factor, True), jnp.eye(size))
        inverse = inverse.reshape(self.present.shape + self.present.shape)
        inner = jnp.einsum("nm,nsmt,ns,mt->st", second, inverse, self.present, self.present)
        return self.tasks @ inner @ self.tasks

    @property
    def condition_number(self) -> Scalar:
        """Estimate from the factor's diagonal [-], a lower bound."""
        diagonal = jnp.diagonal(self.factor)
        return (jnp.max(diagonal) / jnp.min(diagonal)) ** 2


def kronecker_posterior(
    gram: Float[Array, "N N"],
    tasks: Float[Array, "T T"],
    noise: Float[Array, " T"],
    row_noise: Float[Array, " N"],
    shared: Float[Array, "N N"] | None = None,
) -> KroneckerPosterior:
    """Decompose once.

    Args:
        gram: Input covariance, zero rows and columns for padding.
        tasks: Task covariance, scaled target squared.
        noise: Noise variance per task, scaled target squared.
        row_noise: Relative noise variance per row [-].
        shared: Covariance of the noise over rows, if rows share samples; takes the place of
            `row_noise`.

    Returns:
        The solved state.
    """
    row_sd, task_sd = jnp.sqrt(row_noise), jnp.sqrt(noise)
    if shared is not None:
        factor = jnp.linalg.cholesky(shared)
        half = jax.scipy.linalg.solve_triangular(factor, gram, lower=True)
        white = jax.scipy.linalg.solve_triangular(factor, half.T, lower=True)
        values, vectors, task_values, task_vectors = spectrum(
            0.5 * (white + white.T), tasks / task_sd[:, None] / task_sd[None, :]
        )
        vectors = jax.scipy.linalg.solve_triangular(factor, vectors, lower=True, trans="T")
        return KroneckerPosterior(
            vectors, values, task_vectors, task_values, jnp.ones_like(row_sd), task_sd
        )
    values, vectors, task_values, task_vectors = spectrum(
        gram / row_sd[:, None] / row_sd[None, :], tasks / task_sd[:, None] / task_sd[None, :]
    )
    return KroneckerPosterior(vectors, values, task_vectors, task_values, row_sd, task_sd)


def joint_covariance(
    gram: Float[Array, "N N"],
    tasks: Float[Array, "T T"],
    noise: Float[Array, " T"],
    row_noise: Float[Array, "N N"],
    present: Float[Array, "N T"],
) -> Float[Array, "NT NT"]:
    """Covariance of all targets in (row, task) order; unit diagonal where missing.

    Args:
        gram: Input covariance.
        tasks: Task covariance.
        noise: Noise variance per task.
        row_noise: Covariance of the noise over rows, relative to a task's [-].
        present: One where observed.

    Returns:
        Symmetric positive definite matrix.
    """
    size = present.size
    flat = present.reshape(size)
    joint = jnp.einsum("nm,st->nsmt", gram, tasks)
    joint = joint + jnp.einsum("nm,st->nsmt", row_noise, jnp.diag(noise))
    joint = joint.reshape(size, size) * flat[:, None] * flat[None, :]
    return joint + jnp.diag(1.0 - flat)


def safe_cholesky(matrix: Float[Array, "K K"]) -> tuple[Float[Array, "K K"], Scalar]:
    """Cholesky factor, with as much on the diagonal as it takes.

    Args:
        matrix: Symmetric, positive definite up to rounding.

    Returns:
        Factor, and what was added: nothing, or 1e-10, 1e-7 or 1e-4 of the mean diagonal.
    """
    unit = jnp.mean(jnp.diagonal(matrix))
    eye = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    factor, added = jnp.linalg.cholesky(matrix), jnp.zeros((), matrix.dtype)
    for level in (1e-10, 1e-7, 1e-4):

        def again(factor: Array, added: Array, more: Any = level) -> tuple[Array, Array]:
            return jnp.linalg.cholesky(matrix + more * unit * eye), more * unit

        is_fine = jnp.all(jnp.isfinite(factor))
        factor, added = jax.lax.cond(is_fine, lambda f, a: (f, a), again, factor, added)
    return factor, added


def dense_posterior(
    joint: Float[Array, "NT NT"], tasks: Float[Array, "T T"], present: Float[Array, "N T"]
) -> DensePosterior:
    """Factorise the covariance of all targets.

    Args:
        joint: Covariance plus noise, see `joint_covariance`.
        tasks: Task covariance.
        present: One where observed.

    Returns:
        The solved state.
    """
    factor, jitter = safe_cholesky(joint)
    return DensePosterior(factor, present, tasks, jitter)
