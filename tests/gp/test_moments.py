"""Closed-form moments against Monte Carlo, quadrature and the certain limit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.gp import (
    GaussianLikelihood,
    MultiTaskRateGP,
    RateStep,
    ResidualKernel,
    fit_scaling,
    rate_moments,
    step_moments,
)
from perfusio_jax.gp.kernels import matern52_of_square
from perfusio_jax.gp.moments import MIXTURE_SCALES, MIXTURE_WEIGHTS, feature_law
from tests.gp.cases import T

DRAWS, CHUNK = 1_000_000, 50_000
MEAN = jnp.array([3.0, 2.0, 1.2])
CONTROL, REST = jnp.array([0.4]), jnp.array([0.4, 5.0])
A = np.array([[0.5, 0.1, 0.0], [0.1, 0.4, -0.1], [0.0, -0.1, 0.3]])
COVARIANCE = jnp.asarray(A @ A.T)
MOMENTS = eqx.filter_jit(rate_moments)
STEP = eqx.filter_jit(step_moments)


def build(log_columns, with_gap=False):
    """Three species, one control, day: 30 rows of positive states."""
    rng = np.random.default_rng(5)
    x = np.column_stack([rng.uniform(0.3, 5.0, (30, 3)), rng.normal(size=30), np.arange(30) % 9])
    y = np.sin(x[:, :3]) + 0.3 * x[:, [1, 2, 0]] * x[:, 3:4] + 0.1 * rng.normal(size=(30, T))
    if with_gap:
        y[3, 1] = np.nan
    scaling = fit_scaling(x, log_columns=log_columns, day_column=4)
    model = MultiTaskRateGP(
        x, y, GaussianLikelihood(jnp.array([0.05, 0.1, 0.2])), n_tasks=T, scaling=scaling
    )
    kernel = eqx.tree_at(lambda k: k.state.lengthscale.raw, model.kernel, jnp.full(4, 0.9))
    return eqx.tree_at(lambda m: m.kernel, model, kernel).condition()


@pytest.fixture(scope="module", params=[(), (0, 1, 2), (1,)], ids=["linear", "log", "mixed"])
def model(request):
    return build(request.param)


def draw_states(model, key):
    """States with the law the closed form assumes: normal, log-normal in logarithmic columns."""
    law = feature_law(model.scaling, MEAN, COVARIANCE)
    factor = jnp.linalg.cholesky(law.covariance)
    z = law.mean[None, :] + jax.random.normal(key, (CHUNK, 3)) @ factor.T
    value = z * model.scaling.scale[:3][None, :] + model.scaling.shift[:3][None, :]
    is_log = model.scaling.is_log[:3][None, :]
    return jnp.where(is_log, jnp.exp(value) - model.scaling.offset[:3][None, :], value)


@eqx.filter_jit
def monte_carlo(model, centre, key):
    """Sums over a million states of the moments of posterior mean and covariance."""

    def chunk(k):
        for_state, for_rate = jax.random.split(k)
        x = draw_states(model, for_state)
        mean, spread = model.posterior(jnp.column_stack([x, jnp.tile(REST, (CHUNK, 1))]))
        # a draw of the rate itself, so that every moment is a plain sample moment
        factor = jnp.linalg.cholesky(spread)
        noise = jax.random.normal(for_rate, mean.shape)
        rate = mean + jnp.einsum("nij,nj->ni", factor, noise)
        both = jnp.concatenate([x - MEAN[None, :], rate - centre[None, :]], axis=1)
        products = both[:, :, None] * both[:, None, :]
        return both.sum(0), (both**2).sum(0), products.sum(0), (products**2).sum(0)

    sums = jax.lax.map(chunk, jax.random.split(key, DRAWS // CHUNK))
    return [jnp.sum(s, axis=0) / DRAWS for s in sums]


def test_moments_of_one_step_equal_a_million_draws(model):
    law = MOMENTS(model, MEAN, COVARIANCE, REST)
    sums = monte_carlo(model, law.mean, jax.random.key(7))
    first, square, second, fourth = (np.asarray(a) for a in sums)
    # deviations from the closed form's means: five standard errors of each sample mean
    of_mean = 5 * np.sqrt((square - first**2) / DRAWS)
    assert np.all(np.abs(first) < of_mean)
    covariance = np.block(
        [[np.asarray(COVARIANCE), np.asarray(law.cross)], [np.asarray(law.cross).T, law.covariance]]
    )
    of_product = 5 * np.sqrt((fourth - second**2) / DRAWS)
    assert np.all(np.abs(second - covariance) < of_product)
    # the bounds can fail: what the spread of the state changes is far above them
    mean, spread = model.posterior(jnp.concatenate([MEAN, REST])[None, :])
    assert np.any(np.abs(law.mean - mean[0]) > 10 * of_mean[3:])
    assert np.any(np.abs(law.covariance - spread[0]) > 10 * of_product[3:, 3:])
    assert np.any(np.abs(law.cross) > 10 * of_product[:3, 3:])
    assert np.linalg.eigvalsh(covariance)[0] > -1e-9


def test_certain_state_gives_the_exact_posterior(model):
    mean, spread = model.posterior(jnp.concatenate([MEAN, REST])[None, :])
    law = MOMENTS(model, MEAN, jnp.zeros((3, 3)), REST)
    assert np.allclose(law.mean, mean[0], atol=1e-10)
    assert np.allclose(law.covariance, spread[0], atol=1e-9)
    assert np.allclose(law.cross, 0.0, atol=1e-12)


def test_gaps_go_through_the_dense_form():
    whole, gappy = build(()), build((), with_gap=True)
    law = MOMENTS(gappy, MEAN, 0.01 * COVARIANCE, REST)
    near = MOMENTS(whole, MEAN, 0.01 * COVARIANCE, REST)
    assert not np.allclose(law.mean, near.mean, atol=1e-6)
    # small spread: second-order expansion about the mean, by differences of the posterior
    rows = jnp.concatenate([MEAN, REST])
    mean, spread = gappy.posterior(rows[None, :])
    curve = jax.hessian(lambda x: gappy.posterior(rows.at[:3].set(x)[None, :])[0][0])(MEAN)
    second = 0.5 * jnp.einsum("tij,ij->t", curve, 1e-6 * COVARIANCE)
    tiny = MOMENTS(gappy, MEAN, 1e-6 * COVARIANCE, REST)
    assert np.allclose(tiny.mean - mean[0], second, rtol=1e-3, atol=1e-12)
    assert np.allclose(tiny.covariance, spread[0], rtol=1e-3)


def test_the_mixture_is_close_to_the_kernel():
    r = jnp.linspace(0.0, 30.0, 4001)
    scales, weights = jnp.asarray(MIXTURE_SCALES), jnp.asarray(MIXTURE_WEIGHTS)
    mixed = jnp.exp(-0.5 * r[:, None] ** 2 / scales[None, :]) @ weights
    assert float(jnp.sum(weights)) == pytest.approx(1.0, abs=1e-12)
    assert float(jnp.max(jnp.abs(mixed - matern52_of_square(r**2)))) < 1.2e-6


def test_a_linear_step_moves_the_joint_law(model):
    law = MOMENTS(model, MEAN, COVARIANCE, REST)
    extra = 0.01 * jnp.eye(3)
    after = STEP(model, RateStep(2.0), MEAN, COVARIANCE, CONTROL, REST, extra)
    expected = COVARIANCE + 2 * (law.cross + law.cross.T) + 4 * (law.covariance + extra)
    assert np.allclose(after.mean, MEAN + 2 * law.mean, atol=1e-9)
    assert np.allclose(after.covariance, expected, atol=1e-8)
    assert np.allclose(after.cross, COVARIANCE + 2 * law.cross, atol=1e-8)


def test_a_mean_function_goes_through_cubature():
    """One step with a saturating mean, against a million draws of state and rate."""
    plain = build(())
    curved = eqx.tree_at(
        lambda m: m.mean_module, plain, Saturating(), is_leaf=lambda node: node is None
    )
    curved = eqx.tree_at(lambda m: m.state, curved, None).condition()
    spread = COVARIANCE
    after = STEP(curved, RateStep(1.0), MEAN, spread, CONTROL, REST, jnp.zeros((3, 3)))

    @eqx.filter_jit
    def draws(model, key):
        def chunk(k):
            one, two = jax.random.split(k)
            factor = jnp.linalg.cholesky(spread)
            x = MEAN[None, :] + jax.random.normal(one, (CHUNK, 3)) @ factor.T
            mean, left = model.posterior(jnp.column_stack([x, jnp.tile(REST, (CHUNK, 1))]))
            noise = jax.random.normal(two, mean.shape)
            return x + mean + jnp.einsum("nij,nj->ni", jnp.linalg.cholesky(left), noise)

        return jax.lax.map(chunk, jax.random.split(key, DRAWS // CHUNK)).reshape(-1, 3)

    sample = np.asarray(draws(curved, jax.random.key(3)))
    sd = sample.std(axis=0)
    # the standard error, and one percent of a spread for the cubature's fifth-order error
    assert np.all(np.abs(sample.mean(axis=0) - after.mean) < (5e-3 + 0.01) * sd)
    covariance = np.cov(sample.T)
    scale = np.outer(sd, sd)
    bound = 5 * np.sqrt(2e-6) + 0.02
    assert np.all(np.abs(covariance - after.covariance) / scale < bound)
    # without the mean function's slope the covariance would be off by far more
    bare = STEP(plain, RateStep(1.0), MEAN, spread, CONTROL, REST, jnp.zeros((3, 3)))
    assert np.any(np.abs(covariance - bare.covariance) / scale > 2 * bound)


class Saturating(eqx.Module):
    """A mean that is far from linear over the spread of the state."""

    def __call__(self, x):
        return 2.0 * x[:, :3] ** 2 / (1.0 + x[:, :3] ** 2)


def test_derivatives_exist_even_at_a_certain_state(model):
    def spread(x, scale):
        law = rate_moments(model, x, scale * jnp.eye(3), REST)
        return jnp.sum(law.mean) + jnp.sum(law.covariance)

    slope = jax.jit(jax.grad(spread, argnums=(0, 1)))
    for scale in (0.0, 0.04):
        in_state, in_scale = slope(MEAN, jnp.asarray(scale))
        assert np.all(np.isfinite(in_state)) and np.isfinite(in_scale)
    h = 1e-5
    value = jax.jit(spread)
    step = (value(MEAN.at[0].add(h), 0.04) - value(MEAN.at[0].add(-h), 0.04)) / (2 * h)
    assert float(in_state[0]) == pytest.approx(float(step), rel=1e-5)


def test_other_kernels_are_refused(table):
    model = build(())
    odd = eqx.tree_at(lambda m: m.kernel, model, ResidualKernel(4), is_leaf=lambda n: n is None)
    with pytest.raises(ConfigError, match="closed-form"):
        rate_moments(odd, MEAN, COVARIANCE, REST)
