"""Samples from files in every dialect, growing, odd and broken."""

import asyncio
import datetime as dt
import os
import threading

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import (
    BioreactorConnector,
    ConfigError,
    ConnectorError,
    DataError,
    UnitError,
)
from perfusio_jax.connectors.base import SampleNotReady, SampleRecord
from perfusio_jax.connectors.files import source_file as module
from perfusio_jax.connectors.files.filesystem import FilesystemStore

PLAIN = "day,VCD,Via,Glc\n1,2.3,98.1,4.8\n2,3.5,97.9,\n3,5.0,97.5,4.1\n"


def write(folder, text: str | bytes, name: str = "samples.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def store(folder, text: str | bytes, name: str = "samples.csv", **settings) -> FilesystemStore:
    return FilesystemStore(write(folder, text, name), **settings)


def sample(store: FilesystemStore, day: int) -> dict[str, float | None]:
    return asyncio.run(store.read_sample(day))


def record(store: FilesystemStore, day: int) -> SampleRecord:
    return asyncio.run(store.read_record(day))


def days(store: FilesystemStore) -> list[int]:
    return asyncio.run(store.days_available())


def test_a_plain_file_is_read_and_missing_is_none(tmp_path):
    plain = store(tmp_path, PLAIN)
    assert isinstance(plain, BioreactorConnector)
    assert asyncio.run(plain.is_alive())
    assert sample(plain, 1) == {"VCD": 2.3, "Via": 98.1, "Glc": 4.8}
    assert sample(plain, 2) == {"VCD": 3.5, "Via": 97.9, "Glc": None}
    assert days(plain) == [1, 2, 3]
    assert record(plain, 2).quality == {"VCD": "good", "Via": "good", "Glc": "missing"}
    assert plain.report().notes == ()


@pytest.mark.parametrize(
    ("text", "separator", "decimal"),
    [
        (PLAIN, "comma", "point"),
        (PLAIN.replace(",", ";"), "semicolon", "point"),
        (PLAIN.replace(",", "\t"), "tab", "point"),
        (PLAIN.replace(",", "|"), "bar", "point"),
        (PLAIN.replace(",", ";").replace(".", ","), "semicolon", "comma"),
        (PLAIN.replace(",", "\t").replace(".", ","), "tab", "comma"),
        ("\ufeff" + PLAIN, "comma", "point"),
        (PLAIN.replace("\n", "\r\n"), "comma", "point"),
        (PLAIN.replace("\n", "\n\n"), "comma", "point"),
        ("\n\n" + PLAIN, "comma", "point"),
        (PLAIN.encode("utf-16"), "comma", "point"),
        (PLAIN.replace("VCD", " vcd ").replace("Via", '"VIA"'), "comma", "point"),
        ("day,VCD,Via,Glc\n1,2.3,98.1,4.8\n2,3.5,97.9,NA\n3,5,97.5,4.1e0\n", "comma", "point"),
    ],
)
def test_dialects_give_the_same_samples(tmp_path, text, separator, decimal):
    dialect = store(tmp_path, text)
    assert sample(dialect, 1) == {"VCD": 2.3, "Via": 98.1, "Glc": 4.8}
    assert sample(dialect, 2) == {"VCD": 3.5, "Via": 97.9, "Glc": None}
    assert sample(dialect, 3) == {"VCD": 5.0, "Via": 97.5, "Glc": 4.1}
    assert dialect.report().separator == separator
    assert dialect.report().decimal == decimal


def test_parquet_and_excel_give_the_same_samples(tmp_path):
    columns = {"day": [1, 2], "VCD": [2.3, 3.5], "Glc": [4.8, None]}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    book = openpyxl.Workbook()
    for row in (list(columns), *zip(*columns.values(), strict=True), [None] * 3):
        book.active.append(row)
    book.create_sheet("Other").append(["nothing"])
    book.save(tmp_path / "s.xlsx")
    for name in ("s.parquet", "s.xlsx"):
        file = FilesystemStore(tmp_path / name)
        assert sample(file, 1) == {"VCD": 2.3, "Glc": 4.8}
        assert sample(file, 2) == {"VCD": 3.5, "Glc": None}
        assert days(file) == [1, 2]
    assert "there are others: Other" in file.report().notes[0]
    with pytest.raises(DataError, match="no sheet 'Third'; it has Sheet, Other"):
        sample(FilesystemStore(tmp_path / "s.xlsx", sheet="Third"), 1)


def test_units_of_a_row_a_header_parquet_metadata_and_a_sidecar_are_converted(tmp_path):
    row = store(tmp_path, "day,Glc,Lac\nd,mg/dL,g/L\n1,450,0.9008\n")
    assert sample(row, 1)["Glc"] == pytest.approx(4.5)
    assert sample(row, 1)["Lac"] == pytest.approx(10.0)
    assert "line 2 was read as a row of units" in row.report().notes
    head = store(tmp_path, "time_h,Glc [mmol/L],VCD (cells/mL)\n24,25,1.2e7\n", "head.csv")
    assert sample(head, 1)["Glc"] == pytest.approx(25 * 0.180156)
    assert sample(head, 1)["VCD"] == pytest.approx(12.0)
    schema = pa.schema(
        [("day", pa.int64()), pa.field("Glc", pa.float64(), metadata={"unit": "g/dL"})]
    )
    pq.write_table(pa.table({"day": [1], "Glc": [0.5]}, schema=schema), tmp_path / "p.parquet")
    assert sample(FilesystemStore(tmp_path / "p.parquet"), 1)["Glc"] == pytest.approx(5.0)
    side = store(tmp_path, "day,Titer\n1,1.5\n", "side.csv")
    write(tmp_path, '[units]\nTiter = "g/L"\n', "side.units.toml")
    assert sample(side, 1)["Titer"] == pytest.approx(1500.0)
    temperature = store(tmp_path, "day,Glc,temperature\n,g/L,kelvin\n1,5,309.65\n", "t.csv")
    assert record(temperature, 1).controls["temperature"] == pytest.approx(36.5)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("day,Glc\nd,parsec\n1,5\n", UnitError, "Glc.*parsec"),
        ("day,Glc [rpm]\n1,5\n", UnitError, "Glc.*rpm"),
        ("day,Glc [mg/L]\nd,g/L\n1,5\n", DataError, "by its header.*by the units row"),
        ("VCD,Glc\n1,5\n", DataError, "no column 'day' or 'time_h'"),
        ("nonsense\n1\n", DataError, "no column 'day' or 'time_h' among 'nonsense'"),
        ("day,foo\n1,5\n", DataError, "none of its columns is a measurement"),
        ("day,Glc,VCD,Glc\n1,5,1,5\n", DataError, r"Glc occurs more than once.*column 2.*column 4"),
        ("day,Glc [g/L],glc\n1,5,5\n", DataError, "Glc occurs more than once"),
        (
            "day,Glc\n1,5,7\n",
            DataError,
            "line 2 has 3 fields where.* has 2.*decimal comma",
        ),
        ("day,Glc,VCD\n1,5,7\n2,5\n3,5,7\n", DataError, "line 3 has 2 fields.*cut off"),
        ("day,Glc\nx,5\n2,5\n", DataError, "day is 'x' in line 2"),
        ("day,Glc\n1,5\n,5\n", DataError, "day is '' in line 3"),
        ("day,Glc\n-1,5\n", DataError, "day is '-1' in line 2"),
        ("day;Glc\n1;5,1\n2;5.2\n", DataError, "both '5,1' in line 2 and '5.2' in line 3"),
        ('day,Glc\n1,"5,1"\n', DataError, "decimal or a thousands mark"),
        ("day,time_h,Glc\n1,96,5\n", DataError, "not the same day"),
        ("day,Glc\n1,high\n2,low\n", DataError, "nothing in column 'Glc' can be read.*'high'"),
        ("day,species,value\n1,Glc,5\n", DataError, "long format; say wide_format=False"),
        ("day,Glc\n1,5\x00\n", DataError, "zero bytes"),
        ("day,quality,Glc\n1,excellent,5\n", DataError, "quality is 'excellent'"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(tmp_path, text, error, words):
    file = store(tmp_path, text)
    with pytest.raises(error, match=f"samples.csv: .*{words}"):
        sample(file, 1)
    with pytest.raises(error, match=words):
        file.inspect()


@pytest.mark.parametrize("name", ["s.parquet", "s.xlsx", "s.json", "s"])
def test_files_of_another_kind_than_their_name_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        sample(store(tmp_path, "day,Glc\n1,5\n", name), 1)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("day,VC", "there is no header yet"),
        ("day,VCD\n", "there is a header and no row yet"),
        ("day,VCD\n1,2.", "there is a header and no row yet"),
        ("day,VCD\nd,1e6 cells/mL\n", "there is a header and no row yet"),
    ],
)
def test_nothing_there_yet_can_be_polled_and_inspect_says_so(tmp_path, text, note):
    file = store(tmp_path, text)
    with pytest.raises(SampleNotReady, match="no row for day 1 yet"):
        sample(file, 1)
    assert days(file) == []
    assert note in file.inspect().notes
    assert asyncio.run(file.is_alive())


