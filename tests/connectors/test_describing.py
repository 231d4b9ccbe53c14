"""A process read off a table: every rule, and a sentence for everything that is assumed."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from perfusio_jax._core import DataError, UnitError
from perfusio_jax.connectors import Described, describe_table, read_campaign
from perfusio_jax.connectors.files.process_comments import commented_toml
from perfusio_jax.process import Process

YEAST = """run_id,time_h,X,Glc,EtOH,Astaxanthin
,h,g/L,g/L,g/L,mg/L
b1,0,0.4,41,0.0,0.0
b1,5.5,1.3,39.5,0.3,0.2
b1,30,6,20.5,5,1.9
b2,0,0.5,80,0.1,0
b2,7,2.0,75,0.6,0.5
b2,50,12.0,15,9.6,7.5
"""


@pytest.fixture
def describe(tmp_path):
    def read(text: str, **more) -> Described:
        path = tmp_path / "my runs.csv"
        path.write_text(text, encoding="utf-8")
        return describe_table(path, **more)

    return read


def with_columns(n_rows: int = 6, **columns) -> str:
    """One run of a growing culture with further columns of cells; `_` ends a unit's name."""
    head = ["run_id", "time_h", "X [g/L]", *(name for name in columns)]
    rows = [
        ["r", str(4 * k), f"{0.5 * 1.3**k:.3f}", *(str(values[k]) for values in columns.values())]
        for k in range(n_rows)
    ]
    return "\n".join(",".join(row) for row in [head, *rows]) + "\n"


def about(found: Described, name: str) -> str:
    return " ".join(text for text in found.assumptions if text.startswith(f"{name}:"))


# ------------------------------------------------------------------ quantities


def test_a_batch_of_yeast(describe, tmp_path):
    found = describe(YEAST)
    process = found.process
    assert process.name == "my_runs" and process.carried == ("X", "Glc", "EtOH", "Astaxanthin")
    assert process.biomass == "X" and "rates are taken to be per X" in about(found, "biomass")
    assert process.controls == () and process.streams == ()
    assert process.volume_L == 1.0 and "1 L is assumed" in about(found, "volume_L")
    x, glc = process.quantity("X"), process.quantity("Glc")
    assert (x.unit, x.lo, x.hi, x.cv) == ("g/L", 0.0, 36.0, 0.07)
    assert (glc.label, glc.hi) == ("Glucose", 240.0)  # beyond the range we know
    assert process.quantity("Astaxanthin").unit == "mg/L"
    np.testing.assert_allclose(
        x.floor, 0.01 * np.quantile([0.4, 1.3, 6, 0.5, 2, 12], 0.9), rtol=1e-2
    )
    campaign = read_campaign(tmp_path / "my runs.csv", unknown="ignore", process=process)
    assert campaign.trajectories[1].species_names == process.readings
    np.testing.assert_allclose(campaign.trajectories[0].times_h, [0, 5.5, 30])


CHO = "run_id,day,VCD,Via,Glc,Lac\na,0,0.5,98,6,1\na,1,1.1,97,5,5\na,2,2.3,97,4,9\n"


def test_viability_follows_from_cells_of_which_the_dead_are_latent(describe):
    found = describe(CHO)
    assert found.process.carried == ("VCD", "DCD", "Glc", "Lac")
    assert found.process.latent == ("DCD",) and found.process.biomass == "VCD"
    via = found.process.quantity("Via")
    assert (via.kind, via.formula, via.of, via.cv) == ("derived", "viability", ("VCD", "DCD"), 0.02)
    assert "nobody counts dead cells" in about(found, "DCD")
    assert about(found, "Glc") == "" and found.process.quantity("Glc").hi == 20.0


def test_dead_cells_that_are_counted_are_measured(describe):
    found = describe("run_id,day,VCD,DCD,Via\na,0,0.5,0.01,98\na,1,1.1,0.03,97\n")
    assert found.process.latent == () and found.process.quantity("Via").formula == "viability"
    assert about(found, "DCD") == ""


def test_viability_without_cells_is_read_and_not_modelled(describe):
    found = describe(with_columns(Via=[99, 98, 97, 97, 96, 95]))
    via = found.process.quantity("Via")
    assert (via.kind, via.formula, via.of) == ("derived", "", ())
    assert "there is no VCD" in about(found, "Via")


