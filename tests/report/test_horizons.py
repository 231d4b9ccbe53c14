"""How far ahead a campaign is judged, by how far apart its samples lie."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.report.horizons import horizons_of
from perfusio_jax.states import Trajectory


def runs(hours):
    """One run sampled at these hours."""
    blank = np.ones((len(hours), 1))
    days = np.rint(np.asarray(hours) / 24.0).astype(int)
    return [Trajectory(blank, blank, np.ones(len(hours)), days, ["X"], ["u"], times_h=hours)]


@pytest.mark.parametrize(
    ("apart", "unit", "texts"),
    [
        (24.0, "d", ("1", "2", "3", "4", "5", "6", "7")),
        (11.8, "d", ("1", "2", "3", "4", "5", "6", "7")),
        (6.02, "h", ("6", "12", "24", "48")),
        (5.25, "h", ("5.2", "10.4", "20.8", "41.6")),
        (0.5, "h", ("0.5", "1", "2", "4")),
    ],
)
def test_days_where_samples_are_half_a_day_apart_or_more_and_intervals_below(apart, unit, texts):
    found = horizons_of(runs(apart * np.arange(16)))
    assert (found.unit, found.texts) == (unit, texts)
    assert found.tolerance_h == pytest.approx(0.25 * found.step_h)


@pytest.mark.parametrize(
    ("hours", "texts"),
    [
        (24.0 * np.arange(7) - 0.7, ("1", "2", "3", "4", "5", "6")),
        (24.0 * np.arange(2), ("1",)),
        (6.0 * np.arange(6), ("6", "12", "24")),
        (30.0 * np.arange(2), ("1",)),
    ],
)
def test_nothing_is_judged_further_ahead_than_the_longest_run_goes(hours, texts):
    assert horizons_of([*runs(hours), *runs(hours[:2])]).texts == texts


def test_days_asked_for_are_days_whatever_the_samples():
    found = horizons_of(runs(6.0 * np.arange(9)), days=3)
    assert found.hours == (24.0, 48.0, 72.0) and found.days == (1, 2, 3)
    assert found.tolerance_h == 6.0 and found.text() == "1 to 3 d ahead"


def test_hours_asked_for_are_whole_numbers_of_the_longest_step():
    found = horizons_of([], hours=(6.0, 12.0, 24.0, 48.0))
    assert (found.step_h, found.steps) == (6.0, (1, 2, 4, 8))
    assert found.text() == "6 to 48 h ahead" and found.days[:2] == (0.25, 0.5)
    whole = horizons_of([], hours=(96.0, 48.0))
    assert (whole.step_h, whole.texts) == (24.0, ("2", "4")) and whole.in_days


@pytest.mark.parametrize("hours", [(), (0.0, 6.0), (-6.0,), (6.0, 6.0), (float("nan"),)])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ConfigError, match="hours above 0, each once"):
        horizons_of([], hours=hours)


def test_hours_without_a_common_step_are_refused():
    with pytest.raises(ConfigError, match="Round them"):
        horizons_of([], hours=(6.1, 48.0))
