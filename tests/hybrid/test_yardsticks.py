"""Forecasts that cost nothing, against numbers by hand."""

import numpy as np
import pytest

from perfusio_jax.hybrid import Forecasts, Validation, trend, yardsticks_of

NAN = float("nan")


def validation(columns, times, start, target):
    """One run; one forecast per start, one step ahead, of 10 for everything."""
    readings = np.asarray(columns, float).T[None]
    times = np.asarray(times, float)
    shape = (1, len(start), 1, readings.shape[-1])
    start, target = np.asarray(start)[None], np.asarray(target)[None, :, None]
    ten, wide = np.full(shape, 10.0), np.full((*shape, 5), 10.0)
    inside = np.ones(target.shape, bool)
    hours = times[target] - times[start][..., None]
    found = Forecasts(ten, wide, wide, ten, ten, target, inside, hours, start)
    names = tuple("abcdefg"[: readings.shape[-1]])
    return Validation(found, readings, np.zeros(1, int), np.ones(1), times[None], names, (6.0,))


def test_the_trend_is_exponential_linear_bounded_or_nothing():
    found = validation(
        [
            [1.0, 2.0, 4.0, 8.0],  # doubles every six hours
            [4.0, 2.0, 1.0, 0.5],
            [1.0, 100.0, 9.0, 9.0],  # no more than ten times as much
            [0.0, 3.0, 9.0, 9.0],  # was zero: linear
            [3.0, 0.0, 9.0, 9.0],  # and does not fall below it
            [NAN, 5.0, 9.0, 9.0],  # one reading: nothing changes
            [-1.0, -2.0, 9.0, 9.0],  # not a concentration: linear, on below zero
        ],
        [0.0, 6.0, 12.0, 18.0],
        start=(1,),
        target=(2,),
    )
    assert np.allclose(trend(found)[0, 0, 0], [4.0, 1.0, 1000.0, 6.0, 0.0, 5.0, -3.0])


def test_the_trend_goes_by_the_hours_since_the_last_reading():
    found = validation([[1.0, 2.0, NAN, 9.0]], [0.0, 6.0, 10.0, 18.0], start=(2,), target=(3,))
    assert trend(found)[0, 0, 0, 0] == pytest.approx(8.0)


def test_errors_are_over_the_spread_and_in_per_cent_of_the_readings():
    found = validation([[2.0, 4.0, 8.0, 20.0], [NAN] * 4], [0, 6, 12, 18], (0, 1, 2), (1, 2, 3))
    beside = yardsticks_of(found)
    spread = np.std([2.0, 4.0, 8.0, 20.0])
    naive = np.sqrt(np.mean(np.square([2.0, 4.0, 12.0]))) / spread
    simple = np.sqrt(np.mean(np.square([2.0, 0.0, 4.0]))) / spread
    assert beside.nothing_changes[0, 0] == pytest.approx(naive)
    assert beside.trend[0, 0] == pytest.approx(simple)
    assert beside.wape[0, 0] == pytest.approx((6.0 + 2.0 + 10.0) / 32.0)
    assert np.isnan([v[0, 1] for v in beside]).all()  # never read: no figure, no warning
