"""Allotrope simple models: rows by sample and time, names, errors, what is refused."""

import json
import re
from typing import Any

import pytest

from perfusio_jax._core import DataError
from tests.connectors.instruments.exports import (
    ASM,
    analytes,
    asm,
    cells_of,
    column,
    measured,
    quantity,
    read,
    told,
)

WHEN = "2025-03-14T08:12:30+00:00"


def of(*groups: list[dict[str, Any]], technique: str = "solution analyzer"):
    return read(asm(*groups, technique=technique), ".json")


def test_a_counter():
    table = read(ASM, ".json")
    assert table.header == [
        "sample_id",
        "sampled_at",
        "VCD [10^6 cells/mL]",
        "Via [%]",
        "Diam [\u00b5m]",
    ]
    assert table.rows[0] == ["P7-D2", "2025-03-14T08:12:30+01:00", 4.02, 97.7, 15.6]
    assert table.lines == [1, 2]
    assert told(table, "Allotrope simple model (ASM) of a Counter 3") and told(table, "manifest")
    assert told(table, "dilutions", "P7-D2 2")
    assert not any("setting" in label for label in table.header)


def test_measurements_of_one_sample_and_time_are_one_row():
    group = [
        analytes("A", WHEN, ("glucose", 5.1, "g/L"), ("sodium", 101.0, "mmol/L")),
        measured("A", WHEN, pH=quantity(7.01, "pH"), pCO2=quantity(41.0, "mmHg")),
        measured("A", WHEN, temperature=quantity(36.5, "degC")),
        cells_of("A", WHEN),
        analytes("A", WHEN, ("glucose", 5.2, "g/L")),
    ]
    table = of(group, [analytes("A", WHEN, ("glucose", 5.3, "g/L"))])
    assert column(table, "Glc [g/L]") == [5.1, 5.2, 5.3]
    assert column(table, "pH [pH]") == [7.01, None, None]
    assert column(table, "VCD [10^6 cells/mL]") == [4.02, None, None]
    assert column(table, "sodium")[0] == 101.0 and table.units["sodium"] == "mmol/L"
    assert "temperature" not in table.header, "which is a set-point of ours"
    assert column(table, "analyser temperature")[0] == 36.5
    assert told(table, "measured more than once", "A") and told(table, "+00:00")


def test_the_diameter_of_all_cells_comes_first():
    both = {
        "average total cell diameter": quantity(15.0, "um"),
        "average live cell diameter (cell counter)": quantity(16.0, "um"),
    }
    made = of([measured("A", WHEN, processed_data_document=[both])])
    assert column(made, "Diam [um]") == [15.0]
    assert column(made, "average live cell diameter (cell counter)") == [16.0]
    del both["average total cell diameter"]
    both["viability (cell counter)"] = quantity(98.0, "%")
    made = of([measured("A", WHEN, processed_data_document=both)])
    assert column(made, "Diam [um]") == [16.0] and told(made, "living cells")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (-0.0, "-0.0"),
        (None, ""),
        ("NaN", "'NaN'"),
        (float("nan"), "'nan'"),
        (float("inf"), "'inf'"),
    ],
)
def test_what_is_no_value_is_missing(value: Any, why: str):
    made = of([analytes("A", WHEN, ("glucose", value, "g/L"), ("lactate", 0, "g/L"))])
    assert "Glc [g/L]" not in made.header and column(made, "Lac [g/L]") == [0]
    assert not why or told(made, "'glucose' missing", why)


def test_errors_of_one_quantity():
    group = [cells_of("A", WHEN, [("viable cell density", "N/A")])]
    table = of(group, [cells_of("B", WHEN)], technique="cell counting")
    assert column(table, "VCD [10^6 cells/mL]") == [None, 4.02]
    assert column(table, "Via [%]") == [97.7, 97.7]
    assert told(table, "viable cell density", "the error 'N/A'", "A")


def test_errors_of_one_test_of_an_analyte():
    group = analytes("A", WHEN, ("lactate", 1.0, "mmol/L"))
    group["analyte aggregate document"]["analyte document"] += [
        {
            "analyte name": "glucose",
            "mass concentration": quantity(value, "g/L"),
            "custom information document": {"detection kit": kit},
        }
        for value, kit in ((-0.0, "Low"), (5.1, "Standard"))
    ]
    errors = [{"error": "< 0.1", "error feature": "glucose - Low"}]
    group["error aggregate document"] = {"error document": errors}
    table = of([group])
    assert column(table, "Glc [g/L]") == [None, 5.1]
    assert told(table, "'glucose' missing for the error '< 0.1'")


