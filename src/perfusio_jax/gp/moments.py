"""Moments of the rate process at an uncertain state, in closed form.

The Matern-5/2 kernel is a mixture of squared exponentials over their squared length:

    matern(r) = E[exp(-r^2 / (2 u))],   u ~ Gamma(shape 5/2, rate 5/2),

and a squared exponential has closed-form expectations under a Gaussian input. Eight nodes,
fitted so that the largest error over all distances is smallest (1e-6; sixteen nodes of
Gauss-Laguerre leave 3e-4), replace the integral. What error they leave cancels to first
order, because only the *difference* the input's spread makes is taken from the mixture: at
zero spread the result is the exact posterior.

The state is uncertain; set-points, clone vectors and the day are known, so they enter as
fixed distances and, for the linear-plus-constant day kernel, as one factor per training row.
Columns that the model takes as shifted logarithms are Gaussian there: the state is then
shifted log-normal, with the mean and covariance given, and its covariance with the rates
follows from the same expectations at a tilted mean.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError
from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.inference import require_state
from perfusio_jax.gp.kernels import PerfusionKernel
from perfusio_jax.gp.scaling import InputScaling

MIXTURE_SCALES = (
    0.013468899794727717,
    0.050261933040890446,
    0.13155504556381473,
    0.29088932752296565,
    0.5802427155664021,
    1.0804702999216782,
    1.927039112478043,
    3.414085111756109,
)
"""Squared lengths u of the mixture, for a Matern-5/2 kernel of unit lengthscale."""
_SHARES = (
    0.00025153384291625347,
    0.0040372670277806,
    0.02895830182260495,
    0.12046767253402856,
    0.29122924832384117,
    0.36080442244074135,
    0.17557050710988836,
    0.01868099689819884,
)
MIXTURE_WEIGHTS = tuple(share / sum(_SHARES) for share in _SHARES)
"""Their weights; they add up to one."""


class RateMoments(NamedTuple):
    """First two moments of the state and the residual rate."""

    mean: Float[Array, " T"]
    """Mean of the residual rate (mean function not included) [target unit]."""
    covariance: Float[Array, "T T"]
    """Its covariance: of the posterior mean over the states, plus the expected posterior
    covariance [target unit squared]."""
    cross: Float[Array, "S T"]
    """Covariance of state and rate [state unit x target unit]."""


class FeatureLaw(NamedTuple):
    """Gaussian law of the features that belong to the state."""

    mean: Float[Array, " S"]
    """Mean [-]."""
    covariance: Float[Array, "S S"]
    """Covariance [-]."""
    tilt: Float[Array, " S"]
    """Logarithmic columns: `x + offset = exp(tilt z + ...)`; zero in linear ones [-]."""
    slope: Float[Array, " S"]
    """Raw unit per feature: `scale` in linear columns, `E[x] + offset` in logarithmic ones."""


def is_supported(model: MultiTaskRateGP) -> bool:
    """Whether the closed form covers a model's kernel and feature map."""
    return type(model.kernel) is PerfusionKernel and _columns(model) is not None


def _columns(model: MultiTaskRateGP) -> InputScaling | None:
    scaling = model.scaling
    plain = scaling if isinstance(scaling, InputScaling) else getattr(scaling, "base", None)
    return plain if isinstance(plain, InputScaling) else None


