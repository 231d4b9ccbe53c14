"""Samples, set-points and records of a run in SQLite and in PostgreSQL: one set of tests."""

import asyncio
import contextlib
import datetime as dt
import inspect
import itertools
import math
import sqlite3
import threading
import traceback
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    STREAM_TOTALS,
    ConfigError,
    DataError,
)
from perfusio_jax.connectors import SQLStore
from perfusio_jax.connectors.base import Reading, SampleNotReady, SampleRecord
from perfusio_jax.connectors.sql import schema
from perfusio_jax.connectors.sql.engine import read_url
from perfusio_jax.connectors.sql.records import clean, merge, record_of
from perfusio_jax.twin import AlarmEvent, AuditLogger
from perfusio_jax.twin.records.entries import Stored

NOON = dt.datetime(2026, 5, 6, 12, tzinfo=dt.UTC)


def read(store: SQLStore, day: int) -> SampleRecord:
    return asyncio.run(store.read_record(day))


def write(store: SQLStore, setpoints: dict[str, float], **more) -> None:
    asyncio.run(store.write_setpoints(setpoints, **more))


# ---------------------------------------------------------------- once, filled, corrected


def test_the_same_sample_again_changes_nothing(store):
    assert store.write_sample(1, {"VCD": 2.3, "Glc": math.nan}) is Stored.NEW
    assert store.write_sample(1, {"VCD": 2.3, "Glc": None}) is Stored.DUPLICATE
    assert store.write_sample(1, {"VCD": 2.3}) is Stored.DUPLICATE  # says less, not otherwise
    assert read(store, 1).values == {"VCD": 2.3, "Glc": None}
    assert len(store.read_revisions(1)) == 1


def test_a_late_value_fills_a_gap_and_the_first_row_stays(store):
    store.write_sample(1, {"VCD": 2.3, "Titer": None})
    assert store.write_sample(1, {"Titer": 150.0, "pH": 7.0}) is Stored.CORRECTED
    assert read(store, 1).values == {"VCD": 2.3, "Titer": 150.0}
    assert read(store, 1).tags == {"pH": 7.0}
    first, second = store.read_revisions(1)
    assert (first["revision"], first["record"].values["Titer"]) == (1, None)
    assert second["reason"] == "filled in: Titer, pH"


def test_another_value_is_refused_or_a_correction_with_its_history(store):
    store.write_sample(1, {"VCD": 2.3, "Glc": 4.0})
    with pytest.raises(DataError, match=r"24 h \(day 1\): VCD 2.3 -> 2.4. If the new one"):
        store.write_sample(1, {"VCD": 2.4, "Lac": 9.0})
    assert read(store, 1).values == {"VCD": 2.3, "Glc": 4.0}  # the new value did not slip in
    fate = store.write_sample(1, {"VCD": 2.4}, is_correction=True, user="Ada", reason="recount")
    assert fate is Stored.CORRECTED
    assert read(store, 1).values == {"VCD": 2.4, "Glc": 4.0}
    history = [
        (r["revision"], r["stored_by"], r["reason"], r["record"].values["VCD"])
        for r in store.read_revisions(1)
    ]
    assert history == [(1, "system", None, 2.3), (2, "Ada", "recount", 2.4)]
    assert store.write_sample(1, {"VCD": 2.4}, is_correction=True) is Stored.DUPLICATE


def test_a_bad_value_takes_back_what_was_good_only_as_a_correction(store):
    store.write_sample(1, {"VCD": 2.3})
    with pytest.raises(DataError, match=r"VCD 2.3 -> none \(bad\)"):
        store.write_sample(1, {"VCD": 9.0}, quality={"VCD": "bad"})
    store.write_sample(1, {"VCD": 9.0}, quality={"VCD": "bad"}, is_correction=True)
    record = read(store, 1)
    assert (record.values, record.quality) == ({"VCD": None}, {"VCD": "bad"})


