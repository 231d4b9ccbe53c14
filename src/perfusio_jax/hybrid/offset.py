"""What a run keeps showing beyond its model: an offset of the rates that stays.

A vessel differs from those the model was fitted to, and the difference stays from interval to
interval, while the model takes what it leaves open as new in each. Forecasts that begin anew from
every sample would then miss the same way every time. The offset is the mean of what the smoother
found beyond the model's own mean over the last intervals, drawn to zero where there are few.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid.assimilate import RunBeliefs
from perfusio_jax.hybrid.disturbance import mean_residual
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.paths import Paths
from perfusio_jax.hybrid.step import gp_inputs

INTERVALS = 6
"""Intervals it is the mean of."""
_DOUBT = 1.0
"""Intervals without any offset that are reckoned among them: it is believed to be about as large
as what an interval brings anew."""


@compiled
def run_offset(
    model: HybridStateSpaceModel,
    beliefs: RunBeliefs,
    controls: Float[Array, "T M"],
    n_rows: Int[Array, ""],
) -> Float[Array, " K"]:
    """Offset of a run's rates from its model.

    Args:
        model: Hybrid model.
        beliefs: Of the run, padded.
        controls: Control columns of every row, padded.
        n_rows: Rows that are of the run.

    Returns:
        Offset [residual units]; zero for states nobody measures.
    """

    def learned(row: tuple[Array, Array, Array]) -> Array:
        particles, control, day = row
        many = jnp.broadcast_to(control[None, :], (particles.shape[0], control.shape[0]))
        return jnp.mean(mean_residual(model, gp_inputs(model, particles, many, day)), axis=0)

    known = jax.lax.map(learned, (beliefs.smoothed[:-1], controls[:-1], beliefs.days[:-1]))
    beyond = jnp.mean(beliefs.residuals, axis=1) - known
    place = jnp.arange(beyond.shape[0])
    counts = (place < n_rows - 1) & (place >= n_rows - 1 - INTERVALS)
    total = jnp.sum(jnp.where(counts[:, None], beyond, 0.0), axis=0)
    found = total / (jnp.sum(counts) + _DOUBT)
    return jnp.where(jnp.asarray(model.layout.is_seen), found, 0.0)


@compiled
def offset_paths(
    model: HybridStateSpaceModel,
    paths: Paths,
    offset: Float[Array, " K"] | Float[Array, "S K"],
    hours: Float[Array, " H"],
) -> Paths:
    """Draws whose roll-outs have the offset in every step.

    Args:
        model: Hybrid model.
        paths: Draws.
        offset: Of `run_offset`, or one for each path.
        hours: Length of each step [h]; steps beyond have that of the last one.

    Returns:
        The draws; where the model leaves nothing open they stay as they are.
    """
    steps = paths.process.shape[1]
    more = jnp.broadcast_to(hours[-1:], (max(steps - hours.shape[0], 0),))
    lengths = jnp.concatenate([hours, more])[:steps]
    share = jnp.sqrt(model.dt_hours / lengths)
    is_open = model.process_sd > 0.0
    unit = jnp.where(is_open, model.process_sd, 1.0)
    each = offset[None, :] if offset.ndim == 1 else offset
    shift = jnp.where(is_open[None, :], each / unit[None, :], 0.0)[:, None, :]
    return dataclasses.replace(paths, process=paths.process + shift / share[None, :, None])
