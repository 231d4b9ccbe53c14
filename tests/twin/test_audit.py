"""The audit trail: nothing changes unnoticed, nothing is lost in a crash."""

import csv
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import AuditError, ConfigError, RunLockedError
from perfusio_jax.twin.records import audit as audit_module
from perfusio_jax.twin.records.audit import AuditLogger, sha256_of
from perfusio_jax.twin.records.chain import GENESIS, Head, plain, records, seal, split_head, verify
from perfusio_jax.twin.records.keys import (
    PASSPHRASE_VARIABLE,
    Signer,
    generate_key,
    load_key,
    load_public_key,
)
from perfusio_jax.twin.records.verifying import verify_audit

START = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


class Clock:
    """A clock that advances one second whenever it is read."""

    def __init__(self, now: dt.datetime = START) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


def write_log(folder: Path, n: int = 4, run_id: str = "run-7") -> AuditLogger:
    with AuditLogger(folder, run_id, clock=Clock()) as logger:
        for day in range(n):
            logger.log("SETPOINT_CHANGE", {"temperature": 36.5, "é": [1, None]}, day=day)
    return logger


def table_rows(folder: Path) -> list[list[str]]:
    with (folder / "audit_events.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("log")
    write_log(folder)
    return (folder / "audit.jsonl").read_bytes(), (folder / "audit.head").read_bytes()


def test_a_record_holds_who_what_when_why_and_the_chain(tmp_path):
    with AuditLogger(tmp_path, "r1", clock=Clock()) as logger:
        first = logger.log("MODEL_RETRAIN", {"n": 3}, day=2, user="ada", state_sha256="ab" * 32)
        second = logger.log("SETPOINT_CHANGE", {}, reason="step", old=36.5, new=37.0)
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    assert records[0] == {
        "version": 1,
        "seq": 1,
        "timestamp": "2026-01-02T03:04:06.000000Z",
        "run_id": "r1",
        "event_type": "MODEL_RETRAIN",
        "day": 2,
        "user": "ada",
        "payload": {"n": 3},
        "state_sha256": "ab" * 32,
        "prev_hash": GENESIS,
        "hash": first,
    }
    assert records[1]["prev_hash"] == first
    assert records[1]["hash"] == second
    assert (records[1]["old"], records[1]["new"], records[1]["reason"]) == (36.5, 37.0, "step")
    assert all(rfc8785.dumps(record) == line for record, line in zip(records, lines, strict=True))
    report = verify_audit(tmp_path)
    assert report.ok and report.n_records == 2 and report.head_hash == second
    assert verify_audit(tmp_path / "audit.jsonl") == report
    assert "verified" in str(report)


def test_every_single_byte_change_is_found_and_the_record_named(small):
    log, head = small
    assert verify(log, head).ok
    for at in range(len(log)):
        seq = log[:at].count(b"\n") + 1
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(log)
            changed[at] ^= flip
            report = verify(bytes(changed), head)
            assert not report.ok, (at, flip)
            assert report.first_bad == seq, (at, flip, report)


def test_every_single_byte_of_the_head_counts(small):
    log, head = small
    for at in range(len(head)):
        for flip in (0x01, 0x20):
            changed = bytearray(head)
            changed[at] ^= flip
            assert not verify(log, bytes(changed)).ok, (at, flip)
    assert not verify(log, head + b" ").ok
    assert not verify(log, b"").ok
    assert not verify(log, None).ok


def test_inserting_or_deleting_any_byte_is_found(small):
    log, head = small
    for at in range(0, len(log), 3):
        seq = log[:at].count(b"\n") + 1
        assert verify(log[:at] + log[at + 1 :], head).first_bad == seq
        for extra in (b" ", b"\n"):
            report = verify(log[:at] + extra + log[at:], head)
            # A newline before a newline makes an empty line after a whole record.
            named = seq + (extra == b"\n" == log[at : at + 1])
            assert not report.ok and report.first_bad == named, (at, extra, report)


def test_deleting_swapping_repeating_and_cutting_records_is_found(small):
    log, head = small
    lines = log.splitlines(keepends=True)
    n = len(lines)
    for i in range(n):
        without = b"".join(lines[:i] + lines[i + 1 :])
        assert verify(without, head).first_bad == i + 1
        doubled = b"".join(lines[: i + 1] + lines[i:])
        assert not verify(doubled, head).ok
        for j in range(i):
            swapped = list(lines)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            assert verify(b"".join(swapped), head).first_bad == j + 1
    for cut in range(len(log)):
        report = verify(log[:cut], head)
        assert not report.ok
        assert report.first_bad == log[:cut].count(b"\n") + 1


def test_a_record_rewritten_with_its_hash_breaks_the_chain_after_it(small):
    log, head = small
    lines = log.splitlines(keepends=True)
    record = json.loads(lines[1])
    record["payload"] = {"temperature": 99.0}
    del record["hash"]
    lines[1], _ = seal(record)
    report = verify(b"".join(lines), head)
    assert report.first_bad == 3 and "chained" in report.reason


def test_a_rewritten_last_record_and_records_beyond_the_head_are_found(small):
    log, head = small
    lines = log.splitlines(keepends=True)
    record = json.loads(lines[-1])
    record["payload"] = {}
    record.pop("hash")
    forged, digest = seal(record)
    assert verify(b"".join(lines[:-1]) + forged, head).first_bad == len(lines)
    more, last = log, json.loads(lines[-1])
    for extra in (1, 2):
        last = {**last, "seq": last["seq"] + 1, "prev_hash": last["hash"]}
        last.pop("hash")
        line, digest = seal(last)
        last["hash"] = digest
        more += line
        assert verify(more, head).ok == (extra == 1)


@pytest.mark.parametrize(
    ("field", "value"), [("version", 2), ("seq", 9), ("run_id", "other"), ("timestamp", 5)]
)
def test_fields_are_checked_even_when_the_hash_fits(field, value):
    base = {"version": 1, "seq": 1, "timestamp": "t", "run_id": "r", "prev_hash": GENESIS}
    first, digest = seal(base)
    second, last = seal({**base, "seq": 2, "prev_hash": digest} | {field: value})
    report = verify(first + second, Head("r", 2, last, 2).to_bytes())
    assert report.first_bad == 2


def test_lines_that_are_json_but_no_records_are_named():
    for line in (b"[]", b"{}", b"1", b"null", b"NaN", b'{"a":1e999}', b"[" * 100_000):
        report = verify(line + b"\n", Head("r", 1, GENESIS, 1).to_bytes())
        assert report.first_bad == 1


def test_reopening_continues_the_chain(tmp_path):
    write_log(tmp_path, n=3)
    write_log(tmp_path, n=2)
    report = verify_audit(tmp_path)
    assert report.ok and report.n_records == 5
    rows = table_rows(tmp_path)
    assert rows[0] == AuditLogger.COLUMNS and len(rows) == 6
    # The second clock starts over: noted, and not called tampering.
    assert any("clock went back before record 4" in note for note in report.warnings)


@pytest.mark.parametrize("keep", ["nothing", "something", "all but the newline"])
def test_a_torn_tail_is_quarantined_noted_and_survived_at_every_byte(tmp_path, keep):
    write_log(tmp_path / "a", n=3)
    log = (tmp_path / "a" / "audit.jsonl").read_bytes()
    head_then = json.loads(log.splitlines()[1])["hash"]
    start = len(b"".join(log.splitlines(keepends=True)[:2]))
    cuts = {
        "nothing": [start],
        "something": range(start + 1, len(log) - 1, 37),
        "all but the newline": [len(log) - 1],
    }[keep]
    for cut in cuts:
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "audit.jsonl").write_bytes(log[:cut])
        (folder / "audit.head").write_bytes(Head("run-7", 2, head_then, 2).to_bytes())
        before = verify_audit(folder)
        assert before.ok and before.n_records == 2
        assert bool(before.warnings) == (cut > start)
        write_log(folder, n=1)
        after = verify_audit(folder)
        assert after.ok and after.n_records == 3 + (cut > start)
        if cut > start:
            torn = (folder / "audit.torn").read_bytes()
            assert log[start:cut] in torn
            note = json.loads((folder / "audit.jsonl").read_bytes().splitlines()[2])
            assert note["event_type"] == "AUDIT_TORN_TAIL"
            assert note["payload"]["n_bytes"] == cut - start


