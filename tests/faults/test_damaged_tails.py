"""The last record torn or garbled at every byte: journal and audit trail, signed and not.

And any bytes in the middle garbled: the audit trail names the first bad record.
"""

import contextlib
import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from perfusio_jax._core import AuditError
from perfusio_jax.twin import AuditLogger, JournalError, RunRecords, generate_key, verify_audit
from perfusio_jax.twin.records.chain import Head, records, verify

N = 4


@pytest.fixture(scope="module", params=["signed", "not signed"])
def trail(request, tmp_path_factory):
    """A trail of some records: its folder, its key, and its head after each record."""
    base = tmp_path_factory.mktemp("trail")
    signer = generate_key(base / "key") if request.param == "signed" else None
    heads = []
    with AuditLogger(base / "run", "r", signer=signer) as audit:
        for k in range(N):
            audit.log("SETPOINT_CHANGE", {"k": k, "é": "\u2713" * k, "nan": float("nan")}, day=k)
            heads.append((base / "run" / "audit.head").read_bytes())
    return base / "run", signer, heads


def laid_out(place: Path, log: bytes, head: bytes) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name in ("audit.torn", "audit_events.csv", "audit_events.parquet"):
        (place / name).unlink(missing_ok=True)
    (place / "audit.jsonl").write_bytes(log)
    (place / "audit.head").write_bytes(head)
    return place


def shm(tmp_path: Path) -> Path:
    """Memory, where there is any: these tests write thousands of small files."""
    if not os.access("/dev/shm", os.W_OK):
        return tmp_path
    return Path("/dev/shm") / f"perfusio-{os.getpid()}-{tmp_path.name}"


@contextlib.contextmanager
def place_of(tmp_path: Path):
    place = shm(tmp_path)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_a_last_record_torn_at_every_byte_before_its_head_is_set_aside(trail, tmp_path):
    """The process died while it wrote the record: nobody was told that it is there."""
    folder, signer, heads = trail
    log = (folder / "audit.jsonl").read_bytes()
    start = log.rstrip(b"\n").rindex(b"\n") + 1
    n = log.count(b"\n")
    with place_of(tmp_path) as place:
        for cut in range(start, len(log)):
            laid_out(place, log[:cut], heads[-2])
            report = verify_audit(place)
            assert report.ok and report.n_records == n - 1, (cut, report)
            assert bool(report.warnings) is (cut > start)
            with AuditLogger(place, "r", signer=signer) as audit:
                audit.log("A", {})
            after = verify_audit(place, trusted=None if signer is None else [signer.public_key])
            assert after.ok, (cut, after)
            kinds = [r["event_type"] for r in records((place / "audit.jsonl").read_bytes())]
            assert kinds[n - 1 :] == (["AUDIT_TORN_TAIL", "A"] if cut > start else ["A"]), cut
            if cut > start:
                assert log[start:cut] in (place / "audit.torn").read_bytes()


def test_a_last_record_torn_at_every_byte_after_its_head_is_named(trail, tmp_path):
    """The head says that it was there: something is missing, and the log is not continued."""
    folder, signer, heads = trail
    log = (folder / "audit.jsonl").read_bytes()
    start = log.rstrip(b"\n").rindex(b"\n") + 1
    n = log.count(b"\n")
    with place_of(tmp_path) as place:
        for cut in range(start, len(log)):
            report = verify(log[:cut], heads[-1])
            assert (report.ok, report.first_bad, report.n_records) == (False, n, n - 1), cut
        laid_out(place, log[: len(log) - 1], heads[-1])
        with pytest.raises(AuditError, match=f"record {n} "):
            AuditLogger(place, "r", signer=signer)


def test_a_last_record_garbled_at_every_byte_is_named_or_set_aside(trail, tmp_path):
    """With its newline it is a bad record; without one, and no head, an unfinished one."""
    folder, _, heads = trail
    log = (folder / "audit.jsonl").read_bytes()
    start = log.rstrip(b"\n").rindex(b"\n") + 1
    n = log.count(b"\n")
    draw = random.Random(7)
    for at in range(start, len(log) - 1):
        garbled = bytearray(log)
        garbled[at] ^= draw.choice((1, 2, 4, 8, 16, 32, 64, 128))
        for head in heads[-2:]:
            report = verify(bytes(garbled), head)
            assert (report.ok, report.first_bad) == (False, n), (at, report)
        if b"\n" not in garbled[start:-1]:
            report = verify(bytes(garbled[:-1]), heads[-2])
            assert report.ok and "unfinished" in report.warnings[-1], at


def test_a_head_torn_or_garbled_at_every_byte_is_never_believed(trail):
    folder, _, heads = trail
    log, head = (folder / "audit.jsonl").read_bytes(), heads[-1]
    draw = random.Random(8)
    for at in range(len(head)):
        garbled = bytearray(head)
        garbled[at] ^= draw.choice((1, 2, 4, 8, 16, 32, 64, 128))
        assert not verify(log, bytes(garbled)).ok, at
        assert not verify(log, head[:at]).ok, at


