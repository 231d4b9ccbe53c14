import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from perfusio_jax._core import DataError
from perfusio_jax.metrics import (
    central_coverage,
    crps,
    pi_coverage,
    probability_integral_transform,
    sharpness,
)

RNG = np.random.default_rng(3)
CRPS = jax.jit(crps, static_argnames="fair")


def test_coverage_counts_inside_and_on_the_edge():
    y = jnp.array([[1.0, 2.0], [1.5, 2.5], [0.5, 1.5]])
    zero = jnp.zeros_like(y)
    assert jnp.array_equal(pi_coverage(y, zero, zero + 3.0), jnp.ones(2))
    assert jnp.allclose(pi_coverage(y, zero, zero + 2.0), jnp.array([1.0, 2 / 3]))
    assert pi_coverage(y, y, y).tolist() == [1.0, 1.0]
    assert pi_coverage(y, zero + 5, zero + 6).tolist() == [0.0, 0.0]


def test_coverage_leaves_missing_out_and_counts_failed_intervals_as_misses():
    y = jnp.array([[1.0, jnp.nan], [jnp.nan, jnp.nan], [5.0, jnp.nan]])
    lo, hi = jnp.zeros_like(y), jnp.full_like(y, 3.0)
    result = pi_coverage(y, lo, hi)
    assert result[0] == 0.5 and jnp.isnan(result[1])
    assert pi_coverage(y, lo, hi.at[0, 0].set(jnp.nan))[0] == 0.0


def test_coverage_over_leading_axes():
    y = RNG.normal(size=(4, 5, 2))
    flat = pi_coverage(y.reshape(-1, 2), y.reshape(-1, 2) - 1, y.reshape(-1, 2) + y[0, 0, 0])
    assert jnp.array_equal(pi_coverage(y, y - 1, y + y[0, 0, 0]), flat)


def test_sharpness_is_the_mean_width():
    lo = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    assert sharpness(lo, lo + jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("fair", [False, True])
def test_crps_against_all_pairs(fair):
    y, x = RNG.normal(size=(4, 2)), RNG.normal(size=(4, 7, 2))
    pairs = np.abs(x[:, :, None] - x[:, None, :]).sum(axis=(1, 2)) / (7 * 6 if fair else 49)
    expected = (np.abs(x - y[:, None]).mean(axis=1) - 0.5 * pairs).mean(axis=0)
    assert np.allclose(CRPS(y, x, fair=fair), expected, rtol=1e-13)


def test_crps_against_the_gaussian_closed_form():
    """Fair CRPS of S = 400 draws at 2000 points: standard error below 0.6 / sqrt(2000)."""
    mean, sd = 1.0, 2.0
    y = RNG.normal(mean, sd, size=(2000, 1))
    x = RNG.normal(mean, sd, size=(2000, 400, 1))
    z = (y - mean) / sd
    exact = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    error = np.abs(CRPS(y, x, fair=True) - exact.mean())
    assert error < 5 * sd / np.sqrt(2000 * 400)


@given(
    st.lists(st.floats(-50, 50), min_size=6, max_size=6),
    st.floats(-50, 50),
    st.floats(-20, 20),
    st.floats(0.1, 10),
)
def test_crps_properties(draws, y, shift, scale):
    x, truth = jnp.array(draws).reshape(1, 6, 1), jnp.array([[y]])
    value = CRPS(truth, x)
    assert value[0] >= -1e-9
    assert value[0] <= jnp.mean(jnp.abs(x - y)) + 1e-9
    moved = CRPS(truth * scale + shift, x * scale + shift)
    assert jnp.allclose(moved, scale * value, rtol=1e-9, atol=1e-9)
    assert jnp.allclose(CRPS(truth, x[:, ::-1]), value, rtol=1e-10, atol=1e-10)


def test_crps_of_one_sample_is_the_absolute_error_and_missing_is_left_out():
    y = jnp.array([[1.0, jnp.nan], [2.0, jnp.nan], [jnp.nan, jnp.nan]])
    x = jnp.zeros((3, 1, 2))
    result = CRPS(y, x)
    assert result[0] == 1.5 and jnp.isnan(result[1])


def test_crps_gradient():
    y, x = jnp.asarray(RNG.normal(size=(3, 2))), jnp.asarray(RNG.normal(size=(3, 5, 2)))
    y = y.at[1, 0].set(jnp.nan)

    def f(s):
        return jnp.sum(CRPS(y, s))

    g = jax.jit(jax.grad(f))(x)
    assert jnp.all(jnp.isfinite(g)) and jnp.all(g[1, :, 0] == 0.0)
    h = jnp.zeros_like(x).at[2, 3, 1].set(1e-6)
    assert jnp.isclose(g[2, 3, 1], (f(x + h) - f(x - h)) / 2e-6, rtol=1e-6)


def test_central_coverage_of_a_calibrated_forecast():
    """2000 binomial trials per level: four standard errors are below 0.045."""
    x, y = RNG.normal(size=(2000, 200, 2)), RNG.normal(size=(2000, 2))
    levels = jnp.array([0.5, 0.8, 0.9])
    covered = jax.jit(central_coverage)(y, x, levels)
    assert covered.shape == (3, 2)
    assert jnp.all(jnp.abs(covered - levels[:, None]) < 0.045)
    assert jnp.all(jnp.abs(jax.jit(central_coverage)(2 * y, x, levels) - levels[:, None]) > 0.1)


def test_pit_is_a_midrank():
    x = jnp.array([[[0.0], [1.0], [2.0]]])
    for y, expected in ((-1.0, 0.125), (0.5, 0.375), (1.0, 0.5), (9.0, 0.875)):
        assert probability_integral_transform(jnp.array([[y]]), x)[0, 0] == expected
    assert jnp.isnan(probability_integral_transform(jnp.array([[jnp.nan]]), x)[0, 0])
    y, x = RNG.normal(size=(2000, 1)), RNG.normal(size=(2000, 99, 1))
    pit = np.asarray(probability_integral_transform(y, x))[:, 0]
    assert stats.kstest(pit, "uniform").pvalue > 1e-4


def test_strict_types(strict_dtypes):
    y, x = jnp.asarray(RNG.normal(size=(3, 2))), jnp.asarray(RNG.normal(size=(3, 5, 2)))
    assert jnp.allclose(CRPS(y, x), crps(y, x))
    for dtype in (jnp.float64, jnp.float32):
        yy, xx = y.astype(dtype), x.astype(dtype)
        assert crps(yy, xx, fair=True).dtype == dtype
        assert pi_coverage(yy, yy, yy).dtype == dtype
        assert probability_integral_transform(yy, xx).dtype == dtype


def test_refusals():
    y, x = jnp.zeros((3, 2)), jnp.zeros((3, 4, 2))
    with pytest.raises(DataError, match="share one shape"):
        pi_coverage(y, y, y[:2])
    with pytest.raises(DataError, match="share one shape"):
        sharpness(y, x)
    with pytest.raises(DataError, match=r"samples \(N, S, species\)"):
        crps(y, x[:, :, :1])
    with pytest.raises(DataError, match="at least one draw"):
        crps(y, x[:, :0])
    with pytest.raises(DataError, match="at least two samples"):
        crps(y, x[:, :1], fair=True)
