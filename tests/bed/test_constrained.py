"""Acquisitions under constraints on other outcomes: values, gradients, and what is paired."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from perfusio_jax._core import ConfigError
from perfusio_jax.bed import (
    GaussianSurrogate,
    OutcomeConstraint,
    build_acquisition,
    ensemble,
    normal_base_samples,
)

BEST = 0.1
X1 = jnp.asarray([[0.4, 0.2]])


class Line(eqx.Module):
    """`offset + slope . x`."""

    slope: jax.Array
    offset: jax.Array

    def __call__(self, X):
        return X @ self.slope + self.offset


class White(eqx.Module):
    """Independent noise, point by point."""

    deviation: jax.Array

    def __call__(self, X, Z):
        same = jnp.all(X[:, None, :] == Z[None, :, :], axis=-1)
        return jnp.where(same, self.deviation**2, 0.0)


class Pair(eqx.Module):
    """Two outcomes side by side, as one surrogate of two objectives."""

    one: GaussianSurrogate
    two: GaussianSurrogate

    def mean(self, X):
        return jnp.stack([self.one.mean(X), self.two.mean(X)], axis=-1)

    def covariance(self, X, Z):
        return jnp.stack([self.one.covariance(X, Z), self.two.covariance(X, Z)])


def outcome(offset, deviation, slope=(0.0, 0.0)):
    line = Line(jnp.asarray(slope), jnp.asarray(float(offset)))
    return GaussianSurrogate(line, White(jnp.asarray(float(deviation))))


GOAL = outcome(0.0, 0.3, (0.5, 0.5))
LIMITED = [(outcome(0.2, 0.5), 0.4, 1.0), (outcome(-1.0, 2.0), -0.5, -1.0), (outcome(3, 1), 3, 1.0)]
"""Three independent outcomes with their limits and signs."""


@eqx.filter_jit
def at(acqf, X):
    return acqf(X)


@eqx.filter_jit
def value_and_slope(acqf, X):
    return jax.value_and_grad(lambda x: acqf(x))(X)


def moments(surrogate, X=X1):
    mean, variance = surrogate.posterior(X)
    return float(mean[0]), float(jnp.sqrt(variance[0]))


def expected_improvement(X=X1):
    mean, deviation = moments(GOAL, X)
    z = (mean - BEST) / deviation
    return deviation * (z * stats.norm.cdf(z) + stats.norm.pdf(z))


def probability(surrogate, limit, sign):
    mean, deviation = moments(surrogate)
    return stats.norm.cdf(sign * (limit - mean) / deviation)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_feasibility_is_the_probability_that_every_constraint_is_kept(n):
    limits = [OutcomeConstraint(m, limit=limit, sign=sign) for m, limit, sign in LIMITED[:n]]
    kept = np.prod([probability(*each) for each in LIMITED[:n]])
    mean, deviation = moments(GOAL)
    ei, pi = expected_improvement(), stats.norm.cdf((mean - BEST) / deviation)
    bound = mean + np.sqrt(0.5) * deviation + np.log(kept)
    truth = {"EI": ei * kept, "PI": pi * kept, "LogEI": np.log(ei * kept), "UCB": bound}
    truth |= {"qEI": ei * kept, "qLogEI": np.log(ei * kept), "qUCB": bound}
    for name, expected in truth.items():
        acqf = build_acquisition(
            name, GOAL, best_f=BEST, beta=0.5, constraints=limits, sampler=4096
        )
        # plain sampling of 4096 points would be off by 6e-2 with three constraints
        np.testing.assert_allclose(at(acqf, X1), expected, rtol=6e-3, err_msg=name)


def test_two_limits_on_one_outcome_leave_what_lies_between():
    model = outcome(0.2, 0.5)
    between = [
        OutcomeConstraint(model, limit=0.5),
        OutcomeConstraint(model, limit=0.0, sign=-1.0),
    ]
    kept = np.diff(stats.norm(0.2, 0.5).cdf([0.0, 0.5]))[0]
    for name in ("EI", "qEI"):
        acqf = build_acquisition(name, GOAL, best_f=BEST, constraints=between, sampler=4096)
        np.testing.assert_allclose(at(acqf, X1), expected_improvement() * kept, rtol=4e-3)


def test_a_limit_on_the_objective_itself_is_judged_on_its_own_samples():
    limit = OutcomeConstraint(GOAL, limit=0.6)
    density = stats.norm(*moments(GOAL)).pdf
    truth = integrate.quad(lambda y: (y - BEST) * density(y), BEST, 0.6)[0]
    acqf = build_acquisition("qEI", GOAL, best_f=BEST, constraints=[limit], sampler=4096)
    np.testing.assert_allclose(at(acqf, X1), truth, rtol=4e-3)
    for name, other in (("EI", "qEI"), ("LogEI", "qLogEI"), ("PI", "qEI")):
        with pytest.raises(ConfigError, match=f"on the objective itself; use {other}"):
            build_acquisition(name, GOAL, best_f=BEST, constraints=[limit])


def test_gradients_under_constraints_equal_those_of_the_integral():
    """A step wide beside the samples' spacing: then its mean is smooth in the candidate."""
    eta = 0.2
    tables = [(outcome(0.2, 0.5, (0.7, -0.4)), 0.4), (outcome(0.0, 0.3, (-0.2, 1.0)), 0.1)]
    limits = [OutcomeConstraint(model, limit=limit) for model, limit in tables]

    def log_value(x):
        X = jnp.asarray(x)[None]
        total = np.log(expected_improvement(X))
        for model, limit in tables:
            mean, deviation = moments(model, X)
            step = lambda c, limit=limit: 1.0 / (1.0 + np.exp((c - limit) / eta))  # noqa: E731
            low, high = mean - 10 * deviation, mean + 10 * deviation
            kept = integrate.quad(
                lambda c, s=step, m=mean, d=deviation: s(c) * stats.norm.pdf(c, m, d), low, high
            )[0]
            total += np.log(kept)
        return total

    x, step = np.asarray(X1[0]), 1e-4
    slope = [(log_value(x + d) - log_value(x - d)) / (2 * step) for d in step * np.eye(2)]
    for name in ("LogEI", "qLogEI"):
        acqf = build_acquisition(name, GOAL, best_f=BEST, constraints=limits, eta=eta, sampler=4096)
        value, found = value_and_slope(acqf, X1)
        np.testing.assert_allclose(value, log_value(x), rtol=2e-3)
        np.testing.assert_allclose(found[0], slope, rtol=1e-2, err_msg=name)


