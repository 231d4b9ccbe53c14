"""Servers that come back, or go on, with other units, ranges, types and namespaces."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Node, Server, ua

from perfusio_jax._core import ConnectorError, DataError
from perfusio_jax.connectors import OPCUAConnector, SampleNotReady
from tests.connectors.opcua_rigs import connect, now

pytestmark = pytest.mark.asyncio(loop_scope="module")
URI = "urn:device"
NAMES = ("glucose_setpoint", "agitation", "Glc", "VCD")
GRAMS, MILLIMOLES = "g/L", "mmol/L"
IN_MILLIMOLES = 2.0 / 0.180156
MAP = {n: f"nsu={URI};s={n}" for n in (*NAMES, "sample_day")}


def eu(text: str | None = None, number: int = 0) -> ua.EUInformation:
    return ua.EUInformation(UnitId=number, DisplayName=ua.LocalizedText(text))


@dataclass
class Device:
    """A foreign vendor's server of a few variables."""

    port: int
    unit: ua.EUInformation | None = field(default_factory=lambda: eu(GRAMS))
    limits: ua.Range | None = None
    speed: ua.Variant = field(default_factory=lambda: ua.Variant(850.0))
    glucose: ua.Variant = field(default_factory=lambda: ua.Variant(4.0))
    before: tuple[str, ...] = ()
    nodes: dict[str, Node] = field(default_factory=dict)
    index: int = 0

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}/device"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Device"]:
        server = Server()
        server.disable_clock()
        await server.init()
        server.set_endpoint(self.url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        for uri in self.before:
            await server.register_namespace(uri)
        self.server, self.index = server, await server.register_namespace(URI)
        values = {
            "glucose_setpoint": self.glucose,
            "agitation": self.speed,
            "Glc": ua.Variant(25.0),
            "VCD": ua.Variant(5.0),
            "sample_day": ua.Variant(3, ua.VariantType.UInt16),
        }
        for name, value in values.items():
            node = await server.nodes.objects.add_variable(ua.NodeId(name, self.index), name, value)
            await node.set_writable()
            self.nodes[name] = node
        for name in ("glucose_setpoint", "Glc"):
            if self.unit is not None:
                await self.nodes[name].add_property(0, "EngineeringUnits", self.unit)
        if self.limits is not None:
            await self.nodes["glucose_setpoint"].add_property(0, "EURange", self.limits)
        await server.start()
        try:
            yield self
        finally:
            await server.stop()

    async def states(self, name: str, unit: ua.EUInformation) -> None:
        await (await self.nodes[name].get_child("0:EngineeringUnits")).write_value(unit)

    async def holds(self, name: str) -> Any:
        return await self.nodes[name].read_value()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def linked(device: Device, **more: Any) -> OPCUAConnector:
    return connect(device.url, node_map=MAP, sample_slack_s=None, max_retries=2, **more)


@dataclass
class Walker:
    """A connector that meets one server after the other on one port."""

    port: int
    connector: OPCUAConnector


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walker() -> AsyncIterator[Walker]:
    first = Device(free_port())
    async with linked(first) as connector:
        async with first.running():
            await connector.write_setpoints({"glucose_setpoint": 2.0})
            assert await first.holds("glucose_setpoint") == 2.0
            assert (await connector.read_sample(3))["Glc"] == 25.0
        yield Walker(first.port, connector)


@pytest.mark.parametrize(
    ("changed", "held", "words"),
    [
        ({"unit": eu(MILLIMOLES)}, IN_MILLIMOLES, None),
        ({"unit": eu(None, 0x4D3333)}, IN_MILLIMOLES, None),
        ({"before": ("urn:a",), "unit": eu(MILLIMOLES)}, IN_MILLIMOLES, None),
        ({"speed": ua.Variant(850, ua.VariantType.UInt16)}, 2.0, None),
        ({"glucose": ua.Variant(4.0, ua.VariantType.Float), "unit": eu("mg/L")}, 2000.0, None),
        ({"limits": ua.Range(0.0, 10.0), "unit": eu(MILLIMOLES)}, None, "11.1015 is outside"),
        ({"limits": ua.Range(5.0, 1.0)}, None, "EURange is from 5 to 1"),
        ({"glucose": ua.Variant([4.0])}, None, "holds an array"),
        ({"glucose": ua.Variant(4, ua.VariantType.UInt64)}, 2, None),
        ({"unit": None}, None, "before and states no unit now"),
        ({"unit": eu(None, 4242)}, None, "4242"),
        ({"unit": eu("rpm")}, None, "rpm"),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, dict) else None,
)
async def test_a_server_back_with_something_else_is_looked_at_anew(walker, changed, held, words):
    second = Device(walker.port, **changed)
    before = second.glucose.Value
    async with second.running():
        if words is not None:
            with pytest.raises((ConnectorError, DataError), match=words):
                await walker.connector.write_setpoints({"glucose_setpoint": 2.0})
            assert await second.holds("glucose_setpoint") == before
            return
        await walker.connector.write_setpoints({"glucose_setpoint": 2.0, "agitation": 900.0})
        assert await second.holds("glucose_setpoint") == pytest.approx(held, rel=1e-6)
        assert await second.holds("agitation") == 900
        back = await walker.connector.read_setpoints()
        assert back == {"glucose_setpoint": pytest.approx(2.0, rel=1e-6), "agitation": 900.0}


# ---------------------------------------------------------------- while the line stands


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device() -> AsyncIterator[Device]:
    async with Device(free_port()).running() as device:
        yield device


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connector(device) -> AsyncIterator[OPCUAConnector]:
    async with linked(device) as connector:
        yield connector


@pytest.fixture
async def grams(device):
    for name in ("Glc", "glucose_setpoint"):
        await device.states(name, eu(GRAMS))
    return device


async def test_a_unit_that_changes_between_two_looks_is_seen(grams, connector):
    assert (await connector.read_sample(3))["Glc"] == 25.0
    for unit, value in (
        (eu(MILLIMOLES), 4.5039),
        (eu(None, 0x4D3333), 4.5039),
        (eu("mg/L"), 0.025),
    ):
        await grams.states("Glc", unit)
        await grams.states("glucose_setpoint", unit)
        assert (await connector.read_sample(3))["Glc"] == pytest.approx(value)
        await connector.write_setpoints({"glucose_setpoint": 2.0})
        assert await grams.holds("glucose_setpoint") == pytest.approx(2.0 * 25.0 / value, rel=1e-4)
        assert (await connector.read_setpoints())["glucose_setpoint"] == pytest.approx(2.0)
    await grams.states("Glc", eu("bananas"))
    with pytest.raises(ConnectorError, match="bananas"):
        await connector.read_sample(3)
    await grams.states("Glc", eu(GRAMS))
    assert (await connector.read_sample(3))["Glc"] == 25.0
    assert connector._link.n_connections == 1


async def test_a_unit_that_changes_after_it_was_looked_at_shows_in_the_read_back(
    grams, connector, monkeypatch
):
    session = await connector._link._connected(asyncio.get_running_loop().time() + 1e6)
    real = session.write

    async def write(nodes, values):
        await grams.states("glucose_setpoint", eu(MILLIMOLES))
        return await real(nodes, values)

    monkeypatch.setattr(session, "write", write)
    with pytest.raises(ConnectorError, match=r"set to 2 and reads back as 0\.36"):
        await connector.write_setpoints({"glucose_setpoint": 2.0})


async def test_a_device_restarted_behind_a_line_that_stands_is_looked_at_anew(grams, connector):
    """As behind a gateway: the session lives on, and the server says another start time."""
    await connector.read_tags()
    await connector.read_sample(3)
    found = connector._directory.nodes
    await connector.read_sample(3)
    assert connector._directory.nodes is found
    start = grams.server.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus_StartTime))
    await start.write_value(ua.Variant(now().replace(tzinfo=None), ua.VariantType.DateTime))
    await connector.read_sample(3)
    assert connector._directory.nodes is not found


