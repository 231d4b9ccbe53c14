"""Flows of a virtual plant, pump laws included; see `process.laws` for what a pump gives."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import Scalar
from perfusio_jax.process import REST, Process, Stream, StreamFlows, stream_flows
from perfusio_jax.process.flows import asked_flow
from perfusio_jax.process.laws import contents_of, law_share, laws_of


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
    laws_of(process)


def plant_flows(
    process: Process,
    controls: Float[Array, " M"],
    volume_L: Scalar,
    state: Mapping[str, Array],
    *,
    contents: Mapping[str, Float[Array, " K"]],
    gain: Float[Array, " L"],
    largest: Float[Array, " L"],
) -> tuple[StreamFlows, Mapping[str, Scalar]]:
    """All flows at a state.

    Args:
        process: The culture.
        controls: Set-points.
        volume_L: Volume [L].
        state: Concentrations by name.
        contents: What enters by each stream.
        gain: Of each pump law [1/h].
        largest: Most each lets flow [vessel volumes / h].

    Returns:
        The flows, and what each pump gives [L/h].
    """
    place = {name: i for i, name in enumerate(process.control_names)}
    column = {name: i for i, name in enumerate(process.carried)}
    biomass = None if process.biomass is None else state[process.biomass]
    laws = laws_of(process)
    nothing = {law.stream.name: jnp.zeros_like(volume_L) for law in laws}
    spare = _spare(process, controls, volume_L, nothing, biomass)
    pumped: dict[str, Scalar] = {}
    for k, law in enumerate(laws):
        share, _ = law_share(
            law,
            state[law.quantity],
            controls[place[law.control]],
            contents_of(law, controls, place, contents, column),
            gain=gain[k],
            most=largest[k],
        )
        flow = volume_L * share
        closing = process.closing
        if closing is not None and closing.direction == law.stream.direction:
            flow = jnp.minimum(flow, spare)
            spare = spare - flow
        pumped[law.stream.name] = flow
    # a negative closing flow is told by the caller, lane by lane
    found = stream_flows(process, controls, volume_L, pumped, contents, biomass)
    return found, pumped


def _spare(
    process: Process,
    controls: Float[Array, " M"],
    volume_L: Scalar,
    nothing: Mapping[str, Scalar],
    biomass: Scalar | None,
) -> Scalar:
    """What the stream that keeps the volume can give up to pumps [L/h]."""
    if process.closing is None or not nothing:
        return jnp.zeros_like(volume_L)
    flows = flow_rates(process, controls, volume_L, nothing, biomass)
    return jnp.maximum(flows[process.streams.index(process.closing)], 0.0)


def flow_rates(
    process: Process,
    controls: Float[Array, " M"],
    volume_L: Scalar,
    pumped: Mapping[str, Scalar],
    biomass: Scalar | None = None,
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
            flow[stream.name] = jnp.asarray(asked_flow(process, control, value, volume_L, biomass))
    closing = process.closing
    if closing is not None:
        signs = {s.name: 1.0 if s.direction != closing.direction else -1.0 for s in process.streams}
        rest = sum((signs[name] * value for name, value in flow.items()), jnp.zeros(()))
        flow[closing.name] = rest
    return jnp.stack([flow[s.name] for s in process.streams])
