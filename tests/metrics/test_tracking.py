import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.metrics import naae, nauc, rank_sum, total_naae, tracking_error


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


def test_naae_by_hand():
    reference = jnp.array([[2.0, 4.0], [2.0, 4.0], [2.0, 4.0]])
    values = jnp.array([[0.0, 0.0], [1.0, 4.0], [3.0, 2.0]])
    np.testing.assert_allclose(naae(values, reference), [0.5, 0.25])
    np.testing.assert_allclose(naae(values, reference, start=0), [2 / 3, 0.5])
    assert np.isclose(total_naae(values, reference), 0.375)
    np.testing.assert_allclose(total_naae(jnp.stack([values, reference]), reference), [0.375, 0.0])


def test_nauc_by_hand():
    # scaled: 0, 0.5, 1, 0.5; trapezia 0.25, 0.75, 0.75
    curve = jnp.array([-4.0, -3.0, -2.0, -3.0])
    assert np.isclose(nauc(curve), 1.75 / 3)
    assert np.isclose(nauc(jnp.concatenate([curve, jnp.full(5, jnp.nan)])), 1.75 / 3)
    assert np.isclose(nauc(7.0 * curve + 3.0), 1.75 / 3)
    assert jnp.isnan(nauc(jnp.array([1.0]))) and jnp.isnan(nauc(jnp.ones(4)))


def test_rank_sum_by_hand():
    ranks = rank_sum(jnp.array([0.4, 0.3, 0.5]), jnp.array([0.9, 0.7, 0.7]))
    np.testing.assert_allclose(ranks, [2 + 1, 1 + 2.5, 3 + 2.5])


def test_refusals_of_scores():
    with pytest.raises(DataError, match="do not fit"):
        naae(jnp.zeros((4, 2)), jnp.ones((3, 2)))
    with pytest.raises(DataError, match="start=3"):
        naae(jnp.zeros((3, 2)), jnp.ones((3, 2)), start=3)
    with pytest.raises(DataError, match="zero"):
        naae(jnp.zeros((3, 2)), jnp.zeros((3, 2)))
    with pytest.raises(DataError, match="one series"):
        nauc(jnp.zeros((2, 3)))
    with pytest.raises(DataError, match="one pair each"):
        rank_sum(jnp.zeros(2), jnp.zeros(3))
    with pytest.raises(DataError, match="ranked"):
        rank_sum(jnp.array([0.1, jnp.nan]), jnp.zeros(2))
