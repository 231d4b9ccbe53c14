"""Commands, alarms, leases and readings in the journal file."""

import datetime as dt
import errno
import json
import os
import sqlite3
from pathlib import Path

import pytest

from perfusio_jax._core import ConfigError, RunLockedError
from perfusio_jax.twin import JournalError, RunRecords
from perfusio_jax.twin.decision.brain import OnlineReading
from perfusio_jax.twin.records import accounts, letters
from perfusio_jax.twin.records.accounts import account
from perfusio_jax.twin.records.layout import VERSION_1
from perfusio_jax.twin.records.letters import INBOX, MOST_BYTES, MOST_DEEP
from perfusio_jax.twin.records.store import stamp

START = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


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


def leave(folder, owner: str = "ada", **fields) -> Path:
    """A letter as somebody might write it by hand."""
    (folder / INBOX).mkdir(exist_ok=True)
    letter = {
        "ticket": "t1",
        "reactor_id": "R1",
        "kind": "stop",
        "actor": owner,
        "role": None,
        "payload": {},
        "account": owner,
        "host": "h",
    } | fields
    path = folder / INBOX / f"{letter['ticket']}.json"
    path.write_text(json.dumps(letter))
    return path


def test_a_command_waits_until_it_is_handled_and_is_kept(records):
    first = records.send("R1", "approve", actor=" ada ", role="qa", payload={"decision": 4})
    records.send("R2", "stop", actor="bob")
    (lying,) = records.waiting("R1")
    assert (lying.id, lying.who) == (0, f"{account()}, who says to be ada")
    assert records.open("R1") == [], "what lies in the inbox is not the journal's yet"
    (command,) = records.incoming("R1")
    assert (command.kind, command.actor, command.role) == ("approve", "ada", "qa")
    assert command.payload["decision"] == 4 and command.payload["host"]
    assert command.account == account() and command.sent_at == stamp(START + SECOND)
    assert records.open("R1") == records.waiting("R1") == [command]
    assert records.outcome(first) is None
    records.mark(command.id, "done")
    records.mark(command.id, "something else")  # the first word counts
    assert records.open("R1") == [] and records.outcome(first) == "done"
    assert [c.id for c in records.handled("R1")] == [command.id]
    records.keep("R1", "override", actor="operator", payload={"controls": ["x"]})
    assert [c.kind for c in records.handled("R1")] == ["approve", "override"]
    assert records.handled("R1")[1].account == account()
    assert not list((records.path.parent / INBOX).iterdir())


def test_the_account_is_the_system_s_and_no_variable_changes_it(monkeypatch):
    import pwd

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "boss")
    assert account() == pwd.getpwuid(os.geteuid()).pw_name != "boss"
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert account() == "uid 4000000"
    monkeypatch.setattr(accounts.os, "name", "nt")
    assert account() == "boss (unverified)", "where the system does not know, that is said"
    status = os.stat_result((0,) * 10)
    assert accounts.owner_of(status, {"account": "ada (unverified)"}) == "ada (unverified)"
    assert accounts.owner_of(status, {"account": "ada"}) == "ada (unverified)"


def test_a_command_is_of_the_account_that_owns_its_file_whatever_it_says(records, monkeypatch):
    folder = records.path.parent
    path = leave(folder, "boss", kind="approve", role="qa", payload={"decision": 1})
    real = os.fstat
    others = real(os.open(path, os.O_RDONLY))

    def fstat(descriptor):
        found = real(descriptor)
        mine = found.st_ino == others.st_ino
        return os.stat_result((*found[:4], 4_000_000, *found[5:])) if mine else found

    monkeypatch.setattr(letters.os, "fstat", fstat)
    (command,) = records.incoming("R1")
    assert command.account == "uid 4000000" and command.actor == "boss"
    assert command.who == "uid 4000000, who says to be boss"
    assert records.outcome("t1") is None


def test_a_letter_counts_once_though_it_comes_again_or_cannot_be_taken_away(records, monkeypatch):
    folder = records.path.parent
    path = leave(folder)
    kept = path.read_bytes()
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: full())
    assert len(records.incoming("R1")) == len(records.incoming("R1")) == 1
    monkeypatch.undo()
    records.mark(records.open("R1")[0].id, "done")
    (folder / INBOX / "another.json").write_bytes(kept)
    assert records.incoming("R1") == [] and records.waiting("R1") == []
    assert len(records.handled("R1")) == 1 and not list((folder / INBOX).iterdir())