def test_a_file_that_is_not_there_is_an_error_not_a_wait(tmp_path):
    file = FilesystemStore(tmp_path / "no.csv")
    assert not asyncio.run(file.is_alive())
    with pytest.raises(ConnectorError, match=r"no.csv is not there") as caught:
        sample(file, 1)
    assert not isinstance(caught.value, SampleNotReady)


def test_a_growing_file_is_read_as_it_grows_and_never_half(tmp_path):
    """Written byte by byte, a sample appears when its line is complete, not before."""
    path = write(tmp_path, "")
    file = FilesystemStore(path)
    text = PLAIN.replace("4.1", "4.125")
    for n in range(1, len(text) + 1):
        path.write_text(text[:n])
        complete = max(text[:n].count("\n") - 1, 0)
        assert days(file) == list(range(1, complete + 1))
        if complete < 3:
            with pytest.raises(SampleNotReady):
                sample(file, complete + 1)
    assert sample(file, 3)["Glc"] == 4.125


def test_a_row_waiting_for_its_line_end_is_named_and_can_be_allowed(tmp_path):
    file = store(tmp_path, PLAIN.rstrip("\n"))
    with pytest.raises(SampleNotReady, match="line 4 has no line end"):
        sample(file, 3)
    assert file.report().held_back == 4
    allowed = FilesystemStore(file.source_path, allow_unterminated=True)
    assert sample(allowed, 3)["VCD"] == 5.0


