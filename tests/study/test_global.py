"""Sobol's indices and Morris's effects: equal to SALib's, true on paper, honest about failures."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from SALib.analyze import morris as salib_morris
from SALib.analyze import sobol as salib_sobol
from SALib.sample import sobol as salib_samples

from perfusio_jax._core import ConfigError, Result, SimulationError
from perfusio_jax.study import (
    Law,
    every_sample,
    morris_effects,
    morris_of_run,
    normal,
    sobol_indices,
    sobol_of_run,
)
from perfusio_jax.study.sensitivity import sobol, streaming
from perfusio_jax.study.sensitivity.laws import (
    ends,
    from_unit,
    laws_of,
    stacked,
    unit_uniform,
)
from perfusio_jax.study.sensitivity.morris import trajectories
from perfusio_jax.study.sensitivity.sobol import cross_sampled, sobol_samples
from tests.study.cultures import Exponential, chemostat, perfusion, vial

PROBLEM = {"num_vars": 3, "names": ["a", "b", "c"], "bounds": [[-np.pi, np.pi]] * 3}
LAWS = stacked([Law(False, False, -np.pi, 2 * np.pi)] * 3)


def ishigami(x):
    """The Ishigami function; a large constant on it, squared and scaled; and a constant."""
    y = jnp.sin(x[:, 0]) + 7.0 * jnp.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * jnp.sin(x[:, 0])
    return jnp.stack([y, 1e4 + 3.0 * y**2, 0.0 * y + 5.0], axis=1), jnp.zeros(y.size, int)


A = np.array([0.0, 0.5, 3.0, 9.0])


def g_function(x):
    """Sobol's g-function in four inputs of the unit cube."""
    parts = (jnp.abs(4.0 * x - 2.0) + jnp.asarray(A)[None]) / (1.0 + jnp.asarray(A)[None])
    return jnp.prod(parts, axis=1)[:, None], jnp.zeros(x.shape[0], int)


def ishigami_on_paper():
    a, b, pi = 7.0, 0.1, math.pi
    v1 = 0.5 * (1.0 + b * pi**4 / 5.0) ** 2
    v2 = a**2 / 8.0
    v13 = b**2 * pi**8 * (1.0 / 18.0 - 1.0 / 50.0)
    v = v1 + v2 + v13
    return np.array([v1, v2, 0.0]) / v, np.array([v1 + v13, v2, v13]) / v, v13 / v


def g_on_paper():
    part = 1.0 / (3.0 * (1.0 + A) ** 2)
    v = np.prod(1.0 + part) - 1.0
    return part / v, part * np.prod(1.0 + part) / (1.0 + part) / v


# ---------------------------------------------------------------- against SALib


