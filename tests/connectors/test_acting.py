"""Since when the set-points of a row act, by campaign, run and database alike."""

import json

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.exchange import export_file, import_file
from perfusio_jax.connectors.files.campaign_files import read_campaign
from perfusio_jax.connectors.files.filesystem import FilesystemStore
from perfusio_jax.connectors.files.one_run import read_one_run
from perfusio_jax.connectors.sql.admin import upgrade_here
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import Control, Process, Quantity

UNTIL = FileRules(set_points="until")
CHO = "run_id,reactor_id,day,VCD,bleed_rate\nA,R1,0,1,\nA,R1,1,2,0.1\nA,R1,2,3,0.2\n"
BATCH = Process(
    name="batch",
    volume_L=1.0,
    quantities=(Quantity(name="X", unit="g/L", hi=50.0),),
    controls=(
        Control(
            name="temperature", unit="degC", role="environment", lo=20.0, hi=40.0, default=30.0
        ),
        Control(name="feed_g", unit="g", role="bolus", lo=0.0, hi=9.0, default=0.0, quantity="X"),
    ),
)
OWN = "run_id,time_h,X,temperature,feed_g\nA,0,1,,0\nA,6,2,30,1\nA,12,3,32,2\n"


def test_a_campaign_whose_rows_say_what_acted_until_them_is_moved_a_row_up(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(CHO)
    as_said = read_campaign(path)
    np.testing.assert_array_equal(as_said.trajectories[0].controls[:, 0], [np.nan, 0.1, 0.2])
    moved = read_campaign(path, rules=UNTIL)
    np.testing.assert_array_equal(moved.trajectories[0].controls[:, 0], [0.1, 0.2, 0.2])
    assert any("acted until its sample" in note for note in moved.report.notes)
    assert not any("acted until" in note for note in as_said.report.notes)


def test_a_bolus_stays_at_its_sample(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(OWN)
    one = read_one_run(path, BATCH, UNTIL)
    table = np.asarray(one.trajectory.controls)
    np.testing.assert_array_equal(table, [[30.0, 0.0], [32.0, 1.0], [32.0, 2.0]])
    assert any("acted until its sample" in note for note in one.report.notes)
    whole = read_campaign(path, process=BATCH, rules=UNTIL).trajectories[0]
    np.testing.assert_array_equal(np.asarray(whole.controls), table)


@pytest.fixture
def url(tmp_path):
    made = f"sqlite:///{tmp_path / 's.db'}"
    upgrade_here(made)
    return made


def test_a_database_holds_what_acts_from_a_sample_on(tmp_path, url):
    path = tmp_path / "t.csv"
    path.write_text(CHO)
    import_file(url, FilesystemStore(path, rules=UNTIL), "e", None)
    export_file(url, tmp_path / "out.csv", "e", [])
    back = read_campaign(tmp_path / "out.csv").trajectories[0]
    np.testing.assert_array_equal(back.controls[:, 0], [0.1, 0.2, 0.2])


def test_a_map_may_say_it_and_nothing_else_is_taken(tmp_path):
    (tmp_path / "m.toml").write_text('[reading]\nset_points = "until"\n')
    assert FileRules.of(tmp_path / "m.toml") == UNTIL
    with pytest.raises(ConfigError, match="allowed are from and until"):
        FileRules(set_points=json.loads('"later"'))
