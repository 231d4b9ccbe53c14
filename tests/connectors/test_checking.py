"""A campaign seen with the eyes of its process: what agrees is quiet, what does not is named."""

import numpy as np
import pytest

from perfusio_jax import cli
from perfusio_jax.connectors import read_campaign
from perfusio_jax.connectors.files.checking import Checked, check_campaign
from perfusio_jax.process import Control, Process, Quantity, Stream, read_process

RATE = Control(name="D", unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1)
FEED = Stream(name="feed", direction="in", flow="D", carries={"S": 20.0}, total="V_feed_L")
OUT = Stream(name="out", direction="out", flow="rest")


def quantity(name: str, unit: str = "g/L", **more) -> Quantity:
    return Quantity(name=name, unit=unit, hi=100.0, **{"cv": 0.01, **more})


STAT = Process(
    name="stat",
    volume_L=2.0,
    biomass="X",
    quantities=(quantity("X"), quantity("S")),
    controls=(RATE,),
    streams=(FEED, OUT),
)
BATCH = STAT.replace(controls=(), streams=())


@pytest.fixture
def check(tmp_path):
    def look(text: str, process: Process) -> Checked:
        path = tmp_path / "runs.csv"
        path.write_text(text, encoding="utf-8")
        return check_campaign(read_campaign(path, process=process), process)

    return look


def steady(n: int = 8, x: float = 8.0, s: float = 4.0, d: float = 0.1) -> list[list]:
    """A chemostat at rest: growth is what is washed out."""
    return [["a", 5 * k, x, s, d] for k in range(n)]


def table(rows: list[list], head: str = "run_id,time_h,X,S,D") -> str:
    return head + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n"


def growing(n: int = 8, mu: float = 0.1, yield_: float = 0.5) -> list[list]:
    """A batch that grows exponentially at unequal intervals."""
    times = np.cumsum([0, 2, 3, 2, 4, 2, 3, 2, 2, 3])[:n]
    cells = 0.5 * np.exp(mu * times)
    return [
        ["a", t, f"{x:.6f}", f"{40 - (x - 0.5) / yield_:.6f}"]
        for t, x in zip(times, cells, strict=True)
    ]


def test_a_campaign_that_agrees_has_no_finding(check):
    found = check(table(steady()), STAT)
    assert found.findings == ()
    assert found.overview == (
        "X [g/L]: 8 readings, 0 gaps",
        "S [g/L]: 8 readings, 0 gaps",
        "intervals with a balance, of 7: X 7, S 7",
    )
    assert check(table(growing(), "run_id,time_h,X,S"), BATCH).findings == ()


def test_a_feed_of_which_nobody_said_what_it_brings_is_taken_for_water_aloud(check):
    silent = STAT.replace(streams=(FEED.replace(carries={}), OUT))
    (said,) = (line for line in check(table(steady()), silent).overview if "water" in line)
    assert said.endswith("they bring: feed. Lines below [streams.carries] do.")
    assert not any("water" in line for line in check(table(steady()), STAT).overview)


def test_what_is_read_in_every_second_sample_only_is_told_to_have_no_rate(check):
    rows = steady()
    for row in rows[1::2]:
        row[3] = ""
    (told,) = check(table(rows), STAT).findings
    assert told.startswith("S was never read in two samples that follow each other")
    rows[1][3] = 4.0  # one pair is enough to have a rate
    assert check(table(rows), STAT).findings == ()


def test_readings_out_of_range_are_named_and_gaps_counted(check):
    rows = steady()
    rows[3][2], rows[5][3] = 250, ""
    found = check(table(rows), STAT)
    assert found.overview[0] == "X [g/L]: 8 readings, 0 gaps, 1 out of range"
    assert found.overview[1] == "S [g/L]: 7 readings, 1 gaps"
    assert "intervals with a balance, of 7: X 7, S 5" in found.overview
    assert "X: outside 0 to 100 g/L: 250 in run a at 15 h." in found.findings


def test_a_quantity_nobody_read_is_named(check):
    found = check("run_id,time_h,X\na,0,1\na,2,2\n", BATCH)
    assert found.findings == ("S: nobody read it in this table.",)


def test_an_interval_whose_balance_is_odd_is_named(check):
    rows = growing()
    rows[4][3] = 12  # a third of what it has to be
    found = check(table(rows, "run_id,time_h,X,S"), BATCH)
    (said,) = found.findings
    assert said.startswith("S: 2 of 7 rates lie beyond 6 deviations")
    assert "run a, 7 to 11 h" in said and "run a, 11 to 13 h" in said and "g/L/h per g/L X" in said


