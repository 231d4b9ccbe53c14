"""Journal and audit trail through any order of sessions, crashes, changes of key and forgeries.

A crash ends the process before, amid or after any write to the log, its head or the journal. What
was acknowledged is there afterwards, once; a log nobody else wrote in verifies without a word about
it; and whatever a stranger did is named, counted, and never signed as if it were so.
"""

import contextlib
import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from perfusio_jax._core import AuditError
from perfusio_jax.twin import (
    AuditLogger,
    AuditReport,
    RunRecords,
    Signer,
    generate_key,
    verify_audit,
)
from perfusio_jax.twin.records import audit
from perfusio_jax.twin.records.chain import GENESIS, Head, records, seal
from perfusio_jax.twin.records.vouching import Standing

DAYS = st.integers(0, 2)
STEPS = st.one_of(st.none(), st.integers(0, 24))
OWN = ("SETPOINT_CHANGE",)


T = TypeVar("T")


def running(part: T | None) -> T:
    """What a process has while it runs."""
    if part is None:
        raise RuntimeError("nothing runs")
    return part


class Crash(BaseException):
    """The process is gone."""


class Wires:
    """Ends the process at one of its steps."""

    def __init__(self) -> None:
        self.left: int | None = None

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash


class WiredRecords(RunRecords):
    """A journal whose transactions may end before they are on the disk, or just after."""

    wires: Wires

    @contextlib.contextmanager
    def _transaction(self) -> Iterator:
        with super()._transaction() as db:
            yield db
            self.wires.step()
        self.wires.step()


