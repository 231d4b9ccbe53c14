"""Smooth logarithms against high-precision references, over the whole range of floats."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from perfusio_jax.bed.acquisition.smooth import fatmax as eager_fatmax
from perfusio_jax.bed.acquisition.smooth import fatplus as eager_fatplus
from perfusio_jax.bed.acquisition.smooth import (
    log_expected_improvement,
    log_mean_exp,
)
from perfusio_jax.bed.acquisition.smooth import log_fatplus as eager_log_fatplus

fatmax = jax.jit(eager_fatmax)
fatplus = jax.jit(eager_fatplus)
log_fatplus = jax.jit(eager_log_fatplus)

log_ei = jax.jit(log_expected_improvement)
log_ei_slope = jax.jit(jax.vmap(jax.grad(log_expected_improvement)))


def log_ei_by_series(z: float) -> float:
    """Asymptotic series of the Mills ratio in exact arithmetic, for z well below -20."""
    v2 = Fraction(z) ** 2
    term, total = Fraction(1), Fraction(0)
    for k in range(1, 12):
        term = term * (2 * k - 1) / v2
        total += (-1) ** (k + 1) * term
    return float(-v2 / 2) - 0.5 * np.log(2 * np.pi) + float(np.log(float(total)))


@pytest.mark.parametrize("z", [-4.9, -3.0, -1.0, 0.0, 0.7, 3.0, 8.0])
def test_log_ei_equals_the_integral(z):
    value, _ = integrate.quad(
        lambda y: (z + y) * stats.norm.pdf(y), -z, max(-z, 0) + 40, epsabs=0, epsrel=1e-13
    )
    np.testing.assert_allclose(log_ei(jnp.asarray(z)), np.log(value), rtol=1e-10)


@pytest.mark.parametrize("z", [-20.0, -37.0, -100.0, -1e4, -1e8])
def test_log_ei_tail_equals_the_asymptotic_series(z):
    np.testing.assert_allclose(log_ei(jnp.asarray(z)), log_ei_by_series(z), rtol=1e-14)


def test_log_ei_joins_smoothly_where_the_formulas_meet():
    z = jnp.linspace(-5.01, -4.99, 2001)
    value = np.asarray(log_ei(z))
    slope = np.asarray(log_ei_slope(z))
    np.testing.assert_allclose(np.diff(value), 0.5 * (slope[1:] + slope[:-1]) * 1e-5, rtol=1e-7)


def test_log_ei_is_finite_and_monotone_over_all_magnitudes():
    size = jnp.logspace(-100, 100, 401)
    z = jnp.concatenate([-size[::-1], size])
    value = log_ei(z)
    slope = log_ei_slope(z)
    assert bool(jnp.all(jnp.isfinite(value))) and bool(jnp.all(jnp.isfinite(slope)))
    assert bool(jnp.all(jnp.diff(value) >= 0)) and bool(jnp.all(slope > 0))


def test_log_ei_gradient_is_phi_over_ei():
    z = jnp.asarray([-30.0, -6.0, -5.0, -2.0, 0.0, 3.0])
    expected = np.exp(stats.norm.logcdf(z) - np.asarray(log_ei(z)))
    np.testing.assert_allclose(log_ei_slope(z), expected, rtol=1e-10)


def test_fatplus_bounds_the_positive_part():
    x = jnp.linspace(-50, 50, 4001)
    value = np.asarray(fatplus(x, 0.5))
    assert (value > np.maximum(x, 0)).all()
    assert (value - np.maximum(x, 0) <= 0.5 * (np.log(2) + 0.1)).all()
    assert (np.diff(value) > 0).all() and (np.diff(value, 2) > -1e-12).all()


def test_log_fatplus_is_the_log_and_survives_where_that_underflows():
    x = jnp.asarray([-900.0, -3.0, 0.0, 2.0, 1e6])
    np.testing.assert_allclose(log_fatplus(x, 1.0), jnp.log(fatplus(x, 1.0)), rtol=1e-14)
    edge = jnp.asarray([-1000.0 * (1 + 1e-9), -1000.0 * (1 - 1e-9)])
    joined = log_fatplus(edge, 1.0)
    np.testing.assert_allclose(joined[0], joined[1], rtol=1e-8)
    size = jnp.logspace(-100, 100, 201)
    value_and_slope = jax.jit(jax.vmap(jax.value_and_grad(lambda v: log_fatplus(v, 1e-6))))
    for sign in (-1.0, 1.0):
        value, slope = value_and_slope(sign * size)
        assert bool(jnp.all(jnp.isfinite(value))) and bool(jnp.all(jnp.isfinite(slope)))
        assert bool(jnp.all(jnp.diff(value) * sign >= 0))


def test_fatmax_lies_above_the_maximum_and_keeps_losers_alive():
    x = jnp.asarray([[0.0, -3.0, -1e3], [2.0, 2.0, 2.0]])
    value = fatmax(x, 0.01)
    top = np.max(np.asarray(x), axis=1)
    assert (np.asarray(value) >= top).all()
    assert (np.asarray(value) <= top + 0.01 * np.log(3) + 1e-12).all()
    slope = jax.jit(jax.grad(lambda v: fatmax(v, 0.01)))(x[0])
    assert bool(jnp.all(slope > 0))
    np.testing.assert_allclose(fatmax(jnp.asarray([1.7]), 0.3), 1.7)


def test_log_mean_exp_does_not_overflow():
    np.testing.assert_allclose(log_mean_exp(jnp.asarray([1e4, 1e4])), 1e4)
    np.testing.assert_allclose(log_mean_exp(jnp.asarray([0.0, np.log(3.0)])), np.log(2.0))
