"""Limits of assays in rows that are repeated, corrected, joined, or in several tables."""

import asyncio

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors import FilesystemStore, read_campaign
from perfusio_jax.connectors.exchange import import_file
from perfusio_jax.connectors.files.describing import describe_table
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.sql.admin import upgrade_here
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.twin.loop.reader import _same
from perfusio_jax.twin.records.samples import as_plain

NAN = float("nan")
BELOW, ABOVE = (0.05, NAN), (NAN, 20.0)


def day_one(folder, rows, **said):
    path = folder / "s.csv"
    path.write_text("day,VCD,Glc\n0,0.5,5\n" + rows)
    return asyncio.run(FilesystemStore(path, rules=FileRules(**said)).read_record(1))


@pytest.mark.parametrize(
    ("rows", "value", "quality", "limit"),
    [
        ("1,1,\n1.01,,<0.05\n", 0.025, "uncertain", BELOW),
        ("1,1,\n1.01,,>20\n", None, "bad", ABOVE),
        ("1,1,\n1,1,>20\n", None, "bad", ABOVE),
        ("1,1,n.d.\n1,1,>20\n", None, "bad", ABOVE),
        ("1,1,>20\n1,1,n.d.\n", None, "bad", ABOVE),
        ("1,1,<0.05\n1,1,<0.05\n", 0.025, "uncertain", BELOW),
    ],
)
def test_a_limit_stays_one_however_rows_come(tmp_path, rows, value, quality, limit):
    record = day_one(tmp_path, rows)
    assert record.values["Glc"] == value
    assert record.quality["Glc"] == quality
    assert record.worst_quality == "uncertain"  # a limit above makes no bad sample of it either
    np.testing.assert_array_equal(record.limits["Glc"], limit)


@pytest.mark.parametrize(
    ("rows", "value", "limit"),
    [
        ("1,1,<0.05\n1,1,5\n", 5.0, None),
        ("1,1,<0.05\n1,1,<0.1\n", 0.05, (0.1, NAN)),
        ("1,1,5\n1,1,<0.05\n", 0.025, BELOW),
        ("1,1,5\n1,1,>20\n", None, ABOVE),
        ("1,1,>20\n1,1,25\n", 25.0, None),
    ],
)
def test_two_that_differ_are_a_conflict_or_the_later_counts(tmp_path, rows, value, limit):
    with pytest.raises(DataError, match="Glc of day 1 is"):
        day_one(tmp_path, rows)
    record = day_one(tmp_path, rows, on_conflict="last")
    assert record.values["Glc"] == value
    assert (record.limits.get("Glc") is None) == (limit is None)
    if limit is not None:
        np.testing.assert_array_equal(record.limits["Glc"], limit)


@pytest.mark.parametrize(
    "rows", ["1,1,<0.05\n1,1,>20\n", "1,1,>20\n1,1,>30\n", "1,1,<0.05\n1,1,0.025\n"]
)
def test_half_a_limit_is_no_reading_of_that_value(tmp_path, rows):
    with pytest.raises(DataError, match="Keep one of them"):
        day_one(tmp_path, rows)


