"""What is said of a run for those who have to sign it: decided, why, by whom, and how to check."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import perfusio_jax
from perfusio_jax._core import DataError
from perfusio_jax._core.checkpoint import VERDICT
from perfusio_jax._core.limits import SETTINGS_BYTES, read_file
from perfusio_jax._core.text import cut, shown_unit
from perfusio_jax.process import Derived
from perfusio_jax.viz import cards_in

from .cards import card_blocks, cards_section
from .decisions import decisions
from .derived import derived_of, mean_text, with_error
from .document import (
    Block,
    Command,
    Document,
    Grid,
    Listing,
    Picture,
    Section,
    SignatureLines,
    Words,
)
from .figures import record_figures
from .happenings import TROUBLES, kind_of
from .run_card import run_card
from .run_record import RunRecord
from .telling import cut_table, day_of, number_text, stamp

if TYPE_CHECKING:
    from perfusio_jax.hybrid import Verdict

_SIGNERS: Final = ("Prepared by", "Reviewed by", "Approved by")
_MODEL_EVENTS: Final[Mapping[str, str]] = {
    "MODEL_TRIAL": "a challenger was made",
    "MODEL_RETRAIN": "the challenger took over",
    "MODEL_KEPT": "the model was kept",
}


def run_document(
    records: Sequence[RunRecord], place: Path, *, beside: Sequence[Block] = ()
) -> Document:
    """The report on one reactor, or on several of a place.

    Args:
        records: What was read there.
        place: Where that was.
        beside: What is said of the runs beside reference runs, if that was asked.

    Returns:
        The report. It says nothing of when or where it was made: the same records give the same.
    """
    sections: list[Section] = []
    for record in records:
        who = f" ({record.reactor_id})" if len(records) > 1 else ""
        sections += [
            Section(f"Summary{who}", card_blocks(run_card(record))),
            Section(f"What was decided, and why{who}", decisions(record)),
            Section(f"Course of the culture{who}", _course(record)),
            Section(f"Deviations and alarms{who}", _deviations(record)),
            Section(f"Model{who}", model_blocks(record)),
            Section(f"Derived numbers{who}", _derived(record)),
            *cards_section(*cards_in(record.folder), who),
            Section(f"Records and how to verify them{who}", _records(record)),
        ]
    if beside:
        last = len(sections) - 1 if len(records) == 1 else len(sections)
        sections.insert(last, Section("Beside the reference runs", beside))
    sections.append(Section("Signatures", _sign(records)))
    names = sorted({record.run_id for record in records})
    stamps = [str(e["timestamp"]) for record in records for e in record.events]
    facts = [
        ("Run", ", ".join(names)),
        ("Reactors", ", ".join(record.reactor_id for record in records)),
        ("Records", f"{min(stamps)} to {max(stamps)}" if stamps else "no audit trail"),
        ("Program", f"perfusio-jax {perfusio_jax.__version__}"),
    ]
    return Document(f"Report on run {cut(', '.join(names), 120)}", facts, sections)


def _course(record: RunRecord) -> list[Block]:
    figures = record_figures(record)
    under = "under the set-points that were recommended"
    caption = (
        "Readings, set-points in force, and forecasts made one sample before, the last one to its "
        f"end, {under}."
    )
    return [
        Picture(figures["run"], caption),
        Picture(figures["rates"], "What cells did in each interval, with standard errors."),
    ]


def _deviations(record: RunRecord) -> list[Block]:
    blocks: list[Block] = [
        Picture(record_figures(record)["timeline"], "What happened, by culture time.")
    ]
    if record.alarms:
        rows = [
            (
                str(alarm.id),
                alarm.name,
                alarm.severity,
                alarm.message,
                stamp(alarm.raised_at),
                str(alarm.times),
                alarm.acknowledged_by or "–",
                "stands" if alarm.cleared_at is None else stamp(alarm.cleared_at),
            )
            for alarm in record.alarms
        ]
        heads = ("no.", "alarm", "severity", "message", "raised (UTC)", "found",
                 "acknowledged by", "cleared (UTC)")  # fmt: skip
        blocks += cut_table(heads, rows, numeric=(0, 5))
    else:
        blocks.append(Words("No alarm was raised."))
    odd = [e for e in record.events if kind_of(e) in ("missed", "failed", "trouble")
           or e["event_type"] in TROUBLES]  # fmt: skip
    odd = [e for e in odd if not str(e["event_type"]).startswith("MODEL_")]
    if odd:
        rows = [_event_row(e, TROUBLES.get(str(e["event_type"]), "")) for e in odd]
        blocks.append(Words("Troubles on record:"))
        blocks += cut_table(("day", "when (UTC)", "what", "why", "by"), rows, numeric=(0,))
    else:
        blocks.append(Words("No trouble is on record."))
    asked = [e for e in record.events if str(e["event_type"]).startswith("COMMAND_")
             or e["event_type"] == "OPERATOR_OVERRIDE"]  # fmt: skip
    if asked:
        rows = [_command_row(e) for e in asked]
        blocks.append(Words("What people asked or did:"))
        heads = ("day", "when (UTC)", "what", "why", "by", "role", "outcome")
        blocks += cut_table(heads, rows, numeric=(0,))
    return blocks


def model_blocks(record: RunRecord) -> list[Block]:
    """What is on record of a run's model: its hash, its changes and why, its verdict."""
    starts = [e for e in record.events if e["event_type"] == "SESSION_STARTED"]
    blocks: list[Block] = []
    for event in starts[-1:]:
        payload = event["payload"]
        lines = [
            f"Mode: {payload.get('mode', 'not told')}.",
            f"Model of the last session: SHA-256 {payload.get('model_sha256', 'not told')}",
        ]
        drawn = payload.get("posterior")
        if isinstance(drawn, Mapping):
            lines.append(
                f"Constants of its mechanism: {drawn.get('draws')} draws of the posterior with "
                f"SHA-256 {drawn.get('sha256', 'not told')}"
            )
        blocks.append(Listing(lines))
    changed = [e for e in record.events if e["event_type"] in _MODEL_EVENTS]
    if changed:
        rows = [_event_row(e, _MODEL_EVENTS[str(e["event_type"])]) for e in changed]
        blocks += cut_table(("day", "when (UTC)", "what", "why", "by"), rows, numeric=(0,))
    else:
        blocks.append(Words("The model did not change during the run."))
    blocks += _validation(record)
    return blocks


