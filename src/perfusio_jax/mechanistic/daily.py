"""One interval ahead, cheaply: the integrator inside roll-outs and filters.

The mechanistic prior is evaluated for every path of every candidate of every decision, and
differentiated. A linearly implicit step with its Jacobian is accurate but large: it takes XLA
a minute to compile its gradient. Here every species is written as production minus loss,

    dc/dt = P(c) - L(c) c,

and a step solves this exactly with P and L frozen, twice: at the start, then at the mean of
both ends. The scheme is of second order, keeps positive what is positive, and takes stiff
losses (an exhausted substrate, the glucose pump, the lactate switch) in its stride.

Reference:
    Exponential form of a Patankar predictor-corrector; Burchard, Deleersnijder and Meister
    (2003) for the idea of production and loss.
"""

from collections.abc import Sequence
from typing import Final

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax.mechanistic.reactor import N_PLANT, DayInputs, Reactor, day_inputs

Columns = tuple[Array, ...]

GRID: Final[tuple[float, ...]] = (0.005, 0.01, 0.02, 0.035, 0.055, 0.075) + (0.1,) * 8
"""Steps as parts of the interval, short after the set-points have changed."""


def production_and_loss(
    reactor: Reactor, inputs: DayInputs, c: Columns
) -> tuple[Columns, Columns, Array]:
    """Split the balance of each species at constant volume.

    Args:
        reactor: Cells and vessel, perfusion at constant volume.
        inputs: Constants of the interval.
        c: Ten concentrations in `PLANT_SPECIES` order, none negative.

    Returns:
        Production [conc/h], loss rate [1/h], and the flow of the glucose concentrate [L/h/L].
        Production minus loss times concentration is the balance itself.
    """
    kin, medium, pump = reactor.kinetics, reactor.medium, reactor.pump
    Xv, Xd, _, glc, gln, glu, lac, amm, pyr, _ = c
    crowding = (Xv * inputs.inverse_cell_limit) ** 2
    oxygen = 1.0 / (1.0 + crowding * crowding)
    inhibition = (1.0 + (kin.inhibition_amm * amm) ** 2) * (1.0 + (kin.inhibition_lac * lac) ** 2)
    per_glc, per_gln = 1.0 / (kin.K_glc + glc), 1.0 / (kin.K_gln + gln)
    share = (inputs.mu_max / kin.mu_max) * oxygen / inhibition
    mu = kin.mu_max * share * (glc * per_glc) * (gln * per_gln)
    death = inputs.death + kin.k_starve * (1.0 - oxygen)

    unit = 1e9 * Xv
    # Uptake over concentration: the factor that vanishes with the substrate is left out.
    glc_growth, gln_growth = share * per_glc * (gln * per_gln), share * per_gln * (glc * per_glc)
    glc_loss = unit * (kin.q_glc_max * glc_growth + kin.m_glc / (kin.K_glc_maintenance + glc))
    gln_loss = unit * (kin.q_gln_max * gln_growth + kin.m_gln / (kin.K_gln_maintenance + gln))
    q_glc, q_gln = glc_loss * glc, gln_loss * gln
    thrown = kin.lactate_switch(glc)
    lac_made = (kin.Y_lac_glc * (1000.0 / 180.156)) * q_glc * (1.0 - thrown)
    lac_loss = thrown * kin.lac_consump_rate * unit / (kin.K_lac + lac)
    glu_loss = kin.q_glu_max * unit / (kin.K_glu + glu)

    setpoint = inputs.glucose_setpoint
    flux, slope = jax.jvp(lambda g: pump.flux(g, setpoint), (glc,), (jnp.ones_like(glc),))
    pump_loss = -slope  # the pump's reaction to glucose is a loss; at the set-point it vanishes
    F_glucose = flux / medium.glucose_feed
    D = inputs.perfusion * Xv if reactor.perfusion_mode == "cspr" else inputs.perfusion
    bleed = inputs.bleed
    if reactor.perfusion_mode == "cspr":
        bleed = jnp.minimum(bleed, D + F_glucose)
    harvest = D + F_glucose - bleed
    out = [bleed + harvest * reactor.sieving[k] for k in range(N_PLANT - 1)]
    out.append(bleed + harvest * inputs.product_sieving)

    production = (
        mu * Xv,
        death * Xv,
        kin.k_lysis * Xd,
        D * medium.glucose + flux + pump_loss * glc,
        D * medium.glutamine,
        D * medium.glutamate + kin.Y_glu_gln * q_gln,
        D * medium.lactate + lac_made,
        D * medium.ammonium + kin.alpha_amm_gln * q_gln,
        D * inputs.pyruvate_in,
        kin.q_mab(mu, Xv),
    )
    loss = (
        out[0] + death,
        out[1] + kin.k_lysis,
        out[2],
        out[3] + glc_loss + pump_loss,
        out[4] + gln_loss,
        out[5] + glu_loss,
        out[6] + lac_loss,
        out[7] + kin.k_pyr_amm * pyr,
        out[8] + kin.k_pyr_amm * amm,
        out[9],
    )
    return production, loss, F_glucose


