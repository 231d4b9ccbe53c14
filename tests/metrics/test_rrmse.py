import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.metrics import normalisation_scale, rrmse_horizon

RNG = np.random.default_rng(0)
TRUE = RNG.normal(size=(5, 8, 3)) * np.array([1.0, 10.0, 0.1])
PRED = TRUE + 0.1 * RNG.normal(size=TRUE.shape)
SCORE = jax.jit(rrmse_horizon, static_argnums=(2, 3))


def by_loops(true, pred, n_tail=0, eps=1e-8):
    n_runs, n_steps, n_species = true.shape
    result = np.full((n_steps, n_species), np.nan)
    for k in range(n_species):
        values = [v for r in range(n_runs) for v in true[r, n_tail:, k] if not np.isnan(v)]
        for h in range(n_steps):
            errors = [pred[r, h, k] - true[r, h, k] for r in range(n_runs)]
            errors = [e for e in errors if not np.isnan(e)]
            if errors:
                result[h, k] = np.sqrt(np.mean(np.square(errors))) / (np.std(values) + eps)
    return result


@pytest.mark.parametrize("n_tail", [0, 3])
def test_against_loops_with_missing_values(n_tail):
    true = TRUE.copy()
    true[RNG.uniform(size=true.shape) < 0.2] = np.nan
    true[:, 4, 1] = np.nan
    expected = by_loops(true, PRED, n_tail)
    assert np.allclose(SCORE(true, PRED, None, n_tail), expected, rtol=1e-12, equal_nan=True)
    assert np.isnan(expected).sum() == 1


def test_horizon_keeps_the_first_rows():
    assert rrmse_horizon(TRUE, PRED, horizon=3).shape == (3, 3)
    assert jnp.array_equal(SCORE(TRUE, PRED, 3, 0), SCORE(TRUE, PRED, None, 0)[:3])


def test_leading_steps_leave_the_scale_only():
    true, pred = np.array(TRUE), np.array(PRED)
    true[:, :2] *= 100.0
    pred[:, :2] = true[:, :2] + 1.0
    assert np.allclose(normalisation_scale(jnp.asarray(true[:, 2:])), true[:, 2:].std(axis=(0, 1)))
    trimmed = SCORE(true, pred, None, 2)
    assert np.allclose(trimmed[2:], by_loops(true, pred, 2)[2:])
    assert np.all(trimmed[0] > SCORE(true, pred, None, 0)[0])


def test_perfect_and_failed_forecasts():
    assert jnp.all(SCORE(TRUE, TRUE, None, 0) == 0.0)
    failed = PRED.copy()
    failed[0, 2, 1] = np.nan
    is_bad = jnp.isnan(SCORE(TRUE, failed, None, 0))
    assert is_bad[2, 1] and is_bad.sum() == 1


def test_constant_species_is_finite_through_eps():
    flat = np.ones((3, 4, 1))
    assert np.isclose(rrmse_horizon(flat, flat + 1.0, eps=0.5)[0, 0], 2.0)


def test_gradient_is_finite_at_a_perfect_forecast():
    def loss(p):
        return jnp.nansum(rrmse_horizon(jnp.asarray(TRUE), p))

    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(loss))(jnp.asarray(TRUE))))
    p = jnp.asarray(PRED)
    h = jnp.zeros_like(p).at[1, 2, 0].set(1e-6)
    numeric = (loss(p + h) - loss(p - h)) / 2e-6
    assert jnp.isclose(jax.jit(jax.grad(loss))(p)[1, 2, 0], numeric, rtol=1e-6)


def test_missing_observation_does_not_poison_the_gradient():
    true = jnp.asarray(TRUE).at[0, 0, 0].set(jnp.nan)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(rrmse_horizon(true, p))))(jnp.asarray(PRED))
    assert jnp.all(jnp.isfinite(grads)) and grads[0, 0, 0] == 0.0


def test_jit_equals_eager_and_strict(strict_dtypes):
    eager = rrmse_horizon(jnp.asarray(TRUE), jnp.asarray(PRED))
    assert jnp.allclose(SCORE(jnp.asarray(TRUE), jnp.asarray(PRED), None, 0), eager, rtol=1e-12)
    single = rrmse_horizon(jnp.asarray(TRUE, jnp.float32), jnp.asarray(PRED, jnp.float32))
    assert single.dtype == jnp.float32


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pred": PRED[:, :3]}, "share one shape"),
        ({"true": TRUE[0], "pred": PRED[0]}, "share one shape"),
        ({"horizon": 0}, r"horizon=0 must lie in 1\.\.8"),
        ({"horizon": 9}, "horizon=9"),
        ({"n_tail": 8}, r"n_tail=8 must lie in 0\.\.7"),
        ({"n_tail": -1}, "n_tail=-1"),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(DataError, match=message):
        rrmse_horizon(**{"true": TRUE, "pred": PRED, **kwargs})
