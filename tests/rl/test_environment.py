"""The interface to plants, Gymnasium's own check, and the controllers beside policies."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.rl import (
    ConsortiumEnv,
    MeanPolicy,
    PerfusionEnv,
    Problem,
    Uncertainty,
    advance,
    consortium_params,
    make_policy,
    perfusion_params,
    run_episode,
    saturation,
)
from perfusio_jax.rl.baselines import (
    closed_loops,
    find_optimum,
    ideal_growth,
    light_then_hold,
    make_mpc,
    score,
    tune_pid,
)
from perfusio_jax.rl.controllers import (
    PID,
    REACH,
    PolicyController,
    run_closed_loop,
    run_inputs,
)
from perfusio_jax.rl.environment import Episode
from perfusio_jax.rl.scenarios import trajectory_reference

GRID = (0.02, 0.08, 0.2, 0.35, 0.35)
ENV = ConsortiumEnv(n_steps=6, grid=GRID)
REFERENCE = trajectory_reference(1.0, 6)
PARAMS = consortium_params(REFERENCE, start="trajectory")
KEY = jax.random.key(0)


def test_an_observation_holds_two_pairs_and_time():
    state = ENV.reset(KEY, PARAMS)
    seen = ENV.observe(state)
    assert seen.shape == (ENV.n_observed,) == (15,)
    np.testing.assert_array_equal(seen[:5], ENV.features(PARAMS.initial))
    assert np.all(seen[5:14] == 0.0) and seen[14] == -1.0
    first, second = jnp.array([0.25, 0.5]), jnp.array([0.1, 0.9])
    after, info = ENV.step(KEY, state, first, PARAMS)
    light = jnp.array([0.005 * 600.0**0.25, 0.15 * 20.0**0.5])
    np.testing.assert_allclose(info.inputs, light)
    np.testing.assert_allclose(
        after.x, advance(PARAMS.plant, PARAMS.initial, light, 1.0, grid=GRID)
    )
    last, _ = ENV.step(KEY, after, second, PARAMS)
    seen = ENV.observe(last)
    np.testing.assert_allclose(seen[5:7], second)
    np.testing.assert_allclose(seen[7:12], ENV.features(after.x))
    np.testing.assert_allclose(seen[12:14], first)
    assert np.isclose(seen[14], 2 * 2 / 6 - 1)


def test_episodes_differ_only_by_what_is_uncertain():
    policy = MeanPolicy(make_policy(15, 2, key=KEY))
    run = eqx.filter_jit(lambda p, k: run_episode(ENV, p, policy, key=k).states)
    a, b = run(PARAMS, KEY), run(PARAMS, jax.random.key(1))
    np.testing.assert_array_equal(a, b)
    spread = consortium_params(REFERENCE, start="trajectory", uncertainty=Uncertainty(initial=0.07))
    assert not np.allclose(run(spread, KEY)[0], a[0])
    shaken = consortium_params(
        REFERENCE, start="trajectory", uncertainty=Uncertainty(disturbance=0.02)
    )
    c = run(shaken, KEY)
    np.testing.assert_array_equal(c[0], a[0])
    assert not np.allclose(c[1], a[1])


def test_controllers_meet_the_same_plants_as_policies():
    policy = make_policy(15, 2, key=KEY)
    params = consortium_params(
        REFERENCE, start="trajectory", uncertainty=Uncertainty(initial=0.05, synthesis=0.05)
    )
    loop = run_closed_loop(ENV, params, PolicyController(policy), key=KEY)
    episode = run_episode(ENV, params, MeanPolicy(policy), key=KEY)
    np.testing.assert_allclose(loop.states, episode.states, rtol=1e-12)


def test_a_plant_may_differ_from_what_the_controller_knows():
    pid = PID(*(jnp.full(2, v) for v in (-3.0, 2.0, 0.5, 0.25)))  # knows no constants
    truth = eqx.tree_at(lambda p: p.plant.degradation, PARAMS, jnp.array([0.5, 0.6]))
    told = run_closed_loop(ENV, truth, pid, key=KEY)
    blind = run_closed_loop(ENV, PARAMS, pid, key=KEY, truth=truth)
    np.testing.assert_array_equal(blind.states, told.states)
    assert not np.allclose(blind.states, run_closed_loop(ENV, PARAMS, pid, key=KEY).states)


def test_pid_by_hand_and_without_wind_up():
    pid = PID(*(jnp.full(2, v) for v in (-3.0, 2.0, 0.5, 0.25)))
    state = ENV.reset(KEY, PARAMS)
    low = eqx.tree_at(lambda s: s.x, state, state.x.at[1:3].set(jnp.array([1.5, 3.0])))
    action, memory = pid.act(ENV, PARAMS, pid.begin(ENV, PARAMS), low, key=KEY)
    target = REFERENCE[1]  # where the quantity is to be after the step
    error = (target - np.array([1.5, 3.0])) / target
    np.testing.assert_allclose(action, jax.nn.sigmoid(jnp.asarray(-3.0 + 2.5 * error)), rtol=1e-12)
    # far below the reference for long: the integral must not run away
    strong = PID(*(jnp.full(2, v) for v in (0.0, 100.0, 5.0, 0.0)))
    memory = strong.begin(ENV, PARAMS)
    for _ in range(50):
        _, memory = strong.act(ENV, PARAMS, memory, low, key=KEY)
    assert np.all(np.abs(memory[0]) < 100.0)
    high = eqx.tree_at(lambda s: s.x, state, state.x.at[1:3].set(jnp.array([4.5, 6.0])))
    action, _ = strong.act(ENV, PARAMS, memory, high, key=KEY)
    assert np.all(action < 1e-3)


@pytest.fixture(scope="module")
def optimum():
    return find_optimum(ENV, PARAMS, light_then_hold(6, (0.0, 2.0)), 150)


def test_the_optimum_tracks_and_no_bound_is_broken(optimum):
    # the references fall nearly as fast as the cells can be washed out, so it is not zero
    assert float(optimum.error) < 0.07
    assert np.all(np.abs(optimum.z) <= REACH)
    gap = np.abs(optimum.tracked - REFERENCE) / REFERENCE
    assert np.isclose(gap[1:].mean(), optimum.error)
    assert float(optimum.error) == float(jnp.min(optimum.all_errors))


def test_receding_horizon_and_feedback(optimum):
    keys = jax.random.split(KEY, 3)
    spread = consortium_params(
        REFERENCE, start="trajectory", uncertainty=Uncertainty(initial=0.07, synthesis=0.07)
    )
    mpc = make_mpc(ENV, optimum.z, n_iterations=15)
    closed = closed_loops(ENV, spread, mpc, keys)

    @jax.jit
    @jax.vmap
    def planned(k):
        begun = ENV.reset(jax.random.split(k, 3)[0], spread)
        shares = spread.bounds.share(optimum.z)
        return run_inputs(ENV, spread, begun.plant, begun.x, shares)

    gap = jnp.abs(planned(keys) - REFERENCE[None, 1:]) / REFERENCE[None, 1:]
    assert float(jnp.mean(score(spread, closed).error)) < float(jnp.mean(gap))


def test_tuning_a_pid_beats_an_untuned_one():
    pid, reached = tune_pid(ENV, PARAMS, key=KEY, n_starts=3, n_episodes=1, n_iterations=30)
    keys = KEY[None]
    tuned = score(PARAMS, closed_loops(ENV, PARAMS, pid, keys))
    plain = PID(*(jnp.full(2, v) for v in (-4.0, 1.0, 0.1, 0.0)))
    assert float(tuned.error[0]) < float(
        score(PARAMS, closed_loops(ENV, PARAMS, plain, keys)).error[0]
    )
    assert abs(float(tuned.error[0]) - float(reached)) < 2e-3  # the rounded tip of the loss


def test_scores_by_hand():
    empty = jnp.zeros(())
    episodes = Episode(empty, empty, empty, empty, empty)
    tracked = jnp.asarray(REFERENCE)[None] * jnp.array([1.0, 1.2, 1, 1, 1, 1, 0.9])[None, :, None]
    inputs = jnp.tile(jnp.array([0.0, 5.0])[None, :, None], (1, 3, 2))
    out = score(PARAMS, episodes._replace(tracked=tracked, inputs=inputs))
    np.testing.assert_allclose(out.error, [0.3 / 6])
    np.testing.assert_allclose(out.last, [0.05])
    np.testing.assert_allclose(out.effort, [0.5 * (5.0 / 2.995 + 5.0 / 2.85)])
    np.testing.assert_allclose(out.violations, [1 / 6])


def test_nothing_grows_faster_than_ideal_growth():
    bound = ideal_growth(PARAMS.plant, PARAMS, np.full((7, 2), 100.0))
    full = run_closed_loop(ENV, PARAMS, PID(jnp.full(2, 9.0), *[jnp.zeros(2)] * 3), key=KEY)
    assert np.all(full.tracked <= bound + 1e-9)
    assert np.all(ideal_growth(PARAMS.plant, PARAMS, REFERENCE) <= REFERENCE)


# ---------------------------------------------------------------- CHO perfusion


def test_perfusion_follows_the_same_interface():
    env = PerfusionEnv(n_steps=3)
    reference = np.tile([14.0, 800.0, 95.0], (4, 1))
    policy = make_policy(env.n_observed, env.n_inputs, key=KEY)
    run = eqx.filter_jit(
        jax.vmap(lambda p, k: run_episode(env, p, policy, key=k), in_axes=(None, 0))
    )
    keys = jax.random.split(KEY, 2)
    same = run(perfusion_params(reference), keys)
    assert same.tracked.shape == (2, 4, 3) and np.all(np.isfinite(same.tracked))
    np.testing.assert_array_equal(same.states[0, 0], same.states[1, 0])
    low, high = perfusion_params(reference).bounds.low, perfusion_params(reference).bounds.high
    assert np.all(same.inputs >= low[None, None]) and np.all(same.inputs <= high[None, None])
    family = run(perfusion_params(reference, spread=1.0), keys)
    assert not np.allclose(family.tracked[0, -1], family.tracked[1, -1], rtol=1e-3)
    with pytest.raises(ConfigError, match="spread between clones"):
        perfusion_params(reference, spread=-1.0)
    with pytest.raises(ConfigError, match="shape"):
        perfusion_params(reference[:, :2])
    with pytest.raises(ConfigError, match="finite and positive"):
        perfusion_params(np.full((4, 3), np.nan))


# ---------------------------------------------------------------- Gymnasium


def test_gymnasium_accepts_it():
    import gymnasium
    from gymnasium.utils import env_checker as checker

    from perfusio_jax.rl.gym import GymTracking

    problem = Problem(ENV, PARAMS, saturation(9.0))
    assert issubclass(GymTracking, gymnasium.Env)
    checked = GymTracking(problem)
    checker.check_env(checked, skip_render_check=True)
    env = GymTracking(problem)
    with pytest.raises(ConfigError, match="reset"):
        env.step(np.zeros(2))
    env.reset(seed=3)
    tracked, rewards = [np.asarray(PARAMS.reference[0])], []
    for k in range(6):
        _, reward, is_over, is_cut, info = env.step(np.array([-0.9, -0.8]))
        tracked.append(info["tracked"])
        rewards.append(reward)
        assert is_over == (k == 5) and not is_cut
    total = problem.returns(jnp.asarray(np.stack(tracked)), PARAMS.reference)
    assert np.isclose(sum(rewards), float(total))
    with pytest.raises(ConfigError, match="reset"):
        env.step(np.zeros(2))
    env.reset(seed=3)
    with pytest.raises(ConfigError, match="finite numbers"):
        env.step(np.array([np.nan, 0.0]))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_as_the_original_does(copied):
    from perfusio_jax.rl.gym import GymTracking

    env = GymTracking(Problem(ENV, PARAMS, saturation(9.0)))
    env.reset(seed=5)
    env.step(np.array([0.1, -0.2]))
    other = copied(env)
    for _ in range(2):
        (seen, reward, *_), (same, likewise, *_) = (
            e.step(np.array([-0.5, 0.3])) for e in (env, other)
        )
        np.testing.assert_array_equal(seen, same)
        assert reward == likewise
    np.testing.assert_array_equal(other.reset(seed=2)[0], env.reset(seed=2)[0])


def test_a_fork_is_refused_instead_of_waiting_for_ever(monkeypatch):
    from perfusio_jax.rl import gym

    env = gym.GymTracking(Problem(ENV, PARAMS, saturation(9.0)))
    env.reset(seed=0)
    monkeypatch.setattr(gym, "_HOME", -1)
    for call in (
        lambda: env.step(np.zeros(2)),
        lambda: env.reset(seed=0),
        lambda: gym.GymTracking(Problem(ENV, PARAMS, saturation(9.0))),
    ):
        with pytest.raises(ConfigError, match="context='spawn'"):
            call()


def test_without_gymnasium_making_one_says_how_to_get_it(monkeypatch):
    from perfusio_jax.rl import gym

    monkeypatch.setattr(gym, "gymnasium", None)
    with pytest.raises(ConfigError, match=r"perfusio-jax\[gym\]"):
        gym.GymTracking(Problem(ENV, PARAMS, saturation(9.0)))


def test_searches_of_nothing_are_refused():
    starts = light_then_hold(6, (0.0,))
    for n in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="n_iterations is"):
            find_optimum(ENV, PARAMS, starts, n)
        with pytest.raises(ConfigError, match="n_scenarios is"):
            make_mpc(ENV, starts[0], n_scenarios=n)
    for name in ("n_starts", "n_episodes", "n_iterations"):
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            tune_pid(ENV, PARAMS, key=KEY, **{name: 0})
    with pytest.raises(ConfigError, match="must be finite"):
        make_mpc(ENV, starts[0] * jnp.nan)
    broken = eqx.tree_at(lambda p: p.plant.feed, PARAMS, jnp.asarray(jnp.nan))
    for search in (
        lambda: find_optimum(ENV, broken, starts, 3),
        lambda: tune_pid(ENV, broken, key=KEY, n_iterations=3),
    ):
        with pytest.raises(ConfigError, match=r"plant\.feed is nan"):
            search()
