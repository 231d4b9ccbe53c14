"""Any described culture as a plant: against an independent integrator, balances, derivatives."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from perfusio_jax._core import ConfigError, Result, SimulationError
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import CHO_PERFUSION, MONOD_CHEMOSTAT, Control, Process, Quantity, Stream
from perfusio_jax.simulator import (
    plain_monod,
    run_plant,
    simulate_runs,
    spread_controls,
    usual_start,
    virtual_plant,
)
from perfusio_jax.simulator.virtual_runs import run_courses, with_noise


class Plain(Mechanism):
    """One organism on one substrate, with a product and an acid that lowers the pH."""

    mu_max: jax.Array = constant(0.3, unit="1/h", log_sd=0.5)
    K_S: jax.Array = constant(0.2, unit="g/L")
    y: jax.Array = constant(0.5, unit="g/g")
    m: jax.Array = constant(0.02, unit="g/g/h")

    def rates(self, state, environment):
        x, s = state["X"], state["S"]
        mu = self.mu_max * s / (self.K_S + s)
        eaten = (mu / self.y + self.m * s / (self.K_S + s)) * x
        found = {"X": mu * x, "S": -eaten}
        if "pH" in state:
            found["pH"] = -0.002 * eaten + 0.05 * (7.0 - state["pH"])
        return found


def q(name, unit="g/L", **more):
    return Quantity(name=name, unit=unit, hi=more.pop("hi", 100.0), **more)


FED = Process(
    name="fed",
    volume_L=1.0,
    biomass="X",
    quantities=(
        q("X", cv=0.02),
        q("S", floor=0.05),
        q("pH", "pH", kind="level", cv=0.0, floor=0.02),
    ),
    controls=(
        Control(name="feed", unit="mL/h", role="flow", lo=0.0, hi=50.0, default=5.0),
        Control(name="S_bolus", unit="g", role="bolus", lo=0.0, hi=20.0, default=0.0, quantity="S"),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="feed", carries={"S": 300.0}, total="V_f_L"),
    ),
)
PERFUSED = Process(
    name="perfused",
    volume_L=0.5,
    biomass="X",
    quantities=(q("X"), q("S"), q("D", is_measured=False)),
    controls=(
        Control(name="medium", unit="vvd", role="flow", lo=0.0, hi=5.0, default=1.0),
        Control(name="bleed", unit="vvd", role="flow", lo=0.0, hi=1.0, default=0.1),
    ),
    streams=(
        Stream(name="medium", direction="in", flow="medium", carries={"S": 20.0, "D": 1.0}),
        Stream(name="bleed", direction="out", flow="bleed"),
        Stream(name="harvest", direction="out", flow="rest", passes={"X": 0.0, "D": 0.3}),
    ),
)


def reference(slope, y, hours):
    """Rows at the hours by LSODA at 1e-10."""
    y = np.asarray(y, float)
    rows = [y]
    for k, (a, b) in enumerate(itertools.pairwise(hours)):
        found = solve_ivp(
            lambda t, v, k=k: slope(v, k), (a, b), y, method="LSODA", rtol=1e-10, atol=1e-12
        )
        y = found.y[:, -1]
        rows.append(y)
    return np.array(rows)


def made(x, s):
    mu = 0.3 * s / (0.2 + s)
    return mu * x, (mu / 0.5 + 0.02 * s / (0.2 + s)) * x


HOURS = np.array([0.0, 3.0, 7.5, 24.0, 48.0, 120.0])


@pytest.fixture(scope="module")
def fed_plant():
    return virtual_plant(FED, Plain())


def test_a_chemostat_is_that_of_an_independent_integrator():
    plant = virtual_plant(MONOD_CHEMOSTAT, Plain())
    u = np.array([[0.1, 10.0], [0.1, 30.0], [0.25, 30.0], [0.05, 5.0], [0.0, 5.0]])

    def slope(v, k):
        grown, eaten = made(v[0], v[1])
        d = u[k, 0]
        return [grown - d * v[0], d * (u[k, 1] - v[1]) - eaten, -d * v[2]]

    expected = reference(slope, [0.5, 4.0, 2.0], HOURS)
    found = jax.jit(run_plant)(
        plant, jnp.asarray([0.5, 4.0, 2.0]), jnp.asarray(u), jnp.asarray(np.diff(HOURS))
    )
    assert int(found.result) == 0
    np.testing.assert_allclose(found.states, expected, rtol=3e-6, atol=3e-8)
    assert np.all(np.asarray(found.states) >= -1e-9)
    np.testing.assert_array_equal(found.volume_L, np.ones(6))


def test_a_fed_batch_with_boluses_a_level_and_samples_is_that_of_an_independent_integrator(
    fed_plant,
):
    u = np.array([[5.0, 0.0], [0.0, 4.0], [10.0, 0.0], [2.0, 2.0], [20.0, 0.0]])
    taken = 0.01

    def slope(v, k):
        x, s, volume = v[0] / v[3], max(v[1] / v[3], 0.0), v[3]
        grown, eaten = made(x, s)
        f = u[k, 0] * 1e-3
        level = -0.002 * eaten + 0.05 * (7.0 - v[2])
        return [volume * grown, 300.0 * f - volume * eaten, level, f]

    y = np.array([0.5, 5.0, 6.9, 1.0])
    rows = []
    for k in range(len(HOURS)):
        kept = 1.0 - taken / y[3]
        rows.append([y[0] / y[3], y[1] / y[3], y[2], y[3] - taken])
        y = np.array([y[0] * kept, y[1] * kept, y[2], y[3] - taken])
        if k < len(u):
            y[1] += u[k, 1]
            y = reference(lambda v, _, k=k: slope(v, k), y, HOURS[k : k + 2])[-1]
    found = jax.jit(run_plant)(
        fed_plant,
        jnp.asarray([0.5, 5.0, 6.9]),
        jnp.asarray(u),
        jnp.asarray(np.diff(HOURS)),
        sample_L=jnp.asarray(taken),
    )
    assert int(found.result) == 0
    expected = np.array(rows)
    np.testing.assert_allclose(found.states, expected[:, :3], rtol=3e-6, atol=3e-8)
    np.testing.assert_allclose(found.volume_L, expected[:, 3], rtol=1e-12)
    np.testing.assert_allclose(found.flowed_L[:, 0], u[:, 0] * 1e-3 * np.diff(HOURS), rtol=1e-9)


def test_a_perfusion_with_cells_held_back_is_that_of_an_independent_integrator():
    plant = virtual_plant(PERFUSED, Plain())
    u = np.array([[1.0, 0.0], [1.0, 0.1], [3.0, 0.2], [2.0, 1.0], [4.0, 0.5]])

    def slope(v, k):
        medium, bleed = u[k] / 24.0
        grown, eaten = made(v[0], v[1])
        return [
            grown - bleed * v[0],
            medium * (20.0 - v[1]) - eaten,
            medium * 1.0 - (bleed + 0.3 * (medium - bleed)) * v[2],
        ]

    expected = reference(slope, [0.3, 20.0, 0.0], HOURS)
    found = jax.jit(run_plant)(
        plant, jnp.asarray([0.3, 20.0, 0.0]), jnp.asarray(u), jnp.asarray(np.diff(HOURS))
    )
    assert int(found.result) == 0
    np.testing.assert_allclose(found.states, expected, rtol=3e-6, atol=3e-8)


@settings(max_examples=15)
@given(
    start=st.lists(st.floats(0.01, 30.0), min_size=2, max_size=2),
    feed=st.lists(st.floats(0.0, 40.0), min_size=3, max_size=3),
    bolus=st.lists(st.floats(0.0, 15.0), min_size=3, max_size=3),
    taken=st.floats(0.0, 0.05),
)
# starved overnight and fed again: substrate follows the feed so closely that it takes many steps
@example(start=[1.0, 1.0], feed=[0.0, 0.0, 4.0], bolus=[0.0, 0.0, 0.0], taken=0.0)
@example(start=[10.0, 0.01], feed=[0.1, 0.0, 40.0], bolus=[0.0, 0.1, 0.0], taken=0.0)
def test_nothing_gets_lost_in_a_vessel_that_only_takes_in(fed_plant, start, feed, bolus, taken):
    """Biomass over its yield plus substrate; maintenance is off, so that nothing else is made."""
    plant = eqx.tree_at(lambda p: p.mechanism.m, fed_plant, jnp.asarray(0.0))
    u = jnp.asarray([feed, bolus]).T
    lengths = jnp.asarray([5.0, 19.0, 30.0])
    state = jnp.asarray([*start, 7.0])
    found = eqx.filter_jit(run_plant)(plant, state, u, lengths, sample_L=jnp.asarray(taken))
    assert int(found.result) == 0
    held = np.asarray(found.states[:, 0] / 0.5 + found.states[:, 1])
    volume = np.asarray(found.volume_L)
    brought = 300.0 * np.asarray(feed) * 1e-3 * np.asarray(lengths) + np.asarray(bolus)
    before_sample = volume[1:] + taken
    np.testing.assert_allclose(
        held[1:] * before_sample, held[:-1] * volume[:-1] + brought, rtol=1e-11
    )
    assert np.all(np.asarray(found.states)[:, :2] >= -1e-9)


def test_a_culture_that_starved_can_be_fed_in_single_precision(fed_plant):
    plant = eqx.tree_at(lambda p: p.mechanism.m, fed_plant, jnp.asarray(0.0))
    u = jnp.asarray([[0.0, 0.0, 20.0], [0.0, 0.0, 0.0]]).T
    start, lengths = jnp.asarray([2.0, 1.0, 7.0]), jnp.asarray([5.0, 19.0, 30.0])
    exact = eqx.filter_jit(run_plant)(plant, start, u, lengths)

    def single(value):
        return value.astype(jnp.float32) if eqx.is_inexact_array(value) else value

    with jax.enable_x64(False):
        given = jax.tree.map(single, (plant, start, u, lengths))
        found = eqx.filter_jit(run_plant)(*given)
    assert found.states.dtype == jnp.float32 and int(found.result) == int(exact.result) == 0
    np.testing.assert_allclose(found.states, exact.states, rtol=1e-3, atol=3e-5)


def test_lanes_that_end_early_or_fail_are_as_they_are_alone(fed_plant):
    """The steps of a batch are taken together; which lane needs most is nobody's else business."""

    def last(mu_max, feed):
        plant = eqx.tree_at(lambda p: p.mechanism.mu_max, fed_plant, mu_max)
        u = jnp.asarray([[0.0, 0.0], [1.0, 0.0]]).at[1, 0].set(feed)
        found = run_plant(plant, jnp.asarray([1.0, 1.0, 7.0]), u, jnp.asarray([24.0, 24.0]))
        return found.states[-1, 0], (found.result, found.n_steps)

    slope = jax.value_and_grad(last, has_aux=True)
    mu_max, feed = jnp.asarray([0.2, 0.3, 0.3, 0.05]), jnp.asarray([5.0, 20.0, -1.0, 0.0])
    (values, (codes, steps)), slopes = jax.jit(jax.vmap(slope))(mu_max, feed)
    assert np.asarray(codes).tolist() == [0, 0, Result.BAD_INPUT, 0]
    for k in (0, 1, 3):
        (value, (_, n)), alone = jax.jit(slope)(mu_max[k], feed[k])
        assert int(n) == int(steps[k])
        np.testing.assert_allclose([values[k], slopes[k]], [value, alone], rtol=1e-9)
    assert np.isnan(values[2])