def _validation(record: RunRecord) -> list[Block]:
    """What is known of the model that lies in the run folder."""
    path = record.folder / "model" / VERDICT
    if not path.is_file():
        return [Words("No validation lies with the run (model/verdict in its folder).")]
    try:
        content = json.loads(read_file(path, most=SETTINGS_BYTES))
        verdict = _verdict_of(content)
        about = str(content["model_sha256"])
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [Words(f"The verdict in the run folder cannot be read: {error}", is_warning=True)]
    used = [e["payload"].get("model_sha256") for e in record.events
            if e["event_type"] == "SESSION_STARTED"]  # fmt: skip
    blocks: list[Block] = [Words(f"{verdict.line()[:1].upper()}{verdict.line()[1:]}")]
    if about not in used:
        blocks.append(
            Words(f"It is of the model {about[:16]}…, which no session of this run began with.")
        )
    rows = [
        (name, number_text(e), number_text(n), "–" if np.isnan(c) else f"{100 * c:.0f} %")
        for name, e, n, c in zip(
            verdict.species, verdict.error, verdict.nothing_changes, verdict.coverage_80,
            strict=True,
        )
    ]  # fmt: skip
    heads = ("quantity", "error", "error if nothing changed", "inside the 80 % interval")
    return [*blocks, Grid(heads, rows, numeric=(1, 2, 3))]


