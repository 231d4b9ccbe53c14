"""Learning and deciding for described cultures: batches, feeds, boluses, challengers."""

import equinox as eqx
import jax
import numpy as np
import pytest

from perfusio_jax.hybrid import (
    AssayNoise,
    HybridStateSpaceModel,
    Vessel,
    drawn_mechanisms,
    fit_hybrid,
)
from perfusio_jax.study import PosteriorMechanisms
from perfusio_jax.twin import GateLimits, Situation
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.decision.described_brain import DescribedBrain
from perfusio_jax.twin.decision.described_objective import Objective, described_policy
from perfusio_jax.twin.decision.described_step import (
    decide_for_culture,
    described_history,
    estimate_described,
    forecast_described,
)
from perfusio_jax.twin.decision.step import digest
from tests.hybrid.cultures import FED, QUICK, YEAST, batch, batches
from tests.twin.described import SMALL

EVERY_H = 6.0


def policy(model, process, *goals, **more):
    cadence = Cadence(EVERY_H)
    limits = GateLimits.from_process(process, hours=EVERY_H)
    return described_policy(model, Objective(goals=goals, **more), limits, cadence=cadence, **SMALL)


# ------------------------------------------------------------------ a volume that moves


@pytest.fixture(scope="module")
def fed():
    noise = AssayNoise(np.full(2, 0.03), np.full(2, 0.1), via=None)
    return HybridStateSpaceModel(
        Vessel(FED), None, dt_hours=EVERY_H, assay=noise, process_sd=np.full(2, 1e-3)
    )


def fed_rows(n, *, bolus=0.0):
    return [
        {
            "day": EVERY_H * k / 24.0,
            "time_h": EVERY_H * k,
            "values": {"X": 5.0, "S": 10.0},
            "controls": {"feed_rate": 10.0, "S_bolus": bolus if k == n - 1 else 0.0},
        }
        for k in range(n)
    ]


def test_a_feed_is_decided_and_a_bolus_of_this_sample_is_reckoned_with(fed):
    goal = policy(fed, FED, "S = 100", horizon_days=1)
    assert goal.controls == ("feed_rate",)
    given = {"u_now": {"feed_rate": 10.0}, "seed": 1, "n_particles": 32, "n_paths": 16}
    given |= {"sample_h": EVERY_H, "day": 0.25}
    bare = decide_for_culture(described_history(fed_rows(2), FED), fed, goal, **given)
    # 10 mL/h of 400 g/L over 6 h into 1 L
    assert bare.volume_L == pytest.approx(1.06)
    fuller = decide_for_culture(described_history(fed_rows(2, bolus=20.0), FED), fed, goal, **given)
    k = fed.layout.forecast.index("S")
    assert fuller.unchanged.mean[0, k] - bare.unchanged.mean[0, k] == pytest.approx(
        20.0 / 1.06, rel=0.15
    )
    assert fuller.setpoints["feed_rate"] < bare.setpoints["feed_rate"]


def test_a_bolus_is_given_once_over_the_horizon(fed):
    known = estimate_described(described_history(fed_rows(2), FED), fed, seed=1, n_particles=32)
    now = {"feed_rate": 0.0, "S_bolus": 10.0}
    ahead = forecast_described(known, now, hours=[6.0, 12.0, 18.0], seed=1, n_paths=32)
    k = fed.layout.forecast.index("S")
    np.testing.assert_allclose(ahead.mean[:, k], ahead.mean[0, k], rtol=0.02)


# ------------------------------------------------------------------ challengers


@pytest.fixture(scope="module")
def yeast():
    """A model of batches, and samples of another batch as the journal holds them."""
    runs, _ = batches(3)
    model, _ = fit_hybrid(runs, key=jax.random.key(0), config=QUICK, process=YEAST)
    hours = EVERY_H * np.arange(8)
    values, _ = batch(np.random.default_rng(7), hours, 27.0, [0.4, 40.0, 0.0])
    rows = [
        {
            "day": h / 24.0,
            "time_h": h,
            "values": dict(zip(YEAST.readings, v.tolist(), strict=True)),
            "controls": {"temperature": 27.0},
        }
        for h, v in zip(hours, values, strict=True)
    ]
    return model, rows


