"""Small durable file operations: append whole or not at all, replace atomically.

The only two ways the twin writes files it must be able to trust after a power cut.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, Final

AS_IT_IS: Final[int] = getattr(os, "O_BINARY", 0)
"""Flag of `os.open` without which Windows writes a line's end as two bytes."""

_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")


def append_durably(path: Path, data: bytes) -> None:
    """Append in one write and wait for the disk; on failure the file is as it was.

    Args:
        path: File to append to; made if it is not there.
        data: Bytes to append.

    Raises:
        OSError: If not every byte could be written, or the disk did not confirm them.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | AS_IT_IS, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes fitted on the disk")
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(path.parent)


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a file's content so that a reader sees the old or the new one, never a mix.

    Args:
        path: File to replace; made if it is not there.
        data: Its new content.

    Raises:
        OSError: If it could not be written; the old content then stands.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's list of names is on the disk; not every platform can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def neutralise(cell: Any) -> Any:
    """Make a text cell harmless to spreadsheets, which run text that looks like a formula.

    Args:
        cell: Value of a CSV cell.

    Returns:
        The same value; text that begins with `=`, `+`, `-`, `@`, tab or a line break gets a
        leading apostrophe, which spreadsheets show as plain text.
    """
    if isinstance(cell, str) and cell.startswith(_DANGEROUS):
        return "'" + cell
    return cell
