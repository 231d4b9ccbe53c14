"""Which raw points a search starts from."""

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Float, Int, Key
from perfusio_jax.bed.optimiser.settings import SearchSettings


def choose_starts(
    scores: Float[Array, "N"], settings: SearchSettings, *, key: Key
) -> Int[Array, "R"]:
    """Draw starts without replacement, better ones more often; the best one always.

    Adding Gumbel noise to the standardised scores and taking the largest draws without
    replacement with Boltzmann weights. Points that are not finite come last.

    Args:
        scores: Acquisition at the raw points.
        settings: `n_restarts` and the sharpness `eta`.
        key: Random key.

    Returns:
        Rows of the chosen points.
    """
    is_finite = jnp.isfinite(scores)
    n = jnp.maximum(jnp.sum(jnp.asarray(is_finite, scores.dtype)), 1.0)
    known = jnp.where(is_finite, scores, 0.0)
    mean = jnp.sum(known) / n
    spread = jnp.sqrt(jnp.sum(jnp.where(is_finite, (known - mean) ** 2, 0.0)) / n)
    standard = (known - mean) / jnp.where(spread > 0, spread, 1.0)
    noise = jax.random.gumbel(key, scores.shape, scores.dtype)
    ranking = jnp.where(is_finite, settings.eta * standard + noise, -jnp.inf)
    top = jnp.argmax(jnp.where(is_finite, scores, -jnp.inf))
    ranking = ranking.at[top].set(jnp.inf)
    return jax.lax.top_k(ranking, settings.n_restarts)[1]
