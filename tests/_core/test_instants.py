"""Times from outside: an instant, hours, or this library's own error; nothing overflows."""

import datetime as dt
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax._core.instants import (
    EARLIEST,
    LATEST,
    LONGEST_H,
    ImplausibleTime,
    culture_hours,
    hours_before,
    hours_between,
    instant,
    instant_of_seconds,
    instant_of_text,
    is_culture_time,
    known_instant,
    parsed,
)

OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
ANY_TIME = st.datetimes(timezones=st.none() | OFFSETS)


@settings(max_examples=200, derandomize=True)
@given(when=ANY_TIME)
def test_any_time_is_an_instant_in_the_window_or_refused(when):
    for made in (lambda: instant(when, "t"), lambda: instant_of_text(when.isoformat(), "t")):
        try:
            found = made()
        except DataError as error:
            assert str(error).startswith("t is ")
        else:
            assert EARLIEST <= found < LATEST and found == when and found.tzinfo is dt.UTC
    found = known_instant(when)
    assert found is None or EARLIEST <= found < LATEST


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-11:00",
        "9999-12-31T23:59:59.999999Z",
        "1601-01-01T00:00:00Z",
        "1899-12-30T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:30:00+01:00",
        "2200-01-01T00:00:00Z",
        "2199-12-31T23:59:59-01:00",
    ],
)
def test_times_programs_write_where_they_know_none_are_no_times(text):
    with pytest.raises(ImplausibleTime, match="no time of a sample"):
        instant_of_text(text, "t")
    assert known_instant(dt.datetime.fromisoformat(text)) is None


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2026-05-06T07:08", "2026-13-01T00:00:00Z", "２０２６-05-06T07:08:00Z", None, 4],
)
def test_what_is_no_time_is_refused_in_words(text):
    with pytest.raises(DataError, match="is"):
        instant_of_text(text, "t")


def test_a_long_text_is_refused_and_shown_in_part():
    with pytest.raises(DataError) as caught:
        parsed("2" * 1_000_000, "t")
    assert len(str(caught.value)) < 300


@settings(max_examples=200, derandomize=True)
@given(later=ANY_TIME, earlier=ANY_TIME)
def test_hours_between_any_two_times_are_finite(later, earlier):
    hours = hours_between(later, earlier)
    assert math.isfinite(hours) and hours == -hours_between(earlier, later)


def test_hours_between_count_the_offsets_also_in_one_zone():
    import zoneinfo

    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    before, after = (
        dt.datetime(2026, 10, 24, 8, tzinfo=berlin),
        dt.datetime(2026, 10, 25, 8, tzinfo=berlin),
    )
    assert hours_between(after, before) == 25.0  # the night summer time ends


@settings(max_examples=200, derandomize=True)
@given(value=st.floats() | st.integers(-(10**400), 10**400) | st.booleans() | st.text() | st.none())
def test_any_hours_are_those_of_a_culture_or_refused(value):
    try:
        hours = culture_hours(value, "t")
    except DataError:
        assert not is_culture_time(value)
        return
    assert abs(hours) <= LONGEST_H and hours == value
    assert hours_before(dt.datetime(2026, 5, 6, tzinfo=dt.UTC), hours).tzinfo is dt.UTC


@pytest.mark.parametrize("hours", [1e9, -1e9, 1e300, math.inf, math.nan])
def test_no_moment_is_so_far_away(hours):
    with pytest.raises(ImplausibleTime):
        hours_before(dt.datetime(2026, 5, 6, tzinfo=dt.UTC), hours)


def test_the_clock_of_a_file_system_may_say_anything():
    assert instant_of_seconds(1.8e9) == dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC)
    for seconds in (-1e18, 1e18, 1e12, -1.0, math.inf, math.nan):
        assert instant_of_seconds(seconds) is None
