"""Roche Cedex: HiRes tables, and archive files of the Bio HT in three versions."""

import re

import pytest

from perfusio_jax._core import DataError
from tests.connectors.instruments import exports as ex
from tests.connectors.instruments.exports import bio, bio_line, bio_line_5, column, read, told


def test_hires():
    table = read(ex.HIRES)
    assert column(table, "VCD [cells/mL]") == ["2321004.5", "4999216.5"]
    assert column(table, "DCD [cells/mL]")[0] == "57761.25"
    assert column(table, "Via [%]")[0] == "97.57174"
    assert column(table, "sampled_at") == ["2025-03-14T08:01:00", "2025-03-15T08:14:41"]
    assert column(table, "Reactor identifer") == ["BR1", "BR1"]
    assert told(table, "'Sample draw Time'", "'Date finished'")
    assert told(table, "states no unit", "Viable Cell Conc. in cells/mL")
    assert told(table, "dilutions", "P7-D3 0.5")


def test_hires_in_millions_is_refused_by_name():
    rows = [row.split(",") for row in ex.HIRES_ROWS]
    for row in rows:
        row[-6:-3] = [str(float(cell) / 1e6) for cell in row[-6:-3]]
    with pytest.raises(
        DataError, match=r"line 2: 'Viable Cell Conc.' is 2.321 beside 2210 counted"
    ):
        read(ex.text(ex.HIRES_HEADER, *(",".join(row) for row in rows)))


def test_hires_with_its_unit_in_the_label_is_converted_from_there():
    header = ex.HIRES_HEADER.replace("Viable Cell Conc.", "Viable Cell Conc. (1e5 cells/mL)")
    table = read(ex.text(header, *ex.HIRES_ROWS))
    assert "VCD [1e5 cells/mL]" in table.header
    assert not told(table, "states no unit", "Viable Cell Conc. in")


def test_bio_rows_and_limits():
    table = read(ex.BIO, ".txt")
    assert table.header[2:] == [
        "Glc [g/L]",
        "Lac [g/L]",
        "Gln [mmol/L]",
        "LDH2B",
        "Titer [mg/L]",
    ]
    assert [*map(ex.filled, table.rows)] == [
        ["P7-D2", "2025-03-14T09:00:01", "5.102", "0.912", "< 0.100", "88.1", None],
        ["P7-D3", "2025-03-14T09:02:00", "4.377", None, None, None, "1204"],
    ]
    assert table.lines == [2, 6] and table.units["LDH2B"] == "U/L"
    assert told(table, "Roche Cedex Bio HT (software 6.0.0.1905 (1905))")


def test_bio_of_version_5_has_another_layout():
    lines = (
        bio_line_5("2025-03-14 09:00:01", "P7-D2", "GLC3B", "g/L", "5.102"),
        bio_line_5("2025-03-14 09:00:31", "P7-D2", "PYRB", "mg/L", "< 8.706", "< TEST RNG"),
    )
    table = read(bio(*lines, version="5.0.0.1206"), ".txt")
    assert table.rows == [["P7-D2", "2025-03-14T09:00:01", "5.102", "< 8.706"]]
    assert table.header[2:] == ["Glc [g/L]", "Pyr [mg/L]"]


@pytest.mark.parametrize("version", ["4.2", "8.0.0.1", "", "x"])
def test_another_version_is_refused_by_name(version: str):
    with pytest.raises(DataError, match=re.escape(f"software '{version}' of Roche Cedex Bio HT")):
        read(bio(*ex.BIO_LINES, version=version), ".txt")


@pytest.mark.parametrize(
    ("value", "flag", "cell", "words"),
    [
        ("5.0", "v", "5.0", ("measured after a dilution", "P7")),
        ("5.0", "c", "5.0", ("corrected calibration, which was accepted",)),
        ("5.0", "cv", "5.0", ("measured after a dilution",)),
        ("5.0", "C", None, ("missing", "a calibration that was not accepted")),
        ("5.0", "R", None, ("missing", "not accepted")),
        ("5.0", "vd", None, ("missing", "a deleted result")),
        ("5.0", "p", None, ("missing", "a postponed calibration")),
        ("5.0", "HIGH ACT", None, ("missing", "the flag 'HIGH ACT'")),
        ("5.0", "< TEST RNG ", None, ("missing", "the flag '< TEST RNG'")),
        ("> 7.5", "> TEST RNG", "> 7.5", ()),
        ("< 0.00", "< TEST RNG", None, ("missing", "the limit '< 0.00'")),
        ("ERROR", " ", None, ("missing", "'ERROR'")),
        ("", " ", None, ()),
    ],
)
def test_flags(value: str, flag: str, cell: str | None, words: tuple[str, ...]):
    lines = (
        bio_line("2025-03-14 09:00:01", "P7", "GLC3B", "g/L", value, flag=flag),
        bio_line("2025-03-14 09:00:11", "P7", "LAC2B", "g/L", "1.0"),
    )
    table = read(bio(*lines), ".txt")
    found = column(table, "Glc [g/L]") if "Glc [g/L]" in table.header else [None]
    assert found == [cell]
    assert not words or told(table, "'GLC3B'", *words)


