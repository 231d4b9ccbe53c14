"""Learning and deciding as the loop sees them: slow, fallible, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from ..alarms.desk import AlarmDesk, event
from ..decision.brain import Brain, Lesson, Proposal, Situation
from ..decision.gate import out_of_reach
from ..decision.gate_limits import GateLimits
from ..records.audit import AuditLogger
from ..records.runtime import Runtime
from ..records.secrets import in_short

_T = TypeVar("_T")


class Thinker:
    """Calls a brain in a thread, within the time given, and turns failures into words.

    Args:
        brain: Learns and proposes.
        audit: Audit trail.
        desk: Alarms.
        runtime: Threads.
        timeout_s: How long learning or deciding may take [s].
    """

    def __init__(
        self,
        brain: Brain,
        audit: AuditLogger,
        desk: AlarmDesk,
        *,
        runtime: Runtime,
        timeout_s: float,
    ) -> None:
        self.brain = brain
        self._audit = audit
        self._desk = desk
        self._rt = runtime
        self._timeout_s = timeout_s
        self._computing: asyncio.Future[Any] | None = None

    async def compute(self, work: Callable[[], _T]) -> _T:
        """Run learning or deciding: one at a time, within the time given."""
        if self._computing is not None and not self._computing.done():
            raise TimeoutError("the computation of an earlier cycle is still running")
        self._computing = asyncio.ensure_future(_as_coroutine(self._rt.offload(work)))
        done, _ = await asyncio.wait({self._computing}, timeout=self._timeout_s)
        if not done:
            self.brain.abandon()
            self._computing.add_done_callback(_forget)
            raise TimeoutError(f"no result within {self._timeout_s:g} s")
        return self._computing.result()

    async def learn(self, situation: Situation) -> Lesson | None:
        """Learn; `None` if nothing was due, or if it failed and the model stays as it is."""
        day = situation.day
        try:
            lesson = await self.compute(lambda: self.brain.learn(situation))
        except Exception as error:  # whatever a fit can think of: the model stays as it is
            why = in_short(error)
            await self._log("MODEL_KEPT", {"error": type(error).__name__}, day=day, reason=why)
            note = f"the model could not be updated: {why}"
            await self._desk.raise_one(event("drift", "update", note, day))
            return None
        if lesson is None:
            return None
        await self._desk.clear(event("drift", "update", "", day))
        kept = "MODEL_TRIAL" if lesson.is_trial else "MODEL_KEPT"
        await self._log(
            "MODEL_RETRAIN" if lesson.is_promoted else kept,
            dict(lesson.details),
            day=day,
            old=lesson.old,
            new=lesson.new,
            reason=lesson.reason,
        )
        return lesson

    async def propose(self, situation: Situation, limits: GateLimits) -> tuple[Proposal, str]:
        """A proposal, empty if none could be made, and then why."""
        try:
            proposal = await self.compute(lambda: self.brain.propose(situation))
        except Exception as error:  # a failed decision is a hold with a reason, never a crash
            return await self._failed(situation, type(error).__name__, in_short(error))
        fixed = frozenset(situation.fixed)
        why = out_of_reach(proposal.setpoints, situation.u_now, limits, fixed)
        if why:
            return await self._failed(situation, "out_of_reach", why)
        return proposal, ""

    async def _failed(self, situation: Situation, kind: str, why: str) -> tuple[Proposal, str]:
        why = f"no decision was made: {why}"
        await self._log("DECISION_FAILED", {"error": kind}, day=situation.day, reason=why)
        return Proposal({}), why

    async def _log(self, kind: str, payload: Mapping[str, Any], **more: Any) -> None:
        await self._rt.offload(lambda: self._audit.log(kind, payload, **more))


async def _as_coroutine(work: Awaitable[_T]) -> _T:
    return await work


def _forget(late: asyncio.Future[Any]) -> None:
    """Take the outcome of a computation nobody waits for any more."""
    if not late.cancelled():
        late.exception()
