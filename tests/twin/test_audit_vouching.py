"""What a signed log does not vouch for is named, and never signed as if it were so."""

import datetime as dt
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from perfusio_jax._core import AuditError
from perfusio_jax.twin import (
    AuditLogger,
    AuditReport,
    RunRecords,
    Signer,
    generate_key,
    verify_audit,
)
from perfusio_jax.twin.records import audit, verifying
from perfusio_jax.twin.records.audit_memory import recall
from perfusio_jax.twin.records.chain import GENESIS, Head, records, seal, verify
from perfusio_jax.twin.records.segments import Segments
from perfusio_jax.twin.records.vouching import Known, standing, trail_of


class Clock:
    def __init__(self, hour: int = 0) -> None:
        self.now = dt.datetime(2026, 1, 2, hour, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


class Run:
    """A run folder: its log, its journal, and what a stranger does to them."""

    def __init__(self, folder: Path, signer: Signer | None, hour: int = 0) -> None:
        self.folder, self.signer, self.clock = folder, signer, Clock(hour)
        self.log, self.head = folder / "audit.jsonl", folder / "audit.head"

    def session(self, *events: str, signer: Signer | None = None, journal: bool = True) -> None:
        """One process that writes some records."""
        key = signer or self.signer
        with RunRecords(self.folder / "journal.sqlite") as book:
            memory = book if journal else None
            with AuditLogger(
                self.folder, "r", clock=self.clock, signer=key, memory=memory
            ) as logger:
                for event in events:
                    logger.log(event, {"glucose": 2.5})

    def events(self) -> list[dict]:
        return list(records(self.log.read_bytes()))

    def unannounced(self) -> list[dict]:
        """Records that name no key, for the one they named would have to sign the head."""
        return [{**e, "event_type": "FORGED"} for e in self.events()]

    def forge(self, events: list[dict], *, n_under_head: int | None = None) -> None:
        """Write a log of these records, all hashes computed anew, under a head without a key."""
        previous, lines, hashes = GENESIS, b"", [GENESIS]
        for seq, event in enumerate(events, start=1):
            body = {k: v for k, v in event.items() if k != "hash"}
            line, previous = seal({**body, "seq": seq, "prev_hash": previous})
            lines += line
            hashes.append(previous)
        n = len(events) if n_under_head is None else n_under_head
        self.log.write_bytes(lines)
        self.head.write_bytes(Head("r", n, hashes[n], n).to_bytes())

    def add_forged(self, n: int = 1) -> None:
        """Records beyond the head, which is left as it is."""
        for _ in range(n):
            last = self.events()[-1]
            fields = {"seq": last["seq"] + 1, "prev_hash": last["hash"], "event_type": "FORGED"}
            body = {k: v for k, v in last.items() if k != "hash"} | fields
            with self.log.open("ab") as file:
                file.write(seal(body)[0])

    def forget(self) -> None:
        """Take what the journal knows of the log away."""
        with sqlite3.connect(self.folder / "journal.sqlite") as db:
            db.execute("DELETE FROM meta WHERE name LIKE 'audit_%'")
        db.close()

    def report(self) -> AuditReport:
        """With the key a stranger does not have."""
        trusted = None if self.signer is None else [self.signer.public_key]
        return verify_audit(self.folder, trusted=trusted)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Memory, where there is any: what these tests wait for is the disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("vouching")
        return
    made = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="vouching"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def keys(place) -> tuple[Signer, Signer]:
    return generate_key(place / "key"), generate_key(place / "other")


@pytest.fixture(scope="module")
def written(place, keys) -> Path:
    """A signed run of two sessions, as it lies on the disk."""
    run = Run(place / "written", keys[0])
    run.session("A", "B")
    run.session("C")
    assert run.report().ok
    return run.folder


@pytest.fixture
def run(written, keys, place, request) -> Run:
    folder = place / f"run{abs(hash(request.node.name))}"
    shutil.copytree(written, folder)
    return Run(folder, keys[0], hour=1)


def test_an_edited_log_without_its_key_is_not_signed_by_the_next_session(run):
    """Edit a record, drop the key's announcement, chain anew, write a head without a key."""
    forged = [{**e, "payload": {"glucose": 9.9}} for e in run.events()[1:]]
    run.forge(forged)
    assert not run.report().ok
    assert verify(run.log.read_bytes(), run.head.read_bytes()).ok, "the files alone look sound"
    without = verify_audit(run.folder)
    assert not without.ok and "the journal knows 4 records, signed by key" in without.reason
    run.session("D")
    report = run.report()
    assert not report.ok and report.is_intact
    assert (report.first_bad, report.n_unvouched, report.n_before_key) == (1, 3, 3)
    assert "records 1 to 3 (3 records unvouched)" in report.reason
    assert "the chain as it stands now holds: 6 records" in str(report)
    found = run.events()[3]
    assert found["event_type"] == "AUDIT_BREAK" and found["payload"]["unvouched"] == 3
    assert found["payload"]["missing"] == 1 and found["payload"]["vouched"] == 0
    assert Head.from_bytes(found["payload"]["journal"]["begun"].encode()).count == 4
    run.session("E")
    assert run.report().n_unvouched == 3 and not run.report().ok, "it is never forgotten"


@pytest.mark.parametrize("n", [1, 2])
def test_records_forged_beyond_a_signed_head_are_named_by_number(run, n):
    genuine = len(run.events())
    run.add_forged(n)
    if n > 1:
        with pytest.raises(AuditError, match="2 records stand beyond the head"):
            run.session("D")
        return
    assert "record beyond record 4, of which the journal knows nothing" in run.report().reason
    run.session("D")
    report = run.report()
    assert not report.ok and report.is_intact
    assert (report.first_bad, report.n_unvouched, report.n_before_key) == (genuine + 1, 1, 0)
    found = run.events()[genuine + 1]
    assert (found["event_type"], found["payload"]["vouched"]) == ("AUDIT_BREAK", genuine)


def test_a_log_begun_anew_where_one_was_deleted_begins_with_the_break(run):
    run.log.unlink()
    run.head.unlink()
    assert "the journal knows 4 records" in run.report().reason
    run.session("D")
    report = run.report()
    assert not report.ok and report.first_bad == 1 and report.n_unvouched == 0
    first = run.events()[0]
    assert first["event_type"] == "AUDIT_BREAK" and first["payload"]["missing"] == 4
    assert "4 records, signed by key" in report.reason and "0 stand here" in report.reason
    run.session("E")
    assert run.report().n_records == 3, "and it goes on from there"


def test_a_journal_with_samples_and_no_log_had_one(run):
    for file in (run.log, run.head):
        file.unlink()
    run.forget()
    run.session("D")
    assert run.report().ok, "nothing is left that could tell"
    for file in (run.log, run.head):
        file.unlink()
    run.forget()
    with RunRecords(run.folder / "journal.sqlite") as book:
        book.record_sample("R", 0, {"VCD": 1.0})
    run.session("D")
    assert "samples or decisions of this run, and there is no log" in run.report().reason


def test_an_old_copy_of_log_and_head_put_back_is_named(run, written):
    run.session("D")
    shutil.copy(written / "audit.jsonl", run.log)
    shutil.copy(written / "audit.head", run.head)
    assert "the journal knows 5 records" in run.report().reason
    run.session("E")
    report = run.report()
    assert not report.ok and report.n_unvouched == 0
    assert run.events()[4]["payload"]["missing"] == 1


def test_a_log_the_journal_knows_as_signed_is_not_continued_without_a_key(run):
    run.forge(run.events()[1:])
    key, run.signer = run.signer, None
    with pytest.raises(AuditError, match=f"is by the journal signed by key {key.key_id}"):
        run.session("D")
    for file in (run.log, run.head):
        file.unlink()
    with pytest.raises(AuditError, match="continued with a signing key only"):
        run.session("D")


def test_whoever_edits_the_journal_too_cannot_make_it_say_what_a_signature_must(run, keys):
    """The journal's heads are signed as the log's is: a stranger can take them away, no more."""
    run.add_forged()
    last = run.events()[-1]
    head = Head("r", last["seq"], last["hash"], last["seq"])
    for signature in (None, keys[1]):
        with RunRecords(run.folder / "journal.sqlite") as book:
            forged = head.to_bytes(signature)
            book.remember_audit(Known(forged, forged, keys[0].public_key))
        assert "not signed as the log is" in run.report().reason
    run.forget()
    assert run.report().ok  # one record beyond the head, which a crash leaves as well
    run.session("D")
    report = run.report()
    assert report.ok and report.n_unvouched == 1
    assert any("nobody vouches for it" in note for note in report.warnings)
    assert any("the journal knew nothing of the 5 records" in note for note in report.warnings)
    run.session("E")
    assert run.report().n_unvouched == 1


def test_a_whole_forged_run_precedes_the_first_signature(run):
    """Log, head and journal rewritten: nothing on this host shows it but what is not signed."""
    run.forge(run.unannounced())
    run.forget()
    run.session("D")
    report = run.report()
    assert report.ok and report.n_before_key == 4
    assert "4 records precede the first signature by that key" in report.warnings


def test_a_stranger_who_announces_the_key_himself_gains_nothing(run, keys):
    """The public half is no secret: an announcement counts only where it is signed."""
    key = {"payload": {"public_key": keys[0].public_key}, "event_type": "AUDIT_SIGNED_BY"}
    forged = run.unannounced()
    run.forge([*forged, {**forged[-1], **key}], n_under_head=4)
    run.forget()
    run.session("D")
    report = run.report()
    assert report.n_unvouched == 1 and report.n_before_key == 5
    run.forge([{**forged[0], **key}], n_under_head=0)
    run.forget()
    run.session("D")
    assert run.report().n_before_key == 1 and run.report().n_unvouched == 1


def test_a_key_of_the_strangers_own_does_not_count(run, keys):
    run.forge(run.unannounced())
    run.forget()
    run.session("X", signer=keys[1])
    run.session("D")
    report = run.report()
    announced = [k for k, e in enumerate(run.events()) if e["event_type"] == "AUDIT_SIGNED_BY"]
    assert announced[0] == 4 and report.n_before_key == announced[1] > 4
    assert verify_audit(run.folder).n_before_key == 4, "without a key any signature counts"


def test_a_run_that_gets_a_key_later_says_how_many_records_precede_it(place, keys):
    run = Run(place / "later", None)
    run.session("A", "B")
    run.signer = keys[0]
    run.session("C")
    report = run.report()
    assert report.ok and report.n_before_key == 2 and report.n_unvouched == 0
    assert report.warnings == ("2 records precede the first signature by that key",)
    assert run.events()[2]["payload"]["n_before"] == 2
    assert "2 records precede the first signature" in str(verify_audit(run.folder))
    run.session("D", signer=keys[1])  # and another key follows
    both = verify_audit(run.folder, trusted=[k.public_key for k in keys])
    assert both.ok and both.n_before_key == 2
    assert verify_audit(run.folder, trusted=[keys[1].public_key]).n_before_key == 4


def test_a_run_in_which_nothing_happened_yet_is_no_break(place):
    run = Run(place / "nothing", None)
    for _ in range(3):
        run.session()
        assert run.report().ok and run.events() == []
    run.session("A")
    assert [e["event_type"] for e in run.events()] == ["A"]


def test_a_log_without_a_key_is_held_to_the_journal_as_well(place):
    run = Run(place / "unsigned", None)
    run.session("A", "B")
    run.forge(run.unannounced())
    assert verify(run.log.read_bytes(), run.head.read_bytes()).ok
    assert "signed by nobody" in run.report().reason
    run.session("C")
    report = run.report()
    assert not report.ok and report.n_unvouched == 2 and report.n_before_key is None
    assert run.events()[2]["event_type"] == "AUDIT_BREAK"


def test_two_breaks_are_both_told_and_a_record_counts_once(run):
    for event in ("D", "E"):
        run.add_forged()
        run.session(event)
    report = run.report()
    assert not report.ok and (report.first_bad, report.n_unvouched) == (5, 2)
    assert any("record 9 begins a new segment" in note for note in report.warnings)
    segments = Segments()
    for n in (0, 1, 2):
        segments.add({"event_type": "AUDIT_BREAK", "payload": {"found": "x", "unvouched": n}})
    assert segments.unvouched == {1, 2}
    assert "nothing that is here (0 records unvouched)" in segments.broken(1)


def dies(monkeypatch, name: str, file: str = "") -> None:
    """The process ends before it writes a file."""
    real = getattr(audit, name)

    def gone(path, data):
        if path.name.startswith(file):
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(audit, name, gone)


@pytest.mark.parametrize("signed", [True, False])
def test_a_record_whose_head_a_crash_kept_back_is_vouched_for_by_the_journal(
    place, keys, signed, monkeypatch
):
    run = Run(place / f"crash{signed}", keys[0] if signed else None)
    run.session("A")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        with RunRecords(run.folder / "journal.sqlite") as book:
            logger = AuditLogger(run.folder, "r", clock=run.clock, signer=run.signer, memory=book)
            dies(patch, "replace_durably")
            try:
                logger.log("B", {})
            finally:
                logger._lock.release()
    assert run.report().ok
    run.session("C")
    report = run.report()
    assert report.ok and report.n_unvouched == 0 and report.warnings == ()
    assert [e["event_type"] for e in run.events()][-3:] == ["B", "AUDIT_HEAD_RECOVERED", "C"]


def test_a_record_begun_and_never_written_leaves_no_trace(run, monkeypatch):
    n = len(run.events())
    with monkeypatch.context() as patch, RunRecords(run.folder / "journal.sqlite") as book:
        logger = AuditLogger(run.folder, "r", clock=run.clock, signer=run.signer, memory=book)
        dies(patch, "append_durably")
        with pytest.raises(KeyboardInterrupt):
            logger.log("B", {})
        logger._lock.release()
    known = recall(run.folder)
    assert known is not None and Head.from_bytes(known.begun).count == n + 1
    assert run.report().ok
    run.session("C")
    assert run.report().warnings == () and run.events()[-1]["event_type"] == "C"


def test_a_break_or_a_change_of_key_cut_short_by_a_crash_is_gone_through_again(
    run, keys, monkeypatch
):
    run.add_forged()
    for signer in (keys[0], keys[0], keys[1], keys[1]):
        with monkeypatch.context() as patch, RunRecords(run.folder / "journal.sqlite") as book:
            dies(patch, "replace_durably", "audit.head")
            with pytest.raises(KeyboardInterrupt):
                AuditLogger(run.folder, "r", clock=run.clock, signer=signer, memory=book)
        assert verify_audit(run.folder).is_intact
    run.session("D", signer=keys[1])
    report = verify_audit(run.folder, trusted=[keys[1].public_key])
    assert report.is_intact and report.n_unvouched == 1 and report.first_bad == 5
    kinds = [e["event_type"] for e in run.events()]
    assert kinds.count("AUDIT_BREAK") == 1, "once it is on the disk it is not begun again"


def test_a_break_that_never_reached_the_disk_is_not_forgotten(run, monkeypatch):
    """The journal keeps what it knew until the record that names it is there."""
    run.log.unlink()
    run.head.unlink()
    for _ in range(2):
        with monkeypatch.context() as patch, RunRecords(run.folder / "journal.sqlite") as book:
            dies(patch, "append_durably")
            with pytest.raises(KeyboardInterrupt):
                AuditLogger(run.folder, "r", clock=run.clock, signer=run.signer, memory=book)
        assert "the journal knows 4 records" in verify_audit(run.folder).reason
    run.session("D")
    assert run.report().first_bad == 1 and run.events()[0]["payload"]["missing"] == 4


def test_a_journal_that_takes_nothing_keeps_the_record_back(run, monkeypatch):
    n = len(run.events())
    with RunRecords(run.folder / "journal.sqlite") as book:
        logger = AuditLogger(run.folder, "r", clock=run.clock, signer=run.signer, memory=book)
        book.close()
        with pytest.raises(AuditError, match=r"not written to .*journal"):
            logger.log("B", {})
        with pytest.raises(AuditError, match="end of the log is not in the journal"):
            logger.close()
        with pytest.raises(AuditError, match=r"cannot be opened: The journal"):
            AuditLogger(run.folder, "r", signer=run.signer, memory=book)
    assert len(run.events()) == n and run.report().ok
    (run.folder / "journal.sqlite").write_bytes(b"no journal at all")
    report = run.report()
    assert report.ok and "not compared with the journal" in report.warnings[0]


def test_a_log_that_is_being_written_is_compared_when_it_stands_still(run, monkeypatch):
    answers = iter(range(100))

    def moving(folder):
        n = next(answers)
        return Known(b"%d" % n, b"", None)

    monkeypatch.setattr(verifying, "recall", moving)
    report = run.report()
    assert report.ok and "which is being written" in report.warnings[0]


def test_a_journal_restored_from_an_old_copy_is_behind_what_the_key_signed(run, written):
    run.session("D")
    shutil.copy(written / "journal.sqlite", run.folder / "journal.sqlite")
    assert run.report().ok
    run.session("E")
    assert run.report().ok and run.report().n_unvouched == 0


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"\xff", Head("s", 0, GENESIS, 0).to_bytes(), Head("r", -1, "", -1).to_bytes()],
)
def test_what_no_head_is_vouches_for_nothing(written, raw):
    log, head = (written / name for name in ("audit.jsonl", "audit.head"))
    trail = trail_of(log.read_bytes())
    stands = standing(trail, "r", head.read_bytes(), Known(raw, raw))
    assert stands.trouble and stands.n_vouched == trail.n_records
    unsigned = standing(trail, "r", Head("r", 0, GENESIS, 0).to_bytes(), Known(raw, raw))
    assert unsigned.n_vouched == 0 and unsigned.n_unvouched == trail.n_records


