"""What a decision weighs beside the targets."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from perfusio_jax._core import Array, Float


def _scalar(value: Any) -> Array:
    return jnp.asarray(value, float)


class Preferences(eqx.Module):
    """What a decision weighs beside the targets; all traced."""

    exploration: Float[Array, ""] = eqx.field(converter=_scalar, default=0.1)
    """Share of the spread between paths the acquisition sees [-], 0 to 1."""
    move_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=1e-3)
    """Cost of moving one control across its range, in scaled score [-]: 1e-3 is a target
    missed by 3 % on one day."""
    soft_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=10.0)
    """Cost of crossing a soft bound by a whole range, in scaled score [-]."""
    feasibility_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=1e-2)
    """Scaled score per unit of log feasibility of the chance constraint [-]."""
    beta: Float[Array, ""] = eqx.field(converter=_scalar, default=0.2)
    """Weight of exploration of UCB kinds [-]."""
    ref_point: Float[Array, "m"] | None = eqx.field(
        converter=lambda v: None if v is None else _scalar(v), default=None
    )
    """Reference point of the hypervolume kinds, one scaled score per target [-]: -0.01 is a target
    missed by 10 % on one day. By default a tenth worse than the worst known value."""
