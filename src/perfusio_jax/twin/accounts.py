"""Who runs this process, as the system says."""

import getpass
import socket


def account() -> str:
    """Name of the account; `unknown` where the system has no name for it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def account_and_host() -> str:
    """`name@host`."""
    return f"{account()}@{socket.gethostname()}"
