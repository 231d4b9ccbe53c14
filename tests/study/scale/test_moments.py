"""Moments merged by a tree: the same bits whoever held which block."""

import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.study.scale.moments import Moments, Tree, moments_of


def block(rng, n=5, outputs=3):
    values = jnp.asarray(1e8 + rng.normal(size=(n, outputs)))
    return values, moments_of(values, jnp.ones(n, bool))


def bits(m: Moments):
    return [np.asarray(v).tobytes() for v in m]


@pytest.mark.parametrize("n_blocks", [1, 2, 7, 16, 27])
def test_any_split_over_holders_gives_the_same_bits(n_blocks):
    rng = np.random.default_rng(n_blocks)
    made = [block(rng) for _ in range(n_blocks)]
    one = Tree(3)
    for k, (_, m) in enumerate(made):
        one.add(k, m)
    for holders in (2, 3, 8):
        step = -(-n_blocks // holders)
        trees = [Tree(3) for _ in range(holders)]
        for k, (_, m) in enumerate(made):
            trees[k // step].add(k, m)
        together = Tree(3)
        for tree in trees[::-1]:
            together.unpack(tree.packed())
        assert bits(together.total()) == bits(one.total())


def test_they_are_those_of_all_values_even_far_from_zero():
    rng = np.random.default_rng(0)
    made = [block(rng) for _ in range(40)]
    tree = Tree(3)
    for k, (_, m) in enumerate(made):
        tree.add(k, m)
    values = np.concatenate([np.asarray(v) for v, _ in made])
    found = tree.total()
    assert found.n == len(values)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(found.squares / found.n, values.var(axis=0), rtol=1e-7)
    assert np.array_equal(found.least, values.min(axis=0))
    assert np.array_equal(found.most, values.max(axis=0))


def test_a_stretch_of_blocks_is_kept_in_few_nodes():
    tree = Tree(1)
    for k in range(1000, 3000):
        tree.add(k, Moments(*(np.ones(()), *np.zeros((4, 1)))))
    assert tree.n_nodes <= 2 * 12
    assert tree.total().n == 2000


def test_rows_that_are_not_used_and_blocks_without_any():
    values = jnp.asarray([[1.0], [jnp.nan], [3.0]])
    some = moments_of(values, jnp.asarray([True, False, True]))
    none = moments_of(values, jnp.zeros(3, bool))
    tree = Tree(1)
    for k, m in enumerate((none, some, none)):
        tree.add(k, m)
    whole = tree.total()
    assert (whole.n, whole.mean[0], whole.squares[0]) == (2, 2.0, 2.0)
    assert (whole.least[0], whole.most[0]) == (1.0, 3.0)
    empty = Tree(1).total()
    assert empty.n == 0 and empty.least[0] == np.inf
