"""The connector against a real server in this process: values, quality, history, set-points."""

import asyncio
import datetime as dt
import json
import math
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from asyncua import Client, ua

from perfusio_jax._core import AUXILIARY_TAGS, CONTROL_NAMES, ConnectorError, DataError
from perfusio_jax.connectors import (
    OPCUAConnector,
    RackServer,
    ReplayConnector,
    SampleNotReady,
    rack_node_map,
)
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.opcua.names import CONTROL_RANGES, rack_path
from perfusio_jax.connectors.opcua.records import line_of
from tests.connectors.conformance import Rig, checks, name_of
from tests.connectors.opcua_rigs import (
    FAST,
    CannedRack,
    EmptyRack,
    connect,
    now,
    served,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
DIAGNOSTICS = "/di:DeviceSet/rack:ambr250/rack:Diagnostics/rack:"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[RackServer]:
    async with served(rack=EmptyRack(24)) as server:
        yield server


def vessels():
    yield from (f"R{i:02d}" for i in range(1, 25))


NAMES = vessels()


@pytest.fixture
def vessel() -> str:
    """A vessel no other test of this file has used."""
    return next(NAMES)


@pytest.mark.parametrize(
    ("kind", "quality", "status"),
    [
        ("BadQuality", "bad", "BadSensorFailure"),
        ("UncertainQuality", "uncertain", "UncertainSensorNotAccurate"),
        ("NotANumber", "bad", "not finite: nan"),
        ("Infinite", "bad", "not finite: inf"),
        ("WrongType", "bad", "not a number: str"),
        ("Frozen", "good", "Good"),
        ("Delayed", "good", "Good"),
        ("Stuck", "good", "Good"),
    ],
)
async def test_what_cannot_be_used_is_none_and_says_why(server, kind, quality, status):
    async with connect(server.url, node_map={"pH": DIAGNOSTICS + kind}) as connector:
        first = (await connector.read_tags())["pH"]
        assert (first.quality, first.status) == (quality, status)
        assert (first.value is None) == (quality == "bad")
        await asyncio.sleep(3 * server.tick_s)
        second = (await connector.read_tags())["pH"]
        assert first.source_time is not None and second.source_time is not None
        if kind == "Frozen":
            assert second.source_time == first.source_time
            assert second.age_h > first.age_h
        else:
            assert second.source_time > first.source_time
        if kind == "Delayed":
            assert second.age_h * 3600 > 4.9
        if kind == "Stuck":
            assert second.value == first.value


async def test_a_faulty_sensor_spoils_its_own_value_only(server, vessel):
    async with connect(server.url, vessel) as connector:
        await _switch(server, vessel, "NotANumber", "VCD, Glc")
        await _switch(server, vessel, "BadQuality", "Lac")
        await _switch(server, vessel, "UncertainQuality", "Via")
        await server.put_sample(
            vessel, 1, {"VCD": 5.0, "Glc": 4.0, "Lac": 1.0, "Via": 98.0, "Gln": 2.0}
        )
        record = await connector.read_record(1)
        assert {n: record.quality[n] for n in ("VCD", "Glc", "Lac", "Via", "Gln", "Amm")} == {
            "VCD": "bad",
            "Glc": "bad",
            "Lac": "bad",
            "Via": "uncertain",
            "Gln": "good",
            "Amm": "missing",
        }
        assert record.values["VCD"] is None and record.values["Via"] == 98.0
        assert record.worst_quality == "bad"
        assert any("BadSensorFailure" in note for note in record.notes)
        for kind in ("NotANumber", "BadQuality", "UncertainQuality"):
            await _switch(server, vessel, kind, "")
        await _switch(server, vessel, "WrongType", "VCD")
        await server.put_sample(vessel, 2, {"VCD": 6.0, "Lac": 1.5})
        assert (await connector.read_record(2)).quality["VCD"] == "bad"
        await _switch(server, vessel, "WrongType", "")
        await server.put_sample(vessel, 2, {"VCD": 6.0, "Lac": 1.5})
        record = await connector.read_record(2)
        assert record.values["VCD"] == 6.0 and record.quality["Lac"] == "good"


async def _switch(server: RackServer, vessel: str, kind: str, names: str) -> None:
    node = f"{vessel}.Faults.{kind}"
    async with Client(server.url, timeout=2) as client:
        index = await client.get_namespace_index("urn:perfusio-jax:rack")
        await client.get_node(ua.NodeId(node, index)).write_value(names)


async def test_a_value_of_yesterday_is_not_taken_for_today_s(server, vessel):
    async with connect(server.url, vessel) as connector:
        start = now() - dt.timedelta(seconds=30)
        await server.put_sample(vessel, 1, {"VCD": 5.0, "Glc": 4.0}, at=start)
        server.inject("Frozen", vessel, "VCD")
        await server.put_sample(
            vessel, 2, {"VCD": 6.0, "Glc": 3.0}, at=start + dt.timedelta(seconds=20)
        )
        record = await connector.read_record(2)
        assert (record.values["VCD"], record.quality["VCD"]) == (None, "missing")
        assert record.values["Glc"] == 3.0
        assert any("VCD is 20 s older" in note for note in record.notes)
        await server.put_sample(
            vessel, 3, {"VCD": 7.0, "Glc": 2.0}, at=start + dt.timedelta(seconds=25)
        )
        past = await connector.read_record(2)
        assert (past.values["VCD"], past.values["Glc"]) == (None, 3.0)
        assert "VCD: the server has no value of then" in past.notes
    async with connect(server.url, vessel, sample_slack_s=25.0) as lenient:
        assert (await lenient.read_sample(3))["VCD"] == 5.0
    async with connect(server.url, vessel, stamp_means="changed") as told:
        for day in (3, 2):  # shown, and from the history
            record = await told.read_record(day)
            assert (record.values["VCD"], record.quality["VCD"]) == (5.0, "good")
            assert any(note.startswith("VCD is unchanged since") for note in record.notes)


async def test_history_from_before_a_change_of_unit_is_left_out(server, vessel):
    async with connect(server.url, vessel) as connector:
        for day in (1, 2):
            await server.put_sample(vessel, day, {"VCD": 5.0, "Glc": 4.0})
        assert (await connector.read_sample(1))["Glc"] == 4.0
        unit = server._server.get_node(connector._directory.nodes.found["Glc"].unit_node)
        await unit.write_value(ua.EUInformation(DisplayName=ua.LocalizedText("mmol/L")))
        record = await connector.read_record(2)
        assert record.values["Glc"] == pytest.approx(0.720624)  # as the node states it now
        past = await connector.read_record(1)
        assert (past.values["VCD"], past.values["Glc"]) == (5.0, None)
        assert any("Glc: its unit has changed since" in note for note in past.notes)


async def test_a_late_value_is_read_when_it_has_come(server, vessel):
    server._display.delay_s = 0.0  # due at the next refresh
    try:
        server.inject("Delayed", vessel, "Lac")
        await server.put_sample(vessel, 1, {"VCD": 5.0, "Lac": 9.0})
        async with connect(server.url, vessel) as connector:

            async def has_come() -> bool:
                return (await connector.read_sample(1))["Lac"] is not None

            await until(has_come)
            assert (await connector.read_sample(1))["Lac"] == 9.0
    finally:
        server._display.delay_s = 5.0


async def test_days_that_have_passed_are_read_from_history_and_say_so(server, vessel):
    async with connect(server.url, vessel) as connector:
        for day in range(4):
            values = {"VCD": 1.0 + day, "V_bleed_L": 0.1 * day}
            await server.put_sample(vessel, day, values)
        assert await connector.days_available() == [0, 1, 2, 3]
        record = await connector.read_record(1)
        assert record.values["VCD"] == 2.0 and record.stream_totals["V_bleed_L"] == 0.1
        assert record.time_h == 24.0
        assert record.notes[0] == "day 1 was read from the server's history"
        assert (await connector.read_record(3)).notes == ()
        with pytest.raises(SampleNotReady, match="the last is of day 3"):
            await connector.read_record(4)


async def test_without_history_a_passed_day_is_gone_for_good(server, vessel, monkeypatch):
    async def unsupported(params):
        status = ua.StatusCode(ua.StatusCodes.BadHistoryOperationUnsupported)
        return [ua.HistoryReadResult(StatusCode=status) for _ in params.NodesToRead]

    monkeypatch.setattr(server._server.iserver.history_manager, "read_history", unsupported)
    async with connect(server.url, vessel) as connector:
        await server.put_sample(vessel, 5, {"VCD": 5.0})
        assert await connector.days_available() == [5]
        assert (await connector.read_sample(5))["VCD"] == 5.0
        with pytest.raises(DataError, match="keeps no history"):
            await connector.read_sample(4)


async def test_age_is_counted_in_culture_time_on_the_server_s_clock(server, vessel):
    await server.put_sample(vessel, 1, {"VCD": 5.0}, at=now() - dt.timedelta(seconds=60))
    async with connect(
        server.url, vessel, acceleration=1440.0, now=lambda: dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
    ) as connector:
        record = await connector.read_record(1)
        assert 23.0 < record.age_h < 36.0  # a minute is a day
        clock = await connector.read_clock()
        assert abs((clock - now()).total_seconds()) < 5.0


# ---------------------------------------------------------------- set-points


async def test_a_connector_that_only_reads_sends_nothing(server, vessel):
    rack: CannedRack = server.rack
    async with connect(server.url, vessel, allow_write=False) as connector:
        before = list(rack.written)
        with pytest.raises(PermissionError, match="only reads"):
            await connector.write_setpoints({"temperature": 36.0})
        with pytest.raises(PermissionError):
            await connector.write_setpoints({"nonsense": math.nan})
        assert rack.written == before
    assert OPCUAConnector(server.url, rack_node_map(vessel)).allow_write is False


async def test_values_outside_the_device_s_range_are_not_even_sent(server, vessel):
    rack: CannedRack = server.rack
    async with connect(server.url, vessel) as connector:
        before = list(rack.written)
        for name, (low, high) in CONTROL_RANGES.items():
            for value in (math.nextafter(high, math.inf), math.nextafter(low, -math.inf), 1e9):
                with pytest.raises(DataError, match="outside what its device takes"):
                    await connector.write_setpoints({"temperature": 36.5, name: value})
        assert rack.written == before
        await connector.write_setpoints({"temperature": CONTROL_RANGES["temperature"][1]})


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("temperature", ua.Variant(99.0), "BadOutOfRange"),
        ("temperature", ua.Variant(-1e308), "BadOutOfRange"),
        ("temperature", ua.Variant(math.nan), "BadOutOfRange"),
        ("temperature", ua.Variant(math.inf), "BadOutOfRange"),
        ("temperature", ua.Variant(36), "BadTypeMismatch"),
        ("temperature", ua.Variant(36.0, ua.VariantType.Float), "BadTypeMismatch"),
        ("temperature", ua.Variant("36"), "BadTypeMismatch"),
        ("temperature", ua.Variant([36.0]), "BadTypeMismatch"),
        ("temperature", ua.Variant(True), "BadTypeMismatch"),
        ("bleed_rate", ua.Variant(1.0), "Good"),
        ("perfusion_rate", ua.Variant(0.5), "BadOutOfRange"),  # bleed is 1.0 by now
    ],
)
async def test_the_server_refuses_with_a_status(server, name, value, status):
    async with Client(server.url, timeout=2) as client:
        node = await _node(client, "R24", name)
        before = await node.read_value()
        (result,) = await client.uaclient.write_attributes(
            [node.nodeid], [ua.DataValue(Value=value)], ua.AttributeIds.Value
        )
        assert result.name == status
        assert (await node.read_value() == before) == (status != "Good")
        assert server.rack.controls(23)[name] == await node.read_value()


