"""How a client connects: user, certificates, and what may be wrong with the server's."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.opcua.peers import FAULTS, POLICIES
from perfusio_jax.connectors.opcua.security import (
    check_key_file,
    check_validity,
    load_certificate,
    password_from_environment,
)


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
