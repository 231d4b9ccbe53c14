"""One interval of the consortium, whether glucose lasts or runs out.

Once glucose is gone the right-hand side has a rate constant near mu_max Y b / k_s, about
6e5 1/h, while everything that matters moves within hours. Three facts make this cheap:

1. S = s + sum_i Y_i b_i obeys dS/dt = D (s_in - S) exactly. Glucose need not be integrated.
2. For a given course of the saturation theta = s / (s + k_s) in a substep, the strains decouple
   into one scalar equation each, which is not stiff.
3. There are two regimes. While glucose is plentiful theta is one but for k_s times the mean of
   1/s. Once it is gone, s sits where supply meets demand, and the mean of theta follows from S.

A substep guesses theta, carries each strain over it by a Runge-Kutta step of order four,
corrects theta by the balance of S, and does so once more. Each lane shortens a substep that
would cross from one regime to the other, so that crossings fall between substeps; their number
is fixed, so thousands of lanes run in step, and reverse mode passes through a plain scan. The
lengths are differentiated too, so a derivative is that of the scheme, ends of glucose included.
"""

from collections.abc import Callable
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax.rl.consortium import Consortium, induction

GRID: Final[tuple[float, ...]] = (0.005, 0.013, 0.03) + (0.94 / 12,) * 12 + (0.012,)
"""Substeps as parts of an interval of about an hour: short after the light has changed, and at
the end, where there is no later substep to leave the other regime to."""
SCARCE: Final = 10.0
"""Glucose below this many half-saturations counts as gone."""
SLOW: Final = 300.0
"""Glucose that rises from below this many half-saturations follows supply and demand: its
saturation, not itself, rises linearly."""


def _logmean(a: Array, b: Array) -> Array:
    """Mean of 1/x between a and b, for positive a and b."""
    x = (b - a) / a
    is_close = jnp.abs(x) < 1e-3
    safe = jnp.where(is_close, 1.0, x)
    series = 1.0 - x * (0.5 - x * (1.0 / 3.0 - 0.25 * x))
    return jnp.where(is_close, series, jnp.log(1.0 + safe) / safe) / a


Pair = tuple[Array, Array]
"""One number per strain. Two lanes of numbers, not one of pairs: those cannot be vectorised."""


def _both(v: Pair) -> Array:
    """Sum over the strains."""
    return v[0] + v[1]


def _pair(v: Array) -> Pair:
    """Both strains' numbers from an array of two."""
    return v[0], v[1]


def _each(function: Callable[..., Array], *pairs: Pair) -> Pair:
    """A function of each strain's numbers."""
    first, second = (function(*numbers) for numbers in zip(*pairs, strict=True))
    return first, second


def _strain(
    amino: Array,
    made: Array,
    decay: Array,
    rate: tuple[Array, Array, Array],
    h: Array,
    *,
    is_final: bool,
) -> tuple[Array, Array]:
    """Amino acids (in half-saturations) and growth exponents after a substep.

    `rate` is mu_max theta at the start, the middle and the end. Right after the light is turned
    on the amino acid rises faster than any grid: the growth exponent is Simpson's, plus what
    Simpson's rule misses where the amino acid rises linearly.
    """

    def slope(a: Array, m: Array) -> tuple[Array, Array]:
        mu = m * (a / (1.0 + a))
        return made - (decay + mu) * a, mu

    start, middle, end = rate
    k1, p1 = slope(amino, start)
    k2, p2 = slope(amino + 0.5 * h * k1, middle)
    k3, p3 = slope(amino + 0.5 * h * k2, middle)
    k4, p4 = slope(amino + h * k3, end)
    after = amino + h / 6.0 * (k1 + 2.0 * (k2 + k3) + k4)
    exponent = h / 6.0 * (p1 + 2.0 * (p2 + p3) + p4)
    if not is_final:
        return after, exponent
    ends, centre = (1.0 + amino, 1.0 + after), 2.0 / (2.0 + amino + after)
    simpson = (1.0 / ends[0] + 4.0 * centre + 1.0 / ends[1]) / 6.0
    return after, exponent - h * middle * (_logmean(*ends) - simpson)


