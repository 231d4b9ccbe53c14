"""One card, three faces: terminal, report and page show the same words and digits."""

import html
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.cli import main
from perfusio_jax.cli.screen import Screen
from perfusio_jax.process import compare, golden_of
from perfusio_jax.report.answer import proposal_card
from perfusio_jax.report.cards import card_document, write_card
from perfusio_jax.report.golden import golden_card
from perfusio_jax.report.html_page import html_page
from perfusio_jax.report.proposal_words import in_words
from perfusio_jax.report.run_card import run_card
from perfusio_jax.report.run_record import read_records
from perfusio_jax.report.run_report import run_document
from perfusio_jax.report.validation import validation_card
from perfusio_jax.report.watching import Watching
from perfusio_jax.service.calibrating import calibration_card
from perfusio_jax.service.forecast_table import forecast_card
from perfusio_jax.service.sensitivity import Row, sensitivity_card
from perfusio_jax.states import Trajectory
from perfusio_jax.study import LocalSensitivity
from perfusio_jax.viz import Card, Table, read_card, show_card
from perfusio_jax.viz.card import card_text
from tests.report.run_folders import make_run

RNG = np.random.default_rng(0)
VERDICT = "verdict: <b>fit</b> for 1 to 3 days; Glc no better than nothing"


def of_a_run(folder: Path) -> Card:
    (record,) = read_records(make_run(folder / "E1", run_id="E1 <i>"))
    return run_card(record)


def of_a_golden_batch(folder: Path) -> Card:
    def one(name: str, factor: float) -> Trajectory:
        table = factor * np.arange(1.0, 7.0)[:, None] + 0.1 * RNG.normal(size=(6, 2))
        return Trajectory(table, np.zeros((6, 0)), np.ones(6), np.arange(6), ["X", "S"], [],
                          times_h=24.0 * np.arange(6), run_id=name)  # fmt: skip

    golden = golden_of(None, [one(f"G{k}", 1.0) for k in range(5)])
    found = [compare(golden, one(name, factor)) for name, factor in (("bad", 1.7), ("fine", 1.0))]
    return golden_card(found, {"X": "g/L"}, "c.csv")


def of_a_forecast(folder: Path) -> Card:
    mid = np.array([[0.00012345, 12.345, 1234.5], [np.nan, -0.5, 0.0]])
    return forecast_card(
        "forecast from day 3: median (10 % to 90 %)", ["day", "4", "5.5"],
        ["VCD [1e6/mL]", "Glc [g/L]", "Titer [mg/L]*"], (mid, 0.9 * mid, 1.1 * mid),
        never=["Titer"], model=VERDICT, source="model m, samples s.csv",
    )  # fmt: skip


def of_a_proposal(folder: Path) -> Card:
    run = {"expected": {"titre": 812.345}, "q10": {"titre": 700.1}, "q90": {"titre": 901.77},
           "probability_kept": [0.8765], "at_lower_bound": ["bleed"], "at_upper_bound": [],
           "is_kept": True}  # fmt: skip
    found = {
        "best_expected": {"titre": 812.345}, "best_looked_at": {"titre": 820.0},
        "best_of_runs_so_far": {"titre": 650.0}, "fixed": ["agitation"], "runs": [run],
        "remarks": ["Run 1 repeats run <E1>."],
        "constraints": [{"limit": "Via>=90", "is_daily": True, "probability": 0.8,
                         "share_of_space": 0.333, "best_without": {"titre": 900.0}}],
    }  # fmt: skip
    lines = in_words(found, np.array([[0.05, 800.0]]), ["bleed", "agitation"], lambda name: "u")
    return proposal_card(lines, folder / "proposed.csv")


