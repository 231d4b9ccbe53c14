"""The published experiment in small: plant, rates, shared-kernel process, study."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from perfusio_jax._core import ConfigError, DataError, positive
from perfusio_jax.embedding import (
    check_study,
    evidence_by_dimension,
    markdown,
    study_config,
    study_repeat,
    summarise,
)
from perfusio_jax.embedding.rolling import relative_error
from perfusio_jax.embedding.rows import RateRows, join_rows, rate_rows, thin
from perfusio_jax.embedding.study_gp import (
    Search,
    best_fit,
    candidates,
    embedding_of,
    newcomers,
    rate_process,
    with_lengthscale,
    with_rows,
)
from perfusio_jax.embedding.summary import paired_test
from perfusio_jax.gp import log_evidence, log_posterior
from perfusio_jax.simulator import FED_BATCH_SPECIES, draw_conditions, sample_products
from perfusio_jax.simulator.fed_batch import NOISE_SD

# ------------------------------------------------------------------ the plant


def test_conditions_stay_in_the_published_ranges_and_days_are_whole():
    table = draw_conditions(jax.random.key(0), 200)
    lo = [0.2, 20, 3, 36, 35, 6.9, 6.7, 150, 1, 8, 6]
    hi = [0.4, 60, 8, 37.5, 37, 7.1, 7.0, 200, 3, 13, 14]
    assert (table >= np.array(lo)[None]).all() and (table <= np.array(hi)[None]).all()
    days = table[:, 8:]
    np.testing.assert_array_equal(days, np.round(days))
    assert set(days[:, 0]) == {1.0, 2.0, 3.0}


@pytest.mark.parametrize("family", ["traits", "independent"])
def test_products_differ_and_the_novel_one_eats_lactate(family):
    products = sample_products(jax.random.key(2), family=family)
    np.testing.assert_array_equal(products.kinetics.consumes_lactate, [1, 1, 0, 0, 0, 1])
    assert len(np.unique(np.asarray(products.kinetics.mu_max))) == 6
    same = sample_products(jax.random.key(2), family=family, spread=0.0)
    assert len(np.unique(np.asarray(same.kinetics.mu_max).round(12))) == 2
    with pytest.raises(ConfigError, match="at least one product"):
        sample_products(jax.random.key(0), n_consuming=0, n_producing=0)
    with pytest.raises(ConfigError, match="'traits' and 'independent'"):
        sample_products(jax.random.key(0), family="other")


def test_volumes_and_feeds_balance(small_study):
    runs = small_study.test
    before, after = np.asarray(runs.volume_before), np.asarray(runs.volume_after)
    np.testing.assert_allclose(before - after, 0.005, atol=1e-12)
    feed = np.asarray(runs.fed)[..., 1] / 400.0
    np.testing.assert_allclose(np.diff(before, axis=1), feed[:, 1:] - 0.005, atol=1e-12)
    fed_days = (feed > 0).sum(axis=1)
    assert fed_days.min() >= 6 and fed_days.max() <= 13
    assert (np.asarray(runs.truth) >= -1e-6).all()
    # glucose can only come from the feed: its amount never rises by more than was fed
    truth = np.asarray(runs.truth)
    gain = truth[:, 1:, 1] * before[:, 1:] - truth[:, :-1, 1] * after[:, :-1]
    assert (gain <= np.asarray(runs.fed)[:, 1:, 1] + 1e-6).all()


def test_readings_have_the_published_noise(small_study):
    runs = small_study.test
    away = np.asarray(runs.measured - runs.truth).reshape(-1, len(FED_BATCH_SPECIES))
    np.testing.assert_allclose(away.std(axis=0), NOISE_SD, rtol=5 / np.sqrt(2 * len(away)))


# ------------------------------------------------------------------ rates and kernel


def test_rates_invert_the_step_of_the_roll_out(small_study):
    runs = small_study.novel
    rows = rate_rows(runs)
    steps = runs.measured.shape[1] - 1
    rates = np.asarray(rows.rates).reshape(-1, steps, 6)
    M, V = np.asarray(runs.measured), np.asarray(runs.volume_after)
    following = (M[:, :-1] + rates) * V[:, :-1, None] + np.asarray(runs.fed)[:, 1:]
    following /= np.asarray(runs.volume_before)[:, 1:, None]
    np.testing.assert_allclose(following, M[:, 1:], rtol=1e-10, atol=1e-10)


def test_odd_intervals_and_boluses_after_the_sample_invert_too(small_study):
    runs = small_study.novel
    days = np.asarray(runs.days) * 1.5
    given = np.zeros(runs.fed.shape)
    given[:, 3, 1] = 0.4
    changed = runs._replace(days=jnp.asarray(days), given=jnp.asarray(given))
    rows = rate_rows(changed)
    steps = days.shape[1] - 1
    rates = np.asarray(rows.rates).reshape(-1, steps, 6)
    M, V = np.asarray(runs.measured), np.asarray(runs.volume_after)[..., None]
    start = M + given / V
    following = (start[:, :-1] + 1.5 * rates) * V[:, :-1] + np.asarray(runs.fed)[:, 1:]
    following /= np.asarray(runs.volume_before)[:, 1:, None]
    np.testing.assert_allclose(following, M[:, 1:], rtol=1e-10, atol=1e-10)
    # the process sees what the cells start from, not what the sample showed
    features = np.asarray(rows.features).reshape(-1, steps, rows.features.shape[1])
    np.testing.assert_allclose(features[:, 3, 1], start[:, 3, 1])


def test_a_missing_reading_costs_the_two_rates_it_belongs_to(small_study):
    runs = small_study.novel
    holed = runs._replace(measured=runs.measured.at[0, 5, 2].set(jnp.nan))
    whole, less = rate_rows(runs), rate_rows(holed)
    assert less.features.shape[0] == whole.features.shape[0] - 2
    assert np.isfinite(less.rates).all()
    nothing = runs._replace(measured=runs.measured.at[:, :, 2].set(jnp.nan))
    with pytest.raises(DataError, match="never measured"):
        rate_rows(nothing)


def table(n=12):
    rng = np.random.default_rng(0)
    return RateRows(
        rng.normal(size=(n, 2)), rng.normal(size=(n, 3)) + 4.0, rng.integers(0, 3, size=n)
    )


KEY = jax.random.key(0)


@pytest.mark.parametrize("coding", ["embedding", "one-hot", "none"])
@pytest.mark.parametrize("own_noise", [False, True])
def test_evidence_is_that_of_independent_normals_with_the_stated_kernel(own_noise, coding):
    rows = table()
    vectors = embedding_of(coding, 3, 2, key=KEY)
    model = rate_process(rows, vectors, Search(own_noise=own_noise), capacity=16)
    signal = np.array([0.7, 1.3, 2.0]) if own_noise else np.full(3, 0.7)
    noise = np.array([0.02, 0.1, 0.3]) if own_noise else np.full(3, 0.05)
    raw = lambda v: positive(jnp.asarray(v))  # noqa: E731
    model = eqx.tree_at(
        lambda m: (m.kernel.index_diagonal, m.likelihood.noise),
        with_lengthscale(model, 1.4),
        (raw(signal), raw(noise)),
    )
    x = (rows.features - rows.features.mean(axis=0)) / rows.features.std(axis=0)
    z = x / 1.4
    if vectors is not None:  # their lengthscale stays one
        z = np.hstack([z, np.asarray(vectors.vectors)[rows.product]])
    square = np.sum((z[:, None] - z[None]) ** 2, axis=-1)
    y = (rows.rates - rows.rates.mean(axis=0)) / rows.rates.std(axis=0)
    total = sum(
        multivariate_normal.logpdf(
            y[:, t], cov=signal[t] * np.exp(-0.5 * square) + noise[t] * np.eye(12)
        )
        for t in range(3)
    )
    assert float(log_evidence(model)) == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize("own_noise", [False, True])
def test_a_search_raises_the_posterior_and_keeps_what_is_shared_one(own_noise):
    rows, search = table(12), Search(max_iterations=12, own_noise=own_noise)
    vectors = embedding_of("embedding", 3, 2, key=KEY)
    start = rate_process(rows, vectors, search)
    tables = candidates(vectors, key=KEY, n=2)
    model, found = best_fit([start, with_lengthscale(start, 1.5)], tables, search)
    at_tables = [
        float(log_posterior(eqx.tree_at(lambda m: m.scaling.embedding.weight, start, t))) / 36.0
        for t in tables
    ]
    assert float(found.objective) > max(at_tables)
    assert float(found.objective) == pytest.approx(float(log_posterior(model)) / 36.0, rel=1e-8)
    assert float(found.log_evidence) == pytest.approx(float(log_evidence(model)), rel=1e-8)
    noise = np.asarray(model.likelihood.variance(3))
    signal = np.diagonal(model.kernel.task_covariance())
    assert [bool(np.ptp(v) > 0.0) for v in (noise, signal)] == [own_noise, own_noise]
    assert np.all(np.asarray(model.kernel.lengthscale)[2:] == 1.0)
    # nothing pulls at the vectors but the evidence: none stays where it began
    assert np.all(np.abs(np.asarray(model.scaling.embedding.weight - tables[0])) > 0.0)


def test_joint_rows_are_those_of_all_tables():
    one, two = table(5), table(7)
    both = join_rows(one, two)
    np.testing.assert_array_equal(both.features, np.concatenate([one.features, two.features]))
    assert len(both.product) == 12


def test_other_rows_keep_scaling_and_parameters():
    rows = table()
    model = rate_process(rows, embedding_of("embedding", 3, 2, key=KEY), Search())
    fewer = with_rows(model, RateRows(*(v[:6] for v in rows)), capacity=12)
    np.testing.assert_array_equal(fewer.target_scale, model.target_scale)
    np.testing.assert_array_equal(fewer.scaling.base.shift, model.scaling.base.shift)
    assert fewer.state is not None and int(fewer.data.row_present.sum()) == 6


def test_a_random_part_of_the_rows_is_drawn_without_repeats():
    rows = table(12)
    part = thin(rows, 5, key=KEY)
    assert part.features.shape == (5, 2)
    assert len(np.unique(part.features[:, 0])) == 5
    assert thin(rows, 50, key=KEY).features.shape == (12, 2)


def test_codings():
    one_hot = embedding_of("one-hot", 3, 2, key=KEY)
    assert one_hot.is_one_hot and np.count_nonzero(one_hot.vectors) == 3
    assert embedding_of("embedding", 3, 2, key=KEY).weight.shape == (3, 2)
    assert embedding_of("none", 3, 2, key=KEY) is None
    # nothing is said of the vectors beforehand: the publication has the evidence alone
    assert abs(float(one_hot.log_prior())) < 1e-4
    with pytest.raises(ConfigError, match="1 to 3 are allowed"):
        embedding_of("embedding", 3, 4, key=KEY)
    with pytest.raises(ConfigError, match="allowed are"):
        embedding_of("two-hot", 3, 2, key=KEY)


def test_a_newcomer_is_looked_for_among_those_that_are_known():
    known = embedding_of("embedding", 3, 2, key=KEY)
    tables = np.asarray(newcomers(known, key=KEY))
    assert tables.shape == (12, 3, 2)
    np.testing.assert_array_equal(tables[:, :2], np.broadcast_to(known.weight[:2], (12, 2, 2)))
    np.testing.assert_array_equal(tables[:2, 2], known.weight[:2])
    np.testing.assert_allclose(tables[2, 2], np.mean(known.weight[:2], axis=0))
    drawn = np.asarray(candidates(known, key=KEY))
    assert drawn.shape == (8, 3, 2) and drawn.min() >= 0.1 and drawn.max() <= 3.0


def test_relative_error_is_the_median_over_runs_of_errors_in_spreads():
    rng = np.random.default_rng(3)
    actual = rng.normal(size=(9, 4, 2))
    spread = actual.std(axis=0)
    forecast = actual + 0.5 * spread[None]
    forecast[0] += 100.0  # one bad run of nine moves no median
    forecast[:, 0] = 1e9  # the first sample is given, not forecast
    np.testing.assert_allclose(relative_error(forecast, actual), 0.5)
    holed = actual.copy()
    holed[1, 2] = np.nan
    assert np.isfinite(relative_error(forecast, holed)).all()


# ------------------------------------------------------------------ the study


@pytest.fixture(scope="module")
def records(small_study):
    config = study_config(counts=(2,), dim=2, effort=0.5, max_rows=56)
    return [
        {"repeat": 0, **r._asdict()}
        for r in study_repeat(small_study, config, key=jax.random.key(0))
    ]


def test_every_method_is_scored_and_transfer_beats_two_runs_alone(records):
    errors = {r["method"]: np.asarray(r["errors"]) for r in records}
    assert set(errors) == {"none", "one-hot", "embedding"}
    assert all(np.isfinite(e).all() and (e > 0).all() for e in errors.values())
    # the mean forecast of a test run is about one spread off (0.67 for a normal)
    assert np.median(errors["embedding"]) < 0.67
    assert np.median(errors["embedding"]) < np.median(errors["none"])


def test_evidence_is_told_for_each_length_of_the_vectors(small_study):
    config = study_config(counts=(2,), effort=0.1, max_rows=56)
    found = evidence_by_dimension(small_study, (1, 2), config, n_runs=2, key=jax.random.key(0))
    assert [dim for dim, _ in found] == [1, 2] and np.isfinite([e for _, e in found]).all()
    assert found[0][1] != found[1][1]


def test_a_study_that_cannot_be_run_is_refused(small_study):
    with pytest.raises(ConfigError, match="1 to 4"):
        check_study(small_study, (2, 8))
    with pytest.raises(ConfigError, match="1 to 4"):
        check_study(small_study, ())
    empty = small_study._replace(test=jax.tree.map(lambda v: v[:0], small_study.test))
    with pytest.raises(DataError, match="no test run"):
        check_study(empty, (2,))
    mixed = small_study._replace(historic=small_study.novel)
    with pytest.raises(DataError, match="belongs to the novel product"):
        check_study(mixed, (2,))


def test_summary_and_table_say_who_won():
    rng = np.random.default_rng(0)
    rows = [
        {
            "repeat": r,
            "n_runs": n,
            "method": m,
            "errors": list(base + 0.01 * rng.random(6)),
        }
        for r in range(12)
        for n in (2, 3)
        for m, base in (("none", 0.9), ("one-hot", 0.6), ("embedding", 0.5))
    ]
    found = summarise(rows)["species"]["Titer"]
    test = found["embedding_vs_one-hot"][0]
    # all twelve pairs one way: the exact one-sided p-value is 2^-12
    assert test["wins"] == test["of"] == 12 and test["p"] == pytest.approx(2.0**-12)
    text = markdown(rows)
    assert "0.815" in text and "| Titer, embedding |" in text and "12 of 12" in text
    assert np.isnan(paired_test(np.ones(1), np.ones(1)))
    assert paired_test(np.ones(4), np.ones(4)) == 1.0
    with pytest.raises(DataError, match="no record"):
        summarise([])


def test_settings_are_those_asked_for():
    config = study_config(counts=(2, 4), dim=2, own_noise=True, effort=0.5)
    assert config.counts == (2, 4) and config.dim == 2 and config.second.own_noise
    assert config.first.max_iterations == 30 and config.second.max_iterations == 25
    assert dataclasses.replace(config, dim=1).dim == 1