@pytest.mark.parametrize("name", ["biomass", "CDW", "DCW", "OD", "Cells", "cells"])
def test_biomass_is_the_first_name_that_is_one(describe, name):
    text = with_columns(Glc=[9, 8, 7, 6, 4, 2]).replace("X [g/L]", f"{name} [g/L]")
    assert describe(text).process.biomass == name


@pytest.mark.parametrize(
    "name", ["OD600", "OD_600", "Biomass_DW", "dry_cell_weight", "WCW", "CDW_g", "total_biomass"]
)
def test_a_name_that_holds_the_word_is_biomass_too(describe, name):
    text = with_columns(Glc=[9, 8, 7, 6, 4, 2], D=[0.1] * 3 + [0.2] * 3).replace("X [", f"{name} [")
    found = describe(text.replace(",D\n", ",Dilution [1/d]\n"))
    assert found.process.biomass == name
    assert name not in found.process.streams[0].carries  # no feed brings cells


def test_whatever_tells_of_the_same_cells_is_in_no_feed_either(describe):
    weights, dilution = [2, 3, 4, 5, 7, 9], [0.1] * 3 + [0.2] * 3
    columns = {"OD600": weights, "dead_biomass [g/L]": weights, "Dilution [1/d]": dilution}
    found = describe(with_columns(**columns).replace("X [g/L]", "WCW [g/L]"))
    assert found.process.biomass == "OD600" and "WCW tells of the same" in about(found, "biomass")
    assert found.process.quantity("OD600").unit == "OD"
    assert set(found.process.streams[0].carries) == {"dead_biomass"}


def test_without_biomass_rates_are_volumetric(describe):
    found = describe(with_columns(Glc=[9, 8, 7, 6, 4, 2]).replace("X [g/L]", "Y [g/L]"))
    assert found.process.biomass is None and "volumetric" in about(found, "biomass")


def test_what_follows_from_cells_is_left_out(describe):
    found = describe(CHO.replace("Lac", "Diam").replace(",9\n", ",17\n"))
    assert "Diam" not in found.process.readings
    assert about(found, "Diam") == "Diam: follows from the cells; left out."


def test_our_species_have_our_units_whatever_the_table_has(describe):
    found = describe("run_id,day,VCD [cells/mL],Glc [mmol/L]\na,0,5e5,30\na,1,1.1e6,20\n")
    assert found.process.quantity("VCD").unit == "1e6 cells/mL"
    assert found.process.quantity("Glc").unit == "g/L"
    np.testing.assert_allclose(found.process.quantity("Glc").floor, 0.01 * 5.22, rtol=1e-2)


def test_what_is_no_concentration_is_a_level(describe):
    ph, foam = [7.1, 7.0, 6.9, 7.05, 6.8, 6.7], [3, 5, 9, 2, 6, 4]
    found = describe(with_columns(**{"pH": ph, "DO": foam, "foam [mm]": foam}))
    assert found.process.levels == ("pH", "DO", "foam")
    level = found.process.quantity("pH")
    # a pH held within 0.4 may leave that by a whole step and still be believed
    assert (level.unit, level.lo, level.hi) == ("pH", 5.7, 8.1)
    assert found.process.quantity("foam").lo == -1.5  # a level may be below 0
    assert "is no concentration" in about(found, "foam")


def test_a_ph_errs_by_a_number_and_leaves_what_it_was_held_at(describe):
    found = describe(with_columns(pH=[5.0, 5.01, 4.99, 5.02, 4.98, 5.0]))
    level = found.process.quantity("pH")
    assert (level.lo, level.hi) == (3.98, 6.02)
    assert (level.cv, level.floor) == (0.0, 0.05)
    assert "err by 0.05." in about(found, "pH")


def test_a_share_or_a_volume_is_not_believed_far_below_nothing(describe):
    found = describe(
        with_columns(**{"DO": [98, 60, 20, 1, 0.2, 30], "base [mL]": [0, 1, 3, 6, 8, 9]})
    )
    assert found.process.quantity("DO").lo == -4.9
    assert found.process.quantity("base").lo == -0.45


def test_what_a_pump_has_given_so_far_is_counted_better_than_it_is_assayed(describe):
    given, held = [0, 2, 5, 9, 14, 20], [3, 2, 5, 4, 6, 5]
    found = describe(with_columns(**{"base [mL]": given, "foam [mL]": held, "hold-up [mm]": given}))
    base, foam = found.process.quantity("base"), found.process.quantity("foam")
    assert (base.kind, base.cv, foam.cv) == ("level", 0.01, 0.07)
    assert "err by 1 %, as a counter" in about(found, "base")