async def _node(client: Client, reactor_id: str, name: str, leaf: str | None = None):
    uris = await client.get_namespace_array()
    path = rack_path(reactor_id, name, leaf=leaf).relative({u: i for i, u in enumerate(uris)})
    (found,) = await client.translate_browsepaths(ua.NodeId(ua.ObjectIds.ObjectsFolder), [path])
    return client.get_node(found.Targets[0].TargetId)


async def test_the_server_judges_a_request_as_a_whole_and_item_by_item(server, vessel):
    rack: CannedRack = server.rack
    number = server.rack.ids.index(vessel)
    async with Client(server.url, timeout=2) as client:
        names = ["bleed_rate", "perfusion_rate", "agitation"]
        nodes = [(await _node(client, vessel, n)).nodeid for n in names]

        async def write(*values: float) -> list[str]:
            wrapped = [ua.DataValue(Value=ua.Variant(v)) for v in values]
            results = await client.uaclient.write_attributes(nodes, wrapped, ua.AttributeIds.Value)
            return [r.name for r in results]

        # Bleed above the old perfusion, below the new one: one request, one state.
        assert await write(0.9, 2.0, 900.0) == ["Good", "Good", "Good"]
        assert rack.written[-1] == (
            number,
            {"bleed_rate": 0.9, "perfusion_rate": 2.0, "agitation": 900.0},
        )
        assert await write(0.9, 0.5, 950.0) == ["BadOutOfRange", "BadOutOfRange", "Good"]
        assert rack.written[-1] == (number, {"agitation": 950.0})
        assert rack.controls(number)["perfusion_rate"] == 2.0
        doubtful = ua.DataValue(
            Value=ua.Variant(800.0), StatusCode=ua.StatusCode(ua.StatusCodes.UncertainDataSubNormal)
        )
        (result,) = await client.uaclient.write_attributes(
            nodes[2:], [doubtful], ua.AttributeIds.Value
        )
        assert result.name == "BadWriteNotSupported"
        sensor = await _node(client, vessel, "VCD")
        (result,) = await client.uaclient.write_attributes(
            [sensor.nodeid], [ua.DataValue(Value=ua.Variant(1.0))], ua.AttributeIds.Value
        )
        assert result.name == "BadUserAccessDenied"
        with pytest.raises(ua.UaStatusCodeError):
            await client.nodes.objects.add_object(2, "intruder")


