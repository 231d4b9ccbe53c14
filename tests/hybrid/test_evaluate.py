"""Scores of unseen runs: against sums by hand, masks, cross-validation, health of innovations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, ConfigError, DataError
from perfusio_jax.hybrid import (
    assimilate_run,
    coverage_band,
    cross_validate,
    forecast_unseen,
    innovation_health,
    pick,
    readings_of,
    skill,
    stack_runs,
)
from perfusio_jax.hybrid.evaluate import Forecasts, _place
from perfusio_jax.hybrid.model import at_clone
from perfusio_jax.metrics import crps, probability_integral_transform
from tests.hybrid.cases import campaign
from tests.hybrid.conftest import SMALL


def test_place_and_score_equal_the_metrics():
    rng = np.random.default_rng(0)
    draws, seen = rng.normal(size=(50, 3, 4)), rng.normal(size=(3, 4))
    seen[1, 2] = np.nan
    place, score = _place(jnp.asarray(seen), jnp.asarray(draws))
    flat = jnp.asarray(draws.transpose(1, 0, 2))
    assert np.allclose(
        place, probability_integral_transform(jnp.asarray(seen), flat), equal_nan=True
    )
    wanted = np.asarray(crps(jnp.asarray(seen), flat, fair=True))
    assert np.allclose(np.nanmean(np.asarray(score), axis=0), wanted)


@pytest.fixture(scope="module")
def unseen(hybrid, truth):
    """Two runs, one shorter, and their forecasts."""
    runs, states = campaign(truth, n_runs=2, n_days=8, seed=9)
    runs = [runs[0], runs[1].slice_days(0, 6)]
    stacked = stack_runs(runs, length=9)
    readings = readings_of(runs, 9)
    found = forecast_unseen(
        hybrid,
        stacked,
        jnp.asarray(readings),
        key=jax.random.key(0),
        starts=(0, 3, 5),
        horizon=3,
        n_paths=32,
        n_particles=48,
    )
    return runs, states, readings, found


def test_forecasts_know_where_a_run_ends(unseen):
    runs, _, readings, found = unseen
    inside = np.asarray(found.is_inside)
    assert np.asarray(found.target)[0].tolist() == [[1, 2, 3], [4, 5, 6], [6, 7, 8]]
    assert inside[0].all()
    last = runs[1].n_days - 1
    assert inside[1].tolist() == (np.asarray(found.target)[1] <= last).tolist()
    about = pick(found, readings)
    assert np.isnan(about[1][~inside[1]]).all()
    assert np.array_equal(about[0, 1, 2], readings[0, 6], equal_nan=True)
    ordered = np.diff(np.asarray(found.quantiles), axis=-1)
    assert (ordered >= 0).all()
    wider = np.asarray(found.quantiles)[..., 4] - np.asarray(found.quantiles)[..., 0]
    clean = np.asarray(found.state_quantiles)[..., 4] - np.asarray(found.state_quantiles)[..., 0]
    assert np.mean(wider > clean) > 0.9


def test_a_reading_after_a_weekend_is_judged_by_the_forecast_for_its_hour(hybrid, truth, unseen):
    runs, states = campaign(truth, n_runs=2, n_days=8, seed=9)
    kept = np.asarray([0, 1, 2, 3, 4, 7, 8])  # nobody samples on days 5 and 6
    weekend = [jax.tree.map(lambda leaf: leaf[kept], run) for run in runs]
    blank = [run.stream_totals.at[5].set(jnp.nan) for run in weekend]
    weekend = [
        eqx.tree_at(lambda r: r.stream_totals, run, totals)
        for run, totals in zip(weekend, blank, strict=True)
    ]
    readings = readings_of(weekend, 9)
    found = forecast_unseen(
        hybrid,
        stack_runs(weekend, length=9),
        jnp.asarray(readings),
        key=jax.random.key(0),
        starts=(0, 3, 4),
        horizon=3,
        n_paths=32,
        n_particles=48,
    )
    assert found.is_inside[:, 2].tolist() == [[False, False, True]] * 2
    assert found.target[0, 2, 2] == 5 and found.hours[0, 2].tolist() == [24.0, 48.0, 72.0]
    assert np.array_equal(pick(found, readings)[:, 2, 2], readings[:, 5], equal_nan=True)
    vcd = FORECAST_SPECIES.index("VCD")
    monday = np.asarray(states)[:, 7, 0]
    three, one = (np.asarray(found.mean)[:, 2, h, vcd] for h in (2, 0))
    assert np.all(np.abs(three / monday - 1.0) < 0.2)
    assert np.all(np.abs(one / monday - 1.0) > 0.3)  # what it was judged by, row for row


def test_skill_equals_sums_by_hand(unseen):
    _, _, readings, found = unseen
    scores = skill(found, readings)
    about = pick(found, readings)
    k = FORECAST_SPECIES.index("VCD")
    error = np.asarray(found.mean)[:, :, 1, k] - about[:, :, 1, k]
    spread = np.nanstd(readings[..., k])
    assert scores.rrmse[1, k] == pytest.approx(np.sqrt(np.nanmean(error**2)) / spread)
    q = np.asarray(found.quantiles)[:, :, 1, k]
    seen = np.isfinite(about[:, :, 1, k])
    inside = (about[:, :, 1, k] >= q[..., 1]) & (about[:, :, 1, k] <= q[..., 3])
    assert scores.coverage[0, 1, k] == pytest.approx(inside[seen].mean())
    assert scores.n_readings[1, k] == seen.sum()
    none = FORECAST_SPECIES.index("DCD")  # not among the runs' columns
    assert scores.n_readings[0, none] == 0
    assert np.isnan(scores.rrmse[0, none])
    assert np.isnan(scores.coverage[:, 0, none]).all()  # nothing read is not "none inside"
    read = scores.n_readings > 0
    assert (scores.coverage[1] >= scores.coverage[0])[read].all()


def test_every_run_is_left_out_once_and_folds_share_the_programs_of_a_fit(runs, prior, fitted):
    from perfusio_jax.hybrid import evaluate, smoothing

    seen, asked = [], []
    jax.monitoring.register_event_listener(
        lambda name, **_: asked.append(len(seen)) if "compile_requests" in name else None
    )
    before = evaluate._forecast_all.n_programs(), smoothing.smooth.n_programs()
    result = cross_validate(
        runs[0],
        key=jax.random.key(0),
        config=SMALL,
        n_folds=4,
        horizon=2,
        n_paths=16,
        mech_model=prior,
        on_fold=lambda k, n: seen.append((k, n)),
    )
    assert seen == [(k, 4) for k in range(4)]
    assert sorted(np.bincount(result.fold_of_run).tolist()) == [1, 1, 2, 2]
    assert result.readings.shape == (6, 9, 12)
    assert np.isfinite(np.asarray(result.forecasts.mean)[..., :3]).all()
    assert evaluate._forecast_all.n_programs() == before[0] + 1
    # the fit to all runs, `fitted`, has the same sizes, and later folds ask for nothing at all; its
    # program may have been given back since (see conftest.py)
    assert smoothing.smooth.n_programs() == max(before[1], 1)
    assert set(asked) <= {0, 1} and 1 in asked


def made_up(rng, spread, n_runs=40):
    """Forecasts N(0, 1) of readings that differ between runs, of total variance spread^2."""
    shape = (n_runs, 5, 3, 12)
    readings = spread * (
        np.sqrt(0.4) * rng.normal(size=(n_runs, 1, 12))
        + np.sqrt(0.6) * rng.normal(size=(n_runs, 8, 12))
    )
    readings[rng.random(readings.shape) < 0.1] = np.nan
    tails = np.asarray([-1.959964, -1.281552, 0.0, 1.281552, 1.959964])
    nothing = np.zeros(shape)
    quantiles = np.broadcast_to(tails, (*shape, 5))
    target = np.arange(5)[None, :, None] + 1 + np.arange(3)[None, None, :]
    target = np.broadcast_to(target, shape[:3])
    inside = np.ones(shape[:3], bool)
    hours = np.broadcast_to(24.0 * np.arange(1, 4), shape[:3])
    start = np.broadcast_to(np.arange(5), shape[:2])
    found = Forecasts(nothing, quantiles, quantiles, nothing, nothing, target, inside, hours, start)
    return found, readings


def test_the_band_lets_honest_intervals_pass_and_finds_others():
    rng = np.random.default_rng(0)
    alarms = [coverage_band(*made_up(rng, 1.0), n_draws=300).is_outside.any() for _ in range(60)]
    # 5 % nominal: 60 draws give 9 or fewer with 99.9 %
    assert np.mean(alarms) <= 9 / 60
    narrow = np.where(np.arange(12) == 3, 2.0, 1.0)
    band = coverage_band(*made_up(rng, narrow[None, None, :]))
    assert band.is_outside[:, :, 3].all()
    assert not band.is_outside[:, :, :3].any()
    found, readings = made_up(rng, 1.0)
    readings[..., 5] = np.nan  # never measured: no band, no alarm, no warning
    band = coverage_band(found, readings)
    assert np.isnan(band.half_width[..., 5]).all()
    assert not band.is_outside[..., 5].any()
    assert np.isfinite(band.half_width[..., :5]).all()
    # far too wide: every reading inside, no spread between runs, and still found
    found, readings = made_up(rng, 1e-3)
    assert coverage_band(found, readings).is_outside[0].all()
    # two runs cannot convict anybody of a few points
    assert not coverage_band(*made_up(rng, 1.0, n_runs=2)).is_outside.all()
    with pytest.raises(DataError, match="two"):
        coverage_band(*made_up(rng, 1.0, n_runs=1))


def test_refusals(hybrid, runs, unseen):
    with pytest.raises(ConfigError, match="n_folds"):
        cross_validate(runs[0], key=jax.random.key(0), n_folds=9)
    with pytest.raises(DataError, match="two runs"):
        cross_validate(runs[0][:2], key=jax.random.key(0), n_folds=2)
    stacked = stack_runs(runs[0])
    with pytest.raises(ConfigError, match="readings"):
        forecast_unseen(hybrid, stacked, jnp.zeros((1, 2, 12)), key=jax.random.key(0), starts=(0,))
    with pytest.raises(ConfigError, match="starts"):
        forecast_unseen(
            hybrid,
            stacked,
            jnp.zeros((*stacked.mask.shape, 12)),
            key=jax.random.key(0),
            starts=(99,),
        )


def test_innovations_tell_a_sick_filter_from_a_healthy_one(hybrid, truth):
    runs, _ = campaign(truth, n_runs=1, n_days=8, seed=12)
    beliefs = assimilate_run(hybrid, runs[0], key=jax.random.key(0), n_particles=64)
    healthy = innovation_health(beliefs.info)
    assert not [w for w in healthy.warnings if "times as large" in w]
    twice = runs[0].species.at[3:, 2].multiply(1.5)
    wrong = type(runs[0])(
        twice,
        runs[0].controls,
        runs[0].volume_L,
        runs[0].days,
        runs[0].species_names,
        runs[0].control_names,
        stream_totals=runs[0].stream_totals,
    )
    sick = innovation_health(
        assimilate_run(hybrid, wrong, key=jax.random.key(0), n_particles=64).info
    )
    assert sick.z_nis > healthy.z_nis + 3
    assert any("Glc" in w or "times as large" in w for w in sick.warnings)


def test_a_model_of_one_clone_is_left_as_it_is(hybrid):
    assert at_clone(hybrid, jnp.asarray(1.0)) is hybrid