def _relax(z: Array) -> Array:
    """(1 - exp(-z)) / z, one at zero."""
    small = jnp.abs(z) < 1e-5
    safe = jnp.where(small, 1.0, z)
    return jnp.where(small, 1.0 - 0.5 * z, -jnp.expm1(-safe) / safe)


def advance_interval(
    reactor: Reactor,
    c: Float[Array, " 10"],
    controls: Float[Array, " 6"],
    dt_h: ArrayLike,
    *,
    volume_L: ArrayLike,
    fractions: Sequence[float] = GRID,
) -> tuple[Float[Array, " 10"], Array]:
    """Advance one state over an interval; pure, differentiable to any order.

    Args:
        reactor: Cells and vessel, perfusion at constant volume.
        c: Concentrations in `PLANT_SPECIES` order; negative ones count as zero.
        controls: Set-points in `CONTROL_NAMES` order.
        dt_h: Length of the interval [h].
        volume_L: Working volume [L].
        fractions: Step lengths as parts of the interval; they sum to one.

    Returns:
        Concentrations at the end, and the concentrated glucose fed [L].
    """
    volume = jnp.asarray(volume_L, c.dtype)
    inputs = day_inputs(reactor, controls, volume)
    steps = jnp.asarray(dt_h, c.dtype) * jnp.asarray(fractions, c.dtype)

    def solve(start: Columns, production: Columns, loss: Columns, h: Array) -> Columns:
        return tuple(
            y * jnp.exp(-rate * h) + made * h * _relax(rate * h)
            for y, made, rate in zip(start, production, loss, strict=True)
        )

    def mean(a: Columns, b: Columns) -> Columns:
        return tuple(0.5 * (x + y) for x, y in zip(a, b, strict=True))

    # A loop, not an unrolled chain: XLA fuses a chain of steps into one kernel that computes
    # every step again for each of its readers, and takes minutes to compile it.
    def step(carry: tuple[Columns, Array], h: Array) -> tuple[tuple[Columns, Array], None]:
        start, fed = carry
        made, lost, pumped = production_and_loss(reactor, inputs, start)
        first = solve(start, made, lost, h)
        made_after, lost_after, pumped_after = production_and_loss(reactor, inputs, first)
        end = solve(start, mean(made, made_after), mean(lost, lost_after), h)
        return (end, fed + 0.5 * h * (pumped + pumped_after) * volume), None

    begin = tuple(jnp.maximum(c[k], 0.0) for k in range(N_PLANT))
    (end, fed), _ = jax.lax.scan(step, (begin, jnp.zeros_like(begin[0])), steps)
    return jnp.stack(end), fed
