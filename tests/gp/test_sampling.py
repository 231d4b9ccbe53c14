"""Drawn functions: moments of the exact posterior, memory of a path, error of the features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.gp import draw_gp_paths, variance_error
from perfusio_jax.gp.sampling import draw_frequencies, prior_features


@pytest.fixture(scope="module")
def paths(conditioned):
    draw = jax.jit(lambda m, k: draw_gp_paths(m, 2048, key=k, n_frequencies=64))
    return draw(conditioned, jax.random.key(0))


def test_sampled_moments_match_the_posterior(conditioned, paths, table):
    x_new = table[0][:6] + jnp.array([0.4, -0.2, 0.1, 0.3, 0.0])[None, :]
    values = np.asarray(paths.at(x_new))
    mean, covariance = (np.asarray(a) for a in conditioned.posterior(x_new))
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    # five standard errors of a mean and of a variance over n draws
    n = values.shape[0]
    assert np.all(np.abs(values.mean(axis=0) - mean) < 5 * np.sqrt(variance / n))
    assert np.all(np.abs(values.var(axis=0) / variance - 1) < 5 * np.sqrt(2 / n) + 0.05)
    apart = values - values.mean(axis=0)[None]
    cross = np.einsum("pms,pmt->mst", apart, apart) / n
    scale = np.sqrt(variance[:, :, None] * variance[:, None, :])
    assert np.all(np.abs(cross - covariance) / scale < 5 / np.sqrt(n) + 0.05)


def test_a_path_is_one_function(paths, table):
    x_new = table[0][:1]
    shared = paths.at(x_new)[:, 0]
    own = paths(jnp.broadcast_to(x_new, (paths.n_paths, x_new.shape[1])))
    assert np.allclose(shared, own, atol=1e-12)


def test_variance_error_is_small_and_falls(conditioned, table):
    x_new = table[0][:8] + 0.3
    few = variance_error(conditioned, x_new, key=jax.random.key(1), n_blocks=2, n_frequencies=16)
    many = variance_error(conditioned, x_new, key=jax.random.key(1))
    assert float(many) < 0.03
    assert float(many) < 0.5 * float(few)


def test_features_reproduce_the_kernel(conditioned, table):
    kernel, x = conditioned.kernel, conditioned.scaling(table[0])
    exact = np.asarray(kernel.input_matrix(x, x))

    def gram(key):
        w = draw_frequencies(kernel.lengthscale, 256, key=key)
        phi = prior_features(kernel, x, w)
        return phi @ phi.T

    draws = np.asarray(jax.lax.map(gram, jax.random.split(jax.random.key(2), 64)))
    error = np.abs(draws.mean(axis=0) - exact) / np.sqrt(np.outer(*[np.diagonal(exact)] * 2))
    # each entry of one draw is a mean over 256 frequencies of a number within [-1, 1]
    assert error.max() < 5 / np.sqrt(64 * 256)
    assert np.allclose(np.diagonal(draws, axis1=1, axis2=2), np.diagonal(exact)[None], rtol=1e-10)


def test_radii_follow_the_multivariate_t():
    w = draw_frequencies(jnp.ones(4), 20_000, key=jax.random.key(3))
    radius = np.sqrt(np.sum(np.asarray(w) ** 2, axis=1) / 4)
    from scipy.stats import f

    assert np.allclose(
        np.quantile(radius**2, [0.1, 0.5, 0.9]), f.ppf([0.1, 0.5, 0.9], 4, 5), rtol=2e-3
    )


def test_an_unconditioned_model_is_refused(model):
    with pytest.raises(ConfigError, match="condition"):
        draw_gp_paths(model, 4, key=jax.random.key(0))
