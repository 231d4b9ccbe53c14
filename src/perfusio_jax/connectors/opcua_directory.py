"""The nodes of a map on the server connected now, and their values."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from asyncua import ua

from perfusio_jax._core import CONTROL_NAMES, ConnectorError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.opcua_link import Session
from perfusio_jax.connectors.opcua_nodes import NodeMap
from perfusio_jax.connectors.opcua_values import (
    Node,
    foreign_unit,
    plain,
    range_of,
    reading_of,
    step_of,
    unit_text,
    variant_type,
)

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_GONE: Final = frozenset((ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid))


class Nodes(NamedTuple):
    """Nodes of the map on the server connected now."""

    namespaces: Mapping[str, int]
    found: Mapping[str, Node]
    absent: Mapping[str, str]
    """Why a node was not found, by name."""


class Directory:
    """Finds the nodes of a map and reads them.

    Args:
        url: Server, for messages.
        node_map: What to find.
    """

    def __init__(self, url: str, node_map: NodeMap) -> None:
        self.url, self.node_map = url, node_map
        self.nodes: Nodes | None = None

    async def resolved(self, session: Session) -> Nodes:
        """Nodes of the map, found once per connection or change of namespaces."""
        held = self.nodes
        if held is not None and held.namespaces == session.namespaces:
            return held
        found: dict[str, ua.NodeId] = {}
        absent: dict[str, str] = {}
        for name, node in (await session.resolve(list(self.node_map.values()))).items():
            if isinstance(node, str):
                absent[name] = node
            else:
                found[name] = node
        names = list(found)
        ids = list(found.values())
        types = await session.read(ids, ua.AttributeIds.DataType)
        values = await session.read(ids)
        units = await session.properties(ids, "EngineeringUnits")
        ranges = await session.properties(ids, "EURange")
        controls = [name for name in names if name in CONTROL_NAMES]
        says = await session.properties([found[n] for n in controls], "ValuePrecision")
        precisions = dict(zip(controls, says, strict=True))
        nodes: dict[str, Node] = {}
        for name, node, kind, value, unit, limits in zip(
            names, ids, types, values, units, ranges, strict=True
        ):
            if kind.StatusCode is not None and kind.StatusCode.value in _GONE:
                absent[name] = f"nothing is there ({kind.StatusCode.name})"
                continue
            own = self.node_map[name].unit or unit_text(unit)
            held_as = variant_type(kind, value)
            step = step_of(precisions[name], held_as, plain(value)) if name in precisions else None
            nodes[name] = Node(node, held_as, foreign_unit(name, own), range_of(limits), step)
        if not nodes:
            raise ConnectorError(
                f"{self.url} has none of the nodes of the node map; {next(iter(absent))}: "
                f"{next(iter(absent.values()))}."
            )
        self.nodes = Nodes(dict(session.namespaces), nodes, absent)
        return self.nodes

    async def read(
        self, session: Session, names: Iterable[str], *extra: ua.NodeId
    ) -> tuple[dict[str, ua.DataValue], list[ua.DataValue]]:
        """Values by name, in one request, and those of nodes beside the map."""
        for attempt in (1, 2):
            nodes = await self.resolved(session)
            known = [name for name in names if name in nodes.found]
            values = await session.read([*(nodes.found[n].id for n in known), *extra])
            gone = any(
                v.StatusCode is not None and v.StatusCode.value in _GONE
                for v in values[: len(known)]
            )
            if not gone or attempt == 2:
                break
            self.nodes = None  # the address space has changed under us: look again
        return dict(zip(known, values[: len(known)], strict=True)), values[len(known) :]

    def reading(self, name: str, value: ua.DataValue, at: dt.datetime) -> Reading:
        """A value read from a node of the map, in the canonical unit."""
        nodes = self.nodes
        node = None if nodes is None else nodes.found.get(name)
        return reading_of(value, at, name=name, unit=None if node is None else node.unit)

    def absent(self, name: str) -> str:
        """Why the server does not have a node."""
        if self.nodes is not None and name in self.nodes.found:
            return "the server has no value of then"
        reason = None if self.nodes is None else self.nodes.absent.get(name)
        return reason or "the server has no such node"
