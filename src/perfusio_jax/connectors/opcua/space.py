"""The served address space: nodes, their values with quality, and the guard of the set-points."""

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import asyncio
import datetime as dt
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.address_space import AttributeService

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.opcua.names import (
    DEVICE,
    DI_URI,
    LADS_URI,
    RACK_URI,
    SENSOR_RANGES,
    engineering_unit,
)
from perfusio_jax.connectors.opcua.shown import REFERENCE, Shown

FAULT_KINDS: Final = (
    "BadQuality",
    "UncertainQuality",
    "Frozen",
    "Stuck",
    "NotANumber",
    "Infinite",
    "WrongType",
    "Delayed",
)
"""What can be wrong with a sensor: refused by its device; doubtful; value and time standing
still; value standing still under a running time; NaN; infinite; text; late."""

NAMESPACE_0: Final = "http://opcfoundation.org/UA/"

_READ: Final = 1
_WRITE: Final = 2
_HISTORY: Final = 4
_DEVICE_ITSELF: Final = User(role=UserRole.Admin)
_DOUBLE: Final = ua.NodeId(ua.ObjectIds.Double)


@dataclass(frozen=True, slots=True)
class Target:
    """A writable set-point."""

    vessel: int
    name: str
    low: float
    high: float


class Space:
    """The nodes of one rack.

    Args:
        server: Initialised, not yet started.
        ids: Names of the vessels.
        spare: Additional sensors per vessel, without unit, for load tests.
        shows: What each vessel shows and takes; by default that of the reference culture.
    """

    def __init__(
        self,
        server: Server,
        ids: Sequence[str],
        *,
        spare: int = 0,
        shows: Sequence[Shown] | None = None,
    ) -> None:
        self._server = server
        self.ids = tuple(ids)
        self.shows = (REFERENCE,) * len(self.ids) if shows is None else tuple(shows)
        self.spare = tuple(f"AUX{i + 1:03d}" for i in range(spare))
        self.sensors: dict[tuple[int, str], ua.NodeId] = {}
        self.targets: dict[tuple[int, str], ua.NodeId] = {}
        self.currents: dict[tuple[int, str], ua.NodeId] = {}
        self.days: list[ua.NodeId] = []
        self.times: list[ua.NodeId] = []
        self.switches: dict[ua.NodeId, tuple[int, str]] = {}
        self.examples: dict[str, ua.NodeId] = {}
        self.limits: dict[ua.NodeId, Target] = {}
        self._items: list[ua.AddNodesItem] = []
        self._index: dict[str, int] = {}

    async def build(self) -> None:
        """Make all nodes.

        Raises:
            ConfigError: If one could not be made.
        """
        self._index[NAMESPACE_0] = 0
        for uri in (DI_URI, LADS_URI, RACK_URI):
            self._index[uri] = await self._server.register_namespace(uri)
        objects = ua.NodeId(ua.ObjectIds.ObjectsFolder)
        devices = self._object(objects, "DeviceSet", (DI_URI, "DeviceSet"))
        device = self._object(devices, DEVICE, (RACK_URI, DEVICE))
        for label, text in (("Manufacturer", "perfusio-jax"), ("Model", "emulated rack")):
            self._property(device, f"{DEVICE}.{label}", (DI_URI, label), ua.LocalizedText(text), 21)
        self.heartbeat = self._variable(device, f"{DEVICE}.Heartbeat", "Heartbeat", 0, "UInt32")
        self.clock = self._variable(
            device, f"{DEVICE}.ClockRunning", "ClockRunning", True, "Boolean", access=_READ | _WRITE
        )
        self.culture_time = self._variable(
            device, f"{DEVICE}.CultureTime", "CultureTime", 0.0, "Double"
        )
        broken = self._object(device, f"{DEVICE}.Diagnostics", (RACK_URI, "Diagnostics"))
        for kind in FAULT_KINDS:
            self.examples[kind] = self._analogue(
                broken,
                f"{DEVICE}.Diagnostics.{kind}",
                (RACK_URI, kind),
                ("pH", "pH"),
                SENSOR_RANGES["pH"],
            )
        units = self._object(device, f"{DEVICE}.Units", (LADS_URI, "FunctionalUnitSet"))
        for vessel, reactor_id in enumerate(self.ids):
            self._vessel(units, vessel, reactor_id)
        results = await self._server.iserver.isession.add_nodes(self._items)
        for item, result in zip(self._items, results, strict=True):
            if not result.StatusCode.is_good():
                raise ConfigError(
                    f"node {item.RequestedNewNodeId} cannot be made: {result.StatusCode.name}."
                )
        self._items.clear()

    def _vessel(self, parent: ua.NodeId, vessel: int, reactor_id: str) -> None:
        shown = self.shows[vessel]
        unit = self._object(parent, reactor_id, (RACK_URI, reactor_id))
        self._variable(unit, f"{reactor_id}.Process", "Process", shown.culture, "String")
        self._variable(
            unit, f"{reactor_id}.SampleInterval", "SampleInterval", shown.interval_h, "Double"
        )
        functions = self._object(unit, f"{reactor_id}.Functions", (LADS_URI, "FunctionSet"))
        self.days.append(
            self._variable(
                unit, f"{reactor_id}.SampleDay", "SampleDay", -1, "Int32", access=_READ | _HISTORY
            )
        )
        self.times.append(
            self._variable(
                unit,
                f"{reactor_id}.SampleTime",
                "SampleTime",
                0.0,
                "Double",
                access=_READ | _HISTORY,
            )
        )
        for name in dict.fromkeys((*shown.sampled, *shown.online, *self.spare)):
            function = self._object(functions, f"{reactor_id}.{name}", (RACK_URI, name))
            self.sensors[vessel, name] = self._analogue(
                function,
                f"{reactor_id}.{name}.SensorValue",
                (LADS_URI, "SensorValue"),
                (name, "" if name in self.spare else shown.unit(name)),
                (0.0, 2.0**32) if name in self.spare else shown.sensor_range(name),
                access=_READ | (_HISTORY if name in shown.sampled else 0),
            )
        for name in shown.controls:
            function = self._object(functions, f"{reactor_id}.{name}", (RACK_URI, name))
            limits = shown.control_range(name)
            for leaf, table, access in (
                ("TargetValue", self.targets, _READ | _WRITE),
                ("CurrentValue", self.currents, _READ),
            ):
                table[vessel, name] = self._analogue(
                    function,
                    f"{reactor_id}.{name}.{leaf}",
                    (LADS_URI, leaf),
                    (name, shown.unit(name)),
                    limits,
                    access=access,
                )
            self.limits[self.targets[vessel, name]] = Target(vessel, name, *limits)
        faults = self._object(unit, f"{reactor_id}.Faults", (RACK_URI, "FaultInjection"))
        for kind in FAULT_KINDS:
            node = self._variable(
                faults, f"{reactor_id}.Faults.{kind}", kind, "", "String", access=_READ | _WRITE
            )
            self.switches[node] = (vessel, kind)

    # ---------------------------------------------------------------- kinds of nodes

    def _name(self, step: tuple[str, str]) -> ua.QualifiedName:
        return ua.QualifiedName(step[1], self._index[step[0]])

    def _id(self, text: str) -> ua.NodeId:
        return ua.NodeId(text, self._index[RACK_URI])

    def _object(self, parent: ua.NodeId, identifier: str, step: tuple[str, str]) -> ua.NodeId:
        attributes = ua.ObjectAttributes(DisplayName=ua.LocalizedText(step[1]))
        node = self._id(identifier)
        self._items.append(
            ua.AddNodesItem(
                ParentNodeId=parent,
                ReferenceTypeId=ua.NodeId(
                    ua.ObjectIds.Organizes
                    if parent.NamespaceIndex == 0
                    else ua.ObjectIds.HasComponent
                ),
                RequestedNewNodeId=node,
                BrowseName=self._name(step),
                NodeClass=ua.NodeClass.Object,
                NodeAttributes=attributes,
                TypeDefinition=ua.NodeId(ua.ObjectIds.BaseObjectType),
            )
        )
        return node

    def _variable(
        self,
        parent: ua.NodeId,
        identifier: str,
        name: str,
        value: Any,
        kind: str,
        *,
        access: int = _READ,
    ) -> ua.NodeId:
        return self._add_variable(
            parent,
            identifier,
            (RACK_URI, name),
            ua.Variant(value, ua.VariantType[kind]),
            ua.NodeId(getattr(ua.ObjectIds, kind)),
            access=access,
        )

    def _property(
        self, parent: ua.NodeId, identifier: str, step: tuple[str, str], value: Any, datatype: int
    ) -> ua.NodeId:
        return self._add_variable(
            parent,
            identifier,
            step,
            ua.Variant(value),
            ua.NodeId(datatype),
            reference=ua.ObjectIds.HasProperty,
            definition=ua.ObjectIds.PropertyType,
        )

    def _analogue(
        self,
        parent: ua.NodeId,
        identifier: str,
        step: tuple[str, str],
        what: tuple[str, str],
        limits: tuple[float, float],
        *,
        access: int = _READ,
    ) -> ua.NodeId:
        """A Double with range and unit; null until the first value comes.

        `what` is its name and its unit, an empty one for none.
        """
        name, unit = what
        node = self._add_variable(
            parent,
            identifier,
            step,
            ua.Variant(None, ua.VariantType.Null),
            _DOUBLE,
            access=access,
            definition=ua.ObjectIds.AnalogUnitRangeType,
        )
        self._property(
            node,
            f"{identifier}.EURange",
            (NAMESPACE_0, "EURange"),
            ua.Range(Low=limits[0], High=limits[1]),
            ua.ObjectIds.Range,
        )
        if unit:
            self._property(
                node,
                f"{identifier}.EngineeringUnits",
                (NAMESPACE_0, "EngineeringUnits"),
                engineering_unit(name, unit),
                ua.ObjectIds.EUInformation,
            )
        return node

    def _add_variable(
        self,
        parent: ua.NodeId,
        identifier: str,
        step: tuple[str, str],
        value: ua.Variant,
        datatype: ua.NodeId,
        *,
        access: int = _READ,
        reference: int = ua.ObjectIds.HasComponent,
        definition: int = ua.ObjectIds.BaseDataVariableType,
    ) -> ua.NodeId:
        attributes = ua.VariableAttributes(
            DisplayName=ua.LocalizedText(step[1]),
            Value=value,
            DataType=datatype,
            ValueRank=ua.ValueRank.Scalar,
            AccessLevel=access,
            UserAccessLevel=access,
            Historizing=bool(access & _HISTORY),
        )
        node = self._id(identifier)
        self._items.append(
            ua.AddNodesItem(
                ParentNodeId=parent,
                ReferenceTypeId=ua.NodeId(reference),
                RequestedNewNodeId=node,
                BrowseName=self._name(step),
                NodeClass=ua.NodeClass.Variable,
                NodeAttributes=attributes,
                TypeDefinition=ua.NodeId(definition),
            )
        )
        return node

    @property
    def historised(self) -> Iterable[ua.NodeId]:
        """Nodes whose past can be read."""
        yield from self.days
        yield from self.times
        for (vessel, name), node in self.sensors.items():
            if self.is_sampled(vessel, name):
                yield node

    def is_sampled(self, vessel: int, name: str) -> bool:
        """Whether a value comes with a sample."""
        return name in self.shows[vessel].sampled


