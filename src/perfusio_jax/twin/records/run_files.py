"""The files of one run folder, open: lock, audit trail, journal; and the lock of the device."""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfusio_jax._core import RunLockedError

from .audit import AuditLogger
from .keys import Signer
from .letters import INBOX
from .lock import LOCK_NAME, FileLock, RunLock
from .records import FORECASTS, RECOMMENDATIONS
from .records_file import RunRecords
from .runtime import Runtime
from .store import JOURNAL_NAME as JOURNAL_NAME
from .trail_files import CSV_NAME as AUDIT_CSV
from .trail_files import HEAD_NAME as AUDIT_HEAD
from .trail_files import LOG_NAME as AUDIT_LOG
from .trail_files import PARQUET_NAME as AUDIT_PARQUET
from .trail_files import TORN_NAME as AUDIT_TORN

FLEET_NAME = "fleet.toml"
"""Name of the file that names the runs of a fleet, beside their folders."""

RECORD_NAMES = frozenset(
    {
        *(AUDIT_LOG, AUDIT_HEAD, AUDIT_TORN, AUDIT_CSV, AUDIT_PARQUET, "audit.lock"),
        *(JOURNAL_NAME + end for end in ("", "-wal", "-shm", "-journal")),
        *(RECOMMENDATIONS, FORECASTS, LOCK_NAME, INBOX),
    }
)
"""Names of the files of a run folder only the twin may write to."""


def holds_records(folder: Path) -> bool:
    """Whether a folder has a record of a run in it, of whatever is left of one."""
    return any((folder / name).exists() for name in RECORD_NAMES)


@dataclass(frozen=True)
class RunFiles:
    """Everything of a run folder a loop writes to."""

    folder: Path
    lock: RunLock
    writer_lock: FileLock | None
    audit: AuditLogger
    records: RunRecords

    def close(self) -> None:
        """Flush and let go; closing twice does nothing."""
        with contextlib.ExitStack() as last:
            last.callback(self.lock.release)
            if self.writer_lock is not None:
                last.callback(self.writer_lock.release)
            last.callback(self.records.close)
            last.callback(self.audit.close)


def open_run(
    folder: Path,
    *,
    run_id: str,
    runtime: Runtime,
    connector: Any = None,
    reactor_id: str = "R00",
    may_write: bool = False,
    signer: Signer | None = None,
    journal_timeout_s: float = 5.0,
) -> RunFiles:
    """Take a run folder and, to write, the device.

    Args:
        folder: Made if it is not there.
        run_id: Name of the run in every record.
        runtime: For time stamps.
        connector: Names the device, see `writer_lock`.
        reactor_id: Vessel.
        may_write: Whether set-points may be written.
        signer: Key of the audit trail.
        journal_timeout_s: How long [s] another process may hold the journal.

    Raises:
        RunLockedError: If a live process uses the folder or writes to the device.
        AuditError: If the audit trail does not verify.
        JournalError: If the journal cannot be used.
    """
    with contextlib.ExitStack() as undo:
        lock = RunLock(folder, clock=runtime.now)
        lock.acquire()
        undo.callback(lock.release)
        (folder / INBOX).mkdir(exist_ok=True)
        device = writer_lock(connector, reactor_id) if may_write else None
        if device is not None:
            try:
                device.acquire()
            except RunLockedError as error:
                raise RunLockedError(
                    f"the set-points of {reactor_id} are in use by another process on this host, "
                    "with a run folder of its own. Stop that one first, or run this one with "
                    f"--advise (lock: {device.path})."
                ) from error
            undo.callback(device.release)
        records = RunRecords(folder / JOURNAL_NAME, clock=runtime.now, timeout_s=journal_timeout_s)
        undo.callback(records.close)
        audit = AuditLogger(folder, run_id, clock=runtime.now, signer=signer, memory=records)
        undo.pop_all()
    return RunFiles(folder, lock, device, audit, records)


def writer_lock(connector: Any, reactor_id: str) -> FileLock | None:
    """The lock of one reactor on this host, whatever folder a twin keeps its records in.

    Args:
        connector: Says in `writer_key` what device it writes to, or has a `setpoint_log` or an
            `url`.
        reactor_id: Vessel.

    Returns:
        The lock, not taken yet; `None` if the connector has no name others could share.
    """
    names = ("writer_key", "setpoint_log", "url")
    place = next((v for n in names if (v := getattr(connector, n, None))), None)
    if place is None:
        return None
    if isinstance(place, Path):
        place = place.resolve()
    name = hashlib.sha256(f"{place}\n{reactor_id}".encode()).hexdigest()[:32]
    owner = os.getuid() if hasattr(os, "getuid") else "all"
    folder = Path(tempfile.gettempdir()) / f"perfusio-jax-{owner}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return FileLock(folder / f"{name}.lock")
