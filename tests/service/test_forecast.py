"""`forecast` from every sample at its own hour, with all that is assumed said."""

import csv
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import HybridStateSpaceModel, Verdict, load, save, write_verdict
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.service import forecast as forecasting
from perfusio_jax.service.forecast import learned_controls, read_run

CONTROLS = "perfusion_rate,bleed_rate,glucose_setpoint,temperature,agitation,pyruvate_feed"
FULL = "1,0.1,5,36.5,850,2"
LATE = "time_h,VCD,Glc\n0,2,6\n16,2.9,5.4\n40,6.0,5.0\n64,10.2,4.9\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(HybridStateSpaceModel(CHOPerfusionModel(), None), tmp_path_factory.mktemp("m"))


@pytest.fixture
def ask(tmp_path, model, monkeypatch):
    """Forecast two days from a table; what was printed, and the history that was used."""
    seen = {}

    def estimate(history, hybrid, *, seed):
        seen["history"] = history
        return None, None

    def forecast(hybrid, belief, *, controls, horizon, seed):
        seen["held"] = controls
        days = float(seen["history"].times_h[-1]) / 24.0 + np.arange(1, horizon + 1)
        table = np.ones((horizon, len(FORECAST_SPECIES)))
        return SimpleNamespace(days=tuple(days), mean=table, q10=table, q50=table, q90=table)

    monkeypatch.setattr(forecasting, "estimate", estimate)
    monkeypatch.setattr(forecasting, "forecast", forecast)

    def run(table, *, changes=None, out=None, folder=model, rules=None):
        (tmp_path / "s.csv").write_text(table)
        text = io.StringIO()
        forecasting.forecast_file(
            folder,
            tmp_path / "s.csv",
            days=2,
            changes=changes or {},
            reactor_id=None,
            run_id=None,
            seed=0,
            out=out,
            rules=rules,
            console=Console(file=text, width=200, highlight=False, markup=False),
        )
        return text.getvalue(), seen["history"]

    return run


def test_a_run_sampled_off_the_day_is_forecast_from_its_last_sample(ask):
    text, history = ask(LATE)
    assert np.asarray(history.times_h).tolist() == [0.0, 16.0, 40.0, 64.0]
    assert np.asarray(history.get_species("VCD")).tolist() == [2.0, 2.9, 6.0, 10.2]
    assert "forecast from 64 h (day 2.67)" in text
    assert "3.67" in text and "4.67" in text
    assert "2 of 4 samples are more than 6 h from a whole day (40, 64 h" in text
    text, history = ask(LATE.replace("0,2,6\n", "", 1))  # nor does the first day matter
    assert history.n_days == 3 and "forecast from 64 h" in text


def test_every_sample_counts_that_is_taken_twice_a_day(ask):
    rows = "".join(f"{12 * k},{2 + k},5\n" for k in range(9))
    text, history = ask("time_h,VCD,Glc\n" + rows)
    assert history.n_days == 9 and "9 samples every 12 h, the last: day 4" in text
    assert "forecast from day 4:" in text and "from a whole day" not in text


def test_controls_the_file_lacks_are_told_as_assumed(ask):
    text, _ = ask(LATE)
    assumed = next(line for line in text.splitlines() if line.startswith("assumed"))
    assert assumed.count(",") >= 6 and "temperature 36.25 °C" in assumed
    text, _ = ask(LATE, changes={"temperature": 36.0})
    assert "(from now on temperature 36)" in text
    text, history = ask(f"day,VCD,Glc,{CONTROLS}\n0,2,5,{FULL}\n1,3,5,{FULL}\n")
    assert "assumed" not in text
    assert np.asarray(history.controls).shape == (2, 6)


