"""What is known of one reactor now."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import Key, Scalar


class OpenInterval(eqx.Module):
    """The interval since the last sample, of which online readings know a part.

    A step of the model has one residual rate for all its length. What is not known of it is
    therefore drawn once and kept: drawn at every reading it would average out, and the belief
    would be the surer the more often a probe reads.
    """

    particles: Float[Array, "N 9"]
    """Balanced states at its start."""
    day: Scalar
    """Culture day of its start [d]."""
    controls: Float[Array, " 6"]
    """Set-points that acted all along."""
    function: Float[Array, "N 9"]
    """What the learned function is off by, the same all along [residual units]."""
    process: Float[Array, "N 9"]
    """Mean so far of what neither part explains, white in time [residual units]."""


class Belief(eqx.Module):
    """What is known of one reactor now."""

    particles: Float[Array, "N 9"]
    """Equally likely balanced states."""
    day: Scalar
    """Culture day of the state [d]."""
    interval: OpenInterval | None = None
    """How they came here since the last sample; None right after one."""

    @property
    def mean(self) -> Float[Array, " 9"]:
        """Mean balanced state."""
        return jnp.mean(self.particles, axis=0)

    @property
    def sd(self) -> Float[Array, " 9"]:
        """Standard deviation per balanced species."""
        return jnp.std(self.particles, axis=0)

    def sample(self, n: int, *, key: Key) -> Float[Array, "S 9"]:
        """States for a roll-out: particles, each as often as the numbers allow.

        Args:
            n: Number wanted.
            key: Random key.

        Returns:
            Balanced states.
        """
        size = self.particles.shape[0]
        turns = -(-n // size)
        order = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, turns))
        return self.particles[order.reshape(-1)[:n]]
