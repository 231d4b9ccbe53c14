"""Second derivatives of the structured evidence: the dense form's, with padding rows too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.gp.masked import masked_log_density, missing_entries
from perfusio_jax.gp.posterior import joint_covariance, kronecker_log_density

N, T = 6, 2
GAPS = np.zeros((N, T), bool)
GAPS[1, 0] = GAPS[3, 1] = True


def arguments(theta):
    """Covariances and targets of three parameters; the last two rows are padding."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=N), rng.normal(size=(N, T))
    rows = jnp.arange(N) < N - 2
    gram = jnp.exp(-0.5 * jnp.asarray((x[:, None] - x[None, :]) ** 2) * jnp.exp(theta[0]))
    gram = gram * rows[:, None] * rows[None, :]
    factor = jnp.array([[0.7, 0.2], [-0.4, 0.9]]) + theta[1] * jnp.array([[0.0, 1.0], [0.5, 0.0]])
    targets = jnp.asarray(y) + theta[2] * jnp.sin(jnp.asarray(y))
    return gram, factor @ factor.T, targets * rows[:, None], rows


def structured(theta, gaps):
    gram, tasks, targets, rows = arguments(theta)
    if not gaps.any():
        return kronecker_log_density(gram, tasks, targets)
    present = jnp.asarray(~gaps) & rows[:, None]
    # room for more than are missing: the rest is padding
    missing = missing_entries(present, 4)
    return masked_log_density(gram, tasks, jnp.where(present, targets, 0.0), missing)


def dense(theta, gaps):
    gram, tasks, targets, rows = arguments(theta)
    present = (jnp.asarray(~gaps) & rows[:, None]).astype(float)
    joint = joint_covariance(gram, tasks, jnp.ones(T), jnp.eye(N), present)
    factor = jnp.linalg.cholesky(joint)
    flat = (targets * present).reshape(-1)
    white = jax.scipy.linalg.solve_triangular(factor, flat, lower=True)
    return -0.5 * jnp.sum(white**2) - jnp.sum(jnp.log(jnp.diagonal(factor)))


@pytest.mark.parametrize("gaps", [np.zeros((N, T), bool), GAPS], ids=["complete", "gaps"])
def test_value_slope_and_hessian_equal_the_dense_form(gaps):
    at = jnp.array([0.1, 0.3, -0.2])

    def all_of(density):
        def fun(theta):
            return density(theta, gaps)

        return jax.jit(lambda t: (fun(t), jax.grad(fun)(t), jax.hessian(fun)(t)))(at)

    for one, two in zip(all_of(structured), all_of(dense), strict=True):
        assert np.allclose(one, two, rtol=1e-9, atol=1e-9)
    slope = jax.jit(jax.grad(lambda t: structured(t, gaps)))
    h = 1e-5
    steps = [(slope(at + h * e) - slope(at - h * e)) / (2 * h) for e in jnp.eye(3)]
    assert np.allclose(all_of(structured)[2], jnp.stack(steps), rtol=1e-6, atol=1e-7)


def test_reverse_over_reverse_equals_forward_over_reverse():
    at, none = jnp.array([0.1, 0.3, -0.2]), np.zeros((N, T), bool)

    def fun(theta):
        return structured(theta, none)

    twice = jax.jit(jax.jacrev(jax.grad(fun)))(at)
    assert np.allclose(twice, jax.jit(jax.hessian(fun))(at), rtol=1e-10)
