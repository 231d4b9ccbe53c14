"""One OPC UA connection: made when needed, given a time-out at every call, remade when lost."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlparse

from asyncua import Client, ua
from asyncua.client.ua_client import UaClientState
from asyncua.crypto.uacrypto import CertProperties
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from perfusio_jax._core import AccessRefused, ConfigError, ConnectorError, PerfusioError
from perfusio_jax._core.text import in_line
from perfusio_jax.connectors.opcua.names import NAMESPACES
from perfusio_jax.connectors.opcua.nodes import NodeRef
from perfusio_jax.connectors.opcua.peers import (
    FAULTS,
    POLICIES,
    application_uri,
    certificate_offered,
    check_named,
    check_offers,
    check_peer,
    first_of,
    offers_of,
)
from perfusio_jax.connectors.opcua.refusals import hint, in_words, is_refusal
from perfusio_jax.connectors.opcua.security import (
    CLIENT_URI,
    check_key_file,
    check_validity,
    keep_credentials_out_of_logs,
    load_certificate,
    password_from_environment,
)

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_T = TypeVar("_T")
MAX_NODES: Final = 500
"""Most nodes of one request."""
LONGEST_PAUSE_S: Final = 60.0
"""Longest pause between two attempts [s]."""

_NO_PROPERTY: Final = frozenset(
    (
        ua.StatusCodes.BadNoMatch,
        ua.StatusCodes.BadNotFound,
        ua.StatusCodes.BadNodeIdUnknown,
        ua.StatusCodes.BadNodeIdInvalid,
    )
)
"""Answers that mean that a node, or its property, is not there."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClientSecurity:
    """How to connect; there is no falling back to less.

    Raises:
        ConfigError: If a certificate comes without its key, a key can be read by others, or a
            password would cross the network in the open.
    """

    username: str | None = None
    """User, if the server wants one."""
    password: SecretStr | None = None
    """From `PERFUSIO_OPCUA_PASSWORD` if not given."""
    certificate: Path | None = None
    """Own certificate; with one, only SignAndEncrypt with the policy will do."""
    key: Path | None = None
    """Private key of it."""
    server_certificate: Path | None = None
    """The only certificate a server may show; None: the first one seen is kept to."""
    allow_insecure: bool = False
    """Let a password cross the network in the open."""
    policy: str = "Basic256Sha256"
    """Security policy that is spoken, one of `POLICIES`."""
    allowed: tuple[str, ...] = ()
    """What may be wrong with the server's certificate, of `FAULTS`."""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(
                f"security_policy is {self.policy!r}; allowed are {', '.join(POLICIES)}."
            )
        unknown = [repr(fault) for fault in self.allowed if fault not in FAULTS]
        if unknown:
            raise ConfigError(
                f"server_cert_allow has {', '.join(unknown)}; allowed are {', '.join(FAULTS)}."
            )
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("cert_path and private_key_path belong together; give both.")
        if self.certificate is not None and self.key is not None:
            check_validity(self.certificate)
            check_key_file(self.key)
        elif self.server_certificate is not None:
            raise ConfigError("server_cert_path needs cert_path and private_key_path as well.")
        if self.server_certificate is not None:
            load_certificate(self.server_certificate)
        if self.password is not None and self.username is None:
            raise ConfigError("a password was given without a username.")
        if self.username is not None and self.certificate is None and not self.allow_insecure:
            raise ConfigError(
                "a username without certificates would send its password over an unprotected "
                "connection; give cert_path and private_key_path, or allow_insecure=True."
            )
        if self.username is not None and self.password is None:
            found = password_from_environment()
            if found is None:
                raise ConfigError(
                    f"user {self.username!r} needs a password; set PERFUSIO_OPCUA_PASSWORD."
                )
            object.__setattr__(self, "password", found)

    @property
    def is_secure(self) -> bool:
        """Whether the connection is signed and encrypted."""
        return self.certificate is not None


