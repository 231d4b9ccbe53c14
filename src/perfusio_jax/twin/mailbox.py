"""Commands from people to a running twin: approvals, stop, manual mode, arming, alarms.

They lie in the journal file, so that any process with access to the run folder can send them
and none is lost in a crash. The twin marks each as handled, with what came of it, and its
audit trail says who asked.
"""

from collections.abc import Mapping
from typing import Any, Final

from perfusio_jax._core import ConfigError

from .accounts import account_and_host
from .entries import Command
from .store import JournalFile, dump, load

KINDS: Final = (
    "approve",
    "reject",
    "stop",
    "manual",
    "automatic",
    "arm",
    "disarm",
    "acknowledge",
    "suppress",
)
"""What may be asked."""

MOST_HOURS: Final = 168.0
"""How long an alarm may be suppressed [h]."""


class Mailbox(JournalFile):
    """The commands in a journal file; see `JournalFile`."""

    def send(
        self,
        reactor_id: str,
        kind: str,
        *,
        actor: str,
        role: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> int:
        """Leave a command for the twin.

        Args:
            reactor_id: Reactor it is for; "*" for all in the folder.
            kind: One of `KINDS`.
            actor: Who asks.
            role: As what, e.g. "operator"; approvals count by role.
            payload: Details, such as the decision an approval is for.

        Returns:
            Number of the command.

        Raises:
            ConfigError: For an unknown kind, or no name.
            JournalError: If it cannot be written.
        """
        if kind not in KINDS:
            raise ConfigError(f"command {kind!r} is unknown; allowed are {', '.join(KINDS)}.")
        if not actor.strip():
            raise ConfigError("the name of who asks is empty; every command carries one.")
        details = {**(payload or {}), "sent_by": account_and_host()}
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO commands (reactor_id, sent_at, kind, actor, role, payload) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (reactor_id, self._now(), kind, actor.strip(), role, dump(details)),
            )
            return int(cursor.lastrowid or 0)

    def keep(
        self, reactor_id: str, kind: str, *, actor: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Write down a change of the session that is made already, so that it outlives a crash.

        Args:
            reactor_id: Reactor.
            kind: One of `KINDS`, or "override".
            actor: Who made it.
            payload: Details.
        """
        now = self._now()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO commands (reactor_id, sent_at, kind, actor, payload, handled_at, "
                "outcome) VALUES (?, ?, ?, ?, ?, ?, 'done')",
                (reactor_id, now, kind, actor, dump(payload or {}), now),
            )

    def handled(self, reactor_id: str) -> list[Command]:
        """Commands that were carried out, in that order."""
        rows = self._query(
            "SELECT id, reactor_id, kind, actor, role, payload, sent_at FROM commands "
            "WHERE outcome = 'done' AND reactor_id IN (?, '*') ORDER BY handled_at, id",
            (reactor_id,),
        )
        return [_command(*row) for row in rows]

    def open(self, reactor_id: str) -> list[Command]:
        """Commands nobody has handled yet, oldest first."""
        rows = self._query(
            "SELECT id, reactor_id, kind, actor, role, payload, sent_at FROM commands "
            "WHERE handled_at IS NULL AND reactor_id IN (?, '*') ORDER BY id",
            (reactor_id,),
        )
        return [_command(*row) for row in rows]

    def mark(self, command_id: int, outcome: str) -> None:
        """Write down what came of a command."""
        with self._transaction() as db:
            db.execute(
                "UPDATE commands SET handled_at = ?, outcome = ? WHERE id = ? "
                "AND handled_at IS NULL",
                (self._now(), outcome, command_id),
            )

    def outcome(self, command_id: int) -> str | None:
        """What came of a command; `None` while it waits."""
        rows = self._query("SELECT outcome FROM commands WHERE id = ?", (command_id,))
        return rows[0][0] if rows else None


def _command(
    number: int,
    reactor_id: str,
    kind: str,
    actor: str,
    role: str | None,
    payload: str,
    sent_at: str,
) -> Command:
    return Command(number, reactor_id, kind, actor, role, load(payload), sent_at)
