"""Text to cells: decimal and thousands marks, lines around a table, dates with the year last."""

import datetime as dt
import zoneinfo

import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors.tables.cells import (
    find_decimal,
    parse_number,
    plain,
    qualified,
    understood,
)
from perfusio_jax.connectors.tables.formats import read_table
from perfusio_jax.connectors.tables.raw import RawTable, leave_out_footer
from perfusio_jax.connectors.tables.stamps import as_iso, find_order, read_stamp

KNOWN = frozenset({"day", "vcd", "glc", "via"})


def table(text: str, **settings) -> RawTable:
    settings = {"is_known": lambda label: label.casefold() in KNOWN, **settings}
    return read_table(text.encode(), ".csv", allow_unterminated=True, **settings)


# ---------------------------------------------------------------- decimals and thousands


@pytest.mark.parametrize(
    ("cells", "separator", "decimal"),
    [
        (["0,5", "2,125"], ";", ","),
        (["0.5", "2.125"], ";", "."),
        (["0,125"], ";", ","),  # no number of thousands begins with a zero
        (["2.512,5", "871"], ";", ","),
        (["2.512,5", "2.512"], ";", ","),
        (["2,512.5", "2,512"], ";", "."),
        (["2,512.5"], ",", "."),
        (["1,250,000"], ";", "."),
        (["1.250.000", "4,5"], ";", ","),
        (["1.250.000"], "\t", ","),
        (["1.125", "2.250"], ",", "."),
        (["1.125", "2.250"], "\t", "."),
        (["5", "x", ""], ";", "."),
        (["131\u202f000,5"], ";", ","),
    ],
)
def test_a_decimal_mark_is_proven_by_what_it_stands_beside(cells, separator, decimal):
    assert find_decimal([(cell, 2) for cell in cells], separator) == decimal


@pytest.mark.parametrize(
    ("cells", "separator", "words"),
    [
        (["871", "2,512", "2,604"], ";", "'2,512' in line 3.*thousands or decimals.*--decimal"),
        (["250,000"], "\t", "thousands or decimals"),
        (["2.512", "2.604"], ";", "thousands or decimals"),
        (["0,5", "0.5"], ";", "both"),
        (["0,5", "2.512"], ";", "both"),
        (["0.5", "2,512"], ";", "both"),
        (["2.512,5", "0.5"], ";", "both"),
        (["1,250,000", "4,5"], ";", "both"),
        (["2,512"], ",", "a decimal or a thousands mark"),
    ],
)
def test_what_could_be_thousands_is_asked_about(cells, separator, words):
    with pytest.raises(DataError, match=words):
        find_decimal([(cell, n) for n, cell in enumerate(cells, start=2)], separator)


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("2.512,5", ",", 2512.5),
        ("2.512", ",", 2512.0),
        ("2,512.5", ".", 2512.5),
        ("2,512", ".", 2512.0),
        ("2,512", ",", 2.512),
        ("1.250.000", ",", 1.25e6),
        ("1\u202f250\u202f000", ".", 1.25e6),
        ("1 250,5", ",", 1250.5),
        ("1'250.5", ".", 1250.5),
        ("1\u2019250", ".", 1250.0),
        ("-1 250", ".", -1250.0),
        ("12 50", ".", None),
        ("1250 000", ".", None),
        ("2.51,25", ",", None),
        ("1,25.5", ".", None),
        ("12,51", ".", None),
    ],
)
def test_numbers_with_thousands(text, decimal, number):
    found = parse_number(text, decimal)
    assert found == (text if number is None else number)
    if number is not None:
        assert float(plain(text, decimal)) == number


@pytest.mark.parametrize(
    ("text", "name", "unit", "number", "kind"),
    [
        ("97%", "Via", "", 97.0, "number"),
        ("97 %", "Via", "fraction", 0.97, "number"),
        ("450 mg/dL", "Glc", "", 4.5, "number"),
        ("450 mg/dL", "Glc", "mg/L", 4500.0, "number"),
        ("< 0.4", "Lac", "", 0.2, "below"),
        ("<0.4", "Lac", "", 0.2, "below"),
        ("\u2264 0.4", "Lac", "", 0.2, "below"),
        ("< 90 mg/L", "Lac", "mmol/L", 0.49956, "below"),
        ("> 25", "Glc", "", 25.0, "above"),
        ("97 %", "Glc", "", None, "none"),
        ("7 parsec", "Glc", "", None, "none"),
        ("< low", "Glc", "", None, "none"),
        ("high", "Glc", "", None, "none"),
        ("x" * 100_000, "Glc", "", None, "none"),
    ],
)
def test_a_cell_may_carry_its_unit_or_a_limit(text, name, unit, number, kind):
    found, what = understood(text, name, unit, parse_number)
    assert what == kind
    assert found == (None if number is None else pytest.approx(number, rel=1e-4))


def test_a_plain_number_or_a_name_is_not_qualified():
    assert [qualified(text) for text in ("5", "5.5", "abc", "", "-3")] == [None] * 5


# ---------------------------------------------------------------- around the table