def test_the_gradient_is_that_of_differences(fed_plant):
    u = jnp.asarray([[5.0, 1.0], [10.0, 2.0], [5.0, 0.0]])
    lengths = jnp.asarray([6.0, 12.0, 6.0])

    def outcome(mu_max, feed, bolus, first, length):
        plant = eqx.tree_at(lambda p: p.mechanism.mu_max, fed_plant, mu_max)
        rows = u.at[1, 0].set(feed).at[1, 1].set(bolus)
        out = run_plant(
            plant,
            jnp.stack([first, jnp.asarray(5.0), jnp.asarray(7.0)]),
            rows,
            lengths.at[1].set(length),
        )
        return jnp.sum(out.states[-1] * jnp.asarray([1.0, 3.0, 10.0])) + out.volume_L[-1]

    at = tuple(jnp.asarray(v) for v in (0.25, 10.0, 2.0, 0.4, 12.0))
    places = tuple(range(len(at)))
    value = jax.jit(outcome)
    backward = jax.jit(jax.grad(outcome, argnums=places))(*at)
    forward = jax.jit(jax.jacfwd(outcome, argnums=places))(*at)
    np.testing.assert_allclose(np.array(forward), np.array(backward), rtol=1e-8)
    for k, x in enumerate(at):
        h = 2e-3 * x
        up, down = (value(*(v + s * h if i == k else v for i, v in enumerate(at))) for s in (1, -1))
        np.testing.assert_allclose(backward[k], (up - down) / (2 * h), rtol=2e-3)


