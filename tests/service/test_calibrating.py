"""`calibrate` from the command line."""

import dataclasses
import json

import equinox as eqx
import jax
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.cli import main
from perfusio_jax.hybrid import fit_hybrid, forecast_ahead, forecast_over
from perfusio_jax.mechanistic import as_built, read_build
from perfusio_jax.process import MONOD_CHEMOSTAT, Process
from perfusio_jax.service.calibrating import _progress
from perfusio_jax.service.posterior_draws import with_draws
from perfusio_jax.simulator import plain_monod, simulate_runs, virtual_plant
from perfusio_jax.study import (
    Plan,
    calibrate,
    calibration_problem,
    described_experiment,
    load_posterior,
    save_posterior,
)
from tests.hybrid.cultures import QUICK


def _code(words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    words = f"simulate {path} --process monod_chemostat --runs 2 --days 2 --every 12"
    assert _code(words.split()) == 0
    return path


@pytest.fixture
def words(table):
    few = ["--only", "mu_max", "--only", "a_S", "--chains", 2]
    return ["calibrate", table, "--process", "monod_chemostat", *few]


def test_a_table_becomes_a_posterior_with_its_pictures(words, tmp_path, capsys):
    out, picture = tmp_path / "p", tmp_path / "p.png"
    code = _code([*words, "--method", "map", "--out", out, "--figure", picture])
    told = capsys.readouterr().out
    assert "2 constants, 2 runs, 30 readings" in told and "compiling" in told
    assert "what the posterior would read" in told
    found, culture = load_posterior(out)
    assert set(culture) == {"process", "mechanism", "description", "build"}
    assert (culture["process"], culture["mechanism"]) == ("monod_chemostat", "monod")
    assert Process.model_validate(culture["description"]) == MONOD_CHEMOSTAT
    assert eqx.tree_equal(
        as_built(plain_monod(MONOD_CHEMOSTAT), read_build(culture["build"])),
        plain_monod(MONOD_CHEMOSTAT),
    )
    assert found.names == ("mu_max", "a_S") and found.draws.shape == (1, 1000, 2)
    assert code == (7 if found.problems else 0)
    for path in (picture, tmp_path / "p-readings.png"):
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG") and b"Description" in content


def test_draws_that_are_not_to_be_believed_end_in_seven_and_say_so(words, tmp_path, capsys):
    out = tmp_path / "p"
    asked = [*words, "--warmup", 20, "--draws", 20, "--out", out]
    assert _code(asked) == 7
    told = " ".join(capsys.readouterr().out.split())
    assert "not to be believed as it is: " in told and "too few draws" in told
    assert "20 of 50 draws" in told  # the warm-up has three stages of ten
    header = json.loads((out / "header.json").read_text())
    assert any("too few draws" in line for line in header["architecture"]["problems"])
    assert "is_accepted" not in header["architecture"]["culture"]
    assert _code([*asked, "--accept-warnings"]) == 0
    assert load_posterior(out)[1]["is_accepted"], "decisions may rest on it"


@pytest.mark.parametrize(
    "more, said",
    [
        (["--method", "magic"], "choose nuts, svi or map"),
        (["--between", "mu_max=1"], "name=low:high"),
        (["--only", "mu_mx"], "did you mean 'mu_max'"),
    ],
)
def test_what_makes_no_sense_is_refused(more, said, words, tmp_path, capsys):
    assert _code([*words, "--out", tmp_path / "p", *more]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_is_left_to_wait_is_told_from_the_pace(monkeypatch):
    told, now = [], iter(np.arange(0.0, 300.0, 30.0))
    monkeypatch.setattr("perfusio_jax.service.calibrating.tell", told.append)
    report = _progress(lambda: next(now), "draws")
    for done in (10, 20, 30):
        report(done, 40 - done)
    assert told == [
        "10 of 40 draws",
        "20 of 40 draws, about 60 s left",
        "30 of 40 draws, about 30 s left",
    ]


def test_a_forecast_takes_its_constants_from_the_posterior(tmp_path):
    mechanism = plain_monod(MONOD_CHEMOSTAT)
    plant = virtual_plant(MONOD_CHEMOSTAT, mechanism, rtol=1e-5, atol=1e-8)
    controls = np.tile([0.1, 10.0], (1, 3, 1))
    (run, other) = simulate_runs(
        plant,
        [[2.0, 3.0, 0.5], [1.0, 4.0, 0.2]],
        np.repeat(controls, 2, axis=0),
        [0.0, 6.0, 12.0, 18.0],
        key=jax.random.key(0),
    )
    settings = dataclasses.replace(QUICK, use_gp=False)
    model, _ = fit_hybrid(
        [run, other],
        key=jax.random.key(0),
        config=settings,
        process=MONOD_CHEMOSTAT,
        mech_model=mechanism,
    )
    own = described_experiment(plant, [0.0, 6.0])
    problem = calibration_problem(own, [run], ["mu_max"], starts_known=True)
    found = calibrate(problem, method="map", plan=Plan(n_chains=2))
    draws = np.linspace(0.5, 1.5, 1000)[None, :, None] * float(mechanism.mu_max)
    wide = found._replace(draws=draws, by_clone=draws[:, :, None], problems=("a reason",))
    here = {"process": "monod_chemostat"}
    folder = save_posterior(wide, tmp_path / "p", culture=here)
    models, told = with_draws(model, MONOD_CHEMOSTAT, folder, "unknown", seed=1)
    assert len(models) == 16 and "a reason" in told[1]
    values = {float(m.mech_model.kinetics.mu_max) for m in models}
    assert len(values) > 10 and min(values) < 0.7 * float(mechanism.mu_max)
    hours = [6.0, 12.0]
    alone = forecast_ahead(model, run, hours, n_samples=32, n_particles=32)
    pooled = forecast_over(models[:4], run, hours, n_samples=8, n_particles=32)
    same = forecast_over([model], run, hours, n_samples=32, n_particles=32)
    np.testing.assert_array_equal(alone.q50, same.q50)
    assert pooled.names == alone.names and not np.array_equal(pooled.q50, alone.q50)
    # constants that nobody knows make a wider forecast
    assert (
        np.ptp([pooled.q10[-1], pooled.q90[-1]], 0)[1]
        > np.ptp([alone.q10[-1], alone.q90[-1]], 0)[1]
    )
    with pytest.raises(ConfigError, match="is of monod_chemostat, the model of yeast"):
        with_draws(model, Process(**{**MONOD_CHEMOSTAT.model_dump(), "name": "yeast"}), folder, "")
    bare = eqx.tree_at(lambda m: m.mech_model.kinetics, model, None)
    with pytest.raises(ConfigError, match="the model has no mechanism"):
        with_draws(bare, MONOD_CHEMOSTAT, folder, "")
