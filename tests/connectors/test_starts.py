"""When runs began: one time for one run, a time for each of several, never one for all."""

import asyncio
import datetime as dt
import zoneinfo

import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.connectors.tables.off_days import off_days_text, off_the_days
from perfusio_jax.connectors.tables.starts import parse_starts

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
TWO = (
    "run_id,sampled_at,VCD\n"
    "A,2026-05-06T08:00Z,2\nA,2026-05-07T08:00Z,3\n"
    "B,2026-05-08T08:00Z,2\nB,2026-05-09T08:00Z,4\n"
)


def at(day: int, hour: int = 8) -> dt.datetime:
    return dt.datetime(2026, 5, day, hour, tzinfo=dt.UTC)


def hours(path, run_id, starts, **more):
    store = FilesystemStore(path, run_id=run_id, inoculated_at=starts, **more)
    return [record.time_h for record in asyncio.run(store.read_rows())]


@pytest.fixture
def two(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text(TWO)
    return path


def test_each_run_counts_from_its_own_start(two):
    starts = {"A": at(6), "B": at(8, 0)}
    assert hours(two, "A", starts) == [0.0, 24.0]
    assert hours(two, "B", starts) == [8.0, 32.0]


def test_one_start_for_several_runs_is_refused_and_for_the_run_asked_for_it_counts(two):
    with pytest.raises(DataError, match=r"run A and run B.*RUN=TIME"):
        FilesystemStore(two, inoculated_at=at(6)).runs()
    assert hours(two, "B", at(8)) == [0.0, 24.0]  # run A began earlier and is not looked at


def test_a_run_without_a_start_is_named(two):
    with pytest.raises(DataError, match="no start is given for run B; there are starts of A"):
        FilesystemStore(two, inoculated_at={"A": at(6)}).runs()


def test_reactors_have_starts_where_no_run_is_named(tmp_path):
    path = tmp_path / "racks.csv"
    path.write_text(TWO.replace("run_id", "reactor_id"))
    store = FilesystemStore(path, inoculated_at={"A": at(6), "B": at(8)})
    assert [times for _, _, times in store.runs()] == [[0.0, 24.0], [0.0, 24.0]]


def test_starts_without_a_zone_take_the_one_given(two):
    naive = {"A": dt.datetime(2026, 5, 6, 10), "B": dt.datetime(2026, 5, 8, 10)}
    assert hours(two, "A", naive, time_zone="Europe/Berlin") == [0.0, 24.0]
    with pytest.raises(ConfigError, match="of B has no time zone"):
        FilesystemStore(two, inoculated_at={"A": at(6), "B": naive["B"]})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, None),
        ([], None),
        ("2026-05-06T08:00", dt.datetime(2026, 5, 6, 8)),
        (["2026-05-06T08:00+02:00"], dt.datetime(2026, 5, 6, 8, tzinfo=BERLIN)),
        (["A=2026-05-06", "r=1=2026-05-07"],
         {"A": dt.datetime(2026, 5, 6), "r=1": dt.datetime(2026, 5, 7)}),
    ],
)  # fmt: skip
def test_starts_of_a_command_line(given, found):
    assert parse_starts(given) == found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["A=2026-05-06", "A=2026-05-07"], "more than one start of A"),
        (["2026-05-06", "B=2026-05-07"], "RUN=TIME each"),
        (["2026-05-06", "2026-05-07"], "RUN=TIME each"),
        (["A=yesterday"], "'yesterday'"),
    ],
)
def test_starts_that_cannot_be_meant_are_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        parse_starts(given)


@pytest.mark.parametrize(
    ("times", "lost"),
    [
        ([0, 24, 48], []),
        ([0, 12, 24, 36, 48], []),  # between days that are sampled
        ([0, 48, 96, 168], []),
        ([0, 16, 40, 64], [40, 64]),
        ([0, 12, 24, 36], []),  # on the way to the next day
        ([16, 40, 64], [16, 40, 64]),
        ([0, 24, 40, 64], [64]),
    ],
)
def test_samples_that_no_day_finds(times, lost):
    assert off_the_days(times) == lost
    assert (off_days_text(times) != "") == bool(lost)
