"""Servers that die, freeze and come back changed, and lines that delay, cut, swallow, double."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asyncua import Server, ua

from perfusio_jax._core import ConfigError, ConnectorError, DataError
from perfusio_jax.connectors import OPCUAConnector, RackServer, rack_node_map
from perfusio_jax.connectors.opcua.link import _within
from perfusio_jax.connectors.opcua.nodes import NodeMap
from tests.connectors.opcua_rigs import CannedRack, EmptyRack, connect, now, served, until
from tests.faults.proxy import Proxy

SCRIPT = Path(__file__).with_name("opcua_process.py")
QUICK = {"timeout_s": 0.7, "patience_s": 2.0, "max_retries": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_of(server: RackServer) -> int:
    return int(server.url.split(":")[2].split("/")[0])


def at(port: int) -> str:
    return f"opc.tcp://127.0.0.1:{port}/perfusio"


# ---------------------------------------------------------------- real processes


@contextlib.asynccontextmanager
async def process(
    port: int, state: Path, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        str(port),
        str(state),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        line = await asyncio.wait_for(child.stdout.readline(), 60)
        assert line.startswith(b"ready "), line
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGCONT)
            child.kill()
        await child.communicate()


async def test_a_server_killed_and_frozen_and_back_with_other_namespaces(tmp_path):
    """One server after the other on one port; the connector is the same throughout."""
    port, state = free_port(), tmp_path / "rack.json"
    connector = connect(at(port), "R02", sample_slack_s=None, acceleration=86400.0, **QUICK)
    async with connector:
        assert await connector.is_alive() is False
        async with process(port, state) as child:
            await until(connector.is_alive)

            async def third_day() -> bool:
                return 3 in await connector.days_available()

            await until(third_day)
            first = await connector.read_record(1)
            assert first.values["VCD"] == 110.0  # vessel 1, day 1
            await connector.write_setpoints({"temperature": 36.5, "bleed_rate": 0.25})

            # Frozen: every call comes back, none hangs, and all is well when it thaws.
            child.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            assert await connector.is_alive() is False
            for call in (
                connector.read_sample(1),
                connector.read_setpoints(),
                connector.read_tags(),
                connector.write_setpoints({"temperature": 37.0}),
            ):
                with pytest.raises(ConnectorError):
                    await call
            await connector.close()
            assert time.monotonic() - started < 5 * (QUICK["patience_s"] + QUICK["timeout_s"]) + 5
            child.send_signal(signal.SIGCONT)
            await until(connector.is_alive)
            assert (await connector.read_setpoints())["temperature"] in (36.5, 37.0)
            await connector.write_setpoints({"temperature": 36.0})

            child.kill()
            await child.wait()
            assert await connector.is_alive() is False
            with pytest.raises(ConnectorError):
                await connector.read_sample(1)

        # Back with its namespaces in another order, and its set-points as they were.
        before = connector._directory.nodes.found["VCD"].id
        async with process(port, state, "--before", "urn:a", "--before", "urn:b") as child:
            await until(connector.is_alive)
            assert (await connector.read_sample(1)) == dict(first.values)
            assert (await connector.read_setpoints())["temperature"] == 36.0
            assert connector._directory.nodes.found["VCD"].id != before
            await connector.write_setpoints({"agitation": 900.0})
            assert (await connector.read_setpoints())["agitation"] == 900.0
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 30) == 0  # ends in good order

        # Back with default set-points: reading back says so.
        async with process(port, state, "--reset"):
            await until(connector.is_alive)
            setpoints = await connector.read_setpoints()
            assert setpoints["agitation"] == 875.0 and setpoints["temperature"] == 36.25
            assert 1 in await connector.days_available()


# ---------------------------------------------------------------- lines


@contextlib.asynccontextmanager
async def lined(**settings) -> AsyncIterator[tuple[RackServer, Proxy, OPCUAConnector]]:
    async with served(rack=EmptyRack(1)) as server, Proxy(port_of(server)) as proxy:
        await server.put_sample("R01", 1, {"VCD": 5.0})
        async with connect(at(proxy.port), **{**QUICK, **settings}) as connector:
            yield server, proxy, connector


async def test_a_line_that_delays_cuts_swallows_and_doubles():
    async with lined() as (_, proxy, connector):
        assert (await connector.read_sample(1))["VCD"] == 5.0

        proxy.delay_s = 0.05  # slow, and still in time
        assert (await connector.read_sample(1))["VCD"] == 5.0
        assert proxy.n_connections == 1
        proxy.delay_s = 5.0  # too slow
        started = time.monotonic()
        with pytest.raises(ConnectorError, match="no answer in time"):
            await connector.read_sample(1)
        assert time.monotonic() - started < 5.0
        proxy.delay_s = 0.0
        await until(connector.is_alive)

        proxy.cut_lines()  # mended within the call
        assert (await connector.read_sample(1))["VCD"] == 5.0
        assert (await connector.read_setpoints())["temperature"] == 36.25

        proxy.is_black_hole = True
        assert await connector.is_alive() is False
        with pytest.raises(ConnectorError, match="no answer in time"):
            await connector.read_sample(1)
        proxy.is_black_hole = False
        assert (await connector.read_sample(1))["VCD"] == 5.0

        for _ in range(3):
            proxy.doubles = 1  # the protocol notices; the connector starts over
            assert (await connector.read_sample(1))["VCD"] == 5.0

        await proxy.cut()
        with pytest.raises(ConnectorError):
            await connector.read_sample(1)
        await proxy.open()
        assert (await connector.read_sample(1))["VCD"] == 5.0


@pytest.mark.parametrize("passing", [0, 1, 40, 4000])
async def test_a_write_cut_off_half_way_is_not_sent_again(passing):
    """Whether it arrived is unknown; reading back says; it is never sent twice."""
    async with lined(max_retries=5) as (server, proxy, connector):
        rack: CannedRack = server.rack
        assert await connector.is_alive()
        real = connector._link.run

        async def run(work, *, is_repeatable=True, **more):
            if not is_repeatable:
                proxy.drop_after = passing
            return await real(work, is_repeatable=is_repeatable, **more)

        connector._link.run = run
        error = None
        try:
            await connector.write_setpoints({"temperature": 36.75})
        except ConnectorError as caught:
            error = caught
        proxy.drop_after = None
        connector._link.run = real
        assert len(rack.written) <= 1
        if passing < 100:
            assert error is not None and "read back" in str(error) and rack.written == []
        arrived = bool(rack.written)
        assert (await connector.read_setpoints())["temperature"] == (36.75 if arrived else 36.25)


async def test_a_stream_goes_on_over_a_cut():
    async with lined(max_retries=5, patience_s=10.0) as (server, proxy, connector):
        seen: list[float | None] = []
        stream = connector.stream(["VCD"], period_s=0.02)
        async with asyncio.timeout(30):
            async for _, reading in stream:
                seen.append(reading.value)
                if reading.value == 5.0:
                    await server.put_sample("R01", 2, {"VCD": 6.0})
                elif reading.value == 6.0:
                    proxy.cut_lines()
                    await server.put_sample("R01", 3, {"VCD": 7.0})
                elif reading.value == 7.0:
                    proxy.is_black_hole = True  # nobody says that the line is dead
                    await server.put_sample("R01", 4, {"VCD": 8.0})
                    asyncio.get_running_loop().call_later(1.0, _mend, proxy)
                else:
                    break
        await stream.aclose()
        assert seen == [5.0, 6.0, 7.0, 8.0]
        assert connector._link.n_connections >= 3


def _mend(proxy: Proxy) -> None:
    proxy.is_black_hole = False


async def test_a_call_given_up_while_connecting_leaves_nothing_behind():
    async with served(rack=EmptyRack(1)) as server, Proxy(port_of(server)) as proxy:
        await server.put_sample("R01", 1, {"VCD": 5.0})
        proxy.delay_s = 0.1
        async with connect(at(proxy.port)) as connector:
            for wait_s in (0.0, 0.05, 0.15, 0.25, 0.35):
                task = asyncio.create_task(connector.read_sample(1))
                await asyncio.sleep(wait_s)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            proxy.delay_s = 0.0
            assert (await connector.read_sample(1))["VCD"] == 5.0


async def test_a_time_out_is_one_even_if_the_answer_comes_with_it():
    class Both(asyncio.CancelledError):
        """What the library below makes of a cancellation that meets an answer."""

    async def answer_when_cancelled():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise Both from None

    with pytest.raises(TimeoutError):
        await _within(0.01, answer_when_cancelled())
    task = asyncio.create_task(_within(60, answer_when_cancelled()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):  # a real one stays one
        await task


async def test_a_failure_of_an_old_line_does_not_end_the_new_one():
    async with lined(max_retries=5, patience_s=10.0) as (_, proxy, connector):
        assert await connector.is_alive()
        old = connector._link._session
        proxy.cut_lines()
        samples = await asyncio.gather(*(connector.read_sample(1) for _ in range(10)))
        assert [s["VCD"] for s in samples] == [5.0] * 10
        new = connector._link._session
        await connector._link._drop(old)
        assert connector._link._session is new and await connector.is_alive()
        assert proxy.n_connections <= 3


async def test_one_server_may_serve_many_and_nothing_stays_open():
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    async with served(rack=EmptyRack(2)) as server:
        await server.put_sample("R01", 1, {"VCD": 5.0})
        tasks, before = len(asyncio.all_tasks()), descriptors()
        connectors = [connect(server.url) for _ in range(8)]
        samples = await asyncio.gather(*(c.read_sample(1) for c in connectors))
        assert [s["VCD"] for s in samples] == [5.0] * 8
        await asyncio.gather(*(c.close() for c in connectors))

        async def is_calm() -> bool:
            return len(asyncio.all_tasks()) <= tasks and descriptors() <= before

        await until(is_calm)


# ---------------------------------------------------------------- the server itself


async def test_a_taken_port_and_a_broken_state_are_refused(tmp_path):
    async with served() as server:
        with pytest.raises(ConnectorError, match="cannot listen"):
            async with served(url=at(port_of(server))):
                pass
    state = tmp_path / "rack.json"
    for text, words in (
        ("", "not the state"),
        ('{"version": 99}', "version 99"),
        ('{"version": 1, "sampled_at": []}', "not the state"),
        ('{"version": 1, "sampled_at": [], "rack": {"time_h": 30, "controls": [{}]}}', "times of"),
    ):
        state.write_text(text)
        with pytest.raises(DataError, match=words):
            async with served(state_path=state):
                pass
    for wrong in ({"tick_s": 0.0}, {"delay_s": -1.0}, {"acceleration": 0.0}):
        with pytest.raises(ConfigError):
            RackServer(CannedRack(1), **wrong)


async def test_a_rack_that_breaks_stops_its_heart_and_says_so(caplog):
    class Breaking(CannedRack):
        def tags(self):
            if self.time_h > 1.0:
                raise RuntimeError("the pump is loose")
            return super().tags()

    async with (
        served(rack=Breaking(1), acceleration=86400.0, is_paused=False) as server,
        connect(server.url, heartbeat_timeout_s=0.3) as connector,
    ):

        async def is_dead() -> bool:
            return not await connector.is_alive()

        await until(is_dead)
        assert "loose" in str(server.failure)
        assert (await connector.read_sample(0))["VCD"] == 0.0  # what was shown stays


async def test_culture_time_is_stopped_and_started_over_the_wire():
    async with served(acceleration=864000.0) as server, connect(server.url) as connector:
        await asyncio.sleep(5 * server.tick_s)
        assert await connector.days_available() == [0]
        await connector._link.run(
            lambda s: s.write([server.space.clock], [ua.Variant(True, ua.VariantType.Boolean)])
        )

        async def days_pass() -> bool:
            return len(await connector.days_available()) > 3

        await until(days_pass)
        days = await connector.days_available()
        assert days == list(range(len(days)))  # none left out
        assert server.clock.is_running


async def test_culture_time_may_wait_for_the_first_set_point():
    rack = CannedRack(1)
    server = RackServer(rack, url="opc.tcp://127.0.0.1:0/x", acceleration=864000.0, is_paused=True)
    async with server, connect(server.url) as connector:
        await asyncio.sleep(5 * server.tick_s)
        assert await connector.days_available() == [0]
        await connector.write_setpoints({"temperature": 36.5})

        async def days_pass() -> bool:
            return len(await connector.days_available()) > 1

        await until(days_pass)


# ---------------------------------------------------------------- another vendor's server


async def test_types_units_and_ids_of_a_foreign_server():
    """Float and integer set-points, other units, plain node ids, no ranges, no sample day."""
    server = Server()
    server.disable_clock()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/foreign")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    uri = "urn:foreign"
    await server.register_namespace("urn:first")
    index = await server.register_namespace(uri)
    values = {
        "Glc": ua.Variant(20.0),
        "temperature": ua.Variant(36.5, ua.VariantType.Float),
        "agitation": ua.Variant(850, ua.VariantType.Int32),
        "perfusion_rate": ua.Variant(1.0),
        "glucose_setpoint": ua.Variant(10.0),
        "pyruvate_feed": ua.Variant("none"),
        "bleed_rate": ua.Variant(3, ua.VariantType.Byte),
    }
    nodes = {}
    for name, value in values.items():
        node = await server.nodes.objects.add_variable(ua.NodeId(name, index), name, value)
        await node.set_writable()
        nodes[name] = node
    await server.start()
    try:
        url = f"opc.tcp://127.0.0.1:{server.bserver.port}/foreign"
        node_map = {
            "Glc": {"node": f"nsu={uri};s=Glc", "unit": "mmol/L"},
            "temperature": f"ns={index};s=temperature",
            "agitation": f"nsu={uri};s=agitation",
            "perfusion_rate": f"nsu={uri};s=perfusion_rate",
            "glucose_setpoint": {"node": f"nsu={uri};s=glucose_setpoint", "unit": "mmol/L"},
            "pyruvate_feed": f"nsu={uri};s=pyruvate_feed",
            "bleed_rate": f"nsu={uri};s=bleed_rate",
        }
        async with connect(url, node_map=node_map) as connector:
            assert (await connector.read_sample(3))["Glc"] == pytest.approx(3.60312)
            await connector.write_setpoints(
                {"temperature": 36.1, "agitation": 900.0, "glucose_setpoint": 5.0}
            )
            assert await nodes["temperature"].read_value() == pytest.approx(36.1, rel=1e-6)
            assert await nodes["agitation"].read_value() == 900
            assert await nodes["glucose_setpoint"].read_value() == pytest.approx(27.7537, rel=1e-4)
            found = await connector.read_setpoints()
            assert found["glucose_setpoint"] == pytest.approx(5.0)
            assert "pyruvate_feed" not in found  # text is no set-point
            for setpoints, words in (
                ({"agitation": 900.5}, "whole numbers"),
                ({"bleed_rate": 300.0}, "whole numbers"),
                ({"pyruvate_feed": 1.0}, "holds String"),
                ({"temperature": 1e39}, "32-bit"),
            ):
                with pytest.raises(DataError, match=words):
                    await connector.write_setpoints({"perfusion_rate": 1.5, **setpoints})
            assert await nodes["perfusion_rate"].read_value() == 1.0
            # A device that takes a value and keeps another one.
            await nodes["temperature"].write_value(ua.Variant(30.0, ua.VariantType.Float))
            server.iserver.set_attribute_value_setter(nodes["temperature"].nodeid, lambda *_: None)
            with pytest.raises(ConnectorError, match="reads back as 30"):
                await connector.write_setpoints({"temperature": 37.0})
        with_wrong_unit = {"Glc": {"node": f"nsu={uri};s=Glc", "unit": "rpm"}}
        async with connect(url, node_map=with_wrong_unit) as connector:
            with pytest.raises(ConnectorError, match="unit"):
                await connector.read_sample(0)
        elsewhere = {"Glc": "nsu=urn:nowhere;s=Glc", "Lac": f"nsu={uri};s=Glc"}
        async with connect(url, node_map=elsewhere) as connector:
            assert await connector.missing_nodes() == {
                "Glc": "the server has no namespace urn:nowhere"
            }
    finally:
        await server.stop()


def test_node_maps_are_understood_or_refused(tmp_path):
    good = tmp_path / "nodes.toml"
    good.write_text(
        '[namespaces]\nsite = "urn:site"\n[nodes]\n'
        'VCD = "/di:DeviceSet/site:{reactor_id}/site:VCD"\n'
        'Glc = { node = "ns=2;s={reactor_id}.Glc", unit = "mmol/L" }\n'
    )
    nodes = NodeMap.load(good, reactor_id="R07")
    assert nodes["VCD"].path.steps[1:] == (("urn:site", "R07"), ("urn:site", "VCD"))
    assert nodes["Glc"].node.Identifier == "R07.Glc" and nodes["Glc"].unit == "mmol/L"
    connector = OPCUAConnector("opc.tcp://localhost:4840", good, reactor_id="R07")
    assert "R07" in repr(connector)
    with pytest.raises(ConfigError, match="many vessels"):
        NodeMap.load(good)
    for text, words in (
        ("", "empty"),
        ("nonsense", "not TOML"),
        ('password = "x"', "Passwords belong"),
        ('[nodes]\nFoo = "ns=2;s=A"', "Foo is no species"),
        ('[nodes]\nVCD = "/3:A"', "namespace index 3"),
        ('[nodes]\nVCD = "/xyz:A"', "namespace 'xyz'"),
        ('[nodes]\nVCD = "/di:"', "empty step"),
        ('[nodes]\nVCD = "A"', "allowed are a node id"),
        ("[nodes]\nVCD = 3", "node id or browse path"),
        ('[nodes]\nVCD = { unit = "g/L" }', "must be a text"),
        ('[nodes]\nVCD = "ns=2;s=A"\nGlc = "ns=2;s=A"', "are both"),
    ):
        bad = tmp_path / "bad.toml"
        bad.write_text(text)
        with pytest.raises(ConfigError, match=words):
            NodeMap.load(bad)
    with pytest.raises(ConfigError, match="cannot be read"):
        NodeMap.load(tmp_path / "none.toml")
    assert len(NodeMap(rack_node_map("R01"))) == len(rack_node_map("R01"))
    for wrong in (
        {"acceleration": 0.0},
        {"sample_slack_s": -1.0},
        {"heartbeat_timeout_s": 0.0},
        {"timeout_s": 0.0},
        {"patience_s": float("inf")},
        {"max_retries": -1},
        {"retry_delay_s": -1.0},
    ):
        with pytest.raises(ConfigError):
            connect("opc.tcp://localhost:4840", **wrong)
    with pytest.raises(ConfigError, match="opc.tcp://host"):
        connect("http://localhost:4840")
    assert now().tzinfo is not None
