"""Campaign tables of any process: its names, its units, its order; what it does not know."""

import numpy as np
import pandas as pd
import pytest

from perfusio_jax._core import ConfigError, DataError, UnitError
from perfusio_jax.connectors import campaign_from_frame, read_campaign
from perfusio_jax.connectors.tables.column_map import ColumnMap, is_known_label, is_number_label
from perfusio_jax.connectors.tables.formats import read_table
from perfusio_jax.connectors.tables.samples import interpret
from perfusio_jax.connectors.tables.vocabulary import Vocabulary
from perfusio_jax.process import CHO_PERFUSION, Control, Process, Quantity, Stream

YEAST = """run_id,time_h,EtOH,X,Glc,Carot,note_pH
,h,g/L,g/L,g/L,mg/L,pH
b1,0,0.0,0.4,41,0.0,5.1
b1,5.5,,1.3,39.5,0.2,5.0
b2,0,0.1,0.5,80,<0.2,5.2
b2,7,0.6,2.0,75,0.9,5.1
"""


def quantity(name: str, unit: str = "g/L", **more) -> Quantity:
    return Quantity(name=name, unit=unit, hi=more.pop("hi", 200.0), **more)


BATCH = Process(
    name="yeast",
    volume_L=2.0,
    biomass="X",
    quantities=(
        quantity("X"),
        quantity("Glc"),
        quantity("EtOH"),
        quantity("Carot", "mg/L"),
        quantity("note_pH", "pH", kind="level"),
    ),
)


@pytest.fixture
def table(tmp_path):
    def write(text: str, name: str = "runs.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_runs_have_the_quantities_of_the_process_in_its_order(table):
    campaign = read_campaign(table(YEAST), process=BATCH)
    first, second = campaign.trajectories
    assert first.species_names == BATCH.readings and first.control_names == ()
    np.testing.assert_allclose(first.species[0], [0.4, 41, 0, 0, 5.1])
    assert np.isnan(first.species[1, 2]) and first.times_h[1] == 5.5
    assert first.volume_L[0] == 2.0 and campaign.report.assumed["volume_L"] == "2 L"
    np.testing.assert_allclose(second.get_species("Carot"), [0.1, 0.9])  # half the limit
    assert any("Carot is below the limit" in text for text in campaign.report.warnings)


def test_without_a_process_such_a_table_is_refused_as_before(table):
    with pytest.raises(DataError, match="column 'EtOH' is not known. Known columns: run_id"):
        read_campaign(table(YEAST))


def test_what_the_table_lacks_is_left_away_and_nothing_is_made_up(table):
    text = "run_id,time_h,EtOH,X\na,0,1,2\na,9,3,4\n"
    (run,) = read_campaign(table(text), process=BATCH).trajectories
    assert run.species_names == ("X", "EtOH")


@pytest.mark.parametrize(
    ("head", "value", "expected"),
    [
        ("X [mg/L]", 2500, 2.5),
        ("X [g/mL]", 0.0025, 2.5),
        ("X", 2.5, 2.5),
        ("Glc [mmol/L]", 100, 18.0156),
        ("Glc [mg/dL]", 1000, 10.0),
        ("Carot [ug/L]", 1500, 1.5),
        ("note_pH [pH]", 5.5, 5.5),
        ("note_pH [-]", 5.5, 5.5),
    ],
)
def test_units_of_the_table_become_those_of_the_process(table, head, value, expected):
    name = head.split(" ")[0]
    path = table(f"run_id,time_h,{head}\na,0,{value}\na,1,{value}\n")
    (run,) = read_campaign(path, process=BATCH).trajectories
    np.testing.assert_allclose(run.get_species(name), expected, rtol=1e-12)


def test_our_names_in_other_units_have_the_units_of_the_process(table):
    molar = Process(name="p", volume_L=1.0, quantities=(quantity("Glc", "mmol/L"), quantity("Lac")))
    text = "run_id,time_h,{},Lac [mmol/L]\na,0,{},10\na,1,{},20\n"
    for head, value in (("Glc", 100.0), ("Glc [g/L]", 18.0156), ("Glc [mol/L]", 0.1)):
        (run,) = read_campaign(table(text.format(head, value, value)), process=molar).trajectories
        np.testing.assert_allclose(run.species[0], [100.0, 0.9008], rtol=1e-12)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("X [mmol/L]", "column 'X' has unit 'mmol/L', and process 'yeast' has it in 'g/L'"),
        ("X [gg/L]", "cannot read 'gg/L' as a unit"),
        ("note_pH [g/L]", "one of them has no dimension. Allowed are 1 and - and pH"),
        ("X [1]", "one of them has no dimension"),
        ("Glc [rpm]", "column 'Glc' has unit 'rpm'"),
    ],
)
def test_a_unit_of_something_else_is_refused_by_name(table, head, says):
    with pytest.raises(UnitError) as caught:
        read_campaign(table(f"run_id,time_h,{head}\na,0,1\na,1,2\n"), process=BATCH)
    assert says in str(caught.value)


