"""Decisions of a run: when, what changed, why, and who agreed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfusio_jax._core.text import shown_unit

from .document import Block, Words
from .run_record import RunRecord
from .telling import cut_table, is_number, number_text, stamp


def decisions(record: RunRecord) -> list[Block]:
    """Every decision on record, a row each."""
    made = [e for e in record.events if e["event_type"] == "DECISION_MADE"]
    if not made:
        return [Words("No decision is on record.")]
    votes = votes_of(record.events)
    rows = []
    for event in made:
        payload = event["payload"]
        number = payload.get("decision")
        outcome = record.cycles.get(float(event["day"]), "not closed")
        approved = "; ".join(votes.get(number, ())) or "–"
        rows.append(
            (
                f"{float(event['day']):g}",
                stamp(event["timestamp"]),
                str(payload.get("action", "")),
                _set_points(event, record),
                "; ".join(reasons_of(payload, event.get("reason"))) or "–",
                approved,
                outcome,
            )
        )
    heads = ("day", "decided (UTC)", "action", "set-points", "why", "approved by", "came to")
    return [
        Words("Set-points that changed are told as before → after, in their units."),
        *cut_table(heads, rows, numeric=(0,)),
    ]


def votes_of(events: Sequence[Mapping[str, Any]]) -> dict[Any, list[str]]:
    """Who approved or refused which decision, by its number.

    Args:
        events: Records of the audit trail.
    """
    found: dict[Any, list[str]] = {}
    for event in events:
        if event["event_type"] not in ("COMMAND_APPROVE", "COMMAND_REJECT"):
            continue
        payload = event["payload"]
        verb = "approved" if event["event_type"] == "COMMAND_APPROVE" else "refused"
        if payload.get("outcome") not in (None, "done"):
            verb = f"not counted ({payload['outcome']})"
        claim = f", who says to be {payload['says_to_be']}" if payload.get("says_to_be") else ""
        role = f" as {event['role']}" if event.get("role") else ""
        text = f"{event['user']}{claim}{role}: {verb} {stamp(event['timestamp'])}"
        found.setdefault(payload.get("decision"), []).append(text)
    return found


def _set_points(event: Mapping[str, Any], record: RunRecord) -> str:
    """What changed; of a decision to hold, what was recommended and is not written."""
    old, new = event.get("old") or {}, event.get("new") or {}
    recommended = event["payload"].get("recommended") or {}
    if event["payload"].get("action") == "write" or not recommended:
        return _joined(old, new, record)
    return f"held; recommended: {_joined(old, recommended, record)}"


def _joined(old: Mapping[str, Any], new: Mapping[str, Any], record: RunRecord) -> str:
    return "; ".join(changes_of(old, new, record)) or "none changed"


def changes_of(old: Mapping[str, Any], new: Mapping[str, Any], record: RunRecord) -> list[str]:
    """Set-points that change, as "name before → after unit".

    Args:
        old: In force, by control.
        new: To be in force.
        record: For the units.
    """
    return joined_changes(old, new, record.unit)


def joined_changes(
    old: Mapping[str, Any], new: Mapping[str, Any], unit_of: Callable[[str], str]
) -> list[str]:
    """The same as `changes_of`, with units from anywhere."""
    parts = []
    for name, value in new.items():
        before = old.get(name)
        if before != value:
            told = "unknown" if before is None else f"{number_text(before)}"
            unit = shown_unit(unit_of(name))
            parts.append(f"{name} {told} → {number_text(value)} {unit}".rstrip())
    return parts


def reasons_of(payload: Mapping[str, Any], reason: Any = None) -> list[str]:
    """The sentences behind a decision: what was to be reached, what is expected, what stood by.

    Args:
        payload: Of a record with `explanation`.
        reason: The reason that stands beside it.
    """
    why = payload.get("explanation") or {}
    parts = [str(r) for r in payload.get("reasons") or ()]
    if reason and str(reason) not in (*parts, "; ".join(parts)):  # which is the same once more
        parts.append(str(reason))
    for target in why.get("targets") or ():
        if isinstance(target.get("target"), int | float):
            parts.append(f"target {target.get('species')} {number_text(target['target'])}")
        if is_number(target.get("cost")) and is_number(target.get("cost_unchanged")):
            parts.append(
                f"{target.get('criterion')}: expected cost {number_text(target['cost'])}, "
                f"{number_text(target['cost_unchanged'])} if nothing changed"
            )
    if is_number(why.get("ofv")) and is_number(why.get("ofv_unchanged")):
        parts.append(
            f"expected cost {number_text(why['ofv'])}, "
            f"{number_text(why['ofv_unchanged'])} if nothing changed"
        )
    for limit in why.get("constraints") or ():
        if is_number(limit.get("probability")):
            parts.append(f"{limit.get('limit')} kept with probability {limit['probability']:.2f}")
    bounds = [*(why.get("at_lower_bound") or ()), *(why.get("at_upper_bound") or ())]
    if bounds:
        parts.append(f"at a bound: {', '.join(map(str, bounds))}")
    if why.get("at_rate_limit"):
        parts.append(f"at a rate limit: {', '.join(map(str, why['at_rate_limit']))}")
    if why.get("is_fallback"):
        parts.append("the fallback recipe")
    drawn = why.get("posterior")
    if isinstance(drawn, Mapping):
        parts.append(
            f"decided under {drawn.get('draws')} draws of constants, posterior "
            f"{str(drawn.get('sha256', 'not told'))[:16]}"
        )
    return parts + [str(remark) for remark in why.get("remarks") or ()]