def test_a_probe_in_a_unit_of_its_own_is_a_level_in_that_unit(describe, tmp_path):
    found = describe(with_columns(**{"DO [mg/L]": [7, 6.5, 6, 5, 4, 3]}))
    oxygen = found.process.quantity("DO")
    assert (oxygen.kind, oxygen.unit) == ("level", "mg/L")
    assert "is read by a probe" in about(found, "DO")
    (run,) = read_campaign(tmp_path / "my runs.csv", process=found.process).trajectories
    np.testing.assert_allclose(run.get_species("DO")[:2], [7, 6.5])
    found = describe(with_columns(**{"DO [mg/L]": [7] * 6, "pH [AU]": [7] * 6}))
    assert found.process.readings == ("X",) and about(found, "DO") and about(found, "pH")
    path = tmp_path / "my runs.csv"
    campaign = read_campaign(path, process=found.process, unknown="ignore")
    assert campaign.trajectories[0].auxiliary_names == ()
    assert "DO is in 'mg/L', which is no unit of it, and left out." in campaign.report.warnings


def test_a_quantity_without_a_unit_is_assumed_to_be_in_grams(describe):
    found = describe(with_columns(Acid=[1, 2, 4, 5, 7, 8], rq_out=[0.9, 1, 1.1, 0.8, 1.2, 1.3]))
    assert found.process.quantity("Acid").unit == "g/L" and "'g/L' is assumed" in about(
        found, "Acid"
    )
    rq = found.process.quantity("rq_out")
    assert (rq.kind, rq.unit) == ("level", "1") and "'1' is assumed" in about(found, "rq_out")


def test_readings_below_zero_of_a_concentration_are_pointed_out(describe):
    found = describe(with_columns(**{"Acid [g/L]": [-0.1, 2, 4, 5, 7, 8]}))
    assert "1 reading(s) are below 0" in about(found, "Acid")
    assert found.process.quantity("Acid").lo == 0.0


def test_a_concentration_that_is_nowhere_above_zero_is_none(describe):
    found = describe(with_columns(**{"Acid [g/L]": [-1, -2, -4, 0, -3, -1.5]}))
    assert found.process.readings == ("X",)
    assert "no reading is above 0" in about(found, "Acid")


# ------------------------------------------------------------------ what is left out


def test_columns_that_say_nothing_are_left_out_and_told(describe):
    found = describe(
        with_columns(
            operator=["an", "bo", "an", "bo", "an", "bo"],
            EtOH=[0, 0, 0, 0, 0, 0],
            Acid=["", "", "", "", "", ""],
            Lac=["", "", "", "", "", ""],
            **{"broth colour (AU)": [1, 2, 3, 5, 8, 9], "foam [AU]": [1, 2, 3, 5, 8, 9]},
        )
    )
    assert found.process.readings == ("X",) and found.process.controls == ()
    assert about(found, "operator") == "operator: text; left out."
    assert about(found, "EtOH") == "EtOH: is 0 wherever it was read; nothing to learn, left out."
    assert about(found, "Acid") == about(found, "Lac").replace("Lac", "Acid")
    assert about(found, "Lac") == "Lac: no value in any row; left out."
    assert "no name that a process can have" in about(found, "broth colour")
    assert about(found, "foam") == "foam: 'AU' is no unit that is known; left out."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run_id,time_h,X,X\na,0,1,2\na,1,2,3\n", "X occurs more than once"),
        ("run_id,time_h,X,X [mg/L]\na,0,1,2\na,1,2,3\n", "X occurs more than once"),
        ("run_id,time_h,note\na,0,x\na,1,y\n", "nothing in it is a quantity: note: text"),
        ("run_id,X\na,1\n", "needs the columns run_id and time_h"),
        ("run_id,time_h,X\n", "no rows"),
        ("", "is empty"),
    ],
)
def test_what_is_no_table_of_runs_is_refused(describe, text, says):
    with pytest.raises(DataError, match=says):
        describe(text)


def test_a_unit_that_does_not_fit_one_of_ours_is_refused(describe):
    with pytest.raises(UnitError, match="my runs.csv: column 'VCD' has unit 'rpm'"):
        describe("run_id,day,VCD [rpm],Glc\na,0,1,2\na,1,2,1\n")


# ------------------------------------------------------------------ controls

HELD = [1, 1, 1, 2, 2, 2]
MOVES = [5.0, 5.1, 5.3, 5.2, 5.6, 5.8]


