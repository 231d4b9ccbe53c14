"""The demonstration of a described culture, short: past runs, fit, loop through files, rival."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.policy import described
from perfusio_jax.demo import described_run
from perfusio_jax.demo.described_main import run_described_demo, show, summary_of
from perfusio_jax.demo.described_run import (
    DescribedResult,
    Held,
    Setting,
    aim_of,
    held_of,
    run_fixed,
    run_pi,
    tuned_pi,
)
from perfusio_jax.hybrid import Fitted
from perfusio_jax.process import CHO_PERFUSION, MONOD_CHEMOSTAT
from perfusio_jax.service.replay import replay_run
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.twin import Objective
from tests.twin.described import FOREIGN, HELD, SMALL, Foreign, known_model

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def setting():
    plant = virtual_plant(FOREIGN, Foreign())
    return Setting(plant, np.array([8.0, 0.2, 4.5, 0.8]), HELD, 24.0, 4)


def test_a_rival_holds_the_plant_better_than_leaving_it_alone(setting):
    held = held_of("VCD = 20", FOREIGN)
    assert held == Held("VCD", 20.0, "bleed_rate"), "what takes cells away is the lever"
    tuned, path = tuned_pi(setting, held, seed=1)
    assert path.shape == (9, 4) and tuned["gain"] > 0.0, "more cells, more bleed"
    alone = run_fixed(setting, seed=1)
    assert np.abs(path[5:, 0] - 20.0).mean() < np.abs(alone[5:, 0] - 20.0).mean()
    np.testing.assert_allclose(path[:5], alone[:5], rtol=1e-6, err_msg="the same start-up")


def test_a_lever_keeps_its_range_and_the_balance(setting):
    import jax

    held = Held("VCD", 0.1, "bleed_rate")  # all of it is to go
    low = Setting(setting.plant, setting.start, {"perfusion_rate": 0.5, "bleed_rate": 0.1}, 24.0, 4)
    keys = jax.random.split(jax.random.key(0), 2)
    paths = run_pi(low, held, np.array([5.0, 5.0]), np.array([1.0, 2.0]), keys)
    assert np.isfinite(paths).all(), "never more bled than enters, so no plant fails"


def test_goals_and_levers_are_those_of_the_culture():
    assert held_of("max Lac", FOREIGN) is None
    assert held_of("X = 3", MONOD_CHEMOSTAT).lever == "dilution"
    assert held_of("VCD = 20", FOREIGN, "perfusion_rate").lever == "perfusion_rate"
    with pytest.raises(ConfigError, match="--lever 'pH' cannot be set; of foreign can be set"):
        held_of("VCD = 20", FOREIGN, "pH")
    with pytest.raises(ConfigError, match="'Titer' is not forecast"):
        aim_of("Titer = 3", FOREIGN, [])
    runs = described_run.past_runs(
        virtual_plant(FOREIGN, Foreign()), n_runs=2, n_days=2, interval_h=24.0, seed=0
    )
    assert [run.n_days for run in runs] == [3, 3]
    ends = np.median([float(np.asarray(r.get_species("VCD"))[-1]) for r in runs])
    assert aim_of(None, FOREIGN, runs) == f"VCD = {ends:.3g}"


def test_the_whole_way_and_what_it_leaves_behind(setting, tmp_path, monkeypatch):
    """With a model that is at hand, in place of a fit."""
    usual = described.DescribedPolicy.__init__
    monkeypatch.setattr(
        described.DescribedPolicy,
        "__init__",
        lambda self, *a, **s: usual(self, *a, **{**SMALL, **s}),
    )
    monkeypatch.setattr(
        described_run,
        "fitted_best",
        lambda *a, **k: (Fitted(known_model(), None, None, "known"), ["told"]),
    )
    said = []
    result, objective, held = described_run.run_described_seed(
        tmp_path, setting, seed=0, goal="VCD = 20", n_runs=2, say=said.append
    )
    for name in ("process.toml", "campaign.csv", "model", "config.toml", "samples.csv"):
        assert (tmp_path / name).exists(), name
    assert result.verified and objective.goals == ("VCD = 20",) and "told" in said
    assert len(result.truth) == 9 and len(result.applied) == 8
    assert result.errors(setting, held)["twin"] < result.errors(setting, held)["fixed"]
    config = tmp_path / "config.toml"
    config.write_text(
        config.read_text().replace(
            "[twin]\n", '[twin]\nmechanism = "tests.twin.described:Foreign"\n', 1
        )
    )
    again = Console(file=io.StringIO(), width=300)
    assert replay_run(config, reactor_id=None, console=again), again.file.getvalue()
    summary = summary_of(setting, [(result, objective, held)], 1.0)
    json.dumps(summary)
    assert summary["pooled"]["seeds"] == 1 and summary["runs"][0]["lever"] == "bleed_rate"
    out = Console(file=io.StringIO(), width=100)
    show(summary, out)
    text = out.file.getvalue()
    assert "foreign: VCD = 20" in text and "PI, tuned on the plant" in text
    most = DescribedResult(0, tmp_path, result.truth, [], {"fixed": result.truth})
    show(summary_of(setting, [(most, Objective(("max Lac",)), None)], 1.0), out)
    assert "Lac at the end" in out.file.getvalue()


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"every_h": 5.0}, "--every 5"),
        ({"goal": "max Q"}, "'Q' is not forecast"),
        ({"lever": "pH", "goal": "X = 3"}, "--lever"),
        ({"mechanism": "none"}, "moves nothing"),
        ({"which": "nobody"}, "there is no process"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_the_folder_is_touched(tmp_path, wishes, message):
    settings = {
        "which": "monod_chemostat",
        "mechanism": None,
        "goal": None,
        "limits": (),
        "lever": None,
        "seeds": [0],
        "n_days": 4,
        "every_h": 24.0,
        "console": Console(quiet=True),
        **wishes,
    }
    with pytest.raises(ConfigError, match=message):
        run_described_demo(tmp_path / "out", settings.pop("which"), **settings)
    assert not (tmp_path / "out").exists() and CHO_PERFUSION.name
