"""Runs held in a database as the page shows them: read anew when a row was added, never written.

A database has samples, set-points, alarms and a copy of audit trails; it has no journal. So there
is nothing to approve and nothing that waits; what proves something is the trail in the run folder.
"""

import asyncio
import contextlib
import hashlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import sqlalchemy as sa

from perfusio_jax._core import HOURS_PER_DAY, PerfusioError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors import SQLStore
from perfusio_jax.connectors.base import SampleRecord
from perfusio_jax.connectors.sql import schema
from perfusio_jax.connectors.sql.admin import Holding, holdings
from perfusio_jax.connectors.sql.cultures import processes_of
from perfusio_jax.connectors.sql.engine import Database
from perfusio_jax.process import Process
from perfusio_jax.twin.records.alarm_book import Alarm
from perfusio_jax.twin.records.forecasts_made import unpacked
from perfusio_jax.twin.records.secrets import in_short
from perfusio_jax.viz.dashboard.views import (
    Chain,
    Chosen,
    Need,
    Rack,
    Reactor,
    Remark,
    Table,
    Trail,
    Trouble,
)
from perfusio_jax.viz.runs import Band, RunView

from .decisions import joined_changes, reasons_of, votes_of
from .figures import rack_names
from .run_record import bands_of
from .telling import is_number
from .watching import find_events

COPY: Final = (
    "A copy of an audit trail, as the database has it. What proves something is the trail in the "
    "run folder: perfusio-jax verify-audit twin.toml compares the two."
)
NO_COPY: Final = "The database holds no copy of an audit trail of this reactor."
_TABLES: Final = (
    *(schema.sample, schema.reading, schema.setpoint_history),
    *(schema.audit_event, schema.alarm_event, schema.culture, schema.forecast),
)
"""What changes when something of a run does."""


class _Kept(NamedTuple):
    """A reactor as it was read, with its audit records."""

    reactor: Reactor
    events: tuple[Mapping[str, Any], ...]