@pytest.mark.parametrize("n", [None, -1, 3, 1.5, True, "2"])
def test_a_break_that_does_not_say_how_much_means_everything_before_it(n):
    segments = Segments()
    for kind, payload in [("A", {}), ("B", None), ("AUDIT_BREAK", {"unvouched": n})]:
        segments.add({"event_type": kind, "payload": payload})
    assert segments.unvouched == {1, 2} and "records 1 to 2" in segments.broken(3)
    assert "does not say what was found" in segments.breaks[3]


def test_a_break_without_a_number_or_a_cause_says_so_and_a_recovered_head_doubts_nothing():
    segments = Segments()
    for kind in ("A", "AUDIT_HEAD_RECOVERED", "AUDIT_BREAK"):
        segments.add({"event_type": kind, "payload": {}})
    assert segments.unvouched_before(2) is None and segments.unvouched_before(3) == (1, 2)
    assert segments.breaks == {3: "it does not say what was found"}


def test_the_journal_of_a_run_is_read_without_being_changed(run):
    path = run.folder / "journal.sqlite"
    before = path.read_bytes()
    known = recall(run.folder)
    assert known is not None and known.public_key == run.signer.public_key
    assert known.acknowledged == known.begun == run.head.read_bytes()
    assert path.read_bytes() == before and recall(run.folder / "nowhere") is None
    assert json.loads(known.begun.split(b"\n")[0])["count"] == 4


