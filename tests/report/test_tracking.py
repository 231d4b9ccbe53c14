"""The `rl` commands on trainings of a few epochs: tables, figures, going on after a stop."""

import csv
import signal
import subprocess
import sys
import time

import pytest

from perfusio_jax._core import DataError
from perfusio_jax.cli import main
from perfusio_jax.report import tracking
from perfusio_jax.twin.records.lock import RunLock

SMALL = ("--epochs", "3", "--episodes", "6")


def table(path):
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def rl(*words) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rl", *(str(w) for w in words)])
    assert ended.value.code in (0, None)


def test_a_case_gives_a_table_and_a_figure_and_is_not_trained_twice(tmp_path, capsys):
    rl("case4", "--out", tmp_path, *SMALL)
    rows = table(tmp_path / "case4.csv")
    assert [r["return"] for r in rows] == ["saturation", "quadratic"]
    assert all(float(r["NAAE"]) > 0.0 and r["epochs"] == "3" for r in rows)
    assert (tmp_path / "case4_trajectory_1_uncertain.png").stat().st_size > 20_000
    first = (tmp_path / "case4.csv").read_bytes()
    rl("case4", "--out", tmp_path, *SMALL)
    assert (tmp_path / "case4.csv").read_bytes() == first
    assert "published" in capsys.readouterr().out


def test_the_screening_ranks_thirteen_schemes_and_goes_on_with_what_is_missing(tmp_path):
    rl("screen", "--out", tmp_path, *SMALL)
    rows = table(tmp_path / "screening.csv")
    assert len(rows) == 52 and len({r["scheme"] for r in rows}) == 13
    for scenario in {r["scenario"] for r in rows}:
        ranks = sum(float(r["rank sum"]) for r in rows if r["scenario"] == scenario)
        assert ranks == 13 * 14  # twice the sum of the places
    notes = tmp_path / "screening_trainings.csv"
    lines = notes.read_text().splitlines()
    notes.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:-9])  # stopped within a line
    rl("screen", "--out", tmp_path, *SMALL)
    assert notes.read_text().splitlines() == lines
    assert table(tmp_path / "screening.csv") == rows
    assert {r["settings"].split(";")[0] for r in rows} == {"3 x 6"}
    assert len({line.split(",")[4] for line in lines[1:]}) == 2  # rate and floor of either return


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t + t.splitlines()[1].replace("0.9", "0.8") + "\n", r"line 4: .* earlier line"),
        (lambda t: t.replace("0.5", "nan", 1), r"line 2: .* cannot be"),
        (lambda t: t.replace("0.5", "-5", 1), r"line 2: .* cannot be"),
        (lambda t: t.replace("0.5,", "", 1), r"line 2: .* are not the values"),
        (lambda t: t.split("\n", 1)[1], r"line 1: the headings are"),
        (lambda t: "\udcff" + t, "not a CSV file"),
    ],
)
def test_damaged_notes_of_a_screening_are_named(tmp_path, change, message):
    from perfusio_jax.report.screening import _noted

    path = tmp_path / "screening_trainings.csv"
    text = (
        "scenario,seed,scheme,settings,NAAE,NAUC\n"
        '"setpoint 1, 6",0,tr__3,3 x 6,0.5,0.9\n"setpoint 1, 6",0,tr__9,3 x 6,0.5,0.123456\n'
    )
    path.write_text(text, encoding="utf-8")
    assert _noted(path)["setpoint 1, 6", 0, "tr__9", "3 x 6"] == (0.5, 0.123456)
    path.write_text(change(text), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        _noted(path)


def test_a_first_save_that_was_cut_is_begun_afresh(tmp_path):
    folder = tmp_path / "trainings" / "trajectory_1_uncertain_saturation_seed0"
    folder.mkdir(parents=True)
    (folder / "arrays.npz.part").write_bytes(b"cut")
    rl("case4", "--out", tmp_path, *SMALL)
    assert (folder / "header.json").exists()
    rows = table(tmp_path / "case4.csv")
    assert all((r["epochs"], r["seed"], r["precision"]) == ("3", "0", "single") for r in rows)


def test_a_file_in_the_way_is_found_before_the_work(tmp_path, capsys):
    (tmp_path / "trainings").write_text("no folder")
    with pytest.raises(SystemExit) as ended:
        main(["rl", "case4", "--out", str(tmp_path), *SMALL])
    assert ended.value.code == 2
    assert "trainings is a file; a folder is needed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["case4", "screen", "compare"])
def test_odd_numbers_of_episodes_are_refused_before_the_work(tmp_path, capsys, name):
    with pytest.raises(SystemExit) as ended:
        main(["rl", name, "--out", str(tmp_path / "odd"), "--episodes", "5", "--epochs", "3"])
    assert ended.value.code == 2 and "5 is odd" in capsys.readouterr().err
    assert not (tmp_path / "odd" / "trainings").exists()


def test_a_training_of_another_seed_is_refused(tmp_path, capsys):
    rl("case4", "--out", tmp_path, *SMALL)
    for name in ("saturation", "quadratic"):
        first = tmp_path / "trainings" / f"trajectory_1_uncertain_{name}_seed0"
        first.rename(first.with_name(first.name.replace("seed0", "seed1")))
    with pytest.raises(SystemExit) as ended:
        main(["rl", "case4", "--out", str(tmp_path), "--seed", "1", *SMALL])
    assert ended.value.code == 3 and "another seed than 1" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished_and_says_so(tmp_path):
    command = [sys.executable, "-m", "perfusio_jax.cli", "rl", "case4", "--epochs", "100000"]
    with subprocess.Popen(
        [*command, "--episodes", "10", "--out", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        ends = time.monotonic() + 240.0
        while not list(tmp_path.glob("trainings/*/header.json")):
            assert run.poll() is None and time.monotonic() < ends
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "the same command goes on" in said and said.endswith("stopped.\n")


def test_a_second_start_on_the_same_folder_is_refused(tmp_path, capsys):
    with RunLock(tmp_path), pytest.raises(SystemExit) as ended:
        main(["rl", "case4", "--out", str(tmp_path), *SMALL])
    assert ended.value.code not in (0, None)
    assert "already in use" in capsys.readouterr().err


def test_a_comparison_has_a_row_per_controller_and_says_its_sizes(tmp_path, monkeypatch):
    tune, search, control = tracking.tune_pid, tracking.find_optimum, tracking.make_mpc
    few = {"n_iterations": 1}  # what the searches find has tests of its own
    monkeypatch.setattr(
        tracking, "tune_pid", lambda *a, **k: tune(*a, **k, n_starts=1, n_episodes=1, **few)
    )
    monkeypatch.setattr(tracking, "find_optimum", lambda *a: search(*a, **few))
    monkeypatch.setattr(tracking, "make_mpc", lambda *a, **k: control(*a, **k, **few))
    rl("compare", "--case", "2", "--out", tmp_path, *SMALL)
    rows = {r["controller"]: r for r in table(tmp_path / "compare_case2.csv")}
    assert list(rows) == [
        "optimum, nominal plant", "RL, saturation", "RL, quadratic", "PID", "MPC",
    ]  # fmt: skip
    assert all(float(r["NAAE"]) > 0.0 for r in rows.values())
    sizes = ("epochs", "seed", "episodes per epoch", "precision")
    assert [rows["RL, quadratic"][n] for n in sizes] == ["3", "0", "6", "single"]
    assert [rows["MPC"][n] for n in sizes] == [""] * 4 and rows["MPC"]["test episodes"] == "1"
    assert (tmp_path / "compare_case2.png").stat().st_size > 20_000
