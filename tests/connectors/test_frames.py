"""The campaign table: round trips, and a refusal for every way to break it."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, STREAM_TOTALS, DataError, UnitError
from perfusio_jax.connectors import (
    campaign_from_frame,
    campaign_to_frame,
    read_campaign,
    write_campaign,
)
from perfusio_jax.connectors.files.campaign_files import sidecar_path, units_template
from perfusio_jax.states import Trajectory

CSV = """run_id,reactor_id,clone_id,time_h,VCD,Via,Glc,perfusion_rate,bleed_rate
,,,h,1e6 cells/mL,%,g/L,vvd,vvd
E1,R1,CX,0,0.5,98,6,1.0,0.1
E1,R1,CX,24,1.0,97,,1.0,0.1
E2,R2,CY,0,0.6,98,6,1.5,0.2
"""


def run(name: str, n: int = 4, *, seed: int = 0, **changes) -> Trajectory:
    rng = np.random.default_rng(seed)
    species = rng.uniform(1, 50, (n, len(STATE_ORDER)))
    species[rng.uniform(size=species.shape) < 0.2] = np.nan
    fields = dict(
        species=species,
        controls=rng.uniform(0.1, 2, (n, len(CONTROL_NAMES))),
        volume_L=rng.uniform(0.2, 0.3, n),
        days=np.arange(n),
        species_names=STATE_ORDER,
        control_names=CONTROL_NAMES,
        run_id=name,
        clone_id="CX",
        reactor_id="R7",
    )
    return Trajectory(**{**fields, **changes})


def same(a: Trajectory, b: Trajectory) -> None:
    for name in (
        "species",
        "controls",
        "volume_L",
        "days",
        "times_h",
        "stream_totals",
        "auxiliary",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in ("species_names", "control_names", "auxiliary_names", "run_id", "clone_id"):
        assert getattr(a, name) == getattr(b, name)
    assert a.reactor_id == b.reactor_id
    assert a.metadata == b.metadata


@pytest.fixture
def table(tmp_path: Path):
    """Write a text as a table and return its path."""

    def write(text: str, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_frame_round_trip_keeps_every_number():
    runs = [run("A", 4, seed=1), run("B", 7, seed=2)]
    back, report = campaign_from_frame(campaign_to_frame(runs))
    for before, after in zip(runs, back, strict=True):
        same(before, after)
    assert report.run_ids == ("A", "B")
    assert report.n_rows == 11
    assert not report.converted and not report.reordered and not report.ignored


def test_trajectory_delegates_to_the_table():
    before = run("A", seed=3)
    same(before, Trajectory.from_frame(before.to_frame()))
    two = campaign_to_frame([run("A"), run("B")])
    with pytest.raises(DataError, match="2 runs"):
        Trajectory.from_frame(two)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_file_round_trip_keeps_every_number(tmp_path: Path, suffix: str):
    totals = np.full((4, len(STREAM_TOTALS)), 0.01)
    totals[0] = np.nan
    runs = [
        run("A", seed=1, metadata={"medium lot": "L-17"}, stream_totals=totals),
        run("B", seed=2, auxiliary=np.full((4, 2), 7.1), auxiliary_names=("pH", "TMP")),
    ]
    path = tmp_path / f"campaign{suffix}"
    write_campaign(runs, path)
    back, report = read_campaign(path)
    same(runs[0], back[0].__class__(**_without_tags(back[0])))
    same(runs[1], back[1])
    assert np.all(np.isnan(back[0].auxiliary))
    assert report.assumed == {}


def _without_tags(t: Trajectory) -> dict:
    names = ("species", "controls", "volume_L", "days", "species_names", "control_names", "run_id",
             "clone_id", "reactor_id", "metadata", "times_h", "stream_totals")  # fmt: skip
    return {name: getattr(t, name) for name in names}


@settings(max_examples=25)
@given(
    values=st.lists(
        st.one_of(st.floats(0, 1e4, allow_subnormal=False), st.just(math.nan)),
        min_size=1,
        max_size=6,
    ),
    gaps=st.lists(st.floats(0.5, 60), min_size=6, max_size=6),
)
def test_any_numbers_survive_a_csv_file(tmp_path: Path, values: list[float], gaps: list[float]):
    n = len(values)
    times = np.cumsum(gaps[:n])
    before = run(
        "A",
        n,
        species=np.array(values)[:, None],
        species_names=["Lac"],
        times_h=times,
        days=np.floor(times / 24 + 0.5),
    )
    write_campaign([before], tmp_path / "a.csv")
    same(before, read_campaign(tmp_path / "a.csv").trajectories[0])


def test_csv_is_read_with_its_units_row(table):
    runs, report = read_campaign(table(CSV))
    assert [r.run_id for r in runs] == ["E1", "E2"]
    assert runs[0].species_names == ("VCD", "Via", "Glc")
    assert np.isnan(runs[0].get_species("Glc")[1])
    assert report.missing == {"Glc": 1}
    assert report.assumed == {"volume_L": "0.25 L"}
    assert "comma-separated" in str(report) and "missing values: Glc 1" in str(report)
    assert np.all(np.isnan(runs[0].stream_totals))


def test_units_are_converted_and_reported(table):
    text = CSV.replace("1e6 cells/mL", "10⁶ cells mL⁻¹").replace(",g/L", ",mmol/L")
    runs, report = read_campaign(table(text))
    assert report.converted == {"Glc": "mmol/L -> g/L"}
    assert float(runs[0].get_species("Glc")[0]) == pytest.approx(6 * 0.180156)
    assert float(runs[0].get_species("VCD")[1]) == 1.0


def test_units_in_the_header_the_sidecar_and_the_argument_agree(table):
    bare = CSV.replace(",,,h,1e6 cells/mL,%,g/L,vvd,vvd\n", "")
    expected = 6 * 0.180156
    header = read_campaign(table(bare.replace("Glc", "Glc [mmol/L]"))).trajectories[0]
    assert float(header.get_species("Glc")[0]) == pytest.approx(expected)

    path = table(bare, "side.csv")
    sidecar_path(path).write_text('[units]\nGlc = "mmol/L"\n')
    runs, report = read_campaign(path)
    assert float(runs[0].get_species("Glc")[0]) == pytest.approx(expected)
    assert "VCD 1e6 cells/mL" in report.assumed["units"]

    frame = pd.DataFrame({"run_id": ["A"], "time_h": [0.0], "Glc": [6.0]})
    runs, _ = campaign_from_frame(frame, units={"Glc": "mmol/L"})
    assert float(runs[0].get_species("Glc")[0]) == pytest.approx(expected)


def test_semicolons_decimal_commas_and_a_byte_order_mark_are_coped_with(tmp_path: Path):
    text = CSV.replace(",", ";").replace("0.5", "0,5").replace("1.0", "1,0").replace("0.1", "0,1")
    text = text.replace("0.6", "0,6").replace("1.5", "1,5").replace("0.2", "0,2")
    path = tmp_path / "german.csv"
    path.write_text(text, encoding="utf-8-sig")
    runs, report = read_campaign(path)
    assert float(runs[0].get_species("VCD")[0]) == 0.5
    assert report.notes == ("read as semicolon-separated text with a decimal comma.",)


def test_rows_out_of_order_are_sorted_and_reported():
    frame = pd.DataFrame(
        {"run_id": ["A", "B", "A"], "time_h": [24.0, 0.0, 0.0], "VCD": [2.0, 9.0, 1.0]}
    )
    runs, report = campaign_from_frame(frame)
    assert report.reordered == ("A",)
    np.testing.assert_array_equal(runs[0].get_species("VCD"), [1.0, 2.0])
    assert "put rows in order of time: A" in str(report)


def test_day_stands_in_for_time_and_is_kept_where_it_differs():
    frame = pd.DataFrame({"run_id": ["A", "A"], "day": [3, 4], "VCD": [1.0, 2.0]})
    runs, report = campaign_from_frame(frame)
    np.testing.assert_array_equal(runs[0].times_h, [72.0, 96.0])
    assert report.assumed["time_h"] == "24 h per day"
    odd = run("A", 3, times_h=[0.0, 30.0, 60.0])
    frame = campaign_to_frame([odd])
    assert list(frame["day"]) == [0, 1, 2]
    same(odd, campaign_from_frame(frame).trajectories[0])


def test_a_day_beside_another_time_is_told():
    frame = pd.DataFrame({"run_id": "A", "day": [0, 5], "time_h": [0, 24], "VCD": [1.0, 2.0]})
    runs, report = campaign_from_frame(frame)
    np.testing.assert_array_equal(runs[0].times_h, [0.0, 24.0])
    assert "not the same day in 1 row(s) (day 5 and 24 h in row 1)" in str(report)
    frame["time_h"] = [0, 130]
    assert "not the same day" not in str(campaign_from_frame(frame).report)


def test_an_empty_species_stays_nan_and_is_named():
    frame = pd.DataFrame({"run_id": ["A", "A"], "time_h": [0, 24], "Pyr": [None, None]})
    runs, report = campaign_from_frame(frame)
    assert report.empty == ("Pyr",)
    assert np.all(np.isnan(runs[0].get_species("Pyr")))


def test_strange_but_legal_values_are_pointed_out():
    frame = pd.DataFrame(
        {
            "run_id": ["A"],
            "time_h": [0],
            "Via": [100.4],
            "bleed_rate": [1.0],
            "perfusion_rate": [0.5],
        }
    )
    warnings = campaign_from_frame(frame).report.warnings
    assert len(warnings) == 2
    assert "Via is above 100" in warnings[0] and "bleed_rate is above" in warnings[1]


def test_unknown_columns_are_refused_or_left_out_by_name(table):
    text = CSV.replace("Glc", "Glucose_value")
    with pytest.raises(DataError, match=r"'Glucose_value' is not known"):
        read_campaign(table(text))
    with pytest.raises(DataError, match=r"Did you mean 'Titer'"):
        read_campaign(table(CSV.replace("Glc", "titre")))
    runs, report = read_campaign(table(text), unknown="ignore")
    assert report.ignored == ("Glucose_value",)
    assert "Glc" not in runs[0].species_names


REFUSED = [
    ("", "is empty"),
    ("\n\n", "is empty"),
    ("run_id,time_h,VCD\n", "no rows"),
    (CSV.split("E1")[0], "no rows"),
    ("a b c\n1 2 3\n", "none of the columns"),
    (CSV.replace("Via", "VCD"), "VCD occurs more than once"),
    (CSV.replace("run_id", "Diam", 1), "column 'Diam' holds 'E1' in line 3"),
    (
        CSV.replace("E1,R1,CX,24", "E1,R1,CX,0"),
        "VCD of one sample is .* in line 3 and .* in line 4; keep one",
    ),
    (CSV.replace("E1,R1,CX,24", "E1,R1,CX,"), "time_h is empty in line 4"),
    (CSV.replace("time_h", "day").replace(",h,", ",d,").replace("CX,24", "CX,"), "day is empty"),
    (CSV.replace("E1,R1,CX,24", "E1,R1,CX,soon"), "'soon' in line 4"),
    (CSV.replace(",98,6,1.0", ",98,-6,1.0"), "'Glc' is negative in line 3"),
    (CSV.replace(",98,6,1.0", ",98,inf,1.0"), "'Glc' is infinite in line 3"),
    (CSV.replace(",98,6,1.0", ',98,"6,5",1.0'), "decimal comma needs another separator"),
    (CSV.replace(",98,6,1.0", ",98,6,1,0"), "decimal comma"),
    (CSV + "E2,R2,CY,24,0.7", "half-written"),
    (CSV.replace("E1,R1,CX,24", ",R1,CX,24"), "run_id is empty in line 4"),
    (CSV.replace("E1,R1,CX,24", "E1,R2,CX,24"), "reactor_id of run 'E1' changes"),
    (CSV.replace("E1,R1,CX,24", "E1,R1,CY,24"), "clone_id of run 'E1' changes"),
    (CSV.replace("Glc", "volume_L").replace("g/L", "L"), "volume_L is empty or zero in line 4"),
    (CSV.replace(",", ";").replace("0.5", "0,5"), "use one decimal mark"),
    (CSV.replace("Glc", "day").replace("g/L", "d"), "day is empty in line 4"),
    (
        CSV.replace("Glc", "day").replace("g/L", "d").replace(",97,,", ",97,0.5,"),
        "day is 0.5 in line 4",
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_broken_tables_are_refused_with_the_place(table, text: str, message: str):
    with pytest.raises(DataError, match=message):
        read_campaign(table(text))


def test_a_unit_that_does_not_fit_names_the_column_and_the_file(table):
    path = table(CSV.replace(",g/L", ",rpm"))
    with pytest.raises(UnitError, match=r"t\.csv: column 'Glc' has unit 'rpm'"):
        read_campaign(path)


def test_files_that_are_no_table_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        read_campaign(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"suffix '\.ods'"):
        read_campaign(tmp_path / "a.ods")
    broken = tmp_path / "a.parquet"
    broken.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_campaign(broken)
    latin = tmp_path / "l.csv"
    latin.write_bytes("run_id,time_h,VCD\nä,0,1\n".encode("latin-1"))
    read = read_campaign(latin)
    assert read.report.run_ids == ("ä",)
    assert "not UTF-8 and was read as Windows-1252" in str(read.report)


def test_a_sidecar_that_contradicts_or_confuses_is_refused(table):
    path = table(CSV)
    side = sidecar_path(path)
    side.write_text('[units]\nGlc = "mmol/L"\n')
    with pytest.raises(DataError, match="by the units row and in 'mmol/L' by the sidecar"):
        read_campaign(path)
    side.write_text('[units]\nLac = "mmol/L"\n')
    with pytest.raises(DataError, match="units are given for Lac"):
        read_campaign(path)
    side.write_text("[unit]\n")
    with pytest.raises(DataError, match="has tables unit"):
        read_campaign(path)
    side.write_text("= 3")
    with pytest.raises(DataError, match="not TOML"):
        read_campaign(path)


def test_runs_that_cannot_be_one_table_are_refused():
    with pytest.raises(DataError, match="A is used by more than one run"):
        campaign_to_frame([run("A"), run("A")])
    odd = run("A", species=np.ones((4, 1)), species_names=["Foo"])
    with pytest.raises(DataError, match="'Foo' is not known"):
        campaign_to_frame([odd])


def test_runs_with_different_columns_share_a_table():
    short = run("B", species=np.ones((4, 1)), species_names=["Diam"])
    frame = campaign_to_frame([run("A"), short])
    back = campaign_from_frame(frame).trajectories
    assert back[1].species_names == ("VCD", "Via", "Diam", *STATE_ORDER[2:])
    assert np.all(np.isnan(back[1].get_species("Glc")))
    np.testing.assert_array_equal(back[1].get_species("Diam"), 1.0)


def test_writing_again_removes_a_stale_sidecar(tmp_path: Path):
    path = tmp_path / "a.csv"
    write_campaign([run("A", metadata={"lot": "1"})], path)
    assert sidecar_path(path).exists()
    write_campaign([run("A")], path)
    assert not sidecar_path(path).exists()


def test_units_template_is_a_usable_sidecar(table):
    path = table(CSV.replace(",,,h,1e6 cells/mL,%,g/L,vvd,vvd\n", ""))
    names = ["time_h", "VCD", "Via", "Glc", "perfusion_rate", "bleed_rate"]
    sidecar_path(path).write_text(units_template(names))
    assert read_campaign(path).report.assumed == {"volume_L": "0.25 L"}
