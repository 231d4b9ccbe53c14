"""What candidates are compared with on roll-outs, against brute force."""

import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed import (
    RolloutSurrogate,
    TargetSpec,
    TargetTrackingOFV,
    build_acquisition,
    nondominated_boxes,
)
from perfusio_jax.bed.acquisition.boxes import few_boxes
from perfusio_jax.bed.acquisition.multiobjective import hypervolume_improvement
from perfusio_jax.bed.policy.incumbents import (
    BOTH,
    Rule,
    Sampled,
    acquisition_of,
    compare_with,
    draw_weights,
)

HERE = jnp.zeros((1, 1))


def volume(points, ref):
    """Volume below some points and above the reference, by inclusion and exclusion."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            corner = np.min(np.stack(subset), axis=0)
            total += (-1) ** (size + 1) * np.prod(np.maximum(corner - ref, 0.0))
    return total


def added(point, known, ref):
    return volume([*known, point], ref) - volume(list(known), ref)


def rule(kind, **more):
    arguments = {"beta": jnp.asarray(0.2), "best_f": None, "key": jax.random.key(0), **more}
    return Rule(kind=kind, **arguments)


# ------------------------------------------------------------ boxes of few points


@pytest.mark.parametrize("m", [2, 3, 4, 6])
def test_one_point_over_two_adds_what_inclusion_and_exclusion_says(m):
    rng = np.random.default_rng(m)
    ref = np.full(m, -1.0)

    @jax.jit
    def found(point, known):
        return hypervolume_improvement(point[None], few_boxes(known, jnp.asarray(ref)))

    for n, _ in itertools.product((1, 2), range(20)):
        known, point = rng.uniform(-1.3, 0.5, (n, m)), rng.uniform(-1.1, 0.6, m)
        got = float(found(jnp.asarray(point), jnp.asarray(known)))
        np.testing.assert_allclose(got, added(point, known, ref), atol=1e-12)


def test_boxes_of_few_points_neither_overlap_nor_leave_gaps():
    """Points thrown at five objectives: each lies in one box, or below a known point."""
    rng = np.random.default_rng(0)
    known, ref = rng.uniform(0.2, 0.9, (2, 5)), np.zeros(5)
    boxes = few_boxes(jnp.asarray(known), jnp.asarray(ref))
    assert boxes.lower.shape == (25, 5)
    thrown = rng.random((100_000, 5))
    low, high = np.asarray(boxes.lower), np.asarray(boxes.upper)
    times = sum(
        ((thrown > lo) & (thrown <= hi)).all(axis=1) for lo, hi in zip(low, high, strict=True)
    )
    one, other = ((thrown <= point).all(axis=1) for point in known)
    below = one | other
    np.testing.assert_array_equal(times, ~below)


@pytest.mark.parametrize("m", [2, 3])
def test_few_points_leave_the_region_that_many_do(m):
    rng = np.random.default_rng(3)
    ref = jnp.full(m, 0.1)
    known, points = jnp.asarray(rng.random((2, m))), jnp.asarray(rng.random((3, m)))
    few, many = few_boxes(known, ref), nondominated_boxes(known, ref)
    np.testing.assert_allclose(
        hypervolume_improvement(points, few), hypervolume_improvement(points, many), rtol=1e-12
    )


def test_four_objectives_are_exact_for_two_points_and_refused_for_three():
    known = jnp.asarray(np.random.default_rng(0).random((3, 4)))
    assert nondominated_boxes(known[:2], jnp.zeros(4)).lower.shape == (16, 4)
    with pytest.raises(ConfigError, match="for 2 points at most"):
        nondominated_boxes(known, jnp.zeros(4))
    with pytest.raises(ConfigError, match="3 points were given"):
        few_boxes(known, jnp.zeros(4))


# ------------------------------------------------------------ values on known samples

S = 40


@pytest.fixture(scope="module", params=[2, 3, 4])
def seen(request):
    """Scores of two known points and of some candidates on the same paths."""
    m = request.param
    rng = np.random.default_rng(m)
    known = -rng.uniform(0.5, 1.5, (2, 1, m)) - 0.3 * rng.random((2, S, m))
    candidates = -rng.uniform(0.2, 1.4, (6, 1, m)) - 0.3 * rng.random((6, S, m))
    return known, candidates


def values(kind, known, candidates, **more):
    asked = rule(kind, **more)

    @jax.jit
    def all_of(known, candidates):
        held = compare_with(asked, known, jnp.zeros(known.shape[0]))
        each = jax.vmap(lambda s: acquisition_of(asked, Sampled(s), held)(HERE))(candidates)
        return each, held

    return all_of(jnp.asarray(known), jnp.asarray(candidates))


def test_hypervolume_on_each_path_equals_brute_force(seen):
    known, candidates = seen
    found, held = values("NEHVI", known, candidates)
    worst = known.min(axis=(0, 1))
    np.testing.assert_allclose(held.ref_point, worst - 0.1 * np.abs(worst), rtol=1e-12)
    assert bool(held.is_passed) and int(held.incumbent) == BOTH
    ref = np.asarray(held.ref_point)
    wanted = [np.mean([added(c[s], known[:, s], ref) for s in range(S)]) for c in candidates]
    assert max(wanted) > 0.0
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)
    smooth, _ = values("LogNEHVI", known, candidates)
    np.testing.assert_allclose(np.exp(smooth), wanted, rtol=0.02, atol=1e-3 * float(max(wanted)))


def test_hypervolume_over_results_taken_as_certain_equals_brute_force(seen):
    known, candidates = seen
    ref = np.full(known.shape[-1], -2.0)
    found, held = values("EHVI", known, candidates, ref_point=jnp.asarray(ref))
    np.testing.assert_array_equal(held.ref_point, ref)
    certain = known.mean(axis=1)
    wanted = [np.mean([added(c[s], certain, ref) for s in range(S)]) for c in candidates]
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)


def test_a_scalarisation_equals_brute_force(seen):
    known, candidates = seen
    m = known.shape[-1]
    weights = draw_weights(m, 7)
    assert np.isclose(weights.sum(), 1.0) and not np.allclose(weights, draw_weights(m, 8))
    found, _ = values("NParEGO", known, candidates, weights=jnp.asarray(weights))
    top = known.mean(axis=1).max(axis=0)

    def scalar(y):
        regret = weights * (top - y)
        return -(regret.max(axis=-1) + 0.05 * regret.sum(axis=-1))

    best = scalar(known).max(axis=0)
    wanted = np.maximum(scalar(candidates) - best, 0.0).mean(axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)


def test_noisy_improvement_is_over_the_better_one_of_each_path():
    rng = np.random.default_rng(1)
    known, candidates = -rng.random((2, S)), -rng.random((5, S))
    found, held = values("LogNEI", known, candidates)
    np.testing.assert_array_equal(held.best_f, known.max(axis=0))
    wanted = np.maximum(candidates - known.max(axis=0), 0.0).mean(axis=1)
    np.testing.assert_allclose(np.exp(found), wanted, rtol=2e-2)
    _, alone = values("LogNEI", known[:1], candidates)
    assert int(alone.incumbent) == 0
    np.testing.assert_array_equal(alone.best_f, known[0])


def test_known_points_without_a_forecast_or_outside_the_limits_do_not_count(seen):
    known, candidates = seen
    lost = known.copy()
    lost[1] = np.nan
    for kind in ("NEHVI", "EHVI", "LogNEHVI"):
        both, held = values(kind, lost, candidates)
        alone, _ = values(kind, known[:1], candidates, ref_point=held.ref_point)
        np.testing.assert_allclose(both, alone, rtol=1e-10)
    asked = rule("NEHVI", ref_point=jnp.full(known.shape[-1], -3.0))
    samples = jnp.asarray(known)
    illegal = compare_with(asked, samples, jnp.asarray([0.0, -20.0]))
    alone = compare_with(asked, samples[:1], jnp.zeros(1))
    for c in candidates:
        one, other = (
            acquisition_of(asked, Sampled(jnp.asarray(c)), h)(HERE) for h in (illegal, alone)
        )
        np.testing.assert_allclose(one, other, rtol=1e-12)
    single = compare_with(rule("LogNEI"), samples[..., 0], jnp.asarray([-20.0, 0.0]))
    np.testing.assert_array_equal(single.best_f, known[1, :, 0])


def test_a_reference_nobody_passes_is_told():
    known = -np.ones((1, S, 2))
    _, held = values("NEHVI", known, known, ref_point=jnp.asarray([-0.5, -2.0]))
    assert not bool(held.is_passed)


# ------------------------------------------------------------ the same as on a surrogate


@pytest.mark.parametrize("name", ["qNEHVI", "qLogNEHVI", "qLogNEI"])
def test_samples_handed_over_give_what_the_factory_draws_again(linear, name):
    model = linear.make_model()
    specs = [TargetSpec(linear.vcv, 14.0), TargetSpec(linear.via, 96.0, scale=2.0)]
    several = name != "qLogNEI"
    surrogate = RolloutSurrogate(
        model,
        linear.draw_paths(model, 16, key=jax.random.key(0)),
        linear.c0,
        TargetTrackingOFV(specs, is_pareto=several),
        0.0,
        rollout=linear.rollout,
    )
    rng = np.random.default_rng(0)
    width = linear.upper - linear.lower
    known, points = (jnp.asarray(linear.lower + width * rng.random((n, 6))) for n in (2, 4))
    scores = jnp.swapaxes(surrogate.sample(None, known), 0, 1)
    asked = rule(name.removeprefix("q"))
    held = compare_with(asked, scores, jnp.zeros(2))
    more: dict[str, Any] = {"ref_point": held.ref_point} if several else {}
    if "Log" in name:
        more["tau_relu"] = acquisition_of(asked, surrogate, held).tau_relu
    acqf = build_acquisition(name, surrogate, X_baseline=known, **more)
    mine = acquisition_of(asked, surrogate, held)
    if "Log" in name:
        np.testing.assert_array_equal(acqf.tau_relu, mine.tau_relu)
    if name == "qLogNEHVI":
        # the factory cuts the region into other boxes; their smooth edges are part of the value,
        # so the two are the same number only as the edges become sharp
        acqf, mine = (replace(a, tau_relu=1e-9, tau_max=1e-9) for a in (acqf, mine))
    for x in points:
        np.testing.assert_allclose(acqf(x[None]), mine(x[None]), rtol=1e-9)
