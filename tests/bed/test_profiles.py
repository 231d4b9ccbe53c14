"""Recipes that change within a run: numbers, limits, and the search against trying everything."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import FORECAST_SPECIES, ConfigError
from perfusio_jax.bed import ChanceConstraint, control_limits
from perfusio_jax.bed.goal.criteria import (
    CellSpecificPerfusion,
    FinalValue,
    MediumPerGram,
    ProcessOFV,
    SpaceTimeYield,
    TrackingError,
)
from perfusio_jax.bed.goal.profile import make_profile, profile_bounds
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

LIMITS = control_limits(DEFAULT_AMBR250_DESIGN_SPACE)
LOWER, UPPER = np.asarray(LIMITS.lower), np.asarray(LIMITS.upper)
SIZES = CampaignSettings(
    n_raw=64, n_children=32, n_parents=12, widths=(0.3, 0.1), climb_rounds=6, batch=16
)
HELD = {1: 0.1, 2: 5.0, 3: 36.0, 4: 800.0, 5: 2.0}
"""All set-points but the perfusion rate."""
DAYS, S = 6, 8
VCD, TITRE = FORECAST_SPECIES.index("VCD"), FORECAST_SPECIES.index("Titer")


def tied(max_change=np.inf):
    """Limits in which the bleed may meet the perfusion, and changes are limited."""
    return dataclasses.replace(
        LIMITS,
        upper=LIMITS.upper.at[1].set(1.2),
        max_change=jnp.full(6, max_change) * (LIMITS.upper - LIMITS.lower),
    )


def test_a_profile_has_its_values_and_its_whole_times():
    profile = make_profile(LIMITS, 2, 10, fixed=HELD)
    values = np.tile(0.5 * (LOWER + UPPER), (3, 1))
    values[:, 0] = [0.6, 1.5, 1.0]
    x = jnp.asarray([*values.reshape(-1), 3.0, 6.0])
    plan = np.asarray(profile.plan(x))
    np.testing.assert_allclose(plan[:, 0], [0.6] * 3 + [1.5] * 4 + [1.0] * 3)
    assert np.ptp(plan[:, 1:], axis=0).max() == 0.0
    np.testing.assert_allclose(profile.plan(jnp.asarray(profile.of_plan(plan))), plan)


def test_a_change_within_a_step_is_its_mean_over_the_step_and_has_a_slope():
    profile = make_profile(LIMITS, 1, 6, fixed=HELD)
    x = profile.held(jnp.asarray(0.5 * (LOWER + UPPER)))
    x = x.at[0].set(0.5).at[6].set(1.5).at[-1].set(2.25)
    plan = profile.plan(x)
    np.testing.assert_allclose(plan[:, 0], [0.5, 0.5, 1.25, 1.5, 1.5, 1.5])
    slope = jax.grad(lambda x: jnp.sum(profile.plan(x)[:, 0]))(x)
    assert float(slope[-1]) == pytest.approx(-1.0)
    np.testing.assert_allclose(profile.plan(profile.snapped(x))[:, 0], [0.5] * 2 + [1.5] * 4)


@settings(max_examples=25, deadline=None)
@given(
    k=st.sampled_from([1, 3]),
    n_steps=st.sampled_from([6, 9]),
    change=st.sampled_from([np.inf, 0.4, 0.05]),
    seed=st.integers(0, 10_000),
)
def test_every_point_of_the_search_is_a_plan_within_all_limits(k, n_steps, change, seed):
    limits = tied(change)
    profile = make_profile(limits, k, n_steps)
    # bleed and perfusion can meet, so they change together
    assert profile.groups[0] == profile.groups[1] and len(profile.strides) == 5
    lower, upper, A, b = profile_bounds(profile, np.asarray(limits.A), np.asarray(limits.b))
    rng = np.random.default_rng(seed)
    x = rng.uniform(lower, upper)
    for row, side in zip(A, b, strict=True):  # keep the rows as the search does
        over = row @ x - side
        x = x - max(over, 0.0) * row / (row @ row)
    x = profile.snapped(jnp.asarray(np.clip(x, lower, upper)))
    kept = bool(np.all(A @ np.asarray(x) <= b + 1e-9))
    plan = np.asarray(profile.plan(x))
    moves = np.abs(np.diff(plan, axis=0))
    assert np.all(np.count_nonzero(moves > 1e-9, axis=0) <= k)
    assert np.all(moves <= np.asarray(limits.max_change) + 1e-9)
    assert np.all(plan >= np.asarray(limits.lower) - 1e-9)
    assert np.all(plan <= np.asarray(limits.upper) + 1e-9)
    if kept:
        assert np.all(plan[:, 1] <= plan[:, 0] + 1e-9)
    # a plan is found again from its rows
    np.testing.assert_allclose(profile.plan(jnp.asarray(profile.of_plan(plan))), plan, atol=1e-9)
    near = profile.neighbours(x)
    assert len(near) <= 2 * k * 5
    for one in near:
        times = profile.parts(jnp.asarray(one))[1]
        assert bool(jnp.all(times >= 1)) and bool(jnp.all(times <= n_steps - 1))


def test_what_is_given_daily_changes_between_days():
    profile = make_profile(LIMITS, 1, 8, fixed=HELD, daily=(0,), step_h=6.0 * 2)
    x = profile.held(jnp.asarray(0.5 * (LOWER + UPPER))).at[0].set(0.5).at[-1].set(2.0)
    plan = np.asarray(profile.plan(x))[:, 0]
    np.testing.assert_allclose(plan, [0.5] * 4 + [1.25] * 4)


@pytest.mark.parametrize(
    ("n_changes", "n_steps", "fixed", "message"),
    [
        (3, 3, {}, "3 changes of .* within a run of 3 steps .* room for 1 to 2"),
        (1, 1, {}, "room for 1 to 0"),
        (1, 5, {i: float(LOWER[i]) for i in range(6)}, "all are held"),
    ],
)
def test_changes_a_run_has_no_room_for_are_refused(n_changes, n_steps, fixed, message):
    with pytest.raises(ConfigError, match=message):
        make_profile(LIMITS, n_changes, n_steps, fixed=fixed)


@pytest.fixture(scope="module")
def scene(linear):
    model = linear.make_model(sd=0.3, process_sd=0.02, memory=0.5)
    paths = linear.draw_paths(model, S, key=jax.random.key(0))
    calls = []

    def counted(*arguments):
        calls.append(1)
        return linear.rollout(*arguments)

    def propose(runs=(), said=True, **changes):
        arguments = {
            "ofv": ProcessOFV([TrackingError("VCV", RAMP)], horizon=DAYS),
            "limits": LIMITS,
            "q": 1,
            "settings": SIZES,
            "rollout": counted,
            "fixed": HELD,
            "profile": 1,
            **changes,
        }
        if not said:
            del arguments["profile"]
        return propose_runs(model, paths, linear.c0, runs, **arguments)

    def without(**changes):
        return propose(**changes, said=False)

    def score(plan, ofv):
        return float(jnp.mean(ofv.values(linear.rollout(model, paths, linear.c0, plan, 0.0), plan)))

    return SimpleNamespace(propose=propose, without=without, score=score, calls=calls)


RAMP = np.array([14.0, 14.0, 14.0, 15.5, 16.2, 16.6])


def everything(mean_of, n_values=61):
    """Best mean of all profiles with one change of the perfusion rate, on a grid of values."""
    levels = np.linspace(LOWER[0], UPPER[0], n_values)
    one, two, at = (v.ravel() for v in np.meshgrid(levels, levels, np.arange(1, DAYS)))
    plans = np.tile(np.asarray([0.0, *HELD.values()]), (one.size, DAYS, 1))
    plans[:, :, 0] = np.where(np.arange(DAYS)[None, :] < at[:, None], one[:, None], two[:, None])
    found = jax.lax.map(mean_of, jnp.asarray(plans), batch_size=256)
    best = int(np.argmin(np.asarray(found)))
    return float(found[best]), plans[best]


def test_the_search_finds_what_trying_everything_finds(scene, linear):
    ofv = ProcessOFV([TrackingError("VCV", RAMP)], horizon=DAYS)
    model = linear.make_model(sd=0.3, process_sd=0.02, memory=0.5)
    paths = linear.draw_paths(model, S, key=jax.random.key(0))

    def mean_of(plan):
        return jnp.mean(ofv.values(linear.rollout(model, paths, linear.c0, plan, 0.0), plan))

    least, plan = everything(jax.jit(mean_of))
    U, info = scene.propose()
    assert U.shape == (1, DAYS, 6)
    found = float(info.mean[0, 0])
    # values between those of the grid may be better
    assert found <= least + 1e-6
    shifts = [np.flatnonzero(np.diff(np.asarray(p)[:, 0])) for p in (U[0], plan)]
    assert shifts[0].tolist() == shifts[1].tolist()
    assert found == pytest.approx(scene.score(U[0], ofv), abs=1e-9)
    # and a change is worth something here, which is told
    assert found < 0.8 * float(info.profile.held_mean[0])
    assert bool(info.profile.is_settled[0])


def test_no_change_is_bit_for_bit_a_proposal_that_says_nothing_of_changes(scene):
    U, info = scene.propose(profile=0, q=2)
    V, more = scene.without(q=2)
    assert U.shape == (2, 6) and info.profile is None
    for a, b in zip(jax.tree.leaves((U, info)), jax.tree.leaves((V, more)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_limits_are_kept_and_recipes_of_a_batch_differ(scene):
    chance = ChanceConstraint(95.0, 0.8)
    ofv = ProcessOFV([FinalValue("VCV")], horizon=DAYS)
    U, info = scene.propose(
        q=3, profile=2, fixed={}, ofv=ofv, chance=chance, limits=tied(0.2), runs=U_HELD
    )
    plans = np.asarray(U)
    moves = np.abs(np.diff(plans, axis=1))
    assert np.all(np.count_nonzero(moves > 1e-9, axis=1) <= 2)
    assert np.all(moves <= 0.2 * np.asarray(tied().upper - LIMITS.lower) + 1e-9)
    assert np.all(plans[:, :, 1] <= plans[:, :, 0] + 1e-9)
    assert float(info.probability_kept.min()) >= 0.8
    scaled = (plans - LOWER) / (UPPER - LOWER)
    gaps = [np.sqrt(np.mean((scaled[i] - scaled[j]) ** 2)) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 0.01
    # a profile can always do what held set-points do
    assert float(info.mean[:, 0].max()) >= float(info.profile.held_mean[0]) - 1e-6


U_HELD = 0.5 * (LOWER + UPPER)[None, :]


def test_runs_that_changed_count_as_they_were_and_another_batch_does_not_compile(scene):
    first, _ = scene.propose()
    before = len(scene.calls)
    _, info = scene.propose(runs=np.asarray(first), seed=3)
    assert len(scene.calls) == before
    held = scene.propose(runs=np.asarray(first).mean(axis=1), seed=3)[1]
    ofv = ProcessOFV([TrackingError("VCV", RAMP)], horizon=DAYS)
    assert float(info.runs_mean[0, 0]) == pytest.approx(scene.score(first[0], ofv), abs=1e-9)
    assert abs(float(held.runs_mean[0, 0]) - float(info.runs_mean[0, 0])) > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": -1}, "0 or more"),
        ({"profile": DAYS}, "room for 1 to 5"),
        ({"runs": np.ones((1, 3, 6))}, r"must be \(n, 6, 6\)"),
        ({"pending": np.full((1, DAYS, 6), np.nan)}, "not finite"),
    ],
)
def test_what_cannot_be_proposed_is_refused(scene, changes, message):
    with pytest.raises(ConfigError, match=message):
        scene.propose(**changes)


def test_economic_criteria_count_set_points_of_every_day():
    Y = jnp.asarray(np.random.default_rng(0).uniform(1.0, 400.0, (3, DAYS, 12)))
    middle = 0.5 * (LOWER + UPPER)
    held = jnp.asarray(np.tile(middle, (DAYS, 1)))
    criteria = [SpaceTimeYield(1), MediumPerGram(1), CellSpecificPerfusion(from_day=1)]
    for criterion in criteria:
        np.testing.assert_allclose(criterion(Y, held), criterion(Y, jnp.asarray(middle)))
    plan = held.at[3:, 0].set(2.0).at[:, 1].set(0.1)
    late = np.asarray(plan[1:, 0])
    titre, cells = np.asarray(Y[:, 1:, TITRE]), np.asarray(Y[:, 1:, VCD])
    grams = ((late - 0.1) * titre).mean(axis=1)
    np.testing.assert_allclose(criteria[0](Y, plan), grams)
    np.testing.assert_allclose(criteria[1](Y, plan), late.mean() / (grams / 1000.0))
    np.testing.assert_allclose(criteria[2](Y, plan), (1000.0 * late / cells).mean(axis=1))
    # two samples a day: criteria see the means over the days
    twice = ProcessOFV(criteria, horizon=DAYS, step_h=12.0)
    steps, often = jnp.repeat(plan, 2, axis=0), jnp.repeat(Y, 2, axis=1)
    wanted = ProcessOFV(criteria, horizon=DAYS).values(Y, plan)
    np.testing.assert_allclose(twice.values(often, steps), wanted)
