"""Levers and outputs of runs: names, values, what happens when one is pulled, bad words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.mechanistic import simulate
from perfusio_jax.mechanistic.runs import make_plan
from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.simulator import observe, plain_monod, run_plant, virtual_plant, virtual_reactor
from perfusio_jax.study import (
    cho_experiment,
    choose_levers,
    described_experiment,
    every_sample,
    lognormal,
    normal,
    read_output,
    read_outputs,
    uniform,
)
from perfusio_jax.study.outputs import measure
from tests.study.cultures import chemostat, fed_batch, perfusion


@pytest.fixture(scope="module")
def described():
    return chemostat()


@pytest.fixture(scope="module")
def fed():
    return fed_batch()


@pytest.mark.parametrize("make", [chemostat, fed_batch, perfusion])
def test_pulling_every_lever_to_where_it_stands_changes_nothing(make):
    run = make()
    levers = run.levers
    again = run.pulled(levers, run.lever_values(levers))
    for a, b in zip(jax.tree.leaves(run), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert len({lever.name for lever in levers}) == len(levers)


@pytest.mark.parametrize("make", [chemostat, fed_batch, perfusion])
def test_every_lever_moves_its_own_number_and_no_other(make):
    run = make()
    levers = run.levers
    before = np.asarray(run.lever_values(levers))
    for i, lever in enumerate(levers):
        moved = run.pulled((lever,), jnp.asarray([before[i] * 1.25 + 0.125]))
        assert float(moved.lever_values((lever,))[0]) == pytest.approx(before[i] * 1.25 + 0.125)
        for j, other in enumerate(levers):
            is_same_control = lever.group == other.group == "set-points"
            if i != j and not (is_same_control and lever.place == other.place):
                assert float(moved.lever_values((other,))[0]) == before[j], (lever, other)


def test_a_set_point_of_the_whole_run_keeps_its_profile_and_a_bolus_its_shares(fed):
    feed, bolus = choose_levers(fed, ["feed_rate", "S_bolus"])
    moved = fed.pulled((feed, bolus), jnp.asarray([20.0, 5.0]))
    shift = 20.0 - 35.0 / 3.0
    np.testing.assert_allclose(moved.controls[:, 0], np.array([5.0, 10.0, 20.0]) + shift)
    np.testing.assert_allclose(moved.controls[:, 1], [0.0, 5.0, 0.0])
    none = fed.pulled((bolus,), jnp.asarray([0.0]))
    np.testing.assert_allclose(none.pulled((bolus,), jnp.asarray([3.0])).controls[:, 1], 1.0)
    first = choose_levers(fed, ["feed_rate", "feed_rate@1"])
    both = fed.pulled(first, jnp.asarray([20.0, 1.0]))
    np.testing.assert_allclose(both.controls[:, 0], [1.0, 10.0 + shift, 20.0 + shift])


def test_a_described_run_shows_what_the_plant_does(fed):
    course = jax.jit(lambda e: e.course())(fed)
    run = run_plant(fed.plant, fed.start, fed.controls, fed.lengths_h, sample_L=jnp.asarray(0.01))
    assert fed.columns == ("X", "S", "volume_L") and int(course.result) == 0
    np.testing.assert_allclose(course.values[:, :2], run.states, rtol=1e-12)
    np.testing.assert_allclose(course.values[:, 2], run.volume_L, rtol=1e-12)


def test_runs_side_by_side_are_the_runs_one_by_one(fed):
    levers = choose_levers(fed, ["mu_max", "feed.S", "start.X", "feed_rate@2"])
    x = fed.lever_values(levers)[None] * jnp.asarray([[1.0], [0.8], [1.1]])
    many = jax.jit(lambda v: fed.courses(levers, v))(x)
    for k in range(3):
        one = fed.pulled(levers, x[k]).course()
        np.testing.assert_allclose(many.values[k], one.values, rtol=1e-9)


def test_lanes_of_the_cho_plant_are_its_own_simulation():
    run = perfusion()
    levers = choose_levers(run, ["mu_max", "medium.glutamine", "start.Glc", "perfusion_rate@3"])
    x = run.lever_values(levers)[None] * jnp.asarray([[1.0] * 4, [0.9, 1.2, 0.8, 1.1]])
    many = jax.jit(lambda v: run.courses(levers, v))(x)
    assert not np.any(np.asarray(many.result))
    for k in range(2):
        one = run.pulled(levers, x[k])
        plan = make_plan(one.reactor, one.start[None], one.controls[None], one.lengths_h)
        out = simulate(one.reactor, plan, one.tolerances)
        expected = observe(one.reactor.kinetics, out.concentrations[0])
        np.testing.assert_allclose(many.values[k], expected, rtol=1e-9)


def test_set_points_that_never_change_are_laid_out_once_and_show_the_same():
    hours = 24.0 * np.arange(4)
    short = cho_experiment(virtual_reactor(), hours)
    long = cho_experiment(virtual_reactor(), hours, by_interval=True)
    assert short.controls.shape == (1, 6) and long.controls.shape == (3, 6)
    assert "temperature@1" not in {lever.name for lever in short.levers}
    a, b = (jax.jit(lambda e: e.course())(e) for e in (short, long))
    np.testing.assert_allclose(a.values, b.values, rtol=1e-12)


def test_groups_and_what_is_taken_if_nobody_says(described):
    names = [lever.name for lever in choose_levers(described)]
    assert "c[P]" not in names  # stands at zero: no factor moves it, and nobody tells a range
    assert {"mu_max", "a[P]", "dilution", "start.X"} <= set(names)
    assert not any("@" in name for name in names)
    every = choose_levers(described, ["every set-point"])
    assert [v.name for v in every[:2]] == ["dilution@1", "dilution@2"] and len(every) == 8
    twice = choose_levers(described, ["mu_max", "constants"])
    assert [v.name for v in twice].count("mu_max") == 1 and twice[0].name == "mu_max"


def test_usual_laws_are_priors_and_ranges(described):
    laws = {v.name: described.usual_law(v) for v in described.levers}
    assert laws["mu_max"] == lognormal(1.2, 0.7)
    assert laws["dilution"] == uniform(0.0, 1.0)
    assert laws["a[P]"] == normal(0.2, 1.0)
    assert laws["c[P]"] is None
    run = perfusion()
    laws = {v.name: run.usual_law(v) for v in run.levers}
    assert laws["perfusion_rate"] == uniform(0.5, 2.0)
    assert laws["T_ref"] is None and laws["start.Xl"] is None and laws["mu_max"].is_log


@pytest.mark.parametrize(
    "text, expected",
    [
        ("X", ("value", 0, -1, "g/L")),
        ("last S", ("value", 1, -1, "g/L")),
        ("X at 20 h", ("value", 0, 2, "g/L")),
        ("X at 2 d", ("value", 0, 4, "g/L")),
        ("integral of X", ("integral", 0, -1, "g/L h")),
        ("min S", ("min", 1, -1, "g/L")),
        ("Largest  volume_L", ("max", 3, -1, "L")),
        ("mean X", ("mean", 0, -1, "g/L")),
    ],
)
def test_outputs_as_people_write_them(described, text, expected):
    output = read_output(described, text)
    assert (output.kind, output.column, output.row, output.unit) == expected


def test_outputs_are_what_they_say():
    values = jnp.asarray([[1.0, 5.0], [3.0, 2.0], [2.0, 4.0]])
    lengths = jnp.asarray([2.0, 4.0])

    class Fake:
        columns = ("A", "B")
        hours = np.array([0.0, 2.0, 6.0])

        def unit(self, column):
            return "g/L"

    asked = ["A", "A at 2 h", "integral of A", "min B", "max A", "mean A"]
    found = measure(read_outputs(Fake(), asked), values, lengths)
    np.testing.assert_allclose(found, [2.0, 3.0, 4.0 + 10.0, 2.0, 3.0, 14.0 / 6.0])
    rows = measure(every_sample(Fake(), ["B", "A"]), values, lengths)
    np.testing.assert_allclose(rows, [2.0, 4.0, 3.0, 2.0])


@pytest.mark.parametrize(
    "text, words",
    [
        ("Z", "'Z' is no quantity.*X, S, P"),
        ("titre of X", "is no output"),
        ("min X at 3 h", "is no output"),
        ("X at 3 h", "no sample at 3 h; the nearest is at 0 h"),
        ("X at 99 d", "the last at 2 d"),
        ("X at 1.2.3 h", "is no time"),
    ],
)
def test_outputs_nobody_can_read_are_refused(described, text, words):
    with pytest.raises(ConfigError, match=words):
        read_output(described, text)


def test_what_is_not_there_is_refused(described):
    with pytest.raises(ConfigError, match=r"did you mean 'mu_max'.*constants, set-points"):
        choose_levers(described, ["mu_mx"])
    with pytest.raises(ConfigError, match="no lever is left"):
        choose_levers(described, [])
    with pytest.raises(ConfigError, match="no output was asked for"):
        read_outputs(described, [])
    with pytest.raises(ConfigError, match="is no range"):
        uniform(2.0, 1.0)
    with pytest.raises(ConfigError, match="neither zero nor a sign"):
        lognormal(0.0, 0.1)
    with pytest.raises(ConfigError, match="above zero"):
        normal(1.0, 0.0)


def test_runs_that_do_not_fit_are_refused():
    plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
    with pytest.raises(ConfigError, match="rise from sample to sample"):
        described_experiment(plant, [0.0, 2.0, 1.0])
    with pytest.raises(ConfigError, match="dilutoin is unknown; there are dilution, feed_S"):
        described_experiment(plant, [0.0, 2.0], controls={"dilutoin": 0.1})
    with pytest.raises(ConfigError, match=r"controls have the shape \(2, 2\); \(1, 2\)"):
        described_experiment(plant, [0.0, 2.0], controls=np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="start has the shape"):
        described_experiment(plant, [0.0, 2.0], start=[1.0])
    reactor = virtual_reactor()
    with pytest.raises(ConfigError, match=r"\(2, 6\); \(1, 6\)"):
        cho_experiment(reactor, [0.0, 24.0], controls=np.zeros((2, 6)))
    with pytest.raises(ConfigError, match="start has the shape"):
        cho_experiment(reactor, [0.0, 24.0], start=[1.0])
    from perfusio_jax.mechanistic import Reactor

    with pytest.raises(ConfigError, match="fed_batch.*describe that culture"):
        cho_experiment(Reactor(mode="fed_batch"), [0.0, 24.0])
