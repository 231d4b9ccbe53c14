"""Connector to reactors behind an OPC UA server."""

import datetime as dt
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlparse

from asyncua import ua
from asyncua.common.subscription import DataChangeEvent, StatusChangeEvent
from pydantic import SecretStr

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    HOURS_PER_DAY,
    REGISTRY,
    STREAM_TOTALS,
    ConfigError,
    ConnectorError,
    DataError,
    GateError,
)
from perfusio_jax.connectors.base import (
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
    check_setpoints,
)
from perfusio_jax.connectors.opcua_link import ClientSecurity, Link, Session
from perfusio_jax.connectors.opcua_names import (
    EXTRA,
    GROUPED,
    HEARTBEAT,
    SAMPLE_DAY,
    SAMPLE_TIME,
    SPECIAL,
)
from perfusio_jax.connectors.opcua_nodes import NodeMap, typed
from perfusio_jax.connectors.opcua_records import Recorder, ReplayConnector, line_of
from perfusio_jax.connectors.opcua_values import (
    Node,
    aware,
    foreign_unit,
    has_arrived,
    plain,
    range_of,
    reading_of,
    time_of,
    to_node_unit,
    unit_text,
    variant_type,
)

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_CLOCK: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)
_STATE: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State)
_GONE: Final = frozenset((ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid))
_NO_HISTORY: Final = "the server keeps no history"


