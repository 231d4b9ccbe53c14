"""Runs that tell most: on paper, against all combinations, and beside what identify finds."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.study import Wanted, choose_levers, design_for_constants, identify
from perfusio_jax.study.design.criteria import goodness, volume_ratio
from perfusio_jax.study.design.information import START_WIDTH, told_by
from perfusio_jax.study.design.optimal import candidates
from perfusio_jax.study.sensitivity.laws import laws_of
from tests.study.calibration.problems import HOURS, SD, START, WIDTHS, plant
from tests.study.cultures import chemostat
from tests.study.test_identify import recorded

FEW = Wanted(n_runs=2, n_candidates=12, n_draws=2)


@pytest.fixture(scope="module")
def reactor():
    return chemostat(rtol=1e-5, atol=1e-8)


@pytest.fixture(scope="module")
def designed(reactor):
    return design_for_constants(reactor, ["mu_max", "a_S"], FEW, seed=1)


def test_of_a_line_the_last_samples_tell_most():
    """The slope by a of a reading at t is t; the start is known as well as it is made."""
    found = design_for_constants(plant(), ["a"], Wanted(n_runs=1, n_samples=2, n_draws=1), seed=0)
    assert found.samples.tolist() == [[True, False, False, True, True]]
    t = HOURS[[0, 3, 4]]
    own, cross = np.sum((WIDTHS[0] * t / SD) ** 2), np.sum(WIDTHS[0] * t * START / SD**2)
    start = 3.0 * (START / SD) ** 2 + 1.0 / START_WIDTH**2
    paper = 1.0 + own - cross**2 / start
    np.testing.assert_allclose(found.information, [[[paper]]], rtol=1e-5)
    np.testing.assert_allclose(found.sd, [0.2 / np.sqrt(paper)], rtol=1e-5)
    assert found.value == pytest.approx(np.log(paper), rel=1e-5)


def test_criteria_are_what_they_say():
    a, b = np.diag([4.0, 1.0]), np.diag([2.0, 2.0])
    both = np.stack([a, b])
    assert goodness("D", both) == pytest.approx(np.log(4.0))
    assert goodness("A", both) == pytest.approx(-(1.25 + 1.0) / 2.0)
    assert goodness("E", both) == pytest.approx((0.0 + np.log(2.0)) / 2.0)
    assert goodness("modified-E", both) == pytest.approx(-np.log(4.0) / 2.0)
    # four times the information on two constants: a quarter of the volume
    assert volume_ratio(4.0 * both, both) == pytest.approx(4.0)
    assert goodness("D", np.stack([both, 2.0 * both])).shape == (2,)


def test_samples_add_up_to_what_identify_finds(reactor):
    levers = choose_levers(reactor, ["mu_max", "a_S"])
    laws = laws_of(reactor, levers)
    table = np.asarray(reactor.controls)[None]
    told = told_by(reactor, levers, laws, np.zeros((1, 2)), table)
    found = identify(reactor, [recorded(reactor)], ["mu_max", "a_S"])
    np.testing.assert_allclose(told.by_sample[0, 0].sum(axis=0), found.problem.by_run[0], rtol=2e-3)
    assert told.is_possible.all()


def test_the_exchange_finds_the_best_of_all_pairs(reactor, designed):
    levers = choose_levers(reactor, ["mu_max", "a_S"])
    laws = laws_of(reactor, levers)
    table = candidates(reactor, FEW, {}, 1)
    draws = np.concatenate([np.zeros((1, 2)), np.random.default_rng(1).standard_normal((2, 2))])[:2]
    told = told_by(reactor, levers, laws, draws, table)
    every = np.ones(5, bool)
    alone = [told.of_run(k, every) for k in range(12) if told.is_possible[k]]
    best = max(
        float(goodness("D", np.eye(2) + alone[i] + alone[j]))
        for i, j in combinations_with_replacement(range(len(alone)), 2)
    )
    assert designed.value == pytest.approx(best, rel=1e-9)
    typical = np.median([float(goodness("D", np.eye(2) + 2.0 * one)) for one in alone])
    assert designed.value > typical
    assert designed.controls.shape == (2, 4, 2) and designed.samples.all()
    assert np.all(designed.sd < designed.prior_sd)


def test_runs_already_there_are_counted(reactor, designed):
    # all is known of the first constant: the runs are for the second
    known = np.diag([1e6, 0.0])
    found = design_for_constants(
        reactor, ["mu_max", "a_S"], FEW._replace(criterion="A"), known=known, seed=1
    )
    assert np.all(found.before == np.eye(2) + known)
    other = designed.information - np.eye(2) + found.before
    assert goodness("A", found.information) >= goodness("A", other) - 1e-9
    given = design_for_constants(reactor, ["mu_max", "a_S"], FEW, draws=np.zeros((2, 2)), seed=1)
    np.testing.assert_allclose(given.information[0], given.information[1], rtol=1e-9)


def test_schedules_fill_their_ranges_and_change_as_often_as_allowed(reactor):
    wanted = Wanted(n_candidates=64, n_changes=2)
    table = candidates(reactor, wanted, {"dilution": (0.05, 0.15), "feed_S": (10.0, 10.0)}, 0)
    assert table.shape == (64, 4, 2)
    assert np.all((0.05 <= table[:, :, 0]) & (table[:, :, 0] <= 0.15)) and np.ptp(table) > 0.0
    assert np.all(table[:, :, 1] == 10.0)
    changes = np.sum(np.any(np.diff(table, axis=1) != 0.0, axis=2), axis=1)
    assert changes.max() == 2 and set(changes) <= {0, 1, 2}
    assert np.ptp(table[:, 0, 0]) > 0.09


@pytest.mark.parametrize(
    "wanted, more, said",
    [
        (Wanted(criterion="G"), {}, "choose D, A, E, modified-E"),
        (Wanted(n_runs=0), {}, "at least one each"),
        (Wanted(n_changes=4), {}, "allowed are 0 to 3"),
        (Wanted(n_samples=9), {}, "allowed are 1 to 4"),
        (Wanted(), {"ranges": {"dilusion": (0.1, 0.2)}}, "did you mean 'dilution'"),
        (Wanted(), {"levers": ["feed_S"]}, "feed_S is no constant"),
    ],
)
def test_what_makes_no_sense_is_refused(wanted, more, said, reactor):
    with pytest.raises(ConfigError, match=said):
        design_for_constants(reactor, wanted=wanted, **more)
