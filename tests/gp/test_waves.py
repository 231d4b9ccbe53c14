"""Cosine and sine in plain arithmetic, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.gp.waves import cos_sin


@pytest.mark.parametrize(
    ("dtype", "reach", "bound"), [("float64", 1e5, 4e-16), ("float32", 1e3, 2e-7)]
)
def test_both_agree_with_the_library(dtype: str, reach: float, bound: float) -> None:
    rng = np.random.default_rng(0)
    quarters = np.arange(-40, 41) * np.pi / 2.0
    angle = np.concatenate([rng.uniform(-reach, reach, 20_000), quarters, [0.0, -0.0]])
    given = jnp.asarray(angle.astype(dtype))
    cos, sin = cos_sin(given)
    exact = np.asarray(given, np.float64)
    assert cos.dtype == sin.dtype == np.dtype(dtype)
    np.testing.assert_allclose(np.asarray(cos, float), np.cos(exact), rtol=0, atol=bound)
    np.testing.assert_allclose(np.asarray(sin, float), np.sin(exact), rtol=0, atol=bound)


def test_derivatives_are_those_of_cosine_and_sine() -> None:
    angle = jnp.linspace(-20.0, 20.0, 101)
    cos_slope = jax.vmap(jax.grad(lambda a: cos_sin(a)[0]))(angle)
    sin_bend = jax.vmap(jax.jacfwd(jax.jacrev(lambda a: cos_sin(a)[1])))(angle)
    np.testing.assert_allclose(cos_slope, -np.sin(angle), atol=1e-15)
    np.testing.assert_allclose(sin_bend, -np.sin(angle), atol=1e-15)


def test_what_is_not_finite_stays_so() -> None:
    cos, sin = cos_sin(jnp.asarray([jnp.inf, jnp.nan]))
    assert np.isnan(cos).all()
    assert np.isnan(sin).all()