def _verdict_of(content: Mapping[str, Any]) -> "Verdict":
    from perfusio_jax.hybrid import Verdict  # and with it all models, which nothing else needs

    species: Mapping[str, Mapping[str, Any]] = content["species"]
    columns = [
        tuple(float("nan") if row[key] is None else float(row[key]) for row in species.values())
        for key in ("error", "nothing_changes", "coverage_80")
    ]
    return Verdict(str(content["how"]), tuple(species), *columns)


def _derived(record: RunRecord) -> list[Block]:
    run = record.trajectory
    if run is None or run.n_days < 2:
        return [Words("There are fewer than two samples; nothing can be derived yet.")]
    try:
        found = derived_of(record.process, run)
    except DataError as error:
        return [Words(f"Nothing can be derived: {error}")]
    flows = "totals that were recorded" if found.is_recorded.all() else "set-points where no totals"
    return [
        Words(
            "Means over the run ± standard error from the noise of the assays; flows are those of "
            f"the {flows}{'' if found.is_recorded.all() else ' were recorded'}. Cumulated numbers "
            "are those at the end."
        ),
        Grid(
            ("number", "what it is", "mean ± standard error", "unit", "intervals"),
            derived_rows(found),
            numeric=(2, 4),
        ),
    ]


def derived_rows(found: Derived) -> list[tuple[str, ...]]:
    """Name, label, mean or last value, unit and known intervals of each number."""
    rows = []
    for number in found.numbers:
        known = np.isfinite(number.values)
        if not known.any():
            continue
        is_sum = number.name.startswith(("IVCD", "integral_"))
        if is_sum:
            last = np.flatnonzero(known)[-1]
            told = with_error(float(number.values[last]), float(number.errors[last]))
        else:
            told = mean_text(found, number.name)
        count = f"{int(known.sum())} of {known.size}"
        rows.append((number.name, number.label, told, shown_unit(number.unit), count))
    return rows


def _records(record: RunRecord) -> list[Block]:
    audit = record.audit
    state = "verifies" if audit.ok else f"does NOT verify: {audit.reason}"
    facts = [
        f"The audit trail {state}.",
        f"{audit.n_records} records; the hash of the last is {audit.head_hash}",
        f"Signed by key {audit.key_id}." if audit.key_id else "It is not signed.",
        *(f"Note: {warning}" for warning in audit.warnings),
    ]
    name = record.folder.name
    return [
        Listing(facts),
        Words(
            "Whoever holds the run folder checks the trail record by record, with the public key "
            "if it is signed, and compares the hash with the one above; decisions are made again "
            "from the journal and compared byte for byte."
        ),
        Command(f"perfusio-jax verify-audit {name} --key KEY.pub"),
        Command(f"perfusio-jax replay {name}"),
    ]


def _sign(records: Iterable[RunRecord]) -> list[Block]:
    heads = ", ".join(record.audit.head_hash[:16] for record in records)
    return [
        Words(
            f"By signing, a person says to have read this report on the records that end with "
            f"{heads}. The report supports a review; it claims no compliance."
        ),
        SignatureLines(_SIGNERS),
    ]


def _event_row(event: Mapping[str, Any], what: str) -> tuple[str, ...]:
    name = str(event["event_type"]).replace("_", " ").lower()
    payload = event.get("payload") or {}
    reason = event.get("reason") or payload.get("reason") or payload.get("error") or ""
    told = what or name
    return (day_of(event), stamp(event["timestamp"]), told, str(reason), str(event.get("user", "")))


def _command_row(event: Mapping[str, Any]) -> tuple[str, ...]:
    payload = event.get("payload") or {}
    what = str(event["event_type"]).removeprefix("COMMAND_").replace("_", " ").lower()
    for key in ("decision", "alarm", "hours"):
        if key in payload and payload[key] is not None:
            what += f", {key} {number_text(payload[key])}"
    claim = f", who says to be {payload['says_to_be']}" if payload.get("says_to_be") else ""
    return (
        day_of(event),
        stamp(event["timestamp"]),
        what,
        str(event.get("reason") or "–"),
        f"{event.get('user', '')}{claim}",
        str(event.get("role") or "–"),
        str(payload.get("outcome") or "–"),
    )