def test_a_crash_between_record_and_head_is_recovered_and_noted(tmp_path):
    write_log(tmp_path, n=2)
    older = (tmp_path / "audit.head").read_bytes()
    write_log(tmp_path, n=1)
    (tmp_path / "audit.head").write_bytes(older)
    report = verify_audit(tmp_path)
    assert report.ok and "not under the head yet" in report.warnings[-1]
    write_log(tmp_path, n=1)
    events = [
        json.loads(x)["event_type"] for x in (tmp_path / "audit.jsonl").read_bytes().splitlines()
    ]
    assert events[3] == "AUDIT_HEAD_RECOVERED"
    assert verify_audit(tmp_path).ok


def test_a_tampered_log_is_not_continued(tmp_path):
    write_log(tmp_path)
    log = tmp_path / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"36.5", b"36.6", 1))
    with pytest.raises(AuditError, match="record 1"):
        AuditLogger(tmp_path, "run-7")
    log.unlink()
    with pytest.raises(AuditError, match="missing"):
        AuditLogger(tmp_path, "run-7")


def test_a_log_belongs_to_one_run_and_one_writer(tmp_path):
    write_log(tmp_path)
    with pytest.raises(AuditError, match="belongs to run 'run-7'"):
        AuditLogger(tmp_path, "another")
    with AuditLogger(tmp_path, "run-7"), pytest.raises(RunLockedError, match="in use"):
        AuditLogger(tmp_path, "run-7")


