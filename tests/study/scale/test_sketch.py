"""Quantiles by counts: the bound that is stated, for any values, merged in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError
from perfusio_jax.study.scale.sketch import (
    added,
    bucket_of,
    check_bits,
    empty,
    n_buckets,
    quantiles,
    relative_error,
)

BITS = 6
LEVELS = (0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0)
_count = jax.jit(added, static_argnums=3)


def counted(values, is_used=None, bits=BITS):
    rows = jnp.asarray(values, float)
    used = jnp.ones(rows.shape[0], bool) if is_used is None else jnp.asarray(is_used)
    return np.asarray(_count(jnp.asarray(empty(rows.shape[1], bits)), rows, used, bits))


def exact(values, levels=LEVELS):
    return np.quantile(np.asarray(values), levels, axis=0, method="inverted_cdf")


def assert_within(found, truth, bits=BITS):
    assert np.all(np.abs(found - truth) <= relative_error(bits) * np.abs(truth) + 2.0**-40)


@pytest.mark.parametrize("bits", [1, 7, 10])
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(size=(4000, 2)),
        lambda rng: np.exp(8.0 * rng.normal(size=(4000, 2))),
        lambda rng: rng.integers(-3, 4, (4000, 2)).astype(float),
        lambda rng: 1e6 + rng.uniform(size=(4000, 2)),
    ],
)
def test_quantiles_are_within_the_bound_that_is_stated(draw, bits):
    values = draw(np.random.default_rng(bits))
    assert_within(quantiles(counted(values, bits=bits), LEVELS, bits), exact(values), bits)


@given(st.lists(st.floats(-1e15, 1e15, width=64), min_size=1, max_size=16))
def test_of_any_values(values):
    # one size for all examples: the list over and over again has the same quantiles as rows of it
    rows = np.resize(np.asarray(values), 16 * len(values)).reshape(-1, 1)
    counts = sum(counted(part, bits=BITS) for part in rows.reshape(len(values), 16, 1))
    assert_within(quantiles(counts, LEVELS, BITS), exact(rows))


@given(st.floats(-1e15, 1e15), st.floats(-1e15, 1e15))
def test_buckets_rise_with_values(a, b):
    low, high = (int(v) for v in bucket_of(jnp.asarray(sorted((a, b))), BITS))
    assert low <= high
    assert 0 <= low and high < n_buckets(BITS)


def test_merging_is_adding_and_the_order_does_not_matter():
    values = np.random.default_rng(0).lognormal(size=(300, 3))
    whole = counted(values)
    parts = [counted(part) for part in np.split(np.random.default_rng(1).permutation(values), 3)]
    assert np.array_equal(sum(parts[::-1]), whole)


def test_rows_that_are_not_used_do_not_count_whatever_stands_in_them():
    values = np.array([[1.0], [np.nan], [2.0], [np.inf], [3.0]])
    used = [True, False, True, False, False]
    counts = counted(values, used)
    assert counts.sum() == 2
    assert_within(quantiles(counts, (0.5, 1.0), BITS), [[1.0], [2.0]])


def test_the_ends_of_the_range_are_told():
    found = quantiles(counted([[1e-14], [-1e-14], [1e30], [-1e30]]), (0.0, 0.5, 1.0), BITS)
    assert found[:, 0].tolist() == [-np.inf, 0.0, np.inf]
    assert np.isnan(quantiles(empty(1, BITS), (0.5,), BITS)).all()


def test_a_resolution_that_no_sketch_has_is_refused():
    for bits in (0, 15):
        with pytest.raises(ConfigError, match=f"sketch of {bits} bits"):
            check_bits(bits)
