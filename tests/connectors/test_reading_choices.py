"""What a person may say of a file: separators, thousands, rows from before the start, percent."""

import datetime as dt

import numpy as np
import openpyxl
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.connectors import read_campaign, write_campaign
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.tables.file_rules import FileRules

EARLY = "run_id,time_h,VCD,perfusion_rate\nA,-0.5,0.5,1\nA,24,1.0,1\nA,48,2.0,1\n"


def written(folder, text, name="a.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_separator_may_be_said_by_its_name_or_its_mark(tmp_path):
    path = written(tmp_path, "run_id|time_h|VCD|note, long\nA|0|1.5|a,b,c\nA|24|3|d,e,f\n")
    for said in ("bar", "|"):
        rules = FileRules.of(separator=said, unknown="ignore")
        found = read_campaign(path, rules=rules).trajectories[0]
        np.testing.assert_allclose(found.get_species("VCD"), [1.5, 3.0])
    with pytest.raises(ConfigError, match="separator is 'dash'"):
        FileRules.of(separator="dash")


@pytest.mark.parametrize(("thousands", "value"), [("point", 1637.0), ("comma", 1.637)])
def test_thousands_tell_what_the_other_mark_is(tmp_path, thousands, value):
    path = written(tmp_path, "run_id;time_h;Titer\nA;0;1.637\nA;24;1.642\n")
    rules = FileRules.of(thousands=thousands)
    assert float(read_campaign(path, rules=rules).trajectories[0].get_species("Titer")[0]) == value
    with pytest.raises(DataError, match="thousands or decimals"):
        read_campaign(path)


def test_one_mark_cannot_be_both():
    with pytest.raises(ConfigError, match="one mark for both"):
        FileRules.of(thousands="comma", decimal=",")
    assert FileRules.of(thousands=".", decimal=",").decimal == ","


def test_rows_from_before_the_start_may_be_kept(tmp_path):
    path = written(tmp_path, EARLY)
    kept = read_campaign(path, rules=FileRules.of(negative_time="keep"))
    np.testing.assert_allclose(kept.trajectories[0].times_h, [-0.5, 24.0, 48.0])
    assert not any("before the inoculation" in text for text in kept.report.warnings)
    np.testing.assert_allclose(read_campaign(path).trajectories[0].times_h, [24.0, 48.0])
    store = source(path, FileRules.of(negative_time="keep"))
    assert store.runs() == [("A", "", [-0.5, 24.0, 48.0])]
    stamped = written(
        tmp_path,
        "run_id,sampled_at,VCD\nA,2026-05-01T07:30Z,0.5\nA,2026-05-02T08:00Z,1\n",
        "stamped.csv",
    )
    began = dt.datetime(2026, 5, 1, 8, tzinfo=dt.UTC)
    rules = FileRules.of(inoculated_at=began, negative_time="keep")
    times = read_campaign(stamped, rules=rules).trajectories[0].times_h
    np.testing.assert_allclose(times, [-0.5, 24.0])
    np.testing.assert_allclose(source(stamped, rules).runs()[0][2], [-0.5, 24.0])


def test_percent_of_a_spreadsheet_is_what_is_seen(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["run_id", "time_h", "VCD", "Via", "Glc"])
    sheet.append(["A", 0, 0.5, 0.975, "4,5"])
    sheet.append(["A", 24, 1.0, 0.93, "3,2"])
    for row in (2, 3):
        sheet.cell(row, 4).number_format = "0.0%"
    path = tmp_path / "percent.xlsx"
    book.save(path)
    run = read_campaign(path).trajectories[0]
    np.testing.assert_allclose(run.get_species("Via"), [97.5, 93.0])
    np.testing.assert_allclose(run.get_species("Glc"), [4.5, 3.2])
    rows = source(path, FileRules())._source.samples().rows
    assert rows["A", "", 0.0].values["Via"] == pytest.approx(97.5)


def test_a_campaign_is_written_as_a_workbook_and_read_back(tmp_path):
    text = "run_id,time_h,VCD,Gln,perfusion_rate\n=A,0,0.5,<0.4,1\n=A,24,1.0,,1\n"
    found = read_campaign(written(tmp_path, text)).trajectories
    path = tmp_path / "again.xlsx"
    write_campaign(found, path)
    (again,) = read_campaign(path).trajectories
    assert again.run_id == "=A"
    np.testing.assert_array_equal(again.species, found[0].species)
    np.testing.assert_array_equal(again.host_limits(["Gln"]), found[0].host_limits(["Gln"]))


def test_a_map_that_says_another_unit_than_the_header_is_told(tmp_path):
    path = written(tmp_path, "run_id,time_h,Zucker [g/L]\nA,0,900\nA,24,450\n")
    rules = FileRules.of({"Zucker": {"name": "Glc", "unit": "mg/dL"}})
    found = read_campaign(path, rules=rules)
    np.testing.assert_allclose(found.trajectories[0].get_species("Glc"), [9.0, 4.5])
    told = "'Zucker [g/L]' states g/L; the column map says mg/dL, which counts"
    assert any(told in note for note in found.report.notes)
    assert any(told in note for note in source(path, rules).inspect().notes)


@pytest.mark.parametrize("form", ['0.0"%"', "0\\%", "0_%"])
def test_a_percent_sign_that_is_only_shown_makes_no_hundredths(tmp_path, form):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["run_id", "time_h", "VCD", "Via"])
    sheet.append(["A", 0, 0.5, 98.0])
    sheet.append(["A", 24, 1.0, 0.93])
    sheet.cell(2, 4).number_format = form
    sheet.cell(3, 4).number_format = "0%"
    path = tmp_path / "shown.xlsx"
    book.save(path)
    run = read_campaign(path).trajectories[0]
    np.testing.assert_allclose(run.get_species("Via"), [98.0, 93.0])


def test_a_negative_time_is_a_number_in_what_is_exported():
    from perfusio_jax.connectors.tables.writing import as_csv

    assert as_csv(["day", "name"], ["d", ""], [[-2, "=A"], [-1.5, "-B"]]) == (
        "day,name\nd,\n-2,'=A\n-1.5,'-B\n"
    )


def test_a_nested_column_of_parquet_is_text_and_no_crash(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"run_id": ["A", "A"], "time_h": [0.0, 24.0], "VCD": [1.0, 2.0], "notes": [[1.0], [2.0]]}
    )
    path = tmp_path / "nested.parquet"
    pq.write_table(table, path)
    rules = FileRules.of(unknown="ignore")
    run = read_campaign(path, rules=rules).trajectories[0]
    np.testing.assert_allclose(run.get_species("VCD"), [1.0, 2.0])
    assert source(path, rules).inspect().n_rows == 2
    pq.write_table(table.set_column(2, "VCD", pa.array([[1.0], [2.0]])), path)
    for read in (lambda: read_campaign(path, rules=rules), source(path, rules).inspect):
        with pytest.raises(DataError, match="VCD"):
            read()
