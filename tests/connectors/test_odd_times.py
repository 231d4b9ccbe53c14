"""One odd time costs its own row or reading, and says so: never the file, the run or a restart."""

import asyncio
import datetime as dt
import os
import types

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import STATE_ORDER, DataError
from perfusio_jax._core.instants import LONGEST_H
from perfusio_jax.connectors.base import Reading, SampleRecord
from perfusio_jax.connectors.files.filesystem import FilesystemStore
from perfusio_jax.connectors.files.frames import campaign_from_frame
from perfusio_jax.connectors.files.setpoint_log import SetpointLog
from perfusio_jax.connectors.opcua.nodes import NodeMap
from perfusio_jax.connectors.opcua.samples import Sampling
from perfusio_jax.connectors.opcua.values import time_of
from perfusio_jax.connectors.sql.store import SQLStore
from perfusio_jax.twin.loop.reader import rows_of
from perfusio_jax.twin.records.samples import as_plain
from tests.connectors.test_run_twin import LEVELS, command  # noqa: F401

ODD = (
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-11:00",
    "0001-01-01T00:00:00+14:00",
    "1601-01-01T00:00:00Z",
    "9999-12-31 23:59:59.999999+00:00",
)
NOW = dt.datetime(2026, 5, 10, tzinfo=dt.UTC)


def store_of(folder, text, **settings) -> FilesystemStore:
    path = folder / "s.csv"
    path.write_text(text)
    return FilesystemStore(path, clock=lambda: NOW, **settings)


@pytest.mark.parametrize("stamp", [*ODD, "soon", "2026-05-08"])
def test_a_stamp_that_is_none_costs_the_age_of_its_row_only(tmp_path, stamp):
    good = "2026-05-07T08:00:00Z"
    store = store_of(tmp_path, f"day,sampled_at,VCD\n1,{good},2\n2,{stamp},3\n3,{good},4\n")
    assert asyncio.run(store.days_available()) == [1, 2, 3]
    records = asyncio.run(store.read_history())
    assert [r.values["VCD"] for r in records] == [2.0, 3.0, 4.0]
    assert records[1].age_h is None and "sampled_at in line 3" in records[1].notes[0]
    assert records[0].age_h == records[2].age_h == 64.0 and not records[0].notes
    assert any("nothing tells its age" in note for note in store.report().notes)


@pytest.mark.parametrize("stamp", ODD)
def test_a_stamp_that_is_none_gives_no_age_from_the_file_either(tmp_path, stamp):
    store = store_of(tmp_path, f"day,sampled_at,VCD\n1,{stamp},2\n")
    assert asyncio.run(store.read_record(1)).age_h is None


@pytest.mark.parametrize("stamp", ODD)
def test_a_row_whose_time_is_its_stamp_is_left_out(tmp_path, stamp):
    store = store_of(
        tmp_path,
        f"sampled_at,VCD\n2026-05-06T08:00:00Z,2\n{stamp},3\n2026-05-08T08:00:00Z,4\n",
        inoculated_at=dt.datetime(2026, 5, 6, 8, tzinfo=dt.UTC),
    )
    assert asyncio.run(store.days_available()) == [0, 2]
    assert any("line 3" in n and n.endswith("left out") for n in store.report().notes)


def test_a_row_of_a_negative_day_is_told_as_before_the_inoculation(tmp_path):
    store = store_of(tmp_path, "day,VCD\n1,2\n-1,3\n3,4\n")
    assert asyncio.run(store.days_available()) == [1, 3]
    assert any("before the inoculation" in n and "line 3" in n for n in store.report().notes)
    with pytest.raises(DataError, match="line 2, before the inoculation"):
        asyncio.run(store_of(tmp_path, "day,VCD\n-1,3\n").read_record(2))


