"""Readings are judged by the forecast for their time: weekends, half days, jitter, set-points."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid.pairing import pair_by_time


def pairs(times, *, starts=(0,), horizon=3, controls=None, **more):
    """Pairs of one run of which all rows count."""
    t = np.asarray(times, float)
    u = np.zeros((t.size, 6)) if controls is None else np.asarray(controls, float)
    return pair_by_time(
        t[None], u[None], np.ones((1, t.size), bool), starts=starts, horizon=horizon, **more
    )


def test_daily_samples_are_paired_with_the_next_rows():
    found = pairs(24.0 * np.arange(5), starts=(0, 2))
    assert found.target[0].tolist() == [[1, 2, 3], [3, 4, 5]]
    assert found.is_inside[0].tolist() == [[True] * 3, [True, True, False]]
    assert np.array_equal(found.dt_h[0], np.full((2, 3), 24.0))


def test_a_weekend_is_stepped_over_and_monday_is_three_days_ahead():
    found = pairs([0, 24, 48, 72, 96, 168, 192], starts=(4,))  # Friday is row 4
    assert found.target[0, 0].tolist() == [7, 7, 5]
    assert found.is_inside[0, 0].tolist() == [False, False, True]
    assert found.hours[0, 0].tolist() == [24.0, 48.0, 72.0]


def test_samples_twice_a_day_are_paired_with_every_second_row():
    found = pairs(12.0 * np.arange(9), starts=(0, 1))
    assert found.target[0].tolist() == [[2, 4, 6], [3, 5, 7]]
    assert np.array_equal(found.hours[0, 1], [24.0, 48.0, 72.0])


def test_a_step_ends_at_the_reading_it_is_judged_by():
    found = pairs([0.5, 23.0, 50.0, 79.0])
    assert np.allclose(found.hours[0, 0], [22.5, 49.5, 72.0])  # 78.5 h is no third day
    assert found.is_inside[0, 0].tolist() == [True, True, False]


@pytest.mark.parametrize(("apart", "is_paired"), [(30.0, True), (30.1, False), (17.9, False)])
def test_the_tolerance_is_the_one_stated(apart, is_paired):
    found = pairs([0.0, apart], horizon=1)
    assert found.is_inside[0, 0, 0] == is_paired
    assert found.hours[0, 0, 0] == (apart if is_paired else 24.0)
    assert not pairs([0.0, apart], horizon=1, tolerance_h=0.0).is_inside.any()


def test_setpoints_that_change_within_a_step_act_by_their_hours():
    u = np.zeros((5, 6))
    u[:, 1] = [0.1, 0.3, 0.3, 0.5, 0.5]
    found = pairs(12.0 * np.arange(5), controls=u, horizon=4)
    assert np.allclose(found.controls[0, 0, :, 1], [0.2, 0.4, 0.5, 0.5])  # the last one stays
    daily = pairs([0.0, 24.7, 47.9], controls=u[:3], horizon=2)
    assert np.array_equal(daily.controls[0, 0], u[:2])  # bit for bit: no mean of one number


def test_padded_rows_are_no_readings():
    t = 24.0 * np.arange(4)[None]
    mask = np.asarray([[True, True, False, False]])
    found = pair_by_time(t, np.zeros((1, 4, 6)), mask, starts=(0,), horizon=2)
    assert found.is_inside[0, 0].tolist() == [True, False]


def test_steps_of_some_hours_have_a_tolerance_of_a_quarter_of_them():
    found = pairs([0.0, 6.0, 13.6, 17.0], step_h=6.0)
    assert found.target[0, 0].tolist() == [1, 4, 3]  # 13.6 h is more than 1.5 h off
    assert found.hours[0, 0].tolist() == [6.0, 12.0, 17.0]
    days = pairs([0.0, 24.7, 47.9], horizon=2)
    for mine, theirs in zip(days, pairs([0.0, 24.7, 47.9], horizon=2, step_h=24.0), strict=True):
        assert np.array_equal(mine, theirs)
    with pytest.raises(ConfigError, match="below 3 h"):
        pairs([0.0, 6.0], step_h=6.0, tolerance_h=3.0)
    with pytest.raises(ConfigError, match="step_h=0"):
        pairs([0.0, 6.0], step_h=0.0)


def test_a_tolerance_of_half_a_day_is_refused():
    with pytest.raises(ConfigError, match="tolerance_h=12"):
        pairs([0.0, 24.0], tolerance_h=12.0)


def test_a_model_of_half_days_takes_each_day_in_two_equal_steps():
    u = np.zeros((5, 6))
    u[:, 1] = [0.1, 0.3, 0.3, 0.5, 0.5]
    found = pairs([0.0, 12.0, 25.0, 36.0, 48.0], controls=u, horizon=2, parts=2)
    assert found.dt_h[0, 0].tolist() == [12.5, 12.5, 11.5, 11.5]
    assert found.hours[0, 0].tolist() == [25.0, 48.0] and found.target[0, 0].tolist() == [2, 4]
    first = (12.0 * 0.1 + 0.5 * 0.3) / 12.5
    assert np.allclose(found.controls[0, 0, :, 1], [first, 0.3, (11 * 0.3 + 0.5 * 0.5) / 11.5, 0.5])
    whole = pairs([0.0, 12.0, 25.0, 36.0, 48.0], controls=u, horizon=2)
    assert np.array_equal(whole.hours, found.hours) and np.array_equal(whole.target, found.target)
