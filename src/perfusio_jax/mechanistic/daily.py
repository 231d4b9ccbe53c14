"""One interval ahead, cheaply: the integrator inside roll-outs and filters.

The mechanistic prior is evaluated for every path of every candidate of every decision, and
differentiated. A linearly implicit step with its Jacobian is accurate but large: it takes XLA
a minute to compile its gradient. Here every species is written as production minus loss,

    dc/dt = P(c) - L(c) c,

and a step solves this exactly with P and L frozen, twice: over half of it with those of its
start, then over all of it with those of that midpoint. The scheme is of second order, keeps
positive what is positive, and takes stiff losses (an exhausted substrate, the glucose pump, the
lactate switch) in its stride.

Reference:
    Exponential midpoint rule; Burchard, Deleersnijder and Meister (2003) for the idea of
    production and loss.
"""

import functools
from collections.abc import Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import CONTROL_NAMES, ConfigError, expect_last, float_array
from perfusio_jax.mechanistic.reactor import Reactor
from perfusio_jax.mechanistic.vector_field import N_PLANT, PLANT_SPECIES, DayInputs, day_inputs

Columns = tuple[Array, ...]

_N_STEPS, _RATIO = 18, 1.06

GRID: Final[tuple[float, ...]] = tuple(
    (_RATIO - 1.0) * _RATIO**k / (_RATIO**_N_STEPS - 1.0) for k in range(_N_STEPS)
)
"""Steps as parts of the interval, each 6 % longer than the one before: levels change fastest
after the set-points have."""


def production_and_loss(
    reactor: Reactor, inputs: DayInputs, c: Columns
) -> tuple[Columns, Columns, Array]:
    """Split the balance of each species at constant volume.

    Args:
        reactor: Cells and vessel, perfusion or chemostat.
        inputs: Constants of the interval.
        c: Ten concentrations in `PLANT_SPECIES` order, none negative.

    Returns:
        Production [conc/h], loss rate [1/h], and the flow of the glucose concentrate [L/h/L].
        Production minus loss times concentration is the balance itself.

    Raises:
        ConfigError: If the reactor is a fed-batch: its volume is not constant.
    """
    if not reactor.constant_volume:
        raise ConfigError(
            f"one interval on the fixed grid is for constant volume; a reactor in mode "
            f"{reactor.mode!r} grows. Use make_plan with integrate (traced) or simulate."
        )
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
    if reactor.mode == "chemostat":  # everything leaves with the broth
        bleed = D + F_glucose
    elif reactor.perfusion_mode == "cspr":
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


def _middle_h(reactor: Reactor, start_h: ArrayLike | None, dt_h: Array) -> Array:
    """Process time in the middle of the interval [h]; NaN where it matters and nobody said it."""
    if start_h is not None:
        return jnp.asarray(start_h, dt_h.dtype) + 0.5 * dt_h
    rate = reactor.fouling_rate
    if not isinstance(rate, Tracer) and np.any(np.asarray(rate) != 0):
        raise ConfigError(
            f"the filter fouls (fouling_rate {rate} 1/h), so what passes it depends on the time of "
            "the run: give start_h, the hours since inoculation at the start of the interval."
        )
    # A traced rate cannot be looked at; the product of a filter that fouls is then NaN.
    return jnp.where(rate == 0, 0.0, jnp.nan).astype(dt_h.dtype)


def advance_interval(
    reactor: Reactor,
    c: Float[Array, " 10"],
    controls: Float[Array, " 6"],
    dt_h: ArrayLike,
    *,
    volume_L: ArrayLike,
    start_h: ArrayLike | None = None,
    fractions: Sequence[float] = GRID,
) -> tuple[Float[Array, " 10"], Array]:
    """Advance one state over an interval; pure, differentiable to any order.

    Args:
        reactor: Cells and vessel; perfusion or chemostat, in vvd or per cell.
        c: Concentrations in `PLANT_SPECIES` order; negative ones count as zero.
        controls: Set-points in `CONTROL_NAMES` order.
        dt_h: Length of the interval [h].
        volume_L: Working volume [L].
        start_h: Hours since inoculation at its start [h]; needed where the filter fouls, which
            is taken as in the middle of the interval, as `make_plan` does.
        fractions: Step lengths as parts of the interval; they sum to one.

    Returns:
        Concentrations at the end, in the precision of `c`, and the concentrated glucose fed [L].

    Raises:
        ConfigError: If shapes do not fit, the reactor is a fed-batch, or the filter fouls and
            `start_h` is missing.
    """
    c, controls = float_array(c), float_array(controls)
    expect_last(c, PLANT_SPECIES, "c", rank=1)
    expect_last(controls, CONTROL_NAMES, "controls", rank=1)
    dtype = jnp.result_type(c.dtype, controls.dtype, reactor.kinetics.mu_max.dtype)
    length = jnp.asarray(dt_h, dtype)
    volume = jnp.asarray(volume_L, dtype)
    middle = jnp.asarray(_middle_h(reactor, start_h, length))
    interval = (length, volume, middle)
    parts = tuple(map(float, fractions))
    end, fed = _advance(reactor, c, controls.astype(dtype), interval, parts)
    return end.astype(c.dtype), fed.astype(c.dtype)


# Compiled for itself, so that the many programs an interval is part of trace it once between them;
# the compiler takes it into each of them whole.
@functools.partial(jax.jit, static_argnums=4)
def _advance(
    reactor: Reactor,
    c: Array,
    controls: Array,
    interval: tuple[Array, Array, Array],
    fractions: tuple[float, ...],
) -> tuple[Array, Array]:
    length, volume, middle = interval
    dtype = length.dtype
    inputs = day_inputs(reactor, controls, volume, middle)
    steps = length * jnp.asarray(fractions, dtype)

    def solve(start: Columns, production: Columns, loss: Columns, h: Array) -> Columns:
        return tuple(
            y * jnp.exp(-rate * h) + made * h * _relax(rate * h)
            for y, made, rate in zip(start, production, loss, strict=True)
        )

    # A loop, not an unrolled chain: XLA fuses a chain of steps into one kernel that computes
    # every step again for each of its readers, and takes minutes to compile it. Both halves of a
    # step are one pass each, so that the program holds the balances once: half of it to trace, to
    # differentiate and to compile.
    def one_half(carry: tuple[Columns, Columns, Array], x: tuple[Array, Array, Array]) -> Any:
        start, point, fed = carry
        h, pumping_h, ends = x
        made, lost, pumped = production_and_loss(reactor, inputs, point)
        reached = solve(start, made, lost, h)
        start = tuple(jnp.where(ends, r, s) for r, s in zip(reached, start, strict=True))
        return (start, reached, fed + pumping_h * pumped * volume), None

    begin = tuple(jnp.maximum(c[k].astype(dtype), 0.0) for k in range(N_PLANT))
    is_end = np.tile([False, True], len(fractions))
    lengths = jnp.repeat(steps, 2, total_repeat_length=is_end.size)
    whole, part = (jnp.asarray(np.where(is_end, 1.0, rest), dtype) for rest in (0.0, 0.5))
    halves = (lengths * part, lengths * whole, jnp.asarray(is_end))
    # A gradient computes each pass again instead of keeping what was in it: less to write and read.
    one_half = jax.checkpoint(one_half, prevent_cse=False)
    (end, _, fed), _ = jax.lax.scan(one_half, (begin, begin, jnp.zeros((), dtype)), halves)
    return jnp.stack(end), fed
