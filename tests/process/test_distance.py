"""T2 and Q against scikit-learn, their limits against the usual ones of many runs, false alarms."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perfusio_jax.process.distance import LEVELS, Alike, alike, distance, ruler

STORED = np.load(Path(__file__).parents[1] / "reference" / "golden.npz")


def exact() -> Alike:
    """The correlation of the stored rows, as it is."""
    rows = STORED["rows"]
    return Alike(rows.T @ rows / (len(rows) - 1), 0.0, len(rows))


def test_t2_q_and_what_adds_to_q_are_those_of_scikit_learn():
    for z, t2, q_by in zip(STORED["z"], STORED["t2"], STORED["q_by"], strict=True):
        by = ruler(exact(), 40)
        found = distance(z, by)
        np.testing.assert_allclose(by.values, STORED["eigenvalues"], rtol=1e-10)
        assert by.n_components == int(STORED["n"])
        np.testing.assert_allclose(found.t2, t2, rtol=1e-10)
        np.testing.assert_allclose(found.q, q_by.sum(), rtol=1e-10)
        np.testing.assert_allclose(found.q_by, q_by, rtol=1e-9, atol=1e-12)


def test_limits_of_very_many_runs_are_the_usual_ones():
    known = exact()._replace(n_runs=10**7)
    found = ruler(known, 10**7)
    np.testing.assert_allclose(found.t2_limits, stats.chi2.ppf(LEVELS, found.n_components), 1e-4)
    rest = np.sort(np.linalg.eigvalsh(known.correlation))[: -found.n_components]
    # Jackson and Mudholkar (1979), Technometrics 21, 341: another road to nearly the same
    th1, th2, th3 = (float((rest**i).sum()) for i in (1, 2, 3))
    h0 = 1.0 - 2.0 * th1 * th3 / (3.0 * th2**2)
    c = stats.norm.ppf(LEVELS)
    inner = c * np.sqrt(2.0 * th2 * h0**2) / th1 + 1.0 + th2 * h0 * (h0 - 1.0) / th1**2
    np.testing.assert_allclose(found.q_limits, th1 * inner ** (1.0 / h0), rtol=0.1)
    # and the law itself: squares of normal numbers, weighted with the eigenvalues that are left
    drawn = np.random.default_rng(0).normal(size=(400_000, rest.size)) ** 2 @ rest
    beyond = (drawn[:, None] > np.array(found.q_limits)).mean(axis=0)
    np.testing.assert_allclose(beyond, [0.05, 0.0125], atol=0.004)


def test_shrinkage_is_that_of_schaefer_and_strimmer_with_runs_as_samples():
    rows = STORED["rows"][:, :4]
    found = alike(rows, np.arange(len(rows)))
    n, k = rows.shape
    scaled = rows / np.sqrt((rows**2).mean(axis=0))
    above, below = 0.0, 0.0
    for i in range(k):
        for j in range(k):
            if i != j:
                w = [scaled[s, i] * scaled[s, j] for s in range(n)]
                above += sum((v - sum(w) / n) ** 2 for v in w) / (n * (n - 1))
                below += (sum(w) / n) ** 2
    np.testing.assert_allclose(found.shrinkage, above / below, rtol=1e-12)
    off = ~np.eye(k, dtype=bool)
    plain = scaled.T @ scaled / n
    np.testing.assert_allclose(found.correlation[off], (1 - above / below) * plain[off])
    np.testing.assert_allclose(np.diag(found.correlation), 1.0)
    # the same samples told ten times over, each copy a sample of the same run, tell no more
    again = alike(np.repeat(rows, 10, axis=0), np.repeat(np.arange(n), 10))
    np.testing.assert_allclose(again.correlation, found.correlation, rtol=1e-12)


def test_too_few_runs_tell_nothing_and_one_quantity_has_no_q():
    rows = STORED["rows"]
    two = alike(rows, np.arange(len(rows)) % 2)
    assert two.n_runs == 2 and np.isnan(distance(STORED["z"][0], ruler(two, 9)).t2)
    rows = rows.copy()
    rows[5:, 0] = np.nan  # rows with a gap are left out, not filled
    assert alike(rows, np.arange(len(rows))).n_runs == 5
    by = ruler(Alike(np.ones((1, 1)), 1.0, 8), 8)
    one = distance(np.array([2.0]), by)
    assert one.t2 == pytest.approx(4.0) and np.isnan(one.q) and np.isnan(one.q_by).all()
    expected = (1 + 1 / 8) * stats.t.ppf(0.975, 7) ** 2  # F of one and seven is t squared
    assert by.t2_limits[0] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(3, 9))
def test_contributions_are_not_negative_add_up_and_order_does_not_matter(seed, k, runs):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4 * runs, k)) @ rng.normal(size=(k, k))
    owners = np.repeat(np.arange(runs), 4)
    z = rng.normal(size=k)
    by = ruler(alike(rows, owners), runs)
    found = distance(z, by)
    assert (found.t2_by >= 0.0).all() and not (found.q_by < 0.0).any()
    np.testing.assert_allclose(found.t2_by.sum(), found.t2, rtol=1e-9)
    np.testing.assert_allclose(found.q_by.sum(), found.q, rtol=1e-9)
    order = rng.permutation(k)
    again = ruler(alike(rows[:, order], owners), runs)
    other = distance(z[order], again)
    np.testing.assert_allclose(other.t2_by, found.t2_by[order], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(again.q_limits, by.q_limits, rtol=1e-6)


@pytest.mark.parametrize(("runs", "k"), [(3, 4), (5, 8), (12, 5), (40, 6)])
@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_false_alarms_are_as_many_as_the_level_says(runs, k, memory):
    """Drawn runs whose samples remember each other; each world judges one further run.

    The share over the limit of 95 % lies between 0.5 and 10 %, of 99 % below 2.5 %: limits lean on
    a few runs, and shrunk directions make Q's a little wide. Chi squared would let 24 to 63 % of
    Q out with three runs.
    """
    rng = np.random.default_rng(runs * 100 + k + int(10 * memory))
    n_worlds, n_times = 150, 12
    over = np.zeros((2, 2))
    for _ in range(n_worlds):
        mixing = rng.normal(size=(k, 2))
        causes = _remembering(rng, (runs + 1, n_times, 2), memory)
        noise = _remembering(rng, (runs + 1, n_times, k), memory)
        table = causes @ mixing.T + 0.7 * noise
        known, new = table[:runs], table[runs]
        mean, spread = known.mean(axis=0), known.std(axis=0, ddof=1)
        rows = ((known - mean) / spread).reshape(-1, k)
        by = ruler(alike(rows, np.repeat(np.arange(runs), n_times)), runs)
        for z in (new - mean) / spread:
            found = distance(z, by)
            over[0] += found.t2 > np.array(by.t2_limits)
            over[1] += found.q > np.array(by.q_limits)
    share = over / (n_worlds * n_times)
    assert ((share[:, 0] > 0.005) & (share[:, 0] < 0.10)).all(), share
    assert (share[:, 1] < 0.025).all(), share


def _remembering(rng, shape, memory):
    out = rng.normal(size=shape)
    for i in range(1, shape[1]):
        out[:, i] = memory * out[:, i - 1] + np.sqrt(1 - memory**2) * out[:, i]
    return out