def test_many_samples_are_stored_whole_or_not_at_all(store):
    good = [record_of(day, {"VCD": float(day)}) for day in range(1, 5)]
    clash = record_of(2, {"VCD": 99.0})
    with pytest.raises(DataError, match="another sample of R1 is stored for 48 h"):
        store.write_records([*good, clash])
    assert asyncio.run(store.days_available()) == []
    assert store.write_records([*good, good[0]]) == [Stored.NEW] * 4 + [Stored.DUPLICATE]
    late = record_of(3, {"Glc": 4.0})
    assert store.write_records([late, late]) == [Stored.CORRECTED, Stored.DUPLICATE]


def test_samples_of_one_day_at_other_times_are_different_samples(store):
    store.write_sample(1, {"VCD": 2.0}, time_h=23.0)
    store.write_sample(1, {"VCD": 2.1}, time_h=24.5)
    record = read(store, 1)
    assert (record.time_h, record.values["VCD"]) == (24.5, 2.1)
    assert record.notes == ("day 1 is the sample at 24.5 h; there is also 23 h",)
    assert [r.time_h for r in asyncio.run(store.read_history())] == [23.0, 24.5]


@pytest.mark.parametrize(
    ("sample", "more", "words"),
    [
        ({"VCD": math.inf}, {}, "VCD of day 1 is infinite"),
        ({"VCD": "2.3"}, {}, "VCD of day 1 is '2.3'; a number"),
        ({"VCD": True}, {}, "VCD of day 1 is True"),
        ({"VCDD": 2.3}, {}, "'VCDD' of day 1 is no known name; allowed are VCD"),
        ({"VCD": 2.3}, {"quality": {"VCD": "fine"}}, "quality of VCD of day 1 is 'fine'"),
        ({"VCD": 2.3}, {"quality": {"Glc": "good"}}, "a quality and no value of Glc"),
        ({"VCD": 2.3}, {"time_h": math.nan}, "time_h of day 1 is nan"),
        ({"VCD": 2.3}, {"time_h": 1e300}, "time_h of day 1"),
        ({"VCD": 2.3}, {"sampled_at": dt.datetime(2026, 5, 6)}, "has no time zone"),
        ({"VCD": 2.3}, {"user": ""}, "user is ''"),
        ({"VCD": 2.3}, {"user": "a\x00b"}, "without control characters"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(store, sample, more, words):
    with pytest.raises(DataError, match=words):
        store.write_sample(1, sample, **more)
    assert asyncio.run(store.days_available()) == []


@pytest.mark.parametrize("day", [1.5, "1", None, math.nan, 10**9])
def test_a_day_that_is_none_is_refused(store, day):
    with pytest.raises(DataError, match="the culture day is"):
        store.write_sample(day, {"VCD": 2.0}, time_h=24.0)
    with pytest.raises(DataError, match="the culture day is"):
        read(store, day)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201, "\ud800", 3, None])
def test_names_no_database_can_hold_are_refused(name, tmp_path):
    for names in ((name, "R1"), ("E", name)):
        with pytest.raises(DataError, match="_name is"):
            SQLStore(f"sqlite:///{tmp_path / 'a.db'}", *names)


def test_24_reactors_and_two_experiments_do_not_mix(make):
    first = make("R00")
    stores = [first.for_reactor(f"R{n:02d}") for n in range(24)]
    for n, each in enumerate(stores):
        each.write_sample(1, {"VCD": float(n)})
        write(each, {"temperature": 36.0 + n / 100})
    other = make("R03", "Exp2")
    other.write_sample(1, {"VCD": 77.0})
    for n, each in enumerate(stores):
        assert read(each, 1).values == {"VCD": float(n)}
        assert asyncio.run(each.read_setpoints()) == {"temperature": 36.0 + n / 100}
    assert read(other, 1).values == {"VCD": 77.0}
    assert asyncio.run(other.read_setpoints()) == {}
    assert read(make("R05"), 1).values == {"VCD": 5.0}


def test_24_reactors_at_once_through_stores_of_their_own(make):
    stores = [make(f"R{n:02d}") for n in range(24)]

    async def cycle(n: int) -> None:
        await stores[n].write_setpoints({"temperature": 36.0 + n / 100})
        assert await stores[n].read_setpoints() == {"temperature": 36.0 + n / 100}
        await asyncio.to_thread(stores[n].write_sample, 1, {"VCD": float(n)})
        assert await stores[n].read_sample(1) == {"VCD": float(n)}

    async def main() -> None:
        await asyncio.gather(*(cycle(n) for n in range(24)))

    asyncio.run(main())


def test_a_reactor_nobody_wrote_to_names_those_there_are(make):
    make("R1").write_sample(1, {"VCD": 2.0})
    with pytest.raises(SampleNotReady, match="no sample of R9 .*has reactors R1"):
        read(make("R9"), 1)
    with pytest.raises(SampleNotReady, match="experiment Exp7 has reactors none"):
        read(make("R1", "Exp7"), 1)
    with pytest.raises(SampleNotReady, match="no sample of R1 for day 2 yet"):
        read(make("R1"), 2)


# ---------------------------------------------------------------- round trips

NUMBER = st.one_of(
    st.none(), st.just(math.nan), st.floats(allow_nan=False, allow_infinity=False, width=64)
)
NAME = st.text(
    st.characters(exclude_categories=["Cs"], min_codepoint=32), min_size=1, max_size=40
).filter(lambda s: s.strip())
COUNTER = itertools.count()
ZONE = st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"])
INSTANT = st.datetimes(
    dt.datetime(1999, 1, 1), dt.datetime(2100, 1, 1), timezones=ZONE.map(ZoneInfo)
)
QUALITY = st.sampled_from(["good", "uncertain", "bad"])


def group(names):
    return st.dictionaries(st.sampled_from(names), NUMBER, max_size=len(names))


@st.composite
def records(draw) -> SampleRecord:
    """Any sample a source can give."""
    groups = {
        "values": draw(group(REGISTRY)),
        "stream_totals": draw(group(STREAM_TOTALS)),
        "controls": draw(group(CONTROL_NAMES)),
        "tags": draw(group(AUXILIARY_TAGS)),
    }
    names = sorted(n for g in groups.values() for n in g)
    some = st.sets(st.sampled_from(names)) if names else st.just(set())
    return SampleRecord(
        day=draw(st.integers(-5, 400)),
        time_h=draw(st.floats(-100.0, 1e5)),
        quality={n: draw(QUALITY) for n in sorted(draw(some))},
        source_times={n: draw(INSTANT) for n in sorted(draw(some))},
        volume_L=draw(st.one_of(st.none(), st.floats(0.0, 1e3))),
        notes=tuple(draw(st.lists(NAME, max_size=2))),
        **groups,
    )


@settings(max_examples=20, suppress_health_check=[*HealthCheck], derandomize=True, deadline=None)
@given(record=records(), reactor=NAME, experiment=NAME)
@example(
    record=SampleRecord(
        1,
        24.0,
        {"VCD": -0.0, "Glc": 5e-324, "Lac": 1.7976931348623157e308, "Titer": math.nan},
        # The hour that occurs twice, its second time:
        source_times={
            "VCD": dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
        },
    ),
    reactor="Réacteur №7 \U0001f9eb",
    experiment="'; DROP TABLE sample; --",
)  # fmt: skip
def test_a_sample_comes_back_as_it_was_stored(make, record, reactor, experiment):
    store = make(f"{next(COUNTER)} {reactor}", experiment)
    assert store.write_records([record]) == [Stored.NEW]
    wanted = clean(record)
    found = read(store, wanted.day)
    for field in ("values", "stream_totals", "controls", "tags"):
        assert getattr(found, field) == getattr(wanted, field), field
    for field in ("day", "time_h", "quality", "source_times", "volume_L", "notes"):
        assert getattr(found, field) == getattr(wanted, field), field
    assert found.reactor_id == store.reactor_name
    assert store.write_records([found]) == [Stored.DUPLICATE]
    store.database.close()


def test_ages_come_from_source_times_through_daylight_saving(make):
    berlin = ZoneInfo("Europe/Berlin")
    before = dt.datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=0)
    after = dt.datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1)
    store = make(clock=lambda: after)
    store.write_sample(1, {"VCD": 2.0}, sampled_at=before)
    record = read(store, 1)
    assert record.ages_h == {"VCD": 1.0}
    assert record.age_h == 1.0
    assert record.source_times["VCD"] == before.astimezone(dt.UTC)