def test_a_journal_that_knows_nothing_or_is_none_is_noted_before_anybody_starts_again(run):
    journal = run.folder / "journal.sqlite"
    run.forget()
    assert run.report().ok and "knows nothing of it" in run.report().warnings[0]
    journal.unlink()
    assert run.report().warnings == ()  # a logger of its own has none
    journal.mkdir()
    assert run.report().ok and "not compared" in run.report().warnings[0]


def test_what_lies_in_the_place_of_a_copy_or_of_the_log_is_told_in_the_trail_s_own_words(run):
    copy = run.folder / "audit_events.csv"
    copy.unlink()
    copy.mkdir()
    assert run.report().ok and "audit_events.csv cannot be read" in run.report().warnings[0]
    run.log.unlink()
    os.mkfifo(run.log)
    with pytest.raises(AuditError, match="is a pipe"):
        run.report()


def test_what_the_journal_says_against_a_log_is_told_with_the_record_it_begins_at(run):
    """Before anybody has gone on with it: the report alone says where, and nothing is lost."""
    key = run.signer.key_id
    run.add_forged()
    report = run.report()
    assert (report.ok, report.first_bad, report.line) == (False, 5, 5)
    assert (report.n_records, report.is_intact) == (5, True)
    assert report.reason == "1 record beyond record 4, of which the journal knows nothing"
    run.session("D")
    run.add_forged()
    again = run.report()  # its own break is the first thing wrong, the next one is a note
    assert again.first_bad == 5 and "record 6 begins a new segment" in again.reason
    assert again.warnings[-1] == "1 record beyond record 7, of which the journal knows nothing"
    run.log.unlink()
    run.head.unlink()
    gone = run.report()
    assert (gone.ok, gone.n_records, gone.first_bad, gone.line) == (False, 0, 1, 1)
    assert gone.reason == (
        f"there is no audit log at {run.log}; the journal knows 7 records, signed by key {key}, "
        "of run 'r'"
    )


