"""Boluses that come in a volume: feeds of several things, by the millilitre or by the amount."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.goal.costs import read_costs
from perfusio_jax.bed.goal.expressions import RunForm, parse_expression
from perfusio_jax.connectors import read_campaign
from perfusio_jax.connectors.files.checking import check_campaign
from perfusio_jax.hybrid import Vessel
from perfusio_jax.hybrid.layout import layout_of
from perfusio_jax.hybrid.recipes import unfolded
from perfusio_jax.hybrid.runs import volumes
from perfusio_jax.process import (
    Control,
    Process,
    Quantity,
    Stream,
    bolus_amounts,
    bolus_volumes,
    derive,
)
from perfusio_jax.simulator import run_plant, virtual_plant

FEEDS = Process(
    name="feeds",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=60.0, cv=0.03, floor=0.05),
        Quantity(name="S", unit="g/L", hi=150.0, cv=0.03, floor=0.2),
        Quantity(name="N", unit="mmol/L", hi=200.0, cv=0.03, floor=0.2),
        Quantity(name="pH", unit="pH", kind="level", lo=6.0, hi=8.0, cv=0.0, floor=0.02),
    ),
    controls=(
        Control(name="feed_A", unit="mL", role="bolus", lo=0.0, hi=100.0, default=0.0,
                brings={"S": 400.0, "N": 50.0}),
        Control(name="S_shot", unit="g", role="bolus", lo=0.0, hi=40.0, default=0.0,
                quantity="S", brings={"S": 200.0}),
        Control(name="N_salt", unit="mmol", role="bolus", lo=0.0, hi=40.0, default=0.0,
                quantity="N"),
    ),
)  # fmt: skip
DRIP = FEEDS.replace(
    controls=(
        *FEEDS.controls,
        Control(name="drip", unit="mL/h", role="flow", lo=0.0, hi=100.0, default=10.0),
    ),
    streams=(Stream(name="drip", direction="in", flow="drip", carries={"S": 100.0}),),
)


class Nothing(eqx.Module):
    """Cells that do nothing."""

    idle: jax.Array = eqx.field(default_factory=lambda: jnp.zeros(()))

    def rates(self, state, environment):
        return {"X": self.idle * state["X"]}


def test_a_feed_says_its_amounts_and_its_volume():
    amounts = bolus_amounts(FEEDS, FEEDS.carried)
    # 1 mL of 400 g/L, 1 g of it at 200 g/L, 1 mmol of salt in no volume
    np.testing.assert_allclose(amounts, [[0, 0, 0], [0.4, 1.0, 0], [0.05, 0, 1.0]], rtol=1e-12)
    np.testing.assert_allclose(bolus_volumes(FEEDS), [1e-3, 5e-3, 0.0], rtol=1e-12)
    assert FEEDS.control("feed_A").given == ("S", "N")
    assert FEEDS.control("N_salt").given == ("N",)
    assert not FEEDS.is_constant_volume and FEEDS.may_move


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": "mL", "quantity": "S", "brings": {"S": 1.0}}, "has no quantity of its own"),
        ({"unit": "g", "quantity": "S", "brings": {"N": 1.0}}, "brings holds its concentration"),
        ({"unit": "mL", "brings": {"S": -1.0}}, "no concentration is below 0"),
        ({"unit": "mL", "brings": {"pH": 7.0}}, "pH is a level; only what is carried"),
        ({"unit": "mL", "brings": {"Z": 7.0}}, "'Z' is no quantity of feeds"),
        ({"unit": "mL"}, "a bolus names its quantity"),
        ({"unit": "1/h", "role": "flow", "brings": {"S": 1.0}}, "brings is of a bolus"),
    ],
)
def test_what_a_feed_cannot_be_is_refused(change, said):
    told = {"name": "feed", "role": "bolus", "lo": 0.0, "hi": 1.0, "default": 0.0} | change
    with pytest.raises(ConfigError, match=said):
        FEEDS.replace(controls=(Control(**told),))


def test_a_feed_into_a_volume_that_is_kept_is_refused():
    flows = Control(name="D", unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1)
    streams = (
        Stream(name="in", direction="in", flow="D"),
        Stream(name="out", direction="out", flow="rest"),
    )
    with pytest.raises(ConfigError, match="stream out keeps the volume"):
        FEEDS.replace(controls=(FEEDS.control("feed_A"), flows), streams=streams)


def test_the_plant_mixes_what_is_given_and_its_volume():
    plant = virtual_plant(DRIP, Nothing())
    start = jnp.asarray([2.0, 10.0, 8.0, 7.0])
    u = jnp.asarray([50.0, 10.0, 4.0, 0.0])  # 50 mL, 10 g in 50 mL, 4 mmol
    end = plant.advance(start, jnp.asarray(1.0), u, jnp.asarray(1e-9))
    assert float(end.volume_L) == pytest.approx(1.1, rel=1e-9)
    np.testing.assert_allclose(
        end.state, [2.0 / 1.1, (10 + 20 + 10) / 1.1, (8 + 2.5 + 4) / 1.1, 7.0], rtol=1e-6
    )


def test_a_step_of_the_model_equals_the_plant_and_an_independent_integrator():
    vessel = Vessel(DRIP, substeps=64)
    names = vessel.layout.states
    assert names == ("X", "S", "N", "pH")
    u = np.asarray([50.0, 10.0, 4.0, 20.0, 0.9])  # the last is the volume before
    start = np.asarray([2.0, 10.0, 8.0, 1.0])
    k = len(names)
    end, _ = vessel.advance(
        jnp.asarray(start), jnp.asarray(u), jnp.zeros(k),
        half=jnp.ones(k), per_cell=jnp.ones(k), offset=jnp.zeros(k), dt_h=jnp.asarray(12.0),
    )  # fmt: skip
    volume = 0.9 + 0.1
    mixed = (start[:3] * 0.9 + [0.0, 30.0, 6.5]) / volume

    def slope(_, y):
        flow = 0.02
        return [*(flow * (np.array([0.0, 100.0, 0.0]) - y[:3]) / y[3]), flow]

    true = solve_ivp(slope, (0, 12), [*mixed, volume], rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(end[:3], true[:3], rtol=2e-4)
    assert float(end[3]) == pytest.approx(1.0)  # a level is not diluted
    assert float(vessel.swollen(jnp.asarray(u))[-1]) == pytest.approx(volume)


def recorded(with_volume, tmp_path):
    """A run of the plant with feeds, as a table holds it."""
    plant = virtual_plant(DRIP, Nothing())
    hours = np.asarray([0.0, 12.0, 24.0, 30.0, 48.0])
    given = np.zeros((5, 4))
    given[:, 3] = 4.0
    given[1, 0], given[2, 1], given[3, 2] = 40.0, 6.0, 3.0
    start, lengths = jnp.asarray([2.0, 10.0, 8.0, 7.0]), jnp.asarray(np.diff(hours))
    run = run_plant(plant, start, jnp.asarray(given[:-1]), lengths)
    rows = [hours, *np.asarray(run.states).T, *given.T]
    head = ["time_h", *plant.states, *DRIP.control_names]
    if with_volume:
        rows, head = [*rows, np.asarray(run.volume_L)], [*head, "volume_L"]
    cells = [",".join(f"{v:.12g}" for v in row) for row in zip(*rows, strict=True)]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([",".join(["run_id", *head]), *(f"a,{row}" for row in cells)]))
    return read_campaign(path, process=DRIP)


@pytest.mark.parametrize("with_volume", [True, False])
def test_a_recorded_run_balances(with_volume, tmp_path):
    campaign = recorded(with_volume, tmp_path)
    (run,) = campaign.trajectories
    found = derive(DRIP, run)
    for name in ("rate_X", "rate_S", "rate_N"):  # nobody makes or takes anything
        assert np.abs(found.number(name).values).max() < 1e-6, name
    if with_volume:
        unexplained = found.number("volume_unexplained").values
        np.testing.assert_allclose(unexplained, 0.0, atol=1e-8)
    assert check_campaign(campaign, DRIP).findings == ()


def test_the_volume_of_a_plan_holds_what_boluses_bring():
    vessel = Vessel(FEEDS)
    model = SimpleNamespace(layout=vessel.layout, mech_model=vessel)
    plan = np.tile([20.0, 5.0, 0.0, np.nan], (4, 1))
    rows = unfolded(model, jnp.asarray(plan), jnp.full(4, 12.0))
    # 20 mL and 25 mL a day, at the day's start; a row begins before its own
    np.testing.assert_allclose(rows[:, -1], [1.0, 1.045, 1.045, 1.09], rtol=1e-9)


def test_volumes_nobody_recorded_hold_what_boluses_bring():
    """What a forecast, a twin's step and runs without a column of it are laid out with."""
    hours = np.asarray([0.0, 12.0, 24.0])
    u = np.asarray([[20.0, 5.0, 1.0], [0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    alone = np.asarray([0.9, np.nan, np.nan])
    np.testing.assert_allclose(
        volumes(Vessel(FEEDS).layout, u, alone, hours), [0.9, 0.945, 0.945], rtol=1e-12
    )
    drip = np.append(u, np.full((3, 1), 4.0), axis=1)
    found = volumes(Vessel(DRIP).layout, drip, alone, hours)
    np.testing.assert_allclose(found, [0.9, 0.945 + 0.048, 0.945 + 0.096], rtol=1e-12)
    recorded = np.asarray([0.9, np.nan, 1.041])  # a row put in between two samples
    np.testing.assert_allclose(volumes(Vessel(DRIP).layout, drip, recorded, hours), found)


def test_goals_and_costs_count_feeds():
    layout = layout_of(FEEDS, ())
    form = RunForm(FEEDS, layout, (24.0, 24.0))
    Y = jnp.ones((2, len(layout.forecast)))
    plan = jnp.asarray([[20.0, 5.0, 1.0, 0.0], [10.0, 0.0, 0.0, 0.0]])

    def value(text, **more):
        return float(parse_expression(text, form, **more)(Y, plan))

    assert value("used(feed_A)") == pytest.approx(0.03)
    assert value("given(S)") == pytest.approx(0.4 * 30 + 5.0)
    assert value("given(N)") == pytest.approx(0.05 * 30 + 1.0)
    costs = read_costs({"feed_A": 100.0, "S_shot": 10.0, "day": 1.0}, FEEDS)
    assert value("cost()", costs=costs) == pytest.approx(2.0 + 3.0 + 0.25)
    with pytest.raises(ConfigError, match="'N_salt' is unknown"):
        read_costs({"N_salt": 1.0}, FEEDS)


@pytest.mark.parametrize("kinetics", [None, Nothing()])
def test_nothing_in_the_vessel_stays_nothing(kinetics):
    """Where an uptake has no half-saturation, nothing over nothing was no number."""
    vessel = Vessel(FEEDS, kinetics)
    k = vessel.layout.n
    end, _ = vessel.advance(
        jnp.zeros(k), jnp.zeros(len(vessel.layout.controls)).at[-1].set(1.0), jnp.zeros(k),
        half=jnp.zeros(k), per_cell=jnp.ones(k), offset=jnp.zeros(k), dt_h=jnp.asarray(24.0),
    )  # fmt: skip
    np.testing.assert_array_equal(end, np.zeros(k))
