"""Training: it learns, it is reproducible, it stops, it resumes, it survives bad numbers."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError, PrecisionError, Result
from perfusio_jax.rl import (
    Consortium,
    ConsortiumEnv,
    PerfusionEnv,
    Problem,
    TrainSettings,
    Uncertainty,
    best_epoch_again,
    build,
    consortium_params,
    evaluate,
    load_training,
    make_policy,
    perfusion_params,
    quadratic,
    saturation,
    save_training,
    scenarios_of,
    train,
)
from perfusio_jax.rl.baselines import find_optimum, light_then_hold, make_mpc
from perfusio_jax.rl.gradients import advantages, clipped_gradient, pathwise_gradient, to_come
from perfusio_jax.rl.plants import check_reference
from perfusio_jax.rl.policy import log_probability
from perfusio_jax.rl.reinforce import RUNNING, begin, continue_training, draw_epoch
from perfusio_jax.rl.scenarios import SCENARIOS, trajectory_reference
from perfusio_jax.rl.settings import share_left

SMALL = TrainSettings(n_episodes=24, n_epochs=12, patience=5, learning_rate=0.03)
KEY = jax.random.key(4)
GRID = (0.02, 0.08, 0.2, 0.35, 0.35)


def small(returns=None, **changes):
    reference = trajectory_reference(1.0, 5)
    params = consortium_params(reference, start="trajectory", **changes)
    chosen = saturation(9.0) if returns is None else returns
    return Problem(ConsortiumEnv(n_steps=5, grid=GRID), params, chosen)


@pytest.fixture(scope="module")
def run():
    return eqx.filter_jit(lambda problem, key: train(problem, SMALL, key=key))


@pytest.fixture(scope="module")
def chunk():
    return eqx.filter_jit(
        lambda problem, state, until: continue_training(problem, SMALL, state, until)
    )


@pytest.fixture(scope="module")
def trained(run):
    return run(small(), KEY)


def same(a, b):
    for x, y in zip(
        jax.tree.leaves(eqx.filter(a, eqx.is_array)),
        jax.tree.leaves(eqx.filter(b, eqx.is_array)),
        strict=True,
    ):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_it_learns_and_keeps_the_best(trained):
    curve = np.asarray(trained.history.mean_return)
    ran = int(trained.epoch)
    assert np.all(np.isfinite(curve[:ran])) and np.all(np.isnan(curve[ran:]))
    assert float(trained.best_return) == np.nanmax(curve) == curve[int(trained.best_epoch)]
    assert curve[int(trained.best_epoch)] > curve[0]
    assert int(trained.status) == Result.SUCCESS


def test_rate_and_floor_fall_together(trained):
    left = [float(share_left(SMALL, jnp.asarray(k))) for k in (0, 6, 12)]
    np.testing.assert_allclose(left, [1.0, 0.1**0.5, 0.1])
    ran = int(trained.epoch)
    np.testing.assert_allclose(trained.policy.floor, 0.1 * 0.1 ** (ran / 12))
    np.testing.assert_allclose(trained.best.floor, 0.1 * 0.1 ** (int(trained.best_epoch) / 12))


@pytest.mark.parametrize("is_mirrored", [True, False])
def test_mirrored_episodes_share_a_plant_and_have_opposite_draws(is_mirrored):
    problem = small(uncertainty=Uncertainty(initial=0.07, synthesis=0.07))
    policy = begin(problem, SMALL, key=KEY).policy
    episodes, _ = draw_epoch(problem, policy, n=5, key=KEY, is_mirrored=is_mirrored)
    mean, spread = policy(episodes.observed)
    unit = np.asarray((episodes.z - mean) / spread)
    start = np.asarray(episodes.states[:, 0])
    for first in (0, 2):
        assert np.allclose(unit[first], -unit[first + 1]) == is_mirrored
        assert np.array_equal(start[first], start[first + 1]) == is_mirrored
    assert len({tuple(s) for s in start[::2]}) == 3


def test_episodes_can_share_plants_and_a_training_on_them_learns():
    problem = small(uncertainty=Uncertainty(initial=0.07, synthesis=0.07))
    settings = dataclasses.replace(SMALL, n_per_plant=4)
    policy = begin(problem, settings, key=KEY).policy
    episodes, _ = draw_epoch(problem, policy, n=8, key=KEY, is_mirrored=True, n_per_plant=4)
    start = np.asarray(episodes.states[:, 0])
    assert np.all(start[:4] == start[0]) and np.all(start[4:] == start[4])
    assert not np.any(start[0] == start[4])
    assert len(np.unique(np.asarray(episodes.z[:, 0, 0]))) == 8
    after = eqx.filter_jit(train)(problem, settings, key=KEY)
    assert float(after.best_return) > float(after.history.mean_return[0])
    again = best_epoch_again(problem, settings, after)
    np.testing.assert_allclose(jnp.mean(again.returns), after.best_return, rtol=1e-12)


@pytest.mark.parametrize(
    "changes", [{"n_per_plant": 2}, {"n_per_plant": 5}, {"n_per_plant": 4, "method": "ppo"}]
)
def test_plants_that_cannot_be_shared_are_refused(changes):
    with pytest.raises(ConfigError, match="plant"):
        dataclasses.replace(SMALL, **changes)


def test_derivative_through_the_plant_is_that_of_the_mean_return():
    problem = small(uncertainty=Uncertainty(initial=0.07, synthesis=0.07))
    policy = begin(problem, SMALL, key=KEY).policy

    @eqx.filter_jit
    def draw(p):
        return draw_epoch(problem, p, n=4, key=KEY, is_mirrored=True)

    gradient, (_, worth) = pathwise_gradient(draw, policy)
    np.testing.assert_allclose(worth, draw(policy)[1], rtol=1e-12)
    assert float(gradient.floor) == 0.0
    places = (lambda p: p.mean_head.bias, lambda p: p.hidden[0].bias, lambda p: p.spread_head.bias)
    for place in places:
        slope = np.asarray(place(gradient))
        k = int(np.argmax(np.abs(slope)))
        moved = [eqx.tree_at(place, policy, place(policy).at[k].add(h)) for h in (1e-5, -1e-5)]
        up, down = (float(jnp.mean(draw(p)[1])) for p in moved)
        np.testing.assert_allclose(slope[k], (up - down) / 2e-5, rtol=1e-6)


def test_clipped_surrogate_begins_as_the_score_gradient_and_ends_where_it_is_clipped():
    problem = small()
    policy = begin(problem, SMALL, key=KEY).policy
    episodes, _ = draw_epoch(problem, policy, n=8, key=KEY)
    weights = to_come(problem.returns, problem.params.reference, episodes.tracked)
    rewards = np.stack(
        [problem.returns.rewards(x, problem.params.reference) for x in episodes.tracked]
    )
    rest = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    centred = rest - rest.mean(axis=0)
    np.testing.assert_allclose(weights, centred / centred.std(), rtol=1e-9)
    before = log_probability(policy, episodes.observed, episodes.z)

    def plain(p):
        ratio = log_probability(p, episodes.observed, episodes.z)
        return jnp.mean(jnp.sum(weights * ratio, axis=1))

    begun = clipped_gradient(policy, episodes, before, weights, SMALL.clip)
    wanted = jax.grad(plain)(policy)
    np.testing.assert_allclose(begun.mean_head.weight, wanted.mean_head.weight, rtol=1e-9)
    # every draw twice as probable as before, and worth more than the mean: nothing more to gain
    over = clipped_gradient(policy, episodes, before - np.log(2.0), jnp.abs(weights), SMALL.clip)
    assert all(np.all(np.asarray(leaf) == 0.0) for leaf in jax.tree.leaves(over))


@pytest.mark.parametrize("method", ["ppo", "pathwise"])
def test_the_other_methods_learn(method):
    settings = dataclasses.replace(SMALL, method=method, n_passes=3)
    after = eqx.filter_jit(train)(small(), settings, key=KEY)
    curve = np.asarray(after.history.mean_return)[: int(after.epoch)]
    assert int(after.status) == Result.SUCCESS and np.all(np.isfinite(curve))
    assert float(after.best_return) > curve[0] + 0.1 * abs(curve[0])


def test_the_best_epoch_can_be_seen_again(trained):
    again = best_epoch_again(small(), SMALL, trained)
    assert np.isclose(jnp.mean(again.returns), trained.best_return, rtol=1e-12)
    k = int(trained.best_epoch)
    assert np.isclose(jnp.mean(again.error), trained.history.error[k], rtol=1e-12)
    gap = (
        np.abs(again.episodes.tracked - small().params.reference[None])
        / small().params.reference[None]
    )
    assert np.allclose(again.error, gap[:, 1:].mean(axis=(1, 2)))
    assert np.allclose(again.error_from_start, gap.mean(axis=(1, 2)))


def test_same_key_same_bytes_in_one_go_or_in_chunks(run, chunk, trained):
    same(run(small(), KEY), trained)
    state = begin(small(), SMALL, key=KEY)
    for until in (3, 4, 12):
        state = chunk(small(), state, jnp.asarray(until))
    same(state, trained)
    other = run(small(), jax.random.key(5))
    assert float(other.best_return) != float(trained.best_return)


def test_resumed_from_disk_it_ends_the_same(chunk, trained, tmp_path):
    problem = small()
    half = chunk(problem, begin(problem, SMALL, key=KEY), jnp.asarray(6))
    assert int(half.status) == RUNNING
    save_training(tmp_path / "run", problem, SMALL, half)
    back = load_training(tmp_path / "run", problem, SMALL)
    same(back, half)
    same(chunk(problem, back, jnp.asarray(12)), trained)


# a process has as many devices as it starts with
ON_TWO_DEVICES = """
import os, sys
os.environ["NPROC"] = "4"  # with threads to spare, see docs/reinforcement_learning.md
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
import dataclasses
import equinox as eqx
from test_reinforce import KEY, SMALL, small
from perfusio_jax.rl import save_training, train
settings = dataclasses.replace(SMALL, n_devices=2)
run = eqx.filter_jit(lambda problem, key: train(problem, settings, key=key))
assert "all-reduce" in run.lower(small(), KEY).compile().compiled.as_text()
save_training(sys.argv[2], small(), settings, run(small(), KEY))
"""


def test_episodes_shared_by_two_devices_teach_the_same(trained, tmp_path):
    here, out = str(Path(__file__).parent), str(tmp_path / "run")
    subprocess.run([sys.executable, "-c", ON_TWO_DEVICES, here, out], check=True, timeout=300)
    both = load_training(out, small(), SMALL)
    np.testing.assert_allclose(
        both.history.mean_return, trained.history.mean_return, rtol=1e-9, equal_nan=True
    )
    assert int(both.best_epoch) == int(trained.best_epoch)


def test_more_devices_than_there_are_are_refused():
    many = dataclasses.replace(SMALL, n_devices=3)
    if jax.device_count() >= 3:
        pytest.skip("there are three devices")
    with pytest.raises(ConfigError, match="3 devices are wanted and there"):
        train(small(), many, key=KEY)
    with pytest.raises(ConfigError, match="24 episodes cannot be shared by 5"):
        dataclasses.replace(SMALL, n_devices=5)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("moves", [0, 1])
def test_a_save_cut_at_any_move_leaves_the_old_or_the_new_training(
    is_first, moves, trained, tmp_path, monkeypatch
):
    problem, begun = small(), begin(small(), SMALL, key=KEY)
    if not is_first:
        save_training(tmp_path, problem, SMALL, begun)
    left = [os.replace] * moves

    def replace(*paths):
        if not left:
            raise KeyboardInterrupt
        left.pop()(*paths)

    with monkeypatch.context() as patched:
        patched.setattr("perfusio_jax._core.checkpoint.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            save_training(tmp_path, problem, SMALL, trained)
    if is_first and not moves:
        with pytest.raises(DataError, match="not complete"):
            load_training(tmp_path, problem, SMALL)
        return
    same(load_training(tmp_path, problem, SMALL), trained if moves else begun)
    save_training(tmp_path, problem, SMALL, trained)
    same(load_training(tmp_path, problem, SMALL), trained)


def test_a_checkpoint_of_another_network_or_training_is_refused(tmp_path):
    problem = small()
    save_training(tmp_path, problem, SMALL, begin(problem, SMALL, key=KEY))
    wider = TrainSettings(n_episodes=24, n_epochs=12, patience=5, width=30)
    with pytest.raises(DataError, match="width 20 instead of 30"):
        load_training(tmp_path, problem, wider)
    faster = TrainSettings(n_episodes=24, n_epochs=12, patience=5, learning_rate=0.04)
    with pytest.raises(DataError, match=r"learning_rate 0.03 instead of 0.04"):
        load_training(tmp_path, problem, faster)
    other = eqx.tree_at(lambda p: p.params.reference, problem, problem.params.reference + 0.1)
    with pytest.raises(DataError, match="problem .* instead of"):
        load_training(tmp_path, other, SMALL)
    (tmp_path / "header.json").unlink()
    with pytest.raises(DataError, match="not a checkpoint"):
        load_training(tmp_path, problem, SMALL)


def test_single_precision_is_single_throughout_and_resumes_as_itself(tmp_path):
    settings, problem = dataclasses.replace(SMALL, is_single=True), small()
    go = eqx.filter_jit(lambda state, until: continue_training(problem, settings, state, until))
    half = go(begin(problem, settings, key=KEY), jnp.asarray(2))
    save_training(tmp_path / "run", problem, settings, half)
    with pytest.raises(DataError, match="is_single True instead of False"):
        load_training(tmp_path / "run", problem, dataclasses.replace(settings, is_single=False))
    done = go(load_training(tmp_path / "run", problem, settings), jnp.asarray(4))
    same(done, go(half, jnp.asarray(4)))
    for part in (done.policy, done.best, done.moments[:2]):
        floats = [v for v in jax.tree.leaves(part) if eqx.is_inexact_array(v)]
        assert floats and all(v.dtype == jnp.float32 for v in floats)
    again = best_epoch_again(problem, settings, done)
    assert again.returns.dtype == jnp.float32
    np.testing.assert_allclose(jnp.mean(again.returns), done.best_return, rtol=1e-6)


@pytest.mark.parametrize("method", ["ppo", "pathwise"])
def test_other_updates_and_plants_are_single_throughout(method):
    reference = np.tile([12.0, 600.0, 98.0], (15, 1))
    params = perfusion_params(reference, spread=1.0)
    problem = Problem(PerfusionEnv(), params, saturation((9.0, 1e4, 9.0)))
    settings = TrainSettings(n_episodes=4, n_epochs=2, is_single=True, method=method)
    done = eqx.filter_eval_shape(lambda: train(problem, settings, key=KEY))
    assert {v.dtype for v in jax.tree.leaves((done.policy, done.best))} == {np.dtype("float32")}


def test_lanes_over_seeds_and_returns_equal_single_runs(run, trained):
    keys = jnp.stack([KEY, jax.random.key(5)])
    both = [saturation(9.0), quadratic()]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *both)

    base = small()

    def lane(returns, key):
        return train(Problem(base.env, base.params, returns), SMALL, key=key)

    grid = eqx.filter_jit(jax.vmap(jax.vmap(lane, in_axes=(None, 0)), in_axes=(0, None)))(
        stacked, keys
    )
    assert grid.best_return.shape == (2, 2)
    np.testing.assert_allclose(
        grid.history.mean_return[0, 0], trained.history.mean_return, rtol=1e-6
    )
    one = run(small(both[1]), keys[1])
    np.testing.assert_allclose(grid.best_return[1, 1], one.best_return, rtol=1e-6)


def test_a_nan_stops_the_training_and_keeps_the_last_good_policy(run, chunk):
    good = chunk(small(), begin(small(), SMALL, key=KEY), jnp.asarray(3))
    broken = eqx.tree_at(
        lambda p: p.params.initial, small(), small().params.initial.at[1].set(jnp.nan)
    )
    after = chunk(broken, good, jnp.asarray(12))
    assert int(after.status) == Result.NONFINITE and int(after.epoch) == 4
    same(after.policy, good.policy)
    same(after.best, good.best)


def test_patience_ends_a_training_that_gains_nothing(run):
    # a weightless spread of rewards: every episode is worth the same, nothing improves
    flat = eqx.tree_at(
        lambda r: (r.stage_weight, r.terminal_weight),
        saturation(9.0),
        (jnp.zeros(()), jnp.zeros(())),
    )
    over = run(small(flat), KEY)
    assert int(over.epoch) == SMALL.patience + 1 and int(over.best_epoch) == 0


def test_the_publication_s_cases_can_be_built():
    assert [s.case for s in SCENARIOS] == [1, 1, 1, 1, 2, 2, 3, 4]
    for scenario in SCENARIOS:
        env, params = build(scenario)
        assert env.n_observed == 15 and params.reference.shape == (19, 2)
        assert float(params.uncertainty.initial) == scenario.uncertainty
    with pytest.raises(ConfigError, match="case 5"):
        scenarios_of(5)
    with pytest.raises(ConfigError, match="uncertainty"):
        build(SCENARIOS[0], uncertainty=0.5)


def test_references_out_of_reach_are_refused_with_the_reachable_set():
    def given(pair, **changes):
        return consortium_params(np.tile(np.asarray(pair, float), (6, 1)), **changes)

    with pytest.raises(ConfigError, match=r"Reachable: 10\.18 b1"):
        given((10.0, 12.0))
    with pytest.raises(ConfigError, match="Widen the bounds"):
        given((3.0, 3.0), max_light=(0.01, 0.2))
    with pytest.raises(ConfigError, match="finite and positive"):
        given((float("nan"), 3.0))
    with pytest.raises(ConfigError, match="lower one below"):
        given((3.0, 3.0), max_light=0.0)
    with pytest.raises(ConfigError, match="step of 0"):
        given((3.0, 3.0), step_h=0.0)
    with pytest.raises(ConfigError, match="start 'middle'"):
        given((3.0, 3.0), start="middle")
    params = given((3.0, 3.0))
    with pytest.raises(ConfigError, match="shape"):
        check_reference(np.ones(4), params.plant, params.bounds)


def test_what_does_not_fit_together_is_refused():
    good = small()
    for steps in (1, 4, 17):
        with pytest.raises(ConfigError, match=rf"shape \(6, 2\); {steps} steps"):
            Problem(ConsortiumEnv(n_steps=steps), good.params, saturation(9.0))
    with pytest.raises(ConfigError, match="an episode of 0 steps"):
        ConsortiumEnv(n_steps=0)
    with pytest.raises(ConfigError, match=r"return is of \(3,\) quantities; 2 are tracked"):
        Problem(good.env, good.params, saturation([1.0, 2.0, 3.0]))
    for n_observed, n_inputs, message in ((15, 1, "gives 1 inputs"), (7, 2, "takes 7 observed")):
        policy = make_policy(n_observed, n_inputs, key=KEY)
        with pytest.raises(ConfigError, match=message):
            evaluate(good, policy, n=2, key=KEY)
    with pytest.raises(ConfigError, match="references .6, 2."):
        saturation(9.0)(jnp.ones((19, 2)), good.params.reference)
    for shape in ((1, 1, 2), (1, 5, 1), (5, 2), (0, 5, 2)):
        with pytest.raises(ConfigError, match="starts have shape"):
            find_optimum(good.env, good.params, jnp.zeros(shape))
    with pytest.raises(ConfigError, match="finite"):
        find_optimum(good.env, good.params, jnp.full((1, 5, 2), jnp.nan))
    with pytest.raises(ConfigError, match="no hours"):
        light_then_hold(5, ())
    with pytest.raises(ConfigError, match=r"first inputs of shape \(3, 2\)"):
        make_mpc(good.env, jnp.zeros((3, 2)))


@pytest.mark.parametrize(
    "changes",
    [
        *({"floor": v} for v in (-1.0, 0.0, float("nan"))),
        *({"learning_rate": v} for v in (-1.0, float("nan"), [0.1, 0.1])),
        *({"decay": v} for v in (-1.0, 0.0, 5.0)),
        *({"clip": v} for v in (-1.0, 2.0)),
        *({"n_epochs": v} for v in (0, 3.5)),
        *({"width": v} for v in (0, 2.5)),
        {"depth": 0},
        {"n_episodes": 2.5},
    ],
)
def test_numbers_that_cannot_train_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TrainSettings(**changes)


def test_deviations_and_constants_are_checked_where_they_are_made():
    for level in (-0.1, 0.34, float("nan")):
        for name in ("initial", "synthesis", "disturbance"):
            with pytest.raises(ConfigError, match=f"{name}.* not possible"):
                Uncertainty(**{name: level})
    with pytest.raises(ConfigError, match=r"dilution has shape \(2,\)"):
        Consortium(dilution=[0.1, 0.2])
    with pytest.raises(ConfigError, match=r"synthesis has shape \(3, 2\)"):
        Consortium(synthesis=np.ones((3, 2)))
    for bad in ([], np.ones((2, 2))):
        with pytest.raises(ConfigError, match="K has shape"):
            saturation(bad)


def test_a_checkpoint_of_another_environment_or_state_is_refused(trained, tmp_path):
    problem = small()
    save_training(tmp_path / "run", problem, SMALL, trained)
    coarse = Problem(ConsortiumEnv(n_steps=5, grid=(0.5, 0.5)), problem.params, problem.returns)
    with pytest.raises(DataError, match="environment's grid"):
        load_training(tmp_path / "run", coarse, SMALL)
    with pytest.raises(DataError, match="another architecture"):
        save_training(tmp_path / "no", problem, dataclasses.replace(SMALL, width=8), trained)
    assert not (tmp_path / "no").exists()


def test_plants_that_cannot_be_are_refused():
    for grid in ((), (0.5, 0.6), (1.5, -0.5)):
        with pytest.raises(ConfigError, match="parts of a step"):
            ConsortiumEnv(grid=grid)
    with pytest.raises(ConfigError, match="volume of 0"):
        PerfusionEnv(volume_L=0.0)
    reference = trajectory_reference(1.0, 5)
    for step in (0.0, -1.0, 50.0, np.nan):
        with pytest.raises(ConfigError, match="above 0 to 5 h"):
            consortium_params(reference, step_h=step)
    level = consortium_params(reference, uncertainty=0.07).uncertainty
    assert level.initial == level.synthesis == 0.07
    target = np.tile([12.0, 600.0, 98.0], (6, 1))
    for changes in ({"step_h": 0.0}, {"step_h": 72.0}, {"spread": 1e6}):
        with pytest.raises(ConfigError, match="spread|step"):
            perfusion_params(target, **changes)
    with pytest.raises(ConfigError, match="viability of 500 %"):
        perfusion_params(target * np.array([1.0, 1.0, 500 / 98]))
    with pytest.raises(ConfigError, match="shape"):
        perfusion_params(target[:1])


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (lambda p: p.params.initial, jnp.full(5, jnp.nan), r"params\.initial is"),
        (lambda p: p.params.initial, jnp.ones(4), "initial state has shape"),
        (lambda p: p.params.reference, jnp.zeros((6, 2)), "positive"),
        (lambda p: p.params.bounds.low, jnp.full(2, 9.0), "lower one below"),
        (lambda p: p.returns.half_saturation, -jnp.ones(2), "K is"),
    ],
)
def test_a_problem_of_impossible_numbers_is_refused(where, value, message):
    broken = eqx.tree_at(where, small(), value)
    with pytest.raises(ConfigError, match=message):
        Problem(broken.env, broken.params, broken.returns)


def test_equal_returns_weigh_nothing():
    for dtype in (jnp.float32, jnp.float64):
        assert np.abs(advantages(jnp.full(100, 17.3, dtype), "normalised")).max() < 0.01
    weights = advantages(jnp.arange(100.0), "normalised")
    np.testing.assert_allclose(np.std(weights), 1.0, rtol=1e-9)


def test_double_precision_that_is_switched_off_is_refused():
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="is_single=True"):
        begin(small(), SMALL, key=KEY)


def test_precisions_are_not_mixed(tmp_path):
    problem = small()
    single = dataclasses.replace(SMALL, is_single=True)
    state = begin(problem, SMALL, key=KEY)
    with pytest.raises(ConfigError, match=r"begun in float64 .* are in float32"):
        continue_training(problem, single, state, 1)
    with pytest.raises(DataError, match="another precision"):
        save_training(tmp_path / "mixed", problem, single, state)
    save_training(tmp_path / "run", problem, single, begin(problem, single, key=KEY))
    with jax.enable_x64(False), pytest.raises(DataError, match="64-bit mode on; switch it"):
        plain = TrainSettings(
            n_episodes=24, n_epochs=12, patience=5, learning_rate=0.03, is_single=True
        )
        load_training(tmp_path / "run", small(), plain)
    with pytest.raises(ConfigError, match="zero in single precision"):
        begin(dataclasses.replace(problem, returns=saturation(1e-300)), single, key=KEY)


@pytest.mark.parametrize("name", ["plant.synthesis", "plant.feed", "uncertainty.initial"])
def test_constants_that_are_not_finite_are_named(name):
    first, second = name.split(".")
    good = small()
    params = eqx.tree_at(
        lambda p: getattr(getattr(p, first), second), good.params, replace_fn=lambda v: v * jnp.nan
    )
    with pytest.raises(ConfigError, match=rf"params\.{name} is .*nan"):
        Problem(good.env, params, good.returns)


def test_washing_out_is_called_so():
    with pytest.raises(ConfigError, match=r"dilution 2 1/h washes out .* 0\.982"):
        consortium_params(trajectory_reference(1.0, 4), plant=Consortium(dilution=2.0))


def test_settings_are_checked():
    for advantage, n in (("normalised", 5), ("leave_one_out", 5), ("leave_one_out", 2)):
        with pytest.raises(ConfigError, match=rf"{n} episodes per epoch; they come in pairs"):
            TrainSettings(n_episodes=n, advantage=advantage)
    TrainSettings(n_episodes=5, is_mirrored=False)
    with pytest.raises(ConfigError, match="advantage 'best'"):
        TrainSettings(advantage="best")
    with pytest.raises(ConfigError, match="at least 2"):
        TrainSettings(n_episodes=1)