PLAIN = [["0", "1.5", "6"], ["1", "2.5", "5"]]
BODY = "day;VCD;Glc\n0;1.5;6\n1;2.5;5\n"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (BODY, ""),
        ("sep=;\n" + BODY, "line 1 states the separator"),
        ('\n"sep=;"\r\n' + BODY, "line 2 states the separator"),
        ("sep=|\n" + BODY.replace(";", "|"), "line 1 states the separator"),
        ("Export of R4\n\nMay, reactor hall\n" + BODY, "lines 1 to 3 stand above the table"),
        ("Export of R4\n" + BODY, "line 1 stands above the table"),
        (BODY.replace("\n", ";\n"), "3 lines end with a separator"),
        (BODY.replace("6\n", "6;;\n"), "1 lines end with a separator"),
        ("day;VCD;Glc\n0;1.5;6\nDay;vcd;Glc\n1;2.5;5\n", "line 3 repeats the header"),
    ],
)
def test_what_stands_around_a_table_is_left_out_and_told(text, note):
    found = table(text)
    assert (found.header, found.rows) == (["day", "VCD", "Glc"], PLAIN)
    assert any(note in told for told in found.notes) if note else not found.notes


def test_lines_keep_their_numbers():
    found = table("sep=;\nExport\n" + BODY)
    assert found.lines == [4, 5]


def test_a_repeated_header_may_bring_its_units():
    units = ";1e6 cells/mL;g/L"
    text = f"day;VCD;Glc\n{units}\n0;1.5;6\nday;VCD;Glc\n{units}\n1;2.5;5\n"
    assert table(text).rows == [units.split(";"), *PLAIN]


def test_a_column_without_a_name_that_holds_something_is_kept():
    found = table("day;VCD;\n0;1.5;late\n1;2.5;\n")
    assert found.header == ["day", "VCD", "column 3 without a name"]
    with pytest.raises(DataError, match="line 2 has 4 fields where the header has 3"):
        table("day;VCD;\n0;1.5;late;4\n")


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([*PLAIN, ["Mean", "2", "5.5"]], 2),
        ([*PLAIN, ["Mittelwert:", "2", "5.5"], ["SD", "0.7", "0.7"]], 2),
        ([*PLAIN, ["", "", "sum"]], 2),
        ([["Mean", "2", "5.5"], *PLAIN], 3),  # not below the table
        ([*PLAIN, ["2", "max", "5"]], 3),  # it has a time
        ([*PLAIN, ["end", "2", "5"]], 3),
    ],
)
def test_lines_that_sum_a_table_up_are_left_out(rows, kept):
    found = RawTable(["day", "VCD", "Glc"], [list(row) for row in rows], list(range(len(rows))))
    leave_out_footer(found, [0])
    assert len(found.rows) == len(found.lines) == kept
    assert len(found.notes) == len(rows) - kept


# ---------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("texts", "order"),
    [
        (["4-5-2026 8:00", "24-5-2026 8:00"], "dmy"),
        (["4/5/2026", "4/25/2026"], "mdy"),
        (["4.5.2026 8:00"], "dmy"),
        (["4/5/2026"], None),
        (["2026-05-04", ""], None),
        ([], None),
    ],
)
def test_the_order_of_a_date_is_proven_by_a_number_above_twelve(texts, order):
    assert find_order(texts) == order


def test_two_orders_in_one_column_are_refused():
    with pytest.raises(DataError, match="day first in '24/5/2026' and the month first in '5/24"):
        find_order(["24/5/2026", "5/24/2026"])


@pytest.mark.parametrize(
    ("text", "order", "iso"),
    [
        ("24-5-2026 14:30:05", "dmy", "2026-05-24T14:30:05"),
        ("5/24/2026 2:30:05 PM", "mdy", "2026-05-24T14:30:05"),
        ("5/24/2026 12:30 AM", "mdy", "2026-05-24T00:30:00"),
        ("5/24/2026 12:30 p.m.", "mdy", "2026-05-24T12:30:00"),
        ("4/5/2026 8:00", "dmy", "2026-05-04T08:00:00"),
        ("4/5/2026 8:00", "mdy", "2026-04-05T08:00:00"),
        ("04.05.2026", "dmy", "2026-05-04T00:00:00"),
        ("4.5.2026 08:00 +02:00", "dmy", "2026-05-04T08:00:00+02:00"),
        ("2026-05-04 08:00", None, "2026-05-04 08:00"),
        ("noon", None, "noon"),
        ("4/5-2026", None, "4/5-2026"),
    ],
)
def test_dates_with_the_year_last(text, order, iso):
    assert as_iso(text, "it", order) == iso


@pytest.mark.parametrize(
    ("text", "order", "words"),
    [
        ("4/5/2026 8:00", None, "day and month cannot be told apart; say date_order"),
        ("5/24/2026 14:30 PM", "mdy", "before AM or PM stands 1 to 12"),
        ("24/5/2026 8:00", "mdy", "a time such as"),
        ("31/2/2026 8:00", "dmy", "a time such as"),
        ("4/5/26 8:00", "dmy", "a time such as"),
    ],
)
def test_dates_that_cannot_be_told_are_refused(text, order, words):
    with pytest.raises(DataError, match=words):
        read_stamp(text, "sampled_at in line 2", zoneinfo.ZoneInfo("Europe/Berlin"), order)


def test_a_date_with_the_year_last_becomes_an_instant():
    stamp = read_stamp("24.5.2026 14:30", "it", zoneinfo.ZoneInfo("Europe/Berlin"), "dmy")
    assert stamp.astimezone(dt.UTC) == dt.datetime(2026, 5, 24, 12, 30, tzinfo=dt.UTC)
