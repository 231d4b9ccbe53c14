"""A server in a process of its own, to be killed and frozen. Prints `ready URL` when it listens.

python opcua_process.py PORT STATE_FILE [--reset] [--before URI] ...
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from perfusio_jax.connectors import RackServer
from perfusio_jax.connectors.opcua.serve import clones_of, security_of
from tests.connectors.opcua_rigs import CannedRack, SmoothRack


def rack_of(given: argparse.Namespace) -> Any:
    if given.virtual:
        import perfusio_jax

        perfusio_jax.enable_x64()
        from tests.faults.plant_rack import NotingRack

        return NotingRack(clones_of(given.virtual, ()), seed=42)
    return SmoothRack(given.smooth) if given.smooth else CannedRack(2)


async def serve() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("state")
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--before", action="append", default=[])
    parser.add_argument("--smooth", type=int, default=0, help="vessels that change smoothly")
    parser.add_argument("--virtual", type=int, default=0, help="vessels of a simulated plant")
    parser.add_argument("--certificates", help="their folder; user and password by environment")
    parser.add_argument("--paused", action="store_true")
    parser.add_argument("--accelerate", type=float, default=86400.0, help="a day a second")
    given = parser.parse_args()
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    security = None
    if given.certificates:
        security = security_of(Path(given.certificates), "127.0.0.1")
    async with RackServer(
        rack_of(given),
        security=security,
        is_paused=given.paused,
        url=f"opc.tcp://127.0.0.1:{given.port}/perfusio",
        acceleration=given.accelerate,
        state_path=given.state,
        reset_setpoints=given.reset,
        namespaces_before=given.before,
        tick_s=0.05,
    ) as server:
        print("ready", server.url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve())
