"""The write-ahead journal: what a run has seen, decided and done, through any crash.

One SQLite file per run. Every call is one transaction on the disk before it returns, so
that after a kill at any instruction the journal says how far the cycle had come:

    sample stored -> decision made -> intent opened -> (the write happens) -> intent closed
    -> cycle closed

- A sample is stored once per (reactor, day); the same one again changes nothing.
- One decision stands per (reactor, day); another needs the first to be superseded.
- One intent per reactor may be open. An open intent found on start is a write whose outcome
  is unknown: it is settled by reading the device back, never by sending it again.
- Whoever writes holds the reactor's lease. Its number grows with each holder, so that one who
  was frozen and replaced is found out before he sends anything.
"""

import datetime as dt
import math
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from perfusio_jax._core import DataError, RunLockedError

from ..decision.brain import OnlineReading as OnlineReading
from .entries import Decision as Decision
from .entries import Intent as Intent
from .entries import JournalError as JournalError
from .entries import Sample as Sample
from .entries import Settlement as Settlement
from .entries import Stage as Stage
from .entries import Stored as Stored
from .entries import settled_as_written as settled_as_written
from .store import JournalFile, dump, load, stamp


class Journal(JournalFile):
    """Durable record of one run's samples, decisions and writes; see `JournalFile`."""

    def record_sample(
        self,
        reactor_id: str,
        day: float,
        values: Mapping[str, Any],
        *,
        is_correction: bool = False,
    ) -> Stored:
        """Store a sample, exactly once.

        Args:
            reactor_id: Reactor it was taken from.
            day: Culture day [d].
            values: Measurements and whatever belongs to them; NaN is stored as missing.
            is_correction: Whether values that differ from those stored replace them.

        Returns:
            Whether it was new, known already, or a correction.

        Raises:
            DataError: If another sample is stored for this reactor and day and this one is
                not declared a correction.
            JournalError: If it cannot be written.
        """
        payload = dump(values)
        with self._transaction() as db:
            row = db.execute(
                "SELECT revision, payload FROM samples WHERE reactor_id = ? AND day = ? "
                "ORDER BY revision DESC LIMIT 1",
                (reactor_id, day),
            ).fetchone()
            if row is not None and row[1] == payload:
                return Stored.DUPLICATE
            if row is not None and not is_correction:
                differing = ", ".join(_differences(load(row[1]), load(payload)))
                raise DataError(
                    f"Day {day:g} of reactor {reactor_id!r} is in the journal with other values "
                    f"({differing}); a later value must be declared a correction."
                )
            revision = 1 if row is None else row[0] + 1
            db.execute(
                "INSERT INTO samples (reactor_id, day, revision, stored_at, payload) "
                "VALUES (?, ?, ?, ?, ?)",
                (reactor_id, day, revision, self._now(), payload),
            )
        return Stored.NEW if revision == 1 else Stored.CORRECTED

    def samples(self, reactor_id: str, *, up_to: int | None = None) -> list[Sample]:
        """Standing samples of a reactor by day: of each day the latest revision.

        Args:
            reactor_id: Reactor.
            up_to: Number of the last sample that counts: the run as it was known then.
        """
        last = self.last_sample(reactor_id) if up_to is None else up_to
        rows = self._query(
            "SELECT reactor_id, day, payload, revision, stored_at FROM samples AS s "
            "WHERE reactor_id = ? AND id <= ? AND revision = (SELECT max(revision) FROM samples "
            "AS t WHERE t.reactor_id = s.reactor_id AND t.day = s.day AND t.id <= ?) ORDER BY day",
            (reactor_id, last, last),
        )
        return [Sample(r[0], r[1], load(r[2]), r[3], r[4]) for r in rows]

    def newest_sample(self, reactor_id: str) -> Sample | None:
        """The standing sample of the latest day; `None` before the first."""
        rows = self._query(
            "SELECT reactor_id, day, payload, revision, stored_at FROM samples "
            "WHERE reactor_id = ? ORDER BY day DESC, revision DESC LIMIT 1",
            (reactor_id,),
        )
        return next((Sample(r[0], r[1], load(r[2]), r[3], r[4]) for r in rows), None)

    def last_sample(self, reactor_id: str) -> int:
        """Number of the sample stored last, corrections included; 0 before the first."""
        rows = self._query("SELECT max(id) FROM samples WHERE reactor_id = ?", (reactor_id,))
        return int(rows[0][0] or 0)

    def record_readings(
        self, reactor_id: str, readings: Iterable[tuple[str, dt.datetime, float, float | None, str]]
    ) -> int:
        """Store online readings, each once.

        Args:
            reactor_id: Reactor.
            readings: Tag, time it was measured at, culture time [h], value, quality.

        Returns:
            How many were new.
        """
        with self._transaction() as db:
            cursor = db.executemany(
                "INSERT OR IGNORE INTO readings VALUES (?, ?, ?, ?, ?, ?)",
                [(reactor_id, tag, stamp(at), t, v, q) for tag, at, t, v, q in readings],
            )
            return cursor.rowcount

    def readings(
        self, reactor_id: str, *, since_h: float = -math.inf, until_h: float = math.inf
    ) -> list[OnlineReading]:
        """Online readings with culture time in (`since_h`, `until_h`] [h], in order of time."""
        rows = self._query(
            "SELECT tag, time_h, value, quality FROM readings WHERE reactor_id = ? AND time_h > ? "
            "AND time_h <= ? ORDER BY time_h, tag",
            (reactor_id, since_h, until_h),
        )
        return [OnlineReading(*row) for row in rows]

    def record_decision(
        self,
        reactor_id: str,
        day: float,
        decision: Mapping[str, Any],
        *,
        supersedes_because: str | None = None,
    ) -> int:
        """Let a decision stand for one reactor and day.

        Args:
            reactor_id: Reactor it is for.
            day: Culture day [d].
            decision: Its content.
            supersedes_because: Reason why it replaces the one that stands, if one does.

        Returns:
            Number of the decision; that of the standing one if it is the very same.

        Raises:
            JournalError: If another decision stands and no reason is given, or if a write
                for it is open: that has to be settled first.
        """
        payload = dump(decision)
        with self._transaction() as db:
            row = db.execute(
                "SELECT id, payload FROM decisions WHERE reactor_id = ? AND day = ? "
                "AND superseded_by_reason IS NULL",
                (reactor_id, day),
            ).fetchone()
            if row is not None and row[1] == payload:
                return int(row[0])
            if row is not None:
                if supersedes_because is None:
                    raise JournalError(
                        f"Day {day:g} of reactor {reactor_id!r} is decided already; another "
                        "decision needs a reason to supersede it."
                    )
                self._supersede(db, row[0], supersedes_because)
            cursor = db.execute(
                "INSERT INTO decisions (reactor_id, day, decided_at, payload) VALUES (?, ?, ?, ?)",
                (reactor_id, day, self._now(), payload),
            )
            return int(cursor.lastrowid or 0)

    def decision(self, reactor_id: str, day: float) -> Decision | None:
        """The standing decision of one reactor and day, if there is one."""
        rows = self._query(
            "SELECT id, reactor_id, day, payload, decided_at FROM decisions "
            "WHERE reactor_id = ? AND day = ? AND superseded_by_reason IS NULL",
            (reactor_id, day),
        )
        if not rows:
            return None
        number, reactor, on_day, payload, decided_at = rows[0]
        return Decision(number, reactor, on_day, load(payload), decided_at)

    def decisions(self, reactor_id: str) -> list[Decision]:
        """Standing decisions of a reactor, by day."""
        rows = self._query(
            "SELECT id, reactor_id, day, payload, decided_at FROM decisions "
            "WHERE reactor_id = ? AND superseded_by_reason IS NULL ORDER BY day",
            (reactor_id,),
        )
        return [Decision(r[0], r[1], r[2], load(r[3]), r[4]) for r in rows]

    def supersede(self, decision_id: int, reason: str) -> None:
        """Let a decision no longer stand.

        Raises:
            JournalError: If a write for it is open: that has to be settled first.
        """
        with self._transaction() as db:
            self._supersede(db, decision_id, reason)

    def close_cycle(self, reactor_id: str, day: float, outcome: str) -> None:
        """Write down that a day's cycle is over; closing it again changes nothing."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO cycles VALUES (?, ?, ?, ?)",
                (reactor_id, day, self._now(), outcome),
            )

    def cycles(self, reactor_id: str) -> dict[float, str]:
        """Outcome of each closed cycle, by day."""
        rows = self._query(
            "SELECT day, outcome FROM cycles WHERE reactor_id = ? ORDER BY day", (reactor_id,)
        )
        return dict(rows)

    def is_closed(self, reactor_id: str, day: float) -> bool:
        """Whether a day's cycle is over."""
        rows = self._query(
            "SELECT 1 FROM cycles WHERE reactor_id = ? AND day = ?", (reactor_id, day)
        )
        return bool(rows)

    def take_lease(self, reactor_id: str, holder: str, ttl: dt.timedelta, *, force: bool) -> int:
        """Become the one who writes to a reactor.

        Args:
            reactor_id: Reactor.
            holder: Who asks, for people.
            ttl: How long the lease holds without being renewed.
            force: Take a lease that has not run out; for one who knows that its holder is dead.

        Returns:
            Number of the lease, higher than every one before.

        Raises:
            RunLockedError: If another's lease has not run out.
        """
        now = self._clock()
        with self._transaction() as db:
            row = db.execute(
                "SELECT token, holder, expires_at FROM leases WHERE reactor_id = ?", (reactor_id,)
            ).fetchone()
            if row is not None and row[2] > stamp(now) and not force:
                raise RunLockedError(
                    f"Reactor {reactor_id!r} is leased to {row[1]} until {row[2]}; wait for that, "
                    "or stop it."
                )
            token = 1 if row is None else row[0] + 1
            db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
                (reactor_id, token, holder, stamp(now + ttl)),
            )
        return token

    def renew_lease(self, reactor_id: str, token: int, ttl: dt.timedelta) -> None:
        """Hold the lease for longer.

        Raises:
            RunLockedError: If somebody else has it by now.
        """
        with self._transaction() as db:
            self._check_lease(db, reactor_id, token)
            db.execute(
                "UPDATE leases SET expires_at = ? WHERE reactor_id = ?",
                (stamp(self._clock() + ttl), reactor_id),
            )

    def release_lease(self, reactor_id: str, token: int) -> None:
        """Give the lease back; one that somebody else has by now is left alone."""
        with self._transaction() as db:
            db.execute(
                "UPDATE leases SET expires_at = ? WHERE reactor_id = ? AND token = ?",
                (self._now(), reactor_id, token),
            )

    def lease(self, reactor_id: str) -> tuple[int, str, str] | None:
        """Number, holder and end of a reactor's lease."""
        rows = self._query(
            "SELECT token, holder, expires_at FROM leases WHERE reactor_id = ?", (reactor_id,)
        )
        return (int(rows[0][0]), rows[0][1], rows[0][2]) if rows else None

    def open_intent(
        self,
        decision_id: int,
        setpoints: Mapping[str, float],
        *,
        lease: int | None = None,
    ) -> int:
        """Write down that set-points are about to be sent.

        Args:
            decision_id: The standing decision they come from.
            setpoints: What the gate let through, by control name.
            lease: Number of the lease under which they are sent.

        Returns:
            Number of the intent, to be closed with the outcome.

        Raises:
            JournalError: If the decision does not stand, was acted on already, or another
                write to this reactor is still open.
            RunLockedError: If the lease is somebody else's by now.
        """
        payload = dump(setpoints)
        with self._transaction() as db:
            row = db.execute(
                "SELECT reactor_id, day FROM decisions WHERE id = ? "
                "AND superseded_by_reason IS NULL",
                (decision_id,),
            ).fetchone()
            if row is None:
                raise JournalError(f"Decision {decision_id} does not stand; nothing may be sent.")
            if lease is not None:
                self._check_lease(db, row[0], lease)
            try:
                cursor = db.execute(
                    "INSERT INTO intents (decision_id, reactor_id, day, opened_at, setpoints) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (decision_id, row[0], row[1], self._now(), payload),
                )
            except sqlite3.IntegrityError:
                raise JournalError(
                    f"Reactor {row[0]!r} has an open write, or decision {decision_id} was acted "
                    "on already; settle it by read-back before anything else is sent."
                ) from None
            return int(cursor.lastrowid or 0)

    def close_intent(
        self, intent_id: int, *, is_written: bool, result: Mapping[str, Any] | None = None
    ) -> None:
        """Write down what became of a write whose outcome is known.

        Args:
            intent_id: Number from `open_intent`.
            is_written: Whether the device confirmed it; a write that was refused before it
                was sent is `False`. If nobody can tell, settle it instead.
            result: Read-back and details.

        Raises:
            JournalError: If no such intent is open.
        """
        with self._transaction() as db:
            self._close(db, intent_id, "written" if is_written else "failed", result or {})

    def pending(self, reactor_id: str | None = None) -> list[Intent]:
        """Writes begun and not closed: after a crash, those whose outcome is unknown."""
        return [intent for intent in self.intents(reactor_id) if intent.outcome is None]

    def intents(self, reactor_id: str | None = None) -> list[Intent]:
        """All writes ever begun, in order; of one reactor if it is named."""
        rows = self._query(
            "SELECT id, decision_id, reactor_id, day, setpoints, opened_at, outcome, result "
            "FROM intents WHERE ? IS NULL OR reactor_id = ? ORDER BY id",
            (reactor_id, reactor_id),
        )
        return [_intent(*row) for row in rows]

    def settle(
        self,
        intent_id: int,
        read_back: Mapping[str, float | None],
        *,
        current_day: float,
        tolerance: Mapping[str, float] | None = None,
    ) -> Settlement:
        """Settle a write of unknown outcome by what the device holds now.

        Args:
            intent_id: An open intent.
            read_back: Values in force, by control name, read after the crash.
            current_day: Day [d] of the cycle that is under way.
            tolerance: Difference per control that is rounding (half a device step).

        Returns:
            Whether it arrived, is to be decided anew, or has expired. In the latter two the
            decision it came from no longer stands.

        Raises:
            JournalError: If no such intent is open, or a value could not be read back: then
                the outcome is still unknown, and nothing may be sent.
        """
        open_ones = {intent.id: intent for intent in self.pending()}
        if intent_id not in open_ones:
            raise JournalError(f"No write with number {intent_id} is open.")
        intent = open_ones[intent_id]
        has_arrived = settled_as_written(intent.setpoints, read_back, tolerance or {})
        if has_arrived is None:
            raise JournalError(
                f"The outcome of write {intent_id} is still unknown: not every control could be "
                "read back."
            )
        if has_arrived:
            verdict = Settlement.ARRIVED
        elif intent.day < current_day:
            verdict = Settlement.EXPIRED
        else:
            verdict = Settlement.DECIDE_ANEW
        with self._transaction() as db:
            self._close(db, intent_id, verdict.value, {"read_back": dict(read_back)})
            if verdict is not Settlement.ARRIVED:
                self._supersede(db, intent.decision_id, f"write {intent_id}: {verdict.value}")
        return verdict

    def stage(self, reactor_id: str, day: float) -> Stage:
        """How far the cycle of one reactor and day has come: where to take it up again."""
        decision = self.decision(reactor_id, day)
        if decision is not None:
            rows = self._query("SELECT outcome FROM intents WHERE decision_id = ?", (decision.id,))
            if not rows:
                return Stage.DECIDED
            return Stage.INTENT_OPEN if rows[0][0] is None else Stage.DONE
        rows = self._query(
            "SELECT 1 FROM samples WHERE reactor_id = ? AND day = ? LIMIT 1", (reactor_id, day)
        )
        return Stage.SAMPLED if rows else Stage.NOTHING

    def _close(
        self, db: sqlite3.Connection, intent_id: int, outcome: str, result: Mapping[str, Any]
    ) -> None:
        cursor = db.execute(
            "UPDATE intents SET outcome = ?, closed_at = ?, result = ? "
            "WHERE id = ? AND outcome IS NULL",
            (outcome, self._now(), dump(result), intent_id),
        )
        if cursor.rowcount != 1:
            raise JournalError(f"No write with number {intent_id} is open.")

    def _check_lease(self, db: sqlite3.Connection, reactor_id: str, token: int) -> None:
        row = db.execute(
            "SELECT token, holder FROM leases WHERE reactor_id = ?", (reactor_id,)
        ).fetchone()
        if row is None or row[0] != token:
            who = "nobody" if row is None else row[1]
            raise RunLockedError(
                f"Reactor {reactor_id!r} is leased to {who} by now; this process may not write."
            )

    def _supersede(self, db: sqlite3.Connection, decision_id: int, reason: str) -> None:
        is_open = db.execute(
            "SELECT 1 FROM intents WHERE decision_id = ? AND outcome IS NULL", (decision_id,)
        ).fetchone()
        if is_open:
            raise JournalError(
                f"Decision {decision_id} has an open write, which must be settled by read-back "
                "before another decision replaces it."
            )
        db.execute(
            "UPDATE decisions SET superseded_by_reason = ? WHERE id = ?", (reason, decision_id)
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def _intent(
    number: int,
    decision_id: int,
    reactor_id: str,
    day: float,
    setpoints: str,
    opened_at: str,
    outcome: str | None,
    result: str | None,
) -> Intent:
    return Intent(
        id=number,
        decision_id=decision_id,
        reactor_id=reactor_id,
        day=day,
        setpoints=load(setpoints),
        opened_at=opened_at,
        outcome=outcome,
        result=None if result is None else load(result),
    )