def test_a_record_is_on_disk_when_log_returns_and_the_csv_may_lag(tmp_path):
    logger = AuditLogger(tmp_path, "r", flush_every=3, clock=Clock())
    table = tmp_path / "audit_events.csv"
    for n in range(1, 4):
        logger.log("E", {})
        assert verify_audit(tmp_path).n_records == n
        assert len(table.read_text().splitlines()) - 1 == (3 if n == 3 else 0)
    logger.log("E", {})
    logger.flush()
    assert len(table.read_text().splitlines()) == 5
    logger.close()
    logger.close()
    with pytest.raises(AuditError, match="closed"):
        logger.log("E", {})


def test_csv_and_parquet_copies_agree_with_the_log(tmp_path):
    with AuditLogger(tmp_path, "r", clock=Clock()) as logger:
        logger.log("A", {"x": 'quo"te, comma\nline'}, day=1, user="=cmd()", reason="why")
        logger.log("B", {"y": math.nan})
    rows = [dict(zip(AuditLogger.COLUMNS, row, strict=True)) for row in table_rows(tmp_path)[1:]]
    table = pq.read_table(tmp_path / "audit_events.parquet").to_pylist()
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    for row, cells, record in zip(rows, table, records, strict=True):
        payload = json.loads(row["payload_json"])
        assert payload == json.loads(cells["payload_json"])
        assert {k: v for k, v in payload.items() if not k.startswith("_")} == record["payload"]
        assert row["timestamp"] == cells["timestamp"] == record["timestamp"]
        assert (cells["seq"], cells["hash"]) == (record["seq"], record["hash"])
    assert rows[0]["user"] == "'=cmd()"  # a spreadsheet must not run it
    assert table[0]["user"] == "=cmd()"
    assert json.loads(rows[0]["payload_json"])["_reason"] == "why"


def test_a_csv_copy_that_lags_or_was_edited_is_made_right(tmp_path):
    write_log(tmp_path)
    table = tmp_path / "audit_events.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-20])
    write_log(tmp_path, n=0)
    assert table.read_bytes() == whole
    table.write_bytes(whole.replace(b"36.5", b"36.6"))
    write_log(tmp_path, n=0)
    assert table.read_bytes().startswith(whole)
    assert b"AUDIT_COPY_REBUILT" in table.read_bytes()


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    path: Path


