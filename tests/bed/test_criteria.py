"""What a run is worth: economic criteria against arithmetic, gradients, limits from above."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, ConfigError
from perfusio_jax.bed import ChanceConstraint, probability_kept
from perfusio_jax.bed.goal.constraints import (
    chance_feasibility,
    each_constraint,
    probability_all_kept,
    worst_margin,
)
from perfusio_jax.bed.goal.criteria import (
    CellSpecificPerfusion,
    FinalValue,
    MediumPerGram,
    ProcessOFV,
    SpaceTimeYield,
    TrackingError,
)

VCD, VCV, VIA, AMM, TITRE = (
    FORECAST_SPECIES.index(s) for s in ("VCD", "VCV", "Via", "Amm", "Titer")
)
U = jnp.asarray([1.5, 0.3, 4.0, 36.0, 850.0, 1.0])


@pytest.fixture
def trajectories():
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.uniform(1.0, 50.0, (5, 4, 12)))


def test_criteria_are_what_one_computes_by_hand(trajectories):
    Y = trajectories
    np.testing.assert_allclose(FinalValue("Titer", last_days=2)(Y, U), Y[:, 2:, TITRE].mean(1))
    np.testing.assert_allclose(SpaceTimeYield()(Y, U), 1.2 * Y[..., TITRE].mean(1))
    # 1.5 vvd bring 1.5 L per litre and day; 1.2 vvd of harvest carry the titre in mg/L
    grams = 1.2 * np.asarray(Y[..., TITRE]).mean(1) / 1000.0
    np.testing.assert_allclose(MediumPerGram()(Y, U), 1.5 / grams)
    # 1.5 mL/mL/d over 1e6 cells/mL is 1.5e-6 mL = 1500 pL per cell and day
    wanted = np.mean(1500.0 / np.asarray(Y[..., VCD]), axis=1)
    np.testing.assert_allclose(CellSpecificPerfusion()(Y, U), wanted)


def test_tracking_follows_a_target_that_moves(trajectories):
    ramp = jnp.asarray([10.0, 12.0, 14.0, 16.0])
    gap = np.asarray(trajectories[..., VCV]) - np.asarray(ramp)
    found = TrackingError("VCV", ramp, from_day=1)(trajectories, U)
    np.testing.assert_allclose(found, np.sqrt((gap[:, 1:] ** 2).mean(1)), rtol=1e-9)
    exact = trajectories.at[..., VCV].set(ramp[None, :])
    assert float(TrackingError("VCV", ramp)(exact, U)[0]) < 1e-5


def test_sum_and_front_agree_with_the_parts(trajectories):
    criteria = [SpaceTimeYield(), MediumPerGram(), CellSpecificPerfusion()]
    ofv = ProcessOFV(criteria, weights=[1.0, 2.0, 0.5], scales=[10.0, 4.0, 100.0])
    values = np.asarray(ofv.values(trajectories, U))
    wanted = values[:, 0] / 10.0 - 2.0 * values[:, 1] / 4.0 - 0.5 * values[:, 2] / 100.0
    np.testing.assert_allclose(ofv.score_with_controls(trajectories, U), wanted, rtol=1e-12)
    np.testing.assert_allclose(-ofv.parts(trajectories, U).sum(1), wanted, rtol=1e-12)
    front = ProcessOFV(criteria, is_pareto=True)
    assert (ofv.n_objectives, front.n_objectives) == (1, 3)
    found = front.score_with_controls(trajectories, U)
    np.testing.assert_allclose(found, values * np.array([1.0, -1.0, -1.0]), rtol=1e-12)


def test_gradients_with_respect_to_set_points_and_course(trajectories):
    ofv = ProcessOFV([SpaceTimeYield(), MediumPerGram()], scales=[10.0, 1.0])

    def total(Y, u):
        return jnp.sum(ofv.score_with_controls(Y, u))

    slope = jax.grad(total, argnums=1)(trajectories, U)
    step = 1e-6
    for k in (0, 1):
        up, down = (total(trajectories, U.at[k].add(s)) for s in (step, -step))
        np.testing.assert_allclose(slope[k], (up - down) / (2 * step), rtol=1e-5)
    nothing = jax.grad(total)(jnp.zeros((1, 4, 12)), U)
    assert bool(jnp.all(jnp.isfinite(nothing)))


def test_upper_limits_mirror_lower_ones(trajectories):
    samples = trajectories[:, None]
    lower = ChanceConstraint(20.0, 0.6, species_index=AMM)
    upper = ChanceConstraint(-20.0, 0.6, species_index=AMM, is_upper=True)
    np.testing.assert_allclose(worst_margin(samples, lower), worst_margin(-samples, upper))
    np.testing.assert_allclose(
        chance_feasibility(samples, lower), chance_feasibility(-samples, upper)
    )
    assert upper.label == "Amm <=" and lower.label == "Amm >="


def test_all_limits_together_are_rarer_than_each(trajectories):
    samples = trajectories[:, None]
    limits = (
        ChanceConstraint(5.0),
        ChanceConstraint(45.0, species_index=AMM, is_upper=True),
    )
    together = float(probability_all_kept(samples, limits)[0])
    each = [float(probability_kept(samples, limit)[0]) for limit in limits]
    assert together <= min(each) and together >= sum(each) - 1.0 - 1e-12
    assert float(probability_all_kept(samples, None)[0]) == 1.0
    assert each_constraint(None) == () and each_constraint(limits[0]) == (limits[0],)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FinalValue("Sugar"), "not forecast"),
        (lambda: FinalValue("Titer", direction=0), "direction"),
        (lambda: TrackingError("VCV", np.nan), "finite"),
        (lambda: ProcessOFV([]), "at least one criterion"),
        (lambda: ProcessOFV([SpaceTimeYield()], weights=[1.0, 2.0]), "one weight"),
        (lambda: ProcessOFV([SpaceTimeYield()], scales=[0.0]), "above 0"),
        (lambda: ProcessOFV([SpaceTimeYield()], is_pareto=True), "two criteria"),
    ],
)
def test_unusable_wishes_are_named(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
