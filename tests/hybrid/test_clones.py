"""Several clones in one model: told apart, forecast by name, saved and read back."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.chemistry import from_balanced
from perfusio_jax.hybrid import (
    assimilate_run,
    condition_on,
    fit_hybrid,
    for_clone,
    forecast_run,
    load,
    model_hash,
    save,
)
from perfusio_jax.hybrid.diameter import fit_diameter, fit_diameters
from perfusio_jax.hybrid.few_runs import lack, widened
from perfusio_jax.hybrid.model import at_clone
from perfusio_jax.states import Trajectory
from tests.hybrid.cases import START, ToyMechanism, campaign
from tests.hybrid.conftest import SMALL

SLOW, FAST = ToyMechanism(growth=0.011), ToyMechanism(growth=0.022)


def named(runs, clone):
    return [
        Trajectory(
            r.species,
            r.controls,
            r.volume_L,
            r.days,
            r.species_names,
            r.control_names,
            run_id=f"{clone}-{r.run_id}",
            clone_id=clone,
            stream_totals=r.stream_totals,
        )
        for r in runs
    ]


@pytest.fixture(scope="module")
def both():
    slow, fast = (
        named(campaign(m, n_runs=3, n_days=8, seed=s)[0], n)
        for m, s, n in ((SLOW, 1, "slow"), (FAST, 2, "fast"))
    )
    return fit_hybrid(slow + fast, key=jax.random.key(0), config=SMALL, mech_model=ToyMechanism())


def cells_after(model, clone, days=4):
    start = np.asarray(from_balanced(jnp.asarray(START)))
    u = np.array([1.0, 0.15, 5.0, 37.0, 850.0, 2.0])
    result = forecast_run(model, start, u, days, 64, clone_id=clone)
    return np.asarray(result["mean"])[:, 0], np.asarray(result["q90"] - result["q10"])[:, 0]


def test_each_clone_is_forecast_as_itself(both):
    model, report = both
    assert model.embedding.registry.names == ("slow", "fast")
    assert report.details["rows"] == 48
    u = jnp.tile(jnp.asarray([1.0, 0.15, 5.0, 37.0, 850.0, 2.0])[None, :], (4, 1))
    for name, plant in (("slow", SLOW), ("fast", FAST)):
        state, true = jnp.asarray(START), []
        for row in u:
            state, _ = plant.advance(state, row)
            true.append(float(state[0]))
        found, _ = cells_after(model, name)
        assert np.allclose(found, true, rtol=0.15)
    slow, fast = cells_after(model, "slow")[0], cells_after(model, 1)[0]
    assert fast[-1] > 1.3 * slow[-1]


def test_an_unknown_clone_is_refused_or_stands_between_and_is_less_sure(both):
    model, _ = both
    with pytest.raises(ConfigError, match="nobody"):
        for_clone(model, "nobody")
    unknown = for_clone(model, "nobody", unknown="prior")
    found, width = cells_after(unknown, None)
    slow, fast = cells_after(model, "slow"), cells_after(model, "fast")
    assert slow[0][-1] < found[-1] < fast[0][-1]
    assert width[-1] > min(slow[1][-1], fast[1][-1])


def test_one_clone_has_no_names(hybrid):
    with pytest.raises(ConfigError, match="one clone"):
        for_clone(hybrid, "slow")


def test_later_days_of_a_named_run_are_taken_in(both):
    model, _ = both
    new = named(campaign(FAST, n_runs=1, n_days=8, seed=9)[0], "fast")
    beliefs = assimilate_run(model, new[0], key=jax.random.key(0), n_particles=48, length=9)
    assert np.isfinite(np.asarray(beliefs.filtered)).all()
    grown = condition_on(model, new, key=jax.random.key(0), n_particles=48, length=9)
    rows = np.asarray(grown.gp.data.inputs)[np.asarray(grown.gp.data.row_present)]
    assert np.all(rows[-8:, -2] == 1.0)  # the clone's column
    stranger = named(campaign(FAST, n_runs=1, n_days=8, seed=9)[0], "stranger")
    with pytest.raises(ConfigError, match="stranger"):
        condition_on(model, stranger, key=jax.random.key(0))


def test_the_process_of_several_clones_is_not_rolled_out_by_itself(both):
    with pytest.raises(ConfigError, match="forecast_run"):
        _ = both[0].gp_model


def test_clones_survive_saving(both, tmp_path):
    model, _ = both
    save(model, tmp_path)
    back = load(tmp_path, mech_model=ToyMechanism())
    assert back.embedding.registry == model.embedding.registry
    assert model_hash(back) == model_hash(model)
    assert np.array_equal(cells_after(back, "fast")[0], cells_after(model, "fast")[0])


# ---------------------------------------------------------------- few runs


def test_a_clone_with_few_runs_is_granted_more_and_no_other(both):
    family = both[0].embedding
    wider = widened(family, np.asarray([2, 8]))
    np.testing.assert_allclose(wider.process_sd[0], 1.3 * family.process_sd[0], rtol=1e-12)
    np.testing.assert_array_equal(wider.process_sd[1], family.process_sd[1])
    np.testing.assert_array_equal(wider.factors[1], family.factors[1])
    np.testing.assert_array_equal(wider.constants, family.constants)
    for n in range(1, 12):
        first, second = lack(np.asarray([n, n + 1]))
        assert first > second >= 1.0 or first == second == 1.0
    model = eqx.tree_at(lambda m: m.embedding, both[0], widened(family, np.asarray([1, 12])))
    before, after = (cells_after(m, "slow")[1][-1] for m in (both[0], model))
    assert after > 1.1 * before
    assert cells_after(model, "fast")[1][-1] == cells_after(both[0], "fast")[1][-1]


# ---------------------------------------------------------------- how wide cells are


def sized(runs, base, *, seed=0):
    """The same runs with the diameter of their cells, read to a hundredth."""
    rng, made = np.random.default_rng(seed), []
    for run in runs:
        via = np.asarray(run.species)[:, run.species_names.index("Via")]
        diameter = base + 3.0 * (1.0 - via / 100.0)
        diameter = diameter * (1.0 + 0.01 * rng.standard_normal(diameter.size))
        made.append(
            dataclasses.replace(
                run,
                species=jnp.asarray(np.column_stack([run.species, diameter])),
                species_names=(*run.species_names, "Diam"),
            )
        )
    return made


def test_cells_of_each_clone_are_as_wide_as_they_were_seen(both):
    registry, mech = both[0].embedding.registry, ToyMechanism()
    slow = named(campaign(SLOW, n_runs=2, n_days=8, seed=1)[0], "slow")
    fast = named(campaign(FAST, n_runs=2, n_days=8, seed=2)[0], "fast")
    runs = sized(slow, 16.0) + sized(fast, 17.0, seed=1)
    found, shared = fit_diameters(runs, mech, registry), fit_diameter(runs, mech)
    # sixteen readings of a hundredth each: to a quarter of one, and three of those
    np.testing.assert_allclose(found[:, 0], [16.0, 17.0], rtol=0.0075)
    assert np.max(np.abs(found[:, 0] - shared[0])) > 0.3, "one for both is that of neither"
    # a clone whose diameter nobody read has that of all
    kept = fit_diameters(sized(slow, 16.0) + fast, mech, registry)
    np.testing.assert_array_equal(kept[1], fit_diameter(sized(slow, 16.0), mech))


def test_a_forecast_of_a_clone_has_its_own_diameter_and_an_unknown_one_the_mean(both):
    model, _ = both
    table = jnp.asarray([[16.0, 2.0], [18.0, 4.0]])
    wide = eqx.tree_at(lambda m: m.embedding.diameters, model, table)
    for name, size in (("slow", table[0]), ("fast", table[1]), ("nobody", table.mean(axis=0))):
        there = for_clone(wide, name, unknown="prior")
        assert (float(there.diam_base), float(there.diam_death_coeff)) == tuple(size.tolist())
    traced = jax.jit(lambda i: at_clone(wide, i).diam_base)(jnp.asarray(1.0))
    assert float(traced) == 18.0


def test_a_model_of_before_has_one_diameter_for_all_clones(both, tmp_path):
    model, _ = both
    older = dataclasses.replace(model.embedding, diameters=None)
    older = eqx.tree_at(lambda m: m.embedding, model, older)
    save(older, tmp_path)
    header = next(tmp_path.glob("*.json"))
    assert '"has_diameters": false' in header.read_text(encoding="utf-8")
    back = load(tmp_path, mech_model=ToyMechanism())
    assert back.embedding.diameters is None
    assert float(for_clone(back, "fast").diam_base) == float(older.diam_base)
