"""The ten tables of the database, as they are at the newest migration.

Species are columns (`vcd`, `glc`, ... in canonical units), so that any SQL tool can plot them;
everything whose names a site may extend (quality, tags, totals, limits) is JSON. What a described
culture has beyond those columns, or in another unit, is a row of `reading` with its name and unit,
and `culture` says whose a vessel is. Nothing is updated in place: a corrected sample is a row of
higher `revision`, an alarm that changes state another row.

The tables change by migrations only (`migrations/versions`); a test compares the two.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from perfusio_jax._core import REGISTRY, DataError

VERSION_TABLE: Final = "perfusio_schema"
"""Where the migration a database is at is noted."""

HEAD: Final = "0003"
"""Migration this version of the library reads and writes."""

NAME_LENGTH: Final = 200

CHUNK: Final = 400
"""Rows per statement; SQLite allows some thousand parameters."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UTCDateTime(sa.types.TypeDecorator[dt.datetime]):
    """An instant, to the microsecond; written and read in UTC, refused without a zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:
        """To UTC, and without a zone for SQLite, which has none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise DataError(f"the time {value.isoformat()} has no zone; add one, e.g. UTC.")
        try:
            value = value.astimezone(dt.UTC)
        except OverflowError:
            raise DataError(
                f"the time {value.isoformat()} is outside the calendar in UTC."
            ) from None
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:
        """With its zone, UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """As it is read; SQLite holds what somebody put there, whatever the column's type."""
        return _readable(super().result_processor(dialect, coltype), "a time")


class JSONText(sa.types.TypeDecorator[Any]):
    """Canonical values as JSON; `None` is NULL."""

    impl = sa.JSON(none_as_null=True)
    cache_ok = True

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """As it is read; SQLite holds what somebody put there, whatever the column's type."""
        return _readable(super().result_processor(dialect, coltype), "JSON")


def _readable(read: Callable[[Any], Any] | None, what: str) -> Callable[[Any], Any]:
    """A reader of one value that says what it cannot read."""

    def safely(value: Any) -> Any:
        try:
            return value if read is None else read(value)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise DataError(
                f"the database holds {repr(value)[:60]} where {what} belongs; it was put there by "
                "another program."
            ) from None

    return safely


_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_NAME = sa.String(NAME_LENGTH)
_JSON = JSONText()


def _id() -> sa.Column[int]:
    return sa.Column("id", _ID, primary_key=True)


def _reference(table: str) -> sa.Column[int]:
    return sa.Column(f"{table}_id", _ID, sa.ForeignKey(f"{table}.id"), nullable=False)


def species_column(name: str) -> str:
    """Column of a species: its canonical name in lower case."""
    return name.lower()


experiment = sa.Table(
    "experiment",
    metadata,
    _id(),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("name"),
)

reactor = sa.Table(
    "reactor",
    metadata,
    _id(),
    _reference("experiment"),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("clone_id", _NAME),
    sa.Column("volume_l", sa.Double),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("experiment_id", "name"),
)

sample = sa.Table(
    "sample",
    metadata,
    _id(),
    _reference("reactor"),
    sa.Column("kind", sa.String(16), nullable=False),  # "daily" or "online"
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("time_h", sa.Double, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("sampled_at", UTCDateTime),
    sa.Column("stored_at", UTCDateTime, nullable=False),
    sa.Column("stored_by", _NAME, nullable=False),
    sa.Column("reason", sa.Text),
    *(sa.Column(species_column(name), sa.Double) for name in REGISTRY),
    sa.Column("volume_l", sa.Double),
    sa.Column("quality", _JSON),
    sa.Column("stream_totals", _JSON),
    sa.Column("controls", _JSON),
    sa.Column("tags", _JSON),
    sa.Column("source_times", _JSON),
    sa.Column("notes", _JSON),
    sa.Column("limits", _JSON),  # below and above by name, null where there is none on that side
    sa.UniqueConstraint("reactor_id", "kind", "time_h", "revision"),
    sa.Index(None, "reactor_id", "kind", "day"),
)

culture = sa.Table(
    "culture",
    metadata,
    _id(),
    _reference("reactor"),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("process_sha256", sa.String(64), nullable=False),
    sa.Column("process", _JSON, nullable=False),
    sa.Column("stored_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("reactor_id"),
)

reading = sa.Table(
    "reading",
    metadata,
    _id(),
    _reference("sample"),
    sa.Column("role", sa.String(16), nullable=False),  # "quantity" or "control"
    sa.Column("name", _NAME, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("unit", _NAME, nullable=False),
    sa.UniqueConstraint("sample_id", "name"),
)

setpoint_history = sa.Table(
    "setpoint_history",
    metadata,
    _id(),
    _reference("reactor"),
    sa.Column("write_id", sa.String(64), nullable=False),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("day", sa.Double),
    sa.Column("time_h", sa.Double),
    sa.Column("written_at", UTCDateTime, nullable=False),
    sa.Column("written_by", _NAME, nullable=False),
    sa.Column("reason", sa.Text),
    sa.UniqueConstraint("reactor_id", "write_id", "name"),
    sa.Index(None, "reactor_id", "name", "id"),
)

model_run = sa.Table(
    "model_run",
    metadata,
    _id(),
    _reference("experiment"),
    sa.Column("run_id", _NAME, nullable=False),
    sa.Column("model_sha256", sa.String(64), nullable=False),
    sa.Column("kind", _NAME, nullable=False),
    sa.Column("trained_at", UTCDateTime, nullable=False),
    sa.Column("settings", _JSON),
    sa.Column("metrics", _JSON),
    sa.UniqueConstraint("experiment_id", "run_id", "model_sha256"),
)

forecast = sa.Table(
    "forecast",
    metadata,
    _id(),
    _reference("reactor"),
    sa.Column("model_run_id", _ID, sa.ForeignKey("model_run.id")),
    sa.Column("run_id", _NAME, nullable=False),
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("made_at", UTCDateTime, nullable=False),
    sa.Column("payload", _JSON, nullable=False),
    sa.UniqueConstraint("reactor_id", "run_id", "day", "key"),
)

audit_event = sa.Table(
    "audit_event",
    metadata,
    _id(),
    _reference("reactor"),
    sa.Column("run_id", _NAME, nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("seq", sa.BigInteger),
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("event_type", _NAME, nullable=False),
    sa.Column("actor", _NAME, nullable=False),
    sa.Column("happened_at", UTCDateTime, nullable=False),
    sa.Column("payload", _JSON, nullable=False),
    sa.Column("details", _JSON),
    sa.UniqueConstraint("reactor_id", "run_id", "key"),
)

alarm_event = sa.Table(
    "alarm_event",
    metadata,
    _id(),
    _reference("reactor"),
    sa.Column("run_id", _NAME, nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("species", _NAME, nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("actor", _NAME, nullable=False),
    sa.Column("happened_at", UTCDateTime, nullable=False),
    sa.Column("payload", _JSON, nullable=False),
    sa.UniqueConstraint("reactor_id", "run_id", "key", "state", "happened_at"),
)
