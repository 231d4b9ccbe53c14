"""Described cultures over OPC UA: node map, units, half days, refusals, the twin on a server."""

import asyncio
import contextlib
import dataclasses
import io
import os
import signal
import sys

import pytest
from asyncua import Client
from rich.console import Console

from perfusio_jax._core import ConfigError, ConnectorError, DataError, SampleNotReady
from perfusio_jax.bed.policy import described
from perfusio_jax.connectors import OPCUAConnector, RackServer, rack_node_map
from perfusio_jax.connectors.opcua.names import rack_path
from perfusio_jax.connectors.opcua.nodes import NodeMap
from perfusio_jax.connectors.opcua.serve import node_maps
from perfusio_jax.connectors.opcua.shown import REFERENCE, node_map_of, shown_of
from perfusio_jax.hybrid import save
from perfusio_jax.process import MONOD_CHEMOSTAT, Control, Process, Quantity, Stream
from perfusio_jax.service.emulating import rack_of
from perfusio_jax.service.plan import read_plan
from perfusio_jax.service.replay import replay_run
from perfusio_jax.service.run import run_twin
from perfusio_jax.simulator import DescribedRack, plain_monod, virtual_plant
from perfusio_jax.twin import verify_audit
from tests.connectors.opcua_rigs import FAST, FREE, CannedRack, until
from tests.twin.described import FOREIGN, SMALL, Foreign, known_model

START = {"VCD": 8.0, "DCD": 0.2, "Glc": 4.5, "Lac": 0.8}

TANK = Process(
    name="tank",
    volume_L=2.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=20.0),
        Quantity(name="S", unit="g/L", hi=50.0),
        Quantity(name="pH", unit="pH", kind="level", lo=4.0, hi=9.0, floor=0.05),
    ),
    controls=(
        Control(name="feed_rate", unit="L/d", role="flow", lo=0.0, hi=2.0, default=0.2),
        Control(name="drain_rate", unit="L/d", role="flow", lo=0.0, hi=2.0, default=0.1),
        Control(name="warmth", unit="K", role="environment", lo=290.0, hi=320.0, default=303.0),
        Control(name="shot", unit="g", role="bolus", lo=0.0, hi=9.0, default=0.0, quantity="S"),
    ),
    streams=(
        Stream(
            name="feed", direction="in", flow="feed_rate", carries={"S": 20.0}, total="V_feed_L"
        ),
        Stream(name="drain", direction="out", flow="drain_rate"),
    ),
)
"""A volume that moves, a level, a bolus, a total of its own."""


@contextlib.asynccontextmanager
async def served(rack, shows, **settings):
    """A server whose time stands still."""
    defaults = {"url": FREE, "is_paused": True, "tick_s": 0.05}
    async with RackServer(rack, shows=shows, **{**defaults, **settings}) as server:
        server._ran(False)
        yield server


def connect(url, process, shown, reactor_id="R01", **settings):
    defaults = {"allow_write": True, "reactor_id": reactor_id, "acceleration": 1440.0}
    nodes = node_map_of(reactor_id, shown)
    return OPCUAConnector(url, nodes, process=process, **{**FAST, **defaults, **settings})


async def move(server: RackServer, to_h: float) -> None:
    """Let culture time pass at once."""
    async with server._moving:
        fresh = await asyncio.to_thread(server.rack.advance, to_h)
        server._sampled_at += [server._now()] * len(fresh)
        for number in range(server.rack.day + 1 - len(fresh), server.rack.day + 1):
            await server._publish_day(number)
        await server._refresh()


def foreign_rack(n=1, **more):
    plant = virtual_plant(FOREIGN, Foreign())
    rack = DescribedRack([plant] * n, starts=[START] * n, **more)
    return rack, [shown_of(FOREIGN, rack.interval_h)] * n


# ---------------------------------------------------------------- names, units, values


def test_a_node_map_has_what_a_process_has():
    nodes = node_map_of("R01", shown_of(TANK))
    assert list(nodes) == [
        *("X", "S", "pH", "V_feed_L", "volume_L", "feed_rate", "drain_rate", "warmth"),
        *("sample_day", "sample_time_h", "heartbeat", "process", "sample_interval_h"),
    ]
    assert nodes["feed_rate"].endswith("/rack:feed_rate/lads:TargetValue")
    assert nodes["X"].endswith("/rack:X/lads:SensorValue")
    found = NodeMap(nodes, process=TANK)
    assert found.controls == ("feed_rate", "drain_rate", "warmth")
    assert {"X", "S", "pH", "V_feed_L", "volume_L"} <= set(found.grouped)
    with pytest.raises(ConfigError, match="Lac is no species, tag, control.* of tank; allowed"):
        NodeMap({"Lac": "ns=2;s=Lac"}, process=TANK)
    with pytest.raises(ConfigError, match="X, S, feed_rate"):
        NodeMap({n: nodes[n] for n in ("X", "S", "feed_rate")})
    assert set(rack_node_map("R01")) == {*nodes} - {*TANK.readings[:2], "V_feed_L"} - {
        "feed_rate", "drain_rate", "warmth",
    } | {*REFERENCE.sampled, *REFERENCE.online, *REFERENCE.controls}  # fmt: skip
    heart = Quantity(name="heartbeat", unit="1", kind="level", hi=3.0, floor=0.1)
    odd = TANK.model_copy(update={"quantities": (*TANK.quantities, heart)})
    with pytest.raises(ConfigError, match="heartbeat is the name of a node that says something"):
        shown_of(odd)


