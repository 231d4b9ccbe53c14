"""`perfusio-jax inspect` and `perfusio-jax db`, on files and on both kinds of database."""

import asyncio
import csv
import datetime as dt
import itertools
import json
import re
import shutil
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax.cli import main
from perfusio_jax.connectors import FilesystemStore, SQLStore, read_campaign, write_campaign
from perfusio_jax.connectors.exchange import export_samples
from perfusio_jax.connectors.tables.spreadsheet import guard, unguard
from perfusio_jax.states import Trajectory

GOOD = "day,VCD [1e6 cells/mL],Glc\n,,g/L\n0,0.5,6\n1,2.3,4.8\n"


def run(capsys, *words) -> tuple[int, str]:
    """Exit code and everything printed."""
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out + shown.err


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "samples.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


# ---------------------------------------------------------------- inspect


def test_every_column_is_named_with_unit_counts_and_range(capsys, file):
    code, text = run(capsys, "inspect", file(GOOD), "--strict")
    assert code == 0
    words = " ".join(text.split())
    assert "day day (time) d 2 0 0" in words
    assert "VCD (species) 1e6 cells/mL 2 0 0 0.5 .. 2.3" in words
    assert "Glc Glc (species) g/L 2 0 0 4.8 .. 6" in words
    assert "2 rows, 3 columns; comma-separated, decimal point" in text
    assert "one reactor: 2 samples from day 0 to 1" in text
    assert "line 2 was read as a row of units" in text


def test_inspect_says_that_a_table_is_of_a_culture_of_its_own(capsys, file):
    rows = "".join(f"A,{6 * k},{2**k},{40 - 5 * k},{0.1 * k}\n" for k in range(4))
    code, text = run(capsys, "inspect", file("run_id,time_h,DCW [g/L],MeOH [g/L],VCD\n" + rows))
    assert code == 0
    assert "take this for a culture of its own, with DCW, MeOH; perfusio-jax process init" in text
    code, text = run(capsys, "inspect", file("run_id,time_h,DW [g/L]\nA,0,1\nA,6,2\n"))
    assert code == 3 and "perfusio-jax process init FILE reads it off such a table" in text
    code, text = run(capsys, "inspect", file("run_id,day,VCD,Glc\nA,0,1,5\nA,1,2,4\n"))
    assert code == 0 and "culture of its own" not in text


def test_one_run_of_several_tables_is_imported_by_its_name(capsys, tmp_path):
    for name in ("w1", "w2"):
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / f"{name}.csv").write_text("day,VCD\n0,1\n1,2\n")
    url = f"sqlite:///{tmp_path}/a.db"
    run(capsys, "db", "upgrade", url)
    words = ("db", "import", url, tmp_path / "runs", "--experiment", "E", "--run-id")
    code, shown = run(capsys, *words, "w2")
    assert code == 0 and "E, w2: 2 samples (2 new" in shown and "w1" not in shown
    code, shown = run(capsys, *words, "w3")
    assert code == 3 and "has no run 'w3'; its runs are w1, w2" in shown


def test_a_long_table_is_none_of_columns_for_any_reader(capsys, file, tmp_path):
    path = file("run_id,day,species,value\nA,0,VCD,1\nA,0,Glc,5\nA,1,VCD,2\nA,1,Glc,4\n")
    with pytest.raises(DataError, match="in long format; .*--long"):
        read_campaign(path, unknown="ignore")
    for command in (["inspect", path], ["process", "init", path, "--out", tmp_path / "p.toml"]):
        code, shown = run(capsys, *command)
        assert code == 3 and "it is in long format; say wide_format=False (--long" in shown
        assert run(capsys, *command, "--long")[0] == 0