def test_a_character_half_written_does_not_change_how_the_rest_is_read(tmp_path):
    whole = "day,VCD,Diam [µm]\n1,2,14\n2,3,µ".encode()
    file = store(tmp_path, whole[:-1])
    assert sample(file, 1) == {"VCD": 2.0, "Diam": 14.0}
    latin = store(tmp_path, "day,Diam [µm]\n1,14\n".encode("cp1252"), "latin.csv")
    assert sample(latin, 1) == {"Diam": 14.0}
    assert "Windows-1252" in latin.report().notes[0]


def test_rows_that_are_late_or_unordered_are_found(tmp_path):
    file = store(tmp_path, "day,VCD\n3,5\n1,2\n2,3\n")
    assert [sample(file, day)["VCD"] for day in (1, 2, 3)] == [2.0, 3.0, 5.0]
    assert any("2 rows are not in order" in note for note in file.report().notes)
    with file.source_path.open("a") as more:
        more.write("5,9\n4,7\n")
    assert sample(file, 4)["VCD"] == 7.0
    assert [r.day for r in asyncio.run(file.read_history())] == [1, 2, 3, 4, 5]


def test_identical_rows_are_tolerated_and_gaps_filled(tmp_path):
    file = store(tmp_path, "day,VCD,Titer\n1,2,\n1,2,\n1,,150\n2,3,\n")
    assert sample(file, 1) == {"VCD": 2.0, "Titer": 150.0}
    assert file.report().n_duplicates == 1
    assert any("line 3 repeats the row of day 1" in note for note in file.report().notes)


