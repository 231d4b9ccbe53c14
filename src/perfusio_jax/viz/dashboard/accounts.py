"""Accounts of the page: a file of names, roles and scrypt hashes, never of passwords.

An account says who sits before the page. Towards the twin a command comes from the operating
system's account of the page, with the name as a claim (`twin.records.accounts`).
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import tomli_w

from perfusio_jax._core import ConfigError
from perfusio_jax._core.limits import parse_toml, read_file
from perfusio_jax._core.text import in_line
from perfusio_jax.twin.records.files import replace_durably

ROLES: Final[Mapping[str, frozenset[str]]] = {
    "viewer": frozenset(),
    "operator": frozenset({"acknowledge", "suppress", "approve", "reject", "manual", "disarm"}),
    "supervisor": frozenset(
        {
            *("acknowledge", "suppress", "approve", "reject", "manual", "disarm"),
            *("automatic", "arm", "stop"),
        }
    ),
}
"""What each role may ask. An operator may see to it that less is written; that the twin writes
again, or ends, is for a supervisor to say."""

SHORTEST: Final = 12
"""Characters of a password, at least."""
LONGEST: Final = 200
"""And at most."""
LONGEST_NAME: Final = 64
"""Characters of a name."""

_COST: Final = (2**15, 8, 3)
"""N, r and p of scrypt: 32 MiB and a few tenths of a second for each try."""
_MOST_COST: Final = 2**20
"""N times p of a stored hash, at most: nobody's file makes the page calculate for minutes."""
_MOST_ACCOUNTS: Final = 1000
_BYTES: Final = 200_000
_FIELDS: Final = frozenset({"role", "approves_as", "password"})


class Account(NamedTuple):
    """One account."""

    name: str
    role: str
    """One of `ROLES`."""
    approves_as: tuple[str, ...]
    """Roles of the twin's `approvals` in which this person may approve."""
    password: str
    """As `hashed` gives it."""

    def may(self, what: str) -> bool:
        """Whether this person may ask for something of a twin."""
        return what in ROLES[self.role]


def hashed(password: str, *, cost: tuple[int, int, int] = _COST) -> str:
    """What is kept of a password: "scrypt$N$r$p$salt$hash", the last two in hexadecimal.

    Args:
        password: The password.
        cost: N, r and p.

    Raises:
        ConfigError: If it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(
            f"the password has {len(password)} characters; {SHORTEST} to {LONGEST} are allowed. "
            "Four words nobody would guess together are good ones."
        )
    salt = secrets.token_bytes(16)
    return "$".join(["scrypt", *map(str, cost), salt.hex(), _scrypt(password, salt, *cost).hex()])


def fits(password: str, kept: str) -> bool:
    """Whether a password is the one something was kept of.

    Args:
        password: As it was typed.
        kept: As `hashed` gave it.
    """
    n, r, p, salt, wanted = _parts(kept)
    found = _scrypt(password[: LONGEST + 1], bytes.fromhex(salt), n, r, p)
    return hmac.compare_digest(found, bytes.fromhex(wanted)) and len(password) <= LONGEST


def read_accounts(path: Path) -> dict[str, Account]:
    """Accounts of a file, by name; none where there is no file.

    Args:
        path: TOML, a table for each account.

    Raises:
        ConfigError: If others may read or change the file, or it is no file of accounts.
    """
    try:
        status = path.stat()
        content = read_file(path, most=_BYTES, error=ConfigError)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"the accounts {path} cannot be read: {error.strerror}.") from None
    if os.name == "posix" and status.st_mode & 0o077:
        raise ConfigError(
            f"the accounts {path} have mode {stat.S_IMODE(status.st_mode):04o}; others may read "
            "the hashes or change them. Allowed is 0600: chmod 600 it."
        )
    tables = parse_toml(content, str(path))
    if len(tables) > _MOST_ACCOUNTS:
        raise ConfigError(f"{path} has more than {_MOST_ACCOUNTS} accounts, the most there may be.")
    return {name: _account(name, table, path) for name, table in tables.items()}


def write_accounts(path: Path, accounts: Mapping[str, Account]) -> None:
    """Write a file of accounts, for this user alone.

    Args:
        path: The file; its folder is made.
        accounts: By name.

    Raises:
        OSError: If it cannot be written; the old content then stands.
    """
    tables = {
        name: {"role": a.role, "approves_as": list(a.approves_as), "password": a.password}
        for name, a in sorted(accounts.items())
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o077) if os.name == "posix" else None
    try:
        replace_durably(path, tomli_w.dumps(tables).encode())
    finally:
        if before is not None:
            os.umask(before)


def checked_name(name: str) -> str:
    """A name as an account may have it.

    Raises:
        ConfigError: If it is empty, long, or has characters nobody sees.
    """
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise ConfigError(
            f"an account cannot be called {in_line(name)}: 1 to {LONGEST_NAME} characters are "
            "allowed, all of them visible, without spaces around them."
        )
    return name


def checked_role(role: str) -> str:
    """A role there is.

    Raises:
        ConfigError: If there is none of that name.
    """
    if role not in ROLES:
        raise ConfigError(f"role {in_line(role)} is unknown; allowed are {', '.join(ROLES)}.")
    return role


def _account(name: str, table: Any, path: Path) -> Account:
    if not isinstance(table, Mapping) or set(table) - _FIELDS or "password" not in table:
        raise ConfigError(
            f"{path}: {in_line(name)} is no account; each is a table with role, approves_as and "
            "password. perfusio-jax account add writes one."
        )
    roles, kept = table.get("approves_as", []), table["password"]
    if not (isinstance(roles, list) and all(isinstance(r, str) for r in roles)):
        raise ConfigError(f"{path}: approves_as of {in_line(name)} is no list of roles.")
    try:
        _parts(kept)
        return Account(checked_name(name), checked_role(str(table.get("role"))), tuple(roles), kept)
    except (ConfigError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: {in_line(name)}: {error}") from None


def _parts(kept: str) -> tuple[int, int, int, str, str]:
    kind, *numbers, salt, wanted = kept.split("$")
    n, r, p = (int(v) for v in numbers)
    is_fine = kind == "scrypt" and 2 <= n * p <= _MOST_COST and n & (n - 1) == 0 and 1 <= r <= 16
    if not (is_fine and p >= 1 and len(bytes.fromhex(salt)) >= 8 and bytes.fromhex(wanted)):
        raise ConfigError("its password is not of the form scrypt$N$r$p$salt$hash.")
    return n, r, p, salt, wanted


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    room = 128 * r * (n + p + 2) + (1 << 20)
    text = password.encode("utf-8", errors="surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, maxmem=room, dklen=32)