def test_what_the_assays_explain_is_not_named(check):
    rows = growing()
    rows[4][3] = float(rows[4][3]) * 1.1
    noisy = BATCH.replace(quantities=(quantity("X", cv=0.1), quantity("S", cv=0.1)))
    assert check(table(rows, "run_id,time_h,X,S"), noisy).findings == ()


def test_flows_are_part_of_the_balance(check):
    # the same steady readings mean nothing grows, or that it does, by what flows
    rows = steady()
    rows[3][4] = 0.9
    found = check(table(rows), STAT)
    assert any(text.startswith("X: 1 of 7") and "15 to 20 h" in text for text in found.findings)


def test_a_flow_the_table_lacks_is_told(check):
    rows = [row[:4] for row in steady()]
    (said,) = check(table(rows, "run_id,time_h,X,S"), STAT).findings
    assert said.startswith("D: the table has no such column; its default, 0.1 1/h")


def test_a_flow_that_is_missing_balances_nothing(check):
    rows = steady()
    rows[2][4] = ""
    assert check(table(rows), STAT).overview[-1] == "intervals with a balance, of 7: X 6, S 6"


def test_recorded_volumes_and_totals_are_held_against_what_is_set(check):
    rows = [[*row, "" if k == 0 else 1.0, 2.0] for k, row in enumerate(steady())]
    head = "run_id,time_h,X,S,D,V_feed_L,volume_L"
    assert check(table(rows, head), STAT).findings == ()
    rows[3][5], rows[5][6] = 0.4, 2.5
    said = check(table(rows, head), STAT).findings
    assert "feed: run a, 10 to 15 h: V_feed_L is 0.4 L, D asks for 1 L." in said
    assert any(
        text.startswith("volume_L: run a, 20 to 25 h: goes from 2 to 2.5 L") for text in said
    )


def test_more_that_leaves_than_enters_is_named(check):
    bleed = RATE.replace(name="B")
    process = STAT.replace(
        controls=(RATE, bleed),
        streams=(FEED, Stream(name="bleed", direction="out", flow="B"), OUT),
    )
    rows = [[*row, 0.05] for row in steady()]
    rows[1][5] = 0.5
    said = check(table(rows, "run_id,time_h,X,S,D,B"), process).findings
    assert any(text.startswith("out: run a, 5 to 10 h: 4 L too much moves") for text in said)


def test_a_volume_that_moves_is_what_flows(check):
    fed = STAT.replace(
        controls=(RATE.replace(unit="mL/h", hi=900.0, default=1.0),), streams=(FEED,)
    )
    volume = [2 + 0.1 * k for k in range(8)]
    rows = [["a", 2 * k, f"{8 * 2 / v:.6f}", f"{(8 + 20 * (v - 2)) / v:.6f}", 50, f"{v:.2f}"]
            for k, v in enumerate(volume)]  # fmt: skip
    head = "run_id,time_h,X,S,D,volume_L"
    assert check(table(rows, head), fed).findings == ()
    bare = [row[:5] for row in rows]
    assert check(table(bare, "run_id,time_h,X,S,D"), fed).findings == ()
    rows[4][5] = "3.4"
    assert any("volume_L" in text for text in check(table(rows, head), fed).findings)


def test_a_bolus_is_part_of_the_balance_and_an_unknown_one_balances_nothing(check):
    bolus = Control(name="S_bolus", unit="mg", role="bolus", lo=0, hi=1e5, default=0, quantity="S")
    process = BATCH.replace(controls=(bolus,))
    rows = [[*row, 0] for row in growing()]
    rows[3][4] = 10_000  # 10 g into 2 L
    for row in rows[4:]:
        row[3] = float(row[3]) + 5.0
    head = "run_id,time_h,X,S,S_bolus"
    assert check(table(rows, head), process).findings == ()
    rows[3][4] = ""
    found = check(table(rows, head), process)
    assert found.findings == () and found.overview[-1].endswith("X 7, S 6")
    rows[3][4] = 0
    assert any(text.startswith("S: 1 of 7") for text in check(table(rows, head), process).findings)


def test_cells_do_not_come_from_nothing(check):
    rows = growing()
    rows[0][2] = 0
    said = check(table(rows, "run_id,time_h,X,S"), BATCH).findings
    assert said == ("X: run a, 0 to 2 h: cells appear from nothing (0 to 0.610701 g/L).",)


