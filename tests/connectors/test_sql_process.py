"""Described cultures in SQLite and PostgreSQL: their names and units, whose a vessel is, limits."""

import asyncio
import datetime as dt
import itertools
import math
import threading

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.cli import app
from perfusio_jax.connectors import FilesystemStore, SQLStore, read_campaign, read_culture
from perfusio_jax.connectors.base import SampleRecord
from perfusio_jax.connectors.exchange import export_file, import_file
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.sql import schema
from perfusio_jax.connectors.sql.cultures import process_sha256, processes_of
from perfusio_jax.connectors.sql.migrate import downgrade, upgrade
from perfusio_jax.connectors.sql.records import clean, merge, record_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.connectors.tables.vocabulary import Vocabulary
from perfusio_jax.process import CHO_PERFUSION, Control, Process, Quantity, Stream
from perfusio_jax.twin.records.entries import Stored
from tests.connectors.test_filesystem_process import POND

NOON = dt.datetime(2026, 5, 6, 12, tzinfo=dt.UTC)
NAN = math.nan

BROTH = Process(
    name="broth",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=20.0),
        Quantity(name="Glc", unit="g/L", hi=50.0),
        Quantity(name="Lac", unit="g/L", hi=50.0),
        Quantity(name="pH", unit="pH", kind="level", lo=5.0, hi=9.0, floor=0.05),
    ),
    controls=(
        Control(name="perfusion_rate", unit="vvd", role="flow", lo=0.0, hi=2.0, default=1.0),
        Control(
            name="temperature", unit="K", role="environment", lo=290.0, hi=315.0, default=310.0
        ),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="perfusion_rate", carries={"Glc": 20.0}),
        Stream(name="outflow", direction="out", flow="rest"),
    ),
)
"""Some names of ours in our units, some in others."""


def rows_of(store: SQLStore, table: sa.Table) -> list[dict]:
    with store.database.engine.connect() as connection:
        rows = connection.execute(sa.select(table).order_by(table.c.id)).mappings()
        return [dict(row) for row in rows]


def read(store: SQLStore, day: int) -> SampleRecord:
    return asyncio.run(store.read_record(day))


# ---------------------------------------------------------------- rows of their own


def test_what_has_no_column_is_a_row_with_its_unit_and_the_rest_stays_where_it_was(make):
    store = make(process=BROTH, clock=lambda: NOON)
    sample = {"X": 2.5, "Glc": 4.0, "Lac": None, "pH": 7.1, "perfusion_rate": 1.0, "DO": 40.0}
    assert store.write_sample(1, sample | {"temperature": 310.0}) is Stored.NEW
    (row,) = rows_of(store, schema.sample)
    assert row["glc"] == 4.0, "glucose in g/L is what the column means"
    assert row["lac"] is None and row["controls"] == {"perfusion_rate": 1.0}
    assert row["tags"] == {"DO": 40.0}
    apart = {(r["role"], r["name"], r["value"], r["unit"]) for r in rows_of(store, schema.reading)}
    assert apart == {
        ("quantity", "X", 2.5, "g/L"),
        ("quantity", "Lac", None, "g/L"),
        ("quantity", "pH", 7.1, "pH"),
        ("control", "temperature", 310.0, "K"),
    }
    found = read(store, 1)
    assert found.values == {"X": 2.5, "Glc": 4.0, "Lac": None, "pH": 7.1}
    assert list(found.values) == ["X", "Glc", "Lac", "pH"], "in the order of the process"
    assert found.controls == {"perfusion_rate": 1.0, "temperature": 310.0}
    assert found.quality["Lac"] == "missing" and found.tags == {"DO": 40.0}


def test_a_vessel_says_whose_it_is(make):
    store = make(process=POND, clock=lambda: NOON)
    store.write_sample(0, {"X": 1.0})
    store.write_sample(1, {"X": 1.5})
    (row,) = rows_of(store, schema.culture)
    assert (row["name"], row["process_sha256"]) == ("pond", process_sha256(POND))
    assert Process(**row["process"]) == POND and row["stored_at"] == NOON
    make("R2").write_sample(0, {"VCD": 1.0})
    assert processes_of(store.database, "Exp1") == {"R1": POND, "R2": None}


