"""One reactor's loop: everything with effects around a pure decision and a pure gate.

One cycle, of a day or of whatever time lies between two samples:

    settle what is open -> sample -> validate -> journal -> learn -> propose -> alarms ->
    journal the decision -> approval -> gate -> journal the intent -> audit -> write ->
    read back -> audit -> journal the result -> close the cycle

A crash between any two arrows is recovered from the journal: no sample is lost or doubled,
and a write whose outcome is unknown is settled by reading back, never sent again blindly.
The loop knows no model: clocks, connector, brain and files are given to it.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from perfusio_jax._core import (
    AuditError,
    RunLockedError,
    StopRun,
)
from perfusio_jax._core.instants import as_day

from ..alarms.daily_alarms import raise_alarms
from ..alarms.desk import AlarmDesk, event
from ..alarms.events import AlarmEvent, Foreseen
from ..alarms.notifications import AlarmNotifier
from ..decision.brain import Brain, Lesson, Proposal, Situation
from ..decision.checks import expectations
from ..decision.gate import GateVerdict
from ..decision.gate_limits import GateLimits
from ..records.audit import AuditLogger
from ..records.entries import JournalError, Stage
from ..records.records import append_recommendation, store_forecast
from ..records.records_file import RunRecords
from ..records.runtime import Runtime, ended
from ..records.secrets import in_short
from .actor import Actor, printable
from .attendant import Attendant
from .device_watch import DeviceWatch
from .line import SourceLine
from .mirror import AuditArchive, AuditMirror
from .reader import NotReady, SampleReader
from .scheduler import DailyScheduler
from .session import Session
from .settings import LoopSettings
from .thinker import Thinker
from .writer import Basis, ReadBack, SetpointWriter

_T = TypeVar("_T")

BACK_OFF_S = (1.0, 5.0, 15.0, 60.0)
"""Waits [s] after a cycle that its own records stopped; the last one repeats."""


@dataclass(frozen=True)
class CycleResult:
    """What one cycle came to."""

    day: float
    """Culture day [d]; a fraction between two whole ones."""
    outcome: str
    """"done before", "written", "fallback", "hold", "disarm", "unsettled" or "stopped"."""
    sample: dict[str, Any] | None = None
    proposal: Proposal | None = None
    verdict: GateVerdict | None = None
    alarms: tuple[AlarmEvent, ...] = ()
    lesson: Lesson | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds each part took."""


