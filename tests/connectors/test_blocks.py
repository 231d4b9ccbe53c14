"""Files that hold several tables."""

import numpy as np
import openpyxl
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.connectors import read_campaign
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.tables.file_rules import FileRules

STACKED = """Unit 1
time_h;VCD;Glc
h;1e6 cells/mL;g/L
0;0,5;5,2
24;1,1;4,9

Unit 2
time_h;VCD;Lac
h;1e6 cells/mL;mmol/L
0;0,6;2,0
24;1,2;3,5
"""
PAIRS = """time_h;VCD;time_h;Glc;Lac
0;0,5;0;5,2;2,0
24;1,1;23,5;4,9;3,1
48;2,0;;;
"""


def rules(kind, **more):
    return FileRules.of(blocks=kind, **more)


def test_blocks_below_each_other_are_vessels(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        STACKED.replace("Export of the control system\n", "").replace("Operator;kim\n", "")
    )
    found = read_campaign(path, rules=rules("vessels"))
    one, two = found.trajectories
    assert (one.run_id, two.run_id) == ("Unit 1", "Unit 2")
    np.testing.assert_allclose(one.get_species("Glc"), [5.2, 4.9])
    np.testing.assert_allclose(two.get_species("VCD"), [0.6, 1.2])
    np.testing.assert_allclose(two.get_species("Lac"), [2.0, 3.5])
    assert np.isnan(one.get_species("Lac")).all()
    assert any("2 blocks were read" in note for note in found.report.notes)
    store = source(path, rules("vessels"))
    assert store.runs() == [("", "Unit 1", [0.0, 24.0]), ("", "Unit 2", [0.0, 24.0])]


def test_blocks_of_a_sheet_are_vessels_too(tmp_path):
    book = openpyxl.Workbook()
    for line in (
        "Vessel: R1",
        "time_h,VCD",
        "0,0.5",
        "24,1.1",
        "Vessel: R2",
        "time_h,VCD",
        "0,0.7",
    ):
        book.active.append([_cell(text) for text in line.split(",")])
    path = tmp_path / "a.xlsx"
    book.save(path)
    one, two = read_campaign(path, rules=rules("vessels")).trajectories
    assert (one.run_id, two.run_id) == ("R1", "R2")
    np.testing.assert_allclose(two.get_species("VCD"), [0.7])


def _cell(text):
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Unit 2\n", "", "whose header stands on line 7 has no line with the name"),
        ("Unit 2", "Unit 1", "is of 'Unit 1', as another is"),
        ("h;1e6 cells/mL;mmol/L", "h;1/mL;mmol/L", "blocks have one unit"),
    ],
)
def test_blocks_that_make_no_sense_are_refused(tmp_path, old, new, said):
    path = tmp_path / "a.csv"
    path.write_text(STACKED.replace(old, new))
    with pytest.raises(DataError, match=said):
        read_campaign(path, rules=rules("vessels"))


def test_a_column_of_times_before_each_quantity(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(PAIRS)
    (run,) = read_campaign(path, rules=rules("times", run="A", join_within_h=0.0)).trajectories
    np.testing.assert_allclose(run.times_h, [0.0, 23.5, 24.0, 48.0])
    np.testing.assert_allclose(run.get_species("VCD"), [0.5, np.nan, 1.1, 2.0])
    np.testing.assert_allclose(run.get_species("Lac"), [2.0, 3.1, np.nan, np.nan])
    joined = read_campaign(path, rules=rules("times", run="A")).trajectories[0]
    np.testing.assert_allclose(joined.get_species("Glc"), [5.2, 4.9, np.nan])
    assert source(path, rules("times")).runs()[0][2] == [0.0, 23.5, 48.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_h,VCD\n0,1\n", "a column of times before each quantity"),
        (PAIRS + ";;0;7,0;2,0\n", "'Glc' is '5,2' and, in line 5, '7,0' at '0'"),
        (PAIRS + ";9;;;\n", "without a time before it"),
    ],
)
def test_times_that_make_no_sense_are_refused(tmp_path, text, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_campaign(path, rules=rules("times", run="A"))


def test_another_kind_of_blocks_is_refused():
    with pytest.raises(ConfigError, match="allowed are vessels and times"):
        FileRules.of(blocks="plates")
