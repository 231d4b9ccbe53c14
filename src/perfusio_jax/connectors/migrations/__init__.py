"""Migrations of the database, run by Alembic; see `sql_migrate.py`."""
