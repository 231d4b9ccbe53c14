"""Run folders as a twin leaves them, made in a moment: journal, audit trail, forecasts, alarms."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perfusio_jax._core import CONTROL_NAMES, DEFAULT_CONTROLS, STREAM_TOTALS
from perfusio_jax.twin import AuditLogger
from perfusio_jax.twin.records.records_file import RunRecords

START = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)
SPECIES = ("VCD", "Via", "Glc", "Lac", "Titer")


class Clock:
    """A minute later each time it is asked."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(minutes=1)
        return self.now


def values_of(day: int) -> dict:
    live = 2.0 * 1.3**day
    return {
        "VCD": live, "Via": 97.0 - 0.5 * day, "Glc": 5.0 - 0.2 * day, "Lac": 1.0 + day,
        "Titer": None if day == 2 else 20.0 * day,
    }  # fmt: skip


def make_run(
    folder: Path, *, run_id: str = "E1", n_days: int = 5, reactor: str = "R01", reason: str = "so"
) -> Path:
    """A run of some days with writes, a vote, an alarm and a missed sample."""
    clock = Clock()
    folder.mkdir(parents=True, exist_ok=True)
    set_to = {n: float(DEFAULT_CONTROLS[n]) for n in CONTROL_NAMES}
    with RunRecords(folder / "journal.sqlite", clock=clock) as book:
        with AuditLogger(folder, run_id, clock=clock, memory=book) as audit:
            begun = {"account": "lab", "allow_write": True, "mode": "adaptive"}
            begun["model_sha256"] = "ab" * 32
            audit.log("SESSION_STARTED", begun, day=0, user="lab")
            for day in range(n_days):
                old = dict(set_to)
                book.record_sample(reactor, day, {
                    "day": day, "time_h": 24.0 * day, "values": values_of(day),
                    "controls": old, "read_back": old, "implausible": [], "notes": [],
                    "quality": "good", "reactor_id": reactor, "tags": {},
                    "stream_totals": dict.fromkeys(STREAM_TOTALS),
                })  # fmt: skip
                audit.log("SAMPLE_READ", {"values": values_of(day), "stored": "new"}, day=day)
                set_to = {**set_to, "bleed_rate": 0.1 + 0.01 * day}
                number = book.record_decision(reactor, day, {
                    "recommended": set_to, "setpoints": set_to, "u_now": old, "fixed": {},
                })  # fmt: skip
                audit.log("DECISION_MADE", {
                    "action": "write" if day else "hold", "decision": number,
                    "recommended": set_to, "setpoints": set_to, "reasons": [reason],
                    "explanation": {
                        "targets": [{"species": "VCD", "target": 20}], "ofv": 1.5,
                        "ofv_unchanged": 4.0,
                        "constraints": [{"limit": "Via >= 90", "probability": 0.97}],
                    },
                }, day=day, old=old, new=set_to if day else old)  # fmt: skip
                if not day:
                    book.close_cycle(reactor, day, "hold")
                    set_to = old
                    continue
                audit.log("COMMAND_APPROVE", {"decision": number, "outcome": "done",
                          "says_to_be": "Ann"}, day=day, user="qa1", role="qa")  # fmt: skip
                intent = book.open_intent(number, set_to)
                book.close_intent(intent, is_written=True, result={"read_back": set_to})
                audit.log("SETPOINT_CHANGE", {"intent": intent}, day=day, old=old, new=set_to)
                book.close_cycle(reactor, day, "written")
                if day == 2:
                    alarm, _ = book.note_alarm(reactor, "forecast/Glc/below", "warning", "Glc low")
                    audit.log("ALARM_RAISED", {"alarm": alarm.id}, day=day)
                    book.acknowledge_alarm(alarm.id, "qa1")
                    audit.log("COMMAND_ACKNOWLEDGE", {"alarm": alarm.id, "outcome": "done"},
                              day=day, user="qa1")  # fmt: skip
                if day == 3:
                    book.clear_alarm(reactor, "forecast/Glc/below")
                    audit.log("ALARM_CLEARED", {"name": "forecast/Glc/below"}, day=day)
                    audit.log("SAMPLE_MISSED", {}, day=day, reason="no row came")
                    audit.log("MODEL_RETRAIN", {"rows": 3}, day=day, reason="no worse")
            audit.log("RUN_ENDED", {}, day=n_days - 1)
    rows = [
        (reactor, day, float(day + h), name, v, 0.9 * v, v, 1.1 * v)
        for day in range(n_days) for h in (1, 2, 3) for name in SPECIES
        for v in [float(values_of(day)[name] or 1.0)]
    ]  # fmt: skip
    names = ("reactor_id", "made_on_day", "day", "species", "mean", "q10", "q50", "q90")
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    pq.write_table(pa.table(columns), folder / "forecasts.parquet")
    return folder


def campaign_csv(path: Path, n_runs: int = 3, n_days: int = 6) -> Path:
    """A campaign table of CHO perfusion; the column of ammonium is empty."""
    rng = np.random.default_rng(0)
    head = ["run_id", "reactor_id", "clone_id", "time_h", *SPECIES, "Amm", *CONTROL_NAMES]
    lines = [",".join(head)]
    for r in range(n_runs):
        for day in range(n_days):
            seen = [values_of(day)[n] for n in SPECIES]
            cells = ["" if v is None else f"{v * rng.uniform(0.97, 1.03):.5g}" for v in seen]
            cells[1] = f"{min(float(cells[1]), 99.9)}"
            set_to = [f"{DEFAULT_CONTROLS[n]:g}" for n in CONTROL_NAMES]
            lines.append(",".join([f"E{r}", f"R{r}", "X", f"{24 * day}", *cells, "", *set_to]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