@pytest.mark.parametrize("n_forged", [0, 1])
def test_a_break_keeps_what_was_found_and_what_the_journal_knew(run, written, n_forged):
    """Forged beyond the head, or an older copy put back: numbers, heads and key, as they were."""
    if n_forged:
        run.add_forged()
    else:
        run.session("D")
        shutil.copy(written / "audit.jsonl", run.log)
        shutil.copy(written / "audit.head", run.head)
    known, report = recall(run.folder), run.report()
    assert known is not None
    run.session("E")
    found = run.events()[4 + n_forged]
    assert found["event_type"] == "AUDIT_BREAK"
    assert found["reason"] == "what stands here is not what was written"
    assert (found["day"], found["user"]) == (0, "system")
    assert found["payload"] == {
        "found": report.reason,
        "records": 4 + n_forged,
        "vouched": 4,
        "unvouched": n_forged,
        "missing": 1 - n_forged,
        "journal": {
            "acknowledged": known.acknowledged.decode(),
            "begun": known.begun.decode(),
            "public_key": run.signer.public_key,
        },
        "public_key": run.signer.public_key,
        "key_id": run.signer.key_id,
    }


def test_a_log_the_journal_does_not_fit_is_told_so_in_these_words(run):
    journal = run.folder / "journal.sqlite"
    run.forget()
    assert run.report().warnings == ("the journal beside the log knows nothing of it",)
    journal.write_bytes(b"x" * 4096)
    (note,) = run.report().warnings
    assert note.startswith(
        f"the log was not compared with the journal beside it: The journal {journal} cannot be read"
    )


