"""The inbox of a run folder: one file per command, so that its owner says who sent it.

Text inside a file is what its writer says; the owner of the file is what the operating system
says. Whoever may put files into the inbox may send commands, and needs no right to change the
journal.
"""

import json
import os
import secrets
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .accounts import account, owner_of
from .entries import JournalError
from .files import replace_durably, sync_folder
from .store import dump

INBOX: Final = "inbox"
"""Folder of the letters, in the run folder."""

MOST_BYTES: Final = 65_536
"""Size of the largest letter [B]."""

MOST_DEEP: Final = 20
"""How deep a letter may be nested: what writes it down calls itself for each level."""

MOST_AT_ONCE: Final = 200
"""Letters taken in at one look; the others wait for the next."""

_LAST_S: Final = 253_402_300_799.0
"""Last second of the calendar; whoever owns a file may give it any time."""

_TEXTS: Final = ("ticket", "reactor_id", "kind", "actor")


@dataclass(frozen=True)
class Letter:
    """One file of the inbox."""

    path: Path
    account: str
    """Who left it, as the file system says."""
    sent_at: float
    """When it was left [s], by the file system."""
    fields: dict[str, Any]
    """What it says; empty if it is no command."""
    trouble: str = ""
    """Why it is none."""


def post(folder: Path, fields: Mapping[str, Any]) -> str:
    """Leave a letter.

    Args:
        folder: Run folder.
        fields: `reactor_id`, `kind`, `actor`, `role` and `payload`.

    Returns:
        Its ticket, by which the outcome is found.

    Raises:
        JournalError: If it cannot be written.
    """
    ticket = secrets.token_hex(16)
    text = dump(
        {**fields, "ticket": ticket, "account": account(), "host": socket.gethostname()}
    ).encode()
    if len(text) > MOST_BYTES:
        raise JournalError(
            f"The command has {len(text)} bytes; {MOST_BYTES} are allowed. Shorten the reason."
        )
    inbox = folder / INBOX
    try:
        inbox.mkdir(exist_ok=True)
        hidden = inbox / f".{ticket}"
        replace_durably(hidden, text)
        hidden.chmod(0o644)  # the twin may run under another account
        hidden.rename(inbox / f"{ticket}.json")
        sync_folder(inbox)
    except OSError as error:
        raise JournalError(
            f"The command cannot be left in {inbox}: {error.strerror}. Whoever may write in that "
            "folder may send commands."
        ) from error
    return ticket


def letters(folder: Path) -> list[Letter]:
    """What lies in the inbox, oldest first, up to `MOST_AT_ONCE`.

    Args:
        folder: Run folder.

    Raises:
        JournalError: If the inbox cannot be read.
    """
    try:
        with os.scandir(os.path.join(folder, INBOX)) as entries:
            there = sorted(age for e in entries if (age := _age(e)) is not None)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalError(f"The inbox {folder / INBOX} cannot be read: {error}") from error
    found = [_read(folder / INBOX / name) for _, name in there[:MOST_AT_ONCE]]
    return [letter for letter in found if letter is not None]


def _age(entry: os.DirEntry[str]) -> tuple[int, str] | None:
    """When something was left in the inbox, and its name; `None` for what is no letter."""
    try:
        if entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
            return None
        return entry.stat(follow_symlinks=False).st_mtime_ns, entry.name
    except FileNotFoundError:  # taken in meanwhile
        return None


def _read(path: Path) -> Letter | None:
    """One file; `None` if it is gone."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        try:
            status = os.lstat(path)
        except OSError:
            return None
        return _letter(path, status, {}, f"it cannot be opened ({error.strerror})")
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return _letter(path, status, {}, "it is not a file")
        text = file.read(MOST_BYTES + 1)
    fields, trouble = _fields(text)
    if status.st_nlink != 1:  # another's file, given a second name here
        fields, trouble = {}, "it is a file that has another name elsewhere"
    return _letter(path, status, fields, trouble)


def _letter(path: Path, status: os.stat_result, fields: dict[str, Any], trouble: str) -> Letter:
    sent_at = min(max(status.st_mtime, 0.0), _LAST_S)
    return Letter(path, owner_of(status, fields), sent_at, fields, trouble)


def _fields(text: bytes) -> tuple[dict[str, Any], str]:
    if len(text) > MOST_BYTES:
        return {}, f"it has more than {MOST_BYTES} bytes"
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}, "it is no JSON"
    if not isinstance(fields, dict):
        return {}, "it is no object of fields"
    for name in _TEXTS:
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            return {}, f"its {name} is no text"
    if not isinstance(fields.get("payload"), dict):
        return {}, "its payload is no object"
    if not isinstance(fields.get("role"), str | None):
        return {}, "its role is no text"
    for name in (*_TEXTS, "role"):
        if not (fields.get(name) or "").isprintable():  # a line of its own is a lie in `status`
            return {}, f"its {name} has characters that cannot be printed"
    if _is_deep(fields["payload"]):
        return {}, f"its payload is nested more than {MOST_DEEP} deep"
    return fields, ""


def _is_deep(value: Any) -> bool:
    """Whether a value is nested too deep, found without a call for each level."""
    level = [value]
    for _ in range(MOST_DEEP):
        inner = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not level:
            return False
    return True
