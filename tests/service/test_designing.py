"""`design` from the command line."""

import csv

import pytest

from perfusio_jax.cli import main


def _code(words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


RUNS = ["design", "--for", "constants", "--process", "monod_chemostat", "--days", 1, "--every", 8]
FEW = ["--only", "mu_max", "--only", "a_S", "--runs", 2, "--candidates", 8, "--draws", 1]


def test_runs_are_chosen_and_written_as_schedules(tmp_path, capsys):
    out = tmp_path / "d.csv"
    words = [*RUNS, *FEW, "--volume", "30/10", "--between", "feed_S=10:10", "--out", out]
    still, card = tmp_path / "d.png", tmp_path / "d.md"
    assert _code([*words, "--figure", still, "--card", card]) == 0
    told = capsys.readouterr().out
    assert "2 constants, D-optimal" in told and "samples [h]" in told
    assert still.read_bytes().startswith(b"\x89PNG")
    assert "runs that tell most of 2 constants" in card.read_text()
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["run_id"] for row in rows[1:]} == {"RUN001", "RUN002"}
    assert {row["feed_S"] for row in rows[1:]} == {"10"}
    samples = (tmp_path / "d-samples.csv").read_text().split()
    assert samples[0] == "run_id,time_h" and len(samples) == 1 + 2 * 3
    # the schedule is one that runs are simulated by
    made = tmp_path / "runs.csv"
    simulate = ["simulate", made, "--process", "monod_chemostat", "--schedule", out, "--every", 8]
    assert _code(simulate) == 0
    done = [*RUNS, *FEW, "--done", made, "--out", tmp_path / "next.csv"]
    assert _code(done) == 0
    assert "2 run(s) with" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, said",
    [
        (["--volume", "30"], "it reads like 60/10"),
        (["--volume", "5/10"], "no smaller than the second"),
        (["--volume", "30/10", "--samples", 2], "give one"),
        (["--criterion", "G"], "choose D, A, E, modified-E"),
        (["--between", "dilusion=0.1:0.2"], "did you mean 'dilution'"),
    ],
)
def test_what_makes_no_sense_is_refused(more, said, tmp_path, capsys):
    assert _code([*RUNS, "--out", tmp_path / "d.csv", *more]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_another_purpose_is_refused(tmp_path, capsys):
    words = ["design", "--for", "profit", "--out", tmp_path / "d.csv"]
    assert _code(words) == 2
    assert "constants is what there is" in capsys.readouterr().err


def test_runs_that_tell_two_mechanisms_apart_are_chosen(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starved_law.py").write_text(
        "from perfusio_jax.mechanistic import Mechanism, constant\n\n\n"
        "class Starved(Mechanism):\n"
        "    mu: object = constant(0.3, unit='1/h', log_sd=0.1)\n\n"
        "    def rates(self, state, environment):\n"
        "        growth = self.mu * state['X'] * state['S'] / (5.0 + state['S'])\n"
        "        return {'X': growth, 'S': -2.0 * growth}\n"
    )
    out, still, card = tmp_path / "d.csv", tmp_path / "d.png", tmp_path / "d.md"
    words = ["design", "--for", "mechanisms", "--process", "monod_chemostat", "--days", 1]
    words += ["--every", 8, "--runs", 1, "--candidates", 8, "--out", out]
    words += ["--mechanism", "monod"]
    asked = [*words, "--against", "starved_law:Starved", "--figure", still, "--card", card]
    assert _code(asked) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "standard deviations apart" in told and "differs most in" in told
    assert "tell Monod and Starved apart" in card.read_text()
    assert still.read_bytes().startswith(b"\x89PNG")
    with out.open() as file:
        assert {row["run_id"] for row in list(csv.DictReader(file))[1:]} == {"RUN001"}
    assert _code(words) == 2
    assert "give both, or neither" in " ".join(capsys.readouterr().err.split())
    assert _code([*words, "--against", "monod", "--samples", 2]) == 2
    assert "of runs for constants" in " ".join(capsys.readouterr().err.split())
