import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, SimulationError
from perfusio_jax.chemistry import (
    bleed_trigger,
    constant_volume_harvest_rate,
    perfusion_volume_step,
)


def test_harvest_is_what_the_bleed_leaves():
    assert np.isclose(constant_volume_harvest_rate(0.01, 0.0015), 0.0085)
    assert constant_volume_harvest_rate(0.01, 0.01) == 0.0
    rates = constant_volume_harvest_rate(jnp.array([1.0, 2.0]), 0.5)
    assert jnp.array_equal(rates, jnp.array([0.5, 1.5]))


@pytest.mark.parametrize("bleed", [0.02, jnp.array([0.001, 0.02])])
def test_bleed_above_inflow_is_refused(bleed):
    with pytest.raises(ConfigError, match=r"exceeds the inflow"):
        constant_volume_harvest_rate(0.01, bleed)
    assert issubclass(ConfigError, ValueError)
    assert float(jnp.min(jax.jit(constant_volume_harvest_rate)(0.01, bleed))) < 0.0


def test_volume_follows_the_flows():
    assert np.isclose(perfusion_volume_step(0.25, 0.01, 0.002, 0.008), 0.25, atol=1e-15)
    assert np.isclose(perfusion_volume_step(0.25, 0.01, 0.0, 0.0, 12.0), 0.37)
    assert jnp.isclose(jax.grad(perfusion_volume_step, 1)(0.25, 0.01, 0.0, 0.0, 12.0), 12.0)


def test_dry_reactor_is_refused():
    with pytest.raises(SimulationError, match="may not remove more"):
        perfusion_volume_step(0.25, 0.0, 0.02, 0.0)
    with pytest.raises(RuntimeError):
        perfusion_volume_step(jnp.array([0.25, 0.01]), 0.0, 0.001, 0.0)


@pytest.mark.parametrize(
    ("vcv", "expected"), [(35.0, 0.35), (30.0, 0.10), (12.0, 0.10), (60.0, 0.40)]
)
def test_bleed_trigger_values(vcv, expected):
    result = bleed_trigger(vcv, 30.0, 0.10, 0.40, k_bleed=0.05)
    assert isinstance(result, float) and np.isclose(result, expected)
    jitted = jax.jit(bleed_trigger)(vcv, 30.0, 0.10, 0.40, 0.05)
    assert np.isclose(jitted, expected)


def test_bleed_trigger_on_arrays_and_missing():
    vcv = jnp.array([35.0, 20.0, jnp.nan])
    result = jax.vmap(lambda v: bleed_trigger(v, 30.0, 0.1, 0.4, 0.05))(vcv)
    assert jnp.allclose(result, jnp.array([0.35, 0.1, jnp.nan]), equal_nan=True)
    assert jnp.allclose(bleed_trigger(vcv, 30.0, 0.1, 0.4, 0.05), result, equal_nan=True)
    assert np.isnan(bleed_trigger(float("nan"), 30.0, 0.1, 0.4))
    slope = jax.grad(lambda v: bleed_trigger(v, 30.0, 0.1, 0.4, 0.05))
    assert jnp.isclose(slope(32.0), 0.05) and slope(20.0) == 0.0


def test_inverted_bleed_limits_are_refused():
    with pytest.raises(ConfigError, match="base must be at most max"):
        bleed_trigger(35.0, 30.0, 0.5, 0.4)