@pytest.mark.parametrize("fat", [False, True])
def test_feasibility_is_finite_with_a_gradient_however_far_a_limit_is(fat):
    for excess in (1.0, 1e4, 1e9):
        limit = OutcomeConstraint(outcome(excess, 0.1, (1.0, 0.0)), limit=0.0)
        for name in ("LogEI", "qLogEI"):
            acqf = build_acquisition(
                name, GOAL, best_f=BEST, constraints=[limit], sampler=16, fat=fat
            )
            value, slope = value_and_slope(acqf, X1)
            assert bool(jnp.isfinite(value)) and bool(jnp.all(jnp.isfinite(slope)))
            assert float(slope[0, 0]) < 0.0 or fat
        if fat:
            # a tail that falls like a power is far above one that falls exponentially
            assert float(value) > -100.0


TWO = GaussianSurrogate(
    Pair(GOAL, outcome(0.3, 0.2)).mean, Pair(GOAL, outcome(0.3, 0.2)).covariance
)
RUN = jnp.asarray([[-0.4, 0.2], [-0.5, 0.1]])
KINDS = ("qEI", "qLogEI", "qEHVI", "qNEHVI", "qLogNEHVI", "qNParEGO", "qLogNEI")


@pytest.mark.parametrize("name", KINDS)
def test_every_improvement_is_multiplied_by_the_probability(name):
    several = name in ("qEHVI", "qNEHVI", "qLogNEHVI", "qNParEGO")
    arguments = {"best_f": BEST} if name in ("qEI", "qLogEI") else {}
    if name not in ("qEI", "qLogEI", "qEHVI"):
        arguments["X_baseline"] = RUN
    if name in ("qEHVI", "qNEHVI", "qLogNEHVI"):
        arguments["ref_point"] = [-1.0, -0.5]
    if name == "qEHVI":
        arguments["Y_baseline"] = np.asarray([[0.0, 0.3]])
    if name == "qNParEGO":
        arguments["weights"] = [0.5, 0.5]
    # surely kept at the points already run, with probability 0.31 at the candidate
    limit = OutcomeConstraint(outcome(-50.0, 0.5, (125.0, 0.0)), limit=-0.25)
    kept = stats.norm.cdf(-0.25 / 0.5)
    both = [
        float(
            at(
                build_acquisition(
                    name, TWO if several else GOAL, constraints=c, sampler=2048, **arguments
                ),
                X1,
            )
        )
        for c in ((), (limit,))
    ]
    ratio = np.exp(both[1] - both[0]) if "Log" in name else both[1] / both[0]
    # dependent samples would be off by a third and more
    np.testing.assert_allclose(ratio, kept, rtol=3e-2)


