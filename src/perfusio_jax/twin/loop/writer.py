"""From a recommendation to the reactor: gate, journal, audit, write, read back, settle.

Nothing else in the package calls a connector's `write_setpoints`.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perfusio_jax._core import (
    HOURS_PER_DAY,
    DataError,
    PerfusioError,
    StopRun,
)

from ..decision.gate import GateRequest, GateVerdict, gate
from ..decision.gate_limits import GateLimits
from ..decision.grid import Grid
from ..records.audit import AuditLogger
from ..records.entries import Intent, Settlement, settled_as_written
from ..records.records_file import RunRecords
from ..records.runtime import Runtime
from ..records.secrets import in_short
from .session import Session
from .settings import LoopSettings

ReadBack = Mapping[str, float | None]

SETTLE_PAUSES_S = (0.0, 2.0, 10.0)
"""Waits [s] before each look at a device whose answer to a write was lost."""


@dataclass(frozen=True)
class Basis:
    """What a request to the gate rests on besides the set-points."""

    day: float
    time_h: float
    """Culture time of the sample, or of the cycle where there is none [h]."""
    age_h: float | None
    """Age of the sample [h]."""
    quality: str
    implausible: tuple[str, ...]
    vetoes: tuple[str, ...] = ()
    volume_L: float | None = None
    """Volume in the vessel [L], where it moves and somebody knows it."""


class SetpointWriter:
    """Writes to one reactor.

    Args:
        connector: Where set-points go.
        records: Journal.
        audit: Audit trail.
        session: State of the session; changed here.
        limits: Of the gate.
        settings: Of the loop.
        runtime: Clocks and threads.
        is_stopping: Whether a stop was asked for.
    """

    def __init__(
        self,
        connector: Any,
        records: RunRecords,
        audit: AuditLogger,
        session: Session,
        *,
        limits: GateLimits,
        settings: LoopSettings,
        runtime: Runtime,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._connector = connector
        self._records = records
        self._audit = audit
        self._session = session
        self._told = self.limits = limits
        """As a person told them; and on the grid the device says it has."""
        self._settings = settings
        self._rt = runtime
        self._is_stopping = is_stopping
        self._trouble: str | None = None
        self._grid_notes: list[str] = []
        self.keeps_setpoints = bool(getattr(connector, "keeps_setpoints", False))
        """Whether only people change set-points, as in a file or a database."""
        self.lease: int | None = None
        """Number of the lease under which is written."""

    # ------------------------------------------------------------------ read-back

    async def read_back(self, day: float = 0) -> dict[str, float | None]:
        """Set-points in force; `None` where nobody can say.

        A connector that has no read-back at all is believed to hold the plan; what is not in it
        is what came with the latest sample, else what the run is told to begin with. One that has
        and fails says nothing: then nothing may be written.
        """
        known = await self._device(day)
        if known is None:
            return dict.fromkeys(self._settings.controls)
        believed = self._session.believed(self._settings.initial_controls)
        return {n: known[n] if n in known else believed[n] for n in self._settings.controls}

    async def _device(self, day: float) -> dict[str, float | None] | None:
        """What the device itself says; `None` if it should answer and does not."""
        reader = next(
            (m for m in ("read_back", "read_setpoints") if has_own(self._connector, m)), None
        )
        if reader is None:
            simulated = getattr(self._connector, "controls", None)
            if isinstance(simulated, Mapping):
                return dict(simulated)
            await self._say_trouble("this connector cannot read back: the plan stands in", day)
            return {}
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                found = await getattr(self._connector, reader)()
        except (PerfusioError, TimeoutError, OSError) as error:
            self._session.was_away = True
            await self._say_trouble(in_short(error), day)
            return None
        self._trouble = None
        return {n: _usable(v) for n, v in found.items()}

    async def device_start(self) -> str | None:
        """When the device started, as it says; `None` where it does not say."""
        if not has_own(self._connector, "read_start"):
            return None
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                found = await self._connector.read_start()
        except (PerfusioError, TimeoutError, OSError):
            self._session.was_away = True
            return None
        return None if found is None else found.isoformat()

    async def _say_trouble(self, trouble: str, day: float) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            await self._log("READ_BACK_UNAVAILABLE", {}, day=day, reason=trouble)

    async def learn_grid(self, day: float) -> None:
        """Put the limits on the grid that the device says it has, if it says anything."""
        if not has_own(self._connector, "read_grids"):
            return
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                found = await self._connector.read_grids()
        except (PerfusioError, TimeoutError, OSError) as error:
            await self._say_trouble(in_short(error), day)  # what was known before stays
            return
        limits, notes = self._told.with_device({n: Grid(*pair) for n, pair in found.items()})
        if limits == self.limits and notes == self._grid_notes:
            return
        self.limits, self._grid_notes = limits, notes
        self._session.resolution = limits.resolution
        await self._log(
            "DEVICE_GRID",
            {n: list(grid) for n, grid in limits.grids.items()},
            day=day,
            reason="; ".join(notes) or "as the device says",
        )

    # ------------------------------------------------------------------ settlement

    async def settle(self, day: float) -> bool:
        """Settle open writes by reading back; whether none is open any more.

        That a write arrived is believed at once; that it did not, only at the last look.
        """
        tolerance = {n: 0.5 * r for n, r in self.limits.resolution.items()}
        for look, pause_s in enumerate(SETTLE_PAUSES_S, start=1):
            pending = await self._rt.offload(
                lambda: self._records.pending(self._settings.reactor_id)
            )
            if not pending:
                return True
            if pause_s:
                await self._rt.sleep(pause_s)
            device = await self._device(day)
            if not device:
                continue
            for intent in pending:
                arrived = settled_as_written(intent.setpoints, device, tolerance)
                if arrived or (arrived is False and look == len(SETTLE_PAUSES_S)):
                    await self._settle_one(intent, device, day)
        return not await self._rt.offload(lambda: self._records.pending(self._settings.reactor_id))

    async def _settle_one(self, intent: Intent, device: ReadBack, day: float) -> None:
        tolerance = {n: 0.5 * r for n, r in self.limits.resolution.items()}
        verdict = await self._rt.offload(
            lambda: self._records.settle(intent.id, device, current_day=day, tolerance=tolerance)
        )
        self._session.settled(intent, verdict, device)
        await self._log(
            "WRITE_SETTLED",
            {"intent": intent.id, "verdict": verdict.value, "read_back": dict(device)},
            day=day,
            reason="its outcome was unknown",
            new=intent.setpoints if verdict is Settlement.ARRIVED else None,
        )

    # ------------------------------------------------------------------ writing

    def judge(
        self,
        setpoints: Mapping[str, float],
        basis: Basis,
        read_back: ReadBack,
        *,
        is_approved: bool,
        is_restoring: bool = False,
    ) -> GateVerdict:
        """What the gate says of set-points now.

        Args:
            setpoints: What is asked for.
            basis: What it rests on.
            read_back: Values in force.
            is_approved: Whether those who must agree do.
            is_restoring: Whether a device is given back what it forgot: its jump away from what
                was written last is no reason to keep it there, so a whole day's step is open.
        """
        session, settings = self._session, self._settings
        last = session.last_write_day
        age = basis.age_h
        if age is None and not settings.require_age:
            age = 0.0
        vetoes = list(basis.vetoes)
        if session.is_manual:
            vetoes.append("the reactor is under manual control")
        if self._is_stopping():
            vetoes.append("the twin is stopping")
        request = GateRequest(
            setpoints=setpoints,
            read_back=read_back,
            data_age_h=age,
            hours_without_good_data=basis.time_h - (session.last_good_h or 0.0),
            quality=basis.quality,
            implausible=basis.implausible,
            allow_write=settings.allow_write and basis.day >= settings.startup_days,
            armed=session.is_armed,
            operator_override=session.overridden,
            hours_since_write=(
                HOURS_PER_DAY
                if last is None or is_restoring
                else max(settings.cadence.due(basis.day) - settings.cadence.due(last), 0.0)
            ),
            vetoes=tuple(vetoes),
            approved=is_approved,
            volume_L=basis.volume_L,
        )
        return gate(request, self.limits)

    async def write(
        self,
        decision: int,
        verdict: GateVerdict,
        basis: Basis,
        before: ReadBack,
    ) -> bool | None:
        """Send what the gate let through.

        Args:
            decision: Number of the standing decision in the journal.
            verdict: Of the gate, with something to write.
            basis: What it rests on.
            before: Read-back the gate judged by.

        Returns:
            True if the device holds it, False if it certainly does not, `None` if nobody can
            say: then nothing more is sent until it is settled.

        Raises:
            StopRun: If a stop was asked for before anything was sent.
        """
        setpoints = dict(verdict.setpoints)
        day, reactor = basis.day, self._settings.reactor_id
        self._session.before = dict(before)
        number = await self._rt.offload(
            lambda: self._records.open_intent(decision, setpoints, lease=self.lease)
        )
        await self._log(
            "WRITE_INTENDED",
            {"intent": number, "action": verdict.action},
            day=day,
            old={n: before.get(n) for n in setpoints},
            new=setpoints,
            reason="; ".join(verdict.reasons) or "within all limits",
        )
        # From this look to the first byte that leaves, nothing else runs.
        if self._is_stopping():
            await self._abandon(number, decision, "stopped before it was sent")
            raise StopRun(f"stopped before the set-points of day {day:g} were sent")
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await self._send(setpoints, basis)
        except (DataError, PermissionError) as error:
            await self._abandon(number, decision, in_short(error))
            return False
        except (PerfusioError, TimeoutError, OSError) as error:
            await self._log(
                "WRITE_UNCONFIRMED", {"intent": number}, day=day, reason=in_short(error)
            )
        else:
            device = await self._device(day)
            if device is not None:
                after = {n: device.get(n, setpoints[n]) for n in setpoints}
                if not self._session_edits(setpoints, after):
                    await self._confirm(number, setpoints, basis, before, after)
                    return True
        if not await self.settle(day):
            return None
        intents = await self._rt.offload(lambda: self._records.intents(reactor))
        outcome = next(i.outcome for i in intents if i.id == number)
        return outcome == "arrived"

    def _session_edits(self, setpoints: Mapping[str, float], after: ReadBack) -> bool:
        """Whether the device says anything but what was sent; what it cannot say counts too."""
        if any(v is None for v in after.values()):
            return True
        probe = Session(self.limits.resolution, plan=dict(setpoints))
        return bool(probe.edits(after))

    async def _confirm(
        self,
        number: int,
        setpoints: Mapping[str, float],
        basis: Basis,
        before: ReadBack,
        after: ReadBack,
    ) -> None:
        # The audit first: after a crash in between the write is open, and settled as arrived.
        await self._log(
            "SETPOINT_CHANGE",
            {"intent": number, "read_back": dict(after)},
            day=basis.day,
            old={n: before.get(n) for n in setpoints},
            new=dict(setpoints),
            reason="decided and let through by the gate",
        )
        await self._rt.offload(
            lambda: self._records.close_intent(
                number, is_written=True, result={"read_back": dict(after)}
            )
        )
        intents = await self._rt.offload(lambda: self._records.intents(self._settings.reactor_id))
        self._session.written(next(i for i in intents if i.id == number))

    async def _abandon(self, number: int, decision: int, why: str) -> None:
        """Close a write that was certainly not sent."""

        def close() -> None:
            self._records.close_intent(number, is_written=False, result={"why": why})
            self._records.supersede(decision, why)

        await self._rt.offload(close)
        await self._log("WRITE_NOT_SENT", {"intent": number}, reason=why)

    async def _send(self, setpoints: dict[str, float], basis: Basis) -> None:
        writer = self._connector.write_setpoints
        extra = inspect.signature(writer).parameters
        known = {"day": float(basis.day), "time_h": basis.time_h}
        await writer(setpoints, **{k: v for k, v in known.items() if k in extra})

    async def _log(self, kind: str, payload: Mapping[str, Any], **more: Any) -> None:
        await self._rt.offload(lambda: self._audit.log(kind, payload, **more))


def has_own(connector: Any, method: str) -> bool:
    """Whether a connector has a method beyond the protocol's default."""
    function = getattr(type(connector), method, None)
    name = getattr(function, "__qualname__", "")
    return function is not None and not name.startswith("BioreactorConnectorBase.")


def _usable(value: Any) -> float | None:
    """A number of a read-back, whether bare or a reading with quality."""
    if hasattr(value, "quality"):
        return value.value if value.quality == "good" else None
    return None if value is None or value != value else float(value)
