"""A rack of described cultures: samples, set-points, restarts, vessels that fail."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import CHO_FED_BATCH, MONOD_CHEMOSTAT
from perfusio_jax.simulator import (
    DescribedRack,
    described_rack,
    plain_monod,
    simulate_runs,
    virtual_plant,
)
from tests.twin.described import FOREIGN, Foreign


@pytest.fixture(scope="module")
def plants():
    return [
        virtual_plant(FOREIGN, Foreign()),
        virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT)),
    ]


START = {"VCD": 8.0, "DCD": 0.2, "Glc": 4.5, "Lac": 0.8}


def test_vessels_of_two_cultures_are_sampled_together(plants):
    rack = DescribedRack(plants, interval_h=12.0, starts=[START, {}])
    assert rack.day == 0 and rack.sample(0, 0).values["VCD"] == pytest.approx(8.0, rel=0.3)
    fresh = rack.advance(30.0)
    assert [row[0].time_h for row in fresh] == [12.0, 24.0] and rack.time_h == 30.0
    assert [row[1].day for row in fresh] == [0, 1]
    assert set(fresh[0][0].values) == set(FOREIGN.readings)
    assert set(fresh[0][1].values) == set(MONOD_CHEMOSTAT.readings)
    with pytest.raises(DataError, match="no sample 3 yet; there are 0 to 2"):
        rack.sample(0, 3)


def test_without_stops_between_samples_it_is_a_run_of_the_plant(plants):
    rack = DescribedRack(plants[:1], starts=[START], controls=[{"bleed_rate": 0.2}])
    rack.advance(72.0)
    controls = np.tile([1.2, 0.2], (1, 3, 1))
    (run,) = simulate_runs(
        plants[0],
        [[START[n] for n in plants[0].states]],
        controls,
        [0.0, 24.0, 48.0, 72.0],
        key=jax.random.key(0),
        noise=False,
    )
    seen = np.asarray([[rack.sample(0, k).values[n] for n in FOREIGN.readings] for k in range(4)])
    np.testing.assert_allclose(seen, run.species, rtol=0.35, atol=0.4)  # five deviations
    np.testing.assert_allclose(rack._state[0][0], run.species[-1, 0], rtol=1e-10)


def test_the_same_seed_gives_the_same_samples_and_another_others(plants):
    def values(seed):
        rack = DescribedRack(plants[:1], starts=[START], seed=seed)
        rack.advance(24.0)
        return rack.sample(0, 1).values

    assert values(3) == values(3) != values(4)


def test_set_points_act_from_when_they_are_changed(plants):
    rack, still = (DescribedRack(plants[:1], starts=[START]) for _ in range(2))
    for one in (rack, still):
        one.advance(12.0)
    rack.set_controls(0, {"bleed_rate": 0.5})
    for one in (rack, still):
        one.advance(24.0)
    assert rack._state[0][0] < still._state[0][0]
    assert rack.sample(0, 1).controls == {"perfusion_rate": 1.2, "bleed_rate": 0.5}


def test_it_goes_on_where_it_was_saved(plants):
    whole, first = (DescribedRack(plants, interval_h=12.0, starts=[START, {}]) for _ in range(2))
    for rack in (whole, first):
        rack.advance(30.0)
    saved = json.loads(json.dumps(first.snapshot(), allow_nan=False))
    later = DescribedRack(plants, interval_h=12.0).restore(saved)
    for rack in (whole, later):
        rack.advance(60.0)
    assert [later.sample(v, k) for v in (0, 1) for k in range(6)] == [
        whole.sample(v, k) for v in (0, 1) for k in range(6)
    ]


def test_a_state_of_another_rack_is_refused_by_name(plants):
    saved = DescribedRack(plants, interval_h=12.0).snapshot()
    with pytest.raises(DataError, match="sampled every 12 h; this rack has R01, R02, every 24 h"):
        DescribedRack(plants).restore(saved)
    with pytest.raises(DataError, match="state of R01 is of process foreign.*monod_chemostat"):
        DescribedRack(plants[::-1], interval_h=12.0).restore(saved)
    with pytest.raises(DataError, match="cannot be used"):
        DescribedRack(plants, interval_h=12.0).restore({**saved, "state": None})
    with pytest.raises(DataError, match="has shapes"):
        DescribedRack(plants, interval_h=12.0).restore({**saved, "volume_L": [1.0]})


class Greedy(Mechanism):
    """Takes up what is gone, at one speed."""

    speed: jax.Array = constant(5.0, unit="g/L/h")

    def rates(self, state, environment):
        return {"S": -self.speed + 0.0 * state["S"]}


def test_a_vessel_that_fails_stands_still_and_the_others_go_on(plants):
    broken = virtual_plant(MONOD_CHEMOSTAT, Greedy())
    rack = DescribedRack([broken, plants[1]], starts=[{"S": 1.0}, {}])
    rack.advance(48.0)
    assert rack.is_failed.tolist() == [True, False]
    assert set(rack.sample(0, 2).values.values()) == {None}
    assert None not in rack.sample(1, 2).values.values()


def test_vessels_of_one_culture_are_moved_in_one_call_and_each_as_it_would_be_alone(
    plants, monkeypatch
):
    slower = virtual_plant(FOREIGN, Foreign(mu_max=0.03))
    mixed = [plants[0], plants[1], slower, plants[0]]
    starts = [START, {}, START, {**START, "Glc": 0.0}]
    held = [{"bleed_rate": 0.3}, {}, {}, {}]
    calls = []
    for name in ("_advance", "_advance_alike"):
        real = getattr(described_rack, name)
        monkeypatch.setattr(
            described_rack, name, lambda *a, n=name, f=real: (calls.append(n), f(*a))[1]
        )
    rack = DescribedRack(mixed, starts=starts, controls=held, seed=5)
    rack.advance(48.0)
    assert sorted(calls) == sorted(["_advance", "_advance_alike"] * 2)
    for i, plant in enumerate(mixed):
        alone = DescribedRack([plant], starts=[starts[i]], controls=[held[i]], seed=5 + i)
        alone.advance(48.0)
        np.testing.assert_allclose(rack._state[i], alone._state[0], rtol=1e-9, atol=1e-12)
        for name, value in rack.sample(i, 2).values.items():
            assert value == pytest.approx(alone.sample(0, 2).values[name], rel=1e-9), name
    assert rack._state[0][0] != rack._state[2][0], "each has its own constants"


def test_a_vessel_that_fails_takes_none_of_its_like_along():
    sound, broken = (virtual_plant(MONOD_CHEMOSTAT, Greedy(speed=s)) for s in (0.01, 5.0))
    rack = DescribedRack([sound, broken, sound], starts=[{"S": 1.0}] * 3)
    rack.advance(48.0)
    assert rack.is_failed.tolist() == [False, True, False]
    assert rack.sample(0, 2).values["S"] is not None and rack.sample(1, 2).values["S"] is None
    np.testing.assert_array_equal(rack._state[0], rack._state[2])


def test_a_volume_that_moves_and_totals_come_with_the_sample():
    rack = DescribedRack([virtual_plant(CHO_FED_BATCH, plain_monod(CHO_FED_BATCH))])
    assert "volume_L" not in rack.sample(0, 0).values, "it stays as it is"
    moving = FOREIGN.model_copy(update={"streams": FOREIGN.streams[:2]})
    tank = DescribedRack([virtual_plant(moving, Foreign())], controls=[{"bleed_rate": 0.5}])
    tank.advance(24.0)
    grown = 0.3 * np.exp(0.7)  # a day at 1.2 vvd in and 0.5 out
    assert tank.sample(0, 0).values["volume_L"] == pytest.approx(0.3)
    assert tank.sample(0, 1).values["volume_L"] == pytest.approx(grown, rel=1e-5)
    assert tank.volume_of(0) == tank.tags()[0]["volume_L"] == tank.sample(0, 1).values["volume_L"]
    assert "glucose_bolus" in rack.controls(0)
    with pytest.raises(ConfigError, match="glucose_bolus is a bolus, which is given and not held"):
        rack.set_controls(0, {"glucose_bolus": 1.0})
    streams = tuple(s.model_copy(update={"total": f"V_{s.name}_L"}) for s in FOREIGN.streams[:2])
    told = FOREIGN.model_copy(update={"streams": (*streams, FOREIGN.streams[2])})
    rack = DescribedRack([virtual_plant(told, Foreign())])
    rack.advance(24.0)
    sample = rack.sample(0, 1)
    assert sample.values["V_medium_L"] == pytest.approx(1.2 * 0.3)
    assert sample.stream_totals == {"V_bleed_L": pytest.approx(0.1 * 0.3)}
    assert rack.sample(0, 0).stream_totals == {"V_bleed_L": None}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"interval_h": 0.0}, "a time above 0 h"),
        ({"ids": ["A", "A"]}, "2 different names"),
        ({"starts": [{}]}, "need 2 of each; given 1"),
        ({"controls": [{"bleed_rate": 0.9}, {}]}, "bleed_rate is 0.9; a number from 0 to 0.5 vvd"),
        ({"controls": [{"bled_rate": 0.1}, {}]}, "'bled_rate' is no control of foreign"),
    ],
)
def test_what_is_no_rack_is_refused(plants, more, says):
    with pytest.raises(ConfigError, match=says):
        DescribedRack(plants, **more)
    with pytest.raises(ConfigError, match="1 to 24 reactors; 0 were"):
        DescribedRack([])


def test_samples_are_plain_data(plants):
    sample = DescribedRack(plants[:1]).sample(0, 0)
    assert json.dumps(dataclasses.asdict(sample), allow_nan=False)
