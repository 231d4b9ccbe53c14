"""One reader for every command: what a laboratory writes, said once in a column map."""

import datetime as dt
import itertools
import tomllib
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.units import conversion
from perfusio_jax.cli import main
from perfusio_jax.connectors import FilesystemStore, read_campaign, write_campaign
from perfusio_jax.connectors.exchange import export_file, import_file
from perfusio_jax.connectors.files.cultures import read_culture
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.states import Trajectory

from .instruments.exports import BLU_HEADER, BLU_ROWS, FLEX2_HEADER, FLEX2_ROWS, FLEX2_UNITS

VCD = (2.0, 3.5, 6.25)


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def run(capsys, *words) -> tuple[int, str]:
    """Exit code and everything printed, as one line."""
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), " ".join((shown.out + shown.err).split())


def cells(path, rules: FileRules | None = None, **more) -> list[float]:
    """VCD of the only run, by the campaign reader."""
    (one,) = read_campaign(path, rules=rules, **more).trajectories
    return one.get_species("VCD").tolist()


# ---------------------------------------------------------------- what a map may say

MAP = """
[columns]
Zellen = "VCD"
[reading]
long = false
sheet = "*"
separator = "semicolon"
decimal = "comma"
header_row = 3
skip_lines = [4]
skip_footer = 1
date_order = "dmy"
date_format = "%d.%m.%y %H:%M"
time_zone = "Europe/Berlin"
join_within = 0.5
totals = "cumulative"
on_conflict = "last"
unknown = "refuse"
negative_time = "refuse"
missing = ["Probe verworfen"]
sample_id = "{run}-D{day}"
run = "A"
[reading.inoculated_at]
A = 2026-03-02T09:00:00
B = "2026-03-03T09:00"
[set]
agitation = 300
"""


def test_a_map_file_says_all_that_options_say(tmp_path):
    rules = FileRules.of(write(tmp_path, MAP, "map.toml"))
    assert (rules.separator, rules.decimal, rules.header_row, rules.skip_lines) == (
        ";",
        ",",
        3,
        (4,),
    )
    assert rules.inoculated_at == {"A": dt.datetime(2026, 3, 2, 9), "B": dt.datetime(2026, 3, 3, 9)}
    assert rules.constants == {"agitation": 300.0} and rules.joins_within_h == 0.5
    beaten = FileRules.of(tmp_path / "map.toml", decimal=".", join_within_h=0.0, header_row=None)
    assert (beaten.decimal, beaten.joins_within_h, beaten.header_row) == (".", 0.0, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[reading]\ncolour = 1\n", "has colour; it may have long"),
        ("[colums]\nA = 'VCD'\n", "has colums; it may have the tables"),
        ("", "is empty"),
        ("reading = 1\n", "it is a table"),
        ("[reading]\nlong = 'yes'\n", "true or false"),
        ("[reading]\nheader_row = 1.5\n", "a whole number"),
        ("[reading]\nheader_row = 0\n", "count from 1"),
        ("[reading]\nskip_lines = 4\n", "a list is meant"),
        ("[reading]\nskip_lines = [0]\n", "count from 1"),
        ("[reading]\nskip_footer = -1\n", "a number of lines"),
        ("[reading]\nseparator = 'x'\n", "allowed are comma"),
        ("[reading]\ndecimal = ';'\n", "allowed are comma and point"),
        ("[reading]\ndate_order = 'ymd'\n", "allowed are dmy and mdy"),
        ("[reading]\ndate_format = '%H:%M'\n", "day, month and year"),
        ("[reading]\ndate_format = '%d.%m.%Q'\n", "day, month and year"),
        ("[reading]\ntime_zone = 'Mars'\n", "no known zone"),
        ("[reading]\njoin_within = 99\n", "0 to 12 h"),
        ("[reading]\njoin_within = 'x'\n", "a number is meant"),
        ("[reading]\ntotals = 'some'\n", "cumulative and increments"),
        ("[reading]\nunknown = 'keep'\n", "ignore and refuse"),
        ("[reading]\nnegative_time = 'x'\n", "drop, keep and refuse"),
        ("[reading]\ninoculated_at = 'noon'\n", "2026-05-06T08:00"),
        ("[set]\nagitation = 'fast'\n", "a number is meant"),
    ],
)
def test_a_map_that_says_nothing_known_is_refused_by_its_name(tmp_path, text, says):
    path = write(tmp_path, text, "map.toml")
    with pytest.raises(ConfigError) as caught:
        FileRules.of(path)
    assert says in str(caught.value)


