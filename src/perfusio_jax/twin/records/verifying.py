"""Whether the files of an audit trail, and the journal beside them, say the same."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from .audit_memory import recall
from .chain import AuditReport, Head, records, verify
from .copies import copies_that_differ
from .entries import JournalError
from .store import JOURNAL_NAME
from .trail_files import HEAD_NAME, LOG_NAME, read_trail
from .vouching import NO_TRAIL, Known, standing, trail_of

MOST_LOOKS = 5
"""How often a log that is being written is looked at until its journal says the same."""


NO_JOURNAL = (
    "there is no journal beside the log: that all its hashes were computed anew would not be found"
)
"""What is noted of a twin's log without its journal; a trusted key is asked instead."""


def verify_audit(path: Path | str, *, trusted: Collection[str] | None = None) -> AuditReport:
    """Verify an audit log on the disk.

    Any change of any byte of any record is found, and so are records that were deleted,
    inserted, swapped or cut off at the end. Where the journal of the run lies beside the log, the
    two must agree, and a log all of whose hashes were computed anew is found out too. Copies that
    say something else than the log are noted; they are no evidence either way.

    Args:
        path: The folder of the log, or `audit.jsonl` itself; the head lies beside it.
        trusted: Public keys [hexadecimal] of which one must have signed the head.

    Returns:
        The report, which names the first bad record.

    Raises:
        AuditError: If the files are there but cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / LOG_NAME
    log, head, known, notes = _snapshot(path)
    content = log or b""
    report = verify(content, head, trusted=trusted)
    if log is None and head is None:
        reason = f"there is no audit log at {path}"
        if known is not None:
            reason += "; " + standing(NO_TRAIL, "", b"", known).trouble
        return AuditReport(False, 0, 1, 1, reason)
    if head is None or not report.is_intact:
        return report
    stands = standing(trail_of(content), Head.from_bytes(head).run_id, head, known)
    if stands.trouble and report.ok:
        bad = stands.n_vouched + 1
        report = dataclasses.replace(
            report, ok=False, first_bad=bad, line=bad, reason=stands.trouble
        )
    elif stands.trouble:
        notes.append(stands.trouble)
    is_alone = trusted is None and not (path.parent / JOURNAL_NAME).exists()
    if is_alone and any(r["event_type"] == "SESSION_STARTED" for r in records(content)):
        notes.append(NO_JOURNAL)
    notes += copies_that_differ(path.parent, content)
    return dataclasses.replace(report, warnings=(*report.warnings, *notes))


def _snapshot(path: Path) -> tuple[bytes | None, bytes | None, Known | None, list[str]]:
    """Log, head and what the journal knows of them, of one moment; and notes about the journal.

    The head is read before the log: a record written in between then stands beyond it, which is
    what a crash leaves too, whereas the other order would look like a cut.
    """
    trouble = "the log was not compared with the journal beside it"
    head = log = None
    for _ in range(MOST_LOOKS):
        try:
            known = recall(path.parent)
            head, log = read_trail(path.with_name(HEAD_NAME)), read_trail(path)
            if recall(path.parent) == known:
                is_new_to_it = known is None and log and (path.parent / JOURNAL_NAME).exists()
                notes = ["the journal beside the log knows nothing of it"] if is_new_to_it else []
                return log, head, known, notes
        except JournalError as error:
            head, log = read_trail(path.with_name(HEAD_NAME)), read_trail(path)
            return log, head, None, [f"{trouble}: {error}"]
    return log, head, None, [f"{trouble}, which is being written"]
