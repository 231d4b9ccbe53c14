"""The virtual reactor behind the connector interface: state carried on, never simulated again."""

import asyncio

import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, BioreactorConnector, ConfigError, DataError
from perfusio_jax.simulator import (
    CHOSimulator,
    NoiseModel,
    campaign_design,
    five_reactors,
)

EXACT = NoiseModel(cv_by_species={}, default_cv=0.0, missing_prob=0.0, jitter_hours=0.0)


def read(simulator, day):
    return asyncio.run(simulator.read_sample(day))


def write(simulator, **setpoints):
    asyncio.run(simulator.write_setpoints(setpoints))


def test_it_is_a_connector():
    simulator = CHOSimulator()
    assert isinstance(simulator, BioreactorConnector)
    assert asyncio.run(simulator.is_alive())
    assert list(simulator.controls) == list(CONTROL_NAMES)
    assert CHOSimulator(acceleration=86400.0).seconds_per_day == 1.0


def test_reading_a_day_moves_on_and_reading_it_again_gives_the_same():
    simulator = CHOSimulator(seed=3)
    third = read(simulator, 3)
    assert simulator.day == 3 and set(third) >= {"VCD", "VCV", "Via", "Glc", "Titer"}
    assert read(simulator, 1) != third
    assert read(simulator, 3) == third and simulator.day == 3
    twin = CHOSimulator(seed=3)
    for day in range(4):  # day by day or at once: the same reactor
        again = read(twin, day)
    assert again == third
    assert read(CHOSimulator(seed=4), 3) != third


def test_set_points_act_from_now_on_and_the_past_stays():
    steady, changed = CHOSimulator(), CHOSimulator()
    read(steady, 3)
    read(changed, 3)
    past = [changed.truth(d) for d in range(4)]
    write(changed, perfusion_rate=0.5, temperature=35.0)
    assert [changed.truth(d) for d in range(4)] == past
    assert past == [steady.truth(d) for d in range(4)]
    read(steady, 5)
    read(changed, 5)
    assert [changed.truth(d) for d in range(4)] == past
    assert changed.truth(4)["Gln"] < steady.truth(4)["Gln"]
    assert changed.truth(5)["VCD"] < steady.truth(5)["VCD"]
    # Controls that were not named keep their values, and the streams tell which were in force.
    assert changed.controls["bleed_rate"] == steady.controls["bleed_rate"] == 0.175
    np.testing.assert_allclose(changed.stream_totals(3)[:2], [0.25 * 1.25, 0.25 * 0.175])
    np.testing.assert_allclose(changed.stream_totals(4)[:2], [0.25 * 0.5, 0.25 * 0.175])
    assert np.all(np.isnan(changed.stream_totals(0)))


def test_without_noise_a_sample_is_the_truth_and_a_run_the_same_curve():
    simulator = CHOSimulator(clone="CloneY", noise=EXACT, y0={"VCD": 1.0})
    sample = read(simulator, 2)
    truth = simulator.truth(2)
    assert sample == pytest.approx(truth)
    assert simulator.truth(0)["VCD"] == 1.0
    run = simulator.simulate_run(n_days=2)
    assert run.shape == (3, 9)
    face = [truth[s] for s in CHOSimulator.STATE_SPECIES]
    np.testing.assert_allclose(run[2], face, rtol=1e-3)
    richer = simulator.simulate_run(n_days=2, controls={"pyruvate_feed": 5.0}, seed=1)
    assert richer[2, 7] > run[2, 7] and simulator.controls["pyruvate_feed"] == 2.5


@pytest.mark.parametrize(
    ("setpoints", "match"),
    [
        ({"pH": 7.0}, "'pH'"),
        ({"temperature": float("nan")}, "finite"),
        ({"agitation": float("inf")}, "finite"),
        ({"bleed_rate": 3.0}, "exceeds perfusion_rate"),
        ({"perfusion_rate": 0.1}, "exceeds perfusion_rate"),
    ],
)
def test_set_points_that_mean_nothing_are_refused_and_change_nothing(setpoints, match):
    simulator = CHOSimulator()
    before = simulator.controls
    with pytest.raises(ConfigError, match=match):
        write(simulator, **setpoints)
    assert simulator.controls == before


