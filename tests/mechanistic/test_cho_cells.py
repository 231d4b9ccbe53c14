"""CHO cells by name: the laws of the perfusion plant in any vessel."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid import Vessel
from perfusio_jax.mechanistic import CHOKinetics, CHOPerfusionModel, Monod, cho_cells, movable
from perfusio_jax.mechanistic.vector_field import N_PLANT, day_inputs, fluxes
from perfusio_jax.process import CHO_FED_BATCH, CHO_PERFUSION, MONOD_CHEMOSTAT, Quantity
from perfusio_jax.simulator import run_plant, virtual_plant
from perfusio_jax.simulator.plain_plant import usual_start

STATE = {"Xv": 18.0, "Xd": 1.2, "Glc": 1.9, "Gln": 0.8, "Glu": 1.1, "Lac": 9.0, "Amm": 2.5,
         "Pyr": 0.4, "Titer": 300.0}  # fmt: skip
SET = {"perfusion_rate": 1.0, "bleed_rate": 0.1, "glucose_setpoint": 0.0, "temperature": 36.1,
       "agitation": 930.0, "pyruvate_feed": 0.0, "volume_L": 0.25}  # fmt: skip
HELD = CHOKinetics(inhibition_amm=0.1, inhibition_lac=0.02)


def rates(process, kinetics, state, environment=SET):
    mechanism = cho_cells(process, kinetics)
    told = {n: jnp.asarray(v) for n, v in state.items() if n in process.carried}
    return mechanism.rates(told, {n: jnp.asarray(v) for n, v in environment.items()})


@pytest.mark.parametrize("kinetics", [CHOKinetics(), HELD])
def test_rates_are_those_of_the_perfusion_plant(kinetics):
    reactor = CHOPerfusionModel(kinetics=kinetics).reactor
    volume = 0.25
    state = [STATE[n] for n in ("Xv", "Xd")] + [0.0] + [STATE[n] for n in list(STATE)[2:]]
    amounts = (*(jnp.asarray(volume * c) for c in state), jnp.asarray(volume))
    controls = jnp.asarray([SET[n] for n in CHO_PERFUSION.control_names])
    true = fluxes(reactor, day_inputs(reactor, controls, jnp.asarray(volume)), amounts).reaction
    places = [k for k in range(N_PLANT) if k != 2]
    found = rates(CHO_PERFUSION, kinetics, STATE)
    assert list(found) == list(STATE)
    np.testing.assert_allclose(
        [float(v) for v in found.values()], [float(true[k]) / volume for k in places], rtol=1e-12
    )


def test_other_units_and_names_are_the_same_culture():
    """Glucose in mmol/L, lactate in g/L, cells called VCD in 1/mL."""
    quantities = (
        Quantity(name="VCD", unit="cells/mL", hi=2e8),
        Quantity(name="Glc", unit="mmol/L", hi=100.0),
        Quantity(name="Lac", unit="g/L", hi=20.0),
    )
    process = CHO_FED_BATCH.replace(biomass="VCD", quantities=quantities, controls=())
    plain = CHO_FED_BATCH.replace(
        quantities=tuple(q for q in CHO_FED_BATCH.quantities if q.name in ("Xv", "Glc", "Lac")),
        controls=(),
    )
    one = rates(plain, HELD, {"Xv": 5.0, "Glc": 3.0, "Lac": 10.0})
    other = rates(process, HELD, {"VCD": 5e6, "Glc": 3000.0 / 180.156, "Lac": 10.0 * 0.0900779})
    assert float(other["VCD"]) == pytest.approx(1e6 * float(one["Xv"]), rel=1e-5)
    assert float(other["Glc"]) == pytest.approx(1000.0 / 180.156 * float(one["Glc"]), rel=1e-5)
    assert float(other["Lac"]) == pytest.approx(0.0900779 * float(one["Lac"]), rel=1e-4)


def test_what_is_not_measured_holds_nothing_up():
    few = CHO_FED_BATCH.replace(
        quantities=tuple(q for q in CHO_FED_BATCH.quantities if q.name in ("Xv", "Glc")),
        controls=(),
    )
    plenty = {**STATE, "Gln": 1e6, "Amm": 0.0, "Lac": 0.0, "Pyr": 0.0}
    at_reference = {**SET, "temperature": 37.0, "agitation": 850.0}
    whole = rates(CHO_PERFUSION, HELD, plenty, at_reference)
    part = rates(few, HELD, plenty, {"volume_L": 1.0})
    assert float(part["Xv"]) == pytest.approx(float(whole["Xv"]), rel=1e-5)
    assert float(part["Glc"]) == pytest.approx(float(whole["Glc"]), rel=1e-5)


def test_data_move_each_kind_of_rate_by_a_factor():
    mechanism = cho_cells(CHO_FED_BATCH)
    assert list(movable(mechanism)) == [
        "growth", "death", "glucose", "glutamine", "lactate", "ammonium", "product",
    ]  # fmt: skip

    def product(factor):
        told = {n: jnp.asarray(v) for n, v in STATE.items() if n != "Pyr"}
        other = eqx.tree_at(lambda m: m.product, mechanism, factor)
        return other.rates(told, {"temperature": jnp.asarray(37.0)})["Titer"]

    value, slope = jax.value_and_grad(product)(jnp.asarray(1.0))
    assert float(slope) == pytest.approx(float(value))


def test_a_fed_batch_grows_starves_and_dies():
    plant = virtual_plant(CHO_FED_BATCH, cho_cells(CHO_FED_BATCH))
    start = jnp.asarray([usual_start(CHO_FED_BATCH)[n] for n in plant.states])
    held = np.tile([37.0, 7.0, 0.0, 0.0], (10, 1))
    fed = held.copy()
    fed[1::2, 2], fed[1::2, 3] = 0.6, 1.0  # g of glucose and mmol of glutamine into 0.2 L
    alone, given = (
        np.asarray(run_plant(plant, start, jnp.asarray(u), jnp.full(10, 24.0)).states)
        for u in (held, fed)
    )
    assert np.isfinite(alone).all() and (alone > -1e-6).all()
    assert alone[:, 0].max() > 1.3 * alone[0, 0] and alone[-1, 0] < alone[:, 0].max()
    assert given[-1, 0] > 1.5 * alone[-1, 0] and given[-1, -1] > 1.2 * alone[-1, -1]


def test_a_model_takes_it_by_name_and_monods_culture_does_not():
    vessel = Vessel(CHO_FED_BATCH, cho_cells(CHO_FED_BATCH))
    assert not isinstance(vessel.kinetics, Monod) and vessel.layout.n == 8
    with pytest.raises(ConfigError, match=r"called Xv or VCD; the biomass of monod_chemostat is X"):
        cho_cells(MONOD_CHEMOSTAT)
    strange = CHO_FED_BATCH.replace(
        quantities=(
            Quantity(name="Xv", unit="g/L", hi=20.0),
            Quantity(name="Glc", unit="g/L", hi=20.0),
        ),
        controls=(),
    )
    with pytest.raises(ConfigError, match="mechanism cho: .*g/L"):
        cho_cells(strange)
