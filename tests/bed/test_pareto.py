"""Non-dominated masks against the definition, and the hypervolume's face."""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perfusio_jax import metrics
from perfusio_jax._core import DataError
from perfusio_jax.bed import (
    compute_pareto_front,
    epsilon_indicator,
    hypervolume,
    hypervolume_gradient,
    igd_plus,
)


def by_definition(Y):
    return [not any((other >= y).all() and (other > y).any() for other in Y) for y in Y]


@given(arrays(float, (7, 3), elements=st.integers(0, 3).map(float)))
def test_mask_equals_the_definition(Y):
    assert compute_pareto_front(jnp.asarray(Y)).tolist() == by_definition(Y)


def test_missing_values_are_neither_on_the_front_nor_dominate():
    Y = jnp.asarray([[1.0, 1.0], [jnp.nan, 9.0], [0.5, 0.5]])
    assert compute_pareto_front(Y).tolist() == [True, False, False]


def test_mask_runs_under_jit_and_shapes_are_checked():
    Y = jnp.asarray(np.random.default_rng(0).random((20, 2)))
    np.testing.assert_array_equal(jax.jit(compute_pareto_front)(Y), compute_pareto_front(Y))
    with pytest.raises(DataError, match="must be"):
        compute_pareto_front(jnp.zeros(3))


def test_hypervolume_is_that_of_metrics():
    assert hypervolume is metrics.hypervolume


def test_indicators_are_those_of_metrics():
    assert igd_plus is metrics.igd_plus and epsilon_indicator is metrics.epsilon_indicator


@pytest.mark.parametrize("m", [2, 3, 4])
def test_gradient_of_the_volume_equals_differences(m):
    Y = np.random.default_rng(m).uniform(-0.2, 1.0, size=(7, m))
    ref = np.zeros(m)
    slopes = hypervolume_gradient(Y, ref)
    step = 1e-6

    def volume(points):
        return moocore.hypervolume(points, ref=ref, maximise=True)

    for i in range(7):
        for k in range(m):
            up, down = Y.copy(), Y.copy()
            up[i, k] += step
            down[i, k] -= step
            expected = (volume(up) - volume(down)) / (2 * step)
            np.testing.assert_allclose(slopes[i, k], expected, atol=1e-7)
    with pytest.raises(DataError, match="must be"):
        hypervolume_gradient(Y, ref[:1])
