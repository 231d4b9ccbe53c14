"""Who moved a set-point: an operator, whose hand is respected, or a device that lost its memory.

What an operator moved is left alone until the session is armed again. What a device forgot in a
restart is sent once more: the decision that stands, through the gate and against the read-back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from perfusio_jax._core.instants import as_day

from ..alarms.desk import AlarmDesk, event
from ..decision.gate import operator_edits
from ..decision.resets import Evidence, ReadBack, forgotten
from ..records.audit import AuditLogger
from ..records.records_file import RunRecords
from ..records.runtime import Runtime
from .attendant import Attendant
from .session import Session
from .settings import LoopSettings
from .writer import Basis, SetpointWriter


@dataclass
class DeviceWatch:
    """Watches the set-points of one device."""

    writer: SetpointWriter
    attendant: Attendant
    desk: AlarmDesk
    records: RunRecords
    audit: AuditLogger
    session: Session
    settings: LoopSettings
    runtime: Runtime
    _next_look_s: float = 0.0
    _held: str = ""
    _started: str | None = None

    async def note_edits(self, day: float, read_back: ReadBack) -> None:
        """Write down what was moved, and by whom."""
        evidence = await self._evidence()
        edited = self.session.edits(read_back) - self.session.overridden
        edited = frozenset(n for n in edited if not self._is_as_reset(n, read_back))
        if edited:
            reset = frozenset()
            if not self.writer.keeps_setpoints:
                known = (*self.session.defaults, self.settings.initial_controls)
                step = self.session.resolution
                reset = forgotten(self.session.plan, read_back, known, step, evidence) & edited
            if reset:
                await self._note_reset(day, reset, read_back)
            if edited - reset:
                await self._note_override(day, sorted(edited - reset), read_back)
        if any(v is not None for v in read_back.values()):
            await self._looked()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at the device between two samples."""
        can_forget = not self.writer.keeps_setpoints and bool(self.session.plan)
        return can_forget and self.runtime.monotonic() >= self._next_look_s

    async def look(self, day: float, sample: Mapping[str, Any] | None, now_h: float | None) -> None:
        """Look at the device between two samples, from time to time or if it was away.

        Args:
            day: Culture day that is waited for [d].
            sample: The last one, as the journal holds it; `None` before the first.
            now_h: Culture time now [h]; `None` if nobody can say.
        """
        if not self.is_due or sample is None:
            return
        self._next_look_s = self.runtime.monotonic() + self.settings.device_seconds
        evidence = await self._evidence()
        if not (evidence.has_restarted or self.session.was_away or self.session.reset):
            return
        await self.note_edits(day, await self.writer.read_back(day))
        if not self.session.reset:
            return
        time_h = float(sample["time_h"])
        age_h = None if now_h is None else max(now_h - time_h, 0.0)
        basis = Basis(
            as_day(sample["day"]),
            time_h + (age_h or 0.0),
            age_h,
            str(sample["quality"]),
            tuple(sample["implausible"]),
        )
        await self.restore(basis)

    async def restore(self, basis: Basis) -> bool:
        """Send what the device forgot once more, as far as the gate lets it.

        Args:
            basis: What is known of the culture.

        Returns:
            Whether the device holds it again.
        """
        session = self.session
        wanted = {n: session.plan[n] for n in session.reset if n in session.plan}
        if not wanted:
            session.reset.clear()
            return True
        reactor, day = self.settings.reactor_id, basis.day
        if not await self.writer.settle(day):
            return False
        read_back = await self.writer.read_back(day)
        verdict = self.writer.judge(wanted, basis, read_back, is_approved=True, is_restoring=True)
        decisions = await self.runtime.offload(lambda: self.records.decisions(reactor))
        intents = await self.runtime.offload(lambda: self.records.intents(reactor))
        acted = {i.decision_id for i in intents if i.outcome != "failed"}
        standing = next((d for d in reversed(decisions) if d.id in acted and d.day <= day), None)
        why = "" if verdict.action == "write" else "; ".join(verdict.reasons)
        if standing is None:
            why = "there is no decision that stands"
        elif sum(i.day == standing.day for i in intents) >= self.settings.max_writes:
            why = f"it was sent {self.settings.max_writes} times"
        if why or standing is None:
            if why != self._held:
                self._held = why
                await self._log("RESTORE_HELD", {"setpoints": wanted}, day=day, reason=why)
            return False
        self._held = ""
        because = "sent again: the device came back with its own set-points"
        number = await self.runtime.offload(
            lambda: self.records.record_decision(
                reactor,
                standing.day,
                {**standing.payload, "restores": standing.id, "setpoints": dict(verdict.setpoints)},
                supersedes_because=because,
            )
        )
        await self._log(
            "DECISION_RESTORED",
            {"decision": number, "restores": standing.id, "action": verdict.action},
            day=day,
            old={n: read_back.get(n) for n in wanted},
            new=dict(verdict.setpoints),
            reason="; ".join((because, *verdict.reasons)),
        )
        on_day = replace(basis, day=as_day(standing.day), implausible=(), vetoes=())
        is_written = await self.writer.write(number, verdict, on_day, read_back)
        if is_written and not session.reset:
            await self.desk.clear(_alarm(day))
        return bool(is_written)

    # ------------------------------------------------------------------ what happened

    async def _note_reset(self, day: float, names: frozenset[str], read_back: ReadBack) -> None:
        values = {n: v for n in sorted(names) if (v := read_back[n]) is not None}
        await self._log(
            "DEVICE_RESET",
            {"controls": sorted(values), "device_start": self.session.started},
            day=day,
            user="device",
            old={n: self.session.plan.get(n) for n in values},
            new=values,
            reason="the device restarted with set-points of its own",
        )
        payload = {"values": values, "all": dict(read_back)}
        reactor = self.settings.reactor_id
        await self.runtime.offload(
            lambda: self.records.keep(reactor, "device_reset", actor="device", payload=payload)
        )
        self.session.apply("device_reset", payload)
        note = f"the device restarted and forgot {', '.join(sorted(values))}"
        await self.desk.raise_one(_alarm(day, note))

    async def _note_override(self, day: float, names: list[str], read_back: ReadBack) -> None:
        await self._log(
            "OPERATOR_OVERRIDE",
            {"controls": names},
            day=day,
            user="operator",
            old={n: self.session.plan.get(n) for n in names},
            new={n: read_back[n] for n in names},
            reason="the device holds what this program did not write",
        )
        reactor = self.settings.reactor_id
        await self.runtime.offload(
            lambda: self.records.keep(
                reactor, "override", actor="operator", payload={"controls": names}
            )
        )
        self.session.apply("override", {"controls": names})

    def _is_as_reset(self, name: str, read_back: ReadBack) -> bool:
        """Whether a control still holds what the restart left there."""
        left = self.session.reset.get(name)
        step = self.session.resolution
        return left is not None and not operator_edits({name: left}, read_back, step)

    # ------------------------------------------------------------------ the device's start

    async def _evidence(self) -> Evidence:
        if self.writer.keeps_setpoints:
            return Evidence(False)
        started = await self.writer.device_start()
        was = self.session.started
        self._started = started
        if started is None:
            return Evidence(None, self.session.was_away)
        return Evidence(None if was is None else started != was, self.session.was_away)

    async def _looked(self) -> None:
        """The device answered: what it says of its start is known from here on."""
        self.session.was_away = False
        started = self._started
        if started is None or started == self.session.started:
            return
        payload, reactor = {"at": started}, self.settings.reactor_id
        await self.runtime.offload(
            lambda: self.records.keep(reactor, "device_start", actor="device", payload=payload)
        )
        self.session.apply("device_start", payload)

    async def _log(self, kind: str, payload: Mapping[str, Any], **more: Any) -> None:
        await self.runtime.offload(lambda: self.audit.log(kind, payload, **more))


def _alarm(day: float, note: str = "") -> Any:
    return event("session", "device", note, day, severity="critical")
