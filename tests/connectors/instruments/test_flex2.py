"""Nova BioProfile FLEX2: names, units stated or not, times, what is refused."""

import re

import pytest

from perfusio_jax._core import DataError
from tests.connectors.instruments.exports import (
    FLEX2,
    FLEX2_HEADER,
    FLEX2_ROWS,
    FLEX2_UNITS,
    column,
    read,
    replaced,
    text,
    told,
)


def test_names_units_and_values():
    table = read(FLEX2)
    assert column(table, "sample_id") == ["P7-D2-BR1", "P7-D3-BR1", "P7-D3-BR2"]
    assert column(table, "sampled_at")[0] == "2025-03-14T08:05:09"
    assert table.lines == [2, 3, 4]
    assert column(table, "Glc [g/L]") == ["5.37", "4.02", None]
    assert column(table, "Lac [g/L]") == ["0.84", "1.31", "1.29"]
    assert column(table, "Amm [mmol/L]") == ["1.11", "1.75", "< 0.20"]
    assert column(table, "VCD [1e6 cells/mL]") == ["3.25", "6.71", None]
    assert column(table, "Via [%]") == ["98.2", "97.2", None]
    assert column(table, "pCO2 [mmHg]") == ["41.3", "47.9", "46.2"]
    assert column(table, "osmolality [mOsm/kg]")[0] == "298"
    assert column(table, "pH [pH]")[0] == "7.012"
    assert column(table, "pH @ Temp")[0] == "7.019", "what is reckoned keeps its label"
    assert column(table, "Na+")[0] == "101.5" and table.units["Na+"] == "mmol/L"
    assert table.units["VCD [1e6 cells/mL]"] == "1e6 cells/mL"
    assert all(isinstance(cell, str) for row in table.rows for cell in row), "a table of text"
    assert (table.separator, table.decimal, table.held_back) == (",", ".", None)
    assert not any(label.startswith(("DO", "temperature")) for label in table.header)


def test_everything_is_told():
    table = read(FLEX2)
    assert told(table, "Nova BioProfile FLEX2")
    assert told(table, "states no unit", "Gluc in g/L", "Lac in g/L", "Viability in %")
    assert told(table, "left out", "'Operator'", "'Sample Type'")
    assert told(table, "dilutions", "P7-D3-BR1 2")
    assert told(table, "'Date & Time'", "analysed")


def test_a_row_of_units_is_read():
    units = FLEX2_UNITS.replace("g / L,g / L", "mmol / L,g / L")
    table = read(text(FLEX2_HEADER, units, *FLEX2_ROWS))
    assert table.lines == [3, 4, 5]
    assert column(table, "Glc [mmol/L]")[0] == "5.37", "stated in mmol/L, whatever is usual"
    assert "Lac [g/L]" in table.header
    assert table.units["VCD [x10^6 Cells/mL]"] == "x10^6 Cells/mL"
    assert not told(table, "states no unit", "Gluc in")
    assert told(table, "states no unit", "Viability in %"), "the row says nothing of these"


def test_units_in_brackets_are_read():
    table = read(text(FLEX2_HEADER.replace(",Gluc,", ",Gluc (mmol/L),"), *FLEX2_ROWS))
    assert "Glc [mmol/L]" in table.header and not told(table, "Gluc in")


def test_a_unit_that_does_not_fit_keeps_the_label():
    units = FLEX2_UNITS.replace("g / L,g / L,mmol / L", "g / L,g / L,mg / L")
    table = read(text(FLEX2_HEADER, units, *FLEX2_ROWS))
    assert column(table, "NH4+")[0] == "1.11" and table.units["NH4+"] == "mg/L"
    assert told(table, "'NH4+' in mg/L keeps its label", "Amm")
    swapped = FLEX2_UNITS.replace(",,,mmol / L", ",,,mmHg", 1)
    table = read(text(FLEX2_HEADER, swapped, *FLEX2_ROWS))
    assert "analyser Gln" in table.header, "never under a name of ours"
    assert not any(label.split(" [")[0] == "Gln" for label in table.header)


def test_what_is_no_unit_is_refused_by_label():
    units = FLEX2_UNITS.replace("g / L,g / L", "furlong,g / L")
    with pytest.raises(DataError, match="'Gluc' is in 'furlong'"):
        read(text(FLEX2_HEADER, units, *FLEX2_ROWS))


@pytest.mark.parametrize(
    ("stamps", "found"),
    [
        (("3/4/2025 8:00", "3/5/2025 8:00", "3/6/2025 8:00"), None),
        (("3/4/2025 8:00", "3/14/2025 8:00", "3/6/2025 8:00"), "2025-03-04T08:00:00"),
        (("3.4.2025 8:00", "3.5.2025 8:00", "3.6.2025 8:00"), "2025-04-03T08:00:00"),
        (("4/4/2025 8:00", "4/5/2025 8:00", "4/6/2025 8:00"), "2025-04-04T08:00:00"),
        (("2025-03-04 08:00:01", "x", ""), "2025-03-04T08:00:01"),
    ],
)
def test_day_and_month_are_never_guessed(stamps: tuple[str, ...], found: str | None):
    rows = [
        ",".join([when, *row.split(",")[1:]]) for when, row in zip(stamps, FLEX2_ROWS, strict=True)
    ]
    table = read(text(FLEX2_HEADER, *rows))
    assert column(table, "sampled_at")[0] == (found or stamps[0])
    assert found is not None or told(table, "'Date & Time' is left as it is", "3/4/2025 8:00")
    if "x" in stamps:
        assert column(table, "sampled_at")[1:] == ["x", None]


