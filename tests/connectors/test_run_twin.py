"""`perfusio-jax run twin.toml` as a user starts it: several reactors, real servers, real files."""

import asyncio
import contextlib
import datetime as dt
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfusio_jax import cli
from perfusio_jax._core import STATE_ORDER, ConnectorError
from perfusio_jax.cli import EXIT_CODES, common
from perfusio_jax.connectors.opcua.security import PASSWORD_VARIABLE, USER_VARIABLE
from perfusio_jax.service import replay
from perfusio_jax.twin import digital_twin, verify_audit
from perfusio_jax.twin.records.chain import records
from perfusio_jax.twin.records.run_files import JOURNAL_NAME
from tests.connectors.opcua_rigs import until
from tests.faults.plant import LEVELS
from tests.faults.quick import QuickBrain

ROOT = Path(__file__).parents[2]
QUICK = (sys.executable, "-m", "tests.faults.quick")

Result = tuple[int, str, str]
"""Exit code, what was printed, what was complained of."""


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., Result]:
    """The program's commands, with a brain that decides at once."""
    monkeypatch.setattr(common, "set_up_jax", lambda device=None: None)
    monkeypatch.setattr(digital_twin, "ModelBrain", QuickBrain)
    monkeypatch.setattr(replay, "ModelBrain", QuickBrain)

    def run(*words: object) -> Result:
        code = 0
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        return code, found.out, found.err

    return run


def fill(make, names: tuple[str, ...], days: range) -> None:
    for k, name in enumerate(names):
        store = make(name)
        for day in days:
            level = 1.0 + 0.01 * day + 0.001 * k
            values = {n: v * level for n, v in zip(STATE_ORDER, LEVELS, strict=True)}
            store.write_sample(day, values, sampled_at=dt.datetime.now(dt.UTC))


def outcomes(folder: Path) -> dict[float, str]:
    with contextlib.closing(sqlite3.connect(folder / JOURNAL_NAME)) as book:
        return dict(book.execute("SELECT day, outcome FROM cycles ORDER BY day"))


def events(folder: Path) -> list[dict]:
    assert verify_audit(folder).ok, folder
    return list(records((folder / "audit.jsonl").read_bytes()))


