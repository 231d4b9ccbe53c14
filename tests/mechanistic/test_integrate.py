"""Whole runs: against SciPy, in any batch, with bad lanes, at the edges, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, Result, SimulationError
from perfusio_jax.chemistry import Medium
from perfusio_jax.mechanistic import (
    FLOOR,
    CHOKinetics,
    Method,
    Reactor,
    Tolerances,
    clone_x,
    clone_y,
    controls_from_dict,
    integrate,
    make_plan,
    simulate,
    stack,
)
from tests.mechanistic.cases import (
    START,
    both_clones,
    radau,
    random_controls,
    random_starts,
    relative_error,
)

DAYS, RUNS = 28, 12
N_TRACES = [0]


def counted(*args, **kwargs):
    N_TRACES[0] += 1
    return integrate(*args, **kwargs)


solve = eqx.filter_jit(counted)


def plan_of(starts, controls, reactor):
    return make_plan(reactor, jnp.asarray(starts), jnp.asarray(controls), jnp.full(DAYS, 24.0))


@pytest.fixture(scope="module")
def batch():
    """Six random designs with both clones each; the set-points change once, on day 14."""
    drawn = np.repeat(random_controls(11, (6, 2)), 2, axis=0)
    controls = np.repeat(drawn, 14, axis=1)
    starts = np.repeat(random_starts(12, 6), 2, axis=0)
    starts[:, 2] = 0.0
    reactor = Reactor(kinetics=both_clones(RUNS))
    return starts, controls, reactor, plan_of(starts, controls, reactor)


@pytest.fixture(scope="module")
def solved(batch):
    *_, reactor, plan = batch
    return solve(reactor, plan, Tolerances())


@pytest.fixture(scope="module")
def reference(batch):
    starts, controls, _, _ = batch
    clones = (clone_x(), clone_y())
    return np.stack([radau(starts[i], controls[i], clones[i % 2]) for i in range(RUNS)])


# ---------------------------------------------------------------- accuracy


def test_default_tolerances_meet_one_part_in_a_thousand(solved, reference):
    assert np.all(np.asarray(solved.result) == 0)
    assert relative_error(solved.concentrations, reference) < 1e-3


def test_error_falls_with_the_tolerance(batch, reference):
    *_, reactor, plan = batch
    errors = []
    for rtol in (3e-3, 3e-5, 3e-7):
        out = solve(reactor, plan, Tolerances(rtol=rtol))
        errors.append(relative_error(out.concentrations, reference))
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.2 * errors[1]
    assert errors[2] < 2e-6


def test_designs_span_the_space(reference):
    """Guards the comparison: the designs must not all look the same."""
    cells = reference[:, -1, 0]
    assert cells.max() > 1.5 * cells.min()
    assert np.max(np.abs(reference[0::2, -1, 6] - reference[1::2, -1, 6])) > 1.0  # lactate, X and Y


# ---------------------------------------------------------------- batches


def test_each_run_alone_and_uncompiled_is_its_lane(batch, solved):
    *_, reactor, plan = batch
    alone = integrate(reactor, plan, chunk=1)
    np.testing.assert_array_equal(alone.n_steps, solved.n_steps)
    assert relative_error(alone.concentrations, np.asarray(solved.concentrations)) < 1e-10


def test_chunks_that_do_not_divide_the_batch_change_nothing(batch, solved):
    *_, reactor, plan = batch
    chunked = eqx.filter_jit(integrate)(reactor, plan, Tolerances(), chunk=5)
    np.testing.assert_array_equal(chunked.n_steps, solved.n_steps)
    np.testing.assert_array_equal(chunked.result, solved.result)
    assert relative_error(chunked.concentrations, np.asarray(solved.concentrations)) < 1e-10


def spoil_start(starts, controls, lane):
    starts[lane, 4] = np.nan


def spoil_negative(starts, controls, lane):
    starts[lane, 3] = -1.0


def spoil_bleed(starts, controls, lane):
    controls[lane, 20, :2] = (0.1, 0.3)


def spoil_control(starts, controls, lane):
    controls[lane, 5, 3] = np.inf


@pytest.mark.parametrize("spoil", [spoil_start, spoil_negative, spoil_bleed, spoil_control])
def test_a_bad_lane_is_reported_and_touches_no_other(batch, solved, spoil):
    starts, controls, reactor, _ = batch
    starts, controls, lane = starts.copy(), controls.copy(), 3
    spoil(starts, controls, lane)
    out = solve(reactor, plan_of(starts, controls, reactor), Tolerances())
    others = np.arange(RUNS) != lane
    assert int(out.result[lane]) == Result.BAD_INPUT
    assert np.all(np.isnan(np.asarray(out.concentrations)[lane, 1:]))
    assert np.all(np.asarray(out.result)[others] == 0)
    np.testing.assert_array_equal(
        np.asarray(out.concentrations)[others], np.asarray(solved.concentrations)[others]
    )


def test_a_volume_below_zero_or_a_constant_that_is_no_number_is_bad_input(batch, solved):
    *_, reactor, plan = batch
    initial = plan.initial.at[10, 0].set(-0.25).at[10, 1].set(0.0)
    mu = reactor.kinetics.mu_max.at[2].set(jnp.nan)
    # tree_at goes past the check of concrete constants, as a failed fit would.
    reactor = eqx.tree_at(lambda r: r.kinetics.mu_max, reactor, mu)
    out = solve(reactor, plan._replace(initial=initial), Tolerances())
    assert np.asarray(out.result).tolist() == [int(Result.BAD_INPUT)] * 3 + [0] * (RUNS - 3)
    np.testing.assert_array_equal(
        np.asarray(out.concentrations)[3:], np.asarray(solved.concentrations)[3:]
    )


# ---------------------------------------------------------------- the edges of the state space


def test_states_stay_above_minus_atol_without_clipping(batch):
    """Many cells, little medium: glucose, glutamine and pyruvate run out, nothing goes negative."""
    *_, reactor, _ = batch
    poor = Medium(glucose=1.0, glutamine=2.0)
    reactor = eqx.tree_at(lambda r: r.medium, reactor, poor)
    controls = random_controls(21, (RUNS, DAYS))
    controls[:, ::2, 0] = 0.5  # starved every other day
    controls[:6, :, 2] = 0.0  # no glucose from the pump
    starts = random_starts(22, RUNS)
    starts[:, 0] *= 15.0  # inoculated at 30e6 cells/mL
    starts[::2, 3:9] = 0.0
    out = solve(reactor, plan_of(starts, controls, reactor), Tolerances())
    c = np.asarray(out.concentrations)
    assert np.all(np.asarray(out.result) == 0)
    atol = Tolerances().rtol * np.asarray(FLOOR[:10])
    assert np.all(c >= -np.asarray(atol))
    assert c[:, 1:, 3].min() < 0.02 and c[:, 1:, 4].min() < 0.02  # it did run out
    assert c[..., 0].max() > 20.0


def test_nothing_grows_from_nothing(batch):
    *_, reactor, _ = batch
    starts = np.zeros((RUNS, 10))
    controls = random_controls(23, (RUNS, DAYS))
    out = solve(reactor, plan_of(starts, controls, reactor), Tolerances())
    c = np.asarray(out.concentrations)
    assert np.all(np.asarray(out.result) == 0)
    assert np.all(c[..., [0, 1, 2, 9]] == 0.0)
    np.testing.assert_allclose(c[:, -1, 4] / 8.0, c[:, -1, 5] / 0.5, rtol=1e-3)  # medium, thinned


def test_one_trace_for_all_numbers_of_a_size(batch):
    starts, controls, reactor, plan = batch
    solve(reactor, plan, Tolerances())
    before = N_TRACES[0]
    kinetics = jax.tree.map(lambda v: 1.01 * v, reactor.kinetics)
    changed = eqx.tree_at(lambda r: r.kinetics, reactor, kinetics)
    a = solve(changed, plan_of(starts, controls, changed), Tolerances(rtol=1e-4, atol=0.5))
    assert N_TRACES[0] == before == 1
    assert np.all(np.asarray(a.result) == 0)


# ---------------------------------------------------------------- simulate: fallback and failure


def test_a_run_that_fails_is_tried_again_and_one_that_means_nothing_is_named():
    """Two steps are too few for any run; the legal one is saved by the other solver."""
    reactor = Reactor(kinetics=stack([clone_x(), clone_y()]))
    controls = random_controls(31, (2, 2))
    starts = np.stack([START, START])
    starts[1, 3] = np.nan
    plan = make_plan(reactor, jnp.asarray(starts), jnp.asarray(controls), jnp.full(2, 24.0))
    two_steps = Method(max_steps=2)
    out = simulate(reactor, plan, method=two_steps, throw=False)
    assert np.asarray(out.result).tolist() == [0, int(Result.BAD_INPUT)]
    expected = radau(START, controls[0], clone_x())
    assert relative_error(out.concentrations[0], expected) < 1e-5
    assert np.all(np.isnan(np.asarray(out.concentrations)[1, 1:]))
    with pytest.raises(SimulationError, match=r"1 of 2 lanes: BAD_INPUT: .*Correct the row"):
        simulate(reactor, plan, method=two_steps)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"initial": jnp.zeros((2, 9))}, r"initial has shape \(2, 9\)"),
        ({"controls": jnp.zeros((2, 5))}, r"controls has shape \(2, 5\)"),
        ({"controls": jnp.zeros((2, 4, 6))}, r"expected \(2, 6\) or \(2, 3, 6\)"),
        ({"controls": jnp.zeros((1, 6))}, r"controls has shape \(1, 6\)"),
        ({"lengths_h": jnp.zeros(0)}, r"lengths_h has shape \(0,\)"),
        ({"lengths_h": jnp.ones((3, 3))}, r"lengths_h has shape \(3, 3\)"),
    ],
)
def test_plans_that_do_not_fit_are_refused(changes, match):
    given = {
        "initial": jnp.zeros((2, 10)),
        "controls": jnp.zeros((2, 6)),
        "lengths_h": jnp.full(3, 24.0),
        **changes,
    }
    with pytest.raises(ConfigError, match=match):
        make_plan(Reactor(), given["initial"], given["controls"], given["lengths_h"])


def test_constants_of_another_batch_are_refused(batch):
    *_, plan = batch
    with pytest.raises(ConfigError, match=r"has shape \(3,\); with 12 runs it must be a scalar"):
        integrate(Reactor(kinetics=both_clones(3)), plan)


def test_unknown_modes_are_refused():
    with pytest.raises(ConfigError, match="batchwise.*perfusion, chemostat or fed_batch"):
        Reactor(mode="batchwise")
    with pytest.raises(ConfigError, match="perfusion_mode 'vvm'"):
        Reactor(perfusion_mode="vvm")


def test_set_points_by_name():
    u = controls_from_dict({"temperature": 36.0, "pyr_feed_conc": 1.0, "volume_L": 2.0})
    np.testing.assert_array_equal(u, [1.25, 0.175, 5.0, 36.0, 875.0, 1.0])
    base = dict(
        zip(
            ("perfusion_rate", "bleed_rate", "glucose_setpoint", "temperature", "agitation"),
            (1.0, 0.1, 3.0, 36.5, 900.0),
            strict=True,
        ),
        pyruvate_feed=0.5,
    )
    np.testing.assert_array_equal(
        controls_from_dict({"bleed_rate": 0.2}, base), [1.0, 0.2, 3.0, 36.5, 900.0, 0.5]
    )
    with pytest.raises(ConfigError, match="unknown control 'temp'.*temperature"):
        controls_from_dict({"temp": 37.0})
    with pytest.raises(ConfigError, match=r"bleed_rate 1\.0 vvd exceeds perfusion_rate 0\.5"):
        controls_from_dict({"perfusion_rate": 0.5, "bleed_rate": 1.0})


@pytest.mark.parametrize(
    ("constant", "value", "match"),
    [
        ("mu_max", -0.1, "mu_max is -0.1; it must be >= 0"),
        ("K_glc", float("nan"), "K_glc is nan; it must be finite"),
        ("k_lysis", float("inf"), "k_lysis is inf; it must be finite"),
        ("q_gln_max", jnp.asarray([1e-11, -1e-11]), "q_gln_max .* must be >= 0"),
    ],
)
def test_constants_that_mean_nothing_are_refused(constant, value, match):
    with pytest.raises(ConfigError, match=match):
        CHOKinetics(**{constant: value})


def test_constants_that_may_be_negative():
    assert float(CHOKinetics(diam_death_coeff=-1.0).diam_death_coeff) == -1.0
    with pytest.raises(ConfigError, match="at least one set"):
        stack([])
