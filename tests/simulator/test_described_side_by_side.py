"""Described vessels side by side: flows within the balance, lanes that do not know each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import Result
from perfusio_jax.process import CHO_FED_BATCH, MONOD_CHEMOSTAT, Control, Process, Quantity, Stream
from perfusio_jax.simulator import (
    by_interval,
    controls_at,
    plain_monod,
    spread_controls,
    virtual_plant,
)
from perfusio_jax.simulator.described_side_by_side import (
    interval_later,
    read_vessels,
    within_balance,
)

PER_CELL = Process(
    name="per_cell",
    volume_L=2.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="1e6 cells/mL", hi=100.0),
        Quantity(name="S", unit="g/L", hi=20.0),
    ),
    controls=(
        Control(name="cspr", unit="pL/cell/d", role="flow", lo=0.0, hi=100.0, default=50.0),
        Control(name="bleed", unit="1/h", role="flow", lo=0.0, hi=0.5, default=0.0),
        Control(name="tap", unit="L/h", role="flow", lo=0.0, hi=0.5, default=0.0),
    ),
    streams=(
        Stream(name="medium", direction="in", flow="cspr", carries={"S": 10.0}),
        Stream(name="bleeding", direction="out", flow="bleed"),
        Stream(name="tapping", direction="out", flow="tap"),
        Stream(name="harvest", direction="out", flow="rest", passes={"X": 0.0}),
    ),
)


@pytest.fixture(scope="module")
def plant():
    return virtual_plant(PER_CELL, plain_monod(PER_CELL))


def _held(plant, state, controls):
    found, is_held = within_balance(
        plant, jnp.asarray(state), plant.volume_L, jnp.asarray(controls)
    )
    return np.asarray(found), bool(is_held)


def test_what_leaves_is_lowered_by_the_same_part_to_what_comes_in(plant):
    # 50 pL/cell/d at 24e6 cells/mL are 1.2 vessel volumes a day, 0.1 L/h of two litres
    asked = [50.0, 0.05, 0.3]  # 0.1 L/h and 0.3 L/h are asked for
    found, is_held = _held(plant, [24.0, 5.0], asked)
    assert is_held and found[0] == 50.0
    np.testing.assert_allclose(found[1:], np.array(asked[1:]) / 4.0, rtol=1e-12)
    assert found[1] * 2.0 + found[2] <= 0.1  # never more than comes, rounding included


def test_what_can_flow_is_left_to_the_last_bit(plant):
    asked = [50.0, 0.02, 0.05]
    found, is_held = _held(plant, [24.0, 5.0], asked)
    assert not is_held and np.array_equal(found, asked)
    # no stream keeps the volume: nothing is held
    batch = virtual_plant(CHO_FED_BATCH, plain_monod(CHO_FED_BATCH))
    given = np.array([c.default for c in CHO_FED_BATCH.controls])
    found, is_held = _held(batch, np.ones(len(batch.states)), given)
    assert not is_held and np.array_equal(found, given)


def test_a_held_flow_can_be_advanced_and_a_lane_knows_itself_alone(plant):
    lanes = 3
    many = jax.tree.map(lambda v: jnp.stack([v] * lanes), eqx.filter(plant.mechanism, eqx.is_array))
    mechanisms = eqx.combine(many, plant.mechanism)
    controls = jnp.asarray([[50.0, 0.05, 0.3], [50.0, 0.0, 0.0], [jnp.nan, 0.0, 0.0]])
    states = jnp.asarray([[2.0, 5.0]] * lanes)
    now = (states, jnp.full(lanes, plant.volume_L))
    later = interval_later(plant, mechanisms, now, controls, jnp.asarray(6.0))
    assert later.result.tolist() == [0, 0, Result.BAD_INPUT.value]
    assert later.is_held.tolist() == [True, False, False]
    assert np.isnan(later.states[2]).all() and np.isfinite(later.states[:2]).all()
    alone = plant.advance(states[1], plant.volume_L, controls[1], jnp.asarray(6.0))
    np.testing.assert_allclose(later.states[1], alone.state, rtol=1e-9)
    # where a run has failed nothing is read, and the noise of the others is their own key's
    keys = jax.random.split(jax.random.key(1), lanes)
    truth, noisy = read_vessels(plant, later.states, keys)
    assert np.isnan(noisy[2]).all() and np.all(noisy[:2] != truth[:2])
    swapped = jnp.asarray([1, 0, 2])
    _, again = read_vessels(plant, later.states[swapped], keys[swapped])
    assert np.array_equal(again[:2], noisy[jnp.asarray([1, 0])])


def test_points_of_the_cube_are_set_points_within_the_balance():
    corners = np.array([[0.0, 0.0], [1.0, 1.0], [0.25, 0.5]])
    np.testing.assert_allclose(
        controls_at(MONOD_CHEMOSTAT, corners), [[0.0, 0.0], [1.0, 100.0], [0.25, 50.0]]
    )
    many = spread_controls(PER_CELL, 16, seed=3)
    assert many.shape == (16, 3) and np.all(many >= 0.0)


def test_a_bolus_of_a_whole_run_is_given_in_equal_parts():
    set_points = np.array([[37.0, 7.0, 3.0, 6.0]])
    found = by_interval(CHO_FED_BATCH, set_points, 4)
    assert np.all(found[0, :, :2] == [37.0, 7.0])
    assert found[0, :, 2].tolist() == [0.0, 1.0, 1.0, 1.0] and found[0, :, 3].sum() == 6.0
    assert by_interval(CHO_FED_BATCH, set_points, 1).tolist() == [set_points.tolist()]
