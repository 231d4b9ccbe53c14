"""One interval: the mechanism comes back, glucose obeys the pump, limits are smooth and told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from perfusio_jax.hybrid.transition import (
    Limits,
    ResidualBasis,
    apply_residual,
    bend_to_zero,
    glucose_day,
    prior_step,
    saturate,
)
from tests.hybrid.cases import START, ToyMechanism

MECH = ToyMechanism()
CONTROLS = jnp.array([1.0, 0.1, 5.0, 37.0, 850.0, 1.0])
STATE = jnp.asarray(START)
DAY = jnp.asarray(24.0)
BASIS = ResidualBasis(jnp.full(9, 0.02), jnp.ones(9), jnp.ones(9))


@jax.jit
def interval(state, residual):
    prior = prior_step(MECH, state, CONTROLS, DAY)
    return apply_residual(MECH, BASIS, Limits(), state, CONTROLS, prior, residual, DAY)


@jax.jit
def glucose(level, rate, growth, setpoint):
    return glucose_day(MECH, level, CONTROLS.at[2].set(setpoint), rate, growth, DAY)


def test_no_residual_gives_the_mechanism_back():
    after, fed, info = interval(STATE, jnp.zeros(9))
    wanted, feed = MECH.advance(STATE, CONTROLS)
    others = np.array([0, 1, 3, 4, 5, 6, 7, 8])
    assert np.allclose(after[others], wanted[others], rtol=2e-3)
    assert float(after[2]) == pytest.approx(float(wanted[2]), abs=0.1)
    assert float(fed) == pytest.approx(float(feed), rel=0.2)
    assert not bool(jnp.any(info.residual) | info.cells | jnp.any(info.floor))


@pytest.mark.parametrize("rate", [-0.05, -0.3, -0.8])
@pytest.mark.parametrize("setpoint", [2.0, 6.0])
def test_glucose_day_against_an_adaptive_solver(rate, setpoint):
    growth, start = 0.4, 5.0
    end, fed = glucose(start, rate, growth, setpoint)
    shape = growth / (2 * np.sinh(growth / 2))
    dilution = 1.0 / 24.0

    def slope(t, y):
        pump = float(np.clip(5e-3 * (setpoint - y[0]), 0.0, 1.25e-3))
        eaten = rate * shape * np.exp(growth * (t / 24.0 - 0.5)) * np.tanh(max(y[0], 0.0) / 0.02)
        return [dilution * (6.0 - y[0]) + pump * (400.0 - y[0]) + eaten, pump * 0.25]

    exact = solve_ivp(slope, (0.0, 24.0), [start, 0.0], method="Radau", rtol=1e-8, max_step=0.1)
    assert float(end) == pytest.approx(exact.y[0, -1], abs=0.06)
    # a step that meets the kink of the pump law errs by up to a twentieth of its feed
    assert float(fed) == pytest.approx(exact.y[1, -1], rel=0.03, abs=1.5e-4)


def test_glucose_stays_between_zero_and_what_the_pump_allows():
    rates = jnp.linspace(-5.0, 0.0, 21)
    end, fed = jax.vmap(lambda r: glucose(5.0, r, 0.0, 6.0))(rates)
    assert bool(jnp.all(end >= 0.0)) and bool(jnp.all(end <= 6.0 + 0.5))
    assert bool(jnp.all(fed >= 0.0)) and bool(jnp.all(fed <= 1.25e-3 * 24 * 0.25 * 1.001))


def test_extreme_residuals_stay_finite_and_are_reported():
    for size in (1e3, -1e3):
        after, fed, info = interval(STATE, jnp.full(9, size))
        assert bool(jnp.all(jnp.isfinite(after)) & jnp.isfinite(fed) & jnp.all(after > 0.0))
        assert bool(jnp.all(info.residual))
    assert bool(jnp.any(interval(STATE, jnp.full(9, -7.0))[2].floor))


def test_derivative_in_the_residual():
    slope = jax.jit(jax.jacfwd(lambda r: interval(STATE, r)[0]))(jnp.zeros(9))
    h = 1e-5
    for k in (0, 2, 5):
        e = jnp.zeros(9).at[k].set(h)
        step = (interval(STATE, e)[0] - interval(STATE, -e)[0]) / (2 * h)
        assert np.allclose(slope[:, k], step, rtol=1e-4, atol=1e-6)


def test_limits_are_identity_inside_and_smooth():
    assert float(saturate(jnp.array(1.0), jnp.array(8.0))) == pytest.approx(1.0, rel=1e-4)
    assert float(saturate(jnp.array(1e9), jnp.array(8.0))) == pytest.approx(8.0)
    assert float(bend_to_zero(jnp.array(1.0), jnp.array(1e-3))) == pytest.approx(1.0, rel=1e-5)
    values = jnp.array([-1e6, -1.0, 0.0, 1e-9, 1.0])
    bent = bend_to_zero(values, jnp.array(1e-3))
    assert bool(jnp.all(bent > 0.0)) and bool(jnp.all(jnp.diff(bent) > 0.0))
    slopes = jax.vmap(jax.grad(lambda v: bend_to_zero(v, jnp.array(1e-3))))(values)
    assert bool(jnp.all(jnp.isfinite(slopes)))
