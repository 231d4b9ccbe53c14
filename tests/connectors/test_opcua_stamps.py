"""Source times and the sample they let a value belong to."""

import datetime as dt

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.opcua.stamps import MEANINGS, Stamps
from tests.connectors.opcua_rigs import connect

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def ago(seconds: float) -> dt.datetime:
    return NOON - dt.timedelta(seconds=seconds)


def judge(means: str, due_s: float | None, *, slack_s: float = 12 * HOUR_S, **seconds):
    """Judge values by how long ago [s] they and the sample are stamped; None: no stamp."""
    readings = {
        n: Reading(2.0, "good", None if s is None else ago(s), NOON) for n, s in seconds.items()
    }
    due = None if due_s is None else ago(due_s)
    return Stamps(means, slack_s).judge(readings, due, NOON)


@pytest.mark.parametrize("means", MEANINGS)
@pytest.mark.parametrize("off_s", [-12 * HOUR_S, -60.0, 0.0, 60.0, 12 * HOUR_S])
def test_values_of_the_sample_s_time_are_the_sample_s_without_a_word(means, off_s):
    judged = judge(means, 20 * HOUR_S, VCD=20 * HOUR_S + off_s, Glc=20 * HOUR_S)
    assert [r.value for r in judged.readings.values()] == [2.0, 2.0]
    assert judged.remarks == [] and judged.sampled == ago(20 * HOUR_S)


@pytest.mark.parametrize("year", [1970, 1971, 1980, 1999, 2025])
def test_a_stale_value_is_missing_whatever_year_its_stamp_is_of(year):
    stale = dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    readings = {"VCD": Reading(2.0, "good", stale, NOON), "Glc": Reading(2.0, "good", NOON, NOON)}
    judged = Stamps("measured", 12 * HOUR_S).judge(readings, NOON, NOON)
    assert judged.readings["VCD"].value is None and judged.readings["Glc"].value == 2.0
    assert judged.readings["VCD"].quality == "missing"
    assert "older than the sample" in judged.remarks[0]
    assert 'stamp_means = "changed"' in judged.remarks[1]


@pytest.mark.parametrize(
    ("means", "value_s", "value", "words"),
    [
        ("measured", DAY_S + 100.0, None, "86400 s older than the sample"),
        ("changed", DAY_S + 100.0, 2.0, "unchanged since 2026-03-03 11:58:20 UTC, 86400 s before"),
        ("read", DAY_S + 100.0, None, "86400 s older"),
        ("measured", -DAY_S, None, "86500 s newer"),
        ("changed", -DAY_S, None, "86500 s newer"),
        ("read", -DAY_S, 2.0, "stamps are times of reading"),
    ],
)
def test_one_switch_tells_what_a_stamp_of_another_time_means(means, value_s, value, words):
    judged = judge(means, 100.0, VCD=value_s, Glc=100.0)
    assert judged.readings["VCD"].value == value and judged.readings["Glc"].value == 2.0
    assert any(words in remark for remark in judged.remarks)


def test_a_server_that_stamps_with_the_time_of_reading_is_recognised_and_doubted():
    judged = judge("measured", 15 * HOUR_S, VCD=0.1, Glc=0.1, Lac=4.9)
    assert [(r.value, r.quality) for r in judged.readings.values()] == [(2.0, "uncertain")] * 3
    assert len(judged.remarks) == 1 and 'stamp_means = "read"' in judged.remarks[0]
    assert judged.sampled == ago(15 * HOUR_S)
    said = judge("read", 15 * HOUR_S, VCD=0.1, Glc=0.1, Lac=4.9)
    assert {r.quality for r in said.readings.values()} == {"good"} and said.sampled is not None


@pytest.mark.parametrize(
    "seconds",
    [
        {"VCD": 0.1, "Glc": 15 * HOUR_S},  # one of them is of the sample
        {"VCD": 0.1, "Glc": 2 * HOUR_S},  # one came two hours ago: the next sample is coming
        {"VCD": 0.1, "Glc": 2 * DAY_S},
        {"VCD": 6.0, "Glc": 6.0},
        {"VCD": -6.0, "Glc": 0.0},
    ],
)
def test_what_came_since_is_not_taken_for_stamps_of_reading(seconds):
    judged = judge("measured", 15 * HOUR_S, **seconds)
    assert judged.readings["VCD"].value is None


def test_a_server_that_has_stamped_a_sample_is_not_thought_to_stamp_at_reading():
    stamps = Stamps("measured", 12 * HOUR_S)
    seen = {"VCD": Reading(2.0, "good", ago(15 * HOUR_S), NOON)}
    assert stamps.judge(seen, ago(15 * HOUR_S), NOON).remarks == []
    coming = {"VCD": Reading(3.0, "good", NOON, NOON)}
    assert stamps.judge(coming, ago(15 * HOUR_S), NOON).readings["VCD"].value is None


def test_where_everything_is_stamped_at_reading_nobody_knows_of_when_it_is():
    judged = judge("read", 0.0, VCD=0.0)
    assert judged.readings["VCD"].value == 2.0 and judged.sampled is None
    assert "cannot be told" in judged.remarks[0]


def test_values_and_days_without_a_stamp_say_so():
    judged = judge("measured", 100.0, VCD=None, Glc=None, Lac=100.0)
    assert judged.remarks == ["VCD, Glc: no time stamp, taken for this sample"]
    undated = judge("measured", None, VCD=DAY_S)
    assert undated.readings["VCD"].value == 2.0 and "no time stamp" in undated.remarks[0]


def test_without_slack_nothing_is_a_moment():
    judged = judge("measured", 0.5, slack_s=0.0, VCD=0.0)
    assert judged.readings["VCD"].value is None


def test_an_unknown_meaning_is_refused():
    with pytest.raises(ConfigError, match="measured, changed, read"):
        connect("opc.tcp://localhost:4840", stamp_means="guessed")
