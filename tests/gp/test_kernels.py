"""Kernels: matrix forms equal GPJax's point forms, positive definite, differentiable at zero."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpjax.kernels import Matern52

from perfusio_jax._core import ConfigError
from perfusio_jax.gp import AdditiveKernel, CellSpecificKernel, PerfusionKernel, ResidualKernel
from perfusio_jax.gp.kernels import matern52_of_square


def indexed(n, dims, tasks, seed=0):
    x = jax.random.normal(jax.random.key(seed), (n, dims + 2))
    return x.at[:, -1].set(jnp.arange(n) % tasks)


def test_indexed_rows_equal_the_product_of_factors():
    kernel = PerfusionKernel(3, 4, rank=2, ard_num_dims=4, lengthscale=jnp.arange(1.0, 5.0))
    x, y = indexed(7, 4, 3), indexed(6, 4, 3, seed=1)
    point = jax.jit(lambda a, b: kernel.cross_covariance(a, b))(x, y)
    tasks = kernel.task_covariance()[x[:, -1].astype(int)][:, y[:, -1].astype(int)]
    assert np.allclose(point, kernel.input_matrix(x[:, :5], y[:, :5]) * tasks, atol=1e-12)


def test_state_factor_equals_gpjax_matern():
    kernel = PerfusionKernel(2, 3, ard_num_dims=3, day_variance=1e-12, lengthscale=0.7)
    x = indexed(5, 3, 2)[:, :4]
    reference = Matern52(lengthscale=jnp.full(3, 0.7), n_dims=3).cross_covariance(
        x[:, :3], x[:, :3]
    )
    assert np.allclose(kernel.input_matrix(x, x), reference, atol=1e-10)


def test_day_zero_has_variance():
    kernel = PerfusionKernel(1, 2, rank=0)
    assert kernel.input_diagonal(jnp.zeros((1, 3)))[0] == pytest.approx(1.0)


def test_matern_derivative_at_and_off_zero():
    slope = jax.vmap(jax.grad(matern52_of_square))(jnp.array([0.0, 0.3]))
    h = 1e-6
    step = (matern52_of_square(jnp.array(0.3 + h)) - matern52_of_square(jnp.array(0.3 - h))) / (
        2 * h
    )
    assert slope[0] == pytest.approx(-5.0 / 6.0)
    assert slope[1] == pytest.approx(float(step), rel=1e-7)


def test_second_derivatives_hold_where_points_meet():
    # k(r) = 1 - 5/6 r^2 + 25/24 r^4 - ..., so that d2k/dx2 = -5/3 per squared lengthscale
    kernel = PerfusionKernel(1, 2, rank=0, ard_num_dims=2, lengthscale=jnp.array([0.7, 2.0]))
    at = jnp.array([0.3, -1.1, 0.0])

    def value(x):
        return kernel.input_matrix(x[None, :], at[None, :])[0, 0]

    bend = jax.hessian(value)(at)
    assert np.allclose(jnp.diag(bend)[:2], -5.0 / 3.0 / jnp.array([0.7, 2.0]) ** 2, rtol=1e-12)
    assert bend[0, 1] == pytest.approx(0.0, abs=1e-12)
    residual = ResidualKernel(2, lengthscale=0.7)
    bend = jax.hessian(lambda x: residual.input_matrix(x[None, :], at[None, :2])[0, 0])(at[:2])
    assert np.allclose(bend, -jnp.eye(2) / 0.7**2, rtol=1e-12)
    # off the point against finite differences of the gradient
    away = at + jnp.array([0.4, 0.2, 0.0])
    h = 1e-5
    steps = [
        (jax.grad(value)(away + h * e) - jax.grad(value)(away - h * e)) / (2 * h)
        for e in jnp.eye(3)[:2]
    ]
    assert np.allclose(jax.hessian(value)(away)[:2], jnp.stack(steps), atol=1e-8)


def test_matern_second_derivative_of_the_square():
    bend = jax.vmap(jax.grad(jax.grad(matern52_of_square)))(jnp.array([0.0, 0.3]))
    assert np.allclose(bend, 25 / 12 * np.exp(-np.sqrt(5 * np.array([0.0, 0.3]))), rtol=1e-12)


@pytest.mark.parametrize("kernel", [PerfusionKernel, AdditiveKernel, CellSpecificKernel])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda k: pickle.loads(pickle.dumps(k))])
def test_a_copied_kernel_is_the_same_tree(kernel, way):
    fresh = kernel(2, 3, 1, 3)
    used = eqx.filter_jit(lambda k: k)(fresh)  # as it comes out of a compiled function
    for one in (fresh, used, ResidualKernel(3)):
        assert eqx.tree_equal(one, way(one))
    assert eqx.tree_equal(way(fresh), way(used))
    assert hash(jax.tree.structure(fresh)) == hash(jax.tree.structure(way(used)))


def test_gram_gradient_is_finite_on_repeated_points():
    kernel = PerfusionKernel(2, 3, ard_num_dims=3)
    x = jnp.ones((4, 4))
    grads = eqx.filter_grad(lambda k: jnp.sum(k.input_matrix(x, x)))(kernel)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_joint_covariance_is_positive_definite(rank):
    kernel = PerfusionKernel(3, 4, rank=rank)
    x = indexed(12, 4, 3)
    gram = kernel.input_matrix(x[:, :5], x[:, :5])
    joint = jnp.kron(gram, kernel.task_covariance())
    assert float(jnp.linalg.eigvalsh(joint)[0]) > -1e-10


def test_residual_kernel_matrix_equals_point_form():
    kernel = ResidualKernel(3, ard_num_dims=3, lengthscale=1.3, variance=2.0)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    assert np.allclose(kernel.cross_covariance(x, x), kernel.input_matrix(x, x), atol=1e-12)
    assert np.allclose(kernel.input_diagonal(x), 2.0)


@pytest.mark.parametrize(
    "arguments", [(0, 3), (2, 0), (2, 3, 5), (2, 3, 1, 2)], ids=["tasks", "dims", "rank", "ard"]
)
def test_wrong_sizes_are_refused(arguments):
    with pytest.raises(ConfigError):
        PerfusionKernel(*arguments)
