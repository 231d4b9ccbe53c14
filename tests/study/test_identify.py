"""Identifiability on problems whose answer is known on paper, and what is said of it in words."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError, SimulationError
from perfusio_jax.simulator import simulate_runs
from perfusio_jax.states import Trajectory
from perfusio_jax.study import choose_levers, identify, profile, records_of
from perfusio_jax.study.identifiability.fitting import START_WIDTH, searched
from perfusio_jax.study.identifiability.records import assay_sd
from perfusio_jax.study.identifiability.words import open_directions
from tests.study.cultures import (
    Exponential,
    FedYeast,
    Michaelis,
    Product,
    fed_batch,
    perfusion,
    vial,
)

HOURS = np.linspace(0.0, 20.0, 11)


def recorded(experiment, *, noise=False, seed=0, gaps=()):
    """Runs of an experiment as somebody would have read them, some readings missing."""
    (run,) = simulate_runs(
        experiment.plant,
        np.asarray(experiment.start)[None],
        np.asarray(experiment.controls)[None],
        experiment.hours,
        key=jax.random.key(seed),
        noise=noise,
        sample_L=float(experiment.sample_L),
    )
    values = np.array(run.species)
    for row, column in gaps:
        values[row, column] = np.nan
    return Trajectory(
        values,
        np.asarray(run.controls),
        np.asarray(run.volume_L),
        np.asarray(run.days),
        run.species_names,
        run.control_names,
        run_id=run.run_id,
        times_h=np.asarray(run.times_h),
    )


# ---------------------------------------------------------------- on paper


@pytest.mark.parametrize("starts_known", [True, False])
def test_exponential_growth_has_the_standard_error_on_paper(starts_known):
    """ln X = ln X_0 + mu t, each reading with a standard deviation of cv."""
    run = vial(Exponential(), HOURS, start=2.0, cv=0.05, floor=1e-9)
    gaps = [(3, 0), (8, 0)]
    found = identify(run, [recorded(run, gaps=gaps)], starts_known=starts_known)
    t = np.delete(HOURS, [3, 8])
    w = 1.0 / 0.05**2
    expected = w * np.sum(t**2)
    if not starts_known:
        expected -= (w * np.sum(t)) ** 2 / (w * t.size + 1.0 / START_WIDTH**2)
    assert found.n_readings == t.size and found.is_converged
    np.testing.assert_allclose(found.values, [0.1], rtol=1e-6)
    np.testing.assert_allclose(found.data_sd, [1.0 / math.sqrt(expected)], rtol=1e-4)
    with_prior = 1.0 / math.sqrt(expected + 1.0 / 0.02**2)
    np.testing.assert_allclose(found.sd, [with_prior], rtol=1e-4)
    assert not found.open and "all constants are known better" in found.lines()[0]
    assert found.misfit < 1e-6
    # the loss is nearly a parabola, so the profile ends where the normal interval does
    followed = profile(found, "mu")
    half = math.sqrt(3.841) * with_prior
    np.testing.assert_allclose(
        [followed.lower, followed.upper], [0.1 - half, 0.1 + half], rtol=5e-3
    )
    assert "between" in followed.line


def test_half_the_limit_of_an_assay_is_no_reading():
    run = vial(Exponential(), HOURS, start=2.0, cv=0.05, floor=1e-9)
    data = recorded(run)
    limits = np.full((*data.species.shape, 2), np.nan)
    limits[4, 0, 0] = 9.0
    species = np.array(data.species)
    species[4, 0] = 4.5
    records = records_of(run, [dataclasses.replace(data, species=species, limits=limits)])
    assert records.n_readings == HOURS.size - 1 and np.isnan(records.readings[0, 4, 0])


def test_the_standard_error_is_the_spread_of_estimates():
    run = vial(Exponential(), HOURS, start=2.0, cv=0.05, floor=1e-9)
    n, estimates = 60, []
    for seed in range(n):
        data = [recorded(run, noise=True, seed=seed)]
        found = identify(run, data, with_prior=False, starts_known=False)
        estimates.append(found.values[0])
    spread = np.std(estimates, ddof=1)
    # the spread of n estimates is itself known to 1 / sqrt(2 n)
    assert abs(spread / found.data_sd[0] - 1.0) < 4.0 / math.sqrt(2.0 * n)
    assert abs(np.mean(estimates) - 0.1) < 4.0 * spread / math.sqrt(n)


def test_of_two_factors_only_the_product_is_known():
    run = vial(Product(), HOURS, start=1.0, floor=0.2)
    found = identify(run, [recorded(run)])
    (direction,) = found.open
    assert direction.words == "a and b: only their product is known from these runs"
    assert direction.information == pytest.approx(0.0, abs=1e-9)
    assert np.all(np.isinf(found.data_sd))
    # on paper: the sum of the logarithms is sharp, their difference is the prior's
    assert found.correlation[0, 1] == pytest.approx(-1.0, abs=1e-3)
    np.testing.assert_allclose(found.sd, 0.5 / math.sqrt(2.0), rtol=2e-3)
    followed = profile(found, "a")
    # the other makes up for it at no cost but its own prior: rise = z^2 + z^2 in units of 0.5
    ends = 2.0 * np.exp(np.array([-1.0, 1.0]) * 0.5 * math.sqrt(3.841 / 2.0))
    np.testing.assert_allclose([followed.lower, followed.upper], ends, rtol=1e-2)
    free = profile(identify(run, [recorded(run)], with_prior=False), "a")
    assert "open on both sides" in free.line


def test_far_below_saturation_only_the_ratio_is_known_and_what_does_nothing_is_said_so():
    run = vial(Michaelis(), HOURS, start=0.05, cv=0.05, floor=1e-6)
    found = identify(run, [recorded(run)])
    assert [d.words for d in found.open] == [
        "idle: these data say nothing; its prior decides",
        "V and K: only their ratio is known from these runs",
    ]
    # and at saturation both are known
    run = vial(Michaelis(), np.linspace(0.0, 60.0, 13), start=30.0, cv=0.02, floor=0.01)
    found = identify(run, [recorded(run)])
    assert [d.members for d in found.open] == [(2,)]
    assert np.all(found.data_sd[:2] < 0.1) and np.isinf(found.data_sd[2])


def test_a_power_of_one_constant_is_known_where_it_is_that():
    names, width, is_log = ["k", "n"], np.array([0.5, 0.25]), np.array([True, True])
    # readings of k n^2 alone: the logarithm's derivative is (0.5, 0.5) in prior deviations
    row = np.array([0.5, 2.0 * 0.25]) * 100.0
    (direction,) = open_directions(np.outer(row, row), names, is_log, width)
    assert direction.words == "k and n: only k * n^2 is known from these runs"
    plain = open_directions(np.outer(row, row), names, np.array([True, False]), width)
    assert plain[0].words == "k and n: only a combination of them is known from these runs"


def test_directions_are_turned_until_each_names_few():
    rng = np.random.default_rng(0)
    names = list("abcde")
    width, is_log = np.full(5, 0.3), np.ones(5, bool)
    rows = np.array([[1.0, -1.0, 0, 0, 0], [0, 0, 1.0, 0, 0]]) * 50.0
    found = open_directions(rows.T @ rows, names, is_log, width)
    assert [d.members for d in found] == [(3,), (4,), (0, 1)]
    assert "their ratio" in found[2].words
    for d in found:
        assert np.linalg.norm(d.direction) == pytest.approx(1.0)
        assert np.linalg.norm(rows @ d.direction) < 1e-6
    # three constants that are only known through their product, hidden by a known rest
    row = np.array([[1.0, 1.0, 1.0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]) * 50.0
    found = open_directions(row.T @ row, names, is_log, width)
    assert all(set(d.members) <= {0, 1, 2} for d in found) and len(found) == 2
    # of what is open in all directions, one constant after the other is named
    nothing = open_directions(np.zeros((5, 5)), names, is_log, width)
    assert [d.members for d in nothing] == [(i,) for i in range(5)]
    # and of a crowd that moves together, all are
    v = rng.normal(size=5) + 3.0
    v /= np.linalg.norm(v)
    (crowd,) = open_directions(1e4 * (np.eye(5) - np.outer(v, v)), names, is_log, width)
    assert len(crowd.members) == 5 and "move together" in crowd.words
    weak = open_directions(np.diag([0.5, 99.0, 99.0, 99.0, 99.0]), names, is_log, width)
    assert weak[0].words == "a: these data say little; its prior decides"


# ---------------------------------------------------------------- runs


def test_a_fed_batch_finds_its_constants_again_from_another_start():
    truth = fed_batch()
    levers = choose_levers(truth, ["mu_max", "yield_XS"])
    moved = truth.pulled(levers, jnp.asarray([0.32, 0.38]))
    data = [recorded(moved, gaps=[(1, 0)])]
    found = identify(truth, data, ["mu_max", "yield_XS"], with_prior=False)
    np.testing.assert_allclose(found.values, [0.32, 0.38], rtol=2e-3)
    programs = searched.n_programs()
    again = identify(truth, data, ["mu_max", "yield_XS"], with_prior=True)
    assert searched.n_programs() == programs
    # a prior pulls towards where it stands
    pull = np.abs(again.values - np.array([0.25, 0.45])) - np.abs(
        found.values - np.array([0.25, 0.45])
    )
    assert np.all(pull <= 1e-6) and np.any(pull < 0.0)
    assert np.all(again.sd <= again.data_sd)


def test_runs_of_two_lengths_count_each_by_its_own():
    run = vial(Exponential(), HOURS, start=2.0, cv=0.05, floor=1e-9)
    short = vial(Exponential(), HOURS[:5], start=4.0, cv=0.05, floor=1e-9)
    both = identify(run, [recorded(run), recorded(short)])
    alone = [identify(e, [recorded(e)]) for e in (run, short)]
    total = sum(f.information for f in alone)
    np.testing.assert_allclose(both.information, total, rtol=1e-5)
    assert both.n_readings == 16


def test_what_cannot_be_used_is_refused():
    run = fed_batch()
    data = recorded(run)
    with pytest.raises(ConfigError, match="feed_rate is no constant"):
        identify(run, [data], ["feed_rate"])
    with pytest.raises(DataError, match="none has two samples"):
        identify(run, [data.slice_days(0, 0)])
    nothing = recorded(run, gaps=[(r, c) for r in range(4) for c in range(2)])
    with pytest.raises(DataError, match="nothing was read.*X, S"):
        identify(run, [nothing])
    blank = np.array(data.controls)
    blank[1, 0] = np.nan
    broken = Trajectory(
        np.asarray(data.species),
        blank,
        np.asarray(data.volume_L),
        np.asarray(data.days),
        data.species_names,
        data.control_names,
        run_id="R9",
        times_h=np.asarray(data.times_h),
    )
    with pytest.raises(DataError, match=r"R9.*not finite.*--fill-down"):
        records_of(run, [broken])
    backwards = np.array(data.controls)
    backwards[1, 0] = -5.0
    impossible = Trajectory(
        np.asarray(data.species),
        backwards,
        np.asarray(data.volume_L),
        np.asarray(data.days),
        data.species_names,
        data.control_names,
        times_h=np.asarray(data.times_h),
    )
    with pytest.raises(SimulationError, match="run 1 cannot be simulated"):
        identify(run, [impossible])
    fine = identify(run, [data])
    with pytest.raises(ConfigError, match="did you mean 'mu_max'"):
        profile(fine, "mu_mx")
    assert FedYeast().mu_max == 0.25


def test_deviations_of_assays_are_those_of_the_noise():
    run = perfusion()
    assays = run.assays
    names = [a.column for a in assays]
    values = jnp.full(len(names), 90.0)
    sd = np.asarray(assay_sd(assays, values))
    assert sd[names.index("Via")] == pytest.approx(0.02 * 90.0, rel=1e-6)
    assert sd[names.index("Glc")] == pytest.approx(math.hypot(0.07 * 90.0, 0.01))
    start = run.start_of({"VCD": 3.0, "Via": 75.0, "Glc": math.nan})
    assert start[0] == 3.0 and start[1] == pytest.approx(1.0)
