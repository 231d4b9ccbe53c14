"""`perfusio-jax figures`: what is drawn of runs, tables and validations, and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perfusio_jax._core import DataError
from perfusio_jax.cli import main
from perfusio_jax.report.figures import read_scores
from perfusio_jax.report.happenings import alarms_of, happenings_of
from perfusio_jax.report.run_record import _goals, read_records
from perfusio_jax.viz import RunView, rack_figures
from tests.report.run_folders import campaign_csv, make_run, values_of


def run(*words, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "E1")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return campaign_csv(tmp_path_factory.mktemp("tables") / "runs.csv")


def test_a_run_folder_is_read_as_it_was_journaled(folder):
    (record,) = read_records(folder)
    found = record.trajectory
    assert found is not None and record.audit.ok and not record.notes
    assert np.asarray(found.times_h).tolist() == [0.0, 24.0, 48.0, 72.0, 96.0]
    for day in range(5):
        for name, value in values_of(day).items():
            at = float(found.get_species(name)[day])
            assert np.isnan(at) if value is None else at == value
    # what acted from a sample on is what the next one found in force
    bleed = np.asarray(found.get_control("bleed_rate"))
    np.testing.assert_allclose(bleed[1:4], [0.11, 0.12, 0.13])
    view = record.view()
    assert view.targets == {"VCD": 20.0} and view.limits == {"Via": (90.0, None)}
    band = view.bands["VCD"]  # of each day from the one before, then the last to its end
    assert band.hours.tolist() == [24.0 * d for d in (1, 2, 3, 4, 5, 6, 7)]
    expected = [values_of(d)["VCD"] for d in (0, 1, 2, 3, 4, 4, 4)]
    np.testing.assert_allclose(band.middle, expected)


def test_what_happened_lies_on_its_days(folder):
    (record,) = read_records(folder)
    marks = {(h.kind, h.day) for h in happenings_of(record)}
    assert {("hold", 0.0), ("decision", 1.0), ("write", 4.0), ("missed", 3.0), ("person", 1.0),
            ("model", 3.0), ("session", 0.0)} <= marks  # fmt: skip
    (alarm,) = alarms_of(record)
    assert alarm[1:] == (2.0, 3.0, False, 2.0) and alarm.name == "forecast/Glc/below"


def test_figures_of_a_run_lie_in_its_folder_and_tell_what_they_show(folder, capsys):
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file() and "sqlite" not in p.name}
    code, _, err = run("figures", folder, capsys=capsys)
    assert code == 0, err
    names = {p.name for p in (folder / "figures").iterdir()}
    assert names == {"run.png", "rates.png", "timeline.png"}
    for name in names:
        with Image.open(folder / "figures" / name) as picture:
            assert min(picture.size) > 300 and len(picture.info["Description"]) > 40
    assert {p: p.read_bytes() for p in before} == before  # records are as they were
    assert run("verify-audit", folder, capsys=capsys)[0] == 0


@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_the_same_figure_has_the_same_bytes_and_words_in_it(folder, tmp_path, capsys, form):
    for name in ("a", "b"):
        words = ("--only", "timeline", "--format", form, "--out", tmp_path / name)
        assert run("figures", folder, *words, capsys=capsys)[0] == 0
    one, two = ((tmp_path / n / f"timeline.{form}").read_bytes() for n in ("a", "b"))
    assert one == two
    if form == "svg":
        assert (
            b'role="img"' in one and b"<desc>Run E1, reactor R01" in one and b"<dc:date>" not in one
        )
    if form == "pdf":
        assert b"/Subject" in one and b"CreationDate" not in one


def test_a_rack_of_runs_and_one_vessel_each(tmp_path, capsys):
    for n in (1, 2):
        make_run(tmp_path / "rack" / f"R0{n}", reactor=f"R0{n}", n_days=3)
    words = ("--only", "timeline", "--only", "rack", "--out", tmp_path / "f")
    code, _, err = run("figures", tmp_path / "rack", *words, capsys=capsys)
    assert code == 0, err
    names = {p.stem for p in (tmp_path / "f").iterdir()}
    assert names == {"timeline_R01", "timeline_R02", "rack_1"}


def test_figures_of_a_table(table, tmp_path, capsys):
    words = ("--trade-off", "Titer,-Lac", "--out", tmp_path)
    code, _, err = run("figures", table, *words, capsys=capsys)
    assert code == 0, err
    names = {p.stem for p in tmp_path.iterdir()}
    assert names == {"rack_1", "rates", "tradeoff", *(f"run_E{n}" for n in range(3))}
    code, _, err = run("figures", table, "--trade-off", "Titre,Lac", "--out", tmp_path,
                       capsys=capsys)  # fmt: skip
    assert code == 2 and "Titer" in err


def test_two_hundred_runs_are_paged_and_drawn_one_page_at_a_time():
    hours = np.arange(3) * 24.0
    runs = [RunView(f"R{n}", hours, {"Glc": hours + n}) for n in range(200)]
    pages = rack_figures(runs, {"Glc": "g/L"}, title="Rack")
    first = next(pages)
    assert "page 1 of 25" in first.get_label() and "R7" in first.get_label()
    assert first.axes[0].get_ylim()[1] > 247.0  # one scale over all pages
    assert "page 2 of 25" in next(pages).get_label()


def test_a_rack_leaves_no_reading_out_but_takes_pages_for_them():
    hours = np.arange(3) * 24.0
    names = ["X", "WCW", "Glyc", "MeOH", "probe", "P", "DO", "pH", "base"]
    runs = [RunView(f"R{n}", hours, {name: hours + n for name in names}) for n in range(9)]
    labels = [page.get_label() for page in rack_figures(runs, {}, title="Rack")]
    assert len(labels) == 4 and "page 4 of 4" in labels[3]
    assert "X, WCW, Glyc, MeOH, probe of 8 runs" in labels[0]
    assert "P, DO, pH, base of 1 runs (R8)" in labels[3]


def test_a_run_named_like_a_path_stays_in_the_folder(tmp_path, capsys):
    text = campaign_csv(tmp_path / "odd.csv", n_runs=1).read_text()
    (tmp_path / "odd.csv").write_text(text.replace("E0,", "../<b>$x$" + "n" * 180 + ","))
    words = ("--only", "run", "--out", tmp_path / "g")
    code, _, err = run("figures", tmp_path / "odd.csv", *words, capsys=capsys)
    assert code == 0, err
    (only,) = tmp_path.rglob("*.png")
    assert only.parent == tmp_path / "g" and len(only.name) < 80


def test_half_a_run_folder_is_drawn_as_far_as_it_goes(folder, tmp_path, capsys):
    half = shutil.copytree(folder, tmp_path / "half")
    shutil.rmtree(half / "figures", ignore_errors=True)
    (half / "forecasts.parquet").write_bytes(b"PAR1 no")
    lines = (half / "audit.jsonl").read_bytes().split(b"\n")
    (half / "audit.jsonl").write_bytes(b"\n".join(lines[:6]))  # cut: no longer verified
    (record,) = read_records(half)
    assert not record.audit.ok and record.events == () and len(record.notes) == 2
    code, _, err = run("figures", half, "--only", "timeline", capsys=capsys)
    assert code == 0 and (half / "figures" / "timeline.png").exists(), err
    (half / "journal.sqlite").write_bytes(b"no journal at all")
    code, _, err = run("figures", half, capsys=capsys)
    assert code == 4 and "journal" in err


def test_a_run_of_one_sample_is_drawn_without_rates(tmp_path, capsys):
    one = make_run(tmp_path / "one", n_days=1)
    code, out, err = run("figures", one, capsys=capsys)
    assert code == 0 and "not drawn, rates: run 'E1' has 1 sample(s)" in out, out + err
    assert (one / "figures" / "run.png").exists()


def test_scores_of_a_validation_are_drawn_and_a_bare_model_says_what_helps(tmp_path, capsys):
    place = tmp_path / "validation"
    (place / "model").mkdir(parents=True)
    (place / "model" / "header.json").write_text("{}")
    code, _, err = run("figures", place / "model", capsys=capsys)
    assert code == 2 and "perfusio-jax validate" in err
    head = "days_ahead,species,rrmse,coverage_80,hours_ahead,rrmse_persistence"
    (place / "scores.csv").write_text(f"{head}\n1,VCD,0.2,0.8,24,0.5\n2,VCD,0.3,0.7,48,\n")
    curve = read_scores(place / "scores.csv")["VCD"]
    assert curve.hours.tolist() == [24.0, 48.0] and np.isnan(curve.nothing_changes[1])
    assert run("figures", place / "model", capsys=capsys)[0] == 0
    assert run("figures", place, "--only", "skill", capsys=capsys)[0] == 0
    assert (place / "figures" / "skill.png").exists()
    (place / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no table of scores"):
        read_scores(place / "scores.csv")


def test_what_cannot_be_asked_is_refused_before_any_work(folder, table, tmp_path, capsys):
    for words, says in (
        (("figures", tmp_path / "none"), "does not exist"),
        (("figures", folder, "--only", "rainbow"), "there are run, rates, timeline, rack"),
        (("figures", table, "--only", "timeline", "--out", tmp_path / "t"), "there are rack"),
        (("figures", folder, "--format", "gif"), "allowed are png, svg, pdf"),
    ):
        code, _, err = run(*words, capsys=capsys)
        assert code == 2 and says in err, err
    if os.geteuid():
        tmp_path.chmod(0o500)
        code, _, err = run("figures", table, "--out", tmp_path / "x", capsys=capsys)
        tmp_path.chmod(0o700)
        assert code == 2 and "read-only" in err


def test_a_report_takes_a_folder_of_tables_as_figures_does(tmp_path, capsys):
    (place := tmp_path / "runs").mkdir()
    whole = campaign_csv(tmp_path / "all.csv", n_runs=2).read_text().splitlines()
    for n in range(2):
        rows = [line for line in whole if not line.startswith("E") or line.startswith(f"E{n},")]
        (place / f"E{n}.csv").write_text("\n".join(rows) + "\n")
    code, out, err = run("report", place, capsys=capsys)
    assert code == 0, err
    assert "E0" in out and "E1" in out
    (place / "twin.toml").write_text("[twin]\n")  # a run that has not begun is no campaign
    code, _, err = run("report", place, capsys=capsys)
    assert code == 2 and "is a table" not in err and "E0" not in err
    (tmp_path / "empty").mkdir()
    code, _, err = run("report", tmp_path / "empty", capsys=capsys)
    assert code == 2 and "holds no run" in err


def test_a_run_folder_without_its_journal_is_no_campaign(folder, tmp_path, capsys):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "journal.sqlite").unlink()
    for command in ("figures", "report"):
        code, _, err = run(command, broken, capsys=capsys)
        assert code == 2 and "holds no run: there is no journal.sqlite" in err


def test_the_settings_of_a_run_stand_for_its_folder(folder, table, tmp_path, capsys):
    settings = tmp_path / "reactor" / "twin.toml"
    settings.parent.mkdir()
    shutil.copy(table, settings.parent / "samples.csv")
    settings.write_text('[twin]\nsource = "samples.csv"\nfolder = "../records"\n', encoding="utf-8")
    code, _, err = run("figures", settings.parent, capsys=capsys)
    assert code == 2 and "holds no run" in err
    shutil.copytree(folder, tmp_path / "records")
    for n, place in enumerate((settings, settings.parent)):
        out = tmp_path / f"drawn{n}"
        code, *_ = run("figures", place, "--only", "timeline", "--out", out, capsys=capsys)
        assert code == 0 and [path.name for path in out.iterdir()] == ["timeline.png"]


def test_what_a_described_culture_is_to_hold_comes_from_its_objective():
    goals = ["X = 8", "max P", "S=0.5 g/L", "mean(X) = much"]
    begun = {"event_type": "SESSION_STARTED", "payload": {"objective": {"goals": goals}}}
    why = {
        "targets": [{"criterion": "squared distance from target of X [(g/L)^2]", "cost": 1.0}],
        "constraints": [{"limit": "S <= 40"}, {"limit": "S >= 1"}, {"limit": "nothing"}],
    }
    made = {"event_type": "DECISION_MADE", "payload": {"explanation": why}}
    assert _goals((begun, made)) == ({"X": 8.0, "S": 0.5}, {"S": (1.0, 40.0)})
    assert _goals((begun,)) == ({"X": 8.0, "S": 0.5}, {})
    assert _goals(({"event_type": "SESSION_STARTED", "payload": {}},)) == ({}, {})
