"""`validate` for a culture that is described: its names, units, hours, constants, refusals."""

import csv
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import HybridConfig
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.report.validation import validate_campaign

COARSE = HybridConfig(
    n_particles=24,
    growth=8,
    rounds=0,
    fit=FitConfig(max_iterations=8, n_restarts=1, max_rows=40),
)
HOURS = (0.0, 3.0, 6.0, 9.5, 12.0, 15.0, 24.0, 27.0)
"""Samples of a run: irregular, nobody there at night."""

CHEMOSTAT = Process(
    name="tank",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=40.0),
        Quantity(name="Glc", unit="mmol/L", hi=90.0),
    ),
    controls=(
        Control(name="dilution", unit="1/h", role="flow", lo=0.0, hi=0.5, default=0.1),
        Control(name="heat", unit="degC", role="environment", lo=20.0, hi=40.0, default=30.0),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="dilution", carries={"Glc": 60.0}),
        Stream(name="outflow", direction="out", flow="rest"),
    ),
)


def tank(rng, dilution, heat):
    """Readings (T, 2) of one run: Monod growth on glucose, a tenth of an hour at a time."""
    x, s, at, rows = rng.uniform(0.5, 1.5), 60.0, 0.0, []
    for hour in HOURS:
        while at < hour - 1e-9:
            growth = 0.25 * (1.0 + 0.03 * (heat - 30.0)) * s / (2.0 + s)
            x, s = (
                x + 0.1 * (growth - dilution) * x,
                max(s + 0.1 * (dilution * (60.0 - s) - 4.0 * growth * x), 0.0),
            )
            at += 0.1
        rows.append((x, s))
    return np.asarray(rows) * np.exp(0.03 * rng.normal(size=(len(rows), 2)))