def test_what_is_held_for_several_samples_is_set(describe):
    found = describe(with_columns(**{"light": HELD, "tilt [degC]": [4] * 6, "Acid": MOVES}))
    light, tilt = found.process.controls
    assert (light.name, light.unit, light.role) == ("light", "1", "environment")
    assert (light.lo, light.hi, light.default) == (0.9, 2.1, 1.5)
    assert "'1' is assumed" in about(found, "light") and "widened by a tenth" in about(
        found, "light"
    )
    assert (tilt.lo, tilt.hi, tilt.default) == (3.6, 4.4, 4.0)
    assert "is 4 throughout: nothing can be learned" in about(found, "tilt")
    assert "Acid" in found.process.readings


def test_what_is_measured_by_its_name_is_no_control(describe):
    found = describe(with_columns(**{"EtOH [g/L]": [0, 0, 0, 1, 1, 1]}))
    assert found.process.readings == ("X", "EtOH")


def test_a_tag_that_is_held_and_differs_between_runs_is_set(describe):
    rows = [f"{run},{4 * k},{0.5 * 1.3**k:.3f},{ph}" for run, ph in (("a", 6.8), ("b", 7.2))
            for k in range(4)]  # fmt: skip
    found = describe("run_id,time_h,X,pH\n" + "\n".join(rows) + "\n")
    assert [c.name for c in found.process.controls] == ["pH"]
    assert (found.process.control("pH").lo, found.process.control("pH").hi) == (6.76, 7.24)


PERFUSED = {
    "VCD": [1, 2, 4, 8, 12, 15],
    "Gln": [6, 5, 4, 3, 2, 1],
    "Titer": [0, 9, 40, 90, 200, 400],
}


def test_perfusion_has_medium_bleed_and_harvest(describe):
    found = describe(
        with_columns(
            perfusion_rate=[1.5, 1.5, 1.7, 1.9, 1.9, 2],
            bleed_rate=[0.1] * 6,
            temperature=[36.5, 36.5, 36.5, 34, 34, 34],
            V_perfusion_L=["", 0.25, 0.25, 0.3, 0.31, 0.31],
            volume_L=[1.1] * 6,
            **PERFUSED,
        )
    )
    process = found.process
    assert [(s.name, s.direction, s.flow) for s in process.streams] == [
        ("medium", "in", "perfusion_rate"),
        ("bleed", "out", "bleed_rate"),
        ("harvest", "out", "rest"),
    ]
    medium, _, harvest = process.streams
    assert medium.carries == {"X": 0.5, "Gln": 6.0} and medium.total == "V_perfusion_L"
    assert harvest.passes == {"VCD": 0.0}
    assert "none of Titer, which the cells make" in about(found, "medium")
    assert [c.role for c in process.controls] == ["flow", "flow", "environment"]
    # however far any vessel can be run: nobody has told how far this one may go
    rate, warmth = process.control("perfusion_rate"), process.control("temperature")
    assert (rate.lo, rate.hi, rate.default) == (1.45, 2.05, 1.8)
    assert (warmth.lo, warmth.hi, warmth.default) == (33.75, 36.75, 35.25)
    assert "range is that of the data, widened by a tenth" in about(found, "temperature")
    assert process.volume_L == 1.1 and about(found, "volume_L") == ""


def test_glucose_that_is_held_needs_the_record_of_what_was_added(describe):
    columns = {**PERFUSED, "Glc": [6, 5, 5, 4, 5, 5], "glucose_setpoint": [5] * 6}
    found = describe(with_columns(perfusion_rate=[1] * 6, **columns))
    assert found.process.control("glucose_setpoint").role == "environment"
    assert "what it adds is learned with the rates" in about(found, "glucose_setpoint")
    found = describe(with_columns(perfusion_rate=[1] * 6, V_glucose_L=[0.01] * 6, **columns))
    control = found.process.control("glucose_setpoint")
    assert (control.role, control.quantity) == ("target", "Glc")
    feed = next(s for s in found.process.streams if s.name == "glucose_feed")
    assert feed.carries == {"Glc": 400.0} and feed.total == "V_glucose_L"
    assert "assumed to hold 400 g/L" in about(found, "glucose_feed")


