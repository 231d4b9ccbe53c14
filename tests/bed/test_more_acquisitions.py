"""Noisy logarithms, knowledge gradient, directions, ensembles, cost, empty places, fallbacks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed import (
    FallbackWarning,
    build_acquisition,
    ensemble,
    gaussian_process,
    gaussian_processes,
    normal_base_samples,
    optimise_acquisition_with_info,
)
from perfusio_jax.bed.acquisition.directions import hypervolume_directions, reach

RNG = np.random.default_rng(4)
X = RNG.random((9, 2))
Y = np.stack([np.sin(3 * X[:, 0]) - X[:, 1] ** 2, X[:, 1] - 0.5 * X[:, 0]], axis=1)
HYPER = {"lengthscale": [0.5, 0.7], "variance": 0.8, "noise": 1e-2}
REF = [-1.2, -0.6]
BATCH = jnp.asarray([[0.9, 0.1], [0.3, 0.7]])


@pytest.fixture(scope="module")
def gp():
    return gaussian_process(X, Y[:, 0], **HYPER)


@pytest.fixture(scope="module")
def pair():
    return gaussian_processes(X, Y, **HYPER)


@eqx.filter_jit
def at(acqf, batch):
    return acqf(batch)


@eqx.filter_jit
def value_and_slope(acqf, batch):
    return jax.value_and_grad(lambda x: acqf(x))(batch)


def test_noisy_logarithm_is_that_of_a_known_incumbent_when_nothing_is_uncertain():
    sure = gaussian_process(X, Y[:, 0], **{**HYPER, "noise": 1e-9})
    base = normal_base_samples(64, (11,), seed=0)
    noisy = build_acquisition("qLogNEI", sure, X_baseline=X, q=2, sampler=base)
    known = build_acquisition("qLogEI", sure, best_f=Y[:, 0].max(), q=2, sampler=base[:, 9:])
    # given the baseline the new points have the same law, but not the same base samples
    np.testing.assert_allclose(at(noisy, BATCH), at(known, BATCH), atol=0.05)
    single = build_acquisition(
        "qLogNEI", sure, X_baseline=X, X_pending=BATCH[1:], sampler=base[:, :11]
    )
    assert float(at(single, BATCH[:1])) < float(at(noisy, BATCH)) + 1e-9


@pytest.mark.parametrize("name", ["qLogNEI", "qLogNEHVI"])
def test_noisy_logarithms_are_finite_with_a_gradient_far_from_improving(gp, pair, name):
    model = gp if name == "qLogNEI" else pair
    more = {} if name == "qLogNEI" else {"ref_point": REF}
    previous = np.inf
    for scale in (1e-100, 1.0, 1e100):
        acqf = build_acquisition(name, model, X_baseline=X, q=2, sampler=16, **more)
        # the incumbent is moved far beyond anything a sample can reach
        if name == "qLogNEI":
            acqf = eqx.tree_at(lambda a: a.best_f, acqf, acqf.best_f + scale)
        else:
            boxes = jax.tree.map(lambda v, s=scale: v + s, acqf.boxes)
            acqf = eqx.tree_at(lambda a: a.boxes, acqf, boxes)
        value, slope = value_and_slope(acqf, BATCH)
        assert bool(jnp.isfinite(value)) and bool(jnp.all(jnp.isfinite(slope)))
        assert float(value) <= previous
        previous = float(value)


def test_logarithm_of_hypervolume_improvement_is_that_of_the_plain_one(pair):
    arguments = {"ref_point": REF, "X_baseline": X, "q": 2, "sampler": 64}
    plain = at(build_acquisition("qNEHVI", pair, **arguments), BATCH)
    log = at(build_acquisition("qLogNEHVI", pair, **arguments), BATCH)
    assert float(plain) > 0
    np.testing.assert_allclose(jnp.exp(log), plain, rtol=2e-2)


def test_knowledge_gradient_is_the_mean_after_conditioning(gp):
    base = jnp.asarray([[0.7, -0.4], [-1.1, 0.2]])
    acqf = build_acquisition("qKG", gp, best_f=0.1, q=2, sampler=base)
    Z = jnp.asarray([[0.5, 0.5], [0.2, 0.9]])
    mean = eqx.filter_jit(lambda model, points: model.mean(points))
    covariance = np.asarray(eqx.filter_jit(gp.covariance)(BATCH, BATCH))
    covariance = covariance + HYPER["noise"] * np.eye(2)
    results = np.asarray(mean(gp, BATCH)) + np.asarray(base) @ np.linalg.cholesky(covariance).T
    again = [
        gaussian_process(np.concatenate([X, BATCH]), np.concatenate([Y[:, 0], y]), **HYPER)
        for y in results
    ]
    expected = np.mean([float(mean(m, z[None])[0]) for m, z in zip(again, Z, strict=True)]) - 0.1
    np.testing.assert_allclose(at(acqf, jnp.concatenate([BATCH, Z])), expected, rtol=1e-8)


def test_knowledge_gradient_is_searched_in_one_shot(gp):
    pool = jnp.asarray(RNG.random((500, 2)))
    best = float(np.max(eqx.filter_jit(gp.mean)(pool)))
    acqf = build_acquisition("qKG", gp, best_f=best, sampler=8)
    candidates, values, info = optimise_acquisition_with_info(
        acqf, (np.zeros(2), np.ones(2)), 1, 4, n_raw_samples=64
    )
    assert candidates.shape == (1, 2) and values.shape == (1,)
    assert info.candidates.shape == (4, 9, 2)
    # knowing more never hurts
    assert float(values[0]) > 0.0


def test_directions_converge_to_the_exact_hypervolume_improvement(pair):
    arguments = {"ref_point": REF, "X_baseline": X, "q": 2, "sampler": 16}
    exact = at(build_acquisition("qNEHVI", pair, **arguments), BATCH)
    acqf = build_acquisition("qNEHVI", pair, n_directions=1024, **arguments)
    value, error = at(acqf, BATCH), eqx.filter_jit(acqf.direction_error)(BATCH)
    assert acqf.is_exact is False
    # quasi-random directions: well within the error of random ones
    assert abs(float(value - exact)) < float(error) < 0.1 * float(exact)


def test_a_box_is_as_large_as_its_directions_say():
    corner = jnp.asarray([[0.7, 0.4, 0.9, 0.6]])
    directions = hypervolume_directions(4096, 4, seed=0)
    length = reach(corner, jnp.zeros(4), directions)
    volume = np.pi**2 / (2.0**4 * 2.0) * float(jnp.mean(length**4))
    np.testing.assert_allclose(volume, float(jnp.prod(corner)), rtol=2e-2)


def test_many_objectives_and_large_batches_are_approximated_on_request_only():
    Y5 = np.concatenate([Y, -Y, X[:, :1]], axis=1)
    model = gaussian_processes(X, Y5, **HYPER)
    arguments = {"ref_point": [-2.0] * 5, "X_baseline": X, "sampler": 16}
    with pytest.raises(ConfigError, match="n_directions"):
        build_acquisition("qNEHVI", model, **arguments)
    acqf = build_acquisition("qNEHVI", model, q=12, n_directions=32, **arguments)
    value, slope = value_and_slope(acqf, jnp.asarray(RNG.random((12, 2))))
    assert float(value) > 0 and bool(jnp.all(jnp.isfinite(slope)))
    known = build_acquisition(
        "qEHVI", model, ref_point=[-2.0] * 5, Y_baseline=Y5, q=2, n_directions=32, sampler=16
    )
    assert float(at(known, BATCH)) > 0


def test_ensemble_is_the_mixture_of_its_members():
    members = [gaussian_process(X, Y[:, 0] + shift, **HYPER) for shift in (0.0, 1.0)]
    both = ensemble(members)
    posterior = eqx.filter_jit(lambda model, points: model.posterior(points))
    mean, variance = posterior(both, BATCH)
    one, two = (posterior(member, BATCH) for member in members)
    np.testing.assert_allclose(mean, 0.5 * (one[0] + two[0]))
    between = 0.25 * (one[0] - two[0]) ** 2
    np.testing.assert_allclose(variance, 0.5 * (one[1] + two[1]) + between)
    base = normal_base_samples(64, (2,), seed=0)
    value = at(build_acquisition("qEI", both, best_f=0.3, q=2, sampler=base), BATCH)
    halves = [
        at(build_acquisition("qEI", m, best_f=0.3, q=2, sampler=part), BATCH)
        for m, part in zip(members, (base[:32], base[32:]), strict=True)
    ]
    np.testing.assert_allclose(value, 0.5 * sum(halves), rtol=1e-12)
    # closed forms would be wrong: the Monte Carlo form is taken
    assert float(at(build_acquisition("EI", both, best_f=0.3, sampler=16), BATCH[:1])) > 0
    noisy = build_acquisition("qLogNEI", both, X_baseline=X, sampler=16)
    assert bool(jnp.isfinite(at(noisy, BATCH[:1])))
    drawn = eqx.filter_jit(lambda key: both.sample(key, BATCH, 5))(jax.random.key(0))
    assert drawn.shape == (6, 2)
    with pytest.raises(ConfigError, match="at least one per member"):
        both.sample_from(base[:1], BATCH)
    with pytest.raises(ConfigError, match="differs"):
        ensemble([members[0], gaussian_process(X[:5], Y[:5, 0], **HYPER)])
    with pytest.raises(ConfigError, match="at least one"):
        ensemble([])


def test_cost_divides_improvements():
    model = gaussian_process(X, Y[:, 0], **HYPER)

    def cost(points):
        return 1.0 + 9.0 * points[:, 0]

    arguments = {"best_f": 0.0, "q": 2, "sampler": 32}
    total = float(jnp.sum(cost(BATCH)))
    plain = at(build_acquisition("qEI", model, **arguments), BATCH)
    dear = at(build_acquisition("qEI", model, cost=cost, **arguments), BATCH)
    np.testing.assert_allclose(dear, plain / total)
    log = at(build_acquisition("qLogEI", model, **arguments), BATCH)
    cooled = build_acquisition("qLogEI", model, cost=cost, cost_power=0.5, **arguments)
    np.testing.assert_allclose(at(cooled, BATCH), log - 0.5 * np.log(total))
    with pytest.raises(ConfigError, match="not an improvement"):
        build_acquisition("qUCB", model, cost=cost)


@pytest.mark.parametrize("name", ["qLogEI", "qUCB", "qLogNEI", "qNEHVI", "qNParEGO", "qKG"])
def test_empty_places_among_pending_points_change_nothing(gp, pair, name):
    model = pair if name in ("qNEHVI", "qNParEGO") else gp
    arguments = {"best_f": 0.3} if name in ("qLogEI", "qKG") else {}
    if name in ("qLogNEI", "qNEHVI", "qNParEGO"):
        arguments["X_baseline"] = X
    if name == "qNEHVI":
        arguments["ref_point"] = REF
    if name == "qNParEGO":
        arguments["weights"] = [0.4, 0.6]
    tail = (2,) if model is pair else ()
    n = (9 if "X_baseline" in arguments else 0) + 3
    base = np.array(normal_base_samples(8, (n, *tail), seed=1))
    pending = np.array([[0.2, 0.2]])
    gap = np.concatenate([pending, np.full((1, 2), np.nan)])
    # base samples of an empty place are not looked at: candidates come last with a baseline
    short = np.delete(base, -2, axis=1) if "X_baseline" in arguments else base[:, :2]
    batch = BATCH[:1]
    if name == "qKG":
        batch = jnp.concatenate([batch, jnp.asarray(RNG.random((8, 2)))])
    without = build_acquisition(name, model, X_pending=pending, sampler=short, **arguments)
    filled = build_acquisition(name, model, X_pending=gap, sampler=base, **arguments)
    np.testing.assert_allclose(at(filled, batch), at(without, batch), rtol=1e-6)


def test_pending_points_turn_a_closed_form_probability_into_samples(gp):
    acqf = build_acquisition("PI", gp, best_f=0.3, X_pending=BATCH[1:], sampler=64)
    assert float(at(acqf, BATCH[:1])) >= float(
        at(build_acquisition("PI", gp, best_f=0.3, sampler=64), BATCH[:1]) - 0.1
    )


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("qLogNEI", {}, "X_baseline"),
        ("qLogNEI", {"X_baseline": X * np.nan}, "not finite"),
        ("qLogNEHVI", {"X_baseline": X}, "ref_point"),
        ("qLogNEHVI", {"X_baseline": X, "ref_point": [0.0, np.nan]}, "finite"),
        ("qEHVI", {"ref_point": REF, "Y_baseline": Y * np.nan}, "every one of the 9 rows"),
        ("qEHVI", {"ref_point": REF, "Y_baseline": Y[:, :1]}, "must agree"),
        ("qEI", {"best_f": np.nan}, "is NaN"),
        ("qKG", {"noise": -1.0}, "not negative"),
        ("qKG", {"constraints": [lambda x: x[:, 0]]}, "no constraints"),
        ("qNEHVI", {"X_baseline": X, "ref_point": REF, "n_directions": 0}, "at least one"),
        ("qEI", {"best_f": 0.0, "eta": 0.0}, "above zero"),
        ("qLogNEI", {"X_baseline": np.zeros((3, 5))}, "one coordinate per input"),
        ("qNParEGO", {"X_baseline": X, "weights": [np.nan, 1.0]}, "none negative"),
        ("qNParEGO", {"X_baseline": X, "weights": [0.0, 0.0]}, "not all zero"),
    ],
)
def test_wrong_calls_are_named(gp, pair, name, arguments, words):
    with pytest.raises(ConfigError, match=words):
        build_acquisition(name, pair if "HVI" in name else gp, **arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengthscale": [0.0, 0.7]}, "length scales and variances must be above zero"),
        ({"noise": -1.0}, "the noise not below"),
        ({"constant": np.nan}, "finite"),
    ],
)
def test_unusable_hyper_parameters_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        gaussian_process(X, Y[:, 0], **{**HYPER, **changes})


def test_points_that_cannot_be_told_apart_need_noise():
    same = np.zeros_like(X)
    with pytest.raises(ConfigError, match="leave repeats out"):
        gaussian_process(same, Y[:, 0], **{**HYPER, "noise": 0.0})
    with pytest.raises(ConfigError, match="at least one"):
        gaussian_process(X[:0], Y[:0, 0], **HYPER)


def test_candidates_of_another_space_are_named(gp):
    acqf = build_acquisition("qEI", gp, best_f=0.0, X_pending=np.zeros((1, 3)), sampler=4)
    with pytest.raises(ConfigError, match="they must agree"):
        acqf(BATCH[:1])
    with pytest.raises(ConfigError, match="one coordinate per input"):
        build_acquisition("EI", gp, best_f=0.0)(jnp.zeros((1, 3)))


def test_missing_results_are_named_or_left_out(pair):
    with pytest.raises(ConfigError, match="rows \\[1\\] hold NaN"):
        gaussian_process(X, np.where(np.arange(9) == 1, np.nan, Y[:, 0]), **HYPER)
    with pytest.raises(ConfigError, match="nothing to condition"):
        gaussian_process(X, Y[:, 0] * np.nan, **HYPER)
    with pytest.raises(ConfigError, match="same N|must be"):
        gaussian_processes(X, Y[:4], **HYPER)
    gaps = Y.copy()
    gaps[3, 1] = np.nan
    arguments = {"ref_point": REF, "sampler": 16}
    some = build_acquisition("qEHVI", pair, Y_baseline=gaps, **arguments)
    rest = build_acquisition("qEHVI", pair, Y_baseline=np.delete(Y, 3, axis=0), **arguments)
    np.testing.assert_allclose(at(some, BATCH[:1]), at(rest, BATCH[:1]), rtol=1e-12)


def test_a_reference_nobody_passes_is_said(pair):
    with pytest.warns(FallbackWarning, match="empty front"):
        acqf = build_acquisition("qNEHVI", pair, ref_point=[5.0, 5.0], X_baseline=X, sampler=8)
    assert float(at(acqf, BATCH[:1])) >= 0.0
    with pytest.warns(FallbackWarning, match="Lower the reference"):
        build_acquisition("qEHVI", pair, ref_point=[5.0, 5.0], Y_baseline=Y, sampler=8)


class Paths(eqx.Module):
    """Stored linear paths, as roll-outs hold them; infeasible right of a line."""

    slopes: jax.Array
    is_gaussian = False

    def sample_and_feasibility(self, X):
        return self.slopes @ X.T, jnp.where(X[:, 0] > 0.5, -50.0, 0.0)

    def posterior(self, X):
        samples, _ = self.sample_and_feasibility(X)
        return jnp.mean(samples, axis=0), jnp.var(samples, axis=0)


def test_stored_paths_meet_baseline_and_candidates_apart():
    paths = Paths(jnp.asarray(RNG.normal(size=(32, 2))))
    acqf = build_acquisition("qLogNEI", paths, X_baseline=X, q=2)
    samples = np.asarray(X @ np.asarray(paths.slopes).T).T
    legal = X[:, 0] <= 0.5
    np.testing.assert_allclose(acqf.best_f, samples[:, legal].max(axis=1))
    batch = np.array([[0.4, 0.9], [0.1, -0.4]])
    gain = np.maximum((batch @ np.asarray(paths.slopes).T).T - samples[:, legal].max(1)[:, None], 0)
    expected = np.log(np.mean(gain.max(axis=1)))
    np.testing.assert_allclose(at(acqf, jnp.asarray(batch)), expected, atol=2e-2)
