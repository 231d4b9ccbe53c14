"""One reactor: cells, medium, pump and vessel."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError
from perfusio_jax.chemistry import GlucosePump as GlucosePump
from perfusio_jax.chemistry import Medium
from perfusio_jax.mechanistic.kinetics import CHOKinetics
from perfusio_jax.mechanistic.vector_field import Mode, PerfusionMode, default_sieving


def _leaf(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class Reactor(eqx.Module):
    """Cells, medium, pump and vessel: everything but set-points and state."""

    kinetics: CHOKinetics = eqx.field(default_factory=CHOKinetics)
    """Constants of the clone."""
    medium: Medium = eqx.field(default_factory=Medium)
    """Perfusion medium (in fed-batch: the continuous feed) and glucose concentrate."""
    pump: GlucosePump = eqx.field(default_factory=GlucosePump)
    """Glucose control loop."""
    sieving: Float[Array, " 10"] = eqx.field(converter=_leaf, default_factory=default_sieving)
    """Part of each species of `PLANT_SPECIES` that passes the filter [-]."""
    fouling_rate: Array = eqx.field(converter=_leaf, default=0.0)
    """Exponential decay of the product's sieving with time [1/h]."""
    mode: Mode = eqx.field(static=True, default="perfusion")
    """`perfusion`: harvest keeps the volume; `chemostat`: bleed keeps it, nothing is retained;
    `fed_batch`: nothing leaves between samples and the volume grows."""
    perfusion_mode: PerfusionMode = eqx.field(static=True, default="vvd")
    """`vvd`: first control in vessel volumes per day; `cspr`: in pL/cell/d, and the bleed gives
    way while the cells are too few for the inflow to cover it."""

    def __check_init__(self) -> None:
        """Refuse unknown modes."""
        if self.mode not in ("perfusion", "chemostat", "fed_batch"):
            raise ConfigError(
                f"reactor mode {self.mode!r} is unknown; choose perfusion, chemostat or fed_batch."
            )
        if self.perfusion_mode not in ("vvd", "cspr"):
            raise ConfigError(
                f"perfusion_mode {self.perfusion_mode!r} is unknown; choose vvd or cspr."
            )

    @property
    def constant_volume(self) -> bool:
        """Whether the vector field leaves the volume alone."""
        return self.mode != "fed_batch"
