"""Online sensors: fitted gains, exact update, sharper beliefs, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, ConfigError, DataError
from perfusio_jax.chemistry import from_balanced
from perfusio_jax.hybrid import (
    Belief,
    HybridStateSpaceModel,
    OnlineSensors,
    advance_online,
    filter_step,
    fit_sensors,
    initial_belief,
    observe_online,
)
from tests.hybrid.cases import START, ToyMechanism, simulate

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


@pytest.fixture(scope="module")
def open_question():
    """A model without a process that knows neither its function nor its day well."""
    bare = HybridStateSpaceModel(ToyMechanism(), None, process_sd=np.full(9, 0.01))
    return eqx.tree_at(lambda m: m.function_sd, bare, jnp.full(9, 0.03).at[8].set(0.3))


def carried(model, belief, hours, key, calls=1):
    """Belief after empty readings at some hours, in one call or in several."""
    before = 0.0
    for part in np.array_split(np.asarray(hours, float), calls):
        silent = np.full((part.size, 2), np.nan)
        key, now = jax.random.split(key)
        belief, _ = advance_online(
            model, belief, U, part - before, silent, sensors=sensors(), key=now
        )
        before = part[-1]
    return belief


@pytest.mark.parametrize("end", [24.0, 8.0])
def test_silent_readings_do_not_make_a_belief_surer(open_question, end):
    n = 4000
    start = initial_belief(open_question, key=jax.random.key(0), n_particles=n)
    start = Belief(jnp.broadcast_to(jnp.asarray(START)[None, :], (n, 9)), start.day)
    once = carried(open_question, start, [end], jax.random.key(1))
    often = carried(open_question, start, np.linspace(0, end, 25)[1:], jax.random.key(2))
    calls = carried(open_question, start, np.linspace(0, end, 25)[1:], jax.random.key(3), calls=6)
    assert float(once.day) == pytest.approx(end / 24)
    for other in (often, calls):
        assert float(other.day) == pytest.approx(end / 24)
        # five standard errors of a mean, and of a ratio of two spreads: 5 sqrt(2 / (2 n))
        gap = np.abs(np.asarray(other.mean - once.mean))
        assert np.all(gap < 5 * np.sqrt(2 / n) * np.asarray(once.sd))
        assert np.all(np.abs(np.asarray(other.sd / once.sd) - 1) < 5 / np.sqrt(n))
    if end == 24.0:  # and a whole interval is the filter's own
        nothing = jnp.full(9, jnp.nan)
        key = jax.random.key(4)
        step, _ = filter_step(open_question, start, U, None, nothing, end, key=key)
        assert np.all(np.abs(np.asarray(once.sd / step.sd) - 1) < 5 / np.sqrt(n))
        # the sample at its end closes an interval that was opened at a third of it
        part = carried(open_question, start, np.arange(1.0, 9.0), jax.random.key(5))
        rest, _ = filter_step(open_question, part, U, None, nothing, 16.0, key=key)
        assert rest.interval is None and float(rest.day) == pytest.approx(1.0)
        assert np.all(np.abs(np.asarray(rest.sd / step.sd) - 1) < 5 / np.sqrt(n))


def test_the_first_readings_are_the_same_whatever_comes_after(open_question):
    start = initial_belief(open_question, key=jax.random.key(0), n_particles=64)
    short = carried(open_question, start, [1.0, 2.0], jax.random.key(1))
    table = np.full((3, 2), np.nan)
    table[2] = 1.0
    hours, key = np.array([1.0, 2.0, 3.0]), jax.random.split(jax.random.key(1))[1]
    _, infos = advance_online(open_question, start, U, hours, table, sensors=sensors(), key=key)
    _, first = advance_online(
        open_question, start, U, hours[:2], table[:2], sensors=sensors(), key=key
    )
    assert np.array_equal(infos[1].innovation_sd, first[1].innovation_sd)
    again = carried(open_question, start, [1.0, 2.0], jax.random.key(1))
    assert np.array_equal(short.particles, again.particles)


def test_new_set_points_open_an_interval_with_the_same_function(open_question):
    start = initial_belief(open_question, key=jax.random.key(0), n_particles=64)
    part = carried(open_question, start, [6.0], jax.random.key(1))
    silent = np.full((1, 2), np.nan)
    key = jax.random.key(2)
    other, _ = advance_online(
        open_question, part, U.at[1].set(0.3), [6.0], silent, sensors=sensors(), key=key
    )
    assert float(other.interval.day) == pytest.approx(0.25)
    assert np.allclose(other.interval.function, part.interval.function, atol=1e-6)
    assert float(other.day) == pytest.approx(0.5)
    same, _ = advance_online(open_question, part, U, [], np.zeros((0, 2)), sensors=sensors(),
                             key=key)  # fmt: skip
    assert same is part


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
