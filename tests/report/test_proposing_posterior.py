"""Runs proposed under what is not known of the mechanism's constants."""

import csv
from io import StringIO

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.cli import main
from perfusio_jax.hybrid import at_draw, draw_paths, drawn_mechanisms
from perfusio_jax.hybrid.recipes import recipe_rollout
from perfusio_jax.report.proposing import N_PATHS, propose_file
from perfusio_jax.report.proposing_described import Aims, propose_described
from perfusio_jax.report.wishes import Wishes
from perfusio_jax.service.fitting import fit_table
from perfusio_jax.study import PosteriorMechanisms, save_posterior
from perfusio_jax.twin.decision.described_step import described_history
from tests.hybrid.cultures import QUICK
from tests.study.calibration.made import culture_of, made_posterior
from tests.twin.described import FOREIGN, Foreign, known_model, rows

SMALL = CampaignSettings(n_raw=32, n_children=16, batch=16, climb_rounds=0)
LABEL = "final VCD [1e6 cells/mL]"
RNG = np.random.default_rng(0)
WIDE = 0.045 * np.exp(0.2 * RNG.standard_normal((16, 1)))


def screen():
    return Console(file=StringIO(), width=120, markup=False)


@pytest.fixture(scope="module")
def model():
    return known_model()


@pytest.fixture(scope="module")
def runs():
    found = []
    for k, bleed in enumerate((0.1, 0.3)):
        table = rows(4, growth=1.2 - bleed)
        for row in table:
            row["controls"] = {"perfusion_rate": 1.2 + 0.2 * k, "bleed_rate": bleed}
        found.append(described_history(table, FOREIGN, run_id=f"r{k}"))
    return found


def proposed(model, runs, out, draws=None):
    posterior = None
    if draws is not None:
        drawn = drawn_mechanisms(Foreign(), ["mu_max"], draws)
        posterior = PosteriorMechanisms(drawn, "f00d" * 16, "here", ())
    aims = Aims("max VCD", ("Via>=60",), n_runs=2, days=2, fixed={"perfusion_rate": 1.2})
    return propose_described(
        model,
        runs,
        aims,
        pending=None,
        out=out,
        console=screen(),
        settings=SMALL,
        posterior=posterior,
    )


def recipes(out):
    with out.open() as file:
        return [[float(row["bleed_rate"])] for row in list(csv.DictReader(file))[1:]]


def test_draws_that_are_alike_propose_what_those_constants_propose(model, runs, tmp_path):
    alike = np.full((16, 1), 0.05)
    there = at_draw(model, drawn_mechanisms(Foreign(), ["mu_max"], alike), np.asarray(0))
    one = proposed(there, runs, tmp_path / "a.csv")
    two = proposed(model, runs, tmp_path / "b.csv", alike)
    np.testing.assert_allclose(recipes(tmp_path / "a.csv"), recipes(tmp_path / "b.csv"), rtol=1e-9)
    for a, b in zip(one["runs"], two["runs"], strict=True):
        for what in ("expected", "q10", "q90"):
            assert a[what][LABEL] == pytest.approx(b[what][LABEL], rel=1e-9)
    assert "posterior" not in one and two["posterior"]["draws"] == 16
    assert any("16 draws of here (SHA-256 f00df00d" in line for line in two["remarks"])


def test_bands_are_those_of_the_draws_by_brute_force(model, runs, tmp_path):
    alone = proposed(model, runs, tmp_path / "a.csv")
    found = proposed(model, runs, tmp_path / "b.csv", WIDE)
    drawn = drawn_mechanisms(Foreign(), ["mu_max"], WIDE)
    paths = draw_paths(model, N_PATHS, key=jax.random.key(0), max_steps=2)
    start = model.latent.inverse(model.initial.mean)
    rolled = jax.jit(recipe_rollout)
    for run, (bleed,) in zip(found["runs"], recipes(tmp_path / "b.csv"), strict=True):
        plan = jnp.broadcast_to(jnp.asarray([1.2, bleed])[None, :], (2, 2))
        each = [
            np.asarray(rolled(at_draw(model, drawn, np.asarray(k)), paths, start, plan, 0.0))
            for k in range(16)
        ]
        final = np.array([each[s % 16][s, -1, 0] for s in range(N_PATHS)])
        assert run["expected"][LABEL] == pytest.approx(final.mean(), rel=1e-6)
        for what, share in (("q10", 0.1), ("q90", 0.9)):
            assert run[what][LABEL] == pytest.approx(np.quantile(final, share), rel=1e-6)
    narrow, wide = (f["runs"][0]["q90"][LABEL] - f["runs"][0]["q10"][LABEL] for f in (alone, found))
    assert wide > 2.0 * narrow, "what is not known of growth is in what is expected"


# ------------------------------------------------------------------ from table to table