async def test_samples_set_points_and_units_of_a_culture_come_over_the_line():
    rack = DescribedRack([virtual_plant(TANK, plain_monod(TANK))])
    shown = shown_of(TANK)
    async with served(rack, [shown]) as server, connect(server.url, TANK, shown) as connector:
        assert await connector.is_alive() and await connector.missing_nodes() == {}
        await move(server, 24.0)
        record = await connector.read_record(1)
        truth = rack.sample(0, 1).values
        assert record.values == {n: truth[n] for n in TANK.readings}
        assert record.tags == {"V_feed_L": truth["V_feed_L"]}
        assert record.volume_L == truth["volume_L"] == pytest.approx(2.1)
        assert record.controls == {"feed_rate": 0.2, "drain_rate": 0.1, "warmth": 303.0}
        await connector.write_setpoints({"warmth": 305.5, "feed_rate": 0.3})
        assert rack.controls(0) == {"feed_rate": 0.3, "drain_rate": 0.1, "warmth": 305.5, "shot": 0}
        assert (await connector.read_setpoints())["warmth"] == 305.5
        with pytest.raises(DataError, match="warmth 330 is outside what its device takes, 290"):
            await connector.write_setpoints({"warmth": 330.0})
        with pytest.raises(DataError, match="'shot' is not a control"):
            await connector.write_setpoints({"shot": 1.0})
        async with Client(server.url) as client:
            names = {uri: k for k, uri in enumerate(await client.get_namespace_array())}
            for name in ("warmth", "X", "pH"):
                path = rack_path("R01", name, is_control=name == "warmth")
                node = client.nodes.objects
                for uri, step in path.steps:
                    node = await node.get_child(f"{names[uri]}:{step}")
                units = await (await node.get_child("0:EngineeringUnits")).read_value()
                assert units.DisplayName.Text == shown.unit(name)


async def test_nodes_in_other_units_are_read_and_written_in_theirs():
    rack = DescribedRack([virtual_plant(TANK, plain_monod(TANK))])
    shown = shown_of(TANK)
    units = {**shown.units, "X": "mg/L", "warmth": "degC"}
    ranges = {**shown.control_ranges, "warmth": (250.0, 330.0)}
    other = dataclasses.replace(shown, units=units, control_ranges=ranges)
    async with served(rack, [other]) as server, connect(server.url, TANK, shown) as connector:
        found = (await connector.read_record(0)).values["X"]
        assert found == pytest.approx(rack.sample(0, 0).values["X"] / 1000.0, rel=1e-12)
        back = await connector.read_setpoints()
        assert back["warmth"] == pytest.approx(303.0 + 273.15)
    wrong = dataclasses.replace(shown, units={**shown.units, "X": "rpm"})
    async with served(rack, [wrong]) as server, connect(server.url, TANK, shown) as connector:
        with pytest.raises(ConnectorError, match="process 'tank' has it in 'g/L'"):
            await connector.read_record(0)


async def test_more_out_than_in_is_refused_by_the_device():
    rack, shows = foreign_rack()
    async with (
        served(rack, shows) as server,
        connect(server.url, FOREIGN, shows[0]) as connector,
    ):
        wide = FOREIGN.controls[0].model_copy(update={"lo": 0.0})
        assert wide.lo == 0.0
        await connector.write_setpoints({"perfusion_rate": 0.5, "bleed_rate": 0.5})
        assert rack.controls(0) == {"perfusion_rate": 0.5, "bleed_rate": 0.5}
    shown = shown_of(TANK)
    tank = DescribedRack([virtual_plant(TANK, plain_monod(TANK))])
    tank._volume[0] = 0.5
    async with served(tank, [shown]) as server, connect(server.url, TANK, shown) as connector:
        with pytest.raises(ConnectorError, match="refused drain_rate 1.5"):
            await connector.write_setpoints({"drain_rate": 1.5})
        assert tank.controls(0)["drain_rate"] == 0.1


# ---------------------------------------------------------------- half days


