"""Records of a run in the database: audit, alarms, models and forecasts, each stored once."""

import datetime as dt
import hashlib
import json
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from perfusio_jax._core import DataError
from perfusio_jax.twin.records.chain import AuditCopy, plain

from . import schema
from .records import check_name
from .rows import Rows
from .schema import CHUNK


class SQLArchive(Rows):
    """What a run leaves behind beside its samples and set-points.

    Each entry has a key. The same entry again changes nothing; another one under the same key
    is refused.
    """

    def log_audit_event(
        self,
        run_id: str,
        event_type: str,
        payload: Mapping[str, Any],
        day: int = 0,
        user: str = "system",
        *,
        key: str | None = None,
    ) -> None:
        """Store an audit event.

        The record that is judged is `audit.jsonl`; `mirror_audit` copies it here.

        Args:
            run_id: Run it belongs to.
            event_type: What happened, e.g. "SETPOINT_CHANGE".
            payload: Details.
            day: Culture day [d].
            user: Who did it.
            key: Name of this event, to make storing it again harmless.

        Raises:
            DataError: If other content is stored under that key.
            DatabaseError: If the database cannot be used.
        """
        content, marks = plain(dict(payload))
        row = {
            "run_id": check_name(run_id, "run_id"),
            "key": check_name(key or secrets.token_hex(16), "key"),
            "seq": None,
            "day": int(day),
            "event_type": check_name(event_type, "event_type"),
            "actor": check_name(user, "user"),
            "payload": content,
            "details": {"marks": marks} if marks else None,
        }
        self._store_once(schema.audit_event, ("run_id", "key"), [row], {"happened_at": self._now()})

    def mirror_audit(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Copy records of `audit.jsonl`; those copied before are left alone.

        Args:
            records: Records as the log holds them, with `hash`.

        Returns:
            How many were new.

        Raises:
            DataError: If a record is none of an audit trail.
            DatabaseError: If the database cannot be used; none is copied then.
        """
        rows = [_audit_row(record) for record in records]
        return self._store_once(schema.audit_event, ("run_id", "key"), rows)

    def mirrored_audit(self, run_id: str) -> tuple[int, int, str]:
        """How far the copy of a run's audit trail is.

        Args:
            run_id: The run.

        Returns:
            Number of records copied, the number (`seq`) of the last of them, and its hash.

        Raises:
            DatabaseError: If the database cannot be used.
        """
        table = schema.audit_event

        def work(connection: sa.Connection) -> tuple[int, int, str]:
            columns: Any = sa.select(table.c.seq, table.c.key)
            mine = self._of_this(columns, table).where(
                table.c.run_id == run_id, table.c.seq.is_not(None)
            )
            n = connection.execute(sa.select(sa.func.count()).select_from(mine.subquery()))
            last = connection.execute(mine.order_by(table.c.seq.desc()).limit(1)).first()
            return (0, 0, "") if last is None else (n.scalar_one(), last.seq, last.key)

        return self.database.call(work)

    def compare_audit(self, run_id: str, records: Iterable[Mapping[str, Any]]) -> AuditCopy:
        """Compare the copy of a run's audit trail with the log, row by row.

        Every row of the run counts, also one without a number (`log_audit_event` leaves such),
        and one that cannot be read says something else.

        Args:
            run_id: The run.
            records: Records as the verified log holds them, all of them, in order.

        Raises:
            DataError: If a record is none of an audit trail.
            DatabaseError: If the database cannot be used.
        """
        wanted = {row["key"]: row for row in (_audit_row(record) for record in records)}
        table = schema.audit_event

        def work(connection: sa.Connection) -> dict[str, Mapping[str, Any]]:
            columns: Any = sa.select(table.c.id, table.c.key)
            query = self._of_this(columns, table).where(table.c.run_id == run_id)
            there = [(row.id, str(row.key)) for row in connection.execute(query)]
            return _whole_rows(connection, table, there)

        found = self.database.call(work)
        missing = [row["seq"] for key, row in wanted.items() if key not in found]
        differing = [
            row["seq"]
            for key, row in wanted.items()
            if key in found and any(found[key].get(n) != v for n, v in row.items())
        ]
        return AuditCopy(
            n_log=len(wanted),
            n_copied=len(wanted) - len(missing) - len(differing),
            first_missing=min(missing, default=None),
            first_differing=min(differing, default=None),
            n_foreign=len(set(found) - set(wanted)),
        )

    def log_alarm(
        self,
        run_id: str,
        alarm: Any,
        *,
        key: str | None = None,
        state: str = "raised",
        user: str = "system",
        happened_at: dt.datetime | None = None,
    ) -> None:
        """Store an alarm, or a change of its state as a further row.

        Args:
            run_id: Run it belongs to.
            alarm: An `AlarmEvent`, or a mapping with `day` and `species`.
            key: Name of the alarm, the same for all its states; made of its content by default.
            state: "raised", "acknowledged", "cleared" or "suppressed".
            user: Who changed the state.
            happened_at: When, with a zone; now by default.

        Raises:
            DataError: If the state is unknown or the alarm has no day or species.
            DatabaseError: If the database cannot be used.
        """
        states = ("raised", "acknowledged", "cleared", "suppressed")
        if state not in states:
            raise DataError(f"state is {state!r}; allowed are {', '.join(states)}.")
        content, _ = plain(alarm)
        if not isinstance(content, dict) or not {"day", "species"} <= set(content):
            raise DataError(f"an alarm needs day and species; this is {alarm!r}.")
        row = {
            "run_id": check_name(run_id, "run_id"),
            "key": check_name(key or _digest([run_id, content]), "key"),
            "state": state,
            "day": int(content["day"]),
            "species": check_name(content["species"], "species"),
            "severity": str(content.get("severity", "warning")),
            "actor": check_name(user, "user"),
            "happened_at": happened_at or self._now(),
            "payload": content,
        }
        self._store_once(schema.alarm_event, ("run_id", "key", "state", "happened_at"), [row])

    def log_model_run(
        self,
        run_id: str,
        model_sha256: str,
        *,
        kind: str = "hybrid",
        settings: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Store that a model was trained.

        Args:
            run_id: Run it was trained in or for.
            model_sha256: Hash of the model.
            kind: What kind of model.
            settings: How it was trained.
            metrics: How good it is.

        Raises:
            DataError: If other content is stored for that model.
            DatabaseError: If the database cannot be used.
        """
        row = {
            "run_id": check_name(run_id, "run_id"),
            "model_sha256": check_name(model_sha256, "model_sha256"),
            "kind": check_name(kind, "kind"),
            "settings": plain(dict(settings or {}))[0],
            "metrics": plain(dict(metrics or {}))[0],
        }
        key = ("run_id", "model_sha256")
        self._store_once(schema.model_run, key, [row], {"trained_at": self._now()})

    def log_forecast(
        self,
        run_id: str,
        day: int,
        payload: Mapping[str, Any],
        *,
        model_sha256: str | None = None,
    ) -> None:
        """Store a forecast.

        Args:
            run_id: Run it was made in.
            day: Culture day [d] it was made on.
            payload: The forecast, e.g. quantiles by species.
            model_sha256: Model that made it, if `log_model_run` stored it.

        Raises:
            DataError: If that model is not stored.
            DatabaseError: If the database cannot be used.
        """
        content, _ = plain(dict(payload))
        row = {
            "run_id": check_name(run_id, "run_id"),
            "day": int(day),
            "key": _digest([model_sha256, content]),
            "payload": content,
        }
        key = ("run_id", "day", "key")
        stamps = {"made_at": self._now()}
        self._store_once(schema.forecast, key, [row], stamps, model_sha256=model_sha256)

    def mirror_forecasts(self, run_id: str, made: Iterable[Mapping[str, Any]]) -> int:
        """Copy forecasts of a run; those copied before are left alone.

        Args:
            run_id: The run.
            made: Each with the culture day it was made on, `made_on_day` [d]; one that was made
                again on that day is another entry, and the later one counts.

        Returns:
            How many were new.

        Raises:
            DatabaseError: If the database cannot be used; none is copied then.
        """
        rows = []
        for one in made:
            content, _ = plain(dict(one))
            rows.append(
                {
                    "run_id": check_name(run_id, "run_id"),
                    "day": int(one["made_on_day"]),
                    "key": _digest([None, content]),
                    "payload": content,
                }
            )
        key = ("run_id", "day", "key")
        return self._store_once(schema.forecast, key, rows, {"made_at": self._now()})

    def audit_events(self) -> list[dict[str, Any]]:
        """Audit events of this reactor, oldest first."""
        return self._rows(schema.audit_event)

    def alarm_events(self) -> list[dict[str, Any]]:
        """Alarms of this reactor and their changes of state, oldest first."""
        return self._rows(schema.alarm_event)

    def forecasts(self) -> list[dict[str, Any]]:
        """Forecasts of this reactor, oldest first."""
        return self._rows(schema.forecast)

    def model_runs(self) -> list[dict[str, Any]]:
        """Models trained in this experiment, oldest first."""
        return self._rows(schema.model_run)


_OWN = ("run_id", "hash", "seq", "day", "event_type", "user", "timestamp", "payload")
"""Fields of an audit record with a column of their own."""


def _whole_rows(
    connection: sa.Connection, table: sa.Table, there: Sequence[tuple[int, str]]
) -> dict[str, Mapping[str, Any]]:
    """Rows by their key; one that holds what cannot be read is there with nothing in it."""
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(there), CHUNK):
        part = there[start : start + CHUNK]
        found |= {key: {} for _, key in part}
        try:
            rows = _with_ids(connection, table, [number for number, _ in part])
        except DataError:
            rows = [row for number, _ in part for row in _one(connection, table, number)]
        found |= {str(row["key"]): row for row in rows}
    return found


def _one(connection: sa.Connection, table: sa.Table, number: int) -> list[dict[str, Any]]:
    try:
        return _with_ids(connection, table, [number])
    except DataError:
        return []


def _with_ids(
    connection: sa.Connection, table: sa.Table, numbers: Sequence[int]
) -> list[dict[str, Any]]:
    query = sa.select(table).where(table.c.id.in_(numbers))
    return [{str(n): v for n, v in row.items()} for row in connection.execute(query).mappings()]


def _audit_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of an audit trail as a row.

    Raises:
        DataError: If it is none.
    """
    lacking = [name for name in _OWN if name not in record]
    if lacking:
        raise DataError(f"an audit record lacks {', '.join(lacking)}.")
    day, beside = record["day"], {n: v for n, v in record.items() if n not in _OWN}
    if isinstance(day, float):  # the column is of whole days: what is between stands beside it
        day, beside = math.floor(day), {**beside, "day": day}
    return {
        "run_id": record["run_id"],
        "key": record["hash"],
        "seq": record["seq"],
        "day": day,
        "event_type": record["event_type"],
        "actor": record["user"],
        "happened_at": dt.datetime.fromisoformat(record["timestamp"]),
        "payload": record["payload"],
        "details": beside,
    }


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