def test_where_nothing_is_unvouched_there_is_no_span_and_one_record_is_told_as_one():
    segments = Segments()
    for kind, payload in [("A", {}), ("AUDIT_SIGNED_BY", {"public_key": "k"})]:
        segments.add({"event_type": kind, "payload": payload})
    assert segments.unvouched_before(2) is None and segments.unvouched == frozenset()
    assert segments.notes(None) == ["1 record precedes the first signature"]
    assert segments.notes(["k"]) == ["1 record precedes the first signature by that key"]
    assert segments.notes(["other"]) == []
    segments.add({"event_type": "AUDIT_HEAD_RECOVERED", "payload": {"unvouched": 1}})
    segments.add({"event_type": "AUDIT_HEAD_RECOVERED", "payload": {"unvouched": 2}})
    assert segments.unvouched_before(3) == (2, 2) and segments.unvouched_before(4) == (2, 3)
    assert segments.notes([]) == [
        f"{who} stood beyond the head when record {seq} was written, and nothing tells a crash "
        "from a forgery: nobody vouches for it"
        for who, seq in (("record 2", 3), ("records 2 to 3", 4))
    ]
    segments.add({"event_type": "AUDIT_BREAK", "payload": {"found": "a gap", "unvouched": 1}})
    segments.add({"event_type": "AUDIT_NOT_IN_JOURNAL", "payload": {"records": 5}})
    assert segments.broken(5) == (
        "record 5 begins a new segment: a gap; nobody vouches for record 4 (1 record unvouched)"
    )
    assert segments.notes([])[2:] == [
        "the journal knew nothing of the 5 records there were when record 6 was written"
    ]


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ({"event_type": "AUDIT_SIGNED_BY", "payload": {"public_key": "k"}}, "k"),
        ({"event_type": "AUDIT_BREAK", "payload": {"public_key": "k"}}, "k"),
        ({"event_type": "AUDIT_HEAD_RECOVERED", "payload": {"public_key": "k"}}, "k"),
        ({"event_type": "A", "payload": {"public_key": "k"}}, None),
        ({"event_type": "AUDIT_SIGNED_BY", "payload": {"public_key": 5}}, None),
        ({"event_type": "AUDIT_SIGNED_BY", "payload": "k"}, None),
        ({"event_type": "AUDIT_SIGNED_BY"}, None),
        ({"payload": {"public_key": "k"}}, None),
    ],
)
def test_only_some_events_announce_a_key(record, key):
    segments = Segments()
    segments.add(record)
    assert segments.signers == [None, key] and segments.before_key(None) == (0 if key else None)
    segments.add({"event_type": 7})
    assert segments.signers[2] == key and segments.kinds[2] == ""


