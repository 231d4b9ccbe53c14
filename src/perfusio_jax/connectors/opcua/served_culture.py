"""Whether the culture a device says it has is the one that is wanted of it."""

import json
from typing import Any

from perfusio_jax._core import ConfigError
from perfusio_jax.process import Process

_MOST = 100_000
"""Longest description that is read, in characters."""


def check_served(url: str, process: Process | None, said: Any) -> None:
    """Refuse a device of another culture.

    Args:
        url: The device.
        process: The culture wanted; None for CHO perfusion as the reference API has it.
        said: What it says of its culture: JSON, empty for that one, None if it says nothing.

    Raises:
        ConfigError: Naming both cultures and in what they differ.
    """
    if said is None:
        if process is None:
            return
        raise ConfigError(
            f"{url} does not say which culture it has, and {process.name} is wanted; leave "
            "process out of the node map if it has that one all the same."
        )
    found = _read(url, said)
    if found is None and process is None:
        return
    if found is None or process is None:
        theirs = "CHO perfusion as the reference API has it" if found is None else found.name
        ours = "CHO perfusion as the reference API has it" if process is None else process.name
        raise ConfigError(f"{url} serves {theirs}, and {ours} is wanted of it.")
    differs = found.differences(process)
    if differs:
        listed = "; ".join(differs[:6]) + (f"; and {len(differs) - 6} more" if differs[6:] else "")
        raise ConfigError(
            f"{url} serves {found.name}, and {process.name} is wanted of it: {listed} (the "
            "device's first). Serve the same process file, or undo the change."
        )


def _read(url: str, said: Any) -> Process | None:
    if said == "":
        return None
    try:
        if not isinstance(said, str) or len(said) > _MOST:
            raise ValueError("it is no text of a process")
        return Process(**json.loads(said))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{url} says a culture that cannot be read: {error}") from None