async def test_the_space_is_shaped_like_lads_with_units_and_ranges(server):
    async with Client(server.url, timeout=2) as client:
        uris = await client.get_namespace_array()
        assert uris[1] == "urn:perfusio-jax:emulator"
        for name, code, unit in (
            ("Glc", 18252, "g/L"),
            ("Lac", 5059379, "mmol/L"),
            ("Via", 20529, "%"),
            ("pH", 5321520, "pH"),
            ("VCD", -1, "1e6 cells/mL"),
        ):
            node = await _node(client, "R01", name)
            assert (await node.read_browse_name()).Name == "SensorValue"
            properties = {
                (await p.read_browse_name()).Name: await p.read_value()
                for p in await node.get_properties()
            }
            assert properties["EngineeringUnits"].UnitId == code
            assert properties["EngineeringUnits"].DisplayName.Text == unit
            assert properties["EURange"].Low < properties["EURange"].High
            kind = await node.read_type_definition()
            assert kind == ua.NodeId(ua.ObjectIds.AnalogUnitRangeType)
        for name in CONTROL_NAMES:
            target = await _node(client, "R01", name, "TargetValue")
            current = await _node(client, "R01", name, "CurrentValue")
            low, high = CONTROL_RANGES[name]
            limits = await (await target.get_child("0:EURange")).read_value()
            assert (limits.Low, limits.High) == (low, high)
            levels = [await n.get_access_level() for n in (target, current)]
            assert [ua.AccessLevel.CurrentWrite in level for level in levels] == [True, False]
        codes = {}
        for name in CONTROL_NAMES:
            unit = await (await _node(client, "R01", name)).get_child("0:EngineeringUnits")
            codes[name] = (await unit.read_value()).UnitId
        assert codes == {
            "perfusion_rate": 4536625,
            "bleed_rate": 4536625,
            "glucose_setpoint": 18252,
            "temperature": 4408652,
            "agitation": 5394509,
            "pyruvate_feed": 5059379,
        }


