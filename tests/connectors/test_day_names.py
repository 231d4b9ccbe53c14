"""Days by name, viability that was not read, and units of what is counted other than cells."""

import numpy as np
import pytest

from perfusio_jax._core import DataError, UnitError
from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax.connectors.files.campaign_files import read_campaign
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.tables.doubts import dead_and_alive
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import Quantity


@pytest.mark.parametrize(
    "cells",
    [
        ("D0", "D1", "D3"),
        ("Day 0", "day 1", "DAY 3"),
        ("Tag 0", "Tag 1", "Tag 3"),
        ("d0", "1", "Día 3"),
    ],
)
def test_days_are_read_by_their_names(tmp_path, cells):
    path = tmp_path / "t.csv"
    path.write_text(
        "run_id,day,VCD\n" + "".join(f"A,{cell},{k + 1}\n" for k, cell in enumerate(cells))
    )
    found = read_campaign(path)
    assert np.asarray(found.trajectories[0].times_h).tolist() == [0.0, 24.0, 72.0]
    assert any("names of days, as" in note and cells[0] in note for note in found.report.notes)
    rows = source(path, FileRules())
    assert rows.runs()[0][2] == [0.0, 24.0, 72.0]
    assert any("names of days" in note for note in rows.report().notes)


def test_a_day_before_the_inoculation_or_after_a_dash_is_not_guessed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("run_id,day,VCD\nA,D-1,1\nA,D-2,2\n")
    with pytest.raises(DataError, match="day is .D-1. in line 2"):
        source(path, FileRules()).runs()
    with pytest.raises(DataError, match="D-1"):
        read_campaign(path)


def test_a_viability_of_zero_beside_living_cells_is_pointed_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("run_id,day,VCD,Via\nA,0,1,98\nA,1,2,0\nA,2,0,0\n")
    said = "Via is 0 beside living cells in 1 row(s)"
    assert said in str(read_campaign(path).report)
    assert any(said in odd for odd in source(path, FileRules()).inspect().oddities)
    assert dead_and_alive([98.0, None, 0.0], [1.0, 2.0, 0.0]) == ""


def test_viruses_and_colonies_are_counted_in_units_of_their_own():
    for unit in ("pfu/mL", "1e9 vg/mL", "CFU/mL", "vp/mL", "ffu/mL", "IU/mL"):
        assert ("length", -3) in parse_unit(unit).dimensions
        assert Quantity(name="P", unit=unit, hi=1e12).unit == unit
    assert parse_unit("pfu/mL").dimensions != parse_unit("vg/mL").dimensions
    with pytest.raises(UnitError):
        parse_unit("quux/mL")
