"""Audit records as bytes: canonical form, the hash chain and its verification.

Pure: values in, bytes or a verdict out. The record format is fixed from version 1 on and
described in `docs/audit.md`.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

import rfc8785

from perfusio_jax._core import AuditError

from .keys import Signer, is_signed_by, key_id
from .segments import BREAK, RECOVERED, Segments

FORMAT_VERSION: Final = 1
"""Version of the record and head format; written into both."""

GENESIS: Final = "0" * 64
"""`prev_hash` of the first record."""

_LARGEST_EXACT_INT: Final = 2**53 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends: what must still be there when it is looked at again."""

    run_id: str
    """Run the log belongs to."""
    seq: int
    """Number of the last record; 0 before the first."""
    hash: str
    """Hash of the last record; `GENESIS` before the first."""
    count: int
    """How many records the log holds."""

    def to_bytes(self, signer: Signer | None = None) -> bytes:
        """Canonical JSON with a format version and a closing newline.

        Args:
            signer: Key whose signature follows as a second line, `signature` in hexadecimal.
        """
        fields = {"version": FORMAT_VERSION, **dataclasses.asdict(self)}
        line = rfc8785.dumps(fields) + b"\n"
        return line if signer is None else line + signer.sign(line).encode() + b"\n"

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Head":
        """Read a head, exactly as it was written; whether its signature fits is not judged.

        Raises:
            AuditError: If a single byte of its line is not as `to_bytes` writes it, or what
                follows has not the form of a signature.
        """
        raw, _ = split_head(raw)
        try:
            fields = json.loads(raw)
            head = cls(*(fields[item.name] for item in dataclasses.fields(cls)))
            is_exact = head.to_bytes() == raw
        except (ValueError, TypeError, KeyError, RecursionError, rfc8785.CanonicalizationError):
            raise AuditError("The head of the audit log is not readable.") from None
        types = (str, int, str, int)
        if not is_exact or tuple(type(v) for v in dataclasses.astuple(head)) != types:
            raise AuditError("The head of the audit log is not in its canonical form.")
        return head


def split_head(raw: bytes) -> tuple[bytes, str | None]:
    """A head's own line, and its signature if it is signed.

    Args:
        raw: Bytes of `audit.head`.

    Raises:
        AuditError: If what follows the line has not the form of a signature.
    """
    line, newline, rest = raw.partition(b"\n")
    if not rest:
        return line + newline, None
    if not re.fullmatch(rb"[0-9a-f]{128}\n", rest):
        raise AuditError("The signature under the head of the audit log is not readable.")
    return line + newline, rest[:-1].decode()


@dataclasses.dataclass(frozen=True, slots=True)
class AuditReport:
    """What verification found."""

    ok: bool
    """Whether every record is as it was written and none is missing, as far as files can show."""
    n_records: int
    """Records that verified, counted from the first."""
    first_bad: int | None = None
    """Number (`seq`) of the first record that is wrong or missing; `None` if all is well."""
    line: int | None = None
    """Line of the file where that record stands or should stand, from 1."""
    reason: str = ""
    """What is wrong with it, in one sentence."""
    warnings: tuple[str, ...] = ()
    """What is odd but no sign of tampering: a torn tail, a clock that went back."""
    head_hash: str = GENESIS
    """Hash of the last record that verified."""
    key_id: str | None = None
    """Short name of the key that signed the head; `None` if it is not signed."""
    is_intact: bool = False
    """Whether chain, head and signature hold. An intact log may still say of itself that what
    stands before some record is not what was written; then it is not `ok`, and is continued."""
    n_before_key: int | None = None
    """Records before the first signature (of a trusted key, if some were named) that counts;
    `None` without one."""
    n_unvouched: int = 0
    """Records the log itself says nobody vouches for."""

    def __str__(self) -> str:
        """One paragraph for a person."""
        notes = "".join(f"\nnote: {warning}" for warning in self.warnings)
        by = "not signed" if self.key_id is None else f"signed by key {self.key_id}"
        stands = f"{self.n_records} records, head {self.head_hash}, {by}"
        if self.ok:
            return f"audit log verified: {stands}{notes}"
        where = "" if self.first_bad is None else f"record {self.first_bad} (line {self.line}): "
        chain = f"\nnote: the chain as it stands now holds: {stands}" if self.is_intact else ""
        return f"audit log NOT verified: {where}{self.reason}{chain}{notes}"


@dataclasses.dataclass(frozen=True, slots=True)
class AuditCopy:
    """How a copy of an audit trail stands beside the log."""

    n_log: int
    """Records of the log."""
    n_copied: int
    """Those the copy holds as they are."""
    first_missing: int | None = None
    """Number of the first record that is not there."""
    first_differing: int | None = None
    """Number of the first record that is there with other content."""
    n_foreign: int = 0
    """Rows of this run that the log does not have, with or without a number."""

    @property
    def ok(self) -> bool:
        """Whether the copy says nothing but what the log says; it may lag behind."""
        return self.first_differing is None and not self.n_foreign

    def __str__(self) -> str:
        """A sentence for a person."""
        text = f"{self.n_copied} of {self.n_log} records are in the database"
        if self.first_missing is not None:
            text += f"; record {self.first_missing} is the first that is not"
        if self.first_differing is not None:
            text += f"; record {self.first_differing} says something else there"
        if self.n_foreign:
            text += f"; {self.n_foreign} rows there are not in the log"
        return text


