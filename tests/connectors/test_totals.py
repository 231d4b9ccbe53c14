"""Stream totals: counters told apart from volumes since the sample before, and differenced."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax.connectors.tables.totals import differenced, judge, settle

NAN = math.nan
FED = [0.008, 0.009, 0.012, 0.011, 0.013]


def days(n: int) -> list[float]:
    return [24.0 * day for day in range(n)]


@pytest.mark.parametrize(
    ("counter", "steps", "resets", "unknown"),
    [
        ([NAN, 0.5, 1.25, 2.0], [NAN, 0.5, 0.75, 0.75], (), 0),
        ([3.0, 3.5, 4.5], [NAN, 0.5, 1.0], (), 0),  # where it stood at the start is no volume
        ([NAN, 0.5, 1.25, 0.25, 1.0], [NAN, 0.5, 0.75, 0.25, 0.75], (3,), 0),
        ([NAN, 0.5, NAN, 2.0, 2.5], [NAN, 0.5, NAN, NAN, 0.5], (), 1),
        ([NAN, NAN, 2.0], [NAN, NAN, NAN], (), 1),
        ([2.0], [NAN], (), 0),
        ([], [], (), 0),
    ],
)
def test_a_counter_is_differenced_over_resets_and_gaps(counter, steps, resets, unknown):
    found = differenced(counter)
    np.testing.assert_allclose(found.increments, steps, rtol=1e-12)
    assert (found.resets, found.n_unknown) == (resets, unknown)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20), st.data())
def test_increments_come_back_whatever_the_counter_does(volumes, data):
    """A counter that starts anew loses nothing as long as it is below where it was."""
    counter, now = [NAN], 0
    for volume in volumes:
        starts_anew = volume < now and data.draw(st.booleans())
        now = volume if starts_anew else now + volume
        counter.append(float(now))
    assert differenced(counter).increments[1:].tolist() == [float(v) for v in volumes]


def of_rate(totals, rate, volume=0.3, name="V_bleed_L"):
    n = len(totals)
    known = None if volume is None else [volume] * n
    return judge(name, totals, days(n), rate=[rate] * n, volume_L=known)


@pytest.mark.parametrize("volume", [0.3, None])
def test_a_total_that_contradicts_the_set_point_is_a_counter(volume):
    step = 0.3 * 0.2
    found = of_rate([NAN, step, 2 * step, 3 * step], 0.2, volume)
    assert found.is_counter and "looks cumulative and is not used" in found.text
    assert not of_rate([NAN, step, step, step, step], 0.2, volume).text
    assert not of_rate([NAN, 0.9 * step, 1.1 * step, 1.2 * step, 1.25 * step], 0.2, volume).text


def test_a_rate_that_is_raised_explains_totals_that_rise():
    rate = [0.5, 0.8, 1.1, 1.5, 2.0, 2.0]
    totals = [NAN, *(0.25 * r for r in rate[:-1])]
    found = judge("V_perfusion_L", totals, days(6), rate=rate, volume_L=[0.25] * 6)
    assert found == (False, "")
    assert not judge("V_perfusion_L", totals, days(6), rate=rate).text


def test_a_total_in_another_unit_is_pointed_out():
    found = of_rate([NAN, 60.0, 61.0, 59.0], 0.2)
    assert not found.is_counter and "is 1e+03 times bleed_rate" in found.text


def test_a_feed_beyond_the_pump_is_a_counter_and_a_rising_one_is_asked_about():
    counter = [NAN, *np.cumsum(FED).tolist()]
    found = judge("V_glucose_L", counter, days(6), volume_L=[0.25] * 6)
    assert found.is_counter and "7.1 times what the glucose pump gives" in found.text
    small = [v / 20 for v in counter]
    asked = judge("V_glucose_L", small, days(6), volume_L=[0.25] * 6)
    assert not asked.is_counter
    assert "rises over 5 rows and never falls; it looks cumulative and is read as" in asked.text
    long = [NAN, *np.cumsum(FED * 3).tolist()]
    assert judge("V_glucose_L", long, days(16)).is_counter  # even where the volume is not known
    assert not judge("V_glucose_L", [NAN, *FED], days(6)).text


@pytest.mark.parametrize(
    "fed",
    [
        [0.0001, 0.0006, 0.0014, 0.0021, 0.0024, 0.0025, 0.00252],  # grows, then levels off
        [0.002] * 7,
        [0.002, 0.001, 0.003, 0.002],
        [NAN] * 4,
        [0.0] * 6,
        [0.001],
    ],
)
def test_what_a_growing_culture_is_fed_is_no_counter(fed):
    n = len(fed) + 1
    assert judge("V_glucose_L", [NAN, *fed], days(n), volume_L=[0.25] * n) == (False, "")


def test_a_total_is_settled_by_what_is_known_of_it():
    counter = [NAN, 0.06, 0.12, 0.02, 0.08]

    def settled(kind):
        return settle("V_bleed_L", counter, days(5), kind=kind, where=lambda k: f"line {k + 2}")

    steps = settled("cumulative")
    np.testing.assert_allclose(steps.values, [NAN, 0.06, 0.06, 0.02, 0.06])
    assert "starts anew in line 5" in steps.note and not steps.doubt
    counter[3] = 0.119  # hardly less than before: nobody can say which it is
    steps = settled("cumulative")
    assert steps.values[3] == 0.119 and "falls by little in line 5" in steps.doubt
    counter[3] = 0.02
    same = settled("increments")
    np.testing.assert_array_equal(same.values, counter)
    assert same[1:] == ("", "")
    with pytest.raises(DataError, match="'sum'; allowed are cumulative and increments"):
        settled("sum")


def test_what_looks_like_a_counter_is_not_used():
    found = settle(
        "V_bleed_L",
        [NAN, 0.06, 0.12, 0.18],
        days(4),
        kind=None,
        where=str,
        rate=[0.2] * 4,
        volume_L=[0.3] * 4,
    )
    assert np.all(np.isnan(found.values)) and "looks cumulative" in found.doubt
