"""The audit trail: append-only, chained, fsynced record by record.

Files in `log_dir`:

- `audit.jsonl`: the record. One canonical JSON object a line, each with the hash of the one
  before it. This file is what `verify_audit` judges.
- `audit.head`: number and hash of the last record, replaced after each, so that a log that
  was cut short is found out; with a key, signed (Ed25519).
- `audit_events.csv`, `audit_events.parquet`: copies for people and for analysis.
- `audit.torn`: what a crash left of an unfinished record, if one did.

What this proves, and what a single host cannot prove, is written in `docs/audit.md`.
"""

import dataclasses
import datetime as dt
import hashlib
import io
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perfusio_jax._core import AuditError, ConfigError

from .audit_memory import AuditMemory
from .chain import FORMAT_VERSION, GENESIS, Head, plain, records, seal, verify
from .copies import COLUMNS, csv_copy, csv_rows, parquet_table
from .entries import JournalError
from .files import append_durably, replace_durably
from .keys import Signer, key_id
from .lock import FileLock
from .secrets import without_secrets
from .segments import BREAK, NOT_IN_JOURNAL, RECOVERED, SIGNED_BY
from .trail_files import CSV_NAME, HEAD_NAME, LOG_NAME, PARQUET_NAME, TORN_NAME, read_trail
from .vouching import NO_TRAIL, Known, Standing, Trail, standing, trail_of


