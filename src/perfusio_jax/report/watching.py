"""Run folders as somebody looks at them for a month: read when they change, never written.

A journal is read in milliseconds, an audit trail is verified in a tenth of a second and more. So
the first is read at once when a file has changed, and the second beside it, one run after the
other; what depends on a trail is shown when that is known to be intact.
"""

import contextlib
import datetime as dt
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from perfusio_jax._core import DataError, PerfusioError
from perfusio_jax._core.limits import RECORD_BYTES, SETTINGS_BYTES, read_file, read_toml
from perfusio_jax._core.text import cut
from perfusio_jax.twin.loop.commands import (
    ReactorStatus,
    find_runs,
    is_running,
    reactors,
    status_of,
)
from perfusio_jax.twin.records.chain import AuditReport
from perfusio_jax.twin.records.chain import records as records_of
from perfusio_jax.twin.records.letters import INBOX
from perfusio_jax.twin.records.lock import holder_of
from perfusio_jax.twin.records.records import FORECASTS
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.twin.records.run_files import JOURNAL_NAME
from perfusio_jax.twin.records.secrets import in_short
from perfusio_jax.twin.records.store import stamp as moment_text
from perfusio_jax.twin.records.trail_files import HEAD_NAME, LOG_NAME
from perfusio_jax.twin.records.verifying import verify_audit
from perfusio_jax.viz import cards_in
from perfusio_jax.viz.dashboard.views import (
    Chain,
    Rack,
    Reactor,
    Remark,
    Table,
    Trail,
    Trouble,
)

from .cards import cards_section
from .document import Block, Grid, Listing, Words
from .model_facts import model_facts
from .reactor_view import UNKNOWN, chain_of, reactor_view
from .run_record import RunRecord, record_of
from .run_report import model_blocks

_TRAIL: Final = (LOG_NAME, HEAD_NAME)
_FILES: Final = (JOURNAL_NAME, f"{JOURNAL_NAME}-wal", FORECASTS, INBOX, *_TRAIL)
_CONFIGS: Final = ("twin.toml", "config.toml")
_PAUSE_S: Final = 0.4
"""Time between two verifications while nobody waits for one [s]: what is looked at goes first."""
_PATIENCE_S: Final = 2.0
"""How long the page of one reactor waits for its trail to be verified [s]; it is shown anyway."""

Stamp = tuple[tuple[int, int] | None, ...]
"""Time of the last change [ns] and size [B] of some files; None for one that is not there."""


class _Verified(NamedTuple):
    """A trail that was looked at."""

    stamp: Stamp
    report: AuditReport
    chain: Chain


class _Read(NamedTuple):
    """What was read of a run folder, and from which files."""

    stamp: tuple[Any, ...]
    vessels: tuple[tuple[RunRecord, ReactorStatus], ...] = ()
    trouble: str = ""


class _Kept(NamedTuple):
    """What was read, and what is shown of it."""

    read: _Read
    chain: Chain
    reactors: tuple[tuple[RunRecord, Reactor], ...]
    until: str
    """When an alarm is silenced no longer, as the journal writes it; empty if none is silenced."""


