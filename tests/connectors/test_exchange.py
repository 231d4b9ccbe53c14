"""A campaign into a database and back: runs, clones and cultures stay what they were."""

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors.exchange import export_file, import_file, import_runs
from perfusio_jax.connectors.files.campaign_files import read_campaign, write_campaign
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.sql.admin import upgrade_here
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.states import Trajectory


@pytest.fixture
def url(tmp_path):
    made = f"sqlite:///{tmp_path / 's.db'}"
    upgrade_here(made)
    return made


def runs(**changes):
    values = np.arange(8.0).reshape(4, 2) + 1.0
    return [
        Trajectory(
            species=values + k,
            controls=np.full((4, 1), 0.5 + k),
            volume_L=np.full(4, 0.25),
            days=np.arange(4),
            species_names=("VCD", "Glc"),
            control_names=("perfusion_rate",),
            run_id=f"E{k}",
            clone_id=changes.get("clone_id", ["CX", "CY", "unknown"][k]),
            reactor_id="R1",
        )
        for k in range(3)
    ]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_a_campaign_goes_into_a_database_at_once_and_comes_back_whole(tmp_path, url, suffix):
    table = tmp_path / f"campaign{suffix}"
    write_campaign(runs(), table)
    lines = import_runs(url, source(table, FileRules()), None)
    assert [line for line in lines if "4 new" in line][
        2
    ] == "E2, R1: 4 samples (4 new, 0 duplicate, 0 corrected)"
    assert "4 duplicate" in import_runs(url, source(table, FileRules()), None)[-1]
    out = tmp_path / f"out{suffix}"
    assert "12 samples of 3 reactor(s) in 3 experiments" in export_file(url, out, [], [])
    back = read_campaign(out).trajectories
    for was, now in zip(runs(), back, strict=True):
        assert (now.run_id, now.clone_id, now.reactor_id) == (was.run_id, was.clone_id, "R1")
        np.testing.assert_array_equal(now.get_species("Glc"), was.get_species("Glc"))
        np.testing.assert_array_equal(now.controls, was.controls)
    assert "8 samples" in export_file(url, out, ["E2", "E0"], [])
    assert [run.run_id for run in read_campaign(out).trajectories] == ["E2", "E0"]
    with pytest.raises(DataError, match="it has none. Experiments of the database: E0, E1, E2"):
        export_file(url, out, ["E9"], [])


def test_a_clone_is_kept_of_a_vessel_that_the_file_does_not_name(tmp_path, url):
    table = tmp_path / "one.csv"
    table.write_text("run_id,clone_id,day,VCD\nA,CX,0,1\nA,CX,1,2\n")
    import_file(url, source(table, FileRules(), run_id="A"), "A", "R7")
    export_file(url, tmp_path / "out.csv", "A", [])
    (run,) = read_campaign(tmp_path / "out.csv").trajectories
    assert (run.reactor_id, run.clone_id) == ("R7", "CX")


def test_a_vessel_has_one_clone(tmp_path, url):
    table = tmp_path / "campaign.csv"
    write_campaign(runs(), table)
    import_runs(url, source(table, FileRules()), None)
    write_campaign(runs(clone_id="CX"), table)
    with pytest.raises(DataError, match="holds R1 as clone CY, and these samples are of clone CX"):
        import_runs(url, source(table, FileRules()), None)
    table.write_text("reactor_id,clone_id,day,VCD\nR1,A,0,1\nR1,B,1,2\n")
    with pytest.raises(DataError, match="has the clones A, B"):
        import_file(url, source(table, FileRules()), "E", None)


def test_runs_without_a_name_are_no_experiments(tmp_path, url):
    table = tmp_path / "one.csv"
    table.write_text("reactor_id,day,VCD\nR1,0,1\nR1,1,2\n")
    with pytest.raises(DataError, match="a run without a name, which cannot be an experiment"):
        import_runs(url, source(table, FileRules()), None)


def test_two_runs_that_would_have_one_name_are_not_one_table(tmp_path, url):
    table = tmp_path / "one.csv"
    table.write_text("reactor_id,day,VCD\nR1,0,1\nR2,0,2\n")
    import_file(url, source(table, FileRules()), "E", None)
    table.write_text("reactor_id,day,VCD\nR1,0,1\n")
    import_file(url, source(table, FileRules()), "E R1", None)
    with pytest.raises(DataError, match="would both be called 'E R1'"):
        export_file(url, tmp_path / "out.csv", [], [])
