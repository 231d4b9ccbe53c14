"""Migrations, forward and back, on databases with data in them."""

import asyncio
import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors import SQLStore
from perfusio_jax.connectors.sql import schema
from perfusio_jax.connectors.sql.engine import Database
from perfusio_jax.connectors.sql.errors import SchemaError
from perfusio_jax.connectors.sql.migrate import MIGRATIONS, downgrade, upgrade

EIGHT = {
    "experiment", "reactor", "sample", "setpoint_history", "model_run", "forecast",
    "audit_event", "alarm_event",
}  # fmt: skip
TEN = EIGHT | {"culture", "reading"}


def tables(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names())


def contents(database: Database) -> dict[str, list[dict]]:
    """Every row of every table, by what both versions have."""
    found = {}
    with database.engine.connect() as connection:
        for name in sorted(EIGHT):
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            rows = connection.execute(sa.select(table).order_by(table.c.id)).mappings()
            later = ("revision", "stored_by", "reason", "limits") if name == "sample" else ()
            found[name] = [{n: v for n, v in row.items() if n not in later} for row in rows]
    return found


def fill(store: SQLStore) -> None:
    """Something in every table."""
    for day in range(20):
        store.write_sample(
            day,
            {"VCD": 0.1 + day, "Titer": None, "pH": 7.0},
            sampled_at=dt.datetime(2026, 3, 1 + day, 8, tzinfo=dt.UTC),
        )
    store.write_tags({"capacitance": 12.5}, 30.0)
    asyncio.run(store.write_setpoints({"temperature": 36.5}, day=3))
    store.log_model_run("run1", "abc")
    store.log_forecast("run1", 3, {"VCV": [1.0]}, model_sha256="abc")
    store.log_audit_event("run1", "NOTE", {"x": 1})
    store.log_alarm("run1", {"day": 1, "species": "VCV"})


def test_the_migrated_tables_are_those_the_library_uses(url):
    database = Database(url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, schema.metadata) == []
    assert (
        tables(database)
        == TEN | {schema.VERSION_TABLE}
        == set(schema.metadata.tables) | {schema.VERSION_TABLE}
    )
    database.close()


def test_creating_twice_does_nothing_and_keeps_the_data(empty_url):
    store = SQLStore(empty_url, "E", "R")
    assert not asyncio.run(store.is_alive())
    store.create_tables()
    fill(store)
    before = contents(store.database)
    store.create_tables()
    assert contents(store.database) == before
    assert store.database.revision() == schema.HEAD
    assert asyncio.run(store.is_alive())
    store.database.close()


def test_back_and_forward_keeps_every_row(make):
    store = make()
    fill(store)
    before = contents(store.database)
    downgrade(store.database, "0001")
    assert store.database.revision() == "0001"
    assert contents(store.database) == before
    assert not asyncio.run(store.is_alive())
    with pytest.raises(SchemaError, match="tables at 0001, not at 0003.*perfusio-jax db upgrade"):
        store.write_sample(30, {"VCD": 1.0})
    upgrade(store.database)
    assert contents(store.database) == before
    assert asyncio.run(store.read_record(19)).values == {"VCD": 19.1, "Titer": None}
    (row,) = store.read_revisions(5)
    assert (row["revision"], row["stored_by"], row["reason"]) == (1, "system", None)
    # The unique constraint came back with the upgrade.
    store.write_sample(5, {"VCD": 9.9}, is_correction=True)
    assert [r["revision"] for r in store.read_revisions(5)] == [1, 2]


def test_an_earlier_version_is_filled_and_brought_forward(empty_url):
    """As if an older library had written it."""
    database = Database(empty_url)
    upgrade(database, "0001")
    with database.connection(is_write=True) as connection:
        meta = sa.MetaData()
        meta.reflect(connection)
        now = dt.datetime(2026, 5, 6) if database.is_sqlite else dt.datetime.now(dt.UTC)
        connection.execute(
            meta.tables["experiment"].insert().values(id=1, name="E", created_at=now)
        )
        connection.execute(
            meta.tables["reactor"].insert().values(id=1, experiment_id=1, name="R", created_at=now)
        )
        connection.execute(
            meta.tables["sample"].insert().values(
                reactor_id=1, kind="daily", day=1, time_h=24.0, vcd=2.5, stored_at=now
            )
        )  # fmt: skip
    upgrade(database)
    store = SQLStore(empty_url, "E", "R")
    assert asyncio.run(store.read_sample(1)) == {"VCD": 2.5}
    assert store.write_sample(1, {"Glc": 4.0}).value == "corrected"
    store.database.close()
    database.close()


def test_going_back_past_corrections_is_refused_unless_said(make):
    store = make()
    store.write_sample(1, {"VCD": 2.0})
    store.write_sample(2, {"VCD": 3.0})
    store.write_sample(1, {"VCD": 2.5}, is_correction=True)
    with pytest.raises(ConfigError, match="1 earlier versions.*would be lost"):
        downgrade(store.database, "0001")
    assert store.database.revision() == "0003"
    assert len(store.read_revisions(1)) == 2
    downgrade(store.database, "0001", drop_history=True)
    upgrade(store.database)
    assert asyncio.run(store.read_sample(1)) == {"VCD": 2.5}
    assert asyncio.run(store.read_sample(2)) == {"VCD": 3.0}
    assert len(store.read_revisions(1)) == 1


