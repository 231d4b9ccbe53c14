"""Transfer studies of campaign tables: what is read, who is novel, what is tested, what is left."""

import json

import numpy as np
import pytest

from perfusio_jax import cli
from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.connectors import read_campaign, write_described
from perfusio_jax.embedding import fed_batch_runs, studied
from perfusio_jax.process import CHO_PERFUSION, Control, Process, Quantity
from perfusio_jax.service.study_example import study_culture, write_study
from perfusio_jax.service.transferring import run_study, study_of
from perfusio_jax.simulator import FED_BATCH_SPECIES
from perfusio_jax.states import Trajectory
from tests.transfer_table import PRODUCTS, made_up

STUDY = made_up()


class Told:
    """A console that remembers."""

    def __init__(self):
        self.lines = []

    def print(self, text, **_):
        self.lines.append(str(text))

    def __contains__(self, text):
        return any(text in line for line in self.lines)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_study(STUDY, tmp_path_factory.mktemp("written") / "study")


@pytest.fixture(scope="module")
def campaign(written):
    table, culture = written
    return read_campaign(table, process=Process.from_toml(culture)).trajectories


def test_a_written_study_is_the_same_study_when_it_is_read(written, campaign):
    process = Process.from_toml(written[1])
    assert process == study_culture()
    told = Told()
    study = study_of(campaign, process, "gamma", ["test-*"], console=told)
    assert study.products == PRODUCTS and study.species == FED_BATCH_SPECIES
    for mine, theirs in zip(STUDY[:3], study[:3], strict=True):
        for name in mine._fields:
            expected, ours = np.asarray(getattr(mine, name)), np.asarray(getattr(theirs, name))
            if name == "volume_after":  # nobody says what the last sample took
                expected, ours = expected[:, :-1], ours[:, :-1]
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12, err_msg=name)
    with pytest.raises(DataError, match="exists already"):
        write_study(STUDY, written[0].parent)


def test_without_names_the_last_half_is_tested_and_told(written, campaign):
    told = Told()
    study = study_of(campaign, study_culture(), "gamma", (), console=told)
    assert study.novel.measured.shape[0] == 3 and study.test.measured.shape[0] == 2
    assert "the last half of gamma: test-001, test-002" in told


def test_who_is_novel_and_what_is_tested_has_to_be_there(campaign):
    process, told = study_culture(), Told()
    with pytest.raises(ConfigError, match=r"is not said; there are alpha \(2 runs\), beta"):
        study_of(campaign, process, None, (), console=told)
    with pytest.raises(ConfigError, match="did you mean 'gamma'"):
        study_of(campaign, process, "gama", (), console=told)
    with pytest.raises(ConfigError, match="--test-run best: no run of gamma has such a name"):
        study_of(campaign, process, "gamma", ["test-001", "best"], console=told)
    with pytest.raises(ConfigError, match="at least one must be left to train on"):
        study_of(campaign, process, "gamma", ["*"], console=told)
    one = [run for run in campaign if run.clone_id == "alpha"]
    with pytest.raises(DataError, match="of one cell line, alpha .*column clone_id"):
        study_of(one, process, "alpha", (), console=told)


def holed(campaign, name, row):
    """The campaign with one sample of one run empty."""
    return [
        run
        if run.run_id != name
        else Trajectory(
            **{
                "species": np.where(np.arange(6)[:, None] == row, np.nan, run.species),
                "controls": run.controls,
                "volume_L": run.volume_L,
                "days": run.days,
                "species_names": run.species_names,
                "control_names": run.control_names,
                "run_id": run.run_id,
                "clone_id": run.clone_id,
            }
        )
        for run in campaign
    ]


def test_a_test_run_starts_from_a_whole_sample_and_gaps_are_told(campaign):
    process, told = study_culture(), Told()
    with pytest.raises(DataError, match="test run test-002 misses a reading of VCD"):
        study_of(holed(campaign, "test-002", 0), process, "gamma", ["test-*"], console=told)
    study_of(holed(campaign, "historic-001", 2), process, "gamma", ["test-*"], console=told)
    assert "left out: 2 of 35 intervals to learn from" in told


def batches(doses, volumes, **more):
    """One fed-batch of one substrate, fed by boluses of grams."""
    process = Process(
        name="bolus",
        volume_L=1.0,
        biomass="X",
        quantities=(
            Quantity(name="X", unit="g/L", hi=100.0),
            Quantity(name="S", unit="g/L", hi=100.0),
            Quantity(name="pH", unit="pH", kind="level", hi=14.0),
        ),
        controls=(
            Control(
                name="S_bolus", unit="g", role="bolus", lo=0.0, hi=9.0, default=0.0, quantity="S"
            ),
            Control(name="T", unit="degC", role="environment", lo=20.0, hi=40.0, default=37.0),
        ),
    )
    n = len(doses)
    run = Trajectory(
        species=np.stack([np.arange(n) + 1.0, 5.0 - np.arange(n), np.full(n, 7.0)], axis=1),
        controls=np.stack([doses, np.full(n, 37.0)], axis=1),
        volume_L=volumes,
        days=np.arange(n),
        species_names=("X", "S", "pH"),
        control_names=("S_bolus", "T"),
        run_id="one",
        clone_id="alpha",
        times_h=24.0 * np.arange(n),
        **more,
    )
    return process, run