def test_a_batch_of_runs_is_one_program_and_the_same_as_one_run(fed_plant):
    n = 64
    u = np.repeat(spread_controls(FED, n, seed=1)[:, None] * [0.2, 0.2], 3, axis=1)
    starts = np.tile([0.4, 6.0, 7.0], (n, 1))
    hours = np.array([0.0, 6.0, 12.0, 30.0])
    before = run_courses.n_programs()
    many = simulate_runs(fed_plant, starts, u, hours, key=jax.random.key(0), noise=False)
    other = eqx.tree_at(lambda p: p.mechanism.mu_max, fed_plant, jnp.asarray(0.2, float))
    simulate_runs(other, starts * 1.1, u * 0.5, hours, key=jax.random.key(0), noise=False)
    assert run_courses.n_programs() == before + 1
    one = jax.jit(run_plant)(
        fed_plant, jnp.asarray(starts[5]), jnp.asarray(u[5]), jnp.asarray(np.diff(hours))
    )
    np.testing.assert_allclose(many[5].species, one.states, rtol=1e-7)


class Greedy(Mechanism):
    """Takes up what is gone."""

    q: jax.Array = constant(1.0, unit="g/g/h")

    def rates(self, state, environment):
        return {"X": 0.1 * state["X"], "S": -self.q * state["X"]}


