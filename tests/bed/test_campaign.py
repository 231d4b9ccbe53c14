"""Proposed runs on a process whose best recipe is known: linear response, Gaussian belief."""

import dataclasses
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed import ChanceConstraint, control_limits
from perfusio_jax.bed.goal.criteria import FinalValue, ProcessOFV
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings, count_rollouts
from perfusio_jax.bed.policy.campaign_words import explain_campaign
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

SPACE = DEFAULT_AMBR250_DESIGN_SPACE
LIMITS = control_limits(SPACE)
SETTINGS = CampaignSettings(
    n_raw=64, n_children=64, n_parents=12, widths=(0.3, 0.15, 0.05), climb_rounds=4, batch=16
)
DAYS, S = 4, 16
GOAL = ProcessOFV([FinalValue("VCV")], horizon=DAYS)


@pytest.fixture(scope="module")
def scene(linear):
    model = linear.make_model(sd=0.3, process_sd=0.02, memory=0.1)
    calls = []

    def counted(*arguments):
        calls.append(1)
        return linear.rollout(*arguments)

    middle = 0.5 * (linear.lower + linear.upper)

    def propose(runs=middle[None, :], model=model, **changes):
        arguments = {
            "ofv": GOAL,
            "limits": LIMITS,
            "q": 3,
            "chance": ChanceConstraint(80.0, 0.8),
            "settings": SETTINGS,
            "rollout": counted,
            **changes,
        }
        paths = linear.draw_paths(model, S, key=jax.random.key(0))
        return propose_runs(model, paths, linear.c0, jnp.asarray(runs), **arguments)

    # mean VCV rises with controls 0, 2, 3, 5 and falls with 1 and 4
    best = np.where(np.asarray(model.mean[:6]) > 0, linear.upper, linear.lower)
    return SimpleNamespace(propose=propose, best=best, middle=middle, model=model, calls=calls)


@pytest.fixture(scope="module")
def plain(scene):
    return scene.propose()


def test_the_first_run_is_the_models_best_guess(scene, plain):
    U, info = plain
    width = np.asarray(LIMITS.upper - LIMITS.lower)
    # the strong responses at their bounds exactly, the rest close to them
    strong = np.abs(np.asarray(scene.model.mean[:6])) > 0.9
    np.testing.assert_allclose(np.asarray(U[0])[strong], scene.best[strong], atol=1e-9)
    assert np.all(np.abs(np.asarray(U[0]) - scene.best) <= 0.35 * width)
    exact = scene.model.mean @ jnp.append(jnp.sign(scene.model.mean[:6]), 1.0)
    assert float(info.mean[0, 0]) == pytest.approx(float(exact), rel=0.05)
    assert float(info.mean[0, 0]) >= float(jnp.max(info.mean[:, 0])) - 0.2


