"""What the records of a run come to, in short; without JAX and without figures."""

from collections import Counter
from collections.abc import Sequence

from perfusio_jax._core.text import counted
from perfusio_jax.viz import Card, Table

from .happenings import TROUBLES
from .run_record import RunRecord
from .telling import stamp


def run_card(record: RunRecord) -> Card:
    """What the records of a run come to.

    Args:
        record: One reactor of a run folder.
    """
    warnings: list[str] = []
    if record.is_running:
        warnings.append("The run is going on; this report is not its last.")
    if not record.audit.ok:
        warnings.append(f"The audit trail does NOT verify: {record.audit.reason}.")
    warnings += [f"Left out: {note}" for note in record.notes]
    culture = "CHO perfusion" if record.process is None else record.process.name
    starts = [e for e in record.events if e["event_type"] == "SESSION_STARTED"]
    people = sorted({str(e["user"]) for e in starts})
    accounts = sorted({str(e["payload"].get("account") or "") for e in starts} - {""})
    may_write = [bool(e["payload"].get("allow_write")) for e in starts]
    run = record.samples
    n_samples = 0 if run is None else len(run.times_h)
    span = "" if run is None else f", {float(run.times_h[0]):g} to {float(run.times_h[-1]):g} h"
    facts = [
        f"Culture: {culture}.",
        f"{counted(n_samples, 'sample')}{span}, {record.n_corrected} of them corrected; "
        f"{counted(record.n_left_out, 'reading')} not believed and left out.",
        f"{counted(len(starts), 'session')}, started as {_listed(people)} from the account "
        f"{_listed(accounts)}; set-points could be written in {sum(may_write)} of them.",
    ]
    if record.events:
        first, last = (stamp(record.events[k]["timestamp"]) for k in (0, -1))
        facts.append(f"On record from {first} to {last} UTC; audit trail: {record.audit}.")
    sent = Counter(intent.outcome or "of unknown outcome" for intent in record.intents)
    told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(sent.items())) or "none"
    facts.append(f"Writes: {told}.")
    standing = [a for a in record.alarms if a.cleared_at is None]
    facts.append(f"{counted(len(record.alarms), 'alarm')}, {len(standing)} of which stand.")
    facts += [f"Alarm {a.id} stands since {stamp(a.raised_at)}: {a.message}" for a in standing]
    outcomes = Counter(record.cycles.values())
    rows = tuple((outcome, str(n)) for outcome, n in sorted(outcomes.items()))
    tables = [Table("", (f"{record.cycles_are} ended as", "count"), rows, (1,))] if rows else []
    counts = Counter(str(e["event_type"]) for e in record.events)
    met = tuple((text, str(counts[kind])) for kind, text in TROUBLES.items() if counts[kind])
    tables += [Table("", ("trouble", "times"), met, (1,))] if met else []
    title = f"Run {record.run_id}, reactor {record.reactor_id}"
    return Card("report", title, tuple(facts), tuple(warnings), tuple(tables))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"
