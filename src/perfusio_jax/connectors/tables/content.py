"""Content of a file another program may be writing to: never read half."""

import os
from pathlib import Path

from perfusio_jax._core import ConnectorError
from perfusio_jax._core.limits import TABLE_BYTES, check_regular, read_file

Signature = tuple[int, int, int]
"""Modification time [ns], size [bytes] and inode: changes whenever the file does."""


def signature(path: Path) -> Signature:
    """What changes when the file does.

    Raises:
        ConnectorError: If the file is not there or cannot be looked at.
        DataError: If it is a device or a pipe.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ConnectorError(f"{path} is not there; check the path, or create it first.") from None
    except OSError as error:
        raise ConnectorError(f"{path} cannot be reached: {error}") from error
    check_regular(status, str(path))
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_bytes(
    path: Path, attempts: int = 3, *, most: int = TABLE_BYTES
) -> tuple[bytes, Signature]:
    """Whole content of a file that did not change while it was read.

    Args:
        path: The file.
        attempts: How often to try; after that the last content read is taken, which is
            harmless for a file that only grows.
        most: Bytes it may have.

    Returns:
        Content and signature.

    Raises:
        ConnectorError: If the file cannot be read.
        DataError: If it is no file, or too large.
    """
    for _ in range(attempts):
        before = signature(path)
        try:
            content = read_file(path, most=most)
        except OSError as error:
            raise ConnectorError(f"{path} cannot be read: {error}") from error
        after = signature(path)
        if before == after and len(content) == after[1]:
            break
    return content, before
