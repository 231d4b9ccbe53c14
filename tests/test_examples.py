"""The example scripts run as they stand, on small sizes and with the mechanism alone."""

import asyncio
import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from docs.book.tutorials import cells_of
from perfusio_jax._core import CONTROL_NAMES
from perfusio_jax.bed import CampaignSettings
from perfusio_jax.connectors import read_campaign
from perfusio_jax.embedding import METHODS
from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import HybridConfig
from perfusio_jax.simulator import FED_BATCH_SPECIES

EXAMPLES = Path(__file__).parents[1] / "examples"
PLAIN = HybridConfig(use_gp=False, calibrate=False, n_particles=16)
SMALL = HybridConfig(n_particles=24, growth=32, fit=FitConfig(n_restarts=1, max_iterations=15))


def script(name: str) -> ModuleType:
    path = next(EXAMPLES.glob(f"{name}*.py"))
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_simulated_campaign(tmp_path, capsys):
    found = script("01").main(tmp_path, 4, 7)
    assert set(found) == set(CONTROL_NAMES) and all(math.isfinite(v) for v in found.values())
    runs = read_campaign(tmp_path / "campaign.csv").trajectories
    assert [run.n_days for run in runs] == [8, 8, 8, 8]
    assert (tmp_path / "campaign.png").stat().st_size > 10_000
    assert "4 runs of 7 days in campaign.csv" in capsys.readouterr().out


def test_hybrid_model(tmp_path, capsys):
    errors = script("02").main(tmp_path, 6, 7, PLAIN)
    assert errors["hybrid"] == errors["mechanism"] < errors["nothing changes"]  # PLAIN is both
    assert (tmp_path / "left_out.png").stat().st_size > 10_000
    assert "fitted on 4 runs" in capsys.readouterr().out


