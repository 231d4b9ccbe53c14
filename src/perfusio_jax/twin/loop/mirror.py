"""The audit trail and forecasts copied into a database, beside the loop.

`audit.jsonl` stays the record that is judged. The copy is for people who look at many runs with
SQL; it may lag, and a database that is down delays it and loses nothing.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeGuard, runtime_checkable

from perfusio_jax._core import AuditError, ConnectorError, DataError, PerfusioError

from ..alarms.desk import AlarmDesk, event
from ..records.audit import AuditLogger
from ..records.chain import records
from ..records.entries import JournalError
from ..records.forecasts_made import packed, read_forecasts
from ..records.records import FORECASTS
from ..records.runtime import Runtime
from ..records.secrets import in_short

PAUSES_S: Final = (1.0, 5.0, 15.0, 60.0)
"""Waits [s] before the next look at the log: the first while all is well, the later ones after
failures in a row."""

BATCH: Final = 200
"""Records per transaction."""

MAX_NAMED: Final = 20
"""Refused records of one try that are named; those beyond are counted."""


@runtime_checkable
class AuditArchive(Protocol):
    """A database that takes copies of audit records, such as `SQLStore`."""

    def mirror_audit(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Copy records; those copied before are left alone."""
        ...

    def mirrored_audit(self, run_id: str) -> tuple[int, int, str]:
        """How many records of a run are there, the number of the last, and its hash."""
        ...


@runtime_checkable
class ForecastArchive(Protocol):
    """A database that takes copies of a vessel's forecasts, such as `SQLStore`."""

    def mirror_forecasts(self, run_id: str, made: Iterable[Mapping[str, Any]]) -> int:
        """Copy forecasts; those copied before are left alone."""
        ...


def is_archive(connector: Any) -> TypeGuard[AuditArchive]:
    """Whether a connector can take a copy of the audit trail as well."""
    return isinstance(connector, AuditArchive)


