"""Acquisition values against closed forms, numerical integrals and each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from perfusio_jax._core import ConfigError
from perfusio_jax.bed import (
    ACQUISITION_NAMES,
    GaussianSurrogate,
    build_acquisition,
    gaussian_process,
    nondominated_boxes,
    normal_base_samples,
    optimise_acquisition,
)
from perfusio_jax.bed.acquisition.multiobjective import hypervolume_improvement
from perfusio_jax.metrics import hypervolume

BEST = 0.3


@pytest.fixture(scope="module")
def gp():
    rng = np.random.default_rng(0)
    X = rng.random((8, 2))
    y = np.sin(3 * X[:, 0]) - X[:, 1] ** 2
    return gaussian_process(X, y, lengthscale=jnp.asarray([0.5, 0.7]), variance=0.8, noise=1e-4)


class Line:
    """mean(X) = slope . x, the same for every objective with its own slope."""

    def __init__(self, slopes):
        self.slopes = jnp.asarray(slopes)

    def __call__(self, X):
        out = X @ self.slopes.T
        return out[:, 0] if self.slopes.shape[0] == 1 else out


class White:
    """Independent noise of one deviation per objective, correlated `rho` between points."""

    def __init__(self, deviations, rho=0.0):
        self.deviations, self.rho = jnp.asarray(deviations), rho

    def __call__(self, X, Z):
        same = jnp.all(X[:, None, :] == Z[None, :, :], axis=-1)
        shape = jnp.where(same, 1.0, self.rho)
        out = self.deviations[:, None, None] ** 2 * shape[None]
        return out[0] if self.deviations.shape[0] == 1 else out


def moments(gp, x):
    mean, variance = gp.posterior(x)
    return float(mean[0]), float(jnp.sqrt(variance[0]))


@eqx.filter_jit
def at(acqf, X):
    return acqf(X)


@eqx.filter_jit
def value_and_slope(acqf, X):
    return jax.value_and_grad(lambda x: acqf(x))(X)


X1 = jnp.asarray([[0.9, 0.1]])


def test_closed_forms_equal_their_integrals(gp):
    mean, deviation = moments(gp, X1)
    density = stats.norm(mean, deviation).pdf

    def integral(utility):
        low, high = mean - 12 * deviation, mean + 12 * deviation
        points = [BEST] if low < BEST < high else None
        return integrate.quad(lambda y: utility(y) * density(y), low, high, points=points)[0]

    value = {
        n: float(at(build_acquisition(n, gp, best_f=BEST, beta=0.5), X1))
        for n in ("PI", "EI", "LogEI", "UCB")
    }
    np.testing.assert_allclose(value["PI"], integral(lambda y: float(y > BEST)), rtol=1e-8)
    expected = integral(lambda y: max(y - BEST, 0.0))
    np.testing.assert_allclose(value["EI"], expected, rtol=1e-8)
    np.testing.assert_allclose(value["LogEI"], np.log(expected), rtol=1e-8)
    np.testing.assert_allclose(value["UCB"], mean + np.sqrt(0.5) * deviation, rtol=1e-12)


def test_monte_carlo_forms_converge_to_the_closed_ones(gp):
    sizes = {"qEI": "EI", "qUCB": "UCB", "qLogEI": "LogEI"}
    for name, closed in sizes.items():
        exact = float(at(build_acquisition(closed, gp, best_f=BEST), X1))
        value = float(at(build_acquisition(name, gp, best_f=BEST, sampler=8192), X1))
        # Sobol error at 8192 points is far below the 1/sqrt(n) = 1e-2 of plain sampling
        np.testing.assert_allclose(value, exact, rtol=2e-3, err_msg=name)


def test_batch_expected_improvement_equals_a_double_integral():
    surrogate = GaussianSurrogate(Line([[1.0, 0.0]]), White([0.4], rho=0.5))
    X = jnp.asarray([[0.2, 0.0], [0.5, 1.0]])
    covariance = 0.16 * np.array([[1, 0.5], [0.5, 1]])
    joint = stats.multivariate_normal([0.2, 0.5], covariance)
    grid = np.linspace(-2.5, 3.2, 1200)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    gain = np.maximum(np.maximum(a, b) - BEST, 0.0)
    cell = (grid[1] - grid[0]) ** 2
    exact = np.sum(gain * joint.pdf(np.stack([a, b], -1))) * cell
    value = build_acquisition("qEI", surrogate, best_f=BEST, sampler=8192, q=2)(X)
    np.testing.assert_allclose(value, exact, rtol=2e-3)
    # a pending point counts like a member of the batch
    pending = build_acquisition("qEI", surrogate, best_f=BEST, sampler=8192, X_pending=X[1:])
    np.testing.assert_allclose(pending(X[:1]), value, rtol=1e-12)
    log_value = build_acquisition("qLogEI", surrogate, best_f=BEST, sampler=8192, q=2)(X)
    np.testing.assert_allclose(log_value, np.log(exact), atol=2e-2)


def test_log_expected_improvement_survives_underflow_with_a_gradient():
    surrogate = GaussianSurrogate(Line([[1.0, 0.0]]), White([1e-3]))
    for best in (10.0 ** np.arange(-100, 101, 20)).tolist():
        for name in ("LogEI", "qLogEI"):
            acqf = build_acquisition(name, surrogate, best_f=best, sampler=16)
            value, slope = value_and_slope(acqf, jnp.asarray([[0.1, 0.0]]))
            assert bool(jnp.isfinite(value)) and bool(jnp.all(jnp.isfinite(slope)))
            # beyond 1e16 a move of the candidate no longer changes best - mean
            assert float(slope[0, 0]) > 0 or best > 1e15
    plain = build_acquisition("EI", surrogate, best_f=10.0)(jnp.asarray([[0.1, 0.0]]))
    assert float(plain) == 0.0


def test_gradients_equal_finite_differences(gp):
    X = jnp.asarray([[0.9, 0.1], [0.4, 0.6]])
    step = 1e-6
    for name in ("LogEI", "qLogEI"):
        here = X if name.startswith("q") else X[:1]
        acqf = build_acquisition(name, gp, best_f=BEST, sampler=64, q=2)
        moves = step * jnp.eye(here.size).reshape(here.size, *here.shape)
        values = jax.jit(jax.vmap(acqf))
        difference = (values(here[None] + moves) - values(here[None] - moves)) / (2 * step)
        slope = jax.jit(jax.grad(lambda x, a=acqf: a(x)))(here)
        np.testing.assert_allclose(jnp.ravel(slope), difference, rtol=1e-4, atol=1e-7)


def test_feasibility_multiplies_improvements_and_penalises_bounds(gp):
    def illegal(X):
        return X[:, 0] - 0.5

    legal, outside = jnp.asarray([[0.2, 0.1]]), jnp.asarray([[0.9, 0.1]])
    for name in ACQUISITION_NAMES[:7]:
        with_it = build_acquisition(name, gp, best_f=-2.0, constraints=[illegal], eta=1e-2)
        without = build_acquisition(name, gp, best_f=-2.0)
        np.testing.assert_allclose(at(with_it, legal), at(without, legal), atol=1e-10)
        assert float(at(with_it, outside)) < float(at(without, outside)) * 0.1 + 1e-6
    half = jnp.asarray([[0.5, 0.1]])
    ratio = build_acquisition("EI", gp, best_f=-2.0, constraints=[illegal])(half)
    np.testing.assert_allclose(ratio * 2, build_acquisition("EI", gp, best_f=-2.0)(half))


def test_paired_incumbent_cancels_what_candidates_share():
    # both points move together: with the incumbent on the same samples nothing is random
    surrogate = GaussianSurrogate(Line([[1.0, 0.0]]), White([1.0], rho=1.0 - 1e-9))
    X = jnp.asarray([[0.5, 0.0], [0.2, 1.0]])
    base = normal_base_samples(256, (2,), seed=0)
    samples = surrogate.sample_from(base, X)
    paired = build_acquisition("qEI", surrogate, best_f=samples[:, 1], sampler=base[:, :1])(X[:1])
    np.testing.assert_allclose(paired, 0.3, atol=1e-3)
    single = build_acquisition("qEI", surrogate, best_f=0.2, sampler=base[:, :1])(X[:1])
    assert float(single) > 0.5


# ---------------------------------------------------------------- several objectives

TWO = GaussianSurrogate(Line([[1.0, 0.0], [0.0, 1.0]]), White([0.3, 0.2]))
FRONT = jnp.asarray([[0.2, 0.8], [0.6, 0.5], [0.8, 0.1], [0.1, 0.1]])
REF = [0.0, 0.0]


def test_two_objective_improvement_equals_the_closed_form():
    # one independent Gaussian point: each box is a product of two expected truncations
    x = jnp.asarray([[0.5, 0.6]])
    boxes = nondominated_boxes(FRONT, jnp.asarray(REF))

    def truncated(low, high, mean, deviation):
        def psi(edge):
            z = (mean - edge) / deviation
            return deviation * (stats.norm.pdf(z) + z * stats.norm.cdf(z))

        return psi(low) - (psi(high) if np.isfinite(high) else 0.0)

    exact = sum(
        truncated(low[0], high[0], 0.5, 0.3) * truncated(low[1], high[1], 0.6, 0.2)
        for low, high in zip(np.asarray(boxes.lower), np.asarray(boxes.upper), strict=True)
    )
    front = build_acquisition("qEHVI", TWO, ref_point=REF, Y_baseline=FRONT, sampler=8192)
    cut = build_acquisition("qEHVI", TWO, ref_point=REF, partitioning=boxes, sampler=8192)
    by_front, by_boxes = at(front, x), at(cut, x)
    np.testing.assert_allclose(by_front, exact, rtol=3e-3)
    np.testing.assert_allclose(by_front, by_boxes, rtol=1e-14)


def test_batch_hypervolume_improvement_equals_inclusion_of_all_points():
    rng = np.random.default_rng(1)

    @jax.jit
    def added(points, front, ref):
        value = hypervolume_improvement(points, nondominated_boxes(front, ref))
        both = hypervolume(jnp.concatenate([front, points]), ref)
        return value, both - hypervolume(front, ref)

    for m in (2, 3):
        for _ in range(5):
            front, points = jnp.asarray(rng.random((6, m))), jnp.asarray(rng.random((3, m)))
            value, expected = added(points, front, jnp.full((m,), 0.1))
            np.testing.assert_allclose(value, expected, atol=1e-12)


def test_boxes_of_padded_and_dominated_points_cover_the_same_region():
    ref = jnp.asarray(REF)
    padded = jnp.concatenate([FRONT, jnp.asarray([REF, [-np.inf, -np.inf]])])

    def volume(boxes):
        edge = jnp.minimum(boxes.upper, 1.0) - boxes.lower
        return float(jnp.sum(jnp.prod(jnp.maximum(edge, 0.0), axis=1)))

    expected = 1.0 - float(hypervolume(FRONT, ref))
    np.testing.assert_allclose(volume(nondominated_boxes(FRONT, ref)), expected, rtol=1e-12)
    np.testing.assert_allclose(volume(nondominated_boxes(padded, ref)), expected, rtol=1e-12)


def test_noisy_improvement_without_noise_equals_the_plain_one():
    quiet = GaussianSurrogate(Line([[1.0, 0.0], [0.0, 1.0]]), White([1e-9, 1e-9]))
    x = jnp.asarray([[0.7, 0.7], [0.3, 0.9]])
    known = build_acquisition("qEHVI", quiet, ref_point=REF, Y_baseline=FRONT, q=2, sampler=8)
    unsure = build_acquisition("qNEHVI", quiet, ref_point=REF, X_baseline=FRONT, q=2, sampler=8)
    plain, noisy = at(known, x), at(unsure, x)
    np.testing.assert_allclose(noisy, plain, rtol=1e-6)
    pending = build_acquisition(
        "qNEHVI", quiet, ref_point=REF, X_baseline=FRONT, X_pending=x[1:], sampler=8
    )
    single = build_acquisition("qEHVI", quiet, ref_point=REF, Y_baseline=FRONT, sampler=8)
    np.testing.assert_allclose(at(pending, x[:1]) + at(single, x[1:]), plain, rtol=1e-6)


def test_parego_is_the_noisy_improvement_of_one_scalarisation():
    quiet = GaussianSurrogate(Line([[1.0, 0.0], [0.0, 1.0]]), White([1e-9, 1e-9]))
    weights = jnp.asarray([0.7, 0.3])
    acqf = build_acquisition("qNParEGO", quiet, X_baseline=FRONT, weights=weights, sampler=8)
    Y = np.asarray(FRONT)
    span = Y.max(0) - Y.min(0)

    def scalar(y):
        regret = np.asarray(weights) * (Y.max(0) - y) / span
        return -(regret.max(-1) + 0.05 * regret.sum(-1))

    x = np.array([[0.75, 0.55]])
    expected = max(scalar(x)[0] - scalar(Y).max(), 0.0)
    assert expected > 0
    np.testing.assert_allclose(acqf(jnp.asarray(x)), expected, rtol=1e-6)
    drawn = build_acquisition("qNParEGO", TWO, X_baseline=FRONT, sampler=8, seed=5)
    np.testing.assert_allclose(jnp.sum(drawn.weights), 1.0)


def test_infeasible_baseline_points_do_not_hold_the_front():
    def illegal(X):
        return X[:, 0] - 0.7

    quiet = GaussianSurrogate(Line([[1.0, 0.0], [0.0, 1.0]]), White([1e-9, 1e-9]))
    baseline = jnp.asarray([[0.9, 0.9], [0.5, 0.5]])
    x = jnp.asarray([[0.6, 0.6]])
    acqf = build_acquisition(
        "qNEHVI", quiet, ref_point=REF, X_baseline=baseline, constraints=[illegal], sampler=8
    )
    np.testing.assert_allclose(at(acqf, x), 0.36 - 0.25, rtol=1e-6)


def test_optimised_batch_spreads_over_the_front():
    acqf = build_acquisition(
        "qNEHVI", TWO, ref_point=REF, X_baseline=FRONT[:1], q=2, sampler=32, seed=1
    )
    candidates, values = optimise_acquisition(
        acqf, (np.zeros(2), np.ones(2)), 2, n_restarts=2, n_raw_samples=16
    )
    np.testing.assert_allclose(candidates, np.ones((2, 2)), atol=1e-6)
    np.testing.assert_allclose(values[0], acqf(candidates), rtol=1e-12)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("qKGX", {}, "names are PI, EI.*qLogNEHVI, qKG"),
        ("EI", {}, "best_f"),
        ("qLogEI", {}, "best_f"),
        ("UCB", {"beta": -1.0}, "negative"),
        ("EI", {"best_f": 0.0, "X_pending": [[0.0, 0.0]]}, "use qEI"),
        ("EI", {"best_f": [0.0, 1.0]}, "one per sample"),
        ("qEI", {"best_f": 0.0, "sampler": 0}, "at least one"),
        ("qEI", {"best_f": 0.0, "sampler": np.zeros((4, 0))}, "needs"),
        ("qEI", {"best_f": 0.0, "sampler": np.zeros((0, 1))}, "at least one sample"),
        ("qEI", {"best_f": 0.0, "q": 0}, "at least one"),
        ("qEI", {"best_f": 0.0, "tau": 1.0}, "does not take tau"),
        ("qEHVI", {"ref_point": [0.0, 0.0]}, "partitioning"),
        ("qEHVI", {"partitioning": 3}, "BoxDecomposition"),
        ("qNEHVI", {"ref_point": [0.0, 0.0]}, "X_baseline"),
        ("qNEHVI", {"X_baseline": FRONT}, "ref_point"),
        ("qNEHVI", {"X_baseline": FRONT, "ref_point": [0.0] * 4}, "qNParEGO"),
        ("qNParEGO", {}, "X_baseline"),
        ("qNEHVI", {"X_baseline": FRONT, "ref_point": REF, "tau": 1}, "does not take tau"),
    ],
)
def test_wrong_calls_are_named(gp, name, arguments, words):
    model = TWO if name in ("qEHVI", "qNEHVI", "qNParEGO") else gp
    with pytest.raises(ConfigError, match=words):
        build_acquisition(name, model, **arguments)


def test_wrong_shapes_are_named_when_called(gp):
    two_points = jnp.asarray([[0.1, 0.2], [0.3, 0.4]])
    with pytest.raises(ConfigError, match="use qEI"):
        build_acquisition("EI", gp, best_f=0.0)(two_points)
    with pytest.raises(ConfigError, match="larger `q`"):
        build_acquisition("qEI", gp, best_f=0.0)(two_points)
    with pytest.raises(ConfigError, match="do not fit"):
        build_acquisition("qEI", TWO, best_f=0.0, sampler=np.zeros((4, 1)))(X1)
    with pytest.raises(ValueError, match="unknown acquisition"):
        build_acquisition("ei", gp)
