"""The program itself: killed by the kernel at any moment, on a full disk, beside a second one."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfusio_jax.twin import verify_audit
from perfusio_jax.twin.records.run_files import JOURNAL_NAME

from .world import LIMITS, read_log

ROOT = Path(__file__).parents[2]
DAYS = 200


def start(folder: Path, n_days: int = DAYS, *, limit_kb: int | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.faults.process", str(folder), str(n_days)]
    if limit_kb is not None:
        # a shell sets the limit (in blocks of 512 bytes): with preexec_fn Python would fork by
        # itself, of which JAX warns once it has threads
        command = ["sh", "-c", f'ulimit -f {2 * limit_kb}; exec "$@"', "sh", *command]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen, word: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.strip() == word, (line, process.stderr.read() if process.stderr else "")


def end(process: subprocess.Popen) -> tuple[int, str]:
    _, errors = process.communicate(timeout=150)
    return process.returncode, errors


def rows(folder: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(folder / "run" / JOURNAL_NAME)) as db:
        return db.execute(query).fetchall()


def check(folder: Path) -> int:
    """Every promise about what a killed program leaves; how many days are closed."""
    report = verify_audit(folder / "run")
    assert report.ok, report
    assert rows(folder, "PRAGMA integrity_check") == [("ok",)]
    assert rows(folder, "SELECT count(*) FROM samples GROUP BY day HAVING count(*) > 1") == []
    device = folder / "device.jsonl"
    writes = [json.loads(x) for x in device.read_text().splitlines()] if device.exists() else []
    log = read_log(folder / "run")
    intended = [r["new"] for r in log if r["event_type"] == "WRITE_INTENDED"]
    for wanted in writes:  # each write has its record, in that order
        while intended and intended[0] != wanted:
            intended.pop(0)
        assert intended, "written without an audit record"
        intended.pop(0)
        for name, value in wanted.items():
            assert LIMITS.lower[name] <= value <= LIMITS.upper[name]
    sent = rows(folder, "SELECT count(*) FROM intents WHERE outcome IN ('written', 'arrived')")
    unknown = rows(folder, "SELECT count(*) FROM intents WHERE outcome IS NULL")[0][0]
    assert unknown <= 1
    assert sent[0][0] <= len(writes) <= sent[0][0] + unknown
    return rows(folder, "SELECT count(*) FROM cycles")[0][0]


def test_killed_again_and_again_it_loses_and_doubles_nothing(tmp_path):
    seed = int(os.environ.get("PERFUSIO_FAULT_SEED", "11"))
    print(f"seed {seed}")
    draw = random.Random(seed)
    closed = 0
    for _ in range(5):
        process = start(tmp_path)
        wait_for(process, "ready")
        # Kill amid a cycle: wait until it has got on, then a little longer.
        goal = closed + draw.randint(1, 8)
        journal = tmp_path / "run" / JOURNAL_NAME
        with contextlib.closing(sqlite3.connect(journal, timeout=30.0)) as db:
            while db.execute("SELECT count(*) FROM cycles").fetchone()[0] < goal:
                assert process.poll() is None
                time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.03))
        process.send_signal(signal.SIGKILL)
        end(process)
        now = check(tmp_path)
        assert now >= goal
        closed = now
    last = start(tmp_path, closed + 3)
    code, errors = end(last)
    assert code == 0, errors
    assert check(tmp_path) == closed + 3
    assert rows(tmp_path, "SELECT count(*) FROM intents WHERE outcome IS NULL") == [(0,)]


def test_a_second_program_on_the_same_run_is_refused(tmp_path):
    first = start(tmp_path, 10_000)
    try:
        wait_for(first, "ready")
        code, errors = end(start(tmp_path))
        assert code != 0 and "already in use" in errors and f"process {first.pid}" in errors
    finally:
        first.kill()
        end(first)
    check(tmp_path)


@pytest.mark.parametrize("limit_kb", [24, 120, 400])
def test_a_disk_that_fills_up_ends_in_writing_nothing_not_in_damage(tmp_path, limit_kb):
    """No file may grow beyond a limit: SQLite, the audit trail and the device meet it in turn."""
    process = start(tmp_path, DAYS, limit_kb=limit_kb)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=6)
    process.kill()
    end(process)
    largest = max(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert largest <= limit_kb * 1024  # the limit held
    if (tmp_path / "run" / "audit.jsonl").exists() and (tmp_path / "run" / JOURNAL_NAME).exists():
        stuck = check_partial(tmp_path)
        # With room again it goes on from where it was.
        code, errors = end(start(tmp_path, stuck + 2))
        assert code == 0, errors
        assert check(tmp_path) >= stuck + 2


def check_partial(folder: Path) -> int:
    """What must hold on a full disk; 0 days if even the tables had no room."""
    assert verify_audit(folder / "run").ok
    try:
        return check(folder)
    except sqlite3.OperationalError:
        return 0
