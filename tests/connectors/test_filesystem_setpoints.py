"""The set-point log: appended whole or not at all, read back, harmless to spreadsheets."""

import asyncio
import csv
import datetime as dt
import math
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from perfusio_jax._core import ConnectorError, DataError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.files.filesystem import FilesystemStore
from perfusio_jax.twin import FileLock

NOW = dt.datetime(2026, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
POINTS = {"perfusion_rate": 1.25, "temperature": 36.5}


@pytest.fixture
def file(tmp_path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "samples.csv", reactor_id="R1", clock=lambda: NOW)


def put(file: FilesystemStore, setpoints: dict, **when) -> None:
    asyncio.run(file.write_setpoints(setpoints, **when))


def last(file: FilesystemStore) -> dict[str, float]:
    return asyncio.run(file.read_setpoints())


def rows(file: FilesystemStore) -> list[dict[str, str]]:
    with file.setpoint_log.open(newline="") as log:
        return list(csv.DictReader(log))


def test_rows_are_appended_with_one_header_and_read_back(file):
    assert file.setpoint_log == file.source_path.with_name("setpoints.csv")
    assert last(file) == {}
    put(file, POINTS, day=3)
    put(file, {"temperature": 37.0, "agitation": 900}, day=4, time_h=96.5)
    first, second = rows(file)
    assert first["written_at"] == "2026-05-06T07:08:09.000+00:00"
    assert (first["day"], first["time_h"], first["reactor_id"]) == ("3", "", "R1")
    assert (first["perfusion_rate"], first["agitation"]) == ("1.25", "")
    assert (second["day"], second["time_h"]) == ("4", "96.5")
    assert list(first) == [
        *("written_at", "day", "time_h", "reactor_id"),
        *("perfusion_rate", "bleed_rate", "glucose_setpoint"),
        *("temperature", "agitation", "pyruvate_feed"),
    ]
    assert last(file) == {"perfusion_rate": 1.25, "temperature": 37.0, "agitation": 900.0}


def test_floats_survive_to_the_last_bit(file):
    value = 0.1 + 0.2
    put(file, {"bleed_rate": value})
    assert last(file)["bleed_rate"] == value
    put(file, {"bleed_rate": np.float64(0.25)})
    assert rows(file)[1]["bleed_rate"] == "0.25"


@pytest.mark.parametrize(
    ("setpoints", "words"),
    [
        ({}, "no set-point"),
        ({"pH": 7.0}, "'pH' is not a control; allowed are perfusion_rate"),
        ({"temperature": math.nan}, "only finite numbers"),
        ({"temperature": math.inf}, "only finite numbers"),
        ({"temperature": "36.5"}, "only finite numbers"),
        ({"temperature": None}, "only finite numbers"),
        ({"temperature": True}, "only finite numbers"),
        ({"temperature": 36.5, "agitation": -math.inf}, "agitation is -inf"),
    ],
)
def test_what_must_not_be_written_is_refused_and_leaves_no_trace(file, setpoints, words):
    with pytest.raises(DataError, match=words):
        put(file, setpoints)
    assert not file.setpoint_log.exists()


def test_text_that_a_spreadsheet_would_run_is_neutralised(tmp_path):
    file = FilesystemStore(tmp_path / "s.csv", reactor_id='=HYPERLINK("http://x")')
    put(file, POINTS)
    assert rows(file)[0]["reactor_id"].startswith("'=")
    assert last(file) == POINTS


def test_only_rows_of_this_reactor_count(file, tmp_path):
    put(file, POINTS)
    other = FilesystemStore(tmp_path / "samples.csv", reactor_id="R2")
    assert last(other) == {}
    put(other, {"temperature": 35.0})
    assert last(file)["temperature"] == 36.5
    assert last(other) == {"temperature": 35.0}


def test_an_operator_may_append_by_hand_with_columns_of_his_own(file):
    file.setpoint_log.write_text(
        "\ufeffcomment,written_at,day,time_h,reactor_id,perfusion_rate,bleed_rate,"
        "glucose_setpoint,temperature,agitation,pyruvate_feed\n\nby hand,,5,,,1.0,,,36.0,,\n"
    )
    assert last(file) == {"perfusion_rate": 1.0, "temperature": 36.0}
    put(file, {"temperature": 36.5})
    assert rows(file)[-1]["temperature"] == "36.5"
    assert last(file)["temperature"] == 36.5


def test_a_half_written_row_is_not_read_and_moved_aside_by_the_next_write(file):
    put(file, POINTS)
    with file.setpoint_log.open("a") as log:
        log.write("2026-05-06,4,,R1,9.9")
    assert last(file) == POINTS
    put(file, {"temperature": 37.0})
    assert [row["temperature"] for row in rows(file)] == ["36.5", "37.0"]
    assert b"9.9" in file.setpoint_log.with_name("setpoints.csv.torn").read_bytes()
    assert last(file)["perfusion_rate"] == 1.25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("something,else\n1,2\n", "its header lacks written_at"),
        (
            "written_at,day,time_h,reactor_id,perfusion_rate,bleed_rate,glucose_setpoint,"
            "temperature,agitation,pyruvate_feed\n,,,R1,fast,,,,,\n",
            "perfusion_rate is 'fast' in line 2",
        ),
        (
            "written_at,day,time_h,reactor_id,perfusion_rate,bleed_rate,glucose_setpoint,"
            "temperature,agitation,pyruvate_feed\n,,,R1,nan\n",
            "line 2 has 5 fields",
        ),
    ],
)
def test_a_log_that_cannot_be_believed_is_refused(file, text, words):
    file.setpoint_log.write_text(text)
    with pytest.raises(DataError, match=words):
        last(file)


