"""Roll-outs of whole runs under recipes: boluses by the day, a volume that follows the flows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, Scalar
from perfusio_jax.hybrid.layout import VOLUME
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.rollouts import rollout

_SAME = 1e-6
"""Days that two times may lie apart and be the same [d]."""


def recipe_rollout(
    model: HybridStateSpaceModel,
    paths: Any,
    c0: Float[Array, "..."],
    controls: Float[Array, "H M"],
    day0: Scalar,
    *,
    dt_h: Float[ArrayLike, "..."] | None = None,
) -> Float[Array, "S H F"]:
    """`rollout` of a described culture under a recipe.

    A recipe says what is set all the time; a bolus in it is given once a day, at the day's start.
    Where the volume moves, it begins as the process says and follows what flows.

    Args:
        model: Model of a described culture.
        paths: Draws of `draw_paths`.
        c0: Start, (K,) or one per path.
        controls: Control columns of every step; a column of the volume is not read.
        day0: Culture day of the start [d].
        dt_h: Length of each step [h]; a day by default.

    Returns:
        Forecasts after each step, without assay noise.
    """
    hours = jnp.broadcast_to(
        jnp.asarray(HOURS_PER_DAY if dt_h is None else dt_h, float), controls.shape[:1]
    )
    plan = unfolded(model, controls, hours)
    return rollout(model, paths, c0, plan, day0, dt_h=hours)


def held_rollout(
    model: HybridStateSpaceModel,
    paths: Any,
    c0: Float[Array, "..."],
    controls: Float[Array, "H M"],
    day0: Scalar,
    *,
    dt_h: Float[ArrayLike, "..."] | None = None,
) -> Float[Array, "S H F"]:
    """`rollout` of a described culture from now on under set-points that are held.

    A bolus is given once, at the start. Where the volume moves, it begins as the first row says.

    Args:
        model: Model of a described culture.
        paths: Draws of `draw_paths`.
        c0: State now, (K,) or one per path.
        controls: Control columns of every step.
        day0: Culture day now [d].
        dt_h: Length of each step [h]; a day by default.

    Returns:
        Forecasts after each step, without assay noise.
    """
    hours = jnp.broadcast_to(
        jnp.asarray(HOURS_PER_DAY if dt_h is None else dt_h, float), controls.shape[:1]
    )
    return rollout(model, paths, c0, held(model, controls, hours), day0, dt_h=hours)


def held(
    model: HybridStateSpaceModel, controls: Float[Array, "H M"], hours: Float[Array, " H"]
) -> Float[Array, "H M"]:
    """What acts in every step from now on: boluses in the first one only, and the volume."""
    process = model.layout.process
    if process is None:
        return controls
    is_bolus = _boluses(model)
    if is_bolus.any():
        later = np.arange(controls.shape[0]) > 0
        controls = jnp.where(is_bolus[None, :] & later[:, None], 0.0, controls)
    if VOLUME not in model.layout.controls:
        return controls
    return _with_volume(model, controls, hours, controls[0, -1])


def unfolded(
    model: HybridStateSpaceModel, controls: Float[Array, "H M"], hours: Float[Array, " H"]
) -> Float[Array, "H M"]:
    """What acts in every step of a run under a recipe."""
    layout = model.layout
    process = layout.process
    if process is None:
        return controls
    is_bolus = _boluses(model)
    if is_bolus.any():
        days = (jnp.cumsum(hours) - hours) / HOURS_PER_DAY
        begins = jnp.abs(days - jnp.round(days)) < _SAME
        controls = jnp.where(is_bolus[None, :] & ~begins[:, None], 0.0, controls)
    if VOLUME not in layout.controls:
        return controls
    begin = jnp.asarray(model.mech_model.volume_L, controls.dtype)
    return _with_volume(model, controls, hours, begin)


def _boluses(model: HybridStateSpaceModel) -> np.ndarray:
    """Which control columns are boluses."""
    process = model.layout.process
    controls = () if process is None else process.controls
    return np.asarray([c.role == "bolus" for c in controls] + [False])[: model.layout.m]


def _with_volume(
    model: HybridStateSpaceModel,
    controls: Float[Array, "H M"],
    hours: Float[Array, " H"],
    begin: Scalar,
) -> Float[Array, "H M"]:
    """Controls with the volume at the start of every step, as it follows from what flows."""
    vessel = model.mech_model
    if vessel.tracks_volume:  # the roll-out knows it, path by path
        return controls.at[:, -1].set(begin)

    def body(volume: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        row, length = xs
        row = row.at[-1].set(volume)
        given = vessel.swollen(row)
        _, _, rate = vessel.flows(given)
        return jnp.maximum(given[-1] + rate * length, 0.05 * vessel.volume_L), row

    _, plan = jax.lax.scan(body, begin, (controls, hours))
    return plan
