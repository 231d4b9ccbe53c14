"""The model behind the seed's names: runs, rates, batches, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, ConfigError
from perfusio_jax.chemistry import from_balanced, to_balanced
from perfusio_jax.mechanistic import (
    BALANCED_COLUMNS,
    DEFAULT_CONTROLS,
    CHOPerfusionModel,
    GlucosePump,
    balanced_to_plant,
    clone_x,
    clone_y,
    controls_from_dict,
    integrate_run,
    plant_to_balanced,
)
from tests.mechanistic.cases import radau

Y0 = {
    "VCD": 1.0,
    "Via": 99.0,
    "Glc": 5.0,
    "Gln": 4.0,
    "Glu": 0.5,
    "Lac": 2.0,
    "Amm": 0.5,
    "Pyr": 0.1,
    "Titer": 0.0,
}
CONTROLS = {"perfusion_rate": 1.0, "bleed_rate": 0.15, "temperature": 37.0}
FACE = np.array([12.0, 94.0, 4.0, 2.0, 0.6, 8.0, 1.5, 0.4, 300.0])


@pytest.fixture(scope="module")
def model():
    return CHOPerfusionModel(clone_y())


@pytest.fixture(scope="module")
def run(model):
    return model.simulate(Y0, CONTROLS, n_days=14)


def test_a_run_starts_where_it_is_told_and_follows_scipy(run):
    assert run.shape == (15, 9) and isinstance(run, np.ndarray)
    np.testing.assert_allclose(run[0], list(Y0.values()), rtol=1e-12)
    state = np.asarray(balanced_to_plant(to_balanced(jnp.asarray(list(Y0.values())))))
    u = [{**DEFAULT_CONTROLS, **CONTROLS}[n] for n in CONTROL_NAMES]
    exact = radau(state, [u] * 14, clone_y())
    faces = np.asarray(from_balanced(jnp.asarray(exact[:, list(BALANCED_COLUMNS)])))
    np.testing.assert_allclose(run, faces, rtol=1e-3, atol=1e-3)


def test_the_function_of_the_seed_gives_the_same_run(run):
    """And the model's keyword for randomness changes nothing: it has none."""
    again = integrate_run(clone_y(), list(Y0.values()), {**CONTROLS, "volume_L": 0.25}, 14)
    np.testing.assert_array_equal(again, run)
    np.testing.assert_array_equal(
        CHOPerfusionModel(clone_y()).simulate(Y0, CONTROLS, 14, seed=7), run
    )


def test_rates_are_what_is_left_of_the_derivative_without_flows(model):
    """Without flows, the derivative of the face is the reactions' alone."""
    still = {**DEFAULT_CONTROLS, "perfusion_rate": 0.0, "bleed_rate": 0.0}
    closed = CHOPerfusionModel(clone_y(), pump=GlucosePump(limit=0.0))
    rates = np.asarray(closed.predict_rates(FACE, still))
    h = 1e-3
    u = jnp.asarray([still[n] for n in CONTROL_NAMES])
    after, fed = closed.advance(to_balanced(jnp.asarray(FACE)), u, h)
    assert float(fed) == 0.0
    difference = (np.asarray(from_balanced(after)) - FACE) / h
    np.testing.assert_allclose(rates, difference, rtol=2e-4)
    # Flows are no part of a rate.
    flowing = np.asarray(model.predict_rates(FACE, {**still, "perfusion_rate": 2.0}))
    np.testing.assert_allclose(flowing, rates, rtol=1e-12)


def test_a_batch_is_a_loop(model):
    rng = np.random.default_rng(8)
    faces = FACE * np.exp(0.2 * rng.standard_normal((5, 9)))
    faces[:, 1] = rng.uniform(80.0, 100.0, 5)
    names = ["temperature", "perfusion_rate"]
    given = np.stack([rng.uniform(35.0, 37.5, 5), rng.uniform(0.5, 2.0, 5)], axis=1)
    batch = model.predict_rates_batch(faces, given, names)
    one_by_one = [
        model.predict_rates(c, dict(zip(names, u, strict=True)))
        for c, u in zip(faces, given.tolist(), strict=True)
    ]
    np.testing.assert_allclose(batch, np.stack(one_by_one), rtol=1e-12)
    assert model.predict_rates_batch(faces, np.zeros((5, 0)), []).shape == (5, 9)


