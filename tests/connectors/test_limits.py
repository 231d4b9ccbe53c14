"""Limits of assays in tables: what is below or above one stays so up to the model."""

from pathlib import Path

import numpy as np
import pytest

from perfusio_jax.connectors import read_campaign, write_campaign
from perfusio_jax.connectors.files.one_run import read_one_run
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import Control, Process, Quantity

TABLE = """run_id,time_h,VCD,Gln [umol/L],Lac,perfusion_rate
A,0,1.0,3000,2.0,1.0
A,24,2.0,< 400,2.5,1.0
A,48,4.0,BLQ,> 40,1.0
B,0,1.0,3000,2.0,1.0
B,24,2.1,2500,2.4,1.0
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "limits.csv"
    path.write_text(TABLE)
    return path


def test_a_campaign_keeps_limits_in_the_unit_of_the_quantity(table):
    found = read_campaign(table)
    first, second = found.trajectories
    assert second.limits is None
    gln, lac = (first.host_limits([name])[:, 0] for name in ("Gln", "Lac"))
    np.testing.assert_allclose(gln[1], [0.4, np.nan])
    assert np.isnan(gln[[0, 2]]).all()  # a limit that is not stated bounds nothing
    np.testing.assert_allclose(lac[2], [np.nan, 40.0])
    assert float(first.get_species("Gln")[1]) == pytest.approx(0.2)
    assert np.isnan(first.get_species("Lac")[2])
    assert any("below the limit" in warning for warning in found.report.warnings)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".tsv"])
def test_limits_come_back_from_what_is_written(table, tmp_path, suffix):
    found = read_campaign(table).trajectories
    again = tmp_path / f"again{suffix}"
    write_campaign(found, again)
    for one, other in zip(found, read_campaign(again).trajectories, strict=True):
        assert (one.limits is None) == (other.limits is None)
        names = one.species_names
        np.testing.assert_array_equal(one.host_limits(names), other.host_limits(names))
        np.testing.assert_allclose(one.species, other.host_species(names), rtol=1e-12)


def test_one_run_of_a_described_culture_keeps_them_too(tmp_path):
    warm = Control(
        name="temperature", unit="degC", role="environment", lo=20.0, hi=40.0, default=30.0
    )
    process = Process(
        name="small",
        quantities=(Quantity(name="X", unit="g/L", hi=50), Quantity(name="S", unit="g/L", hi=50)),
        controls=(warm,),
        volume_L=1.0,
    )
    path = tmp_path / "run.csv"
    path.write_text("time_h,X,S,temperature\n0,1,10,30\n6,2,<0.5,30\n12,>8,0.4,30\n")
    run = read_one_run(path, process, FileRules()).trajectory
    limits = run.host_limits(["X", "S"])
    np.testing.assert_allclose(limits[1, 1], [0.5, np.nan])
    np.testing.assert_allclose(limits[2, 0], [np.nan, 8.0])
    assert int(np.isfinite(limits).sum()) == 2
