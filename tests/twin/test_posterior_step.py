"""Decisions for a run under what is not known of the mechanism's constants."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.policy import described
from perfusio_jax.hybrid import HybridStateSpaceModel, Vessel, at_draw, drawn_mechanisms
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.simulator import plain_monod
from perfusio_jax.study import PosteriorMechanisms
from perfusio_jax.twin import Situation
from perfusio_jax.twin.decision.described_brain import DescribedBrain
from perfusio_jax.twin.decision.described_step import (
    decide_for_culture,
    described_history,
    estimate_described,
    forecast_described,
)
from perfusio_jax.twin.decision.given import check_drawn
from tests.hybrid.cultures import YEAST
from tests.twin.described import FOREIGN, HELD, Foreign, known_model, policy_for, rows

SIZES = {"n_particles": 32, "n_paths": 16, "seed": 1}
WIDE = 0.045 * np.exp(0.25 * np.random.default_rng(0).standard_normal((5, 1)))
K = 0  # VCD


def drawn(values):
    return drawn_mechanisms(Foreign(), ["mu_max"], np.asarray(values, float))


@pytest.fixture(scope="module")
def model():
    return known_model()


@pytest.fixture(scope="module")
def policy(model):
    return policy_for(
        model,
        "VCD = 28",
        limits=("Via >= 60",),
        controls=("bleed_rate",),
        max_change={"bleed_rate": 0.5},
    )


def decided(model, policy, mechanisms=None, n=3, **more):
    history = described_history(rows(n), FOREIGN)
    given = {"u_now": HELD, "mechanisms": mechanisms, **SIZES, **more}
    return decide_for_culture(history, model, policy, **given)


def test_draws_that_are_alike_decide_what_those_constants_decide(model, policy):
    alike = drawn(np.full((5, 1), 0.05))
    there = decided(at_draw(model, alike, np.asarray(0)), policy)
    found = decided(model, policy, alike)
    assert 0.11 < there.setpoints["bleed_rate"] < 0.49, "no bound decides"
    assert found.setpoints["bleed_rate"] == pytest.approx(there.setpoints["bleed_rate"], rel=1e-6)
    for what in ("forecast_mean", "forecast_q10", "forecast_q90"):
        seen, known = (getattr(d.policy, what)["VCD"] for d in (found, there))
        np.testing.assert_allclose(seen, known, rtol=1e-6)
    np.testing.assert_allclose(found.outlook.samples, there.outlook.samples, rtol=1e-6)
    np.testing.assert_allclose(found.unchanged.reading_q90, there.unchanged.reading_q90, rtol=1e-9)
    assert found.state_mean == pytest.approx(there.state_mean, rel=1e-9)
    assert found.state_sd == pytest.approx(there.state_sd, rel=1e-9)
    assert found.innovation == pytest.approx(there.innovation, rel=1e-9)
    assert found.coverage == there.coverage and found.digest != there.digest


def test_every_path_is_that_of_a_filter_and_a_model_with_its_constants(model):
    run, wide = described_history(rows(4), FOREIGN), drawn(WIDE)
    sizes = {"seed": 5, "n_particles": 32}
    known = estimate_described(run, model, mechanisms=wide, **sizes)
    asked = {"hours": [24.0, 48.0], "seed": 5, "n_paths": 12}
    found = forecast_described(known, HELD, **asked)
    for k in range(5):  # by brute force: nothing but the draw
        alone = estimate_described(run, at_draw(model, wide, np.asarray(k)), **sizes)
        there = forecast_described(alone, HELD, **asked)
        for s in range(k, 12, 5):
            np.testing.assert_allclose(found.samples[s], there.samples[s], rtol=1e-9)
    assert known.draws is not None and known.belief.particles.shape == (160, 4)
    np.testing.assert_allclose(known.offset, np.mean(known.draws.offset, axis=0), rtol=1e-12)


def test_the_search_meets_each_draw_with_its_own_state_and_offset(model, policy, monkeypatch):
    met = {}

    def look(_, paths, start, *__, scan, **___):
        met.update(whole=(paths, start), scan=scan)
        raise InterruptedError

    monkeypatch.setattr(described, "recommend", look)
    run, wide = described_history(rows(4), FOREIGN), drawn(WIDE)
    known = estimate_described(run, model, seed=5, n_particles=32, mechanisms=wide)
    asked = {"day": 3.0, "volume_L": known.volume_L, "seed": 5}
    now = {**HELD}
    with pytest.raises(InterruptedError):
        described.decide_described(policy, model, known.belief, now, draws=known.draws, **asked)
    with_draws = met.copy()
    alone = known._replace(offset=known.draws.offset[1])  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(InterruptedError):
        described.decide_described(policy, model, known.belief, now, offset=alone.offset, **asked)
    for part, n in (("whole", 8), ("scan", 4)):
        paths, start = with_draws[part]
        turn = np.arange(n) % 5
        np.testing.assert_array_equal(paths.mechanisms.kinetics.mu_max, WIDE[turn, 0])
        for s, k in enumerate(turn):
            states = np.asarray(known.draws.particles[k])  # pyright: ignore[reportOptionalMemberAccess]
            assert (states == np.asarray(start[s])).all(axis=1).any(), "a state of that filter"
        np.testing.assert_allclose(paths.process[1], met[part][0].process[1], rtol=1e-9)
        assert not np.allclose(paths.process[2], met[part][0].process[2], rtol=1e-6)


def test_what_is_not_known_of_constants_is_in_bands_state_and_limits(model, policy):
    many = {"n_paths": 128}
    alone, found = decided(model, policy, **many), decided(model, policy, drawn(WIDE), **many)
    narrow, wide = ((d.unchanged.q90 - d.unchanged.q10)[-1, K] for d in (alone, found))
    assert wide > 1.4 * narrow
    assert found.state_sd["VCD"] > alone.state_sd["VCD"]
    ahead = found.policy.explanation["forecast_unchanged"]
    before = alone.policy.explanation["forecast_unchanged"]
    assert ahead["mean"]["VCD"] != before["mean"]["VCD"], "the search met the draws"
    assert found.coverage[0] >= alone.coverage[0], "wider bands hold no fewer readings"
    again = decided(model, policy, drawn(WIDE), **many)
    assert again.setpoints == found.setpoints and again.digest == found.digest
    assert again.outlook.samples.tobytes() == found.outlook.samples.tobytes()
    assert decided(model, policy, drawn(1.01 * WIDE)).digest != found.digest


def test_a_brain_names_the_posterior_that_decided(model, policy):
    posterior = PosteriorMechanisms(drawn(WIDE), "f00d" * 16, "here", ())
    table = rows(3)
    asked = Situation(table[-1]["day"], table, HELD)
    more = {"seed": 1, "run_id": "r", "n_paths": 16, "mode": "frozen"}
    one, two = (DescribedBrain(model, policy, posterior=p, **more) for p in (posterior, None))
    made = one.propose(asked)
    assert made.explanation["posterior"] == {"source": "here", "sha256": "f00d" * 16, "draws": 5}
    plain = two.propose(asked)
    assert "posterior" not in plain.explanation and plain.digest != made.digest


def test_draws_of_another_mechanism_are_refused(model):
    wide = drawn(WIDE)
    check_drawn(model, wide)
    with pytest.raises(ConfigError, match="given without a model"):
        check_drawn(None, wide)
    with pytest.raises(ConfigError, match="a model that has no mechanism"):
        check_drawn(HybridStateSpaceModel(Vessel(FOREIGN), None), wide)
    with pytest.raises(ConfigError, match="of a described culture; a twin of CHO perfusion"):
        check_drawn(HybridStateSpaceModel(CHOPerfusionModel(), None), wide)
    other = HybridStateSpaceModel(Vessel(YEAST, plain_monod(YEAST)), None)
    with pytest.raises(ConfigError, match="of Foreign were given, and .* is Monod"):
        check_drawn(other, wide)
