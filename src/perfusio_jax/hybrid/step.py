"""One interval of the model for a batch of states, and the rows its process reads."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import HOURS_PER_DAY, Scalar
from perfusio_jax.hybrid.calibration import shifted
from perfusio_jax.hybrid.drawn import with_kinetics
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.transition import StepInfo, apply_residual, flat_prior, prior_step


def parts_of(model: Any, hours: float = HOURS_PER_DAY) -> int:
    """Steps in which a roll-out of this model takes some hours: as long as those it learned from.

    What the process adds is a mean over the interval between two samples, from the state at its
    start. Over a longer step it would be the mean of another time; so a model of samples 12 h
    apart takes a day in two steps. One of samples more than a day apart takes it in one.

    Args:
        model: Hybrid model, outside of jit; another one takes whatever it is given as one step.
        hours: What the steps are to fill [h].

    Returns:
        The number, at least 1.
    """
    return max(1, round(hours / float(getattr(model, "dt_hours", hours))))


def step_batch(
    model: HybridStateSpaceModel,
    states: Float[Array, "S 9"],
    controls: Float[Array, "S 6"],
    day: Scalar,
    residual: Any,
    dt_h: Scalar,
    shifts: Float[Array, "S P"] | None = None,
    own: Any = None,
) -> tuple[Float[Array, "S 9"], Float[Array, " S"], StepInfo]:
    """One interval for a batch of states.

    Args:
        model: Hybrid model.
        states: Balanced states, not negative.
        controls: Set-points per state.
        day: Culture day at the start [d].
        residual: Function of the GP inputs (S, 16) giving residuals (S, 9), or an array.
        dt_h: Length [h].
        shifts: What each state's mechanism has other constants by, or None.
        own: Mechanism of each state, every array of it with a leading axis; the model's if None.

    Returns:
        Next states, concentrate fed [L], limits.
    """
    mech = model.mech_model
    if not model.use_mechanism:
        cells = model.layout.cells
        prior = jax.vmap(lambda c: flat_prior(c, cells))(states)
    elif own is not None:
        prior = jax.vmap(lambda c, u, k: prior_step(with_kinetics(mech, k), c, u, dt_h))(
            states, controls, own
        )
    elif shifts is None:
        prior = jax.vmap(lambda c, u: prior_step(mech, c, u, dt_h))(states, controls)
    else:
        prior = jax.vmap(lambda c, u, d: prior_step(shifted(mech, d), c, u, dt_h))(
            states, controls, shifts
        )
    value: Any = (
        residual(gp_inputs(model, states, controls, day)) if callable(residual) else residual
    )
    if model.layout.latent:  # nobody could have learned anything of them
        value = jnp.where(model.layout.is_seen[None, :], value, 0.0)

    def finish(c: Array, u: Array, p: Any, r: Array, kinetics: Any) -> Any:
        mine: Any = with_kinetics(mech, kinetics)
        return apply_residual(mine, model.basis, model.limits, c, u, p, r, dt_h)

    return jax.vmap(finish)(states, controls, prior, value, own)


def gp_inputs(
    model: HybridStateSpaceModel,
    states: Float[Array, "S 9"],
    controls: Float[Array, "S 6"],
    day: Scalar,
) -> Float[Array, "S D"]:
    """Rows of the GP: `[c, u, day]`, or `[c, u, clone, day]` if the model holds clones."""
    ends = [day] if model.embedding is None else [model.clone, day]
    columns = [jnp.broadcast_to(jnp.asarray(v, states.dtype), states.shape[:1]) for v in ends]
    return jnp.concatenate([states, controls, jnp.stack(columns, axis=1)], axis=1)
