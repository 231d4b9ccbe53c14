"""Connector to reactors behind an OPC UA server."""

import contextlib
import datetime as dt
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlparse

from asyncua import ua
from pydantic import SecretStr

from perfusio_jax._core import (
    HOURS_PER_DAY,
    ConfigError,
    ConnectorError,
    GateError,
    PerfusioError,
)
from perfusio_jax.connectors.base import (
    BioreactorConnectorBase,
    Reading,
    SampleRecord,
    check_setpoints,
)
from perfusio_jax.connectors.opcua.client_security import ClientSecurity
from perfusio_jax.connectors.opcua.directory import CLOCK, Directory
from perfusio_jax.connectors.opcua.link import Link
from perfusio_jax.connectors.opcua.names import HEARTBEAT
from perfusio_jax.connectors.opcua.nodes import NodeMap
from perfusio_jax.connectors.opcua.records import Recorder, ReplayConnector, line_of
from perfusio_jax.connectors.opcua.samples import Sampling
from perfusio_jax.connectors.opcua.session import Session
from perfusio_jax.connectors.opcua.values import aware, grid_of, plain
from perfusio_jax.connectors.opcua.watch import Watch
from perfusio_jax.connectors.opcua.writing import check_arrived, send
from perfusio_jax.process import Process
from perfusio_jax.twin.decision.cadence import Cadence

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_STATE: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State)
_START: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_StartTime)


