"""What Alembic runs: on the connection it is given, or on the database of `PERFUSIO_DB_URL`.

The connection is in a transaction that began before: all steps of one call happen, or none, on
SQLite as well.
"""

import os

from alembic import context

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.sql.migrate import run_in
from perfusio_jax.connectors.sql.schema import VERSION_TABLE, metadata


def _run(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise ConfigError("Migrations need the database itself; there is no offline mode.")
given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    url = os.environ.get("PERFUSIO_DB_URL") or context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise ConfigError("Set PERFUSIO_DB_URL, e.g. to sqlite:///perfusio.db.")
    run_in(url, _run)
