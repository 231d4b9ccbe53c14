"""A server that does not let us in: how it shows, and how to say it."""

# pyright: reportPrivateImportUsage=false

from typing import Final

from asyncua import ua
from cryptography import x509

from perfusio_jax._core.text import cut
from perfusio_jax.connectors.opcua.peers import application_uri
from perfusio_jax.connectors.opcua.security import CLIENT_URI

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


def is_refusal(error: BaseException) -> bool:
    """Whether an error says that trying again changes nothing."""
    if isinstance(error, ua.UaStatusCodeError):
        return error.code in _REFUSED
    text = str(error)
    return isinstance(error, ua.UaError) and (
        "No matching endpoints" in text or "certificate mismatch" in text
    )


def hint(error: BaseException, own: x509.Certificate | None = None) -> str:
    """What most often is wrong where a server refuses.

    Args:
        error: What it says.
        own: Certificate it was shown.
    """
    text = in_words(error)
    if own is not None and ("Uri" in text or "Certificate" in text or "SecurityChecks" in text):
        uri = application_uri(own)
        if uri is None:
            return (
                " (our certificate has no application URI, a URI in its subjectAltName, such as "
                f"{CLIENT_URI}; servers ask for one: perfusio-jax opcua-certificates makes one "
                "that has it)"
            )
        if "Uri" in text:
            return f" (our certificate is that of {uri}, and so we called ourselves)"
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