def test_values_that_json_cannot_hold_are_marked_not_lost(tmp_path):
    payload = {
        "nan": math.nan,
        "deep": {"list": [1.0, math.inf, {"a/b~c": -math.inf}]},
        "array": np.array([[1.0, np.nan]]),
        "jax": jnp.asarray(2.5),
        "big": 2**60,
        "when": START,
        "colour": Colour.RED,
        "point": Point(1.0, Path("/tmp/x")),
        "set": {"b", "a"},
        3: "int key",
        "surrogate": "\ud800",
        "true": True,
        "f32": np.float32(0.5),
    }
    with AuditLogger(tmp_path, "r") as logger:
        logger.log("E", payload)
    record = json.loads((tmp_path / "audit.jsonl").read_bytes())
    assert record["payload"] == {
        "nan": None,
        "deep": {"list": [1.0, None, {"a/b~c": None}]},
        "array": [[1.0, None]],
        "jax": 2.5,
        "big": str(2**60),
        "when": "2026-01-02T03:04:05+00:00",
        "colour": "red",
        "point": {"x": 1.0, "path": "/tmp/x"},
        "set": ["a", "b"],
        "3": "int key",
        "surrogate": "\\ud800",
        "true": True,
        "f32": 0.5,
    }
    assert record["marks"] == {
        "/payload/nan": "nan",
        "/payload/deep/list/1": "inf",
        "/payload/deep/list/2/a~1b~0c": "-inf",
        "/payload/array/0/1": "nan",
        "/payload/big": "integer",
    }
    assert verify_audit(tmp_path).ok


@pytest.mark.parametrize("value", [object(), b"bytes", {1.5: 2}, {True: 1}, {1: 0, "1": 0}])
def test_values_of_unknown_kind_are_refused_and_the_log_stays_whole(tmp_path, value):
    with AuditLogger(tmp_path, "r") as logger:
        with pytest.raises(AuditError, match="/payload/v"):
            logger.log("E", {"v": value})
        logger.log("E", {"v": 1})
    assert verify_audit(tmp_path).n_records == 1


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(payload=st.dictionaries(st.text(), JSONISH, max_size=4))
def test_any_payload_is_sealed_to_a_line_that_verifies(payload):
    fields, marks = plain({"payload": payload})
    base = {"version": 1, "seq": 1, "timestamp": "t", "run_id": "r", "prev_hash": GENESIS}
    line, digest = seal({**base, **fields, "marks": marks})
    assert line.count(b"\n") == 1
    assert verify(line, Head("r", 1, digest, 1).to_bytes()).ok


@pytest.mark.parametrize(
    ("kwargs", "word"), [({"run_id": ""}, "run_id"), ({"flush_every": 0}, "0")]
)
def test_bad_settings_are_refused(tmp_path, kwargs, word):
    with pytest.raises(ConfigError, match=word):
        AuditLogger(**({"log_dir": tmp_path, "run_id": "r"} | kwargs))


def test_a_clock_without_a_zone_is_refused(tmp_path):
    logger = AuditLogger(tmp_path, "r", clock=lambda: dt.datetime(2026, 1, 1))
    with pytest.raises(AuditError, match="zone"):
        logger.log("E", {})
    logger.close()


def test_nothing_to_verify_is_not_ok(tmp_path):
    assert not verify_audit(tmp_path).ok
    (tmp_path / "audit.jsonl").write_bytes(b"")
    assert not verify_audit(tmp_path).ok
    write_log(tmp_path / "none", n=0)
    assert verify_audit(tmp_path / "none").ok


def test_a_full_disk_leaves_the_log_whole(tmp_path):
    """The file-size limit makes a write stop half way, as a full disk does."""
    write_log(tmp_path, n=2)
    size = (tmp_path / "audit.jsonl").stat().st_size
    logger = AuditLogger(tmp_path, "run-7", clock=Clock())
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        with pytest.raises(AuditError, match="not written"):
            logger.log("E", {"long": "x" * 200})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "audit.jsonl").stat().st_size == size
    logger.log("E", {"after": 1})
    logger.close()
    report = verify_audit(tmp_path)
    assert report.ok and report.n_records == 3


def test_no_record_is_taken_while_the_head_cannot_be_written(tmp_path, monkeypatch):
    logger = AuditLogger(tmp_path, "r", clock=Clock())
    real = audit_module.replace_durably

    def failing(path, data):
        raise OSError("read-only")

    monkeypatch.setattr(audit_module, "replace_durably", failing)
    for _ in range(3):
        with pytest.raises(AuditError, match="head beside it is not"):
            logger.log("E", {})
    assert len((tmp_path / "audit.jsonl").read_bytes().splitlines()) == 1
    monkeypatch.setattr(audit_module, "replace_durably", real)
    logger.log("E", {})
    logger.close()
    report = verify_audit(tmp_path)
    assert report.ok and report.n_records == 2 and report.warnings == ()


