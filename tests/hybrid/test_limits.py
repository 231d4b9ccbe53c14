"""Readings of which only a limit of the assay is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from perfusio_jax._core import DataError
from perfusio_jax.hybrid import assimilate_run, particle_filter, run_arrays
from perfusio_jax.hybrid.campaign import stack_runs
from perfusio_jax.hybrid.ensemble import censored_update
from perfusio_jax.hybrid.folds import readings_of
from perfusio_jax.states import on_grid, stack_trajectories
from tests.hybrid.cases import campaign

N = 400


def ensemble(n_readings=1):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 3)) @ np.array([[1.0, 0.4, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 0.5]])
    return x, x @ rng.normal(size=(3, n_readings))


@pytest.mark.parametrize("side", ["below", "above"])
@pytest.mark.parametrize("gap", [-3.0, -0.5, 0.0, 1.0, 4.0])
def test_one_limit_gives_the_moments_of_the_cut_normal(side, gap):
    x, z = ensemble()
    sd = 0.6
    m, total = z.mean(), z.var(ddof=1) + sd**2
    limit = m + gap * np.sqrt(total)
    ends = (-np.inf, gap) if side == "below" else (gap, np.inf)
    cut = stats.truncnorm(*ends)
    cross = (x - x.mean(0)).T @ (z[:, 0] - m) / (N - 1)
    mean = x.mean(0) + cross / np.sqrt(total) * cut.mean()
    left = max(cut.var(), 1e-3)
    covariance = np.cov(x.T) - np.outer(cross, cross) / total * (1.0 - left)
    limits = (np.array([limit]), np.array([np.nan]))
    low, high = limits if side == "below" else limits[::-1]
    after, log_likelihood = censored_update(x, z, low, high, np.array([sd]))
    np.testing.assert_allclose(np.mean(after, axis=0), mean, atol=1e-9)
    np.testing.assert_allclose(np.cov(np.asarray(after).T), covariance, atol=1e-9)
    beyond = stats.norm.logcdf(gap) if side == "below" else stats.norm.logsf(gap)
    assert float(log_likelihood) == pytest.approx(beyond, abs=1e-10)


def test_a_limit_far_away_and_no_limit_change_nothing():
    x, z = ensemble(3)
    low, high = np.array([1e3, np.nan, np.nan]), np.array([np.nan, -1e3, np.nan])
    after, log_likelihood = censored_update(x, z, low, high, np.full(3, 0.5))
    np.testing.assert_allclose(after, x, atol=1e-9)
    assert float(log_likelihood) == pytest.approx(0.0, abs=1e-12)


def test_two_limits_come_near_the_exact_posterior():
    """Weights of a hundred thousand draws are the referee."""
    x, z = ensemble(2)
    low, sd = z.mean(0) - np.array([0.3, 0.8]), np.array([0.5, 0.4])
    after, _ = censored_update(x, z, low, np.full(2, np.nan), sd)
    rng = np.random.default_rng(4)
    joint = np.concatenate([x, z], axis=1)
    draws = rng.multivariate_normal(joint.mean(0), np.cov(joint.T), 100_000)
    seen = draws[:, 3:] + sd * rng.normal(size=(100_000, 2))
    kept = draws[np.all(seen < low, axis=1), :3]
    assert len(kept) > 5_000
    spread = kept.std(0)
    # moment matching in turn is not exact; a tenth of the spread is far less than it narrows
    assert np.all(np.abs(np.mean(after, axis=0) - kept.mean(0)) < 0.1 * spread)
    np.testing.assert_allclose(np.std(after, axis=0), spread, rtol=0.1)


def limited(run, name, rows, *, below=np.nan, above=np.nan):
    """A run some of whose readings are limits of the assay."""
    limits = np.full((*run.species.shape, 2), np.nan)
    column = run.species_index(name)
    limits[rows, column] = (below, above)
    species = np.array(run.species)
    species[rows, column] = np.nan if np.isnan(below) else 0.5 * below
    return dataclasses.replace(run, species=species, limits=limits)


def test_a_run_knows_what_a_limit_tells_and_no_more(hybrid, truth):
    runs, _ = campaign(truth, n_runs=1, n_days=8, seed=33)
    run, rows = runs[0], [5, 6, 7]
    column = run.species_index("Gln")
    blank = np.array(run.species)
    blank[rows, column] = np.nan
    unread = dataclasses.replace(run, species=blank)
    now = lambda r: np.asarray(assimilate_run(hybrid, r, key=jax.random.key(0)).filtered)  # noqa: E731
    gln = 3
    nothing = now(unread)[..., gln]
    far = now(limited(run, "Gln", rows, below=1e3))[..., gln]
    np.testing.assert_allclose(far.mean(1), nothing.mean(1), rtol=1e-6)
    low = 0.7 * nothing[rows].mean()
    tight = limited(run, "Gln", rows, below=low)
    near = now(tight)[..., gln]
    assert np.all(near[rows].mean(1) < nothing[rows].mean(1))
    # half the limit, taken for a reading, would claim to know far more
    halved = now(dataclasses.replace(tight, limits=None))[..., gln]
    assert np.all(halved[rows].std(1) < near[rows].std(1))
    referee = particle_filter(hybrid, run_arrays(tight), key=jax.random.key(1), n_particles=6000)
    exact = np.asarray(referee.filtered)[..., gln]
    assert np.all(np.abs(near[rows].mean(1) - exact[rows].mean(1)) < 1.5 * near[rows].std(1))


def test_limits_go_with_a_run_wherever_it_goes(truth):
    runs, _ = campaign(truth, n_runs=2, n_days=5, seed=3)
    run = limited(runs[0], "Gln", [2], below=0.4)
    assert np.isnan(run.host_readings(["Gln", "Glc"])[2]).tolist() == [True, False]
    moved = run.with_ids("other", "c", "r", {}).slice_days(1, 4)
    assert moved.host_limits(["Gln"])[1, 0, 0] == pytest.approx(0.4)
    fine = on_grid(run, 12.0)
    assert np.nanmax(fine.host_limits(["Gln"])) == pytest.approx(0.4)
    assert int(np.isfinite(fine.host_limits(["Gln"])).sum()) == 1
    both = stack_runs([run, runs[1]])
    assert both.limits is not None and both.limits.shape == (*both.face.shape, 2)
    assert int(jnp.isfinite(both.limits).sum()) == 1
    assert stack_runs(runs).limits is None
    batch = stack_trajectories([run, runs[1]], n_steps=9, n_runs=3)
    first, other = batch.unstack()
    np.testing.assert_array_equal(
        first.host_limits(["Gln"]), run.host_limits(["Gln"]).astype(first.species.dtype)
    )
    assert not np.isfinite(other.host_limits(["Gln"])).any()
    assert stack_trajectories(runs).limits is None
    scored = readings_of([run], run.n_days, ("Gln",))
    assert np.isnan(scored[0, 2, 0]) and np.isfinite(scored[0, 1, 0])


def test_a_limit_of_what_is_not_modelled_needs_no_program_of_its_own(truth):
    runs, _ = campaign(truth, n_runs=1, n_days=3, seed=3)
    widths = np.full((runs[0].n_days, 1), 16.0)
    limits = np.full((runs[0].n_days, runs[0].n_species + 1, 2), np.nan)
    limits[1, -1, 0] = 14.0
    run = dataclasses.replace(
        runs[0],
        species=np.concatenate([np.asarray(runs[0].species), widths], axis=1),
        species_names=(*runs[0].species_names, "Diam"),
        limits=limits,
    )
    assert run_arrays(run).limits is None


def test_limits_of_another_shape_are_refused(truth):
    runs, _ = campaign(truth, n_runs=1, n_days=3, seed=3)
    with pytest.raises(DataError, match="limits of run"):
        dataclasses.replace(runs[0], limits=np.zeros((3, 2)))
