"""Dates without a time and names all but alike are pointed out, whoever reads the file."""

import datetime as dt

import openpyxl
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors import read_campaign
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.tables.cell_doubts import bare_dates, look_alikes
from perfusio_jax.connectors.tables.file_rules import FileRules

START = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
RULES = FileRules(time_zone="UTC", inoculated_at=START)


def told(path, rules=RULES):
    """Notes of both readers, which have to agree on what they say of the file."""
    campaign = read_campaign(path, rules=rules, unknown="ignore").report.notes
    return source(path, rules).inspect().notes, campaign


def test_a_date_among_time_stamps_is_told_to_be_read_as_midnight(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sampled_at,VCD\n2026-03-01 09:00,1\n2026-03-02,2\n2026-03-03 09:00,3\n")
    for notes in told(path):
        assert any("in 1 of 3 rows (first line 3), which is read as midnight" in n for n in notes)


def test_a_missing_time_of_the_day_is_told(tmp_path):
    book = openpyxl.Workbook()
    rows = [["Datum", "Uhrzeit", "VCD"], [dt.date(2026, 3, 1), dt.time(9), 1.0]]
    rows += [[dt.date(2026, 3, day), dt.time(9), 1.0] for day in range(2, 7)]
    for row in [*rows, [dt.date(2026, 3, 7), None, 2.0]]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    (tmp_path / "m.toml").write_text(
        '[columns]\nDatum = "sampled_at"\nUhrzeit = "time_of_day"\n[reading]\ntime_zone = "UTC"\n'
        "inoculated_at = 2026-03-01T09:00:00\n"
    )
    for notes in told(tmp_path / "a.xlsx", FileRules.of(tmp_path / "m.toml")):
        assert any("in 1 of 7 rows (first line 8)" in n for n in notes), notes


@pytest.mark.parametrize(
    ("cells", "n"),
    [
        (["2026-03-01 00:00", "2026-03-01 08:00", "2026-03-01 16:00"], 0),  # shifts
        (["2026-03-01 09:00", "2026-03-02 12:00 AM"], 0),
        (["3/1/2026 12:30 AM", "3/2/2026 9:00 AM"], 0),
        (["2026-03-01", "2026-03-02"], 2),
        (["2026-03-01T00:00:00", "2026-03-02T00:00:00"], 2),
        ([dt.datetime(2026, 3, day, 9 * (day != 4)) for day in range(1, 8)], 1),
        ([dt.datetime(2026, 3, 1, 6 * hour) for hour in range(4)] * 3, 0),
        (["dd.mm.yyyy", "01.03.2026 10:00", "", None], 0),  # a row of units, empty cells
    ],
)
def test_what_is_a_date_alone(cells, n):
    odd = bare_dates(cells, list(range(2, 2 + len(cells))))
    assert odd.startswith(f"sampled_at is a date without a time of the day in {n} of") == bool(n)
    assert bool(odd) == bool(n)


def test_reactors_named_1_and_01_are_pointed_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("reactor_id,day,VCD\n01,0,1\n01,1,2\n1,2,3\n1.0,3,4\nR 2,0,1\nr2,1,2\n")
    for notes in told(path, FileRules()):
        assert any(
            "'01', '1', '1.0' are 3 names under reactor_id: are they one?" in n for n in notes
        )
        assert any("'R 2', 'r2' are 2 names" in n for n in notes)


@pytest.mark.parametrize(
    "names", [["R1", "R10", "R100"], ["A", "B"], ["1.1", "1.10", "11"], ["0", "00x"]]
)
def test_names_that_are_not_alike(names):
    assert look_alikes("run_id", names) == []


@pytest.mark.parametrize("cell", ["46082.375", "46082"])
def test_days_of_a_spreadsheet_are_answered_with_the_option(tmp_path, cell):
    path = tmp_path / "a.csv"
    path.write_text(f"sampled_at,VCD\n{cell},1\n46083.5,2\n")
    for read in (lambda: read_campaign(path, rules=RULES), lambda: source(path, RULES).inspect()):
        with pytest.raises(DataError, match="line 2 .*--date-format excel"):
            read()


def _book(path, *, hidden_row=None, hidden_columns=(), hidden_sheet=False):
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["Note"], ["run_id", "day", "VCD", "Glc"], ["A", 0, 1, 5], ["A", 1, 2, 4]):
        sheet.append(row)
    for letter in hidden_columns:
        sheet.column_dimensions[letter].hidden = True
    if hidden_row:
        sheet.row_dimensions[hidden_row].hidden = True
    if hidden_sheet:
        book.create_sheet("shown").append(["nothing here"])
        sheet.title, sheet.sheet_state, book.active = "old", "hidden", 1
    book.save(path)
    return path


