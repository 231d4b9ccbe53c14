"""Rate laws: their published values, their limits, and the equations written a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, ConfigError
from perfusio_jax.chemistry import Medium
from perfusio_jax.mechanistic import (
    BALANCED_COLUMNS,
    DEFAULT_CONTROLS,
    CHOKinetics,
    GlucosePump,
    Reactor,
    clone_x,
    clone_y,
    day_inputs,
    pump_rate,
    stack,
    vector_field,
)
from perfusio_jax.mechanistic.kinetics import saturation
from tests.mechanistic.cases import START, plain_constants, plain_field, random_controls

X, Y = clone_x(), clone_y()


def test_growth_is_dual_monod():
    assert float(X.mu(1e6, 1e6)) == pytest.approx(0.04, rel=1e-5)
    assert float(X.mu(0.08, 1e9)) == pytest.approx(0.02)
    assert float(X.mu(0.08, 0.5)) == pytest.approx(0.01)
    assert float(X.mu(0.0, 5.0)) == 0.0


def test_death_rises_with_temperature_from_its_reference():
    assert float(X.k_death(37.0)) == float(X.K_d) == 0.003
    assert float(X.k_death()) == 0.003
    assert float(X.k_death(38.0)) == pytest.approx(0.004)
    assert float(X.k_death(20.0)) == 0.0


def test_cold_costs_growth_and_agitation_has_a_middle():
    temperatures = jnp.linspace(33.0, 37.0, 9)
    assert np.all(np.diff(X.growth_factor(temperatures)) > 0)
    assert float(X.growth_factor(37.0)) == 1.0
    assert float(X.shear_death(1700.0)) == pytest.approx(2**8 * 3e-4)
    assert float(X.oxygen_cell_limit(1700.0)) == pytest.approx(8 * 60.0)


def test_uptake_is_growth_plus_maintenance():
    assert float(X.q_glc(0.04, 10.0)) == pytest.approx((2.2e-11 + 2e-12) * 1e10)
    assert float(X.q_glc(0.0, 10.0)) == pytest.approx(2e-12 * 1e10)
    assert float(X.q_glc(0.0, 10.0, 0.02)) == pytest.approx(1e-12 * 1e10)  # half of it is there
    assert float(X.q_gln(0.02, 4.0)) == pytest.approx((2.5e-11 + 4e-12) * 4e9)
    assert float(X.q_gln(0.0, 4.0, 0.0)) == 0.0
    assert float(X.q_glu(1.0, 0.0, 1.0)) == pytest.approx(0.1)
    assert float(X.q_glu(0.0, 10.0, 0.5)) == pytest.approx(-0.5 * 3e-12 * 1e10)


def test_only_clone_x_switches_from_making_to_eating_lactate():
    plenty, scarce = 8.0, 0.5
    assert float(X.q_lac(plenty, 1.0, 10.0)) == pytest.approx(0.9 * 1000 / 180.156, rel=1e-6)
    assert float(X.q_lac(scarce, 0.1, 10.0)) < -2.0
    assert float(X.q_lac(scarce, 0.1, 10.0, 0.0)) > 0.0  # none there, none eaten
    assert float(Y.q_lac(scarce, 0.1, 10.0)) == pytest.approx(0.09 * 1000 / 180.156)
    assert float(X.lactate_switch(2.0)) == pytest.approx(0.5)
    slope = jax.vmap(jax.grad(lambda g: X.q_lac(g, 0.1, 10.0)))(jnp.linspace(0.0, 6.0, 50))
    assert np.all(np.isfinite(slope)) and np.all(np.asarray(slope) >= 0)


def test_ammonium_product_and_diameter():
    assert float(X.q_amm(2.0, 0.0, 3.0)) == pytest.approx(1.7)
    assert float(X.q_amm(2.0, 1.0, 3.0)) == pytest.approx(1.7 - 0.15)
    assert float(X.pyruvate_scavenging(1.0, 3.0)) == pytest.approx(0.15)
    assert float(X.q_mab(0.04, 10.0)) == pytest.approx((2e-9 * 0.04 + 1.8e-9) * 1e10)
    assert float(X.cell_diameter(100.0)) == 20.5
    assert float(X.cell_diameter(90.0)) == pytest.approx(20.9)


def test_saturation_pushes_back_below_zero_and_is_smooth_there():
    assert float(saturation(-0.1, 0.5)) == -float(saturation(0.1, 0.5))
    slope = jax.grad(saturation)
    assert float(slope(0.0, 0.5)) == pytest.approx(2.0)
    assert float(slope(-1e-9, 0.5)) == pytest.approx(float(slope(1e-9, 0.5)))


def test_the_pump_is_proportional_limited_and_never_runs_backwards():
    pump, medium = GlucosePump(), Medium()
    assert float(pump.flux(4.9, 5.0)) == pytest.approx(0.2, abs=0.002)
    assert float(pump.flux(0.0, 5.0)) == pytest.approx(0.5, abs=1e-3)
    assert 0.0 < float(pump.flux(8.0, 5.0)) < 1e-4
    flux = np.asarray(pump.flux(jnp.linspace(-1.0, 12.0, 200), 5.0))
    assert np.all(flux > 0) and np.all(flux <= 0.5) and np.all(np.diff(flux) < 0)
    assert float(pump_rate(pump, medium, 0.0, 5.0)) == pytest.approx(0.5 / 400, rel=1e-2)


@pytest.mark.parametrize("clone", [X, Y], ids="XY")
def test_the_field_is_that_of_the_equations(clone):
    """Against the plant written in NumPy from the equations, on random states and set-points."""
    rng = np.random.default_rng(3)
    kinetics = CHOKinetics(
        **{n: v * np.exp(0.2 * rng.standard_normal()) for n, v in clone.items() if n != "T_ref"},
    )
    kinetics = kinetics.__class__(**{**dict(kinetics.items()), "inhibition_amm": 0.1})
    reactor = Reactor(kinetics=kinetics)
    states = (START + 0.05) * np.exp(rng.standard_normal((30, 10)))
    controls = random_controls(4, (30,))
    volume = 0.3
    amounts = (*jnp.asarray(states * volume).T, jnp.full(30, volume))
    inputs = day_inputs(reactor, jnp.asarray(controls), jnp.full(30, volume))
    ours = np.stack(vector_field(reactor, inputs, amounts), axis=1)
    assert np.all(ours[:, 10] == 0)
    k = plain_constants(kinetics)
    theirs = [
        plain_field(c, u, k, Medium(), GlucosePump())
        for c, u in zip(states.tolist(), controls.tolist(), strict=True)
    ]
    np.testing.assert_allclose(ours[:, :10] / volume, theirs, rtol=1e-10, atol=1e-12)


def test_the_seed_face_agrees_with_the_vector_field():
    face = [12.0, 94.0, 4.0, 2.0, 0.6, 8.0, 1.5, 0.4, 300.0]
    u = dict(DEFAULT_CONTROLS)
    derivatives = [float(v) for v in X.ode_rhs(0.0, face, u)]
    Xd = 12.0 * (100.0 / 94.0 - 1.0)
    state = [12.0, Xd, 0.0, *face[2:]]
    theirs = np.asarray(
        plain_field(
            state, [u[n] for n in CONTROL_NAMES], plain_constants(X), Medium(), GlucosePump()
        )
    )
    balanced = theirs[list(BALANCED_COLUMNS)]
    total = 12.0 + Xd
    d_via = 100.0 * (Xd * balanced[0] - 12.0 * balanced[1]) / total**2
    np.testing.assert_allclose(
        derivatives, [balanced[0], d_via, *balanced[2:]], rtol=1e-10, atol=1e-14
    )
    assert CHOKinetics.STATE_ORDER == list(STATE_ORDER)
    richer = X.ode_rhs(0.0, face, {**u, "gln_feed_conc": 16.0, "glucose_feed_conc": 7.0})
    assert float(richer[3]) - derivatives[3] == pytest.approx(8.0 * 1.25 / 24)
    assert float(richer[2]) - derivatives[2] == pytest.approx(1.25 / 24)
    with pytest.raises(ConfigError, match="unknown control 'pH'"):
        X.ode_rhs(0.0, face, {"pH": 7.0})


def test_stacked_clones_keep_their_constants():
    both = stack([X, Y])
    assert both.mu_max.shape == (2,)
    np.testing.assert_array_equal(both.consumes_lactate, [1.0, 0.0])
