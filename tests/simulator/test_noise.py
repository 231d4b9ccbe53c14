import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import STATE_ORDER, ConfigError
from perfusio_jax.chemistry import DEFAULT_CV, cell_volume_fraction, dead_cells
from perfusio_jax.simulator import (
    NoiseModel,
    apply_noise,
    default_cvs,
    jitter_times,
    viability_sd,
)

FACE = jnp.array([20.0, 95.0, 5.0, 2.0, 1.0, 10.0, 3.0, 0.5, 700.0])
VIA = STATE_ORDER.index("Via")
NOISE = jax.jit(apply_noise, static_argnames="via_index")
KEY = jax.random.key(0)
STATE = {
    "VCD": 20.0,
    "VCV": 9.1,
    "Via": 96.0,
    "Diam": 20.6,
    "Glc": 5.0,
    "Titer": 700.0,
    "DCD": 20 * 4 / 96,
}
FULL = NoiseModel(missing_prob=0.0)


# -- the pure function --------------------------------------------------------------------


def test_mean_and_spread_of_readings():
    """n = 40000: the mean is known to cv / 200, the spread to about 1 / 280 of itself."""
    n = 40_000
    readings = NOISE(jnp.tile(FACE, (n, 1)), jnp.array(DEFAULT_CV), 0.0, key=KEY, via_index=VIA)
    cv = np.array(DEFAULT_CV)
    sd = cv * np.asarray(FACE)
    sd[VIA] = viability_sd(95.0)
    assert np.all(np.abs(readings.mean(axis=0) - FACE) < 5 * sd / np.sqrt(n))
    assert np.allclose(readings.std(axis=0), sd, rtol=0.03)
    correlation = np.corrcoef(np.asarray(readings).T)
    assert np.abs(correlation - np.eye(9)).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("via", [50.0, 90.0, 99.0, 99.99])
def test_viability_stays_a_percentage_around_the_truth(via):
    n = 20_000
    x = NOISE(jnp.full((n, 1), via), jnp.array([0.02]), 0.0, key=KEY, via_index=0)
    sd = float(viability_sd(via))
    assert x.min() >= 0.0 and x.max() <= 100.0
    assert abs(x.mean() - via) < 5 * sd / np.sqrt(n)
    assert np.isclose(x.std(), sd, rtol=0.05 if via < 99.5 else 0.5)


def test_viability_cv_is_the_stated_one_at_ninety_percent():
    assert np.isclose(viability_sd(90.0, 0.02), 1.8, rtol=1e-12)
    assert viability_sd(100.0) == viability_sd(0.0) == 0.0
    for exact in (0.0, 100.0):
        x = NOISE(jnp.full((4, 1), exact), jnp.array([0.02]), 0.0, key=KEY, via_index=0)
        assert jnp.all(x == exact)


@given(st.integers(0, 2**31 - 1), st.floats(0.0, 1.0), st.floats(0.0, 3.0))
def test_readings_are_never_negative(seed, share, cv):
    values = FACE * jnp.where(jnp.arange(9) % 2 == 0, share, 0.0)
    x = NOISE(values, jnp.full(9, cv), 0.0, key=jax.random.key(seed))
    assert bool(jnp.all(x >= 0.0)) and bool(jnp.all(x[1::2] == 0.0))


def test_zero_cv_reads_exactly_and_an_undershoot_reads_zero():
    x = NOISE(FACE, jnp.zeros(9), 0.0, key=KEY, via_index=VIA)
    assert jnp.allclose(x, FACE, rtol=1e-14)
    assert NOISE(FACE.at[2].set(-1e-9), jnp.zeros(9), 0.0, key=KEY)[2] == 0.0


def test_share_of_missing_readings():
    n = 20_000
    x = NOISE(jnp.tile(FACE, (n, 1)), jnp.array(DEFAULT_CV), 0.05, key=KEY, via_index=VIA)
    share = np.isnan(x).mean(axis=0)
    assert np.all(np.abs(share - 0.05) < 5 * np.sqrt(0.05 * 0.95 / n))
    assert jnp.all(jnp.isnan(NOISE(FACE, jnp.zeros(9), 1.0, key=KEY)))


@pytest.mark.parametrize("column", [0, VIA])
def test_missing_input_stays_missing_alone(column):
    x = NOISE(FACE.at[column].set(jnp.nan), jnp.array(DEFAULT_CV), 0.0, key=KEY, via_index=VIA)
    assert jnp.array_equal(jnp.isnan(x), jnp.arange(9) == column)


def test_transforms():
    eager = apply_noise(FACE, jnp.array(DEFAULT_CV), 0.1, key=KEY, via_index=VIA)
    jitted = NOISE(FACE, jnp.array(DEFAULT_CV), 0.1, key=KEY, via_index=VIA)
    assert jnp.allclose(eager, jitted, rtol=1e-12, equal_nan=True)
    keys = jax.random.split(KEY, 3)

    def one(key):
        return apply_noise(FACE, jnp.array(DEFAULT_CV), 0.1, key=key, via_index=VIA)

    looped = jnp.stack([jax.jit(one)(key) for key in keys])
    assert jnp.allclose(jax.jit(jax.vmap(one))(keys), looped, rtol=1e-12, equal_nan=True)


