"""Whether samples and clocks can be believed."""

import math

import pytest

from perfusio_jax.twin.decision.checks import (
    Expectation,
    clock_jump,
    expectations,
    implausible,
    is_about,
)

BOUNDS = {"VCD": (0.0, 200.0), "Glc": (0.0, 20.0), "Via": (0.0, 100.0)}
SAMPLE = {"VCD": 12.34, "Via": 97.1, "Glc": 3.21, "Lac": None}


def wrong(values, **more):
    return implausible({**SAMPLE, **values}, bounds=BOUNDS, **more)


def test_a_good_sample_has_nothing_wrong():
    assert wrong({}) == []
    assert wrong({}, earlier=[{**SAMPLE, "VCD": 11.0}], expected={"VCD": Expectation(12, 1)}) == []


@pytest.mark.parametrize("value", [-1.0, 201.0, math.inf, math.nan])
def test_what_lies_outside_its_bounds_is_named(value):
    (note,) = wrong({"VCD": value})
    assert is_about(note, "VCD") and not is_about(note, "VC") and "outside 0 to 200" in note


def test_nothing_at_all_is_said_so():
    assert implausible({"VCD": None, "pH": 7.0}, bounds=BOUNDS) == ["no measurement at all"]


def test_a_value_that_repeats_to_the_last_digit_is_stuck_and_a_rounded_one_is_not():
    earlier = [{**SAMPLE, "Glc": float(k)} for k in range(3)]
    (note,) = wrong({"Glc": 9.0}, earlier=earlier)
    assert note == "VCD=12.34 stuck: the same 4 times in a row"
    assert wrong({"Glc": 9.0}, earlier=earlier[1:]) == []
    rounded = [{**SAMPLE, "VCD": 12.3, "Glc": float(k)} for k in range(3)]
    assert wrong({"VCD": 12.3, "Glc": 9.0}, earlier=rounded) == []  # an assay that gives 3 digits


def test_a_sample_that_repeats_the_one_before_as_a_whole_is_found():
    assert wrong({}, earlier=[{**SAMPLE, "Gln": None}]) == [
        "the sample repeats the one before, value for value"
    ]
    assert wrong({}, earlier=[{**SAMPLE, "Glc": 3.2}]) == []


def test_a_jump_is_judged_against_the_forecast_and_confirmed_by_a_second_sample():
    expected = {"VCD": Expectation(12.0, 0.5)}
    earlier = [{**SAMPLE, "VCD": 11.0, "Glc": 1.0}]
    (note,) = wrong({"VCD": 30.0}, earlier=earlier, expected=expected)
    assert note == "VCD=30 jumped: 12 was expected"
    assert wrong({"VCD": 22.0}, earlier=earlier, expected=expected) == []  # 10 < 6 (0.5 + 1.2)
    again = [{**SAMPLE, "VCD": 28.0, "Glc": 1.0}]
    assert wrong({"VCD": 30.0}, earlier=again, expected=expected) == []
    assert len(wrong({"VCD": 30.0}, earlier=[{**SAMPLE, "VCD": None}], expected=expected)) == 1


def test_values_that_fit_each_others_forecast_look_swapped():
    expected = {"VCD": Expectation(40.0, 1.0), "Glc": Expectation(2.0, 0.1)}
    notes = wrong({"VCD": 2.0, "Glc": 19.9}, expected=expected)
    assert "VCD=2 jumped" in notes[0] or "Glc=19.9 jumped" in notes[0]
    notes = wrong({"VCD": 2.0, "Glc": 40.0}, expected={**expected})
    assert any("Glc=40 outside" in n for n in notes)
    notes = implausible({"VCD": 2.0, "Glc": 40.0}, bounds={}, expected=expected)
    assert notes == [
        "VCD=2 jumped: 40 was expected; looks swapped with Glc",
        "Glc=40 jumped: 2 was expected; looks swapped with VCD",
    ]


def test_expectations_come_from_the_row_of_the_day():
    forecast = {
        "days": [4.0, 5.0],
        "q10": [[1.0, 5.0], [2.0, math.nan]],
        "q50": [[2.0, 6.0], [3.0, 7.0]],
        "q90": [[3.563, 7.0], [4.0, 8.0]],
    }
    found = expectations(forecast, ["VCD", "Glc"], 4, BOUNDS)
    assert found["VCD"] == Expectation(2.0, pytest.approx(1.0), 2.0)
    assert expectations(forecast, ["VCD", "Glc"], 5, BOUNDS).keys() == {"VCD"}
    assert expectations(forecast, ["VCD", "Glc"], 6, BOUNDS) == {}
    assert expectations(None, ["VCD"], 4, BOUNDS) == {}
    assert expectations({"mean": [[1.0]]}, ["VCD"], 4, BOUNDS) == {}


def test_a_clock_jumps_when_wall_and_steady_time_part():
    assert clock_jump((0.0, 100.0), (0.0, 100.5), tolerance_s=1.0) is None
    assert clock_jump((0.0, 3700.0), (0.0, 100.0), tolerance_s=60.0) == 3600.0
    assert clock_jump((0.0, 40.0), (0.0, 101.0), tolerance_s=60.0) == -61.0
