"""Derivatives of integrated runs, both ways, against differences for every number given."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from perfusio_jax.mechanistic import (
    CHOKinetics,
    Method,
    Reactor,
    Tolerances,
    clone_x,
    integrate,
    make_plan,
)
from tests.mechanistic.cases import RANGES, START, random_controls

pytestmark = pytest.mark.slow  # XLA takes half a minute over each derivative

DAYS = 3
METHOD = Method(totals="streams", recorded_steps=500)
RTOL = 1e-8
"""Derivatives are those of the steps taken, so the steps must be small to compare them with
differences of the solution itself."""

KINETICS = eqx.tree_at(
    lambda k: (k.inhibition_amm, k.inhibition_lac), clone_x(), (jnp.array(0.1), jnp.array(0.02))
)
CONTROLS = jnp.asarray(random_controls(41, (DAYS,)))
INITIAL = jnp.asarray(START * np.exp(0.2 * np.sin(np.arange(10)))).at[2].set(0.4)
POINT = (KINETICS, CONTROLS, INITIAL, jnp.array(0.25))
FLAT, UNRAVEL = ravel_pytree(POINT)
SCALES = jnp.where(FLAT == 0.0, 1e-3, jnp.abs(FLAT))
NAMES = [name for name, _ in KINETICS.items()]
NAMES += [f"control {k} of day {d}" for d in range(DAYS) for k in range(6)]
NAMES += [f"start {k}" for k in range(10)] + ["volume"]
LANES = len(NAMES)
"""One run for each number, all at once: lane i is moved in, or differentiated by, number i."""


def summary(rows, rtol):
    """Samples and stream totals of runs, each over its range."""
    kinetics, controls, initial, volume = jax.vmap(UNRAVEL)(rows)
    reactor = Reactor(kinetics=kinetics)
    plan = make_plan(reactor, initial, controls, jnp.full(DAYS, 24.0), volume_L=volume)
    out = integrate(reactor, plan, Tolerances(rtol=rtol), METHOD)
    samples = out.concentrations[:, 1:] / jnp.asarray(RANGES)[None, None, :]
    flat = [v.reshape(rows.shape[0], -1) for v in (samples, out.totals[:, 1:] / 0.25)]
    return jnp.concatenate(flat, axis=1)


WEIGHTS = jnp.asarray(np.random.default_rng(5).standard_normal(DAYS * 14))
SAME = jnp.broadcast_to(FLAT[None, :], (LANES, LANES))
EACH = jnp.diag(SCALES)


@jax.jit
def push(rows, directions, rtol):
    return jax.jvp(lambda p: summary(p, rtol), (rows,), (directions,))[1]


@pytest.fixture(scope="module")
def forward():
    return np.asarray(push(SAME, EACH, RTOL))


@pytest.fixture(scope="module")
def backward():
    def scalar(flat, rtol):
        return (summary(flat[None, :], rtol) @ WEIGHTS)[0]

    return jax.jit(jax.grad(scalar))


def test_names_match_the_numbers():
    assert len(NAMES) == FLAT.size == len(CHOKinetics().items()) + 6 * DAYS + 10 + 1


def test_forward_derivatives_are_those_of_differences(forward):
    value, step = jax.jit(summary), 1e-4
    above, below = value(SAME + step * EACH, 1e-10), value(SAME - step * EACH, 1e-10)
    differences = (np.asarray(above) - np.asarray(below)) / (2 * step)
    size = np.max(np.abs(differences), axis=1)
    wrong = np.max(np.abs(forward - differences), axis=1) / np.maximum(size, 1e-5)
    assert np.all(np.isfinite(forward))
    assert {n: w for n, w in zip(NAMES, wrong, strict=True) if not w < 1e-4} == {}
    # The diameter is read off the state and acts on nothing.
    idle = {n for n, s in zip(NAMES, size, strict=True) if s < 1e-9}
    assert idle == {"diam_base", "diam_death_coeff"}


def test_backward_is_the_transpose_of_forward(forward, backward):
    gradient = np.asarray(backward(FLAT, RTOL) * SCALES)
    expected = forward @ np.asarray(WEIGHTS)
    error = np.abs(gradient - expected) / np.max(np.abs(expected))
    assert {n: e for n, e in zip(NAMES, error, strict=True) if not e < 1e-8} == {}


@pytest.mark.parametrize("cells", [0.0, 2.0])
def test_gradients_are_finite_where_nothing_is_left(backward, cells):
    kinetics, controls, initial, volume = POINT
    empty = jnp.zeros_like(initial).at[0].set(cells)
    controls = controls.at[:, 2].set(0.0).at[:, 5].set(0.0)
    flat, _ = ravel_pytree((kinetics, controls, empty, volume))
    gradient = np.asarray(backward(flat, 3e-4))
    assert np.all(np.isfinite(gradient))
    assert gradient[NAMES.index("start 0")] != 0


def test_the_derivative_of_a_failed_run_is_no_number(backward):
    """Where the value is NaN a slope of zero would be believed."""
    kinetics, controls, initial, volume = POINT
    flat, _ = ravel_pytree((kinetics, controls, initial.at[3].set(-5.0), volume))
    assert not np.any(np.isfinite(backward(flat, 3e-4)))


def test_a_failed_lane_leaves_the_derivatives_of_others_alone(forward):
    spoilt = push(SAME.at[0, NAMES.index("start 3")].set(jnp.nan), EACH, RTOL)
    np.testing.assert_array_equal(spoilt[1:], forward[1:])
    assert not np.any(np.isfinite(spoilt[0]))  # and its own are no numbers
