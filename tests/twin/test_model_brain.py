"""The brain of the real twin: frozen, adaptive, and the same after a restart."""

import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER
from perfusio_jax.bed import BEDDecision
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.twin import ModelBrain, Situation, model_brain
from perfusio_jax.twin.entries import OnlineReading
from perfusio_jax.twin.step import digest

CENTRE = DEFAULT_AMBR250_DESIGN_SPACE.centre
LEVELS = (12.0, 96.0, 3.0, 4.0, 2.0, 15.0, 3.0, 1.0, 400.0)


class Steady:
    """Asks for the same every day."""

    design_space = DEFAULT_AMBR250_DESIGN_SPACE

    class ofv:
        horizon = 3

    def decide(self, belief, day, model, *, seed, u_now, timestamp, fixed):
        return BEDDecision(timestamp, day, dict(CENTRE), 0.0, "qLogEI", {})


def situation(n: int, *, tags=False, readings=()) -> Situation:
    rows = []
    for day in range(n):
        values = {
            name: level * (1.0 + 0.02 * np.sin(day + k))
            for k, (name, level) in enumerate(zip(STATE_ORDER, LEVELS, strict=True))
        }
        rows.append(
            {
                "day": day,
                "time_h": 24.0 * day,
                "values": values,
                "controls": {c: CENTRE[c] for c in CONTROL_NAMES},
                "stream_totals": {},
                "tags": {"capacitance": 2.0 * values["VCD"] + 1.0} if tags else {},
            }
        )
    return Situation(n - 1, rows, {c: CENTRE[c] for c in CONTROL_NAMES}, {}, readings)


@pytest.fixture(scope="module")
def model() -> HybridStateSpaceModel:
    return HybridStateSpaceModel(CHOPerfusionModel(), None)


def brain(model, **settings) -> ModelBrain:
    settings = {"seed": 3, "volume_L": 0.25, "run_id": "r", "n_paths": 16, **settings}
    return ModelBrain(model, Steady(), **settings)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def trained(monkeypatch, model):
    """Training that takes no time: one model per number of rows, told apart by its volume."""
    made = {}

    def train(self, run):
        n = run.n_days
        if n not in made:
            made[n] = HybridStateSpaceModel(CHOPerfusionModel(volume_L=0.25 + n / 1e6), None)
        return made[n]

    monkeypatch.setattr(ModelBrain, "_trained", train)
    monkeypatch.setattr(model_brain, "MIN_ROWS_FOR_GP", 3)
    return made


def test_frozen_never_learns_and_gives_the_same_bytes(model, trained):
    one, two = brain(model, mode="frozen"), brain(model, mode="frozen")
    assert one.learn(situation(5)) is None and one.model is model
    a, b = one.propose(situation(5)), two.propose(situation(5))
    assert a.digest == b.digest and dict(a.setpoints) == dict(b.setpoints)
    assert a.forecast["samples"].tobytes() == b.forecast["samples"].tobytes()
    assert one.propose(situation(4)).digest != a.digest
    inside, total = a.explanation["coverage"]
    assert 0 <= inside <= total == 4 * len(STATE_ORDER)


def test_adaptive_promotes_what_is_no_worse_and_keeps_the_champion_otherwise(
    model, trained, monkeypatch
):
    scores = {}
    monkeypatch.setattr(ModelBrain, "_score", lambda self, run, m: scores.get(digest(m), 0.0))
    adaptive = brain(model, mode="adaptive", retrain_every=2)
    assert adaptive.learn(situation(2)) is None
    lesson = adaptive.learn(situation(3))
    assert lesson is not None and lesson.is_promoted and adaptive.model is trained[3]
    assert (lesson.old, lesson.new) == (digest(model), digest(trained[3]))
    assert adaptive.learn(situation(4)) is None, "every second sample"
    worse = HybridStateSpaceModel(CHOPerfusionModel(volume_L=0.25 + 5 / 1e6), None)
    for score in (-0.6, float("nan")):
        scores[digest(worse)] = score
        adaptive._learnt_rows = 4
        lesson = adaptive.learn(situation(5))
        assert lesson is not None and not lesson.is_promoted and "worse" in lesson.reason
        assert adaptive.model is trained[3]
    scores[digest(worse)] = -0.4  # within the tolerance
    adaptive._learnt_rows = 4
    assert adaptive.learn(situation(5)).is_promoted and adaptive.model is trained[5]


def test_after_a_restart_it_comes_to_the_model_it_had(model, trained, monkeypatch):
    monkeypatch.setattr(
        ModelBrain, "_score", lambda self, run, m: -float(run.n_days == 5 and m is trained.get(5))
    )
    steady = brain(model, retrain_every=2)
    for n in range(1, 7):
        steady.learn(situation(n))
    restarted = brain(model, retrain_every=2)
    restarted.learn(situation(6))
    assert steady.model is restarted.model is trained[3]  # the one of five rows was refused


def test_a_score_is_finite_and_prefers_the_model_that_fits(model):
    one = brain(model)
    run = one.history(situation(6).rows)
    assert np.isfinite(one._score(run, model))


def test_drift_is_said_when_too_few_readings_lie_in_their_bands():
    class Decided:
        class policy:
            explanation = {"ofv": 1.0}  # noqa: RUF012

        class outlook:
            @staticmethod
            def as_dict():
                return {}

        setpoints, digest = {}, "d"

    for coverage, is_drift in (((8, 20), True), ((12, 20), False), ((0, 10), False)):
        Decided.coverage = coverage
        explanation = model_brain.as_proposal(Decided).explanation  # pyright: ignore
        assert ("drift" in explanation) is is_drift, coverage


def test_online_readings_move_the_outlook_and_need_enough_pairs(model):
    later = [OnlineReading("capacitance", 120.0 + h, 60.0, "good") for h in (4.0, 8.0)]
    low = [OnlineReading("capacitance", 120.0 + h, 20.0, "good") for h in (4.0, 8.0)]
    one = brain(model)
    high_view = one.outlook(situation(6, tags=True, readings=later))
    low_view = one.outlook(situation(6, tags=True, readings=low))
    vcd = STATE_ORDER.index("VCD")
    assert high_view.forecast["mean"][0, vcd] > low_view.forecast["mean"][0, vcd]
    assert one.outlook(situation(6, readings=later)) is None, "no pairs to learn the probe from"
    assert one.outlook(situation(6, tags=True)) is None, "no readings"
    bad = [OnlineReading("capacitance", 124.0, None, "bad")]
    assert one.outlook(situation(6, tags=True, readings=bad)) is None
