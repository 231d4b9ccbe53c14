"""Flows of a virtual plant, pump laws included.

A control of role target holds its quantity at a value. Where its stream enters with more of it than
the target, the pump gives, in vessel volumes per time,

    F / V = gain (target - C) / (c - C),        at least 0, at most the largest flow

so that the quantity comes back by `gain` times its deviation, dilution included; where cells take
up q, it settles q / gain below the target. Where its stream
leaves (a bleed that holds the cells), it is `gain (C - target) / C`. A target of zero asks for
nothing. The flow has corners at both limits, where derivatives are those of one side.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Scalar
from perfusio_jax.process import REST, Process, Stream, StreamFlows, litres_per_hour, stream_flows

_LEAST = 1e-12
"""In place of a concentration of zero under a division."""


def pumps_of(process: Process) -> tuple[Stream, ...]:
    """Streams that a pump law sets."""
    return tuple(
        s for s in process.streams if s.flow != REST and process.control(s.flow).role == "target"
    )


def check_pumps(process: Process) -> None:
    """Refuse a pump law that has nothing to hold its quantity with.

    Raises:
        ConfigError: If its stream brings none of the quantity, or takes none away.
    """
    for stream in pumps_of(process):
        name = process.control(stream.flow).quantity
        kind = process.quantity(name or "").kind
        if kind != "carried":
            raise ConfigError(
                f"control {stream.flow} holds {name}, a {kind}, by stream {stream.name}; a pump "
                "law of a virtual plant holds what is carried. Let the mechanism hold a level."
            )
        brings = stream.carries.get(name or "", 0.0)
        if stream.direction == "in" and not (isinstance(brings, str) or brings > 0.0):
            raise ConfigError(
                f"control {stream.flow} holds {name} by stream {stream.name}, which carries none "
                "of it; say under `carries` how much."
            )
        if stream.direction == "out" and stream.passes.get(name or "", 1.0) == 0.0:
            raise ConfigError(
                f"control {stream.flow} holds {name} by stream {stream.name}, which holds it back; "
                "nothing of it leaves."
            )


def plant_flows(
    process: Process,
    controls: Float[Array, " M"],
    volume_L: Scalar,
    state: Mapping[str, Array],
    *,
    contents: Mapping[str, Float[Array, " K"]],
    gain: Scalar,
    largest: Scalar,
) -> tuple[StreamFlows, Mapping[str, Scalar]]:
    """All flows at a state.

    Args:
        process: The culture.
        controls: Set-points.
        volume_L: Volume [L].
        state: Concentrations by name.
        contents: What enters by each stream.
        gain: Of pump laws [1/h].
        largest: Most a pump law lets flow [vessel volumes / h].

    Returns:
        The flows, and what each pump gives [L/h].
    """
    place = {name: i for i, name in enumerate(process.control_names)}
    column = {name: i for i, name in enumerate(process.carried)}
    pumped: dict[str, Scalar] = {}
    for stream in pumps_of(process):
        control = process.control(stream.flow)
        name = control.quantity or ""
        level, target = state[name], controls[place[control.name]]
        if stream.direction == "in":
            brings = stream.carries[name]
            held = (
                controls[place[brings]]
                if isinstance(brings, str)
                else contents[stream.name][column[name]]
            )
            share = gain * (target - level) / jnp.maximum(held - level, _LEAST)
        else:
            share = gain * (level - target) / jnp.maximum(level, _LEAST)
        share = jnp.where(target > 0.0, jnp.clip(share, 0.0, largest), 0.0)
        pumped[stream.name] = volume_L * share
    # a negative closing flow is told by the caller, lane by lane
    return stream_flows(process, controls, volume_L, pumped, contents), pumped


def flow_rates(
    process: Process,
    controls: Float[Array, " M"],
    volume_L: Scalar,
    pumped: Mapping[str, Scalar],
) -> Float[Array, " S"]:
    """Flow of every stream [L/h], in the order of the process.

    Below zero where the stream that keeps the volume would have to flow backwards.
    """
    place = {name: i for i, name in enumerate(process.control_names)}
    flow: dict[str, Array] = {}
    for stream in process.streams:
        if stream.flow == REST:
            continue
        control = process.control(stream.flow)
        if control.role == "target":
            flow[stream.name] = pumped[stream.name]
        else:
            value = controls[place[control.name]]
            flow[stream.name] = jnp.asarray(
                litres_per_hour(value, volume_L, control.unit, control.name)  # pyright: ignore
            )
    closing = process.closing
    if closing is not None:
        signs = {s.name: 1.0 if s.direction != closing.direction else -1.0 for s in process.streams}
        rest = sum((signs[name] * value for name, value in flow.items()), jnp.zeros(()))
        flow[closing.name] = rest
    return jnp.stack([flow[s.name] for s in process.streams])
