"""Set-points that change within runs, as a table: written, read, refused, and laid over samples."""

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors import read_culture, write_described
from perfusio_jax.connectors.files.schedule import (
    Schedule,
    ahead_of,
    is_schedule,
    on_samples,
    one_schedule,
    read_schedules,
    schedule_of,
    write_schedules,
)
from perfusio_jax.connectors.tables.file_rules import FileRules
from tests.hybrid.cultures import FED

NAMES = FED.control_names
PLAN = np.array([[10.0, 0.0], [10.0, 3.0], [25.0, 0.0], [25.0, 0.0]])
DAYS = np.full(4, 24.0)


def unit_of(name):
    return FED.control(name).unit


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "next.csv"
    two = [schedule_of("NEXT001", "A", PLAN, DAYS), schedule_of("NEXT002", "A", PLAN[::-1], DAYS)]
    write_schedules(path, two, NAMES, unit_of, once=("S_bolus",))
    return path


def test_a_schedule_comes_back_as_it_was(written):
    one, two = read_schedules(written, NAMES, unit_of)
    assert (one.run_id, one.clone_id, two.run_id) == ("NEXT001", "A", "NEXT002")
    np.testing.assert_array_equal(one.times_h, [0, 24, 48, 72, 96])
    np.testing.assert_array_equal(one.rows, [*PLAN, [25.0, 0.0]])
    assert is_schedule(written) and one_schedule(written, [one, two], "NEXT002") is two
    with pytest.raises(DataError, match="name one of its runs; there are NEXT001, NEXT002"):
        one_schedule(written, [one, two], None)
    with pytest.raises(DataError, match="no run 'X'"):
        one_schedule(written, [one, two], "X")


def test_rows_hold_until_the_next_and_what_is_given_is_given_once():
    schedule = Schedule("r", "", np.array([0.0, 12.0, 48.0]), np.array([[1.0, 4], [3, 2], [3, 0]]))
    found = schedule.during(np.array([0.0, 24.0, 48.0, 72.0]), once=(1,))
    np.testing.assert_allclose(found, [[2.0, 6.0], [3.0, 0.0], [3.0, 0.0]])


def test_the_changes_of_a_schedule_are_hours_of_a_forecast(written):
    one = read_schedules(written, NAMES, unit_of)[0]
    hours, rows = ahead_of(one, 30.0, [24.0, 48.0], once=(1,))
    np.testing.assert_array_equal(hours, [18.0, 24.0, 48.0])  # the feed changes at 48 h
    np.testing.assert_array_equal(rows[:, 0], [10.0, 25.0, 25.0])
    np.testing.assert_array_equal(rows[:, 1], 0.0)  # the bolus of 24 h was given before
    with pytest.raises(DataError, match="ends at 96 h, and the last sample is of 96 h"):
        ahead_of(one, 96.0, [24.0])


def test_samples_of_a_simulation_lie_where_something_is_set(written):
    both = read_schedules(written, NAMES, unit_of)
    hours, controls = on_samples(written, both, 12.0, once=(1,))
    assert hours.size == 9 and controls.shape == (2, 8, 2)
    np.testing.assert_array_equal(controls[0, :, 1], [0, 0, 3, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(controls[0, :, 0], [10, 10, 10, 10, 25, 25, 25, 25])
    with pytest.raises(DataError, match="set at 24 h, between samples 36 h apart"):
        on_samples(written, both, 36.0)
    shorter = both[0]._replace(times_h=both[0].times_h / 2.0)
    with pytest.raises(DataError, match="end at 48, 96 h"):
        on_samples(written, [shorter, both[1]], 12.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run_id,time_h,feed_rate\nA,0,1\nA,24,1\n", "lacks the columns S_bolus"),
        ("time_h,feed_rate,S_bolus\nh,L/h,g\n0,1,0\n24,1,0\n", "feed_rate is in 'L/h'"),
        ("time_h,feed_rate,S_bolus\n0,1,0\n0,2,0\n", "line 3: time_h 0 .* does not come after 0"),
        ("time_h,feed_rate,S_bolus\n0,1,0\n24,x,0\n", "line 3: feed_rate is 'x'"),
        ("time_h,feed_rate,S_bolus\n0,,0\n24,1,0\n", "line 2: feed_rate is ''"),
        ("time_h,feed_rate,S_bolus\n0,1,0\n", "fewer than two rows"),
        ("time_h,feed_rate,S_bolus\n", "no run with fewer than two rows"),
    ],
)
def test_tables_that_are_no_schedule_are_refused_by_line(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_schedules(path, NAMES, unit_of)


def test_a_blank_stays_as_it_was_and_a_table_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("time_h,feed_rate,S_bolus\nh,mL/h,g\n0,5,0\n24,,2\n48,7,0\n")
    (one,) = read_schedules(path, NAMES, unit_of)
    np.testing.assert_array_equal(one.rows, [[5, 0], [5, 2], [7, 0]])
    with pytest.raises(DataError, match="is not a file"):
        read_schedules(tmp_path / "none.csv", NAMES, unit_of)


def test_readings_and_a_schedule_are_one_campaign(tmp_path, written):
    # what was measured in a run that was made by a schedule, in a table of its own
    samples = tmp_path / "samples.csv"
    lines = ["run_id,clone_id,time_h,X,S", ",,h,g/L,g/L"]
    for run in ("NEXT001", "NEXT002"):
        lines += [f"{run},A,{hour},{1 + hour / 24:g},20" for hour in (0, 24, 48, 72, 96)]
    samples.write_text("\n".join(lines) + "\n")
    process = tmp_path / "fed.toml"
    process.write_text(FED.to_toml())
    found = read_culture([samples, written], str(process), FileRules())
    assert [run.run_id for run in found.trajectories] == ["NEXT001", "NEXT002"]
    run = found.trajectories[0]
    place = [list(run.control_names).index(name) for name in NAMES]
    np.testing.assert_array_equal(np.asarray(run.controls)[:, place][:4], PLAN)
    write_described(found.trajectories, tmp_path / "again.csv", FED)