def test_conflicting_rows_refuse_their_day_and_no_other(tmp_path):
    text = "day,VCD\n1,2\n2,3\n2,4\n3,5\n"
    file = store(tmp_path, text)
    with pytest.raises(DataError, match="VCD of day 2 is 3 in line 3 and 4 in line 4"):
        sample(file, 2)
    assert (sample(file, 1)["VCD"], sample(file, 3)["VCD"]) == (2.0, 5.0)
    assert file.report().n_conflicts == 1
    last = FilesystemStore(file.source_path, on_conflict="last")
    assert sample(last, 2)["VCD"] == 4.0
    assert last.report().n_corrected == 1
    assert "the later row counts" in last.report().notes[0]
    assert "3 in line 3" in record(last, 2).notes[0]


def test_a_row_rewritten_in_place_is_served_anew_and_noted(tmp_path):
    file = store(tmp_path, PLAIN)
    assert sample(file, 1)["VCD"] == 2.3
    file.source_path.write_text(PLAIN.replace("2.3", "2.4"))
    changed = record(file, 1)
    assert changed.values["VCD"] == 2.4
    assert "changed since it was first read" in changed.notes[0]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("-0.1", "is negative"),
        ("inf", "is infinite"),
        ("1e999", "is infinite"),
        ("error", "is 'error', not a number"),
        (">0.5", "is '>0.5', above what the assay reads"),
        ("1_000", "is '1_000', not a number"),
    ],
)
def test_values_that_cannot_be_are_missing_bad_and_reported(tmp_path, cell, problem):
    file = store(tmp_path, f"day,VCD,Glc\n1,2,5\n2,3,{cell}\n")
    odd = record(file, 2)
    assert odd.values == {"VCD": 3.0, "Glc": None}
    assert odd.quality == {"VCD": "good", "Glc": "bad"}
    # a limit says less than a reading, and nothing that is wrong
    assert odd.worst_quality == ("uncertain" if cell.startswith(">") else "bad")
    assert "Glc of day 2 (line 3)" in odd.notes[0] and problem in odd.notes[0]
    glc = next(c for c in file.report().columns if c.name == "Glc")
    n_above = int(cell.startswith(">"))  # a limit that is known is no cell that cannot be used
    assert (glc.n_values, glc.n_missing, glc.n_unusable) == (1, 0, 1 - n_above)
    assert glc.n_above == n_above


def test_viability_above_100_is_bad_and_negative_pressure_is_not(tmp_path):
    file = store(tmp_path, "day,Via,TMP\n1,101,-3\n2,100,4\n")
    assert record(file, 1).values == {"Via": None}
    assert record(file, 1).tags == {"TMP": -3.0}
    assert sample(file, 2) == {"Via": 100.0}


def test_unknown_columns_are_listed_with_a_suggestion_and_never_dropped_in_silence(tmp_path):
    file = store(tmp_path, "day,VCD,Glcose,Operator,Amm\n1,2,5,Ada,\n2,3,5,Bob,\n")
    sample(file, 1)
    report = file.report()
    assert report.unknown == ("Glcose", "Operator")
    remarks = {column.label: column.remark for column in report.columns}
    assert "Did you mean 'Glc'" in remarks["Glcose"]
    assert "column map" in remarks["Operator"]
    assert report.empty == ("Amm",)
    text = report.text()
    for label in ("day", "VCD", "Glcose", "Operator", "no value in any row"):
        assert label in text


def test_a_column_map_names_columns_and_units(tmp_path):
    text = "Day of culture;Zelldichte;Glukose;Bemerkung\n1;2,3;25;gut\n"
    columns = {
        "Day of culture": "day",
        "Zelldichte": "VCD",
        "Glukose": {"name": "Glc", "unit": "mmol/L"},
        "Bemerkung": "ignore",
    }
    file = store(tmp_path, text, column_map=columns)
    assert sample(file, 1) == {"VCD": 2.3, "Glc": pytest.approx(25 * 0.180156)}
    assert file.report().unknown == ()
    toml = write(
        tmp_path,
        '[columns]\n"Day of culture" = "day"\nZelldichte = "VCD"\nBemerkung = "ignore"\n'
        'Glukose = {name = "Glc", unit = "mmol/L"}\n',
        "map.toml",
    )
    assert sample(FilesystemStore(file.source_path, column_map=toml), 1) == sample(file, 1)


