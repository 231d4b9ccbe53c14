"""Proposals that change within a run, from a table of runs to schedules that are run again."""

import csv
from io import StringIO

import jax
import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.connectors import write_described
from perfusio_jax.connectors.files.schedule import Schedule, read_schedules
from perfusio_jax.hybrid import HybridStateSpaceModel, Vessel, forecast_ahead
from perfusio_jax.hybrid.observation import AssayNoise
from perfusio_jax.report.profiles import Grid, schedule_table
from perfusio_jax.report.proposing import propose_file
from perfusio_jax.report.wishes import Wishes
from perfusio_jax.service.simulating import simulate_table
from perfusio_jax.simulator import plain_monod, simulate_runs, virtual_plant
from tests.hybrid.cultures import FED, QUICK

SMALL = CampaignSettings(
    n_raw=16, n_children=16, widths=(0.2,), batch=16, climb_rounds=2, n_time_rounds=1
)
DAYS = 4


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Runs of a fed-batch, two of them with set-points that changed, and its process file."""
    folder = tmp_path_factory.mktemp("fed")
    plant = virtual_plant(FED, plain_monod(FED))
    rng = np.random.default_rng(0)
    controls = np.zeros((4, DAYS, 2))
    controls[..., 0] = rng.uniform(2.0, 30.0, (4, 1))
    controls[:2, 2:, 0] = 40.0
    controls[..., 1] = rng.uniform(0.0, 4.0, (4, 1))
    starts = np.tile([1.0, 20.0], (4, 1))
    runs = simulate_runs(plant, starts, controls, np.arange(DAYS + 1) * 24.0, key=jax.random.key(0))
    write_described(runs, folder / "runs.csv", FED)
    (folder / "fed.toml").write_text(FED.to_toml())
    return folder


def proposed(folder, out, **wishes):
    screen = Console(file=StringIO(), width=140, markup=False)
    found = propose_file(
        folder / "runs.csv",
        wishes=Wishes(**{"goal": "max X", "n_runs": 2, "profile": 1, **wishes}),
        pending=None,
        space=None,
        out=out,
        console=screen,
        settings=SMALL,
        config=QUICK,
        mechanism="none",
        culture=str(folder / "fed.toml"),
    )
    return found, screen.file.getvalue()


@pytest.fixture(scope="module")
def answered(table):
    out = table / "next.csv"
    return out, *proposed(
        table,
        out,
        max_change={"feed_rate": 15.0},
        limits=("used(feed) <= 3",),
        costs={"run": 100.0, "feed": 20.0, "reactors": 1, "turnaround_days": 1},
    )


def unit_of(name):
    return FED.control(name).unit


def test_the_answer_is_a_schedule_a_person_can_run(answered):
    out, found, said = answered
    schedules = read_schedules(out, FED.control_names, unit_of)
    assert [one.run_id for one in schedules] == ["NEXT005", "NEXT006"]
    for one in schedules:
        np.testing.assert_array_equal(one.times_h, 24.0 * np.arange(DAYS + 1))
        moves = np.diff(one.rows[:-1], axis=0)
        assert np.all(np.count_nonzero(moves, axis=0) <= 1)
        assert np.abs(moves[:, 0]).max() <= 15.0 + 1e-4  # written with six digits
        assert one.rows[-1, 1] == 0.0  # nothing is given where a run ends
    assert "from hour" in said or "throughout:" in said
    assert "1. NEXT005" in said and "(best guess)" in said
    assert "best expected of the recipes looked at that change nothing" in said
    assert set(found["profile"]["runs"][0]) == {"n_moves", "n_rounds", "is_settled", "rounding"}
    told = found["costs"]
    for run, one in zip(told["runs"], schedules, strict=True):
        litres = 0.024 * one.rows[:-1, 0].sum()
        assert run["used_L"]["feed"] == pytest.approx(litres, rel=1e-4) and litres <= 3.0
        assert run["cost"] == pytest.approx(100.0 + 20.0 * litres, rel=1e-4)
    assert f"all 2 runs cost {told['total']:.5g} and take 9 d with 1 reactor(s)" in said
    assert "used(feed) <= 3 with probability 0.8" in said
    rows = list(csv.reader((out.parent / "next_expected.csv").read_text().splitlines()))
    assert rows[0][:2] == ["run_id", "final X [g/L]: expected"] and len(rows) == 3


def test_schedules_are_simulated_as_they_stand(answered, tmp_path):
    out, _, _ = answered
    screen = Console(file=StringIO(), width=140, markup=False)
    simulate_table(
        tmp_path / "made.csv",
        str(out.parent / "fed.toml"),
        mechanism=None,
        n_runs=1,
        days=1,
        every_h=24.0,
        noise=False,
        seed=0,
        console=screen,
        schedule=out,
    )
    assert "2 runs of 4 d" in screen.file.getvalue()
    rows = list(csv.DictReader((tmp_path / "made.csv").read_text().splitlines()))
    asked = read_schedules(out, FED.control_names, unit_of)[1]
    mine = [row for row in rows if row["run_id"] == "NEXT006"]
    assert len(mine) == DAYS + 1
    for row, wanted in zip(mine[:-1], asked.rows[:-1], strict=True):
        made = [float(row[name]) for name in FED.control_names]
        np.testing.assert_allclose(made, wanted, rtol=1e-5)


def test_schedules_under_way_count_as_they_stand(answered, table, tmp_path):
    from perfusio_jax.report.profiles import pending_plans

    out, _, _ = answered
    grid = Grid(FED.control_names, np.full(DAYS, 24.0), (1,), unit_of)
    waiting, said = pending_plans(out, grid, ["NEXT005"])
    assert [name for name, _ in waiting] == ["NEXT006"]
    asked = read_schedules(out, FED.control_names, unit_of)[1]
    np.testing.assert_allclose(waiting[0][1], asked.rows[:-1])
    assert "NEXT005" in said[0] and "1 pending run(s) counted as under way: NEXT006" in said[1]
    held = tmp_path / "held.csv"
    held.write_text("run_id,feed_rate,S_bolus\nA,5,1\n")
    waiting, _ = pending_plans(held, grid, [])
    np.testing.assert_allclose(waiting[0][1], np.tile([5.0, 1.0], (DAYS, 1)))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"profile": 4}, "4 changes of .* room for 1 to 3"),
        ({"max_change": {"stirring": 1.0}}, "--max-change stirring=1 .* one of feed_rate, S_bolus"),
        ({"max_change": {"feed_rate": 0.0}}, "above 0"),
    ],
)
def test_changes_nobody_can_make_are_refused(table, tmp_path, wishes, message):
    with pytest.raises(ConfigError, match=message):
        proposed(table, tmp_path / "out.csv", **wishes)


def test_plans_of_runs_hold_means_and_what_was_given_a_day():
    grid = Grid(FED.control_names, np.full(4, 12.0), (1,), unit_of)
    schedule = Schedule(
        "r", "", np.array([0.0, 12.0, 24.0, 48.0]), np.array([[1.0, 2], [3, 1], [5, 4], [5, 0]])
    )
    plan = grid.plan(schedule)
    np.testing.assert_allclose(plan, [[1, 3], [3, 3], [5, 4], [5, 4]])
    np.testing.assert_allclose(grid.given(plan)[:, 1], [3, 0, 4, 0])


def test_a_table_says_what_stays_and_what_is_set_when():
    grid = Grid(FED.control_names, np.full(4, 24.0), (1,), unit_of)
    plan = np.array([[10.0, 1.0], [10.0, 1.0], [20.0, 1.0], [20.0, 1.0]])
    still, table = schedule_table(plan, grid, np.ones(2))
    assert still == "S_bolus 1 g a day"
    screen = Console(file=StringIO(), width=80, markup=False)
    screen.print(table)
    text = screen.file.getvalue()
    assert "feed_rate [mL/h]" in text and "48" in text and "24" not in text
    assert schedule_table(plan[:2], grid, np.ones(2))[1] is None


def test_a_forecast_under_a_table_is_the_one_under_what_it_holds():
    model = HybridStateSpaceModel(
        Vessel(FED),
        None,
        process_sd=np.array([0.002, 0.001]),
        assay=AssayNoise(cv=np.array([0.03, 0.03]), floor=np.array([0.05, 0.2]), via=None),
    )
    plant = virtual_plant(FED, plain_monod(FED))
    (run,) = simulate_runs(
        plant, [[1.0, 20.0]], [[[10.0, 1.0]]], [0.0, 24.0], key=jax.random.key(1)
    )
    hours = [12.0, 24.0, 36.0]
    held = forecast_ahead(model, run, hours, {"feed_rate": 20.0, "S_bolus": 2.0})
    rows = np.array([[20.0, 2.0], [20.0, 0.0], [20.0, 0.0]])
    table = forecast_ahead(model, run, hours, rows)
    for a, b in zip(held, table, strict=True):
        np.testing.assert_array_equal(a, b)
    later = forecast_ahead(model, run, hours, rows * np.array([[1.0, 1.0]] * 2 + [[2.0, 1.0]]))
    np.testing.assert_array_equal(later.q50[:2], held.q50[:2])
    assert np.any(later.q50[2] != held.q50[2])
    with pytest.raises(ConfigError, match="one row for each of 3 hours"):
        forecast_ahead(model, run, hours, rows[:2])
