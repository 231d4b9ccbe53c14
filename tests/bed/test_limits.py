"""Narrowed boxes, discrete set-points, large batches, pools, and what happens to bad input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed import (
    SearchSettings,
    TrustRegion,
    build_acquisition,
    choose_from_pool,
    describe_search,
    gaussian_process,
    optimise_acquisition_with_info,
    optimise_sequentially,
)

LOWER, UPPER = np.array([0.5, 0.0, 700.0]), np.array([2.0, 0.3, 1050.0])
SMALL = {"n_restarts": 3, "n_raw_samples": 16}
LOOSE = (np.ones((2, 3)), np.full(2, 9e3))
"""Rows that hold nothing back: searches of one shape compile once."""


class Bowl(eqx.Module):
    """Concave, largest at a centre; set-points scaled by their ranges."""

    centre: jax.Array

    def __call__(self, X):
        gap = (X - self.centre[None, :]) / jnp.asarray(UPPER - LOWER)[None, :]
        return -jnp.sum(gap**2)


def search(centre, **options):
    return optimise_acquisition_with_info(
        Bowl(jnp.asarray(centre)),
        (LOWER, UPPER),
        1,
        **{**SMALL, "linear_constraints": LOOSE, **options},
    )


def test_rows_bounds_and_rate_limits_hold_together_to_rounding():
    # bleed <= 0.3 perfusion, and little change from the read-back
    A, b = np.array([[-0.3, 1.0, 0.0], [1.0, 2.0, 0.001]]), np.array([0.0, 2.6])
    now, change = np.array([0.8, 0.1, 900.0]), np.array([0.2, 0.5, np.inf])
    for centre in ([3.0, 0.9, 2000.0], [0.0, 0.9, 0.0], [0.9, 0.25, 800.0]):
        candidates, _, info = search(centre, linear_constraints=(A, b), rate_limit=(now, change))
        for x in [np.asarray(candidates[0]), *np.asarray(info.candidates)[:, 0]]:
            assert (x >= LOWER).all() and (x <= UPPER).all()
            assert (np.abs(x - now) <= change + 1e-15).all()
        assert (A @ np.asarray(candidates[0]) <= b + 1e-12).all()
    # the projection of the centre is known: perfusion at its largest step, the rest free
    candidates, _, _ = search(
        [3.0, 0.05, 800.0], linear_constraints=(A, b + 10.0), rate_limit=(now, change)
    )
    np.testing.assert_allclose(candidates[0], [1.0, 0.05, 800.0], atol=1e-5)


def test_trust_region_bounds_and_moves():
    region = TrustRegion(jnp.asarray([0.4, 0.1, 900.0]), 0.5)
    candidates, _, _ = search([3.0, 0.1, 900.0], trust_region=region)
    # the centre lies outside: it is moved to the edge, from where half the side remains
    np.testing.assert_allclose(candidates[0, 0], 0.5 + 0.25 * 1.5, rtol=1e-12)
    for _ in range(3):
        region = region.after(True, [1.0, 0.1, 900.0])
    assert region.side == 1.0 and region.n_successes == 0
    for _ in range(4):
        region = region.after(False)
    assert region.side == 0.5 and not region.is_spent
    assert TrustRegion(region.centre, 0.001).is_spent
    with pytest.raises(ConfigError, match="above zero"):
        search([1.0, 0.1, 900.0], trust_region=TrustRegion(region.centre, 0.0))


class Ridge(eqx.Module):
    """A narrow oblique ridge: rounding its top to the nearest values goes wrong."""

    count: object = eqx.field(static=True)

    def __call__(self, X):
        if self.count is not None:
            self.count.append(1)
        a, b, c = X[:, 0], X[:, 1], X[:, 2]
        return -jnp.sum(20 * (a - 0.7 * b - 0.4) ** 2 + 0.05 * (b - 3.3) ** 2 + (c - 0.2 * a) ** 2)


def test_discrete_set_points_end_where_trying_all_of_them_does():
    def search_below(total):
        return optimise_acquisition_with_info(
            Ridge(None),
            (np.zeros(3), np.array([5.0, 6.0, 2.0])),
            1,
            discrete={0: range(6), 1: [0, 1, 2, 3, 4, 5, 6]},
            linear_constraints=([[1.0, 1.0, 0.0]], [total]),
            **SMALL,
        )

    candidates, values, info = search_below(99.0)
    a, b = np.meshgrid(np.arange(6), np.arange(7), indexing="ij")
    every = -(20 * (a - 0.7 * b - 0.4) ** 2 + 0.05 * (b - 3.3) ** 2)
    best = np.unravel_index(np.argmax(every), every.shape)
    assert np.asarray(candidates[0, :2]).tolist() == [float(best[0]), float(best[1])]
    np.testing.assert_allclose(values[0], every.max(), atol=1e-7)
    np.testing.assert_allclose(candidates[0, 2], 0.2 * best[0], atol=1e-4)
    assert int(info.n_rounded) > 1
    # with a row that holds the nearest rounding is not allowed
    candidates, values, _ = search_below(4.2)
    allowed = np.where(a + b <= 4.2, every, -np.inf)
    np.testing.assert_allclose(values[0], allowed.max(), atol=1e-7)
    assert float(candidates[0, 0] + candidates[0, 1]) <= 4.2


@pytest.fixture(scope="module")
def gp():
    rng = np.random.default_rng(0)
    X = rng.random((8, 2))
    y = np.sin(5 * X[:, 0]) - X[:, 1] ** 2
    return gaussian_process(X, y, lengthscale=[0.3, 0.4], noise=1e-4), float(y.max())


def test_a_large_batch_is_chosen_one_by_one_in_one_compile(gp):
    model, best = gp
    count = []

    class Counted(eqx.Module):
        acqf: object

        def __call__(self, X):
            count.append(1)
            return self.acqf(X)

    def build(pending):
        return Counted(
            build_acquisition("qLogEI", model, best_f=best, X_pending=pending, sampler=32)
        )

    box = (np.zeros(2), np.ones(2))
    candidates, values, infos = optimise_sequentially(build, box, 4, **SMALL)
    traced = len(count)
    again, _, _ = optimise_sequentially(build, box, 4, **SMALL)
    assert len(count) == traced and len(infos) == 4
    np.testing.assert_array_equal(candidates, again)
    gaps = np.linalg.norm(np.asarray(candidates)[:, None] - np.asarray(candidates)[None], axis=2)
    assert (gaps[np.triu_indices(4, 1)] > 0.02).all()
    # the value of the growing batch never falls
    assert (np.diff(np.asarray(values)) >= -1e-6).all()


def test_a_pool_is_chosen_from_without_repetition(gp):
    model, best = gp
    pool = np.random.default_rng(3).random((20, 2))
    pool = np.concatenate([pool, pool[:3]])

    def build(pending):
        return build_acquisition("qEI", model, best_f=best, X_pending=pending, sampler=32)

    candidates, values, rows = choose_from_pool(build, pool, 3)
    assert len(set(rows)) == 3 and max(rows) < 20
    np.testing.assert_array_equal(candidates, pool[list(rows)])
    empty = np.full((2, 2), np.nan)
    worth = eqx.filter_jit(lambda acqf, points: jax.lax.map(acqf, points))
    alone = worth(build(empty), jnp.asarray(pool[:20, None])).tolist()
    assert rows[0] == int(np.argmax(alone))
    np.testing.assert_allclose(values[0], max(alone), rtol=1e-10)
    with pytest.raises(ConfigError, match="pool of 20 different"):
        choose_from_pool(build, pool, 21)
    nowhere = lambda pending: lambda X: jnp.sum(X) * jnp.nan  # noqa: E731
    with pytest.raises(ConfigError, match="not finite"):
        choose_from_pool(nowhere, pool, 1)


def test_exchange_never_loses_and_finds_what_lone_climbs_miss():
    centres = jnp.asarray([[0.15, 0.2], [0.8, 0.3], [0.4, 0.85], [0.1, 0.6], [0.9, 0.9]])

    def peaks(X):
        # a batch is worth the peaks its members cover together
        near = jnp.exp(-150 * jnp.sum((X[:, None, :] - centres[None]) ** 2, axis=-1))
        return jnp.sum(jnp.max(near, axis=0) * jnp.asarray([1.0, 0.9, 0.8, 0.2, 0.2]))

    box = (np.zeros(2), np.ones(2))
    values = {}
    for n in (0, 4):
        found = [
            optimise_acquisition_with_info(
                peaks, box, 3, 5, n_raw_samples=8, seed=s, settings=SearchSettings(n_exchanges=n)
            )
            for s in range(4)
        ]
        values[n] = np.array([float(f[1][0]) for f in found])
        for candidates, value, info in found:
            np.testing.assert_allclose(peaks(candidates), value[0], rtol=1e-10)
            assert int(info.best) == int(np.nanargmax(info.values))
    assert (values[4] >= values[0] - 1e-9).all()
    assert values[4].mean() > values[0].mean() + 0.1


def test_bounds_of_zero_width_leave_one_point():
    point = np.array([1.0, 0.1, 800.0])
    candidates, values, info = optimise_acquisition_with_info(
        Bowl(jnp.asarray([2.0, 0.2, 900.0])),
        (point, point),
        1,
        linear_constraints=LOOSE,
        **SMALL,
    )
    np.testing.assert_array_equal(candidates[0], point)
    assert bool(info.is_flat) and float(values[0]) < 0
    assert "only a feasible point" in describe_search(info)[0]


def test_starts_outside_the_space_are_moved_and_counted():
    inside, outside = [1.0, 0.1, 800.0], [9.0, -1.0, 800.0]
    _, _, info = search([1.0, 0.1, 900.0], initial_points=[inside, outside])
    assert int(info.n_starts_moved) == 1
    assert any("moved in" in said for said in describe_search(info))
    assert "5 starts converged" in describe_search(info)[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"linear_constraints": ([[1.0, 0.0, 0.0]], [0.2])}, "no point keeps every limit"),
        ({"linear_constraints": ([[1.0, np.nan, 0.0]], [0.2])}, "every number must be finite"),
        ({"seed": -1}, "integer from 0"),
        ({"rate_limit": ([9.0, 0.1, 800.0], [1.0, 1.0, 1.0])}, "no step reaches them"),
        ({"rate_limit": ([1.0, 0.1], 1.0)}, "need 3 numbers"),
        ({"initial_points": [[np.nan, 0.1, 800.0]]}, "NaN"),
        ({"discrete": {7: [1.0]}}, "does not exist"),
        ({"discrete": {0: [9.0]}}, "lies between"),
        ({"discrete": {0: [1.0, 2.0]}, "fixed_features": {0: 1.5}}, "none of its values"),
        (
            {"discrete": {0: [1.0], 1: [0.1, 0.2], 2: [800.0]}, "q": 3},
            "only 2 settings",
        ),
    ],
)
def test_unusable_limits_are_named(options, words):
    arguments = {**SMALL, "q": 1, **options}
    q = arguments.pop("q")
    with pytest.raises(ConfigError, match=words):
        optimise_acquisition_with_info(
            Bowl(jnp.asarray([1.0, 0.1, 900.0])), (LOWER, UPPER), q, **arguments
        )
