"""What a posterior and a model have to agree in before draws of the one move the other."""

import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.hybrid import HybridStateSpaceModel, Vessel
from perfusio_jax.mechanistic import CHOPerfusionModel, as_built, build_of, read_build
from perfusio_jax.simulator import plain_monod
from perfusio_jax.study import posterior_hash, posterior_mechanisms, save_posterior
from tests.hybrid.cultures import CHEMOSTAT, YEAST
from tests.study.calibration.made import culture_of, made_posterior
from tests.twin.described import FOREIGN, Foreign, known_model

NAMES = ("mu_max", "constant.uptake")
DRAWS = np.stack([np.linspace(0.03, 0.06, 40), np.linspace(0.004, 0.005, 40)], axis=1)[None]


@pytest.fixture(scope="module")
def model():
    return known_model()


def saved(place, *, draws=DRAWS, names=NAMES, problems=(), culture=None, mechanism=None, **more):
    found = made_posterior(names, draws, problems)
    about = culture or culture_of(FOREIGN, mechanism or Foreign(), **more)
    return save_posterior(found, place / "p", culture=about)


def drawn(model, folder, process=FOREIGN, **more):
    return posterior_mechanisms(model, process, folder, n=8, **more)


def test_draws_become_mechanisms_that_are_named(model, tmp_path):
    folder = saved(tmp_path)
    found = drawn(model, folder, seed=3)
    kinetics = found.drawn.kinetics
    pairs = {(float(a), float(b)) for a, b in zip(kinetics.mu_max, kinetics.uptake, strict=True)}
    assert len(pairs) == 8 and pairs <= {tuple(row) for row in DRAWS[0].tolist()}, "rows stay whole"
    np.testing.assert_array_equal(kinetics.crowding, np.full(8, 60.0))
    assert (
        found.sha256 == posterior_hash(made_posterior(NAMES, DRAWS)) and str(folder) in found.note
    )
    assert found.sha256 != posterior_hash(made_posterior(NAMES, 1.01 * DRAWS))
    again = drawn(model, folder, seed=3).drawn.kinetics.mu_max
    np.testing.assert_array_equal(again, kinetics.mu_max)
    assert not np.array_equal(drawn(model, folder, seed=4).drawn.kinetics.mu_max, again)


def test_draws_that_something_speaks_against_are_accepted_by_a_person_or_refused(model, tmp_path):
    bad = ("3 of 40 paths diverged",)
    folder = saved(tmp_path, problems=bad)
    with pytest.raises(ConfigError, match="not to be believed as it is: 3 of 40 paths diverged"):
        drawn(model, folder)
    told = drawn(model, folder, accept_warnings=True).told
    assert any("3 of 40 paths diverged" in line for line in told), "it is told all the same"
    drawn(model, saved(tmp_path, problems=bad, is_accepted=True))


def test_another_culture_and_a_changed_one_are_refused_with_the_differences(model, tmp_path):
    folder = saved(tmp_path)
    other = FOREIGN.model_copy(update={"name": "mine"})
    with pytest.raises(ConfigError, match="is of foreign, the model of mine"):
        drawn(model, folder, other)
    stream = FOREIGN.streams[0].model_copy(update={"carries": {"Glc": 9.0}})
    richer = FOREIGN.model_copy(update={"streams": (stream, *FOREIGN.streams[1:])})
    with pytest.raises(ConfigError, match=r"changed since: medium: carries is .*6.*9.*Calibrate"):
        drawn(model, folder, richer)
    wider = FOREIGN.controls[1].model_copy(update={"hi": 0.7, "default": 0.2})
    drawn(model, folder, FOREIGN.model_copy(update={"controls": (FOREIGN.controls[0], wider)}))


def test_another_mechanism_is_refused_by_name(model, tmp_path):
    monod = plain_monod(CHEMOSTAT)
    with pytest.raises(ConfigError, match="another mechanism.*they are Monod and Foreign"):
        drawn(model, saved(tmp_path, mechanism=monod))
    with pytest.raises(ConfigError, match="Foreign has no constant K_S; it has mu_max"):
        drawn(model, saved(tmp_path, names=("mu_max", "K_S")))
    bare = HybridStateSpaceModel(Vessel(FOREIGN), None)
    with pytest.raises(ConfigError, match="the model has no mechanism"):
        drawn(bare, saved(tmp_path))
    cho = HybridStateSpaceModel(CHOPerfusionModel(), None)
    with pytest.raises(ConfigError, match="another mechanism.*they are Foreign and CHOKinetics"):
        drawn(cho, saved(tmp_path))
    with pytest.raises(DataError, match="does not say what mechanism"):
        drawn(model, saved(tmp_path, build={"kind": "Foreign"}))


def test_what_constants_are_counted_in_comes_with_them(tmp_path):
    """A Monod mechanism made of a campaign counts rates in paces of its own."""
    calibrated = plain_monod(YEAST)
    other = eqx.tree_at(
        lambda m: (m.pace, m.spread, m.mu_max),
        calibrated,
        (3.0 * calibrated.pace, 2.0 * calibrated.spread, jnp.asarray(0.9)),
    )
    model = HybridStateSpaceModel(Vessel(YEAST, other), None)
    draws = np.array([0.1, 0.2, 0.3, 0.4]).reshape(1, 4, 1)
    folder = saved(
        tmp_path, names=("K_S",), draws=draws, culture=culture_of(YEAST, calibrated, "monod")
    )
    found = drawn(model, folder, YEAST)
    kinetics = found.drawn.kinetics
    np.testing.assert_array_equal(kinetics.pace[0], calibrated.pace)
    np.testing.assert_array_equal(kinetics.mu_max, np.full(8, float(calibrated.mu_max)))
    told = " ".join(found.told)
    assert "pace, spread, in which constants of Monod are counted" in told
    assert "mu_max were not calibrated and stay as they were then" in told


def test_a_model_that_learned_far_from_the_posterior_is_told(model, tmp_path):
    assert not any("learned around" in line for line in drawn(model, saved(tmp_path)).told)
    told = drawn(model, saved(tmp_path, draws=2.0 * DRAWS)).told
    assert any("outside of the posterior's 95 %: mu_max 0.045 (post" in line for line in told)


def test_a_build_is_kept_as_json_and_brings_the_mechanism_back():
    mine = eqx.tree_at(lambda m: m.poison, Foreign(), jnp.asarray(7.5))
    back = as_built(Foreign(), read_build(build_of(mine).as_json()))
    assert eqx.tree_equal(back, mine)
    with pytest.raises(ConfigError, match="not of one kind: they are Foreign and Monod"):
        as_built(mine, build_of(plain_monod(YEAST)))


def test_the_page_that_tells_of_it_runs(model, tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "studies.md").read_text(encoding="utf-8")
    (code,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "deal(" in b)
    monkeypatch.chdir(tmp_path)
    save_posterior(
        made_posterior(NAMES, DRAWS), "posterior", culture=culture_of(FOREIGN, Foreign())
    )
    known = {"model": model, "process": FOREIGN, "key": jax.random.key(0)}
    exec(code, known)
    assert known["paths"].mechanisms.n == known["paths"].n_paths == 64
