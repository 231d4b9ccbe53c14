"""What is said of draws that are not to be believed, checks of what would be read, and storage."""

import jax
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.study import Plan, calibrate, load_posterior, save_posterior
from perfusio_jax.study.calibration.chains import energy_shares, tail_shape
from perfusio_jax.study.calibration.checks import predictive_check
from perfusio_jax.study.calibration.posterior import against_chains, diagnosed
from perfusio_jax.study.calibration.sampling import Chains
from tests.study.calibration.problems import on_paper, problem, simulated

PLAN = Plan(n_warmup=20, n_draws=500, n_chains=4)


@pytest.fixture(scope="module")
def readings():
    return simulated(np.random.default_rng(5), np.array([1.0, -0.5]))


def chains(rng, **changed):
    """Draws of a sampler that did well, but for what is changed."""
    shape = (PLAN.n_chains, PLAN.n_draws)
    fine = Chains(
        u=rng.standard_normal((*shape, 2)),
        potential=rng.standard_normal(shape),
        energy=rng.standard_normal(shape),
        is_divergent=np.zeros(shape, bool),
        n_steps=np.full(shape, 3),
        accepted=np.full(shape, 0.9),
        step_size=np.full(4, 0.8),
        n_gradients=6000,
    )
    return fine._replace(**changed)


def said(readings, found):
    asked = problem(readings)
    return against_chains(asked, diagnosed(asked, found, PLAN), found, PLAN)


def test_nothing_speaks_against_good_draws(readings):
    assert said(readings, chains(np.random.default_rng(0))) == []


def test_a_chain_that_lies_elsewhere_is_named(readings):
    rng = np.random.default_rng(0)
    fine = chains(rng)
    u, potential = fine.u.copy(), fine.potential.copy()
    u[2, :, 0] += 8.0
    potential[2] += 30.0
    (told, *_) = said(readings, fine._replace(u=u, potential=potential))
    assert "the chains disagree" in told and "a " in told and "Chain 3 lies where" in told
    # one that only drifts is named as no other place
    u[2, :, 0] -= 7.5
    (told, *_) = said(readings, fine._replace(u=u))
    assert "the chains disagree" in told and "Chain" not in told


def test_paths_that_diverge_or_never_end_are_told(readings):
    rng = np.random.default_rng(0)
    lost = np.zeros((4, 500), bool)
    lost[1, 7] = True
    (told,) = said(readings, chains(rng, is_divergent=lost))
    assert told.startswith("1 of 2000 paths diverged") and "--target" in told
    deep = np.full((4, 500), 3)
    deep[:, :30] = 2**PLAN.max_depth - 1
    (told,) = said(readings, chains(rng, n_steps=deep))
    assert "120 of 2000 paths ended at the longest allowed (255 steps)" in told
    slow = np.cumsum(0.1 * rng.standard_normal((4, 500)), axis=1)
    assert np.all(energy_shares(slow) < 0.3)
    (told,) = said(readings, chains(rng, energy=slow))
    assert "E-BFMI" in told
    walk = np.cumsum(rng.standard_normal((4, 500, 2)), axis=1)
    words = " ".join(said(readings, chains(rng, u=walk)))
    assert "too few draws of the middle" in words and "too few draws of the tails" in words


def test_a_law_that_does_not_fit_is_known_by_its_weights():
    rng = np.random.default_rng(0)
    z = rng.standard_normal(400)
    assert tail_shape(0.01 * z) < 0.5  # nearly the same law
    wide = -0.5 * (z / 3.0) ** 2 + 0.5 * z**2  # a target three times as wide
    assert tail_shape(wide) > 0.7
    assert tail_shape(np.full(400, -np.inf)) == np.inf


def test_what_would_be_read_is_the_law_on_paper(readings):
    asked = problem(readings)
    mean, covariance = on_paper(readings)
    rng = np.random.default_rng(1)
    u = rng.multivariate_normal(mean, covariance, size=2000)
    found = predictive_check(asked, u, key=jax.random.key(0))
    hours = np.array([0.0, 2.0, 4.0, 7.0, 10.0])
    slopes = np.outer(hours, [0.2, 0.3])
    middle = 3.0 + 1.5 * hours + slopes @ mean
    sd = np.sqrt(np.einsum("ij,jk,ik->i", slopes, covariance, slopes) + 0.25)
    for k, z in enumerate((-1.96, -1.2816, 0.0, 1.2816, 1.96)):
        paper = np.maximum(middle + z * sd, 0.0)
        np.testing.assert_allclose(found.quantiles[k, 0, :, 0], paper, atol=0.12)
    assert found.n_lost == 0 and found.n_draws == 2000 and found.lines() == []
    # readings of another culture lie outside, and that is said
    far = problem(np.tile(readings, (3, 1)) + np.array([0.0, 4.0, -4.0, 4.0, -4.0]))
    told = predictive_check(far, u[:200], key=jax.random.key(0))
    assert told.inside[0.95][0] < 0.5 and "should hold 95 %" in told.lines()[0]
    assert 0.0 <= np.nanmin(told.place) and np.nanmax(told.place) <= 1.0


@pytest.fixture(scope="module")
def posterior(readings):
    return calibrate(problem(readings), method="map", plan=Plan(n_chains=2))


def test_a_posterior_is_kept_whole(posterior, tmp_path):
    folder = save_posterior(posterior, tmp_path / "p", culture={"process": "vial"})
    back, culture = load_posterior(folder)
    assert culture == {"process": "vial"}
    for name in ("prior", "draws", "by_clone", "noise", "starts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(posterior, name))
    assert back.names == ("a", "b") and back.problems == posterior.problems
    np.testing.assert_array_equal(back.check.quantiles, posterior.check.quantiles)
    assert back.of_clone() is not None and back.diagnostics is None
    text = (folder / "header.json").read_text()
    (folder / "header.json").write_text(text.replace("vial", "vat"))
    with pytest.raises(DataError, match="changed after the save"):
        load_posterior(folder)


def test_problems_are_kept_with_the_draws(posterior, tmp_path):
    bad = posterior._replace(problems=("3 of 10 paths diverged",))
    back, _ = load_posterior(save_posterior(bad, tmp_path / "p"))
    assert back.problems == ("3 of 10 paths diverged",)


def test_a_clone_nobody_calibrated_is_refused(posterior):
    two = posterior._replace(
        clones=("A", "B"), by_clone=np.repeat(posterior.by_clone, 2, axis=2) * [[1.0], [2.0]]
    )
    np.testing.assert_allclose(two.of_clone("B"), 2.0 * two.of_clone("A"))
    with pytest.raises(ConfigError, match="knows the clones A, B, and no 'C'"):
        two.of_clone("C")