def feature_law(
    scaling: InputScaling, mean: Float[Array, " S"], covariance: Float[Array, "S S"]
) -> FeatureLaw:
    """Gaussian in the features with the given moments of the state.

    Args:
        scaling: Scaling whose first columns are the state's.
        mean: Mean of the state, raw units; above `-offset` in logarithmic columns.
        covariance: Covariance of the state, raw units.

    Returns:
        The law. Linear columns are normal, logarithmic ones shifted log-normal; the raw
        moments are reproduced exactly.
    """
    size = mean.shape[0]
    is_log, scale = scaling.is_log[:size], scaling.scale[:size]
    level = jnp.where(is_log, jnp.maximum(mean + scaling.offset[:size], 1e-12), 1.0)
    # relative to the level in logarithmic columns, raw in linear ones
    relative = covariance / level[:, None] / level[None, :]
    both = is_log[:, None] & is_log[None, :]
    # log1p of a covariance below -1 would not exist; no law on positive numbers has one
    logs = jnp.where(both, jnp.log1p(jnp.maximum(jnp.where(both, relative, 0.0), -0.99)), relative)
    centre = jnp.where(is_log, jnp.log(level) - 0.5 * jnp.diagonal(logs), mean)
    return FeatureLaw(
        mean=(centre - scaling.shift[:size]) / scale,
        covariance=logs / scale[:, None] / scale[None, :],
        tilt=jnp.where(is_log, scale, 0.0),
        slope=jnp.where(is_log, level, scale),
    )


def rate_moments(
    model: MultiTaskRateGP,
    mean: Float[Array, " S"],
    covariance: Float[Array, "S S"],
    rest: Float[Array, " R"],
) -> RateMoments:
    """Moments of the residual rate at an uncertain state.

    Args:
        model: Conditioned model with a `PerfusionKernel`.
        mean: Mean of the state (the first columns of the inputs).
        covariance: Its covariance.
        rest: The other raw columns, known: controls, clone, day.

    Returns:
        Mean and covariance of the rate around the mean function, and its covariance with
        the state.

    Raises:
        ConfigError: If the model is not conditioned, or its kernel or feature map has no
            closed form here.

    Reference:
        Girard et al. (2003) and Deisenroth et al. (2009) for one squared exponential.
    """
    plain = _columns(model)
    if plain is None or not is_supported(model):
        raise ConfigError(
            f"closed-form moments exist for PerfusionKernel over an InputScaling; "
            f"{type(model.kernel).__name__} over {type(model.scaling).__name__} was given. Use "
            "the cubature form."
        )
    state, kernel, size = require_state(model), model.kernel, mean.shape[0]
    law = feature_law(plain, mean, covariance)
    row = jnp.concatenate([mean, rest])[None, :]
    here = model.scaling(row)
    dims = kernel.n_state_dims
    lengths, day_at = kernel.lengthscale, here[0, dims]
    day = (1.0 + kernel.day_variance * day_at * state.inputs[:, dims]) * state.row_present
    known = (here[:, size:dims] - state.inputs[:, size:dims]) / lengths[None, size:]
    apart = jnp.sum(known**2, axis=1)

    # in units of the lengthscales; no eigenvectors, whose derivative fails at equal eigenvalues
    spread = law.covariance / lengths[:size][:, None] / lengths[None, :size]
    offsets = (law.mean[None, :] - state.inputs[:, :size]) / lengths[None, :size]

    def projected(shift: Array, at: Array) -> Array:
        """Expected kernel to every training row, for a mean moved by `shift`."""

        def add(total: Array, node: Any) -> tuple[Array, None]:
            u, weight = node
            white, log_ratio = _whitened(at, offsets + shift[None, :], u)
            decay = -0.5 * (jnp.sum(white**2, axis=0) + apart / u + log_ratio)
            return total + weight * jnp.exp(decay), None

        nodes = (jnp.asarray(MIXTURE_SCALES, day.dtype), jnp.asarray(MIXTURE_WEIGHTS, day.dtype))
        return jax.lax.scan(add, jnp.zeros_like(apart), nodes)[0] * day

    none = jnp.zeros(size)
    expected = projected(none, spread)
    certain = projected((here[0, :size] - law.mean) / lengths[:size], jnp.zeros_like(spread))
    exact = kernel.input_matrix(here, state.inputs)[0] * state.row_present
    centre = (exact + expected - certain) @ state.weights

    # covariance with the state: by the slope in linear columns, by tilting in logarithmic ones
    slopes = jax.jacfwd(lambda shift: projected(shift, spread) @ state.weights)(none)
    linear = (slopes @ spread) * lengths[None, :size]
    shifts = law.covariance * law.tilt[:, None] / lengths[None, :size]
    tilted = jax.vmap(lambda s: (projected(s, spread) - expected) @ state.weights)(shifts)
    cross = jnp.where(law.tilt[:, None] > 0, tilted, linear.T) * law.slope[:, None]

    second = _second_moment(offsets, spread, apart) * day[:, None] * day[None, :]
    about = second - expected[:, None] * expected[None, :]
    moved = state.weights.T @ about @ state.weights
    # exact at the point, plus what the spread changes by the mixture
    prior = kernel.input_diagonal(here)[0] * kernel.task_covariance()
    at_point = state.solved.covariance_reduction(exact[None, :])[0]
    change = state.solved.expected_reduction(second - certain[:, None] * certain[None, :])
    total = prior - at_point - change + moved
    unit = model.target_scale
    return RateMoments(
        mean=centre * unit,
        covariance=0.5 * (total + total.T) * unit[:, None] * unit[None, :],
        cross=cross * unit[None, :],
    )