async def test_samples_between_the_days_are_told_apart_and_read_from_the_history():
    rack, shows = foreign_rack(interval_h=12.0)
    async with (
        served(rack, shows) as server,
        connect(server.url, FOREIGN, shows[0], sample_slack_s=0.0) as connector,
    ):
        connector.sample_every(12.0)
        with pytest.raises(SampleNotReady, match="day 0.5 is not there yet; the last is of day 0"):
            await connector.read_record(0.5)
        for hours in (12.0, 24.0, 36.0):
            await move(server, hours)
            await asyncio.sleep(0.01)
        assert await connector.days_available() == [0, 0.5, 1, 1.5]
        for number, day in enumerate((0, 0.5, 1, 1.5)):
            record = await connector.read_record(day)
            truth = rack.sample(0, number)
            assert (record.day, record.time_h) == (day, truth.time_h)
            assert record.values == {n: truth.values[n] for n in FOREIGN.readings}
        with pytest.raises(DataError, match="no sample is due on day 0.3; they come every 12 h"):
            await connector.read_record(0.3)


async def test_an_interval_that_differs_is_refused_and_one_that_needs_a_node_says_so():
    rack, shows = foreign_rack(interval_h=12.0)
    async with served(rack, shows) as server:
        daily = connect(server.url, FOREIGN, shows[0])
        daily.sample_every(24.0)
        async with daily:
            with pytest.raises(ConfigError, match="every 12 h, and sampling_interval_hours is 24"):
                await daily.read_record(0)
    nodes = {n: p for n, p in node_map_of("R01", shows[0]).items() if n != "sample_time_h"}
    bare = OPCUAConnector("opc.tcp://127.0.0.1:1", nodes, process=FOREIGN, **FAST)
    with pytest.raises(ConfigError, match="told apart by the node sample_time_h"):
        bare.sample_every(12.0)
    bare.sample_every(48.0)


# ---------------------------------------------------------------- another culture


async def test_a_device_of_another_culture_is_refused_by_name_whatever_is_asked():
    control = FOREIGN.controls[0].model_copy(update={"hi": 3.0})
    wider = FOREIGN.model_copy(update={"controls": (control, FOREIGN.controls[1])})
    rack, shows = foreign_rack()
    async with served(rack, shows) as server:
        other = connect(server.url, wider, shown_of(wider))
        says = r"serves foreign, and foreign is wanted of it: perfusion_rate: hi is 2.0 and 3.0"
        async with other:
            assert not await other.is_alive()
            for call in (
                lambda: other.read_record(0),
                lambda: other.read_back(),
                lambda: other.days_available(),
                lambda: other.check_culture(),
                lambda: other.write_setpoints({"bleed_rate": 0.2}),
            ):
                with pytest.raises(ConfigError, match=says):
                    await call()
        assert rack.controls(0)["bleed_rate"] == 0.1
        ours = OPCUAConnector(server.url, rack_node_map("R01"), **FAST)
        async with ours:
            with pytest.raises(ConfigError, match="serves foreign, and CHO perfusion as the ref"):
                await ours.read_record(0)
        told = FOREIGN.model_copy(update={"description": "told otherwise"})
        async with connect(server.url, told, shows[0]) as same:
            assert await same.is_alive()
    async with RackServer(CannedRack(1), url=FREE, is_paused=True) as server:
        async with connect(server.url, FOREIGN, shows[0]) as connector:
            with pytest.raises(ConfigError, match="serves CHO perfusion.* and foreign is wanted"):
                await connector.read_record(0)


# ---------------------------------------------------------------- the twin


@pytest.fixture
def few_paths(monkeypatch):
    """Decisions of few paths, wherever they are asked for."""
    usual = described.DescribedPolicy.__init__

    def small(self, *args, **settings):
        usual(self, *args, **{**SMALL, **settings})

    monkeypatch.setattr(described.DescribedPolicy, "__init__", small)


TWIN = """
[twin]
connector = "opcua"
url = "{url}"
node_map = "nodes.toml"
acceleration = 1440.0
process = "process.toml"
model = "model"
mechanism = "tests.twin.described:Foreign"
mode = "frozen"
reactor_id = "R01"
[run]
seed = 3
duration_days = 3
sampling_interval_hours = {hours}
n_mc_samples = 16
allow_write = true
[objective]
goals = ["VCD = 20"]
limits = ["Via >= 60"]
"""


def written(folder, url, shown, *, hours):
    from perfusio_jax.connectors.opcua.serve import write_node_map

    FOREIGN.to_toml(folder / "process.toml")
    save(known_model(float(hours)), folder / "model")
    write_node_map(folder / "nodes.toml", shown)
    path = folder / "twin.toml"
    path.write_text(TWIN.format(url=url, hours=hours))
    return path


