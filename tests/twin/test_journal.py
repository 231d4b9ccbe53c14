"""The journal: exactly once, one standing decision, recovery after a kill at any step."""

import datetime as dt
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from perfusio_jax._core import DataError
from perfusio_jax.twin.records.journal import (
    Journal,
    JournalError,
    Settlement,
    Stage,
    Stored,
    settled_as_written,
)

SAMPLE = {"VCD": 12.5, "Glc": None, "Via": math.nan}
POINTS = {"perfusion_rate": 1.2, "temperature": 36.5}


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def test_a_sample_is_stored_once_and_missing_stays_missing(journal):
    assert journal.record_sample("R1", 1, SAMPLE) is Stored.NEW
    assert journal.record_sample("R1", 1, dict(reversed(SAMPLE.items()))) is Stored.DUPLICATE
    assert journal.record_sample("R2", 1, SAMPLE) is Stored.NEW
    (stored,) = journal.samples("R1")
    assert stored.values == {"VCD": 12.5, "Glc": None, "Via": None}
    assert (stored.day, stored.revision) == (1.0, 1)


def test_another_sample_for_the_same_day_must_be_declared_a_correction(journal):
    journal.record_sample("R1", 1, SAMPLE)
    changed = {**SAMPLE, "VCD": 13.0}
    with pytest.raises(DataError, match=r"Day 1 .*VCD"):
        journal.record_sample("R1", 1, changed)
    assert journal.record_sample("R1", 1, changed, is_correction=True) is Stored.CORRECTED
    assert journal.record_sample("R1", 1, changed) is Stored.DUPLICATE
    (stored,) = journal.samples("R1")
    assert (stored.values["VCD"], stored.revision) == (13.0, 2)


def test_samples_come_back_by_day_however_late_they_came(journal):
    assert journal.newest_sample("R1") is None
    for day in (3, 1, 2):
        journal.record_sample("R1", day, {"VCD": float(day)})
        assert journal.newest_sample("R1") == journal.samples("R1")[-1]
    assert [sample.day for sample in journal.samples("R1")] == [1.0, 2.0, 3.0]
    journal.record_sample("R1", 3, {"VCD": 3.5}, is_correction=True)
    journal.record_sample("R2", 4, {"VCD": 4.0})
    assert journal.newest_sample("R1") == journal.samples("R1")[-1]
    assert journal.newest_sample("R1").values == {"VCD": 3.5}


def test_one_decision_stands_per_reactor_and_day(journal):
    first = journal.record_decision("R1", 1, POINTS)
    assert journal.record_decision("R1", 1, POINTS) == first
    other = {**POINTS, "temperature": 37.0}
    with pytest.raises(JournalError, match="decided already"):
        journal.record_decision("R1", 1, other)
    second = journal.record_decision("R1", 1, other, supersedes_because="operator asked")
    assert journal.decision("R1", 1).id == second
    assert journal.decision("R1", 1).payload == other
    with pytest.raises(JournalError, match="does not stand"):
        journal.open_intent(first, POINTS)
    assert journal.decision("R1", 2) is None


def test_a_decision_is_acted_on_once_and_one_write_is_open_at_a_time(journal):
    first = journal.record_decision("R1", 1, POINTS)
    write = journal.open_intent(first, POINTS)
    with pytest.raises(JournalError, match="settle it"):
        journal.open_intent(first, POINTS)
    tomorrow = journal.record_decision("R1", 2, POINTS)
    with pytest.raises(JournalError, match="settle it"):
        journal.open_intent(tomorrow, POINTS)
    with pytest.raises(JournalError, match="settled by read-back"):
        journal.record_decision("R1", 1, {}, supersedes_because="impatience")
    journal.close_intent(write, is_written=True, result={"read_back": POINTS})
    with pytest.raises(JournalError, match="settle it"):
        journal.open_intent(first, POINTS)
    journal.open_intent(tomorrow, POINTS)
    with pytest.raises(JournalError, match="No write with number"):
        journal.close_intent(write, is_written=True)
    other = journal.record_decision("R2", 1, POINTS)
    journal.open_intent(other, POINTS)
    assert [intent.reactor_id for intent in journal.pending()] == ["R1", "R2"]
    assert [intent.reactor_id for intent in journal.pending("R2")] == ["R2"]
    assert [intent.outcome for intent in journal.intents("R1")] == ["written", None]