def test_fed_pyruvate_comes_on_top_of_the_medium(describe):
    columns = {**PERFUSED, "Pyr": [2, 1.5, 1, 0.8, 0.5, 0.4], "pyruvate_feed": [2] * 6}
    process = describe(with_columns(perfusion_rate=[1] * 6, **columns)).process
    assert process.control("pyruvate_feed").role == "composition"
    assert process.streams[0].adds == {"Pyr": "pyruvate_feed"}
    found = describe(with_columns(**columns))
    assert found.process.control("pyruvate_feed").role == "environment"
    assert "there is no medium" in about(found, "pyruvate_feed")


@pytest.mark.parametrize("unit", ["1/h", "vvd", "1/d"])
def test_a_dilution_is_the_feed_of_a_chemostat(describe, unit):
    found = describe(with_columns(**{f"dilution [{unit}]": [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]}))
    feed, outflow = found.process.streams
    assert (feed.name, feed.direction, feed.flow) == ("feed", "in", "dilution")
    assert (outflow.name, outflow.flow, outflow.passes) == ("outflow", "rest", {})
    assert found.process.is_constant_volume and "chemostat" in about(found, "feed")
    assert found.process.control("dilution").unit == unit


def test_streams_have_names_of_their_own(describe):
    flows = {"medium [mL/h]": [1, 2, 3, 4, 5, 6], "medium_rate [mL/h]": [1, 2, 3, 4, 5, 6]}
    found = describe(with_columns(**flows, perfusion_rate=[1] * 6))
    names = [s.name for s in found.process.streams]
    assert names == ["medium", "medium_2", "medium_3", "harvest"]


def test_a_concentration_of_the_one_feed_is_its_composition(describe):
    columns = {"dilution [1/h]": [0.1] * 6, "S [g/L]": MOVES, "feed_S [g/L]": [9, 9, 9, 20, 20, 20]}
    found = describe(with_columns(**columns))
    control = found.process.control("feed_S")
    assert (control.role, control.quantity) == ("composition", "S")
    assert found.process.streams[0].carries["S"] == "feed_S"


@pytest.mark.parametrize("unit", ["L/h", "mL/h", "L/d", "mL/d"])
def test_a_pumped_volume_moves_the_volume(describe, unit):
    found = describe(with_columns(**{f"feed_A_rate [{unit}]": [0, 1, 1.5, 2, 3, 4.5]}))
    (feed,) = found.process.streams
    assert (feed.name, feed.direction, feed.carries) == ("feed_A", "in", {})
    assert not found.process.is_constant_volume
    assert "write what it contains" in about(found, "feed_A")
    assert "moves with the flows" in about(found, "volume_L")


@pytest.mark.parametrize(
    ("column", "quantity"),
    [
        ("Gln_feed [mmol]", "Gln"),
        ("glutamine_bolus [mmol]", "Gln"),
        ("bolus_Gln [mol]", "Gln"),
        ("Glc_added [mg]", "Glc"),
        ("glucose_bolus [g]", "Glc"),
        ("glucose_bolus [mL]", "Glc"),
    ],
)
def test_amounts_that_are_added_are_boluses(describe, column, quantity):
    columns = {"Glc": MOVES, "Gln": MOVES[::-1], column: [0, 0, 3, 0, 2, 0]}
    found = describe(with_columns(**columns))
    control = found.process.controls[0]
    assert (control.role, control.quantity, control.lo, control.default) == (
        "bolus",
        quantity,
        0,
        0,
    )
    assert f"bolus of {quantity}" in about(found, control.name)
    assert found.process.streams == ()


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("bolus_B [g]", "no quantity is named in it"),
        ("Glc_bolus [mmol]", "'mmol' is no amount of Glc [g/L]"),
        ("Glc_bolus", "'1' is no amount of Glc [g/L]"),
    ],
)
def test_a_bolus_of_nothing_that_is_known_is_an_environment(describe, column, says):
    found = describe(with_columns(**{"Glc": MOVES, column: [0, 0, 3, 0, 2, 0]}))
    (control,) = found.process.controls
    assert control.role == "environment" and says in about(found, control.name)


def test_what_is_below_zero_is_no_flow_and_no_amount(describe):
    found = describe(with_columns(**{"feed_A [mL/h]": [1, 2, -1, 2, 3, 4], "Glc": MOVES}))
    (control,) = found.process.controls
    assert control.role == "environment" and found.process.streams == ()
    assert "is below 0 in places" in about(found, "feed_A")


# ------------------------------------------------------------------ forms of tables


