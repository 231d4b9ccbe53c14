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
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlparse

from asyncua import Server, ua
from asyncua.server.user_managers import PermissiveUserManager

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, ConnectorError
from perfusio_jax.connectors.culture_clock import CultureClock
from perfusio_jax.connectors.opcua.display import Display
from perfusio_jax.connectors.opcua.rack import Rack, Sample
from perfusio_jax.connectors.opcua.rack_state import restore_rack, save_rack
from perfusio_jax.connectors.opcua.security import (
    SERVER_URI,
    KnownUsers,
    ServerSecurity,
    keep_credentials_out_of_logs,
)
from perfusio_jax.connectors.opcua.sensor_faults import SensorFaults
from perfusio_jax.connectors.opcua.shown import REFERENCE, Shown
from perfusio_jax.connectors.opcua.space import GuardedAttributes, Space
from perfusio_jax.twin.records.runtime import ended

DEFAULT_URL: Final = "opc.tcp://127.0.0.1:4840/perfusio"

_log = logging.getLogger(__name__)


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
        shows: What each vessel shows and takes; by default that of the reference culture.

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
        shows: Sequence[Shown] | None = None,
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
        self._shows = (REFERENCE,) * len(rack.ids) if shows is None else tuple(shows)
        if len(self._shows) != len(rack.ids):
            raise ConfigError(f"{len(rack.ids)} vessels were given {len(self._shows)} cultures.")
        self.clock = CultureClock(acceleration, is_running=False)
        self._url, self.security = url, security
        self._starts_paused = is_paused
        default = min(1.0, max(0.05, self.clock.seconds_per_day / 24.0))
        self.tick_s = default if tick_s is None else float(tick_s)
        if not (self.tick_s > 0 and delay_s >= 0):
            raise ConfigError(f"tick_s is {tick_s} and delay_s {delay_s}; both must be positive.")
        self._delay_s = float(delay_s)
        self._faults = SensorFaults(rack.ids)
        self._shown: Display | None = None
        self._state_path = None if state_path is None else Path(state_path)
        self._reset = reset_setpoints
        self._spare, self._before = spare, tuple(namespaces_before)
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._vessel = {name: i for i, name in enumerate(rack.ids)}
        self._sampled_at: list[dt.datetime] = []
        self._task: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self._moving = asyncio.Lock()
        self.failure: BaseException | None = None
        """What stopped the culture, if anything; the server goes on without a heartbeat."""

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

    @property
    def n_published(self) -> int:
        """Values published since the start."""
        return 0 if self._shown is None else self._shown.n_shown

    @property
    def _display(self) -> Display:
        if self._shown is None:
            raise ConnectorError("the server has not been started.")
        return self._shown

    async def start(self) -> Self:
        """Build the address space, listen, and let time pass.

        Raises:
            ConnectorError: If the port is taken.
            DataError: If the saved state cannot be used.
        """
        keep_credentials_out_of_logs()
        began = self._now()
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
        self.space = Space(server, self.rack.ids, spare=self._spare, shows=self._shows)
        await self.space.build()
        server.iserver.attribute_service = GuardedAttributes(
            server.iserver.aspace,
            self.space,
            lock=self._moving,
            controls=self.rack.controls,
            volume=self._volume,
            accepted=self._accept,
            switched=self._faults.switch,
            ran=self._ran,
        )
        storage = server.iserver.history_manager.storage
        for node in self.space.historised:
            await storage.new_historized_node(node, None, 0)
        self._server, self._storage = server, storage
        self._faults.sensors = self.space.sensors
        self._shown = Display(server, self.space, self._faults, delay_s=self._delay_s, began=began)
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
            await ended(task)
        server, self._server = self._server, None
        if server is not None:
            self.clock.pause()
            await asyncio.to_thread(self._save)
            if server.bserver is not None and server.bserver.cleanup_task is not None:
                # It looks after a client that has just left every ten seconds; stopped in that
                # moment by the library, it would go on and be waited for for ever.
                await ended(server.bserver.cleanup_task, again_s=0.2)
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
        self._faults.inject(kind, reactor_id, *names)

    def clear(self, reactor_id: str | None = None) -> None:
        """Take all faults away, of one vessel or of all."""
        self._faults.clear(reactor_id)

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
            for number in range(self.rack.day + 1 - len(fresh), self.rack.day + 1):
                await self._publish_day(number)
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
        await self._display.sample(vessel, day, HOURS_PER_DAY * day, values, at or self._now())

    async def _publish_day(self, number: int, *, keep: bool = True) -> None:
        """Show the samples of a number, which are those of a day where there is one a day."""
        at = self._sampled_at[number]
        for vessel in range(len(self.rack.ids)):
            sample = self.rack.sample(vessel, number)
            values = {**sample.values, **sample.stream_totals}
            await self._display.sample(vessel, sample.day, sample.time_h, values, at, keep=keep)

    async def _refresh(self) -> None:
        await self._display.refresh(self.rack, self._now(), is_running=self.clock.is_running)

    # ---------------------------------------------------------------- set-points and state

    def _volume(self, vessel: int) -> float:
        """Volume in a vessel [L]; racks whose volumes move say it of each."""
        volume_of = getattr(self.rack, "volume_of", None)
        return self.rack.volume_L if volume_of is None else volume_of(vessel)

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
        if self._state_path is not None:
            save_rack(self._state_path, self.rack, self._sampled_at)

    def _restore(self) -> None:
        if self._state_path is None or not self._state_path.exists():
            return
        first = [self.rack.controls(i) for i in range(len(self.rack.ids))]
        self._sampled_at = restore_rack(self._state_path, self.rack)
        if self._reset:
            for vessel, controls in enumerate(first):
                held = self._shows[vessel].controls
                self.rack.set_controls(vessel, {n: controls[n] for n in held})


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