def numbered(uris: Sequence[str] | None) -> dict[str, int]:
    """Index of each namespace by URI; the standard's own is always there."""
    return {NAMESPACES["ua"]: 0} | {uri: index for index, uri in enumerate(uris or ())}


class Session:
    """A live connection with the namespaces of its server.

    Args:
        client: Connected.
        namespaces: Index by URI.
    """

    def __init__(self, client: Client, namespaces: Mapping[str, int]) -> None:
        self.client = client
        self.namespaces: Mapping[str, int] = namespaces
        self.finding = asyncio.Lock()
        """Held while nodes are looked for."""

    async def look_at_namespaces(self) -> None:
        """Ask for the namespaces again: a server may number them anew behind a line that stands."""
        (value,) = await self.read([ua.NodeId(ua.ObjectIds.Server_NamespaceArray)])
        self.namespaces = numbered(value.Value.Value if value.Value is not None else None)

    async def read(
        self, nodes: Sequence[ua.NodeId], attribute: int = ua.AttributeIds.Value
    ) -> list[ua.DataValue]:
        """Attributes of nodes, in one request for each `MAX_NODES`."""
        found: list[ua.DataValue] = []
        for start in range(0, len(nodes), MAX_NODES):
            part = list(nodes[start : start + MAX_NODES])
            found += await self.client.uaclient.read_attributes(part, attribute)
        if len(found) != len(nodes):
            raise ConnectorError(f"asked for {len(nodes)} values, the server sent {len(found)}.")
        return found

    async def write(
        self, nodes: Sequence[ua.NodeId], values: Sequence[ua.Variant]
    ) -> list[ua.StatusCode]:
        """Write values, one status code each."""
        wrapped = [ua.DataValue(Value=v) for v in values]
        return await self.client.uaclient.write_attributes(
            list(nodes), wrapped, ua.AttributeIds.Value
        )

    async def history(
        self, nodes: Sequence[ua.NodeId], start: Any, end: Any
    ) -> list[list[ua.DataValue] | ua.StatusCode]:
        """Past values of nodes, or why there are none."""
        found: list[list[ua.DataValue] | ua.StatusCode] = []
        for first in range(0, len(nodes), MAX_NODES):
            part = nodes[first : first + MAX_NODES]
            held: list[list[ua.DataValue] | ua.StatusCode] = [[] for _ in part]
            asked: list[tuple[int, bytes | None]] = [(i, None) for i in range(len(part))]
            while asked:  # a server may hand over long histories piece by piece
                params = ua.HistoryReadParameters(
                    HistoryReadDetails=ua.ReadRawModifiedDetails(
                        IsReadModified=False,
                        StartTime=start,
                        EndTime=end,
                        NumValuesPerNode=0,
                        ReturnBounds=False,
                    ),
                    TimestampsToReturn=ua.TimestampsToReturn.Both,
                    ReleaseContinuationPoints=False,
                    NodesToRead=[
                        ua.HistoryReadValueId(NodeId=part[i], ContinuationPoint=point)
                        for i, point in asked
                    ],
                )
                results = await self.client.uaclient.history_read(params)
                more = []
                for (i, _), result in zip(asked, results, strict=True):
                    if not result.StatusCode.is_good():
                        held[i] = result.StatusCode
                        continue
                    values = held[i]
                    if isinstance(values, list):
                        values += getattr(result.HistoryData, "DataValues", None) or []
                    if result.ContinuationPoint:
                        more.append((i, result.ContinuationPoint))
                asked = more
            found += held
        return found

    async def resolve(self, refs: Sequence[NodeRef]) -> dict[str, ua.NodeId | str]:
        """Node ids by name, or in their place a sentence on why there is none."""
        found: dict[str, ua.NodeId | str] = {}
        asked: list[tuple[str, ua.RelativePath]] = []
        for ref in refs:
            if ref.path is not None:
                try:
                    asked.append((ref.name, ref.path.relative(self.namespaces)))
                except KeyError as error:
                    found[ref.name] = f"the server has no namespace {error.args[0]}"
            elif ref.node is not None and ref.uri is not None:
                index = self.namespaces.get(ref.uri)
                found[ref.name] = (
                    f"the server has no namespace {ref.uri}"
                    if index is None
                    else ua.NodeId(ref.node.Identifier, index, ref.node.NodeIdType)
                )
            elif ref.node is not None:
                found[ref.name] = ref.node
        for start in range(0, len(asked), MAX_NODES):
            part = asked[start : start + MAX_NODES]
            results = await self.client.translate_browsepaths(
                ua.NodeId(ua.ObjectIds.ObjectsFolder), [path for _, path in part]
            )
            for (name, _), result in zip(part, results, strict=True):
                found[name] = (
                    result.Targets[0].TargetId
                    if result.StatusCode.is_good() and result.Targets
                    else f"nothing is there ({result.StatusCode.name})"
                )
        return found

    async def properties(
        self, nodes: Sequence[ua.NodeId], *names: str
    ) -> list[list[ua.NodeId | ua.StatusCode | None]]:
        """Where each node has standard properties, such as its unit and range, by property.

        None where it has none, and the status where the server does not tell.
        """
        paths = [
            ua.RelativePath(
                Elements=[
                    ua.RelativePathElement(
                        ReferenceTypeId=ua.NodeId(ua.ObjectIds.HasProperty),
                        IsInverse=False,
                        IncludeSubtypes=True,
                        TargetName=ua.QualifiedName(name, 0),
                    )
                ]
            )
            for name in names
        ]
        asked = [ua.BrowsePath(StartingNode=n, RelativePath=path) for path in paths for n in nodes]
        results: list[ua.BrowsePathResult] = []
        for start in range(0, len(asked), MAX_NODES):
            part = asked[start : start + MAX_NODES]
            results += await self.client.uaclient.translate_browsepaths_to_nodeids(part)
        found = [
            r.Targets[0].TargetId
            if r.Targets
            else None
            if r.StatusCode.is_good() or r.StatusCode.value in _NO_PROPERTY
            else r.StatusCode
            for r in results
        ]
        return [found[k * len(nodes) : (k + 1) * len(nodes)] for k in range(len(names))]


