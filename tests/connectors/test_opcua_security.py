"""Certificates, passwords, secrets: who gets in, and what is never said."""

import contextlib
import logging
import os
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from pydantic import SecretStr

from perfusio_jax._core import AccessRefused, ConfigError, ConnectorError
from perfusio_jax.connectors import RackServer, make_certificates
from perfusio_jax.connectors.opcua.client_security import ClientSecurity
from perfusio_jax.connectors.opcua.security import (
    PASSWORD_VARIABLE,
    CertificatePair,
    ServerSecurity,
    check_validity,
    fingerprint,
)
from tests.connectors.opcua_rigs import EmptyRack, connect, served

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "Tr0ub4dor-and-3"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[str, CertificatePair]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, CertificatePair]:
    return make_certificates(tmp_path_factory.mktemp("strangers"))


def security(pairs: dict[str, CertificatePair], *, users: bool = True) -> ServerSecurity:
    return ServerSecurity(
        pairs["server"],
        (pairs["client"].certificate,),
        {"twin": SecretStr(SECRET)} if users else {},
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(pairs) -> AsyncIterator[RackServer]:
    async with served(rack=EmptyRack(1), security=security(pairs)) as server:
        await server.put_sample("R01", 1, {"VCD": 5.0})
        yield server


def keys(pair: CertificatePair, server: Path | None = None, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"cert_path": pair.certificate, "private_key_path": pair.key}
    if server is not None:
        given["server_cert_path"] = server
    return {**given, "max_retries": 0, **more}


@contextlib.asynccontextmanager
async def refused(url: str, **settings: Any):
    """Nothing is read, and the refusal is quick, final and keeps its secrets."""
    async with connect(url, **{"timeout_s": 0.7, **settings}) as connector:
        assert await connector.is_alive() is False
        with pytest.raises(ConnectorError) as caught:
            await connector.read_sample(1)
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET not in shown and "wrong-password" not in shown
        yield caught.value


async def test_right_certificates_and_password_get_in(server, pairs):
    settings = keys(pairs["client"], pairs["server"].certificate, username="twin", password=SECRET)
    async with connect(server.url, **settings) as connector:
        assert await connector.is_alive()
        assert (await connector.read_sample(1))["VCD"] == 5.0
        await connector.write_setpoints({"temperature": 36.5})
        client = connector._link._session.client
        assert client.security_policy.URI.endswith("Basic256Sha256")
        assert client.security_policy.Mode is ua.MessageSecurityMode.SignAndEncrypt


async def test_the_password_may_come_from_the_environment(server, pairs, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, SECRET)
    settings = keys(pairs["client"], pairs["server"].certificate, username="twin")
    async with connect(server.url, **settings) as connector:
        assert await connector.is_alive()


@pytest.mark.parametrize("user", [("twin", "wrong-password"), ("nobody", SECRET), ("twin", "")])
async def test_a_wrong_user_or_password_is_refused_at_once(server, pairs, user, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong-password")
    name, password = user
    settings = keys(pairs["client"], pairs["server"].certificate, username=name, password=password)
    settings["max_retries"] = 5
    async with refused(server.url, **settings) as error:
        assert isinstance(error, AccessRefused) and "BadUserAccessDenied" in str(error)


async def test_nobody_gets_in_without_a_user(server, pairs):
    settings = keys(pairs["client"], pairs["server"].certificate)
    async with refused(server.url, **settings) as error:
        assert isinstance(error, AccessRefused)


async def test_a_stranger_s_certificate_is_refused(server, pairs, others):
    settings = keys(others["client"], pairs["server"].certificate, username="twin", password=SECRET)
    async with refused(server.url, **settings) as error:
        assert "BadCertificateUntrusted" in str(error)


async def test_a_session_that_hides_its_certificate_gets_no_further(server, others, pairs):
    """Trust is asked again when the user signs in: leaving the certificate out does not help."""
    client = Client(server.url, timeout=2)
    client.application_uri = "urn:perfusio-jax:client"
    client.set_user("twin")
    client.set_password(SECRET)
    from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

    await client.set_security(
        SecurityPolicyBasic256Sha256,
        others["client"].certificate,
        others["client"].key,
        server_certificate=str(pairs["server"].certificate),
    )
    real = client.uaclient.create_session

    async def without(params):
        params.ClientCertificate = None
        return await real(params)

    client.uaclient.create_session = without
    with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied|access"):
        await client.connect()
    client.disconnect_socket()


async def test_no_falling_back_to_an_open_connection(server, pairs):
    # A secure server is not spoken to openly ...
    async with refused(server.url, max_retries=0):
        pass
    # ... nor an open one by a connector that has certificates.
    async with served(rack=EmptyRack(1)) as plain:
        await plain.put_sample("R01", 1, {"VCD": 5.0})
        for pinned in (pairs["server"].certificate, None):
            async with refused(plain.url, **keys(pairs["client"], pinned)):
                pass


async def test_a_server_that_shows_another_certificate_is_not_believed(server, pairs, others):
    settings = keys(pairs["client"], others["server"].certificate, username="twin", password=SECRET)
    async with refused(server.url, **settings) as error:
        assert isinstance(error, AccessRefused) and "shows another certificate" in str(error)


async def test_without_a_named_certificate_the_first_one_seen_is_kept_to(pairs, others):
    async with served(rack=EmptyRack(1), security=security(pairs, users=False)) as first:
        port = first._server.bserver.port
        await first.put_sample("R01", 1, {"VCD": 5.0})
        connector = connect(first.url, **keys(pairs["client"], max_retries=0, timeout_s=1.0))
        assert await connector.is_alive()
    strange = ServerSecurity(others["server"], (pairs["client"].certificate,))
    url = f"opc.tcp://127.0.0.1:{port}/perfusio"
    async with connector, served(rack=EmptyRack(1), security=strange, url=url):
        assert await connector.is_alive() is False
        with pytest.raises(ConnectorError, match="another certificate than before"):
            await connector.read_sample(1)


async def test_trusted_certificates_alone_are_enough_where_no_users_are_named(pairs, others):
    async with served(rack=EmptyRack(1), security=security(pairs, users=False)) as server:
        async with connect(server.url, **keys(pairs["client"])) as connector:
            assert await connector.is_alive()
        async with refused(server.url, **keys(others["client"])):
            pass


async def test_no_secret_is_ever_said(server, pairs, caplog):
    settings = keys(pairs["client"], pairs["server"].certificate, username="twin", password=SECRET)
    key = pairs["client"].key.read_text().splitlines()[1]
    with contextlib.ExitStack() as levels:
        for name in ("asyncua", "asyncua.client", "asyncua.common", "asyncua.server"):
            levels.enter_context(caplog.at_level(logging.DEBUG, logger=name))
        async with connect(server.url, **settings) as connector:
            assert await connector.is_alive()
            for text in (repr(connector), str(connector), repr(vars(connector))):
                assert SECRET not in text
            assert SECRET not in repr(vars(connector._link))
            assert SECRET not in repr(vars(server))
    assert any("Sending" in record.message for record in caplog.records)  # logs were on
    for record in caplog.records:
        said = record.getMessage() + repr(record.args)
        assert SECRET not in said and repr(SECRET.encode())[2:-1] not in said
        assert key not in said


# ---------------------------------------------------------------- what is refused at the start


async def test_certificates_are_made_once_and_private_keys_are_private(tmp_path):
    pairs = make_certificates(tmp_path / "new", host="rack.example")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "client.der",
        "client.pem",
        "server.der",
        "server.pem",
    ]
    assert all(pair.key.stat().st_mode & 0o777 == 0o600 for pair in pairs.values())
    before = pairs["server"].fingerprint
    assert make_certificates(tmp_path / "new")["server"].fingerprint == before
    fresh = make_certificates(tmp_path / "new", overwrite=True)
    assert fresh["server"].fingerprint != before
    assert fingerprint(fresh["server"].certificate).count(":") == 31
    pairs["client"].key.unlink()
    with pytest.raises(ConfigError, match="only one of"):
        make_certificates(tmp_path / "new")
    for days in (0, 100_000):
        with pytest.raises(ConfigError, match="days"):
            make_certificates(tmp_path / "x", days=days)
    for host in ("", "rack 1", "opc.tcp://rack:4840", "rack:4840", "-rack", "ra\nck", "a" * 64):
        with pytest.raises(ConfigError, match="without port or protocol"):
            make_certificates(tmp_path / "x", host=host)
    assert not (tmp_path / "x").exists()
    for k, host in enumerate(("10.0.0.7", "::1", "rack-1", "rack-1.example.org")):
        make_certificates(tmp_path / f"host{k}", host=host)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        make_certificates(tmp_path / "file")


async def test_settings_that_are_not_safe_are_refused(pairs, tmp_path, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    certificate, key = pairs["client"].certificate, pairs["client"].key
    loose = tmp_path / "loose.pem"
    loose.write_bytes(key.read_bytes())
    os.chmod(loose, 0o644)
    nonsense = tmp_path / "nonsense.der"
    nonsense.write_bytes(b"nonsense")
    for settings, words in (
        ({"certificate": certificate}, "belong together"),
        ({"key": key}, "belong together"),
        ({"certificate": certificate, "key": loose}, "read by others"),
        ({"certificate": certificate, "key": tmp_path / "none"}, "cannot be read"),
        ({"certificate": nonsense, "key": key}, "not an X.509 certificate"),
        ({"server_certificate": certificate}, "needs cert_path"),
        ({"password": SecretStr(SECRET)}, "without a username"),
        ({"username": "twin", "password": SecretStr(SECRET)}, "unprotected"),
        ({"username": "twin", "allow_insecure": True}, PASSWORD_VARIABLE),
        ({"username": "twin", "certificate": certificate, "key": key}, PASSWORD_VARIABLE),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            ClientSecurity(**settings)
        assert SECRET not in str(caught.value)
    for far in ("opc.tcp://rack.example:4840", "opc.tcp://127.0.0.1.example:4840"):
        with pytest.raises(ConfigError, match="unprotected"):
            connect(far, allow_write=True)
    assert connect(far, allow_write=False) and connect(far, allow_insecure=True)
    for url in (f"opc.tcp://twin:{SECRET}@localhost:4840", f"http://twin:{SECRET}@localhost"):
        with pytest.raises(ConfigError) as caught:
            connect(url)
        assert SECRET not in str(caught.value)


async def test_a_server_without_security_stays_on_this_machine(pairs):
    for url in ("opc.tcp://0.0.0.0:4840/x", "opc.tcp://192.0.2.1:4840/x"):
        with pytest.raises(ConfigError, match="this machine only"):
            RackServer(EmptyRack(1), url=url)
    for url in ("http://localhost:1", "opc.tcp://localhost", f"opc.tcp://a:{SECRET}@localhost:1"):
        with pytest.raises(ConfigError) as caught:
            RackServer(EmptyRack(1), url=url)
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="at least one trusted"):
        ServerSecurity(pairs["server"], ())


async def test_an_expired_certificate_says_since_when(pairs):
    import datetime as dt

    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    with pytest.raises(ConfigError, match="Make new ones"):
        check_validity(pairs["client"].certificate, later)
