"""What a person may ask of a run from outside: where it stands, approve, stop, arm, replay.

Everything goes through the run folder, so that it works while the twin runs and while it does
not, from any process that may read and write there.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from perfusio_jax._core import ConfigError, PerfusioError, RunLockedError
from perfusio_jax._core.instants import as_day

from ..decision.brain import Brain, Situation
from ..decision.cadence import DAILY, Cadence, cadence_of
from ..decision.grid import Grid
from ..records.alarm_book import Alarm
from ..records.chain import plain
from ..records.entries import Command, Decision, JournalError
from ..records.layout import REMEDY
from ..records.lock import LOCK_NAME, FileLock
from ..records.mailbox import MOST_HOURS
from ..records.records_file import RunRecords
from ..records.run_files import FLEET_NAME, JOURNAL_NAME
from ..records.store import dump
from .reader import rows_of
from .session import Session

_REACTORS = "SELECT reactor_id FROM {} "
_TABLES = ("cycles", "samples", "leases")
_LOOK_S: Final = 0.1
"""Time between two looks for what came of a command [s]."""


@dataclass(frozen=True)
class ReactorStatus:
    """Where one reactor's run stands."""

    folder: Path
    reactor_id: str
    is_running: bool
    """Whether a process holds the run folder."""
    n_days: int
    """Days, or other cycles, that are closed."""
    last_day: float | None
    """The last of them [d]."""
    last_outcome: str
    """What it came to."""
    mode: str
    """"armed", "disarmed", "manual", or "advising" where the last session may not write at all."""
    overridden: tuple[str, ...]
    """Controls an operator holds by hand."""
    n_open_writes: int
    """Writes whose outcome is unknown."""
    commands: tuple[Command, ...]
    """Commands nobody has carried out yet."""
    waiting: tuple[Decision, ...]
    """Standing decisions of a day that is not closed: an approval may be waited for."""
    alarms: tuple[Alarm, ...]
    """Alarms that stand."""
    holder: str
    """Who holds, or held, the reactor."""
    cadence: Cadence = DAILY
    """When its samples are due."""

    def __str__(self) -> str:
        """A few lines for a person."""
        run = "running" if self.is_running else "not running"
        last = "no day yet" if self.last_day is None else f"day {self.last_day:g}"
        lines = [
            f"{self.reactor_id}: {run}, {self.mode}; "
            f"{self.n_days} {self.cadence.words(self.n_days)} closed, last {last}"
            + (f" ({self.last_outcome})" if self.last_outcome else "")
            + (f"; held by {self.holder}" if self.holder else "")
        ]
        if self.overridden:
            lines.append(f"  by hand: {', '.join(self.overridden)}")
        if self.n_open_writes:
            lines.append(f"  {self.n_open_writes} write of unknown outcome, to be read back")
        for command in self.commands:
            asked = f"{command.kind}, asked for by {command.who} at {command.sent_at[:19]}"
            lines.append(f"  not carried out yet: {asked}")
        for decision in self.waiting:
            wanted = ", ".join(f"{n} {v}" for n, v in to_be_written(decision.payload).items())
            lines.append(f"  decision {decision.id} for day {decision.day:g}: {wanted}")
        for alarm in self.alarms:
            lines.append(f"  alarm {alarm.id} since {alarm.raised_at[:19]}: {alarm.message}")
        return "\n".join(lines)


