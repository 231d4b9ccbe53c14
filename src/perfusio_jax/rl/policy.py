"""The stochastic policy: a Gaussian whose mean and spread a small network gives.

The Gaussian lives on the whole line. `fold` takes its draws into the bounds of the inputs and
counts as a part of the plant: what is scored is the density of the draw.
"""

from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from perfusio_jax._core import ConfigError, Key

SLOPE: Final = 0.1
"""Of the leaky rectifier where it is negative."""
_LOG_2PI: Final = 1.8378770664093453


class Dense(eqx.Module):
    """One layer, on batches as they come."""

    weight: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]

    def __call__(self, x: Float[Array, "... n_in"]) -> Float[Array, "... n_out"]:
        """Affine map of the last axis."""
        y = x @ self.weight
        return y + jnp.reshape(self.bias, (1,) * (y.ndim - 1) + self.bias.shape)


def _dense(key: Key, n_in: int, n_out: int, dtype: Any) -> Dense:
    """Uniform within 1/sqrt(n_in), PyTorch's default, which the publication will have used."""
    first, second = jax.random.split(key)
    bound = 1.0 / n_in**0.5
    return Dense(
        jax.random.uniform(first, (n_in, n_out), dtype, -bound, bound),
        jax.random.uniform(second, (n_out,), dtype, -bound, bound),
    )


def _floating(value: ArrayLike) -> Array:
    given = jnp.asarray(value)
    return given if jnp.issubdtype(given.dtype, jnp.floating) else given.astype(float)


class GaussianPolicy(eqx.Module):
    """Hidden layers shared by two linear heads, mean and spread."""

    hidden: tuple[Dense, ...]
    mean_head: Dense
    spread_head: Dense
    floor: Float[Array, ""] = eqx.field(converter=_floating)
    """Smallest spread [-]; not trained, but lowered as a training goes on."""

    @property
    def n_observed(self) -> int:
        """Length of an observation."""
        return self.hidden[0].weight.shape[0]

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return self.mean_head.weight.shape[1]

    def __call__(self, observed: Float[Array, "... n_obs"]) -> tuple[Array, Array]:
        """Mean and spread of the Gaussian, on batches as they come."""
        x = observed
        for layer in self.hidden:
            x = jax.nn.leaky_relu(layer(x), SLOPE)
        return self.mean_head(x), jax.nn.softplus(self.spread_head(x)) + self.floor


def make_policy(
    n_observed: int,
    n_inputs: int,
    *,
    key: Key,
    width: int = 20,
    depth: int = 4,
    floor: ArrayLike = 0.01,
    dtype: Any = None,
) -> GaussianPolicy:
    """Untrained policy.

    Args:
        n_observed: Length of an observation.
        n_inputs: Number of inputs.
        key: Random key of the weights.
        width: Nodes per hidden layer.
        depth: Hidden layers.
        floor: Smallest spread [-].
        dtype: Of the weights; JAX's default if not given.

    Raises:
        ConfigError: If a size is below one.
    """
    if min(n_observed, n_inputs, width, depth) < 1:
        raise ConfigError(
            f"a policy with {n_observed} observed values, {n_inputs} inputs, {depth} layers of "
            f"{width} nodes cannot be built; each must be at least one."
        )
    keys = jax.random.split(key, depth + 2)
    sizes = [n_observed] + [width] * depth

    def dense(k: Key, a: int, b: int) -> Dense:
        return _dense(k, a, b, jnp.result_type(float) if dtype is None else dtype)

    hidden = tuple(dense(k, a, b) for k, a, b in zip(keys[2:], sizes[:-1], sizes[1:], strict=True))
    mean_head, spread_head = dense(keys[0], width, n_inputs), dense(keys[1], width, n_inputs)
    return GaussianPolicy(hidden, mean_head, spread_head, jnp.asarray(floor, dtype))


def fold(z: ArrayLike) -> Array:
    """Place between the bounds, 0 to 1, that a draw leads to.

    A wave, not a logistic curve: beyond a bound it comes back. Where a policy is driven to a
    bound early in its training, a logistic curve is flat for good and no draw shows the way out.
    Its slope at zero is the logistic one's.
    """
    return jnp.asarray(0.5 + 0.5 * jnp.sin(0.5 * jnp.asarray(z)))


class Bounds(eqx.Module):
    """Bounds of the inputs, and the scale between them.

    A place between the bounds, 0 to 1, is an input on a linear or on a logarithmic scale.
    Lights take the latter: holding a strain needs a thousandth of full induction, which is hard
    to hit on a linear scale.
    """

    low: Float[Array, " n"] = eqx.field(converter=lambda v: jnp.asarray(v, float))
    high: Float[Array, " n"] = eqx.field(converter=lambda v: jnp.asarray(v, float))
    is_log: Bool[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, bool), default=False)
    """Whether inputs are on a logarithmic scale, which needs positive lower bounds."""

    def _log_ratio(self) -> Array:
        low = jnp.where(self.is_log, self.low, 1.0)
        return jnp.log(jnp.where(self.is_log, self.high, 2.0) / low)

    def share(self, z: Float[Array, "... n"]) -> Float[Array, "... n"]:
        """Place between the bounds from a point of the line, one to one (logistic)."""
        return jax.nn.sigmoid(z)

    def inputs(self, share: Float[Array, " n"]) -> Float[Array, " n"]:
        """Input at a place between the bounds."""
        linear = self.low + (self.high - self.low) * share
        return jnp.where(self.is_log, self.low * jnp.exp(self._log_ratio() * share), linear)

    def unbounded(self, inputs: Float[Array, " n"]) -> Float[Array, " n"]:
        """Inverse: the point of the line that leads to an input inside the bounds."""
        linear = (inputs - self.low) / (self.high - self.low)
        ratio = jnp.where(self.is_log, inputs / jnp.where(self.is_log, self.low, 1.0), 1.0)
        share = jnp.where(self.is_log, jnp.log(ratio) / self._log_ratio(), linear)
        return jnp.log(share) - jnp.log1p(-share)


def check_bounds(bounds: Bounds) -> None:
    """Refuse bounds that leave nothing between them.

    Raises:
        ConfigError: If a bound is not finite or the lower is not below the upper, or on a
            logarithmic scale not positive.
    """
    if bool(bounds.is_log) and not bool(jnp.all(bounds.low > 0.0)):
        raise ConfigError(f"a logarithmic scale needs positive bounds; the lower is {bounds.low}.")
    fine = jnp.isfinite(bounds.low) & jnp.isfinite(bounds.high) & (bounds.low < bounds.high)
    if not bool(jnp.all(fine)):
        raise ConfigError(
            f"bounds {bounds.low} to {bounds.high}: each must be finite and the lower one below."
        )


def log_probability(policy: GaussianPolicy, observed: Array, z: Array) -> Float[Array, "..."]:
    """Log-density of draws.

    Args:
        policy: Policy.
        observed: Observations, any batch shape.
        z: Draws of the Gaussian, of the same batch shape.

    Returns:
        Log-density per batch entry, summed over the inputs.
    """
    mean, spread = policy(observed)
    unit = (z - mean) / spread
    return jnp.sum(-0.5 * unit * unit - jnp.log(spread), axis=-1) - 0.5 * _LOG_2PI * z.shape[-1]