def write_toml(place: Path, **table: object) -> Path:
    def text(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else repr(value)

    lines = [f"{name} = {text(value)}" for name, value in table.items()]
    path = place / "twin.toml"
    path.write_text("\n".join(["[twin]", *lines, "[run]", "allow_write = true", ""]))
    return path


def test_a_rack_in_a_database_runs_to_its_end_though_one_reactor_has_no_samples(
    command, make, url, tmp_path
):
    names = ("R01", "R02", "R03")
    fill(make, ("R01", "R03"), range(1, 5))  # the first sample is that of day 1
    config = write_toml(
        tmp_path,
        connector="sql",
        url=url,
        experiment="Exp1",
        reactors=list(names),
        folder="records",
        poll_seconds=0.05,
        patience_seconds=0.3,
        call_timeout_s=5,
        run_id="rack",
    )
    code, out, err = command("run", config, "--days", 4)
    assert code == 0, out + err
    for name in names:
        assert f"{name}: completed" in out
    folders = {name: tmp_path / "records" / name for name in names}
    for name in ("R01", "R03"):
        assert list(outcomes(folders[name])) == [1.0, 2.0, 3.0, 4.0]
        assert set(outcomes(folders[name]).values()) == {"written"}
        written = [r["new"] for r in events(folders[name]) if r["event_type"] == "SETPOINT_CHANGE"]
        in_force: dict[str, float] = {}
        for setpoints in written:
            in_force.update(setpoints)
        assert asyncio.run(make(name).read_setpoints()) == in_force and len(written) == 4
    # databases hold on a missed day; without a fallback recipe nothing is written then
    assert set(outcomes(folders["R02"]).values()) <= {"hold", "disarm"}
    assert len(outcomes(folders["R02"])) == 4
    assert asyncio.run(make("R02").read_setpoints()) == {}
    code, out, _ = command("verify-audit", config)
    assert code == 0
    for name in names:
        n = len(events(folders[name]))
        assert f"{name}: audit log verified: {n} records" in out
        assert f"{n} of {n} records are in the database" in out
    code, out, _ = command("replay", config)
    assert code == 0 and out.count("4 of 4 decisions came out the same") == 2
    code, out, _ = command("status", config)
    assert code == 0 and out.count("4 days closed") == 3


def test_a_reactor_whose_records_were_tampered_with_is_left_out_and_the_others_go_on(
    command, make, url, tmp_path
):
    fill(make, ("R01", "R02"), range(4))
    config = write_toml(
        tmp_path,
        connector="sql",
        url=url,
        experiment="Exp1",
        reactors=["R01", "R02"],
        poll_seconds=0.05,
        patience_seconds=5,
    )
    assert command("run", config, "--days", 2)[0] == 0
    log = tmp_path / "R01" / "audit.jsonl"
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"day":1', b'"day":2', 1))
    code, out, err = command("run", config, "--days", 4)
    assert code == EXIT_CODES[ConnectorError]
    assert "R01: not started" in out and "cannot be continued" in out
    assert "1 of 2 reactors" in err
    assert len(outcomes(tmp_path / "R02")) == 4 and len(outcomes(tmp_path / "R01")) == 2
    code, out, _ = command("verify-audit", tmp_path)
    assert code == 5 and "R01: audit log NOT verified: record" in out
    assert "R02: audit log verified" in out
    log.write_bytes(content)
    assert command("run", config, "--days", 4)[0] == 0
    assert len(outcomes(tmp_path / "R01")) == 4


@contextlib.contextmanager
def emulator(tmp_path: Path, n: int, *options: str) -> Iterator[str]:
    """A served rack as a user starts it, with security on; its url."""
    words = f"serve-emulator --reactors {n} --port 0 --paused".split()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "perfusio_jax.cli", *words, *options),
            *("--certificates", str(tmp_path / "certificates")),
            *("--node-map", str(tmp_path / "nodes.toml")),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = ""
        for line in process.stdout:
            if line.startswith("endpoint"):
                url = line.split()[1]
            if line.startswith("ready"):
                break
        assert url
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@pytest.mark.slow
def test_a_rack_behind_a_secured_server_runs_to_its_end_though_one_vessel_is_not_there(
    command, tmp_path, monkeypatch
):
    """Two served vessels and one the server has not: `R09` fails alone."""
    secret = secrets.token_hex(8)
    monkeypatch.setenv(USER_VARIABLE, "twin")
    monkeypatch.setenv(PASSWORD_VARIABLE, secret)
    with emulator(tmp_path, 2, "--accelerate", "21600") as url:
        table = {
            "connector": "opcua",
            "url": url,
            "node_map": "nodes.toml",
            "username": "twin",
            "cert_path": "certificates/client.der",
            "private_key_path": "certificates/client.pem",
            "server_cert_path": "certificates/server.der",
            "acceleration": 21600,
            "signing_key": "key.pem",
            "poll_seconds": 0.2,
            "call_timeout_s": 10,
        }
        three = {"reactors": ["R01", "R09", "R02"], "patience_seconds": 6}
        config = write_toml(tmp_path, **table, **three)
        assert command("keygen", tmp_path / "key.pem")[0] == 0
        code, out, err = command("run", config, "--days", 2)
        said = out + err
        assert code == 0 and secret not in said, said
        assert "R01: completed" in said and "R02: completed" in said, said
        for name in ("R01", "R02"):
            found = outcomes(tmp_path / name)
            assert len(found) == 2 and "written" in found.values(), (name, found)
            kinds = [r["event_type"] for r in events(tmp_path / name)]
            assert kinds[0] == "AUDIT_SIGNED_BY" and "SETPOINT_CHANGE" in kinds
        assert "written" not in outcomes(tmp_path / "R09").values()
        code, out, _ = command("verify-audit", config, "--key", tmp_path / "key.pem.pub")
        assert code == 0 and out.count("signed by key") == 3
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or secret.encode() not in path.read_bytes(), path
        # a wrong password: refused in words, and nothing is written
        monkeypatch.setenv(PASSWORD_VARIABLE, "not-the-password")
        one = {"reactors": ["R02"], "patience_seconds": 1, "folder": "refused"}
        config = write_toml(tmp_path, **table, **one)
        code, out, err = command("run", config, "--days", 1)
        assert "not-the-password" not in out + err
        assert code == 4 and "PERFUSIO_OPCUA_PASSWORD, is wrong" in out + err
        reasons = " ".join(str(e.get("reason")) for e in events(tmp_path / "refused" / "R02"))
        assert "does not let us in" in reasons
        assert "written" not in outcomes(tmp_path / "refused" / "R02").values()


@pytest.fixture
def waiting(make, url, tmp_path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A run of two reactors that waits for samples nobody gives."""
    fill(make, ("R01", "R02"), range(1))
    config = write_toml(
        tmp_path,
        connector="sql",
        url=url,
        experiment="Exp1",
        reactors=["R01", "R02"],
        poll_seconds=0.05,
        patience_seconds=600,
    )
    process = subprocess.Popen(
        [*QUICK, "run", str(config)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process, config
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_signal_ends_every_reactor_of_a_run(waiting, tmp_path):
    process, _ = waiting

    async def has_done_day_0() -> bool:
        try:
            return all(len(outcomes(tmp_path / name)) == 1 for name in ("R01", "R02"))
        except sqlite3.OperationalError:  # the journal is not there yet
            return False

    await until(has_done_day_0, within_s=120.0)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "R01: stopped" in said and "R02: stopped" in said
    for name in ("R01", "R02"):
        assert events(tmp_path / name)[-1]["payload"]["ending"] == "stopped"
