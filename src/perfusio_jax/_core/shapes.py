"""What a public function makes of the arrays it is given: floats, of the width it needs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from perfusio_jax._core.errors import ConfigError


def float_array(value: Any) -> Array:
    """Floating array: JAX floats keep their width, everything else takes the default."""
    keeps = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)
    return jnp.asarray(value, value.dtype if keeps else float)


def on_device(value: ArrayLike) -> Array:
    """An array of the host as one of JAX's, its values and type as they are.

    `jnp.asarray` without a type makes a program of it, one for each shape; a type that is named
    makes it the copy it is.
    """
    host = np.asarray(value)
    return jnp.asarray(host, jax.dtypes.canonicalize_dtype(host.dtype))


def expect_last(array: Array, names: Sequence[str], what: str, *, rank: int | None = None) -> None:
    """Refuse an array whose last axis does not hold one number per name.

    JAX clamps an index that is out of range, so that a vector too short would be read as if its
    last number stood there twice. Shapes are static: the check costs nothing, traced or not.

    Args:
        array: What was given.
        names: What the last axis holds, in order.
        what: The argument, as its caller knows it.
        rank: Number of axes; any if None.

    Raises:
        ConfigError: With the shape that was given and the one that is needed.
    """
    fits = array.ndim > 0 and array.shape[-1] == len(names)
    if fits and (rank is None or array.ndim == rank):
        return
    axes = ("..., " if rank is None else "axis, " * (rank - 1)) + str(len(names))
    shape = f"({axes},)" if rank == 1 else f"({axes})"
    raise ConfigError(
        f"{what} has shape {tuple(array.shape)}; expected {shape}: {', '.join(names)}."
    )
