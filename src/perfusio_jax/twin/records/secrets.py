"""Keeps passwords out of messages, records and configuration files.

Every step here takes a time in proportion to the length of the text: servers send what they like.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, quote_plus

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import LONGEST_MESSAGE, cut

_NAMES: Final = re.compile(
    r"pass(word|wd|phrase)?$|(^|_)pwd?$|secret|token$|credential|api_?key|private_key$|webhook",
    re.IGNORECASE,
)
_SPACES: Final = re.compile(r"(\s+)")
# Counts are bounded, or a class excludes what the next part begins with: nothing is tried twice.
_ASSIGNED: Final = re.compile(
    r"(?P<name>(?:passw(?:or)?d|passphrase|pwd|secret|token|credential|api[_-]?key"
    r"|(?<![^\W_])(?:pass|pw)(?![^\W_]))[\w.-]{0,40}['\"]?\s{0,4}[=:]\s{0,4})"
    r"(?:\"[^\"\n]*\"?|'[^'\n]*'?|[^\s'\",;&]+)",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"(?P<name>\bbearer\s{1,4})[^\s'\",;]+", re.IGNORECASE)
_QUERY: Final = re.compile(r"(?P<name>[?&;#][^=?&;#]*=)[^&;#]*")
_OURS: Final = re.compile(r"PERFUSIO_.*(PASS|SECRET|TOKEN|WEBHOOK|KEY|_PW)|PGPASSWORD$")
_BEGIN: Final = (b"PERFUSIO_", b"PGPASSWORD")
_SHORTEST: Final = 4
"""A shorter value would be found in half of all words."""
_LONGEST: Final = 500
_CLEAR: Final = 8
"""From this length on a value is taken for a secret wherever it stands in a setting."""


def redact(text: str) -> str:
    """A text without what looks like a password, and without any value that is one here.

    Args:
        text: E.g. the message of an error from a driver, which may repeat its address.
    """
    return _redacted(text, known_secrets())


def without_secrets(value: Any) -> Any:
    """Plain data with every text in it as `redact` leaves it.

    Args:
        value: Mappings, lists, texts and numbers, nested; names stay as they are.
    """
    known = known_secrets()

    def walk(item: Any) -> Any:
        if isinstance(item, str):
            return _redacted(item, known)
        if isinstance(item, Mapping):
            return {name: walk(content) for name, content in item.items()}
        if isinstance(item, list | tuple):
            return [walk(content) for content in item]
        return item

    return walk(value)


def in_short(error: BaseException) -> str:
    """One line about an error for a record: its kind if it says nothing, without secrets."""
    text = " ".join(cut(str(error), LONGEST_MESSAGE).split())
    return redact(text)[:_LONGEST] if text else type(error).__name__


def refuse_secrets(table: Mapping[str, Any], where: str = "") -> None:
    """Refuse a configuration that holds a password.

    Args:
        table: Nested tables as read from a file.
        where: Name of the table, for the message.

    Raises:
        ConfigError: If a key is named like a secret, an address carries one or has a query, or
            a value is a secret of this process's environment. The message names the place and
            never the value.
    """
    known = known_secrets()
    places: list[tuple[str, str, Any]] = [(where, "", table)]
    while places:
        place, key, value = places.pop()
        if isinstance(value, Mapping):
            dot = f"{place}." if place else ""
            places += [(f"{dot}{cut(str(name))}", str(name), v) for name, v in value.items()]
        elif isinstance(value, list | tuple):
            places += [(place, key, item) for item in value]
        elif isinstance(value, str) and value:
            named = _NAMES.search(cut(key)) and not key.endswith(("_env", "_path"))
            if named or has_secret(value) or any(_is_in(value, secret) for secret in known):
                raise ConfigError(
                    f"{place} holds a secret; a configuration file may not. Put it into an "
                    "environment variable and name that variable (see docs/twin.md)."
                )


def has_secret(text: str) -> bool:
    """Whether a text holds an address with a password, or with a query named like one."""
    if "://" not in text:
        return False
    whole = text.strip()
    is_address = not any(c.isspace() for c in whole.partition("://")[0])
    for word in [whole] if is_address else whole.split():
        rest = word.partition("://")[2]
        before = rest.rpartition("@")[0]
        if any(c in before for c in ":/?#"):
            return True
        if any(_NAMES.search(cut(name["name"][1:-1])) for name in _QUERY.finditer(rest)):
            return True
    return False


def known_secrets() -> tuple[str, ...]:
    """Values of environment variables that are secrets, as they are and quoted, longest first."""
    found = {
        form
        for name in _names()
        if _OURS.match(name) and len(value := os.environ.get(name, "")) >= _SHORTEST
        for form in (value, quote(value, safe=""), quote(value), quote_plus(value))
    }
    return tuple(sorted(found, key=len, reverse=True))


def _names() -> Iterable[str]:
    """Names of the environment, those that begin like one of ours at least."""
    if not os.supports_bytes_environ:
        return os.environ
    # asked for with every error of every look at a device: not all of it is decoded each time
    return [os.fsdecode(name) for name in os.environb if name.startswith(_BEGIN)]


def _redacted(text: str, known: Sequence[str]) -> str:
    for value in known:
        text = text.replace(value, "***")
    if "://" in text:
        text = "".join(map(_redacted_address, _SPACES.split(text)))
    text = _ASSIGNED.sub(r"\g<name>***", text)
    return _BEARER.sub(r"\g<name>***", text)


def _redacted_address(word: str) -> str:
    """An address rebuilt without its password and the values of its query; other words as is.

    A password may hold `/`, `?` and `:`; so whatever stands before the last `@` is user and
    password, whoever wrote it.
    """
    scheme, mark, rest = word.partition("://")
    if not mark:
        return word
    before, at, place = rest.rpartition("@")
    if "?" in before or "#" in before:  # this `@` may be one of the query
        return f"{scheme}{mark}***"
    user, colon, _ = before.partition(":")
    if colon or "/" in user:
        before = "***" if "/" in user else f"{user}:***"
    return f"{scheme}{mark}{before}{at}{_QUERY.sub(_hidden, place)}"


def _hidden(found: re.Match[str]) -> str:
    return f"{found['name']}***"


def _is_in(text: str, secret: str) -> bool:
    return text == secret or (len(secret) >= _CLEAR and secret in text)
