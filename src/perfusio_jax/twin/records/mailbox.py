"""Commands from people to a running twin: approvals, stop, manual mode, arming, alarms.

Each is a file in the inbox of the run folder (`letters.py`), so that none is lost in a crash and
the system says whose it is. The twin takes it into the journal with the account it came from,
marks it as handled with what came of it, and its audit trail says who asked.
"""

import contextlib
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import in_line, shown

from .accounts import account
from .entries import Command
from .letters import Letter, letters, post
from .store import JournalFile, dump, load, stamp

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

UNREADABLE: Final = "unreadable"
"""Kind of what lay in the inbox and is no command."""

_COLUMNS: Final = "id, reactor_id, kind, actor, role, payload, sent_at, account"


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
    ) -> str:
        """Leave a command for the twin, from the account of this process.

        Args:
            reactor_id: Reactor it is for; "*" for all in the folder.
            kind: One of `KINDS`.
            actor: Who asks, by their own word: it is shown and recorded as that.
            role: As what, e.g. "operator"; approvals count by role and account.
            payload: Details, such as the decision an approval is for.

        Returns:
            Ticket of the command.

        Raises:
            ConfigError: For an unknown kind, or no name.
            JournalError: If it cannot be written.
        """
        if kind not in KINDS:
            raise ConfigError(f"command {kind!r} is unknown; allowed are {', '.join(KINDS)}.")
        if not actor.strip():
            raise ConfigError("the name of who asks is empty; every command carries one.")
        letter = {
            "reactor_id": reactor_id,
            "kind": kind,
            "actor": actor.strip(),
            "role": role,
            "payload": dict(payload or {}),
        }
        return post(self.path.parent, letter)

    def incoming(self, reactor_id: str) -> list[Command]:
        """Take in what lies in the inbox; then commands nobody has handled yet, oldest first.

        Only who runs the folder calls this: it empties the inbox.
        """
        for letter in letters(self.path.parent):
            self._take_in(letter, reactor_id)
        return self.open(reactor_id)

    def _take_in(self, letter: Letter, reactor_id: str) -> None:
        """Write a letter down, once, and let go of its file."""
        fields = letter.fields
        known = fields.get("kind") in KINDS
        name = shown(letter.path.name)  # which may be of any bytes
        why = letter.trouble or f"{in_line(fields.get('kind'))} is no command"
        payload = (
            {**fields["payload"], "host": str(fields.get("host", ""))[:200]}
            if known
            else {"file": name, "why": why}
        )
        row = (
            fields["reactor_id"] if known else reactor_id,
            self._now(),
            fields["kind"] if known else UNREADABLE,
            fields["actor"].strip() if known else letter.account,
            fields["role"] if known else None,
            dump(payload),
            letter.account,
            fields["ticket"] if known else f"file {name} of {letter.sent_at}",
        )
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO commands (reactor_id, sent_at, kind, actor, role, payload, "
                "account, ticket) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        with contextlib.suppress(OSError):  # one that stays is not taken in a second time
            letter.path.unlink()

    def waiting(self, reactor_id: str) -> list[Command]:
        """Commands nobody has handled yet, those that still lie in the inbox too."""
        taken = {
            (account, ticket)
            for account, ticket in self._query("SELECT account, ticket FROM commands", ())
        }
        lying = [
            Command(
                0,
                f["reactor_id"],
                f["kind"],
                f["actor"],
                f["role"],
                f["payload"],
                stamp(dt.datetime.fromtimestamp(letter.sent_at, dt.UTC)),
                letter.account,
            )
            for letter in letters(self.path.parent)
            if (f := letter.fields) and (letter.account, f["ticket"]) not in taken
        ]
        return [*self.open(reactor_id), *(c for c in lying if c.reactor_id in (reactor_id, "*"))]

    def keep(
        self, reactor_id: str, kind: str, *, actor: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Write down a change of the session that is made already, so that it outlives a crash.

        Args:
            reactor_id: Reactor.
            kind: One of `KINDS`, or a word of the twin's own: "override", "session".
            actor: Who made it, by their own word; the account is that of this process.
            payload: Details.
        """
        now = self._now()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO commands (reactor_id, sent_at, kind, actor, payload, handled_at, "
                "outcome, account) VALUES (?, ?, ?, ?, ?, ?, 'done', ?)",
                (reactor_id, now, kind, actor, dump(payload or {}), now, account()),
            )

    def handled(self, reactor_id: str) -> list[Command]:
        """Commands that were carried out, in that order."""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM commands "
            "WHERE outcome = 'done' AND reactor_id IN (?, '*') ORDER BY handled_at, id",
            (reactor_id,),
        )
        return [_command(*row) for row in rows]

    def open(self, reactor_id: str) -> list[Command]:
        """Commands nobody has handled yet, oldest first."""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM commands "
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

    def outcome(self, ticket: str) -> str | None:
        """What came of a command of this account; `None` while it waits."""
        rows = self._query(
            "SELECT outcome FROM commands WHERE ticket = ? AND account = ?", (ticket, account())
        )
        return rows[0][0] if rows else None


def _command(
    number: int,
    reactor_id: str,
    kind: str,
    actor: str,
    role: str | None,
    payload: str,
    sent_at: str,
    account: str | None,
) -> Command:
    return Command(number, reactor_id, kind, actor, role, load(payload), sent_at, account)
