"""CHO in fed-batch, the built-in culture of boluses: volumes that move, fits and forecasts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.hybrid import Vessel, fit_hybrid, forecast_ahead, layout_of
from perfusio_jax.process import CHO_FED_BATCH, CHO_PERFUSION, MONOD_CHEMOSTAT
from perfusio_jax.simulator import plain_monod, simulate_runs, usual_start, virtual_plant

from .cultures import QUICK, YEAST

CONTROLS = CHO_FED_BATCH.control_names


def test_the_volume_may_move_where_boluses_are_given_and_nothing_keeps_it():
    assert CHO_FED_BATCH.may_move and CHO_FED_BATCH.is_constant_volume
    assert not any(p.may_move for p in (CHO_PERFUSION, MONOD_CHEMOSTAT, YEAST))
    assert layout_of(CHO_FED_BATCH).controls == (*CONTROLS, "volume_L")


@pytest.mark.parametrize("volume", [0.2, 0.26])
def test_a_bolus_meets_the_volume_that_was_recorded(volume):
    vessel = Vessel(CHO_FED_BATCH)
    controls = np.array([36.5, 7.0, 0.8, 1.3, volume])
    before = np.arange(1.0, vessel.layout.n + 1.0)
    after = np.asarray(vessel.after_bolus(jnp.asarray(before), jnp.asarray(controls)))
    gain = dict(zip(vessel.layout.states, after - before, strict=True))
    assert gain.pop("Glc") == pytest.approx(0.8 / volume)  # g of g/L
    assert gain.pop("Gln") == pytest.approx(1.3 / volume)  # mmol of mmol/L
    assert max(abs(v) for v in gain.values()) == 0.0


@pytest.fixture(scope="module")
def campaign():
    """Four runs of eight days on plain kinetics, fed by boluses, at two temperatures."""
    plant = virtual_plant(CHO_FED_BATCH, plain_monod(CHO_FED_BATCH))
    usual = usual_start(CHO_FED_BATCH)
    starts = np.tile([usual[name] for name in plant.states], (4, 1))
    starts[:, plant.states.index(CHO_FED_BATCH.biomass)] *= np.array([0.05, 0.08, 0.1, 0.06])
    controls = np.tile([36.5, 7.0, 0.3, 0.2], (4, 8, 1))
    controls[:2, :, 0], controls[:, 0, 2:], controls[1::2, :, 2] = 35.0, 0.0, 0.15
    return simulate_runs(
        plant, starts, controls, np.arange(9) * 24.0, key=jax.random.key(4), noise=True
    )


@pytest.mark.slow
def test_a_fitted_fed_batch_is_forecast_and_knows_its_boluses(campaign):
    model, report = fit_hybrid(
        campaign[:3],
        key=jax.random.key(0),
        config=QUICK,
        process=CHO_FED_BATCH,
        mech_model="none",
    )
    assert np.isfinite(float(report.log_evidence))
    run = campaign[3]
    begun = run.slice_days(0, 4)
    found = forecast_ahead(model, begun, [24.0, 48.0], n_samples=96)
    later = run.host_readings(found.names)[4:6]
    inside = (found.q025 <= later) & (later <= found.q975)
    assert np.isfinite(found.mean).all() and inside.mean() > 0.5
    # what is given at the last sample is there an hour later, in the volume that was recorded
    volume = begun.volume_L * jnp.linspace(1.0, 1.25, begun.n_days)
    larger = dataclasses.replace(begun, volume_L=volume)
    glucose = found.names.index("Glc")
    levels = [
        forecast_ahead(model, larger, [1.0], {"glucose_bolus": g}, n_samples=96).q50[0, glucose]
        for g in (0.0, 1.0)
    ]
    assert levels[1] - levels[0] == pytest.approx(1.0 / float(larger.volume_L[-1]), rel=0.15)
