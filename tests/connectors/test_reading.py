"""What both readers make of a table: samples of a reactor and campaigns of runs, by one rule."""

import asyncio
import datetime as dt

import numpy as np
import pandas as pd
import pytest

from perfusio_jax._core import ConfigError, DataError, UnitError
from perfusio_jax.connectors import FilesystemStore, read_campaign, write_campaign
from perfusio_jax.connectors.tables.report import ReadReport
from perfusio_jax.states import Trajectory


def write(folder, text: str, name: str = "t.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def rows(path, **settings):
    """(times [h], records, report) of a sample file of one run."""
    store = FilesystemStore(path, allow_unterminated=True, **settings)
    found = asyncio.run(store.read_rows())
    return [record.time_h for record in found], found, store.report()


def said(report: ReadReport) -> str:
    return " ".join((*report.notes, *report.doubtful))


@pytest.mark.parametrize(
    ("body", "name", "values", "told"),
    [
        ("day;Via\n0;97%\n1;96 %\n", "Via", [97, 96], ""),
        ("day;Via\n0;97%\n1;96\n", "Via", [97, 96], ""),
        ("day;Lac\n0;9\n1;<0,4\n2;8,5\n", "Lac", [9, 0.2, 8.5], "half"),
        ("day;Via\n0;97,5 %\n1;96 %\n", "Via", [97.5, 96], ""),
        ("day;Titer\n0;2.512,5 mg/L\n1;871\n", "Titer", [2512.5, 871], ""),
        ("day;Titer\n0;2.512,5\n1;871,0\n", "Titer", [2512.5, 871], ""),
        ("day;VCD [1/mL]\n0;310\u202f000\n1;420\u202f000\n", "VCD", [0.31, 0.42], ""),
        ("sep=;\nday;VCD\n0;0,4\n1;0,9\n", "VCD", [0.4, 0.9], "states the separator"),
        ("day;VCD;\n0;0.4;\n1;0.9;\n", "VCD", [0.4, 0.9], "end with a separator"),
        ("day;VCD;;\n0;0.4;;\n1;0.9;;\n", "VCD", [0.4, 0.9], "end with a separator"),
        ("day;VCD\n0;0.4\nday;VCD\n1;0.9\n", "VCD", [0.4, 0.9], "line 3 repeats the header"),
        ("day;VCD\n0;0.4\n1;0.9\nMean;0.65\n", "VCD", [0.4, 0.9], "line 4 ('Mean') sums"),
        ("Run 7, hall B\nday;VCD\n0;0.4\n", "VCD", [0.4], "line 1 stands above"),
        ("day;VCD\n;Mio/mL\n0;0.4\n", "VCD", [0.4], ""),
        ("day;VCD\n;x10^6 Cells / mL\n0;0.4\n", "VCD", [0.4], ""),
        ("time_h;VCD\n-0.5;0\n0;0.4\n24;0.9\n", "VCD", [0.4, 0.9], "before the inoculation"),
        ("day;volume_L\n0;240\n1;240\n", "volume_L", [240, 240], "outside 0.001 to 10 L"),
        ("day;temperature\n0;310\n1;310\n", "temperature", [310, 310], "outside 25 to 42 degC"),
        ("day;pH\n0;0.71\n1;0.72\n", "pH", [0.71, 0.72], "outside 5.5 to 8.5 pH"),
        ("day;bleed_rate;perfusion_rate\n0;2;1\n1;2;3\n", "bleed_rate", [2, 2], "in 1 row(s)"),
        ("time_h;VCD\n0;0.4\n0.3;0.5\n24;0.9\n", "VCD", [0.4, 0.5, 0.9], "samples of their own"),
        ("time_h;VCD\n0;0.4\n2;1.7\n4;8\n", "VCD", [0.4, 1.7, 8], "are these days, not hours"),
        ("day;VCD\n0;0.4\n24;1.7\n48;8\n", "VCD", [0.4, 1.7, 8], "are these hours"),
    ],
)
def test_both_readers_take_and_tell_the_same(tmp_path, body, name, values, told):
    _, records, report = rows(write(tmp_path, body))
    found = [
        r.volume_L if name == "volume_L" else {**r.values, **r.tags, **r.controls}[name]
        for r in records
    ]
    assert found == pytest.approx(values, rel=1e-9)
    assert told in said(report)
    lines = body.splitlines(keepends=True)
    top = next(n for n, line in enumerate(lines) if line.startswith(("day", "time_h")))
    for n, line in enumerate(lines[top:], start=top):
        is_text = line.startswith(("day", "time_h", ";", "Mean"))
        lead = ("run_id;" if line[0] in "dt" else ";") if is_text else "A;"
        lines[n] = ("Mean;;" + line[5:]) if line.startswith("Mean") else lead + line
    campaign = read_campaign(write(tmp_path, "".join(lines), "campaign.csv"))
    run = campaign.trajectories[0]
    if name == "volume_L":
        column = run.volume_L
    elif name in run.species_names:
        column = run.get_species(name)
    elif name in run.control_names:
        column = run.controls[:, run.control_names.index(name)]
    else:
        column = run.auxiliary[:, run.auxiliary_names.index(name)]
    np.testing.assert_allclose(column, values, rtol=1e-5)
    assert told in str(campaign.report)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("run_id;day;Titer\nA;3;871\nA;4;2,512\n", "thousands or decimals"),
        ("run_id;day;Titer\nA;3;871\nA;4;< 2,512\n", "thousands or decimals"),
        ("run_id;day;Titer\nA;3;871\nA;4;2,512 mg/L\n", "thousands or decimals"),
        ("run_id;day;VCD;Glc\nrun;T;Xv;G\nA;0;0.4;6\n", "second row of names"),
        ("run_id;day;VCD\nA;0;0.4\nA;end;0.9\n", "'end'"),
        ("run_id;day;VCD\nA;2026-05-06;0.4\n", "'2026-05-06'"),
    ],
)
def test_both_readers_refuse_the_same(tmp_path, body, words):
    path = write(tmp_path, body)
    with pytest.raises(DataError, match=words):
        rows(path)
    with pytest.raises(DataError, match=words):
        read_campaign(path)


