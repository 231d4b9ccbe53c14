"""NUTS over hyper-parameters: a known posterior, mixture, report, no callbacks, limits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, PrecisionError, positive
from perfusio_jax.gp import MultiTaskRateGP, fit_nuts, log_posterior
from perfusio_jax.gp.bayes import log_jacobian


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=12), np.arange(12) % 4])
    y = np.sin(x[:, :1]) + 0.2 * rng.normal(size=(12, 1))
    return MultiTaskRateGP(x, y, n_tasks=1)


@pytest.fixture(scope="module")
def sampled(small):
    return fit_nuts(
        small, key=jax.random.key(0), n_warmup=150, n_samples=150, n_chains=2, n_models=12
    )


def test_jacobian_turns_a_density_of_logs_into_one_of_leaves():
    value = positive(0.7)
    slope = jax.grad(lambda raw: jnp.log(jax.nn.softplus(raw)))(value.raw)
    assert float(log_jacobian(value)) == pytest.approx(float(jnp.log(slope)), abs=1e-12)


def test_draws_follow_the_posterior(small, sampled):
    """The noise's marginal against a grid over all four parameters (importance weights)."""
    mixture, report = sampled
    assert report.n_divergent <= 15
    rng = np.random.default_rng(1)
    # importance sampling from the hyper-prior, in the logarithms of the parameters
    p = small.priors
    count = 4000
    logs = np.column_stack([
        np.log(p.lengthscale_median) + p.lengthscale_spread * rng.normal(size=count),
        np.log(p.day_median) + p.day_spread * rng.normal(size=count),
        np.log(p.signal_median) + p.signal_spread * rng.normal(size=count),
        np.log(p.noise_median) + p.noise_spread * rng.normal(size=count),
    ])  # fmt: skip
    factor = p.factor_spread * rng.normal(size=count)

    def evidence(values, w):
        raw = values + jnp.log(-jnp.expm1(-values))
        moved = eqx.tree_at(
            lambda m: (m.kernel.state.lengthscale.raw, m.kernel.day.variance.raw,
                       m.kernel.index_diagonal.raw, m.likelihood.noise.raw, m.kernel.index_factor),
            small, (raw[0:1], raw[1], raw[2:3], raw[3:4], w.reshape(1, 1)),
        )  # fmt: skip
        prior = moved.priors.log_density(moved.kernel, moved.likelihood.variance(1))
        return log_posterior(moved) - prior

    weights = np.asarray(
        jax.jit(jax.vmap(evidence))(jnp.exp(jnp.asarray(logs)), jnp.asarray(factor))
    )
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    n_is = 1 / np.sum(weights**2)
    centre = weights @ logs[:, 3]
    spread = np.sqrt(weights @ (logs[:, 3] - centre) ** 2)
    noise = np.log(np.asarray(jax.vmap(lambda m: m.likelihood.variance(1))(mixture.models)))[:, 0]
    # five standard errors of two means
    error = spread * np.sqrt(1 / n_is + 1 / min(12, float(report.n_effective.min())))
    assert abs(noise.mean() - centre) < 5 * error
    assert 0.3 * spread < noise.std() < 3.0 * spread


def test_mixture_predicts_wider_than_its_members(small, sampled):
    mixture, report = sampled
    x = jnp.asarray([[0.2, 1.0], [2.5, 3.0]])
    result = mixture.predict_with_ci(x)
    assert np.all(result["q10"] < result["q50"]) and np.all(result["q50"] < result["q90"])
    mean, _ = mixture.moments(x)
    assert np.allclose(result["mean"], mean.mean(axis=0))
    one = mixture.member(3).predict_with_ci(x)
    assert np.allclose(one["mean"], mean[3], atol=1e-10)
    noisy = mixture.predict_with_ci(x, include_noise=True)
    assert np.all(noisy["q90"] - noisy["q10"] > result["q90"] - result["q10"])
    assert report.log_posterior.shape == (300,) and np.all(np.isfinite(report.r_hat))
    paths = mixture.draw_paths(3, key=jax.random.key(2))
    assert paths.prior_weights.shape[:2] == (12, 3)


def test_limits_are_refused(small):
    with pytest.raises(ConfigError, match="n_models=9"):
        fit_nuts(small, key=jax.random.key(0), n_samples=4, n_chains=2, n_models=9)
    x = np.column_stack([np.linspace(0, 1, 401), np.zeros(401)])
    large = MultiTaskRateGP(x, np.sin(x[:, :1]), n_tasks=1)
    with pytest.raises(ConfigError, match="401 rows"):
        fit_nuts(large, key=jax.random.key(0))
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="enable_x64"):
        fit_nuts(small, key=jax.random.key(0))
