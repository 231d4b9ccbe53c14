"""Teaching, forecasting and keeping a model of several clones, on a known function."""

import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.checkpoint import ARRAYS, HEADER
from perfusio_jax.embedding import PRIOR_CLONE, EntityEmbedding, TransferLearner, laplace, nuts
from perfusio_jax.embedding.posterior import EmbeddingPosterior
from perfusio_jax.gp import FitConfig, log_posterior

SLOPES = (1.0, 1.6, 1.3)
NOISE = 0.05
S = 6


def truth(x, clone):
    a = SLOPES[clone]
    return np.stack([a * np.sin(x[:, 0]) + 0.3 * x[:, 1], a * np.cos(x[:, 0])], axis=1)


def rows(clone, n, seed):
    rng = np.random.default_rng([seed, clone])
    x = np.column_stack([rng.uniform(-2, 2, (n, 2)), rng.integers(0, 10, n)])
    return x, truth(x, clone) + NOISE * rng.standard_normal((n, 2)), np.full(n, clone)


@pytest.fixture(scope="module")
def source():
    return [np.concatenate(parts) for parts in zip(rows(0, 25, 0), rows(1, 25, 0), strict=True)]


@pytest.fixture(scope="module")
def warm(source):
    return TransferLearner(EntityEmbedding(2, 2)).warm_start(*source, n_iter=80)


@pytest.fixture(scope="module")
def few():
    return rows(2, 4, 1)


@pytest.fixture(scope="module")
def tuned(warm, few):
    return warm.joint_finetune(*few, n_iter=60, freeze_backbone=True)


@pytest.fixture(scope="module")
def unseen():
    return rows(2, 60, 2)


def rmse(mean, x, clone=2):
    return float(np.sqrt(np.mean((np.asarray(mean) - truth(x, clone)) ** 2)))


def test_training_raises_the_posterior_and_leaves_its_arguments_alone(source, warm):
    start = TransferLearner(EntityEmbedding(2, 2))
    first = start.warm_start(*source, n_iter=0)
    assert start.model is None and first.model is not None and warm.model is not None
    assert float(log_posterior(warm.model)) > float(log_posterior(first.model)) + 10.0
    np.testing.assert_array_equal(first.embedding.weight, start.embedding.weight)


def test_a_frozen_backbone_moves_the_new_vector_only(warm, tuned):
    assert tuned.embedding.n_clones == 3
    np.testing.assert_array_equal(tuned.embedding.weight[:2], warm.embedding.weight)
    assert float(jnp.max(jnp.abs(tuned.embedding.weight[2] - warm.embedding.mean))) > 1e-3
    a, b = tuned.model, warm.model
    np.testing.assert_allclose(a.kernel.lengthscale, b.kernel.lengthscale, rtol=1e-12)
    np.testing.assert_array_equal(a.kernel.task_covariance(), b.kernel.task_covariance())
    np.testing.assert_allclose(a.likelihood.variance(2), b.likelihood.variance(2), rtol=1e-12)


def test_fine_tuning_moves_the_table_faster_than_the_rest(warm, few):
    # rates so small that the step surely is downhill and therefore kept
    slow = TransferLearner(warm.embedding, warm.model, lr_backbone=1e-6, lr_embedding=1e-5)
    moved = slow.joint_finetune(*few, n_iter=1)
    # the two columns of the embedding keep a lengthscale of one
    old, new = (m.kernel.state.lengthscale.raw[:2] for m in (warm.model, moved.model))
    backbone = jnp.abs(new - old)
    table = jnp.abs(moved.embedding.weight[:2] - warm.embedding.weight)
    # Adam's first step has the length of its rate
    assert float(jnp.max(backbone)) == pytest.approx(1e-6, rel=1e-2)
    assert float(jnp.max(table)) == pytest.approx(1e-5, rel=1e-2)


def test_four_rows_of_a_new_clone_do_more_with_the_others_than_alone(tuned, few, unseen):
    x, y, _ = few
    alone = TransferLearner(EntityEmbedding(1, 2)).warm_start(x, y, np.zeros(4, int), n_iter=80)
    error = rmse(tuned.predict(unseen[0], 2).mean, unseen[0])
    assert error < 0.5 * rmse(alone.predict(unseen[0], 0).mean, unseen[0])
    spread = np.std(truth(unseen[0], 2))
    assert error < 0.25 * spread