def test_set_points_of_the_culture_are_history(make):
    store = make(process=POND)
    asyncio.run(store.write_setpoints({"dilution": 0.2, "light": -3.0}, day=1))
    asyncio.run(store.write_setpoints({"dilution": 0.25}, day=2))
    assert asyncio.run(store.read_setpoints()) == {"dilution": 0.25, "light": -3.0}
    with pytest.raises(DataError, match="'temperature' is not a control; allowed are dilution"):
        asyncio.run(store.write_setpoints({"temperature": 37.0}))
    with pytest.raises(ConfigError, match="beside process pond, whose controls are"):
        make(process=POND, controls=("light",))


def test_corrections_and_late_values_of_a_culture_keep_their_history(make):
    store = make(process=POND)
    store.write_sample(1, {"X": 2.0, "S": None, "froth": -0.5})
    assert store.write_sample(1, {"S": 3.0}) is Stored.CORRECTED
    with pytest.raises(DataError, match="X 2 -> 2.5"):
        store.write_sample(1, {"X": 2.5})
    store.write_sample(1, {"X": 2.5}, is_correction=True, reason="recount")
    assert read(store, 1).values == {"X": 2.5, "S": 3.0, "froth": -0.5}
    told = [(r["record"].values["X"], r["record"].values["S"]) for r in store.read_revisions(1)]
    assert told == [(2.0, None), (2.0, 3.0), (2.5, 3.0)]
    assert store.write_sample(1, {"X": 2.5, "S": 3.0}) is Stored.DUPLICATE