def test_what_lies_outside_the_run_is_refused():
    simulator = CHOSimulator()
    with pytest.raises(DataError, match="day -1"):
        read(simulator, -1)
    for look in (simulator.truth, simulator.stream_totals):
        with pytest.raises(DataError, match="days 0 to 0 have"):
            look(1)
        with pytest.raises(DataError, match="day -1"):
            look(-1)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"clone": "CloneZ"}, "CloneZ"),
        ({"acceleration": 0.0}, "acceleration is 0.0"),
        ({"volume_L": -1.0}, "volume_L is -1.0"),
        ({"y0": {"VCD": -1.0}}, "finite, >= 0"),
        ({"controls": {"bleed_rate": 9.0}}, "exceeds perfusion_rate"),
    ],
)
def test_a_reactor_that_cannot_be_is_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        CHOSimulator(**settings)


def test_five_reactors_do_not_share_anything():
    reactors = five_reactors(seed_start=10)
    assert [r.clone for r in reactors] == ["CloneX"] * 3 + ["CloneY"] * 2
    samples = [read(r, 1) for r in reactors]
    titers = [s["Titer"] for s in samples if s["Titer"] is not None]
    assert len(set(titers)) == len(titers) >= 3
    write(reactors[0], temperature=35.0)
    assert [r.controls["temperature"] for r in reactors] == [35.0] + [36.25] * 4
    read(reactors[0], 2)
    assert [r.day for r in reactors] == [2, 1, 1, 1, 1]
    assert reactors[1].truth(1) == reactors[2].truth(1) != reactors[3].truth(1)


def test_the_published_campaign_has_27_runs():
    runs = CHOSimulator(seed=1).generate_box_behnken_experiment(n_days=2, seed=5)
    assert len(runs) == 27
    assert set(runs[0]) == {"run_id", "controls", "trajectory", "noisy_samples"}
    assert [r["run_id"] for r in runs] == list(range(27))
    assert all(r["trajectory"].shape == (3, 9) and len(r["noisy_samples"]) == 3 for r in runs)
    given = np.array([[r["controls"][n] for n in CONTROL_NAMES] for r in runs])
    assert np.ptp(given[:, 4]) == np.ptp(given[:, 5]) == 0.0
    ranges = {"perfusion_rate": (0.5, 1.5), "bleed_rate": (0.1, 0.2), "temperature": (36.5, 37.5)}
    for name, (low, high) in ranges.items():
        column = given[:, CONTROL_NAMES.index(name)]
        assert column.min() == pytest.approx(low) and column.max() == pytest.approx(high)
    clean = np.array([r["trajectory"][2, 0] for r in runs])
    noisy = np.array([r["noisy_samples"][2]["VCD"] for r in runs], float)
    seen = np.isfinite(noisy)
    assert 0.02 < np.std(noisy[seen] / clean[seen]) < 0.10
    assert campaign_design().shape == (27, 6)


def test_samples_may_be_taken_at_any_interval():
    sim = CHOSimulator(seed=3)
    sim.sample_every(12.0)
    half = asyncio.run(sim.read_sample(0.5))
    asyncio.run(sim.read_sample(2))
    assert sim.day == 2 and type(sim.day) is int
    clean = CHOSimulator(seed=3).simulate_run(2, interval_h=12.0)
    for row, day in enumerate((0, 0.5, 1, 1.5, 2)):
        assert sim.truth(day)["VCD"] == pytest.approx(clean[row, 0], rel=1e-6)
    assert half == asyncio.run(sim.read_sample(0.5)) != asyncio.run(sim.read_sample(1))
    daily = CHOSimulator(seed=3)
    asyncio.run(daily.read_sample(1))
    both = sim.stream_totals(0.5) + sim.stream_totals(1)
    np.testing.assert_allclose(both[:2], daily.stream_totals(1)[:2], rtol=1e-6)
    thirds = CHOSimulator()
    thirds.sample_every(8.0)
    asyncio.run(thirds.read_sample(7 / 3))
    assert thirds.day == 7 / 3


def test_a_day_nobody_samples_on_and_another_interval_in_mid_run_are_refused():
    sim = CHOSimulator()
    with pytest.raises(DataError, match="day 0.5 is not a culture day; days are whole numbers"):
        asyncio.run(sim.read_sample(0.5))
    sim.sample_every(12.0)
    with pytest.raises(DataError, match="day 0.3 .* taken every 12 h from day 0 on"):
        asyncio.run(sim.read_sample(0.3))
    asyncio.run(sim.read_sample(0.5))
    sim.sample_every(12.0)
    with pytest.raises(ConfigError, match=r"every 24 h was asked for; .* every 12 h up to day 0.5"):
        sim.sample_every(24.0)
    with pytest.raises(ConfigError, match="hours above 0"):
        sim.sample_every(0.0)
