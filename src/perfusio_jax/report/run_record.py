"""A run folder as figures and reports read it: samples, forecasts, decisions, alarms, audit."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, REGISTRY, STREAM_TOTALS, PerfusioError
from perfusio_jax._core.limits import RECORD_BYTES, read_file
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.process import Process
from perfusio_jax.twin.loop.commands import find_runs, is_running, reactors, sampled, seen
from perfusio_jax.twin.loop.reader import rows_of
from perfusio_jax.twin.records.alarm_book import Alarm
from perfusio_jax.twin.records.chain import AuditReport
from perfusio_jax.twin.records.chain import records as records_of
from perfusio_jax.twin.records.entries import Command, Decision, Intent
from perfusio_jax.twin.records.forecasts_made import Step, curves, read_forecasts
from perfusio_jax.twin.records.lock import LOCK_NAME
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.twin.records.trail_files import LOG_NAME
from perfusio_jax.twin.records.verifying import verify_audit
from perfusio_jax.viz import Band, RunView

if TYPE_CHECKING:
    from perfusio_jax.states import Trajectory

LEFT_OUT: Final = "the audit trail is left out"
"""How a note begins that says so."""


class RunSamples(NamedTuple):
    """Samples of a run and the set-points that acted, on the host."""

    names: tuple[str, ...]
    """Quantities read."""
    control_names: tuple[str, ...]
    """Controls."""
    times_h: np.ndarray
    """Culture times [h]."""
    readings: np.ndarray
    """A row for each sample, a column for each quantity; NaN where nothing was believed."""
    controls: np.ndarray
    """Set-points from a sample on, likewise."""
    volume_L: np.ndarray
    """Working volume at the samples [L]."""
    stream_totals: np.ndarray
    """What flowed since the sample before [L], in the order of `STREAM_TOTALS`."""


class RunRecord(NamedTuple):
    """One reactor of one run folder."""

    folder: Path
    """Run folder."""
    run_id: str
    """Name of the run in its records; that of the folder where there are none."""
    reactor_id: str
    """Vessel."""
    process: Process | None
    """The culture; None for CHO perfusion."""
    samples: RunSamples | None
    """Samples and the set-points that acted; None before the first sample."""
    n_left_out: int
    """Readings that were not believed, and are not in the trajectory."""
    n_corrected: int
    """Samples that came a second time with other values."""
    bands: Mapping[str, Band]
    """Forecasts by quantity: each time's from the sample before, the last one to its end."""
    decisions: tuple[Decision, ...]
    """Standing decisions, by day."""
    cycles: Mapping[float, str]
    """What each day came to."""
    cycles_are: str
    """What is counted: "days", or "cycles of 12 h"."""
    intents: tuple[Intent, ...]
    """Writes begun."""
    alarms: tuple[Alarm, ...]
    """All alarms, oldest first."""
    commands: tuple[Command, ...]
    """What people asked and was carried out or refused."""
    events: tuple[Mapping[str, Any], ...]
    """Records of the audit trail about this reactor or the run; none where it does not verify as
    intact."""
    audit: AuditReport
    """Whether the audit trail verifies."""
    is_running: bool
    """Whether a process holds the run folder."""
    notes: tuple[str, ...]
    """What could not be read, one sentence each."""

    @property
    def trajectory(self) -> "Trajectory | None":
        """The samples as a trajectory; None before the first."""
        from perfusio_jax.states import Trajectory  # whoever only looks does not wait for JAX

        found = self.samples
        if found is None:
            return None
        return Trajectory(
            found.readings,
            found.controls,
            found.volume_L,
            np.floor(found.times_h / HOURS_PER_DAY + 1e-9).astype(int),
            found.names,
            found.control_names,
            run_id=self.run_id,
            reactor_id=self.reactor_id,
            times_h=found.times_h,
            stream_totals=found.stream_totals,
        )

    def unit(self, name: str) -> str:
        """Unit of a quantity or control; empty where nobody says."""
        if self.process is not None:
            parts = (*self.process.quantities, *self.process.controls)
            return next((p.unit for p in parts if p.name == name), "")
        try:
            return canonical_unit(name)
        except PerfusioError:
            return ""

    def units(self) -> dict[str, str]:
        """Units of everything in the trajectory."""
        if self.samples is None:
            return {}
        names = (*self.samples.names, *self.samples.control_names)
        return {name: self.unit(name) for name in names}

    def view(self) -> RunView:
        """The run as figures see it, with targets and limits as its sessions had them."""
        run = self.samples
        name = f"{self.run_id}, reactor {self.reactor_id}"
        if run is None:
            return RunView(name, np.zeros(0), {})
        readings = {n: run.readings[:, k] for k, n in enumerate(run.names)}
        targets, limits = _goals(self.events)
        return RunView(
            name,
            run.times_h,
            readings,
            {n: run.controls[:, k] for k, n in enumerate(run.control_names)},
            {n: band for n, band in self.bands.items() if n in readings},
            {n: v for n, v in targets.items() if n in readings},
            {n: v for n, v in limits.items() if n in readings},
        )


