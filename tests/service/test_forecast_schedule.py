"""`forecast --schedule` from end to end: a model, a run so far, and set-points that change."""

import csv

import jax
import numpy as np
import pytest

from perfusio_jax.cli import main
from perfusio_jax.connectors import write_described
from perfusio_jax.hybrid import HybridConfig, fit_hybrid, save
from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.simulator import plain_monod, simulate_runs, virtual_plant

EVERY, SO_FAR = 6.0, 4
"""Hours between samples, and intervals of the run that has begun."""
START = [1.0, 5.0, 0.0]


def code_of(words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def made(controls, *, noise=True, seed=0):
    plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
    hours = EVERY * np.arange(controls.shape[1] + 1)
    starts = np.tile(START, (controls.shape[0], 1))
    return simulate_runs(plant, starts, controls, hours, key=jax.random.key(seed), noise=noise)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of six runs, the first day of a run, and what is to act on it afterwards."""
    place = tmp_path_factory.mktemp("schedule")
    draws = np.random.default_rng(3).uniform((0.02, 5.0), (0.3, 20.0), (6, 4, 2))
    runs = made(np.repeat(draws, 2, axis=1))
    few = HybridConfig(use_gp=False, n_particles=24)
    model, _ = fit_hybrid(runs, process=MONOD_CHEMOSTAT, key=jax.random.key(0), config=few)
    save(model, place / "model")
    begun = made(np.tile([0.1, 10.0], (1, SO_FAR, 1)), noise=False)
    write_described(begun, place / "samples.csv", MONOD_CHEMOSTAT)
    return place


def forecast(folder, rows, *more):
    schedule, out = folder / "schedule.csv", folder / "ahead.csv"
    lines = ["run_id,time_h,dilution,feed_S", ",h,1/h,g/L"]
    lines += [f"RUN001,{t:g},{d:g},{s:g}" for t, d, s in rows]
    schedule.write_text("\n".join(lines) + "\n")
    words = ["forecast", folder / "model", folder / "samples.csv", "--schedule", schedule]
    code = code_of([*words, "--days", 1, "--every", 12, "--out", out, *more])
    if code:
        return code, []
    with out.open(newline="") as file:
        return code, list(csv.DictReader(file))


def column(rows, name):
    """A column of the forecast of the biomass."""
    return np.asarray([float(row[name]) for row in rows if row["quantity"] == "X"])


def test_set_points_of_a_schedule_act_from_their_own_hour_on(folder, capsys):
    # until 30 h as it was, then a richer feed; the forecast is from 24 h on
    change = [(0, 0.1, 10), (30, 0.1, 18), (48, 0.1, 18)]
    code, rows = forecast(folder, change)
    told = " ".join(capsys.readouterr().out.split())
    assert code == 0 and "set-points from now on: schedule.csv, run RUN001" in told
    np.testing.assert_allclose(
        column(rows, "time_h"), [30.0, 36.0, 48.0]
    )  # the change is a row of its own
    held = [(0, 0.1, 10), (48, 0.1, 10)]
    _, still = forecast(folder, held)
    np.testing.assert_allclose(column(still, "time_h"), [36.0, 48.0])
    x, x_still = column(rows, "q50"), column(still, "q50")
    # against the plant under the very set-points: a mechanism of the right form, six runs
    controls = np.asarray([[0.1, 10.0]] * 5 + [[0.1, 18.0]] * 3)[None]
    (true,) = made(controls, noise=False)
    (held_true,) = made(np.tile([0.1, 10.0], (1, 8, 1)), noise=False)
    np.testing.assert_allclose(x, np.asarray(true.get_species("X"))[[5, 6, 8]], rtol=0.15)
    np.testing.assert_allclose(x_still, np.asarray(held_true.get_species("X"))[[6, 8]], rtol=0.15)
    assert x[-1] > 1.3 * x_still[-1]


def test_a_schedule_that_is_over_says_nothing_of_what_is_to_come(folder, capsys):
    code, _ = forecast(folder, [(0, 0.1, 10), (24, 0.1, 10)])
    told = " ".join(capsys.readouterr().err.split())
    assert code != 0 and "ends at 24 h, and the last sample is of 24 h" in told