def to_be_written(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Set-points of a decision as they would be sent, in the journal's own numbers."""
    return payload.get("setpoints") or payload["recommended"]


def find_runs(place: Path, reactor_id: str | None = None) -> list[Path]:
    """Run folders at a place: itself, or those directly below it; of a fleet those below each run.

    Args:
        place: Folder, or a file in it.
        reactor_id: Only those that hold this reactor.

    Raises:
        ConfigError: If there is none.
    """
    here = place.parent if place.is_file() else place
    found = [f for f in (here, *sorted(p for p in here.glob("*") if p.is_dir()))]
    if (here / FLEET_NAME).is_file():
        found += [p for f in found[1:] for p in sorted(f.glob("*")) if p.is_dir()]
    runs = [f for f in found if (f / JOURNAL_NAME).is_file()]
    if not runs:
        raise ConfigError(f"{place} holds no run: there is no {JOURNAL_NAME} in it or below it.")
    if reactor_id is None:
        return runs
    known = {f: _reactors_of(f) for f in runs}
    holding = [f for f in runs if reactor_id in known[f]]
    if not holding:
        names = ", ".join(sorted(n for found in known.values() for n in found)) or "none"
        raise ConfigError(f"{place} has no reactor {reactor_id}; it has {names}.")
    return holding


@contextmanager
def opened(folder: Path) -> Iterator[RunRecords]:
    """The journal of a run folder, for reading and for leaving commands.

    Who may not change the journal may look at it, and leave commands where the inbox takes them.
    """
    path = folder / JOURNAL_NAME
    may_change = os.access(path, os.W_OK) and os.access(folder, os.W_OK)
    with seen(folder):  # a file that was cut off would else be made anew
        pass
    with RunRecords(path, is_read_only=not may_change) as records:
        yield records


@contextmanager
def seen(folder: Path) -> Iterator[RunRecords]:
    """The journal of a run folder, for looking at it: nothing of it is changed or made anew.

    Raises:
        JournalError: If it cannot be read, or what it holds is of another shape than what this
            version writes.
    """
    with RunRecords(folder / JOURNAL_NAME, is_read_only=True) as records:
        try:
            yield records
        except PerfusioError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise JournalError(
                f"The records in {folder} are not as this version writes them ({why}). {REMEDY}"
            ) from error


def is_running(folder: Path) -> bool:
    """Whether a process holds a run folder now."""
    if not (folder / LOCK_NAME).exists():
        return False
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire()
    except RunLockedError:
        return True
    lock.release()
    return False


def status(folder: Path) -> list[ReactorStatus]:
    """Where the reactors of one run folder stand."""
    with seen(folder) as records:
        runs = is_running(folder)
        found = [status_of(folder, records, n, is_running=runs) for n in reactors(records)]
        for one in found:
            str(one)  # what cannot be told is found here, where it is known for damage
        return found


def _reactors_of(folder: Path) -> list[str]:
    with seen(folder) as records:
        return reactors(records)


def reactors(records: RunRecords) -> list[str]:
    """Reactors a journal knows."""
    query = " UNION ".join(_REACTORS.format(table) for table in _TABLES)
    return sorted(row[0] for row in records._query(query, ()))


def sampled(records: RunRecords, reactor_id: str) -> Cadence:
    """When the samples of a run are due, as its last session had it."""
    return cadence_of(c.payload for c in records.handled(reactor_id) if c.kind == "session")


def send(
    folder: Path,
    kind: str,
    *,
    actor: str,
    role: str | None = None,
    payload: Mapping[str, Any] | None = None,
    reactor_id: str | None = None,
) -> list[tuple[str, str]]:
    """Leave a command for the reactors of a run folder.

    Args:
        folder: Run folder.
        kind: See `mailbox.KINDS`.
        actor: Who asks, by their own word; the account is that of this process.
        role: As what.
        payload: Details.
        reactor_id: Only this one; all by default.

    Returns:
        Reactor and ticket of each command.

    Raises:
        ConfigError: If the folder has no such reactor, nobody runs that could stop, the decision
            does not wait, the alarm does not stand, or the hours make no sense.
    """
    if kind == "stop" and not is_running(folder):
        raise ConfigError(f"{folder} is not running; there is nothing to stop.")
    with opened(folder) as records:
        names = [n for n in reactors(records) if reactor_id in (None, n)]
        if not names:
            raise ConfigError(f"{folder} has no reactor {reactor_id or ''}.".replace(" .", "."))
        for name in names:
            _check(status_of(folder, records, name, is_running=False), kind, payload or {})
        return [(n, records.send(n, kind, actor=actor, role=role, payload=payload)) for n in names]


def outcomes(
    folder: Path,
    sent: Sequence[tuple[str, str]],
    *,
    sleep: Callable[[float], object],
    within_s: float = 5.0,
) -> dict[str, str | None]:
    """What a running twin made of commands, by reactor; `None` where it has not answered yet.

    Args:
        folder: Run folder.
        sent: Reactors and tickets from `send`.
        sleep: Waits [s].
        within_s: How long an answer is waited for [s]; none is where nothing runs.
    """
    with opened(folder) as records:
        for _ in range(max(round(within_s / _LOOK_S), 1)):
            found = {name: records.outcome(ticket) for name, ticket in sent}
            if None not in found.values() or not is_running(folder):
                break
            sleep(_LOOK_S)
        return {name: records.outcome(ticket) for name, ticket in sent}


def _check(stands: ReactorStatus, kind: str, payload: Mapping[str, Any]) -> None:
    """Refuse what no twin could carry out, while the person who asks is still there."""
    if kind in ("approve", "reject"):
        _among("decision", payload.get("decision"), [d.id for d in stands.waiting], stands)
    if kind in ("acknowledge", "suppress"):
        _among("alarm", payload.get("alarm"), [a.id for a in stands.alarms], stands)
    hours = payload.get("hours", 1.0)
    if kind == "suppress" and not 0.0 < float(hours) <= MOST_HOURS:
        raise ConfigError(
            f"an alarm is suppressed for more than 0 and up to {MOST_HOURS:g} h; given {hours}."
        )


def _among(what: str, number: Any, known: list[int], stands: ReactorStatus) -> None:
    if number not in known:
        raise ConfigError(
            f"{stands.reactor_id} has no {what} {number} that stands; "
            + (f"it has {', '.join(map(str, known))}." if known else "it has none.")
        )


def waiting_decision(place: Path, reactor_id: str | None) -> tuple[Path, str, Decision]:
    """The one decision at a place that may be waiting for approval, its folder and reactor.

    Raises:
        ConfigError: If there is none, or more than one.
    """
    found = [
        (folder, s.reactor_id, d)
        for folder in find_runs(place, reactor_id)
        for s in status(folder)
        for d in s.waiting
        if reactor_id in (None, s.reactor_id)
    ]
    if len(found) != 1:
        raise ConfigError(
            f"{place} has {len(found)} decisions waiting; name one with --decision, or the "
            "reactor with --reactor."
        )
    return found[0]


@dataclass(frozen=True)
class ReplayReport:
    """What deciding a whole journal again came to."""

    n_decisions: int
    n_same: int
    differing: tuple[str, ...]
    """One line for each decision that came out otherwise."""
    skipped: tuple[str, ...]
    """Days without a decision by the model, or whose inputs are not in the journal."""

    @property
    def ok(self) -> bool:
        """Whether every decision came out the same, byte for byte."""
        return not self.differing

    def __str__(self) -> str:
        """A paragraph for a person."""
        head = f"{self.n_same} of {self.n_decisions} decisions came out the same, byte for byte"
        return "\n".join([head, *self.differing, *(f"skipped: {s}" for s in self.skipped)])


def replay(
    records: RunRecords,
    reactor_id: str,
    brain: Brain,
    initial: Mapping[str, float],
    *,
    given: Sequence[str] = (),
) -> ReplayReport:
    """Decide a whole journal again and compare what comes out with what is written there.

    Args:
        records: The journal.
        reactor_id: Reactor.
        brain: Fresh, as at the start of the run.
        initial: Set-points where nobody could say, as at the start.
        given: Controls that act at their own sample only.

    Returns:
        The report. Set-points and digest are compared as canonical bytes.
    """
    differing, skipped, n_same, n = [], [], 0, 0
    cadence = sampled(records, reactor_id)
    for decision in records.decisions(reactor_id):
        kept = decision.payload
        where = f"day {decision.day:g}"
        if not kept.get("digest") or "last_sample" not in kept:
            skipped.append(f"{where}: no decision of a model")
            continue
        samples = [
            s.values
            for s in records.samples(reactor_id, up_to=kept["last_sample"])
            if s.day <= decision.day
        ]
        rows = rows_of(samples, initial, cadence, given=given)
        readings = records.readings(reactor_id, until_h=float(rows[-1]["time_h"]))
        grids = {n: Grid(step, origin) for n, step, origin in kept.get("grids", ())}
        situation = Situation(
            as_day(decision.day), rows, kept["u_now"], kept["fixed"], readings, grids
        )
        brain.learn(situation)
        made = brain.propose(situation)
        n += 1
        then = {"recommended": kept["recommended"], "digest": kept["digest"]}
        now = {"recommended": plain(dict(made.setpoints))[0], "digest": made.digest}
        if dump(then) == dump(now):
            n_same += 1
        else:
            differing.append(f"{where}: {dump(now)} instead of {dump(then)}")
    return ReplayReport(n, n_same, tuple(differing), tuple(skipped))


def status_of(folder: Path, records: RunRecords, name: str, *, is_running: bool) -> ReactorStatus:
    """Where one reactor stands.

    Args:
        folder: Run folder.
        records: Its journal.
        name: Reactor.
        is_running: Whether a process holds the folder.
    """
    cycles = records.cycles(name)
    last = max(cycles, default=None)
    session = Session({}, is_armed=True)
    handled = records.handled(name)
    session.recover(handled, (), ())
    sessions = [c.payload.get("allow_write") for c in handled if c.kind == "session"]
    is_advising = sessions[-1:] == [False] and not session.is_manual
    lease = records.lease(name)
    return ReactorStatus(
        folder=folder,
        reactor_id=name,
        is_running=is_running,
        n_days=len(cycles),
        last_day=last,
        last_outcome="" if last is None else cycles[last],
        mode="advising" if is_advising else session.mode,
        overridden=tuple(sorted(session.overridden)),
        n_open_writes=len(records.pending(name)),
        commands=tuple(records.waiting(name)),
        waiting=tuple(d for d in records.decisions(name) if d.day not in cycles),
        alarms=tuple(records.standing_alarms(name)),
        holder="" if lease is None or not is_running else lease[1],
        cadence=sampled(records, name),
    )