@pytest.mark.parametrize(
    ("column_map", "words"),
    [
        ({"a": "Glcose"}, "Did you mean 'Glc'"),
        ({"a": 3}, "'a' is 3"),
        ({"a": {"nme": "Glc"}}, "'a' is"),
    ],
)
def test_a_column_map_that_means_nothing_is_refused(tmp_path, column_map, words):
    with pytest.raises(ConfigError, match=words):
        store(tmp_path, PLAIN, column_map=column_map)


@pytest.mark.parametrize("text", ["not toml [", "a = 1\n"])
def test_a_column_map_file_that_cannot_be_read_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="column map"):
        store(tmp_path, PLAIN, column_map=write(tmp_path, text, "map.toml"))


def test_long_format(tmp_path):
    text = (
        "day,species,value,unit\n1,VCD,2.3,\n1,Glc,450,mg/dL\n2,VCD,3.1,\n1,Titer,,\n"
        "1,VCD,2.3,\n1,Magic,7,\n"
    )
    file = store(tmp_path, text, wide_format=False)
    assert sample(file, 1) == {"VCD": 2.3, "Glc": pytest.approx(4.5), "Titer": None}
    assert sample(file, 2) == {"VCD": 3.1, "Glc": None, "Titer": None}
    notes = " ".join(file.report().notes)
    assert "unknown species 'Magic'" in " ".join(file.report().doubts)
    assert "line 6 repeats VCD of day 1" in notes
    assert file.report().n_rows == 6
    with pytest.raises(DataError, match="long format needs"):
        sample(store(tmp_path, PLAIN, "wide.csv", wide_format=False), 1)


def test_several_reactors_or_runs_in_one_file_must_be_told_apart(tmp_path):
    text = "run_id,reactor_id,day,VCD\nA,R1,1,2\nA,R2,1,3\nB,R1,1,4\n"
    with pytest.raises(DataError, match=r"several values of run_id \(A, B\)"):
        sample(store(tmp_path, text), 1)
    with pytest.raises(DataError, match=r"several values of reactor_id \(R1, R2\)"):
        sample(store(tmp_path, text, run_id="A"), 1)
    both = store(tmp_path, text, run_id="A", reactor_id="R2")
    assert sample(both, 1) == {"VCD": 3.0}
    assert record(both, 1).reactor_id == "R2"
    with pytest.raises(SampleNotReady):
        sample(store(tmp_path, text, run_id="A", reactor_id="R9"), 1)
    # A file without such a column is all of the reactor it is read for.
    named = store(tmp_path, PLAIN, "plain.csv", reactor_id="R7")
    assert record(named, 1).reactor_id == "R7"


def test_time_in_hours_counts_for_the_nearest_day(tmp_path):
    file = store(tmp_path, "time_h,VCD\n0,1\n23.5,2\n25,2.5\n36,9\n47,3\n")
    assert days(file) == [0, 1, 2]
    assert sample(file, 0)["VCD"] == 1.0
    near = record(file, 1)
    assert (near.time_h, near.values["VCD"]) == (23.5, 2.0)
    assert "there is also 25 h" in near.notes[0]
    assert sample(file, 2)["VCD"] == 3.0


def test_a_record_carries_totals_controls_tags_volume_and_age(tmp_path):
    text = (
        "day,sampled_at,VCD,VCD_quality,Glc,V_perfusion_L,perfusion_rate,pH,volume_L\n"
        "1,2026-05-06T08:00:00+02:00,5,uncertain,4,0.25,1.1,7.0,0.25\n"
        "2,2026-05-07T08:00:00+02:00,5,bad,4,0.25,1.1,7.0,0.25\n"
    )
    now = dt.datetime(2026, 5, 6, 9, tzinfo=dt.UTC)
    file = store(tmp_path, text, clock=lambda: now)
    first = record(file, 1)
    assert first.stream_totals == {"V_perfusion_L": 0.25}
    assert first.controls == {"perfusion_rate": 1.1}
    assert first.tags == {"pH": 7.0}
    assert (first.volume_L, first.age_h) == (0.25, pytest.approx(3.0))
    assert first.quality["VCD"] == "uncertain" and first.worst_quality == "uncertain"
    second = record(file, 2)
    assert second.values["VCD"] is None and second.quality["VCD"] == "bad"
    assert second.age_h == pytest.approx(-21.0)  # the gate sees that it lies in the future


