"""One interval of the hybrid model: prior rates, learned residual, balance, glucose pump.

The residual is learned per cell: `R = R_prior + r s (a + b X)`, with X the geometric mean of
the viable cells at the start and at the prior's end of the interval. A metabolite's error
then means the same at 5 and at 50 million cells per mL, and the offset `a` keeps the unit
finite in a thin culture.

The day's glucose is not a plain balance, because the feed answers to the concentration. It
is solved as the scalar equation it is,

    dG/dt = D (G_in - G) + f(G) (G_feed - G) + R(t)

with the saturating pump law f and the consumption rate R, which follows the growth of the
cells through the day, by exponential Rosenbrock-Euler steps. Glucose can therefore neither
exceed what the pump does nor fall below zero.

Limits, all smooth, none silent (their use is counted in `StepInfo`): the scaled residual
saturates at `residual_limit`, viable cells at `cells_limit`, and concentrations bend off
towards zero within `floor` of it.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import BALANCED, CONTROL_NAMES, HOURS_PER_DAY, Scalar
from perfusio_jax.chemistry import balance_step, inflow_concentrations, perfusion_flows
from perfusio_jax.gp import MechanisticModel, mechanistic_rates
from perfusio_jax.hybrid.vessel import Vessel

_GLC = BALANCED.index("Glc")
_XV = BALANCED.index("Xv")
_SUBSTEPS = 20
_TINY = 1e-3
_GLUCOSE_SOFTNESS = 0.02
"""Glucose [g/L] below which uptake is throttled."""


def _leaf(value: Any) -> Array:
    return jnp.asarray(value, float)


class ResidualBasis(eqx.Module):
    """What one unit of the scaled residual is worth."""

    scale: Float[Array, " 9"] = eqx.field(converter=_leaf)
    """Rate per unit [species unit / h / (1e6 cells/mL)], or plain rate if `per_cell` is 0."""
    offset: Float[Array, " 9"] = eqx.field(converter=_leaf)
    """Cells added to the reference [1e6 cells/mL]."""
    per_cell: Float[Array, " 9"] = eqx.field(converter=_leaf)
    """Weight of the reference cells [-]: 1 per cell, 0 volumetric."""
    half: Float[Array, " 9"] = eqx.field(converter=_leaf, default=(0.0,) * 9)
    """Level at which a substrate's unit is halved [unit of the species]; 0 for the others.
    What is hardly there can hardly be taken up at a wrong rate."""

    def unit(self, prior: "Prior") -> Float[Array, "... 9"]:
        """Rate that one unit of residual stands for in an interval.

        Args:
            prior: Mechanistic interval; its reference cells and levels count.

        Returns:
            Species unit / h.
        """
        reference = prior.reference
        wide = (1,) * reference.ndim + (-1,)
        scale, offset = self.scale.reshape(wide), self.offset.reshape(wide)
        cells = offset + self.per_cell.reshape(wide) * reference[..., None]
        level = jnp.maximum(prior.level, 0.0) + _TINY
        return scale * cells * level / (level + self.half.reshape(wide))


class Limits(eqx.Module):
    """Physical limits that keep a path finite wherever the model extrapolates."""

    residual: Scalar = eqx.field(converter=_leaf, default=8.0)
    """Largest scaled residual, in units of its spread over the training data [-]."""
    cells: Scalar = eqx.field(converter=_leaf, default=250.0)
    """Largest viable cell density [1e6 cells/mL]; packed cells are near 250."""
    floor: Scalar = eqx.field(converter=_leaf, default=1e-3)
    """Width of the bend at zero, relative to the start or the supply [-]."""


class StepInfo(NamedTuple):
    """What the limits did in one step."""

    residual: Array
    """Whether the residual was reduced by more than 5 %, per species."""
    cells: Array
    """Whether the cell limit took more than 5 %."""
    floor: Array
    """Whether a concentration would have been negative, per species."""


class Prior(NamedTuple):
    """The mechanistic interval."""

    rates: Array
    """Mean rates [species unit / h]."""
    reference: Array
    """Reference cells [1e6 cells/mL]."""
    growth: Array
    """Logarithm of the ratio of viable cells, end over start [-]."""
    level: Array
    """Mean of the concentrations at start and end [unit of the species]."""


def saturate(value: Array, limit: Array) -> Array:
    """Identity to fourth order inside the limit, the limit far outside."""
    ratio = jnp.abs(value) / limit
    inside = jnp.where(ratio < 1.0, ratio, 1.0)
    outside = jnp.where(ratio < 1.0, 1.0, ratio)
    # two forms of one function; neither power overflows where it is used
    small = value * (1.0 + inside**4) ** -0.25
    large = jnp.sign(value) * limit * (1.0 + outside**-4.0) ** -0.25
    return jnp.where(ratio < 1.0, small, large)


def bend_to_zero(value: Array, width: Array) -> Array:
    """Positive everywhere, equal to the value well above the width; smooth."""
    root = jnp.sqrt(value**2 + 4.0 * width**2)
    # for negative values the difference form would cancel
    return jnp.where(
        value > 0.0,
        0.5 * (value + root),
        2.0 * width**2 / (root - jnp.where(value > 0.0, 0.0, value)),
    )


def prior_step(
    mech: MechanisticModel, state: Float[Array, " 9"], controls: Float[Array, " 6"], dt_h: Scalar
) -> Prior:
    """Mechanistic rates over one interval, and the cells that carry the residual.

    Args:
        mech: Mechanistic model.
        state: Balanced state, not negative.
        controls: Set-points.
        dt_h: Length [h].

    Returns:
        Rates and reference.
    """
    rates, after, _ = mechanistic_rates(mech, state, controls, dt_h)
    start = state[_XV] + 1e-3
    end = jnp.maximum(after[_XV], 0.0) + 1e-3
    return Prior(rates, jnp.sqrt(start * end), jnp.log(end / start), 0.5 * (state + after))


def flat_prior(state: Float[Array, " K"], cells: int | None = _XV) -> Prior:
    """No mechanism: zero rates, today's cells; one where there are none to count by."""
    nothing = jnp.zeros_like(state[0])
    reference = nothing + 1.0 if cells is None else state[cells] + 1e-3
    return Prior(jnp.zeros_like(state), reference, nothing, state)


