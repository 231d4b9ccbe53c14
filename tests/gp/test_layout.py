"""Indexed rows and tables: round trip, gaps, refusals, padding."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax.gp import from_indexed, rate_data, to_indexed
from perfusio_jax.gp.scaling import fit_scaling


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 1000))
def test_round_trip_with_gaps(n, tasks, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(n, tasks))
    y[rng.random(y.shape) < 0.3] = np.nan
    y[:, 0] = 1.0
    rows, flat = to_indexed(x, y)
    back_x, back_y = from_indexed(rows, flat, tasks)
    assert np.array_equal(back_x, x)
    assert np.array_equal(back_y, y, equal_nan=True)


def test_a_repeated_measurement_opens_a_second_row():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    x, y = from_indexed(rows, np.array([1.0, 2.0, 3.0]), 2)
    assert x.shape == (2, 1)
    assert np.array_equal(y, [[1.0, 3.0], [2.0, np.nan]], equal_nan=True)


@pytest.mark.parametrize("task", [-1.0, 2.0, 0.5])
def test_a_wrong_task_index_is_named(task):
    with pytest.raises(DataError, match="allowed are the integers 0 to 1"):
        from_indexed(np.array([[0.0, task]]), np.array([1.0]), 2)


def test_bad_tables_are_refused():
    good_x, good_y = np.zeros((3, 2)), np.zeros((3, 2))
    with pytest.raises(DataError, match="column 1"):
        rate_data(np.array([[0.0, np.nan]]), np.zeros((1, 1)))
    with pytest.raises(DataError, match="infinite"):
        rate_data(good_x, np.full((3, 2), np.inf))
    with pytest.raises(DataError, match="task 1"):
        rate_data(good_x, np.column_stack([np.zeros(3), np.full(3, np.nan)]))
    with pytest.raises(DataError, match="capacity 2"):
        rate_data(good_x, good_y, capacity=2)
    with pytest.raises(DataError, match="row noise"):
        rate_data(good_x, good_y, row_noise=np.zeros(3))


def test_padding_is_marked():
    data = rate_data(np.ones((2, 1)), np.ones((2, 1)), capacity=5)
    assert np.array_equal(data.row_present, [True, True, False, False, False])


def test_scaling_takes_logs_and_leaves_day_zero():
    x = np.column_stack([np.geomspace(0.1, 100.0, 20), np.arange(20.0)])
    scaling = fit_scaling(x, log_columns=(0,), day_column=1)
    scaled = scaling(jnp.asarray(x))
    assert np.allclose([scaled[:, 0].mean(), scaled[:, 0].std()], [0.0, 1.0], atol=1e-12)
    assert float(scaled[0, 1]) == 0.0
    assert bool(jnp.all(jnp.isfinite(scaling(jnp.array([[-5.0, 1.0]])))))