def seal(record: Mapping[str, Any]) -> tuple[bytes, str]:
    """Close a record with its hash.

    Args:
        record: All fields but `hash`, already plain (see `plain`).

    Returns:
        The line to append, newline included, and the record's hash: SHA-256 over the
        canonical form of the record without its `hash` field.

    Raises:
        AuditError: If the record cannot be put into canonical form.
    """
    try:
        members = _members(record)
        digest = hashlib.sha256(_joined(members)).hexdigest()
        return _joined({**members, **_members({"hash": digest})}) + b"\n", digest
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise AuditError(f"The record has no canonical form: {error}") from error


def plain(value: Any) -> tuple[Any, dict[str, str]]:
    """Reduce a payload to what canonical JSON can hold, without losing what it cannot.

    Numbers that are not finite become `null`, and integers beyond 2**53 - 1 become decimal
    strings; each such place is named in the second result. Arrays become lists, time
    stamps ISO 8601, paths and enumeration members their plain value.

    Args:
        value: Any nesting of mappings, sequences, arrays, numbers, text, dates, paths,
            enumerations, data classes and pydantic models.

    Returns:
        The plain value, and a table from JSON pointer to "nan", "inf", "-inf" or "integer".

    Raises:
        AuditError: For a value of any other type, naming the place and the type.
    """
    marks: dict[str, str] = {}
    return _plain(value, "", marks), marks


def verify(
    log: bytes, head: bytes | None, *, trusted: Collection[str] | None = None
) -> AuditReport:
    """Verify a whole log against its head.

    A log whose records name a signing key must have a head signed by the last one named.

    One complete record beyond the head, and bytes after the last newline beyond the head,
    are what a crash leaves between two steps of writing; both are warned about, not called
    tampering. Anything else that differs is; so is a record of the log itself which says that
    what stands before it is not what was written.

    Args:
        log: Bytes of `audit.jsonl`.
        head: Bytes of `audit.head`; `None` if there is no such file.
        trusted: Public keys [hexadecimal] of which one must have signed the head; `None`: the
            log's own word about its key is taken.

    Returns:
        The report; `first_bad` names the first record that is wrong or missing.
    """
    lines = log.split(b"\n")
    torn = lines.pop()
    warnings: list[str] = []
    previous, last_time, run_id = GENESIS, "", None
    hashes = [GENESIS]
    segments = Segments()
    for seq, line in enumerate(lines, start=1):
        record, reason = _open(line, seq, previous)
        if record is not None and run_id is not None and record["run_id"] != run_id:
            record, reason = None, "it belongs to another run"
        if record is None:
            return AuditReport(False, seq - 1, seq, seq, reason, tuple(warnings), previous)
        run_id, previous = record["run_id"], record["hash"]
        hashes.append(previous)
        segments.add(record)
        if record["timestamp"] < last_time:
            warnings.append(f"the clock went back before record {seq}")
        last_time = record["timestamp"]
    found = len(lines)

    def bad(seq: int | None, reason: str) -> AuditReport:
        return AuditReport(False, found, seq, seq, reason, tuple(warnings), previous)

    if head is None:
        if not log:
            return bad(1, "there is no audit log here")
        return bad(found + 1, "the head (audit.head) is missing: where the log ended is unknown")
    try:
        mark = Head.from_bytes(head)
    except AuditError as error:
        return bad(found + 1, str(error))
    if mark.seq != mark.count or mark.count < 0:
        return bad(found + 1, "the head contradicts itself")
    if found < mark.count:
        return bad(found + 1, f"it is missing: the log holds {found} whole records of {mark.count}")
    if hashes[mark.count] != mark.hash or (run_id is not None and run_id != mark.run_id):
        return bad(max(mark.count, 1), "the head was written for another log")
    trouble = check_signature(head, segments.signers[mark.count], trusted)
    if trouble:
        return bad(found + 1, trouble)
    beyond = found - mark.count
    # What a program says of records beyond the head may itself still be beyond it.
    if not all(kind in (BREAK, RECOVERED) for kind in segments.kinds[mark.count + 2 :]):
        return bad(mark.count + 1, f"{beyond} records stand beyond the head")
    if beyond:
        warnings.append(f"record {found} is not under the head yet (being written, or a crash)")
    if torn:
        warnings.append(f"{len(torn)} bytes of an unfinished record follow record {found}")
    wrong, reason = None, ""
    if segments.breaks:
        first, *others = sorted(segments.breaks)
        wrong, _ = segments.unvouched_before(first) or (first, first)
        reason = segments.broken(first)
        warnings += [segments.broken(seq) for seq in others]
    signer = segments.signers[mark.count]
    return AuditReport(
        not segments.breaks,
        found,
        first_bad=wrong,
        line=wrong,
        reason=reason,
        warnings=(*warnings, *segments.notes(trusted)),
        head_hash=previous,
        key_id=None if signer is None else key_id(signer),
        is_intact=True,
        n_before_key=segments.before_key(trusted),
        n_unvouched=len(segments.unvouched),
    )


