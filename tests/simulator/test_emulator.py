"""The virtual rack and the emulator over it. One compile for all racks of this file."""

import asyncio
import json

import numpy as np
import pytest

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    FORECAST_SPECIES,
    ConfigError,
    DataError,
)
from perfusio_jax.connectors import Ambr250Emulator, SampleNotReady
from perfusio_jax.connectors.culture_clock import CultureClock
from perfusio_jax.simulator import (
    CHOSimulator,
    NoiseModel,
    StuckSensor,
    SwappedReactors,
    VirtualRack,
    virtual_rack,
)
from tests.connectors.conformance import Rig, checks, name_of

SILENT = NoiseModel(cv_by_species={}, default_cv=0.0, missing_prob=0.0)
VCD = FORECAST_SPECIES.index("VCD")


class Seconds:
    """Real time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_compile_whatever_the_number_of_vessels(monkeypatch, traces):
    monkeypatch.setattr(virtual_rack, "make_plan", traces(virtual_rack.make_plan))
    for clones in (["CloneX"], ["CloneX", "CloneY", "CloneX"], ["CloneY"] * 24):
        rack = VirtualRack(clones)
        rack.advance(7.5)
        rack.set_controls(0, {"temperature": 36.0})
        rack.advance(24.0)
    assert traces.count <= 1  # none if another test has compiled it before


def test_the_rack_samples_what_a_single_simulator_samples():
    rack = VirtualRack(["CloneY", "CloneX"], seed=41)
    rack.advance(72.0)
    single = asyncio.run(CHOSimulator(clone="CloneX", seed=42).read_sample(3))
    found = rack.sample(1, 3).values
    assert set(found) == set(single)
    for name, wanted in single.items():
        assert found[name] == pytest.approx(wanted, rel=1e-3) if wanted else found[name] is None


def test_small_steps_and_large_ones_agree_and_days_come_due_once():
    small, large = (VirtualRack(["CloneX", "CloneY"], noise=SILENT) for _ in range(2))
    due = [d for h in np.arange(0.7, 60.0, 0.7) for d in small.advance(float(h))]
    assert [row[0].day for row in due] == [1, 2]
    small.advance(60.0)
    assert [row[0].day for row in large.advance(60.0)] == [1, 2]
    assert large.advance(10.0) == [] and large.time_h == 60.0
    np.testing.assert_allclose(small.truth(), large.truth(), rtol=2e-3)
    for row in due:
        streams = row[0].stream_totals
        perfused = streams["V_perfusion_L"]
        assert perfused == pytest.approx(0.25 * rack_control(large, "perfusion_rate"), rel=1e-6)
    assert due[0][0].stream_totals["V_sample_L"] == 0.0
    assert small.sample(0, 0).stream_totals["V_perfusion_L"] is None


def rack_control(rack: VirtualRack, name: str) -> float:
    return rack.controls(0)[name]


def test_a_set_point_acts_from_its_time_on_and_on_its_vessel_only():
    rack = VirtualRack(["CloneX", "CloneX"], noise=SILENT)
    rack.advance(60.0)
    before = rack.truth()
    np.testing.assert_array_equal(before[0], before[1])
    rack.set_controls(1, {"bleed_rate": 0.6})
    rack.advance(96.0)
    after = rack.truth()
    assert after[1, VCD] < 0.9 * after[0, VCD]
    assert rack.sample(1, 2).controls["bleed_rate"] != 0.6
    assert rack.sample(1, 3).controls["bleed_rate"] == 0.6
    with pytest.raises(ConfigError):
        rack.set_controls(0, {"bleed_rate": 3.0})
    assert rack.controls(0)["bleed_rate"] < 1.0


def test_a_snapshot_goes_on_as_if_nothing_had_happened():
    def made() -> VirtualRack:
        return VirtualRack(["CloneX", "CloneY"], faults=[StuckSensor(column=VCD, start=1)])

    whole, first = made(), made()
    whole.advance(30.0)
    first.advance(30.0)
    second = made().restore(json.loads(json.dumps(first.snapshot())))
    for rack in (whole, second):
        rack.set_controls(1, {"temperature": 36.0})
        rack.advance(75.0)
    assert second.time_h == 75.0 and second.day == 3
    for vessel in (0, 1):
        for day in range(4):
            assert second.sample(vessel, day) == whole.sample(vessel, day)
    assert second.tags() == whole.tags()
    with pytest.raises(DataError, match="this rack has"):
        VirtualRack(["CloneX"]).restore(first.snapshot())
    with pytest.raises(DataError, match="cannot be used"):
        made().restore({"ids": ["R01", "R02"], "clones": ["CloneX", "CloneY"]})


def test_faults_reach_the_samples_and_a_past_sample_stays():
    rack = VirtualRack(["CloneX", "CloneY"], noise=SILENT, faults=[SwappedReactors(0, 1, start=2)])
    plain = VirtualRack(["CloneX", "CloneY"], noise=SILENT)
    for r in (rack, plain):
        r.advance(48.0)
    assert rack.sample(0, 1) == plain.sample(0, 1)
    assert rack.sample(0, 2).values == plain.sample(1, 2).values
    held = rack.sample(0, 2)
    rack.faults.append(StuckSensor(column=VCD, start=1))
    rack.advance(72.0)
    assert rack.sample(0, 2) == held
    assert rack.sample(0, 3).values["VCD"] == plain.sample(0, 1).values["VCD"]


def test_a_vessel_that_fails_stands_still_and_the_others_go_on():
    rack = VirtualRack(["CloneX", "CloneY"], noise=SILENT)
    rack._state[0] = np.nan
    rack.advance(24.0)
    assert rack.is_failed.tolist() == [True, False]
    assert set(rack.sample(0, 1).values.values()) == {None}
    assert rack.tags()[0]["pH"] is None
    assert rack.sample(1, 1).values["VCD"] > rack.sample(1, 0).values["VCD"]


def test_tags_have_levels_that_make_sense():
    rack = VirtualRack(["CloneX"])
    rack.advance(100.0)
    (tags,) = rack.tags()
    assert tuple(tags) == AUXILIARY_TAGS
    assert 6.5 < tags["pH"] < 7.6 and 30 < tags["DO"] < 50 and 200 < tags["osmolality"] < 500
    vcv = rack.truth()[0, FORECAST_SPECIES.index("VCV")]
    assert tags["capacitance"] == pytest.approx(0.4 + 3.0 * vcv, abs=1.0)
    assert rack.tags()[0] != tags  # probes have noise


def test_what_makes_no_sense_is_refused():
    for kwargs in (
        {"clones": []},
        {"clones": ["CloneX"] * 25},
        {"clones": ["CloneZ"]},
        {"clones": ["CloneX"], "volume_L": 0.0},
        {"clones": ["CloneX", "CloneX"], "ids": ["A", "A"]},
        {"clones": ["CloneX", "CloneX"], "controls": [{}]},
    ):
        with pytest.raises(ConfigError):
            VirtualRack(**kwargs)
    for acceleration in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError):
            CultureClock(acceleration)
    with pytest.raises(ConfigError):
        Ambr250Emulator.five_reactor_ensemble(clones=["CloneX"])


def test_the_clock_stops_and_goes_on():
    seconds = Seconds()
    clock = CultureClock(3600.0, monotonic=seconds)
    seconds.now += 2.0
    assert clock.time_h == pytest.approx(2.0)
    clock.pause()
    seconds.now += 50.0
    assert clock.time_h == pytest.approx(2.0) and not clock.is_running
    clock.run()
    seconds.now += 1.0
    assert clock.time_h == pytest.approx(3.0)
    assert clock.seconds_per_day == pytest.approx(24.0)


@pytest.mark.parametrize("check", checks(), ids=name_of)
async def test_the_emulator_is_a_connector(check):
    await check(Rig(Ambr250Emulator(noise=SILENT)))


async def test_unpaced_reading_a_day_moves_the_vessel_on():
    emulator = Ambr250Emulator(clone="CloneX", seed=0)
    assert await emulator.is_alive()
    fifth = await emulator.read_sample(day=5)
    assert emulator.day == 5 and fifth["VCD"] != (await emulator.read_sample(1))["VCD"]
    assert await emulator.read_sample(5) == fifth
    assert await emulator.days_available() == [0, 1, 2, 3, 4, 5]
    record = await emulator.read_record(5)
    assert record.stream_totals["V_perfusion_L"] > 0 and record.age_h == 0.0
    for wrong in (-1, 1.5):
        with pytest.raises(DataError):
            await emulator.read_sample(wrong)


async def test_paced_a_day_comes_with_time():
    seconds = Seconds()
    emulator = Ambr250Emulator(acceleration=8640.0, is_paced=True, monotonic=seconds)
    assert (await emulator.read_record(0)).day == 0
    with pytest.raises(SampleNotReady, match="day 1 has not come"):
        await emulator.read_sample(1)
    seconds.now += 25.0  # two and a half days
    assert await emulator.days_available() == [0, 1, 2]
    assert (await emulator.read_record(1)).age_h == pytest.approx(36.0)
    await emulator.write_setpoints({"temperature": 36.0})
    assert (await emulator.read_setpoints())["temperature"] == 36.0
    assert (await emulator.read_back())["temperature"].value == 36.0
    seconds.now += 10.0
    record = await emulator.read_record(3)
    assert record.controls["temperature"] == 36.0
    assert set(await emulator.read_tags()) == set(AUXILIARY_TAGS)


async def test_vessels_of_one_rack_share_its_clock_and_keep_their_own_set_points():
    seconds = Seconds()
    rack = VirtualRack(["CloneX"] * 3)
    vessels = Ambr250Emulator.of_rack(rack, 8640.0, monotonic=seconds)
    await vessels[1].write_setpoints({"agitation": 900.0})
    seconds.now += 10.5
    samples = await asyncio.gather(*(v.read_record(1) for v in vessels))
    assert [s.reactor_id for s in samples] == ["R01", "R02", "R03"]
    assert [s.controls["agitation"] == 900.0 for s in samples] == [False, True, False]


async def test_five_reactors_are_independent():
    five = Ambr250Emulator.five_reactor_ensemble(seed_start=3)
    assert [e.clone for e in five] == ["CloneX"] * 3 + ["CloneY"] * 2
    samples = await asyncio.gather(*(e.read_sample(1) for e in five))
    assert len({s["Diam"] for s in samples} - {None}) >= 4
    await five[0].read_sample(2)
    assert [e.day for e in five] == [2, 1, 1, 1, 1]
    same = Ambr250Emulator(clone="CloneX", seed=3)
    assert await same.read_sample(1) == samples[0]


async def test_set_points_are_checked_before_anything_changes():
    emulator = Ambr250Emulator()
    before = await emulator.read_setpoints()
    for bad in ({}, {"pH": 7.0}, {"temperature": float("nan")}, {"agitation": True}):
        with pytest.raises(DataError):
            await emulator.write_setpoints(bad)
    with pytest.raises(ConfigError):
        await emulator.write_setpoints({"bleed_rate": 5.0})
    assert await emulator.read_setpoints() == before
    assert tuple(before) == CONTROL_NAMES


def test_a_clean_run_is_the_plant_s_own():
    emulator = Ambr250Emulator(clone="CloneY", controls={"bleed_rate": 0.3})
    run = emulator.simulate_run(n_days=3)
    assert run.shape == (4, 9)
    rack = VirtualRack(["CloneY"], controls={"bleed_rate": 0.3}, noise=SILENT)
    rack.advance(72.0)
    assert run[3, 0] == pytest.approx(rack.sample(0, 3).values["VCD"], rel=2e-3)