def cells_of(mech: Any) -> int | None:
    """State that rates are counted per; None where they are volumetric."""
    return mech.layout.cells if isinstance(mech, Vessel) else _XV


def _phi(z: Array) -> tuple[Array, Array]:
    """`(exp(z) - 1) / z` and `(exp(z) - 1 - z) / z^2`, exact near zero."""
    is_small = jnp.abs(z) < 0.05
    small = jnp.where(is_small, z, 0.0)
    large = jnp.where(is_small, 1.0, z)
    one_small = 1.0 + small / 2 * (1.0 + small / 3 * (1.0 + small / 4 * (1.0 + small / 5)))
    two_small = 0.5 * (1.0 + small / 3 * (1.0 + small / 4 * (1.0 + small / 5 * (1.0 + small / 6))))
    one_large = jnp.expm1(large) / large
    two_large = (one_large - 1.0) / large
    return jnp.where(is_small, one_small, one_large), jnp.where(is_small, two_small, two_large)


def glucose_day(
    mech: MechanisticModel,
    glucose: Scalar,
    controls: Float[Array, " 6"],
    rate: Scalar,
    growth: Scalar,
    dt_h: Scalar,
) -> tuple[Scalar, Scalar]:
    """Glucose at the end of an interval under pump control.

    Args:
        mech: Mechanistic model: medium, pump law.
        glucose: Concentration at the start [g/L].
        controls: Set-points.
        rate: Mean net production, negative for uptake [g/L/h].
        growth: Log ratio of viable cells over the interval [-]; uptake grows with them.
        dt_h: Length [h].

    Returns:
        Concentration at the end [g/L] and concentrate fed [L].
    """
    named = dict(zip(CONTROL_NAMES, controls, strict=True))
    dilution = named["perfusion_rate"] / HOURS_PER_DAY
    inflow = inflow_concentrations(mech.medium, named["pyruvate_feed"])[_GLC]
    feed = mech.medium.glucose_feed
    volume = jnp.asarray(mech.volume_L)
    step = dt_h / _SUBSTEPS
    middle = (jnp.arange(_SUBSTEPS) + 0.5) / _SUBSTEPS
    profile = jnp.exp(jnp.clip(growth, -3.0, 3.0) * (middle - 0.5))
    profile = profile / jnp.mean(profile)

    def pumped(level: Array) -> Array:
        return mech.pump_rate(level, named["glucose_setpoint"])

    def uptake(level: Array, share: Array) -> Array:
        # production needs no glucose, uptake does
        throttle = jnp.tanh(jnp.maximum(level, 0.0) / _GLUCOSE_SOFTNESS)
        return rate * share * jnp.where(rate < 0.0, throttle, 1.0)

    def slope(level: Array, share: Array) -> Array:
        supply = dilution * (inflow - level) + pumped(level) * (feed - level)
        return supply + uptake(level, share)

    def body(carry: tuple[Array, Array], share: Array) -> tuple[tuple[Array, Array], None]:
        level, fed = carry
        value, tangent = jax.jvp(lambda g: slope(g, share), (level,), (jnp.ones_like(level),))
        one, two = _phi(step * jnp.minimum(tangent, 1.0 / step))
        change = step * one * value
        mean = level + step * two * value
        after = jnp.maximum(level + change, 0.0)
        # the law at the step's mean level: never more than the pump can give
        fed = fed + volume * step * pumped(jnp.maximum(mean, 0.0))
        return (after, fed), None

    (end, fed), _ = jax.lax.scan(body, (glucose, jnp.zeros_like(glucose)), profile)
    return end, fed


