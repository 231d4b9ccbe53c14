"""Databases that are locked, down, frozen, full, read-only or not ours: by name, nothing lost."""

import asyncio
import contextlib
import datetime as dt
import logging
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa

from perfusio_jax._core import DataError
from perfusio_jax.connectors import SQLStore
from perfusio_jax.connectors.base import SampleNotReady
from perfusio_jax.connectors.sql import schema
from perfusio_jax.connectors.sql.errors import (
    DatabaseAccessError,
    DatabaseDownError,
    DatabaseError,
    DatabaseFullError,
    DatabaseLockedError,
    SchemaError,
)
from perfusio_jax.twin import Journal


def calls(store: SQLStore, day: int = 1):
    """Every kind of call, as functions."""
    return {
        "read": lambda: asyncio.run(store.read_record(day)),
        "days": lambda: asyncio.run(store.days_available()),
        "read back": lambda: asyncio.run(store.read_back()),
        "write": lambda: store.write_sample(day, {"VCD": 2.0}),
        "set-points": lambda: asyncio.run(store.write_setpoints({"temperature": 36.5})),
        "audit": lambda: store.log_audit_event("run1", "NOTE", {}),
    }


def test_a_locked_database_is_named_and_loses_nothing(make, kind):
    store, other = make(timeout_s=0.5), make()
    store.write_sample(1, {"VCD": 2.0})
    with (
        other.database.engine.connect() as holder,
        holder.execution_options(perfusio_write=True).begin(),
    ):
        if kind == "postgresql":
            holder.exec_driver_sql("LOCK TABLE sample, setpoint_history, reactor")
        for name in ("write", "set-points"):
            with pytest.raises(DatabaseLockedError, match="locked by another|did not finish"):
                calls(store, 2)[name]()
        if kind == "sqlite":  # readers never wait for a writer
            assert asyncio.run(store.read_sample(1)) == {"VCD": 2.0}
    assert store.write_sample(2, {"VCD": 3.0}).value == "new"
    assert asyncio.run(store.days_available()) == [1, 2]
    assert asyncio.run(store.read_setpoints()) == {}


def test_a_database_that_is_not_there_is_down(tmp_path):
    for file in (tmp_path / "no.db", tmp_path / "no" / "folder.db"):
        store = SQLStore(f"sqlite:///{file}", "E", "R")
        for call in calls(store).values():
            with pytest.raises(DatabaseDownError, match="no file"):
                call()
        assert not file.exists()
    closed = SQLStore("postgresql://ada@127.0.0.1:1/db", "E", "R", timeout_s=2.0)
    for call in calls(closed).values():
        with pytest.raises(DatabaseDownError, match="cannot be reached"):
            call()
    assert not asyncio.run(closed.is_alive())


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_server_that_is_killed_is_down_and_comes_back_whole(make, postgres):
    store = make(timeout_s=3.0)
    store.write_sample(1, {"VCD": 2.0})
    postgres.kill()
    for call in calls(store, 2).values():
        with pytest.raises(DatabaseDownError):
            call()
    postgres.start(postgres.port)
    assert asyncio.run(store.read_sample(1)) == {"VCD": 2.0}
    assert store.write_sample(2, {"VCD": 3.0}).value == "new"


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_frozen_server_costs_one_time_out_and_no_thread(make, postgres):
    """`asyncio.run` waits for its threads: it would not return while one hangs."""
    store = make(timeout_s=1.0)
    store.write_sample(1, {"VCD": 2.0})

    async def while_frozen() -> int:
        postgres.signal(signal.SIGSTOP)
        ticks = 0
        task = asyncio.create_task(store.write_setpoints({"temperature": 36.5}))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.01)
        with pytest.raises(DatabaseDownError, match="did not answer within 1 s"):
            await task
        assert not await store.is_alive()
        return ticks

    try:
        assert asyncio.run(while_frozen()) > 10
    finally:
        postgres.signal(signal.SIGCONT)
    deadline = time.monotonic() + 20.0
    while not asyncio.run(store.is_alive()):
        assert time.monotonic() < deadline
    assert asyncio.run(store.read_sample(1)) == {"VCD": 2.0}
    assert asyncio.run(store.read_setpoints()) == {}  # what was given up did not arrive late


