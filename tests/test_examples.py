"""The example scripts run as they stand, on small sizes and with the mechanism alone."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from perfusio_jax.bed import CampaignSettings
from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import HybridConfig

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


NAMES = ["03", "04", "06", "07", "bring_your_process", "bring_your_mechanism", "fed_batch"]


@pytest.mark.parametrize("name", NAMES)
def test_every_script_says_what_it_is(name):
    path = next(EXAMPLES.glob(f"{name}*.py"))
    assert path.read_text(encoding="utf-8").startswith('"""')
