"""Constrained parameters: a free number inside, a legal one outside.

They are `paramax` wrappers, so `unwrap` opens them together with the parameters of
GPJax kernels, wherever they sit in a tree.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PyTree

from perfusio_jax._core.errors import ConfigError

Tree = TypeVar("Tree")


def _floating(value: ArrayLike) -> Array:
    """Strongly typed floating array, so that a new number never means a new trace."""
    array = jnp.asarray(value)
    keeps = isinstance(value, jax.Array) and jnp.issubdtype(array.dtype, jnp.floating)
    return jnp.asarray(array, array.dtype if keeps else float)


def _is_concrete(*arrays: Array) -> bool:
    return not any(isinstance(array, Tracer) for array in arrays)


class Positive(paramax.AbstractUnwrappable[Array]):
    """A parameter above zero, stored as the inverse softplus of its value."""

    raw: Float[Array, "..."]
    """Unconstrained leaf [-]; this is what an optimiser moves."""

    @property
    def value(self) -> Float[Array, "..."]:
        """The legal value, in the parameter's own unit."""
        return jax.nn.softplus(self.raw)

    def unwrap(self) -> Float[Array, "..."]:
        """Same as `value`; the hook `paramax.unwrap` calls."""
        return self.value


class Bounded(paramax.AbstractUnwrappable[Array]):
    """A parameter strictly between two limits, stored as the logit of its place."""

    raw: Float[Array, "..."]
    """Unconstrained leaf [-]; this is what an optimiser moves."""
    lower: Float[Array, "..."]
    """Lower limit, in the parameter's own unit; never trained."""
    upper: Float[Array, "..."]
    """Upper limit, in the parameter's own unit; never trained."""

    @property
    def value(self) -> Float[Array, "..."]:
        """The legal value, in the parameter's own unit."""
        lower = jax.lax.stop_gradient(self.lower)
        upper = jax.lax.stop_gradient(self.upper)
        return lower + (upper - lower) * jax.nn.sigmoid(self.raw)

    def unwrap(self) -> Float[Array, "..."]:
        """Same as `value`; the hook `paramax.unwrap` calls."""
        return self.value


def positive(value: ArrayLike) -> Positive:
    """Wrap a value that has to stay above zero while it is trained.

    Args:
        value: Start, above zero, in the parameter's own unit.

    Returns:
        A module whose `.value` is the start and whose `.raw` is free.

    Raises:
        ConfigError: If a concrete start is not finite and above zero.

    Example:
        >>> round(float(positive(2.5).value), 6)
        2.5
    """
    array = _floating(value)
    if _is_concrete(array) and not np.all(np.isfinite(array) & (np.asarray(array) > 0)):
        raise ConfigError(f"a positive parameter was given {value}; it must be finite and > 0.")
    # inverse softplus, exact at both ends: log(expm1(v)) = v + log(-expm1(-v))
    if _is_concrete(array):  # on the host, where nothing has to be compiled for it
        known = np.asarray(array)
        return Positive(raw=jnp.asarray(known + np.log(-np.expm1(-known))))
    return Positive(raw=array + jnp.log(-jnp.expm1(-array)))


def bounded(value: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Bounded:
    """Wrap a value that has to stay between two limits while it is trained.

    Args:
        value: Start, strictly inside, in the parameter's own unit.
        lower: Lower limit, same unit; broadcast to the shape of `value`.
        upper: Upper limit, same unit; broadcast to the shape of `value`.

    Returns:
        A module whose `.value` is the start and whose `.raw` is free.

    Raises:
        ConfigError: If the limits are inverted or a concrete start is not strictly inside.
    """
    array = _floating(value)
    low = jnp.broadcast_to(_floating(lower).astype(array.dtype), array.shape)
    high = jnp.broadcast_to(_floating(upper).astype(array.dtype), array.shape)
    if _is_concrete(low, high) and not np.all(np.asarray(low) < np.asarray(high)):
        raise ConfigError(f"bounds are inverted: lower {lower} must be below upper {upper}.")
    between = [np.asarray(v) for v in (low, array, high)] if _is_concrete(low, array, high) else []
    if between and not np.all((between[0] < between[1]) & (between[1] < between[2])):
        raise ConfigError(
            f"a bounded parameter was given {value}; it must lie strictly between {lower} and "
            f"{upper}."
        )
    place = (array - low) / (high - low)
    return Bounded(raw=jnp.log(place) - jnp.log1p(-place), lower=low, upper=high)


def unwrap(tree: PyTree) -> Any:
    """Open every constrained parameter of a tree, at the point of use.

    Args:
        tree: Any pytree; plain leaves pass unchanged.

    Returns:
        The same tree with arrays in place of the wrappers.
    """
    return paramax.unwrap(tree)


def trainable(tree: PyTree) -> PyTree:
    """Filter that marks what an optimiser may move: floating leaves, but no limits.

    Args:
        tree: Any pytree, usually a model.

    Returns:
        A tree of booleans for `equinox.partition(tree, trainable(tree))`.
    """

    def mark(node: Any) -> Any:
        if isinstance(node, Bounded):
            return Bounded(raw=True, lower=False, upper=False)  # pyright: ignore[reportArgumentType]
        if isinstance(node, paramax.NonTrainable):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return jax.tree.map(
        mark, tree, is_leaf=lambda node: isinstance(node, Bounded | paramax.NonTrainable)
    )
