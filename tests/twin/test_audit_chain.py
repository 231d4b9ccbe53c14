"""The chain of records: what a verdict names of a log, a head and a signature that do not fit."""

import dataclasses
import enum
import hashlib
import json
import math
from pathlib import PurePosixPath

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from perfusio_jax._core import AuditError
from perfusio_jax.twin.records.chain import (
    GENESIS,
    AuditReport,
    Head,
    check_signature,
    plain,
    records,
    seal,
    split_head,
    verify,
)
from perfusio_jax.twin.records.keys import Signer, generate_key, key_id


def chain(*changes: dict, n: int = 3) -> tuple[bytes, list[str]]:
    """A log of `n` records, changed one by one before they are sealed, and the hash after each."""
    log, hashes = b"", [GENESIS]
    for k in range(n):
        fields = {
            "version": 1,
            "seq": k + 1,
            "timestamp": f"2026-01-0{k + 1}",
            "run_id": "r",
            "event_type": "A",
            "prev_hash": hashes[-1],
        }
        changed = {**fields, **(changes[k] if k < len(changes) else {})}
        line, digest = seal({name: v for name, v in changed.items() if v is not ...})
        log += line
        hashes.append(digest)
    return log, hashes


def head_of(hashes: list[str], n: int | None = None, **changes) -> bytes:
    n = len(hashes) - 1 if n is None else n
    return Head(**({"run_id": "r", "seq": n, "hash": hashes[n], "count": n} | changes)).to_bytes()


@given(record=st.dictionaries(st.text(), st.text() | st.integers(0, 9) | st.floats(0, 1)))
@example(record={"\uffff": 1, "\U00010000": 2, "hasg": 3, "hash-": 4})  # in the order of UTF-16
def test_a_record_is_hashed_and_written_in_the_canonical_form_of_the_whole(record):
    record.pop("hash", None)
    line, digest = seal(record)
    assert digest == hashlib.sha256(rfc8785.dumps(record)).hexdigest()
    assert line == rfc8785.dumps({**record, "hash": digest}) + b"\n"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("version", 2, "its format version is 2, not 1"),
        ("seq", 7, "its number is 7, not 2"),
        ("prev_hash", GENESIS, "it is not chained to the record before it"),
        ("timestamp", 5, "its time stamp or run id is not text"),
        ("run_id", None, "its time stamp or run id is not text"),
        ("run_id", "s", "it belongs to another run"),
        *((name, ..., "it lacks fields every record has")
          for name in ("version", "seq", "timestamp", "run_id", "prev_hash")),
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_named_with_what_is_wrong_and_what_stands_before_it(
    field, value, says
):
    log, hashes = chain({}, {field: value})
    assert verify(log, head_of(hashes)) == AuditReport(
        ok=False, n_records=1, first_bad=2, line=2, reason=says, head_hash=hashes[1]
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "it is not a JSON record"),
        (b"\xff", "it is not a JSON record"),
        (b"[1]", "it is not in canonical form"),
        (b'{"b":1,"a":2}', "it is not in canonical form"),
        (b'{"hash":"x"}', "it lacks fields every record has"),
        (b"", "it is not a JSON record"),
    ],
)
def test_a_line_that_holds_no_record_is_named_with_its_number(line, says):
    log, hashes = chain(n=2)
    report = verify(log + line + b"\n", head_of(hashes))
    assert (report.n_records, report.first_bad, report.line, report.reason) == (2, 3, 3, says)
    assert not report.ok and not report.is_intact and report.head_hash == hashes[2]


def test_a_record_whose_content_was_changed_is_named():
    log, hashes = chain()
    report = verify(log.replace(b"2026-01-02", b"2026-01-09"), head_of(hashes))
    assert (report.first_bad, report.reason) == (2, "its content does not match its hash")


def test_a_number_is_what_a_double_holds():
    """2**53 and the number after it are one double; written apart they are not canonical."""
    body = {"version": 1, "seq": 1, "timestamp": "t", "run_id": "r", "prev_hash": GENESIS}
    for number in (2.0**53, 2.0**53 - 1, -(2.0**53), 1e21):
        line, digest = seal({**body, "x": number})
        assert verify(line, Head("r", 1, digest, 1).to_bytes()).ok
        found = next(records(line))["x"]
        assert found == number and isinstance(found, int) == (abs(number) < 2**53)
    line, _ = seal({**body, "x": 2.0**53})
    other = line.replace(b"9007199254740992", b"9007199254740993")
    assert other != line and "canonical" in verify(other, None).reason