def test_what_is_not_known_of_the_vector_shows_in_the_forecast(tuned, unseen):
    posterior = tuned.embedding_posterior(2, key=jax.random.key(0))
    draws = posterior.draws(S, key=jax.random.key(1))
    point = tuned.predict(unseen[0], 2, vectors=jnp.tile(posterior.mean, (S, 1)))
    mixed = tuned.predict(unseen[0], 2, vectors=draws)
    assert float(jnp.mean(mixed.variance)) > float(jnp.mean(point.variance))
    nobody = tuned.embedding_posterior(PRIOR_CLONE, key=jax.random.key(3), n_samples=S)
    blind = tuned.predict(unseen[0], PRIOR_CLONE, vectors=nobody.samples)
    assert float(jnp.mean(blind.variance)) > 2.0 * float(jnp.mean(mixed.variance))
    # the law of total variance over the single models
    models = tuned.models(2, draws)
    inputs = jnp.asarray(np.insert(unseen[0], 2, 2.0, axis=1))
    single = [
        jax.tree.map(lambda v, k=k: v[k] if eqx.is_array(v) else v, models).posterior(inputs)
        for k in range(S)
    ]
    means = np.stack([m for m, _ in single])
    own = np.stack([np.diagonal(c, axis1=1, axis2=2) for _, c in single])
    np.testing.assert_allclose(mixed.mean, means.mean(axis=0), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        mixed.variance, own.mean(axis=0) + means.var(axis=0), rtol=1e-6, atol=1e-12
    )


def quadratic(model, vector):
    return -0.5 * jnp.sum(model @ (vector - 1.0) * (vector - 1.0))


PRECISION = jnp.asarray([[4.0, 1.0], [1.0, 2.0]])


def test_laplace_is_exact_for_a_normal_density():
    found = laplace(quadratic, PRECISION, jnp.zeros(2), spread=jnp.asarray(1.0))
    np.testing.assert_allclose(found.mean, 1.0, atol=1e-4)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(PRECISION), rtol=1e-6)
    n = 40_000
    draws = np.asarray(found.draws(n, key=jax.random.key(0)))
    np.testing.assert_allclose(np.cov(draws.T), found.covariance, atol=5 * 0.6 * np.sqrt(2 / n))


def test_laplace_on_a_plateau_keeps_the_prior_and_survives_a_density_that_is_not_finite():
    flat = laplace(lambda m, v: jnp.sum(0.0 * v), 0.0, jnp.ones(2), spread=jnp.asarray(0.5))
    np.testing.assert_allclose(flat.covariance, np.eye(2), rtol=1e-12)
    broken = laplace(lambda m, v: jnp.sum(v) * jnp.nan, 0.0, jnp.ones(2), spread=jnp.asarray(0.5))
    assert np.isfinite(broken.mean).all() and np.isfinite(broken.covariance).all()


def test_nuts_draws_from_the_density():
    found = nuts(
        quadratic, PRECISION, jnp.zeros(2), key=jax.random.key(0), n_samples=400, n_warmup=100
    )
    exact = np.linalg.inv(PRECISION)
    # an effective sample of a quarter of the draws
    se = np.sqrt(np.diag(exact) / 100)
    assert (np.abs(np.asarray(found.mean) - 1.0) < 5 * se).all()
    np.testing.assert_allclose(np.diag(found.covariance), np.diag(exact), rtol=5 * np.sqrt(2 / 100))
    assert found.draws(10, key=jax.random.key(0)).shape == (10, 2)
    with pytest.raises(ConfigError, match="n_samples=1"):
        nuts(quadratic, PRECISION, jnp.zeros(2), key=jax.random.key(0), n_samples=1)


