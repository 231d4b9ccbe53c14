"""Roll-outs: shapes, common random numbers, derivatives, seed faces, limits, storage."""

import copy
import json
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, STATE_ORDER, ConfigError, DataError
from perfusio_jax.chemistry import from_balanced
from perfusio_jax.gp import (
    AdditiveKernel,
    GaussianLikelihood,
    LinearMean,
    MechanisticPriorMean,
    MultiTaskRateGP,
    draw_gp_paths,
    finite_difference_noise,
)
from perfusio_jax.hybrid import (
    HybridStateSpaceModel,
    draw_paths,
    fit_hybrid,
    forecast_run,
    initial_belief,
    load,
    model_hash,
    rollout,
    rollout_with_info,
    save,
)
from perfusio_jax.hybrid.disturbance import mean_residual
from perfusio_jax.hybrid.paths import Paths
from perfusio_jax.hybrid.rollouts import rollout_states
from perfusio_jax.hybrid.storage import SCHEMA_VERSION
from perfusio_jax.hybrid.transition import ResidualBasis
from perfusio_jax.mechanistic import CHOPerfusionModel, Reactor
from tests.hybrid.cases import START, ToyMechanism

CONTROLS = jnp.array([1.0, 0.1, 5.0, 37.0, 850.0, 1.0])
STATE = jnp.asarray(START)
roll = eqx.filter_jit(rollout)


@pytest.fixture(scope="module")
def paths(hybrid):
    return eqx.filter_jit(draw_paths)(
        hybrid, 32, key=jax.random.key(0), max_steps=4, n_frequencies=32
    )