def test_what_stands_after_the_head_or_in_its_place_is_named():
    log, hashes = chain()

    def says(head: bytes | None, log: bytes = log) -> tuple[int | None, str]:
        report = verify(log, head)
        assert report.line == report.first_bad and report.head_hash == hashes[log.count(b"\n")]
        assert report.ok is False and not report.is_intact
        assert report.n_records == log.count(b"\n")
        return report.first_bad, report.reason

    assert says(None) == (4, "the head (audit.head) is missing: where the log ended is unknown")
    assert says(None, b"") == (1, "there is no audit log here")
    assert says(b"x") == (4, "The head of the audit log is not readable.")
    contradicts = (4, "the head contradicts itself")
    assert says(head_of(hashes, count=2)) == contradicts
    assert says(head_of(hashes, seq=-1, count=-1)) == contradicts
    ahead = head_of([*hashes, GENESIS, GENESIS])
    assert says(ahead) == (4, "it is missing: the log holds 3 whole records of 5")
    foreign = "the head was written for another log"
    assert says(head_of(hashes, hash=GENESIS)) == (3, foreign)
    assert says(head_of(hashes, 2, run_id="s")) == (2, foreign)
    assert says(head_of(hashes, 0, hash="1" * 64)) == (1, foreign)
    assert says(head_of(hashes, 1)) == (2, "2 records stand beyond the head")


def test_what_a_crash_leaves_and_a_clock_that_goes_back_are_noted():
    log, hashes = chain({}, {"timestamp": "2025"}, {"timestamp": "2025"})
    back = "the clock went back before record 2"
    report = verify(log + b'{"day', head_of(hashes, 2))
    assert report == AuditReport(
        ok=True,
        n_records=3,
        warnings=(
            back,
            "record 3 is not under the head yet (being written, or a crash)",
            "5 bytes of an unfinished record follow record 3",
        ),
        head_hash=hashes[3],
        is_intact=True,
    )
    assert verify(log, None).warnings == (back,)  # also where the log does not verify
    assert verify(log + b"\n", head_of(hashes)).warnings == (back,)


def test_only_records_that_name_what_a_crash_left_may_stand_beyond_the_first_one():
    kinds = ("AUDIT_BREAK", "AUDIT_HEAD_RECOVERED")
    for kind in kinds:
        log, hashes = chain({}, {}, {"event_type": kind, "payload": {"unvouched": 1}})
        report = verify(log, head_of(hashes, 1))
        assert report.is_intact and report.n_unvouched == 1
        assert report.ok == (kind == "AUDIT_HEAD_RECOVERED")
        assert report.first_bad == report.line == (None if report.ok else 2)
        log, hashes = chain({}, {"event_type": kind})
        assert verify(log, head_of(hashes, 1)).first_bad == 2


def test_the_first_break_is_what_is_wrong_and_the_others_are_notes():
    def found(what: str, n: int) -> dict:
        return {"event_type": "AUDIT_BREAK", "payload": {"found": what, "unvouched": n}}

    log, hashes = chain({}, {}, found("a gap", 2), {}, found("another", 0), {}, n=6)
    report = verify(log + b"{", head_of(hashes))
    assert (report.ok, report.is_intact, report.n_records) == (False, True, 6)
    assert (report.first_bad, report.line, report.n_unvouched) == (1, 1, 2)
    assert report.reason == (
        "record 3 begins a new segment: a gap; nobody vouches for records 1 to 2 (2 records "
        "unvouched)"
    )
    assert report.warnings == (
        "1 bytes of an unfinished record follow record 6",
        "record 5 begins a new segment: another; nobody vouches for nothing that is here (0 "
        "records unvouched)",
    )
    log, hashes = chain({}, {}, found("a gap", 0), {})
    assert verify(log, head_of(hashes)).first_bad == 3  # nothing before it: the break itself


# ---------------------------------------------------------------- heads and signatures


@pytest.fixture(scope="module")
def signer(tmp_path_factory) -> Signer:
    return generate_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "The head of the audit log is not readable."),
        (b"[]\n", "The head of the audit log is not readable."),
        (b"{}\n", "The head of the audit log is not readable."),
        (b"[" * 100_000 + b"\n", "The head of the audit log is not readable."),
        (head_of([GENESIS]).rstrip(), "The head of the audit log is not in its canonical form."),
        (
            head_of([GENESIS], count=False),
            "The head of the audit log is not in its canonical form.",
        ),
        (head_of([GENESIS]) + b"00\n", "The signature under the head of the audit log is not rea"),
    ],
)
def test_a_head_that_is_none_is_refused_in_words(raw, says):
    with pytest.raises(AuditError) as error:
        Head.from_bytes(raw)
    assert str(error.value).startswith(says)


