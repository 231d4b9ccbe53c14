"""Goals, limits and costs as arithmetic over names, against the same sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.goal.by_name import goal_of, limits_of
from perfusio_jax.bed.goal.constraints import worst_margin
from perfusio_jax.bed.goal.costs import read_costs
from perfusio_jax.bed.goal.expressions import RunForm, parse_expression
from perfusio_jax.bed.goal.run_flows import litres_in_steps
from perfusio_jax.hybrid.layout import layout_of
from perfusio_jax.process import MONOD_CHEMOSTAT, Control, Process, Quantity
from tests.hybrid.cultures import FED

POND, DAYS = MONOD_CHEMOSTAT, 4
FORM = RunForm(POND, layout_of(POND), (24.0,) * DAYS)
Y = np.random.default_rng(0).uniform(1.0, 5.0, (3, DAYS, 3))
"""Three runs of X, S and P."""
START = np.array([0.5, 10.0, 0.2])
PLAN = np.array([[0.1, 20.0], [0.1, 20.0], [0.3, 20.0], [0.3, 40.0]])
MEANS = 0.5 * (Y + np.concatenate([np.tile(START, (3, 1, 1)), Y[:, :-1]], axis=1))


def value(text, plan=PLAN, start=START, form=FORM, values=Y, **more):
    found = parse_expression(text, form, start=start, **more)
    return np.asarray(jax.jit(found.__call__)(jnp.asarray(values), jnp.asarray(plan)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("P", Y[:, -1, 2]),
        ("final(P, 0, 2)", Y[:, 1, 2]),
        ("mean(P)", MEANS[..., 2].mean(axis=1)),
        ("mean(P, 1, 3)", MEANS[:, 1:3, 2].mean(axis=1)),
        ("integral(S, 2)", MEANS[:, 2:, 1].sum(axis=1)),
        ("highest(X) - lowest(X, 1)", Y[..., 0].max(axis=1) - Y[:, 1:, 0].min(axis=1)),
        ("2 * P - (X + S) / 4", 2 * Y[:, -1, 2] - (Y[:, -1, 0] + Y[:, -1, 1]) / 4),
        ("-P", -Y[:, -1, 2]),
        ("dilution", np.full(3, 0.2)),
        ("highest(feed_S)", np.full(3, 40.0)),
        ("integral(dilution)", np.full(3, 0.8)),
        ("days()", np.full(3, 4.0)),
        ("used(feed)", np.full(3, 24.0 * PLAN[:, 0].sum())),
        ("given(S)", np.full(3, 24.0 * (PLAN[:, 0] * PLAN[:, 1]).sum())),
        ("taken(P)", (MEANS[..., 2] * 24.0 * PLAN[:, 0]).sum(axis=1)),
        (
            "formed(P)",
            Y[:, -1, 2] - START[2] + (MEANS[..., 2] * 24.0 * PLAN[:, 0]).sum(axis=1),
        ),
    ],
)
def test_statistics_are_the_sums_they_are_said_to_be(text, wanted):
    np.testing.assert_allclose(value(text), wanted, rtol=1e-12)


def test_held_set_points_count_as_the_same_in_every_step():
    held = value("used(feed) + mean(dilution)", plan=PLAN[0])
    np.testing.assert_allclose(held, value("used(feed) + mean(dilution)", plan=PLAN[[0] * DAYS]))
    # half a step counts by half
    half = value("integral(P, 0.5, 1.5)")
    np.testing.assert_allclose(half, 0.5 * (MEANS[:, 0, 2] + MEANS[:, 1, 2]))


def test_boluses_and_a_volume_that_moves_are_in_the_amounts():
    form = RunForm(FED, layout_of(FED), (12.0,) * 4)
    plan = np.tile([10.0, 2.0, 1.0], (4, 1))  # 10 mL/h of 400 g/L, 2 g a day
    values = np.random.default_rng(1).uniform(1.0, 5.0, (2, 4, 2))
    given = value("given(S)", plan, None, form, values)
    np.testing.assert_allclose(given, 0.01 * 48 * 400.0 + 2 * 2.0)
    volume = 1.0 + 0.01 * 48
    formed = value("formed(X)", plan, np.array([1.0, 1.0]), form, values)
    np.testing.assert_allclose(formed, values[:, -1, 0] * volume - 1.0)
    litres = litres_in_steps(form, jnp.asarray(values), jnp.asarray(plan))
    np.testing.assert_allclose(litres, 0.12)


def test_what_a_run_forms_is_what_its_balance_says():
    # a chemostat in which P is made at a known rate: amounts close over many small steps
    hours = np.full(400, 0.25)
    form = RunForm(POND, layout_of(POND), tuple(hours))
    times, rate, dilution = np.cumsum(hours), 0.7, 0.05
    level = rate / dilution * (1.0 - np.exp(-dilution * times))
    values = np.zeros((1, 400, 3))
    values[0, :, 2] = level
    formed = value("formed(P)", np.array([dilution, 0.0]), np.zeros(3), form, values)
    np.testing.assert_allclose(formed, rate * times[-1] * POND.volume_L, rtol=1e-5)


def test_costs_are_the_sum_of_what_has_a_price():
    told = {
        "run": 100.0, "day": 10.0, "slot": 5.0, "assay": 2.0, "feed": 3.0, "turnaround_days": 2.0,
        "reactors": 2,
    }  # fmt: skip
    costs = read_costs(told, POND)
    wanted = 100 + 10 * 4 + 5 * 6 + 2 * 5 + 3 * 24 * PLAN[:, 0].sum()
    np.testing.assert_allclose(value("cost()", costs=costs), wanted)
    np.testing.assert_allclose(value("P / cost()", costs=costs), Y[:, -1, 2] / wanted)
    np.testing.assert_allclose(value("days()", costs=costs), 6.0)
    assert costs.campaign_days(5, 4.0) == 3 * 4.0 + 2 * 2.0
    same = read_costs({**told, "medium": 3.0} | {"feed": 3.0}, POND)
    np.testing.assert_allclose(value("cost()", costs=same), wanted)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"fed": 1.0}, "cost 'fed' is unknown; did you mean feed|cost 'fed' is unknown"),
        ({"run": -1.0}, "not below 0"),
        ({"day": float("nan")}, "a number is needed"),
        ({"day": True}, "a number is needed"),
        ({"outflow": 1.0}, "'outflow' is unknown"),
        ({"reactors": 1.5}, "whole number"),
    ],
)
def test_prices_of_nothing_are_refused(told, message):
    with pytest.raises(ConfigError, match=message):
        read_costs(told, POND)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max", "is no arithmetic|not forecast"),
        ("P +", "is no arithmetic"),
        ("Q", "'Q' is not forecast"),
        ("median(P)", "there is no 'median'"),
        ("mean(P + S)", "mean is of a name"),
        ("mean(P, 3, 2)", "within the run of 4 d"),
        ("mean(P, 5)", "within the run of 4 d"),
        ("used(outflow)", "used is of a stream that enters, feed"),
        ("formed(dilution)", "formed is of what is carried"),
        ("cost()", "nothing has a price"),
        ("days(3)", "takes nothing"),
        ("mean(P, S)", "days of a stretch are numbers"),
        ("P ** 2", "is not understood"),
        ("__import__('os')", "there is no '__import__'"),
        ("P if X else S", "is not understood"),
        ("1e999", "not finite"),
        ("(" * 300 + "P" + ")" * 300, "is no arithmetic"),
        ("+".join("P" * 60), "nested too deeply"),
    ],
)
def test_what_is_no_expression_is_refused_by_what_is_allowed(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_expression(text, FORM)


def test_goals_are_names_as_before_or_expressions():
    plain = goal_of("max P", POND, DAYS)
    assert not plain.is_stepwise and plain.criteria[0].label == "final P [g/L]"
    most = goal_of("max formed(P) / used(feed)", POND, DAYS, start=START)
    assert most.is_stepwise and most.criteria[0].label == "formed(P) / used(feed)"
    wanted = value("formed(P)") / value("used(feed)")
    np.testing.assert_allclose(most.score_with_controls(jnp.asarray(Y), jnp.asarray(PLAN)), wanted)
    held = goal_of("mean(P, 2) = 3", POND, DAYS, start=START)
    gap = np.abs(value("mean(P, 2)") - 3.0)
    np.testing.assert_allclose(held.score_with_controls(Y, PLAN), -gap, rtol=1e-6)
    both = goal_of(["max P", "min used(feed)"], POND, DAYS, weights=[2.0, 0.5], start=START)
    np.testing.assert_allclose(
        both.score_with_controls(Y, PLAN), 2.0 * Y[:, -1, 2] - 0.5 * value("used(feed)")
    )
    front = goal_of(["max P", "min used(feed)"], POND, DAYS, is_front=True)
    assert front.n_objectives == 2
    costs = read_costs({"run": 10.0, "turnaround_days": 1.0}, POND)
    per = goal_of("max P", POND, DAYS, costs=costs, per="cost")
    np.testing.assert_allclose(per.score_with_controls(Y, PLAN), Y[:, -1, 2] / 10.0)
    daily = goal_of("max P", POND, DAYS, costs=costs, per="day")
    np.testing.assert_allclose(daily.score_with_controls(Y, PLAN), Y[:, -1, 2] / 5.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "formed(P)"}, "allowed are 'max EXPR'"),
        ({"text": "min P", "per": "day"}, "is to be most"),
        ({"text": "max P", "per": "run"}, "cost or day"),
        ({"text": "max P", "per": "cost"}, "nothing has a price"),
        ({"text": ["max P"], "is_front": True}, "two goals or more"),
        ({"text": ["max P", "min S"], "weights": [1.0]}, "one number above 0"),
    ],
)
def test_goals_that_cannot_be_asked_for_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        goal_of(process=POND, days=DAYS, **arguments)


def test_limits_are_of_every_day_or_of_the_run():
    hours = [24.0] * DAYS
    day, run, late, set_ = limits_of(
        ["S <= 4", "used(feed) <= 15", "highest(S, 2) <= 4.5", "dilution >= 0.1"],
        POND, 0.8, hours=hours, start=START,
    )  # fmt: skip
    assert day.value is None and run.label == "used(feed) <=" and set_.label == "dilution >="
    samples, plan = jnp.asarray(Y)[:, None], jnp.asarray(PLAN)
    np.testing.assert_allclose(worst_margin(samples, run, plan)[:, 0], 15.0 - value("used(feed)"))
    found = worst_margin(samples, late, plan)[:, 0]
    np.testing.assert_allclose(found, 4.5 - Y[:, 2:, 1].max(axis=1))
    with pytest.raises(ConfigError, match="limit of a whole run"):
        worst_margin(samples, run)
    # a decision of a day knows limits of every day alone
    with pytest.raises(ConfigError, match="NAME>=value"):
        limits_of(["used(feed) <= 15"], POND, 0.8)


def test_gradients_flow_to_set_points_and_forecasts_of_another_length_are_refused():
    found = parse_expression("formed(P) / used(feed)", FORM, start=START)
    slope = jax.grad(lambda u: jnp.mean(found(jnp.asarray(Y), u)))(jnp.asarray(PLAN))
    step = 1e-6
    for place in ((0, 0), (2, 0)):
        moved = PLAN.copy()
        moved[place] += step
        by_hand = (value("formed(P) / used(feed)", moved) - value("formed(P) / used(feed)")).mean()
        assert float(slope[place]) == pytest.approx(by_hand / step, rel=1e-4)
    with pytest.raises(ConfigError, match="a run of 4 steps"):
        found(jnp.asarray(Y[:, :2]), jnp.asarray(PLAN))


def test_a_culture_without_streams_uses_and_loses_nothing():
    batch = Process(
        name="batch",
        volume_L=2.0,
        quantities=(Quantity(name="P", unit="g/L", hi=10.0),),
        controls=(
            Control(name="light", unit="1", role="environment", lo=0.0, hi=1.0, default=0.5),
        ),
        streams=(),
    )
    form = RunForm(batch, layout_of(batch), (24.0, 24.0))
    values = np.array([[[1.0], [3.0]]])
    np.testing.assert_allclose(value("formed(P)", [0.5], np.array([0.5]), form, values), 5.0)
    costs = read_costs({"day": 2.0}, batch)
    np.testing.assert_allclose(value("cost()", [0.5], None, form, values, costs=costs), 4.0)