def of_a_sensitivity(folder: Path) -> Card:
    output: Any = SimpleNamespace(name="last X", unit="g/L")
    levers: Any = tuple(SimpleNamespace(name=n, unit="1/h") for n in ("mu_max", "K_S", "idle"))
    found = LocalSensitivity(
        (output,), levers, np.array([0.4, 0.1, 1.0]), np.array([2.34567]),
        np.array([[1.2345, -0.5, 0.0]]), np.array([[0.9, -0.1, 0.0]]), "forward", 4.0,
    )  # fmt: skip
    rows = [
        Row("last X", lever.name, lever.unit, float(found.at[i]),
            {"elasticity": float(found.elasticities[0, i]),
             "gradient": float(found.gradients[0, i])})
        for i, lever in enumerate(levers)
    ]  # fmt: skip
    return sensitivity_card(found, rows, source="local, monod_chemostat, 1 d")


def of_a_calibration(folder: Path) -> Card:
    draws = RNG.lognormal(size=(2, 50, 2))
    check = SimpleNamespace(
        n_read=np.array([12, 0]),
        inside={0.8: np.array([0.75, np.nan]), 0.95: np.array([0.9167, np.nan])},
    )
    found: Any = SimpleNamespace(
        names=("mu_max", "K_S"), units=("1/h", "g/L"), method="svi", diagnostics=None,
        prior=np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 2.0]]), draws=draws,
        pooled=draws.reshape(-1, 2), columns=("X", "pH"), noise=np.array([1.234, 1.0]),
        check=check, before=check, notes=("K_S: the prior says all.",),
        problems=("2 of 12 readings of X lie <outside>",),
    )  # fmt: skip
    return calibration_card(found, [], source="c.csv")


def of_a_validation(folder: Path) -> Card:
    names = ("VCD", "Glc")
    ahead = SimpleNamespace(steps=(1, 3), in_days=True, texts=("1", "3"), unit="d")
    scores = SimpleNamespace(rrmse=np.array([[0.1234, 0.5], [0.2, np.nan]]),
                             pooled_coverage=np.array([[0.811, 0.7], [0.96, 0.9]]))  # fmt: skip
    beside = SimpleNamespace(nothing_changes=np.array([[0.4, 0.45], [0.9, np.nan]]))

    class Stand(tuple):
        verdict = SimpleNamespace(line=lambda: VERDICT)

    judged: Any = Stand((SimpleNamespace(names=names), ahead, scores, beside))
    layout: Any = SimpleNamespace(
        process=SimpleNamespace(quantities=[]), latent=(), forecast=names, face=names
    )
    return validation_card(judged, layout, 5, source="c.csv")


MAKERS = {
    maker.__name__: maker
    for maker in (of_a_run, of_a_golden_batch, of_a_forecast, of_a_proposal, of_a_sensitivity,
                  of_a_calibration, of_a_validation)
}  # fmt: skip


def pieces(card: Card) -> list[str]:
    """Everything a person is to be shown."""
    found = [*card.sentences, *card.warnings]
    for table in card.tables:
        found += [table.title, table.note, *table.heads, *(c for row in table.rows for c in row)]
    return [text for text in found if text.strip()]


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", MAKERS)
def test_terminal_report_and_page_show_the_same_to_the_digit(name, tmp_path, capsys):
    card = MAKERS[name](tmp_path)
    wanted = pieces(card)
    assert len(wanted) > 2 and sum(any(c.isdigit() for c in text) for text in wanted) > 1
    show_card(card, Screen(width=400))
    terminal = squeezed(capsys.readouterr().out)
    own = squeezed(html.unescape(html_page(card_document(card))))
    folder = make_run(tmp_path / "place" / "E7", run_id="E7")
    write_card(card, folder / "cards" / "kept.json")
    assert read_card(folder / "cards" / "kept.json") == card._replace(figure=None)
    report = squeezed(html.unescape(html_page(run_document(read_records(folder), folder))))
    watching = Watching(folder.parent)
    (reactor,) = watching.rack().reactors
    shown = watching.model(reactor.key)
    watching.close()
    assert shown is not None
    page = squeezed(" ".join(
        part.text if hasattr(part, "text") else " ".join(
            [*part.heads, *(cell for row in part.rows for cell in row)])
        for part in shown
    ))  # fmt: skip
    faces = {"terminal": terminal, "report of its own": own, "report": report, "page": page}
    for face, text in faces.items():
        missing = [piece for piece in wanted if squeezed(piece) not in text]
        assert not missing, (face, missing)