def test_what_nobody_vouches_for_without_a_journal_is_kept_with_its_numbers_and_the_key(run):
    """A signed log whose journal was lost: the record that goes on with it says what it found."""
    run.add_forged()
    run.forget()
    run.session()
    recovered, unknown = run.events()[5:]
    key = {"public_key": run.signer.public_key, "key_id": run.signer.key_id}
    assert (recovered["event_type"], unknown["event_type"]) == (
        "AUDIT_HEAD_RECOVERED",
        "AUDIT_NOT_IN_JOURNAL",
    )
    assert recovered["payload"] == {"head_count": 4, "records": 5, "unvouched": 1, **key}
    assert unknown["payload"] == {"records": 5}
    assert [(e["day"], e["user"]) for e in (recovered, unknown)] == [(0, "system")] * 2
    known = recall(run.folder)
    assert known == Known(run.head.read_bytes(), run.head.read_bytes(), run.signer.public_key)
    run.session()
    assert len(run.events()) == 7  # said once


def test_a_log_that_is_gone_is_told_by_what_the_journal_holds_and_what_it_held(run):
    with RunRecords(run.folder / "journal.sqlite") as book:
        book.record_sample("R", 0, {"VCD": 1.0})
    for file in (run.log, run.head):
        file.unlink()
    run.forget()
    run.session()
    (found,) = run.events()
    assert found["payload"] == {
        "found": "the journal holds samples or decisions of this run, and there is no log",
        "records": 0,
        "vouched": 0,
        "unvouched": 0,
        "missing": 0,
        "public_key": run.signer.public_key,
        "key_id": run.signer.key_id,
    }
    known = recall(run.folder)
    assert known == Known(run.head.read_bytes(), run.head.read_bytes(), run.signer.public_key)


