"""Unit texts of a server that means no good: an answer or a refusal, at once, and short."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import UnitError
from perfusio_jax._core.units import convert, parse_unit

HOSTILE = (
    "9**9**9**9",
    "9^9^9^9^9",
    "m**9999999999",
    "m^999999",
    "(9**99)**99",
    "m**(9**9**9)",
    "1e9999 g/L",
    "1e-999 g/L",
    "0 g/L",
    "0.0 * g/L",
    "1e-40 g/L",
    "1e40 g/L",
    "1" * 150,
    "(" * 150,
    "%" * 150,
    "g/L" + "/L" * 90,
    "10^6" * 40,
    "m " * 95,
    "nan g/L",
    "inf g/L",
    "__import__('os').system('true')",
    "lambda: 0",
    "g/L\x00",
    "g\u202e/L",
    "\ud800",
    "x" * 60_000,
    "g/L" * 300_000,
)


@pytest.mark.timeout(60)  # a power of powers would be worked out for ever
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_unit_is_refused_at_once_in_a_short_sentence(text):
    with pytest.raises(UnitError) as caught:
        convert([1.0], text, "g/L", "Glc")
    assert len(str(caught.value)) < 800


@settings(max_examples=150, derandomize=True)
@given(st.lists(st.sampled_from("g L mol m cells 9 10 1e6 ** ^ / * ( ) - % 1 . ° x per".split()),
                max_size=12).map(" ".join))  # fmt: skip
def test_any_words_of_units_are_a_unit_or_a_refusal(text):
    try:
        assert 0 < parse_unit(text).factor <= 10**30
    except UnitError as error:
        assert len(str(error)) < 800


@pytest.mark.parametrize(
    "text", ["10^6 cells/mL", "1e6 cells mL^-1", "g L**-1", "cells/(mL*d)", "m^-1"]
)
def test_powers_people_write_are_still_read(text):
    assert parse_unit(text).factor > 0
