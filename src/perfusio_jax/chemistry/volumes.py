"""Volume bookkeeping and proportional bleed of a perfusion reactor.

    dV/dt = F_feed - F_bleed - F_harvest

At constant volume the harvest is what the bleed leaves over. Impossible flows raise when
their values are known; inside a transformation (`jit`, `vmap`, `grad`), where they are
not, the formula is evaluated as it stands.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, SimulationError

Flow = float | Float[Array, "..."]


def is_concrete(*values: object) -> bool:
    """Whether all values can be looked at, i.e. none is traced."""
    return not any(isinstance(v, Tracer) for v in values)


def as_float(value: Flow) -> Array:
    """An array that keeps its floating type; integers become floats."""
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def constant_volume_harvest_rate(
    perfusion_rate_L_per_h: Flow, bleed_rate_L_per_h: Flow
) -> Float[Array, "..."]:
    """Harvest rate [L/h] that keeps the volume constant.

    Args:
        perfusion_rate_L_per_h: Everything that flows in [L/h].
        bleed_rate_L_per_h: Bleed [L/h].

    Raises:
        ConfigError: (a ValueError) if the bleed exceeds the inflow.

    Examples:
        >>> F_h = constant_volume_harvest_rate(0.250 / 24, 0.250 * 0.15 / 24)
        >>> round(float(F_h / (0.250 / 24)), 4)
        0.85
    """
    if is_concrete(perfusion_rate_L_per_h, bleed_rate_L_per_h) and np.any(
        np.asarray(bleed_rate_L_per_h) > np.asarray(perfusion_rate_L_per_h)
    ):
        raise ConfigError(
            f"bleed {bleed_rate_L_per_h} L/h exceeds the inflow {perfusion_rate_L_per_h} L/h; "
            "at constant volume the bleed can be at most the perfusion rate."
        )
    return as_float(perfusion_rate_L_per_h) - as_float(bleed_rate_L_per_h)


def perfusion_volume_step(
    V_t: Flow,
    F_feed_L_per_h: Flow,
    F_bleed_L_per_h: Flow,
    F_harvest_L_per_h: Flow,
    dt_hours: Flow = 24.0,
) -> Float[Array, "..."]:
    """Volume [L] after `dt_hours` of constant flows.

    Args:
        V_t: Volume now [L].
        F_feed_L_per_h: Everything that flows in [L/h].
        F_bleed_L_per_h: Bleed [L/h].
        F_harvest_L_per_h: Harvest [L/h].
        dt_hours: Length of the step [h].

    Raises:
        SimulationError: (a RuntimeError) if the reactor would run dry.

    Examples:
        >>> V = perfusion_volume_step(0.250, 0.250 / 24, 0.250 * 0.15 / 24, 0.250 * 0.85 / 24)
        >>> abs(float(V) - 0.250) < 1e-7
        True
    """
    net = as_float(F_feed_L_per_h) - as_float(F_bleed_L_per_h) - as_float(F_harvest_L_per_h)
    volume = as_float(V_t) + as_float(dt_hours) * net
    if is_concrete(volume) and np.any(np.asarray(volume) < 0.0):
        raise SimulationError(
            f"volume would become {np.min(np.asarray(volume)):.4g} L from {V_t} L in {dt_hours} h; "
            "outflows may not remove more than the reactor holds."
        )
    return volume


def bleed_trigger(
    vcv_current: Flow,
    vcv_setpoint: Flow,
    bleed_rate_base_vvd: Flow,
    bleed_rate_max_vvd: Flow,
    k_bleed: Flow = 0.5,
) -> float | Float[Array, "..."]:
    """Bleed rate [vvd] that answers an excess of cell volume in proportion.

    Args:
        vcv_current: Viable cell volume [%]; a missing reading (NaN) gives NaN.
        vcv_setpoint: Target [%].
        bleed_rate_base_vvd: Rate at and below the target [vvd].
        bleed_rate_max_vvd: Largest rate [vvd].
        k_bleed: Gain [vvd per %].

    Returns:
        Rate within [base, max]: a float for float arguments, else an array.

    Raises:
        ConfigError: If the largest rate is below the base rate.

    Examples:
        >>> round(bleed_trigger(35.0, 30.0, 0.10, 0.40, k_bleed=0.05), 4)
        0.35
    """
    given = (vcv_current, vcv_setpoint, bleed_rate_base_vvd, bleed_rate_max_vvd, k_bleed)
    if is_concrete(bleed_rate_base_vvd, bleed_rate_max_vvd) and np.any(
        np.asarray(bleed_rate_base_vvd) > np.asarray(bleed_rate_max_vvd)
    ):
        raise ConfigError(
            f"bleed_rate_base_vvd={bleed_rate_base_vvd} exceeds "
            f"bleed_rate_max_vvd={bleed_rate_max_vvd}; base must be at most max."
        )
    if all(isinstance(v, (int, float)) for v in given):
        excess = np.maximum(float(vcv_current) - float(vcv_setpoint), 0.0)
        wanted = float(bleed_rate_base_vvd) + float(k_bleed) * excess
        return float(np.minimum(wanted, float(bleed_rate_max_vvd)))
    current, target, base, most, gain = (as_float(v) for v in given)
    wanted = base + gain * jnp.maximum(current - target, 0.0)
    return jnp.minimum(wanted, most)
