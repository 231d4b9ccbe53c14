"""Set-points to a device: prepared whole, sent in one request, compared with what came back."""

from collections.abc import Mapping
from typing import NamedTuple

from asyncua import ua

from perfusio_jax._core import ConnectorError, DataError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.opcua.directory import Directory
from perfusio_jax.connectors.opcua.nodes import typed
from perfusio_jax.connectors.opcua.session import Session
from perfusio_jax.connectors.opcua.values import Node, fitted, has_arrived, to_node_unit
from perfusio_jax.connectors.tables.vocabulary import OURS, Vocabulary

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false


class Sent(NamedTuple):
    """One set-point on its way."""

    name: str
    """Control."""
    node: Node
    """Where it went."""
    variant: ua.Variant
    """What was sent, in the type and unit of the node."""
    status: ua.StatusCode
    """What the server said."""


async def send(
    session: Session, directory: Directory, wanted: Mapping[str, float], vessel: str
) -> list[Sent]:
    """Write set-points in one request, each in the type and unit of its node.

    Args:
        session: Live connection.
        directory: Where the nodes are; it is looked up anew.
        wanted: Value per control, in canonical units.
        vessel: Name of the vessel, for messages.

    Raises:
        ConnectorError: If the server lacks a node.
        DataError: If a value is outside the node's range or not of its type; nothing was sent.
    """
    nodes = await directory.resolved(session, is_anew=True)
    gone = [name for name in wanted if name not in nodes.found]
    if gone:
        raise ConnectorError(f"{vessel}: {gone[0]}: {directory.absent(gone[0])}.")
    prepared = []
    for name, value in wanted.items():
        node = nodes.found[name]
        if node.doubt is not None or node.is_array:
            raise DataError(
                f"{vessel}: {name}: {node.doubt or 'its node holds an array'}; nothing was sent."
            )
        local = (
            value
            if node.unit is None
            else to_node_unit(name, value, node.unit, directory.node_map.words)
        )
        local = fitted(local, node)
        if node.limits is not None and not node.limits[0] <= local <= node.limits[1]:
            raise DataError(
                f"{vessel}: {name} {local:g} is outside what its device takes, "
                f"{node.limits[0]:g} to {node.limits[1]:g}; nothing was sent."
            )
        prepared.append((name, node, typed(name, local, node.kind)))
    statuses = await session.write([n.id for _, n, _ in prepared], [v for *_, v in prepared])
    return [
        Sent(name, node, variant, status)
        for (name, node, variant), status in zip(prepared, statuses, strict=True)
    ]


def check_arrived(
    sent: list[Sent],
    wanted: Mapping[str, float],
    back: Mapping[str, Reading],
    vessel: str,
    words: Vocabulary = OURS,
) -> None:
    """Compare what was sent with what reads back.

    Args:
        sent: What went, with the server's answer.
        wanted: Value per control, in canonical units.
        back: What the server shows afterwards.
        vessel: Name of the vessel, for messages.
        words: The names of the culture and their units.

    Raises:
        ConnectorError: If the server refused one, or shows another value.
    """
    refused = [
        f"{s.name} {wanted[s.name]:g} ({s.status.name})" for s in sent if not s.status.is_good()
    ]
    if refused:
        raise ConnectorError(f"{vessel} refused {', '.join(refused)}.")
    for name, node, variant, _ in sent:
        shown = back[name].value
        if shown is None or not has_arrived(name, wanted[name], shown, variant, node, words):
            raise ConnectorError(
                f"{vessel}: {name} was set to {wanted[name]:.12g} and reads back as "
                f"{shown if shown is not None else back[name].status or 'nothing'}. If the "
                "device rounds, its step belongs under resolution in [twin]."
            )
