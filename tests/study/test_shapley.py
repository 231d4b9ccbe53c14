"""Shapley effects against closed forms: correlated normals, Ishigami, and rules any share obeys."""

from itertools import combinations
from math import comb

import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.study import Law, choose_levers, shapley_effects, shapley_of_run
from perfusio_jax.study.sensitivity.joint import joint_of_draws, joint_of_laws
from perfusio_jax.study.sensitivity.laws import stacked
from tests.study.cultures import Product, vial
from tests.study.test_global import ishigami, ishigami_on_paper

SLOPES = np.array([1.0, 2.0, -1.5])
SDS = np.array([1.0, 0.5, 2.0])


def _correlation(p, seed=0):
    root = np.random.default_rng(seed).standard_normal((p, p))
    covariance = root @ root.T
    sd = np.sqrt(np.diag(covariance))
    return covariance / np.outer(sd, sd)


def on_paper(slopes, covariance):
    """Owen and Prieur (2017): conditional variances of a linear function of normals."""
    p = len(slopes)

    def left(u):
        """Variance of the sum when the inputs u are known."""
        rest = [i for i in range(p) if i not in u]
        if not rest:
            return 0.0
        own = covariance[np.ix_(rest, rest)]
        if u:
            cross = covariance[np.ix_(rest, u)]
            own = own - cross @ np.linalg.solve(covariance[np.ix_(u, u)], cross.T)
        return float(slopes[rest] @ own @ slopes[rest])

    whole = left(())
    found = np.zeros(p)
    for i in range(p):
        others = [j for j in range(p) if j != i]
        for size in range(p):
            for u in combinations(others, size):
                gain = left(u) - left(tuple(sorted((*u, i))))
                found[i] += gain / (p * comb(p - 1, size))
    return found / whole


def linear(x):
    return (x @ jnp.asarray(SLOPES))[:, None], jnp.zeros(x.shape[0], int)


LAWS = stacked([Law(False, True, 0.3 * k, float(s)) for k, s in enumerate(SDS)])


def test_correlated_normals_have_the_effects_on_paper():
    correlation = _correlation(3)
    found = shapley_effects(linear, joint_of_laws(LAWS, correlation), 4096)
    wanted = on_paper(SLOPES, correlation * np.outer(SDS, SDS))
    np.testing.assert_allclose(found.effects[0], wanted, atol=0.01)
    assert np.all(np.abs(found.effects[0] - wanted) <= 2.0 * found.half_width[0] + 1e-3)
    variance = SLOPES @ (correlation * np.outer(SDS, SDS)) @ SLOPES
    np.testing.assert_allclose(found.sd[0] ** 2, variance, rtol=0.01)
    np.testing.assert_allclose(found.effects.sum(), 1.0, rtol=1e-9)


def test_many_inputs_go_by_orders():
    p = 9
    correlation = _correlation(p, 3)
    slopes = np.linspace(0.5, 2.0, p)
    laws = stacked([Law(False, True, 0.0, 1.0)] * p)
    found = shapley_effects(
        lambda x: ((x @ jnp.asarray(slopes))[:, None], jnp.zeros(x.shape[0], int)),
        joint_of_laws(laws, correlation),
        256,
        n_orders=24,
    )
    assert found.n_orders == 24 and found.n_sets <= 24 * (p - 1)
    wanted = on_paper(slopes, correlation)
    assert np.all(np.abs(found.effects[0] - wanted) <= 2.0 * found.half_width[0] + 0.01)
    np.testing.assert_allclose(found.effects.sum(), 1.0, rtol=1e-9)


def test_independent_inputs_lie_between_first_and_total():
    laws = stacked([Law(False, False, -np.pi, 2 * np.pi)] * 3)
    found = shapley_effects(ishigami, joint_of_laws(laws), 4096)
    first, total, pair = ishigami_on_paper()
    wanted = np.array([first[0] + 0.5 * pair, first[1], 0.5 * pair])
    np.testing.assert_allclose(found.effects[0], wanted, atol=0.02)
    assert np.all(wanted <= total + 1e-12)
    assert np.all(np.isnan(found.effects[2])) and found.sd[2] == 0.0


def test_draws_of_a_normal_are_taken_as_it():
    correlation = _correlation(3)
    rng = np.random.default_rng(1)
    covariance = correlation * np.outer(SDS, SDS)
    draws = rng.multivariate_normal(np.zeros(3), covariance, size=4000)
    found = shapley_effects(linear, joint_of_draws(LAWS, draws, (0, 1, 2)), 1024)
    np.testing.assert_allclose(found.effects[0], on_paper(SLOPES, covariance), atol=0.03)


def test_two_constants_that_only_act_together_share_alike():
    run = vial(Product(), [0.0, 1.0])
    rng = np.random.default_rng(2)
    a = rng.lognormal(np.log(2.0), 0.3, 400)
    draws = {"a": a, "b": 1.0 / a * rng.lognormal(0.0, 0.05, 400)}
    found = shapley_of_run(run, ["last X"], ["a", "b"], draws=draws, n=256)
    assert [v.name for v in found.levers] == ["a", "b"]
    np.testing.assert_allclose(found.found.effects[0], [0.5, 0.5], atol=0.1)
    apart = shapley_of_run(run, ["last X"], ["a", "b"], n=256).found
    assert found.found.sd[0] < 0.3 * apart.sd[0]
    assert any("all there are" in line for line in found.remarks())
    assert choose_levers(run, ["a"])[0].name == "a"


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="powers of two"):
        shapley_effects(linear, joint_of_laws(LAWS), 100)
    with pytest.raises(ConfigError, match="even number"):
        shapley_effects(linear, joint_of_laws(LAWS), 64, n_orders=3)
    with pytest.raises(ConfigError, match="negative eigenvalue"):
        joint_of_laws(LAWS, np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    with pytest.raises(ConfigError, match="32 rows"):
        joint_of_draws(LAWS, np.ones((4, 3)), (0, 1, 2))
    with pytest.raises(ConfigError, match="all the same"):
        joint_of_draws(LAWS, np.ones((64, 3)), (0, 1, 2))
    with pytest.raises(ConfigError, match="none of these is among"):
        shapley_of_run(vial(Product(), [0.0, 1.0]), ["last X"], ["a"], draws={"c": np.ones(64)})
