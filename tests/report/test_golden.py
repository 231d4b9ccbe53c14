"""`perfusio-jax golden`, and reference runs in figures and reports: the same numbers everywhere."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from perfusio_jax.cli import main
from perfusio_jax.connectors import read_culture
from perfusio_jax.process import CHO_PERFUSION, compare, golden_of
from perfusio_jax.report.golden import golden_card
from perfusio_jax.viz.card import read_card
from tests.report.run_folders import make_run

NAMES = ("VCD", "Via", "Glc", "Lac", "Titer")


def run(*words, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


def campaign(path: Path, n_runs: int = 8, *, head: str = "GB-") -> Path:
    """Runs whose growth differs, and one that stops growing and makes lactate from day 4 on."""
    rng = np.random.default_rng(4)
    lines = ["run_id,reactor_id,time_h," + ",".join(NAMES)]
    lines.append(",,h,1e6 cells/mL,%,g/L,mmol/L,mg/L")
    for r in range(n_runs + 1):
        name = f"{head}{r}" if r < n_runs else "new, <b>"
        speed = 1.0 + 0.06 * rng.normal()
        for day in range(9):
            late = max(day - 3, 0) if r == n_runs else 0
            x = 1.0 + speed * (day - 0.6 * late)
            seen = [x, 97 - 0.5 * day, 6.0 - 0.3 * speed * day, 2.0 + speed * (day + 1.5 * late),
                    30.0 * speed * day + 5.0]  # fmt: skip
            seen = [v * (1.0 + 0.03 * rng.normal()) for v in seen]
            seen[1] = min(97 - 0.5 * day + 0.4 * rng.normal(), 100.0)
            cells = [f"{v:.5g}" for v in seen]
            if day == 5:
                cells[2] = ""
            lines.append(f'"{name}",R{r},{24 * day},' + ",".join(cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return campaign(tmp_path_factory.mktemp("golden") / "c.csv")


def test_what_is_printed_written_and_drawn_is_what_the_statistics_say(table, tmp_path, capsys):
    out, card = tmp_path / "g.csv", tmp_path / "card.json"
    code, told, err = run("golden", table, "--reference", "GB-*", "--out", out, "--card", card,
                          "--figure", tmp_path / "g.svg", capsys=capsys)  # fmt: skip
    assert code == 0, err
    culture = read_culture(table)
    runs = culture.trajectories
    found = compare(golden_of(culture.process or CHO_PERFUSION, runs[:8]), runs[8])
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert rows[0]["VCD"] == "1e6 cells/mL" and rows[0]["t2"] == "-" and len(rows) == 10
    for name, values in (
        ("t2", found.t2), ("q_99", found.q_limits[:, 1]), ("Lac_q", found.q_by[:, 3]),
        ("VCD_low", found.low[:, 0]), ("Lac_z", found.z[:, 3]),
    ):  # fmt: skip
        np.testing.assert_allclose([float(r[name]) for r in rows[1:]], values, rtol=1e-5)
    assert rows[6]["Glc"] == "" and rows[6]["Glc_t2"] == "" and rows[6]["quantities"] == "4"
    assert rows[1]["run_id"] == "new, <b>"
    kept = read_card(card)
    assert all(line in told for line in kept.sentences)
    assert kept.sentences == golden_card([found], {}, table.name).sentences
    beyond = int((found.q > found.q_limits[:, 1]).sum())
    assert beyond >= 2 and f"Q beyond its limit of 99 % in {beyond} of 9 samples" in told
    assert "Lac" in kept.tables[0].rows[0][-1] and found.t2[0] < found.t2_limits[0, 0]
    drawn = (tmp_path / "g.svg").read_text()
    assert "<desc>Run new, &lt;b&gt; beside 8 reference runs" in drawn


def test_references_come_from_names_patterns_tables_and_folders(table, tmp_path, capsys):
    def judged(*references):
        words = [w for reference in references for w in ("--reference", reference)]
        words += ["--run", "new, <b>", "--out", tmp_path / "g.csv"]
        code, _, err = run("golden", table, *words, capsys=capsys)
        assert code == 0, err
        return (tmp_path / "g.csv").read_text()

    every = judged("GB-*")
    assert judged(",".join(f"GB-{n}" for n in range(8))) == every
    assert judged(*(f"R{n}" for n in range(8))) == every
    three = judged("GB-0, GB-1,GB-2")
    assert three != every
    # the same readings, named by their place: a table whose runs all count
    lines = table.read_text().splitlines()
    alone = tmp_path / "alone.csv"
    alone.write_text("\n".join([*lines[:2], *(x for x in lines if x.startswith('"GB-'))]) + "\n")
    one = tmp_path / "one.csv"
    one.write_text("\n".join([*lines[:2], *(x for x in lines if "<b>" in x)]) + "\n")
    code, _, err = run("golden", one, "--reference", alone, "--out", tmp_path / "h.csv",
                       capsys=capsys)  # fmt: skip
    assert code == 0, err
    ours, theirs = (list(csv.DictReader(text.splitlines()))[1:]
                    for text in (every, (tmp_path / "h.csv").read_text()))  # fmt: skip
    for name in ("VCD", "VCD_mean", "Lac_mean", "VCD_runs"):
        assert [r[name] for r in ours] == [r[name] for r in theirs]
    # what an assay errs by at zero is assumed from a table, and the one table has a run less
    values = [[float(r["t2"]) for r in rows] for rows in (ours, theirs)]
    np.testing.assert_allclose(*values, rtol=0.1)


def test_a_run_folder_beside_others_in_its_report_and_figures(tmp_path, capsys):
    for n in range(4):
        make_run(tmp_path / "runs" / f"E{n}", run_id=f"E{n}", reactor=f"R0{n}")
    make_run(tmp_path / "now", run_id="E9")
    words = ("--reference", tmp_path / "runs")
    code, told, err = run("report", tmp_path / "now", "--out", tmp_path / "r.html", *words,
                          capsys=capsys)  # fmt: skip
    assert code == 0, err
    text = (tmp_path / "r.html").read_text()
    heads = re.findall(r"<h2[^>]*>\d+\. (.*?)</h2>", text)
    assert heads[-3:] == ["Beside the reference runs", "Records and how to verify them",
                          "Signatures"]  # fmt: skip
    assert "T2 and Q within their limits of 99 % in every sample judged: run E9." in text
    assert "4 reference runs are few" in text
    code, told, err = run("figures", tmp_path / "now", "--only", "golden", *words, capsys=capsys)
    assert code == 0, err
    assert [p.name for p in (tmp_path / "now" / "figures").iterdir()] == ["golden_E9.png"]
    code, _, err = run(
        "golden", tmp_path / "now", "--out", tmp_path / "g.csv", *words, capsys=capsys
    )
    assert code == 0, err
    # vessels of one place among themselves
    words = ("--reference", "E0,E1,E2", "--out", tmp_path / "g.csv")
    code, told, err = run("golden", tmp_path / "runs", *words, capsys=capsys)
    assert code == 0 and "run E3." in told, err


def test_a_campaign_report_holds_the_card_and_a_figure_of_each_run(table, tmp_path, capsys):
    words = ("--reference", "GB-*", "--out", tmp_path / "r.md")
    code, _, err = run("report", table, *words, capsys=capsys)
    assert code == 0, err
    text = (tmp_path / "r.md").read_text()
    part = text.partition("Beside the reference runs")[2]
    assert "T2 beyond" in part or "Q beyond" in part
    assert part.count("Figure, ") == 1 and "\\<b\\>" in part
    assert run("report", table, *words, capsys=capsys)[0] == 0
    assert (tmp_path / "r.md").read_text() == text


def test_what_cannot_be_compared_says_why(table, tmp_path, capsys):
    out = ("--out", tmp_path / "x.csv")
    for words, code, said in (
        ((), 2, "--reference names the runs to compare with"),
        (("--reference", "GB-0,GB-1"), 3, "2 reference runs were given (GB-0, GB-1)"),
        (("--reference", "GX-*"), 2, "neither a run of c.csv nor a place; its runs are GB-0"),
        (("--reference", "GB-*", "--run", "GB-1"), 2, "no such run beside the references"),
        (("--reference", "*"), 3, "every run of c.csv is a reference"),
        (("--reference", " , "), 2, "names no run"),
    ):
        got, told, err = run("golden", table, *words, *out, capsys=capsys)
        assert got == code and said in " ".join((told + err).split()), (words, told, err)
    assert not (tmp_path / "x.csv").exists()
    got, _, err = run("figures", table, "--only", "golden", "--out", tmp_path, capsys=capsys)
    assert got == 2 and "--only golden needs --reference" in err
    got, _, err = run("golden", table, "--reference", "GB-*", *out, "--card", tmp_path / "c.txt",
                      capsys=capsys)  # fmt: skip
    assert got == 2 and ".html" in err
    got, _, err = run("report", tmp_path, "--reference", "a", capsys=capsys)
    assert got == 2 and "--reference is of the whole report" in err
