"""Exact Gaussian processes as surrogates: one objective or several independent ones.

Hyper-parameters are given; `perfusio_jax.gp` fits them. What a search asks of a process is a
mean and a joint covariance at a few points, thousands of times: everything that does not depend
on those points (the weights, the inverse of the Cholesky factor) is computed once.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from perfusio_jax._core import Array, ArrayLike, ConfigError, Float, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.surrogate.cholesky import cholesky_small

JITTER = 1e-10
"""Added to the diagonal before a Cholesky factor, relative to its mean [-]."""


class ProcessSurrogate(eqx.Module):
    """Exact Gaussian processes with Matérn-5/2 kernels, one per objective.

    Made by `gaussian_process` (one objective) and `gaussian_processes` (several).
    """

    X: Float[Array, "N d"]
    """Training inputs, unit of the set-points."""
    weights: Float[Array, "m N"]
    """`(K + noise)^-1 (y - constant)`; zeros for points without an observation."""
    whitener: Float[Array, "m N N"]
    """Inverse of the lower Cholesky factor of `K + noise`."""
    lengthscale: Float[Array, "m d"]
    """Unit of each set-point."""
    variance: Float[Array, "m"]
    """Prior variance, unit of the objective squared."""
    noise: Float[Array, "m"]
    """Variance of the measurement noise, same unit."""
    constant: Float[Array, "m"]
    """Prior mean, unit of the objective."""
    is_single: bool = eqx.field(static=True, default=False)
    """Whether results have no axis of objectives."""

    is_gaussian: ClassVar[bool] = True

    def mean(self, X: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Posterior mean at candidates.

        Args:
            X: Candidates, one per row.

        Returns:
            `(n,)`, or `(n,m)` for several objectives.
        """
        return self._out(self._mean(self._kernel(X)))

    def posterior(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Mean and variance of the noise-free function at each candidate.

        Args:
            X: Candidates, one per row.

        Returns:
            Arrays `(n,)`, or `(n,m)` for several objectives; the variance is not negative.
        """
        kernel = self._kernel(X)
        white = self.whitener @ kernel
        variance = self.variance[:, None] - jnp.sum(white**2, axis=1)
        return self._out(self._mean(kernel)), self._out(jnp.maximum(variance, 0.0).T)

    def covariance(self, X: Float[Array, "n d"], Z: Float[Array, "k d"]) -> Array:
        """Posterior covariance between two sets of candidates.

        Args:
            X: Candidates, one per row.
            Z: Candidates, one per row.

        Returns:
            `(n,k)`, or `(m,n,k)` for several objectives.
        """
        one, two = self.whitener @ self._kernel(X), self.whitener @ self._kernel(Z)
        prior = _matern52(X, Z, self.lengthscale, self.variance)
        found = prior - jnp.swapaxes(one, 1, 2) @ two
        return found[0] if self.is_single else found

    def sample_from(self, base: Float[Array, "S n"], X: Float[Array, "n d"]) -> Array:
        """Joint samples made from base samples, differentiable in X.

        Args:
            base: Standard normal base samples `(S,n)`, or `(S,n,m)` for several objectives.
            X: Candidates, one per row.

        Returns:
            Samples, same shape as `base`.

        Raises:
            ConfigError: If the base samples do not fit points and objectives.
        """
        self._check_base(base, X.shape[0])
        kernel = self._kernel(X)
        return self._samples(self._mean(kernel), self._rest(X, self.whitener @ kernel), base)

    def sample(self, key: Key, X: Float[Array, "n d"], n_samples: int) -> Array:
        """Joint samples from pseudo-random base samples.

        Args:
            key: Random key.
            X: Candidates, one per row.
            n_samples: Number of samples.

        Returns:
            Samples `(S,n)`, or `(S,n,m)` for several objectives.
        """
        tail = () if self.is_single else self.variance.shape
        return self.sample_from(jax.random.normal(key, (n_samples, X.shape[0], *tail)), X)

    def pinned(self, points: Float[Array, "P d"], base: Array) -> "PinnedProcess":
        """Joint samples whose first points stay where they are.

        Args:
            points: Points that every later call is joint with.
            base: Base samples `(S, P + q)` or `(S, P + q, m)`.

        Returns:
            Sampler of further points.
        """
        P, N = points.shape[0], self.X.shape[0]
        self._check_base(base[:, :P], P)
        white = self.whitener @ self._kernel(points)
        factor = _factor(self._rest(points, white), unroll=False)
        inverse = _inverse_factor(factor)
        corner = -inverse @ jnp.swapaxes(white, 1, 2) @ self.whitener
        empty = jnp.zeros((*self.variance.shape, N, P), white.dtype)
        whitener = jnp.concatenate(
            [
                jnp.concatenate([self.whitener, empty], axis=2),
                jnp.concatenate([corner, inverse], axis=2),
            ],
            axis=1,
        )
        no_weight = jnp.zeros((*self.variance.shape, P), white.dtype)
        extended = ProcessSurrogate(
            X=jnp.concatenate([self.X, points]),
            weights=jnp.concatenate([self.weights, no_weight], axis=1),
            whitener=whitener,
            lengthscale=self.lengthscale,
            variance=self.variance,
            noise=self.noise,
            constant=self.constant,
            is_single=self.is_single,
        )
        here = self._axes(base[:, :P])
        known = self._mean(self._kernel(points)).T[:, None, :] + here @ jnp.swapaxes(factor, 1, 2)
        return PinnedProcess(extended, base, self._no_axes(known), P)

    def _kernel(self, X: Array) -> Array:
        """Prior covariance of training inputs and candidates `(m,N,n)`."""
        if X.ndim != 2 or X.shape[1] != self.X.shape[1]:
            raise ConfigError(
                f"points of shape {X.shape} were given to a process of {self.X.shape[1]} inputs; "
                "they must be (n, d), one coordinate per input."
            )
        return _matern52(self.X, X, self.lengthscale, self.variance)

    def _mean(self, kernel: Array) -> Array:
        """`(n,m)`."""
        return (self.constant[:, None] + jnp.einsum("mN,mNn->mn", self.weights, kernel)).T

    def _rest(self, X: Array, white: Array) -> Array:
        """Posterior covariance `(m,n,n)` from whitened covariances `(m,N,n)`."""
        if X.shape[0] == 1:
            return self.variance[:, None, None] - jnp.sum(white**2, axis=1)[:, :, None]
        prior = _matern52(X, X, self.lengthscale, self.variance)
        return prior - jnp.swapaxes(white, 1, 2) @ white

    def _samples(self, mean: Array, covariance: Array, base: Array) -> Array:
        factor = _factor(covariance)
        return self._no_axes(mean.T[:, None, :] + self._axes(base) @ jnp.swapaxes(factor, 1, 2))

    def _axes(self, base: Array) -> Array:
        """Base samples as `(m,S,n)`."""
        return base[None] if self.is_single else jnp.moveaxis(base, -1, 0)

    def _no_axes(self, samples: Array) -> Array:
        return samples[0] if self.is_single else jnp.moveaxis(samples, 0, -1)

    def _out(self, value: Array) -> Array:
        return value[:, 0] if self.is_single else value

    def _check_base(self, base: Array, n: int) -> None:
        shape = (n,) if self.is_single else (n, *self.variance.shape)
        if base.shape[1:] != shape:
            raise ConfigError(
                f"base samples of shape {base.shape} do not fit a posterior of shape {shape}; "
                "the axes after the first must agree."
            )


class PinnedProcess(eqx.Module):
    """Samples at further points, joint with those at pinned ones.

    The pinned points' own samples and their Cholesky factor are computed once; a call costs a
    factor of the new points only.
    """

    process: ProcessSurrogate
    """The process with the pinned points as inputs without noise."""
    base: Array
    """Base samples of all points, `(S, P + q)` or `(S, P + q, m)`."""
    known: Array
    """Samples at the pinned points, `(S,P)` or `(S,P,m)`."""
    n_pinned: int = eqx.field(static=True)
    """P."""

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "S n"]:
        """Samples at further points.

        Args:
            X: Points, at most as many as there are base samples left.

        Returns:
            Samples `(S,n)` or `(S,n,m)`.
        """
        process, P, n = self.process, self.n_pinned, X.shape[0]
        kernel = process._kernel(X)
        white = process.whitener @ kernel
        shift = process._axes(self.base[:, :P]) @ white[:, -P:, :]
        new = process._samples(
            process._mean(kernel), process._rest(X, white), self.base[:, P : P + n]
        )
        return new + process._no_axes(shift)


@jax.custom_jvp
def _profile(square: Array) -> Array:
    """Matérn-5/2 correlation of `5 r^2`."""
    r = jnp.sqrt(square)
    return (1.0 + r + square / 3.0) * jnp.exp(-r)


@_profile.defjvp
def _profile_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """The derivative by the squared distance is finite at zero; through the root it is not."""
    (square,), (change,) = primals, tangents
    r = jnp.sqrt(square)
    decay = jnp.exp(-r)
    return (1.0 + r + square / 3.0) * decay, -(1.0 + r) * decay / 6.0 * change


def _matern52(X: Array, Z: Array, lengthscale: Array, variance: Array) -> Array:
    """Kernel matrices `(m,n,k)`, length scales `(m,d)`, variances `(m,)`."""
    gap = X[:, None, :] - Z[None, :, :]
    square = jnp.einsum("nkd,md->mnk", gap**2, 5.0 / lengthscale**2)
    return variance[:, None, None] * _profile(square)


def matern52(X: Array, Z: Array, lengthscale: Array, variance: Array) -> Float[Array, "n k"]:
    """Matérn-5/2 kernel matrix with one length scale per input.

    Args:
        X: Points `(n,d)`.
        Z: Points `(k,d)`.
        lengthscale: Length scales `(d,)`, unit of the points.
        variance: Prior variance `()`.

    Returns:
        Kernel matrix.

    Reference:
        Rasmussen, Williams (2006), Gaussian processes for machine learning, equation 4.17.
    """
    return _matern52(X, Z, lengthscale[None, :], jnp.reshape(variance, (1,)))[0]


def _factor(covariance: Array, *, unroll: bool = True) -> Array:
    """Lower Cholesky factors `(m,n,n)`, of a slightly larger matrix than given."""
    diagonal = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    # a variance of zero everywhere still has to give a factor
    nugget = JITTER * jnp.mean(diagonal, axis=-1) + jnp.finfo(covariance.dtype).tiny
    eye = jnp.eye(covariance.shape[-1], dtype=covariance.dtype)
    return cholesky_small(covariance + nugget[:, None, None] * eye[None], unroll=unroll)


def _inverse_factor(factor: Array) -> Array:
    eye = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype)[None], factor.shape)
    return jax.scipy.linalg.solve_triangular(factor, eye, lower=True)


def gaussian_process(
    X: ArrayLike,
    y: ArrayLike,
    *,
    lengthscale: ArrayLike,
    variance: ArrayLike = 1.0,
    noise: ArrayLike = 1e-6,
    constant: ArrayLike = 0.0,
) -> ProcessSurrogate:
    """Exact Gaussian process with given hyper-parameters, as a surrogate.

    Args:
        X: Training inputs `(N,d)`, one per row.
        y: Training values `(N,)`, more is better.
        lengthscale: Length scales `(d,)`, unit of the inputs.
        variance: Prior variance.
        noise: Variance of the measurement noise.
        constant: Prior mean.

    Returns:
        Surrogate of the noise-free function; its arrays are traced.

    Raises:
        ConfigError: As `gaussian_processes`.
    """
    y = jnp.asarray(y, float)
    if y.ndim != 1:
        raise ConfigError(
            f"y has shape {y.shape}; one objective is a vector (N,). Use `gaussian_processes` "
            "for several."
        )
    return _build(X, y[:, None], (lengthscale, variance, noise, constant), is_single=True)


def gaussian_processes(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    lengthscale: ArrayLike,
    variance: ArrayLike = 1.0,
    noise: ArrayLike = 1e-6,
    constant: ArrayLike = 0.0,
) -> ProcessSurrogate:
    """Independent exact Gaussian processes of several objectives on the same inputs.

    Args:
        X: Training inputs `(N,d)`, one per row.
        Y: Training values `(N,m)`, one column per objective, more is better.
        lengthscale: Length scales `(m,d)`, or `(d,)` for all objectives.
        variance: Prior variances `(m,)` or one number.
        noise: Variances of the measurement noise `(m,)` or one number.
        constant: Prior means `(m,)` or one number.

    Returns:
        Surrogate of the noise-free functions; its arrays are traced.

    Raises:
        ConfigError: If shapes disagree or a number is not finite.
    """
    return _build(
        X, jnp.asarray(Y, float), (lengthscale, variance, noise, constant), is_single=False
    )


def _build(X: Any, Y: Array, hyper: tuple[Any, ...], *, is_single: bool) -> ProcessSurrogate:
    X = jnp.asarray(X, float)
    if X.ndim != 2 or Y.ndim != 2 or Y.shape[0] != X.shape[0] or X.shape[0] == 0:
        raise ConfigError(
            f"X has shape {X.shape} and Y {Y.shape}; they must be (N, d) and (N, m) with the same "
            "N, at least one."
        )
    is_traced = isinstance(X, Tracer) or isinstance(Y, Tracer)
    if not is_traced and not bool(jnp.all(jnp.isfinite(X)) & jnp.all(jnp.isfinite(Y))):
        rows = jnp.flatnonzero(~jnp.all(jnp.isfinite(Y), axis=1) | ~jnp.all(jnp.isfinite(X), 1))
        raise ConfigError(
            f"training rows {rows.tolist()} hold NaN or infinite values; leave rows without a "
            "result out. If every result is missing there is nothing to condition on."
        )
    m, d = Y.shape[1], X.shape[1]
    lengthscale, variance, noise, constant = (jnp.asarray(v, float) for v in hyper)
    lengthscale = jnp.broadcast_to(lengthscale.reshape((-1, lengthscale.shape[-1])), (m, d))
    variance, noise, constant = (
        jnp.broadcast_to(jnp.ravel(v), (m,)) for v in (variance, noise, constant)
    )
    made = _condition(X, Y, (lengthscale, variance, noise, constant), is_single)
    if not is_traced and not isinstance(made.weights, Tracer):
        _check_process(made)
    return made


def _check_process(made: ProcessSurrogate) -> None:
    is_usable = (
        jnp.all(made.lengthscale > 0)
        & jnp.all(made.variance > 0)
        & jnp.all(made.noise >= 0)
        & jnp.all(jnp.isfinite(made.constant))
    )
    if not bool(is_usable):
        raise ConfigError(
            f"hyper-parameters lengthscale {made.lengthscale.tolist()}, variance "
            f"{made.variance.tolist()}, noise {made.noise.tolist()}, constant "
            f"{made.constant.tolist()} were given; length scales and variances must be above zero, "
            "the noise not below, the constants finite."
        )
    if not bool(jnp.all(jnp.isfinite(made.weights))):
        raise ConfigError(
            "the covariance of the training points is not positive definite: points that lie on "
            "one another need noise; give `noise` above zero, or leave repeats out."
        )


@compiled
def _condition(X: Array, Y: Array, hyper: tuple[Array, ...], is_single: bool) -> ProcessSurrogate:
    lengthscale, variance, noise, constant = hyper
    eye = jnp.eye(X.shape[0], dtype=X.dtype)
    gram = _matern52(X, X, lengthscale, variance) + noise[:, None, None] * eye[None]
    whitener = _inverse_factor(jnp.linalg.cholesky(gram))
    white = jnp.einsum("mij,mj->mi", whitener, Y.T - constant[:, None])
    return ProcessSurrogate(
        X=X,
        weights=jnp.einsum("mij,mi->mj", whitener, white),
        whitener=whitener,
        lengthscale=lengthscale,
        variance=variance,
        noise=noise,
        constant=constant,
        is_single=is_single,
    )