def test_what_is_hidden_in_a_sheet_is_read_and_told(tmp_path):
    path = _book(tmp_path / "a.xlsx", hidden_row=4, hidden_columns="CD")
    for notes in told(path, FileRules()):
        assert any("hidden in the sheet are read: 'VCD', 'Glc'" in n for n in notes), notes
        assert any("1 row(s) that are hidden in the sheet are read (first 4)" in n for n in notes)
    (run,) = read_campaign(path).trajectories
    assert run.n_days == 2
    for notes in told(_book(tmp_path / "b.xlsx"), FileRules()):
        assert not any("hidden" in n for n in notes)
    path = _book(tmp_path / "c.xlsx", hidden_row=1)  # above the table
    for notes in told(path, FileRules()):
        assert not any("hidden" in n for n in notes)


@pytest.mark.parametrize("sheet", ["old", "*"])
def test_a_hidden_sheet_that_is_read_is_told(tmp_path, sheet):
    path = _book(tmp_path / "a.xlsx", hidden_sheet=True)
    report = read_campaign(path, rules=FileRules(sheet=sheet)).report
    assert "sheet 'old' is hidden in the workbook, and read" in str(report)


@pytest.mark.parametrize(
    ("year", "is_told"),
    [(2025, True), (2026, False)],
)
def test_a_run_sampled_long_after_its_start_is_pointed_out(tmp_path, year, is_told):
    path = tmp_path / "a.csv"
    path.write_text("run_id,sampled_at,VCD\nA,2026-03-01 09:00,1\nA,2026-03-02 09:00,2\n")
    rules = FileRules(time_zone="UTC", inoculated_at={"A": START.replace(year=year)})
    says = "run A: its first sample is 365 days after the inoculation"
    assert any(says in n for n in told(path, rules)[1]) == is_told
    assert any(says in n for n in source(path, rules).inspect().doubts) == is_told


@pytest.mark.parametrize(
    "stamp",
    [
        "Mo, 02.03.2026 09:00",
        "Mo 02.03.2026 09:00",
        "lundi 2 mars 2026 09:00",
        "Mon, 2 Mar 2026 09:00",
    ],
)
def test_a_weekday_before_a_date_says_nothing_more(tmp_path, stamp):
    path = tmp_path / "a.csv"
    path.write_text(f'run_id;sampled_at;VCD\nA;"{stamp}";1\n')
    rules = FileRules(time_zone="UTC", inoculated_at={"A": START})
    (run,) = read_campaign(path, rules=rules).trajectories
    assert run.times_h.tolist() == [24.0]


@pytest.mark.parametrize("stamp", ["02.03.26 09:00", "X 02.03.2026 09:00", "yesterday"])
def test_a_stamp_of_another_form_is_answered_with_the_option(tmp_path, stamp):
    path = tmp_path / "a.csv"
    path.write_text(f"run_id;sampled_at;VCD\nA;{stamp};1\n")
    rules = FileRules(time_zone="UTC", inoculated_at={"A": START})
    with pytest.raises(DataError, match="in line 2 .*--date-format"):
        read_campaign(path, rules=rules)
    with pytest.raises(DataError, match="in line 2 .*--date-format"):
        source(path, rules).inspect()
