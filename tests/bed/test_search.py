"""The batched optimiser on functions whose maxima are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from benchmarks.bed_problems import HARTMANN_A, HARTMANN_P
from perfusio_jax._core import ConfigError, Result
from perfusio_jax.bed import optimise_acquisition, optimise_acquisition_with_info
from perfusio_jax.bed.optimiser.polytope import make_polytope
from perfusio_jax.bed.optimiser.sampling import sobol_points
from perfusio_jax.bed.optimiser.search import SearchSettings, _bounds, maximise
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

BOX2 = ([-5.0, 0.0], [10.0, 15.0])


class Branin(eqx.Module):
    """Negative Branin function, shifted; three equal maxima of -0.397887 at shift 0."""

    shift: jax.Array
    count: object = eqx.field(static=True, default=None)

    def __call__(self, X):
        if self.count is not None:
            self.count.append(1)
        x, y = X[0, 0], X[0, 1]
        inner = y - 5.1 / (4 * jnp.pi**2) * x**2 + 5 / jnp.pi * x - 6
        return self.shift - (inner**2 + 10 * (1 - 1 / (8 * jnp.pi)) * jnp.cos(x) + 10)


class Count(list):
    """A hashable list: counts how often the body is traced."""

    def __hash__(self):
        return id(self)


def hartmann6(X):
    x = X[0]
    weights = jnp.asarray([1.0, 1.2, 3.0, 3.2])
    gap = jnp.sum(jnp.asarray(HARTMANN_A) * (x[None, :] - jnp.asarray(HARTMANN_P)) ** 2, axis=1)
    return jnp.sum(weights * jnp.exp(-gap))


class Quadratic(eqx.Module):
    """Concave quadratic of two candidates; its box-constrained maximum is a clip."""

    centre: jax.Array
    scale: jax.Array

    def __call__(self, X):
        return -jnp.sum(self.scale[None, :] * (X - self.centre) ** 2)


class Bowl(eqx.Module):
    """1 minus a bowl around (3, 0), NaN left of an edge."""

    scale: jax.Array
    edge: jax.Array
    count: object = eqx.field(static=True)

    def __call__(self, X):
        self.count.append(1)
        value = 1.0 - self.scale * ((X[0, 0] - 3.0) ** 2 + X[0, 1] ** 2)
        return jnp.where(X[0, 0] < self.edge, jnp.nan, value)


def test_branin_trace_count_and_same_bytes():
    count = Count()
    first = optimise_acquisition_with_info(Branin(jnp.asarray(0.0), count), BOX2, seed=3)
    traced = len(count)
    again = optimise_acquisition_with_info(Branin(jnp.asarray(0.0), count), BOX2, seed=3)
    other = optimise_acquisition_with_info(
        Branin(jnp.asarray(2.0), count), ([-4.0, 0.5], [9.9, 14.0]), seed=4
    )
    # once for the raw points and once for the climbs
    assert traced == 2 and len(count) == traced
    candidates, values, info = first
    assert candidates.shape == (1, 2) and values.shape == (1,)
    np.testing.assert_allclose(values[0], -0.39788735772973816, atol=1e-9)
    np.testing.assert_allclose(other[1][0], 2.0 - 0.39788735772973816, atol=1e-9)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert int(info.n_converged) == 10 and int(info.n_duplicates) >= 7
    # at least one evaluation per step and start, none after a start has stopped
    spent = int(info.n_evals) - 512
    assert int(np.sum(info.n_steps)) + 10 <= spent <= 8 * int(info.n_rounds)
    assert float(info.gradient_norms[info.best]) < 1e-5
    assert not bool(info.is_flat) and int(info.n_raw_nonfinite) == 0
    candidates, values, _ = optimise_acquisition_with_info(
        Branin(jnp.asarray(0.0), count), BOX2, fixed_features={1: 7.5}
    )
    assert len(count) == traced
    assert float(candidates[0, 1]) == 7.5
    line = jnp.stack([jnp.linspace(-5, 10, 20001), jnp.full(20001, 7.5)], axis=1)
    best = jnp.max(jax.vmap(Branin(jnp.asarray(0.0)))(line[:, None, :]))
    assert float(values[0]) >= float(best) - 1e-9


def test_hartmann_is_at_least_as_good_as_multistart_scipy():
    candidates, values = optimise_acquisition(hartmann6, (np.zeros(6), np.ones(6)), seed=0)
    vg = jax.jit(jax.value_and_grad(lambda x: -hartmann6(x[None, :])))
    rng = np.random.default_rng(0)
    reference = max(
        -minimize(
            lambda x: tuple(map(np.asarray, vg(x))),
            rng.random(6),
            jac=True,
            bounds=[(0, 1)] * 6,
            method="L-BFGS-B",
        ).fun
        for _ in range(10)
    )
    assert float(values[0]) >= reference - 1e-6 * (1 + abs(reference))
    np.testing.assert_allclose(values[0], 3.32236801, atol=1e-7)
    np.testing.assert_allclose(hartmann6(candidates), values[0], rtol=1e-14)


def test_quadratic_stops_exactly_on_the_bounds_that_hold():
    lower, upper = np.array([0.0, 0.0, 0.0]), np.array([1.0, 2.0, 3.0])
    centre = jnp.asarray([[1.7, 0.3, -1.0], [0.4, 9.0, 2.9]])
    acqf = Quadratic(centre, jnp.asarray([1.0, 30.0, 0.01]))
    candidates, values, info = optimise_acquisition_with_info(
        acqf, (lower, upper), 2, 4, n_raw_samples=32, seed=1
    )
    expected = np.clip(np.asarray(centre), lower, upper)
    np.testing.assert_allclose(candidates, expected, atol=1e-6)
    held = (expected == lower) | (expected == upper)
    np.testing.assert_array_equal(np.asarray(candidates)[held], expected[held])
    np.testing.assert_array_equal(values, np.full(2, float(acqf(candidates))))
    assert int(info.n_converged) == 4


def test_linear_constraint_is_kept_and_the_optimum_lies_on_it():
    acqf = Quadratic(jnp.asarray([[1.0, 1.0]]), jnp.asarray([1.0, 1.0]))
    A, b = [[2.0, 1.0]], [1.0]
    candidates, _, info = optimise_acquisition_with_info(
        acqf,
        (np.zeros(2), np.ones(2)),
        1,
        4,
        n_raw_samples=32,
        linear_constraints=(A, b),
    )
    # projection of (1, 1) onto 2x + y = 1 is (0.2, 0.6)
    np.testing.assert_allclose(candidates[0], [0.2, 0.6], atol=1e-6)
    assert float(np.asarray(A)[0] @ np.asarray(candidates[0])) <= 1.0 + 1e-12
    ends = np.asarray(info.candidates)[:, 0, :]
    assert (ends @ np.asarray(A)[0] <= 1.0 + 1e-12).all() and float(info.violation) <= 1e-12


def test_flat_nan_and_tiny_acquisitions_share_one_compile():
    count = Count()
    small = {"n_restarts": 3, "n_raw_samples": 64, "initial_points": [[-4.0, 1.0], [5.0, 1.0]]}

    def run(scale, edge):
        acqf = Bowl(jnp.asarray(scale), jnp.asarray(edge), count)
        return optimise_acquisition_with_info(acqf, BOX2, **small)

    candidates, values, info = run(0.0, -9.0)
    traced = len(count)
    assert bool(info.is_flat) and float(values[0]) == 1.0
    assert (np.asarray(candidates[0]) >= BOX2[0]).all()

    candidates, values, info = run(1.0, 0.0)
    assert 0 < int(info.n_raw_nonfinite) < 64 and not bool(info.is_flat)
    np.testing.assert_allclose(candidates[0], [3.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(values[0], 1.0, atol=1e-9)
    # the start in the NaN region is lost and harms no other
    codes = np.asarray(info.codes)
    assert codes[0] == Result.NONFINITE.value and np.isnan(info.values[0])
    assert (codes[1:] == Result.SUCCESS.value).all()

    with pytest.raises(ConfigError, match="not finite"):
        run(1.0, 99.0)
    assert len(count) == traced


def test_acquisitions_of_any_magnitude_are_climbed():
    tiny = Quadratic(jnp.asarray([[0.3, 0.6]]), jnp.asarray([1e-13, 1e-12]))
    candidates, _ = optimise_acquisition(
        tiny, (np.zeros(2), np.ones(2)), n_restarts=4, n_raw_samples=32
    )
    np.testing.assert_allclose(candidates[0], [0.3, 0.6], atol=1e-5)


def test_design_space_gives_its_bounds():
    for ours, theirs in zip(
        _bounds(DEFAULT_AMBR250_DESIGN_SPACE),
        DEFAULT_AMBR250_DESIGN_SPACE.bounds_array,
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_vmap_over_problems_solves_each():
    box = make_polytope(*BOX2)
    raw = jnp.asarray(sobol_points(32, 2, seed=0)[:, None, :])
    settings = SearchSettings(n_restarts=3, n_raw_samples=32, max_rounds=60)

    @jax.jit
    @jax.vmap
    def solve(shift):
        return maximise(Branin(shift), box, raw, key=jax.random.key(0), settings=settings)[:2]

    shifts = jnp.asarray([0.0, 1.0, 5.0])
    candidates, values = solve(shifts)
    np.testing.assert_allclose(values, shifts - 0.39788735772973816, atol=1e-8)
    np.testing.assert_allclose(jax.vmap(Branin(jnp.asarray(0.0)))(candidates), values - shifts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q": 0}, "at least 1"),
        ({"n_restarts": 9, "n_raw_samples": 8}, "at least n_restarts"),
        ({"fixed_features": {5: 0.0}}, "position from 0 to 1"),
        ({"fixed_features": {0: 99.0}}, "between"),
        ({"design_space": 3.0}, "pair \\(lower, upper\\)"),
        ({"initial_points": np.zeros((2, 3))}, "must be"),
    ],
)
def test_unusable_arguments_are_named(changes, words):
    arguments = {"design_space": BOX2, **changes}
    with pytest.raises(ConfigError, match=words):
        optimise_acquisition_with_info(hartmann6, **arguments)
