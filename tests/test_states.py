"""Containers: layout, missing values, pytree behaviour, padding, refusals."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import STREAM_TOTALS, ConfigError, DataError
from perfusio_jax.states import (
    State,
    StateBatch,
    Trajectory,
    TrajectoryBatch,
    stack_trajectories,
)

SPECIES = ("VCD", "Glc", "Lac")
CONTROLS = ("perfusion_rate", "bleed_rate")


def state(**changes) -> State:
    fields = dict(
        day=5,
        species={"VCD": 18.3, "Glc": None},
        controls={"perfusion_rate": 1.0, "bleed_rate": 0.15},
        volume_L=0.25,
        reactor_id="R01",
        clone_id="CX",
        run_id="E1",
    )
    return State(**{**fields, **changes})


def rack(n: int = 3, **changes) -> StateBatch:
    fields = dict(
        day=10,
        species=np.arange(3.0 * n).reshape(n, 3),
        controls=np.ones((n, 2)),
        volume_L=np.full(n, 0.25),
        reactor_ids=[f"R{i}" for i in range(n)],
        clone_ids=["CX"] * n,
        run_ids=["E"] * n,
        species_names=SPECIES,
        control_names=CONTROLS,
    )
    return StateBatch(**{**fields, **changes})


def run(n: int = 4, name: str = "E1", **changes) -> Trajectory:
    species = np.arange(3.0 * n).reshape(n, 3)
    if n > 1:
        species[1, 2] = np.nan
    fields = dict(
        species=species,
        controls=np.tile([1.0, 0.1], (n, 1)),
        volume_L=np.full(n, 0.25),
        days=np.arange(n),
        species_names=list(SPECIES),
        control_names=list(CONTROLS),
        run_id=name,
        clone_id="CX",
        reactor_id="R01",
        metadata={"lot": "L1"},
    )
    return Trajectory(**{**fields, **changes})


# ---------------------------------------------------------------- one moment


def test_missing_is_nan_never_zero():
    made = state()
    assert math.isnan(made.species["Glc"])
    array = made.to_array(["VCD", "Glc", "Amm"], ["temperature"])
    np.testing.assert_array_equal(array, [18.3, np.nan, np.nan, np.nan, 5.0])
    assert array.dtype == jnp.float64
    assert made.to_array(["VCD"], [], dtype=jnp.float32).dtype == jnp.float32


@given(
    st.dictionaries(st.sampled_from(SPECIES), st.none() | st.floats(0, 1e6)),
    st.integers(0, 400),
)
def test_array_round_trip(species: dict, day: int):
    made = state(species=species, day=day)
    flat = made.to_array(SPECIES, CONTROLS)
    back = State.from_array(flat, SPECIES, CONTROLS, day=day, reactor_id="R01")
    np.testing.assert_array_equal(back.to_array(SPECIES, CONTROLS), flat)
    assert back.reactor_id == "R01" and back.day == day


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"volume_L": 0.0}, "volume_L is 0.0 L"),
        ({"volume_L": math.nan}, "volume_L is nan L"),
        ({"day": -1}, "day is -1"),
        ({"day": 1.5}, "day is 1.5"),
        ({"species": {"VCD": "many"}}, r"species\['VCD'\] is 'many'"),
        ({"controls": {"bleed_rate": [1]}}, r"controls\['bleed_rate'\]"),
    ],
)
def test_a_record_that_cannot_be_is_refused(changes: dict, message: str):
    with pytest.raises(DataError, match=message):
        state(**changes)


def test_an_array_of_another_layout_is_refused():
    flat = state().to_array(SPECIES, CONTROLS)
    with pytest.raises(DataError, match=r"shape \(6,\); 2 species, 2 controls"):
        State.from_array(flat, SPECIES[:2], CONTROLS, day=5)
    with pytest.raises(DataError, match=r"made on day 5, and day=6"):
        State.from_array(flat, SPECIES, CONTROLS, day=6)


def test_a_record_is_a_pytree():
    made = state(species={"VCD": 2.0, "Glc": 3.0})
    doubled = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x, s))(made)
    assert isinstance(doubled, State)
    assert (float(doubled.species["Glc"]), float(doubled.volume_L)) == (6.0, 0.5)
    assert doubled.run_id == "E1"
    assert made.strip_ids().run_id == "unknown"
    assert jax.tree.structure(made.strip_ids()) == jax.tree.structure(
        state(species={"VCD": 2.0, "Glc": 3.0}, run_id="E9").strip_ids()
    )


# ---------------------------------------------------------------- one rack


def test_a_rack_lays_out_its_inputs():
    made = rack()
    assert made.batch_size == 3 and int(made.day) == 10
    inputs = made.to_input_array()
    assert inputs.shape == (3, 6)
    np.testing.assert_array_equal(inputs[:, -1], 10.0)
    np.testing.assert_array_equal(inputs[:, :3], made.species)
    assert bool(jnp.all(made.valid_mask()))
    assert made.to("cpu").species.devices() == {jax.devices("cpu")[0]}


def test_a_rack_from_records():
    made = StateBatch.from_states([state(), state(reactor_id="R02")], SPECIES, CONTROLS)
    assert made.reactor_ids == ("R01", "R02")
    np.testing.assert_array_equal(made.species, [[18.3, np.nan, np.nan]] * 2)
    np.testing.assert_array_equal(made.controls, [[1.0, 0.15]] * 2)
    with pytest.raises(DataError, match=r"of \[5, 6\]"):
        StateBatch.from_states([state(), state(day=6)], SPECIES, CONTROLS)
    with pytest.raises(DataError, match="0 records"):
        StateBatch.from_states([], SPECIES, CONTROLS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": np.ones((3, 2))}, r"species has shape \(3, 2\); expected \(3, 3\)"),
        ({"controls": np.ones((2, 2))}, r"controls has shape \(2, 2\)"),
        ({"volume_L": np.ones(4)}, r"volume_L has shape \(4,\)"),
        ({"day": np.ones(3)}, "day has shape"),
        ({"clone_ids": ["CX"]}, "clone_ids has 1 entries for 3 reactors"),
        ({"run_ids": []}, "run_ids has 0 entries"),
        ({"species_names": ["VCD", "VCD", "Glc"]}, "VCD more than once"),
        ({"control_names": "ab"}, "give a sequence of names"),
    ],
)
def test_a_rack_of_the_wrong_shape_is_refused(changes: dict, message: str):
    with pytest.raises(DataError, match=message):
        rack(**changes)


def test_a_new_day_or_rack_does_not_compile_again(traces):
    total = jax.jit(traces(lambda batch: jnp.sum(batch.to_input_array())))
    for day in range(3):
        total(rack(day=day, run_ids=[f"E{day}"] * 3).strip_ids())
    assert traces.count == 1


# ---------------------------------------------------------------- one run


def test_a_run_knows_its_columns():
    made = run()
    assert (made.n_days, made.n_species, made.n_controls) == (4, 3, 2)
    assert made.species_names == SPECIES and made.metadata == {"lot": "L1"}
    assert made.species_index("Lac") == 2
    np.testing.assert_array_equal(made.get_species("Glc"), [1.0, 4.0, 7.0, 10.0])
    np.testing.assert_array_equal(made.get_control("bleed_rate"), 0.1)
    np.testing.assert_array_equal(made.times_h, [0.0, 24.0, 48.0, 72.0])
    assert made.stream_totals.shape == (4, len(STREAM_TOTALS))
    assert bool(jnp.all(jnp.isnan(made.stream_totals)))
    assert made.auxiliary.shape == (4, 0)
    mask = made.valid_mask()
    assert not bool(mask[1, 2]) and int(mask.sum()) == 11
    inputs = made.to_input_array()
    assert inputs.shape == (4, 6)
    np.testing.assert_array_equal(inputs[:, -1], made.days)


def test_columns_can_be_selected_in_any_order():
    made = run()
    np.testing.assert_array_equal(
        made.select_species(["Lac", "VCD"]), np.asarray(made.species)[:, [2, 0]]
    )
    wide = made.select_species(["VCD", "Titer"], missing_ok=True)
    assert bool(jnp.all(jnp.isnan(wide[:, 1]))) and bool(jnp.all(wide[:, 0] == made.species[:, 0]))
    np.testing.assert_array_equal(made.select_controls(CONTROLS[::-1])[0], [0.1, 1.0])


def test_a_name_that_is_not_here_lists_those_that_are():
    made = run()
    with pytest.raises(KeyError, match=r"no species 'Titer' here; there are VCD, Glc, Lac"):
        made.species_index("Titer")
    with pytest.raises(KeyError, match="no species 'Titer'"):
        made.select_species(["Titer"])
    with pytest.raises(KeyError, match="no control 'agitation' here; there are perfusion_rate"):
        made.get_control("agitation")


def test_slicing_is_half_open_and_takes_every_column_along():
    made = run(6, auxiliary=np.arange(6.0)[:, None], auxiliary_names=["pH"])
    part = made.slice_days(2, 4)
    np.testing.assert_array_equal(part.days, [2, 3])
    np.testing.assert_array_equal(part.auxiliary[:, 0], [2.0, 3.0])
    np.testing.assert_array_equal(part.times_h, [48.0, 72.0])
    assert part.run_id == "E1" and part.metadata == {"lot": "L1"}
    assert made.slice_days(9, 12).n_days == 0
    slope = jax.grad(lambda x: jnp.nansum(eqx.tree_at(lambda t: t.species, made, x)
                                          .slice_days(2, 4).species))(made.species)  # fmt: skip
    np.testing.assert_array_equal(slope.sum(axis=1), [0, 0, 3, 3, 0, 0])
    with pytest.raises(DataError, match="first day comes after"):
        made.slice_days(4, 2)
    with pytest.raises(DataError, match="before the jit boundary"):
        jax.jit(lambda t: t.slice_days(0, 1))(made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"species": np.ones((4, 2))},
            r"species of run 'E1' has shape \(4, 2\); expected \(4, 3\)",
        ),
        ({"controls": np.ones((3, 2))}, "controls of run 'E1'"),
        ({"volume_L": np.ones(3)}, "volume_L of run 'E1'"),
        ({"days": np.arange(5), "times_h": np.arange(4)}, "days of run 'E1'"),
        ({"times_h": np.arange(3)}, "times_h of run 'E1' has shape"),
        ({"stream_totals": np.ones((4, 3))}, "one column for each of V_perfusion_L"),
        ({"auxiliary": np.ones((4, 1))}, "auxiliary of run 'E1'"),
        ({"times_h": [0.0, 24.0, 24.0, 48.0]}, r"row 2 \(24 h\) follows 24 h"),
        ({"times_h": [0.0, 24.0, 12.0, 48.0]}, r"row 2 \(12 h\) follows 24 h"),
        ({"times_h": [0.0, 24.0, np.nan, 48.0]}, "is nan h in row 2"),
        ({"volume_L": [0.25, 0.0, 0.25, 0.25]}, "is 0 L in row 1"),
        ({"volume_L": [0.25, 0.25, np.nan, 0.25]}, "is nan L in row 2"),
        ({"species_names": ["VCD", "VCD", "Glc"]}, "VCD more than once"),
        ({"species": 3.0}, "species of run 'E1' has shape"),
    ],
)
def test_a_run_of_the_wrong_shape_is_refused(changes: dict, message: str):
    with pytest.raises(DataError, match=message):
        run(**changes)


def test_a_run_moves_to_a_device_and_refuses_one_that_is_not_here():
    assert run().to("cpu").species.devices() == {jax.devices("cpu")[0]}
    assert run().to(jax.devices("cpu")[0]).run_id == "E1"
    with pytest.raises(ConfigError, match="not available"):
        run().to("tpu")
    with pytest.raises(ConfigError, match="not understood"):
        run().to("toaster")


def test_a_row_becomes_a_record():
    record = run().state_at(-1)
    assert record.day == 3 and record.species["VCD"] == 9.0 and record.run_id == "E1"
    assert math.isnan(run().state_at(1).species["Lac"])
    with pytest.raises(IndexError, match="row 4 of a run with 4 samples"):
        run().state_at(4)


def test_32_bit_arrays_stay_32_bit(strict_dtypes):
    made = run(species=jnp.ones((4, 3), jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {
        jnp.dtype("float32"),
        jnp.dtype("int64"),
    }
    assert made.to_input_array().dtype == jnp.float32


def test_runs_of_one_shape_compile_once_when_ids_are_stripped(traces):
    total = jax.jit(traces(lambda t: jnp.nansum(t.to_input_array())))
    values = [float(total(run(name=f"E{i}", volume_L=np.full(4, 0.2 + i)).strip_ids()))
              for i in range(3)]  # fmt: skip
    assert traces.count == 1
    assert values == [float(jnp.nansum(run().to_input_array()))] * 3
    assert run().strip_ids().run_id == "unknown" and run().strip_ids().metadata == {}


def test_with_ids_names_without_touching_numbers():
    made = run().strip_ids().with_ids("X", "CY", "R9", {"a": "b"})
    assert (made.run_id, made.clone_id, made.reactor_id) == ("X", "CY", "R9")
    assert made.metadata == {"a": "b"} and "lot" not in made.metadata
    np.testing.assert_array_equal(made.species, run().species)


def test_a_run_survives_jit_vmap_and_grad():
    made = run()
    through = jax.jit(lambda t: t)(made)
    assert through.run_id == "E1" and through.metadata == {"lot": "L1"}
    jax.tree.map(np.testing.assert_array_equal, made, through)
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), made, made)
    one = float(jnp.nansum(made.get_species("Glc")))
    sums = jax.vmap(lambda t: jnp.nansum(t.get_species("Glc")))(many)
    np.testing.assert_array_equal(sums, [one, one])
    slope = jax.grad(lambda c: jnp.sum(run(controls=c).to_input_array()[:, 3:5]))(jnp.ones((4, 2)))
    np.testing.assert_array_equal(slope, 1.0)


def test_metadata_is_frozen_text():
    meta = run(metadata={"b": 2, "a": "x"}).metadata
    assert list(meta) == ["a", "b"] and meta["b"] == "2" and len(meta) == 2
    assert hash(meta) == hash(run(metadata={"a": "x", "b": "2"}).metadata)
    assert repr(meta) == "{'a': 'x', 'b': '2'}"
    with pytest.raises(TypeError):
        meta["c"] = "d"


# ---------------------------------------------------------------- a campaign, padded


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    extra_steps=st.integers(0, 3),
    extra_runs=st.integers(0, 2),
)
def test_stacking_keeps_every_row_and_marks_every_pad(
    lengths: list[int], extra_steps: int, extra_runs: int
):
    runs = [run(n, f"E{i}") for i, n in enumerate(lengths)]
    n_steps, n_runs = max(lengths) + extra_steps, len(runs) + extra_runs
    batch = stack_trajectories(runs, n_steps=n_steps, n_runs=n_runs)
    assert (batch.n_runs, batch.n_steps) == (n_runs, n_steps)
    np.testing.assert_array_equal(batch.lengths, lengths + [0] * extra_runs)
    for before, after in zip(runs, batch.unstack(), strict=True):
        jax.tree.map(np.testing.assert_array_equal, before.strip_ids(), after)
    assert int(batch.valid_mask().sum()) == sum(int(r.valid_mask().sum()) for r in runs)
    pad = ~np.asarray(batch.mask)
    assert np.all(np.isnan(np.asarray(batch.species)[pad]))
    for name in ("controls", "volume_L", "times_h", "days"):
        assert np.all(np.isfinite(np.asarray(getattr(batch, name)))), name
    assert np.all(np.diff(np.asarray(batch.times_h), axis=1) > 0)


def test_padding_to_a_fixed_size_compiles_once(traces):
    count = jax.jit(traces(lambda batch: batch.valid_mask().sum()))
    for n in (2, 4, 6):
        stacked = stack_trajectories([run(n), run(n - 1, "E2")], n_steps=8, n_runs=4)
        assert int(count(stacked)) == 3 * (2 * n - 1) - (2 if n > 2 else 1)
    assert traces.count == 1


def test_a_padded_campaign_vmaps_over_runs():
    batch = stack_trajectories([run(3), run(5, "E2")])
    means = jax.vmap(lambda b: jnp.nanmean(b.species[:, 0]))(batch)
    assert isinstance(batch, TrajectoryBatch)
    np.testing.assert_allclose(means, [3.0, 6.0])
    with pytest.raises(DataError, match="concrete mask"):
        jax.jit(lambda b: b.unstack())(batch)


@pytest.mark.parametrize(
    ("runs", "sizes", "message"),
    [
        ([], {}, "no trajectories"),
        ([run().slice_days(9, 10)], {}, "'E1' has no rows"),
        ([run(4)], {"n_steps": 3}, "do not fit into n_runs=1, n_steps=3"),
        ([run(4), run(4, "B")], {"n_runs": 1}, "do not fit"),
        (
            [run(), run(name="B", species_names=["VCD", "Glc", "Amm"])],
            {},
            "species_names of run 'B' is",
        ),
        ([run(), run(name="B", control_names=["a", "b"])], {}, "control_names of run 'B'"),
    ],
)
def test_runs_that_cannot_be_stacked_are_refused(runs: list, sizes: dict, message: str):
    with pytest.raises(DataError, match=message):
        stack_trajectories(runs, **sizes)