def test_every_limit_is_kept_and_runs_differ(plain):
    U, info = plain
    low, high = LIMITS.lower[None, :], LIMITS.upper[None, :]
    assert bool(jnp.all((U >= low) & (U <= high)))
    assert bool(jnp.all(U[:, 1] <= U[:, 0] + 1e-12))
    scaled = (U - low) / (high - low)
    gaps = [float(jnp.max(jnp.abs(scaled[i] - scaled[j]))) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 0.01
    assert int(info.n_rollouts) <= count_rollouts(SETTINGS, 3, 6) + 1
    assert bool(jnp.all(info.q10 <= info.q90))


def test_same_inputs_same_bytes(scene, plain):
    said = []
    again = scene.propose(say=said.append)
    assert said[0].startswith("searching for 3 runs: less than 2 s")
    # nothing compiles again
    assert said[1:] == ["64 recipes looked at", *(f"{k} of 3 runs chosen" for k in (1, 2, 3))]
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_second_batch_does_not_compile(scene, plain):
    before = len(scene.calls)
    runs = scene.middle[None, :] + 0.01 * np.arange(5)[:, None]
    scene.propose(runs=runs, seed=4)
    assert before > 0 and len(scene.calls) == before


def test_pending_runs_push_the_batch_away(scene, plain):
    U, _ = plain
    V, _ = scene.propose(q=2, pending=U[:1])
    scaled = (V - U[:1]) / (LIMITS.upper - LIMITS.lower)[None, :]
    # without the pending run the first of the batch is that very recipe
    assert float(jnp.min(jnp.sqrt(jnp.mean(scaled**2, axis=1)))) > 3e-3


def test_fixed_set_points_stay_and_are_not_said_to_be_at_a_bound(scene):
    for value in (3.25, 8.0):
        U, info = scene.propose(fixed={2: value})
        np.testing.assert_array_equal(np.asarray(U[:, 2]), value)
        told = explain_campaign(info, GOAL, ChanceConstraint(80.0, 0.8), SPACE.control_names)
        assert told["fixed"] == ["glucose_setpoint"]
        for run in told["runs"]:
            assert "glucose_setpoint" not in run["at_lower_bound"] + run["at_upper_bound"]


def test_every_run_keeps_its_limits_where_a_recipe_does(scene):
    # the step of this limit is so flat, and so far out, that a search by it alone ignores it
    eager = eqx.tree_at(lambda m: m.mean, scene.model, scene.model.mean.at[4].set(1.5))
    loose = ChanceConstraint(96.0, 0.8, temperature=5.0, backoff=-5.0)
    _, info = scene.propose(model=eager, chance=loose)
    assert bool(info.is_feasible) and bool(jnp.all(info.probability_kept >= 0.8))
    told = explain_campaign(info, GOAL, loose, SPACE.control_names)
    assert told["remarks"] == [] and all(run["is_kept"] for run in told["runs"])
    (best,) = told["best_expected"].values()
    assert best == max(run["expected"]["final VCV [%]"] for run in told["runs"])
    assert float(info.best_mean[0]) >= best - 1e-9


def test_what_is_short_of_a_limit_or_beaten_by_a_run_so_far_is_said(plain):
    info, limit = plain[1], ChanceConstraint(80.0, 0.8)
    kept = jnp.asarray([[0.9], [0.77], [1.0]])
    mean = jnp.asarray([[15.0], [19.0], [16.0]])
    info = info._replace(
        probability_kept=kept, mean=mean, runs_mean=jnp.asarray([[17.0], [20.0], [12.0]])
    )
    told = explain_campaign(info, GOAL, limit, SPACE.control_names, ["A", "B", "C"])
    # of the runs that keep the limit
    assert told["best_expected"] == {"final VCV [%]": 16.0}
    assert [run["is_kept"] for run in told["runs"]] == [True, False, True]
    short, beaten = told["remarks"]
    assert "Run 2 of those proposed keeps Via >= 80 with probability 0.77 only; asked" in short
    assert "Run B, already made" in beaten and "20 against 19" in beaten
    better = info._replace(runs_mean=jnp.asarray([[17.0]]), probability_kept=kept.at[1].set(0.8))
    assert explain_campaign(better, GOAL, limit, SPACE.control_names)["remarks"] == []


def test_the_search_looks_around_the_best_run_so_far(scene):
    """With too few points to find it alone, the batch is no worse than what was run."""
    few = SETTINGS._replace(n_raw=16, n_children=16, n_parents=4, widths=(0.05,), climb_rounds=0)
    near = scene.best + 0.1 * (scene.middle - scene.best)
    alone, around = (
        float(jnp.max(scene.propose(runs=runs[None, :], settings=few)[1].mean))
        for runs in (scene.middle, near)
    )
    _, info = scene.propose(runs=near[None, :], settings=few)
    assert around > alone + 0.5
    assert around > float(info.runs_mean[0, 0]) - 0.2


def test_the_constraint_is_kept_and_its_price_is_told(scene):
    # agitation now raises VCV, and viability falls by 5 % over its range
    eager = eqx.tree_at(lambda m: m.mean, scene.model, scene.model.mean.at[4].set(1.5))
    limit = ChanceConstraint(96.0, 0.8)
    U, info = scene.propose(model=eager, chance=limit)
    assert bool(info.is_feasible) and bool(jnp.all(info.probability_kept >= 0.8))
    assert 0.0 < float(info.share_feasible[0]) < 1.0
    # half of the range of agitation is out of reach: that is worth about 1.5
    assert 0.9 < float(info.relaxed_mean[0, 0] - info.best_mean[0]) < 2.0
    told = explain_campaign(info, GOAL, limit, SPACE.control_names)
    assert told["constraints"][0]["limit"] == "Via >= 96"
    assert len(told["runs"]) == 3 and told["is_feasible"]
    assert set(told["best_of_runs_so_far"]) == {"final VCV [%]"}
    assert float(U[0, 4]) <= 700.0 + 0.5 * 350.0


def test_a_model_without_a_finite_forecast_proposes_nothing(scene):
    broken = eqx.tree_at(lambda m: m.mean, scene.model, scene.model.mean * jnp.nan)
    with pytest.raises(ConfigError, match="not finite for any of 64"):
        scene.propose(model=broken)


def test_recipes_without_a_finite_forecast_are_left_out_and_counted(scene, plain):
    U, info = scene.propose(model=dataclasses.replace(scene.model, breaks_above=jnp.asarray(36.5)))
    assert 0 < int(info.n_nonfinite) < 64 and int(plain[1].n_nonfinite) == 0
    assert bool(jnp.all(U[:, 3] <= 36.5)) and bool(jnp.all(jnp.isfinite(info.mean)))
    told = explain_campaign(info, GOAL, ChanceConstraint(80.0, 0.8), SPACE.control_names)
    assert "had no finite forecast" in told["remarks"][0]


def test_a_goal_that_nothing_changes_is_said(scene):
    flat = eqx.tree_at(
        lambda m: (m.mean, m.factor),
        scene.model,
        (jnp.zeros(7).at[6].set(13.0), jnp.zeros((7, 7))),
    )
    U, info = scene.propose(model=flat)
    assert bool(info.is_flat)
    told = explain_campaign(info, GOAL, ChanceConstraint(80.0, 0.8), SPACE.control_names)
    assert "merely apart" in told["remarks"][0]
    assert len(np.unique(np.asarray(U), axis=0)) == 3


def test_what_cannot_be_kept_is_said(scene):
    _, info = scene.propose(chance=ChanceConstraint(99.5, 0.8))
    assert not bool(info.is_feasible)
    assert float(info.best_probability) < 0.8
    assert bool(jnp.all(jnp.isnan(info.best_mean)))


def test_a_front_is_spread_between_its_ends(scene):
    eager = eqx.tree_at(lambda m: m.mean, scene.model, scene.model.mean.at[4].set(3.0))
    goal = ProcessOFV([FinalValue("VCV"), FinalValue("Via")], horizon=DAYS, is_pareto=True)
    U, info = scene.propose(model=eager, ofv=goal, chance=None)
    assert info.mean.shape == (3, 2) and info.probability_kept.shape == (3, 0)
    # agitation trades one against the other: the runs span it, and none is beaten by another
    assert float(jnp.max(U[:, 4]) - jnp.min(U[:, 4])) > 60.0
    first = scene.propose(model=eager, ofv=goal, chance=None, runs=np.zeros((0, 6)))[1]
    assert bool(jnp.all(jnp.isfinite(first.acquisition)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"q": 0}, "at least one run"),
        ({"fixed": {0: 9.0}}, "set-point 0 is to be held at 9; the design space allows 0.5 to 2"),
        ({"fixed": {7: 1.0}}, "does not exist"),
        ({"settings": SETTINGS._replace(n_raw=63)}, "multiples"),
        ({"runs": np.full((2, 6), np.nan)}, "12 entries that are not finite"),
        ({"runs": np.ones((2, 5))}, "one recipe per row"),
        ({"pending": np.full((1, 6), np.inf)}, "pending of shape"),
        ({"fixed": dict(enumerate(np.asarray(LIMITS.lower).tolist()))}, "release one"),
        ({"seed": -1}, "integer from 0"),
    ],
)
def test_unusable_requests_are_named(scene, changes, says):
    with pytest.raises(ConfigError, match=says):
        scene.propose(**changes)