def test_a_bolus_is_given_after_its_sample_and_its_volume_is_in_the_next():
    process, run = batches([0.0, 3.0, 0.0], [1.0, 1.0, 1.05])
    names = studied([run], process)
    assert names == ("X", "S")
    runs = fed_batch_runs([run], process, species=names, products=("alpha",))
    np.testing.assert_allclose(runs.given[0], [[0, 0], [0, 3.0], [0, 0]])
    np.testing.assert_allclose(runs.fed, 0.0)
    np.testing.assert_allclose(runs.volume_after[0], [1.0, 1.0, 1.05])
    np.testing.assert_allclose(runs.volume_before[0], [1.0, 1.0, 1.05])
    assert runs.controls.shape == (1, 3, 1)


def test_what_a_volume_falls_by_was_drawn_with_the_sample():
    process, run = batches([0.0, 0.0, 0.0], [1.0, 0.98, 0.96])
    runs = fed_batch_runs([run], process, species=("X", "S"), products=("alpha",))
    np.testing.assert_allclose(runs.volume_before[0], [1.0, 0.98, 0.96])
    np.testing.assert_allclose(runs.volume_after[0, :-1], [0.98, 0.96])


def test_shorter_runs_go_on_without_readings():
    process, short = batches([1.0, 0.0], [1.0, 1.0])
    _, long = batches([0.0] * 4, [1.0] * 4)
    runs = fed_batch_runs([short, long], process, species=("X", "S"), products=("alpha",))
    assert np.isnan(runs.measured[0, 2:]).all() and np.isfinite(runs.measured[1]).all()
    np.testing.assert_allclose(runs.days[0], [0, 1, 2, 3])
    with pytest.raises(DataError, match="'one' has 4 samples; there is room for 3"):
        fed_batch_runs([long], process, species=("X",), products=("alpha",), n_samples=3)
    with pytest.raises(DataError, match="one sample"):
        fed_batch_runs([batches([0.0], [1.0])[1]], process, species=("X",), products=("alpha",))


def test_cultures_that_lose_broth_are_refused_by_the_stream():
    _, run = batches([0.0, 0.0], [1.0, 1.0])
    with pytest.raises(ConfigError, match="bleed, harvest, which leaves"):
        studied([run], CHO_PERFUSION)
    process, run = batches([0.0, 0.0], [1.0, 1.0])
    blank = Trajectory(
        species=np.full((2, 3), np.nan),
        controls=run.controls,
        volume_L=run.volume_L,
        days=run.days,
        species_names=run.species_names,
        control_names=run.control_names,
    )
    with pytest.raises(DataError, match="nothing that bolus carries was read in any of the 1"):
        studied([blank], process)


def test_a_table_of_cell_lines_says_whose_a_run_is(tmp_path):
    process, run = batches([0.0, 1.0], [1.0, 1.0])
    write_described([run], tmp_path / "runs.csv", process)
    assert read_campaign(tmp_path / "runs.csv", process=process).trajectories[0].clone_id == "alpha"


@pytest.mark.slow
def test_the_command_reads_a_table_and_leaves_table_and_summary(written, tmp_path, capsys):
    table, culture = map(str, written)
    base = ["transfer-study", table, "--process", culture, "--out", str(tmp_path)]
    named = [*base, "--novel", "gamma", "--test-run", "test-*"]

    def command(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(list(args))
        return stop.value.code

    quick = ["--counts", "2", "--repeats", "1", "--dim", "2", "--effort", "0.1", "--no-own-noise"]
    assert command(*named, *quick) == 0
    summary = json.loads((tmp_path / "transfer_summary.json").read_text())
    assert summary["counts"] == [2] and summary["products"] == list(PRODUCTS)
    assert set(summary["species"]) == set(FED_BATCH_SPECIES)
    assert len((tmp_path / "transfer_records.jsonl").read_text().splitlines()) == 3
    assert "| Lac, embedding |" in (tmp_path / "transfer_table.md").read_text()
    capsys.readouterr()
    assert command(*named, "--counts", "two") == 2
    assert command(*named, "--counts", "9") == 2
    assert command(*base) == 2
    assert "Say --novel with one of them" in capsys.readouterr().err


def test_perfusion_is_no_culture_of_a_study(tmp_path):
    rows = ["run_id,clone_id,day,VCD,perfusion_rate"]
    rows += [f"{r},{r},{d},{d + 1.0},1.0" for r in ("a", "b") for d in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.raises(ConfigError, match="taken for CHO perfusion"):
        run_study(tmp_path / "t.csv", tmp_path / "out", novel="b", console=Told())