def test_values_that_are_marked_bad_are_told(capsys, file):
    text = "day,VCD,VCD_quality\n0,1,good\n1,2,bad\n2,3,\n"
    code, shown = run(capsys, "inspect", file(text))
    assert code == 0 and "1 value(s) of VCD are marked bad and left out" in shown
    assert "are marked bad" not in run(capsys, "inspect", file(text.replace("bad", "good")))[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run_id,day,VCD\nA,0,1\nA,1,2\nA,Vessel 2,\nA,0,1\n", "--blocks vessels"),
        ("run_id,day,VCD\nA,start,5\nA,0,1\n", "(--header-row)"),
    ],
)
def test_a_time_that_is_none_is_answered_with_the_option(file, capsys, text, says):
    path = file(text)
    code, shown = run(capsys, "inspect", path)
    assert code == 3 and says in shown, shown
    with pytest.raises(DataError, match=re.escape(says)):
        read_campaign(path)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("day,VCD,foo\n1,2,x\n", 0, "look at: foo"),
        ("day,VCD\n1,2\n2,high\n", 0, "'high', not a number"),
        ("day,VCD\n1,2\n1,3\n2,4\n", 0, "that day is refused"),
        ("day,VCD\n1,2\n1,3\n", 3, "every sample contradicts itself"),
        ("day,Glc\n1,4500\n2,3000\n", 0, "is the unit right?"),
        ("day,VCD\n", 3, "there is a header and no row yet"),
        ("", 3, "the file is empty"),
        ("\ufeff", 3, "the file is empty"),
    ],
)
def test_what_is_odd_is_said_and_strict_refuses_it(capsys, file, text, code, says):
    path = file(text)
    plain, shown = run(capsys, "inspect", path)
    assert plain == code and says in " ".join(shown.split())
    assert run(capsys, "inspect", path, "--strict")[0] == 3


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("Tag;VCD\n1;2\n", 3, "no column 'day' or 'time_h' among 'Tag', 'VCD'"),
        ("day,VCD [parsec]\n1,2\n", 3, "parsec"),
        ("day,species,value\n1,VCD,2\n", 3, "--long on the command line"),
        ("day,VCD\n1,2,3\n", 3, "line 2 has 3 fields"),
    ],
)
def test_what_cannot_be_used_has_its_exit_code(capsys, file, text, code, says):
    found, shown = run(capsys, "inspect", file(text))
    assert (found, says in shown) == (code, True), shown


def test_files_that_are_not_there_or_not_files(capsys, tmp_path):
    assert run(capsys, "inspect", tmp_path / "no.csv")[0] == 4
    (tmp_path / "folder.csv").mkdir()
    code, text = run(capsys, "inspect", tmp_path / "folder.csv")
    assert code == 3 and "is a folder without a file that ends in" in text.replace("\n", " ")


def test_maps_long_tables_sheets_and_stamps(capsys, file, tmp_path):
    named = file("Tag;Zellen\n1;2,5\n")
    columns = file('[columns]\nTag = "day"\nZellen = "VCD"\n', "map.toml")
    assert run(capsys, "inspect", named, "--map", columns, "--strict")[0] == 0
    assert run(capsys, "inspect", named, "--map", tmp_path / "no.toml")[0] == 2
    long = file("day,species,value\n1,VCD,2\n1,Glc,4\n", "long.csv")
    assert run(capsys, "inspect", long, "--long", "--strict")[0] == 0
    stamps = file("sampled_at,VCD\n2026-05-07 08:00,2\n", "stamps.csv")
    told = ("--time-zone", "Europe/Berlin", "--inoculated-at", "2026-05-06T08:00")
    code, text = run(capsys, "inspect", stamps, *told, "--strict")
    assert code == 0 and "from day 1 to 1" in text
    assert run(capsys, "inspect", stamps, "--inoculated-at", "noon")[0] == 2
    assert run(capsys, "inspect", stamps)[0] == 3
    with pd.ExcelWriter(tmp_path / "s.xlsx") as book:
        pd.DataFrame({"x": ["notes"]}).to_excel(book, sheet_name="A", index=False)
        pd.DataFrame({"day": [1], "VCD": [2.0]}).to_excel(book, sheet_name="B", index=False)
    assert run(capsys, "inspect", tmp_path / "s.xlsx", "--sheet", "B", "--strict")[0] == 0
    assert run(capsys, "inspect", tmp_path / "s.xlsx")[0] == 3