@pytest.mark.parametrize("kind", [".parquet", ".xlsx"])
def test_numbers_that_are_text_in_a_table_of_numbers_are_no_guess(tmp_path, kind):
    """Decimal commas typed into a spreadsheet: `2,512` is not 2512 because the file is not text."""
    path = tmp_path / f"t{kind}"

    def write_texts(*texts):
        frame = pd.DataFrame({"run_id": "A", "day": [3, 4], "Titer": texts, "clone_id": "1,5"})
        frame.to_parquet(path) if kind == ".parquet" else frame.to_excel(path, index=False)

    def titers(**settings):
        found = [record.values["Titer"] for record in rows(path, **settings)[1]]
        if kind == ".parquet":
            run = read_campaign(path, **settings).trajectories[0]
            assert run.get_species("Titer").tolist() == pytest.approx(found)
        return found

    write_texts("871", "2,512")
    with pytest.raises(DataError, match="'2,512' in line .*thousands or decimals"):
        titers()
    if kind == ".parquet":
        with pytest.raises(DataError, match="'2,512' in line 2.*thousands or decimals"):
            read_campaign(path)
    assert titers(decimal=",") == [871, 2.512]
    assert titers(decimal=".") == [871, 2512]
    write_texts("871,25", "97,5 mg/L")
    assert titers() == [871.25, 97.5]


def test_a_spreadsheet_may_begin_further_right(tmp_path):
    path = tmp_path / "t.xlsx"
    frame = pd.DataFrame({"day": [0, 1], "VCD": [0.4, 0.9]})
    frame.to_excel(path, index=False, startcol=2)
    times, records, report = rows(path)
    assert times == [0.0, 24.0] and records[1].values == {"VCD": 0.9}
    assert [column.label for column in report.columns] == ["day", "VCD"]


def test_a_sample_id_that_names_no_sample_is_looked_at(tmp_path):
    """The name of a vessel in the column of samples makes one sample of two days."""
    path = write(tmp_path, "sample_id,day,VCD,Glc\nV1,0,0.4,\nV1,1,,4\n")
    assert "'V1' stands in line 2 and, 24 h later, in line 3" in " ".join(rows(path)[2].doubts)
    near = write(tmp_path, "sample_id,time_h,VCD,Glc\nV1,0,0.4,\nV1,3,,4\n", "near.csv")
    assert not rows(near)[2].doubts


def test_what_a_command_is_told_and_does_not_use_is_said(tmp_path):
    path = write(tmp_path, "day,VCD\n0,0.4\n1,0.9\n")
    begun = dt.datetime(2026, 5, 6, 8, tzinfo=dt.UTC)
    assert "start that was given is not used" in said(rows(path, inoculated_at=begun)[2])
    with pytest.raises(ConfigError, match="names no file"):
        FilesystemStore("")