def test_a_statement_without_end_is_cut_off(make):
    """`asyncio.run` waits for its threads: it would not return while one counts on."""
    store = make(timeout_s=0.5)
    store.write_sample(1, {"VCD": 2.0})
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r"
    with pytest.raises((DatabaseDownError, DatabaseLockedError), match="did not (answer|finish)"):
        asyncio.run(store.database.acall(lambda c: c.exec_driver_sql(endless).scalar()))

    async def give_up() -> None:
        task = asyncio.create_task(
            store.database.acall(lambda c: c.exec_driver_sql(endless).scalar())
        )
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(give_up())
    assert asyncio.run(store.read_sample(1)) == {"VCD": 2.0}


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_wrong_password_is_named_and_never_shown(url, monkeypatch, caplog, capsys, tmp_path):
    caplog.set_level(logging.DEBUG)
    right = os.environ["PGPASSWORD"]
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    store = SQLStore(url, "E", "R", echo=True)
    shown = [repr(store), repr(vars(store)), repr(vars(store.database))]
    for call in calls(store).values():
        with pytest.raises(DatabaseAccessError, match="refuses this user or password") as caught:
            call()
        shown.append("".join(traceback.format_exception(caught.value)))
    assert not asyncio.run(store.is_alive())
    # The other way in: a file only this user can read.
    monkeypatch.delenv("PGPASSWORD")
    password_file = tmp_path / "pgpass"
    password_file.write_text(f"127.0.0.1:*:*:perfusio:{right}\n")
    password_file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(password_file))
    store.database.close()
    assert store.write_sample(1, {"VCD": 2.0}).value == "new"
    shown += [repr(vars(store.database)), caplog.text, *capsys.readouterr()]
    for secret in (right, "hunter2"):
        assert secret not in "".join(shown)
    store.database.close()


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_database_that_does_not_exist_or_forbids_is_named(url, postgres, make):
    missing = SQLStore(url.rsplit("/", 1)[0] + "/nowhere", "E", "R")
    with pytest.raises(SchemaError, match="does not exist"):
        missing.create_tables()
    assert not asyncio.run(missing.is_alive())
    make().write_sample(1, {"VCD": 2.0})
    name = url.rsplit("/", 1)[1]
    postgres.execute(f"CREATE ROLE reader_{name} LOGIN PASSWORD '{postgres.password}'")
    postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{name}", name)
    reader = SQLStore(url.replace("perfusio@", f"reader_{name}@"), "Exp1", "R1")
    assert asyncio.run(reader.read_sample(1)) == {"VCD": 2.0}
    with pytest.raises(DatabaseAccessError, match="does not allow"):
        reader.write_sample(2, {"VCD": 2.0})
    reader.database.close()
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    read_only = make()
    with pytest.raises(DatabaseAccessError, match="read-only"):
        read_only.write_sample(2, {"VCD": 2.0})
    postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    postgres.execute(f"DROP OWNED BY reader_{name}", name)
    postgres.execute(f"DROP ROLE reader_{name}")


