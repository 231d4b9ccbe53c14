"""What the audit trail writes about itself: after a crash, for a key, of a copy put right."""

import csv
import datetime as dt
import hashlib
import json
import sqlite3
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from perfusio_jax._core import AuditError, ConfigError
from perfusio_jax.twin.records import audit as audit_module
from perfusio_jax.twin.records.audit import AuditLogger
from perfusio_jax.twin.records.audit_memory import AuditMemory, recall
from perfusio_jax.twin.records.chain import GENESIS, AuditCopy, AuditReport, Head, records
from perfusio_jax.twin.records.entries import JournalError
from perfusio_jax.twin.records.keys import generate_key
from perfusio_jax.twin.records.store import JOURNAL_NAME
from perfusio_jax.twin.records.verifying import verify_audit
from perfusio_jax.twin.records.vouching import Known, Standing, Trail, standing, trail_of

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=2)))
STAMP = "2026-01-02T01:04:05.000000Z"


COLUMN_KINDS = [
    *((n, "int64" if n == "day" else "string") for n in AuditLogger.COLUMNS),
    ("seq", "int64"),
    ("hash", "string"),
]


def kinds_of_columns(folder: Path) -> list[tuple[str, str]]:
    schema = pq.read_table(folder / "audit_events.parquet").schema
    return [(field.name, str(field.type)) for field in schema]


def still() -> dt.datetime:
    return NOW


def write(folder: Path, n: int = 2, **settings) -> None:
    with AuditLogger(folder, "r", clock=still, **settings) as logger:
        for k in range(n):
            logger.log("A", {"k": k})


def read(folder: Path) -> list[dict]:
    return list(records((folder / "audit.jsonl").read_bytes()))


def bare(record: dict) -> dict:
    """A record without what the chain adds."""
    chain = ("version", "seq", "run_id", "prev_hash", "hash", "timestamp")
    return {name: value for name, value in record.items() if name not in chain}


def own(kind: str, payload: dict) -> dict:
    return {"event_type": kind, "day": 0, "user": "system", "payload": payload}


def test_a_record_without_details_is_of_day_0_by_the_system_in_utc(tmp_path):
    write(tmp_path, 1)
    (record,) = read(tmp_path)
    assert bare(record) == own("A", {"k": 0})
    assert record["timestamp"] == STAMP


def test_what_was_torn_off_is_kept_and_named(tmp_path):
    write(tmp_path)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"day":0,"ev')
    write(tmp_path, 0)
    found = read(tmp_path)
    digest = hashlib.sha256(b'{"day":0,"ev').hexdigest()
    payload = {"n_bytes": 12, "sha256": digest, "moved_to": "audit.torn"}
    assert [bare(r) for r in found[2:]] == [own("AUDIT_TORN_TAIL", payload)]
    torn = (tmp_path / "audit.torn").read_bytes()
    assert torn == f"# {STAMP} 12 bytes after record 2\n".encode() + b'{"day":0,"ev\n'
    assert verify_audit(tmp_path).warnings == ()


def test_a_head_left_behind_is_brought_up_and_named(tmp_path):
    write(tmp_path, 1)
    older = (tmp_path / "audit.head").read_bytes()
    write(tmp_path, 1)
    (tmp_path / "audit.head").write_bytes(older)
    write(tmp_path, 0)
    assert [bare(r) for r in read(tmp_path)[2:]] == [
        own("AUDIT_HEAD_RECOVERED", {"head_count": 1, "records": 2})
    ]
    assert verify_audit(tmp_path).warnings == ()


def test_a_head_left_behind_is_written_before_anything_else(tmp_path, monkeypatch):
    """A second crash at once must not leave the log two records beyond its head."""
    write(tmp_path, 1)
    older = (tmp_path / "audit.head").read_bytes()
    write(tmp_path, 1)
    (tmp_path / "audit.head").write_bytes(older)

    monkeypatch.setattr(audit_module, "append_durably", full)
    with pytest.raises(AuditError, match="was not written"):
        AuditLogger(tmp_path, "r", clock=still)
    assert Head.from_bytes((tmp_path / "audit.head").read_bytes()).count == 2


