"""ChemoMetec NucleoView: one sample, its time zone, and what the program doubts."""

import pytest

from perfusio_jax._core import DataError
from tests.connectors.instruments import exports as ex
from tests.connectors.instruments.exports import column, read, told


def test_a_count():
    table = read(ex.NUCLEOVIEW.encode())
    assert column(table, "sample_id") == ["20250314-0007-B1"]
    assert column(table, "sampled_at") == ["2025-03-14T09:30:05-07:00"]
    assert column(table, "VCD [cells/mL]") == ["3.21E6"]
    assert column(table, "DCD [cells/mL]") == ["3.02E5"]
    assert column(table, "Via [%]") == ["91.4"]
    assert told(table, "dilutions", "20250314-0007-B1 2")


def test_what_the_program_doubts_is_no_value():
    table = read(ex.NUCLEOVIEW.encode())
    assert not any(label.startswith(("Diam", "Total")) for label in table.header)
    assert told(table, "'Total (cells/ml)' missing for 'Out of optimal range'")
    assert told(table, "'Estimated cell diameter (um)' missing for 'Uncertain'")


def test_a_zone_that_is_none_is_refused_and_one_that_is_missing_is_not_made_up():
    with pytest.raises(DataError, match="line 17: 'Time zone offset' is .*hours by which"):
        read(ex.NUCLEOVIEW.replace(";-7", ";25").encode())
    table = read(ex.NUCLEOVIEW.replace("Time zone offset;-7\n", "").encode())
    assert column(table, "sampled_at") == ["2025-03-14T09:30:05"]


def test_a_count_without_a_time_is_refused():
    with pytest.raises(DataError, match="needs 'Date time' with a value"):
        read(ex.NUCLEOVIEW.replace("Date time;20250314 093005\n", "").encode())