def test_files_that_are_no_database_of_ours_are_named(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("day,VCD\n" * 1000)
    with pytest.raises(SchemaError, match="is not an SQLite database"):
        SQLStore(f"sqlite:///{text}", "E", "R").write_sample(1, {"VCD": 2.0})
    assert text.read_text() == "day,VCD\n" * 1000
    Journal(tmp_path / "journal.sqlite").close()
    for name in ("journal.sqlite", "empty.db"):
        if not (tmp_path / name).exists():
            (tmp_path / name).touch()
        store = SQLStore(f"sqlite:///{tmp_path / name}", "E", "R")
        with pytest.raises(SchemaError, match="has no tables of this library.*db upgrade"):
            asyncio.run(store.read_sample(1))
        assert not asyncio.run(store.is_alive())
        store.database.close()
    folder = SQLStore(f"sqlite:///{tmp_path}", "E", "R")
    with pytest.raises(DatabaseDownError, match="cannot be opened"):
        folder.write_sample(1, {"VCD": 2.0})


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_damaged_file_is_named(make):
    store = make()
    for day in range(50):
        store.write_sample(day, {"VCD": 2.0, "Glc": 3.0}, reason="x" * 500)
    store.database.close()
    file = store.database.file
    content = bytearray(file.read_bytes())
    assert not file.with_name(file.name + "-wal").exists()
    for n in range(5000, len(content) - 100, 97):
        content[n] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DatabaseError) as caught:
        asyncio.run(store.read_history())
        store.write_sample(99, {"VCD": 1.0})
    assert "run.db" in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_file_replaced_under_us_is_read_anew(make, tmp_path):
    store = make()
    store.write_sample(1, {"VCD": 2.0})
    other = SQLStore(f"sqlite:///{tmp_path / 'other.db'}", "Exp1", "R1")
    other.create_tables()
    other.write_sample(1, {"VCD": 7.0})
    other.database.close()
    store.database.close()
    asyncio.run(store.read_sample(1))  # an open connection in the pool
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(str(store.database.file) + end)
    os.replace(other.database.file, store.database.file)
    assert asyncio.run(store.read_sample(1)) == {"VCD": 7.0}


def test_content_no_program_of_ours_wrote_is_named(store):
    store.write_sample(1, {"VCD": 2.0})
    if store.database.is_sqlite:  # PostgreSQL takes no such thing
        with store.database.connection(is_write=True) as connection:
            connection.exec_driver_sql("UPDATE sample SET quality = '{torn'")
        with pytest.raises(DataError, match="'{torn' where JSON belongs"):
            asyncio.run(store.read_sample(1))
    else:
        with pytest.raises(sa.exc.DBAPIError), store.database.connection(is_write=True) as c:
            c.exec_driver_sql("UPDATE sample SET quality = '{torn'")


def test_a_table_that_goes_missing_is_named(make):
    store = make()
    store.write_sample(1, {"VCD": 2.0})
    with store.database.connection(is_write=True) as connection:
        whole = " CASCADE" if connection.dialect.name == "postgresql" else ""
        connection.exec_driver_sql(f"DROP TABLE sample{whole}")
    with pytest.raises(SchemaError, match="lacks a table"):
        asyncio.run(store.read_sample(1))
    assert asyncio.run(store.read_setpoints()) == {}  # the other tables are there


def test_foreign_keys_are_kept(make):
    store = make()
    store.write_sample(1, {"VCD": 2.0})
    with pytest.raises(sa.exc.IntegrityError), store.database.connection(is_write=True) as c:
        c.execute(schema.reactor.delete())
    with pytest.raises(sa.exc.IntegrityError), store.database.connection(is_write=True) as c:
        c.execute(
            schema.reactor.insert().values(
                experiment_id=99, name="x", created_at=dt.datetime.now(dt.UTC)
            )
        )
    assert asyncio.run(store.read_sample(1)) == {"VCD": 2.0}


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_sqlite_is_switched_to_what_survives_a_power_cut(store):
    store.write_sample(1, {"VCD": 2.0})
    with store.database.engine.connect() as connection:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = {n: connection.exec_driver_sql(f"PRAGMA {n}").scalar() for n in names}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1,
                     "busy_timeout": 8000}  # fmt: skip


# ---------------------------------------------------------------- programs that are killed

WRITER = """
import sys
from perfusio_jax.connectors import SQLStore
store = SQLStore(sys.argv[1], "Exp1", "R1")
for day in range(100_000):
    store.write_sample(day, {"VCD": float(day)})
    print(day, flush=True)
"""


def test_what_was_acknowledged_before_a_kill_is_there_once(make, url):
    store = make()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(25)]
    writer.kill()
    said += [int(line) for line in writer.stdout.read().split()]
    writer.stdout.close()
    writer.wait()
    days = asyncio.run(store.days_available())
    assert days[: len(said)] == said  # in order, none lost
    assert len(days) - len(said) in (0, 1)  # at most the one that was being acknowledged
    assert all(len(store.read_revisions(day)) == 1 for day in days)
    next_day = len(days)
    assert store.write_sample(next_day, {"VCD": 1.0}).value == "new"


