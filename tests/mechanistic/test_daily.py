"""The cheap interval of roll-outs: same equations, second order, safe at zero, differentiable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.mechanistic import (
    PLANT_SPECIES,
    CHOPerfusionModel,
    Method,
    Reactor,
    Tolerances,
    clone_x,
    clone_y,
    controls_from_dict,
    day_inputs,
    integrate,
    make_plan,
    vector_field,
)
from perfusio_jax.mechanistic.daily import GRID, advance_interval, production_and_loss
from tests.mechanistic.cases import (
    RANGES,
    START,
    random_controls,
)

RUNS, VOLUME = 16, 0.25
REACTOR = Reactor(kinetics=clone_x())


def culture(seed, runs=RUNS):
    """States as they are met in a culture, with one substrate or another used up."""
    rng = np.random.default_rng(seed)
    typical = np.array([20.0, 2.0, 3.0, 4.0, 1.5, 0.7, 15.0, 3.0, 0.5, 400.0])
    states = typical * np.exp(0.5 * rng.standard_normal((runs, 10)))
    states[::4, 4] = 0.02
    return jnp.asarray(states), jnp.asarray(random_controls(seed + 1, (runs,)))


@pytest.fixture(scope="module")
def accurate():
    states, controls = culture(51)
    plan = make_plan(REACTOR, states, controls, jnp.full(1, 24.0), volume_L=VOLUME)
    out = jax.jit(lambda p: integrate(REACTOR, p, Tolerances(rtol=1e-8), Method(totals="streams")))
    solution = out(plan)
    return np.asarray(solution.concentrations[:, 1]), np.asarray(solution.totals[:, 1, 2])


def advance(fractions=GRID):
    return jax.jit(
        jax.vmap(
            lambda c, u: advance_interval(REACTOR, c, u, 24.0, volume_L=VOLUME, fractions=fractions)
        )
    )


def scaled(y, reference):
    return np.abs(np.asarray(y) - reference) / (np.abs(reference) + 0.02 * RANGES)


@pytest.mark.parametrize("mode", ["perfusion", "chemostat"])
@pytest.mark.parametrize("perfusion_mode", ["vvd", "cspr"])
@pytest.mark.parametrize("clone", [clone_x(), clone_y()], ids="XY")
def test_production_less_loss_is_the_vector_field(clone, perfusion_mode, mode):
    reactor = Reactor(kinetics=clone, perfusion_mode=perfusion_mode, mode=mode)
    states, controls = culture(53)
    if perfusion_mode == "cspr":
        controls = controls.at[:, 0].multiply(40.0)
    volume = jnp.full(RUNS, VOLUME)
    inputs = day_inputs(reactor, controls, volume)
    columns = tuple(states.T)
    made, lost, _ = production_and_loss(reactor, inputs, columns)
    split = np.stack([p - r * c for p, r, c in zip(made, lost, columns, strict=True)])
    field = np.stack(vector_field(reactor, inputs, (*(c * volume for c in columns), volume))[:10])
    size = np.stack(made) + np.stack(lost) * np.asarray(states).T + 1e-12
    assert np.max(np.abs(split - field / VOLUME) / size) < 1e-12
    assert all(np.all(np.asarray(v) >= 0) for v in (*made, *lost))


def test_a_day_is_within_a_few_percent_of_the_accurate_one(accurate):
    states, controls = culture(51)
    c, _ = advance()(states, controls)
    error = scaled(c, accurate[0])
    assert np.quantile(error, 0.9) < 0.015
    assert np.max(error) < 0.06  # lactate of a run that crosses its switch within the day


def test_a_day_is_as_accurate_as_the_docs_say():
    """Half a per cent in the median of each species over random states, not of all together."""
    states, controls = culture(3, runs=256)
    plan = make_plan(REACTOR, states, controls, jnp.full(1, 24.0), volume_L=VOLUME)
    accurate = jax.jit(lambda p: integrate(REACTOR, p, Tolerances(rtol=1e-7)))(plan)
    c, _ = advance()(states, controls)
    wanted = np.asarray(accurate.concentrations[:, 1])
    by_species = np.median(np.abs(np.asarray(c) / wanted - 1.0), axis=0)
    assert np.all(by_species < 0.005), dict(zip(PLANT_SPECIES, by_species, strict=True))


def test_the_glucose_fed_in_a_day_is_that_of_the_integrator(accurate):
    states, controls = culture(51)
    _, glucose = advance()(states, controls)
    # The pump switches within steps of 2.4 h, so its total is coarser: 6 % of what it can give.
    capacity = 0.5 * 24.0 * VOLUME / 400.0
    assert np.max(np.abs(np.asarray(glucose) - accurate[1])) < 0.06 * capacity
    assert float(np.max(accurate[1])) > 1e-3  # the pump did run


def test_refining_the_grid_converges_with_second_order(accurate):
    states, controls = culture(51)
    errors = []
    for parts in (4, 16):
        fine = [f / parts for f in GRID for _ in range(parts)]
        c, glucose = advance(fine)(states, controls)
        errors.append(
            (np.max(scaled(c, accurate[0])), np.max(np.abs(np.asarray(glucose) - accurate[1])))
        )
    coarse, fine = np.array(errors)
    assert np.all(coarse / fine > 4.0**1.6)  # 16 in the limit
    assert fine[0] < 1e-3


def test_derivatives_are_those_of_differences():
    model = CHOPerfusionModel()
    c0 = jnp.array([20.0, 1.0, 3.0, 1.0, 0.6, 15.0, 3.0, 0.5, 300.0])
    u0 = jnp.array([1.0, 0.15, 5.0, 36.5, 900.0, 2.0])
    weights = jnp.asarray(np.random.default_rng(6).standard_normal(10))

    def scalar(c, u):
        state, glucose = model.advance(c, u)
        return jnp.concatenate([state / c0, glucose[None] * 100.0]) @ weights

    value = jax.jit(scalar)
    by_c, by_u = jax.jit(jax.grad(scalar, argnums=(0, 1)))(c0, u0)
    for which, (point, gradient) in enumerate(((c0, by_c), (u0, by_u))):
        for k in range(point.size):
            h = 1e-5 * float(point[k])
            e = jnp.zeros_like(point).at[k].set(h)
            moved = [(c0 + s * e, u0) if which == 0 else (c0, u0 + s * e) for s in (1, -1)]
            difference = float(value(*moved[0]) - value(*moved[1])) / (2 * h)
            assert float(gradient[k]) == pytest.approx(difference, rel=1e-5, abs=1e-8)


def test_nothing_is_negative_or_not_a_number_at_zero():
    def total(c, u):
        state, glucose = advance_interval(REACTOR, c, u, 24.0, volume_L=VOLUME)
        return jnp.sum(state) + glucose, state

    both = jax.jit(jax.vmap(jax.value_and_grad(total, argnums=(0, 1), has_aux=True)))
    states = np.zeros((3, 10))
    states[1, 0] = 40.0  # cells and nothing to eat
    states[2] = START
    states[2, 3] = -1e-3  # a state slightly below zero counts as zero
    controls = np.array([[1.0, 0.1, 0.0, 37.0, 850.0, 0.0]] * 3)
    (_, after), (by_c, by_u) = both(jnp.asarray(states), jnp.asarray(controls))
    assert np.all(np.asarray(after) >= 0) and np.all(np.isfinite(after))
    assert np.all(np.isfinite(by_c)) and np.all(np.isfinite(by_u))


@pytest.mark.parametrize(
    "kind", [{"mode": "chemostat"}, {"fouling_rate": 0.002}], ids=["chemostat", "fouling"]
)
def test_five_days_of_another_reactor_are_those_of_the_integrator(kind):
    reactor, start = Reactor(**kind), jnp.asarray([8.0, 0.3, 0.0, 5.0, 4.0, 0.5, 6.0, 1.0, 0.5, 99])
    u = controls_from_dict({"perfusion_rate": 1.0, "bleed_rate": 0.15})
    plan = make_plan(reactor, start[None], u[None], jnp.full(5, 24.0), volume_L=VOLUME)
    wanted = np.asarray(integrate(reactor, plan).concentrations[0, -1])
    day = jax.jit(
        lambda c, k: advance_interval(reactor, c, u, 24.0, volume_L=VOLUME, start_h=24.0 * k)[0]
    )
    c, fresh = start, start
    for k in range(5):
        c, fresh = day(c, k), day(fresh, 0)
    np.testing.assert_allclose(c, wanted, rtol=0.02, atol=0.02)
    if "fouling_rate" in kind:  # a filter that is always new lets more product pass
        assert float(fresh[9]) < 0.97 * wanted[9]


def test_what_the_grid_does_not_serve_is_refused_and_never_a_number():
    c, u = jnp.asarray(START), controls_from_dict({})
    with pytest.raises(ConfigError, match="'fed_batch' grows. Use make_plan with integrate"):
        advance_interval(Reactor(mode="fed_batch"), c, u, 24.0, volume_L=VOLUME)
    with pytest.raises(ConfigError, match="filter fouls .* give start_h"):
        advance_interval(Reactor(fouling_rate=0.01), c, u, 24.0, volume_L=VOLUME)

    @jax.jit
    def titer(rate):
        reactor = Reactor(fouling_rate=rate)
        return advance_interval(reactor, c, u, 24.0, volume_L=VOLUME)[0][9]

    assert np.isfinite(titer(0.0)) and np.isnan(titer(0.01))


@pytest.mark.parametrize(
    ("c", "u", "match"),
    [
        (np.ones(10), np.ones(5), r"controls has shape \(5,\); expected \(6,\): perfusion_rate"),
        (np.ones(6), np.ones(10), r"c has shape \(6,\); expected \(10,\): Xv, Xd"),
        (np.ones((2, 10)), np.ones(6), r"c has shape \(2, 10\)"),
        (np.ones(10), np.ones((6, 1)), r"controls has shape \(6, 1\)"),
        (np.ones(10), 1.0, r"controls has shape \(\)"),
    ],
)
def test_other_widths_are_refused_by_shape_and_name(c, u, match):
    with pytest.raises(ConfigError, match=match):
        advance_interval(REACTOR, c, u, 24.0, volume_L=VOLUME)
    with pytest.raises(ConfigError, match=match):
        jax.jit(lambda c, u: advance_interval(REACTOR, c, u, 24.0, volume_L=VOLUME))(c, u)


def test_whole_numbers_and_narrow_floats_are_the_same_state():
    c, u = np.array([20, 1, 0, 3, 1, 1, 15, 3, 1, 300]), np.array([1, 0, 5, 36, 900, 2])
    day = jax.jit(lambda c, u: advance_interval(REACTOR, c, u, 24, volume_L=VOLUME)[0])
    wanted = day(jnp.asarray(c, float), jnp.asarray(u, float))
    np.testing.assert_array_equal(day(c, u), wanted)
    narrow = day(jnp.asarray(c, jnp.float32), jnp.asarray(u, jnp.float32))
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, wanted, rtol=1e-6)


def test_the_grid_is_the_whole_interval():
    assert sum(GRID) == pytest.approx(1.0)
    assert min(GRID) > 0
