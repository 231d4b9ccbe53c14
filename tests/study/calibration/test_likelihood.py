"""The density of recorded runs: on paper, against finite differences, and with limits of assays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from perfusio_jax._core import ConfigError
from perfusio_jax.study import calibration_problem
from perfusio_jax.study.calibration.likelihood import log_density, log_likelihoods, way_of
from perfusio_jax.study.calibration.model import log_posterior
from tests.study.calibration.problems import HOURS, SD, START, plant, problem, records, simulated
from tests.study.cultures import Exponential, vial
from tests.study.test_identify import recorded


def densities(asked, u, way):
    part = asked.unflat(u)
    return log_likelihoods(asked, asked.by_run(part), asked.log_factors(part), way)


def hierarchy():
    """Four runs of two clones with unknown starts and noise."""
    rng = np.random.default_rng(2)
    rows = np.stack([simulated(rng, rng.standard_normal(2)) for _ in range(4)])
    rows[1, 3] = np.nan
    return calibration_problem(
        plant(), records(rows), clones=["A", "B", "A", "B"], learn_noise=True
    )


def test_the_density_is_that_on_paper():
    rng = np.random.default_rng(0)
    rows = np.stack([simulated(rng, np.zeros(2)) for _ in range(2)])
    rows[0, 2] = np.nan
    asked = problem(rows)
    u = np.array([0.7, -0.2])
    values = START + HOURS * (0.5 + 0.2 * u[0] + 1.0 + 0.3 * u[1])
    found = densities(asked, jnp.asarray(u), None)
    for k, row in enumerate(rows):
        there = np.isfinite(row)
        paper = stats.norm.logpdf(row[there], values[there], SD).sum()
        assert float(found[k]) == pytest.approx(paper, rel=1e-6)
    prior = stats.norm.logpdf(u).sum()
    assert float(log_posterior(asked, jnp.asarray(u))) == pytest.approx(
        prior + float(found.sum()), rel=1e-9
    )


def test_slopes_are_those_of_differences_either_way():
    asked = hierarchy()
    assert asked.n_unknown == 2 + 4 + 2 + 1 + 4
    rng = np.random.default_rng(1)
    u = jnp.asarray(0.3 * rng.standard_normal(asked.n_unknown))
    found = {}
    for way in ("forward", "adjoint"):
        value = jax.jit(lambda v, way=way: jnp.sum(densities(asked, v, way)))
        found[way] = np.asarray(jax.jit(jax.grad(value))(u))
        e = 1e-5
        for k in range(0, asked.n_unknown, 3):
            step = jnp.zeros_like(u).at[k].set(e)
            difference = float(value(u + step) - value(u - step)) / (2.0 * e)
            assert found[way][k] == pytest.approx(difference, rel=1e-4, abs=1e-4), (way, k)
    np.testing.assert_allclose(found["forward"], found["adjoint"], rtol=1e-6, atol=1e-9)
    assert way_of(asked)[0] == "forward"


def test_chains_side_by_side_are_the_same_as_alone():
    asked = hierarchy()
    u = jnp.asarray(0.3 * np.random.default_rng(3).standard_normal((3, asked.n_unknown)))

    def value(v):
        return jnp.sum(densities(asked, v, None))

    together = jax.jit(jax.vmap(jax.value_and_grad(value)))(u)
    alone = [jax.jit(jax.value_and_grad(value))(row) for row in u]
    for k, (a, slope) in enumerate(alone):
        np.testing.assert_allclose(together[0][k], a, rtol=1e-7)
        np.testing.assert_allclose(together[1][k], slope, rtol=1e-6, atol=1e-8)


def test_a_limit_counts_as_the_part_of_the_law_beyond_it():
    run = plant()
    limits = np.full((1, HOURS.size, 1, 2), np.nan)
    limits[0, 1, 0, 0], limits[0, 3, 0, 1] = 6.2, 13.0
    rows = np.full((1, HOURS.size), np.nan)
    rows[0, 4] = 18.5
    one = jax.tree.map(lambda v: v[0], records(rows, limits))
    values = START + 1.5 * HOURS
    law = [stats.norm(v, 2.0 * SD) for v in values]
    below, _ = quad(law[1].pdf, -30.0, 6.2)
    above, _ = quad(law[3].pdf, 13.0, 50.0)
    paper = np.log(below) + np.log(above) + law[4].logpdf(18.5)
    found = log_density(run, jnp.asarray(values[:, None]), one, jnp.log(jnp.full(1, 2.0)))
    assert float(found) == pytest.approx(paper, rel=1e-8)
    # far beyond: a number, and a slope that leads back
    far = jax.value_and_grad(lambda v: log_density(run, v, one, jnp.zeros(1)))(
        jnp.asarray(np.full((HOURS.size, 1), 200.0))
    )
    assert np.isfinite(far[0]) and np.all(np.isfinite(far[1])) and far[1][1, 0] < 0.0


def test_what_cannot_be_run_has_no_probability_and_no_slope():
    asked = problem(simulated(np.random.default_rng(0), np.zeros(2)))
    theta = jnp.asarray([[0.1, jnp.nan, 0.0]])

    def value(t):
        return jnp.sum(log_likelihoods(asked, t, jnp.zeros(1)))

    found, slope = jax.jit(jax.value_and_grad(value))(theta)
    assert found == -jnp.inf and np.all(np.asarray(slope) == 0.0)


def test_what_cannot_be_asked_is_refused():
    run = vial(Exponential(), HOURS, start=2.0, cv=0.05, floor=1e-9)
    data = recorded(run)
    with pytest.raises(ConfigError, match="start.X is no constant"):
        calibration_problem(run, [data], ["start.X"])
    with pytest.raises(ConfigError, match="2 clones for 1 runs"):
        calibration_problem(run, [data], clones=["A", "B"])