def test_a_foreign_file_is_not_appended_to(file):
    file.setpoint_log.write_text("my,notes\n")
    with pytest.raises(DataError, match="Move the file away"):
        put(file, POINTS)
    assert file.setpoint_log.read_text() == "my,notes\n"


def test_a_log_that_cannot_be_written_is_a_connector_error(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    file = FilesystemStore(tmp_path / "s.csv", setpoint_log=tmp_path / "folder.csv")
    with pytest.raises(ConnectorError, match="cannot be"):
        put(file, POINTS)
    (tmp_path / "plain").write_text("")
    file = FilesystemStore(tmp_path / "s.csv", setpoint_log=tmp_path / "plain" / "x.csv")
    with pytest.raises(ConnectorError, match="cannot be"):
        put(file, POINTS)


def test_two_writers_at_once_do_not_mix(file):
    file = FilesystemStore(file.source_path, timeout_s=0.1)
    lock = FileLock(file.setpoint_log.with_name(".setpoints.csv.lock"))
    lock.acquire()
    with pytest.raises(ConnectorError, match="another process"):
        put(file, POINTS)
    lock.release()
    put(file, POINTS)
    assert len(rows(file)) == 1


def test_24_reactors_that_share_a_log_wait_for_each_other(tmp_path):
    stores = [FilesystemStore(tmp_path / "s.csv", reactor_id=f"R{n:02d}") for n in range(24)]

    async def main():
        await asyncio.gather(
            *(s.write_setpoints({"temperature": 30.0 + n / 8}) for n, s in enumerate(stores))
        )
        for n, each in enumerate(stores):
            assert await each.read_setpoints() == {"temperature": 30.0 + n / 8}

    asyncio.run(main())
    assert len(rows(stores[0])) == 24


def test_the_read_back_says_when_each_was_written(file):
    put(file, POINTS)
    with file.setpoint_log.open("a") as log:
        log.write("yesterday,,,R1,,,,36.0,,\n")  # by hand, with a time nobody can read
    found = asyncio.run(file.read_back())
    assert found["perfusion_rate"] == Reading(1.25, "good", NOW, NOW)
    assert found["temperature"] == Reading(36.0, "good", None, NOW)


FULL = """
import asyncio, resource, signal, sys
from perfusio_jax._core import ConnectorError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.files.filesystem import FilesystemStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = FilesystemStore(sys.argv[1], reactor_id="R1")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
n = 0
try:
    while n < 1000:
        asyncio.run(store.write_setpoints({"temperature": 36.0 + n / 1000}))
        n += 1
except ConnectorError as error:
    print(n, error)
print(asyncio.run(store.read_setpoints())["temperature"])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
asyncio.run(store.write_setpoints({"temperature": 37.5}))
"""


def test_a_full_disk_leaves_the_log_as_it_was(file):
    done = subprocess.run(
        [sys.executable, "-c", FULL, file.source_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    n = int(first.split()[0])
    assert n > 3 and "cannot be written" in first
    assert float(second) == 36.0 + (n - 1) / 1000
    temperatures = [float(row["temperature"]) for row in rows(file)]
    assert temperatures == [*(36.0 + k / 1000 for k in range(n)), 37.5]


READ_ONLY = """
import asyncio, os, sys
from perfusio_jax._core import ConnectorError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.files.filesystem import FilesystemStore
source, nobody = sys.argv[1], int(sys.argv[2])
store = FilesystemStore(source, reactor_id="R1")
asyncio.run(store.read_sample(1))  # loads what root alone may read
if os.geteuid() == 0:  # root may write everywhere
    os.setgroups([])
    os.setegid(nobody)
    os.seteuid(nobody)
print(asyncio.run(store.is_alive()), asyncio.run(store.read_sample(1))["VCD"])
try:
    asyncio.run(store.write_setpoints({"temperature": 36.0}))
except ConnectorError as error:
    print(error)
"""


def test_a_read_only_folder_can_be_read_and_says_that_it_cannot_be_written():
    folder = Path(tempfile.mkdtemp(prefix="perfusio-read-only-"))
    try:
        (folder / "s.csv").write_text("day,VCD\n1,2\n")
        (folder / "s.csv").chmod(0o444)
        folder.chmod(0o555)
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, folder / "s.csv", nobody],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert first == "True 2.0"
        assert "setpoints.csv" in second and "cannot be" in second
        assert [path.name for path in folder.iterdir()] == ["s.csv"]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
