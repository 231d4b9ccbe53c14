import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import BALANCED
from perfusio_jax.chemistry import Medium, glucose_feed_concentrations, inflow_concentrations


def test_default_composition():
    row = dict(zip(BALANCED, inflow_concentrations(Medium(), 2.5).tolist(), strict=True))
    assert row == {
        "Xv": 0.0,
        "Xd": 0.0,
        "Glc": 6.0,
        "Gln": 8.0,
        "Glu": 0.5,
        "Lac": 0.0,
        "Amm": 0.2,
        "Pyr": 2.5,
        "Titer": 0.0,
    }
    feed = glucose_feed_concentrations(Medium())
    assert feed.sum() == feed[BALANCED.index("Glc")] == 400.0


def test_pyruvate_adds_to_the_basal_medium():
    medium = Medium(pyruvate=1.0)
    assert inflow_concentrations(medium, 2.5)[BALANCED.index("Pyr")] == 3.5


def test_fields_are_traced_and_batch(traces):
    f = jax.jit(traces(inflow_concentrations))
    for glucose in (6.0, 7.0):
        assert f(Medium(glucose=glucose), jnp.array(1.0))[2] == glucose
    assert traces.count == 1
    supplements = jnp.array([0.0, 5.0])
    batch = inflow_concentrations(Medium(), supplements)
    looped = jnp.stack([inflow_concentrations(Medium(), s) for s in supplements])
    assert jnp.array_equal(batch, looped)
    grads = eqx.filter_grad(lambda m: inflow_concentrations(m, 0.0).sum())(Medium())
    assert grads.glutamine == 1.0 and grads.glucose_feed == 0.0