def test_gradient_is_the_drawn_factor():
    def read(x):
        return apply_noise(x, jnp.array(DEFAULT_CV), 0.0, key=KEY, via_index=None)

    slope = jnp.diag(jax.jit(jax.jacrev(read))(FACE))
    assert jnp.allclose(slope, read(FACE) / FACE, rtol=1e-12)


def test_strict_types(strict_dtypes):
    single = FACE.astype(jnp.float32)
    x = apply_noise(single, jnp.array(DEFAULT_CV, jnp.float32), 0.05, key=KEY, via_index=VIA)
    assert x.dtype == jnp.float32


def test_jitter_is_uniform_within_its_half_width():
    times = jnp.arange(20_000.0)
    moved = jax.jit(jitter_times)(times, 1.5, key=KEY) - times
    assert jnp.all(jnp.abs(moved) <= 1.5 + 1e-9)
    assert abs(moved.mean()) < 5 * 1.5 / np.sqrt(3 * 20_000)
    assert np.isclose(moved.std(), 1.5 / np.sqrt(3), rtol=0.03)


# -- NoiseModel ---------------------------------------------------------------------------


def test_default_cvs():
    cvs = default_cvs()
    assert (cvs["VCD"], cvs["Via"], cvs["Titer"], cvs["Diam"]) == (0.05, 0.02, 0.08, 0.01)
    assert all(cvs[m] == 0.07 for m in ("Glc", "Gln", "Glu", "Lac", "Amm", "Pyr"))
    assert NoiseModel().cv_array(["VCD", "pH"]).tolist() == [0.05, 0.07]


def test_seed_and_day_decide_the_sample():
    a, b = NoiseModel(seed=1), NoiseModel(seed=1)
    assert a.apply(STATE, 3) == a.apply(STATE, 3) == b.apply(STATE, 3)
    assert FULL.apply(STATE, 3) != FULL.apply(STATE, 4)
    assert FULL.apply(STATE, 3) != dataclasses.replace(FULL, seed=7).apply(STATE, 3)
    assert a.time_jitter(2) == b.time_jitter(2) != a.time_jitter(3)
    assert all(abs(dataclasses.replace(a, jitter_hours=0.5).time_jitter(d)) < 0.5 for d in range(9))


def test_a_reading_does_not_depend_on_the_others():
    few = FULL.apply({"Glc": 5.0, "extra": 2.0}, 5)
    many = FULL.apply({**STATE, "extra": 2.0}, 5)
    assert few["Glc"] == many["Glc"] and few["extra"] == many["extra"] != 2.0
    assert list(many) == [*STATE, "extra"]


def test_derived_readings_follow_the_noisy_ones():
    x = FULL.apply(STATE, 4)
    assert np.isclose(x["VCV"], cell_volume_fraction(x["VCD"], x["Diam"]), rtol=1e-12)
    assert np.isclose(x["DCD"], dead_cells(x["VCD"], x["Via"]), rtol=1e-12)
    alone = FULL.apply({"VCV": 9.1, "DCD": 1.0}, 4)
    assert alone["VCV"] != 9.1 and alone["DCD"] != 1.0


def test_a_lost_reading_is_none_and_takes_the_derived_along():
    lossy = NoiseModel(missing_prob=0.3)
    samples = [lossy.apply(STATE, day) for day in range(30)]
    for x in samples:
        assert (x["VCV"] is None) == (x["VCD"] is None or x["Diam"] is None)
        assert (x["DCD"] is None) == (x["VCD"] is None or x["Via"] is None)
    lost = sum(x["Glc"] is None for x in samples)
    assert 1 <= lost <= 20  # binomial(30, 0.3): outside with probability below 1e-4
    assert FULL.apply({"Glc": float("nan")}, 0) == {"Glc": None}
    assert set(NoiseModel(missing_prob=1.0).apply(STATE, 1).values()) == {None}


def test_array_face_of_the_model():
    x = FULL.observe(FACE, STATE_ORDER, key=KEY)
    assert jnp.allclose(x, NOISE(FACE, jnp.array(DEFAULT_CV), 0.0, key=KEY, via_index=VIA))
    assert FULL.observe(FACE[2:3], ["Glc"], key=KEY).shape == (1,)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cv_by_species": {"Glc": -0.1}}, "CV of 'Glc'"),
        ({"default_cv": float("nan")}, "CV of 'default_cv'"),
        ({"cv_by_species": {"Via": 0.5}}, "a fraction allows less than 0.333"),
        ({"missing_prob": 1.2}, "missing_prob=1.2"),
        ({"jitter_hours": -1.0}, "jitter_hours=-1.0"),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        NoiseModel(**kwargs)
