"""Roll-outs in steps that are no days: the horizon stays a number of days."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, ConfigError
from perfusio_jax._core.instants import as_day, day_number
from perfusio_jax.bed import (
    ROLLOUT_SETTINGS,
    BEDPolicy,
    CampaignSettings,
    FinalValue,
    MultiObjectiveOFV,
    ProcessOFV,
    ReactorNow,
    RolloutSurrogate,
    TargetSpec,
    TargetTrackingOFV,
    TrackingError,
    control_limits,
    propose_runs,
)
from perfusio_jax.bed.goal.steps import closed, step_hours
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
        policy(ofv=TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)], step_h=24.0), step_h=12.0)


def _face():
    return jnp.asarray([20.0, 97.0, 5.0, 2.0, 1.0, 20.0, 3.0, 1.0, 300.0])


# ------------------------------------------------------------ objectives made without a model


class HalfDays(eqx.Module):
    """A model that learned from samples 12 h apart."""

    linear: Any
    dt_hours: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(12.0))


def _half_days(linear):
    asked = []

    def draw_paths(model, n, *, key, **more):
        return linear.draw_paths(model.linear, n, key=key, **more)

    def rollout(model, paths, c0, controls, day0, dt_h=None):
        asked.append((controls.shape[0], None if dt_h is None else dt_h.shape))
        return linear.rollout(model.linear, paths, c0, controls, day0)

    return HalfDays(linear.make_model()), (draw_paths, rollout), asked


GOALS = [
    lambda v: TargetTrackingOFV([TargetSpec(v, 14.0)]),
    lambda v: ProcessOFV([TrackingError("VCV", 14.0)]),
]


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("is_known", [True, False])
def test_an_objective_made_without_a_model_takes_the_step_of_the_one_it_meets(
    linear, goal, is_known
):
    """Steps of 24 h of a model of half days were another mean, and nobody said so."""
    model, functions, asked = _half_days(linear)
    policy = BEDPolicy(
        model if is_known else None,
        SPACE,
        ofv=goal(linear.vcv),
        n_paths=8,
        rollout_functions=functions,
        settings=ROLLOUT_SETTINGS._replace(n_restarts=1, n_raw_samples=8),
    )
    assert policy.ofv.step_h == (12.0 if is_known else None)
    now = {n: 0.5 * (b.lo + b.hi) for n, b in SPACE.control_bounds.items()}
    made = policy.decide(_face(), 1, None if is_known else _surrogate(linear, model, functions))
    assert set(asked) == {(6, (6,))}
    assert made.explanation["forecast_hours"] == [12.0, 24.0, 36.0, 48.0, 60.0, 72.0]
    asked.clear()
    vessel = ReactorNow(_face(), 1, now, model=None if is_known else model)
    (made,) = policy.decide_rack([vessel])
    assert set(asked) <= {(6, (6,))} and len(made.forecast_mean["VCV"]) == 6


@pytest.mark.parametrize("is_known", [True, False])
def test_vessels_that_share_drawn_functions_share_a_step(linear, is_known):
    """The second vessel's model of half days took steps of 24 h, those of the first one's model."""
    half, functions, asked = _half_days(linear)
    daily = HalfDays(half.linear, jnp.asarray(24.0))
    policy = BEDPolicy(
        daily if is_known else None,
        SPACE,
        ofv=GOALS[0](linear.vcv),
        n_paths=8,
        rollout_functions=functions,
        settings=ROLLOUT_SETTINGS._replace(n_restarts=1, n_raw_samples=8),
    )
    now = {n: 0.5 * (b.lo + b.hi) for n, b in SPACE.control_bounds.items()}

    def vessel(model, name=None):
        return ReactorNow(_face(), 1, now, model=model, reactor_id=name)

    other = "the policy" if is_known else "reactor A"
    words = f"model of {{}} has steps of 12 h and that of {other} has steps of 24 h"
    with pytest.raises(ConfigError, match=words.format("reactor B")):
        policy.decide_rack([vessel(daily, "A"), vessel(half, "B")])
    with pytest.raises(ConfigError, match=words.format("pending reactor 1")):
        policy.decide_rack([vessel(daily, "A")], pending=[vessel(half)])
    if is_known:  # its objective was closed with a model that no vessel has
        with pytest.raises(ConfigError, match=words.format("reactor 1")):
            policy.decide_rack([vessel(half)])
        assert not asked
        return
    assert not asked
    about = HalfDays(half.linear, jnp.asarray(11.9))
    made = policy.decide_rack([vessel(half), vessel(about)])
    assert [len(one.forecast_mean["VCV"]) for one in made] == [6, 6]
    assert set(asked) == {(6, (6,))}


def _surrogate(linear, model, functions):
    paths = functions[0](model, 8, key=jax.random.key(0))
    ofv = TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)])
    held = RolloutSurrogate(model, paths, linear.c0, ofv, 1.0, rollout=functions[1])
    assert held.ofv.step_h == 12.0 and ofv.step_h is None
    return held


def test_an_open_step_is_never_guessed(linear):
    ofv = TargetTrackingOFV([TargetSpec(1, [14.0, 13.0, 12.0])])
    assert ofv.step_h is None
    for asked in (lambda: ofv.n_steps, lambda: ProcessOFV([FinalValue("Titer")]).n_steps):
        with pytest.raises(ConfigError, match="made without a model"):
            asked()
    daily, often = jnp.ones((4, 3, 12)), jnp.ones((4, 6, 12))
    by_day = TargetTrackingOFV(ofv.targets, step_h=24.0)
    np.testing.assert_array_equal(ofv.scaled_score(daily), by_day.scaled_score(daily))
    for score in (
        ofv.scaled_score,
        MultiObjectiveOFV(None, [(0, 0.0, 1)]).score_trajectories,
    ):
        with pytest.raises(ConfigError, match="6 rows meets a horizon of 3 days"):
            score(often)
    half = closed(ofv, _half_days(linear)[0])
    assert half.step_h == 12.0 and half.n_steps == 6 and closed(half, object()) is half
    assert closed(ofv, object()).step_h == 24.0
    with pytest.raises(ConfigError, match="target of VCV has 2 values"):
        closed(TargetTrackingOFV([TargetSpec(1, [1.0, 2.0])]), _half_days(linear)[0])
    with pytest.raises(ConfigError, match="the model is traced"):
        jax.jit(lambda m: closed(ofv, m).step_h)(HalfDays(None))


def test_a_step_given_to_the_policy_closes_an_open_objective(linear):
    policy = BEDPolicy(
        None, SPACE, ofv=TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)]), step_h=8.0
    )
    assert policy.ofv.n_steps == 9 and policy.targets[0].species == "VCV"


def test_a_campaign_takes_the_steps_of_its_model(linear):
    model, (draw_paths, rollout), asked = _half_days(linear)
    propose_runs(
        model,
        draw_paths(model, 4, key=jax.random.key(0)),
        linear.c0,
        np.zeros((0, 6)),
        ofv=ProcessOFV([FinalValue("VCV")]),
        limits=control_limits(SPACE),
        q=1,
        settings=CampaignSettings(16, 16, 4, (0.1,), climb_rounds=0),
        rollout=rollout,
    )
    assert set(asked) == {(6, (6,))}
