"""The alarm desk: keeps the state of alarms and tells people, beside the control loop.

What is told goes through a bounded queue of deliveries that run next to the loop; a mail
server that hangs or a flood of alarms costs the loop nothing.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from ..records.alarm_book import Alarm
from ..records.audit import AuditLogger
from ..records.records_file import RunRecords
from ..records.runtime import Runtime
from .events import AlarmEvent, Foreseen
from .notifications import AlarmNotifier

MOST_IN_FLIGHT: Final = 32
"""Deliveries under way at a time; what comes on top is counted and said in the audit."""

MOST_NEW: Final = 20
"""Alarms told one by one in a cycle; more are told as a flood."""


def event(kind: str, what: str, note: str, day: float, *, severity: str = "warning") -> AlarmEvent:
    """An alarm that is not about a limit."""
    return AlarmEvent(
        day, what, math.nan, math.nan, "unknown", 0, severity=severity, kind=kind, note=note
    )


class AlarmDesk:
    """Alarms of one reactor.

    Args:
        records: Where their state is kept.
        audit: Audit trail.
        notifier: Tells people; `None`: alarms are kept and not told.
        runtime: Clocks and threads.
        reactor_id: Reactor.
    """

    def __init__(
        self,
        records: RunRecords,
        audit: AuditLogger,
        notifier: AlarmNotifier | None,
        *,
        runtime: Runtime,
        reactor_id: str,
    ) -> None:
        self._records = records
        self._audit = audit
        self._notifier = notifier
        self._rt = runtime
        self._reactor = reactor_id
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_dropped = 0
        self._failures: list[tuple[str, str]] = []
        self._no_picture: list[str] = []
        self.foreseen: Foreseen | None = None
        """The newest forecast, for pictures of alarms."""

    async def update(self, kind: str, events: Sequence[AlarmEvent], day: float) -> list[Alarm]:
        """Bring the alarms of a kind up to date with the causes found now.

        Args:
            kind: Kind of all the events; standing alarms of it without an event are cleared.
            events: Causes.
            day: Culture day [d].

        Returns:
            Alarms that are news.
        """
        worst: dict[str, AlarmEvent] = {}
        for found in events:
            known = worst.get(found.name)
            if known is None or (known.severity != "critical" and found.severity == "critical"):
                worst[found.name] = found
        news, loud = [], []
        for name, cause in worst.items():
            alarm, is_news = await self._rt.offload(
                lambda n=name, c=cause: self._records.note_alarm(
                    self._reactor, n, c.severity, c.message
                )
            )
            if is_news:
                news.append(alarm)
                await self._log("ALARM_RAISED", {**_fields(cause), "alarm": alarm.id}, day)
            if alarm.state(self._rt.now()) == "raised":
                loud.append(cause)
        for alarm in await self._rt.offload(lambda: self._records.standing_alarms(self._reactor)):
            if alarm.name.startswith(f"{kind}/") and alarm.name not in worst:
                await self._rt.offload(
                    lambda a=alarm: self._records.clear_alarm(self._reactor, a.name)
                )
                await self._log("ALARM_CLEARED", {"alarm": alarm.id, "name": alarm.name}, day)
        self.tell(loud, day)
        await self._report(day)
        return news

    async def raise_one(self, found: AlarmEvent) -> None:
        """Raise one alarm and leave the others of its kind as they are."""
        alarm, is_news = await self._rt.offload(
            lambda: self._records.note_alarm(
                self._reactor, found.name, found.severity, found.message
            )
        )
        if is_news:
            await self._log("ALARM_RAISED", {**_fields(found), "alarm": alarm.id}, found.day)
        if alarm.state(self._rt.now()) == "raised":
            self.tell([found], found.day)

    async def clear(self, found: AlarmEvent) -> None:
        """Say that the cause of an alarm is gone."""
        if await self._rt.offload(lambda: self._records.clear_alarm(self._reactor, found.name)):
            await self._log("ALARM_CLEARED", {"name": found.name}, found.day)

    def tell(self, events: Sequence[AlarmEvent], day: float) -> None:
        """Queue alarms for the channels; returns at once and needs no journal."""
        if self._notifier is None or not events:
            return
        if len(self._tasks) >= MOST_IN_FLIGHT:
            self._n_dropped += len(events)
            return
        batch = list(events)
        if len(batch) > MOST_NEW:
            note = (
                f"{len(batch)} alarms at once; the first {MOST_NEW} follow, the rest is on record"
            )
            batch = [event("session", "flood", note, day, severity="critical"), *batch[:MOST_NEW]]
        task = asyncio.get_running_loop().create_task(self._deliver(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout_s: float) -> None:
        """Wait until what is queued is told, but not longer than `timeout_s` [s]."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._report(0)

    async def _deliver(self, batch: Sequence[AlarmEvent]) -> None:
        if self._notifier is not None:
            try:
                told = [replace(found, reactor_id=self._reactor) for found in batch]
                report = await self._notifier.dispatch(told, self.foreseen)
            except Exception as error:  # a notifier may fail as it likes; it is reported
                self._failures.append(("all", type(error).__name__))
            else:
                self._failures.extend(report.failed)
                self._no_picture += [report.no_picture] if report.no_picture else []

    async def _report(self, day: float) -> None:
        failures, self._failures = self._failures, []
        dropped, self._n_dropped = self._n_dropped, 0
        bare, self._no_picture = self._no_picture, []
        for channel, problem in failures:
            await self._log("ALARM_NOT_DELIVERED", {"channel": channel}, day, problem)
        for problem in bare:
            await self._log("ALARM_WITHOUT_FIGURE", {}, day, problem)
        if dropped:
            await self._log("ALARM_NOT_DELIVERED", {"n": dropped}, day, "the queue was full")

    async def _log(
        self, kind: str, payload: Mapping[str, Any], day: float, reason: str | None = None
    ) -> None:
        await self._rt.offload(lambda: self._audit.log(kind, payload, day=day, reason=reason))


def _fields(found: AlarmEvent) -> dict[str, Any]:
    return {k: (v.item() if hasattr(v, "item") else v) for k, v in asdict(found).items() if v != ""}
