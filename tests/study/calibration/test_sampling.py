"""The sampler against posteriors on paper, and simulation-based calibration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.linalg import eigh

from perfusio_jax._core import ConfigError
from perfusio_jax.study import Plan, calibrate
from perfusio_jax.study.calibration.chains import agreement
from perfusio_jax.study.calibration.model import White
from perfusio_jax.study.calibration.sampling import _part, sample, square_root
from tests.study.calibration.problems import on_paper, problem, simulated, white

PLAN = Plan(n_warmup=100, n_draws=300, n_chains=2)


@pytest.fixture(scope="module")
def readings():
    rng = np.random.default_rng(5)
    found = simulated(rng, np.array([1.0, -0.5]))
    found[2] = np.nan
    return found


def test_draws_have_the_law_on_paper(readings):
    mean, covariance = on_paper(readings)
    told = []
    found = calibrate(
        problem(readings), plan=PLAN, seed=1, on_part=lambda done, left: told.append((done, left))
    )
    assert told[0] == (10, 410) and told[-1] == (420, 0)
    z = (found.pooled - np.array([0.5, 1.0])) / np.array([0.2, 0.3])
    ess = found.diagnostics.constants.ess_bulk.min()
    scale = np.sqrt(np.diag(covariance))
    # a mean of n independent draws is known to its deviation over sqrt(n)
    assert np.all(np.abs(z.mean(0) - mean) < 4.0 * scale / np.sqrt(ess))
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (z - mean).T)
    assert np.all(np.abs(np.cov(whitened) - np.eye(2)) < 5.0 * np.sqrt(2.0 / ess))
    # of both only the sum is known: together they are sharp, apart they are the priors'
    assert np.corrcoef(z.T)[0, 1] < -0.8
    assert found.diagnostics.n_divergent == 0 and found.diagnostics.constants.r_hat.max() < 1.05
    assert found.starts.shape == (2, 300, 1, 1) and np.all(found.starts == 1.0)
    assert found.check.n_read[0] == 4 and found.check.inside[0.95][0] >= 0.75


def test_draws_and_slopes_tell_a_normal_law_together():
    rng, d = np.random.default_rng(3), 12
    lower = np.tril(rng.standard_normal((d, d))) + 3.0 * np.eye(d)
    covariance = lower @ lower.T / 9.0
    draws = rng.standard_normal((4 * d, d)) @ np.linalg.cholesky(covariance).T + 5.0
    slopes = draws @ np.linalg.inv(covariance)

    def off(found):
        return np.abs(np.log(eigh(found, covariance, eigvals_only=True))).max()

    root = square_root(draws, slopes)
    assert np.allclose(root, root.T)
    assert off(root @ root) < 0.25 < 0.5 < off(np.cov(draws.T))  # the draws alone are worse
    many = np.repeat(draws, 400, axis=0)
    root = square_root(many, np.repeat(slopes, 400, axis=0))
    assert off(root @ root) < 1e-3
    # in fewer draws than directions nothing is said of what they do not reach
    few = square_root(draws[:3], slopes[:3])
    assert np.all(np.linalg.eigvalsh(few) > 0.1) and np.all(np.linalg.eigvalsh(few) < 10.0)


def test_coordinates_that_are_wrong_are_mended_while_it_warms_up(readings):
    mean, covariance = on_paper(readings)
    # forty times too narrow, and of the slant nothing is known
    wrong = White(jnp.asarray(mean), 0.025 * jnp.eye(2))
    found = sample(problem(readings), wrong, PLAN, key=jax.random.key(2))
    assert found.n_steps.max() <= 7 and np.all(found.step_size > 0.5)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (found.u.reshape(-1, 2) - mean).T)
    assert np.all(np.abs(np.cov(whitened) - np.eye(2)) < 0.4)
    assert np.all(np.abs(whitened.mean(axis=1)) < 0.3)


def test_a_normal_law_is_right_where_the_posterior_is_one(readings):
    mean, covariance = on_paper(readings)
    for method in ("map", "svi"):
        found = calibrate(problem(readings), method=method, plan=PLAN)
        z = (found.pooled - np.array([0.5, 1.0])) / np.array([0.2, 0.3])
        scale = np.sqrt(np.diag(covariance))
        assert np.all(np.abs(z.mean(0) - mean) < 0.25 * scale), method
        assert np.all(np.abs(z.std(0) / scale - 1.0) < 0.2), method
        assert found.problems == () and found.diagnostics is None


def test_ranks_of_what_was_drawn_are_uniform():
    """Constants drawn from the prior lie anywhere among draws given readings made with them."""
    rng, ranks, n = np.random.default_rng(0), [], 24
    plan = Plan(n_warmup=30, n_draws=60, n_chains=2)
    for k in range(n):
        z = rng.standard_normal(2)
        seen = simulated(rng, z)
        found = sample(problem(seen), white(seen), plan, key=jax.random.key(k))
        # nearly independent draws: every sixth of the chains
        draws = found.u[:, 5::6].reshape(-1, 2)
        ranks.append(np.sum(draws < z, axis=0))
    ranks = np.array(ranks)
    assert _part.n_programs() <= 2
    for k in range(2):
        counts = np.bincount(ranks[:, k] // 7, minlength=3)
        assert counts.size == 3 and counts.sum() == n
        assert stats.chisquare(counts).pvalue > 0.01
    # and the test sees draws that are too narrow
    assert stats.chisquare([12, 0, 12]).pvalue < 0.01


def test_a_plan_that_says_nothing_is_refused(readings):
    for plan in (Plan(n_chains=1), Plan(n_draws=5), Plan(target=0.3), Plan(max_depth=20)):
        with pytest.raises(ConfigError, match="at least 2|allowed are"):
            calibrate(problem(readings), plan=plan)
    with pytest.raises(ConfigError, match="choose nuts, svi or map"):
        calibrate(problem(readings), method="hmc")
    assert Plan(n_warmup=35, n_draws=31).checked() == Plan(n_warmup=60, n_draws=40)


def test_chains_that_agree_and_disagree_are_told_apart():
    rng = np.random.default_rng(1)
    good = rng.standard_normal((4, 200, 1))
    told = agreement(good)
    assert told.r_hat[0] < 1.02 and 500 < told.ess_bulk[0] < 1600 and told.ess_tail[0] > 300
    apart = good + np.array([0.0, 0.0, 0.0, 3.0])[:, None, None]
    assert agreement(apart).r_hat[0] > 1.3
    # the same middle and another spread, which means alone would not show
    wide = good * np.array([1.0, 1.0, 1.0, 6.0])[:, None, None]
    assert agreement(wide).r_hat[0] > 1.2
    # a walk is worth few draws; what never moves has no number
    walk = np.cumsum(good, axis=1)
    assert agreement(walk).ess_bulk[0] < 40
    assert np.isnan(agreement(np.ones((2, 20, 1))).r_hat[0])
