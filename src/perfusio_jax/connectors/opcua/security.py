"""Certificates, passwords and what may be logged, on both sides of an OPC UA connection."""

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import hmac
import logging
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from asyncua import ua
from asyncua.crypto import cert_gen, uacrypto
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import SecretStr

from perfusio_jax._core import ConfigError
from perfusio_jax._core.limits import KEY_BYTES, read_file

USER_VARIABLE: Final = "PERFUSIO_OPCUA_USER"
PASSWORD_VARIABLE: Final = "PERFUSIO_OPCUA_PASSWORD"
"""Environment variable a password is taken from when none is given."""

CLIENT_URI: Final = "urn:perfusio-jax:client"
SERVER_URI: Final = "urn:perfusio-jax:emulator"
_NAMES: Final = {"server": SERVER_URI, "client": CLIENT_URI}


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A certificate and its private key on disk."""

    certificate: Path
    """DER file."""
    key: Path
    """PEM file, readable by its owner only."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in the usual pairs of digits."""
        return fingerprint(self.certificate)


def fingerprint(path: Path) -> str:
    """SHA-256 of a certificate file, DER or PEM."""
    digest = load_certificate(path).fingerprint(hashes.SHA256()).hex(":")
    return digest.upper()


def load_certificate(path: Path | str) -> x509.Certificate:
    """A certificate from a DER or PEM file.

    Raises:
        ConfigError: If it is not there or not a certificate.
    """
    try:
        content = read_file(path, most=KEY_BYTES, what="certificate", error=ConfigError)
        if content.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(content)
        return x509.load_der_x509_certificate(content)
    except OSError as error:
        raise ConfigError(f"certificate {path} cannot be read: {error.strerror}.") from error
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path} is not an X.509 certificate in DER or PEM form.") from error


def make_certificates(
    folder: Path | str, *, host: str | None = None, days: int = 365, overwrite: bool = False
) -> dict[str, CertificatePair]:
    """Self-signed application certificates for a server and a client.

    Writes `server.der`, `server.pem`, `client.der` and `client.pem` (the PEM files are the
    private keys, with mode 600). The server trusts exactly `client.der`, the client exactly
    `server.der`. Files that are there already stay.

    Args:
        folder: Where to write; made if needed.
        host: Name or address the server is reached by, beside `localhost` and this machine.
        days: How long they are valid [d].
        overwrite: Replace files that are there.

    Returns:
        Pairs under "server" and "client".

    Raises:
        ConfigError: If lifetime or host make no sense, the folder cannot be written, or only one
            half of a pair is there.
    """
    if not 1 <= days <= 3650:
        raise ConfigError(f"days is {days}; a certificate lasts 1 to 3650 days.")
    if host is not None and not _is_host(host):
        raise ConfigError(
            f"host is {host!r}; a name such as rack-1.example.org or an address such as 10.0.0.7 "
            "is needed, without port or protocol."
        )
    folder = Path(folder)
    pairs = {n: CertificatePair(folder / f"{n}.der", folder / f"{n}.pem") for n in _NAMES}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, pair in pairs.items():
            present = (pair.certificate.exists(), pair.key.exists())
            if all(present) and not overwrite:
                continue
            if any(present) and not overwrite:
                raise ConfigError(
                    f"{folder} has only one of {pair.certificate.name} and {pair.key.name}; "
                    "restore the other one or remove this one."
                )
            _write_pair(pair, _NAMES[name], host, days)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}.") from error
    return pairs


def _is_host(text: str) -> bool:
    """Whether a text is an IP address or a DNS name."""
    try:
        ip_address(text)
    except ValueError:
        label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        return len(text) <= 253 and re.fullmatch(rf"{label}(\.{label})*", text) is not None
    return True


