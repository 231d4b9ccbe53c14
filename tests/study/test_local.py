"""Local sensitivity: forward = adjoint = finite differences, for three kinds of plant."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, SimulationError
from perfusio_jax.mechanistic import CHOKinetics, Reactor, Tolerances
from perfusio_jax.study import cho_experiment, choose_levers, local_sensitivity, read_outputs
from perfusio_jax.study.outputs import measure
from perfusio_jax.study.sensitivity.local import _differentiated, way_costs
from tests.study.cultures import Exponential, chemostat, fed_batch, perfusion, vial

H = 3e-4
STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}


def differences(run, outputs, levers):
    """Derivatives by central differences of fourth order, all runs side by side."""
    x = np.asarray(run.lever_values(levers))
    step = H * np.where(x != 0.0, np.abs(x), 1.0)
    rows = np.concatenate([x + k * np.diag(step) for k in STENCIL])
    course = jax.jit(lambda v: run.courses(levers, v))(jnp.asarray(rows))
    assert not np.any(np.asarray(course.result))
    y = np.asarray(measure(outputs, course.values, run.lengths_h))
    y = y.reshape(len(STENCIL), x.size, -1)
    return np.einsum("k,kpo->op", list(STENCIL.values()), y) / step


CASES = {
    "chemostat": (
        lambda: chemostat(1e-11, 1e-13, 2048),
        ["last X", "S at 20 h", "integral of P", "min S", "max X", "mean S"],
        ["constants", "set-points", "dilution@2", "feed_S@3", "start"],
    ),
    "fed-batch": (
        lambda: fed_batch(1e-9, 1e-11, 2048),
        ["last X", "S at 15 h", "integral of X", "max S", "last volume_L"],
        ["constants", "feed_rate", "feed_rate@2", "S_bolus@2", "feeds", "start"],
    ),
    "perfusion": (
        lambda: perfusion(1e-10, 400, 2),
        ["last Titer", "VCD at 1 d", "integral of VCD", "min Via", "max Amm", "last Diam"],
        "mu_max K_gln K_d Y_lac_glc diam_base perfusion_rate temperature@2 medium.glutamine "
        "medium.glucose_feed start.Xv start.Amm".split(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_forward_and_adjoint_and_finite_differences_are_the_same(case):
    make, outputs, levers = CASES[case]
    run = make()
    forward = local_sensitivity(run, outputs, levers, way="forward")
    adjoint = local_sensitivity(run, outputs, levers, way="adjoint")
    assert (forward.way, adjoint.way) == ("forward", "adjoint")
    expected = differences(run, forward.outputs, forward.levers)
    size = np.maximum(np.abs(forward.at), 1e-3)
    # how far an output moves if a lever moves by all of itself, and the output's own size, which
    # is what differences lose their digits to
    scale = np.maximum(np.abs(expected) * size, 0.3 * np.abs(forward.values)[:, None])
    np.testing.assert_allclose(adjoint.values, forward.values, rtol=1e-9)
    assert np.max(np.abs(adjoint.gradients - forward.gradients) * size / scale) < 1e-9
    assert np.max(np.abs(forward.gradients - expected) * size / scale) < 1e-6
    assert np.count_nonzero(expected) > 0.5 * expected.size


def test_elasticities_of_exponential_growth_are_those_on_paper():
    run = vial(Exponential(), np.linspace(0.0, 20.0, 5), start=3.0)
    found = local_sensitivity(run, ["last X"], ["mu", "start.X"])
    np.testing.assert_allclose(found.values, 3.0 * np.exp(2.0), rtol=1e-7)
    np.testing.assert_allclose(found.elasticities, [[2.0, 1.0]], rtol=1e-6)
    assert [lever.name for lever, _ in found.ranked()] == ["mu", "start.X"]


def test_other_numbers_compile_nothing_and_nobody_divides_by_zero():
    run = chemostat()
    before = local_sensitivity(run, ["last X"], ["mu_max", "dilution"])
    programs = _differentiated.n_programs()
    levers = choose_levers(run, ["mu_max", "start.X"])
    moved = run.pulled(levers, jnp.asarray([0.3, 4.0]))
    after = local_sensitivity(moved, ["last X"], ["mu_max", "dilution"])
    assert _differentiated.n_programs() == programs
    assert after.values[0] != before.values[0]
    empty = vial(Exponential(), [0.0, 5.0], start=0.0)
    found = local_sensitivity(empty, ["last X"], ["mu", "start.X"])
    assert np.isnan(found.elasticities).all() and found.gradients[0, 1] == pytest.approx(
        np.exp(0.5), rel=1e-4
    )


def test_the_cheaper_way_is_taken_by_the_counts():
    few, many = way_costs(10, 1, is_in_lanes=False), way_costs(400, 1, is_in_lanes=False)
    assert few["forward"] < few["adjoint"] and many["forward"] > many["adjoint"]
    lanes = way_costs(199, 1, is_in_lanes=True)
    assert lanes["adjoint"] < lanes["forward"]
    found = local_sensitivity(chemostat(), ["last X"], ["mu_max", "dilution"])
    assert found.way == "forward" and found.cost == way_costs(2, 1, is_in_lanes=False)["forward"]


def test_a_run_that_fails_and_a_way_there_is_not_are_refused():
    run = chemostat()
    (lever,) = choose_levers(run, ["dilution@1"])
    broken = run.pulled((lever,), jnp.asarray([-1.0]))
    with pytest.raises(SimulationError, match="the run failed.*BAD_INPUT"):
        local_sensitivity(broken, ["last X"], ["mu_max"])
    with pytest.raises(ConfigError, match="choose forward or adjoint"):
        local_sensitivity(run, ["last X"], ["mu_max"], way="sideways")
    assert read_outputs(run, ["X"])[0].name == "X"


def test_a_slope_is_right_where_the_pump_begins_to_feed():
    """A coarse step across that corner has a value right to 2e-5 and a slope of the wrong sign."""
    recipe = [0.677718610, 0.116840394, 4.74605409, 35.3940986, 1042.07417, 2.05956009]
    kinetics = CHOKinetics()
    hungry = eqx.tree_at(lambda k: k.q_glc_max, kinetics, 0.9 * kinetics.q_glc_max)
    hours, controls = 24.0 * np.arange(3), np.tile(recipe, (2, 1))
    run = cho_experiment(Reactor(kinetics=hungry), hours, controls=controls)
    found = local_sensitivity(run, ["Glc at 2 d"], ["q_glc_max"])
    near = cho_experiment(
        Reactor(kinetics=hungry), hours, controls=controls, tolerances=Tolerances(rtol=1e-8)
    )
    x = 1.0 + np.array([[-1e-3], [1e-3]])
    levers = found.levers
    values = np.asarray(
        jax.jit(lambda v: near.courses(levers, v).values)(jnp.asarray(found.at * x))
    )
    glucose = values[:, 2, run.columns.index("Glc")]
    slope = (glucose[1] - glucose[0]) / 2e-3
    assert slope == pytest.approx(-0.0341, rel=0.02)
    assert found.elasticities[0, 0] * found.values[0] == pytest.approx(slope, rel=0.01)
