"""What goes on beside the cycle: commands, stop, lease, clocks, watchdog, online tags."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from perfusio_jax._core import AuditError, ConfigError, PerfusioError, RunLockedError
from perfusio_jax._core.instants import hours_between
from perfusio_jax._core.text import in_line

from ..alarms.desk import AlarmDesk, event
from ..decision.checks import clock_jump
from ..decision.grid import is_number
from ..records.audit import AuditLogger
from ..records.entries import Command, JournalError
from ..records.mailbox import MOST_HOURS, UNREADABLE
from ..records.records_file import RunRecords
from ..records.runtime import Runtime
from ..records.secrets import in_short
from .session import Session
from .settings import LoopSettings

_PAGE = "page:"
"""Before the name of somebody who signed in at a page; no account of a system holds a colon."""

QUIET_PHASES = ("idle", "waiting", "learning", "deciding")
"""Phases that may last: the others are bounded by time-outs, and the watchdog minds them."""


class Attendant:
    """Attends to one reactor's loop.

    Args:
        connector: For its clock.
        records: Commands, lease.
        audit: Audit trail.
        session: State of the session; commands change it.
        desk: Alarms.
        settings: Of the loop.
        runtime: Clocks and threads.
    """

    def __init__(
        self,
        connector: Any,
        records: RunRecords,
        audit: AuditLogger,
        session: Session,
        desk: AlarmDesk,
        *,
        settings: LoopSettings,
        runtime: Runtime,
    ) -> None:
        self._connector = connector
        self._records = records
        self._audit = audit
        self._session = session
        self._desk = desk
        self._settings = settings
        self._rt = runtime
        self._on_stop: Callable[[], None] | None = None
        self._busy: asyncio.Lock | None = None
        self._clocks = (runtime.now().timestamp(), runtime.monotonic())
        self._votes: dict[int, dict[str, tuple[str, bool]]] = {}
        self._is_recalled = False
        self.is_stopping = False
        """Whether a stop was asked for: from then on no write begins."""
        self.was_stopped = False
        """Whether the last run ended because of a stop."""
        self.phase, self.phase_since = "idle", runtime.monotonic()
        self.day: float = 0
        self._is_stuck = False
        self.lease: int | None = None
        """Number of the lease on the reactor."""
        self.on_beat: Callable[[], None] | None = None
        """Called whenever the lease is renewed."""

    # ------------------------------------------------------------------ stop and phases

    def enter(self, phase: str) -> None:
        """Say what the cycle is doing, for watchdog and status."""
        self.phase, self.phase_since = phase, self._rt.monotonic()
        self._is_stuck = False

    def on_stop(self, call: Callable[[], None] | None) -> None:
        """Whom to tell of a stop."""
        self._on_stop = call
        if call is None:
            self.was_stopped, self.is_stopping = self.is_stopping, False
        elif self.is_stopping:
            call()

    def stop(self, who: str) -> None:
        """Begin to stop: no write begins from here on. Any thread may call it."""
        self.is_stopping = True
        call = self._on_stop
        if call is not None:
            call()

    async def pause(self, seconds: float) -> bool:
        """Wait [s], attending to commands; whether a stop was asked for."""
        end = self._rt.monotonic() + seconds
        while not self.is_stopping:
            with contextlib.suppress(JournalError, AuditError):  # whoever must write meets it
                await self.look(self.day)
            left = end - self._rt.monotonic()
            if self.is_stopping or left <= 0.0:
                break
            await self._rt.sleep(min(left, self._settings.beat_seconds))
        return self.is_stopping

    async def attend(self, online: Callable[[], Awaitable[None]]) -> None:
        """Attend until cancelled: commands, lease, watchdog and online tags.

        Args:
            online: Reads online tags and does what follows from them.

        Raises:
            RunLockedError: If another process has taken the reactor over.
        """
        settings = self._settings
        next_online = self._rt.monotonic() + settings.online_seconds
        next_lease = self._rt.monotonic() + settings.lease_seconds / 3.0
        while True:
            with contextlib.suppress(JournalError, AuditError):
                # The cycle meets the same trouble and says so; here nothing may end.
                await self.look(self.day)
                await self._watch()
                if self._rt.monotonic() >= next_lease:
                    next_lease = self._rt.monotonic() + settings.lease_seconds / 3.0
                    await self._renew()
                if settings.online_seconds and self._rt.monotonic() >= next_online:
                    next_online = self._rt.monotonic() + settings.online_seconds
                    await online()
            await self._rt.sleep(settings.beat_seconds)

    async def _renew(self) -> None:
        lease, reactor = self.lease, self._settings.reactor_id
        if lease is None:
            return
        ttl = dt.timedelta(seconds=self._settings.lease_seconds)
        try:
            await self._rt.offload(lambda: self._records.renew_lease(reactor, lease, ttl))
        except RunLockedError:
            self.stop("the lease was lost")
            raise
        if self.on_beat is not None:
            self.on_beat()

    async def _watch(self) -> None:
        settings = self._settings
        longest = 3.0 * settings.call_timeout_s + 60.0
        lasts = self._rt.monotonic() - self.phase_since
        if self.phase in QUIET_PHASES or lasts <= longest or self._is_stuck:
            return
        self._is_stuck = True
        note = f"the loop has been {self.phase} for {lasts:.0f} s"
        self._desk.tell(
            [event("session", "watchdog", note, self.day, severity="critical")], self.day
        )
        await self._log("WATCHDOG", {"phase": self.phase}, reason=note)

    # ------------------------------------------------------------------ commands

    async def look(self, day: float) -> None:
        """Carry out what people asked for since the last look."""
        self.day = day
        if self._busy is None:
            self._busy = asyncio.Lock()
        async with self._busy:
            reactor = self._settings.reactor_id
            await self._recall_votes()
            for command in await self._rt.offload(lambda: self._records.incoming(reactor)):
                outcome = await self._carry_out(command, day)
                await self._rt.offload(lambda c=command, o=outcome: self._records.mark(c.id, o))

    async def _carry_out(self, command: Command, day: float) -> str:
        """Do it and put it into the audit; "done", or why not."""
        outcome = "done"
        before = self._session.mode
        try:
            await self._apply(command)
        except (ConfigError, ValueError) as error:
            outcome = in_short(error)
        await self._audit_command(command, before, outcome, day)
        if command.kind == "stop" and outcome == "done":
            self.stop(command.who)
        return outcome

    async def _apply(self, command: Command) -> None:
        kind, payload = command.kind, command.payload
        if kind in ("approve", "reject"):
            await self._check_stands(_number(payload, "decision"))
            self._vote(command)
        elif kind == UNREADABLE:
            raise ConfigError(f"{payload['file']} in the inbox is no command: {payload['why']}.")
        elif kind == "arm" and not self._settings.allow_write:
            raise ConfigError("this run may not write, so it cannot be armed.")
        elif kind in ("arm", "disarm", "manual", "automatic"):
            self._session.apply(kind, payload)
        elif kind == "acknowledge":
            number = _number(payload, "alarm")
            await self._rt.offload(lambda: self._records.acknowledge_alarm(number, command.who))
        elif kind == "suppress":
            number, hours = _number(payload, "alarm"), payload.get("hours", 1.0)
            if not (is_number(hours) and 0.0 < hours <= MOST_HOURS):
                raise ConfigError(
                    f"an alarm is suppressed for more than 0 and up to {MOST_HOURS:g} h; "
                    f"given {in_line(hours, 40)}."
                )
            until = self._rt.now() + dt.timedelta(hours=hours)
            await self._rt.offload(lambda: self._records.suppress_alarm(number, until))

    async def _audit_command(self, command: Command, before: str, outcome: str, day: float) -> None:
        changes = command.kind in ("arm", "disarm", "manual", "automatic")
        account = command.account or command.actor
        claim = {} if command.actor == account else {"says_to_be": command.actor}
        await self._rt.offload(
            lambda: self._audit.log(
                f"COMMAND_{command.kind.upper()}",
                {**command.payload, **claim, "outcome": outcome},
                day=day,
                user=account,
                role=command.role,
                reason=str(command.payload.get("reason") or "asked for by this person"),
                old=before if changes else None,
                new=self._session.mode if changes else None,
            )
        )

    async def disarm(self, reason: str, who: str, day: float) -> None:
        """Stop writing until a person arms the session again."""
        before = self._session.mode
        self._session.apply("disarm", {})
        reactor = self._settings.reactor_id
        await self._rt.offload(lambda: self._records.keep(reactor, "disarm", actor=who))
        await self._log(
            "SESSION_DISARMED", {}, day=day, user=who, reason=reason, old=before, new="disarmed"
        )
        await self._desk.raise_one(
            event("session", "disarmed", f"disarmed: {reason}", day, severity="critical")
        )

    # ------------------------------------------------------------------ approval

    def _vote(self, command: Command) -> None:
        settings, role = self._settings, command.role or ""
        if role not in settings.approvals:
            raise ConfigError(
                f"role {role!r} approves nothing here; the roles are {list(settings.approvals)}."
            )
        if command.account is None:
            raise ConfigError("nobody noted the account this vote came from; vote again.")
        person = self._voter(command, command.account)
        named = settings.approvers.get(role)
        if named is not None and person not in named:
            raise ConfigError(f"account {person} may not act as {role}.")
        votes = self._votes.setdefault(_number(command.payload, "decision"), {})
        for other, (voter, _) in votes.items():
            if other != role and _bare(voter) == _bare(person):
                raise ConfigError(
                    f"account {voter} has voted as {other}; two people, each with an account of "
                    "their own, are needed."
                )
        votes[role] = (person, command.kind == "approve")

    def _voter(self, command: Command, account: str) -> str:
        """Who votes: the account that left the command, or who signed in at a page that is trusted.

        Raises:
            ConfigError: If a page that is trusted does not say who signed in.
        """
        if account not in self._settings.page_accounts:
            return account
        if command.payload.get("through") != "page" or command.actor in ("", account):
            raise ConfigError(
                f"account {account} is that of a page and votes for nobody; sign in there, or vote "
                "under an account of your own."
            )
        return f"{_PAGE}{command.actor}"

    async def _check_stands(self, number: int) -> None:
        """Refuse a vote on numbers nobody can have seen: those of a decision yet to be made.

        Raises:
            ConfigError: If no decision of this number stands.
        """
        reactor = self._settings.reactor_id
        known = await self._rt.offload(lambda: self._records.decisions(reactor))
        if number not in {decision.id for decision in known}:
            raise ConfigError(f"there is no decision {number} that stands; see `status`.")

    async def _recall_votes(self) -> None:
        """Count the votes earlier processes took, once, before any new one is held against them."""
        if self._is_recalled:
            return
        reactor = self._settings.reactor_id
        for command in await self._rt.offload(lambda: self._records.handled(reactor)):
            if command.kind in ("approve", "reject"):
                with contextlib.suppress(ConfigError):  # roles or people are others by now
                    self._vote(command)
        self._is_recalled = True

    async def approval(self, decision: int, day: float) -> bool:
        """Wait until every role has approved a decision, one has refused it, or time is up."""
        deadline = self._rt.monotonic() + self._settings.approval_seconds
        await self._recall_votes()
        while not self.is_stopping and not self._session.is_manual:
            votes = self._votes.get(decision, {})
            if any(not is_yes for _, is_yes in votes.values()):
                return False
            if all(role in votes for role in self._settings.approvals):
                return True
            left = deadline - self._rt.monotonic()
            if left <= 0.0:
                await self._log("APPROVAL_MISSING", {"decision": decision}, day=day)
                return False
            await self.pause(min(left, self._settings.beat_seconds))
        return False

    # ------------------------------------------------------------------ clocks

    async def check_clocks(self, day: float) -> str | None:
        """Whether time can be trusted; a sentence if it cannot, and then nothing is written."""
        tolerance = self._settings.clock_tolerance_s
        now = (self._rt.now().timestamp(), self._rt.monotonic())
        jump = clock_jump(
            (self._clocks[0], now[0]), (self._clocks[1], now[1]), tolerance_s=tolerance
        )
        self._clocks = now
        trouble = None if jump is None else f"our clock jumped by {jump:.0f} s"
        reader = getattr(self._connector, "read_clock", None)
        if reader is not None:
            try:
                async with asyncio.timeout(self._settings.call_timeout_s):
                    theirs = await reader()
            except (PerfusioError, TimeoutError, OSError):
                theirs = None
            if theirs is not None:
                apart = 3600.0 * hours_between(self._rt.now(), theirs)
                is_apart = abs(apart) > tolerance
                trouble = f"our clock is {apart:.0f} s ahead of the device's" if is_apart else None
        alarm = event("session", "clock", trouble or "", day, severity="critical")
        if trouble is None:
            await self._desk.clear(alarm)
        else:
            await self._log("CLOCK_DOUBTED", {}, day=day, reason=trouble)
            await self._desk.raise_one(alarm)
        return trouble

    async def _log(self, kind: str, payload: dict[str, Any], **more: Any) -> None:
        await self._rt.offload(lambda: self._audit.log(kind, payload, **more))


def _bare(voter: str) -> str:
    """A name without where it is known from: one at a page and at the terminal is one person."""
    return voter.removeprefix(_PAGE)


def _number(payload: Mapping[str, Any], what: str) -> int:
    """The number of a decision or an alarm that a command names.

    Raises:
        ConfigError: If it names none: a letter may be written by hand.
    """
    given = payload.get(what)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given < 2**63:
        raise ConfigError(f"a whole number is needed for `{what}`; given {in_line(given, 40)}.")
    return given
