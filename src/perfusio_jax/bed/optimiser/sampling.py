"""Quasi-random numbers: Sobol points in the unit cube and Gaussian base samples.

They are made on the host by SciPy and handed to compiled code as arguments, so a new seed
never means a new compile.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ConfigError, Float

_MAX_SOBOL_DIMENSION = 21201
"""What SciPy has direction numbers for."""


def sobol_points(n: int, d: int, *, seed: int) -> Float[np.ndarray, "n d"]:
    """First `n` points of a scrambled Sobol sequence in the unit cube.

    Args:
        n: Number of points; any number, powers of two are best balanced.
        d: Dimension, 1 to 21201.
        seed: Scrambling seed; the same seed gives the same bytes.

    Returns:
        Points in [0, 1).

    Raises:
        ConfigError: If `n` is below one, the dimension is out of range or the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed={seed} was given; a seed is an integer from 0.")
    if n < 1 or not 1 <= d <= _MAX_SOBOL_DIMENSION:
        raise ConfigError(
            f"sobol_points was asked for {n} points in {d} dimensions; it gives at least 1 point "
            f"in 1 to {_MAX_SOBOL_DIMENSION} dimensions."
        )
    return _sobol(n, d, seed)


@lru_cache(maxsize=64)
def _sobol(n: int, d: int, seed: int) -> np.ndarray:
    """A search repeated every day asks for the same points: they are kept, read-only."""
    from scipy.stats import qmc  # takes half a second to load

    engine = qmc.Sobol(d, scramble=True, rng=np.random.default_rng(seed))
    points = engine.random_base2(max(0, int(n - 1).bit_length()))[:n]
    points.setflags(write=False)
    return points


def normal_base_samples(n: int, shape: tuple[int, ...], *, seed: int) -> Float[Array, "n ..."]:
    """Standard normal base samples from a Sobol sequence.

    Args:
        n: Number of samples.
        shape: Shape of one sample, for example `(q,)` or `(q, m)`.
        seed: Scrambling seed; the same seed gives the same bytes.

    Returns:
        Base samples [-], first axis the samples.

    Reference:
        Wilson, Hutter, Deisenroth (2018), Maximizing acquisition functions for Bayesian
        optimization: fixed base samples make a Monte Carlo acquisition deterministic.
    """
    from scipy.special import ndtri

    d = int(np.prod(shape, dtype=int))
    unit = sobol_points(n, d, seed=seed)
    # the sequence can contain 0, whose normal quantile is not finite
    inside = np.clip(unit, 0.5**33, 1.0 - 0.5**33)
    return jnp.asarray(ndtri(inside).reshape((n, *shape)))
