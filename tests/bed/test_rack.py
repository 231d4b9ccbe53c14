"""Joint decisions on a rack, explanations, changes in mid-run: linear Gaussian plant."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, ConfigError
from perfusio_jax.bed import (
    ROLLOUT_SETTINGS,
    BEDPolicy,
    ChanceConstraint,
    ControlCost,
    RolloutSurrogate,
    TargetSpec,
    TargetTrackingOFV,
)
from perfusio_jax.bed.goal.criteria import CellSpecificPerfusion, ProcessOFV, TrackingError
from perfusio_jax.bed.policy.rack import ReactorNow, _learn
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

SPACE = DEFAULT_AMBR250_DESIGN_SPACE
SETTINGS = ROLLOUT_SETTINGS._replace(n_restarts=2, n_raw_samples=32)
FACE = jnp.asarray([56.0, 97.0, 5.0, 2.0, 1.0, 20.0, 3.0, 1.0, 500.0])
MIDDLE = {name: 0.5 * (b.lo + b.hi) for name, b in SPACE.control_bounds.items()}
S = 32


@pytest.fixture(scope="module")
def make(linear):
    def build(**changes):
        arguments = {
            "targets": [TargetSpec(linear.vcv, 14.0)],
            "n_paths": S,
            "settings": SETTINGS,
            "max_change": {"temperature": 0.4},
            "rollout_functions": (linear.draw_paths, linear.rollout),
            **changes,
        }
        return BEDPolicy(linear.make_model(), SPACE, **arguments)

    return build


@pytest.fixture(scope="module")
def policy(make):
    return make()


@pytest.fixture(scope="module")
def decision(policy):
    return policy.decide(FACE, 3, u_now=MIDDLE)


def vessel(vcd=56.0, **changes):
    return ReactorNow(FACE.at[0].set(vcd), 3, MIDDLE, **changes)


# ------------------------------------------------------------ explanations


def test_a_decision_says_what_each_constraint_and_move_did(decision):
    why = decision.explanation
    (limit,) = why["constraints"]
    assert limit["limit"] == "Via >= 95" and limit["probability_asked"] == 0.9
    assert 0.9 <= limit["probability"] <= 1.0 and limit["score"] <= 0.0
    unchanged = why["forecast_unchanged"]["mean"]
    assert set(unchanged) == set(FORECAST_SPECIES) and len(unchanged["VCV"]) == 3
    assert unchanged["VCV"] != decision.forecast_mean["VCV"]
    target = why["targets"][0]
    assert target["expected_squared_error"] < target["expected_squared_error_unchanged"]


def test_three_alternatives_are_legal_and_apart(decision):
    found = decision.explanation["alternatives"]
    assert len(found) == 3
    recipes = [decision.recommended_controls, *(a["controls"] for a in found)]
    for recipe in recipes:
        for name, bound in SPACE.control_bounds.items():
            assert bound.lo <= recipe[name] <= bound.hi
        assert recipe["bleed_rate"] <= recipe["perfusion_rate"] + 1e-12
        assert abs(recipe["temperature"] - MIDDLE["temperature"]) <= 0.4 + 1e-12
    answer = recipes[0]
    for other in recipes[1:]:
        gap = max(
            abs(answer[n] - other[n]) / (b.hi - b.lo) for n, b in SPACE.control_bounds.items()
        )
        assert gap > 0.01
    worths = [a["acquisition"] for a in found]
    assert worths == sorted(worths, reverse=True)


def test_the_slope_of_the_ofv_is_that_of_the_objective(linear, policy, decision):
    """Against central differences of the same paths, taken outside."""
    path_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 3))
    paths = linear.draw_paths(policy.hybrid, S, key=path_key)
    ofv = TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)])
    c0 = jnp.asarray([FACE[0], FACE[0] * 3 / 97, *FACE[2:]])

    @jax.jit
    def value(u):
        controls = jnp.broadcast_to(u[None, :], (3, 6))
        Y = linear.rollout(policy.hybrid, paths, c0, controls, 3.0)
        return -jnp.mean(ofv.score_trajectories(Y))

    u = jnp.asarray(list(decision.recommended_controls.values()))
    for k, name in enumerate(CONTROL_NAMES):
        step = 1e-5 * float(linear.upper[k] - linear.lower[k])
        slope = float(value(u.at[k].add(step)) - value(u.at[k].add(-step))) / (2 * step)
        scale = float(value(u)) / float(linear.upper[k] - linear.lower[k])
        found = decision.explanation["ofv_gradient"][name]
        assert found == pytest.approx(slope, rel=2e-2, abs=5e-3 * scale)


def test_a_search_begun_on_fewer_paths_ends_where_the_full_one_does(make, decision):
    quick = make(n_scan_paths=16).decide(FACE, 3, u_now=MIDDLE)
    full = decision.explanation["ofv"]
    assert quick.explanation["ofv"] <= 1.1 * full + 0.02
    assert quick.explanation["search"]["n_evals"] > 0
    assert make().n_scan_paths is None and make(n_paths=64).n_scan_paths == 16
    assert make(n_paths=64, n_scan_paths=None).n_scan_paths is None
    with pytest.raises(ConfigError, match="from 1 to n_paths=32"):
        make(n_scan_paths=33)
    assert np.isfinite(quick.acqf_value)


# ------------------------------------------------------------ the rack


def test_a_rack_decides_alike_for_alike_seeds_and_remembers_nothing(policy):
    rack = [
        vessel(56.0, reactor_id="R01"),
        vessel(30.0, reactor_id="R02", targets=[TargetSpec(1, 11.0)]),
        vessel(80.0, reactor_id="R03", fixed={"agitation": 800.0}),
    ]
    before = policy.history
    one = policy.decide_rack(rack, seed=5)
    two = policy.decide_rack(rack, seed=5)
    assert one == two and policy.history == before
    assert [d.reactor_id for d in one] == ["R01", "R02", "R03"]
    assert one[2].recommended_controls["agitation"] == 800.0
    # each is led to its own target: the plant forgets its state at 0.4 a day
    assert one[0].forecast_mean["VCV"][-1] == pytest.approx(14.0, abs=1.0)
    assert one[1].forecast_mean["VCV"][-1] == pytest.approx(11.0, abs=1.0)
    assert policy.decide_rack(rack, seed=6) != one


def test_a_rack_says_how_long_it_takes_and_how_far_it_is(policy):
    said = []
    for _ in range(2):
        said.clear()
        policy.decide_rack([vessel(), vessel(30.0)], seed=5, say=said.append)
    assert said[0].startswith("deciding for 2 reactors: less than 2 s")
    # the second time nothing compiles
    assert said[1:] == ["1 of 2 reactors decided", "2 of 2 reactors decided"]


def test_what_a_pending_vessel_teaches_is_no_reason_to_explore(linear, policy):
    model = policy.hybrid
    paths = linear.draw_paths(model, S, key=jax.random.key(2))
    ofv = TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)])
    surrogate = RolloutSurrogate(model, paths, linear.c0, ofv, 0, rollout=linear.rollout)
    u = jnp.asarray(list(MIDDLE.values()))
    basis = _learn(surrogate, u, jnp.zeros((S, 3)), jnp.asarray(0))
    again = _learn(surrogate, u, basis, jnp.asarray(1))
    both = _learn(surrogate, u.at[3].add(0.5), again, jnp.asarray(2))
    np.testing.assert_allclose(both.T @ both, np.diag([1.0, 0.0, 1.0]), atol=1e-10)
    taught = dataclasses.replace(surrogate, taught=basis)
    free, known = surrogate.scores(u)[0], taught.scores(u)[0]
    assert float(jnp.std(known)) < 1e-9 * float(jnp.std(free))
    np.testing.assert_allclose(jnp.mean(known), jnp.mean(free), rtol=1e-12)
    # another recipe keeps what the first does not tell of it
    other = u.at[1].add(0.1)
    assert (
        0.0 < float(jnp.std(taught.scores(other)[0])) < float(jnp.std(surrogate.scores(other)[0]))
    )


def test_pending_vessels_are_not_decided_again(policy):
    (found,) = policy.decide_rack([vessel(reactor_id="R02")], pending=[vessel(30.0)])
    assert found.reactor_id == "R02"


@pytest.mark.parametrize(
    ("rack", "says"),
    [
        ([], "at least one"),
        ([vessel(targets=[TargetSpec(2, 95.0)])], "made for"),
        ([vessel(fixed={"temperature": 37.5})], "rate limit"),
        ([vessel(fixed={"stirring": 1.0})], "not a control"),
    ],
)
def test_a_rack_refuses_by_name(policy, rack, says):
    with pytest.raises(ConfigError, match=says):
        policy.decide_rack(rack)


# ------------------------------------------------------------ changes in mid-run


def test_a_new_space_leads_back_what_lies_outside(policy, decision):
    bounds = dict(SPACE.control_bounds)
    bounds["temperature"] = bounds["temperature"].replace(hi=35.5)
    new = policy.with_space(SPACE.replace(control_bounds=bounds, viability_min=93.0))
    found = new.decide(FACE, 3, u_now=MIDDLE)
    # 36.25 is outside now, and one decision moves it by 0.4 at most: led back over several
    assert found.recommended_controls["temperature"] == pytest.approx(35.85, abs=1e-9)
    assert found.explanation["constraints"][0]["limit"] == "Via >= 93"
    assert policy.decide(FACE, 3, u_now=MIDDLE) == decision
    assert new.history[:-1] == policy.history[:-1]
    with pytest.raises(ConfigError, match="was made for"):
        few = {n: b for n, b in SPACE.control_bounds.items() if n != "agitation"}
        policy.with_space(SPACE.replace(control_bounds=few))


# ------------------------------------------------------------ economics and soft bounds


def test_an_economic_goal_saves_medium_as_far_as_the_limits_allow(make):
    ofv = ProcessOFV(
        [CellSpecificPerfusion(), TrackingError("VCV", 14.0)], scales=[20.0, 1.0], horizon=3
    )
    limits = (
        ChanceConstraint(95.0, 0.9),
        ChanceConstraint(20.0, 0.9, species_index=1, is_upper=True),
    )
    frugal = make(ofv=ofv, chance=limits, targets=None).decide(FACE, 3, u_now=MIDDLE)
    assert frugal.recommended_controls["perfusion_rate"] < MIDDLE["perfusion_rate"]
    why = frugal.explanation
    assert [c["limit"] for c in why["constraints"]] == ["Via >= 95", "VCV <= 20"]
    assert [t["criterion"] for t in why["targets"]] == [
        "cell-specific perfusion [pL/cell/d]",
        "distance from target of VCV [%]",
    ]
    assert sum(t["cost"] for t in why["targets"]) == pytest.approx(why["ofv"])


def test_a_soft_bound_gives_way_at_a_price_and_a_hard_one_does_not():
    lower, upper = jnp.zeros(2), jnp.ones(2)
    cost = ControlCost(jnp.asarray([0.5, 0.5]), upper - lower, lower, upper, 0.0, 10.0)
    assert float(cost(jnp.asarray([0.5, 1.0]))) == 0.0
    assert float(cost(jnp.asarray([0.5, 1.05]))) == pytest.approx(10.0 * 0.05**2)


def test_a_target_out_of_reach_uses_the_soft_margin_only_where_it_is_soft(make, linear):
    bounds = dict(SPACE.control_bounds)
    bounds["temperature"] = bounds["temperature"].replace(hard_upper=False)
    space = SPACE.replace(control_bounds=bounds)
    greedy = BEDPolicy(
        linear.make_model(),
        space,
        targets=[TargetSpec(linear.vcv, 25.0)],
        n_paths=S,
        settings=SETTINGS,
        rollout_functions=(linear.draw_paths, linear.rollout),
    ).decide(FACE, 3, u_now=MIDDLE)
    warm = greedy.recommended_controls["temperature"]
    assert 37.5 < warm <= 37.5 + 0.05 * 2.5 + 1e-9
    assert greedy.recommended_controls["glucose_setpoint"] <= 8.0
