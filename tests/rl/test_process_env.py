"""Any process with a mechanism as an environment; the consortium is one of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.mechanistic import ConsortiumKinetics
from perfusio_jax.mechanistic.mechanism import movable
from perfusio_jax.process import CHO_FED_BATCH, CONSORTIUM, MONOD_CHEMOSTAT
from perfusio_jax.rl import (
    Consortium,
    ConsortiumEnv,
    PerfusionEnv,
    Problem,
    ProcessEnv,
    ProcessSpread,
    TrainSettings,
    advance,
    balances,
    consortium_params,
    load_training,
    make_policy,
    perfusion_params,
    process_problem,
    run_episode,
    saturation,
    save_training,
    train,
)
from perfusio_jax.rl.baselines import find_optimum, make_mpc
from perfusio_jax.rl.consortium import STATE_NAMES, start_setpoint, start_trajectory
from perfusio_jax.rl.controllers import run_closed_loop, run_inputs
from perfusio_jax.rl.plants import ConsortiumMotion
from perfusio_jax.rl.reinforce import begin
from perfusio_jax.rl.scenarios import trajectory_reference
from perfusio_jax.rl.storage import _architecture
from perfusio_jax.simulator import plain_monod, run_plant, virtual_plant
from tests.twin.described import FOREIGN, Foreign

LIGHTS = ((0.02, 0.3), (0.5, 1.0), (3.0, 3.0), (0.005, 0.15))


def monod(**more):
    mechanism = plain_monod(MONOD_CHEMOSTAT)
    return process_problem(
        MONOD_CHEMOSTAT, mechanism, {"X": 3.0}, **({"n_steps": 6, "step_h": 4.0} | more)
    )


# ---------------------------------------------------------------- the consortium


def test_the_mechanism_of_the_consortium_is_its_publication_s_balances():
    plant, theirs = virtual_plant(CONSORTIUM, ConsortiumKinetics()), Consortium()
    assert plant.states == STATE_NAMES
    for x in (start_setpoint(theirs, jnp.asarray([3.0, 3.0])), start_trajectory(theirs)):
        for light in LIGHTS:
            controls = jnp.asarray([*light, 0.15])
            rate, swelling, _ = plant.slopes(x, jnp.asarray(1.0), controls)
            wanted = balances(theirs, x, jnp.asarray(light))
            np.testing.assert_allclose(rate, wanted, rtol=1e-12, atol=1e-12)
            assert float(swelling) == pytest.approx(0.0, abs=1e-12)


def test_the_process_and_the_fast_path_of_the_consortium_agree():
    """The fast path errs by a part in ten thousand at steps of an hour."""
    plant, theirs = virtual_plant(CONSORTIUM, ConsortiumKinetics()), Consortium()
    x = start_trajectory(theirs)
    controls = np.asarray([[*light, 0.15] for light in LIGHTS])
    run = run_plant(plant, x, jnp.asarray(controls), jnp.ones(len(LIGHTS)))
    for k, light in enumerate(LIGHTS):
        x = advance(theirs, x, jnp.asarray(light))
        np.testing.assert_allclose(run.states[k + 1, :3], x[:3], rtol=2e-3, atol=2e-3)


def test_the_consortium_is_an_instance_with_the_inputs_and_goals_of_its_own_environment():
    goals = {"biomass_1": 3.0, "biomass_2": 4.0}
    env, params = process_problem(
        CONSORTIUM,
        ConsortiumKinetics(),
        goals,
        n_steps=4,
        step_h=1.0,
        controls=("blue", "red"),
        start=dict(zip(STATE_NAMES, start_trajectory(Consortium()).tolist(), strict=True)),
        is_log=True,
    )
    own = ConsortiumEnv(n_steps=4)
    assert (env.state_names, env.input_names, env.tracked_names) == (
        own.state_names, own.input_names, own.tracked_names,
    )  # fmt: skip
    assert env.n_observed == own.n_observed
    share = jnp.full((4, 2), 0.4)
    seen = run_inputs(env, params, params.plant, params.initial, share)
    x, wanted = params.initial, []
    for _ in range(4):
        x = advance(Consortium(), x, params.bounds.inputs(share[0]))
        wanted.append(x[1:3])
    np.testing.assert_allclose(seen, jnp.stack(wanted), rtol=2e-3)


# Last values of an episode, and the sum of all that was observed, by the classes that were there
# before both cultures became instances of one.
BEFORE = {
    "consortium": ((5.63231309855032, 10.318379857608889), 75.8167617681463),
    "perfusion": ((2.1868711637120852, 83.0697658835413, 97.37666052110804), 9.464299123755845),
}


@pytest.mark.parametrize("name", BEFORE)
def test_the_two_cultures_with_a_fast_path_are_instances_with_the_numbers_of_before(name):
    key = jax.random.key(0)
    if name == "consortium":
        env = ConsortiumEnv(n_steps=5, grid=(0.02, 0.08, 0.2, 0.35, 0.35))
        reference = trajectory_reference(1.0, 5)
        params = consortium_params(reference, start="trajectory", uncertainty=0.05)
    else:
        env = PerfusionEnv(n_steps=2)
        params = perfusion_params(np.tile([14.0, 800.0, 95.0], (3, 1)), spread=1.0)
    assert isinstance(env, ProcessEnv)
    assert env.process.name in ("consortium", "cho_perfusion")
    policy = make_policy(env.n_observed, env.n_inputs, key=key)
    out = run_episode(env, params, policy, key=key)
    tracked, observed = BEFORE[name]
    np.testing.assert_allclose(out.tracked[-1], tracked, rtol=1e-10)
    assert float(jnp.sum(out.observed)) == pytest.approx(observed, rel=1e-10)


def test_what_decides_no_control_of_its_culture_is_refused():
    with pytest.raises(ConfigError, match="blue, red is decided and no control of monod_chemostat"):
        ProcessEnv(MONOD_CHEMOSTAT, ConsortiumMotion(), n_steps=2)


def test_trainings_of_before_are_still_known_and_those_of_any_culture_are_kept(tmp_path):
    settings = TrainSettings(n_epochs=3, n_episodes=4, patience=3)
    params = consortium_params(trajectory_reference(1.0, 5), start="trajectory")
    fast = Problem(ConsortiumEnv(n_steps=5, grid=(0.5, 0.5)), params, saturation(9.0))
    told = _architecture(fast, settings)
    assert told["environment"] == "ConsortiumEnv" and told["problem"] == "de164b09a32885f2"
    assert told["environment's grid"] == [0.5, 0.5] and told["environment's n_steps"] == 5
    few = TrainSettings(n_epochs=1, n_episodes=2, patience=1, width=4, depth=1)
    env, params = monod(n_steps=2)
    problem = Problem(env, params, saturation(0.5, n=1))
    state = begin(problem, few, key=jax.random.key(0))
    save_training(tmp_path, problem, few, state)
    again = load_training(tmp_path, problem, few)
    for a, b in zip(jax.tree.leaves(state.policy), jax.tree.leaves(again.policy), strict=True):
        np.testing.assert_array_equal(a, b)
    other = MONOD_CHEMOSTAT.model_copy(update={"volume_L": 2.0})
    env, params = process_problem(
        other, plain_monod(other), {"X": 3.0}, n_steps=2, step_h=4.0
    )  # fmt: skip
    with pytest.raises(DataError, match="environment's process"):
        load_training(tmp_path, Problem(env, params, saturation(0.5, n=1)), few)


# ---------------------------------------------------------------- any process


def test_a_step_is_the_plant_s_own_with_the_rest_of_the_controls_held():
    env, params = monod(controls=("feed_S",), held={"dilution": 0.2}, start={"X": 1.0})
    state = env.reset(jax.random.key(0), params)
    after, info = env.step(jax.random.key(1), state, jnp.asarray([0.25]), params)
    plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
    controls = jnp.asarray([0.2, 25.0])
    wanted = plant.advance(params.initial, plant.volume_L, controls, jnp.asarray(4.0))
    np.testing.assert_allclose(after.x, wanted.state, rtol=1e-12)
    np.testing.assert_array_equal(info.inputs, [25.0])
    np.testing.assert_array_equal(info.tracked, after.x[:1])
    assert float(params.initial[0]) == 1.0 and bool(jnp.all(jnp.isfinite(env.observe(after))))


def test_derived_readings_have_references_and_a_volume_that_moves_is_a_state():
    moving = FOREIGN.model_copy(update={"streams": FOREIGN.streams[:2]})
    env, params = process_problem(
        moving, Foreign(), {"Via": 95.0, "Glc": 4.0}, n_steps=3, step_h=6.0,
        start={"VCD": 8.0, "DCD": 0.2},
    )  # fmt: skip
    assert env.state_names == ("VCD", "DCD", "Glc", "Lac", "volume_L")
    assert float(params.initial[-1]) == 0.3
    state = env.reset(jax.random.key(0), params)
    after, info = env.step(jax.random.key(1), state, jnp.asarray([0.0, 0.0]), params)
    assert float(after.x[-1]) == pytest.approx(0.3 * np.exp(0.5 * 0.25), rel=1e-5)
    alive, dead = after.x[:2]
    assert float(info.tracked[0]) == pytest.approx(float(100.0 * alive / (alive + dead)))
    assert float(info.tracked[1]) == float(after.x[2])


def test_episodes_differ_by_their_constants_and_starts_and_not_without_spread():
    env, params = monod(spread=0.1)
    plants, starts = jax.vmap(lambda k: env.draw(k, params))(
        jax.random.split(jax.random.key(0), 40)
    )
    nominal = params.plant.plant.mechanism
    n_seen = 0
    for name, told in movable(nominal).items():
        drawn = np.asarray(getattr(plants.plant.mechanism, name))
        value = np.asarray(getattr(nominal, name))[None]
        if not value.size or (told.log_sd is not None and not np.all(value)):
            continue  # by a factor nothing moves from zero
        n_seen += 1
        assert np.all(np.std(drawn, axis=0) > 0.0)
        if told.log_sd is not None:
            unit = np.abs(np.log(drawn / value)) / np.asarray(told.log_sd)
        else:
            unit = np.abs(drawn - value) / np.asarray(told.sd)
        assert np.max(unit) <= 0.3 * (1.0 + 1e-9), "a tenth of what it says, cut at three"
    assert n_seen >= 2
    ratio = starts[:, 0] / params.initial[0]
    assert 0.05 < float(jnp.std(ratio)) < 0.15 and float(jnp.max(jnp.abs(ratio - 1))) <= 0.3
    still, none = monod()
    plant, x = still.draw(jax.random.key(3), none)
    np.testing.assert_array_equal(x, none.initial)
    for a, b in zip(jax.tree.leaves(plant), jax.tree.leaves(none.plant), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_compile_for_other_numbers(traces):
    env, params = monod()
    policy = lambda observed: (jnp.zeros(2), jnp.ones(2))  # noqa: E731

    def tracked(params, key):
        return run_episode(env, params, policy, key=key).tracked

    episode = eqx.filter_jit(traces(tracked))
    first = episode(params, jax.random.key(0))
    other = eqx.tree_at(lambda p: p.initial, params, params.initial * 1.1)
    second = episode(other, jax.random.key(0))
    assert traces.count == 1 and not np.allclose(first, second)


def test_gradients_pass_through_the_plant():
    env, params = monod(n_steps=2)

    def last(share):
        return run_inputs(env, params, params.plant, params.initial, share)[-1, 0]

    share = jnp.full((2, 2), 0.3)
    slope = jax.grad(last)(share)
    for at in ((0, 1), (1, 0)):
        step = 1e-5
        up, down = (last(share.at[at].add(s)) for s in (step, -step))
        assert float(slope[at]) == pytest.approx(float((up - down) / (2 * step)), rel=1e-3)


def test_reinforce_learns_to_hold_a_culture():
    env, params = monod(n_steps=3, step_h=8.0, start={"X": 2.0, "S": 1.0}, spread=0.02)
    problem = Problem(env, params, saturation(0.5, n=1))
    settings = TrainSettings(
        n_epochs=25, n_episodes=16, patience=25, learning_rate=0.03, is_single=False, width=8
    )
    state = train(problem, settings, key=jax.random.key(0))
    means = np.asarray(state.history.mean_return)
    assert np.all(np.isfinite(means))
    assert means[-5:].mean() > means[:5].mean()


def test_model_predictive_control_holds_a_culture_the_search_found_inputs_for():
    env, params = monod(n_steps=3, step_h=8.0, start={"X": 2.0, "S": 1.0})
    found = find_optimum(env, params, jnp.zeros((1, 3, 2)), n_iterations=25)
    still = run_inputs(env, params, params.plant, params.initial, jnp.full((3, 2), 0.5))
    before = float(jnp.mean(jnp.abs(still - 3.0) / 3.0))
    assert float(found.error) < 0.5 * before
    mpc = make_mpc(env, found.z, n_iterations=5)
    out = run_closed_loop(env, params, mpc, key=jax.random.key(0))
    assert float(jnp.mean(jnp.abs(out.tracked[1:] - 3.0) / 3.0)) < 0.5 * before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"controls": ("dilutoin",)}, "'dilutoin' is no control of monod_chemostat .did you mean"),
        ({"controls": ()}, "one or more, each once"),
        ({"start": {"Y": 1.0}}, "start names Y; there are X, S, P"),
        ({"held": {"light": 1.0}}, "held names light; there are dilution, feed_S"),
        ({"ranges": {"dilution": (0.1, 2.0)}}, "a range inside 0 to 1 1/h is needed"),
        ({"ranges": {"X": (0.1, 2.0)}}, "ranges names X"),
        ({"step_h": 0.0}, "a step of 0.0 h is not possible"),
        ({"n_steps": 0}, "a whole number"),
        ({"spread": 0.5}, "a deviation of 0.5 .initial. is not possible; 0 to below 0.33"),
    ],
)
def test_what_is_no_environment_is_refused(more, says):
    with pytest.raises(ConfigError, match=says):
        monod(**more)


def test_a_spread_is_one_number():
    with pytest.raises(ConfigError, match="initial must be one number"):
        ProcessSpread(initial=jnp.zeros(2))
    with pytest.raises(ConfigError, match="a deviation of -1 .constants. is not possible"):
        ProcessSpread(constants=-1.0)


@pytest.mark.parametrize(
    ("goals", "says"),
    [
        ({}, "there is no goal"),
        ({"Z": 1.0}, "goals names Z; there are X, S, P"),
        ({"X": 0.0}, "the goal of X is 0.0; a number above 0, or 7 of them"),
        ({"X": [1.0, 2.0]}, "or 7 of them"),
    ],
)
def test_goals_nobody_can_follow_are_refused(goals, says):
    mechanism = plain_monod(MONOD_CHEMOSTAT)
    with pytest.raises(ConfigError, match=says):
        process_problem(MONOD_CHEMOSTAT, mechanism, goals, n_steps=6, step_h=4.0)


def test_a_bolus_is_not_decided():
    mechanism = plain_monod(CHO_FED_BATCH)
    env, _ = process_problem(CHO_FED_BATCH, mechanism, {"Xv": 5.0}, n_steps=2, step_h=24.0)
    assert env.input_names == ("temperature", "pH")
    with pytest.raises(ConfigError, match="glucose_bolus is a bolus, which is given"):
        process_problem(
            CHO_FED_BATCH, mechanism, {"Xv": 5.0}, n_steps=2, step_h=24.0,
            controls=("glucose_bolus",),
        )  # fmt: skip
