"""Runs of a described culture side by side: an interval of all of them, and what is read of it.

Their starts and the keys of their noise are those of `side_by_side.started_runs`.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from perfusio_jax._core import Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.mechanistic import Mechanism

from .pumping import flow_rates, pumps_of
from .virtual_plant import VirtualPlant
from .virtual_runs import readings_of_states, with_noise

_ULPS = 8.0
"""How far below what a vessel can have a flow is held, for rounding [units in the last place]."""


class Later(NamedTuple):
    """Runs an interval later."""

    states: Float[Array, "L n"]
    """Concentrations and levels; NaN where a run has failed."""
    volumes_L: Float[Array, " L"]
    """Volumes [L]."""
    result: Int[Array, " L"]
    """Result codes."""
    is_held: Bool[Array, " L"]
    """Whether a flow had to be held."""


def within_balance(
    plant: VirtualPlant, state: Float[Array, " n"], volume_L: Scalar, controls: Float[Array, " M"]
) -> tuple[Float[Array, " M"], Bool[Array, ""]]:
    """Set-points with which the stream that keeps the volume does not run backwards.

    What flows beside that stream is lowered, each control by the same part, to what comes the
    other way. Pumps that hold a target are left out: they take what is to spare.

    Args:
        plant: The plant.
        state: Concentrations and levels, by which a flow per cell is known.
        volume_L: Volume [L].
        controls: Set-points as they are asked for.

    Returns:
        Set-points, and whether any was lowered; as they are where no stream keeps the volume.
    """
    process = plant.process
    closing = process.closing
    if closing is None:
        return controls, jnp.asarray(False)
    nothing = {stream.name: jnp.zeros_like(volume_L) for stream in pumps_of(process)}
    biomass = None if process.biomass is None else state[plant.states.index(process.biomass)]
    flows = flow_rates(process, controls, volume_L, nothing, biomass)
    against, along = jnp.zeros_like(volume_L), jnp.zeros_like(volume_L)
    lowered = []
    for k, stream in enumerate(process.streams):
        if stream == closing:
            continue
        if stream.direction != closing.direction:
            against = against + flows[k]
            continue
        along = along + flows[k]
        if process.control(stream.flow).role == "flow":
            lowered.append(process.control_names.index(stream.flow))
    is_held = along > against
    part = against / jnp.where(is_held, along, 1.0) * (1.0 - _ULPS * jnp.finfo(along.dtype).eps)
    factor = jnp.where(is_held, part, 1.0)
    return controls.at[jnp.asarray(lowered, int)].multiply(factor), is_held


@compiled
def interval_later(
    plant: VirtualPlant,
    mechanisms: Mechanism,
    now: tuple[Float[Array, "L n"], Float[Array, " L"]],
    controls: Float[Array, "L M"],
    length_h: Scalar,
) -> Later:
    """Runs an interval later, boluses first.

    Args:
        plant: The plant; every run has it, but for its mechanism.
        mechanisms: That of each run, an axis of runs in front of every array.
        now: Concentrations and levels, and volumes [L], at the start of the interval.
        controls: Set-points as they are asked for; what cannot flow is held.
        length_h: Length [h].
    """

    def one(mechanism: Mechanism, state: Array, volume: Array, u: Array) -> Later:
        own = eqx.tree_at(lambda p: p.mechanism, plant, mechanism)
        given, is_held = within_balance(own, state, volume, u)
        end = own.advance(state, volume, given, length_h)
        return Later(end.state, end.volume_L, end.result, is_held)

    return eqx.filter_vmap(one)(mechanisms, *now, controls)


@compiled
def read_vessels(
    plant: VirtualPlant, states: Float[Array, "L n"], keys: Array
) -> tuple[Float[Array, "L R"], Float[Array, "L R"]]:
    """Truth, and what is read of it, in the order of the process's readings.

    Args:
        plant: The plant.
        states: Concentrations and levels.
        keys: A key for each run.
    """
    truth = readings_of_states(plant.process, plant.states, states)
    noisy = jax.vmap(lambda row, key: with_noise(plant.process, row, key=key))(truth, keys)
    return truth, noisy