def test_a_head_is_read_back_as_it_was_written(signer):
    head = Head("r", 3, "ab" * 32, 3)
    line = rfc8785.dumps({"version": 1, **dataclasses.asdict(head)}) + b"\n"
    assert head.to_bytes() == line and split_head(line) == (line, None)
    signed = head.to_bytes(signer)
    assert split_head(signed) == (line, signer.sign(line)) and Head.from_bytes(signed) == head
    assert signed.count(b"\n") == 2 and signed.endswith(b"\n")


def test_what_is_wrong_with_a_signature_names_the_key(signer, tmp_path):
    other = generate_key(tmp_path / "other")
    head = Head("r", 0, GENESIS, 0)
    bare, signed, foreign = head.to_bytes(), head.to_bytes(signer), head.to_bytes(other)
    key, name = signer.public_key, key_id(signer.public_key)
    assert check_signature(bare, None) is None and check_signature(signed, key) is None
    assert check_signature(signed, key, [other.public_key, key]) is None
    assert check_signature(bare, None, [key]) == (
        "the head is not signed, and a signature is asked for"
    )
    assert check_signature(bare, key) == f"the head is not signed, but key {name} signs this log"
    assert check_signature(signed, None) == "the head is signed by a key no record names"
    assert check_signature(foreign, key) == f"the signature of the head is not that of key {name}"
    assert check_signature(signed, key, [other.public_key]) == (
        f"the head is signed by key {name}, which is not a trusted one"
    )
    report = verify(b"", signed)
    assert (report.first_bad, report.reason) == (1, "the head is signed by a key no record names")


# ---------------------------------------------------------------- values


class Kind(enum.Enum):
    A = "a"
    B = math.inf


@dataclasses.dataclass
class Pair:
    first: object
    second: object


class Dumped:
    def model_dump(self, mode: str) -> dict:
        return {"mode": mode, "x": math.nan}


def test_each_place_that_json_cannot_hold_is_marked_wherever_it_stands():
    value = {
        "e": Kind.B,
        Kind.A: [1, (2**53, [-math.inf])],
        "p": Pair(math.nan, PurePosixPath("/a/b")),
        "s": {2**60, "b"},
        "m": Dumped(),
        "~/": {"": math.nan},
        7: -(2**53),
    }
    found, marks = plain(value)
    assert found == {
        "e": None,
        "a": [1, [str(2**53), [None]]],
        "p": {"first": None, "second": "/a/b"},
        "s": ["b", str(2**60)],
        "m": {"mode": "json", "x": None},
        "~/": {"": None},
        "7": str(-(2**53)),
    }
    assert marks == {
        "/e": "inf",
        "/a/1/0": "integer",
        "/a/1/1/0": "-inf",
        "/p/first": "nan",
        "/s/1": "integer",
        "/m/x": "nan",
        "/~0~1/": "nan",
        "/7": "integer",
    }
    assert plain(math.nan) == (None, {"": "nan"})


def test_text_and_numbers_keep_their_plain_kind():
    class Text(str):
        pass

    class Whole(int):
        pass

    class Real(float):
        pass

    found, marks = plain([Text("x"), Whole(3), Real(2.5), None, False, "\udcff é"])
    assert [type(v) for v in found[:3]] == [str, int, float] and not marks
    assert found == ["x", 3, 2.5, None, False, "\\udcff é"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            {"a": [1, object()]},
            "The audit log cannot hold a object (at /a/1); allowed are mappings, sequences, "
            "arrays, numbers, text, dates, paths and data classes.",
        ),
        (b"x", "The audit log cannot hold a bytes (at the top); allowed are"),
        (Pair, "The audit log cannot hold a type (at the top); allowed are"),
        (
            {"a": {1.5: 2}},
            "The audit log cannot hold a key of type float (at /a); allowed are text and integers.",
        ),
        ({True: 2}, "The audit log cannot hold a key of type bool (at the top); allowed are"),
        ({1: 0, "1": 0}, "Two keys at the top are both written '1'."),
        ({"a": [{1: 0, "1": 0}]}, "Two keys at /a/0 are both written '1'."),
    ],
)
def test_what_the_log_cannot_hold_is_named_with_its_place_and_what_is_allowed(value, says):
    with pytest.raises(AuditError) as error:
        plain(value)
    assert str(error.value).startswith(says)


@pytest.mark.parametrize("value", [{"x": math.nan}, {"x": "\ud800"}, {"x": 2**60}])
def test_a_record_without_a_canonical_form_is_not_sealed(value):
    with pytest.raises(AuditError, match=r"^The record has no canonical form: .+"):
        seal(value)


def test_a_line_is_canonical_json_with_the_hash_over_the_rest():
    line, digest = seal({"b": 1, "a": "é"})
    assert line == f'{{"a":"é","b":1,"hash":"{digest}"}}\n'.encode()
    assert json.loads(line)["hash"] == digest and len(digest) == 64