def check_url(url: str) -> None:
    """Refuse an address with anything in it that could be a secret; it is shown and recorded.

    Args:
        url: `opc.tcp://host:port/path`.

    Raises:
        ConfigError: If it holds a user, a password or a query, or is no such address; the message
            repeats none of them.
    """
    if "@" in url:  # also behind a `/`, which a password may hold
        raise ConfigError(
            "the url holds a user or password; give username apart and the password in "
            "PERFUSIO_OPCUA_PASSWORD."
        )
    if "?" in url or "#" in url:
        raise ConfigError(
            "the url holds a query (what follows '?' or '#'), which an OPC UA address has none "
            "of; a password belongs into PERFUSIO_OPCUA_PASSWORD."
        )
    place = ""
    try:
        parsed = urlparse(url)
        place = f"{parsed.scheme}://{parsed.hostname or ''}"  # no more: a port may be a password
        is_good = parsed.scheme == "opc.tcp" and bool(parsed.hostname)
        is_good = is_good and (parsed.port is None or parsed.port > 0)
    except ValueError:  # a port that is none, brackets that do not close
        is_good = False
    if not is_good or not url.isprintable() or " " in url:
        raise ConfigError(
            f"url begins with {in_line(place)} and cannot be used; it must be "
            "opc.tcp://host:port/path."
        )


