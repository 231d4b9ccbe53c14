"""Exact inference against GPJax, dense algebra, left-out rows and finite differences."""

import equinox as eqx
import gpjax as gpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.gp import (
    GaussianLikelihood,
    LinearMean,
    MultiTaskRateGP,
    append_rows,
    log_evidence,
    rate_data,
    to_indexed,
    with_data,
)
from perfusio_jax.gp.posterior import kronecker_log_density
from tests.gp.cases import N, T, with_gaps

# One program each: step by step each of their operations would be compiled by itself.
evidence = eqx.filter_jit(log_evidence)
predicted = eqx.filter_jit(lambda model, x: model.posterior(x))
normal_log_density = jax.jit(jax.scipy.stats.multivariate_normal.logpdf)


def test_evidence_equals_gpjax(table):
    x, y = table
    model = MultiTaskRateGP(x, y, GaussianLikelihood(0.2), n_tasks=T)
    rows, flat = to_indexed(model.scaling(x), y / model.target_scale[None, :])
    prior = gpx.gps.Prior(mean_function=gpx.mean_functions.Zero(), kernel=model.kernel, jitter=0.0)
    posterior = prior * gpx.likelihoods.Gaussian(obs_stddev=jnp.sqrt(0.2))
    reference = jax.jit(
        lambda x, y: gpx.objectives.conjugate_mll(posterior, gpx.Dataset(X=x, y=y[:, None]))
    )(rows, flat)
    assert float(evidence(model)) == pytest.approx(float(reference), abs=1e-8)


def test_kronecker_equals_dense(model, conditioned, table):
    dense = with_gaps(model, jnp.zeros((N, T), bool))
    assert not dense.is_complete
    assert float(evidence(dense)) == pytest.approx(float(evidence(model)), abs=1e-8)
    x_new = table[0][:4] + 0.3
    for one, two in zip(predicted(conditioned, x_new), predicted(dense, x_new), strict=True):
        assert np.allclose(one, two, atol=1e-9)


def test_masked_targets_equal_left_out_rows(model, table):
    x, _ = table
    gaps = jnp.zeros((N, T), bool).at[5:9].set(True)
    masked = with_gaps(model, gaps)
    keep = np.setdiff1d(np.arange(N), np.arange(5, 9))
    data = rate_data(x[keep], model.data.targets[keep])
    short = eqx.tree_at(lambda m: m.data, model, data)
    assert float(evidence(masked)) == pytest.approx(float(evidence(short)), abs=1e-8)
    for one, two in zip(predicted(masked, x[:3]), predicted(short, x[:3]), strict=True):
        assert np.allclose(one, two, atol=1e-9)


def test_single_missing_entries_equal_indexed_rows(model, table):
    x, y = table
    gaps = jnp.zeros((N, T), bool).at[2, 1].set(True).at[7, 0].set(True)
    masked = with_gaps(model, gaps)
    scaled = model.scaling(x)
    rows, flat = to_indexed(scaled, jnp.where(gaps, jnp.nan, y) / model.target_scale[None, :])
    noise = model.likelihood.variance(T)[rows[:, -1].astype(int)]
    covariance = model.kernel.cross_covariance(rows, rows) + jnp.diag(noise)
    reference = normal_log_density(flat, jnp.zeros(flat.size), covariance)
    assert float(evidence(masked)) == pytest.approx(float(reference), abs=1e-7)


def test_padding_changes_nothing(model, conditioned, table):
    x, y = table
    padded = with_data(model, rate_data(x, y, capacity=N + 9))
    assert float(evidence(padded)) == pytest.approx(float(evidence(model)), abs=1e-9)
    for one, two in zip(predicted(padded, x[:3]), predicted(conditioned, x[:3]), strict=True):
        assert np.allclose(one, two, atol=1e-10)