class OPCUAConnector(BioreactorConnectorBase):
    """Reads and, if allowed, sets a reactor behind an OPC UA server.

    Every value carries the server's status as quality and its source time. A daily sample is
    the group of species, totals and `sample_day`; a day that has passed is read from the
    server's history. Nodes are found anew after every reconnect, so that a server may come back
    with its namespaces in another order.

    Args:
        url: `opc.tcp://host:port/path`; no user or password in it.
        node_map: Node id or browse path by species, tag, total or control, or a TOML file of
            them; see `docs/opcua.md`.
        username: User, if the server wants one.
        password: Its password; better in `PERFUSIO_OPCUA_PASSWORD`.
        cert_path: Own certificate (DER or PEM). With one, only SignAndEncrypt is spoken, and
            we call ourselves by the application URI in it.
        replay_log: Play this recording instead of connecting.
        max_retries: Further attempts of one call when the connection fails.
        retry_delay_s: Pause before the first of them [s]; it doubles with each.
        private_key_path: Private key of the certificate (PEM, readable by its owner only).
        server_cert_path: The server's certificate; without it, the first one seen is kept to.
        server_cert_allow: What may be wrong with the server's certificate: "expired",
            "not_yet_valid", "foreign_host"; by itself nothing.
        security_policy: "Basic256Sha256", "Aes128_Sha256_RsaOaep" or "Aes256_Sha256_RsaPss".
        allow_write: Whether set-points may be written at all.
        allow_insecure: Let a password, or set-points to another machine, travel unprotected.
        record_to: File every value read or written is appended to.
        reactor_id: Name of the vessel, for records and for `{reactor_id}` in the node map.
        acceleration: Culture time over real time at the source; 1 for real reactors.
        sample_slack_s: How far [s] a value's source time may lie from that of `sample_day` and
            still belong to that sample; half a culture day by default.
        stamp_means: What a source time says: when the value was "measured", when it last
            "changed" (an older one is then an unchanged value, not a stale one), or when it was
            "read" from the device (it then says nothing about the sample).
        heartbeat_timeout_s: How long [s] a heartbeat may stand still before the device counts
            as dead.
        timeout_s: How long one step may take [s].
        patience_s: How long one call may take in all [s].
        now: Source of time stamps.
        process: The culture, where it is another than CHO perfusion: samples and set-points have
            its names and units. A device that says it has another one is refused with the
            differences, whatever is asked of it.

    Raises:
        ConfigError: For a node map or settings that make no sense or are not safe.

    Examples:
        >>> connector = OPCUAConnector(
        ...     url="opc.tcp://localhost:4840",
        ...     node_map={"VCD": "ns=2;s=VCD", "Glc": "ns=2;s=Glucose"},
        ... )
        >>> connector.allow_write
        False
    """

    def __init__(
        self,
        url: str,
        node_map: Mapping[str, Any] | NodeMap | Path | str,
        username: str | None = None,
        password: str | None = None,
        cert_path: Path | str | None = None,
        replay_log: Path | str | None = None,
        max_retries: int = 5,
        retry_delay_s: float = 2.0,
        *,
        private_key_path: Path | str | None = None,
        server_cert_path: Path | str | None = None,
        server_cert_allow: Sequence[str] = (),
        security_policy: str = "Basic256Sha256",
        allow_write: bool = False,
        allow_insecure: bool = False,
        record_to: Path | str | None = None,
        reactor_id: str | None = None,
        acceleration: float = 1.0,
        sample_slack_s: float | None = None,
        stamp_means: str = "measured",
        heartbeat_timeout_s: float = 10.0,
        timeout_s: float = 5.0,
        patience_s: float = 20.0,
        now: Callable[[], dt.datetime] | None = None,
        process: Process | None = None,
    ) -> None:
        if isinstance(node_map, Path | str):
            node_map = NodeMap.load(node_map, reactor_id=reactor_id, process=process)
        elif not isinstance(node_map, NodeMap):
            node_map = NodeMap(node_map, process=process)
        elif process is not None and node_map.process != process:
            raise ConfigError(
                f"the node map is not of {process.name}; NodeMap(..., process=process) makes one."
            )
        self.node_map = node_map
        if not (math.isfinite(acceleration) and acceleration > 0):
            raise ConfigError(f"acceleration is {acceleration}; it must be above zero.")
        self._given_slack_s = None if sample_slack_s is None else float(sample_slack_s)
        slack_s = self._slack_s(HOURS_PER_DAY, acceleration)
        if not (slack_s >= 0 and heartbeat_timeout_s > 0):
            raise ConfigError("sample_slack_s and heartbeat_timeout_s must not be negative.")
        security = ClientSecurity(
            username=username,
            password=None if password is None else SecretStr(password),
            certificate=None if cert_path is None else Path(cert_path),
            key=None if private_key_path is None else Path(private_key_path),
            server_certificate=None if server_cert_path is None else Path(server_cert_path),
            allow_insecure=allow_insecure,
            policy=security_policy,
            allowed=tuple(server_cert_allow),
        )
        self._link = Link(
            url,
            security=security,
            timeout_s=timeout_s,
            max_retries=max_retries,
            retry_delay_s=retry_delay_s,
            patience_s=patience_s,
        )
        is_here = urlparse(url).hostname in ("127.0.0.1", "localhost", "::1")
        if allow_write and not (security.is_secure or is_here or allow_insecure):
            raise ConfigError(
                "set-points would travel to another machine unprotected; give cert_path and "
                "private_key_path, or allow_insecure=True."
            )
        self.url = url
        self.allow_write = bool(allow_write)
        self.reactor_id = reactor_id
        self.acceleration = float(acceleration)
        self._heartbeat_timeout_s = float(heartbeat_timeout_s)
        self._beat: tuple[Any, float] | None = None
        self._directory = Directory(url, self.node_map)
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._sampling = Sampling(
            self._directory,
            reactor_id=reactor_id,
            acceleration=self.acceleration,
            slack_s=slack_s,
            stamp_means=stamp_means,
            now=self._now,
        )
        self._recorder = None if record_to is None else Recorder(record_to)
        self._replay = None
        if replay_log is not None:
            names = {ref.text: name for name, ref in self.node_map.items()}
            self._replay = ReplayConnector(replay_log, names, process=self.node_map.process)

    def __repr__(self) -> str:
        return (
            f"OPCUAConnector({self.url!r}, reactor_id={self.reactor_id!r}, "
            f"{len(self.node_map)} nodes, allow_write={self.allow_write})"
        )

    def _slack_s(self, interval_h: float, acceleration: float) -> float:
        half = 0.5 * interval_h * 3600.0 / acceleration
        return half if self._given_slack_s is None else self._given_slack_s

    def sample_every(self, interval_h: float) -> None:
        """Count in steps of an interval; where a day holds several, `sample_time_h` is needed.

        Args:
            interval_h: Time between two samples [h].

        Raises:
            ConfigError: If nobody samples at this interval, or nothing maps `sample_time_h`.
        """
        if self._replay is not None:
            self._replay.sample_every(interval_h)
            return
        slack_s = self._slack_s(min(interval_h, HOURS_PER_DAY), self.acceleration)
        self._sampling.every(Cadence(interval_h), slack_s)
        self._directory.interval_h = interval_h

    async def check_culture(self) -> None:
        """Refuse a device that says it has another culture, or is sampled at other times.

        Raises:
            ConfigError: Naming in what they differ.
            ConnectorError: If the server cannot be reached.
        """
        if self._replay is None:
            await self._link.run(self._directory.resolved)

    # ---------------------------------------------------------------- life

    async def is_alive(self) -> bool:
        """Whether the server answers, says that it runs, and its heartbeat beats."""
        if self._replay is not None:
            return await self._replay.is_alive()
        try:
            return await self._link.run(self._look, max_retries=0)
        except PerfusioError:
            return False

    async def _look(self, session: Session) -> bool:
        nodes = await self._directory.resolved(session)
        beat = nodes.found.get(HEARTBEAT)
        state, *rest = await session.read([_STATE, *([beat.id] if beat else [])])
        if plain(state) != ua.ServerState.Running:
            return False
        if not rest:
            return True
        count, now = plain(rest[0]), time.monotonic()
        if count is None:
            return False
        if self._beat is None or self._beat[0] != count:
            self._beat = (count, now)
        return now - self._beat[1] <= self._heartbeat_timeout_s

    async def close(self) -> None:
        """Disconnect; the next call connects anew. Closing twice does nothing."""
        await self._link.close()

    async def disconnect(self) -> None:
        """Disconnect from the server; the same as `close`."""
        await self.close()

    # ---------------------------------------------------------------- nodes

    async def missing_nodes(self) -> dict[str, str]:
        """Names of the node map that the server does not have, with the reason.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        nodes = await self._link.run(self._directory.resolved)
        return dict(nodes.absent)

    # ---------------------------------------------------------------- samples

    async def read_sample(self, day: float) -> dict[str, float | None]:
        """Sample of one culture day.

        Args:
            day: Culture day [d]; a fraction where samples come between the days.

        Returns:
            Value per species of the node map; None where nothing usable was measured.

        Raises:
            SampleNotReady: If it is not there yet.
            ConnectorError: If the server cannot be reached.
            DataError: If the day is none, or has passed and the server keeps no history.
        """
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: float) -> SampleRecord:
        """Sample of one culture day with quality and source time of every value.

        Args:
            day: Culture day [d].

        Raises:
            SampleNotReady: If it is not there yet.
            ConnectorError: If the server cannot be reached.
            DataError: If the day is none, or has passed and the server keeps no history.
        """
        day = self._sampling.asked(day)
        if self._replay is not None:
            return await self._replay.read_record(int(day))
        record = await self._link.run(lambda session: self._sampling.record(session, day))
        if self._recorder is not None:
            names = [*record.values, *record.tags, *record.stream_totals, *record.controls]
            await self._recorder.write(
                line_of("sample", n, record.reading(n), node=self.node_map[n].text, day=record.day)
                for n in names
            )
        return record

    @property
    def _vessel(self) -> str:
        return self.reactor_id or self.url

    async def days_available(self) -> Sequence[float]:
        """Culture days [d] whose samples the server shows or has in its history.

        Raises:
            ConnectorError: If the server cannot be reached, or nothing maps `sample_day`.
            DataError: If what that shows is no day.
        """
        if self._replay is not None:
            return await self._replay.days_available()

        return await self._link.run(self._sampling.days_available)

    # ---------------------------------------------------------------- tags and clock

    async def read_tags(self) -> dict[str, Reading]:
        """Online tags now, with quality and source time.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        if self._replay is not None:
            return await self._replay.read_tags()
        words = self.node_map.words
        tags = [n for n in words.tags if n not in self.node_map.grouped] + [*words.online]
        readings = await self._read_now(n for n in tags if n in self.node_map)
        await self._note("tag", readings)
        return readings

    async def read_clock(self) -> dt.datetime | None:
        """What time it is for the server.

        Raises:
            ConnectorError: If it cannot be reached or does not say.
        """
        if self._replay is not None:
            return None

        async def look(session: Session) -> dt.datetime:
            (value,) = await session.read([CLOCK])
            now = plain(value)
            if not isinstance(now, dt.datetime):
                raise ConnectorError(f"{self.url} does not say what time it is.")
            return aware(now)

        return await self._link.run(look)

    async def read_start(self) -> dt.datetime | None:
        """When the server started.

        Raises:
            ConnectorError: If it cannot be reached.
        """
        if self._replay is not None:
            return None

        async def look(session: Session) -> dt.datetime | None:
            (value,) = await session.read([_START])
            found = plain(value)
            return aware(found) if isinstance(found, dt.datetime) else None

        return await self._link.run(look)

    async def _read_now(self, names: Iterable[str]) -> dict[str, Reading]:
        wanted = list(names)
        if not wanted:
            return {}
        seen = await self._link.run(lambda session: self._directory.read(session, wanted))
        at = self._now()
        return {
            n: seen.reading(n, at) if n in seen.values else Reading(None, "missing", None, at)
            for n in wanted
        }

    async def _note(self, kind: str, readings: Mapping[str, Reading]) -> None:
        if self._recorder is not None:
            await self._recorder.write(
                line_of(kind, n, r, node=self.node_map[n].text) for n, r in readings.items()
            )

    # ---------------------------------------------------------------- set-points

    async def read_grids(self) -> dict[str, tuple[float, float]]:
        """Step and origin of each control whose node says them: whole numbers, `ValuePrecision`.

        They are looked at anew: a device may be told another precision while it is connected.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        if self._replay is not None:
            return {}
        nodes = await self._link.run(lambda s: self._directory.resolved(s, is_anew=True))
        here = {n: nodes.found[n] for n in self.node_map.controls if n in nodes.found}
        grids = {name: grid_of(name, node, self.node_map.words) for name, node in here.items()}
        return {name: grid for name, grid in grids.items() if grid is not None}

    async def read_setpoints(self) -> dict[str, float]:
        """Set-points in force; what the server does not vouch for is left out.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        found = await self.read_back()
        return {n: r.value for n, r in found.items() if r.value is not None}

    async def read_back(self) -> dict[str, Reading]:
        """Set-points in force with quality and the time they were set.

        Raises:
            ConnectorError: If the server cannot be reached, or no control is mapped.
        """
        if self._replay is not None:
            return await self._replay.read_back()
        if not self.node_map.controls:
            raise ConnectorError(f"{self._vessel}: the node map has no controls to read back.")
        readings = await self._read_now(self.node_map.controls)
        await self._note("read_back", readings)
        return readings

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        """Write set-points and read them back; never tried twice.

        All are written in one request, each in the type and unit of its node.

        Args:
            setpoints: Value per control, in canonical units.

        Raises:
            PermissionError: If this connector was made with `allow_write=False`.
            DataError: If a name is not a mapped control, or a value is not finite, outside the
                node's range or not of its type; nothing was sent.
            ConnectorError: If the server refuses one, cannot be reached, or shows another value
                afterwards; whether some were set is to be settled by reading back.
        """
        if not self.allow_write:
            raise GateError(
                f"{self._vessel}: this connector only reads; allow_write=True lets it write."
            )
        wanted = check_setpoints(setpoints, self.node_map.controls)
        if self._replay is not None:
            await self._replay.write_setpoints(wanted)
            return

        # Reading may be tried again; what follows may not, so the line is tried out first.
        await self._link.run(lambda session: self._directory.read(session, wanted))
        sent = await self._link.run(
            lambda session: send(session, self._directory, wanted, self._vessel),
            is_repeatable=False,
        )
        await self._note(
            "write", {n: Reading(v, read_at=self._now(), status="sent") for n, v in wanted.items()}
        )
        back = await self._read_now(wanted)
        await self._note("read_back", back)
        check_arrived(sent, wanted, back, self._vessel, self.node_map.words)

    # ---------------------------------------------------------------- subscription

    async def stream(
        self, names: Sequence[str] | None = None, *, period_s: float = 1.0, queue_size: int = 64
    ) -> AsyncIterator[tuple[str, Reading]]:
        """Values as the server reports their changes, over reconnects, until abandoned.

        After a reconnect each value is reported once more if it has changed meanwhile; what
        changed more than once while the line was down is in the server's history only. A line
        that cannot be restored within the patience of one call ends with an error.

        Args:
            names: Names of the node map; all by default.
            period_s: How often the server looks and reports [s].
            queue_size: Changes per node the server keeps between two reports.

        Yields:
            Name and reading.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        watch = Watch(
            self._link,
            self._directory,
            list(names or self.node_map),
            vessel=self._vessel,
            period_s=period_s,
            queue_size=queue_size,
            now=self._now,
        )
        async with contextlib.aclosing(watch.changes()) as changes:
            async for change in changes:
                yield change
