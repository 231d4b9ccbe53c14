"""One reactor as the page shows it: what stands, what was decided and why, what wants a person."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from perfusio_jax._core.text import counted, cut
from perfusio_jax.twin.loop.commands import ReactorStatus, to_be_written
from perfusio_jax.twin.records.chain import AuditReport
from perfusio_jax.viz.dashboard.views import Chain, Chosen, Need, Option, Reactor
from perfusio_jax.viz.runs import RunView

from .decisions import changes_of, reasons_of, votes_of
from .figures import rack_names
from .run_record import LEFT_OUT, RunRecord
from .telling import is_number

_MOST_KEYS: Final = 3
"""Readings an overview has room for."""
_LONGEST: Final = 2000
"""Characters of a reason that are shown."""

UNKNOWN: Final = Chain("unknown", "The audit trail is being verified.")
"""Before the first verification."""


def chain_of(report: AuditReport, at: str) -> Chain:
    """How an audit trail stands.

    Args:
        report: Of its verification.
        at: When that was.
    """
    n = f"{report.n_records} record{'' if report.n_records == 1 else 's'}"
    if report.ok:
        text = f"The audit trail verifies: {n}, looked at {at}."
    else:
        text = f"The audit trail does NOT verify: {report.reason}."
    head, key = report.head_hash, report.key_id or ""
    return Chain("ok" if report.ok else "bad", text, report.n_records, head, key, report.warnings)


def reactor_view(
    key: str,
    record: RunRecord,
    stands: ReactorStatus,
    chain: Chain,
    *,
    is_orphan: bool,
    now: dt.datetime,
) -> Reactor:
    """Put together what is shown of a reactor.

    Args:
        key: Its place in addresses.
        record: What is on record.
        stands: Where it stands.
        chain: How its audit trail stands; decisions and reasons are told where that is intact.
        is_orphan: Whether the program that drove it went without closing its records.
        now: The moment, for alarms that are silenced for a time.
    """
    events = record.events if record.audit.is_intact else ()
    view, units = record.view(), record.units()
    waiting = _waiting(record, stands, events)
    alarms = sorted(
        record.alarms, key=lambda a: (a.cleared_at is not None, a.severity != "critical", -a.id)
    )
    closed = f"{stands.n_days} {stands.cadence.words(stands.n_days)} closed"
    if stands.last_day is not None:
        closed += f", last day {stands.last_day:g}"
        closed += f" ({stands.last_outcome})" if stands.last_outcome else ""
    bare = Reactor(
        key=key,
        name=record.reactor_id,
        run_id=record.run_id,
        folder=record.folder.name,
        culture="CHO perfusion" if record.process is None else record.process.name,
        is_running=stands.is_running,
        mode=stands.mode,
        closed=closed,
        overridden=stands.overridden,
        n_open_writes=stands.n_open_writes,
        commands=[f"{c.kind}, asked for by {c.who} at {_time(c.sent_at)}" for c in stands.commands],
        alarms=alarms,
        waiting=waiting,
        decisions=_decisions(record, events),
        run=view,
        units=units,
        key_names=_key_names(record, view),
        chain=chain,
        needs=(),
        notes=[n for n in record.notes if not n.startswith(LEFT_OUT)],
    )
    return bare._replace(needs=needs_of(bare, is_orphan=is_orphan, now=now))


def needs_of(reactor: Reactor, *, is_orphan: bool, now: dt.datetime) -> list[Need]:
    """What wants a person, the most urgent first.

    Args:
        reactor: The reactor, without its needs.
        is_orphan: Whether its program went without closing its records.
        now: The moment.
    """
    found = []
    if reactor.chain.state == "bad":
        found.append(Need(0, "the audit trail does not verify"))
    standing = [a for a in reactor.alarms if a.cleared_at is None]
    raised = [a for a in standing if a.state(now) == "raised"]
    critical = [a for a in raised if a.severity == "critical"]
    for rank, alarms, word in (
        (0, critical, "critical alarm"),
        (3, [a for a in raised if a.severity != "critical"], "warning"),
    ):
        if alarms:
            first = cut(alarms[0].message, 160)
            found.append(Need(rank, f"{counted(len(alarms), word)} nobody has seen: {first}"))
    for one in reactor.waiting:
        if one.roles:
            found.append(
                Need(1, f"decision {one.number} waits for approval by {', '.join(one.roles)}")
            )
    if reactor.n_open_writes:
        found.append(Need(2, "a write of unknown outcome"))
    if is_orphan:
        found.append(Need(2, "the program that drove it is gone"))
    if reactor.mode == "disarmed" and reactor.is_running:
        found.append(Need(4, "disarmed: nothing is written"))
    if reactor.mode == "manual":
        found.append(Need(5, "under manual control"))
    if reactor.overridden:
        found.append(Need(5, f"held by hand: {', '.join(reactor.overridden)}"))
    if reactor.commands and not reactor.is_running:
        found.append(Need(6, f"{counted(len(reactor.commands), 'command')} not carried out yet"))
    seen = len(standing) - len(raised)
    if seen:
        found.append(Need(7, f"{counted(seen, 'alarm')} seen and standing"))
    return sorted(found, key=lambda need: need.rank)


def _key_names(record: RunRecord, view: RunView) -> list[str]:
    """What has a target first, then what people look at, then what is measured."""
    seen = list(view.readings)
    usual = rack_names(seen, is_cho=record.process is None) or seen
    wanted = [*(n for n in view.targets), *(n for n in view.limits), *usual]
    return list(dict.fromkeys(n for n in wanted if n in seen))[:_MOST_KEYS]


def _decisions(record: RunRecord, events: Sequence[Mapping[str, Any]]) -> list[Chosen]:
    """Decisions on record, the newest first."""
    votes = votes_of(events)
    found = []
    for event in events:
        if event["event_type"] != "DECISION_MADE":
            continue
        payload, day = event["payload"], float(event["day"])
        recommended = payload.get("recommended") or {}
        old, action = event.get("old") or {}, str(payload.get("action", ""))
        number = payload.get("decision")
        found.append(
            Chosen(
                number=int(number) if is_number(number) else 0,
                day=day,
                decided_at=_time(event["timestamp"]),
                action=action,
                changes=changes_of(old, (event.get("new") or {}) if action == "write"
                                   else recommended, record),
                reasons=[cut(r, _LONGEST) for r in reasons_of(payload, event.get("reason"))],
                options=_options(recommended, old, payload.get("explanation")),
                votes=votes.get(number, ()),
                outcome=record.cycles.get(day, "not closed"),
            )
        )  # fmt: skip
    return found[::-1]


def _waiting(
    record: RunRecord, stands: ReactorStatus, events: Sequence[Mapping[str, Any]]
) -> list[Chosen]:
    """Decisions of a cycle that is open, with what was said when their approval was asked."""
    asked = {
        e["payload"].get("decision"): e["payload"]
        for e in events
        if e["event_type"] == "APPROVAL_ASKED"
    }
    votes = votes_of(events)
    found = []
    for decision in stands.waiting:
        payload = decision.payload
        said = asked.get(decision.id, {})
        wanted = to_be_written(payload)
        now = payload.get("u_now") or {}
        given = votes.get(decision.id, [])
        found.append(
            Chosen(
                number=decision.id,
                day=float(decision.day),
                decided_at=_time(decision.decided_at),
                action="",
                changes=changes_of(now, wanted, record),
                reasons=[cut(r, _LONGEST) for r in reasons_of(said)] if said else [],
                options=_options(payload.get("recommended") or {}, now, said.get("explanation")),
                votes=given,
                outcome="",
                roles=tuple(str(r) for r in said.get("roles") or ()),
            )
        )
    return found


def _options(
    recommended: Mapping[str, Any], now: Mapping[str, Any], why: Mapping[str, Any] | None
) -> list[Option]:
    """The recommendation, what is in force, and the best other recipes that were found."""
    if not why or not recommended:
        return []
    kept = "viability_probability"
    found = [
        Option("recommended", _numbers(recommended), _number(why.get("ofv")),
               _number(why.get(kept))),
        Option("as it is now", _numbers(now), _number(why.get("ofv_unchanged")),
               _number(why.get(f"{kept}_unchanged"))),
    ]  # fmt: skip
    for k, other in enumerate(why.get("alternatives") or ()):
        name = "runner-up" if k == 0 else f"other good recipe {k}"
        found.append(
            Option(name, {**_numbers(recommended), **_numbers(other.get("controls") or {})},
                   _number(other.get("ofv")), _number(other.get(kept)))
        )  # fmt: skip
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(n): float(v) for n, v in values.items() if is_number(v)}


def _number(value: Any) -> float:
    return float(value) if is_number(value) else math.nan


def _time(text: Any) -> str:
    return str(text)[:19].replace("T", " ")