def test_an_error_of_the_technique_is_one_of_everything():
    group = [cells_of("A", WHEN, [("Cell Counting", "out of focus")])]
    table = of(group, [cells_of("B", WHEN)], technique="cell counting")
    assert table.rows[0] == ["A", WHEN, None, None, None]
    assert table.rows[1][2:] == [4.02, 97.7, 15.6]
    assert told(table, "error 'out of focus'", "no value is taken", "A")


def test_an_error_of_something_else_is_told_and_changes_nothing():
    table = of([cells_of("A", WHEN, [("optical density", "low")])], technique="cell counting")
    assert table.rows[0][2:] == [4.02, 97.7, 15.6]
    assert told(table, "'optical density'", "nothing that is read is concerned")


def test_ph_needs_no_unit():
    table = of([measured("A", WHEN, pH=quantity(7.01, "(unitless)"))])
    assert column(table, "pH [pH]") == [7.01]


def test_ammonia_by_mass_keeps_its_name():
    table = of([analytes("A", WHEN, ("ammonia", 0.03, "g/L"), ("glucose", 5.0, "g/L"))])
    assert column(table, "ammonia") == [0.03] and told(table, "'ammonia' in g/L keeps its label")


def test_any_version_by_its_structure():
    tree = {
        "any aggregate document": {
            "any document": {
                "measurement aggregate document": {
                    "measurement time": WHEN,
                    "sample document": {"sample identifier": 7, "batch identifier": "B1"},
                    "measurement document": {
                        "viability": {"@quantity value": quantity(98.0, "%")},
                        "viable cell density": quantity(2.0e6, "cells/mL"),
                    },
                }
            }
        }
    }
    table = read(json.dumps(tree).encode(), ".json")
    assert table.header == [
        "sample_id",
        "sampled_at",
        "batch identifier",
        "Via [%]",
        "VCD [cells/mL]",
    ]
    assert table.rows == [["7", WHEN, "B1", 98.0, 2.0e6]]


def test_a_time_that_cannot_be_told_stays():
    table = of([cells_of("A", "3/4/2025 8:00")], [cells_of("B", None)], technique="cell counting")
    assert column(table, "sampled_at") == ["3/4/2025 8:00", None]
    assert told(table, "1 times are left as they are")


DEEP = '{"a aggregate document": ' + '{"a":' * 60 + "1" + "}" * 61
NESTED = '{"a aggregate document": ' + "[" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ASM[:-40], "is not JSON"),
        (DEEP.encode(), "nested more than"),
        (NESTED.encode(), "JSON"),
        (b'{"x aggregate document": 1}', "without a quantity of a cell culture; it has none"),
        (
            asm([measured("A", WHEN, absorbance=quantity(1.0, "mAU"))]),
            "without a quantity of a cell culture; it has 'absorbance'",
        ),
        (asm([analytes("A", WHEN, ("glucose", [1], "g/L"))]), "'glucose' is [1]"),
        (asm([analytes("A", WHEN, ("glucose", True, "g/L"))]), "'glucose' is True"),
        (asm([analytes("A", WHEN, ("glucose", 1, ["g/L"]))]), "stands where a text is needed"),
        (asm([analytes("A", WHEN, ("glucose", 1, "U/L"))]), "'glucose' is in 'U/L'"),
        (asm([analytes("A", WHEN, ("glucose", 1, ""))]), "(measurement 1) states no unit"),
        (asm([analytes("A", WHEN, ("glucose", 1, "(unitless)"))]), "states no unit"),
        (asm([analytes("A", WHEN, ("glucose", 10**400, "g/L"))]), "larger than any number"),
        (
            asm([cells_of("A", "13/2/2025")], [cells_of("B", "2/13/2025")]),
            "day first",
        ),
    ],
)
def test_what_is_refused(content: bytes, message: str):
    with pytest.raises(DataError, match=re.escape(message)):
        read(content, ".json")
