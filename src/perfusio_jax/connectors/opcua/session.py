"""A live OPC UA connection: attributes, history, places and properties of nodes."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from asyncua import Client, ua

from perfusio_jax._core import ConnectorError
from perfusio_jax.connectors.opcua.names import NAMESPACES
from perfusio_jax.connectors.opcua.nodes import NodeRef

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

MAX_NODES: Final = 500
"""Most nodes of one request."""
_NO_PROPERTY: Final = frozenset(
    (
        ua.StatusCodes.BadNoMatch,
        ua.StatusCodes.BadNotFound,
        ua.StatusCodes.BadNodeIdUnknown,
        ua.StatusCodes.BadNodeIdInvalid,
    )
)
"""Answers that mean that a node, or its property, is not there."""


def numbered(uris: Sequence[str] | None) -> dict[str, int]:
    """Index of each namespace by URI; the standard's own is always there."""
    return {NAMESPACES["ua"]: 0} | {uri: index for index, uri in enumerate(uris or ())}


class Session:
    """A live connection with the namespaces of its server.

    Args:
        client: Connected.
        namespaces: Index by URI.
    """

    def __init__(self, client: Client, namespaces: Mapping[str, int]) -> None:
        self.client = client
        self.namespaces: Mapping[str, int] = namespaces
        self.finding = asyncio.Lock()
        """Held while nodes are looked for."""

    async def look_at_namespaces(self) -> None:
        """Ask for the namespaces again: a server may number them anew behind a line that stands."""
        (value,) = await self.read([ua.NodeId(ua.ObjectIds.Server_NamespaceArray)])
        self.namespaces = numbered(value.Value.Value if value.Value is not None else None)

    async def read(
        self, nodes: Sequence[ua.NodeId], attribute: int = ua.AttributeIds.Value
    ) -> list[ua.DataValue]:
        """Attributes of nodes, in one request for each `MAX_NODES`."""
        found: list[ua.DataValue] = []
        for start in range(0, len(nodes), MAX_NODES):
            part = list(nodes[start : start + MAX_NODES])
            found += await self.client.uaclient.read_attributes(part, attribute)
        if len(found) != len(nodes):
            raise ConnectorError(f"asked for {len(nodes)} values, the server sent {len(found)}.")
        return found

    async def write(
        self, nodes: Sequence[ua.NodeId], values: Sequence[ua.Variant]
    ) -> list[ua.StatusCode]:
        """Write values, one status code each."""
        wrapped = [ua.DataValue(Value=v) for v in values]
        return await self.client.uaclient.write_attributes(
            list(nodes), wrapped, ua.AttributeIds.Value
        )

    async def history(
        self, nodes: Sequence[ua.NodeId], start: Any, end: Any
    ) -> list[list[ua.DataValue] | ua.StatusCode]:
        """Past values of nodes, or why there are none."""
        found: list[list[ua.DataValue] | ua.StatusCode] = []
        for first in range(0, len(nodes), MAX_NODES):
            part = nodes[first : first + MAX_NODES]
            held: list[list[ua.DataValue] | ua.StatusCode] = [[] for _ in part]
            asked: list[tuple[int, bytes | None]] = [(i, None) for i in range(len(part))]
            while asked:  # a server may hand over long histories piece by piece
                params = ua.HistoryReadParameters(
                    HistoryReadDetails=ua.ReadRawModifiedDetails(
                        IsReadModified=False,
                        StartTime=start,
                        EndTime=end,
                        NumValuesPerNode=0,
                        ReturnBounds=False,
                    ),
                    TimestampsToReturn=ua.TimestampsToReturn.Both,
                    ReleaseContinuationPoints=False,
                    NodesToRead=[
                        ua.HistoryReadValueId(NodeId=part[i], ContinuationPoint=point)
                        for i, point in asked
                    ],
                )
                results = await self.client.uaclient.history_read(params)
                more = []
                for (i, _), result in zip(asked, results, strict=True):
                    if not result.StatusCode.is_good():
                        held[i] = result.StatusCode
                        continue
                    values = held[i]
                    if isinstance(values, list):
                        values += getattr(result.HistoryData, "DataValues", None) or []
                    if result.ContinuationPoint:
                        more.append((i, result.ContinuationPoint))
                asked = more
            found += held
        return found

    async def resolve(self, refs: Sequence[NodeRef]) -> dict[str, ua.NodeId | str]:
        """Node ids by name, or in their place a sentence on why there is none."""
        found: dict[str, ua.NodeId | str] = {}
        asked: list[tuple[str, ua.RelativePath]] = []
        for ref in refs:
            if ref.path is not None:
                try:
                    asked.append((ref.name, ref.path.relative(self.namespaces)))
                except KeyError as error:
                    found[ref.name] = f"the server has no namespace {error.args[0]}"
            elif ref.node is not None and ref.uri is not None:
                index = self.namespaces.get(ref.uri)
                found[ref.name] = (
                    f"the server has no namespace {ref.uri}"
                    if index is None
                    else ua.NodeId(ref.node.Identifier, index, ref.node.NodeIdType)
                )
            elif ref.node is not None:
                found[ref.name] = ref.node
        for start in range(0, len(asked), MAX_NODES):
            part = asked[start : start + MAX_NODES]
            results = await self.client.translate_browsepaths(
                ua.NodeId(ua.ObjectIds.ObjectsFolder), [path for _, path in part]
            )
            for (name, _), result in zip(part, results, strict=True):
                found[name] = (
                    result.Targets[0].TargetId
                    if result.StatusCode.is_good() and result.Targets
                    else f"nothing is there ({result.StatusCode.name})"
                )
        return found

    async def properties(
        self, nodes: Sequence[ua.NodeId], *names: str
    ) -> list[list[ua.NodeId | ua.StatusCode | None]]:
        """Where each node has standard properties, such as its unit and range, by property.

        None where it has none, and the status where the server does not tell.
        """
        paths = [
            ua.RelativePath(
                Elements=[
                    ua.RelativePathElement(
                        ReferenceTypeId=ua.NodeId(ua.ObjectIds.HasProperty),
                        IsInverse=False,
                        IncludeSubtypes=True,
                        TargetName=ua.QualifiedName(name, 0),
                    )
                ]
            )
            for name in names
        ]
        asked = [ua.BrowsePath(StartingNode=n, RelativePath=path) for path in paths for n in nodes]
        results: list[ua.BrowsePathResult] = []
        for start in range(0, len(asked), MAX_NODES):
            part = asked[start : start + MAX_NODES]
            results += await self.client.uaclient.translate_browsepaths_to_nodeids(part)
        found = [
            r.Targets[0].TargetId
            if r.Targets
            else None
            if r.StatusCode.is_good() or r.StatusCode.value in _NO_PROPERTY
            else r.StatusCode
            for r in results
        ]
        return [found[k * len(nodes) : (k + 1) * len(nodes)] for k in range(len(names))]
