"""`sensitivity` and `identify` from the command line."""

import json

import pytest

from perfusio_jax.cli import main


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    words = f"simulate {path} --process monod_chemostat --runs 2 --days 2 --every 12"
    assert _code(words.split()) == 0
    return path


def _code(words):
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


CHEMOSTAT = ["sensitivity", "--process", "monod_chemostat", "--days", "1", "--every", "12"]


def test_a_run_is_told_by_its_derivatives(capsys, tmp_path):
    out = tmp_path / "s.json"
    words = [*CHEMOSTAT, "--of", "last X", "--set", "dilution=0.2", "--out", str(out)]
    assert _code(words) == 0
    told = capsys.readouterr().out
    assert told.startswith("local sensitivity of last X, monod_chemostat, 1 d")
    assert "forward derivatives" in told
    rows = {row["lever"]: row for row in json.loads(out.read_text())}
    assert rows["dilution"]["value"] == 0.2 and rows["feed_S"]["elasticity"] > 0.0
    assert "dilution@1" not in rows and {"mu_max", "start.X"} <= set(rows)


def test_shares_over_ranges_are_told_and_written(capsys, tmp_path):
    out = tmp_path / "s.csv"
    words = [*CHEMOSTAT, "--method", "sobol", "--of", "last X", "--by", "feed_S", "--by", "mu_max"]
    words += ["--between", "feed_S=8:12", "--samples", "16", "--pairs", "--out", str(out)]
    assert _code(words) == 0
    told = capsys.readouterr().out
    assert "settled" in told and "last X, pairs:" in told and "feed_S" in told
    assert out.read_text().splitlines()[0].startswith("output,lever,unit,value,total,+-total")


def test_what_moves_a_run_over_time_is_a_map(capsys, tmp_path):
    still, moving, card = tmp_path / "m.png", tmp_path / "m.html", tmp_path / "c.md"
    words = ["sensitivity", "--process", "monod_chemostat", "--days", "2", "--every", "6"]
    words += ["--of", "every X", "--by", "set-points", "--by", "mu_max"]
    assert _code([*words, "--figure", str(still), "--card", str(card)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "where levers move most, of 8 outputs" in told and f"figure: {still}" in told
    assert still.read_bytes().startswith(b"\x89PNG")
    assert "What moves 8 outputs" in card.read_text()
    pytest.importorskip("plotly", reason="plotly is not installed (extra dash)")
    assert _code([*words, "--figure", str(moving)]) == 0
    assert "heatmap" in moving.read_text()


def test_shapley_shares_are_told(capsys, tmp_path):
    out = tmp_path / "s.csv"
    words = [*CHEMOSTAT, "--method", "shapley", "--of", "last X", "--by", "feed_S"]
    words += ["--by", "mu_max", "--samples", "16", "--out", str(out)]
    assert _code(words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "shares add up to one" in told and "2 sets of inputs, all there are" in told
    assert out.read_text().splitlines()[0].startswith("output,lever,unit,value,share,+-share")


def test_what_a_table_tells_of_constants_is_said(capsys, table, tmp_path):
    out = tmp_path / "c.csv"
    words = ["identify", str(table), "--process", "monod_chemostat", "--only", "mu_max"]
    still, card = tmp_path / "p.png", tmp_path / "c.html"
    words += ["--figure", str(still), "--card", str(card)]
    assert _code([*words, "--only", "a_S", "--profile", "a_S", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert still.read_bytes().startswith(b"\x89PNG")
    assert "2 constants from 30 readings" in card.read_text()
    assert "2 constants from 30 readings" in told and "a_S: between" in told
    assert out.read_text().splitlines()[0].startswith("constant,unit,value,is_log,prior_sd")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--method", "magic"], "choose local, morris or sobol"),
        (["--samples", "8"], "local is at a point"),
        (["--method", "morris", "--pairs"], "--pairs is of sobol"),
        (["--method", "sobol", "--between", "mu_max=1"], "name=low:high"),
        (["--figure", "p.txt"], "must end in .png"),
        (["--posterior", "p"], "--posterior is of shapley"),
        (["--of", "last Z"], "'Z' is no quantity"),
        (["--mechanism", "none"], "moves nothing"),
    ],
)
def test_questions_that_make_no_sense_are_refused(words, said, capsys):
    assert _code([*CHEMOSTAT, *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