class Nodes(NamedTuple):
    """Nodes of the map on the server connected now."""

    namespaces: Mapping[str, int]
    found: Mapping[str, Node]
    absent: Mapping[str, str]
    """Why a node was not found, by name."""


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
        cert_path: Own certificate (DER or PEM). With one, only Basic256Sha256 with
            SignAndEncrypt is spoken.
        replay_log: Play this recording instead of connecting.
        max_retries: Further attempts of one call when the connection fails.
        retry_delay_s: Pause before the first of them [s]; it doubles with each.
        private_key_path: Private key of the certificate (PEM, readable by its owner only).
        server_cert_path: The server's certificate; without it, the first one seen is kept to.
        allow_write: Whether set-points may be written at all.
        allow_insecure: Let a password, or set-points to another machine, travel unprotected.
        record_to: File every value read or written is appended to.
        reactor_id: Name of the vessel, for records and for `{reactor_id}` in the node map.
        acceleration: Culture time over real time at the source; 1 for real reactors.
        sample_slack_s: How far [s] a value's source time may lie from that of `sample_day` and
            still belong to that sample; half a culture day by default.
        heartbeat_timeout_s: How long [s] a heartbeat may stand still before the device counts
            as dead.
        timeout_s: How long one step may take [s].
        patience_s: How long one call may take in all [s].
        now: Source of time stamps.

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
        allow_write: bool = False,
        allow_insecure: bool = False,
        record_to: Path | str | None = None,
        reactor_id: str | None = None,
        acceleration: float = 1.0,
        sample_slack_s: float | None = None,
        heartbeat_timeout_s: float = 10.0,
        timeout_s: float = 5.0,
        patience_s: float = 20.0,
        now: Callable[[], dt.datetime] | None = None,
    ) -> None:
        if isinstance(node_map, Path | str):
            node_map = NodeMap.load(node_map, reactor_id=reactor_id)
        self.node_map = node_map if isinstance(node_map, NodeMap) else NodeMap(node_map)
        if not (math.isfinite(acceleration) and acceleration > 0):
            raise ConfigError(f"acceleration is {acceleration}; it must be above zero.")
        half_a_day = 0.5 * HOURS_PER_DAY * 3600.0 / acceleration
        self._slack_s = half_a_day if sample_slack_s is None else float(sample_slack_s)
        if not (self._slack_s >= 0 and heartbeat_timeout_s > 0):
            raise ConfigError("sample_slack_s and heartbeat_timeout_s must not be negative.")
        security = ClientSecurity(
            username=username,
            password=None if password is None else SecretStr(password),
            certificate=None if cert_path is None else Path(cert_path),
            key=None if private_key_path is None else Path(private_key_path),
            server_certificate=None if server_cert_path is None else Path(server_cert_path),
            allow_insecure=allow_insecure,
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
        self._nodes: Nodes | None = None
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._recorder = None if record_to is None else Recorder(record_to)
        self._replay = None
        if replay_log is not None:
            names = {ref.text: name for name, ref in self.node_map.items()}
            self._replay = ReplayConnector(replay_log, names)

    def __repr__(self) -> str:
        return (
            f"OPCUAConnector({self.url!r}, reactor_id={self.reactor_id!r}, "
            f"{len(self.node_map)} nodes, allow_write={self.allow_write})"
        )

    # ---------------------------------------------------------------- life

    async def is_alive(self) -> bool:
        """Whether the server answers, says that it runs, and its heartbeat beats."""
        if self._replay is not None:
            return await self._replay.is_alive()
        try:
            return await self._link.run(self._look, max_retries=0)
        except (ConnectorError, DataError):
            return False

    async def _look(self, session: Session) -> bool:
        nodes = await self._resolved(session)
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

    async def _resolved(self, session: Session) -> Nodes:
        """Nodes of the map, found once per connection or change of namespaces."""
        held = self._nodes
        if held is not None and held.namespaces == session.namespaces:
            return held
        found: dict[str, ua.NodeId] = {}
        absent: dict[str, str] = {}
        for name, node in (await session.resolve(list(self.node_map.values()))).items():
            if isinstance(node, str):
                absent[name] = node
            else:
                found[name] = node
        names = list(found)
        ids = list(found.values())
        types = await session.read(ids, ua.AttributeIds.DataType)
        values = await session.read(ids)
        units = await session.properties(ids, "EngineeringUnits")
        ranges = await session.properties(ids, "EURange")
        nodes: dict[str, Node] = {}
        for name, node, kind, value, unit, limits in zip(
            names, ids, types, values, units, ranges, strict=True
        ):
            if kind.StatusCode is not None and kind.StatusCode.value in _GONE:
                absent[name] = f"nothing is there ({kind.StatusCode.name})"
                continue
            own = self.node_map[name].unit or unit_text(unit)
            nodes[name] = Node(
                node, variant_type(kind, value), foreign_unit(name, own), range_of(limits)
            )
        if not nodes:
            raise ConnectorError(
                f"{self.url} has none of the nodes of the node map; {next(iter(absent))}: "
                f"{next(iter(absent.values()))}."
            )
        self._nodes = Nodes(dict(session.namespaces), nodes, absent)
        return self._nodes

    async def _read(
        self, session: Session, names: Iterable[str], *extra: ua.NodeId
    ) -> tuple[dict[str, ua.DataValue], list[ua.DataValue]]:
        """Values by name, in one request, and those of nodes beside the map."""
        for attempt in (1, 2):
            nodes = await self._resolved(session)
            known = [name for name in names if name in nodes.found]
            values = await session.read([*(nodes.found[n].id for n in known), *extra])
            gone = any(
                v.StatusCode is not None and v.StatusCode.value in _GONE
                for v in values[: len(known)]
            )
            if not gone or attempt == 2:
                break
            self._nodes = None  # the address space has changed under us: look again
        return dict(zip(known, values[: len(known)], strict=True)), values[len(known) :]

    def _reading(self, name: str, value: ua.DataValue, at: dt.datetime) -> Reading:
        nodes = self._nodes
        node = None if nodes is None else nodes.found.get(name)
        return reading_of(value, at, name=name, unit=None if node is None else node.unit)

    async def missing_nodes(self) -> dict[str, str]:
        """Names of the node map that the server does not have, with the reason.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        nodes = await self._link.run(self._resolved)
        return dict(nodes.absent)

    # ---------------------------------------------------------------- samples

    async def read_sample(self, day: int) -> dict[str, float | None]:
        """Sample of one culture day.

        Args:
            day: Culture day [d].

        Returns:
            Value per species of the node map; None where nothing usable was measured.

        Raises:
            SampleNotReady: If it is not there yet.
            ConnectorError: If the server cannot be reached.
            DataError: If the day is none, or has passed and the server keeps no history.
        """
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: int) -> SampleRecord:
        """Sample of one culture day with quality and source time of every value.

        Args:
            day: Culture day [d].

        Raises:
            SampleNotReady: If it is not there yet.
            ConnectorError: If the server cannot be reached.
            DataError: If the day is none, or has passed and the server keeps no history.
        """
        if day < 0 or day != int(day):
            raise DataError(f"day {day} is not a culture day; days are whole numbers from 0.")
        if self._replay is not None:
            return await self._replay.read_record(int(day))
        record = await self._link.run(lambda session: self._record(session, int(day)))
        if self._recorder is not None:
            names = [*record.values, *record.tags, *record.stream_totals, *record.controls]
            await self._recorder.write(
                line_of("sample", n, record.reading(n), node=self.node_map[n].text, day=record.day)
                for n in names
            )
        return record

    async def _record(self, session: Session, day: int) -> SampleRecord:
        for attempt in (1, 2):
            names = [n for n in self.node_map if n not in SPECIAL and not n.startswith(EXTRA)]
            special = [n for n in (SAMPLE_DAY, SAMPLE_TIME) if n in self.node_map]
            values, (clock,) = await self._read(session, [*names, *special], _CLOCK)
            at = self._now()
            shown = values.get(SAMPLE_DAY)
            if SAMPLE_DAY in self.node_map and shown is None:
                raise ConnectorError(
                    f"{self.url}: sample_day: {self._absent(SAMPLE_DAY)}; without it nobody "
                    "knows which day the values are of."
                )
            if shown is None:
                return self._as_record(day, values, None, plain(clock), at, [])
            current = plain(shown)
            if isinstance(current, bool) or not isinstance(current, int) or current < 0:
                raise SampleNotReady(f"{self._vessel}: there is no sample yet.")
            if day > current:
                raise SampleNotReady(
                    f"{self._vessel}: the sample of day {day} is not there yet; the last is of "
                    f"day {current}."
                )
            if day < current:
                return await self._past(session, day, plain(clock), at)
            due = time_of(shown)
            if attempt == 1 and due is not None and self._is_mixed(values, due):
                continue  # read in the middle of the next sample's coming
            return self._as_record(day, values, due, plain(clock), at, [])
        raise ConnectorError(f"{self._vessel}: day {day} could not be read.")

    def _is_mixed(self, values: Mapping[str, ua.DataValue], due: dt.datetime) -> bool:
        late = dt.timedelta(seconds=self._slack_s)
        times = [time_of(values[n]) for n in GROUPED if n in values]
        return any(t is not None and t > due + late for t in times)

    async def _past(self, session: Session, day: int, clock: Any, at: dt.datetime) -> SampleRecord:
        """A day that is no longer shown, from the history of its nodes."""
        due = dict(await self._days(session)).get(day)
        if due is None:
            raise DataError(
                f"{self._vessel}: the sample of day {day} is no longer shown and not in the "
                "server's history."
            )
        nodes = await self._resolved(session)
        names = [n for n in (*GROUPED, SAMPLE_TIME) if n in nodes.found]
        slack = dt.timedelta(seconds=self._slack_s)
        ids = [nodes.found[n].id for n in names]
        found = await session.history(ids, due - slack, due + slack)
        values = {}
        for name, past in zip(names, found, strict=True):
            if isinstance(past, list) and past:
                values[name] = min(past, key=lambda v: abs((time_of(v) or due) - due))
        notes = [f"day {day} was read from the server's history"]
        return self._as_record(day, values, due, clock, at, notes)

    async def _days(self, session: Session) -> list[tuple[int, dt.datetime]]:
        """Days in the history of `sample_day` and when each was sampled."""
        nodes = await self._resolved(session)
        if SAMPLE_DAY not in nodes.found:
            raise ConnectorError(
                f"{self._vessel}: without a node for sample_day nobody knows which days there are."
            )
        start = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
        end = self._now() + dt.timedelta(days=1)
        (past,) = await session.history([nodes.found[SAMPLE_DAY].id], start, end)
        if not isinstance(past, list):
            raise DataError(f"{self._vessel}: {_NO_HISTORY} of sample_day ({past.name}).")
        days = {}
        for value in past:
            day, when = plain(value), time_of(value)
            if isinstance(day, int) and day >= 0 and when is not None:
                days[day] = when
        return sorted(days.items())

    def _as_record(
        self,
        day: int,
        values: Mapping[str, ua.DataValue],
        due: dt.datetime | None,
        clock: Any,
        at: dt.datetime,
        notes: Sequence[str],
    ) -> SampleRecord:
        remarks = list(notes)
        readings: dict[str, Reading] = {}
        for name in self.node_map:
            if name in SPECIAL or name.startswith(EXTRA):
                continue
            if name not in values:
                if name in REGISTRY:
                    readings[name] = Reading(None, "missing", None, at)
                    remarks.append(f"{name}: {self._absent(name)}")
                continue
            reading = self._reading(name, values[name], at)
            if name in GROUPED and due is not None and reading.source_time is not None:
                off_s = (reading.source_time - due).total_seconds()
                if abs(off_s) > self._slack_s:
                    when = "older" if off_s < 0 else "newer"
                    remarks.append(f"{name} is {abs(off_s):.0f} s {when} than the sample")
                    reading = Reading(None, "missing", reading.source_time, at, "OtherSample")
            if reading.quality in ("bad", "uncertain"):
                remarks.append(f"{name}: {reading.status}")
            readings[name] = reading

        def pick(names: Iterable[str]) -> dict[str, float | None]:
            return {n: readings[n].value for n in names if n in readings}

        hours = plain(values[SAMPLE_TIME]) if SAMPLE_TIME in values else None
        is_time = isinstance(hours, Real) and math.isfinite(hours)
        newest = due
        if newest is None:
            times = [readings[n].source_time for n in REGISTRY if n in readings]
            newest = max((t for t in times if t is not None), default=None)
        server_now = clock if isinstance(clock, dt.datetime) else at
        age_h = None
        if newest is not None:
            age_h = (aware(server_now) - newest).total_seconds() / 3600.0 * self.acceleration
        shown = {n: r for n, r in readings.items() if n != "volume_L"}
        volume = readings.get("volume_L")
        return SampleRecord(
            day=day,
            time_h=float(hours) if is_time else HOURS_PER_DAY * day,  # pyright: ignore
            values=pick(REGISTRY),
            quality={n: r.quality for n, r in shown.items()},
            reactor_id=self.reactor_id,
            age_h=age_h,
            stream_totals=pick(STREAM_TOTALS),
            controls=pick(self.node_map.controls),
            tags=pick(AUXILIARY_TAGS),
            volume_L=None if volume is None else volume.value,
            notes=tuple(remarks),
            source_times={n: r.source_time for n, r in shown.items() if r.source_time is not None},
            read_at=at,
        )

    def _absent(self, name: str) -> str:
        reason = None if self._nodes is None else self._nodes.absent.get(name)
        return reason or "the server has no such node"

    @property
    def _vessel(self) -> str:
        return self.reactor_id or self.url

    async def days_available(self) -> list[int]:
        """Culture days [d] whose samples the server shows or has in its history.

        Raises:
            ConnectorError: If the server cannot be reached, or nothing maps `sample_day`.
        """
        if self._replay is not None:
            return await self._replay.days_available()

        async def look(session: Session) -> list[int]:
            try:
                return [day for day, _ in await self._days(session)]
            except DataError:
                values, _ = await self._read(session, [SAMPLE_DAY])
                day = plain(values[SAMPLE_DAY]) if SAMPLE_DAY in values else None
                return [day] if isinstance(day, int) and day >= 0 else []

        return await self._link.run(look)

    # ---------------------------------------------------------------- tags and clock

    async def read_tags(self) -> dict[str, Reading]:
        """Online tags now, with quality and source time.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        if self._replay is not None:
            return await self._replay.read_tags()
        readings = await self._read_now(n for n in AUXILIARY_TAGS if n in self.node_map)
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
            (value,) = await session.read([_CLOCK])
            now = plain(value)
            if not isinstance(now, dt.datetime):
                raise ConnectorError(f"{self.url} does not say what time it is.")
            return aware(now)

        return await self._link.run(look)

    async def _read_now(self, names: Iterable[str]) -> dict[str, Reading]:
        wanted = list(names)
        if not wanted:
            return {}
        values, _ = await self._link.run(lambda session: self._read(session, wanted))
        at = self._now()
        return {
            n: self._reading(n, values[n], at)
            if n in values
            else Reading(None, "missing", None, at)
            for n in wanted
        }

    async def _note(self, kind: str, readings: Mapping[str, Reading]) -> None:
        if self._recorder is not None:
            await self._recorder.write(
                line_of(kind, n, r, node=self.node_map[n].text) for n, r in readings.items()
            )

    # ---------------------------------------------------------------- set-points

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

        async def send(session: Session) -> list[tuple[str, Node, ua.Variant, ua.StatusCode]]:
            nodes = await self._resolved(session)
            gone = [name for name in wanted if name not in nodes.found]
            if gone:
                raise ConnectorError(f"{self._vessel}: {gone[0]}: {self._absent(gone[0])}.")
            prepared = []
            for name, value in wanted.items():
                node = nodes.found[name]
                local = value if node.unit is None else to_node_unit(name, value, node.unit)
                if node.limits is not None and not node.limits[0] <= local <= node.limits[1]:
                    raise DataError(
                        f"{self._vessel}: {name} {local:g} is outside what its device takes, "
                        f"{node.limits[0]:g} to {node.limits[1]:g}; nothing was sent."
                    )
                prepared.append((name, node, typed(name, local, node.kind)))
            statuses = await session.write(
                [n.id for _, n, _ in prepared], [v for *_, v in prepared]
            )
            return [(*p, status) for p, status in zip(prepared, statuses, strict=True)]

        # Reading may be tried again; what follows may not, so the line is tried out first.
        await self._link.run(lambda session: self._read(session, wanted))
        sent = await self._link.run(send, is_repeatable=False)
        refused = [
            f"{n} {wanted[n]:g} ({status.name})" for n, *_, status in sent if not status.is_good()
        ]
        await self._note(
            "write", {n: Reading(v, read_at=self._now(), status="sent") for n, v in wanted.items()}
        )
        back = await self._read_now(wanted)
        await self._note("read_back", back)
        if refused:
            raise ConnectorError(f"{self._vessel} refused {', '.join(refused)}.")
        for name, node, variant, _ in sent:
            shown = back[name].value
            if shown is None or not has_arrived(wanted[name], shown, variant, node):
                raise ConnectorError(
                    f"{self._vessel}: {name} was set to {wanted[name]:g} and reads back as "
                    f"{shown if shown is not None else back[name].status or 'nothing'}."
                )

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
        wanted = [n for n in (names or self.node_map)]
        last: dict[str, tuple[Any, Any]] = {}
        while True:
            session, subscription, by_id = await self._link.run(
                lambda s: self._subscribe(s, wanted, period_s, queue_size)
            )
            try:
                async for event in subscription:
                    if isinstance(event, StatusChangeEvent):
                        break  # the line is lost, or the server gave the subscription up
                    if not isinstance(event, DataChangeEvent):
                        continue
                    name = by_id[event.node.nodeid]
                    value = event.data.monitored_item.Value
                    mark = (value.SourceTimestamp, plain(value))
                    if mark[0] is not None and last.get(name) == mark:
                        continue
                    last[name] = mark
                    yield name, self._reading(name, value, self._now())
            finally:
                await self._link.forget(session, subscription)

    async def _subscribe(
        self, session: Session, names: Sequence[str], period_s: float, queue_size: int
    ) -> tuple[Session, Any, dict[ua.NodeId, str]]:
        nodes = await self._resolved(session)
        by_id = {nodes.found[n].id: n for n in names if n in nodes.found}
        if not by_id:
            raise ConnectorError(f"{self._vessel}: the server has none of {', '.join(names)}.")
        subscription = await session.client.create_subscription(
            period_s * 1000.0, queue_maxsize=max(10_000, queue_size * len(by_id))
        )
        subscribe: Any = subscription.subscribe_data_change
        items = [session.client.get_node(i) for i in by_id]
        await subscribe(
            items,
            queuesize=queue_size,
            sampling_interval=0.0,
        )
        return session, subscription, by_id
