"""`validate` from a table to a model card, on a mechanism that compiles quickly."""

import csv
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import FORECAST_SPECIES, ConfigError
from perfusio_jax.connectors import write_campaign
from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import HybridConfig, Skill, load, read_verdict
from perfusio_jax.report.validation import validate_campaign, verdict_of
from tests.hybrid.cases import ToyMechanism, campaign
from tests.hybrid.conftest import SMALL

COARSE = HybridConfig(
    n_particles=24,
    growth=8,
    rounds=0,
    fit=FitConfig(max_iterations=8, n_restarts=1, max_rows=24),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folder of results and what was printed."""
    folder = tmp_path_factory.mktemp("validation")
    runs, _ = campaign(ToyMechanism(growth=0.022, uptake=0.026), n_runs=6, n_days=8)
    write_campaign(runs, folder / "campaign.csv")
    text = io.StringIO()
    validate_campaign(
        folder / "campaign.csv",
        folder / "out",
        n_folds=3,
        horizon=3,
        seed=0,
        console=Console(file=text, width=100),
        config=SMALL,
        mech_model=ToyMechanism(),
    )
    return folder / "out", text.getvalue()


def test_scores_cover_every_step_and_measured_species(results):
    with (results[0] / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {r["days_ahead"] for r in rows} == {"1", "2", "3"}
    names = {r["species"] for r in rows}
    assert {"VCD", "Via", "Titer"} <= names <= set(FORECAST_SPECIES)
    for row in rows:
        assert 0.0 <= float(row["coverage_80"]) <= float(row["coverage_95"]) <= 1.0
        assert float(row["rrmse"]) > 0.0
        assert float(row["width_80"]) < float(row["width_95"])


def test_summary_beats_persistence_and_is_plain_json(results):
    summary = json.loads((results[0] / "summary.json").read_text(encoding="utf-8"))
    assert summary["days_ahead"] == [1, 2, 3]
    assert summary["rrmse"]["VCD"][2] < 0.5 * summary["rrmse_persistence"]["VCD"][2]
    assert summary["rrmse"]["DCD"] == [None] * 3  # never measured: not a number, not zero


def test_card_says_what_was_learned_from_and_how_good_it_is(results):
    card = (results[0] / "model_card.md").read_text(encoding="utf-8")
    assert "6 runs of 8 to 8 d" in card
    assert "3 folds" in card
    assert "nan" not in card.split("The furthest:")[1].split("\n")[0]
    assert "perfusion_rate" in card
    assert card.count("\n| ") >= 4
    assert "3 folds" in results[1]


def test_model_and_figures_are_there(results):
    model = load(results[0] / "model", mech_model=ToyMechanism())
    assert int(model.base_rows) == 48
    for name in ("parity_1d.png", "parity_3d.png", "calibration.png"):
        assert (results[0] / "figures" / name).stat().st_size > 10_000


def test_what_was_never_measured_is_a_dash_and_the_intervals_are_the_true_ones(results):
    card = (results[0] / "model_card.md").read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", card + results[1])
    row = next(line for line in results[1].splitlines() if " VCV " in line)
    assert row.count("–") == 2 and "(" not in row  # one and three days ahead
    assert "samples every 24 h" in card and "samples every 24 h." in results[1]


def test_the_verdict_is_printed_written_and_kept_with_the_model(results):
    card = (results[0] / "model_card.md").read_text(encoding="utf-8")
    summary = json.loads((results[0] / "summary.json").read_text(encoding="utf-8"))["verdict"]
    line = next(text for text in results[1].splitlines() if text.startswith("verdict ("))
    assert line == summary["line"] and line.removeprefix("verdict") in card
    assert "runs left out, 1 to 3 d ahead" in line
    assert "fit for use: VCD" in line and "not judged: VCV, Diam, DCD." in line
    model = load(results[0] / "model", mech_model=ToyMechanism())
    kept = read_verdict(model, results[0] / "model")
    assert kept is not None and kept.line() == line


def test_a_verdict_pools_the_days_ahead_by_their_readings():
    count = np.zeros((2, 12), int)
    count[:, 0] = 30, 10
    rrmse, naive = np.full((2, 12), np.nan), np.full((2, 12), np.nan)
    rrmse[:, 0], naive[:, 0] = (1.3, 0.7), (0.5, 0.5)
    cover = np.full((2, 2, 12), np.nan)
    cover[:, :, 0] = 0.8
    scores = Skill(rrmse, cover, cover, rrmse, count, np.full((2, 2), 0.8))
    found = verdict_of(scores, naive)
    assert found.error[0] == pytest.approx(np.sqrt((30 * 1.3**2 + 10 * 0.7**2) / 40))
    assert list(found.unfit) == ["VCD"] and not found.fit
    assert len(found.not_judged) == 11


def test_five_species_and_a_blank_column_are_validated_and_the_rest_is_a_dash(tmp_path):
    runs, _ = campaign(ToyMechanism(growth=0.022), n_runs=4, n_days=4)
    names = ("VCD", "Via", "Glc", "Lac", "Titer", "Gln")
    few = []
    for run in runs:
        table = np.array(run.host_species(names))
        table[:, -1] = np.nan
        few.append(dataclasses.replace(run, species=table, species_names=names))
    write_campaign(few, tmp_path / "few.csv")
    said = io.StringIO()
    validate_campaign(
        tmp_path / "few.csv",
        tmp_path / "out",
        n_folds=2,
        horizon=2,
        seed=0,
        console=Console(file=said, width=100),
        config=COARSE,
        mech_model=ToyMechanism(),
    )
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8") as file:
        assert {r["species"] for r in csv.DictReader(file)} == set(names[:-1])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    for key in ("rrmse", "rrmse_trend", "rrmse_persistence", "wape", "crps"):
        assert summary[key]["Gln"] == [None, None] and summary[key]["Amm"] == [None, None]
        assert None not in summary[key]["VCD"]
    assert "not judged: VCV, Diam, Gln, Glu, Amm, Pyr, DCD." in said.getvalue()
    card = (tmp_path / "out" / "model_card.md").read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", card + said.getvalue())


def test_one_fold_is_refused(tmp_path):
    runs, _ = campaign(ToyMechanism(), n_runs=3, n_days=4)
    write_campaign(runs, tmp_path / "c.csv")
    with pytest.raises(ConfigError, match="n_folds=1"):
        validate_campaign(
            tmp_path / "c.csv",
            tmp_path / "o",
            n_folds=1,
            horizon=2,
            seed=0,
            console=Console(file=io.StringIO()),
        )
    assert not (tmp_path / "o").exists()
