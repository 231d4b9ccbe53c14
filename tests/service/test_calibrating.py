"""`calibrate` from the command line."""

import json

import numpy as np
import pytest

from perfusio_jax.cli import main
from perfusio_jax.service.calibrating import _progress
from perfusio_jax.study import load_posterior


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
    assert culture == {"process": "monod_chemostat", "mechanism": "monod"}
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
    assert "20 of 40 draws" in told
    header = json.loads((out / "header.json").read_text())
    assert any("too few draws" in line for line in header["architecture"]["problems"])
    assert _code([*asked, "--accept-warnings"]) == 0


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


def test_a_forecast_takes_its_constants_from_the_posterior(words, table, tmp_path, capsys):
    out, model = tmp_path / "p", tmp_path / "m"
    assert _code([*words, "--method", "map", "--out", out]) in (0, 7)
    culture = ["--process", "monod_chemostat", "--mechanism", "monod"]
    assert _code(["fit", table, *culture, "--out", model]) == 0
    asked = ["forecast", model, table, "--run-id", "RUN001", "--days", 1, "--every", 12]
    capsys.readouterr()
    assert _code([*asked, "--out", tmp_path / "own.csv"]) == 0
    assert _code([*asked, "--posterior", out, "--out", tmp_path / "drawn.csv"]) == 0
    assert "constants of 16 draws" in capsys.readouterr().out
    own, drawn = ((tmp_path / f"{n}.csv").read_text().splitlines() for n in ("own", "drawn"))
    assert own[0] == drawn[0] and len(own) == len(drawn) and own != drawn
    bare = tmp_path / "bare"
    assert _code(["fit", table, *culture[:3], "none", "--out", bare]) == 0
    assert _code(["forecast", bare, table, "--run-id", "RUN001", "--posterior", out]) == 2
    assert "the model has no mechanism" in " ".join(capsys.readouterr().err.split())
