"""Two strains under light: what nobody measures is carried, and forecasts are nearer for it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.hybrid import HybridConfig, fit_hybrid, forecast_unseen, skill, stack_runs
from perfusio_jax.mechanistic import ConsortiumKinetics
from perfusio_jax.process import CONSORTIUM
from perfusio_jax.simulator import simulate_runs, virtual_plant

POOL = {"lysine": 280.0, "leucine": 29.0}
"""Amino acids in the cells of an inoculum from full light [mmol/L of cell]."""
HOURS, AHEAD = 12, 6


def culture():
    quantities = tuple(
        q.model_copy(update={"start": POOL[q.name]}) if q.name in POOL else q
        for q in CONSORTIUM.quantities
    )
    return CONSORTIUM.model_copy(update={"quantities": quantities})


def made(n, seed, *, noise=True):
    """Runs under lights that change every three hours, sampled every hour."""
    rng = np.random.default_rng(seed)
    u = np.full((n, HOURS, 3), 0.15)
    for k, (low, high) in enumerate(((0.005, 3.0), (0.15, 3.0))):
        levels = np.exp(rng.uniform(np.log(low), np.log(high), (n, HOURS // 3)))
        u[:, :, k] = np.repeat(levels, 3, axis=1)
    starts = np.tile([20.0, 0.5, 0.5, POOL["lysine"], POOL["leucine"]], (n, 1))
    starts[:, 1:3] *= np.exp(rng.uniform(-1.5, 1.5, (n, 2)))
    plant = virtual_plant(culture(), ConsortiumKinetics())
    hours = np.arange(HOURS + 1.0)
    return simulate_runs(plant, starts, u, hours, key=jax.random.key(seed), noise=noise)


@pytest.fixture(scope="module")
def model():
    usual = ConsortiumKinetics()
    told = eqx.tree_at(
        lambda m: (m.max_growth, m.synthesis),
        usual,
        (0.8 * usual.max_growth, 1.3 * usual.synthesis),
    )
    config = HybridConfig(n_particles=32, rounds=0)
    runs = made(5, 1)
    return fit_hybrid(
        runs, process=culture(), mech_model=told, key=jax.random.key(0), config=config
    )[0]


def test_what_nobody_measures_begins_where_the_process_says(model):
    begun = np.asarray(model.latent.inverse(model.initial.mean))
    place = [model.layout.states.index(name) for name in POOL]
    # moved by what the smoother makes of all samples, but no farther than by a factor of three
    assert np.all(np.abs(np.log(begun[place] / np.asarray(list(POOL.values())))) < np.log(3.0))
    assert [model.layout.states[k] for k in model.layout.latent] == list(POOL)


def test_six_hours_ahead_are_nearer_than_if_nothing_changed(model):
    noisy, clean = made(4, 2), made(4, 2, noise=False)
    names = model.layout.forecast
    read, true = (np.stack([t.host_readings(names) for t in runs]) for runs in (noisy, clean))
    found = forecast_unseen(
        model,
        stack_runs(noisy, layout=model.layout),
        jnp.asarray(read),
        key=jax.random.key(1),
        starts=(0, 3, 6),
        horizon=AHEAD,
        n_paths=48,
        step_h=1.0,
    )
    last = read[:, [0, 3, 6]][..., :3]
    there = true[:, [6, 9, 12]][..., :3]
    still = np.sqrt(np.mean((last - there) ** 2, axis=(0, 1))) / np.std(true[..., :3], axis=(0, 1))
    error = skill(found, read, true).rrmse[AHEAD - 1, :3]
    # glucose runs out within hours; which strain gets how much of it is the harder part
    assert error[0] < 0.6 * still[0], (error, still)
    assert np.mean(error[1:]) < 0.8 * np.mean(still[1:]), (error, still)