def test_a_cell_may_carry_its_unit(table):
    text = "run_id,time_h,X,EtOH\na,0,2500 mg/L,1\na,1,3,1\n"
    (run,) = read_campaign(table(text), process=BATCH).trajectories
    np.testing.assert_allclose(run.get_species("X"), [2.5, 3.0])
    with pytest.raises(DataError, match="column 'X' holds '5 mmol/L' in line 2, which is not"):
        read_campaign(table(text.replace("2500 mg", "5 mmol")), process=BATCH)


CHEMOSTAT = Process(
    name="stat",
    volume_L=1.0,
    quantities=(quantity("X"), quantity("S"), quantity("Q", is_measured=False)),
    controls=(
        Control(name="light", unit="1", role="environment", lo=-5.0, hi=9.0, default=1.0),
        Control(name="D", unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="D", total="V_feed_L"),
        Stream(name="out", direction="out", flow="rest"),
    ),
)


def test_controls_totals_and_tags_have_their_place(table):
    text = (
        "run_id,time_h,D [1/d],light,X,V_feed_L [mL],pH,volume_L,Q,Gln\n"
        "a,0,2.4,-3,1,,7.0,1.1,5,1\na,10,2.4,3,2,1000,7.1,1.1,5,1\n"
    )
    campaign = read_campaign(table(text), process=CHEMOSTAT)
    (run,) = campaign.trajectories
    assert run.control_names == ("light", "D") and run.species_names == ("X",)
    np.testing.assert_allclose(run.controls, [[-3, 0.1], [3, 0.1]])
    assert run.auxiliary_names == ("pH", "V_feed_L")
    np.testing.assert_allclose(run.auxiliary[1], [7.1, 1.0])
    assert run.volume_L[0] == 1.1
    (left,) = [w for w in campaign.report.warnings if "left out" in w]
    assert left == "Q, Gln are not read in process 'stat' and left out."


def test_a_control_the_process_does_not_know_is_refused_by_name(table):
    path = table("run_id,time_h,X,temperature\na,0,1,37\na,1,2,37\n")
    with pytest.raises(DataError) as caught:
        read_campaign(path, process=CHEMOSTAT)
    assert "column 'temperature' is a control that process 'stat' does not know" in str(
        caught.value
    )
    assert "allowed: light, D. Add it to the process" in str(caught.value)
    campaign = read_campaign(path, process=CHEMOSTAT, unknown="ignore")
    assert campaign.report.ignored == ("temperature",)
    assert campaign.trajectories[0].control_names == ()


def test_an_unknown_column_names_the_nearest_of_the_process(table):
    path = table("run_id,time_h,X,Lihgt\na,0,1,37\na,1,2,37\n")
    with pytest.raises(DataError, match="not known of process 'stat'. Did you mean 'light'"):
        read_campaign(path, process=CHEMOSTAT)


@pytest.mark.parametrize("column", ["X", "D"])
def test_what_cannot_be_below_zero_is_refused(table, column):
    with pytest.raises(DataError, match=f"column '{column}' is negative in line 2"):
        read_campaign(table(f"run_id,time_h,S,{column}\na,0,1,-1\na,1,2,2\n"), process=CHEMOSTAT)


def test_values_beyond_the_range_of_the_process_are_pointed_out(table):
    campaign = read_campaign(table("run_id,time_h,X\na,0,1\na,1,900\n"), process=CHEMOSTAT)
    (said,) = [w for w in campaign.report.warnings if w.startswith("X")]
    assert said == "X is outside 0 to 200 g/L, the range of process 'stat'"


def test_a_column_twice_is_refused(table):
    with pytest.raises(DataError, match="column X occurs more than once"):
        read_campaign(table("run_id,time_h,X,X [mg/L]\na,0,1,1\na,1,2,2\n"), process=CHEMOSTAT)


def test_cells_have_the_name_the_balance_has_for_them(table):
    text = "run_id,day,VCD [cells/mL],Via,Diam,perfusion_rate\na,0,5e5,98,16,1\na,1,9e5,97,16,1\n"
    campaign = read_campaign(table(text), process=CHO_PERFUSION)
    (run,) = campaign.trajectories
    assert run.species_names == ("Xv", "Via") and run.control_names == ("perfusion_rate",)
    np.testing.assert_allclose(run.get_species("Xv"), [0.5, 0.9])
    assert "VCD is read as Xv of process 'cho_perfusion'." in campaign.report.warnings


def test_a_table_of_our_names_is_the_same_with_its_process_and_without(table):
    text = "run_id,time_h,Glc [mmol/L],Via,temperature [K]\na,0,30,99,310\na,24,20,98,310\n"
    plain = read_campaign(table(text)).trajectories[0]
    again = read_campaign(table(text), process=CHO_PERFUSION).trajectories[0]
    for name in ("Glc", "Via"):
        np.testing.assert_array_equal(plain.get_species(name), again.get_species(name))
    np.testing.assert_array_equal(plain.controls, again.controls)


