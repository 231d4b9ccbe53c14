"""Paths with a mechanism each: what is not known of constants, in a roll-out."""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, DEFAULT_CONTROLS, ConfigError
from perfusio_jax.hybrid import (
    HybridStateSpaceModel,
    Vessel,
    at_draw,
    deal,
    draw_paths,
    drawn_mechanisms,
    offset_paths,
    rollout,
    rollout_states,
    untrained_model,
)
from perfusio_jax.mechanistic import CHOKinetics, CHOPerfusionModel
from tests.twin.described import FOREIGN, Foreign, known_model

NAMES = ("mu_max", "uptake")
DRAWS = np.array([[0.03, 0.004], [0.045, 0.0045], [0.06, 0.005]])
START = np.array([12.0, 0.3, 4.0, 0.8])
CONTROLS = np.array([1.2, 0.1])
N = 7


@pytest.fixture(scope="module")
def model():
    return known_model()


@pytest.fixture(scope="module")
def paths(model):
    return draw_paths(model, N, key=jax.random.key(3), max_steps=4)


@eqx.filter_jit
def rolled(model, paths, controls):
    plan = jnp.broadcast_to(controls[None, :], (3, controls.shape[0]))
    return rollout_states(model, paths, jnp.asarray(START), plan, jnp.asarray(0.0))[0]


def test_every_path_has_the_constants_of_its_own_draw(model, paths):
    drawn = drawn_mechanisms(Foreign(), NAMES, DRAWS)
    assert drawn.n == 3
    found = np.asarray(rolled(model, deal(paths, drawn), jnp.asarray(CONTROLS)))
    for s in range(
        N
    ):  # by brute force: the whole model at the draw, all paths, and this one of them
        there = at_draw(model, drawn, np.asarray(s % 3))
        assert float(there.mech_model.kinetics.mu_max) == DRAWS[s % 3, 0]
        alone = np.asarray(rolled(there, paths, jnp.asarray(CONTROLS)))
        np.testing.assert_allclose(found[s], alone[s], rtol=1e-10)


def test_so_have_those_of_cho_perfusion():
    model = untrained_model(CHOPerfusionModel())
    draws = np.array([[0.03, 0.003], [0.05, 0.01]])
    drawn = drawn_mechanisms(CHOKinetics(), ["mu_max", "K_d"], draws)
    paths = draw_paths(model, 4, key=jax.random.key(3), max_steps=3)
    start = model.latent.inverse(model.initial.mean)
    now = [DEFAULT_CONTROLS[name] for name in CONTROL_NAMES]
    plan = jnp.broadcast_to(jnp.asarray(now), (3, 6))
    rolled = jax.jit(lambda model, paths: rollout(model, paths, start, plan, jnp.asarray(0.0)))
    found = rolled(model, deal(paths, drawn))
    each = [rolled(at_draw(model, drawn, np.asarray(k)), paths) for k in range(2)]
    for s in range(4):
        np.testing.assert_allclose(found[s], each[s % 2][s], rtol=1e-10)
    assert not np.allclose(found[0], each[1][0], rtol=0.05)


def test_draws_that_are_alike_are_the_model_with_those_constants(model, paths):
    alike = drawn_mechanisms(Foreign(), NAMES, np.tile(DRAWS[:1], (4, 1)))
    found = rolled(model, deal(paths, alike), jnp.asarray(CONTROLS))
    there = rolled(at_draw(model, alike, np.asarray(0)), paths, jnp.asarray(CONTROLS))
    np.testing.assert_allclose(found, there, rtol=1e-12)
    assert deal(paths, None) is paths


def test_slopes_through_drawn_constants_are_right(model, paths):
    dealt = deal(paths, drawn_mechanisms(Foreign(), NAMES, DRAWS))

    @jax.jit
    def worth(u):
        plan = jnp.broadcast_to(u[None, :], (3, 2))
        return jnp.mean(rollout(model, dealt, jnp.asarray(START), plan, jnp.asarray(0.0))[:, -1, 0])

    slope = np.asarray(jax.jit(jax.grad(worth))(jnp.asarray(CONTROLS)))
    for k in range(2):
        step = 1e-5 * np.eye(2)[k]
        ends = [float(worth(jnp.asarray(CONTROLS + sign * step))) for sign in (1.0, -1.0)]
        assert slope[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_other_draws_of_the_same_number_compile_nothing(model, paths, traces):
    def run(drawn):
        plan = jnp.broadcast_to(jnp.asarray(CONTROLS)[None, :], (2, 2))
        return rollout(model, deal(paths, drawn), jnp.asarray(START), plan, jnp.asarray(0.0))

    once = jax.jit(traces(run))
    one, two = (once(drawn_mechanisms(Foreign(), NAMES, f * DRAWS)) for f in (1.0, 1.1))
    assert traces.count == 1 and not np.allclose(one, two)


def test_an_offset_may_be_another_in_each_path(model, paths):
    each = np.arange(N, dtype=float)[:, None] * np.array([1e-3, 0.0, 1e-4, 0.0])
    hours = jnp.full(4, 24.0)
    many = offset_paths(model, paths, jnp.asarray(each), hours)
    for s in (0, 4):
        one = offset_paths(model, paths, jnp.asarray(each[s]), hours)
        np.testing.assert_array_equal(many.process[s], one.process[s])


def test_what_cannot_be_drawn_is_refused_by_name(model, paths):
    with pytest.raises(ConfigError, match="Foreign has no constant K_S; it has mu_max, crowding"):
        drawn_mechanisms(Foreign(), ["K_S"], np.ones((2, 1)))
    with pytest.raises(ConfigError, match="one row for each draw"):
        drawn_mechanisms(Foreign(), NAMES, np.ones((2, 1)))
    with pytest.raises(ConfigError, match="is not a finite number"):
        drawn_mechanisms(Foreign(), NAMES, np.array([[0.04, np.nan]]))
    drawn = drawn_mechanisms(Foreign(), NAMES, DRAWS)
    bare = HybridStateSpaceModel(Vessel(FOREIGN), None)
    blind = copy.copy(untrained_model(CHOPerfusionModel()))
    object.__setattr__(blind, "use_mechanism", False)
    for other, size in ((bare, 4), (blind, 9)):
        dealt = deal(draw_paths(other, 2, key=jax.random.key(0), max_steps=1), drawn)
        with pytest.raises(ConfigError, match="a model that has no mechanism"):
            rollout_states(other, dealt, jnp.ones(size), jnp.ones((1, 2)), jnp.asarray(0.0))
