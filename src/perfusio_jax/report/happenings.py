"""What happened in a run, as its audit trail and journal have it, laid out by culture day."""

from collections.abc import Mapping
from typing import Any, Final

from perfusio_jax.viz import AlarmSpan, Happening

from .run_record import RunRecord

_KINDS: Final[Mapping[str, str]] = {
    "SAMPLE_READ": "sample",
    "SAMPLE_MISSED": "missed",
    "DECISION_FAILED": "failed",
    "WRITE_GIVEN_UP": "failed",
    "SETPOINT_CHANGE": "write",
    "MODEL_TRIAL": "model",
    "MODEL_RETRAIN": "model",
    "MODEL_KEPT": "model",
    "SESSION_STARTED": "session",
    "SESSION_DISARMED": "session",
    "RUN_ENDED": "session",
    "OPERATOR_OVERRIDE": "person",
    "READ_BACK_UNAVAILABLE": "trouble",
    "WRITE_UNCONFIRMED": "trouble",
    "WRITE_NOT_SENT": "trouble",
    "CLOCK_DOUBTED": "trouble",
    "DEVICE_RESET": "trouble",
    "ALARM_NOT_DELIVERED": "trouble",
    "ALARM_WITHOUT_FIGURE": "trouble",
    "AUDIT_TORN_TAIL": "trouble",
    "AUDIT_BREAK": "trouble",
    "APPROVAL_MISSING": "failed",
}


TROUBLES: Final = {
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


def kind_of(event: Mapping[str, Any]) -> str | None:
    """What a record of the audit trail is on a time line; None where it is not shown."""
    kind = str(event["event_type"])
    if kind.startswith("COMMAND_"):
        return "person"
    if kind == "DECISION_MADE":
        action = event.get("payload", {}).get("action")
        return "decision" if action == "write" else "hold"
    return _KINDS.get(kind)


def happenings_of(record: RunRecord) -> list[Happening]:
    """Events with the culture day they belong to; those before the first known day are at it."""
    found, day = [], _first_day(record)
    for event in record.events:
        if event.get("day") is not None:
            day = float(event["day"])
        kind = kind_of(event)
        if kind is not None:
            found.append(Happening(day, kind))
    if record.events:
        return found
    # without an audit trail the journal still knows samples, decisions and writes
    days = () if record.samples is None else record.samples.times_h / 24.0
    found = [Happening(float(d), "sample") for d in days]
    found += [Happening(float(d.day), "decision") for d in record.decisions]
    return found + [Happening(float(i.day), "write") for i in record.intents]


def alarms_of(record: RunRecord) -> list[AlarmSpan]:
    """Alarms from raised to cleared [d]."""
    raised: dict[int, float] = {}
    cleared: dict[int, float] = {}
    seen: dict[int, float] = {}
    day = _first_day(record)
    for event in record.events:
        if event.get("day") is not None:
            day = float(event["day"])
        payload, kind = event.get("payload") or {}, event["event_type"]
        number = payload.get("alarm")
        if number is None and kind == "ALARM_CLEARED":  # told by name alone
            named = [
                a.id for a in record.alarms if a.name == payload.get("name") and a.id in raised
            ]
            number = named[-1] if named else None
        if not isinstance(number, int | float):
            continue
        if kind == "ALARM_RAISED":
            raised.setdefault(int(number), day)
        elif kind == "ALARM_CLEARED":
            cleared[int(number)] = day
        elif kind == "COMMAND_ACKNOWLEDGE":
            seen[int(number)] = day
    spans = []
    for alarm in record.alarms:
        first = raised.get(alarm.id, day)
        last = cleared.get(alarm.id, day) if alarm.cleared_at is not None else None
        is_critical = alarm.severity == "critical"
        spans.append(AlarmSpan(alarm.name, first, last, is_critical, seen.get(alarm.id)))
    return spans


def _first_day(record: RunRecord) -> float:
    days = [float(e["day"]) for e in record.events if e.get("day") is not None]
    return min(days, default=0.0)
