"""Alarms and their states, in the journal file: raised, acknowledged, suppressed, cleared.

One alarm of a name stands at a time. It is cleared by its cause going away, never by a person;
acknowledging says that somebody has seen it, and suppressing silences it for a time. One that
becomes critical counts as new.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from perfusio_jax._core import ConfigError

from .store import JournalFile, stamp

AlarmState = Literal["raised", "acknowledged", "suppressed", "cleared"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm as it stands."""

    id: int
    reactor_id: str
    name: str
    """What it is about, e.g. "forecast/Glc/below"."""
    severity: str
    """"warning" or "critical"."""
    message: str
    raised_at: str
    last_at: str
    times: int
    """How often its cause was found."""
    acknowledged_by: str | None
    suppressed_until: str | None
    cleared_at: str | None

    def state(self, now: dt.datetime) -> AlarmState:
        """State at a moment."""
        if self.cleared_at is not None:
            return "cleared"
        if self.suppressed_until is not None and stamp(now) < self.suppressed_until:
            return "suppressed"
        return "raised" if self.acknowledged_by is None else "acknowledged"


_COLUMNS = (
    "id, reactor_id, name, severity, message, raised_at, last_at, times, acknowledged_by, "
    "suppressed_until, cleared_at"
)


class AlarmBook(JournalFile):
    """The alarms in a journal file; see `JournalFile`."""

    def note_alarm(
        self, reactor_id: str, name: str, severity: str, message: str
    ) -> tuple[Alarm, bool]:
        """Write down that the cause of an alarm is there.

        Args:
            reactor_id: Reactor.
            name: What it is about; one alarm of a name stands at a time.
            severity: "warning" or "critical"; one that got worse is news again.
            message: One sentence for people.

        Returns:
            The alarm, and whether people have to be told: it is new, or has become critical.
        """
        now = self._now()
        with self._transaction() as db:
            row = db.execute(
                "SELECT id, severity FROM alarms WHERE reactor_id = ? AND name = ? "
                "AND cleared_at IS NULL",
                (reactor_id, name),
            ).fetchone()
            if row is None:
                cursor = db.execute(
                    "INSERT INTO alarms (reactor_id, name, severity, message, raised_at, last_at, "
                    "times) VALUES (?, ?, ?, ?, ?, ?, 1)",
                    (reactor_id, name, severity, message, now, now),
                )
                number, is_news = int(cursor.lastrowid or 0), True
            else:
                number, is_news = row[0], row[1] != "critical" and severity == "critical"
                db.execute(
                    "UPDATE alarms SET last_at = ?, times = times + 1, severity = ?, message = ?, "
                    "acknowledged_by = CASE WHEN ? THEN NULL ELSE acknowledged_by END WHERE id = ?",
                    (now, severity, message, is_news, number),
                )
        return self.alarm(number), is_news

    def clear_alarm(self, reactor_id: str, name: str) -> bool:
        """Write down that the cause of an alarm is gone; whether one stood."""
        with self._transaction() as db:
            cursor = db.execute(
                "UPDATE alarms SET cleared_at = ? WHERE reactor_id = ? AND name = ? "
                "AND cleared_at IS NULL",
                (self._now(), reactor_id, name),
            )
            return cursor.rowcount > 0

    def acknowledge_alarm(self, number: int, actor: str) -> Alarm:
        """Write down that somebody has seen an alarm.

        Raises:
            ConfigError: If no alarm of that number stands.
        """
        return self._change(number, "acknowledged_at = ?, acknowledged_by = ?", self._now(), actor)

    def suppress_alarm(self, number: int, until: dt.datetime) -> Alarm:
        """Silence an alarm until a moment.

        Raises:
            ConfigError: If no alarm of that number stands.
        """
        return self._change(number, "suppressed_until = ?", stamp(until))

    def alarm(self, number: int) -> Alarm:
        """One alarm by its number.

        Raises:
            ConfigError: If there is none.
        """
        rows = self._query(f"SELECT {_COLUMNS} FROM alarms WHERE id = ?", (number,))
        if not rows:
            raise ConfigError(f"there is no alarm {number}.")
        return Alarm(*rows[0])

    def standing_alarms(self, reactor_id: str | None = None) -> list[Alarm]:
        """Alarms that are not cleared, oldest first."""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM alarms WHERE cleared_at IS NULL "
            "AND (? IS NULL OR reactor_id = ?) ORDER BY id",
            (reactor_id, reactor_id),
        )
        return [Alarm(*row) for row in rows]

    def alarms(self, reactor_id: str | None = None) -> list[Alarm]:
        """All alarms there ever were, oldest first."""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM alarms WHERE ? IS NULL OR reactor_id = ? ORDER BY id",
            (reactor_id, reactor_id),
        )
        return [Alarm(*row) for row in rows]

    def _change(self, number: int, assignment: str, *values: str) -> Alarm:
        with self._transaction() as db:
            cursor = db.execute(
                f"UPDATE alarms SET {assignment} WHERE id = ? AND cleared_at IS NULL",
                (*values, number),
            )
            if cursor.rowcount != 1:
                raise ConfigError(f"no alarm {number} stands.")
        return self.alarm(number)
