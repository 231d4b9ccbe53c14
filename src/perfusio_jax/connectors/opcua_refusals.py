"""A server that does not let us in: how it shows, and how to say it."""

# pyright: reportPrivateImportUsage=false

from pathlib import Path
from typing import Final

from asyncua import Client, ua
from cryptography.hazmat.primitives.serialization import Encoding

from perfusio_jax._core import AccessRefused
from perfusio_jax._core.text import cut
from perfusio_jax.connectors.opcua_security import load_certificate

_REFUSED: Final = frozenset(
    code
    for name in (
        "BadUserAccessDenied",
        "BadIdentityTokenInvalid",
        "BadIdentityTokenRejected",
        "BadUserSignatureInvalid",
        "BadCertificateUntrusted",
        "BadCertificateInvalid",
        "BadCertificateTimeInvalid",
        "BadCertificateUriInvalid",
        "BadCertificateUseNotAllowed",
        "BadCertificateRevoked",
        "BadSecurityChecksFailed",
        "BadSecurityPolicyRejected",
        "BadSecurityModeRejected",
    )
    if (code := getattr(ua.StatusCodes, name, None)) is not None
)


async def check_named(url: str, named: Path, timeout_s: float) -> None:
    """Ask a server who it is before something is sent that only the named one can read.

    Another server would not answer at all, and nobody would know why. The answer is not signed
    and only spoils the attempt; what lets a server in is the key it proves to have.

    Args:
        url: Of the server.
        named: Certificate it is expected to show.
        timeout_s: How long to wait [s].

    Raises:
        AccessRefused: If it shows another certificate.
    """
    try:
        shown = await Client(url, timeout=timeout_s).connect_and_get_server_endpoints()
    except (OSError, TimeoutError, ua.UaError):
        return  # the connection itself will tell
    wanted = load_certificate(named).public_bytes(Encoding.DER)
    certificates = [e.ServerCertificate for e in shown if e.ServerCertificate]
    if certificates and not any(c.startswith(wanted) for c in certificates):  # or a chain from it
        raise AccessRefused(
            f"{url} shows another certificate than {named.name}, which server_cert_path names."
        )


def is_refusal(error: BaseException) -> bool:
    """Whether an error says that trying again changes nothing."""
    if isinstance(error, ua.UaStatusCodeError):
        return error.code in _REFUSED
    text = str(error)
    return isinstance(error, ua.UaError) and (
        "No matching endpoints" in text or "certificate mismatch" in text
    )


def hint(error: BaseException) -> str:
    """What most often is wrong where a server refuses."""
    text = in_words(error)
    if "User" in text or "Identity" in text:
        return " (user, or password in PERFUSIO_OPCUA_PASSWORD, is wrong or may not do this)"
    if "certificate mismatch" in text:
        return " (server_cert_path names another server's certificate)"
    return " (the server has to trust our certificate, and we its own)"


def in_words(error: BaseException) -> str:
    """A library's error as a phrase, without anything that was sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ua.UaStatusCodeError):
        return ua.StatusCode(error.code).name
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    text = cut(str(error), 500)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
