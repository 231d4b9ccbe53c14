"""One interval of a described culture, against an integrator that shares no code with it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid import Vessel, layout_of
from perfusio_jax.hybrid.transition import Limits, ResidualBasis, apply_residual, flat_prior
from perfusio_jax.hybrid.vessel import substeps_for
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import MONOD_CHEMOSTAT, Control, Process, Quantity

from .cultures import CHEMOSTAT, FED, YEAST


class Growth(Mechanism):
    """Monod with an uptake for maintenance."""

    mu_max: jax.Array = constant(0.25, unit="1/h", log_sd=0.5)
    K_S: jax.Array = constant(1.5, unit="g/L", log_sd=0.5)
    y: jax.Array = constant(0.45, unit="g/g", log_sd=0.2)

    def rates(self, state, environment):
        x, s = state["X"], state["S"]
        mu = self.mu_max * s / (self.K_S + s)
        return {"X": mu * x, "S": -(mu / self.y + 0.02 * s / (0.5 + s)) * x}


@eqx.filter_jit
def _advance(vessel, *args, **kwargs):
    return vessel.advance(*args, **kwargs)[0]


def step(vessel, state, controls, rates, dt, per_cell=None, half=None):
    n = vessel.layout.n
    per_cell = np.ones(n) if per_cell is None else np.asarray(per_cell, float)
    half = np.full(n, 1e-6) if half is None else half
    return np.asarray(
        _advance(
            vessel,
            jnp.asarray(state, float),
            jnp.asarray(controls, float),
            jnp.asarray(rates, float),
            half=jnp.asarray(half),
            per_cell=jnp.asarray(per_cell),
            offset=jnp.zeros(n),
            dt_h=jnp.asarray(float(dt)),
        )
    )


@pytest.mark.parametrize("dt", [1.0, 6.0, 24.0])
def test_a_mechanism_in_a_chemostat_moves_as_an_independent_integrator_says(dt):
    vessel = Vessel(CHEMOSTAT, Growth(), substeps=substeps_for(dt, 0.12 + 0.25))
    dilution, feed = 0.12, 20.0

    def slope(_, y):
        x, s, _ = y
        mu = 0.25 * s / (1.5 + s)
        uptake = (mu / 0.45 + 0.02 * s / (0.5 + s)) * x
        return [(mu - dilution) * x, dilution * (feed - s) - uptake, 0.0]

    start = [3.0, 8.0, 4.0]
    wanted = solve_ivp(slope, (0, dt), start, method="LSODA", rtol=1e-10, atol=1e-10).y[:, -1]
    set_points, nothing = [dilution, feed], np.zeros(3)
    found = step(vessel, start, set_points, nothing, dt)
    np.testing.assert_allclose(found, wanted, rtol=0.01)
    twice = Vessel(CHEMOSTAT, Growth(), substeps=2 * vessel.substeps)
    finer = step(twice, start, set_points, nothing, dt)
    # of second order: twice as many parts leave about a quarter of the error
    assert np.abs(finer - wanted).max() < 0.4 * np.abs(found - wanted).max()


def test_a_batch_that_nobody_acts_on_grows_by_itself():
    quantities = (
        Quantity(name="X", unit="g/L", hi=20.0),
        Quantity(name="S", unit="g/L", hi=50.0),
    )
    batch = Process(name="batch", volume_L=1.0, quantities=quantities, biomass="X")
    vessel = Vessel(batch, Growth(), substeps=8)
    assert vessel.layout.controls == ()
    found = step(vessel, [1.0, 20.0], np.zeros(0), np.zeros(2), 6.0)
    mu = 0.25 * 20.0 / 21.5
    assert 1.0 < found[0] < np.exp(6.0 * mu) and 0.0 < found[1] < 20.0
    grown, eaten = found[0] - 1.0, 20.0 - found[1]
    assert grown / 0.45 < eaten < grown / 0.45 + 0.02 * 6.0 * found[0]


def test_learned_rates_grow_cells_and_feed_on_them_exactly_where_that_can_be_written_down():
    vessel = Vessel(YEAST)
    mu, q, p = 0.11, -0.3, 0.05
    found = step(vessel, [2.0, 80.0, 1.0], [28.0], [mu, q, p], 6.0, per_cell=[0, 1, 1])
    grown = 2.0 * np.exp(mu * 6.0)
    fed_on = (grown - 2.0) / mu
    np.testing.assert_allclose(found, [grown, 80.0 + q * fed_on, 1.0 + p * fed_on], rtol=1e-3)


def test_a_feed_and_a_bolus_change_amounts_by_what_they_bring():
    vessel = Vessel(FED)
    layout = vessel.layout
    assert layout.controls == ("feed_rate", "S_bolus", "volume_L")
    start, volume, rate, bolus, dt = np.array([5.0, 20.0]), 1.5, 12.0, 3.0, 10.0
    found = step(vessel, start, [rate, bolus, volume], [0.0, 0.0], dt, per_cell=[0, 1])
    after = volume + 1e-3 * rate * dt
    amounts = start * volume + np.array([0.0, bolus + 1e-3 * rate * dt * 400.0])
    np.testing.assert_allclose(found, amounts / after, rtol=2e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.0, 100.0), min_size=3, max_size=3),
    st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=3),
    st.floats(0.25, 72.0),
)
def test_nothing_falls_below_zero_and_nothing_is_lost_to_infinity(state, rates, dt):
    vessel = Vessel(CHEMOSTAT, Growth())
    found = step(vessel, state, [0.1, 20.0], rates, dt, per_cell=[0, 1, 0], half=np.full(3, 0.1))
    assert np.all(np.isfinite(found)) and np.all(found >= 0.0)


def test_a_level_is_counted_from_the_end_of_its_range_and_no_stream_carries_it():
    vessel = Vessel(CHEMOSTAT)
    assert vessel.layout.lower.tolist() == [0.0, 0.0, 3.0]
    found = step(vessel, [1.0, 5.0, 4.2], [0.4, 20.0], np.zeros(3), 24.0, per_cell=[0, 1, 0])
    assert found[2] == pytest.approx(4.2)


@pytest.mark.parametrize(("rate", "end"), [(0.1, 1.2 + 2.4), (1.0, 8.0), (-1.0, 0.0)])
def test_no_forecast_of_a_level_leaves_the_range_its_readings_are_believed_in(rate, end):
    vessel = Vessel(CHEMOSTAT)  # a pH between 3 and 11, counted from 3
    basis = ResidualBasis(np.ones(3), np.ones(3), np.zeros(3), np.full(3, 1e-6))
    state = jnp.asarray([1.0, 5.0, 1.2])
    after, _, _ = apply_residual(
        vessel,
        basis,
        Limits(residual=1e3, cells=1e3),
        state,
        jnp.asarray([0.0, 20.0]),
        flat_prior(state, 0),
        jnp.asarray([0.0, 0.0, rate]),
        jnp.asarray(24.0),
    )
    assert float(after[2]) == pytest.approx(end, abs=1e-3)


def test_gradients_through_an_interval_are_those_of_differences():
    vessel = Vessel(CHEMOSTAT, Growth())
    half, zero = jnp.full(3, 0.1), jnp.zeros(3)

    def end(controls):
        return jnp.sum(
            vessel.advance(
                jnp.asarray([2.0, 5.0, 4.0]),
                controls,
                jnp.asarray([0.01, -0.05, 0.02]),
                half=half,
                per_cell=jnp.asarray([0.0, 1.0, 0.0]),
                offset=zero,
                dt_h=jnp.asarray(12.0),
            )[0]
        )

    at = jnp.asarray([0.1, 20.0])
    slope = jax.grad(end)(at)
    for k in range(2):
        step_ = jnp.zeros(2).at[k].set(1e-5)
        rough = (end(at + step_) - end(at - step_)) / 2e-5
        assert float(slope[k]) == pytest.approx(float(rough), rel=1e-5)


def test_layouts_show_viability_where_the_dead_are_not_counted_and_keep_what_a_mechanism_knows():
    def cells(name, **more):
        return Quantity(name=name, unit="1e6 cells/mL", hi=100.0, **more)

    process = Process(
        name="five",
        volume_L=1.0,
        biomass="VCD",
        quantities=(
            cells("VCD"),
            cells("DCD", is_measured=False),
            Quantity(name="Glc", unit="g/L", hi=20.0),
            Quantity(name="Gln", unit="mmol/L", hi=20.0, is_measured=False),
            Quantity(
                name="Via",
                unit="%",
                hi=100.0,
                kind="derived",
                formula="viability",
                of=("VCD", "DCD"),
            ),
        ),
    )
    layout = layout_of(process)
    assert layout.states == ("VCD", "DCD", "Glc") and layout.face == ("VCD", "Via", "Glc")
    assert layout.pair == (0, 1) and layout.cells == 0 and layout.latent == ()
    assert layout_of(process, ("Gln",)).latent == (3,)


def test_viabilities_that_cannot_be_modelled_are_refused_and_not_taken_for_dead_cells():
    def cells(name, **more):
        return Quantity(name=name, unit="1e6 cells/mL", hi=100.0, **more)

    def viability(name, *of):
        return Quantity(name=name, unit="%", hi=100.0, kind="derived", formula="viability", of=of)

    dead = {"is_measured": False}
    for quantities in (
        (cells("A"), cells("dA", **dead), viability("VA", "A", "dA"),
         cells("B"), cells("dB", **dead), viability("VB", "B", "dB")),
        (cells("A", **dead), cells("dA", **dead), viability("VA", "A", "dA"), cells("B")),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="VA.* of two: one viability can be modelled"):
            layout_of(Process(name="two", volume_L=1.0, quantities=quantities))


class _Asks(Mechanism):
    def rates(self, state, environment):
        return {"X": state["Z"]}


class _Names(Mechanism):
    def rates(self, state, environment):
        return {"Y": state["X"]}


class _Plain(Mechanism):
    def rates(self, state, environment):
        return {"X": 0.1}


class _Wide(Mechanism):
    def rates(self, state, environment):
        return {"X": jnp.zeros(2)}


class _Nan(Mechanism):
    def rates(self, state, environment):
        return {"X": jnp.log(-state["X"])}


class _List(Mechanism):
    def rates(self, state, environment):
        return [state["X"]]


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        (_Asks(), "asks for 'Z'"),
        (_Names(), "gives a rate of Y"),
        (_Plain(), "is a float"),
        (_Wide(), r"shape \(2,\)"),
        (_Nan(), "is nan where every state is 1"),
        (_List(), "returned list"),
    ],
)
def test_mechanisms_that_do_not_fit_are_refused_by_what_is_wrong(mechanism, message):
    with pytest.raises(ConfigError, match=message):
        Vessel(YEAST, mechanism)


def test_processes_that_cannot_be_modelled_are_refused():
    blind = Process(
        name="blind",
        volume_L=1.0,
        quantities=(Quantity(name="X", unit="g/L", hi=1.0, is_measured=False),),
    )
    with pytest.raises(ConfigError, match="nothing of blind is measured"):
        Vessel(blind)
    volume = Process(
        name="volume",
        volume_L=1.0,
        quantities=(Quantity(name="S", unit="g/L", hi=1.0),),
        controls=(
            Control(name="S_bolus", unit="mL", role="bolus", lo=0, hi=1, default=0, quantity="S"),
        ),
    )
    with pytest.raises(ConfigError, match="does not say how much is in it"):
        Vessel(volume)
    assert Vessel(MONOD_CHEMOSTAT).layout.n == 3


@pytest.mark.parametrize("bad", [{"log_sd": 0.1, "sd": 0.1}, {"log_sd": 0.0}, {"sd": -1.0}])
def test_constants_say_how_far_they_move_in_one_way(bad):
    with pytest.raises(ConfigError, match="at most one, above zero"):
        constant(1.0, unit="1/h", **bad)