def test_a_test_again_or_later_is_a_row_of_its_own():
    lines = (
        bio_line("2025-03-14 09:00:00", "P7", "GLC3D", "mmol/L", "15.17"),
        bio_line("2025-03-14 09:10:00", "P7", "IGGHD", "g/L", "3.933"),
        bio_line("2025-03-14 09:20:00", "P7", "GLC3D", "mmol/L", "15.43", dilution="1/5     "),
        bio_line("2025-03-14 11:20:00", "P7", "LAC2B", "mmol/L", "9.1"),
        bio_line("2025-03-14 09:05:00", "P7", "GLN2B", "mmol/L", "2.0", batch="B"),
    )
    table = read(bio(*lines, version="7.0.0.2410"), ".txt")
    assert column(table, "Glc [mmol/L]") == ["15.17", "15.43", None, None]
    assert column(table, "Titer [g/L]") == ["3.933", None, None, None]
    assert column(table, "Lac [mmol/L]") == [None, None, "9.1", None]
    assert column(table, "batch") == [None, None, None, "B"], "a batch is not the same sample"
    assert told(table, "measured more than once", "P7") and told(table, "dilutions", "P7 5")


def test_two_units_of_one_name_stand_with_the_cells():
    lines = (
        bio_line("2025-03-14 09:00:00", "A", "LAC2B", "g/L", "0.912"),
        bio_line("2025-03-14 09:00:00", "B", "LAC2D", "mmol/L", "10.1"),
        bio_line("2025-03-14 09:00:00", "C", "LAC2D", "mmol/L", "< 0.44", flag="< TEST RNG"),
        bio_line("2025-03-14 09:00:00", "D", "GLN2B", "mM", "2.2"),
        bio_line("2025-03-14 09:00:00", "E", "GLN2B", "mmol/l", "2.3"),
    )
    table = read(bio(*lines), ".txt")
    assert column(table, "Lac [g/L]")[:3] == ["0.912", "10.1 mmol/L", "< 0.44 mmol/L"]
    assert column(table, "Gln [mM]")[3:] == ["2.2", "2.3"], "one unit in two spellings"


def test_ammonia_by_mass_keeps_the_name_of_its_test():
    table = read(bio(bio_line("2025-03-14 09:00:00", "A", "NH3B", "mg/L", "36.1")), ".txt")
    assert column(table, "NH3B") == ["36.1"] and table.units["NH3B"] == "mg/L"
    assert told(table, "'NH3B' in mg/L keeps its label")


def test_lines_twice_and_lines_of_no_sample_are_told():
    control = bio_line("2025-03-14 08:00:00", "QC1", "GLC3B", "g/L", "1.0", role="QC")
    table = read(bio(*ex.BIO_LINES, ex.BIO_LINES[0], control), ".txt")
    assert len(table.rows) == 2
    assert told(table, "1 lines repeat another") and told(table, "role 'QC'")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("41" + ex.BIO_LINES[0][2:], "line 2 is no result: it begins with '41'"),
        ("\t".join(ex.BIO_LINES[0].split("\t")[:9]), "line 2 is no result"),
        (ex.BIO_LINES[0].replace("5.102", "5.1x2"), "line 2: 'GLC3B' is"),
        (ex.BIO_LINES[0].replace("GLC3B", ""), "line 2 names no test"),
        (ex.BIO_LINES[0].replace("P7-D2", ""), "line 2 names no sample"),
        (ex.BIO_LINES[0].replace("2025-03-14", "soon"), "the time 'soon 09:00:01'"),
        (ex.BIO_LINES[0].replace("g/L", "mmHg"), ""),
        (ex.BIO_LINES[0].replace("g/L", "U/L"), "'GLC3B' is in 'U/L'"),
        (ex.BIO_LINES[0].replace("g/L", ""), "'GLC3B' of sample 'P7-D2' (line 2) states no unit"),
    ],
)
def test_lines_that_cannot_be_read(line: str, message: str):
    content = bio(line, *ex.BIO_LINES[1:])
    if not message:  # a unit, but none of glucose
        assert column(read(content, ".txt"), "GLC3B")[0] == "5.102"
        return
    with pytest.raises(DataError, match=re.escape(message)):
        read(content, ".txt")


def test_a_half_written_line_is_held_back():
    content = ex.BIO[: ex.BIO.rindex(b"1204") + 2]
    table = read(content, ".txt")
    assert "Titer [mg/L]" not in table.header and table.held_back == 7
    assert told(table, "line 7 has no line end")


def test_the_archive_as_a_workbook():
    rows = [line.split("\t") for line in ex.BIO.decode().splitlines()]
    table = read(ex.xlsx(*rows), ".xlsx")
    assert table.rows == [*map(ex.filled, read(ex.BIO, ".txt").rows)]
