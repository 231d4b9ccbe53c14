"""Calibration finds constants that made the data, respects its prior, and stands outliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import BALANCED, ConfigError
from perfusio_jax.embedding import PRIOR_CLONE, CloneRegistry
from perfusio_jax.hybrid import CALIBRATED, ResidualBasis, calibrate
from perfusio_jax.hybrid.calibrate import N_CONSTANTS, Intervals, with_constants
from perfusio_jax.hybrid.family import CloneFamily, family_prior
from perfusio_jax.hybrid.transition import prior_step
from perfusio_jax.mechanistic import CHOPerfusionModel

BASIS = ResidualBasis(
    [0.002, 0.002, 0.01, 0.01, 0.005, 0.02, 0.01, 0.01, 0.5], jnp.ones(9), jnp.ones(9)
)
SHIFTED = ("mu_max", "q_glc_max", "q_gln_max", "q_mAb_nongrowth", "alpha_amm_gln")
FACTORS = np.array([1.25, 0.8, 1.2, 1.4, 0.9])


@pytest.fixture(scope="module")
def intervals():
    """Rates of a mechanism with five other constants and no lactate switch, exactly known."""
    theta = jnp.zeros(N_CONSTANTS).at[-1].set(-6.0)
    index = jnp.asarray([CALIBRATED.index(n) for n in SHIFTED])
    theta = theta.at[index].set(jnp.log(FACTORS))
    true = with_constants(CHOPerfusionModel(), theta)
    rng = np.random.default_rng(0)
    low = [1.0, 0.05, 0.5, 0.2, 0.3, 0.5, 0.3, 0.05, 10.0]
    high = [50.0, 4.0, 8.0, 6.0, 2.0, 20.0, 5.0, 3.0, 900.0]
    states = jnp.asarray(rng.uniform(low, high, (96, 9)))
    controls = jnp.asarray(
        rng.uniform([0.5, 0.05, 2.0, 35.0, 700.0, 0.0], [2.0, 0.3, 8.0, 37.5, 1050.0, 5.0], (96, 6))
    )
    dt = jnp.full(96, 24.0)
    rates = jax.jit(jax.vmap(lambda c, u: prior_step(true, c, u, dt[0]).rates))(states, controls)
    return Intervals(states, controls, rates, dt, jnp.ones(96, bool)), theta


def test_constants_that_made_the_rates_are_found(intervals):
    data, theta = intervals
    model, info = calibrate(CHOPerfusionModel(), BASIS, data, tau=1.0, thinning=1.0, max_steps=120)
    share = np.asarray(info.residual_after) / np.asarray(info.residual_before)
    # the prior keeps a little of the switch, which shows in glucose and lactate only
    bound = np.full(9, 0.01)
    bound[[BALANCED.index("Glc"), BALANCED.index("Lac")]] = 0.25
    assert np.all(share < bound)
    for name, factor in zip(SHIFTED, FACTORS, strict=True):
        moved = float(getattr(model.kinetics, name) / getattr(CHOPerfusionModel().kinetics, name))
        assert moved == pytest.approx(factor, rel=0.05)
    assert float(model.kinetics.consumes_lactate) < 0.1
    assert float(theta[-1]) < 0


def test_rows_that_are_padding_do_not_count(intervals):
    data, _ = intervals
    used = jnp.arange(96) < 80
    spoilt = data._replace(rates=jnp.where(used[:, None], data.rates, 1e6), is_used=used)
    clean = data._replace(is_used=used)
    a = calibrate(CHOPerfusionModel(), BASIS, spoilt)[1].constants
    b = calibrate(CHOPerfusionModel(), BASIS, clean)[1].constants
    assert np.array_equal(a, b)


def test_one_spoilt_interval_has_bounded_pull(intervals):
    data, _ = intervals
    spoilt = data._replace(rates=data.rates.at[3].multiply(5.0))
    a = calibrate(CHOPerfusionModel(), BASIS, data)[1].constants
    b = calibrate(CHOPerfusionModel(), BASIS, spoilt)[1].constants
    assert np.max(np.abs(np.asarray(a - b))[:-1]) < 0.2


def test_without_data_the_prior_stays(intervals):
    data, _ = intervals
    centre = jnp.full(N_CONSTANTS, 0.1)
    empty = data._replace(is_used=jnp.zeros(96, bool))
    _, info = calibrate(CHOPerfusionModel(), BASIS, empty, centre=centre)
    assert np.allclose(info.constants, centre, atol=1e-12)


def test_family_prior_shrinks_and_widens():
    one = family_prior(jnp.full((1, N_CONSTANTS), 0.6))
    many = family_prior(jnp.full((50, N_CONSTANTS), 0.6))
    assert np.allclose(one[0], 0.3)  # one clone weighs as much as the prior
    assert np.allclose(many[0], 0.6, atol=0.02)
    assert np.all(np.asarray(many[1])[:-1] < np.asarray(one[1])[:-1])
    apart = family_prior(jnp.linspace(-2.0, 2.0, 20)[:, None] * jnp.ones((1, N_CONSTANTS)))
    assert np.all(np.asarray(apart[1])[:-1] > 0.9)


def test_each_clone_has_its_own_mechanism_and_the_unknown_one_the_mean():
    table = jnp.zeros((2, N_CONSTANTS)).at[:, 0].set(jnp.asarray([0.1, 0.5]))
    family = CloneFamily(
        CloneRegistry.from_names(("A", "B")), CHOPerfusionModel(), table, table.mean(axis=0)
    )
    base = float(CHOPerfusionModel().kinetics.mu_max)
    for index, factor in ((0, 0.1), (1, 0.5), (PRIOR_CLONE, 0.3)):
        mech = jax.jit(lambda i: family.mechanism(i))(jnp.asarray(float(index)))
        assert float(mech.kinetics.mu_max) == pytest.approx(base * np.exp(factor))
    assert family.index("B") == 1
    assert family.index("nobody", unknown="prior") == PRIOR_CLONE
    with pytest.raises(ConfigError, match="nobody"):
        family.index("nobody")
    with pytest.raises(ConfigError, match="7"):
        family.index(7)


def test_refusals(intervals):
    with pytest.raises(ConfigError, match="tau"):
        calibrate(CHOPerfusionModel(), BASIS, intervals[0], tau=0.0)
    with pytest.raises(ConfigError, match="thinning"):
        calibrate(CHOPerfusionModel(), BASIS, intervals[0], thinning=-1.0)