class Trail(RuleBasedStateMachine):
    """One run folder and everybody who works in it."""

    keys: tuple[Signer, Signer]

    @initialize(key=st.sampled_from([None, 0, 1]))
    def begin(self, key: int | None) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=base, prefix="trail"))
        self.log, self.head = self.folder / "audit.jsonl", self.folder / "audit.head"
        self.wires, self.key = Wires(), key
        self.now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
        self.n = 0
        self.said: list[int] = []
        """Events acknowledged and not tampered with since."""
        self.maybe: int | None = None
        """An event whose process died before anybody was told."""
        self.is_forged = False
        """Whether a stranger ever changed anything."""
        self.n_forged = 0
        """Records of his that the log has to name by number, where it can."""
        self.copies: list[tuple[bytes, bytes]] = []
        self.samples: dict[float, int] = {}
        self.logger: AuditLogger | None = None
        self.book: RunRecords | None = None

    # -------------------------------------------------------------- the program

    def clock(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now

    @contextlib.contextmanager
    def process(self, crash_at: int | None) -> Iterator[None]:
        """Work that may end in a crash; its locks fall then, and nothing else is tidied up."""
        append, replace = audit.append_durably, audit.replace_durably

        def appended(path: Path, data: bytes) -> None:
            self.wires.step()
            try:
                self.wires.step()
            except Crash:
                with path.open("ab") as file:
                    file.write(data[: len(data) // 2])
                raise
            append(path, data)
            self.wires.step()

        def replaced(path: Path, data: bytes) -> None:
            self.wires.step()
            replace(path, data)
            self.wires.step()

        audit.append_durably, audit.replace_durably = appended, replaced
        self.wires.left = crash_at
        try:
            yield
        except Crash:
            self.bury()
        finally:
            self.wires.left = None
            audit.append_durably, audit.replace_durably = append, replace

    def bury(self) -> None:
        if self.logger is not None:
            self.logger._lock.release()
        if self.book is not None:
            self.book._db.close()
        self.logger = self.book = None

    @precondition(lambda self: self.logger is None)
    @rule(crash_at=STEPS, key=st.sampled_from([None, 0, 1]))
    def start(self, crash_at: int | None, key: int | None) -> None:
        if key is not None:  # a key is given at some time, and may be replaced; never taken away
            self.key = key
        signer = None if self.key is None else self.keys[self.key]
        with self.process(crash_at):
            self.book = WiredRecords.__new__(WiredRecords)
            self.book.wires = self.wires  # pyright: ignore[reportAttributeAccessIssue]
            self.book.__init__(self.folder / "journal.sqlite")
            try:
                self.logger = AuditLogger(
                    self.folder, "r", clock=self.clock, signer=signer, memory=self.book
                )
            except Crash:
                raise
            except AuditError:
                self.bury()
                raise

    @precondition(lambda self: self.logger is not None)
    @rule(crash_at=STEPS)
    def write(self, crash_at: int | None) -> None:
        self.n += 1
        n = self.n
        with self.process(crash_at):
            self.maybe = n
            running(self.logger).log("SETPOINT_CHANGE", {"n": n})
            self.said.append(n)
            self.maybe = None

    @precondition(lambda self: self.logger is not None)
    @rule(crash_at=STEPS)
    def finish(self, crash_at: int | None) -> None:
        with self.process(crash_at):
            running(self.logger).close()
            running(self.book).close()
            self.logger = self.book = None
            if not self.is_forged:
                self.copies.append((self.log.read_bytes(), self.head.read_bytes()))

    @precondition(lambda self: self.logger is not None)
    @rule(crash_at=st.one_of(st.none(), st.integers(0, 1)), day=DAYS)
    def sample(self, crash_at: int | None, day: int) -> None:
        self.n += 1
        known = dict(self.samples)
        with self.process(crash_at):
            running(self.book).record_sample("R", day, {"n": self.n}, is_correction=True)
            self.samples[day] = self.n
        if self.book is None:  # before or after it was on the disk
            with RunRecords(self.folder / "journal.sqlite") as book:
                found = {s.day: s.values["n"] for s in book.samples("R")}
            assert found in (known, {**known, day: self.n})
            self.samples = found

    # -------------------------------------------------------------- the stranger

    def is_quiet(self) -> bool:
        return self.logger is None and not self.is_forged and self.log.exists()

    def events(self) -> list[dict]:
        return list(records(self.log.read_bytes()))

    def forged(self, n: int) -> None:
        self.is_forged, self.n_forged, self.said = True, n, []

    @precondition(lambda self: self.is_quiet() and self.events() and self.log_is_whole())
    @rule()
    def add(self) -> None:
        """A record beyond the head."""
        last = self.events()[-1]
        body = {k: v for k, v in last.items() if k != "hash"}
        more = {"seq": last["seq"] + 1, "prev_hash": last["hash"], "event_type": "FORGED"}
        with self.log.open("ab") as file:
            file.write(seal({**body, **more, "payload": {}})[0])
        self.forged(1)

    @precondition(lambda self: self.is_quiet() and self.events())
    @rule(at=st.integers(0, 9))
    def rewrite(self, at: int) -> None:
        """One record changed, no key named, all hashes anew, and a head without a key."""
        previous, lines = GENESIS, b""
        events = self.events()
        for seq, event in enumerate(events, start=1):
            body = {k: v for k, v in event.items() if k != "hash"}
            named = "public_key" in body["payload"] or seq - 1 == at % len(events)
            change = {"event_type": "FORGED", "payload": {}} if named else {}
            line, previous = seal({**body, **change, "seq": seq, "prev_hash": previous})
            lines += line
        self.log.write_bytes(lines)
        self.head.write_bytes(Head("r", len(events), previous, len(events)).to_bytes())
        self.forged(len(events))

    @precondition(lambda self: self.is_quiet() and self.events())
    @rule()
    def delete(self) -> None:
        self.log.unlink()
        self.head.unlink()
        self.forged(0)

    @precondition(
        lambda self: (
            self.is_quiet()
            and any(len(log) < self.log.read_bytes().count(b"") for log, _ in self.copies)
            and self.is_older_by_two()
        )
    )
    @rule()
    def put_back(self) -> None:
        """An old copy of log and head."""
        log, head = self.copies[0]
        self.log.write_bytes(log)
        self.head.write_bytes(head)
        self.forged(0)

    def is_older_by_two(self) -> bool:
        """By one record it may be a crash before that record was written."""
        then, now = self.copies[0][0].count(b"\n"), self.log.read_bytes().count(b"\n")
        return now - then >= 2

    def log_is_whole(self) -> bool:
        """A torn tail, or a record beyond the head, would make the forgery one that is refused."""
        content = self.log.read_bytes()
        count = Head.from_bytes(self.head.read_bytes()).count
        return content.endswith(b"\n") and content.count(b"\n") == count

    # -------------------------------------------------------------- promises

    @invariant()
    def it_verifies_unless_somebody_else_wrote(self) -> None:
        if not hasattr(self, "log") or not self.log.exists():
            return
        report = verify_audit(self.folder)
        assert report.is_intact, report
        assert report.ok is not self.is_forged, report
        if not self.is_forged:
            assert report.n_unvouched == 0, report
        elif self.logger is not None:
            self.the_break_counts_what_was_forged(report)

    def the_break_counts_what_was_forged(self, report: AuditReport) -> None:
        events = self.events()
        named = [e for e in events if e["event_type"] == "AUDIT_BREAK"]
        assert len(named) == 1, "it is named once, and the log goes on"
        assert report.n_unvouched == named[0]["payload"]["unvouched"] == self.n_forged
        if self.key is not None:
            assert report.n_before_key is not None
            first = events[report.n_before_key]
            assert "public_key" in first["payload"] and first["event_type"] != "FORGED"

    @invariant()
    def what_was_acknowledged_is_there_once_and_in_order(self) -> None:
        if not hasattr(self, "log") or not self.log.exists():
            return
        there = [e["payload"]["n"] for e in self.events() if e["event_type"] in OWN]
        if self.is_forged:
            assert [n for n in there if n in self.said] == self.said
            return
        if self.maybe is not None and self.maybe in there:
            self.said.append(self.maybe)
        if self.logger is None or self.maybe in there:
            self.maybe = None
        assert there == self.said

    @invariant()
    def the_journal_has_each_sample_as_it_was_stored_last(self) -> None:
        book = getattr(self, "book", None)
        if book is not None:
            assert {s.day: s.values["n"] for s in book.samples("R")} == self.samples

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.bury()
            shutil.rmtree(self.folder, ignore_errors=True)


BUDGET = settings(
    max_examples=15,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
)


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    """Keys, and no Parquet copies: they are written after everything that is looked at here."""
    Trail.keys = (generate_key(tmp_path / "a"), generate_key(tmp_path / "b"))
    monkeypatch.setattr(AuditLogger, "_write_parquet", lambda self: None)


def test_journal_and_audit_trail_through_crashes_keys_and_forgeries():
    run_state_machine_as_test(Trail, settings=BUDGET)


def forget_to_begin(monkeypatch) -> None:
    """Records are written before the journal knows of them."""
    real = AuditLogger._remember
    monkeypatch.setattr(
        AuditLogger, "_remember", lambda self, begun: real(self, self._acknowledged)
    )


def believe_anything(monkeypatch) -> None:
    """Whatever verifies by itself is signed, as it used to be."""
    real = audit.standing

    def standing(trail, run_id, head, known) -> Standing:
        found = real(trail, run_id, head, known)
        end = Head(run_id, trail.n_records, trail.hashes[-1], trail.n_records)
        return Standing(trail.n_records, 0, end.to_bytes(), "", found.n_known)

    monkeypatch.setattr(audit, "standing", standing)


def head_before_record(monkeypatch) -> None:
    real = AuditLogger._append

    def append(self, kind, details, **more):
        if kind == "SETPOINT_CHANGE":
            head = self._head
            self._head = Head("r", head.seq + 1, "0" * 64, head.seq + 1)
            self._write_head()
            self._head = head
        return real(self, kind, details, **more)

    monkeypatch.setattr(AuditLogger, "_append", append)


def no_roll_back(monkeypatch) -> None:
    """A sample is acknowledged, and is not on the disk."""
    monkeypatch.setattr(RunRecords, "record_sample", lambda *args, **more: None)


@pytest.mark.parametrize(
    "break_it", [forget_to_begin, believe_anything, head_before_record, no_roll_back]
)
def test_a_program_that_breaks_a_promise_is_found_out(break_it, monkeypatch):
    break_it(monkeypatch)
    with pytest.raises((AssertionError, AuditError, ExceptionGroup)):
        run_state_machine_as_test(Trail, settings=BUDGET)
