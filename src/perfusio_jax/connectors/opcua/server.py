"""An OPC UA server over an emulated rack: the loop can be closed over the real protocol.

The culture clock runs at a multiple of real time. Online tags are refreshed several times a
culture day; when a day's sample comes due its values are published together, with one source
time, and kept in the nodes' history, so that a client that was away can still read them.
"""

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import asyncio
import contextlib
import datetime as dt
import heapq
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self
from urllib.parse import urlparse

from asyncua import Server, ua
from asyncua.server.user_managers import PermissiveUserManager

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, ConfigError, ConnectorError, DataError
from perfusio_jax._core.instants import instant_of_text
from perfusio_jax._core.limits import TABLE_BYTES, parse_json, read_file
from perfusio_jax.connectors.culture_clock import CultureClock
from perfusio_jax.connectors.opcua.names import SAMPLED
from perfusio_jax.connectors.opcua.security import (
    SERVER_URI,
    KnownUsers,
    ServerSecurity,
    keep_credentials_out_of_logs,
)
from perfusio_jax.connectors.opcua.space import FAULT_KINDS, GuardedAttributes, Space, data_value
from perfusio_jax.twin import replace_durably

DEFAULT_URL: Final = "opc.tcp://127.0.0.1:4840/perfusio"
STATE_VERSION: Final = 1

_log = logging.getLogger(__name__)


class Sample(Protocol):
    """The daily sample of one vessel; `simulator.RackSample` is one."""

    @property
    def day(self) -> int:
        """Culture day [d]."""
        ...

    @property
    def time_h(self) -> float:
        """Time since inoculation [h]."""
        ...

    @property
    def values(self) -> Mapping[str, float | None]:
        """Species."""
        ...

    @property
    def stream_totals(self) -> Mapping[str, float | None]:
        """Volumes since the previous sample [L]."""
        ...


class Rack(Protocol):
    """What is served; `simulator.VirtualRack` is one."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the vessels."""
        ...

    @property
    def volume_L(self) -> float:
        """Working volume [L]."""
        ...

    @property
    def time_h(self) -> float:
        """Time since inoculation [h]."""
        ...

    @property
    def day(self) -> int:
        """Last day whose samples are there [d]."""
        ...

    def advance(self, to_h: float) -> Sequence[Sequence[Sample]]:
        """Move on to a time [h]; samples of the days that came due, per vessel."""
        ...

    def sample(self, vessel: int, day: int) -> Sample:
        """Sample of a day that is there."""
        ...

    def tags(self) -> Sequence[Mapping[str, float | None]]:
        """Online tags now, per vessel."""
        ...

    def controls(self, vessel: int) -> dict[str, float]:
        """Set-points in force."""
        ...

    def set_controls(self, vessel: int, setpoints: Mapping[str, float]) -> None:
        """Change set-points."""
        ...

    def snapshot(self) -> Mapping[str, Any]:
        """Everything that changes, as plain data."""
        ...

    def restore(self, saved: Mapping[str, Any]) -> Any:
        """Go on from a snapshot."""
        ...


