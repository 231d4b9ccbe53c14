"""Projections onto boxes cut by linear rows, against a quadratic program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.optimiser.polytope import along_face, face_basis, make_polytope

LOWER, UPPER = np.array([0.0, -1.0, 0.5]), np.array([1.0, 2.0, 0.5])


def by_slsqp(z, polytope):
    answer = minimize(
        lambda x: 0.5 * np.sum((x - z) ** 2),
        np.asarray(polytope.inner),
        jac=lambda x: x - z,
        bounds=list(zip(polytope.lower, polytope.upper, strict=True)),
        constraints={
            "type": "ineq",
            "fun": lambda x: np.asarray(polytope.b - polytope.A @ x),
            "jac": lambda x: -np.asarray(polytope.A),
        },
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return answer.x


ONE_ROW = make_polytope(LOWER, UPPER, [[1.0, 1.0, -1.0]], [0.2])
TWO_ROWS = make_polytope(LOWER, UPPER, [[1.0, 1.0, -1.0], [-1.0, 0.5, 0.0]], [0.2, -0.1])
project_one = jax.jit(lambda z: ONE_ROW.project(z))
project_two = jax.jit(lambda z: TWO_ROWS.project(z))
coordinates = st.lists(st.floats(-5, 5), min_size=3, max_size=3)


@given(coordinates)
def test_one_row_projection_is_the_nearest_feasible_point(z):
    z = np.array(z)
    x = np.asarray(project_one(jnp.asarray(z)))
    assert (x >= LOWER).all() and (x <= UPPER).all()
    assert float(ONE_ROW.violation(jnp.asarray(x))) <= 1e-14
    reference = by_slsqp(z, ONE_ROW)
    assert np.sum((x - z) ** 2) <= np.sum((reference - z) ** 2) + 1e-7


@given(coordinates)
def test_two_row_projection_is_feasible_and_near(z):
    z = np.array(z)
    x = np.asarray(project_two(jnp.asarray(z)))
    assert float(TWO_ROWS.violation(jnp.asarray(x))) <= 1e-14
    reference = by_slsqp(z, TWO_ROWS)
    assert np.linalg.norm(x - reference) <= 1e-3


@given(coordinates)
def test_feasible_points_stay(z):
    x = project_one(jnp.asarray(z))
    np.testing.assert_allclose(project_one(x), x, atol=1e-13)


@given(coordinates)
def test_fold_keeps_rows_and_leaves_feasible_points(z):
    z = jnp.clip(jnp.asarray(z), ONE_ROW.lower, ONE_ROW.upper)
    folded = ONE_ROW.fold(z)
    assert float(ONE_ROW.violation(folded)) <= 1e-14
    if float(ONE_ROW.violation(z)) == 0.0:
        np.testing.assert_array_equal(folded, z)


def test_tangent_vanishes_at_a_vertex_and_follows_a_face():
    corner = ONE_ROW.project(jnp.asarray([5.0, 5.0, 0.5]))
    outward = jnp.asarray([-1.0, -1.0, 0.0])
    p, held, rows = ONE_ROW.tangent(corner, outward)
    assert bool(rows[0])
    # along the row, up to the bounds that hold: no component across it remains
    assert abs(float(ONE_ROW.A[0] @ p)) <= 1e-12
    inside = ONE_ROW.inner
    p, held, rows = ONE_ROW.tangent(inside, outward)
    np.testing.assert_allclose(p, [1.0, 1.0, 0.0])
    assert not bool(rows[0]) and held.tolist() == [False, False, True]


def test_face_projection_removes_dependent_rows_once():
    rows = jnp.asarray([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    held = jnp.asarray([False, False, False])
    basis = face_basis(held, rows)
    v = along_face(jnp.asarray([3.0, 1.0, 5.0]), held, basis)
    np.testing.assert_allclose(v, [1.0, -1.0, 5.0], atol=1e-12)


@pytest.mark.parametrize(
    ("lower", "upper", "A", "b", "words"),
    [
        ([0.0, 1.0], [1.0, 0.0], None, None, "positions \\[1\\]"),
        ([0.0], [np.inf], None, None, "finite"),
        ([0.0, 0.0], [1.0], None, None, "same length"),
        ([0.0], [1.0], [[1.0, 2.0]], [1.0], "do not fit"),
        ([0.0, 0.0], [1.0, 1.0], [[1.0, 1.0]], [-0.5], "no point keeps every limit"),
    ],
)
def test_unusable_limits_are_refused(lower, upper, A, b, words):
    with pytest.raises(ConfigError, match=words):
        make_polytope(lower, upper, A, b)