def test_a_mechanism_that_takes_what_is_gone_collapses_the_step_and_says_so(fed_plant):
    plant = virtual_plant(MONOD_CHEMOSTAT, Greedy())
    lengths = jnp.asarray([2.0, 24.0])
    u = jnp.zeros((2, 2))
    start = jnp.asarray([1.0, 5.0, 0.0])
    out = jax.jit(run_plant)(plant, start, u, lengths)
    assert int(out.result) == Result.STEP_TOO_SMALL.value
    assert np.isfinite(out.states[1]).all() and np.isnan(out.states[2]).all()
    with pytest.raises(SimulationError, match="run 2.\n1 of 2 lanes: STEP_TOO_SMALL"):
        simulate_runs(
            plant,
            np.array([[0.01, 5.0, 0.0], start]),
            np.zeros((2, 1, 2)),
            [0.0, 24.0],
            key=jax.random.key(0),
        )


def test_a_closing_stream_that_would_flow_backwards_is_a_bad_input():
    plant = virtual_plant(PERFUSED, Plain())
    u = jnp.asarray([[0.1, 1.0]])
    out = jax.jit(run_plant)(plant, jnp.asarray([1.0, 5.0, 0.0]), u, jnp.asarray([5.0]))
    assert int(out.result) == Result.BAD_INPUT.value


def test_a_pump_law_holds_glucose_and_tells_what_it_gave():
    plant = virtual_plant(CHO_PERFUSION, plain_monod(CHO_PERFUSION))
    start = usual_start(CHO_PERFUSION)
    u = np.array([[[c.default for c in CHO_PERFUSION.controls]] * 6])
    (run,) = simulate_runs(
        plant,
        np.array([list(start.values())]),
        u,
        np.arange(7) * 24.0,
        key=jax.random.key(0),
        noise=False,
    )
    target = CHO_PERFUSION.control("glucose_setpoint").default
    level = np.asarray(run.get_species("Glc"))
    # proportional: at 400 g/L the pump gives V gain (target - C) / (400 - C), with C moving slowly
    given = np.asarray(run.stream_totals)[:, 2]
    law = 24.0 * 0.25 * 2.0 * (target - level) / (400.0 - level)
    assert np.all((given[4:] > law[3:-1]) & (given[4:] < law[4:])), (given, law)
    assert np.all(np.abs(level - target) < 1.01)
    via = np.asarray(run.get_species("Via"))
    assert via[0] == 100.0 and np.all((via[1:] > 50.0) & (via[1:] < 100.0))
    # the volume is kept: what left is what came
    np.testing.assert_array_equal(run.volume_L, np.full(7, 0.25))


def test_a_bleed_holds_the_biomass_and_levels_are_no_business_of_a_pump():
    def turbidostat(quantity, passes):
        return Process(
            name="turbido",
            volume_L=1.0,
            biomass="X",
            quantities=(q("X"), q("S"), q("pH", "pH", kind="level")),
            controls=(
                Control(
                    name="hold",
                    unit="g/L" if quantity != "pH" else "pH",
                    role="target",
                    lo=0.0,
                    hi=9.0,
                    default=2.0,
                    quantity=quantity,
                ),
            ),
            streams=(
                Stream(name="fresh", direction="in", flow="rest", carries={"S": 20.0}),
                Stream(name="bleed", direction="out", flow="hold", passes=passes),
            ),
        )

    plant = virtual_plant(turbidostat("X", {}), Plain(), largest_flow=1.0)
    out = jax.jit(run_plant)(
        plant, jnp.asarray([0.5, 10.0, 7.0]), jnp.full((4, 1), 2.0), jnp.full(4, 24.0)
    )
    assert int(out.result) == 0
    # proportional: the gain of 2 1/h carries a growth of 0.3 1/h at a seventh above the target
    np.testing.assert_allclose(out.states[-1, 0], 2.0 / (1 - 0.3 / 2.0), rtol=0.02)
    with pytest.raises(ConfigError, match="hold holds pH, a level"):
        virtual_plant(turbidostat("pH", {}), Plain())
    with pytest.raises(ConfigError, match="holds X by stream bleed, which holds it back"):
        virtual_plant(turbidostat("X", {"X": 0.0}), Plain())


