"""Discrete mass balance: mean volumetric rates between two samples, and back.

Amount `n = V c` of a species with supply `S` [conc L/h], clearance `a` [L/h] and net
production `R` [conc/h], while the volume runs linearly from `V0` to `V1` in `T` hours:

    dn/dt = S - a n / V(t) + R V(t)                                                   (1)

*Euler* (Gadiyar et al. 2026, eq. 2-4) freezes the right side at the first sample. It
changes the sign of a washed-out species when the dilution `a T / V` exceeds one.

*Exponential* solves (1) exactly. In the stretched time `d(tau) = dt / V(t)` the volume is
`V0 exp(v tau)` with `v = (V1 - V0) / T`, and (1) is linear with constant coefficients.
With `theta = T log(V1/V0) / (V1 - V0)`, `l = log(V1/V0)` and `phi(z) = (1 - exp(-z)) / z`:

    c1 = c0 exp(-a theta - l) + S theta phi(a theta + l) + R V1 theta phi(a theta + 2 l)

`phi` and `log(1+x)/x` are regular at zero and evaluated by their series near it, so that
value and derivatives hold at zero flow and at constant volume.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError

from .flows import Flows, Number, align, with_species_axis

Scheme = Literal["euler", "exponential"]


def relative_decay(z: Number) -> Array:
    """`(1 - exp(-z)) / z`, one at zero, with exact derivatives there."""
    z = jnp.asarray(z)
    is_small = jnp.abs(z) < 0.1
    small = jnp.where(is_small, z, 0.0)
    large = jnp.where(is_small, 1.0, z)
    series = jnp.ones_like(z)
    for k in range(11, 1, -1):
        series = 1.0 - small / k * series
    return jnp.where(is_small, series, -jnp.expm1(-large) / large)


def relative_log1p(x: Number) -> Array:
    """`log(1 + x) / x`, one at zero, with exact derivatives there."""
    x = jnp.asarray(x)
    is_small = jnp.abs(x) < 0.03
    small = jnp.where(is_small, x, 0.0)
    large = jnp.where(is_small, 1.0, x)
    series = jnp.full_like(x, 1.0 / 12.0)
    for k in range(11, 0, -1):
        series = 1.0 / k - small * series
    return jnp.where(is_small, series, jnp.log1p(large) / large)


def _coefficients(
    rank: int, interval: tuple[Number, Number, Number], flows: Flows, scheme: str
) -> tuple[Array, Array, Array]:
    """`keep`, `supplied` and `per_rate` of `c1 = keep c0 + supplied + per_rate R`."""
    if scheme not in get_args(Scheme):
        raise ConfigError(f"scheme {scheme!r} is unknown; allowed are {list(get_args(Scheme))}.")
    V0, V1, dt = (with_species_axis(value, rank) for value in interval)
    clearance, supply = align(flows.clearance(), rank), align(flows.supply, rank)
    growth = (V1 - V0) / V0
    if scheme == "euler":
        return 1.0 - dt * clearance / V0 - growth, dt * supply / V0, dt
    theta = dt / V0 * relative_log1p(growth)
    log_ratio = jnp.log1p(growth)
    z = clearance * theta
    return (
        jnp.exp(-(z + log_ratio)),
        supply * theta * relative_decay(z + log_ratio),
        V1 * theta * relative_decay(z + 2.0 * log_ratio),
    )


def _expect_width(flows: Flows, **arrays: Array) -> None:
    """Refuse arrays whose species are not those of the flows; a single one would broadcast."""
    width = flows.supply.shape[-1]
    wrong = {name: jnp.shape(v) for name, v in arrays.items() if jnp.shape(v)[-1:] != (width,)}
    if wrong:
        raise ConfigError(
            f"the flows are of {width} species; given were arrays of shape {wrong}, whose last "
            f"axis has to be {width} too."
        )


def balance_rates(
    c0: Float[Array, "*b K"],
    c1: Float[Array, "*b K"],
    V0: Number,
    V1: Number,
    flows: Flows,
    dt_h: Number,
    *,
    scheme: Scheme = "exponential",
) -> Float[Array, "*b K"]:
    """Mean volumetric rates [conc/h] that lead from `c0` to `c1`.

    Args:
        c0: Concentrations at the start.
        c1: Concentrations at the end.
        V0: Volume at the start [L], scalar or batch-shaped.
        V1: Volume at the end [L], likewise.
        flows: Flows of the interval.
        dt_h: Length [h], likewise.
        scheme: "exponential" (exact for constant rates) or "euler" (the paper's).

    Returns:
        Rates; NaN where an input is missing, and there only.

    Raises:
        ConfigError: If widths differ or the scheme is unknown.
    """
    _expect_width(flows, c0=c0, c1=c1)
    keep, supplied, per_rate = _coefficients(jnp.ndim(c0), (V0, V1, dt_h), flows, scheme)
    return (c1 - keep * c0 - supplied) / per_rate


def balance_step(
    c0: Float[Array, "*b K"],
    R: Float[Array, "*b K"],
    V0: Number,
    V1: Number,
    flows: Flows,
    dt_h: Number,
    *,
    scheme: Scheme = "exponential",
) -> Float[Array, "*b K"]:
    """Concentrations after an interval with constant rates; the inverse of `balance_rates`.

    Args:
        c0: Concentrations at the start, in the units of the flows' species.
        R: Mean volumetric rates [conc/h].
        V0: Volume at the start [L], scalar or batch-shaped.
        V1: Volume at the end [L], likewise.
        flows: Flows of the interval.
        dt_h: Length [h], likewise.
        scheme: "exponential" (exact for constant rates) or "euler" (the paper's).

    Returns:
        Concentrations at the end; NaN where an input is missing, and there only. With "euler"
        they are negative where more is washed out in one interval than there is.

    Raises:
        ConfigError: If widths differ or the scheme is unknown.
    """
    _expect_width(flows, c0=c0, R=R)
    keep, supplied, per_rate = _coefficients(jnp.ndim(c0), (V0, V1, dt_h), flows, scheme)
    return keep * c0 + supplied + per_rate * R


def cell_specific_rates(
    R: Float[Array, "*b K"], Xv0: Float[Array, "*b"], Xv1: Float[Array, "*b"]
) -> Float[Array, "*b K"]:
    """Rates per viable cell, `R` over the logarithmic mean of the cell density.

    The logarithmic mean is the time average of cells that grow exponentially from `Xv0` to
    `Xv1`.

    Args:
        R: Volumetric rates [conc/h].
        Xv0: Viable cells at the start, positive [1e6 cells/mL].
        Xv1: Viable cells at the end, positive [1e6 cells/mL].

    Returns:
        Rates [conc/h per 1e6 cells/mL].
    """
    mean = Xv1 / relative_log1p((Xv0 - Xv1) / Xv1)
    return R / mean[..., None]