@pytest.mark.parametrize(("mark", "titer"), [("comma", 2.512), ("point", 2512.0)])
def test_a_sidecar_tells_what_the_table_does_not(tmp_path, mark, titer):
    path = write(tmp_path, "run_id;day;Titer\nA;3;871\nA;4;2,512\n")
    write(tmp_path, f'decimal = "{mark}"\n', "t.units.toml")
    assert rows(path)[1][1].values["Titer"] == titer
    assert float(read_campaign(path).trajectories[0].get_species("Titer")[1]) == titer
    told = read_campaign(path, decimal=".")  # the argument beats the sidecar
    assert float(told.trajectories[0].get_species("Titer")[1]) == 2512.0


@pytest.mark.parametrize(
    "text",
    [
        'decimal = ";"\n',
        'date_order = "ymd"\n',
        '[totals]\nV_bleed_L = "sum"\n',
        '[totals]\nv_bleed = "cumulative"\n',
        '[metadata]\nA = "CloneX"\n',
        "[unit]\n",
    ],
)
def test_a_sidecar_that_says_nothing_known_is_refused(tmp_path, text):
    path = write(tmp_path, "run_id,day,Titer\nA,3,871\n")
    write(tmp_path, text, "t.units.toml")
    for read in (rows, read_campaign):
        with pytest.raises(DataError, match=r"sidecar t\.units\.toml has"):
            read(path)


@pytest.mark.parametrize("name", ["vcd", "Zelldichte", "Glc"])
def test_a_unit_that_no_column_takes_is_told(tmp_path, name):
    """In the table the cells are counted per mL; under another name nobody would convert them."""
    path = write(tmp_path, "run_id,day,VCD\nA,0,400000\nA,1,900000\n")
    write(tmp_path, f'[units]\n{name} = "1/mL"\n', "t.units.toml")
    assert f"not used, since no column has that name here (1): '{name}' in '1/mL'" in said(
        rows(path)[2]
    )
    with pytest.raises(DataError, match=f"units are given for {name}, which the table lacks"):
        read_campaign(path)


# ---------------------------------------------------------------- totals

BLED = "run_id,day,VCD,volume_L,bleed_rate,V_bleed_L\n" + "".join(
    f"A,{day},{day + 1},0.3,0.2,{'' if day == 0 else 0.06 * day:.4}\n" for day in range(5)
)
RESET = BLED.replace(",0.18\n", ",0.06\n").replace(",0.24\n", ",0.12\n")


def bled(path, **settings) -> tuple[list[float | None], list[float], str]:
    """The bleed by both readers, and what they say of it."""
    _, records, report = rows(path, **settings)
    campaign = read_campaign(path, totals=settings.get("totals"))
    total = np.asarray(campaign.trajectories[0].stream_totals)[:, 1]
    text = f"{said(report)} | {campaign.report}"
    return [record.stream_totals["V_bleed_L"] for record in records], total.tolist(), text


def test_a_total_that_accumulates_is_not_taken_for_increments(tmp_path):
    path = write(tmp_path, BLED)
    samples, campaign, text = bled(path)
    assert samples == [None] * 5 and np.isnan(campaign).all()
    assert text.count("looks cumulative and is not used") == 2
    record = rows(path)[1][2]
    assert record.quality["V_bleed_L"] == "bad" and "V_bleed_L looks cumulative" in record.notes[0]


@pytest.mark.parametrize(("text", "resets"), [(BLED, ""), (RESET, "starts anew in line 5")])
@pytest.mark.parametrize("how", ["argument", "sidecar"])
def test_a_counter_is_differenced_when_told(tmp_path, text, resets, how):
    path = write(tmp_path, text)
    if how == "sidecar":
        write(tmp_path, '[totals]\nV_bleed_L = "cumulative"\n', "t.units.toml")
    samples, campaign, words = bled(path, **{"totals": "cumulative"} if how == "argument" else {})
    assert samples[0] is None and samples[1:] == pytest.approx([0.06] * 4)
    np.testing.assert_allclose(campaign[1:], 0.06, rtol=1e-6)
    assert words.count("V_bleed_L is cumulative and was differenced") == 2
    assert words.count(resets) >= 2


