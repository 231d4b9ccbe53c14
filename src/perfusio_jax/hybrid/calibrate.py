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
import optimistix as optx
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import ConfigError
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

_TWO_STEPS = 2


class CalibrationInfo(NamedTuple):
    """How a calibration went."""

    constants: Float[Array, " P"]
    """Logarithm of new over old constant in `CALIBRATED` order, then the logit of the lactate
    switch [-]."""
    residual_before: Float[Array, " 9"]
    """Root mean square of the residual before [residual units]."""
    residual_after: Float[Array, " 9"]
    """The same after."""
    converged: Array
    """Whether the search met its tolerance."""


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
    switch = jax.nn.sigmoid(theta[len(CALIBRATED)])
    return eqx.tree_at(
        lambda m: [
            *(getattr(m.reactor.kinetics, n) for n in CALIBRATED),
            m.reactor.kinetics.consumes_lactate,
        ],
        mech,
        [*values, switch],
    )


@eqx.filter_jit
def _search(
    mech: Any, basis: ResidualBasis, data: Intervals, settings: tuple[Array, Array, Array, int]
) -> tuple[Array, Array, Array, Array]:
    centre, widths, thinning, max_steps = settings
    used = data.is_used.astype(data.rates.dtype)[:, None]

    def gaps(theta: Array) -> Array:
        model = with_constants(mech, theta)

        def one(c: Array, u: Array, rate: Array, dt: Array) -> Array:
            prior = prior_step(model, c, u, dt)
            return (rate - prior.rates) / basis.unit(prior)

        return jax.vmap(one)(data.states, data.controls, data.rates, data.dt_h) * used

    def spread(theta: Array) -> Array:
        return jnp.sqrt(jnp.sum(gaps(theta) ** 2, axis=0) / jnp.sum(used)) + 1e-6

    def objective(theta: Array, weight: Array) -> Array:
        # a heavy tail per interval: pseudo-Huber, so that one spoilt sample has bounded pull
        scaled = gaps(theta) / weight[None, :]
        soft = scaled * jnp.sqrt(2.0 / (1.0 + jnp.sqrt(1.0 + (scaled / 2.0) ** 2)))
        return jnp.concatenate([(soft / jnp.sqrt(thinning)).reshape(-1), (theta - centre) / widths])

    solver = optx.LevenbergMarquardt(rtol=1e-4, atol=1e-4)
    before = spread(jnp.zeros(N_CONSTANTS))

    def turn(carry: tuple[Array, Array], _: Any) -> tuple[tuple[Array, Array], None]:
        theta = carry[0]
        out = optx.least_squares(
            objective,
            solver,
            theta,
            args=spread(theta),
            options={"jac": "fwd"},
            max_steps=max_steps,
            throw=False,
        )
        is_fine = jnp.all(jnp.isfinite(out.value))
        value = jnp.where(is_fine, out.value, theta)
        return (value, out.result == optx.RESULTS.successful), None

    (theta, done), _ = jax.lax.scan(turn, (centre, jnp.zeros((), bool)), None, length=_TWO_STEPS)
    return theta, before, spread(theta), done


def calibrate(
    mech: Any,
    basis: ResidualBasis,
    data: Intervals,
    *,
    tau: float = 0.3,
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
        max_steps: Levenberg-Marquardt steps of each of the two passes.
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
        centre = jnp.zeros(N_CONSTANTS)
    if spread is None:
        spread = jnp.full(N_CONSTANTS, tau).at[-1].set(SWITCH_WIDTH)
    settings = (centre, spread, jnp.asarray(thinning, float), max_steps)
    theta, before, after, done = _search(mech, basis, data, settings)
    return with_constants(mech, theta), CalibrationInfo(theta, before, after, done)