ENDLESS = """
import sys
from pathlib import Path
from perfusio_jax.twin.records.audit import AuditLogger
logger = AuditLogger(Path(sys.argv[1]), "r", flush_every=2)
while True:
    logger.log("E", {"text": "x" * 500})
    print("one more", flush=True)
"""


def test_killed_while_writing_the_log_still_verifies_and_continues(tmp_path):
    """A child logs as fast as it can and is killed by its id."""
    command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            for _ in range(7):
                assert child.stdout.readline()
        finally:
            os.kill(child.pid, signal.SIGKILL)
    seen = verify_audit(tmp_path)
    assert seen.ok and seen.n_records >= 7
    with AuditLogger(tmp_path, "r") as logger:
        logger.log("LAST", {})
    report = verify_audit(tmp_path)
    assert report.ok
    assert len(table_rows(tmp_path)) == report.n_records + 1


def test_state_hash_separates_its_parts(tmp_path):
    file = tmp_path / "state"
    file.write_bytes(b"abc")
    assert sha256_of(file) == sha256_of(b"abc")
    assert sha256_of(b"ab", b"c") != sha256_of(b"a", b"bc")


def test_a_head_that_cannot_be_used_is_named_after_the_last_record(small):
    log, head = small
    n = log.count(b"\n")
    for bad in (None, b"", head + b" ", head.replace(b'"count":4', b'"count":-4')):
        assert verify(log, bad).first_bad == n + 1
    assert verify(log, Head("run-7", n, "0" * 64, n - 1).to_bytes()).first_bad == n + 1
    assert "no audit log" in verify(b"", None).reason
    assert "head (audit.head) is missing" in verify(log, None).reason


@pytest.mark.parametrize("value", [2**53 - 1, 2**53, -(2**53), 2**53 + 1])
def test_integers_are_exact_or_text_at_the_edge_of_what_doubles_hold(value):
    written, marks = plain(value)
    exact = abs(value) <= 2**53 - 1
    assert written == (value if exact else str(value))
    assert bool(marks) == (not exact)


def test_a_signed_log_names_its_key_and_keeps_it(tmp_path):
    signer = generate_key(tmp_path / "key.pem")
    folder = tmp_path / "run"
    with AuditLogger(folder, "r", clock=Clock(), signer=signer) as logger:
        logger.log("A", {})
    report = verify_audit(folder)
    assert report.ok and report.key_id == signer.key_id and report.n_records == 2
    assert signer.key_id in str(report)
    assert verify_audit(folder, trusted=[signer.public_key]).ok
    other = generate_key(tmp_path / "other.pem")
    assert "not a trusted one" in verify_audit(folder, trusted=[other.public_key]).reason
    with pytest.raises(AuditError, match=f"signed by key {signer.key_id}"):
        AuditLogger(folder, "r", clock=Clock())
    with AuditLogger(folder, "r", clock=Clock(), signer=load_key(tmp_path / "key.pem")) as logger:
        logger.log("B", {})
    kinds = [r["event_type"] for r in records((folder / "audit.jsonl").read_bytes())]
    assert kinds == ["AUDIT_SIGNED_BY", "A", "B"]


def test_a_key_may_be_replaced_and_the_log_says_so(tmp_path):
    old, new = generate_key(tmp_path / "a"), generate_key(tmp_path / "b")
    write_log(tmp_path / "run")
    assert verify_audit(tmp_path / "run").key_id is None
    for signer in (old, new):
        with AuditLogger(tmp_path / "run", "run-7", clock=Clock(), signer=signer) as logger:
            logger.log("A", {})
        assert verify_audit(tmp_path / "run").key_id == signer.key_id
    announced = [
        r
        for r in records((tmp_path / "run/audit.jsonl").read_bytes())
        if "public_key" in r["payload"]
    ]
    assert [(r.get("old"), r["new"]) for r in announced] == [
        (None, old.key_id),
        (old.key_id, new.key_id),
    ]
    report = verify_audit(tmp_path / "run", trusted=[old.public_key])
    assert not report.ok


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> tuple[bytes, bytes, Signer]:
    folder = tmp_path_factory.mktemp("signed")
    signer = generate_key(folder / "key")
    with AuditLogger(folder / "run", "r", clock=Clock(), signer=signer) as logger:
        logger.log("A", {"x": 1})
    return (
        (folder / "run/audit.jsonl").read_bytes(),
        (folder / "run/audit.head").read_bytes(),
        signer,
    )