@pytest.mark.parametrize("columns", ["40", "70", "80", "200"])
def test_numbers_are_never_cut(capsys, file, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    name = "Density of viable cells in the vessel of the large hall"
    columns_of = file(f'[columns]\n"{name}" = "VCD"\n', "map.toml")
    _, text = run(capsys, "inspect", file(f"day,{name}\n0,0.754\n1,118.43\n"), "--map", columns_of)
    assert "0.754 .. 118.43" in text


def test_options_settle_what_a_file_leaves_open(capsys, file):
    thousands = file("day;Titer\n3;2,512\n")
    assert run(capsys, "inspect", thousands)[0] == 3
    for mark, shown in (("comma", "2.512 .. 2.512"), ("point", "2512 .. 2512")):
        code, text = run(capsys, "inspect", thousands, "--decimal", mark, "--strict")
        assert code == 0 and shown in text
    assert run(capsys, "inspect", thousands, "--decimal", ";")[0] == 2
    dates = file("sampled_at,VCD\n5/6/2026 8:00,2\n", "dates.csv")
    told = ("--time-zone", "Europe/Berlin", "--inoculated-at", "2026-05-06T08:00")
    code, text = run(capsys, "inspect", dates, *told)
    assert code == 3 and "--date-order" in text
    code, text = run(capsys, "inspect", dates, *told, "--date-order", "mdy")
    assert code == 0 and "from day 0 to 0" in text
    assert run(capsys, "inspect", dates, "--date-order", "ymd")[0] == 2
    apart = file("time_h,VCD,Glc\n48,,4\n48.4,7,\n", "apart.csv")
    assert "1 samples" in run(capsys, "inspect", apart, "--strict")[1]
    assert "2 samples" in run(capsys, "inspect", apart, "--join-within", "0.1")[1]
    assert run(capsys, "inspect", apart, "--join-within", "-1")[0] == 2
    rows = "".join(f"{day},0.25,0.2,{0.05 * day}\n" for day in range(1, 6))
    totals = file(f"day,volume_L,bleed_rate,V_bleed_L\n{rows}", "totals.csv")
    assert run(capsys, "inspect", totals, "--strict")[0] == 3
    code, text = run(capsys, "inspect", totals, "--strict", "--totals", "cumulative")
    assert code == 0 and "was differenced" in text
    assert run(capsys, "inspect", totals, "--totals", "sum")[0] == 2


def test_long_tables_show_each_species(capsys, file):
    long = file("day,species,value\n0,Glc,540\n1,Glc,x\n0,VCD,0.4\n")
    code, text = run(capsys, "inspect", long, "--long")
    words = " ".join(text.split())
    assert code == 0 and "Glc Glc (species) g/L 1 0 1 540 .. 540" in words
    assert "Glc: outside 0 to 20 g/L" in words and "look at: value, Glc" in words


# ---------------------------------------------------------------- databases


def test_an_import_says_what_it_did_not_take_as_it_stood(capsys, file, url):
    odd = file("day,VCD,Size,Lac\n0,0.4,12,<0.4\n1,240,13,2\n")
    told = ("--experiment", "E", "--reactor", "R")
    code, text = run(capsys, "db", "import", url, odd, *told)
    assert code == 0 and "E, R: 2 samples" in text
    assert "column 'Size' is not known and not read" in text
    assert "a limit of the assay, shown as half of it" in text and "VCD: outside 0 to 120" in text


def test_a_file_goes_into_a_database_and_out_again(capsys, file, empty_url, tmp_path):
    source = file(
        "reactor_id,day,sampled_at,VCD,VCD_quality,Glc,pH,V_perfusion_L,volume_L\n"
        "=R1,1,2026-05-06T08:00:00+02:00,0.30000000000000004,uncertain,,7.1,0.25,0.25\n"
        "=R1,2,2026-05-07T08:00:00+02:00,,bad,4.5,7.2,0.25,0.25\n"
        "R2,1,2026-05-06T09:00:00+02:00,3,good,4,7,0.2,0.25\n"
    )
    assert run(capsys, "db", "status", empty_url)[0] == 4
    code, text = run(capsys, "db", "upgrade", empty_url)
    assert code == 0 and "tables at 0003" in text
    told = ("--experiment", "@E")
    code, text = run(capsys, "db", "import", empty_url, source, *told)
    assert code == 0 and "@E, =R1: 2 samples (2 new" in text and "@E, R2: 1 samples (1 new" in text
    code, text = run(capsys, "db", "import", empty_url, source, *told)
    assert code == 0 and "=R1: 2 samples (0 new, 2 duplicate, 0 corrected)" in text
    code, text = run(capsys, "db", "status", empty_url)
    assert code == 0 and "@E" in text and "=R1" in text and "R2" in text
    for name in ("out.csv", "out.parquet"):
        code, text = run(capsys, "db", "export", empty_url, tmp_path / name, *told)
        assert code == 0 and "3 samples of 2 reactor(s)" in text
        for reactor in ("=R1", "R2"):
            old = asyncio.run(FilesystemStore(source, reactor_id=reactor).read_rows())
            new = asyncio.run(FilesystemStore(tmp_path / name, reactor_id=reactor).read_rows())
            assert len(old) == len(new) > 0
            for a, b in zip(old, new, strict=True):
                for field in ("day", "time_h", "values", "tags", "stream_totals", "source_times"):
                    assert getattr(a, field) == getattr(b, field), field
                assert {n: q for n, q in a.quality.items() if q != "missing"} == {
                    n: q for n, q in b.quality.items() if q != "missing"
                }
                assert (a.volume_L, a.reactor_id) == (b.volume_L, b.reactor_id)
    with (tmp_path / "out.csv").open(newline="") as table:
        for row in csv.reader(table):
            assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


NUMBER = st.one_of(st.none(), st.floats(0.0, 1e12))
NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(
    str.strip
)
ODD = {"VCD": 5e-324, "Titer": None, "pH": 7.0}
INSTANT = st.datetimes(
    dt.datetime(1999, 1, 1), dt.datetime(2100, 1, 1),
    timezones=st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"]).map(ZoneInfo),
)  # fmt: skip


COUNTER = itertools.count()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """One database for all examples."""
    folder = tmp_path_factory.mktemp("trip")
    SQLStore(url := f"sqlite:///{folder / 'run.db'}", "E", "R").create_tables()
    return folder, url


@settings(max_examples=20, deadline=None)
@given(
    days=st.dictionaries(
        st.integers(0, 60),
        st.tuples(st.fixed_dictionaries({"VCD": NUMBER, "Titer": NUMBER, "pH": NUMBER}), INSTANT),
        min_size=1,
        max_size=5,
    ),
    reactor=NAME.filter(bool),
    suffix=st.sampled_from([".csv", ".parquet"]),
)
@example(days={1: (ODD, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))}, reactor='=β; "7"', suffix=".csv")
def test_samples_go_through_database_and_file_unchanged(archive, days, reactor, suffix):
    folder, url = archive
    store = SQLStore(url, f"E{next(COUNTER)}", reactor)
    for day, (sample, taken) in days.items():
        store.write_sample(day, sample, sampled_at=taken)
    asyncio.run(export_samples(store, folder / f"out{suffix}", [reactor]))
    history = asyncio.run(store.read_history())
    store.database.close()
    file = FilesystemStore(folder / f"out{suffix}", reactor_id=reactor)
    for old, new in zip(history, asyncio.run(file.read_rows()), strict=True):
        assert (old.day, old.reactor_id) == (new.day, new.reactor_id)
        assert old.values == new.values and old.tags == new.tags
        assert old.quality == new.quality
        assert set(old.source_times.values()) == set(new.source_times.values())


