"""Bring the mechanistic prior to a clone: a few constants, moved as far as the data insist.

The smoothed states of a campaign give the rate of every species over every interval. The
constants are moved so that the mechanism's rates over the same intervals meet them, as a
least-squares problem with a log-normal prior around the values that were there:

    min  sum_i ((R_i - R_mech(c_i, u_i; theta)) / s)^2 + sum_j (log theta_j / theta_j0)^2 / tau^2

Species are weighted by the spread `s` of what the mechanism leaves, which is estimated in
turn, so that a species the mechanism cannot describe does not bend the others. Intervals of
one run resemble each other: `thinning` says how many of them count as one.
"""

from typing import Any, Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import STATE_ORDER, ConfigError, on_device
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.hybrid.transition import ResidualBasis, prior_step

CALIBRATED: Final[tuple[str, ...]] = (
    "mu_max",
    "K_gln",
    "growth_temperature_width",
    "K_d",
    "K_T",
    "k_shear",
    "cells_oxygen",
    "k_lysis",
    "q_glc_max",
    "m_glc",
    "Y_lac_glc",
    "lac_consump_rate",
    "glc_switch",
    "q_gln_max",
    "m_gln",
    "alpha_amm_gln",
    "Y_glu_gln",
    "q_glu_max",
    "k_pyr_amm",
    "q_mAb_growth",
    "q_mAb_nongrowth",
)
"""Constants that are moved on the log scale. Whether the clone eats lactate moves too."""

N_CONSTANTS: Final[int] = len(CALIBRATED) + 1
"""Length of a vector of constants: the log factors, then the logit of the lactate switch."""

SWITCH_WIDTH: Final[float] = 2.0
"""Prior standard deviation of that logit: flat between 2 and 98 %, since clones either eat
lactate or do not."""

CENTRE_WIDTH: Final[float] = 0.3
"""Prior log-standard deviation of a constant around the mechanism's own [-]."""

_N = len(STATE_ORDER)
_NUDGE = 1e-6
_RENEW = 8
"""Step after which the weights are taken anew from what is left."""
_MOST_ROWS = 288
"""Intervals that are looked at, evenly spread; more of one campaign add little."""
_BEND = 2.0
"""Scaled gap at which the loss turns from square to linear [-]."""


class CalibrationInfo(NamedTuple):
    """How a calibration went."""

    constants: Float[Array, " P"]
    """Logarithm of new over old constant in `CALIBRATED` order, then the logit of the lactate
    switch [-]."""
    residual_before: Float[Array, " 9"]
    """Root mean square of the residual at the prior's centre [residual units]."""
    residual_after: Float[Array, " 9"]
    """The same after."""
    converged: Array
    """Whether the search met its tolerance."""
    precision: Float[Array, "P P"]
    """Curvature of the data's part at the solution, prior left out [-]."""


class Intervals(NamedTuple):
    """Smoothed intervals, flattened over runs."""

    states: Float[Array, "N 9"]
    """Balanced states at the start."""
    controls: Float[Array, "N 6"]
    """Set-points."""
    rates: Float[Array, "N 9"]
    """Mean rates over the interval [species unit / h]."""
    dt_h: Float[Array, " N"]
    """Lengths [h]."""
    is_used: Bool[Array, " N"]
    """Rows that hold data."""


def with_constants(mech: Any, theta: Float[Array, " P"]) -> Any:
    """The mechanism with moved constants.

    Args:
        mech: Mechanism the log factors refer to.
        theta: Log factors in `CALIBRATED` order, then the logit of the lactate switch.

    Returns:
        The same mechanism with other numbers; traces.
    """
    kinetics = mech.kinetics
    values = [
        getattr(kinetics, name) * jnp.exp(theta[i]).astype(getattr(kinetics, name).dtype)
        for i, name in enumerate(CALIBRATED)
    ]
    return _put(mech, values, jax.nn.sigmoid(theta[len(CALIBRATED)]))


@compiled
def _moved(mech: Any, theta: Float[Array, " P"]) -> Any:
    return with_constants(mech, theta)


def _put(mech: Any, values: list[Array], switch: Array) -> Any:
    return eqx.tree_at(
        lambda m: [
            *(getattr(m.reactor.kinetics, n) for n in CALIBRATED),
            m.reactor.kinetics.consumes_lactate,
        ],
        mech,
        [*values, switch],
    )


