"""A model of a culture whose pumps answer to what is in the vessel: learned, and forecast."""

import dataclasses

import jax
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.hybrid import HybridConfig, fit_hybrid, forecast_over
from perfusio_jax.simulator import simulate_runs, virtual_plant
from perfusio_jax.states import Trajectory
from tests.process.test_laws import BLED, FILLING, Growing

TARGETS = (8.0, 12.0, 16.0, 20.0)


@pytest.fixture(scope="module")
def runs():
    plant = virtual_plant(BLED, Growing())
    controls = np.tile(np.asarray([[2.0, t] for t in TARGETS])[:, None, :], (1, 8, 1))
    starts = np.tile([6.0, 6.0, 0.1], (len(TARGETS), 1))
    return simulate_runs(plant, starts, controls, 24.0 * np.arange(9), key=jax.random.key(0))


def test_a_bleed_that_holds_the_cells_is_learned_with_and_holds_them_in_a_forecast(runs):
    config = HybridConfig(use_gp=False, n_particles=32)
    model, _ = fit_hybrid(
        runs, process=BLED, mech_model=Growing(), key=jax.random.key(0), config=config
    )
    for target in (10.0, 18.0):
        ahead = forecast_over(
            [model], runs[1], [72.0, 96.0], {"density": target}, n_samples=64, seed=0
        )
        cells = ahead.q50[:, ahead.names.index("X")]
        # what grows at 0.03 1/h settles that over the gain above the target
        np.testing.assert_allclose(cells, target * (1.0 + 0.03 / 0.5), rtol=0.1)


def filling(noise=True):
    plant = virtual_plant(FILLING, Growing())
    controls = np.tile(np.asarray([[t, 0.02] for t in (3.0, 6.0, 9.0)])[:, None, :], (1, 10, 1))
    starts = np.tile([6.0, 4.0, 0.1], (3, 1))
    hours = 12.0 * np.arange(11)
    return simulate_runs(plant, starts, controls, hours, key=jax.random.key(1), noise=noise)


def test_a_feed_that_holds_the_sugar_of_a_vessel_that_fills():
    """Every path has a volume of its own: forecasts meet the plant's, which nobody was told."""
    runs = filling()
    config = HybridConfig(use_gp=False, n_particles=32)
    model, _ = fit_hybrid(
        runs, process=FILLING, mech_model=Growing(), key=jax.random.key(0), config=config
    )
    true_runs = filling(noise=False)
    begun = [  # without noise: a start that was read wrong says nothing about volumes
        Trajectory(
            r.species[:3], r.controls[:3], r.volume_L[:3], r.days[:3], r.species_names,
            r.control_names, times_h=r.times_h[:3],
        )
        for r in true_runs
    ]  # fmt: skip
    for run, whole in zip(begun, true_runs, strict=True):
        ahead = forecast_over([model], run, [36.0, 60.0], {}, n_samples=64, seed=0)
        for name, slack in (("X", 0.1), ("S", 0.03)):
            true = np.asarray(whole.get_species(name))[[5, 7]]
            found = ahead.q50[:, ahead.names.index(name)]
            np.testing.assert_allclose(found, true, rtol=slack)


def test_a_volume_that_pumps_move_has_to_be_recorded():
    (run, *_) = filling()
    still = dataclasses.replace(run, volume_L=np.full(run.n_days, 0.5))  # as if none had been
    with pytest.raises(DataError, match="how much sugar of filling lets flow answers to what"):
        fit_hybrid([still, still], process=FILLING, mech_model=Growing(), key=jax.random.key(0))
