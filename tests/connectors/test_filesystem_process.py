"""Samples and set-points of a described culture: its names, its units, its order."""

import asyncio
import csv
import datetime as dt

import pytest

from perfusio_jax._core import ConfigError, DataError, SampleNotReady, UnitError
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.process import CHO_PERFUSION, Control, Process, Quantity, Stream

NOW = dt.datetime(2026, 5, 6, 7, 8, 9, tzinfo=dt.UTC)

POND = Process(
    name="pond",
    volume_L=2.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=20.0),
        Quantity(name="S", unit="g/L", hi=50.0),
        Quantity(name="Y", unit="g/L", hi=50.0, is_measured=False),
        Quantity(name="froth", unit="1", kind="level", lo=-1.0, hi=1.0, floor=0.1),
    ),
    controls=(
        Control(name="dilution", unit="1/h", role="flow", lo=0.0, hi=0.5, default=0.1),
        Control(name="light", unit="1", role="environment", lo=-5.0, hi=5.0, default=0.0),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="dilution", carries={"S": 20.0}, total="V_feed_L"),
        Stream(name="outflow", direction="out", flow="rest"),
    ),
)

TEXT = "time_h,S [mg/L],X,dilution [1/d],froth,V_feed_L,volume_L,capacitance\n"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "samples.csv").write_text(TEXT + "0,500,1.5,2.4,-0.5,,2.1,7\n24,,1.7,,0.2,0.3,,\n")
    return FilesystemStore(tmp_path / "samples.csv", process=POND, clock=lambda: NOW)


def test_a_sample_has_what_is_measured_of_the_process_in_its_units(store):
    first = asyncio.run(store.read_record(0))
    assert first.values == {"X": 1.5, "S": 0.5, "froth": -0.5}
    assert list(first.values) == ["X", "S", "froth"]
    assert first.controls == pytest.approx({"dilution": 0.1})
    assert first.tags == {"capacitance": 7.0, "V_feed_L": None} and first.volume_L == 2.1
    second = asyncio.run(store.read_record(1))
    assert second.values == {"X": 1.7, "S": None, "froth": 0.2}, "missing is never zero"
    assert second.controls == {"dilution": None} and second.tags["V_feed_L"] == 0.3
    with pytest.raises(SampleNotReady):
        asyncio.run(store.read_record(2))
    assert [record.time_h for record in asyncio.run(store.read_history())] == [0.0, 24.0]


def test_set_points_are_of_the_controls_of_the_process(store):
    asyncio.run(store.write_setpoints({"dilution": 0.2, "light": -3.0}, day=1))
    asyncio.run(store.write_setpoints({"dilution": 0.25}, day=2))
    assert asyncio.run(store.read_setpoints()) == {"dilution": 0.25, "light": -3.0}
    assert asyncio.run(store.read_back())["light"].value == -3.0
    with store.setpoint_log.open(newline="") as log:
        head = next(csv.reader(log))
    assert head == ["written_at", "day", "time_h", "reactor_id", "dilution", "light"]
    with pytest.raises(DataError, match="temperature"):
        asyncio.run(store.write_setpoints({"temperature": 37.0}))


def test_a_log_of_another_culture_is_not_written_to(store):
    other = FilesystemStore(store.source_path, clock=lambda: NOW)
    asyncio.run(other.write_setpoints({"temperature": 36.0}))
    with pytest.raises(DataError, match="lacks dilution, light"):
        asyncio.run(store.write_setpoints({"dilution": 0.2}))


def test_what_the_process_does_not_know_is_refused_by_name(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text("day,X,bleed_rate\n0,1,0.1\n")
    store = FilesystemStore(path, process=POND)
    with pytest.raises(DataError, match="bleed_rate is a control that process 'pond' does not"):
        asyncio.run(store.read_record(0))
    path.write_text("day,X [rpm]\n0,1\n")
    with pytest.raises(UnitError, match="process 'pond' has it in 'g/L'"):
        asyncio.run(FilesystemStore(path, process=POND).read_record(0))
    with pytest.raises(ConfigError, match="beside process pond, whose controls are"):
        FilesystemStore(path, process=POND, controls=("temperature",))


def test_a_column_map_gives_names_of_the_process(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text("day,Zellen,Licht\n0,1,2\n")
    store = FilesystemStore(path, process=POND, column_map={"Zellen": "X", "Licht": "light"})
    record = asyncio.run(store.read_record(0))
    assert record.values == {"X": 1.0} and record.controls == {"light": 2.0}


def test_cells_have_the_name_of_the_balance(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text("day,VCD [cells/mL],Via,perfusion_rate\n0,5e5,98,1.0\n")
    record = asyncio.run(FilesystemStore(path, process=CHO_PERFUSION).read_record(0))
    assert record.values == {"Xv": 0.5, "Via": 98.0} and record.controls == {"perfusion_rate": 1.0}
    ours = asyncio.run(FilesystemStore(path).read_record(0))
    assert ours.values == {"VCD": 0.5, "Via": 98.0}
