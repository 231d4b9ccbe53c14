"""New rows: block update equals refactorisation, and few compiles while a table grows."""

import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.gp import (
    DensePosterior,
    KroneckerPosterior,
    MultiTaskRateGP,
    append_rows,
    rate_data,
    with_data,
)
from perfusio_jax.gp.posterior import safe_cholesky
from tests.gp.cases import N, T


@pytest.mark.parametrize("is_gappy", [False, True], ids=["kronecker", "dense"])
def test_append_equals_solving_the_longer_table(table, is_gappy):
    x, y = table
    # a gap in the old rows and one in the new ones
    y = y.at[4, 1].set(jnp.nan).at[21, 0].set(jnp.nan) if is_gappy else y
    weights = np.linspace(0.5, 2.0, N)
    model = MultiTaskRateGP(x[:18], y[:18], n_tasks=T, capacity=N + 4, row_noise=weights[:18])
    grown = append_rows(model.condition(), x[18:21], y[18:21], row_noise=weights[18:21])
    grown = append_rows(grown, x[21:], y[21:], row_noise=weights[21:])
    form = DensePosterior if is_gappy else KroneckerPosterior
    assert grown.state is not None and isinstance(grown.state.solved, form)
    whole = with_data(model, rate_data(x, y, row_noise=weights, capacity=N + 4))
    for one, two in zip(grown.posterior(x[:4]), whole.posterior(x[:4]), strict=True):
        assert np.allclose(one, two, atol=1e-10)
    if is_gappy:
        # the factor itself, not only what it predicts
        assert np.allclose(grown.state.solved.factor, whole.state.solved.factor, atol=1e-10)


def test_a_growing_table_compiles_at_most_three_times(table):
    rng = np.random.default_rng(0)
    racks, days, width = 3, 28, table[0].shape[1]
    x, y = rng.normal(size=(days, racks, width)), rng.normal(size=(days, racks, T))
    point = jnp.asarray(rng.normal(size=(racks, width)))
    model = MultiTaskRateGP(x[0], y[0], n_tasks=T, capacity=32).condition()
    # eager helpers (array conversions) are compiled once per shape, whatever the model does
    counts = []
    for day in range(1, days):
        before = _jitted()
        model = append_rows(model, x[day], y[day], growth=32)
        model.predict_with_ci(point)
        counts.append(_jitted() - before)
    assert int(jnp.sum(model.data.row_present)) == racks * days
    # capacities 32, 64 and 96: one compile each of the update and of the prediction
    assert sum(counts) <= 2 * 3
    assert sum(count > 0 for count in counts) <= 3


def _jitted():
    from perfusio_jax.gp import exact_gp, updates

    return sum(f.n_programs() for f in (updates._recondition, exact_gp._posterior))


def test_a_singular_matrix_gets_the_least_that_helps():
    a = jnp.ones((4, 4))
    factor, jitter = safe_cholesky(a)
    assert bool(jnp.all(jnp.isfinite(factor))) and 0 < float(jitter) <= 1e-4
    assert np.allclose(factor @ factor.T, a, atol=1e-3)
    _, none = safe_cholesky(jnp.eye(4))
    assert float(none) == 0.0