def test_rows_minutes_apart_with_a_reading_and_a_limit_stay_two_everywhere(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("run_id,time_h,VCD,Glc\nA,0,1,5\nA,24,1,1\nA,24.1,1,>10\n")
    (run,) = read_campaign(path).trajectories
    np.testing.assert_allclose(run.times_h, [0, 24, 24.1])
    assert source(path, FileRules()).runs()[0][2] == [0.0, 24.0, 24.1]


def folder_of(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_a_limit_of_the_second_table_of_a_run_counts(tmp_path):
    found = read_campaign(
        folder_of(
            tmp_path, a="run_id,day,VCD\nA,0,1\nA,1,2\n", b="run_id,day,Glc\nA,0,5\nA,1,<0.1\n"
        )
    )
    (run,) = found.trajectories
    np.testing.assert_allclose(run.host_limits(["Glc"])[:, 0], [[NAN, NAN], [0.1, NAN]])


def test_a_limit_of_the_first_table_counts_and_of_weeks(tmp_path):
    first = folder_of(
        tmp_path, a="run_id,day,VCD\nA,0,<1\nA,1,2\n", b="run_id,day,Glc\nA,0,5\nA,1,3\n"
    )
    (run,) = read_campaign(first).trajectories
    np.testing.assert_allclose(run.host_limits(["VCD"])[:, 0], [[1.0, NAN], [NAN, NAN]])
    weeks = tmp_path / "weeks"
    weeks.mkdir()
    folder_of(weeks, a="run_id,day,VCD,Glc\nA,0,1,5\nA,1,2,>9\n", b="run_id,day,VCD,Glc\nA,7,3,4\n")
    (run,) = read_campaign(weeks).trajectories
    np.testing.assert_allclose(run.host_limits(["Glc"])[:, 0], [[NAN, NAN], [NAN, 9.0], [NAN, NAN]])


def test_a_limit_in_one_table_and_a_reading_in_another_are_two_runs_of_one_name(tmp_path):
    both = folder_of(tmp_path, a="run_id,day,VCD,Glc\nA,0,1,>9\n", b="run_id,day,Glc\nA,0,4\n")
    with pytest.raises(DataError, match="both have Glc"):
        read_campaign(both)


def test_other_runs_have_limits_or_none(tmp_path):
    two = folder_of(
        tmp_path, a="run_id,day,Glc,VCD\nA,0,<1,5\n", b="run_id,day,VCD,Glc,Lac\nB,0,1,2,3\n"
    )
    one, other = read_campaign(two).trajectories
    assert one.limits is not None and other.limits is None


@pytest.mark.parametrize("name", ["temperature", "perfusion_rate", "volume_L", "V_bleed_L", "pH"])
def test_what_no_assay_reads_has_no_limits(tmp_path, name):
    path = tmp_path / "a.csv"
    path.write_text(f"run_id,day,VCD,{name}\nA,0,1,7\nA,1,2,<6\n")
    with pytest.raises(DataError, match="no reading of an assay"):
        read_campaign(path)
    rows = source(path, FileRules())._source.samples().rows
    assert rows["A", "", 24.0].values[name] is None


@pytest.mark.parametrize("cell", ["<-1", "<0"])
def test_a_limit_is_above_zero(tmp_path, cell):
    path = tmp_path / "a.csv"
    path.write_text(f"run_id,day,VCD,Glc\nA,0,1,7\nA,1,2,{cell}\n")
    with pytest.raises(DataError, match="a limit is above zero"):
        read_campaign(path)
    row = source(path, FileRules())._source.samples().rows["A", "", 24.0]
    assert row.values["Glc"] is None and row.limits is None and row.quality("Glc") == "bad"


@pytest.mark.parametrize("cell", ["<1", "> 1"])
def test_a_limit_is_no_time(tmp_path, cell):
    path = tmp_path / "a.csv"
    path.write_text(f"run_id,day,VCD\nA,0,1\nA,{cell},2\nA,2,3\n")
    with pytest.raises(DataError, match="day"):
        read_campaign(path)


def test_a_column_of_upper_limits_only_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("run_id,day,VCD,Titer\nA,0,1,>10\nA,1,2,>10\n")
    report = source(path, FileRules()).inspect()
    column = next(c for c in report.columns if c.name == "Titer")
    assert (column.n_above, column.n_unusable) == (2, 0)
    (run,) = read_campaign(path).trajectories
    np.testing.assert_array_equal(run.host_limits(["Titer"])[:, 0, 1], [10.0, 10.0])


def test_no_rate_is_made_of_a_limit(tmp_path):
    from perfusio_jax.process import CHO_PERFUSION, derive

    path = tmp_path / "a.csv"
    path.write_text(
        "run_id,day,VCD,Via,Gln,perfusion_rate,bleed_rate,glucose_setpoint,temperature,agitation,"
        "pyruvate_feed,V_perfusion_L,V_bleed_L,V_glucose_L,V_sample_L\n"
        "A,0,1,98,5,1,0.1,5,36.5,900,1,,,,\n"
        "A,1,2,98,<0.5,1,0.1,5,36.5,900,1,0.25,0.025,0.002,0\n"
        "A,2,4,98,<0.5,1,0.1,5,36.5,900,1,0.25,0.025,0.002,0\n"
    )
    (run,) = read_campaign(path).trajectories
    found = derive(CHO_PERFUSION, run)
    told = {number.name: np.asarray(number.values) for number in found.numbers}
    assert np.isnan(told["rate_Gln"]).all() and np.isnan(told["q_Gln"]).all()
    assert np.isfinite(told["growth_net"]).all()


def test_a_flood_of_repeats_is_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("day,VCD\n" + "".join(f"{k},1\n{k},1\n" for k in range(60)))
    report = source(path, FileRules()).inspect()
    assert report.n_duplicates == 60
    assert sum("repeats the row" in note for note in report.notes) == 20
    assert "and 40 more lines repeat others" in report.notes


def test_another_limit_of_a_sample_is_noticed(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("day,VCD,Glc\n0,0.5,5\n1,1,>20\n")
    store = FilesystemStore(path)
    first = asyncio.run(store.read_record(1))
    path.write_text("day,VCD,Glc\n0,0.5,5\n1,1,>30\n")
    later = asyncio.run(store.read_record(1))
    assert first.values == later.values and first.quality == later.quality
    assert any("changed since it was first read" in note for note in later.notes)
    assert not _same(as_plain(first, 1), as_plain(later, 1))
    assert _same(as_plain(first, 1), as_plain(first, 1))


def test_one_run_of_several_vessels_is_imported_by_its_name(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("run_id,reactor_id,day,VCD\nA,V1,0,1\nA,V1,1,2\nB,V2,0,3\n")
    url = f"sqlite:///{tmp_path / 'a.db'}"
    upgrade_here(url)
    (line,) = import_file(url, source(path, FileRules(), run_id="B"), "E", None)
    assert "E, V2: 1 samples" in line
    with pytest.raises(DataError, match="has no run 'C'; its runs are A, B"):
        import_file(url, source(path, FileRules(), run_id="C"), "E", None)


@pytest.mark.parametrize("cell", ["<1", ">1", "≤ 1"])
def test_a_culture_is_read_off_a_table_with_limits(tmp_path, cell):
    path = tmp_path / "a.csv"
    rows = [f"P,{6 * k},{2**k},{7 - k},{40 - 5 * k}" for k in range(5)]
    path.write_text(
        "\n".join(["run_id,time_h,DCW [g/L],OD600,MeOH [g/L]", *rows, f"P,30,{cell},{cell},{cell}"])
    )
    process = describe_table(path).process
    assert {"DCW", "OD600", "MeOH"} <= set(process.readings)
    (run,) = read_campaign(path, process=process, unknown="ignore").trajectories
    side = 1 if ">" in cell else 0
    assert run.host_limits(["DCW", "OD600", "MeOH"])[-1, :, side].tolist() == [1.0, 1.0, 1.0]
    store = source(path, FileRules(), process=process)
    assert store._source.samples().rows["P", "", 30.0].limits["OD600"][side] == 1.0