def test_one_run_and_many_runs_and_a_decimal_comma(describe):
    assert describe(CHO).process.readings == ("VCD", "Via", "Glc", "Lac")
    rows = [
        f"r{i};{6 * k};{0.3 + 0.1 * k + 0.01 * i};{9 - k - 0.1 * i}"
        for i in range(24)
        for k in range(5)
    ]
    text = "run_id;time_h;X [g/L];Glc\n" + "\n".join(rows).replace(".", ",") + "\n"
    process = describe(text).process
    assert process.carried == ("X", "Glc") and process.quantity("X").hi == 3 * 0.93
    assert describe(text, name="mine").process.name == "mine"


def test_units_come_from_the_header_a_row_or_the_sidecar(describe, tmp_path):
    body = "a,0,1,5\na,1,2,4\na,2,3,2\n"
    for head in (
        "run_id,time_h,Acid [mg/L],S\n",
        "run_id,time_h,Acid (mg/L),S\n",
        "run_id,time_h,Acid,S\n,h,mg/L,\n",
        "run_id,time_h,Acid,S\n,,mg/L,\n",
    ):
        process = describe(head + body).process
        assert [q.unit for q in process.quantities] == ["mg/L", "g/L"], head
    (tmp_path / "my runs.units.toml").write_text('[units]\nAcid = "mmol/L"\n')
    assert describe("run_id,time_h,Acid,S\n" + body).process.quantity("Acid").unit == "mmol/L"
    with pytest.raises(DataError, match="correct one of them"):
        describe("run_id,time_h,Acid,S\n,h,mg/L,\n" + body)


def test_parquet_is_read_as_well(tmp_path):
    frame = pd.DataFrame(
        {"run_id": ["a"] * 3, "time_h": [0.0, 1, 2], "X [g/L]": [1.0, 2, 3], "who": ["x", "y", "z"]}
    )
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    found = describe_table(tmp_path / "t.parquet")
    assert found.process.readings == ("X",) and about(found, "who")


@pytest.mark.parametrize("name", ["rest", "24", "a" * 60, "ä"])
def test_a_process_has_a_name_whatever_the_file_is_called(tmp_path, name):
    (tmp_path / f"{name}.csv").write_text(CHO)
    assert describe_table(tmp_path / f"{name}.csv").process.name in ("culture", "a" * 40)


def test_the_toml_says_above_each_part_what_was_assumed(describe):
    found = describe(
        with_columns(**{"light": HELD, "dilution [1/h]": [0.1] * 6, "note": list("abcdef")})
    )
    text = commented_toml(found.process, found.assumptions)
    assert Process.from_toml(text) == found.process
    lines = text.splitlines()
    above = lines[lines.index('name = "light"') - 2]
    assert (
        above.startswith("# light: ") and lines[lines.index('name = "light"') - 1] == "[[controls]]"
    )
    assert lines[lines.index('biomass = "X"') - 1] == "# biomass: rates are taken to be per X."
    assert lines[1] == "# note: text; left out."
    for sentence in found.assumptions:
        assert f"# {sentence}" in lines


def test_what_a_feed_brings_is_asked_where_it_is_written(describe):
    feed = [0, 0, 0, 5, 5, 5]
    found = describe(
        with_columns(**{"Glycerol [g/L]": [9, 5, 1, 2, 3, 2], "Glycerol_feed [mL/h]": feed})
    )
    lines = commented_toml(found.process, found.assumptions).splitlines()
    (asked,) = (k for k, line in enumerate(lines) if "as in Glycerol = 400.0" in line)
    assert lines[asked + 1 : asked + 3] == ["[[streams]]", 'name = "Glycerol_feed"']
    lines.insert(lines.index("[streams.carries]") + 1, "Glycerol = 400.0")
    written = "\n".join(lines)
    assert Process.from_toml(written).streams[0].carries == {"Glycerol": 400.0}


def test_what_a_label_hides_does_not_get_into_the_toml(describe):
    found = describe(with_columns(**{'"no\nte\x1b"': list("abcdef")}))
    text = commented_toml(found.process, found.assumptions)
    assert Process.from_toml(text) == found.process and "\x1b" not in text


def test_a_process_is_read_off_without_jax(tmp_path):
    (tmp_path / "t.csv").write_text(CHO)
    program = (
        "import sys, json\n"
        "from perfusio_jax.connectors import describe_table\n"
        f"describe_table({str(tmp_path / 't.csv')!r})\n"
        "print(json.dumps([m for m in ('jax', 'equinox', 'jaxtyping') if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
