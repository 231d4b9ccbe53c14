"""Locks: one live holder, clear messages, nothing left behind by the dead."""

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from perfusio_jax._core import ConnectorError, RunLockedError
from perfusio_jax.twin.records.lock import LOCK_NAME, FileLock, RunLock

HOLD = """
import sys
from perfusio_jax.twin.records.lock import RunLock
lock = RunLock(sys.argv[1]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def note(folder) -> dict:
    return json.loads((folder / LOCK_NAME).read_bytes())


def test_a_held_folder_is_refused_with_the_holder_named(tmp_path):
    clock = lambda: dt.datetime(2026, 5, 6, 7, tzinfo=dt.UTC)  # noqa: E731
    with RunLock(tmp_path / "run", clock=clock) as lock:
        assert lock.is_held
        with pytest.raises(RunLockedError) as caught:
            RunLock(tmp_path / "run").acquire()
    message = str(caught.value)
    assert f"process {os.getpid()}" in message and socket.gethostname() in message
    assert "2026-05-06T07:00:00" in message and "another folder" in message
    assert isinstance(caught.value, ConnectorError)
    assert not lock.is_held


def test_release_frees_the_folder_and_says_so(tmp_path):
    lock = RunLock(tmp_path).acquire()
    lock.release()
    lock.release()
    assert "released_at" in note(tmp_path)
    with RunLock(tmp_path) as again:
        assert again.recovered_from is None
        assert "released_at" not in note(tmp_path)


def test_another_process_holds_until_it_is_killed_and_then_its_lock_is_stale(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:
        try:
            assert child.stdout.readline() == b"held\n"
            with pytest.raises(RunLockedError, match=f"process {child.pid}"):
                RunLock(tmp_path).acquire()
        finally:
            os.kill(child.pid, signal.SIGKILL)
    with RunLock(tmp_path) as lock:
        assert lock.recovered_from["pid"] == child.pid


def test_a_lock_from_another_host_needs_a_person(tmp_path):
    left = {"pid": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / LOCK_NAME).write_text(json.dumps(left))
    with pytest.raises(RunLockedError, match="elsewhere"):
        RunLock(tmp_path).acquire()
    with RunLock(tmp_path, take_over=True) as lock:
        assert lock.recovered_from == left


@pytest.mark.parametrize("content", [b"", b"garbage", b"[1]", b"\xff"])
def test_an_unreadable_note_does_not_keep_the_folder_locked(tmp_path, content):
    (tmp_path / LOCK_NAME).write_bytes(content)
    with RunLock(tmp_path) as lock:
        assert lock.recovered_from is None
        assert note(tmp_path)["pid"] == os.getpid()


def test_a_folder_that_cannot_be_made_or_opened_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunLockedError, match="cannot be made"):
        RunLock(tmp_path / "file" / "run").acquire()
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(RunLockedError, match="cannot be opened"):
        RunLock(tmp_path).acquire()


def test_misuse_of_the_plain_lock_is_refused(tmp_path):
    lock = FileLock(tmp_path / "x.lock")
    assert lock.read() == b""
    with pytest.raises(RunLockedError, match="not held"):
        lock.write(b"x")
    lock.acquire()
    with pytest.raises(RunLockedError, match="already held"):
        lock.acquire()
    lock.release()
