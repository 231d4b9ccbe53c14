"""Certificates of server and client: whose they are, until when, and what is spoken with them."""

import datetime as dt
import ipaddress
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Server, ua
from asyncua.server.internal_session import InternalSession
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from perfusio_jax._core import AccessRefused, ConfigError, ConnectorError
from perfusio_jax.connectors.opcua.peers import (
    FAULTS,
    POLICIES,
    application_uri,
    certificate_offered,
    check_named,
    check_offers,
    check_peer,
    faults_of,
    first_of,
)
from perfusio_jax.connectors.opcua.refusals import hint
from tests.connectors.opcua_rigs import connect

NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())


def made(*names: str, start=NOW - DAY, end=NOW + DAY, key: Any = KEY) -> x509.Certificate:
    """A certificate for hosts, addresses and URIs; without any it has no alternative names."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    if name.startswith("urn:") or name == "":
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.mark.parametrize(
    ("host", "names", "is_right"),
    [
        ("rack", ("rack",), True),
        ("RACK.Site.Example", ("rack.site.example",), True),
        ("rack.site.example.", ("rack.site.example",), True),
        ("rack.site.example", ("other", "rack.site.example"), True),
        ("rack.site.example", ("*.site.example",), True),
        ("10.0.0.7", ("10.0.0.7",), True),
        ("::1", ("0:0:0:0:0:0:0:1",), True),
        ("127.0.0.1", ("localhost", "127.0.0.1"), True),
        ("127.0.0.1", ("localhost",), False),
        ("localhost", ("127.0.0.1",), False),
        ("10.0.0.7", ("10.0.0.70",), False),
        ("rack", ("rack2",), False),
        ("rack", ("rack.site.example",), False),
        ("rack.site.example", ("rack",), False),
        ("a.b.site.example", ("*.site.example",), False),
        ("site.example", ("*.site.example",), False),
        ("rack.example", ("*.example",), False),  # of a whole top-level domain
        ("rack.example", ("*",), False),
        ("rack", ("*.",), False),
        ("rack", ("urn:rack",), False),
        ("rack", (), False),
    ],
)
def test_a_certificate_is_for_the_hosts_it_names(host, names, is_right):
    found = faults_of(made(*names), host, NOW)
    assert found == {} if is_right else set(found) == {"foreign_host"}
    if not is_right:
        assert host in found["foreign_host"]


@pytest.mark.parametrize(
    ("start", "end", "fault"),
    [
        (-DAY, DAY, None),
        (0 * DAY, DAY, None),
        (-DAY, 0 * DAY, None),
        (-2 * DAY, -DAY, "expired"),
        (-2 * DAY, dt.timedelta(seconds=-1), "expired"),
        (DAY, 2 * DAY, "not_yet_valid"),
        (dt.timedelta(seconds=1), DAY, "not_yet_valid"),
    ],
)
def test_a_certificate_lasts_from_and_until(start, end, fault):
    certificate = made("rack", start=NOW + start, end=NOW + end)
    assert list(faults_of(certificate, "rack", NOW)) == ([] if fault is None else [fault])
    url = "opc.tcp://rack:4840/x"
    if fault is None:
        check_peer(url, certificate, (), NOW)
        return
    with pytest.raises(AccessRefused, match=rf'server_cert_allow = \["{fault}"\]') as caught:
        check_peer(url, certificate, set(FAULTS) - {fault}, NOW)
    assert "2026-03-0" in str(caught.value)
    check_peer(url, certificate, (fault,), NOW)


def test_all_faults_of_a_certificate_are_named_at_once_and_allowed_ones_are_logged(caplog):
    certificate = made("elsewhere", start=NOW - 2 * DAY, end=NOW - DAY)
    with pytest.raises(AccessRefused, match="has expired .*, and is not for rack"):
        check_peer("opc.tcp://rack:1", certificate, (), NOW)
    with caplog.at_level("WARNING", logger="perfusio_jax.connectors.opcua.peers"):
        check_peer("opc.tcp://rack:1", certificate, ("expired", "foreign_host"), NOW)
    assert len(caplog.records) == 2


def test_we_call_ourselves_what_our_certificate_says():
    assert application_uri(made("rack", "urn:site:twin", "urn:other")) == "urn:site:twin"
    for without in (made(), made("rack"), made("", "rack")):
        assert application_uri(without) is None
        refused = ua.UaStatusCodeError(ua.StatusCodes.BadCertificateUriInvalid)
        assert "no application URI" in hint(refused, without)
    named = hint(refused, made("urn:site:twin"))
    assert "urn:site:twin" in named and "no application URI" not in named
    assert "trust our certificate" in hint(refused)


def offer(policy: str, mode=ua.MessageSecurityMode.SignAndEncrypt, certificate=b"der") -> Any:
    return ua.EndpointDescription(
        SecurityPolicyUri=f"http://opcfoundation.org/UA/SecurityPolicy#{policy}",
        SecurityMode=mode,
        ServerCertificate=certificate,
    )


def test_what_a_server_offers_instead_is_named():
    sign, none = ua.MessageSecurityMode.Sign, ua.MessageSecurityMode.None_
    right = [offer("None", none), offer("Basic256Sha256", sign), offer("Basic256Sha256")]
    check_offers("url", right, "Basic256Sha256")
    assert certificate_offered(right, "Basic256Sha256") == b"der"
    check_offers("url", [], "Basic256Sha256")  # some do not say
    for offers, words in (
        ([offer("None", none)], r"offers None \(None_\) and not Basic256Sha256"),
        ([offer("Basic256Sha256", sign)], r"Basic256Sha256 \(Sign\) and not"),
        ([offer("Aes256_Sha256_RsaPss")], 'security_policy = "Aes256_Sha256_RsaPss" would do'),
        ([offer("Basic256")], r"offers Basic256 \(SignAndEncrypt\)"),
        ([offer("x" * 10_000)], "xxx"),
        ([offer("Basic256Sha256", certificate=None)], "and not"),
    ):
        with pytest.raises(AccessRefused, match=words) as caught:
            check_offers("url", offers, "Basic256Sha256")
        assert len(str(caught.value)) < 300
    with pytest.raises(AccessRefused, match="security_policy = .Basic256Sha256"):
        check_offers("url", right, "Aes256_Sha256_RsaPss")


def test_a_chain_begins_with_the_server_s_own():
    first, second = made("rack"), made("authority")
    chain = first.public_bytes(Encoding.DER) + second.public_bytes(Encoding.DER)
    assert first_of("url", chain) == first
    check_named("url", [offer("Basic256Sha256", certificate=chain)], first, "rack.der")
    with pytest.raises(AccessRefused, match=r"another certificate than rack\.der"):
        check_named("url", [offer("Basic256Sha256", certificate=chain)], second, "rack.der")
    for nothing in (None, b"", b"\x30", b"nonsense" * 100, chain[:40]):
        with pytest.raises(AccessRefused, match="certificate"):
            first_of("url", nothing)


def test_settings_nobody_knows_are_refused():
    for wrong, words in (
        ({"security_policy": "None"}, ", ".join(POLICIES)),
        ({"security_policy": "Basic256"}, "security_policy is 'Basic256'"),
        ({"server_cert_allow": ("everything",)}, ", ".join(FAULTS)),
        ({"server_cert_allow": [1, {}]}, "1, {}"),
    ):
        with pytest.raises(ConfigError, match=words):
            connect("opc.tcp://localhost:4840", **wrong)


# ---------------------------------------------------------------- over the wire


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Of a server that has expired and is for another host, and of clients."""
    folder, now = tmp_path_factory.mktemp("peers"), dt.datetime.now(dt.UTC)
    key = rsa.generate_private_key(65537, 2048)  # slow to make, so all share one
    spans = {"device": (now - 2 * DAY, now - DAY), "twin": (now - DAY, now + DAY)}
    names = {"device": ("urn:site:device", "rack-7"), "twin": ("urn:site:twin", "here")}
    found = {}
    for name, (start, end) in spans.items():
        certificate = made(*names[name], start=start, end=end, key=key)
        paths = folder / f"{name}.der", folder / f"{name}.pem"
        paths[0].write_bytes(certificate.public_bytes(Encoding.DER))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        os.chmod(paths[1], 0o600)
        found[name] = paths
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(pairs) -> AsyncIterator[str]:
    """A server that insists on the application URI, as the standard has it."""
    real = InternalSession.create_session

    async def strict(self, params, *rest, **more):
        uri = application_uri(x509.load_der_x509_certificate(params.ClientCertificate))
        if params.ClientDescription.ApplicationUri != uri:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadCertificateUriInvalid)
        return await real(self, params, *rest, **more)

    server = Server()
    server.disable_clock()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/device")
    await server.load_certificate(str(pairs["device"][0]))
    await server.load_private_key(str(pairs["device"][1]))
    server.set_security_policy(
        [
            ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
            ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
        ]
    )
    await server.nodes.objects.add_variable(ua.NodeId("Glc", 1), "Glc", 4.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InternalSession, "create_session", strict)
        await server.start()
        try:
            yield f"opc.tcp://127.0.0.1:{server.bserver.port}/device"
        finally:
            await server.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("is_named", [False, True])