def write(path, *, n_runs=6, clones=None, empty=(), extra=""):
    """A table of the tank; `empty` columns hold nothing."""
    rng = np.random.default_rng(1)
    lines = ["run_id,clone_id,time_h,X,Glc,dilution,heat" + (f",{extra}" if extra else "")]
    lines.append(",,h,g/L,mmol/L,1/h,degC" + (",g/L" if extra else ""))
    for i in range(n_runs):
        heat, dilution = (28.0, 30.0, 32.0)[i % 3], (0.05, 0.1)[i % 2]
        clone = "C" if clones is None else clones[i]
        for hour, row in zip(HOURS, tank(rng, dilution, heat), strict=True):
            cells = ["" if n in empty else f"{v:.4g}" for n, v in zip("XG", row, strict=True)]
            more = "," if extra else ""
            lines.append(f"b{i},{clone},{hour:g},{','.join(cells)},{dilution:g},{heat:g}{more}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def call(table, out, **more):
    """What `validate` says."""
    text = io.StringIO()
    asked = {"n_folds": 2, "seed": 0, "config": COARSE, **more}
    validate_campaign(table, out, console=Console(file=text, width=120), **asked)
    return text.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, its process, and what was found of it by the hours asked for."""
    place = tmp_path_factory.mktemp("tank")
    (place / "tank.toml").write_text(CHEMOSTAT.to_toml(), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def results(folder):
    table = write(folder / "runs.csv")
    said = call(table, folder / "out", hours=(6.0, 12.0, 36.0), culture=str(folder / "tank.toml"))
    return folder / "out", said


def test_scores_go_by_hours_and_are_in_the_units_of_the_process(results):
    with (results[0] / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(r["hours_ahead"], r["days_ahead"]) for r in rows} == {("6", "0.25"), ("12", "0.5")}
    assert {(r["species"], r["unit"]) for r in rows} == {("X", "g/L"), ("Glc", "mmol/L")}
    for row in rows:
        assert 0.0 < float(row["wape"]) and 0.0 < float(row["rrmse_persistence"])
        assert 0.0 < float(row["rrmse_trend"])
    # of the eight samples of a run four lie six hours before another, give or take a quarter
    assert {r["readings"] for r in rows if r["hours_ahead"] == "6"} == {"24"}


def test_a_horizon_longer_than_every_run_is_a_dash_and_not_a_zero(results):
    summary = json.loads((results[0] / "summary.json").read_text(encoding="utf-8"))
    assert summary["hours_ahead"] == [6.0, 12.0, 36.0]
    for key in ("rrmse", "rrmse_trend", "rrmse_persistence", "wape"):
        assert summary[key]["X"][2] is None and summary[key]["X"][0] is not None
    card = (results[0] / "model_card.md").read_text(encoding="utf-8")
    assert "| 36 | – | – | – | – |" in card
    assert not re.search(r"\bnan\b", card + results[1])


def test_the_choice_of_a_mechanism_is_by_runs_left_out_and_is_told(results):
    summary = json.loads((results[0] / "summary.json").read_text(encoding="utf-8"))
    compared = summary["mechanisms_compared"]
    assert set(compared) == {"monod", "none"}
    best = min(compared, key=compared.get)
    assert summary["mechanism"] == {"monod": "Monod", "none": "none"}[best]
    assert f"mechanism: {best}. Error of runs left out, 6 to 36 h ahead" in results[1]
    assert results[1].count("fold 1 of 2") == 2


def test_the_card_is_of_this_culture_and_of_no_other(results):
    card = (results[0] / "model_card.md").read_text(encoding="utf-8")
    assert "`tank`" in card and "Measured: X [g/L], Glc [mmol/L]." in card
    assert "dilution 0.05 to 0.1 1/h; heat 28 to 32 °C" in card
    assert "within 1.5 h of 6, 12, 36 h ahead" in card and "runs left out, 6 to 36 h ahead" in card
    assert "| hours ahead |" in card and "rRMSE Glc" in card
    for word in ("VCD", "Pirt", "Lac", "Titer", "viable", "days ahead"):
        assert word not in card
    for name in ("parity_6h.png", "parity_36h.png", "calibration.png"):
        assert (results[0] / "figures" / name).stat().st_size > 8_000


def test_a_named_mechanism_is_the_only_one_and_its_constants_are_told(folder):
    table = write(folder / "clones.csv", n_runs=5, clones="AABBZ")
    said = call(
        table, folder / "named", hours=(6.0,), culture=str(folder / "tank.toml"), mechanism="monod"
    )
    card = (folder / "named" / "model_card.md").read_text(encoding="utf-8")
    summary = json.loads((folder / "named" / "summary.json").read_text(encoding="utf-8"))
    assert summary["mechanism"] == "Monod" and summary["mechanisms_compared"] == {}
    row = next(line for line in card.splitlines() if line.startswith("| mu_max |"))
    assert "| 1/h |" in row and re.search(r"x \d", row)
    assert "| e[heat] |" in card and "(mmol/L Glc) / (g/L X)" in card
    # the only run of a clone trains, and nobody forecasts it
    line = "run b4 is the only one of clone Z: the model learns from it"
    assert line in said and line in card
    with (folder / "named" / "scores.csv").open(encoding="utf-8") as file:
        assert {r["readings"] for r in csv.DictReader(file)} == {"16"}


def test_what_cannot_be_left_out_is_refused_before_anything_is_fitted(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("perfusio_jax.hybrid.folds.fit_hybrid", None)
    told = {"culture": str(folder / "tank.toml"), "mechanism": "none", "hours": (3.0,)}
    out = tmp_path / "out"
    for n in (1, 2):
        with pytest.raises(DataError, match=f"{n} run.s.*two runs are left to train on"):
            call(write(tmp_path / "few.csv", n_runs=n), out, **told)
    with pytest.raises(DataError, match="no run can be left out"):
        call(write(tmp_path / "each.csv", n_runs=3, clones="ABC"), out, **told)
    some = write(tmp_path / "some.csv")
    lines = some.read_text(encoding="utf-8").splitlines()
    thin = [re.sub(r"^(b[1-5],C,[^,]*,[^,]*),[^,]*", r"\1,", line) for line in lines]
    some.write_text("\n".join(thin) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="Glc was measured in run.* only"):
        call(some, out, **told)
    assert not out.exists()


def test_a_quantity_nobody_read_is_named_with_the_way_out(folder, tmp_path):
    blank = write(tmp_path / "blank.csv", empty=("G",))
    with pytest.raises(DataError, match="Glc was not measured.*is_measured = false"):
        call(blank, tmp_path / "out", culture=str(folder / "tank.toml"), mechanism="none")
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(folder, tmp_path):
    table = write(tmp_path / "runs.csv")
    with pytest.raises(ConfigError, match="--horizon and --hours"):
        call(table, tmp_path / "out", horizon=3, hours=(3.0,))
    with pytest.raises(ConfigError, match="is unknown; allowed are monod, none"):
        call(table, tmp_path / "out", mechanism="magic")
