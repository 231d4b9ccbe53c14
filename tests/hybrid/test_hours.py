"""Hours are hours: steps of any length, one compile for all, and noise that follows them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, DataError
from perfusio_jax.chemistry import from_balanced
from perfusio_jax.hybrid import (
    Belief,
    Disturbance,
    HybridStateSpaceModel,
    draw_paths,
    forecast_run,
    rollout_states,
)
from perfusio_jax.states import Trajectory, intervals_text, sampling_intervals
from perfusio_jax.twin import forecast
from tests.hybrid.cases import HIGH, LOW, START, ToyMechanism

U = jnp.asarray(np.mean([LOW, HIGH], axis=0))
FACE = from_balanced(jnp.asarray(START))
NOISE = np.asarray([0.0] * 8 + [0.5])
"""On the product alone, which acts on nothing."""


def model(dt_hours=24.0):
    """The toy's mechanism with process noise and nothing learned."""
    return HybridStateSpaceModel(ToyMechanism(), None, dt_hours=dt_hours, process_sd=NOISE)


def states(hybrid, dt_h, *, n=400, **more):
    steps = 1 if dt_h is None else len(dt_h)
    paths = draw_paths(hybrid, n, key=jax.random.key(0), max_steps=steps)
    plan = jnp.broadcast_to(U[None], (steps, 6))
    hours = None if dt_h is None else jnp.asarray(dt_h, float)
    return rollout_states(hybrid, paths, jnp.asarray(START), plan, 0.0, dt_h=hours, **more)[0]


def test_two_half_days_are_one_day_and_a_model_of_half_days_forecasts_days():
    day = states(model(), None, n=1, process_noise=False)[0, -1]
    halves = states(model(), [12.0, 12.0], n=1, process_noise=False)[0, -1]
    assert np.allclose(halves, day, rtol=0.01)
    # a step is a day whatever the interval of the samples the model learned from
    other = states(model(12.0), None, n=1, process_noise=False)[0, -1]
    assert np.array_equal(other, day)
    # but for a forecast in steps of the model's own, which is told in hours
    grown = forecast_run(model(12.0), FACE, U, 2, 8, process_noise=False)
    assert grown["hours"].tolist() == [12.0, 24.0] and grown["days"].tolist() == [0.5, 1.0]
    assert float(grown["mean"][1, 0]) == pytest.approx(float(from_balanced(halves)[0]), rel=1e-6)


def test_noise_that_is_white_in_the_rates_spreads_the_same_whatever_the_steps():
    one, four = (states(model(), h)[:, -1, 8] for h in ([24.0], [6.0] * 4))
    assert float(jnp.std(four) / jnp.std(one)) == pytest.approx(1.0, abs=0.15)
    # the same noise told for half a day: rates vary by the root of two more
    same = states(model(12.0), [24.0])[:, -1, 8]
    assert float(jnp.std(one) / jnp.std(same)) == pytest.approx(np.sqrt(2.0), rel=0.05)


def test_other_hours_do_not_compile_again(traces):
    hybrid = model()
    paths = draw_paths(hybrid, 4, key=jax.random.key(0), max_steps=3)
    plan = jnp.broadcast_to(U[None], (3, 6))
    run = eqx.filter_jit(
        traces(lambda h: rollout_states(hybrid, paths, jnp.asarray(START), plan, 0.0, dt_h=h)[0])
    )
    for hours in ([24.0, 24.0, 24.0], [12.0, 24.0, 72.0], [8.0, 8.0, 8.0]):
        assert np.isfinite(run(jnp.asarray(hours))).all()
    assert traces.count == 1


def test_a_disturbance_drifts_by_days_and_white_noise_by_its_interval():
    drift = Disturbance(jnp.asarray(0.8), jnp.ones(9))
    stays, share = drift.over(jnp.asarray([12.0, 24.0, 72.0]), jnp.asarray(24.0))
    assert np.allclose(stays, [np.sqrt(0.8), 0.8, 0.8**3])
    assert np.allclose(share[1], 1.0)
    # two half days take in what a day does
    assert float(share[0] ** 2 * (1.0 + stays[0] ** 2)) == pytest.approx(1.0)
    white = Disturbance(jnp.zeros(()), jnp.ones(9))
    stays, share = white.over(jnp.asarray([12.0, 24.0, 96.0]), jnp.asarray(24.0))
    assert np.allclose(stays, 0.0) and np.allclose(share, [np.sqrt(2.0), 1.0, 0.5])


def test_an_outlook_is_for_the_hours_asked_for_and_has_room_for_assay_noise():
    belief = Belief(jnp.broadcast_to(jnp.asarray(START)[None], (8, 9)), jnp.asarray(64.0 / 24.0))
    held = dict(zip(CONTROL_NAMES, np.asarray(U).tolist(), strict=True))
    more = {"horizon": 2, "seed": 0, "n_paths": 64}
    daily = forecast(model(), belief, held, **more)
    assert np.allclose(np.asarray(daily.days) * 24.0, [88.0, 112.0])
    odd = forecast(model(), belief, held, hours=[24.0, 96.0], **more)
    assert np.allclose(np.asarray(odd.days) * 24.0, [88.0, 160.0])
    each = forecast(model(), belief, held, **{**more, "horizon": 4})
    assert np.array_equal(odd.q50, each.q50[[0, 3]])  # three days are three steps of a day
    wider = (daily.reading_q90 - daily.reading_q10) > (daily.q90 - daily.q10)
    assert wider.mean() > 0.9
    for wrong in ([24.0], [24.0, 24.0], [-1.0, 24.0]):
        with pytest.raises(DataError, match="rise from above 0"):
            forecast(model(), belief, held, hours=wrong, **more)


def test_intervals_are_told_as_they_are():
    def run(times):
        n = len(times)
        blank = np.ones((n, 1))
        days = np.rint(np.asarray(times) / 24.0).astype(int)
        return Trajectory(blank, blank, np.ones(n), days, ["VCD"], ["u"], times_h=times)

    found = sampling_intervals([run([0.0, 12.0, 24.0]), run([0.0, 12.04])])
    assert intervals_text(found) == "every 12 h"
    week = sampling_intervals([run([0.0, 24.0, 48.0, 120.0])])
    assert intervals_text(week) == "24 h apart in the median (24 to 72 h)"
    assert intervals_text(np.zeros(0)) == "single"
