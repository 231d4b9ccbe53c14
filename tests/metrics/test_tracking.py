import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.metrics import tracking_error


def test_root_mean_square_after_start_up():
    values = jnp.array([0.0, 0.0, 13.0, 15.0])
    assert np.isclose(tracking_error(values, 14.0, start=2), 1.0)
    assert np.isclose(tracking_error(values, 14.0), np.sqrt((2 * 14**2 + 2) / 4))


def test_batches_references_and_missing():
    values = jnp.array([[1.0, jnp.nan, 3.0], [jnp.nan, jnp.nan, jnp.nan]])
    result = tracking_error(values, jnp.ones((2, 3)))
    assert np.isclose(result[0], np.sqrt(2.0)) and jnp.isnan(result[1])
    jitted = jax.jit(jax.vmap(lambda v: tracking_error(v, 1.0)))(values)
    assert jnp.allclose(jitted, result, equal_nan=True)


def test_gradient_at_the_target_is_finite():
    grad = jax.grad(lambda v: tracking_error(v, 14.0))
    assert jnp.all(grad(jnp.full(3, 14.0)) == 0.0)
    assert jnp.allclose(grad(jnp.array([13.0, 15.0])), jnp.array([-0.5, 0.5]))


def test_refusals():
    with pytest.raises(DataError, match="reference has shape"):
        tracking_error(jnp.zeros(3), jnp.zeros(2))
    for start in (-1, 3):
        with pytest.raises(DataError, match=f"start={start}"):
            tracking_error(jnp.zeros(3), 1.0, start=start)
