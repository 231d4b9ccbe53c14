"""Several reactors in closed loop over OPC UA, with a fault on every culture day.

A server in a process of its own, a proxy in front of it, one connector and one loop per vessel.
The loops, the gate, the journals and the audit trails are the real ones; only the model is a
stand-in that decides at once.

    python -m tests.connectors.opcua_campaign --reactors 5 --days 28 --seconds-per-day 6
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from asyncua import Client, ua

from perfusio_jax._core import DEFAULT_CONTROLS
from perfusio_jax.connectors import OPCUAConnector
from perfusio_jax.twin import Brain, GateLimits, LoopSettings, ReactorLoop, verify_audit
from perfusio_jax.twin.loop.fleet import Fleet
from perfusio_jax.twin.records.run_files import JOURNAL_NAME, open_run
from perfusio_jax.twin.records.runtime import system_runtime
from tests.connectors.opcua_rigs import connect, smooth
from tests.faults.proxy import Proxy
from tests.faults.thinking import LightBrain
from tests.faults.world import LIMITS, read_log

SENSOR_FAULTS = (
    "BadQuality",
    "UncertainQuality",
    "NotANumber",
    "Infinite",
    "WrongType",
    "Frozen",
    "Stuck",
)
LINE_FAULTS = ("cut", "delay", "black hole", "double")
SERVER_FAULTS = ("kill", "freeze", "other namespaces", "default set-points", "stop")
SPOILED = ("Glc", "Lac")
"""Sensors that faults are given to."""


@dataclass
class Campaign:
    """One campaign."""

    folder: Path
    n_reactors: int
    n_days: int
    seconds_per_day: float
    seed: int
    kinds: tuple[str, ...] = (*SENSOR_FAULTS, *LINE_FAULTS, *SERVER_FAULTS)
    most_faults: int = 1000
    faults: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    rack: ClassVar[str] = "--smooth"
    """Option of the server for its kind of rack."""
    limits: ClassVar[GateLimits] = LIMITS

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.state = self.folder / "rack.json"
        self.ids = [f"R{i + 1:02d}" for i in range(self.n_reactors)]
        self.process: asyncio.subprocess.Process | None = None

    async def run(self) -> dict[str, Any]:
        """Run it and check every promise."""
        await self.start()
        proxy = Proxy(self.port)
        async with proxy:
            trouble = asyncio.create_task(self.trouble(proxy))
            try:
                fates = await self.loops(proxy.port)
            finally:
                trouble.cancel()
                ends = await asyncio.gather(trouble, return_exceptions=True)
                proxy.is_black_hole, proxy.delay_s = False, 0.0
        if not isinstance(ends[0], asyncio.CancelledError):
            self.problems.append(f"the faults ended early: {ends[0]!r}")
        await self.stop()
        figures = self.check(fates)
        return {**figures, "faults": sum(self.faults.values()), "problems": self.problems}

    # ---------------------------------------------------------------- server

    @property
    def acceleration(self) -> float:
        """Culture time over real time."""
        return 86400.0 / self.seconds_per_day

    def environment(self) -> dict[str, str]:
        """Of the server: one that simulates a plant compiles once, not at every start."""
        return {
            "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "perfusio-test-xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            **os.environ,
        }

    def secured(self) -> tuple[str, ...]:
        """Options of the server for its security."""
        return ()

    def connector(self, port: int, reactor_id: str) -> OPCUAConnector:
        """The way to one vessel."""
        return connect(
            f"opc.tcp://127.0.0.1:{port}/perfusio", reactor_id, **self.patience(), **self.security()
        )

    def patience(self) -> dict[str, Any]:
        return {
            "acceleration": self.acceleration,
            "sample_slack_s": None,
            "timeout_s": max(0.25 * self.seconds_per_day, 1.0),
            "patience_s": max(0.5 * self.seconds_per_day, 3.0),
            "retry_delay_s": 0.1,
        }

    def security(self) -> dict[str, Any]:
        """Arguments of a connector for its security."""
        return {}

    def brain(self, reactor_id: str) -> Brain:
        """What decides for one vessel."""
        return LightBrain(lambda day: "")

    def true(self, vessel: int, day: int) -> dict[str, float | None]:
        """What a vessel read on a day."""
        return dict(smooth(vessel, day))

    async def start(self, *arguments: str) -> None:
        script = Path(__file__).with_name("opcua_process.py")
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(script), str(self.port), str(self.state), self.rack),
            *(str(self.n_reactors), "--accelerate", str(self.acceleration)),
            *(*self.secured(), *arguments),
            stdout=asyncio.subprocess.PIPE,
            env=self.environment(),
        )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 120)
        assert line.startswith(b"ready "), line

    async def stop(self, how: int = signal.SIGTERM) -> None:
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
            await process.communicate()

    # ---------------------------------------------------------------- faults

    async def trouble(self, proxy: Proxy) -> None:
        """One fault on each culture day, drawn at random, for ever."""
        async with asyncio.TaskGroup() as later:
            for _ in range(self.most_faults):
                kind = self.draw.choice(self.kinds)
                wait = self.draw.uniform(0.1, 0.6) * self.seconds_per_day
                length = self.draw.uniform(0.1, 0.4) * self.seconds_per_day
                await asyncio.sleep(wait)
                if kind in SENSOR_FAULTS:
                    later.create_task(self.spoil(kind))
                else:
                    await self.cause(kind, proxy, length)
                self.faults[kind] += 1
                lasts = length if kind in ("delay", "black hole", "freeze") else 0.0
                await asyncio.sleep(self.seconds_per_day - wait - lasts)
            await asyncio.Event().wait()

    async def spoil(self, kind: str) -> None:
        """A sensor is faulty for a day; a server that is down meanwhile forgets it."""
        vessel = self.draw.choice(self.ids)
        with contextlib.suppress(Exception):
            await self.switch(vessel, kind, ",".join(SPOILED))
            await asyncio.sleep(self.seconds_per_day)
            await self.switch(vessel, kind, "")

    async def cause(self, kind: str, proxy: Proxy, length_s: float) -> None:
        if kind == "cut":
            proxy.cut_lines()
        elif kind == "double":
            proxy.doubles = 3
        elif kind == "delay":
            proxy.delay_s = 0.2
            await asyncio.sleep(length_s)
            proxy.delay_s = 0.0
        elif kind == "black hole":
            proxy.is_black_hole = True
            await asyncio.sleep(length_s)
            proxy.is_black_hole = False
        elif kind == "freeze":
            assert self.process is not None
            self.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(length_s)
            self.process.send_signal(signal.SIGCONT)
        else:
            await self.stop(signal.SIGTERM if kind == "stop" else signal.SIGKILL)
            arguments = {"other namespaces": ["--before", "urn:a", "--before", "urn:b"]}
            if kind == "default set-points":
                arguments[kind] = ["--reset"]
            await self.start(*arguments.get(kind, []))

    async def switch(self, vessel: str, kind: str, names: str) -> None:
        client = Client(f"opc.tcp://127.0.0.1:{self.port}/perfusio", timeout=2)
        await self.admit(client)
        async with client:
            index = await client.get_namespace_index("urn:perfusio-jax:rack")
            node = client.get_node(ua.NodeId(f"{vessel}.Faults.{kind}", index))
            await node.write_value(names)

    async def admit(self, client: Client) -> None:
        """Give a client that makes faults what the server asks for."""

    # ---------------------------------------------------------------- loops

    async def loops(self, port: int) -> dict[str, Any]:
        runtime = system_runtime()
        async with contextlib.AsyncExitStack() as last:
            loops = {}
            for reactor_id in self.ids:
                connector = self.connector(port, reactor_id)
                last.push_async_callback(connector.close)
                files = open_run(
                    self.folder / reactor_id,
                    run_id="campaign",
                    runtime=runtime,
                    connector=connector,
                    reactor_id=reactor_id,
                    may_write=True,
                )
                last.callback(files.close)
                loop = ReactorLoop(
                    connector,
                    self.brain(reactor_id),
                    folder=None,
                    records=files.records,
                    audit=files.audit,
                    limits=self.limits,
                    settings=LoopSettings(
                        reactor_id=reactor_id,
                        run_id="campaign",
                        allow_write=True,
                        initial_controls=dict(DEFAULT_CONTROLS),
                        poll_seconds=0.2,
                        patience_seconds=120.0 + 5.0 * self.seconds_per_day,
                        on_missed="hold",
                        beat_seconds=0.2,
                        device_seconds=0.1 * self.seconds_per_day,
                        call_timeout_s=60.0,
                    ),
                    runtime=runtime,
                )
                loop.take_lease("campaign", force=True)
                loops[reactor_id] = loop
            fleet = Fleet(loops, runtime=runtime, say=lambda line: print(line, file=sys.stderr))
            return await fleet.run(self.n_days)

    # ---------------------------------------------------------------- promises

    def check(self, fates: dict[str, Any]) -> dict[str, Any]:
        say = self.problems.append
        written = json.loads(self.state.read_text())["rack"]["written"]
        stored = unusable = resets = 0
        for vessel, reactor_id in enumerate(self.ids):
            if fates[reactor_id].ending != "completed":
                say(f"{reactor_id} ended {fates[reactor_id]}")
            folder = self.folder / reactor_id
            report = verify_audit(folder)
            if not report.ok:
                say(f"{reactor_id}: {report}")
            kinds = Counter(r["event_type"] for r in read_log(folder))
            resets += kinds["DEVICE_RESET"]
            if kinds["OPERATOR_OVERRIDE"]:
                say(f"{reactor_id}: a device that forgot is taken for an operator")
            with contextlib.closing(sqlite3.connect(folder / JOURNAL_NAME)) as db:
                samples = db.execute("SELECT day, revision, payload FROM samples").fetchall()
                standing = db.execute(
                    "SELECT day FROM decisions WHERE superseded_by_reason IS NULL "
                    "GROUP BY reactor_id, day HAVING count(*) > 1"
                ).fetchall()
            if standing:
                say(f"{reactor_id}: more than one standing decision on days {standing}")
            days = sorted({int(day) for day, _, _ in samples})
            lost = sorted(set(range(self.n_days)) - set(days))
            if lost:
                say(f"{reactor_id}: samples of days {lost} lost")
            if len({(day, revision) for day, revision, _ in samples}) != len(samples):
                say(f"{reactor_id}: a sample is stored twice")
            for day, _, payload in samples:
                stored += 1
                for name, value in json.loads(payload)["values"].items():
                    true = self.true(vessel, int(day))[name]
                    earlier = self.true(vessel, max(int(day) - 1, 0))[name]
                    if value is None and true is not None:
                        unusable += 1
                        if name not in SPOILED:
                            say(f"{reactor_id}, day {day}: {name} is missing")
                    elif value != true and not (name in SPOILED and value == earlier):
                        say(f"{reactor_id}, day {day}: {name} is {value}, not {true}")
        self.check_writes(written)
        figures = {"stored": stored, "writes": len(written), "unusable": unusable}
        return {**figures, "resets": resets}

    def check_writes(self, written: list) -> None:
        """What reached the device: inside the limits, and no step larger than allowed."""
        force = [dict(DEFAULT_CONTROLS) for _ in self.ids]
        for vessel, setpoints in written:
            is_reset = len(setpoints) == len(DEFAULT_CONTROLS)
            for name, value in setpoints.items():
                before = force[vessel][name]
                force[vessel][name] = value
                if is_reset:
                    continue
                if not self.limits.lower[name] <= value <= self.limits.upper[name]:
                    self.problems.append(f"{name} {value} of vessel {vessel} is beyond its limits")
                step = self.limits.max_rate.get(name)
                if step is not None and abs(value - before) > step + 1e-9:
                    self.problems.append(f"{name} of vessel {vessel} went {before} to {value}")
            if force[vessel]["bleed_rate"] > force[vessel]["perfusion_rate"]:
                self.problems.append(f"vessel {vessel} runs dry")


def main() -> None:
    """Run one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reactors", type=int, default=5)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seconds-per-day", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="opcua_campaign_"))
    campaign = Campaign(folder, given.reactors, given.days, given.seconds_per_day, given.seed)
    started = time.perf_counter()
    figures = asyncio.run(campaign.run())
    print(f"{dict(campaign.faults)}\n{figures}\n{time.perf_counter() - started:.0f} s; {folder}")
    sys.exit(bool(campaign.problems))


if __name__ == "__main__":
    main()