def read_records(place: Path, reactor_id: str | None = None) -> list[RunRecord]:
    """Every reactor of the runs at a place; nothing there is changed.

    Args:
        place: A run folder, or one above several.
        reactor_id: Only this vessel.

    Raises:
        ConfigError: If there is no run, or not that vessel.
        JournalError: If a journal cannot be read.
    """
    found = []
    for folder in find_runs(place, reactor_id):
        audit = verify_audit(folder)
        log = b""
        if audit.is_intact:
            log = read_file(folder / LOG_NAME, most=RECORD_BYTES)
        events = tuple(records_of(log))
        with seen(folder) as journal:
            for name in reactors(journal):
                if reactor_id in (None, name):
                    found.append(record_of(folder, journal, name, events, audit))
    return found


def record_of(
    folder: Path,
    journal: RunRecords,
    name: str,
    events: tuple[Mapping[str, Any], ...],
    audit: AuditReport,
    *,
    runs: bool | None = None,
) -> RunRecord:
    """One reactor of a run folder.

    Args:
        folder: Run folder.
        journal: Its journal, open.
        name: Reactor.
        events: Records of its audit trail.
        audit: What verifying that came to.
        runs: Whether a process holds the folder; found out by default.
    """
    notes = [] if audit.is_intact else [f"{LEFT_OUT}: {audit.reason}"]
    run_id = str(events[0]["run_id"]) if events else folder.name
    process = _process_of(events)
    samples, n_left_out = _samples(journal, name, process)
    return RunRecord(
        folder,
        run_id,
        name,
        process,
        samples,
        n_left_out,
        sum(s.revision > 1 for s in journal.samples(name)),
        _bands(folder, name, notes),
        tuple(journal.decisions(name)),
        journal.cycles(name),
        sampled(journal, name).words(),
        tuple(journal.intents(name)),
        tuple(journal.alarms(name)),
        tuple(journal.handled(name)),
        events,
        audit,
        _runs(folder) if runs is None else runs,
        tuple(notes),
    )


def _runs(folder: Path) -> bool:
    """Whether a process holds the folder; nobody does one that cannot be written, as an archive."""
    lock = folder / LOCK_NAME
    return lock.exists() and os.access(lock, os.W_OK) and is_running(folder)


def _process_of(events: tuple[Mapping[str, Any], ...]) -> Process | None:
    """The culture as the last session had it."""
    for event in reversed(events):
        if event["event_type"] == "SESSION_STARTED" and "process" in event["payload"]:
            return Process.model_validate(event["payload"]["process"])
    return None


