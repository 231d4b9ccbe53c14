"""The virtual plant: not the prior, reproducible, and spread over the ranges it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, REGISTRY, ConfigError
from perfusio_jax.mechanistic import CHOKinetics, Reactor, stack
from perfusio_jax.simulator import (
    DEFAULT_Y0,
    VIRTUAL_CLONES,
    NoiseModel,
    campaign_design,
    initial_state,
    observe,
    rack,
    sample_clones,
    simulate_campaign,
    to_trajectories,
    virtual_kinetics,
    virtual_reactor,
    whole_intervals,
)

DAYS, KEY = 14, jax.random.key(0)
COLUMN = {name: i for i, name in enumerate(REGISTRY)}


@pytest.fixture(scope="module")
def campaign():
    """27 runs, clones X and Y in turn, with noise."""
    design = campaign_design(seed=1)
    clones = [VIRTUAL_CLONES[i % 2] for i in range(27)]
    reactor = Reactor(kinetics=stack([virtual_kinetics(c) for c in clones]))
    initial = jnp.broadcast_to(initial_state()[None, :], (27, 10))
    controls = jnp.broadcast_to(jnp.asarray(design)[:, None, :], (27, DAYS, 6))
    noise = NoiseModel()
    again = simulate_campaign(reactor, initial, controls, noise, key=KEY)
    return reactor, initial, controls, noise, clones, again


# ---------------------------------------------------------------- clones


@pytest.mark.parametrize("clone", VIRTUAL_CLONES)
def test_a_virtual_clone_is_not_the_prior(clone):
    truth, prior = dict(virtual_kinetics(clone).items()), dict(CHOKinetics().items())
    changed = {n for n in truth if float(truth[n]) != float(prior[n])}
    assert {"mu_max", "q_glc_max", "K_d", "cells_oxygen"} <= changed
    # The structural difference: growth is inhibited, which the prior does not know.
    assert float(prior["inhibition_amm"]) == float(prior["inhibition_lac"]) == 0.0
    assert float(truth["inhibition_amm"]) > 0 and float(truth["inhibition_lac"]) > 0


def test_the_clones_differ_in_the_lactate_switch():
    assert float(virtual_kinetics("CloneX").consumes_lactate) == 1.0
    assert float(virtual_kinetics("CloneY").consumes_lactate) == 0.0
    with pytest.raises(ConfigError, match="'CloneZ' is unknown"):
        virtual_kinetics("CloneZ")


def test_a_family_of_clones_is_drawn_around_them():
    family = sample_clones(KEY, 400)
    again = sample_clones(KEY, 400)
    for (name, a), (_, b) in zip(family.items(), again.items(), strict=True):
        assert a.shape == (400,), name
        np.testing.assert_array_equal(a, b)
        assert name == "T_ref" or np.all(np.asarray(a) >= 0), name
    other = sample_clones(jax.random.key(1), 400)
    assert np.all(np.asarray(other.mu_max) != np.asarray(family.mu_max))
    # Lognormal factors of mean one: 0.12 / sqrt(400) is the error of the mean.
    x, y = virtual_kinetics("CloneX"), virtual_kinetics("CloneY")
    switch = np.asarray(family.consumes_lactate)
    assert set(switch.tolist()) == {0.0, 1.0}
    assert abs(switch.mean() - 0.5) < 4 * 0.5 / 20
    ratio = np.asarray(family.mu_max) / np.where(switch == 1, float(x.mu_max), float(y.mu_max))
    assert abs(ratio.mean() - 1.0) < 4 * 0.12 / 20
    assert 0.10 < np.std(np.log(ratio)) < 0.14
    np.testing.assert_array_equal(family.T_ref, np.full(400, 37.0))


def test_without_spread_every_clone_is_one_of_the_two():
    family = sample_clones(KEY, 5, spread=0.0, switch_probability=1.0)
    np.testing.assert_allclose(family.mu_max, float(virtual_kinetics("CloneX").mu_max))
    with pytest.raises(ConfigError, match="0 clones"):
        sample_clones(KEY, 0)


# ---------------------------------------------------------------- start and readings


def test_the_start_is_the_measured_face_without_lysed_cells():
    state = np.asarray(initial_state())
    assert state[0] == 2.0 and state[2] == 0.0
    assert state[1] == pytest.approx(2.0 * (100.0 / 98.5 - 1.0))
    assert float(initial_state({"Glc": 3.0})[3]) == 3.0


@pytest.mark.parametrize(
    ("y0", "match"),
    [
        ({"O2": 1.0}, r"unknown species \['O2'\]"),
        ({"Glc": -1.0}, "must be finite, >= 0"),
        ({"Gln": float("nan")}, "must be finite"),
        ({"Via": 0.0}, r"viability in \(0, 100\]"),
        ({"Via": 101.0}, r"viability in \(0, 100\]"),
    ],
)
def test_a_start_that_means_nothing_is_refused(y0, match):
    with pytest.raises(ConfigError, match=match):
        initial_state(y0)


def test_readings_follow_their_definitions():
    kinetics = virtual_kinetics("CloneX")
    state = jnp.asarray([20.0, 2.0, 1.5, 4.0, 3.0, 0.5, 8.0, 2.0, 0.3, 250.0])
    reading = dict(zip(REGISTRY, np.asarray(observe(kinetics, state)).tolist(), strict=True))
    via = 100.0 * 20.0 / 22.0
    diameter = 20.5 * 0.985 + 4.0 * (1.0 - via / 100.0)
    assert reading["Via"] == pytest.approx(via)
    assert reading["Diam"] == pytest.approx(diameter)
    assert reading["VCV"] == pytest.approx(1e-4 * 20.0 * np.pi * diameter**3 / 6.0)
    assert (reading["VCD"], reading["DCD"], reading["Lys"]) == (20.0, 2.0, 1.5)
    assert (reading["Glc"], reading["Lac"], reading["Titer"]) == (4.0, 8.0, 250.0)


# ---------------------------------------------------------------- the campaign


def test_the_design_is_box_behnken_in_four_and_a_hypercube_in_two():
    design = campaign_design(seed=1)
    assert design.shape == (27, 6)
    low = np.array([0.5, 0.05, 2.0, 35.0, 700.0, 0.0])
    high = np.array([2.0, 0.30, 8.0, 37.5, 1050.0, 5.0])
    assert np.all(design >= low) and np.all(design <= high)
    coded = (design - 0.5 * (low + high)) / (0.5 * (high - low))
    four = np.round(coded[:, :4], 9)
    moved = np.sum(np.abs(four) == 1.0, axis=1)
    assert np.all(np.isin(four, [-1.0, 0.0, 1.0]))
    assert sorted(moved.tolist()) == [0] * 3 + [2] * 24
    assert len(np.unique(four, axis=0)) == 25
    for column in (4, 5):  # one value in each of 27 layers
        layers = np.floor(27 * (coded[:, column] + 1.0) / 2.0).astype(int)
        assert sorted(layers.tolist()) == list(range(27))
    assert not np.array_equal(design, campaign_design(seed=2))
    fixed = campaign_design(spread=False)
    assert np.all(fixed[:, 4] == 875.0) and np.all(fixed[:, 5] == 2.5)


def test_the_space_spans_what_the_design_promises(campaign):
    """About 8-60 e6 cells/mL, VCV 4-27 %, viability from below 90 % to above 97 %."""
    truth = np.asarray(campaign[-1].truth)
    assert np.all(np.asarray(campaign[-1].result) == 0)
    late = truth[:, 8:]
    cells, vcv, via = (late[..., COLUMN[n]] for n in ("VCD", "VCV", "Via"))
    assert 3.0 < cells.min() < 15.0 and 35.0 < cells.max() < 75.0
    assert 1.5 < vcv.min() < 8.0 and 18.0 < vcv.max() < 35.0
    assert 70.0 < via.min() < 91.0 and via.max() > 96.5
    assert np.all(truth >= -1e-5)


def test_best_runs_are_not_the_extremes_of_every_control(campaign):
    """The most product is not made where every factor is at an end of its range."""
    design = np.asarray(campaign[2][:, 0])
    best = design[int(np.argmax(np.asarray(campaign[-1].truth)[:, -1, COLUMN["Titer"]]))]
    low, high = design.min(axis=0), design.max(axis=0)
    assert np.any((best > low) & (best < high))


def test_readings_of_a_campaign_have_the_shape_of_a_sample_sheet(campaign):
    _, initial, controls, _, _, readings = campaign
    assert readings.truth.shape == (27, DAYS + 1, 13)
    assert readings.measured.shape == (27, DAYS + 1, 12)
    np.testing.assert_array_equal(readings.controls[:, :-1], controls)
    np.testing.assert_array_equal(readings.controls[:, -1], controls[:, -1])
    np.testing.assert_allclose(readings.truth[:, 0, 0], initial[:, 0])
    times = np.asarray(readings.times_h)
    nominal = 24.0 * np.arange(DAYS + 1)
    assert np.all(times[:, 0] == 0) and np.all(np.diff(times, axis=1) > 0)
    assert 0.5 < np.max(np.abs(times - nominal)) <= 1.0
    # Streams of the interval before; the set-points give perfusion and bleed.
    streams, hours = np.asarray(readings.stream_totals), np.diff(times, axis=1)
    assert np.all(np.isnan(streams[:, 0]))
    expected = 0.25 * np.asarray(controls)[..., :2] * hours[..., None] / 24.0
    np.testing.assert_allclose(streams[:, 1:, :2], expected, rtol=1e-9)
    assert np.all(streams[:, 1:, 2] > 0) and np.all(streams[:, 1:, 3] == 0)


def test_noise_has_its_size_and_its_share_of_missing_values(campaign):
    readings = campaign[-1]
    truth, measured = np.asarray(readings.truth)[..., :12], np.asarray(readings.measured)
    own = [FORECAST_SPECIES.index(n) for n in ("VCD", "Via", "Diam", "Glc", "Gln", "Lac", "Titer")]
    n = measured[..., own].size
    missing = np.mean(np.isnan(measured[..., own]))
    assert abs(missing - 0.05) < 4 * np.sqrt(0.05 * 0.95 / n)
    for name, cv in (("VCD", 0.05), ("Glc", 0.07), ("Diam", 0.01)):
        k = FORECAST_SPECIES.index(name)
        ratio = (measured[..., k] / truth[..., k]).ravel()
        ratio = ratio[np.isfinite(ratio)]
        assert abs(np.std(ratio) / cv - 1.0) < 4 / np.sqrt(2 * ratio.size)
        assert abs(np.mean(ratio) - 1.0) < 4 * cv / np.sqrt(ratio.size)
    # VCV and DCD are computed from the readings they are made of.
    vcd, vcv, via, diameter, dcd = (
        measured[..., FORECAST_SPECIES.index(n)] for n in ("VCD", "VCV", "Via", "Diam", "DCD")
    )
    np.testing.assert_allclose(vcv, 1e-4 * vcd * np.pi * diameter**3 / 6.0)
    np.testing.assert_allclose(dcd, vcd * (100.0 / via - 1.0), atol=1e-9)


def test_the_key_decides_and_runs_draw_on_their_own(campaign):
    reactor, initial, controls, noise, _, readings = campaign
    same = simulate_campaign(reactor, initial, controls, noise, key=KEY)
    np.testing.assert_array_equal(same.measured, readings.measured)
    other = simulate_campaign(reactor, initial, controls, noise, key=jax.random.key(9))
    assert not np.any(np.asarray(other.measured)[..., 3] == np.asarray(readings.measured)[..., 3])
    # Centre points of one clone share their truth at the start, and no reading.
    first = np.asarray(readings.measured)[:, 0]
    values = first[np.isfinite(first[:, 0]), 0]
    assert len(np.unique(values)) == len(values)


def test_trajectories_carry_ids_times_and_streams(campaign):
    clones, readings = campaign[-2:]
    runs = to_trajectories(readings, clone_ids=clones)
    assert [t.run_id for t in runs[:2]] == ["RUN001", "RUN002"] and len(runs) == 27
    assert runs[1].clone_id == "CloneY" and runs[0].species_names == FORECAST_SPECIES
    assert runs[0].control_names == CONTROL_NAMES
    np.testing.assert_array_equal(runs[3].species, readings.measured[3])
    np.testing.assert_array_equal(runs[3].times_h, readings.times_h[3])
    clean = to_trajectories(readings, clone_ids=clones, truth=True, run_ids=list("abc" * 9))
    np.testing.assert_array_equal(clean[3].species, readings.truth[3, :, :12])
    with pytest.raises(ConfigError, match="27 runs need 27 clone ids"):
        to_trajectories(readings, clone_ids=["CloneX"])


# ---------------------------------------------------------------- racks


def test_a_rack_has_a_clone_and_a_key_for_each_vessel():
    reactor, keys = rack(["CloneX"] * 12 + ["CloneY"] * 12, key=KEY, spread=0.5)
    assert reactor.kinetics.mu_max.shape == (24,) and len(keys) == 24
    data = {tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in keys}
    assert len(data) == 24
    mu = np.asarray(reactor.kinetics.mu_max)
    assert len(np.unique(mu)) == 24 and mu[:12].mean() > mu[12:].mean()
    same, _ = rack(["CloneX", "CloneX"], key=KEY)
    np.testing.assert_array_equal(
        same.kinetics.mu_max, np.full(2, float(virtual_reactor("CloneX").kinetics.mu_max))
    )


@pytest.mark.parametrize("n", [0, 25])
def test_a_rack_holds_one_to_twenty_four(n):
    with pytest.raises(ConfigError, match=f"1 to 24 reactors; {n} were"):
        rack(["CloneX"] * n, key=KEY)


def test_every_default_is_a_species():
    assert set(DEFAULT_Y0) <= set(REGISTRY)


def test_a_campaign_is_sampled_at_any_interval(campaign):
    reactor, initial, controls, _, clones, _ = campaign
    quiet = NoiseModel(jitter_hours=0.0)
    daily = simulate_campaign(reactor, initial, controls, quiet, key=KEY)
    halves = simulate_campaign(reactor, initial, controls, quiet, key=KEY, interval_h=12.0)
    assert np.array_equal(halves.times_h[0], 12.0 * np.arange(DAYS + 1))
    # the plant is the same, whenever somebody looks
    np.testing.assert_allclose(halves.truth[:, ::2], daily.truth[:, : DAYS // 2 + 1], rtol=2e-3)
    assert to_trajectories(halves, clone_ids=clones)[0].days.tolist()[:5] == [0, 1, 1, 2, 2]
    week = np.asarray([24.0, 24.0, 24.0, 24.0, 72.0, 24.0, 24.0])
    apart = np.tile(week, 2)
    weekly = simulate_campaign(reactor, initial, controls, quiet, key=KEY, interval_h=apart)
    assert np.array_equal(np.diff(weekly.times_h[0]), apart)
    np.testing.assert_allclose(weekly.truth[:, 5], daily.truth[:, 7], rtol=2e-3)


@pytest.mark.parametrize("interval", [0.0, -12.0, float("nan"), 2.0, [24.0, 24.0]])
def test_intervals_that_cannot_be_are_refused(interval):
    plan = virtual_reactor(), initial_state()[None], jnp.ones((1, 3, 6)), NoiseModel()
    with pytest.raises(ConfigError, match="interval_h="):  # two hours: samples could change places
        simulate_campaign(*plan, key=KEY, interval_h=interval)
    if isinstance(interval, float) and not interval >= 2.0:
        with pytest.raises(ConfigError, match="no whole number"):
            whole_intervals(3, interval)


def test_days_are_a_whole_number_of_intervals():
    assert [whole_intervals(3, h) for h in (24.0, 12.0, 36.0, 72.0)] == [3, 6, 2, 1]
    with pytest.raises(ConfigError, match="every 25 h: 3 d are 72 h"):
        whole_intervals(3, 25.0)