async def test_a_unit_that_is_new_with_a_configuration_is_seen(grams):
    """A node that stated no unit states one; only the version of the configuration tells."""
    node = await grams.server.nodes.objects.add_variable(
        ua.NodeId("version", grams.index), "version", ua.Variant("A")
    )
    glucose = await grams.server.nodes.objects.add_variable(
        ua.NodeId("second", grams.index), "second", 25.0
    )
    nodes = {"Glc": f"nsu={URI};s=second", "configuration_version": f"nsu={URI};s=version"}
    async with connect(grams.url, node_map=nodes) as connector:
        assert (await connector.read_sample(0))["Glc"] == 25.0
        await glucose.add_property(0, "EngineeringUnits", eu(MILLIMOLES))
        await node.write_value("B")
        record = await connector.read_record(0)
        assert record.values == {"Glc": pytest.approx(4.5039)}
        assert "configuration_version" not in record.quality


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("whole", ua.Variant(3, ua.VariantType.UInt16), None),
        ("float", ua.Variant(3.0, ua.VariantType.Float), None),
        ("double", ua.Variant(3.0), None),
        ("text", ua.Variant("3"), r"sample_day \(nsu=urn:device;s=text\) holds '3' \(String\)"),
        ("array", ua.Variant([3.0]), "1 values .array of Double"),
        ("part", ua.Variant(3.5), "3.5"),
        ("none", ua.Variant(-1), None),
    ],
)
async def test_the_day_that_is_shown_is_one_without_a_history(grams, name, content, words):
    await grams.server.nodes.objects.add_variable(ua.NodeId(name, grams.index), name, content)
    nodes = {"VCD": MAP["VCD"], "sample_day": f"nsu={URI};s={name}"}
    async with connect(grams.url, node_map=nodes, sample_slack_s=None) as connector:
        if words is not None:
            for call in (connector.days_available(), connector.read_sample(3)):
                with pytest.raises(DataError, match=words):
                    await call
        elif name == "none":
            assert await connector.days_available() == []
            with pytest.raises(SampleNotReady, match="no sample yet"):
                await connector.read_sample(3)
        else:
            assert await connector.days_available() == [3]
            assert (await connector.read_sample(3))["VCD"] == 5.0