def test_samples_between_the_days_are_served(make):
    store = make(process=POND)
    for k in range(4):
        store.write_sample(k // 2, {"X": 1.0 + k}, time_h=12.0 * k)
    store.sample_every(12.0)
    assert asyncio.run(store.days_available()) == [0, 0.5, 1, 1.5]
    assert read(store, 1.5).values == {"X": 4.0}  # pyright: ignore[reportArgumentType]


NUMBER = st.one_of(st.none(), st.just(NAN), st.floats(allow_nan=False, allow_infinity=False))
COUNTER = itertools.count()


def some(names):
    return st.dictionaries(st.sampled_from(names), NUMBER, max_size=len(names))


@settings(max_examples=15, suppress_health_check=[*HealthCheck], derandomize=True, deadline=None)
@given(
    values=some(BROTH.readings),
    controls=some(BROTH.control_names),
    limits=st.dictionaries(
        st.sampled_from(BROTH.readings),
        st.tuples(st.floats(1e-300, 1e300), st.booleans()),
        max_size=3,
    ),
    time_h=st.floats(-100.0, 1e5),
)
def test_a_sample_of_a_culture_comes_back_as_it_was_stored(make, values, controls, limits, time_h):
    store, words = make(f"{next(COUNTER)}", process=BROTH), Vocabulary.of(BROTH)
    below = {n: v for n, (v, is_below) in limits.items() if is_below}
    values |= {n: below[n] / 2.0 if n in below else None for n in limits}
    record = SampleRecord(
        day=3,
        time_h=time_h,
        values=values,
        controls=controls,
        limits={n: (v, NAN) if is_below else (NAN, v) for n, (v, is_below) in limits.items()},
    )
    assert store.write_records([record]) == [Stored.NEW]
    found, wanted = read(store, 3), clean(record, words)
    for field in ("values", "controls", "quality", "time_h"):
        assert getattr(found, field) == getattr(wanted, field), field
    assert list(found.limits) == list(wanted.limits)
    for name, sides in wanted.limits.items():
        np.testing.assert_array_equal(found.limits[name], sides)
    assert store.write_records([found]) == [Stored.DUPLICATE]
    store.database.close()


def test_many_that_begin_a_vessel_at_once_agree_on_whose_it_is(make):
    stores = [make(process=POND) for _ in range(6)]
    troubles: list[BaseException] = []
    start = threading.Barrier(len(stores))

    def work(number: int) -> None:
        start.wait()
        try:
            stores[number].write_sample(number, {"X": float(number)})
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert len(rows_of(stores[0], schema.culture)) == 1
    assert asyncio.run(stores[0].days_available()) == list(range(6))


# ---------------------------------------------------------------- another's


def wider(process: Process) -> Process:
    control = process.controls[0].model_copy(update={"hi": 0.9})
    return process.model_copy(update={"controls": (control, *process.controls[1:])})


def test_a_vessel_of_another_culture_is_refused_by_name_whatever_is_asked(make):
    make(process=POND).write_sample(1, {"X": 1.0})
    for other, says in (
        (make(process=wider(POND)), "R1 of experiment Exp1 as pond.*dilution: hi is 0.5 and 0.9"),
        (make(process=BROTH), "as pond, and the process given is broth: .*S is in the first only"),
        (make(), "as pond, and process is not given; name its process"),
    ):
        known = {"Glc": 1.0} if "Glc" in other.words.species else {"X": 1.0}
        asked = {other.controls[0]: 0.1}
        for call in (
            lambda o=other, s=known: o.write_sample(2, s),
            lambda o=other: read(o, 1),
            lambda o=other: asyncio.run(o.days_available()),
            lambda o=other: o.read_revisions(1),
            lambda o=other, a=asked: asyncio.run(o.write_setpoints(a)),
            lambda o=other: asyncio.run(o.read_back()),
            lambda o=other: o.check_culture(),
        ):
            with pytest.raises(ConfigError, match=says):
                call()
    assert len(rows_of(make(), schema.sample)) == 1


def test_a_vessel_of_the_reference_culture_is_no_described_one(make):
    make().write_sample(1, {"VCD": 1.0})
    with pytest.raises(ConfigError, match="as CHO perfusion.*process is pond; leave process out"):
        make(process=POND).write_sample(2, {"X": 1.0})
    with pytest.raises(ConfigError, match="CHO perfusion"):
        read(make(process=CHO_PERFUSION), 1)
    assert rows_of(make(), schema.culture) == []


def test_words_for_people_may_change_and_a_vessel_without_samples_is_anybodys(make):
    store = make(process=POND)
    store.log_audit_event("run", "NOTE", {})
    assert rows_of(store, schema.culture) == []
    store.check_culture()
    store.write_sample(1, {"X": 1.0})
    reworded = POND.model_copy(update={"description": "behind the house"})
    assert read(make(process=reworded), 1).values == {"X": 1.0}


def test_a_reading_another_program_put_there_in_another_unit_is_refused(make):
    store = make(process=POND)
    store.write_sample(1, {"X": 1.0})
    with store.database.connection(is_write=True) as connection:
        connection.execute(schema.reading.update().values(unit="mg/L"))
    with pytest.raises(DataError, match="holds X in 'mg/L', and process pond has it in 'g/L'"):
        read(store, 1)
    with store.database.connection(is_write=True) as connection:
        connection.execute(schema.reading.update().values(unit="g/L", name="Z"))
    assert read(store, 1).values == {"X": None}, "what we do not know is not ours to judge"
    with store.database.connection(is_write=True) as connection:
        connection.execute(schema.culture.update().values(process={"name": "pond"}))
    with pytest.raises(DataError, match="a process 'pond' that cannot be read"):
        read(store, 1)


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("process", [None, BROTH])
def test_limits_of_assays_are_limits_when_they_come_back(make, process):
    store = make(process=process)
    record = SampleRecord(
        1,
        24.0,
        {"Glc": 0.025, "Lac": None},
        quality={"Glc": "uncertain", "Lac": "bad"},
        limits={"Glc": (0.05, NAN), "Lac": (NAN, 20.0)},
    )
    store.write_records([record])
    found = read(store, 1)
    assert found.values == record.values and found.quality == record.quality
    np.testing.assert_array_equal(found.limits["Glc"], (0.05, NAN))
    np.testing.assert_array_equal(found.limits["Lac"], (NAN, 20.0))
    assert store.write_records([record]) == [Stored.DUPLICATE]
    lower = SampleRecord(1, 24.0, {"Glc": 0.05}, limits={"Glc": (0.1, NAN)})
    with pytest.raises(DataError, match="Glc < 0.05 -> < 0.1"):
        store.write_records([lower])
    store.write_records([lower], is_correction=True)
    np.testing.assert_array_equal(read(store, 1).limits["Glc"], (0.1, NAN))
    with pytest.raises(DataError, match="Glc < 0.1 -> 0.05"):
        store.write_sample(1, {"Glc": 0.05})
    store.write_sample(1, {"Glc": 0.05, "Lac": 21.0}, is_correction=True)
    assert read(store, 1).limits == {} and read(store, 1).quality["Glc"] == "good"
    assert [sorted(r["record"].limits) for r in store.read_revisions(1)] == [
        ["Glc", "Lac"], ["Glc", "Lac"], [],
    ]  # fmt: skip


def test_what_an_earlier_version_stored_of_a_limit_is_filled_in(make):
    store = make()
    store.write_sample(1, {"Glc": 0.025, "Lac": 5.0}, quality={"Glc": "uncertain", "Lac": "bad"})
    now = SampleRecord(
        1, 24.0, {"Glc": 0.025, "Lac": None}, limits={"Glc": (0.05, NAN), "Lac": (NAN, 20.0)}
    )
    assert store.write_records([now]) == [Stored.CORRECTED]
    assert store.read_revisions(1)[-1]["reason"] == "filled in: the limit of Glc, the limit of Lac"
    np.testing.assert_array_equal(read(store, 1).limits["Lac"], (NAN, 20.0))
    assert store.write_sample(1, {"Glc": 0.025}, quality={"Glc": "uncertain"}) is Stored.DUPLICATE


@pytest.mark.parametrize(
    ("limits", "quality", "says"),
    [
        ({"Glc": (0.05, 0.1)}, {}, "one of below and above is a number"),
        ({"Glc": (NAN, NAN)}, {}, "one of below and above is a number"),
        ({"Lac": (0.05, NAN)}, {}, "a limit of an assay and no place of 'Lac'"),
        ({"Glc": (0.05, NAN)}, {"Glc": "good"}, "a limit is no reading"),
    ],
)
def test_limits_that_are_none_are_refused(store, limits, quality, says):
    record = SampleRecord(1, 24.0, {"Glc": 0.025}, quality=quality, limits=limits)
    with pytest.raises(DataError, match=says):
        store.write_records([record])


def test_a_limit_another_program_left_that_is_none_does_not_count(store):
    store.write_sample(1, {"Glc": 0.025, "Lac": 1.0}, quality={"Glc": "uncertain"})
    for odd in ({"Glc": 3}, {"Glc": [None, None]}, {"Glc": [1.0, 2.0]}, {"Lac": [1.0, None]}, [1]):
        with store.database.connection(is_write=True) as connection:
            connection.execute(schema.sample.update().values(limits=odd))
        assert read(store, 1).limits == {}


def test_merging_keeps_a_limit_as_it_keeps_a_value():
    old = clean(SampleRecord(1, 24.0, {"Glc": 0.025}, limits={"Glc": (0.05, NAN)}))
    late = merge(old, clean(SampleRecord(1, 24.0, {"Glc": None, "Lac": 3.0})))
    assert late.filled == ("Lac",) and late.record.limits == old.limits
    assert merge(old, record_of(1, {"Lac": 3.0})).record.limits == old.limits


# ---------------------------------------------------------------- files


TEXT = (
    "reactor_id,time_h,X,Glc,Lac,pH,perfusion_rate,temperature [degC],volume_L\n"
    "V1,0,1.5,4,<0.1,7.1,1,37,1.0\n"
    "V1,24,2.5,> 45,0.30000000000000004,7,1.2,36.5,1.0\n"
    "V2,0,1.4,4,,6.9,1,37,1.1\n"
)


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "parquet"])
def test_a_table_of_a_culture_goes_through_a_database_and_comes_out_the_same(url, tmp_path, suffix):
    path, out = tmp_path / "runs.csv", tmp_path / f"out.{suffix}"
    # a workbook holds fifteen digits
    path.write_text(TEXT.replace("0.30000000000000004", "0.3") if suffix == "xlsx" else TEXT)
    for _ in range(2):
        lines = import_file(url, source(path, FileRules(), process=BROTH), "E", None)
        assert [line for line in lines if "samples" in line][-1].startswith("E, V2: 1 samples")
    assert "(0 new, 1 duplicate, 0 corrected)" in lines[-1]
    assert "3 samples of 2 reactor(s) of broth" in export_file(url, out, "E", [])
    for reactor in ("V1", "V2"):
        stores = [
            FilesystemStore(file, reactor_id=reactor, process=BROTH, allow_unterminated=True)
            for file in (path, out)
        ]
        old, new = (asyncio.run(store.read_rows()) for store in stores)
        assert len(old) == len(new) > 0
        for a, b in zip(old, new, strict=True):
            assert (a.time_h, a.values, a.controls, a.volume_L) == (
                b.time_h, b.values, b.controls, b.volume_L,
            )  # fmt: skip
            assert a.quality == b.quality
            for name in {*a.limits, *b.limits}:
                np.testing.assert_array_equal(a.limits[name], b.limits[name])
    if suffix != "xlsx":
        BROTH.to_toml(tmp_path / "broth.toml")
        first = read_culture(out, str(tmp_path / "broth.toml")).trajectories[0]
        np.testing.assert_array_equal(first.host_limits(["Lac"])[0, 0], [0.1, NAN])
        np.testing.assert_array_equal(first.host_limits(["Glc"])[1, 0], [NAN, 45.0])