def shifted(mech: Any, shift: Float[Array, " P"]) -> Any:
    """The mechanism with constants moved from where they are.

    Args:
        mech: Mechanism.
        shift: Log factors in `CALIBRATED` order, then what is added to the lactate switch's
            logit.

    Returns:
        The same mechanism with other numbers; traces. A switch that is quite on or off stays.
    """
    kinetics = mech.kinetics
    values = [getattr(kinetics, name) * jnp.exp(shift[i]) for i, name in enumerate(CALIBRATED)]
    share, odds = kinetics.consumes_lactate, jnp.exp(shift[len(CALIBRATED)])
    return _put(mech, values, share * odds / (1.0 - share + share * odds))


class _Point(NamedTuple):
    theta: Array
    cost: Array
    gaps: Array
    slopes: Array


@compiled
def _search(
    mech: Any,
    basis: ResidualBasis,
    data: Intervals,
    settings: tuple[Array, Array, Array, int],
) -> tuple[Array, Array, Array, Array, Array]:
    """Levenberg-Marquardt with one place of evaluation, so that it compiles in one piece.

    Each turn evaluates gaps and their slopes at the trial point, keeps it if it is better,
    and makes the next trial. Libraries evaluate in several places, and the mechanism compiled
    that often costs five times as long.
    """
    compiling("the calibration of constants")
    centre, widths, thinning, max_steps = settings
    used = data.is_used.astype(data.rates.dtype)[:, None]
    count = jnp.maximum(jnp.sum(used), 1.0)

    def gaps(theta: Array) -> Array:
        model = with_constants(mech, theta)

        def one(c: Array, u: Array, rate: Array, dt: Array) -> Array:
            prior = prior_step(model, c, u, dt)
            return (rate - prior.rates) / basis.unit(prior)

        return jax.vmap(one)(data.states, data.controls, data.rates, data.dt_h) * used

    def look(theta: Array) -> tuple[Array, Array]:
        # one-sided differences of a smooth function in double precision are good to six
        # digits, and compile in a fifth of the time of exact derivatives
        nearby = jnp.concatenate([theta[None, :], theta[None, :] + _NUDGE * jnp.eye(theta.size)])
        values = jax.lax.map(gaps, nearby)
        return values[0], jnp.moveaxis(values[1:] - values[:1], 0, -1) / _NUDGE

    def spread(found: Array) -> Array:
        return jnp.sqrt(jnp.sum(found**2, axis=0) / count) + 1e-6

    def cost(found: Array, scale: Array, theta: Array) -> Array:
        z = found / scale[None, :]
        soft = 2.0 * _BEND**2 * (jnp.sqrt(1.0 + (z / _BEND) ** 2) - 1.0)
        return jnp.sum(soft) / thinning + jnp.sum(((theta - centre) / widths) ** 2)

    def bend(best: _Point, scale: Array) -> tuple[Array, Array]:
        z = best.gaps / scale[None, :]
        weight = 1.0 / jnp.sqrt(1.0 + (z / _BEND) ** 2) / thinning
        slopes = best.slopes / scale[None, :, None]
        curvature = jnp.einsum("nkp,nk,nkq->pq", slopes, weight, slopes)
        return curvature, jnp.einsum("nkp,nk,nk->p", slopes, weight, z)

    def step(best: _Point, scale: Array, damping: Array) -> Array:
        curvature, pull = bend(best, scale)
        curvature = curvature + jnp.diag(1.0 / widths**2)
        pull = pull + (best.theta - centre) / widths**2
        damped = curvature + damping * jnp.diag(jnp.diagonal(curvature))
        return -jax.scipy.linalg.solve(damped, pull, assume_a="pos")

    def turn(carry: Any, number: Array) -> Any:
        best, trial, scale, damping = carry
        found, slopes = look(trial)
        fine = jnp.all(jnp.isfinite(found)) & jnp.all(jnp.isfinite(slopes))
        # weights from the spread of what is left, at the start and once more when it has shrunk
        renew = (number == 0) | (number == _RENEW)
        first = number == 0
        scale = jnp.where(renew, spread(jnp.where(first, found, best.gaps)), scale)
        old = jnp.where(first, jnp.inf, cost(best.gaps, scale, best.theta))
        new = jnp.where(fine, cost(found, scale, trial), jnp.inf)
        is_better = new < old
        chosen = jax.tree.map(
            lambda a, b: jnp.where(is_better, a, b),
            _Point(trial, new, found, slopes),
            best._replace(cost=old),
        )
        damping = jnp.clip(jnp.where(is_better, damping / 3.0, damping * 4.0), 1e-6, 1e6)
        following = chosen.theta + step(chosen, scale, damping)
        gain = jnp.where(is_better & ~first, (old - new) / old, jnp.nan)
        return (chosen, following, scale, damping), (spread(found), gain)

    def body(carry: Any) -> Any:
        state, number, before, idle = carry
        state, (found, gain) = turn(state, number)
        before = jnp.where(number == 0, found, before)
        # a step that hardly helps, or a trial that was refused, twice in a row after the
        # weights were renewed
        idle = jnp.where(jnp.nan_to_num(gain) < 1e-4, idle + 1, 0)
        return state, number + 1, before, jnp.where(number <= _RENEW, 0, idle)

    n, p = data.rates.shape[0], centre.shape[0]
    nothing = _Point(centre, jnp.asarray(jnp.inf), jnp.zeros((n, _N)), jnp.zeros((n, _N, p)))
    start = (nothing, centre, jnp.ones(_N), jnp.asarray(1e-2))
    state, number, before, _ = jax.lax.while_loop(
        lambda c: (c[1] < max_steps) & (c[3] < 2), body, (start, 0, jnp.zeros(_N), 0)
    )
    best, _, scale, _ = state
    return best.theta, before, spread(best.gaps), number < max_steps, bend(best, scale)[0]


