"""Kernel variants: point and matrix forms, features, training, rank, positive definiteness."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError
from perfusio_jax.gp import (
    AdditiveKernel,
    CellSpecificKernel,
    FitConfig,
    MultiTaskRateGP,
    PerfusionKernel,
    SquaredExponentialKernel,
    draw_gp_paths,
    fit,
    fit_rank,
    trainable_filter,
    with_fixed_columns,
    with_rank,
)
from perfusio_jax.gp.sampling import draw_frequencies, prior_features
from tests.gp.cases import N, T

KERNELS = {
    "product": lambda **o: PerfusionKernel(T, 3, 1, 3, **o),
    "additive": lambda **o: AdditiveKernel(T, 3, 1, 3, **o),
    "cells": lambda **o: CellSpecificKernel(T, 3, 1, 3, exponent=0.7, column=1, **o),
    "smooth": lambda day_variance=0.0, **o: SquaredExponentialKernel(T, 3, 3, **o),
}
ROWS = jax.random.normal(jax.random.key(0), (6, 5)).at[:, -1].set(jnp.arange(6) % T)


@pytest.mark.parametrize("name", KERNELS)
def test_point_form_equals_matrix_form_and_diagonal(name):
    kernel = KERNELS[name](lengthscale=1.3, day_variance=0.6)
    tasks = kernel.task_covariance()[ROWS[:, -1].astype(int)][:, ROWS[:, -1].astype(int)]
    matrix = kernel.input_matrix(ROWS[:, :4], ROWS[:, :4])
    point = jax.jit(lambda a: kernel.cross_covariance(a, a))(ROWS)
    assert np.allclose(point, matrix * tasks, atol=1e-12)
    assert np.allclose(jnp.diagonal(matrix), kernel.input_diagonal(ROWS[:, :4]), atol=1e-12)
    fixed = with_fixed_columns(kernel, (2,))
    assert type(fixed) is type(kernel) and float(fixed.lengthscale[2]) == 1.0
    assert np.allclose(fixed.lengthscale[:2], 1.3)


@pytest.mark.parametrize("name", KERNELS)
def test_features_reproduce_the_kernel(name):
    kernel = KERNELS[name](day_variance=0.6)
    x = ROWS[:, :4]

    def gram(key):
        degrees = kernel.tail_degrees
        drawn = draw_frequencies(kernel.lengthscale, 256, key=key, degrees=degrees)
        phi = prior_features(kernel, x, drawn)
        return phi @ phi.T

    mean = np.asarray(jnp.mean(jax.lax.map(gram, jax.random.split(jax.random.key(2), 64)), axis=0))
    exact = np.asarray(kernel.input_matrix(x, x))
    scale = np.sqrt(np.outer(np.diagonal(exact), np.diagonal(exact)))
    assert np.abs((mean - exact) / scale).max() < 5 / np.sqrt(64 * 256)


@pytest.mark.parametrize("name", ["additive", "cells", "smooth"])
def test_inference_and_paths_take_the_variant(name, table):
    x, y = table
    size = x.shape[1] - 1
    if name == "smooth":
        kernel = SquaredExponentialKernel(T, size, size, is_shared=True, lengthscale=2.0)
    else:
        kinds = {"additive": AdditiveKernel, "cells": CellSpecificKernel}
        kernel = kinds[name](T, size, 1, size, lengthscale=2.0)
    model = MultiTaskRateGP(x, y, kernel=kernel, n_tasks=T).condition()
    values = np.asarray(
        draw_gp_paths(model, 512, key=jax.random.key(0), n_frequencies=64).at(x[:4])
    )
    mean, covariance = (np.asarray(a) for a in model.posterior(x[:4]))
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert np.all(np.abs(values.mean(axis=0) - mean) < 5 * sd / np.sqrt(512))
    np.testing.assert_allclose(model.mean(x[:4]), mean, rtol=1e-9, atol=1e-12)


def test_a_shared_signal_is_one_number_and_the_day_is_not_read():
    kernel = SquaredExponentialKernel(T, 3, 3, is_shared=True, task_variance=2.0)
    np.testing.assert_allclose(kernel.task_covariance(), 2.0 * np.eye(T), rtol=1e-9)
    slope = eqx.filter_grad(lambda k: jnp.sum(k.task_covariance()))(kernel)
    assert np.count_nonzero(slope.index_diagonal.raw) == 1
    later = ROWS.at[:, 3].add(5.0)
    np.testing.assert_allclose(
        kernel.input_matrix(ROWS[:, :4], later[:, :4]),
        np.exp(-0.5 * np.sum((ROWS[:, None, :3] - ROWS[None, :, :3]) ** 2, axis=-1)),
        atol=1e-12,
    )


def test_the_exponent_is_trained(table):
    x, y = table
    kernel = CellSpecificKernel(T, x.shape[1] - 1, 1, x.shape[1] - 1, exponent=0.3)
    model = MultiTaskRateGP(x, y, kernel=kernel, n_tasks=T)
    assert trainable_filter(model).kernel.exponent is True
    fitted, _ = fit(model, key=jax.random.key(0), config=FitConfig(max_iterations=8, n_restarts=1))
    assert float(fitted.kernel.exponent) != 0.3
    with pytest.raises(ConfigError, match="column=9"):
        CellSpecificKernel(T, 3, column=9)


def test_rank_is_chosen_by_the_data():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=N), np.arange(N) % 6])
    shared = np.sin(2 * x[:, 0])
    coupled = shared[:, None] * np.array([[1.0, -1.0, 0.8]]) + 0.05 * rng.normal(size=(N, 3))
    model = MultiTaskRateGP(x, coupled, n_tasks=3)
    config = FitConfig(max_iterations=40, n_restarts=1)
    best, report, scores = fit_rank(model, key=jax.random.key(0), ranks=(0, 1), config=config)
    assert best.kernel.rank == 1 and scores[1] > scores[0] and report.n_iterations > 0
    assert best.kernel.index_factor.shape == (3, 1)
    raised = with_rank(best, 2)
    assert raised.kernel.index_factor.shape == (3, 2) and raised.state is None
    # what the factor does not explain stays on the diagonal: same variance per species
    assert np.allclose(
        jnp.diagonal(with_rank(model, 2).kernel.task_covariance()),
        jnp.diagonal(model.kernel.task_covariance()),
    )
    with pytest.raises(ConfigError, match="rank"):
        with_rank(best, 4)


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(KERNELS)),
    st.floats(0.05, 20.0),
    st.floats(0.01, 5.0),
    st.integers(0, 10_000),
)
def test_every_kernel_is_positive_definite(name, lengthscale, day_variance, seed):
    kernel = KERNELS[name](lengthscale=lengthscale, day_variance=day_variance)
    x = np.random.default_rng(seed).normal(scale=2.0, size=(9, 4))
    x[3] = x[5]
    gram = np.asarray(kernel.input_matrix(jnp.asarray(x), jnp.asarray(x)))
    values = np.linalg.eigvalsh(gram)
    assert np.allclose(gram, gram.T, rtol=1e-9) and values[0] > -1e-10 * values[-1]