@given(first=records(), second=records())
@settings(max_examples=40, deadline=None)
def test_merging_loses_nothing_and_says_what_changed(first, second):
    old, new = clean(first), clean(second)
    merged = merge(old, new)
    assert merge(merged.record, new).filled == merge(merged.record, new).differing == ()
    for field in ("values", "stream_totals", "controls", "tags"):
        for name, value in getattr(merged.record, field).items():
            news = getattr(new, field).get(name)
            was = getattr(old, field).get(name)
            is_said = new.quality.get(name, "missing") != "missing"
            assert value == (news if is_said else was)
            if is_said and (was, old.quality.get(name)) != (news, new.quality[name]):
                # A value and its time belong together.
                assert merged.record.source_times.get(name) == new.source_times.get(name)
    if not merged.filled and not merged.differing:
        assert merged.record.values == old.values and merged.record.quality == old.quality
    assert merge(old, old)[1:] == ((), ())


# ---------------------------------------------------------------- set-points


def test_set_points_are_history_and_the_last_of_each_is_in_force(make):
    store = make(clock=lambda: NOON)
    assert asyncio.run(store.read_back()) == {}
    write(store, {"temperature": 36.5, "bleed_rate": 0.1 + 0.2}, day=3, time_h=72.5)
    write(store, {"temperature": 36.0}, user="Ada", reason="by hand")
    found = asyncio.run(store.read_back())
    assert found == {
        "bleed_rate": Reading(0.1 + 0.2, "good", NOON, NOON),
        "temperature": Reading(36.0, "good", NOON, NOON),
    }
    rows = store.setpoint_history()
    assert [(r["name"], r["value"], r["day"], r["written_by"]) for r in rows] == [
        ("temperature", 36.5, 3.0, "system"),
        ("bleed_rate", 0.1 + 0.2, 3.0, "system"),
        ("temperature", 36.0, None, "Ada"),
    ]


