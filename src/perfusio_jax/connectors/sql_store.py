"""A database as a connector; `connectors/sql` holds it."""

from perfusio_jax.connectors.sql.store import SQLStore as SQLStore
