"""Fitting: better evidence, report, one trace, fallbacks, precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, PrecisionError, Result
from perfusio_jax.gp import FitConfig, MultiTaskRateGP, fit, log_evidence, log_posterior
from perfusio_jax.gp import fit as fit_face
from perfusio_jax.gp.fitting import _search, thin_rows, trainable_filter
from tests.gp.cases import N, T

CONFIG = FitConfig(max_iterations=150, n_restarts=2)


@pytest.fixture(scope="module")
def fitted(model):
    return fit(model, key=jax.random.key(0), config=CONFIG)


def test_fit_improves_and_reports(model, fitted):
    better, report = fitted
    assert float(report.final) > float(log_posterior(model)) + 1.0
    assert float(report.final) == pytest.approx(float(log_posterior(better)), rel=1e-6)
    assert float(report.log_evidence) == pytest.approx(float(log_evidence(better)), rel=1e-9)
    path = np.asarray(report.evidence)[: int(report.n_iterations)]
    assert np.all(np.diff(path) >= -1e-9)
    assert report.optimiser == "lbfgs"
    assert report.result in (Result.SUCCESS, Result.NOT_CONVERGED)
    assert report.converged == (report.result == Result.SUCCESS)
    assert float(report.condition_number) >= 1.0
    assert better.state is not None


def test_gradient_is_small_where_it_says_converged(fitted):
    better, report = fitted
    assert report.converged
    slopes = eqx.filter_grad(log_posterior)(better)
    trained = eqx.filter(slopes, trainable_filter(better))
    size = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(trained))
    assert size / N < 10 * float(CONFIG.tolerance)


def test_adam_reaches_the_same_neighbourhood(model, fitted):
    config = FitConfig(adam_iterations=250)
    _, report = fit(model, key=jax.random.key(0), config=config, method="adam")
    assert report.optimiser == "adam"
    assert float(report.final) > float(fitted[1].final) - 2.0


def test_adam_takes_over_when_lbfgs_ends_nowhere(model, monkeypatch):
    import importlib

    module = importlib.import_module("perfusio_jax.gp.fitting")
    real = module._lbfgs

    def diverges(loss, start, config, scale):
        run = real(loss, start, config, scale)
        return run._replace(value=jnp.full_like(run.value, -jnp.inf))

    monkeypatch.setattr(module, "_lbfgs", diverges)
    # another number of iterations: nothing compiled before is used
    config = FitConfig(max_iterations=2, n_restarts=1, adam_iterations=60)
    better, report = fit(model, key=jax.random.key(0), config=config)
    assert report.optimiser == "adam"
    assert float(report.final) > float(log_posterior(model)) + 1.0
    assert better.state is not None and np.isfinite(float(report.log_evidence))


def test_the_search_never_calls_the_host(model):
    for method in ("lbfgs", "adam"):
        text = _search.lower(model, trainable_filter(model), jax.random.key(0), CONFIG, method)
        assert "callback" not in text.as_text()


def test_thinning_keeps_a_fixed_size(table):
    x, y = table
    model = MultiTaskRateGP(x, y, n_tasks=T, capacity=N + 8)
    subset = thin_rows(model.data, 10)
    assert subset.inputs.shape[0] == 10
    assert bool(jnp.all(subset.row_present))
    assert thin_rows(model.data, 100).inputs.shape[0] == N + 8


def test_unknown_method_and_single_precision_are_refused(model):
    with pytest.raises(ConfigError, match="newton"):
        fit_face(model, key=jax.random.key(0), method="newton")
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="enable_x64"):
        fit_face(model, key=jax.random.key(0))
