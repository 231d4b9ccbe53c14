"""A plant and a hybrid model small enough to know everything about: linear and Gaussian.

The cell volume (VCV) follows `y' = a y + (1 - a)(gain . z + bias) + w` with z the set-points
scaled to [-1, 1]; viability falls with agitation. The model's belief about `gain` and `bias` is
Gaussian, so the mean objective has a closed form and learning is one Kalman step.
"""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES

VCV, VIA = FORECAST_SPECIES.index("VCV"), FORECAST_SPECIES.index("Via")
LOWER = np.array([0.5, 0.05, 2.0, 35.0, 700.0, 0.0])
UPPER = np.array([2.0, 0.30, 8.0, 37.5, 1050.0, 5.0])
VCV_PER_CELL = 0.25
MAX_DAYS = 8


class LinearModel(eqx.Module):
    mean: jax.Array
    """Belief about (gain of six controls, bias) [VCV %]."""
    factor: jax.Array
    """Cholesky factor of its covariance."""
    memory: jax.Array
    """a [-]."""
    process_sd: jax.Array
    """Deviation of w [VCV %]."""
    viability: jax.Array
    """Viability at the lowest agitation, and its loss over the range [%]."""
    breaks_above: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(jnp.inf))
    """Temperature [degC] above which a forecast is not a number."""


class LinearPaths(eqx.Module):
    theta: jax.Array
    """(S, 7)"""
    noise: jax.Array
    """(S, MAX_DAYS)"""


def features(u):
    z = 2.0 * (u - jnp.asarray(LOWER)) / jnp.asarray(UPPER - LOWER) - 1.0
    return jnp.append(z, 1.0)


def draw_paths(model, n, *, key):
    one, two = jax.random.split(key)
    theta = model.mean[None, :] + jax.random.normal(one, (n, 7)) @ model.factor.T
    return LinearPaths(theta, model.process_sd * jax.random.normal(two, (n, MAX_DAYS)))


def rollout(model, paths, c0, controls, day0):
    S = paths.theta.shape[0]
    c0 = jnp.broadcast_to(c0, (S, 9)) if c0.ndim == 1 else c0
    if controls.ndim == 1:
        controls = controls[None, :]

    def day(y, inputs):
        u, w = inputs
        y = model.memory * y + (1 - model.memory) * (paths.theta @ features(u)) + w
        agitation = 0.5 * (features(u)[4] + 1.0)
        via = model.viability[0] - model.viability[1] * agitation + 0.3 * w
        out = jnp.zeros((S, 12)).at[:, VCV].set(y).at[:, VIA].set(via)
        return y, out.at[:, 0].set(y / VCV_PER_CELL)

    H = controls.shape[0]
    broken = jnp.any(controls[:, 3] > model.breaks_above)
    _, Y = jax.lax.scan(day, VCV_PER_CELL * c0[:, 0], (controls, paths.noise[:, :H].T))
    return jnp.where(broken, jnp.nan, jnp.swapaxes(Y, 0, 1))


def make_model(sd=0.5, process_sd=0.2, memory=0.4):
    mean = jnp.asarray([1.5, -4.0, 0.5, 1.0, -0.5, 0.3, 13.0])
    return LinearModel(
        mean,
        sd * jnp.eye(7),
        jnp.asarray(memory),
        jnp.asarray(process_sd),
        jnp.asarray([98.5, 5.0]),
    )


@pytest.fixture(scope="session")
def linear():
    """The double: functions, constants and a default model."""
    return SimpleNamespace(
        make_model=make_model,
        draw_paths=draw_paths,
        rollout=rollout,
        features=features,
        lower=LOWER,
        upper=UPPER,
        vcv=VCV,
        via=VIA,
        vcv_per_cell=VCV_PER_CELL,
        c0=jnp.asarray([56.0, 1.0, 5, 2, 1, 20, 3, 1, 500.0]),
    )