class Watching:
    """Run folders at a place; a `Watched`.

    Args:
        place: Run folder, one above several, or a fleet's.
        now: Clock.
    """

    def __init__(self, place: Path, *, now: Callable[[], dt.datetime] | None = None) -> None:
        self.where = place
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._lock = threading.RLock()
        self._kept: dict[Path, _Kept] = {}
        self._verified: dict[Path, _Verified] = {}
        self._asked: dict[Path, Future[None]] = {}
        self._is_waited_for = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="verify")

    def close(self) -> None:
        """Verify nothing more."""
        self._is_waited_for.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ a Watched

    def version(self) -> str:
        """A text that changes whenever something here may have changed."""
        folders, trouble = self._folders()
        parts = [(str(f), _stamp_of_run(f), self._chain(f)[1].text) for f in folders]
        # alarms are silenced for a time, so time itself is a change
        minute = self._now().strftime("%Y-%m-%d %H:%M")
        return hashlib.sha256(repr((parts, trouble, minute)).encode()).hexdigest()[:24]

    def rack(self) -> Rack:
        """Everything there is."""
        folders, trouble = self._folders()
        troubles = [Trouble(self.where.name, trouble)] if trouble else []
        found: list[Reactor] = []
        for folder in folders:
            kept = self._look(folder)
            found += [reactor for _, reactor in kept.reactors]
            if kept.read.trouble:
                troubles.append(Trouble(folder.name, kept.read.trouble))
        with self._lock:  # of folders that are gone nothing is kept
            for gone in set(self._kept) - set(folders):
                del self._kept[gone]
                self._verified.pop(gone, None)
        for folder in folders:
            self._ask(folder)
        found.sort(key=lambda r: (r.needs[0].rank if r.needs else 99, r.folder, r.name))
        return Rack(self.where.resolve().name, found, troubles)

    def reactor(self, key: str) -> Reactor | None:
        """One vessel; None if there is none of that key."""
        found = self._find(key)
        return None if found is None else found[1]

    def trail(self, key: str, *, text: str, kind: str, first: int, most: int) -> Trail | None:
        """Records of an audit trail that hold a text, the newest first."""
        found = self._find(key)
        if found is None:
            return None
        record, reactor = found
        events = record.events if record.audit.is_intact else ()
        kinds = sorted({str(e["event_type"]) for e in events})
        hits = find_events(events, text=text, kind=kind)
        return Trail(reactor.chain, hits[first : first + most], len(hits), kinds)

    def model(self, key: str) -> Sequence[Table | Remark] | None:
        """What is known of a vessel's model."""
        found = self._find(key)
        if found is None:
            return None
        record, _ = found
        if not record.audit.is_intact:
            return [Remark("The audit trail is not known to be intact; nothing of it is told.",
                           is_warning=True)]  # fmt: skip
        config = _config_of(record.folder)
        blocks = [*model_blocks(record), *model_facts(record.folder, config)]
        for section in cards_section(*cards_in(record.folder)):
            blocks += [Words(f"{section.title}:"), *section.blocks]
        return [part for block in blocks for part in _shown(block)]

    def settings(self, key: str) -> Sequence[Table | Remark] | None:
        """What a vessel's run was told."""
        found = self._find(key)
        if found is None:
            return None
        config = _config_of(found[0].folder)
        if config is None:
            return [Remark("There is neither twin.toml nor config.toml in the run folder or above "
                           "it; the run was started from a program or a bare file.")]  # fmt: skip
        try:
            read_file(config, most=SETTINGS_BYTES)
            tables = read_toml(config)
        except (PerfusioError, OSError) as error:
            return [Remark(f"{config.name} cannot be read: {in_short(error)}", is_warning=True)]
        parts: list[Table | Remark] = [Remark(f"From {config.parent.name}/{config.name}.")]
        loose = {n: v for n, v in tables.items() if not isinstance(v, dict)}
        for name, table in [("", loose), *((n, v) for n, v in tables.items() if n not in loose)]:
            if table:
                rows = [row for k, v in table.items() for row in _settings(str(k), v)]
                parts.append(Table(f"[{name}]" if name else "top", ("key", "value"), rows))
        return parts

    def place(self, key: str) -> tuple[Path, str] | None:
        """Run folder and vessel, for commands."""
        found = self._find(key)
        return None if found is None else (found[0].folder, found[0].reactor_id)

    # ------------------------------------------------------------------ reading

    def _folders(self) -> tuple[list[Path], str]:
        """Run folders, or why there are none."""
        try:
            return find_runs(self.where), ""
        except (PerfusioError, OSError) as error:
            return [], in_short(error)

    def _chain(self, folder: Path) -> tuple[AuditReport, Chain]:
        """What the last verification of a trail came to."""
        verified = self._verified.get(folder)
        return (_PENDING, UNKNOWN) if verified is None else (verified.report, verified.chain)

    def _find(self, key: str) -> tuple[RunRecord, Reactor] | None:
        for folder in self._folders()[0]:
            for record, reactor in self._look(folder).reactors:
                if reactor.key == key:
                    self._wait(folder)
                    again = self._look(folder).reactors
                    return next((pair for pair in again if pair[1].key == key), (record, reactor))
        return None

    def _wait(self, folder: Path) -> None:
        """Wait a little for a trail to be verified."""
        asked = self._ask(folder)
        if asked is None:
            return
        self._is_waited_for.set()
        with contextlib.suppress(TimeoutError):
            asked.result(timeout=_PATIENCE_S)
        self._is_waited_for.clear()

    def _look(self, folder: Path) -> _Kept:
        """A run folder as it is now; read anew only where a file has changed."""
        with self._lock:
            stamp, (report, chain) = _stamp_of_run(folder), self._chain(folder)
            kept = self._kept.get(folder)
            now = moment_text(self._now())
            is_new = kept is None or kept.read.stamp != stamp
            if kept is None or is_new or kept.chain is not chain or "" < kept.until <= now:
                read = _read(folder, stamp, report) if kept is None or is_new else kept.read
                try:
                    kept = self._shown(folder, read, report, chain)
                except Exception as error:  # the others are shown all the same
                    read = _Read(stamp, trouble=_not_as_written(error))
                    kept = _Kept(read, chain, (), "")
                self._kept[folder] = kept
            return kept

    def _shown(self, folder: Path, read: _Read, report: AuditReport, chain: Chain) -> _Kept:
        now, is_orphan = self._now(), read.stamp[-1][1]
        found = []
        for record, stands in read.vessels:
            judged = record._replace(audit=report)
            key = _key(self.where, folder, record.reactor_id)
            view = reactor_view(key, judged, stands, chain, is_orphan=is_orphan, now=now)
            found.append((judged, view))
        silenced = [
            alarm.suppressed_until
            for record, _ in found
            for alarm in record.alarms
            if alarm.cleared_at is None and (alarm.suppressed_until or "") > moment_text(now)
        ]
        until = min(filter(None, silenced), default="")
        return _Kept(read, chain, tuple(found), until)

    # ------------------------------------------------------------------ verifying

    def _ask(self, folder: Path) -> "Future[None] | None":
        """Have a trail verified that changed since it was; None if it did not."""
        with self._lock:
            verified = self._verified.get(folder)
            asked = self._asked.get(folder)
            if asked is not None and not asked.done():
                return asked
            if verified is not None and verified.stamp == _stamp_of(folder, _TRAIL):
                return None
            self._asked[folder] = self._pool.submit(self._verify, folder)
            return self._asked[folder]

    def _verify(self, folder: Path) -> None:
        self._is_waited_for.wait(_PAUSE_S)
        stamp = _stamp_of(folder, _TRAIL)
        try:
            report = verify_audit(folder)
        except (PerfusioError, OSError) as error:
            report = AuditReport(False, 0, reason=in_short(error))
        at = self._now().astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        with self._lock:
            self._verified[folder] = _Verified(stamp, report, chain_of(report, at))


