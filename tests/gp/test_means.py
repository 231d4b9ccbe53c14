"""Means: shapes, the mechanistic rates against the balance, derivatives, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, ConfigError
from perfusio_jax.chemistry import balance_step, perfusion_flows
from perfusio_jax.gp import MechanisticPriorMean, ZeroMeanMultiTask, mechanistic_rates
from tests.hybrid.cases import ToyMechanism

STATE = jnp.array([10.0, 0.5, 4.0, 2.0, 0.5, 10.0, 2.0, 0.5, 200.0])
CONTROLS = jnp.array([1.0, 0.1, 5.0, 37.0, 850.0, 1.0])


@pytest.fixture(scope="module")
def mean():
    return MechanisticPriorMean(ToyMechanism(), 9, list(STATE_ORDER), list(CONTROL_NAMES))


def test_rates_lead_back_to_the_models_state():
    mech = ToyMechanism()
    rates, after, glucose = mechanistic_rates(mech, STATE, CONTROLS, jnp.asarray(24.0))
    flows = perfusion_flows(CONTROLS, mech.volume_L, glucose, mech.medium, 24.0, mech.sieving)
    again = balance_step(STATE, rates, mech.volume_L, mech.volume_L, flows, 24.0)
    assert np.allclose(again, after, rtol=1e-10)


def test_batch_single_task_scale_and_order(mean):
    rows = jnp.concatenate([STATE, CONTROLS, jnp.array([3.0])])[None, :] * jnp.ones((2, 1))
    rates = mean(rows)
    assert rates.shape == (2, 9)
    swapped = MechanisticPriorMean(
        ToyMechanism(), 9, STATE_ORDER, CONTROL_NAMES[::-1], task_index=2, scale=2.0
    )
    turned = rows.at[:, 9:15].set(rows[:, 9:15][:, ::-1])
    assert np.allclose(swapped(turned), 2.0 * rates[:, 2], rtol=1e-12)


def test_prior_differentiates_in_inputs(mean):
    rows = jnp.concatenate([STATE, CONTROLS, jnp.array([3.0])])[None, :]
    slope = jax.jacfwd(lambda v: mean(rows.at[0, 9].set(v))[0])(rows[0, 9])
    h = 1e-5
    step = (mean(rows.at[0, 9].add(h)) - mean(rows.at[0, 9].add(-h)))[0] / (2 * h)
    assert np.allclose(slope, step, rtol=1e-4, atol=1e-7)


def test_zero_mean_and_refusals():
    assert ZeroMeanMultiTask((2,))(jnp.ones((4, 3))).shape == (2, 4)
    with pytest.raises(ConfigError, match="n_species=3"):
        MechanisticPriorMean(ToyMechanism(), 3, STATE_ORDER, CONTROL_NAMES)
    with pytest.raises(ConfigError, match="controls"):
        MechanisticPriorMean(ToyMechanism(), 9, STATE_ORDER, ("perfusion_rate",))
    with pytest.raises(ConfigError, match="task_index"):
        MechanisticPriorMean(ToyMechanism(), 9, STATE_ORDER, CONTROL_NAMES, 9)
