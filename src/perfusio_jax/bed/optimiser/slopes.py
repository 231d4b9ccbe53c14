"""Value and gradient of an acquisition: reverse or forward mode, or differences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ConfigError
from perfusio_jax.bed.optimiser.settings import SearchSettings

DIFFERENCE_STEP = 1e-5
"""Step of the one-sided differences, normalised coordinates [-]; for 64-bit floats."""


def differentiated(
    function: Callable[[Array], Array], settings: SearchSettings
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Value and gradient of a function.

    Args:
        function: Batch of candidates `(q,d)` in, one number out, less is better.
        settings: Says by which `derivative`.

    Returns:
        A function of a batch and a ceiling. Differences are taken only below the ceiling, where
        they are used.

    Raises:
        ConfigError: If there is no such derivative.
    """
    if settings.derivative == "reverse":
        pair = jax.value_and_grad(function)
        return lambda z, ceiling: pair(z)
    if settings.derivative == "forward":
        return lambda z, ceiling: _by_tangents(function, z)
    if settings.derivative == "difference":
        return lambda z, ceiling: _by_differences(function, z, ceiling)
    raise ConfigError(
        f"derivative={settings.derivative!r} is unknown; the modes are reverse, forward and "
        "difference."
    )


def _by_tangents(function: Callable[[Array], Array], z: Array) -> tuple[Array, Array]:
    basis = jnp.eye(z.size, dtype=z.dtype).reshape(-1, *z.shape)
    along = jax.vmap(lambda t: jax.jvp(function, (z,), (t,)), out_axes=(None, 0))
    value, slopes = along(basis)
    return value, slopes.reshape(z.shape)


def _by_differences(
    function: Callable[[Array], Array], z: Array, ceiling: Array
) -> tuple[Array, Array]:
    """One loop body for the value and every difference, so that the function compiles once."""
    n = z.size
    # step inwards, so that no point leaves the unit box
    step = jnp.where(z < 0.5, DIFFERENCE_STEP, -DIFFERENCE_STEP).astype(z.dtype)

    def more(carry: tuple[Array, Array, Array]) -> Array:
        i, value, _ = carry
        return (i == 0) | ((i <= n) & (value <= ceiling))

    def one(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, value, slopes = carry
        # round 0 evaluates the point itself
        moved = z.reshape(-1).at[i - 1].add(jnp.where(i > 0, step.reshape(-1)[i - 1], 0.0))
        found = function(moved.reshape(z.shape))
        slope = (found - value) / step.reshape(-1)[i - 1]
        slopes = jnp.where(i > 0, slopes.at[i - 1].set(slope), slopes)
        return i + 1, jnp.where(i > 0, value, found), slopes

    start = (jnp.zeros((), int), jnp.zeros((), z.dtype), jnp.zeros(n, z.dtype))
    _, value, slopes = jax.lax.while_loop(more, one, start)
    return value, slopes.reshape(z.shape)
