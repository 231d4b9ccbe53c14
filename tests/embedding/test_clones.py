"""Clones by name, their vectors, and the feature map."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.embedding import (
    PRIOR_CLONE,
    CloneInfo,
    CloneRegistry,
    EmbeddedInputs,
    EntityEmbedding,
    fit_embedded,
)
from perfusio_jax.gp import InputScaling, fit_scaling


def test_names_and_indices_belong_together():
    registry = CloneRegistry.default()
    assert registry["CloneY"].clone_id == 1 and len(registry) == registry.n_clones == 2
    assert registry["CloneX"].consumes_lactate and not registry["CloneY"].consumes_lactate
    more = registry.with_clone("Z", consumes_lactate=False)
    assert more.names == ("CloneX", "CloneY", "Z") and "Z" in more and "Z" not in registry
    np.testing.assert_array_equal(more.indices(["Z", "CloneX"]), [2, 0])
    assert CloneRegistry.from_names(["b", "a", "b"]).names == ("b", "a")
    assert [c.name for c in registry] == ["CloneX", "CloneY"]


def test_an_unknown_clone_is_refused_by_name_or_taken_as_the_prior():
    registry = CloneRegistry.default()
    with pytest.raises(ConfigError, match=r"'CloneQ' is unknown; registered are CloneX, CloneY"):
        registry.clone_id("CloneQ")
    with pytest.raises(ConfigError, match="CloneQ"):
        registry["CloneQ"]
    assert registry.clone_id("CloneQ", unknown="prior") == PRIOR_CLONE
    with pytest.raises(ConfigError, match="allowed are 'error' and 'prior'"):
        registry.clone_id("CloneQ", unknown="maybe")


@pytest.mark.parametrize(
    ("clones", "says"),
    [
        ([], "at least one clone"),
        ([CloneInfo(1, "a")], "without gaps"),
        ([CloneInfo(0, "a"), CloneInfo(1, "a")], "must differ"),
        ([CloneInfo(0, " ")], "not be empty"),
    ],
)
def test_registries_that_make_no_sense_are_refused(clones, says):
    with pytest.raises(ConfigError, match=says):
        CloneRegistry(clones)


def test_a_registry_is_static_so_it_never_means_a_new_trace(traces):
    @eqx.filter_jit
    @traces
    def f(registry, x):
        return x * registry.n_clones

    for x in (1.0, 2.0):
        f(CloneRegistry.default(), jnp.asarray(x))
    assert traces.count == 1


def test_vectors_start_uniform_in_the_published_range():
    weight = np.asarray(EntityEmbedding(500, 4, key=jax.random.key(1)).weight)
    assert weight.shape == (500, 4) and weight.min() >= 0.1 and weight.max() <= 3.0
    # mean of 2000 uniforms: five standard errors
    assert abs(weight.mean() - 1.55) < 5 * (2.9 / np.sqrt(12)) / np.sqrt(weight.size)
    assert EntityEmbedding(3).embed_dim == 4


def test_look_up_and_concatenation():
    table = EntityEmbedding(3, 2, key=jax.random.key(0))
    ids = jnp.asarray([2, 0, 2])
    np.testing.assert_array_equal(table(ids), np.asarray(table.weight)[[2, 0, 2]])
    np.testing.assert_array_equal(table(jnp.asarray([2.0, 0.0])), np.asarray(table.weight)[[2, 0]])
    x = jnp.arange(6.0).reshape(3, 2)
    joined = table.embed_and_concat(x, ids)
    np.testing.assert_array_equal(joined, np.hstack([x, table(ids)]))
    np.testing.assert_allclose(table(PRIOR_CLONE), table.mean)
    with pytest.raises(DataError, match=r"\(N, d\) and \(N,\)"):
        table.embed_and_concat(x, ids[:2])


def test_an_index_outside_the_table_is_refused_or_poisons_what_is_computed():
    table = EntityEmbedding(2, 2)
    with pytest.raises(DataError, match=r"clone index \[5\] is outside"):
        table(jnp.asarray([0, 5]))
    traced = jax.jit(lambda i: table(i))(jnp.asarray([5, -2, -1, 1]))
    assert np.isnan(traced[:2]).all() and np.isfinite(traced[2:]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n_clones": 0}, "sizes start at 1"),
        ({"n_clones": 2, "embed_dim": 0}, "sizes start at 1"),
        ({"n_clones": 2, "spread": 0.0}, "above 0"),
        ({"n_clones": 2, "embed_dim": 1, "weight": np.zeros((3, 1))}, "expected \\(2, 1\\)"),
        ({"n_clones": 1, "embed_dim": 1, "weight": [[np.nan]]}, "not finite"),
        ({"n_clones": 3, "embed_dim": 2, "is_one_hot": True}, "needs embed_dim=3"),
    ],
)
def test_tables_that_make_no_sense_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        EntityEmbedding(**arguments)


def test_one_hot_vectors_stand_at_right_angles_also_after_a_new_clone():
    table = EntityEmbedding.one_hot(3).with_clone()
    gram = np.asarray(table.vectors @ table.vectors.T)
    assert table.vectors.shape == (4, 4)
    np.testing.assert_array_equal(gram, np.diag(np.diag(gram)))
    assert (np.diag(gram) > 0).all()


def test_the_prior_does_not_see_a_shift_and_peaks_where_all_clones_are_one():
    table = EntityEmbedding(4, 2, key=jax.random.key(3))
    moved = EntityEmbedding(4, 2, weight=table.weight + 7.0)
    assert float(table.log_prior()) == pytest.approx(float(moved.log_prior()), rel=1e-12)
    assert float(table.log_prior()) < 0.0
    same = EntityEmbedding(4, 2, weight=np.ones((4, 2)))
    assert float(same.log_prior()) == 0.0


def test_an_unseen_clone_is_drawn_around_the_known_ones():
    table = EntityEmbedding(5, 2, key=jax.random.key(2))
    n = 20_000
    draws = np.asarray(table.draw_unknown(n, key=jax.random.key(4)))
    away = np.asarray(table.weight) - np.asarray(table.mean)[None]
    variance = (np.sum(away**2, axis=0) + 2.0) / 6.0
    np.testing.assert_allclose(draws.mean(axis=0), table.mean, atol=5 * np.sqrt(variance / n).max())
    # sd of a sample variance is sqrt(2/n) of it
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=5 * np.sqrt(2.0 / n))


def raw_inputs(n=40):
    rng = np.random.default_rng(0)
    c = rng.uniform(0.0, 5.0, (n, 3))
    return np.column_stack([c, rng.integers(0, 3, n), np.arange(n) % 14])


def test_features_are_scaled_state_vector_and_day(strict_dtypes):
    x = raw_inputs()
    table = EntityEmbedding(3, 2, key=jax.random.key(5))
    features = fit_embedded(x, table, log_columns=(0,))
    out = np.asarray(features(jnp.asarray(x)))
    plain = np.delete(x, 3, axis=1)
    scaled = np.asarray(fit_scaling(plain, log_columns=(0,), day_column=3)(jnp.asarray(plain)))
    assert out.shape == (40, features.n_features) == (40, 6)
    np.testing.assert_allclose(out[:, :3], scaled[:, :3])
    np.testing.assert_allclose(out[:, 3:5], np.asarray(table.weight)[x[:, 3].astype(int)])
    np.testing.assert_allclose(out[:, 5], scaled[:, 3])
    assert features.fixed_columns == (3, 4) and features.n_raw == 5 and features.clone_column == 3
    one = np.stack([features(row) for row in jnp.asarray(x)])
    np.testing.assert_allclose(one, out)
    np.testing.assert_allclose(jax.jit(lambda f, v: f(v))(features, jnp.asarray(x)), out)


def test_only_the_table_is_handed_to_training_and_its_gradient_is_that_of_its_rows():
    x = jnp.asarray(raw_inputs())
    features = fit_embedded(x, EntityEmbedding(3, 2))
    (leaf,) = features.trainable()
    assert leaf is features.embedding.weight

    def total(weight):
        moved = eqx.tree_at(lambda f: f.embedding.weight, features, weight)
        return jnp.sum(moved(x)[:, 3:5])

    count = np.bincount(np.asarray(x[:, 3]).astype(int), minlength=3)
    np.testing.assert_allclose(jax.grad(total)(leaf), np.repeat(count[:, None], 2, axis=1))
    assert float(features.log_prior()) == float(features.embedding.log_prior())


def test_inputs_of_another_width_are_refused():
    features = fit_embedded(raw_inputs(), EntityEmbedding(3, 2))
    with pytest.raises(ConfigError, match="expected 5"):
        features(jnp.zeros((2, 4)))
    with pytest.raises(ConfigError, match="expected rows"):
        fit_embedded(np.zeros((4, 2)), EntityEmbedding(3, 2))
    one = jnp.ones(1)
    with pytest.raises(ConfigError, match="1 columns"):
        EmbeddedInputs(InputScaling(one, one, one, jnp.zeros(1, bool)), EntityEmbedding(2, 2))