def test_the_journal_of_a_log_without_a_key_names_none(place):
    run = Run(place / "bare", None)
    run.session("A")
    head = Head("r", 1, run.events()[0]["hash"], 1).to_bytes()
    assert run.head.read_bytes() == head
    assert recall(run.folder) == Known(head, head, None)
    run.forget()
    run.session()
    assert [e["event_type"] for e in run.events()] == ["A", "AUDIT_NOT_IN_JOURNAL"]
    assert run.report().warnings == (
        "the journal knew nothing of the 1 record there was when record 2 was written",
    )


def test_a_log_that_is_gone_is_told_also_after_a_crash_before_it_was_told(run, monkeypatch):
    with RunRecords(run.folder / "journal.sqlite") as book:
        book.record_sample("R", 0, {"VCD": 1.0})
    for file in (run.log, run.head):
        file.unlink()
    run.forget()
    for name in ("append_durably", "replace_durably"):
        with monkeypatch.context() as patch, RunRecords(run.folder / "journal.sqlite") as book:
            dies(patch, name)
            with pytest.raises(KeyboardInterrupt):
                AuditLogger(run.folder, "r", clock=run.clock, signer=run.signer, memory=book)
    run.session("D")
    assert "samples or decisions of this run, and there is no log" in run.report().reason