def _read(folder: Path, stamp: tuple[Any, ...], report: AuditReport) -> _Read:
    """Read a run folder; what cannot be read is told."""
    drives = stamp[-1][0]
    try:
        events = _events(folder, report)
        with RunRecords(folder / JOURNAL_NAME, is_read_only=True) as journal:
            found = tuple(
                (
                    record_of(folder, journal, name, events, report, runs=drives),
                    status_of(folder, journal, name, is_running=drives),
                )
                for name in reactors(journal)
            )
    except (PerfusioError, OSError) as error:
        return _Read(stamp, trouble=f"It cannot be read: {in_short(error)}")
    except Exception as error:  # the others are shown all the same, and this is told
        return _Read(stamp, trouble=_not_as_written(error))
    return _Read(stamp, found, "" if found else "It has a journal, and nothing in it yet.")


def _not_as_written(error: Exception) -> str:
    kind = type(error).__name__
    return f"Its records are not as this version writes them ({kind}: {in_short(error)})."


_PENDING: Final = AuditReport(False, 0, reason="it is being verified")


def _events(folder: Path, report: AuditReport) -> tuple[Mapping[str, Any], ...]:
    """Records of the trail; before it is verified they tell of the culture alone."""
    try:
        log = read_file(folder / LOG_NAME, most=RECORD_BYTES)
        return tuple(records_of(log))
    except (OSError, ValueError):
        if report.is_intact:
            raise
        return ()