def situation(rows, n):
    return Situation(rows[n - 1]["day"], rows[:n], {"temperature": 27.0})


def brain(model, **more):
    settings = {"seed": 3, "run_id": "r", "n_paths": 16, "sample_h": EVERY_H, **more}
    goal = policy(model, YEAST, "max P", horizon_days=1)
    return DescribedBrain(model, goal, **settings)


def test_a_challenger_of_this_run_is_judged_by_the_samples_after_it(yeast):
    model, rows = yeast
    one = brain(model, retrain_every=2)
    assert one.learn(situation(rows, 2)) is None
    made = one.learn(situation(rows, 3))
    assert made is not None and made.is_trial and made.old == digest(model) != made.new
    assert one.learn(situation(rows, 4)) is None
    verdict = one.learn(situation(rows, 6))
    assert verdict is not None and not verdict.is_trial and verdict.details["judged_by"] == 3
    assert np.isfinite([verdict.details["champion"], verdict.details["challenger"]]).all()
    # a restart comes to the same model
    again = brain(model, retrain_every=2)
    again.learn(situation(rows, 6))
    assert digest(again.model) == digest(one.model)


def test_a_brain_that_learns_decides_under_a_posterior(yeast):
    model, rows = yeast
    own = model.mech_model.kinetics
    draws = float(own.mu_max) * np.linspace(0.8, 1.2, 4)[:, None]
    drawn = drawn_mechanisms(own, ["mu_max"], draws)
    posterior = PosteriorMechanisms(drawn, "f00d" * 16, "here", ())
    one = brain(model, retrain_every=2, posterior=posterior)
    one.learn(situation(rows, 6))
    found = one.propose(situation(rows, 6))
    assert found.explanation["posterior"]["draws"] == 4
    plain = brain(model, retrain_every=2)
    plain.learn(situation(rows, 6))
    assert digest(one.model) == digest(plain.model), "it learns around the model's own constants"
    other = plain.propose(situation(rows, 6))
    assert found.digest != other.digest
    spread = [np.std(p.native.unchanged.samples[:, -1, 0]) for p in (found, other)]
    assert spread[0] > spread[1]


def test_a_frozen_brain_never_learns_and_proposes_the_same_bytes(yeast):
    model, rows = yeast
    one, two = brain(model, mode="frozen"), brain(model, mode="frozen")
    assert one.learn(situation(rows, 6)) is None and one.model is model
    a, b = one.propose(situation(rows, 3)), two.propose(situation(rows, 3))
    assert a.digest == b.digest and dict(a.setpoints) == dict(b.setpoints)
    assert set(a.setpoints) == {"temperature"} and tuple(a.species) == YEAST.readings
    assert abs(a.setpoints["temperature"] - 27.0) <= 7.5 * EVERY_H / 24.0 + 1e-9
    assert one.outlook(situation(rows, 3)) is None, "online tags follow nothing here"


def test_a_digest_knows_no_place_in_memory():
    """Else no decision of a fitted model would come out the same in another process."""

    class Engine:
        pass

    class Node(eqx.Module):
        engine: Engine = eqx.field(static=True)
        size: int = eqx.field(static=True, default=3)

    one, two = Node(Engine()), Node(Engine())
    assert str(jax.tree.structure(one)) != str(jax.tree.structure(two))
    assert digest(one) == digest(two) != digest(Node(Engine(), 4))


def test_a_model_without_a_learned_part_has_no_challenger(fed):
    rows = fed_rows(12)
    goal = policy(fed, FED, "S = 25", horizon_days=1)
    one = DescribedBrain(fed, goal, seed=1, run_id="r", sample_h=EVERY_H)
    asked = Situation(rows[-1]["day"], rows, {"feed_rate": 10.0})
    assert one.learn(asked) is None and one.model is fed
