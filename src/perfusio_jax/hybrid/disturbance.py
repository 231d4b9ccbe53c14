"""The residual rate in a filter pass: what is learned of it, and how it moves.

It follows `r' = phi r + g(c, u, day) + s e`. With `phi = 0` it is the hybrid model itself (g the
learned residual, s process noise and model uncertainty); with phi near one and g = 0 the
mechanistic model is corrected by a slowly drifting disturbance, which is how a campaign is
read before there is a GP.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import HOURS_PER_DAY, Scalar
from perfusio_jax.hybrid.model import HybridStateSpaceModel


def mean_residual(model: HybridStateSpaceModel, inputs: Float[Array, "S 16"]) -> Array:
    """Posterior mean of the residual [residual units]; zero without a GP."""
    gp = model.gp
    if gp is None or gp.state is None:
        return jnp.zeros((inputs.shape[0], model.layout.n))
    scaled = gp.scaling(inputs)
    cross = gp.kernel.input_matrix(scaled, gp.state.inputs) * gp.state.row_present[None, :]
    return gp.mean_at(inputs) + (cross @ gp.state.weights) * gp.target_scale[None, :]


def step_sd(model: HybridStateSpaceModel) -> Array:
    """Spread of what process and function leave open, over `dt_hours` [residual units]."""
    return jnp.sqrt(model.process_sd**2 + model.function_sd**2)


def process_sd_over(model: HybridStateSpaceModel, hours: Scalar) -> Float[Array, " 9"]:
    """Spread of what neither part explains, as a mean over some hours [residual units].

    Args:
        model: Hybrid model; its `process_sd` is the mean's over one of its steps.
        hours: Length [h]; the variance of a mean of white noise falls with it.

    Returns:
        Standard deviation per species.
    """
    return model.process_sd * jnp.sqrt(model.dt_hours / hours)


class Disturbance(eqx.Module):
    """How the residual moves from interval to interval in a filter pass.

    With a persistence it drifts, and the numbers are those of a day; without one it is white
    in the rates, and they are those of the model's `dt_hours`. Other intervals follow.
    """

    persistence: Scalar
    """Part of the last residual that stays for a day [-]."""
    sd: Float[Array, " 9"]
    """Standard deviation of what is new [residual units]."""

    def over(self, hours: Array, reference: Array) -> tuple[Array, Array]:
        """Part that stays, and factor on `sd`, over intervals [h].

        Args:
            hours: Lengths [h].
            reference: Interval a white residual's `sd` refers to [h].
        """
        turns = hours / HOURS_PER_DAY
        stays = jnp.where(self.persistence > 0.0, jnp.power(self.persistence, turns), 0.0)
        # a drift forgets as much as it takes in, so that its spread is the same at any interval
        drift = (1.0 - stays**2) / jnp.maximum(1.0 - self.persistence**2, 1e-9)
        return stays, jnp.sqrt(jnp.where(self.persistence > 0.0, drift, reference / hours))


def step_law(model: HybridStateSpaceModel) -> Disturbance:
    """The law of a fitted model: what process and function leave open, fresh each interval."""
    return Disturbance(jnp.zeros(()), step_sd(model))
