"""A rack of 24 vessels with 50 tags each at 1 Hz: server, clients and SQLite under load.

The server is a process of its own. Every second each tag takes the number of that second, so
that a value which is lost, doubled or out of order shows. One connector per vessel subscribes
to its tags, and every value is committed to SQLite (WAL, synchronous=FULL). Latency runs from
the source time to the commit.

    python -m benchmarks.opcua_load [--seconds 600] [--open] [--vessels 24] [--tags 50]
"""

import argparse
import asyncio
import datetime as dt
import os
import resource
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax.connectors import OPCUAConnector, RackServer, make_certificates
from perfusio_jax.connectors.opcua.names import LADS_URI, RACK_URI, BrowsePath, unit_steps
from perfusio_jax.connectors.opcua.security import ServerSecurity
from perfusio_jax.mechanistic import DEFAULT_CONTROLS


class Still:
    """A rack in which nothing happens: the protocol is measured, not the plant."""

    def __init__(self, n: int) -> None:
        self.ids = tuple(f"R{i + 1:02d}" for i in range(n))
        self.volume_L, self.time_h, self.day = 0.25, 0.0, -1

    def advance(self, to_h: float) -> list:
        """Time passes, no sample comes."""
        self.time_h = to_h
        return []

    def tags(self) -> list:
        """No tags but the spare ones."""
        return [{} for _ in self.ids]

    def controls(self, vessel: int) -> dict:
        """Set-points that never change."""
        return dict(DEFAULT_CONTROLS)


async def serve(vessels: int, tags: int, folder: Path | None) -> None:
    """Serve until standard input ends, then say what it cost."""
    security = None
    if folder is not None:
        pairs = make_certificates(folder)
        security = ServerSecurity(pairs["server"], (pairs["client"].certificate,))
    rack = Still(vessels)
    server = RackServer(
        rack,  # pyright: ignore[reportArgumentType]
        url="opc.tcp://127.0.0.1:0/load",
        acceleration=1.0,
        security=security,
        tick_s=1.0,
        spare=tags,
    )
    async with server:
        print("ready", server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print("cpu", used.ru_utime + used.ru_stime, flush=True)


def node_map(reactor_id: str, tags: int) -> dict[str, str]:
    """Paths of the spare sensors of one vessel."""
    steps = (*unit_steps(reactor_id), (LADS_URI, "FunctionSet"))
    names = [f"AUX{i + 1:03d}" for i in range(tags)]
    return {
        f"x_{name}": str(BrowsePath((*steps, (RACK_URI, name), (LADS_URI, "SensorValue"))))
        for name in names
    }


class Sink:
    """Values on their way into SQLite, committed ten times a second."""

    def __init__(self, path: Path) -> None:
        self._rows: list[tuple[int, str, float, float]] = []
        self._base = sqlite3.connect(path, check_same_thread=False)
        self._base.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE reading (vessel INTEGER, tag TEXT, value REAL, source REAL);"
        )
        self.latencies: list[float] = []

    def put(self, vessel: int, tag: str, value: float, source: dt.datetime) -> None:
        """Take a value."""
        self._rows.append((vessel, tag, value, source.timestamp()))

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            await asyncio.sleep(0.1)
            await self.flush()

    async def flush(self) -> None:
        """Commit what there is."""
        rows, self._rows = self._rows, []
        if rows:
            await asyncio.to_thread(self._commit, rows)
            now = time.time()
            self.latencies += [now - row[3] for row in rows]

    def _commit(self, rows: list) -> None:
        with self._base:
            self._base.executemany("INSERT INTO reading VALUES (?, ?, ?, ?)", rows)

    def faults(self) -> tuple[int, int, int]:
        """Values held, seconds missing between the first and last of a tag, and doubles."""
        held = lost = doubled = 0
        query = "SELECT COUNT(*), COUNT(DISTINCT value), MAX(value) - MIN(value) + 1 FROM reading"
        for count, distinct, span in self._base.execute(f"{query} GROUP BY vessel, tag"):
            held += count
            lost += int(span) - distinct
            doubled += count - distinct
        return held, lost, doubled

    def close(self) -> None:
        """Close the database."""
        self._base.close()