def _write_pair(pair: CertificatePair, uri: str, host: str | None, days: int) -> None:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    for known in dict.fromkeys([socket.gethostname(), "localhost", *([host] if host else [])]):
        try:
            names.append(x509.IPAddress(ip_address(known)))
        except ValueError:
            names.append(x509.DNSName(known))
    names.append(x509.IPAddress(ip_address("127.0.0.1")))
    key = cert_gen.generate_private_key()
    certificate = cert_gen.generate_self_signed_app_certificate(
        key,
        uri,
        {"organizationName": "perfusio-jax"},
        names,
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
        days=days,
    )
    pair.key.unlink(missing_ok=True)
    descriptor = os.open(pair.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(cert_gen.dump_private_key_as_pem(key))
    pair.certificate.write_bytes(certificate.public_bytes(Encoding.DER))


def check_key_file(path: Path) -> None:
    """Refuse a private key that others can read.

    Raises:
        ConfigError: If it is not there, or its group or others have any right to it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"private key {path} cannot be read: {error.strerror}.") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(
            f"private key {path} can be read by others (mode {mode & 0o777:o}); chmod 600 it."
        )


def check_validity(path: Path, now: datetime | None = None) -> None:
    """Refuse a certificate that has expired or is not valid yet.

    Raises:
        ConfigError: Saying from when to when it is valid.
    """
    certificate = load_certificate(path)
    now = now or datetime.now(UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now <= end:
        raise ConfigError(
            f"certificate {path} is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} "
            f"UTC; it is {now:%Y-%m-%d %H:%M} now. Make new ones."
        )


def password_from_environment(environment: Mapping[str, str] = os.environ) -> SecretStr | None:
    """The password in `PERFUSIO_OPCUA_PASSWORD`, wrapped so that it does not print."""
    value = environment.get(PASSWORD_VARIABLE)
    return SecretStr(value) if value else None


@dataclass(frozen=True)
class ServerSecurity:
    """What a server asks of its clients; only Basic256Sha256 with SignAndEncrypt is offered."""

    pair: CertificatePair
    """The server's own."""
    trusted: tuple[Path, ...]
    """Certificates of the clients that may connect."""
    users: Mapping[str, SecretStr] = field(default_factory=dict)
    """Password by user name; empty: a trusted certificate is enough."""

    def __post_init__(self) -> None:
        check_key_file(self.pair.key)
        check_validity(self.pair.certificate)
        if not self.trusted:
            raise ConfigError("a secure server needs at least one trusted client certificate.")
        for path in self.trusted:
            load_certificate(path)


class KnownUsers(UserManager):
    """Lets in who has a trusted certificate and, where users are named, the right password."""

    def __init__(self, security: ServerSecurity) -> None:
        self._trusted = {uacrypto.der_from_x509(load_certificate(p)) for p in security.trusted}
        self._users = dict(security.users)

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,
    ) -> User | None:
        """The user, or None if they may not come in."""
        if certificate not in self._trusted:
            return None
        if not self._users:
            return User(role=UserRole.User, name=username)
        wanted = self._users.get(username or "")
        given = (password or "").encode()
        # Compared also for unknown names, so that time does not tell which ones exist.
        right = hmac.compare_digest(
            given, b"" if wanted is None else wanted.get_secret_value().encode()
        )
        if wanted is None or not right:
            return None
        return User(role=UserRole.User, name=username)

    async def validate(self, certificate: x509.Certificate, description: Any) -> None:
        """Refuse application certificates nobody trusts.

        Raises:
            ServiceError: With BadCertificateUntrusted or BadCertificateTimeInvalid.
        """
        from asyncua.common.utils import ServiceError

        if uacrypto.der_from_x509(certificate) not in self._trusted:
            raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)
        now = datetime.now(UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ServiceError(ua.StatusCodes.BadCertificateTimeInvalid)


class _NoCredentials(logging.Filter):
    """Keeps requests that carry credentials out of debug logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        values = record.args if isinstance(record.args, tuple) else (record.args,)
        for value in (record.msg, *values):
            if isinstance(value, ua.ActivateSessionRequest | ua.ActivateSessionParameters):
                return False
            if isinstance(value, ua.UserNameIdentityToken):
                return False
        return True


_SPEAKERS: Final = (
    "asyncua.client.ua_client.UASocketProtocol",
    "asyncua.client.ua_session",
    "asyncua.client.ua_client",
    "asyncua.server.uaprocessor",
    "asyncua.server.internal_session",
)
_FILTER: Final = _NoCredentials()


def keep_credentials_out_of_logs() -> None:
    """Make the protocol library's loggers drop requests that carry a password; idempotent.

    Where nobody has set their levels they also fall silent about what we report ourselves:
    lost connections with a traceback each, and what a server refuses.
    """
    for name in _SPEAKERS:
        logging.getLogger(name).addFilter(_FILTER)
    for name in ("asyncua.client", "asyncua.common", "asyncua.server"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
