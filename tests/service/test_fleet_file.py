"""Two cultures side by side: each run its own process, model and objective, in one fleet."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError, ConnectorError
from perfusio_jax.bed.policy import described
from perfusio_jax.hybrid import AssayNoise, HybridStateSpaceModel, Vessel, save
from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.service.audits import verify_run
from perfusio_jax.service.fleet_file import fleet_of
from perfusio_jax.service.plan import plans_of
from perfusio_jax.service.replay import replay_run
from perfusio_jax.service.run import run_twin
from perfusio_jax.simulator import plain_monod
from perfusio_jax.twin.loop.commands import find_runs, status
from tests.twin.described import FOREIGN, SMALL, known_model

FOREIGN_TWIN = """
[twin]
source = "samples.csv"
process = "process.toml"
model = "model"
mechanism = "tests.twin.described:Foreign"
mode = "frozen"
reactor_id = "V1"
[run]
seed = 3
duration_days = 2
n_mc_samples = 16
allow_write = true
[objective]
goals = ["VCD = 20"]
"""
MONOD_TWIN = """
[twin]
source = "samples.csv"
process = "monod_chemostat"
model = "model"
mode = "frozen"
reactor_id = "V2"
[run]
seed = 4
duration_days = 3
n_mc_samples = 16
allow_write = true
[objective]
goals = ["X = 4"]
"""
FOREIGN_ROWS = "time_h,VCD,Via,Glc,Lac\n0,8,97,4.5,0.8\n24,14,96.5,4.1,1\n48,18,96,3.9,1.2\n"
MONOD_ROWS = "time_h,X,S,P\n0,3,2,0.5\n24,3.4,1.6,0.6\n48,3.6,1.4,0.7\n"


@pytest.fixture(autouse=True)
def few_paths(monkeypatch):
    """Decisions of few paths, wherever they are asked for."""
    usual = described.DescribedPolicy.__init__

    def small(self, *args, **settings):
        usual(self, *args, **{**SMALL, **settings})

    monkeypatch.setattr(described.DescribedPolicy, "__init__", small)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of each culture."""
    place = tmp_path_factory.mktemp("models")
    save(known_model(), place / "foreign")
    noise = AssayNoise(np.full(3, 0.05), np.full(3, 0.1), via=None)
    vessel = Vessel(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT), substeps=8)
    save(
        HybridStateSpaceModel(
            vessel, None, dt_hours=24.0, process_sd=np.asarray([1e-3] * 3), assay=noise
        ),
        place / "monod",
    )
    return place


@pytest.fixture
def fleet(tmp_path, models):
    FOREIGN_FILES = {"twin.toml": FOREIGN_TWIN, "samples.csv": FOREIGN_ROWS}
    MONOD_FILES = {"twin.toml": MONOD_TWIN, "samples.csv": MONOD_ROWS}
    for name, files in (("foreign", FOREIGN_FILES), ("monod", MONOD_FILES)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").symlink_to(models / name)
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    FOREIGN.to_toml(tmp_path / "foreign" / "process.toml")
    path = tmp_path / "fleet.toml"
    path.write_text('[fleet]\nruns = ["foreign/twin.toml", "monod"]\n')
    return path


def screen():
    return Console(file=io.StringIO(), width=200, markup=False)


def test_two_cultures_run_side_by_side_each_for_its_own_days(fleet, tmp_path):
    said = screen()
    run_twin(fleet, days=None, allow_write=None, patience_s=0.0, console=said)
    text = said.file.getvalue()
    assert "V1: completed" in text and "V2: completed" in text
    assert [f.name for f in find_runs(tmp_path)] == ["foreign", "monod"]
    days = {s.reactor_id: s.n_days for f in find_runs(fleet) for s in status(f)}
    assert days == {"V1": 2, "V2": 3}
    for name, process in (("foreign", "foreign"), ("monod", "monod_chemostat")):
        log = (tmp_path / name / "audit.jsonl").read_text().splitlines()
        begun = next(r for r in map(json.loads, log) if r["event_type"] == "SESSION_STARTED")
        assert begun["payload"]["process"]["name"] == process
        head = (tmp_path / name / "setpoints.csv").read_text().splitlines()[0]
        assert ("bleed_rate" in head) == (name == "foreign")
    verified = verify_run(fleet)
    assert [v.report.ok for v in verified] == [True, True]
    again = screen()
    assert replay_run(fleet, reactor_id=None, console=again)
    assert "V1: " in again.file.getvalue() and "V2: " in again.file.getvalue()
    only = screen()
    assert replay_run(tmp_path, reactor_id="V2", console=only)
    assert "V1" not in only.file.getvalue()


def test_one_that_cannot_go_on_does_not_keep_the_other(fleet, tmp_path):
    (tmp_path / "monod" / "samples.csv").write_text(MONOD_ROWS.rsplit("48", 1)[0])
    said = screen()
    with pytest.raises(ConnectorError, match="1 of 2 reactors did not get to the end"):
        run_twin(fleet, days=None, allow_write=None, patience_s=0.0, console=said)
    assert "V1: completed" in said.file.getvalue() and "V2: missed" in said.file.getvalue()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fleet]\nruns = []", "it must be a list"),
        ('[fleet]\nruns = "a"', "it must be a list"),
        ('[fleet]\nruns = ["monod", "monod/twin.toml"]', "is named twice"),
        ('[fleet]\nruns = ["nowhere"]', "nowhere in .fleet. is no configuration"),
        ('[fleet]\nruns = ["monod"]\nrun = 1', "run does not belong into a fleet"),
        ('[fleet]\nruns = ["monod"]\n[twin]\nsource = "x"', "twin does not belong into a fleet"),
        ('[fleet]\nruns = ["deep/er/twin.toml"]', "lies elsewhere"),
        ("fleet = 3", "fleet does not belong"),
    ],
)
def test_what_is_no_fleet_is_refused(fleet, tmp_path, text, says):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "twin.toml").write_text(MONOD_TWIN)
    fleet.write_text(text)
    with pytest.raises(ConfigError, match=says):
        plans_of(fleet)


def test_names_and_files_of_a_fleet(fleet, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(fleet.read_text())
    with pytest.raises(ConfigError, match="call it fleet.toml"):
        fleet_of(other)
    assert fleet_of(tmp_path / "monod") is None and fleet_of(tmp_path / "monod/twin.toml") is None
    assert [p.parent.name for p in fleet_of(tmp_path) or ()] == ["foreign", "monod"]
    path = tmp_path / "monod" / "twin.toml"
    path.write_text(MONOD_TWIN.replace("V2", "V1"))
    with pytest.raises(ConfigError, match="both have a vessel V1; name them apart"):
        plans_of(fleet)