class AuditLogger:
    """Append-only recorder of who did what, when, and on which state.

    A record is on the disk when `log` returns. Opening a folder that already holds a log
    verifies it and continues its chain.

    Args:
        log_dir: Folder for the audit files; made if it is not there.
        run_id: Identifier written into every record; a log belongs to one run.
        flush_every: How many records the CSV copy may lag behind; the log itself never does.
        clock: Source of the time stamps; UTC now by default.
        signer: Key that signs each head (see `keys.py`); a log once signed stays so.
        memory: The journal of the run, which knows how far the log has come. What it does not
            vouch for is named by the record that begins the next segment.

    Raises:
        ConfigError: For an empty `run_id` or a `flush_every` below one.
        AuditError: If the log that is there does not verify, belongs to another run, or was
            signed, or is so by the journal's word, and no key is given.
        RunLockedError: If another logger has this log open.

    Examples:
        >>> import tempfile
        >>> from perfusio_jax.twin import verify_audit
        >>> audit = AuditLogger(log_dir=tempfile.mkdtemp(), run_id="run001")
        >>> _ = audit.log("SETPOINT_CHANGE", {"perfusion_rate": 1.2}, day=3)
        >>> audit.close()
        >>> verify_audit(audit.path).ok
        True
    """

    COLUMNS = list(COLUMNS)  # noqa: RUF012

    def __init__(
        self,
        log_dir: Path | str,
        run_id: str,
        flush_every: int = 10,
        *,
        clock: Callable[[], dt.datetime] | None = None,
        signer: Signer | None = None,
        memory: AuditMemory | None = None,
    ) -> None:
        if not run_id:
            raise ConfigError("run_id is empty; every audit record names the run it belongs to.")
        if flush_every < 1:
            raise ConfigError(f"flush_every is {flush_every}; it must be at least 1.")
        self.log_dir = Path(log_dir)
        self.run_id = str(run_id)
        self.flush_every = flush_every
        self._signer = signer
        self._signs = False
        self._memory = memory
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._mutex = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._is_closed = False
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.log_dir / "audit.lock")
        self._lock.acquire()
        try:
            self._open()
        except (OSError, JournalError) as error:
            self._lock.release()
            raise AuditError(
                f"The audit log in {self.log_dir} cannot be opened: {error}"
            ) from error
        except BaseException:
            self._lock.release()
            raise

    @property
    def path(self) -> Path:
        """The log itself, `audit.jsonl`."""
        return self.log_dir / LOG_NAME

    @property
    def head(self) -> Head:
        """Number and hash of the last record: what an external anchor would keep."""
        return self._head

    def log(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        day: float = 0,
        user: str = "system",
        *,
        role: str | None = None,
        state_sha256: str | None = None,
        reason: str | None = None,
        old: Any = None,
        new: Any = None,
    ) -> str:
        """Append one record and bring it to the disk.

        Values that canonical JSON cannot hold are written as `null` (NaN, infinities) or as
        text (large integers), and the record's `marks` field names each place.

        Args:
            event_type: What happened, e.g. "SETPOINT_CHANGE", "MODEL_RETRAIN",
                "ALARM_RAISED", "DECISION_MADE".
            payload: Details of the event.
            day: Culture day [d]; a fraction between two whole ones.
            user: Who did it; "system" for automated events.
            role: As what they did it, e.g. "operator"; none for automated events.
            state_sha256: Hash of the state the event rests on, if there is one.
            reason: Why it was done.
            old: Value before the change, if the event is one.
            new: Value after it.

        Returns:
            The hash of the record.

        Raises:
            AuditError: If the logger is closed, or the record cannot be written; the log on
                the disk is then as it was before. If only the head beside it fails, the
                message says so, and no further record is taken until the head is written.
        """
        details: dict[str, Any] = {"payload": dict(payload)}
        optional = {
            "role": role,
            "state_sha256": state_sha256,
            "reason": reason,
            "old": old,
            "new": new,
        }
        details |= {name: value for name, value in optional.items() if value is not None}
        with self._mutex:
            if self._is_closed:
                raise AuditError("The audit log is closed; nothing more can be recorded in it.")
            return self._append(event_type, details, day=day, user=user)

    def flush(self) -> None:
        """Bring the CSV copy up to the log.

        Raises:
            AuditError: If the copy cannot be written; the log itself is not affected.
        """
        with self._mutex:
            self._flush_csv()

    def close(self) -> None:
        """Flush the CSV copy, write the Parquet copy and let go of the files.

        Raises:
            AuditError: If a copy cannot be written.
        """
        with self._mutex:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._flush_csv()
                self._write_parquet()
                self._remember(self._acknowledged)
            except JournalError as error:
                raise AuditError(f"The end of the log is not in the journal: {error}") from error
            finally:
                self._lock.release()

    def __enter__(self) -> "AuditLogger":
        """Use as a context manager; closes at the end."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def _open(self) -> None:
        log = read_trail(self.path)
        head = read_trail(self.log_dir / HEAD_NAME)
        known = None if self._memory is None else self._memory.recall_audit()
        self._refuse_without_key(None if known is None else known.public_key, "by the journal")
        if not log and head is None:
            self._head = Head(self.run_id, 0, GENESIS, 0)
            head = self._head.to_bytes()
            stands = self._standing(NO_TRAIL, head, known)
            self._acknowledged = stands.evidence
            self._write_head()
            replace_durably(self.path, b"")
            self._rebuild_csv(b"")
            self._begin_segment(None, stands, known)
            self._remember(self._acknowledged)
            return
        log = log or b""
        report = verify(log, head)
        if head is None or not report.is_intact:
            raise AuditError(f"{self.path} cannot be continued: {report}")
        whole, newline, torn = log.rpartition(b"\n")
        whole += newline
        sealed = Head.from_bytes(head)
        if sealed.run_id != self.run_id:
            raise AuditError(
                f"{self.path} belongs to run {sealed.run_id!r}, not {self.run_id!r}; give each "
                "run a folder of its own."
            )
        trail = trail_of(whole)
        named = trail.signers[-1]
        self._refuse_without_key(named)
        self._head = Head(self.run_id, report.n_records, report.head_hash, report.n_records)
        if torn:
            stamp = f"# {self._now()} {len(torn)} bytes after record {report.n_records}\n"
            append_durably(self.log_dir / TORN_NAME, stamp.encode() + torn + b"\n")
            replace_durably(self.path, whole)
        stands = self._standing(trail, head, known)
        self._acknowledged = stands.evidence
        is_behind = sealed.count != report.n_records
        self._signs = self._signer is not None and named == self._signer.public_key
        is_vouched = not stands.trouble and not stands.n_unvouched
        if is_behind and is_vouched:
            if Head.from_bytes(self._acknowledged).count < report.n_records:
                self._acknowledged = self._head.to_bytes()  # not signed, and nobody knows better
            replace_durably(self.log_dir / HEAD_NAME, self._acknowledged)
        is_copy_foreign = self._rebuild_csv(whole)
        details = {"head_count": sealed.count, "records": report.n_records}
        if is_vouched or stands.trouble:
            self._begin_segment(named, stands, known)
        else:
            details["unvouched"] = stands.n_unvouched
            self._append(RECOVERED, self._under_key({"payload": details}), day=0, user="system")
        if self._memory is not None and known is None and report.n_records:
            found = {"records": report.n_records}
            self._append(NOT_IN_JOURNAL, {"payload": found}, day=0, user="system")
        if torn:
            digest = hashlib.sha256(torn).hexdigest()
            lost = {"n_bytes": len(torn), "sha256": digest, "moved_to": TORN_NAME}
            self._append("AUDIT_TORN_TAIL", {"payload": lost}, day=0, user="system")
        if is_behind and is_vouched:
            self._append(RECOVERED, {"payload": details}, day=0, user="system")
        if is_copy_foreign:
            copy = {"file": CSV_NAME}
            self._append("AUDIT_COPY_REBUILT", {"payload": copy}, day=0, user="system")
        self._remember(self._acknowledged)

    def _refuse_without_key(self, named: str | None, by_whom: str = "") -> None:
        if named is not None and self._signer is None:
            says = f" {by_whom}" if by_whom else ""
            raise AuditError(
                f"{self.path} is{says} signed by key {key_id(named)}; it is continued with a "
                "signing key only."
            )

    def _standing(self, trail: Trail, head: bytes, known: Known | None) -> Standing:
        """How far the log is vouched for; one without records is none where the journal has some.

        Also where a crash came between making the files of a log begun anew and its first record.
        """
        stands = standing(trail, self.run_id, head, known)
        is_empty = known is None and not trail.n_records
        if is_empty and self._memory is not None and self._memory.has_history():
            why = "the journal holds samples or decisions of this run, and there is no log"
            return dataclasses.replace(stands, trouble=why)
        return stands

    def _begin_segment(self, named: str | None, stands: Standing, known: Known | None) -> None:
        """Name what nobody vouches for, or whose key signs from here on if it is another."""
        if stands.trouble:
            details: dict[str, Any] = {
                "found": stands.trouble,
                "records": self._head.count,
                "vouched": stands.n_vouched,
                "unvouched": stands.n_unvouched,
                "missing": max(stands.n_known - self._head.count, 0),
            }
            if known is not None:
                details["journal"] = {
                    "acknowledged": known.acknowledged.decode(),
                    "begun": known.begun.decode(),
                    "public_key": known.public_key,
                }
            about = {"payload": details, "reason": "what stands here is not what was written"}
            # What the journal knew stays in it until this record is on the disk.
            self._acknowledged = stands.evidence if known is None else known.acknowledged
            record = self._under_key(about)
            self._append(BREAK, record, day=0, user="system", is_begun=known is not None)
        elif self._signer is not None and not self._signs:
            about = {
                "payload": {"n_before": self._head.count},
                **({} if named is None else {"old": key_id(named)}),
                "new": self._signer.key_id,
                "reason": "a key signs the heads from here on",
            }
            self._append(SIGNED_BY, self._under_key(about), day=0, user="system")

    def _under_key(self, about: dict[str, Any]) -> dict[str, Any]:
        """A record's details with the key that signs from it on; no head before it is signed."""
        self._is_head_stale = False
        if self._signer is None:
            return about
        self._signs = True
        key = {"public_key": self._signer.public_key, "key_id": self._signer.key_id}
        return {**about, "payload": {**about["payload"], **key}}

    def _append(
        self,
        event_type: str,
        details: dict[str, Any],
        *,
        day: float,
        user: str,
        is_begun: bool = True,
    ) -> str:
        if self._is_head_stale:
            self._write_head()
        fields, marks = plain(
            {
                "version": FORMAT_VERSION,
                "seq": self._head.seq + 1,
                "timestamp": self._now(),
                "run_id": self.run_id,
                "event_type": event_type,
                "day": day,
                "user": user,
                **details,
                "prev_hash": self._head.hash,
            }
        )
        fields |= {name: without_secrets(fields[name]) for name in details}
        if marks:
            fields["marks"] = marks
        line, digest = seal(fields)
        head = Head(self.run_id, fields["seq"], digest, fields["seq"])
        content = head.to_bytes(self._signer)  # this record or one before it names the key
        try:
            if is_begun:
                self._remember(content)
            append_durably(self.path, line)
        except (OSError, JournalError) as error:
            raise AuditError(f"The record was not written to {self.path}: {error}") from error
        self._head, self._acknowledged = head, content
        self._is_head_stale = True
        self._rows.append(fields)
        self._write_head()
        if len(self._rows) >= self.flush_every:
            self._flush_csv()
        return digest

    def _remember(self, begun: bytes) -> None:
        """Have the journal know the record that is about to be written, or that none is."""
        if self._memory is not None:
            key = None if self._signer is None else self._signer.public_key
            self._memory.remember_audit(Known(self._acknowledged, begun, key))

    def _write_head(self) -> None:
        try:
            content = self._head.to_bytes(self._signer if self._signs else None)
            replace_durably(self.log_dir / HEAD_NAME, content)
        except OSError as error:
            raise AuditError(
                f"Record {self._head.seq} is written, but the head beside it is not: {error}"
            ) from error
        self._is_head_stale = False

    def _now(self) -> str:
        now = self._clock()
        if now.tzinfo is None:
            raise AuditError("The clock of the audit log gave a time without a zone.")
        return now.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def _flush_csv(self) -> None:
        if not self._rows:
            return
        try:
            append_durably(self.log_dir / CSV_NAME, csv_rows(self._rows))
        except OSError as error:
            raise AuditError(f"The CSV copy of the audit log was not written: {error}") from error
        self._rows.clear()

    def _rebuild_csv(self, log: bytes) -> bool:
        """Make the CSV copy agree with the log; say whether it held what the log does not."""
        wanted = csv_copy(list(records(log)))
        path = self.log_dir / CSV_NAME
        found = read_trail(path) or b""
        if found != wanted:
            replace_durably(path, wanted)
        return not wanted.startswith(found)

    def _write_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        try:
            pq.write_table(parquet_table(list(records(read_trail(self.path) or b""))), sink)
            replace_durably(self.log_dir / PARQUET_NAME, sink.getvalue())
        except (OSError, pa.ArrowException) as error:
            raise AuditError(f"The Parquet copy was not written: {error}") from error

    _is_head_stale = False


def sha256_of(*parts: bytes | os.PathLike[str]) -> str:
    """SHA-256 over bytes and files, in order; the `state_sha256` of a record.

    Args:
        *parts: Bytes, or paths whose contents are taken.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else Path(part).read_bytes()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()
