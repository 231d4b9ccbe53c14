"""Rows of one time in a campaign, time stamps beside days, and limits as they are written."""

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors import read_campaign, read_culture
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.tables.cells import parse_number, understood
from perfusio_jax.connectors.tables.file_rules import FileRules

NAN = float("nan")


def table(folder, text):
    path = folder / "t.csv"
    path.write_text(text)
    return path


def read(path, **said):
    return read_campaign(path, rules=FileRules(**said))


def test_a_row_that_is_there_twice_counts_once_and_is_told(tmp_path):
    rows = "run_id,day,VCD,Titer\nA,0,1,131\nA,1,2,< 5\nA,1,2,<5.0\nA,2,3,7\nA,2,3,7\n"
    found = read(table(tmp_path, rows))
    (run,) = found.trajectories
    np.testing.assert_array_equal(run.days, [0, 1, 2])
    assert run.limits[1, run.species_names.index("Titer"), 0] == 5.0
    told = "rows that repeat another (2): line 4 and line 3; line 6 and line 5."
    assert told in found.report.notes


def test_rows_of_one_time_fill_each_other(tmp_path):
    found = read(table(tmp_path, "run_id,day,VCD,Titer\nA,0,1,131\nA,1,2,\nA,1,,5\nA,2,3,7\n"))
    (run,) = found.trajectories
    np.testing.assert_array_equal(run.get_species("VCD"), [1, 2, 3])
    np.testing.assert_array_equal(run.get_species("Titer"), [131, 5, 7])
    assert "rows of one time, made one (1): line 4 and line 3." in found.report.notes


def doubts(path):
    rules = FileRules(time_zone="UTC")
    return source(path, rules).inspect().doubts


@pytest.mark.parametrize("within", [0.0, None])
def test_two_values_of_one_time_name_themselves_and_the_options(tmp_path, within):
    path = table(tmp_path, "run_id,day,VCD,Titer\nA,0,1,131\nA,1,2,5\nA,1,3,5\nA,2,2,7\n")
    with pytest.raises(DataError, match=r"VCD .* '2' in line 3 and '3' in line 4.*--on-conflict"):
        read(path, join_within_h=within)
    found = read(path, join_within_h=within, on_conflict="last")
    np.testing.assert_array_equal(found.trajectories[0].get_species("VCD"), [1, 3, 2])
    assert any("the later row counts" in note for note in found.report.notes)


def test_a_stamp_a_day_from_the_others_is_told_alike_everywhere(tmp_path):
    path = table(
        tmp_path,
        "run_id,day,sampled_at,VCD\nA,0,2024-05-01,1\nA,1,2024-05-03,2\nA,2,2024-05-04,2\n",
    )
    told = "day and sampled_at do not agree in 1 of 3 rows (first line 2: by its stamp 24 h earlier"
    assert any(told in note for note in read(path).report.notes)
    assert any(told in doubt for doubt in doubts(path))


@pytest.mark.parametrize(
    ("column", "stamps"),
    [
        ("day", ("2024-05-01T16:00", "2024-05-02T07:00", "2024-05-03T09:30")),
        ("time_h", ("2024-05-01T09:00", "2024-05-01T12:00", "2024-05-01T14:00")),
        ("day", ("2024-05-01T16:00", "", "nobody knows")),
    ],
)
def test_stamps_that_go_with_their_times_are_not_told(tmp_path, column, stamps):
    rows = "".join(f"A,{k},{stamp},{k + 1}\n" for k, stamp in enumerate(stamps))
    path = table(tmp_path, f"run_id,{column},sampled_at,VCD\n{rows}")
    assert not any("do not agree" in note for note in read(path).report.notes)
    assert not any("do not agree" in doubt for doubt in doubts(path))


@pytest.mark.parametrize(
    ("text", "decimal", "number", "kind"),
    [
        ("< 131 000", ".", 65500.0, "below"),
        ("<131\u2019000.5", ".", 65500.25, "below"),
        ("<.5", ".", 0.25, "below"),
        ("> ,5", ",", 0.5, "above"),
        ("> 1 500,5", ",", 1500.5, "above"),
        (">", ".", None, "above"),
        ("\u2265", ".", None, "above"),
        ("<", ".", None, "under"),
        ("> ULOQ", ".", None, "above"),
        ("ULOQ", ".", None, "above"),
        ("<LLOQ", ".", None, "under"),
        ("BLOQ", ".", None, "under"),
        ("< 5 6", ".", None, "none"),
        ("<1 0000", ".", None, "none"),
        ("<.", ".", None, "none"),
    ],
)
def test_limits_as_they_are_written(text, decimal, number, kind):
    said = understood(text, "Titer", "", lambda part: parse_number(part, decimal))
    assert said == (number, kind)


def test_an_unknown_column_names_the_option(tmp_path):
    path = table(tmp_path, "run_id,day,VCD,Remarks\nA,0,1,wet\nA,1,2,\n")
    with pytest.raises(DataError, match="--unknown ignore"):
        read(path)
    assert read(path, unknown="ignore").report.ignored == ("Remarks",)


def test_a_column_that_names_runs_is_nothing_else(tmp_path):
    path = table(tmp_path, "clone_id,repeat,day,X\nB,1,0,1\nB,1,1,2\nB,2,0,1\nB,2,1,3\n")
    found = read_culture(path, "table", FileRules(run_from=("clone_id", "repeat")))
    assert [run.run_id for run in found.trajectories] == ["B 1", "B 2"]
    assert found.trajectories[0].clone_id == "B"
    assert found.process.readings == ("X",) and found.process.control_names == ()
    assert any("'repeat' names runs" in note for note in found.report.notes)