@pytest.mark.parametrize(
    ("read_back", "day", "verdict"),
    [
        (POINTS, 4, Settlement.ARRIVED),
        (POINTS, 9, Settlement.ARRIVED),
        ({**POINTS, "temperature": 36.52}, 4, Settlement.ARRIVED),
        ({**POINTS, "temperature": 37.0}, 4, Settlement.DECIDE_ANEW),
        ({"temperature": 37.0}, 4, Settlement.DECIDE_ANEW),
        ({**POINTS, "temperature": 37.0}, 5, Settlement.EXPIRED),
    ],
)
def test_an_unknown_outcome_is_settled_by_read_back(journal, read_back, day, verdict):
    decision = journal.record_decision("R1", 4, POINTS)
    write = journal.open_intent(decision, POINTS)
    tolerance = {"temperature": 0.05}
    assert journal.settle(write, read_back, current_day=day, tolerance=tolerance) is verdict
    assert journal.pending() == []
    assert journal.intents()[0].outcome == verdict.value
    assert journal.intents()[0].result == {"read_back": read_back}
    stands = journal.decision("R1", 4) is not None
    assert stands == (verdict is Settlement.ARRIVED)
    if verdict is Settlement.DECIDE_ANEW:
        again = journal.record_decision("R1", 4, POINTS)
        assert again != decision
        journal.open_intent(again, POINTS)


def test_an_outcome_that_cannot_be_read_stays_open(journal):
    write = journal.open_intent(journal.record_decision("R1", 1, POINTS), POINTS)
    for read_back in ({"temperature": 36.5}, {**POINTS, "temperature": None}):
        with pytest.raises(JournalError, match="still unknown"):
            journal.settle(write, read_back, current_day=1)
    assert len(journal.pending()) == 1
    with pytest.raises(JournalError, match="No write"):
        journal.settle(99, POINTS, current_day=1)


def test_settled_as_written_knows_rounding_from_difference():
    assert settled_as_written({"a": 1.1}, {"a": 1.10000002384}, {}) is True
    assert settled_as_written({"a": 1.1}, {"a": 1.11}, {}) is False
    assert settled_as_written({"a": 1.1}, {"a": 1.11}, {"a": 0.02}) is True
    assert settled_as_written({"a": 1.1}, {"a": math.nan}, {}) is None
    assert settled_as_written({}, {}, {}) is True


STEPS = ["start", "sample", "decide", "intend", "write", "close"]
STAGES = [
    Stage.NOTHING,
    Stage.SAMPLED,
    Stage.DECIDED,
    Stage.INTENT_OPEN,
    Stage.INTENT_OPEN,
    Stage.DONE,
]

