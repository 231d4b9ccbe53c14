"""Knowledge gradient: how much better the best decision becomes once the results are in.

One-shot form: the decision that each imagined result would lead to is optimised together with
the candidates, so that no search runs inside the search.

Reference:
    Frazier, Powell, Dayanik (2009), The knowledge-gradient policy for correlated normal
    beliefs; Balandat et al. (2020), BoTorch, section 4.2 (one-shot formulation).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ConfigError, Float, Scalar

_SHORTLIST = 64
"""Points among which the first decision of every fantasy is picked."""


class KnowledgeGradient(eqx.Module):
    """One-shot knowledge gradient, unit of the objective.

    Called with `(q + n_extra, d)`: candidates first, then the decision of every fantasy. The
    search knows this and returns the candidates only.
    """

    model: Any
    """Gaussian surrogate of one objective with `mean` and `covariance`."""
    base: Float[Array, "F n"]
    """Base samples, one row per fantasy."""
    noise: Scalar
    """Variance of the measurement noise, unit of the objective squared."""
    current: Scalar
    """Best posterior mean now, subtracted; 0 if not known."""
    pending: Float[Array, "p d"] | None = None
    """Candidates under way."""
    is_pending: Array | None = None
    """Which rows of `pending` hold a point."""

    @property
    def n_extra(self) -> int:
        """Rows after the candidates: one decision per fantasy."""
        return self.base.shape[0]

    def __call__(self, X: Float[Array, "n d"]) -> Scalar:
        """Value of candidates and decisions."""
        q = X.shape[0] - self.n_extra
        if q < 1:
            raise ConfigError(
                f"{X.shape[0]} rows were given to a knowledge gradient of {self.n_extra} "
                "fantasies; give the candidates and one decision per fantasy."
            )
        factor, run = self._results(X[:q])
        updated = self.model.mean(X[q:]) + jnp.sum(
            self.base[:, : run.shape[0]] * self._shift(factor, run, X[q:]), axis=1
        )
        return jnp.mean(updated) - self.current

    def arrange(self, points: Float[Array, "N n d"]) -> Float[Array, "N n d"]:
        """Replace the decisions of starting points by good ones.

        Every fantasy picks the best of a short list, the points with the highest posterior
        mean, so that the score of a starting point is a discrete knowledge gradient.

        Args:
            points: Starting points, decisions still arbitrary.

        Returns:
            Starting points of the same shape.
        """
        q = points.shape[1] - self.n_extra
        pool = points[:, 0, :]
        count = min(_SHORTLIST, pool.shape[0])
        shortlist = pool[jax.lax.top_k(self.model.mean(pool), count)[1]]
        mean = self.model.mean(shortlist)

        def one(X: Array) -> Array:
            factor, run = self._results(X[:q])
            shift = self._shift(factor, run, shortlist)  # (K,n)
            updated = mean[None, :] + self.base[:, : run.shape[0]] @ shift.T
            return jnp.concatenate([X[:q], shortlist[jnp.argmax(updated, axis=1)]])

        return jax.lax.map(one, points)

    def _results(self, X: Array) -> tuple[Array, Array]:
        """Cholesky factor of the covariance of the imagined results, and where they are."""
        run = X if self.pending is None else jnp.concatenate([X, self.pending])
        gram = self.model.covariance(run, run)
        n = run.shape[0]
        eye = jnp.eye(n, dtype=X.dtype)
        if self.is_pending is not None:
            # an empty place is a result that tells nothing
            there = jnp.concatenate([jnp.ones((X.shape[0],), bool), self.is_pending])
            gram = jnp.where(there[:, None] & there[None, :], gram, eye)
        tiny = 1e-12 * jnp.mean(jnp.diagonal(gram)) + jnp.finfo(gram.dtype).tiny
        return jnp.linalg.cholesky(gram + (self.noise + tiny) * eye), run

    def _shift(self, factor: Array, run: Array, Z: Array) -> Array:
        """What one unit of every base sample changes in the mean at Z, `(k,n)`."""
        cross = self.model.covariance(run, Z)
        if self.is_pending is not None:
            n = run.shape[0] - self.is_pending.shape[0]
            there = jnp.concatenate([jnp.ones((n,), bool), self.is_pending])
            cross = jnp.where(there[:, None], cross, 0.0)
        return jax.scipy.linalg.solve_triangular(factor, cross, lower=True).T
