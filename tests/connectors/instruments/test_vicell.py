"""Beckman Coulter Vi-CELL: XR tables of both kinds, XR reports, BLU."""

import re

import pytest

from perfusio_jax._core import DataError
from tests.connectors.instruments import exports as ex
from tests.connectors.instruments.exports import column, read, told


def test_blu():
    table = read(ex.BLU)
    assert column(table, "sample_id") == ["P7-D2-BR1", "P7-D3-BR1"]
    assert column(table, "sampled_at") == ["2025-03-14T08:10:00", "2025-03-15T08:16:00"]
    assert column(table, "VCD [1e6 cells/mL]") == ["3.97", "8.11"]
    assert column(table, "Via [%]") == ["97.78", "97.13"]
    assert column(table, "Diam [um]") == ["15.62", "15.88"]
    assert column(table, "Average viable diameter (\u03bcm)")[0] == "15.70"
    assert column(table, "Cell count") == ["4011", None], "ERROR is no number"
    assert told(table, "'Cell count' missing for 'ERROR'", "P7-D3-BR1")
    assert told(table, "dilutions", "P7-D3-BR1 2")


@pytest.mark.parametrize("sign", ["\u00b5", "\u03bc"])
def test_both_signs_for_micro(sign: str):
    table = read(ex.text(ex.BLU_HEADER.replace("\u03bc", sign), *ex.BLU_ROWS))
    assert "Diam [um]" in table.header


@pytest.mark.parametrize(
    ("label", "other"),
    [
        ("Viable (x10^6) cells/mL", "Viable (x10^5) cells/mL"),
        ("Average diameter (\u03bcm)", "Average diameter (mm)"),
        ("Viability (%)", "Viability"),
    ],
)
def test_another_unit_in_a_label_is_refused_by_name(label: str, other: str):
    with pytest.raises(DataError, match=re.escape(f"line 1: '{other}' is not how")):
        read(ex.text(ex.BLU_HEADER.replace(label, other), *ex.BLU_ROWS))


BOOKS = {".xlsx": ex.xlsx, ".xls": ex.xls}


@pytest.mark.parametrize("suffix", BOOKS)
def test_xr_table(suffix: str):
    table = read(BOOKS[suffix](*ex.xr_rows(*ex.XR_ROWS)), suffix)
    assert column(table, "sample_id") == ["A-1", "A-2"]
    assert column(table, "sampled_at") == ["2025-03-14T08:12:30", "2025-03-14T12:03:00"]
    assert column(table, "VCD [1e6 cells/mL]") == ["4.02", "4.32"]
    assert column(table, "Total cells") == [1501, 1620]
    assert column(table, "Comment") == [None, "foamy"]
    assert table.lines == [7, 8] and table.separator is None
    assert told(table, "Vi-CELL XR (version 2.06.3)") and told(table, "4 rows above the table")


def test_xr_table_of_version_2_04():
    rows = [["Vi-CELL XR 2.04"], ["Beckman Coulter, Inc."], [None], ex.XR_LABELS, ex.XR_BELOW]
    table = read(ex.xls(*rows, *ex.XR_ROWS), ".xls")
    assert table.lines == [6, 7] and told(table, "version 2.04")


def test_xr_table_saved_as_text():
    rows = ["\t".join("" if c is None else str(c) for c in row) for row in ex.xr_rows(*ex.XR_ROWS)]
    table = read("\n".join([*rows, ""]).encode(), ".txt")
    assert column(table, "VCD [1e6 cells/mL]") == ["4.02", "4.32"] and table.separator == "\t"
    assert table.lines == [7, 8]


def test_a_row_that_numbers_the_columns_is_left_out():
    table = read(ex.xlsx(*ex.xr_rows(range(13), *ex.XR_ROWS)), ".xlsx")
    assert table.lines == [8, 9] and told(table, "row 7 only numbers the columns")


def test_xr_without_a_time_is_refused():
    rows = ex.xr_rows(*ex.XR_ROWS)
    rows[4] = ["Sample date/timexxx" if cell == "Sample date/time" else cell for cell in rows[4]]
    with pytest.raises(DataError, match="row 5: .*Vi-CELL XR without 'Sample date/time'"):
        read(ex.xlsx(*rows), ".xlsx")


