"""Any feature map serves as scaling: embeddings train, fixed lengthscales stay, all paths agree."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.gp import (
    FitConfig,
    InputScaling,
    MultiTaskRateGP,
    PerfusionKernel,
    append_rows,
    draw_gp_paths,
    fit,
    fit_scaling,
    log_evidence,
    log_posterior,
    trainable_filter,
    with_fixed_columns,
)
from tests.gp.cases import T


class Embedded(eqx.Module):
    """`[x (2), clone, day]` to `[scaled x, e_1, e_2, scaled day]`."""

    base: InputScaling
    vectors: Array
    fixed_columns: tuple[int, ...] = eqx.field(static=True, default=(2, 3))

    def __call__(self, inputs: Array) -> Array:
        plain = self.base(jnp.concatenate([inputs[:, :2], inputs[:, 3:]], axis=1))
        clone = self.vectors[inputs[:, 2].astype(int)]
        return jnp.concatenate([plain[:, :2], clone, plain[:, 2:]], axis=1)

    def trainable(self) -> tuple[Any, ...]:
        return (self.vectors,)

    def log_prior(self) -> Array:
        return -0.5 * jnp.sum(self.vectors**2)


@pytest.fixture(scope="module")
def clones():
    """Two clones that differ by a shift; 15 rows each."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 4))
    x[:, 2], x[:, 3] = np.arange(30) % 2, np.arange(30) % 8
    y = np.sin(x[:, :1] + np.arange(T)[None, :]) + 1.5 * x[:, 2:3] + 0.1 * rng.normal(size=(30, T))
    return x, y


@pytest.fixture(scope="module")
def embedded(clones):
    x, y = clones
    base = fit_scaling(x[:, [0, 1, 3]], day_column=2)
    vectors = jnp.asarray([[0.1, 0.0], [0.3, 0.2]])
    return MultiTaskRateGP(x, y, scaling=Embedded(base, vectors), n_tasks=T, capacity=32)


def test_evidence_equals_a_model_on_the_features(embedded, clones):
    features = embedded.scaling(jnp.asarray(clones[0]))
    unit = InputScaling(jnp.zeros(5), jnp.ones(5), jnp.zeros(5), jnp.zeros(5, bool))
    plain = MultiTaskRateGP(
        features,
        clones[1],
        kernel=embedded.kernel,
        scaling=unit,
        n_tasks=T,
        target_scale=embedded.target_scale,
    )
    assert embedded.n_state_dims == 3 and embedded.kernel.n_state_dims == 4
    assert float(log_evidence(embedded)) == pytest.approx(float(log_evidence(plain)), abs=1e-9)
    difference = float(log_posterior(embedded) - log_posterior(plain))
    assert difference == pytest.approx(float(embedded.scaling.log_prior()), abs=1e-9)
    raw = jnp.asarray(clones[0][:4]) + jnp.asarray([0.3, -0.1, 0.0, 1.0])[None, :]
    for one, two in zip(
        embedded.posterior(raw), plain.posterior(embedded.scaling(raw)), strict=True
    ):
        assert np.allclose(one, two, atol=1e-9)


def test_training_moves_the_embedding_and_keeps_fixed_lengthscales(embedded):
    spec = trainable_filter(embedded)
    assert spec.scaling.vectors is True and spec.scaling.base.shift is False
    config = FitConfig(max_iterations=25, n_restarts=2)
    fitted, report = fit(embedded, key=jax.random.key(0), config=config)
    assert float(report.final) > float(log_posterior(embedded)) + 1.0
    assert np.all(np.asarray(fitted.kernel.lengthscale)[2:] == 1.0)
    assert np.all(np.asarray(fitted.kernel.lengthscale)[:2] != 1.0)
    # clones 1.5 units apart: the vectors must move apart
    before = np.linalg.norm(np.diff(np.asarray(embedded.scaling.vectors), axis=0))
    after = np.linalg.norm(np.diff(np.asarray(fitted.scaling.vectors), axis=0))
    assert after > before + 0.2


def test_paths_and_append_go_through_the_features(embedded, clones):
    conditioned = embedded.condition()
    raw = jnp.asarray(clones[0][:3])
    paths = draw_gp_paths(conditioned, 512, key=jax.random.key(1), n_frequencies=64)
    values = np.asarray(paths.at(raw))
    mean, covariance = conditioned.posterior(raw)
    sd = np.sqrt(np.diagonal(np.asarray(covariance), axis1=1, axis2=2))
    assert np.all(np.abs(values.mean(axis=0) - mean) < 5 * sd / np.sqrt(512))
    grown = append_rows(conditioned, clones[0][:2] + 0.5, clones[1][:2])
    assert int(jnp.sum(grown.data.row_present)) == 32
    assert not np.allclose(grown.posterior(raw)[0], mean)


def test_gradient_of_the_evidence_in_the_embedding(embedded):
    def at(step):
        return log_evidence(eqx.tree_at(lambda m: m.scaling.vectors, embedded, step))

    here = embedded.scaling.vectors
    slope = jax.grad(at)(here)
    h = 1e-5
    up, down = at(here.at[1, 0].add(h)), at(here.at[1, 0].add(-h))
    assert float(slope[1, 0]) == pytest.approx(float((up - down) / (2 * h)), rel=1e-5)


def test_fixed_columns_agree_between_matrix_and_point_form():
    kernel = with_fixed_columns(PerfusionKernel(2, 3, ard_num_dims=3, lengthscale=0.4), (1,))
    assert np.allclose(kernel.lengthscale, [0.4, 1.0, 0.4])
    x = jax.random.normal(jax.random.key(0), (4, 5)).at[:, -1].set(0.0)
    scale = kernel.task_covariance()[0, 0]
    assert np.allclose(
        kernel.cross_covariance(x, x), kernel.input_matrix(x[:, :4], x[:, :4]) * scale, atol=1e-12
    )
    with pytest.raises(ConfigError, match="fixed_columns"):
        PerfusionKernel(2, 3, 1, 3, fixed_columns=(3,))
    with pytest.raises(ConfigError, match="fixed_columns"):
        PerfusionKernel(2, 3, 1, 1, fixed_columns=(0,))


def test_wrong_sizes_are_refused(clones):
    x, y = clones
    with pytest.raises(DataError, match="features"):
        MultiTaskRateGP(x, y, kernel=PerfusionKernel(T, 7), n_tasks=T)
    with pytest.raises(ConfigError, match="feature map"):
        MultiTaskRateGP(x, y, scaling=lambda rows: rows[:, 0], n_tasks=T)