@settings(max_examples=300)
@given(st.data())
def test_a_map_that_was_damaged_is_read_or_refused(tmp_path_factory, data):
    """Bytes changed, cut, doubled: rules or a `ConfigError`, never anything else."""
    content = bytearray(MAP.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["change", "cut", "double"]))
        if how == "change":
            content[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del content[at : at + data.draw(st.integers(1, 40))]
        else:
            content[at:at] = content[at : at + data.draw(st.integers(1, 40))]
        content = content or bytearray(b" ")
    path = tmp_path_factory.mktemp("maps") / "map.toml"
    path.write_bytes(bytes(content))
    try:
        rules = FileRules.of(path)
        rules.column_map()
    except ConfigError as error:
        assert str(error)


# ---------------------------------------------------------------- above, beside and below the table


@pytest.mark.parametrize("kind", [".csv", ".xlsx"])
@pytest.mark.parametrize(
    ("top", "rules"),
    [
        ([], {}),
        ([["Kampagne 7"], ["Anlage", "BR 3"], []], {}),
        ([["Kampagne 7", "Labor", "Süd"]], {"header_row": 2}),
    ],
)
def test_a_table_below_its_titles_is_found_or_pointed_at(tmp_path, kind, top, rules):
    rows = [*top, ["run_id", "day", "VCD"], *(["A", d, v] for d, v in enumerate(VCD))]
    path = tmp_path / f"t{kind}"
    if kind == ".csv":
        write(tmp_path, "".join(";".join(map(str, row)) + "\n" for row in rows))
    else:
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
        book.save(path)
    assert cells(path, FileRules(**rules)) == list(VCD)
    store = FilesystemStore(path, rules=FileRules(**rules), allow_unterminated=True)
    assert [times for _, _, times in store.runs()] == [[0.0, 24.0, 48.0]]


def test_lines_that_are_no_samples_are_left_out_on_request(tmp_path):
    path = write(tmp_path, "run_id,day,VCD\nLauf,T,Xv\nA,0,2\nA,1,3.5\nA,2,6.25\nEnde,,\n")
    with pytest.raises(DataError, match="second row of names"):
        read_campaign(path)
    rules = FileRules(skip_lines=(2,), skip_footer=1)
    assert cells(path, rules) == list(VCD)
    assert "line 6 is left out as a footer" in str(read_campaign(path, rules=rules).report)
    with pytest.raises(DataError, match=r"has 6 lines, and its header is said to stand on line 9"):
        read_campaign(path, rules=FileRules(header_row=9))


def test_ansi_and_utf_16_are_read_as_everywhere(tmp_path):
    text = "run_id;day;VCD\nKlön;0;2\nKlön;1;3,5\nKlön;2;6,25\n"
    for encoding in ("cp1252", "utf-16"):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes(text.encode(encoding))
        assert cells(path) == list(VCD)
        assert read_campaign(path).report.run_ids == ("Klön",)


# ---------------------------------------------------------------- values and times


@pytest.mark.parametrize(
    "text", ["n.b.", "n.d.", "#N/A", "#DIV/0!", "k.A.", "nicht bestimmt", "N.D."]
)
def test_what_laboratories_write_for_not_measured_is_missing(tmp_path, text):
    path = write(tmp_path, f"run_id,day,VCD,Glc\nA,0,2,6\nA,1,3.5,{text}\nA,2,6.25,5\n")
    (one,) = read_campaign(path).trajectories
    assert np.isnan(one.get_species("Glc")).tolist() == [False, True, False]
    report = FilesystemStore(path).inspect()
    glucose = next(c for c in report.columns if c.name == "Glc")
    assert (glucose.n_values, glucose.n_missing, glucose.n_unusable) == (2, 1, 0)


def test_a_word_of_ones_own_for_not_measured_has_to_be_said(tmp_path):
    path = write(tmp_path, "run_id,day,VCD\nA,0,2\nA,1,Probe verworfen\nA,2,6.25\n")
    with pytest.raises(DataError, match="'VCD' holds 'Probe verworfen' in line 3"):
        read_campaign(path)
    rules = FileRules(missing=("probe verworfen",))
    assert np.isnan(cells(path, rules)[1])
    assert "1 cells hold probe verworfen" in str(read_campaign(path, rules=rules).report)


@pytest.mark.parametrize("text", ["< TEST RNG <", "<LOD", "≤ LOQ"])
def test_a_limit_nobody_states_is_missing_and_told(tmp_path, text):
    path = write(tmp_path, f"run_id,day,VCD,Glc\nA,0,2,6\nA,1,3.5,{text}\n")
    found = read_campaign(path)
    assert np.isnan(found.trajectories[0].get_species("Glc")[1])
    assert "below a limit of the assay that is not stated" in str(found.report)
    assert "below a limit that is not stated" in " ".join(FilesystemStore(path).inspect().notes)


@pytest.mark.parametrize(
    ("stamps", "rules"),
    [
        (("2026-03-02 09:00", "2026-03-03 09:30", "2026-03-04 09:00"), {}),
        (("02.03.2026 09:00", "03.03.2026 09:30", "04.03.2026 09:00"), {}),
        (("2-Mar-2026 9:00 AM", "3 März 2026 9:30 AM", "4. mars 2026 9:00 AM"), {}),
        (("3/2/2026 9:00", "3/3/2026 9:30", "3/4/2026 9:00"), {"date_order": "mdy"}),
        (("02.03.26 09.00", "03.03.26 09.30", "04.03.26 09.00"), {"date_format": "%d.%m.%y %H.%M"}),
        (("46083.375", "46084.3958333", "46085.375"), {"date_format": "excel"}),
    ],
)
@pytest.mark.parametrize("how", ["rules", "column"])
def test_hours_come_from_time_stamps_and_the_start_of_the_run(tmp_path, stamps, rules, how):
    begun = dt.datetime(2026, 3, 2, 9)
    column = "" if how == "rules" else f";{stamps[0]}"
    label = "" if how == "rules" else ";inoculated_at"
    body = "".join(f"A;{s};{v}{column}\n" for s, v in zip(stamps, VCD, strict=True))
    path = write(tmp_path, f"run_id;sampled_at;VCD{label}\n{body}")
    all_rules = FileRules.of(
        time_zone="UTC", inoculated_at=begun if how == "rules" else None, **rules
    )
    (one,) = read_campaign(path, rules=all_rules).trajectories
    assert one.times_h.tolist() == pytest.approx([0.0, 24.5, 48.0], abs=1e-4)
    store = FilesystemStore(path, rules=all_rules)
    assert store.runs()[0][2] == pytest.approx([0.0, 24.5, 48.0], abs=1e-4)


def test_time_stamps_without_a_start_say_which_option_helps(tmp_path):
    path = write(tmp_path, "run_id,sampled_at,VCD\nA,2026-03-02T09:00Z,2\n")
    with pytest.raises(DataError, match="--inoculated-at"):
        read_campaign(path)
    with pytest.raises(DataError, match="begins once"):
        text = "run_id,sampled_at,VCD,inoculated_at\nA,2026-03-02T09:00Z,2,2026-03-02T09:00Z\n"
        read_campaign(write(tmp_path, f"{text}A,2026-03-03T09:00Z,3,2026-03-03T09:00Z\n"))


def test_rows_from_before_the_inoculation_are_dropped_or_refuse_the_file(tmp_path):
    text = "run_id,sampled_at,VCD\nA,2026-03-02T07:00Z,0\nA,2026-03-02T09:00Z,2\n"
    path = write(tmp_path, text)
    begun = dt.datetime(2026, 3, 2, 9, tzinfo=dt.UTC)
    found = read_campaign(path, rules=FileRules(inoculated_at=begun))
    assert found.trajectories[0].times_h.tolist() == [0.0]
    assert "rows from before the inoculation, left out (1)" in str(found.report)
    strict = FileRules(inoculated_at=begun, negative_time="refuse")
    for read in (
        lambda: read_campaign(path, rules=strict),
        FilesystemStore(path, rules=strict).inspect,
    ):
        with pytest.raises(DataError, match="such rows are refused"):
            read()


# ---------------------------------------------------------------- shapes of a table


def test_rows_of_one_value_become_a_campaign(tmp_path):
    body = "".join(
        f"A,{d},Zellen,{1e6 * v:g},1/mL\nA,{d},Glc,{400 - 100 * d},mg/dL\n"
        for d, v in enumerate(VCD)
    )
    path = write(tmp_path, "run_id,day,species,value,unit\n" + body)
    rules = FileRules(is_long=True, columns={"Zellen": "VCD"})
    (one,) = read_campaign(path, rules=rules).trajectories
    assert one.get_species("VCD").tolist() == pytest.approx(VCD)
    assert one.get_species("Glc").tolist() == pytest.approx([4.0, 3.0, 2.0])
    twice = write(tmp_path, path.read_text() + "A,2,Glc,210,mg/dL\n", "twice.csv")
    with pytest.raises(DataError, match="Glc of one sample is '200' in line 7 and '210' in line 8"):
        read_campaign(twice, rules=rules)


def test_readings_of_one_sample_are_joined_in_a_campaign_too(tmp_path):
    path = write(tmp_path, "run_id,time_h,VCD,Glc\nA,0,2,\nA,0.4,,6\nA,24,3.5,5\n")
    found = read_campaign(path)
    assert found.trajectories[0].times_h.tolist() == [0.0, 24.0]
    assert found.trajectories[0].get_species("Glc").tolist() == [6.0, 5.0]
    assert "joined to one sample (1): line 3 to line 2, 0.4 h later" in str(found.report)
    apart = read_campaign(path, rules=FileRules(join_within_h=0.0))
    assert apart.trajectories[0].times_h.tolist() == [0.0, pytest.approx(0.4), 24.0]


def test_a_sample_id_that_contradicts_itself_refuses_or_corrects(tmp_path):
    path = write(tmp_path, "run_id,sample_id,time_h,VCD\nA,S1,0,2\nA,S1,3,2.5\nA,S2,24,3\n")
    with pytest.raises(DataError, match=r"VCD of one sample is '2' in line 2 and '2.5' in line 3"):
        read_campaign(path)
    found = read_campaign(path, rules=FileRules(on_conflict="last"))
    assert found.trajectories[0].get_species("VCD").tolist() == [2.5, 3.0]
    assert "the later row counts" in str(found.report)


def test_marks_of_quality_are_heeded_in_a_campaign(tmp_path):
    text = "run_id,day,VCD,VCD_quality\nA,0,2,good\nA,1,99,bad\nA,2,6.25,uncertain\n"
    found = read_campaign(write(tmp_path, text))
    values = found.trajectories[0].get_species("VCD")
    assert np.isnan(values).tolist() == [False, True, False]
    assert "1 value(s) of VCD are marked bad and left out" in str(found.report)
    with pytest.raises(DataError, match="allowed are good, uncertain, bad"):
        read_campaign(write(tmp_path, text.replace("uncertain", "fine")))


def test_what_was_the_same_throughout_is_said_once(tmp_path, capsys):
    path = write(tmp_path, "run_id,day,VCD\n,d,1e6 cells/mL\nA,0,2\nA,1,3.5\n")
    found = read_campaign(path, rules=FileRules(constants={"agitation": 300.0}))
    assert found.trajectories[0].controls[:, 0].tolist() == [300.0, 300.0]
    assert "agitation is 300 rpm throughout, as was said" in str(found.report)
    with pytest.raises(ConfigError, match="no column has that name"):
        read_campaign(path, rules=FileRules(constants={"stirring": 300.0}))
    with pytest.raises(DataError, match=r"has a column of it \('VCD'\)"):
        read_campaign(path, rules=FileRules(constants={"VCD": 3.0}))
    code, text = run(capsys, "inspect", path, "--constant", "agitation=300")
    assert code == 0 and "agitation" in text
    code, text = run(capsys, "inspect", path, "--constant", "agitation")
    assert code == 2 and "--constant 'agitation' is not of the form name=value" in text


# ---------------------------------------------------------------- several files and sheets


def test_files_and_folders_are_one_campaign(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    write(folder, "day,VCD,Glc\n0,2,6\n1,3.5,5\n", "first.csv")
    write(folder, "day;VCD;temperature\n0;2,5;36\n1;4,5;36\n", "second.csv")
    write(folder, "not a table", "notes.md")
    found = read_campaign(folder)
    assert [t.run_id for t in found.trajectories] == ["first", "second"]
    assert [t.species_names for t in found.trajectories] == [("VCD", "Glc")] * 2
    assert np.isnan(found.trajectories[1].get_species("Glc")).all()
    assert np.isnan(found.trajectories[0].controls).all()
    both = read_campaign([folder / "first.csv", folder / "second.csv"])
    assert both.report.run_ids == found.report.run_ids == ("first", "second")
    with pytest.raises(DataError, match="given more than once"):
        read_campaign([folder / "first.csv", folder / "first.csv"])
    (folder / "third.csv").write_text("run_id,day,VCD\nfirst,0,2\n")
    with pytest.raises(
        DataError, match=r"run 'first' is in .*first.csv and in .*third.csv, and both have VCD"
    ):
        read_campaign(folder)
    with pytest.raises(DataError, match="is a folder without a file"):
        (tmp_path / "empty").mkdir()
        read_campaign(tmp_path / "empty")


def test_several_vessels_of_a_file_are_several_runs(tmp_path):
    path = write(tmp_path, "reactor_id,day,VCD\nR1,0,2\nR1,1,3\nR2,0,2\nR2,1,4\n", "week.csv")
    other = write(tmp_path, "reactor_id,day,VCD\nR1,0,2\nR1,1,3\nR2,0,2\nR2,1,4\n", "next.csv")
    assert [t.run_id for t in read_campaign(path).trajectories] == ["R1", "R2"]
    both = [t.run_id for t in read_campaign([path, other]).trajectories]
    assert both == ["week R1", "week R2", "next R1", "next R2"]


@pytest.fixture
def german(tmp_path) -> Path:
    """A sheet per run with titles, units, a sum below, remarks, limits, gaps; and one of notes."""
    book = openpyxl.Workbook(write_only=True)
    book.create_sheet("Hinweise").append(["Alle Werte vorläufig"])
    for k in range(2):
        sheet = book.create_sheet(f"Lauf {k + 1}")
        sheet.append([f"Perfusion, Lauf {k + 1}"])
        sheet.append([])
        sheet.append(
            ["Datum", "Lebendzellzahl", "Viabilität", "Laktat", "Perfusionsrate", "Bemerkung"]
        )
        sheet.append(["", "Mio/mL", "%", "mmol/L", "1/d", ""])
        for day, cells_now in enumerate(VCD):
            at = dt.datetime(2026, 3, 2 + 14 * k + day, 9)
            lactate = "<0,1" if day == 0 else "n.b." if day == 1 else 12.5
            sheet.append([at, cells_now + k, 98.0, lactate, 1.0, "Schaum" if day else None])
        sheet.append(["Mittelwert", 3.9, 98.0])
    path = tmp_path / "kampagne.xlsx"
    book.save(path)
    return path


def test_a_german_workbook_is_read_with_the_map_that_inspect_writes(german, capsys, tmp_path):
    out = tmp_path / "columns.toml"
    code, text = run(capsys, "inspect", german, "--sheet", "*", "--write-map", out)
    assert code == 0
    assert "guessed: 'Lebendzellzahl' is taken for VCD" in text and "time_zone is" in text
    written = tomllib.loads(out.read_text())
    assert written["columns"]["Bemerkung"] == "ignore"
    assert "Alle Werte vorläufig" not in written["columns"]
    assert written["reading"]["inoculated_at"]["Lauf 2"] == dt.datetime(2026, 3, 16, 9)
    assert '"Viabilität" = "Via"  # a guess' in out.read_text()
    found = read_campaign(german, rules=FileRules.of(out))
    assert [t.run_id for t in found.trajectories] == ["Lauf 1", "Lauf 2"]
    for k, one in enumerate(found.trajectories):
        assert one.times_h.tolist() == [0.0, 24.0, 48.0]
        np.testing.assert_allclose(one.get_species("VCD"), np.add(VCD, k))
        np.testing.assert_allclose(one.get_species("Lac"), [0.05, np.nan, 12.5])
        assert one.controls[:, one.control_names.index("perfusion_rate")].tolist() == [1.0] * 3
    told = str(found.report)
    assert "sheet 'Hinweise' holds no table and is left out" in told
    assert "in 2 tables: rows 1 to 1" not in told and "row 1 stands above the table" in told
    assert read_culture(german, None, FileRules.of(out)).process is None
    assert run(capsys, "inspect", german, "--write-map", out)[0] == 2  # never over a file


def test_nothing_is_read_under_a_name_that_is_only_a_guess(german):
    with pytest.raises(DataError):
        read_campaign(german, rules=FileRules(sheet="Lauf 1"))


def test_a_map_written_once_is_written_the_same_again(german, tmp_path, capsys):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    run(capsys, "inspect", german, "--sheet", "*", "--write-map", first)
    run(capsys, "inspect", german, "--map", first, "--write-map", second)
    one, two = (tomllib.loads(path.read_text()) for path in (first, second))
    assert one == two and "a guess" not in second.read_text()


# ---------------------------------------------------------------- what one command writes, all read


def culture() -> list[Trajectory]:
    rng = np.random.default_rng(3)
    names, controls = ("VCD", "Via", "Glc"), ("perfusion_rate", "bleed_rate")
    species = rng.uniform(1, 9, (2, 5, 3))
    species[0, 2, 1] = np.nan
    return [
        Trajectory(
            species=species[k],
            controls=np.full((5, 2), 0.5 + k),
            volume_L=np.full(5, 0.25),
            days=np.arange(5),
            species_names=names,
            control_names=controls,
            run_id=f"E{k}",
            clone_id="CX",
            reactor_id=f"R{k}",
        )
        for k in range(2)
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("out", [".csv", ".parquet"])
def test_all_that_is_written_is_read_by_every_command(tmp_path, capsys, suffix, out):
    runs = culture()
    campaign = tmp_path / f"campaign{suffix}"
    write_campaign(runs, campaign)
    url = f"sqlite:///{tmp_path / 'samples.db'}"
    assert run(capsys, "db", "upgrade", url)[0] == 0
    for one in runs:  # inspect, and the database
        assert run(capsys, "inspect", campaign)[0] == 0
        rows = source(campaign, FileRules(), run_id=one.run_id)
        import_file(url, rows, one.run_id, one.reactor_id)
    for one in runs:
        exported = tmp_path / f"{one.run_id}{out}"
        export_file(url, exported, one.run_id, [])
        (back,) = read_campaign(exported).trajectories  # and back, as a campaign
        assert (back.run_id, back.reactor_id) == (one.run_id, one.reactor_id)
        np.testing.assert_allclose(back.get_species("VCD"), one.get_species("VCD"), rtol=1e-12)
        np.testing.assert_array_equal(
            np.isnan(back.get_species("Via")), np.isnan(one.get_species("Via"))
        )
        assert run(capsys, "inspect", exported)[0] == 0
        again = f"sqlite:///{tmp_path / f'{one.run_id}.db'}"
        assert run(capsys, "db", "upgrade", again)[0] == 0
        words = ("db", "import", again, exported, "--experiment", "E", "--reactor", one.reactor_id)
        assert run(capsys, *words)[0] == 0
    everything = read_campaign([tmp_path / f"{one.run_id}{out}" for one in runs])
    assert everything.report.run_ids == ("E0", "E1")
    frame = pd.concat([t.to_frame() for t in everything.trajectories])
    frame.attrs = {}
    book = tmp_path / "book.xlsx"
    frame.to_excel(book, index=False)
    for one, other in itertools.product(runs, read_campaign(book).trajectories):
        if one.run_id == other.run_id:
            np.testing.assert_allclose(other.get_species("VCD"), one.get_species("VCD"))


def test_units_of_a_long_table_may_differ_from_row_to_row(tmp_path):
    text = (
        "run_id;day;species;value;unit\nA;0;Glc;4,5;g/L\nA;1;Glc;350,5;mg/dL\nA;2;Glc;<50;mg/dL\n"
    )
    (one,) = read_campaign(write(tmp_path, text), rules=FileRules(is_long=True)).trajectories
    assert one.get_species("Glc").tolist() == pytest.approx([4.5, 3.505, 0.25])


# ---------------------------------------------------------------- instruments


def test_a_counter_and_an_analyser_are_read_by_the_names_of_their_samples(tmp_path, capsys):
    counter = write(tmp_path, "\n".join([BLU_HEADER, *BLU_ROWS]) + "\n", "counter.csv")
    flex = [FLEX2_HEADER, FLEX2_UNITS, *FLEX2_ROWS[:2]]
    analyser = write(tmp_path, "\n".join(flex) + "\n", "analyser.csv")
    rules = FileRules(
        time_zone="UTC",
        sample_id="{run}-D{day}-BR{reactor}",
        columns={"VCD": "ignore", "Via": "ignore", "Diam": "ignore", "Sample ID": "sample_id"},
    )
    with pytest.raises(DataError, match="and both have VCD"):
        read_campaign([counter, analyser], rules=rules.but(columns={}), unknown="ignore")
    metabolites = read_campaign(analyser, rules=rules, unknown="ignore").trajectories
    cells_only = read_campaign(counter, rules=rules.but(columns={}), unknown="ignore").trajectories
    assert [t.run_id for t in metabolites] == [t.run_id for t in cells_only] == ["P7"]
    assert metabolites[0].get_species("Glc").tolist() == [5.37, 4.02]
    assert cells_only[0].get_species("VCD").tolist() == [3.97, 8.11]
    store = FilesystemStore(counter, rules=rules.but(columns={}), allow_unterminated=True)
    assert store.runs() == [("P7", "1", [48.0, 72.0])]
    code, text = run(
        capsys, "inspect", counter, *("--sample-id", rules.sample_id, "--time-zone", "UTC")
    )
    assert code == 0 and "Vi-CELL BLU" in text and "run P7, reactor 1: 2 samples" in text


def test_a_run_of_two_tables_that_measure_different_things_is_put_together(tmp_path):
    one = write(tmp_path, "run_id,time_h,VCD,volume_L\nA,0,2,0.3\nA,24,3.5,0.3\n", "cells.csv")
    two = write(tmp_path, "run_id,time_h,Glc,reactor_id\nA,0.3,6,R7\nA,48,4,R7\n", "broth.csv")
    found = read_campaign([one, two])
    (run_a,) = found.trajectories
    assert run_a.times_h.tolist() == [0.0, 24.0, 48.0] and run_a.reactor_id == "R7"
    np.testing.assert_array_equal(run_a.get_species("VCD"), [2.0, 3.5, np.nan])
    np.testing.assert_array_equal(run_a.get_species("Glc"), [6.0, np.nan, 4.0])
    assert run_a.volume_L.tolist() == [0.3, 0.3, 0.3]
    assert "which measure different things or go on: put together" in str(found.report)


@pytest.mark.parametrize(
    ("text", "says"), [("{day}", "run"), ("{run}{day}", "between"), ("{who}", "who")]
)
def test_a_pattern_that_tells_no_run_is_refused_at_once(text, says):
    with pytest.raises(ConfigError, match=says):
        FileRules(sample_id=text)


def test_a_pattern_takes_sample_ids_apart_below_a_row_of_units(tmp_path):
    path = write(tmp_path, "Probe;VCD\n;Mio/mL\nA-D0;2\nA-D1;3,5\nA-D2;6,25\n")
    rules = FileRules(sample_id="{run}-D{day}", columns={"Probe": "sample_id"})
    assert cells(path, rules) == list(VCD)
    with pytest.raises(DataError, match="no column of sample ids"):
        read_campaign(path, rules=rules.but(columns={}))


FED = (
    "run_id,time_h,VCD,Glc,Gln,volume_L\n"
    "A,0,1,6,4,2\nA,24,3,2,1,2\nA,25,3.05,5.5,1,2\nA,48,7,3,0.4,2.1\nA,48.5,7,3,2.4,2.1\nA,72,9,1,1,2.1\n"
)


def test_a_row_after_a_feed_is_a_bolus_of_the_row_before_on_request(tmp_path):
    path = write(tmp_path, FED)
    (rows,) = read_campaign(path).trajectories
    assert rows.times_h.tolist() == [0, 24, 25, 48, 48.5, 72]
    rules = FileRules(feeds="bolus")
    described = read_culture(path, "table", rules)
    (one,) = described.trajectories
    assert one.times_h.tolist() == [0, 24, 48, 72]
    boluses = {n: one.controls[:, k].tolist() for k, n in enumerate(one.control_names)}
    assert boluses["Glc_bolus"] == pytest.approx([0.0, 7.0, 0.0, 0.0])  # 3.5 g/L in 2 L
    assert boluses["Gln_bolus"] == pytest.approx([0.0, 0.0, 4.2, 0.0])
    assert described.process is not None and described.process.boluses == ("Glc_bolus", "Gln_bolus")
    assert "rows after a feed, made Glc_bolus, Gln_bolus of the row before (2): line 4; line 6" in (
        str(described.report)
    )
    report = FilesystemStore(path, rules=rules).inspect()
    assert any("a row after a feed stays a sample here" in note for note in report.notes)


def test_a_feed_needs_cells_and_an_amount(tmp_path):
    rules = FileRules(feeds="bolus")
    with pytest.raises(DataError, match="VCD, which tells that nothing grew"):
        read_campaign(write(tmp_path, "run_id,time_h,Glc\nA,0,6\nA,1,9\n"), rules=rules)
    text = "run_id,time_h,VCD,Glc [mg/dL]\nA,0,1,600\nA,1,1,900\n"
    with pytest.raises(DataError, match="Glc is in 'mg/dL', which gives no amount"):
        read_campaign(write(tmp_path, text), rules=rules)


def test_runs_may_be_named_by_several_columns(tmp_path):
    path = write(tmp_path, "Clone,rep,day,VCD\nB,1,0,2\nB,1,1,3\nB,2,0,2\nB,2,1,4\n")
    rules = FileRules(columns={"Clone": "clone_id", "rep": "ignore"}, run_from=("Clone", "rep"))
    runs = read_campaign(path, rules=rules).trajectories
    assert [(t.run_id, t.clone_id) for t in runs] == [("B 1", "B"), ("B 2", "B")]
    with pytest.raises(DataError, match="has no column 'batch', of which run_from"):
        read_campaign(path, rules=rules.but(run_from=("batch",)))
    with pytest.raises(ConfigError, match="both name the run"):
        FileRules(run="A", run_from=("Clone",))


# ---------------------------------------------------------------- never other values than written


def refused_by_both(path: Path, rules: FileRules, says: str) -> None:
    for read in (
        lambda: read_campaign(path, rules=rules),
        FilesystemStore(path, rules=rules, allow_unterminated=True).inspect,
    ):
        with pytest.raises(DataError, match=says):
            read()


def test_a_point_is_no_decimal_mark_where_the_comma_is(tmp_path):
    path = write(tmp_path, "run_id;day;VCD;Titer\nA;0;0,5;1.5\nA;1;1,5;2.125\nA;2;2,25;4.25\n")
    with pytest.raises(DataError, match="'Titer' holds '1.5' in line 2, which is not a number"):
        read_campaign(path, rules=FileRules(decimal="comma"))
    report = FilesystemStore(path, rules=FileRules(decimal=",")).inspect()
    titer = next(c for c in report.columns if c.name == "Titer")
    assert (titer.n_values, titer.n_unusable, titer.span) == (1, 2, (2125.0, 2125.0))


def test_a_word_for_cells_that_may_be_dead_is_no_guess(tmp_path, capsys):
    path = write(tmp_path, "Tag;Zelldichte;Glukose\n0;0,5;5,5\n1;1,1;4,5\n")
    run(capsys, "inspect", path, "--write-map", tmp_path / "map.toml")
    assert "Zelldichte" not in tomllib.loads((tmp_path / "map.toml").read_text())["columns"]
    slip = write(tmp_path, '[columns]\nZelldichte = "Viabilty"\n', "slip.toml")
    code, text = run(capsys, "inspect", path, "--map", slip)
    assert code == 2 and "is to be 'Viabilty'. Did you mean 'Via'?" in text


def test_true_and_false_of_a_spreadsheet_are_no_numbers(tmp_path):
    path = tmp_path / "t.xlsx"
    pd.DataFrame({"run_id": "A", "day": [0, 1], "Lac": [True, 3.0]}).to_excel(path, index=False)
    with pytest.raises(DataError, match="'Lac' holds .*True.* in line 2"):
        read_campaign(path)


def test_the_time_of_the_day_may_stand_beside_the_date(tmp_path, capsys):
    path = write(
        tmp_path,
        "Datum;Uhrzeit;VCD;Glc\n01.03.2026;8:00;2,5;5\n02.03.2026;08:30;3,5;4\n03.03.2026;20:00;6;3\n",
    )
    out = tmp_path / "map.toml"
    code, text = run(capsys, "inspect", path, "--write-map", out)
    assert code == 0 and "'Uhrzeit' is taken for time_of_day" in text
    (one,) = read_campaign(path, rules=FileRules.of(out)).trajectories
    assert one.times_h.tolist() == pytest.approx([0.0, 24.5, 60.0])
    alone = FileRules(columns={"Uhrzeit": "time_of_day", "Datum": "ignore"})
    refused_by_both(path, alone, "times of the day and none of dates")


@pytest.mark.parametrize("texts", [("0:00", "23:30", "47:15"), ("0 h", "23.5 h", "47.25 h")])
def test_hours_may_be_written_as_a_clock_or_with_their_unit(tmp_path, texts):
    body = "".join(f"A;{t};{v}\n" for t, v in zip(texts, VCD, strict=True))
    path = write(tmp_path, f"run_id;time_h;VCD\n{body}")
    assert read_campaign(path).trajectories[0].times_h.tolist() == [0.0, 23.5, 47.25]
    assert FilesystemStore(path).runs()[0][2] == [0.0, 23.5, 47.25]


def test_points_in_one_date_prove_nothing_for_strokes_in_another(tmp_path):
    path = write(tmp_path, "run_id;sampled_at;VCD\nA;02.03.2026 08:00;1\nA;03/04/2026 08:00;2\n")
    begun = FileRules(time_zone="UTC", inoculated_at=dt.datetime(2026, 3, 2, 8))
    with pytest.raises(DataError, match="day and month cannot be told apart"):
        read_campaign(path, rules=begun)


def test_a_visible_sheet_is_read_before_a_hidden_one(tmp_path):
    book = openpyxl.Workbook()
    old = book.create_sheet("alt", 0)
    old.append(["run_id", "day", "VCD"])
    old.append(["A", 0, 99])
    old.sheet_state = "hidden"
    new = book["Sheet"]
    for row in (["run_id", "day", "VCD"], *(["A", d, v] for d, v in enumerate(VCD))):
        new.append(row)
    path = tmp_path / "t.xlsx"
    book.save(path)
    assert cells(path) == list(VCD)
    assert "there are others: alt (hidden)" in str(read_campaign(path).report)


def test_a_run_may_go_on_in_the_next_file(tmp_path):
    one = write(tmp_path, "run_id,day,VCD\nA,0,2\nA,1,3.5\n", "week1.csv")
    two = write(tmp_path, "run_id,day,VCD\nA,2,6.25\n", "week2.csv")
    assert cells([one, two]) == list(VCD)


def test_merged_cells_and_lines_that_are_not_there_are_told(tmp_path):
    path = write(tmp_path, "run_id,day,VCD\nA,0,2\n,1,3.5\nB,0,2\n")
    assert "1 row(s) name no run (first line 3)" in " ".join(FilesystemStore(path).inspect().doubts)
    refused_by_both(path, FileRules(skip_lines=(9,)), r"line 9 is to be left out \(--skip-line\)")
    report = read_campaign(path, rules=FileRules(skip_lines=(3,))).report
    assert "line 3 is left out, as was said" in str(report)


def test_an_export_writes_over_nothing_and_parts_vessels(tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 's.db'}"
    path = write(tmp_path, "reactor_id,day,VCD\nR1,0,2\nR2,0,3\nR1,1,3.5\nR2,1,4\n")
    assert run(capsys, "db", "upgrade", url)[0] == 0
    assert run(capsys, "db", "import", url, path, "--experiment", "E")[0] == 0
    code, text = run(capsys, "db", "import", url, path, "--experiment", "E", "--reactor", "R9")
    assert code == 3 and "no sample of reactor 'R9'; its reactors are R1, R2" in text
    code, text = run(capsys, "db", "export", url, path, "--experiment", "E")
    assert code == 2 and "exists; name another file, or say --force" in text
    out = tmp_path / "out.csv"
    assert run(capsys, "db", "export", url, out, "--experiment", "E")[0] == 0
    assert [t.run_id for t in read_campaign(out).trajectories] == ["E R1", "E R2"]


def test_sheets_and_folders_can_be_imported(german, tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 's.db'}"
    columns = tmp_path / "columns.toml"
    run(capsys, "inspect", german, "--sheet", "*", "--write-map", columns)
    assert run(capsys, "db", "upgrade", url)[0] == 0
    words = ("db", "import", url, german, "--map", columns, "--experiment", "E")
    code, text = run(capsys, *words)
    assert code == 0 and "E, Lauf 1: 3 samples" in text and "E, Lauf 2: 3 samples" in text


def test_the_hour_that_occurs_twice_is_told_by_every_reader(tmp_path):
    path = write(tmp_path, "run_id,sampled_at,VCD\nA,2026-10-25 02:10,2\nA,2026-10-25 04:50,3\n")
    rules = FileRules(time_zone="Europe/Berlin", inoculated_at=dt.datetime(2026, 10, 25, 1))
    told = str(read_campaign(path, rules=rules).report)
    assert "the hour that occurs twice, the first of them meant (1): 2026-10-25 02:10" in told
    assert "occurs twice" in " ".join(FilesystemStore(path, rules=rules).inspect().notes)


def test_a_name_of_ones_own_in_a_map_is_left_out_where_columns_may_be(tmp_path):
    path = write(tmp_path, "run_id,day,VCD,Sonde 3\nA,0,2,7\nA,1,3.5,7\n")
    rules = FileRules(columns={"Sonde 3": "Sonde_3"})
    with pytest.raises(ConfigError, match="'Sonde 3' is to be 'Sonde_3'"):
        read_campaign(path, rules=rules)
    assert read_campaign(path, rules=rules, unknown="ignore").report.ignored == ("Sonde_3",)


def test_quality_of_single_values_is_heeded_in_a_long_table(tmp_path):
    text = "run_id,day,species,value,quality\nA,0,VCD,2,good\nA,1,VCD,99,bad\nA,1,Glc,4,good\n"
    (one,) = read_campaign(write(tmp_path, text), rules=FileRules(is_long=True)).trajectories
    np.testing.assert_array_equal(one.get_species("VCD"), [2.0, np.nan])
    np.testing.assert_array_equal(one.get_species("Glc"), [np.nan, 4.0])


def test_a_campaign_is_not_written_under_the_name_of_another_kind(tmp_path):
    with pytest.raises(DataError, match=r"suffix '\.xls'; a campaign table is written as one of"):
        write_campaign(culture(), tmp_path / "a.xls")
    assert not (tmp_path / "a.xls").exists()


def test_a_row_of_units_is_no_vessel_of_its_own(tmp_path):
    text = "reactor_id,day,VCD\n,d,1e6 cells/mL\nR1,0,2\nR1,1,3\n"
    files = [write(tmp_path, text, name) for name in ("one.csv", "two.csv")]
    assert [t.run_id for t in read_campaign(files).trajectories] == ["one", "two"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_constant_is_a_number(value):
    with pytest.raises(ConfigError, match="a finite number is meant"):
        FileRules(constants={"agitation": value})


def test_shares_among_percent_are_asked_about(tmp_path):
    path = write(tmp_path, "time_h,VCD,Via,DO\n0,0.5,98,0.4\n24,1,0.97,0.39\n48,2,96,0.41\n")
    told = " ".join(FilesystemStore(path).inspect().doubtful)
    assert "Via: from 0.97 to 98 %: shares and percent in one column?" in told
    assert "DO: nowhere above 0.41 %: is it a share?" in told


@pytest.mark.parametrize(
    ("name", "unit", "factor"),
    [
        ("VCD", "10^6 Z/ml", 1.0),
        ("VCD", "10^6 viable cells/mL", 1.0),
        ("VCD", "Mio Zellen/mL", 1.0),
        ("temperature", "Grad C", 1.0),
        ("time_h", "Std", 1.0),
        ("time_h", "Tage", 24.0),
        ("Via", "Prozent", 1.0),
        ("perfusion_rate", "1/Tag", 1.0),
    ],
)
def test_units_as_german_laboratories_write_them(name, unit, factor):
    assert float(conversion(unit, name)([1.0])[0]) == pytest.approx(factor)


def mapped(tmp_path, capsys, text):
    """What `--write-map` takes a file's columns for, and what it says."""
    path, out = write(tmp_path, text), tmp_path / "map.toml"
    _, said = run(capsys, "inspect", path, "--write-map", out)
    return tomllib.loads(out.read_text(encoding="utf-8"))["columns"], said


@pytest.mark.parametrize(
    ("label", "name"),
    [("EFT (h)", "time_h"), ("Age [h]", "time_h"), ("Since feed [d]", "time_h")],
)
def test_the_map_offers_a_column_of_hours_or_days_as_the_time(tmp_path, capsys, label, name):
    found, said = mapped(tmp_path, capsys, f"{label},VCD,Glc\n0,1,5\n1,2,4\n2,4,3\n")
    assert found[label] == name and f"'{label}' is taken for {name}" in said


def test_a_culture_is_a_run_and_a_dilution_with_a_unit_is_no_remark(tmp_path, capsys):
    text = "Culture,Time [h],VCD,Dilution [1/d],Dilution\nT1,0,1,0.5,10\nT1,6,2,0.5,10\n"
    found, _ = mapped(tmp_path, capsys, text)
    assert found["Culture"] == "run_id" and found["Time [h]"] == "time_h"
    assert "Dilution [1/d]" not in found and found["Dilution"] == "ignore"


def test_a_reason_that_all_files_share_is_told_once(tmp_path, capsys):
    (folder := tmp_path / "many").mkdir()
    for k in range(3):
        write(folder, "Age,VCD\n0,1\n1,2\n", f"run{k}.csv")
    code, said = run(capsys, "inspect", folder)
    assert code == 3 and said.count("there is no column 'day' or 'time_h'") == 1
    assert said.count("the reason is that of") == 2
    assert '"time_h"' in said and "inspect FILE --write-map" in said
