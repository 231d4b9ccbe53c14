"""`perfusio-jax rates`: tables of derived numbers, and how they are told."""

import csv
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.chemistry import glucose_pump_rate, interval_flows
from perfusio_jax.cli import main
from perfusio_jax.process import CHO_PERFUSION, recorded_flows
from perfusio_jax.report.derived import _PUMPS, derived_of, with_error
from perfusio_jax.states import Trajectory

CONTROLS = {"perfusion_rate": 1.2, "bleed_rate": 0.2, "glucose_setpoint": 5.0, "temperature": 36.5,
            "agitation": 800.0, "pyruvate_feed": 2.0}  # fmt: skip


def cho_run(n=7, **changes) -> Trajectory:
    days = np.arange(n)
    live = 2.0 * np.exp(0.3 * days)
    species = np.stack([live, np.full(n, 95.0), 5.0 - 0.3 * days, 0.5 + days], axis=1)
    return dataclasses.replace(
        Trajectory(
            species, np.tile(list(CONTROLS.values()), (n, 1)), np.full(n, 0.25), days,
            ["VCD", "Via", "Glc", "Lac"], list(CONTROLS), run_id="R1",
        ),
        **changes,
    )  # fmt: skip


def test_flows_are_those_the_model_learns_from_whether_recorded_or_not():
    run = cho_run()
    totals = np.full((7, 4), np.nan)
    totals[1:4] = [0.3, 0.05, 0.002, 0.01]
    for one in (run, dataclasses.replace(run, stream_totals=jnp.asarray(totals))):
        ours, theirs = recorded_flows(CHO_PERFUSION, one, _PUMPS), interval_flows(one)
        np.testing.assert_allclose(ours.inflow, theirs.flows.inflow, rtol=1e-12)
        np.testing.assert_allclose(ours.supply, theirs.flows.supply, rtol=1e-12)
        np.testing.assert_allclose(ours.cleared, theirs.flows.clearance(), rtol=1e-12)
        assert (ours.is_recorded == ~np.asarray(theirs.is_supply_estimated)).all()


def test_the_pump_law_is_padded_and_the_same_for_any_length():
    glucose, target = np.linspace(1.0, 6.0, 41), np.full(41, 5.0)
    found = _PUMPS["glucose_feed"](glucose, target)
    np.testing.assert_allclose(found, glucose_pump_rate(glucose, target), rtol=1e-12)


def test_a_table_is_read_derived_and_written_with_units_and_errors(tmp_path, capsys):
    cho_run().to_frame().to_csv(tmp_path / "runs.csv", index=False)
    out = tmp_path / "deep" / "rates.csv"
    main_ok(["rates", str(tmp_path / "runs.csv"), "--out", str(out)])
    with out.open(newline="") as file:
        header, units, *rows = list(csv.reader(file))
    assert len(rows) == 6 and header[:6] == ["run_id", "reactor_id", "clone_id", "from_h", "to_h",
                                             "flows"]  # fmt: skip
    expected = derived_of(None, cho_run())
    for number in expected.numbers:
        if not np.isfinite(number.values).any():
            assert number.name not in header
            continue
        k = header.index(number.name)
        assert units[k] == units[k + 1] == number.unit and header[k + 1] == f"{number.name}_se"
        for row, value, error in zip(rows, number.values, number.errors, strict=True):
            for cell, exact in ((row[k], value), (row[k + 1], error)):
                if np.isnan(exact):
                    assert cell == ""
                else:
                    np.testing.assert_allclose(float(cell), exact, rtol=1e-5)
    assert {row[5] for row in rows} == {"set-points"}
    said = capsys.readouterr().out
    assert "growth_net [1/d]" in said and "±" in said and "R1" in said
    assert max(len(line) for line in said.splitlines() if "│" in line or "R1 " in line) <= 80


def test_a_quantity_of_every_second_sample_is_missed_aloud(tmp_path, capsys):
    frame = cho_run().to_frame()
    frame.loc[1::2, "Glc"] = np.nan
    frame.to_csv(tmp_path / "runs.csv", index=False)
    main_ok(["rates", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "rates.csv")])
    assert "Glc was never read in two samples that follow each other" in capsys.readouterr().out


def test_runs_of_one_sample_are_named_and_alone_refused(tmp_path, capsys):
    long, short = cho_run().to_frame(), cho_run(1).to_frame().assign(run_id="SHORT")
    import pandas as pd

    pd.concat([long, short]).to_csv(tmp_path / "runs.csv", index=False)
    short.to_csv(tmp_path / "one.csv", index=False)
    main_ok(["rates", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "r.csv")])
    assert "one sample only, so nothing to derive: SHORT" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["rates", str(tmp_path / "one.csv"), "--out", str(tmp_path / "r2.csv")])
    assert end.value.code == 3 and "two samples" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["rates", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "r.txt")])
    assert end.value.code == 2


def test_values_and_errors_are_told_to_two_figures_of_the_error():
    assert with_error(0.48123, 0.0052) == "0.4812 ± 0.0052"
    assert with_error(-384.2, 19.4) == "-384 ± 19"
    assert with_error(1.0, float("nan")) == "1"
    assert with_error(float("nan"), 1.0) == "–"
    assert with_error(1.2e7, 3.1e5) == "1.2e+07 ± 3.1e+05"


def main_ok(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