@pytest.mark.parametrize("day", ["1e300", "1e9", "inf", "9" * 400])
def test_a_row_with_an_impossible_day_is_left_out_and_named_where_it_is_missed(tmp_path, day):
    store = store_of(tmp_path, f"day,VCD\n1,2\n{day},3\n3,4\n")
    assert asyncio.run(store.days_available()) == [1, 3]
    with pytest.raises(Exception, match="line 3.*left out"):
        asyncio.run(store.read_record(2))
    alone = store_of(tmp_path, f"day,VCD\n{day},3\n")
    with pytest.raises(DataError, match="in line 2"):
        asyncio.run(alone.read_record(2))


def test_a_column_of_stamps_nobody_can_read_is_refused(tmp_path):
    store = store_of(tmp_path, "day,sampled_at,VCD\n1,monday,2\n2,tuesday,3\n")
    with pytest.raises(DataError, match="sampled_at in line 2 is 'monday'"):
        asyncio.run(store.days_available())


@pytest.mark.parametrize("seconds", [-(2**40), 2**40])
def test_a_file_changed_in_another_age_has_no_age(tmp_path, seconds):
    store = store_of(tmp_path, "day,VCD\n1,2\n")
    try:
        os.utime(store.source_path, (seconds, seconds))
    except OSError:
        pytest.skip("this file system cannot hold such a time")
    assert asyncio.run(store.read_record(1)).age_h is None


def test_campaign_times_no_culture_has_are_refused_by_row():
    import pandas as pd

    frame = pd.DataFrame({"run_id": ["a", "a"], "time_h": [0.0, 1e300], "VCD": [1.0, 2.0]})
    with pytest.raises(DataError, match="time_h is 1e.300 in row 1"):
        campaign_from_frame(frame)


@pytest.mark.parametrize("stamp", ODD)
def test_the_set_point_log_and_a_reading_bear_any_time(tmp_path, stamp):
    log = SetpointLog(tmp_path / "setpoints.csv", ("perfusion_rate",))
    log.append({"perfusion_rate": 1.0}, NOW)
    path = log.path
    path.write_text(path.read_text() + f"{stamp},,,,1.5\n")
    value, when = log.last_with_times()["perfusion_rate"]
    assert value == 1.5 and when is None
    assert isinstance(Reading(1.0, "good", dt.datetime.fromisoformat(stamp), NOW).age_h, float)


@pytest.mark.parametrize("stamp", ODD)
def test_a_database_takes_no_such_time_and_bears_one_another_program_put_there(tmp_path, stamp):
    store = SQLStore(f"sqlite:///{tmp_path / 'a.db'}", "E", "R", clock=lambda: NOW)
    store.create_tables()
    when = dt.datetime.fromisoformat(stamp)
    with pytest.raises(DataError, match="source time of VCD of day 1"):
        store.write_sample(1, {"VCD": 2.0}, sampled_at=when)
    store.write_sample(1, {"VCD": 2.0}, sampled_at=NOW)

    import sqlite3

    with sqlite3.connect(tmp_path / "a.db") as other:
        other.execute("UPDATE sample SET source_times = ?", (f'{{"VCD": "{stamp}"}}',))
    other.close()
    (record,) = asyncio.run(store.read_history())
    assert record.values["VCD"] == 2.0 and "source time of VCD" in record.notes[0]
    asyncio.run(store.close())


# ------------------------------------------------------------------ OPC UA and the twin


class OneSample:
    """A directory with one sample on its nodes."""

    url = "opc.tcp://nowhere"

    def __init__(self) -> None:
        names = ("VCD", "sample_day", "sample_time_h")
        self.node_map = NodeMap({name: f"ns=2;s={name}" for name in names})
        self.found = {"VCD": types.SimpleNamespace(remark=None)}

    def reading(self, name, value, at):
        return Reading(value.Value.Value, "good", time_of(value), at)

    def absent(self, name):
        return "nothing is there"


def value_of(content, when=NOW) -> ua.DataValue:
    return ua.DataValue(Value=ua.Variant(content), SourceTimestamp=when)