def test_limits_of_our_own_table_reach_a_campaign_through_a_database(url, tmp_path):
    path, out = tmp_path / "runs.csv", tmp_path / "out.csv"
    path.write_text("run_id,reactor_id,day,VCD,Glc,Lac\nA,V1,0,1,5,<0.4\nA,V1,1,2,>20,1\n")
    import_file(url, source(path, FileRules()), "E", None)
    export_file(url, out, "E", [])
    assert "< 0.4" in out.read_text() and "quality" not in out.read_text()
    (run,) = read_campaign(out).trajectories
    np.testing.assert_array_equal(run.host_limits(["Lac"])[0, 0], [0.4, NAN])
    np.testing.assert_array_equal(run.host_limits(["Glc"])[1, 0], [NAN, 20.0])


def test_vessels_of_several_cultures_are_exported_one_by_one(make, url, tmp_path):
    make("V1", process=POND).write_sample(1, {"X": 1.0})
    make("V2", process=BROTH).write_sample(1, {"X": 1.0})
    make("V3").write_sample(1, {"VCD": 1.0})
    out = tmp_path / "out.csv"
    with pytest.raises(DataError, match="V1 is pond and V2 is broth: .*--reactor"):
        export_file(url, out, "Exp1", ["V1", "V2"])
    with pytest.raises(DataError, match="V1 is pond and V3 is CHO perfusion; a table"):
        export_file(url, out, "Exp1", ["V1", "V3"])
    assert "of pond" in export_file(url, out, "Exp1", ["V1"])