CYCLE = """
import os, sys
from pathlib import Path
from perfusio_jax.twin.records.journal import Journal

def say(step):
    print(step, flush=True)
    sys.stdin.readline()

for line in sys.stdin:
    folder = Path(line.strip())
    pid = os.fork()
    if pid == 0:
        journal = Journal(folder / "journal.sqlite")
        print(os.getpid(), flush=True)
        say("start")
        journal.record_sample("R1", 1, {"VCD": 5.0}); say("sample")
        decision = journal.record_decision("R1", 1, {"temperature": 36.5}); say("decide")
        write = journal.open_intent(decision, {"temperature": 36.5}); say("intend")
        (folder / "device").write_text("36.5"); say("write")
        journal.close_intent(write, is_written=True); say("close")
        os._exit(0)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


@pytest.fixture(scope="module")
def cycles():
    """A process that runs one cycle per folder it is given, each in a child of its own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", CYCLE]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_killed_after_any_step_the_journal_knows_where_to_go_on(cycles, tmp_path, step):
    (tmp_path / "device").write_text("37.0")
    cycles.stdin.write(f"{tmp_path}\n")
    child = int(cycles.stdout.readline())
    for name in STEPS[: step + 1]:
        assert cycles.stdout.readline().strip() == name
        if name != STEPS[step]:
            cycles.stdin.write("go\n")
    os.kill(child, signal.SIGKILL)
    assert cycles.stdout.readline() == "gone\n"

    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.check()
        assert journal.stage("R1", 1) is STAGES[step]
        in_force = {"temperature": float((tmp_path / "device").read_text())}
        for intent in journal.pending():
            verdict = journal.settle(intent.id, in_force, current_day=1)
            arrived = STEPS[step] == "write"
            assert verdict is (Settlement.ARRIVED if arrived else Settlement.DECIDE_ANEW)
        # Whatever happened, taking the cycle up again ends in one of everything.
        journal.record_sample("R1", 1, {"VCD": 5.0})
        decision = journal.record_decision("R1", 1, {"temperature": 36.5})
        if journal.stage("R1", 1) is not Stage.DONE:
            write = journal.open_intent(decision, {"temperature": 36.5})
            journal.close_intent(write, is_written=True)
        assert len(journal.samples("R1")) == 1
        assert journal.stage("R1", 1) is Stage.DONE
        done = [i for i in journal.intents() if i.outcome in ("written", "arrived")]
        assert len(done) == 1


def test_reopening_keeps_everything_and_settings_are_durable(tmp_path):
    path = tmp_path / "deep" / "journal.sqlite"
    stamp = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    with Journal(path, clock=lambda: stamp) as journal:
        journal.record_sample("R1", 1, SAMPLE)
    with Journal(path) as journal:
        assert journal.samples("R1")[0].stored_at == "2026-01-01T00:00:00.000000+00:00"
        assert journal._query("PRAGMA journal_mode", ()) == [("wal",)]
        assert journal._query("PRAGMA synchronous", ()) == [(2,)]


def test_two_threads_cannot_store_one_sample_twice(journal):
    results = []

    def store():
        for day in range(20):
            results.append(journal.record_sample("R1", day, SAMPLE))

    threads = [threading.Thread(target=store) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.value for r in results) == ["duplicate"] * 20 + ["new"] * 20


def test_a_refused_call_leaves_nothing_behind(journal):
    with pytest.raises(JournalError):
        journal.open_intent(1, POINTS)
    assert journal.intents() == []
    journal.record_sample("R1", 1, SAMPLE)


def test_a_locked_journal_is_a_clear_error(tmp_path):
    path = tmp_path / "journal.sqlite"
    with Journal(path, timeout_s=0.0) as journal:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            journal.record_sample("R1", 1, SAMPLE)
        other.close()
        assert journal.record_sample("R1", 1, SAMPLE) is Stored.NEW


def test_files_that_are_no_journal_are_refused(tmp_path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not a database at all, whatever its name may say" * 50)
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(garbage)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(JournalError, match="not a journal"):
        Journal(tmp_path / "other")
    with Journal(tmp_path / "new") as journal, journal._transaction() as db:
        db.execute("UPDATE meta SET value = '99'")
    with pytest.raises(JournalError, match="schema version 99"):
        Journal(tmp_path / "new")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(garbage / "x")


def test_damage_is_found_by_check(tmp_path):
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        for day in range(200):
            journal.record_sample("R1", day, SAMPLE)
        journal.check()
    raw = bytearray(path.read_bytes())
    raw[3 * 4096 : 4 * 4096] = os.urandom(4096)
    path.write_bytes(raw)
    with pytest.raises(JournalError), Journal(path) as journal:
        journal.check()