def full():
    raise OSError(errno.EACCES, "Permission denied")


BAD = {
    "it is no JSON": b"{",
    "it is no JSON ": b"\xff\xfe",
    "it is no JSON  ": b"[" * 60_000,
    "it is no object of fields": b"[1]",
    "its ticket is no text": b"{}",
    "its kind is no text": b'{"ticket":"t","reactor_id":"R1","kind":3}',
    "its actor is no text": b'{"ticket":"t","reactor_id":"R1","kind":"stop","actor":" "}',
    "its payload is no object": b'{"ticket":"t","reactor_id":"R1","kind":"stop","actor":"a"}',
    "its role is no text": (
        b'{"ticket":"t","reactor_id":"R1","kind":"stop","actor":"a","payload":{},"role":1}'
    ),
    "'dance' is no command": (
        b'{"ticket":"t","reactor_id":"R1","kind":"dance","actor":"a","payload":{},"role":null}'
    ),
    f"it has more than {MOST_BYTES} bytes": b" " * (MOST_BYTES + 1),
    "its actor has characters that cannot be printed": (
        rb'{"ticket":"t","reactor_id":"R1","kind":"stop","actor":"\ud800","payload":{}}'
    ),
    "its actor has characters that cannot be printed ": (
        rb'{"ticket":"t","reactor_id":"R1","kind":"stop","actor":"a\n  done","payload":{}}'
    ),
    f"its payload is nested more than {MOST_DEEP} deep": (
        b'{"ticket":"t","reactor_id":"R1","kind":"stop","actor":"a","payload":{"a":'
        + b"[" * 900
        + b"]" * 900
        + b"}}"
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_what_lies_in_the_inbox_and_is_no_command_is_named_and_taken_away(records, why):
    inbox = records.path.parent / INBOX
    inbox.mkdir()
    (inbox / "x.json").write_bytes(BAD[why])
    good = records.send("R1", "manual", actor="ada")
    found = {c.kind: c for c in records.incoming("R1")}
    assert set(found) == {"unreadable", "manual"} and not list(inbox.iterdir())
    assert found["unreadable"].payload == {"file": "x.json", "why": why.strip()}
    assert found["unreadable"].account == account() and records.outcome(good) is None


def test_links_pipes_and_borrowed_files_are_no_commands_and_hold_nothing_up(records, tmp_path):
    inbox = records.path.parent / INBOX
    path = leave(records.path.parent)
    path.rename(tmp_path / "secret")
    (inbox / "link.json").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", inbox / "borrowed.json")
    os.mkfifo(inbox / "pipe.json")
    (inbox / "folder.json").mkdir()
    (inbox / ".half").write_text("{")
    whys = {c.payload["file"]: c.payload["why"] for c in records.incoming("R1")}
    assert set(whys) == {"link.json", "borrowed.json", "pipe.json"}
    assert "cannot be opened" in whys["link.json"] and "not a file" in whys["pipe.json"]
    assert "another name elsewhere" in whys["borrowed.json"]
    assert {p.name for p in inbox.iterdir()} == {"folder.json", ".half"}
    os.utime(leave(records.path.parent, ticket="t9"), (9e15, 9e15))
    # as late as the file system can say, and the calendar
    assert "2446" <= records.waiting("R1")[-1].sent_at[:4] <= "9999"


def test_what_has_a_name_of_any_bytes_is_named_and_so_is_another_of_the_same_name(records):
    inbox = records.path.parent / INBOX
    inbox.mkdir()
    for n in range(2):
        path = os.fsencode(inbox) + b"/\xff\x1b.json"
        with open(path, "wb") as file:
            file.write(b"{")
        os.utime(path, (n, n))
        assert len(records.incoming("R1")) == n + 1 and not list(inbox.iterdir())
    assert {c.payload["file"] for c in records.open("R1")} == {r"\udcff\x1b.json"}


def test_a_flood_is_taken_in_by_parts(records, monkeypatch):
    monkeypatch.setattr(letters, "MOST_AT_ONCE", 3)
    for n in range(5):
        os.utime(leave(records.path.parent, ticket=f"t{9 - n}"), (n, n))
    assert len(records.incoming("R1")) == 3 and len(records.incoming("R1")) == 5
    assert records.incoming("R1") == records.open("R1")


def test_a_command_that_cannot_be_left_is_refused_in_words(records, monkeypatch):
    with pytest.raises(JournalError, match="Shorten the reason"):
        records.send("R1", "disarm", actor="ada", payload={"reason": "x" * MOST_BYTES})
    monkeypatch.setattr(letters, "replace_durably", lambda path, data: full())
    with pytest.raises(JournalError, match=r"cannot be left in .*inbox: Permission denied"):
        records.send("R1", "stop", actor="ada")
    monkeypatch.setattr(letters.os, "scandir", lambda path: full())
    with pytest.raises(JournalError, match="cannot be read"):
        records.incoming("R1")


def test_who_may_not_change_the_journal_may_look_at_it_and_leave_a_command(records):
    number = records.record_decision("R1", 0, {"x": 1})
    with RunRecords(records.path, is_read_only=True) as looked:
        assert [d.id for d in looked.decisions("R1")] == [number]
        with pytest.raises(JournalError, match="readonly"):
            looked.record_decision("R1", 1, {"x": 1})
        ticket = looked.send("R1", "stop", actor="ada")
        assert looked.waiting("R1")[0].kind == "stop"
        (command,) = records.incoming("R1")
        records.mark(command.id, "done")
        assert looked.outcome(ticket) == "done"
    with pytest.raises(JournalError, match="unable to open"):
        RunRecords(records.path.parent / "none.sqlite", is_read_only=True)


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
    db.executescript(VERSION_1)
    db.execute("INSERT INTO meta VALUES ('schema_version', 1)")
    db.execute("INSERT INTO decisions VALUES (1, 'R1', 0.0, 't', '{}', NULL)")
    db.execute("INSERT INTO decisions VALUES (2, 'R1', 1.0, 't', '{}', NULL)")
    db.execute("INSERT INTO intents VALUES (1, 1, 'R1', 0.0, 't', '{}', 'written', 't', '{}')")
    db.commit()
    db.close()
    before = path.read_bytes()
    with RunRecords(path, is_read_only=True) as records:
        assert records.cycles("R1") == {0.0: "done"} and records.waiting("R1") == []
    assert path.read_bytes() == before, "who looks changes nothing"
    for _ in range(2):
        with RunRecords(path) as records:
            assert records.cycles("R1") == {0.0: "done"}
            assert records._query("SELECT value FROM meta", ()) == [("3",)]
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '4'")
    db.commit()
    db.close()
    for is_read_only in (False, True):
        with pytest.raises(JournalError, match="schema version 4.* a newer perfusio-jax wrote it"):
            RunRecords(path, is_read_only=is_read_only)


@pytest.mark.parametrize("text", ["[]", "null", "17", '{"values": ', "[" * 100_000])
def test_an_entry_that_is_no_payload_is_damage_with_its_remedy(tmp_path, text):
    path = tmp_path / "journal.sqlite"
    with RunRecords(path) as records:
        records.record_sample("R1", 0, {"values": {}})
    db = sqlite3.connect(path)
    db.execute("UPDATE samples SET payload = ?", (text,))
    db.commit()
    db.close()
    with RunRecords(path, is_read_only=True) as records:
        with pytest.raises(JournalError, match=r"cannot be read: .* Put back a copy"):
            records.samples("R1")


def test_damage_tells_what_helps_and_a_file_that_is_held_does_not(tmp_path):
    path = tmp_path / "journal.sqlite"
    with RunRecords(path):
        pass
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked$"):
        RunRecords(path, timeout_s=0.01)
    held.close()
    whole = path.read_bytes()
    for spoiled in (whole[: len(whole) // 2], b"", b"garbage" * 99):
        path.write_bytes(spoiled)
        with pytest.raises(JournalError, match="Put back a copy of the run folder"):
            RunRecords(path, is_read_only=True)
        assert path.read_bytes() == spoiled
