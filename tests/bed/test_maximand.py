"""What the search asks of an acquisition, and that a batch is never moved by a hidden key."""

import jax
import jax.numpy as jnp
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.acquisition.wrappers import CostWeighted
from perfusio_jax.bed.optimiser.ascent import climb
from perfusio_jax.bed.optimiser.maximand import WithDecisions, n_extra_of
from perfusio_jax.bed.optimiser.polytope import make_polytope
from perfusio_jax.bed.optimiser.settings import SearchSettings


class Decisions:
    """Two rows after the candidates."""

    n_extra = 2

    def arrange(self, points):
        return points

    def __call__(self, X):
        return jnp.sum(X)


def total(X):
    return jnp.sum(X)


def test_only_an_acquisition_that_says_so_has_rows_that_are_no_candidates():
    assert isinstance(Decisions(), WithDecisions)
    assert not isinstance(total, WithDecisions)
    assert n_extra_of(Decisions()) == 2
    assert n_extra_of(total) == 0


def test_a_cost_asks_for_the_rows_of_the_acquisition_inside():
    assert n_extra_of(CostWeighted(Decisions(), jnp.ones_like)) == 2
    assert n_extra_of(CostWeighted(total, jnp.ones_like)) == 0
    points = jax.numpy.ones((3, 2, 1))
    assert CostWeighted(total, jnp.ones_like).arrange(points) is points


def test_a_batch_does_not_climb_without_a_key():
    box = make_polytope([0.0], [1.0])
    with pytest.raises(ConfigError, match="batch of 2 candidates is to climb without a key"):
        climb(total, box, jnp.full((1, 2, 1), 0.5), jnp.zeros(4), settings=SearchSettings())
