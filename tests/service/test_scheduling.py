"""`schedule` from the command line."""

import csv

import pytest

from perfusio_jax.cli import main


def _code(words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


RUN = ["schedule", "--maximise", "last X", "--process", "monod_chemostat", "--days", 2, "--every"]
FEW = [12, "--pieces", 2, "--by", "dilution"]


def test_a_schedule_is_found_told_and_written(tmp_path, capsys):
    out = tmp_path / "s.csv"
    words = [*RUN, *FEW, "--limit", "S <= 9", "--step", "dilution=0.1", "--out", out]
    still, card = tmp_path / "s.png", tmp_path / "s.md"
    assert _code([*words, "--figure", still, "--card", card]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "schedule for last X" in told and "S <= 9: kept" in told
    assert still.read_bytes().startswith(b"\x89PNG")
    assert "The best schedule for last X" in card.read_text()
    with out.open() as file:
        rows = list(csv.DictReader(file))[1:]
    assert [row["time_h"] for row in rows] == ["0", "12", "24", "36", "48"]
    assert abs(float(rows[2]["dilution"]) - float(rows[0]["dilution"])) <= 0.1 + 1e-5
    # it is one that runs are simulated by
    made = tmp_path / "runs.csv"
    simulate = ["simulate", made, "--process", "monod_chemostat", "--schedule", out, "--every", 12]
    assert _code(simulate) == 0


def test_a_limit_that_cannot_be_kept_ends_with_a_code_of_its_own(tmp_path, capsys):
    words = [*RUN, *FEW, "--limit", "last X >= 500", "--out", tmp_path / "s.csv"]
    assert _code(words) == 7
    assert "last X >= 500: not kept by" in " ".join(capsys.readouterr().out.split())
    assert _code([*words, "--accept-warnings"]) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--limit", "X is 3"], "it reads like"),
        (["--by", "dilusion"], "did you mean 'dilution'"),
        (["--between", "dilution"], "is not of the form name=low:high"),
        (["--pieces", 9], "1 to 4 can be had"),
        (["--posterior", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(more, said, tmp_path, capsys):
    code = _code([*RUN, 12, "--out", tmp_path / "s.csv", *more])
    assert code in (2, 3)
    assert said in " ".join(capsys.readouterr().err.split())