def data_value(
    value: Any, at: dt.datetime, kinds: Iterable[str] = (), *, kind: str = "Double"
) -> ua.DataValue:
    """A value with the quality and time a sensor in this state would show.

    Args:
        value: In canonical units; None where nothing was measured.
        at: When it was measured.
        kinds: Faults, of `FAULT_KINDS`, that change what is shown.
        kind: OPC UA type of the value.
    """
    status = ua.StatusCodes.Good if value is not None else ua.StatusCodes.BadNoData
    kinds = frozenset(kinds)
    if "NotANumber" in kinds:
        value, status = math.nan, ua.StatusCodes.Good
    if "Infinite" in kinds:
        value, status = math.inf, ua.StatusCodes.Good
    if "UncertainQuality" in kinds and value is not None:
        status = ua.StatusCodes.UncertainSensorNotAccurate
    if "BadQuality" in kinds:
        value, status = None, ua.StatusCodes.BadSensorFailure
    if "WrongType" in kinds:
        value, kind, status = "not a number", "String", ua.StatusCodes.Good
    variant = ua.Variant(value, ua.VariantType[kind]) if value is not None else ua.Variant()
    return ua.DataValue(
        Value=variant,
        StatusCode=ua.StatusCode(status),
        SourceTimestamp=at,
        ServerTimestamp=dt.datetime.now(dt.UTC),
    )


