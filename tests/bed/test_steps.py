"""Roll-outs in steps that are no days: the horizon stays a number of days."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, ConfigError
from perfusio_jax._core.instants import as_day, day_number
from perfusio_jax.bed import (
    BEDPolicy,
    FinalValue,
    MultiObjectiveOFV,
    ProcessOFV,
    TargetSpec,
    TargetTrackingOFV,
    TrackingError,
)
from perfusio_jax.bed.goal.steps import step_hours
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE as SPACE

TITER = FORECAST_SPECIES.index("Titer")


@pytest.mark.parametrize(
    ("step_h", "wanted"),
    [
        (24.0, [24.0] * 3),
        (12.0, [12.0] * 6),
        (8.0, [8.0] * 9),
        (48.0, [48.0, 24.0]),
        (36.0, [36.0, 36.0]),
        (96.0, [72.0]),
        (1.5, [1.5] * 48),
    ],
)
def test_steps_fill_the_horizon(step_h, wanted):
    assert step_hours(3, step_h).tolist() == wanted


def test_the_same_path_is_worth_the_same_whatever_the_steps():
    specs = [TargetSpec(0, 4.0, 2.0), TargetSpec(TITER, [7.0, 8.0, 9.0])]
    daily = jnp.asarray(np.random.default_rng(0).random((5, 3, 12)) * 10)
    by_day = TargetTrackingOFV(specs)
    for step_h in (12.0, 8.0, 1.5):
        ofv = TargetTrackingOFV(specs, step_h=step_h)
        often = jnp.repeat(daily, round(24 / step_h), axis=1)  # as on the day, all day long
        assert ofv.n_steps == often.shape[1]
        np.testing.assert_allclose(ofv.scaled_score(often), by_day.scaled_score(daily), rtol=1e-12)
        parts = ofv.parts(often, jnp.zeros(6))
        np.testing.assert_allclose(parts, by_day.parts(daily, jnp.zeros(6)), rtol=1e-12)
    constant = jnp.full((2, 12), 3.0)
    longer = TargetTrackingOFV([TargetSpec(0, 4.0)], step_h=48.0)
    np.testing.assert_allclose(longer.score_trajectories(constant), -3.0)


def test_a_target_of_a_day_stays_with_its_day():
    ofv = TargetTrackingOFV([TargetSpec(1, [1.0, 2.0, 5.0])], step_h=12.0)
    Y = jnp.zeros((6, 12)).at[:, 1].set(jnp.asarray([1.0, 1.0, 2.0, 2.0, 5.0, 4.0]))
    np.testing.assert_allclose(ofv.score_trajectories(Y), -0.5)
    slow = TargetTrackingOFV([TargetSpec(1, [1.0, 2.0, 5.0])], step_h=48.0)
    Y = jnp.zeros((2, 12)).at[:, 1].set(jnp.asarray([2.0, 5.0]))  # at the ends of days 2 and 3
    np.testing.assert_allclose(slow.score_trajectories(Y), 0.0)
    with pytest.raises(ConfigError, match="target of VCV has 6 values.*3 days"):
        TargetTrackingOFV([TargetSpec(1, np.ones(6))], step_h=12.0)


def test_means_are_means_over_time():
    ofv = MultiObjectiveOFV(None, [(0, 0.0, 1)], step_h=48.0)
    Y = jnp.zeros((2, 12)).at[:, 0].set(jnp.asarray([3.0, 9.0]))
    np.testing.assert_allclose(ofv.score_trajectories(Y), [5.0])


def test_criteria_count_by_days_whatever_the_steps():
    criteria = [FinalValue("Titer", last_days=2), TrackingError("VCD", [1.0, 2.0, 3.0])]
    Y = jnp.asarray(np.random.default_rng(1).random((4, 6, 12)))
    often, daily = ProcessOFV(criteria, step_h=12.0), ProcessOFV(criteria)
    assert often.n_steps == 6
    u = jnp.ones(6)
    np.testing.assert_array_equal(often.values(Y, u), daily.values(Y[:, 1::2], u))
    with pytest.raises(ConfigError, match="step_h=48 h was given; criteria count by days"):
        ProcessOFV(criteria, step_h=48.0)


@pytest.mark.parametrize("step_h", [0.0, -1.0, np.nan, np.inf])
def test_a_step_has_a_length(step_h):
    with pytest.raises(ConfigError, match="step_h"):
        TargetTrackingOFV([TargetSpec(1, 1.0)], step_h=step_h)


def test_daily_steps_are_the_program_of_before():
    Y = jnp.ones((5, 3, 12))

    def program(ofv):
        return str(jax.make_jaxpr(ofv.scaled_score)(Y))

    spec = TargetSpec(1, [1.0, 2.0, 3.0])
    assert program(TargetTrackingOFV([spec])) == program(TargetTrackingOFV([spec], step_h=24.0))
    y = jnp.sum((Y[..., 1] - spec.target[None, :]) ** 2, axis=-1) / spec.scale**2
    np.testing.assert_array_equal(TargetTrackingOFV([spec]).scaled_score(Y), -y)


def test_days_are_whole_where_they_are_and_draw_numbers_of_their_own():
    assert [type(as_day(d)) for d in (0.0, 2.0, 0.5)] == [int, int, float]
    days = [k / 48 for k in range(48 * 20)]
    assert [day_number(float(d)) for d in range(30)] == list(range(30))
    assert len({day_number(d) for d in days}) == len(days)


def test_a_policy_rolls_out_and_decides_between_the_days(linear):
    asked = []

    def rollout(model, paths, c0, controls, day0, dt_h=None):
        asked.append((controls.shape[0], None if dt_h is None else dt_h.shape))
        return linear.rollout(model, paths, c0, controls, day0)

    def policy(**more):
        return BEDPolicy(
            linear.make_model(),
            SPACE,
            targets=[TargetSpec(linear.vcv, 14.0)],
            n_paths=8,
            rollout_functions=(linear.draw_paths, rollout),
            **more,
        )

    now = {n: 0.5 * (b.lo + b.hi) for n, b in SPACE.control_bounds.items()}
    made = [policy(step_h=12.0).decide(_face(), day, u_now=now) for day in (0.5, 1.0, 1.5)]
    assert set(asked) == {(6, (6,))}
    assert [d.day for d in made] == [0.5, 1, 1.5] and type(made[1].day) is int
    assert len(made[0].forecast_mean["VCV"]) == 6
    assert made[0].explanation["forecast_hours"] == [12.0, 24.0, 36.0, 48.0, 60.0, 72.0]
    assert len({d.acqf_value for d in made}) == 3  # draws of their own
    asked.clear()
    daily = policy().decide(_face(), 1, u_now=now)
    assert set(asked) == {(3, None)} and "forecast_hours" not in daily.explanation
    assert policy(step_h=12.0).with_space(SPACE).ofv.step_h == 12.0
    with pytest.raises(ConfigError, match="no argument dt_h"):
        BEDPolicy(
            linear.make_model(),
            SPACE,
            targets=[TargetSpec(linear.vcv, 14.0)],
            rollout_functions=(linear.draw_paths, linear.rollout),
            step_h=12.0,
        )
    with pytest.raises(ConfigError, match=r"step_h=12 .* steps of 24 h"):
        policy(ofv=TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)]), step_h=12.0)


def _face():
    return jnp.asarray([20.0, 97.0, 5.0, 2.0, 1.0, 20.0, 3.0, 1.0, 300.0])
