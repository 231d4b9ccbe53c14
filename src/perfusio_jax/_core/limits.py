"""How large what comes from outside may be, and the only ways it is read.

A file may be a device that never ends, a pipe nobody writes to, or a few kilobytes that unpack
to gigabytes. Sizes are looked at before anything is read, taken apart or made room for; what is
too large is refused by name with the limit. The limits are stated in `docs/data.md`.
"""

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .errors import ConfigError, DataError
from .text import in_line

TABLE_BYTES: Final = 50_000_000
"""A table as it lies on the disk [bytes]."""
UNPACKED_BYTES: Final = 200_000_000
"""A table after unpacking [bytes]."""
ROWS: Final = 1_000_000
"""Rows of a table."""
COLUMNS: Final = 1_000
"""Columns of a table."""
CELLS: Final = 10_000_000
"""Cells of a table."""
HEADER_CHARS: Final = 50_000
"""Characters of a first line."""
SETTINGS_BYTES: Final = 1_000_000
"""A TOML file or a JSON header [bytes]."""
DEPTH: Final = 32
"""Tables and lists within each other."""
TEXT_CHARS: Final = 10_000
"""Characters of one text in a TOML file."""
ELEMENTS: Final = 100_000_000
"""Numbers of a saved model: 800 MB."""
RECORD_BYTES: Final = 500_000_000
"""An audit trail or a recording [bytes]."""
KEY_BYTES: Final = 100_000
"""A key or a certificate [bytes]."""

_MARK: Final = re.compile(r"[\"'#\[\]{}.=,\n]")
_STEP: Final = {"[": 1, "{": 1, "]": -1, "}": -1}


def read_file(
    path: Path | str, *, most: int, what: str = "", error: type[Exception] = DataError
) -> bytes:
    """Whole content of a file, never of a device or a pipe.

    Args:
        path: The file.
        most: Bytes it may have.
        what: What it is, for the message; the path alone if empty.
        error: Error to raise.

    Raises:
        OSError: If it is not there, is a folder or cannot be read.
        error: If it is no file, or larger.
    """
    name = f"{what} {path}".strip()
    # A pipe nobody writes to would be waited for when it is opened.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):  # which cannot be made a file object of
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        check_regular(status, name, error)
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        content = b"" if status.st_size > most else file.read(most + 1)
        if max(status.st_size, len(content)) > most:
            raise error(f"{name} is larger than {in_mb(most)}, the most that is read.")
        return content


def check_regular(status: os.stat_result, name: str, error: type[Exception] = DataError) -> None:
    """Refuse a device, a pipe or a socket where a file is meant.

    Args:
        status: Of the place.
        name: What to call it in the message.
        error: Error to raise.

    Raises:
        error: If it is none.
    """
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    kind = next((text for test, text in kinds if test(status.st_mode)), "a device")
    raise error(f"{name} is {kind}, not a file.")


def in_mb(size: int) -> str:
    """A size in words."""
    return f"{size / 1e6:g} MB" if size >= 1_000_000 else f"{size / 1e3:g} kB"


def check_shape(n_rows: int, n_columns: int, what: str = "the table") -> None:
    """Refuse a table of a size nobody's culture has, before room is made for it.

    Args:
        n_rows: Rows.
        n_columns: Columns.
        what: What it is, for the message.

    Raises:
        DataError: If it has too many of anything.
    """
    for n, most, name in (
        (n_columns, COLUMNS, "columns"),
        (n_rows, ROWS, "rows"),
        (n_rows * n_columns, CELLS, "cells"),
    ):
        if n > most:
            raise DataError(f"{what} has more than {most:,} {name}, the most that are read.")


def read_toml(path: Path | str, *, error: type[Exception] = ConfigError) -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: The file.
        error: Error to raise.

    Raises:
        OSError: If it is not there, is a folder or cannot be read.
        error: If it is no file, too large, or not TOML as `parse_toml` takes it.
    """
    return parse_toml(read_file(path, most=SETTINGS_BYTES, error=error), str(path), error=error)


def parse_toml(
    content: bytes | str, where: str, *, error: type[Exception] = ConfigError
) -> dict[str, Any]:
    """Tables of TOML text.

    Args:
        content: The text; bytes are UTF-8, with or without a byte-order mark.
        where: What is read, for the message.
        error: Error to raise.

    Raises:
        error: If it is too large, not TOML, nested deeper than `DEPTH`, or holds an integer of
            more than 64 bits or a text longer than `TEXT_CHARS`.
    """
    if len(content) > SETTINGS_BYTES:
        raise error(f"{where} is larger than {in_mb(SETTINGS_BYTES)}, the most that is read.")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        _check_nesting(text, where, error)
        table = tomllib.loads(text)
    except UnicodeDecodeError as trouble:
        raise error(f"{where} is not TOML: {trouble}") from None
    except RecursionError:
        raise error(f"{where} is not TOML: it is nested too deeply") from None
    except ValueError as trouble:  # not TOML, or an integer of thousands of digits
        if isinstance(trouble, error):
            raise
        raise error(f"{where} is not TOML: {trouble}") from None
    _check_values(table, where, error)
    return table


def parse_json(content: bytes | str, where: str, *, error: type[Exception] = DataError) -> Any:
    """A value of JSON text.

    Args:
        content: The text; bytes are UTF-8.
        where: What is read, for the message.
        error: Error to raise.

    Raises:
        error: If it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise error(f"{where} is not JSON: it is nested too deeply") from None
    except ValueError as trouble:
        raise error(f"{where} is not JSON: {trouble}") from None


def _check_nesting(text: str, where: str, error: type[Exception]) -> None:
    """Count brackets and dots outside strings and comments, in one pass."""
    depth = dots = at = 0
    while (found := _MARK.search(text, at)) is not None:
        mark, at = found[0], found.end()
        if mark in _STEP:
            depth += _STEP[mark]
        elif mark == ".":
            dots += 1
        elif mark == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif mark in "\"'":
            at = _after_string(text, found.start())
        else:
            dots = 0
        if max(depth, dots) > DEPTH:
            line = text.count("\n", 0, at) + 1
            raise error(
                f"{where}: line {line} is nested more than {DEPTH} deep, which no configuration is."
            )


def _after_string(text: str, start: int) -> int:
    """Where a string that begins at a quote has ended."""
    quote = text[start]
    delimiter = quote * 3 if text.startswith(quote * 3, start) else quote
    at = start + len(delimiter)
    while (end := text.find(delimiter, at)) >= 0:
        n_before = end - len(text[at:end].rstrip("\\")) - at if quote == '"' else 0
        if n_before % 2 == 0:
            return end + len(delimiter)
        at = end + 1
    return len(text)


def _check_values(table: Mapping[str, Any], where: str, error: type[Exception]) -> None:
    """Refuse what TOML allows and no configuration holds."""
    open_values: list[tuple[str, Any, int]] = [("", table, 0)]
    while open_values:
        place, value, depth = open_values.pop()
        if depth > DEPTH:
            raise error(f"{where}: it is nested more than {DEPTH} deep, as no configuration is.")
        if isinstance(value, Mapping):
            dot = f"{place}." if place else ""
            open_values += [(f"{dot}{in_line(k)[1:-1]}", v, depth + 1) for k, v in value.items()]
        elif isinstance(value, list):
            open_values += [(place, item, depth + 1) for item in value]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise error(f"{where}: {place} is an integer of more than 64 bits.")
        elif isinstance(value, str) and len(value) > TEXT_CHARS:
            raise error(
                f"{where}: {place} is a text of {len(value)} characters; {TEXT_CHARS} are the most."
            )