# ---------------------------------------------------------------- which samples are paired


def natural(seed, n, sampler=None):
    base = None if seed is None else normal_base_samples(n, (1,), seed=seed)
    limit = OutcomeConstraint(LIMITED[0][0], base, LIMITED[0][1])
    return build_acquisition(
        "qEI", GOAL, best_f=BEST, constraints=[limit], sampler=n if sampler is None else sampler
    )


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_samples_of_a_constraint_never_depend_on_those_of_the_objective(seed):
    acqf = natural(seed, 512)
    truth = expected_improvement() * probability(*LIMITED[0])
    np.testing.assert_allclose(at(acqf, X1), truth, rtol=1e-2)
    mine, theirs = np.asarray(acqf.draws.base), np.asarray(acqf.draws.constraints[0].base)
    assert abs(np.corrcoef(mine[:, 0], theirs[:, 0])[0, 1]) < 0.02
    if seed is not None:
        # the values that were given, in another order
        given = normal_base_samples(512, (1,), seed=seed)
        np.testing.assert_array_equal(np.sort(theirs, axis=0), np.sort(given, axis=0))


def test_two_constraints_do_not_depend_on_each_other_in_closed_form():
    base = normal_base_samples(1024, (1,), seed=1)
    limits = [OutcomeConstraint(m, base, limit, sign) for m, limit, sign in LIMITED[:2]]
    kept = np.prod([probability(*each) for each in LIMITED[:2]])
    value = at(build_acquisition("EI", GOAL, best_f=BEST, constraints=limits), X1)
    np.testing.assert_allclose(value, expected_improvement() * kept, rtol=5e-3)


def test_sets_that_are_both_given_are_used_as_they_are_unless_they_depend():
    joint = normal_base_samples(512, (2,), seed=3)
    model, limit = LIMITED[0][:2]

    def build(mine, theirs):
        limits = [OutcomeConstraint(model, theirs, limit)]
        return build_acquisition("qEI", GOAL, best_f=BEST, constraints=limits, sampler=mine)

    acqf = build(joint[:, :1], joint[:, 1:])
    np.testing.assert_array_equal(acqf.draws.constraints[0].base, joint[:, 1:])
    truth = expected_improvement() * probability(*LIMITED[0])
    np.testing.assert_allclose(at(acqf, X1), truth, rtol=1e-2)
    mine = joint[:, :1]
    folded = jax.scipy.special.ndtri(jnp.abs(jax.scipy.special.ndtr(mine) * 2 - 1))
    scrambled = [normal_base_samples(512, (1,), seed=s) for s in range(5)]
    for theirs in (mine, -mine, folded, *scrambled):
        with pytest.raises(ConfigError, match=r"depend on each other.*Leave `base` out"):
            build(mine, theirs)


def test_a_constraint_beside_a_set_that_was_given_is_dealt_a_set_in_random_order():
    n = 4096
    acqf = natural(None, n, sampler=normal_base_samples(n, (1,), seed=0))
    truth = expected_improvement() * probability(*LIMITED[0])
    np.testing.assert_allclose(at(acqf, X1), truth, rtol=3.0 / np.sqrt(n))


def test_members_of_two_mixtures_meet_each_other_all():
    goal = ensemble([outcome(offset, 1e-6) for offset in (0.0, 1.0)])
    limits = [
        OutcomeConstraint(ensemble([outcome(offset, 1e-6) for offset in (-1.0, 1.0)]), limit=0.0)
        for _ in range(2)
    ]
    n = 4096
    for count in (1, 2):
        acqf = build_acquisition("qEI", goal, best_f=0.0, constraints=limits[:count], sampler=n)
        np.testing.assert_allclose(at(acqf, X1), 0.5 ** (1 + count), atol=4 * 0.5 / np.sqrt(n))
    # a limit on the mixture itself is judged on its own samples, row by row
    own = OutcomeConstraint(goal, limit=0.5)
    acqf = build_acquisition("qEI", goal, best_f=-1.0, constraints=[own], sampler=64)
    np.testing.assert_allclose(at(acqf, X1), 0.5, rtol=1e-6)


class Held(eqx.Module):
    """A surrogate that holds its own paths."""

    scores: jax.Array
    is_gaussian = False

    def sample_and_feasibility(self, X):
        return self.scores[:, None] + X[None, :, 0], jnp.zeros(X.shape[0])