def test_target_tracking(tmp_path, capsys):
    decisions = script("03").main(4, 7, 16, PLAIN, tmp_path)
    assert (tmp_path / "decisions.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert [d.reactor_id for d in decisions] == ["R01", "R02", "R03", "R01", "R01"]
    first, held, limited = decisions[0], decisions[3], decisions[4]
    assert held.recommended_controls != first.recommended_controls
    assert limited.recommended_controls["bleed_rate"] <= 0.2
    for decision in decisions:
        assert decision.explanation["ofv"] <= decision.explanation["ofv_unchanged"] + 1e-9
    assert "held by the operator" in said and "alternatives" in said


def test_pareto_campaign(tmp_path, capsys):
    settings = CampaignSettings(n_raw=32, n_children=16, n_parents=4, widths=(0.1,), climb_rounds=0)
    volumes = script("04").main(
        tmp_path, n_days=6, n_batches=1, q=2, settings=settings, config=PLAIN
    )
    assert len(volumes) == 2 and volumes[1] >= volumes[0] > 0.0
    rows = (tmp_path / "proposed.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3 and rows[0].startswith("perfusion_rate")
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert "hypervolume" in capsys.readouterr().out


def test_online_twin_on_a_file(tmp_path, capsys):
    script("06").main(tmp_path, 3, 16)
    rows = (tmp_path / "recommendations.csv").read_text(encoding="utf-8").splitlines()
    assert [float(row.split(",")[2]) for row in rows[1:]] == [0.0, 1.0, 2.0]
    assert (tmp_path / "audit.jsonl").stat().st_size > 0
    assert f"records in {tmp_path}" in capsys.readouterr().out
    assert all((tmp_path / f"{n}.png").stat().st_size > 10_000 for n in ("run", "timeline"))


@pytest.mark.timeout(600)  # a day of the served rack takes twelve seconds
def test_closed_loop_over_opcua(tmp_path, capsys):
    after = asyncio.run(script("07").run(tmp_path, 1))
    assert set(after) == set(CONTROL_NAMES)
    said = capsys.readouterr().out
    assert "before:" in said and "after: " in said
    assert (tmp_path / "certificates").is_dir() and (tmp_path / "opcua.jsonl").stat().st_size > 0
    assert all((tmp_path / f"{n}.png").stat().st_size > 10_000 for n in ("run", "timeline"))


def test_transfer_learning(tmp_path, capsys):
    found = script("05").main(tmp_path, (2,), (1, 1), 3, 4, 0.05)
    assert set(found) == {(method, 2) for method in METHODS}
    for errors in found.values():
        assert set(errors) == set(FED_BATCH_SPECIES) and all(v > 0.0 for v in errors.values())
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
    assert "with 2 runs, mean of both: none" in capsys.readouterr().out


def test_sensitivity(tmp_path, capsys):
    near, wide = script("sensitivity").main(tmp_path, 7, 16, ("bleed_rate", "mu_max"))
    assert near.elasticities[0, 0] < 0.0 < near.elasticities[0, 1]  # bleed takes, growth gives
    total = np.asarray(wide.found.total)[0]
    assert total.shape == (2,) and np.all(np.isfinite(total)) and total.sum() > 0.5
    assert (tmp_path / "sensitivity.png").stat().st_size > 10_000
    assert "not settled" in capsys.readouterr().out  # 64 runs are few


def test_calibration(tmp_path, capsys):
    found = script("calibration").main(tmp_path, 2, 5, "map")
    assert found.names == ("mu_max", "a_S") and found.pooled.shape == (1000, 2)
    said = capsys.readouterr().out
    assert "these runs could know it to" in said and "95 % from" in said
    assert (tmp_path / "constants.png").stat().st_size > 10_000
    assert (tmp_path / "posterior" / "header.json").is_file()


def test_rl_tracking(tmp_path, capsys):
    state, errors = script("rl_tracking").main(tmp_path, 40, 20, 5)
    assert int(state.epoch) == 40
    curve = np.asarray(state.history.mean_return)
    assert curve[30:].mean() > curve[:5].mean()  # it learns
    assert 0.0 < errors["best constant lamps"] < 1.5 and 0.0 < errors["learned"] < 5.0
    assert (tmp_path / "tracking.png").stat().st_size > 10_000
    assert "40 epochs of 20 episodes" in capsys.readouterr().out


def test_bring_your_process(tmp_path, capsys):
    assert script("bring_your_process").main(tmp_path, 6, SMALL) < 0.5
    said = capsys.readouterr().out
    assert "assumed: biomass: rates are taken to be per X." in said and "measured" in said
    assert 'name = "EtOH"' in (tmp_path / "process.toml").read_text(encoding="utf-8")
    assert (tmp_path / "forecast.png").stat().st_size > 10_000


def test_bring_your_mechanism(tmp_path, capsys):
    errors = script("bring_your_mechanism").main(tmp_path, 9, SMALL)
    assert errors["with"] < 0.5 and errors["without"] > 2.0 * errors["with"]
    assert "on 3 runs left out the mechanism makes the error" in capsys.readouterr().out
    assert (tmp_path / "left_out.png").stat().st_size > 10_000


def test_fed_batch(tmp_path, capsys):
    errors = script("fed_batch").main(tmp_path, 8, SMALL)
    assert errors["as it is"] < 0.5 and errors["doubled"] < 0.5
    assert "feed doubled" in capsys.readouterr().out
    assert (tmp_path / "fed_batch.png").stat().st_size > 10_000


SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def test_every_script_is_run():
    text = Path(__file__).read_text(encoding="utf-8")
    named = {name for name in re.findall(r'script\("(\w+)"\)', text)}
    assert len(SCRIPTS) >= 12
    for path in SCRIPTS:
        assert any(path.name.startswith(name) for name in named), path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_says_what_it_is_and_is_in_cells(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""') and "\n# %%\n" in text
    assert sum(kind == "markdown" for kind, _ in cells_of(text)) >= 3