def test_two_orders_of_dates_are_refused():
    rows = [
        ",".join([w, *FLEX2_ROWS[0].split(",")[1:]]) for w in ("13/2/2025 8:00", "2/13/2025 8:00")
    ]
    with pytest.raises(DataError, match="day first"):
        read(text(FLEX2_HEADER, *rows))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",5.37,", ",high,", "line 2: 'Gluc' is 'high', which is no number"),
        (",5.37,", ",10.00%,", "line 2: 'Gluc' is '10.00%'"),
        (",5.37,", ",1e999,", "line 2: 'Gluc'"),
        (",kim,", "", "line 2 has 29 cells where the header has 30"),
        (",kim,", ",kim,,,5", "line 2 has 33 cells where the header has 30"),
    ],
)
def test_what_is_no_value_is_refused_with_line_and_label(old: str, new: str, message: str):
    rows = (FLEX2_ROWS[0].replace(old, new), *FLEX2_ROWS[1:])
    with pytest.raises(DataError, match=re.escape(message)):
        read(text(FLEX2_HEADER, *rows))


@pytest.mark.parametrize("label", ["Date & Time", "Sample ID"])
def test_a_missing_label_is_refused(label: str):
    with pytest.raises(DataError, match=f"line 1: an export of .*FLEX2 without '{label}'"):
        read(text(FLEX2_HEADER.replace(f"{label},", "Other,"), *FLEX2_ROWS))


def test_a_label_twice_is_refused():
    with pytest.raises(DataError, match="'Gluc' stands above columns 6 and 7"):
        read(text(FLEX2_HEADER.replace(",Lac,", ",Gluc,"), *FLEX2_ROWS))


def test_densities_in_another_unit_are_refused():
    rows = replaced(FLEX2_ROWS[:2], "3.31,3.25,", "3310000,3250000,")
    rows = replaced(rows, "6.90,6.71,", "6900000,6710000,")
    with pytest.raises(DataError, match="line 2: 'Total Density' is 3.31e.06 .*another"):
        read(text(FLEX2_HEADER, *rows))


def test_viability_as_a_share_is_refused():
    rows = replaced(replaced(FLEX2_ROWS[:2], ",98.2,", ",0.982,"), ",97.2,", ",0.972,")
    with pytest.raises(DataError, match="'Viability' is 0.982 at the most, a share"):
        read(text(FLEX2_HEADER, *rows))


def test_an_unknown_number_is_kept_and_an_unknown_text_left_out():
    header = FLEX2_HEADER.replace(",Tray Location,", ",IgG index,").replace(",Operator,", ",Mood,")
    table = read(text(header, *(row.replace(",A", ",1.") for row in FLEX2_ROWS)))
    assert column(table, "IgG index") == ["1.1", "1.2", "1.3"]
    assert told(table, "left out", "'Mood'")


def test_decimal_commas_between_semicolons():
    rows = [";".join(row.split(",")).replace(".", ",") for row in FLEX2_ROWS]
    header = (
        FLEX2_HEADER.replace("Avg. Live", "Avg, Live").replace(",", ";").replace("Avg;", "Avg.")
    )
    table = read(text(header, *rows))
    assert table.decimal == "," and table.separator == ";"
    assert column(table, "Glc [g/L]") == ["5,37", "4,02", None]
    assert column(table, "Amm [mmol/L]")[2] == "< 0,20"


def test_a_time_of_the_sample_beside_that_of_the_analysis_is_kept():
    rows = [
        row.replace(",3/14/2025  8:05:09 AM,kim", ",3/14/2025  7:30:00 AM,kim")
        for row in FLEX2_ROWS
    ]
    assert column(read(text(FLEX2_HEADER, *rows)), "Sample Time")[0] == "3/14/2025  7:30:00 AM"
    assert "Sample Time" not in read(FLEX2).header


def test_rows_without_anything_are_left_out_and_nameless_ones_told():
    blank = "," * FLEX2_HEADER.count(",")
    named = ",,Default" + blank[2:]
    nameless = FLEX2_ROWS[0].replace("P7-D2-BR1", "")
    table = read(text(FLEX2_HEADER, blank, named, nameless, *FLEX2_ROWS))
    assert len(table.rows) == 4 and table.lines[0] == 4
    assert column(table, "sample_id")[0] is None
    assert told(table, "1 lines without time and measurement") and told(
        table, "1 rows have no name"
    )


def test_a_header_again_is_left_out():
    table = read(text(FLEX2_HEADER, FLEX2_ROWS[0], FLEX2_HEADER, *FLEX2_ROWS[1:]))
    assert table.lines == [2, 4, 5] and told(table, "line 3 repeats the header")


def test_a_sample_measured_twice_has_two_rows():
    table = read(text(FLEX2_HEADER, FLEX2_ROWS[0], *FLEX2_ROWS))
    assert column(table, "sample_id")[:2] == ["P7-D2-BR1"] * 2
    assert told(table, "measured more than once", "P7-D2-BR1")


def test_a_header_alone_holds_no_sample():
    with pytest.raises(DataError, match="holds no sample"):
        read(text(FLEX2_HEADER))


def test_a_quote_that_swallows_rows_is_refused():
    rows = (FLEX2_ROWS[0].replace("kim", '"kim'), FLEX2_ROWS[1].replace("kim", 'kim"'), *FLEX2_ROWS)
    with pytest.raises(DataError, match="line 2 opens a quoted cell"):
        read(text(FLEX2_HEADER, *rows))