class WatchingSQL:
    """Reactors of a database; a `Watched`.

    Args:
        url: `sqlite:///file.db` or `postgresql://user@host/database`.

    Raises:
        ConfigError: If the URL cannot be used.
        DatabaseError: If the database cannot be used, or has tables of another version.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._database = Database(url)
        self._lock = threading.RLock()
        self._read_at: dict[str, str] | None = None
        self._kept: dict[str, _Kept] = {}
        self._troubles: list[Trouble] = []
        self._database.call(self._database.check)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    # ------------------------------------------------------------------ a Watched

    def version(self) -> str:
        """A text that changes whenever a row was added."""
        try:
            return _digest(repr(sorted(self._stamps().items())))
        except PerfusioError as error:
            return _digest(in_short(error))

    def rack(self) -> Rack:
        """Every reactor of every experiment."""
        kept, troubles = self._look()
        url = self._database.url
        name = Path(str(url.database)).name if self._database.is_sqlite else str(url.database)
        found = sorted((k.reactor for k in kept.values()), key=lambda r: (r.run_id, r.name))
        return Rack(name, found, troubles)

    def reactor(self, key: str) -> Reactor | None:
        """One vessel; None if there is none of that key."""
        found = self._look()[0].get(key)
        return None if found is None else found.reactor

    def trail(self, key: str, *, text: str, kind: str, first: int, most: int) -> Trail | None:
        """Records of the copy of an audit trail that hold a text, the newest first."""
        found = self._look()[0].get(key)
        if found is None:
            return None
        kinds = sorted({str(e["event_type"]) for e in found.events})
        hits = find_events(found.events, text=text, kind=kind)
        return Trail(found.reactor.chain, hits[first : first + most], len(hits), kinds)

    def model(self, key: str) -> Sequence[Table | Remark] | None:
        """Models that were trained, as far as the database has them."""
        found = self._look()[0].get(key)
        if found is None:
            return None
        experiment = found.reactor.run_id
        store = SQLStore(self._url, experiment, found.reactor.name)
        with contextlib.closing(store.database):
            rows = store.model_runs()
        if not rows:
            return [Remark("The database holds no record of a model of this experiment.")]
        cells = [(str(r["trained_at"])[:19], str(r["kind"]), str(r["model_sha256"])) for r in rows]
        return [
            Table("Models trained in this experiment", ("when (UTC)", "kind", "SHA-256"), cells)
        ]

    def settings(self, key: str) -> Sequence[Table | Remark] | None:
        """A database has no settings of a run."""
        if key not in self._look()[0]:
            return None
        return [Remark("A database holds what was measured and done, not what a run was told.")]

    def place(self, key: str) -> tuple[Path, str] | None:
        """There is no run folder, so nothing can be asked."""
        return None

    # ------------------------------------------------------------------ reading

    def _look(self) -> tuple[dict[str, _Kept], list[Trouble]]:
        """What is there now; a vessel is read anew where a row of it was added."""
        with self._lock:
            try:
                stamps = self._stamps()
                if stamps != self._read_at:
                    self._kept, self._troubles = self._read(stamps)
                    self._read_at = stamps
            except PerfusioError as error:
                self._read_at = None
                return {}, [Trouble(self._database.where, f"It cannot be read: {in_short(error)}")]
            return self._kept, self._troubles

    def _stamps(self) -> dict[str, str]:
        """Newest row and number of rows in each table, by vessel."""
        whose = sa.select(schema.reactor.c.id, schema.experiment.c.name, schema.reactor.c.name)
        names = whose.select_from(schema.experiment.join(schema.reactor))

        def work(connection: sa.Connection) -> tuple[dict[int, str], dict[int, list[Any]]]:
            keys = {n: _key(*name) for n, *name in connection.execute(names)}
            rows: dict[int, list[Any]] = {n: [] for n in keys}
            for k, table in enumerate(_TABLES):
                source, reactor = table, table.c.get("reactor_id")
                if reactor is None:
                    source, reactor = table.join(schema.sample), schema.sample.c.reactor_id
                what = (reactor, sa.func.max(table.c.id), sa.func.count(table.c.id))
                query = sa.select(*what).select_from(source).group_by(reactor)
                for n, newest, count in connection.execute(query):
                    rows.setdefault(n, []).append((k, newest, count))
            return keys, rows

        keys, rows = self._database.call(work)
        return {key: _digest(repr(rows[n])) for n, key in keys.items()}

    def _read(self, stamps: Mapping[str, str]) -> tuple[dict[str, _Kept], list[Trouble]]:
        kept: dict[str, _Kept] = {}
        troubles, before = [], self._read_at or {}
        cultures: dict[str, dict[str, Process | None]] = {}
        for held in holdings(self._database):
            key = _key(held.experiment, held.reactor)
            if key in self._kept and before.get(key) == stamps.get(key):
                kept[key] = self._kept[key]
                continue
            if held.experiment not in cultures:
                cultures[held.experiment] = processes_of(self._database, held.experiment)
            process = cultures[held.experiment].get(held.reactor)
            try:
                found = self._reactor(held, process)
            except PerfusioError as error:  # the others are shown all the same
                name = f"{held.experiment}, {held.reactor}"
                troubles.append(Trouble(name, f"It cannot be read: {in_short(error)}"))
                continue
            kept[found.reactor.key] = found
        return kept, troubles

    def _reactor(self, held: Holding, process: Process | None) -> _Kept:
        store = SQLStore(self._url, held.experiment, held.reactor, process=process)
        with contextlib.closing(store.database):
            samples = asyncio.run(store.read_history())
            written = store.setpoint_history()
            events = tuple(_event(row) for row in store.audit_events())
            alarms = _alarms(store.alarm_events(), held.reactor)
            ahead = [step for row in store.forecasts() for step in unpacked(row["payload"] or {})]
        view = _view(held, store.words, samples, written, bands_of(ahead))
        units = {n: _unit(process, n) for n in (*view.readings, *view.set_points)}
        chain = Chain("copy", COPY if events else NO_COPY, len(events))
        seen = list(view.readings)
        keys = (rack_names(seen, is_cho=process is None) or seen)[:3]
        standing = [a for a in alarms if a.cleared_at is None]
        needs = [
            Need(0 if a.severity == "critical" else 3, f"{a.severity} alarm: {a.message}")
            for a in standing
            if a.acknowledged_by is None
        ]
        reactor = Reactor(
            key=_key(held.experiment, held.reactor),
            name=held.reactor,
            run_id=held.experiment,
            folder=self._database.where,
            culture="CHO perfusion" if process is None else process.name,
            is_running=False,
            mode="advising",
            closed=_span(len(samples), held),
            overridden=(),
            n_open_writes=0,
            commands=(),
            alarms=alarms,
            waiting=(),
            decisions=_decisions(events, lambda n: _unit(process, n)),
            run=view,
            units=units,
            key_names=keys,
            chain=chain,
            needs=needs,
            notes=(),
        )
        return _Kept(reactor, events)


def _key(experiment: str, reactor: str) -> str:
    """What a vessel is called in addresses of the page."""
    return hashlib.sha256(f"{experiment}\n{reactor}".encode()).hexdigest()[:12]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _span(n: int, held: Holding) -> str:
    """How many samples there are, and of which days."""
    days = f"day {held.first_day}"
    days += f" to {held.last_day}" if held.last_day != held.first_day else ""
    return f"{n} sample{'' if n == 1 else 's'}, {days}"


def _view(
    held: Holding,
    words: Any,
    samples: Sequence[SampleRecord],
    written: Sequence[Mapping[str, Any]],
    bands: Mapping[str, Band],
) -> RunView:
    """Readings, forecasts, and the set-points told with samples or written to the history."""
    hours = np.array([record.time_h for record in samples], float)
    names = [n for n in words.species if any(_known(r.values.get(n)) for r in samples)]
    told: dict[str, list[float]] = {}
    for record in samples:
        for name in words.controls:
            value = record.controls.get(name)
            if value is None:
                value = _last_written(written, name, record.time_h)
            told.setdefault(name, []).append(math.nan if value is None else float(value))
    set_points = {n: np.array(v, float) for n, v in told.items() if np.isfinite(v).any()}
    readings = {n: np.array([_believed(record, n) for record in samples], float) for n in names}
    name = f"{held.experiment}, reactor {held.reactor}"
    seen = {n: band for n, band in bands.items() if n in readings}
    return RunView(name, hours, readings, set_points, seen)


def _last_written(written: Sequence[Mapping[str, Any]], name: str, time_h: float) -> float | None:
    """The last value that was written for a time up to this one."""
    found = None
    for row in written:
        at = row["time_h"] if row["time_h"] is not None else _hours(row["day"])
        if row["name"] == name and at is not None and at <= time_h + 1e-9:
            found = float(row["value"])
    return found


def _hours(day: float | None) -> float | None:
    return None if day is None else HOURS_PER_DAY * float(day)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _believed(record: SampleRecord, name: str) -> float:
    """A reading, unless it is marked bad."""
    value = record.values.get(name)
    if value is None or record.quality.get(name) == "bad":
        return math.nan
    return float(value)


def _unit(process: Process | None, name: str) -> str:
    if process is not None:
        parts = (*process.quantities, *process.controls)
        return next((p.unit for p in parts if p.name == name), "")
    try:
        return canonical_unit(name)
    except PerfusioError:
        return ""


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the copy as a record of the trail."""
    beside = row["details"] if isinstance(row["details"], Mapping) else {}
    return {
        "seq": row["seq"],
        "timestamp": row["happened_at"].isoformat(),
        "run_id": row["run_id"],
        "event_type": row["event_type"],
        "day": row["day"],
        "user": row["actor"],
        "payload": row["payload"] if isinstance(row["payload"], Mapping) else {},
        "hash": row["key"],
        **beside,
    }


