"""The eight tables."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import SchemaItem

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.sql.schema import UTCDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SPECIES = "vcd vcv via diam glc gln glu lac amm pyr titer dcd lys".split()
_TABLES = (
    "experiment",
    "reactor",
    "sample",
    "setpoint_history",
    "model_run",
    "forecast",
    "audit_event",
    "alarm_event",
)


def _id() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("id", kind, nullable=False)


def _create(table: str, *columns: SchemaItem, unique: str, refers: str = "") -> None:
    """A table with its key, its foreign keys and what makes a row unique."""
    names = [*refers.split(), *unique.split()]
    links: list[SchemaItem] = []
    for target in refers.split():
        kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
        is_optional = (table, target) == ("forecast", "model_run")
        links.append(sa.Column(f"{target}_id", kind, nullable=is_optional))
        links.append(
            sa.ForeignKeyConstraint(
                [f"{target}_id"], [f"{target}.id"], name=f"fk_{table}_{target}_id"
            )
        )
    key = [f"{n}_id" if n in refers.split() else n for n in names if n != "model_run"]
    op.create_table(
        table,
        _id(),
        *links,
        *columns,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.UniqueConstraint(*key, name=f"uq_{table}_{'_'.join(key)}"),
    )


def _name(column: str, length: int = 200, *, is_optional: bool = False) -> sa.Column[str]:
    return sa.Column(column, sa.String(length), nullable=is_optional)


def _time(column: str, *, is_optional: bool = False) -> sa.Column:
    return sa.Column(column, UTCDateTime, nullable=is_optional)


def _json(column: str, *, is_optional: bool = True) -> sa.Column:
    return sa.Column(column, sa.JSON(none_as_null=True), nullable=is_optional)


def upgrade() -> None:
    """Make them."""
    _create(
        "experiment",
        _name("name"),
        sa.Column("description", sa.Text),
        _time("created_at"),
        unique="name",
    )
    _create(
        "reactor",
        _name("name"),
        _name("clone_id", is_optional=True),
        sa.Column("volume_l", sa.Double),
        _time("created_at"),
        refers="experiment",
        unique="name",
    )
    _create(
        "sample",
        _name("kind", 16),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("time_h", sa.Double, nullable=False),
        _time("sampled_at", is_optional=True),
        _time("stored_at"),
        *(sa.Column(name, sa.Double) for name in _SPECIES),
        sa.Column("volume_l", sa.Double),
        *(
            _json(name)
            for name in ("quality", "stream_totals", "controls", "tags", "source_times", "notes")
        ),
        refers="reactor",
        unique="kind time_h",
    )
    op.create_index("ix_sample_reactor_id_kind_day", "sample", ["reactor_id", "kind", "day"])
    _create(
        "setpoint_history",
        _name("write_id", 64),
        _name("name"),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("day", sa.Double),
        sa.Column("time_h", sa.Double),
        _time("written_at"),
        _name("written_by"),
        sa.Column("reason", sa.Text),
        refers="reactor",
        unique="write_id name",
    )
    op.create_index(
        "ix_setpoint_history_reactor_id_name_id", "setpoint_history", ["reactor_id", "name", "id"]
    )
    _create(
        "model_run",
        _name("run_id"),
        _name("model_sha256", 64),
        _name("kind"),
        _time("trained_at"),
        _json("settings"),
        _json("metrics"),
        refers="experiment",
        unique="run_id model_sha256",
    )
    _create(
        "forecast",
        _name("run_id"),
        sa.Column("day", sa.Integer, nullable=False),
        _name("key", 64),
        _time("made_at"),
        _json("payload", is_optional=False),
        refers="reactor model_run",
        unique="run_id day key",
    )
    _create(
        "audit_event",
        _name("run_id"),
        _name("key", 64),
        sa.Column("seq", sa.BigInteger),
        sa.Column("day", sa.Integer, nullable=False),
        _name("event_type"),
        _name("actor"),
        _time("happened_at"),
        _json("payload", is_optional=False),
        _json("details"),
        refers="reactor",
        unique="run_id key",
    )
    _create(
        "alarm_event",
        _name("run_id"),
        _name("key", 64),
        _name("state", 16),
        sa.Column("day", sa.Integer, nullable=False),
        _name("species"),
        _name("severity", 16),
        _name("actor"),
        _time("happened_at"),
        _json("payload", is_optional=False),
        refers="reactor",
        unique="run_id key state happened_at",
    )


def downgrade() -> None:
    """Drop them; refused where something is in them."""
    n_samples, n_experiments = (
        op.get_bind().execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
        for name in ("sample", "experiment")
    )
    if n_experiments and not context.config.attributes.get("drop_history", False):
        raise ConfigError(
            f"{n_experiments} experiments with {n_samples} samples would be lost by dropping the "
            "tables; export them first, then allow it with --drop-history."
        )
    for table in reversed(_TABLES):
        op.drop_table(table)
