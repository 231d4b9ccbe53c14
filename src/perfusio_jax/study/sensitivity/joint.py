"""Laws of inputs that depend on each other, such as constants of a posterior.

Every input has a law of its own; how they hang together is a normal copula: each is a rising
function of a normal number, and these numbers are correlated. Of a normal law, or of the logarithm
of one, that is exact; of draws it keeps every input's own law and the correlation of ranks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import ConfigError
from perfusio_jax.study.sensitivity.laws import Laws, from_unit

_FLOOR = 1e-9
"""Share of no correlation that is mixed in, so that the matrix has a root [-]."""
_LEAST_DRAWS = 32


class Joint(NamedTuple):
    """A joint law; make it with `joint_of_laws` or `joint_of_draws`."""

    laws: Laws
    """Law of each input, where no draws say it."""
    is_drawn: Bool[Array, " P"]
    """Whether draws say the law of an input."""
    ordered: Float[Array, "D P"]
    """Draws of each input, in rising order; anything where none are."""
    correlation: Float[Array, "P P"]
    """Of the normal numbers behind the inputs."""

    def values(self, z: Float[Array, "B P"]) -> Float[Array, "B P"]:
        """Inputs from correlated normal numbers."""
        u = ndtr(z)
        n = self.ordered.shape[0]
        places = jnp.arange(n, dtype=u.dtype)
        drawn = jax.vmap(
            lambda at, draws: jnp.interp(at * (n - 1), places, draws), in_axes=1, out_axes=1
        )(u, self.ordered)
        return jnp.where(self.is_drawn[None], drawn, from_unit(self.laws, u))


def joint_of_laws(laws: Laws, correlation: Float[np.ndarray, "P P"] | None = None) -> Joint:
    """Laws that hang together by correlations.

    Args:
        laws: Of each input.
        correlation: Of the normal numbers behind them; independent if None.

    Raises:
        ConfigError: If it is no matrix of correlations.
    """
    p = int(laws.a.size)
    given = np.eye(p) if correlation is None else np.asarray(correlation, float)
    is_one = given.shape == (p, p) and np.allclose(given, given.T)
    if not (is_one and np.allclose(np.diag(given), 1.0) and np.linalg.eigvalsh(given)[0] > -1e-9):
        raise ConfigError(
            f"a matrix of correlations of {p} inputs is symmetric, has ones along its diagonal and "
            "no negative eigenvalue; the one given is not so."
        )
    return Joint(laws, jnp.zeros(p, bool), jnp.zeros((2, p)), _rooted(given))


def joint_of_draws(laws: Laws, draws: Float[np.ndarray, "D Q"], columns: Sequence[int]) -> Joint:
    """Laws of which draws tell some, with what these have in common.

    Args:
        laws: Of each input; those that draws tell are passed over.
        draws: Of the inputs in `columns`.
        columns: Which inputs they are of.

    Raises:
        ConfigError: If there are too few draws, or one is not finite or never moves.
    """
    table = np.asarray(draws, float)
    if table.ndim != 2 or table.shape[1] != len(columns) or len(table) < _LEAST_DRAWS:
        raise ConfigError(
            f"draws of the shape {table.shape} for {len(columns)} inputs; {_LEAST_DRAWS} rows or "
            "more are needed, a column for each."
        )
    if not np.all(np.isfinite(table)) or np.any(np.ptp(table, axis=0) == 0.0):
        raise ConfigError("draws of an input are not finite, or all the same.")
    from scipy.special import ndtri
    from scipy.stats import rankdata

    p, n = int(laws.a.size), len(table)
    own = list(columns)
    scores = ndtri((rankdata(table, axis=0) - 0.5) / n)
    correlation = np.eye(p)
    correlation[np.ix_(own, own)] = np.corrcoef(scores, rowvar=False).reshape(len(own), len(own))
    ordered, is_drawn = np.zeros((n, p)), np.zeros(p, bool)
    ordered[:, own] = np.sort(table, axis=0)
    is_drawn[own] = True
    return Joint(laws, jnp.asarray(is_drawn), jnp.asarray(ordered), _rooted(correlation))


def _rooted(correlation: np.ndarray) -> Array:
    p = len(correlation)
    return jnp.asarray((1.0 - _FLOOR) * correlation + _FLOOR * np.eye(p))
