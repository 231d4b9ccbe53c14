"""The brain of the real twin: frozen, adaptive, and the same after a restart."""

from types import SimpleNamespace

import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER
from perfusio_jax.bed import BEDDecision
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.twin import ModelBrain, Situation
from perfusio_jax.twin.decision import model_brain
from perfusio_jax.twin.decision.brain import OnlineReading
from perfusio_jax.twin.decision.step import digest

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


def test_a_challenger_is_judged_by_what_comes_after_it_was_made(model, trained, monkeypatch):
    scores = {}
    monkeypatch.setattr(ModelBrain, "_score", lambda self, run, m, cut: scores.get(digest(m), 0.0))
    adaptive = brain(model, mode="adaptive", retrain_every=2)
    assert adaptive.learn(situation(2)) is None
    lesson = adaptive.learn(situation(3))
    assert lesson is not None and lesson.is_trial and not lesson.is_promoted
    assert adaptive.model is model and "judged by the next 3" in lesson.reason
    assert adaptive.learn(situation(4)) is None and adaptive.learn(situation(5)) is None
    assert adaptive.model is model and list(trained) == [3], "one on trial at a time"
    lesson = adaptive.learn(situation(6))
    assert lesson is not None and lesson.is_promoted and adaptive.model is trained[3]
    assert (lesson.old, lesson.new) == (digest(model), digest(trained[3]))
    assert lesson.details["rows"] == 3 and lesson.details["judged_by"] == 3
    lesson = adaptive.learn(situation(7))
    assert lesson is not None and lesson.is_trial and lesson.new == digest(trained[7])


@pytest.mark.parametrize(
    ("score", "is_promoted"), [(-0.6, False), (float("nan"), False), (-0.4, True), (9.0, True)]
)
def test_it_is_promoted_if_it_is_no_worse(model, trained, monkeypatch, score, is_promoted):
    worse = HybridStateSpaceModel(CHOPerfusionModel(volume_L=0.25 + 3 / 1e6), None)
    scores = {digest(worse): score}
    monkeypatch.setattr(ModelBrain, "_score", lambda self, run, m, cut: scores.get(digest(m), 0.0))
    adaptive = brain(model, mode="adaptive", retrain_every=2)
    adaptive.learn(situation(5))
    lesson = adaptive.learn(situation(6))
    assert lesson is not None and lesson.is_promoted is is_promoted
    assert (adaptive.model is trained[3]) is is_promoted
    assert ("no worse" in lesson.reason) is is_promoted


def test_a_challenger_that_learnt_the_run_by_heart_is_not_promoted(model, trained, monkeypatch):
    """It explains what it was made of better than anything, and what comes after not at all."""
    by_heart = {}

    def estimate(run, m, *, seed):
        fitted = by_heart.get(digest(m), 0)
        days = np.arange(run.n_days)
        level = np.where(days < fitted, 50.0, -5.0) if fitted else np.zeros(run.n_days)
        info = SimpleNamespace(log_likelihood=np.concatenate([level, [99.0]]))  # and padding
        return None, SimpleNamespace(info=info)

    monkeypatch.setattr(model_brain, "estimate", estimate)
    adaptive = brain(model, mode="adaptive", retrain_every=1)
    adaptive.learn(situation(3))
    by_heart[digest(trained[3])] = 3
    lesson = adaptive.learn(situation(6))
    assert lesson is not None and not lesson.is_promoted and adaptive.model is model
    assert lesson.details["challenger"] == -5.0 and lesson.details["champion"] == 0.0
    # over all samples, those it was made of among them, it would have won
    assert np.mean([50.0] * 3 + [-5.0] * 3) > 0.0
    # the next one, made of six samples, has to wait for three more
    assert [adaptive.learn(situation(n)) for n in (7, 8)] == [None, None]
    assert adaptive.learn(situation(9)).is_promoted and adaptive.model is trained[6]


def test_after_a_restart_it_comes_to_the_model_it_had(model, trained, monkeypatch):
    monkeypatch.setattr(
        ModelBrain, "_score", lambda self, run, m, cut: -float(cut == 7 and m is trained.get(7))
    )
    steady = brain(model, retrain_every=2)
    for n in range(1, 12):
        steady.learn(situation(n))
    restarted = brain(model, retrain_every=2)
    restarted.learn(situation(11))
    assert steady.model is restarted.model is trained[3]  # the one of seven rows was refused


def test_a_fit_that_fails_is_not_tried_again_on_the_same_samples(model, trained, monkeypatch):
    asked = []

    def train(self, run):
        asked.append(run.n_days)
        if run.n_days == 4:
            raise MemoryError("no room for the kernel")
        return HybridStateSpaceModel(CHOPerfusionModel(volume_L=0.26), None)

    monkeypatch.setattr(ModelBrain, "_trained", train)
    monkeypatch.setattr(ModelBrain, "_score", lambda self, run, m, cut: 0.0)
    monkeypatch.setattr(model_brain, "MIN_ROWS_FOR_GP", 4)
    one = brain(model, retrain_every=1)
    with pytest.raises(MemoryError):
        one.learn(situation(4))
    assert one.learn(situation(5)).is_trial and asked == [4, 5]
    later = brain(model, retrain_every=1)
    assert later.learn(situation(5)).is_trial  # made up for, its failure included
    assert later.learn(situation(8)).is_promoted and later.model is not model


def test_a_fit_nobody_waits_for_any_more_changes_nothing(model, trained, monkeypatch):
    one = brain(model, retrain_every=1)
    quick = ModelBrain._trained

    def slow(self, run):
        self.abandon()  # as the shell does when its patience ends
        return quick(self, run)

    monkeypatch.setattr(ModelBrain, "_trained", slow)
    assert one.learn(situation(3)) is None and one.model is model
    monkeypatch.setattr(ModelBrain, "_trained", quick)
    assert one.learn(situation(4)).is_trial

    def score(self, run, m, cut):
        self.abandon()
        return 0.0

    monkeypatch.setattr(ModelBrain, "_score", score)
    one.learn(situation(7))
    assert one.model is model, "a verdict that came too late"


def test_a_score_is_finite_and_of_the_samples_since_the_cut_off(model):
    one = brain(model)
    run = one.history(situation(6).rows)
    scores = [one._score(run, model, cut) for cut in (0, 3, 5)]
    assert np.all(np.isfinite(scores)) and len(set(scores)) == 3


def test_drift_is_said_when_too_few_readings_lie_in_their_bands():
    class Decided:
        class policy:
            explanation = {"ofv": 1.0}  # noqa: RUF012

        class outlook:
            @staticmethod
            def from_day(day):
                return {}

        day, setpoints, digest = 3, {}, "d"

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
