"""Filter and smoother: exact Kalman on a linear case, gaps, consistency, calibration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, DataError
from perfusio_jax.hybrid import (
    assimilate_run,
    ensemble_update,
    filter_step,
    initial_belief,
    run_arrays,
)
from perfusio_jax.hybrid.ensemble import smoother_gain
from perfusio_jax.states import Trajectory
from tests.hybrid.cases import campaign

A = jnp.array([[0.9, 0.2], [0.0, 0.7]])
H = jnp.array([[1.0, 0.0], [0.5, 1.0], [0.0, 1.0]])
Q, R = 0.1, jnp.array([0.2, 0.3, 0.4])
SIZE, STEPS = 4000, 6


def readings():
    y = np.random.default_rng(0).normal(size=(STEPS, 3))
    y[2, 1] = np.nan
    y[4] = np.nan
    return y


def kalman(y):
    """Filter and Rauch-Tung-Striebel smoother in closed form."""
    m, P = np.zeros(2), np.eye(2)
    means, covs, ahead = [], [], []
    a, h = np.asarray(A), np.asarray(H)
    for row in y:
        m, P = a @ m, a @ P @ a.T + Q**2 * np.eye(2)
        ahead.append((m, P))
        seen = np.isfinite(row)
        hs, rs = h[seen], np.diag(np.asarray(R)[seen] ** 2)
        gain = P @ hs.T @ np.linalg.inv(hs @ P @ hs.T + rs)
        m, P = m + gain @ (row[seen] - hs @ m), P - gain @ hs @ P
        means.append(m)
        covs.append(P)
    smooth = [means[-1]]
    for t in range(len(y) - 2, -1, -1):
        gain = covs[t] @ a.T @ np.linalg.inv(ahead[t + 1][1])
        smooth.insert(0, means[t] + gain @ (smooth[0] - ahead[t + 1][0]))
    return np.array(means), np.array(covs), np.array(smooth)


def ensemble(y):
    keys = jax.random.split(jax.random.key(0), STEPS + 1)
    x = jax.random.normal(keys[0], (SIZE, 2))
    update = jax.jit(ensemble_update)
    filtered, forecasts = [], []
    for row, key in zip(y, keys[1:], strict=True):
        x = x @ A.T + Q * jax.random.normal(key, x.shape)
        forecasts.append(x)
        x, _ = update(x, x @ H.T, jnp.asarray(row), R)
        filtered.append(x)
    smooth = [filtered[-1]]
    for t in range(STEPS - 2, -1, -1):
        gain = smoother_gain(filtered[t], forecasts[t + 1])
        smooth.insert(0, filtered[t] + (smooth[0] - forecasts[t + 1]) @ gain.T)
    return filtered, smooth


def test_linear_gaussian_case_equals_kalman_and_smoother():
    y = readings()
    means, covs, smooth = kalman(y)
    ours, ours_smooth = ensemble(y)
    # standard error of a mean over SIZE members with unit spread, times five, per step
    bound = 5.0 / np.sqrt(SIZE)
    for t in range(STEPS):
        assert np.allclose(np.mean(ours[t], axis=0), means[t], atol=bound)
        assert np.allclose(np.cov(np.asarray(ours[t]).T), covs[t], atol=2 * bound)
        assert np.allclose(np.mean(ours_smooth[t], axis=0), smooth[t], atol=bound)


def test_update_has_exactly_the_kalman_moments_of_its_ensemble():
    x = jax.random.normal(jax.random.key(1), (50, 2)) * jnp.array([[1.0, 2.0]])
    y = jnp.array([0.3, jnp.nan, -1.0])
    after, info = ensemble_update(x, x @ H.T, y, R)
    P, h = np.cov(np.asarray(x).T), np.asarray(H)[[0, 2]]
    gain = P @ h.T @ np.linalg.inv(h @ P @ h.T + np.diag(np.asarray(R)[[0, 2]] ** 2))
    wanted = np.mean(x, axis=0) + gain @ (np.array([0.3, -1.0]) - h @ np.mean(x, axis=0))
    assert np.allclose(np.mean(after, axis=0), wanted, atol=1e-7)
    assert np.allclose(np.cov(np.asarray(after).T), P - gain @ h @ P, atol=1e-6)
    assert float(info.n_observed) == 2.0
    assert bool(jnp.isnan(info.innovation[1]))


def test_no_reading_changes_nothing():
    x = jax.random.normal(jax.random.key(2), (30, 2))
    after, info = ensemble_update(x, x @ H.T, jnp.full(3, jnp.nan), R)
    assert np.allclose(after, x, atol=1e-6)
    assert float(info.nis) == 0.0


def test_filtering_beats_the_readings(hybrid, truth):
    runs, states = campaign(truth, n_runs=1, n_days=8, seed=9)
    beliefs = assimilate_run(hybrid, runs[0], key=jax.random.key(0), n_particles=48, length=9)
    assert beliefs.filtered.shape == (9, 48, 9)
    mean = np.asarray(beliefs.filtered).mean(axis=1)[2:, [0, 2, 5, 8]]
    raw = np.asarray(runs[0].species)[2:, [0, 2, 5, 8]]
    true = states[0][2:, [0, 2, 5, 8]]
    assert np.nanmean(((mean - true) / true) ** 2) < np.nanmean(((raw - true) / true) ** 2)
    assert bool(jnp.all(jnp.isfinite(beliefs.smoothed)))


def test_stepping_by_hand_and_gaps(hybrid, runs):
    run = runs[0][0]
    face = run.select_species(STATE_ORDER)
    belief = initial_belief(hybrid, face[0], key=jax.random.key(1), n_particles=48)
    nothing = jnp.full(9, jnp.nan)
    forecast, info = filter_step(
        hybrid, belief, run.controls[0], None, nothing, 24.0, key=jax.random.key(2)
    )
    updated, seen = filter_step(
        hybrid, belief, run.controls[0], 0.001, face[1], 24.0, key=jax.random.key(2)
    )
    assert float(info.n_observed) == 0.0 and float(info.nis) == 0.0
    assert float(seen.n_observed) == 1.0 + float(jnp.sum(~jnp.isnan(face[1])))
    assert float(updated.sd[0]) < float(forecast.sd[0])
    assert float(updated.day) == pytest.approx(1.0)
    assert updated.sample(100, key=jax.random.key(3)).shape == (100, 9)


def test_unusable_runs_are_refused(runs):
    run = runs[0][0]
    lacking = Trajectory(
        run.species, run.controls[:, :5], run.volume_L, run.days, STATE_ORDER, CONTROL_NAMES[:5]
    )
    with pytest.raises(DataError, match="pyruvate_feed"):
        run_arrays(lacking)
    broken = Trajectory(
        run.species,
        run.controls.at[0, 0].set(jnp.nan),
        run.volume_L,
        run.days,
        STATE_ORDER,
        CONTROL_NAMES,
    )
    with pytest.raises(DataError, match="set-point"):
        run_arrays(broken)
    with pytest.raises(DataError, match="more than 3"):
        run_arrays(run, length=3)