def test_a_write_with_a_name_is_made_once(store):
    write(store, {"temperature": 36.5}, write_id="day 3")
    write(store, {"temperature": 36.0})
    write(store, {"temperature": 36.5}, write_id="day 3")  # tried again, too late to count
    assert asyncio.run(store.read_setpoints()) == {"temperature": 36.0}
    for other in ({"temperature": 37.0}, {"temperature": 36.5, "agitation": 900.0}):
        with pytest.raises(DataError, match="the write day 3 put"):
            write(store, other, write_id="day 3")
    assert len(store.setpoint_history()) == 2


def test_an_operator_s_row_by_plain_sql_is_read_back(store):
    write(store, {"temperature": 36.5})
    with store.database.engine.begin() as connection:
        connection.execution_options(perfusio_write=True)
        reactor = connection.execute(sa.select(schema.reactor.c.id)).scalar_one()
        connection.execute(
            schema.setpoint_history.insert().values(
                reactor_id=reactor,
                write_id="hand",
                name="temperature",
                value=35.5,
                written_at=NOON,
                written_by="Ada",
            )
        )
    assert asyncio.run(store.read_setpoints()) == {"temperature": 35.5}


# ---------------------------------------------------------------- tags, clock, rows of others


def test_online_tags_are_apart_from_samples(make):
    store = make(clock=lambda: NOON)
    assert asyncio.run(store.read_tags()) == {}
    store.write_tags({"pH": 7.1, "DO": None}, 30.0)
    measured = NOON - dt.timedelta(minutes=30)
    store.write_tags(
        {"pH": Reading(7.2, "uncertain", measured), "capacitance": Reading(None, "bad")}, 31.0
    )
    found = asyncio.run(store.read_tags())
    assert found == {
        "pH": Reading(7.2, "uncertain", measured, NOON),
        "capacitance": Reading(None, "bad", None, NOON),
    }
    assert found["pH"].age_h == 0.5
    assert asyncio.run(store.days_available()) == []
    with pytest.raises(DataError, match="'VCD' of day 1 does not belong into tags"):
        store.write_tags({"VCD": 3.0}, 32.0)


