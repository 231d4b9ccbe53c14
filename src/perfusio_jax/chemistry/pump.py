"""The glucose control loop: how much concentrate a pump gives at a glucose level."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from perfusio_jax._core.glucose import LARGEST_FLUX


def _leaf(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class GlucosePump(eqx.Module):
    """Concentrated glucose feed under proportional control with a limit.

    The flux is `gain * (set-point - glucose)`, rounded at both ends so that it differentiates,
    and never below zero nor above `limit`.
    """

    gain: Array = eqx.field(converter=_leaf, default=2.0)
    """Flux per g/L of deviation [1/h]."""
    limit: Array = eqx.field(converter=_leaf, default=LARGEST_FLUX)
    """Largest flux the pump gives [g/L/h]."""
    rounding: Array = eqx.field(converter=_leaf, default=0.02)
    """Width of the rounded corners [g/L/h], above zero."""

    def flux(self, glucose: ArrayLike, setpoint: ArrayLike) -> Array:
        """Glucose supplied per reactor volume [g/L/h].

        Args:
            glucose: Concentration in the reactor [g/L].
            setpoint: Set-point [g/L].
        """
        demand = self.gain * (jnp.asarray(setpoint) - glucose)
        return self._ramp(demand) - self._ramp(demand - self.limit)

    def _ramp(self, z: Array) -> Array:
        return 0.5 * (z + jnp.sqrt(z * z + self.rounding * self.rounding))
