"""Jackknife ensemble: mixture quantiles, subsamples by row and run, conformal intervals."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.gp import (
    Calibration,
    GaussianLikelihood,
    JackknifeEnsemble,
    MultiTaskRateGP,
    fit_scaling,
    mixture_quantile,
)
from perfusio_jax.gp.ensemble import _jackknife_plus

COUNT, K = 60, 8
SCALING = fit_scaling(np.column_stack([np.linspace(-2, 2, 50), np.arange(50) % 7]), day_column=1)


def truth(x):
    return np.column_stack([np.sin(2 * x[:, 0]), x[:, 0] ** 2])


def draw(count, seed):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.uniform(-2, 2, count), rng.integers(0, 7, count)])
    return x, truth(x) + 0.3 * rng.standard_t(4, size=(count, 2))


def factory(x, y):
    # noise a hundred times too small: the process is sure of what is noise
    likelihood = GaussianLikelihood(0.001)
    model = MultiTaskRateGP(x, y, likelihood, n_tasks=2, scaling=SCALING, target_scale=jnp.ones(2))
    return model, likelihood


@pytest.fixture(scope="module")
def fitted():
    x, y = draw(COUNT, 0)
    ensemble = JackknifeEnsemble(K=K, seed=1).fit(x, y, factory, n_iter=3, lr=0.01)
    return ensemble.calibrate(x, y), x, y


@settings(max_examples=20)
@given(st.integers(1, 6), st.floats(0.02, 0.98), st.integers(0, 1000))
def test_mixture_quantile_inverts_the_distribution(count, level, seed):
    rng = np.random.default_rng(seed)
    mean, sd = np.zeros(6), np.full(6, 1.0)
    mean[:count], sd[:count] = rng.normal(size=count), rng.uniform(0.1, 3.0, count)
    value = float(mixture_quantile(jnp.asarray(mean), jnp.asarray(sd), level))
    assert np.mean(norm.cdf(value, mean, sd)) == pytest.approx(level, abs=1e-9)


def test_one_component_gives_the_normal_quantile():
    value = mixture_quantile(jnp.array([[2.0]]), jnp.array([[3.0]]), 0.9)
    assert float(value[0]) == pytest.approx(norm.ppf(0.9, 2.0, 3.0))


def test_members_are_subsamples_and_predict_the_mixture(fitted):
    ensemble, x, _ = fitted
    assert len(ensemble.members) == K
    assert all(m.train_idx.shape == (48,) for m in ensemble.members)
    assert len({tuple(np.asarray(m.train_idx)) for m in ensemble.members}) == K
    result = ensemble.predict(x[:4], quantiles=(0.1, 0.9))
    means = np.stack(
        [np.asarray(m.model.posterior(jnp.asarray(x[:4]))[0]) for m in ensemble.members]
    )
    assert np.allclose(result["mean"], means.mean(axis=0), atol=1e-9)
    assert np.all(result["q10"] < result["q90"])


def test_training_improves_every_member():
    x, y = draw(20, 3)
    start = JackknifeEnsemble(K=3).fit(x, y, factory, n_iter=1, lr=1e-9)
    end = JackknifeEnsemble(K=3).fit(x, y, factory, n_iter=40, lr=0.05)
    from perfusio_jax.gp import log_posterior

    for one, two in zip(start.members, end.members, strict=True):
        assert float(log_posterior(two.model)) > float(log_posterior(one.model)) + 1.0


def test_runs_stay_together_and_may_differ_in_length():
    x, y = draw(40, 4)
    runs = np.repeat(np.arange(5), [4, 12, 8, 6, 10])
    ensemble = JackknifeEnsemble(K=6).fit(x, y, factory, n_iter=2, run_ids=runs)
    sizes = set()
    for member in ensemble.members:
        inside = runs[np.asarray(member.train_idx)]
        sizes.add(inside.size)
        assert np.unique(inside).size == 4
        assert all(np.sum(inside == r) == np.sum(runs == r) for r in np.unique(inside))
        assert int(jnp.sum(member.model.data.row_present)) == inside.size
    assert len(sizes) > 1
    with pytest.raises(DataError, match="two runs"):
        JackknifeEnsemble(K=2).fit(x, y, factory, run_ids=np.zeros(40))


def test_conformal_intervals_cover_though_the_model_is_too_sure(fitted):
    ensemble, _, _ = fitted
    x, y = draw(400, 5)
    level = 0.8
    low, high = (np.asarray(a) for a in ensemble.predict_interval(x, level))
    share = np.mean((low <= y) & (y <= high), axis=0)
    # given the training rows, coverage varies like an order statistic of them; and the sample
    error = 5 * np.sqrt(level * (1 - level) * (1 / COUNT + 1 / 400))
    assert np.all(share > level - error) and np.all(share < level + error)
    own = ensemble.predict(x, quantiles=(0.1, 0.9))
    raw = np.mean((own["q10"] <= y) & (y <= own["q90"]), axis=0)
    assert np.all(raw < level - error)


def test_interval_equals_the_definition(fitted):
    ensemble, x, y = fitted
    point = np.array([[0.3, 2.0]])
    means = np.stack([np.asarray(m.model.posterior(jnp.asarray(np.vstack([x, point])))[0])
                      for m in ensemble.members])  # fmt: skip
    upper = []
    for i in range(COUNT):
        out = [k for k, m in enumerate(ensemble.members) if i not in np.asarray(m.train_idx)]
        if out:
            error = abs(y[i, 0] - means[out, i, 0].mean())
            upper.append(means[out, COUNT, 0].mean() + error)
    place = int(np.ceil(0.8 * (len(upper) + 1))) - 1
    assert float(ensemble.predict_interval(point, 0.8)[1][0, 0]) == pytest.approx(
        np.sort(upper)[place], abs=1e-9
    )


def test_where_too_few_rows_have_errors_the_interval_is_the_whole_line():
    # rank ceil(level (n + 1)) of n errors: 1, 2, ..., n here, so the ends are plus and minus it
    for level, needed in ((0.8, 4), (0.9, 9), (0.95, 19)):
        for count in (0, 1, needed - 1, needed, needed + 1, 39):
            error = jnp.where(jnp.arange(40) < count, jnp.arange(1.0, 41.0), jnp.nan)[:, None]
            table = Calibration(jnp.zeros((40, 2)), error, jnp.ones((40, 1)))
            low, high = _jackknife_plus(table, jnp.zeros((1, 1, 1)), jnp.asarray(level))
            rank = math.ceil(Fraction(str(level)) * (count + 1))
            expected = rank if count >= needed else math.inf
            assert (float(low[0, 0]), float(high[0, 0])) == (-expected, expected)


def test_levels_do_not_share_a_name(fitted):
    ensemble, x, _ = fitted
    result = ensemble.predict(x[:2], quantiles=(0.02, 0.025))
    assert set(result) == {"mean", "q2", "q2.5"}
    assert np.all(result["q2"] < result["q2.5"])
    single = ensemble.members[0].model.predict_with_ci(x[:2], (0.02, 0.025, 0.95))
    assert set(single) == {"mean", "q2", "q2.5", "q95"}


def test_refusals(fitted):
    ensemble, x, y = fitted
    with pytest.raises(RuntimeError, match="fit first"):
        JackknifeEnsemble().predict(x)
    bare = JackknifeEnsemble(K=K, members=ensemble.members)
    with pytest.raises(RuntimeError, match="calibrate first"):
        bare.predict_interval(x)
    with pytest.raises(DataError, match="table"):
        bare.calibrate(x[:10], y[:10])
    with pytest.raises(DataError, match="level 1"):
        ensemble.predict_interval(x, 1.0)
    with pytest.raises(DataError, match="quantile"):
        ensemble.predict(x, quantiles=(0.0,))
    with pytest.raises(ConfigError, match="K=0"):
        JackknifeEnsemble(K=0)
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="enable_x64"):
        JackknifeEnsemble().fit(x, y, factory)


def test_mixture_quantile_has_the_derivative_of_a_quantile():
    mean, sd = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [0.5]])

    def quantile(mean, sd, level):
        return mixture_quantile(mean, sd, level)[0]

    at = (mean, sd, jnp.asarray(0.9))
    jax.test_util.check_grads(quantile, at, order=1, modes=("rev",), atol=1e-6, rtol=1e-6)
    # components that are the same: the quantile moves with their mean
    same = jax.grad(quantile)(jnp.zeros((2, 1)), jnp.ones((2, 1)), 0.9)
    np.testing.assert_allclose(same, 0.5, rtol=1e-9)
    for level in (-1.0, 1.5, float("nan")):
        assert np.isnan(float(quantile(mean, sd, level)))