class RackServer:
    """Serves a rack.

    Args:
        rack: Vessels to serve.
        url: Where to listen, `opc.tcp://host:port/path`; port 0 takes a free one.
        acceleration: Culture time over real time.
        security: Certificates and users; None serves without any, on this machine only.
        is_paused: Do not let culture time pass until a first set-point is written, or somebody
            sets `ClockRunning`.
        state_path: File that keeps the culture over a restart; it goes on where it stopped.
        reset_setpoints: After a restart, fall back to the rack's first set-points, as many
            devices do.
        tick_s: Real time between two refreshes [s]; by default 24 a culture day, at most one a
            second and twenty.
        delay_s: How late [s] a sensor with the fault "Delayed" is.
        spare: Additional sensors per vessel that show the heartbeat, for load tests.
        namespaces_before: URIs registered first, so that the rack's own gets another index.
        now: Source of time stamps.

    Raises:
        ConfigError: For settings that make no sense, or no security beyond this machine.
    """

    def __init__(
        self,
        rack: Rack,
        *,
        url: str = DEFAULT_URL,
        acceleration: float = 1440.0,
        security: ServerSecurity | None = None,
        is_paused: bool = False,
        state_path: Path | str | None = None,
        reset_setpoints: bool = False,
        tick_s: float | None = None,
        delay_s: float = 5.0,
        spare: int = 0,
        namespaces_before: Sequence[str] = (),
        now: Callable[[], dt.datetime] | None = None,
    ) -> None:
        parsed = urlparse(url)
        if parsed.scheme != "opc.tcp" or not parsed.hostname or parsed.port is None:
            raise ConfigError(f"url is {url!r}; it must be opc.tcp://host:port/path.")
        if "@" in parsed.netloc:
            raise ConfigError("the url holds a user or password; give them apart.")
        if security is None and parsed.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ConfigError(
                f"without security the rack is served on this machine only, not on "
                f"{parsed.hostname}; give certificates or use 127.0.0.1."
            )
        self.rack = rack
        self.clock = CultureClock(acceleration, is_running=False)
        self._url, self.security = url, security
        self._starts_paused = is_paused
        default = min(1.0, max(0.05, self.clock.seconds_per_day / 24.0))
        self.tick_s = default if tick_s is None else float(tick_s)
        if not (self.tick_s > 0 and delay_s >= 0):
            raise ConfigError(f"tick_s is {tick_s} and delay_s {delay_s}; both must be positive.")
        self._delay_s = float(delay_s)
        self._state_path = None if state_path is None else Path(state_path)
        self._reset = reset_setpoints
        self._spare, self._before = spare, tuple(namespaces_before)
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._vessel = {name: i for i, name in enumerate(rack.ids)}
        self._faults: dict[tuple[int, str], set[str]] = {}
        self._late: list[tuple[float, int, tuple[int, str], float | None, dt.datetime]] = []
        self._counter = itertools.count()
        self._sampled_at: list[dt.datetime] = []
        self._task: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self._moving = asyncio.Lock()
        self.failure: BaseException | None = None
        """What stopped the culture, if anything; the server goes on without a heartbeat."""
        self.n_published = 0
        """Values published so far."""

    # ---------------------------------------------------------------- life

    @property
    def url(self) -> str:
        """Where the server listens.

        Raises:
            ConnectorError: If it does not.
        """
        if self._server is None or self._server.bserver is None:
            raise ConnectorError("the server has not been started.")
        parsed = urlparse(self._url)
        return parsed._replace(netloc=f"{parsed.hostname}:{self._server.bserver.port}").geturl()

    async def start(self) -> Self:
        """Build the address space, listen, and let time pass.

        Raises:
            ConnectorError: If the port is taken.
            DataError: If the saved state cannot be used.
        """
        keep_credentials_out_of_logs()
        self._restore()
        # The first step of a simulated rack compiles; not while clients wait.
        await asyncio.to_thread(self.rack.advance, self.rack.time_h + 1e-6)
        security = self.security
        users = PermissiveUserManager() if security is None else KnownUsers(security)
        server = Server(user_manager=users)  # pyright: ignore[reportArgumentType]
        server.name = "perfusio-jax emulated rack"
        server.product_uri = "urn:perfusio-jax"
        server.manufacturer_name = "perfusio-jax"
        server.disable_clock()  # the refresh below keeps the time
        await server.init()
        await server.set_application_uri(SERVER_URI)
        server.set_endpoint(self._url)
        server.allow_remote_admin(False)
        await self._secure(server)
        for uri in self._before:
            await server.register_namespace(uri)
        self.space = Space(server, self.rack.ids, spare=self._spare)
        await self.space.build()
        server.iserver.attribute_service = GuardedAttributes(
            server.iserver.aspace,
            self.space,
            lock=self._moving,
            controls=self.rack.controls,
            accepted=self._accept,
            switched=self._switch,
            ran=self._ran,
        )
        storage = server.iserver.history_manager.storage
        for node in self.space.historised:
            await storage.new_historized_node(node, None, 0)
        self._server, self._storage = server, storage
        if not self._sampled_at:
            self._sampled_at = [self._now() for _ in range(self.rack.day + 1)]
        for day in range(self.rack.day + 1):
            await self._publish_day(day)
        await self._refresh()
        try:
            with _quiet("asyncua.server.server"):
                await server.start()
        except OSError as error:
            self._server = None
            raise ConnectorError(f"cannot listen on {self._url}: {error.strerror}.") from error
        self.clock = CultureClock(
            self.clock.acceleration,
            start_h=self.rack.time_h,
            is_running=not self._starts_paused,
        )
        self._task = asyncio.create_task(self._run(), name="rack server")
        return self

    async def stop(self) -> None:
        """Stop time and listening; stopping twice does nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        server, self._server = self._server, None
        if server is not None:
            self.clock.pause()
            await asyncio.to_thread(self._save)
            await server.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        """Stop."""
        await self.stop()

    async def _secure(self, server: Server) -> None:
        security = self.security
        if security is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            server.set_identity_tokens([ua.AnonymousIdentityToken])
            return
        await server.load_certificate(security.pair.certificate)
        await server.load_private_key(security.pair.key)
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        tokens = (
            [ua.UserNameIdentityToken]
            if security.users
            else [ua.AnonymousIdentityToken, ua.X509IdentityToken]
        )
        server.set_identity_tokens(tokens)
        validator = server.iserver.user_manager
        if isinstance(validator, KnownUsers):
            server.set_certificate_validator(validator.validate)

    # ---------------------------------------------------------------- faults

    def inject(self, kind: str, reactor_id: str, *names: str) -> None:
        """Give sensors a fault, from their next value on.

        Args:
            kind: One of `FAULT_KINDS`.
            reactor_id: Vessel.
            *names: Species, tags or totals.

        Raises:
            ConfigError: If one of these does not exist.
        """
        if kind not in FAULT_KINDS:
            raise ConfigError(f"fault {kind!r} is unknown; there are {', '.join(FAULT_KINDS)}.")
        vessel = self._vessel.get(reactor_id)
        for name in names:
            if vessel is None or (vessel, name) not in self.space.sensors:
                raise ConfigError(f"there is no sensor {name!r} in {reactor_id!r}.")
            self._faults.setdefault((vessel, name), set()).add(kind)

    def clear(self, reactor_id: str | None = None) -> None:
        """Take all faults away, of one vessel or of all."""
        vessel = None if reactor_id is None else self._vessel[reactor_id]
        for key in [k for k in self._faults if vessel is None or k[0] == vessel]:
            del self._faults[key]

    def _switch(self, vessel: int, kind: str, names: Sequence[str]) -> bool:
        if any((vessel, name) not in self.space.sensors for name in names):
            return False
        for key, kinds in self._faults.items():
            if key[0] == vessel:
                kinds.discard(kind)
        if names:
            self.inject(kind, self.rack.ids[vessel], *names)
        return True

    # ---------------------------------------------------------------- time

    async def _run(self) -> None:
        """Refresh until cancelled."""
        due = time.monotonic()
        while True:
            try:
                await self._tick()
            except Exception as error:
                # The device stands still and its heartbeat with it: clients see that.
                self.failure = error
                _log.exception("the emulated rack has stopped")
                return
            due = max(due + self.tick_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _tick(self) -> None:
        async with self._moving:  # no set-point comes in the middle
            target = self.clock.time_h
            fresh: Sequence[Sequence[Sample]] = ()
            if target > self.rack.time_h:
                fresh = await asyncio.to_thread(self.rack.advance, target)
            if fresh:
                self._sampled_at += [self._now()] * len(fresh)
                # Saved before it is shown: what a client has seen is not forgotten.
                await asyncio.to_thread(self._save)
            for row in fresh:
                await self._publish_day(row[0].day)
            if self._starts_paused and self.rack.day >= 0:
                # No culture time passes, so the sample at hand does not age either.
                self._sampled_at[self.rack.day] = self._now()
                await self._publish_day(self.rack.day, keep=False)
            await self._refresh()

    async def put_sample(
        self,
        reactor_id: str,
        day: int,
        values: Mapping[str, float | None],
        *,
        at: dt.datetime | None = None,
    ) -> None:
        """Publish a sample by hand, for tests and drills.

        Args:
            reactor_id: Vessel.
            day: Culture day [d].
            values: Species, and stream totals if any; those not named are missing.
            at: When it was taken.
        """
        vessel = self._vessel[reactor_id]
        await self._publish(vessel, day, HOURS_PER_DAY * day, values, at or self._now())

    async def _publish_day(self, day: int, *, keep: bool = True) -> None:
        at = self._sampled_at[day]
        for vessel in range(len(self.rack.ids)):
            sample = self.rack.sample(vessel, day)
            values = {**sample.values, **sample.stream_totals}
            await self._publish(vessel, day, sample.time_h, values, at, keep=keep)

    async def _publish(
        self,
        vessel: int,
        day: int,
        time_h: float,
        values: Mapping[str, float | None],
        at: dt.datetime,
        *,
        keep: bool = True,
    ) -> None:
        for name in SAMPLED:
            await self._show((vessel, name), values.get(name), at, keep=keep)
        await self._store(self.space.times[vessel], data_value(time_h, at), keep=keep)
        # Last, so that whoever sees the day sees its values.
        await self._store(self.space.days[vessel], data_value(day, at, kind="Int32"), keep=keep)

    async def _refresh(self) -> None:
        now = self._now()
        monotonic = time.monotonic()
        while self._late and self._late[0][0] <= monotonic:
            _, _, key, value, at = heapq.heappop(self._late)
            kinds = self._faults.get(key, set()) - {"Delayed"}
            await self._store(
                self.space.sensors[key], data_value(value, at, kinds), keep=key[1] in SAMPLED
            )
        beat = next(self._beats) % 2**32
        for vessel, tags in enumerate(self.rack.tags()):
            for name, value in {**tags, "volume_L": self.rack.volume_L}.items():
                await self._show((vessel, name), value, now)
            for name in self.space.spare:
                await self._show((vessel, name), float(beat), now)
            for name, value in self.rack.controls(vessel).items():
                shown = data_value(value, now)
                await self._store(self.space.currents[vessel, name], shown)
                await self._follow(self.space.targets[vessel, name], value, shown)
        for kind in FAULT_KINDS:
            stands = kind in ("Frozen", "Stuck")
            value = 7.0 if stands else 7.0 + 0.001 * (next(self._counter) % 100)
            at = now
            if kind == "Frozen":
                at = self._started
            elif kind == "Delayed":
                at = now - dt.timedelta(seconds=self._delay_s)
            await self._store(self.space.examples[kind], data_value(value, at, [kind]))
        await self._store(self.space.heartbeat, data_value(beat, now, kind="UInt32"))
        running = data_value(self.clock.is_running, now, kind="Boolean")
        await self._store(self.space.clock, running)
        await self._store(self.space.culture_time, data_value(self.rack.time_h, now))
        iserver = self._iserver
        await iserver.current_time_node.write_value(now)

    async def _follow(self, node: ua.NodeId, value: float, shown: ua.DataValue) -> None:
        """A target keeps the time it was written at; it is refreshed only when it differs."""
        held = self._iserver.read_attribute_value(node, ua.AttributeIds.Value)
        if held.Value is None or held.Value.Value != value:
            await self._store(node, shown)

    async def _show(
        self, key: tuple[int, str], value: float | None, at: dt.datetime, *, keep: bool = True
    ) -> None:
        """Show a sensor's value, with whatever is wrong with the sensor."""
        kinds = self._faults.get(key, ())
        node = self.space.sensors[key]
        if "Frozen" in kinds:
            return
        if "Delayed" in kinds:
            due = time.monotonic() + self._delay_s
            heapq.heappush(self._late, (due, next(self._counter), key, value, at))
            return
        if "Stuck" in kinds:
            held = self._iserver.read_attribute_value(node, ua.AttributeIds.Value)
            value = held.Value.Value if held.Value is not None else None
        await self._store(node, data_value(value, at, kinds), keep=keep and key[1] in SAMPLED)

    async def _store(self, node: ua.NodeId, value: ua.DataValue, *, keep: bool = False) -> None:
        self.n_published += 1
        kind = value.Value.VariantType if value.Value is not None else None
        held = self._iserver.aspace[node].attributes[ua.AttributeIds.Value]
        if kind is ua.VariantType.String:  # the checks of type would refuse what is wrong here
            held.value = value
        else:
            if held.value.Value is not None and held.value.Value.VariantType is not kind:
                held.value = ua.DataValue()  # nor would they take a number after a text
            await self._iserver.write_attribute_value(node, value, ua.AttributeIds.Value)
        if keep:
            await self._storage.save_node_value(node, value)

    @property
    def _iserver(self) -> Any:
        if self._server is None:
            raise ConnectorError("the server has not been started.")
        return self._server.iserver

    # ---------------------------------------------------------------- set-points and state

    def _ran(self, is_on: bool) -> None:
        self._starts_paused = False
        if is_on:
            self.clock.run()
        else:
            self.clock.pause()

    async def _accept(self, vessel: int, setpoints: Mapping[str, float]) -> None:
        self.rack.set_controls(vessel, setpoints)
        if self._starts_paused:
            self._ran(True)
        if self._state_path is not None:
            await asyncio.to_thread(self._save)

    def _save(self) -> None:
        if self._state_path is None:
            return
        content = {
            "version": STATE_VERSION,
            "rack": self.rack.snapshot(),
            "sampled_at": [at.isoformat() for at in self._sampled_at],
        }
        self._state_path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(self._state_path, json.dumps(content, allow_nan=False).encode())

    def _restore(self) -> None:
        self._started = self._now()
        self._beats = itertools.count()
        if self._state_path is None or not self._state_path.exists():
            return
        first = [self.rack.controls(i) for i in range(len(self.rack.ids))]
        try:
            raw = read_file(self._state_path, most=TABLE_BYTES)
            content = parse_json(raw, f"{self._state_path} is not the state of a rack: it")
            if content["version"] != STATE_VERSION:
                raise DataError(
                    f"{self._state_path} has version {content['version']}; this program "
                    f"reads {STATE_VERSION}."
                )
            times = [instant_of_text(t, "sampled_at") for t in content["sampled_at"]]
            self.rack.restore(content["rack"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self._state_path} is not the state of a rack: {error}.") from error
        if len(times) != self.rack.day + 1:
            raise DataError(f"{self._state_path} has times of {len(times)} samples.")
        self._sampled_at = times
        if self._reset:
            for vessel, controls in enumerate(first):
                self.rack.set_controls(vessel, {n: controls[n] for n in CONTROL_NAMES})


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """What a library says about a choice we made on purpose is not worth a warning."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
