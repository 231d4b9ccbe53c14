"""The command that serves a rack, as a user starts and stops it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.cli import EXIT_CODES, app
from perfusio_jax.connectors import RackServer
from perfusio_jax.connectors.opcua.security import PASSWORD_VARIABLE, USER_VARIABLE
from perfusio_jax.connectors.opcua.serve import Serving, clones_of, security_of, serve_emulator
from tests.connectors.opcua_rigs import FREE, CannedRack, connect, until


async def test_serve_emulator_from_start_to_clean_end(tmp_path: Path):
    certificates, state = tmp_path / "certificates", tmp_path / "rack.json"
    command = "serve-emulator --reactors 2 --accelerate 86400 --port 0 --seed 7"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perfusio_jax.cli", *command.split()),
        *("--certificates", str(certificates), "--state", str(state)),
        env={**os.environ, USER_VARIABLE: "twin", PASSWORD_VARIABLE: "a secret word"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        lines = []
        async for line in process.stdout:
            lines.append(line.decode().rstrip())
            if lines[-1].startswith("ready"):
                break
        said = "\n".join(lines)
        assert "SignAndEncrypt only" in said and "twin" in said and "a secret word" not in said
        assert "2 CloneX" in said and "takes 1 s" in said
        url = next(line.split()[1] for line in lines if line.startswith("endpoint"))
        connector = connect(
            url,
            "R02",
            acceleration=86400.0,
            sample_slack_s=None,
            username="twin",
            password="a secret word",
            cert_path=certificates / "client.der",
            private_key_path=certificates / "client.pem",
            server_cert_path=certificates / "server.der",
        )
        async with connector:

            async def is_day_one() -> bool:
                return 1 in await connector.days_available()

            await until(is_day_one)
            record = await connector.read_record(1)
            assert record.values["VCD"] is None or record.values["VCD"] > 1.0
            assert record.stream_totals["V_perfusion_L"] > 0.0
            capacitance = (await connector.read_tags())["capacitance"].value
            assert capacitance is not None and 0.0 < capacitance < 100.0
            await connector.write_setpoints({"temperature": 36.5})
        process.send_signal(signal.SIGTERM)
        rest = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
        assert await process.wait() == 0
        assert "SIGTERM: stopping on day" in rest and f"kept in {state}" in rest
        assert "Traceback" not in rest and state.exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_while_time_waits_for_the_first_set_point_no_sample_ages():
    """A client that needs a while to start must not meet a sample of yesterday."""
    server = RackServer(
        CannedRack(2), url=FREE, acceleration=8640000.0, is_paused=True, tick_s=0.05
    )
    async with (
        server,
        connect(server.url, "R02", acceleration=8640000.0, sample_slack_s=None) as connector,
    ):
        first = await connector.read_record(0)

        async def is_later() -> bool:
            again = await connector.read_record(0)
            return again.source_times["VCD"] > first.source_times["VCD"]

        await until(is_later)
        await asyncio.sleep(1.0)  # a hundred days, if time passed
        record = await connector.read_record(0)
        assert record.values == first.values and record.age_h is not None
        assert 0.0 <= record.age_h < 1200.0
        assert await connector.days_available() == [0]


def test_what_makes_no_sense_is_refused_before_anything_starts(tmp_path, monkeypatch):
    for name in (USER_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    said: list[str] = []
    with pytest.raises(ConfigError, match="port"):
        serve_emulator(Serving(port=70000), say=said.append)
    with pytest.raises(ConfigError, match="belong together"):
        security_of(tmp_path, "127.0.0.1", {USER_VARIABLE: "twin"})
    assert dict(security_of(tmp_path, "127.0.0.1", {}).users) == {}
    users = security_of(
        tmp_path, "127.0.0.1", {USER_VARIABLE: "twin", PASSWORD_VARIABLE: "word"}
    ).users
    assert users["twin"].get_secret_value() == "word" and "word" not in repr(users)
    assert clones_of(7, ()) == ["CloneX"] * 3 + ["CloneY"] * 2 + ["CloneX"] * 2
    assert clones_of(3, ("CloneY",)) == ["CloneY"] * 3
    assert said == []


def test_the_command_makes_certificates_once(tmp_path):
    from typer.testing import CliRunner

    first = CliRunner().invoke(app, ["opcua-certificates", str(tmp_path / "new")])
    again = CliRunner().invoke(app, ["opcua-certificates", str(tmp_path / "new")])
    assert first.exit_code == 0 and first.output == again.output
    assert "server.der" in first.output and first.output.count("SHA-256") == 2
    (tmp_path / "file").write_text("")
    failed = CliRunner().invoke(app, ["opcua-certificates", str(tmp_path / "file")])
    assert isinstance(failed.exception, ConfigError) and EXIT_CODES[ConfigError] == 2