def test_without_a_time_stamp_the_newest_row_is_as_old_as_the_file(tmp_path):
    file = store(tmp_path, PLAIN)
    changed = file.source_path.stat().st_mtime
    later = dt.datetime.fromtimestamp(changed, dt.UTC) + dt.timedelta(hours=5)
    file = FilesystemStore(file.source_path, clock=lambda: later)
    assert record(file, 3).age_h == pytest.approx(5.0)
    assert record(file, 1).age_h is None


@pytest.mark.parametrize(("stamp", "words"), [("noon", "a time such as"), ("2026-05-06", "zone")])
def test_time_stamps_that_say_too_little_are_refused(tmp_path, stamp, words):
    with pytest.raises(DataError, match=words):
        sample(store(tmp_path, f"day,sampled_at,VCD\n1,{stamp},5\n"), 1)


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    calls = []
    real = module.read_bytes
    monkeypatch.setattr(module, "read_bytes", lambda path: calls.append(path) or real(path))
    file = store(tmp_path, PLAIN)
    os.utime(file.source_path, ns=(2, 2))
    for day in (1, 2, 3, 1):
        sample(file, day)
    assert len(calls) == 1
    os.utime(file.source_path, ns=(1, 1))
    sample(file, 1)
    assert len(calls) == 2


def test_a_change_within_the_grain_of_the_clock_is_seen(tmp_path):
    """Same size, same time stamp, other content: as on a drive with coarse time stamps."""
    file = store(tmp_path, PLAIN)
    mark = file.source_path.stat().st_mtime_ns
    assert sample(file, 1)["VCD"] == 2.3
    with file.source_path.open("r+") as same:  # in place: the same inode
        same.write(PLAIN.replace("2.3", "2.4"))
    os.utime(file.source_path, ns=(mark, mark))
    assert sample(file, 1)["VCD"] == 2.4


def test_a_sidecar_that_is_corrected_counts_at_once(tmp_path):
    file = store(tmp_path, "day,Titer\n1,1.5\n")
    os.utime(file.source_path, ns=(1, 1))  # long unchanged, so that it is not read again
    assert sample(file, 1)["Titer"] == 1.5
    sidecar = write(tmp_path, '[units]\nTiter = "g/L"\n', "samples.units.toml")
    os.utime(sidecar, ns=(1, 1))
    assert sample(file, 1)["Titer"] == 1500.0
    write(tmp_path, "[units\n", "samples.units.toml")
    with pytest.raises(DataError, match="its sidecar samples.units.toml cannot be read"):
        sample(file, 1)


def test_a_drive_that_hangs_is_an_error_after_the_time_out(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(module, "read_bytes", lambda path: release.wait())
    file = store(tmp_path, PLAIN, timeout_s=0.05)

    async def main():
        ticks = 0
        task = asyncio.create_task(file.read_sample(1))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0)
        release.set()
        assert ticks > 10  # the loop went on while the drive hung
        with pytest.raises(ConnectorError, match="did not answer within 0.05 s"):
            await task

    asyncio.run(main())