async def drink(connector: OPCUAConnector, vessel: int, sink: Sink) -> None:
    """Pass a vessel's values on for ever."""
    async for name, reading in connector.stream(period_s=0.25):
        if reading.value is not None and reading.source_time is not None:
            sink.put(vessel, name, reading.value, reading.source_time)


async def measure(seconds: float, vessels: int, tags: int, *, is_secure: bool) -> dict[str, float]:
    """Run the load and count.

    Args:
        seconds: How long [s].
        vessels: Number of vessels, and of connections.
        tags: Tags per vessel.
        is_secure: Whether to sign and encrypt.
    """
    folder = Path(tempfile.mkdtemp(prefix="opcua_load_"))
    certificates = folder / "certificates"
    pairs = make_certificates(certificates)
    command = [sys.executable, "-m", "benchmarks.opcua_load", "--serve"]
    command += ["--vessels", str(vessels), "--tags", str(tags)]
    if is_secure:
        command += ["--certificates", str(certificates)]
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    if server.stdin is None or server.stdout is None:
        raise RuntimeError("the server has no pipes")
    url = (await server.stdout.readline()).decode().split()[1]
    keys: dict[str, Any] = {}
    if is_secure:
        keys = {
            "cert_path": pairs["client"].certificate,
            "private_key_path": pairs["client"].key,
            "server_cert_path": pairs["server"].certificate,
        }
    sink = Sink(folder / "load.sqlite")
    connectors = [
        OPCUAConnector(
            url, node_map(f"R{i + 1:02d}", tags), timeout_s=30.0, patience_s=60.0, **keys
        )
        for i in range(vessels)
    ]
    for connector in connectors:
        await connector.missing_nodes()  # connects
    writer = asyncio.create_task(sink.run())
    drinkers = [asyncio.create_task(drink(c, i, sink)) for i, c in enumerate(connectors)]
    await asyncio.sleep(3.0)  # subscriptions are made
    sink.latencies.clear()
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    for task in (*drinkers, writer):
        task.cancel()
    ends = await asyncio.gather(*drinkers, writer, return_exceptions=True)
    trouble = [e for e in ends if not isinstance(e, asyncio.CancelledError)]
    if trouble:
        raise RuntimeError(f"a stream ended: {trouble[0]!r}")
    await sink.flush()
    reconnects = sum(c._link.n_connections for c in connectors) - vessels
    await asyncio.gather(*(c.close() for c in connectors))
    server.stdin.close()
    said = (await server.stdout.read()).decode().split()
    await server.wait()
    latency = np.array(sink.latencies)
    held, lost, doubled = sink.faults()
    sink.close()
    client = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "vessels": vessels,
        "tags": tags,
        "seconds": round(wall, 1),
        "secure": int(is_secure),
        "values": held,
        "per_second": round(len(latency) / wall, 1),
        "lost": lost,
        "doubled": doubled,
        "reconnects": reconnects,
        "p50_ms": round(1e3 * float(np.percentile(latency, 50)), 1),
        "p99_ms": round(1e3 * float(np.percentile(latency, 99)), 1),
        "max_ms": round(1e3 * float(latency.max()), 1),
        "client_cpu_percent": round(100.0 * client / wall, 1),
        "server_cpu_s": round(float(said[said.index("cpu") + 1]), 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--vessels", type=int, default=24)
    parser.add_argument("--tags", type=int, default=50)
    parser.add_argument("--open", action="store_true", help="without signing and encryption")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--certificates", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.vessels, given.tags, given.certificates))
        return
    found = asyncio.run(measure(given.seconds, given.vessels, given.tags, is_secure=not given.open))
    for name, value in found.items():
        print(f"{name:>20}  {value}")
    print("opcua_load: " + " ".join(f"{name}={value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
