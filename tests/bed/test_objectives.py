"""Objective values from trajectories and from roll-outs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, ConfigError
from perfusio_jax.bed import MultiObjectiveOFV, TargetSpec, TargetTrackingOFV

TITER = FORECAST_SPECIES.index("Titer")


@pytest.fixture(scope="module")
def Y():
    return jnp.asarray(np.random.default_rng(0).random((5, 3, 12)) * 10)


def test_reported_score_is_the_plain_weighted_sum_of_squares(Y):
    ofv = TargetTrackingOFV([TargetSpec(0, 4.0, 2.0), TargetSpec(TITER, 7.0)])
    expected = -(
        2 * ((np.asarray(Y)[..., 0] - 4) ** 2).sum(1)
        + ((np.asarray(Y)[..., TITER] - 7) ** 2).sum(1)
    )
    np.testing.assert_allclose(ofv.score_trajectories(Y), expected, rtol=1e-12)
    np.testing.assert_allclose(ofv.score_trajectories(Y[0]), expected[0], rtol=1e-12)


def test_scaled_score_makes_weights_comparable():
    # both targets missed by 10 % on every one of three days
    Y = jnp.zeros((3, 12)).at[:, 1].set(0.9 * 14).at[:, TITER].set(1.1 * 1000)
    ofv = TargetTrackingOFV([TargetSpec(1, 14.0), TargetSpec(TITER, 1000.0)])
    np.testing.assert_allclose(ofv.scaled_score(Y), -2 * 3 * 0.01)
    own = TargetTrackingOFV([TargetSpec(1, 0.0, scale=2.0), TargetSpec(0, 0.0)])
    np.testing.assert_allclose(own.scaled_score(Y), -3 * (0.9 * 14 / 2.0) ** 2)


def test_targets_may_change_from_day_to_day():
    Y = jnp.zeros((3, 12)).at[:, 1].set(jnp.asarray([1.0, 2.0, 3.0]))
    ofv = TargetTrackingOFV([TargetSpec(1, [1.0, 2.0, 5.0])])
    np.testing.assert_allclose(ofv.score_trajectories(Y), -4.0)


def test_a_new_target_does_not_trace_again(Y, traces):
    score = jax.jit(traces(lambda ofv, Y: ofv.score_trajectories(Y)))
    for target in (1.0, 2.0, 30):
        score(TargetTrackingOFV([TargetSpec(1, target)]), Y)
    assert traces.count == 1


def test_objectives_of_several_directions(Y):
    ofv = MultiObjectiveOFV(None, [(TITER, 100.0, 1), (8, 2.0, -1)])
    mean = np.asarray(Y).mean(1)
    expected = np.stack([mean[:, TITER] - 100.0, 2.0 - mean[:, 8]], axis=1)
    np.testing.assert_allclose(ofv.score_trajectories(Y), expected, rtol=1e-12)
    assert ofv.n_objectives == 2


def test_evaluate_forecasts_with_paths_of_its_own_seed(linear):
    model = linear.make_model(sd=1e-9, process_sd=1e-9)
    functions = (linear.draw_paths, linear.rollout)
    make = lambda seed: TargetTrackingOFV(  # noqa: E731
        [TargetSpec(linear.vcv, 14.0)], model, 3, 16, seed=seed, rollout_functions=functions
    )
    u = jnp.asarray(0.5 * (linear.lower + linear.upper))
    y, total = linear.vcv_per_cell * 56.0, 0.0
    for _ in range(3):
        y = 0.4 * y + 0.6 * 13.0
        total += (y - 14.0) ** 2
    value = make(1).evaluate(linear.c0, u)
    np.testing.assert_allclose(value, total, rtol=1e-6)
    batch = make(1).evaluate_batch(linear.c0, jnp.stack([u, jnp.asarray(linear.upper)]))
    np.testing.assert_allclose(batch[0], value, rtol=1e-12)
    assert batch.shape == (2,) and float(batch[1]) > 0

    several = MultiObjectiveOFV(
        model, [(linear.vcv, 0.0, 1), (linear.via, 0.0, 1)], rollout_functions=functions
    )
    vector = several.evaluate(linear.c0, u)
    np.testing.assert_allclose(vector[1], 98.5 - 0.5 * 5.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TargetSpec(12, 1.0), "forecast species are VCD"),
        (lambda: TargetTrackingOFV([]), "no targets"),
        (lambda: TargetTrackingOFV([TargetSpec(0, 1.0)], None, 0), "at least 1"),
        (lambda: MultiObjectiveOFV(None, []), "no objectives"),
        (lambda: MultiObjectiveOFV(None, [(0, 1.0, 0.5)]), "direction"),
        (
            lambda: TargetTrackingOFV([TargetSpec(0, 1.0)]).evaluate(jnp.zeros(9), jnp.zeros(6)),
            "no hybrid model",
        ),
    ],
)
def test_unusable_objectives_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
