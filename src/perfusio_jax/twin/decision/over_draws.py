"""What is known of a run with each of several draws of a mechanism's constants, put together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid import Belief, DrawnMechanisms, DrawnRun, FilterInfo

if TYPE_CHECKING:
    from .described_step import Estimate


def together(each: "Sequence[Estimate]", mechanisms: DrawnMechanisms) -> dict[str, Any]:
    """Fields of an estimate in which all draws count alike.

    Args:
        each: What is known with the constants of each draw.
        mechanisms: The draws, in that order.

    Returns:
        `belief` with the particles of all, `beliefs` with the diagnostics of all, the mean
        `offset`, and `draws` for roll-outs.
    """
    particles = np.stack([np.asarray(known.belief.particles) for known in each])
    offsets = np.stack([np.asarray(known.offset) for known in each])
    first = each[0]
    pooled = jnp.asarray(particles.reshape(-1, particles.shape[-1]))
    info = _mixture([known.beliefs.info for known in each])
    return {
        "belief": Belief(pooled, first.belief.day),
        "beliefs": first.beliefs._replace(info=info),
        "offset": jnp.asarray(offsets.mean(axis=0)),
        "draws": DrawnRun(mechanisms, jnp.asarray(particles), jnp.asarray(offsets)),
    }


def _mixture(infos: Sequence[FilterInfo]) -> FilterInfo:
    """Diagnostics of filters that count alike: moments of what they expected, means of the rest."""

    def over(name: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(info, name)) for info in infos])

    gap, sd = over("innovation"), over("innovation_sd")
    return infos[0]._replace(
        innovation=gap.mean(axis=0),
        innovation_sd=np.sqrt((sd**2).mean(axis=0) + gap.var(axis=0)),
        nis=over("nis").mean(axis=0),
    )


@compiled
def begun_with_draws(
    draws: DrawnRun, seed: ArrayLike, n_paths: int
) -> tuple[Array, Float[Array, "S K"]]:
    """Key of the paths, and where they start: each with the state that goes with its draw.

    Args:
        draws: What each draw makes of the run.
        seed: Seed of the paths.
        n_paths: Number of paths, which take the draws in turn.
    """
    path_key, state_key = jax.random.split(jax.random.key(seed))
    size, n_each, _ = draws.particles.shape
    # the same particles of every draw, as without draws
    rows = Belief(jnp.arange(n_each), jnp.zeros(())).sample(n_paths, key=state_key)
    return path_key, draws.particles[jnp.arange(n_paths) % size, rows]
