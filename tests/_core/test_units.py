"""Units: every spelling people use, and no conversion between different things."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import UnitError
from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax._core.units import (
    CANONICAL_UNITS,
    canonical_unit,
    convert,
    is_canonical,
    to_canonical,
)

ONE = [
    ("VCD", "10⁶ cells mL⁻¹", 1.0),
    ("VCD", "10^6 cells mL^-1", 1.0),
    ("VCD", "x10^6 cells/mL", 1.0),
    ("VCD", "×10⁶ cells/mL", 1.0),
    ("VCD", "E6 cells/mL", 1.0),
    ("VCD", "million cells/mL", 1.0),
    ("VCD", "Mio cells/mL", 1.0),
    ("VCD", "1e6/mL", 1.0),
    ("VCD", "1e9 cells/L", 1.0),
    ("VCD", "cells/mL", 1e-6),
    ("VCD", "cells mL-1", 1e-6),
    ("Glc", "g L⁻¹", 1.0),
    ("Glc", "g/l", 1.0),
    ("Glc", "mg/dL", 0.01),
    ("Glc", "mmol/L", 0.180156),
    ("Glc", "mM", 0.180156),
    ("Lac", "mM", 1.0),
    ("Lac", "mmol L^-1", 1.0),
    ("Lac", "g/L", 1000 / 90.08),
    ("Amm", "µmol/L", 1e-3),
    ("Amm", "umol/L", 1e-3),
    ("Titer", "g/L", 1000.0),
    ("Titer", "mg L⁻¹", 1.0),
    ("Titer", "ug/mL", 1.0),
    ("agitation", "1/min", 1.0),
    ("perfusion_rate", "1/d", 1.0),
    ("perfusion_rate", "d^-1", 1.0),
    ("perfusion_rate", "L/L/d", 1.0),
    ("bleed_rate", "1/h", 24.0),
    ("Via", "fraction", 100.0),
    ("Via", "percent", 1.0),
    ("VCV", "% v/v", 1.0),
    ("Diam", "µm", 1.0),
    ("Diam", "μm", 1.0),
    ("Diam", "nm", 1e-3),
    ("pH", "-", 1.0),
    ("pH", "", 1.0),
    ("osmolality", "mosmol/kg", 1.0),
    ("TMP", "kPa", 10.0),
    ("V_bleed_L", "mL", 1e-3),
    ("time_h", "d", 24.0),
    ("time_h", "min", 1 / 60),
]


@pytest.mark.parametrize(("name", "unit", "expected"), ONE)
def test_one_of_each_spelling(name: str, unit: str, expected: float):
    value = to_canonical([1.0, np.nan], unit, name)
    assert value[0] == pytest.approx(expected, rel=1e-12) and np.isnan(value[1])
    assert is_canonical(unit, name) == (abs(expected - 1) < 1e-9)


@pytest.mark.parametrize(("unit", "body"), [("°C", 37.0), ("deg C", 37.0), ("K", 310.15)])
def test_temperatures_have_an_offset(unit: str, body: float):
    assert to_canonical(body, unit, "temperature") == pytest.approx(37.0)
    assert to_canonical(98.6, "degF", "temperature") == pytest.approx(37.0)


@pytest.mark.parametrize("name", list(CANONICAL_UNITS))
def test_every_canonical_unit_reads_as_itself(name: str):
    unit = canonical_unit(name)
    values = np.array([0.0, 1.5, np.nan])
    np.testing.assert_array_equal(to_canonical(values, unit, name), values)
    if name != "pH":
        assert parse_unit(unit).factor > 0


@given(st.floats(1e-3, 1e3), st.sampled_from([row for row in ONE if row[0] != "pH"]))
def test_there_and_back(value: float, row: tuple[str, str, float]):
    name, unit, _ = row
    there = convert(value, unit, canonical_unit(name), name)
    assert float(convert(there, canonical_unit(name), unit, name)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "unit", "message"),
    [
        ("Glc", "rpm", "cannot be converted to 'g/L'"),
        ("Glc", "%", "different things"),
        ("Glc", "banana", "cannot read 'banana'"),
        ("Glc", "g//L", "two slashes"),
        ("Glc", "(", r"cannot read '\('"),
        ("Amm", "mg/L", "cannot be converted to 'mmol/L'"),
        ("perfusion_rate", "rpm", "cannot be converted to 'vvd'"),
        ("agitation", "vvd", "cannot be converted to 'rpm'"),
        ("temperature", "C", "cannot be converted to 'degC'"),
        ("VCD", "10E6 cells/mL", "ambiguous: '10E6' reads as 1e7"),
        ("Via", "-", "ambiguous beside '%'"),
        ("DO", "1", "write '%' or 'fraction'"),
        ("pH", "g/L", "without unit"),
    ],
)
def test_what_does_not_fit_names_the_column(name: str, unit: str, message: str):
    with pytest.raises(UnitError, match=message) as caught:
        to_canonical([1.0], unit, name)
    assert f"column '{name}'" in str(caught.value)


def test_an_unknown_column_gets_a_suggestion():
    with pytest.raises(UnitError, match="column 'titer'. Did you mean 'Titer'"):
        canonical_unit("titer")
    with pytest.raises(UnitError, match="Known columns: VCD"):
        to_canonical(1.0, "g/L", "zzz")