@pytest.mark.parametrize("is_second", [True, False])
def test_samples_and_indices_are_those_of_salib(is_second):
    theirs = salib_samples.sample(
        PROBLEM, 128, calc_second_order=is_second, seed=np.random.default_rng(7)
    )
    points = np.concatenate(list(sobol_samples(128, 3, 7, 16)))
    rows = from_unit(LAWS, cross_sampled(jnp.asarray(points), is_second).reshape(-1, 3))
    np.testing.assert_allclose(rows, theirs, rtol=0, atol=1e-14)
    found = sobol_indices(ishigami, LAWS, 128, seed=7, is_second=is_second)
    y = np.asarray(ishigami(jnp.asarray(theirs))[0])
    for k in range(2):
        expected = salib_sobol.analyze(PROBLEM, y[:, k], calc_second_order=is_second, seed=1)
        np.testing.assert_allclose(found.first[k], expected["S1"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.total[k], expected["ST"], rtol=0, atol=1e-10)
        assert found.mean[k] == pytest.approx(np.mean(y[:, k]), rel=0.2)
        # theirs draws samples, ours blocks of them: alike, not equal
        ratio = found.total_half_width[k] / expected["ST_conf"]
        assert np.all((ratio > 0.4) & (ratio < 2.0))
        if is_second:
            np.testing.assert_allclose(found.second[k], expected["S2"], rtol=0, atol=1e-10)
            assert np.isnan(found.second[k][np.tril_indices(3)]).all()
            assert np.isfinite(found.second_half_width[k][np.triu_indices(3, 1)]).all()
    assert np.isnan(found.total[2]).all() and found.sd[2] == 0.0 and found.mean[2] == 5.0
    assert (found.second is None) == (not is_second)


def test_elementary_effects_are_those_of_salib():
    found = morris_effects(ishigami, LAWS, 41, seed=3)
    points = np.concatenate(list(trajectories(41, 3, 3)))
    rows = np.asarray(from_unit(LAWS, jnp.asarray(points.reshape(-1, 3))))
    y = np.asarray(ishigami(jnp.asarray(rows))[0])
    for k in range(2):
        expected = salib_morris.analyze(PROBLEM, rows, y[:, k], num_levels=4, seed=1)
        size = np.abs(y[:, k]).max()
        for ours, name in ((found.mu, "mu"), (found.mu_star, "mu_star"), (found.sigma, "sigma")):
            np.testing.assert_allclose(ours[k], expected[name], rtol=0, atol=1e-10 * size)
        theirs = np.asarray(expected["mu_star_conf"], float)
        alike = np.abs(found.mu_star_half_width[k] - theirs) < 0.5 * theirs + 1e-9 * size
        assert alike.all()


def test_trajectories_move_one_input_at_a_time_within_the_cube():
    points = np.concatenate(list(trajectories(20, 5, 1, levels=6, chunk=8)))
    assert points.shape == (24, 6, 5) and np.all(points[20:] == points[19])
    moves = np.diff(points[:20], axis=1)
    assert np.all(np.sum(moves != 0.0, axis=2) == 1) and np.all(np.sum(moves != 0.0, axis=1) == 1)
    np.testing.assert_allclose(np.abs(moves[moves != 0.0]), 0.6)
    assert points.min() >= 0.0 and points.max() <= 1.0
    assert 20 < np.sum(moves > 0.0) < 80
    pieces = [np.concatenate(list(trajectories(20, 5, 1, chunk=c)))[:20] for c in (4, 4)]
    np.testing.assert_array_equal(*pieces)


# ---------------------------------------------------------------- against paper


def test_indices_converge_to_those_on_paper():
    first, total, pair = ishigami_on_paper()
    found = sobol_indices(ishigami, LAWS, 8192, is_second=True)
    np.testing.assert_allclose(found.first[0], first, atol=0.01)
    np.testing.assert_allclose(found.total[0], total, atol=0.01)
    np.testing.assert_allclose(found.second[0][0, 2], pair, atol=0.02)
    np.testing.assert_allclose(found.second[0][[0, 1], [1, 2]], 0.0, atol=0.02)
    first, total = g_on_paper()
    found = sobol_indices(g_function, unit_uniform(4), 8192)
    np.testing.assert_allclose(found.first[0], first, atol=0.01)
    np.testing.assert_allclose(found.total[0], total, atol=0.01)
    assert found.change[0] < 0.03


@pytest.mark.parametrize(
    "model, laws, truth",
    [
        (ishigami, LAWS, ishigami_on_paper()[:2]),
        (g_function, unit_uniform(4), g_on_paper()),
    ],
    ids=["ishigami", "g"],
)
def test_intervals_cover(model, laws, truth):
    n_tries, inside, errors, widths = 120, [], [], []
    for seed in range(n_tries):
        found = sobol_indices(model, laws, 256, seed=seed, n_resamples=50)
        pairs = ((found.first, found.first_half_width), (found.total, found.total_half_width))
        error = np.array([v[0] - t for (v, _), t in zip(pairs, truth, strict=True)])
        width = np.array([w[0] for _, w in pairs])
        inside.append(np.abs(error) <= width)
        errors.append(error)
        widths.append(width)
    covered = np.mean(inside, axis=0)
    # four standard deviations of a count of 120 that is to be 95 %
    assert np.all(covered >= 0.95 - 4.0 * math.sqrt(0.95 * 0.05 / n_tries)), covered
    # and not by being wide: a Sobol sequence errs less than the spread over its blocks says, but
    # the intervals are of the size of the errors
    needed = 1.96 * np.sqrt(np.mean(np.square(errors), axis=0))
    assert np.all(np.mean(widths, axis=0) < 4.0 * np.maximum(needed, 0.01))


def test_exponential_growth_has_the_shares_on_paper():
    hours = np.linspace(0.0, 10.0, 3)
    run = vial(Exponential(), hours, start=2.0)
    found = sobol_of_run(
        run,
        every_sample(run, ["X"]),
        ["mu", "start.X"],
        ranges={"mu": normal(0.1, 0.02)},
        n=2048,
        is_second=True,
    )
    for k, t in enumerate(hours[1:]):
        s_mu, s_start = (0.02 * t) ** 2, 0.1**2
        v_mu, v_start = math.exp(s_mu) - 1.0, math.exp(s_start) - 1.0
        whole = math.exp(s_mu + s_start) - 1.0
        np.testing.assert_allclose(
            found.found.first[k], np.array([v_mu, v_start]) / whole, atol=0.02
        )
        mean = 2.0 * math.exp(0.1 * t + 0.5 * (s_mu + s_start))
        assert found.found.mean[k] == pytest.approx(mean, rel=0.005)
    assert any("settled" in line for line in found.remarks())


def test_effects_of_a_plane_are_its_slopes():
    slopes = jnp.asarray([3.0, -2.0, 0.0])

    def plane(x):
        return (x @ slopes)[:, None], jnp.zeros(x.shape[0], int)

    found = morris_effects(plane, unit_uniform(3), 10)
    np.testing.assert_allclose(found.mu[0], slopes, atol=1e-12)
    np.testing.assert_allclose(found.mu_star[0], np.abs(slopes), atol=1e-12)
    np.testing.assert_allclose(found.sigma[0], 0.0, atol=1e-7)


# ---------------------------------------------------------------- one pass


def test_sums_do_not_depend_on_how_the_samples_are_cut(monkeypatch):
    whole = sobol_indices(ishigami, LAWS, 256, seed=2)
    effects = morris_effects(ishigami, LAWS, 150, seed=2)
    monkeypatch.setattr(streaming, "ROWS", 24)
    for name in ("sobol", "morris"):
        module = __import__(f"perfusio_jax.study.sensitivity.{name}", fromlist=["ROWS"])
        if hasattr(module, "ROWS"):
            monkeypatch.setattr(module, "ROWS", 4)
    pieces = sobol_indices(ishigami, LAWS, 256, seed=2)
    np.testing.assert_allclose(pieces.total, whole.total, rtol=1e-12)
    np.testing.assert_allclose(pieces.first, whole.first, rtol=0, atol=1e-12)
    assert pieces.lost.n_runs == whole.lost.n_runs == 256 * 5
    assert morris_effects(ishigami, LAWS, 150, seed=2).lost == effects.lost


def test_a_chunk_has_one_size_and_one_program():
    assert streaming.chunk_size(4096, 38) == 8 and streaming.chunk_size(16, 38) == 1
    before = sobol._summed.n_programs()
    sobol_indices(ishigami, LAWS, 64, seed=0)
    once = sobol._summed.n_programs()
    sobol_indices(ishigami, stacked([Law(False, False, 0.0, 1.0)] * 3), 64, seed=5)
    assert sobol._summed.n_programs() == once <= before + 1


def test_what_fails_is_counted_and_left_out_of_everything():
    def partly(x):
        y, codes = ishigami(x)
        codes = jnp.where(x[:, 0] > 2.9, Result.STEP_TOO_SMALL.value, codes)
        y = jnp.where((x[:, 1] > 3.0)[:, None], jnp.nan, y)
        return jnp.where((codes != 0)[:, None], jnp.nan, y), codes

    points = np.concatenate(list(sobol_samples(256, 3, 4, 4)))
    rows = np.asarray(from_unit(LAWS, cross_sampled(jnp.asarray(points), False).reshape(-1, 3)))
    y, codes = (np.asarray(v) for v in partly(jnp.asarray(rows)))
    is_bad = (codes != 0) | ~np.isfinite(y).all(axis=1)
    keep = ~is_bad.reshape(256, 5).any(axis=1)
    good = np.asarray(ishigami(jnp.asarray(rows))[0])[:, 0].reshape(256, 5)[keep].ravel()
    expected = salib_sobol.analyze(PROBLEM, good, calc_second_order=False, seed=1)
    found = sobol_indices(partly, LAWS, 256, seed=4)
    np.testing.assert_allclose(found.total[0], expected["ST"], atol=1e-10)
    np.testing.assert_allclose(found.first[0], expected["S1"], atol=1e-10)
    lost = found.lost
    assert 0 < lost.n_failed == int(is_bad.sum()) and lost.n_left_out == int((~keep).sum())
    assert set(lost.by_code) == {Result.STEP_TOO_SMALL.value, Result.NONFINITE.value}
    (said,) = lost.lines()
    assert f"{lost.n_failed} of 1280 runs failed" in said and "STEP_TOO_SMALL" in said

    effects = morris_effects(partly, LAWS, 40, seed=4)
    assert effects.lost.n_failed > 0 and np.isfinite(effects.mu_star[:2]).all()
    assert effects.lost.n_runs == 160

    def never(x):
        return jnp.full((x.shape[0], 1), jnp.nan), jnp.zeros(x.shape[0], int)

    with pytest.raises(SimulationError, match="nothing can be said.*Narrow the ranges"):
        sobol_indices(never, LAWS, 16)
    with pytest.raises(SimulationError, match="nothing can be said"):
        morris_effects(never, LAWS, 4)


# ---------------------------------------------------------------- runs


def test_of_a_chemostat_what_enters_decides_and_what_does_nothing_has_no_share():
    run = chemostat()
    found = sobol_of_run(
        run,
        ["last X", "min S"],
        ["feed_S", "start.P", "a_S"],
        ranges={"feed_S": (8.0, 14.0)},
        n=64,
    )
    total = found.found.total[0]
    assert total[1] == pytest.approx(0.0, abs=1e-12) and total[2] > 0.05
    assert found.found.lost.n_failed == 0
    np.testing.assert_allclose(found.ranges[:, 0], [8.0 + 0.15, 14.0 - 0.15])
    effects = morris_of_run(run, ["last X"], ["feed_S", "start.P"], n=6)
    assert effects.found.mu[0, 0] > 0.0 and effects.found.mu_star[0, 1] < 1e-6


def test_failed_runs_of_a_plant_are_told():
    run = perfusion(days=2)
    found = sobol_of_run(
        run,
        ["last VCD"],
        ["bleed_rate", "mu_max"],
        ranges={"bleed_rate": (0.0, 1.6)},
        n=32,
    )
    # the first day's perfusion is 1.0 vvd and a bleed above it leaves no harvest
    assert found.found.lost.by_code.keys() == {Result.BAD_INPUT.value}
    assert any("BAD_INPUT" in line for line in found.remarks())


def test_what_cannot_be_sampled_is_refused():
    run = chemostat()
    levers = tuple(v for v in run.levers if v.name in ("mu_max", "c[P]"))
    with pytest.raises(ConfigError, match=r"c\[P\] stands at 0.*give its range"):
        laws_of(run, levers)
    with pytest.raises(ConfigError, match=r"mu_mx.*did you mean 'mu_max'"):
        laws_of(run, levers, {"mu_mx": (0.0, 1.0)})
    laws = laws_of(run, levers, {"c[P]": (0.0, 2.0), "mu_max": (0.1, 0.3)})
    np.testing.assert_allclose(ends(laws)[:, 1], [0.05, 1.95])
    with pytest.raises(ConfigError, match="100 samples.*nearest is 128"):
        sobol_indices(ishigami, LAWS, 100)
    with pytest.raises(ConfigError, match="1 trajectories"):
        morris_effects(ishigami, LAWS, 1)
    with pytest.raises(ConfigError, match="5 levels; an even number"):
        morris_effects(ishigami, LAWS, 4, levels=5)
    with pytest.raises(ConfigError, match="a level between 0 and 1"):
        sobol_indices(ishigami, LAWS, 16, level=95.0)