def test_readings_have_the_noise_of_their_assays(fed_plant):
    true = jnp.broadcast_to(jnp.asarray([10.0, 0.0, 7.0]), (4000, 3))
    seen = np.asarray(with_noise(FED, true, key=jax.random.key(3)))
    n = len(seen)
    sd = seen.std(axis=0)
    for k, expected in ((0, 0.2), (2, 0.02)):
        assert abs(seen[:, k].mean() - true[0, k]) < 5 * expected / np.sqrt(n)
        assert abs(sd[k] / expected - 1) < 5 / np.sqrt(2 * n)
    assert seen[:, 1].min() == 0.0 and 0.01 < sd[1] < 0.05  # the floor, cut off at zero
    via = np.full((4000, len(CHO_PERFUSION.readings)), np.nan)
    place = CHO_PERFUSION.readings.index("Via")
    via[:, place] = 90.0
    drawn = np.asarray(with_noise(CHO_PERFUSION, jnp.asarray(via), key=jax.random.key(1)))[:, place]
    assert abs(drawn.mean() - 90.0) < 5 * 1.8 / np.sqrt(n) and abs(drawn.std() / 1.8 - 1) < 0.06
    assert drawn.max() <= 100.0


def test_a_run_has_times_totals_and_set_points(fed_plant):
    u = np.array([[[5.0, 0.0], [10.0, 3.0]]])
    (run,) = simulate_runs(
        fed_plant,
        [[0.5, 5.0, 7.0]],
        u,
        [0.0, 6.0, 20.0],
        key=jax.random.key(0),
        run_ids=["A"],
        sample_L=0.01,
        volume_L=0.8,
    )
    assert run.run_id == "A" and run.species_names == ("X", "S", "pH")
    np.testing.assert_allclose(run.times_h, [0, 6, 20])
    np.testing.assert_allclose(run.controls, [[5, 0], [10, 3], [10, 0]])
    np.testing.assert_allclose(run.volume_L, [0.79, 0.81, 0.94])
    assert run.auxiliary_names == ("V_f_L",) and np.isnan(run.auxiliary[0, 0])
    np.testing.assert_allclose(run.auxiliary[1:, 0], [0.03, 0.14], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"starts": [[1.0, 2.0]]}, "with X, S, pH"),
        ({"starts": [[-1.0, 2.0, 7.0]]}, "X is -1"),
        ({"starts": [[np.nan, 2.0, 7.0]]}, "X is nan"),
        ({"controls": np.zeros((1, 3, 2))}, r"\(1, 1, 2\) is needed"),
        ({"controls": np.full((1, 1, 2), -1.0)}, "feed is -1"),
        ({"hours": [0.0, 0.0]}, "have to rise"),
        ({"hours": [0.0]}, "two samples at least"),
        ({"run_ids": ["a", "b"]}, "2 run ids were given for 1 runs"),
    ],
)
def test_what_does_not_fit_is_refused(fed_plant, change, says):
    given = {
        "starts": [[1.0, 2.0, 7.0]],
        "controls": np.zeros((1, 1, 2)),
        "hours": [0.0, 5.0],
        **change,
    }
    with pytest.raises(ConfigError, match=says):
        simulate_runs(fed_plant, **given, key=jax.random.key(0))


def test_a_plant_refuses_what_it_cannot_run():
    bolus = FED.model_copy(
        update={
            "controls": (
                FED.controls[0],
                FED.controls[1].model_copy(update={"unit": "mL"}),
            )
        }
    )
    with pytest.raises(ConfigError, match="a volume of S"):
        virtual_plant(bolus, Plain())
    with pytest.raises(ConfigError, match="asks for 'X'"):
        virtual_plant(Process(name="p", volume_L=1.0, quantities=(q("S"),)), Plain())
    only = Process(name="p", volume_L=1.0, quantities=(q("Q", kind="derived", is_measured=True),))
    with pytest.raises(ConfigError, match="nothing to simulate"):
        virtual_plant(only, Plain())
