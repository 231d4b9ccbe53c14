"""Commands, alarms, leases and readings in the journal file."""

import datetime as dt
import sqlite3

import pytest

from perfusio_jax._core import ConfigError, RunLockedError
from perfusio_jax.twin import JournalError, RunRecords
from perfusio_jax.twin.entries import OnlineReading
from perfusio_jax.twin.store import _VERSION_1

START = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


@pytest.fixture
def records(tmp_path):
    with RunRecords(tmp_path / "journal.sqlite", clock=Clock()) as made:
        yield made


def test_a_command_waits_until_it_is_handled_and_is_kept(records):
    first = records.send("R1", "approve", actor=" ada ", role="qa", payload={"decision": 4})
    records.send("R2", "stop", actor="bob")
    (command,) = records.open("R1")
    assert (command.kind, command.actor, command.role) == ("approve", "ada", "qa")
    assert command.payload["decision"] == 4 and "@" in command.payload["sent_by"]
    assert records.outcome(first) is None
    records.mark(first, "done")
    records.mark(first, "something else")  # the first word counts
    assert records.open("R1") == [] and records.outcome(first) == "done"
    assert [c.id for c in records.handled("R1")] == [first]
    records.keep("R1", "override", actor="operator", payload={"controls": ["x"]})
    assert [c.kind for c in records.handled("R1")] == ["approve", "override"]


def test_commands_nobody_knows_or_nobody_sent_are_refused(records):
    with pytest.raises(ConfigError, match="unknown"):
        records.send("R1", "explode", actor="ada")
    with pytest.raises(ConfigError, match="name of who asks"):
        records.send("R1", "stop", actor="  ")


def test_an_alarm_is_raised_once_seen_silenced_and_cleared(records):
    now = START + dt.timedelta(hours=1)
    alarm, is_news = records.note_alarm("R1", "sample/Glc", "warning", "low")
    assert is_news and alarm.state(now) == "raised"
    again, is_news = records.note_alarm("R1", "sample/Glc", "warning", "lower")
    assert not is_news and again.id == alarm.id and again.times == 2 and again.message == "lower"
    assert records.acknowledge_alarm(alarm.id, "ada").state(now) == "acknowledged"
    worse, is_news = records.note_alarm("R1", "sample/Glc", "critical", "very low")
    assert is_news and worse.state(now) == "raised", "what got worse has to be seen again"
    silent = records.suppress_alarm(alarm.id, now + dt.timedelta(hours=2))
    assert silent.state(now) == "suppressed"
    assert silent.state(now + dt.timedelta(hours=3)) == "raised"
    assert [a.id for a in records.standing_alarms()] == [alarm.id]
    assert records.clear_alarm("R1", "sample/Glc") and not records.clear_alarm("R1", "sample/Glc")
    assert records.alarm(alarm.id).state(now) == "cleared" and records.standing_alarms() == []
    with pytest.raises(ConfigError, match="stands"):
        records.acknowledge_alarm(alarm.id, "ada")
    fresh, is_news = records.note_alarm("R1", "sample/Glc", "warning", "low")
    assert is_news and fresh.id != alarm.id
    with pytest.raises(ConfigError, match="no alarm 99"):
        records.alarm(99)


def test_a_lease_belongs_to_one_and_its_number_only_grows(records, tmp_path):
    ttl = dt.timedelta(seconds=60)
    first = records.take_lease("R1", "one", ttl, force=False)
    with pytest.raises(RunLockedError, match="leased to one"):
        records.take_lease("R1", "two", ttl, force=False)
    records.renew_lease("R1", first, ttl)
    second = records.take_lease("R1", "two", ttl, force=True)
    assert second > first
    with pytest.raises(RunLockedError, match="leased to two"):
        records.renew_lease("R1", first, ttl)
    records.release_lease("R1", first)  # not his any more: nothing happens
    with pytest.raises(RunLockedError, match="leased to two"):
        records.take_lease("R1", "three", ttl, force=False)
    records.release_lease("R1", second)
    third = records.take_lease("R1", "three", ttl, force=False)
    records._clock.now += dt.timedelta(seconds=61)
    assert records.take_lease("R1", "four", ttl, force=False) == third + 1
    assert records.lease("R1")[:2] == (third + 1, "four") and records.lease("R2") is None