def test_corrections_of_a_file_are_refused_or_kept_with_history(capsys, file, url):
    told = ("--experiment", "E", "--reactor", "R1")
    assert run(capsys, "db", "import", url, file(GOOD), *told)[0] == 0
    corrected = file(GOOD.replace("2.3", "2.4"))
    code, text = run(capsys, "db", "import", url, corrected, *told)
    assert code == 3 and "VCD 2.3 -> 2.4" in text
    code, text = run(capsys, "db", "import", url, corrected, *told, "--correct", "--reason", "new")
    assert code == 0 and "1 corrected" in text
    store = SQLStore(url, "E", "R1")
    assert [(r["revision"], r["reason"]) for r in store.read_revisions(1)] == [
        (1, None),
        (2, "new"),
    ]
    store.database.close()


def test_commands_refuse_what_makes_no_sense(capsys, file, url, tmp_path):
    assert run(capsys, "db", "import", url, file(GOOD), "--experiment", "E")[0] == 2
    assert run(capsys, "db", "export", url, tmp_path / "o.csv", "--experiment", "E")[0] == 3
    assert (
        run(capsys, "db", "import", url, file(GOOD), "--experiment", "E", "--reactor", "R")[0] == 0
    )
    words = ("db", "export", url, tmp_path / "o.csv", "--experiment", "E", "--reactor", "X")
    code, text = run(capsys, *words)
    assert code == 3 and "no samples of X; it has R" in text
    assert run(capsys, "db", "export", url, tmp_path / "o.pdf", "--experiment", "E")[0] == 2
    assert run(capsys, "db", "downgrade", url, "base")[0] == 2
    code, text = run(capsys, "db", "downgrade", url, "base", "--drop-history")
    assert code == 0 and "no tables" in text
    assert run(capsys, "db", "upgrade", url, "--to", "0099")[0] == 2