async def test_the_map_and_the_node_that_disagree(grams):
    nodes = {"glucose_setpoint": {"node": MAP["glucose_setpoint"], "unit": MILLIMOLES}}
    async with connect(grams.url, node_map=nodes) as connector:
        with pytest.raises(DataError, match="map says 'mmol/L' and the node 'g/L'"):
            await connector.write_setpoints({"glucose_setpoint": 2.0})
    nodes["glucose_setpoint"]["sure"] = True
    async with connect(grams.url, node_map=nodes) as connector:
        await connector.write_setpoints({"glucose_setpoint": 2.0})
        assert await grams.holds("glucose_setpoint") == pytest.approx(IN_MILLIMOLES)
    read = {"Glc": {"node": MAP["Glc"], "unit": MILLIMOLES}}
    async with connect(grams.url, node_map=read) as connector:
        record = await connector.read_record(0)
        assert record.values["Glc"] == pytest.approx(4.5039)
        assert any("the node 'g/L'" in note for note in record.notes)


async def test_a_stream_sees_a_unit_change(grams, connector):
    seen: list[float | None] = []
    stream = connector.stream(["Glc"], period_s=0.02)
    async with asyncio.timeout(30):
        async for _, reading in stream:
            seen.append(reading.value)
            if len(seen) == 1:
                await grams.states("Glc", eu(MILLIMOLES))
                found = connector._directory.nodes
            elif connector._directory.nodes is not found:
                break
            await grams.nodes["Glc"].write_value(25.0 + len(seen) / 1000.0)
    await stream.aclose()
    await grams.nodes["Glc"].write_value(25.0)
    assert seen[0] == 25.0 and seen[-1] == pytest.approx(4.5, abs=0.02)


async def test_a_write_in_flight_while_the_server_restarts_is_unknown_and_then_read_back(
    monkeypatch,
):
    first = Device(free_port())
    async with linked(first) as connector:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(first.running())
            await connector.read_setpoints()
            session = connector._link._session
            real = session.write

            async def write(nodes, values):
                await stack.aclose()  # the server goes just now
                return await real(nodes, values)

            session.write = write
            with pytest.raises(ConnectorError, match="read back"):
                await connector.write_setpoints({"glucose_setpoint": 2.0})
        second = Device(first.port, unit=eu(MILLIMOLES), glucose=ua.Variant(20.0))
        async with second.running():
            assert (await connector.read_setpoints())["glucose_setpoint"] == pytest.approx(3.60312)
            assert await second.holds("glucose_setpoint") == 20.0  # nothing was sent again
