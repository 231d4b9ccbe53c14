"""Keeps passwords out of messages, records and configuration files."""

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from perfusio_jax._core import ConfigError

_NAMES: Final = re.compile(
    r"pass(word|wd|phrase)?$|secret|token$|credential|api_?key|private_key$|webhook", re.IGNORECASE
)
_ADDRESS: Final = re.compile(r"(?P<start>[A-Za-z][\w+.-]*://[^\s:/@]*):(?P<secret>[^\s@/]+)@")
_ASSIGNED: Final = re.compile(
    r"(?P<name>\b[\w.-]*(?:password|passwd|pwd|secret|token|api_?key)[\w.-]*['\"]?\s*[=:]\s*)"
    r"(?P<quote>['\"]?)[^\s'\",;&]+",
    re.IGNORECASE,
)
_LONGEST: Final = 500


def redact(text: str) -> str:
    """A text without what looks like a password, and without any value that is one here.

    Args:
        text: E.g. the message of an error from a driver, which may repeat its address.
    """
    for value in _known_secrets():
        text = text.replace(value, "***")
    text = _ADDRESS.sub(r"\g<start>:***@", text)
    return _ASSIGNED.sub(r"\g<name>\g<quote>***", text)


def in_short(error: BaseException) -> str:
    """One line about an error for a record: its kind if it says nothing, without secrets."""
    text = " ".join(str(error).split())
    return redact(text)[:_LONGEST] if text else type(error).__name__


def refuse_secrets(table: Mapping[str, Any], where: str = "") -> None:
    """Refuse a configuration that holds a password.

    Args:
        table: Nested tables as read from a file.
        where: Name of the table, for the message.

    Raises:
        ConfigError: If a key is named like a secret, or an address carries one. The message
            names the place and never the value.
    """
    for key, value in table.items():
        place = f"{where}.{key}" if where else str(key)
        if isinstance(value, Mapping):
            refuse_secrets(value, place)
            continue
        items = value if isinstance(value, (list, tuple)) else [value]
        for item in items:
            if isinstance(item, Mapping):
                refuse_secrets(item, place)
            elif isinstance(item, str) and item:
                named = _NAMES.search(str(key)) and not str(key).endswith(("_env", "_path"))
                if named or _ADDRESS.search(item):
                    raise ConfigError(
                        f"{place} holds a secret; a configuration file may not. Put it into an "
                        "environment variable and name that variable (see docs/twin.md)."
                    )


def _known_secrets() -> list[str]:
    """Values of our environment variables that are secrets, longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if name.startswith("PERFUSIO_")
        and re.search("PASS|SECRET|TOKEN|WEBHOOK|KEY|_PW", name)
        and len(value) >= 4
    }
    return sorted(found, key=len, reverse=True)