def test_the_url_comes_from_the_environment_and_passwords_are_refused(capsys, monkeypatch, url):
    monkeypatch.setenv("PERFUSIO_DB_URL", url)
    code, text = run(capsys, "db", "status")
    assert code == 0 and "no samples" in text
    for debug in ([], ["--debug"]):
        try:
            code, text = run(capsys, *debug, "db", "status", "postgresql://ada:hunter2@h/d")
            assert code == 2
        except Exception as error:  # with --debug it comes through
            text = repr(error)
        assert "hunter2" not in text and "PGPASSWORD" in text


def test_an_export_that_fails_leaves_the_earlier_file(capsys, file, url, tmp_path, monkeypatch):
    run(capsys, "db", "import", url, file(GOOD), "--experiment", "E", "--reactor", "R")
    out = tmp_path / "sub" / "o.csv"
    out.parent.mkdir()
    out.write_text("precious")
    monkeypatch.setattr("os.replace", _full)
    code, text = run(capsys, "db", "export", url, out, "--experiment", "E")
    assert code == 2 and "exists; name another file, or say --force" in text
    code, text = run(capsys, "db", "export", url, out, "--experiment", "E", "--force")
    monkeypatch.undo()
    assert code == 4 and "cannot be written" in text
    assert out.read_text() == "precious" and list(out.parent.iterdir()) == [out]
    shutil.rmtree(out.parent)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


# ---------------------------------------------------------------- cells no spreadsheet runs


@given(st.text())
@example("=1+1")
@example("''=1")
@example("'plain")
def test_guarded_text_is_harmless_and_comes_back(text):
    cell = guard(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unguard(cell) == text


def test_a_campaign_with_names_like_formulas_comes_back(tmp_path):
    frame = pd.DataFrame(
        {
            "run_id": ['=HYPERLINK("http://x")'] * 2,
            "reactor_id": ["@R1"] * 2,
            "clone_id": ["'-X"] * 2,
            "time_h": [0.0, 24.0],
            "VCD": [1.0, 2.0],
        }
    )
    run_out = Trajectory.from_frame(frame)
    write_campaign([run_out], tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as table:
        assert not any(
            cell.startswith(("=", "@", "-")) for row in csv.reader(table) for cell in row
        )
    back = read_campaign(tmp_path / "c.csv").trajectories[0]
    assert json.dumps([back.run_id, back.reactor_id, back.clone_id]) == json.dumps(
        [run_out.run_id, run_out.reactor_id, run_out.clone_id]
    )