def test_row_noise_scales_the_noise_of_its_row(table):
    x, y = table
    weights = jnp.linspace(0.5, 3.0, N)
    model = MultiTaskRateGP(x, y, GaussianLikelihood(0.2), n_tasks=T, row_noise=weights)
    gram = model.kernel.input_matrix(model.scaling(x), model.scaling(x))
    covariance = jnp.kron(gram, model.kernel.task_covariance())
    covariance = covariance + jnp.diag(jnp.kron(weights, jnp.full(T, 0.2)))
    flat = (y / model.target_scale[None, :]).reshape(-1)
    reference = normal_log_density(flat, jnp.zeros(flat.size), covariance)
    assert float(evidence(model)) == pytest.approx(float(reference), abs=1e-8)


def test_evidence_gradient_against_finite_differences():
    key = jax.random.key(0)
    a, b = jax.random.normal(key, (6, 6)), jax.random.normal(jax.random.key(1), (2, 2))
    y = jax.random.normal(jax.random.key(2), (6, 2))
    gram, tasks = a @ a.T, b @ b.T
    directions = (jnp.ones((6, 6)), jnp.eye(2), jnp.ones((6, 2)))
    _, exact = jax.jvp(kronecker_log_density, (gram, tasks, y), directions)
    h = 1e-6

    def moved(s):
        return kronecker_log_density(
            *(m + s * d for m, d in zip((gram, tasks, y), directions, strict=True))
        )

    assert float(exact) == pytest.approx(float((moved(h) - moved(-h)) / (2 * h)), rel=1e-6)


def test_gradient_survives_repeated_eigenvalues():
    grads = jax.grad(kronecker_log_density, argnums=(0, 1))(
        jnp.eye(4), jnp.eye(2), jnp.ones((4, 2))
    )
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in grads)


def test_intervals_contain_the_right_share_and_widen_outside(conditioned, table):
    x, _ = table
    inside = conditioned.predict_with_ci(x[:5])
    far = conditioned.predict_with_ci(x[:5] + 50.0)
    assert np.all(inside["q10"] < inside["q50"]) and np.all(inside["q50"] < inside["q90"])
    assert np.allclose(inside["q50"], inside["mean"])
    assert np.all((far["q90"] - far["q10"]) > (inside["q90"] - inside["q10"]))
    rows, _ = to_indexed(x[:5], jnp.zeros((5, T)))
    assert np.allclose(conditioned.predict_with_ci(rows)["mean"], inside["mean"].reshape(-1))


def test_prior_call_and_linear_mean(table):
    x, y = table
    mean = LinearMean(x.shape[1], (T,))
    mean = eqx.tree_at(lambda m: m.bias, mean, jnp.array([1.0, 2.0, 3.0]))
    model = MultiTaskRateGP(x, y, mean_module=mean, n_tasks=T)
    prior = model(x[:2])
    assert np.allclose(prior.mean, [[1.0, 2.0, 3.0]] * 2)
    assert prior.covariance.shape == (2, T, 2, T)


def test_appending_equals_fitting_the_longer_table(model, table):
    x, y = table
    roomy = with_data(model, rate_data(x[:20], y[:20], capacity=N))
    grown = append_rows(roomy, x[20:], y[20:])
    whole = with_data(model, rate_data(x, y, capacity=N))
    for one, two in zip(predicted(grown, x[:3]), predicted(whole, x[:3]), strict=True):
        assert np.allclose(one, two, atol=1e-10)


def test_mismatched_data_are_refused(table, conditioned):
    x, y = table
    with pytest.raises(DataError, match="n_tasks=2"):
        MultiTaskRateGP(x, y, n_tasks=2)
    with pytest.raises(DataError, match="n_state_dims=9"):
        MultiTaskRateGP(x, y, n_tasks=T, n_state_dims=9)
    with pytest.raises(DataError, match="columns"):
        conditioned.predict_with_ci(x[:, :2])
    with pytest.raises(DataError, match="miss some targets"):
        with_data(conditioned, rate_data(x, y.at[0, 0].set(jnp.nan)))
