"""A small data set and model that most tests of this folder share."""

import jax
import jax.numpy as jnp
import pytest

from perfusio_jax.gp import GaussianLikelihood, MultiTaskRateGP
from tests.gp.cases import D, N, T


@pytest.fixture(scope="session")
def table():
    """Inputs (24, 5), day last, and smooth noisy targets (24, 3)."""
    one, two, three = jax.random.split(jax.random.key(3), 3)
    x = jax.random.normal(one, (N, D)).at[:, -1].set(jnp.arange(N) % 8)
    weights = jax.random.normal(two, (D, T))
    y = jnp.sin(0.5 * x @ weights) + 0.2 * jax.random.normal(three, (N, T))
    return x, y


@pytest.fixture(scope="session")
def model(table):
    """Unconditioned model on the table, unequal noise per task."""
    x, y = table
    return MultiTaskRateGP(x, y, GaussianLikelihood(jnp.array([0.05, 0.1, 0.2])), n_tasks=T)


@pytest.fixture(scope="session")
def conditioned(model):
    return model.condition()
