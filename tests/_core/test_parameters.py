"""Constrained parameters: legal outside, free inside, fixed limits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError, bounded, positive, trainable, unwrap


@given(st.floats(1e-12, 1e12))
def test_a_positive_start_is_kept(value: float):
    assert float(positive(value).value) == pytest.approx(value, rel=1e-12)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_a_bounded_start_is_kept(place: float, lower: float, width: float):
    value = lower + place * width
    made = bounded(value, lower, lower + width)
    assert float(made.value) == pytest.approx(value, abs=1e-9 * max(1.0, abs(lower), width))


@given(st.floats(-700, 700))
def test_any_free_number_is_legal(raw: float):
    free = jnp.asarray(raw)
    assert float(eqx.tree_at(lambda p: p.raw, positive(1.0), free).value) > 0
    inside = eqx.tree_at(lambda p: p.raw, bounded(0.5, -1.0, 2.0), free).value
    assert -1.0 <= float(inside) <= 2.0


def test_gradients_reach_the_free_leaf_only():
    def value(parameter):
        return jnp.sum(parameter.value**2)

    for made, step in ((positive(2.0), 1e-6), (bounded(0.3, 0.0, 1.0), 1e-6)):
        slope = jax.grad(value)(made)
        up = eqx.tree_at(lambda p: p.raw, made, made.raw + step)
        down = eqx.tree_at(lambda p: p.raw, made, made.raw - step)
        np.testing.assert_allclose(slope.raw, (value(up) - value(down)) / (2 * step), rtol=1e-6)
    slope = jax.grad(value)(bounded(0.3, 0.0, 1.0))
    assert float(slope.lower) == 0.0 and float(slope.upper) == 0.0


def test_trees_are_opened_together_with_foreign_wrappers():
    foreign = paramax.Parameterize(jnp.exp, jnp.zeros(2))
    tree = {"a": positive([1.0, 2.0]), "b": [bounded(0.5, 0.0, 1.0), foreign], "c": 3}
    opened = unwrap(tree)
    np.testing.assert_allclose(opened["a"], [1.0, 2.0])
    np.testing.assert_allclose(opened["b"][0], 0.5)
    np.testing.assert_allclose(opened["b"][1], 1.0)
    assert opened["c"] == 3


def test_the_filter_leaves_limits_and_frozen_parts_out():
    frozen = paramax.NonTrainable(jnp.ones(2))
    tree = {"p": positive(1.0), "b": bounded(0.5, 0.0, 1.0), "f": frozen, "n": 3, "x": jnp.ones(2)}
    moved, kept = eqx.partition(tree, trainable(tree))
    assert len(jax.tree.leaves(moved)) == 3
    assert moved["b"].lower is None and kept["b"].raw is None
    assert jax.tree.leaves(moved["f"]) == [] and kept["n"] == 3
    jax.tree.map(np.testing.assert_array_equal, eqx.combine(moved, kept), tree)


def test_new_numbers_do_not_compile_again(traces, strict_dtypes):
    square = jax.jit(traces(lambda p: p.value * p.value))
    for value in (1.0, np.float64(2.0), jnp.asarray(3.0), 4):
        square(positive(value))
    assert traces.count == 1
    assert positive(jnp.ones((), jnp.float32)).value.dtype == jnp.float32


def test_wrapping_works_under_jit_and_vmap():
    values = jnp.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(jax.vmap(lambda v: positive(v).value)(values), values)
    np.testing.assert_allclose(jax.jit(lambda v: bounded(v, 0.0, 3.0).value)(values), values)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), [1.0, -2.0]])
def test_a_start_that_is_not_positive_is_refused(value):
    with pytest.raises(ConfigError, match="must be finite and > 0"):
        positive(value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((0.5, 1.0, 0.0), "inverted: lower 1.0 must be below upper 0.0"),
        ((0.0, 0.0, 1.0), "strictly between 0.0 and 1.0"),
        ((2.0, 0.0, 1.0), "was given 2.0"),
        ((float("nan"), 0.0, 1.0), "was given nan"),
    ],
)
def test_limits_that_cannot_hold_are_refused(args, message: str):
    with pytest.raises(ConfigError, match=message):
        bounded(*args)