def test_the_clock_of_a_server_is_near_ours_and_a_file_has_none(store):
    found = asyncio.run(store.read_clock())
    if store.database.is_sqlite:
        assert found is None
    else:
        assert abs(found - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)


def test_rows_another_program_wrote_without_our_extras_are_read(store):
    store.write_sample(1, {"VCD": 2.0})
    with store.database.engine.begin() as connection:
        reactor = connection.execute(sa.select(schema.reactor.c.id)).scalar_one()
        connection.execute(
            schema.sample.insert().values(
                reactor_id=reactor, kind="daily", day=2, time_h=48.0, revision=1, vcd=3.0,
                glc=4.5, stored_at=NOON, stored_by="lims", sampled_at=NOON,
                tags={"pH": None}, quality={"Glc": "bad"},
            )
        )  # fmt: skip
    record = read(store, 2)
    assert record.values == {"VCD": 3.0, "Glc": None}
    assert record.quality == {"VCD": "good", "Glc": "bad", "pH": "missing"}
    assert record.source_times["VCD"] == NOON


# ---------------------------------------------------------------- two writers


def test_two_writers_at_once_store_each_sample_once(make):
    """Threads with connections of their own write the same and different days."""
    stores = [make() for _ in range(4)]
    fates: list[list[Stored]] = [[] for _ in stores]
    start = threading.Barrier(len(stores))

    def work(n: int) -> None:
        start.wait()
        for day in range(12):
            fates[n].append(stores[n].write_sample(day, {"VCD": float(day)}))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for day in range(12):
        assert sorted(f[day].value for f in fates) == ["duplicate"] * 3 + ["new"]
    assert len(asyncio.run(stores[0].read_history())) == 12
    assert all(len(stores[0].read_revisions(day)) == 1 for day in range(12))


def test_two_writers_that_disagree_do_not_both_win(make):
    stores = [make() for _ in range(2)]
    results: list[object] = [None, None]
    start = threading.Barrier(2)

    def work(n: int) -> None:
        start.wait()
        try:
            results[n] = stores[n].write_sample(1, {"VCD": float(n)})
        except DataError as error:
            results[n] = error

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = next(n for n in range(2) if results[n] is Stored.NEW)
    assert isinstance(results[1 - winner], DataError)
    assert read(stores[0], 1).values == {"VCD": float(winner)}


# ---------------------------------------------------------------- archive


def test_audit_events_are_kept_and_repeated_ones_harmless(make):
    store = make(clock=lambda: NOON)
    payload = {"at": NOON, "value": math.nan, "name": "π"}
    for _ in range(2):
        store.log_audit_event("run1", "SETPOINT_CHANGE", payload, day=3, user="Ada", key="k1")
    (event,) = store.audit_events()
    assert (event["run_id"], event["day"], event["actor"]) == ("run1", 3, "Ada")
    assert event["payload"]["value"] is None and event["details"]["marks"] == {"/value": "nan"}
    assert event["happened_at"] == NOON
    with pytest.raises(DataError, match="audit_event holds another entry.*differs in payload"):
        store.log_audit_event("run1", "SETPOINT_CHANGE", {}, day=3, user="Ada", key="k1")
    store.log_audit_event("run1", "NOTE", {})
    store.log_audit_event("run1", "NOTE", {})  # without a key, two events are two events
    assert len(store.audit_events()) == 3