def test_a_copy_that_said_something_else_is_named_and_one_that_lagged_is_not(tmp_path):
    write(tmp_path)
    copy = tmp_path / "audit_events.csv"
    copy.write_bytes(copy.read_bytes()[:-9])
    write(tmp_path, 0)
    assert len(read(tmp_path)) == 2
    copy.write_bytes(copy.read_bytes().replace(b",A,", b",B,", 1))
    write(tmp_path, 0)
    assert [bare(r) for r in read(tmp_path)[2:]] == [
        own("AUDIT_COPY_REBUILT", {"file": "audit_events.csv"})
    ]


def test_the_notes_after_a_crash_come_in_this_order_after_the_key(tmp_path):
    write(tmp_path, 1)
    older = (tmp_path / "audit.head").read_bytes()
    write(tmp_path, 1)
    (tmp_path / "audit.head").write_bytes(older)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b"{")
    (tmp_path / "audit_events.csv").write_bytes(b"nothing of ours")
    signer = generate_key(tmp_path / "key")
    write(tmp_path, 0, signer=signer)
    kinds = [r["event_type"] for r in read(tmp_path)[2:]]
    assert kinds == [
        "AUDIT_SIGNED_BY",
        "AUDIT_TORN_TAIL",
        "AUDIT_HEAD_RECOVERED",
        "AUDIT_COPY_REBUILT",
    ]
    assert verify_audit(tmp_path, trusted=[signer.public_key]).ok


def test_a_key_is_announced_with_what_it_replaces(tmp_path):
    first, second = generate_key(tmp_path / "a"), generate_key(tmp_path / "b")
    for signer in (first, second, second):
        write(tmp_path / "run", 0, signer=signer)
    found = [bare(r) for r in read(tmp_path / "run")]
    says = {"reason": "a key signs the heads from here on"}
    wanted = [
        own("AUDIT_SIGNED_BY", {"public_key": s.public_key, "key_id": s.key_id, "n_before": n})
        | {"new": s.key_id}
        | says
        for n, s in enumerate((first, second))
    ]
    wanted[1]["old"] = first.key_id
    assert found == wanted