class AuditMirror:
    """Copies one audit trail, and a vessel's forecasts, into a database, again and again.

    Args:
        audit: The open log; it is read from the disk, up to the last acknowledged record.
        archive: Where the copies go.
        desk: Alarms: a copy that lags because the database is down is one.
        runtime: Clocks and threads.
        timeout_s: How long one try may take [s].
        day: Culture day now, for alarms.
        reactor_id: Vessel whose forecasts are copied.
    """

    def __init__(
        self,
        audit: AuditLogger,
        archive: AuditArchive,
        desk: AlarmDesk,
        *,
        runtime: Runtime,
        timeout_s: float,
        day: Callable[[], float],
        reactor_id: str,
    ) -> None:
        self._reactor_id = reactor_id
        self._audit = audit
        self._archive = archive
        self._desk = desk
        self._rt = runtime
        self._day = day
        self._timeout_s = timeout_s
        self._mutex = threading.Lock()
        self._offset: int | None = None
        self._n_failed = 0
        self._is_new = True
        self._refused: list[str] = []
        self._n_unnamed = 0
        self._forecasts: Mapping[float, Mapping[str, Any]] = {}
        self._forecasts_at: tuple[int, int] | None = None
        self.n_done = 0
        """Number of the last record that was copied, or refused for good."""

    async def follow(self) -> None:
        """Copy what is new until cancelled; a try at hand is finished, with its alarms."""
        while True:
            at_hand = asyncio.ensure_future(self.catch_up())
            with contextlib.suppress(JournalError, AuditError):  # the cycle meets that trouble
                try:
                    await asyncio.shield(at_hand)
                except asyncio.CancelledError:
                    while not at_hand.done():  # however often it is told
                        with contextlib.suppress(asyncio.CancelledError):
                            await asyncio.wait([at_hand])
                    with contextlib.suppress(JournalError, AuditError):
                        at_hand.result()
                    raise
            await self._rt.sleep(PAUSES_S[min(self._n_failed, len(PAUSES_S) - 1)])

    async def catch_up(self, *, is_last: bool = False) -> bool:
        """Copy everything up to now; whether the copy is up to date.

        Args:
            is_last: Nobody will look again, so wait for a call that is still under way: the
                task that made it may be gone, its thread is not.

        Raises:
            AuditError: If the log cannot be read or an alarm not be recorded.
            JournalError: The same of the journal.
        """
        behind = event("session", "mirror", "", self._day())
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._rt.offload(lambda: self._push(self._timeout_s if is_last else -1.0))
        except (PerfusioError, TimeoutError, OSError) as error:
            self._n_failed += 1
            if self._n_failed == 1:
                note = f"the copy of the audit trail in the database lags: {in_short(error)}"
                await self._desk.raise_one(event("session", "mirror", note, self._day()))
            return False
        if self._n_failed or self._is_new:  # an earlier process may have left the alarm standing
            self._n_failed, self._is_new = 0, False
            await self._desk.clear(behind)
        refused, self._refused = self._refused, []
        if self._n_unnamed:
            refused.append(f"{self._n_unnamed} more audit records are not copied")
            self._n_unnamed = 0
        for text in refused:
            await self._desk.raise_one(event("session", "mirror differs", text, self._day()))
        return True

    def _push(self, wait_s: float) -> None:
        is_free = self._mutex.acquire(blocking=wait_s > 0.0, timeout=wait_s)
        if not is_free:
            raise ConnectorError("the database has not answered an earlier call yet.")
        try:
            self._push_new()
            self._push_forecasts()
        finally:
            self._mutex.release()

    def _push_forecasts(self) -> None:
        """Copy what was forecast since the last look."""
        archive, folder = self._archive, self._audit.path.parent  # the run folder
        if not isinstance(archive, ForecastArchive):
            return
        try:
            status = (folder / FORECASTS).stat()
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._forecasts_at:
            return
        try:
            made = packed(read_forecasts(folder, self._reactor_id))
            new = [one for day, one in made.items() if self._forecasts.get(day) != one]
            if new:
                archive.mirror_forecasts(self._audit.run_id, new)
        except DataError as error:
            self._refused.append(f"forecasts are not copied: {in_short(error)}")
        else:
            self._forecasts = made
        self._forecasts_at = stamp  # what is refused is told once, until the file changes

    def _push_new(self) -> None:
        end = self._audit.head.seq
        if self._offset is None:
            self._offset = self._begin()
        if self.n_done >= end:
            return
        with self._audit.path.open("rb") as log:
            log.seek(self._offset)
            lines = log.read().splitlines(keepends=True)
        while self.n_done < end:
            part = lines[: min(BATCH, end - self.n_done)]
            del lines[: len(part)]
            found = list(records(b"".join(part)))
            if not found:
                raise AuditError(f"{self._audit.path} holds fewer records than were written.")
            try:
                self._archive.mirror_audit(found)
            except DataError:
                self._one_by_one(found)
            self._offset += sum(map(len, part))
            self.n_done += len(found)

    def _begin(self) -> int:
        """Where in the log the copy ends: there, or at its beginning if that is not sure."""
        n, last, digest = self._archive.mirrored_audit(self._audit.run_id)
        if n == 0 or n != last:
            return 0
        content = self._audit.path.read_bytes()
        lines = content.splitlines(keepends=True)[:n]
        if len(lines) < n or f'"hash":"{digest}"'.encode() not in lines[-1]:
            return 0
        self.n_done = n
        return sum(map(len, lines))

    def _one_by_one(self, found: list[dict[str, Any]]) -> None:
        """Copy what can be; a record the database refuses is named and left out."""
        for record in found:
            try:
                self._archive.mirror_audit([record])
            except DataError as error:
                if len(self._refused) >= MAX_NAMED:
                    self._n_unnamed += 1
                    continue
                text = f"audit record {record['seq']} is not copied: {in_short(error)}"
                self._refused.append(text)
