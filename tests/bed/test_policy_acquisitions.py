"""The daily policy with every acquisition the room has, on roll-outs and on plain surrogates."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed import (
    ACQUISITION_NAMES,
    OWN_ACQUISITIONS,
    ROLLOUT_SETTINGS,
    BEDPolicy,
    FinalValue,
    Preferences,
    ProcessOFV,
    ReactorNow,
    TargetSpec,
    TargetTrackingOFV,
    TrackingError,
    gaussian_process,
    gaussian_processes,
)
from perfusio_jax.bed.policy.incumbents import SEVERAL_OBJECTIVES, SINGLE_OBJECTIVE
from perfusio_jax.bed.policy.outlook import forecasts
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE as SPACE

SETTINGS = ROLLOUT_SETTINGS._replace(n_restarts=2, n_raw_samples=32)
FACE = jnp.asarray([56.0, 97.0, 5.0, 2.0, 1.0, 20.0, 3.0, 1.0, 500.0])
MIDDLE = {name: 0.5 * (b.lo + b.hi) for name, b in SPACE.control_bounds.items()}
PLAN = {**MIDDLE, "perfusion_rate": 1.4}


@pytest.fixture(scope="module")
def make(linear):
    def build(acqf_name, **changes):
        arguments = {
            "targets": [
                TargetSpec(linear.vcv, 14.0),
                TargetSpec(linear.via, 97.5, scale=10.0),
            ],
            "n_paths": 32,
            "settings": SETTINGS,
            "rollout_functions": (linear.draw_paths, linear.rollout),
            **changes,
        }
        return BEDPolicy(linear.make_model(), SPACE, acqf_name=acqf_name, **arguments)

    return build


def decide(policy, *args, **more):
    return policy.decide(FACE, 3, *args, **{"u_now": MIDDLE, **more})


def test_together_they_are_all_the_room_has():
    named = {*SINGLE_OBJECTIVE, *SEVERAL_OBJECTIVES, "qKG"}
    assert named == {*ACQUISITION_NAMES, *OWN_ACQUISITIONS}


@pytest.mark.parametrize("name", SEVERAL_OBJECTIVES)
def test_several_targets_are_improved_together(make, name):
    made = decide(make(name), seed=1)
    assert made.acqf_name == made.explanation["acquisition"]["name"] == name
    assert made.explanation["incumbent"] == "set-points in force"
    assert np.isfinite(made.acqf_value) and not made.explanation["is_fallback"]
    assert made.explanation["ofv"] < made.explanation["ofv_unchanged"]
    parts = made.explanation["targets"]
    assert [p["species"] for p in parts] == ["VCV", "Via"]
    if name == "qNParEGO":
        weights = made.explanation["acquisition"]["weights"]
        assert list(weights) == ["VCV", "Via"] and sum(weights.values()) == pytest.approx(1.0)
        other = decide(make(name), seed=2)
        assert other.explanation["acquisition"]["weights"] != weights
        return
    # what the front asks: no target much worse than the worst that is known of it
    ref = made.explanation["acquisition"]["ref_point"]
    assert list(ref) == ["VCV", "Via"] and all(v < 0.0 for v in ref.values())
    assert made.explanation["remarks"] == []


def test_the_plan_joins_the_front_and_a_reference_can_be_given(make):
    policy = make("qLogNEHVI", preferences=Preferences(ref_point=[-0.5, -0.2]))
    made = decide(policy, u_plan=PLAN)
    assert made.explanation["incumbent"] == "set-points in force and last plan together"
    assert made.explanation["acquisition"]["ref_point"] == {"VCV": -0.5, "Via": -0.2}
    assert made == decide(policy, u_plan=PLAN)
    harsh = make("qLogNEHVI", preferences=Preferences(ref_point=[-1e-9, -1e-9]))
    said = decide(harsh, u_plan=PLAN).explanation["remarks"]
    assert any("better than the reference point" in text for text in said)


def test_noisy_improvement_on_roll_outs(make, linear):
    policy = make("qLogNEI", targets=[TargetSpec(linear.vcv, 14.0)])
    made = decide(policy, u_plan=PLAN)
    assert made.acqf_name == made.explanation["acquisition"]["name"] == "qLogNEI"
    assert made.explanation["incumbent"] == "set-points in force and last plan together"
    assert made.explanation["ofv"] < made.explanation["ofv_unchanged"]
    # over one known point it is the improvement over the incumbent
    alone = decide(policy)
    like = decide(make("qLogEI", targets=[TargetSpec(linear.vcv, 14.0)]))
    assert alone.recommended_controls == pytest.approx(like.recommended_controls, rel=1e-6)
    assert alone.acqf_value == pytest.approx(like.acqf_value, rel=1e-9)


def test_limits_and_moves_count_as_for_one_objective(make):
    """Full agitation breaks the viability limit: whatever the front says, it is left."""
    policy = make("qLogNEHVI", preferences=Preferences(ref_point=[-2.0, -2.0]))
    made = decide(policy, u_now={**MIDDLE, "agitation": 1050.0})
    assert made.explanation["viability_probability_unchanged"] < 0.9
    assert made.explanation["viability_probability"] >= 0.9

    def moved(weight):
        costly = Preferences(ref_point=[-2.0, -2.0], move_weight=weight)
        u = decide(make("qLogNEHVI", preferences=costly)).recommended_controls
        return sum(abs(u[n] - MIDDLE[n]) / (b.hi - b.lo) for n, b in SPACE.control_bounds.items())

    assert moved(0.3) < moved(1e-3)


def test_criteria_side_by_side_and_a_search_begun_on_fewer_paths(make):
    criteria: list[Any] = [TrackingError("VCV", 14.0), FinalValue("Via")]
    ofv = ProcessOFV(criteria, scales=np.array([10.0, 10.0]))
    made = decide(make("qLogNEHVI", targets=None, ofv=ofv, n_scan_paths=8))
    assert (
        np.isfinite(made.acqf_value) and made.explanation["ofv"] < made.explanation["ofv_unchanged"]
    )
    labels = [c.label for c in ofv.criteria]
    assert list(made.explanation["acquisition"]["ref_point"]) == labels


def test_one_program_forecasts_for_each_number_of_paths(make):
    before = forecasts.n_programs()
    decide(make("qLogEI", n_paths=24, n_scan_paths=6))
    assert forecasts.n_programs() - before == 2
    decide(make("qLogEI", n_paths=20, n_scan_paths=None))
    assert forecasts.n_programs() - before == 3


def test_a_rack_shares_what_several_objectives_teach(make):
    policy = make("qLogNEHVI")
    vessels = [ReactorNow(FACE.at[0].set(v), 3, MIDDLE, reactor_id=str(v)) for v in (50.0, 60.0)]
    made = policy.decide_rack(vessels, pending=[ReactorNow(FACE, 3, MIDDLE)])
    assert [d.reactor_id for d in made] == ["50.0", "60.0"]
    assert all(np.isfinite(d.acqf_value) and d.acqf_name == "qLogNEHVI" for d in made)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("qNEHVI", {"targets": [TargetSpec(1, 14.0)]}, "qLogNEI is its like"),
        ("qKG", {}, "frozen paths.*qLogNEI or qLogEI"),
        ("qLogEI", {"preferences": Preferences(ref_point=[-1.0, -1.0])}, "qLogEI has none"),
        ("qEHVI", {"preferences": Preferences(ref_point=[-1.0])}, "each of 2 objectives"),
        (
            "qLogEI",
            {
                "targets": None,
                "ofv": TargetTrackingOFV(
                    [TargetSpec(1, 14.0), TargetSpec(2, 97.0)], is_pareto=True
                ),
            },
            "keeps 2 parts apart",
        ),
    ],
)
def test_what_cannot_be_had_names_what_can(make, name, changes, words):
    policy = make(name, **changes)
    with pytest.raises(ConfigError, match=words):
        decide(policy)
    with pytest.raises(ConfigError, match=words):
        policy.decide_rack([ReactorNow(FACE, 3, MIDDLE)])


def test_an_incumbent_is_not_taken_where_points_are_compared_with(make):
    for name in ("qLogNEI", "qNEHVI"):
        with pytest.raises(ConfigError, match="best_f was given"):
            decide(make(name), best_f=-1.0)
    with pytest.raises(ConfigError, match="needs two or more"):
        TargetTrackingOFV([TargetSpec(1, 14.0)], is_pareto=True)


# ------------------------------------------------------------ plain surrogates


@pytest.fixture(scope="module")
def plain():
    lower, upper = map(np.asarray, SPACE.bounds_array)
    X = lower + (upper - lower) * np.random.default_rng(0).random((60, 6))
    z = (X - lower) / (upper - lower)
    Y = np.stack([-((z[:, 3] - 0.4) ** 2), -((z[:, 0] - 0.7) ** 2), -((z[:, 4] - 0.2) ** 2)], 1)
    Y = np.concatenate([Y, -((z[:, 2:3] - 0.5) ** 2)], axis=1)
    like = {"lengthscale": jnp.asarray(2 * (upper - lower)), "variance": 0.02, "noise": 1e-5}
    return {
        1: gaussian_process(X, Y[:, 0], constant=Y[:, 0].mean(), **like),
        2: gaussian_processes(X, Y[:, :2], constant=Y[:, :2].mean(axis=0), **like),
        4: gaussian_processes(X, Y, constant=Y.mean(axis=0), **like),
    }


def decide_plain(make, name, surrogate, **more):
    policy = make(name, n_restarts=2, n_raw_samples=16)
    return decide(policy, surrogate, **more)


@pytest.mark.parametrize("name", ["qLogNEI", "qKG"])
def test_plain_surrogates_of_one_objective(make, plain, name):
    now = {**MIDDLE, "temperature": 37.4}
    made = decide_plain(make, name, plain[1], u_now=now, u_plan=MIDDLE)
    assert made.acqf_name == made.explanation["acquisition"]["name"] == name
    names = list(SPACE.control_bounds)
    u = jnp.asarray([[made.recommended_controls[n] for n in names], [now[n] for n in names]])
    mean = plain[1].posterior(u)[0]
    if name == "qLogNEI":
        assert float(mean[0]) > float(mean[1])
        assert made.explanation["incumbent"] == "set-points in force and last plan together"
        return
    # knowledge is worth something, counted from the best that is expected without it
    assert made.explanation["incumbent"] == "the best expected value"
    assert made.explanation["acquisition"]["best_f"] >= float(mean.max()) - 1e-9
    assert made.acqf_value > 0.0


@pytest.mark.parametrize("name", SEVERAL_OBJECTIVES)
@pytest.mark.parametrize("m", [2, 4])
def test_plain_surrogates_of_several_objectives(make, plain, name, m):
    made = decide_plain(make, name, plain[m], u_plan=PLAN)
    said = made.explanation["acquisition"]
    assert made.acqf_name == said["name"] == name and np.isfinite(made.acqf_value)
    assert len(said["weights" if name == "qNParEGO" else "ref_point"]) == m
    assert made.explanation["incumbent"] == "set-points in force and last plan together"


def test_plain_surrogates_refuse_what_does_not_suit_them(make, plain):
    with pytest.raises(ConfigError, match="predicts one; use one of"):
        decide_plain(make, "qEHVI", plain[1])
    with pytest.raises(ConfigError, match="predicts 2; use one of qEHVI"):
        decide_plain(make, "qLogEI", plain[2])
    with pytest.raises(ConfigError, match="best_f was given"):
        decide_plain(make, "qLogNEI", plain[1], best_f=0.0)


def test_the_better_of_both_is_the_incumbent_of_a_plain_surrogate(make, plain):
    warm = {**MIDDLE, "temperature": 37.4}
    for now, plan, which in ((warm, MIDDLE, "last plan"), (MIDDLE, warm, "set-points in force")):
        made = decide_plain(make, "EI", plain[1], u_now=now, u_plan=plan)
        assert made.explanation["incumbent"] == which
