"""Addresses of servers."""

from urllib.parse import urlparse

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import in_line


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
