"""`export` and `import` from the command line."""

import csv

import pytest

from perfusio_jax.cli import main

pytest.importorskip("libsbml", reason="python-libsbml is not installed (extra exchange)")
pytest.importorskip("petab", reason="petab is not installed (extra exchange)")


def _code(words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def test_a_model_goes_out_and_comes_back(tmp_path, capsys):
    model, folder = tmp_path / "m.xml", tmp_path / "in"
    words = ["export", model, "--process", "monod_chemostat", "--days", 1, "--every", 12]
    assert _code([*words, "--set", "dilution=0.2"]) == 0
    assert "SBML of 3 states" in capsys.readouterr().out
    assert _code(["import", model, "--out", folder]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "monod_chemostat: starts with" in told and "process.toml, mechanism.xml" in told
    used = ["--process", folder / "process.toml", "--mechanism", folder / "mechanism.xml"]
    made = tmp_path / "runs.csv"
    assert _code(["simulate", made, *used, "--runs", 2, "--days", 1, "--every", 12]) == 0
    problem = tmp_path / "problem"
    seek = ["export", problem, *used, "--data", made, "--only", "mu_max"]
    assert _code(seek) == 0
    assert "2 runs, 18 measurements, 1 parameters" in " ".join(capsys.readouterr().out.split())
    assert _code(["import", problem / "problem.yaml", "--out", tmp_path / "back"]) == 0
    assert "sought: mu_max" in capsys.readouterr().out
    with (tmp_path / "back" / "campaign.csv").open() as file, made.open() as old:
        first, second = list(csv.DictReader(file)), list(csv.DictReader(old))
    assert [float(r["X"]) for r in first[1:]] == [float(r["X"]) for r in second[1:]]


def test_a_schedule_goes_out_and_comes_back(tmp_path, capsys):
    table = tmp_path / "s.csv"
    table.write_text(
        "run_id,time_h,dilution,feed_S\n,h,1/h,g/L\nA,0,0.1,10\nA,12,0.2,10\nA,24,0.2,10\n"
    )
    model = tmp_path / "m.xml"
    words = ["export", model, "--process", "monod_chemostat", "--schedule", table, "--every", 12]
    assert _code(words) == 0
    assert "(1 that change)" in capsys.readouterr().out
    assert _code(["import", model, "--out", tmp_path / "in"]) == 0
    rows = (tmp_path / "in" / "schedule.csv").read_text().split()
    assert [r.split(",")[2:5] for r in rows[2:4]] == [["0", "0.1", "10"], ["12", "0.2", "10"]]


@pytest.mark.parametrize(
    "words, said",
    [
        (["export", "m.txt"], "ends in '.txt'"),
        (["export", "m.xml", "--only", "mu_max"], "name runs by --data"),
        (["import", "m.txt"], "are read"),
        (["import", "lost.xml"], "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _code(words) in (2, 3)
    assert said in " ".join(capsys.readouterr().err.split())
