"""Online sensors: fitted gains, exact update, sharper beliefs, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, ConfigError, DataError
from perfusio_jax.chemistry import from_balanced
from perfusio_jax.hybrid import (
    OnlineSensors,
    advance_online,
    fit_sensors,
    initial_belief,
    observe_online,
)
from tests.hybrid.cases import START, simulate

VCV, GLC = FORECAST_SPECIES.index("VCV"), FORECAST_SPECIES.index("Glc")
U = jnp.asarray([1.0, 0.15, 5.0, 37.0, 850.0, 2.0])


def sensors(sd=(0.05, 0.1)):
    gain = np.zeros((2, 12))
    gain[0, VCV], gain[1, GLC] = 2.0, 1.0
    return OnlineSensors(gain, [0.5, 0.0], sd, ("capacitance", "raman_glucose"))


def test_gains_are_found_from_pairs():
    rng = np.random.default_rng(0)
    species = rng.uniform(1.0, 20.0, (60, 12))
    noise = rng.normal(size=(60, 2)) * [0.3, 0.05]
    table = np.column_stack([2.0 * species[:, VCV] + 0.5, species[:, GLC]]) + noise
    table[3, 0] = np.nan
    found, how = fit_sensors(species, table, ("capacitance", "raman"), follows=("VCV", "Glc"))
    # standard error of a slope: sd / (sqrt(n) * spread of x), five of them
    bound = 5 * 0.3 / (np.sqrt(59) * species[:, VCV].std())
    assert abs(float(found.gain[0, VCV]) - 2.0) < bound
    assert np.asarray(how.n_pairs).tolist() == [59, 60]
    assert np.allclose(found.sd, [0.3, 0.05], rtol=5 / np.sqrt(2 * 58))
    assert np.count_nonzero(np.asarray(found.gain)) == 2


def test_a_precise_probe_pins_its_species_and_a_silent_one_changes_nothing(hybrid):
    face = np.asarray(from_balanced(jnp.asarray(START)))
    belief = initial_belief(hybrid, face, key=jax.random.key(0), n_particles=256)
    silent, info = observe_online(hybrid, belief, sensors(), jnp.full(2, jnp.nan))
    assert np.allclose(silent.particles, belief.particles, rtol=1e-6)
    assert float(info.n_observed) == 0.0
    pinned, _ = observe_online(hybrid, belief, sensors((0.05, 0.01)), jnp.asarray([jnp.nan, 5.4]))
    glucose = np.asarray(pinned.particles)[:, 2]
    assert glucose.mean() == pytest.approx(5.4, abs=0.03)
    assert glucose.std() < 0.3 * np.asarray(belief.particles)[:, 2].std()


def test_probes_through_the_day_sharpen_the_belief(hybrid, truth):
    face = np.asarray(from_balanced(jnp.asarray(START)))
    belief = initial_belief(hybrid, face, key=jax.random.key(0), n_particles=128)
    hours = np.array([6.0, 12.0, 18.0, 24.0])
    levels = np.array([float(truth.advance(jnp.asarray(START), U, h)[0][2]) for h in hours])
    readings = np.column_stack([np.full(4, np.nan), levels])
    end, infos = advance_online(
        hybrid, belief, U, hours, readings, sensors=sensors(), key=jax.random.key(1)
    )
    blind, _ = advance_online(
        hybrid,
        belief,
        U,
        hours,
        np.full((4, 2), np.nan),
        sensors=sensors(),
        key=jax.random.key(1),
    )
    assert float(end.day) == pytest.approx(1.0)
    assert [float(i.n_observed) for i in infos] == [1.0] * 4
    _, fed = simulate(truth, U[None, :])
    assert np.isfinite(np.asarray(fed)[1])
    sd_end, sd_blind = float(end.sd[2]), float(blind.sd[2])
    assert sd_end < sd_blind
    assert abs(float(end.mean[2]) - levels[-1]) < 3 * max(sd_end, 0.05)


def test_refusals(hybrid):
    with pytest.raises(ConfigError, match="shapes"):
        OnlineSensors(np.zeros((1, 12)), [0.0], [1.0], ("a", "b"))
    with pytest.raises(ConfigError, match="follow"):
        fit_sensors(np.ones((4, 12)), np.ones((4, 1)), ("a",), follows=("VCX",))
    with pytest.raises(DataError, match="three"):
        fit_sensors(np.ones((4, 12)), np.ones((4, 1)), ("a",), follows=("VCV",))
    face = np.asarray(from_balanced(jnp.asarray(START)))
    belief = initial_belief(hybrid, face, key=jax.random.key(0), n_particles=32)
    for hours, table in (([2.0, 1.0], np.ones((2, 2))), ([1.0], np.ones((1, 3)))):
        with pytest.raises(DataError):
            advance_online(
                hybrid, belief, U, hours, table, sensors=sensors(), key=jax.random.key(0)
            )