def _whitened(spread: Array, rows: Array, u: Array) -> tuple[Array, Array]:
    """`L^-1 rows'` with `L L' = spread + u I`, and `log det(I + spread / u)`."""
    factor = jnp.linalg.cholesky(spread + u * jnp.eye(spread.shape[0], dtype=spread.dtype))
    white = jax.scipy.linalg.solve_triangular(factor, rows.T, lower=True)
    return white, jnp.sum(2.0 * jnp.log(jnp.diagonal(factor)) - jnp.log(u))


def _second_moment(offsets: Array, spread: Array, apart: Array) -> Array:
    """Expected product of the kernels to every two training rows.

    For squared lengths u and v, and `1/w = 1/u + 1/v`, the input integrates out to

        det(I + S/w)^(-1/2) exp(-(p'p/u + q'q/v)/2 + (p/u + q/v)' K (p/u + q/v)/2),
        K = (S^-1 + I/w)^-1 = w (S + w I)^-1 S,

    a quadratic form in the offsets p and q, so that a pair of nodes costs one matrix product
    and one exponential per pair of rows.
    """
    scales, weights = np.asarray(MIXTURE_SCALES), np.asarray(MIXTURE_WEIGHTS)
    one, two = np.triu_indices(scales.size)
    share = weights[one] * weights[two] * np.where(one == two, 1.0, 2.0)
    pairs = tuple(jnp.asarray(a, offsets.dtype) for a in (scales[one], scales[two], share))
    eye = jnp.eye(spread.shape[0], dtype=spread.dtype)
    length = jnp.sum(offsets**2, axis=1) + apart

    def add(total: Array, pair: Any) -> tuple[Array, None]:
        u, v, weight = pair
        mixed = u * v / (u + v)
        factor = jnp.linalg.cholesky(spread + mixed * eye)
        gain = mixed * jax.scipy.linalg.cho_solve((factor, True), spread)
        log_ratio = jnp.sum(2.0 * jnp.log(jnp.diagonal(factor)) - jnp.log(mixed))
        bent = offsets @ gain
        own = jnp.sum(bent * offsets, axis=1)
        left, right = own / u**2 - length / u, own / v**2 - length / v
        both = (2.0 / (u * v)) * (bent @ offsets.T)
        exponent = 0.5 * (left[:, None] + right[None, :] + both - log_ratio)
        return total + weight * jnp.exp(jnp.minimum(exponent, 0.0)), None

    rows = offsets.shape[0]
    total, _ = jax.lax.scan(add, jnp.zeros((rows, rows), offsets.dtype), pairs)
    # the pairs (u, v) and (v, u) are each other's transpose
    return 0.5 * (total + total.T)
