"""How the page is served: to whom, and what may be asked from it."""

import ipaddress
from pathlib import Path
from typing import NamedTuple

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import in_line

from .accounts import read_accounts


class PageSettings(NamedTuple):
    """How the page is served."""

    accounts: Path
    """File of accounts."""
    is_armed: bool = False
    """Whether somebody who is signed in may ask something of a twin."""
    host: str = "127.0.0.1"
    """Address it is served at."""
    port: int = 8765
    """Port; 0 for any that is free."""
    certificate: Path | None = None
    """File of the certificate (PEM); with it the page is served over TLS."""
    private_key: Path | None = None
    """File of its key (PEM)."""
    names: tuple[str, ...] = ()
    """Names browsers may know it by, beside its address."""

    @property
    def is_local(self) -> bool:
        """Whether it is served to this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_secure(self) -> bool:
        """Whether it is served over TLS."""
        return self.certificate is not None

    @property
    def needs_sign_in(self) -> bool:
        """Whether one has to be signed in to look: always, where others reach the page."""
        return not self.is_local

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """What a browser may call it; a page elsewhere cannot lead it here under its own name."""
        own = ("127.0.0.1", "localhost", "[::1]", "::1") if self.is_local else ()
        named = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(dict.fromkeys((*own, named, *self.names)))


def check(settings: PageSettings) -> PageSettings:
    """Refuse what would let in whoever comes by.

    Args:
        settings: How the page is to be served.

    Returns:
        The same.

    Raises:
        ConfigError: If another address than this machine's own is to be served without TLS or
            accounts, one of certificate and key is missing, or the page is armed and nobody could
            sign in.
    """
    if (settings.certificate is None) != (settings.private_key is None):
        raise ConfigError("--cert and --key go together: a certificate and its private key.")
    for path in (settings.certificate, settings.private_key):
        if path is not None and not path.is_file():
            raise ConfigError(f"there is no file {path}; --cert and --key are files in PEM.")
    accounts = read_accounts(settings.accounts)
    if not settings.is_local:
        lacks = [] if settings.is_secure else ["a certificate and its key (--cert, --key)"]
        lacks += [] if accounts else ["accounts (perfusio-jax account add NAME --role viewer)"]
        if lacks:
            raise ConfigError(
                f"the page is not served at {in_line(settings.host)}, where others reach it, "
                f"without {' and '.join(lacks)}. Without --host it is served to this machine alone."
            )
        unnamed = settings.host in ("0.0.0.0", "::") and not settings.names
        if unnamed:
            raise ConfigError(
                f"at {settings.host} browsers come under many names; say with --name which of "
                "them are this page's, such as --name reactors.example.org."
            )
    if settings.is_armed and not accounts:
        raise ConfigError(
            f"--armed needs somebody who can sign in; {settings.accounts} has no account. "
            "perfusio-jax account add NAME --role operator makes one."
        )
    return settings