class ReactorLoop:
    """Drives one reactor.

    Args:
        connector: Source of samples and sink of set-points.
        brain: Learns and proposes.
        folder: Run folder, for recommendations and forecasts; `None`: they are not written.
        records: Journal.
        audit: Audit trail.
        limits: Of the gate.
        settings: Everything else a person may choose.
        runtime: Clocks and threads.
        notifier: Alarms.
        say: Called with one line about what is going on.
        archive: Database that gets a copy of the audit trail; `None`: there is no copy.
    """

    def __init__(
        self,
        connector: Any,
        brain: Brain,
        *,
        folder: Path | None,
        records: RunRecords,
        audit: AuditLogger,
        limits: GateLimits,
        settings: LoopSettings,
        runtime: Runtime,
        notifier: AlarmNotifier | None = None,
        say: Callable[[str], None] | None = None,
        archive: AuditArchive | None = None,
    ) -> None:
        self.connector, self.brain = connector, brain
        self.folder, self.records, self.audit = folder, records, audit
        self.limits, self.settings, self.notifier = limits, settings, notifier
        self._rt = runtime
        self._say = say or (lambda _: None)
        self.session = Session(limits.resolution)
        self.desk = AlarmDesk(
            records, audit, notifier, runtime=runtime, reactor_id=settings.reactor_id
        )
        self.attendant = Attendant(
            connector, records, audit, self.session, self.desk, settings=settings, runtime=runtime
        )
        self.writer = SetpointWriter(
            connector,
            records,
            audit,
            self.session,
            limits=limits,
            settings=settings,
            runtime=runtime,
            is_stopping=lambda: self.attendant.is_stopping,
        )
        self.reader = SampleReader(
            connector,
            records,
            audit,
            self.session,
            settings=settings,
            runtime=runtime,
            pause=self.attendant.pause,
            line=SourceLine(self.desk, runtime, patience_s=settings.line_seconds, say=self._say),
        )
        self.thinker = Thinker(
            brain, audit, self.desk, runtime=runtime, timeout_s=settings.compute_timeout_s
        )
        self.watch = DeviceWatch(
            self.writer,
            self.attendant,
            self.desk,
            records,
            audit,
            self.session,
            settings,
            runtime,
        )
        self.actor = Actor(
            self.writer,
            self.watch,
            self.attendant,
            self.desk,
            records,
            audit=audit,
            session=self.session,
            settings=settings,
            runtime=runtime,
            say=self._say,
        )
        self.mirror = (
            None
            if archive is None
            else AuditMirror(
                audit,
                archive,
                self.desk,
                runtime=runtime,
                timeout_s=settings.call_timeout_s,
                day=lambda: self.attendant.day,
                reactor_id=settings.reactor_id,
            )
        )
        self._last: tuple[Proposal, float] | None = None
        self.scheduler: DailyScheduler | None = None
        self.session.is_armed = settings.allow_write
        self.session.recover(
            records.handled(settings.reactor_id),
            records.intents(settings.reactor_id),
            records.samples(settings.reactor_id),
        )
        if not settings.allow_write:  # whatever an earlier session, that might write, was told
            self.session.is_armed = False

    # ------------------------------------------------------------------ running

    async def run(
        self, n_days: float, *, first_day: float = 0, interval_seconds: float = 0.0
    ) -> None:
        """Run cycle by cycle, from the first that is not closed, until the days are over.

        Args:
            n_days: Culture days in all; as many cycles as are due in them, the first one at
                their beginning.
            first_day: Culture day of the first cycle [d].
            interval_seconds: Least real time between two cycles [s].

        Raises:
            NotReady: If a sample does not come and `on_missed` is "end".
            RunLockedError: If another process has taken the reactor over.
        """
        await self._rt.offload(self._forget_old_stops)
        cadence = self.settings.cadence
        done = await self._rt.offload(lambda: self.cycles_done(first_day))
        scheduler = DailyScheduler(
            lambda number: self._day(cadence.day(number)),
            max(cadence.count(n_days) - done, 0),
            interval_seconds=interval_seconds,
            start_day=cadence.number(first_day) + done,
            sleep=self._rt.sleep,
            clock=self._rt.monotonic,
            wall_clock=self._rt.monotonic,
        )
        self.scheduler = scheduler
        self.attendant.on_stop(scheduler.stop)
        beside = [asyncio.create_task(self.attendant.attend(self._online))]
        if self.mirror is not None:
            beside.append(asyncio.create_task(self.mirror.follow()))
        try:
            await scheduler.run()
        finally:
            lost = (await ended(*beside))[0]
            self.attendant.on_stop(None)
            self.scheduler = None
            await self._end(scheduler)
        if isinstance(lost, RunLockedError):
            raise lost

    async def _end(self, scheduler: DailyScheduler) -> None:
        last_day = self.settings.cadence.day(scheduler.completed_day)
        details = {"ending": scheduler.ending, "last_day": last_day}

        def finish() -> None:
            self.audit.log("RUN_ENDED", details)
            self.audit.flush()

        try:
            await self.desk.drain(self.settings.call_timeout_s)
            await self._rt.offload(finish)
            await self.copy_audit()
        except (AuditError, JournalError) as error:
            if scheduler.ending != "failed":
                raise
            self._say(f"the end of the run could not be recorded: {in_short(error)}")

    async def copy_audit(self) -> None:
        """Bring the database's copy of the audit trail up to now, if it can be done in time."""
        if self.mirror is not None and await self.mirror.catch_up(is_last=True):
            await self.mirror.catch_up(is_last=True)  # alarms of the first one are records, too

    async def _day(self, day: float) -> None:
        """One cycle, tried again while only its own records fail."""
        started, tries = self._rt.monotonic(), 0
        while True:
            try:
                result = await self.cycle(day)
            except (JournalError, AuditError) as error:
                trouble = in_short(error)
                self._say(f"day {day:g}: the records cannot be written: {trouble}")
                if tries == 0:
                    note = f"nothing is written to the reactor, for the records fail: {trouble}"
                    self.desk.tell(
                        [event("session", "records", note, day, severity="critical")], day
                    )
                if self._rt.monotonic() - started > self.settings.patience_seconds + 3600.0:
                    raise
                if await self.attendant.pause(BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)]):
                    raise StopRun(f"stopped while the records of day {day:g} failed") from error
                tries += 1
                continue
            if result.outcome == "stopped":
                raise StopRun(f"stopped on day {day:g}")
            return

    @property
    def runtime(self) -> Runtime:
        """Clocks and threads."""
        return self._rt

    def stop(self) -> None:
        """Ask for the end: nothing more is written; a cycle at hand ends without its write."""
        self.attendant.stop("this program")

    def _forget_old_stops(self) -> None:
        """A stop that nobody was there to hear is not for this run."""
        for command in self.records.incoming(self.settings.reactor_id):
            if command.kind == "stop":
                self.records.mark(command.id, "too late: nothing was running")

    def cycles_done(self, first_day: float) -> int:
        """How many cycles from that of the first day [d] on are closed without a gap."""
        cadence, done = self.settings.cadence, 0
        first = cadence.number(first_day)
        while self.records.is_closed(self.settings.reactor_id, cadence.day(first + done)):
            done += 1
        return done

    def take_lease(self, holder: str, *, force: bool) -> None:
        """Become the one who writes to this reactor.

        Args:
            holder: Who asks, for people.
            force: Whether the last holder is known to be dead.

        Raises:
            RunLockedError: If another's lease has not run out.
        """
        ttl = dt.timedelta(seconds=self.settings.lease_seconds)
        reactor = self.settings.reactor_id
        lease = self.records.take_lease(reactor, holder, ttl, force=force)
        self.writer.lease = self.attendant.lease = lease

    def release_lease(self) -> None:
        """Give the reactor back."""
        if self.writer.lease is not None:
            self.records.release_lease(self.settings.reactor_id, self.writer.lease)

    async def _online(self) -> None:
        """Read online tags, and raise alarms on what they say of now and of the days ahead."""
        readings = await self.reader.read_online(self.attendant.day)
        if not readings or self.notifier is None or self.attendant.phase != "waiting":
            return
        day = self.attendant.day
        rows = await self.reader.rows()
        if not rows:
            return
        since = float(rows[-1]["time_h"])
        found = await self._rt.offload(
            lambda: self.records.readings(self.settings.reactor_id, since_h=since)
        )
        shown = {r.tag: r.value for r in readings if r.quality == "good"}
        now = [replace(e, kind="online") for e in self.notifier.check_sample(shown, day)]
        u_now = self._in_force(await self.writer.read_back(day))
        situation = Situation(as_day(rows[-1]["day"]), rows, u_now, {}, found)
        try:
            outlook = await self.thinker.compute(lambda: self.brain.outlook(situation))
        except Exception as error:  # readings must never end a run
            await self._log("ONLINE_UNUSED", {}, day=day, reason=in_short(error))
            for cause in now:
                await self.desk.raise_one(cause)
            return
        events = []
        if outlook is not None and outlook.forecast is not None:
            events = self.notifier.check_forecast(outlook.forecast, outlook.species, situation.day)
            self.desk.foreseen = Foreseen(situation.day, tuple(outlook.species), outlook.forecast)
        ahead = [replace(e, kind="online") for e in events]
        await self.desk.update("online", [*now, *ahead], day)

    # ------------------------------------------------------------------ one cycle

    async def cycle(self, day: float) -> CycleResult:
        """One cycle.

        Args:
            day: Its culture day [d].

        Raises:
            NotReady: If the sample does not come and `on_missed` is "end".
            JournalError: If the journal fails; the cycle may be tried again.
            AuditError: If the audit trail fails; the same.
        """
        reactor = self.settings.reactor_id
        marks: dict[str, float] = {}
        clock = [self._rt.monotonic()]

        def mark(what: str) -> None:
            clock.append(self._rt.monotonic())
            marks[what] = clock[-1] - clock[-2]

        await self.attendant.look(day)
        self.attendant.enter("settling")
        is_settled = await self.writer.settle(day)
        if await self._rt.offload(lambda: self._is_over(day)):
            self._say(f"day {day:g}: already done")
            return CycleResult(day, "done before")
        self._say(f"day {day:g}: waiting for the sample")
        self.attendant.enter("waiting")
        try:
            record = await self.reader.wait(day, lambda: self._look_at_device(day))
        except NotReady:
            if self.settings.on_missed == "end":
                raise
            return await self._blind(day, is_settled)
        if record is None:
            return CycleResult(day, "stopped")
        self.attendant.enter("reading")
        self.session.tell(record)
        read_back = await self.writer.read_back(day)
        await self.watch.note_edits(day, read_back)
        late = await self.reader.look_back(day)
        if late:
            days = ", ".join(f"{past:g}" for past in late)
            self._say(f"day {day:g}: samples of days [{days}] came late or were corrected")
        age = record["age_h"]
        bounds = self.settings.species_bounds
        expected = (
            {}
            if self._last is None
            else expectations(self._last[0].forecast, self._last[0].species, day, bounds)
        )
        record = await self.reader.store(day, record, read_back=read_back, expected=expected)
        mark("read")
        await self.writer.learn_grid(day)
        situation = await self._situation(day, read_back)
        self.attendant.enter("learning")
        lesson = await self.thinker.learn(situation)
        mark("learn")
        self._say(f"day {day:g}: deciding")
        self.attendant.enter("deciding")
        proposal, trouble = await self.thinker.propose(situation, self.writer.limits)
        mark("decide")
        self.attendant.enter("alarms")
        alarms = await raise_alarms(
            self.desk, self.notifier, day, record=record, proposal=proposal, trouble=trouble
        )
        self.attendant.enter("writing")
        basis = Basis(
            day,
            float(record["time_h"]),
            age,
            record["quality"],
            tuple(record["implausible"]),
            volume_L=proposal.volume_L,
        )
        verdict, outcome = await self.actor.act(basis, proposal, trouble, is_settled, situation)
        if self.session.reset and outcome in ("written", "fallback", "hold"):
            await self.watch.restore(basis)
        mark("write")
        if outcome == "stopped":
            return CycleResult(day, outcome, record, proposal, verdict)
        await self._copies(day, proposal, verdict)
        await self._rt.offload(lambda: self.records.close_cycle(reactor, day, outcome))
        self._last = (proposal, day)
        self._say(f"day {day:g}: {_in_words(proposal.setpoints, verdict)}")
        self.attendant.enter("idle")
        return CycleResult(day, outcome, record, proposal, verdict, tuple(alarms), lesson, marks)

    async def _look_at_device(self, day: float) -> None:
        """While a sample is waited for: whether the device forgot what it was told."""
        if not self.watch.is_due:
            return
        reactor = self.settings.reactor_id
        newest = await self._rt.offload(lambda: self.records.newest_sample(reactor))
        last = None if newest is None else newest.values
        self.attendant.enter("reading")
        await self.watch.look(day, last, self.reader.culture_hours(self._rt.now()))
        self.attendant.enter("waiting")

    def _is_over(self, day: float) -> bool:
        """Whether a cycle is closed; one whose write is all that was left is closed now."""
        reactor = self.settings.reactor_id
        if self.records.is_closed(reactor, day):
            return True
        if self.records.stage(reactor, day) is not Stage.DONE:
            return False
        self.records.close_cycle(reactor, day, "written before a restart")
        return True

    async def _blind(self, day: float, is_settled: bool) -> CycleResult:
        """A cycle without a sample: hold, and after a time the fallback recipe, or disarm."""
        read_back = await self.writer.read_back(day)
        await self.watch.note_edits(day, read_back)
        note = f"day {day:g} has no sample"
        await self.desk.raise_one(event("quality", "sample", note, day))
        basis = Basis(day, self.settings.cadence.due(day), None, "missing", (note,))
        situation = Situation(day, (), self._in_force(read_back))
        proposal = Proposal({})
        verdict, outcome = await self.actor.act(basis, proposal, note, is_settled, situation)
        if outcome == "stopped":
            return CycleResult(day, outcome, None, proposal, verdict)
        await self._copies(day, proposal, verdict)
        await self._rt.offload(
            lambda: self.records.close_cycle(self.settings.reactor_id, day, outcome)
        )
        self._say(f"day {day:g}: no sample; {_in_words({}, verdict)}")
        self.attendant.enter("idle")
        return CycleResult(day, outcome, None, proposal, verdict)

    async def _situation(self, day: float, read_back: ReadBack) -> Situation:
        rows = await self.reader.rows()
        readings = await self._rt.offload(
            lambda: self.records.readings(
                self.settings.reactor_id, until_h=float(rows[-1]["time_h"])
            )
        )
        u_now = self._in_force(read_back)
        fixed = {n: u_now[n] for n in sorted(self.session.overridden)}
        return Situation(day, rows, u_now, fixed, readings, self.writer.limits.grids)

    def _in_force(self, read_back: ReadBack) -> dict[str, float]:
        """Set-points to reckon with: what the device says, else what is believed."""
        believed = self.session.believed(self.settings.initial_controls)
        values = {n: read_back.get(n) for n in self.settings.controls}
        return {n: float(believed[n] if v is None else v) for n, v in values.items()}

    async def _copies(self, day: float, proposal: Proposal, verdict: GateVerdict) -> None:
        """Recommendations and forecasts for people; a full disk here stops nothing."""
        folder, reactor = self.folder, self.settings.reactor_id
        if folder is None:
            return

        def write() -> None:
            store_forecast(folder, proposal, reactor_id=reactor, day=day)
            append_recommendation(
                folder,
                proposal,
                verdict,
                reactor_id=reactor,
                day=day,
                at=self._rt.now(),
                controls=self.settings.controls,
                odds=self.settings.odds,
            )

        try:
            await self._rt.offload(write)
        except (OSError, ValueError) as error:
            await self._log("COPY_NOT_WRITTEN", {}, day=day, reason=in_short(error))

    async def _log(self, kind: str, payload: Mapping[str, Any], **more: Any) -> None:
        await self._rt.offload(lambda: self.audit.log(kind, payload, **more))


def _in_words(wanted: Mapping[str, float], verdict: GateVerdict) -> str:
    """One line: what is recommended and what became of it."""
    shown = {
        n: f"{v:.12g}" if isinstance(v, float) else repr(v) for n, v in printable(wanted).items()
    }
    listed = ", ".join(f"{name} {value}" for name, value in shown.items())
    text = f"recommends {listed or 'nothing'}"
    if verdict.is_write:
        text += f"; {'written' if verdict.action == 'write' else 'fallback written'}"
    else:
        text += "; not written"
    return text + (f": {'; '.join(verdict.reasons)}" if verdict.reasons else "")