def test_a_number_as_a_time_is_refused():
    row = [45730.34 if cell == ex.XR_ROWS[0][4] else cell for cell in ex.XR_ROWS[0]]
    with pytest.raises(DataError, match="row 7: 'Sample date/time' is 45730.34, a number"):
        read(ex.xlsx(*ex.xr_rows(row)), ".xlsx")


def test_a_month_nobody_knows_is_left_as_it_is():
    row = ["14 Mrz 2025 08:12:30" if cell == ex.XR_ROWS[0][4] else cell for cell in ex.XR_ROWS[0]]
    table = read(ex.xlsx(*ex.xr_rows(row)), ".xlsx")
    assert column(table, "sampled_at") == ["14 Mrz 2025 08:12:30"]
    assert told(table, "left as it is", "14 Mrz")


def test_another_sheet_is_told():
    import io

    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(ex.XR))
    book.create_sheet("plots")
    out = io.BytesIO()
    book.save(out)
    assert told(read(out.getvalue(), ".xlsx"), "there are others: plots")


def test_damaged_styles_are_not_needed():
    styles = (
        b'<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        b'<fills count="1"><fill/></fills></styleSheet>'
    )
    table = read(ex.with_part(ex.XR, "xl/styles.xml", styles), ".xlsx")
    assert column(table, "VCD [1e6 cells/mL]") == ["4.02", "4.32"]
    assert told(table, "styles of the workbook are damaged")


def test_xr_report_as_text():
    table = read(ex.XR_TEXT.encode(), ".txt")
    assert table.rows[0][:2] == ["A-1", "2025-03-14T08:12:30"], "when it ran, not was logged in"
    assert column(table, "VCD [1e6 cells/mL]") == ["4.02"]
    assert column(table, "Via [%]") == ["97.7"] and column(table, "Diam [um]") == ["15.6"]
    assert table.lines == [3] and table.held_back is None
    assert told(table, "version 2.06.3") and told(table, "dilutions", "A-1 2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Sample ID : A-1", "Sample ID :", "needs 'Sample ID' with a value"),
        ("RunDate : 14", "Date : 14", "needs 'RunDate' with a value"),
        ("Viability (%) : 97.7", "Viability (%) : good", "line 14: 'Viability (%)' is 'good'"),
        ("Results:", "Sample ID : B-1", "line 9: 'Sample ID' stands a second time"),
    ],
)
def test_reports_that_cannot_be_read(old: str, new: str, message: str):
    assert old in ex.XR_TEXT
    with pytest.raises(DataError, match=re.escape(message)):
        read(ex.XR_TEXT.replace(old, new).encode(), ".txt")


def test_a_report_without_a_measurement_is_refused():
    with pytest.raises(DataError, match="holds no sample"):
        read(ex.XR_TEXT[: ex.XR_TEXT.index("Results:")].encode(), ".txt")


def test_the_last_line_of_a_report_may_be_cut():
    cut = ex.XR_TEXT[: ex.XR_TEXT.index("Average circularity") - 2]
    table = read(cut.encode(), ".txt")
    assert "Diam [um]" not in table.header and table.held_back == 17
    assert told(table, "line 17 has no line end")


def test_xr_report_as_a_sheet():
    rows = [
        ["Vi-CELL XR 2.04"],
        ["Beckman Coulter, Inc."],
        [None],
        ["Sample ID", None, "7B"],
        ["File name", None, "7B.txt"],
        ["Sample date", None, "14 Mar 2025  2:59:27 PM"],
        ["Comment", None, None],
        [None],
        ["Results", None, None, None, None, "Settings"],
        ["Total cells", None, None, 915, None, "Cell type", None, None, "CHO"],
        ["Viability (%)", None, None, 86.99, None, "Dilution factor", None, None, 4],
        ["Viable cells / ml (x10^6)", None, None, 0.844, None, "Minimum circularity"],
        ["Average diameter (microns)", None, None, 16.8],
        ["Size Distribution Plot Data"],
        ["Diameter", "Count", "Viability (%)"],
        [5.1, 6, 1],
    ]
    table = read(ex.xlsx(*rows), ".xlsx")
    assert table.rows == [["7B", "2025-03-14T14:59:27", 915, 86.99, 0.844, 16.8]]
    assert table.header[2:] == ["Total cells", "Via [%]", "VCD [1e6 cells/mL]", "Diam [um]"]
    assert table.lines == [4] and told(table, "dilutions", "7B 4")