def test_the_audit_trail_is_mirrored_once_and_whole(store, tmp_path):
    from perfusio_jax.twin.records.chain import records as audit_records

    with AuditLogger(tmp_path / "log", "run1", clock=lambda: NOON) as audit:
        for day in range(3):
            audit.log("NOTE", {"x": day}, day=day, user="Ada", reason="why", old=1, new=[2.5])
    trail = list(audit_records((tmp_path / "log" / "audit.jsonl").read_bytes()))
    assert store.mirror_audit(trail[:2]) == 2
    assert store.mirror_audit(trail) == len(trail) - 2
    assert store.mirror_audit(trail) == 0
    for event, record in zip(store.audit_events(), trail, strict=True):
        assert (event["key"], event["seq"], event["payload"]) == (
            record["hash"], record["seq"], record["payload"],
        )  # fmt: skip
        assert event["details"]["prev_hash"] == record["prev_hash"]
        assert event["happened_at"] == dt.datetime.fromisoformat(record["timestamp"])
    with pytest.raises(DataError, match="an audit record lacks run_id, hash"):
        store.mirror_audit([{"seq": 1}])
    with pytest.raises(DataError, match="differs in payload"):
        store.mirror_audit([{**trail[0], "payload": {"x": "forged"}}])


def copied(make, tmp_path, n: int = 3) -> tuple[Path, list[dict]]:
    """A trail of `n` records and its copy in an SQLite database."""
    from perfusio_jax.twin.records.chain import records as audit_records

    with AuditLogger(tmp_path / "log", "run1", clock=lambda: NOON) as audit:
        for day in range(n):
            audit.log("NOTE", {"x": day}, day=day)
    trail = list(audit_records((tmp_path / "log" / "audit.jsonl").read_bytes()))
    store = make()
    store.mirror_audit(trail)
    return Path(str(store.database.engine.url.database)), trail


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("happened_at", "yesterday"),
        ("happened_at", ""),
        ("happened_at", "2026-13-45 00:00:00"),
        ("happened_at", 12),
        ("happened_at", b"\xff"),
        ("payload", "{"),
        ("payload", ""),
        ("payload", "[" * 100_000),
        ("payload", b"\xff\xfe"),
        ("payload", 7),
        ("details", "no"),
        ("day", "monday"),
        ("seq", "second"),
        ("seq", None),
        ("actor", b"\x00"),
    ],
)
def test_a_row_of_the_copy_with_anything_in_it_is_named_and_the_others_are_compared(
    make, tmp_path, column, value
):
    """SQLite takes anything in any column; `verify-audit twin.toml` reads it."""
    file, trail = copied(make, tmp_path)
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute(f"UPDATE audit_event SET {column} = ? WHERE seq = 2", (value,))
    state = make().compare_audit("run1", trail)
    assert (state.ok, state.n_copied, state.first_differing) == (False, 2, 2)
    assert (state.first_missing, state.n_foreign) == (None, 0)
    with pytest.raises(DataError):  # and the running copy refuses that record, and no other
        make().mirror_audit([trail[1]])
    assert make().mirror_audit([trail[0], trail[2]]) == 0


def test_a_row_without_a_number_is_counted_as_one_the_log_does_not_have(make, tmp_path):
    _, trail = copied(make, tmp_path)
    make().log_audit_event("run1", "SETPOINT_CHANGE", {"forged": True})
    state = make().compare_audit("run1", trail)
    assert (state.ok, state.n_copied, state.n_foreign) == (False, 3, 1)
    assert "1 rows there are not in the log" in str(state)
    assert make().compare_audit("run2", trail[:0]).ok


def test_alarms_have_a_history_of_states(make):
    store = make()
    alarm = AlarmEvent(5, "VCV", 40.0, 35.0, "above", 2, probability=0.9)
    store.log_alarm("run1", alarm, happened_at=NOON)
    store.log_alarm("run1", alarm, happened_at=NOON.astimezone(ZoneInfo("Asia/Kathmandu")))
    key = store.alarm_events()[0]["key"]
    store.log_alarm("run1", alarm, key=key, state="acknowledged", user="Ada")
    rows = store.alarm_events()
    assert [(r["state"], r["actor"], r["species"]) for r in rows] == [
        ("raised", "system", "VCV"),
        ("acknowledged", "Ada", "VCV"),
    ]
    assert rows[0]["happened_at"] == NOON
    with pytest.raises(DataError, match="has no zone"):
        store.log_alarm("run1", alarm, happened_at=dt.datetime(2026, 5, 6))
    assert {r["key"] for r in rows} == {key} and rows[0]["payload"]["probability"] == 0.9
    with pytest.raises(DataError, match="state is 'gone'; allowed are raised"):
        store.log_alarm("run1", alarm, state="gone")
    with pytest.raises(DataError, match="needs day and species"):
        store.log_alarm("run1", {"day": 1})