def test_beside_stored_paths_a_constraint_has_one_sample_per_path():
    paths = Held(jax.random.normal(jax.random.key(0), (4096,)))
    limit = OutcomeConstraint(LIMITED[0][0], limit=LIMITED[0][1])
    with pytest.raises(ConfigError, match="say `sampler=` number of paths"):
        build_acquisition("qEI", paths, best_f=0.0, constraints=[limit])
    plain, limited = (
        float(at(build_acquisition("qEI", paths, best_f=0.0, constraints=c, sampler=4096), X1))
        for c in ((), (limit,))
    )
    np.testing.assert_allclose(limited / plain, probability(*LIMITED[0]), rtol=0.05)
    wrong = build_acquisition("qEI", paths, best_f=0.0, constraints=[limit], sampler=64)
    with pytest.raises(ConfigError, match="64 samples and the objective 4096"):
        wrong(X1)


def test_wrong_sets_are_named():
    model = LIMITED[0][0]
    with pytest.raises(ConfigError, match="no base samples yet"):
        OutcomeConstraint(model)(X1)
    one = OutcomeConstraint(model, normal_base_samples(64, (1,), seed=0))
    with pytest.raises(ConfigError, match=r"\(64, 1\).*\(32, 1\)"):
        build_acquisition("qEI", GOAL, best_f=BEST, constraints=[one], sampler=32)
    with pytest.raises(ConfigError, match=r"\(64, 1\).*\(64, 2\)"):
        build_acquisition("qEI", GOAL, best_f=BEST, constraints=[one], q=2)
    other = OutcomeConstraint(model, normal_base_samples(64, (1,), seed=1), 1.0)
    base = jax.random.normal(jax.random.key(1), (64, 1))
    with pytest.raises(ConfigError, match="two constraints on one surrogate"):
        build_acquisition("qEI", GOAL, best_f=BEST, constraints=[one, other], sampler=base)
    acqf = build_acquisition("EI", GOAL, best_f=BEST, constraints=[one])
    with pytest.raises(ConfigError, match="larger `q`"):
        acqf.draws.constraints[0](jnp.zeros((2, 2)))


# ---------------------------------------------------------------- empty places


EMPTY = np.full((2, 2), np.nan)


@pytest.mark.parametrize("penalty", [0.0, 1e-12, 1.0])
def test_an_empty_place_does_not_count_whatever_the_penalty(penalty):
    # an empty place stands at the origin, where this objective is best
    goal = outcome(5.0, 0.3, (-5.0, -5.0))
    limit = OutcomeConstraint(LIMITED[0][0], limit=LIMITED[0][1])
    arguments = {"constraints": [limit], "sampler": 64, "penalty": penalty, "beta": 0.5}
    base = normal_base_samples(64, (1,), seed=0)
    without = at(build_acquisition("qUCB", goal, **{**arguments, "sampler": base}), X1)
    wide = jnp.concatenate([base, jnp.ones((64, 2)) * base[:, ::-1]], axis=1)
    filled = at(
        build_acquisition("qUCB", goal, X_pending=EMPTY, **{**arguments, "sampler": wide}), X1
    )
    np.testing.assert_allclose(filled, without, atol=0.02 * penalty + 1e-9)


def test_an_empty_place_counts_less_than_any_candidate():
    limit = OutcomeConstraint(outcome(1e9, 0.1, (1.0, 0.0)), limit=0.0)
    acqf = build_acquisition(
        "qLogEI", GOAL, best_f=BEST, constraints=[limit], sampler=16, X_pending=EMPTY
    )
    value, slope = value_and_slope(acqf, X1)
    assert float(value) < -1e11 and float(slope[0, 0]) < 0.0


class Logarithm(eqx.Module):
    """Not a number at the origin, where empty places stand."""

    def __call__(self, X):
        return jnp.log(X[:, 0]) + jnp.sqrt(-1.0 + 3.0 * X[:, 1] + X[:, 0])


@pytest.mark.parametrize("name", ["qEI", "qLogEI", "qUCB", "PI"])
def test_what_a_surrogate_makes_of_an_empty_place_is_not_looked_at(name):
    goal = GaussianSurrogate(Logarithm(), White(jnp.asarray(0.2)))
    X = jnp.asarray([[0.8, 0.6]])
    base = normal_base_samples(32, (3,), seed=0)
    alone = build_acquisition(name, goal, best_f=-1.0, sampler=base)
    filled = build_acquisition(name, goal, best_f=-1.0, sampler=base, X_pending=EMPTY)
    value, slope = value_and_slope(filled, X)
    assert bool(jnp.isfinite(value)) and bool(jnp.all(jnp.isfinite(slope)))
    if name != "PI":  # without pending points it is the closed form
        np.testing.assert_allclose(value, at(alone, X), rtol=1e-9)