FULL = """
import resource, signal, sys
from perfusio_jax.connectors import SQLStore
from perfusio_jax.connectors.sql.errors import DatabaseError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SQLStore(sys.argv[1], "Exp1", "R1")
store.write_sample(0, {"VCD": 0.0})
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, most))
day = 0
try:
    while day < 5000:
        store.write_sample(day + 1, {"VCD": float(day + 1)}, reason="x" * 2000)
        day += 1
except DatabaseError as error:
    print(day, type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
print(store.write_sample(day + 1, {"VCD": float(day + 1)}).value)
"""


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_full_disk_is_named_and_loses_nothing(make, url):
    done = subprocess.run(
        [sys.executable, "-c", FULL, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    day, name = first.split()[:2]
    assert name in (DatabaseFullError.__name__, DatabaseDownError.__name__), first
    assert int(day) > 0
    assert last == "new"
    assert asyncio.run(make().days_available()) == list(range(int(day) + 2))


READ_ONLY = """
import asyncio, os, sys
from perfusio_jax.connectors import SQLStore
from perfusio_jax.connectors.sql.errors import DatabaseError
url, folder, nobody = sys.argv[1], sys.argv[2], int(sys.argv[3])
warm = SQLStore(f"sqlite:///{folder}/warm.db", "E", "R")  # loads what root alone may read
warm.create_tables()
warm.write_sample(1, {"VCD": 1.0})
asyncio.run(warm.read_sample(1))
warm.database.close()
if os.geteuid() == 0:  # root may write everywhere
    os.setgroups([])
    os.setegid(nobody)
    os.seteuid(nobody)
store = SQLStore(url, "Exp1", "R1")
calls = [lambda: store.write_sample(2, {"VCD": 1.0}), lambda: print(asyncio.run(store.read_sample(1)))]
for call in calls:
    try:
        call()
    except DatabaseError as error:
        print(type(error).__name__, error)
"""  # noqa: E501


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_folder_that_is_read_only_is_named(make, tmp_path_factory):
    store = make()
    store.write_sample(1, {"VCD": 2.0})
    store.database.close()
    folder = Path("/tmp") / f"perfusio-read-only-{os.getpid()}"
    folder.mkdir()
    try:
        shutil.copy(store.database.file, folder / "run.db")
        (folder / "run.db").chmod(0o444)
        folder.chmod(0o555)
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        url = f"sqlite:///{folder / 'run.db'}"
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, url, str(tmp_path_factory.mktemp("warm")), nobody],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("DatabaseAccessError") and "is read-only" in first
    # SQLite makes a file beside the database even to read.
    assert second.startswith("DatabaseAccessError") and "is read-only" in second


def test_a_write_given_up_half_way_is_stored_once_or_not_at_all(make):
    store = make()

    async def give_up(day: int, turns: int) -> None:
        task = asyncio.create_task(
            store.database.acall(lambda c: None, is_write=True)
            if day < 0
            else asyncio.to_thread(store.write_sample, day, {"VCD": float(day)})
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for day in range(8):
        asyncio.run(give_up(day, day * 3))
    for day in range(8):
        assert store.write_sample(day, {"VCD": float(day)}).value in ("new", "duplicate")
        assert len(store.read_revisions(day)) == 1
    with pytest.raises(SampleNotReady):
        asyncio.run(store.read_sample(8))


def test_text_no_column_holds_is_kept_inside_a_payload_and_refused_as_a_name(store):
    store.log_audit_event("run1", "NOTE", {"text": "a\x00b"})
    assert store.audit_events()[0]["payload"] == {"text": "a\x00b"}
    with pytest.raises(DataError, match="without control characters"):
        store.log_audit_event("run1", "NO\x00TE", {})
    store.log_audit_event("run1", "NOTE", {"text": "\ud800"})  # half a character, spelt out
    assert store.audit_events()[1]["payload"] == {"text": "\\ud800"}


def test_sqlite_errors_without_a_code_are_named():
    from perfusio_jax.connectors.sql.errors import named

    error = named(sqlite3.OperationalError("no such table: sample"), "sqlite:///x")
    assert isinstance(error, SchemaError)
    assert isinstance(named(RuntimeError("odd"), "sqlite:///x"), DatabaseError)