def test_a_log_that_was_emptied_is_told_as_one_that_is_gone_and_one_with_records_is_not(run):
    with RunRecords(run.folder / "journal.sqlite") as book:
        book.record_sample("R", 0, {"VCD": 1.0})
    run.forget()
    run.session()
    assert run.report().ok and run.events()[-1]["event_type"] == "AUDIT_NOT_IN_JOURNAL"
    run.forge([])
    run.forget()
    run.session("D")
    assert "samples or decisions of this run, and there is no log" in run.report().reason
    kinds = [e["event_type"] for e in run.events()]
    assert kinds == ["AUDIT_BREAK", "AUDIT_COPY_REBUILT", "D"]


def test_a_log_begun_anew_keeps_what_the_journal_knew_of_the_one_that_is_gone(run):
    head = run.head.read_text()
    run.log.unlink()
    run.head.unlink()
    run.session()
    (found,) = run.events()
    key = run.signer.public_key
    assert found["payload"]["journal"] == {"acknowledged": head, "begun": head, "public_key": key}
    assert (found["payload"]["records"], found["payload"]["missing"]) == (0, 4)


def test_a_head_brought_up_by_the_journal_is_the_signed_one(run, monkeypatch):
    """A second crash at once must not leave a signed log under a head without a signature."""
    how = {"clock": run.clock, "signer": run.signer}
    with monkeypatch.context() as patch, RunRecords(run.folder / "journal.sqlite") as book:
        logger = AuditLogger(run.folder, "r", **how, memory=book)
        dies(patch, "replace_durably")
        with pytest.raises(KeyboardInterrupt):
            logger.log("D", {})
        logger._lock.release()
    with monkeypatch.context() as patch, RunRecords(run.folder / "journal.sqlite") as book:
        dies(patch, "append_durably")
        with pytest.raises(KeyboardInterrupt):
            AuditLogger(run.folder, "r", **how, memory=book)
    assert Head.from_bytes(run.head.read_bytes()).count == 5
    assert run.report().ok and run.report().key_id == run.signer.key_id