def test_a_posterior_without_a_chain_repeats_for_the_same_key():
    one = EmbeddingPosterior(jnp.zeros(2), jnp.eye(2))
    a, b = (one.draws(3, key=jax.random.key(7)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_one_stage_puts_clones_where_their_slopes_are(source, few):
    data = [np.concatenate(parts) for parts in zip(source, few, strict=True)]
    learner, report = TransferLearner(EntityEmbedding(3, 2)).fit_jointly(
        *data, key=jax.random.key(0), config=FitConfig(n_restarts=1)
    )
    assert np.isfinite(float(report.log_evidence))
    e = np.asarray(learner.embedding.weight)
    apart = np.linalg.norm(e[0] - e[1])
    assert np.linalg.norm(e[2] - e[0]) < apart and np.linalg.norm(e[2] - e[1]) < apart


# ------------------------------------------------------------------ bad input


def test_what_cannot_be_learned_from_is_refused_in_words(warm, source, few):
    x, y, ids = source
    start = TransferLearner(EntityEmbedding(2, 2))
    with pytest.raises(DataError, match="equally many"):
        start.warm_start(x[:3], y, ids)
    with pytest.raises(DataError, match=r"clone index \[4\]; allowed are 0 to 1"):
        start.warm_start(x, y, ids + 4 * (ids == 1) - (ids == 1))
    with pytest.raises(DataError, match="not finite"):
        start.warm_start(np.where(x > 1.9, np.nan, x), y, ids)
    with pytest.raises(ConfigError, match="no process yet"):
        start.predict(x, 0)
    with pytest.raises(ConfigError, match="no process yet"):
        start.joint_finetune(x, y, ids)
    with pytest.raises(DataError, match="the process has 2"):
        warm.joint_finetune(x, y[:, :1], ids)
    with pytest.raises(DataError, match="trained on"):
        warm.joint_finetune(x[:, :2], y, ids)
    with pytest.raises(DataError, match=r"clone index \[5\]"):
        warm.joint_finetune(x, y, np.full(len(x), 5))
    with pytest.raises(DataError, match="expected"):
        warm.predict(x[:, :1], 0)
    with pytest.raises(DataError, match="outside the embedding"):
        warm.predict(x, 9)
    with pytest.raises(ConfigError, match="'laplace' and 'nuts'"):
        warm.embedding_posterior(0, key=jax.random.key(0), method="guess")
    with pytest.raises(ConfigError, match="must be above 0"):
        TransferLearner(EntityEmbedding(2, 2), lr_backbone=0.0)
    with pytest.raises(ConfigError, match="must be the same"):
        TransferLearner(EntityEmbedding(3, 2), warm.model)
    with pytest.raises(ConfigError, match="must not be negative"):
        warm.joint_finetune(*few, n_iter=-1)


def test_a_clone_seen_once_is_less_certain_than_one_seen_four_times(warm, tuned):
    once = warm.joint_finetune(*rows(2, 1, 5), n_iter=60, freeze_backbone=True)
    wide = once.embedding_posterior(2, key=jax.random.key(0)).covariance
    narrow = tuned.embedding_posterior(2, key=jax.random.key(0)).covariance
    assert np.isfinite(wide).all()
    assert float(jnp.trace(wide)) > float(jnp.trace(narrow))


# ------------------------------------------------------------------ keeping


@pytest.fixture(scope="module")
def saved(tuned, tmp_path_factory):
    return tuned.save(tmp_path_factory.mktemp("saved") / "learner")


def test_a_learner_comes_back_as_it_was(tuned, saved, unseen):
    back = TransferLearner(EntityEmbedding(3, 2)).load(saved)
    assert bool(eqx.tree_equal(back.embedding, tuned.embedding))
    assert jax.tree.structure(back.model) == jax.tree.structure(tuned.model)
    for one, two in zip(jax.tree.leaves(back.model), jax.tree.leaves(tuned.model), strict=True):
        assert one.aval == two.aval  # the same compiled programs, weak types included
    a, b = (t.predict(unseen[0], 2) for t in (tuned, back))
    np.testing.assert_array_equal(a.mean, b.mean)
    assert float(back.lr_embedding) == float(tuned.lr_embedding)
    assert not any(p.suffix in (".pkl", ".pickle") for p in saved.iterdir())


def copy_of(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("name", [HEADER, ARRAYS])
@pytest.mark.parametrize("place", [0.15, 0.35, 0.5, 0.65, 0.85, 0.98])
def test_one_changed_byte_is_noticed(saved, tmp_path, name, place):
    folder = copy_of(saved, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (folder / name).write_bytes(content)
    fresh = TransferLearner(EntityEmbedding(3, 2))
    try:
        back = fresh.load(folder)
    except DataError as error:
        assert str(folder) in str(error)
    else:  # a byte of the archive that carries nothing: padding or a time stamp
        assert name == ARRAYS
        assert bool(eqx.tree_equal(back.embedding, fresh.load(saved).embedding))


@pytest.mark.parametrize("name", [HEADER, ARRAYS])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(saved, tmp_path, name, share):
    folder = copy_of(saved, tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=name.split(".")[0]):
        TransferLearner(EntityEmbedding(3, 2)).load(folder)


def test_a_missing_file_another_schema_and_another_architecture_are_refused(saved, tmp_path):
    learner = TransferLearner(EntityEmbedding(3, 2))
    with pytest.raises(DataError, match="not a checkpoint"):
        learner.load(tmp_path / "nowhere")
    folder = copy_of(saved, tmp_path)
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**header, "schema_version": 99}))
    with pytest.raises(DataError, match="schema version 99; this version reads 1"):
        learner.load(folder)
    (folder / HEADER).write_text(json.dumps({**header, "kind": "cake"}))
    with pytest.raises(DataError, match="a cake, not a TransferLearner"):
        learner.load(folder)
    (folder / HEADER).write_text("[1]")
    with pytest.raises(DataError, match="no table of values"):
        learner.load(folder)
    (folder / HEADER).write_text(json.dumps(header))
    (folder / ARRAYS).unlink()
    with pytest.raises(DataError, match="save is not complete"):
        learner.load(folder)
    with pytest.raises(DataError, match="n_clones is 3 there and 2 here"):
        TransferLearner(EntityEmbedding(2, 2)).load(saved)
    with pytest.raises(DataError, match="embed_dim is 2 there and 4 here"):
        TransferLearner(EntityEmbedding(3, 4)).load(saved)
    with pytest.raises(ConfigError, match="no process yet"):
        learner.save(tmp_path / "empty")