def apply_residual(
    mech: MechanisticModel,
    basis: ResidualBasis,
    limits: Limits,
    state: Float[Array, " 9"],
    controls: Float[Array, " 6"],
    prior: Prior,
    residual: Float[Array, " 9"],
    dt_h: Scalar,
) -> tuple[Float[Array, " 9"], Scalar, StepInfo]:
    """Finish the interval: rates, pump, balance, limits.

    Args:
        mech: Mechanistic model.
        basis: Unit of the residual.
        limits: Physical limits.
        state: Balanced state at the start, not negative.
        controls: Set-points.
        prior: Mechanistic interval.
        residual: Scaled residual [-].
        dt_h: Length [h].

    Returns:
        State at the end, concentrate fed [L], and what the limits did.
    """
    if isinstance(mech, Vessel):
        return _open_interval(mech, basis, limits, state, controls, residual, dt_h)
    bounded = saturate(residual, limits.residual)
    rates = prior.rates + bounded * basis.unit(prior)
    glucose, fed = glucose_day(mech, state[_GLC], controls, rates[_GLC], prior.growth, dt_h)
    volume = jnp.asarray(mech.volume_L)
    flows = perfusion_flows(controls, volume, fed, mech.medium, dt_h, mech.sieving)
    after = balance_step(state, rates, volume, volume, flows, dt_h, scheme="exponential")
    after = after.at[_GLC].set(glucose)
    level = state + jnp.abs(flows.supply) / volume + 1e-2
    positive = bend_to_zero(after, limits.floor * level)
    cells = saturate(positive[_XV], limits.cells)
    info = StepInfo(
        residual=jnp.abs(bounded) < 0.95 * jnp.abs(residual),
        cells=cells < 0.95 * positive[_XV],
        floor=after < 0.0,
    )
    return positive.at[_XV].set(cells), fed, info


def _open_interval(
    vessel: Vessel,
    basis: ResidualBasis,
    limits: Limits,
    state: Float[Array, " K"],
    controls: Float[Array, " M"],
    residual: Float[Array, " K"],
    dt_h: Scalar,
) -> tuple[Float[Array, " K"], Scalar, StepInfo]:
    """An interval of a described culture: nothing can be negative, no level leaves its range.

    A level starts where its range does; above it nobody would believe a reading, nor a forecast.
    In place of what was fed it tells what the volume gained, where every path has its own [L].
    """
    bounded = saturate(residual, limits.residual)
    after, gained = vessel.advance(
        state,
        controls,
        bounded * basis.scale,
        half=basis.half,
        per_cell=basis.per_cell,
        offset=basis.offset,
        dt_h=dt_h,
    )
    layout, grown, took = vessel.layout, after, jnp.zeros((), bool)
    for k in layout.growers:
        most = limits.cells if k == layout.cells else jnp.asarray(1.5 * layout.upper[k])
        grown = grown.at[k].set(saturate(after[k], most))
        took = took | (grown[k] < 0.95 * after[k])
    if layout.is_level.any():
        grown = jnp.minimum(grown, jnp.asarray(np.where(layout.is_level, layout.upper, np.inf)))
    is_limited = jnp.abs(bounded) < 0.95 * jnp.abs(residual)
    told = gained if vessel.tracks_volume else jnp.zeros(())
    return grown, told, StepInfo(is_limited, took, jnp.zeros_like(is_limited))


class HybridStep(eqx.Module):
    """Next state from a residual: the step of a `StepwiseGP` that forecasts a hybrid model."""

    mech_model: Any
    """Mechanistic model with `advance`."""
    basis: ResidualBasis
    """Unit of the residual."""
    limits: Limits
    """Physical limits."""
    dt_hours: Scalar
    """Length of the step [h]."""
    use_mechanism: bool = eqx.field(static=True)
    """False for the purely data-driven ablation."""

    def __call__(
        self, state: Float[Array, " 9"], rate: Float[Array, " 9"], controls: Float[Array, " 6"]
    ) -> Float[Array, " 9"]:
        """State after `dt_hours`.

        Args:
            state: Balanced state.
            rate: Residual [residual units].
            controls: Set-points in `CONTROL_NAMES` order.

        Returns:
            Balanced state.
        """
        legal = jnp.maximum(state, 0.0)
        prior = (
            prior_step(self.mech_model, legal, controls, self.dt_hours)
            if self.use_mechanism
            else flat_prior(legal, cells_of(self.mech_model))
        )
        after, _, _ = apply_residual(
            self.mech_model,
            self.basis,
            self.limits,
            legal,
            controls,
            prior,
            rate,
            self.dt_hours,
        )
        return after