def test_models_and_forecasts_are_linked(make):
    store = make()
    with pytest.raises(DataError, match="no model abc is stored"):
        store.log_forecast("run1", 3, {"VCV": [1.0]}, model_sha256="abc")
    for _ in range(2):
        store.log_model_run("run1", "abc", settings={"length": 32}, metrics={"rrmse": 0.1})
        store.log_forecast("run1", 3, {"VCV": [1.0, None]}, model_sha256="abc")
    (model,) = store.model_runs()
    (forecast,) = store.forecasts()
    assert forecast["model_run_id"] == model["id"]
    assert (model["settings"], forecast["payload"]) == ({"length": 32}, {"VCV": [1.0, None]})
    with pytest.raises(DataError, match="differs in metrics"):
        store.log_model_run("run1", "abc", settings={"length": 32}, metrics={"rrmse": 0.2})
    assert make("R2").model_runs() == [model] and make("R2").forecasts() == []


# ---------------------------------------------------------------- URLs and secrets


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@host/db",
        "postgresql+psycopg2://user:hunter2@host:5432/db",
        "postgresql://user@host/db?password=hunter2",
        "postgresql://user@host/db?sslpassword=hunter2",
        "postgresql://user:hunter2@evil@host/db",
        "postgresql://us@er:hunter2@host/db",
        "postgres://user:hunter2@/db",
        "sqlite://user:hunter2@/file.db",
        "mysql://user:hunter2@host/db",
        "postgresql://user:hunter2@host:port/db",
        "hunter2",
    ],
)
def test_a_password_in_the_url_is_refused_and_never_repeated(url, capsys, caplog):
    with pytest.raises(ConfigError) as caught:
        SQLStore(url, "E", "R")
    shown = "".join([repr(caught.value), str(caught.value), *capsys.readouterr(), caplog.text])
    assert "hunter2" not in shown
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/db", "kind 'mysql' is not supported"),
        ("sqlite://", "plain file"),
        ("sqlite:///:memory:", "plain file"),
        ("sqlite:///file:x?mode=memory&uri=true", "plain file"),
        ("postgresql://host", "names no database"),
        ("not a url", "cannot be read"),
        ("", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_urls_that_cannot_be_used_are_refused(url, words):
    with pytest.raises(ConfigError, match=words):
        SQLStore(url, "E", "R")


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "postgresql", "postgres"])
def test_other_drivers_of_postgresql_are_rewritten(scheme):
    url = read_url(f"{scheme}://ada@host:5433/db?sslmode=require")
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.host, url.port, url.database) == ("ada", "host", 5433, "db")
    assert dict(url.query) == {"sslmode": "require"}


def test_echo_prints_statements(tmp_path, capsys, caplog):
    loud = SQLStore(f"sqlite:///{tmp_path / 'a.db'}", "E", "R", echo=True)
    loud.create_tables()
    loud.write_sample(1, {"VCD": 2.0})
    loud.database.close()
    assert "INSERT INTO sample" in capsys.readouterr().out + caplog.text


def test_the_signatures_are_those_of_the_reference():
    assert list(inspect.signature(SQLStore).parameters)[:4] == [
        "db_url", "experiment_name", "reactor_name", "echo",
    ]  # fmt: skip
    log = inspect.signature(SQLStore.log_audit_event).parameters
    assert list(log)[:6] == ["self", "run_id", "event_type", "payload", "day", "user"]


def test_nothing_is_opened_before_the_first_call(tmp_path):
    store = SQLStore(f"sqlite:///{tmp_path / 'no.db'}", "E", "R")
    assert not asyncio.run(store.is_alive())
    assert list(tmp_path.iterdir()) == []
