"""Run folders for the page: vessels at work, each with something else that wants a person."""

import asyncio
import contextlib
import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfusio_jax._core import CONTROL_NAMES, DEFAULT_CONTROLS
from perfusio_jax.twin import AuditLogger, LoopSettings, Runtime
from perfusio_jax.twin.alarms.desk import AlarmDesk
from perfusio_jax.twin.loop.attendant import Attendant
from perfusio_jax.twin.loop.session import Session
from perfusio_jax.twin.records.lock import RunLock
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.twin.records.runtime import in_thread
from tests.report.run_folders import Clock, make_run

LATEST = 400
"""Records of the clock that come after those of `make_run`."""


def later(n: int = LATEST) -> Clock:
    """A clock that goes on where that of `make_run` ended."""
    clock = Clock()
    for _ in range(n):
        clock()
    return clock


def explanation() -> dict[str, Any]:
    """What a decision of the policy says of itself, as `bed.policy.explanations` writes it."""
    recipe = {n: float(DEFAULT_CONTROLS[n]) for n in CONTROL_NAMES}
    return {
        "targets": [{"species": "VCD", "target": 20.0, "expected_squared_error": 1.2,
                     "expected_squared_error_unchanged": 3.9}],
        "constraints": [{"limit": "Via >= 90", "probability_asked": 0.9, "probability": 0.97,
                         "probability_unchanged": 0.71}],
        "ofv": 1.5, "ofv_unchanged": 4.0,
        "viability_probability": 0.97, "viability_probability_unchanged": 0.71,
        "alternatives": [
            {"controls": recipe | {"bleed_rate": 0.22}, "ofv": 1.71, "acquisition": -0.2,
             "viability_probability": 0.95},
            {"controls": recipe | {"perfusion_rate": 1.9}, "ofv": 2.4, "acquisition": -0.6,
             "viability_probability": 0.99},
        ],
        "at_upper_bound": [], "at_lower_bound": [], "at_rate_limit": ["bleed_rate"],
        "is_fallback": False, "remarks": [],
    }  # fmt: skip


def add_waiting(
    folder: Path,
    reactor: str,
    *,
    run_id: str,
    day: int,
    clock: Clock,
    roles: tuple[str, ...] = ("qa",),
) -> int:
    """A decision whose approval is asked for; its number."""
    now = {n: float(DEFAULT_CONTROLS[n]) for n in CONTROL_NAMES}
    wanted = now | {"bleed_rate": 0.25, "perfusion_rate": 1.4}
    with RunRecords(folder / "journal.sqlite", clock=clock) as book:
        with AuditLogger(folder, run_id, clock=clock, memory=book) as audit:
            values = {"recommended": wanted, "setpoints": wanted, "u_now": now, "fixed": {}}
            number = book.record_decision(reactor, day, values)
            audit.log("APPROVAL_ASKED", {"decision": number, "roles": list(roles),
                      "explanation": explanation()}, day=day, new=wanted)  # fmt: skip
    return number


def add_alarm(
    folder: Path, reactor: str, *, run_id: str, severity: str, message: str, clock: Clock
) -> int:
    """An alarm that stands; its number."""
    with RunRecords(folder / "journal.sqlite", clock=clock) as book:
        with AuditLogger(folder, run_id, clock=clock, memory=book) as audit:
            alarm, _ = book.note_alarm(reactor, f"sample/{severity}", severity, message)
            audit.log("ALARM_RAISED", {"alarm": alarm.id, "name": alarm.name}, day=4)
    return alarm.id


def keep_mode(folder: Path, reactor: str, kind: str, **payload: Any) -> None:
    """A change of the session, as the twin keeps it."""
    with RunRecords(folder / "journal.sqlite", clock=later()) as book:
        book.keep(reactor, kind, actor="ada", payload=payload)


def left_lock(folder: Path) -> None:
    """The lock of a program that was killed: its note says nothing of a release."""
    note = {"pid": 2**22 + 11, "host": socket.gethostname(), "since": "2026-03-01T08:00:00+00:00"}
    (folder / "run.lock").write_text(json.dumps(note) + "\n")


def dressed_run(
    folder: Path,
    *,
    run_id: str = "E1",
    reactor: str = "R01",
    roles: tuple[str, ...] = ("qa",),
) -> dict[str, int]:
    """A run with a waiting decision, a critical alarm and a warning; their numbers."""
    clock = later()
    make_run(folder, run_id=run_id, reactor=reactor)
    return {
        "decision": add_waiting(folder, reactor, run_id=run_id, day=5, clock=clock,
                                roles=roles),
        "critical": add_alarm(folder, reactor, run_id=run_id, severity="critical", clock=clock,
                              message="Glc is 0.21 g/L, limit 0.3 from below"),
        "warning": add_alarm(folder, reactor, run_id=run_id, severity="warning", clock=clock,
                             message="Amm is forecast to be 8.4 on day 6, limit 8 from above"),
    }  # fmt: skip


@contextlib.contextmanager
def attended(
    folder: Path, reactor: str = "R01", *, run_id: str = "E1", **settings: Any
) -> Iterator[Attendant]:
    """The part of a twin that carries commands out, at work on a run folder in a thread."""
    over, begun, found = threading.Event(), threading.Event(), []

    async def attend() -> None:
        runtime = Runtime(_now, time.monotonic, asyncio.sleep, in_thread)
        with RunLock(folder), RunRecords(folder / "journal.sqlite") as book:
            with AuditLogger(folder, run_id, memory=book) as audit:
                desk = AlarmDesk(book, audit, None, runtime=runtime, reactor_id=reactor)
                session = Session({}, is_armed=True)
                session.recover(book.handled(reactor), (), ())
                told = LoopSettings(reactor_id=reactor, run_id=run_id, **settings)
                found.append(
                    Attendant(None, book, audit, session, desk, settings=told, runtime=runtime)
                )
                begun.set()
                while not over.is_set():
                    await found[0].look(5)
                    await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(attend()), daemon=True)
    thread.start()
    assert begun.wait(10.0), "nobody attends to the run"
    try:
        yield found[0]
    finally:
        over.set()
        thread.join(10.0)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
