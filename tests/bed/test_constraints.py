"""Chance constraints count paths; limits are boxes and rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, ConfigError
from perfusio_jax.bed import (
    ChanceConstraint,
    ControlCost,
    ControlLimits,
    bleed_below_perfusion,
    chance_feasibility,
    control_limits,
    probability_kept,
)
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, ControlBounds

VIA = FORECAST_SPECIES.index("Via")


def samples_with_worst(worst):
    """One candidate whose paths have the given worst viability on the second of three days."""
    S = len(worst)
    Y = jnp.full((S, 1, 3, 12), 99.0)
    return Y.at[:, 0, 1, VIA].set(jnp.asarray(worst, float))


@given(st.integers(0, 20))
def test_sign_of_the_step_agrees_with_the_exact_count(n_bad):
    worst = np.where(np.arange(20) < n_bad, 94.0, 96.0)
    samples = samples_with_worst(worst)
    constraint = ChanceConstraint(95.0, 0.9, backoff=0.0)
    kept = float(probability_kept(samples, constraint)[0])
    assert kept == pytest.approx(1 - n_bad / 20)
    log_value = float(chance_feasibility(samples, constraint)[0])
    # 18 of 20 is exactly 0.9 and must count as kept
    assert (log_value > np.log(0.5)) == (n_bad <= 2)


def test_one_bad_day_is_enough():
    samples = samples_with_worst(np.full(10, 94.0))
    assert float(probability_kept(samples, ChanceConstraint(95.0))[0]) == 0.0


def test_gradient_leads_back_from_far_outside():
    constraint = ChanceConstraint(95.0)
    base = samples_with_worst(np.full(10, 60.0))
    slope = jax.grad(lambda shift: chance_feasibility(base + shift, constraint)[0])(0.0)
    np.testing.assert_allclose(slope, 1.0 / 0.1, rtol=1e-6)
    deep = chance_feasibility(samples_with_worst(np.full(10, 0.0)), constraint)
    assert bool(jnp.all(jnp.isfinite(deep)))


def test_control_cost_counts_moves_and_soft_bounds():
    cost = ControlCost(
        reference=jnp.asarray([0.0, 0.0]),
        width=jnp.asarray([2.0, 4.0]),
        lower=jnp.asarray([-1.0, -1.0]),
        upper=jnp.asarray([1.0, 1.0]),
        move_weight=0.1,
        soft_weight=3.0,
    )
    np.testing.assert_allclose(cost(jnp.asarray([1.0, 0.0])), 0.1 * 0.25)
    np.testing.assert_allclose(cost(jnp.asarray([0.0, 2.0])), 0.1 * 0.25 + 3.0 / 16)


def test_limits_of_the_default_space():
    limits = control_limits(DEFAULT_AMBR250_DESIGN_SPACE, max_change={"temperature": 0.5})
    lower, upper = map(np.asarray, DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
    middle = jnp.asarray(0.5 * (lower + upper))
    low, high = limits.box(middle)
    place = CONTROL_NAMES.index("temperature")
    np.testing.assert_allclose(high[place] - low[place], 1.0)
    others = np.arange(6) != place
    np.testing.assert_array_equal(np.asarray(low)[others], lower[others])
    np.testing.assert_array_equal(np.asarray(high)[others], upper[others])
    np.testing.assert_array_equal(limits.A, [[-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    # a read-back outside the space is led back as fast as the rate limit allows
    for outside, first in ((40.0, 39.5), (33.0, 33.5)):
        low, high = limits.box(middle.at[place].set(outside))
        assert float(low[place]) == first == float(high[place])


@given(st.floats(-50.0, 150.0), st.floats(0.0, 60.0), st.floats(1e-3, 40.0), st.floats(0.0, 5.0))
def test_a_box_never_breaks_the_rate_limit_and_reaches_inside_where_a_step_does(
    now, width, change, margin
):
    lower, upper = np.array([20.0]), np.array([20.0 + width])
    soft = jnp.asarray([margin])
    limits = ControlLimits(
        jnp.asarray(lower),
        jnp.asarray(upper),
        soft,
        soft,
        jnp.asarray([change]),
        jnp.zeros((0, 1)),
        jnp.zeros(0),
    )
    low, high = (float(v[0]) for v in limits.box(jnp.asarray([now])))
    assert low <= high
    assert now - change <= low and high <= now + change
    floor, ceiling = lower[0] - margin, upper[0] + margin
    if now - change <= ceiling and now + change >= floor:
        assert floor <= low and high <= ceiling
        assert low == max(floor, now - change) and high == min(ceiling, now + change)
    else:
        assert low == high == (now - change if now > ceiling else now + change)


def test_soft_bounds_widen_the_box_by_their_margin():
    bounds = dict(DEFAULT_AMBR250_DESIGN_SPACE.control_bounds)
    bounds["agitation"] = ControlBounds(lo=700, hi=1050, unit="rpm", hard_upper=False)
    space = DEFAULT_AMBR250_DESIGN_SPACE.model_copy(update={"control_bounds": bounds})
    limits = control_limits(space, soft_margin=0.1)
    low, high = limits.box(limits.lower)
    place = list(bounds).index("agitation")
    assert float(high[place]) == 1050 + 35 and float(low[place]) == 700


def test_bleed_row_needs_both_controls():
    A, b = bleed_below_perfusion(("bleed_rate", "temperature"))
    assert A.shape == (0, 2) and b.shape == (0,)
    A, b = bleed_below_perfusion(("bleed_rate", "perfusion_rate"), 0.3)
    np.testing.assert_array_equal(A, [[1.0, -0.3]])


def test_unusable_rate_limits_are_named():
    for change in ({"stirring": 1.0}, {"temperature": 0.0}):
        with pytest.raises(ConfigError, match="max_change"):
            control_limits(DEFAULT_AMBR250_DESIGN_SPACE, max_change=change)
