"""Who is at the two ends of a secure connection, by their certificates and what is offered."""

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlparse

from asyncua import Client, ua
from asyncua.crypto.security_policies import (
    SecurityPolicyAes128Sha256RsaOaep,
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from perfusio_jax._core import AccessRefused

POLICIES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "Basic256Sha256": SecurityPolicyBasic256Sha256,
        "Aes128_Sha256_RsaOaep": SecurityPolicyAes128Sha256RsaOaep,
        "Aes256_Sha256_RsaPss": SecurityPolicyAes256Sha256RsaPss,
    }
)
"""Security policies a connector can be told to speak, the one it speaks by itself first."""

FAULTS: Final = ("expired", "not_yet_valid", "foreign_host")
"""What can be wrong with a server's certificate and be allowed for."""

_MODE: Final = ua.MessageSecurityMode.SignAndEncrypt
_log = logging.getLogger(__name__)


def application_uri(certificate: x509.Certificate) -> str | None:
    """The application URI in a certificate's subjectAltName; None if it has none."""
    names = _alternative_names(certificate)
    found = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((uri for uri in found if uri), None)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Names and addresses a certificate is for."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *(str(a) for a in addresses)]


def faults_of(certificate: x509.Certificate, host: str, now: datetime) -> dict[str, str]:
    """What is wrong with a server's certificate, as half a sentence each, by one of `FAULTS`.

    Args:
        certificate: The server's.
        host: Name or address it was reached by.
        now: What time it is.
    """
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    span = f"it is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    found = {}
    if now > end:
        found["expired"] = f"has expired ({span})"
    elif now < start:
        found["not_yet_valid"] = f"is not valid yet ({span})"
    hosts = hosts_of(certificate)
    if not any(_is_host(host, name) for name in hosts):
        shown = ", ".join(hosts[:8]) or "no host at all"
        found["foreign_host"] = f"is not for {host} (it names {shown[:200]})"
    return found


def check_peer(
    url: str, certificate: x509.Certificate, allowed: Collection[str], now: datetime | None = None
) -> None:
    """Refuse a server whose certificate is not right for it, unless that is allowed.

    Args:
        url: Of the server.
        certificate: What it shows, or what is expected of it.
        allowed: Those of `FAULTS` that are let pass, with a warning in the log.
        now: What time it is.

    Raises:
        AccessRefused: Naming each fault and how to allow for it.
    """
    found = faults_of(certificate, urlparse(url).hostname or "", now or datetime.now(UTC))
    for kind in [kind for kind in found if kind in allowed]:
        _log.warning("%s: the certificate of the server %s; allowed for", url, found.pop(kind))
    if found:
        keys = ", ".join(f'"{kind}"' for kind in found)
        raise AccessRefused(
            f"{url}: the certificate of the server {', and '.join(found.values())}; have it "
            f"renewed, or allow for it with server_cert_allow = [{keys}]."
        )


async def offers_of(url: str, timeout_s: float) -> list[ua.EndpointDescription]:
    """What a server offers to anybody who asks.

    The answer is not signed and can only spoil an attempt; what lets a server in is the key it
    proves to have.
    """
    return await Client(url, timeout=timeout_s).connect_and_get_server_endpoints()


def check_offers(url: str, offers: Sequence[ua.EndpointDescription], policy: str) -> None:
    """Refuse a server that does not offer the security we want.

    Args:
        url: Of the server.
        offers: What it offers; nothing says nothing.
        policy: One of `POLICIES`.

    Raises:
        AccessRefused: Naming what it offers.
    """
    if not offers or certificate_offered(offers, policy) is not None:
        return
    shown = sorted({f"{_short(e.SecurityPolicyUri)} ({e.SecurityMode.name})" for e in offers})
    spoken = sorted(
        {_short(e.SecurityPolicyUri) for e in offers if e.SecurityMode is _MODE} & set(POLICIES)
    )
    raise AccessRefused(
        f"{url} offers {', '.join(shown[:12])} and not {policy} (SignAndEncrypt)"
        + (f'; security_policy = "{spoken[0]}" would do.' if spoken else ".")
    )


def certificate_offered(offers: Sequence[ua.EndpointDescription], policy: str) -> bytes | None:
    """The certificate (DER) shown with a policy, signed and encrypted; None where it is not."""
    for offer in offers:
        is_right = offer.SecurityPolicyUri == POLICIES[policy].URI and offer.SecurityMode is _MODE
        if is_right and offer.ServerCertificate:
            return bytes(offer.ServerCertificate)
    return None


def check_named(
    url: str, offers: Sequence[ua.EndpointDescription], wanted: x509.Certificate, name: str
) -> None:
    """Refuse a server that shows another certificate than the one named.

    It would not answer at all to what only the named one can read, and nobody would know why.

    Args:
        url: Of the server.
        offers: What it offers.
        wanted: Certificate it is expected to show.
        name: Of its file.

    Raises:
        AccessRefused: If it shows another one.
    """
    der = wanted.public_bytes(Encoding.DER)
    shown = [e.ServerCertificate for e in offers if e.ServerCertificate]
    if shown and not any(c.startswith(der) for c in shown):  # or a chain from it
        raise AccessRefused(
            f"{url} shows another certificate than {name}, which server_cert_path names."
        )


def first_of(url: str, chain: bytes | None) -> x509.Certificate:
    """The first certificate of a chain as servers send it, one after the other.

    Args:
        url: Of the server.
        chain: What it shows.

    Raises:
        AccessRefused: If it shows none.
    """
    shown = chain or b""
    length = int.from_bytes(shown[2:4], "big") + 4  # DER: two bytes of tag, two of length
    try:
        return x509.load_der_x509_certificate(shown[:length])
    except ValueError as error:
        raise AccessRefused(
            f"{url} shows {'what is no' if shown else 'no'} certificate."
        ) from error


def _alternative_names(certificate: x509.Certificate) -> Any:
    try:
        extensions = certificate.extensions
    except ValueError:  # such as two of one kind
        return None
    try:
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _is_host(host: str, name: str) -> bool:
    """Whether a certificate's name is that of a host; `*.site` stands for one label."""
    try:
        return ip_address(host) == ip_address(name)
    except ValueError:
        pass
    host, name = host.lower().rstrip("."), name.lower().rstrip(".")
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:] and "." in name[2:]
    return host == name


def _short(uri: str | None) -> str:
    return (uri or "nothing").rpartition("#")[2][:60]