def test_increments_are_kept_when_told(tmp_path):
    samples, campaign, words = bled(write(tmp_path, BLED), totals="increments")
    assert samples[1:] == pytest.approx([0.06, 0.12, 0.18, 0.24])
    np.testing.assert_allclose(campaign[1:], [0.06, 0.12, 0.18, 0.24], rtol=1e-6)
    assert "cumulative" not in words


def test_a_column_map_tells_which_total_is_a_counter(tmp_path):
    path = write(tmp_path, BLED.replace("V_bleed_L", "Bleed sum"))
    column_map = {"Bleed sum": {"name": "V_bleed_L", "totals": "cumulative"}}
    totals = [record.stream_totals["V_bleed_L"] for record in rows(path, column_map=column_map)[1]]
    assert totals[1:] == pytest.approx([0.06] * 4)


def test_runs_whose_increments_rise_read_back_to_the_same_numbers(tmp_path):
    totals = np.full((8, 4), np.nan)
    totals[1:, 2] = np.arange(1, 8) * 0.01
    run = Trajectory(
        species=np.ones((8, 1)),
        controls=np.ones((8, 1)),
        volume_L=np.full(8, 0.25),
        days=np.arange(8),
        species_names=["VCD"],
        control_names=["temperature"],
        run_id="A",
        clone_id="C",
        reactor_id="R",
        stream_totals=totals,
    )
    write_campaign([run], tmp_path / "c.csv")
    back = read_campaign(tmp_path / "c.csv").trajectories[0]
    np.testing.assert_array_equal(back.stream_totals, run.stream_totals)
    np.testing.assert_array_equal(
        Trajectory.from_frame(run.to_frame()).stream_totals, run.stream_totals
    )


# ---------------------------------------------------------------- readings minutes apart


def test_a_count_after_the_metabolites_is_of_the_same_sample(tmp_path):
    path = write(tmp_path, "time_h,VCD,Glc\n48,,4.1\n48.4,7.2,\n72,9.5,3.3\n")
    store = FilesystemStore(path)
    record = asyncio.run(store.read_record(2))
    assert record.values == {"VCD": 7.2, "Glc": 4.1}
    assert "joined to one sample (1): line 3 to line 2, 0.4 h later" in store.report().notes[0]
    times, apart, _ = rows(path, join_within_h=0.0)
    assert times == [48.0, 48.4, 72.0] and apart[0].values["VCD"] is None


def test_two_readings_of_one_sample_stay_two_and_are_named(tmp_path):
    text = "time_h,species,value\n48,Gln,2.2\n48.1,Glc,4.1\n48.7,Glc,4.4\n"
    path = write(tmp_path, text)
    times, records, report = rows(path, wide_format=False)
    assert times == [48.0, 48.7]
    assert [r.values["Glc"] for r in records] == [4.1, 4.4]
    assert "Glc of 48.1 h is 4.1 in line 3 and 4.4 in line 4, 0.6 h later" in report.doubts[0]
    record = asyncio.run(FilesystemStore(path, wide_format=False).read_record(2))
    assert record.values == {"Gln": 2.2, "Glc": 4.1}


def test_a_feed_between_two_readings_is_told_and_nothing_is_joined(tmp_path):
    path = write(tmp_path, "time_h,VCD,Gln\n48,7,0.8\n48.4,7,3.9\n72,9,2\n")
    times, _, report = rows(path)
    assert times == [48.0, 48.4, 72.0] and report.doubts == ()
    assert "Gln rises from 0.8 to 3.9 in 0.4 h at the same cells: a feed? (line 3)" in said(report)


def test_a_sample_id_joins_what_is_hours_apart_and_its_conflicts_refuse_the_day(tmp_path):
    text = "time_h,sample_id,VCD,Titer\n48,S2,7,\n53,S2,,210\n72,S3,9,\n72.2,S4,8.5,\n"
    times, records, report = rows(write(tmp_path, text))
    assert times == [48.0, 72.0, 72.2]
    assert records[0].values == {"VCD": 7.0, "Titer": 210.0}
    assert "of one sample_id" in report.notes[0]
    clash = write(tmp_path, text.replace("S2,,210", "S2,7.5,210"), "clash.csv")
    with pytest.raises(DataError, match="VCD of day 2 is 7 in line 2 and 7.5 in line 3"):
        rows(clash)
    assert rows(clash, on_conflict="last")[1][0].values["VCD"] == 7.5


