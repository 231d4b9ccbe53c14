"""Corrected samples keep their history: revisions, with who stored them and why."""

import sqlalchemy as sa
from alembic import context, op

from perfusio_jax._core import ConfigError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OLD = "uq_sample_reactor_id_kind_time_h"
_NEW = "uq_sample_reactor_id_kind_time_h_revision"


def upgrade() -> None:
    """Every sample there is becomes its revision 1."""
    with op.batch_alter_table("sample") as batch:
        batch.add_column(sa.Column("revision", sa.Integer, nullable=False, server_default="1"))
        batch.add_column(
            sa.Column("stored_by", sa.String(200), nullable=False, server_default="system")
        )
        batch.add_column(sa.Column("reason", sa.Text))
        batch.drop_constraint(_OLD, type_="unique")
        batch.create_unique_constraint(_NEW, ["reactor_id", "kind", "time_h", "revision"])
    with op.batch_alter_table("sample") as batch:
        batch.alter_column("revision", server_default=None)
        batch.alter_column("stored_by", server_default=None)


def downgrade() -> None:
    """The newest revision of each sample stays; refused where that would lose older ones."""
    sample = sa.table("sample", *(sa.column(n) for n in ("id", "reactor_id", "kind", "time_h")))
    key = (sample.c.reactor_id, sample.c.kind, sample.c.time_h)
    newest = sa.select(sa.func.max(sample.c.id)).group_by(*key)
    older = sample.c.id.not_in(newest)
    count = sa.select(sa.func.count()).select_from(sample).where(older)
    n_older = op.get_bind().execute(count).scalar_one()
    if n_older and not context.config.attributes.get("drop_history", False):
        raise ConfigError(
            f"{n_older} earlier versions of corrected samples would be lost by going back to "
            "0001; export them first, then allow it with --drop-history."
        )
    op.execute(sa.delete(sample).where(older))
    with op.batch_alter_table("sample") as batch:
        batch.drop_constraint(_NEW, type_="unique")
        batch.create_unique_constraint(_OLD, ["reactor_id", "kind", "time_h"])
        batch.drop_column("reason")
        batch.drop_column("stored_by")
        batch.drop_column("revision")