def _decisions(events: Sequence[Mapping[str, Any]], unit: Callable[[str], str]) -> list[Chosen]:
    """Decisions in the copy, the newest first."""
    votes, found = votes_of(events), []
    for event in events:
        if event["event_type"] != "DECISION_MADE":
            continue
        payload, old = event["payload"], event.get("old") or {}
        action, number = str(payload.get("action", "")), payload.get("decision")
        new = event.get("new") if action == "write" else payload.get("recommended")
        found.append(
            Chosen(
                number=int(number) if is_number(number) else 0,
                day=float(event["day"]),
                decided_at=str(event["timestamp"])[:19].replace("T", " "),
                action=action,
                changes=joined_changes(old, new or {}, unit),
                reasons=reasons_of(payload, event.get("reason")),
                options=(),
                votes=votes.get(number, ()),
                outcome="not told in a database",
            )
        )
    return found[::-1]


def _alarms(rows: Sequence[Mapping[str, Any]], reactor: str) -> list[Alarm]:
    """Alarms from the rows of their states, the newest first."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        at, payload = row["happened_at"].isoformat(), row["payload"] or {}
        known = found.setdefault(
            str(row["key"]),
            {
                "name": str(row["species"]),
                "severity": row["severity"],
                "message": str(payload.get("message") or payload.get("note") or row["species"]),
                "raised_at": at,
                "times": 0,
                "acknowledged_by": None,
                "suppressed_until": None,
                "cleared_at": None,
            },
        )
        known["last_at"] = at
        if row["state"] == "raised":
            known["times"] += 1
        elif row["state"] == "acknowledged":
            known["acknowledged_by"] = row["actor"]
        elif row["state"] == "cleared":
            known["cleared_at"] = at
    alarms = [Alarm(id=k, reactor_id=reactor, **v) for k, v in enumerate(found.values(), start=1)]
    return sorted(alarms, key=lambda a: (a.cleared_at is not None, -a.id))