class Link:
    """Keeps one connection and runs work over it.

    A call makes the connection if there is none. When it breaks, a new client is made and the
    work tried again, with a pause that doubles each time and goes on doubling over calls until
    one succeeds; work that changes something is never tried twice.

    Args:
        url: `opc.tcp://host:port/path`, without user or password.
        security: How to connect.
        timeout_s: How long one step may take [s].
        max_retries: Further attempts of one call.
        retry_delay_s: First pause [s].
        patience_s: How long one call may take in all before it gives up [s].

    Raises:
        ConfigError: For settings that make no sense.
    """

    def __init__(
        self,
        url: str,
        *,
        security: ClientSecurity,
        timeout_s: float,
        max_retries: int,
        retry_delay_s: float,
        patience_s: float,
    ) -> None:
        check_url(url)
        for name, value in (("timeout_s", timeout_s), ("patience_s", patience_s)):
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value}; it must be above 0 s.")
        if max_retries < 0 or not 0 <= retry_delay_s < float("inf"):
            raise ConfigError(f"max_retries {max_retries}, retry_delay_s {retry_delay_s}: below 0.")
        keep_credentials_out_of_logs()
        self.url, self.security = url, security
        self.timeout_s, self.patience_s = float(timeout_s), float(patience_s)
        self._max_retries, self._retry_delay_s = int(max_retries), float(retry_delay_s)
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._n_failed = self._n_failures = 0
        self._seen: bytes | None = None
        self.n_connections = 0
        """Connections made so far."""

    def __repr__(self) -> str:
        return f"Link({self.url!r}, secure={self.security.is_secure})"

    async def run(
        self,
        work: Callable[[Session], Awaitable[_T]],
        *,
        is_repeatable: bool = True,
        max_retries: int | None = None,
    ) -> _T:
        """Run work over a live connection.

        Args:
            work: What to do; its own errors of this library pass through.
            is_repeatable: Whether it may be tried again once it has begun.
            max_retries: Instead of the link's own.

        Raises:
            ConnectorError: If the server cannot be reached, does not answer in time or refuses.
        """
        retries = self._max_retries if max_retries is None else max_retries
        deadline = time.monotonic() + self.patience_s
        attempt = 0
        while True:
            session: Session | None = None
            failures = self._n_failures
            try:
                left = max(deadline - time.monotonic(), 0.05)
                session = await _within(left, self._connected(deadline))
                result = await self._step(work(session), deadline)
            except PerfusioError:
                raise
            except Exception as error:  # whatever the library below makes of a broken line
                trouble = in_words(error)
                await self._drop(session)
                if failures == self._n_failures:  # calls that fail together count once
                    self._n_failures += 1
                    self._n_failed += 1
                if session is not None and not is_repeatable:
                    raise ConnectorError(
                        f"{self.url}: {trouble}; whether it was done is unknown, read back."
                    ) from error
                pause = min(self._retry_delay_s * 2 ** min(self._n_failed - 1, 16), LONGEST_PAUSE_S)
                left = deadline - time.monotonic()
                if attempt >= retries or pause >= left:
                    raise ConnectorError(
                        f"{self.url}: {trouble} ({attempt + 1} attempts)."
                    ) from error
                _log.info("%s: %s; trying again in %.1f s", self.url, trouble, pause)
            else:
                self._n_failed = 0
                return result
            attempt += 1
            await _pause(pause)

    async def close(self) -> None:
        """Say goodbye to the server, if it listens, and let go."""
        session, self._session = self._session, None
        if session is None:
            return
        if self._loop is asyncio.get_running_loop():
            await _end(session.client, grace_s=min(2.0, self.timeout_s))

    async def forget(self, session: Session, subscription: Any) -> None:
        """End a subscription, if its connection still stands."""
        if session.client.state is UaClientState.CONNECTED:
            with contextlib.suppress(Exception):
                await _within(min(2.0, self.timeout_s), subscription.delete())

    async def _step(self, awaitable: Awaitable[_T], deadline: float) -> _T:
        left = max(deadline - time.monotonic(), 0.05)
        return await _within(min(self.timeout_s, left), awaitable)

    async def _connected(self, deadline: float) -> Session:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # its tasks ended with the loop they ran on
            self._session, self._loop, self._opening = None, loop, asyncio.Lock()
        async with self._opening:
            session = self._session
            if session is not None and session.client.state is UaClientState.CONNECTED:
                return session
            await self._drop(session)
            self._session = await self._open(deadline)
            self.n_connections += 1
            return self._session

    async def _open(self, deadline: float) -> Session:
        security = self.security
        client = Client(self.url, timeout=self.timeout_s, watchdog_intervall=self.timeout_s)
        own = None if security.certificate is None else load_certificate(security.certificate)
        client.application_uri = (own and application_uri(own)) or CLIENT_URI
        client.name = client.description = "perfusio-jax"
        client.session_timeout = 600_000
        if security.username is not None and security.password is not None:
            client.set_user(security.username)
            client.set_password(security.password.get_secret_value())
        try:
            if security.is_secure:
                await self._secure(client, deadline)
            await self._step(client.connect(), deadline)
            uris = await self._step(client.get_namespace_array(), deadline)
        except BaseException as error:
            await _end(client, grace_s=0.0)
            if is_refusal(error):
                raise AccessRefused(
                    f"{self.url} does not let us in: {in_words(error)}{hint(error, own)}."
                ) from error
            raise
        return Session(client, numbered(uris))

    async def _secure(self, client: Client, deadline: float) -> None:
        """Make sure of both ends, and have what goes between them signed and encrypted."""
        security, named = self.security, self.security.server_certificate
        try:
            check_validity(Path(security.certificate or ""))
        except ConfigError as error:  # it may have expired since the start
            raise AccessRefused(f"{self.url}: our own {error}") from error
        try:
            offers = await self._step(offers_of(self.url, self.timeout_s), deadline)
        except (OSError, TimeoutError, ua.UaError):
            if named is None:
                raise
            offers = []  # some do not say; the connection itself will tell
        check_offers(self.url, offers, security.policy)
        if named is None:
            peer = first_of(self.url, certificate_offered(offers, security.policy))
            self._check_seen(peer.public_bytes(Encoding.DER))
        else:
            peer = load_certificate(named)
            check_named(self.url, offers, peer, named.name)
        check_peer(self.url, peer, security.allowed)
        await self._step(
            client.set_security(
                POLICIES[security.policy],
                security.certificate or "",
                security.key or "",
                server_certificate=CertProperties(peer.public_bytes(Encoding.DER), "der"),
                mode=ua.MessageSecurityMode.SignAndEncrypt,
            ),
            deadline,
        )

    def _check_seen(self, shown: bytes) -> None:
        """Without a certificate to expect, the first one seen is the only one from then on."""
        if self._seen is None:
            self._seen = shown
        elif shown != self._seen:
            raise AccessRefused(
                f"{self.url} shows another certificate than before; if that is meant, restart "
                "this program or name it with server_cert_path."
            )

    async def _drop(self, session: Session | None) -> None:
        """Let go of a session, unless it was replaced by another one meanwhile."""
        if session is None:
            return
        if self._session is session:
            self._session = None
        await _end(session.client, grace_s=0.0)


async def _within(limit_s: float, awaitable: Awaitable[_T]) -> _T:
    """Await with a time-out that stays one.

    The library below turns a cancellation that meets an answer into an exception of its own
    kind, which `asyncio.timeout` does not take for the end of its time.

    Raises:
        TimeoutError: If it takes longer.
    """
    task = asyncio.current_task()
    asked = 0 if task is None else task.cancelling()
    scope = asyncio.timeout(limit_s)
    try:
        async with scope:
            return await awaitable
    except asyncio.CancelledError:
        if scope.expired() and (task is None or task.cancelling() <= asked):
            raise TimeoutError(f"no answer within {limit_s:g} s") from None
        raise


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _end(client: Client, *, grace_s: float) -> None:
    """End a client's tasks and its socket, with a farewell if there is time for one."""
    transport = getattr(client.uaclient.protocol, "transport", None)
    if grace_s <= 0.0 and transport is not None:
        transport.abort()
        await asyncio.sleep(0)
    with contextlib.suppress(Exception):
        await _within(grace_s or 1.0, client.disconnect())
    client.disconnect_socket()
    if transport is not None:
        transport.abort()
    await asyncio.sleep(0)
