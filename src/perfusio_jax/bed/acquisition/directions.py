"""Hypervolume improvement of any number of objectives, approximately.

The volume a front dominates is an average over directions: along each, how far one can go from
the reference point before leaving the dominated region, to the power of the number of
objectives. With a fixed set of directions the improvement of a batch costs directions times
points, for any number of objectives and any batch: memory does not explode, the price is an
error that falls with the number of directions and that `direction_error` estimates.

Reference:
    Zhang, Golovin (2020), Random hypervolume scalarizations for provable multi-objective black
    box optimization, lemma 5.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ConfigError, Float, Scalar
from perfusio_jax.bed.acquisition.draws import Draws, PinnedDraws
from perfusio_jax.bed.optimiser.sampling import normal_base_samples

_AT_ONCE = 16
"""Directions evaluated together: memory against speed."""


def hypervolume_directions(n: int, m: int, *, seed: int) -> Float[Array, "n m"]:
    """Directions spread evenly over the positive part of the unit sphere.

    Args:
        n: Number of directions.
        m: Number of objectives.
        seed: Scrambling seed of the quasi-random sequence.

    Returns:
        Unit vectors with positive entries.

    Raises:
        ConfigError: If fewer than one direction is asked for.
    """
    if n < 1:
        raise ConfigError(f"n_directions={n} was given; ask for at least one.")
    z = jnp.abs(normal_base_samples(n, (m,), seed=seed))
    return z / jnp.linalg.norm(z, axis=1, keepdims=True)


def reach(
    Y: Float[Array, "... m"], ref_point: Float[Array, "m"], directions: Float[Array, "L m"]
) -> Float[Array, "... L"]:
    """How far one can go along each direction below a point.

    Args:
        Y: Points, higher is better.
        ref_point: Where one starts.
        directions: Unit vectors with positive entries.

    Returns:
        Lengths, zero for points that do not lie above the reference.
    """
    shape = (1,) * (Y.ndim - 1)
    above = (Y - ref_point.reshape((*shape, -1)))[..., None, :]
    return jnp.maximum(-_largest(-above / directions.reshape((*shape, *directions.shape)), -1), 0.0)


def _largest(values: Array, axis: int) -> Array:
    """Maximum by its place.

    The derivative of `jnp.max` looks for the entry that equals the maximum. Where a checkpoint
    computes both again and the compiler rounds one of them otherwise, there is none, and the
    derivative is 0 / 0.
    """
    place = jnp.argmax(jax.lax.stop_gradient(values), axis=axis, keepdims=True)
    return jnp.squeeze(jnp.take_along_axis(values, place, axis=axis), axis)


class DirectionalHypervolumeImprovement(eqx.Module):
    """qEHVI and qNEHVI by directions; an approximation, for more than three objectives."""

    draws: Draws | PinnedDraws
    """Surrogate, base samples, constraints; joint with the baseline if that is uncertain."""
    ref_point: Float[Array, "m"]
    """Reference point."""
    directions: Float[Array, "L m"]
    """Directions, a multiple of the number evaluated at once."""
    best: Float[Array, "S L"]
    """Reach of the known front along each direction; one row if it is certain."""

    is_exact = False

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        return self._constant() * jnp.mean(self._per_direction(X))

    def direction_error(self, X: Float[Array, "q d"]) -> Scalar:
        """Standard error of the value from the choice of directions.

        That of plain random directions: the quasi-random ones in use do better.

        Args:
            X: A batch.

        Returns:
            Error, unit of the value.
        """
        found = self._per_direction(X)
        return self._constant() * jnp.std(found) / math.sqrt(found.size)

    def _per_direction(self, X: Array) -> Array:
        joint = self.draws.joint(X) if isinstance(self.draws, Draws) else X
        samples, log_weight = self.draws(joint)
        m = self.ref_point.shape[0]
        if samples.ndim != 3 or samples.shape[-1] != m:
            raise ConfigError(
                f"the surrogate gives samples of shape {samples.shape}; this acquisition needs "
                f"(S, q, {m}), one entry per objective of the reference point."
            )
        weight = jnp.exp(jnp.broadcast_to(log_weight, samples.shape[:2]))[:, :, None]

        @jax.checkpoint
        def some(part: tuple[Array, Array]) -> Array:
            directions, best = part  # (l,m), (S,l)
            length = reach(samples, self.ref_point, directions)
            gain = jnp.maximum(length, best[:, None, :]) ** m - best[:, None, :] ** m
            return jnp.mean(_largest(weight * gain, 1), axis=0)

        size = min(_AT_ONCE, self.directions.shape[0])
        best = jnp.swapaxes(self.best.reshape(self.best.shape[0], -1, size), 0, 1)
        return jax.lax.map(some, (self.directions.reshape(-1, size, m), best)).reshape(-1)

    def _constant(self) -> float:
        m = self.ref_point.shape[0]
        return math.pi ** (m / 2) / (2.0**m * math.gamma(m / 2 + 1))


def directional_improvement(
    draws: Draws | PinnedDraws,
    known: Float[Array, "S P m"],
    ref_point: Float[Array, "m"],
    *,
    n_directions: int,
    seed: int,
) -> DirectionalHypervolumeImprovement:
    """Build the acquisition: how far the known front reaches along every direction.

    Args:
        draws: Draws at candidates.
        known: Objectives known so far; one sample if they are certain.
        ref_point: Reference point.
        n_directions: Number of directions, rounded up to a multiple of those evaluated at once.
        seed: Seed of the directions.

    Returns:
        The acquisition.
    """
    size = min(_AT_ONCE, max(n_directions, 1))
    n = -(-n_directions // size) * size
    directions = hypervolume_directions(n, ref_point.shape[0], seed=seed)
    one_sample = jax.lax.map(lambda Y: jnp.max(reach(Y, ref_point, directions), axis=0), known)
    return DirectionalHypervolumeImprovement(draws, ref_point, directions, one_sample)