class GuardedAttributes(AttributeService):
    """Write service that refuses what the device does not accept, item by item.

    A set-point that is not finite, outside its range, of bad status, or that would let more
    flow out than in is answered with BadOutOfRange (bad status: BadWriteNotSupported), and
    nothing of it is applied. What is accepted carries the server's time.

    Args:
        aspace: Address space.
        space: Nodes of the rack.
        lock: Held while the plant moves and while a request is carried out.
        controls: Says what set-points of a vessel are in force.
        volume: Says the volume in a vessel [L].
        accepted: Called with a vessel and its accepted set-points.
        switched: Called with vessel, kind and names when a fault is switched; returns whether
            the names exist.
        ran: Called when the clock is started or stopped.
    """

    def __init__(
        self,
        aspace: Any,
        space: Space,
        *,
        lock: asyncio.Lock,
        controls: Callable[[int], Mapping[str, float]],
        volume: Callable[[int], float],
        accepted: Callable[[int, Mapping[str, float]], Awaitable[None]],
        switched: Callable[[int, str, Sequence[str]], bool],
        ran: Callable[[bool], None],
    ) -> None:
        super().__init__(aspace)
        self._space, self._lock = space, lock
        self._controls, self._volume, self._accepted = controls, volume, accepted
        self._switched, self._ran = switched, ran

    async def write(
        self, params: ua.WriteParameters, user: User = _DEVICE_ITSELF
    ) -> list[ua.StatusCode]:
        """Write what may be written; one status code per item."""
        if user.role is UserRole.Admin:
            return await super().write(params, user)
        async with self._lock:
            return await self._write(params, user)

    async def _write(self, params: ua.WriteParameters, user: User) -> list[ua.StatusCode]:
        now = dt.datetime.now(dt.UTC)
        verdicts = self._judge(params.NodesToWrite)
        results = []
        done: dict[int, dict[str, float]] = {}
        for item, verdict in zip(params.NodesToWrite, verdicts, strict=True):
            if verdict is not None:
                results.append(ua.StatusCode(verdict))
                continue
            if item.AttributeId == ua.AttributeIds.Value:
                item.Value = ua.DataValue(
                    Value=item.Value.Value, SourceTimestamp=now, ServerTimestamp=now
                )
            (result,) = await super().write(ua.WriteParameters(NodesToWrite=[item]), user)
            results.append(result)
            target = self._space.limits.get(item.NodeId)
            if result.is_good() and target is not None and item.Value.Value is not None:
                done.setdefault(target.vessel, {})[target.name] = item.Value.Value.Value
        for vessel, setpoints in done.items():
            await self._accepted(vessel, setpoints)
        return results

    def _judge(self, items: Sequence[ua.WriteValue]) -> list[int | None]:
        verdicts = [self._judge_one(item) for item in items]
        planned: dict[int, dict[str, float]] = {}
        for item, verdict in zip(items, verdicts, strict=True):
            target = self._space.limits.get(item.NodeId)
            if target is not None and verdict is None:
                planned.setdefault(target.vessel, {})[target.name] = item.Value.Value.Value
        for k, item in enumerate(items):
            target = self._space.limits.get(item.NodeId)
            shown = None if target is None else self._space.shows[target.vessel]
            if target is None or shown is None or target.name not in shown.balanced:
                continue
            vessel, wanted = target.vessel, planned.get(target.vessel, {})
            if shown.refused(wanted, self._controls(vessel), self._volume(vessel)):
                verdicts[k] = verdicts[k] or ua.StatusCodes.BadOutOfRange
        return verdicts

    def _judge_one(self, item: ua.WriteValue) -> int | None:
        """None if the item may go on to the ordinary checks of type and access."""
        if item.AttributeId != ua.AttributeIds.Value:
            return ua.StatusCodes.BadUserAccessDenied
        given = item.Value
        if given.StatusCode is not None and not given.StatusCode.is_good():
            return ua.StatusCodes.BadWriteNotSupported
        variant = given.Value
        if variant is None or variant.is_array:
            return ua.StatusCodes.BadTypeMismatch
        target = self._space.limits.get(item.NodeId)
        if target is not None:
            if variant.VariantType is not ua.VariantType.Double:
                return ua.StatusCodes.BadTypeMismatch
            value = variant.Value
            if not (math.isfinite(value) and target.low <= value <= target.high):
                return ua.StatusCodes.BadOutOfRange
        if item.NodeId in self._space.switches:
            if variant.VariantType is not ua.VariantType.String:
                return ua.StatusCodes.BadTypeMismatch
            vessel, kind = self._space.switches[item.NodeId]
            names = [n.strip() for n in (variant.Value or "").split(",") if n.strip()]
            if not self._switched(vessel, kind, names):
                return ua.StatusCodes.BadOutOfRange
        if item.NodeId == self._space.clock:
            if variant.VariantType is not ua.VariantType.Boolean:
                return ua.StatusCodes.BadTypeMismatch
            self._ran(bool(variant.Value))
        return None
