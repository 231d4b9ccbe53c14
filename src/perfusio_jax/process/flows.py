"""Flows of any process over one interval."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.chemistry.flows import align
from perfusio_jax.chemistry.volumes import is_concrete

from .description import Process
from .parts import REST, Control, Stream, flow_per_biomass, is_per_cell, litres_per_hour

Number = float | Float[Array, "..."]


class StreamFlows(eqx.Module):
    """Constant flows of one reactor, or of a batch (leading axes); what balances ask of flows."""

    supply: Float[Array, "*b K"]
    """What enters per carried quantity, sum of flow times concentration [conc L/h]."""
    cleared: Float[Array, "*b K"]
    """Volume cleared of each carried quantity [L/h]."""
    inflow: Float[Array, "*b"]
    """All that enters [L/h]."""
    outflow: Float[Array, "*b"]
    """All that leaves [L/h]."""

    def clearance(self) -> Float[Array, "*b K"]:
        """Volume cleared of each carried quantity [L/h]."""
        return self.cleared

    def volume_rate(self) -> Float[Array, "*b"]:
        """Rate of change of the volume [L/h]."""
        return self.inflow - self.outflow


def stream_flows(
    process: Process,
    controls: Float[Array, "*b M"],
    volume_L: Number,
    pumped_L_h: Mapping[str, Number] | None = None,
    contents: Mapping[str, Float[Array, "K"]] | None = None,
    biomass: Number | None = None,
) -> StreamFlows:
    """Flows under set-points.

    The closing stream takes what the others leave of the balance. Where that is less than
    nothing, known numbers are refused; under `jit` the flow is negative, and the caller's check
    of the balance says so.

    Args:
        process: The culture.
        controls: Set-points, in the order of `process.controls`.
        volume_L: Volume in the vessel [L].
        pumped_L_h: Flow [L/h] of each stream that a pump law sets, by name of the stream.
        contents: Concentrations of what enters, by name of the stream, in the order of
            `process.carried`; the process's own where not given. Trace them to sweep them.
        biomass: Concentration of the biomass, in its unit; needed where a flow is per cell.

    Returns:
        The flows.

    Raises:
        ConfigError: If the controls or contents have another width, a pump's flow is missing or
            of no stream, contents are of nothing that enters, or more is to leave than enters at
            constant volume.

    Example:
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> flows = stream_flows(MONOD_CHEMOSTAT, jnp.asarray([0.1, 20.0]), 2.0)
        >>> [round(float(v), 6) for v in (flows.inflow, flows.outflow, flows.supply[1])]
        [0.2, 0.2, 4.0]
    """
    u = jnp.asarray(controls, float)
    if u.ndim == 0 or u.shape[-1] != len(process.controls):
        raise ConfigError(
            f"controls of shape {u.shape} were given; the last axis has "
            f"{len(process.controls)}: {', '.join(process.control_names) or 'none'}."
        )
    place = {name: i for i, name in enumerate(process.control_names)}
    pumped = _pumped(process, pumped_L_h or {})
    _check_contents(process, contents or {})
    batch = u.shape[:-1]
    flow: dict[str, Array] = {}
    for stream in process.streams:
        if stream.flow == REST:
            continue
        control = process.control(stream.flow)
        if control.role == "flow":
            value = u[..., place[control.name]]
            found = asked_flow(process, control, value, volume_L, biomass)
        else:
            found = pumped[stream.name]
        flow[stream.name] = jnp.broadcast_to(jnp.asarray(found, float), batch)
    nothing = jnp.zeros(batch)
    ways = {
        way: sum(
            (flow[s.name] for s in process.streams if s.direction == way and s.name in flow),
            nothing,
        )
        for way in ("in", "out")
    }
    closing = process.closing
    if closing is not None:
        other = "in" if closing.direction == "out" else "out"
        rest = ways[other] - ways[closing.direction]
        _refuse_negative(closing, rest)
        flow[closing.name] = rest
        ways[closing.direction] = ways[other]
    width = (*batch, len(process.carried))
    supply, cleared = jnp.zeros(width), jnp.zeros(width)
    for stream in process.streams:
        rate = flow[stream.name][..., None]
        if stream.direction == "in":
            supply = supply + rate * _contents(process, stream, u, place, contents or {})
        else:
            shares = np.array([stream.passes.get(name, 1.0) for name in process.carried])
            cleared = cleared + rate * align(jnp.asarray(shares), rate.ndim)
    return StreamFlows(supply, cleared, ways["in"], ways["out"])


def asked_flow(
    process: Process, control: Control, value: Number, volume_L: Number, biomass: Number | None
) -> Number:
    """What a control of role flow asks for [L/h].

    Args:
        process: The culture.
        control: The control.
        value: Its value.
        volume_L: Volume in the vessel [L].
        biomass: Concentration of the biomass; needed where the flow is per cell.

    Raises:
        ConfigError: If the flow is per cell and nobody says how many there are.
    """
    if not is_per_cell(control.unit):
        return litres_per_hour(value, volume_L, control.unit, control.name)  # pyright: ignore
    if biomass is None or process.biomass is None:
        raise ConfigError(
            f"{control.name} is in {control.unit}: how much flows depends on {process.biomass}, "
            "which has to be given."
        )
    unit = process.quantity(process.biomass).unit
    return value * flow_per_biomass(control.unit, unit, control.name) * biomass * volume_L


def _pumped(process: Process, given: Mapping[str, Number]) -> Mapping[str, Number]:
    pumps = [
        s.name
        for s in process.streams
        if s.flow != REST and process.control(s.flow).role == "target"
    ]
    missing, unknown = set(pumps) - set(given), sorted(set(given) - set(pumps))
    if missing:
        raise ConfigError(
            f"pumped_L_h lacks {', '.join(sorted(missing))}: what a pump law delivers is an input."
        )
    if unknown:
        raise ConfigError(
            f"pumped_L_h names {', '.join(unknown)}{did_you_mean(unknown, pumps)}; streams of a "
            f"pump law are {', '.join(pumps) or 'none here'}."
        )
    return given


def _check_contents(process: Process, given: Mapping[str, Array]) -> None:
    feeds = [s.name for s in process.streams if s.direction == "in"]
    unknown = sorted(set(given) - set(feeds))
    if unknown:
        raise ConfigError(
            f"contents name {', '.join(unknown)}{did_you_mean(unknown, feeds)}; what enters is "
            f"{', '.join(feeds) or 'nothing here'}."
        )
    for name, values in given.items():
        if jnp.shape(values) != (len(process.carried),):
            raise ConfigError(
                f"contents of {name} have the shape {jnp.shape(values)}; one concentration is "
                f"needed of each of {', '.join(process.carried)}."
            )


def _contents(
    process: Process,
    stream: Stream,
    u: Array,
    place: Mapping[str, int],
    given: Mapping[str, Array],
) -> Array:
    """Concentrations of what enters by a stream, `(*b, K)`."""
    columns = []
    for k, name in enumerate(process.carried):
        value = stream.carries.get(name, 0.0)
        if isinstance(value, str):
            column = u[..., place[value]]
        elif stream.name in given:
            column = jnp.broadcast_to(jnp.asarray(given[stream.name], float)[k], u.shape[:-1])
        else:
            column = jnp.full(u.shape[:-1], float(value))
        if name in stream.adds:
            column = column + u[..., place[stream.adds[name]]]
        columns.append(column)
    return jnp.stack(columns, axis=-1)


def _refuse_negative(closing: Stream, rest: Array) -> None:
    if is_concrete(rest) and np.any(np.asarray(rest) < 0.0):
        lowest = float(np.min(np.asarray(rest)))
        raise ConfigError(
            f"{closing.name} keeps the volume and would have to flow at {lowest:g} L/h: more moves "
            f"{closing.direction} already than moves the other way."
        )
