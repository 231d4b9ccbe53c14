"""Described cultures: fitted, judged, saved, forecast, their mechanisms moved by data."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.hybrid import (
    Vessel,
    fit_hybrid,
    for_clone,
    forecast_ahead,
    forecast_unseen,
    judge_fit,
    load,
    model_hash,
    readings_of,
    save,
    skill,
    stack_runs,
)
from perfusio_jax.hybrid.campaign import in_steps
from perfusio_jax.hybrid.constants import Rates, fit_constants
from perfusio_jax.hybrid.culture_storage import culture_of, empty_vessel
from perfusio_jax.hybrid.layout import CHO, layout_of
from perfusio_jax.mechanistic import (
    ConsortiumKinetics,
    Mechanism,
    Monod,
    cho_cells,
    constant,
    moved,
    n_movable,
)
from perfusio_jax.process import CHO_FED_BATCH, CONSORTIUM
from perfusio_jax.states import on_grid, usual_step_h

from .cultures import QUICK, YEAST, batches


@pytest.fixture(scope="module")
def campaign():
    return batches(6)


OUT = 2


def known(campaign):
    return [run for k, run in enumerate(campaign[0]) if k != OUT]


@pytest.fixture(scope="module")
def plain(campaign):
    """Without a mechanism; one run is left out."""
    return fit_hybrid(
        known(campaign), key=jax.random.key(0), config=QUICK, process=YEAST, mech_model="none"
    )


@pytest.fixture(scope="module")
def monod(campaign):
    return fit_hybrid(known(campaign), key=jax.random.key(0), config=QUICK, process=YEAST)


def test_a_batch_nobody_has_seen_is_forecast_from_its_first_samples(campaign, monod):
    runs, true = campaign
    model, _ = monod
    row = 3
    start = runs[OUT].slice_days(0, 1)
    assert start.n_days == 4
    ahead = np.asarray(runs[OUT].times_h)[row + 1 :] - float(runs[OUT].times_h[row])
    found = forecast_ahead(model, start, ahead.tolist(), n_samples=128)
    assert found.names == YEAST.readings
    error = np.abs(found.q50 - true[OUT][row + 1 :])
    nothing = np.abs(np.asarray(start.species)[-1] - true[OUT][row + 1 :])
    assert np.all(error.mean(axis=0) < 0.35 * nothing.mean(axis=0)), (error, nothing)
    seen = np.asarray(runs[OUT].species)[row + 1 :]
    assert np.mean((seen >= found.q10) & (seen <= found.q90)) > 0.5


def test_forecasts_of_runs_left_out_are_scored_by_the_names_of_the_culture(campaign, plain):
    model, _ = plain
    runs = in_steps([campaign[0][OUT]], YEAST)
    length = runs[0].n_days
    readings = readings_of(runs, length, model.layout.forecast)
    stacked = stack_runs(runs, length=length, layout=model.layout)
    found = forecast_unseen(
        model,
        stacked,
        jnp.asarray(readings),
        key=jax.random.key(1),
        starts=(0, 2, 4),
        horizon=2,
        n_paths=48,
        n_particles=48,
    )
    scores = skill(found, readings)
    assert scores.rrmse.shape == (2, 3) and np.isfinite(scores.rrmse).all()
    assert np.all(scores.rrmse[0] < 0.6)


def test_a_fit_says_how_good_it_is_by_the_names_of_the_culture(campaign, plain):
    verdict = judge_fit(plain[0], known(campaign))
    assert verdict is not None and verdict.species == YEAST.readings
    assert set(verdict.fit) == set(YEAST.readings)


@pytest.mark.parametrize("which", ["plain", "monod"])
def test_a_model_of_a_described_culture_comes_back_bit_for_bit(which, request, tmp_path):
    model, _ = request.getfixturevalue(which)
    again = load(save(model, tmp_path))
    assert model_hash(again) == model_hash(model)
    assert again.layout == model.layout
    assert jax.tree.structure(again) == jax.tree.structure(model)


def test_the_plain_mechanism_lives_on_what_is_taken_up(monod):
    kinetics = monod[0].mech_model.kinetics
    assert isinstance(kinetics, Monod)
    assert (kinetics.biomass, kinetics.substrate, kinetics.others) == ("X", "S", ("P",))
    assert 0.05 < float(kinetics.mu_max) < 0.6
    assert 1.5 < float(kinetics.a_S) < 4.0  # 1 / 0.4 in truth


def test_a_forecast_is_by_the_clone_of_its_run(campaign):
    runs = [dataclasses.replace(run, clone_id="AB"[k % 2]) for k, run in enumerate(known(campaign))]
    model, _ = fit_hybrid(
        runs, key=jax.random.key(0), config=QUICK, process=YEAST, mech_model="none"
    )
    start = runs[0].slice_days(0, 1)
    by_run = forecast_ahead(model, start, [24.0], n_samples=32)
    told = forecast_ahead(for_clone(model, "A"), start, [24.0], n_samples=32)
    np.testing.assert_array_equal(by_run.q50, told.q50)
    with pytest.raises(ConfigError, match="C"):
        forecast_ahead(model, dataclasses.replace(start, clone_id="C"), [24.0])


class Mine(Mechanism):
    """A mechanism as a user writes it: thirty lines at most."""

    mu_max: jax.Array = constant(0.1, unit="1/h", log_sd=0.7)
    K_S: jax.Array = constant(1.0, unit="g/L", log_sd=1.0)
    y: jax.Array = constant(0.6, unit="g/g", log_sd=0.5)
    crowd: jax.Array = constant(30.0, unit="g/L", log_sd=0.7)
    fixed: jax.Array = constant(29.0, unit="degC")

    def rates(self, state, environment):
        x, s = state["X"], state["S"]
        warm = jnp.exp(-(((environment["temperature"] - self.fixed) / 5.0) ** 2))
        mu = self.mu_max * s / (self.K_S + s) / (1.0 + x / self.crowd) * warm
        return {"X": mu * x, "S": -mu / self.y * x}


def test_constants_are_found_where_the_rates_were_made_with_them_and_fixed_ones_stay():
    rng = np.random.default_rng(1)
    truth = Mine(mu_max=0.2, K_S=3.0, y=0.4, crowd=12.0)
    layout = layout_of(YEAST)
    states = np.stack(
        [rng.uniform(0.2, 30, 200), rng.uniform(0.2, 90, 200), rng.uniform(0, 9, 200)], axis=1
    )
    controls = rng.uniform(25, 33, (200, 1))

    def rates(mechanism, c, u):
        named = {n: c[k] for k, n in enumerate(layout.states)}
        found = mechanism.rates(named, {"temperature": u[0], "volume_L": 1.0})
        return jnp.stack([found["X"], found["S"], jnp.zeros(())])

    made = jax.vmap(lambda c, u: rates(truth, c, u))(jnp.asarray(states), jnp.asarray(controls))
    unit = np.maximum(np.abs(np.asarray(made)), 1e-3)
    wrong = np.asarray(made).copy()
    wrong[::20] *= 4.0  # one in twenty is nonsense
    data = Rates(*(jnp.asarray(v) for v in (states, controls, wrong, unit)), jnp.ones(200, bool))
    found, how = fit_constants(Mine(), layout, data, jnp.ones(()))
    for name in ("mu_max", "K_S", "y", "crowd"):
        assert float(getattr(found, name)) == pytest.approx(float(getattr(truth, name)), rel=0.1)
    assert float(found.fixed) == 29.0
    assert how.z.shape == (4,) and np.all(how.after[:2] < how.before[:2])


def test_a_mechanism_moves_by_its_own_deviations():
    mine = Mine()
    assert n_movable(mine) == 4
    there = moved(mine, jnp.asarray([1.0, 0.0, -1.0, 0.0]))
    assert float(there.mu_max) == pytest.approx(0.1 * np.exp(0.7))
    assert float(there.y) == pytest.approx(0.6 * np.exp(-0.5))


def test_a_saved_model_knows_the_mechanisms_of_this_library(tmp_path):
    for process, kinetics in (
        (CHO_FED_BATCH, cho_cells(CHO_FED_BATCH)),
        (CONSORTIUM, ConsortiumKinetics()),
    ):
        vessel = Vessel(process, kinetics)
        told = SimpleNamespace(layout=vessel.layout, mech_model=vessel)
        again = empty_vessel(json.loads(json.dumps(culture_of(told))), None)
        assert jax.tree.structure(again) == jax.tree.structure(vessel)


def test_a_model_with_a_mechanism_of_ones_own_needs_it_to_be_loaded(campaign, tmp_path):
    model, report = fit_hybrid(
        campaign[0][:4], key=jax.random.key(0), config=QUICK, process=YEAST, mech_model=Mine()
    )
    assert report.details["calibration"]
    save(model, tmp_path)
    with pytest.raises(ConfigError, match="mechanism Mine, which is not part"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="a Monod was given"):
        load(tmp_path, mech_model=monod_like())
    assert model_hash(load(tmp_path, mech_model=Mine())) == model_hash(model)


def monod_like():
    scalars = dict.fromkeys(("mu_max", "K_S", "K_C", "decay", "a_S", "b_S", "k_S", "K_R"), 1.0)
    none = dict.fromkeys(("a", "b", "c", "k", "pace", "size", "e", "middle", "spread"), np.zeros(0))
    return Monod(**scalars, **none, biomass="X", substrate="S", others=(), controls=())


@pytest.mark.parametrize("bad", ["Monod", 3.0])
def test_what_is_no_mechanism_is_refused(campaign, bad):
    with pytest.raises(ConfigError, match="mechanism"):
        fit_hybrid(campaign[0], key=jax.random.key(0), config=QUICK, process=YEAST, mech_model=bad)


def test_a_quantity_nobody_read_and_a_lone_run_are_refused(campaign):
    blind = [
        dataclasses.replace(r, species=np.asarray(r.species) * [1.0, np.nan, 1.0])
        for r in campaign[0]
    ]
    with pytest.raises(DataError, match="S was not measured in any of the 6 runs"):
        fit_hybrid(blind, key=jax.random.key(0), config=QUICK, process=YEAST)
    with pytest.raises(DataError, match="two or more"):
        fit_hybrid(campaign[0][:1], key=jax.random.key(0), config=QUICK, process=YEAST)


def test_forecasts_ahead_refuse_hours_that_fall_and_controls_nobody_knows(campaign, plain):
    run = campaign[0][0]
    with pytest.raises(ConfigError, match="rise"):
        forecast_ahead(plain[0], run, [6.0, 3.0])
    with pytest.raises(ConfigError, match="is no control of yeast"):
        forecast_ahead(plain[0], run, [6.0], {"stirring": 3.0})
    blank = dataclasses.replace(run, controls=np.full((run.n_days, 1), np.nan))
    with pytest.raises(DataError, match="does not tell temperature"):
        forecast_ahead(plain[0], blank, [6.0])
    with pytest.raises(DataError, match="no sample"):
        forecast_ahead(plain[0], run.slice_days(0, 0), [6.0])


def test_long_intervals_are_cut_and_boluses_given_once():
    runs, _ = batches(2)
    run = runs[0]
    assert usual_step_h(runs) == 6.0
    cut = on_grid(run, 6.0, once=("temperature",))
    hours = np.asarray(cut.times_h)
    assert np.diff(hours).max() <= 9.0 and set(np.asarray(run.times_h)) <= set(hours)
    new = ~np.isin(hours, np.asarray(run.times_h))
    assert new.sum() == 4  # 36 to 48 in two, 60 to 84 in four
    assert np.isnan(np.asarray(cut.species)[new]).all()
    assert np.all(np.asarray(cut.controls)[new] == 0.0)
    kept = on_grid(run, 6.0)
    assert np.all(np.asarray(kept.controls) == np.asarray(run.controls)[0])
    assert on_grid(run, 24.0) is run


def test_cho_without_some_assays_keeps_what_nobody_measured_latent():
    few = CHO.without(["Gln", "Amm"])
    assert few.latent == (3, 6) and not few.is_seen[3] and few.is_cho
    assert CHO.latent == () and CHO.is_seen.all()
    with pytest.raises(ConfigError, match="Osm"):
        CHO.without(["Osm"])
