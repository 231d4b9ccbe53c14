"""When samples are due, at any interval."""

import json
import math
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError
from perfusio_jax.twin.decision.cadence import DAILY, Cadence

INTERVALS = (1.5, 6.0, 8.0, 12.0, 24.0, 36.0, 48.0, 7.0, 0.7)


def test_a_daily_cadence_is_whole_days():
    assert DAILY.is_daily and DAILY.words() == "days" and DAILY.slack_h == 12.0
    for k in range(400):
        assert type(DAILY.day(k)) is int and DAILY.day(k) == k == DAILY.number(k)
        assert DAILY.hours(k) == 24.0 * k


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_day_is_found_again_through_every_record(interval):
    cadence = Cadence(interval)
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE t (day REAL)")
        for k in range(500):
            day = cadence.day(k)
            db.execute("DELETE FROM t")
            db.execute("INSERT INTO t VALUES (?)", (day,))
            assert db.execute("SELECT 1 FROM t WHERE day = ?", (day,)).fetchone()
            (stored,) = db.execute("SELECT day FROM t").fetchone()
            for again in (day, stored, json.loads(json.dumps(day))):
                assert cadence.number(again) == k
                assert cadence.day(cadence.number(again)) == day
            assert (type(day) is int) == (cadence.hours(k) % 24.0 == 0.0)
            assert cadence.due(day) == cadence.hours(k)


def test_thirds_do_not_drift():
    eight = Cadence(8.0)
    assert [eight.day(k) for k in range(4)] == [0, 1 / 3, 2 / 3, 1]
    assert all(type(eight.day(3 * k)) is int for k in range(1000))
    assert eight.numbers([0, 1 / 3, 0.3333333, 0.4, 2.0]) == {0, 1, 6}


@given(st.sampled_from(INTERVALS), st.integers(1, 40))
def test_so_many_days_have_so_many_cycles(interval, days):
    cadence = Cadence(interval)
    n = cadence.count(days)
    assert cadence.hours(n - 1) < 24.0 * days
    assert cadence.hours(n) >= 24.0 * days - 1e-3
    assert DAILY.count(days) == days


def test_counts():
    assert [Cadence(h).count(3) for h in (12.0, 8.0, 48.0, 36.0, 1.5)] == [6, 9, 2, 2, 48]
    assert Cadence(12.0).words() == "cycles of 12 h"


@pytest.mark.parametrize("interval", [0.0, -1.0, 0.1, math.nan, math.inf])
def test_an_interval_nobody_samples_at_is_refused_by_name(interval):
    with pytest.raises(ConfigError, match="sampling_interval_hours is"):
        Cadence(interval)
