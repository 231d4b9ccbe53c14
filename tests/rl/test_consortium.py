"""The two-strain chemostat: right when glucose runs out, conserving, differentiable."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from perfusio_jax._core import ConfigError
from perfusio_jax.rl import (
    PARAMETERS,
    Consortium,
    Uncertainty,
    advance,
    balances,
    check_consortium,
    induction,
    light_for,
    start_setpoint,
    start_trajectory,
    substrate_equivalents,
)
from perfusio_jax.rl.consortium import CUT, amino_at_light, draw_initial, draw_plant

PLANT = Consortium()
HOURS = 18
FLOOR = np.array([10.0, 0.02, 0.02, 0.5, 0.05])
"""Scale below which an error counts as absolute: glucose 5 % of the feed (it is what is left of
the substrate, so its error is that of the biomass), the others 0.1 to 0.3 % of their range."""


@pytest.fixture(scope="module")
def lights():
    """Courses of light: full, wild, near holding, on and off, and full until it is held.

    In the last ones glucose is gone and comes back as slowly as it can.
    """
    rng = np.random.default_rng(3)
    wild = 10.0 / (1.0 + np.exp(-rng.normal(0.0, 3.0, (6, HOURS, 2))))
    low = 10.0 / (1.0 + np.exp(-rng.normal(-3.5, 1.0, (6, HOURS, 2))))
    pulses = np.where(rng.random((6, HOURS, 2)) < 0.3, 10.0, 0.02)
    full = np.full((2, HOURS, 2), 10.0)
    dim = np.asarray(light_for(PLANT, jnp.full(2, 3e-4)))
    on = np.arange(HOURS)[None, :, None] < rng.integers(2, 9, (12, 1, 2))
    held = np.where(on, 3.0, dim * np.exp(rng.normal(0.0, 0.7, (12, HOURS, 2))))
    return jnp.asarray(np.concatenate([full, wild, low, pulses, held]))


@pytest.fixture(scope="module")
def starts(lights):
    n = lights.shape[0]
    pair = jnp.stack([start_setpoint(PLANT, jnp.full(2, 10.0)), start_trajectory(PLANT)])
    return pair[jnp.arange(n) % 2]


@jax.jit
def courses(starts, lights):
    def one(x, course):
        return jax.lax.scan(lambda c, u: (advance(PLANT, c, u),) * 2, x, course)[1]

    return jax.vmap(one)(starts, lights)


def numbers(plant):
    return {name: np.asarray(getattr(plant, name)) for name in PARAMETERS}


def radau(x, course):
    """The same balances, written once more in NumPy, at 1e-9."""
    p = numbers(PLANT)

    def field(_, y, made):
        share = y[3:] / (y[3:] + p["amino_half_saturation"])
        mu = p["max_growth"] * y[0] / (y[0] + p["half_saturation"]) * share
        eaten = np.sum(p["uptake_per_biomass"] * mu * y[1:3])
        return np.concatenate(
            [
                [p["dilution"] * (p["feed"] - y[0]) - eaten],
                (mu - p["dilution"]) * y[1:3],
                made - (mu + p["degradation"]) * y[3:],
            ]
        )

    out = []
    for u in course:
        r = (u / p["light_half_saturation"]) ** p["light_exponent"]
        made = p["conversion"] * p["synthesis"] * r / (1.0 + r)
        x = solve_ivp(field, (0, 1), x, "Radau", rtol=1e-9, atol=1e-12, args=(made,)).y[:, -1]
        out.append(x)
    return np.array(out)


def test_agrees_with_radau_where_glucose_runs_out(starts, lights):
    mine = np.asarray(courses(starts, lights))
    truth = np.stack(
        [radau(np.asarray(x), np.asarray(u)) for x, u in zip(starts, lights, strict=True)]
    )
    is_gone = truth[:20, :, 0] < 0.01  # in the held courses it comes back
    assert is_gone.any(axis=1).mean() > 0.8 and is_gone.mean() > 0.3
    error = np.abs(mine - truth) / np.maximum(np.abs(truth), FLOOR)
    assert error.max() < 1e-4, error.max(axis=(0, 1))
    assert np.all(mine >= 0.0)


def test_glucose_that_comes_back_slowly_is_no_trouble():
    # at rest at 15 half-saturations, where the rich regime is stiff; and rising fivefold at once
    cases = (
        ((0.004354558, 5.259685, 12.860892, 0.677819467, 0.0277244148), (0.0241391, 0.1748097)),
        ((0.000808, 0.009215, 0.009083, 0.036602, 20.941432), (1.6946, 0.0758)),
    )
    for x, u in cases:
        mine = np.asarray(advance(PLANT, jnp.asarray(x), jnp.asarray(u)))
        truth = radau(np.asarray(x), np.asarray(u)[None])[0]
        assert np.max(np.abs(mine - truth) / np.maximum(truth, FLOOR)) < 1e-4


def test_single_precision_errs_hardly_more(starts, lights):
    plant, x, u = jax.tree.map(lambda v: v.astype(jnp.float32), (PLANT, starts, lights))

    def one(x, course):
        return jax.lax.scan(lambda c, u: (advance(plant, c, u),) * 2, x, course)[1]

    mine = jax.jit(jax.vmap(one))(x, u)
    assert mine.dtype == jnp.float32
    truth = np.asarray(courses(starts, lights))
    error = np.abs(np.asarray(mine) - truth) / np.maximum(np.abs(truth), FLOOR)
    # glucose is what biomass has left of 200 mmol/L: its roundings show there first
    assert error[..., 1:].max() < 1e-4 and error[..., 0].max() < 3e-4, error.max(axis=(0, 1))


def test_substrate_is_conserved(starts, lights):
    mine = courses(starts, lights)
    begun = np.asarray(substrate_equivalents(PLANT, starts))[:, None]
    hours = np.arange(1, HOURS + 1)[None, :]
    expected = 200.0 + (begun - 200.0) * np.exp(-0.15 * hours)
    np.testing.assert_allclose(substrate_equivalents(PLANT, mine), expected, rtol=1e-12)


def test_right_hand_side_agrees_with_a_short_step():
    x = jnp.array([5.0, 1.0, 2.0, 3.0, 0.2])
    light = jnp.array([0.3, 0.9])
    dt = 1e-6
    slope = (advance(PLANT, x, light, dt) - x) / dt
    np.testing.assert_allclose(slope, balances(PLANT, x, light), rtol=1e-4)


def test_constants_change_what_they_should(starts, lights):
    faster = eqx.tree_at(lambda p: p.degradation, PLANT, jnp.array([1.0, 1.0]))
    x, dark = start_trajectory(PLANT), jnp.zeros(2)
    usual, other = advance(PLANT, x, dark), advance(faster, x, dark)
    assert np.all(other[3:] < usual[3:]) and np.all(other[1:3] < usual[1:3])


def test_light_and_its_inverse():
    share = jnp.array([1e-3, 0.7])
    np.testing.assert_allclose(induction(PLANT, light_for(PLANT, share)), share, rtol=1e-12)
    assert np.all(induction(PLANT, jnp.zeros(2)) == 0.0)
    slope = jax.jacobian(lambda u: induction(PLANT, u))(jnp.zeros(2))
    assert np.all(np.isfinite(slope))


def test_steady_state_of_the_amino_acids():
    light = jnp.array([2.0, 0.5])
    amino = amino_at_light(PLANT, light, 1.0)
    x = jnp.concatenate([jnp.array([1.0, 0.1, 0.1]), amino])
    assert np.all(np.abs(balances(PLANT, x, light)[3:]) < 1e-9 * amino)
    hold = start_trajectory(PLANT)
    assert np.all(np.abs(balances(PLANT, hold, light)[1:3]) < 1e-12)


def test_gradients_agree_with_differences(starts, lights):
    rows = jnp.array([0, 3, 9, 15])

    def score(course, x):
        end = jax.lax.scan(lambda c, u: (advance(PLANT, c, u), None), x, course)[0]
        return jnp.sum(jnp.log(end[1:3]))

    slope = jax.jit(jax.vmap(jax.grad(score)))(lights[rows], starts[rows])
    assert np.all(np.isfinite(slope))
    rng = np.random.default_rng(0)
    way = jnp.asarray(rng.normal(size=(4, HOURS, 2))) * lights[rows]
    value = jax.jit(jax.vmap(score))
    step = 1e-4
    change = value(lights[rows] + step * way, starts[rows])
    change = (change - value(lights[rows] - step * way, starts[rows])) / (2 * step)
    predicted = jnp.sum(slope * way, axis=(1, 2))
    np.testing.assert_allclose(predicted, change, rtol=1e-5, atol=1e-6)


def test_derivatives_are_finite_and_of_sound_size_at_every_edge():
    values = ((0.0, 1e-300, 1e-9, 2.9e-4, 3e-3, 1.0, 250.0), (0.0, 1e-12, 3.0), (0.0, 4.0),
              (0.0, 0.3, 300.0), (0.0, 30.0))  # fmt: skip
    lights = ((0.0, 0.0), (0.005, 0.15), (3.0, 3.0), (0.02, 3.0))
    cases = [(x, u) for x in itertools.product(*values) for u in lights]
    x, u = (jnp.asarray(v) for v in zip(*cases, strict=True))
    slopes = jax.jit(jax.vmap(jax.jacrev(lambda x, u: advance(PLANT, x, u), argnums=(0, 1))))(x, u)
    for slope in slopes:
        assert np.all(np.isfinite(slope)) and np.abs(slope).max() < 1e4


def test_no_cells_and_no_amino_acids_are_no_trouble():
    empty = advance(PLANT, jnp.array([50.0, 0.0, 0.0, 0.0, 0.0]), jnp.full(2, 10.0))
    assert np.all(np.isfinite(empty)) and np.all(empty[1:3] == 0.0)
    assert np.isclose(empty[0], 200.0 - 150.0 * np.exp(-0.15), rtol=1e-12)


def test_uncertainty_is_cut_and_off_by_default():
    keys = jax.random.split(jax.random.key(0), 4000)
    off = jax.vmap(lambda k: draw_initial(k, start_trajectory(PLANT), Uncertainty()))(keys[:3])
    np.testing.assert_array_equal(off, jnp.broadcast_to(start_trajectory(PLANT), (3, 5)))
    spread = Uncertainty(initial=0.07, synthesis=0.07)
    drawn = jax.vmap(lambda k: draw_initial(k, start_trajectory(PLANT), spread))(keys)
    ratio = np.asarray(drawn / start_trajectory(PLANT)[None, :])
    assert np.abs(ratio - 1.0).max() <= 0.07 * CUT + 1e-12
    # a Gaussian cut at three deviations has 0.9866 of its deviation; the error of a
    # deviation from n draws is 1/sqrt(2 n)
    assert np.abs(ratio.std(axis=0) / (0.9866 * 0.07) - 1.0).max() < 4 / np.sqrt(8000)
    plants = jax.vmap(lambda k: draw_plant(k, PLANT, spread).synthesis)(keys)
    assert np.asarray(plants).std(axis=0).min() > 0.0
    assert not np.allclose(plants[:, 0] / 0.337, plants[:, 1] / 0.036)


def test_every_constant_says_where_it_comes_from():
    fields = set(Consortium.__dataclass_fields__)
    assert set(PARAMETERS) == fields
    for name, info in PARAMETERS.items():
        assert info.status in ("given", "inferred", "chosen"), name
        np.testing.assert_array_equal(np.ravel(getattr(PLANT, name)), info.value)


def test_refusals():
    with pytest.raises(ConfigError, match="synthesis has shape"):
        Consortium(synthesis=0.3)
    with pytest.raises(ConfigError, match="half_saturation is 0"):
        check_consortium(Consortium(half_saturation=0.0))
    with pytest.raises(ConfigError, match="degradation"):
        check_consortium(Consortium(degradation=jnp.array([0.1, -0.1])))
    check_consortium(Consortium(degradation=jnp.zeros(2)))
