"""Described cultures: whose a vessel is, what has no column of its own, and limits of assays."""

import sqlalchemy as sa
from alembic import context, op

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.sql.schema import UTCDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _id(name: str = "id") -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column(name, kind, nullable=False)


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def upgrade() -> None:
    """Two more tables and one column; no row there is changes."""
    op.create_table(
        "culture",
        _id(),
        _id("reactor_id"),
        _text("name", 200),
        _text("process_sha256", 64),
        sa.Column("process", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("stored_at", UTCDateTime, nullable=False),
        sa.ForeignKeyConstraint(["reactor_id"], ["reactor.id"], name="fk_culture_reactor_id"),
        sa.PrimaryKeyConstraint("id", name="pk_culture"),
        sa.UniqueConstraint("reactor_id", name="uq_culture_reactor_id"),
    )
    op.create_table(
        "reading",
        _id(),
        _id("sample_id"),
        _text("role", 16),
        _text("name", 200),
        sa.Column("value", sa.Double),
        _text("unit", 200),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], name="fk_reading_sample_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reading"),
        sa.UniqueConstraint("sample_id", "name", name="uq_reading_sample_id_name"),
    )
    op.add_column("sample", sa.Column("limits", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    """Drop them; refused where something is in them."""
    bind = op.get_bind()
    tables = {n: sa.table(n, sa.column("id"), sa.column("limits")) for n in _HELD}
    counts = {
        what: bind.execute(
            sa.select(sa.func.count()).select_from(tables[name]).where(*_where(tables[name], name))
        ).scalar_one()
        for name, what in _HELD.items()
    }
    lost = [f"{n} {what}" for what, n in counts.items() if n]
    if lost and not context.config.attributes.get("drop_history", False):
        raise ConfigError(
            f"{', '.join(lost)} would be lost by going back to 0002; export them first, then allow "
            "it with --drop-history."
        )
    op.drop_column("sample", "limits")
    op.drop_table("reading")
    op.drop_table("culture")


_HELD = {
    "culture": "described cultures",
    "reading": "readings without a column of their own",
    "sample": "samples with limits of assays",
}


def _where(table: sa.TableClause, name: str) -> list[sa.ColumnElement[bool]]:
    return [table.c.limits.is_not(None)] if name == "sample" else []
