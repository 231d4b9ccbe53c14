"""Gradient estimators against gradients in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.rl import Bounds, GaussianPolicy, log_probability, make_policy
from perfusio_jax.rl.environment import Episode
from perfusio_jax.rl.gradients import advantages, among_alike, score_gradient
from perfusio_jax.rl.policy import Dense, check_bounds, fold


class Direct(eqx.Module):
    """A policy whose mean is gain times the observation, with a fixed spread."""

    gain: jax.Array
    floor: jax.Array

    def __call__(self, observed):
        return self.gain * observed, jnp.full_like(observed, 0.5) + 0.0 * self.floor


def estimate(policy, observed, z, returns, kind):
    empty = jnp.zeros(())
    episodes = Episode(observed, z, empty, empty, empty)
    return score_gradient(policy, episodes, advantages(returns, kind)).gain


def check(groups, truth, kind):
    """Mean of many independent estimates within four standard errors of the truth."""
    mean = np.mean(groups)
    error = np.std(groups) / np.sqrt(len(groups))
    if kind == "normalised":
        assert np.sign(mean) == np.sign(truth) and abs(mean) > 4 * error
        return
    assert abs(mean - truth) < 4 * error, (mean, truth, error)
    assert error < 0.1 * abs(truth)


@pytest.mark.parametrize("kind", ["plain", "leave_one_out", "normalised"])
def test_two_armed_bandit(kind):
    # z ~ N(g, 1/4); arm 1 (z > 0) is worth 3, arm 0 worth 1: J = 1 + 2 Phi(2 g), dJ/dg = 4 phi(2 g)
    gain = 0.3
    policy = Direct(jnp.asarray(gain), jnp.zeros(()))
    observed = jnp.ones((20, 1, 1))

    def one(key):
        z = gain + 0.5 * jax.random.normal(key, (20, 1, 1))
        worth = jnp.where(z[:, 0, 0] > 0.0, 3.0, 1.0)
        return estimate(policy, observed, z, worth, kind)

    groups = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 4000)))
    truth = 4.0 * np.exp(-0.5 * (2 * gain) ** 2) / np.sqrt(2 * np.pi)
    check(groups, truth, kind)


@pytest.mark.parametrize("kind", ["plain", "leave_one_out", "normalised"])
def test_linear_gaussian_system(kind):
    # x' = x + z, z ~ N(g x, 1/4), x_0 = 1, three steps, J = - sum x_k^2:
    # E x_k^2 = (1 + g)^2 E x_{k-1}^2 + 1/4, so dJ/dg is a finite sum
    gain, steps = -0.4, 3
    policy = Direct(jnp.asarray(gain), jnp.zeros(()))

    def one(key):
        noise = jax.random.normal(key, (20, steps))

        def episode(unit):
            def step(x, e):
                z = gain * x + 0.5 * e
                return x + z, (x, z, x + z)

            _, (x, z, after) = jax.lax.scan(step, jnp.ones(()), unit)
            return x[:, None], z[:, None], -jnp.sum(after**2)

        return estimate(policy, *jax.vmap(episode)(noise), kind)

    groups = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 4000)))

    def expected(g):
        total, second = 0.0, 1.0
        for _ in range(steps):
            second = (1.0 + g) ** 2 * second + 0.25
            total -= second
        return total

    check(groups, float(jax.grad(expected)(gain)), kind)


@pytest.mark.parametrize("is_mirrored", [True, False])
def test_episodes_on_one_plant_are_judged_against_each_other(is_mirrored):
    # the bandit again, on plants that add 0 or 50 to whatever the arm is worth
    gain = 0.3
    policy = Direct(jnp.asarray(gain), jnp.zeros(()))
    observed, empty = jnp.ones((20, 1, 1)), jnp.zeros(())
    sign = jnp.where(jnp.arange(20) % 2, -1.0, 1.0)[:, None, None] if is_mirrored else 1.0

    def one(key):
        draw, luck = jax.random.split(key)
        unit = jax.random.normal(draw, (20, 1, 1))
        if is_mirrored:
            unit = jnp.repeat(unit[::2], 2, axis=0) * sign
        z = gain + 0.5 * unit
        plant = 50.0 * jnp.repeat(jax.random.bernoulli(luck, 0.5, (5,)), 4)
        worth = plant + jnp.where(z[:, 0, 0] > 0.0, 3.0, 1.0)
        episodes = Episode(observed, z, empty, empty, empty)
        alike = among_alike(worth, 4, is_mirrored=is_mirrored)
        apart = advantages(worth, "leave_one_out")
        return tuple(score_gradient(policy, episodes, w).gain for w in (alike, apart))

    keys = jax.random.split(jax.random.key(3), 4000)
    alike, apart = (np.asarray(v) for v in jax.jit(jax.vmap(one))(keys))
    check(alike, 4.0 * np.exp(-0.5 * (2 * gain) ** 2) / np.sqrt(2 * np.pi), "leave_one_out")
    if not is_mirrored:  # a mirrored pair takes the plant's luck out of the mean by itself
        assert np.std(apart) > 10.0 * np.std(alike)


@pytest.mark.parametrize("kind", ["plain", "leave_one_out"])
def test_mirrored_draws_leave_mean_and_spread_unbiased(kind):
    # z = m + d e, J = 2 z + 0.8 z^2: dE/dm = 2 + 1.6 m, dE/d log d = 1.6 d^2
    m, d = 0.4, 0.5

    def one(key):
        unit = jax.random.normal(key, (3,))
        unit = jnp.stack([unit, -unit], axis=1).reshape(6)
        z = m + d * unit
        weights = advantages(2.0 * z + 0.8 * z * z, kind, is_mirrored=True)
        return jnp.mean(weights * unit / d), jnp.mean(weights * (unit * unit - 1.0))

    keys = jax.random.split(jax.random.key(8), 20_000)
    of_mean, of_spread = jax.jit(jax.vmap(one))(keys)
    check(np.asarray(of_mean), 2.0 + 1.6 * m, kind)
    check(np.asarray(of_spread), 1.6 * d * d, kind)


def test_among_alike_by_hand():
    worth = jnp.array([1.0, 2.0, 6.0, 8.0, 100.0, 101.0, 104.0, 104.0])
    np.testing.assert_allclose(
        among_alike(worth, 4, is_mirrored=True), [-6.0, -5.0, 4.5, 6.5, -4.0, -3.0, 3.5, 3.5]
    )
    np.testing.assert_allclose(
        among_alike(worth[:4], 4, is_mirrored=False),
        [1 - 16 / 3, 2 - 15 / 3, 6 - 11 / 3, 8 - 9 / 3],
    )


def test_advantages_by_hand():
    worth = jnp.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(advantages(worth, "centred"), [-2.0, -1.0, 3.0])
    # leave one out: own value less the mean of the two others
    np.testing.assert_allclose(advantages(worth, "leave_one_out"), [-3.0, -1.5, 4.5])
    np.testing.assert_allclose(
        advantages(worth, "normalised"), np.array([-2.0, -1.0, 3.0]) / np.sqrt(14 / 3)
    )
    assert np.all(advantages(jnp.ones(4), "normalised") == 0.0)


def test_log_probability_is_a_density_of_the_draws():
    policy = make_policy(3, 2, key=jax.random.key(0))
    seen = jnp.array([0.2, -0.4, 0.9])
    axis = jnp.linspace(-8.0, 8.0, 401)
    z = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)
    density = jnp.exp(log_probability(policy, jnp.broadcast_to(seen, (401, 401, 3)), z))
    total = np.trapezoid(np.trapezoid(np.asarray(density), axis), axis)
    assert abs(total - 1.0) < 1e-9


def test_draws_fold_into_the_bounds_and_come_back():
    z = jnp.linspace(-20.0, 20.0, 2001)
    share = fold(z)
    assert float(share.min()) >= 0.0 and float(share.max()) <= 1.0
    slope = jax.vmap(jax.grad(fold))(z)
    assert np.isclose(jax.grad(fold)(0.0), jax.grad(jax.nn.sigmoid)(0.0))
    # a logistic curve is flat beyond |z| = 10 (slope 5e-5); the fold is steep again at 2 pi
    assert np.isclose(abs(jax.grad(fold)(2.0 * np.pi)), 0.25) and np.mean(np.abs(slope)) > 0.15


@pytest.mark.parametrize("bounds", [Bounds([0.0], [10.0]), Bounds([0.01], [10.0], True)])
def test_every_input_inside_the_bounds_has_a_point_of_the_line(bounds):
    share = jnp.linspace(1e-5, 1.0 - 1e-5, 1001)[:, None]
    z = jax.vmap(bounds.unbounded)(jax.vmap(bounds.inputs)(share))
    np.testing.assert_allclose(bounds.share(z), share, rtol=1e-9)


def test_the_middle_of_a_logarithmic_scale_is_the_geometric_mean():
    bounds = Bounds([0.01, 1.0], [1.0, 100.0], True)
    np.testing.assert_allclose(bounds.inputs(jnp.full(2, 0.5)), [0.1, 10.0])
    with pytest.raises(ConfigError, match="positive bounds"):
        check_bounds(Bounds([0.0], [1.0], True))


def test_network_is_the_one_described():
    policy = make_policy(15, 2, key=jax.random.key(0), floor=0.05)
    assert [layer.weight.shape for layer in policy.hidden] == [(15, 20)] + [(20, 20)] * 3
    assert policy.mean_head.weight.shape == policy.spread_head.weight.shape == (20, 2)
    seen = jax.random.normal(jax.random.key(1), (7, 15))
    mean, spread = policy(seen)
    assert mean.shape == spread.shape == (7, 2) and np.all(spread > 0.05)
    x = np.asarray(seen)
    for layer in policy.hidden:
        x = x @ np.asarray(layer.weight) + np.asarray(layer.bias)[None]
        x = np.where(x > 0, x, 0.1 * x)
    head = x @ np.asarray(policy.mean_head.weight) + np.asarray(policy.mean_head.bias)[None]
    np.testing.assert_allclose(mean, head, rtol=1e-12)
    assert isinstance(policy, GaussianPolicy) and isinstance(policy.mean_head, Dense)