def _drives(folder: Path) -> tuple[bool, bool]:
    """Whether a process drives a run, and whether one did and went without closing."""
    holder = holder_of(folder)
    if holder is None:
        return False, False
    if holder["is_alive"] is None:  # on another host: its lock may reach here, or not
        return is_running(folder), False
    runs = bool(holder["is_alive"]) and is_running(folder)
    return runs, not runs


def _stamp_of_run(folder: Path) -> tuple[Any, ...]:
    """What changes when something of a run changes; at its end, who drives it."""
    return (*_stamp_of(folder, _FILES), _drives(folder))


def _stamp_of(folder: Path, names: Sequence[str]) -> Stamp:
    found: list[tuple[int, int] | None] = []
    for name in names:
        try:
            status = (folder / name).stat()
            # a log of a journal nobody writes is empty, and comes and goes by looking
            is_idle = name.endswith("-wal") and status.st_size == 0
            found.append(None if is_idle else (status.st_mtime_ns, status.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


def _key(place: Path, folder: Path, name: str) -> str:
    """A vessel's place in addresses; the same after a restart, whatever it is called."""
    try:
        where = str(folder.relative_to(place))
    except ValueError:
        where = folder.name
    return hashlib.sha256(f"{where}\n{name}".encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _config_of(folder: Path) -> Path | None:
    """The configuration of a run: in its folder, or in the one above several vessels."""
    places = [place / name for place in (folder, folder.parent) for name in _CONFIGS]
    return next((p for p in places if p.is_file()), None)


def _settings(name: str, value: Any) -> list[tuple[str, str]]:
    """A row of a setting; of a table of tables a row each, under its whole name."""
    if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
        return [row for k, v in value.items() for row in _settings(f"{name}.{k}", v)]
    return [(name, _setting(value))]


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k} = {_setting(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_setting(v) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return cut(str(value), 1000)


def find_events(
    events: Sequence[Mapping[str, Any]], *, text: str, kind: str
) -> list[Mapping[str, Any]]:
    """Records of a kind that hold a text, the newest first.

    Args:
        events: Records, the oldest first.
        text: What they hold, in any case; empty for all.
        kind: Kind of event; empty for all.
    """
    wanted = text.casefold()
    return [
        e
        for e in reversed(events)
        if kind in ("", e["event_type"]) and (not wanted or wanted in _words_of(e))
    ]


def _words_of(event: Mapping[str, Any]) -> str:
    """Everything a record says, for a search."""
    return " ".join(_leaves(event)).casefold()


def _leaves(value: Any) -> list[str]:
    found, left = [], [value]
    while left:
        item = left.pop()
        if isinstance(item, Mapping):
            left += list(item.values())
            found += [str(k) for k in item]
        elif isinstance(item, list | tuple):
            left += item
        elif item is not None:
            found.append(f"{item:g}" if isinstance(item, float) else str(item))
    return found


def _shown(block: Block) -> list[Table | Remark]:
    """A block of a report as the page shows it."""
    if isinstance(block, Words):
        return [Remark(block.text, block.is_warning)]
    if isinstance(block, Listing):
        return [Remark(item) for item in block.items]
    if isinstance(block, Grid):
        return [Table("", block.heads, block.rows, block.numeric)]
    raise DataError(f"a {type(block).__name__} of a report has no form on the page.")