def test_the_commands_take_a_process_file(url, tmp_path):
    BROTH.to_toml(tmp_path / "broth.toml")
    path, out = tmp_path / "runs.csv", tmp_path / "out.csv"
    path.write_text(TEXT)
    told = ["db", "import", url, str(path), "--experiment", "E"]
    done = CliRunner().invoke(app, [*told, "--process", str(tmp_path / "broth.toml")])
    assert done.exit_code == 0, done.output
    assert "E, V1: 2 samples (2 new" in done.output
    done = CliRunner().invoke(app, [*told, "--reactor", "V1"])
    assert done.exit_code != 0
    done = CliRunner().invoke(app, ["db", "export", url, str(out), "--experiment", "E"])
    assert done.exit_code == 0 and "of broth" in done.output
    assert out.read_text().splitlines()[1].split(",")[5:8] == ["g/L", "g/L", "g/L"]


# ---------------------------------------------------------------- versions


def whole(store: SQLStore) -> dict[str, list[tuple]]:
    """Every row of every table there is, as it lies there."""
    found = {}
    with store.database.engine.connect() as connection:
        for name in sorted(sa.inspect(connection).get_table_names()):
            columns = [c["name"] for c in sa.inspect(connection).get_columns(name)]
            quoted = ", ".join(f'"{c}"' for c in columns)
            rows = connection.exec_driver_sql(f'SELECT {quoted} FROM "{name}" ORDER BY 1')
            found[name] = [dict(zip(columns, map(_shown, row), strict=True)) for row in rows]
    found.pop(schema.VERSION_TABLE)
    return found


