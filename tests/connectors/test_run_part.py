"""A run is found in whichever sheet of a workbook, or file of a folder, it is."""

import openpyxl
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors.files.run_part import part_of_run
from perfusio_jax.connectors.tables.file_rules import FileRules

ROWS = [["day", "VCD", "Glc"], [0, 0.5, 5], [1, 1.1, 4]]


def book(path, **sheets):
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


ALL = FileRules(sheet="*")


def test_a_sheet_is_found_by_the_run_it_is_called_as(tmp_path):
    path = book(tmp_path / "a.xlsx", One=ROWS, Two=ROWS, Remarks=[["nothing here"]])
    part = part_of_run(path, ALL, run_id="Two")
    assert part.rules.sheet == "Two" and part.rules.run == "Two"


def test_a_sheet_is_found_by_the_run_or_vessel_its_rows_name(tmp_path):
    named = [["run_id", "reactor_id", "day", "VCD"], ["A7", "R3", 0, 1]]
    path = book(tmp_path / "a.xlsx", One=ROWS, Two=named)
    assert part_of_run(path, ALL, run_id="A7").rules.sheet == "Two"
    assert part_of_run(path, ALL, reactor_id="R3").rules.sheet == "Two"


def test_a_file_of_a_folder_is_found(tmp_path):
    for name in ("w1", "w2"):
        (tmp_path / f"{name}.csv").write_text("day,VCD\n0,1\n1,2\n")
    part = part_of_run(tmp_path, FileRules(), run_id="w2")
    assert part.path == tmp_path / "w2.csv" and part.rules.run == "w2"


def test_the_only_table_needs_no_name(tmp_path):
    path = book(tmp_path / "a.xlsx", One=ROWS, Remarks=[["nothing here"]])
    assert part_of_run(path, ALL).rules.sheet == "One"
    (tmp_path / "a.csv").write_text("day,VCD\n0,1\n")
    plain = part_of_run(tmp_path / "a.csv", ALL, run_id="X")  # whoever reads it looks for X
    assert plain.path.name == "a.csv" and plain.rules.sheet is None


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({}, r"holds several runs \(One, Two\): --run-id says which"),
        ({"run_id": "Three"}, "does not hold that run; its runs are One, Two"),
    ],
)
def test_which_run_is_asked_with_their_names(tmp_path, wanted, says):
    path = book(tmp_path / "a.xlsx", One=ROWS, Two=ROWS)
    with pytest.raises(DataError, match=says):
        part_of_run(path, ALL, **wanted)


def test_a_run_in_several_tables_is_refused_with_their_places(tmp_path):
    one = [["run_id", "day", "VCD"], ["A", 0, 1]]
    other = [["run_id", "day", "Glc"], ["A", 0, 5]]
    path = book(tmp_path / "a.xlsx", Counter=one, Analyser=other)
    with pytest.raises(DataError, match=r"in 2 tables \(sheet 'Counter', sheet 'Analyser'\)"):
        part_of_run(path, ALL, run_id="A")


def test_a_workbook_without_samples_is_refused(tmp_path):
    path = book(tmp_path / "a.xlsx", Remarks=[["nothing here"]], More=[["nor", "here"]])
    with pytest.raises(DataError, match="holds no sample"):
        part_of_run(path, ALL)
