"""Odd data: a finite result with a warning that names the cause, or a typed refusal."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.gp import (
    DataWarning,
    FitConfig,
    GaussianLikelihood,
    MultiTaskRateGP,
    find_problems,
    fit,
)

CONFIG = FitConfig(max_iterations=12, n_restarts=1)


def make(count=12, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=count), np.arange(count) % 5])
    return x, np.sin(x[:, :1]) * np.array([[1.0, 2.0]]) + 0.1 * rng.normal(size=(count, 2))


def survives(x, y, match, **options):
    """Builds, fits and predicts; every number is finite and the warning names the cause."""
    with pytest.warns(DataWarning, match=match):
        # one capacity for all cases, so that the search is compiled once
        model = MultiTaskRateGP(x, y, n_tasks=2, capacity=24, **options)
    fitted, report = fit(model, key=jax.random.key(0), config=CONFIG)
    result = fitted.predict_with_ci(x[:1] + 0.1)
    assert all(np.all(np.isfinite(v)) for v in result.values())
    assert np.isfinite(float(report.log_evidence))
    assert np.all(result["q10"] < result["q90"])
    return fitted


def test_one_row():
    x, y = make(1)
    survives(x, y, "one row only")


def test_constant_targets():
    x, y = make()
    y[:, 1] = 7.0
    survives(x, y, "target 1 is constant")


def test_duplicated_rows():
    x, y = make()
    fitted = survives(np.vstack([x, x]), np.vstack([y, y]), "12 of 24 rows repeat")
    assert int(jnp.sum(fitted.data.row_present)) == 24


def test_outlier():
    x, y = make()
    y[4, 0] = 1e6
    survives(x, y, "target 0 holds an outlier, 1e\\+06")


def test_ordinary_data_pass_in_silence():
    x, y = make()
    assert find_problems(x, y) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultiTaskRateGP(x, y, n_tasks=2)


def test_a_species_never_measured_is_refused():
    x, y = make()
    y[:, 1] = np.nan
    with pytest.raises(DataError, match="task 1 has no target"):
        MultiTaskRateGP(x, y, n_tasks=2)


def test_intervals_widen_to_the_prior_far_outside():
    x, y = make()
    model = MultiTaskRateGP(x, y, n_tasks=2).condition()
    points = np.array([[0.0, 2.0], [5.0, 2.0], [50.0, 2.0], [1e6, 2.0]])
    result = model.predict_with_ci(points)
    width = np.asarray(result["q90"] - result["q10"])
    # never narrower; three spreads out the prior is reached, to rounding far outside
    assert np.all(np.diff(width, axis=0) >= -1e-9 * width[1:]) and np.all(width[1] > 1.5 * width[0])
    prior = jnp.diagonal(model.kernel.task_covariance()) * model.target_scale**2
    day = model.kernel.input_diagonal(model.scaling(jnp.asarray(points[-1:])))
    assert np.allclose(width[-1], 2 * 1.2815515655446004 * np.sqrt(prior * day), rtol=1e-6)


@pytest.mark.parametrize("is_gappy", [False, True])
def test_a_singular_kernel_gives_finite_numbers(is_gappy):
    x, y = make()
    x[:] = x[0]
    y[0, 0] = np.nan if is_gappy else y[0, 0]
    model = MultiTaskRateGP(x, y, GaussianLikelihood(1e-14), n_tasks=2)
    model = eqx.filter_jit(lambda m: m.condition())(model)
    mean, covariance = model.posterior(jnp.asarray(x[:2]))
    assert np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))
