import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from perfusio_jax._core import ConfigError
from perfusio_jax.simulator import box_behnken, central_composite, latin_hypercube, scale_to_bounds

RUNS = {3: 12, 4: 24, 5: 40, 6: 48, 7: 56}


def quadratic(design):
    """Columns of the full second-order model."""
    n = design.shape[1]
    pairs = [design[:, i] * design[:, j] for i, j in itertools.combinations(range(n), 2)]
    return np.column_stack([np.ones(len(design)), design, design**2, *pairs])


# -- Box-Behnken --------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), RUNS.items())
def test_box_behnken_counts_and_levels(k, n):
    design = box_behnken(k)
    assert design.shape == (n + 3, k) and set(np.unique(design)) == {-1.0, 0.0, 1.0}
    assert np.all(design[-3:] == 0.0)
    edges = design[:-3]
    assert len(np.unique(edges, axis=0)) == n
    assert np.all((edges != 0).sum(axis=1) == (2 if k <= 5 else 3))
    assert box_behnken(k, 0).shape == (n, k)


@pytest.mark.parametrize("k", RUNS)
def test_box_behnken_is_balanced_and_fits_a_quadratic(k):
    design = box_behnken(k)
    gram = design.T @ design
    assert np.allclose(gram, gram[0, 0] * np.eye(k))
    model = quadratic(design)
    assert np.linalg.matrix_rank(model) == model.shape[1]
    cross = model[:, 1 + 2 * k :]
    assert np.allclose(cross.T @ design, 0.0)
    assert np.allclose(cross.T @ cross, np.diag(np.diag(cross.T @ cross)))


def test_seven_factors_are_the_fano_plane():
    """Each pair of factors varies together in exactly one block of eight runs."""
    varied = box_behnken(7, 0) != 0
    together = varied.T.astype(int) @ varied.astype(int)
    assert np.array_equal(together, 8 * (np.ones((7, 7)) + 2 * np.eye(7)))


def test_six_factors_are_the_published_blocks():
    varied = box_behnken(6, 0) != 0
    together = (varied.T.astype(int) @ varied.astype(int)) // 8
    assert np.all(np.diag(together) == 3)
    twice = {(0, 3), (1, 4), (2, 5)}
    for pair in itertools.combinations(range(6), 2):
        assert together[pair] == (2 if pair in twice else 1)


@pytest.mark.parametrize("args", [(2,), (8,), (4, -1), (3.0,), (True,), ("4",), (4, 1.5)], ids=str)
def test_box_behnken_refusals(args):
    with pytest.raises(ConfigError, match="n_factors|center_points"):
        box_behnken(*args)
    assert issubclass(ConfigError, ValueError)


# -- central composite --------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 5])
def test_composite_layout(k):
    design = central_composite(k, center_points=(3, 2))
    assert design.shape == (2**k + 3 + 2 * k + 2, k)
    factorial, star = design[: 2**k], design[2**k + 3 : 2**k + 3 + 2 * k]
    assert len(np.unique(factorial, axis=0)) == 2**k and np.all(np.abs(factorial) == 1.0)
    assert np.allclose(np.linalg.norm(star, axis=1), 2 ** (k / 4))
    assert np.sum(~design.any(axis=1)) == 5


def test_rotatable_means_the_variance_depends_on_the_radius_alone():
    model = quadratic(central_composite(3))
    inverse = np.linalg.inv(model.T @ model)
    directions = np.random.default_rng(0).normal(size=(20, 3))
    points = quadratic(1.2 * directions / np.linalg.norm(directions, axis=1)[:, None])
    variance = np.einsum("ij,jk,ik->i", points, inverse, points)
    assert np.allclose(variance, variance[0], rtol=1e-10)


@pytest.mark.parametrize("centers", [(4, 4), (6, 2)])
def test_orthogonal_means_orthogonal_blocks(centers):
    """Sums of squares are in proportion to block sizes, so blocks do not bias curvature."""
    design = central_composite(4, "orthogonal", centers)
    cut = 16 + centers[0]
    squares = [(block**2).sum(axis=0) / len(block) for block in (design[:cut], design[cut:])]
    assert np.allclose(*squares)
    rotatable = central_composite(4, "rotatable", centers)
    squares = [(block**2).sum(axis=0) / len(block) for block in (rotatable[:cut], rotatable[cut:])]
    assert not np.allclose(*squares)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((1,), "2..10"),
        ((11,), "2..10"),
        ((3, "faced"), "'faced' is unknown"),
        ((3, "rotatable", (4,)), "two numbers"),
        ((3, "rotatable", (4, -1)), "center_points=-1"),
    ],
)
def test_composite_refusals(args, message):
    with pytest.raises(ConfigError, match=message):
        central_composite(*args)


# -- Latin hypercube ----------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 1000), st.booleans())
def test_every_stratum_is_met_once(n, k, seed, optimise):
    design = latin_hypercube(n, k, seed=seed, optimise=optimise)
    assert design.shape == (n, k) and design.min() >= 0.0 and design.max() <= 1.0
    strata = np.sort(np.floor(design * n), axis=0)
    assert np.array_equal(strata, np.tile(np.arange(n)[:, None], (1, k)))


def test_seed_decides_and_optimisation_helps():
    assert np.array_equal(latin_hypercube(12, 3, seed=4), latin_hypercube(12, 3, seed=4))
    assert not np.array_equal(latin_hypercube(12, 3, seed=4), latin_hypercube(12, 3, seed=5))
    spread = [[qmc.discrepancy(latin_hypercube(16, 3, seed=s, optimise=o)) for s in range(5)]
              for o in (True, False)]  # fmt: skip
    assert np.mean(spread[0]) < np.mean(spread[1])


@pytest.mark.parametrize("args", [(0, 3), (3, 0), (3, 3, -1), (2.5, 3)])
def test_latin_hypercube_refusals(args):
    with pytest.raises(ConfigError, match="must be a whole number"):
        latin_hypercube(*args)


# -- scaling ------------------------------------------------------------------------------


def test_scaling_maps_ends_and_centre():
    lo, hi = np.array([0.5, 35.0]), np.array([2.0, 37.5])
    design = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [1.5, 0.0]])
    expected = [[0.5, 35.0], [2.0, 37.5], [1.25, 36.25], [2.375, 36.25]]
    assert np.allclose(scale_to_bounds(design, lo, hi), expected)
    unit = scale_to_bounds([[0.0, 1.0]], lo, hi, normalised=False)
    assert np.allclose(unit, [[0.5, 37.5]])


@pytest.mark.parametrize(
    ("design", "lo", "hi"),
    [
        (np.zeros(2), [0, 0], [1, 1]),
        (np.zeros((3, 2)), [0], [1, 1]),
        (np.zeros((3, 2)), [0, 0], [1, 1, 1]),
        (np.zeros((3, 2)), [0, 1], [1, 1]),
        (np.zeros((3, 2)), [0, 0], [1, np.inf]),
    ],
)
def test_scaling_refusals(design, lo, hi):
    with pytest.raises(ConfigError, match=r"must have shape|lo < hi"):
        scale_to_bounds(design, lo, hi)
