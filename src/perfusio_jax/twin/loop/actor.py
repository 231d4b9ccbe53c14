"""Acting on a proposal: journal the decision, ask, gate, write, until it holds or may not be."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from perfusio_jax._core import StopRun

from ..alarms.desk import AlarmDesk, event
from ..alarms.events import AlarmEvent
from ..decision.brain import Proposal, Situation
from ..decision.gate import GateVerdict
from ..records.audit import AuditLogger
from ..records.entries import Intent
from ..records.records_file import RunRecords
from ..records.runtime import Runtime
from .attendant import Attendant
from .device_watch import DeviceWatch
from .session import Session
from .settings import LoopSettings
from .writer import Basis, ReadBack, SetpointWriter

UNSETTLED = "an earlier write is not settled yet: the device could not be read back"


class Actor:
    """Carries out what was decided for one reactor, as far as it may.

    Args:
        writer: The way to the device.
        watch: Sees what others moved.
        attendant: Commands, approvals, clocks.
        desk: Alarms.
        records: Journal.
        audit: Audit trail.
        session: State of the session.
        settings: Of the loop.
        runtime: Threads.
        say: Called with one line about what is going on.
    """

    def __init__(
        self,
        writer: SetpointWriter,
        watch: DeviceWatch,
        attendant: Attendant,
        desk: AlarmDesk,
        records: RunRecords,
        *,
        audit: AuditLogger,
        session: Session,
        settings: LoopSettings,
        runtime: Runtime,
        say: Callable[[str], None],
    ) -> None:
        self.writer, self.watch = writer, watch
        self.attendant, self.desk = attendant, desk
        self.records, self.audit, self.session = records, audit, session
        self.settings = settings
        self._rt = runtime
        self._say = say

    async def act(
        self,
        basis: Basis,
        proposal: Proposal,
        trouble: str,
        is_settled: bool,
        situation: Situation,
    ) -> tuple[GateVerdict, str]:
        """Decide, ask, gate and write, until the device holds it or nothing more may be done."""
        day, reactor = basis.day, self.settings.reactor_id
        lost = event("session", "write", "the device does not take set-points", day)
        intents = await self._rt.offload(lambda: self.records.intents(reactor))
        n_sent = sum(i.day == day and i.outcome != "failed" for i in intents)
        verdict = GateVerdict("hold", {})
        read_back: ReadBack = situation.u_now
        outdated = ""
        open_write = next((i for i in intents if i.day == day and i.outcome is None), None)
        if open_write is not None and not is_settled:
            is_settled = await self.writer.settle(day)
            if not is_settled:
                return await self._leave_open(open_write, basis, proposal, read_back)
        for _ in range(n_sent, self.settings.max_writes):
            asked = self._asked(basis, proposal, read_back)
            number = await self._record_decision(basis, proposal, situation, asked)
            is_approved = await self._approval(number, basis, asked, proposal)
            await self.attendant.look(day)
            clock = await self.attendant.check_clocks(day)
            if clock:
                basis = replace(basis, vetoes=(*basis.vetoes, clock))
            if not is_settled:
                is_settled = await self.writer.settle(day)
            read_back = await self.writer.read_back(day)
            await self.watch.note_edits(day, read_back)
            verdict = self.writer.judge(
                proposal.setpoints, basis, read_back, is_approved=is_approved
            )
            outdated = self._outdated(verdict, asked) if is_approved else ""
            if outdated:
                await self._log(
                    "APPROVAL_OUTDATED",
                    {"decision": number},
                    day=day,
                    old=asked,
                    new=dict(verdict.setpoints),
                    reason=outdated,
                )
                continue
            if not is_settled and verdict.is_write:
                verdict = GateVerdict("hold", {}, (*verdict.reasons, UNSETTLED))
            if trouble and not verdict.is_write:
                verdict = GateVerdict(verdict.action, {}, (*verdict.reasons, trouble))
            await self._log_decision(number, verdict, basis, proposal, read_back)
            if self.attendant.is_stopping:
                return verdict, "stopped"
            if verdict.action == "disarm":
                await self.attendant.disarm("; ".join(verdict.reasons), "system", day)
            if not verdict.is_write:
                return verdict, verdict.action
            try:
                is_written = await self.writer.write(number, verdict, basis, read_back)
            except StopRun:
                return verdict, "stopped"
            if is_written:
                await self.desk.clear(lost)
                return verdict, "written" if verdict.action == "write" else "fallback"
            if is_written is None:
                await self.desk.raise_one(_unsettled(day))
                return verdict, "unsettled"
        if outdated:
            return GateVerdict("hold", {}, (*verdict.reasons, outdated)), "hold"
        await self.desk.raise_one(lost)
        why = (
            f"the device did not take the set-points in {self.settings.max_writes} tries; one "
            "that rounds to coarser steps is told so by resolution in [twin]"
        )
        held = GateVerdict("hold", {}, (*verdict.reasons, why))
        await self._log(
            "WRITE_GIVEN_UP", {"setpoints": dict(verdict.setpoints)}, day=day, reason=why
        )
        return held, "hold"

    async def _leave_open(
        self, intent: Intent, basis: Basis, proposal: Proposal, read_back: ReadBack
    ) -> tuple[GateVerdict, str]:
        """Send nothing and let the day's decision stand: nobody can say whether its write arrived.

        Deciding anew would replace it, which the journal refuses while its write is open.
        """
        verdict = GateVerdict("hold", {}, (UNSETTLED,))
        await self._log_decision(intent.decision_id, verdict, basis, proposal, read_back)
        await self.desk.raise_one(_unsettled(basis.day))
        return verdict, "stopped" if self.attendant.is_stopping else "hold"

    async def _log_decision(
        self,
        number: int,
        verdict: GateVerdict,
        basis: Basis,
        proposal: Proposal,
        read_back: ReadBack,
    ) -> None:
        await self._log(
            "DECISION_MADE",
            {
                "decision": number,
                "recommended": printable(proposal.setpoints),
                "action": verdict.action,
                "setpoints": dict(verdict.setpoints),
                "reasons": list(verdict.reasons),
                "mode": self.session.mode,
                "explanation": dict(proposal.explanation),
            },
            day=basis.day,
            state_sha256=proposal.digest or None,
            old=dict(read_back),
            new=dict(verdict.setpoints),
            reason="; ".join(verdict.reasons) or "within all limits",
        )

    def _asked(self, basis: Basis, proposal: Proposal, read_back: ReadBack) -> dict[str, Any]:
        """What would be sent now if it were approved; what is recommended where nothing would."""
        would = self.writer.judge(proposal.setpoints, basis, read_back, is_approved=True)
        return dict(would.setpoints) if would.action == "write" else printable(proposal.setpoints)

    def _outdated(self, verdict: GateVerdict, asked: Mapping[str, Any]) -> str:
        """Why an approval does not cover what would be sent; empty if it does."""
        if not self.settings.approvals or verdict.action != "write":
            return ""
        other = [n for n, v in verdict.setpoints.items() if asked.get(n) != v]
        if not other:
            return ""
        text = ", ".join(
            f"{n} {verdict.setpoints[n]:.12g} instead of {asked.get(n, 'nothing')}" for n in other
        )
        return f"what could be sent is no longer what was approved: {text}"

    async def _record_decision(
        self,
        basis: Basis,
        proposal: Proposal,
        situation: Situation,
        asked: Mapping[str, Any],
    ) -> int:
        reactor = self.settings.reactor_id

        def record() -> int:
            payload = {
                "recommended": printable(proposal.setpoints),
                "setpoints": dict(asked),
                "grids": [[n, *grid] for n, grid in situation.grids.items()],
                "digest": proposal.digest,
                "u_now": dict(situation.u_now),
                "fixed": dict(situation.fixed),
                "last_sample": self.records.last_sample(reactor) if situation.rows else 0,
            }
            return self.records.record_decision(
                reactor,
                basis.day,
                payload,
                supersedes_because="decided again, after a restart or on other data",
            )

        return await self._rt.offload(record)

    async def _approval(
        self, number: int, basis: Basis, asked: Mapping[str, Any], proposal: Proposal
    ) -> bool:
        """Whether those who must agree do; waits for them as long as the settings say."""
        settings = self.settings
        may_write = self.session.is_armed and not self.session.is_manual
        asks = settings.approvals and settings.allow_write and basis.day >= settings.startup_days
        if not asks or not may_write or not asked:
            return not settings.approvals
        self.attendant.enter("waiting")
        self._say(f"day {basis.day:g}: decision {number} waits for {', '.join(settings.approvals)}")
        await self._log(
            "APPROVAL_ASKED",
            {
                "decision": number,
                "roles": list(settings.approvals),
                "explanation": dict(proposal.explanation),  # whoever has to agree wants to know why
            },
            day=basis.day,
            new=dict(asked),
        )
        is_given = await self.attendant.approval(number, basis.day)
        self.attendant.enter("writing")
        return is_given

    async def _log(self, kind: str, payload: Mapping[str, Any], **more: Any) -> None:
        await self._rt.offload(lambda: self.audit.log(kind, payload, **more))


def _unsettled(day: float) -> AlarmEvent:
    note = "the outcome of a write is unknown; nothing is sent until it is settled"
    return event("session", "write", note, day, severity="critical")


def printable(setpoints: Mapping[str, Any]) -> dict[str, Any]:
    """Set-points as they were asked for, also where they are no numbers."""
    return {
        str(n): float(v) if isinstance(v, (int, float)) and v - v == 0 else repr(v)
        for n, v in setpoints.items()
    }