def advance(
    plant: Consortium,
    x: Float[Array, " 5"],
    light: Float[Array, " 2"],
    dt_h: ArrayLike = 1.0,
    *,
    grid: tuple[float, ...] = GRID,
) -> Float[Array, " 5"]:
    """State after an interval of constant light; pure, differentiable, one example.

    Args:
        plant: Constants.
        x: Glucose [mmol/L], biomasses [g/L], amino acids [mmol/L of cell]; none negative.
        light: Blue and red intensity [W/m^2].
        dt_h: Length [h]. The default grid is meant for about an hour.
        grid: Substeps as parts of the interval; they sum to one.

    Returns:
        State at the end. `substrate_equivalents` is exact to rounding.
    """
    parts = np.asarray(grid, float)
    share = jnp.asarray(parts / np.cumsum(parts[::-1])[::-1], x.dtype)
    is_last = jnp.arange(len(grid)) == len(grid) - 1
    mu_max, k_s, dilution, feed = (
        plant.max_growth,
        plant.half_saturation,
        plant.dilution,
        plant.feed,
    )
    k_a, decay, cost = (
        plant.amino_half_saturation,
        _pair(plant.degradation),
        plant.uptake_per_biomass,
    )
    made = _pair(plant.conversion * plant.synthesis * induction(plant, light) / k_a)
    supply_top = dilution * feed
    dt = jnp.asarray(dt_h, x.dtype)
    tiny = jnp.asarray(1e-30, x.dtype)

    # b and a hold both strains; b is biomass times its cost, in units of glucose
    def substep(carry: tuple, inputs: tuple[Array, Array]) -> tuple[tuple, None]:
        s, b, a, left = carry
        part, last = inputs
        h = part * left
        f = _each(lambda a: a / (1.0 + a), a)
        demand = mu_max * _both(_each(lambda f, b: f * b, f, b))
        supply = dilution * (feed - s)
        ratio = supply / jnp.maximum(demand, tiny)
        is_rich = s > SCARCE * k_s
        is_starved = ~is_rich & (supply < demand)
        # the time at which the regime changes, by the first two derivatives
        m = mu_max * jnp.where(is_starved, ratio, 1.0)

        def turn(a: Array, b: Array, f: Array, made: Array, decay: Array) -> Array:
            rest = 1.0 - f
            return b * ((made - (decay + m * f) * a) * rest * rest + f * (m * f - dilution))

        rise = mu_max * _both(_each(turn, a, b, f, made, decay))
        gap = demand * jnp.where(is_rich, s / (s + k_s), 1.0) - supply
        below = gap * gap + 2.0 * rise * s
        # roots and quotients are of safe numbers where they do not count: derivatives pass here
        reach = gap + jnp.sqrt(jnp.where(below > 0.0, below, 1.0))
        is_out = is_rich & (below > 0.0) & (reach > 0.0)
        out = 2.0 * s / jnp.where(is_out, reach, 1.0)
        is_back = is_starved & (rise < 0.0)
        back = gap / jnp.where(is_back, -rise, 1.0)
        event = jnp.where(is_out, out, jnp.where(is_back, back, 2.0 * dt))
        event = jnp.clip(event, 1e-6 * dt, 2.0 * dt)
        h = jnp.where(last, h, jnp.minimum(h, event))
        until = jnp.where(is_rich, jnp.minimum(event / jnp.maximum(h, tiny), 1.0), 0.0)
        theta = until + (1.0 - until) * jnp.where(
            is_rich | is_starved, jnp.minimum(ratio, 1.0), 1.0
        )

        fade = jnp.exp(-dilution * h)
        total = feed + (s + _both(b) - feed) * fade
        tilt = jnp.zeros_like(theta)
        amino, bound, after, ends_scarce = a, b, s, is_starved
        for is_final in (False, True):
            middle, half = mu_max * theta, 0.5 * mu_max * tilt
            rates = (middle - half, middle, middle + half)
            first, second = (
                _strain(*strain, rates, h, is_final=is_final)
                for strain in zip(a, made, decay, strict=True)
            )
            amino, exponent = zip(first, second, strict=True)
            per_theta = exponent[0] / theta, exponent[1] / theta
            bound = _each(lambda b, e: b * (fade * jnp.exp(e)), b, exponent)
            # less biomass than this needs no correction, and would blow up its derivative
            slope = jnp.maximum(_both(_each(lambda p, b: p * b, per_theta, bound)), 1e-9 * feed)
            rest = total - _both(bound)
            # rich: theta = 1 - k_s x mean of 1/(s + k_s); what is left if it were one
            plain = rest - slope * (1.0 - theta)
            lack = slope * k_s
            rough = 0.5 * ((plain - k_s) + jnp.sqrt((plain + k_s) ** 2 + 4.0 * lack))
            margin = 1e-6 * (rough + k_s)
            rises = is_rich & (rough > s + margin)
            is_wide = (s > rough + margin) | rises
            top, low = jnp.where(is_wide, s, rough + k_s) + k_s, rough + k_s
            mean = _logmean(low, top)
            bend = (mean - 1.0 / low) / (top - low)
            is_slow = rises & (s < SLOW * k_s)
            mean = jnp.where(is_slow, 0.5 / low + 0.5 / top, mean)
            bend = jnp.where(is_slow, -0.5 / (low * low), bend)
            fine = rough - (rough - plain - lack * mean) / (1.0 - lack * bend)
            rich = jnp.where(is_wide, fine, rough)
            # starved: supply meets demand
            wanted = mu_max * _both(_each(lambda a, b: a / (1.0 + a) * b, amino, bound))
            scarce = jnp.where(
                wanted > supply_top,
                k_s * supply_top / jnp.maximum(wanted - supply_top, 1e-6 * supply_top),
                0.0,
            )
            scarce = jnp.minimum(scarce, jnp.maximum(s, SCARCE * k_s))
            ends_scarce = scarce > rich
            after = jnp.where(ends_scarce, scarce, rich)
            better = theta + (rest - after) / slope
            tilt = jnp.where(
                is_starved & ends_scarce, supply_top / jnp.maximum(wanted, tiny) - ratio, 0.0
            )
            if is_final:
                # where glucose lasts, not a small difference of large numbers: single precision
                is_lasting = jnp.minimum(s, after) ** 2 > lack
                is_plenty = ~ends_scarce & is_lasting
                ends = s + k_s, jnp.where(is_plenty, after, s) + k_s
                straight = 1.0 - k_s * _logmean(*ends)
                change = jnp.where(is_plenty, straight, better) - theta
                bound = (
                    bound[0] * jnp.exp(per_theta[0] * change),
                    bound[1] * jnp.exp(per_theta[1] * change),
                )
            theta = jnp.maximum(better, 1e-6)
        after = jnp.where(ends_scarce, after, jnp.maximum(total - _both(bound), 0.0))
        # where glucose was set, biomass takes up the rest; elsewhere it has by construction
        is_set = ends_scarce | (after == 0.0)
        exact = jnp.where(is_set, (total - after) / jnp.maximum(_both(bound), tiny), 1.0)
        return (after, _each(lambda b: b * exact, bound), amino, left - h), None

    begun = (x[0], _pair(x[1:3] * cost), _pair(x[3:] / k_a), dt)
    # reverse mode keeps what is between substeps and does each again: a third of the time
    again = jax.checkpoint(substep, prevent_cse=False)
    (s, b, a, _), _ = jax.lax.scan(again, begun, (share, is_last))
    return jnp.concatenate([s[None], jnp.stack(b) / cost, jnp.stack(a) * k_a])