def test_every_byte_of_a_signed_head_counts(signed):
    log, head, _ = signed
    assert verify(log, head).ok
    for at in range(len(head)):
        for flip in (0x01, 0x20):
            changed = bytearray(head)
            changed[at] ^= flip
            assert not verify(log, bytes(changed)).ok, (at, flip)
    for cut in range(len(head)):
        assert not verify(log, head[:cut]).ok
    assert not verify(log, head + b"\n").ok
    assert not verify(log, head.upper()).ok


def test_a_rewritten_log_cannot_carry_the_signature(signed):
    log, head, signer = signed
    signature = split_head(head)[1]
    assert signature is not None
    forged = {k: v for k, v in json.loads(log.splitlines()[1]).items() if k != "hash"}
    body, digest = seal({**forged, "payload": {"x": 2}})
    rewritten = log.splitlines(keepends=True)[0] + body
    new_head = Head("r", 2, digest, 2).to_bytes()
    assert "not signed, but key" in verify(rewritten, new_head).reason
    assert "not that of key" in verify(rewritten, new_head + signature.encode() + b"\n").reason
    unsigned, plain_head = seal_first()
    assert verify(unsigned, plain_head).ok
    assert "no record names" in verify(unsigned, plain_head + signature.encode() + b"\n").reason
    assert "asked for" in verify(unsigned, plain_head, trusted=[signer.public_key]).reason


def seal_first() -> tuple[bytes, bytes]:
    line, digest = seal(
        {
            "version": 1,
            "seq": 1,
            "timestamp": "2026-01-02T03:04:06.000000Z",
            "run_id": "r",
            "event_type": "A",
            "day": 0,
            "user": "u",
            "payload": {},
            "prev_hash": GENESIS,
        }
    )
    return line, Head("r", 1, digest, 1).to_bytes()


def test_a_crash_between_record_and_signed_head_without_a_journal_is_named(tmp_path):
    """Nothing tells it from a forgery: the log goes on, and says that nobody vouches for it."""
    signer = generate_key(tmp_path / "key")
    folder = tmp_path / "run"
    with AuditLogger(folder, "r", clock=Clock(), signer=signer) as logger:
        logger.log("A", {})
        before = (folder / "audit.head").read_bytes()
        logger.log("B", {})
    (folder / "audit.head").write_bytes(before)
    assert verify_audit(folder).ok
    with AuditLogger(folder, "r", clock=Clock(), signer=signer):
        pass
    report = verify_audit(folder)
    assert report.ok and report.n_records == 4 and report.n_unvouched == 1
    assert report.warnings[0] == "the clock went back before record 4"
    assert "record 3 stood beyond the head" in report.warnings[1] and len(report.warnings) == 2


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_key_others_can_read_is_refused(tmp_path):
    path = tmp_path / "key"
    made = generate_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path) == made
    assert load_public_key(tmp_path / "key.pub") == made.public_key
    with pytest.raises(ConfigError, match="never replaced"):
        generate_key(path)
    for mode in (0o640, 0o604, 0o610):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            load_key(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="link is not followed"):
        load_key(tmp_path / "link")
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="no PEM key"):
        load_key(path)
    with pytest.raises(ConfigError, match="keygen"):
        load_key(tmp_path / "absent")
    with pytest.raises(ConfigError, match="no public key"):
        load_public_key(path)


def test_a_passphrase_locks_the_key_and_shows_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "cod-liver-oil")
    made = generate_key(tmp_path / "key")
    assert load_key(tmp_path / "key") == made
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong-word")
    with pytest.raises(ConfigError) as caught:
        load_key(tmp_path / "key")
    assert "wrong-word" not in str(caught.value) and caught.value.__cause__ is None
    assert "PRIVATE" not in repr(made) and "_private" not in repr(made)