@pytest.fixture(scope="module")
def table(runs, tmp_path_factory):
    """A campaign of both runs, its process beside it."""
    place = tmp_path_factory.mktemp("runs")
    FOREIGN.to_toml(place / "foreign.toml")
    with (place / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run_id", "time_h", *FOREIGN.readings, *FOREIGN.control_names])
        for run in runs:
            parts = zip(run.times_h, run.species, run.controls, strict=True)
            writer.writerows([run.run_id, t, *s, *u] for t, s, u in parts)
    return place / "runs.csv"


def posterior_in(place, **more):
    draws = np.full((1, 8, 1), 0.05) * np.linspace(0.9, 1.1, 8)[None, :, None]
    found = made_posterior(("mu_max",), draws, more.pop("problems", ()))
    return save_posterior(found, place, culture=culture_of(FOREIGN, Foreign(), **more))


def asked(table, out, folder, **more):
    wishes = Wishes("max VCD", n_runs=1, days=2, posterior=folder, **more)
    said = screen()
    found = propose_file(
        table,
        wishes=wishes,
        pending=None,
        space=None,
        out=out,
        console=said,
        settings=SMALL,
        config=QUICK,
        culture=str(table.with_name("foreign.toml")),
    )
    return found, said.file.getvalue()


def test_the_model_is_fitted_with_the_mechanism_of_the_posterior(table, tmp_path):
    folder = posterior_in(tmp_path / "p")
    found, said = asked(table, tmp_path / "next.csv", folder)
    assert found["posterior"]["draws"] == N_PATHS and len(found["posterior"]["sha256"]) == 64
    assert "constants of 64 draws of" in said and "mechanism: " not in said.split("constants of")[0]
    assert f"64 draws of {folder} (SHA-256 " in said.replace("\n", "")
    assert "learned around" not in said and "were not calibrated" not in said


def test_what_is_learned_is_learned_around_the_middle_of_the_draws(table, tmp_path, monkeypatch):
    """Else the rest of the model would answer to other constants than those of the paths."""
    models = []

    def look(model, *_, **__):
        models.append(model)
        raise InterruptedError

    monkeypatch.setattr("perfusio_jax.report.proposing.propose_described", look)
    with pytest.raises(InterruptedError):
        asked(table, tmp_path / "next.csv", posterior_in(tmp_path / "p"))
    kinetics = models[0].mech_model.kinetics
    assert float(kinetics.mu_max) == pytest.approx(0.05)
    assert float(kinetics.uptake) == float(Foreign().uptake), "as it was calibrated"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--posterior", "doubted"], 2, "diverged. --accept-warnings"),
        (["--posterior", "sound", "--mechanism", "monod"], 2, "is of tests.twin.described:Foreign"),
        (["--posterior", "other"], 2, "is of vial, the runs of foreign"),
        (["--posterior", "nowhere"], 3, "nowhere"),
        (["--accept-warnings"], 2, "--posterior names its folder"),
    ],
)
def test_what_cannot_be_proposed_with_is_refused_before_the_fit(
    table, tmp_path, monkeypatch, capsys, options, code, message
):
    monkeypatch.chdir(tmp_path)
    posterior_in(tmp_path / "sound")
    posterior_in(tmp_path / "doubted", problems=("9 of 8 paths diverged",))
    posterior_in(tmp_path / "other", process="vial")
    words = ["propose", table, "--process", table.with_name("foreign.toml"), "--goal", "max VCD"]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in (*words, *options)])
    said = capsys.readouterr()
    assert end.value.code == code
    assert message in " ".join(said.err.split()) and "fitting" not in said.out


def test_a_fit_keeps_the_constants_in_the_middle_of_a_posterior(table, tmp_path, monkeypatch):
    seen = {}

    def look(_, process, *, mechanism, config, **__):
        seen.update(process=process, kinetics=mechanism, config=config)
        raise InterruptedError

    monkeypatch.setattr("perfusio_jax.service.fitting.fitted_best", look)
    given = {"seed": 0, "fill_down": False, "mechanism": None, "console": screen()}
    given |= {"culture": str(table.with_name("foreign.toml"))}
    folder = posterior_in(tmp_path / "p", problems=("it diverged",))
    with pytest.raises(InterruptedError):
        fit_table([table], tmp_path / "m", posterior=folder, **given)
    assert seen["process"] == FOREIGN and not seen["config"].calibrate
    assert float(seen["kinetics"].mu_max) == pytest.approx(0.05)
    with pytest.raises(ConfigError, match="is of tests.twin.described:Foreign"):
        fit_table([table], tmp_path / "m", posterior=folder, **{**given, "mechanism": "monod"})
    given["culture"] = "cho_perfusion"
    with pytest.raises(ConfigError, match="of cultures that are described"):
        fit_table([table], tmp_path / "m", posterior=folder, **given)


def test_the_two_errors_have_types_of_their_own(table, tmp_path):
    with pytest.raises(ConfigError, match="diverged"):
        asked(table, tmp_path / "n.csv", posterior_in(tmp_path / "p", problems=("it diverged",)))
    with pytest.raises(DataError):
        asked(table, tmp_path / "n.csv", tmp_path / "nowhere")
