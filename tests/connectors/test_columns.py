"""Labels and what they mean: maps, hints, names that mean something else, second headers."""

import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.connectors.tables.column_map import ColumnMap
from perfusio_jax.connectors.tables.column_units import is_units_row
from perfusio_jax.connectors.tables.columns import Header
from perfusio_jax.connectors.tables.raw import RawTable
from perfusio_jax.connectors.tables.suggestions import (
    nearest,
    other_meaning,
    refuse_second_header,
    suggest,
)


def header(labels, column_map=None, **settings) -> Header:
    return Header(RawTable(labels), ColumnMap.of(column_map), True, **settings)


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("NH4+", "Amm"),
        ("NH4", "Amm"),
        ("mAb", "Titer"),
        ("IgG", "Titer"),
        ("Osm", "osmolality"),
        ("Temp", "temperature"),
        ("Temp.", "temperature"),
        ("Gluc", "Glc"),
        ("Glucos", "Glc"),
        ("Glutamin", "Gln"),
        ("viable_cell_density", "VCD"),
        ("perfusion rate", "perfusion_rate"),
        ("Titre", "Titer"),
        ("Viablity", "Via"),
        ("osmolarity", "osmolality"),
    ],
)
def test_a_hint_names_what_is_meant(label, meant):
    assert nearest(label) == meant
    assert f"Did you mean '{meant}'" in suggest(label)


@pytest.mark.parametrize(
    "label",
    [
        "pH_setpoint",
        "DO setpoint",
        "PO2",
        "Total cells",
        "Viable cells",
        "Total Density",
        "Total cell density",
        "dead cells",
        "viable cell count",
        "perfusion total",
        "glucose feed",
        "temperature sd",
        "Gls",
        "VCX",
        "Operator",
        "",
    ],
)
def test_no_hint_is_better_than_a_wrong_one(label):
    assert nearest(label) is None
    assert "is no known name" in suggest(label)


@pytest.mark.parametrize(
    ("label", "meant", "unit"),
    [
        ("Glc g/L", "Glc", "g/L"),
        ("Lactate mmol/L", "Lac", "mmol/L"),
        ("Temp. \u00b0C", "temperature", "\u00b0C"),
        ("Via in %", "Via", "%"),
        ("VCD 10^6 cells/mL", "VCD", "10^6 cells/mL"),
    ],
)
def test_a_unit_without_brackets_is_recognised_in_a_hint(label, meant, unit):
    assert suggest(label).startswith(f"Did you mean '{meant}' in {unit}? Write '{meant} [{unit}]'")
    assert "Did you mean" not in suggest(label, [meant])  # the table has it already


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("dead cells/mL", "Did you mean 'DCD'? Say so"),
        ("Foo g/L", "no known name"),
        ("Glc mbar", "no known name"),
    ],
)
def test_what_only_looks_like_a_name_with_a_unit(label, says):
    assert says in suggest(label)


def test_a_hint_never_names_a_column_the_table_has():
    assert nearest("Gluc", ["Glu"]) == "Glc"
    assert nearest("Gluc", ["Glu", "Glc"]) is None


MICRO, MU = "Size (\u00b5m)", "Size (\u03bcm)"


@pytest.mark.parametrize(
    ("label", "entry"),
    [
        ("Size", "Size"),
        ("size", "Size"),
        ("  SIZE ", "Size"),
        ("Size (um)", "Size"),
        ("Size [um]", "Size"),
        (MU, MICRO),
        (MICRO, MU),
        (MU, "Size"),
    ],
)
def test_an_entry_of_a_map_is_found_whatever_the_spelling(label, entry):
    found = header(["day", label], {entry: {"name": "Diam", "unit": "um"}})
    assert found.names == ["day", "Diam"]
    assert found.units[1] == "um" and found.unused == []


def test_the_unit_a_map_states_applies_to_every_spelling_of_a_name():
    assert header(["day", "vcd"], {"VCD": {"unit": "1/mL"}}).units[1] == "1/mL"
    both = {"Zellen": "VCD", "VCD": {"unit": "1/mL"}}
    assert header(["day", "Zellen"], both).units[1] == "1/mL"


def test_what_a_map_names_and_the_table_lacks_is_known():
    found = header(["day", "VCD"], {"Size": "Diam", "Note": "ignore", "VCD": "VCD"})
    assert found.unused == ["Size", "Note"]


@pytest.mark.parametrize(
    "entry", [{"name": "V_bleed_L", "totals": "sum"}, {"name": "Glc", "totals": "cumulative"}]
)
def test_totals_in_a_map_are_two_words_for_a_total(entry):
    with pytest.raises(ConfigError, match="allowed are cumulative and increments"):
        ColumnMap.of({"x": entry})
    good = ColumnMap.of({"x": {"name": "V_bleed_L", "totals": "cumulative"}})
    assert Header(RawTable(["day", "X"]), good, True).totals == {"V_bleed_L": "cumulative"}


@pytest.mark.parametrize(
    ("unit", "labels", "is_other"),
    [
        ("mM", ["Lys"], True),
        ("mg/L", ["Lys"], True),
        ("1e6 cells/mL", ["Lys"], False),
        ("1e5/mL", ["Lys", "Arg", "Ala"], False),
        ("", ["Lys", "VCD"], False),
        ("", ["Arg [mM]", "Lys", "Ala"], True),
    ],
)
def test_lysine_is_not_lysed_cells(unit, labels, is_other):
    text = other_meaning("Lys", unit, labels)
    assert bool(text) == is_other
    assert not is_other or ("lysed cells" in text and "ignore" in text)
    assert other_meaning("Glc", "mM", labels) == ""


@pytest.mark.parametrize(
    "stated",
    [
        [("day", "T"), ("VCD", "Xv"), ("Glc", "G")],
        [("day", "d"), ("VCD", "VCD"), ("Glc", "Glc")],
        [("VCD", "cells"), ("Glc", "Glukose")],
    ],
)
def test_a_second_row_of_names_is_no_row_of_units(stated):
    with pytest.raises(DataError, match=r"line 2 \(.*looks like a second row of names"):
        refuse_second_header(2, stated)


@pytest.mark.parametrize(
    "stated", [[("day", "d"), ("Glc", "parsec")], [("Glc", "g/dL")], [("Glc", "parsec")], []]
)
def test_a_row_with_one_unit_is_a_row_of_units(stated):
    refuse_second_header(2, stated)


@pytest.mark.parametrize(
    ("cells", "is_units"),
    [
        (["h", "g/L", "1"], True),
        (["h", "mmol/L", "1", "degC"], True),
        (["1", "1"], False),  # numbers, whatever else they may be
        (["h", "g/L", "2"], False),
        (["n.b.", "low", "1"], False),
        (["< 1 g/L", "h", "1"], False),
    ],
)
def test_the_unit_of_what_has_no_dimension_stands_in_a_row_of_units(cells, is_units):
    assert is_units_row(cells, ".") is is_units
