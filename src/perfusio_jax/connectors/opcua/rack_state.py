"""The file that keeps a served culture over a restart."""

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from perfusio_jax._core import DataError
from perfusio_jax._core.instants import instant_of_text
from perfusio_jax._core.limits import TABLE_BYTES, parse_json, read_file
from perfusio_jax.connectors.opcua.rack import Rack
from perfusio_jax.twin import replace_durably

STATE_VERSION: Final = 1


def save_rack(path: Path, rack: Rack, sampled_at: Sequence[dt.datetime]) -> None:
    """Write the state of a rack, whole or not at all.

    Args:
        path: The file; its folder is made if needed.
        rack: The rack.
        sampled_at: When the samples of each day were taken.
    """
    content = {
        "version": STATE_VERSION,
        "rack": rack.snapshot(),
        "sampled_at": [at.isoformat() for at in sampled_at],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, json.dumps(content, allow_nan=False).encode())


def restore_rack(path: Path, rack: Rack) -> list[dt.datetime]:
    """Let a rack go on where it was saved.

    Args:
        path: The file.
        rack: The rack, changed in place.

    Returns:
        When the samples of each day were taken.

    Raises:
        DataError: If the file is not the state of a rack, or of another one.
    """
    try:
        raw = read_file(path, most=TABLE_BYTES)
        content = parse_json(raw, f"{path} is not the state of a rack: it")
        if content["version"] != STATE_VERSION:
            raise DataError(
                f"{path} has version {content['version']}; this program reads {STATE_VERSION}."
            )
        times = [instant_of_text(t, "sampled_at") for t in content["sampled_at"]]
        rack.restore(content["rack"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not the state of a rack: {error}.") from error
    if len(times) != rack.day + 1:
        raise DataError(f"{path} has times of {len(times)} samples.")
    return times