def _shown(cell):
    return cell.isoformat() if isinstance(cell, dt.datetime) else cell


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_nothing_of_an_older_database_changes(make, version):
    store = make()
    taken = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)
    for day in range(6):
        store.write_sample(
            day, {"VCD": 0.1 + day, "Titer": None, "pH": 7.0}, sampled_at=taken,
            quality={"VCD": "uncertain"},
        )  # fmt: skip
    asyncio.run(store.write_setpoints({"temperature": 36.5}, day=3))
    store.log_audit_event("run1", "NOTE", {"x": 1})
    downgrade(store.database, version)
    before = whole(store)
    upgrade(store.database)
    after = whole(store)
    assert after.pop("culture") == after.pop("reading") == []
    assert set(after) == set(before)
    for name, rows in before.items():
        assert [{n: row[n] for n in rows[0]} for row in after[name]] == rows if rows else True
    assert all(row["limits"] is None for row in after["sample"])
    found = read(store, 5)
    assert found.values == {"VCD": 5.1, "Titer": None} and found.limits == {}
    assert found.quality == {"VCD": "uncertain", "Titer": "missing", "pH": "good"}
    store.write_records([SampleRecord(7, 168.0, {"Glc": 0.1}, limits={"Glc": (0.2, NAN)})])
    make("new", process=POND).write_sample(0, {"X": 1.0})


def test_going_back_is_refused_where_something_would_be_lost(make):
    store = make(process=POND)
    store.write_sample(1, {"X": 1.0, "froth": 0.5})
    make("R2").write_records([SampleRecord(1, 24.0, {"Glc": 0.1}, limits={"Glc": (0.2, NAN)})])
    says = "1 described cultures, 2 readings without a column of their own, 1 samples with limits"
    with pytest.raises(ConfigError, match=f"{says} of assays would be lost"):
        downgrade(store.database, "0002")
    assert store.database.revision() == "0003" and read(store, 1).values["X"] == 1.0
    downgrade(store.database, "0002", drop_history=True)
    upgrade(store.database)
    assert read(make("R2"), 1).values == {"Glc": 0.1} and rows_of(store, schema.culture) == []


def test_what_probes_of_a_culture_read_is_apart_from_samples(tmp_path):
    probed = tuple(q.model_copy(update={"is_online": q.name == "pH"}) for q in BROTH.quantities)
    broth = BROTH.model_copy(update={"quantities": probed})
    assert "is_online" not in BROTH.model_dump_json() and "is_online" in broth.model_dump_json()
    url = f"sqlite:///{tmp_path / 'broth.db'}"
    store = SQLStore(url, "E1", "R01", process=broth, clock=lambda: NOON)
    store.create_tables()
    store.write_sample(1, {"X": 2.0, "pH": 7.0})
    store.write_tags({"pH": 6.8, "DO": 40.0}, 30.0)
    found = asyncio.run(store.read_tags())
    assert {n: r.value for n, r in found.items()} == {"pH": 6.8, "DO": 40.0}
    assert asyncio.run(store.read_sample(1))["pH"] == 7.0
    with pytest.raises(DataError, match="'X' of day 1 does not belong into tags"):
        store.write_tags({"X": 3.0}, 32.0)
