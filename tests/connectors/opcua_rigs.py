"""A rack without a simulator, servers of it, and connectors to them."""

import asyncio
import contextlib
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncua.server.address_space import AttributeValue, NodeData
from asyncua.server.internal_server import InternalServer

from perfusio_jax._core import AUXILIARY_TAGS, DEFAULT_CONTROLS, FORECAST_SPECIES, STREAM_TOTALS
from perfusio_jax.connectors import OPCUAConnector, RackServer, rack_node_map

_STANDARD: dict[Any, NodeData] = {}
_build = InternalServer.load_standard_address_space


async def _load(self: InternalServer, shelf_file: Any = None) -> None:
    """The standard's six thousand nodes, built once and copied: a second less per server."""
    if not _STANDARD:
        await _build(self, shelf_file)
        _STANDARD.update(_copies(self.aspace._nodes))
    self.aspace._nodes = _copies(_STANDARD)


def _copies(nodes: Any) -> dict[Any, NodeData]:
    copies = {}
    for key, node in nodes.items():
        copy = copies[key] = NodeData(node.nodeid)
        copy.attributes = {a: AttributeValue(v.value) for a, v in node.attributes.items()}
        copy.references, copy.call = list(node.references), node.call
    return copies


InternalServer.load_standard_address_space = _load

FAST = {"timeout_s": 5.0, "retry_delay_s": 0.05, "patience_s": 15.0}
FREE = "opc.tcp://127.0.0.1:0/perfusio"


@dataclass(frozen=True)
class CannedSample:
    day: int
    time_h: float
    values: Mapping[str, float | None]
    stream_totals: Mapping[str, float | None]


@dataclass
class CannedRack:
    """Values that say where they come from: 100 * vessel + 10 * day + column / 10."""

    n: int = 1
    time_h: float = 0.0
    written: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    volume_L: float = 0.25

    def __post_init__(self) -> None:
        self.ids = tuple(f"R{i + 1:02d}" for i in range(self.n))
        self._controls = [dict(DEFAULT_CONTROLS) for _ in range(self.n)]

    @property
    def day(self) -> int:
        return int(self.time_h // 24.0)

    def advance(self, to_h: float) -> list[list[CannedSample]]:
        before = self.day
        self.time_h = max(self.time_h, to_h)
        days = range(before + 1, self.day + 1)
        return [[self.sample(i, day) for i in range(self.n)] for day in days]

    def sample(self, vessel: int, day: int) -> CannedSample:
        base = 100.0 * vessel + 10.0 * day
        return CannedSample(
            day,
            24.0 * day,
            {name: base + k / 10.0 for k, name in enumerate(FORECAST_SPECIES)},
            {name: base / 1e3 + k for k, name in enumerate(STREAM_TOTALS)},
        )

    def tags(self) -> list[dict[str, float]]:
        return [
            {name: 7.0 + i + k / 10.0 for k, name in enumerate(AUXILIARY_TAGS)}
            for i in range(self.n)
        ]

    def controls(self, vessel: int) -> dict[str, float]:
        return dict(self._controls[vessel])

    def set_controls(self, vessel: int, setpoints: Mapping[str, float]) -> None:
        self.written.append((vessel, dict(setpoints)))
        self._controls[vessel].update(setpoints)

    def snapshot(self) -> dict[str, Any]:
        return {"time_h": self.time_h, "controls": self._controls, "written": self.written}

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.time_h = float(saved["time_h"])
        self._controls = [dict(c) for c in saved["controls"]]
        self.written = [(vessel, dict(given)) for vessel, given in saved.get("written", [])]


@contextlib.asynccontextmanager
async def served(n: int = 1, **settings: Any) -> AsyncIterator[RackServer]:
    """A server of a canned rack on a free port; its time stands still unless asked otherwise."""
    rack = settings.pop("rack", None) or CannedRack(n)
    defaults = {"url": FREE, "is_paused": True, "tick_s": 0.05}
    async with RackServer(rack, **{**defaults, **settings}) as server:
        if settings.get("is_paused", True):
            server._ran(False)  # for good, not only until the first set-point
        yield server


def connect(url: str, reactor_id: str = "R01", **settings: Any) -> OPCUAConnector:
    defaults: dict[str, Any] = {
        **FAST,
        "node_map": rack_node_map(reactor_id),
        "allow_write": True,
        "reactor_id": reactor_id,
        "sample_slack_s": 0.0,
    }
    return OPCUAConnector(url, **{**defaults, **settings})


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass
class SmoothRack(CannedRack):
    """Readings that change by two per cent a day and differ between vessels."""

    def sample(self, vessel: int, day: int) -> CannedSample:
        return CannedSample(day, 24.0 * day, smooth(vessel, day), {"V_bleed_L": 0.04})


def smooth(vessel: int, day: int) -> dict[str, float]:
    """What a vessel of a `SmoothRack` reads on a day."""
    level = 1.0 + 0.02 * day + 0.001 * vessel
    return {name: (k + 1.0) * level for k, name in enumerate(FORECAST_SPECIES)}


@dataclass
class EmptyRack(CannedRack):
    """A rack that has not been sampled yet; samples are put by hand."""

    @property
    def day(self) -> int:
        return -1

    def advance(self, to_h: float) -> list[list[CannedSample]]:
        self.time_h = max(self.time_h, to_h)
        return []


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
    """Wait until something is so, looking often."""
    async with asyncio.timeout(within_s):
        for _ in itertools.count():
            if await condition():
                return
            await asyncio.sleep(0.02)
