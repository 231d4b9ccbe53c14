import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perfusio_jax._core import DataError
from perfusio_jax.metrics import epsilon_indicator, hypervolume, hypervolume_indicator, igd_plus

HV = jax.jit(hypervolume)
N = 9
GRID = st.integers(-2, 6).map(float)


def clouds(n_objectives):
    free = hnp.arrays(float, (N, n_objectives), elements=st.floats(-1.0, 5.0, width=32))
    ties = hnp.arrays(float, (N, n_objectives), elements=GRID)
    return st.one_of(free, ties)


def oracle(Y, ref):
    return moocore.hypervolume(np.asarray(Y, float), ref=np.asarray(ref, float), maximise=True)


@given(clouds(2))
def test_two_objectives_against_moocore(Y):
    assert np.isclose(HV(jnp.asarray(Y), jnp.zeros(2)), oracle(Y, np.zeros(2)), rtol=1e-12)


@given(clouds(3))
def test_three_objectives_against_moocore(Y):
    assert np.isclose(HV(jnp.asarray(Y), jnp.zeros(3)), oracle(Y, np.zeros(3)), rtol=1e-12)


@pytest.mark.parametrize("n_objectives", [2, 3, 4])
def test_known_volumes_of_boxes(n_objectives):
    ref = jnp.full(n_objectives, -1.0)
    Y = jnp.ones((1, n_objectives))
    assert np.isclose(hypervolume_indicator(Y, ref), 2.0**n_objectives)
    twice = jnp.concatenate([Y, Y, Y - 0.5])
    assert np.isclose(hypervolume_indicator(twice, ref), 2.0**n_objectives)
    assert hypervolume_indicator(Y - 5.0, ref) == 0.0


def test_one_and_many_objectives():
    rng = np.random.default_rng(0)
    assert hypervolume_indicator(jnp.array([[1.0], [3.0]]), jnp.array([0.5])) == 2.5
    Y = rng.uniform(size=(20, 5))
    assert np.isclose(hypervolume_indicator(Y, np.zeros(5)), oracle(Y, np.zeros(5)), rtol=1e-12)
    assert isinstance(hypervolume_indicator(Y, np.zeros(5)), float)


def test_more_points_than_one_block_of_slices():
    Y = np.random.default_rng(1).uniform(size=(600, 3))
    assert np.isclose(hypervolume_indicator(Y, np.zeros(3)), oracle(Y, np.zeros(3)), rtol=1e-12)


@given(clouds(3), st.permutations(range(N)))
def test_volume_does_not_depend_on_order_and_grows_with_points(Y, order):
    Y = jnp.asarray(Y)
    value = HV(Y, jnp.zeros(3))
    assert np.isclose(HV(Y[jnp.array(order)], jnp.zeros(3)), value, rtol=1e-12)
    assert HV(Y.at[0].set(-1.0), jnp.zeros(3)) <= value + 1e-12


def test_missing_outcome_is_left_out():
    Y = jnp.array([[1.0, 2.0], [jnp.nan, 9.0]])
    assert HV(Y, jnp.zeros(2)) == 2.0
    grads = jax.grad(hypervolume)(Y, jnp.zeros(2))
    assert jnp.all(jnp.isfinite(grads)) and jnp.all(grads[1] == 0.0)
    assert hypervolume_indicator(jnp.zeros((0, 2)), jnp.zeros(2)) == 0.0


@pytest.mark.parametrize("n_objectives", [2, 3])
def test_gradient_against_finite_differences(n_objectives):
    rng = np.random.default_rng(5)
    Y = jnp.asarray(rng.uniform(-0.2, 1.0, size=(7, n_objectives)))
    ref = jnp.zeros(n_objectives)
    exact = jax.jit(jax.grad(hypervolume, argnums=(0, 1)))(Y, ref)
    for i in range(7):
        for k in range(n_objectives):
            h = 1e-6
            plus, minus = HV(Y.at[i, k].add(h), ref), HV(Y.at[i, k].add(-h), ref)
            assert np.isclose(exact[0][i, k], (plus - minus) / (2 * h), atol=1e-8)
    for k in range(n_objectives):
        numeric = (HV(Y, ref.at[k].add(1e-6)) - HV(Y, ref.at[k].add(-1e-6))) / 2e-6
        assert np.isclose(exact[1][k], numeric, atol=1e-8)
    forward = jax.jit(jax.jacfwd(hypervolume))(Y, ref)
    assert jnp.allclose(forward, exact[0], atol=1e-12)


def test_vmap_equals_loop():
    Y = jnp.asarray(np.random.default_rng(2).uniform(size=(4, 6, 3)))
    mapped = jax.jit(jax.vmap(hypervolume, (0, None)))(Y, jnp.zeros(3))
    assert jnp.allclose(mapped, jnp.stack([HV(y, jnp.zeros(3)) for y in Y]), rtol=1e-13)


@given(clouds(3), clouds(3))
def test_distances_against_loops_and_moocore(A, R):
    expected = np.mean([min(np.linalg.norm(np.maximum(r - a, 0)) for a in A) for r in R])
    assert np.isclose(igd_plus(A, R), expected, atol=1e-12)
    assert np.isclose(igd_plus(A, R), moocore.igd_plus(A, ref=R, maximise=True), atol=1e-12)
    epsilon = epsilon_indicator(A, R)
    assert np.isclose(epsilon, max(min(max(r - a) for a in A) for r in R), atol=1e-12)
    assert np.isclose(epsilon, moocore.epsilon_additive(A, ref=R, maximise=True), atol=1e-12)


def test_distance_signs():
    front = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert igd_plus(front, front) == 0.0 and epsilon_indicator(front, front) == 0.0
    assert igd_plus(front + 1.0, front) == 0.0 and epsilon_indicator(front + 1.0, front) == -1.0
    assert np.isclose(epsilon_indicator(front - 0.5, front), 0.5)
    assert isinstance(igd_plus(front, front), float)
    assert isinstance(epsilon_indicator(front, front), float)


@pytest.mark.parametrize("indicator", [igd_plus, epsilon_indicator])
def test_a_missing_objective_is_no_perfect_front(indicator):
    front = np.array([[1.0, 2.0], [2.0, 1.0]])
    spoilt = np.vstack([front, [np.nan, 0.0]])
    assert np.isnan(indicator(spoilt, front)) and np.isnan(indicator(front, spoilt))


def test_igd_gradient_is_finite_at_zero_and_right_elsewhere():
    front = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    grad = jax.jit(jax.grad(lambda a: igd_plus(a, front)))
    assert jnp.all(jnp.isfinite(grad(front)))
    moved = front - jnp.array([[0.3, 0.1]])
    h = jnp.zeros_like(moved).at[0, 1].set(1e-6)
    numeric = (igd_plus(moved + h, front) - igd_plus(moved - h, front)) / 2e-6
    assert np.isclose(grad(moved)[0, 1], numeric, rtol=1e-6)


def test_refusals():
    Y = jnp.zeros((3, 2))
    with pytest.raises(DataError, match=r"shape \(points, objectives\)"):
        hypervolume(jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(DataError, match="ref_point must have shape"):
        hypervolume(Y, jnp.zeros(3))
    with pytest.raises(DataError, match="4 objectives is computed outside JAX"):
        HV(jnp.ones((2, 4)), jnp.zeros(4))
    with pytest.raises(DataError, match="must agree"):
        igd_plus(Y, jnp.zeros((3, 3)))
    with pytest.raises(DataError, match="at least one point"):
        epsilon_indicator(Y, jnp.zeros((0, 2)))