def test_the_documented_path_goes_through_jit_vmap_and_grad(model):
    """A day after day by `advance`, the set-points given by name."""

    def titer(bleed):
        u = controls_from_dict({**CONTROLS, "bleed_rate": bleed})
        start = to_balanced(jnp.asarray(list(Y0.values())))
        state, _ = jax.lax.scan(lambda c, _: (model.advance(c, u)[0], None), start, length=7)
        return state[-1]

    bleeds = jnp.array([0.1, 0.2])
    slopes = np.asarray(jax.jit(jax.vmap(jax.grad(titer)))(bleeds))
    values = jax.jit(jax.vmap(titer))
    difference = (np.asarray(values(bleeds + 1e-4)) - np.asarray(values(bleeds - 1e-4))) / 2e-4
    np.testing.assert_allclose(slopes, difference, rtol=1e-6)


def test_whole_runs_trace_and_give_the_same_numbers(model):
    def run(perfusion, glucose):
        controls = {**CONTROLS, "perfusion_rate": perfusion, "volume_L": 0.25}
        return model.simulate({**Y0, "Glc": glucose}, controls, n_days=2)

    traced = jax.jit(jax.vmap(run))(jnp.array([1.0, 1.2, 0.1]), jnp.full(3, 5.0))
    wanted = run(1.0, 5.0)
    assert isinstance(wanted, np.ndarray)
    np.testing.assert_allclose(traced[0], wanted, rtol=1e-9)
    assert not np.allclose(traced[1], wanted) and np.all(np.isfinite(traced[1]))
    assert np.all(np.isnan(traced[2, 1:]))  # a bleed beyond the perfusion: no number, no error
    shape = jax.eval_shape(
        lambda y, dt: integrate_run(model.kinetics, y, CONTROLS, 2, dt), wanted[0], 24.0
    )
    assert shape.shape == wanted.shape


def test_layouts_are_inverses():
    balanced = jnp.arange(1.0, 10.0)
    np.testing.assert_array_equal(plant_to_balanced(balanced_to_plant(balanced)), balanced)
    assert float(balanced_to_plant(balanced)[2]) == 0.0
    assert CHOPerfusionModel.STATE_SPECIES == list(STATE_ORDER)
    assert CHOPerfusionModel().sieving.tolist() == [0.0, 0.0] + [1.0] * 7


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: CHOPerfusionModel(volume_L=0.0), "volume_L is 0.0"),
        (lambda m: CHOPerfusionModel(volume_L=float("nan")), "volume_L is nan"),
        (lambda m: CHOPerfusionModel(dt_hours=-24.0), "dt_hours is -24.0"),
        (lambda m: m.simulate({"VCD": 1.0}, CONTROLS, 2), "missing .*'Via'"),
        (lambda m: m.simulate({**Y0, "O2": 1.0}, CONTROLS, 2), "unknown .*'O2'"),
        (lambda m: m.simulate(Y0, {"feed": 1.0}, 2), "unknown control 'feed'"),
        (lambda m: m.predict_rates_batch(FACE[None], np.ones((1, 1)), ["pH"]), "distinct names"),
        (
            lambda m: m.predict_rates_batch(FACE[None], np.ones((1, 2)), ["agitation"] * 2),
            "distinct names",
        ),
        (
            lambda m: m.predict_rates_batch(FACE[None], np.ones((2, 1)), ["agitation"]),
            r"shape \(2, 1\); expected \(1, 1\)",
        ),
        (lambda m: integrate_run(clone_x(), [1.0] * 8, CONTROLS, 2), r"shape \(8,\)"),
        (lambda m: integrate_run(clone_x(), [1.0] * 9, CONTROLS, 0), "n_days is 0"),
        (lambda m: m.simulate({**Y0, "Glc": [1.0, 2.0]}, CONTROLS, 2), "one number"),
        (
            lambda m: m.advance(np.ones(9), np.ones(5)),
            r"controls has shape \(5,\); expected \(6,\)",
        ),
        (lambda m: m.advance(np.ones(6), np.ones(9)), r"c has shape \(6,\); expected \(9,\): Xv"),
        (lambda m: m.predict_rates(FACE, np.ones(7)), r"controls has shape \(7,\)"),
        (lambda m: m.predict_rates(FACE[:8], {}), r"c has shape \(8,\); expected \(9,\): VCD"),
    ],
)
def test_input_that_means_nothing_is_refused(model, call, match):
    with pytest.raises(ConfigError, match=match):
        call(model)