# ---------------------------------------------------------------- life


async def test_a_heartbeat_that_stands_still_is_a_dead_device(server, monkeypatch):
    async with connect(server.url, "R01", heartbeat_timeout_s=0.2) as connector:
        assert await connector.is_alive()
        monkeypatch.setattr(server._display, "_beats", iter([7] * 10_000))

        async def is_dead() -> bool:
            return not await connector.is_alive()

        await until(is_dead)
        monkeypatch.undo()
        await until(connector.is_alive)


async def test_nodes_that_are_not_there_are_named_and_missing(server, vessel):
    nodes = {**rack_node_map(vessel), "Lys": "/di:DeviceSet/rack:nothing", "VCD": "ns=99;s=VCD"}
    async with connect(server.url, vessel, node_map=nodes) as connector:
        assert set(await connector.missing_nodes()) == {"Lys", "VCD"}
        await server.put_sample(vessel, 1, {"VCD": 5.0, "Glc": 4.0})
        record = await connector.read_record(1)
        assert record.quality["VCD"] == "missing" and record.values["Glc"] == 4.0
        assert any(note.startswith("Lys: nothing is there") for note in record.notes)
    async with connect(server.url, node_map={"VCD": "ns=99;s=VCD"}) as connector:
        with pytest.raises(ConnectorError, match="none of the nodes"):
            await connector.read_sample(1)
    unmapped = {"VCD": rack_node_map(vessel)["VCD"]}
    async with connect(server.url, vessel, node_map=unmapped) as connector:
        assert (await connector.read_sample(17))["VCD"] == 5.0  # nothing says which day it is
        with pytest.raises(ConnectorError, match="no controls"):
            await connector.read_setpoints()
        with pytest.raises(DataError, match="not a control"):
            await connector.write_setpoints({"temperature": 36.0})


