"""The sampler against posteriors on paper, and simulation-based calibration."""

import jax
import numpy as np
import pytest
from scipy import stats

from perfusio_jax._core import ConfigError
from perfusio_jax.study import Plan, calibrate
from perfusio_jax.study.calibration.chains import agreement
from perfusio_jax.study.calibration.sampling import _part, sample
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
    assert told[0] == (10, 390) and told[-1] == (400, 0)
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
    assert Plan(n_warmup=25, n_draws=31).checked() == Plan(n_warmup=30, n_draws=40)


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
