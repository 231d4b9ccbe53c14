"""A twin's loop on a real database: samples, set-points, and the copy of its audit trail."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from perfusio_jax._core import STATE_ORDER, DataError
from perfusio_jax.connectors.sql import schema
from perfusio_jax.connectors.sql.engine import open_sqlite
from perfusio_jax.connectors.sql.schema import HEAD, VERSION_TABLE
from perfusio_jax.connectors.sql.store import SQLStore
from perfusio_jax.twin import LoopSettings, ReactorLoop, RunRecords, verify_audit
from perfusio_jax.twin.alarms.desk import event
from perfusio_jax.twin.loop import mirror
from perfusio_jax.twin.records.chain import records
from perfusio_jax.twin.records.forecasts_made import unpacked
from perfusio_jax.twin.records.records import store_forecast
from perfusio_jax.twin.records.run_files import JOURNAL_NAME, RunFiles, open_run
from perfusio_jax.twin.records.runtime import system_runtime
from tests.connectors.opcua_rigs import until
from tests.faults.plant import BOUNDS, LEVELS, START
from tests.faults.process import FileDevice
from tests.faults.thinking import LightBrain
from tests.faults.world import LIMITS

MIRROR_ALARM = "session/mirror/unknown"


def sample(day: int) -> dict[str, float]:
    return {n: v * (1.0 + 0.01 * day) for n, v in zip(STATE_ORDER, LEVELS, strict=True)}


@contextlib.contextmanager
def opened(folder: Path, connector: Any, archive: Any) -> Iterator[tuple[ReactorLoop, RunFiles]]:
    """The loop of a run folder as the twin puts it together, with a brain that is quick."""
    runtime = system_runtime()
    files = open_run(folder, run_id="run", runtime=runtime, connector=connector, may_write=True)
    try:
        loop = ReactorLoop(
            connector,
            LightBrain(lambda day: ""),
            folder=None,
            records=files.records,
            audit=files.audit,
            limits=LIMITS,
            settings=LoopSettings(
                allow_write=True,
                initial_controls=dict(START),
                species_bounds=BOUNDS,
                poll_seconds=0.02,
                patience_seconds=60.0,
                beat_seconds=0.02,
                call_timeout_s=2.0,
            ),
            runtime=runtime,
            archive=archive,
        )
        loop.take_lease("test", force=True)
        yield loop, files
        loop.release_lease()
    finally:
        files.close()


async def drive(folder: Path, connector: Any, archive: Any, n_days: int) -> None:
    with opened(folder, connector, archive) as (loop, _):
        await loop.run(n_days)


def log_of(folder: Path) -> list[dict[str, Any]]:
    assert verify_audit(folder).ok
    return list(records((folder / "audit.jsonl").read_bytes()))


def alarms(folder: Path) -> list[str]:
    with RunRecords(folder / JOURNAL_NAME) as book:
        return [alarm.name for alarm in book.standing_alarms("R00")]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(mirror, "PAUSES_S", (0.02, 0.05))


def _set_version(store: SQLStore, version: str) -> None:
    with store.database.engine.begin() as connection:
        statement = f"UPDATE {VERSION_TABLE} SET version_num = :v"
        connection.execute(sa.text(statement), {"v": version})


@pytest.fixture
async def away(store: SQLStore, request) -> AsyncIterator[Callable[[str], Any]]:
    """Takes the database away as asked ("killed", "frozen" or "locked"), until left."""

    @contextlib.asynccontextmanager
    async def gone(how: str) -> AsyncIterator[None]:
        with contextlib.ExitStack() as back:
            file = store.database.file
            if how == "of another version":
                _set_version(store, "m9999")
                back.callback(_set_version, store, HEAD)
            elif file is not None and how == "killed":
                elsewhere = file.with_name("elsewhere.db")
                file.rename(elsewhere)
                back.callback(elsewhere.rename, file)
            elif file is not None:
                other = open_sqlite(file, 5.0)
                other.execute("BEGIN IMMEDIATE")
                back.callback(other.close)
            elif how == "locked":
                connection = back.enter_context(store.database.engine.connect())
                back.enter_context(connection.begin())
                connection.execute(sa.text("LOCK TABLE audit_event IN ACCESS EXCLUSIVE MODE"))
            else:
                server = request.getfixturevalue("postgres")
                if how == "killed":
                    server.kill()
                    back.callback(server.start, server.port)
                else:
                    server.signal(signal.SIGSTOP)
                    back.callback(server.signal, signal.SIGCONT)
            yield

    yield gone


async def test_a_run_on_a_database_leaves_all_of_it_there(make, tmp_path, quick):
    store, hands = make(), make()
    for day in range(2):
        hands.write_sample(day, sample(day))

    async def later() -> None:
        await asyncio.sleep(0.3)
        hands.write_sample(2, sample(2))

    late = asyncio.create_task(later())
    (tmp_path / "run").mkdir()
    table = np.ones((2, 1))
    made = SimpleNamespace(
        forecast={"days": [1.0, 2.0], "mean": table, "q10": table, "q50": table, "q90": table},
        species=("VCD",),
    )
    for name, day in (("R00", 0), ("R00", 1), ("R9", 1)):
        store_forecast(tmp_path / "run", made, reactor_id=name, day=day)
    await drive(tmp_path / "run", store, store, 3)
    await late
    copied = hands.forecasts()
    assert [row["day"] for row in copied] == [0, 1]
    assert unpacked(copied[1]["payload"])[0] == (1.0, 1.0, "VCD", (1.0, 1.0, 1.0))
    log = log_of(tmp_path / "run")
    written = [r["new"] for r in log if r["event_type"] == "SETPOINT_CHANGE"]
    assert len(written) == 3
    assert await hands.read_setpoints() == {**written[0], **written[1], **written[2]}
    state = hands.compare_audit("run", log)
    assert state.ok and state.n_copied == state.n_log == len(log) and state.first_missing is None
    assert alarms(tmp_path / "run") == []
    assert str(state) == f"{len(log)} of {len(log)} records are in the database"
    assert hands.mirrored_audit("run") == (len(log), len(log), log[-1]["hash"])
    assert hands.mirrored_audit("another") == (0, 0, "")
    row = next(r for r in hands.audit_events() if r["event_type"] == "SETPOINT_CHANGE")
    assert row["details"]["new"] == written[0] and row["payload"]["intent"] == 1


async def test_forecasts_that_are_refused_are_told_once_and_the_trail_is_copied(
    make, tmp_path, quick, monkeypatch
):
    store, hands = make(), make()
    (tmp_path / "run").mkdir()
    table = np.ones((1, 1))
    made = SimpleNamespace(
        forecast={"days": [1.0], "mean": table, "q10": table, "q50": table, "q90": table},
        species=("VCD",),
    )
    store_forecast(tmp_path / "run", made, reactor_id="R00", day=0)

    def refuses(*_: Any) -> int:
        raise DataError("no forecasts here")

    monkeypatch.setattr(store, "mirror_forecasts", refuses)
    await drive(tmp_path / "run", FileDevice(tmp_path / "device.jsonl"), store, 2)
    log = log_of(tmp_path / "run")
    assert hands.compare_audit("run", log).n_copied == len(log)
    raised = [str(r) for r in log if r["event_type"] == "ALARM_RAISED"]
    assert len([r for r in raised if "forecasts are not copied: no forecasts here" in r]) == 1
    assert not [r for r in raised if "lags" in r]


@pytest.mark.parametrize("how", ["killed", "frozen", "locked", "of another version"])
async def test_a_database_that_is_away_delays_the_copy_and_nothing_else(
    make, away, tmp_path, quick, how, kind
):
    """The device is a file: days go on, and what was not copied follows."""
    if (kind, how) == ("sqlite", "frozen"):
        pytest.skip("a file has no process that could freeze")
    archive, hands = make(timeout_s=1.0), make()
    folder, device = tmp_path / "run", FileDevice(tmp_path / "device.jsonl")
    await drive(folder, device, archive, 2)
    before = len(log_of(folder))
    assert hands.compare_audit("run", log_of(folder)).n_copied == before
    archive.database.close()
    async with away(how):
        await drive(folder, device, archive, 4)
        with RunRecords(folder / JOURNAL_NAME) as book:
            assert sorted(book.cycles("R00")) == [0.0, 1.0, 2.0, 3.0]
        assert MIRROR_ALARM in alarms(folder)
    log = log_of(folder)
    lag = hands.compare_audit("run", log)
    assert lag.ok and before <= lag.n_copied < lag.n_log
    assert lag.first_missing == lag.n_copied + 1
    await drive(folder, device, archive, 5)
    log = log_of(folder)
    assert hands.compare_audit("run", log).n_copied == len(log)
    assert hands.mirrored_audit("run")[0] == len(log)
    assert MIRROR_ALARM not in alarms(folder)
    told = [r["payload"].get("name") for r in log if r["event_type"] == "ALARM_CLEARED"]
    assert told.count(MIRROR_ALARM) == 1


async def test_a_database_that_goes_away_during_the_run_is_waited_for(
    make, away, tmp_path, quick, monkeypatch
):
    """Samples and set-points are in the database too: the twin waits, and loses nothing."""
    store, hands = make(timeout_s=1.0), make()
    for day in range(4):
        hands.write_sample(day, sample(day))
    folder = tmp_path / "run"
    with opened(folder, store, store) as (loop, files):
        run = asyncio.create_task(loop.run(4))

        async def has_closed_a_day() -> bool:
            return bool(files.records.cycles("R00"))

        await until(has_closed_a_day)
        async with away("killed"):
            await asyncio.sleep(0.4)
        await asyncio.wait_for(run, 60)
        assert sorted(files.records.cycles("R00")) == [0.0, 1.0, 2.0, 3.0]
    log = log_of(folder)
    assert hands.compare_audit("run", log).n_copied == len(log)
    sampled = [r["day"] for r in log if r["event_type"] == "SAMPLE_READ"]
    assert sorted(set(sampled)) == [0, 1, 2, 3]


async def test_a_restart_goes_on_where_the_copy_ended(url, tmp_path, quick):
    class Counting(SQLStore):
        sent = 0

        def mirror_audit(self, records):
            records = list(records)
            self.sent += len(records)
            return super().mirror_audit(records)

    device = FileDevice(tmp_path / "device.jsonl")
    counts = []
    for n_days in (3, 4):
        store = Counting(url, "Exp1", "R1")
        await drive(tmp_path / "run", device, store, n_days)
        counts.append(store.sent)
        store.database.close()
    n = len(log_of(tmp_path / "run"))
    assert sum(counts) == n  # each was sent once
    store = Counting(url, "Exp1", "R1")
    with store.database.engine.begin() as connection:  # somebody deletes a row
        connection.execute(sa.delete(schema.audit_event).where(schema.audit_event.c.seq == 2))
    assert store.compare_audit("run", log_of(tmp_path / "run")).first_missing == 2
    await drive(tmp_path / "run", device, store, 4)
    log = log_of(tmp_path / "run")
    assert store.compare_audit("run", log).n_copied == len(log) and store.sent == len(log)
    store.database.close()


async def test_the_end_of_a_run_waits_for_the_copy_under_way(url, tmp_path, quick):
    class Slow(SQLStore):
        def mirror_audit(self, records):
            time.sleep(0.3)  # long enough that the end finds a call under way
            return super().mirror_audit(records)

    store = Slow(url, "Exp1", "R1")
    await drive(tmp_path / "run", FileDevice(tmp_path / "device.jsonl"), store, 2)
    log = log_of(tmp_path / "run")
    assert store.compare_audit("run", log).n_copied == len(log)
    store.database.close()


async def test_a_row_that_says_something_else_is_named_and_the_others_are_copied(
    make, tmp_path, quick
):
    store, hands = make(), make()
    device = FileDevice(tmp_path / "device.jsonl")
    folder = tmp_path / "run"
    await drive(folder, device, store, 1)
    table = schema.audit_event
    with store.database.engine.begin() as connection:
        connection.execute(
            sa.update(table).where(table.c.seq == 2).values(payload={"stored": "never"})
        )
        connection.execute(sa.delete(table).where(table.c.seq == 3))
    state = hands.compare_audit("run", log_of(folder))
    assert (state.ok, state.first_differing, state.first_missing) == (False, 2, 3)
    assert "record 2 says something else there" in str(state)
    await drive(folder, device, store, 2)
    log = log_of(folder)
    state = hands.compare_audit("run", log)
    assert (state.n_copied, state.first_differing) == (len(log) - 1, 2)
    found = [r["payload"] for r in log if r["event_type"] == "ALARM_RAISED"]
    (told,) = [p for p in found if p["species"] == "mirror differs"]
    assert "audit record 2 is not copied" in told["note"] and "payload" in told["note"]
    hands.mirror_audit([{**log[0], "hash": "f" * 64}])
    state = hands.compare_audit("run", log)
    assert state.n_foreign == 1 and "1 rows there are not in the log" in str(state)


async def test_what_only_the_last_copy_finds_is_copied_too(make, tmp_path, quick, monkeypatch):
    """Its alarm is a record of its own, made while the run ends."""
    store, hands = make(), make()
    device, folder = FileDevice(tmp_path / "device.jsonl"), tmp_path / "run"
    await drive(folder, device, store, 1)
    with store.database.engine.begin() as connection:
        table = schema.audit_event
        connection.execute(sa.update(table).where(table.c.seq == 2).values(payload={}))
        connection.execute(sa.delete(table).where(table.c.seq == 3))

    async def idle(self) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(mirror.AuditMirror, "follow", idle)
    await drive(folder, device, store, 2)
    log = log_of(folder)
    assert "ALARM_RAISED" in {r["event_type"] for r in log[-2:]}
    assert hands.compare_audit("run", log).n_copied == len(log) - 1


async def test_an_alarm_half_cleared_when_the_run_ends_is_cleared_whole(
    make, tmp_path, quick, monkeypatch
):
    """In the journal and in the trail."""
    folder, device = tmp_path / "run", FileDevice(tmp_path / "device.jsonl")
    with opened(folder, device, make()) as (loop, _):
        assert loop.mirror is not None
        await loop.desk.raise_one(event("session", "mirror", "it is away", 0))
        begun = asyncio.Event()
        clear = loop.records.clear_alarm

        def slow(*args: Any) -> bool:
            here.call_soon_threadsafe(begun.set)
            time.sleep(0.2)
            return clear(*args)

        here = asyncio.get_running_loop()
        monkeypatch.setattr(loop.records, "clear_alarm", slow)
        task = asyncio.create_task(loop.mirror.follow())
        await begun.wait()
        for _ in range(3):  # whoever ends it may tell it again
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task
    kinds = [r["event_type"] for r in log_of(folder)]
    assert kinds[-1] == "ALARM_CLEARED" and MIRROR_ALARM not in alarms(folder)
