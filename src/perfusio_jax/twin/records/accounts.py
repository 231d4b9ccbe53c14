"""Who acts: the account of a process, and of whoever left a file, as the system says.

Environment variables such as `LOGNAME` are text anybody may set, so they are not asked where the
system knows better.
"""

import getpass
import os
from collections.abc import Mapping
from typing import Any, Final

UNVERIFIED: Final = " (unverified)"
"""Put after a name where the system cannot say whose account it is."""


def account() -> str:
    """Account of this process: that of its effective user.

    Where there are no such numbers (Windows) it is the name its environment gives, with a word
    that it is no more than that.
    """
    if os.name == "posix":
        return name_of(os.geteuid())
    try:
        return getpass.getuser() + UNVERIFIED
    except (OSError, KeyError, ImportError):
        return "unknown" + UNVERIFIED


def name_of(uid: int) -> str:
    """Name of the account with a number; `uid NUMBER` where the system has no name for it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def owner_of(status: os.stat_result, letter: Mapping[str, Any]) -> str:
    """Account that left a file.

    Args:
        status: Of the open file; its owner cannot be chosen by whoever writes it.
        letter: What the file says, which counts only where files have no owner (Windows).

    Returns:
        Name of the account.
    """
    if os.name == "posix":
        return name_of(status.st_uid)
    return str(letter.get("account", "unknown")).removesuffix(UNVERIFIED) + UNVERIFIED