def test_a_log_of_no_records_names_its_run_in_the_head(tmp_path):
    AuditLogger(tmp_path, "r").close()
    head = Head.from_bytes((tmp_path / "audit.head").read_bytes())
    assert head == Head("r", 0, GENESIS, 0)
    assert (tmp_path / "audit.jsonl").read_bytes() == b""
    with (tmp_path / "audit_events.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [AuditLogger.COLUMNS]
    assert pq.read_table(tmp_path / "audit_events.parquet").num_rows == 0
    assert kinds_of_columns(tmp_path) == COLUMN_KINDS  # also where there is nothing to tell by
    (tmp_path / "audit.jsonl").unlink()  # an empty file that was lost is no loss
    assert verify_audit(tmp_path).warnings == ()
    write(tmp_path, 1)
    assert [bare(r) for r in read(tmp_path)] == [own("A", {"k": 0})]


def test_messages_of_the_logger_are_these(tmp_path):
    write(tmp_path)
    logger = AuditLogger(tmp_path, "r")
    logger.close()
    with pytest.raises(AuditError) as error:
        logger.log("A", {})
    assert str(error.value) == "The audit log is closed; nothing more can be recorded in it."
    with pytest.raises(AuditError) as error:
        AuditLogger(tmp_path, "s")
    assert str(error.value) == (
        f"{tmp_path / 'audit.jsonl'} belongs to run 'r', not 's'; give each run a folder of its "
        "own."
    )
    signer = generate_key(tmp_path / "key")
    write(tmp_path, 0, signer=signer)
    with pytest.raises(AuditError) as error:
        AuditLogger(tmp_path, "r")
    assert str(error.value) == (
        f"{tmp_path / 'audit.jsonl'} is signed by key {signer.key_id}; it is continued with a "
        "signing key only."
    )
    log = tmp_path / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"k":1', b'"k":2'))
    with pytest.raises(AuditError) as error:
        AuditLogger(tmp_path, "r", signer=signer)
    assert str(error.value) == f"{log} cannot be continued: {verify_audit(log)}"
    assert "record 2" in str(error.value)


def test_a_log_whose_head_is_gone_is_not_continued_and_told_which_file_is_missing(tmp_path):
    write(tmp_path)
    (tmp_path / "audit.head").unlink()
    with pytest.raises(
        AuditError, match=r"cannot be continued: .*the head \(audit\.head\) is miss"
    ):
        AuditLogger(tmp_path, "r")


def test_a_clock_without_a_zone_writes_nothing(tmp_path):
    with (
        pytest.raises(AuditError, match=r"^The clock of the audit log gave a time without a zone"),
        AuditLogger(tmp_path, "r", clock=lambda: dt.datetime(2026, 1, 1)) as logger,
    ):
        logger.log("A", {})
    assert (tmp_path / "audit.jsonl").read_bytes() == b""


def test_the_parquet_copy_has_numbers_as_numbers_and_text_as_text(tmp_path):
    write(tmp_path, 2)
    table = pq.read_table(tmp_path / "audit_events.parquet")
    assert kinds_of_columns(tmp_path) == COLUMN_KINDS
    assert [(r["seq"], r["day"], json.loads(r["payload_json"])) for r in table.to_pylist()] == [
        (1, 0, {"k": 0}),
        (2, 0, {"k": 1}),
    ]


def full(path, data):
    raise OSError(28, "no space left on device")


@pytest.mark.parametrize("before", ["nothing", "no key", "another key"])
def test_a_start_that_breaks_off_while_a_key_is_announced_leaves_a_log_that_verifies(
    tmp_path, monkeypatch, before
):
    folder = tmp_path / "run"
    earlier = {} if before == "no key" else {"signer": generate_key(tmp_path / "a")}
    if before != "nothing":
        write(folder, 1, **earlier)
        older = (folder / "audit.head").read_bytes()
        write(folder, 1, **earlier)
        (folder / "audit.head").write_bytes(older)
    signer = generate_key(tmp_path / "b")
    monkeypatch.setattr(audit_module, "append_durably", full)
    with pytest.raises(AuditError, match="was not written"):
        AuditLogger(folder, "r", clock=still, signer=signer)
    monkeypatch.undo()
    found = verify_audit(folder)
    assert found.ok, found
    write(folder, 1, signer=signer)
    assert verify_audit(folder, trusted=[signer.public_key]).ok


def test_times_are_in_utc_wherever_the_host_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        write(tmp_path, 1)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert read(tmp_path)[0]["timestamp"] == STAMP


def test_the_copy_lags_by_less_than_ten_records_unless_told_otherwise(tmp_path):
    copy = tmp_path / "audit_events.csv"
    with AuditLogger(tmp_path, "r", clock=still) as logger:
        for k in range(1, 11):
            logger.log("A", {"k": k, "text": "a\nb"})
            assert len(records_of(copy)) == (10 if k == 10 else 0)
    assert copy.read_bytes().count(b"\r\n") == 11  # ends of rows, and no others
    with AuditLogger(tmp_path, "r", 1, clock=still) as logger:
        logger.log("B", {})
        assert len(records_of(copy)) == 11


def records_of(copy: Path) -> list[list[str]]:
    with copy.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_a_folder_is_made_with_all_above_it_and_locked_by_this_name(tmp_path):
    with AuditLogger(tmp_path / "a" / "b", "r"):
        assert (tmp_path / "a" / "b" / "audit.lock").exists()


def test_what_the_disk_refuses_is_told_in_words(tmp_path, monkeypatch):
    with pytest.raises(ConfigError) as error:
        AuditLogger(tmp_path, "")
    assert str(error.value).startswith("run_id is empty")
    write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(AuditLogger, "_rebuild_csv", lambda self, log: full(None, None))
        with pytest.raises(AuditError, match=f"audit log in {tmp_path} cannot be opened: .*space"):
            AuditLogger(tmp_path, "r")
    logger = AuditLogger(tmp_path, "r", clock=still)
    logger.log("A", {})
    with monkeypatch.context() as patch:
        patch.setattr(audit_module, "append_durably", full)
        with pytest.raises(AuditError, match=r"^The CSV copy of the audit log was not written: .*"):
            logger.flush()
        patch.setattr(audit_module, "replace_durably", full)
        patch.setattr(AuditLogger, "_flush_csv", lambda self: None)
        with pytest.raises(AuditError, match=r"^The Parquet copy was not written: .*no space"):
            logger.close()
    (tmp_path / "audit.head").unlink()
    (tmp_path / "audit.head").mkdir()
    with pytest.raises(AuditError, match=r"audit\.head cannot be read: .*directory"):
        verify_audit(tmp_path)


# ---------------------------------------------------------------- what a person is told


def test_a_verdict_says_what_holds_and_what_does_not():
    fine = AuditReport(ok=True, n_records=3, head_hash="ab")
    assert str(fine) == "audit log verified: 3 records, head ab, not signed"
    signed = AuditReport(True, 3, head_hash="ab", key_id="k1", warnings=("one", "two"))
    assert str(signed) == (
        "audit log verified: 3 records, head ab, signed by key k1\nnote: one\nnote: two"
    )
    broken = AuditReport(False, 1, 2, 2, "it is gone", head_hash="ab")
    assert str(broken) == "audit log NOT verified: record 2 (line 2): it is gone"
    whole = AuditReport(False, 3, reason="nobody vouches for it", head_hash="ab", is_intact=True)
    assert str(whole) == (
        "audit log NOT verified: nobody vouches for it\nnote: the chain as it stands now holds: "
        "3 records, head ab, not signed"
    )


def test_a_copy_says_how_far_it_has_come_and_what_differs():
    assert str(AuditCopy(4, 4)) == "4 of 4 records are in the database"
    behind = AuditCopy(4, 2, first_missing=3)
    assert str(behind) == ("2 of 4 records are in the database; record 3 is the first that is not")
    assert behind.ok and not AuditCopy(4, 4, n_foreign=1).ok
    other = AuditCopy(4, 2, 3, 2, 5)
    assert str(other) == (
        "2 of 4 records are in the database; record 3 is the first that is not; record 2 says "
        "something else there; 5 rows there are not in the log"
    )
    assert not other.ok


@pytest.mark.parametrize("known", [None, Known(b"one", b"two"), Known(b"one", b"two", "key")])
def test_what_the_journal_keeps_of_the_log_is_read_back_as_it_was_kept(tmp_path, known):
    path = tmp_path / JOURNAL_NAME
    assert recall(tmp_path) is None
    with AuditMemory(path) as memory:
        assert memory.recall_audit() is None and not memory.has_history()
        if known is not None:
            memory.remember_audit(Known(b"older", b"older", "older"))
            memory.remember_audit(known)
        assert memory.recall_audit() == recall(tmp_path) == known
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM meta WHERE name = 'audit_begun'")  # half an entry is one that lies
        db.execute("DELETE FROM meta WHERE name = 'audit_key'")
    left = recall(tmp_path)
    assert left == (None if known is None else Known(b"one", b"None"))


def test_a_journal_that_is_no_file_or_no_database_is_named(tmp_path):
    (tmp_path / "a" / JOURNAL_NAME).mkdir(parents=True)
    with pytest.raises(JournalError, match=r"The journal .*a/journal\.sqlite is no file"):
        recall(tmp_path / "a")
    (tmp_path / JOURNAL_NAME).write_bytes(b"x" * 4096)
    with pytest.raises(JournalError, match=r"The journal .*journal\.sqlite cannot be read: "):
        recall(tmp_path)


def test_what_the_journal_says_against_a_log_is_told_in_words(tmp_path):
    with AuditLogger(tmp_path, "r") as audit:
        audit.log("A", {})
        audit.log("B", {})
    log, head = (tmp_path / "audit.jsonl").read_bytes(), (tmp_path / "audit.head").read_bytes()
    trail = trail_of(log)

    def against(acknowledged: bytes) -> tuple[int, str]:
        found = standing(trail, "r", head, Known(acknowledged, acknowledged))
        return found.n_known, found.trouble

    assert against(b"x") == (0, "what the journal keeps of this log is not readable")
    nothing = Head("r", 0, GENESIS, 0)
    assert against(nothing.to_bytes()) == (
        0, "2 records beyond record 0, of which the journal knows nothing",
    )  # fmt: skip
    assert against(Head("r", 1, "0" * 64, 1).to_bytes()) == (
        1, "the journal knows 1 record; record 1 here is another one, signed by nobody",
    )  # fmt: skip
    key = generate_key(tmp_path / "key")
    assert against(Head("r", 2, trail.hashes[2], 2).to_bytes(key)) == (
        2, "what the journal keeps of this log is not signed as the log is",
    )  # fmt: skip
    with AuditLogger(tmp_path / "signed", "r", signer=key) as audit:
        audit.log("A", {})
    trail = trail_of((tmp_path / "signed" / "audit.jsonl").read_bytes())
    head = (tmp_path / "signed" / "audit.head").read_bytes()
    assert against(Head("r", 2, "0" * 64, 2).to_bytes())[1] == (
        f"the journal knows 2 records; record 2 here is another one, signed by key {key.key_id}"
    )


def test_the_journal_beside_a_log_is_opened_by_an_address_that_lets_nothing_be_written(
    tmp_path, monkeypatch
):
    """Some builds of SQLite take a name for an address unasked; the others have to be asked."""
    with AuditMemory(tmp_path / JOURNAL_NAME) as memory:
        memory.remember_audit(Known(b"one", b"two"))
    opened, connect = [], sqlite3.connect

    def seen(address, **how):
        opened.append((address, how.get("uri")))
        return connect(address, **how)

    monkeypatch.setattr(sqlite3, "connect", seen)
    assert recall(tmp_path) == Known(b"one", b"two")
    assert opened == [(f"file:{tmp_path / JOURNAL_NAME}?mode=ro", True)]


def test_how_far_a_log_is_vouched_for_is_told_in_numbers_and_by_the_head_that_fits():
    """Ten records and more: heads are compared as numbers, not as text."""
    hashes = (GENESIS, *(f"{k:064x}" for k in range(1, 12)))
    trail = Trail(hashes, (None,) * 12)
    heads = [Head("r", k, hashes[k], k).to_bytes() for k in range(12)]
    other = Head("r", 2, "f" * 64, 2).to_bytes()
    assert trail.n_records == 11
    assert standing(trail, "r", heads[11], None) == Standing(11, 0, heads[11])
    assert standing(trail, "r", heads[11], Known(heads[9], heads[10])) == Standing(
        10, 1, heads[10], "1 record beyond record 10, of which the journal knows nothing", 9
    )
    assert standing(trail, "r", heads[11], Known(heads[10], heads[11])) == Standing(
        11, 0, heads[11], "", 10
    )
    # The record begun last says itself what was wrong before it; it need not be said again.
    assert standing(trail, "r", heads[11], Known(other, heads[11])) == Standing(
        11, 0, heads[11], "", 2
    )
    against = "the journal knows 2 records; record 2 here is another one, signed by nobody"
    assert standing(trail, "r", heads[11], Known(other, heads[10])) == Standing(
        10, 1, heads[10], against, 2
    )
    assert standing(trail, "r", heads[11], Known(other, other)) == Standing(
        0, 11, heads[0], against, 2
    )
    signed = Trail(hashes, (None, *("key",) * 11))  # without a journal: up to its signed head
    assert standing(signed, "r", heads[9], None) == Standing(9, 2, heads[9])


def test_a_fraction_of_a_day_is_kept_in_every_copy(tmp_path):
    with AuditLogger(tmp_path, "r", clock=still) as logger:
        logger.log("A", {}, day=1.5)
        logger.log("B", {}, day=2)
    kinds = [(n, "double" if n == "day" else kind) for n, kind in COLUMN_KINDS]
    assert kinds_of_columns(tmp_path) == kinds
    table = pq.read_table(tmp_path / "audit_events.parquet")
    assert table.column("day").to_pylist() == [1.5, 2.0]
    assert [row[3] for row in records_of(tmp_path / "audit_events.csv")] == ["1.5", "2"]
    assert verify_audit(tmp_path).warnings == ()


def test_the_log_of_a_twin_without_its_journal_is_noted(tmp_path):
    key = generate_key(tmp_path / "key.pem")
    (tmp_path / "run").mkdir()
    with AuditLogger(tmp_path / "run", "r", clock=still, signer=key) as log:
        log.log("SESSION_STARTED", {})
    report = verify_audit(tmp_path / "run")
    assert report.ok and [w for w in report.warnings if "there is no journal" in w]
    # a head signed by a key one trusts vouches for its records wherever the journal stands
    report = verify_audit(tmp_path / "run", trusted={key.public_key})
    assert report.ok and not [w for w in report.warnings if "there is no journal" in w]
