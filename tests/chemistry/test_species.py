import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perfusio_jax._core import BALANCED, FORECAST_SPECIES, REGISTRY, STATE_ORDER
from perfusio_jax.chemistry import (
    DEFAULT_CV,
    DEFAULT_SIEVING,
    Species,
    SpeciesEnum,
    SpeciesRegistry,
    cell_volume_fraction,
    dead_cells,
    from_balanced,
    report,
    to_balanced,
    viability,
)

REG = SpeciesRegistry.DEFAULT
C = jnp.array([20.0, 1.0, 5.0, 2.0, 1.0, 10.0, 3.0, 0.5, 700.0])


def test_default_registry_is_the_library_order():
    assert REG.names == list(REGISTRY)
    assert len(REG) == 13
    assert [s.short_name for s in REG] == REG.names
    assert {e.value for e in SpeciesEnum} == set(REG.names)
    assert SpeciesEnum.VCD == "VCD"
    assert [s.short_name for s in REG.derived] == ["VCV", "DCD", "Lys"]
    assert set(REG.measured) | set(REG.derived) == set(REG)
    assert REG["VCD"].unit == "10⁶ cells mL⁻¹"
    assert REG.index("Titer") == 10 and "Titer" in REG and "pH" not in REG


def test_every_measured_column_is_registered():
    assert set(STATE_ORDER) <= set(REG.names) and set(FORECAST_SPECIES) <= set(REG.names)
    assert DEFAULT_SIEVING == tuple(REG.sieving(STATE_ORDER))
    assert DEFAULT_CV == (0.05, 0.02, 0.07, 0.07, 0.07, 0.07, 0.07, 0.07, 0.08)


def test_subset_keeps_the_asked_order():
    sub = REG.subset(["Glc", "VCD"])
    assert sub.names == ["Glc", "VCD"] and sub.index("VCD") == 1
    assert "Glc" in repr(sub)


@pytest.mark.parametrize(
    "ask", [lambda: REG["glucose"], lambda: REG.index("x"), lambda: REG.subset(["VCD", "nope"])]
)
def test_unknown_name_lists_the_known(ask):
    with pytest.raises(KeyError, match=r"VCD.*Lys"):
        ask()


def test_refused_registries_and_species():
    with pytest.raises(ValueError, match="at least one"):
        SpeciesRegistry([])
    with pytest.raises(ValueError, match=r"more than once.*VCD"):
        SpeciesRegistry([REG["VCD"], REG["VCD"]])
    with pytest.raises(ValueError, match="lo < hi"):
        Species("A", "a", "-", 1.0, 1.0)
    with pytest.raises(ValueError, match="sieving"):
        Species("A", "a", "-", 0.0, 1.0, sieving=1.5)
    with pytest.raises(ValueError, match="cv"):
        Species("A", "a", "-", 0.0, 1.0, cv=-0.1)


def test_viability_against_its_definition():
    assert np.isclose(viability(jnp.array(19.0), jnp.array(1.0)), 95.0, rtol=1e-7)
    assert viability(jnp.array(0.0), jnp.array(0.0)) == 100.0
    assert viability(jnp.array(0.0), jnp.array(5.0)) < 1e-4


@given(
    hnp.arrays(float, (4, 9), elements=st.floats(0.0, 80.0)),
    hnp.arrays(float, (4,), elements=st.floats(1.0, 100.0)),
)
def test_face_and_balance_are_inverse(face, via):
    face = jnp.asarray(face).at[:, 1].set(via)
    again = from_balanced(to_balanced(face))
    assert jnp.allclose(again, face, rtol=1e-12, atol=1e-10)
    assert bool(jnp.all(to_balanced(face)[:, 1] >= 0.0))


def test_missing_entry_stays_in_its_place():
    for name in STATE_ORDER:
        i = STATE_ORDER.index(name)
        out = to_balanced(from_balanced(C).at[i].set(jnp.nan))
        expected = {"VCD": {"Xv", "Xd"}, "Via": {"Xd"}}.get(name, {name})
        assert {b for b, v in zip(BALANCED, out, strict=True) if jnp.isnan(v)} == expected


def test_impossible_viability_readings_stay_finite():
    assert dead_cells(jnp.array(10.0), jnp.array(103.0)) == 0.0
    assert jnp.isfinite(dead_cells(jnp.array(10.0), jnp.array(0.0)))
    assert 0.0 <= viability(jnp.array(-1e-6), jnp.array(-1e-7)) <= 100.0


def everything(c):
    return jnp.concatenate([to_balanced(from_balanced(c)), report(c, 20.5, 4.0)])


JACOBIANS = [jax.jit(jax.jacfwd(everything)), jax.jit(jax.jacrev(everything))]


@pytest.mark.parametrize("point", [(0.0, 0.0), (-1e-7, 0.0), (0.0, 1.0), (20.0, 1.0)])
def test_gradients_are_finite_at_the_edges(point):
    forward, reverse = (f(C.at[:2].set(jnp.array(point))) for f in JACOBIANS)
    assert jnp.all(jnp.isfinite(forward)) and jnp.all(jnp.isfinite(reverse))


def test_gradients_against_finite_differences():
    numeric = [(everything(C.at[i].add(h)) - everything(C.at[i].add(-h))) / (2 * h)
               for i, h in enumerate(1e-5 * np.asarray(C))]  # fmt: skip
    assert jnp.allclose(JACOBIANS[0](C), jnp.stack(numeric, axis=1), rtol=1e-6, atol=1e-6)


def test_cell_volume_of_known_spheres():
    # 1e6 spheres of 20.5 um in 1 mL: 1e6 * 4510.87e-12 mL = 0.4511 %.
    volume = cell_volume_fraction(jnp.array(1.0), jnp.array(20.5))
    assert np.isclose(volume, 100 * 1e6 * np.pi / 6 * 20.5**3 * 1e-12, rtol=1e-14)


def test_report_columns():
    row = dict(zip(FORECAST_SPECIES, report(C, 20.5, 4.0), strict=True))
    assert row["VCD"] == 20.0 and row["DCD"] == 1.0
    assert np.isclose(row["Via"], 100 * 20 / 21, rtol=1e-7)
    assert np.isclose(row["Diam"], 20.5 + 4.0 / 21, rtol=1e-7)
    assert np.isclose(row["VCV"], cell_volume_fraction(row["VCD"], row["Diam"]), rtol=1e-14)
    for name in ("Glc", "Gln", "Glu", "Lac", "Amm", "Pyr", "Titer"):
        assert row[name] == C[BALANCED.index(name)]


def test_batches_equal_loops(strict_dtypes):
    batch = jnp.stack([C, 2.0 * C])
    base, slope = jnp.array([20.0, 21.0]), jnp.array(4.0)
    looped = jnp.stack([report(batch[i], base[i], slope) for i in range(2)])
    assert jnp.allclose(report(batch, base, slope), looped, rtol=1e-15)
    assert jnp.allclose(jax.jit(jax.vmap(report, (0, 0, None)))(batch, base, slope), looped)
    assert jnp.allclose(jax.vmap(to_balanced)(batch), to_balanced(batch))


def test_single_precision_stays_single(strict_dtypes):
    c = C.astype(jnp.float32)
    assert from_balanced(c).dtype == to_balanced(c).dtype == jnp.float32
