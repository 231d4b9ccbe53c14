"""A closed loop over OPC UA, signed and encrypted: the twin and a served rack.

Makes certificates, serves an emulated vessel in a process of its own, connects with user,
password and certificate, and lets the twin run it for a few days of 12 seconds each. For a real
rack, leave out the server, give its url and the node map of the site (`docs/opcua.md`), and
begin with `allow_write=False`.
"""

# %%
import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, RunConfig
from perfusio_jax.connectors import OPCUAConnector, make_certificates, rack_node_map
from perfusio_jax.report.figures import draw_figures
from perfusio_jax.twin.digital_twin import DigitalTwin

# %% [markdown]
# ## A rack that is served
#
# The server is a program of its own, as a rack is, with its own certificate. It plays ten days in
# two minutes.


# %%
ACCELERATION = 7200.0
"""Culture time over real time: a day takes twelve seconds."""


@contextlib.asynccontextmanager
async def emulated_rack(certificates: Path, password: str) -> AsyncIterator[str]:
    """The url of one vessel served by another process; its time waits for a set-point."""
    environment = {
        **os.environ,
        "PERFUSIO_OPCUA_USER": "twin",
        "PERFUSIO_OPCUA_PASSWORD": password,
    }
    command = "serve-emulator --reactors 1 --port 0 --paused --accelerate"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perfusio_jax.cli", *command.split(), str(ACCELERATION)),
        *("--certificates", str(certificates)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    url = ""
    try:
        if process.stdout is None:
            raise RuntimeError("the server cannot be listened to")
        async for line in process.stdout:
            print("server:", line.decode().rstrip())
            if line.startswith(b"endpoint"):
                url = line.split()[1].decode()
            if line.startswith(b"ready"):
                break
        if not url:
            raise RuntimeError(f"the server ended with code {await process.wait()}")
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


# %% [markdown]
# ## The loop over the wire
#
# The connector checks the server's certificate, resolves the node map once, puts a time limit on
# every call and reads back what it writes. `allow_write` is a second lock: it stands in the
# connector and in the run's configuration.


# %%
async def run(folder: Path, n_days: int = 5) -> dict[str, float]:
    """Close the loop for some days.

    Args:
        folder: Where certificates and records go.
        n_days: Days of control.

    Returns:
        Set-points in force at the end, as the rack says.
    """
    pairs = make_certificates(folder / "certificates")
    password = secrets.token_urlsafe(24)
    async with emulated_rack(folder / "certificates", password) as url:
        connector = OPCUAConnector(
            url=url,
            node_map=rack_node_map("R01"),
            username="twin",
            password=password,
            cert_path=pairs["client"].certificate,
            private_key_path=pairs["client"].key,
            server_cert_path=pairs["server"].certificate,
            allow_write=True,
            reactor_id="R01",
            acceleration=ACCELERATION,
            record_to=folder / "opcua.jsonl",
        )
        async with connector:
            print("before:", await connector.read_setpoints())
            twin = DigitalTwin(
                connector=connector,
                design_space=DEFAULT_AMBR250_DESIGN_SPACE,
                run_config=RunConfig(
                    duration_days=n_days,
                    acquisition="LogEI",
                    n_mc_samples=64,
                    allow_write=True,
                    seed=0,
                ),
                log_dir=folder,
                reactor_id="R01",
                poll_seconds=0.5,
                patience_seconds=60.0,
                say=print,
            )
            with twin:
                await twin.run()
            after = await connector.read_setpoints()
            print("after: ", after)
    draw_figures([folder], only=("run", "timeline"), out=folder, console=Console(width=200))
    return after


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/example07")))