def test_frames_are_read_by_a_process_too():
    frame = pd.DataFrame({"run_id": ["a", "a"], "time_h": [0.0, 2.0], "X [mg/L]": [500.0, 800.0]})
    (run,) = campaign_from_frame(frame, process=BATCH).trajectories
    np.testing.assert_allclose(run.get_species("X"), [0.5, 0.8])


# ------------------------------------------------------------------ files of samples


def samples(text: str, process=None, **settings):
    table = read_table(
        text.encode(),
        ".csv",
        is_known=lambda label: is_known_label(label, words=Vocabulary.of(process)),
        is_number=lambda label: is_number_label(label, words=Vocabulary.of(process)),
        allow_unterminated=True,
    )
    return interpret(table, process=process, **settings)


def values(found) -> list[dict]:
    return [{n: v for n, v in row.values.items()} for row in found.rows.values()]


def test_samples_have_the_names_and_units_of_the_process():
    found = samples(
        "run_id,time_h,x,S [mg/L],light,pH,V_feed_L\n"
        "a,0,1,500,-3,7.1,0.1\na,9,2,400 mg/L,3,7,0.2\n",
        CHEMOSTAT,
    )
    assert values(found)[0] == {"X": 1.0, "S": 0.5, "light": -3.0, "pH": 7.1, "V_feed_L": 0.1}
    assert values(found)[1]["S"] == 0.4
    roles = {column.name: (column.role, column.canonical_unit) for column in found.report.columns}
    assert roles["X"] == ("species", "g/L") and roles["light"] == ("control", "1")
    assert roles["V_feed_L"] == ("tag", "L")


def test_without_a_process_samples_are_those_of_before():
    found = samples("time_h,Glc,light\n0,5,1\n9,4,2\n")
    assert values(found) == [{"Glc": 5.0}, {"Glc": 4.0}]
    assert found.report.unknown == ("light",)


def test_samples_in_long_format_and_with_a_row_of_units():
    long = "time_h,species,value,unit\n0,X,500,mg/L\n0,light,2,\n9,S,3,\n9,foam,1,\n"
    found = samples(long, CHEMOSTAT, wide=False)
    assert values(found) == [{"X": 0.5, "light": 2.0}, {"S": 3.0}]
    assert any("unknown species 'foam'" in text for text in found.report.doubts)
    found = samples("time_h,X,S\n,mg/L,g/L\n0,500,3\n9,900,2\n", CHEMOSTAT)
    assert values(found)[0] == {"X": 0.5, "S": 3.0}


def test_a_column_map_gives_names_of_the_process():
    words = Vocabulary.of(CHEMOSTAT)
    mapped = ColumnMap.of(
        {"Zellen": "X", "Licht": {"name": "light"}, "temperature": "ignore"}, words
    )
    text = "time_h,Zellen,Licht,temperature\n0,1,2,37\n9,2,2,37\n"
    assert values(samples(text, CHEMOSTAT, column_map=mapped))[0] == {"X": 1.0, "light": 2.0}
    with pytest.raises(ConfigError, match="Did you mean 'light'"):
        ColumnMap.of({"Licht": "Light"}, words)
    with pytest.raises(ConfigError, match="is no known name"):
        ColumnMap.of({"Zellen": "X"})


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("time_h,X,temperature\n0,1,37\n9,2,37\n", True),
        ("time_h,species,value\n0,X,1\n9,temperature,37\n", False),
    ],
)
def test_a_control_of_samples_that_the_process_does_not_know_is_refused(text, wide):
    with pytest.raises(DataError) as caught:
        samples(text, CHEMOSTAT, wide=wide)
    assert "temperature is a control that process 'stat' does not know" in str(caught.value)
    assert 'allowed: light, D. Add it to the process, or say "ignore"' in str(caught.value)


def test_units_and_signs_of_samples_are_those_of_the_process():
    with pytest.raises(UnitError, match="process 'stat' has it in 'g/L'.*'X .rpm.' = 'ignore'"):
        samples("time_h,X [rpm]\n0,1\n", CHEMOSTAT)
    found = samples("time_h,X,light\n0,-1,-2\n9,2,1\n", CHEMOSTAT)
    assert values(found)[0] == {"X": None, "light": -2.0}
    (column,) = [c for c in samples("time_h,X\n0,900\n9,1\n", CHEMOSTAT).report.columns if c.doubt]
    assert column.doubt == "outside 0 to 200 g/L, the range of process 'stat'"


def test_cells_of_samples_have_the_name_the_balance_has_for_them():
    found = samples("day,VCD [cells/mL],Via\n0,5e5,98\n1,9e5,97\n", CHO_PERFUSION)
    assert values(found)[0] == {"Xv": 0.5, "Via": 98.0}