def _spread_rows(data: Intervals) -> tuple[Intervals, float]:
    """At most `_MOST_ROWS` of the used rows, evenly spread, and the share that they are."""
    rows = np.flatnonzero(np.asarray(data.is_used))
    if data.is_used.shape[0] <= _MOST_ROWS:
        return data, 1.0
    kept = rows[np.unique(np.linspace(0, max(rows.size - 1, 0), _MOST_ROWS).astype(int))]
    padding = np.flatnonzero(~np.asarray(data.is_used))[: _MOST_ROWS - kept.size]
    # fewer rows than places only if there are fewer used rows, and then padding fills up
    index = np.concatenate([kept, padding])
    share = kept.size / rows.size if rows.size else 1.0
    return jax.tree.map(lambda leaf: on_device(np.asarray(leaf)[index]), data), share


def calibrate(
    mech: Any,
    basis: ResidualBasis,
    data: Intervals,
    *,
    tau: float = CENTRE_WIDTH,
    thinning: float = 4.0,
    max_steps: int = 30,
    centre: Float[Array, " P"] | None = None,
    spread: Float[Array, " P"] | None = None,
) -> tuple[Any, CalibrationInfo]:
    """Move the mechanism's constants towards smoothed rates.

    Args:
        mech: Mechanistic model; its constants are the prior's centre.
        basis: Unit of the residual.
        data: Smoothed intervals; padding marked unused.
        tau: Log-standard deviation of every constant's prior [-].
        thinning: Intervals that count as one, because neighbours resemble each other [-].
        max_steps: Levenberg-Marquardt steps.
        centre: Centre of the prior, if not the mechanism as it is.
        spread: Standard deviation of the prior per constant, instead of `tau`.

    Returns:
        The calibrated model and how it went.

    Raises:
        ConfigError: If `tau` or `thinning` is not above zero.
    """
    for name, value in (("tau", tau), ("thinning", thinning)):
        if not value > 0.0:
            raise ConfigError(f"{name} is {value}; it must be above zero.")
    if centre is None:
        centre = on_device(np.zeros(N_CONSTANTS))
    if spread is None:
        spread = on_device(np.append(np.full(N_CONSTANTS - 1, float(tau)), SWITCH_WIDTH))
    data, share = _spread_rows(data)
    settings = (centre, spread, jnp.asarray(thinning * share, float), max_steps)
    theta, before, after, done, precision = _search(mech, basis, data, settings)
    return _moved(mech, theta), CalibrationInfo(theta, before, after, done, precision)
