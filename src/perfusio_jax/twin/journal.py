"""The write-ahead journal: what a run has seen, decided and done, through any crash.

One SQLite file per run. Every call is one transaction on the disk before it returns, so
that after a kill at any instruction the journal says how far the cycle had come:

    sample stored -> decision made -> intent opened -> (the write happens) -> intent closed

- A sample is stored once per (reactor, day); the same one again changes nothing.
- One decision stands per (reactor, day); another needs the first to be superseded.
- One intent per reactor may be open. An open intent found on start is a write whose outcome
  is unknown: it is settled by reading the device back, never by sending it again.
"""

import datetime as dt
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rfc8785

from perfusio_jax._core import DataError

from .chain import plain
from .entries import Decision as Decision
from .entries import Intent as Intent
from .entries import JournalError as JournalError
from .entries import Sample as Sample
from .entries import Settlement as Settlement
from .entries import Stage as Stage
from .entries import Stored as Stored
from .entries import settled_as_written as settled_as_written

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE samples (
    id INTEGER PRIMARY KEY,
    reactor_id TEXT NOT NULL,
    day REAL NOT NULL,
    revision INTEGER NOT NULL,
    stored_at TEXT NOT NULL,
    payload TEXT NOT NULL,
    UNIQUE (reactor_id, day, revision)
) STRICT;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    reactor_id TEXT NOT NULL,
    day REAL NOT NULL,
    decided_at TEXT NOT NULL,
    payload TEXT NOT NULL,
    superseded_by_reason TEXT
) STRICT;
CREATE UNIQUE INDEX one_standing_decision ON decisions (reactor_id, day)
    WHERE superseded_by_reason IS NULL;
CREATE TABLE intents (
    id INTEGER PRIMARY KEY,
    decision_id INTEGER NOT NULL REFERENCES decisions (id),
    reactor_id TEXT NOT NULL,
    day REAL NOT NULL,
    opened_at TEXT NOT NULL,
    setpoints TEXT NOT NULL,
    outcome TEXT,
    closed_at TEXT,
    result TEXT,
    CHECK ((outcome IS NULL) = (closed_at IS NULL))
) STRICT;
CREATE UNIQUE INDEX one_open_intent ON intents (reactor_id) WHERE outcome IS NULL;
CREATE UNIQUE INDEX one_intent_per_decision ON intents (decision_id);
"""


class Journal:
    """Durable record of one run's samples, decisions and writes.

    Calls block for as long as the disk takes; from a coroutine use `asyncio.to_thread`. One
    object may be shared between threads.

    Args:
        path: The SQLite file; made if it is not there.
        clock: Source of time stamps; UTC now by default.
        timeout_s: How long [s] to wait for another process that holds the file.

    Raises:
        JournalError: If the file is not a journal, has another schema version or cannot be
            opened.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Callable[[], dt.datetime] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self.path = Path(path)
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._mutex = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"The journal {self.path} cannot be opened: {error}") from error
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

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
        payload = _dump(values)
        with self._transaction() as db:
            row = db.execute(
                "SELECT revision, payload FROM samples WHERE reactor_id = ? AND day = ? "
                "ORDER BY revision DESC LIMIT 1",
                (reactor_id, day),
            ).fetchone()
            if row is not None and row[1] == payload:
                return Stored.DUPLICATE
            if row is not None and not is_correction:
                differing = ", ".join(_differences(json.loads(row[1]), json.loads(payload)))
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

    def samples(self, reactor_id: str) -> list[Sample]:
        """Standing samples of a reactor by day: of each day the latest revision."""
        rows = self._query(
            "SELECT reactor_id, day, payload, revision, stored_at FROM samples AS s "
            "WHERE reactor_id = ? AND revision = (SELECT max(revision) FROM samples AS t "
            "WHERE t.reactor_id = s.reactor_id AND t.day = s.day) ORDER BY day",
            (reactor_id,),
        )
        return [Sample(r[0], r[1], json.loads(r[2]), r[3], r[4]) for r in rows]

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
        payload = _dump(decision)
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
        return Decision(number, reactor, on_day, json.loads(payload), decided_at)

    def open_intent(self, decision_id: int, setpoints: Mapping[str, float]) -> int:
        """Write down that set-points are about to be sent.

        Args:
            decision_id: The standing decision they come from.
            setpoints: What the gate let through, by control name.

        Returns:
            Number of the intent, to be closed with the outcome.

        Raises:
            JournalError: If the decision does not stand, was acted on already, or another
                write to this reactor is still open.
        """
        payload = _dump(setpoints)
        with self._transaction() as db:
            row = db.execute(
                "SELECT reactor_id, day FROM decisions WHERE id = ? "
                "AND superseded_by_reason IS NULL",
                (decision_id,),
            ).fetchone()
            if row is None:
                raise JournalError(f"Decision {decision_id} does not stand; nothing may be sent.")
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

    def check(self) -> None:
        """Have SQLite verify the whole file.

        Raises:
            JournalError: If it is damaged.
        """
        answer = self._query("PRAGMA integrity_check", ())
        if answer != [("ok",)]:
            raise JournalError(f"The journal {self.path} is damaged: {answer[0][0]}")

    def close(self) -> None:
        """Close the file; everything recorded is on the disk already."""
        with self._mutex:
            self._db.close()

    def __enter__(self) -> "Journal":
        """Use as a context manager; closes at the end."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def _prepare(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            names = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} cannot be used as a journal: {error}") from error
        if not names:
            with self._transaction() as db:
                # Another process may have been faster; then there is nothing left to do.
                if not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute("INSERT INTO meta VALUES ('schema_version', ?)", (SCHEMA_VERSION,))
        elif "meta" not in names:
            raise JournalError(f"{self.path} is a database, but not a journal of this program.")
        version = self._query("SELECT value FROM meta WHERE name = 'schema_version'", ())
        if version != [(str(SCHEMA_VERSION),)]:
            raise JournalError(
                f"The journal {self.path} has schema version {version[0][0] if version else '?'}; "
                f"this program reads version {SCHEMA_VERSION}."
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it on the disk at the end, or none of it."""
        with self._mutex:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise JournalError(f"The journal {self.path} failed: {error}") from error

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._mutex:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"The journal {self.path} failed: {error}") from error

    def _close(
        self, db: sqlite3.Connection, intent_id: int, outcome: str, result: Mapping[str, Any]
    ) -> None:
        cursor = db.execute(
            "UPDATE intents SET outcome = ?, closed_at = ?, result = ? "
            "WHERE id = ? AND outcome IS NULL",
            (outcome, self._now(), _dump(result), intent_id),
        )
        if cursor.rowcount != 1:
            raise JournalError(f"No write with number {intent_id} is open.")

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

    def _now(self) -> str:
        return self._clock().astimezone(dt.UTC).isoformat(timespec="microseconds")


def _dump(values: Mapping[str, Any]) -> str:
    return rfc8785.dumps(plain(values)[0]).decode()


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
        setpoints=json.loads(setpoints),
        opened_at=opened_at,
        outcome=outcome,
        result=None if result is None else json.loads(result),
    )
