"""Calibration finds constants that made the data, respects its prior, and stands outliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import BALANCED, ConfigError
from perfusio_jax.embedding import PRIOR_CLONE, CloneRegistry
from perfusio_jax.hybrid import (
    CALIBRATED,
    HybridStateSpaceModel,
    ResidualBasis,
    calibrate,
    draw_paths,
    for_clone,
)
from perfusio_jax.hybrid.calibration import N_CONSTANTS, Intervals, shifted, with_constants
from perfusio_jax.hybrid.family import CloneFamily, family_prior
from perfusio_jax.hybrid.rollouts import rollout_states
from perfusio_jax.hybrid.transition import prior_step
from perfusio_jax.mechanistic import CHOPerfusionModel

BASIS = ResidualBasis(
    [0.002, 0.002, 0.01, 0.01, 0.005, 0.02, 0.01, 0.01, 0.5], jnp.ones(9), jnp.ones(9)
)
SHIFTED = ("mu_max", "q_glc_max", "q_gln_max", "q_mAb_nongrowth", "alpha_amm_gln")
FACTORS = np.array([1.25, 0.8, 1.2, 1.4, 0.9])


@pytest.fixture(scope="module")
def intervals():
    """Rates of a mechanism with five other constants and no lactate switch, exactly known."""
    theta = jnp.zeros(N_CONSTANTS).at[-1].set(-6.0)
    index = jnp.asarray([CALIBRATED.index(n) for n in SHIFTED])
    theta = theta.at[index].set(jnp.log(FACTORS))
    true = with_constants(CHOPerfusionModel(), theta)
    rng = np.random.default_rng(0)
    low = [1.0, 0.05, 0.5, 0.2, 0.3, 0.5, 0.3, 0.05, 10.0]
    high = [50.0, 4.0, 8.0, 6.0, 2.0, 20.0, 5.0, 3.0, 900.0]
    states = jnp.asarray(rng.uniform(low, high, (96, 9)))
    controls = jnp.asarray(
        rng.uniform([0.5, 0.05, 2.0, 35.0, 700.0, 0.0], [2.0, 0.3, 8.0, 37.5, 1050.0, 5.0], (96, 6))
    )
    dt = jnp.full(96, 24.0)
    rates = jax.jit(jax.vmap(lambda c, u: prior_step(true, c, u, dt[0]).rates))(states, controls)
    return Intervals(states, controls, rates, dt, jnp.ones(96, bool)), theta


def test_constants_that_made_the_rates_are_found(intervals):
    data, theta = intervals
    model, info = calibrate(CHOPerfusionModel(), BASIS, data, tau=1.0, thinning=1.0, max_steps=120)
    share = np.asarray(info.residual_after) / np.asarray(info.residual_before)
    # the prior keeps a little of the switch, which shows in glucose and lactate only
    bound = np.full(9, 0.01)
    bound[[BALANCED.index("Glc"), BALANCED.index("Lac")]] = 0.25
    assert np.all(share < bound)
    for name, factor in zip(SHIFTED, FACTORS, strict=True):
        moved = float(getattr(model.kinetics, name) / getattr(CHOPerfusionModel().kinetics, name))
        assert moved == pytest.approx(factor, rel=0.05)
    assert float(model.kinetics.consumes_lactate) < 0.1
    assert float(theta[-1]) < 0


def test_rows_that_are_padding_do_not_count(intervals):
    data, _ = intervals
    used = jnp.arange(96) < 80
    spoilt = data._replace(rates=jnp.where(used[:, None], data.rates, 1e6), is_used=used)
    clean = data._replace(is_used=used)
    a = calibrate(CHOPerfusionModel(), BASIS, spoilt)[1].constants
    b = calibrate(CHOPerfusionModel(), BASIS, clean)[1].constants
    assert np.array_equal(a, b)


def test_one_spoilt_interval_has_bounded_pull(intervals):
    data, _ = intervals
    spoilt = data._replace(rates=data.rates.at[3].multiply(5.0))
    a = calibrate(CHOPerfusionModel(), BASIS, data)[1].constants
    b = calibrate(CHOPerfusionModel(), BASIS, spoilt)[1].constants
    assert np.max(np.abs(np.asarray(a - b))[:-1]) < 0.2


def test_without_data_the_prior_stays(intervals):
    data, _ = intervals
    centre = jnp.full(N_CONSTANTS, 0.1)
    empty = data._replace(is_used=jnp.zeros(96, bool))
    _, info = calibrate(CHOPerfusionModel(), BASIS, empty, centre=centre)
    assert np.allclose(info.constants, centre, atol=1e-12)


def _told(constants, precision):
    """Clones whose data say this, each with the same precision in every constant."""
    table = jnp.broadcast_to(precision * jnp.eye(N_CONSTANTS), (len(constants), *[N_CONSTANTS] * 2))
    return table, precision * constants


def test_family_prior_shrinks_and_widens():
    one = family_prior(*_told(jnp.full((1, N_CONSTANTS), 0.6), 1e6))
    many = family_prior(*_told(jnp.full((50, N_CONSTANTS), 0.6), 1e6))
    assert np.all(np.asarray(one[0])[:-1] < 0.55) and np.all(np.asarray(one[0])[:-1] > 0.3)
    assert np.allclose(many[0], 0.6, atol=0.02)
    assert np.all(np.asarray(many[1])[:-1] < np.asarray(one[1])[:-1])
    apart = jnp.linspace(-2.0, 2.0, 20)[:, None] * jnp.ones((1, N_CONSTANTS))
    assert np.all(np.asarray(family_prior(*_told(apart, 1e6))[1])[:-1] > 0.9)


def test_clones_that_say_nothing_neither_narrow_nor_move_the_family():
    silent = family_prior(*_told(jnp.zeros((8, N_CONSTANTS)), 1e-9))
    assert np.allclose(silent[0], 0.0, atol=1e-6)
    assert np.allclose(silent[1][:-1], 0.2, rtol=1e-3)
    # one that speaks among seven that do not: what it alone would give
    both = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b]),
        _told(jnp.full((1, N_CONSTANTS), 0.6), 1e6),
        _told(jnp.zeros((7, N_CONSTANTS)), 1e-9),
    )
    alone = family_prior(*_told(jnp.full((1, N_CONSTANTS), 0.6), 1e6))
    assert np.allclose(family_prior(*both)[0], alone[0], rtol=0.05)


def test_family_prior_is_the_mode_of_the_marginal_likelihood():
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(5, N_CONSTANTS, N_CONSTANTS))
    precision = jnp.asarray(roots @ roots.transpose(0, 2, 1) + 5.0 * np.eye(N_CONSTANTS))
    seen = jnp.asarray(rng.normal(0.2, 0.5, (5, N_CONSTANTS)))
    found = family_prior(precision, jnp.einsum("kpq,kq->kp", precision, seen))
    wide = jnp.full(N_CONSTANTS, 0.3).at[-1].set(2.0) ** 2
    typical = jnp.full(N_CONSTANTS, 0.2).at[-1].set(2.0) ** 2

    def density(mean, sd):
        variance = sd**2
        total = jnp.linalg.inv(precision) + jnp.diag(variance)[None]
        each = jax.vmap(
            lambda y, c: jax.scipy.stats.multivariate_normal.logpdf(y, mean, c), (0, 0)
        )(seen, total)
        shrink = jnp.sum(mean**2 / wide) + 2.0 * jnp.sum(jnp.log(variance) + typical / variance)
        return jnp.sum(each) - 0.5 * shrink

    slopes = jax.grad(density, (0, 1))(*found)
    assert np.max(np.abs(slopes[0])) < 1e-6 and np.max(np.abs(slopes[1])) < 1e-3


def test_a_shift_adds_to_the_constants():
    rng = np.random.default_rng(0)
    first, second = (jnp.asarray(rng.normal(0.0, 0.3, N_CONSTANTS)) for _ in range(2))
    base = CHOPerfusionModel()
    twice = shifted(with_constants(base, first), second)
    once = with_constants(base, first + second)
    for a, b in zip(jax.tree.leaves(twice), jax.tree.leaves(once), strict=True):
        assert np.allclose(a, b, rtol=1e-12)
    # a switch that is quite on or off stays finite, and as it is
    assert float(shifted(base, second).kinetics.consumes_lactate) == 1.0


def test_each_clone_has_its_own_mechanism_and_the_unknown_one_the_mean():
    table = jnp.zeros((2, N_CONSTANTS)).at[:, 0].set(jnp.asarray([0.1, 0.5]))
    factors = jnp.stack([0.1 * jnp.eye(N_CONSTANTS), 0.2 * jnp.eye(N_CONSTANTS)])
    family = CloneFamily(
        CloneRegistry.from_names(("A", "B")),
        CHOPerfusionModel(),
        table,
        table.mean(axis=0),
        factors,
        jnp.full(N_CONSTANTS, 0.5),
        jnp.stack([jnp.full(9, 0.1), jnp.full(9, 0.3)]),
    )
    base = float(CHOPerfusionModel().kinetics.mu_max)
    for index, factor in ((0, 0.1), (1, 0.5), (PRIOR_CLONE, 0.3)):
        mech = jax.jit(lambda i: family.mechanism(i))(jnp.asarray(float(index)))
        assert float(mech.kinetics.mu_max) == pytest.approx(base * np.exp(factor))
        open_by = {0: 0.1, 1: 0.2, PRIOR_CLONE: 0.5}[index]
        found = family.openness(jnp.asarray(float(index)))
        assert np.allclose(found, open_by * np.eye(N_CONSTANTS))
        noise = {0: 0.1, 1: 0.3, PRIOR_CLONE: 0.3}[index]
        assert np.allclose(family.noise(jnp.asarray(float(index))), noise)
    assert family.index("B") == 1
    assert family.index("nobody", unknown="prior") == PRIOR_CLONE
    with pytest.raises(ConfigError, match="nobody"):
        family.index("nobody")
    with pytest.raises(ConfigError, match="7"):
        family.index(7)


def test_what_stays_open_of_a_clone_widens_its_paths_and_moves_no_other():
    """A known clone's paths are one curve; an open one's spread as its constants do."""
    index, sd = CALIBRATED.index("q_mAb_nongrowth"), 0.2
    table = jnp.zeros((2, N_CONSTANTS)).at[:, -1].set(6.0)
    factors = jnp.zeros((2, N_CONSTANTS, N_CONSTANTS)).at[1, index, index].set(sd)
    nothing = jnp.zeros(N_CONSTANTS)
    family = CloneFamily(
        CloneRegistry.from_names(("known", "open")),
        CHOPerfusionModel(),
        table,
        table[0],
        factors,
        nothing,
        jnp.zeros((2, 9)),
    )
    model = HybridStateSpaceModel(CHOPerfusionModel(), None, family, basis=BASIS)
    paths = draw_paths(model, 400, key=jax.random.key(0), max_steps=2)
    start = jnp.asarray([20.0, 0.8, 4.0, 3.0, 0.8, 8.0, 2.0, 0.8, 200.0])
    recipe = jnp.asarray([1.0, 0.15, 4.0, 36.5, 850.0, 1.0])
    run = jax.jit(lambda m: rollout_states(m, paths, start, recipe, jnp.asarray(3.0), n_steps=2)[0])
    known, wide = (np.asarray(run(for_clone(model, name))) for name in family.registry.names)
    assert np.ptp(known, axis=0).max() < 1e-9
    # this constant makes product and nothing else
    titre = BALANCED.index("Titer")
    assert np.allclose(np.delete(wide, titre, 2), np.delete(known, titre, 2), rtol=1e-12)
    factor = np.exp(sd * np.asarray(paths.constants)[:, index])
    base = np.asarray(run(for_clone(model, "known")))[0, 0, titre]
    made = wide[:, 0, titre] - base
    slope = np.polyfit(factor - 1.0, made, 1)[0]
    assert slope > 0 and np.allclose(made, slope * (factor - 1.0), atol=1e-6 * base)


def test_refusals(intervals):
    with pytest.raises(ConfigError, match="tau"):
        calibrate(CHOPerfusionModel(), BASIS, intervals[0], tau=0.0)
    with pytest.raises(ConfigError, match="thinning"):
        calibrate(CHOPerfusionModel(), BASIS, intervals[0], thinning=-1.0)
