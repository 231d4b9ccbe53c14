"""Device strings as people write them, turned into JAX devices."""

import re
from typing import TypeAlias

import jax

from perfusio_jax._core.errors import ConfigError

Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]
"""A JAX device; the alias is here because type checkers see a variable in `jax.Device`."""

DEVICE_PATTERN = r"^(cpu|gpu|cuda|rocm|tpu|metal)(:\d+)?$"
"""`cpu`, `gpu`, `cuda:1`, ... ; the number counts devices of that platform from 0."""


def resolve_device(device: str | Device) -> Device:
    """Find a device of this process.

    Args:
        device: A JAX device, or a string such as `"cpu"` or `"cuda:0"`.

    Returns:
        The device.

    Raises:
        ConfigError: If the string is malformed or this process has no such device.
    """
    if isinstance(device, jax.Device):
        return device
    if not re.match(DEVICE_PATTERN, device):
        raise ConfigError(
            f"device '{device}' is not understood; write 'cpu', 'gpu', 'cuda:0' or the like."
        )
    platform, _, number = device.partition(":")
    try:
        found = jax.devices(platform)
    except RuntimeError:
        here = ", ".join(sorted({str(d) for d in jax.devices()}))
        raise ConfigError(
            f"device '{device}' is not available to JAX in this process; it sees {here}."
        ) from None
    index = int(number or 0)
    if index >= len(found):
        raise ConfigError(
            f"device '{device}' does not exist: {len(found)} {platform} device(s), numbered from 0."
        )
    return found[index]