def test_a_card_is_markup_free_in_pages_and_whole_in_markdown(tmp_path):
    card = of_a_calibration(tmp_path)._replace(figure=None)
    for end in ("html", "md"):
        write_card(card, tmp_path / f"c.{end}")
    page = (tmp_path / "c.html").read_text()
    assert "<outside>" not in page and "&lt;outside&gt;" in page and 'class="warning"' in page
    assert "| mu\\_max | 1/h |" in (tmp_path / "c.md").read_text()
    with pytest.raises(ConfigError, match=r"ends in '\.txt'"):
        write_card(card, tmp_path / "c.txt")


def test_a_wide_table_is_split_for_a_narrow_terminal_and_loses_nothing(tmp_path, capsys):
    heads = ("day", *(f"quantity {k}" for k in range(12)))
    row = ("4", *(f"{k}.25" for k in range(12)))
    card = Card("forecast", "t", (), (), (Table("wide", heads, (row,), is_split=True),))
    show_card(card, Screen(width=60))
    told = capsys.readouterr().out
    assert all(head in told for head in heads) and all(cell in told for cell in row)
    assert told.count("day") > 2 and all(len(line) <= 60 for line in told.splitlines())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("sentences"), "'sentences' is missing"),
        (lambda t: t.update(format="other"), "its format is 'other'"),
        (lambda t: t.update(warnings="one"), "a list is needed where str"),
        (lambda t: t["tables"][0]["rows"].append(["one cell"]), "more or fewer cells"),
        (lambda t: t["tables"].append(3), "no card as perfusio-jax writes it"),
    ],
)
def test_what_is_no_card_is_refused_and_told_in_the_report(change, said, tmp_path):
    told = json.loads(card_text(of_a_sensitivity(tmp_path)))
    change(told)
    folder = make_run(tmp_path / "E1")
    (folder / "cards").mkdir()
    (folder / "cards" / "a.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=said):
        read_card(folder / "cards" / "a.json")
    text = html.unescape(html_page(run_document(read_records(folder), folder)))
    assert said in text and "What else was concluded" in text


def test_a_command_writes_its_card_and_the_report_of_a_run_prints_its_own(tmp_path, capsys):
    folder = make_run(tmp_path / "E1")
    card = folder / "cards" / "sensitivity.json"
    words = ["sensitivity", "--process", "monod_chemostat", "--days", "1", "--every", "12",
             "--of", "last X", "--by", "mu_max", "--card", str(card)]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(words)
    told = capsys.readouterr().out
    assert not end.value.code and f"card: {card}" in told.replace("\n", "")
    kept = read_card(card)
    assert kept.tables[0].rows[0][0] == "mu_max" and kept.tables[0].rows[0][2] in told
    with pytest.raises(SystemExit) as end:
        main(["report", str(folder), "--out", str(tmp_path / "r.html")])
    told = squeezed(capsys.readouterr().out)
    assert not end.value.code
    text = squeezed(html.unescape((tmp_path / "r.html").read_text()))
    (record,) = read_records(folder)
    for sentence in run_card(record).sentences:
        assert sentence in told and sentence in text
    assert kept.tables[0].rows[0][2] in text.partition("What else was concluded")[2]
    with pytest.raises(SystemExit) as end:
        main(["report", str(folder)])
    told = squeezed(capsys.readouterr().out)
    assert not end.value.code and f"{squeezed(kept.title)} (perfusio-jax sensitivity):" in told
    assert kept.tables[0].rows[0][2] in told