async def test_changes_are_streamed_once_each_and_in_order(server, vessel):
    seen: list[tuple[str, float | None]] = []
    async with connect(server.url, vessel) as connector:
        stream = connector.stream(["sample_day", "VCD", "temperature"], period_s=0.02)
        async with asyncio.timeout(20):
            async for name, reading in stream:
                seen.append((name, reading.value))
                if len(seen) == 3:  # what is there at the start
                    for day in range(1, 31):
                        await server.put_sample(vessel, day, {"VCD": float(day)})
                if seen[-1] == ("sample_day", 30.0):
                    break
        await stream.aclose()
    assert [v for n, v in seen[3:] if n == "VCD"] == [float(day) for day in range(1, 31)]
    assert [v for n, v in seen[3:] if n == "sample_day"] == [float(day) for day in range(1, 31)]


async def test_a_recording_is_replayed_as_it_was(server, vessel, tmp_path):
    path = tmp_path / "deep" / "recording.jsonl"
    async with connect(server.url, vessel, record_to=path) as connector:
        server.inject("NotANumber", vessel, "Lac")
        wanted = []
        for day in (1, 2):
            await server.put_sample(vessel, day, {"VCD": 5.0 + day, "Lac": 1.0})
            wanted.append(await connector.read_record(day))
        tags = await connector.read_tags()
        await connector.write_setpoints({"temperature": 36.5})
        setpoints = await connector.read_setpoints()
    for replay in (
        ReplayConnector(path),
        connect("opc.tcp://127.0.0.1:1/nobody", vessel, replay_log=path),
    ):
        async with replay:
            assert await replay.is_alive()
            assert await replay.days_available() == [1, 2]
            for record in wanted:
                played = await replay.read_record(record.day)
                assert played.values == record.values
                assert played.quality["Lac"] == "bad" and played.values["Lac"] is None
                assert played.source_times["VCD"] == record.source_times["VCD"]
                assert played.tags == record.tags and played.controls == record.controls
            assert await replay.read_tags() == tags and set(tags) == set(AUXILIARY_TAGS)
            assert await replay.read_setpoints() == setpoints
            with pytest.raises(SampleNotReady):
                await replay.read_sample(3)
            await replay.write_setpoints({"temperature": 35.5})
            assert (await replay.read_setpoints())["temperature"] == 35.5
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"day", "node", "value", "quality", "time"} <= set(lines[0])
    assert [x["value"] for x in lines if x["kind"] == "write"] == [36.5]


