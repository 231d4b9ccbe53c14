"""Training: learns what the prior misses, updates without recompiling, refuses bad campaigns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import STATE_ORDER, DataError
from perfusio_jax.chemistry import from_balanced
from perfusio_jax.gp import GaussianLikelihood, log_posterior
from perfusio_jax.hybrid import (
    HybridStateSpaceModel,
    condition_on,
    fit_diameter,
    fit_hybrid,
    forecast_run,
    refit,
    retrain_online,
    train,
    train_hybrid,
)
from perfusio_jax.hybrid.assimilate import _assimilate_jit
from perfusio_jax.hybrid.spread import leave_run_out
from perfusio_jax.hybrid.update import _put_rows
from perfusio_jax.states import Trajectory
from tests.hybrid.cases import campaign


def test_hybrid_forecasts_better_than_its_prior(hybrid, prior, truth):
    _, states = campaign(truth, n_runs=1, n_days=8, seed=21)
    runs, _ = campaign(truth, n_runs=1, n_days=8, seed=21)
    alone = HybridStateSpaceModel(prior, None)
    errors = []
    for model in (hybrid, alone):
        forecast = forecast_run(
            model, from_balanced(jnp.asarray(states[0, 2])), runs[0].controls[2:5], 3, 64, day0=2.0
        )
        true = from_balanced(jnp.asarray(states[0, 3:6]))
        errors.append(np.abs(np.asarray(forecast["mean"] / true - 1.0))[:, [0, 2, 3]].mean())
    assert errors[0] < 0.6 * errors[1]


def test_report_and_rows(fitted, runs):
    model, report = fitted
    assert report.details["rows"] == sum(r.n_days - 1 for r in runs[0])
    assert int(model.base_rows) == report.details["rows"]
    assert all(0.05 < value < 20.0 for value in report.details["nis_per_reading"])


def test_leave_run_out_equals_training_without_the_run(hybrid):
    gp = hybrid.gp
    run_of_row = np.repeat(np.arange(6), 8)
    error, variance = leave_run_out(gp, run_of_row)
    keep = run_of_row != 2
    inputs, targets = np.asarray(gp.data.inputs)[:48], np.asarray(gp.data.targets)[:48]
    noise = np.asarray(gp.data.row_noise)[:48]
    scaled = gp.scaling(jnp.asarray(inputs))
    gram = np.asarray(gp.kernel.input_matrix(scaled, scaled))
    tasks = np.asarray(gp.kernel.task_covariance())
    task_noise = np.asarray(gp.likelihood.variance(9))
    joint = np.kron(gram, tasks) + np.diag(np.kron(noise, task_noise))
    inside, outside = np.repeat(keep, 9), np.repeat(~keep, 9)
    y = (targets / np.asarray(gp.target_scale)[None, :]).reshape(-1)
    gain = np.linalg.solve(joint[np.ix_(inside, inside)], joint[np.ix_(inside, outside)]).T
    unit = np.tile(np.asarray(gp.target_scale), 8)
    assert np.allclose(error[~keep].reshape(-1), (y[outside] - gain @ y[inside]) * unit, atol=1e-8)
    left = np.diag(joint)[outside] - np.sum(gain * joint[np.ix_(outside, inside)], axis=1)
    assert np.allclose(variance[~keep].reshape(-1), left * unit**2, rtol=1e-6)


def test_new_days_are_taken_in_without_a_new_compile(hybrid, truth):
    runs, _ = campaign(truth, n_runs=1, n_days=8, seed=5)
    sizes, cached = [], []
    for days in (2, 4, 6):
        grown = condition_on(
            hybrid, [runs[0].slice_days(0, days)], key=jax.random.key(0), n_particles=48, length=9
        )
        sizes.append(int(jnp.sum(grown.gp.data.row_present)) - int(hybrid.base_rows))
        cached.append((_put_rows.n_programs(), _assimilate_jit.n_programs()))
    assert sizes == [1, 3, 5]
    assert cached[0] == cached[-1]
    again = condition_on(
        grown, [runs[0].slice_days(0, 6)], key=jax.random.key(0), n_particles=48, length=9
    )
    assert int(jnp.sum(again.gp.data.row_present)) == int(jnp.sum(grown.gp.data.row_present))
    assert condition_on(hybrid, [runs[0].slice_days(0, 1)], key=jax.random.key(0)) is hybrid


def test_running_out_of_rows_is_told(hybrid, runs):
    with pytest.raises(DataError, match="reserved"):
        condition_on(hybrid, runs[0], key=jax.random.key(0))


def test_refit_does_not_lose_ground(hybrid):
    better, report = refit(hybrid, key=jax.random.key(0))
    assert float(log_posterior(better.gp)) >= float(log_posterior(hybrid.gp)) - 1e-6
    assert report.optimiser == "lbfgs"


def test_diameter_is_learned_and_falls_back(runs, prior):
    rng = np.random.default_rng(0)
    via = rng.uniform(85.0, 99.0, 40)
    diam = 18.5 + 6.0 * (1.0 - via / 100.0) + 0.1 * rng.normal(size=40)
    table = np.column_stack([via, diam])
    run = Trajectory(
        table, np.ones((40, 1)), np.ones(40), np.arange(40), ("Via", "Diam"), ("perfusion_rate",)
    )
    base, slope = fit_diameter([run], prior)
    assert base == pytest.approx(18.5, abs=0.15)
    assert slope == pytest.approx(6.0, abs=1.5)
    assert fit_diameter(runs[0], prior) == (20.0, 4.0)


def test_bad_campaigns_are_refused(runs):
    good = runs[0]
    with pytest.raises(DataError, match="two or more"):
        fit_hybrid(good[:1], key=jax.random.key(0))
    column = STATE_ORDER.index("VCD")
    blind = [
        Trajectory(
            r.species.at[:, column].set(jnp.nan),
            r.controls,
            r.volume_L,
            r.days,
            r.species_names,
            r.control_names,
        )
        for r in good
    ]
    with pytest.raises(DataError, match="VCD was not measured in any of the"):
        fit_hybrid(blind, key=jax.random.key(0))


def test_seed_training_faces(hybrid):
    gp = hybrid.gp
    x, y = np.asarray(gp.data.inputs)[:20], np.asarray(gp.data.targets)[:20]
    fitted, report = train_hybrid(x, y, gp, GaussianLikelihood(0.3), n_iter_lbfgs=10)
    assert np.isfinite(float(report.final))
    grown = retrain_online(x[:2] + 0.01, y[:2], fitted, n_iter=0)
    assert int(jnp.sum(grown.data.row_present)) == 22
    moved = retrain_online(x[:2] + 0.01, y[:2], fitted, n_iter=3)
    assert not np.allclose(moved.kernel.lengthscale, grown.kernel.lengthscale)


def test_the_training_faces_use_the_key_they_are_given(hybrid, monkeypatch):
    gp, keys = hybrid.gp, []

    def fit(model, *, key, **settings):
        keys.append(int(jax.random.key_data(key)[-1]))
        return model, None

    monkeypatch.setattr(train, "fit", fit)
    x, y = np.asarray(gp.data.inputs)[:4], np.asarray(gp.data.targets)[:4]
    for own in ({}, {"key": jax.random.key(7)}):
        train_hybrid(x, y, gp, GaussianLikelihood(0.3), **own)
        retrain_online(x, y, gp, n_iter=1, **own)
    assert keys == [0, 0, 7, 7]