def _samples(
    journal: RunRecords, name: str, process: Process | None
) -> tuple[RunSamples | None, int]:
    """Samples that were believed, and how many readings were not."""
    samples = [s.values for s in journal.samples(name)]
    if not samples:
        return None, 0
    unknown = defaultdict(lambda: math.nan)
    given = () if process is None else process.boluses
    rows = rows_of(samples, unknown, sampled(journal, name), given=given)
    read = [sum(v is not None for v in s["values"].values()) for s in samples]
    kept = [sum(v is not None for v in row["values"].values()) for row in rows]
    names = REGISTRY if process is None else process.readings
    seen = [n for n in names if any(row["values"].get(n) is not None for row in rows)]
    controls = CONTROL_NAMES if process is None else process.control_names
    hours = np.array([float(row["time_h"]) for row in rows])
    order = np.argsort(hours, kind="stable")
    order = order[np.append(True, np.diff(hours[order]) > 0.0)]
    volume = np.array([_number(row.get("volume_L")) for row in rows])
    working = 0.25 if process is None else process.volume_L
    if np.isfinite(volume).any():
        known = np.isfinite(volume)
        volume = np.interp(hours, hours[known], volume[known])
    else:
        volume = np.full(hours.size, working)
    totals = [
        [_number((row.get("stream_totals") or {}).get(n)) for n in STREAM_TOTALS] for row in rows
    ]
    table = [[_number(row["values"].get(n)) for n in seen] for row in rows]
    set_to = [[_number(row["controls"].get(n)) for n in controls] for row in rows]
    run = RunSamples(
        tuple(seen),
        tuple(controls),
        hours[order],
        np.array(table, float).reshape(len(rows), len(seen))[order],
        np.array(set_to, float).reshape(len(rows), len(controls))[order],
        volume[order],
        np.array(totals, float)[order],
    )
    return run, sum(read) - sum(kept)


def _bands(folder: Path, name: str, notes: list[str]) -> dict[str, Band]:
    """Forecasts of the next sample, and the last one to its end."""
    try:
        return bands_of(read_forecasts(folder, name))
    except PerfusioError as error:
        notes.append(str(error))
        return {}


def bands_of(steps: Iterable[Step]) -> dict[str, Band]:
    """Forecasts as figures have them.

    Args:
        steps: Forecasts of a vessel.
    """
    return {n: Band(c.hours, c.low, c.high, c.middle) for n, c in curves(steps).items()}


def _goals(
    events: tuple[Mapping[str, Any], ...],
) -> tuple[dict[str, float], dict[str, tuple[float | None, float | None]]]:
    """Targets and limits of the last decision that tells them."""
    for event in reversed(events):
        if event["event_type"] != "DECISION_MADE":
            continue
        why = event["payload"].get("explanation") or {}
        targets = {
            str(t["species"]): float(t["target"])
            for t in why.get("targets") or ()
            if isinstance(t.get("target"), int | float)
        }
        limits = [limit.get("limit", "") for limit in why.get("constraints") or ()]
        return targets or _held(events), _limits(limits)
    return _held(events), {}


def _held(events: tuple[Mapping[str, Any], ...]) -> dict[str, float]:
    """Values to be held in the objective of the last session: of a described culture only that."""
    for event in reversed(events):
        if event["event_type"] == "SESSION_STARTED":
            objective = event["payload"].get("objective")
            goals = objective.get("goals") if isinstance(objective, Mapping) else None
            told = [str(goal).partition("=") for goal in goals or ()]
            found = {name.strip(): _first_number(text) for name, _, text in told}
            return {name: value for name, value in found.items() if math.isfinite(value)}
    return {}


def _limits(texts: Iterable[str]) -> dict[str, tuple[float | None, float | None]]:
    """Lower and upper limit by name, from "NAME >= value" and "NAME <= value"."""
    limits: dict[str, tuple[float | None, float | None]] = {}
    for text in texts:
        for sign, k in ((">=", 0), ("<=", 1)):
            left, _, right = str(text).partition(sign)
            value = _first_number(right)
            if math.isfinite(value):
                pair = list(limits.get(left.strip(), (None, None)))
                pair[k] = value
                limits[left.strip()] = (pair[0], pair[1])
    return limits


def _first_number(text: str) -> float:
    """The number a text begins with; NaN if there is none."""
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