def test_a_tag_that_moved_between_two_readings_does_not_keep_them_apart(tmp_path):
    path = write(tmp_path, "time_h,VCD,Glc,pH\n48,,4.1,7.05\n48.3,7.2,,7.06\n")
    _, records, _ = rows(path)
    assert (records[0].values["VCD"], records[0].tags["pH"]) == (7.2, 7.05)
    assert "pH of day 2 is 7.05 in line 2 and 7.06 in line 3: the first counts" in records[0].notes


# ---------------------------------------------------------------- columns and rows


def test_an_amino_acid_panel_leaves_the_file_readable(tmp_path):
    path = write(tmp_path, "run_id,day,VCD,Lys\n,,1e6 cells/mL,mM\nA,0,0.4,5.1\n")
    _, records, report = rows(path)
    assert records[0].values == {"VCD": 0.4}
    remark = next(c.remark for c in report.columns if c.label == "Lys")
    assert "density of lysed cells here; in 'mM' it is something else (lysine?)" in remark
    assert rows(path, column_map={"Lys": "ignore"})[2].unknown == ()
    with pytest.raises(DataError, match="lysed cells here; in 'mM'.*unknown='ignore'"):
        read_campaign(path)
    assert "lysed cells" in str(read_campaign(path, unknown="ignore").report)


def test_a_unit_that_does_not_fit_says_how_to_go_on(tmp_path):
    path = write(tmp_path, "day,VCD,Glc [rpm]\n0,0.4,6\n")
    with pytest.raises(UnitError, match=r"'Glc \[rpm\]' = 'ignore' \(--map\)"):
        rows(path)
    assert rows(path, column_map={"Glc": "ignore"})[1][0].values == {"VCD": 0.4}


def test_only_rows_before_the_inoculation_are_an_error(tmp_path):
    with pytest.raises(DataError, match="before the inoculation; so is every other row"):
        rows(write(tmp_path, "time_h,VCD\n-2,0\n-1,0\n"))


def test_two_clones_in_one_vessel_are_pointed_out(tmp_path):
    path = write(tmp_path, "clone_id,reactor_id,day,VCD\nP,7,0,0.4\nQ,7,1,0.5\n")
    assert "reactor '7' has the clones P, Q" in rows(path)[2].doubts[0]


def test_long_format_counts_each_species_and_takes_names_from_the_map(tmp_path):
    text = "day,species,value,unit\n0,Glukose,540,g/L\n1,Glukose,x,g/L\n0,VCD,0.4,\n0,Note,1,\n"
    column_map = {"Glukose": "Glc", "Note": "ignore", "Size": "Diam"}
    path = write(tmp_path, text)
    report = rows(path, wide_format=False, column_map=column_map)[2]
    glucose, cells = report.species
    assert (glucose.name, glucose.n_values, glucose.n_unusable) == ("Glc", 1, 1)
    assert glucose.span == (540.0, 540.0) and "outside 0 to 20 g/L" in glucose.doubt
    assert (cells.name, cells.n_values, cells.doubt) == ("VCD", 1, "")
    assert "not in the table (1): 'Size'" in said(report)


def test_a_day_between_days_is_a_time_unless_a_time_stands_beside_it(tmp_path):
    path = write(tmp_path, "run_id,day,VCD\nA,0,1\nA,5.1,4\n")
    run = read_campaign(path).trajectories[0]
    assert run.times_h.tolist() == pytest.approx([0.0, 122.4]) == rows(path)[0]
    assert run.days.tolist() == [0, 5]
    with pytest.raises(DataError, match=r"day is 5.1 in line 2; beside a column time_h \[h\]"):
        read_campaign(write(tmp_path, "run_id,day,time_h,VCD\nA,5.1,122.4,4\n"))


def test_readings_beyond_the_assay_are_limits_in_a_campaign(tmp_path):
    path = write(tmp_path, "run_id,day,Glc,Lac\nA,0,> 25,<0.4\nA,1,5,<0.4\n")
    run, report = read_campaign(path)[0][0], read_campaign(path).report
    assert np.isnan(run.get_species("Glc")[0])
    np.testing.assert_allclose(run.get_species("Lac"), 0.2)
    np.testing.assert_array_equal(run.host_limits(["Glc"])[0, 0], [np.nan, 25.0])
    np.testing.assert_array_equal(run.host_limits(["Lac"])[:, 0], [[0.4, np.nan]] * 2)
    assert "Glc is above what the assay reads, in 1 row(s)" in report.warnings[0]
    assert "Lac is below the limit of the assay, shown as half of it, in 2" in report.warnings[1]
    assert rows(path)[1][0].quality == {"Glc": "bad", "Lac": "uncertain"}