def check_signature(
    head: bytes, signer: str | None, trusted: Collection[str] | None = None
) -> str | None:
    """What is wrong with a head's signature.

    Args:
        head: Its bytes.
        signer: Public key that has to have signed it; `None`: it must not be signed.
        trusted: Keys of which `signer` must be one, if given.

    Returns:
        A sentence, or `None` if all is well.
    """
    line, signature = split_head(head)
    if signature is None:
        if signer is not None:
            return f"the head is not signed, but key {key_id(signer)} signs this log"
        return None if trusted is None else "the head is not signed, and a signature is asked for"
    if signer is None:
        return "the head is signed by a key no record names"
    if not is_signed_by(signer, line, signature):
        return f"the signature of the head is not that of key {key_id(signer)}"
    if trusted is not None and signer not in trusted:
        return f"the head is signed by key {key_id(signer)}, which is not a trusted one"
    return None


def records(log: bytes) -> Iterator[dict[str, Any]]:
    """Records of a log that has been verified, in order; a torn tail is left out."""
    for line in log.split(b"\n")[:-1]:
        yield _parse(line)


def _parse(line: bytes) -> Any:
    """JSON as canonical JSON means it: every number a double, also one without a point."""
    return json.loads(line, parse_int=_number)


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if abs(value) <= _LARGEST_EXACT_INT else value


def _members(record: Mapping[str, Any]) -> dict[str, bytes]:
    """Name and value of each field in canonical form: a record is hashed and written from them."""
    return {name: rfc8785.dumps({name: value})[1:-1] for name, value in record.items()}


def _joined(members: Mapping[str, bytes]) -> bytes:
    """The canonical form of a record, whose names are in the order of UTF-16."""
    ordered = sorted(members, key=lambda name: name.encode("utf-16be"))
    return b"{" + b",".join([members[name] for name in ordered]) + b"}"


def _open(line: bytes, seq: int, previous: str) -> tuple[dict[str, Any] | None, str]:
    """One line as a record, or `None` and the reason why it is none."""
    try:
        record = _parse(line)
        members = _members(record) if isinstance(record, dict) else {"": rfc8785.dumps(record)}
        canonical = _joined(members)
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        return None, "it is not a JSON record"
    if canonical != line or not isinstance(record, dict):
        return None, "it is not in canonical form"
    needed = ("version", "seq", "timestamp", "run_id", "prev_hash", "hash")
    if any(name not in record for name in needed):
        return None, "it lacks fields every record has"
    if record["version"] != FORMAT_VERSION:
        return None, f"its format version is {record['version']!r}, not {FORMAT_VERSION}"
    del members["hash"]
    if hashlib.sha256(_joined(members)).hexdigest() != record["hash"]:
        return None, "its content does not match its hash"
    if record["seq"] != seq:
        return None, f"its number is {record['seq']!r}, not {seq}"
    if record["prev_hash"] != previous:
        return None, "it is not chained to the record before it"
    if not isinstance(record["timestamp"], str) or not isinstance(record["run_id"], str):
        return None, "its time stamp or run id is not text"
    return record, ""


def _plain(value: Any, at: str, marks: dict[str, str]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value, at, marks)
    if isinstance(value, (str, PurePath)):
        return _text(value)
    if isinstance(value, int):
        if abs(value) > _LARGEST_EXACT_INT:
            marks[at] = "integer"
            return str(value)
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        marks[at] = repr(float(value))
        return None
    if isinstance(value, (dt.datetime, dt.date)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return _plain_mapping(value, at, marks)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{at}/{i}", marks) for i, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [_plain(item, f"{at}/{i}", marks) for i, item in enumerate(sorted(value, key=repr))]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), at, marks)
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"), at, marks)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return _plain({name: getattr(value, name) for name in names}, at, marks)
    raise AuditError(
        f"The audit log cannot hold a {type(value).__name__} (at {at or 'the top'}); allowed are "
        "mappings, sequences, arrays, numbers, text, dates, paths and data classes."
    )


def _text(value: str | int | PurePath) -> str:
    """Text that UTF-8 can hold: half a pair of surrogates is written as its escape."""
    return str(value).encode(errors="backslashreplace").decode()


def _plain_mapping(value: Mapping[Any, Any], at: str, marks: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(key, enum.Enum):
            key = key.value
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise AuditError(
                f"The audit log cannot hold a key of type {type(key).__name__} (at "
                f"{at or 'the top'}); allowed are text and integers."
            )
        name = _text(key)
        if name in result:
            raise AuditError(f"Two keys at {at or 'the top'} are both written {name!r}.")
        pointer = name.replace("~", "~0").replace("/", "~1")
        result[name] = _plain(item, f"{at}/{pointer}", marks)
    return result
