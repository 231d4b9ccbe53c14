"""The nodes of a map on the server connected now, and their values."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from asyncua import ua

from perfusio_jax._core import ConfigError, ConnectorError, UnitError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.opcua.names import CONFIGURATION, CULTURE, EXTRA, HEARTBEAT, INTERVAL
from perfusio_jax.connectors.opcua.nodes import NodeMap, NodeRef
from perfusio_jax.connectors.opcua.served_culture import check_served
from perfusio_jax.connectors.opcua.session import Session
from perfusio_jax.connectors.opcua.units import contradicts, unit_of
from perfusio_jax.connectors.opcua.values import (
    Node,
    aware,
    foreign_unit,
    plain,
    range_of,
    reading_of,
    step_of,
    variant_type,
)
from perfusio_jax.connectors.tables.vocabulary import OURS, Vocabulary

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

CLOCK: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)
"""Where every server says what time it is."""
_MARKS: Final = (
    ua.NodeId(ua.ObjectIds.Server_ServerStatus_StartTime),
    ua.NodeId(ua.ObjectIds.Server_NamespaceArray),
)
"""What changes when a server has restarted behind a line that stands, or been changed."""
_GONE: Final = frozenset((ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid))
_CHANGED: Final = 0xC000
"""Bits of a status by which a server says that structure or meaning of a node has changed."""
_LOOKS: Final = 3
"""How often is looked at nodes that change while they are looked at."""


class Nodes(NamedTuple):
    """Nodes of the map on the server connected now."""

    session: Session
    """Connection over which they were found; another one has to find them anew."""
    found: Mapping[str, Node]
    absent: Mapping[str, str]
    """Why a node was not found, by name."""
    marks: tuple[Any, ...]
    """Start time, namespaces and version of the configuration when they were found."""
    words: Vocabulary = OURS
    """The names of the culture and their units."""

    def reading(self, name: str, value: ua.DataValue, at: dt.datetime) -> Reading:
        """A value of one of them, in the canonical unit."""
        node = self.found.get(name)
        unit = None if node is None else node.unit
        return reading_of(value, at, name=name, unit=unit, words=self.words)


class Seen(NamedTuple):
    """Values that were read in one request."""

    values: Mapping[str, ua.DataValue]
    """By name; without those the server does not have."""
    beside: list[ua.DataValue]
    """Of nodes beside the map."""
    nodes: Nodes
    """As they were at that moment."""

    def reading(self, name: str, at: dt.datetime) -> Reading:
        """A value that was read, in the canonical unit."""
        return self.nodes.reading(name, self.values[name], at)


class Directory:
    """Finds the nodes of a map and reads them.

    Types, units and ranges are found anew over each connection, and when the start time of the
    server, its namespaces, the version of its configuration or the unit of a node that is read
    is no longer what it was.

    Args:
        url: Server, for messages.
        node_map: What to find.
    """

    def __init__(self, url: str, node_map: NodeMap) -> None:
        self.url, self.node_map = url, node_map
        self.interval_h: float | None = None
        """Time between samples [h], where somebody counts on it."""
        self.nodes: Nodes | None = None
        self._known: dict[str, tuple[str, dt.datetime | None]] = {}  # units so far, since when

    async def resolved(self, session: Session, *, is_anew: bool = False) -> Nodes:
        """Nodes of the map, found once per connection or change of the server.

        Args:
            session: Connection.
            is_anew: Whether to find them once more in any case.

        Raises:
            ConnectorError: If none is there, or the unit of one is not known.
        """
        held = self.nodes
        if held is not None and held.session is session and not is_anew:
            return held
        async with session.finding:  # calls that come together ask once
            found = self.nodes
            if found is None or found is held or found.session is not session:
                found = self.nodes = await self._found(session, is_anew=is_anew)
            return found

    async def _found(self, session: Session, *, is_anew: bool) -> Nodes:
        if is_anew:  # a server may number its namespaces anew behind a line that stands
            await session.look_at_namespaces()
        ids, absent = await self._ids(session)
        nodes: dict[str, Node] = {}
        marks: tuple[Any, ...] = ()
        if ids:
            nodes, gone, marks = await self._described(session, ids)
            absent |= gone
        if not nodes:
            raise ConnectorError(
                f"{self.url} has none of the nodes of the node map; {next(iter(absent))}: "
                f"{next(iter(absent.values()))}."
            )
        return Nodes(session, nodes, absent, marks, self.node_map.words)

    async def _ids(self, session: Session) -> tuple[dict[str, ua.NodeId], dict[str, str]]:
        """Where the nodes are, and why some are not."""
        found: dict[str, ua.NodeId] = {}
        absent: dict[str, str] = {}
        for name, node in (await session.resolve(list(self.node_map.values()))).items():
            if isinstance(node, str):
                absent[name] = node
            else:
                found[name] = node
        return found, absent

    async def _described(
        self, session: Session, ids: Mapping[str, ua.NodeId]
    ) -> tuple[dict[str, Node], dict[str, str], tuple[Any, ...]]:
        """Types, units and ranges; which nodes are gone; the marks of the server."""
        places = list(ids.values())
        types = await session.read(places, ua.AttributeIds.DataType)
        units, ranges, precisions = await session.properties(
            places, "EngineeringUnits", "EURange", "ValuePrecision"
        )
        watched = [*_MARKS, *([ids[CONFIGURATION]] if CONFIGURATION in ids else [])]
        there = [p for p in (*units, *ranges, *precisions) if isinstance(p, ua.NodeId)]
        values = await session.read([*places, *watched, CLOCK, *there])
        cut = len(places) + len(watched)
        words = self.node_map.words
        self._check_culture(dict(zip(ids, values, strict=False)))
        marks, now = tuple(plain(v) for v in values[len(places) : cut]), plain(values[cut])
        texts = dict(zip(there, values[cut + 1 :], strict=True))
        nodes: dict[str, Node] = {}
        gone: dict[str, str] = {}
        wrong: list[str] = []
        for k, (name, place) in enumerate(ids.items()):
            status = types[k].StatusCode
            if status is not None and status.value in _GONE:
                gone[name] = f"nothing is there ({status.name})"
                continue
            try:
                limits, doubt = _range(ranges[k], texts), None
            except ConnectorError as error:
                limits, doubt = None, str(error)
            try:
                unit, stated, quarrel = _unit(self.node_map[name], units[k], texts, words)
                held_as = variant_type(types[k], values[k])
                precision = plain(texts[precisions[k]]) if precisions[k] in texts else None
                is_control = name in words.controls
                nodes[name] = Node(
                    place,
                    held_as,
                    foreign_unit(name, unit, words),
                    limits=limits,
                    step=step_of(precision, held_as, plain(values[k])) if is_control else None,
                    unit_node=units[k] if isinstance(units[k], ua.NodeId) else None,
                    stated=stated,
                    unit_since=self._since(name, unit, now),
                    is_array=isinstance(plain(values[k]), list | tuple),
                    doubt=quarrel or doubt,
                    remark=quarrel,
                )
            except (ConnectorError, UnitError) as error:
                wrong.append(_sentence(name, error))
        if wrong:
            raise ConnectorError(f"{self.url}: {' '.join(wrong)}")
        return nodes, gone, marks

    def _check_culture(self, values: Mapping[str, ua.DataValue]) -> None:
        """Refuse a device whose vessel is of another culture, or sampled at other times.

        Raises:
            ConfigError: Naming in what they differ.
        """
        if CULTURE in self.node_map:
            said = plain(values[CULTURE]) if CULTURE in values else None
            check_served(self.url, self.node_map.process, said)
        every = plain(values[INTERVAL]) if INTERVAL in values else None
        if self.interval_h is not None and isinstance(every, float) and every != self.interval_h:
            raise ConfigError(
                f"{self.url} is sampled every {every:g} h, and sampling_interval_hours is "
                f"{self.interval_h:g}; make them one."
            )

    def _since(self, name: str, unit: str | None, now: Any) -> dt.datetime | None:
        """Since when a node has this unit, if it had another one before; else None.

        Raises:
            ConnectorError: If it stated one and no longer does.
        """
        if name not in self._known:
            if unit is not None:
                self._known[name] = (unit, None)
            return None
        before, since = self._known[name]
        if unit is None:
            raise ConnectorError(
                f"it stated '{before}' before and states no unit now. Say `unit` in the node map."
            )
        if unit != before:
            since = aware(now) if isinstance(now, dt.datetime) else None
            self._known[name] = (unit, since)
        return since

    async def read(self, session: Session, names: Iterable[str], *extra: ua.NodeId) -> Seen:
        """Values by name, in one request, and those of nodes beside the map.

        Raises:
            ConnectorError: If units change as often as they are looked at.
        """
        wanted = list(names)
        is_anew = False
        for _ in range(_LOOKS):
            nodes = await self.resolved(session, is_anew=is_anew)
            known = [name for name in wanted if name in nodes.found]
            found = [nodes.found[n] for n in known]
            stating = [node for node in found if node.unit_node is not None]
            watched = self._watched(nodes)
            values = await session.read(
                [
                    *(node.id for node in found),
                    *extra,
                    *(node.unit_node for node in stating if node.unit_node is not None),
                    *watched,
                ]
            )
            cut = len(values) - len(watched)
            marks = tuple(plain(v) for v in values[cut:])
            first = cut - len(stating)
            is_other_unit = any(
                plain(v) != node.stated for v, node in zip(values[first:cut], stating, strict=True)
            )
            statuses = [v.StatusCode.value for v in values[: len(known)] if v.StatusCode]
            is_anew = (
                is_other_unit
                or marks != nodes.marks
                or any(s in _GONE or s & _CHANGED for s in statuses)
            )
            seen = Seen(
                dict(zip(known, values[: len(known)], strict=True)),
                values[len(known) : first],
                nodes,
            )
            if not is_anew:
                return seen
        if is_other_unit:
            raise ConnectorError(f"{self.url}: units of nodes change while they are read.")
        return seen

    def _watched(self, nodes: Nodes) -> list[ua.NodeId]:
        version = nodes.found.get(CONFIGURATION)
        return [*_MARKS, *([version.id] if version is not None else [])]

    def is_news(self, node_id: ua.NodeId, value: ua.DataValue) -> bool:
        """Whether a value the server reported says that a node has changed, or states its unit."""
        if value.StatusCode is not None and value.StatusCode.value & _CHANGED:
            return True
        found = () if self.nodes is None else self.nodes.found.values()
        stated = [node.stated for node in found if node.unit_node == node_id]
        return any(plain(value) != known for known in stated)

    def reading(self, name: str, value: ua.DataValue, at: dt.datetime) -> Reading:
        """A value the server reported, in the canonical unit."""
        if self.nodes is None:
            return reading_of(value, at, name=name, words=self.node_map.words)
        return self.nodes.reading(name, value, at)

    def absent(self, name: str) -> str:
        """Why the server does not have a node."""
        if self.nodes is not None and name in self.nodes.found:
            return "the server has no value of then"
        reason = None if self.nodes is None else self.nodes.absent.get(name)
        return reason or "the server has no such node"


_Place = ua.NodeId | ua.StatusCode | None


def _unit(
    ref: NodeRef,
    place: _Place,
    texts: Mapping[ua.NodeId, ua.DataValue],
    words: Vocabulary,
) -> tuple[str | None, Any, str | None]:
    """Unit of a node, what it states itself, and why the two do not go together.

    Raises:
        ConnectorError: If it states one that cannot be read.
        UnitError: If what it states is none that is known.
    """
    stated, own, trouble = None, None, None
    if isinstance(place, ua.StatusCode):
        trouble = ConnectorError(f"its unit cannot be looked for ({place.name}).")
    elif place is not None:
        status = texts[place].StatusCode
        stated = plain(texts[place])
        if status is not None and not status.is_good():
            trouble = ConnectorError(f"its unit cannot be read ({status.name}).")
    if ref.name.startswith(EXTRA) or ref.name in (HEARTBEAT, CONFIGURATION, CULTURE):
        return None, stated, None  # whatever it is, nothing is made of it
    try:
        if trouble is not None:
            raise trouble
        own = unit_of(stated, ref.name, words)
    except (ConnectorError, UnitError):
        if ref.unit is None:
            raise
    if ref.unit is None:
        return own, stated, None
    if own is None or ref.is_sure or not contradicts(own, ref.unit, ref.name, words):
        return ref.unit, stated, None
    return (
        ref.unit,
        stated,
        f"the node map says '{ref.unit}' and the node '{own}'; with `sure = true` the map counts",
    )


def _range(place: _Place, texts: Mapping[ua.NodeId, ua.DataValue]) -> tuple[float, float] | None:
    """Range of a node, if it states one.

    Raises:
        ConnectorError: If it states one that cannot be read, or none.
    """
    if place is None:
        return None
    if isinstance(place, ua.StatusCode):
        raise ConnectorError(f"its EURange cannot be looked for ({place.name})")
    status = texts[place].StatusCode
    if status is not None and not status.is_good():
        raise ConnectorError(f"its EURange cannot be read ({status.name})")
    return range_of(plain(texts[place]))


def _sentence(name: str, error: Exception) -> str:
    """An error about a node, named after it once."""
    text = str(error)
    if not text.startswith("node of "):
        text = f"node of {name}: {text}"
    return text if "node map" in text else f"{text} Say `unit` in the node map."
