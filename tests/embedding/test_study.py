"""The published experiment in small: plant, rates, shared-kernel process, study."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.embedding import (
    check_study,
    markdown,
    study_config,
    study_repeat,
    summarise,
)
from perfusio_jax.embedding.product_gp import (
    ProductKernel,
    RateRows,
    coding_mask,
    fit_scales,
    join_rows,
    log_density,
    log_evidence,
    rate_rows,
    relative_error,
    thin,
)
from perfusio_jax.embedding.summary import paired_test
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
    with pytest.raises(DataError, match="capacity"):
        rate_rows(runs, capacity=3)


def kernel(groups=1, coding="embedding", n_features=2):
    mask = coding_mask(coding, 3, 2)
    vectors = np.random.default_rng(1).uniform(0.1, 1.0, (3, 3))
    return ProductKernel(
        log_lengthscale=jnp.asarray([0.1, 0.6][:n_features]),
        log_signal=jnp.linspace(0.2, 0.5, groups),
        log_noise=jnp.linspace(-3.0, -2.0, groups),
        vectors=jnp.asarray(vectors),
        mask=jnp.asarray(mask),
    )


def table(n=12, capacity=16):
    rng = np.random.default_rng(0)
    here = np.arange(capacity) < n
    clean = lambda v: jnp.asarray(np.where(here[:, None], v, 0.0))  # noqa: E731
    return RateRows(
        clean(rng.normal(size=(capacity, 2))),
        clean(rng.normal(size=(capacity, 3))),
        jnp.asarray(np.where(here, rng.integers(0, 3, capacity), 0)),
        jnp.asarray(here),
    )


@pytest.mark.parametrize("coding", ["embedding", "one-hot", "none"])
@pytest.mark.parametrize("groups", [1, 3])
def test_evidence_is_that_of_independent_normals_with_the_stated_kernel(groups, coding):
    k, rows = kernel(groups, coding), table()
    scales = fit_scales(rows)
    n = int(rows.present.sum())
    shift, spread, target, level = (np.asarray(v) for v in scales)
    x = (np.asarray(rows.features)[:n] - shift) / spread
    y = (np.asarray(rows.rates)[:n] - level) / target
    w = np.asarray(k.vectors * k.mask)[np.asarray(rows.product)[:n]]
    z = np.hstack([x / np.exp(np.asarray([0.1, 0.6])), w])
    square = np.sum((z[:, None] - z[None]) ** 2, axis=-1)
    total = 0.0
    for t in range(3):
        g = t if groups == 3 else 0
        s, noise = float(k.signal[g]), float(k.noise[g])
        total += multivariate_normal.logpdf(
            y[:, t], cov=s * (np.exp(-0.5 * square) + noise * np.eye(n))
        )
    # lengthscales pass a soft bound that is the identity to 1e-3 here
    assert float(log_evidence(k, rows, scales)) == pytest.approx(total, rel=2e-3)


def test_padding_changes_nothing():
    rows = table()
    tight = join_rows(rows)
    scales = fit_scales(rows)
    a, b = (float(log_evidence(kernel(), r, scales)) for r in (rows, tight))
    assert a == pytest.approx(b, rel=1e-12)
    assert tight.features.shape[0] == 12


def test_the_closed_derivative_of_the_density_is_the_derivative():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    cov, y = jnp.asarray(root @ root.T + 6 * np.eye(6)), jnp.asarray(rng.normal(size=(6, 2)))
    down = jax.grad(lambda c, t: log_density(c, t), argnums=(0, 1))(cov, y)
    for argument, slope in enumerate(down):
        step = np.asarray(rng.normal(size=slope.shape))
        step = step + step.T if argument == 0 else step
        at = [cov, y]
        values = []
        for h in (1e-5, -1e-5):
            moved = list(at)
            moved[argument] = at[argument] + h * step
            values.append(float(log_density(*moved)))
        assert float(jnp.sum(slope * step)) == pytest.approx(
            (values[0] - values[1]) / 2e-5, rel=1e-6
        )


def test_a_random_part_of_the_rows_is_drawn_without_repeats():
    rows = join_rows(table(12, 12))
    part = thin(rows, 5, key=jax.random.key(0))
    assert part.features.shape == (5, 2)
    assert len(np.unique(np.asarray(part.features)[:, 0])) == 5
    assert thin(rows, 50, key=jax.random.key(0)).features.shape == (12, 2)


def test_codings():
    np.testing.assert_array_equal(coding_mask("one-hot", 3, 2), np.eye(3))
    assert coding_mask("embedding", 3, 2).sum() == 6 and coding_mask("none", 3, 2).sum() == 0
    with pytest.raises(ConfigError, match="1 to 3 are allowed"):
        coding_mask("embedding", 3, 4)
    with pytest.raises(ConfigError, match="allowed are"):
        coding_mask("two-hot", 3, 2)


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
    assert config.first.max_evaluations == 30 and config.second.max_evaluations == 25
    assert dataclasses.replace(config, dim=1).dim == 1