@settings(max_examples=60, derandomize=True)
@given(
    hours=st.floats()
    | st.sampled_from([1e9, -1e9, 1e300, -1e300, 5e-324])
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=5)
    | st.booleans(),
    when=st.none() | st.datetimes(),
)
def test_any_sample_time_of_a_server_gives_a_record_the_twin_can_take(hours, when):
    sampling = Sampling(
        OneSample(),
        reactor_id="R",
        acceleration=1440.0,
        slack_s=60.0,
        stamp_means="measured",
        now=lambda: NOW,
    )
    values = {"VCD": value_of(2.0, when), "sample_time_h": value_of(hours)}
    due = time_of(value_of(0, when))
    record = sampling._as_record(3, values, OneSample(), due, NOW, NOW, [])
    assert abs(record.time_h) <= LONGEST_H
    if not isinstance(hours, float | int) or isinstance(hours, bool) or not abs(hours) <= LONGEST_H:
        assert record.time_h == 72.0 and any("sample_time_h" in n for n in record.notes)
    assert abs(as_plain(record, 3)["age_h"] or 0.0) <= LONGEST_H


@pytest.mark.parametrize("year", [1602, 1969, 2300, 9999])
def test_a_value_stamped_at_no_time_is_of_another_sample_and_not_without_a_stamp(year):
    sampling = Sampling(
        OneSample(),
        reactor_id="R",
        acceleration=1.0,
        slack_s=60.0,
        stamp_means="measured",
        now=lambda: NOW,
    )
    when = dt.datetime(year, 12, 31, tzinfo=dt.UTC)
    values = {"VCD": value_of(2.0, when), "sample_day": value_of(3)}
    record = sampling._as_record(3, values, OneSample(), NOW, NOW, NOW, [])
    assert record.values["VCD"] is None
    assert any("than the sample" in note for note in record.notes)


@pytest.mark.parametrize("time_h", [1e9, -1e9, 1e300, 10**400])
def test_a_sample_of_any_connector_dated_beyond_a_culture_counts_for_its_day(time_h):
    record = SampleRecord(3, 72.0, {"VCD": 1.0}, age_h=1e300)
    object.__setattr__(record, "time_h", time_h)
    if time_h == 10**400:
        with pytest.raises(DataError, match="no time"):
            as_plain(record, 3)
        return
    plain = as_plain(record, 3)
    assert plain["time_h"] == 72.0 and plain["age_h"] is None and len(plain["notes"]) == 2


def test_one_wrong_date_in_the_journal_does_not_put_later_samples_before_it():
    sample = {"read_back": {}, "values": {"VCD": 1.0}, "quality": "good", "stream_totals": {}}
    samples = [
        {**sample, "day": 0, "time_h": 0.0, "implausible": []},
        {**sample, "day": 1, "time_h": 5000.0, "implausible": ["the sample is dated 5000 h"]},
        {**sample, "day": 2, "time_h": 47.0, "implausible": []},
    ]
    assert [row["time_h"] for row in rows_of(samples, {})] == [0.0, 24.0, 47.0]


def test_a_twin_goes_on_over_odd_times_and_starts_again(tmp_path, command):  # noqa: F811
    names = ",".join(STATE_ORDER)

    def row(day, stamp):
        return f"{day},{stamp}," + ",".join(str(v) for v in LEVELS) + "\n"

    text = f"day,sampled_at,{names}\n" + row(0, ODD[0]) + row(1, ODD[1]) + row("1e300", ODD[0])
    (tmp_path / "s.csv").write_text(text)
    (tmp_path / "twin.toml").write_text(
        '[twin]\nsource = "s.csv"\nfolder = "out"\npatience_seconds = 0\n'
        "[run]\nseed = 1\nduration_days = 2\n"
    )
    code, out, err = command("run", tmp_path / "twin.toml")
    assert code == 0, err
    assert "line 4" in out and "left out" in out
    (tmp_path / "s.csv").write_text(text + row(2, "2026-05-08T08:00:00Z"))
    code, _, err = command("run", tmp_path / "twin.toml", "--days", 3)
    assert code == 0, err
    assert "3 days closed" in command("status", tmp_path / "twin.toml")[1]
