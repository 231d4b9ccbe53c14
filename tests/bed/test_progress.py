"""What long calls say: estimates that grow with the work, and compiling only where it happens."""

from types import SimpleNamespace

import equinox as eqx
import jax.numpy as jnp
import pytest

from perfusio_jax.bed import ROLLOUT_SETTINGS, telling
from perfusio_jax.bed.optimiser.progress import compiling, in_words, rollout_seconds, tell
from perfusio_jax.bed.policy.effort import decision_seconds


def test_compiling_is_said_once_and_only_to_who_listens():
    @eqx.filter_jit
    def double(x):
        compiling("a product")
        return 2.0 * x

    said, other = [], []
    double(jnp.ones(2))
    with telling(said.append):
        double(jnp.ones(2))
        double(jnp.ones(3))
        with telling(other.append):
            tell("inside")
        with telling(None):
            tell("still here")
    tell("nobody listens")
    assert said == ["compiling a product (first use)", "still here"] and other == ["inside"]


def test_the_listener_goes_with_the_block_even_when_it_fails():
    said = []
    with pytest.raises(ZeroDivisionError), telling(said.append):
        raise ZeroDivisionError
    tell("too late")
    assert said == []


def model(rows):
    return SimpleNamespace(gp=SimpleNamespace(data=SimpleNamespace(inputs=jnp.zeros((rows, 16)))))


def test_estimates_grow_with_rows_paths_and_days():
    one = rollout_seconds(model(448), 64, 14)
    assert rollout_seconds(model(448), 128, 14) == pytest.approx(2 * one)
    assert rollout_seconds(model(448), 64, 7) == pytest.approx(one / 2)
    assert rollout_seconds(SimpleNamespace(), 64, 14) < rollout_seconds(model(100), 64, 14) < one
    sizes = (ROLLOUT_SETTINGS._replace(n_restarts=10), 6, 128)
    full = decision_seconds(model(448), *sizes, 0, 3)
    assert decision_seconds(model(448), *sizes, 16, 3) < 0.5 * full


def test_estimates_in_words():
    assert in_words(17.2).startswith("about 17 s, and up to")
    assert in_words(1.0).startswith("less than 2 s")
    assert in_words(600.0).startswith("about 10 min")