@pytest.fixture(scope="module")
def light():
    """A model per cell around a process that was conditioned, not fitted."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.uniform(0.5, 5.0, (12, 9)), rng.uniform(0.5, 2.0, (12, 6)),
                         np.arange(12.0)])  # fmt: skip
    gp = MultiTaskRateGP(x, rng.normal(size=(12, 9)), GaussianLikelihood(0.2)).condition()
    basis = ResidualBasis(np.full(9, 2e-3), np.full(9, 0.5), np.ones(9))
    return HybridStateSpaceModel(ToyMechanism(growth=0.022), gp, basis=basis)


@pytest.fixture(scope="module")
def plan():
    return jnp.broadcast_to(CONTROLS[None, :], (3, 6))


def test_rollout_is_a_function_of_its_inputs(hybrid, paths, plan):
    first = roll(hybrid, paths, STATE, plan, 0.0)
    assert first.shape == (32, 3, len(FORECAST_SPECIES))
    assert bool(jnp.all(jnp.isfinite(first)) & jnp.all(first >= 0.0))
    assert np.array_equal(first, roll(hybrid, paths, STATE, plan, 0.0))
    each = roll(hybrid, paths, jnp.broadcast_to(STATE[None, :], (32, 9)), plan, 0.0)
    assert np.allclose(first, each, rtol=1e-12)


def test_columns_agree_with_each_other(hybrid, paths, plan):
    values = roll(hybrid, paths, STATE, plan, 0.0)
    column = {name: values[..., i] for i, name in enumerate(FORECAST_SPECIES)}
    volume = 1e-4 * column["VCD"] * jnp.pi / 6 * column["Diam"] ** 3
    assert np.allclose(column["VCV"], volume, rtol=1e-9)
    via = 100 * column["VCD"] / (column["VCD"] + column["DCD"])
    assert np.allclose(column["Via"], via, rtol=1e-5)


def test_derivative_in_controls_and_start(hybrid, paths, plan):
    def mean_cells(bleed, cells):
        values = rollout(hybrid, paths, STATE.at[0].set(cells), plan.at[:, 1].set(bleed), 0.0)
        return jnp.mean(values[:, -1, 0])

    value = jax.jit(mean_cells)
    slopes = jax.jit(jax.grad(mean_cells, argnums=(0, 1)))(0.1, 2.0)
    h = 1e-4
    bleed = (value(0.1 + h, 2.0) - value(0.1 - h, 2.0)) / (2 * h)
    cells = (value(0.1, 2.0 + h) - value(0.1, 2.0 - h)) / (2 * h)
    assert float(slopes[0]) == pytest.approx(float(bleed), rel=2e-3)
    assert float(slopes[1]) == pytest.approx(float(cells), rel=2e-3)


def test_noise_switches_act(hybrid, paths, plan):
    clean = roll(hybrid, paths, STATE, plan, 0.0, process_noise=False)
    noisy = roll(hybrid, paths, STATE, plan, 0.0)
    read = roll(hybrid, paths, STATE, plan, 0.0, measurement_noise=True)
    # the same paths with and without: what differs is the noise alone
    assert float(jnp.std(noisy[:, -1, 0] - clean[:, -1, 0])) > 1e-4
    assay = float(jnp.std(read[:, -1, 0] / noisy[:, -1, 0]))
    # 32 draws give a standard deviation to within 13 %; three of those
    assert assay == pytest.approx(float(hybrid.assay.cv[0]), rel=0.4)
    via = read[..., FORECAST_SPECIES.index("Via")]
    assert bool(jnp.all((via >= 0.0) & (via <= 100.0)))


def test_info_counts_no_limits_in_ordinary_use(hybrid, paths, plan):
    _, info = eqx.filter_jit(rollout_with_info)(hybrid, paths, STATE, plan, 0.0)
    assert bool(info.is_finite)
    assert float(jnp.max(info.residual_limited)) < 0.02
    assert float(info.cells_limited) == 0.0


def test_one_trace_for_new_numbers(hybrid, paths, plan, traces):
    fun = eqx.filter_jit(traces(lambda *a: rollout(*a)))
    fun(hybrid, paths, STATE, plan, jnp.asarray(0.0))
    fun(hybrid, paths, STATE * 1.1, plan * 0.9, jnp.asarray(3.0))
    assert traces.count == 1


def test_seed_faces(hybrid):
    face = from_balanced(STATE)
    result = hybrid.predict_trajectory(face, CONTROLS, 2, n_samples=32)
    assert result["mean"].shape == (2, 9)
    assert np.all(result["q10"] <= result["q90"])
    mean, low, high = hybrid.predict_next_state(face, CONTROLS, 0, n_samples=32)
    assert mean.shape == low.shape == high.shape == (9,)
    assert float(mean[0]) == pytest.approx(float(result["mean"][0, 0]), rel=0.2)
    assert hybrid.gp_model.n_species == 9


def test_the_stepwise_view_forecasts_the_model(light, plan):
    # the same functions, drawn as predict_quantiles draws them, through the model's own roll-out
    view = light.gp_model.predict_quantiles(STATE, plan, 3, 8, return_samples=True)
    first = jax.random.split(jax.random.key(0), 3)[0]
    functions = eqx.filter_jit(draw_gp_paths)(light.gp, 8, key=first)
    quiet = Paths(functions, jnp.zeros((8, 3, 9)), jnp.zeros((8, 3, 12)))
    own, _ = eqx.filter_jit(rollout_states)(light, quiet, STATE, plan, 0.0, process_noise=False)
    assert np.allclose(view["samples"], own, rtol=1e-9)


def test_a_mean_function_of_the_process_counts_once():
    x = np.ones((4, 16)) + np.arange(4.0)[:, None]
    y = np.tile(np.arange(4.0)[:, None], (1, 9))
    mean = LinearMean(16, (9,))
    mean = eqx.tree_at(lambda m: m.bias, mean, jnp.full_like(mean.bias, 0.25))
    gp = MultiTaskRateGP(x, y, None, mean).condition()
    rows = jnp.ones((2, 16))
    model = HybridStateSpaceModel(ToyMechanism(), gp)
    assert np.allclose(mean_residual(model, rows), gp.posterior(rows)[0], rtol=1e-9)
    prior = MechanisticPriorMean(ToyMechanism(), 9, list(STATE_ORDER), list(CONTROL_NAMES))
    with pytest.raises(ConfigError, match="twice"):
        HybridStateSpaceModel(ToyMechanism(), MultiTaskRateGP(x, y, None, prior))


def test_a_step_of_a_forecast_is_the_models_own(light):
    face = from_balanced(STATE)
    twice = eqx.tree_at(lambda m: m.dt_hours, light, jnp.asarray(12.0))
    sure, halves = (forecast_run(m, face, CONTROLS, 2, 16) for m in (light, twice))
    assert sure["days"].tolist() == [1.0, 2.0] and halves["days"].tolist() == [0.5, 1.0]
    assert halves["hours"].tolist() == [12.0, 24.0]
    # what is called half a day is one: two steps come to where one of a day comes
    cells = [float(f["mean"][k, 0]) for f, k in ((halves, 1), (sure, 0), (sure, 1))]
    assert cells[0] == pytest.approx(cells[1], rel=0.1)
    assert cells[2] > 1.15 * cells[1]


def test_forecast_of_a_face_and_of_a_belief(hybrid):
    face = from_balanced(STATE)
    sure = forecast_run(hybrid, face, CONTROLS, 3, 64)
    assert sure["days"].tolist() == [1, 2, 3] and sure["hours"].tolist() == [24, 48, 72]
    assert sure["mean"].shape == (3, len(STATE_ORDER))
    again = forecast_run(hybrid, face, CONTROLS, 3, 64)
    assert np.array_equal(sure["q90"], again["q90"])
    belief = initial_belief(hybrid, face, key=jax.random.key(0), n_particles=48)
    vague = forecast_run(hybrid, belief, CONTROLS, 3, 64, names=("VCD", "VCV"))
    assert vague["mean"].shape == (3, 2)
    spread = [f["q90"][0, 0] - f["q10"][0, 0] for f in (vague, sure)]
    assert float(spread[0]) > float(spread[1])


def test_bad_requests_are_refused(hybrid, paths, plan):
    face = from_balanced(STATE)
    with pytest.raises(ConfigError, match="unknown species"):
        forecast_run(hybrid, face, CONTROLS, names=("Lys",))
    with pytest.raises(ConfigError, match="finite"):
        forecast_run(hybrid, face.at[3].set(jnp.nan), CONTROLS)
    with pytest.raises(ConfigError, match="clone"):
        forecast_run(hybrid, face, CONTROLS, clone_id=1)
    with pytest.raises(ConfigError, match="max_steps"):
        rollout(hybrid, paths, STATE, jnp.broadcast_to(CONTROLS[None, :], (9, 6)), 0.0)
    with pytest.raises(ConfigError, match="start of shape"):
        rollout(hybrid, paths, jnp.ones((5, 9)), plan, 0.0)
    with pytest.raises(ConfigError, match="neither"):
        HybridStateSpaceModel(ToyMechanism(), None, use_mechanism=False)
    with pytest.raises(ConfigError, match="species_names"):
        HybridStateSpaceModel(ToyMechanism(), None, species_names=["VCD"])


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ({"mode": "chemostat"}, "mode 'chemostat'"),
        ({"mode": "fed_batch"}, "mode 'fed_batch'"),
        ({"perfusion_mode": "cspr"}, "perfusion_mode 'cspr'"),
        ({"fouling_rate": 0.002}, "filter fouls .*0.002"),
    ],
)
def test_a_mechanism_of_another_process_is_refused(kind, match):
    """Its rates would be taken from the data by the balance of perfusion at constant volume."""
    mech = eqx.tree_at(lambda m: m.reactor, CHOPerfusionModel(), Reactor(**kind))
    with pytest.raises(ConfigError, match=match):
        HybridStateSpaceModel(mech, None)
    with pytest.raises(ConfigError, match=match):
        fit_hybrid([], key=jax.random.key(0), mech_model=mech)


def test_saved_model_comes_back_bit_for_bit(hybrid, prior, tmp_path):
    save(hybrid, tmp_path)
    back = load(tmp_path, mech_model=prior)
    assert eqx.tree_equal(hybrid, back)
    assert model_hash(back) == model_hash(hybrid)


@pytest.mark.parametrize("way", ["pickle", "folder", "copy"])
def test_a_model_that_comes_back_compiles_nothing_again(light, tmp_path, traces, way):
    if way == "folder":
        back = load(save(light, tmp_path), mech_model=ToyMechanism())
    else:
        back = copy.deepcopy(light) if way == "copy" else pickle.loads(pickle.dumps(light))
    assert eqx.tree_equal(light, back)
    # a compiled program is found by the tree's structure and the leaves' types, weak ones too
    program = eqx.filter_jit(traces(lambda m: [jnp.sum(v) for v in jax.tree.leaves(m)]))
    for model in (light, back, pickle.loads(pickle.dumps(back))):
        program(model)
    assert traces.count == 1


def test_what_would_not_come_back_is_not_saved(tmp_path):
    x, y = np.ones((4, 16)) + np.arange(4.0)[:, None], np.tile(np.arange(4.0)[:, None], (1, 9))
    additive = AdditiveKernel(9, 15, 1, 15)
    shared = finite_difference_noise([0, 0, 1, 1])
    for words, gp in (
        ("kernel AdditiveKernel", MultiTaskRateGP(x, y, kernel=additive)),
        ("mean_module LinearMean", MultiTaskRateGP(x, y, None, LinearMean(16))),
        ("data RateData", MultiTaskRateGP(x, y, row_noise=shared)),
    ):
        with pytest.raises(ConfigError, match=words):
            save(HybridStateSpaceModel(ToyMechanism(), gp), tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_saves_are_refused(hybrid, prior, tmp_path):
    save(hybrid, tmp_path)
    header = json.loads((tmp_path / "header.json").read_text())
    with pytest.raises(ConfigError, match="ToyMechanism"):
        load(tmp_path)
    for change, words in (
        ({"schema_version": 99}, f"version 99; this version reads {SCHEMA_VERSION}"),
        ({"kind": "cake"}, "a cake, not a Hybrid"),
        ({"sha256": "0"}, "does not match its own hash"),
    ):
        (tmp_path / "header.json").write_text(json.dumps({**header, **change}))
        with pytest.raises(DataError, match=words):
            load(tmp_path, mech_model=prior)
    (tmp_path / "header.json").write_text("{")
    with pytest.raises(DataError, match="JSON"):
        load(tmp_path, mech_model=prior)
    (tmp_path / "header.json").write_text(json.dumps(header))
    blob = (tmp_path / "arrays.npz").read_bytes()
    (tmp_path / "arrays.npz").write_bytes(blob[: len(blob) // 2])
    with pytest.raises(DataError):
        load(tmp_path, mech_model=prior)
    (tmp_path / "arrays.npz").unlink()
    with pytest.raises(DataError, match="not complete"):
        load(tmp_path, mech_model=prior)


@pytest.mark.parametrize("name", ["header.json", "arrays.npz"])
def test_one_changed_byte_is_noticed_or_does_nothing(hybrid, prior, tmp_path, name):
    folder = save(hybrid, tmp_path)
    good = (folder / name).read_bytes()
    refused = 0
    for place in np.linspace(0, len(good) - 1, 23).astype(int):
        content = bytearray(good)
        content[place] ^= 1
        (folder / name).write_bytes(content)
        try:
            back = load(folder, mech_model=prior)
        except DataError:
            refused += 1
        else:  # a byte of the archive that carries nothing: padding or a time stamp
            assert name == "arrays.npz"
            assert model_hash(back) == model_hash(hybrid)
    assert refused > 15