@pytest.mark.parametrize(
    "settings",
    [
        {"on_conflict": "first"},
        {"decimal": ";"},
        {"day_tolerance_h": 13.0},
        {"timeout_s": 0.0},
        {"setpoint_log": "samples.csv"},
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        FilesystemStore("samples.csv", **settings)


VALUE = st.one_of(st.none(), st.floats(min_value=0.0, max_value=1e4, allow_subnormal=False))


@given(
    table=st.dictionaries(st.integers(0, 60), st.tuples(VALUE, VALUE), min_size=1, max_size=8),
    separator=st.sampled_from([";", "\t"]),
    comma=st.booleans(),
    seed=st.randoms(use_true_random=False),
)
def test_what_is_written_in_any_dialect_and_order_is_read_back(
    tmp_path_factory, table, separator, comma, seed
):
    rows = list(table.items())
    seed.shuffle(rows)
    cells = [[str(d), *("" if v is None else repr(v) for v in values)] for d, values in rows]
    text = "".join(separator.join(row) + "\n" for row in [["day", "VCD", "Titer"], *cells])
    if comma:
        text = text.replace(".", ",")
    # Said, because `1,125` alone could be thousands.
    file = store(tmp_path_factory.mktemp("table"), text, decimal="," if comma else ".")
    assert days(file) == sorted(table)
    for day, values in table.items():
        assert tuple(sample(file, day).values()) == values


# ---------------------------------------------------------------- files in the making


def test_a_quoted_field_still_open_is_waited_for(tmp_path):
    """A comment of two lines, written in two goes."""
    text = 'day,VCD,comment\n1,2,"fine"\n2,3,"first line\n'
    columns = {"comment": "ignore"}
    file = store(tmp_path, text, column_map=columns)
    assert days(file) == [1]
    with pytest.raises(SampleNotReady, match="line 3 has no line end|line 3"):
        sample(file, 2)
    assert file.report().held_back == 3
    with file.source_path.open("a") as more:
        more.write('second line"\n3,4,5" probe\n')
    assert days(file) == [1, 2, 3]  # a lone inch mark opens nothing


@pytest.mark.parametrize("kind", ["parquet", "xlsx"])
def test_a_binary_file_half_written_is_waited_for_at_every_byte(tmp_path, kind):
    path = tmp_path / f"s.{kind}"
    table = pd.DataFrame({"day": [1, 2], "VCD": [2.0, 3.0]})
    table.to_parquet(path) if kind == "parquet" else table.to_excel(path, index=False)
    whole = path.read_bytes()
    file = FilesystemStore(path)
    step = max(len(whole) // 40, 1)
    for n in [0, *range(4, len(whole) - 22, step)]:
        path.write_bytes(whole[:n])
        with pytest.raises(SampleNotReady):
            sample(file, 1)
    assert "breaks off after" in file.report().notes[0]
    path.write_bytes(whole)
    assert sample(file, 2) == {"VCD": 3.0}


def test_a_file_rewritten_from_the_start_is_read_whole_again(tmp_path):
    """Truncated, then written anew in pieces: what is gone is waited for, nothing is made up."""
    file = store(tmp_path, PLAIN)
    assert days(file) == [1, 2, 3]
    longer = PLAIN + "4,6,97,4\n"
    for n in range(0, len(longer) + 1, 3):
        file.source_path.write_text(longer[:n])
        assert days(file) == list(range(1, max(longer[:n].count("\n") - 1, 0) + 1))
    file.source_path.write_text(longer)
    assert [r.values["VCD"] for r in asyncio.run(file.read_history())] == [2.3, 3.5, 5.0, 6.0]


def test_a_file_replaced_at_once_is_read_anew(tmp_path):
    file = store(tmp_path, PLAIN)
    assert sample(file, 1)["VCD"] == 2.3
    other = write(tmp_path, PLAIN.replace("2.3", "9.9"), "new.csv")
    os.utime(other, ns=(1, 1))  # older than the one it replaces
    os.replace(other, file.source_path)
    assert sample(file, 1)["VCD"] == 9.9


# ---------------------------------------------------------------- time stamps


def test_stamps_without_a_zone_take_the_one_given(tmp_path):
    text = "day,sampled_at,VCD\n1,2026-10-25 02:30,5\n2,2026-10-26 08:00,5\n3,,5\n"
    now = dt.datetime(2026, 10, 26, 8, tzinfo=dt.UTC)
    file = store(tmp_path, text, time_zone="Europe/Berlin", clock=lambda: now)
    first, second, third = (record(file, day) for day in (1, 2, 3))
    assert second.source_times["VCD"] == dt.datetime(2026, 10, 26, 7, tzinfo=dt.UTC)
    assert second.ages_h["VCD"] == second.age_h == 1.0
    # The hour that occurs twice: the first is meant, and said so.
    assert first.source_times["VCD"] == dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC)
    assert "occurs twice" in first.notes[0]
    assert third.source_times == {} and third.read_at == now
    skipped = store(tmp_path, "day,sampled_at,VCD\n1,2026-03-29 02:30,5\n", "s.csv",
                    time_zone="Europe/Berlin")  # fmt: skip
    with pytest.raises(DataError, match="line 2 is '2026-03-29 02:30', an hour that summer time"):
        sample(skipped, 1)


def test_a_file_with_time_stamps_alone_needs_the_start(tmp_path):
    text = "sampled_at,VCD\n2026-05-06 08:00,2\n2026-05-07 07:30,3\n2026-05-08T08:00Z,4\n"
    with pytest.raises(DataError, match="Say when the run began"):
        sample(store(tmp_path, text, time_zone="Europe/Berlin"), 0)
    began = dt.datetime(2026, 5, 6, 8)
    file = store(tmp_path, text, time_zone="Europe/Berlin", inoculated_at=began)
    assert [r.time_h for r in asyncio.run(file.read_history())] == [0.0, 23.5, 50.0]
    assert file.report().n_rows == 3
    autumn = "sampled_at,VCD\n2026-10-25 08:00,2\n"  # 25 h after 8 o'clock the day before
    over = store(tmp_path, autumn, "o.csv", time_zone="Europe/Berlin",
                 inoculated_at=dt.datetime(2026, 10, 24, 8))  # fmt: skip
    assert record(over, 1).time_h == 25.0
    late = store(tmp_path, text, inoculated_at=began + dt.timedelta(hours=1),
                 time_zone="Europe/Berlin")  # fmt: skip
    assert days(late) == [1, 2]
    assert "line 2 is 1 h before the inoculation" in late.report().notes[0]
    gap = store(tmp_path, text + ",5\n", time_zone="Europe/Berlin", inoculated_at=began)
    with pytest.raises(DataError, match="sampled_at is missing in line 5"):
        days(gap)


def test_excel_keeps_dates_without_zones_and_they_are_read(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["day", "sampled_at", "VCD"])
    book.active.append([1, dt.datetime(2026, 7, 1, 8), 2.5])
    book.save(tmp_path / "s.xlsx")
    file = FilesystemStore(tmp_path / "s.xlsx", time_zone="America/New_York")
    assert record(file, 1).source_times["VCD"] == dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "settings",
    [
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../etc"},
        {"inoculated_at": dt.datetime(2026, 5, 6)},
    ],
)
def test_zones_that_are_none_are_refused(tmp_path, settings):
    with pytest.raises(ConfigError, match="zone"):
        store(tmp_path, PLAIN, **settings)


# ---------------------------------------------------------------- hostile files


def test_a_formula_without_a_stored_value_is_missing_and_said(tmp_path):
    book = openpyxl.Workbook()
    for row in (["day", "VCD"], [1, 2.5], [2, "=B2*2"]):
        book.active.append(row)
    book.save(tmp_path / "s.xlsx")
    file = FilesystemStore(tmp_path / "s.xlsx")
    assert sample(file, 2) == {"VCD": None}
    assert "row 3 holds the formula =B2*2 without a stored value" in file.report().notes[0]
    assert sample(file, 1) == {"VCD": 2.5}


def test_a_column_without_any_value_is_missing_everywhere_and_said(tmp_path):
    file = store(tmp_path, "day,VCD,Glc\n1,NaN,5\n2,nan,5\n")
    assert [r.values["VCD"] for r in asyncio.run(file.read_history())] == [None, None]
    assert file.report().empty == ("VCD",)
    all_nan = store(tmp_path, "day,VCD\n1,NaN\n2,\n", "b.csv")
    assert sample(all_nan, 1) == {"VCD": None}
    assert record(all_nan, 1).quality == {"VCD": "missing"}


def test_24_reactors_in_one_file_are_kept_apart(tmp_path):
    rows = [f"R{r:02d},{day},{100 * r + day}" for day in range(3) for r in range(24)]
    path = write(tmp_path, "reactor_id,day,VCD\n" + "\n".join(rows) + "\n")

    async def main():
        stores = [FilesystemStore(path, reactor_id=f"R{r:02d}") for r in range(24)]
        histories = await asyncio.gather(*(s.read_history() for s in stores))
        for r, history in enumerate(histories):
            assert [x.values["VCD"] for x in history] == [100.0 * r + day for day in range(3)]
        await asyncio.gather(*(s.write_setpoints({"temperature": 30.0 + r / 10})
                               for r, s in enumerate(stores[:1])))  # fmt: skip
        assert await stores[1].read_setpoints() == {}

    asyncio.run(main())