@pytest.mark.parametrize(("hours", "days"), [(24, (0, 1, 2)), (12, (0, 0.5, 1))])
async def test_the_twin_drives_a_culture_over_the_line(tmp_path, few_paths, hours, days):
    rack, shows = foreign_rack(interval_h=float(hours))
    async with served(rack, shows, acceleration=1440.0) as server:
        path = written(tmp_path, server.url, shows[0], hours=hours)
        plan = read_plan(path)
        before = rack.controls(0)["bleed_rate"]
        outcomes, sent = [], []
        with plan.twin("R01", allow_write=None, patience_s=5.0, say=lambda _: None) as twin:
            for day in days:
                await move(server, 24.0 * day)
                found = await twin.step_async(day)
                outcomes.append(found["outcome"])
                sent.append(found["decision"].setpoints)
                assert rack.controls(0) == pytest.approx(sent[-1])
            await twin.connector.close()
        assert outcomes == ["written"] * 3
        assert rack.controls(0)["bleed_rate"] != before
        truth = rack.sample(0, 1).values
        record = (tmp_path / "audit.jsonl").read_text()
        assert f'"VCD":{truth["VCD"]!r}' in record
    assert verify_audit(tmp_path).ok
    said = Console(file=io.StringIO(), width=200, markup=False)
    assert await asyncio.to_thread(replay_run, path, reactor_id=None, console=said)
    assert "3 of 3 decisions came out the same" in said.file.getvalue()


async def test_the_command_refuses_a_device_of_another_culture_before_it_starts(
    tmp_path, few_paths
):
    control = FOREIGN.controls[0].model_copy(update={"hi": 3.0})
    wider = FOREIGN.model_copy(update={"controls": (control, FOREIGN.controls[1])})
    rack = DescribedRack([virtual_plant(wider, Foreign())])
    async with served(rack, [shown_of(wider)]) as server:
        path = written(tmp_path, server.url, shown_of(FOREIGN), hours=24)
        said = Console(file=io.StringIO(), width=200, markup=False)
        with pytest.raises(ConfigError, match="perfusion_rate: hi is 3.0 and 2.0"):
            await asyncio.to_thread(
                run_twin, path, days=1, allow_write=False, patience_s=0.0, console=said
            )
    assert not (tmp_path / "audit.jsonl").exists()


# ---------------------------------------------------------------- the command


def test_cultures_are_the_vessels_in_turn(tmp_path):
    FOREIGN.to_toml(tmp_path / "foreign.toml")
    rack, shows = rack_of(
        [str(tmp_path / "foreign.toml"), "monod_chemostat"],
        ["tests.twin.described:Foreign"],
        n=3,
        every_h=12.0,
    )
    assert [rack.process(i).name for i in range(3)] == ["foreign", "monod_chemostat", "foreign"]
    maps = node_maps(tmp_path / "nodes.toml", shows)
    assert [p.name for p in maps] == ["nodes_foreign.toml", "nodes_monod_chemostat.toml"]
    assert node_maps(tmp_path / "nodes.toml", shows[:1]) == {tmp_path / "nodes.toml": shows[0]}
    assert node_maps(None, shows) == {}
    with pytest.raises(ConfigError, match="2 mechanisms were given for 1 cultures"):
        rack_of(["monod_chemostat"], ["monod", "monod"], n=1)
    with pytest.raises(ConfigError, match="mechanism none moves nothing"):
        rack_of(["monod_chemostat"], ["none"], n=1)
    with pytest.raises(ConfigError, match="takes 0.25 h"):
        rack_of(["monod_chemostat"], [], n=1, every_h=0.1)


async def test_serve_emulator_serves_a_process_file(tmp_path):
    MONOD_CHEMOSTAT.to_toml(tmp_path / "mine.toml")
    command = "serve-emulator --reactors 2 --port 0 --accelerate 43200 --every 6"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perfusio_jax.cli", *command.split()),
        *("--process", "mine.toml", "--node-map", "nodes.toml"),
        cwd=tmp_path,
        env=dict(os.environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        lines = []
        async for line in process.stdout:
            lines.append(line.decode().rstrip())
            if lines[-1].startswith("ready"):
                break
        said = "\n".join(lines)
        assert "2 monod_chemostat" in said
        url = next(line.split()[1] for line in lines if line.startswith("endpoint"))
        connector = OPCUAConnector(
            url,
            tmp_path / "nodes.toml",
            process=MONOD_CHEMOSTAT,
            reactor_id="R02",
            acceleration=43200.0,
            allow_write=True,
            **FAST,
        )
        connector.sample_every(6.0)
        async with connector:

            async def is_later() -> bool:
                return 0.5 in await connector.days_available()

            await until(is_later)
            record = await connector.read_record(0.25)
            assert set(record.values) == {"X", "S", "P"} and record.values["X"] is not None
            await connector.write_setpoints({"dilution": 0.2})
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
