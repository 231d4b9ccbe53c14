"""Logarithms and smooth maxima that stay finite where an improvement underflows.

All functions are elementwise or reduce one axis, and their gradients are finite wherever
their values are.

Reference:
    Ament, Daulton, Eriksson, Balandat, Bakshy (2023), Unexpected improvements to expected
    improvement for Bayesian optimization, sections 4.1-4.3 and appendix A.
"""

import math

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Float

_LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_TAIL = 5.0
"""Standard deviations below which the continued fraction takes over [-]."""
_TAIL_TERMS = 40
"""Terms of the continued fraction; relative error below 1e-15 at `_TAIL`."""


def _mills_remainder(v: Array) -> Array:
    """Tail `t` of Laplace's continued fraction: Mills ratio = 1 / (v + t), for v >= 5.

    `t = 1/(v + 2/(v + 3/(v + ...)))`, positive, close to 1/v: it carries
    `1 - v * Mills(v) = t / (v + t)` without cancellation.
    """

    def term(i: Array, t: Array) -> Array:
        return (_TAIL_TERMS - i) / (v + t)

    return jax.lax.fori_loop(0, _TAIL_TERMS, term, jnp.zeros_like(v))


@jax.custom_jvp
def log_expected_improvement(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of `phi(z) + z Phi(z)`, the expected improvement at unit deviation.

    Args:
        z: Standardised improvement `(mean - best) / deviation` [-].

    Returns:
        Log value [-], accurate to rounding from -1e150 to 1e150.

    Reference:
        Ament et al. (2023), equation 9; here the lower tail uses Laplace's continued
        fraction of the Mills ratio, which needs no subtraction.
    """
    # |z| stays inside the square root of the largest number, so that z^2 is finite
    limit = math.sqrt(float(jnp.finfo(z.dtype).max)) * 1e-3
    z = jnp.clip(z, -limit, limit)
    head = jnp.maximum(z, -_TAIL)
    density = jnp.exp(-0.5 * head**2 - _LOG_SQRT_TWO_PI)
    upper = jnp.log(density + head * jax.scipy.special.ndtr(head))
    v = jnp.maximum(-z, _TAIL)
    t = _mills_remainder(v)
    lower = -0.5 * v**2 - _LOG_SQRT_TWO_PI + jnp.log(t) - jnp.log(v + t)
    return jnp.where(z > -_TAIL, upper, lower)


@log_expected_improvement.defjvp
def _log_expected_improvement_jvp(primals, tangents):
    """Derivative `Phi / (phi + z Phi)`: the reciprocal of `t` in the lower tail."""
    (z,), (dz,) = primals, tangents
    value = log_expected_improvement(z)
    head = jnp.maximum(z, -_TAIL)
    upper = jax.scipy.special.ndtr(head) * jnp.exp(-jnp.where(z > -_TAIL, value, 0.0))
    lower = 1.0 / _mills_remainder(jnp.maximum(-z, _TAIL))
    return value, jnp.where(z > -_TAIL, upper, lower) * dz


def fatplus(x: Float[Array, "..."], tau: Array | float) -> Float[Array, "..."]:
    """Smooth `max(x, 0)` whose lower tail falls like `1/x^2`, so that its gradient lives.

    Args:
        x: Improvement, any unit.
        tau: Width of the smoothing, same unit, above zero.

    Returns:
        Positive value, same unit; within `0.8 tau` of `max(x, 0)`, monotone and convex.

    Reference:
        Ament et al. (2023), appendix A.2: softplus plus a tenth of a Cauchy density.
    """
    scaled = x / tau
    return tau * (jax.nn.softplus(scaled) + 0.1 * _cauchy(scaled))


def log_fatplus(x: Float[Array, "..."], tau: Array | float) -> Float[Array, "..."]:
    """Logarithm of `fatplus`, finite for every finite argument.

    Far in the tail the square of `x / tau` would overflow; it is then replaced by its
    logarithm, which continues the curve.

    Args:
        x: Improvement, any unit.
        tau: Width of the smoothing, same unit, above zero.

    Returns:
        Log value [-].
    """
    tau = jnp.asarray(tau, x.dtype)
    return jnp.log(tau) + _log_unit_fatplus(x / tau)


@jax.custom_jvp
def _log_unit_fatplus(x: Array) -> Array:
    return _log_fatplus_and_slope(x)[0]


@_log_unit_fatplus.defjvp
def _log_unit_fatplus_jvp(primals, tangents):
    value, slope = _log_fatplus_and_slope(primals[0])
    return value, slope * tangents[0]


def _log_fatplus_and_slope(x: Array) -> tuple[Array, Array]:
    """Logarithm of `softplus(x) + 0.1 / (1 + x^2)` and its derivative, one logarithm each."""
    decay = jnp.exp(-jnp.abs(x))
    softplus = jnp.maximum(x, 0.0) + jnp.log1p(decay)
    sigmoid = jnp.where(x > 0, 1.0, decay) / (1.0 + decay)
    # where the square overflows softplus is zero: twice the log of the root continues the curve
    huge = float(jnp.finfo(x.dtype).max) ** 0.25
    is_far = x < -huge
    near = jnp.clip(x, -huge, huge)
    cauchy = _cauchy(near)
    fat = softplus + 0.1 * cauchy
    far = jnp.where(is_far, x, -1.0)
    log = jnp.log(jnp.where(is_far, -math.sqrt(0.1) / far, fat))
    slope = (sigmoid - 0.2 * near * cauchy**2) / fat
    return jnp.where(is_far, 2.0 * log, log), jnp.where(is_far, -2.0 / far, slope)


def log_fatmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of a smooth step from 0 to 1 whose lower tail falls like `1/x^2`.

    Args:
        x: Distance from the step in widths [-]; below zero is the lower side.

    Returns:
        Log value [-], `log(1/2)` at zero.

    Reference:
        Ament et al. (2023), appendix A.4.
    """
    turn = 1.0 / math.sqrt(3.0)
    # beyond the root of the largest number the square would overflow
    low = jnp.maximum(jnp.minimum(x, 0.0), -(float(jnp.finfo(x.dtype).max) ** 0.25))
    high = jnp.maximum(x, 0.0)
    below = math.log(2.0 / 3.0) - jnp.log1p((low - turn) ** 2)
    above = jnp.log1p(-2.0 / 3.0 * _cauchy(high + turn))
    return jnp.where(x < 0, below, above)


def fatmax(x: Float[Array, "..."], tau: float, axis: int = -1) -> Float[Array, "..."]:
    """Smooth maximum along an axis; losers keep a gradient that falls like a power.

    Args:
        x: Finite values.
        tau: Width of the smoothing, unit of `x`, above zero.
        axis: Axis to reduce.

    Returns:
        Value between the maximum and the maximum plus `tau * log(n)`.

    Reference:
        Ament et al. (2023), appendix A.3, power 2.
    """
    top = jnp.max(x, axis=axis, keepdims=True)
    gap = (top - x) / tau
    weight = 2.0 / (2.0 + 2.0 * gap + gap**2)
    return jnp.squeeze(top, axis) + tau * jnp.log(jnp.sum(weight, axis=axis))


def fatmin(x: Float[Array, "..."], tau: float, axis: int = -1) -> Float[Array, "..."]:
    """Smooth minimum along an axis, as `fatmax`.

    Args:
        x: Finite values.
        tau: Width of the smoothing, unit of `x`, above zero.
        axis: Axis to reduce.

    Returns:
        Value between the minimum minus `tau * log(n)` and the minimum.
    """
    return -fatmax(-x, tau, axis=axis)


def log_mean_exp(x: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
    """Logarithm of the mean of exponentials along an axis.

    Args:
        x: Log values.
        axis: Axis to reduce.

    Returns:
        Log of the mean.
    """
    return jax.nn.logsumexp(x, axis=axis) - math.log(x.shape[axis])


def _cauchy(x: Array) -> Array:
    return 1.0 / (1.0 + x**2)
