"""Goals, limits and recipes of described cultures, by name; and a proposal from table to table."""

import csv
import dataclasses
from io import StringIO

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.hybrid import HybridStateSpaceModel, Vessel
from perfusio_jax.hybrid.recipes import unfolded
from perfusio_jax.process import CHO_PERFUSION, Control, Process, Quantity, Stream
from perfusio_jax.report.proposing import propose_file
from perfusio_jax.report.proposing_described import _recipe, box_of, goal_of, limits_of
from perfusio_jax.report.wishes import Wishes
from perfusio_jax.states import Trajectory, complete_setpoints
from tests.hybrid.cultures import CHEMOSTAT, FED, QUICK, YEAST, batches

SMALL = CampaignSettings(n_raw=32, n_children=16, batch=16)


def test_goals_are_told_by_name():
    most = goal_of("max P", YEAST, 3)
    assert [c.label for c in most.criteria] == ["final P [mg/L]"]
    least = goal_of("min: S", YEAST, 3).criteria[0]
    assert (least.direction, least.species_index, least.unit) == (-1, 1, "g/L")
    held = goal_of("pH = 6.5", CHEMOSTAT, 4).criteria[0]
    assert held.label == "distance from target of pH [pH]" and float(held.target) == 6.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titre", "goal 'titre' is unknown"),
        ("max Q", "'Q' is not forecast"),
        ("P = many", "is no number|is unknown"),
        ("P=1e", "is no number"),
    ],
)
def test_goals_nobody_understands_are_refused_by_what_is_allowed(text, message):
    with pytest.raises(ConfigError, match=message):
        goal_of(text, YEAST, 3)


def test_limits_are_told_by_name_and_refused_so():
    upper, lower = limits_of(["X<=30", "S >= 0.5"], YEAST, 0.9)
    assert (upper.label, lower.label) == ("X <=", "S >=")
    assert float(upper.minimum) == 30.0 and upper.is_upper and not lower.is_upper
    for bad, message in (("X=3", "NAME>=value"), ("Z<=3", "not forecast"), ("X<=a", "NAME>=value")):
        with pytest.raises(ConfigError, match=message):
            limits_of([bad], YEAST, 0.9)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        limits_of([], YEAST, 1.0)


def test_what_leaves_by_other_streams_is_not_more_than_what_enters():
    limits = box_of(CHO_PERFUSION, {})
    row = dict(zip(CHO_PERFUSION.control_names, np.asarray(limits.A)[0], strict=True))
    assert row["bleed_rate"] > 0 > row["perfusion_rate"]
    assert row["bleed_rate"] == -row["perfusion_rate"] and row["temperature"] == 0
    assert box_of(YEAST, {}).A.shape == (0, 1)
    assert box_of(CHEMOSTAT, {}).A.shape == (0, 2)  # the outflow alone closes the volume


def test_recipes_give_boluses_once_a_day_and_follow_the_volume():
    vessel = Vessel(FED)
    model = HybridStateSpaceModel(vessel, None)
    hours = jnp.full(8, 6.0)
    recipe = jnp.broadcast_to(jnp.asarray([10.0, 2.0, 0.0]), (8, 3))
    plan = np.asarray(jax.jit(unfolded)(model, recipe, hours))
    np.testing.assert_array_equal(plan[:, 1], [2, 0, 0, 0, 2, 0, 0, 0])
    np.testing.assert_allclose(plan[:, 2], 1.0 + 0.06 * np.arange(8), rtol=1e-6)


def test_the_recipe_of_a_run_is_what_was_set_all_the_time_and_what_was_given_a_day():
    hours = np.array([0.0, 12.0, 24.0, 48.0])
    run = Trajectory(
        np.ones((4, 2)),
        np.array([[10.0, 3.0], [20.0, 0.0], [10.0, 1.0], [99.0, 99.0]]),
        np.ones(4),
        np.arange(4),
        FED.readings,
        FED.control_names,
        times_h=hours,
    )
    np.testing.assert_allclose(_recipe(run, FED), [12.5, 2.0])


def test_a_control_the_table_lacks_is_told_in_the_unit_of_its_culture():
    run = batches(2)[0][0]
    bare = dataclasses.replace(run, controls=np.zeros((run.n_days, 0)), control_names=())
    (whole,), told = complete_setpoints(
        [bare], stated={"stirring": 300.0}, names=("stirring",), unit_of=lambda name: "rpm"
    )
    assert whole.control_names == ("stirring",) and "stirring 300 rpm in all runs" in told[0]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["run_id", "time_h", "temperature [degC]", "X [g/L]", "S [g/L]", "P [mg/L]"]
        )
        for run in batches(5)[0]:
            for hour, row in zip(np.asarray(run.times_h), np.asarray(run.species), strict=True):
                cells = [f"{v:.5g}" for v in row]
                writer.writerow([run.run_id, hour, float(run.controls[0, 0]), *cells])
    return path


def proposed(table, out, culture=None, **wishes):
    screen = Console(file=StringIO(), width=120, markup=False)
    found = propose_file(
        table,
        wishes=Wishes(n_runs=2, **wishes),
        pending=None,
        space=None,
        out=out,
        console=screen,
        settings=SMALL,
        config=QUICK,
        mechanism="none",
        culture=culture,
    )
    return found, screen.file.getvalue()


def test_a_table_of_a_culture_nobody_knew_leads_to_its_next_runs(table, tmp_path):
    out = tmp_path / "next.csv"
    found, said = proposed(table, out, goal="max P", limits=("X<=40",))
    assert found["is_feasible"] and len(found["runs"]) == 2
    assert "assumed: biomass: rates are taken to be per X." in said
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0][:3] == ["run_id", "clone_id", "temperature"] and rows[1][2] == "degC"
    # batches were made at 26 to 30.8 degC
    assert all(25.5 <= float(row[2]) <= 31.3 for row in rows[2:])
    assert "temperature is looked for from 25.5" in said and " °C: where" in said
    assert "degC" not in said
    assert "final P [mg/L]" in said and "as measured" in said


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"goal": "titre", "culture": "table"}, "goal 'titre' is unknown"),
        ({"goal": "max P", "viability": 80.0}, "described culture"),
        ({"goal": "max P", "ammonium": 5.0}, "--limit"),
        ({"goal": "max P", "fixed": {"stirring": 1.0}}, "is no control of"),
        ({"goal": "max P", "fixed": {"temperature": 28.0}}, "nothing to propose"),
    ],
)
def test_wishes_that_do_not_fit_a_described_culture_are_refused(table, tmp_path, wishes, message):
    with pytest.raises(ConfigError, match=message):
        proposed(table, tmp_path / "next.csv", **wishes)


def test_streams_that_leave_beside_the_one_that_keeps_the_volume_are_limited():
    two = Process(
        name="two",
        volume_L=1.0,
        biomass="X",
        quantities=(Quantity(name="X", unit="g/L", hi=10.0),),
        controls=tuple(
            Control(name=n, unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1)
            for n in ("a", "b")
        ),
        streams=(
            Stream(name="in", direction="in", flow="a"),
            Stream(name="out", direction="out", flow="b"),
            Stream(name="harvest", direction="out", flow="rest"),
        ),
    )
    limits = box_of(two, {})
    np.testing.assert_allclose(np.asarray(limits.A), [[-1.0, 1.0]])