def test_dropping_filled_tables_is_refused_unless_said(make):
    store = make()
    fill(store)
    with pytest.raises(ConfigError, match="1 experiments with 21 samples would be lost"):
        downgrade(store.database, "base")
    assert len(contents(store.database)["sample"]) == 21
    downgrade(store.database, "base", drop_history=True)
    assert tables(store.database) <= {schema.VERSION_TABLE}
    assert store.database.revision() is None
    store.create_tables()
    assert contents(store.database)["sample"] == []


def test_a_migration_that_fails_leaves_everything_as_it_was(make, monkeypatch):
    store = make()
    fill(store)
    before, columns = contents(store.database), schema.sample.c.keys()
    import alembic.operations.batch as batch

    real = batch.BatchOperationsImpl.flush
    calls = []

    def fails(self):
        calls.append(self.table_name)
        real(self)
        raise RuntimeError("power cut")

    monkeypatch.setattr(batch.BatchOperationsImpl, "flush", fails)
    with pytest.raises(RuntimeError, match="power cut"):
        downgrade(store.database, "0001")
    monkeypatch.undo()
    assert calls == ["sample"]
    assert store.database.revision() == schema.HEAD
    assert contents(store.database) == before
    with store.database.engine.connect() as connection:
        found = {c["name"] for c in sa.inspect(connection).get_columns("sample")}
    assert found == set(columns)


def test_a_killed_migration_leaves_everything_as_it_was(make, url):
    store = make()
    fill(store)
    before = contents(store.database)
    program = """
import os, signal, sys
import alembic.operations.batch as batch
from perfusio_jax.connectors.sql.engine import Database
from perfusio_jax.connectors.sql.migrate import downgrade
real = batch.BatchOperationsImpl.flush
def dies(self):
    real(self)
    os.kill(os.getpid(), signal.SIGKILL)
batch.BatchOperationsImpl.flush = dies
downgrade(Database(sys.argv[1]), "0001")
"""
    killed = subprocess.run([sys.executable, "-c", program, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert contents(store.database) == before
    assert store.database.revision() == schema.HEAD
    assert store.write_sample(40, {"VCD": 1.0}).value == "new"


def test_two_that_create_at_once_make_one_set_of_tables(empty_url):
    troubles: list[BaseException] = []
    start = threading.Barrier(3)

    def work() -> None:
        store = SQLStore(empty_url, "E", "R")
        start.wait()
        try:
            store.create_tables()
        except BaseException as error:
            troubles.append(error)
        store.database.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    database = Database(empty_url)
    assert database.revision() == schema.HEAD
    database.close()


def test_a_newer_database_is_refused_with_what_to_do(make):
    store = make()
    store.write_sample(1, {"VCD": 2.0})
    with store.database.connection(is_write=True) as connection:
        connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0099'")
    store.database.close()
    with pytest.raises(SchemaError, match="tables at 0099.*update the library"):
        store.write_sample(2, {"VCD": 2.0})
    assert not asyncio.run(store.is_alive())
    with pytest.raises(ConfigError, match="0099"):
        store.create_tables()


def test_tables_of_somebody_else_are_not_touched(empty_url):
    database = Database(empty_url)
    if database.is_sqlite:
        assert database.file is not None
        sqlite3.connect(database.file).close()
    with database.connection(is_write=True) as connection:
        connection.exec_driver_sql("CREATE TABLE sample (id INTEGER PRIMARY KEY, mine TEXT)")
        connection.exec_driver_sql("INSERT INTO sample VALUES (1, 'precious')")
    with pytest.raises(SchemaError, match="has tables sample that no migration"):
        upgrade(database)
    with database.connection() as connection:
        assert connection.exec_driver_sql("SELECT mine FROM sample").scalar() == "precious"
    assert tables(database) == {"sample"}
    database.close()


@pytest.mark.parametrize("target", ["0007", "nonsense"])
def test_a_migration_there_is_not_is_refused(make, target):
    for move in (upgrade, downgrade):
        with pytest.raises(ConfigError, match=target):
            move(make().database, target)


def test_the_alembic_program_does_the_same(tmp_path):
    """With its own command line, on the database of PERFUSIO_DB_URL."""
    settings = tmp_path / "alembic.ini"
    settings.write_text(f"[alembic]\nscript_location = {MIGRATIONS}\n")
    command = [sys.executable, "-m", "alembic", "-c", str(settings), "upgrade", "head"]
    url = f"sqlite:///{tmp_path / 'run.db'}"
    subprocess.run(command, env={**os.environ, "PERFUSIO_DB_URL": url}, check=True)
    database = Database(url)
    assert tables(database) == TEN | {schema.VERSION_TABLE}
    assert database.revision() == schema.HEAD
    database.close()
    without = {n: v for n, v in os.environ.items() if n != "PERFUSIO_DB_URL"}
    done = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "Set PERFUSIO_DB_URL" in done.stderr
