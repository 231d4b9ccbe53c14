"""A few gaps in Kronecker form: equal to the dense form, its derivatives, growth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.gp import (
    GaussianLikelihood,
    MultiTaskRateGP,
    append_rows,
    log_evidence,
    rate_data,
    with_data,
)
from perfusio_jax.gp.masked import MaskedPosterior, masked_posterior, missing_entries, room_for
from perfusio_jax.gp.updates import _with_room
from tests.gp.cases import N, T


@pytest.fixture(scope="module")
def pair(table):
    """The same gappy model in dense and in masked form; one row is padding."""
    x, y = table
    rng = np.random.default_rng(0)
    y = jnp.where(rng.random((N, T)) < 0.15, jnp.nan, y)
    weights = np.linspace(0.5, 2.0, N)
    noise = GaussianLikelihood(jnp.array([0.05, 0.1, 0.2]))
    dense = MultiTaskRateGP(x, y, noise, n_tasks=T, row_noise=weights, capacity=N + 1)
    assert not dense.is_complete and dense.n_missing == 0
    return dense, _with_room(dense, np.asarray(dense.data.present))


def test_evidence_and_its_gradient_equal_the_dense_form(pair):
    values, slopes = zip(*(eqx.filter_value_and_grad(log_evidence)(m) for m in pair), strict=True)
    assert pair[1].n_missing == 64
    assert float(values[0]) == pytest.approx(float(values[1]), abs=1e-9)
    for name in ("kernel", "likelihood", "target_scale"):
        for one, two in zip(*(jax.tree.leaves(getattr(s, name)) for s in slopes), strict=True):
            assert np.allclose(one, two, rtol=1e-7, atol=1e-8)


def test_posterior_equals_the_dense_form(pair, table):
    dense, masked = (m.condition() for m in pair)
    assert isinstance(masked.state.solved, MaskedPosterior)
    x_new = table[0][:5] + 0.3
    for one, two in zip(dense.posterior(x_new), masked.posterior(x_new), strict=True):
        assert np.allclose(one, two, atol=1e-10)
    size = N + 1
    a = jax.random.normal(jax.random.key(0), (size, size))
    rows = dense.state.row_present
    second = (a @ a.T) * rows[:, None] * rows[None, :]
    assert np.allclose(
        dense.state.solved.expected_reduction(second),
        masked.state.solved.expected_reduction(second),
        rtol=1e-9,
    )
    batch = jax.random.normal(jax.random.key(1), (2, size, T)) * rows[None, :, None]
    assert np.allclose(dense.state.solved.solve(batch), masked.state.solved.solve(batch), atol=1e-9)


def test_no_gap_is_the_complete_form(conditioned, table):
    solved = conditioned.state.solved
    none = missing_entries(jnp.ones((N, T), bool), 64)
    same = masked_posterior(solved, none)
    cross = jax.random.normal(jax.random.key(0), (2, N))
    assert np.allclose(same.covariance_reduction(cross), solved.covariance_reduction(cross))


def test_more_gaps_widen_the_room(pair, table):
    x = table[0]
    masked = pair[1].condition()
    gaps = jnp.full((25, T), jnp.nan).at[:, 0].set(1.0)
    grown = append_rows(masked, jnp.tile(x, (2, 1))[:25] + 0.1, gaps)
    assert grown.n_missing == 64
    more = append_rows(grown, jnp.tile(x, (2, 1))[:25] + 0.2, gaps)
    assert more.n_missing == 128
    whole = with_data(pair[0], rate_data(
        more.data.inputs, np.where(more.data.present, more.data.targets, np.nan),
        row_noise=more.data.row_noise,
    ))  # fmt: skip
    for one, two in zip(whole.posterior(x[:2]), more.posterior(x[:2]), strict=True):
        assert np.allclose(one, two, atol=1e-9)


def test_the_form_follows_the_gaps():
    present = np.ones((300, 9), bool)
    assert room_for(present) == 0
    present[:70, 0] = False
    assert room_for(present) == 128
    assert room_for(present[:100]) == 0
    present[:, :3] = False
    assert room_for(present) == 0