@pytest.mark.parametrize("check", checks(), ids=name_of)
async def test_a_replay_is_a_connector(check, tmp_path):
    path = tmp_path / "recording.jsonl"
    lines = [
        line_of("sample", name, Reading(value, "good", now(), now()), node="ns=2;s=A", day=day)
        for day in (1, 2, 3)
        for name, value in (("VCD", 5.0 + day), ("Glc", 4.0))
    ]
    path.write_text("".join(lines))
    await check(Rig(ReplayConnector(path)))


async def test_a_long_history_comes_in_pieces(server, vessel):
    server._storage.max_history_data_response_size = 2
    try:
        async with connect(server.url, vessel) as connector:
            for day in range(7):
                await server.put_sample(vessel, day, {"VCD": float(day)})
            assert await connector.days_available() == list(range(7))
            assert (await connector.read_sample(4))["VCD"] == 4.0
    finally:
        server._storage.max_history_data_response_size = 10_000


async def test_a_torn_recording_loses_its_last_line_only(tmp_path):
    path = tmp_path / "r.jsonl"
    good = '{"day": 1, "node_id": "ns=2;s=VCD", "value": 5.0}\n'
    for text, error in (
        (good + "nonsense\n", "line 2 is not JSON"),
        (good + '{"day": -1, "name": "VCD"}\n', "whole number"),
        (good + '{"day": 1, "node": "ns=2;s=X", "value": 1}\n', "nothing says"),
        (good + '{"day": 1, "name": "VCD", "quality": "fine"}\n', "quality is"),
        (good + '{"day": 1, "name": "VCD", "time": "2026-01-01T00:00:00"}\n', "no time zone"),
        ("[]\n", "not a record"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=error):
            ReplayConnector(path, {"ns=2;s=VCD": "VCD"})
    path.write_text(good + '{"day": 2, "name": "VC')
    replay = ReplayConnector(path, {"ns=2;s=VCD": "VCD"})
    assert await replay.read_sample(1) == {"VCD": 5.0}
    assert await replay.days_available() == [1] and replay.notes
    with pytest.raises(ConnectorError):
        ReplayConnector(tmp_path / "nothing.jsonl")


async def test_pauses_between_attempts_double_and_go_on_doubling(monkeypatch):
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("perfusio_jax.connectors.opcua.link._pause", pause)
    settings = {**FAST, "retry_delay_s": 0.5, "patience_s": 1000.0, "max_retries": 3}
    async with connect("opc.tcp://127.0.0.1:1/nobody", **settings) as connector:
        for _ in range(2):
            with pytest.raises(ConnectorError, match="4 attempts"):
                await connector.read_sample(0)
        assert await connector.is_alive() is False
    assert pauses == [0.5, 1.0, 2.0, 8.0, 16.0, 32.0]