def test_no_write_is_opened_under_a_lost_lease(records):
    lease = records.take_lease("R1", "one", dt.timedelta(seconds=60), force=False)
    number = records.record_decision("R1", 0, {"x": 1})
    with pytest.raises(RunLockedError, match="may not write"):
        records.open_intent(number, {"temperature": 36.5}, lease=lease + 1)
    assert records.pending() == []
    with pytest.raises(RunLockedError, match="nobody"):
        records.renew_lease("R9", 1, dt.timedelta(seconds=1))
    records.open_intent(number, {"temperature": 36.5}, lease=lease)
    assert len(records.pending()) == 1


def test_a_reading_is_stored_once_and_given_by_culture_time(records):
    rows = [
        ("capacitance", START + dt.timedelta(hours=h), float(h), 10.0 + h, "good")
        for h in (1, 2, 3)
    ]
    assert records.record_readings("R1", rows) == 3
    assert records.record_readings("R1", [*rows, ("pH", START, 0.5, None, "bad")]) == 1
    found = records.readings("R1", since_h=1.0, until_h=2.0)
    assert found == [OnlineReading("capacitance", 2.0, 12.0, "good")]
    assert len(records.readings("R1")) == 4 and records.readings("R2") == []


def test_cycles_close_once_and_decisions_can_be_taken_back(records):
    records.close_cycle("R1", 0, "written")
    records.close_cycle("R1", 0, "hold")
    assert records.cycles("R1") == {0.0: "written"}
    assert records.is_closed("R1", 0) and not records.is_closed("R1", 1)
    number = records.record_decision("R1", 1, {"x": 1})
    assert [d.id for d in records.decisions("R1")] == [number]
    records.supersede(number, "the sample was wrong")
    assert records.decisions("R1") == [] and records.decision("R1", 1) is None


def test_the_run_as_it_was_known_then(records):
    records.record_sample("R1", 0, {"values": {"VCD": 1.0}})
    records.record_sample("R1", 1, {"values": {"VCD": 2.0}})
    then = records.last_sample("R1")
    records.record_sample("R1", 0, {"values": {"VCD": 1.5}}, is_correction=True)
    records.record_sample("R1", 2, {"values": {"VCD": 3.0}})
    value = lambda s: s.values["values"]["VCD"]  # noqa: E731
    assert [value(s) for s in records.samples("R1", up_to=then)] == [1.0, 2.0]
    assert [value(s) for s in records.samples("R1")] == [1.5, 2.0, 3.0]
    assert records.last_sample("R9") == 0


def test_a_journal_of_the_first_version_is_taken_over_with_its_days(tmp_path):
    path = tmp_path / "journal.sqlite"
    db = sqlite3.connect(path)
    db.executescript(_VERSION_1)
    db.execute("INSERT INTO meta VALUES ('schema_version', 1)")
    db.execute("INSERT INTO decisions VALUES (1, 'R1', 0.0, 't', '{}', NULL)")
    db.execute("INSERT INTO decisions VALUES (2, 'R1', 1.0, 't', '{}', NULL)")
    db.execute("INSERT INTO intents VALUES (1, 1, 'R1', 0.0, 't', '{}', 'written', 't', '{}')")
    db.commit()
    db.close()
    for _ in range(2):
        with RunRecords(path) as records:
            assert records.cycles("R1") == {0.0: "done"}
            assert records._query("SELECT value FROM meta", ()) == [("2",)]
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '3'")
    db.commit()
    db.close()
    with pytest.raises(JournalError, match="schema version 3"):
        RunRecords(path)