@pytest.mark.parametrize("unit", ["mmol/L", "g/L"])
def test_no_more_lactate_is_made_than_glucose_goes(check, unit):
    process = BATCH.replace(quantities=(quantity("X"), quantity("Glc"), quantity("Lac", unit)))
    factor = 1.0 if unit == "g/L" else 1000 / 90.08
    lactate = factor * np.array([0.1, 1.0, 1.9, 2.8, 6.7, 7.6])
    rows = [["a", 6 * k, 2.0, 9 - k, f"{v:.6f}"] for k, v in enumerate(lactate)]
    head = f"run_id,time_h,X,Glc,Lac [{unit}]"
    carbon = [t for t in check(table(rows, head), process).findings if "of lactate are made" in t]
    assert carbon == [
        "Lac: run a, 18 to 24 h: 3.9 g/L of lactate are made where 1 g/L of glucose go; no more "
        "than 1 g/g can be."
    ]
    molar = process.replace(
        quantities=(quantity("X"), quantity("Glc"), quantity("Lac", "1e6 cells/mL"))
    )
    assert not [
        t for t in check(table(rows, head.split(" [")[0]), molar).findings if "lactate" in t
    ]


def test_one_sample_is_no_interval(check):
    found = check("run_id,time_h,X,S\na,0,1,2\nb,0,1,2\n", BATCH)
    assert found.findings == () and len(found.overview) == 2


# ------------------------------------------------------------------ the commands


def run(capsys, *args) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in args])
        raise SystemExit(0)
    shown = capsys.readouterr()
    return int(stop.value.code or 0), shown.out + shown.err


def test_init_writes_what_check_takes_and_overwrites_only_if_told(tmp_path, capsys):
    path, out = tmp_path / "runs.csv", tmp_path / "p.toml"
    path.write_text(table(steady()).replace("X,S,D", "X,S,dilution [1/h]"), encoding="utf-8")
    code, text = run(capsys, "process", "init", path, "--out", out, "--name", "mine")
    assert code == 3 and "nothing in it is a quantity: X: is 8 wherever it was read" in text
    rows = growing()
    path.write_text(table(rows, "run_id,time_h,X,S"), encoding="utf-8")
    code, text = run(capsys, "process", "init", path, "--out", out, "--name", "mine")
    assert code == 0 and "assumed: volume_L: the table has no such column" in text
    assert read_process(out).name == "mine" and "# volume_L:" in out.read_text()
    code, text = run(capsys, "process", "init", path, "--out", out)
    assert code == 2 and "exists; name another file (--out), or say --force" in text
    assert run(capsys, "process", "init", path, "--out", out, "--force")[0] == 0
    assert run(capsys, "process", "init", path, "--out", tmp_path / "p.txt")[0] == 2
    assert run(capsys, "process", "init", tmp_path / "no.csv", "--out", tmp_path / "q.toml")[0] == 3
    assert not (tmp_path / "q.toml").exists()
    code, text = run(capsys, "process", "check", path, "--process", out)
    assert code == 0 and "0 finding(s)" in text and "X [g/L]: 8 readings, 0 gaps" in text
    rows[4][3] = 12
    path.write_text(table(rows, "run_id,time_h,X,S"), encoding="utf-8")
    code, text = run(capsys, "process", "check", path)
    assert code == 0 and "look at this: S:" in " ".join(text.split()) and "assumed: X:" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("no.csv",), "does not exist"),
        (("runs.csv", "--process", "cho_perfusoin"), "did you mean 'cho_perfusion'"),
        (("runs.csv", "--process", "no.toml"), "does not exist"),
        (("runs.csv", "--decimal", "dot"), "allowed are comma and point"),
        (("runs.csv", "--totals", "some"), "allowed are cumulative and increments"),
        (("odd.csv",), "'X' holds 'high' in line 3"),
        (("unit.csv", "--process", "monod_chemostat"), "column 'X' has unit 'rpm'"),
    ],
)
def test_what_cannot_be_read_is_code_2(tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text(table(growing(), "run_id,time_h,X,S"))
    (tmp_path / "odd.csv").write_text("run_id,time_h,X\na,0,1\na,1,high\na,2,3\n")
    (tmp_path / "unit.csv").write_text("run_id,time_h,X [rpm]\na,0,1\na,1,2\n")
    code, text = run(capsys, "process", "check", *words)
    assert (code, says in " ".join(text.split())) == (2, True), text
