"""Probes of described cultures over OPC UA: between samples, at a sample, in the twin's alarms."""

import asyncio

import numpy as np
import pytest

from perfusio_jax.connectors.opcua.shown import node_map_of, shown_of
from perfusio_jax.hybrid import HybridStateSpaceModel, Vessel, save
from perfusio_jax.service.plan import read_plan
from perfusio_jax.simulator import DescribedRack, plain_monod, virtual_plant
from tests.connectors import test_opcua_process as rig
from tests.connectors.test_opcua_process import TANK, Foreign, connect, move, served
from tests.twin.described import FOREIGN, known_model


def probed(process, name):
    quantities = tuple(
        q.model_copy(update={"is_online": q.name == name}) for q in process.quantities
    )
    return process.model_copy(update={"quantities": quantities})


PROBED = probed(TANK, "pH")


def put(rack, name, value):
    """Something happens in the vessel."""
    state = np.array(rack._state[0])
    state[list(rack.plants[0].states).index(name)] = value
    rack._state[0] = state


def test_a_rack_shows_what_probes_read_and_looking_changes_nothing():
    plant = virtual_plant(PROBED, plain_monod(PROBED))
    rack, other = DescribedRack([plant]), DescribedRack([plant])
    assert rack.tags()[0]["pH"] == rack.sample(0, 0).values["pH"]
    rack.advance(6.0)
    (seen,), (again,) = rack.tags(), rack.tags()
    assert set(seen) == {"volume_L", "pH"} and seen == again
    rack.advance(7.0)
    assert rack.tags()[0]["pH"] != seen["pH"]
    rack.advance(24.0)
    other.advance(24.0)
    assert rack.sample(0, 1).values["pH"] == pytest.approx(other.sample(0, 1).values["pH"])
    rack.is_failed[0] = True
    rack.advance(30.0)
    assert rack.tags()[0]["pH"] is None


async def test_a_probe_is_read_now_and_as_it_was_at_the_sample():
    rack = DescribedRack([virtual_plant(PROBED, plain_monod(PROBED))])
    shown = shown_of(PROBED)
    names = list(node_map_of("R01", shown))
    assert names.count("pH") == 1 and set(names) == set(node_map_of("R01", shown_of(TANK)))
    async with (
        served(rack, [shown]) as server,
        connect(server.url, PROBED, shown, sample_slack_s=0.5) as connector,
    ):
        await move(server, 24.0)
        assert (await connector.read_tags())["pH"].value == rack.sample(0, 1).values["pH"]
        at_sample = (await connector.read_record(1)).values
        assert at_sample["pH"] == rack.sample(0, 1).values["pH"]
        await asyncio.sleep(1.1)  # the probe goes on; the sample stays what it was
        put(rack, "pH", 5.0)
        await move(server, 30.0)
        tags = await connector.read_tags()
        assert list(tags) == ["pH"] and tags["pH"].quality == "good"
        assert tags["pH"].value == pytest.approx(5.0, abs=0.5) == rack.tags()[0]["pH"]
        assert (await connector.read_record(1)).values == at_sample
        await move(server, 48.0)
        assert (await connector.read_record(1)).values == at_sample
        server.inject("BadQuality", "R01", "pH")
        await move(server, 49.0)
        assert (await connector.read_tags())["pH"].quality == "bad"


async def test_a_probe_beyond_a_limit_raises_an_alarm_between_samples(tmp_path, monkeypatch):
    process = probed(FOREIGN, "Glc")
    known = known_model()
    model = HybridStateSpaceModel(
        Vessel(process, Foreign(), substeps=8),
        None,
        dt_hours=24.0,
        process_sd=np.asarray([0.002, 0.0005, 0.0003, 0.0003]),
        assay=known.assay,
    )
    rack = DescribedRack([virtual_plant(process, Foreign())], starts=[rig.START])
    shown = shown_of(process)
    monkeypatch.setattr(rig, "FOREIGN", process)
    async with served(rack, [shown], acceleration=1440.0) as server:
        path = rig.written(tmp_path, server.url, shown, hours=24)
        save(model, tmp_path / "model")
        alarms = '[alarms]\nwarning = ["Glc >= 1.0"]\nlead_days = 1\n'
        path.write_text(path.read_text() + alarms)
        plan = read_plan(path)
        with plan.twin("R01", allow_write=False, patience_s=5.0, say=lambda _: None) as twin:
            await move(server, 0.0)
            await twin.step_async(0)
            loop = twin.loop
            loop.attendant.enter("waiting")

            async def standing() -> list[str]:
                await loop._online()
                found = loop.records.standing_alarms("R01")
                return [a.name for a in found if a.name.startswith("online/")]

            await move(server, 3.0)
            assert await standing() == []
            put(rack, "Glc", 0.4)
            await move(server, 3.01)
            assert await standing() == ["online/Glc/below"]
            readings = loop.records.readings("R01", since_h=0.0)
            assert {r.tag for r in readings} == {"Glc"} and readings[-1].value < 0.8

            def broken(_):
                raise RuntimeError("no outlook today")

            monkeypatch.setattr(twin.brain, "outlook", broken)
            assert await standing() == ["online/Glc/below"]
            await twin.connector.close()
    trail = (tmp_path / "audit.jsonl").read_text()
    assert "ALARM_RAISED" in trail and "ONLINE_UNUSED" in trail and "no outlook today" in trail
