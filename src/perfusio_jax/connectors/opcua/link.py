"""One OPC UA connection: made when needed, given a time-out at every call, remade when lost."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from asyncua import Client, ua
from asyncua.client.ua_client import UaClientState
from asyncua.crypto.uacrypto import CertProperties
from cryptography.hazmat.primitives.serialization import Encoding

from perfusio_jax._core import AccessRefused, ConfigError, ConnectorError, PerfusioError
from perfusio_jax.connectors.opcua.addresses import check_url
from perfusio_jax.connectors.opcua.client_security import ClientSecurity
from perfusio_jax.connectors.opcua.peers import (
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
    check_validity,
    keep_credentials_out_of_logs,
    load_certificate,
)
from perfusio_jax.connectors.opcua.session import Session, numbered

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_T = TypeVar("_T")
LONGEST_PAUSE_S: Final = 60.0
"""Longest pause between two attempts [s]."""
_log = logging.getLogger(__name__)


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
