"""A run in a page: what happened, counted from its journal and its audit trail."""

from collections import Counter
from pathlib import Path
from typing import Any

from perfusio_jax._core.limits import RECORD_BYTES, read_file

from ..records.chain import records as records_of
from ..records.trail_files import LOG_NAME
from ..records.verifying import verify_audit
from .commands import opened, reactors, sampled

TROUBLES = {
    "SAMPLE_MISSED": "samples that did not come",
    "DECISION_FAILED": "decisions that failed",
    "MODEL_KEPT": "model updates refused",
    "READ_BACK_UNAVAILABLE": "times nothing could be read back",
    "WRITE_UNCONFIRMED": "writes without an answer",
    "WRITE_SETTLED": "writes settled by reading back",
    "WRITE_GIVEN_UP": "days the device took nothing",
    "OPERATOR_OVERRIDE": "changes by an operator's hand",
    "CLOCK_DOUBTED": "times the clocks disagreed",
    "SESSION_DISARMED": "times the session was disarmed",
    "ALARM_NOT_DELIVERED": "alarms that reached nobody",
    "ALARM_WITHOUT_FIGURE": "alarms mailed without a figure",
    "AUDIT_TORN_TAIL": "torn records set aside",
}
"""Events that are counted, and what to call them."""


def summarise(folder: Path) -> str:
    """Markdown about one run folder.

    Args:
        folder: Run folder.

    Returns:
        A section with tables of days, outcomes, troubles and alarms.
    """
    audit = verify_audit(folder)
    log = read_file(folder / LOG_NAME, most=RECORD_BYTES) if audit.is_intact else b""
    events = list(records_of(log))
    lines = [f"# Run {folder.name}", "", f"Audit: {audit}", ""]
    lines += _sessions(events)
    with opened(folder) as journal:
        for name in reactors(journal):
            cycles = Counter(journal.cycles(name).values())
            what = sampled(journal, name).words()
            lines += [f"## Reactor {name}", "", f"| {what} ended as | count |", "| --- | --- |"]
            lines += [f"| {outcome} | {n} |" for outcome, n in sorted(cycles.items())]
            samples = journal.samples(name)
            corrected = sum(s.revision > 1 for s in samples)
            outcomes = Counter(i.outcome or "unknown" for i in journal.intents(name))
            sent = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
            lines += [
                "",
                f"{len(samples)} samples ({corrected} corrected); writes: {sent or 'none'}.",
                "",
            ]
            for alarm in journal.standing_alarms(name):
                lines.append(f"- alarm {alarm.id} stands since {alarm.raised_at}: {alarm.message}")
    counts = Counter(e["event_type"] for e in events)
    met = [(text, counts[kind]) for kind, text in TROUBLES.items() if counts[kind]]
    if met:
        lines += ["", "| trouble | times |", "| --- | --- |"]
        lines += [f"| {text} | {n} |" for text, n in met]
    return "\n".join(lines) + "\n"


def _sessions(events: list[dict[str, Any]]) -> list[str]:
    starts = [e for e in events if e["event_type"] == "SESSION_STARTED"]
    if not starts:
        return []
    first, last = events[0]["timestamp"], events[-1]["timestamp"]
    who = ", ".join(sorted({str(e["user"]) for e in starts}))
    return [f"{len(starts)} sessions by {who}, from {first} to {last}.", ""]