async def test_a_server_past_its_time_and_of_another_host_is_let_pass_only_if_said(
    url, pairs, is_named
):
    settings: dict[str, Any] = {
        "node_map": {"Glc": "ns=1;s=Glc"},
        "cert_path": pairs["twin"][0],
        "private_key_path": pairs["twin"][1],
        "server_cert_path": pairs["device"][0] if is_named else None,
        "max_retries": 0,
    }
    for allowed in ((), ("expired",), ("foreign_host",), ("not_yet_valid", "expired")):
        async with connect(url, server_cert_allow=allowed, **settings) as connector:
            with pytest.raises(ConnectorError, match="server_cert_allow") as caught:
                await connector.read_sample(0)
            assert ("has expired" in str(caught.value)) == ("expired" not in allowed)
            assert ("rack-7" in str(caught.value)) == ("foreign_host" not in allowed)
    for policy in ("Basic256Sha256", "Aes256_Sha256_RsaPss"):
        both = {"server_cert_allow": ["expired", "foreign_host"], "security_policy": policy}
        async with connect(url, **both, **settings) as connector:
            assert (await connector.read_sample(0))["Glc"] == 4.0
            assert connector._link._session.client.security_policy.URI.endswith(policy)
    async with connect(
        url, **{**both, "security_policy": "Aes128_Sha256_RsaOaep"}, **settings
    ) as connector:
        with pytest.raises(AccessRefused, match="would do"):
            await connector.read_sample(0)
