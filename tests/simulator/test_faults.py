import jax
import jax.numpy as jnp
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.simulator import Drift, Spike, StuckSensor, SwappedReactors, apply_faults

RUN = jnp.arange(1.0, 13.0).reshape(6, 2)
RACK = jnp.stack([RUN, 10 * RUN, 100 * RUN])


def changed(fault, readings):
    return jnp.argwhere(fault(readings) != readings).tolist()


def test_drift_grows_from_its_start_in_one_column():
    x = Drift(1, 0.1, start=2, stop=5)(RUN)
    assert jnp.allclose(x[:, 1] / RUN[:, 1], jnp.array([1, 1, 1.1, 1.2, 1.3, 1]))
    assert jnp.array_equal(x[:, 0], RUN[:, 0])
    offset = Drift(0, -0.5, is_relative=False)(RUN)
    assert jnp.allclose(offset[:, 0] - RUN[:, 0], -0.5 * jnp.arange(1, 7))


def test_stuck_sensor_repeats_its_reading():
    x = StuckSensor(0, 1, stop=4)(RUN)
    assert x[:, 0].tolist() == [1.0, 3.0, 3.0, 3.0, 9.0, 11.0]
    assert jnp.array_equal(x[:, 1], RUN[:, 1])


def test_stuck_sensor_with_missing_readings():
    gaps = RUN.at[2, 0].set(jnp.nan).at[4, 0].set(jnp.nan)
    assert StuckSensor(0, 2)(gaps)[:, 0].tolist() == [1.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    never = RUN.at[:2, 0].set(jnp.nan)
    assert jnp.all(jnp.isnan(StuckSensor(0, 1)(never)[:, 0]))


def test_spike_hits_one_reading():
    assert changed(Spike(1, 3, 4.0), RUN) == [[3, 1]]
    assert Spike(1, 3, 4.0)(RUN)[3, 1] == 4 * RUN[3, 1]


def test_swap_exchanges_whole_rows():
    x = SwappedReactors(0, 2, start=1, stop=3)(RACK)
    assert jnp.array_equal(x[0, 1:3], RACK[2, 1:3]) and jnp.array_equal(x[2, 1:3], RACK[0, 1:3])
    assert jnp.array_equal(x[:, 3:], RACK[:, 3:]) and jnp.array_equal(x[1], RACK[1])
    assert jnp.array_equal(SwappedReactors(0, 2)(SwappedReactors(0, 2)(RACK)), RACK)


@pytest.mark.parametrize("make", [
    lambda r: Drift(1, 0.1, reactor=r), lambda r: StuckSensor(1, 0, reactor=r),
    lambda r: Spike(1, 2, reactor=r),
])  # fmt: skip
def test_faults_of_a_rack(make):
    alone, everywhere = make(1)(RACK), make(None)(RACK)
    assert jnp.array_equal(alone[0], RACK[0]) and jnp.array_equal(alone[2], RACK[2])
    assert jnp.array_equal(alone[1], make(None)(RACK[1]))
    assert jnp.allclose(everywhere, jnp.stack([make(None)(r) for r in RACK]))
    assert jnp.allclose(jax.jit(jax.vmap(make(None)))(RACK), everywhere)


def test_missing_stays_missing_and_faults_compose_in_order():
    gaps = RUN.at[3, 1].set(jnp.nan)
    assert jnp.isnan(Spike(1, 3)(gaps)[3, 1]) and jnp.isnan(Drift(1, 0.1)(gaps)[3, 1])
    spike, stuck = Spike(0, 1, 5.0), StuckSensor(0, 1)
    assert apply_faults(RUN, [spike, stuck])[5, 0] == 15.0
    assert apply_faults(RUN, [stuck, spike])[5, 0] == 3.0
    assert jnp.array_equal(apply_faults(RUN, []), RUN)


def test_sizes_of_faults_are_traced(traces):
    f = jax.jit(traces(lambda fault, x: fault(x)))
    for rate in (0.1, 0.2):
        assert jnp.isclose(f(Drift(0, rate), RUN)[0, 0], 1 + rate)
    assert traces.count == 1
    slope = jax.grad(lambda r: Drift(0, r)(RUN).sum())(0.1)
    assert jnp.isclose(slope, jnp.sum(RUN[:, 0] * jnp.arange(1, 7)))


@pytest.mark.parametrize(
    ("fault", "readings", "message"),
    [
        (Spike(2, 0), RUN, r"column=2 is outside 0\.\.1"),
        (Spike(0, 6), RUN, r"start=6 is outside 0\.\.5"),
        (Spike(0, 0, reactor=0), RUN, "of one reactor"),
        (Spike(0, 0, reactor=3), RACK, r"reactor=3 is outside 0\.\.2"),
        (Spike(0, 0), RUN[0], r"\(T, K\) or \(R, T, K\)"),
        (Drift(0, 0.1, start=3, stop=3), RUN, "must come after"),
        (SwappedReactors(0, 1), RUN, "needs a rack"),
        (SwappedReactors(0, 3), RACK, "second=3"),
        (SwappedReactors(1, 1), RACK, "two reactors"),
        (SwappedReactors(0, 1, start=9), RACK, "start=9"),
    ],
)
def test_refusals(fault, readings, message):
    with pytest.raises(ConfigError, match=message):
        apply_faults(readings, [fault])