def test_a_row_s_set_points_act_from_its_sample_on_unless_a_file_is_said_to_grow(ask):
    rows = "day,VCD,perfusion_rate\n0,2,1\n1,3,{}\n2,4,2\n"
    text, history = ask(rows.format(2))
    assert "perfusion_rate: what a row says acts from its sample on; --set-points until" in text
    assert np.asarray(history.controls)[:, 0].tolist() == [1.0, 2.0, 2.0]
    text, history = ask(rows.format(2), rules=FileRules(set_points="until"))
    assert "those that acted until its sample" in text and "--set-points" not in text
    assert np.asarray(history.controls)[:, 0].tolist() == [2.0, 2.0, 2.0]
    text, _ = ask(rows.format(1).replace("4,2", "4,1"))
    assert "what a row says" not in text


def test_a_control_that_is_told_late_is_assumed_until_then(tmp_path):
    (tmp_path / "s.csv").write_text("day,VCD,temperature\n0,2,\n1,3,\n2,4,36\n3,5,35\n")
    run = read_run(tmp_path / "s.csv", None)
    assert run.assumed["temperature"] == 48.0
    assert run.assumed["agitation"] is None
    assert [row["controls"]["temperature"] for row in run.rows] == [36.25, 36.25, 36.0, 35.0]
    run = read_run(tmp_path / "s.csv", None, rules=FileRules(set_points="until"))
    assert run.assumed["temperature"] == 24.0  # what is reported on day 2 acted from day 1 on
    assert [row["controls"]["temperature"] for row in run.rows] == [36.25, 36.0, 35.0, 35.0]


def test_of_a_control_the_file_lacks_what_the_model_learned_from_is_assumed(tmp_path):
    (tmp_path / "s.csv").write_text("day,VCD,perfusion_rate\n0,2,1\n1,3,1\n")
    names = ("perfusion_rate", "bleed_rate", "glucose_setpoint")
    inputs = np.array([[9.0, 1.0, 0.1, 0.0], [8.0, 1.2, 0.1, 0.0], [0.0, 7.0, 7.0, 7.0]])
    data = SimpleNamespace(inputs=inputs, row_present=np.array([1.0, 1.0, 0.0]))
    layout = SimpleNamespace(n=1, controls=names)
    hybrid: Any = SimpleNamespace(gp=SimpleNamespace(data=data), layout=layout)
    learned = learned_controls(hybrid)
    assert learned == {"bleed_rate": 0.1, "glucose_setpoint": 0.0}
    run = read_run(tmp_path / "s.csv", None, defaults=learned)
    assert [row["controls"]["glucose_setpoint"] for row in run.rows] == [0.0, 0.0]
    assert run.assumed["glucose_setpoint"] is None and "perfusion_rate" not in run.assumed
    hybrid = SimpleNamespace(gp=None)
    assert learned_controls(hybrid) == {}


def test_species_never_measured_are_marked_in_table_and_file(ask, tmp_path):
    text, _ = ask(LATE, out=tmp_path / "f.csv")
    assert "* never measured in this run: VCV, Via" in text
    assert "Gln [mmol/L]*" in text and "Glc [g/L]*" not in text
    with (tmp_path / "f.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    marks = {row["species"]: row["measured"] for row in rows}
    assert (marks["VCD"], marks["Glc"], marks["Gln"]) == ("yes", "yes", "no")
    assert {row["time_h"] for row in rows} == {"88", "112"}


def test_the_verdict_on_the_model_is_repeated(ask, tmp_path):
    text, _ = ask(LATE)
    assert "no verdict on this model" in text and "validate" in text
    hybrid = HybridStateSpaceModel(CHOPerfusionModel(), None)
    folder = save(hybrid, tmp_path / "judged")
    verdict = Verdict("a test", ("VCD", "Amm"), (0.2, 1.3), (0.9, 0.5), (0.8, 0.8))
    write_verdict(verdict, load(folder), folder)
    text, _ = ask(LATE, folder=folder)
    assert "fit for use: VCD. NOT fit for use: Amm (error 1.3, 0.5 if nothing changed)." in text


def test_another_working_volume_than_the_models_is_told(ask):
    text, _ = ask("day,VCD,volume_L\n0,2,0.2\n1,3,0.2\n")
    assert "a working volume of 0.25 L, the model's; the file states 0.2 L" in text