@seed(20)
@settings(max_examples=300)
@given(st.data())
def test_random_bytes_in_the_middle_are_named_by_their_record(trail, data):
    """However many bytes are garbled, deleted or put in: the first record concerned is named."""
    folder, _, heads = trail
    log = (folder / "audit.jsonl").read_bytes()
    at = data.draw(st.integers(0, len(log) - 1), label="at")
    length = data.draw(st.integers(0, min(40, len(log) - at)), label="length")
    new = data.draw(st.binary(max_size=40), label="new")
    changed = log[:at] + new + log[at + length :]
    first = next((i for i, (a, b) in enumerate(zip(log, changed, strict=False)) if a != b), None)
    if first is None:
        first = min(len(log), len(changed))
        if changed == log:
            assert verify(changed, heads[-1]).ok
            return
    seq = log[:first].count(b"\n") + 1
    report = verify(changed, heads[-1])
    if report.ok:  # only what stands after the last whole record is no record yet
        assert changed.startswith(log) and report.warnings
        return
    assert report.first_bad == seq, report
    assert report.n_records == seq - 1


# ---------------------------------------------------------------- journal


def fill(path: Path, n: int) -> None:
    with RunRecords(path) as book:
        for day in range(n):
            book.record_sample("R", day, {"time_h": 24.0 * day, "values": {"VCD": 1.5 + day}})
            number = book.record_decision("R", day, {"recommended": {"temperature": 36.0 + day}})
            book.open_intent(number, {"temperature": 36.0 + day})


@pytest.fixture(scope="module")
def journal(tmp_path_factory) -> tuple[bytes, bytes, int]:
    """Main file, its write-ahead log with one more transaction, and where that one begins."""
    folder = tmp_path_factory.mktemp("journal")
    path = folder / "journal.sqlite"
    fill(path, 1)  # closed in good order: everything is in the main file
    with RunRecords(path) as book:
        before = path.with_name("journal.sqlite-wal")
        number = book.pending("R")[0].id
        book.close_intent(number, is_written=True)
        start = before.stat().st_size
        book.record_sample("R", 1, {"time_h": 24.0, "values": {"VCD": 2.5}})
        main, wal = path.read_bytes(), before.read_bytes()
    return main, wal, start


def reopened(place: Path, main: bytes, wal: bytes) -> list[float]:
    """Days of the samples in a journal after a crash left these files; everything else checked."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / "journal.sqlite"
    path.with_name("journal.sqlite-shm").unlink(missing_ok=True)
    path.write_bytes(main)
    path.with_name("journal.sqlite-wal").write_bytes(wal)
    with RunRecords(path) as book:
        book.check()
        days = [s.day for s in book.samples("R")]
        assert [s.values["values"]["VCD"] for s in book.samples("R")] == [1.5 + d for d in days]
        assert book.pending("R") == []  # what was acknowledged before is there
        assert [i.outcome for i in book.intents("R")] == ["written"]
        book.record_sample("R", 2, {"time_h": 48.0, "values": {"VCD": 3.5}})
    return days


def test_a_last_transaction_torn_at_every_byte_is_whole_or_gone(journal, tmp_path):
    main, wal, start = journal
    assert len(wal) > start
    with place_of(tmp_path) as place:
        found = [reopened(place, main, wal[:cut]) for cut in range(start, len(wal), 7)]
        found.append(reopened(place, main, wal[:-1]))
        assert all(days in ([0.0], [0.0, 1.0]) for days in found)
        assert found[0] == [0.0] and reopened(place, main, wal) == [0.0, 1.0]


def test_a_last_transaction_garbled_anywhere_is_gone_and_nothing_before_it(journal, tmp_path):
    main, wal, start = journal
    draw = random.Random(9)
    with place_of(tmp_path) as place:
        for at in range(start, len(wal), 11):
            garbled = bytearray(wal)
            garbled[at] ^= draw.choice((1, 2, 4, 8, 16, 32, 64, 128))
            # what the log itself does not mind (a checksum of its own shadow) is whole
            assert reopened(place, main, bytes(garbled)) in ([0.0], [0.0, 1.0]), at
        garbled = bytearray(wal)
        garbled[start + 30] ^= 1
        assert reopened(place, main, bytes(garbled)) == [0.0]


def test_a_journal_garbled_in_the_middle_is_an_error_by_name_or_reads_as_it_was(tmp_path):
    """SQLite keeps no checksum of its pages: what it cannot read it must say, and never crash.

    A changed value is not found here; it is in the audit trail, which has each sample and write.
    """
    path = tmp_path / "journal.sqlite"
    fill(path, 1)
    whole = path.read_bytes()
    draw = random.Random(10)
    n_named = 0
    with place_of(tmp_path) as place:
        place.mkdir()
        for _ in range(150):
            garbled = bytearray(whole)
            at = draw.randrange(len(whole))
            garbled[at : at + 16] = draw.randbytes(16)
            file = place / "journal.sqlite"
            for old in place.glob("journal.sqlite*"):
                old.unlink()
            file.write_bytes(bytes(garbled))
            try:
                with RunRecords(file) as book:
                    book.check()
                    book.samples("R")
            except JournalError:
                n_named += 1
    assert n_named >= 3
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_heads_of_the_trail_are_those_of_its_records(trail):
    """The fixture is what the tests above take it for."""
    folder, signer, heads = trail
    log = (folder / "audit.jsonl").read_bytes()
    found = [r["hash"] for r in records(log)]
    assert [Head.from_bytes(h).hash for h in heads] == found[-N:]
    assert len(found) == N + (signer is not None)
