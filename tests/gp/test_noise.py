"""Shared samples: the noise of finite differences against the operator itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.gp import (
    GaussianLikelihood,
    MultiTaskRateGP,
    append_rows,
    draw_gp_paths,
    finite_difference_noise,
    fit_scaling,
    log_evidence,
    rate_data,
    variance_error,
    with_data,
)
from perfusio_jax.gp.fitting import thin_rows
from perfusio_jax.gp.noise import joined
from tests.gp.cases import T

RUNS = np.array([0, 0, 1, 0, 1, 2, 0, 1, 1, 2, 2, 2])


def brute(runs, start, end, follows=None):
    """`D diag(v) D'` from the difference operator: one column per sample."""
    rows, samples, last = [], [], {}
    for i, run in enumerate(runs):
        fresh = run not in last or (follows is not None and not follows[i])
        if fresh:
            samples.append(i)
            last[run] = len(samples) - 1
        samples.append(i)
        rows.append((i, last[run], len(samples) - 1))
        last[run] = len(samples) - 1
    operator = np.zeros((len(runs), len(samples)))
    for i, first, second in rows:
        operator[i, first], operator[i, second] = -start[i], end[i]
    return operator @ operator.T


def test_matrix_equals_the_difference_operator():
    rng = np.random.default_rng(0)
    start, end = rng.uniform(0.3, 1.0, (2, RUNS.size))
    follows = np.ones(RUNS.size, bool)
    follows[6] = False
    noise = finite_difference_noise(RUNS, start_sd=start, end_sd=end, is_continued=follows)
    reference = brute(RUNS, start, end, follows)
    assert np.allclose(noise.matrix(), reference, atol=1e-14)
    assert np.allclose(noise.variance, np.diagonal(reference))
    assert np.linalg.eigvalsh(reference)[0] > 0


@pytest.fixture(scope="module")
def tied(table):
    x, y = table[0][: RUNS.size], table[1][: RUNS.size]
    noise = finite_difference_noise(RUNS, start_sd=0.6, end_sd=0.9)
    return MultiTaskRateGP(x, y, GaussianLikelihood(0.2), n_tasks=T, row_noise=noise)


@pytest.mark.parametrize("is_gappy", [False, True])
def test_evidence_and_posterior_equal_brute_force(tied, table, is_gappy):
    model, x, y = tied, table[0][: RUNS.size], table[1][: RUNS.size]
    if is_gappy:
        y = y.at[3, 1].set(jnp.nan)
        model = MultiTaskRateGP(
            x, y, GaussianLikelihood(0.2), n_tasks=T, row_noise=tied.data.shared,
            target_scale=tied.target_scale,
        )  # fmt: skip
    scaled = model.scaling(x)
    tasks = np.asarray(model.kernel.task_covariance())
    size = RUNS.size
    known = brute(RUNS, np.full(size, 0.6), np.full(size, 0.9))
    covariance = np.kron(model.kernel.input_matrix(scaled, scaled), tasks)
    covariance = covariance + np.kron(known, 0.2 * np.eye(T))
    flat = np.asarray(y / model.target_scale[None, :]).reshape(-1)
    seen = np.isfinite(flat)
    inner = covariance[np.ix_(seen, seen)]
    reference = jax.scipy.stats.multivariate_normal.logpdf(flat[seen], np.zeros(seen.sum()), inner)
    assert float(log_evidence(model)) == pytest.approx(float(reference), abs=1e-8)
    x_new = x[:2] + 0.3
    cross = np.kron(model.kernel.input_matrix(model.scaling(x_new), scaled), tasks)[:, seen]
    mean, spread = model.posterior(x_new)
    unit = np.asarray(model.target_scale)
    expected = (cross @ np.linalg.solve(inner, flat[seen])).reshape(2, T) * unit
    assert np.allclose(mean, expected, atol=1e-9)
    left = cross @ np.linalg.solve(inner, cross.T)
    prior = np.asarray(model.kernel.input_diagonal(model.scaling(x_new)))
    for i in range(2):
        block = prior[i] * tasks - left[i * T : (i + 1) * T, i * T : (i + 1) * T]
        assert np.allclose(spread[i], block * unit[:, None] * unit[None, :], atol=1e-9)


def test_paths_know_the_shared_samples(tied, table):
    conditioned = tied.condition()
    x_new = table[0][:3] + 0.2
    assert float(variance_error(conditioned, x_new, key=jax.random.key(0))) < 0.03
    values = np.asarray(draw_gp_paths(conditioned, 1024, key=jax.random.key(1)).at(x_new))
    mean, covariance = (np.asarray(a) for a in conditioned.posterior(x_new))
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    assert np.all(np.abs(values.mean(axis=0) - mean) < 5 * np.sqrt(variance / 1024))
    # five standard errors of a variance, and the error the features leave
    assert np.all(np.abs(values.var(axis=0) / variance - 1) < 5 * np.sqrt(2 / 1024) + 0.05)


@pytest.mark.parametrize("is_gappy", [False, True])
def test_appended_rows_continue_their_runs(table, is_gappy):
    x, y = table[0][: RUNS.size], table[1][: RUNS.size]
    y = y.at[3, 1].set(jnp.nan) if is_gappy else y
    whole = finite_difference_noise(RUNS)
    model = MultiTaskRateGP(
        x[:8], y[:8], n_tasks=T, row_noise=finite_difference_noise(RUNS[:8]), capacity=16
    )
    grown = append_rows(
        model.condition(), x[8:], y[8:], row_noise=finite_difference_noise(RUNS[8:])
    )
    assert np.allclose(grown.data.noise_matrix()[:12, :12], whole.matrix(), atol=1e-14)
    again = with_data(model, rate_data(x, y, row_noise=whole, capacity=16))
    for one, two in zip(grown.posterior(x[:3]), again.posterior(x[:3]), strict=True):
        assert np.allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("is_gappy", [False, True], ids=["complete", "dense"])
def test_a_row_without_targets_counts_as_nothing(table, is_gappy):
    # row 3 of run 0 was not measured: its neighbours share samples with it and with nobody else
    x, y = np.asarray(table[0][: RUNS.size]), np.array(table[1][: RUNS.size])
    if is_gappy:
        y[5, 1] = np.nan
    options = {"likelihood": GaussianLikelihood(0.2), "n_tasks": T, "target_scale": np.ones(T)}
    scaling = fit_scaling(x, day_column=x.shape[1] - 1)
    keep = np.arange(RUNS.size) != 3
    empty = np.where(keep[:, None], y, np.nan)
    noise = finite_difference_noise(RUNS, start_sd=0.6, end_sd=0.9)
    whole = MultiTaskRateGP(x, empty, row_noise=noise, scaling=scaling, **options)
    assert whole.is_complete is not is_gappy
    follows = np.ones(RUNS.size, bool)
    follows[6] = False  # the row after it in its run
    less = finite_difference_noise(RUNS[keep], start_sd=0.6, end_sd=0.9, is_continued=follows[keep])
    part = MultiTaskRateGP(x[keep], y[keep], row_noise=less, scaling=scaling, **options)
    # to rounding: a zero that was observed costs 2.4 nats here
    assert float(log_evidence(whole)) == pytest.approx(float(log_evidence(part)), abs=1e-9)
    x_new = table[0][:2] + 0.3
    for one, two in zip(whole.posterior(x_new), part.posterior(x_new), strict=True):
        assert np.allclose(one, two, atol=1e-9)
    grown = append_rows(
        whole.condition(), x[:2] + 0.1, y[:2], row_noise=finite_difference_noise([0, 1])
    )
    last = np.flatnonzero(RUNS[keep] == 0)[-1]
    previous = np.asarray(grown.data.shared.previous)
    assert previous[: keep.sum()].tolist() == np.asarray(less.previous).tolist()
    assert previous[keep.sum()] == last


def test_what_comes_after_a_gap_is_not_linked():
    one = finite_difference_noise([0, 0])
    two = finite_difference_noise([0, 0], is_continued=[False, True])
    assert np.asarray(joined(one, two).previous).tolist() == [-1, 0, -1, 2]
    assert np.asarray(joined(one, one).previous).tolist() == [-1, 0, 1, 2]
    # joining in any order of the steps is the whole table's noise
    follows = np.ones(RUNS.size, bool)
    follows[[6, 8, 9]] = False
    whole = finite_difference_noise(RUNS, is_continued=follows)
    parts = [
        finite_difference_noise(RUNS[s], is_continued=follows[s])
        for s in (slice(0, 5), slice(5, 8), slice(8, None))
    ]
    for built in (joined(joined(*parts[:2]), parts[2]), joined(parts[0], joined(*parts[1:]))):
        assert np.allclose(built.matrix(), whole.matrix(), atol=1e-15)


def test_a_thinned_table_shares_what_is_left(table):
    x, y = (np.asarray(a)[: RUNS.size] for a in table)
    noise = finite_difference_noise(RUNS, start_sd=0.6, end_sd=0.9)
    data = rate_data(x, y, row_noise=noise, capacity=RUNS.size + 2)
    thin = thin_rows(data, 7)
    every = np.asarray(data.inputs)
    rows = [int(np.flatnonzero(np.all(every == r, axis=1))[0]) for r in np.asarray(thin.inputs)]
    whole = np.asarray(noise.matrix())
    # neighbours that stayed are as before, and a dropped row's are free of each other
    assert np.allclose(thin.noise_matrix(), whole[np.ix_(rows, rows)], atol=1e-15)


def test_wrong_noise_is_refused(tied, table):
    with pytest.raises(DataError, match="whole number"):
        finite_difference_noise([0.5, 1.0])
    with pytest.raises(DataError, match="above zero"):
        finite_difference_noise([0, 0], start_sd=0.0)
    with pytest.raises(DataError, match="other numbers"):
        finite_difference_noise([0, 0], end_sd=[1.0, 1.0, 1.0])
    with pytest.raises(DataError, match="same form of noise"):
        append_rows(tied.condition(), table[0][:1], table[1][:1])