def test_copies_that_say_something_else_are_noted(tmp_path):
    write_log(tmp_path)
    assert verify_audit(tmp_path).warnings == ()
    csv_path, parquet = tmp_path / "audit_events.csv", tmp_path / "audit_events.parquet"
    whole = csv_path.read_bytes()
    csv_path.write_bytes(whole[: len(whole) // 2])  # a copy may lag behind
    assert verify_audit(tmp_path).warnings == ()
    csv_path.write_bytes(whole.replace(b"36.5", b"39.5", 1))
    table = pq.read_table(parquet)
    pq.write_table(table.slice(1), parquet)
    report = verify_audit(tmp_path)
    assert report.ok and len(report.warnings) == 2
    assert "audit_events.csv" in report.warnings[0] and "parquet" in report.warnings[1]


def test_a_place_without_a_log_is_said_to_have_none_in_full(tmp_path):
    report = verify_audit(tmp_path)
    assert dataclasses.astuple(report) == (
        False,
        0,
        1,
        1,
        f"there is no audit log at {tmp_path / 'audit.jsonl'}",
        (),
        GENESIS,
        None,
        False,
        None,
        0,
    )


def test_one_of_the_two_files_alone_is_judged_not_taken_for_nothing(tmp_path):
    write_log(tmp_path / "a")
    (tmp_path / "a" / "audit.head").unlink()
    assert "the head (audit.head) is missing" in verify_audit(tmp_path / "a").reason
    write_log(tmp_path / "b")
    (tmp_path / "b" / "audit.jsonl").unlink()
    report = verify_audit(tmp_path / "b")
    assert (report.ok, report.first_bad, report.n_records) == (False, 1, 0)
    assert "holds 0 whole records of 4" in report.reason


def test_a_log_of_no_records_verifies(tmp_path):
    AuditLogger(tmp_path, "r").close()
    (tmp_path / "audit.jsonl").unlink()  # an empty file that was lost is no loss
    assert verify_audit(tmp_path).ok


def test_the_hash_of_a_state_is_fixed_for_all_time(tmp_path):
    (tmp_path / "x").write_bytes(b"cd")
    wanted = hashlib.sha256(b"\0" * 7 + b"\2" + b"ab" + b"\0" * 7 + b"\2" + b"cd").hexdigest()
    assert sha256_of(b"ab", tmp_path / "x") == wanted


def test_a_parquet_copy_that_is_no_parquet_is_noted(tmp_path):
    write_log(tmp_path)
    (tmp_path / "audit_events.parquet").write_bytes(b"not parquet")
    assert verify_audit(tmp_path).warnings == ("audit_events.parquet does not agree with the log",)


def test_a_role_is_kept_with_who_acted(tmp_path):
    with AuditLogger(tmp_path, "r", clock=Clock()) as logger:
        logger.log("COMMAND_ARM", {}, user="ada", role="operator", old="disarmed", new="armed")
    (record,) = records((tmp_path / "audit.jsonl").read_bytes())
    assert (record["user"], record["role"]) == ("ada", "operator")
    assert '"_role":"operator"' in table_rows(tmp_path)[1][5]


def test_a_folder_that_takes_nothing_is_refused_in_words(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit_module, "replace_durably", full)
    with pytest.raises(AuditError, match=r"cannot be opened: .*No space left|is written, but"):
        AuditLogger(tmp_path, "r")
    monkeypatch.undo()
    AuditLogger(tmp_path, "r").close()  # and the lock is free again


def test_a_row_of_the_copy_holds_the_seed_columns_and_all_the_record_adds(tmp_path):
    with AuditLogger(tmp_path, "r1", clock=Clock()) as logger:
        logger.log("A", {"x": 1}, day=3, user="ada", reason="why", old=1, new=2)
    assert table_rows(tmp_path)[1] == [
        "2026-01-02T03:04:06.000000Z",
        "r1",
        "A",
        "3",
        "ada",
        '{"_new":2,"_old":1,"_reason":"why","x":1}',
    ]
